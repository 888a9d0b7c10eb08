//! What a store can be asked: [`Audit`], which each store that can answer implements in its own words.

use async_trait::async_trait;
use serde_json::Value;

use super::values::Values;
use crate::{Error, Result, chunk::SinkTable, row::Timestamp, sink::Neighbour, spool::SpoolPosition};

/// A look at what a store holds. All answers are of one moment, however long they take, and nothing is changed.
#[async_trait]
pub trait Audit: Send {
    /// Returns how many nanoseconds the store's times are apart: those of the spool are cut off, towards the past, before they
    /// are compared.
    fn time_unit(&self) -> i64 {
        1
    }

    /// Returns the id of the spool that the store was fed from, and where in it the store is; `None` where the sink was never
    /// written to.
    async fn position(&mut self) -> Result<Option<(u64, SpoolPosition)>>;

    /// Returns the other pipelines that have written to these tables.
    async fn neighbours(&mut self, tables: &[SinkTable]) -> Result<Vec<Neighbour>>;

    /// Counts the rows of each stream of a table that came at `since` or later; `None` where there is no such table.
    async fn sums(&mut self, table: &SinkTable, since: Timestamp) -> Result<Option<Vec<Sum>>>;

    /// Returns the rows of one stream that came at `since` or later.
    async fn rows(&mut self, table: &SinkTable, stream: &Stream, since: Timestamp) -> Result<Vec<RowId>>;

    /// Returns which columns of a table, by their numbers in its schema, give every value back that was written into them. None
    /// where the store does not say: then no values are compared.
    async fn faithful(&mut self, table: &SinkTable) -> Result<Vec<usize>> {
        _ = table;
        Ok(Vec::new())
    }

    /// Shows each row that came at `since` or later with its values in these columns, in their order; reads them in blocks, so
    /// that a table may be larger than the memory. Times are shown in whole [`time_unit`](Self::time_unit)s.
    async fn show_values(
        &mut self,
        table: &SinkTable,
        columns: &[usize],
        since: Timestamp,
        show: &mut ShowValues<'_>,
    ) -> Result<()> {
        _ = (columns, since, show);
        Err(Error::permanent(format!("this store does not show the values of `{}`", table.name)))
    }

    /// Counts all rows of a table, whatever columns it has: of one whose `select` leaves out what tells its rows apart, nothing
    /// else can be asked. `None` where there is no such table.
    async fn count(&mut self, table: &SinkTable) -> Result<Option<u64>>;

    /// Returns all rows of a table in no order, of each the values of `columns` as JSON has them; none where there is no such
    /// table. `ts_event` and `ts_recv` are nanoseconds since 1970. All of them are held in memory: it is for a demo, and for
    /// tests.
    ///
    /// # Errors
    ///
    /// `Permanent`, as long as a store does not say how.
    async fn values(&mut self, table: &SinkTable, columns: &[&str]) -> Result<Vec<Vec<Value>>> {
        _ = columns;
        Err(Error::permanent(format!("the values of `{}` cannot be read back from this store", table.name)))
    }

    /// Returns the rows that came before `before` and have a number and a `ts_event` that others of their stream have, too.
    async fn doubled(&mut self, table: &SinkTable, before: Timestamp) -> Result<Vec<Doubled>>;
}

/// Takes a row of a stream, and its values.
pub type ShowValues<'a> = dyn FnMut(&Stream, RowId, &Values) + Send + 'a;

/// What tells a stream from others in one table of a store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stream {
    /// The column `venue`.
    pub venue: String,
    /// The column `symbol`.
    pub symbol: String,
}

/// What tells a row from others of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId {
    /// The column `seq`; `None` where the venue gives no number.
    pub seq: Option<u64>,
    /// The column `ts_event`.
    pub ts_event: Timestamp,
    /// The column `ts_recv`.
    pub ts_recv: Timestamp,
}

/// Rows of one number and one `ts_event`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubled {
    /// The stream.
    pub stream: Stream,
    /// The first of them.
    pub row: RowId,
    /// How many there are.
    pub rows: u64,
    /// How many `ts_recv` they have.
    pub moments: u64,
}

/// The rows of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// The stream.
    pub stream: Stream,
    /// How many there are.
    pub rows: u64,
    /// How many of them are dead letters that were sent again.
    pub redriven: u64,
    /// The sum of their [`RowId::mark`]s: that of other rows is most likely another one.
    pub marks: i64,
}

impl RowId {
    /// Returns a number that a store can work out too: the rest of each column when it is divided by
    /// [`DIVISOR`](Self::DIVISOR), times 1 for `ts_recv`, 3 for `ts_event`, 7 for `seq`, added up; an absent one counts 0.
    pub fn mark(&self) -> i64 {
        let seq = self.seq.map_or(0, |seq| (seq % Self::DIVISOR.unsigned_abs()).cast_signed());
        self.ts_recv.0 % Self::DIVISOR + 3 * (self.ts_event.0 % Self::DIVISOR) + 7 * seq
    }

    /// A prime number, small enough for the sum over any table.
    pub const DIVISOR: i64 = 1_000_003;
}
