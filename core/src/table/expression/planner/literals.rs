//! Values that are written down.

use sqlparser::ast::{Expr, Interval, Value, ValueWithSpan};

use super::{
    super::{Mistake, Planned, kind::Literal, node::Node},
    Planner,
};

impl Planner<'_> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the parser knows the texts of every database")]
    pub(super) fn literal(&self, value: &ValueWithSpan) -> Planned<Node> {
        let span = self.source.span(value.span);
        let text = self.source.text.get(span.clone()).unwrap_or_default();
        let literal = match &value.value {
            Value::Null => Literal::Null,
            Value::Boolean(value) => Literal::Bool(*value),
            Value::SingleQuotedString(value) => Literal::Text(value.as_str().into()),
            Value::Number(digits, false) => match Literal::number(digits) {
                Some(number) => number,
                None => {
                    let title = format!("`{digits}` is no number that fits into 64 bits");
                    return Err(Mistake::new(span, title).into());
                }
            },
            Value::Placeholder(_) => match self.source.literal(span.start) {
                Some(literal) => literal,
                None => return Err(Mistake::new(span, "this variable has no value").into()),
            },
            _ => {
                let title = "this kind of text is not in this language";
                return Err(Mistake::new(span, title).help("write '…', and '' for a quote in it").into());
            }
        };
        Ok(Node::literal(literal, text))
    }

    /// `interval '1m 30s'`: nanoseconds, as the difference of two times is.
    pub(super) fn interval(&mut self, tree: &Expr, interval: &Interval) -> Planned<Node> {
        let is_plain = interval.leading_field.is_none() && interval.last_field.is_none();
        let value = self.expression(&interval.value)?;
        let nanoseconds = match value.as_literal() {
            Some(Literal::Text(text)) if is_plain => {
                let parsed = humantime::parse_duration(text).ok();
                parsed.and_then(|duration| i64::try_from(duration.as_nanos()).ok())
            }
            _ => None,
        };
        let Some(nanoseconds) = nanoseconds else {
            let title = "this is no duration";
            return Err(self
                .mistake(tree, title)
                .help("write it as everywhere: interval '1m 30s', interval '250ms'")
                .into());
        };
        Ok(Node::literal(Literal::I64(nanoseconds), self.text(tree)))
    }
}
