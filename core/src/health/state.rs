//! The state machine of a stage: which moves there are, and which of them are worth a line in the log.

use std::fmt;

use serde::Serialize;
use tokio::time::Instant;

/// How a stage is doing. The order is from well to ill, so that the worst of many is their maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Does what it should.
    Healthy,
    /// Has not done anything yet.
    Starting,
    /// Does less than it should and mends itself.
    Degraded,
    /// Ended as it was told to.
    Stopped,
    /// Does nothing until a person acts.
    Failed,
}

/// A state, why, and since when.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub(super) status: Status,
    /// Says what happens next.
    pub(super) reason: String,
    pub(super) since: Instant,
    /// The words of the last reason that was reported, without its numbers.
    words: String,
}

/// What a move has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    /// There is no such move; nothing has changed.
    Refused,
    /// Nothing that anybody would want to read again.
    Silent,
    /// The state or the reason is another one.
    Told { from: Status },
}

impl Status {
    /// Returns whether a monitor should be content: a stage that is ill but mends itself is.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Healthy | Self::Degraded)
    }

    /// Returns the number that stands for it in the metrics: the worse, the higher.
    pub(super) fn number(self) -> f64 {
        f64::from(self as u8)
    }

    fn may_become(self, next: Self) -> bool {
        match self {
            Self::Starting => true,
            Self::Healthy | Self::Degraded => next != Self::Starting,
            Self::Failed => matches!(next, Self::Failed | Self::Stopped),
            Self::Stopped => next == Self::Stopped,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "healthy",
            Self::Starting => "starting",
            Self::Degraded => "degraded",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        })
    }
}

impl Standing {
    pub(super) fn new(now: Instant) -> Self {
        Self { status: Status::Starting, reason: String::new(), since: now, words: String::new() }
    }

    /// Goes to `status` if there is such a move.
    pub(super) fn move_to(&mut self, status: Status, reason: String, now: Instant) -> Move {
        if !self.status.may_become(status) {
            return Move::Refused;
        }
        self.change(status, reason, now)
    }

    /// Begins anew, from any state: the only way out of `Failed` and `Stopped`.
    pub(super) fn restart(&mut self, reason: String, now: Instant) -> Move {
        self.change(Status::Starting, reason, now)
    }

    fn change(&mut self, status: Status, reason: String, now: Instant) -> Move {
        let from = self.status;
        let words = words(&reason);
        // That all is well is told once, however it is put.
        let is_news = from != status || status != Status::Healthy && words != self.words;
        self.reason = reason;
        if from != status {
            self.status = status;
            self.since = now;
        }
        if !is_news {
            return Move::Silent;
        }
        self.words = words;
        Move::Told { from }
    }
}

/// Returns a reason without its numbers and their units, so that `in 900 ms (attempt 1)` equals `in 1m 30s (attempt 7)`.
fn words(reason: &str) -> String {
    let mut words = Vec::new();
    let mut after_number = false;
    for word in reason.split_whitespace() {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
        if bare.starts_with(|c: char| c.is_ascii_digit()) {
            after_number = true;
        } else if !(after_number && UNITS.contains(&bare)) {
            after_number = false;
            words.push(word);
        }
    }
    words.join(" ")
}

const UNITS: [&str; 10] = ["ns", "us", "µs", "ms", "s", "sec", "min", "m", "h", "d"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degraded_and_healthy_follow_each_other_and_each_change_is_told() {
        let mut standing = standing();
        assert_eq!(go(&mut standing, Status::Healthy, "subscribed"), Move::Told { from: Status::Starting });
        assert_eq!(go(&mut standing, Status::Degraded, "connection lost"), Move::Told { from: Status::Healthy });
        assert_eq!(go(&mut standing, Status::Healthy, "subscribed"), Move::Told { from: Status::Degraded });
        assert_eq!(go(&mut standing, Status::Degraded, "connection lost"), Move::Told { from: Status::Healthy });
    }

    #[test]
    fn nothing_leaves_failed_or_stopped_but_a_restart() {
        for end in [Status::Failed, Status::Stopped] {
            let mut standing = standing();
            go(&mut standing, end, "the end");
            for next in [Status::Starting, Status::Healthy, Status::Degraded] {
                assert_eq!(go(&mut standing, next, "as if nothing had happened"), Move::Refused, "{end} → {next}");
                assert_eq!((standing.status, standing.reason.as_str()), (end, "the end"));
            }
            assert_eq!(standing.restart("again".into(), Instant::now()), Move::Told { from: end });
            assert_eq!(go(&mut standing, Status::Healthy, "subscribed"), Move::Told { from: Status::Starting });
        }
    }

    #[test]
    fn a_failed_stage_may_still_be_stopped_and_a_stopped_one_cannot_fail() {
        let mut standing = standing();
        go(&mut standing, Status::Failed, "password refused");
        assert_eq!(go(&mut standing, Status::Stopped, "told to"), Move::Told { from: Status::Failed });
        assert_eq!(go(&mut standing, Status::Failed, "late"), Move::Refused);
    }

    #[test]
    fn reasons_that_differ_in_numbers_only_are_told_once_and_the_newest_is_shown() {
        let mut standing = standing();
        go(&mut standing, Status::Degraded, "connection lost: no pong for 10 s; trying again in 900 ms (attempt 1)");
        let again = "connection lost: no pong for 1m 30s; trying again in 1.5 s (attempt 12)";
        assert_eq!(go(&mut standing, Status::Degraded, again), Move::Silent);
        assert_eq!(standing.reason, again);
        let other = "connection refused; trying again in 1 s (attempt 13)";
        assert_eq!(go(&mut standing, Status::Degraded, other), Move::Told { from: Status::Degraded });
    }

    #[test]
    fn names_with_digits_are_no_numbers() {
        assert_ne!(words("`db1` refused"), words("`db2` refused"));
        assert_eq!(words("stored 1,204 rows in 3 s."), words("stored 7 rows in 12 ms."));
        assert_eq!(words("waits 3 s"), words("waits 3s"));
        assert_ne!(words("m is unknown"), words("s is unknown"), "a unit only after a number");
    }

    #[test]
    fn the_time_of_a_state_is_that_of_its_beginning() {
        let mut standing = standing();
        let begin = Instant::now();
        standing.move_to(Status::Degraded, "connection lost".into(), begin);
        standing.move_to(Status::Degraded, "refused".into(), begin + std::time::Duration::from_secs(9));
        assert_eq!(standing.since, begin);
    }

    fn standing() -> Standing {
        Standing::new(Instant::now())
    }

    fn go(standing: &mut Standing, status: Status, reason: &str) -> Move {
        standing.move_to(status, reason.into(), Instant::now())
    }
}
