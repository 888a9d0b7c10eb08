//! `deadletter list | show | redrive`: rows that a store would not take, and the way back to it.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tidegate_core::{
    catalog::Catalog,
    config::{Pipeline, nearest},
    deadletter::{self, DeadLetter},
    pipeline::{Folder, redrive},
    row::{ColumnType, Timestamp},
    spool::{Cause, disk::RealDisk},
};

use super::{Failure, Outcome, inspect, look, print, run, tell};
use crate::page::in_one_line;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidegate deadletter list eth.toml\n  tidegate deadletter redrive eth.toml --all --dry-run"
)]
pub(crate) struct DeadletterArgs {
    #[command(subcommand)]
    command: DeadletterCommand,
}

#[derive(Debug, Subcommand)]
enum DeadletterCommand {
    /// The rows that a store would not take: which, what has become of each, and why it was refused.
    #[command(after_help = LIST_EXAMPLES)]
    List(Selection),
    /// Everything about some of them: each column, the whole error, the row as the store was asked to take it.
    #[command(after_help = SHOW_EXAMPLES)]
    Show(Selection),
    /// Send some of them again, once each, to the sink that refused them: as they are, or repaired.
    #[command(after_help = REDRIVE_EXAMPLES)]
    Redrive(RedriveArgs),
}

const LIST_EXAMPLES: &str = "\
Examples:
  tidegate deadletter list eth.toml
  tidegate deadletter list eth.toml --sink sqlite --since 1d
  tidegate deadletter list eth.toml --json

A row waits, is asked for, was sent again, or has failed again: then it is a dead letter under another key, which waits.";

const SHOW_EXAMPLES: &str = "\
Example:
  tidegate deadletter show eth.toml --since 1d

Or one of them by its key, as `list` shows it: deadletter show eth.toml 1204";

const REDRIVE_EXAMPLES: &str = "\
Examples:
  tidegate deadletter redrive eth.toml --all --dry-run
  tidegate deadletter redrive eth.toml --sink sqlite --since 1d --dry-run

One that is repaired by hand: deadletter redrive eth.toml 1204 --set side=buy --set price=1.5

The rows are entered in the spool and go to their sink alone: at once where the pipeline runs, else at its next start. However
often it is asked for, a row arrives once; what the store refuses again is a dead letter of its own, which may be sent again
too. Leave the dead letters in their file until `list` says what has become of them: one that is taken out is not sent.

Exit code 1 if a row cannot be sent, or was refused again.";

#[derive(Debug, Args)]
struct Selection {
    /// A pipeline file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Keys, as `list` shows them.
    #[arg(value_name = "KEY")]
    keys: Vec<String>,
    /// Those of one sink.
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// Those of one table.
    #[arg(long, value_name = "NAME")]
    table: Option<String>,
    /// Those that were refused within this time: 1d, 12h, 30m.
    #[arg(long, value_name = "DURATION", value_parser = crate::cli::duration)]
    since: Option<Duration>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The host file.
    #[arg(long, value_name = "FILE")]
    host: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct RedriveArgs {
    #[command(flatten)]
    selection: Selection,
    /// All that wait.
    #[arg(long, conflicts_with = "keys")]
    all: bool,
    /// Give a column another value; `null` for none.
    #[arg(long, value_name = "COLUMN=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
    /// Say what would be sent, and send nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn deadletters(catalog: &Catalog, args: &DeadletterArgs) -> Outcome {
    match &args.command {
        DeadletterCommand::List(selection) => Letters::read(catalog, selection)?.list(selection.json),
        DeadletterCommand::Show(selection) => Letters::read(catalog, selection)?.show(selection.json),
        DeadletterCommand::Redrive(args) => {
            let Selection { keys, sink, table, since, .. } = &args.selection;
            if keys.is_empty() && !args.all && sink.is_none() && table.is_none() && since.is_none() {
                return Err(Failure::usage("say which: by key, with --sink, --table or --since, or with --all"));
            }
            inspect::spooled(catalog, &args.selection.file, args.selection.host.as_deref())?;
            Letters::read(catalog, &args.selection)?.redrive(args)
        }
    }
}

/// The dead letters of a pipeline.
struct Letters {
    pipeline: Pipeline,
    folder: Folder,
    /// Those that were chosen, with what has become of each.
    chosen: Vec<(DeadLetter, State)>,
}

/// What has become of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    /// The sink has not passed it yet.
    Asked,
    Sent,
    FailedAgain,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Asked => "asked for",
            Self::Sent => "sent again",
            Self::FailedAgain => "failed again",
        }
    }
}

/// Reading.
impl Letters {
    fn read(catalog: &Catalog, selection: &Selection) -> Result<Self, Failure> {
        let (pipeline, folder) = inspect::of_letters(catalog, &selection.file, selection.host.as_deref())?;
        let names = || pipeline.sinks.iter().map(|sink| sink.name.as_str());
        if let Some(sink) = selection.sink.as_deref().filter(|sink| !names().any(|name| name == *sink)) {
            let known: Vec<_> = names().collect();
            return Err(Failure::usage(format!("there is no sink `{sink}`; there are: {}", known.join(", "))));
        }
        let is_wanted = |sink: &&str| selection.sink.as_ref().is_none_or(|wanted| wanted == sink);
        let mut all = Vec::new();
        for sink in names().filter(is_wanted) {
            match pipeline.is_log() {
                false => all.extend(of_sink(&folder, sink)?),
                true => all.extend(of_parts(&folder, sink)?),
            }
        }
        let chosen = selection.choose(all)?;
        Ok(Self { pipeline, folder, chosen })
    }
}

/// Returns the dead letters that were met on this host of all parts of a log. They cannot be sent again: what they were made of
/// stays in the log.
fn of_parts(folder: &Folder, sink: &str) -> Result<Vec<(DeadLetter, State)>, Failure> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder.sinks().join(sink)).into_iter().flatten().flatten() {
        let file = entry.path().join(deadletter::DeadLetters::FILE_NAME);
        if file.exists() {
            all.extend(deadletter::list(&file)?.letters.into_iter().map(|letter| (letter, State::Waiting)));
        }
    }
    all.sort_by_key(|(letter, _)| (letter.when.0, letter.boot, letter.offset));
    Ok(all)
}

/// Returns the dead letters of a sink, with what has become of each.
fn of_sink(folder: &Folder, sink: &str) -> Result<Vec<(DeadLetter, State)>, Failure> {
    let path = folder.dead_letters(sink);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let listing = deadletter::list(&path)?;
    if listing.unreadable > 0 {
        tell(format_args!("{}: {} lines cannot be read\n", path.display(), listing.unreadable));
    }
    let keys: HashSet<Cause> = listing.letters.iter().map(DeadLetter::cause).collect();
    let asked = redrive::asked(folder, sink)?;
    let state = |letter: &DeadLetter| match letter.redriven {
        _ if asked.contains(&letter.cause()) => State::Asked,
        None => State::Waiting,
        Some(row) if keys.contains(&row) => State::FailedAgain,
        Some(_) => State::Sent,
    };
    let letters = listing.letters.into_iter();
    Ok(letters
        .map(|letter| {
            let state = state(&letter);
            (letter, state)
        })
        .collect())
}

impl Selection {
    fn choose(&self, all: Vec<(DeadLetter, State)>) -> Result<Vec<(DeadLetter, State)>, Failure> {
        for key in &self.keys {
            if !all.iter().any(|(letter, _)| has_key(letter, key)) {
                return Err(Failure::failed(format!("there is no dead letter `{key}`: see tidegate deadletter list")));
            }
        }
        let since =
            self.since.map(|age| Timestamp::now().0.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)));
        let is_chosen = |(letter, _): &(DeadLetter, State)| {
            let is_named = self.keys.is_empty() || self.keys.iter().any(|key| has_key(letter, key));
            let is_of_table = self.table.as_ref().is_none_or(|table| *table == letter.table);
            is_named && is_of_table && since.is_none_or(|since| letter.when.0 >= since)
        };
        Ok(all.into_iter().filter(is_chosen).collect())
    }
}

/// Returns whether a key as a person writes it, whole or as an offset alone, is that of a letter.
fn has_key(letter: &DeadLetter, key: &str) -> bool {
    key.parse() == Ok(letter.offset) || key.parse() == Ok(letter.cause())
}

/// Looking.
impl Letters {
    fn list(&self, is_json: bool) -> Outcome {
        if is_json {
            for (letter, state) in &self.chosen {
                print(format_args!("{}\n", document(letter, *state)?))?;
            }
        } else {
            let rows: Vec<[String; 5]> = self.chosen.iter().map(|(letter, state)| self.cells(letter, *state)).collect();
            print(table(&rows, self.chosen.iter().map(|(letter, _)| letter.error.as_str())))?;
        }
        let waiting = self.chosen.iter().filter(|(_, state)| *state == State::Waiting).count();
        tell(format_args!("{} of {}, {waiting} waiting\n", counted(self.chosen.len()), self.pipeline.name));
        Ok(ExitCode::SUCCESS)
    }

    fn cells(&self, letter: &DeadLetter, state: State) -> [String; 5] {
        let DeadLetter { sink, table, symbol, .. } = letter;
        [self.key(letter), sink.clone(), table.clone(), symbol.clone(), state.name().to_owned()]
            .map(|cell| in_one_line(&cell))
    }

    /// Returns a letter's key, as short as it is that of one.
    fn key(&self, letter: &DeadLetter) -> String {
        let is_other = |other: &DeadLetter| other.offset == letter.offset && other.cause() != letter.cause();
        if self.chosen.iter().any(|(other, _)| is_other(other)) {
            return letter.cause().to_string();
        }
        letter.offset.to_string()
    }

    fn show(&self, is_json: bool) -> Outcome {
        for (letter, state) in &self.chosen {
            if is_json {
                print(format_args!("{}\n", document(letter, *state)?))?;
            } else {
                print(page(letter, *state))?;
            }
        }
        tell(format_args!("{} of {}\n", counted(self.chosen.len()), self.pipeline.name));
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns a letter with its key and what has become of it.
fn document(letter: &DeadLetter, state: State) -> Result<Value, Failure> {
    let mut document = serde_json::to_value(letter).map_err(|error| Failure::failed(error.to_string()))?;
    if let Value::Object(members) = &mut document {
        members.insert("key".to_owned(), letter.cause().to_string().into());
        members.insert("state".to_owned(), state.name().replace(' ', "_").into());
    }
    Ok(document)
}

/// Sets rows in columns, and what is left of the width for the errors.
fn table<'a>(rows: &[[String; 5]], errors: impl Iterator<Item = &'a str>) -> String {
    let head = ["key", "sink", "table", "symbol", "state"].map(str::to_owned);
    let wide = |column: usize| rows.iter().chain([&head]).map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3, 4].map(wide);
    let mut page = String::new();
    if rows.is_empty() {
        return page;
    }
    for (row, error) in [(&head, "error")].into_iter().chain(rows.iter().zip(errors)) {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, wide)| format!("{cell:wide$}")).collect();
        let line = format!("{}  {}", cells.join("  "), in_one_line(error));
        let cut: String = line.trim_end().chars().take(look().width).collect();
        page.push_str(&cut);
        page.push('\n');
    }
    page
}

/// Tells all about one letter.
fn page(letter: &DeadLetter, state: State) -> String {
    let DeadLetter { sink, source, table, symbol, row, error, redrive_of, redriven, .. } = letter;
    let mut lines = vec![
        format!("{}  of sink {sink}: {}", letter.cause(), state.name()),
        format!("  row      of table {table}, {symbol}, from source {source}"),
        format!("  refused  {}: {error}", moment(letter.when)),
    ];
    lines.extend(redrive_of.map(|key| format!("  again    it was sent again from {key}")));
    lines.extend(redriven.map(|key| format!("  again    it was sent again as {key}")));
    let wide = row.keys().map(|name| name.chars().count()).max().unwrap_or(0);
    lines.extend(row.iter().map(|(name, value)| format!("  {name:wide$}  {value}")));
    lines.push(format!("  raw      {}", Value::Object(row.clone())));
    lines.iter().map(|line| in_one_line(line) + "\n").collect::<String>() + "\n"
}

fn moment(at: Timestamp) -> String {
    let since = Duration::from_nanos(at.0.max(0).unsigned_abs());
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since).to_string()
}

fn counted(letters: usize) -> String {
    if letters == 1 { "1 dead letter".to_owned() } else { format!("{letters} dead letters") }
}

/// Sending again.
impl Letters {
    fn redrive(&self, args: &RedriveArgs) -> Outcome {
        let tables = redrive::Tables::of(&self.pipeline)?;
        let mut asked: BTreeMap<String, Vec<DeadLetter>> = BTreeMap::new();
        let mut cannot = BTreeMap::new();
        for (letter, state) in &self.chosen {
            let key = self.key(letter);
            match state {
                State::Waiting => {}
                State::Asked | State::Sent | State::FailedAgain => {
                    // Of many, those that wait are meant.
                    if !args.selection.keys.is_empty() {
                        tell(format_args!("{key} is not sent: it is {}\n", already(letter, *state)));
                    }
                    continue;
                }
            }
            let repaired =
                repair(letter, &args.set, &tables).and_then(|letter| Ok(tables.check(&letter).map(|()| letter)?));
            match repaired {
                Ok(letter) => asked.entry(letter.sink.clone()).or_default().push(letter),
                Err(failure) => _ = cannot.insert(key, failure.text),
            }
        }
        for (key, why) in &cannot {
            tell(format_args!("{key} cannot be sent: {}\n", in_one_line(why)));
        }
        let outcome = if args.dry_run { Sent::default() } else { self.send(&asked)? };
        let count = asked.values().map(Vec::len).sum::<usize>();
        if args.selection.json {
            let keys: Vec<_> = asked.values().flatten().map(|letter| letter.cause().to_string()).collect();
            let Sent { is_running, stored, failed, waiting } = &outcome;
            let failed: Vec<_> = failed.iter().map(Cause::to_string).collect();
            let document = json!({
                "asked": keys, "cannot": cannot, "dry_run": args.dry_run, "running": is_running, "sent": stored,
                "failed_again": failed, "waiting": waiting,
            });
            print(format_args!("{document}\n"))?;
        } else if args.dry_run {
            for letter in asked.values().flatten() {
                print(format_args!(
                    "{} to {}: {}\n",
                    self.key(letter),
                    letter.sink,
                    Value::Object(letter.row.clone())
                ))?;
            }
            print(format_args!("{} of {} would be sent again\n", counted(count), self.pipeline.name))?;
        } else {
            print(format_args!("{} of {} asked for{}\n", counted(count), self.pipeline.name, outcome.worded(count)))?;
        }
        let is_well = cannot.is_empty() && outcome.failed.is_empty();
        Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }

    /// Asks for letters; where the pipeline runs, waits a while for what becomes of them.
    fn send(&self, asked: &BTreeMap<String, Vec<DeadLetter>>) -> Result<Sent, Failure> {
        let is_running = RealDisk::refusal(self.folder.spool()).is_some();
        let mut sent = Sent { is_running, ..Sent::default() };
        let mut requests = Vec::new();
        for (sink, letters) in asked {
            requests.push(redrive::ask(&self.folder, sink, letters)?);
        }
        if is_running {
            let is_gone = async {
                while requests.iter().any(|request| request.exists()) {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            };
            // What is not stored by then is told as on the way.
            drop(run::runtime()?.block_on(async { tokio::time::timeout(PATIENCE, is_gone).await }));
        }
        for (sink, letters) in asked {
            let wanted: HashSet<Cause> = letters.iter().map(DeadLetter::cause).collect();
            let mut found = 0;
            for (letter, state) in of_sink(&self.folder, sink)? {
                match state {
                    _ if !wanted.contains(&letter.cause()) => continue,
                    State::Sent => sent.stored += 1,
                    State::FailedAgain => sent.failed.extend(letter.redriven),
                    State::Waiting | State::Asked => sent.waiting += 1,
                }
                found += 1;
            }
            // Taken out of the file meanwhile.
            sent.waiting += wanted.len() - found;
        }
        Ok(sent)
    }
}

/// What has become of letters that were asked for.
#[derive(Debug, Default)]
struct Sent {
    is_running: bool,
    stored: usize,
    /// The keys of the new letters.
    failed: Vec<Cause>,
    waiting: usize,
}

impl Sent {
    fn worded(&self, asked: usize) -> String {
        let Self { is_running, stored, failed, waiting } = self;
        if asked == 0 {
            return String::new();
        }
        if !is_running {
            return ": nobody runs it, the next start sends them".to_owned();
        }
        let mut words = format!(": {stored} stored");
        if !failed.is_empty() {
            words.push_str(&format!(", {} refused again", failed.len()));
        }
        if *waiting > 0 {
            words.push_str(&format!(", {waiting} still on the way: see tidegate deadletter list"));
        }
        words
    }
}

fn already(letter: &DeadLetter, state: State) -> String {
    match letter.redriven {
        Some(row) => format!("{}, as {row}", state.name()),
        None => format!("{} already", state.name()),
    }
}

/// Returns a letter with other values in some columns.
fn repair(letter: &DeadLetter, set: &[(String, String)], tables: &redrive::Tables) -> Result<DeadLetter, Failure> {
    let mut repaired = letter.clone();
    if set.is_empty() {
        return Ok(repaired);
    }
    let table = tables.of_letter(letter)?;
    for (name, text) in set {
        let column = table.columns.iter().find(|column| *column.name == **name).map(|column| column.column_type);
        let is_time_of_venue = name == "ts_event";
        let Some(column) = column.or_else(|| is_time_of_venue.then_some(ColumnType::Time)) else {
            let known: Vec<&str> = table.columns.iter().map(|column| &*column.name).chain(["ts_event"]).collect();
            let meant = nearest(name, known.iter().copied());
            let hint = meant
                .map_or_else(|| format!("there are: {}", known.join(", ")), |name| format!("did you mean `{name}`?"));
            return Err(Failure::usage(format!("table `{}` has no column `{name}`; {hint}", table.name)));
        };
        repaired.row.insert(name.clone(), value(text, column));
    }
    Ok(repaired)
}

/// Reads a value as a column of this type has it.
fn value(text: &str, column: ColumnType) -> Value {
    match column {
        _ if text == "null" => Value::Null,
        ColumnType::Text | ColumnType::Label | ColumnType::Time => text.into(),
        ColumnType::Bool
        | ColumnType::I64
        | ColumnType::U64
        | ColumnType::F64
        | ColumnType::Levels
        | ColumnType::ListI64 => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
    }
}

fn assignment(text: &str) -> Result<(String, String), &'static str> {
    let (column, value) = text.split_once('=').ok_or("a column and its value are wanted: side=buy")?;
    Ok((column.trim().to_owned(), value.to_owned()))
}

/// How long a running pipeline is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);
