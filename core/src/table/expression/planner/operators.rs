//! Operators: which types they go with. Nothing is turned silently into what might be another number.

use sqlparser::ast::{BinaryOperator, Expr};

use super::{
    super::{
        Planned,
        kind::Kind,
        node::{Arithmetic, Comparison, Node, Op},
    },
    OPERATORS, Planner, adapted,
};

impl Planner<'_> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the parser knows the operators of every database")]
    pub(super) fn binary(&mut self, tree: &Expr, left: &Expr, op: &BinaryOperator, right: &Expr) -> Planned<Node> {
        let comparison = |op| Some(op);
        let compared = match op {
            BinaryOperator::Eq => comparison(Comparison::Equal),
            BinaryOperator::NotEq => comparison(Comparison::Unequal),
            BinaryOperator::Lt => comparison(Comparison::Less),
            BinaryOperator::LtEq => comparison(Comparison::LessOrEqual),
            BinaryOperator::Gt => comparison(Comparison::Greater),
            BinaryOperator::GtEq => comparison(Comparison::GreaterOrEqual),
            _ => None,
        };
        if let Some(comparison) = compared {
            let (one, other) = (self.expression(left)?, self.expression(right)?);
            return self.compare(tree, comparison, one, other);
        }
        let arithmetic = match op {
            BinaryOperator::And | BinaryOperator::Or => return self.chain(tree, op),
            BinaryOperator::StringConcat => {
                let parts = vec![self.words(left, "||")?, self.words(right, "||")?];
                let call = Op::Call(super::functions::Function::Concat, parts);
                return Ok(Node::over(call, Kind::Text, self.text(tree)));
            }
            BinaryOperator::Plus => Arithmetic::Add,
            BinaryOperator::Minus => Arithmetic::Subtract,
            BinaryOperator::Multiply => Arithmetic::Multiply,
            BinaryOperator::Divide => Arithmetic::Divide,
            BinaryOperator::Modulo => Arithmetic::Remainder,
            other => {
                return Err(self.not_ours(tree, &format!("the operator `{other}`")).help(OPERATORS).into());
            }
        };
        let (one, other) = (self.expression(left)?, self.expression(right)?);
        self.arithmetic(tree, arithmetic, one, other)
    }

    /// Takes `a and b and c` as one: chains may be long.
    #[expect(clippy::wildcard_enum_match_arm, reason = "all others are a part of the chain")]
    fn chain(&mut self, tree: &Expr, op: &BinaryOperator) -> Planned<Node> {
        let (mut parts, mut rest) = (Vec::new(), tree);
        loop {
            match rest {
                Expr::BinaryOp { left, op: same, right } if same == op => {
                    parts.push(&**right);
                    rest = left;
                }
                first => {
                    parts.push(first);
                    break;
                }
            }
        }
        let (is_and, name) = (*op == BinaryOperator::And, op.to_string().to_lowercase());
        let (mut planned, mut first) = (Vec::new(), None);
        for part in parts.into_iter().rev() {
            match self.truth(part, &name) {
                Ok(node) => planned.push(node),
                // Each part is read for itself, so all of their mistakes are told at once.
                Err(mistake) if first.is_none() => first = Some(mistake),
                Err(mistake) => self.others.push(*mistake),
            }
        }
        if let Some(first) = first {
            return Err(first);
        }
        let parts = planned;
        let op = if is_and { Op::And(parts) } else { Op::Or(parts) };
        Ok(Node::over(op, Kind::Bool, self.text(tree)))
    }

    pub(super) fn compare(&self, tree: &Expr, op: Comparison, one: Node, other: Node) -> Planned<Node> {
        let text = self.text(tree);
        let (one, other) = self.comparable(tree, one, other)?;
        Ok(Node::over(Op::Compare(op, [one, other].into()), Kind::Bool, text))
    }

    /// Returns two nodes that can be compared: all numbers with each other, exactly; else those of one type.
    pub(super) fn comparable(&self, tree: &Expr, one: Node, other: Node) -> Planned<(Node, Node)> {
        let fits = |one: &Node, other: &Node| one.kind == other.kind || one.kind.is_number() && other.kind.is_number();
        for node in [&one, &other] {
            if matches!(node.kind, Kind::Levels | Kind::ListI64) {
                let title = format!("{} cannot be compared", node.described());
                return Err(self.mistake(tree, title).help("it can be asked whether it `is null`").into());
            }
        }
        if fits(&one, &other) {
            return Ok((one, other));
        }
        if let Some(adapted) = adapted(&other, one.kind) {
            return Ok((one, adapted));
        }
        if let Some(adapted) = adapted(&one, other.kind) {
            return Ok((adapted, other));
        }
        Err(self.unlike(tree, "compared", &one, &other))
    }

    pub(super) fn unlike(&self, tree: &Expr, done: &str, one: &Node, other: &Node) -> Box<super::Mistake> {
        let title =
            format!("`{}` is {} and `{}` is {}: they cannot be {done}", one.text, one.kind, other.text, other.kind);
        let literal = if one.as_literal().is_some() { one } else { other };
        let is_variable = literal.text.starts_with("${");
        let of = if std::ptr::eq(literal, one) { other } else { one };
        let help = match (of.kind, literal.kind) {
            _ if literal.as_literal().is_none() => {
                format!("make them alike by cast: cast({} as {})", other.text, one.kind)
            }
            (Kind::Text, _) if is_variable => format!("between quotes it is a text: '{}'", literal.text),
            (Kind::Text, _) => format!("between quotes it is a text: '{}'", literal.text.replace('\'', "''")),
            (Kind::Time, Kind::Text) => "a time is written '2026-11-24T09:41:03Z', with its Z".to_owned(),
            (_, Kind::Text) if is_variable => format!("the value of {} has to be a {} here", literal.text, of.kind),
            (_, Kind::Text) if of.kind.is_number() => "without the quotes it would be a number".to_owned(),
            _ => format!("make them alike by cast: cast({} as {})", other.text, one.kind),
        };
        self.mistake(tree, title).help(help).into()
    }

    fn arithmetic(&self, tree: &Expr, op: Arithmetic, one: Node, other: Node) -> Planned<Node> {
        let (one, other) = match (adapted(&other, one.kind), adapted(&one, other.kind)) {
            _ if one.kind == other.kind || one.kind == Kind::Time || other.kind == Kind::Time => (one, other),
            (Some(other), _) => (one, other),
            (None, Some(one)) => (one, other),
            (None, None) => (one, other),
        };
        let is_sum = matches!(op, Arithmetic::Add | Arithmetic::Subtract);
        let kind = match (one.kind, other.kind) {
            (Kind::Time, Kind::Time) if op == Arithmetic::Subtract => Kind::I64,
            (Kind::Time, Kind::I64) if is_sum => Kind::Time,
            (Kind::I64, Kind::Time) if op == Arithmetic::Add => Kind::Time,
            (Kind::Time, _) | (_, Kind::Time) => {
                let title = format!(
                    "`{}` is {} and `{}` is {}: there is no such sum",
                    one.text, one.kind, other.text, other.kind
                );
                let help = "the difference of two times is i64, in nanoseconds; interval '1m 30s' is one too, and can be \
                            added to a time";
                return Err(self.mistake(tree, title).help(help).into());
            }
            (one, other) if one == other && one.is_number() => one,
            (Kind::Null, Kind::Null) => Kind::Null,
            (a, b) if a.is_number() && b.is_number() => {
                let title = format!(
                    "`{}` is {a} and `{}` is {b}: as one type they might be other numbers",
                    one.text, other.text
                );
                let help = match (a, b) {
                    (Kind::F64, _) => format!("say which: cast({} as f64)", other.text),
                    (_, Kind::F64) => format!("say which: cast({} as f64)", one.text),
                    _ => format!("say which: cast({} as {a})", other.text),
                };
                return Err(self.mistake(tree, title).help(help).into());
            }
            (a, _) => {
                let odd = if a.is_number() { &other } else { &one };
                let title =
                    format!("this is for numbers, and {} is not one", odd.described().replace(", which is", ":"));
                return Err(self.mistake(tree, title).help("texts are put together by `||`").into());
            }
        };
        if kind == Kind::Null {
            return Ok(one);
        }
        Ok(Node::over(Op::Arithmetic(op, [one, other].into()), kind, self.text(tree)).failing())
    }

    pub(super) fn negated(&mut self, tree: &Expr, of: &Expr) -> Planned<Node> {
        let node = self.number(of, "-")?;
        if node.kind == Kind::U64 && node.as_literal().is_none() {
            let title = format!("{} has no numbers below zero", node.described());
            return Err(self.mistake(tree, title).help(format!("write -cast({} as i64)", node.text)).into());
        }
        // The lowest i64 has no counterpart above zero that could be read first.
        if let Some(super::Literal::U64(value)) = node.as_literal() {
            let negated = (*value == i64::MIN.unsigned_abs()).then_some(super::Literal::I64(i64::MIN));
            let Some(literal) = negated else {
                return Err(self.mistake(tree, "this number does not fit into 64 bits").into());
            };
            return Ok(Node::literal(literal, self.text(tree)));
        }
        let kind = node.kind;
        Ok(Node::over(Op::Negate(node.into()), kind, self.text(tree)).failing())
    }

    pub(super) fn is_null(&mut self, tree: &Expr, of: &Expr, negated: bool) -> Planned<Node> {
        let of = self.expression(of)?.into();
        Ok(Node::over(Op::IsNull { of, negated }, Kind::Bool, self.text(tree)).with_nulls(false))
    }

    pub(super) fn is_truth(&mut self, tree: &Expr, of: &Expr, truth: bool, negated: bool) -> Planned<Node> {
        let of = self.truth(of, "is")?.into();
        Ok(Node::over(Op::IsTruth { of, truth, negated }, Kind::Bool, self.text(tree)).with_nulls(false))
    }
}
