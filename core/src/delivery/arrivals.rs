//! When rows could be read first: from there on they wait for the store.

use std::collections::VecDeque;

use tokio::time::Instant;

/// Offsets with the time at which they could be read first; the oldest that the store has not taken is in front.
#[derive(Debug, Default)]
pub(super) struct Arrivals(VecDeque<(u64, Instant)>);

impl Arrivals {
    /// Notes that rows up to `offset` can be read now.
    pub(super) fn came(&mut self, now: Instant, offset: u64) {
        let is_full = self.0.len() >= MOST;
        match self.0.back_mut().filter(|_| is_full) {
            // Bounded: the newest rows are taken to be as old as those before them.
            Some((newest, _)) => *newest = offset,
            None => self.0.push_back((offset, now)),
        }
    }

    /// Forgets when the rows up to here came, and returns when the oldest did.
    pub(super) fn taken(&mut self, to: u64) -> Option<Instant> {
        let since = self.oldest().filter(|_| self.0.front().is_some_and(|&(offset, _)| offset <= to));
        while self.0.front().is_some_and(|&(offset, _)| offset <= to) {
            self.0.pop_front();
        }
        since
    }

    /// Notes that rows up to `offset` are given again: they wait since they came.
    pub(super) fn came_back(&mut self, since: Instant, offset: u64) {
        self.0.push_front((offset, since));
    }

    /// Returns when the oldest rows came that the store has not taken.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.0.front().map(|&(_, at)| at)
    }
}

/// How many arrivals are told apart.
const MOST: usize = 256;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rows_wait_since_they_came_however_many_there_are() {
        let start = Instant::now();
        let at = |n: u64| start + Duration::from_secs(n);
        let mut arrivals = Arrivals::default();
        (1..=1_000).for_each(|n| arrivals.came(at(n), n));
        assert_eq!(arrivals.oldest(), Some(at(1)));
        assert_eq!(arrivals.taken(0), None, "nothing was taken");
        assert_eq!(arrivals.taken(10), Some(at(1)));
        assert_eq!(arrivals.oldest(), Some(at(11)));
        arrivals.came_back(at(5), 10);
        assert_eq!(arrivals.taken(255), Some(at(5)), "given again");
        assert_eq!(arrivals.oldest(), Some(at(256)), "the newest are no younger than that");
        assert_eq!(arrivals.taken(999), None);
        assert_eq!(arrivals.taken(1_000), Some(at(256)));
        assert_eq!(arrivals.oldest(), None);
    }
}
