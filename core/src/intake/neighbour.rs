//! The neighbours of what is owed: looked for in a whole reply before its first row is judged.

use super::continuity::Continuity;
use crate::row::{Origin, Position, Timestamp};

/// For streams whose gap asks for all records from some time on: the newest older record in one handover.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    streams: Vec<Candidate>,
}

#[derive(Debug)]
struct Candidate {
    stream: u32,
    /// The smallest number that is owed.
    owed: Option<u64>,
    /// Numbers of older records.
    older: Vec<u64>,
}

impl Neighbours {
    /// Looks through the records of a handover.
    pub(crate) fn of(
        continuity: &Continuity,
        records: impl Iterator<Item = (u32, Position, Timestamp, Origin)>,
    ) -> Self {
        let mut found = Self::default();
        for (stream, position, ts_event, origin) in records {
            let (Origin::Backfill, Some(n)) = (origin, position.number()) else { continue };
            let Some(is_owed) = continuity.owed(stream, n, ts_event) else { continue };
            let candidate = found.candidate(stream);
            if is_owed {
                candidate.owed = Some(candidate.owed.map_or(n, |owed| owed.min(n)));
            } else {
                candidate.older.push(n);
            }
        }
        found
    }

    fn candidate(&mut self, stream: u32) -> &mut Candidate {
        // A reply is mostly about one stream, or about few one after the other.
        let at = self.streams.iter().rposition(|candidate| candidate.stream == stream);
        let at = at.unwrap_or_else(|| {
            self.streams.push(Candidate { stream, owed: None, older: Vec::new() });
            self.streams.len() - 1
        });
        &mut self.streams[at]
    }

    /// Returns the number of a stream's neighbour.
    pub(crate) fn of_stream(&self, stream: u32) -> Option<u64> {
        let candidate = self.streams.iter().find(|candidate| candidate.stream == stream)?;
        candidate.older.iter().copied().filter(|&n| candidate.owed.is_none_or(|owed| n < owed)).max()
    }
}
