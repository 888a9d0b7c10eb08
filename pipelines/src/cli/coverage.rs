//! `coverage`: what the ledger says, as a page or as JSON.

use std::{
    fmt,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use tidegate_core::{
    catalog::Catalog,
    ledger::{Coverage, Interval, Kind, Proof, State, StreamCoverage},
    pipeline::Folder,
    row::Timestamp,
};

use super::{By, CoverageArgs, Outcome, print, reference, run};

pub(super) fn coverage(catalog: &Catalog, args: &CoverageArgs) -> Outcome {
    let loaded = reference::load(catalog, std::slice::from_ref(&args.file), args.host.as_deref());
    let (Some(host), Some(pipeline)) = (&loaded.host, loaded.pipelines.first()) else { return Ok(ExitCode::from(2)) };
    let path = Folder::of(&host.data_dir, pipeline).ledger();
    let since = args.since.map(before_now);
    let mut coverage = run::runtime()?.block_on(Coverage::read(&path, since))?;
    let code = if coverage.is_lost { ExitCode::from(1) } else { ExitCode::SUCCESS };
    if args.json {
        if args.by == By::Table {
            coverage.streams.clear();
        }
        let document = serde_json::json!({ "pipeline": pipeline.name, "coverage": coverage });
        print(format_args!("{document:#}\n"))?;
    } else {
        print(Page { pipeline: &pipeline.name, coverage: &coverage, by: args.by })?;
    }
    Ok(code)
}

fn before_now(age: Duration) -> Timestamp {
    Timestamp(Timestamp::now().0.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)))
}

/// What is shown of a ledger: at most 80 columns.
struct Page<'a> {
    pipeline: &'a str,
    coverage: &'a Coverage,
    by: By,
}

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Coverage { from, to, kinds, .. } = self.coverage;
        let (Some(from), Some(to)) = (from, to) else {
            return writeln!(f, "{}: nothing has been subscribed to yet", self.pipeline);
        };
        writeln!(f, "{}  {} to {} UTC", self.pipeline, moment(*from), moment(*to))?;
        match self.by {
            By::Table => tables(f, kinds)?,
            By::Stream => streams(f, &self.coverage.streams)?,
        }
        for kind in kinds {
            sentences(f, kind)?;
        }
        self.losses(f)?;
        let sum = |count: fn(&Kind) -> usize| kinds.iter().map(count).sum::<usize>();
        let (filled, open, lost) = (sum(|kind| kind.filled), sum(|kind| kind.open), sum(|kind| kind.lost));
        writeln!(f, "total: {} filled, {open} open, {lost} lost", gaps(filled))
    }
}

fn tables(f: &mut fmt::Formatter<'_>, kinds: &[Kind]) -> fmt::Result {
    let wide = column(kinds.iter().map(|kind| kind.table.as_str()), 22);
    writeln!(f, "{:wide$}  streams     received  backfilled      lost   unknown  proof", "table")?;
    for kind in kinds {
        let Kind { table, streams, rows_received, rows_backfilled, lost_seconds, unknown_seconds, .. } = kind;
        let is_numbered = kind.proof != Proof::None;
        let (received, backfilled) = (rows(*rows_received, true), rows(*rows_backfilled, is_numbered));
        let (lost, unknown) = (span(*lost_seconds), span(*unknown_seconds));
        let (table, proof) = (cut(table, wide), kind.proof.words());
        writeln!(f, "{table:wide$}  {streams:>7}  {received:>11}  {backfilled:>10}  {lost:>8}  {unknown:>8}  {proof}")?;
    }
    Ok(())
}

fn streams(f: &mut fmt::Formatter<'_>, streams: &[StreamCoverage]) -> fmt::Result {
    let wide = column(streams.iter().map(|stream| stream.symbol.as_str()), 24);
    let table_wide = column(streams.iter().map(|stream| stream.table.as_str()), 12);
    writeln!(f, "{:wide$}  {:table_wide$}   received  backfilled  complete since / state", "stream", "table")?;
    for stream in streams {
        let is_numbered = stream.proof != Proof::None;
        let (received, backfilled) = (rows(stream.rows_received, true), rows(stream.rows_backfilled, is_numbered));
        let (symbol, table) = (cut(&stream.symbol, wide), cut(&stream.table, table_wide));
        let last = stream.intervals.last().map_or("", |interval| interval.state.name());
        let since = stream.complete_since.map_or_else(|| last.replace('_', " "), moment);
        writeln!(f, "{symbol:wide$}  {table:table_wide$}  {received:>9}  {backfilled:>10}  {since}")?;
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
    let Interval { from, to, state, why } = interval;
    let state = state.name().replace('_', " ");
    let lasts = to.map_or_else(|| "until now".to_owned(), |to| format!("for {}", span(seconds(*from, to))));
    let why = why.as_ref().filter(|_| interval.state == State::Lost).map_or_else(String::new, |why| format!(": {why}"));
    cut(&format!("{state} {} {lasts}{why}", moment(*from)), 78)
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    Duration::from_nanos(to.0.saturating_sub(from.0).max(0).unsigned_abs()).as_secs_f64()
}

fn sentences(f: &mut fmt::Formatter<'_>, kind: &Kind) -> fmt::Result {
    let Kind { table, complete_since, open, away, absent, unknown_seconds, lost_because, proof, .. } = kind;
    if let Some(since) = complete_since {
        writeln!(f, "{table}: complete since {}", moment(*since))?;
    }
    if *proof == Proof::None && *unknown_seconds > 0.0 {
        let unknown = span(*unknown_seconds);
        writeln!(f, "{table}: nobody listened for {unknown}, and the venue does not repeat what it sent")?;
    }
    if *open > 0 {
        writeln!(f, "{table}: {} open, asked for", gaps(*open))?;
    }
    if *away > 0 && *proof != Proof::None {
        writeln!(f, "{table}: nobody listens to {away} streams; what they miss is asked for later")?;
    }
    if *absent > 0 {
        writeln!(f, "{table}: {} held numbers that the venue never gave", gaps(*absent))?;
    }
    for (why, streams) in lost_because {
        writeln!(f, "{table}: lost of {streams} {}: {}", plural(*streams, "stream"), cut(why, 50))?;
    }
    Ok(())
}

impl Page<'_> {
    fn losses(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut dropped: std::collections::BTreeMap<_, u64> = std::collections::BTreeMap::new();
        for one in &self.coverage.dropped {
            *dropped.entry((&one.sink, &one.table)).or_default() += one.rows;
        }
        for ((sink, table), rows) in dropped {
            let rows = digits(rows);
            match sink {
                Some(sink) => writeln!(f, "{table}: {rows} rows dropped before {sink} had them: the spool was full")?,
                None => writeln!(f, "{table}: {rows} rows thrown away: the spool was full")?,
            }
        }
        for (first, last) in &self.coverage.unreadable {
            writeln!(f, "spool: offsets {first} to {last} cannot be read any more")?;
        }
        Ok(())
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
    rows.filter(|_| is_known).map_or_else(|| "–".to_owned(), digits)
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

fn moment(at: Timestamp) -> String {
    let since = Duration::from_nanos(at.0.max(0).unsigned_abs());
    let text = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string();
    text.trim_end_matches('Z').replace('T', " ")
}
