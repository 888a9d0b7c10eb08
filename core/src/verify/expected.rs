//! What the spool says that a store holds: one pass over what is retained, item by item.

mod derive;
mod print;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{
    audit::{RowId, Stream},
    values::Values,
};
use crate::{
    Result,
    chunk::{Plan, SinkTable},
    config::OnConflict,
    deadletter::DeadLetter,
    delivery::Fates,
    row::{Origin, StreamKey, Table, Timestamp},
    spool::{Cause, Control, Item, RowHead, SourceInfo, SpoolReader, Step},
};

pub(super) use derive::Deriving;
pub(super) use print::Printing;

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
    /// Up to here derived tables were made by other definitions.
    pub(super) changed: u64,
    /// Rows of derived tables that came before are not compared.
    pub(super) changed_at: Timestamp,
    /// How many nanoseconds the store's times are apart.
    pub(super) time_unit: i64,
    pub(super) letters: HashMap<Cause, DeadLetter>,
    pub(super) fates: Fates,
    /// Rows by the table's number, whether they are compared or not.
    pub(super) delivered: BTreeMap<usize, u64>,
    /// By the table's number and the stream.
    pub(super) sums: BTreeMap<(usize, Stream), SpoolSum>,
    /// By the table's number: the columns whose values are compared.
    pub(super) columns: BTreeMap<usize, Vec<usize>>,
    /// Rows whose values are on their way.
    pub(super) printing: Printing,
    /// From when on rows are asked for.
    pub(super) asked_since: Option<Timestamp>,
    /// Rows that were asked for and came too close to the beginning of what the spool still has, or before a table was made as it
    /// is today.
    pub(super) left_out: u64,
    /// Dead letters that name a row which the spool has.
    pub(super) found_letters: HashSet<Cause>,
    /// Rows up to there that the ledger does not have, and behind there that it has.
    pub(super) behind_ledger: BTreeMap<(usize, Stream), i64>,
    /// Where some table is derived.
    pub(super) deriving: Option<Deriving>,
    /// Offsets that cannot be read.
    pub(super) missing: Vec<(u64, u64)>,
}

/// The rows of one stream in one table.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SpoolSum {
    pub(super) rows: u64,
    /// The sum of [`RowId::mark`].
    pub(super) marks: i64,
    /// The sum of [`Values::of_row`].
    pub(super) values: u64,
    /// How many rows are in it.
    pub(super) with_values: u64,
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
    /// `None` where the store shows none, or the row cannot be read with the columns of today.
    pub(super) values: Option<Values>,
}

/// What a stream's number stands for.
#[derive(Clone)]
pub(super) struct Known {
    source: Arc<str>,
    key: StreamKey,
    venue: Arc<str>,
    /// As the segment has it that is being read; `None` where that does not know it.
    table: Option<Arc<Table>>,
}

impl Wanted {
    /// Gives an item its fate; shows the rows that the store should have and that are compared.
    fn take(&mut self, cause: Cause, item: &Item<'_>, known: Option<&(Known, Stream)>, show: &mut Show<'_>) {
        let Some(row) = self.take_as_it_is(cause, item, known, show) else { return };
        match (content(item), known) {
            (Some(content), Some((stream, _))) if self.has_values(row.table) => {
                self.print(row, content, stream, cause, show)
            }
            _ => show(&row),
        }
    }

    /// Takes an item of which nothing is derived, and sees to the others.
    fn take_as_it_is<'a>(
        &mut self,
        cause: Cause,
        item: &Item<'_>,
        known: Option<&'a (Known, Stream)>,
        show: &mut Show<'_>,
    ) -> Option<Row<'a>> {
        let ((head, bytes), cause) = match item {
            Item::Row(head, bytes) => ((head, *bytes), cause),
            Item::Control(Control::Redrive { sink, cause: letter, head, row })
                if *sink == self.sink && self.is_sent_again_by(letter, cause) =>
            {
                ((head, &row[..]), Cause { sub: letter.sub, ..cause })
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
        if self.derives(stream) {
            let is_sent_again = matches!(item, Item::Control(_));
            self.derive(cause, (head, bytes), is_sent_again, (stream, name), show);
            return None;
        }
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
        self.is_shown(table, &id).then_some(Row { table, stream: name, id, offset: cause.offset, values: None })
    }

    /// Returns whether a row is compared, and counts it where it is one that was asked for and is not.
    fn is_shown(&mut self, table: usize, id: &RowId) -> bool {
        if !self.is_compared(table) {
            return false;
        }
        let is_shown = id.ts_recv >= self.since(table);
        self.left_out += u64::from(!is_shown && self.asked_since.is_none_or(|since| id.ts_recv >= since));
        is_shown
    }

    /// Returns whether the store shows values of a table.
    pub(super) fn has_values(&self, table: usize) -> bool {
        self.columns.get(&table).is_some_and(|columns| !columns.is_empty())
    }

    /// Returns whether the letter of this key was sent again by a row.
    fn is_sent_again_by(&self, letter: &Cause, row: Cause) -> bool {
        let row = Cause { sub: letter.sub, ..row };
        self.letters.get(letter).is_some_and(|letter| letter.redriven == Some(row))
    }

    /// Returns a time as the store has it.
    fn cut(&self, time: Timestamp) -> Timestamp {
        Timestamp(time.0.div_euclid(self.time_unit).saturating_mul(self.time_unit))
    }

    /// Returns whether a table's rows can be told from each other in the store: where they take each other's places, or are
    /// left out, nobody knows which are there. A `select` may leave out what tells them apart.
    pub(super) fn is_compared(&self, table: usize) -> bool {
        self.is_stored_whole(table) && self.plan.tells_apart(table)
    }

    /// Returns from when on rows of a table are compared.
    pub(super) fn since(&self, table: usize) -> Timestamp {
        if self.plan.root(table).is_some() { self.since.max(self.changed_at) } else { self.since }
    }

    /// Returns whether each row of a table is stored beside the others.
    pub(super) fn is_stored_whole(&self, table: usize) -> bool {
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
            let mut sums = std::mem::take(&mut sink.sums);
            sink.take(cause, item, known, &mut |row| add(&mut sums, row));
            sink.sums = sums;
        }
    })?;
    for sink in sinks {
        let mut sums = std::mem::take(&mut sink.sums);
        sink.settle_all(&mut |row| add(&mut sums, row));
        sink.sums = sums;
    }
    Ok(seen)
}

fn add(sums: &mut BTreeMap<(usize, Stream), SpoolSum>, row: &Row<'_>) {
    let sum = sums.entry((row.table, row.stream.clone())).or_default();
    sum.rows += 1;
    sum.marks = sum.marks.wrapping_add(row.id.mark());
    if let Some(values) = &row.values {
        sum.values = sum.values.wrapping_add(values.of_row(&row.id));
        sum.with_values += 1;
    }
}

/// Returns those of a table's columns that do not tell its rows apart.
pub(super) fn beyond_identity(table: &SinkTable, columns: Vec<usize>) -> Vec<usize> {
    let schema = table.table.schema();
    let identity = ["ts_event", "ts_recv", "venue", "symbol", "seq"];
    columns.into_iter().filter(|at| !identity.contains(&schema.field(*at).name().as_str())).collect()
}

/// Reads once more, and shows those rows of one sink that it should have got.
pub(super) fn rows_of(reader: &SpoolReader, sink: &mut Wanted, show: &mut Show<'_>) -> Result<()> {
    let (fates, delivered, left_out) = (sink.fates, sink.delivered.clone(), sink.left_out);
    let (upto, mut missing) = (sink.upto, Vec::new());
    walk(reader, upto, &mut missing, &mut |cause, item, known| {
        if cause.offset > sink.begins_at {
            sink.take(cause, item, known, show);
        }
    })?;
    sink.settle_all(show);
    (sink.fates, sink.delivered, sink.left_out) = (fates, delivered, left_out);
    // What could be read the first time is gone now.
    if missing.iter().all(|gap| sink.missing.contains(gap) || gap.0 > upto) { Ok(()) } else { Err(super::let_go()) }
}

impl Wanted {
    /// Shows what is still on its way.
    fn settle_all(&mut self, show: &mut Show<'_>) {
        self.settle(show);
        self.settle_values(show);
    }

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

/// Returns when the oldest retained row behind an offset came.
pub(super) fn first_time(reader: &SpoolReader, behind: u64) -> Result<Option<Timestamp>> {
    let mut cursor = reader.cursor(reader.oldest());
    while let Some(step) = cursor.next(u64::MAX)? {
        let Step::Entry(entry) = step else { continue };
        let time = |(offset, item): (u64, Item<'_>)| match item {
            Item::Row(head, _) if offset > behind => Some(head.head.ts_recv),
            Item::Row(..) | Item::Control(_) => None,
        };
        if let Some(first) = entry.items().find_map(time) {
            return Ok(Some(first));
        }
    }
    Ok(None)
}

pub(super) type Show<'a> = dyn FnMut(&Row<'_>) + 'a;

type Visit<'a> = dyn FnMut(Cause, &Item<'_>, Option<&(Known, Stream)>) + 'a;

fn walk(reader: &SpoolReader, upto: u64, missing: &mut Vec<(u64, u64)>, visit: &mut Visit<'_>) -> Result<()> {
    let mut names: HashMap<u32, (Known, Stream)> = HashMap::new();
    let mut sources: Option<Arc<[SourceInfo]>> = None;
    let mut cursor = reader.cursor(reader.oldest());
    while let Some(step) = cursor.next(upto)? {
        let entry = match step {
            Step::Missing { first, last } => {
                missing.push((first, last));
                continue;
            }
            Step::Entry(entry) => entry,
        };
        if sources.as_ref().is_none_or(|sources| !Arc::ptr_eq(sources, entry.sources)) {
            names.values_mut().for_each(|(known, _)| known.look_up(entry.sources));
            sources = Some(entry.sources.clone());
        }
        for (offset, item) in entry.items() {
            let (stream, cause) = (stream_of(&item), Cause { boot: entry.boot, offset, sub: 0 });
            if let Item::Control(Control::Stream { id, source, key }) = &item {
                names.insert(*id, named(source.as_str().into(), key.clone(), entry.sources));
            }
            if let Some(id) = stream
                && !names.contains_key(&id)
                && let Some(info) = reader.stream(id)
            {
                names.insert(id, named(info.source.clone(), info.key.clone(), entry.sources));
            }
            visit(cause, &item, stream.and_then(|id| names.get(&id)));
        }
    }
    Ok(())
}

fn named(source: Arc<str>, key: StreamKey, sources: &[SourceInfo]) -> (Known, Stream) {
    let symbol = key.symbol.to_string();
    let mut known = Known { source, key, venue: "".into(), table: None };
    known.look_up(sources);
    let venue = known.venue.to_string();
    (known, Stream { venue, symbol })
}

impl Known {
    /// Takes on what the sources of a segment say of it.
    fn look_up(&mut self, sources: &[SourceInfo]) {
        let Some(source) = sources.iter().find(|source| source.name == self.source) else { return };
        self.venue = source.venue.clone();
        self.table = source.tables.iter().find(|table| table.name == self.key.table).cloned();
    }
}

/// Returns the row of an item.
fn content<'a>(item: &'a Item<'_>) -> Option<(&'a RowHead, &'a [u8])> {
    match item {
        Item::Row(head, bytes) => Some((head, bytes)),
        Item::Control(Control::Redrive { head, row, .. }) => Some((head, row)),
        Item::Control(_) => None,
    }
}

fn stream_of(item: &Item<'_>) -> Option<u32> {
    let of = |head: &RowHead| Some(head.head.stream);
    match item {
        Item::Row(head, _) => of(head),
        Item::Control(Control::Redrive { head, .. }) => of(head),
        Item::Control(_) => None,
    }
}
