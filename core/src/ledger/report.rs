//! What the ledger says of a pipeline that runs or stands still, and what follows from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::Serialize;

use super::{
    fold,
    timeline::{Joined, State},
};
use crate::row::Timestamp;

/// What is known of a pipeline's streams. Times are the venue's, in UTC nanoseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Coverage {
    /// Up to where the spool was read.
    pub offset: u64,
    /// Whether the rows that are counted are every row of this spool, from its first one on, and no other.
    pub counts_all: bool,
    /// The first moment of which anything is said; `None` where nothing was subscribed to yet.
    pub from: Option<Timestamp>,
    /// The last moment of which anything is known: now, where nobody runs it.
    pub to: Option<Timestamp>,
    /// Since when nobody runs it, by our clock: its last sign of life; `None` while somebody does, and of what comes from a
    /// recording.
    pub stopped: Option<Timestamp>,
    /// Whether anything is lost: what could have been had, and cannot any more. Of [`totals`](Self::totals), and nothing else.
    pub is_lost: bool,
    /// All there is of each, over all streams and sinks.
    pub totals: Totals,
    /// One for each table of each source.
    pub kinds: Vec<Kind>,
    /// Sinks that lack something of what the spool has, or had, or that have dead letters; in the order of their names.
    pub sinks: Vec<SinkCoverage>,
    /// Rows that were thrown away since the spool was full.
    pub dropped: Vec<Dropped>,
    /// Offsets of the spool that cannot be read any more.
    pub unreadable: Vec<Unread>,
    /// What sinks never get, since a person has decided so.
    pub skipped: Vec<Skipped>,
    /// Every stream.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<StreamCoverage>,
}

/// All that is lost, and what is not yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Stretches of streams that were filled.
    pub filled: usize,
    /// Stretches of streams that are asked for.
    pub open: usize,
    /// Stretches of streams in which something is lost: no sink has it.
    pub lost: usize,
    /// Rows that the spool had and a sink never gets, as far as they were counted; once for each sink.
    pub rows_lost_at_sinks: u64,
    /// Stretches of the spool that a sink, or nobody, never gets, and whose rows nobody could count any more.
    pub uncounted: usize,
    /// Rows that a store would not take, and that wait for a person: they are there.
    pub dead_letters: u64,
}

/// What one sink lacks of what the spool has, or had.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SinkCoverage {
    /// The sink's name.
    pub sink: String,
    /// Rows that it never gets, as far as they were counted.
    pub rows_lost: u64,
    /// Stretches of the spool that it never gets, and whose rows nobody could count any more.
    pub uncounted: usize,
    /// Both, by why.
    pub lost_because: BTreeMap<String, LostRows>,
    /// The tables of which it lacks something; all, where one is empty.
    pub tables: BTreeSet<String>,
    /// Rows that its store would not take, and that wait for a person.
    pub dead_letters: u64,
}

/// Rows that one sink never gets for one reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LostRows {
    /// As far as they were counted.
    pub rows: u64,
    /// Stretches of the spool whose rows nobody could count any more.
    pub uncounted: usize,
}

/// The streams of one table of one source.
#[derive(Debug, Clone, Serialize)]
pub struct Kind {
    /// The source's name.
    pub source: String,
    /// The table's name.
    pub table: String,
    /// How many streams there are.
    pub streams: usize,
    /// What shows that nothing is missing.
    pub proof: Proof,
    /// The beginning of the first one.
    pub from: Timestamp,
    /// The last moment of which anything is known.
    pub to: Timestamp,
    /// Rows that came live, since the ledger began; `None` where only a part of its time is looked at.
    pub rows_received: Option<u64>,
    /// Rows that came by the venue's history.
    pub rows_backfilled: Option<u64>,
    /// Stretches that were filled.
    pub filled: usize,
    /// Stretches in which numbers are missing that the venue never gave.
    pub absent: usize,
    /// Stretches in which something may be missing, that are asked for.
    pub open: usize,
    /// Streams to which nobody listens at present: what they miss is asked for when somebody does.
    pub away: usize,
    /// Stretches in which something is lost.
    pub lost: usize,
    /// For how many seconds something is lost of at least one stream. Of stretches that were joined, since they lie long ago, it is
    /// known how long they were, and not when exactly: where streams were cut at other moments, it is more than is said here.
    pub lost_seconds: f64,
    /// Why, with the number of streams.
    pub lost_because: BTreeMap<String, usize>,
    /// For how many seconds nobody can tell what was sent, of at least one stream; of joined stretches as above.
    pub unknown_seconds: f64,
    /// For how many seconds the market was closed, by its schedule, of at least one stream.
    pub closed_seconds: f64,
    /// From when on all that the venue sent is in the spool, or was, up to the end of what is looked at; `None` where nothing
    /// can show that, or something is open at that end.
    pub complete_since: Option<Timestamp>,
    /// Where something is open at that end: the time before, in which nothing is missing.
    pub was_complete: Option<Stretch>,
    /// The sinks that lack some of it: of these that does not hold.
    pub incomplete_at: Vec<String>,
}

/// What shows that nothing is missing in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// Numbers without holes.
    DenseSequence,
    /// Each record names the one before.
    Linked,
    /// Complete answers of the venue's history: numbers may jump.
    History,
    /// Nothing: what is sent while nobody listens cannot be known.
    None,
}

/// One stream.
#[derive(Debug, Clone, Serialize)]
pub struct StreamCoverage {
    /// The source's name.
    pub source: String,
    /// The table's name.
    pub table: String,
    /// The instrument.
    pub symbol: String,
    /// Tells apart two instruments of one name; mostly empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub listing: String,
    /// What shows that nothing is missing.
    pub proof: Proof,
    /// Rows that came live, since the ledger began; `None` where only a part of its time is looked at.
    pub rows_received: Option<u64>,
    /// Rows that came by the venue's history.
    pub rows_backfilled: Option<u64>,
    /// From when on all that the venue sent is there, up to the end of what is looked at; `None` where nothing can show that, or
    /// something is open at that end.
    pub complete_since: Option<Timestamp>,
    /// Where something is open at that end: the time before, in which nothing is missing.
    pub was_complete: Option<Stretch>,
    /// Its time, without overlap or hole.
    pub intervals: Vec<Interval>,
}

/// A time that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Stretch {
    /// Its first moment.
    pub from: Timestamp,
    /// The moment behind its last one.
    pub to: Timestamp,
}

/// A stretch of a stream's time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interval {
    /// Its first moment.
    pub from: Timestamp,
    /// The moment behind its last one; `None` where it goes on.
    pub to: Option<Timestamp>,
    /// What is known of it.
    pub state: State,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Of one that is lost or unknown, and was joined of several which lie long ago: what they were. Between them all was received.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub joined: Option<Joined>,
}

/// What became of rows that were thrown away before they came into the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// The venue's history has given all that was missing.
    CameAgain,
    /// It is asked for them, or will be.
    AskedFor,
    /// It did not give all of them: what is missing is said to be lost, stretch by stretch.
    PartlyLost,
    /// They are gone: the venue does not repeat them.
    NotRepeated,
}

/// Rows of a stream that were thrown away since the spool was full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// The table's name.
    pub table: String,
    /// The instrument.
    pub symbol: String,
    /// The sink that did not get them; `None` where they never came into the spool, which asks for them again if it can.
    pub sink: Option<String>,
    /// What became of those that never came into the spool; `None` of those that a sink did not get, which are lost there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fate: Option<Fate>,
    /// How many; one that came again while there was no room yet counts twice.
    pub rows: u64,
    /// The first time, by our clock.
    pub first_at: Timestamp,
    /// The last time.
    pub last_at: Timestamp,
}

/// Offsets of the spool that cannot be read any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
    /// The sinks that had not got them; without any it was the ledger, and what was in them is lost of every stream.
    pub sinks: Vec<String>,
}

/// Offsets that a sink never gets: `tidegate adopt` or `tidegate sink forget` has said so, before it was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The sink.
    pub sink: String,
    /// The first offset.
    pub first: u64,
    /// The last offset.
    pub last: u64,
    /// The table; empty where nobody could count the rows any more.
    pub table: String,
    /// How many rows of it; `None` where nobody could count them any more.
    pub rows: Option<u64>,
    /// Why.
    pub why: String,
    /// When, by our clock.
    pub at: Timestamp,
}

impl Coverage {
    /// Adds what waits as dead letters, by sink: the ledger does not know of it.
    #[must_use]
    pub fn with_dead_letters(self, letters: BTreeMap<String, u64>) -> Self {
        self.summed_up(letters)
    }

    /// Works out what follows from the rest.
    pub(super) fn summed_up(mut self, letters: BTreeMap<String, u64>) -> Self {
        let mut sinks: BTreeMap<String, SinkCoverage> = BTreeMap::new();
        let mut lacks = |sink: &str, table: &str, why: &str, rows: Option<u64>| {
            let at = sinks.entry(sink.to_owned()).or_default();
            let lost = at.lost_because.entry(why.to_owned()).or_default();
            for (sum, uncounted) in [(&mut at.rows_lost, &mut at.uncounted), (&mut lost.rows, &mut lost.uncounted)] {
                *sum = sum.saturating_add(rows.unwrap_or(0));
                *uncounted += usize::from(rows.is_none());
            }
            at.tables.insert(table.to_owned());
        };
        for Dropped { table, sink, rows, .. } in &self.dropped {
            if let Some(sink) = sink {
                lacks(sink, table, fold::SPOOL_FULL, Some(*rows));
            }
        }
        for Unread { sinks, .. } in &self.unreadable {
            sinks.iter().for_each(|sink| lacks(sink, "", fold::UNREADABLE, None));
        }
        for Skipped { sink, table, rows, why, .. } in &self.skipped {
            lacks(sink, table, why, *rows);
        }
        for (sink, letters) in letters.into_iter().filter(|(_, letters)| *letters > 0) {
            sinks.entry(sink).or_default().dead_letters = letters;
        }
        let named = |(sink, at)| SinkCoverage { sink, ..at };
        self.sinks = sinks.into_iter().map(named).collect();
        for kind in &mut self.kinds {
            let lacking = self.sinks.iter().filter(|at| at.tables.contains("") || at.tables.contains(&kind.table));
            kind.incomplete_at = lacking.map(|at| at.sink.clone()).collect();
        }
        for dropped in self.dropped.iter_mut().filter(|dropped| dropped.sink.is_none()) {
            dropped.fate = Some(fate(self.kinds.iter().filter(|kind| kind.table == dropped.table)));
        }
        let sum = |count: fn(&Kind) -> usize| self.kinds.iter().map(count).sum();
        let of_nobody = self.unreadable.iter().filter(|one| one.sinks.is_empty()).count();
        self.totals = Totals {
            filled: sum(|kind| kind.filled),
            open: sum(|kind| kind.open),
            lost: sum(|kind| kind.lost),
            rows_lost_at_sinks: self.sinks.iter().fold(0, |sum, at| sum.saturating_add(at.rows_lost)),
            uncounted: of_nobody + self.sinks.iter().map(|at| at.uncounted).sum::<usize>(),
            dead_letters: self.sinks.iter().map(|at| at.dead_letters).sum(),
        };
        self.is_lost = self.totals.is_lost();
        self
    }
}

/// Returns what became of rows of a table that were thrown away, by what is known of the table now.
fn fate<'k>(kinds: impl Iterator<Item = &'k Kind> + Clone) -> Fate {
    let is = |of: fn(&Kind) -> bool| kinds.clone().any(of);
    if is(|kind| matches!(kind.proof, Proof::None | Proof::Linked)) {
        Fate::NotRepeated
    } else if is(|kind| kind.open > 0 || kind.away > 0) {
        Fate::AskedFor
    } else if is(|kind| kind.lost > 0) {
        Fate::PartlyLost
    } else {
        Fate::CameAgain
    }
}

impl Totals {
    /// Returns whether anything is lost.
    pub fn is_lost(&self) -> bool {
        self.lost > 0 || self.rows_lost_at_sinks > 0 || self.uncounted > 0
    }
}

impl Kind {
    pub(super) fn of(streams: &[&StreamCoverage], to: Timestamp, now: Timestamp) -> Self {
        let (source, table) = (streams[0].source.clone(), streams[0].table.clone());
        let from = streams.iter().map(|stream| stream.intervals[0].from).min().unwrap_or(to);
        let intervals = || streams.iter().flat_map(|stream| &stream.intervals);
        let count = |state: State| intervals().filter(|one| one.state == state && one.to.is_some()).count();
        let mut lost_because = BTreeMap::new();
        for stream in streams {
            let lost = stream.intervals.iter().filter(|interval| interval.state == State::Lost);
            let mut why: Vec<_> = lost.map(|interval| interval.why.clone().unwrap_or_default()).collect();
            why.sort_unstable();
            why.dedup();
            why.into_iter().for_each(|why| *lost_because.entry(why).or_default() += 1);
        }
        let sum = |rows: fn(&StreamCoverage) -> Option<u64>| streams.iter().map(|stream| rows(stream)).sum();
        let (complete_since, was_complete) = complete(streams);
        Self {
            source,
            table,
            streams: streams.len(),
            proof: streams.iter().map(|stream| stream.proof).max().unwrap_or(Proof::None),
            from,
            to,
            rows_received: sum(|stream| stream.rows_received),
            rows_backfilled: sum(|stream| stream.rows_backfilled),
            filled: count(State::Backfilled),
            absent: count(State::Absent),
            open: count(State::Open),
            away: intervals()
                .filter(|one| one.to.is_none() && matches!(one.state, State::Open | State::Unknown))
                .count(),
            lost: intervals().filter(|one| one.state == State::Lost).map(Interval::parts).sum(),
            lost_seconds: seconds(intervals().filter(|one| one.state == State::Lost), now),
            lost_because,
            unknown_seconds: seconds(intervals().filter(|one| one.state == State::Unknown), now),
            closed_seconds: seconds(intervals().filter(|one| one.state == State::Closed), now),
            complete_since,
            was_complete,
            incomplete_at: Vec::new(),
        }
    }
}

/// Returns from when on nothing is missing in any of the streams, up to the end; or, where something is open at the end of one,
/// the time in which that was so of all of them. Neither, where it is so of one of them at no time.
fn complete(streams: &[&StreamCoverage]) -> (Option<Timestamp>, Option<Stretch>) {
    let is_never =
        |one: &StreamCoverage| one.complete_from().is_none() && one.intervals.iter().any(|it| it.state.is_broken());
    if streams.iter().any(|stream| is_never(stream)) {
        return (None, None);
    }
    let since = streams.iter().filter_map(|stream| stream.complete_from()).max();
    let until = streams.iter().filter_map(|stream| Some(stream.was_complete?.to)).min();
    match (since, until) {
        (Some(from), Some(to)) => (None, (from < to).then_some(Stretch { from, to })),
        (since, _) => (since, None),
    }
}

/// Returns how long at least one of the intervals lasted; what goes on is as long as it is now. One that was joined counts as if
/// all that it was of stood at its beginning: streams that were cut together are so still.
fn seconds<'a>(intervals: impl Iterator<Item = &'a Interval>, now: Timestamp) -> f64 {
    let mut spans: Vec<_> = intervals.map(|one| (one.from, one.lasted_to(now))).collect();
    spans.sort_unstable();
    let (mut sum, mut end) = (0_i64, Timestamp(i64::MIN));
    for (from, to) in spans {
        sum += to.0.saturating_sub(from.max(end).0).max(0);
        end = end.max(to);
    }
    Duration::from_nanos(sum.unsigned_abs()).as_secs_f64()
}

impl StreamCoverage {
    /// Adds what is received up to the last frame, and no further: of what came since then nothing is claimed.
    pub(super) fn add_last(
        &mut self,
        received: Interval,
        heard: Timestamp,
        since: Option<Timestamp>,
        is_stopped: bool,
    ) {
        let heard = heard.max(received.from);
        if !is_stopped || since.is_none_or(|since| since < heard) {
            let since = since.map(|since| since.min(heard));
            self.intervals.push(Interval { to: Some(heard), ..received }.clipped(since));
        }
        if is_stopped {
            let why = if self.proof == Proof::None { fold::NOT_REPEATED } else { fold::NOBODY };
            let unheard =
                Interval { from: heard, to: None, state: State::Unknown, why: Some(why.to_owned()), joined: None };
            self.intervals.push(unheard.clipped(since));
        }
    }

    /// Returns from when on nothing is missing, up to the end or to what is open there.
    fn complete_from(&self) -> Option<Timestamp> {
        self.complete_since.or_else(|| Some(self.was_complete?.from))
    }

    /// Works out when nothing is missing, where numbers can show that. What is open at the end is never complete, and neither is
    /// a moment of no length behind a hole.
    pub(super) fn complete(&mut self) {
        if self.proof == Proof::None {
            return;
        }
        let lasting: Vec<_> = self.intervals.iter().filter(|one| one.to.is_none_or(|to| one.from < to)).collect();
        let open = lasting.iter().rev().take_while(|one| one.state.is_broken()).last().map(|first| first.from);
        let before = || lasting.iter().filter(|one| open.is_none_or(|open| one.from < open));
        let Some(first) = before().find(|one| one.state.is_complete()) else { return };
        let broken = before().filter(|one| one.state.is_broken()).filter_map(|one| one.to).max();
        let from = broken.map_or(first.from, |broken| broken.max(first.from));
        match open {
            None => self.complete_since = Some(from),
            Some(to) => self.was_complete = (from < to).then_some(Stretch { from, to }),
        }
    }
}

impl Interval {
    fn parts(&self) -> usize {
        self.joined.map_or(1, |joined| joined.parts)
    }

    /// Returns its end, or where that would be if what was joined followed on each other.
    fn lasted_to(&self, now: Timestamp) -> Timestamp {
        let end = self.to.unwrap_or(now).max(self.from);
        self.joined.map_or(end, |joined| end.min(Timestamp(self.from.0.saturating_add(joined.lasted))))
    }

    /// Returns what of it lies behind a moment.
    pub(super) fn clipped(self, since: Option<Timestamp>) -> Self {
        Self { from: since.map_or(self.from, |since| since.max(self.from)), ..self }
    }
}

impl Proof {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::DenseSequence, Self::Linked, Self::History, Self::None];

    /// Returns its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::DenseSequence => "dense_sequence",
            Self::Linked => "linked",
            Self::History => "history",
            Self::None => "none",
        }
    }

    pub(super) fn named(numbering: Option<&str>) -> Self {
        match numbering {
            Some("sequence") => Self::DenseSequence,
            Some("linked") => Self::Linked,
            Some("ordered") => Self::History,
            Some(_) | None => Self::None,
        }
    }
}
