//! A row read back value by value: for people and tests. What is fast reads it into Arrow columns.

use std::sync::Arc;

use super::{ColumnType, Level, Reader, Table, Timestamp};

/// A value of a column.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A signed integer.
    I64(i64),
    /// An unsigned integer.
    U64(u64),
    /// A number.
    F64(f64),
    /// A text or a label.
    Text(String),
    /// A time.
    Time(Timestamp),
    /// Levels of a book.
    Levels(Vec<Level>),
    /// A list of signed integers.
    List(Vec<i64>),
}

impl Table {
    /// Returns the columns of a row that are there; `None` where the bytes are no row of this table.
    pub(crate) fn read(&self, row: &[u8]) -> Option<Vec<(Arc<str>, Value)>> {
        let (presence, rest) = row.split_at_checked(self.presence_words() * 8)?;
        let mut reader = Reader::new(rest);
        let mut values = Vec::new();
        for (number, column) in self.columns.iter().enumerate() {
            if presence[number / 8] >> (number % 8) & 1 == 1 {
                values.push((column.name.clone(), value(&mut reader, column.column_type)?));
            }
        }
        reader.rest().is_empty().then_some(values)
    }
}

fn value(reader: &mut Reader<'_>, column_type: ColumnType) -> Option<Value> {
    Some(match column_type {
        ColumnType::Bool => Value::Bool(reader.u8()? != 0),
        ColumnType::I64 => Value::I64(reader.i64()?),
        ColumnType::U64 => Value::U64(reader.u64()?),
        ColumnType::F64 => Value::F64(reader.f64()?),
        ColumnType::Text | ColumnType::Label => Value::Text(reader.text()?.to_owned()),
        ColumnType::Time => Value::Time(Timestamp(reader.i64()?)),
        ColumnType::Levels => {
            let level = |reader: &mut Reader<'_>| Some(Level { price: reader.f64()?, size: reader.f64()? });
            Value::Levels(list(reader, level)?)
        }
        ColumnType::ListI64 => Value::List(list(reader, Reader::i64)?),
    })
}

fn list<'a, T>(reader: &mut Reader<'a>, mut each: impl FnMut(&mut Reader<'a>) -> Option<T>) -> Option<Vec<T>> {
    let count = reader.u32()?;
    (0..count).map(|_| each(reader)).collect()
}

impl From<Value> for serde_json::Value {
    fn from(value: Value) -> Self {
        match value {
            Value::Bool(value) => value.into(),
            Value::I64(value) | Value::Time(Timestamp(value)) => value.into(),
            Value::U64(value) => value.into(),
            Value::F64(value) => value.into(),
            Value::Text(text) => text.into(),
            Value::Levels(levels) => levels.iter().map(|level| vec![level.price, level.size]).collect(),
            Value::List(list) => list.into(),
        }
    }
}
