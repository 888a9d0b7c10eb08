//! How far a partition's stores are behind it, as looks at it tell that come from time to time. Reads no clock.

use std::time::Duration;

use tokio::time::Instant;

use super::window::End;

/// What looks have told of one partition.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The ends that its readers have come to, with all of it stored, and the broker's end when that was seen first.
    done: Option<(Vec<End>, i64)>,
    /// Where the slowest store is, and since when, while nothing comes to it of what the partition has.
    starves: Option<(i64, Instant)>,
}

/// What one look sees. Offsets are Kafka's.
#[derive(Debug)]
pub(super) struct Look<'a> {
    /// Up to where the slowest store is.
    pub(super) at: i64,
    /// The partition's end, by what its broker says.
    pub(super) end: i64,
    /// The ends that the readers have come to; none where a store lacks something of what was read, or a reader goes on.
    pub(super) ends: Option<Vec<End>>,
    /// The same, as it was before the broker was asked.
    pub(super) before: Option<&'a Vec<End>>,
    /// Whether a delivery was told of nothing that its store lacks: what it was told of and does not write is its sink's to tell.
    pub(super) waits: bool,
    /// When it is.
    pub(super) now: Instant,
}

/// How far behind the stores are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lag {
    /// How many messages are not stored.
    pub(super) messages: u64,
    /// Whether two looks have seen the same end, with all of it stored.
    pub(super) is_settled: bool,
}

impl Progress {
    /// Takes a look.
    ///
    /// What ends a transaction has an offset, too, so where all rows are stored nothing is behind. But an end that goes on, and
    /// that no reader comes to, is of what nobody has read.
    pub(super) fn look(&mut self, look: Look<'_>) -> Lag {
        let Look { at, end, ends, before, waits, now } = look;
        let then = self.done.take().filter(|(then, _)| Some(then) == ends.as_ref());
        let is_done = ends.is_some() && then.as_ref().is_none_or(|(_, then)| end <= *then);
        let is_settled = is_done && then.is_some();
        // An end counts against those that the readers had come to when it was asked for.
        let known = ends.filter(|ends| before == Some(ends)).map(|ends| (ends, end));
        self.done = then.or(known);
        let messages = if is_done { 0 } else { (end - at).max(0).unsigned_abs() };
        let since = self.starves.filter(|(then, _)| *then == at).map_or(now, |(_, since)| since);
        self.starves = (messages > 0 && waits).then_some((at, since));
        Lag { messages, is_settled }
    }

    /// Returns up to where the slowest store is, and for how long the partition has had more that does not come, if that is long.
    pub(super) fn starves(&self, now: Instant) -> Option<(i64, Duration)> {
        let (at, since) = self.starves?;
        let long = now.saturating_duration_since(since);
        (long > STARVES).then_some((at, long))
    }
}

/// How long a partition may have more than comes of it before that is said.
const STARVES: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_end_that_goes_on_and_that_no_reader_comes_to_is_a_lag_and_starves() {
        let (mut progress, start) = (Progress::default(), Instant::now());
        assert_eq!(look(&mut progress, 101, Some(1), Some(1), start), stored(false));
        assert_eq!(look(&mut progress, 101, Some(1), Some(1), start + SECOND), stored(true));
        // The client has ceased to fetch, and says nothing.
        let behind = Lag { messages: 51, is_settled: false };
        assert_eq!(look(&mut progress, 151, Some(1), Some(1), start + SECOND * 2), behind);
        assert_eq!(progress.starves(start + SECOND * 30), None);
        assert_eq!(look(&mut progress, 151, Some(1), Some(1), start + SECOND * 30), behind);
        assert_eq!(progress.starves(start + SECOND * 33), Some((100, SECOND * 31)));
        // It has come to another end, which holds no row.
        assert_eq!(look(&mut progress, 151, Some(2), Some(2), start + SECOND * 34), stored(false));
        assert_eq!(progress.starves(start + SECOND * 99), None);
    }

    #[test]
    fn an_end_says_nothing_of_readers_that_have_gone_on_since_it_was_asked_for() {
        let (mut progress, start) = (Progress::default(), Instant::now());
        // While the broker was asked the readers came to an end behind the one that it told.
        assert_eq!(look(&mut progress, 80, Some(2), Some(1), start), stored(false));
        assert_eq!(look(&mut progress, 101, Some(2), Some(2), start + SECOND), stored(false));
        assert_eq!(look(&mut progress, 101, Some(2), Some(2), start + SECOND * 2), stored(true));
    }

    #[test]
    fn what_readers_have_not_come_to_the_end_of_is_behind_and_starves_only_where_no_sink_has_it_in_hand() {
        for waits in [false, true] {
            let (mut progress, start) = (Progress::default(), Instant::now());
            for seconds in [0, 40] {
                let now = start + SECOND * seconds;
                let seen = Look { at: 100, end: 160, ends: None, before: None, waits, now };
                assert_eq!(progress.look(seen), Lag { messages: 60, is_settled: false });
            }
            assert_eq!(progress.starves(start + SECOND * 40).is_some(), waits);
        }
    }

    fn stored(is_settled: bool) -> Lag {
        Lag { messages: 0, is_settled }
    }

    /// A look at a partition with one reader, the store at offset 100.
    fn look(progress: &mut Progress, end: i64, come_to: Option<u64>, before: Option<u64>, now: Instant) -> Lag {
        let ends = |count: u64| vec![End { offset: 100, count }];
        let before = before.map(ends);
        let ends = come_to.map(ends);
        progress.look(Look { at: 100, end, ends, before: before.as_ref(), waits: true, now })
    }
}
