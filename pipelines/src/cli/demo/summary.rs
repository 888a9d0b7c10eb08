//! What is said at the end: the comparison, where the data is, what to do next.

use std::{fmt::Write, path::Path};

use super::comparison::{Comparison, Tickers, Trades};
use crate::cli::text::{count, grouped, shell_word, short, size};

/// What the end needs to know beside the comparison.
#[derive(Debug)]
pub(super) struct Around<'a> {
    pub(super) root: &'a Path,
    pub(super) database: &'a Path,
    pub(super) database_bytes: u64,
    /// Gaps that the pipeline still knew to be open when it was stopped.
    pub(super) gaps_open: u64,
    pub(super) seed: u64,
    /// How often the pipeline was killed in this run.
    pub(super) kills: u32,
    pub(super) has_sqlite3: bool,
}

/// Returns the end's text.
pub(super) fn summary(comparison: &Comparison, around: &Around<'_>) -> String {
    let mut text = table(comparison, around);
    verdict(&mut text, comparison, around);
    let database = shell_word(around.database);
    let install = if around.has_sqlite3 { "" } else { "   (needs the package sqlite3: apt install sqlite3)" };
    let dir = if around.root == Path::new(super::DEFAULT_DIR) {
        String::new()
    } else {
        format!(" {}", shell_word(around.root))
    };
    let lines = [
        format!("data     {} ({})", around.database.display(), size(around.database_bytes)),
        format!("try      sqlite3 {database} '{QUERY}'{install}"),
        format!("again    tidegate demo{dir} --kill 20   (kills itself 20 times and shows the same table)"),
        "next     tidegate new deribit sqlite > eth.toml".to_owned(),
    ];
    text + &lines.join("\n") + "\n"
}

fn table(comparison: &Comparison, around: &Around<'_>) -> String {
    let Trades { made, stored, by_rest, missing, twice, earlier } = comparison.trades;
    let tickers = &comparison.tickers;
    let Tickers { sent, holes, in_flight, .. } = *tickers;
    let width = grouped(made.max(sent)).len();
    let (made, sent) = (grouped(made), grouped(sent));
    let stored = format!("{} ({} by REST)", grouped(stored), grouped(by_rest));
    let stored_tickers = grouped(tickers.stored);
    let wide = stored.len().max(stored_tickers.len());
    let silent = short(comparison.silent_ms as f64 / 1000.0);
    let mut text = format!(
        "trades   the venue made {made:>width$}   stored {stored:<wide$}   missing {:<3}   twice {}\n\
         tickers  sent to us     {sent:>width$}   stored {stored_tickers:<wide$}   holes   {:<3}   twice {}\n\
         {INDENT}in flight at cuts and kills {}; not sent while the line was cut: {silent}\n",
        grouped(missing),
        grouped(twice),
        grouped(holes),
        grouped(tickers.twice),
        grouped(in_flight),
    );
    if earlier > 0 {
        // Writing to a text never fails.
        _ = writeln!(text, "{INDENT}{} stored from before the first subscription", count(earlier, "trade"));
    }
    let kills = if around.kills > 0 { format!("; killed {} times", around.kills) } else { String::new() };
    _ = writeln!(text, "{INDENT}compared with the simulator's own list, seed {}{kills}", around.seed);
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
            root: Path::new("tidegate-demo"),
            database: Path::new("tidegate-demo/demo.sqlite"),
            database_bytes: 31 << 20,
            gaps_open: 0,
            seed: 7,
            kills: 0,
            has_sqlite3: true,
        }
    }

    fn exact() -> Comparison {
        Comparison {
            trades: Trades { made: 12_044, stored: 12_044, by_rest: 212, ..Trades::default() },
            tickers: Tickers { sent: 156_076, stored: 156_038, in_flight: 38, ..Tickers::default() },
            silent_ms: 11_800,
            ..Comparison::default()
        }
    }

    #[test]
    fn the_end_of_a_good_run() {
        let expected = "\
trades   the venue made  12,044   stored 12,044 (212 by REST)   missing 0     twice 0
tickers  sent to us     156,076   stored 156,038                holes   0     twice 0
         in flight at cuts and kills 38; not sent while the line was cut: 11.8 s
         compared with the simulator's own list, seed 7
data     tidegate-demo/demo.sqlite (31 MiB)
try      sqlite3 tidegate-demo/demo.sqlite 'select symbol, count(*) from trades group by 1 order by 2 desc limit 5'
again    tidegate demo --kill 20   (kills itself 20 times and shows the same table)
next     tidegate new deribit sqlite > eth.toml
";
        assert_eq!(summary(&exact(), &around()), expected);
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
            "seed 7; killed 5 times",
            "not exact:",
            "invented: 1 row that the venue did not make",
            "missing: trade ETH-1 of X, number 5",
            "still open: 3 gaps; start the demo again to fill them",
        ] {
            assert!(text.contains(fact), "{fact}: {text}");
        }
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
