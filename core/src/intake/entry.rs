//! One handover becomes one entry: what its records and events mean is decided, written, and only then true.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use foldhash::fast::FixedState;

use super::{
    continuity::{Absence, Continuity},
    link::{Handover, LinkId, Step},
    neighbour::Neighbours,
    tally::SourceTally,
};
use crate::{
    Result,
    protocol::GapId,
    row::{Numbering, Origin, StreamKey, Timestamp},
    rules::{Rule, holds},
    spool::{Append, Control, GapOutcome, ItemBuffer, MAX_ENTRY, SpoolWriter},
};

mod meaning;

/// An entry is ended behind this many bytes; what is left of a large handover goes into the next one.
const ENTRY_BYTES: usize = 4 << 20;

/// A longer row fits into no entry beside the decisions that it may cause.
pub(crate) const MAX_ROW: usize = MAX_ENTRY - (1 << 20);

/// So many streams are confirmed by one item: with their names and gaps they fit into the rest of any entry.
const CONFIRMED_AT_ONCE: usize = 1_000;

/// A stream is not forgotten sooner after it was left: somebody may have subscribed to it again, and the venue's word of that,
/// from which on all is owed, be on its way.
const LONGEST_AWAY: Duration = Duration::from_secs(60);

/// So many streams are forgotten by one entry.
const RETIRED_AT_ONCE: usize = 10_000;

/// A step of the wall clock against the monotonic one that is worth an entry.
const CLOCK_STEP: i64 = 100_000_000;

/// The time of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// Wall clock.
    pub(super) wall: Timestamp,
    /// Since the boot, by the monotonic clock.
    pub(super) mono: Duration,
}

/// How far a handover has got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    record: usize,
    step: usize,
    /// How many streams of a step that confirms many.
    confirmed: usize,
    /// How many of the new streams.
    streams: usize,
}

/// The outcome of a step through a handover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepted {
    /// All of it is written, up to this offset; 0 where nothing was worth an entry.
    Done(u64),
    /// A part is written; the rest begins here.
    Part(Place),
    /// Nothing was written: too much waits for an fsync.
    Behind,
    /// Nothing was written: there is no room.
    Full,
}

/// What happens to rows for which there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// They are written.
    Keep,
    /// They are counted and left out, and with the first one its session ends; events are entered all the same.
    Leave,
}

/// The state machine between links and the spool. Opens no socket, reads no clock.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) continuity: Continuity,
    pub(super) spool: SpoolWriter,
    sources: Vec<Arc<str>>,
    pub(super) tallies: Vec<SourceTally>,
    links: HashMap<LinkId, LinkState, FixedState>,
    /// The link whose handover is being taken; it stands in `links` otherwise.
    link: LinkState,
    next_session: u32,
    /// Streams that nobody subscribes to, the offset from which on the spool has no row of them, and since when that is so.
    idle: HashMap<u32, (u64, Duration), FixedState>,
    items: ItemBuffer,
    decisions: Vec<Control>,
    /// Decisions for which the entry has no room.
    unsaid: u64,
    /// Rows that were left out, by stream.
    left_out: BTreeMap<u32, u64>,
    /// What the last entry changed.
    pub(super) counts: Counts,
    /// By how much the wall clock is ahead of the monotonic one.
    drift: Option<i64>,
    /// By source: how far the recording has got that it plays, if it plays one.
    recorded: Vec<Option<Timestamp>>,
}

/// What is known of a link.
#[derive(Debug, Clone, Default)]
struct LinkState {
    /// What each of the link's streams is in the pipeline.
    streams: Vec<Known>,
    session: Option<u32>,
    /// Its session was ended here since there was no room: what still comes of that is left out, until a session begins
    /// that the venue vouches for.
    is_shut: bool,
    /// Streams of which a row was too long to be kept: an answer that held it has not brought all.
    torn: Vec<u32>,
}

/// A stream of a link.
#[derive(Debug, Clone)]
enum Known {
    /// The pipeline's number for it.
    As(u32),
    /// Its number was given up; should it come again it gets another one.
    Retired(Box<StreamKey>),
    /// Its name is too long to have a number.
    TooLong,
}

/// What an entry changes in the figures, once it is written.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) rows: u64,
    /// Rows that were left out because the spool is full.
    pub(super) left_out: u64,
    /// The link's session was ended for want of room.
    pub(super) refused: bool,
    /// Rows that no entry can hold.
    pub(super) malformed: u64,
    pub(super) repeated: u64,
    pub(super) conflicted: u64,
    pub(super) backfilled: u64,
    /// Gaps where something is missing; the question for a stream's beginning is none.
    pub(super) opened: Vec<GapId>,
    /// Gaps that are over, how, and how many rows have filled them.
    pub(super) closed: Vec<(GapId, GapOutcome, u64)>,
    /// Times in which nobody listened, that are over.
    pub(super) absences: Vec<Absence>,
    /// Whether nobody listens behind it.
    pub(super) is_absent: bool,
}

impl Intake {
    pub(super) fn new(
        continuity: Continuity,
        spool: SpoolWriter,
        sources: Vec<Arc<str>>,
        tallies: Vec<SourceTally>,
    ) -> Self {
        Self {
            next_session: continuity.next_session().max(1),
            continuity,
            spool,
            recorded: vec![None; sources.len()],
            sources,
            tallies,
            links: HashMap::default(),
            link: LinkState::default(),
            idle: HashMap::default(),
            items: ItemBuffer::default(),
            decisions: Vec::new(),
            unsaid: 0,
            left_out: BTreeMap::new(),
            counts: Counts::default(),
            drift: None,
        }
    }

    /// Enters what the last boot left open, first of all.
    ///
    /// # Errors
    ///
    /// Those of [`SpoolWriter::append`].
    pub(super) fn booted(&mut self, now: Now) -> Result<Accepted> {
        self.begin();
        self.continuity.booted(now.wall, &mut self.decisions);
        self.decide();
        let accepted = self.append(None, now)?;
        if !matches!(accepted, Accepted::Done(_)) {
            // They are opened when their streams are confirmed.
            tracing::warn!("no room to enter what the last boot left open");
            return Ok(accepted);
        }
        for (source, tally) in self.sources.iter().zip(&mut self.tallies) {
            let opened = self.continuity.open_gaps(source).map(|ask| ask.gap.id).collect();
            let is_absent = self.continuity.is_absent(source);
            tally.count(&Counts { opened, is_absent, ..Counts::default() });
        }
        Ok(accepted)
    }

    /// Takes a handover from `place` on.
    ///
    /// Where it says that nothing was written nothing has changed, and the same call may be made again.
    ///
    /// # Errors
    ///
    /// Those of [`SpoolWriter::append`]: then the pipeline cannot go on.
    pub(super) fn accept(&mut self, now: Now, handover: &Handover, place: Place, rows: Rows) -> Result<Accepted> {
        let link = handover.link;
        let (drift, recorded) = (self.drift, self.recorded[usize::from(link.source)]);
        self.link = self.links.remove(&link).unwrap_or_default();
        if handover.is_anew && place == Place::default() {
            self.link.streams.clear();
        }
        let (streams, session, is_shut) = (self.link.streams.len(), self.link.session, self.link.is_shut);
        let torn = self.link.torn.clone();
        self.begin();
        // Where time is that of a recording our own clock does not matter.
        if recorded.is_none() {
            self.note_clock(now);
        }
        let next = self.walk(now, handover, place, rows);
        let accepted = self.append(Some(link), now)?;
        let mut state = std::mem::take(&mut self.link);
        match (accepted, next) {
            (Accepted::Done(_), Some(next)) => {
                self.links.insert(link, state);
                return Ok(Accepted::Part(next));
            }
            (Accepted::Behind | Accepted::Full, _) => {
                (self.drift, self.recorded[usize::from(link.source)]) = (drift, recorded);
                state.streams.truncate(streams);
                (state.session, state.is_shut, state.torn) = (session, is_shut, torn);
                self.links.insert(link, state);
            }
            // The number may be given to another link one day, whose streams are numbered from its own beginning.
            (Accepted::Done(_) | Accepted::Part(_), _) if handover.is_last() => {}
            (Accepted::Done(_) | Accepted::Part(_), _) => _ = self.links.insert(link, state),
        }
        Ok(accepted)
    }

    /// Gives up gaps of a source for which nothing can be done.
    ///
    /// # Errors
    ///
    /// Those of [`SpoolWriter::append`].
    pub(super) fn give_up(&mut self, now: Now, source: u16, gaps: &[GapId], why: &str) -> Result<Accepted> {
        self.begin();
        let now = self.time_of(source, now);
        for gap in gaps {
            self.continuity.lost(*gap, why, now.wall, &mut self.decisions);
            self.decide();
        }
        self.append(Some(LinkId { source, line: 0 }), now)
    }

    /// Enters that streams of a source have gone while nobody listened.
    ///
    /// # Errors
    ///
    /// Those of [`SpoolWriter::append`].
    pub(super) fn gone(&mut self, now: Now, source: u16, mut streams: Vec<u32>) -> Result<Accepted> {
        streams.truncate(RETIRED_AT_ONCE);
        self.begin();
        let name = Arc::clone(&self.sources[usize::from(source)]);
        self.continuity.gone(&name, streams, now.wall, &mut self.decisions);
        self.decide();
        self.append(Some(LinkId { source, line: 0 }), now)
    }

    /// Forgets the streams that nobody subscribes to and that the spool has no row of: all before `floor` is gone, and no
    /// sink needs it.
    ///
    /// # Errors
    ///
    /// Those of [`SpoolWriter::append`].
    pub(super) fn retire(&mut self, now: Now, floor: u64) -> Result<Accepted> {
        let next = self.spool.next_offset();
        let since = |stream| self.idle.get(&stream).copied().unwrap_or((next, now.mono));
        self.idle = self.continuity.idle_streams().map(|stream| (stream, since(stream))).collect();
        let is_gone =
            |(at, since): &(u64, Duration)| *at <= floor + 1 && now.mono.saturating_sub(*since) >= LONGEST_AWAY;
        let mut gone: Vec<u32> = self.idle.iter().filter(|(_, idle)| is_gone(idle)).map(|(id, _)| *id).collect();
        if gone.is_empty() {
            return Ok(Accepted::Done(0));
        }
        gone.sort_unstable();
        gone.truncate(RETIRED_AT_ONCE);
        let keys: HashMap<u32, StreamKey, FixedState> =
            gone.iter().filter_map(|id| Some((*id, self.continuity.key(*id)?.clone()))).collect();
        self.begin();
        for stream in gone {
            self.put(Control::Retired { stream });
        }
        let accepted = self.append(None, now)?;
        if matches!(accepted, Accepted::Done(_)) {
            for known in self.links.values_mut().flat_map(|link| &mut link.streams) {
                if let Known::As(stream) = known
                    && let Some(key) = keys.get(stream)
                {
                    *known = Known::Retired(Box::new(key.clone()));
                }
            }
            self.idle.retain(|stream, _| !keys.contains_key(stream));
        }
        Ok(accepted)
    }

    /// Enters items that are no source's, all of them or none.
    ///
    /// # Errors
    ///
    /// Those of [`SpoolWriter::append`].
    pub(super) fn enter(&mut self, now: Now, controls: &[Control]) -> Result<Accepted> {
        self.begin();
        controls.iter().for_each(|control| self.put(control.clone()));
        self.append(None, now)
    }

    /// Returns whether a handover is rows alone, of a link that has no session: without it no claim is wrong.
    pub(super) fn claims_nothing(&self, handover: &Handover) -> bool {
        let is_open = self.links.get(&handover.link).is_some_and(|state| state.session.is_some());
        !is_open && handover.steps.iter().all(|(_, step)| matches!(step, Step::Alive { .. } | Step::Recorded { .. }))
    }

    fn begin(&mut self) {
        self.continuity.begin();
        self.items.clear();
        self.decisions.clear();
        self.left_out.clear();
        self.unsaid = 0;
        let Counts { mut opened, mut closed, .. } = std::mem::take(&mut self.counts);
        opened.clear();
        closed.clear();
        self.counts = Counts { opened, closed, ..Counts::default() };
    }

    /// Goes through records and events in the order in which they happened; returns where to go on if it was too much.
    fn walk(&mut self, now: Now, handover: &Handover, mut place: Place, rows: Rows) -> Option<Place> {
        let is_done = self.go_through(now, handover, &mut place, rows);
        if !self.left_out.is_empty() {
            let rows = std::mem::take(&mut self.left_out).into_iter().collect();
            self.put(Control::Dropped { sinks: Vec::new(), rows, offsets: None, at: now.wall });
        }
        (!is_done).then_some(place)
    }

    /// Moves `place` on; returns whether it has come to the end.
    fn go_through(&mut self, now: Now, handover: &Handover, place: &mut Place, rows: Rows) -> bool {
        let link = handover.link;
        for key in handover.records.new_streams().get(place.streams..).unwrap_or_default() {
            if !self.has_room_for(0) {
                return false;
            }
            let id = self.stream(link, key, now);
            self.link.streams.push(id.map_or(Known::TooLong, Known::As));
            place.streams += 1;
        }
        let neighbours = self.neighbours(handover, place.record);
        for (head, bytes) in handover.records.from(place.record) {
            if !self.steps(handover, place, place.record, (now, rows)) || !self.has_room_for(bytes.len()) {
                return false;
            }
            self.record(link, head, bytes, &neighbours, (now, rows));
            place.record += 1;
        }
        self.steps(handover, place, usize::MAX, (now, rows))
    }

    /// Returns whether an item may go into this entry. What is too long even for an empty one is not kept as it is.
    fn has_room_for(&self, bytes: usize) -> bool {
        let taken = self.items.bytes().len();
        taken == 0 || (taken < ENTRY_BYTES && taken + bytes <= MAX_ROW)
    }

    /// Goes through the events before a record; returns whether it has come to the last of them.
    fn steps(&mut self, handover: &Handover, place: &mut Place, record: usize, (now, rows): (Now, Rows)) -> bool {
        while let Some((_, step)) = handover.steps.get(place.step).filter(|(at, _)| *at <= record) {
            let bytes = if let Step::Redrive(redrive) = step { redrive.row.len() } else { 0 };
            if !self.has_room_for(bytes) {
                return false;
            }
            let now = self.time_of(handover.link.source, now);
            if let Step::Confirmed { streams, at } = step {
                while place.confirmed == 0 || place.confirmed < streams.len() {
                    if !self.has_room_for(0) {
                        return false;
                    }
                    let some = &streams[place.confirmed..streams.len().min(place.confirmed + CONFIRMED_AT_ONCE)];
                    self.confirm(handover.link, some, *at, now);
                    place.confirmed += some.len().max(1);
                }
                place.confirmed = 0;
            } else {
                self.step(handover.link, step, now, rows);
            }
            place.step += 1;
        }
        true
    }

    /// Looks through the records of replies before the first one is judged.
    fn neighbours(&self, handover: &Handover, first: usize) -> Neighbours {
        let source = &self.sources[usize::from(handover.link.source)];
        let known = |number: u32| match self.link.streams.get(number as usize)? {
            Known::As(stream) => Some(*stream),
            Known::Retired(key) => self.continuity.stream_id(source, key),
            Known::TooLong => None,
        };
        let history = handover.records.from(first).filter(|(head, _)| head.origin == Origin::Backfill);
        let records =
            history.filter_map(|(head, _)| Some((known(head.stream)?, head.position, head.ts_event, head.origin)));
        Neighbours::of(&self.continuity, records)
    }

    /// Returns when that happens which a source says now: what it plays from a recording happened then.
    fn time_of(&self, source: u16, now: Now) -> Now {
        Now { wall: self.recorded[usize::from(source)].unwrap_or(now.wall), ..now }
    }

    /// Notes a step of the wall clock.
    fn note_clock(&mut self, now: Now) {
        let drift = now.wall.0.saturating_sub(i64::try_from(now.mono.as_nanos()).unwrap_or(i64::MAX));
        let step = self.drift.map_or(0, |before| drift.saturating_sub(before));
        if self.drift.is_none() || step.abs() > CLOCK_STEP {
            self.drift = Some(drift);
        }
        if step.abs() > CLOCK_STEP {
            self.put(Control::ClockStep { at: now.wall, step });
        }
    }

    /// Puts what was decided into the entry, and takes it for true.
    #[inline]
    fn decide(&mut self) {
        if self.decisions.is_empty() {
            return;
        }
        let mut decisions = std::mem::take(&mut self.decisions);
        for control in decisions.drain(..) {
            self.put(control);
        }
        self.decisions = decisions;
    }

    /// Puts an item into the entry. A gap that finds no room there, since one event has opened hundreds of thousands, is
    /// opened when its stream is confirmed again.
    fn put(&mut self, control: Control) {
        if !self.items.push_control(&control) {
            self.unsaid += 1;
            return;
        }
        if let Control::Confirmed { source, venue_at, .. } = &control {
            self.counts.absences.extend(self.continuity.absence_until(source, *venue_at));
        }
        self.continuity.apply(&control);
        if let Control::GapOpened { gap, .. } = control
            && !self.continuity.is_baseline(gap)
        {
            self.counts.opened.push(gap);
        } else if let Control::GapClosed { gap, stream, outcome, filled, .. } = control {
            let numbering = self.continuity.standing(stream).and_then(|standing| standing.numbering);
            let is_lost = matches!(outcome, GapOutcome::Lost(_));
            // As in the ledger: nobody repeats the changes of a book, so they could not have been had.
            let is_book = numbering == Some(Numbering::Linked);
            let outcome = if is_lost && is_book { GapOutcome::Resynchronised } else { outcome };
            self.counts.closed.push((gap, outcome, filled));
        }
    }

    /// Writes the entry; what was taken for true is taken back if that does not work.
    fn append(&mut self, link: Option<LinkId>, now: Now) -> Result<Accepted> {
        let written = match self.spool.append(&self.items, now.mono) {
            Ok(Append::Written { last, .. }) => last,
            Ok(refused) => {
                if holds(Rule::RollBack) {
                    self.continuity.roll_back();
                } else {
                    self.continuity.commit();
                }
                return Ok(if refused == Append::Full { Accepted::Full } else { Accepted::Behind });
            }
            Err(error) => {
                self.continuity.roll_back();
                return Err(error);
            }
        };
        self.continuity.commit();
        let unsaid = std::mem::take(&mut self.unsaid);
        if unsaid > 0 {
            tracing::warn!(
                unsaid,
                "one event meant more than an entry can hold; the rest follows when streams are confirmed"
            );
        }
        self.show(link);
        Ok(Accepted::Done(if self.items.is_empty() { 0 } else { written }))
    }

    /// Shows what the entry changed.
    fn show(&mut self, link: Option<LinkId>) {
        let Some(link) = link else { return };
        self.counts.is_absent = self.continuity.is_absent(&self.sources[usize::from(link.source)]);
        if let Some(tally) = self.tallies.get_mut(usize::from(link.source)) {
            tally.count(&self.counts);
        }
    }

    /// Returns how many streams are remembered by the numbers of links.
    #[cfg(test)]
    pub(super) fn streams_of_links(&self) -> usize {
        self.links.values().map(|link| link.streams.len()).sum()
    }

    /// Returns how many rows the last entry had.
    pub(super) fn rows(&self) -> u64 {
        self.counts.rows
    }

    /// Returns how many rows the last handover left out because the spool is full.
    pub(super) fn left_out(&self) -> u64 {
        self.counts.left_out
    }

    /// Returns whether the last handover ended its session since the spool is full: the link has to begin another one.
    pub(super) fn has_refused(&self) -> bool {
        self.counts.refused
    }
}
