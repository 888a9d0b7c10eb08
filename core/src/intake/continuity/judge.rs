//! What a record means: new, a repeat, or filling a gap.

use super::{
    Continuity, Hole, MAX_HOLES,
    gap::{NEAR, OpenGap, UNEVEN},
    stream::Stream,
    told_hash,
};
use crate::{
    protocol::{Edge, GapId},
    row::{Numbering, Origin, Position, Timestamp},
    rules::{Rule, holds},
    spool::{Control, GapOutcome, RowHead},
};

/// What happens to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes into the log.
    Keep {
        /// The numbering that it belongs to.
        epoch: u32,
        /// Another record has the same position, or the venue numbers in a way that it should not.
        conflict: bool,
    },
    /// It does not.
    Drop(Drop),
}

/// Why a record is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drop {
    /// It is there already: proved by its content, or in a dense stream by number and time where a history has told it, or
    /// by a number that was neither lost nor among the newest.
    Repeat,
    /// It came from the history, and no open gap asks for it.
    NotOwed,
}

const KEEP: Verdict = Verdict::Keep { epoch: 0, conflict: false };

impl Continuity {
    /// Says what a record means. Control items that have to stand before it in the log go to `out`.
    ///
    /// `neighbour` is the number of the newest record, in the same reply, that is older than what the stream's gap asks
    /// for, see [`Continuity::owed`].
    #[inline]
    pub(crate) fn judge(
        &self,
        row: &RowHead,
        hash: u32,
        neighbour: Option<u64>,
        at: Timestamp,
        out: &mut Vec<Control>,
    ) -> Verdict {
        let head = &row.head;
        let Some(stream) = self.streams.get(head.stream) else { return KEEP };
        let Some(numbering) = stream.numbering else { return unknown(head.origin, head.position) };
        if numbering != head.position.numbering() {
            return Verdict::Keep { epoch: stream.epoch, conflict: true };
        }
        let case = Case { continuity: self, id: head.stream, stream, row, hash, at };
        match head.position {
            Position::Unnumbered => KEEP,
            Position::Linked { id, prev } => case.linked(id, prev, out),
            Position::Sequence(n) | Position::Ordered(n) => case.numbered(n, numbering, neighbour, out),
        }
    }

    /// Looks ahead at a record from the history: whether an open gap asks for records from some time on, and this one is
    /// one of them (`Some(true)`), or older (`Some(false)`). Of the older ones the newest is the neighbour, behind which all is
    /// owed: it is no row, since it may have been one before the stream was forgotten.
    pub(crate) fn owed(&self, stream: u32, n: u64, ts_event: Timestamp) -> Option<bool> {
        let stream = self.streams.get(stream)?;
        let gap = stream.gap_of(stream.epoch, n)?;
        if !gap.is_before(n, ts_event) {
            return Some(true);
        }
        gap.can_be_neighbour(n).then_some(false)
    }
}

/// Says what the first record of a stream means that was not confirmed either.
fn unknown(origin: Origin, position: Position) -> Verdict {
    if origin == Origin::Live || position == Position::Unnumbered { KEEP } else { Verdict::Drop(Drop::NotOwed) }
}

/// A record beside the stream that it belongs to.
struct Case<'a> {
    continuity: &'a Continuity,
    id: u32,
    stream: &'a Stream,
    row: &'a RowHead,
    hash: u32,
    at: Timestamp,
}

impl Case<'_> {
    fn keep(&self, conflict: bool) -> Verdict {
        Verdict::Keep { epoch: self.stream.epoch, conflict }
    }

    fn edge(&self) -> Edge {
        Edge { position: self.row.head.position, ts_event: self.row.head.ts_event }
    }

    #[inline]
    fn numbered(&self, n: u64, numbering: Numbering, neighbour: Option<u64>, out: &mut Vec<Control>) -> Verdict {
        let stream = self.stream;
        let is_live = self.row.head.origin == Origin::Live;
        if stream.epoch > 0 && !is_live && (self.is_among_newest(n) || self.is_first_known(n)) {
            // A gap of the old numbering may have room for its number and its time.
            return Verdict::Drop(Drop::Repeat);
        }
        if stream.epoch > 0 && holds(Rule::OldNumbering) && self.is_of_old_numbering(n) {
            return self.in_old_numbering(n, neighbour, out);
        }
        if !stream.gaps.is_empty()
            && let Some(gap) = self.gap_of(n)
            && !self.begins_anew(gap, n)
        {
            return self.in_gap(gap, n, neighbour, out);
        }
        let is_newer = stream.last.is_none_or(|last| n > last.number());
        match (is_live, is_newer) {
            (true, true) if numbering == Numbering::Ordered && self.is_here(n) => Verdict::Drop(Drop::Repeat),
            (true, true) => self.newest(n, numbering, out),
            (true, false) if numbering == Numbering::Ordered => self.older_in_jumping(n),
            (true, false) => self.older_in_dense(n, out),
            // What is newer than all will come live, or be missing and asked for then.
            (false, true) => Verdict::Drop(Drop::NotOwed),
            (false, false) => self.outside_in_history(n, numbering, out),
        }
    }

    /// Returns whether it is the first known record of the present numbering. Its content may differ: a history may not tell all.
    fn is_first_known(&self, n: u64) -> bool {
        self.stream.floor.is_some_and(|floor| floor.number() == n && floor.ts_event == self.row.head.ts_event)
    }

    /// Returns whether a record was made before the venue began to number anew: its number is larger than the first one
    /// known since, its time smaller. Dropped by mistake, its number would be missed.
    fn is_of_old_numbering(&self, n: u64) -> bool {
        let Stream { floor, last, since, .. } = self.stream;
        let ts_event = self.row.head.ts_event;
        if self.is_between_neighbours(n) && ts_event.0.saturating_add(UNEVEN) > since.0 {
            return false;
        }
        // Times need not grow with the numbers: what comes next is of this numbering, however early it was made.
        let is_beyond = last.is_none_or(|last| n > last.number().saturating_add(1));
        let is_clear = |floor: &Edge| ts_event.0.saturating_add(UNEVEN) < floor.ts_event.0;
        let goes_on = || self.stream.past.iter().any(|past| past.goes_on(n));
        let is_earlier =
            |floor: Edge| n > floor.number() && ts_event < floor.ts_event && (is_clear(&floor) || goes_on());
        let is_before = is_beyond && floor.is_some_and(is_earlier);
        is_before || (self.row.head.origin != Origin::Live && ts_event <= *since)
    }

    /// Says what a record means that was made before the venue began to number anew: of the numberings that have its
    /// number, and of the gaps that ask for it, its time is nearest to that which it belongs to.
    fn in_old_numbering(&self, n: u64, neighbour: Option<u64>, out: &mut Vec<Control>) -> Verdict {
        let stream = self.stream;
        let at = self.row.head.ts_event;
        let known = stream.past.iter().filter_map(|past| Some((past.distance(n, at)?, past)));
        let known = known.min_by_key(|(far, _)| *far);
        let old = stream.gaps.iter().filter(|gap| gap.epoch < stream.epoch && gap.hole_of(n).is_some());
        let asked = old.filter_map(|gap| Some((stream.distance(gap, n, at)?, gap)));
        match (known, asked.min_by_key(|(far, _)| *far)) {
            (Some((near, past)), Some((far, gap))) if gap.epoch == past.epoch || far <= near => {
                self.in_gap(gap, n, neighbour, out)
            }
            (None, Some((_, gap))) => self.in_gap(gap, n, neighbour, out),
            (Some((_, past)), _) if past.given_up.contains(n) => Verdict::Keep { epoch: past.epoch, conflict: false },
            (Some(_), _) => Verdict::Drop(Drop::Repeat),
            // It was overtaken by the first one of the present numbering.
            (None, None) if self.row.head.origin == Origin::Live => {
                Verdict::Keep { epoch: stream.epoch - 1, conflict: false }
            }
            (None, None) => Verdict::Drop(Drop::NotOwed),
        }
    }

    /// Returns whether a number is missing between two known ones of the present numbering.
    fn is_between_neighbours(&self, n: u64) -> bool {
        let hole = self.stream.gap_of(self.stream.epoch, n).and_then(|gap| gap.hole_of(n));
        hole.is_some_and(|hole| hole.after.is_some() && hole.before.is_some())
    }

    /// Returns whether a number is that of a record made at about the time of the first known one, just before it by number.
    fn came_before_the_first(&self, n: u64) -> bool {
        let floor = self.stream.floor.map_or(0, |floor| floor.number());
        n < floor && floor - n <= NEAR && !self.is_of_another_time()
    }

    /// Returns whether the record was made clearly after all of the present numbering.
    fn is_of_another_time(&self) -> bool {
        self.row.head.ts_event.0 > self.stream.newest_time().0.saturating_add(UNEVEN)
    }

    /// Returns the gap in which the number is missing. Where the venue has numbered anew, a record from the history may
    /// belong to either numbering.
    fn gap_of(&self, n: u64) -> Option<&OpenGap> {
        let stream = self.stream;
        if self.row.head.origin == Origin::Live || stream.epoch == 0 {
            return stream.gap_of(stream.epoch, n);
        }
        let is_early = stream.floor.is_none_or(|floor| self.row.head.ts_event <= floor.ts_event);
        let mut old = stream.gaps.iter().filter(|gap| is_early && gap.epoch < stream.epoch);
        let current = |gap: &&OpenGap| gap.epoch == stream.epoch && self.fits(gap, n);
        old.find(|gap| self.fits(gap, n))
            .or_else(|| stream.gaps.iter().find(current))
            .or_else(|| stream.gap_of(stream.epoch, n).filter(|_| self.goes_on_from_here(n)))
    }

    /// Returns whether a number that is missing is of the present numbering, however early it was made.
    fn goes_on_from_here(&self, n: u64) -> bool {
        let Stream { floor, last, .. } = self.stream;
        let is_next = last.is_some_and(|last| n == last.number().saturating_add(1));
        let is_later = floor.is_some_and(|floor| n > floor.number() && self.row.head.ts_event >= floor.ts_event);
        is_next || is_later || self.is_between_neighbours(n)
    }

    /// Returns whether number and time lie in a gap.
    fn fits(&self, gap: &OpenGap, n: u64) -> bool {
        gap.hole_of(n).is_some_and(|hole| hole.spans(n, self.row.head.ts_event))
    }

    /// Returns whether a number lies in a gap only because nobody knows where that begins: it was made later than all.
    fn begins_anew(&self, gap: &OpenGap, n: u64) -> bool {
        let is_dense = self.stream.numbering() == Numbering::Sequence && gap.epoch == self.stream.epoch;
        let is_later = self.stream.last.is_some_and(|last| n < last.number())
            && self.row.head.ts_event > self.stream.newest_time();
        is_dense
            && is_later
            && !self.came_before_the_first(n)
            && gap.hole_of(n).is_some_and(|hole| hole.after.is_none())
    }

    fn in_gap(&self, gap: &OpenGap, n: u64, neighbour: Option<u64>, out: &mut Vec<Control>) -> Verdict {
        let verdict = Verdict::Keep { epoch: gap.epoch, conflict: false };
        if self.row.head.origin != Origin::Live && gap.is_before(n, self.row.head.ts_event) {
            if neighbour == Some(n) && gap.can_be_neighbour(n) {
                out.push(Control::Baseline { gap: gap.id, stream: self.id, edge: self.edge() });
            }
            return Verdict::Drop(Drop::NotOwed);
        }
        let dense = self.stream.numbering() == Numbering::Sequence;
        if !dense && self.is_here(n) {
            return Verdict::Drop(Drop::Repeat);
        }
        if dense && self.stream.holes() >= MAX_HOLES {
            self.give_up_for(gap, n, out);
        }
        verdict
    }

    /// Gives up a gap that has fallen into too many holes, but for the one that is being filled.
    fn give_up_for(&self, gap: &OpenGap, n: u64, out: &mut Vec<Control>) {
        let Some(hole) = gap.hole_of(n) else { return };
        let oldest = self.stream.gaps.iter().find(|other| other.id != gap.id).unwrap_or(gap);
        out.push(self.lost(oldest));
        if oldest.id == gap.id && gap.epoch == self.stream.epoch {
            out.push(self.opened(hole, gap.since));
        }
    }

    fn lost(&self, gap: &OpenGap) -> Control {
        let outcome = GapOutcome::Lost(format!("more than {MAX_HOLES} holes in one stream"));
        Control::GapClosed { gap: gap.id, stream: self.id, outcome, filled: gap.filled, at: self.at }
    }

    fn opened(&self, hole: Hole, since: Timestamp) -> Control {
        let gap = GapId(self.continuity.next_gap);
        Control::GapOpened { gap, stream: self.id, after: hole.after, before: hole.before, since, at: self.at }
    }

    /// Opens a gap that a record revealed, and gives up the oldest one if there are too many.
    fn open(&self, hole: Hole, since: Timestamp, out: &mut Vec<Control>) {
        if self.stream.holes() >= MAX_HOLES
            && let Some(oldest) = self.stream.gaps.first()
        {
            out.push(self.lost(oldest));
        }
        out.push(self.opened(hole, since));
    }

    fn newest(&self, n: u64, numbering: Numbering, out: &mut Vec<Control>) -> Verdict {
        let stream = self.stream;
        let hole = Hole { after: stream.last, before: Some(self.edge()) };
        match stream.last {
            Some(last) if numbering == Numbering::Sequence && n - last.number() > 1 => {
                self.open(hole, last.ts_event, out);
            }
            // The first one of all, or since the venue has begun to number anew. Another one may have overtaken it, or may
            // still be on the way on another line: the second one, or the history, shows that none is missing.
            None if numbering == Numbering::Sequence && n > 1 && self.has_beginning() => {
                self.open(hole, stream.since, out);
            }
            Some(_) | None => {}
        }
        self.keep(false)
    }

    /// Returns whether records are owed from a time on that is before the first record.
    fn has_beginning(&self) -> bool {
        let stream = self.stream;
        let is_first_line = stream.covered_by.first().is_none_or(|&first| first == self.row.session);
        stream.epoch > 0 || !stream.is_implied || !is_first_line
    }

    /// Returns whether exactly this row is one of the newest, or came in answer to an open gap: the history may have been
    /// ahead of the line.
    fn is_here(&self, n: u64) -> bool {
        self.stream.window.contains(n, self.hash) || self.stream.has_taken(n, self.hash)
    }

    /// Returns whether a record of a dense stream is one of the newest: equal to it, or told before by a history.
    fn is_among_newest(&self, n: u64) -> bool {
        let window = &self.stream.window;
        window.contains(n, self.hash) || window.contains(n, told_hash(self.row.head.ts_event))
    }

    fn older_in_jumping(&self, n: u64) -> Verdict {
        if self.is_here(n) { Verdict::Drop(Drop::Repeat) } else { self.keep(true) }
    }

    fn older_in_dense(&self, n: u64, out: &mut Vec<Control>) -> Verdict {
        let stream = self.stream;
        if self.is_among_newest(n) {
            return Verdict::Drop(Drop::Repeat);
        }
        if stream.given_up.contains(n) {
            return self.keep(false);
        }
        let last_at = stream.newest_time();
        if self.row.head.ts_event > last_at && !self.came_before_the_first(n) {
            // A smaller number at a later time: the venue numbers anew.
            let epoch = stream.epoch + 1;
            out.push(Control::Restart { stream: self.id, epoch });
            if n > 1 {
                self.open(Hole { after: None, before: Some(self.edge()) }, last_at, out);
            }
            return Verdict::Keep { epoch, conflict: false };
        }
        if let Some(floor) = stream.floor
            && n < floor.number()
        {
            if floor.number() - n > 1 {
                self.open(Hole { after: Some(self.edge()), before: Some(floor) }, self.row.head.ts_event, out);
            }
            return self.keep(false);
        }
        // Farther back than the window nobody can tell, and what was not lost is there.
        if stream.window.has_number(n) { self.keep(true) } else { Verdict::Drop(Drop::Repeat) }
    }

    fn outside_in_history(&self, n: u64, numbering: Numbering, out: &mut Vec<Control>) -> Verdict {
        let stream = self.stream;
        let is_here = match numbering {
            // The venue has numbered anew while nobody listened. How far, the rest of the history shows. Without an open
            // end it will come live, behind what is still on the way.
            Numbering::Sequence if stream.given_up.contains(n) => return self.keep(false),
            Numbering::Sequence if stream.is_open_right() && self.is_of_another_time() => {
                out.push(Control::Restart { stream: self.id, epoch: stream.epoch + 1 });
                self.open(Hole { after: None, before: None }, stream.newest_time(), out);
                return Verdict::Keep { epoch: stream.epoch + 1, conflict: false };
            }
            Numbering::Sequence => stream.floor.is_some_and(|floor| n >= floor.number()),
            Numbering::Ordered | Numbering::Linked | Numbering::Unnumbered => stream.window.contains(n, self.hash),
        };
        Verdict::Drop(if is_here { Drop::Repeat } else { Drop::NotOwed })
    }

    fn linked(&self, id: u64, prev: Option<u64>, out: &mut Vec<Control>) -> Verdict {
        if self.stream.window.contains(id, self.hash) {
            return Verdict::Drop(Drop::Repeat);
        }
        let goes_on = prev.is_none_or(|prev| self.stream.last.is_some_and(|last| last.number() == prev));
        if !goes_on && self.stream.gaps.iter().all(OpenGap::is_over) {
            let hole = Hole { after: self.stream.last, before: Some(self.edge()) };
            out.push(self.opened(hole, self.stream.open_since()));
        }
        self.keep(false)
    }
}
