//! Rows as the store has them, held against those that were written.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
};

use arrow_array::RecordBatch;

use crate::{
    chunk::{ColumnView, SinkTable, integers, levels},
    row::{Column, ColumnType, Level, Timestamp, Value},
};

/// A row of a store: the values that are there, by column.
pub type StoredRow = BTreeMap<String, Value>;

/// Rows of one table, each with how often it is there.
#[derive(Debug, Clone, Default)]
pub(super) struct Contents(HashMap<String, usize>);

impl Contents {
    pub(super) fn add(&mut self, row: String) {
        *self.0.entry(row).or_default() += 1;
    }

    pub(super) fn len(&self) -> usize {
        self.0.values().sum()
    }

    /// Returns what is wrong with `stored`, if anything is.
    pub(super) fn differs(&self, table: &str, stored: &Self, may_double: bool) -> Option<String> {
        let mut faults = Vec::new();
        for (row, count) in &self.0 {
            let there = stored.0.get(row).copied().unwrap_or(0);
            if there < *count {
                faults.push(format!("{there} instead of {count} times: {}", shortened(row)));
            } else if there > *count && !may_double {
                faults.push(format!("{there} times instead of {count}: {}", shortened(row)));
            }
        }
        let strangers = stored.0.keys().filter(|row| !self.0.contains_key(*row));
        faults.extend(strangers.map(|row| format!("never written: {}", shortened(row))));
        if faults.is_empty() {
            return None;
        }
        let (rows, written, all) = (stored.len(), self.len(), faults.len());
        faults.sort_unstable();
        faults.truncate(SHOWN);
        let faults = faults.join("; ");
        Some(format!("table `{table}` holds {rows} rows where {written} were written, {all} are wrong: {faults}"))
    }
}

fn shortened(row: &str) -> String {
    let mut short: String = row.chars().take(SHORTENED).collect();
    if short.len() < row.len() {
        short.push('…');
    }
    short
}

/// How many rows a failure shows.
const SHOWN: usize = 4;

/// How many characters of each.
const SHORTENED: usize = 400;

/// Returns the columns of a table: those that every table has, then its own.
pub fn columns(table: &SinkTable) -> Vec<Column> {
    let schema = table.table.schema();
    let common = schema.fields().len() - table.table.columns.len();
    let common = schema.fields()[..common].iter().map(|field| Column {
        name: field.name().as_str().into(),
        column_type: match field.name().as_str() {
            "ts_event" | "ts_recv" => ColumnType::Time,
            "seq" | "prev_seq" | "chain" => ColumnType::U64,
            _ => ColumnType::Label,
        },
        nullable: field.is_nullable(),
    });
    common.chain(table.table.columns.iter().cloned()).collect()
}

/// How rows of a table are compared.
#[derive(Debug, Clone)]
pub(super) struct Form {
    pub(super) columns: Vec<Column>,
    pub(super) keeps_sign_of_zero: bool,
}

impl Form {
    /// Returns one text for all rows that are equal, to the bit.
    pub(super) fn text(&self, row: &StoredRow) -> String {
        let mut text = String::new();
        for column in &self.columns {
            let Some(value) = row.get(&*column.name) else { continue };
            let is_zero = matches!(value, Value::F64(number) if *number == 0.0);
            text.push_str(&column.name);
            text.push('=');
            text.push_str(&shown(if is_zero && !self.keeps_sign_of_zero { &Value::F64(0.0) } else { value }));
            text.push(' ');
        }
        text
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::F64(number) => number_text(*number),
        Value::Levels(levels) => {
            let levels: Vec<String> = levels
                .iter()
                .map(|level| format!("{}x{}", number_text(level.price), number_text(level.size)))
                .collect();
            format!("[{}]", levels.join(","))
        }
        Value::Text(text) if text.len() > LONG => {
            // All of it would make the comparison slow, and a failure unreadable.
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            let begin: String = text.chars().take(20).collect();
            format!("Text({begin:?}… {} bytes, hash {:016x})", text.len(), hasher.finish())
        }
        Value::Bool(_) | Value::I64(_) | Value::U64(_) | Value::Text(_) | Value::Time(_) | Value::List(_) => {
            format!("{value:?}")
        }
    }
}

/// More bytes of a text are compared by their hash.
const LONG: usize = 1_000;

/// Shortest digits that read back as the same number, with the sign of 0; all that are no number are one.
fn number_text(number: f64) -> String {
    format!("{number:?}")
}

/// Returns the rows of a chunk's batch, or of another one that has the same types.
///
/// # Panics
///
/// If a column has a type that no column of a chunk has.
pub fn rows_of(batch: &RecordBatch) -> Vec<StoredRow> {
    let schema = batch.schema_ref();
    let columns: Vec<_> = batch.columns().iter().map(ColumnView::of).collect();
    let row = |row| {
        let named = schema.fields().iter().zip(&columns);
        named.filter_map(|(field, column)| Some((field.name().clone(), value(column, row)?))).collect()
    };
    (0..batch.num_rows()).map(row).collect()
}

fn value(column: &ColumnView<'_>, row: usize) -> Option<Value> {
    if column.is_null(row) {
        return None;
    }
    Some(match column {
        ColumnView::Bool(column) => Value::Bool(column.value(row)),
        ColumnView::I64(column) => Value::I64(column.value(row)),
        ColumnView::U64(column) => Value::U64(column.value(row)),
        ColumnView::F64(column) => Value::F64(column.value(row)),
        ColumnView::Text(column) => Value::Text(column.value(row).to_owned()),
        ColumnView::Label(keys, texts) => Value::Text(texts.value(keys.value(row) as usize).to_owned()),
        ColumnView::Time(column) => Value::Time(Timestamp(column.value(row))),
        ColumnView::Levels(column) => Value::Levels(levels(column, row).collect()),
        ColumnView::ListI64(column) => Value::List(integers(column, row)),
    })
}

/// Reads a row that was written as a JSON object, as [`JsonRows`](crate::chunk::JsonRows) describes it. Members that are none of
/// the table's columns are left out.
///
/// # Panics
///
/// If a member is none of its column's type, naming both.
pub fn row_of_json(table: &SinkTable, object: &serde_json::Value) -> StoredRow {
    let read = |column: Column| {
        let json = object.get(&*column.name).filter(|json| !json.is_null())?;
        let value = value_of_json(column.column_type, json);
        let value = value.unwrap_or_else(|| panic!("column `{}` holds {json}, and is {column:?}", column.name));
        Some((column.name.to_string(), value))
    };
    columns(table).into_iter().filter_map(read).collect()
}

/// Reads a value that was written as [`JsonRows`](crate::chunk::JsonRows) describes it; none where it is none of that type.
pub fn value_of_json(column_type: ColumnType, json: &serde_json::Value) -> Option<Value> {
    Some(match column_type {
        ColumnType::Bool => Value::Bool(json.as_bool()?),
        ColumnType::I64 => Value::I64(json.as_i64()?),
        ColumnType::U64 => Value::U64(json.as_u64()?),
        ColumnType::F64 => Value::F64(number(json)?),
        ColumnType::Text | ColumnType::Label => Value::Text(json.as_str()?.to_owned()),
        ColumnType::Time => Value::Time(Timestamp(time(json.as_str()?)?)),
        ColumnType::Levels => {
            let level = |pair: &serde_json::Value| {
                let [price, size] = pair.as_array()?.as_slice() else { return None };
                Some(Level { price: number(price)?, size: number(size)? })
            };
            Value::Levels(json.as_array()?.iter().map(level).collect::<Option<_>>()?)
        }
        ColumnType::ListI64 => {
            Value::List(json.as_array()?.iter().map(serde_json::Value::as_i64).collect::<Option<_>>()?)
        }
    })
}

fn number(json: &serde_json::Value) -> Option<f64> {
    match json.as_str() {
        Some("NaN") => Some(f64::NAN),
        Some("inf") => Some(f64::INFINITY),
        Some("-inf") => Some(f64::NEG_INFINITY),
        Some(_) => None,
        None => json.as_f64(),
    }
}

/// Reads `2026-11-24T09:41:03.123456789Z` as UTC nanoseconds.
fn time(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let date: Vec<i128> = date.split('-').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let (time, nanos) = time.split_once('.')?;
    let time: Vec<i128> = time.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let ([year, month, day], [hour, minute, second]) = (date.as_slice(), time.as_slice()) else { return None };
    let leaps = |year: i128| year / 4 - year / 100 + year / 400;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let before = DAYS_BEFORE.get(usize::try_from(month - 1).ok()?)? + i128::from(*month > 2 && is_leap);
    let days = (year - 1970) * 365 + leaps(year - 1) - leaps(1969) + before + day - 1;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    i64::try_from(seconds * 1_000_000_000 + nanos.parse::<i128>().ok()?).ok()
}

/// Days of a year before each month.
const DAYS_BEFORE: [i128; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::write_time;

    #[test]
    fn times_are_read_as_they_are_written() {
        for nanoseconds in [0, 1, -1, i64::MIN, i64::MAX, 951_782_400_000_000_000, 1_709_164_800_123_456_789] {
            let mut text = Vec::new();
            write_time(nanoseconds, &mut text);
            assert_eq!(time(std::str::from_utf8(&text).unwrap()), Some(nanoseconds), "{text:?}");
        }
    }

    #[test]
    fn rows_are_equal_to_the_bit_or_not_at_all() {
        let differ = |one: Value, other: Value| assert_ne!(shown(&one), shown(&other));
        differ(Value::F64(0.0), Value::F64(-0.0));
        differ(Value::F64(0.1 + 0.2), Value::F64(0.3));
        differ(Value::I64(1), Value::U64(1));
        differ(Value::Text(String::new()), Value::Text(" ".to_owned()));
        differ(Value::Levels(Vec::new()), Value::List(Vec::new()));
        assert_eq!(shown(&Value::F64(f64::NAN)), shown(&Value::F64(-f64::NAN)), "one that is none is like another");
    }
}
