//! Labels: what is asked of a text is asked once for each different one, and not for each row.

use arrow_array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, Int32Array, StringArray, cast::AsArray, types::Int32Type,
};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use arrow_schema::DataType;

use super::{Node, Op, Rows, Value, evaluate, taken, truth};

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
    if let Some(truths) = values.as_boolean_opt() {
        return Some(Value::Column(std::sync::Arc::new(looked_up(truths, labels.keys()))));
    }
    let absent = texts.len() as i32;
    let places: Int32Array = match labels.keys().nulls() {
        None => labels.keys().clone(),
        Some(_) => labels.keys().iter().map(|key| Some(key.unwrap_or(absent))).collect(),
    };
    Some(Value::Column(taken(&values, &places)))
}

/// Returns for each key what is true of its text; the last one stands for an absent key.
fn looked_up(of_texts: &BooleanArray, keys: &Int32Array) -> BooleanArray {
    let absent = of_texts.len() - 1;
    let each = |bits: BooleanBuffer| {
        let of_text: Vec<bool> = bits.iter().collect();
        let of_key = |row| of_text.get(keys.values()[row] as usize).copied().unwrap_or_default();
        let found = BooleanBuffer::collect_bool(keys.len(), of_key);
        match keys.nulls() {
            None => found,
            Some(nulls) if of_text[absent] => &found | &!nulls.inner(),
            Some(nulls) => &found & nulls.inner(),
        }
    };
    let nulls = of_texts.nulls().filter(|nulls| nulls.null_count() > 0);
    let is_there = match nulls {
        None => None,
        // An absent text alone has no answer.
        Some(nulls) if nulls.null_count() == 1 && nulls.is_null(absent) => keys.nulls().cloned(),
        Some(nulls) => Some(NullBuffer::new(each(nulls.inner().clone()))),
    };
    BooleanArray::new(each(truth::bits(of_texts, true)), is_there)
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
