//! Chunks: what a sink writes at once. All tables' rows that one range of spool offsets caused.

mod builder;
mod columns;
mod plan;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;

pub use builder::{ChunkBuilder, Fate, RowSource};
pub(crate) use builder::{Finished, RowOrigin, Unfit};
pub use plan::Plan;
pub use view::{ColumnView, JsonRows, integers, levels, write_number, write_time, write_value};

use arrow_array::RecordBatch;

use crate::{
    config::{Duration, OnConflict},
    row::Table,
    spool::{Cause, SpoolPosition},
};

/// A part of a source that has positions of its own. The spool is one part; a Kafka source has one per partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Part(pub Arc<str>);

impl Part {
    /// Returns the part that is the spool.
    pub fn spool() -> Self {
        Self(SPOOL.into())
    }

    /// Returns whether it is the spool.
    pub fn is_spool(&self) -> bool {
        *self.0 == *SPOOL
    }

    /// Returns what files of it are called; `None` for the spool, which is the only part there is.
    pub(crate) fn file_name(&self) -> Option<String> {
        (!self.is_spool()).then(|| self.0.replace('/', "-"))
    }
}

const SPOOL: &str = "spool";

/// A table as one sink gets it: resolved names and the columns of all sources that feed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkTable {
    /// The description: columns in the order of the chunk's, behind those that every table has.
    pub table: Arc<Table>,
    /// What it is called in the store.
    pub name: String,
    /// The columns of the key that the user asked for; empty for none. Exactly-once never rests on it.
    pub key: Vec<String>,
    /// What becomes of a row whose key is there already.
    pub on_conflict: OnConflict,
    /// How long the user wants its rows to be kept, where that differs from the other tables of the sink.
    pub retention: Option<Duration>,
    /// The column that orders it by time.
    pub time_column: String,
}

/// Rows of all tables caused by the offsets behind `from`, up to and including `to`.
///
/// An empty chunk only moves the position: a filter passed nothing, or the feed is quiet.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The part whose positions these are.
    pub part: Part,
    /// Where the store has to stand for the chunk to be written.
    pub from: SpoolPosition,
    /// Where it stands afterwards.
    pub to: SpoolPosition,
    /// About how many bytes it takes in the spool, with the rows in between that the sink does not take.
    pub bytes: u64,
    /// The rows; only tables that have any.
    pub tables: Vec<TableRows>,
}

/// The rows of one table in a [`Chunk`].
#[derive(Debug, Clone)]
pub struct TableRows {
    /// The table's number in `SinkContext::tables`.
    pub table: usize,
    /// The columns, as `SinkTable::table.schema()` says.
    pub rows: RecordBatch,
    /// What caused each row, in the order of the rows: growing.
    pub causes: Vec<Cause>,
    /// The number of each row's stream in the spool.
    pub streams: Vec<u32>,
}

impl SinkTable {
    /// Returns whether it has a column of this name, in any case.
    pub fn has_column(&self, name: &str) -> bool {
        self.table.schema().fields().iter().any(|field| field.name().eq_ignore_ascii_case(name))
    }
}

impl Chunk {
    /// Returns how many rows there are in all tables.
    pub fn rows(&self) -> usize {
        self.tables.iter().map(|part| part.rows.num_rows()).sum()
    }

    /// Returns whether the chunk moves the position only.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }
}
