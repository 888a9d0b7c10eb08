//! When to dial: the pauses between attempts, and the breaker outside of them.

use std::{num::NonZeroU32, time::Duration};

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
    max_attempts: Option<NonZeroU32>,
    /// Attempts in a row that led to no connection that held for the stable period.
    in_vain: u32,
    /// The connection has held for it.
    has_held: bool,
}

impl Reconnect {
    /// Returns the pauses of one connection; `seed` tells apart those that run side by side.
    pub(super) fn new(config: &ConnectionConfig, seed: u64) -> Self {
        let reconnect = &config.reconnect;
        let backoff = Backoff::new(reconnect.first.0, reconnect.longest.0).stable_after(reconnect.stable_after.0);
        let backoff = backoff.seeded(seed);
        let breaker = &config.breaker;
        Self {
            backoff,
            breaker: Breaker::new(breaker.failures, breaker.open_for.0, breaker.successes),
            start_every: config.start_every.0,
            last_dial: None,
            not_before: None,
            is_out: false,
            max_attempts: reconnect.max_attempts,
            in_vain: 0,
            has_held: false,
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
        self.has_held |= is_stable;
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
        self.in_vain = if std::mem::take(&mut self.has_held) { 0 } else { self.in_vain.saturating_add(1) };
        if self.max_attempts.is_some_and(|most| self.in_vain >= most.get()) {
            return None;
        }
        let pause = self.backoff.failed(retry_after);
        self.not_before = Some(now + pause);
        Some(self.at(now) - now)
    }

    /// Notes that this side has ended the attempt or the connection, for which the venue is not to blame: no attempt was in
    /// vain, but the next one waits as after a failure.
    pub(super) fn put_off(&mut self, now: Instant) {
        self.greeted();
        self.not_before = Some(now + self.backoff.failed(None));
    }

    /// Returns the number of attempts that failed in a row.
    pub(super) fn attempt(&self) -> u32 {
        self.backoff.attempt()
    }

    /// Returns the number of attempts in a row that led to no connection that held.
    pub(super) fn in_vain(&self) -> u32 {
        self.in_vain
    }

    /// Returns what to show of the breaker.
    pub(super) fn breaker(&self, now: Instant) -> BreakerSnapshot {
        let mut snapshot = self.breaker.snapshot(now);
        if let Some(pause) = &mut snapshot.next_probe_in {
            *pause = self.at(now) - now;
        }
        snapshot
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
    fn only_attempts_that_led_to_nothing_count_towards_the_last_one() {
        let mut now = Instant::now();
        let mut config = ConnectionConfig::default();
        config.reconnect.max_attempts = NonZeroU32::new(2);
        let mut reconnect = Reconnect::new(&config, 1);
        for _ in 0..5 {
            now = reconnect.at(now);
            assert!(reconnect.dial(now));
            reconnect.greeted();
            reconnect.is_stable(SECOND * 30, now);
            assert!(reconnect.failed(None, "hung up", now).is_some(), "a line that had held was lost");
        }
        now = reconnect.at(now);
        assert!(reconnect.dial(now));
        assert!(reconnect.failed(None, "connection refused", now).is_some(), "one attempt in vain");
        assert!(reconnect.failed(None, "connection refused", now).is_none(), "two");
    }

    #[test]
    fn the_pauses_are_those_that_the_user_wants() {
        let mut now = Instant::now();
        let mut config = ConnectionConfig::default();
        config.reconnect.first = crate::config::Duration::from_secs(100);
        config.reconnect.longest = crate::config::Duration::from_secs(1_000);
        config.start_every = crate::config::Duration::from_secs(0);
        config.breaker.failures = NonZeroU32::MAX;
        let mut reconnect = Reconnect::new(&config, 1);
        let mut pauses = Vec::new();
        for _ in 0..100 {
            assert!(reconnect.dial(now));
            let pause = reconnect.failed(None, "connection refused", now).unwrap();
            pauses.push(pause);
            now += pause;
        }
        assert!(pauses[0] <= SECOND * 100, "{pauses:?}");
        let longest = pauses.iter().max().unwrap();
        assert!((SECOND * 700..=SECOND * 1_000).contains(longest), "{longest:?}");
    }

    #[test]
    fn the_next_probe_that_is_shown_is_the_next_attempt() {
        let now = Instant::now();
        let mut reconnect = Reconnect::new(&ConnectionConfig::default(), 1);
        for _ in 0..3 {
            assert!(reconnect.breaker.allow(now));
            reconnect.is_out = true;
            reconnect.failed(Some(SECOND * 90), "maintenance", now);
        }
        let shown = reconnect.breaker(now).next_probe_in.unwrap();
        assert!(shown >= SECOND * 90 && now + shown == reconnect.at(now), "{shown:?}");
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
