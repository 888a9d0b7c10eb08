//! What an event on a link means, besides the records: control items for the log.

use std::sync::Arc;

use super::{Continuity, Hole, MAX_HOLES, stream::Stream};
use crate::{
    protocol::GapId,
    row::{Numbering, Timestamp},
    rules::{Rule, holds},
    spool::{Control, GapOutcome, LeftBy},
};

/// A confirmation, with the streams' own numbers.
#[derive(Debug)]
pub(crate) struct Confirmation {
    pub(crate) session: u32,
    pub(crate) source: Arc<str>,
    pub(crate) line: u16,
    pub(crate) streams: Vec<(u32, Numbering)>,
    pub(crate) venue_at: Timestamp,
}

impl Continuity {
    /// Streams are vouched for from here on: each that nobody vouched for until now gets a gap that is open at the right,
    /// unless it has one. Of a stream that was never seen it is the baseline.
    pub(crate) fn confirmed(&self, confirmation: Confirmation, at: Timestamp, out: &mut Vec<Control>) {
        let Confirmation { session, source, line, streams, venue_at } = confirmation;
        let mut uncovered: Vec<_> = streams.iter().map(|&(id, numbering)| (id, Some(numbering))).collect();
        if streams.is_empty()
            && let Some(source) = self.sources.iter().position(|known| *known == source)
        {
            uncovered.extend(self.implied_streams(source as u16).into_iter().map(|id| (id, None)));
        }
        uncovered.sort_unstable_by_key(|&(id, _)| id);
        uncovered.dedup_by_key(|&mut (id, _)| id);
        let source = source.to_string();
        out.push(Control::Confirmed { session, source, line, streams, venue_at, at });
        let mut next = self.next_gap;
        for (id, numbering) in uncovered {
            let Some(stream) = self.streams.get(id) else { continue };
            let numbering = stream.numbering.or(numbering).unwrap_or_default();
            let is_numbered = matches!(numbering, Numbering::Sequence | Numbering::Ordered);
            if is_numbered && !stream.is_covered() && !stream.is_open_right() {
                make_place(id, stream, at, out);
                let since = if stream.numbering.is_none() { venue_at } else { stream.owed_since() };
                out.push(open_right(&mut next, id, stream, since, at));
            }
        }
    }

    /// A session is over: what it vouched for is open at the right.
    pub(crate) fn ended(&self, session: u32, why: &str, at: Timestamp, out: &mut Vec<Control>) {
        out.push(Control::Ended { session, why: why.to_owned(), at });
        let streams = self.sessions.get(&session).map_or(&[][..], |session| &session.streams);
        self.open_behind(session, streams, at, out);
    }

    /// Streams are no longer subscribed to. What came before that is still owed; a book begins anew when it comes back.
    pub(crate) fn left(&self, session: u32, (streams, by): (Vec<u32>, LeftBy), at: Timestamp, out: &mut Vec<Control>) {
        let repeatable = |id: &u32| self.streams.get(*id).is_some_and(|stream| stream.numbering() != Numbering::Linked);
        let mut repeatable: Vec<u32> = streams.iter().copied().filter(repeatable).collect();
        repeatable.sort_unstable();
        repeatable.dedup();
        out.push(Control::Left { session, streams, by, at });
        self.open_behind(session, &repeatable, at, out);
    }

    /// Streams of a source have gone while nobody listened: from here on nobody subscribes to them.
    pub(crate) fn gone(&self, source: &str, streams: Vec<u32>, at: Timestamp, out: &mut Vec<Control>) {
        let source = self.sources.iter().position(|known| &**known == source);
        let of_source = |session: &super::Session| Some(usize::from(session.source)) == source;
        if let Some((session, _)) = self.sessions.iter().find(|(_, session)| of_source(session)) {
            self.left(*session, (streams, LeftBy::Start), at, out);
        }
    }

    /// Opens what a session leaves behind, from where it vouches for it no longer. Also where another one covers the stream:
    /// that may have begun after records were made that were still on the way here. Its next record closes the gap.
    fn open_behind(&self, session: u32, streams: &[u32], at: Timestamp, out: &mut Vec<Control>) {
        let vouched = self.sessions.get(&session).map_or_else(Timestamp::default, |session| session.vouched);
        let mut next = self.next_gap;
        for &id in streams {
            let Some(stream) = self.streams.get(id) else { continue };
            let is_numbered = stream.numbering() != Numbering::Unnumbered;
            let is_alone = stream.covered_by == [session];
            let was_covered = is_alone || holds(Rule::EachLine) && stream.covered_by.contains(&session);
            if is_numbered && was_covered && !stream.is_open_right() {
                make_place(id, stream, at, out);
                out.push(open_right(&mut next, id, stream, stream.owed_since().max(vouched), at));
            }
        }
    }

    /// Names the gaps that begin where the last boot ended, once the boot itself is in the log.
    pub(crate) fn booted(&self, at: Timestamp, out: &mut Vec<Control>) {
        let mut next = self.next_gap;
        for (id, stream) in self.streams.iter() {
            if stream.is_exposed {
                make_place(id, stream, at, out);
                out.push(open_right(&mut next, id, stream, stream.owed_since(), at));
            }
        }
    }

    /// The venue numbers a stream anew.
    pub(crate) fn restarted(&self, stream: u32, out: &mut Vec<Control>) {
        if let Some(known) = self.streams.get(stream) {
            out.push(Control::Restart { stream, epoch: known.epoch + 1 });
        }
    }
}

/// Gives up the oldest gap of a stream that has too many: while its history is down, each new session leaves one.
fn make_place(id: u32, stream: &Stream, at: Timestamp, out: &mut Vec<Control>) {
    if stream.holes() >= MAX_HOLES
        && let Some(oldest) = stream.gaps.first()
    {
        let outcome = GapOutcome::Lost(format!("more than {MAX_HOLES} holes in one stream"));
        out.push(Control::GapClosed { gap: oldest.id, stream: id, outcome, filled: oldest.filled, at });
    }
}

fn open_right(next: &mut u64, id: u32, stream: &Stream, since: Timestamp, at: Timestamp) -> Control {
    let gap = GapId(*next);
    *next += 1;
    let Hole { after, before } = Hole { after: stream.last, before: None };
    Control::GapOpened { gap, stream: id, after, before, since, at }
}
