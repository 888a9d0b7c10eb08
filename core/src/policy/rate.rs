//! How fast a peer may be asked.

use std::{num::NonZeroU32, time::Duration};

use tokio::time::Instant;

/// A token bucket: so many units a second, so many at once.
///
/// Kept as the moment at which the bucket will be full again, in whole nanoseconds: no float, hence no drift, and never
/// one unit too many.
#[derive(Debug, Clone)]
pub struct RateLimit {
    /// The time in which one unit comes back.
    interval: Duration,
    burst: u32,
    /// `None` as long as nothing was taken.
    full_at: Option<Instant>,
}

impl RateLimit {
    /// Returns a full bucket that gets `units` a second and holds `burst`.
    pub fn per_second(units: NonZeroU32, burst: NonZeroU32) -> Self {
        // Rounded up, because a limit is a limit.
        let nanos = 1_000_000_000_u64.div_ceil(u64::from(units.get()));
        Self::every(Duration::from_nanos(nanos), burst)
    }

    /// Returns a full bucket that gets one unit each `interval` and holds `burst`.
    pub fn every(interval: Duration, burst: NonZeroU32) -> Self {
        Self { interval, burst: burst.get(), full_at: None }
    }

    /// Returns how long to wait before `cost` units may be taken; zero means now.
    pub fn wait(&self, now: Instant, cost: u32) -> Duration {
        let missing = self.full_at.map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now));
        // What never fits waits for a full bucket, or it would wait for ever.
        let room = self.time_of(self.burst).saturating_sub(self.time_of(cost));
        missing.saturating_sub(room)
    }

    /// Takes `cost` units if they may be taken now, and returns whether they were.
    ///
    /// A cost above the burst is taken from a full bucket and paid in full: what comes after it waits the longer.
    #[must_use]
    pub fn take(&mut self, now: Instant, cost: u32) -> bool {
        if !self.wait(now, cost).is_zero() {
            return false;
        }
        let from = self.full_at.map_or(now, |full_at| full_at.max(now));
        self.full_at = Some(from + self.time_of(cost));
        true
    }

    /// Takes over the slower rate and the smaller burst. What was taken is not paid anew.
    pub fn slow_to(&mut self, interval: Duration, burst: NonZeroU32) {
        self.interval = self.interval.max(interval);
        self.burst = self.burst.min(burst.get());
    }

    /// Returns the time in which so many units come back, bounded so that no sum of times can overflow.
    fn time_of(&self, units: u32) -> Duration {
        self.interval.saturating_mul(units).min(LONGEST)
    }
}

const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn gives_the_burst_at_once_and_then_one_unit_per_interval() {
        let start = Instant::now();
        let mut limit = RateLimit::per_second(count(10), count(3));
        assert!((0..3).all(|_| limit.take(start, 1)));
        assert!(!limit.take(start, 1), "the bucket is empty");
        assert_eq!(limit.wait(start, 1), SECOND / 10);
        assert_eq!(limit.wait(start, 3), SECOND * 3 / 10);
        assert!(limit.take(start + SECOND / 10, 1));
        assert!(!limit.take(start + SECOND / 10, 1));
    }

    #[test]
    fn holds_no_more_than_the_burst_after_a_long_rest() {
        let start = Instant::now();
        let mut limit = RateLimit::per_second(count(10), count(3));
        assert!(limit.take(start, 3));
        let later = start + SECOND * 3_600;
        assert!(limit.take(later, 3));
        assert!(!limit.take(later, 1));
    }

    #[test]
    fn a_cost_above_the_burst_goes_out_of_a_full_bucket_and_is_paid_in_full() {
        let start = Instant::now();
        let mut limit = RateLimit::per_second(count(1), count(2));
        assert!(limit.take(start, 5), "never is no answer");
        assert_eq!(limit.wait(start, 1), SECOND * 4);
        assert_eq!(limit.wait(start, 5), SECOND * 5);
    }

    #[test]
    fn a_refused_take_costs_nothing() {
        let start = Instant::now();
        let mut limit = RateLimit::per_second(count(1), count(1));
        assert!(limit.take(start, 1));
        for _ in 0..100 {
            assert!(!limit.take(start, 1));
        }
        assert_eq!(limit.wait(start, 1), SECOND);
    }

    #[test]
    fn of_two_limits_the_slower_rate_and_the_smaller_burst_hold() {
        let start = Instant::now();
        let mut limit = RateLimit::per_second(count(10), count(10));
        limit.slow_to(SECOND, count(20));
        limit.slow_to(SECOND / 100, count(2));
        assert!(limit.take(start, 2));
        assert_eq!(limit.wait(start, 1), SECOND);
    }

    #[test]
    fn units_of_any_size_do_not_overflow() {
        let start = Instant::now();
        let mut limit = RateLimit::every(Duration::MAX, count(u32::MAX));
        assert!(limit.take(start, u32::MAX));
        assert!(!limit.take(start, u32::MAX));
        assert!(limit.wait(start, u32::MAX) <= LONGEST);
    }

    proptest! {
        #[test]
        fn never_allows_more_than_the_rate_times_the_time_plus_the_burst(
            per_second in 1..2_000_u32, burst in 1..50_u32,
            asked in proptest::collection::vec((0..50_000_000_u64, 1..50_u32), 1..300),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut limit = RateLimit::per_second(count(per_second), count(burst));
            let mut taken = Vec::new();
            for (pause, cost) in asked {
                now += Duration::from_nanos(pause);
                let cost = cost.min(burst);
                let wait = limit.wait(now, cost);
                let was_taken = limit.take(now, cost);
                prop_assert_eq!(was_taken, wait.is_zero());
                if was_taken {
                    taken.push((now, u64::from(cost)));
                } else {
                    prop_assert_eq!(limit.wait(now + wait, cost), Duration::ZERO, "the wait is long enough");
                    prop_assert!(!limit.wait(now + wait - Duration::from_nanos(1), cost).is_zero(), "and no longer");
                }
            }
            for (first, (from, _)) in taken.iter().enumerate() {
                let mut sum = 0;
                for (until, cost) in &taken[first..] {
                    sum += cost;
                    let nanos = u128::from(per_second) * (*until - *from).as_nanos();
                    prop_assert!(u128::from(sum - u64::from(burst).min(sum)) * 1_000_000_000 <= nanos);
                }
            }
        }
    }

    fn count(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }
}
