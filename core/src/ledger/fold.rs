//! From the items of the log to what is known of each stream's time. Reads no clock, opens no file.
//!
//! Continuity is folded beside it, by the same code as in intake: who vouches for a stream and what is missing is never
//! decided twice. All times are the venue's: where only our clock says when something was, what it is ahead of the venue's
//! by is taken off, and claimed is rather less than more.

mod beginning;
mod learnt;
mod spans;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use foldhash::fast::FixedState;

use self::spans::{END, lies_in, pieces, touching, union};
use super::timeline::{Known, State, Timeline};
use crate::{
    intake::{Continuity, Span, Standing},
    own,
    protocol::GapId,
    row::{Numbering, Origin, StreamKey, Timestamp},
    spool::{Control, GapOutcome, LeftBy, RowHead},
};

/// What is known of every stream's time.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    continuity: Continuity,
    lines: HashMap<u32, Line, FixedState>,
    /// Lines of streams that were given up; the store has to learn their end.
    gone: Vec<Line>,
    /// Up to when frames came, by session.
    heard: HashMap<u32, Timestamp, FixedState>,
    /// Sessions that tell by themselves up to when they have read all that came: of these a row alone tells nothing, since it
    /// may have waited while the process stood still.
    telling: BTreeSet<u32>,
    /// Sessions of which nothing was heard since the ledger began, or since a part of the log that cannot be read: what they
    /// vouch for is claimed from then on.
    unheard: BTreeSet<u32>,
    /// Streams that nobody listened to at a part of the log that cannot be read, and that no gap asks for.
    unasked: BTreeSet<u32>,
    /// By how much our clock is ahead of that of each source's venue, as far as it was compared since the boot.
    ahead: HashMap<Arc<str>, i64>,
    /// Rows that were thrown away, since the store was told.
    drops: Vec<Drops>,
    /// What sinks never get, since the store was told.
    skips: Vec<Skip>,
    /// Only continuity is restored: the store has the rest already.
    is_quiet: bool,
}

/// One stream, whatever its number in the log.
#[derive(Debug)]
pub(crate) struct Line {
    /// The store's number for it, once it has one.
    pub(crate) row: Option<i64>,
    pub(crate) source: Arc<str>,
    pub(crate) key: StreamKey,
    pub(crate) numbering: Option<Numbering>,
    pub(crate) time: Timeline,
    /// A session that vouches for it.
    pub(crate) session: Option<u32>,
    /// Why nobody subscribes to it, as far as that was said.
    left: Option<Known>,
    /// Whether the store has to learn of it, besides its time.
    pub(crate) is_news: bool,
    /// Rows since the store was told.
    pub(crate) received: u64,
    pub(crate) backfilled: u64,
}

/// A stream as the store has it.
#[derive(Debug)]
pub(crate) struct StoredLine {
    pub(crate) row: i64,
    pub(crate) source: Arc<str>,
    pub(crate) key: StreamKey,
    pub(crate) time: Timeline,
    /// Up to when frames of its session came.
    pub(crate) heard: Option<Timestamp>,
}

/// Rows of one stream that were thrown away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Drops {
    pub(crate) stream: u32,
    /// The sink that did not get them; none where they never came into the spool.
    pub(crate) sink: Option<String>,
    pub(crate) rows: u64,
    pub(crate) at: Timestamp,
}

/// Offsets that a sink never gets, since a person has decided so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skip {
    pub(crate) sink: String,
    pub(crate) offsets: (u64, u64),
    /// Rows by table; nothing where nobody could count them any more.
    pub(crate) rows: BTreeMap<Arc<str>, u64>,
    pub(crate) why: String,
    pub(crate) at: Timestamp,
}

/// Items.
impl Fold {
    /// Takes a row that is in the log.
    #[inline]
    pub(crate) fn row(&mut self, row: &RowHead) {
        // What tells a repeat from another row is of no interest here: what is in the log is no repeat.
        self.continuity.apply_row(row, 0);
        let is_live = row.head.origin == Origin::Live;
        if is_live && !self.telling.contains(&row.session) {
            self.hear(row.session, row.head.ts_recv);
        }
        if self.is_quiet || row.head.origin == Origin::Redrive {
            return;
        }
        let id = row.head.stream;
        let is_claimed = |line: &Line| line.time.last().known.state == State::Received;
        if is_live && !self.lines.get(&id).is_some_and(is_claimed) {
            self.look(id, row.head.ts_event);
        }
        if let Some(line) = self.lines.get_mut(&id) {
            line.received += u64::from(is_live);
            line.backfilled += u64::from(!is_live);
        }
    }

    /// Takes a control item that is in the log.
    pub(crate) fn control(&mut self, control: &Control) {
        match control {
            Control::Boot { .. } => {
                // Our clock may have been set while nobody was there.
                self.ahead.clear();
                let ended = self.continuity.open_sessions().collect();
                self.ended(ended, control);
            }
            Control::Ended { session, .. } => self.ended(vec![*session], control),
            Control::Left { session, streams, by, .. } => {
                let end = self.end_of(*session);
                self.continuity.apply(control);
                for stream in streams {
                    self.lines.get_mut(stream).into_iter().for_each(|line| line.left = Some(left(*by)));
                    self.lapse(*stream, &end);
                }
            }
            Control::Unsubscribed { session, streams, .. } => {
                let end = self.end_of(*session);
                self.continuity.apply(control);
                streams.iter().for_each(|stream| self.lapse(*stream, &end));
            }
            Control::Confirmed { session, source, streams, venue_at, at, .. } => {
                self.continuity.apply(control);
                self.ahead.insert(source.as_str().into(), at.0.saturating_sub(venue_at.0));
                self.hear(*session, *at);
                let named: Vec<u32> = streams.iter().map(|(stream, _)| *stream).collect();
                let all = if named.is_empty() { self.continuity.streams_of(*session).to_vec() } else { named };
                for stream in all {
                    // What was made at that moment, and before, no gap asks for.
                    let from = venue_at.0.saturating_add(i64::from(self.unasked.remove(&stream)));
                    self.look(stream, Timestamp(from));
                }
            }
            Control::Alive { session, at } => {
                self.continuity.apply(control);
                self.telling.insert(*session);
                self.hear(*session, *at);
            }
            Control::GapOpened { gap, stream, .. } => {
                self.continuity.apply(control);
                let missing = self.continuity.missing_in(*stream, *gap);
                self.ask(*stream, &missing);
            }
            Control::GapClosed { gap, stream, outcome, filled, at } => {
                let missing = self.continuity.missing_in(*stream, *gap);
                // Where the entry that opened it cannot be read, what it asked for is said to be lost, or unknown.
                let known = self.continuity.asked_in(*stream, *gap);
                self.continuity.apply(control);
                let closing = Closing { missing, outcome, filled: *filled, at: *at };
                known.iter().for_each(|_| self.closed(*stream, *gap, &closing));
            }
            Control::Retired { stream } => {
                self.continuity.apply(control);
                self.gone.extend(self.lines.remove(stream));
            }
            Control::Dropped { sinks, rows, at, .. } => {
                self.continuity.apply(control);
                self.dropped(sinks, rows, *at);
            }
            Control::ClockStep { step, .. } => {
                self.continuity.apply(control);
                self.ahead.values_mut().for_each(|ahead| *ahead = ahead.saturating_add(*step));
            }
            Control::Skipped { sink, offsets, rows, why, at } if !self.is_quiet => {
                let rows = self.by_table(rows);
                self.skips.push(Skip { sink: sink.clone(), offsets: *offsets, rows, why: why.clone(), at: *at });
            }
            Control::Stream { .. }
            | Control::Skipped { .. }
            | Control::GapEmpty { .. }
            | Control::Baseline { .. }
            | Control::Restart { .. }
            | Control::Malformed { .. }
            | Control::SegmentDropped { .. }
            | Control::Redrive { .. } => self.continuity.apply(control),
        }
    }

    fn by_table(&self, rows: &[(u32, u64)]) -> BTreeMap<Arc<str>, u64> {
        let mut by_table = BTreeMap::new();
        for &(stream, rows) in rows {
            let table = self.continuity.name(stream).map_or_else(|| "".into(), |(_, key)| key.table.clone());
            *by_table.entry(table).or_insert(0) += rows;
        }
        by_table
    }

    /// Offsets that were durable cannot be read: whatever was in them is lost, of all that was vouched for.
    pub(crate) fn unreadable(&mut self) {
        if self.is_quiet {
            return;
        }
        for session in self.continuity.open_sessions().collect::<Vec<_>>() {
            let heard = self.heard.get(&session).copied();
            for stream in self.continuity.streams_of(session) {
                let Some(line) = self.lines.get_mut(stream) else { continue };
                line.time.turn(heard.unwrap_or_else(|| line.time.last().from), Known::because(State::Lost, UNREADABLE));
            }
            self.unheard.insert(session);
        }
        for stream in self.continuity.stream_ids().collect::<Vec<_>>() {
            // The gap that it would have may be what cannot be read.
            let is_away = |standing: &Standing<'_>| standing.covered_by.is_empty() && !standing.has_left;
            let standing = self.continuity.standing(stream).filter(is_away);
            let Some(Standing { owed_since, .. }) = standing.filter(|standing| !standing.is_asked_for) else {
                continue;
            };
            let Some(line) = self.lines.get_mut(&stream) else { continue };
            line.time.turn(owed_since, Known::because(State::Lost, UNREADABLE));
            self.unasked.insert(stream);
        }
    }

    /// Learns what a number stands for, where the item that said so cannot be read.
    pub(crate) fn name(&mut self, stream: u32, source: &str, key: &StreamKey) {
        self.continuity.add_stream(stream, source, key);
    }

    /// Frames of a session came.
    #[inline]
    fn hear(&mut self, session: u32, at: Timestamp) {
        // Before the venue has confirmed anything nobody knows its clock, and nothing is claimed.
        let Some(ahead) = self.continuity.ahead(session) else { return };
        let at = Timestamp(at.0.saturating_sub(ahead));
        self.heard.entry(session).and_modify(|heard| *heard = at.max(*heard)).or_insert(at);
        if !self.unheard.is_empty() && self.unheard.remove(&session) {
            let streams = self.continuity.streams_of(session).to_vec();
            streams.into_iter().for_each(|stream| self.look(stream, at));
        }
    }

    fn ended(&mut self, sessions: Vec<u32>, control: &Control) {
        let of_session = |session: &u32| (self.end_of(*session), self.continuity.streams_of(*session).to_vec());
        let ended: Vec<_> = sessions.iter().map(of_session).collect();
        self.continuity.apply(control);
        for session in sessions {
            self.heard.remove(&session);
            self.unheard.remove(&session);
            self.telling.remove(&session);
        }
        for (end, streams) in ended {
            streams.into_iter().for_each(|stream| self.lapse(stream, &end));
        }
    }

    fn end_of(&self, session: u32) -> End {
        End { heard: self.heard.get(&session).copied(), vouched: self.continuity.vouched(session) }
    }

    /// A session vouches for a stream no longer.
    fn lapse(&mut self, id: u32, end: &End) {
        let Some(standing) = self.continuity.standing(id) else { return };
        let is_numbered = standing.numbering.is_some_and(|numbering| numbering != Numbering::Unnumbered);
        let at = if is_numbered && !standing.has_left { Some(standing.owed_since) } else { end.heard };
        self.look(id, at.unwrap_or(standing.owed_since));
        // What is missing may have been on its way, behind the record that ends a gap: it does not come any more.
        let gaps: Vec<GapId> = self.continuity.gaps_of(id).collect();
        let missing = gaps.into_iter().flat_map(|gap| self.continuity.missing_in(id, gap));
        let missing: Vec<_> = missing.filter(|(_, to)| *to > end.vouched).collect();
        if !missing.is_empty() {
            self.ask(id, &missing);
        }
    }

    /// Says from `at` on how a stream stands.
    fn look(&mut self, id: u32, at: Timestamp) {
        if self.is_quiet {
            return;
        }
        let Some(standing) = self.continuity.standing(id) else { return };
        let Some(mut known) = present(&standing) else { return };
        if known.state == State::NotSubscribed
            && let Some(left) = self.lines.get(&id).and_then(|line| line.left.as_ref())
        {
            known = left.clone();
        }
        let (session, numbering) = (standing.covered_by.first().copied(), standing.numbering);
        if let Some(line) = self.lines.get_mut(&id) {
            line.is_news |= (line.session, line.numbering) != (session, numbering);
            (line.session, line.numbering) = (session, numbering);
            line.time.turn(at, known);
        } else if let Some((source, key)) = self.continuity.name(id)
            && source != own::SOURCE
        {
            let line = Line::new(None, source.into(), key.clone(), Timeline::new(at, known));
            self.add(id, line);
        }
    }

    /// Something may be missing in these times.
    fn ask(&mut self, id: u32, missing: &[Span]) {
        let Some(standing) = self.continuity.standing(id) else { return };
        let heard = self.heard_of(&standing);
        let is_away = standing.covered_by.is_empty() && !standing.has_left;
        let Some(line) = self.lines.get_mut(&id).filter(|_| !self.is_quiet) else { return };
        let last = line.time.last().from;
        for &(from, to) in missing {
            // What lies behind an open end is known to come live, or to be nobody's.
            let end = if to < END { to } else { heard.unwrap_or(last) };
            line.time.paint((from, end), asked);
        }
        if is_away {
            line.time.turn(last, Known::new(State::Open));
        }
    }

    /// Returns up to when frames came of a session that vouches for a stream.
    fn heard_of(&self, standing: &Standing<'_>) -> Option<Timestamp> {
        standing.covered_by.iter().filter_map(|session| self.heard.get(session)).max().copied()
    }

    fn closed(&mut self, id: u32, gap: GapId, closing: &Closing<'_>) {
        let Some(standing) = self.continuity.standing(id) else { return };
        let bad = closing.what_is_missing(standing.numbering);
        let found = if closing.filled > 0 && *closing.outcome != GapOutcome::Live {
            Known::new(State::Backfilled)
        } else {
            Known::new(State::Received)
        };
        let (missing, still_missing) = (union(&closing.missing), union(&self.continuity.missing_beside(id, gap)));
        let ahead = self.continuity.name(id).and_then(|(source, _)| self.ahead.get(source));
        let now = ahead.map(|ahead| Timestamp(closing.at.0.saturating_sub(*ahead)));
        let heard = self.heard_of(&standing);
        let Some(line) = self.lines.get_mut(&id).filter(|_| !self.is_quiet) else { return };
        if bad.as_ref().is_some_and(|known| known.state == State::Lost) {
            // Nobody waits for what may still be on its way. And a venue may number what it does not send, however well all
            // is covered: the numbers before the first that came show that something is missing, and not when it was made.
            let bounded = closing.missing.iter().filter(|(_, to)| *to < END);
            bounded.for_each(|span| _ = line.time.paint(*span, asked));
        }
        let open = line.time.stretches(State::Open);
        for &(from, to) in &open {
            // Where nobody listens, nothing is said of the time that is still to come.
            let known = closing.missing.iter().map(|(_, to)| *to).filter(|to| *to < END).max();
            let to = match now {
                _ if to < END => to,
                // And where nobody knows the venue's time, what is lost is lost until somebody listens.
                None if bad.as_ref().is_some_and(|bad| bad.state == State::Lost) => END,
                now => now.max(known).unwrap_or(from).max(from),
            };
            let (missing, still_missing) = (touching(&missing, (from, to)), touching(&still_missing, (from, to)));
            for piece in pieces((from, to), missing.iter().chain(still_missing)) {
                // A whole state of a book closes all holes before the gap is closed.
                let is_missing = closing.missing.is_empty() || lies_in(piece, missing);
                let missing = bad.as_ref().filter(|_| is_missing);
                // What is lost stays lost, whatever comes of another gap of that time.
                let is_final = missing.is_some_and(|known| known.state != State::Absent);
                if is_final || !lies_in(piece, still_missing) {
                    line.time.paint(piece, |_| Some(missing.unwrap_or(&found).clone()));
                }
            }
        }
        let Some(bad) = bad else { return self.look_now(id, now) };
        for &(from, to) in &closing.missing {
            let is_seen = open.iter().any(|&(first, last)| first < to && from < last);
            if !is_seen {
                // What was missing has no time of its own: records that were on their way when a line was cut.
                let to = if to < END { to } else { heard.unwrap_or_else(|| line.time.last().from) };
                let span = (from, to.max(Timestamp(from.0.saturating_add(1))));
                line.time.paint(span, |known| known.state.is_complete().then(|| bad.clone()));
            }
        }
        self.look_now(id, now);
    }

    /// Says how a stream stands now; where nobody knows the venue's time, how it stood last goes on.
    fn look_now(&mut self, id: u32, now: Option<Timestamp>) {
        if let Some(now) = now {
            self.look(id, now);
        }
    }

    fn dropped(&mut self, sinks: &[String], rows: &[(u32, u64)], at: Timestamp) {
        if self.is_quiet {
            return;
        }
        for &(stream, rows) in rows {
            let drops = |sink: Option<String>| Drops { stream, sink, rows, at };
            if sinks.is_empty() {
                self.drops.push(drops(None));
                self.spilt(stream);
            }
            self.drops.extend(sinks.iter().map(|sink| drops(Some(sink.clone()))));
        }
    }

    /// Rows of a stream were thrown away before they had an offset: those of what the venue does not repeat are lost.
    fn spilt(&mut self, stream: u32) {
        let Some(line) = self.lines.get_mut(&stream) else { return };
        if line.numbering == Some(Numbering::Unnumbered) && line.time.last().known.state == State::Unknown {
            line.time.turn(line.time.last().from, Known::because(State::Lost, SPOOL_FULL));
        }
    }
}

impl Line {
    fn new(row: Option<i64>, source: Arc<str>, key: StreamKey, time: Timeline) -> Self {
        let is_news = row.is_none();
        let last = &time.last().known;
        let left = matches!(last.state, State::NotSubscribed | State::Closed).then(|| last.clone());
        Self { row, source, key, numbering: None, time, session: None, left, is_news, received: 0, backfilled: 0 }
    }
}

/// The end of a session.
struct End {
    /// Up to when frames came.
    heard: Option<Timestamp>,
    /// Up to when all that the venue made has come.
    vouched: Timestamp,
}

/// A gap that is closed.
struct Closing<'a> {
    /// What was missing until then.
    missing: Vec<Span>,
    outcome: &'a GapOutcome,
    filled: u64,
    at: Timestamp,
}

impl Closing<'_> {
    /// Returns what is to be said of what is missing still.
    fn what_is_missing(&self, numbering: Option<Numbering>) -> Option<Known> {
        match self.outcome {
            // Nobody repeats the changes of a book, and of one that was cut nobody can tell whether there were any.
            GapOutcome::Lost(why) if numbering == Some(Numbering::Linked) => Some(Known::because(State::Unknown, why)),
            GapOutcome::Lost(why) => Some(Known::because(State::Lost, why)),
            GapOutcome::Absent => Some(Known::new(State::Absent)),
            GapOutcome::Resynchronised => Some(Known::because(State::Unknown, CHAIN_BROKE)),
            GapOutcome::Live | GapOutcome::Backfilled => None,
        }
    }
}

/// Says why a stream is not subscribed to.
fn left(by: LeftBy) -> Known {
    match by {
        LeftBy::Choice => Known::because(State::NotSubscribed, "the choice has other instruments"),
        LeftBy::Expiry => Known::because(State::NotSubscribed, "expired, or not listed any more"),
        LeftBy::Start => Known::because(State::NotSubscribed, "not chosen any more since a start"),
        LeftBy::Venue => Known::because(State::NotSubscribed, "ended by the venue"),
        LeftBy::Schedule => Known::because(State::Closed, "by the schedule"),
    }
}

fn present(standing: &Standing<'_>) -> Option<Known> {
    if !standing.covered_by.is_empty() {
        return Some(Known::new(State::Received));
    }
    if standing.has_left {
        return Some(Known::new(State::NotSubscribed));
    }
    Some(match standing.numbering? {
        Numbering::Unnumbered => Known::because(State::Unknown, NOT_REPEATED),
        Numbering::Ordered | Numbering::Sequence | Numbering::Linked if standing.has_gap => Known::new(State::Open),
        Numbering::Ordered | Numbering::Sequence | Numbering::Linked => Known::because(State::Unknown, NOBODY),
    })
}

/// What is asked for is open, but for what is decided.
fn asked(known: &Known) -> Option<Known> {
    let is_decided = matches!(known.state, State::Lost | State::Absent | State::NotSubscribed | State::Closed);
    (!is_decided).then(|| Known::new(State::Open))
}

/// Why a stretch is unknown of a stream whose records have no numbers.
pub(super) const NOT_REPEATED: &str = "nobody listened, and the venue does not repeat it";
pub(super) const NOBODY: &str = "nobody listened";
pub(super) const SPOOL_FULL: &str = "the spool was full";
pub(super) const UNREADABLE: &str = "a part of the spool cannot be read any more";
const CHAIN_BROKE: &str = "the chain of changes broke, and a whole state followed";
