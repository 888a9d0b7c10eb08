//! What is subscribed to, what should be, and what to ask of the venue next.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{http::Rate, protocol::Limits};

/// The channels of one connection: the wanted ones against those that the venue has confirmed.
///
/// Reads no clock and sends nothing: [`poll`](Self::poll) says which request is due.
#[derive(Debug)]
pub(super) struct Subscriptions {
    channels: BTreeMap<Arc<str>, Channel>,
    channels_per_message: usize,
    bytes_per_message: usize,
    /// Shared with the other connections to the host.
    rate: Option<Rate>,
    timeout: Duration,
    /// The handshake is done.
    is_ready: bool,
    /// Nothing is due before this; `None` when nothing is waited for at all.
    look_at: Option<Instant>,
}

/// A request that is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asking {
    /// Subscribe to these.
    Subscribe(Vec<Arc<str>>),
    /// End these.
    Unsubscribe(Vec<Arc<str>>),
}

/// Channels for which an answer is overdue.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Overdue {
    /// Neither confirmed nor refused. They are asked for again, after a growing pause.
    pub(super) unanswered: Vec<Arc<str>>,
    /// Not said to have ended. Counted as ended.
    pub(super) unended: Vec<Arc<str>>,
}

/// How many channels are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) wanted: usize,
    pub(super) confirmed: usize,
    pub(super) refused: usize,
    /// Asked for at least once, and not answered in time.
    pub(super) unanswered: usize,
    /// Never asked for in this session, or asked for and still in time.
    pub(super) open: usize,
}

#[derive(Debug)]
struct Channel {
    is_wanted: bool,
    state: State,
    /// Times in a row that the venue did not answer, or that the channel had to be begun anew.
    tries: u32,
    /// Times that the venue refused it in this session.
    refusals: u32,
    /// When it was begun anew last.
    renewed_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be asked for, not before this.
    Waiting {
        not_before: Option<Instant>,
    },
    Asked {
        deadline: Instant,
    },
    Confirmed,
    /// To be asked for again at this time.
    Refused {
        until: Instant,
    },
    /// To be ended, not before this.
    Leaving {
        not_before: Option<Instant>,
        was_confirmed: bool,
    },
    Ending {
        deadline: Instant,
        was_confirmed: bool,
    },
}

const WAITING: State = State::Waiting { not_before: None };

impl Subscriptions {
    /// Returns an empty set.
    pub(super) fn new(limits: &Limits, timeout: Duration) -> Self {
        Self {
            channels: BTreeMap::new(),
            channels_per_message: limits.channels_per_message.unwrap_or(usize::MAX).max(1),
            bytes_per_message: limits.bytes_per_message.unwrap_or(usize::MAX),
            rate: None,
            timeout,
            is_ready: false,
            look_at: None,
        }
    }

    /// Keeps to a rate from here on.
    pub(super) fn keep_to(&mut self, rate: Option<Rate>) {
        self.rate = rate;
    }

    /// Takes a new set of wanted channels. Channels in both sets are left alone, but those that were refused are asked
    /// for again at once.
    pub(super) fn want(&mut self, wanted: &[String], now: Instant) {
        for channel in self.channels.values_mut() {
            channel.is_wanted = false;
        }
        for name in wanted {
            if let Some(channel) = self.channels.get_mut(name.as_str()) {
                channel.is_wanted = true;
                if matches!(channel.state, State::Refused { .. }) {
                    channel.state = WAITING;
                }
                continue;
            }
            self.channels.insert(name.as_str().into(), Channel::wanted());
        }
        self.channels.retain(|_, channel| channel.is_wanted || channel.leave());
        self.look_at = Some(now);
    }

    /// Begins a session: nothing is subscribed to.
    pub(super) fn reset(&mut self) {
        self.is_ready = false;
        self.channels.retain(|_, channel| channel.is_wanted);
        for channel in self.channels.values_mut() {
            *channel = Channel::wanted();
        }
        self.look_at = None;
    }

    /// Says that the handshake is done.
    pub(super) fn ready(&mut self, now: Instant) {
        self.is_ready = true;
        self.look_at = Some(now);
    }

    /// Returns whether the handshake is done.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Returns for how long a channel waits for its answer; `None` where none is asked for.
    pub(super) fn waits(&self, name: &str, now: Instant) -> Option<Duration> {
        let State::Asked { deadline } = self.channels.get(name)?.state else { return None };
        Some(self.timeout.saturating_sub(deadline.saturating_duration_since(now)))
    }

    /// Notes that the venue confirmed a channel, and returns whether that is news: from now on it vouches for it.
    pub(super) fn confirmed(&mut self, name: &str) -> bool {
        let Some(channel) = self.channels.get_mut(name) else { return false };
        channel.refusals = 0;
        match &mut channel.state {
            State::Confirmed => false,
            State::Leaving { was_confirmed, .. } | State::Ending { was_confirmed, .. } => {
                !std::mem::replace(was_confirmed, true)
            }
            State::Waiting { .. } | State::Asked { .. } | State::Refused { .. } => {
                channel.state = State::Confirmed;
                true
            }
        }
    }

    /// Notes that the venue will not serve a channel, and returns the pause after which it is asked for again; `None` if
    /// it was not wanted.
    pub(super) fn refused(&mut self, name: &str, now: Instant) -> Option<Duration> {
        let channel = self.channels.get_mut(name)?;
        if !channel.is_wanted {
            self.channels.remove(name);
            return None;
        }
        let pause = REFUSED_PAUSE.saturating_mul(1 << channel.refusals.min(16)).min(LONGEST_REFUSED_PAUSE);
        channel.refusals = channel.refusals.saturating_add(1);
        channel.state = State::Refused { until: now + pause };
        self.look_at = Some(self.look_at.map_or(now + pause, |at| at.min(now + pause)));
        Some(pause)
    }

    /// Returns whether a channel is wanted.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.channels.get(name).is_some_and(|channel| channel.is_wanted)
    }

    /// Notes that the venue has ended a channel, and returns whether it had been confirmed. One that is still wanted is
    /// asked for again: at once if the end was asked for, else after a pause, since the venue had its reasons.
    pub(super) fn unsubscribed(&mut self, name: &str, now: Instant) -> bool {
        let Some(channel) = self.channels.get_mut(name) else { return false };
        let was_confirmed = channel.was_confirmed();
        if !channel.is_wanted {
            self.channels.remove(name);
            return was_confirmed;
        }
        let asked = matches!(channel.state, State::Ending { .. });
        channel.state = if asked { WAITING } else { channel.wait(now, self.timeout) };
        self.look_at = Some(now);
        was_confirmed
    }

    /// Ends a confirmed channel and begins it anew, at the second time in a row after a growing pause.
    pub(super) fn renew(&mut self, name: &str, now: Instant) {
        let Some(channel) = self.channels.get_mut(name) else { return };
        if channel.state != State::Confirmed {
            return;
        }
        if channel.renewed_at.is_some_and(|at| now.saturating_duration_since(at) > FORGIVEN_AFTER) {
            channel.tries = 0;
        }
        let pause = if channel.tries == 0 { Duration::ZERO } else { growing(RENEW_PAUSE, channel.tries - 1) };
        channel.tries = channel.tries.saturating_add(1);
        channel.renewed_at = Some(now);
        channel.state = State::Leaving { not_before: Some(now + pause), was_confirmed: true };
        self.look_at = Some(now);
    }

    /// Returns the channels for which an answer is overdue, each time once.
    pub(super) fn overdue(&mut self, now: Instant) -> Overdue {
        let mut overdue = Overdue::default();
        if self.look_at.is_none_or(|at| at > now) {
            return overdue;
        }
        for (name, channel) in &mut self.channels {
            match channel.state {
                State::Asked { deadline } if deadline <= now => {
                    channel.state = channel.wait(now, self.timeout);
                    overdue.unanswered.push(Arc::clone(name));
                }
                State::Ending { deadline, was_confirmed } if deadline <= now => {
                    if was_confirmed {
                        overdue.unended.push(Arc::clone(name));
                    }
                    channel.state = WAITING;
                }
                State::Asked { .. }
                | State::Ending { .. }
                | State::Waiting { .. }
                | State::Leaving { .. }
                | State::Confirmed
                | State::Refused { .. } => {}
            }
        }
        self.channels.retain(|_, channel| channel.is_wanted || !matches!(channel.state, State::Waiting { .. }));
        overdue
    }

    /// Returns the next request, if one is due.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Asking> {
        if !self.is_ready || self.look_at.is_none_or(|at| at > now) {
            return None;
        }
        let ending = self.batch(|state| matches!(state, State::Leaving { not_before, .. } if due(not_before, now)));
        let is_ending = !ending.is_empty();
        let batch = if is_ending {
            ending
        } else {
            self.batch(|state| match state {
                State::Waiting { not_before } => due(not_before, now),
                State::Refused { until } => until <= now,
                State::Asked { .. } | State::Confirmed | State::Leaving { .. } | State::Ending { .. } => false,
            })
        };
        if batch.is_empty() || !self.rate.as_ref().is_none_or(|rate| rate.take(now)) {
            self.look_at = self.next_look(now, !batch.is_empty());
            return None;
        }
        let deadline = now + self.timeout;
        for name in &batch {
            let Some(channel) = self.channels.get_mut(name) else { continue };
            channel.state = if is_ending {
                State::Ending { deadline, was_confirmed: channel.was_confirmed() }
            } else {
                State::Asked { deadline }
            };
        }
        Some(if is_ending { Asking::Unsubscribe(batch) } else { Asking::Subscribe(batch) })
    }

    /// Returns when to look again.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.look_at.filter(|_| self.is_ready)
    }

    /// Returns how many channels are in which state.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for channel in self.channels.values().filter(|channel| channel.is_wanted) {
            counts.wanted += 1;
            match channel.state {
                State::Confirmed | State::Leaving { .. } | State::Ending { .. } => counts.confirmed += 1,
                State::Refused { .. } => counts.refused += 1,
                // Asked for again after a refusal, it is refused until the venue says otherwise.
                _ if channel.refusals > 0 => counts.refused += 1,
                _ if channel.tries > 0 && channel.renewed_at.is_none() => counts.unanswered += 1,
                State::Waiting { .. } | State::Asked { .. } => counts.open += 1,
            }
        }
        counts
    }

    /// Returns the wanted channels that the venue refused.
    pub(super) fn refusals(&self) -> impl Iterator<Item = &str> {
        let refused = |channel: &Channel| channel.is_wanted && matches!(channel.state, State::Refused { .. });
        self.channels.iter().filter(move |(_, channel)| refused(channel)).map(|(name, _)| &**name)
    }

    /// Returns the channels for which the venue vouches.
    pub(super) fn vouched(&self) -> impl Iterator<Item = &str> {
        self.channels.iter().filter(|(_, channel)| channel.was_confirmed()).map(|(name, _)| &**name)
    }

    /// Returns as many names as one message may hold.
    fn batch(&self, is_due: impl Fn(State) -> bool) -> Vec<Arc<str>> {
        let mut batch = Vec::new();
        let mut bytes = ENVELOPE;
        for (name, _) in self.channels.iter().filter(|(_, channel)| is_due(channel.state)) {
            bytes += name.len() + PER_CHANNEL;
            let is_full = batch.len() >= self.channels_per_message || bytes > self.bytes_per_message;
            if is_full && !batch.is_empty() {
                break;
            }
            batch.push(Arc::clone(name));
        }
        batch
    }

    fn next_look(&self, now: Instant, is_rate_limited: bool) -> Option<Instant> {
        let of_state = |channel: &Channel| match channel.state {
            State::Waiting { not_before } | State::Leaving { not_before, .. } => not_before.filter(|at| *at > now),
            State::Asked { deadline } | State::Ending { deadline, .. } => Some(deadline),
            State::Refused { until } => Some(until).filter(|at| *at > now),
            State::Confirmed => None,
        };
        let rate = self.rate.as_ref().filter(|_| is_rate_limited).map(|rate| now + rate.wait(now));
        self.channels.values().filter_map(of_state).chain(rate).min()
    }
}

impl Channel {
    fn wanted() -> Self {
        Self { is_wanted: true, state: WAITING, tries: 0, refusals: 0, renewed_at: None }
    }

    fn was_confirmed(&self) -> bool {
        match self.state {
            State::Confirmed => true,
            State::Leaving { was_confirmed, .. } | State::Ending { was_confirmed, .. } => was_confirmed,
            State::Waiting { .. } | State::Asked { .. } | State::Refused { .. } => false,
        }
    }

    /// Ends a channel that is no longer wanted, and returns whether the venue has to be told.
    fn leave(&mut self) -> bool {
        match self.state {
            State::Waiting { .. } | State::Refused { .. } => return false,
            State::Confirmed => self.state = State::Leaving { not_before: None, was_confirmed: true },
            State::Asked { .. } => self.state = State::Leaving { not_before: None, was_confirmed: false },
            State::Leaving { was_confirmed, .. } => self.state = State::Leaving { not_before: None, was_confirmed },
            State::Ending { .. } => {}
        }
        true
    }

    /// Returns the state of waiting for the next try.
    fn wait(&mut self, now: Instant, pause: Duration) -> State {
        let not_before = Some(now + growing(pause, self.tries));
        self.tries = self.tries.saturating_add(1);
        State::Waiting { not_before }
    }
}

fn due(not_before: Option<Instant>, now: Instant) -> bool {
    not_before.is_none_or(|at| at <= now)
}

fn growing(pause: Duration, tries: u32) -> Duration {
    pause.saturating_mul(1 << tries.min(16)).min(LONGEST_PAUSE)
}

/// What a request holds besides its channels, generously.
const ENVELOPE: usize = 256;
/// Quotes and a comma.
const PER_CHANNEL: usize = 3;
const RENEW_PAUSE: Duration = Duration::from_secs(1);
/// Before a refused channel is asked for again. A venue that is asked too often may end the session.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_REFUSED_PAUSE: Duration = Duration::from_secs(3_600);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A channel that held for this long is no longer suspected.
const FORGIVEN_AFTER: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests;
