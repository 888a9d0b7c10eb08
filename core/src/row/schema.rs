//! The description of a table, and its Arrow schema.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

use super::{Cell, Cells, Row};

/// The type of a column. Small on purpose: every sink has to map each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ColumnType {
    /// True or false.
    Bool,
    /// A signed 64-bit integer.
    I64,
    /// An unsigned 64-bit integer: ids beyond 2^63 occur.
    U64,
    /// A binary64 number, read from the venue's text with correct rounding.
    F64,
    /// Any text.
    Text,
    /// Text with few different values, kept as a dictionary.
    Label,
    /// UTC nanoseconds.
    Time,
    /// Price levels of one side of a book, best first.
    Levels,
    /// A list of signed integers: condition codes.
    ListI64,
}

/// A column of a [`Table`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Column {
    /// The name, in lower snake case.
    pub name: Arc<str>,
    /// The type.
    pub column_type: ColumnType,
    /// Whether the value may be absent.
    pub nullable: bool,
}

/// The description of a row kind, as one venue emits it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Table {
    /// The name, in the plural: `trades`.
    pub name: Arc<str>,
    /// The columns that, beside `symbol`, make a row unique at this venue. Empty: a repeat cannot be told from a new row.
    pub identity: Vec<Arc<str>>,
    /// Whether rows form chains (snapshot and changes of a book): then there are the columns `prev_seq` and `chain`.
    pub linked: bool,
    /// The row kind's own columns, without those that every table has.
    pub columns: Vec<Column>,
    /// Whether these are all columns: a derived table with `select` has none besides. No source has such a table, and no
    /// spool.
    #[serde(skip)]
    pub is_whole: bool,
}

impl Table {
    /// Returns the table of a row kind.
    pub fn of<R: Row + Default>() -> Self {
        let mut columns = Columns(Vec::new());
        R::default().cells(&mut columns);
        Self { name: R::TABLE.into(), identity: Vec::new(), linked: false, columns: columns.0, is_whole: false }
    }

    /// Names the columns that, beside `symbol`, make a row unique at this venue.
    #[must_use]
    pub fn unique_by(mut self, columns: &[&str]) -> Self {
        self.identity = columns.iter().map(|&name| name.into()).collect();
        self
    }

    /// Says that rows form chains: each chain begins with a snapshot, and a change names the state that it changes.
    #[must_use]
    pub fn linked(mut self) -> Self {
        self.linked = true;
        self
    }

    /// Returns a hash of the names and types of all columns: the same in every build, another one for other columns.
    pub fn columns_hash(&self) -> u64 {
        let schema = self.schema();
        let described = schema.fields().iter().map(|field| format!("{} {}\n", field.name(), field.data_type()));
        // FNV-1a: readers may compare it over years, so it has to be one that never changes.
        described
            .flat_map(String::into_bytes)
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    }

    /// Returns how many words of presence bits a row has.
    pub(crate) fn presence_words(&self) -> usize {
        self.columns.len().div_ceil(64)
    }

    /// Returns the Arrow schema: the columns that every table has, then its own.
    pub fn schema(&self) -> SchemaRef {
        let mut fields = Vec::new();
        if !self.is_whole {
            fields.extend([
                Field::new("ts_event", time(), false),
                Field::new("ts_recv", time(), false),
                Field::new("venue", label(), false),
                Field::new("symbol", label(), false),
                Field::new("seq", DataType::UInt64, true),
                Field::new("origin", label(), false),
            ]);
        }
        if self.linked {
            fields.push(Field::new("prev_seq", DataType::UInt64, true));
            fields.push(Field::new("chain", DataType::UInt64, false));
        }
        fields.extend(self.columns.iter().map(|c| Field::new(&*c.name, c.column_type.arrow(), c.nullable)));
        let metadata = [
            ("tidegate.table".to_owned(), self.name.to_string()),
            ("tidegate.identity".to_owned(), self.identity.join(",")),
        ];
        Arc::new(Schema::new_with_metadata(fields, metadata.into()))
    }
}

struct Columns(Vec<Column>);

impl Cells for Columns {
    fn cell<C: Cell>(&mut self, name: &'static str, _: &C) {
        self.0.push(Column { name: name.into(), column_type: C::TYPE, nullable: C::NULLABLE });
    }
}

impl ColumnType {
    /// Returns the Arrow type that the column has in a chunk.
    pub fn arrow(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::I64 => DataType::Int64,
            Self::U64 => DataType::UInt64,
            Self::F64 => DataType::Float64,
            Self::Text => DataType::Utf8,
            Self::Label => label(),
            Self::Time => time(),
            Self::Levels => DataType::List(Arc::new(Field::new("item", DataType::Struct(level_fields()), false))),
            Self::ListI64 => DataType::List(Arc::new(Field::new("item", DataType::Int64, false))),
        }
    }
}

fn label() -> DataType {
    DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into())
}

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
}

pub(crate) fn level_fields() -> Fields {
    Fields::from(vec![Field::new("price", DataType::Float64, false), Field::new("size", DataType::Float64, false)])
}
