//! Functions of texts and of single numbers, and `like`. Texts count in characters.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BooleanArray, Datum, Int64Array, StringArray,
    cast::AsArray,
    types::{Float64Type, Int64Type},
};
use arrow_schema::DataType;

use super::{
    super::{evaluate::Value, functions::Function},
    Why, numbers,
};

/// Calls a function for each row.
pub(in super::super) fn call(function: Function, values: &[Value], rows: usize) -> Result<Value, Why> {
    let first = &values[0];
    let is_float = *first.get().0.data_type() == DataType::Float64;
    match function {
        Function::Abs if is_float => return numbers::each_float(first, f64::abs),
        Function::Abs => return numbers::each_integer(first, i64::checked_abs),
        Function::Round(digits) => return numbers::each_float(first, |number| rounded(number, digits)),
        Function::Floor => return Ok(unchecked(first, f64::floor)),
        Function::Ceil => return Ok(unchecked(first, f64::ceil)),
        Function::Lower => return Ok(each_text(first, |text| text.to_lowercase())),
        Function::Upper => return Ok(each_text(first, |text| text.to_uppercase())),
        Function::Length => {
            let texts = first.get().0.as_string::<i32>();
            let lengths = texts.iter().map(|text| text.map(|text| text.chars().count() as i64));
            return Ok(numbers::like(first, Arc::new(lengths.collect::<Int64Array>())));
        }
        Function::Substr | Function::Left | Function::Right | Function::SplitPart | Function::Concat => {}
    }
    let are_constant = values.iter().all(|value| matches!(value, Value::Constant(_)));
    let rows = if are_constant { 1 } else { rows };
    let result = several(function, values, rows)?;
    Ok(if are_constant { Value::Constant(result) } else { Value::Column(result) })
}

fn several(function: Function, values: &[Value], rows: usize) -> Result<ArrayRef, Why> {
    let at = |value: &Value, row: usize| if matches!(value, Value::Constant(_)) { 0 } else { row };
    let text = |number: usize, row: usize| {
        let (value, row) = (&values[number], at(&values[number], row));
        let texts = value.get().0.as_string::<i32>();
        // The text lives as long as the values.
        texts.is_valid(row).then(|| texts.value(row).to_owned())
    };
    let count = |number: usize, row: usize| {
        let (value, row) = (&values[number], at(&values[number], row));
        let numbers = value.get().0.as_primitive::<Int64Type>();
        numbers.is_valid(row).then(|| numbers.value(row))
    };
    let one = |row: usize| -> Result<Option<String>, Why> {
        let Some(first) = text(0, row) else { return Ok(None) };
        Ok(match function {
            Function::Concat => text(1, row).map(|second| first + &second),
            Function::Left => count(1, row).map(|n| left(&first, n)),
            Function::Right => count(1, row).map(|n| right(&first, n)),
            Function::SplitPart => match (text(1, row), count(2, row)) {
                (Some(separator), Some(n)) => Some(part(&first, &separator, n)?),
                (None, _) | (_, None) => None,
            },
            Function::Abs
            | Function::Round(_)
            | Function::Floor
            | Function::Ceil
            | Function::Lower
            | Function::Upper
            | Function::Length
            | Function::Substr => match (count(1, row), values.get(2).map(|_| count(2, row))) {
                (Some(from), None) => Some(substring(&first, from, i64::MAX)?),
                (Some(from), Some(Some(length))) => Some(substring(&first, from, length)?),
                (None, _) | (_, Some(None)) => None,
            },
        })
    };
    let texts: StringArray = (0..rows).map(one).collect::<Result<_, _>>()?;
    Ok(Arc::new(texts))
}

fn each_text(of: &Value, f: impl Fn(&str) -> String) -> Value {
    let texts = of.get().0.as_string::<i32>();
    let done: StringArray = texts.iter().map(|text| text.map(&f)).collect();
    numbers::like(of, Arc::new(done))
}

fn unchecked(of: &Value, f: impl Fn(f64) -> f64) -> Value {
    let done = of.get().0.as_primitive::<Float64Type>().unary::<_, Float64Type>(f);
    numbers::like(of, Arc::new(done))
}

/// Rounds to so many digits, halves away from zero.
///
/// By the digits that the number has, not by a product with a power of ten, which would be rounded itself: 2.675 is a little
/// less than it looks, and becomes 2.67.
fn rounded(number: f64, digits: i32) -> f64 {
    if digits == 0 || number.abs() >= 9_007_199_254_740_992.0 {
        return number.round();
    }
    let power = 10_f64.powi(digits);
    let shifted = number * power;
    let is_half = shifted.fract().abs() == 0.5 && shifted / power == number && shifted.abs() < 9_007_199_254_740_992.0;
    if is_half && is_exact_half(number, digits) {
        return (shifted.trunc() + shifted.signum()) / power;
    }
    format!("{number:.*}", digits as usize).parse().unwrap_or(number)
}

/// Tells whether the digits behind the last one that stays are exactly a five.
fn is_exact_half(number: f64, digits: i32) -> bool {
    // A float has at most 1,074 digits behind its point, all of which this writes.
    let text = format!("{:.1074}", number.abs());
    let Some((_, fraction)) = text.split_once('.') else { return false };
    let rest = &fraction[digits as usize..];
    rest.starts_with('5') && rest[1..].bytes().all(|digit| digit == b'0')
}

/// Returns characters from a place on. As in Postgres: places before the first one count, and hold nothing.
fn substring(text: &str, from: i64, count: i64) -> Result<String, Why> {
    if count < 0 {
        return Err(Why::Argument(format!("{count} characters are less than none")));
    }
    let end = from.saturating_add(count);
    let skipped = usize::try_from(from.saturating_sub(1).max(0)).unwrap_or(usize::MAX);
    let taken = usize::try_from(end.saturating_sub(from.max(1)).max(0)).unwrap_or(usize::MAX);
    Ok(text.chars().skip(skipped).take(taken).collect())
}

fn left(text: &str, n: i64) -> String {
    text.chars().take(kept(text, n)).collect()
}

fn right(text: &str, n: i64) -> String {
    let length = text.chars().count();
    text.chars().skip(length - kept(text, n)).collect()
}

/// Returns how many characters `n` leaves: that many, or all but that many where it is negative.
fn kept(text: &str, n: i64) -> usize {
    let length = text.chars().count();
    let distance = usize::try_from(n.unsigned_abs()).unwrap_or(usize::MAX);
    if n >= 0 { distance.min(length) } else { length.saturating_sub(distance) }
}

fn part(text: &str, separator: &str, n: i64) -> Result<String, Why> {
    if n == 0 {
        return Err(Why::Argument("the first part is 1, and there is no part 0".to_owned()));
    }
    let parts: Vec<&str> = if separator.is_empty() { vec![text] } else { text.split(separator).collect() };
    let distance = usize::try_from(n.unsigned_abs()).unwrap_or(usize::MAX);
    let at = if n > 0 { distance.checked_sub(1) } else { parts.len().checked_sub(distance) };
    Ok(at.and_then(|at| parts.get(at)).map_or_else(String::new, |part| (*part).to_owned()))
}

/// A `like` pattern, taken apart: `%` stands for any characters, `_` for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Exactly(char),
    One,
    Any,
}

impl Pattern {
    /// Returns `None` where the last character makes nothing plain. Nothing does without `escape`.
    pub(crate) fn new(pattern: &str, escape: Option<char>) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut characters = pattern.chars();
        while let Some(c) = characters.next() {
            let piece = match c {
                _ if Some(c) == escape => Piece::Exactly(characters.next()?),
                '%' => Piece::Any,
                '_' => Piece::One,
                _ => Piece::Exactly(c),
            };
            if piece != Piece::Any || pieces.last() != Some(&Piece::Any) {
                pieces.push(piece);
            }
        }
        Some(Self { pieces })
    }

    pub(in super::super) fn matches(&self, of: &Value) -> Value {
        let Some(texts) = of.get().0.as_string_opt::<i32>() else {
            return numbers::like(of, Arc::new(BooleanArray::new_null(of.get().0.len())));
        };
        let done: BooleanArray = match self.plain() {
            Some((text, is_prefix)) => {
                let matches = |it: &str| if is_prefix { it.starts_with(&text) } else { it == text };
                texts.iter().map(|it| it.map(matches)).collect()
            }
            None => {
                let mut characters = Vec::new();
                let done = texts.iter().map(|it| {
                    let it = it?;
                    characters.clear();
                    characters.extend(it.chars());
                    Some(self.fits(&characters))
                });
                done.collect()
            }
        };
        numbers::like(of, Arc::new(done))
    }

    /// Returns the text of a pattern without wildcards, or with one `%` at its end.
    fn plain(&self) -> Option<(String, bool)> {
        let (pieces, is_prefix) = match self.pieces.split_last() {
            Some((Piece::Any, rest)) => (rest, true),
            Some(_) | None => (&self.pieces[..], false),
        };
        let characters = pieces.iter().map(|piece| if let Piece::Exactly(c) = piece { Some(*c) } else { None });
        characters.collect::<Option<String>>().map(|text| (text, is_prefix))
    }

    /// Goes back to the last `%` only, so that no text takes longer than its length times the pattern's.
    fn fits(&self, text: &[char]) -> bool {
        let (mut at, mut piece) = (0, 0);
        let mut back: Option<(usize, usize)> = None;
        while at < text.len() {
            let fits = match self.pieces.get(piece) {
                Some(Piece::Any) => {
                    back = Some((piece + 1, at));
                    piece += 1;
                    continue;
                }
                Some(Piece::One) => true,
                Some(Piece::Exactly(c)) => *c == text[at],
                None => false,
            };
            if fits {
                (at, piece) = (at + 1, piece + 1);
            } else if let Some((behind, from)) = back {
                (piece, at) = (behind, from + 1);
                back = Some((behind, from + 1));
            } else {
                return false;
            }
        }
        self.pieces[piece..].iter().all(|piece| *piece == Piece::Any)
    }
}
