//! What the spool says that a store holds: one pass over what is retained, item by item.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::audit::{RowId, Stream};
use crate::{
    Result,
    chunk::Plan,
    config::OnConflict,
    deadletter::DeadLetter,
    delivery::Fates,
    row::{Origin, StreamKey, Timestamp},
    spool::{Cause, Control, Item, RowHead, SourceInfo, SpoolReader, Step},
};

/// A stream as the ledger knows it: source, table, symbol.
pub(super) type LedgerStream = (String, String, String);

/// A sink, and what it should have got.
pub(super) struct Wanted {
    pub(super) sink: String,
    pub(super) plan: Plan,
    /// Nothing up to here is meant for it.
    pub(super) begins_at: u64,
    /// What is committed.
    pub(super) upto: u64,
    /// Rows that came before are not compared one by one.
    pub(super) since: Timestamp,
    /// How many nanoseconds the store's times are apart.
    pub(super) time_unit: i64,
    pub(super) letters: HashMap<Cause, DeadLetter>,
    pub(super) fates: Fates,
    /// Rows by the table's number, whether they are compared or not.
    pub(super) delivered: BTreeMap<usize, u64>,
    /// By the table's number and the stream.
    pub(super) sums: BTreeMap<(usize, Stream), (u64, i64)>,
    /// Dead letters that name a row which the spool has.
    pub(super) found_letters: HashSet<Cause>,
    /// Rows up to there that the ledger does not have, and behind there that it has.
    pub(super) behind_ledger: BTreeMap<(usize, Stream), i64>,
    /// Offsets that cannot be read.
    pub(super) missing: Vec<(u64, u64)>,
}

/// What was read besides.
#[derive(Default)]
pub(super) struct Seen {
    /// Rows up to where the ledger has read.
    pub(super) rows: HashMap<LedgerStream, u64>,
    /// Offsets that cannot be read.
    pub(super) missing: Vec<(u64, u64)>,
}

/// A row that one of the sinks should have got.
pub(super) struct Row<'a> {
    pub(super) table: usize,
    pub(super) stream: &'a Stream,
    pub(super) id: RowId,
    pub(super) offset: u64,
}

/// What a stream's number stands for.
#[derive(Clone)]
struct Known {
    source: Arc<str>,
    key: StreamKey,
}

impl Wanted {
    /// Gives an item its fate; returns the row, where the store should have it and it is compared.
    fn take<'a>(&mut self, cause: Cause, item: &Item<'_>, known: Option<&'a (Known, Stream)>) -> Option<Row<'a>> {
        let head = match item {
            Item::Row(head, _) => head,
            Item::Control(Control::Redrive { sink, cause: letter, head, .. })
                if *sink == self.sink
                    && self.letters.get(letter).is_some_and(|letter| letter.redriven == Some(cause)) =>
            {
                head
            }
            Item::Control(_) => {
                self.fates.control += 1;
                return None;
            }
        };
        let Some((stream, name)) = known else {
            self.fates.refused += 1;
            self.found_letters.insert(cause);
            return None;
        };
        let Some(table) = self.plan.number(&stream.source, &stream.key.table) else {
            self.fates.filtered += 1;
            return None;
        };
        if self.letters.contains_key(&cause) {
            self.fates.refused += 1;
            self.found_letters.insert(cause);
            return None;
        }
        self.fates.delivered += 1;
        *self.delivered.entry(table).or_default() += 1;
        let [ts_event, ts_recv] = [head.head.ts_event, head.head.ts_recv].map(|time| self.cut(time));
        let id = RowId { seq: head.head.position.number(), ts_event, ts_recv };
        let is_compared = self.is_compared(table) && id.ts_recv >= self.since;
        is_compared.then_some(Row { table, stream: name, id, offset: cause.offset })
    }

    /// Returns a time as the store has it.
    fn cut(&self, time: Timestamp) -> Timestamp {
        Timestamp(time.0.div_euclid(self.time_unit).saturating_mul(self.time_unit))
    }

    /// Returns whether a table's rows can be told from each other in the store: where they take each other's places, or are
    /// left out, nobody knows which are there.
    pub(super) fn is_compared(&self, table: usize) -> bool {
        matches!(self.plan.tables()[table].on_conflict, OnConflict::Append | OnConflict::Refuse)
    }
}

/// Reads all that is retained, up to where the last of the stores is, and the ledger.
pub(super) fn read(reader: &SpoolReader, sinks: &mut [Wanted], ledger: u64) -> Result<Seen> {
    let mut seen = Seen::default();
    let upto = sinks.iter().map(|sink| sink.upto).max().unwrap_or(0).max(ledger);
    walk(reader, upto, &mut seen.missing, &mut |cause, item, known| {
        if let (Item::Row(head, _), Some((stream, _))) = (item, known)
            && cause.offset <= ledger
            && head.head.origin != Origin::Redrive
        {
            let key = (stream.source.to_string(), stream.key.table.to_string(), stream.key.symbol.to_string());
            *seen.rows.entry(key).or_default() += 1;
        }
        for sink in sinks.iter_mut() {
            sink.balance_ledger(cause.offset, item, known, ledger);
            if cause.offset > sink.upto || cause.offset <= sink.begins_at {
                continue;
            }
            if let Some(row) = sink.take(cause, item, known) {
                let sum = sink.sums.entry((row.table, row.stream.clone())).or_default();
                *sum = (sum.0 + 1, sum.1.wrapping_add(row.id.mark()));
            }
        }
    })?;
    Ok(seen)
}

/// Reads once more, and shows those rows of one sink that it should have got.
pub(super) fn rows_of(reader: &SpoolReader, sink: &mut Wanted, show: &mut dyn FnMut(&Row<'_>)) -> Result<()> {
    let (fates, delivered) = (sink.fates, sink.delivered.clone());
    let (upto, mut missing) = (sink.upto, Vec::new());
    walk(reader, upto, &mut missing, &mut |cause, item, known| {
        if cause.offset > sink.begins_at
            && let Some(row) = sink.take(cause, item, known)
        {
            show(&row);
        }
    })?;
    (sink.fates, sink.delivered) = (fates, delivered);
    // What could be read the first time is gone now.
    if missing.iter().all(|gap| sink.missing.contains(gap) || gap.0 > upto) { Ok(()) } else { Err(super::let_go()) }
}

impl Wanted {
    /// Counts what the store has and the ledger has not read, and the other way round.
    fn balance_ledger(&mut self, offset: u64, item: &Item<'_>, known: Option<&(Known, Stream)>, ledger: u64) {
        let (low, high) = (ledger.min(self.upto), ledger.max(self.upto));
        if offset <= low || offset > high || !matches!(item, Item::Row(..)) {
            return;
        }
        let Some((stream, name)) = known else { return };
        if let Some(table) = self.plan.number(&stream.source, &stream.key.table) {
            let more = if self.upto > ledger { 1 } else { -1 };
            *self.behind_ledger.entry((table, name.clone())).or_default() += more;
        }
    }
}

/// Returns when the oldest retained row came.
pub(super) fn first_time(reader: &SpoolReader) -> Result<Option<Timestamp>> {
    let mut cursor = reader.cursor(reader.oldest());
    while let Some(step) = cursor.next(u64::MAX)? {
        let Step::Entry(entry) = step else { continue };
        let time =
            |(_, item): (u64, Item<'_>)| if let Item::Row(head, _) = item { Some(head.head.ts_recv) } else { None };
        if let Some(first) = entry.items().find_map(time) {
            return Ok(Some(first));
        }
    }
    Ok(None)
}

type Visit<'a> = dyn FnMut(Cause, &Item<'_>, Option<&(Known, Stream)>) + 'a;

fn walk(reader: &SpoolReader, upto: u64, missing: &mut Vec<(u64, u64)>, visit: &mut Visit<'_>) -> Result<()> {
    let mut names: HashMap<u32, (Known, Stream)> = HashMap::new();
    let mut cursor = reader.cursor(reader.oldest());
    while let Some(step) = cursor.next(upto)? {
        let entry = match step {
            Step::Missing { first, last } => {
                missing.push((first, last));
                continue;
            }
            Step::Entry(entry) => entry,
        };
        for (offset, item) in entry.items() {
            let (stream, cause) = (stream_of(&item), Cause { boot: entry.boot, offset, sub: 0 });
            if let Item::Control(Control::Stream { id, source, key }) = &item {
                let known = Known { source: source.as_str().into(), key: key.clone() };
                names.insert(*id, named(known, entry.sources));
            }
            if let Some(id) = stream
                && !names.contains_key(&id)
                && let Some(info) = reader.stream(id)
            {
                let known = Known { source: info.source.clone(), key: info.key.clone() };
                names.insert(id, named(known, entry.sources));
            }
            visit(cause, &item, stream.and_then(|id| names.get(&id)));
        }
    }
    Ok(())
}

fn named(known: Known, sources: &[SourceInfo]) -> (Known, Stream) {
    let venue = sources.iter().find(|source| source.name == known.source);
    let venue = venue.map_or_else(String::new, |source| source.venue.to_string());
    let symbol = known.key.symbol.to_string();
    (known, Stream { venue, symbol })
}

fn stream_of(item: &Item<'_>) -> Option<u32> {
    let of = |head: &RowHead| Some(head.head.stream);
    match item {
        Item::Row(head, _) => of(head),
        Item::Control(Control::Redrive { head, .. }) => of(head),
        Item::Control(_) => None,
    }
}
