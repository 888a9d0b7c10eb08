//! How far the filling of a source's gaps has come: shown in health at any time, and in the log every few seconds where it
//! takes longer.

use std::{fmt, time::Duration};

use tokio::time::Instant;

use crate::{health::Filling, spool::GapOutcome};

/// Gaps that are being filled, from the moment at which somebody listens again until none is open.
#[derive(Debug)]
pub(super) struct Work {
    began: Instant,
    filled: u64,
    lost: u64,
    rows: u64,
    open: u64,
    told: Instant,
    /// What was filled and lost, and how many rows had come, when it was told last.
    told_of: (u64, u64, u64),
}

impl Work {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, filled: 0, lost: 0, rows: 0, open: 0, told: now, told_of: (0, 0, 0) }
    }

    /// Counts rows of the history.
    pub(super) fn came(&mut self, rows: u64) {
        self.rows += rows;
    }

    /// Counts a gap that is over.
    pub(super) fn closed(&mut self, outcome: &GapOutcome) {
        match outcome {
            GapOutcome::Lost(_) => self.lost += 1,
            GapOutcome::Live | GapOutcome::Backfilled | GapOutcome::Absent => self.filled += 1,
            // A book was begun anew: nobody was asked.
            GapOutcome::Resynchronised => {}
        }
    }

    /// Takes note of how many are open; returns whether it is time for a line: not sooner than a few seconds after the last
    /// one, later the longer it takes, and not where nothing has come since.
    pub(super) fn is_due(&mut self, open: u64, now: Instant) -> bool {
        self.open = open;
        let known = (self.filled, self.lost, self.rows);
        let pause = (now.duration_since(self.began) / 6).clamp(SOONEST, LATEST);
        let is_due = now >= self.told + pause && known != self.told_of;
        if is_due {
            (self.told, self.told_of) = (now, known);
        }
        is_due
    }

    /// Returns what is shown.
    pub(super) fn shown(&self, now: Instant) -> Filling {
        let Self { began, filled, lost, rows, open, .. } = *self;
        let over = filled + lost;
        let left = |over: u64| now.duration_since(began).as_secs_f64() / over as f64 * open as f64;
        Filling { filled, lost, of: over + open, rows, seconds_left: (over > 0).then(|| left(over)) }
    }
}

/// Words how far it has come: `12 of 19 gaps filled, 43 rows, about 3 s left`.
impl fmt::Display for Filling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { filled, lost, of, rows, seconds_left } = self;
        write!(f, "{filled} of {of} gaps filled")?;
        if *lost > 0 {
            write!(f, ", {lost} lost")?;
        }
        write!(f, ", {rows} {}", if *rows == 1 { "row" } else { "rows" })?;
        match seconds_left {
            Some(left) => {
                let left = humantime::format_duration(Duration::from_secs(left.ceil() as u64));
                write!(f, ", about {left} left")
            }
            None => Ok(()),
        }
    }
}

const SOONEST: Duration = Duration::from_secs(5);
const LATEST: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_left_is_reckoned_from_what_is_done() {
        let start = Instant::now();
        let mut work = Work::new(start);
        work.is_due(19, start);
        assert_eq!(work.shown(start + SECOND).to_string(), "0 of 19 gaps filled, 0 rows");
        work.came(43);
        (0..12).for_each(|_| work.closed(&GapOutcome::Backfilled));
        work.closed(&GapOutcome::Resynchronised);
        work.is_due(7, start + 5 * SECOND);
        assert_eq!(work.shown(start + 5 * SECOND).to_string(), "12 of 19 gaps filled, 43 rows, about 3s left");
        work.closed(&GapOutcome::Lost("forgotten".to_owned()));
        work.is_due(6, start + 13 * SECOND);
        assert_eq!(work.shown(start + 13 * SECOND).to_string(), "12 of 19 gaps filled, 1 lost, 43 rows, about 6s left");
    }

    #[test]
    fn it_is_told_every_few_seconds_then_less_often_and_not_where_nothing_comes() {
        let start = Instant::now();
        let mut work = Work::new(start);
        let mut told = Vec::new();
        for second in 0..600 {
            // For two minutes the history gives nothing.
            work.came(u64::from(!(200..320).contains(&second)));
            if work.is_due(1, start + second * SECOND) {
                told.push(second);
            }
        }
        assert_eq!(told[..7], [5, 10, 15, 20, 25, 30, 36], "{told:?}");
        assert!(told.len() < 40, "{told:?}");
        assert_eq!(told.iter().filter(|second| (240..320).contains(*second)).count(), 0, "{told:?}");
        assert!(told.windows(2).all(|two| two[1] - two[0] >= 5));
    }
}
