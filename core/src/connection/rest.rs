//! Calls to a venue's HTTP interface: which one may go out now, and which has to be repeated.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use tokio::time::Instant;

use crate::{
    config::Rest,
    policy::{Backoff, Breaker, BreakerSnapshot, BreakerState, RateLimit},
};

/// A queue of calls with a rate, a breaker and repetitions. Reads no clock and opens no socket.
///
/// A call is repeated until it gets an answer, so whoever pushes one bounds how many there are.
#[derive(Debug)]
pub(super) struct RestQueue<J> {
    waiting: Vec<Call<J>>,
    out: BTreeMap<CallId, Call<J>>,
    rate: RateLimit,
    breaker: Breaker,
    first: Duration,
    longest: Duration,
    last_id: u64,
}

/// Names a call that went out or waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CallId(u64);

#[derive(Debug)]
struct Call<J> {
    id: CallId,
    job: J,
    cost: u32,
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl<J> RestQueue<J> {
    /// Returns an empty queue that keeps to the slower of what the venue allows and what the user wants. Calls that fail
    /// are repeated after pauses that grow from `first` to `longest`.
    pub(super) fn new(rest: &Rest, allowed_per_second: Option<f64>, first: Duration, longest: Duration) -> Self {
        let allowed = allowed_per_second.filter(|rate| *rate > 0.0);
        let allowed = allowed.and_then(|rate| Duration::try_from_secs_f64(1.0 / rate).ok());
        let wanted = rest.rate.map(crate::config::Rate::interval);
        let breaker = Breaker::new(rest.breaker.failures, rest.breaker.open_for.0, rest.breaker.successes);
        Self {
            waiting: Vec::new(),
            out: BTreeMap::new(),
            rate: limit(allowed.into_iter().chain(wanted).max().unwrap_or_default()),
            breaker,
            first,
            longest,
            last_id: 0,
        }
    }

    /// Puts a call at the end.
    pub(super) fn push(&mut self, job: J, cost: u32) {
        self.last_id += 1;
        let backoff = Backoff::new(self.first, self.longest).seeded(self.last_id);
        self.waiting.push(Call { id: CallId(self.last_id), job, cost, backoff, not_before: None });
    }

    /// Takes the next call that may go out now. It has to be ended by one of the next two methods.
    pub(super) fn poll(&mut self, now: Instant) -> Option<(CallId, &mut J)> {
        if self.out.len() >= MOST_OUT {
            return None;
        }
        let next = self.waiting.iter().position(|call| call.not_before.is_none_or(|at| at <= now))?;
        let cost = self.waiting[next].cost;
        // The rate is looked at before the breaker and taken from behind it, so that neither is charged for nothing.
        if !self.rate.wait(now, cost).is_zero() || !self.breaker.allow(now) || !self.rate.take(now, cost) {
            return None;
        }
        let call = self.waiting.remove(next);
        let id = call.id;
        let call = self.out.entry(id).or_insert(call);
        Some((id, &mut call.job))
    }

    /// Returns what a call that is out is for; `None` when nobody waits for it any more.
    pub(super) fn job(&self, id: CallId) -> Option<&J> {
        self.out.get(&id).map(|call| &call.job)
    }

    /// Ends a call that was answered, and gives it back; `None` when nobody waits for it any more.
    pub(super) fn succeeded(&mut self, id: CallId) -> Option<J> {
        let call = self.out.remove(&id)?;
        self.breaker.succeeded();
        Some(call.job)
    }

    /// Ends a call that failed, puts it back to be repeated, and returns the pause before that.
    pub(super) fn failed(&mut self, id: CallId, retry_after: Option<Duration>, why: &str, now: Instant) -> Duration {
        let Some(mut call) = self.out.remove(&id) else { return Duration::ZERO };
        self.breaker.failed(now, why);
        if let Some(pause) = retry_after {
            // The venue means everybody who asks, not this one call.
            self.rate.pause_until(now + pause.min(LONGEST_ASKED));
        }
        let pause = call.backoff.failed(retry_after).unwrap_or(self.longest);
        call.not_before = Some(now + pause);
        self.waiting.insert(0, call);
        pause
    }

    /// Gives back a call that went out and turned out not to be needed.
    pub(super) fn withdraw(&mut self, id: CallId) {
        if self.out.remove(&id).is_some() {
            self.breaker.abandoned();
        }
    }

    /// Forgets the calls that are no longer needed, those that are out included.
    pub(super) fn retain(&mut self, mut is_needed: impl FnMut(&J) -> bool) {
        self.waiting.retain(|call| is_needed(&call.job));
        let before = self.out.len();
        self.out.retain(|_, call| is_needed(&call.job));
        for _ in self.out.len()..before {
            self.breaker.abandoned();
        }
    }

    /// Returns how many calls wait for their turn.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns when a call may go out that may not now; `None` when only the end of another can make room.
    pub(super) fn next_at(&self, now: Instant) -> Option<Instant> {
        if self.out.len() >= MOST_OUT {
            return None;
        }
        let call = self.waiting.iter().min_by_key(|call| call.not_before)?;
        let by_rate = self.rate.wait(now, call.cost);
        let allowed = now + by_rate.max(self.breaker.wait(now));
        Some(call.not_before.map_or(allowed, |at| at.max(allowed)))
    }

    /// Returns whether calls go out as they come.
    pub(super) fn is_well(&self) -> bool {
        self.breaker.state() == BreakerState::Closed
    }

    /// Returns what to show of the breaker.
    pub(super) fn breaker(&self, now: Instant) -> BreakerSnapshot {
        self.breaker.snapshot(now)
    }
}

/// Returns a bucket that holds the units of a second: a venue that counts by the second allows them at once. Without an
/// interval there is no limit.
fn limit(interval: Duration) -> RateLimit {
    let per_second = 1_000_000_000_u128.checked_div(interval.as_nanos());
    let burst = per_second.map_or(u32::MAX, |burst| u32::try_from(burst).unwrap_or(u32::MAX));
    RateLimit::every(interval, NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN))
}

/// Calls that may be out at once.
const MOST_OUT: usize = 4;
const LONGEST_ASKED: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use crate::config;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn keeps_to_the_slower_of_the_venues_and_the_users_rate() {
        let start = Instant::now();
        let rest = Rest { rate: Some(config::Rate { times: count(2), per: SECOND }), ..Rest::default() };
        let mut queue = RestQueue::new(&rest, Some(20.0), SECOND, SECOND);
        assert_eq!(sent(&mut queue, 5, start), 2, "two a second, the second's units at once");
        assert_eq!(queue.next_at(start), Some(start + SECOND / 2));
    }

    #[test]
    fn at_most_four_are_out_and_the_end_of_one_makes_room() {
        let start = Instant::now();
        let mut queue = queue();
        for job in 0..6 {
            queue.push(job, 1);
        }
        let out: Vec<CallId> = std::iter::from_fn(|| queue.poll(start).map(|(id, _)| id)).collect();
        assert_eq!(out.len(), 4);
        assert_eq!(queue.next_at(start), None, "no time makes room");
        assert_eq!(queue.succeeded(out[2]), Some(2));
        assert_eq!(queue.poll(start).map(|(_, job)| *job), Some(4));
    }

    #[test]
    fn a_failed_call_is_repeated_after_a_pause_and_lets_others_pass() {
        let start = Instant::now();
        let mut queue = queue();
        queue.push(1, 1);
        let id = queue.poll(start).unwrap().0;
        let pause = queue.failed(id, None, "503", start);
        queue.push(2, 1);
        assert_eq!(queue.poll(start).map(|(_, job)| *job), Some(2));
        assert_eq!(queue.poll(start + pause).map(|(_, job)| *job), Some(1));
    }

    #[test]
    fn a_retry_after_holds_back_every_call() {
        let start = Instant::now();
        let mut queue = queue();
        queue.push(1, 1);
        let id = queue.poll(start).unwrap().0;
        let pause = queue.failed(id, Some(SECOND * 3), "429", start);
        assert!(pause >= SECOND * 3, "the venue asked for it");
        queue.push(2, 1);
        assert!(queue.poll(start + SECOND * 2).is_none());
        assert_eq!(queue.poll(start + SECOND * 3).map(|(_, job)| *job), Some(2));
    }

    #[test]
    fn five_failures_in_a_row_open_the_breaker_and_nothing_goes_out_for_a_minute() {
        let start = Instant::now();
        let mut queue = queue();
        queue.push(1, 1);
        let mut now = start;
        for _ in 0..5 {
            let id = queue.poll(now).unwrap().0;
            now += queue.failed(id, None, "connection refused", now);
        }
        assert!(!queue.is_well());
        let shown = queue.breaker(now);
        assert_eq!(shown.reason.as_deref(), Some("connection refused"));
        assert!(queue.poll(now).is_none());
        let probe_at = queue.next_at(now).unwrap();
        assert!(probe_at > now + SECOND * 50, "{:?}", probe_at - now);
        let (id, _) = queue.poll(probe_at).unwrap();
        queue.push(2, 1);
        assert!(queue.poll(probe_at).is_none(), "one probe at a time");
        queue.succeeded(id);
        assert!(queue.poll(probe_at).is_some());
    }

    #[test]
    fn a_forgotten_call_is_not_taken_for_an_answered_one() {
        let start = Instant::now();
        let mut queue = queue();
        queue.push(1, 1);
        queue.push(2, 1);
        let id = queue.poll(start).unwrap().0;
        queue.retain(|job| *job != 1);
        assert_eq!(queue.succeeded(id), None);
        assert_eq!(queue.waiting(), 1);
    }

    fn queue() -> RestQueue<u32> {
        RestQueue::new(&Rest::default(), None, SECOND, SECOND)
    }

    fn sent(queue: &mut RestQueue<u32>, jobs: u32, now: Instant) -> usize {
        for job in 0..jobs {
            queue.push(job, 1);
        }
        std::iter::from_fn(|| queue.poll(now).map(|(id, _)| id)).count()
    }

    fn count(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }
}
