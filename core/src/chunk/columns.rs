//! Values in their compact form → Arrow columns.
//!
//! Plain vectors instead of Arrow's builders: a row that turns out to be broken halfway can be taken back, which those
//! cannot do, and finishing costs no copy.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int32Array, Int64Array, ListArray, StringArray,
    StructArray, TimestampNanosecondArray, UInt64Array, types::Int32Type,
};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field};

use crate::row::{ColumnType, Reader, level_fields};

/// One column of a table that is being filled.
#[derive(Debug)]
pub(super) struct ColumnBuilder {
    valid: Vec<bool>,
    nulls: usize,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Bool(Vec<bool>),
    I64(Vec<i64>),
    U64(Vec<u64>),
    F64(Vec<f64>),
    Time(Vec<i64>),
    Text { ends: Vec<i32>, bytes: Vec<u8> },
    Label { keys: Vec<i32>, labels: Labels },
    Levels { ends: Vec<i32>, prices: Vec<f64>, sizes: Vec<f64> },
    ListI64 { ends: Vec<i32>, numbers: Vec<i64> },
}

/// The few different texts of a column.
#[derive(Debug, Default)]
struct Labels {
    keys: HashMap<Box<str>, i32, foldhash::fast::FixedState>,
    texts: Vec<Box<str>>,
}

impl ColumnBuilder {
    pub(super) fn new(column_type: ColumnType) -> Self {
        let ends = || vec![0];
        let values = match column_type {
            ColumnType::Bool => Values::Bool(Vec::new()),
            ColumnType::I64 => Values::I64(Vec::new()),
            ColumnType::U64 => Values::U64(Vec::new()),
            ColumnType::F64 => Values::F64(Vec::new()),
            ColumnType::Time => Values::Time(Vec::new()),
            ColumnType::Text => Values::Text { ends: ends(), bytes: Vec::new() },
            ColumnType::Label => Values::Label { keys: Vec::new(), labels: Labels::default() },
            ColumnType::Levels => Values::Levels { ends: ends(), prices: Vec::new(), sizes: Vec::new() },
            ColumnType::ListI64 => Values::ListI64 { ends: ends(), numbers: Vec::new() },
        };
        Self { valid: Vec::new(), nulls: 0, values }
    }

    /// Appends an absent value.
    #[inline]
    pub(super) fn absent(&mut self) {
        self.valid.push(false);
        self.nulls += 1;
        match &mut self.values {
            Values::Bool(values) => values.push(false),
            Values::I64(values) | Values::Time(values) => values.push(0),
            Values::U64(values) => values.push(0),
            Values::F64(values) => values.push(0.0),
            Values::Label { keys, .. } => keys.push(0),
            Values::Text { ends, .. } | Values::Levels { ends, .. } | Values::ListI64 { ends, .. } => {
                ends.push(*ends.last().expect("begins with 0"));
            }
        }
    }

    /// Appends the next value of `reader`; `None` when there is none that can be read, and then the column may be left
    /// with a part of it until [`truncate`](Self::truncate).
    #[inline]
    pub(super) fn push(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        match &mut self.values {
            Values::Bool(values) => values.push(reader.u8()? != 0),
            Values::I64(values) | Values::Time(values) => values.push(reader.i64()?),
            Values::U64(values) => values.push(reader.u64()?),
            Values::F64(values) => values.push(reader.f64()?),
            Values::Text { ends, bytes } => {
                bytes.extend_from_slice(reader.text()?.as_bytes());
                ends.push(i32::try_from(bytes.len()).ok()?);
            }
            Values::Label { keys, labels } => keys.push(labels.key(reader.text()?)),
            Values::Levels { ends, prices, sizes } => {
                for _ in 0..reader.u32()? {
                    prices.push(reader.f64()?);
                    sizes.push(reader.f64()?);
                }
                ends.push(i32::try_from(prices.len()).ok()?);
            }
            Values::ListI64 { ends, numbers } => {
                for _ in 0..reader.u32()? {
                    numbers.push(reader.i64()?);
                }
                ends.push(i32::try_from(numbers.len()).ok()?);
            }
        }
        self.valid.push(true);
        Some(())
    }

    /// Takes back everything behind the first `rows`.
    pub(super) fn truncate(&mut self, rows: usize) {
        if let Some(taken_back) = self.valid.get(rows..) {
            self.nulls -= taken_back.iter().filter(|valid| !**valid).count();
        }
        self.valid.truncate(rows);
        match &mut self.values {
            Values::Bool(values) => values.truncate(rows),
            Values::I64(values) | Values::Time(values) => values.truncate(rows),
            Values::U64(values) => values.truncate(rows),
            Values::F64(values) => values.truncate(rows),
            Values::Label { keys, .. } => keys.truncate(rows),
            Values::Text { ends, bytes } => bytes.truncate(cut(ends, rows)),
            Values::Levels { ends, prices, sizes } => {
                let end = cut(ends, rows);
                prices.truncate(end);
                sizes.truncate(end);
            }
            Values::ListI64 { ends, numbers } => numbers.truncate(cut(ends, rows)),
        }
    }

    /// Returns the column.
    pub(super) fn finish(self) -> ArrayRef {
        let nulls = (self.nulls > 0).then(|| NullBuffer::from(self.valid));
        match self.values {
            Values::Bool(values) => Arc::new(BooleanArray::new(values.into(), nulls)),
            Values::I64(values) => Arc::new(Int64Array::new(values.into(), nulls)),
            Values::U64(values) => Arc::new(UInt64Array::new(values.into(), nulls)),
            Values::F64(values) => Arc::new(Float64Array::new(values.into(), nulls)),
            Values::Time(values) => times(values, nulls),
            Values::Text { ends, bytes } => Arc::new(StringArray::new(offsets(ends), Buffer::from_vec(bytes), nulls)),
            Values::Label { mut keys, mut labels } => {
                if labels.texts.is_empty() {
                    // Keys of absent values point somewhere, too.
                    keys.fill(labels.key(""));
                }
                dictionary(keys, nulls, labels.texts.iter().map(|text| &**text))
            }
            Values::Levels { ends, prices, sizes } => {
                let numbers: [ArrayRef; 2] =
                    [Arc::new(Float64Array::from(prices)), Arc::new(Float64Array::from(sizes))];
                let levels = StructArray::new(level_fields(), numbers.into(), None);
                list(DataType::Struct(level_fields()), ends, Arc::new(levels), nulls)
            }
            Values::ListI64 { ends, numbers } => {
                list(DataType::Int64, ends, Arc::new(Int64Array::from(numbers)), nulls)
            }
        }
    }
}

impl Labels {
    #[inline]
    fn key(&mut self, text: &str) -> i32 {
        if let Some(&key) = self.keys.get(text) {
            return key;
        }
        let key = self.texts.len() as i32;
        self.texts.push(text.into());
        self.keys.insert(text.into(), key);
        key
    }
}

/// Returns a column of UTC nanoseconds.
pub(super) fn times(values: Vec<i64>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(TimestampNanosecondArray::new(values.into(), nulls).with_timezone("UTC"))
}

/// Returns a column of texts of which there are few.
pub(super) fn dictionary<'t>(
    keys: Vec<i32>,
    nulls: Option<NullBuffer>,
    texts: impl IntoIterator<Item = &'t str>,
) -> ArrayRef {
    let texts = StringArray::from_iter_values(texts);
    Arc::new(DictionaryArray::<Int32Type>::new(Int32Array::new(keys.into(), nulls), Arc::new(texts)))
}

fn list(item: DataType, ends: Vec<i32>, values: Arc<dyn Array>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(ListArray::new(Arc::new(Field::new("item", item, false)), offsets(ends), values, nulls))
}

fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(ScalarBuffer::from(ends))
}

/// Cuts the ends down to those of `rows` rows, and returns the last one.
fn cut(ends: &mut Vec<i32>, rows: usize) -> usize {
    ends.truncate(rows + 1);
    ends.last().map_or(0, |end| *end as usize)
}
