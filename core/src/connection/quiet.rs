//! Subscriptions that are confirmed and bring nothing, while others do.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::row::Timestamp;

/// Looks from time to time which channels are quiet. Reads no clock, and compares no times of the wall clock, which may be
/// set: a channel has spoken when the time at which it was heard last is another than at the last look.
#[derive(Debug)]
pub(super) struct Quiet {
    after: Duration,
    look_at: Option<Instant>,
    channels: HashMap<Box<str>, Channel>,
}

/// What was seen of a confirmed channel.
#[derive(Debug)]
struct Channel {
    /// When it was heard last; as long as it was not, when it was confirmed.
    heard: Timestamp,
    /// When that was seen first.
    since: Instant,
    has_spoken: bool,
    /// It is quiet, and was said to be.
    is_told: bool,
}

/// What has changed since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    /// Subscribed, but never a message.
    pub(super) never: Vec<String>,
    /// A message once, then no more.
    pub(super) ceased: Vec<String>,
    /// Quiet, and then a message.
    pub(super) again: Vec<String>,
}

impl Quiet {
    /// Returns a look that calls a channel quiet after so long; zero turns it off.
    pub(super) fn new(after: Duration) -> Self {
        Self { after, look_at: None, channels: HashMap::new() }
    }

    /// Notes that a channel was confirmed.
    pub(super) fn confirmed(&mut self, channel: &str, at: Timestamp, now: Instant) {
        if self.after.is_zero() {
            return;
        }
        self.channels.insert(channel.into(), Channel { heard: at, since: now, has_spoken: false, is_told: false });
        let first = now + self.pause().min(self.after);
        self.look_at.get_or_insert(first);
    }

    /// Forgets a channel.
    pub(super) fn ended(&mut self, channel: &str) {
        self.channels.remove(channel);
    }

    /// Looks, given when each channel was heard last, and returns those that have become quiet, and those that no longer are.
    /// Calls none quiet when all are: then it is the connection that is silent, or the venue that is closed.
    pub(super) fn look<'c>(&mut self, heard: impl Iterator<Item = (&'c str, Timestamp)>, now: Instant) -> Changed {
        self.look_at = Some(now + self.pause());
        let mut changed = Changed::default();
        for (name, at) in heard {
            let Some(channel) = self.channels.get_mut(name).filter(|channel| channel.heard != at) else { continue };
            if channel.is_told {
                changed.again.push(name.to_owned());
            }
            *channel = Channel { heard: at, since: now, has_spoken: true, is_told: false };
        }
        changed.again.sort_unstable();
        let is_quiet = |channel: &Channel| now.saturating_duration_since(channel.since) >= self.after;
        if self.channels.values().all(is_quiet) {
            return changed;
        }
        for (name, channel) in self.channels.iter_mut().filter(|(_, channel)| is_quiet(channel)) {
            if !std::mem::replace(&mut channel.is_told, true) {
                let list = if channel.has_spoken { &mut changed.ceased } else { &mut changed.never };
                list.push(name.to_string());
            }
        }
        changed.never.sort_unstable();
        changed.ceased.sort_unstable();
        changed
    }

    /// Returns the channels that were quiet at the last look, in order.
    pub(super) fn channels(&self) -> Vec<&str> {
        let quiet = self.channels.iter().filter(|(_, channel)| channel.is_told);
        let mut names: Vec<&str> = quiet.map(|(name, _)| &**name).collect();
        names.sort_unstable();
        names
    }

    fn pause(&self) -> Duration {
        (self.after / 10).clamp(SHORTEST, LONGEST)
    }

    /// Returns when to look.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.look_at
    }
}

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(300);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn tells_the_channel_that_never_spoke_from_the_one_that_ceased() {
        let start = Instant::now();
        let mut quiet = quiet(start);
        quiet.look([("a", at(0)), ("b", at(5)), ("c", at(20))].into_iter(), start + SECOND * 30);
        let found = quiet.look([("a", at(0)), ("b", at(5)), ("c", at(290))].into_iter(), start + SECOND * 330);
        assert_eq!(found, Changed { never: vec!["a".into()], ceased: vec!["b".into()], again: vec![] });
        assert_eq!(quiet.channels(), ["a", "b"]);
        quiet.ended("b");
        assert_eq!(quiet.channels(), ["a"], "what is not subscribed to is not quiet");
    }

    #[test]
    fn a_quiet_channel_is_told_once_until_it_speaks_again() {
        let start = Instant::now();
        let mut quiet = quiet(start);
        assert_eq!(quiet.look([("a", at(0)), ("c", at(290))].into_iter(), start + AFTER).never, ["a", "b"]);
        let again = quiet.look([("a", at(0)), ("c", at(310))].into_iter(), start + AFTER + SECOND * 30);
        assert_eq!(again, Changed::default());
        let spoken = quiet.look([("a", at(330)), ("c", at(340))].into_iter(), start + AFTER + SECOND * 60);
        assert_eq!(spoken, Changed { again: vec!["a".into()], ..Changed::default() });
        assert_eq!(quiet.channels(), ["b"]);
        let later = quiet.look([("a", at(330)), ("c", at(900))].into_iter(), start + AFTER * 3);
        assert_eq!(later.ceased, ["a"]);
    }

    #[test]
    fn when_all_are_quiet_it_is_the_connection_that_is_silent() {
        let start = Instant::now();
        let mut quiet = quiet(start);
        let heard = || [("a", at(0)), ("b", at(0)), ("c", at(0))].into_iter();
        assert_eq!(quiet.look(heard(), start + AFTER), Changed::default());
    }

    #[test]
    fn a_step_of_the_wall_clock_makes_nobody_quiet_and_hides_nobody() {
        let start = Instant::now();
        let mut quiet = quiet(start);
        quiet.look([("a", at(3_600)), ("b", at(0)), ("c", at(3_600))].into_iter(), start + SECOND * 30);
        let back = quiet.look([("a", at(40)), ("b", at(0)), ("c", at(-3_600))].into_iter(), start + AFTER);
        assert_eq!(back, Changed { never: vec!["b".into()], ..Changed::default() });
    }

    #[test]
    fn a_time_of_zero_turns_it_off() {
        let mut quiet = Quiet::new(Duration::ZERO);
        quiet.confirmed("a", at(0), Instant::now());
        assert_eq!(quiet.next_at(), None);
    }

    fn quiet(now: Instant) -> Quiet {
        let mut quiet = Quiet::new(AFTER);
        for channel in ["a", "b", "c"] {
            quiet.confirmed(channel, at(0), now);
        }
        assert_eq!(quiet.next_at(), Some(now + AFTER / 10));
        quiet
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000_000)
    }
}
