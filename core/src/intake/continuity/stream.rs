//! What is known of one stream.

use serde::{Deserialize, Serialize};

use super::{
    gap::{Arrival, OpenGap, UNEVEN},
    past::{GivenUp, Past, distance},
    told_hash,
};
use crate::{
    protocol::{Edge, GapId},
    row::{Numbering, Origin, Position, StreamKey, Timestamp},
    rules::{Rule, holds},
    spool::RowHead,
};

/// So many numberings that are over are remembered, the newest ones.
const MAX_PAST: usize = 8;

/// One stream, folded from its rows and from the control items that name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stream {
    /// The source, as a number into `Continuity::sources`.
    pub(super) source: u16,
    pub(super) key: StreamKey,
    /// Unknown until it is confirmed or a record comes.
    pub(super) numbering: Option<Numbering>,
    /// How often the venue has numbered it anew.
    pub(super) epoch: u32,
    /// The record with the highest number of this epoch; of a linked stream the last one.
    pub(super) last: Option<Edge>,
    /// The record with the lowest number of this epoch: smaller ones were never here.
    pub(super) floor: Option<Edge>,
    /// The latest time of a record of this epoch: times need not grow with the numbers.
    latest: Timestamp,
    /// From when on records are owed: the first confirmation, or the end of the epoch before.
    pub(super) since: Timestamp,
    /// Up to when sessions have vouched for it, by the venue's clock: what was missing before has a gap of its own.
    pub(super) vouched: Timestamp,
    pub(super) window: Window,
    /// Of this epoch.
    pub(super) given_up: GivenUp,
    /// Of a dense stream: what came of the epochs before, the oldest first.
    pub(super) past: Vec<Past>,
    /// In the order in which they were opened.
    pub(super) gaps: Vec<OpenGap>,
    /// The sessions that vouch for it.
    pub(super) covered_by: Vec<u32>,
    /// It was never confirmed by name: records are all that tells of it.
    pub(super) is_implied: bool,
    /// It is not subscribed to any more, on purpose.
    pub(super) has_left: bool,
    /// The session that confirmed it first, as long as that covers it.
    pub(super) first_session: Option<u32>,
    /// Its coverage has ended, and the gap that begins there is not written down yet.
    pub(super) is_exposed: bool,
    /// The journal's round in which it was saved.
    #[serde(skip)]
    pub(super) touched: Touched,
}

/// Bookkeeping of the journal, which is no part of what is known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Touched(pub(super) u64);

impl PartialEq for Touched {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Touched {}

impl Stream {
    pub(super) fn new(source: u16, key: StreamKey) -> Self {
        Self {
            source,
            key,
            numbering: None,
            epoch: 0,
            last: None,
            floor: None,
            latest: Timestamp::default(),
            since: Timestamp::default(),
            vouched: Timestamp::default(),
            window: Window::default(),
            given_up: GivenUp::default(),
            past: Vec::new(),
            gaps: Vec::new(),
            covered_by: Vec::new(),
            is_implied: true,
            has_left: false,
            first_session: None,
            is_exposed: false,
            touched: Touched::default(),
        }
    }

    pub(super) fn numbering(&self) -> Numbering {
        self.numbering.unwrap_or_default()
    }

    pub(super) fn is_covered(&self) -> bool {
        !self.covered_by.is_empty()
    }

    /// Returns whether a gap will hold what comes while nobody listens. A linked stream needs only one gap of any kind,
    /// since the next whole state ends all of them.
    pub(super) fn is_open_right(&self) -> bool {
        if !holds(Rule::OpenRightEnd) && self.last.is_some() || !holds(Rule::Baseline) && self.last.is_none() {
            return true;
        }
        let linked = self.numbering() == Numbering::Linked;
        self.gaps.iter().any(|gap| gap.epoch == self.epoch && !gap.is_over() && (linked || gap.is_open_right()))
    }

    /// Returns the time of the last record, or from which on records are owed.
    pub(super) fn open_since(&self) -> Timestamp {
        self.last.map_or(self.since, |last| last.ts_event)
    }

    /// Returns the time from which on a gap behind the last record has to be filled.
    pub(super) fn owed_since(&self) -> Timestamp {
        self.open_since().max(self.since).max(self.vouched)
    }

    /// Returns the time up to which the venue has numbered as it does: a smaller number that is younger is of another
    /// numbering.
    pub(super) fn newest_time(&self) -> Timestamp {
        self.last.map_or(self.since, |_| self.latest)
    }

    pub(super) fn holes(&self) -> usize {
        self.gaps.iter().map(|gap| gap.holes.len()).sum()
    }

    /// Returns the gap of this epoch in which a number is missing.
    pub(super) fn gap_of(&self, epoch: u32, n: u64) -> Option<&OpenGap> {
        self.gaps.iter().find(|gap| gap.epoch == epoch && gap.hole_of(n).is_some())
    }

    /// Takes a row that is in the log.
    pub(super) fn apply(&mut self, row: &RowHead, hash: u32) {
        let position = row.head.position;
        let numbering = *self.numbering.get_or_insert_with(|| position.numbering());
        if numbering != position.numbering() || row.head.origin == Origin::Redrive {
            return;
        }
        let edge = Edge { position, ts_event: row.head.ts_event };
        match position {
            Position::Unnumbered => {}
            Position::Ordered(_) | Position::Sequence(_) => self.apply_number(row, edge, hash),
            Position::Linked { prev, .. } => self.apply_link(edge, prev, hash),
        }
    }

    fn apply_number(&mut self, row: &RowHead, edge: Edge, hash: u32) {
        let n = edge.number();
        let origin = row.head.origin;
        let numbering = self.numbering();
        if row.epoch == self.epoch {
            // Where numbers jump, the history brings some of what is newer: that does not mean that the rest is here.
            let is_known = origin == Origin::Live || numbering == Numbering::Sequence;
            let is_newest = is_known && self.last.is_none_or(|last| last.number() < n);
            if is_newest
                && numbering == Numbering::Ordered
                && origin == Origin::Live
                && self.first_session == Some(row.session)
            {
                let epoch = self.epoch;
                self.gaps.iter_mut().filter(|gap| gap.epoch == epoch).for_each(|gap| gap.prove_beginning(n));
            }
            let is_told = numbering == Numbering::Sequence && origin != Origin::Live;
            self.window.push(numbering, n, if is_told { told_hash(edge.ts_event) } else { hash });
            self.given_up.regain(n);
            self.latest = self.latest.max(edge.ts_event);
            if is_newest {
                self.last = Some(edge);
            }
            if self.floor.is_none_or(|floor| n < floor.number()) {
                self.floor = Some(edge);
            }
        } else if let Some(past) = self.past.iter_mut().find(|past| past.epoch == row.epoch) {
            past.take(edge);
        }
        let is_covering = self.covered_by.contains(&row.session);
        let covers = origin == Origin::Live && is_covering && row.epoch == self.epoch;
        let arrival = Arrival { edge, hash, origin, covers };
        if let Some(gap) = self.gaps.iter_mut().find(|gap| gap.epoch == row.epoch && gap.hole_of(n).is_some()) {
            gap.take(numbering, arrival);
        }
    }

    /// The history has shown the newest record from before the stream is owed. It is no row.
    pub(super) fn begin_behind(&mut self, gap: GapId, edge: Edge) {
        let (epoch, numbering) = (self.epoch, self.numbering());
        let Some(gap) = self.gaps.iter_mut().find(|open| open.id == gap) else { return };
        gap.begin_behind(numbering, edge);
        if gap.epoch != epoch {
            let epoch = gap.epoch;
            let past = self.past.iter_mut().find(|past| past.epoch == epoch);
            return past.into_iter().for_each(|past| past.take(edge));
        }
        let is_newest = self.last.is_none_or(|last| last.number() < edge.number());
        // Where numbers jump, what is newest comes live.
        if is_newest && numbering == Numbering::Sequence {
            self.last = Some(edge);
        }
        if self.floor.is_none_or(|floor| edge.number() < floor.number()) {
            self.floor = Some(edge);
        }
        self.latest = self.latest.max(edge.ts_event);
    }

    fn apply_link(&mut self, edge: Edge, prev: Option<u64>, hash: u32) {
        match prev {
            None => self.gaps.iter_mut().for_each(OpenGap::resynchronise),
            Some(prev) => {
                let goes_on = self.last.is_some_and(|last| last.number() == prev);
                self.gaps.iter_mut().for_each(|gap| gap.link(edge, goes_on));
            }
        }
        self.window.push(Numbering::Linked, edge.number(), hash);
        self.last = Some(edge);
    }

    /// A gap of a dense stream was given up: its numbers are not here.
    pub(super) fn give_up(&mut self, gap: &OpenGap) {
        if self.numbering() != Numbering::Sequence {
            return;
        }
        if gap.epoch == self.epoch {
            self.given_up.add(&gap.holes);
        } else if let Some(past) = self.past.iter_mut().find(|past| past.epoch == gap.epoch) {
            past.given_up.add(&gap.holes);
        }
    }

    /// A complete answer closed a gap: where numbers jump, all up to its last row is here.
    pub(super) fn answered(&mut self, end: Edge) {
        if self.numbering() == Numbering::Ordered && self.last.is_none_or(|last| last.number() < end.number()) {
            self.last = Some(end);
        }
    }

    /// Returns how far, in nanoseconds, a record's time is from those of the hole of an earlier numbering that its number
    /// lies in; `None` when it was made before that numbering began.
    pub(super) fn distance(&self, gap: &OpenGap, n: u64, at: Timestamp) -> Option<i64> {
        let hole = gap.hole_of(n)?;
        let past = self.past.iter().find(|past| past.epoch == gap.epoch);
        if past.is_some_and(|past| at.0.saturating_add(UNEVEN) < past.begun().0.min(gap.since.0)) {
            return None;
        }
        let from = hole.after.map_or(gap.since, |after| after.ts_event);
        let next = self.past.iter().find(|past| past.epoch > gap.epoch).map(Past::begun);
        let to = hole.before.map(|before| before.ts_event).or(next);
        let to = to.or_else(|| self.floor.map(|floor| floor.ts_event));
        Some(distance((from, to.unwrap_or(Timestamp(i64::MAX))), at))
    }

    /// Returns whether exactly this row came in answer to an open gap.
    pub(super) fn has_taken(&self, n: u64, hash: u32) -> bool {
        self.gaps.iter().any(|gap| gap.has_taken(n, hash))
    }

    /// The venue numbers it anew.
    pub(super) fn restart(&mut self, epoch: u32) {
        let given_up = std::mem::take(&mut self.given_up);
        if self.numbering() == Numbering::Sequence
            && let (Some(floor), Some(last)) = (self.floor, self.last)
        {
            let surplus = (self.past.len() + 1).saturating_sub(MAX_PAST);
            self.past.drain(..surplus);
            self.past.push(Past::new(self.epoch, floor, last, self.latest, given_up));
        }
        self.since = self.newest_time();
        self.latest = Timestamp::default();
        self.epoch = epoch;
        self.last = None;
        self.floor = None;
        self.window.clear();
    }

    /// A session vouches for it; returns whether that is news.
    pub(super) fn cover(&mut self, session: u32) -> bool {
        if self.covered_by.contains(&session) {
            return false;
        }
        if !self.is_covered() {
            self.gaps.iter_mut().for_each(OpenGap::coverage_changed);
        }
        self.covered_by.push(session);
        self.is_exposed = false;
        true
    }

    /// A session vouches for it no longer, and nobody wanted that.
    pub(super) fn cut(&mut self, session: u32, vouched: Timestamp) {
        let was_covered = self.is_covered();
        self.uncover(session, vouched);
        if was_covered && !self.is_covered() {
            self.gaps.iter_mut().for_each(OpenGap::cut);
        }
    }

    /// A session vouches for it no longer, but did so up to then.
    pub(super) fn uncover(&mut self, session: u32, vouched: Timestamp) {
        if !self.covered_by.contains(&session) {
            return;
        }
        self.vouched = self.vouched.max(vouched);
        self.covered_by.retain(|&covering| covering != session);
        self.first_session = self.first_session.filter(|&first| first != session);
        self.gaps.iter_mut().for_each(OpenGap::coverage_changed);
        if !self.is_covered() {
            self.is_exposed = self.numbering() != Numbering::Unnumbered && !self.is_open_right();
        }
    }
}

/// The newest records, to prove that another one is one of them: numbers, each with the hash of the row, or of its time alone
/// where a history has told it to a dense stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Window {
    records: Vec<(u64, u32)>,
    /// Where the next one goes once it is full.
    next: u8,
}

impl Window {
    /// How many records are kept: in a dense stream a repeat is known by its number alone.
    fn size(numbering: Numbering) -> usize {
        match numbering {
            Numbering::Unnumbered => 0,
            Numbering::Sequence => 8,
            Numbering::Ordered | Numbering::Linked => 64,
        }
    }

    fn push(&mut self, numbering: Numbering, n: u64, hash: u32) {
        let size = Self::size(numbering);
        if self.records.len() < size {
            self.records.push((n, hash));
        } else if let Some(oldest) = self.records.get_mut(usize::from(self.next)) {
            *oldest = (n, hash);
            self.next = (self.next + 1) % size as u8;
        }
    }

    pub(super) fn contains(&self, n: u64, hash: u32) -> bool {
        self.records.contains(&(n, hash))
    }

    pub(super) fn has_number(&self, n: u64) -> bool {
        self.records.iter().any(|&(number, _)| number == n)
    }

    fn clear(&mut self) {
        self.records.clear();
        self.next = 0;
    }
}

impl Stream {
    /// Makes this a copy of what is known of `other`, all but its name, without allocating as far as it has room.
    pub(super) fn copy_from(&mut self, other: &Self) {
        let Self { window, gaps, given_up, past, covered_by, .. } = other;
        self.given_up.copy_from(given_up);
        self.past.clone_from(past);
        self.window.records.clear();
        self.window.records.extend_from_slice(&window.records);
        self.window.next = window.next;
        self.gaps.clone_from(gaps);
        self.covered_by.clone_from(covered_by);
        self.numbering = other.numbering;
        self.epoch = other.epoch;
        self.last = other.last;
        self.floor = other.floor;
        self.latest = other.latest;
        self.since = other.since;
        self.vouched = other.vouched;
        self.is_implied = other.is_implied;
        self.has_left = other.has_left;
        self.first_session = other.first_session;
        self.is_exposed = other.is_exposed;
        self.touched = other.touched;
    }
}
