//! Calls to the venue's HTTP interface: discovery, and the gaps that it can fill.

use std::collections::HashSet;

use super::*;
use crate::{
    metrics::RestOutcome,
    protocol::{Gap, Remedy, Reply, Request},
};

/// What a call is for.
#[derive(Debug, Clone)]
pub(super) enum Job {
    /// To find the channels.
    Discover(Request),
    /// To fill gaps.
    Fill {
        request: Request,
        gaps: Vec<GapId>,
        /// Those that were still open when it went out, with their numbers at that time.
        asked: Vec<(GapId, u64)>,
    },
}

impl Job {
    fn request(&self) -> &Request {
        match self {
            Self::Discover(request) | Self::Fill { request, .. } => request,
        }
    }

    fn request_mut(&mut self) -> &mut Request {
        match self {
            Self::Discover(request) | Self::Fill { request, .. } => request,
        }
    }
}

impl<T: Transport> Driver<T> {
    /// Takes over what the board shows.
    pub(super) fn show_asks(&mut self) {
        let asks = Arc::clone(&self.asks.borrow_and_update());
        self.backfill.show(asks);
    }

    /// Asks the protocol what to do about the gaps that are due. A request to a host that has no room for it is thrown away,
    /// and the protocol asked again when there is some: what is asked for later is asked for as it is then.
    pub(super) fn ask_for_gaps(&mut self, now: Instant) -> Result<(), Stop> {
        if self.backfill.open() == 0 || !self.subscriptions.is_ready() {
            return Ok(());
        }
        self.backfill.admit(|host| self.rest.room(host), now);
        let due = self.backfill.due(now);
        if due.is_empty() {
            return Ok(());
        }
        let at = self.transport.wall();
        // A replay has to ask the same.
        let shown = self.capture.is_some().then(|| due.clone());
        let mut calls = 0;
        let outcome = self.find_remedies(due, at, &mut calls, now);
        if let Some(gaps) = shown {
            self.keep(at, || Recorded::Gaps { gaps, calls });
        }
        outcome
    }

    fn find_remedies(&mut self, mut due: Vec<Gap>, at: Timestamp, calls: &mut usize, now: Instant) -> Result<(), Stop> {
        while *calls < MOST_AT_ONCE {
            *calls += 1;
            let outcome = self.call_at(at, Origin::Backfill, |protocol, _| Ok(protocol.on_gap(&due)));
            self.carry_out(now)?;
            let remedy = outcome.map_err(|error| Stop::of(error, ReconnectReason::Refused))?;
            let covered: HashSet<GapId> = self.apply(remedy, &due, now).into_iter().collect();
            let before = due.len();
            due.retain(|gap| !covered.contains(&gap.id));
            if due.len() == before {
                let gaps = due.iter().map(|gap| gap.id);
                self.backfill.hold(gaps, NO_REMEDY_PAUSE, now);
                tracing::warn!(stage = %self.health.id(), gaps = due.len(), "the protocol has no remedy for open gaps");
                return Ok(());
            }
            if due.is_empty() {
                return Ok(());
            }
        }
        // The frames that came meanwhile are read first.
        self.is_dirty = true;
        Ok(())
    }

    /// Does what the protocol wants, and returns the gaps that it is for.
    fn apply(&mut self, remedy: Remedy, due: &[Gap], now: Instant) -> Vec<GapId> {
        let due: HashSet<GapId> = due.iter().map(|gap| gap.id).collect();
        match remedy {
            Remedy::Fetch { request, mut gaps } => {
                gaps.retain(|gap| due.contains(gap));
                if gaps.is_empty() {
                    return gaps;
                }
                let host = request.host();
                if self.rest.room(&host) == 0 {
                    self.backfill.queue(host, gaps.clone());
                    return gaps;
                }
                self.backfill.fetching(&gaps);
                self.push_call(Job::Fill { request, gaps: gaps.clone(), asked: Vec::new() }, None);
                gaps
            }
            Remedy::Resubscribe { channel, gaps } => {
                self.backfill.hold(gaps.iter().copied(), RENEWAL_PAUSE, now);
                self.subscriptions.renew(&channel, now);
                // It is looked at before the gaps are, so this turn has missed it.
                self.is_dirty = true;
                gaps
            }
            Remedy::Lost { gaps, why } => {
                for gap in &gaps {
                    self.link.step(Step::Lost { gap: *gap, why: why.to_owned() });
                }
                self.backfill.settle(gaps.iter().copied(), now);
                gaps
            }
        }
    }

    /// Puts a call in line, which goes out no sooner than `not_before`.
    pub(super) fn push_call(&mut self, mut job: Job, not_before: Option<Instant>) {
        let request = job.request_mut();
        request.pool = request.pool.or(self.limits.requests);
        let (host, cost) = (job.request().host(), job.request().cost);
        self.rest.push(job, &host, cost, not_before);
        self.is_dirty = true;
    }

    /// Lets the calls that may go out now wait for their turn at their host.
    pub(super) fn send_calls(&mut self, now: Instant) {
        while let Some((id, job)) = self.rest.poll(now) {
            let (hosts, request) = (Arc::clone(&self.hosts), job.request().clone());
            let over = over(job, &self.phase);
            self.calls.push(Box::pin(async move {
                let turn = over.run_until_cancelled(hosts.turn(&request)).await;
                turn.map_or_else(|| session_over(id), |turn| Called::InTurn(id, turn))
            }));
        }
    }

    /// Makes a call whose turn has come, if it is still wanted: what is asked for is what is missing now.
    pub(super) fn make_call(&mut self, id: CallId, turn: Turn) {
        let now = Instant::now();
        let Some(job) = self.rest.make(id, now) else { return };
        if let Job::Fill { gaps, asked, .. } = job {
            *asked = self.backfill.numbers(gaps);
            if asked.is_empty() {
                let closed = std::mem::take(gaps);
                self.rest.withdraw(id);
                self.backfill.settle(closed, now);
                return;
            }
        }
        let over = over(job, &self.phase);
        let call = self.transport.call(turn, job.request().clone(), self.config.rest.timeout.0);
        self.calls.push(Box::pin(async move {
            let outcome = over.run_until_cancelled(call).await;
            outcome.map_or_else(|| session_over(id), |outcome| Called::Ended(id, outcome))
        }));
    }

    /// Takes the outcome of a call. One that nobody waits for any more, since its session has ended, is dropped.
    pub(super) fn on_called(&mut self, id: CallId, outcome: Result<Answer, NoAnswer>) -> Result<(), Stop> {
        let Some(job) = self.rest.job(id).cloned() else { return Ok(()) };
        let now = Instant::now();
        self.metrics.rest_requests.of(&sort(&outcome)).increment(1);
        let answer = match outcome {
            Ok(answer) if answer.is_put_off() => {
                let why = format!("answered with {}", answer.status);
                self.call_failed(id, job, answer.pause(), &why, now);
                return Ok(());
            }
            Ok(answer) => answer,
            Err(no_answer) => {
                self.call_failed(id, job, None, &no_answer.to_string(), now);
                return Ok(());
            }
        };
        let reply = Reply { request: job.request(), status: answer.status, body: &answer.body };
        match &job {
            Job::Discover(_) => {
                self.call_succeeded(id, &job);
                self.discover(Some(&reply), now)
            }
            Job::Fill { gaps, asked, .. } => {
                let later = self.fill(gaps, asked, &reply, now)?;
                match later {
                    None => self.call_succeeded(id, &job),
                    Some((retry_after, why)) => self.call_failed(id, job, retry_after, &why, now),
                }
                Ok(())
            }
        }
    }

    /// Hands a reply to the protocol; returns why it is to come later, and when, if it is.
    fn fill(
        &mut self,
        gaps: &[GapId],
        asked: &[(GapId, u64)],
        reply: &Reply<'_>,
        now: Instant,
    ) -> Result<Option<(Option<Duration>, String)>, Stop> {
        let open = self.backfill.current(asked);
        self.answered.clear();
        let event = || Recorded::reply(reply, &open);
        let outcome = self.call_recorded(Origin::Backfill, event, |protocol, out| protocol.on_reply(reply, &open, out));
        self.carry_out(now)?;
        let answered: HashSet<GapId> = self.answered.drain(..).collect();
        let is_read = outcome.is_ok();
        match outcome {
            Ok(()) => {}
            Err(error) if error.kind() == Kind::Malformed => {
                self.metrics.rest_requests.of(&RestOutcome::Malformed).increment(1);
                self.malformed(reply.body, &error.to_string());
            }
            Err(error) => {
                // A history that cannot answer is no reason to give up the live feed: the question is repeated.
                let Kind::Transient { retry_after } = error.kind() else {
                    return Err(Stop::of(error, ReconnectReason::Refused));
                };
                return Ok(Some((retry_after, error.to_string())));
            }
        }
        for (gap, ask) in asked.iter().copied() {
            let is_answered = is_read && answered.contains(&gap);
            self.link.step(if is_answered { Step::Answered { gap, ask } } else { Step::Asked { gap } });
        }
        self.backfill.settle(gaps.iter().copied(), now);
        Ok(None)
    }

    /// Ends a call without an answer, and shows what is wrong once that matters. The call of a discovery is repeated; what
    /// to do about gaps is for the protocol to say anew.
    fn call_failed(&mut self, id: CallId, job: Job, retry_after: Option<Duration>, why: &str, now: Instant) {
        let (host, address) = (job.request().host(), job.request().shown());
        if let Some(pause) = retry_after {
            self.rest.put_off(id, why, now);
            // The venue means everybody who asks, not this one call.
            self.hosts.pause(&host, pause);
        } else {
            self.rest.failed(id, why, now);
        }
        let pause = match &job {
            Job::Discover(_) => self.discovery.pause(retry_after),
            Job::Fill { gaps, .. } => self.backfill.failed(gaps, retry_after, now),
        };
        if let Job::Discover(_) = job {
            self.push_call(job, Some(now + pause));
        }
        if !self.is_discovered {
            let pause = shown(pause);
            self.standing.discovery = Some(format!("discovery: {address}: {why}; trying again in {pause}"));
        }
        if retry_after.is_some() || !self.rest.is_well(&host) {
            let probe = self.rest.breakers(now).find(|(name, _)| ***name == *host);
            let probe = probe.and_then(|(_, breaker)| breaker.next_probe_in).unwrap_or_default();
            let waiting = Waiting { why: format!("{address}: {why}"), next: now + probe.max(pause) };
            self.standing.rest.insert(host, waiting);
        }
        self.standing.show(&self.health);
    }

    fn call_succeeded(&mut self, id: CallId, job: &Job) {
        self.rest.succeeded(id);
        if self.standing.rest.remove(&job.request().host()).is_some() {
            self.standing.show(&self.health);
        }
    }

    /// Shows that calls wait because their host has told somebody to come later. Takes back that calls fail where nothing is
    /// left to be asked for.
    pub(super) fn look_at_rest(&mut self, now: Instant) {
        for host in self.rest.queueing() {
            let pause = self.hosts.pause_left(host, now);
            if !pause.is_zero() && !self.standing.rest.contains_key(&**host) {
                let why = format!("{host} wants no calls for now");
                self.standing.rest.insert(host.to_string(), Waiting { why, next: now + pause });
                self.standing.show(&self.health);
            }
        }
        if !self.standing.rest.is_empty() && self.rest.is_idle() && self.backfill.open() == 0 {
            self.standing.rest.clear();
            self.standing.show(&self.health);
        }
    }
}

/// Returns what ends a call: gaps belong to their session.
fn over<L>(job: &Job, phase: &Phase<L>) -> CancellationToken {
    match (job, phase) {
        (Job::Fill { .. }, Phase::Open(session)) => session.over.clone(),
        _ => CancellationToken::new(),
    }
}

fn session_over(id: CallId) -> Called {
    Called::Ended(id, Err(NoAnswer::Unreachable("the session is over".to_owned())))
}

fn sort(outcome: &Result<Answer, NoAnswer>) -> RestOutcome {
    match outcome {
        Ok(answer) => match answer.status {
            429 => RestOutcome::RateLimited,
            500.. => RestOutcome::ServerError,
            400..500 => RestOutcome::ClientError,
            _ => RestOutcome::Ok,
        },
        Err(NoAnswer::TimedOut(_)) => RestOutcome::TimedOut,
        Err(NoAnswer::Unreachable(_)) => RestOutcome::Unreachable,
    }
}

/// So many times the protocol is asked about gaps before frames are read again.
const MOST_AT_ONCE: usize = 16;
/// How long a new subscription may take to show on the board.
const RENEWAL_PAUSE: Duration = Duration::from_secs(30);
const NO_REMEDY_PAUSE: Duration = Duration::from_secs(10);
