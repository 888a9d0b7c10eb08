//! The functions of the language: few, and each the same for the same row, always.

use sqlparser::ast::{CeilFloorKind, DateTimeField, Expr, FunctionArg, FunctionArgExpr, FunctionArguments};

use super::{
    Mistake, Planned,
    kind::{Kind, Literal},
    node::{Node, Op},
    planner::{NO_CLOCK, Planner, VOLATILE},
};
use crate::config::nearest;

/// A function, for the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionInfo {
    /// How it is called.
    pub call: &'static str,
    /// What it returns.
    pub about: &'static str,
}

/// All functions, in the order of the reference.
pub const FUNCTIONS: [FunctionInfo; 16] = [
    info("abs(x)", "x without its sign; i64 or f64"),
    info(
        "round(x), round(x, digits)",
        "the nearest whole number, or with so many digits (0 to 15); halves go away from zero",
    ),
    info("floor(x)", "the greatest whole number that is not above x"),
    info("ceil(x)", "the least whole number that is not below x"),
    info("least(a, b, …)", "the least of those that are not null"),
    info("greatest(a, b, …)", "the greatest of those that are not null"),
    info("coalesce(a, b, …)", "the first that is not null; the others are not asked"),
    info("nullif(a, b)", "a, or null where it equals b: nullif(size, 0)"),
    info("lower(text)", "in lower case"),
    info("upper(text)", "in upper case"),
    info("length(text)", "how many characters it has"),
    info("substr(text, from), substr(text, from, count)", "characters from a place on, the first is 1; also substring"),
    info("left(text, n)", "the first n characters; all but the last -n where n is negative"),
    info("right(text, n)", "the last n characters; all but the first -n where n is negative"),
    info(
        "split_part(text, separator, n)",
        "the n-th part, the first is 1; from the end where n is negative; '' where there is none",
    ),
    info("a || b", "one text behind the other; null where one is"),
];

const fn info(call: &'static str, about: &'static str) -> FunctionInfo {
    FunctionInfo { call, about }
}

/// A function that works on each row for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Abs,
    /// To so many digits.
    Round(i32),
    Floor,
    Ceil,
    Lower,
    Upper,
    Length,
    Substr,
    Left,
    Right,
    SplitPart,
    Concat,
}

/// Names the functions, for a remedy.
pub(super) fn known() -> String {
    let names = FUNCTIONS.iter().map(|function| name_of(function.call)).filter(|name| !name.contains(' '));
    format!("functions are {}", names.collect::<Vec<_>>().join(", "))
}

fn name_of(call: &'static str) -> &'static str {
    call.split('(').next().unwrap_or(call)
}

/// Plans a call.
#[expect(clippy::wildcard_enum_match_arm, reason = "the planner sends calls only")]
pub(super) fn call(planner: &mut Planner<'_>, tree: &Expr) -> Planned<Node> {
    match tree {
        Expr::Floor { expr, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
            planned(planner, tree, "floor", &[&**expr])
        }
        Expr::Ceil { expr, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
            planned(planner, tree, "ceil", &[&**expr])
        }
        Expr::Floor { .. } | Expr::Ceil { .. } => {
            Err(planner.not_ours(tree, "rounding to something").help("floor(x), ceil(x), round(x, digits)").into())
        }
        Expr::Substring { expr, substring_from, substring_for, .. } => {
            let one = Expr::Value(sqlparser::ast::Value::Number("1".into(), false).into());
            let from = substring_from.as_deref().unwrap_or(&one);
            let mut arguments = vec![&**expr, from];
            arguments.extend(substring_for.as_deref());
            planned(planner, tree, "substr", &arguments)
        }
        Expr::Function(function) => {
            let name = function.name.to_string().to_lowercase();
            let is_plain = function.filter.is_none()
                && function.over.is_none()
                && function.null_treatment.is_none()
                && function.within_group.is_empty()
                && matches!(function.parameters, FunctionArguments::None);
            let list = match &function.args {
                FunctionArguments::List(list) if list.clauses.is_empty() && list.duplicate_treatment.is_none() => {
                    &list.args[..]
                }
                FunctionArguments::None => &[],
                FunctionArguments::List(_) | FunctionArguments::Subquery(_) => {
                    return Err(unknown(planner, tree, &name));
                }
            };
            let argument = |argument: &'_ FunctionArg| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(std::ptr::from_ref(expr)),
                _ => None,
            };
            // Looked at twice, so that the borrow is of the tree.
            if !is_plain || list.iter().any(|one| argument(one).is_none()) {
                return Err(unknown(planner, tree, &name));
            }
            let arguments: Vec<&Expr> = list
                .iter()
                .filter_map(|one| match one {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
                    _ => None,
                })
                .collect();
            planned(planner, tree, &name, &arguments)
        }
        other => Err(unknown(planner, other, "this")),
    }
}

fn planned(planner: &mut Planner<'_>, tree: &Expr, name: &str, arguments: &[&Expr]) -> Planned<Node> {
    let wanted = match name {
        "abs" | "floor" | "ceil" | "ceiling" | "lower" | "upper" | "length" => 1..=1,
        "round" => 1..=2,
        "nullif" | "left" | "right" => 2..=2,
        "substr" | "substring" => 2..=3,
        "split_part" => 3..=3,
        "least" | "greatest" | "coalesce" => 1..=usize::MAX,
        _ => return Err(unknown(planner, tree, name)),
    };
    if !wanted.contains(&arguments.len()) {
        let title = format!("`{name}` does not take {} values", arguments.len());
        let call =
            FUNCTIONS.iter().find(|function| name_of(function.call) == name).map_or("", |function| function.call);
        return Err(planner.mistake(tree, title).help(format!("it is called {call}")).into());
    }
    match name {
        "abs" | "floor" | "ceil" | "ceiling" | "round" => number(planner, tree, name, arguments),
        "least" | "greatest" | "coalesce" | "nullif" => several(planner, tree, name, arguments),
        _ => text(planner, tree, name, arguments),
    }
}

fn number(planner: &mut Planner<'_>, tree: &Expr, name: &str, arguments: &[&Expr]) -> Planned<Node> {
    let of = planner.number(arguments[0], name)?;
    let function = match (name, arguments.get(1)) {
        ("abs", _) => Function::Abs,
        ("floor", _) => Function::Floor,
        ("round", None) => Function::Round(0),
        ("round", Some(digits)) => {
            let node = planner.expression(digits)?;
            match node.as_literal() {
                Some(Literal::I64(digits @ 0..=15)) => Function::Round(*digits as i32),
                _ => {
                    let title = format!("`{}` is no number of digits", node.text);
                    return Err(planner.mistake(digits, title).help("a literal from 0 to 15").into());
                }
            }
        }
        _ => Function::Ceil,
    };
    // An integer is whole, and one that is never negative has no sign.
    let is_as_it_is =
        of.kind == Kind::Null || of.kind == Kind::U64 || of.kind == Kind::I64 && function != Function::Abs;
    if is_as_it_is {
        return Ok(of);
    }
    let kind = of.kind;
    let node = Node::over(Op::Call(function, vec![of]), kind, planner.text(tree));
    Ok(if matches!(function, Function::Abs | Function::Round(_)) { node.failing() } else { node })
}

fn several(planner: &mut Planner<'_>, tree: &Expr, name: &str, arguments: &[&Expr]) -> Planned<Node> {
    let values = arguments.iter().map(|tree| Ok((planner.expression(tree)?, *tree))).collect::<Planned<Vec<_>>>()?;
    let (kind, values) = planner.alike(values)?;
    let text = planner.text(tree).to_owned();
    let is_nullable = values.iter().all(|value| value.nullable);
    let is_label = kind == Kind::Text && values.iter().all(|value| value.is_label);
    let node = match (name, <[Node; 2]>::try_from(values.clone())) {
        ("nullif", Ok([one, other])) => {
            let is_label = one.is_label && kind == Kind::Text;
            let node = Node::over(Op::NullIf([one, other].into()), kind, &text).with_nulls(true);
            return Ok(Node { is_label, ..node });
        }
        ("coalesce", _) => Node::over(Op::Coalesce(values), kind, &text),
        _ => Node::over(Op::Extreme { greatest: name == "greatest", of: values }, kind, &text),
    };
    Ok(Node { is_label, ..node.with_nulls(is_nullable) })
}

fn text(planner: &mut Planner<'_>, tree: &Expr, name: &str, arguments: &[&Expr]) -> Planned<Node> {
    let mut nodes = vec![planner.words(arguments[0], name)?];
    let function = match name {
        "lower" => Function::Lower,
        "upper" => Function::Upper,
        "length" => Function::Length,
        "left" => Function::Left,
        "right" => Function::Right,
        "split_part" => Function::SplitPart,
        _ => Function::Substr,
    };
    for (at, argument) in arguments.iter().enumerate().skip(1) {
        nodes.push(if function == Function::SplitPart && at == 1 {
            planner.words(argument, name)?
        } else {
            place(planner, argument, name)?
        });
    }
    let kind = if function == Function::Length { Kind::I64 } else { Kind::Text };
    let is_label = kind == Kind::Text && nodes[0].is_label && nodes[1..].iter().all(|node| node.as_literal().is_some());
    let node = Node::over(Op::Call(function, nodes), kind, planner.text(tree));
    let node = Node { is_label, ..node };
    Ok(if matches!(function, Function::Substr | Function::SplitPart) { node.failing() } else { node })
}

/// Returns a part that counts characters.
fn place(planner: &mut Planner<'_>, tree: &Expr, name: &str) -> Planned<Node> {
    let node = planner.expression(tree)?;
    match node.kind {
        Kind::I64 => Ok(node),
        Kind::Null => Ok(Node { kind: Kind::I64, ..node }),
        Kind::Bool | Kind::U64 | Kind::F64 | Kind::Text | Kind::Time | Kind::Levels | Kind::ListI64 => {
            let title = format!("`{name}` counts in i64, and this is {}", node.described());
            Err(planner.mistake(tree, title).help(format!("write cast({} as i64)", node.text)).into())
        }
    }
}

fn unknown(planner: &Planner<'_>, tree: &Expr, name: &str) -> Box<Mistake> {
    if VOLATILE.contains(&name) {
        let title = format!("`{name}` is not in this language");
        return planner.mistake(tree, title).help(NO_CLOCK).into();
    }
    let title = format!("there is no function `{name}`");
    let names: Vec<&str> = FUNCTIONS.iter().map(|function| name_of(function.call)).collect();
    let mistake = planner.mistake(tree, title);
    Box::new(match nearest(name, names.iter().copied().filter(|name| !name.contains(' '))) {
        Some(near) => mistake.label(format!("did you mean `{near}`?")).help(known()),
        None => mistake.help(known()),
    })
}
