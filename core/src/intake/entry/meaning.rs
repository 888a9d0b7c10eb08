//! What a record or an event of a link means: it is judged, and what was decided is put into the entry.

use super::{Intake, Known, MAX_ROW, Now, Rows};
use crate::{
    deadletter::Redrive,
    intake::{
        continuity::{Confirmation, Drop, Verdict, row_hash},
        link::{LinkId, Step},
        neighbour::Neighbours,
    },
    protocol::{Covered, GapId},
    row::{Head, Origin, StreamKey, Timestamp},
    rules::{Rule, holds},
    spool::{Control, RowHead},
};

/// Symbol and listing of a stream are not longer than this together: they are written again in the head of every segment.
const MAX_NAME: usize = 1 << 10;

/// So much is kept of a frame that cannot be read.
const MAX_RAW: usize = 64 << 10;

/// So much is kept of words that somebody else may have written.
const MAX_WORDS: usize = 1 << 10;

impl Intake {
    #[inline]
    pub(super) fn record(
        &mut self,
        link: LinkId,
        head: Head,
        bytes: &[u8],
        neighbours: &Neighbours,
        (now, rows): (Now, Rows),
    ) {
        let is_recorded = self.recorded[usize::from(link.source)].is_some();
        let now = if is_recorded { Now { wall: head.ts_recv, ..now } } else { now };
        let known = match self.link.streams.get(head.stream as usize) {
            Some(Known::As(stream)) => Some(*stream),
            Some(Known::Retired(key)) => {
                let key = key.clone();
                self.stream(link, &key, now)
            }
            Some(Known::TooLong) | None => None,
        };
        let Some(stream) = known else {
            return self.unkeepable(link, bytes, "a row of a stream whose name is too long".to_owned(), now);
        };
        if rows == Rows::Leave || self.link.is_shut {
            *self.left_out.entry(stream).or_default() += 1;
            self.counts.left_out += 1;
            return self.shut(now);
        }
        if bytes.len() > MAX_ROW {
            if !self.link.torn.contains(&stream) {
                self.link.torn.push(stream);
            }
            let error = format!("a row of {} bytes is longer than the spool can hold ({MAX_ROW})", bytes.len());
            return self.unkeepable(link, bytes, error, now);
        }
        let session = match self.link.session {
            Some(session) => session,
            None => self.open(),
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
                if !self.idle.is_empty() {
                    self.idle.remove(&stream);
                }
                self.counts.rows += 1;
                self.counts.conflicted += u64::from(conflict);
                self.counts.backfilled += u64::from(head.origin == Origin::Backfill);
            }
            Verdict::Drop(why) => {
                self.decide();
                if !holds(Rule::DropRepeats) && why == Drop::Repeat {
                    self.items.push_row(&row, bytes);
                }
                self.counts.repeated += u64::from(why != Drop::NotOwed);
            }
        }
        self.continuity.filled(stream, now.wall, &mut self.decisions);
        self.decide();
    }

    /// Keeps what can be kept of a row that no entry can hold; all else goes on.
    fn unkeepable(&mut self, link: LinkId, bytes: &[u8], error: String, now: Now) {
        self.counts.malformed += 1;
        self.malformed(link, bytes, &error, now);
        self.decide();
    }

    fn malformed(&mut self, link: LinkId, raw: &[u8], error: &str, now: Now) {
        let raw = raw[..raw.len().min(MAX_RAW)].to_vec();
        let source = self.sources[usize::from(link.source)].to_string();
        let (session, error) = (self.link.session.unwrap_or_default(), words(error));
        self.decisions.push(Control::Malformed { source, session, raw, error, at: now.wall });
    }

    /// The venue vouches for streams. Those whose names are too long are said, and nobody vouches for them.
    pub(super) fn confirm(&mut self, link: LinkId, streams: &[Covered], venue_at: Timestamp, now: Now) {
        if self.link.is_shut {
            return;
        }
        let session = self.link.session.unwrap_or_else(|| self.open());
        let named = streams.iter().filter_map(|one| Some((self.stream(link, &one.key, now)?, one.numbering)));
        let named: Vec<_> = named.collect();
        // Without any it would be a channel that carries whatever trades.
        if named.is_empty() && !streams.is_empty() {
            return;
        }
        let source = self.sources[usize::from(link.source)].clone();
        let confirmation = Confirmation { session, source, line: link.line, streams: named, venue_at };
        self.continuity.confirmed(confirmation, now.wall, &mut self.decisions);
        self.decide();
    }

    pub(super) fn step(&mut self, link: LinkId, step: &Step, now: Now, rows: Rows) {
        let at = now.wall;
        let session = self.link.session;
        let source = self.sources[usize::from(link.source)].clone();
        match step {
            Step::Recorded { at } => self.recorded[usize::from(link.source)] = Some(*at),
            Step::Opened => {
                self.link.is_shut = false;
                self.open();
            }
            Step::Left { streams, by } => {
                let ids = streams.iter().filter_map(|key| self.continuity.stream_id(&source, key)).collect();
                if let Some(session) = session {
                    self.continuity.left(session, (ids, *by), at, &mut self.decisions);
                }
            }
            Step::Alive { at } => {
                self.decisions.extend(session.map(|session| Control::Alive { session, at: *at }));
            }
            Step::Ended { why } => self.end(why, now),
            Step::Restart(key) => {
                if let Some(stream) = self.continuity.stream_id(&source, key) {
                    self.continuity.restarted(stream, &mut self.decisions);
                }
            }
            Step::Malformed { raw, error } => self.malformed(link, raw, error, now),
            // Whoever asked for it tries it again later.
            Step::Redrive(_) if rows == Rows::Leave => self.counts.refused = true,
            Step::Redrive(redrive) => self.redrive(link, redrive, now),
            // An answer whose rows were left out is none.
            Step::Answered { gap, ask }
                if rows == Rows::Keep && !self.link.is_shut || !holds(Rule::LeftOutIsNoAnswer) =>
            {
                self.answered(*gap, *ask, now);
            }
            Step::Lost { gap, why } => self.continuity.lost(*gap, &words(why), at, &mut self.decisions),
            // A confirmation is taken in parts, by the caller.
            Step::Answered { .. } | Step::Asked { .. } | Step::Confirmed { .. } => {}
        }
        self.decide();
    }

    /// A dead letter goes to its sink again. Continuity has no part in it: its row has come before.
    fn redrive(&mut self, link: LinkId, redrive: &Redrive, now: Now) {
        let Redrive { sink, letter, stream, head, row } = redrive;
        let Some(stream) = self.stream(link, stream, now) else { return };
        self.idle.remove(&stream);
        let head = RowHead { head: Head { stream, ..head.head }, ..*head };
        self.put(Control::Redrive { sink: sink.clone(), cause: *letter, head, row: row.clone() });
    }

    /// An answer is complete: closes its gap, unless a row of it could not be kept.
    fn answered(&mut self, gap: GapId, ask: u64, now: Now) {
        let stream = self.continuity.gap_filled(gap).map(|(stream, _)| stream);
        let torn = self.link.torn.iter().position(|torn| Some(*torn) == stream);
        match torn {
            Some(torn) => {
                self.link.torn.swap_remove(torn);
                self.continuity.lost(gap, TOO_LONG, now.wall, &mut self.decisions);
            }
            None => self.continuity.answered(gap, ask, now.wall, &mut self.decisions),
        }
    }

    /// Begins a session on the link.
    fn open(&mut self) -> u32 {
        let session = self.next_session;
        self.next_session += 1;
        self.link.session = Some(session);
        session
    }

    /// Ends the link's session: from here on nobody knows what the venue sends.
    fn end(&mut self, why: &str, now: Now) {
        let session = self.link.session.take();
        if let Some(session) = session.filter(|session| self.continuity.has_session(*session)) {
            // What was only asked for is missing now, until it is answered.
            self.counts.opened.extend(self.continuity.baselines_of(session));
            self.continuity.ended(session, &words(why), now.wall, &mut self.decisions);
            self.decide();
        }
    }

    /// Ends the link's session because there is no room, and says so to the link.
    fn shut(&mut self, now: Now) {
        if !self.link.is_shut && holds(Rule::FullEndsSession) {
            self.link.is_shut = true;
            self.counts.refused = true;
            self.end("the spool is full", now);
        }
    }

    /// Returns the pipeline's number of a stream, a new one if it has none; `None` when its name is too long.
    pub(super) fn stream(&mut self, link: LinkId, key: &StreamKey, now: Now) -> Option<u32> {
        let source = self.sources[usize::from(link.source)].clone();
        if let Some(id) = self.continuity.stream_id(&source, key) {
            return Some(id);
        }
        let len = key.symbol.len() + key.listing.len();
        if len > MAX_NAME {
            let error = format!("the name of an instrument has {len} bytes, more than {MAX_NAME}");
            self.unkeepable(link, key.symbol.as_bytes(), error, now);
            return None;
        }
        let id = self.continuity.next_stream();
        self.put(Control::Stream { id, source: source.to_string(), key: key.clone() });
        Some(id)
    }
}

/// Why a gap stays open although the venue has answered.
const TOO_LONG: &str = "a row of it is longer than the spool can hold";

/// Cuts words that somebody else may have written to a limit.
fn words(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_WORDS)].to_owned()
}
