//! The parser's tree → typed nodes. What is not of the language is refused by name, with its place.

mod choices;
mod literals;
mod operators;
mod spans;

use std::ops::Range;

use sqlparser::ast::{Expr, Ident, UnaryOperator};

use super::{
    Item, Mistake, Planned,
    evaluate::{Rows, evaluate},
    functions,
    kind::{Kind, Literal},
    node::{Node, Op},
    source::Source,
};

/// A column that an expression may name.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) is_label: bool,
    pub(crate) nullable: bool,
}

/// The columns of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) table: &'a str,
    pub(crate) fields: &'a [Field],
}

impl Scope<'_> {
    /// Returns all columns.
    pub(super) fn all(&self, span: &Range<usize>) -> Vec<Item> {
        let item = |(at, field): (usize, &Field)| Item {
            name: field.name.clone(),
            span: span.clone(),
            node: column(at, field),
        };
        self.fields.iter().enumerate().map(item).collect()
    }

    /// Finds a column: written exactly so, or, without quotes, in another case.
    fn find(&self, name: &Ident) -> Option<Node> {
        let exact = self.fields.iter().position(|field| field.name == name.value);
        let in_any_case = || {
            let mut fitting = (0..).zip(self.fields).filter(|(_, f)| f.name.eq_ignore_ascii_case(&name.value));
            fitting.next().filter(|_| name.quote_style.is_none() && fitting.next().is_none()).map(|(at, _)| at)
        };
        let at = exact.or_else(in_any_case)?;
        Some(column(at, &self.fields[at]))
    }
}

fn column(at: usize, field: &Field) -> Node {
    Node {
        op: Op::Column(at),
        kind: field.kind,
        is_label: field.is_label,
        nullable: field.nullable,
        can_fail: false,
        columns: [at].into(),
        text: field.name.as_str().into(),
    }
}

/// Returns where an expression stands in its text.
pub(super) fn span_of(tree: &Expr, source: &Source) -> Range<usize> {
    spans::span(source, tree)
}

/// Types an expression over the rows of a table.
pub(super) fn plan(tree: &Expr, scope: &Scope<'_>, source: &Source) -> Result<Node, Vec<Mistake>> {
    let mut planner = Planner { scope, source, depth: 0, others: Vec::new() };
    planner.expression(tree).map_err(|first| {
        let mut mistakes = planner.others;
        mistakes.insert(0, *first);
        mistakes.sort_by_key(|mistake| mistake.span.start);
        mistakes
    })
}

pub(super) struct Planner<'a> {
    pub(super) scope: &'a Scope<'a>,
    source: &'a Source,
    depth: usize,
    /// Mistakes beside the one that is returned.
    others: Vec<Mistake>,
}

impl Planner<'_> {
    pub(super) fn expression(&mut self, tree: &Expr) -> Planned<Node> {
        self.depth += 1;
        if self.depth > DEEPEST {
            let title = "this expression is nested too deeply";
            let help = "split it, by a table that is `from` another derived one";
            return Err(self.mistake(tree, title).help(help).into());
        }
        let depth = self.depth;
        let planned = self.any(tree).and_then(|node| self.folded(tree, node));
        self.depth = depth - 1;
        planned
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the parser knows all of SQL, and more with each version")]
    fn any(&mut self, tree: &Expr) -> Planned<Node> {
        match tree {
            Expr::Identifier(name) => self.column(name),
            Expr::Nested(inner) => self.expression(inner),
            Expr::Value(value) => self.literal(value),
            Expr::Interval(interval) => self.interval(tree, interval),
            Expr::TypedString(_) => Err(self
                .not_ours(tree, "a type before a text")
                .help("write a time as '2026-11-24T09:41:03Z', or cast('…' as time)")
                .into()),
            Expr::BinaryOp { left, op, right } => self.binary(tree, left, op, right),
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
                let of = self.truth(expr, "not")?;
                Ok(Node::over(Op::Not(of.into()), Kind::Bool, self.text(tree)))
            }
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => self.negated(tree, expr),
            Expr::UnaryOp { op: UnaryOperator::Plus, expr } => self.number(expr, "+"),
            Expr::IsNull(of) => self.is_null(tree, of, false),
            Expr::IsNotNull(of) => self.is_null(tree, of, true),
            Expr::IsTrue(of) => self.is_truth(tree, of, true, false),
            Expr::IsNotTrue(of) => self.is_truth(tree, of, true, true),
            Expr::IsFalse(of) => self.is_truth(tree, of, false, false),
            Expr::IsNotFalse(of) => self.is_truth(tree, of, false, true),
            Expr::InList { expr, list, negated } => self.in_list(tree, expr, list, *negated),
            Expr::Between { expr, negated, low, high } => self.between(tree, expr, low, high, *negated),
            Expr::Like { negated, any: false, expr, pattern, escape_char } => {
                self.like(tree, expr, pattern, escape_char.as_ref(), *negated)
            }
            Expr::Case { operand, conditions, else_result, .. } => {
                self.case(tree, operand.as_deref(), conditions, else_result.as_deref())
            }
            Expr::Cast { .. } => self.cast(tree),
            Expr::Function(_) | Expr::Ceil { .. } | Expr::Floor { .. } | Expr::Substring { .. } => {
                functions::call(self, tree)
            }
            other => Err(self.refused(other)),
        }
    }

    fn column(&self, name: &Ident) -> Planned<Node> {
        if let Some(node) = self.scope.find(name) {
            return Ok(node);
        }
        let span = self.source.span(name.span);
        let title = format!("table `{}` has no column `{}`", self.scope.table, name.value);
        let known = self.scope.fields.iter().map(|field| field.name.clone());
        let mistake = Mistake::new(span, title).among(&name.value, known);
        Err(Box::new(match name.quote_style {
            Some('"') => mistake.help("a text stands in single quotes: '…'"),
            _ if VOLATILE.iter().any(|word| name.value.eq_ignore_ascii_case(word)) => mistake.help(NO_CLOCK),
            _ => mistake,
        }))
    }

    /// Replaces what reads no column by its value, which is known now.
    fn folded(&self, tree: &Expr, node: Node) -> Planned<Node> {
        if !node.columns.is_empty() || node.as_literal().is_some() {
            return Ok(node);
        }
        match evaluate(&node, &Rows { columns: &[], rows: 1 }) {
            Ok(value) => {
                let literal = value.literal(0);
                let kind = node.kind;
                // A NULL keeps the type that a cast has given it.
                Ok(Node { kind, ..Node::literal(literal, &node.text) })
            }
            // The value of a variable may be anybody's secret.
            Err(failure) if node.text.contains("${") => {
                let title =
                    format!("`{}` has no value: what the variable stands for does not go with it", failure.text);
                Err(self.mistake(tree, title).into())
            }
            Err(failure) => Err(self.mistake(tree, format!("this has no value: {}", failure.why)).into()),
        }
    }

    /// Returns a part that has to be true or false.
    pub(super) fn truth(&mut self, tree: &Expr, operator: &str) -> Planned<Node> {
        let node = self.expression(tree)?;
        if matches!(node.kind, Kind::Bool | Kind::Null) {
            return Ok(node);
        }
        let title = format!("`{operator}` is for true and false, and this is {}", node.described());
        Err(self.mistake(tree, title).label("compare it with something").into())
    }

    /// Returns a part that has to be a number.
    pub(super) fn number(&mut self, tree: &Expr, operator: &str) -> Planned<Node> {
        let node = self.expression(tree)?;
        if node.kind.is_number() || node.kind == Kind::Null {
            return Ok(node);
        }
        let title = format!("`{operator}` is for numbers, and this is {}", node.described());
        Err(self.mistake(tree, title).into())
    }

    /// Returns a part that has to be a text.
    pub(super) fn words(&mut self, tree: &Expr, operator: &str) -> Planned<Node> {
        let node = self.expression(tree)?;
        if matches!(node.kind, Kind::Text | Kind::Null) {
            return Ok(node);
        }
        let title = format!("`{operator}` is for texts, and this is {}", node.described());
        Err(self.mistake(tree, title).help(format!("write cast({} as text)", node.text)).into())
    }

    pub(super) fn mistake(&self, tree: &Expr, title: impl Into<String>) -> Mistake {
        Mistake::new(self.span(tree), title)
    }

    pub(super) fn not_ours(&self, tree: &Expr, what: &str) -> Mistake {
        self.mistake(tree, format!("{what} is not in this language"))
    }

    pub(super) fn span(&self, tree: &Expr) -> Range<usize> {
        spans::span(self.source, tree)
    }

    pub(super) fn text(&self, tree: &Expr) -> &str {
        self.source.text.get(self.span(tree)).unwrap_or_default().trim()
    }

    /// Names what is not in the language.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the parser knows all of SQL, and more with each version")]
    fn refused(&self, tree: &Expr) -> Box<Mistake> {
        let (what, help) = match tree {
            Expr::CompoundIdentifier(parts) => {
                let column = parts.last().map_or("", |part| &part.value);
                ("a name with a `.` in it".to_owned(), format!("there is one table: write `{column}`"))
            }
            Expr::ILike { .. } => ("`ilike`".to_owned(), "write lower(…) like '…'".to_owned()),
            Expr::Like { .. } => ("`like any`".to_owned(), "write one `like`, `or` another".to_owned()),
            Expr::SimilarTo { .. } | Expr::RLike { .. } => ("a regular expression".to_owned(), LIKE.to_owned()),
            Expr::IsDistinctFrom(..) | Expr::IsNotDistinctFrom(..) => {
                ("`is distinct from`".to_owned(), "write `=` and `is null`".to_owned())
            }
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => (
                "a query within an expression".to_owned(),
                "an expression sees one row: `from` names the table".to_owned(),
            ),
            Expr::UnaryOp { op, .. } => (format!("the operator `{op}`"), OPERATORS.to_owned()),
            Expr::Extract { .. } => ("`extract`".to_owned(), functions::known()),
            Expr::Position { .. } => ("`position`".to_owned(), functions::known()),
            Expr::Trim { .. } => ("`trim`".to_owned(), functions::known()),
            Expr::Overlay { .. } => ("`overlay`".to_owned(), functions::known()),
            Expr::Convert { .. } => ("`convert`".to_owned(), "write cast(… as …)".to_owned()),
            Expr::AtTimeZone { .. } => ("a time zone".to_owned(), "times are UTC".to_owned()),
            Expr::Tuple(_) => ("a list of values".to_owned(), "lists stand behind `in`".to_owned()),
            Expr::Array(_) | Expr::CompoundFieldAccess { .. } | Expr::JsonAccess { .. } => {
                ("a look into a list".to_owned(), "lists and levels are passed on as they are".to_owned())
            }
            _ => ("this".to_owned(), format!("{OPERATORS}; {}", functions::known())),
        };
        self.not_ours(tree, &what).help(help).into()
    }
}

/// Said where something else was written.
pub(crate) const OPERATORS: &str =
    "there are + - * / % || = <> < <= > >= and, or, not, is [not] null, in, between, like, case, cast";
const LIKE: &str = "write `like`: `%` stands for any characters, `_` for one";

/// Words of SQL for what changes by itself.
pub(super) const VOLATILE: [&str; 14] = [
    "now",
    "random",
    "rand",
    "current_timestamp",
    "current_time",
    "current_date",
    "localtime",
    "localtimestamp",
    "clock_timestamp",
    "uuid",
    "gen_random_uuid",
    "newid",
    "today",
    "nextval",
];
pub(super) const NO_CLOCK: &str = "an expression has no clock and no chance, so that a row is the same when it is sent again; `ts_recv` is when it came";

/// How deep nodes may be: evaluation goes down as deep.
const DEEPEST: usize = 64;

/// Returns a literal as a node of another kind that says the same, where there is one.
pub(super) fn adapted(node: &Node, kind: Kind) -> Option<Node> {
    let literal = node.as_literal()?;
    let adapted = match literal {
        Literal::Null if matches!(node.kind, Kind::Null) => Some(Literal::Null),
        Literal::Text(text) if kind == Kind::Time => crate::row::time(text).map(|time| Literal::Time(time.0)),
        Literal::I64(_) | Literal::U64(_) => literal.integer_as(kind),
        Literal::Null | Literal::Bool(_) | Literal::F64(_) | Literal::Text(_) | Literal::Time(_) => None,
    };
    adapted.map(|literal| Node { kind, ..Node::literal(literal, &node.text) })
}
