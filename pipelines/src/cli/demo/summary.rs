//! What is said at the end: the comparison, where the data is, what to do next.

use std::{fmt::Write, path::Path, time::Duration};

use tidegate_core::config::shell_word;
use tidegate_sources::deribit::simulator::comparison::{Comparison, Trades, Unrepeated};

use super::{folder::database_bytes, sink::Sink};
use crate::cli::text::{count, grouped, short, size};

/// What the end needs to know beside the comparison.
#[derive(Debug)]
pub(super) struct Around<'a> {
    pub(super) root: &'a Path,
    pub(super) sink: &'a Sink,
    /// Where the store is a file.
    pub(super) database: &'a Path,
    /// Gaps that the pipeline still knew to be open when it was stopped.
    pub(super) gaps_open: u64,
    pub(super) seed: u64,
    /// How often the pipeline was killed in this run.
    pub(super) kills: u32,
    /// How long it took to read the rest of the database and to compare.
    pub(super) compared_in: Duration,
    pub(super) has_sqlite3: bool,
}

/// Returns the end's text.
pub(super) fn summary(comparison: &Comparison, around: &Around<'_>) -> String {
    let mut text = table(comparison, around);
    verdict(&mut text, comparison, around);
    let dir = if around.root == Path::new(super::DEFAULT_DIR) {
        String::new()
    } else {
        format!(" {}", shell_word(around.root))
    };
    text + &data(around)
        + &format!("again    tidegate demo{dir}{} --kill 20   (the same table after 20 kills)\n", again(around.sink))
        + &format!("next     tidegate new deribit {} > eth.toml\n", around.sink.name())
}

/// Says where the rows are, and how one sees some.
fn data(around: &Around<'_>) -> String {
    if let Some([show, remove]) = around.sink.commands(around.seed) {
        let trades = around.sink.table("trades", around.seed);
        let shown = &around.sink.shown;
        return format!("data     {shown}, {trades} and tickers\ntry      {show}\nremove   {remove}\n");
    }
    let database = shell_word(around.database);
    let install = if around.has_sqlite3 { "" } else { "   (needs the package sqlite3: apt install sqlite3)" };
    let bytes = size(database_bytes(around.database));
    format!("data     {} ({bytes})\ntry      sqlite3 {database} '{QUERY}'{install}\n", around.database.display())
}

/// Returns the option for the same store again. A password that stood in it is not shown.
fn again(sink: &Sink) -> String {
    if *sink == Sink::default() { String::new() } else { format!(" --sink {}", shell_word(Path::new(&sink.shown))) }
}

/// Returns the end's text for a pipeline that a failure kept from storing what came: to compare would only list that.
pub(super) fn failed(failure: &str, root: &Path, log: &Path) -> String {
    format!(
        "not compared: {failure}\n\
         {INDENT}rows that came and are not stored wait in the spool: bring back what is gone or\n\
         {INDENT}mend what is wrong and start the demo again, or begin anew\n\
         log      {}\n\
         anew     rm -r {}\n",
        log.display(),
        shell_word(root),
    )
}

fn table(comparison: &Comparison, around: &Around<'_>) -> String {
    let Trades { made, stored, by_rest, missing, twice, earlier } = comparison.trades.clone();
    let Unrepeated { sent, stored: stored_tickers, holes, twice: twice_tickers, in_flight } =
        comparison.tickers.clone();
    let (silent, unheard) = (short(comparison.silent_ms as f64 / 1000.0), short(comparison.unheard_ms as f64 / 1000.0));
    let kills =
        if around.kills > 0 { format!("; killed {}", count(around.kills.into(), "time")) } else { String::new() };
    let [made, sent, stored, stored_tickers, missing, holes, twice, twice_tickers] =
        [made, sent, stored, stored_tickers, missing, holes, twice, twice_tickers].map(grouped);
    let wide = |one: &str, other: &str| one.len().max(other.len());
    let (width, deep, gone) = (wide(&made, &sent), wide(&stored, &stored_tickers), wide(&missing, &holes));
    let mut text = format!(
        "trades   the venue made {made:>width$}   stored {stored:>deep$}   missing {missing:>gone$}   twice {twice}\n\
         tickers  sent to us     {sent:>width$}   stored {stored_tickers:>deep$}   holes   {holes:>gone$}   twice {twice_tickers}\n\
         {INDENT}trades by REST {}; tickers in flight at cuts and kills {}\n\
         {INDENT}nobody listened for {unheard}, from last frame to confirmation;\n\
         {INDENT}the connection was cut for {silent} of that{kills}\n",
        grouped(by_rest),
        grouped(in_flight),
    );
    if earlier > 0 {
        // Writing to a text never fails.
        _ = writeln!(text, "{INDENT}{} stored from before the first subscription", count(earlier, "trade"));
    }
    let took = short(around.compared_in.as_secs_f64());
    _ = writeln!(text, "{INDENT}compared with the simulator's own list, seed {}, in {took}", around.seed);
    text
}

/// Says what is wrong.
fn verdict(text: &mut String, comparison: &Comparison, around: &Around<'_>) {
    if comparison.is_exact() {
        return;
    }
    text.push_str("not exact:\n");
    if comparison.is_empty() {
        // Writing to a text never fails.
        _ = writeln!(text, "{INDENT}nothing was sent: the pipeline never subscribed; its log is beside the data");
    }
    if comparison.invented > 0 {
        let rows = count(comparison.invented, "row");
        _ = writeln!(text, "{INDENT}invented: {rows} that the venue did not make, or not with these values");
    }
    for example in &comparison.examples {
        _ = writeln!(text, "{INDENT}{example}");
    }
    if around.gaps_open > 0 {
        let gaps = count(around.gaps_open, "gap");
        _ = writeln!(text, "{INDENT}still open: {gaps}; start the demo again to fill them");
    }
}

const INDENT: &str = "         ";

/// Shows rows, and needs no look at the schema.
const QUERY: &str = "select symbol, count(*) from trades group by 1 order by 2 desc limit 5";

#[cfg(test)]
mod tests {
    use super::*;

    fn around<'a>() -> Around<'a> {
        Around {
            sink: Box::leak(Box::default()),
            root: Path::new("tidegate-demo"),
            database: Path::new("tidegate-demo/demo.sqlite"),
            gaps_open: 0,
            seed: 7,
            kills: 0,
            compared_in: Duration::from_millis(120),
            has_sqlite3: true,
        }
    }

    fn exact() -> Comparison {
        Comparison {
            trades: Trades { made: 12_044, stored: 12_044, by_rest: 212, ..Trades::default() },
            tickers: Unrepeated { sent: 156_076, stored: 156_038, in_flight: 38, ..Unrepeated::default() },
            silent_ms: 11_800,
            unheard_ms: 12_900,
            ..Comparison::default()
        }
    }

    #[test]
    fn what_the_end_kept_from_being_fetched_is_missing_until_the_next_start_has_fetched_it() {
        let mut comparison = exact();
        comparison.trades.stored -= 18;
        comparison.trades.missing = 18;
        let text = summary(&comparison, &Around { gaps_open: 12, ..around() });
        assert!(text.contains("missing 18   ") && text.contains("\nnot exact:\n"), "{text}");
        assert!(text.contains("still open: 12 gaps; start the demo again to fill them\n"), "{text}");
    }

    #[test]
    fn the_end_of_a_good_run() {
        let expected = "\
trades   the venue made  12,044   stored  12,044   missing 0   twice 0
tickers  sent to us     156,076   stored 156,038   holes   0   twice 0
         trades by REST 212; tickers in flight at cuts and kills 38
         nobody listened for 12.9 s, from last frame to confirmation;
         the connection was cut for 11.8 s of that
         compared with the simulator's own list, seed 7, in 120 ms
data     tidegate-demo/demo.sqlite (0 B)
try      sqlite3 tidegate-demo/demo.sqlite 'select symbol, count(*) from trades group by 1 order by 2 desc limit 5'
again    tidegate demo --kill 20   (the same table after 20 kills)
next     tidegate new deribit sqlite > eth.toml
";
        assert_eq!(summary(&exact(), &around()), expected);
    }

    #[test]
    fn the_table_fits_80_columns_after_a_day_too() {
        let mut comparison = exact();
        let Comparison { trades, tickers, .. } = &mut comparison;
        (trades.made, trades.stored, trades.by_rest, trades.missing) = (1_741_000, 1_740_400, 82_012, 600);
        (tickers.sent, tickers.stored, tickers.in_flight) = (15_741_000, 15_740_400, 12_600);
        (comparison.silent_ms, comparison.unheard_ms) = (3_600_000, 86_399_000);
        for line in table(&comparison, &Around { kills: 20, ..around() }).lines() {
            assert!(line.chars().count() <= 80, "{}: {line}", line.chars().count());
        }
    }

    #[test]
    fn the_end_of_a_bad_run_names_what_is_wrong_and_what_to_do() {
        let mut comparison = exact();
        comparison.trades.missing = 2;
        comparison.invented = 1;
        comparison.examples = vec!["missing: trade ETH-1 of X, number 5".to_owned()];
        let text = summary(&comparison, &Around { gaps_open: 3, kills: 5, ..around() });
        for fact in [
            "missing 2",
            "; killed 5 times",
            "not exact:",
            "invented: 1 row that the venue did not make",
            "missing: trade ETH-1 of X, number 5",
            "still open: 3 gaps; start the demo again to fill them",
        ] {
            assert!(text.contains(fact), "{fact}: {text}");
        }
    }

    #[test]
    fn the_end_of_a_failed_run_says_why_and_what_to_do_and_compares_nothing() {
        let text = failed("sink sqlite failed: the disk is gone", Path::new("my demo"), Path::new("my demo/demo.log"));
        for fact in ["not compared: sink sqlite failed: the disk is gone\n", "wait in the spool", "rm -r 'my demo'\n"] {
            assert!(text.contains(fact), "{fact}: {text}");
        }
        assert!(!text.contains("in flight") && !text.contains("--kill"), "{text}");
    }

    #[test]
    fn commands_work_as_pasted_whatever_the_folder_is_called() {
        let database = Path::new("my demo/demo.sqlite");
        let text = summary(&exact(), &Around { root: Path::new("my demo"), database, has_sqlite3: false, ..around() });
        assert!(text.contains("try      sqlite3 'my demo/demo.sqlite' 'select "), "{text}");
        assert!(text.contains("limit 5'   (needs the package sqlite3: apt install sqlite3)\n"), "{text}");
        assert!(text.contains("again    tidegate demo 'my demo' --kill 20 "), "{text}");
    }
}
