//! Records: rows with what continuity needs to know about them.

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Row, Table, write_row};

/// UTC nanoseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Returns the time of the wall clock.
    pub fn now() -> Self {
        crate::outside::wall_clock()
    }

    /// Returns the time that is `millis` milliseconds after 1970; the farthest time there is where that does not fit.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Returns whole milliseconds since 1970, rounded down.
    pub fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }
}

/// Where a record stands in its stream, as far as the venue says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Position {
    /// The venue gives no number.
    Unnumbered,
    /// A number that grows, and may jump.
    Ordered(u64),
    /// A number without holes: a jump is a gap.
    Sequence(u64),
    /// A change of the state `prev` into the state `id`. Without `prev` it is a whole state.
    Linked {
        /// The state after this record.
        id: u64,
        /// The state that it changes.
        prev: Option<u64>,
    },
}

impl Position {
    /// Returns the number that goes into the column `seq`.
    pub fn number(self) -> Option<u64> {
        match self {
            Self::Unnumbered => None,
            Self::Ordered(n) | Self::Sequence(n) | Self::Linked { id: n, .. } => Some(n),
        }
    }

    /// Returns the kind of numbering.
    pub fn numbering(self) -> Numbering {
        match self {
            Self::Unnumbered => Numbering::Unnumbered,
            Self::Ordered(_) => Numbering::Ordered,
            Self::Sequence(_) => Numbering::Sequence,
            Self::Linked { .. } => Numbering::Linked,
        }
    }
}

/// How the records of a stream are numbered; always one kind for one stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Numbering {
    /// Not at all: what is sent while nobody listens cannot be known.
    #[default]
    Unnumbered,
    /// By numbers that grow and may jump.
    Ordered,
    /// By numbers without holes.
    Sequence,
    /// Each names the one before.
    Linked,
}

/// Where a row came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// The live connection.
    #[default]
    Live,
    /// The venue's history, to fill a gap.
    Backfill,
    /// A dead letter that was repaired.
    Redrive,
}

impl Origin {
    /// Every origin, in the order of its number.
    pub const NAMES: [&'static str; 3] = ["live", "backfill", "redrive"];
}

/// What a protocol says of a row besides its columns.
#[derive(Debug, Clone, Copy)]
pub struct Mark<'a> {
    /// The instrument, spelt as the venue spells it. With the table it names the *stream*.
    pub symbol: &'a str,
    /// The venue's number.
    pub position: Position,
    /// The venue's time.
    pub ts_event: Timestamp,
}

/// What names a stream within a source.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamKey {
    /// The table's name.
    pub table: Arc<str>,
    /// The instrument.
    pub symbol: Arc<str>,
    /// Tells apart two instruments that had the same name one after the other; empty where the venue never does that.
    pub listing: Arc<str>,
}

impl StreamKey {
    /// Returns the key of an instrument whose name is used once.
    pub fn new(table: &str, symbol: &str) -> Self {
        Self { table: table.into(), symbol: symbol.into(), listing: "".into() }
    }
}

/// A record without its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The stream: the link's number for it before intake, the pipeline's number for it in the spool.
    pub stream: u32,
    /// The venue's number.
    pub position: Position,
    /// The venue's time.
    pub ts_event: Timestamp,
    /// When the frame came.
    pub ts_recv: Timestamp,
    /// How it came.
    pub origin: Origin,
}

/// Records in the order in which they came: heads beside one buffer of rows, so that a record costs no allocation.
#[derive(Debug, Default)]
pub struct Records {
    heads: Vec<(Head, usize)>,
    rows: Vec<u8>,
    /// Streams that appeared for the first time, in order of their numbers.
    new_streams: Vec<StreamKey>,
}

impl Records {
    /// Returns each record with its row.
    pub fn iter(&self) -> impl Iterator<Item = (Head, &[u8])> {
        self.from(0)
    }

    /// Returns each record from number `first` on, with its row.
    pub(crate) fn from(&self, first: usize) -> impl Iterator<Item = (Head, &[u8])> {
        let mut start = if first == 0 { 0 } else { self.heads.get(first - 1).map_or(self.rows.len(), |&(_, end)| end) };
        self.heads.get(first..).unwrap_or_default().iter().map(move |&(head, end)| {
            let row = &self.rows[start..end];
            start = end;
            (head, row)
        })
    }

    /// Returns the streams that have no record before this buffer's, in order of their numbers, which go on where the
    /// last buffer ended.
    pub fn new_streams(&self) -> &[StreamKey] {
        &self.new_streams
    }

    /// Returns how many records there are.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Returns whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Returns how much memory the records hold, in bytes.
    pub fn bytes(&self) -> usize {
        self.rows.len() + self.heads.len() * size_of::<(Head, usize)>()
    }

    /// Takes back the records behind the first `len`: those of a frame that turned out to be broken.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.heads.truncate(len);
        self.rows.truncate(self.heads.last().map_or(0, |&(_, end)| end));
    }

    /// Empties the buffer once intake has all of it.
    pub(crate) fn clear(&mut self) {
        self.heads.clear();
        self.rows.clear();
        self.new_streams.clear();
    }
}

/// The streams of one link, each with a small number, given in order of appearance.
#[derive(Debug)]
pub(crate) struct Directory {
    tables: Vec<Arc<Table>>,
    /// One map per table, from symbol to stream.
    ids: Vec<HashMap<Box<str>, u32, foldhash::fast::FixedState>>,
    listings: HashMap<Box<str>, Arc<str>, foldhash::fast::FixedState>,
    streams: u32,
}

impl Directory {
    pub(crate) fn new(tables: Vec<Arc<Table>>) -> Self {
        let ids = tables.iter().map(|_| HashMap::default()).collect();
        Self { tables, ids, listings: HashMap::default(), streams: 0 }
    }

    pub(crate) fn tables(&self) -> &[Arc<Table>] {
        &self.tables
    }

    /// Appends a row to `records`.
    ///
    /// # Panics
    ///
    /// If the row's table was not declared: a fault of the program, which the source contract finds.
    #[inline]
    pub(crate) fn push<R: Row>(
        &mut self,
        records: &mut Records,
        mark: Mark<'_>,
        ts_recv: Timestamp,
        origin: Origin,
        row: &R,
    ) {
        // A handful of tables: comparing their names costs less than hashing one.
        let table = self.tables.iter().position(|table| &*table.name == R::TABLE);
        let table = table.expect("a protocol emits rows of the tables that it declares");
        let stream = self.stream(records, table, mark.symbol);
        write_row(row, self.tables[table].presence_words(), &mut records.rows);
        let Mark { position, ts_event, .. } = mark;
        records.heads.push((Head { stream, position, ts_event, ts_recv, origin }, records.rows.len()));
    }

    #[inline]
    fn stream(&mut self, records: &mut Records, table: usize, symbol: &str) -> u32 {
        if let Some(&id) = self.ids[table].get(symbol) {
            return id;
        }
        let id = self.streams;
        self.streams += 1;
        self.ids[table].insert(symbol.into(), id);
        let listing = self.listings.get(symbol).cloned().unwrap_or_default();
        records.new_streams.push(StreamKey { table: self.tables[table].name.clone(), symbol: symbol.into(), listing });
        id
    }

    /// Numbers streams from the beginning again.
    pub(crate) fn forget_streams(&mut self) {
        self.ids.iter_mut().for_each(HashMap::clear);
        self.streams = 0;
    }

    /// From here on `symbol` means another instrument than before.
    pub(crate) fn relist(&mut self, symbol: &str, listing: &str) {
        if self.listings.get(symbol).is_some_and(|known| &**known == listing) {
            return;
        }
        self.listings.insert(symbol.into(), listing.into());
        for ids in &mut self.ids {
            ids.remove(symbol);
        }
    }

    /// Returns the full name of a stream.
    pub(crate) fn key(&self, table: &str, symbol: &str) -> StreamKey {
        StreamKey { listing: self.listings.get(symbol).cloned().unwrap_or_default(), ..StreamKey::new(table, symbol) }
    }
}
