//! From the log to chunks: reads on, gives each offset its fate, and keeps what has to be built again.

use std::{collections::HashSet, ops::ControlFlow, sync::Arc};

use serde_json::{Map, Value};

use super::{
    balance::{Fates, Portion},
    log::{Log, Seen},
};
use crate::{
    Error, Result,
    chunk::{ChunkBuilder, ColumnView, Fate, JsonRows, Plan, RowSource, TableRows},
    config::TableChoice,
    deadletter::DeadLetter,
    row::Timestamp,
    sink::Refusal,
    spool::{Cause, Item, RowHead, SourceInfo, SpoolPosition},
};

/// How much one chunk may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
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
    segment: Option<u64>,
    position: Option<SpoolPosition>,
}

/// What was read.
pub(crate) enum Read {
    /// A range, with its rows.
    Range { portion: Portion, border: bool, rows: Vec<TableRows> },
    /// A row whose bytes are none of its table's. It has to become a dead letter before the range is read again.
    Unreadable(Box<DeadLetter>),
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
        tables: TableChoice,
        bounds: Bounds,
    ) -> Result<Self> {
        let plan = Arc::new(Plan::new(pipeline, sources, tables)?);
        let (builder, sink) = (ChunkBuilder::new(plan.clone()), sink.to_owned());
        Ok(Self { log, sink, plan, builder, bounds, refused: HashSet::new(), segment: None, position: None })
    }

    pub(crate) fn log(&self) -> &L {
        &self.log
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Leaves these rows out from now on: they are dead letters.
    pub(crate) fn leave_out(&mut self, causes: impl IntoIterator<Item = Cause>) {
        self.refused.extend(causes);
    }

    /// Returns whether this row is left out.
    pub(crate) fn leaves_out(&self, cause: &Cause) -> bool {
        self.refused.contains(cause)
    }

    /// Forgets what was left out up to `position`: it does not come again.
    pub(crate) fn committed(&mut self, position: SpoolPosition) {
        self.log.passed(position.offset);
        if !self.refused.is_empty() {
            self.refused.retain(|cause| cause.offset > position.offset);
        }
    }

    /// Says how far the store is known to be, and what it may have besides: [`Log::claim`].
    pub(crate) fn claim(&mut self, passed: u64, entered: u64) {
        self.log.claim(&self.sink, passed, entered);
    }

    /// Begins anew behind `at`, whatever was under way. Nothing is left out any more: its dead letters are gone.
    pub(crate) fn opened(&mut self, at: SpoolPosition) {
        self.claim(at.offset, 0);
        self.refused.clear();
        self.position = None;
        self.builder = ChunkBuilder::new(self.plan.clone());
    }

    /// Reads on behind `from`, up to offset `upto` at most, as far as the bounds of a chunk let it.
    pub(crate) fn read(&mut self, from: SpoolPosition, upto: u64) -> Result<Read> {
        if self.position != Some(from) {
            self.log.seek(from)?;
        }
        self.position = None;
        self.builder.clear();
        let (mut portion, mut border, mut stop) = (Portion::new(from), false, None);
        let Self { log, builder, bounds, refused, segment, sink, .. } = self;
        let most_offsets = (bounds.rows as u64).saturating_mul(OFFSETS_FOR_A_ROW);
        log.read(upto, &mut |seen| {
            let is_long = portion.fates.offsets() - portion.fates.missing >= most_offsets;
            if builder.rows() >= bounds.rows || builder.bytes() >= bounds.bytes || is_long {
                return ControlFlow::Break(());
            }
            if let Some(why) = take(builder, sink, &seen, refused, &mut portion) {
                stop = Some(why);
                return ControlFlow::Break(());
            }
            portion.bytes += seen.bytes();
            portion.to = match seen {
                Seen::Missing { position } => position,
                Seen::Item { position, segment: entered, .. } => {
                    border |= segment.replace(entered).is_some_and(|left| left != entered);
                    position
                }
            };
            ControlFlow::Continue(())
        })?;
        match stop {
            Some(Stop::Unreadable(letter)) => return Ok(Read::Unreadable(letter)),
            Some(Stop::Unplanned(source)) => {
                self.plan = Arc::new(self.plan.with(source).map_err(does_not_fit)?);
                self.builder = ChunkBuilder::new(self.plan.clone());
                return Ok(Read::Replanned);
            }
            None => {}
        }
        if portion.to == from {
            return Err(Error::transient(format!("the spool shows nothing behind {from}, but ends at {upto}")));
        }
        self.position = Some(portion.to);
        Ok(Read::Range { portion, border, rows: self.builder.finish() })
    }

    /// Counts the rows behind `from` that the sink takes; stops counting at `most` offsets, and then says so.
    pub(crate) fn count_rows(&mut self, from: SpoolPosition, upto: u64, most: u64) -> Result<(u64, bool)> {
        self.position = None;
        let Self { log, plan, .. } = self;
        log.seek(from)?;
        let (mut rows, mut offsets) = (0, 0);
        log.read(upto, &mut |seen| {
            if offsets >= most {
                return ControlFlow::Break(());
            }
            offsets += 1;
            let is_taken = match seen {
                Seen::Item { item: Item::Row(..), source, .. } => {
                    // A row of an unknown stream becomes a dead letter.
                    source.is_none_or(|source| plan.takes(source.source, &source.table.name))
                }
                Seen::Item { .. } | Seen::Missing { .. } => false,
            };
            rows += u64::from(is_taken);
            ControlFlow::Continue(())
        })?;
        Ok((rows, offsets >= most))
    }

    /// Makes the dead letters of refused rows. `None` when a refusal names no row of the chunk.
    pub(crate) fn letters(&self, rows: &[TableRows], refusals: &[Refusal], at: Timestamp) -> Option<Vec<DeadLetter>> {
        refusals.iter().map(|refusal| self.letter(rows, refusal, at)).collect()
    }

    fn letter(&self, rows: &[TableRows], refusal: &Refusal, at: Timestamp) -> Option<DeadLetter> {
        let part = rows.iter().find(|part| part.table == refusal.table)?;
        let row = part.causes.binary_search_by_key(&refusal.cause.offset, |cause| cause.offset).ok()?;
        let mut text = Vec::new();
        JsonRows::new(&part.rows.slice(row, 1)).write(0, &mut text);
        let row: Map<String, Value> = serde_json::from_slice(&text).ok()?;
        let of = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let table = self.plan.tables().get(refusal.table)?;
        Some(DeadLetter {
            sink: self.sink.clone(),
            boot: refusal.cause.boot,
            offset: refusal.cause.offset,
            sub: refusal.cause.sub,
            table: table.table.name.to_string(),
            symbol: of("symbol"),
            ts_event: time_of(part, refusal.cause)?,
            row,
            error: refusal.error.chain(),
            when: at,
        })
    }
}

/// Gives an item its fate.
fn take(
    builder: &mut ChunkBuilder,
    sink: &str,
    seen: &Seen<'_>,
    refused: &HashSet<Cause>,
    portion: &mut Portion,
) -> Option<Stop> {
    let (position, item, source) = match seen {
        Seen::Item { position, item, source, .. } => (position, item, source),
        Seen::Missing { position } => {
            portion.fates.missing += position.offset.saturating_sub(portion.to.offset);
            return None;
        }
    };
    // Offsets are counted without holes, so what the log does not show it does not have.
    let missing = position.offset.saturating_sub(portion.to.offset + 1);
    let mut fates = Fates { missing, ..Fates::default() };
    match (item, source) {
        (Item::Control(_), _) => fates.control = 1,
        (Item::Row(head, bytes), Some(source)) => {
            let cause = Cause { boot: position.boot, offset: position.offset, sub: 0 };
            match builder.push(cause, head, bytes, *source, refused) {
                Fate::Taken => fates.delivered = 1,
                Fate::Filtered => fates.filtered = 1,
                Fate::Skipped => fates.refused = 1,
                Fate::Unreadable => return Some(unreadable(sink, cause, head, bytes, Some(source))),
                Fate::Unplanned => return Some(unplanned(source)),
            }
        }
        (Item::Row(head, bytes), None) => {
            let cause = Cause { boot: position.boot, offset: position.offset, sub: 0 };
            if !refused.contains(&cause) {
                return Some(unreadable(sink, cause, head, bytes, None));
            }
            fates.refused = 1;
        }
    }
    portion.fates.add(&fates);
    None
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

/// Makes the dead letter of a row whose bytes say nothing to us: they are kept as they are.
fn unreadable(sink: &str, cause: Cause, head: &RowHead, bytes: &[u8], source: Option<&RowSource<'_>>) -> Stop {
    let raw: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let name = |text: Option<&Arc<str>>| text.map_or_else(String::new, ToString::to_string);
    Stop::Unreadable(Box::new(DeadLetter {
        sink: sink.to_owned(),
        boot: cause.boot,
        offset: cause.offset,
        sub: cause.sub,
        table: name(source.map(|source| &source.key.table)),
        symbol: name(source.map(|source| &source.key.symbol)),
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
    }))
}

fn time_of(part: &TableRows, cause: Cause) -> Option<Timestamp> {
    let row = part.causes.binary_search_by_key(&cause.offset, |cause| cause.offset).ok()?;
    let ColumnView::Time(times) = ColumnView::of(part.rows.column(0)) else { return None };
    Some(Timestamp(times.value(row)))
}

/// How many offsets one chunk may cover for each row that it may hold: a filter that passes little still moves on.
const OFFSETS_FOR_A_ROW: u64 = 20;
