//! How streams stand, for whoever folds the same log and says what it means: the ledger.

use super::{Continuity, gap::OpenGap, stream::Stream};
use crate::{
    protocol::GapId,
    row::{Numbering, Timestamp},
};

/// A range of time, by the venue's clock, without its end.
pub(crate) type Span = (Timestamp, Timestamp);

/// How a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing<'a> {
    /// The sessions that vouch for it.
    pub(crate) covered_by: &'a [u32],
    /// It is not subscribed to any more, on purpose.
    pub(crate) has_left: bool,
    /// Unknown until it is confirmed or a record comes.
    pub(crate) numbering: Option<Numbering>,
    /// From when on records are owed: the first confirmation.
    pub(crate) since: Timestamp,
    /// The time behind the last record from which on something may be missing, should nobody listen.
    pub(crate) owed_since: Timestamp,
    /// Whether a gap of it is open.
    pub(crate) has_gap: bool,
    /// Whether one of these holds all that comes until somebody listens.
    pub(crate) is_asked_for: bool,
}

impl Continuity {
    /// Returns how a stream stands; `None` for a number that stands for nothing.
    pub(crate) fn standing(&self, stream: u32) -> Option<Standing<'_>> {
        let stream = self.streams.get(stream)?;
        Some(Standing {
            covered_by: &stream.covered_by,
            has_left: stream.has_left,
            numbering: stream.numbering,
            since: stream.since,
            owed_since: stream.owed_since(),
            has_gap: stream.gaps.iter().any(|gap| !gap.is_over()),
            is_asked_for: stream.is_open_right(),
        })
    }

    /// Returns the streams that a session vouches for.
    pub(crate) fn streams_of(&self, session: u32) -> &[u32] {
        self.sessions.get(&session).map_or(&[], |session| &session.streams)
    }

    /// Returns up to when all that the venue made has come on a session.
    pub(crate) fn vouched(&self, session: u32) -> Timestamp {
        self.sessions.get(&session).map_or_else(Timestamp::default, |session| session.vouched)
    }

    /// Returns by how much our clock is ahead of the venue's, at the most; `None` where the venue has confirmed nothing.
    pub(crate) fn ahead(&self, session: u32) -> Option<i64> {
        self.sessions.get(&session)?.ahead
    }

    /// Returns the numbers of all streams.
    pub(crate) fn stream_ids(&self) -> impl Iterator<Item = u32> {
        self.streams.iter().map(|(id, _)| id)
    }

    /// Returns a stream's source and key.
    pub(crate) fn name(&self, stream: u32) -> Option<(&str, &crate::row::StreamKey)> {
        let stream = self.streams.get(stream)?;
        Some((self.sources.get(usize::from(stream.source))?, &stream.key))
    }

    /// Returns the times in which records are missing that an open gap asks for: of an open right end until the end of all.
    pub(crate) fn missing_in(&self, stream: u32, gap: GapId) -> Vec<Span> {
        let Some(stream) = self.streams.get(stream) else { return Vec::new() };
        stream.gaps.iter().filter(|open| open.id == gap).flat_map(spans).collect()
    }

    /// Returns the same of all other open gaps of the stream.
    pub(crate) fn missing_beside(&self, stream: u32, gap: GapId) -> Vec<Span> {
        let gaps = self.streams.get(stream).map_or(&[][..], |stream: &Stream| &stream.gaps);
        gaps.iter().filter(|open| open.id != gap).flat_map(spans).collect()
    }

    /// Returns the time that an open gap has asked for from its beginning on, however much of it has come since; `None` for a
    /// gap that is not known.
    pub(crate) fn asked_in(&self, stream: u32, gap: GapId) -> Option<Span> {
        let open = self.streams.get(stream)?.gaps.iter().find(|open| open.id == gap)?;
        let spans = spans(open);
        let from = spans.iter().map(|(from, _)| *from).min().unwrap_or(open.since);
        let to = spans.iter().map(|(_, to)| *to).max().unwrap_or(open.since);
        Some((from.min(open.since), to))
    }

    /// Returns whether a number is missing in an open gap.
    #[cfg(test)]
    pub(crate) fn lacks(&self, gap: GapId, epoch: u32, n: u64) -> bool {
        let stream = self.gaps.get(&gap).and_then(|stream| self.streams.get(*stream));
        let gaps = stream.map_or(&[][..], |stream: &Stream| &stream.gaps);
        gaps.iter().any(|open| open.id == gap && open.epoch == epoch && open.hole_of(n).is_some())
    }

    /// Returns how often a stream was numbered anew, once a record of that numbering is known.
    #[cfg(test)]
    pub(crate) fn epoch_of(&self, stream: u32) -> Option<u32> {
        self.streams.get(stream).filter(|stream| stream.last.is_some()).map(|stream| stream.epoch)
    }

    /// Returns the open gaps of a stream.
    pub(crate) fn gaps_of(&self, stream: u32) -> impl Iterator<Item = GapId> {
        let gaps = self.streams.get(stream).map_or(&[][..], |stream: &Stream| &stream.gaps);
        gaps.iter().map(|gap| gap.id)
    }
}

fn spans(gap: &OpenGap) -> Vec<Span> {
    let span = |hole: &super::Hole| {
        let from = hole.after.map_or(gap.since, |after| after.ts_event.max(gap.since));
        let to = hole.before.map_or(Timestamp(i64::MAX), |before| before.ts_event);
        // Times need not grow with the numbers.
        if from < to { (from, to) } else { (to, Timestamp(from.0.saturating_add(1))) }
    };
    gap.holes.iter().map(span).collect()
}
