//! Comparisons. All numbers compare exactly, whatever their types. Floats compare as in IEEE 754: 0 equals -0, and what is
//! no number is unequal to everything; Arrow's kernels would order these by their bits. (And the crate that has them,
//! arrow-ord, is a seventh of what Arrow takes to compile.)

use std::cmp::Ordering;

use arrow_array::{
    Array, ArrowPrimitiveType, BooleanArray, Datum,
    cast::AsArray,
    types::{Float64Type, Int64Type, TimestampNanosecondType, UInt64Type},
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow_schema::DataType;

use super::{super::evaluate::Value, super::node::Comparison, truth};

pub(in super::super) fn compare(op: Comparison, one: &Value, other: &Value) -> Value {
    use DataType::{Boolean, Float64, Int64, Null, Timestamp, UInt64, Utf8};

    let result = match (one.get().0.data_type(), other.get().0.data_type()) {
        (Null, _) | (_, Null) => BooleanArray::new_null(rows(one, other)),
        (Float64, Float64) => numbers::<Float64Type>(op, one, other),
        (Int64, Int64) => numbers::<Int64Type>(op, one, other),
        (UInt64, UInt64) => numbers::<UInt64Type>(op, one, other),
        (Timestamp(..), Timestamp(..)) => numbers::<TimestampNanosecondType>(op, one, other),
        (Int64, UInt64) => {
            mixed::<Int64Type, UInt64Type>(op, one, other, |a, b| Some(i128::from(a).cmp(&i128::from(b))))
        }
        (UInt64, Int64) => {
            mixed::<UInt64Type, Int64Type>(op, one, other, |a, b| Some(i128::from(a).cmp(&i128::from(b))))
        }
        (Int64, Float64) => mixed::<Int64Type, Float64Type>(op, one, other, |a, b| with_float(a.into(), b)),
        (UInt64, Float64) => mixed::<UInt64Type, Float64Type>(op, one, other, |a, b| with_float(a.into(), b)),
        (Float64, Int64) => {
            mixed::<Float64Type, Int64Type>(op, one, other, |a, b| with_float(b.into(), a).map(Ordering::reverse))
        }
        (Float64, UInt64) => {
            mixed::<Float64Type, UInt64Type>(op, one, other, |a, b| with_float(b.into(), a).map(Ordering::reverse))
        }
        (Utf8, Utf8) => texts(op, one, other),
        (Boolean, Boolean) => {
            let (a, b) = (one.get().0.as_boolean(), other.get().0.as_boolean());
            each(one, other, |i, j| op.holds(Some(a.value(i).cmp(&b.value(j)))))
        }
        (a, b) => unreachable!("the planner compares columns of one type, not {a} with {b}"),
    };
    match (one, other) {
        (Value::Constant(_), Value::Constant(_)) => Value::Constant(std::sync::Arc::new(result)),
        (Value::Column(_), _) | (_, Value::Column(_)) => truth::value(result),
    }
}

/// Compares an integer with a float, neither of which is rounded.
fn with_float(integer: i128, float: f64) -> Option<Ordering> {
    // Beyond 2^70 every float is greater, or less, than every integer of 64 bits.
    const FAR: f64 = (1_u128 << 70) as f64;
    if float.is_nan() {
        return None;
    }
    let near = float.clamp(-FAR, FAR);
    let whole = near.floor();
    let order = integer.cmp(&(whole as i128));
    // An integer that is the whole part is less than what has a fraction, too.
    Some(if order.is_eq() && near > whole { Ordering::Less } else { order })
}

impl Comparison {
    /// Whether it holds between two values that are ordered so; `None` where one is no number.
    fn holds(self, order: Option<Ordering>) -> bool {
        match (self, order) {
            (Self::Unequal, None) => true,
            (_, None) => false,
            (Self::Equal, Some(order)) => order.is_eq(),
            (Self::Unequal, Some(order)) => order.is_ne(),
            (Self::Less, Some(order)) => order.is_lt(),
            (Self::LessOrEqual, Some(order)) => order.is_le(),
            (Self::Greater, Some(order)) => order.is_gt(),
            (Self::GreaterOrEqual, Some(order)) => order.is_ge(),
        }
    }
}

/// Compares numbers of one type.
fn numbers<T: ArrowPrimitiveType>(op: Comparison, one: &Value, other: &Value) -> BooleanArray {
    match op {
        Comparison::Equal => packed::<T>(one, other, |a, b| a == b),
        Comparison::Unequal => packed::<T>(one, other, |a, b| a != b),
        Comparison::Less => packed::<T>(one, other, |a, b| a < b),
        Comparison::LessOrEqual => packed::<T>(one, other, |a, b| a <= b),
        Comparison::Greater => packed::<T>(one, other, |a, b| a > b),
        Comparison::GreaterOrEqual => packed::<T>(one, other, |a, b| a >= b),
    }
}

/// Compares numbers of one type, sixty-four at a time.
fn packed<T: ArrowPrimitiveType>(
    one: &Value,
    other: &Value,
    holds: impl Fn(T::Native, T::Native) -> bool,
) -> BooleanArray {
    let (a, b) = (one.get().0.as_primitive::<T>(), other.get().0.as_primitive::<T>());
    let rows = rows(one, other);
    let Some(nulls) = nulls(one, other, rows) else { return BooleanArray::new_null(rows) };
    let words: Vec<u64> = match (one, other) {
        (Value::Column(_), Value::Constant(_)) => {
            let b = b.value(0);
            a.values().chunks(64).map(|block| word(block.iter().map(|a| holds(*a, b)))).collect()
        }
        (Value::Constant(_), Value::Column(_)) => {
            let a = a.value(0);
            b.values().chunks(64).map(|block| word(block.iter().map(|b| holds(a, *b)))).collect()
        }
        (Value::Column(_), Value::Column(_)) | (Value::Constant(_), Value::Constant(_)) => {
            let blocks = a.values().chunks(64).zip(b.values().chunks(64));
            blocks.map(|(a, b)| word(a.iter().zip(b).map(|(a, b)| holds(*a, *b)))).collect()
        }
    };
    BooleanArray::new(BooleanBuffer::new(Buffer::from_vec(words), 0, rows), nulls)
}

#[inline]
fn word(bits: impl Iterator<Item = bool>) -> u64 {
    bits.enumerate().fold(0, |word, (at, bit)| word | u64::from(bit) << at)
}

/// Compares numbers of two types.
fn mixed<A: ArrowPrimitiveType, B: ArrowPrimitiveType>(
    op: Comparison,
    one: &Value,
    other: &Value,
    order: impl Fn(A::Native, B::Native) -> Option<Ordering>,
) -> BooleanArray {
    let (a, b) = (one.get().0.as_primitive::<A>(), other.get().0.as_primitive::<B>());
    each(one, other, |i, j| op.holds(order(a.value(i), b.value(j))))
}

fn texts(op: Comparison, one: &Value, other: &Value) -> BooleanArray {
    let (a, b) = (one.get().0.as_string::<i32>(), other.get().0.as_string::<i32>());
    match op {
        // Texts of different lengths need no look at what they say.
        Comparison::Equal => each(one, other, |i, j| a.value(i) == b.value(j)),
        Comparison::Unequal => each(one, other, |i, j| a.value(i) != b.value(j)),
        Comparison::Less | Comparison::LessOrEqual | Comparison::Greater | Comparison::GreaterOrEqual => {
            each(one, other, |i, j| op.holds(Some(a.value(i).cmp(b.value(j)))))
        }
    }
}

/// Compares row by row: `holds` is given the row of each side, which of a constant is the first.
fn each(one: &Value, other: &Value, holds: impl Fn(usize, usize) -> bool) -> BooleanArray {
    let rows = rows(one, other);
    let Some(nulls) = nulls(one, other, rows) else { return BooleanArray::new_null(rows) };
    let step = |value: &Value| usize::from(matches!(value, Value::Column(_)));
    let (i, j) = (step(one), step(other));
    BooleanArray::new(BooleanBuffer::collect_bool(rows, |row| holds(row * i, row * j)), nulls)
}

/// Returns how many rows a result has.
pub(super) fn rows(one: &Value, other: &Value) -> usize {
    match (one, other) {
        (Value::Column(column), _) | (_, Value::Column(column)) => column.len(),
        (Value::Constant(_), Value::Constant(_)) => 1,
    }
}

/// Returns the rows that have both values; the outer `None` where none has.
fn nulls(one: &Value, other: &Value, rows: usize) -> Option<Option<NullBuffer>> {
    let of = |value: &Value| match value {
        Value::Constant(value) if value.is_null(0) => None,
        Value::Constant(_) => Some(None),
        Value::Column(column) => Some(column.nulls().cloned()),
    };
    let both = NullBuffer::union(of(one)?.as_ref(), of(other)?.as_ref());
    debug_assert!(both.as_ref().is_none_or(|nulls| nulls.len() == rows));
    Some(both)
}
