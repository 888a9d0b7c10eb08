//! From the log to chunks: reads on, gives each offset its fate, and keeps what has to be built again.

mod collect;
mod letters;

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
    sync::Arc,
};

use serde_json::{Map, Value};

use super::{
    balance::{Fates, Portion},
    log::{Log, Poison, Seen},
};
use crate::{
    Error, Result,
    chunk::{ChunkBuilder, Fate, Plan, RowSource, TableRows},
    config::{Batch, TableChoice},
    deadletter::{DeadLetter, Sent},
    row::Timestamp,
    spool::{Cause, Control, Item, RowHead, SourceInfo, SpoolPosition},
    table::Derived,
};
use collect::Collected;

/// How much one chunk may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

impl Bounds {
    pub(crate) fn of(batch: &Batch) -> Self {
        Self { rows: batch.rows.get(), bytes: usize::try_from(batch.bytes.0).unwrap_or(usize::MAX).max(1) }
    }
}

/// What a sink takes.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) tables: TableChoice,
    pub(crate) derived: Derived,
}

/// Reads one sink's log.
pub(crate) struct Feeder<L> {
    log: L,
    sink: String,
    plan: Arc<Plan>,
    builder: ChunkBuilder,
    bounds: Bounds,
    /// Rows that are dead letters of chunks that are not committed yet.
    refused: HashSet<Cause>,
    /// By what made them: rows that send a dead letter again, of chunks that are not committed yet.
    redrives: HashMap<Cause, Redriven>,
    segment: Option<u64>,
    position: Option<SpoolPosition>,
}

/// What is known of a row that sends a dead letter again.
#[derive(Debug, Clone, Copy)]
struct Redriven {
    letter: Cause,
    goes: bool,
}

/// What was read.
pub(crate) enum Read {
    /// A range, with its rows.
    Range { portion: Portion, border: bool, rows: Vec<TableRows> },
    /// Rows whose bytes are none of their table's, and what is no row. They have to become dead letters before the range is read
    /// again.
    Unreadable(Vec<DeadLetter>),
    /// Rows for which a derived table has no value. They have to become dead letters before the range is read again.
    Unfit(Vec<DeadLetter>),
    /// Rows that send dead letters again. The letters have to say whether they go before the range is read again.
    Redrives(Vec<Sent>),
    /// The plan was extended by a table of rows that no source declares any more: the sink has to be opened again.
    Replanned,
}

/// Why reading stopped before the end.
enum Stop {
    Unreadable(Box<DeadLetter>),
    Unplanned(SourceInfo),
}

impl<L: Log> Feeder<L> {
    pub(crate) fn new(
        log: L,
        sink: &str,
        pipeline: &str,
        sources: Vec<SourceInfo>,
        tables: impl Into<Wanted>,
        bounds: Bounds,
    ) -> Result<Self> {
        let Wanted { tables, derived } = tables.into();
        let plan = Arc::new(Plan::deriving(pipeline, sources, tables, derived)?);
        let (builder, sink) = (ChunkBuilder::new(plan.clone()), sink.to_owned());
        let (refused, redrives) = (HashSet::new(), HashMap::new());
        Ok(Self { log, sink, plan, builder, bounds, refused, redrives, segment: None, position: None })
    }

    pub(crate) fn log(&self) -> &L {
        &self.log
    }

    /// Looks anew at what the log holds.
    pub(crate) fn look(&mut self) -> Result<()> {
        self.log.look()
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Leaves these rows out from now on: they are dead letters.
    pub(crate) fn leave_out(&mut self, causes: impl IntoIterator<Item = Cause>) {
        self.refused.extend(causes);
    }

    /// Learns of rows that send dead letters again whether they go to the store.
    pub(crate) fn redriven(&mut self, rows: Vec<Sent>, go: &[bool]) {
        let known = rows.into_iter().zip(go).map(|(Sent { letter, row }, &goes)| (row, Redriven { letter, goes }));
        self.redrives.extend(known);
    }

    /// Returns whether this row is left out.
    pub(crate) fn leaves_out(&self, cause: &Cause) -> bool {
        self.refused.contains(cause)
    }

    /// Forgets what was left out up to `position`: it does not come again.
    pub(crate) fn committed(&mut self, position: SpoolPosition) {
        self.log.passed(position.offset);
        if !self.refused.is_empty() || !self.redrives.is_empty() {
            self.refused.retain(|cause| cause.offset > position.offset);
            self.redrives.retain(|cause, _| cause.offset > position.offset);
        }
    }

    /// Says how far the store is known to be, and what it may have besides: [`Log::claim`].
    pub(crate) fn claim(&mut self, passed: u64, entered: u64) {
        self.log.claim(&self.sink, passed, entered);
    }

    /// Begins anew behind `at`, whatever was under way. Nothing is left out any more: its dead letters are gone.
    ///
    /// `entered` as in [`Log::claim`].
    pub(crate) fn opened(&mut self, at: SpoolPosition, entered: u64) {
        self.claim(at.offset, entered);
        self.log.begin(at);
        self.refused.clear();
        self.redrives.clear();
        self.position = None;
        self.builder = ChunkBuilder::new(self.plan.clone());
    }

    /// Reads on behind `from`, up to offset `upto` at most, as far as the bounds of a chunk let it.
    ///
    /// A derived table may leave most rows out, so it reads on until enough are left, or so many offsets were read that the
    /// store should hear of them.
    pub(crate) fn read(&mut self, from: SpoolPosition, upto: u64) -> Result<Read> {
        if self.position != Some(from) {
            self.log.seek(from)?;
        }
        self.position = None;
        self.builder.clear();
        let (mut portion, mut border) = (Portion::new(from), false);
        let (mut unreadable, mut unplanned) = (Vec::new(), None);
        let mut collected = Collected::default();
        let most_offsets = (self.bounds.rows as u64).saturating_mul(OFFSETS_FOR_A_ROW);
        let mut asked = Vec::new();
        loop {
            let (rows, bytes) = collected.room(&self.bounds, self.plan.most_rows());
            let Self { log, builder, refused, redrives, segment, sink, .. } = self;
            let mut taker = Taker { builder, sink, refused, redrives, asked };
            let mut is_cut = false;
            log.read(upto, &mut |seen| {
                let held = taker.builder.rows();
                let is_long = portion.fates.offsets() - portion.fates.missing + held as u64 >= most_offsets
                    || portion.fates.refused >= MOST_UNREADABLE as u64;
                let is_full = held >= rows || taker.builder.bytes() >= bytes || is_long;
                if is_full || taker.is_too_early(&seen, from) {
                    is_cut = is_full && !is_long;
                    return ControlFlow::Break(());
                }
                match taker.take(&seen, &mut portion) {
                    None => {}
                    Some(Stop::Unplanned(source)) => {
                        unplanned = Some(source);
                        return ControlFlow::Break(());
                    }
                    // For each of them the range is read again, so they are collected.
                    Some(Stop::Unreadable(letter)) => {
                        unreadable.push(*letter);
                        if unreadable.len() == MOST_UNREADABLE {
                            return ControlFlow::Break(());
                        }
                    }
                }
                portion.bytes += seen.bytes();
                portion.to = match seen {
                    Seen::Missing { position } | Seen::Void { position, .. } | Seen::Poison { position, .. } => {
                        position
                    }
                    Seen::Item { position, segment: entered, .. } => {
                        border |= segment.replace(entered).is_some_and(|left| left != entered);
                        position
                    }
                };
                ControlFlow::Continue(())
            })?;
            asked = taker.asked;
            if !unreadable.is_empty() {
                return Ok(Read::Unreadable(unreadable));
            }
            if let Some(source) = unplanned {
                self.plan = Arc::new(self.plan.with(source).map_err(does_not_fit)?);
                self.builder = ChunkBuilder::new(self.plan.clone());
                return Ok(Read::Replanned);
            }
            if !asked.is_empty() {
                return Ok(Read::Redrives(asked));
            }
            let bytes = self.builder.bytes();
            collected.add(self.builder.finish_without(&self.refused), bytes, &mut portion.fates);
            if !is_cut || collected.is_full(&self.bounds, self.plan.most_rows()) {
                break;
            }
        }
        if !collected.unfit.is_empty() {
            let letters = collected.unfit.into_iter().filter_map(|unfit| self.unfit(unfit)).collect();
            return Ok(Read::Unfit(letters));
        }
        if portion.to == from {
            return Err(Error::transient(format!("the spool shows nothing behind {from}, but ends at {upto}")));
        }
        self.position = Some(portion.to);
        Ok(Read::Range { portion, border, rows: collected.rows() })
    }

    /// Counts the rows behind `from` that the sink takes; stops counting at `most` offsets, and then says so.
    pub(crate) fn count_rows(&mut self, from: SpoolPosition, upto: u64, most: u64) -> Result<(u64, bool)> {
        self.position = None;
        let Self { log, plan, sink, bounds, .. } = self;
        log.seek(from)?;
        let (mut rows, mut offsets) = (0, 0);
        let (mut builder, none) = (ChunkBuilder::new(plan.clone()), HashSet::new());
        let finish = |builder: &mut ChunkBuilder| {
            let finished = builder.finish_without(&none);
            // What has no value becomes a dead letter, and waits until then.
            finished.delivered + finished.unfit.len() as u64
        };
        log.read(upto, &mut |seen| {
            if offsets >= most {
                return ControlFlow::Break(());
            }
            offsets += 1;
            let Seen::Item { position, item, source, .. } = &seen else { return ControlFlow::Continue(()) };
            let Some((head, bytes)) = row_for(sink, item) else { return ControlFlow::Continue(()) };
            // A row of an unknown stream becomes a dead letter.
            let is_taken = source.is_none_or(|source| plan.takes(source.source, &source.table.name));
            match source.filter(|_| is_taken && plan.derives()) {
                None => rows += u64::from(is_taken),
                Some(source) => {
                    let cause = Cause { boot: position.boot, offset: position.offset, sub: 0 };
                    let fate = builder.push(cause, head, bytes, source, &none);
                    rows += u64::from(!matches!(fate, Fate::Taken | Fate::Filtered));
                    if builder.rows() >= bounds.rows {
                        rows += finish(&mut builder);
                    }
                }
            }
            ControlFlow::Continue(())
        })?;
        Ok((rows + finish(&mut builder), offsets >= most))
    }
}

impl From<(TableChoice, Derived)> for Wanted {
    fn from((tables, derived): (TableChoice, Derived)) -> Self {
        Self { tables, derived }
    }
}

/// Without derived tables.
impl From<TableChoice> for Wanted {
    fn from(tables: TableChoice) -> Self {
        Self { tables, derived: Derived::default() }
    }
}

/// Gives items their fates.
struct Taker<'a> {
    builder: &'a mut ChunkBuilder,
    sink: &'a str,
    refused: &'a HashSet<Cause>,
    redrives: &'a HashMap<Cause, Redriven>,
    /// Rows that send dead letters again, and of which nobody has said whether they go.
    asked: Vec<Sent>,
}

impl Taker<'_> {
    fn take(&mut self, seen: &Seen<'_>, portion: &mut Portion) -> Option<Stop> {
        let (position, item, source) = match seen {
            Seen::Item { position, item, source, .. } => (position, item, source),
            Seen::Missing { position } => {
                portion.fates.missing += position.offset.saturating_sub(portion.to.offset);
                return None;
            }
            Seen::Void { lost, .. } => {
                portion.fates.missing += lost;
                return None;
            }
            Seen::Poison { position, poison } => {
                let cause = Cause { boot: position.boot, offset: position.offset, sub: 0 };
                if !self.refused.contains(&cause) {
                    return Some(self.poisoned(cause, poison));
                }
                portion.fates.refused += 1;
                return None;
            }
        };
        // Offsets are counted without holes, so what the log does not show it does not have.
        let missing = position.offset.saturating_sub(portion.to.offset + 1);
        let mut fates = Fates { missing, ..Fates::default() };
        // A row that sends a letter again is one of the letter's table, and of no other.
        let sub = sent_again(item).map_or(0, |letter| letter.sub);
        let cause = Cause { boot: position.boot, offset: position.offset, sub };
        match row_for(self.sink, item).filter(|_| self.goes(item, cause)) {
            None => fates.control = 1,
            Some((head, bytes)) => match self.push(cause, head, bytes, *source, sent_again(item).is_some()) {
                // It is counted once what is derived of it is known.
                Fate::Taken => {}
                Fate::Filtered => fates.filtered = 1,
                Fate::Skipped => fates.refused = 1,
                Fate::Unreadable => return Some(self.unreadable(cause, head, bytes, source.as_ref())),
                Fate::Unplanned => return source.as_ref().map(unplanned),
            },
        }
        portion.fates.add(&fates);
        None
    }

    /// Returns whether a row sends a letter again whose own row is still in front of it: whether that is refused this time
    /// too, the store has to say first.
    fn is_too_early(&self, seen: &Seen<'_>, from: SpoolPosition) -> bool {
        let Seen::Item { position, item: Item::Control(Control::Redrive { sink, cause, .. }), .. } = seen else {
            return false;
        };
        sink == self.sink && from.offset < cause.offset && cause.offset < position.offset
    }

    /// Returns whether a row goes to the store; one that sends a letter again does if the letter says so.
    fn goes(&mut self, item: &Item<'_>, cause: Cause) -> bool {
        let Item::Control(Control::Redrive { cause: letter, .. }) = item else { return true };
        let known = self.redrives.get(&cause);
        if known.is_none() {
            self.asked.push(Sent { letter: *letter, row: cause });
        }
        known.is_some_and(|redriven| redriven.goes)
    }

    fn push(
        &mut self,
        cause: Cause,
        head: &RowHead,
        bytes: &[u8],
        source: Option<RowSource<'_>>,
        is_sent_again: bool,
    ) -> Fate {
        let fate = match source {
            None => Fate::Unreadable,
            Some(source) if !is_sent_again => self.builder.push(cause, head, bytes, source, self.refused),
            Some(source) => {
                self.builder.push_to(cause.sub, Cause { sub: 0, ..cause }, head, bytes, source, self.refused)
            }
        };
        match fate {
            Fate::Unreadable if self.refused.contains(&cause) => Fate::Skipped,
            Fate::Taken | Fate::Filtered | Fate::Skipped | Fate::Unreadable | Fate::Unplanned => fate,
        }
    }

    /// Makes the dead letter of what is no row.
    fn poisoned(&self, cause: Cause, poison: &Poison) -> Stop {
        Stop::Unreadable(Box::new(DeadLetter {
            sink: self.sink.to_owned(),
            boot: cause.boot,
            offset: cause.offset,
            sub: cause.sub,
            source: poison.source.to_string(),
            table: poison.table.clone(),
            from: String::new(),
            symbol: String::new(),
            listing: String::new(),
            ts_event: poison.at,
            row: poison.shown.clone(),
            error: poison.why.clone(),
            when: Timestamp::now(),
            redrive_of: None,
            redriven: None,
        }))
    }

    /// Makes the dead letter of a row whose bytes say nothing to us: they are kept as they are.
    fn unreadable(&self, cause: Cause, head: &RowHead, bytes: &[u8], source: Option<&RowSource<'_>>) -> Stop {
        let raw: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = |text: Option<&Arc<str>>| text.map_or_else(String::new, ToString::to_string);
        Stop::Unreadable(Box::new(DeadLetter {
            sink: self.sink.to_owned(),
            boot: cause.boot,
            offset: cause.offset,
            sub: cause.sub,
            source: name(source.map(|source| source.source)),
            table: name(source.map(|source| &source.key.table)),
            from: String::new(),
            symbol: name(source.map(|source| &source.key.symbol)),
            listing: name(source.map(|source| &source.key.listing)),
            ts_event: head.head.ts_event,
            row: Map::from_iter([("raw".to_owned(), Value::String(raw))]),
            error: match source {
                Some(_) => "the row's bytes do not fit its table".to_owned(),
                None => {
                    let stream = head.head.stream;
                    format!(
                        "the spool has lost what its stream, number {stream}, stands for: its table and its symbol are unknown"
                    )
                }
            },
            when: Timestamp::now(),
            redrive_of: self.redrives.get(&cause).map(|redriven| redriven.letter),
            redriven: None,
        }))
    }
}

/// Returns the row of an item, if the sink may get it.
fn row_for<'a>(sink: &str, item: &'a Item<'a>) -> Option<(&'a RowHead, &'a [u8])> {
    match item {
        Item::Row(head, bytes) => Some((head, bytes)),
        Item::Control(Control::Redrive { sink: to, head, row, .. }) if to == sink => Some((head, row)),
        Item::Control(_) => None,
    }
}

/// Returns the key of the letter that an item sends again.
fn sent_again<'a>(item: &'a Item<'_>) -> Option<&'a Cause> {
    if let Item::Control(Control::Redrive { cause, .. }) = item { Some(cause) } else { None }
}

fn does_not_fit(error: Error) -> Error {
    Error::permanent(
        "the spool still has rows of a table that does not fit the one of today; have them delivered by the program \
         or the settings that wrote them, or keep the tables apart by name",
    )
    .because(error)
}

fn unplanned(source: &RowSource<'_>) -> Stop {
    let (name, venue) = (source.source.clone(), source.venue.clone());
    Stop::Unplanned(SourceInfo { name, venue, tables: vec![source.table.clone()] })
}

/// How many offsets one chunk may cover for each row that it may hold: a filter that passes little still moves on.
const OFFSETS_FOR_A_ROW: u64 = 20;

/// How many rows that cannot be read are collected: each may be as long as a message.
const MOST_UNREADABLE: usize = 256;
