//! What is asked for, and what an answer means.

use std::sync::Arc;

use super::{Continuity, gap::OpenGap, stream::Stream};
use crate::{
    protocol::{Gap, GapId},
    row::{Numbering, StreamKey, Timestamp},
    rules::{Rule, holds},
    spool::{Control, GapOutcome},
};

/// How far apart two looks at what seems absent have to be.
pub(crate) const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(60);

/// An open gap as it may be asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OpenAsk {
    /// The gap; how often replies were dry is not known here.
    pub(crate) gap: Gap,
    /// Its stream's number.
    pub(crate) stream: u32,
    /// Goes back with the answer.
    pub(crate) number: u64,
    /// Whether a session vouches for the stream.
    pub(crate) is_covered: bool,
    /// Whether the stream was left on purpose.
    pub(crate) has_left: bool,
    /// When an answer showed for the first time that nothing is there.
    pub(crate) empty_seen_at: Option<Timestamp>,
}

impl Continuity {
    /// An answer was complete: what it did not bring does not exist, as far as it can show that.
    pub(crate) fn answered(&self, gap: GapId, ask: u64, at: Timestamp, out: &mut Vec<Control>) {
        let Some((id, stream, open)) = self.gap(gap) else { return };
        if open.ask != ask && holds(Rule::AskNumber) {
            return;
        }
        let closed = |outcome| Control::GapClosed { gap, stream: id, outcome, filled: open.filled, at };
        if stream.numbering() != Numbering::Sequence || !open.has_bounded_holes() {
            return out.push(closed(GapOutcome::Backfilled));
        }
        match open.empty_seen_at {
            None if !holds(Rule::LookTwice) => out.push(closed(GapOutcome::Absent)),
            None => out.push(Control::GapEmpty { gap, stream: id, at }),
            Some(seen) if i128::from(at.0) - i128::from(seen.0) >= LOOK_AGAIN.as_nanos() as i128 => {
                out.push(closed(GapOutcome::Absent));
            }
            Some(_) => {}
        }
    }

    /// Nothing can be done about a gap. As long as the session lasts that confirmed the stream first, nothing was missing.
    pub(crate) fn lost(&self, gap: GapId, why: &str, at: Timestamp, out: &mut Vec<Control>) {
        let Some((id, stream, open)) = self.gap(gap) else { return };
        let is_beginning = open.edges().0.is_none() && stream.first_session.is_some();
        let outcome = if is_beginning { GapOutcome::Live } else { GapOutcome::Lost(why.to_owned()) };
        out.push(Control::GapClosed { gap, stream: id, outcome, filled: open.filled, at });
    }

    /// Names the gaps of a stream in which nothing is missing any more.
    #[inline]
    pub(crate) fn filled(&self, stream: u32, at: Timestamp, out: &mut Vec<Control>) {
        let Some(known) = self.streams.get(stream) else { return };
        for gap in known.gaps.iter().filter(|gap| gap.is_over()) {
            let (gap, outcome, filled) = (gap.id, gap.outcome(), gap.filled);
            out.push(Control::GapClosed { gap, stream, outcome, filled, at });
        }
    }

    /// Returns every open gap of a source, in the order of their names.
    pub(crate) fn open_gaps<'a>(&'a self, source: &str) -> impl Iterator<Item = OpenAsk> + use<'a> {
        let source = self.sources.iter().position(|known| &**known == source);
        self.gaps.keys().filter_map(move |&gap| {
            let (id, stream, open) = self.gap(gap)?;
            (Some(usize::from(stream.source)) == source && !open.is_over()).then(|| ask(id, stream, open))
        })
    }

    /// Returns the streams that were left on purpose and of which nothing is owed any more.
    pub(crate) fn idle_streams(&self) -> impl Iterator<Item = u32> {
        let is_idle = |stream: &Stream| stream.has_left && stream.gaps.is_empty() && !stream.is_covered();
        self.streams.iter().filter(move |(_, stream)| is_idle(stream) && !stream.is_exposed).map(|(id, _)| id)
    }

    /// Returns what a stream's number stands for.
    pub(crate) fn key(&self, stream: u32) -> Option<&StreamKey> {
        self.streams.get(stream).map(|stream| &stream.key)
    }

    /// Returns the sources of which something is missing, or will be: with how many streams no session covers that were not left
    /// on purpose, and how many gaps are open.
    pub(crate) fn sources_owed(&self) -> Vec<(Arc<str>, usize, usize)> {
        let streams = |source: &str| self.uncovered_streams(source).filter(|(_, has_left)| !has_left).count();
        let owed = self.sources.iter().map(|source| (source.clone(), streams(source), self.open_gaps(source).count()));
        owed.filter(|(_, streams, gaps)| streams + gaps > 0).collect()
    }

    /// Returns whether what boards show may have changed since this was asked last.
    pub(crate) fn has_stirred(&mut self) -> bool {
        std::mem::take(&mut self.has_stirred)
    }

    /// Returns whether any gap is open.
    pub(crate) fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// Returns the stream of an open gap and how many rows have filled it.
    pub(crate) fn gap_filled(&self, gap: GapId) -> Option<(u32, u64)> {
        self.gap(gap).map(|(id, _, open)| (id, open.filled))
    }

    /// Returns whether a gap asks for the beginning of a stream whose first session still lasts: nothing is missing yet.
    pub(crate) fn is_baseline(&self, gap: GapId) -> bool {
        self.gap(gap).is_some_and(|(_, stream, open)| open.edges().0.is_none() && stream.first_session.is_some())
    }

    /// Returns the gaps that ask for the beginning of a stream that this session was the first to confirm.
    pub(crate) fn baselines_of(&self, session: u32) -> Vec<GapId> {
        let streams = self.sessions.get(&session).map_or(&[][..], |session| &session.streams);
        let streams = streams.iter().filter_map(|&id| self.streams.get(id));
        let first = streams.filter(|stream| stream.first_session == Some(session));
        first.flat_map(|stream| &stream.gaps).filter(|gap| gap.edges().0.is_none()).map(|gap| gap.id).collect()
    }

    /// Returns the streams of a source that were subscribed to and that no session covers, with whether they were left on
    /// purpose.
    pub(crate) fn uncovered_streams(&self, source: &str) -> impl Iterator<Item = (u32, bool)> {
        let source = self.sources.iter().position(|known| &**known == source);
        let is_of_source = move |stream: &Stream| Some(usize::from(stream.source)) == source;
        let is_it = move |stream: &Stream| is_of_source(stream) && stream.numbering.is_some() && !stream.is_covered();
        self.streams.iter().filter(move |(_, stream)| is_it(stream)).map(|(id, stream)| (id, stream.has_left))
    }

    /// Returns whether a session of this source is up.
    pub(crate) fn is_up(&self, source: &str) -> bool {
        let source = self.sources.iter().position(|known| &**known == source);
        self.sessions.values().any(|session| Some(usize::from(session.source)) == source)
    }

    fn gap(&self, gap: GapId) -> Option<(u32, &Stream, &OpenGap)> {
        let id = *self.gaps.get(&gap)?;
        let stream = self.streams.get(id)?;
        stream.gaps.iter().find(|open| open.id == gap).map(|open| (id, stream, open))
    }
}

fn ask(id: u32, stream: &Stream, open: &OpenGap) -> OpenAsk {
    let (after, before) = open.edges();
    let gap = Gap {
        id: open.id,
        stream: stream.key.clone(),
        numbering: stream.numbering(),
        after,
        before,
        since: after.map_or(open.since, |after| after.ts_event.max(open.since)),
        dry_replies: 0,
    };
    OpenAsk {
        gap,
        stream: id,
        number: open.ask,
        is_covered: stream.is_covered(),
        has_left: stream.has_left,
        empty_seen_at: open.empty_seen_at,
    }
}
