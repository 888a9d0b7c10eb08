//! True, false and unknown.

use std::sync::Arc;

use arrow_arith::boolean;
use arrow_array::{Array, ArrayRef, BooleanArray, Datum, cast::AsArray};
use arrow_buffer::BooleanBuffer;

use super::super::evaluate::Value;

pub(in super::super) fn value(truths: BooleanArray) -> Value {
    Value::Column(Arc::new(truths))
}

/// Returns which rows are this and not its contrary; NULL is neither.
pub(in super::super) fn bits(truths: &BooleanArray, truth: bool) -> BooleanBuffer {
    let bits = if truth { truths.values().clone() } else { !truths.values() };
    match truths.nulls() {
        Some(nulls) => &bits & nulls.inner(),
        None => bits,
    }
}

/// `or` where true decides, `and` where false does.
pub(in super::super) fn combine(one: &BooleanArray, other: &BooleanArray, deciding: bool) -> BooleanArray {
    let done = if deciding { boolean::or_kleene(one, other) } else { boolean::and_kleene(one, other) };
    done.expect("both have the same rows")
}

pub(in super::super) fn not(of: &Value) -> Value {
    match of.get().0.as_boolean_opt() {
        Some(truths) => super::numbers::like(of, Arc::new(boolean::not(truths).expect("never fails"))),
        None => of.clone(),
    }
}

pub(in super::super) fn is_null(of: &Value, negated: bool) -> Value {
    let array = of.get().0;
    let done = if negated { boolean::is_not_null(array) } else { boolean::is_null(array) };
    super::numbers::like(of, Arc::new(done.expect("never fails")))
}

/// `is true`, `is not false`, …: an unknown is neither.
pub(in super::super) fn is(of: &Value, truth: bool, negated: bool) -> Value {
    let array = of.get().0;
    let is_so = match array.as_boolean_opt() {
        None => BooleanBuffer::new_unset(array.len()),
        Some(truths) => bits(truths, truth),
    };
    let is_so = if negated { !&is_so } else { is_so };
    super::numbers::like(of, Arc::new(BooleanArray::new(is_so, None)))
}

/// Returns a column without the values of the rows that are true.
pub(in super::super) fn without(column: &ArrayRef, rows: &BooleanArray) -> Value {
    Value::Column(arrow_select::nullif::nullif(column, rows).expect("both have the same rows"))
}
