//! What the screen shows at one moment, as text. Reads no clock and knows no terminal.

use std::{path::Path, time::Duration};

use super::{
    report::Check,
    sink::{Kind, Sink},
    tally::Tally,
};
use crate::cli::text::{clock, count, grouped, short, size};

/// One moment.
#[derive(Debug)]
pub(super) struct Picture<'a> {
    pub(super) facts: Facts,
    pub(super) tally: &'a Tally,
}

/// What no child knows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Facts {
    /// Since the start of the demo.
    pub(super) passed: Duration,
    pub(super) cuts: Cuts,
    /// How many kills are done, of how many. Each is told above the picture, so that only lines repeat it.
    pub(super) kills: Option<(u32, u32)>,
    /// The store's kind, and what its sink promises.
    pub(super) sink: (&'static str, &'static str),
}

/// Sessions that the venue has ended since the start of the demo, or lost because the process was killed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Cuts {
    pub(super) count: u64,
    /// How long ago the last one was.
    pub(super) last: Option<Duration>,
}

/// Returns what is said first.
pub(super) fn title(root: &Path, sink: &Sink, seed: u64) -> [String; 2] {
    let begin = format!("tidegate {} demo: a simulated Deribit with faults → spool →", env!("CARGO_PKG_VERSION"));
    let root = shown(root);
    match &sink.kind {
        Kind::Sqlite(None) => {
            [format!("{begin} SQLite,"), format!("all in {root}. Nothing leaves this machine. Ctrl-C ends it.")]
        }
        Kind::Sqlite(Some(path)) => {
            [format!("{begin} {},", path.display()), format!("else in {root}. Ctrl-C ends it.")]
        }
        Kind::Postgres | Kind::Timescale | Kind::QuestDb | Kind::Kafka => [
            format!("{begin} {},", sink.shown),
            format!("tables {} and tickers; else in {root}. Ctrl-C ends it.", sink.table("trades", seed)),
        ],
    }
}

impl Picture<'_> {
    /// Returns the lines of a live screen that is so many columns wide. They need 80; the screen folds them for those who have less.
    pub(super) fn lines(&self, width: usize) -> [String; 4] {
        let report = self.tally.report();
        let (received, committed) = self.tally.rates();
        let stage = |time: &str, name: &str, check: &Check, first: &str, second: &str, third: &str| {
            let room = 36_usize.saturating_sub(third.chars().count()).min(17);
            format!("{time:<8} {name:<14} {:<8} {first:>8}  {second:<room$} {third}", status(check))
        };
        let source = &report.source;
        let time = clock(self.facts.passed);
        let lag = format!("synced {}", short(report.spool.synced_lag_seconds));
        let (received, committed) = (per_second(received), per_second(committed));
        let bytes = size(report.spool.bytes);
        let rows = count(self.tally.rows(), "row");
        let (name, guarantee) = self.facts.sink;
        let name = if name.len() > 7 { format!("sink {name}") } else { format!("sink   {name}") };
        let mut sink = stage("", &name, &report.sink, &committed, &rows, &self.commits());
        if sink.chars().count() + 2 + guarantee.len() <= width {
            sink = format!("{sink}  {guarantee}");
        }
        [
            stage(&time, "source deribit", source, &received, &self.channels(), &self.line_cut()),
            stage("", "spool", &report.spool, &bytes, &lag, &self.behind()),
            sink,
            format!("{:<8} {:<6} {}", "", "gaps", self.gaps()),
        ]
    }

    /// Returns the same for those who have no terminal, in one line.
    pub(super) fn line(&self) -> String {
        let report = self.tally.report();
        let (received, committed) = self.tally.rates();
        let source = [per_second(received), self.channels(), self.line_cut()];
        let spool = [size(report.spool.bytes), self.behind()];
        let sink = [per_second(committed), count(self.tally.rows(), "row"), self.commits()];
        let stage = |name: &str, check: &Check, facts: &[String]| {
            let facts: Vec<&str> = facts.iter().map(String::as_str).filter(|fact| !fact.is_empty()).collect();
            format!("{name} {} {}", status(check), facts.join(", "))
        };
        [
            format!("{}  {}", clock(self.facts.passed), stage("source deribit", &report.source, &source)),
            stage("spool", &report.spool, &spool),
            stage(&format!("sink {}", self.facts.sink.0), &report.sink, &sink),
            format!("gaps {}{}", self.gaps(), self.killed()),
        ]
        .join("; ")
    }

    fn channels(&self) -> String {
        let subscriptions = self.tally.report().source.subscriptions;
        format!("{} of {} channels", subscriptions.confirmed, subscriptions.wanted)
    }

    fn line_cut(&self) -> String {
        let Cuts { count, last } = self.facts.cuts;
        match last {
            None => "never cut".to_owned(),
            Some(last) => format!("cut {count}×, {} s ago", last.as_secs()),
        }
    }

    /// Says for how long nobody listened to what the venue does not repeat, as `/health` has it.
    fn missed(&self) -> String {
        let seconds = self.tally.totals().unrepeatable;
        if seconds > 0.0 { format!(" + {} of tickers", short(seconds)) } else { String::new() }
    }

    fn behind(&self) -> String {
        let oldest = self.tally.report().sink.oldest_uncommitted_seconds;
        format!("{:.2} s behind", oldest.unwrap_or(0.0))
    }

    fn commits(&self) -> String {
        let commits = self.tally.report().sink.commit_seconds;
        commits.map_or_else(String::new, |commits| format!("p50 {} p99 {}", short(commits.p50), short(commits.p99)))
    }

    fn gaps(&self) -> String {
        let totals = self.tally.totals();
        let found = totals.gaps_open + totals.gaps_filled + totals.gaps_lost;
        let [found, filled, lost, rest] = [found, totals.gaps_filled, totals.gaps_lost, totals.backfilled].map(grouped);
        // What was lost comes first: a narrow terminal cuts off what comes last.
        format!("{filled} of {found} filled, {lost} lost{}; {rest} by REST", self.missed())
    }

    fn killed(&self) -> String {
        self.facts.kills.map_or_else(String::new, |(done, wanted)| format!("; killed {done} of {wanted}"))
    }
}

/// Returns a path as a user would write it: a relative one with its `./`.
fn shown(path: &Path) -> String {
    let path = path.display().to_string();
    if path.starts_with(['/', '.']) { path } else { format!("./{path}") }
}

fn status(check: &Check) -> &str {
    if check.status.is_empty() { "starting" } else { &check.status }
}

fn per_second(rate: f64) -> String {
    format!("{}/s", grouped(rate.round() as u64))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::{
        super::{
            report::{Gaps, Quantiles, Report, Subscriptions},
            stored::Standing,
        },
        *,
    };

    /// Big numbers: what a long and hard run shows.
    fn tally(scale: u64) -> Tally {
        let mut report = Report::default();
        for check in [&mut report.source, &mut report.spool, &mut report.sink] {
            check.status = "degraded".to_owned();
        }
        report.source.subscriptions = Subscriptions { wanted: 52, confirmed: 52 };
        report.source.gaps = Gaps { open: 1, filled: 40 * scale, lost: 0, unrepeatable_seconds: 11.8 * scale as f64 };
        report.source.rows_backfilled = 212 * scale;
        report.spool.bytes = 61 << 20;
        report.spool.synced_lag_seconds = 0.003;
        report.sink.oldest_uncommitted_seconds = Some(0.04);
        report.sink.commit_seconds = Some(Quantiles { p50: 0.012, p99: 0.123 });
        let (mut tally, now) = (Tally::default(), Instant::now());
        tally.begin(Standing { rows: 168_114 * scale, ..Standing::default() });
        tally.hear(report.clone(), now);
        report.source.rows_received = 2_011 * scale;
        report.sink.rows_committed = 2_003 * scale;
        tally.hear(report, now + Duration::from_secs(1));
        tally
    }

    fn picture(tally: &Tally) -> Picture<'_> {
        let cuts = Cuts { count: 4, last: Some(Duration::from_secs(3)) };
        let sink = ("sqlite", "exactly-once (transaction)");
        Picture { facts: Facts { passed: Duration::from_secs(84), cuts, kills: None, sink }, tally }
    }

    #[test]
    fn the_screen_shows_every_stage_and_fits_80_columns() {
        let tally = tally(1);
        let expected = [
            "00:01:24 source deribit degraded  2,011/s  52 of 52 channels cut 4×, 3 s ago",
            "         spool          degraded   61 MiB  synced 3 ms       0.04 s behind",
            "         sink   sqlite  degraded  2,003/s  170,117 rows     p50 12 ms p99 123 ms",
            "         gaps   40 of 41 filled, 0 lost + 11.8 s of tickers; 212 by REST",
        ];
        assert_eq!(picture(&tally).lines(80), expected);
        assert!(picture(&tally).lines(120)[2].ends_with("  exactly-once (transaction)"));
    }

    #[test]
    fn a_line_without_a_terminal_has_the_same_numbers() {
        let tally = tally(1);
        let line = picture(&tally).line();
        for fact in ["00:01:24", "2,011/s", "52 of 52 channels", "0.04 s behind", "170,117 rows", "40 of 41 filled"] {
            assert!(line.contains(fact), "{fact}: {line}");
        }
    }

    #[test]
    fn before_anything_was_said_everything_is_starting() {
        let tally = Tally::default();
        let lines = Picture { facts: Facts::default(), tally: &tally }.lines(80);
        assert!(lines[..3].iter().all(|line| line.contains("starting")), "{lines:#?}");
        assert!(lines[0].contains("never cut") && lines[3].contains("0 of 0 filled, 0 lost; 0 by REST"));
    }

    #[test]
    fn long_and_hard_runs_fit_80_columns_too() {
        let tally = tally(20);
        let mut picture = picture(&tally);
        picture.facts.kills = Some((19, 20));
        picture.facts.cuts = Cuts { count: 312, last: Some(Duration::from_secs(12)) };
        for line in picture.lines(80).iter().chain(&title(Path::new("tidegate-demo"), &Sink::default(), 7)) {
            assert!(line.chars().count() <= 80, "{}: {line}", line.chars().count());
        }
    }

    #[test]
    fn the_title_names_the_folder_as_it_is_written() {
        assert!(title(Path::new("tidegate-demo"), &Sink::default(), 7)[1].starts_with("all in ./tidegate-demo. "));
        assert!(title(Path::new("/tmp/x"), &Sink::default(), 7)[1].starts_with("all in /tmp/x. "));
    }
}
