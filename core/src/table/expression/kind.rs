//! The types of expressions, and values that stand in them.

use std::{fmt, sync::Arc};

use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, TimestampNanosecondArray, UInt64Array,
    new_null_array,
};
use arrow_schema::DataType;

use crate::{
    chunk::{write_number, write_time},
    row::ColumnType,
};

/// The type of an expression. Text and label are one: a label is a text that is stored once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// `NULL` alone, which is of any type.
    Null,
    Bool,
    I64,
    U64,
    F64,
    Text,
    Time,
    Levels,
    ListI64,
}

impl Kind {
    /// Returns the kind of a column, and whether it is a label.
    pub(crate) fn of(data_type: &DataType) -> Option<(Self, bool)> {
        const ALL: [ColumnType; 9] = [
            ColumnType::Bool,
            ColumnType::I64,
            ColumnType::U64,
            ColumnType::F64,
            ColumnType::Text,
            ColumnType::Label,
            ColumnType::Time,
            ColumnType::Levels,
            ColumnType::ListI64,
        ];
        let found = ALL.into_iter().find(|column| column.arrow() == *data_type)?;
        Some(match found {
            ColumnType::Bool => (Self::Bool, false),
            ColumnType::I64 => (Self::I64, false),
            ColumnType::U64 => (Self::U64, false),
            ColumnType::F64 => (Self::F64, false),
            ColumnType::Text => (Self::Text, false),
            ColumnType::Label => (Self::Text, true),
            ColumnType::Time => (Self::Time, false),
            ColumnType::Levels => (Self::Levels, false),
            ColumnType::ListI64 => (Self::ListI64, false),
        })
    }

    /// Returns the type that a column of this kind has; `None` for `NULL` alone.
    pub(crate) fn column(self, is_label: bool) -> Option<ColumnType> {
        Some(match self {
            Self::Null => return None,
            Self::Bool => ColumnType::Bool,
            Self::I64 => ColumnType::I64,
            Self::U64 => ColumnType::U64,
            Self::F64 => ColumnType::F64,
            Self::Text if is_label => ColumnType::Label,
            Self::Text => ColumnType::Text,
            Self::Time => ColumnType::Time,
            Self::Levels => ColumnType::Levels,
            Self::ListI64 => ColumnType::ListI64,
        })
    }

    /// Returns the Arrow type of values while they are worked with: texts are no dictionaries then.
    pub(crate) fn arrow(self) -> DataType {
        self.column(false).map_or(DataType::Null, ColumnType::arrow)
    }

    pub(crate) fn is_number(self) -> bool {
        self.is_integer() || self == Self::F64
    }

    pub(crate) fn is_integer(self) -> bool {
        matches!(self, Self::I64 | Self::U64)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Bool => "bool",
            Self::I64 => "i64",
            Self::U64 => "u64",
            Self::F64 => "f64",
            Self::Text => "text",
            Self::Time => "time",
            Self::Levels => "levels",
            Self::ListI64 => "list of i64",
        })
    }
}

/// A value that is known before the first row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    I64(i64),
    U64(u64),
    F64(f64),
    Text(Arc<str>),
    /// UTC nanoseconds.
    Time(i64),
}

impl Literal {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Null => Kind::Null,
            Self::Bool(_) => Kind::Bool,
            Self::I64(_) => Kind::I64,
            Self::U64(_) => Kind::U64,
            Self::F64(_) => Kind::F64,
            Self::Text(_) => Kind::Text,
            Self::Time(_) => Kind::Time,
        }
    }

    /// Returns a column of one row.
    pub(crate) fn array(&self, kind: Kind) -> ArrayRef {
        match self {
            Self::Null => new_null_array(&kind.arrow(), 1),
            Self::Bool(value) => Arc::new(BooleanArray::from(vec![*value])),
            Self::I64(value) => Arc::new(Int64Array::from(vec![*value])),
            Self::U64(value) => Arc::new(UInt64Array::from(vec![*value])),
            Self::F64(value) => Arc::new(Float64Array::from(vec![*value])),
            Self::Text(value) => Arc::new(StringArray::from(vec![&**value])),
            Self::Time(value) => Arc::new(TimestampNanosecondArray::from(vec![*value]).with_timezone("UTC")),
        }
    }

    /// Reads the text of a number: an integer where it is one, of the type that holds it.
    pub(crate) fn number(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        if digits.is_empty() || !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return None;
        }
        if digits.bytes().all(|byte| byte.is_ascii_digit()) {
            let signed = text.parse().map(Self::I64).ok();
            return signed.or_else(|| text.parse().map(Self::U64).ok());
        }
        text.parse().ok().filter(|number: &f64| number.is_finite()).map(Self::F64)
    }

    /// Returns an integer as this kind of number, if that is the same number.
    pub(crate) fn integer_as(&self, kind: Kind) -> Option<Self> {
        let integer = match self {
            Self::I64(value) => i128::from(*value),
            Self::U64(value) => i128::from(*value),
            Self::Null | Self::Bool(_) | Self::F64(_) | Self::Text(_) | Self::Time(_) => return None,
        };
        match kind {
            Kind::I64 => i64::try_from(integer).ok().map(Self::I64),
            Kind::U64 => u64::try_from(integer).ok().map(Self::U64),
            Kind::F64 => {
                let number = integer as f64;
                (number as i128 == integer).then_some(Self::F64(number))
            }
            Kind::Null | Kind::Bool | Kind::Text | Kind::Time | Kind::Levels | Kind::ListI64 => None,
        }
    }
}

/// As the language writes it.
impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        match self {
            Self::Null => return f.write_str("null"),
            Self::Bool(value) => return write!(f, "{value}"),
            Self::I64(value) => return write!(f, "{value}"),
            Self::U64(value) => return write!(f, "{value}"),
            Self::Text(value) => return write!(f, "'{}'", value.replace('\'', "''")),
            Self::F64(value) => write_number(*value, &mut text),
            Self::Time(value) => {
                text.push(b'\'');
                write_time(*value, &mut text);
                text.push(b'\'');
            }
        }
        f.write_str(&String::from_utf8_lossy(&text))
    }
}
