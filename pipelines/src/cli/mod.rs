//! The command line: the words. What each command does stands in a file of its own.

mod capture;
mod coverage;
mod deadletter;
#[cfg(all(feature = "simulator", feature = "sqlite"))]
mod demo;
mod inspect;
mod reference;
mod remedies;
mod run;
#[cfg(feature = "simulator")]
mod simulate;
#[cfg(feature = "simulator")]
#[cfg_attr(not(feature = "sqlite"), allow(dead_code, reason = "most of it is for the demo"))]
mod text;
mod verify;

use std::{
    ffi::OsString,
    fmt::Display,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{
    Args, CommandFactory, Parser, Subcommand,
    error::{ContextKind, ContextValue},
};
use tidegate_core::{
    catalog::Catalog,
    config::{Look, nearest},
};

use crate::page::has_colours;

/// Reads the command line and does what it says.
pub(crate) fn main(catalog: &Catalog) -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    let outcome = match Cli::try_parse_from(&words).unwrap_or_else(|error| suggest(error, &words).exit()).command {
        Command::Run(args) => run::run(catalog, &args),
        Command::Check(args) => reference::check(catalog, &args),
        Command::List(args) => reference::list(catalog, &args),
        Command::New(args) => reference::new(catalog, &args),
        Command::Schema(args) => reference::schema(catalog, &args),
        Command::Graph(args) => reference::graph(catalog, &args),
        Command::Coverage(args) => coverage::coverage(catalog, &args),
        Command::Verify(args) => verify::verify(catalog, &args),
        Command::Adopt(args) => remedies::adopt(catalog, &args),
        Command::Sink(args) => remedies::sink(catalog, &args),
        Command::Spool(args) => inspect::spool(catalog, &args),
        Command::Deadletter(args) => deadletter::deadletters(catalog, &args),
        Command::Capture(args) => capture::capture(&args),
        #[cfg(feature = "simulator")]
        Command::Simulate(args) => simulate::run(&args),
        #[cfg(all(feature = "simulator", feature = "sqlite"))]
        Command::Demo(args) => demo::run(catalog, &args),
    };
    match outcome {
        Ok(code) => code,
        Err(Failure { text, code }) => {
            if !text.is_empty() {
                tell(format_args!("error: {text}\n"));
            }
            ExitCode::from(code)
        }
    }
}

/// Adds the command that was most likely meant: clap itself sees none in `rnu` or `nwe`.
fn suggest(mut error: clap::Error, words: &[OsString]) -> clap::Error {
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) else { return error };
    let program = Cli::command();
    let mut commands = &program;
    for word in words.iter().skip(1).filter_map(|word| word.to_str()) {
        commands = commands.find_subcommand(word).unwrap_or(commands);
    }
    let meant = nearest(typed, commands.get_subcommands().map(clap::Command::get_name)).map(String::from);
    if let (Some(meant), None) = (meant, error.get(ContextKind::SuggestedSubcommand)) {
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![meant]));
    }
    error
}

/// Says something on standard error. Where that is closed nobody is left to be told, which is no reason to end.
pub(crate) fn tell(text: impl Display) {
    drop(write!(io::stderr(), "{text}"));
}

/// Prints a page on standard output.
pub(crate) fn print(page: impl Display) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    write!(output, "{page}").and_then(|()| output.flush()).map_err(Failure::unprinted)
}

/// Why a command ended before its end, in words for the user, with the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    code: u8,
}

/// What a command comes to.
pub(crate) type Outcome = Result<ExitCode, Failure>;

impl Failure {
    /// Something did not work.
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 1 }
    }

    /// Whoever read standard output has read enough, as `| head` does: there is nothing to say, and nothing is wrong.
    pub(crate) fn unread() -> Self {
        Self { text: String::new(), code: 0 }
    }

    /// Standard output would not take a page.
    pub(crate) fn unprinted(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::unread();
        }
        Self::failed(format!("cannot write to standard output: {error}"))
    }

    /// The command line or the configuration is wrong.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 2 }
    }
}

impl From<tidegate_core::Error> for Failure {
    fn from(error: tidegate_core::Error) -> Self {
        let code = if error.kind() == tidegate_core::Kind::Config { 2 } else { 1 };
        Self { text: error.chain(), code }
    }
}

/// Returns how wide a page on standard output may be; 80 columns where that is no terminal.
fn columns() -> usize {
    let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let seen =
        || terminal_size::terminal_size_of(io::stdout()).map(|(terminal_size::Width(columns), _)| columns.into());
    told.or_else(seen).unwrap_or(80).max(40)
}

/// Returns how messages are to look on standard error.
pub(crate) fn look() -> Look {
    let colours = has_colours(&io::stderr());
    let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let seen = || terminal_size::terminal_size().map(|(terminal_size::Width(columns), _)| usize::from(columns));
    let width = told.or_else(seen).unwrap_or_else(|| Look::default().width);
    Look { colours, width: width.max(40) }
}

/// A plugin host for market-data feeds: TOML pipelines wire venues through a durable spool into stores. Nothing that the
/// venue sent is lost or doubled, and the program can show it.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, max_term_width = 100, after_help = EXIT_CODES, infer_subcommands = false)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Examples:
  tidegate demo --for 5s
  tidegate new deribit sqlite
  tidegate check eth.toml
  tidegate run eth.toml

Exit codes:
  0  all is well: checked without errors, stopped as asked
  1  something failed: a pipeline, a comparison, a warning with --strict;
     a pipeline that fails ends no process: it is red in /health, and the
     exit code says so at the end
  2  the configuration or the command line is wrong; nothing was started

Environment:
  LOG_LEVEL    what is logged: info, debug, or by target:
               info,tidegate_core::connection=debug
  NO_COLOR     no colours, even on a terminal";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run pipelines until Ctrl-C.
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Say what is wrong with pipeline files: all of it, with line and remedy.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Say which sources and sinks there are, or what one of them can be told.
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Print a commented pipeline file for a source and a sink.
    #[command(after_help = NEW_EXAMPLES)]
    New(NewArgs),
    /// Print the JSON Schema of pipeline files, for editors.
    #[command(after_help = SCHEMA_EXAMPLES)]
    Schema(SchemaArgs),
    /// Draw how tables go from sources to sinks.
    #[command(after_help = "Example:\n  tidegate graph pipelines/deribit-eth-options.toml")]
    Graph(GraphArgs),
    /// Say of each stream what was received, filled, lost, and when; of a running or a stopped pipeline.
    #[command(after_help = COVERAGE_EXAMPLES)]
    Coverage(CoverageArgs),
    /// Compare spool, ledger and stores, row by row; of a running or a stopped pipeline.
    #[command(after_help = verify::EXAMPLES)]
    Verify(verify::VerifyArgs),
    /// Go by the store, or by the spool, where the two do not fit any more; of a stopped pipeline.
    #[command(after_help = remedies::ADOPT_HELP)]
    Adopt(remedies::AdoptArgs),
    /// Rename or forget a sink that is not in the file any more; of a stopped pipeline.
    Sink(remedies::SinkArgs),
    /// Look into a stopped pipeline's spool, or give it its pipeline's new name.
    Spool(SpoolArgs),
    /// Look at rows that a store would not take, and send them again.
    Deadletter(deadletter::DeadletterArgs),
    /// Look into what a source with `capture = {}` has recorded.
    Capture(capture::CaptureArgs),
    /// Run a venue of one's own: WebSocket and HTTP, with faults and an exact list of what it made.
    #[cfg(feature = "simulator")]
    #[command(after_help = SIMULATE_EXAMPLES)]
    Simulate(SimulateArgs),
    /// See it work: a simulated venue with faults, into SQLite or a store of yours, compared with what the venue made.
    #[cfg(all(feature = "simulator", feature = "sqlite"))]
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(DemoArgs),
}

const RUN_EXAMPLES: &str = "\
Examples:
  tidegate run eth.toml
  tidegate run pipelines --only 'deribit-*'
  tidegate run eth.toml --host hosts/this-one.toml

The first Ctrl-C (or SIGTERM) stops the sources and sends what is in the spool; what a store cannot take within the
deadline stays in the spool and is sent at the next start. The second one ends at once. SIGUSR1 prints the full report.";

const CHECK_EXAMPLES: &str = "\
Examples:
  tidegate check eth.toml
  tidegate check pipelines --strict
  tidegate check eth.toml --resolved
  tidegate check eth.toml --connect";

const LIST_EXAMPLES: &str = "\
Examples:
  tidegate list
  tidegate list deribit
  tidegate list replay";

const NEW_EXAMPLES: &str = "\
Example:
  tidegate new deribit sqlite > eth.toml";

const SCHEMA_EXAMPLES: &str = "\
Examples:
  tidegate schema > pipeline.schema.json
  tidegate schema --host > tidegate.schema.json";

const COVERAGE_EXAMPLES: &str = "\
Examples:
  tidegate coverage eth.toml
  tidegate coverage eth.toml --by stream
  tidegate coverage eth.toml --since 1d --json

Exit code 1 if anything is lost that could have been had: what a venue's history has forgotten, what a full spool dropped,
what the disk does not give back, what a person has left out: of the streams or at a sink, as the line `total` says. Dead
letters wait, and are not lost. Exit code 2 where no ledger can tell. What a venue does not repeat, such as tickers, is unknown for
the time in which nobody ran the pipeline, or it did not listen; that is said, and is no loss. Times are the venue's, in UTC.
The ledger is about a second behind the spool; where nobody runs the pipeline, what is received ends with its last frame, and
nobody runs it since its last sign of life. `complete since` holds to the end of what is looked at; where something is open there,
as while nobody listens, it says from when to when.

In --json, times are nanoseconds since 1970. A `state` is one of received, backfilled, open (something may be missing, and
is asked for), absent (the venue never gave these numbers), lost, unknown, not_subscribed, closed (by the market's schedule). A `to` of
null goes on. What cannot
be read any more of the spool is in `unreadable`, with the `sinks` that had not got it.";

#[cfg(feature = "simulator")]
const SIMULATE_EXAMPLES: &str = "\
Examples:
  tidegate simulate deribit --for 5s
  tidegate simulate deribit --listen 127.0.0.1:8765
  tidegate simulate deribit --seed 7 --rate 2000 --faults cut=2/m,silence=1/m --sent sent.jsonl

With --replay DIR it plays a capture, which a source with `capture = {}` has written, to whoever subscribes: frames, times
and replies as they were, with faults of the line and of REST. Options that have expired since are to be named in the
pipeline: a selector does not choose them.";

#[cfg(all(feature = "simulator", feature = "sqlite"))]
const DEMO_EXAMPLES: &str = "\
Examples:
  tidegate demo --for 5s
  tidegate demo --kill 20
  tidegate demo my-folder --rate 5000 --seed 7
  tidegate demo in-a-file --sink ./trades.sqlite --for 5s

Stores that --sink takes:
  postgres://USER:PASSWORD@HOST:5432/DATABASE      a schema of its own in it
  timescale://USER:PASSWORD@HOST:5432/DATABASE     the same, of hypertables
  questdb://HOST:9000, questdbs:// with TLS, http::addr=HOST:9000;token=…;
  kafka://HOST:9092,HOST:9092                      with --features kafka
  sqlite:FILE, or a path
What it makes there is called tidegate_demo_SEED; the end says how to remove it. A password is shown nowhere, and not kept:
give the address again to go on in the same folder.

Exit code 0 only if nothing is missing, holed or double. Started again on the same folder, it goes on where it was.";

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Pipeline files, or folders: every *.toml in a folder but tidegate.toml is a pipeline.
    #[arg(required = true, value_name = "FILE|DIR")]
    pub(crate) files: Vec<PathBuf>,
    /// Run those whose name fits: `deribit-*`.
    #[arg(long, value_name = "GLOB")]
    pub(crate) only: Option<String>,
    /// The host file: what is one per process [default: tidegate.toml beside the pipelines, if it is there].
    #[arg(long, value_name = "FILE")]
    pub(crate) host: Option<PathBuf>,
    /// How long the spool may be sent on after the first Ctrl-C.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = crate::cli::duration)]
    pub(crate) drain: std::time::Duration,
    /// Print the health report as one JSON line, this often, and end when standard input closes: for a parent process.
    #[arg(long, value_name = "DURATION", hide = true, value_parser = crate::cli::duration)]
    pub(crate) supervised: Option<std::time::Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Pipeline files or folders.
    #[arg(required = true, value_name = "FILE|DIR")]
    pub(crate) files: Vec<PathBuf>,
    /// The host file.
    #[arg(long, value_name = "FILE")]
    pub(crate) host: Option<PathBuf>,
    /// Dial too: the venues' discovery, the stores' probe; and open the files of secrets, as a run does.
    #[arg(long)]
    pub(crate) connect: bool,
    /// Print every value and where it came from.
    #[arg(long)]
    pub(crate) resolved: bool,
    /// Take warnings for errors.
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// A source or sink type; a key of the engine's, such as `replay`; `pipeline`, `spool` or `host`.
    #[arg(value_name = "COMPONENT")]
    pub(crate) component: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// A source type: see `tidegate list`.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// A sink type.
    #[arg(value_name = "SINK")]
    pub(crate) sink: String,
}

#[derive(Debug, Args)]
pub(crate) struct SchemaArgs {
    /// That of the host file, tidegate.toml, instead.
    #[arg(long)]
    pub(crate) host: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GraphArgs {
    /// A pipeline file.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CoverageArgs {
    /// A pipeline file.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// What a line is about.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = By::Table)]
    pub(crate) by: By,
    /// Leave out what is older: 1d, 12h, 30m.
    #[arg(long, value_name = "DURATION", value_parser = crate::cli::duration)]
    pub(crate) since: Option<std::time::Duration>,
    /// Print one JSON document; with --by stream every interval is in it.
    #[arg(long)]
    pub(crate) json: bool,
    /// The host file.
    #[arg(long, value_name = "FILE")]
    pub(crate) host: Option<PathBuf>,
}

/// What a line of `coverage` is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum By {
    /// A table of a source.
    Table,
    /// A stream: an instrument of a table.
    Stream,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidegate spool inspect data/eth\n  tidegate spool verify data/eth\n  tidegate spool dump data/eth"
)]
pub(crate) struct SpoolArgs {
    #[command(subcommand)]
    pub(crate) command: SpoolCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SpoolCommand {
    /// Segments, boots, offsets, streams.
    #[command(after_help = "Example:\n  tidegate spool inspect data/eth")]
    Inspect(SpoolDir),
    /// Read every entry; exit code 1 if one is damaged.
    #[command(after_help = "Example:\n  tidegate spool verify data/eth")]
    Verify(SpoolDir),
    /// Every item as one JSON line.
    #[command(after_help = "Example:\n  tidegate spool dump data/eth")]
    Dump(SpoolDir),
    /// Give the spool of a pipeline that was renamed, and what it has stored, the new name.
    #[command(after_help = remedies::SPOOL_RENAME_HELP)]
    Rename(remedies::SpoolRenameArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SpoolDir {
    /// The pipeline's folder, data_dir/PIPELINE, or its spool.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

impl SpoolDir {
    /// Returns the spool's own folder.
    pub(crate) fn spool(&self) -> PathBuf {
        let within = self.dir.join("spool");
        if within.is_dir() { within } else { self.dir.clone() }
    }
}

#[cfg(feature = "simulator")]
#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// The venue: deribit.
    #[arg(value_name = "VENUE")]
    pub(crate) venue: String,
    /// Where to listen; port 0 takes a free one, which is printed.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", value_parser = address)]
    pub(crate) listen: std::net::SocketAddr,
    /// The same seed makes the same market.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Events a second, over all instruments.
    #[arg(long, value_name = "EVENTS/s", default_value_t = 200.0, value_parser = number)]
    pub(crate) rate: f64,
    /// Play a capture instead of a market, from the first subscription on.
    #[arg(long, value_name = "DIR", conflicts_with = "rate")]
    pub(crate) replay: Option<PathBuf>,
    /// How many times faster than it was recorded.
    #[arg(long, value_name = "TIMES", default_value_t = 1.0, value_parser = number, requires = "replay")]
    pub(crate) speed: f64,
    /// End after this long.
    #[arg(long = "for", value_name = "DURATION", value_parser = crate::cli::duration)]
    pub(crate) duration: Option<std::time::Duration>,
    /// What goes wrong, and how often: `cut=4/m,malformed=2/m`, `close:1008=1/m` for a close with that code (1001 without one);
    /// `help` lists the names.
    #[arg(long, value_name = "LIST")]
    pub(crate) faults: Option<String>,
    /// What goes wrong once, and how long after the start: `5s:cut,12s:silence,20s:close:1008`.
    #[arg(long, value_name = "LIST")]
    pub(crate) fault_at: Option<String>,
    /// Write what the venue makes to this file, before it sends it; an existing file is gone on with.
    #[arg(long, value_name = "FILE")]
    pub(crate) sent: Option<PathBuf>,
}

#[cfg(all(feature = "simulator", feature = "sqlite"))]
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Where everything goes.
    #[arg(value_name = "DIR", default_value = demo::DEFAULT_DIR)]
    pub(crate) dir: PathBuf,
    /// End after this long instead of at Ctrl-C; with --kill not before the last kill is done.
    #[arg(long = "for", value_name = "DURATION", value_parser = crate::cli::duration)]
    pub(crate) duration: Option<std::time::Duration>,
    /// Events a second, over all instruments.
    #[arg(long, value_name = "N", default_value_t = 2000.0, value_parser = number)]
    pub(crate) rate: f64,
    /// The same seed makes the same market and the same faults.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Into a store of yours instead of an SQLite file of its own: an address, as below.
    #[arg(long, value_name = "URL")]
    pub(crate) sink: Option<String>,
    /// Kill the pipeline's process with SIGKILL this many times on the way.
    #[arg(long, value_name = "N")]
    pub(crate) kill: Option<u32>,
}

/// Reads a duration. One that ends after the last second of the clock is a slip of the pen.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration > LONGEST { Err("it is longer than 100 years".to_owned()) } else { Ok(duration) }
}

/// What a person may wait for.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(100 * 366 * 86_400);

#[cfg(feature = "simulator")]
fn address(text: &str) -> Result<std::net::SocketAddr, &'static str> {
    text.parse().map_err(|_| "an address with its port is wanted: 127.0.0.1:8765")
}

#[cfg(feature = "simulator")]
fn number(text: &str) -> Result<f64, &'static str> {
    text.parse().map_err(|_| "a number is wanted")
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn a_duration_beyond_every_clock_is_refused_and_none_that_a_person_waits_for() {
        for text in ["0s", "10s", "90d", "100y"] {
            duration(text).unwrap();
        }
        assert_eq!(duration("500000000000y").unwrap_err(), "it is longer than 100 years");
        assert!(duration("ten").is_err());
    }
}
