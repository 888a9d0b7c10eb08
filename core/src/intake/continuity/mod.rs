//! Continuity: what is known of every stream, and what a record or an event therefore means.
//!
//! A fold over the log: [`Continuity::apply`] and [`Continuity::apply_row`] are the only way in, in a running pipeline as
//! at a start, so what is not in the log has not happened. The decisions ([`Continuity::judge`] and its siblings) only
//! look and say which control items belong into the log. Nothing here reads a clock or depends on the order of a hash map.
//!
//! ```text
//! never seen ──confirmed──→ covered, baseline gap (None, open) ──answered, see below──→ covered
//! covered ──session over──→ gap (last, open) ──confirmed, live record n──→ gap (last, n) ──rows, answers──→ closed
//! ```
//!
//! Two rules make it safe. A coverage that ends opens a gap that is open at the right; a coverage that begins finds one,
//! or opens it. And a gap with an open right end closes only by a complete answer to a question that was put after the
//! coverage began (or ended for good), or by live records that leave no number out.

mod absence;
mod answers;
mod gap;
mod judge;
mod past;
mod snapshot;
mod standing;
mod steps;
mod stream;
mod streams;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};

use self::{
    absence::Listening,
    gap::{Hole, OpenGap},
    stream::Stream,
    streams::Streams,
};
use crate::{
    own,
    protocol::GapId,
    row::{Head, Numbering, Origin, Position, StreamKey, Timestamp},
    spool::{Control, GapOutcome, RowHead},
};

pub(crate) use absence::Absence;
pub(crate) use answers::{LOOK_AGAIN, OpenAsk};
pub(crate) use judge::{Drop, Verdict};
pub(crate) use standing::{Span, Standing};
pub(crate) use steps::Confirmation;

/// How long a record may be on its way to us, beyond what a confirmation took, and a clock be wrong: 60 s.
const ON_THE_WAY: i64 = 60_000_000_000;

/// How many holes a stream may have. Beyond that the oldest gap is given up, and said to be lost.
const MAX_HOLES: usize = 1_024;

/// What is known of every stream of a pipeline.
#[derive(Debug, Default)]
pub(crate) struct Continuity {
    /// Names of sources, in order of appearance.
    sources: Vec<Arc<str>>,
    streams: Streams,
    /// Those that are not over.
    sessions: BTreeMap<u32, Session>,
    /// Of each source that a session was confirmed of.
    listening: BTreeMap<u16, Listening>,
    next_session: u32,
    next_gap: u64,
    /// Follows from `streams`.
    by_key: HashMap<(u16, StreamKey), u32, FixedState>,
    /// Follows from `streams`: the stream of each open gap.
    gaps: BTreeMap<GapId, u32>,
    /// A gap, or who covers a stream, may have changed.
    has_stirred: bool,
    journal: Journal,
}

/// A session of one connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    source: u16,
    line: u16,
    /// The streams that it vouches for.
    streams: Vec<u32>,
    /// Those that it has left, growing: a late record of one does not mean that more will come.
    left: Vec<u32>,
    /// By how much our clock is ahead of the venue's, at the most; `None` where the venue has confirmed nothing.
    ahead: Option<i64>,
    /// Up to when all that the venue made has come, by the venue's clock.
    vouched: Timestamp,
}

impl Session {
    fn new(source: u16, line: u16) -> Self {
        let (ahead, vouched) = (None, Timestamp::default());
        Self { source, line, streams: Vec::new(), left: Vec::new(), ahead, vouched }
    }
}

/// What has to be put back when an entry could not be written.
#[derive(Debug, Default)]
struct Journal {
    round: u64,
    is_open: bool,
    /// Saved streams, whose names do not count; those behind `saved` are kept for their memory.
    streams: Vec<(u32, Stream)>,
    saved: usize,
    sessions: Option<BTreeMap<u32, Session>>,
    listening: Option<BTreeMap<u16, Listening>>,
    len_of_sources: usize,
    /// Streams that were given up.
    retired: Vec<(u32, Box<Stream>)>,
    next_stream: u32,
    next_session: u32,
    next_gap: u64,
}

/// Returns what two equal records have in common besides their number.
#[inline]
pub(crate) fn row_hash(head: &Head, bytes: &[u8]) -> u32 {
    if matches!(head.position, Position::Unnumbered) {
        return 0;
    }
    let mut seed = crc32c::crc32c(&head.ts_event.0.to_le_bytes());
    if let Position::Linked { prev: Some(prev), .. } = head.position {
        seed = crc32c::crc32c_append(seed, &prev.to_le_bytes());
    }
    crc32c::crc32c_append(seed, bytes)
}

/// Returns what a dense stream remembers of a record that a history has told: that may tell less than what comes live, where
/// number and time together are proof enough.
fn told_hash(ts_event: Timestamp) -> u32 {
    crc32c::crc32c(&ts_event.0.to_le_bytes())
}

/// The fold.
impl Continuity {
    /// Takes a control item that is in the log.
    pub(crate) fn apply(&mut self, control: &Control) {
        self.has_stirred |= !matches!(control, Control::Alive { .. } | Control::Malformed { .. });
        match control {
            Control::Boot { .. } => self.end_all(),
            Control::Stream { id, source, key } => self.add_stream(*id, source, key),
            Control::Retired { stream } => self.retire(*stream),
            Control::Confirmed { session, source, line, streams, venue_at, at } => {
                self.confirm(*session, source, *line, streams, *venue_at);
                let source = self.source_id(source);
                self.listen(source, *venue_at);
                self.compare_clocks(*session, *venue_at, *at);
            }
            Control::Alive { session, at } => {
                self.vouch(*session, *at);
                self.hear(*session, *at);
            }
            Control::Malformed { session, .. } => self.know_session(*session),
            Control::Ended { session, .. } => self.end(*session),
            Control::Unsubscribed { session, streams, .. } | Control::Left { session, streams, .. } => {
                self.leave(*session, streams);
            }
            Control::GapOpened { gap, stream, after, before, since, at } => {
                self.open_gap(*gap, *stream, Hole { after: *after, before: *before }, (*since, *at));
            }
            Control::GapClosed { gap, stream, outcome, .. } => self.close_gap(*gap, *stream, outcome),
            Control::GapEmpty { gap, stream, at } => {
                let gap = self.stream_mut(*stream).and_then(|stream| stream.gaps.iter_mut().find(|g| g.id == *gap));
                gap.into_iter().for_each(|gap| gap.seen_empty(*at));
            }
            Control::Baseline { gap, stream, edge } => {
                self.stream_mut(*stream).into_iter().for_each(|stream| stream.begin_behind(*gap, *edge));
            }
            Control::Restart { stream, epoch } => {
                self.stream_mut(*stream).into_iter().for_each(|stream| stream.restart(*epoch));
            }
            Control::ClockStep { step, .. } => self.step_clock(*step),
            Control::Dropped { .. }
            | Control::Redrive { .. }
            | Control::SegmentDropped { .. }
            | Control::Skipped { .. } => {}
        }
    }

    /// Takes a row that is in the log; `hash` is its [`row_hash`].
    #[inline]
    pub(crate) fn apply_row(&mut self, row: &RowHead, hash: u32) {
        if row.session >= self.next_session {
            self.next_session = row.session + 1;
        }
        let Some(stream) = self.streams.get(row.head.stream) else {
            // What it stands for is lost; its number must not be given to another stream.
            self.streams.note(row.head.stream);
            return;
        };
        let is_numbered = row.head.position != Position::Unnumbered;
        self.has_stirred |= !stream.gaps.is_empty();
        if !is_numbered && stream.numbering.is_some() {
            return;
        }
        if is_numbered && row.head.origin == Origin::Live && !stream.covered_by.contains(&row.session) {
            self.imply(row.head.stream, row.session, row.line);
        }
        self.stream_mut(row.head.stream).into_iter().for_each(|stream| stream.apply(row, hash));
    }

    /// Learns what a number stands for. What it has stood for once it stands for always.
    pub(crate) fn add_stream(&mut self, id: u32, source: &str, key: &StreamKey) {
        if self.streams.get(id).is_some() {
            return;
        }
        // Nobody subscribes to what the pipeline says of itself: it is forgotten with its last row.
        let has_left = source == own::SOURCE;
        let source = self.source_id(source);
        let mut stream = Stream::new(source, key.clone());
        stream.has_left = has_left;
        if self.streams.insert(id, stream) {
            self.by_key.insert((source, key.clone()), id);
        }
    }

    /// A stream that nobody subscribes to any more, and of which the spool has no row, is forgotten.
    fn retire(&mut self, id: u32) {
        let Some(stream) = self.streams.remove(id) else { return };
        let key = (stream.source, stream.key.clone());
        if self.by_key.get(&key) == Some(&id) {
            self.by_key.remove(&key);
        }
        stream.gaps.iter().for_each(|gap| _ = self.gaps.remove(&gap.id));
        for session in self.sessions_mut().values_mut() {
            session.streams.retain(|known| *known != id);
            session.left.retain(|known| *known != id);
        }
        if self.journal.is_open {
            self.journal.retired.push((id, stream));
        }
    }

    fn source_id(&mut self, name: &str) -> u16 {
        if let Some(id) = self.sources.iter().position(|known| &**known == name) {
            return id as u16;
        }
        self.sources.push(name.into());
        (self.sources.len() - 1) as u16
    }

    fn confirm(&mut self, session: u32, source: &str, line: u16, streams: &[(u32, Numbering)], venue_at: Timestamp) {
        self.know_session(session);
        let source = self.source_id(source);
        self.sessions_mut().entry(session).or_insert_with(|| Session::new(source, line));
        for &(id, numbering) in streams {
            let Some(stream) = self.stream_mut(id) else { continue };
            let first = stream.numbering.is_none();
            stream.numbering.get_or_insert(numbering);
            stream.has_left = false;
            stream.is_implied = false;
            if first {
                stream.first_session = Some(session);
                stream.since = venue_at;
            }
            self.cover(id, session, line);
            if let Some(session) = self.sessions_mut().get_mut(&session)
                && let Ok(at) = session.left.binary_search(&id)
            {
                session.left.remove(at);
            }
        }
        if streams.is_empty() {
            // A channel that carries whatever trades: it vouches for what it has carried before.
            for id in self.implied_streams(source) {
                self.cover(id, session, line);
            }
        }
    }

    /// A confirmation says what time it is at the venue; how long it was on the way counts as being ahead.
    fn compare_clocks(&mut self, session: u32, venue_at: Timestamp, at: Timestamp) {
        if let Some(session) = self.sessions_mut().get_mut(&session) {
            session.ahead = Some(at.0.saturating_sub(venue_at.0));
        }
    }

    /// Frames still came: what was made a while before that is here.
    fn vouch(&mut self, session: u32, at: Timestamp) {
        self.know_session(session);
        if let Some(session) = self.sessions_mut().get_mut(&session)
            && let Some(ahead) = session.ahead
        {
            let at = Timestamp(at.0.saturating_sub(ahead).saturating_sub(ON_THE_WAY));
            session.vouched = session.vouched.max(at);
        }
    }

    /// Our clock was set. When it goes back a frame may bear a time of before that, so then nothing more is claimed.
    fn step_clock(&mut self, step: i64) {
        for ahead in self.sessions_mut().values_mut().filter_map(|session| session.ahead.as_mut()) {
            *ahead = ahead.saturating_add(step.max(0));
        }
    }

    fn implied_streams(&self, source: u16) -> Vec<u32> {
        let implied = |(id, stream): (u32, &Stream)| {
            let is_implied = stream.source == source && stream.is_implied && !stream.has_left;
            (is_implied && stream.numbering() != Numbering::Unnumbered).then_some(id)
        };
        self.streams.iter().filter_map(implied).collect()
    }

    /// A live record shows that its session covers the stream, unless it was on the way when the stream was left.
    fn imply(&mut self, id: u32, session: u32, line: u16) {
        let has_left = self.streams.get(id).is_some_and(|stream| stream.has_left);
        let left = self.sessions.get(&session).is_some_and(|session| session.left.binary_search(&id).is_ok());
        if !has_left && !left {
            self.cover(id, session, line);
        }
    }

    fn cover(&mut self, id: u32, session: u32, line: u16) {
        let Some(stream) = self.stream_mut(id) else { return };
        if stream.cover(session) {
            let source = stream.source;
            self.sessions_mut().entry(session).or_insert_with(|| Session::new(source, line)).streams.push(id);
        }
    }

    fn know_session(&mut self, session: u32) {
        self.next_session = self.next_session.max(session.saturating_add(1));
    }

    fn end_all(&mut self) {
        for session in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.end(session);
        }
    }

    fn end(&mut self, session: u32) {
        self.know_session(session);
        self.miss(session);
        let Some(ended) = self.sessions_mut().remove(&session) else { return };
        for id in ended.streams {
            self.stream_mut(id).into_iter().for_each(|stream| stream.cut(session, ended.vouched));
        }
    }

    fn leave(&mut self, session: u32, streams: &[u32]) {
        let vouched = self.sessions.get(&session).map_or_else(Timestamp::default, |session| session.vouched);
        for &id in streams {
            let Some(stream) = self.stream_mut(id) else { continue };
            stream.uncover(session, vouched);
            if !stream.is_covered() {
                stream.has_left = true;
                // What a book does after it was left is nobody's loss: it begins anew with a whole state.
                stream.is_exposed &= stream.numbering() != Numbering::Linked;
            }
        }
        if let Some(session) = self.sessions_mut().get_mut(&session) {
            session.left.extend_from_slice(streams);
            session.left.sort_unstable();
            session.left.dedup();
            let Session { streams, left, .. } = session;
            streams.retain(|id| left.binary_search(id).is_err());
        }
    }

    fn open_gap(&mut self, id: GapId, stream: u32, hole: Hole, (since, at): (Timestamp, Timestamp)) {
        self.next_gap = self.next_gap.max(id.0.saturating_add(1));
        let Some(opened) = self.stream_mut(stream) else { return };
        opened.is_exposed &= hole.before.is_some();
        opened.given_up.ask_for(hole);
        let mut gap = OpenGap::new(id, opened.epoch, hole, since, at, !opened.is_covered());
        for older in opened.gaps.iter().filter(|older| older.epoch == opened.epoch) {
            gap.inherit(older);
        }
        opened.gaps.push(gap);
        self.gaps.insert(id, stream);
    }

    fn close_gap(&mut self, id: GapId, stream: u32, outcome: &GapOutcome) {
        // Its opening may be lost.
        self.next_gap = self.next_gap.max(id.0.saturating_add(1));
        self.gaps.remove(&id);
        let Some(stream) = self.stream_mut(stream) else { return };
        let Some(at) = stream.gaps.iter().position(|gap| gap.id == id) else { return };
        let closed = stream.gaps.remove(at);
        match (outcome, closed.known_end()) {
            (GapOutcome::Backfilled, Some(end)) => stream.answered(end),
            (GapOutcome::Lost(_) | GapOutcome::Absent, _) => stream.give_up(&closed),
            _ => {}
        }
    }
}

/// What others want to know.
impl Continuity {
    /// Returns the number of a stream, if it has one.
    pub(crate) fn stream_id(&self, source: &str, key: &StreamKey) -> Option<u32> {
        let source = self.sources.iter().position(|known| &**known == source)?;
        self.by_key.get(&(source as u16, key.clone())).copied()
    }

    /// Returns the number that the next new stream gets.
    pub(crate) fn next_stream(&self) -> u32 {
        self.streams.next()
    }

    /// Returns a number that no session in the log has.
    pub(crate) fn next_session(&self) -> u32 {
        self.next_session
    }

    /// Returns the sessions that are not over.
    pub(crate) fn open_sessions(&self) -> impl Iterator<Item = u32> {
        self.sessions.keys().copied()
    }

    /// Returns whether anything is known of this session.
    pub(crate) fn has_session(&self, session: u32) -> bool {
        self.sessions.contains_key(&session)
    }
}

/// The journal: between [`begin`](Continuity::begin) and [`commit`](Continuity::commit) nothing is final.
impl Continuity {
    /// Begins to remember what changes.
    pub(crate) fn begin(&mut self) {
        let journal = &mut self.journal;
        journal.round += 1;
        journal.is_open = true;
        journal.saved = 0;
        journal.sessions = None;
        journal.listening = None;
        journal.len_of_sources = self.sources.len();
        journal.retired.clear();
        journal.next_stream = self.streams.next();
        journal.next_session = self.next_session;
        journal.next_gap = self.next_gap;
    }

    /// The entry is in the log: what changed stays.
    pub(crate) fn commit(&mut self) {
        self.journal.is_open = false;
    }

    /// The entry is not in the log: nothing has happened.
    pub(crate) fn roll_back(&mut self) {
        let journal = &mut self.journal;
        journal.is_open = false;
        for stream in self.streams.take_back(journal.next_stream) {
            self.by_key.remove(&(stream.source, stream.key));
        }
        for (id, stream) in journal.retired.drain(..) {
            self.by_key.insert((stream.source, stream.key.clone()), id);
            self.streams.insert(id, *stream);
        }
        for (id, saved) in journal.streams[..journal.saved].iter_mut() {
            if let Some(stream) = self.streams.get_mut(*id) {
                std::mem::swap(stream, saved);
                // A stream keeps its name, so that was not saved.
                std::mem::swap(&mut stream.key, &mut saved.key);
                std::mem::swap(&mut stream.source, &mut saved.source);
            }
        }
        self.sources.truncate(journal.len_of_sources);
        if let Some(sessions) = journal.sessions.take() {
            self.sessions = sessions;
        }
        if let Some(listening) = journal.listening.take() {
            self.listening = listening;
        }
        self.next_session = journal.next_session;
        self.next_gap = journal.next_gap;
        self.index_gaps();
    }

    fn index_gaps(&mut self) {
        let of_stream = |(id, stream): (u32, &Stream)| stream.gaps.iter().map(|gap| (gap.id, id)).collect::<Vec<_>>();
        self.gaps = self.streams.iter().flat_map(of_stream).collect();
    }

    /// Returns a stream that is about to change.
    #[inline]
    fn stream_mut(&mut self, id: u32) -> Option<&mut Stream> {
        let stream = self.streams.get_mut(id)?;
        let journal = &mut self.journal;
        if journal.is_open && stream.touched.0 != journal.round {
            stream.touched.0 = journal.round;
            match journal.streams.get_mut(journal.saved) {
                Some((saved_id, saved)) => {
                    *saved_id = id;
                    saved.copy_from(stream);
                }
                None => journal.streams.push((id, stream.clone())),
            }
            journal.saved += 1;
        }
        Some(stream)
    }

    fn sessions_mut(&mut self) -> &mut BTreeMap<u32, Session> {
        if self.journal.is_open && self.journal.sessions.is_none() {
            self.journal.sessions = Some(self.sessions.clone());
        }
        &mut self.sessions
    }

    fn listening_mut(&mut self) -> &mut BTreeMap<u16, Listening> {
        if self.journal.is_open && self.journal.listening.is_none() {
            self.journal.listening = Some(self.listening.clone());
        }
        &mut self.listening
    }
}
