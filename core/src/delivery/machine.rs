//! What a delivery driver does next, as a state machine: no clock, no I/O, no rows. Its shell carries out each [`Do`] and
//! tells by [`Event`] how it ended.
//!
//! ```text
//! Closed ──Open──→ Opened ──Discard──→ Ready ──Build──→ Built ──Write──→ Ready
//!    ↑                                             ↑        └─refused──→ Refused ──Bury──→ Ready, without those rows
//!    └── any error, any call that was given up: only `open` knows what the store has
//! ```

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::{
    arrivals::Arrivals,
    balance::{Accepted, Balance, Portion},
    event::{Do, Event, Settings},
};
use crate::{
    Error, Kind,
    policy::{Backoff, Breaker, BreakerSnapshot},
    rules::{Rule, holds},
    spool::SpoolPosition,
};

/// Where the driver stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Closed,
    Opened,
    Ready,
    Built,
    Refused,
    Failed(String),
    Ended,
}

/// The delivery of one sink.
#[derive(Debug)]
pub(crate) struct Machine {
    settings: Settings,
    state: State,
    breaker: Breaker,
    backoff: Backoff,
    /// Of the dead letters' disk, which is not the store's.
    letters_backoff: Backoff,
    /// The breaker let a call out that is not settled yet: opening and writing are one attempt.
    is_attempting: bool,
    retry_at: Option<Instant>,
    synced: u64,
    arrivals: Arrivals,
    /// When the rows that were not read yet began to wait.
    lingers_since: Option<Instant>,
    balance: Option<Balance>,
    /// What the store is known to have; `None` for one that was never written to.
    stored: Option<SpoolPosition>,
    /// What the store has accepted and not yet made durable, oldest first.
    accepted: VecDeque<Accepted>,
    /// The range that was read and not written; while its write is out or in doubt, what is written.
    in_hand: Portion,
    in_doubt: bool,
    /// An empty range that should be committed soon.
    is_due: bool,
    last_written: Option<Instant>,
    last_answer: Option<Instant>,
    /// When to ask next what has become of the accepted chunks, and how long to wait after that if it is nothing new.
    ask_at: Option<Instant>,
    ask_pause: Duration,
    deadline: Option<Instant>,
    /// Whether it is known that rows wait for the store at the stop.
    has_counted: bool,
}

impl Machine {
    pub(crate) fn new(settings: Settings) -> Self {
        let breaker = Breaker::new(settings.breaker_failures, settings.breaker_open_for, settings.breaker_successes);
        let backoff = Backoff::new(settings.retry_first, settings.retry_longest).seeded(settings.seed);
        Self {
            settings,
            state: State::Closed,
            breaker,
            letters_backoff: backoff.clone(),
            backoff,
            is_attempting: false,
            retry_at: None,
            synced: 0,
            arrivals: Arrivals::default(),
            lingers_since: None,
            balance: None,
            stored: None,
            accepted: VecDeque::new(),
            in_hand: Portion::new(SpoolPosition::START),
            in_doubt: false,
            is_due: false,
            last_written: None,
            last_answer: None,
            ask_at: None,
            ask_pause: ASK_APPLIED_FIRST,
            deadline: None,
            has_counted: false,
        }
    }

    /// Returns what to do now.
    pub(crate) fn next(&mut self, now: Instant) -> Do {
        match &self.state {
            State::Failed(_) | State::Ended => return Do::End,
            State::Closed | State::Opened | State::Ready | State::Built | State::Refused => {}
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Do::End;
        }
        let is_failing = self.state == State::Closed && self.backoff.attempt() > 0;
        if is_failing && self.deadline.is_some() && !self.has_counted {
            // A store that is down is not waited for with nothing to give it.
            return Do::Count;
        }
        if let Some(retry_at) = self.retry_at {
            if now < retry_at {
                return self.wait_until(retry_at);
            }
            self.retry_at = None;
        }
        match self.state {
            State::Closed => self.attempt(now, Do::Open),
            State::Opened => Do::Discard,
            State::Built => self.attempt(now, Do::Write),
            State::Refused => Do::Bury,
            State::Ready => self.next_when_ready(now),
            State::Failed(_) | State::Ended => Do::End,
        }
    }

    fn next_when_ready(&mut self, now: Instant) -> Do {
        if self.ask_at.is_some_and(|ask_at| now >= ask_at) {
            return self.attempt(now, Do::Applied);
        }
        let mut wake = self.ask_at;
        let mut wake_at = |at: Instant| wake = Some(wake.map_or(at, |known| known.min(at)));
        if !self.is_due && self.in_hand.to.offset < self.synced {
            match self.lingers_until(now) {
                None => return Do::Build,
                Some(until) => wake_at(until),
            }
        }
        if self.in_hand.to != self.in_hand.from {
            let idle_at = self.last_written.map_or(now, |last| last + IDLE_COMMIT);
            if self.is_due || now >= idle_at || self.has_read_all() && self.deadline.is_some() {
                self.state = State::Built;
                return self.attempt(now, Do::Write);
            }
            wake_at(idle_at);
        }
        if self.is_attempting {
            // It opened, and there is nothing to write: the store is well.
            self.answered(now);
        }
        if self.deadline.is_some() && self.has_read_all() {
            return Do::Close;
        }
        // A store that is asked for what it has accepted needs no other probe.
        let probe_at = (self.ask_at.is_none() && !self.settings.probe_every.is_zero())
            .then(|| self.last_answer.map_or(now, |last| last + self.settings.probe_every));
        match probe_at {
            Some(probe_at) if now >= probe_at => self.attempt(now, Do::Check),
            Some(probe_at) => self.wait_until(wake.map_or(probe_at, |at| at.min(probe_at))),
            None => Do::Wait([wake, self.deadline].into_iter().flatten().min()),
        }
    }

    /// Takes note of how something ended.
    pub(crate) fn on(&mut self, now: Instant, event: Event) {
        match event {
            Event::Synced(offset) => self.synced(now, offset),
            Event::Stop(deadline) => self.stop(deadline),
            Event::Opened { at, read_from } => self.opened(now, at, read_from),
            Event::Mismatch(text) => self.fail(text),
            Event::Failed(error) => self.failed(now, &error),
            Event::Again(error) => {
                if std::mem::take(&mut self.is_attempting) {
                    self.breaker.abandoned();
                }
                self.state = State::Closed;
                match error {
                    Some(error) if !matches!(error.kind(), Kind::Transient { .. }) => self.fail(error.chain()),
                    Some(_) => self.retry_at = Some(now + self.backoff.failed(None)),
                    None => {}
                }
            }
            Event::Built { portion, border } => {
                self.in_hand.append(&portion);
                self.is_due |= border || portion.fates.refused > 0;
                self.lingers_since = (self.in_hand.to.offset < self.synced).then_some(now);
                self.state = if portion.fates.delivered > 0 { State::Built } else { State::Ready };
                if self.in_hand.fates.delivered == 0 {
                    // Nothing that was read waits for the store.
                    self.arrivals.taken(self.in_hand.to.offset);
                }
            }
            Event::Committed => {
                let portion = self.written(now);
                self.commit_accepted();
                self.commit(&portion);
            }
            Event::Accepted => {
                let portion = self.written(now);
                if holds(Rule::AcceptedIsNotStored) {
                    self.accept(now, portion);
                } else {
                    self.commit(&portion);
                }
            }
            Event::Refused => {
                self.answered(now);
                self.in_doubt = false;
                self.state = State::Refused;
            }
            Event::Discarded => {
                self.letters_backoff.succeeded();
                self.state = State::Ready;
            }
            Event::Buried => {
                // Built again from the log, without the refused rows.
                self.in_hand = Portion::new(self.in_hand.from);
                self.is_due = false;
                self.lingers_since = None;
                self.letters_backoff.succeeded();
                self.state = State::Ready;
            }
            Event::NotBuried(_) => self.retry_at = Some(now + self.letters_backoff.failed(None)),
            Event::Applied(applied) => {
                self.answered(now);
                self.applied(now, applied);
            }
            Event::Checked => self.answered(now),
            Event::Counted(0) => self.state = State::Ended,
            Event::Counted(_) => self.has_counted = true,
            Event::Closed => {
                self.commit_accepted();
                self.state = State::Ended;
            }
            Event::NotClosed => self.state = State::Ended,
        }
    }

    /// All that waits is tried once more at once: the store may be well again, and longer pauses than this are over too late.
    fn stop(&mut self, deadline: Instant) {
        if self.deadline.is_none() {
            self.retry_at = None;
            self.breaker.end_pause();
        }
        self.deadline = Some(self.deadline.map_or(deadline, |known| known.min(deadline)));
    }

    /// Notes that a write went out: until it is answered, or the sink opened again, nobody knows whether it counts.
    pub(crate) fn is_writing(&mut self) {
        self.in_doubt = true;
    }

    /// Returns up to where the log may be read.
    pub(crate) fn readable(&self) -> u64 {
        self.synced
    }

    /// Returns what is being written: the range behind the last chunk that the store has.
    pub(crate) fn in_hand(&self) -> &Portion {
        &self.in_hand
    }

    /// Returns up to where the log was read.
    pub(crate) fn read_to(&self) -> SpoolPosition {
        self.in_hand.to
    }

    /// Returns what the store has, and what became of it; `None` until it was opened.
    pub(crate) fn balance(&self) -> Option<&Balance> {
        self.balance.as_ref()
    }

    /// Returns what the store is known to have.
    pub(crate) fn stored(&self) -> Option<SpoolPosition> {
        self.stored
    }

    /// Returns why a person is needed.
    pub(crate) fn failure(&self) -> Option<&str> {
        match &self.state {
            State::Failed(why) => Some(why),
            State::Closed | State::Opened | State::Ready | State::Built | State::Refused | State::Ended => None,
        }
    }

    /// Returns when a failed call is made again, and how many have failed in a row. The breaker may hold it back.
    pub(crate) fn retry(&self, now: Instant) -> Option<(Instant, u32)> {
        Some((self.retry_at?.max(now + self.breaker.wait(now)), self.backoff.attempt()))
    }

    /// Returns when dead letters are written again, and how often that has failed in a row.
    pub(crate) fn letters_retry(&self) -> Option<(Instant, u32)> {
        Some((self.retry_at?, self.letters_backoff.attempt()))
    }

    /// Returns when the oldest row that is not committed could be read first.
    pub(crate) fn uncommitted_since(&self) -> Option<Instant> {
        self.accepted_since().or_else(|| self.untaken_since())
    }

    /// Returns when the oldest row could be read first that the store has accepted and not yet made durable.
    pub(crate) fn accepted_since(&self) -> Option<Instant> {
        self.accepted.iter().find_map(|accepted| accepted.since)
    }

    /// Returns when the oldest row that the store has neither committed nor accepted could be read first.
    pub(crate) fn untaken_since(&self) -> Option<Instant> {
        if self.has_given_all() { None } else { self.arrivals.oldest() }
    }

    /// Returns how many rows the store has accepted and not yet made durable.
    pub(crate) fn accepted_rows(&self) -> u64 {
        self.accepted.iter().map(|accepted| accepted.portion.fates.delivered).sum()
    }

    /// Returns the time at which to give up, once the pipeline stops.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(crate) fn breaker(&self, now: Instant) -> BreakerSnapshot {
        self.breaker.snapshot(now)
    }

    /// Returns whether everything that may be read was committed.
    pub(crate) fn is_idle(&self) -> bool {
        self.has_given_all() && self.accepted.is_empty()
    }

    /// Returns whether the store has taken all rows that may be read.
    fn has_given_all(&self) -> bool {
        self.state == State::Ready && self.has_read_all() && self.in_hand.fates.delivered == 0
    }

    #[cfg(test)]
    pub(super) fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    fn has_read_all(&self) -> bool {
        self.in_hand.to.offset >= self.synced
    }

    /// Lets a call out if the breaker does. What was begun by opening goes on as the same attempt.
    fn attempt(&mut self, now: Instant, call: Do) -> Do {
        if self.is_attempting || self.breaker.allow(now) {
            self.is_attempting = true;
            return call;
        }
        let at = now + self.breaker.wait(now);
        self.wait_until(at)
    }

    fn wait_until(&self, at: Instant) -> Do {
        Do::Wait(Some(self.deadline.map_or(at, |deadline| at.min(deadline))))
    }

    /// Returns until when to wait for more rows, if at all.
    fn lingers_until(&self, now: Instant) -> Option<Instant> {
        let waiting = self.synced - self.in_hand.to.offset;
        if self.settings.linger.is_zero() || waiting >= self.settings.batch_rows as u64 || self.deadline.is_some() {
            return None;
        }
        let until = self.lingers_since? + self.settings.linger;
        (now < until).then_some(until)
    }

    fn synced(&mut self, now: Instant, offset: u64) {
        if offset <= self.synced {
            return;
        }
        self.synced = offset;
        self.lingers_since.get_or_insert(now);
        self.arrivals.came(now, offset);
    }

    fn opened(&mut self, now: Instant, at: SpoolPosition, read_from: SpoolPosition) {
        self.settle(at);
        let base = if at == SpoolPosition::START { read_from } else { at };
        if self.balance.as_ref().is_none_or(|balance| balance.upto != base) {
            self.balance = Some(Balance::new(base));
        }
        self.stored = (at != SpoolPosition::START).then_some(at);
        self.in_hand = Portion { from: at, ..Portion::new(read_from) };
        self.ask_at = None;
        // The beginning of a sink that was never written to is fixed before anything else.
        self.is_due = at != read_from;
        self.last_answer = Some(now);
        self.last_written.get_or_insert(now);
        self.lingers_since = None;
        self.state = State::Opened;
    }

    /// Counts the chunks that turn out to be stored: accepted ones, and the one in doubt.
    fn settle(&mut self, at: SpoolPosition) {
        let in_doubt = std::mem::take(&mut self.in_doubt).then_some(Accepted { portion: self.in_hand, since: None });
        let mut candidates: VecDeque<Accepted> = self.accepted.drain(..).chain(in_doubt).collect();
        let stored = candidates.iter().position(|candidate| candidate.portion.to == at).map_or(0, |last| last + 1);
        for candidate in candidates.drain(..stored) {
            self.commit(&candidate.portion);
        }
        // The rest is given again, and has waited since it came.
        let since = candidates.iter().find_map(|candidate| candidate.since);
        if let (Some(since), Some(newest)) = (since, candidates.back()) {
            self.arrivals.came_back(since, newest.portion.to.offset);
        }
    }

    fn commit_accepted(&mut self) {
        self.ask_at = None;
        while let Some(oldest) = self.accepted.pop_front() {
            self.commit(&oldest.portion);
        }
    }

    fn commit(&mut self, portion: &Portion) {
        let balance = self.balance.get_or_insert_with(|| Balance::new(portion.from));
        balance.commit(portion);
        self.stored = Some(portion.to);
        self.arrivals.taken(portion.to.offset);
    }

    /// The chunk in hand was taken: the next one begins behind it.
    fn written(&mut self, now: Instant) -> Portion {
        self.answered(now);
        self.in_doubt = false;
        self.is_due = false;
        self.last_written = Some(now);
        self.state = State::Ready;
        let next = Portion::new(self.in_hand.to);
        std::mem::replace(&mut self.in_hand, next)
    }

    /// Bounded, however long the store takes: the newest chunks are told apart no more, and count together.
    fn accept(&mut self, now: Instant, portion: Portion) {
        let since = self.arrivals.taken(portion.to.offset);
        let is_full = self.accepted.len() >= MOST_ACCEPTED;
        match self.accepted.back_mut().filter(|_| is_full) {
            Some(newest) => newest.append(&Accepted { portion, since }),
            None => self.accepted.push_back(Accepted { portion, since }),
        }
        self.ask_at.get_or_insert(now + ASK_APPLIED_FIRST);
    }

    fn applied(&mut self, now: Instant, applied: Option<SpoolPosition>) {
        let before = self.accepted.len();
        while let Some(Accepted { portion, .. }) = self.accepted.front().copied() {
            if applied.is_none_or(|applied| portion.to.offset > applied.offset) {
                break;
            }
            self.accepted.pop_front();
            self.commit(&portion);
        }
        let is_news = self.accepted.len() < before;
        self.ask_pause = if is_news { ASK_APPLIED_FIRST } else { (2 * self.ask_pause).min(ASK_APPLIED_LONGEST) };
        self.ask_at = (!self.accepted.is_empty()).then_some(now + self.ask_pause);
    }

    /// The store answered, so it lives.
    fn answered(&mut self, now: Instant) {
        if std::mem::take(&mut self.is_attempting) {
            self.breaker.succeeded();
        }
        self.backoff.succeeded();
        self.last_answer = Some(now);
    }

    fn failed(&mut self, now: Instant, error: &Error) {
        self.is_attempting = false;
        self.breaker.failed(now, error.chain());
        match error.kind() {
            Kind::Transient { retry_after } => {
                self.retry_at = Some(now + self.backoff.failed(retry_after));
                if holds(Rule::OpenAgain) || self.state != State::Built {
                    self.state = State::Closed;
                }
            }
            // `Malformed` blames a row, which only `Written::Refused` may do: anything else must not turn the log into
            // dead letters.
            Kind::Malformed | Kind::Permanent | Kind::Config => self.fail(error.chain()),
        }
    }

    fn fail(&mut self, why: String) {
        if std::mem::take(&mut self.is_attempting) {
            self.breaker.abandoned();
        }
        self.state = State::Failed(why);
    }
}

/// How long a quiet sink's position may stand still.
const IDLE_COMMIT: Duration = Duration::from_secs(10);

/// How many chunks that are accepted and not yet durable are told apart.
const MOST_ACCEPTED: usize = 16;

/// How soon to ask whether accepted chunks are durable, and how often at least: each time in vain doubles the pause.
const ASK_APPLIED_FIRST: Duration = Duration::from_millis(10);
const ASK_APPLIED_LONGEST: Duration = Duration::from_secs(1);
