//! Comparisons. All numbers compare exactly, whatever their types. Floats compare as in IEEE 754: 0 equals -0, and what is
//! no number is unequal to everything; Arrow's kernels would order these by their bits.

use arrow_array::{
    Array, BooleanArray, Datum, PrimitiveArray,
    cast::AsArray,
    types::{Float64Type, Int64Type, UInt64Type},
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow_ord::cmp;
use arrow_schema::DataType;

use super::{super::evaluate::Value, super::node::Comparison, truth};

pub(in super::super) fn compare(op: Comparison, one: &Value, other: &Value) -> Value {
    use DataType::{Float64, Int64, Null, UInt64};

    let result = match (one.get().0.data_type(), other.get().0.data_type()) {
        (Null, _) | (_, Null) => BooleanArray::new_null(rows(one, other)),
        (Float64, Float64) => floats(op, one, other),
        (Int64, UInt64) => {
            mixed::<Int64Type, UInt64Type>(op, one, other, |a, b| i128::from(a).partial_cmp(&i128::from(b)))
        }
        (UInt64, Int64) => {
            mixed::<UInt64Type, Int64Type>(op, one, other, |a, b| i128::from(a).partial_cmp(&i128::from(b)))
        }
        (Int64, Float64) => mixed::<Int64Type, Float64Type>(op, one, other, |a, b| with_float(a.into(), b)),
        (UInt64, Float64) => mixed::<UInt64Type, Float64Type>(op, one, other, |a, b| with_float(a.into(), b)),
        (Float64, Int64) => mixed::<Float64Type, Int64Type>(op, one, other, |a, b| {
            with_float(b.into(), a).map(std::cmp::Ordering::reverse)
        }),
        (Float64, UInt64) => mixed::<Float64Type, UInt64Type>(op, one, other, |a, b| {
            with_float(b.into(), a).map(std::cmp::Ordering::reverse)
        }),
        _ => by_arrow(op, one, other),
    };
    match (one, other) {
        (Value::Constant(_), Value::Constant(_)) => Value::Constant(std::sync::Arc::new(result)),
        (Value::Column(_), _) | (_, Value::Column(_)) => truth::value(result),
    }
}

/// Compares an integer with a float, neither of which is rounded.
fn with_float(integer: i128, float: f64) -> Option<std::cmp::Ordering> {
    // Beyond 2^70 every float is greater, or less, than every integer of 64 bits.
    const FAR: f64 = (1_u128 << 70) as f64;
    if float.is_nan() {
        return None;
    }
    let near = float.clamp(-FAR, FAR);
    let whole = near.floor();
    let order = integer.cmp(&(whole as i128));
    // An integer that is the whole part is less than what has a fraction, too.
    Some(if order.is_eq() && near > whole { std::cmp::Ordering::Less } else { order })
}

fn by_arrow(op: Comparison, one: &Value, other: &Value) -> BooleanArray {
    let done = match op {
        Comparison::Equal => cmp::eq(one, other),
        Comparison::Unequal => cmp::neq(one, other),
        Comparison::Less => cmp::lt(one, other),
        Comparison::LessOrEqual => cmp::lt_eq(one, other),
        Comparison::Greater => cmp::gt(one, other),
        Comparison::GreaterOrEqual => cmp::gt_eq(one, other),
    };
    done.expect("the planner compares columns of one type")
}

fn floats(op: Comparison, one: &Value, other: &Value) -> BooleanArray {
    match op {
        Comparison::Equal => packed(one, other, |a, b| a == b),
        Comparison::Unequal => packed(one, other, |a, b| a != b),
        Comparison::Less => packed(one, other, |a, b| a < b),
        Comparison::LessOrEqual => packed(one, other, |a, b| a <= b),
        Comparison::Greater => packed(one, other, |a, b| a > b),
        Comparison::GreaterOrEqual => packed(one, other, |a, b| a >= b),
    }
}

/// Compares floats, sixty-four at a time.
fn packed(one: &Value, other: &Value, holds: impl Fn(f64, f64) -> bool) -> BooleanArray {
    let (a, b) = (one.get().0.as_primitive::<Float64Type>(), other.get().0.as_primitive::<Float64Type>());
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

fn mixed<A, B>(
    op: Comparison,
    one: &Value,
    other: &Value,
    order: impl Fn(A::Native, B::Native) -> Option<std::cmp::Ordering>,
) -> BooleanArray
where
    A: arrow_array::ArrowPrimitiveType,
    B: arrow_array::ArrowPrimitiveType,
{
    let (a, b) = (one.get().0.as_primitive::<A>(), other.get().0.as_primitive::<B>());
    let rows = rows(one, other);
    let Some(nulls) = nulls(one, other, rows) else { return BooleanArray::new_null(rows) };
    let at = |value: &Value, row: usize| if matches!(value, Value::Constant(_)) { 0 } else { row };
    let bits = BooleanBuffer::collect_bool(rows, |row| {
        let order = order(value_at(a, at(one, row)), value_at(b, at(other, row)));
        match (op, order) {
            (Comparison::Unequal, None) => true,
            (_, None) => false,
            (Comparison::Equal, Some(order)) => order.is_eq(),
            (Comparison::Unequal, Some(order)) => order.is_ne(),
            (Comparison::Less, Some(order)) => order.is_lt(),
            (Comparison::LessOrEqual, Some(order)) => order.is_le(),
            (Comparison::Greater, Some(order)) => order.is_gt(),
            (Comparison::GreaterOrEqual, Some(order)) => order.is_ge(),
        }
    });
    BooleanArray::new(bits, nulls)
}

fn value_at<T: arrow_array::ArrowPrimitiveType>(array: &PrimitiveArray<T>, row: usize) -> T::Native {
    array.value(row)
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
