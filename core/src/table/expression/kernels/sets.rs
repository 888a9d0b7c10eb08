//! `in` a list of literals.

use std::sync::Arc;

use arrow_array::{
    Array, BooleanArray, Datum,
    cast::AsArray,
    types::{Int64Type, TimestampNanosecondType, UInt64Type},
};
use arrow_buffer::{BooleanBuffer, NullBuffer};

use super::super::{
    evaluate::Value,
    node::{Set, Values},
};

/// Tells of each value whether it is in the set; not to be found among unknown ones is unknown.
pub(in super::super) fn contains(of: &Value, set: &Set) -> Value {
    let array = of.get().0;
    let rows = array.len();
    let found = match &set.values {
        Values::Texts(texts) => {
            let column = array.as_string::<i32>();
            BooleanBuffer::collect_bool(rows, |row| column.is_valid(row) && texts.contains(column.value(row)))
        }
        Values::U64(numbers) => {
            let column = array.as_primitive::<UInt64Type>();
            BooleanBuffer::collect_bool(rows, |row| numbers.contains(&column.value(row)))
        }
        Values::I64(numbers) => {
            let values = match array.as_primitive_opt::<TimestampNanosecondType>() {
                Some(times) => times.values(),
                None => array.as_primitive::<Int64Type>().values(),
            };
            BooleanBuffer::collect_bool(rows, |row| numbers.contains(&values[row]))
        }
    };
    let unknown = set.has_null.then(|| NullBuffer::new(found.clone()));
    let nulls = NullBuffer::union(array.nulls(), unknown.as_ref());
    super::numbers::like(of, Arc::new(BooleanArray::new(found, nulls)))
}
