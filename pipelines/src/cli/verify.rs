//! `verify`: spool, ledger and stores held against each other, as a page or as JSON.

use std::{fmt, path::PathBuf, process::ExitCode};

use clap::Args;
use tidegate_core::{
    catalog::Catalog,
    delivery::Fates,
    verify::{self, Difference, SinkVerified, Verdict, Verified},
};

use super::{Failure, Outcome, coverage::before_now, inspect, print, run};

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A pipeline file.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Leave out rows that came before: 1d, 12h, 30m.
    #[arg(long, value_name = "DURATION", value_parser = crate::cli::duration)]
    pub(crate) since: Option<std::time::Duration>,
    /// Print one JSON document, with every difference.
    #[arg(long)]
    pub(crate) json: bool,
    /// The host file.
    #[arg(long, value_name = "FILE")]
    pub(crate) host: Option<PathBuf>,
}

pub(super) fn verify(catalog: &Catalog, args: &VerifyArgs) -> Outcome {
    let (pipeline, folder) = inspect::written_by(catalog, &args.file, args.host.as_deref())?;
    let verified = run::runtime()?.block_on(verify::verify(&pipeline, &folder, args.since.map(before_now)));
    // That something differs has a code of its own.
    let verified = verified.map_err(|error| Failure::usage(error.chain()))?;
    if args.json {
        let document = serde_json::to_string_pretty(&verified).map_err(|error| Failure::failed(error.to_string()))?;
        print(format_args!("{document}\n"))?;
    } else {
        print(Page(&verified))?;
    }
    Ok(match (verified.differs(), verified.cannot_tell()) {
        (true, _) => ExitCode::from(1),
        (false, true) => ExitCode::from(2),
        (false, false) => ExitCode::SUCCESS,
    })
}

struct Page<'a>(&'a Verified);

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verified { pipeline, offsets: (first, last), ledger, differences, notes, sinks } = self.0;
        let ledger = ledger.map_or_else(|| "no ledger".to_owned(), |upto| format!("ledger up to {upto}"));
        writeln!(f, "{pipeline}  spool: offsets {first} to {last}; {ledger}")?;
        listed(f, differences, notes)?;
        sinks.iter().try_for_each(|sink| write!(f, "{}", Sink(sink)))?;
        let found = differences.len() + sinks.iter().map(|sink| sink.differences.len()).sum::<usize>();
        match found {
            0 if self.0.cannot_tell() => writeln!(f, "nobody can tell"),
            // What was not compared agrees with nothing.
            0 if sinks.iter().any(|sink| matches!(sink.verdict, Verdict::CannotTell | Verdict::Mute)) => {
                writeln!(f, "all that can be compared agrees")
            }
            0 if sinks.iter().all(|sink| sink.fates.is_none_or(|fates| fates.delivered == 0)) => {
                writeln!(f, "nothing differs: no row was delivered yet, and none was compared")
            }
            0 => writeln!(f, "all agrees"),
            1 => writeln!(f, "1 difference"),
            found => writeln!(f, "{found} differences"),
        }
    }
}

struct Sink<'a>(&'a SinkVerified);

impl fmt::Display for Sink<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SinkVerified { sink, verdict, upto, rows, values, fates, differences, notes, .. } = self.0;
        let said = match verdict {
            Verdict::Agrees => "agrees",
            Verdict::Differs => "DIFFERS",
            Verdict::CannotTell => "cannot tell",
            Verdict::Mute => "cannot be verified",
        };
        write!(f, "{sink}: {said}")?;
        if let (Some(upto), Some(fates)) = (upto, fates) {
            let Fates { delivered, filtered, refused, control, missing } = fates;
            write!(
                f,
                "; committed up to {upto}, {rows} rows compared, the values of {values}\n  fates: {delivered} delivered, "
            )?;
            write!(f, "{filtered} filtered, {refused} refused, {control} control, {missing} missing")?;
        }
        writeln!(f)?;
        listed(f, differences, notes)
    }
}

/// Lists the first differences, and all that could not be compared.
fn listed(f: &mut fmt::Formatter<'_>, differences: &[Difference], notes: &[String]) -> fmt::Result {
    for difference in differences.iter().take(MOST) {
        writeln!(f, "  {difference}")?;
    }
    if differences.len() > MOST {
        writeln!(f, "  and {} more: --json has all", differences.len() - MOST)?;
    }
    notes.iter().try_for_each(|note| writeln!(f, "  {note}"))
}

/// So many differences of one store are shown.
const MOST: usize = 50;

pub(super) const EXAMPLES: &str = "\
Examples:
  tidegate verify eth.toml
  tidegate verify eth.toml --since 1h
  tidegate verify eth.toml --json

Each offset that the spool still has gets its fate anew for each sink: delivered, filtered (a table that the sink does not
take), refused (a dead letter), control, missing (dropped, or unreadable). What was delivered is looked for in the store by
SQL of its own, stream by stream; where the sums differ, row by row. What the spool has let go of is compared by the
ledger's count alone, and by numbers that are there twice; where the ledger has counted from the spool's first row on, a row
without a number that is there twice is found by that count, too. What tells rows from each other (venue, symbol, seq,
ts_event, ts_recv) is summed up by the store; their other values are read from sqlite, postgres and timescale in blocks and
compared as well. Columns that give back another value than was written, and stores that do not show their values (questdb,
kafka), are named. In a table with a `key` and on_conflict = \"replace\" or \"ignore\" rows are counted: those that are not
there were swallowed by the key; which ones, and whether a column of the key is NULL, which makes no two rows equal, is not
looked at. Nothing is changed. With --since, only rows that came since then are compared.

What can be done: rows that are missing are in the spool, with their offsets: `tidegate spool dump` shows them once the
pipeline is stopped. Of rows that are there twice, one has to be deleted.

Exit codes: 0 all agrees; 1 there are differences, or rows that the sink never got; 2 nobody can tell: a store could not be
read, none can be asked, or of what was delivered nothing can be compared (another pipeline writes to the table, all rows of
the sink take each other's places by their key, or all that the spool still has came in the first ten seconds of it).
sqlite, postgres, timescale, questdb and kafka can be asked; file and stdout cannot.";
