//! Calls to the venue's HTTP interface: discovery, and the gaps that it can fill.

use std::collections::HashSet;

use super::*;
use crate::{
    metrics::RestOutcome,
    protocol::{Gap, Remedy, Reply, Request},
};
use session::shown;

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
}

impl<T: Transport> Driver<T> {
    /// Takes over what the board shows.
    pub(super) fn show_asks(&mut self) {
        let asks = Arc::clone(&self.asks.borrow_and_update());
        self.backfill.show(asks);
    }

    /// Asks the protocol what to do about the gaps that are due, as far as there is room in the queue: what is asked for
    /// later is asked for as it is then.
    pub(super) fn ask_for_gaps(&mut self, now: Instant) -> Result<(), Stop> {
        if self.backfill.open() == 0 || !self.subscriptions.is_ready() || self.rest.waiting() >= MOST_WAITING {
            return Ok(());
        }
        let mut due = self.backfill.due(now);
        while !due.is_empty() && self.rest.waiting() < MOST_WAITING {
            let outcome = self.call(Origin::Backfill, |protocol, _| Ok(protocol.on_gap(&due)));
            self.carry_out(now)?;
            let remedy = outcome.map_err(|error| Stop::of(error, ReconnectReason::Refused))?;
            let covered: HashSet<GapId> = self.apply(remedy, &due, now).into_iter().collect();
            let before = due.len();
            due.retain(|gap| !covered.contains(&gap.id));
            if due.len() == before {
                let gaps = due.iter().map(|gap| gap.id);
                self.backfill.hold(gaps, NO_REMEDY_PAUSE, now);
                tracing::warn!(stage = %self.health.id(), gaps = due.len(), "the protocol has no remedy for open gaps");
                break;
            }
        }
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
                self.backfill.fetching(&gaps);
                let cost = request.cost;
                self.rest.push(Job::Fill { request, gaps: gaps.clone(), asked: Vec::new() }, cost);
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

    /// Sends the calls that may go out now.
    pub(super) fn send_calls(&mut self, now: Instant) {
        while let Some((id, job)) = self.rest.poll(now) {
            if let Job::Fill { gaps, asked, .. } = job {
                *asked = self.backfill.numbers(gaps);
                if asked.is_empty() {
                    let closed = std::mem::take(gaps);
                    self.rest.withdraw(id);
                    self.backfill.settle(closed, now);
                    continue;
                }
            }
            let over = match (&*job, &self.phase) {
                (Job::Fill { .. }, Phase::Open(session)) => session.over.clone(),
                _ => CancellationToken::new(),
            };
            let call = self.transport.call(job.request().clone(), self.config.rest.timeout.0);
            self.calls.push(Box::pin(async move {
                let outcome = over.run_until_cancelled(call).await;
                (id, outcome.unwrap_or_else(|| Err(NoAnswer::Unreachable("the session is over".to_owned()))))
            }));
        }
    }

    /// Takes the outcome of a call. One that nobody waits for any more, since its session has ended, is dropped.
    pub(super) fn on_called(&mut self, id: CallId, outcome: Result<Answer, NoAnswer>) -> Result<(), Stop> {
        let Some(job) = self.rest.job(id).cloned() else { return Ok(()) };
        let now = Instant::now();
        self.metrics.rest_requests.of(&sort(&outcome)).increment(1);
        let answer = match outcome {
            Ok(answer) if answer.status == 429 || answer.status >= 500 => {
                let why = format!("answered with {}", answer.status);
                self.call_failed(id, &job, answer.retry_after, &why, now);
                return Ok(());
            }
            Ok(answer) => answer,
            Err(no_answer) => {
                self.call_failed(id, &job, None, &no_answer.to_string(), now);
                return Ok(());
            }
        };
        let reply = Reply { request: job.request(), status: answer.status, body: &answer.body };
        match &job {
            Job::Discover(_) => {
                self.rest.succeeded(id);
                self.rest_is_well();
                self.discover(Some(&reply), now)
            }
            Job::Fill { asked, .. } => self.fill(id, &job, asked, &reply, now),
        }
    }

    fn fill(
        &mut self,
        id: CallId,
        job: &Job,
        asked: &[(GapId, u64)],
        reply: &Reply<'_>,
        now: Instant,
    ) -> Result<(), Stop> {
        let gaps = self.backfill.current(asked);
        self.answered.clear();
        let event = || Recorded::reply(reply, &gaps);
        let outcome = self.call_recorded(Origin::Backfill, event, |protocol, out| protocol.on_reply(reply, &gaps, out));
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
                self.call_failed(id, job, retry_after, &error.to_string(), now);
                return Ok(());
            }
        }
        self.rest.succeeded(id);
        for (gap, ask) in asked.iter().copied() {
            let is_answered = is_read && answered.contains(&gap);
            self.link.step(if is_answered { Step::Answered { gap, ask } } else { Step::Asked { gap } });
        }
        self.backfill.settle(job_gaps(job), now);
        self.rest_is_well();
        Ok(())
    }

    /// Puts a call back, to be repeated, and shows what is wrong once that matters.
    fn call_failed(&mut self, id: CallId, job: &Job, retry_after: Option<Duration>, why: &str, now: Instant) {
        let pause = self.rest.failed(id, retry_after, why, now);
        let shown_address = job.request().shown();
        if !self.is_discovered {
            let pause = shown(pause);
            self.standing.discovery = Some(format!("discovery: {shown_address}: {why}; trying again in {pause}"));
        }
        if !self.rest.is_well() {
            let next = self.rest.next_at(now).map_or(pause, |at| at - now);
            let (gaps, next) = (self.backfill.open(), shown(next));
            self.standing.rest = Some(format!("{shown_address}: {why}; {gaps} gaps wait, next try in {next}"));
        }
        self.standing.show(&self.health);
    }

    fn rest_is_well(&mut self) {
        if self.rest.is_well() && self.standing.rest.take().is_some() {
            self.standing.show(&self.health);
        }
    }
}

fn job_gaps(job: &Job) -> Vec<GapId> {
    match job {
        Job::Discover(_) => Vec::new(),
        Job::Fill { gaps, .. } => gaps.clone(),
    }
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

/// Calls that may wait for their turn beside those that are out. More would be asked for too early.
const MOST_WAITING: usize = 4;
/// How long a new subscription may take to show on the board.
const RENEWAL_PAUSE: Duration = Duration::from_secs(30);
const NO_REMEDY_PAUSE: Duration = Duration::from_secs(10);
