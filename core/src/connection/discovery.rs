//! When to ask the venue which channels there are.

use std::time::Duration;

use tokio::time::Instant;

use crate::policy::Backoff;

/// The timer of discovery. Reads no clock.
#[derive(Debug)]
pub(super) struct Discovery {
    refresh: Option<Duration>,
    backoff: Backoff,
    /// When to ask; `None` while an answer is awaited, or when there is no need to ask again.
    due: Option<Instant>,
    last: Option<Instant>,
    is_asked: bool,
    /// Somebody wanted it again while it was under way.
    is_wanted_again: bool,
}

impl Discovery {
    /// Returns a discovery that is due now, and again after each `refresh`.
    pub(super) fn new(refresh: Option<Duration>, backoff: Backoff, now: Instant) -> Self {
        Self { refresh, backoff, due: Some(now), last: None, is_asked: false, is_wanted_again: false }
    }

    /// Begins if it is due, and returns whether it has begun.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let begins = !self.is_asked && self.due.is_some_and(|due| due <= now);
        if begins {
            self.is_asked = true;
            self.due = None;
        }
        begins
    }

    /// Wants it again: soon, but not at every frame that says so.
    pub(super) fn wish(&mut self, now: Instant) {
        if self.is_asked {
            self.is_wanted_again = true;
            return;
        }
        let soon = self.last.map_or(now, |last| now.max(last + PAUSE));
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }

    /// Notes that the channels were found.
    pub(super) fn succeeded(&mut self, now: Instant) {
        self.is_asked = false;
        self.backoff.succeeded();
        self.last = Some(now);
        self.due = self.refresh.map(|refresh| now + refresh);
        if std::mem::take(&mut self.is_wanted_again) {
            self.wish(now);
        }
    }

    /// Notes that it failed, and returns the pause before the next try.
    pub(super) fn failed(&mut self, retry_after: Option<Duration>, now: Instant) -> Duration {
        self.is_asked = false;
        let pause = self.pause(retry_after);
        self.due = Some(now + pause);
        pause
    }

    /// Returns the pause before a call that got no answer is made again.
    pub(super) fn pause(&mut self, retry_after: Option<Duration>) -> Duration {
        self.backoff.failed(retry_after)
    }

    /// Begins from the beginning, after a pause: whoever knew the last answers is gone.
    pub(super) fn restart(&mut self, now: Instant) {
        self.is_wanted_again = false;
        self.failed(None, now);
    }

    /// Returns when it is due.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.due
    }
}

/// The shortest time between two discoveries.
const PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn is_due_at_once_and_then_at_each_refresh() {
        let (mut discovery, start) = discovery();
        assert!(discovery.begin(start));
        assert!(!discovery.begin(start), "it is under way");
        discovery.succeeded(start);
        assert!(!discovery.begin(start + SECOND * 59));
        assert!(discovery.begin(start + SECOND * 60));
    }

    #[test]
    fn a_wish_is_heard_soon_but_not_at_every_frame() {
        let (mut discovery, start) = discovery();
        discovery.begin(start);
        discovery.wish(start);
        discovery.succeeded(start);
        assert_eq!(discovery.next_at(), Some(start + SECOND * 5), "wished for while it was under way");
        for _ in 0..100 {
            discovery.wish(start + SECOND);
        }
        assert_eq!(discovery.next_at(), Some(start + SECOND * 5));
    }

    #[test]
    fn a_failure_is_tried_again_after_a_pause() {
        let (mut discovery, start) = discovery();
        discovery.begin(start);
        let pause = discovery.failed(Some(SECOND * 9), start);
        assert!(pause >= SECOND * 9);
        assert!(!discovery.begin(start + SECOND * 8));
        assert!(discovery.begin(start + pause));
    }

    fn discovery() -> (Discovery, Instant) {
        let start = Instant::now();
        (Discovery::new(Some(SECOND * 60), Backoff::new(SECOND, SECOND * 60), start), start)
    }
}
