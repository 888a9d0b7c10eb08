//! Rows: what columns a row kind has, how a typed row becomes bytes, and what is said of a row besides its columns.
//!
//! A row is written once, when a protocol emits it, into a compact form that only its table can read back: one bit per
//! column that says whether it is there, then the values that are. The spool stores these bytes as they are; a sink's
//! cursor turns them into Arrow columns. Nothing in between knows the Rust type, so a row kind of another crate, or one
//! that was put together at run time, is worth as much as a built-in one.

mod bytes;
mod json;
pub mod kinds;
mod record;
mod schema;
mod value;

pub use bytes::Reader;
pub use json::time;
pub(crate) use record::Directory;
pub use record::{Head, Mark, Numbering, Origin, Position, Records, StreamKey, Timestamp};
pub(crate) use schema::level_fields;
pub use schema::{Column, ColumnType, Table};
pub use value::Value;

/// A row kind: one struct, one table.
///
/// Implemented by [`row!`](crate::row!), which lists the fields once; by hand where a column is computed or where a
/// venue adds columns of its own behind those of a built-in kind.
pub trait Row {
    /// The table's name, in the plural: `trades`.
    const TABLE: &'static str;

    /// Hands each column to `cells`, always all of them and always in the same order.
    fn cells(&self, cells: &mut impl Cells);
}

/// Receives the columns of a row, one after the other.
pub trait Cells {
    /// Takes the next column.
    fn cell<C: Cell>(&mut self, name: &'static str, value: &C);
}

/// A value that can stand in a column. `Option<C>` makes the column nullable.
pub trait Cell {
    /// The column's type.
    const TYPE: ColumnType;
    /// Whether the value may be absent.
    const NULLABLE: bool = false;

    /// Appends the value, and returns whether there was one.
    fn write(&self, bytes: &mut Vec<u8>) -> bool;
}

/// Text with few different values: a side, a state. Stored as a dictionary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Label<'a>(pub &'a str);

/// One price level of a book.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Price, in the quote currency.
    pub price: f64,
    /// Size at that price, as the venue counts it; 0 removes the level.
    pub size: f64,
}

/// Implements [`Row`](crate::row::Row) for a struct whose fields are its columns.
///
/// ```
/// #[derive(Default)]
/// struct Liquidation<'a> { price: f64, side: &'a str, id: i64 }
/// tidegate_core::row!(Liquidation<'_> => "liquidations", [price, side, id]);
/// ```
#[macro_export]
macro_rules! row {
    ($row:ty => $table:literal, [$($column:ident),+ $(,)?]) => {
        impl $crate::row::Row for $row {
            const TABLE: &'static str = $table;

            #[inline]
            fn cells(&self, cells: &mut impl $crate::row::Cells) {
                $(cells.cell(stringify!($column), &self.$column);)+
            }
        }
    };
}

/// Writes `row` behind `bytes`: `words` words of presence bits, then the values that are there.
#[inline]
fn write_row<R: Row>(row: &R, words: usize, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.resize(start + words * 8, 0);
    let mut writer = RowWriter { bytes, start, column: 0, word: 0 };
    row.cells(&mut writer);
    writer.flush();
}

/// Collects presence bits a word at a time.
struct RowWriter<'a> {
    bytes: &'a mut Vec<u8>,
    start: usize,
    column: usize,
    word: u64,
}

impl RowWriter<'_> {
    #[inline]
    fn flush(&mut self) {
        if !self.column.is_multiple_of(64) {
            self.put(self.column / 64);
        }
    }

    #[inline]
    fn put(&mut self, word: usize) {
        let at = self.start + word * 8;
        self.bytes[at..at + 8].copy_from_slice(&self.word.to_le_bytes());
    }
}

impl Cells for RowWriter<'_> {
    #[inline]
    fn cell<C: Cell>(&mut self, _: &'static str, value: &C) {
        self.word |= u64::from(value.write(self.bytes)) << (self.column % 64);
        self.column += 1;
        if self.column.is_multiple_of(64) {
            self.put(self.column / 64 - 1);
            self.word = 0;
        }
    }
}
