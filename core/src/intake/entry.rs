//! One handover becomes one entry: what its records and events mean is decided, written, and only then true.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use foldhash::fast::FixedState;

use super::{
    continuity::{Confirmation, Continuity, Drop, Verdict, row_hash},
    link::{Handover, LinkId, Step},
    neighbour::Neighbours,
    tally::{Absence, SourceTally},
};
use crate::{
    Result,
    protocol::GapId,
    row::{Head, Origin, StreamKey, Timestamp},
    spool::{Append, Control, GapOutcome, ItemBuffer, RowHead, SpoolWriter},
};

/// An entry is ended behind this many bytes; what is left of a large handover goes into the next one.
const ENTRY_BYTES: usize = 4 << 20;

/// So much is kept of a frame that cannot be read.
const MAX_RAW: usize = 64 << 10;

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
    streams: bool,
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
    next_session: u32,
    items: ItemBuffer,
    decisions: Vec<Control>,
    /// Rows that were left out, by stream.
    left_out: BTreeMap<u32, u64>,
    counts: Counts,
    /// By how much the wall clock is ahead of the monotonic one.
    drift: Option<i64>,
}

/// What is known of a link.
#[derive(Debug, Clone, Default)]
struct LinkState {
    /// The pipeline's number of each of the link's streams.
    streams: Vec<u32>,
    session: Option<u32>,
}

/// What an entry changes in the figures, once it is written.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) rows: u64,
    pub(super) repeated: u64,
    pub(super) conflicted: u64,
    pub(super) backfilled: u64,
    /// Gaps where something is missing; the question for a stream's beginning is none.
    pub(super) opened: Vec<GapId>,
    pub(super) closed: Vec<(GapId, GapOutcome)>,
    pub(super) confirmed: bool,
    /// A session has said that it lives.
    pub(super) heard: bool,
    /// A session is over.
    pub(super) ended: bool,
    /// Tables of streams whose session was cut and that nobody can repeat.
    pub(super) cut: Vec<Arc<str>>,
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
            sources,
            tallies,
            links: HashMap::default(),
            items: ItemBuffer::default(),
            decisions: Vec::new(),
            left_out: BTreeMap::new(),
            counts: Counts::default(),
            drift: None,
        }
    }

    /// Enters what the last boot left open, first of all. `absences` say, for each source, since when nobody has listened.
    ///
    /// # Errors
    ///
    /// Those of [`SpoolWriter::append`].
    pub(super) fn booted(&mut self, now: Now, absences: Vec<Absence>) -> Result<Accepted> {
        self.begin();
        self.continuity.booted(now.wall, &mut self.decisions);
        self.decide();
        let accepted = self.append(None, now)?;
        for ((source, tally), absence) in self.sources.iter().zip(&mut self.tallies).zip(absences) {
            let opened = self.continuity.open_gaps(source).map(|ask| ask.gap.id).collect();
            tally.booted(opened, absence);
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
        let before = self.links.get(&link).map(|state| (state.streams.len(), state.session));
        let drift = self.drift;
        self.begin();
        self.note_clock(now);
        let next = self.walk(now, handover, place, rows);
        let accepted = self.append(Some(link), now)?;
        match (accepted, next) {
            (Accepted::Done(_), Some(next)) => return Ok(Accepted::Part(next)),
            (Accepted::Behind | Accepted::Full, _) => {
                self.drift = drift;
                match (before, self.links.get_mut(&link)) {
                    (Some((streams, session)), Some(state)) => {
                        state.streams.truncate(streams);
                        state.session = session;
                    }
                    _ => _ = self.links.remove(&link),
                }
            }
            // The number may be given to another link one day, whose streams are numbered from its own beginning.
            (Accepted::Done(_) | Accepted::Part(_), _) if handover.is_last() => _ = self.links.remove(&link),
            (Accepted::Done(_) | Accepted::Part(_), _) => {}
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
        for gap in gaps {
            self.continuity.lost(*gap, why, now.wall, &mut self.decisions);
            self.decide();
        }
        self.append(Some(LinkId { source, line: 0 }), now)
    }

    /// Enters that a segment is dropped that sinks still needed.
    ///
    /// # Errors
    ///
    /// Those of [`SpoolWriter::append`].
    pub(super) fn enter(&mut self, now: Now, control: Control) -> Result<Accepted> {
        self.begin();
        self.put(control);
        self.append(None, now)
    }

    /// Returns whether a handover is rows alone, of a link that has no session: without it no claim is wrong.
    pub(super) fn claims_nothing(&self, handover: &Handover) -> bool {
        let is_open = self.links.get(&handover.link).is_some_and(|state| state.session.is_some());
        !is_open && handover.steps.iter().all(|(_, step)| matches!(step, Step::Alive { .. }))
    }

    fn begin(&mut self) {
        self.continuity.begin();
        self.items.clear();
        self.decisions.clear();
        self.left_out.clear();
        let Counts { mut opened, mut closed, .. } = std::mem::take(&mut self.counts);
        opened.clear();
        closed.clear();
        self.counts = Counts { opened, closed, ..Counts::default() };
    }

    /// Goes through records and events in the order in which they happened; returns where to go on if it was too much.
    fn walk(&mut self, now: Now, handover: &Handover, place: Place, rows: Rows) -> Option<Place> {
        let link = handover.link;
        if !place.streams {
            for key in handover.records.new_streams() {
                let id = self.stream(link, key);
                self.links.entry(link).or_default().streams.push(id);
            }
        }
        let neighbours = self.neighbours(handover, place.record);
        let mut steps = handover.steps[place.step..].iter().peekable();
        let mut step = place.step;
        let records = handover.records.from(place.record);
        for (number, (head, bytes)) in (place.record..).zip(records) {
            while let Some((_, event)) = steps.next_if(|(at, _)| *at <= number) {
                self.step(link, event, now, rows);
                step += 1;
            }
            if self.items.bytes().len() >= ENTRY_BYTES {
                return Some(Place { record: number, step, streams: true });
            }
            self.record(link, head, bytes, &neighbours, (now, rows));
        }
        for (_, event) in steps {
            self.step(link, event, now, rows);
        }
        if !self.left_out.is_empty() {
            let rows = std::mem::take(&mut self.left_out).into_iter().collect();
            self.put(Control::Dropped { sinks: Vec::new(), rows, offsets: None, at: now.wall });
        }
        None
    }

    /// Looks through the records of replies before the first one is judged.
    fn neighbours(&self, handover: &Handover, first: usize) -> Neighbours {
        let streams = self.links.get(&handover.link).map_or(&[][..], |state| &state.streams);
        let history = handover.records.from(first).filter(|(head, _)| head.origin == Origin::Backfill);
        let records = history.filter_map(|(head, _)| {
            let stream = *streams.get(head.stream as usize)?;
            Some((stream, head.position, head.ts_event, head.origin))
        });
        Neighbours::of(&self.continuity, records)
    }

    #[inline]
    fn record(&mut self, link: LinkId, head: Head, bytes: &[u8], neighbours: &Neighbours, (now, rows): (Now, Rows)) {
        let Some(state) = self.links.get(&link) else { return };
        let Some(&stream) = state.streams.get(head.stream as usize) else { return };
        if rows == Rows::Leave {
            *self.left_out.entry(stream).or_default() += 1;
            return self.end(link, "the spool is full", now);
        }
        let session = match state.session {
            Some(session) => session,
            None => self.open(link),
        };
        let head = Head { stream, ..head };
        let row = RowHead { head, session, line: link.line, epoch: 0 };
        let hash = row_hash(&head, bytes);
        let neighbour = if head.origin == Origin::Backfill { neighbours.of_stream(stream) } else { None };
        match self.continuity.judge(&row, hash, neighbour, now.wall, &mut self.decisions) {
            Verdict::Keep { epoch, conflict } => {
                self.decide();
                let row = RowHead { epoch, ..row };
                self.items.push_row(&row, bytes);
                self.continuity.apply_row(&row, hash);
                self.counts.rows += 1;
                self.counts.conflicted += u64::from(conflict);
                self.counts.backfilled += u64::from(head.origin == Origin::Backfill);
                self.continuity.filled(stream, now.wall, &mut self.decisions);
                self.decide();
            }
            Verdict::Drop(why) => {
                self.decide();
                self.counts.repeated += u64::from(why != Drop::NotOwed);
                self.counts.conflicted += u64::from(why == Drop::Contradiction);
            }
        }
    }

    fn step(&mut self, link: LinkId, step: &Step, now: Now, rows: Rows) {
        let at = now.wall;
        let session = self.links.get(&link).and_then(|state| state.session);
        let source = self.sources[usize::from(link.source)].clone();
        match step {
            Step::Opened => _ = self.open(link),
            Step::Confirmed { streams, at: venue_at } => {
                let session = session.unwrap_or_else(|| self.open(link));
                let streams = streams.iter().map(|one| (self.stream(link, &one.key), one.numbering)).collect();
                let confirmation = Confirmation { session, source, line: link.line, streams, venue_at: *venue_at };
                self.continuity.confirmed(confirmation, at, &mut self.decisions);
            }
            Step::Unsubscribed { streams } => {
                let ids = streams.iter().filter_map(|key| self.continuity.stream_id(&source, key)).collect();
                if let Some(session) = session {
                    self.continuity.unsubscribed(session, ids, at, &mut self.decisions);
                }
            }
            Step::Alive { at } => {
                self.decisions.extend(session.map(|session| Control::Alive { session, at: *at }));
            }
            Step::Ended { why } => self.end(link, why, now),
            Step::Restart(key) => {
                if let Some(stream) = self.continuity.stream_id(&source, key) {
                    self.continuity.restarted(stream, &mut self.decisions);
                }
            }
            Step::Malformed { raw, error } => {
                let raw = raw[..raw.len().min(MAX_RAW)].to_vec();
                let (source, session, error) = (source.to_string(), session.unwrap_or_default(), error.clone());
                self.decisions.push(Control::Malformed { source, session, raw, error, at });
            }
            // An answer whose rows were left out is none.
            Step::Answered { gap, ask } if rows == Rows::Keep => {
                self.continuity.answered(*gap, *ask, at, &mut self.decisions);
            }
            Step::Lost { gap, why } => self.continuity.lost(*gap, why, at, &mut self.decisions),
            Step::Answered { .. } | Step::Asked { .. } => {}
        }
        self.decide();
    }

    /// Begins a session on a link.
    fn open(&mut self, link: LinkId) -> u32 {
        let session = self.next_session;
        self.next_session += 1;
        self.links.entry(link).or_default().session = Some(session);
        session
    }

    /// Ends a link's session: from here on nobody knows what the venue sends.
    fn end(&mut self, link: LinkId, why: &str, now: Now) {
        let session = self.links.get_mut(&link).and_then(|state| state.session.take());
        if let Some(session) = session.filter(|session| self.continuity.has_session(*session)) {
            // What was only asked for is missing now, until it is answered.
            self.counts.opened.extend(self.continuity.baselines_of(session));
            self.counts.cut.extend(self.continuity.unrepeatable(session));
            self.continuity.ended(session, why, now.wall, &mut self.decisions);
            self.decide();
        }
    }

    /// Returns the pipeline's number of a stream, a new one if it has none.
    fn stream(&mut self, link: LinkId, key: &StreamKey) -> u32 {
        let source = self.sources[usize::from(link.source)].clone();
        if let Some(id) = self.continuity.stream_id(&source, key) {
            return id;
        }
        let id = self.continuity.next_stream();
        self.put(Control::Stream { id, source: source.to_string(), key: key.clone() });
        id
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

    fn put(&mut self, control: Control) {
        self.items.push_control(&control);
        self.continuity.apply(&control);
        self.counts.confirmed |= matches!(control, Control::Confirmed { .. });
        self.counts.heard |= matches!(control, Control::Confirmed { .. } | Control::Alive { .. });
        self.counts.ended |= matches!(control, Control::Ended { .. });
        if let Control::GapOpened { gap, .. } = control
            && !self.continuity.is_baseline(gap)
        {
            self.counts.opened.push(gap);
        } else if let Control::GapClosed { gap, outcome, .. } = control {
            self.counts.closed.push((gap, outcome));
        }
    }

    /// Writes the entry; what was taken for true is taken back if that does not work.
    fn append(&mut self, link: Option<LinkId>, now: Now) -> Result<Accepted> {
        let written = match self.spool.append(&self.items, now.mono) {
            Ok(Append::Written { last, .. }) => last,
            Ok(refused) => {
                self.continuity.roll_back();
                return Ok(if refused == Append::Full { Accepted::Full } else { Accepted::Behind });
            }
            Err(error) => {
                self.continuity.roll_back();
                return Err(error);
            }
        };
        self.continuity.commit();
        self.show(link);
        Ok(Accepted::Done(if self.items.is_empty() { 0 } else { written }))
    }

    /// Shows what the entry changed.
    fn show(&mut self, link: Option<LinkId>) {
        if let Some(tally) = link.and_then(|link| self.tallies.get_mut(usize::from(link.source))) {
            tally.count(&self.counts);
        }
    }

    /// Returns how many rows the last entry had.
    pub(super) fn rows(&self) -> u64 {
        self.counts.rows
    }
}
