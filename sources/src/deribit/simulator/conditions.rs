//! What is wrong with the venue for a while, and whether it is right now.

use std::time::{Duration, Instant};

/// Something that is wrong for a while.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// Replies come late, on the WebSocket and by REST; live messages do not wait for them.
    Slow {
        /// By how much.
        by: Duration,
    },
    /// REST answers 429.
    Http429 {
        /// What `Retry-After` says, in whole seconds.
        retry_after: Duration,
    },
    /// REST answers 503 with a text that is no JSON.
    Http5xx,
    /// REST connections are reset.
    RestDown,
    /// The main REST host does not know the newest trades yet.
    RestLag {
        /// How far it is behind.
        by: Duration,
    },
    /// Channels are silently left out of what is accepted.
    Refuse {
        /// Those with this in their name; empty is all.
        containing: String,
    },
    /// Subscriptions are answered with an error, as during a settlement.
    PutOff {
        /// The error's code.
        code: i64,
    },
    /// Every request of a WebSocket session, logging in included, is answered with 13009.
    Unauthorised,
    /// The venue's clock is wrong.
    Skew {
        /// By how much; negative is behind.
        by_ms: i64,
    },
    /// New connections are accepted and never spoken to.
    NeverSpeak,
    /// A WebSocket handshake is answered with a web page.
    PlainHttp,
    /// Replies say the other `testnet` than the venue is.
    WrongTestnet,
}

/// Everything wrong and when it ends.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    active: Vec<(Instant, Condition)>,
}

impl Conditions {
    pub(super) fn begin(&mut self, condition: Condition, now: Instant, lasting: Duration) {
        self.active.retain(|(until, _)| *until > now);
        self.active.push((now + lasting, condition));
    }

    /// Ends all of it.
    pub(super) fn clear(&mut self) {
        self.active.clear();
    }

    /// Returns by how much replies are late.
    pub(super) fn slow(&self, now: Instant) -> Option<Duration> {
        self.find(now, |one| if let Condition::Slow { by } = one { Some(*by) } else { None })
    }

    /// Returns the `Retry-After` of a REST that answers 429.
    pub(super) fn too_many(&self, now: Instant) -> Option<Duration> {
        self.find(now, |one| if let Condition::Http429 { retry_after } = one { Some(*retry_after) } else { None })
    }

    pub(super) fn rest_fails(&self, now: Instant) -> bool {
        self.is(now, |one| matches!(one, Condition::Http5xx))
    }

    pub(super) fn rest_down(&self, now: Instant) -> bool {
        self.is(now, |one| matches!(one, Condition::RestDown))
    }

    /// Returns by how much the main REST host is behind.
    pub(super) fn rest_lag(&self, now: Instant) -> Option<Duration> {
        self.find(now, |one| if let Condition::RestLag { by } = one { Some(*by) } else { None })
    }

    pub(super) fn refuses(&self, now: Instant, channel: &str) -> bool {
        self.is(now, |one| matches!(one, Condition::Refuse { containing } if channel.contains(containing.as_str())))
    }

    /// Returns the error with which subscriptions are answered.
    pub(super) fn puts_off(&self, now: Instant) -> Option<i64> {
        self.find(now, |one| if let Condition::PutOff { code } = one { Some(*code) } else { None })
    }

    pub(super) fn unauthorised(&self, now: Instant) -> bool {
        self.is(now, |one| matches!(one, Condition::Unauthorised))
    }

    /// Returns by how many milliseconds the venue's clock is wrong.
    pub(super) fn skew_ms(&self, now: Instant) -> i64 {
        self.find(now, |one| if let Condition::Skew { by_ms } = one { Some(*by_ms) } else { None }).unwrap_or(0)
    }

    pub(super) fn never_speaks(&self, now: Instant) -> bool {
        self.is(now, |one| matches!(one, Condition::NeverSpeak))
    }

    pub(super) fn speaks_plain_http(&self, now: Instant) -> bool {
        self.is(now, |one| matches!(one, Condition::PlainHttp))
    }

    pub(super) fn wrong_testnet(&self, now: Instant) -> bool {
        self.is(now, |one| matches!(one, Condition::WrongTestnet))
    }

    fn is(&self, now: Instant, test: impl Fn(&Condition) -> bool) -> bool {
        self.find(now, |one| test(one).then_some(())).is_some()
    }

    /// The latest one counts.
    fn find<T>(&self, now: Instant, value: impl Fn(&Condition) -> Option<T>) -> Option<T> {
        self.active.iter().rev().filter(|(until, _)| *until > now).find_map(|(_, one)| value(one))
    }
}
