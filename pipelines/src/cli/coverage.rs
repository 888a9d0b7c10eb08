//! `coverage`: what the ledger says, as a page or as JSON.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use tidegate_core::{
    catalog::Catalog,
    deadletter,
    ledger::{
        Coverage, Fate, Interval, Joined, Keeper, Kind, Proof, SinkCoverage, Skipped, State, StreamCoverage, Stretch,
        Totals, Unread,
    },
    pipeline::Folder,
    row::Timestamp,
    spool::disk::RealDisk,
};

use super::{By, CoverageArgs, Failure, Outcome, inspect, print, run};

pub(super) fn coverage(catalog: &Catalog, args: &CoverageArgs) -> Outcome {
    let (pipeline, folder) = inspect::written_by(catalog, &args.file, args.host.as_deref())?;
    let keeper = match RealDisk::refusal(folder.spool()) {
        _ if pipeline.is_replay() => Keeper::Recording,
        Some(_) => Keeper::Running(Timestamp::now()),
        None => Keeper::Nobody(Timestamp::now()),
    };
    let since = args.since.map(before_now);
    let read = run::runtime()?.block_on(Coverage::read(&folder.ledger(), since, keeper));
    // That something is lost has a code of its own.
    let coverage = read.map_err(|error| Failure::usage(error.chain()))?;
    let mut coverage = coverage.with_dead_letters(waiting(&folder)?);
    let code = if coverage.is_lost { ExitCode::from(1) } else { ExitCode::SUCCESS };
    if args.json {
        if args.by == By::Table {
            coverage.streams.clear();
        }
        let document = serde_json::json!({ "pipeline": pipeline.name, "coverage": coverage });
        print(format_args!("{document:#}\n"))?;
    } else {
        let width = super::columns().min(WIDEST);
        print(Page { pipeline: &pipeline.name, coverage: &coverage, by: args.by, width })?;
    }
    Ok(code)
}

pub(super) fn before_now(age: Duration) -> Timestamp {
    Timestamp(Timestamp::now().0.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)))
}

/// Returns how many dead letters wait, by sink, whether it is in the file or not.
fn waiting(folder: &Folder) -> Result<BTreeMap<String, u64>, Failure> {
    let mut waiting = BTreeMap::new();
    for entry in std::fs::read_dir(folder.sinks()).into_iter().flatten().flatten() {
        let Ok(sink) = entry.file_name().into_string() else { continue };
        let file = folder.dead_letters(&sink);
        if file.exists() {
            let letters = deadletter::list(&file)?.letters;
            let waits = letters.iter().filter(|letter| letter.redriven.is_none()).count();
            waiting.insert(sink, waits as u64);
        }
    }
    Ok(waiting)
}

/// What is shown of a ledger, in so many columns at most.
struct Page<'a> {
    pipeline: &'a str,
    coverage: &'a Coverage,
    by: By,
    width: usize,
}

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut page = String::new();
        self.write(&mut page)?;
        page.lines().try_for_each(|line| wrapped(f, line, self.width))
    }
}

impl Page<'_> {
    /// Writes it in lines that may be too long.
    fn write(&self, f: &mut dyn Write) -> fmt::Result {
        let Coverage { from, to, stopped, kinds, .. } = self.coverage;
        let (Some(from), Some(to)) = (from, to) else {
            return writeln!(f, "{}: nothing has been subscribed to yet", self.pipeline);
        };
        let is_narrow = self.width < WIDEST;
        let between = if is_narrow { "\n" } else { "  " };
        writeln!(f, "{}{between}{} to {} UTC", cut(self.pipeline, 30), moment(*from), moment(*to))?;
        if let Some(stopped) = stopped {
            writeln!(f, "nobody runs it since {}", moment(*stopped))?;
        }
        match self.by {
            By::Table if is_narrow => narrow_tables(f, kinds, self.width)?,
            By::Table => tables(f, kinds)?,
            By::Stream => streams(f, &self.coverage.streams, self.width)?,
        }
        for kind in kinds {
            sentences(f, kind, stopped.is_some())?;
        }
        self.losses(f)?;
        let Totals { filled, open, lost, rows_lost_at_sinks, uncounted, dead_letters } = self.coverage.totals;
        write!(f, "total: {} filled, {open} open, {lost} lost", gaps(filled))?;
        if rows_lost_at_sinks > 0 || uncounted > 0 {
            let is_of_sinks = self.coverage.sinks.iter().any(|at| at.rows_lost > 0 || at.uncounted > 0);
            let place = if is_of_sinks { "at sinks" } else { "in the spool" };
            write!(f, "; {} lost {place}", lost_rows(rows_lost_at_sinks, uncounted))?;
        }
        if dead_letters > 0 {
            write!(f, "; {}", letters(dead_letters))?;
        }
        writeln!(f)
    }
}

/// Words rows that a sink never gets: `at least 34 rows`.
fn lost_rows(rows: u64, uncounted: usize) -> String {
    match (rows, uncounted) {
        (0, 1..) => "rows that nobody could count".to_owned(),
        (1, 0) => "1 row".to_owned(),
        (_, 0) => format!("{} rows", short(rows)),
        _ => format!("at least {} rows", short(rows)),
    }
}

fn letters(letters: u64) -> String {
    if letters == 1 { "1 dead letter waits".to_owned() } else { format!("{} dead letters wait", short(letters)) }
}

fn tables(f: &mut dyn Write, kinds: &[Kind]) -> fmt::Result {
    let wide = column(kinds.iter().map(|kind| kind.table.as_str()), 17);
    writeln!(f, "{:wide$}  streams     received  backfilled      lost   unknown  proof", "table")?;
    for kind in kinds {
        let Kind { streams, rows_received, rows_backfilled, lost_seconds, unknown_seconds, .. } = kind;
        let (table, proof) = (cut(&kind.table, wide), words(kind.proof));
        let is_numbered = kind.proof != Proof::None;
        let (received, backfilled) = (rows(*rows_received, true), rows(*rows_backfilled, is_numbered));
        let (lost, unknown) = (span(*lost_seconds), span(*unknown_seconds));
        writeln!(f, "{table:wide$}  {streams:>7}  {received:>11}  {backfilled:>10}  {lost:>8}  {unknown:>8}  {proof}")?;
    }
    Ok(())
}

/// As [`tables`], for a narrow terminal: what does not change stands in a line of its own.
fn narrow_tables(f: &mut dyn Write, kinds: &[Kind], width: usize) -> fmt::Result {
    let numbers = 45;
    let wide = column(kinds.iter().map(|kind| kind.table.as_str()), width.saturating_sub(numbers).clamp(6, 17));
    writeln!(f, "{:wide$}     received  backfilled      lost   unknown", "table")?;
    for kind in kinds {
        let Kind { rows_received, rows_backfilled, lost_seconds, unknown_seconds, .. } = kind;
        let is_numbered = kind.proof != Proof::None;
        let (received, backfilled) = (rows(*rows_received, true), rows(*rows_backfilled, is_numbered));
        let (table, lost, unknown) = (cut(&kind.table, wide), span(*lost_seconds), span(*unknown_seconds));
        writeln!(f, "{table:wide$}  {received:>11}  {backfilled:>10}  {lost:>8}  {unknown:>8}")?;
    }
    for Kind { table, streams, proof, .. } in kinds {
        writeln!(f, "{}: {streams} {}, proof: {}", cut(table, 17), plural(*streams, "stream"), words(*proof))?;
    }
    Ok(())
}

fn streams(f: &mut dyn Write, streams: &[StreamCoverage], width: usize) -> fmt::Result {
    // A narrow terminal has the figures below the name.
    let between = if width < WIDEST { "\n" } else { "" };
    let wide = column(streams.iter().map(|stream| stream.symbol.as_str()), 20);
    let table_wide = column(streams.iter().map(|stream| stream.table.as_str()), 12);
    writeln!(f, "{:wide$}  {:table_wide$}{between}    received  backfilled  complete since", "stream", "table")?;
    for stream in streams {
        let is_numbered = stream.proof != Proof::None;
        let (received, backfilled) = (rows(stream.rows_received, true), rows(stream.rows_backfilled, is_numbered));
        let (symbol, table) = (cut(&stream.symbol, wide), cut(&stream.table, table_wide));
        let since = match (stream.complete_since, stream.was_complete) {
            (Some(since), _) => moment(since),
            (None, Some(was)) => between_moments(was),
            (None, None) => "–".to_owned(),
        };
        writeln!(f, "{symbol:wide$}  {table:table_wide$}{between}  {received:>10}  {backfilled:>10}  {since}")?;
        for interval in stream.intervals.iter().filter(|interval| is_worth_a_line(interval)) {
            writeln!(f, "  {}", worded(interval))?;
        }
    }
    Ok(())
}

/// Returns whether an interval tells more than that all is well, or how the stream stands at present.
fn is_worth_a_line(interval: &Interval) -> bool {
    let is_well = matches!(interval.state, State::Received | State::Backfilled);
    !is_well && (interval.to.is_some() || interval.state == State::Lost)
}

/// Words an interval: `lost 2026-11-26 10:31:03 for 11.8 s: the venue forgot`.
fn worded(interval: &Interval) -> String {
    let Interval { from, to, state, why, joined } = interval;
    let state = state.name().replace('_', " ");
    let lasts = to.map_or_else(|| "until now".to_owned(), |to| format!("for {}", span(seconds(*from, to))));
    let lasts = joined.map_or(lasts, |Joined { parts, lasted }| {
        let all = span(seconds(Timestamp(0), Timestamp(lasted)));
        let until = to.map_or_else(|| "now".to_owned(), moment);
        format!("to {until}, {parts} times, {all} in all")
    });
    let why = why
        .as_ref()
        .filter(|_| matches!(interval.state, State::Lost | State::NotSubscribed))
        .map_or_else(String::new, |why| format!(": {why}"));
    cut(&format!("{state} {} {lasts}{why}", moment(*from)), 78)
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    Duration::from_nanos(to.0.saturating_sub(from.0).max(0).unsigned_abs()).as_secs_f64()
}

fn sentences(f: &mut dyn Write, kind: &Kind, is_stopped: bool) -> fmt::Result {
    let Kind { complete_since, was_complete, incomplete_at, open, away, absent, unknown_seconds, lost_because, .. } =
        kind;
    let proof = kind.proof;
    let table = cut(&kind.table, 17);
    let complete = match (complete_since, was_complete) {
        (Some(since), _) => Some(format!("since {}", moment(*since))),
        (None, Some(was)) => Some(format!("from {}", between_moments(*was))),
        (None, None) => None,
    };
    if let Some(complete) = complete {
        let but =
            if incomplete_at.is_empty() { String::new() } else { format!(", but at {}", incomplete_at.join(", ")) };
        writeln!(f, "{table}: complete {complete}{}", cut(&but, 30))?;
    }
    if proof == Proof::None && *unknown_seconds > 0.0 {
        writeln!(f, "{table}: nobody ran or listened for {}; the venue does not repeat it", span(*unknown_seconds))?;
    }
    if kind.closed_seconds > 0.0 {
        writeln!(f, "{table}: closed for {}, by the market's schedule", span(kind.closed_seconds))?;
    }
    if *open > 0 {
        let when = if is_stopped { "to be asked for at the next start" } else { "asked for" };
        writeln!(f, "{table}: {} open, {when}", gaps(*open))?;
    }
    if *away > 0 && proof != Proof::None {
        writeln!(f, "{table}: nobody listens to {away} {} now; asked for later", plural(*away, "stream"))?;
    }
    if *absent > 0 {
        writeln!(f, "{table}: {} held numbers that the venue never gave", gaps(*absent))?;
    }
    for (why, streams) in lost_because {
        let text = format!("{table}: lost of {streams} {}: {why}", plural(*streams, "stream"));
        writeln!(f, "{}", cut(&text, 80))?;
    }
    Ok(())
}

impl Page<'_> {
    fn losses(&self, f: &mut dyn Write) -> fmt::Result {
        let mut dropped: BTreeMap<_, u64> = BTreeMap::new();
        for one in &self.coverage.dropped {
            *dropped.entry((&one.sink, &one.table, one.fate)).or_default() += one.rows;
        }
        for ((sink, table, fate), rows) in dropped {
            let (table, rows) = (cut(table, 17), lost_rows(rows, 0));
            let fate = match fate {
                Some(Fate::CameAgain) => "; all that was missing came again",
                Some(Fate::AskedFor) => "; asked for again",
                Some(Fate::PartlyLost) => "; what did not come again is lost",
                Some(Fate::NotRepeated) => "; the venue does not repeat it",
                None => "",
            };
            match sink {
                Some(sink) => writeln!(f, "{table}: {rows} dropped unread by {}: spool full", cut(sink, 16))?,
                None => writeln!(f, "{table}: {rows} thrown away: spool full{fate}")?,
            }
        }
        for Unread { first, last, sinks } in &self.coverage.unreadable {
            let by = if sinks.is_empty() { String::new() } else { format!(" by {}", cut(&sinks.join(" and "), 16)) };
            writeln!(f, "spool: offsets {first} to {last} cannot be read{by}")?;
        }
        for Skipped { sink, first, last, table, rows, why, .. } in &self.coverage.skipped {
            let sink = cut(sink, 16);
            let what = match rows {
                Some(rows) => format!("{}: {} rows lost at {sink}", cut(table, 17), short(*rows)),
                None if *last == 0 => format!("what came before this spool lost at {sink}"),
                None => format!("offsets {first} to {last} lost at {sink}"),
            };
            writeln!(f, "{}", cut(&format!("{what}: {why}"), 160))?;
        }
        for SinkCoverage { sink, rows_lost, uncounted, dead_letters, .. } in &self.coverage.sinks {
            let lost = Some(lost_rows(*rows_lost, *uncounted)).filter(|_| *rows_lost > 0 || *uncounted > 0);
            let lost = lost.map(|lost| format!("{lost} lost"));
            let waiting = Some(letters(*dead_letters)).filter(|_| *dead_letters > 0);
            let said: Vec<_> = lost.into_iter().chain(waiting).collect();
            writeln!(f, "at {}: {}", cut(sink, 16), said.join(", "))?;
        }
        Ok(())
    }
}

/// Writes a line; what is too long for one goes on in the next, further in.
fn wrapped(f: &mut dyn Write, line: &str, width: usize) -> fmt::Result {
    let (mut rest, mut indent) = (line.trim_end(), "");
    loop {
        let room = width.saturating_sub(indent.len()).max(1);
        let Some((end, _)) = rest.char_indices().nth(room) else { return writeln!(f, "{indent}{rest}") };
        let lead = rest.len() - rest.trim_start().len();
        let is_word = !rest[end..].starts_with(' ');
        let word = rest.get(lead..end).filter(|_| is_word).and_then(|some| some.rfind(' '));
        let end = word.map_or(end, |at| lead + at);
        writeln!(f, "{indent}{}", rest[..end].trim_end())?;
        (rest, indent) = (rest[end..].trim_start(), "    ");
    }
}

fn column<'a>(names: impl Iterator<Item = &'a str>, most: usize) -> usize {
    names.map(|name| name.chars().count()).max().unwrap_or(0).clamp(6, most)
}

/// Cuts a text that is too long, and shows that.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

fn rows(rows: Option<u64>, is_known: bool) -> String {
    rows.filter(|_| is_known).map_or_else(|| "–".to_owned(), short)
}

/// Writes a number in at most ten characters, as long as there are not a hundred thousand million.
fn short(number: u64) -> String {
    if number < 100_000_000 { digits(number) } else { format!("{} M", digits(number / 1_000_000)) }
}

/// Returns the word for what shows that nothing is missing.
fn words(proof: Proof) -> &'static str {
    match proof {
        Proof::DenseSequence => "dense",
        Proof::Linked => "linked",
        Proof::History => "history",
        Proof::None => "none",
    }
}

/// Writes a number with commas.
fn digits(number: u64) -> String {
    let text = number.to_string();
    let mut shown = String::new();
    for (n, digit) in text.chars().enumerate() {
        if n > 0 && (text.len() - n).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

fn gaps(count: usize) -> String {
    format!("{count} {}", plural(count, "gap"))
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

/// Words a length of time in at most eight characters, while it is shorter than a thousand days.
fn span(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0 if seconds == 0.0 => "0".to_owned(),
        0..120 => format!("{seconds:.1} s"),
        120..7_200 => format!("{}m {}s", whole / 60, whole % 60),
        7_200..172_800 => format!("{}h {}m", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{}d {}h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

/// More columns than these are not used.
const WIDEST: usize = 80;

fn between_moments(Stretch { from, to }: Stretch) -> String {
    format!("{} to {}", moment(from), moment(to))
}

fn moment(at: Timestamp) -> String {
    let since = Duration::from_nanos(at.0.max(0).unsigned_abs());
    let text = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string();
    text.trim_end_matches('Z').replace('T', " ")
}
