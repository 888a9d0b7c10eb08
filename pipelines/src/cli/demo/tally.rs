//! Adds up what several children said, one after the other: a child counts from its own start.

use std::collections::VecDeque;

use tokio::time::{Duration, Instant};

use super::{report::Report, stored::Standing};

/// Everything that was said so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Where the database stood when the present child was started.
    standing: Standing,
    /// Where it stood before the first one; set once.
    first: Option<Standing>,
    earlier: Totals,
    report: Report,
    /// Rows received and committed lately, for the rates.
    recent: VecDeque<(Instant, u64, u64)>,
    /// When the first row of all was stored.
    pub(super) first_row: Option<Instant>,
    /// Rows that the present child has stored beyond those that came to it: they had been in its spool. At any moment
    /// some of its own are not stored yet, so the highest of all differences is the nearest.
    from_spool: u64,
    has_resumed: bool,
    /// Rows in the spool when the present child first said that it had subscribed.
    subscribed_at: Option<u64>,
}

/// What adds up over children.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Totals {
    pub(super) backfilled: u64,
    pub(super) gaps_open: u64,
    pub(super) gaps_filled: u64,
    pub(super) gaps_lost: u64,
    /// How long nobody listened to what the venue does not repeat.
    pub(super) unrepeatable: f64,
}

/// What a child found in its spool and at the venue, and has dealt with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Resumed {
    /// Rows that had been received and not stored.
    pub(super) from_spool: u64,
    /// Rows that the venue had made meanwhile.
    pub(super) by_rest: u64,
    /// When the newest row was received that the child before had stored, in milliseconds since 1970.
    pub(super) newest_ms: Option<i64>,
}

impl Tally {
    /// Notes that a child is started.
    pub(super) fn begin(&mut self, standing: Standing) {
        // What was open is found again by the next child, and what was fetched is in the database.
        self.earlier = Totals { backfilled: 0, gaps_open: 0, ..self.totals() };
        self.first.get_or_insert(standing);
        self.standing = standing;
        self.report = Report::default();
        self.recent.clear();
        self.from_spool = 0;
        self.has_resumed = false;
        self.subscribed_at = None;
    }

    /// Notes a report; the first one after which everything was dealt with says what there was to deal with.
    pub(super) fn hear(&mut self, report: Report, now: Instant) -> Option<Resumed> {
        if report.sink.rows_committed > 0 {
            self.first_row.get_or_insert(now);
        }
        while self.recent.front().is_some_and(|(at, ..)| now.duration_since(*at) > WINDOW) {
            self.recent.pop_front();
        }
        self.recent.push_back((now, report.source.rows_received, report.sink.rows_committed));
        let beyond = report.sink.rows_committed.saturating_sub(report.spool.rows_appended);
        self.from_spool = self.from_spool.max(beyond);
        if report.source.subscribed {
            self.subscribed_at.get_or_insert(report.spool.rows_appended);
        }
        let is_even = report.sink.oldest_uncommitted_seconds.is_none_or(|oldest| oldest < EVEN);
        let is_well = report.failure().is_none();
        let is_through = is_well && report.is_healed() && report.source.rows_received > 0 && is_even;
        self.report = report;
        if !is_through || std::mem::replace(&mut self.has_resumed, true) {
            return None;
        }
        let by_rest = self.report.source.rows_backfilled;
        Some(Resumed { from_spool: self.from_spool, by_rest, newest_ms: self.standing.newest_ms })
    }

    /// Notes what the last child said at its end, and where the database stands now. Of how its stages are then, only what is
    /// stored is of interest.
    pub(super) fn end(&mut self, last: Option<&Report>, standing: Standing) {
        self.standing = standing;
        (self.report.sink.rows_committed, self.report.source.rows_backfilled) = (0, 0);
        if let Some(last) = last {
            self.report.sink.oldest_uncommitted_seconds = last.sink.oldest_uncommitted_seconds;
        }
    }

    /// Returns whether the child is known to have written down that it has subscribed: what came later is in its spool.
    pub(super) fn claims(&self) -> bool {
        self.subscribed_at.is_some_and(|rows| self.report.source.subscribed && self.report.spool.rows_appended > rows)
    }

    pub(super) fn report(&self) -> &Report {
        &self.report
    }

    /// Returns how many rows the database holds.
    pub(super) fn rows(&self) -> u64 {
        self.standing.rows + self.report.sink.rows_committed
    }

    pub(super) fn totals(&self) -> Totals {
        let source = &self.report.source;
        Totals {
            backfilled: self.standing.backfilled.saturating_sub(self.first.unwrap_or_default().backfilled)
                + source.rows_backfilled,
            gaps_open: source.gaps.open,
            gaps_filled: self.earlier.gaps_filled + source.gaps.filled,
            gaps_lost: self.earlier.gaps_lost + source.gaps.lost,
            unrepeatable: self.earlier.unrepeatable + source.gaps.unrepeatable_seconds,
        }
    }

    /// Returns how many rows a second are received and committed.
    pub(super) fn rates(&self) -> (f64, f64) {
        let (Some(&(begin, received, committed)), Some(&(end, received_then, committed_then))) =
            (self.recent.front(), self.recent.back())
        else {
            return (0.0, 0.0);
        };
        let seconds = end.duration_since(begin).as_secs_f64();
        let rate = |from: u64, to: u64| if seconds > 0.0 { to.saturating_sub(from) as f64 / seconds } else { 0.0 };
        (rate(received, received_then), rate(committed, committed_then))
    }
}

/// Over how long a rate is measured.
const WINDOW: Duration = Duration::from_secs(2);

/// A sink that is not behind by more than this, in seconds, has stored what was in the spool when it began.
const EVEN: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    fn report(received: u64, appended: u64, committed: u64) -> Report {
        let mut report = Report::default();
        report.source.subscribed = true;
        report.source.rows_received = received;
        report.spool.rows_appended = appended;
        report.sink.rows_committed = committed;
        report
    }

    #[test]
    fn totals_go_on_over_a_child_that_was_killed() {
        let (mut tally, now) = (Tally::default(), Instant::now());
        let mut first = report(100, 112, 112);
        first.source.rows_backfilled = 12;
        first.source.gaps = super::super::report::Gaps { open: 2, filled: 3, lost: 1, unrepeatable_seconds: 1.5 };
        tally.begin(Standing { rows: 1_000, backfilled: 500, newest_ms: None });
        tally.hear(first, now);
        assert_eq!(tally.rows(), 1_112);

        assert_eq!(tally.totals().backfilled, 12);

        tally.begin(Standing { rows: 1_150, backfilled: 514, newest_ms: Some(5) });
        assert_eq!(tally.rows(), 1_150, "the database knows what the child had no time to say");
        let mut second = report(10, 15, 15);
        second.source.rows_backfilled = 5;
        second.source.gaps.filled = 2;
        second.source.gaps.unrepeatable_seconds = 2.0;
        tally.hear(second, now);
        let expected = Totals { backfilled: 19, gaps_open: 0, gaps_filled: 5, gaps_lost: 1, unrepeatable: 3.5 };
        assert_eq!((tally.totals(), tally.rows()), (expected, 1_165));

        tally.end(None, Standing { rows: 1_170, backfilled: 520, newest_ms: Some(6) });
        assert_eq!((tally.totals().backfilled, tally.rows()), (20, 1_170), "at the end the database has the last word");
    }

    #[test]
    fn a_resumption_is_told_once_and_not_before_everything_is_dealt_with() {
        let (mut tally, now) = (Tally::default(), Instant::now());
        tally.begin(Standing { rows: 1_000, newest_ms: Some(77), ..Standing::default() });
        let mut busy = report(5, 5, 1_204);
        busy.source.gaps.open = 3;
        assert_eq!(tally.hear(busy, now), None);
        let mut well = report(40, 43, 1_247);
        well.source.rows_backfilled = 3;
        let mut failed = well.clone();
        failed.sink.status = "failed".to_owned();
        assert_eq!(tally.hear(failed, now), None, "what is not stored is not dealt with");
        let resumed = Resumed { from_spool: 1_204, by_rest: 3, newest_ms: Some(77) };
        assert_eq!(tally.hear(well.clone(), now), Some(resumed));
        assert_eq!(tally.hear(well, now), None);
    }

    #[test]
    fn a_child_claims_what_comes_once_it_stores_rows_behind_its_subscription() {
        let (mut tally, now) = (Tally::default(), Instant::now());
        let mut connecting = report(3, 3, 0);
        connecting.source.subscribed = false;
        tally.hear(connecting, now);
        assert!(!tally.claims());
        tally.hear(report(5, 5, 0), now);
        assert!(!tally.claims(), "these may have come before the confirmation was written down");
        tally.hear(report(9, 9, 0), now);
        assert!(tally.claims());
        tally.begin(Standing::default());
        assert!(!tally.claims(), "another child speaks for itself");
    }

    #[test]
    fn rates_are_those_of_the_last_seconds() {
        let (mut tally, now) = (Tally::default(), Instant::now());
        assert_eq!(tally.rates(), (0.0, 0.0));
        for second in 0..10 {
            let rows = if second < 5 { 0 } else { (second - 5) * 1_000 };
            tally.hear(report(rows, rows, rows / 2), now + Duration::from_secs(second));
        }
        assert_eq!(tally.rates(), (1_000.0, 500.0));
    }
}
