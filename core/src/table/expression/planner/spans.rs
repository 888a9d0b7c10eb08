//! Where a part of an expression stands in its text.
//!
//! The parser keeps the places of words only, and looks for the rest by going through the whole part, as deep as it is. Here
//! the way goes along its edges, in a loop, and brackets are looked for in the text.

use std::ops::Range;

use sqlparser::ast::{CastKind, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Spanned, UnaryOperator};

use super::super::source::Source;

/// Returns the bytes of a part, brackets and all.
pub(super) fn span(source: &Source, tree: &Expr) -> Range<usize> {
    let (start, end) = (start(source, tree), end(source, tree));
    balanced(&source.text, start..end.max(start))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the parser knows where all others begin")]
fn start(source: &Source, tree: &Expr) -> usize {
    let mut tree = tree;
    loop {
        tree = match tree {
            Expr::BinaryOp { left, .. } => left,
            Expr::Nested(of)
            | Expr::IsNull(of)
            | Expr::IsNotNull(of)
            | Expr::IsTrue(of)
            | Expr::IsNotTrue(of)
            | Expr::IsFalse(of)
            | Expr::IsNotFalse(of)
            | Expr::InList { expr: of, .. }
            | Expr::Between { expr: of, .. }
            | Expr::Like { expr: of, .. }
            | Expr::ILike { expr: of, .. }
            | Expr::Cast { expr: of, kind: CastKind::DoubleColon, .. } => of,
            Expr::Cast { expr, .. } => return before(source, start(source, expr), "cast"),
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => return before(source, start(source, expr), "not"),
            Expr::UnaryOp { op, expr } => return before(source, start(source, expr), &op.to_string()),
            Expr::Floor { expr, .. } => return before(source, start(source, expr), "floor"),
            Expr::Ceil { expr, .. } => {
                let start = start(source, expr);
                return before(source, before(source, start, "ceil"), "ceiling");
            }
            Expr::Substring { expr, .. } => {
                let start = start(source, expr);
                return before(source, before(source, start, "substr"), "substring");
            }
            Expr::Function(function) => return source.span(function.name.span()).start,
            Expr::Case { case_token, .. } => return source.span(case_token.0.span).start,
            Expr::Interval(interval) => return before(source, start(source, &interval.value), "interval"),
            other => return source.span(other.span()).start,
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the parser knows where all others end")]
fn end(source: &Source, tree: &Expr) -> usize {
    let mut tree = tree;
    loop {
        tree = match tree {
            Expr::BinaryOp { right, .. } => right,
            Expr::Nested(of)
            | Expr::IsNull(of)
            | Expr::IsNotNull(of)
            | Expr::IsTrue(of)
            | Expr::IsNotTrue(of)
            | Expr::IsFalse(of)
            | Expr::IsNotFalse(of)
            | Expr::UnaryOp { expr: of, .. }
            | Expr::Between { high: of, .. }
            | Expr::Like { pattern: of, .. }
            | Expr::ILike { pattern: of, .. }
            | Expr::Cast { expr: of, .. }
            | Expr::Floor { expr: of, .. }
            | Expr::Ceil { expr: of, .. } => of,
            Expr::InList { expr, list, .. } => list.last().unwrap_or(expr),
            Expr::Substring { expr, substring_from, substring_for, .. } => {
                substring_for.as_deref().or(substring_from.as_deref()).unwrap_or(expr)
            }
            Expr::Interval(interval) => &interval.value,
            Expr::Case { end_token, .. } => return source.span(end_token.0.span).end,
            Expr::Function(function) => match &function.args {
                FunctionArguments::List(list) => match list.args.last() {
                    Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(last))) => last,
                    Some(_) | None => return source.span(function.name.span()).end,
                },
                FunctionArguments::None | FunctionArguments::Subquery(_) => {
                    return source.span(function.name.span()).end;
                }
            },
            other => return source.span(other.span()).end,
        }
    }
}

/// Returns where a word begins that stands before a place, with nothing but brackets and space between; else the place.
fn before(source: &Source, place: usize, word: &str) -> usize {
    let text = source.text[..place].trim_end_matches(|c: char| c.is_whitespace() || c == '(');
    let start = text.len().saturating_sub(word.len());
    let is_there = text.get(start..).is_some_and(|end| end.eq_ignore_ascii_case(word));
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    // `-` needs nothing around it, a word does.
    let is_alone = !word.starts_with(is_word) || !text[..start].ends_with(is_word);
    if is_there && is_alone { start } else { place }
}

/// Widens a part to the brackets that it begins or ends in.
fn balanced(text: &str, span: Range<usize>) -> Range<usize> {
    let (mut open, mut unopened, mut is_quoted) = (0_usize, 0_usize, false);
    for c in text[span.clone()].chars() {
        match c {
            '\'' => is_quoted = !is_quoted,
            '(' if !is_quoted => open += 1,
            ')' if !is_quoted && open > 0 => open -= 1,
            ')' if !is_quoted => unopened += 1,
            _ => {}
        }
    }
    let start = match unopened {
        0 => span.start,
        _ => {
            let opening = text[..span.start].rmatch_indices('(').nth(unopened - 1);
            opening.map_or(span.start, |(at, _)| at)
        }
    };
    let mut end = span.end;
    if open > 0 {
        let mut is_quoted = false;
        for (at, c) in text[span.end..].char_indices() {
            match c {
                '\'' => is_quoted = !is_quoted,
                '(' if !is_quoted => open += 1,
                ')' if !is_quoted => open -= 1,
                _ => {}
            }
            if open == 0 {
                end = span.end + at + 1;
                break;
            }
        }
    }
    start..end
}
