//! What came of a comparison, for people and for programs.

use std::{collections::HashMap, fmt};

use serde::Serialize;

use super::{
    audit::{RowId, Stream},
    expected::LedgerStream,
};
use crate::{
    Result,
    delivery::Fates,
    ledger::{Coverage, Dropped},
    row::Timestamp,
    spool::SpoolPosition,
};

/// Spool, ledger and stores of a pipeline, held against each other.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// The pipeline's name.
    pub pipeline: String,
    /// The first and last offset that the spool has.
    pub offsets: (u64, u64),
    /// Up to where the ledger has read; `None` where it cannot be read.
    pub ledger: Option<u64>,
    /// What the ledger has counted otherwise than the spool.
    pub differences: Vec<Difference>,
    /// What could not be compared, and why.
    pub notes: Vec<String>,
    /// The sinks, in the order of the file.
    pub sinks: Vec<SinkVerified>,
}

/// One sink's store.
#[derive(Debug, Clone, Serialize)]
pub struct SinkVerified {
    /// The sink's name.
    pub sink: String,
    /// The component's type.
    #[serde(rename = "type")]
    pub component: String,
    /// What came of it.
    pub verdict: Verdict,
    /// Up to which offset it has committed.
    pub upto: Option<u64>,
    /// Rows of the store that were compared.
    pub rows: u64,
    /// Rows of the spool whose values were compared, too: not only what tells them apart.
    pub values: u64,
    /// Rows that were delivered and that a table with a `key` has put in others' places, or left out.
    pub swallowed: u64,
    /// What became of each offset that the spool still has, up to there.
    #[serde(serialize_with = "fates")]
    pub fates: Option<Fates>,
    /// What does not agree.
    pub differences: Vec<Difference>,
    /// What could not be compared, and why.
    pub notes: Vec<String>,
}

/// What came of looking at a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It holds what it should, as far as that can be told.
    Agrees,
    /// It does not.
    Differs,
    /// It could not be read.
    CannotTell,
    /// A store of its type cannot be asked.
    #[serde(rename = "cannot_be_verified")]
    Mute,
}

/// What does not agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The spool has rows that the store lacks.
    Missing,
    /// The store has rows more than once.
    Twice,
    /// The store has rows that the spool should have and does not.
    Unknown,
    /// Rows are in both, with other values: `why` names the columns.
    Values,
    /// The spool had rows, by the ledger's count, that the store lacks.
    MissingOlder,
    /// The store has more rows than were delivered to it, by the ledger's count: doubled, or of another spool.
    MoreOlder,
    /// The table is not there.
    Gone,
    /// The store's position is none of the spool's, or is gone.
    Position,
    /// The spool has delivered rows, and the table, whose rows are not compared, has none.
    Empty,
    /// The sink did not get rows, because the spool was full.
    Dropped,
    /// The spool lacks offsets that are to be there: what was in them, nobody can say.
    Lost,
    /// A dead letter names an offset that is no row of the sink's.
    DeadLetter,
    /// The ledger has counted another number of rows than the spool has.
    Ledger,
}

/// A difference, in the words of the store: a stretch of one stream, where it is about one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What does not agree.
    pub kind: Kind,
    /// The table, as it is called in the store.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub table: String,
    /// The stream's venue.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub venue: String,
    /// The stream's symbol.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub symbol: String,
    /// How many rows.
    pub rows: u64,
    /// The first and last number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<(u64, u64)>,
    /// The first and last `ts_event`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ts_event: Option<(Timestamp, Timestamp)>,
    /// The lowest and highest offset in the spool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offsets: Option<(u64, u64)>,
    /// What is to be said besides.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
}

impl Verified {
    pub(super) fn new(pipeline: &str, offsets: (u64, u64)) -> Self {
        let (differences, notes, sinks) = (Vec::new(), Vec::new(), Vec::new());
        Self { pipeline: pipeline.to_owned(), offsets, ledger: None, differences, notes, sinks }
    }

    /// Returns whether anything does not agree.
    pub fn differs(&self) -> bool {
        !self.differences.is_empty() || self.sinks.iter().any(|sink| sink.verdict == Verdict::Differs)
    }

    /// Returns whether something could not be read, or nothing could be compared.
    pub fn cannot_tell(&self) -> bool {
        let has = |verdict: Verdict| self.sinks.iter().any(|sink| sink.verdict == verdict);
        has(Verdict::CannotTell) || !(has(Verdict::Agrees) || has(Verdict::Differs))
    }

    pub(super) fn ledger(&mut self, ledger: Result<Coverage>) -> Option<Coverage> {
        match ledger {
            Ok(ledger) => {
                self.ledger = Some(ledger.offset);
                Some(ledger)
            }
            Err(error) => {
                self.notes.push(error.chain());
                None
            }
        }
    }

    pub(super) fn unreadable(&mut self, missing: &[(u64, u64)]) {
        let note =
            |(first, last): &(u64, u64)| format!("offsets {first} to {last} of the spool are not there any more");
        self.notes.extend(missing.iter().map(note));
    }

    /// Compares the ledger's count of each stream with the spool's, which has all of them where it `is_whole`.
    pub(super) fn count_ledger(&mut self, ledger: &Coverage, spool: &HashMap<LedgerStream, u64>, is_whole: bool) {
        let mut counted: HashMap<LedgerStream, u64> = HashMap::new();
        for stream in &ledger.streams {
            let rows = stream.rows_received.unwrap_or(0) + stream.rows_backfilled.unwrap_or(0);
            *counted.entry((stream.source.clone(), stream.table.clone(), stream.symbol.clone())).or_default() += rows;
        }
        let mut differing = Vec::new();
        for (stream, counted) in &counted {
            let there = spool.get(stream).copied().unwrap_or(0);
            let fits = if is_whole { there == *counted } else { there <= *counted };
            if !fits {
                differing.push(Difference::ledger(stream, *counted, there));
            }
        }
        differing.sort_by(|a, b| (&a.table, &a.symbol).cmp(&(&b.table, &b.symbol)));
        self.differences.extend(differing);
    }
}

impl SinkVerified {
    pub(super) fn new(sink: &str, component: &str) -> Self {
        Self {
            sink: sink.to_owned(),
            component: component.to_owned(),
            verdict: Verdict::Agrees,
            upto: None,
            rows: 0,
            values: 0,
            swallowed: 0,
            fates: None,
            differences: Vec::new(),
            notes: Vec::new(),
        }
    }
}

impl Difference {
    fn new(kind: Kind, table: &str) -> Self {
        let (venue, symbol, why) = (String::new(), String::new(), String::new());
        Self { kind, table: table.to_owned(), venue, symbol, rows: 0, seq: None, ts_event: None, offsets: None, why }
    }

    pub(super) fn of(kind: Kind, table: &str, stream: &Stream, row: &RowId, offset: Option<u64>) -> Self {
        Self {
            venue: stream.venue.clone(),
            symbol: stream.symbol.clone(),
            rows: 1,
            seq: row.seq.map(|seq| (seq, seq)),
            ts_event: Some((row.ts_event, row.ts_event)),
            offsets: offset.map(|offset| (offset, offset)),
            ..Self::new(kind, table)
        }
    }

    pub(super) fn because(self, why: &str) -> Self {
        Self { why: why.to_owned(), ..self }
    }

    pub(super) fn gone(table: &str) -> Self {
        Self::new(Kind::Gone, table)
    }

    pub(super) fn position(position: SpoolPosition, why: &str) -> Self {
        Self { why: format!("its position is {position}: {why}"), ..Self::new(Kind::Position, "") }
    }

    pub(super) fn no_position(known: SpoolPosition) -> Self {
        let why = format!("it has no position, and by the note beside the spool it was at {known}");
        Self { why, ..Self::new(Kind::Position, "") }
    }

    pub(super) fn empty(table: &str, rows: u64) -> Self {
        Self { rows, ..Self::new(Kind::Empty, table) }
    }

    pub(super) fn counted(table: &str, wanted: u64, there: u64) -> Self {
        let kind = if there < wanted { Kind::Missing } else { Kind::Unknown };
        let why = format!("the spool makes {wanted} rows of it, the store has {there}");
        Self { rows: wanted.abs_diff(there), why, ..Self::new(kind, table) }
    }

    pub(super) fn dropped(of: &Dropped) -> Self {
        Self { symbol: of.symbol.clone(), rows: of.rows, ..Self::new(Kind::Dropped, &of.table) }
    }

    pub(super) fn lost(offsets: u64) -> Self {
        Self { rows: offsets, ..Self::new(Kind::Lost, "") }
    }

    pub(super) fn letter(offset: u64) -> Self {
        Self { rows: 1, offsets: Some((offset, offset)), ..Self::new(Kind::DeadLetter, "") }
    }

    pub(super) fn older(table: &str, stream: &Stream, rows: u64) -> Self {
        let (venue, symbol) = (stream.venue.clone(), stream.symbol.clone());
        Self { venue, symbol, rows, ..Self::new(Kind::MissingOlder, table) }
    }

    pub(super) fn more_of(table: &str, stream: &Stream, rows: u64) -> Self {
        let (venue, symbol) = (stream.venue.clone(), stream.symbol.clone());
        Self { venue, symbol, ..Self::more(table, rows) }
    }

    pub(super) fn more(table: &str, rows: u64) -> Self {
        Self { rows, ..Self::new(Kind::MoreOlder, table) }
    }

    fn ledger((source, table, symbol): &LedgerStream, counted: u64, there: u64) -> Self {
        let why = format!("the ledger has counted {counted} rows of source `{source}`, the spool has {there}");
        Self { symbol: symbol.clone(), rows: counted.abs_diff(there), why, ..Self::new(Kind::Ledger, table) }
    }

    /// Returns whether it is about a stream of a table.
    pub(super) fn is_about(&self, table: &str, stream: &Stream) -> bool {
        self.table == table && self.venue == stream.venue && self.symbol == stream.symbol
    }

    /// Returns whether a row is the next one, or another of the same number; rows without numbers are one stretch.
    pub(super) fn goes_on_with(&self, row: &RowId) -> bool {
        match (self.seq, row.seq) {
            (Some((_, last)), Some(seq)) => seq <= last.saturating_add(1),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    pub(super) fn add(&mut self, row: &RowId, offset: Option<u64>) {
        self.rows += 1;
        self.seq = self.seq.zip(row.seq).map(|((first, _), last)| (first, last));
        self.ts_event = self.ts_event.map(|(first, last)| (first.min(row.ts_event), last.max(row.ts_event)));
        if let Some(offset) = offset {
            let (first, last) = self.offsets.unwrap_or((offset, offset));
            self.offsets = Some((first.min(offset), last.max(offset)));
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, table, symbol, rows, seq, ts_event, offsets, why, .. } = self;
        let plural = if *rows == 1 { "row" } else { "rows" };
        match kind {
            Kind::Gone => return write!(f, "{table}: the table is gone"),
            Kind::Position => return f.write_str(why),
            Kind::Empty => return write!(f, "{table}: the table is empty, {rows} {plural} were delivered to it"),
            Kind::Dropped => return write!(f, "{table}: {symbol}: {rows} {plural} dropped unread, the spool was full"),
            Kind::Lost => {
                let plural = if *rows == 1 { "offset" } else { "offsets" };
                return write!(f, "{rows} {plural} missing, dropped or unreadable: what was in them, nobody can say");
            }
            Kind::MoreOlder => {
                let of = if symbol.is_empty() { String::new() } else { format!(" {symbol}:") };
                return write!(
                    f,
                    "{table}:{of} {rows} {plural} more than were delivered: there twice, or of another spool"
                );
            }
            Kind::DeadLetter => f.write_str("a dead letter is of no row that was meant for it")?,
            Kind::Ledger => return write!(f, "{table}: {symbol}: {why}"),
            // Counted, and not told apart.
            Kind::Missing | Kind::Unknown if symbol.is_empty() && !why.is_empty() => {
                let fewer = if *kind == Kind::Missing { "missing" } else { "too many" };
                return write!(f, "{table}: {rows} {plural} {fewer}: {why}");
            }
            Kind::Missing => write!(f, "{table}: {symbol}: {rows} {plural} missing")?,
            Kind::Twice => write!(f, "{table}: {symbol}: {rows} {plural} too many, there twice")?,
            Kind::Unknown => {
                write!(f, "{table}: {symbol}: {rows} {plural} that the spool does not have, or has as dead letters")?
            }
            Kind::Values => write!(f, "{table}: {symbol}: {rows} {plural} with another value of {why}")?,
            Kind::MissingOlder => {
                write!(
                    f,
                    "{table}: {symbol}: {rows} {plural} missing that the spool has let go of, by the ledger's count"
                )?;
            }
        }
        let range = |f: &mut fmt::Formatter<'_>, word: &str, (first, last): (u64, u64)| match last - first {
            0 => write!(f, ", {word} {first}"),
            _ => write!(f, ", {word} {first} to {last}"),
        };
        match (seq, ts_event) {
            (Some(seq), _) => range(f, "seq", *seq)?,
            (None, Some((first, last))) if first == last => write!(f, ", ts_event {}", first.0)?,
            (None, Some((first, last))) => write!(f, ", ts_event {} to {}", first.0, last.0)?,
            (None, None) => {}
        }
        if let Some(offsets) = offsets {
            range(f, if offsets.0 == offsets.1 { "offset" } else { "offsets" }, *offsets)?;
        }
        Ok(())
    }
}

fn fates<S: serde::Serializer>(fates: &Option<Fates>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    let Some(Fates { delivered, filtered, refused, control, missing }) = *fates else {
        return serializer.serialize_none();
    };
    let fates = [
        ("delivered", delivered),
        ("filtered", filtered),
        ("refused", refused),
        ("control", control),
        ("missing", missing),
    ];
    serializer.collect_map(fates)
}
