//! One open gap: which numbers are missing, and what a record that comes does to that.

use serde::{Deserialize, Serialize};

use crate::{
    protocol::{Edge, GapId},
    row::{Numbering, Origin, Position, Timestamp},
    spool::GapOutcome,
};

/// By how many nanoseconds a venue's times may go back where its numbers grow.
pub(super) const UNEVEN: i64 = 1_000_000_000;

/// Records whose order in time is not that of their numbers are not farther apart than this many numbers.
pub(super) const NEAR: u64 = 8;

/// How many rows of an open gap in a jumping numbering are remembered, to tell a repeat from a new one.
const TAKEN: usize = 4_096;

/// Why the chain of a linked stream that was cut stays broken.
const NOT_REPEATABLE: &str = "not repeatable";

/// Numbers that are missing: those between two edges, without these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hole {
    /// The last record before it; `None` where only the time says what is owed.
    pub(super) after: Option<Edge>,
    /// The first record behind it; `None` is an open right end.
    pub(super) before: Option<Edge>,
}

/// A gap of one stream. It has one name for its whole life, however many holes it falls into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OpenGap {
    pub(super) id: GapId,
    /// The numbering of the stream that its numbers belong to.
    pub(super) epoch: u32,
    pub(super) since: Timestamp,
    pub(super) opened_at: Timestamp,
    /// Growing and disjoint. None is left when the gap is over.
    pub(super) holes: Vec<Hole>,
    /// Rows that came inside, growing, where numbers may jump and a row therefore makes no hole smaller.
    taken: Vec<Taken>,
    pub(super) filled: u64,
    filled_by: Filler,
    /// When an answer showed that what is missing now does not exist: the first of two looks.
    pub(super) empty_seen_at: Option<Timestamp>,
    /// Counts what makes earlier answers worthless.
    pub(super) ask: u64,
    /// Whether a session broke off at its beginning or while it was open.
    cut: bool,
}

/// A row that came inside a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Taken {
    n: u64,
    hash: u32,
    ts_event: Timestamp,
}

impl Taken {
    fn edge(&self) -> Edge {
        Edge { position: Position::Ordered(self.n), ts_event: self.ts_event }
    }
}

/// What made a gap smaller last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Filler {
    Live,
    Backfill,
    Snapshot,
}

/// A record, as far as a gap looks at it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) edge: Edge,
    pub(super) hash: u32,
    pub(super) origin: Origin,
    /// Whether all that the venue makes from this record on comes live.
    pub(super) covers: bool,
}

impl Edge {
    /// Returns its number.
    pub(super) fn number(&self) -> u64 {
        self.position.number().unwrap_or_default()
    }
}

impl Hole {
    pub(super) fn contains(&self, n: u64) -> bool {
        self.after.is_none_or(|after| after.number() < n) && self.before.is_none_or(|before| n < before.number())
    }

    /// Returns whether a record of this number and time may lie inside: times need not grow with the numbers of neighbours.
    pub(super) fn spans(&self, n: u64, ts_event: Timestamp) -> bool {
        let is_in_order = |edge: Edge, earlier: Timestamp, later: Timestamp| {
            let slack = if edge.number().abs_diff(n) <= NEAR { UNEVEN } else { 0 };
            earlier.0 <= later.0.saturating_add(slack)
        };
        self.after.is_none_or(|after| is_in_order(after, after.ts_event, ts_event))
            && self.before.is_none_or(|before| is_in_order(before, ts_event, before.ts_event))
    }

    /// Returns the first and the last number inside, where both are known.
    pub(super) fn numbers(&self) -> Option<(u64, u64)> {
        let (after, before) = (self.after?, self.before?);
        let (first, last) = (after.number().checked_add(1)?, before.number().checked_sub(1)?);
        (first <= last).then_some((first, last))
    }

    /// Returns whether no number lies inside.
    fn is_empty(&self) -> bool {
        let first = self.after.map_or(Some(0), |after| after.number().checked_add(1));
        match (first, self.before) {
            (Some(first), Some(before)) => first >= before.number(),
            (Some(_), None) => false,
            (None, _) => true,
        }
    }

    fn is_bounded(&self) -> bool {
        self.after.is_some() && self.before.is_some()
    }
}

impl OpenGap {
    pub(super) fn new(id: GapId, epoch: u32, hole: Hole, since: Timestamp, opened_at: Timestamp, cut: bool) -> Self {
        Self {
            id,
            epoch,
            since,
            opened_at,
            holes: vec![hole],
            taken: Vec::new(),
            filled: 0,
            filled_by: Filler::Live,
            empty_seen_at: None,
            ask: 0,
            cut,
        }
    }

    /// Returns the hole that the number lies in.
    pub(super) fn hole_of(&self, n: u64) -> Option<Hole> {
        self.index_of(n).map(|index| self.holes[index])
    }

    fn index_of(&self, n: u64) -> Option<usize> {
        let index = self.holes.partition_point(|hole| hole.before.is_some_and(|before| before.number() <= n));
        self.holes.get(index).is_some_and(|hole| hole.contains(n)).then_some(index)
    }

    /// Returns whether nothing is missing any more.
    pub(super) fn is_over(&self) -> bool {
        self.holes.is_empty()
    }

    /// Returns whether nothing has come behind it yet.
    pub(super) fn is_open_right(&self) -> bool {
        self.holes.last().is_some_and(|hole| hole.before.is_none())
    }

    /// Returns what lies before and behind all of it.
    pub(super) fn edges(&self) -> (Option<Edge>, Option<Edge>) {
        (self.holes.first().and_then(|hole| hole.after), self.holes.last().and_then(|hole| hole.before))
    }

    /// Returns whether numbers are missing between two known neighbours: only these can be shown to be absent.
    pub(super) fn has_bounded_holes(&self) -> bool {
        self.holes.iter().any(Hole::is_bounded)
    }

    /// Returns whether exactly this row came inside before.
    pub(super) fn has_taken(&self, n: u64, hash: u32) -> bool {
        let at = self.taken.partition_point(|taken| (taken.n, taken.hash) < (n, hash));
        self.taken.get(at).is_some_and(|taken| (taken.n, taken.hash) == (n, hash))
    }

    /// Returns whether a record from the history is older than what is owed, where only the time says what that is.
    pub(super) fn is_before(&self, n: u64, ts_event: Timestamp) -> bool {
        let by_time = self.hole_of(n).is_some_and(|hole| hole.after.is_none());
        by_time && if self.epoch == 0 { ts_event < self.since } else { ts_event <= self.since }
    }

    /// Returns whether a record that is older than what is owed may be the neighbour, behind which all is owed: nothing
    /// that is owed came from below it. After a restart there is none, since what is older was numbered otherwise.
    pub(super) fn can_be_neighbour(&self, n: u64) -> bool {
        self.epoch == 0 && self.taken.first().is_none_or(|taken| n < taken.n)
    }

    /// Takes a record that lies in one of its holes.
    pub(super) fn take(&mut self, numbering: Numbering, arrival: Arrival) {
        let n = arrival.edge.number();
        let Some(index) = self.index_of(n) else { return };
        let hole = self.holes[index];
        let left = Hole { before: Some(arrival.edge), ..hole };
        let right = Hole { after: Some(arrival.edge), ..hole };
        let dense = numbering == Numbering::Sequence;
        if arrival.origin != Origin::Live && self.is_before(n, arrival.edge.ts_event) {
            // Until format 4 the neighbour of what is owed was a row.
            self.begin_behind(numbering, arrival.edge);
        } else if arrival.covers && hole.before.is_none() {
            self.filled_by = Filler::Live;
            self.ask += 1;
            self.empty_seen_at = None;
            // Nothing comes before a stream's first number.
            let is_first = hole.after.is_none() && n <= 1;
            if dense && is_first {
                self.holes.remove(index);
            } else {
                self.replace(index..=index, [left], dense);
            }
        } else {
            self.filled += 1;
            self.filled_by = if arrival.origin == Origin::Live { Filler::Live } else { Filler::Backfill };
            self.empty_seen_at = None;
            if dense {
                self.replace(index..=index, [left, right], dense);
            } else {
                self.remember(arrival);
            }
        }
    }

    /// All behind a record is owed, and nothing before it.
    pub(super) fn begin_behind(&mut self, numbering: Numbering, edge: Edge) {
        let Some(index) = self.index_of(edge.number()) else { return };
        let right = Hole { after: Some(edge), ..self.holes[index] };
        self.filled_by = Filler::Backfill;
        self.replace(0..=index, [right], numbering == Numbering::Sequence);
    }

    fn replace<const N: usize>(&mut self, range: std::ops::RangeInclusive<usize>, by: [Hole; N], dense: bool) {
        self.holes.splice(range, by.into_iter().filter(|hole| !(dense && hole.is_empty())));
    }

    /// Remembers a row. When there are too many, those on the side that is not being filled are left behind, and the gap
    /// ends there.
    fn remember(&mut self, arrival: Arrival) {
        let Arrival { edge, hash, .. } = arrival;
        let row = Taken { n: edge.number(), hash, ts_event: edge.ts_event };
        let at = self.taken.partition_point(|&taken| taken < row);
        self.taken.insert(at, row);
        if self.taken.len() <= TAKEN {
            return;
        }
        let growing = at > TAKEN / 2;
        let left = if growing { self.taken.remove(0) } else { self.taken.pop().unwrap_or(row) };
        let Some(hole) = self.holes.first_mut() else { return };
        if growing {
            hole.after = Some(left.edge());
        } else {
            hole.before = Some(left.edge());
        }
    }

    /// Takes over what is known to be behind it already: a row is there once, however many gaps ask for it.
    pub(super) fn inherit(&mut self, older: &Self) {
        let after = self.edges().0.map(|after| after.number());
        self.taken.extend(older.taken.iter().filter(|taken| after.is_none_or(|after| taken.n > after)));
        self.taken.sort_unstable();
        self.taken.dedup();
    }

    /// Returns the newest record up to which nothing is missing once a complete answer has closed its open end.
    pub(super) fn known_end(&self) -> Option<Edge> {
        let neighbour = self.holes.last().filter(|hole| hole.before.is_none())?.after;
        self.taken.last().map(Taken::edge).or(neighbour)
    }

    /// A second live record of the session that confirmed the stream first: nothing was missing before the first one.
    pub(super) fn prove_beginning(&mut self, n: u64) {
        let first = self.holes.first().copied();
        if first.is_some_and(|hole| hole.after.is_none() && hole.before.is_some_and(|before| before.number() < n)) {
            self.holes.remove(0);
            self.filled_by = Filler::Live;
        }
    }

    /// A whole state of a linked stream came.
    pub(super) fn resynchronise(&mut self) {
        self.holes.clear();
        self.filled_by = Filler::Snapshot;
    }

    /// A change of a linked stream came that goes on where the gap began, or else shows where it ends.
    pub(super) fn link(&mut self, edge: Edge, goes_on: bool) {
        if !self.is_open_right() {
            return;
        }
        self.ask += 1;
        if goes_on {
            self.holes.clear();
            self.filled_by = Filler::Live;
        } else if let Some(hole) = self.holes.last_mut() {
            hole.before = Some(edge);
        }
    }

    /// A complete answer showed that its open ends hold nothing, and that between known neighbours nothing was there.
    pub(super) fn seen_empty(&mut self, at: Timestamp) {
        self.holes.retain(Hole::is_bounded);
        self.filled_by = Filler::Backfill;
        self.empty_seen_at = Some(at);
        self.ask += 1;
    }

    /// A session began or ended to cover the stream.
    pub(super) fn coverage_changed(&mut self) {
        if self.is_open_right() {
            self.ask += 1;
        }
    }

    /// The last session that covered the stream broke off.
    pub(super) fn cut(&mut self) {
        self.cut = true;
    }

    /// Returns how it ended, for a gap that is over.
    pub(super) fn outcome(&self) -> GapOutcome {
        match self.filled_by {
            Filler::Live => GapOutcome::Live,
            Filler::Backfill => GapOutcome::Backfilled,
            Filler::Snapshot if self.cut => GapOutcome::Lost(NOT_REPEATABLE.to_owned()),
            Filler::Snapshot => GapOutcome::Resynchronised,
        }
    }
}
