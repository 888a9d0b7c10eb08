//! The ledger says what was received, filled and lost, interval by interval, and `coverage` shows it: the real program
//! against the simulator over real sockets.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use std::{
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};
use support::{Bench, PATIENCE, Program, busy};
use tidegate_sources::deribit::simulator::{Condition, Fault, Oracle, SimulatorConfig, Trade};
use tokio::time::{Instant, sleep};

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_run_is_complete_and_its_totals_are_those_of_the_store() {
    let bench = Bench::start(busy(1_000.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(1_000).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    until_totals(&bench, &mut program).await;
    let running = coverage(bench.folder(), &["--json"]);
    assert_eq!(running.status.code(), Some(0), "of a running pipeline: {}", said(&running));
    let report = program.next_report().await;
    assert_eq!(report["checks"]["eth/ledger"]["status"], "healthy", "{report:#}");
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");

    let stopped = coverage(bench.folder(), &[]);
    let page = said(&stopped);
    assert_eq!(stopped.status.code(), Some(0), "of a stopped pipeline: {page}");
    assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
    assert!(page.contains("\ntrades: complete from ") && page.contains(", 0 open, 0 lost\n"), "{page}");
    let kinds = kinds(&bench);
    assert_eq!(totals(&kinds), stored(&bench).await);
    assert_eq!(
        (kind(&kinds, "trades")["proof"].as_str(), kind(&kinds, "trades")["lost"].as_u64()),
        (Some("dense_sequence"), Some(0))
    );
    assert_eq!(kind(&kinds, "tickers")["proof"], "none");
    let by_stream = said(&coverage(bench.folder(), &["--by", "stream"]));
    assert!(by_stream.contains("ETH-PERPETUAL") || by_stream.contains("ETH-"), "{by_stream}");
    assert!(by_stream.lines().all(|line| line.chars().count() <= 80), "{by_stream}");
    let since = said(&coverage(bench.folder(), &["--since", "1d"]));
    assert!(since.contains("trades") && since.contains('–'), "rows are not told apart by time: {since}");
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_cuts_and_kills_every_interval_holds_what_the_venue_made_in_it() {
    let bench = Bench::start(busy(1_000.0), "", "").await;
    let mut program = bench.run();
    for fault in [Fault::Cut, Fault::Torn, Fault::Skip, Fault::Close { code: 1001 }] {
        let rows = bench.number("SELECT count(*) FROM trades").await;
        bench.until_it_hits(&mut program, &fault).await;
        bench.until_number(&mut program, "SELECT count(*) FROM trades", rows + 100).await;
    }
    for _ in 0..3 {
        program.kill().await;
        let made = bench.venue.read(|oracle| oracle.trades_made);
        while bench.venue.read(|oracle| oracle.trades_made) < made + 30 {
            tokio::task::yield_now().await;
        }
        program = bench.run();
        let rows = bench.number("SELECT count(*) FROM trades").await;
        bench.until_number(&mut program, "SELECT count(*) FROM trades", rows + 100).await;
    }
    bench.settle(&mut program).await.assert_exact(&program.log());
    until_totals(&bench, &mut program).await;
    let no_gap = |report: &Value| report["checks"]["eth/source.deribit"]["gaps"]["open"] == 0;
    program.until("no gap is open", no_gap).await;
    until_page(&bench, &mut program, ", 0 open, 0 lost\n").await;
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");

    let output = coverage(bench.folder(), &["--by", "stream", "--json"]);
    assert_eq!(output.status.code(), Some(0), "all was filled: {}", said(&coverage(bench.folder(), &[])));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(totals(&document["coverage"]["kinds"]), stored(&bench).await);
    let streams = document["coverage"]["streams"].as_array().unwrap().clone();
    let mut backfilled = 0;
    for stream in streams {
        let intervals = intervals(&stream);
        assert!(intervals.windows(2).all(|pair| pair[0].1 == Some(pair[1].0)), "no overlap and no hole: {stream:#}");
        let symbol = stream["symbol"].as_str().unwrap();
        let table = stream["table"].as_str().unwrap();
        backfilled += intervals.iter().filter(|(_, _, state)| state == "backfilled").count();
        if table == "tickers" {
            let times = times(&bench, &format!("SELECT ts_recv FROM tickers WHERE symbol = '{symbol}'")).await;
            for at in times {
                let (from, _, state) = interval_at(&intervals, at);
                // That frames come is told once a second: behind the last word before a kill nothing is claimed.
                let near = Duration::from_millis(1_500).as_nanos() as i64;
                assert!(state != "unknown" || at - from < near, "a ticker at {at} in an unknown time: {intervals:?}");
            }
        }
    }
    assert!(backfilled > 0, "something was filled");
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_killed_pipeline_it_says_so_and_calls_nothing_complete_that_came_later() {
    let bench = Bench::start(busy(1_000.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(1_000).await;
    until_page(&bench, &mut program, "\ntrades: complete since ").await;
    assert!(!said(&coverage(bench.folder(), &[])).contains("nobody runs it"));
    program.kill().await;
    let page = said(&coverage(bench.folder(), &[]));
    assert!(page.contains("\nnobody runs it since ") && !page.contains("open, asked for"), "{page}");
    assert!(page.contains("\ntrades: complete from ") && !page.contains("complete since"), "{page}");
    assert!(page.contains("\ntickers: nobody ran or listened for "), "{page}");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let page = said(&coverage(bench.folder(), &["--since", "1s"]));
        if !page.contains("trades: complete ") {
            assert!(page.contains("\nnobody runs it since ") && page.contains("nobody listens to "), "{page}");
            break;
        }
        assert!(Instant::now() < deadline, "nobody listens any more: {page}");
    }
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_venue_has_forgotten_is_lost_from_the_last_trade_before_to_the_first_one_after() {
    let config = SimulatorConfig { paused: true, history: Duration::from_millis(1), ..SimulatorConfig::default() };
    let bench = Bench::start(config, "", "").await;
    let option = "ETH-25DEC26-9000-C";
    assert!(bench.venue.list(option));
    let (ws, http) = (bench.venue.ws_url(), bench.venue.http_url());
    let source = format!(
        "endpoint = {{ ws = \"{ws}\", http = \"{http}\" }}\nchannels = [\"trades\"]\ninstruments = [\"{option}\"]\n"
    );
    bench.write("eth.toml", &bench.pipeline(&source, ""));
    // What is older than an hour may be given up; nothing else tells how long ago it was.
    bench.venue.inject(Fault::Lasting(Condition::Skew { by_ms: -30 * 3_600_000 }, Duration::from_secs(3_600)));
    let mut program = bench.run();
    let ready = |report: &Value| {
        let source = &report["checks"]["eth/source.deribit"];
        source["subscribed"] == true && source["gaps"]["open"] == 0
    };
    program.until("subscribed, with its beginning known", ready).await;
    assert!(bench.venue.make_trade(option) && bench.venue.make_trade(option));
    bench.until_number(&mut program, "SELECT count(*) FROM trades", 2).await;
    program.kill().await;
    // Nobody listens to these, and the host forgets them at once.
    for _ in 0..3 {
        assert!(bench.venue.make_trade(option));
        sleep(Duration::from_millis(20)).await;
    }
    let mut program = bench.run();
    program.until("subscribed again", |report| report["checks"]["eth/source.deribit"]["subscribed"] == true).await;
    assert!(bench.venue.make_trade(option));
    bench.until_number(&mut program, "SELECT count(*) FROM trades", 3).await;
    // The venue is asked twice, a minute apart.
    let deadline = Instant::now() + 3 * PATIENCE;
    let lost = |report: &Value| report["checks"]["eth/source.deribit"]["gaps"]["lost"].as_u64() > Some(0);
    while !lost(&program.next_report().await) {
        assert!(Instant::now() < deadline, "the gap is never given up; the log:\n{}", program.log());
    }
    until_page(&bench, &mut program, ", 0 open, 1 lost\n").await;

    let output = coverage(bench.folder(), &["--by", "stream", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let intervals = intervals(&document["coverage"]["streams"][0]);
    let lost: Vec<_> = intervals.iter().filter(|(_, _, state)| state == "lost").collect();
    let made = bench.venue.read(|oracle: &Oracle| oracle.trades[option].clone());
    let at = |trade: &Trade| trade.timestamp * 1_000_000;
    let [.., before, _, _, _, after] = &made[..] else { panic!("{made:?}") };
    assert_eq!(lost.len(), 1, "{intervals:?}");
    let (from, to, _) = lost[0];
    assert!(*from >= at(before) && *from < at(&made[made.len() - 4]), "{intervals:?} {made:?}");
    assert!(to.unwrap() <= at(after) && to.unwrap() > at(&made[made.len() - 2]), "{intervals:?} {made:?}");
    let page = said(&coverage(bench.folder(), &[]));
    assert!(page.contains("trades: lost of 1 stream: the venue forgot\n"), "{page}");
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_book_that_was_cut_health_and_log_and_coverage_say_that_it_is_not_repeatable_and_none_that_it_is_lost() {
    let bench = Bench::start(busy(1_000.0), "", "").await;
    let source = "channels = [\"book_changes\"]\ninstruments = [\"ETH-PERPETUAL\"]\n";
    bench.write("eth.toml", &bench.pipeline(source, ""));
    let mut program = bench.run();
    bench.until_number(&mut program, "SELECT count(*) FROM book_changes", 3).await;
    assert!(bench.venue.inject(Fault::Cut) > 0);
    let gaps = |report: &Value| report["checks"]["eth/source.deribit"]["gaps"].clone();
    let report =
        program.until("the book began anew", |report| gaps(report)["resynchronised"].as_u64() >= Some(1)).await;
    assert_eq!(gaps(&report)["lost"], 0, "{report:#}");
    program.until_logged("1 not repeatable: the changes of a book before its next whole state").await;
    let is_known = |kinds: &Value| kind(kinds, "book_changes")["unknown_seconds"].as_f64() > Some(0.0);
    let deadline = Instant::now() + PATIENCE;
    while !is_known(&kinds(&bench)) {
        assert!(Instant::now() < deadline, "the ledger never says so: {:#}", kinds(&bench));
        program.next_report().await;
    }
    let output = coverage(bench.folder(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains(", 0 lost\n"), "{}", said(&output));
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_was_removed_or_damaged_is_built_again_from_the_spool() {
    let bench = Bench::start(busy(1_000.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(1_000).await;
    let ledger = bench.path("data/eth/ledger.sqlite");
    std::fs::remove_file(&ledger).unwrap();
    program.until_logged("was removed or replaced").await;
    program.until("it goes on", |report| report["checks"]["eth/ledger"]["status"] == "healthy").await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    until_totals(&bench, &mut program).await;
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    assert_eq!(totals(&kinds(&bench)), stored(&bench).await, "the spool reaches back to the beginning");

    std::fs::write(&ledger, "no database, and longer than the header of one".repeat(100)).unwrap();
    assert_damaged(&bench);
    let mut program = bench.run();
    program.until_logged("ledger.sqlite.damaged").await;
    until_totals(&bench, &mut program).await;
    assert_eq!(program.stop().await.0, 0);
    assert!(bench.path("data/eth/ledger.sqlite.damaged").exists());

    let options = SqliteConnectOptions::new().filename(&ledger);
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("DROP TABLE position").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    assert_damaged(&bench);
    let mut program = bench.run();
    program.until_logged("ledger.sqlite.damaged").await;
    until_totals(&bench, &mut program).await;
    assert_eq!(program.stop().await.0, 0);
    bench.leave().await;
}

fn assert_damaged(bench: &Bench) {
    let output = coverage(bench.folder(), &[]);
    assert_eq!(output.status.code(), Some(2), "1 is for what is lost: {}", said(&output));
    assert!(said(&output).contains("the next run puts it aside and builds it again"), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_run_or_not_from_here_has_written_nothing_and_the_place_is_said() {
    let bench = Bench::start(busy(1_000.0), "", "").await;
    let place = std::path::absolute(bench.folder().join("data/eth/spool")).unwrap();
    for command in [&["coverage", "eth.toml"][..], &["deadletter", "list", "eth.toml"]] {
        let output = tidegate(bench.folder(), command);
        let said = said(&output);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{said}");
        let named = format!("there is no spool `{}`: the pipeline has not run yet", place.display());
        assert!(said.contains(&named) && said.contains("`data_dir` is relative to where you run"), "{said}");
    }
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_several_pipelines_is_refused_since_only_one_would_be_shown() {
    let bench = Bench::start(busy(1_000.0), "", "").await;
    let text = bench.pipeline("", "");
    std::fs::create_dir(bench.path("both")).unwrap();
    for name in ["eth", "btc"] {
        let named = text.replace("name = \"eth\"", &format!("name = \"{name}\""));
        bench.write(&format!("both/{name}.toml"), &named.replace("eth.sqlite", &format!("{name}.sqlite")));
    }
    for command in [&["coverage", "both"][..], &["deadletter", "list", "both"]] {
        let output = tidegate(bench.folder(), command);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{}", said(&output));
        assert!(said(&output).contains("`both` holds 2 pipelines: name the file of one"), "{}", said(&output));
    }
    bench.leave().await;
}

fn coverage(folder: &Path, args: &[&str]) -> Output {
    tidegate(folder, &[&["coverage", "eth.toml"], args].concat())
}

fn tidegate(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate")).args(args).current_dir(folder).output().unwrap()
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    text(&output.stdout) + &text(&output.stderr)
}

fn kinds(bench: &Bench) -> Value {
    let output = coverage(bench.folder(), &["--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    document["coverage"]["kinds"].clone()
}

fn kind<'a>(kinds: &'a Value, table: &str) -> &'a Value {
    kinds.as_array().unwrap().iter().find(|kind| kind["table"] == table).unwrap()
}

/// Returns the rows of each table, live and by the history.
fn totals(kinds: &Value) -> Vec<(String, i64, i64)> {
    let total = |kind: &Value| {
        let rows = |name: &str| kind[name].as_i64().unwrap_or(-1);
        (kind["table"].as_str().unwrap().to_owned(), rows("rows_received"), rows("rows_backfilled"))
    };
    kinds.as_array().into_iter().flatten().map(total).collect()
}

/// Returns the same of the store, by SQL of its own.
async fn stored(bench: &Bench) -> Vec<(String, i64, i64)> {
    let mut totals = Vec::new();
    for table in ["tickers", "trades"] {
        let rows =
            async |origin: &str| bench.number(&format!("SELECT count(*) FROM {table} WHERE origin = '{origin}'")).await;
        totals.push((table.to_owned(), rows("live").await, rows("backfill").await));
    }
    totals
}

/// Waits until the ledger has as many rows as the store.
async fn until_totals(bench: &Bench, program: &mut Program) {
    let deadline = Instant::now() + PATIENCE;
    while totals(&kinds(bench)) != stored(bench).await {
        let (says, stored) = (kinds(bench), stored(bench).await);
        assert!(Instant::now() < deadline, "{says:#} instead of {stored:?}; the log:\n{}", program.log());
        program.next_report().await;
    }
}

/// Waits until the page says something.
async fn until_page(bench: &Bench, program: &mut Program, text: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let page = said(&coverage(bench.folder(), &[]));
        if page.contains(text) {
            return;
        }
        assert!(Instant::now() < deadline, "never {text}: {page}; the log:\n{}", program.log());
        program.next_report().await;
    }
}

type Interval = (i64, Option<i64>, String);

fn intervals(stream: &Value) -> Vec<Interval> {
    let interval =
        |one: &Value| (one["from"].as_i64().unwrap(), one["to"].as_i64(), one["state"].as_str().unwrap().to_owned());
    stream["intervals"].as_array().unwrap().iter().map(interval).collect()
}

fn interval_at(intervals: &[Interval], at: i64) -> &Interval {
    intervals.iter().rfind(|(from, _, _)| *from <= at).unwrap_or(&intervals[0])
}

async fn times(bench: &Bench, query: &str) -> Vec<i64> {
    let options = SqliteConnectOptions::new().filename(bench.database()).read_only(true).busy_timeout(PATIENCE);
    let mut db = SqliteConnection::connect_with(&options).await.unwrap();
    let rows = sqlx::query(sqlx::AssertSqlSafe(query)).fetch_all(&mut db).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}
