//! When to dial: the pauses between attempts, and the breaker outside of them.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    config::ConnectionConfig,
    policy::{Backoff, Breaker, BreakerSnapshot, BreakerState},
};

/// Decides when the next attempt to connect may begin. Reads no clock.
#[derive(Debug)]
pub(super) struct Reconnect {
    backoff: Backoff,
    breaker: Breaker,
    start_every: Duration,
    last_dial: Option<Instant>,
    not_before: Option<Instant>,
    /// The breaker waits to hear how the attempt went.
    is_out: bool,
}

impl Reconnect {
    /// Returns the pauses of one connection; `seed` tells apart those that run side by side.
    pub(super) fn new(config: &ConnectionConfig, seed: u64) -> Self {
        let reconnect = &config.reconnect;
        let backoff = Backoff::new(reconnect.first.0, reconnect.longest.0).stable_after(reconnect.stable_after.0);
        let mut backoff = backoff.seeded(seed);
        if let Some(attempts) = reconnect.max_attempts {
            backoff = backoff.max_attempts(attempts);
        }
        let breaker = &config.breaker;
        Self {
            backoff,
            breaker: Breaker::new(breaker.failures, breaker.open_for.0, breaker.successes),
            start_every: config.start_every.0,
            last_dial: None,
            not_before: None,
            is_out: false,
        }
    }

    /// Returns when the next attempt may begin.
    pub(super) fn at(&self, now: Instant) -> Instant {
        let staggered = self.last_dial.map_or(now, |last| last + self.start_every);
        let after_pause = self.not_before.unwrap_or(now);
        (now + self.breaker.wait(now)).max(staggered).max(after_pause)
    }

    /// Begins an attempt if it may begin now.
    pub(super) fn dial(&mut self, now: Instant) -> bool {
        if self.at(now) > now || !self.breaker.allow(now) {
            return false;
        }
        self.last_dial = Some(now);
        self.is_out = true;
        true
    }

    /// Notes that the venue greeted us: the attempt has succeeded.
    pub(super) fn greeted(&mut self) {
        if std::mem::take(&mut self.is_out) {
            self.breaker.succeeded();
        }
    }

    /// Notes that a connection has held for the stable period: no more successes are asked for.
    pub(super) fn is_stable(&mut self, lasted: Duration, now: Instant) -> bool {
        let is_stable = self.backoff.succeeded_for(lasted);
        while is_stable && !self.is_out && self.breaker.state() != BreakerState::Closed && self.breaker.allow(now) {
            self.breaker.succeeded();
        }
        is_stable
    }

    /// Notes that an attempt failed or a connection ended, and returns the pause before the next one; `None` when that
    /// was the last.
    pub(super) fn failed(&mut self, retry_after: Option<Duration>, why: &str, now: Instant) -> Option<Duration> {
        if std::mem::take(&mut self.is_out) {
            self.breaker.failed(now, why);
        }
        let pause = self.backoff.failed(retry_after)?;
        self.not_before = Some(now + pause);
        Some(self.at(now) - now)
    }

    /// Returns the number of attempts that failed in a row.
    pub(super) fn attempt(&self) -> u32 {
        self.backoff.attempt()
    }

    /// Returns what to show of the breaker.
    pub(super) fn breaker(&self, now: Instant) -> BreakerSnapshot {
        self.breaker.snapshot(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_half_open_breaker_closes_when_the_probe_has_held_for_the_stable_period() {
        let mut now = Instant::now();
        let mut reconnect = Reconnect::new(&ConnectionConfig::default(), 1);
        for _ in 0..3 {
            now = reconnect.at(now);
            assert!(reconnect.dial(now));
            reconnect.failed(None, "connection refused", now);
        }
        assert_eq!(reconnect.breaker(now).state, BreakerState::Open);
        now = reconnect.at(now);
        assert!(reconnect.dial(now));
        reconnect.greeted();
        assert_eq!(reconnect.breaker(now).state, BreakerState::HalfOpen, "one success of two");
        assert!(!reconnect.is_stable(SECOND * 29, now));
        assert!(reconnect.is_stable(SECOND * 30, now));
        assert_eq!(reconnect.breaker(now).state, BreakerState::Closed);
    }

    #[test]
    fn a_venue_that_greets_and_hangs_up_is_no_failure_of_the_breaker_but_of_the_backoff() {
        let mut now = Instant::now();
        let mut reconnect = Reconnect::new(&ConnectionConfig::default(), 1);
        for attempt in 1..=10 {
            now = reconnect.at(now);
            assert!(reconnect.dial(now));
            reconnect.greeted();
            reconnect.is_stable(SECOND, now);
            reconnect.failed(None, "hung up", now);
            assert_eq!(reconnect.attempt(), attempt);
        }
        assert_eq!(reconnect.breaker(now).state, BreakerState::Closed);
    }

    #[test]
    fn nobody_dials_before_the_pause_is_over() {
        let now = Instant::now();
        let mut reconnect = Reconnect::new(&ConnectionConfig::default(), 1);
        assert!(reconnect.dial(now));
        let pause = reconnect.failed(Some(SECOND * 5), "maintenance", now).unwrap();
        assert!(pause >= SECOND * 5);
        assert!(!reconnect.dial(now + SECOND * 4));
        assert!(reconnect.dial(now + pause));
    }
}
