//! Stops calling a peer that keeps failing, and tries it again after a pause, one call at a time.

use std::{num::NonZeroU32, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

/// Decides whether the next call may go out.
///
/// Closed, calls go out as they come. So many failures in a row open it: no call goes out, and none is counted as an
/// attempt, until the pause is over. Then it is half-open: one probe at a time, so many successes in a row close it, and
/// the first failure opens it for another pause.
///
/// Every call that was allowed must be ended by [`succeeded`](Self::succeeded), [`failed`](Self::failed) or
/// [`abandoned`](Self::abandoned). Calls that went out before it opened may end at any time after: they are awaited before
/// the first probe, so that no old answer is taken for a probe's.
#[derive(Debug, Clone)]
pub struct Breaker {
    failures: NonZeroU32,
    open_for: Duration,
    successes: NonZeroU32,
    phase: Phase,
    /// Why it opened, or why the last probe failed.
    reason: Option<String>,
    /// Calls that were allowed and have not ended.
    calls_out: u32,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Closed { failures_in_a_row: u32 },
    Open { since: Instant },
    HalfOpen { successes_in_a_row: u32 },
}

/// The state of a [`Breaker`], for people and dashboards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Calls go out.
    Closed,
    /// No call goes out until the pause is over.
    Open,
    /// One call at a time goes out, to see whether the peer is back.
    HalfOpen,
}

/// What a [`Breaker`] looks like at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerSnapshot {
    /// Whether calls go out.
    pub state: BreakerState,
    /// The failure that opened it; `None` while it is closed.
    pub reason: Option<String>,
    /// How long until the next probe may go out; `None` while it is closed or a probe is out.
    pub next_probe_in: Option<Duration>,
}

impl Breaker {
    /// Returns a closed breaker that `failures` in a row open for `open_for`, and `successes` in a row close again.
    pub fn new(failures: NonZeroU32, open_for: Duration, successes: NonZeroU32) -> Self {
        let phase = Phase::Closed { failures_in_a_row: 0 };
        Self { failures, open_for, successes, phase, reason: None, calls_out: 0 }
    }

    /// Returns whether a call may go out now, and if so counts it as being out.
    #[must_use]
    pub fn allow(&mut self, now: Instant) -> bool {
        if !matches!(self.phase, Phase::Closed { .. }) {
            if self.calls_out > 0 || !self.pause_left(now).is_zero() {
                return false;
            }
            if matches!(self.phase, Phase::Open { .. }) {
                self.phase = Phase::HalfOpen { successes_in_a_row: 0 };
            }
        }
        self.calls_out = self.calls_out.saturating_add(1);
        true
    }

    /// Returns how long to wait before [`allow`](Self::allow) is worth asking; zero means now.
    ///
    /// While another call has to end first, nobody knows how long that takes: then it is the time to look again.
    pub fn wait(&self, now: Instant) -> Duration {
        if matches!(self.phase, Phase::Closed { .. }) {
            return Duration::ZERO;
        }
        let pause = self.pause_left(now);
        if self.calls_out > 0 { pause.max(LOOK_AGAIN) } else { pause }
    }

    /// Ends a call that succeeded.
    pub fn succeeded(&mut self) {
        self.calls_out = self.calls_out.saturating_sub(1);
        match &mut self.phase {
            Phase::Closed { failures_in_a_row } => *failures_in_a_row = 0,
            // It went out before the failures that opened it.
            Phase::Open { .. } => {}
            Phase::HalfOpen { successes_in_a_row } => {
                *successes_in_a_row += 1;
                if *successes_in_a_row >= self.successes.get() {
                    self.phase = Phase::Closed { failures_in_a_row: 0 };
                    self.reason = None;
                }
            }
        }
    }

    /// Ends a call that failed, which opens the breaker at the last of so many in a row, and at once if it was a probe.
    pub fn failed(&mut self, now: Instant, reason: impl Into<String>) {
        self.calls_out = self.calls_out.saturating_sub(1);
        let opens = match &mut self.phase {
            Phase::Closed { failures_in_a_row } => {
                *failures_in_a_row = failures_in_a_row.saturating_add(1);
                *failures_in_a_row >= self.failures.get()
            }
            // It went out before; its failure is no news and makes the pause no longer.
            Phase::Open { .. } => false,
            Phase::HalfOpen { .. } => true,
        };
        if opens {
            self.phase = Phase::Open { since: now };
            self.reason = Some(reason.into());
        }
    }

    /// Ends a call of which nobody will know how it went, for example at shutdown. It proves nothing.
    pub fn abandoned(&mut self) {
        self.calls_out = self.calls_out.saturating_sub(1);
    }

    /// Ends the pause: the next call may go out as a probe at once, since later would be too late.
    pub fn end_pause(&mut self) {
        if matches!(self.phase, Phase::Open { .. }) {
            self.phase = Phase::HalfOpen { successes_in_a_row: 0 };
        }
    }

    /// Returns whether calls go out.
    pub fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Returns what to show of it.
    pub fn snapshot(&self, now: Instant) -> BreakerSnapshot {
        let state = self.state();
        let waits = state != BreakerState::Closed && self.calls_out == 0;
        BreakerSnapshot { state, reason: self.reason.clone(), next_probe_in: waits.then(|| self.pause_left(now)) }
    }

    fn pause_left(&self, now: Instant) -> Duration {
        let Phase::Open { since } = self.phase else { return Duration::ZERO };
        self.open_for.saturating_sub(now.saturating_duration_since(since))
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAUSE: Duration = Duration::from_secs(30);

    #[test]
    fn opens_at_the_third_failure_in_a_row_and_probes_after_the_pause() {
        let start = Instant::now();
        let mut breaker = breaker();
        fail(&mut breaker, start);
        fail(&mut breaker, start);
        assert_eq!(breaker.wait(start), Duration::ZERO, "two failures are not enough");

        fail(&mut breaker, start);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.wait(start), PAUSE);
        assert_eq!(breaker.wait(start + PAUSE / 3), PAUSE * 2 / 3);
        assert!(!breaker.allow(start + PAUSE - Duration::from_nanos(1)), "the pause is not over");
        assert_eq!(breaker.wait(start + PAUSE), Duration::ZERO);
        assert!(breaker.allow(start + PAUSE));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
    }

    #[test]
    fn a_success_between_failures_keeps_it_closed() {
        let start = Instant::now();
        let mut breaker = breaker();
        for _ in 0..10 {
            fail(&mut breaker, start);
            fail(&mut breaker, start);
            assert!(breaker.allow(start));
            breaker.succeeded();
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn lets_one_probe_out_at_a_time_and_closes_after_two_successes() {
        let (mut breaker, reopened) = half_open();
        assert!(!breaker.allow(reopened), "one probe is out");
        assert_ne!(breaker.wait(reopened), Duration::ZERO, "whoever waits for zero would spin");

        breaker.succeeded();
        assert_eq!(breaker.state(), BreakerState::HalfOpen, "one success is not enough");
        assert!(breaker.allow(reopened), "the next probe needs no pause");
        breaker.succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert!(breaker.allow(reopened) && breaker.allow(reopened), "closed, calls go out side by side");
    }

    #[test]
    fn a_failed_probe_opens_it_for_another_pause() {
        let (mut breaker, at) = half_open();
        breaker.failed(at, "still down");
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.wait(at), PAUSE);
        assert_eq!(breaker.snapshot(at).reason.as_deref(), Some("still down"));
    }

    #[test]
    fn an_abandoned_probe_proves_nothing_and_makes_room_for_the_next() {
        let (mut breaker, at) = half_open();
        breaker.abandoned();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(breaker.allow(at));
    }

    #[test]
    fn an_answer_from_before_it_opened_is_not_taken_for_a_probes() {
        let start = Instant::now();
        let mut breaker = breaker();
        for _ in 0..4 {
            assert!(breaker.allow(start));
        }
        for _ in 0..3 {
            breaker.failed(start, "timed out");
        }
        let late = start + PAUSE * 2;
        assert!(!breaker.allow(late), "the fourth call is still out");
        breaker.succeeded();
        assert_eq!(breaker.state(), BreakerState::Open, "its success does not count");
        assert!(breaker.allow(late));
    }

    #[test]
    fn shows_the_reason_and_the_time_of_the_next_probe_while_it_is_open() {
        let start = Instant::now();
        let mut breaker = breaker();
        let closed = BreakerSnapshot { state: BreakerState::Closed, reason: None, next_probe_in: None };
        assert_eq!(breaker.snapshot(start), closed);

        for _ in 0..3 {
            fail(&mut breaker, start);
        }
        let shown = breaker.snapshot(start + PAUSE / 2);
        assert_eq!(shown.state, BreakerState::Open);
        assert_eq!(shown.reason.as_deref(), Some("refused"));
        assert_eq!(shown.next_probe_in, Some(PAUSE / 2));

        for _ in 0..2 {
            assert!(breaker.allow(start + PAUSE));
            breaker.succeeded();
        }
        assert_eq!(breaker.snapshot(start + PAUSE), closed, "closed again, it has no reason");
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Ask,
        Succeed,
        Fail,
        Abandon,
        Wait(u64),
    }

    proptest! {
        /// Any number of calls may be out while it is closed; the oldest ends first.
        #[test]
        fn never_lets_two_probes_out_at_once_and_none_during_the_pause(
            steps in proptest::collection::vec(step(), 0..200), failures in 1..4_u32, successes in 1..4_u32,
        ) {
            let mut breaker = Breaker::new(count(failures), PAUSE, count(successes));
            let mut now = Instant::now();
            let mut out = 0_u32;
            let mut opened_at = None;
            for step in steps {
                let was = breaker.state();
                match step {
                    Step::Wait(seconds) => now += Duration::from_secs(seconds),
                    Step::Ask => {
                        let before = breaker.wait(now);
                        let allowed = breaker.allow(now);
                        prop_assert_eq!(allowed, before.is_zero(), "wait and allow say the same");
                        if allowed {
                            out += 1;
                            prop_assert!(was == BreakerState::Closed || out == 1, "a probe beside another call");
                            let pause_over = opened_at.is_none_or(|at: Instant| now >= at + PAUSE);
                            prop_assert!(was != BreakerState::Open || pause_over, "a call during the pause");
                        }
                    }
                    Step::Succeed | Step::Fail | Step::Abandon if out == 0 => {}
                    Step::Succeed => { out -= 1; breaker.succeeded(); }
                    Step::Fail => { out -= 1; breaker.failed(now, "down"); }
                    Step::Abandon => { out -= 1; breaker.abandoned(); }
                }
                if was != BreakerState::Open && breaker.state() == BreakerState::Open {
                    opened_at = Some(now);
                }
                prop_assert_eq!(breaker.snapshot(now).reason.is_some(), breaker.state() != BreakerState::Closed);
            }
        }
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Ask),
            2 => Just(Step::Succeed),
            3 => Just(Step::Fail),
            1 => Just(Step::Abandon),
            2 => (0..40_u64).prop_map(Step::Wait),
        ]
    }

    fn breaker() -> Breaker {
        Breaker::new(count(3), PAUSE, count(2))
    }

    fn half_open() -> (Breaker, Instant) {
        let start = Instant::now();
        let mut breaker = breaker();
        for _ in 0..3 {
            fail(&mut breaker, start);
        }
        assert!(breaker.allow(start + PAUSE));
        (breaker, start + PAUSE)
    }

    fn fail(breaker: &mut Breaker, now: Instant) {
        assert!(breaker.allow(now));
        breaker.failed(now, "refused");
    }

    fn count(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }
}
