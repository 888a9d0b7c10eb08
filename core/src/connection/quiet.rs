//! Subscriptions that are confirmed and bring nothing, while others do.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::row::Timestamp;

/// Looks from time to time which channels are quiet. Reads no clock.
#[derive(Debug)]
pub(super) struct Quiet {
    after: Duration,
    look_at: Option<Instant>,
    /// When each channel was confirmed.
    confirmed: HashMap<Box<str>, Timestamp>,
    /// Those that were told of, and what they were told to be.
    told: HashMap<Box<str>, Timestamp>,
}

/// Channels that have become quiet since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct NewlyQuiet {
    /// Subscribed, but never a message.
    pub(super) never: Vec<String>,
    /// A message once, then no more.
    pub(super) ceased: Vec<String>,
}

impl Quiet {
    /// Returns a look that calls a channel quiet after so long; zero turns it off.
    pub(super) fn new(after: Duration) -> Self {
        Self { after, look_at: None, confirmed: HashMap::new(), told: HashMap::new() }
    }

    /// Notes that a channel was confirmed.
    pub(super) fn confirmed(&mut self, channel: &str, at: Timestamp, now: Instant) {
        if self.after.is_zero() {
            return;
        }
        self.confirmed.insert(channel.into(), at);
        self.look_at.get_or_insert(now + self.after);
    }

    /// Forgets a channel.
    pub(super) fn ended(&mut self, channel: &str) {
        self.confirmed.remove(channel);
        self.told.remove(channel);
    }

    /// Looks, given when each channel was heard last, and returns those that have become quiet. Tells nothing when all
    /// are: then it is the connection that is silent, or the venue that is closed.
    pub(super) fn look<'c>(
        &mut self,
        heard: impl Iterator<Item = (&'c str, Timestamp)>,
        wall: Timestamp,
        now: Instant,
    ) -> NewlyQuiet {
        self.look_at = Some(now + (self.after / 10).clamp(SHORTEST, LONGEST));
        let limit = i64::try_from(self.after.as_nanos()).unwrap_or(i64::MAX);
        let (mut candidates, mut some_heard) = (Vec::new(), false);
        for (channel, at) in heard.filter(|(channel, _)| self.confirmed.contains_key(*channel)) {
            if wall.0.saturating_sub(at.0) < limit {
                some_heard = true;
            } else {
                candidates.push((channel, at));
            }
        }
        let mut quiet = NewlyQuiet::default();
        for (channel, at) in candidates {
            if !some_heard || self.told.insert(channel.into(), at) == Some(at) {
                continue;
            }
            let never_spoke = self.confirmed.get(channel).is_some_and(|confirmed| at <= *confirmed);
            let list = if never_spoke { &mut quiet.never } else { &mut quiet.ceased };
            list.push(channel.to_owned());
        }
        quiet.never.sort_unstable();
        quiet.ceased.sort_unstable();
        quiet
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

    #[test]
    fn tells_the_channel_that_never_spoke_from_the_one_that_ceased() {
        let now = Instant::now();
        let mut quiet = quiet(now);
        let found = quiet.look([("a", at(0)), ("b", at(5)), ("c", at(290))].into_iter(), at(310), now);
        assert_eq!(found, NewlyQuiet { never: vec!["a".into()], ceased: vec!["b".into()] });
    }

    #[test]
    fn a_quiet_channel_is_told_once_until_it_speaks_again() {
        let now = Instant::now();
        let mut quiet = quiet(now);
        quiet.look([("a", at(0)), ("c", at(290))].into_iter(), at(310), now);
        let again = quiet.look([("a", at(0)), ("c", at(290))].into_iter(), at(320), now);
        assert_eq!(again, NewlyQuiet::default());
        let later = quiet.look([("a", at(330)), ("c", at(900))].into_iter(), at(910), now);
        assert_eq!(later.ceased, ["a"]);
    }

    #[test]
    fn when_all_are_quiet_it_is_the_connection_that_is_silent() {
        let now = Instant::now();
        let mut quiet = quiet(now);
        assert_eq!(quiet.look([("a", at(0)), ("b", at(5))].into_iter(), at(310), now), NewlyQuiet::default());
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
        assert_eq!(quiet.next_at(), Some(now + AFTER));
        quiet
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000_000)
    }
}
