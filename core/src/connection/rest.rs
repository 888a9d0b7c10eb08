//! Calls of one source to a venue's HTTP interface: which one may go out now, as far as the source is concerned. It then
//! waits for its turn among the calls of all sources ([`Hosts`](crate::http)). Each host has a rate, a breaker and places of
//! its own, so that one that is down holds back no call to another.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    config::Rest,
    policy::{Breaker, BreakerSnapshot, BreakerState, RateLimit},
};

/// A queue of calls to the hosts of a venue. Reads no clock and opens no socket.
#[derive(Debug)]
pub(super) struct RestQueue<J> {
    waiting: Vec<Call<J>>,
    /// Those that wait for their turn at the host, and those that are made.
    out: BTreeMap<CallId, Call<J>>,
    /// In the order in which they were called first.
    hosts: Vec<Host>,
    rate: RateLimit,
    breaker: Breaker,
    last_id: u64,
}

/// Names a call that went out or waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CallId(u64);

#[derive(Debug)]
struct Call<J> {
    id: CallId,
    job: J,
    /// Where its host stands among the hosts.
    host: usize,
    cost: u32,
    not_before: Option<Instant>,
    /// When its turn came.
    made_at: Option<Instant>,
}

#[derive(Debug)]
struct Host {
    name: Arc<str>,
    rate: RateLimit,
    breaker: Breaker,
    out: usize,
    /// When it put off a call last, since its last answer.
    put_off_at: Option<Instant>,
}

impl<J> RestQueue<J> {
    /// Returns an empty queue that keeps, at each host, to the user's rate.
    pub(super) fn new(rest: &Rest) -> Self {
        Self {
            waiting: Vec::new(),
            out: BTreeMap::new(),
            hosts: Vec::new(),
            rate: limit(rest.rate.map(crate::config::Rate::interval).unwrap_or_default()),
            breaker: Breaker::new(rest.breaker.failures, rest.breaker.open_for.0, rest.breaker.successes),
            last_id: 0,
        }
    }

    /// Puts a call to a host at the end, which goes out no sooner than `not_before`.
    pub(super) fn push(&mut self, job: J, host: &str, cost: u32, not_before: Option<Instant>) {
        self.last_id += 1;
        let host = self.known(host).unwrap_or_else(|| {
            let (rate, breaker) = (self.rate.clone(), self.breaker.clone());
            self.hosts.push(Host { name: host.into(), rate, breaker, out: 0, put_off_at: None });
            self.hosts.len() - 1
        });
        self.waiting.push(Call { id: CallId(self.last_id), job, host, cost, not_before, made_at: None });
    }

    /// Takes the next call that may go out now, which then has to wait for its [turn](Self::make). It has to be ended by
    /// `succeeded`, `failed`, `put_off` or `withdraw`.
    pub(super) fn poll(&mut self, now: Instant) -> Option<(CallId, &mut J)> {
        let place = (0..self.hosts.len()).find_map(|host| self.take_turn(host, now))?;
        let call = self.waiting.remove(place);
        self.hosts[call.host].out += 1;
        let id = call.id;
        let call = self.out.entry(id).or_insert(call);
        Some((id, &mut call.job))
    }

    /// Takes what a host allows for its next call, and returns where that waits.
    fn take_turn(&mut self, number: usize, now: Instant) -> Option<usize> {
        let place = self.next_of(number, now)?;
        let call = &self.waiting[place];
        let host = &mut self.hosts[number];
        let is_due = call.not_before.is_none_or(|at| at <= now) && host.out < MOST_OUT;
        // The rate is looked at before the breaker and taken from behind it, so that neither is charged for nothing.
        let may_go = is_due && host.rate.wait(now, call.cost).is_zero() && host.breaker.allow(now);
        (may_go && host.rate.take(now, call.cost)).then_some(place)
    }

    /// Returns where the call waits that is a host's next: the first whose time has come, or comes first.
    fn next_of(&self, host: usize, now: Instant) -> Option<usize> {
        let waiting = self.waiting.iter().enumerate().filter(|(_, call)| call.host == host);
        waiting.min_by_key(|(_, call)| call.not_before.filter(|at| *at > now)).map(|(place, _)| place)
    }

    /// Returns a call whose turn has come; `None` when nobody waits for it any more, or its host is down by now: then it
    /// waits, before all others, until it may go out again.
    pub(super) fn make(&mut self, id: CallId, now: Instant) -> Option<&mut J> {
        let host = self.hosts.get(self.out.get(&id)?.host)?;
        if host.breaker.state() == BreakerState::Open {
            let mut call = self.out.remove(&id)?;
            let host = &mut self.hosts[call.host];
            host.out -= 1;
            host.breaker.abandoned();
            call.made_at = None;
            self.waiting.insert(0, call);
            return None;
        }
        let call = self.out.get_mut(&id)?;
        call.made_at = Some(now);
        Some(&mut call.job)
    }

    /// Returns the hosts at which a call waits for its turn.
    pub(super) fn queueing(&self) -> impl Iterator<Item = &Arc<str>> {
        self.out.values().filter(|call| call.made_at.is_none()).map(|call| &self.hosts[call.host].name)
    }

    /// Returns what a call that is out is for; `None` when nobody waits for it any more.
    pub(super) fn job(&self, id: CallId) -> Option<&J> {
        self.out.get(&id).map(|call| &call.job)
    }

    /// Ends a call that was answered, and gives it back; `None` when nobody waits for it any more.
    pub(super) fn succeeded(&mut self, id: CallId) -> Option<J> {
        let (call, host) = self.end(id)?;
        host.breaker.succeeded();
        host.put_off_at = None;
        Some(call.job)
    }

    /// Ends a call that failed, and gives it back.
    pub(super) fn failed(&mut self, id: CallId, why: &str, now: Instant) -> Option<J> {
        let (call, host) = self.end(id)?;
        host.breaker.failed(now, why);
        Some(call.job)
    }

    /// Ends a call to which the host said to come later, and gives it back. A host that says so is not down; one that says
    /// so again to calls that did come later may be.
    pub(super) fn put_off(&mut self, id: CallId, why: &str, now: Instant) -> Option<J> {
        let (call, host) = self.end(id)?;
        let goes_on = host.put_off_at.is_some_and(|at| call.made_at.is_some_and(|made_at| made_at > at));
        host.put_off_at = Some(now);
        if goes_on {
            host.breaker.failed(now, why);
        } else {
            host.breaker.abandoned();
        }
        Some(call.job)
    }

    /// Gives back a call that went out and turned out not to be needed.
    pub(super) fn withdraw(&mut self, id: CallId) {
        if let Some((_, host)) = self.end(id) {
            host.breaker.abandoned();
        }
    }

    fn end(&mut self, id: CallId) -> Option<(Call<J>, &mut Host)> {
        let call = self.out.remove(&id)?;
        let host = &mut self.hosts[call.host];
        host.out -= 1;
        Some((call, host))
    }

    /// Forgets the calls that are no longer needed, those that are out included.
    pub(super) fn retain(&mut self, mut is_needed: impl FnMut(&J) -> bool) {
        self.waiting.retain(|call| is_needed(&call.job));
        let needless: Vec<CallId> =
            self.out.values().filter(|call| !is_needed(&call.job)).map(|call| call.id).collect();
        needless.into_iter().for_each(|id| self.withdraw(id));
    }

    /// Returns how many calls to a host may still be put at its end: more would be asked for too early.
    pub(super) fn room(&self, host: &str) -> usize {
        let Some(host) = self.known(host) else { return MOST_WAITING };
        MOST_WAITING.saturating_sub(self.waiting.iter().filter(|call| call.host == host).count())
    }

    /// Returns whether no call waits or is out.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.out.is_empty()
    }

    /// Returns when a call may go out that may not now; `None` when only the end of another can make room.
    pub(super) fn next_at(&self, now: Instant) -> Option<Instant> {
        (0..self.hosts.len()).filter_map(|host| self.next_at_host(host, now)).min()
    }

    fn next_at_host(&self, number: usize, now: Instant) -> Option<Instant> {
        let host = &self.hosts[number];
        if host.out >= MOST_OUT {
            return None;
        }
        let call = &self.waiting[self.next_of(number, now)?];
        let allowed = now + host.rate.wait(now, call.cost).max(host.breaker.wait(now));
        Some(call.not_before.map_or(allowed, |at| at.max(allowed)))
    }

    /// Returns whether calls to a host go out as they come.
    pub(super) fn is_well(&self, host: &str) -> bool {
        self.known(host).is_none_or(|host| self.hosts[host].breaker.state() == BreakerState::Closed)
    }

    /// Returns each host that was ever called, with what to show of its breaker.
    pub(super) fn breakers(&self, now: Instant) -> impl Iterator<Item = (&Arc<str>, BreakerSnapshot)> {
        self.hosts.iter().enumerate().map(move |(number, host)| {
            let mut snapshot = host.breaker.snapshot(now);
            if let (Some(pause), Some(at)) = (&mut snapshot.next_probe_in, self.next_at_host(number, now)) {
                *pause = (*pause).max(at - now);
            }
            (&host.name, snapshot)
        })
    }

    fn known(&self, host: &str) -> Option<usize> {
        self.hosts.iter().position(|known| *known.name == *host)
    }
}

/// Returns a bucket that holds the units of a second: a venue that counts by the second allows them at once. Without an
/// interval there is no limit.
fn limit(interval: Duration) -> RateLimit {
    let per_second = 1_000_000_000_u128.checked_div(interval.as_nanos());
    let burst = per_second.map_or(u32::MAX, |burst| u32::try_from(burst).unwrap_or(u32::MAX));
    RateLimit::every(interval, NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN))
}

/// Calls to one host that may be out at once.
const MOST_OUT: usize = 4;
/// Calls to one host that may wait for their turn beside those that are out.
const MOST_WAITING: usize = 4;

#[cfg(test)]
mod tests {
    use crate::config::{self, RestBreaker};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn keeps_to_the_users_rate() {
        let start = Instant::now();
        let rest = Rest { rate: Some(config::Rate { times: count(2), per: SECOND }), ..Rest::default() };
        let mut queue = RestQueue::new(&rest);
        assert_eq!(sent(&mut queue, 5, start), 2, "two a second, the second's units at once");
        assert_eq!(queue.next_at(start), Some(start + SECOND / 2));
    }

    #[test]
    fn at_most_four_are_out_and_the_end_of_one_makes_room() {
        let start = Instant::now();
        let mut queue = queue();
        for job in 0..6 {
            push(&mut queue, job);
        }
        let out: Vec<CallId> = std::iter::from_fn(|| queue.poll(start).map(|(id, _)| id)).collect();
        assert_eq!(out.len(), 4);
        assert_eq!(queue.next_at(start), None, "no time makes room");
        assert_eq!(queue.succeeded(out[2]), Some(2));
        assert_eq!(queue.poll(start).map(|(_, job)| *job), Some(4));
    }

    #[test]
    fn a_call_with_a_pause_lets_others_pass() {
        let start = Instant::now();
        let mut queue = queue();
        queue.push(1, HOST, 1, Some(start + SECOND));
        push(&mut queue, 2);
        assert_eq!(queue.poll(start).map(|(_, job)| *job), Some(2));
        assert!(queue.poll(start).is_none());
        assert_eq!(queue.next_at(start), Some(start + SECOND));
        assert_eq!(queue.poll(start + SECOND).map(|(_, job)| *job), Some(1));
    }

    #[test]
    fn the_next_call_is_the_one_that_is_waited_for_and_a_dear_one_is_not_passed_by_cheap_ones() {
        let start = Instant::now();
        let rest = Rest { rate: Some(config::Rate { times: count(20), per: SECOND }), ..Rest::default() };
        let mut queue = RestQueue::new(&rest);
        queue.push(0, HOST, 15, None);
        assert!(queue.poll(start).is_some());
        queue.push(1, HOST, 20, None);
        queue.push(2, HOST, 1, None);
        assert!(queue.poll(start).is_none(), "the cheap one waits behind the dear one");
        let next = queue.next_at(start).unwrap();
        assert_eq!(next, start + SECOND * 3 / 4, "when the dear one may go");
        assert_eq!(queue.poll(next).map(|(_, job)| *job), Some(1));
    }

    #[test]
    fn a_host_that_says_later_is_down_only_when_it_goes_on_to_say_so() {
        let rest = Rest { breaker: RestBreaker { failures: count(2), ..RestBreaker::default() }, ..Rest::default() };
        let (mut queue, mut now) = (RestQueue::new(&rest), Instant::now());
        for round in 0..3 {
            assert!(queue.is_well(HOST), "round {round}");
            // All were made before the first was put off, and say one thing.
            let calls: Vec<CallId> = (0..4).map(|job| made(&mut queue, job, now)).collect();
            now += SECOND;
            for id in calls {
                assert!(queue.put_off(id, "429", now).is_some());
            }
            now += SECOND;
        }
        assert!(!queue.is_well(HOST), "twice after the first time");
    }

    #[test]
    fn an_answer_ends_what_a_host_said_about_later() {
        let rest = Rest { breaker: RestBreaker { failures: count(1), ..RestBreaker::default() }, ..Rest::default() };
        let (mut queue, mut now) = (RestQueue::new(&rest), Instant::now());
        for _ in 0..10 {
            let id = made(&mut queue, 1, now);
            queue.put_off(id, "429", now);
            now += SECOND;
            let id = made(&mut queue, 1, now);
            queue.succeeded(id);
        }
        assert!(queue.is_well(HOST));
    }

    #[test]
    fn a_call_whose_turn_comes_when_its_host_is_down_waits_before_all_others() {
        let start = Instant::now();
        let mut queue = queue();
        push(&mut queue, 9);
        let late = queue.poll(start).unwrap().0;
        assert_eq!(queue.queueing().count(), 1);
        for job in 0..5 {
            let id = made(&mut queue, job, start);
            queue.failed(id, "connection refused", start);
        }
        push(&mut queue, 10);
        assert!(queue.make(late, start).is_none());
        assert_eq!((queue.job(late), queue.queueing().count()), (None, 0));
        let (id, job) = queue.poll(start + SECOND * 60).expect("no call is out that the probe has to wait for");
        assert_eq!((id, *job), (late, 9));
        assert!(queue.make(late, start + SECOND * 60).is_some(), "it is the probe");
    }

    #[test]
    fn five_failures_in_a_row_open_the_breaker_of_a_host_for_a_minute_and_three_successes_close_it() {
        let start = Instant::now();
        let mut queue = queue();
        for job in 0..5 {
            push(&mut queue, job);
            let id = queue.poll(start).unwrap().0;
            queue.failed(id, "connection refused", start);
        }
        assert!(!queue.is_well(HOST) && queue.is_well("other"));
        let shown = queue.breakers(start).next().unwrap().1;
        assert_eq!(shown.reason.as_deref(), Some("connection refused"));
        push(&mut queue, 6);
        assert!(queue.poll(start).is_none());
        queue.push(7, "other", 1, None);
        assert_eq!(queue.poll(start).map(|(_, job)| *job), Some(7), "another host is another matter");
        let mut now = queue.next_at(start).unwrap();
        assert_eq!(now, start + SECOND * 60);
        for probe in 1..=3 {
            let (id, _) = queue.poll(now).unwrap();
            push(&mut queue, 8);
            assert!(queue.poll(now).is_none(), "one probe at a time");
            queue.succeeded(id);
            assert_eq!(queue.is_well(HOST), probe == 3, "after {probe}");
            now += SECOND;
        }
    }

    #[test]
    fn what_is_shown_of_the_next_probe_is_when_the_next_call_may_go() {
        let start = Instant::now();
        let mut queue = queue();
        for job in 0..5 {
            push(&mut queue, job);
            let id = queue.poll(start).unwrap().0;
            queue.failed(id, "connection refused", start);
        }
        queue.push(9, HOST, 1, Some(start + SECOND * 90));
        let shown = queue.breakers(start).next().unwrap().1;
        assert_eq!(shown.next_probe_in, Some(SECOND * 90));
    }

    #[test]
    fn each_host_has_places_of_its_own() {
        let start = Instant::now();
        let mut queue = queue();
        for job in 0..8 {
            push(&mut queue, job);
        }
        assert_eq!(std::iter::from_fn(|| queue.poll(start).map(|(id, _)| id)).count(), 4);
        assert_eq!((queue.room(HOST), queue.room("other")), (0, 4));
        queue.push(9, "other", 1, None);
        assert_eq!(queue.poll(start).map(|(_, job)| *job), Some(9));
    }

    #[test]
    fn a_forgotten_call_is_not_taken_for_an_answered_one() {
        let start = Instant::now();
        let mut queue = queue();
        push(&mut queue, 1);
        push(&mut queue, 2);
        let id = queue.poll(start).unwrap().0;
        queue.retain(|job| *job != 1);
        assert_eq!(queue.succeeded(id), None);
        assert_eq!(queue.room(HOST), 3);
    }

    const HOST: &str = "venue";

    fn queue() -> RestQueue<u32> {
        RestQueue::new(&Rest::default())
    }

    /// Puts a call in line whose turn comes at once.
    fn made(queue: &mut RestQueue<u32>, job: u32, now: Instant) -> CallId {
        push(queue, job);
        let id = queue.poll(now).expect("it may go out").0;
        queue.make(id, now).expect("its host is not down");
        id
    }

    fn push(queue: &mut RestQueue<u32>, job: u32) {
        queue.push(job, HOST, 1, None);
    }

    fn sent(queue: &mut RestQueue<u32>, jobs: u32, now: Instant) -> usize {
        (0..jobs).for_each(|job| push(queue, job));
        std::iter::from_fn(|| queue.poll(now).map(|(id, _)| id)).count()
    }

    fn count(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }
}
