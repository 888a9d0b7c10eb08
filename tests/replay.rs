//! What was captured and is played again through the same TOML is stored as it was: the real program, intake, spool and
//! store.
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

mod support;

use std::{io::Write, path::Path, process::Command, time::Duration};

use flate2::{Compression, write::GzEncoder};
use serde_json::Value;
use sqlx::Row;
use support::{Bench, Program, compare, stored};
use tempfile::TempDir;
use tidegate_core::connection::capture::{self, Body, Event};
use tidegate_sources::deribit::simulator::{Condition, Fault, Faults, Oracle, SimulatorConfig};

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_stores_every_table_of_the_venue_as_it_was_at_any_speed_and_only_once() {
    let channels = every_channel();
    let recorded = Recorded::start(&channels.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(recorded.tables(), channels, "a table for each channel");
    for (number, speed) in ["max", "20x"].into_iter().enumerate() {
        let bench = recorded.replay(speed, &format!("again{number}.sqlite"));
        for run in 1..=2 {
            let (code, log) = Program::start(bench.folder(), &["run", "eth.toml"]).ended().await;
            assert_eq!(code, 0, "{speed}, run {run}: {log}");
            for (table, live) in &recorded.rows {
                let again = rows(&bench, table).await;
                assert!(!live.is_empty(), "{table}");
                assert_eq!(again.len(), live.len(), "{table} at {speed}, run {run}; the log:\n{log}");
                let other = live.iter().zip(&again).find(|(live, again)| live != again);
                assert!(other.is_none(), "{table} at {speed}, run {run}: {other:#?}");
            }
            assert_eq!(tables(&bench).await, recorded.tables(), "at {speed}, run {run}");
            let again = unknown_times(&bench);
            assert_eq!(again.len(), recorded.unknown_times.len(), "streams at {speed}, run {run}");
            for (live, again) in recorded.unknown_times.iter().zip(&again) {
                // Live, intake hears a little later of what the capture has the time of: at each end of an interval.
                let apart = (live.seconds - again.seconds).abs();
                let may_be = 5.0 * live.intervals.max(again.intervals).max(1) as f64;
                let is_same = live.stream == again.stream && apart < may_be;
                assert!(is_same, "live {live:?}, again {again:?} at {speed}, run {run}: {log}");
            }
        }
        std::fs::remove_dir_all(bench.path("data/eth/replay")).unwrap();
        recorded.bench.replace(Some(bench));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_was_killed_is_not_begun_again_among_its_own_rows() {
    let recorded = Recorded::start(&TRADES_AND_TICKERS).await;
    let bench = recorded.replay("1x", "again.sqlite");
    let mut program = bench.run();
    program.until_committed(200).await;
    assert_eq!(program.get("/health/ready").await.0, 200, "a replay has all that it waits for");
    program.kill().await;

    let mut program = bench.run();
    let report = program
        .until("the source has failed", |report| report["checks"]["eth/source.deribit"]["status"] == "failed")
        .await;
    let why = report["checks"]["eth/source.deribit"]["reason"].as_str().unwrap();
    assert!(
        why.contains("data/eth/replay` holds an unfinished replay of") && why.contains("remove this folder"),
        "{why}"
    );
    let (code, log) = program.stop().await;
    assert_eq!(code, 1, "{log}");
    for (table, live) in &recorded.rows {
        let again = rows(&bench, table).await;
        assert!(!again.is_empty() && again.len() < live.len(), "{table}: {} of {}", again.len(), live.len());
        let mut left = live.iter();
        assert!(again.iter().all(|row| left.any(|other| other == row)), "{table}: doubled or invented");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_holds_the_live_feed_refuses_a_replay_and_the_live_spool_is_left_alone() {
    let recorded = Recorded::start(&TRADES_AND_TICKERS).await;
    let live = spool_of(recorded.bench.borrow().as_ref().unwrap());
    let bench = recorded.replay("max", "eth.sqlite");
    let mut program = bench.run();
    let report =
        program.until("the sink has failed", |report| report["checks"]["eth/sink.sqlite"]["status"] == "failed").await;
    let why = report["checks"]["eth/sink.sqlite"]["reason"].as_str().unwrap();
    assert!(why.contains("spool"), "{why}");
    println!("{why}");
    program.stop().await;
    for (table, live) in &recorded.rows {
        assert_eq!(rows(&bench, table).await.len(), live.len(), "{table}");
    }
    assert_eq!(spool_of(&bench), live);
}

#[tokio::test(flavor = "multi_thread")]
async fn captures_of_two_pipelines_in_one_folder_are_kept_apart_and_one_without_a_folder_costs_no_feed() {
    let bench = Bench::start(SimulatorConfig::default(), "", "").await;
    let host = std::fs::read_to_string(bench.path("tidegate.toml")).unwrap();
    bench.write("tidegate.toml", &format!("{host}[defaults.source]\ncapture = {{ dir = \"captures\" }}\n"));
    let other = bench.pipeline("", "").replace("name = \"eth\"", "name = \"other\"").replace("eth.sqlite", "o.sqlite");
    bench.write("other.toml", &other);
    std::fs::create_dir(bench.path("captures")).unwrap();
    bench.write("captures/other", "a file where the folder has to be");
    let mut program = bench.run_all();
    let report = program
        .until("the other has no capture", |report| {
            let why = report["checks"]["other/source.deribit"]["reason"].as_str().unwrap_or_default();
            why.contains("no capture") && report["checks"]["other/sink.sqlite"]["rows_committed"].as_u64() > Some(50)
        })
        .await;
    assert_eq!(report["checks"]["other/source.deribit"]["status"], "degraded", "{report:#}");
    program.until_committed(50).await;
    program.stop().await;
    assert!(std::fs::read_dir(bench.path("captures/eth/deribit")).unwrap().count() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulator_that_plays_a_capture_loses_nothing_through_cuts_and_its_oracle_says_so() {
    let recorded = Recorded::start(&TRADES_AND_TICKERS).await;
    let (made, live) = {
        let bench = recorded.bench.borrow();
        let bench = bench.as_ref().unwrap();
        (bench.venue.oracle(), bench.path("data/eth/sources/deribit/capture"))
    };
    let doubled = of_some_days_ago_with_each_ticker_twice(&live);
    let faults = Faults::parse("malformed=30/m,slow=20/m").unwrap();
    let replay = Some(doubled.path().to_owned());
    let config = SimulatorConfig { replay, replay_speed: 2.0, faults, ..SimulatorConfig::default() };
    let bench = Bench::start(config, "", "").await;
    let mut program = bench.run();
    for committed in [800, 1_600, 2_400] {
        program.until_committed(committed).await;
        let too_many = Condition::Http429 { retry_after: Duration::from_secs(1) };
        bench.venue.inject(Fault::Lasting(too_many, Duration::from_millis(300)));
        bench.venue.inject(Fault::Cut);
        assert_eq!(bench.venue.inject(Fault::Skip), 0, "a replay makes nothing");
    }
    let played = tokio::time::timeout(support::PATIENCE, bench.venue.played()).await;
    assert!(played.is_ok(), "the capture does not end; the log:\n{}", program.log());
    let comparison = bench.settle(&mut program).await;
    comparison.assert_exact(&program.log());
    assert!(comparison.trades.by_rest > 0, "the cuts were filled");
    let twice =
        bench.number("SELECT count(*) FROM (SELECT 1 FROM tickers GROUP BY symbol, volume_24h HAVING count(*) = 2)");
    assert!(twice.await > 100, "what the venue repeats is kept");

    let again = bench.venue.oracle();
    for (symbol, trades) in &again.trades {
        let ids: Vec<u64> = made.trades[symbol].iter().map(|trade| trade.id).collect();
        assert!(trades.iter().all(|trade| ids.contains(&trade.id)), "{symbol}: the venue made these");
        assert!(trades.is_sorted_by_key(|trade| trade.seq), "{symbol}: in their order");
    }
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn simulate_plays_a_capture_from_the_first_subscription_to_its_end_and_writes_down_what_it_sent() {
    let recorded = Recorded::start(&TRADES_AND_TICKERS).await;
    let bench = recorded.bench.take().unwrap().at("played.sqlite");
    let capture = "data/eth/sources/deribit/capture";
    let simulate = |more: &[&str]| {
        let args = [&["simulate", "deribit", "--replay", capture], more].concat();
        Program::start(bench.folder(), &args)
    };
    for (mistake, code, answer) in [
        (&["--faults", "skip=1/m"][..], 1, "fault `skip` needs a market"),
        (&["--rate", "5"], 2, "cannot be used with"),
        (&["--speed", "0"], 1, "a speed of 0"),
    ] {
        let (ended, log) = simulate(mistake).ended().await;
        assert!(ended == code && log.contains(answer), "{mistake:?}: {ended} {log}");
    }

    let mut venue = simulate(&["--speed", "5", "--faults", "cut=60/m", "--sent", "sent.jsonl"]);
    // Behind its address it may say what of the capture is broken.
    let is_up = |line: &str| line.starts_with("endpoint = ") || line.contains("not played");
    venue.until("its address", |line| line.as_str().is_some_and(is_up)).await;
    let printed = venue.printed();
    let endpoint = printed.lines().find(|line| line.starts_with("endpoint = ")).unwrap();
    bench.write("eth.toml", &bench.pipeline(&format!("{endpoint}\n"), "").replace("\"eth\"", "\"again\""));
    let mut program = bench.run();
    venue.until("its end", |line| line.as_str().is_some_and(|line| line.contains("has been played"))).await;
    let deadline = tokio::time::Instant::now() + support::PATIENCE;
    loop {
        let stored = stored(&bench.database()).await;
        let comparison = compare(&Oracle::load(bench.path("sent.jsonl")).unwrap(), &stored);
        if comparison.trades.missing + comparison.tickers.holes == 0 || tokio::time::Instant::now() > deadline {
            comparison.assert_exact(&program.log());
            break;
        }
        program.next_report().await;
    }
    program.stop().await;
    venue.signal("TERM");
    let (code, log) = venue.ended().await;
    assert_eq!(code, 0, "{log}");
    let (code, log) = simulate(&["--sent", "sent.jsonl"]).ended().await;
    assert!(code == 1 && log.contains("the `sent` file has begun already"), "{log}");
}

/// A run with faults that was captured, and what it stored.
struct Recorded {
    bench: std::cell::RefCell<Option<Bench>>,
    /// What the source is told.
    channels: String,
    /// Every table of the store, by name, with its rows.
    rows: Vec<(String, Vec<String>)>,
    /// What its ledger says.
    unknown_times: Vec<UnknownTime>,
}

impl Recorded {
    async fn start(channels: &[&str]) -> Self {
        let faults = Faults::parse("malformed=60/m,duplicate=60/m,reorder=60/m,skip=30/m,skip_book=30/m").unwrap();
        let config = SimulatorConfig { rate: 1_000.0, faults, ..SimulatorConfig::default() };
        let channels_line = format!("channels = {channels:?}\n");
        let bench = Bench::start(config, &format!("{channels_line}capture = {{}}\n"), "").await;
        let mut program = bench.run();
        for tickers in [700, 1_400, 2_100, 2_800] {
            bench.until_number(&mut program, "SELECT count(*) FROM tickers", tickers).await;
            if channels.contains(&"instrument_status") {
                bench.venue.inject(if tickers % 1_400 == 0 { Fault::List } else { Fault::Expire });
            }
            bench.venue.inject(Fault::Cut);
        }
        bench.until_number(&mut program, "SELECT count(*) FROM tickers", 3_500).await;
        for table in channels {
            bench.until_number(&mut program, &format!("SELECT count(*) FROM {table}"), 1).await;
        }
        let comparison = bench.settle(&mut program).await;
        comparison.assert_exact(&program.log());
        assert!(program.metric("tidegate_duplicates_total").await > 0.0, "faults are counted");
        let (code, log) = program.stop().await;
        assert_eq!(code, 0, "{log}");
        let mut all = Vec::new();
        for table in tables(&bench).await {
            let rows = rows(&bench, &table).await;
            all.push((table, rows));
        }
        assert!(all.iter().filter(|(_, rows)| rows.len() > 100).count() >= 2, "too few rows to tell anything: {log}");
        let unknown_times = unknown_times(&bench);
        assert!(unknown_times.iter().any(|time| time.seconds > 0.0), "nobody repeats what was cut: {log}");
        Self { bench: Some(bench).into(), channels: channels_line, rows: all, unknown_times }
    }

    fn tables(&self) -> Vec<String> {
        self.rows.iter().map(|(table, _)| table.clone()).collect()
    }

    /// Writes the same pipeline, which plays what it has captured into a database.
    fn replay(&self, speed: &str, database: &str) -> Bench {
        let bench = self.bench.take().unwrap().at(database);
        let replay = format!("replay = {{ from = \"data/eth/sources/deribit/capture\", speed = \"{speed}\" }}\n");
        bench.write("eth.toml", &bench.pipeline(&format!("{}{replay}", self.channels), ""));
        bench
    }
}

/// Writes a capture again as if it were of some days ago, and each ticker had come twice, as it happens at the real venue.
fn of_some_days_ago_with_each_ticker_twice(capture: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(folder.path().join("deribit-000001.jsonl.gz")).unwrap();
    let mut file = GzEncoder::new(file, Compression::fast());
    for line in capture::read(capture).unwrap() {
        let mut line = line.unwrap();
        line.at.0 -= 3 * DAY_MS * 1_000_000;
        if let Event::Frame { body: Body::Text(text) } | Event::Reply { body: Body::Text(text), .. } = &mut line.event {
            *text = three_days_before(text);
        }
        let is_ticker = matches!(&line.event, Event::Frame { body: Body::Text(text) } if text.contains("\"ticker."));
        for _ in 0..if is_ticker { 2 } else { 1 } {
            serde_json::to_writer(&mut file, &line).unwrap();
            file.write_all(b"\n").unwrap();
        }
    }
    file.finish().unwrap();
    folder
}

fn three_days_before(text: &str) -> String {
    let key = "\"timestamp\":";
    let mut parts = text.split(key);
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |before, part| {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        match part[..part.len() - rest.len()].parse::<i64>() {
            Ok(at_ms) => format!("{before}{key}{}{rest}", at_ms - 3 * DAY_MS),
            Err(_) => format!("{before}{key}{part}"),
        }
    })
}

const DAY_MS: i64 = 86_400_000;

const TRADES_AND_TICKERS: [&str; 2] = ["tickers", "trades"];

/// Returns all channels that the program says Deribit has, sorted.
fn every_channel() -> Vec<String> {
    let mut list = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let page = list.args(["list", "deribit"]).env("COLUMNS", "200").output().unwrap();
    let page = String::from_utf8(page.stdout).unwrap();
    let (_, names) = page.split_once("\n  channels ").unwrap().1.split_once(" list of ").unwrap();
    let names = names.split("  ").next().unwrap().split(" | ");
    let mut names: Vec<String> = names.map(|name| name.trim_matches('"').to_owned()).collect();
    names.sort();
    assert!(names.len() > 6, "{names:?}");
    names
}

/// Returns the names of the tables of rows that a store has, sorted.
async fn tables(bench: &Bench) -> Vec<String> {
    bench.texts("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'tidegate~_%' ESCAPE '~'").await
}

/// Returns the rows of a table with all of their columns, sorted.
async fn rows(bench: &Bench, table: &str) -> Vec<String> {
    let mut db = bench.connection().await;
    let columns = format!("SELECT name FROM pragma_table_info('{table}')");
    let columns = sqlx::query(sqlx::AssertSqlSafe(columns)).fetch_all(&mut db).await.unwrap();
    let columns: Vec<String> =
        columns.iter().map(|row| format!("'{0}=' || quote(\"{0}\")", row.get::<String, _>("name"))).collect();
    bench.texts(&format!("SELECT {} FROM {table}", columns.join(" || ' ' || "))).await
}

/// For how long nobody knows what the venue sent, as the ledger has it.
#[derive(Debug)]
struct UnknownTime {
    stream: (String, String),
    intervals: usize,
    seconds: f64,
}

/// Returns that of every stream, sorted.
fn unknown_times(bench: &Bench) -> Vec<UnknownTime> {
    let mut coverage = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let words = ["coverage", "eth.toml", "--by", "stream", "--json"];
    let said = coverage.args(words).current_dir(bench.folder()).output().unwrap();
    let document: Value = serde_json::from_slice(&said.stdout).unwrap();
    // The time since it was stopped, which has no end, is no part of it.
    let length = |interval: &Value| Some((interval["to"].as_i64()? - interval["from"].as_i64()?) as f64 / 1e9);
    let of = |stream: &Value| {
        let intervals = stream["intervals"].as_array().unwrap().iter();
        let lengths: Vec<f64> =
            intervals.filter(|interval| interval["state"] == "unknown").filter_map(length).collect();
        let stream = (stream["table"].to_string(), stream["symbol"].to_string());
        UnknownTime { stream, intervals: lengths.len(), seconds: lengths.iter().sum() }
    };
    let mut times: Vec<UnknownTime> = document["coverage"]["streams"].as_array().unwrap().iter().map(of).collect();
    times.sort_by(|one, other| one.stream.cmp(&other.stream));
    times
}

/// Returns the names and sizes of the live spool's files.
fn spool_of(bench: &Bench) -> Vec<(String, u64)> {
    let entries = std::fs::read_dir(bench.path("data/eth/spool")).unwrap();
    let mut files: Vec<(String, u64)> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.metadata().unwrap().len()))
        .collect();
    files.sort();
    files
}
