//! Labels: what is asked of a text is asked once for each different one, and not for each row.

use arrow_array::{Array, ArrayRef, DictionaryArray, Int32Array, StringArray, cast::AsArray, types::Int32Type};
use arrow_schema::DataType;

use super::{Node, Op, Rows, Value, evaluate, taken};

/// Evaluates a node that reads one label and nothing else, over the label's few texts.
pub(super) fn by_dictionary(node: &Node, rows: &Rows<'_>) -> Option<Value> {
    let &[column] = &*node.columns else { return None };
    if matches!(node.op, Op::Column(_)) {
        return None;
    }
    let labels = rows.columns[column].as_any().downcast_ref::<DictionaryArray<Int32Type>>()?;
    let texts = labels.values();
    if texts.len() >= labels.len() {
        return None;
    }
    // The last one stands for an absent label.
    let with_null: StringArray = texts.as_string::<i32>().iter().chain([None]).collect();
    let mut columns = rows.columns.to_vec();
    let count = with_null.len();
    columns[column] = std::sync::Arc::new(with_null);
    // A text that no row has may fail, and then each row is asked for itself.
    let values = evaluate(node, &Rows { columns: &columns, rows: count }).ok()?.column(count);
    let absent = texts.len() as i32;
    let places: Int32Array = match labels.keys().nulls() {
        None => labels.keys().clone(),
        Some(_) => labels.keys().iter().map(|key| Some(key.unwrap_or(absent))).collect(),
    };
    Some(Value::Column(taken(&values, &places)))
}

/// Returns a column with its texts in each row.
pub(super) fn spelt_out(column: &ArrayRef) -> ArrayRef {
    match column.as_any().downcast_ref::<DictionaryArray<Int32Type>>() {
        Some(labels) => taken(labels.values(), labels.keys()),
        None => column.clone(),
    }
}

/// Returns a column of texts as labels.
pub(crate) fn as_labels(column: &ArrayRef) -> ArrayRef {
    if matches!(column.data_type(), DataType::Dictionary(..)) {
        return column.clone();
    }
    let texts = column.as_string::<i32>();
    let mut keys: std::collections::HashMap<&str, i32, foldhash::fast::FixedState> =
        std::collections::HashMap::default();
    let mut names: Vec<&str> = Vec::new();
    let numbers: Int32Array = texts
        .iter()
        .map(|text| {
            let text = text?;
            Some(*keys.entry(text).or_insert_with(|| {
                names.push(text);
                names.len() as i32 - 1
            }))
        })
        .collect();
    if names.is_empty() {
        // As a chunk has it: keys of absent values point somewhere, too.
        names.push("");
    }
    std::sync::Arc::new(DictionaryArray::<Int32Type>::new(numbers, std::sync::Arc::new(StringArray::from(names))))
}
