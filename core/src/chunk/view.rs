//! Typed access to the columns of a chunk, and a row as JSON.

use std::io::Write;

use arrow_array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
    TimestampNanosecondArray, UInt64Array,
    cast::AsArray,
    types::{Float64Type, Int32Type, Int64Type, TimestampNanosecondType, UInt64Type},
};
use arrow_schema::DataType;

use crate::row::Level;

/// A column of a chunk. There are no other types than these.
#[derive(Debug, Clone, Copy)]
pub enum ColumnView<'a> {
    /// True or false.
    Bool(&'a BooleanArray),
    /// Signed integers.
    I64(&'a Int64Array),
    /// Unsigned integers.
    U64(&'a UInt64Array),
    /// Numbers.
    F64(&'a Float64Array),
    /// Texts.
    Text(&'a StringArray),
    /// Texts of which there are few different ones: a number for each row, and the texts.
    Label(&'a Int32Array, &'a StringArray),
    /// UTC nanoseconds.
    Time(&'a TimestampNanosecondArray),
    /// Price levels.
    Levels(&'a ListArray),
    /// Lists of signed integers.
    ListI64(&'a ListArray),
}

impl<'a> ColumnView<'a> {
    /// Returns the view of a chunk's column.
    ///
    /// # Panics
    ///
    /// If the array has a type that [`ColumnType::arrow`](crate::row::ColumnType::arrow) never gives.
    #[allow(clippy::wildcard_enum_match_arm, reason = "a chunk has columns of nine types, Arrow has many more")]
    pub fn of(column: &'a ArrayRef) -> Self {
        match column.data_type() {
            DataType::Boolean => Self::Bool(column.as_boolean()),
            DataType::Int64 => Self::I64(column.as_primitive::<Int64Type>()),
            DataType::UInt64 => Self::U64(column.as_primitive::<UInt64Type>()),
            DataType::Float64 => Self::F64(column.as_primitive::<Float64Type>()),
            DataType::Utf8 => Self::Text(column.as_string()),
            DataType::Timestamp(..) => Self::Time(column.as_primitive::<TimestampNanosecondType>()),
            DataType::Dictionary(..) => {
                let dictionary = column.as_dictionary::<Int32Type>();
                Self::Label(dictionary.keys(), dictionary.values().as_string())
            }
            DataType::List(item) if *item.data_type() == DataType::Int64 => Self::ListI64(column.as_list()),
            DataType::List(_) => Self::Levels(column.as_list()),
            other => panic!("no column of a chunk is {other}"),
        }
    }

    /// Returns whether the row has no value.
    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Bool(column) => column.is_null(row),
            Self::I64(column) => column.is_null(row),
            Self::U64(column) => column.is_null(row),
            Self::F64(column) => column.is_null(row),
            Self::Text(column) => column.is_null(row),
            Self::Label(keys, _) => keys.is_null(row),
            Self::Time(column) => column.is_null(row),
            Self::Levels(column) | Self::ListI64(column) => column.is_null(row),
        }
    }
}

/// Returns the price levels of a row of [`ColumnView::Levels`].
pub fn levels(column: &ListArray, row: usize) -> impl Iterator<Item = Level> {
    let levels = column.value(row);
    let levels = levels.as_struct();
    let price = levels.column(0).as_primitive::<Float64Type>().clone();
    let size = levels.column(1).as_primitive::<Float64Type>().clone();
    (0..levels.len()).map(move |n| Level { price: price.value(n), size: size.value(n) })
}

/// Returns the numbers of a row of [`ColumnView::ListI64`].
pub fn integers(column: &ListArray, row: usize) -> Vec<i64> {
    column.value(row).as_primitive::<Int64Type>().values().to_vec()
}

/// Writes rows of a batch as JSON objects. An absent value has no member.
///
/// Numbers have all their digits, also integers beyond 2^53. Times are texts in RFC 3339 with nanoseconds. JSON has no
/// word for a number that is none: these are the texts `NaN`, `inf` and `-inf`. Levels are `[price, size]` pairs.
#[derive(Debug)]
pub struct JsonRows<'a> {
    columns: Vec<(Vec<u8>, ColumnView<'a>)>,
}

impl<'a> JsonRows<'a> {
    /// Returns a writer of the rows of `batch`.
    pub fn new(batch: &'a RecordBatch) -> Self {
        let schema = batch.schema_ref();
        let named = schema.fields().iter().zip(batch.columns());
        let columns = named.map(|(field, column)| {
            let name = serde_json::to_vec(field.name()).expect("a text can always be written");
            (name, ColumnView::of(column))
        });
        Self { columns: columns.collect() }
    }

    /// Appends a row to `text`.
    pub fn write(&self, row: usize, text: &mut Vec<u8>) {
        text.push(b'{');
        let start = text.len();
        for (name, column) in &self.columns {
            if column.is_null(row) {
                continue;
            }
            if text.len() > start {
                text.push(b',');
            }
            text.extend_from_slice(name);
            text.push(b':');
            write_value(column, row, text);
        }
        text.push(b'}');
    }
}

/// Appends a value that is there, as JSON.
pub fn write_value(column: &ColumnView<'_>, row: usize, text: &mut Vec<u8>) {
    match column {
        ColumnView::Bool(column) => put(text, format_args!("{}", column.value(row))),
        ColumnView::I64(column) => put(text, format_args!("{}", column.value(row))),
        ColumnView::U64(column) => put(text, format_args!("{}", column.value(row))),
        ColumnView::F64(column) => write_number(column.value(row), text),
        ColumnView::Text(column) => write_text(column.value(row), text),
        ColumnView::Label(keys, texts) => write_text(texts.value(keys.value(row) as usize), text),
        ColumnView::Time(column) => {
            text.push(b'"');
            write_time(column.value(row), text);
            text.push(b'"');
        }
        ColumnView::Levels(column) => write_list(levels(column, row), text, |level, text| {
            text.push(b'[');
            write_number(level.price, text);
            text.push(b',');
            write_number(level.size, text);
            text.push(b']');
        }),
        ColumnView::ListI64(column) => {
            write_list(integers(column, row).into_iter(), text, |number, text| put(text, format_args!("{number}")));
        }
    }
}

fn write_list<T>(items: impl Iterator<Item = T>, text: &mut Vec<u8>, write: impl Fn(T, &mut Vec<u8>)) {
    text.push(b'[');
    for (number, item) in items.enumerate() {
        if number > 0 {
            text.push(b',');
        }
        write(item, text);
    }
    text.push(b']');
}

/// Appends a number in the shortest form that reads back as the same one.
pub fn write_number(number: f64, text: &mut Vec<u8>) {
    if number.is_finite() {
        serde_json::to_writer(text, &number).expect("a vector takes every byte");
    } else {
        put(text, format_args!("\"{number}\""));
    }
}

fn write_text(value: &str, text: &mut Vec<u8>) {
    serde_json::to_writer(text, value).expect("a vector takes every byte");
}

/// Appends UTC nanoseconds in RFC 3339: `2026-11-24T09:41:03.123456789Z`.
pub fn write_time(nanoseconds: i64, text: &mut Vec<u8>) {
    let seconds = nanoseconds.div_euclid(1_000_000_000);
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Howard Hinnant's days → civil: eras of 400 years that begin on 1 March.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    let nanos = nanoseconds.rem_euclid(1_000_000_000);
    put(text, format_args!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z"));
}

fn put(text: &mut Vec<u8>, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a vector takes every byte");
}
