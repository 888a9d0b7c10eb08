//! When the pipeline is killed: moments that follow from a seed. Reads no clock.

use std::time::Duration;

use tidegate_core::policy::Random;

/// The kills that are still to be done.
#[derive(Debug)]
pub(super) struct Kills {
    random: Random,
    left: u32,
    pub(super) done: u32,
    moment: Moment,
}

/// A moment in the life of a child.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Moment {
    /// At this age.
    Age(Duration),
    /// When gaps are open, which is in the middle of a backfill; at this age at the latest.
    Backfill(Duration),
}

impl Kills {
    pub(super) fn new(wanted: u32, seed: u64) -> Self {
        let mut kills =
            Self { random: Random::new(seed ^ 0x6b69_6c6c), left: wanted, done: 0, moment: Moment::Age(SHORTEST) };
        kills.choose();
        kills
    }

    /// Returns how many are asked for, done or not.
    pub(super) fn wanted(&self) -> u32 {
        self.left + self.done
    }

    pub(super) fn is_over(&self) -> bool {
        self.left == 0
    }

    /// Returns whether the child is to be killed now.
    pub(super) fn is_due(&self, age: Duration, gaps_open: u64) -> bool {
        let reached = match self.moment {
            Moment::Age(due) => age >= due,
            Moment::Backfill(latest) => age >= latest || gaps_open > 0,
        };
        !self.is_over() && reached
    }

    /// Notes that the child was killed, and returns in which moment that was meant to be.
    pub(super) fn killed(&mut self) -> Moment {
        let moment = self.moment;
        self.left -= 1;
        self.done += 1;
        self.choose();
        moment
    }

    /// Of three kills one is right after the start, one in a backfill, one anywhere.
    fn choose(&mut self) {
        self.moment = match self.random.below(3) {
            0 => Moment::Age(self.between(Duration::ZERO, SHORTEST)),
            1 => Moment::Backfill(LONGEST),
            _ => Moment::Age(self.between(SHORTEST, LONGEST)),
        };
    }

    fn between(&mut self, shortest: Duration, longest: Duration) -> Duration {
        let millis = (longest - shortest).as_millis() as u64;
        shortest + Duration::from_millis(self.random.below(millis))
    }
}

const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_history_with_every_kind_of_moment() {
        let history = |seed| {
            let mut kills = Kills::new(30, seed);
            let mut moments = Vec::new();
            while !kills.is_over() {
                moments.push(kills.killed());
            }
            assert_eq!((kills.done, kills.wanted()), (30, 30));
            moments
        };
        let moments = history(7);
        assert_eq!(moments, history(7));
        assert_ne!(moments, history(8));
        assert!(moments.iter().any(|moment| matches!(moment, Moment::Backfill(_))));
        assert!(moments.iter().any(|moment| matches!(moment, Moment::Age(age) if *age < SHORTEST)));
        assert!(moments.iter().any(|moment| matches!(moment, Moment::Age(age) if *age >= SHORTEST)));
    }

    #[test]
    fn a_kill_in_a_backfill_waits_for_one_but_not_for_ever() {
        let mut kills = Kills::new(100, 1);
        while !matches!(kills.moment, Moment::Backfill(_)) {
            kills.killed();
        }
        assert!(!kills.is_due(Duration::from_millis(300), 0));
        assert!(kills.is_due(Duration::from_millis(300), 1));
        assert!(kills.is_due(LONGEST, 0));
    }

    #[test]
    fn without_kills_nothing_is_ever_due() {
        let kills = Kills::new(0, 1);
        assert!(!kills.is_due(Duration::from_secs(3_600), 50));
    }
}
