//! How long to wait before trying again.

use std::time::Duration;

use super::Random;

/// Doubles the pause with every failure and draws the real one from zero to it (full jitter).
///
/// Full jitter because many sources of one host lose the same venue at the same moment: whoever waits exactly 1, 2, 4 s
/// comes back together with all others.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    stable_after: Duration,
    attempt: u32,
    random: Random,
}

impl Backoff {
    /// Returns a backoff whose pauses grow from at most `first` to at most `longest`, without a last attempt.
    pub fn new(first: Duration, longest: Duration) -> Self {
        let random = Random::new(0);
        Self { first, longest, stable_after: longest, attempt: 0, random }
    }

    /// Sets what the jitter is drawn from. Callers that run side by side need different seeds.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.random = Random::new(seed);
        self
    }

    /// Sets how long success must last before it counts as such; without it, as long as the longest pause.
    #[must_use]
    pub fn stable_after(mut self, period: Duration) -> Self {
        self.stable_after = period;
        self
    }

    /// Counts a failure and returns how long to wait before the next attempt.
    ///
    /// A pause that the peer asked for comes on top: nobody returns before it, nor everybody at its end. Of more than a
    /// day a day is believed.
    pub fn failed(&mut self, retry_after: Option<Duration>) -> Duration {
        let failures_before = self.attempt;
        self.attempt = self.attempt.saturating_add(1);
        let jitter = Duration::from_nanos(self.random.up_to(self.cap(failures_before)));
        retry_after.map_or(jitter, |asked| asked.min(LONGEST_ASKED).saturating_add(jitter))
    }

    /// Forgets the failures if success has lasted for the stable period, and returns whether it has.
    ///
    /// A peer that accepts and hangs up at once is not well: without the period it would be called without a pause.
    pub fn succeeded_for(&mut self, lasted: Duration) -> bool {
        let is_stable = lasted >= self.stable_after;
        if is_stable {
            self.attempt = 0;
        }
        is_stable
    }

    /// Forgets the failures at once, for work whose success is final, like a commit.
    pub fn succeeded(&mut self) {
        self.attempt = 0;
    }

    /// Returns the number of failures since the last success: after the first one, 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns the longest pause after so many earlier failures, in nanoseconds.
    fn cap(&self, failures_before: u32) -> u64 {
        let doubled = u128::from(nanos(self.first)) << failures_before.min(63);
        let longest = nanos(self.longest);
        u64::try_from(doubled).map_or(longest, |doubled| doubled.min(longest))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A peer may not send us away for ever by one bad header.
const LONGEST_ASKED: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60);

    #[test]
    fn doubles_the_bound_up_to_the_longest_and_stays_there() {
        let caps: Vec<u64> = (0..8).map(|failures| backoff(0).cap(failures) / 1_000_000_000).collect();
        assert_eq!(caps, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn draws_from_the_whole_range_and_not_near_its_end_only() {
        let first_pauses: Vec<Duration> = (0..1_000).map(|seed| backoff(seed).failed(None)).collect();
        let below_half = first_pauses.iter().filter(|pause| **pause < FIRST / 2).count();
        assert!((400..600).contains(&below_half), "{below_half} of 1,000 below half");
        assert!(first_pauses.iter().any(|pause| *pause < FIRST / 20), "nobody near zero");
        assert!(first_pauses.iter().any(|pause| *pause > FIRST * 19 / 20), "nobody near the bound");
    }

    #[test]
    fn two_seeds_differ_and_one_seed_repeats() {
        assert_eq!(pauses(7), pauses(7));
        assert_ne!(pauses(7), pauses(8));
    }

    #[test]
    fn never_returns_before_the_peer_asked_for_it() {
        let asked = Duration::from_secs(90);
        for seed in 0..100 {
            let pause = backoff(seed).failed(Some(asked));
            assert!(pause >= asked && pause <= asked + FIRST, "{pause:?}");
        }
        let absurd = backoff(0).failed(Some(Duration::MAX));
        assert!(absurd <= LONGEST_ASKED + FIRST, "{absurd:?}");
    }

    #[test]
    fn a_short_success_does_not_reset_and_a_stable_one_does() {
        let mut backoff = backoff(1).stable_after(Duration::from_secs(30));
        backoff.failed(None);
        backoff.failed(None);
        assert!(!backoff.succeeded_for(Duration::from_secs(29)));
        assert_eq!(backoff.attempt(), 2, "29 s are not stable");

        assert!(backoff.succeeded_for(Duration::from_secs(30)));
        assert_eq!(backoff.attempt(), 0);
        assert!(backoff.failed(None) <= FIRST, "begins anew");
    }

    #[test]
    fn goes_on_at_attempt_one_million() {
        let mut backoff = backoff(1);
        for _ in 0..1_000_000 {
            let pause = backoff.failed(None);
            assert!(pause <= LONGEST);
        }
        assert_eq!(backoff.attempt(), 1_000_000);
    }

    proptest! {
        #[test]
        fn stays_within_its_bounds(
            first in 0..u64::MAX, longest in 0..u64::MAX, seed: u64, asked in proptest::option::of(0..100_000_u64),
        ) {
            let (first, longest) = (Duration::from_nanos(first), Duration::from_nanos(longest));
            let asked = asked.map(Duration::from_secs);
            let lower = asked.unwrap_or_default().min(LONGEST_ASKED);
            let mut backoff = Backoff::new(first, longest).seeded(seed);
            for failures in 0..80_u32 {
                let pause = backoff.failed(asked);
                let doubled = first.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX));
                prop_assert!(pause >= lower);
                prop_assert!(pause <= lower.saturating_add(longest));
                prop_assert!(failures > 31 || pause <= lower.saturating_add(doubled));
            }
        }
    }

    fn backoff(seed: u64) -> Backoff {
        Backoff::new(FIRST, LONGEST).seeded(seed)
    }

    fn pauses(seed: u64) -> Vec<Duration> {
        let mut backoff = backoff(seed);
        (0..10).map(|_| backoff.failed(None)).collect()
    }
}
