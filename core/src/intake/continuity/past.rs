//! What is remembered of numbers that did not come as they should: those that were given up, and those of numberings
//! that are over.

use serde::{Deserialize, Serialize};

use super::gap::{Hole, NEAR, UNEVEN};
use crate::{protocol::Edge, row::Timestamp};

/// So many ranges of numbers that were given up are remembered, the newest ones.
const MAX_GIVEN_UP: usize = 1_024;

/// Numbers of one numbering that were given up as lost or absent: one that comes after all is no repeat.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GivenUp {
    /// As first and last, growing.
    ranges: Vec<(u64, u64)>,
}

impl GivenUp {
    pub(super) fn contains(&self, n: u64) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&n))
    }

    pub(super) fn add(&mut self, holes: &[Hole]) {
        self.ranges.extend(holes.iter().filter_map(Hole::numbers));
        self.ranges.sort_unstable();
        let surplus = self.ranges.len().saturating_sub(MAX_GIVEN_UP);
        self.ranges.drain(..surplus);
    }

    /// What is asked for anew is not given up.
    pub(super) fn ask_for(&mut self, hole: Hole) {
        if self.ranges.is_empty() {
            return;
        }
        let first = hole.after.map_or(0, |after| after.number().saturating_add(1));
        let last = hole.before.map_or(u64::MAX, |before| before.number().saturating_sub(1));
        let outside = |(from, to): (u64, u64)| {
            let below = (from < first).then(|| (from, to.min(first.saturating_sub(1))));
            let above = (to > last).then(|| (from.max(last.saturating_add(1)), to));
            below.into_iter().chain(above)
        };
        self.ranges = std::mem::take(&mut self.ranges).into_iter().flat_map(outside).collect();
    }

    /// A number is here after all.
    pub(super) fn regain(&mut self, n: u64) {
        let Some(at) = self.ranges.iter().position(|(first, last)| (*first..=*last).contains(&n)) else { return };
        let (first, last) = self.ranges[at];
        let below = (n > first).then(|| (first, n - 1));
        let above = (n < last).then(|| (n + 1, last));
        self.ranges.splice(at..=at, below.into_iter().chain(above));
    }

    /// Makes this a copy of `other` without allocating, as far as it has room.
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.ranges.clone_from(&other.ranges);
    }
}

/// A numbering of a dense stream that is over: between its ends all numbers are here, but for those that were given up
/// and those that an open gap asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Past {
    pub(super) epoch: u32,
    numbers: (u64, u64),
    times: (Timestamp, Timestamp),
    pub(super) given_up: GivenUp,
}

impl Past {
    pub(super) fn new(epoch: u32, floor: Edge, last: Edge, latest: Timestamp, given_up: GivenUp) -> Self {
        let times = (floor.ts_event.min(latest), latest);
        Self { epoch, numbers: (floor.number(), last.number()), times, given_up }
    }

    /// Returns when its first known record was made.
    pub(super) fn begun(&self) -> Timestamp {
        self.times.0
    }

    /// Returns how far, in nanoseconds, a record's time is from those of this numbering; `None` when it is none of its.
    pub(super) fn distance(&self, n: u64, ts_event: Timestamp) -> Option<i64> {
        let distance = distance(self.times, ts_event);
        ((self.numbers.0..=self.numbers.1).contains(&n) && distance <= UNEVEN).then_some(distance)
    }

    /// Returns whether a number is one of these, or follows closely.
    pub(super) fn goes_on(&self, n: u64) -> bool {
        (self.numbers.0..=self.numbers.1.saturating_add(NEAR)).contains(&n)
    }

    /// One of its records came late.
    pub(super) fn take(&mut self, edge: Edge) {
        let Edge { ts_event, .. } = edge;
        let n = edge.number();
        self.numbers = (self.numbers.0.min(n), self.numbers.1.max(n));
        self.times = (self.times.0.min(ts_event), self.times.1.max(ts_event));
        self.given_up.regain(n);
    }
}

/// Returns how far a time is from a span of time, in nanoseconds; 0 inside.
pub(super) fn distance((from, to): (Timestamp, Timestamp), at: Timestamp) -> i64 {
    let before = from.0.saturating_sub(at.0);
    before.max(at.0.saturating_sub(to.0)).max(0)
}
