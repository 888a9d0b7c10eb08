//! `in`, `between`, `like`, `case`, `cast`, and what else takes several values of one type.

use std::sync::Arc;

use sqlparser::ast::{CaseWhen, CastKind, DataType, Expr, Value, ValueWithSpan};

use super::{
    super::{
        Planned,
        kernels::texts::Pattern,
        kind::{Kind, Literal},
        node::{Comparison, Node, Op, Set, Values},
    },
    Planner, adapted,
};

impl Planner<'_> {
    pub(super) fn in_list(&mut self, tree: &Expr, of: &Expr, list: &[Expr], negated: bool) -> Planned<Node> {
        let of = self.expression(of)?;
        let items = list.iter().map(|item| self.expression(item)).collect::<Planned<Vec<_>>>()?;
        let mut compared = Vec::new();
        for (item, written) in items.into_iter().zip(list) {
            let (_, item) = self.comparable(written, of.clone(), item)?;
            compared.push(item);
        }
        let node = match set_of(&of, &compared) {
            Some(set) => {
                let nullable = of.nullable || set.has_null;
                let op = Op::In { of: of.into(), set };
                Node::over(op, Kind::Bool, self.text(tree)).with_nulls(nullable)
            }
            None => {
                let each = compared.into_iter().map(|item| self.compare(tree, Comparison::Equal, of.clone(), item));
                Node::over(Op::Or(each.collect::<Planned<_>>()?), Kind::Bool, self.text(tree))
            }
        };
        Ok(self.perhaps_not(tree, node, negated))
    }

    pub(super) fn between(&mut self, tree: &Expr, of: &Expr, low: &Expr, high: &Expr, negated: bool) -> Planned<Node> {
        let of_node = self.expression(of)?;
        let (low_node, high_node) = (self.expression(low)?, self.expression(high)?);
        let above = self.compare(tree, Comparison::GreaterOrEqual, of_node.clone(), low_node)?;
        let below = self.compare(tree, Comparison::LessOrEqual, of_node, high_node)?;
        let node = Node::over(Op::And(vec![above, below]), Kind::Bool, self.text(tree));
        Ok(self.perhaps_not(tree, node, negated))
    }

    pub(super) fn like(
        &mut self,
        tree: &Expr,
        of: &Expr,
        pattern: &Expr,
        escape: Option<&ValueWithSpan>,
        negated: bool,
    ) -> Planned<Node> {
        let of = self.words(of, "like")?;
        let pattern_node = self.words(pattern, "like")?;
        let escape = match escape.map(|escape| &escape.value) {
            None => None,
            Some(Value::SingleQuotedString(text)) if text.chars().count() == 1 => text.chars().next(),
            Some(_) => return Err(self.mistake(tree, "the escape of a `like` is one character").into()),
        };
        let pattern = match pattern_node.as_literal() {
            Some(Literal::Text(pattern)) => pattern,
            Some(Literal::Null) => return Ok(Node { kind: Kind::Bool, ..pattern_node }),
            _ => {
                let title = format!("the pattern of a `like` is a literal, and `{}` is not", pattern_node.text);
                return Err(self.mistake(pattern, title).into());
            }
        };
        let Some(pattern) = Pattern::new(pattern, escape) else {
            let title = "the pattern ends with the character that makes the next one plain";
            return Err(self.mistake(pattern_tree(tree), title).help("write it twice for the character itself").into());
        };
        let op = Op::Like { of: of.into(), pattern: Arc::new(pattern) };
        let node = Node::over(op, Kind::Bool, self.text(tree));
        Ok(self.perhaps_not(tree, node, negated))
    }

    fn perhaps_not(&self, tree: &Expr, node: Node, negated: bool) -> Node {
        if negated { Node::over(Op::Not(node.into()), Kind::Bool, self.text(tree)) } else { node }
    }

    pub(super) fn case(
        &mut self,
        tree: &Expr,
        operand: Option<&Expr>,
        conditions: &[CaseWhen],
        otherwise: Option<&Expr>,
    ) -> Planned<Node> {
        let operand = operand.map(|operand| self.expression(operand)).transpose()?;
        let (mut whens, mut values) = (Vec::new(), Vec::new());
        for CaseWhen { condition, result } in conditions {
            whens.push(match &operand {
                None => self.truth(condition, "when")?,
                Some(operand) => {
                    let condition_node = self.expression(condition)?;
                    self.compare(condition, Comparison::Equal, operand.clone(), condition_node)?
                }
            });
            values.push((self.expression(result)?, result));
        }
        if let Some(otherwise) = otherwise {
            values.push((self.expression(otherwise)?, otherwise));
        }
        let (kind, mut values) = self.alike(values)?;
        let otherwise = match otherwise.and_then(|_| values.pop()) {
            Some(otherwise) => otherwise,
            None => Node { kind, ..Node::literal(Literal::Null, "null") },
        };
        let nullable = otherwise.nullable || values.iter().any(|value| value.nullable);
        let is_label = otherwise.is_label && values.iter().all(|value| value.is_label);
        let op = Op::Case { branches: whens.into_iter().zip(values).collect(), otherwise: otherwise.into() };
        let node = Node::over(op, kind, self.text(tree)).with_nulls(nullable);
        Ok(Node { is_label: kind == Kind::Text && is_label, ..node })
    }

    /// Returns values of one type, literals made to fit.
    pub(in super::super) fn alike(&self, values: Vec<(Node, &Expr)>) -> Planned<(Kind, Vec<Node>)> {
        let is_firm = |node: &&Node| node.as_literal().is_none();
        let nodes = || values.iter().map(|(node, _)| node);
        // Columns decide; among literals a number with a point, or a time, takes the others in.
        let firm = nodes().find(is_firm).or_else(|| nodes().find(|node| matches!(node.kind, Kind::F64 | Kind::Time)));
        let first = firm.or_else(|| nodes().find(|node| node.kind != Kind::Null)).cloned();
        let Some(first) = first else { return Ok((Kind::Null, values.into_iter().map(|(node, _)| node).collect())) };
        let mut alike = Vec::new();
        for (node, tree) in values {
            if matches!(node.kind, Kind::Levels | Kind::ListI64) {
                let title = format!("{} can be passed on as it is, and nothing else", node.described());
                return Err(self.mistake(tree, title).into());
            }
            if node.kind == first.kind {
                alike.push(node);
                continue;
            }
            match adapted(&node, first.kind) {
                Some(adapted) => alike.push(adapted),
                None => return Err(self.unlike(tree, "values of one column", &first, &node)),
            }
        }
        Ok((first.kind, alike))
    }

    pub(super) fn cast(&mut self, tree: &Expr) -> Planned<Node> {
        let Expr::Cast { kind, expr, data_type, array, format } = tree else { return Err(self.refused(tree)) };
        if !matches!(kind, CastKind::Cast | CastKind::DoubleColon) || *array || format.is_some() {
            let help = "write cast(… as …): what cannot be cast makes the row a dead letter, never a NULL";
            return Err(self.not_ours(tree, "this kind of cast").help(help).into());
        }
        let node = self.expression(expr)?;
        let Some((kind, is_label)) = type_named(data_type) else {
            let title = format!("there is no type `{}`", data_type.to_string().to_lowercase());
            return Err(self.mistake(tree, title).help("there are bool, i64, u64, f64, text, label, time").into());
        };
        let from = node.kind;
        if from == Kind::Null || from == kind {
            // Nothing is done to it, but for a text that becomes a label, or the other way round.
            let op = if from == Kind::Null { node.op } else { Op::Cast(node.clone().into()) };
            return Ok(Node { op, kind, is_label, text: self.text(tree).into(), ..node });
        }
        let Some(can_fail) = castable(from, kind) else {
            let title = format!("{} cannot be cast to {kind}", node.described());
            let help = if kind == Kind::Bool { "write … <> 0" } else { "by way of another type, perhaps" };
            return Err(self.mistake(tree, title).help(help).into());
        };
        let node = Node::over(Op::Cast(node.into()), kind, self.text(tree));
        let node = Node { is_label: kind == Kind::Text && is_label, ..node };
        Ok(if can_fail { node.failing() } else { node })
    }
}

/// Tells whether one type can be cast to another, and if so, whether a value may fail to.
fn castable(from: Kind, to: Kind) -> Option<bool> {
    match (from, to) {
        (Kind::I64, Kind::U64) | (Kind::U64, Kind::I64) | (Kind::F64, Kind::I64 | Kind::U64) => Some(true),
        (Kind::I64 | Kind::U64, Kind::F64) | (Kind::Bool, Kind::I64) => Some(false),
        (Kind::Bool | Kind::I64 | Kind::U64 | Kind::F64 | Kind::Time, Kind::Text) => Some(false),
        (Kind::Text, Kind::Bool | Kind::I64 | Kind::U64 | Kind::F64 | Kind::Time) => Some(true),
        (Kind::Time, Kind::I64) | (Kind::I64, Kind::Time) => Some(false),
        _ => None,
    }
}

/// Returns the type of this name, by our word or by SQL's, and whether it is a label.
#[expect(clippy::wildcard_enum_match_arm, reason = "the parser knows the types of every database")]
fn type_named(name: &DataType) -> Option<(Kind, bool)> {
    let kind = match name {
        DataType::Bool | DataType::Boolean => Kind::Bool,
        DataType::BigInt(None) | DataType::Int8(None) | DataType::Int64 => Kind::I64,
        DataType::BigIntUnsigned(None) | DataType::UBigInt | DataType::UInt64 => Kind::U64,
        DataType::Double(_) | DataType::DoublePrecision | DataType::Float8 | DataType::Float64 => Kind::F64,
        DataType::Text | DataType::Varchar(None) | DataType::String(None) => Kind::Text,
        DataType::Time(None, _) | DataType::Timestamp(None, _) => Kind::Time,
        DataType::Custom(name, arguments) if arguments.is_empty() => {
            return Some(match name.to_string().to_lowercase().as_str() {
                "i64" => (Kind::I64, false),
                "u64" => (Kind::U64, false),
                "f64" => (Kind::F64, false),
                "label" => (Kind::Text, true),
                "timestamptz" => (Kind::Time, false),
                _ => return None,
            });
        }
        _ => return None,
    };
    Some((kind, false))
}

/// Returns the literals of an `in` as a set; `None` where they are not all literals of the column's type.
fn set_of(of: &Node, items: &[Node]) -> Option<Set> {
    let literals: Vec<&Literal> = items.iter().map(Node::as_literal).collect::<Option<_>>()?;
    let has_null = literals.iter().any(|literal| **literal == Literal::Null);
    let values = literals.into_iter().filter(|literal| **literal != Literal::Null);
    let values = match of.kind {
        Kind::Text => {
            let texts =
                values.map(|literal| if let Literal::Text(text) = literal { Some((**text).into()) } else { None });
            Values::Texts(Arc::new(texts.collect::<Option<_>>()?))
        }
        Kind::I64 | Kind::Time => {
            let integers = values.map(|literal| match literal {
                Literal::I64(value) | Literal::Time(value) => Some(*value),
                Literal::Null | Literal::Bool(_) | Literal::U64(_) | Literal::F64(_) | Literal::Text(_) => None,
            });
            Values::I64(Arc::new(integers.collect::<Option<_>>()?))
        }
        Kind::U64 => {
            let integers = values.map(|literal| match literal.integer_as(Kind::U64) {
                Some(Literal::U64(value)) => Some(value),
                _ => None,
            });
            Values::U64(Arc::new(integers.collect::<Option<_>>()?))
        }
        Kind::Null | Kind::Bool | Kind::F64 | Kind::Levels | Kind::ListI64 => return None,
    };
    Some(Set { values, has_null })
}

/// The pattern of a `like`.
fn pattern_tree(tree: &Expr) -> &Expr {
    if let Expr::Like { pattern, .. } = tree { pattern } else { tree }
}
