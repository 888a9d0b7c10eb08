//! `verify` finds what spool, ledger and store do not agree about, and nothing where they do: the real program against the
//! simulator over real sockets.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use std::process::{Command, Output};

use serde_json::Value;
use support::{Bench, PATIENCE, Program, busy};
use tidegate_sources::deribit::simulator::Fault;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_pipeline_agrees_while_it_runs_and_after_cuts_kills_and_the_stop() {
    let sinks = "tables = [\"trades\", \"tickers\", \"coverage\", \"status\"]\n\
        [sink.file]\npath = \"rows\"\n[sink.late]\ntype = \"sqlite\"\npath = \"late.sqlite\"\nstart = \"latest\"\n";
    let bench = Bench::start(busy(1_000.0), "", sinks).await;
    let mut program = bench.run();
    program.until_committed(500).await;
    for round in 1..4 {
        bench.until_it_hits(&mut program, &Fault::Cut).await;
        bench.until_number(&mut program, TRADES, round * 300).await;
        let (code, page) = verify(&bench, &[]);
        assert_eq!(code, 0, "of a running pipeline: {page}");
        program.kill().await;
        let (code, page) = verify(&bench, &[]);
        assert_eq!(code, 0, "of a killed pipeline: {page}");
        program = bench.run();
        bench.until_number(&mut program, TRADES, round * 300 + 100).await;
    }
    stop(program).await;
    let (code, page) = verify(&bench, &[]);
    assert_eq!(code, 0, "of a stopped pipeline: {page}");
    assert!(page.ends_with("\nall that can be compared agrees\n") && page.contains("sqlite: agrees; "), "{page}");
    assert!(
        page.contains("file: cannot be verified\n  a store of type file cannot be asked what it holds\n"),
        "{page}"
    );
    assert!(page.contains("coverage: rows take each other's places by their key"), "{page}");
    let (code, document) = json(&bench, &[]);
    let sink = sink(&document, "sqlite");
    let fates: u64 = sink["fates"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!((code, sink["upto"].as_u64()), (0, Some(fates)), "every offset has one fate: {document:#}");
    let all = "SELECT (SELECT count(*) FROM trades) + (SELECT count(*) FROM tickers) + (SELECT count(*) FROM status)";
    let stored = bench.number(all).await;
    assert_eq!(sink["rows"].as_i64(), Some(stored), "all were compared");
    let (code, page) = verify(&bench, &["--since", "1h"]);
    assert_eq!(code, 0, "{page}");
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_gone_or_there_twice_and_a_table_that_is_gone_are_named_by_stream_and_range() {
    let bench = stopped("", 600).await;
    let symbol =
        bench.texts("SELECT symbol FROM trades GROUP BY symbol ORDER BY count(*) DESC LIMIT 1").await.remove(0);
    let of = format!("FROM trades WHERE symbol = '{symbol}' ORDER BY seq LIMIT 1 OFFSET");
    let at = async |n: u32| bench.number(&format!("SELECT seq {of} {n}")).await;
    let (gone, last, twice) = (at(1).await, at(2).await, at(4).await);
    run(&bench, &format!("DELETE FROM trades WHERE symbol = '{symbol}' AND seq IN ({gone}, {last})")).await;
    run(&bench, &format!("INSERT INTO trades SELECT * FROM trades WHERE symbol = '{symbol}' AND seq = {twice}")).await;
    let (code, page) = verify(&bench, &[]);
    assert_eq!(code, 1, "{page}");
    assert!(page.contains(&format!("  trades: {symbol}: 2 rows missing, seq {gone} to {last}, offset")), "{page}");
    assert!(page.contains(&format!("  trades: {symbol}: 1 row too many, there twice, seq {twice}, offset")), "{page}");
    assert!(page.contains("sqlite: DIFFERS; ") && page.ends_with("\n2 differences\n"), "{page}");

    // The offsets are those of the rows.
    let (_, document) = json(&bench, &[]);
    let missing = &sink(&document, "sqlite")["differences"][0];
    let offset = missing["offsets"][0].as_u64().unwrap();
    let row = bench.dump().into_iter().find(|item| item["offset"] == offset).unwrap();
    assert_eq!((row["symbol"].as_str(), row["seq"].as_i64()), (Some(&*symbol), Some(gone)), "{missing:#}");

    // A ticker has no number, and is named by its time.
    let at = bench.number("SELECT ts_event FROM tickers ORDER BY ts_recv DESC LIMIT 1").await;
    run(&bench, "DELETE FROM tickers WHERE rowid = (SELECT rowid FROM tickers ORDER BY ts_recv DESC LIMIT 1)").await;
    let (code, page) = verify(&bench, &[]);
    assert!(code == 1 && page.contains(&format!(": 1 row missing, ts_event {at}, offset ")), "{page}");

    run(&bench, "UPDATE trades SET ts_event = ts_event + 1 WHERE rowid = (SELECT max(rowid) FROM trades)").await;
    let (_, page) = verify(&bench, &[]);
    assert!(page.contains("1 row that the spool does not have"), "one that was changed: {page}");

    run(&bench, "DROP TABLE tickers").await;
    let (code, page) = verify(&bench, &[]);
    assert!(code == 1 && page.contains("  tickers: the table is gone\n"), "{page}");
    let (_, document) = json(&bench, &[]);
    let differences = sink(&document, "sqlite")["differences"].as_array().unwrap().clone();
    let lost = |one: &&Value| one["kind"] == "missing" && one["table"] == "tickers";
    let rows: u64 = differences.iter().filter(lost).map(|one| one["rows"].as_u64().unwrap()).sum();
    let sent = bench.dump().iter().filter(|item| item["table"] == "tickers").count();
    assert_eq!(rows as usize, sent, "each stream is named, with all of its rows");
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_were_changed_are_named_by_column_stream_and_range() {
    let bench = stopped("", 600).await;
    let (code, document) = json(&bench, &[]);
    let rows =
        |document: &Value| (sink(document, "sqlite")["rows"].clone(), sink(document, "sqlite")["values"].clone());
    assert_eq!((code, rows(&document).0), (0, rows(&document).1), "all rows with their values: {document:#}");
    let symbol =
        bench.texts("SELECT symbol FROM trades GROUP BY symbol ORDER BY count(*) DESC LIMIT 1").await.remove(0);
    let of = format!("FROM trades WHERE symbol = '{symbol}' ORDER BY seq LIMIT 1 OFFSET");
    let at = async |n: u32| bench.number(&format!("SELECT seq {of} {n}")).await;
    let (one, next, other) = (at(1).await, at(2).await, at(4).await);
    let where_ = |seq: i64| format!("WHERE symbol = '{symbol}' AND seq = {seq}");

    // A number that is a little larger, and one that is gone.
    run(&bench, &format!("UPDATE trades SET price = price * 1.0000001 {}", where_(one))).await;
    run(&bench, &format!("UPDATE trades SET price = price * 1.0000001 {}", where_(next))).await;
    run(&bench, &format!("UPDATE trades SET size = NULL {}", where_(other))).await;
    let (code, page) = verify(&bench, &[]);
    assert_eq!(code, 1, "{page}");
    let prices = format!("  trades: {symbol}: 2 rows with another value of `price`, seq {one} to {next}, offsets ");
    let size = format!("  trades: {symbol}: 1 row with another value of `size`, seq {other}, offset ");
    assert!(page.contains(&prices) && page.contains(&size) && page.ends_with("\n2 differences\n"), "{page}");

    // Beside a row that is missing they are found, too, and it is not counted twice.
    run(&bench, &format!("DELETE FROM trades {}", where_(next))).await;
    let (_, page) = verify(&bench, &[]);
    let price = format!("  trades: {symbol}: 1 row with another value of `price`, seq {one}, offset ");
    let missing = format!("  trades: {symbol}: 1 row missing, seq {next}, offset ");
    assert!(page.contains(&price) && page.contains(&missing) && page.ends_with("\n3 differences\n"), "{page}");

    // Two rows that have changed their values have the same sum in every column.
    run(&bench, "DELETE FROM trades").await;
    let kept = bench.number("SELECT count(*) FROM tickers").await;
    run(
        &bench,
        "CREATE TEMP TABLE two AS SELECT rowid AS at, mark_price FROM tickers WHERE symbol =
             (SELECT symbol FROM tickers GROUP BY symbol ORDER BY count(DISTINCT mark_price) DESC LIMIT 1)
             GROUP BY mark_price LIMIT 2;
         UPDATE tickers SET mark_price = (SELECT mark_price FROM two WHERE at <> tickers.rowid)
             WHERE rowid IN (SELECT at FROM two)",
    )
    .await;
    let (_, document) = json(&bench, &[]);
    let differences = sink(&document, "sqlite")["differences"].as_array().unwrap().clone();
    let changed = differences.iter().filter(|one| one["kind"] == "values");
    let changed: u64 = changed.map(|one| one["rows"].as_u64().unwrap()).sum();
    assert_eq!((changed, bench.number("SELECT count(*) FROM tickers").await), (2, kept), "{differences:#?}");

    // A column that is gone is said, and nothing is claimed of it.
    run(&bench, "ALTER TABLE tickers DROP COLUMN mark_price").await;
    let (_, page) = verify(&bench, &[]);
    let said = "  tickers: the values of `mark_price` are not compared: the column is not there, or changes them\n";
    assert!(page.contains(said) && !page.contains("another value"), "{page}");
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_rows_are_of_the_seconds_that_are_left_out_nobody_can_tell() {
    // All that is retained comes within less than ten seconds, and its beginning is gone.
    let spool = "[spool]\nmax_bytes = \"1MiB\"\nsegment_bytes = \"128KiB\"\nkeep = \"0s\"\n";
    let bench = Bench::start(busy(2_000.0), "", spool).await;
    let mut program = bench.run();
    let began = Instant::now();
    while verified(&bench)["offsets"][0].as_u64() <= Some(1) {
        assert!(began.elapsed() < 3 * PATIENCE, "the spool lets nothing go:\n{}", program.log());
        program.next_report().await;
    }
    stop(program).await;
    let (code, document) = json(&bench, &[]);
    let sqlite = sink(&document, "sqlite");
    let fates = &sqlite["fates"]["delivered"];
    assert!(fates.as_u64() > Some(0) && sqlite["rows"] == 0, "{document:#}");
    assert_eq!((code, sqlite["verdict"].as_str()), (2, Some("cannot_tell")), "{document:#}");
    let (_, page) = verify(&bench, &[]);
    let said = format!("  {fates} rows at the beginning of what the spool still has");
    assert!(page.contains(&said) && page.ends_with("\nnobody can tell\n"), "{page}");
    // What is older is compared by its count all the same.
    run(&bench, "DELETE FROM trades WHERE rowid = (SELECT rowid FROM trades ORDER BY ts_recv LIMIT 1)").await;
    let (code, page) = verify(&bench, &[]);
    assert!(code == 1 && page.contains("that the spool has let go of, by the ledger's count\n"), "{page}");
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_spool_has_let_go_of_is_compared_by_the_ledgers_count() {
    let bench = Bench::start(busy(2_000.0), "", "[spool]\nsegment_bytes = \"1MiB\"\nkeep = \"0s\"\n").await;
    let mut program = bench.run();
    let began = Instant::now();
    while verified(&bench)["offsets"][0].as_u64() <= Some(1) {
        assert!(began.elapsed() < 3 * PATIENCE, "the spool lets nothing go:\n{}", program.log());
        program.next_report().await;
        // Segments go while they are read.
        let (code, page) = verify(&bench, &["--since", "1h"]);
        assert!(code == 0 || code == 2 && page.ends_with("\nnobody can tell\n"), "{page}");
    }
    stop(program).await;
    let (code, page) = verify(&bench, &[]);
    assert!(
        code == 2 && page.ends_with("\nnobody can tell\n"),
        "by the count all agrees, and no row was compared: {page}"
    );
    // A ticker has no number: the spool has let go of it, and the ledger has counted one.
    let symbol = bench.texts("SELECT symbol FROM tickers ORDER BY ts_recv LIMIT 1").await.remove(0);
    run(&bench, "INSERT INTO tickers SELECT * FROM tickers ORDER BY ts_recv LIMIT 1").await;
    let (code, page) = verify(&bench, &[]);
    let said = format!("  tickers: {symbol}: 1 row more than were delivered: there twice, or of another spool\n");
    assert!(code == 1 && page.contains(&said), "{page}");
    run(&bench, "DELETE FROM tickers WHERE rowid = (SELECT max(rowid) FROM tickers)").await;
    let symbol = bench.texts("SELECT symbol FROM trades ORDER BY ts_recv LIMIT 1").await.remove(0);
    run(&bench, "DELETE FROM trades WHERE rowid = (SELECT rowid FROM trades ORDER BY ts_recv LIMIT 1)").await;
    let (code, page) = verify(&bench, &[]);
    let said = format!("  trades: {symbol}: 1 row missing that the spool has let go of, by the ledger's count\n");
    assert!(code == 1 && page.contains(&said), "{page}");
    run(
        &bench,
        "INSERT INTO trades SELECT * FROM trades WHERE rowid = (SELECT rowid FROM trades ORDER BY ts_recv LIMIT 1)",
    )
    .await;
    let (code, page) = verify(&bench, &[]);
    assert!(code == 1 && page.contains("1 row too many, there twice, seq "), "{page}");
    let (code, page) = verify(&bench, &["--since", "1ms"]);
    assert!(code == 0 && page.contains("  no row came since then\n"), "these are older: {page}");

    // One of them there twice, at another moment, makes up for the number of another one, and for nothing else.
    run(
        &bench,
        "CREATE TEMP TABLE again AS SELECT * FROM trades ORDER BY ts_recv LIMIT 1 OFFSET 3;
         UPDATE again SET ts_recv = ts_recv + 1; INSERT INTO trades SELECT * FROM again;
         DELETE FROM trades WHERE rowid = (SELECT rowid FROM trades ORDER BY ts_recv LIMIT 1)",
    )
    .await;
    let (_, page) = verify(&bench, &[]);
    assert!(page.contains("1 row too many, there twice, seq ") && page.contains(&said), "{page}");
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_refused_rows_and_one_that_is_none_is_found() {
    let tables = "tables = { trades = { key = [\"symbol\"], on_conflict = \"refuse\" }, tickers = {} }\n";
    let bench = stopped(tables, 300).await;
    let (code, page) = verify(&bench, &[]);
    assert_eq!(code, 0, "{page}");
    let (_, document) = json(&bench, &[]);
    let refused = sink(&document, "sqlite")["fates"]["refused"].as_u64().unwrap();
    let letters = bench.path("data/eth/sinks/sqlite/dead-letters.jsonl");
    let text = std::fs::read_to_string(&letters).unwrap();
    assert!(refused > 0 && text.lines().count() as u64 == refused, "{document:#}");
    assert!(text.contains("a row with the same key is there: symbol"), "{text}");

    // Without its letter a refused row is a missing one.
    let kept: Vec<&str> = text.lines().skip(1).collect();
    std::fs::write(&letters, kept.join("\n") + "\n").unwrap();
    let (code, page) = verify(&bench, &[]);
    assert!(code == 1 && page.contains("1 row missing, seq "), "{page}");
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_store_or_the_ledger_cannot_be_read_it_says_so_and_claims_nothing() {
    let bench = stopped("", 300).await;
    std::fs::remove_file(bench.path("data/eth/ledger.sqlite")).unwrap();
    let (code, page) = verify(&bench, &[]);
    assert!(code == 0 && page.contains("no ledger") && page.contains("there is no ledger `"), "{page}");
    run(&bench, "UPDATE tidegate_position SET \"offset\" = \"offset\" + 1000000").await;
    let (code, page) = verify(&bench, &[]);
    assert!(code == 1 && page.contains("the store is ahead of the spool"), "{page}");
    std::fs::remove_file(bench.database()).unwrap();
    let (code, page) = verify(&bench, &[]);
    assert!(code == 2 && page.contains("sqlite: cannot tell") && page.ends_with("nobody can tell\n"), "{page}");
    let nothing = bench
        .pipeline("", "[sink.file]\npath = \"rows\"\n")
        .replace("[sink.sqlite]", "[sink.other]\ntype = \"stdout\"");
    let path = format!("path = \"{}\"\n", bench.database().display());
    bench.write("eth.toml", &nothing.replace(&path, ""));
    let (code, page) = verify(&bench, &[]);
    assert!(code == 2 && page.contains("other: cannot be verified"), "none can be asked: {page}");
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_its_position_or_of_another_spool_differs_whatever_else_it_holds() {
    let bench = stopped("", 300).await;
    run(&bench, "UPDATE tidegate_position SET spool = '00000000000000ff'").await;
    let (code, page) = verify(&bench, &[]);
    assert!(code == 1 && page.contains("the store was fed from another spool"), "{page}");
    for gone in ["DELETE FROM tidegate_position; DELETE FROM trades", "DROP TABLE tidegate_position"] {
        run(&bench, gone).await;
        let (code, page) = verify(&bench, &[]);
        let said = "sqlite: DIFFERS\n  it has no position, and by the note beside the spool it was at ";
        assert!(code == 1 && page.contains(said) && page.ends_with("\n1 difference\n"), "{gone}: {page}");
    }
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_began_later_is_not_asked_for_what_came_before() {
    let bench = stopped("", 300).await;
    let late = "[sink.late]\ntype = \"sqlite\"\npath = \"late.sqlite\"\nstart = \"latest\"\n";
    bench.write("eth.toml", &bench.pipeline("", late));
    for run in 1..=2 {
        let mut program = bench.run();
        program.until_committed(100).await;
        stop(program).await;
        let (code, page) = verify(&bench, &[]);
        assert!(code == 0 && page.contains("late: agrees; "), "run {run}: {page}");
    }
    let late = bench.at("late.sqlite");
    let first = "DELETE FROM tickers WHERE rowid = (SELECT rowid FROM tickers ORDER BY ts_recv LIMIT 1)";
    run(&late, first).await;
    let (code, page) = verify(&late, &[]);
    assert!(code == 1 && page.contains("1 row missing"), "what came since is: {page}");
    late.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_of_what_was_delivered_is_compared_nobody_can_tell() {
    let keyed = "tables = { trades = { key = [\"symbol\"], on_conflict = \"replace\" } }\n";
    let bench = stopped(keyed, 50).await;
    let (code, page) = verify(&bench, &[]);
    assert!(code == 2 && page.contains("sqlite: cannot tell; ") && page.contains("\nnobody can tell\n"), "{page}");
    let (there, sent) = (bench.number(TRADES).await, bench.dump());
    let sent = sent.iter().filter(|item| item["table"] == "trades").count() as i64;
    let fate = format!("{sent} delivered, {there} there, {} swallowed by the key\n", sent - there);
    assert!(sent > there && page.contains(&fate), "{fate}: {page}");
    run(&bench, "DELETE FROM trades").await;
    let (code, page) = verify(&bench, &[]);
    assert!(code == 1 && page.contains("  trades: the table is empty, "), "{page}");
    bench.leave().await;

    let bench = stopped("", 300).await;
    let other = "CREATE TEMP TABLE other AS SELECT * FROM tidegate_position; UPDATE other SET pipeline = 'btc';
        INSERT INTO tidegate_position SELECT * FROM other";
    run(&bench, other).await;
    run(&bench, "DELETE FROM trades").await;
    let (code, page) = verify(&bench, &[]);
    assert!(code == 2 && page.contains("trades: pipeline `btc` writes to it too"), "{page}");
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_spool_dropped_is_no_agreement() {
    let spool =
        "[spool]\nmax_bytes = \"1MiB\"\nsegment_bytes = \"128KiB\"\nkeep = \"0s\"\nwhen_full = \"drop_oldest\"\n";
    let bench = Bench::start(busy(2_000.0), "queue = \"256KiB\"\n", spool).await;
    let mut program = bench.run();
    program.until_committed(500).await;
    let mut store = bench.connection().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut store).await.unwrap();
    program.until_logged("rows, for sqlite").await;
    sqlx::query("ROLLBACK").execute(&mut store).await.unwrap();
    let stored = bench.number(TRADES).await;
    bench.until_number(&mut program, TRADES, stored + 100).await;
    stop(program).await;
    let (code, document) = json(&bench, &[]);
    let differences = sink(&document, "sqlite")["differences"].as_array().unwrap().clone();
    let dropped: u64 =
        differences.iter().filter(|one| one["kind"] == "dropped").map(|one| one["rows"].as_u64().unwrap()).sum();
    let coverage = tidegate(&bench, "coverage", &["--json"]);
    let said: Value = serde_json::from_slice(&coverage.stdout).unwrap();
    // A machine that is busy may drop some before they are in the spool: no sink misses those.
    let of_sink = said["coverage"]["dropped"].as_array().unwrap().iter().filter(|one| one["sink"] == "sqlite");
    let said = of_sink.map(|one| one["rows"].as_u64().unwrap());
    assert!(code == 1 && dropped > 0, "{document:#}");
    assert_eq!((dropped, coverage.status.code()), (said.sum(), Some(1)), "as `coverage` says it");
    let (_, page) = verify(&bench, &[]);
    assert!(page.contains("sqlite: DIFFERS; ") && page.contains(" dropped unread, the spool was full\n"), "{page}");
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_cannot_be_read_any_more_are_no_agreement() {
    let bench = Bench::start(busy(2_000.0), "", "[spool]\nsegment_bytes = \"128KiB\"\n").await;
    let mut program = bench.run();
    program.until_committed(5_000).await;
    stop(program).await;
    let (code, page) = verify(&bench, &[]);
    assert_eq!(code, 0, "{page}");
    let mut segments: Vec<_> =
        std::fs::read_dir(bench.path("data/eth/spool")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|end| end == "seg"));
    segments.sort();
    let mut bytes = std::fs::read(&segments[1]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4_096].fill(0);
    std::fs::write(&segments[1], bytes).unwrap();
    let (code, document) = json(&bench, &[]);
    let sqlite = sink(&document, "sqlite");
    let lost = sqlite["differences"].as_array().unwrap().iter().find(|one| one["kind"] == "lost").unwrap();
    assert!(code == 1 && lost["rows"] == sqlite["fates"]["missing"], "{document:#}");
    bench.leave().await;
}

/// Runs a pipeline until so many rows are stored, and stops it.
async fn stopped(sink: &str, rows: u64) -> Bench {
    let bench = Bench::start(busy(1_000.0), "", sink).await;
    let mut program = bench.run();
    program.until_committed(rows).await;
    stop(program).await;
    bench
}

async fn stop(program: Program) {
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
}

async fn run(bench: &Bench, sql: &str) {
    let mut db = bench.connection().await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut db).await.unwrap();
}

fn verify(bench: &Bench, args: &[&str]) -> (i32, String) {
    let output = tidegate(bench, "verify", args);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), said)
}

fn json(bench: &Bench, args: &[&str]) -> (i32, Value) {
    let output = tidegate(bench, "verify", &[args, &["--json"]].concat());
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
}

fn verified(bench: &Bench) -> Value {
    json(bench, &[]).1
}

fn sink<'a>(document: &'a Value, name: &str) -> &'a Value {
    document["sinks"].as_array().unwrap().iter().find(|sink| sink["sink"] == name).unwrap()
}

fn tidegate(bench: &Bench, command: &str, args: &[&str]) -> Output {
    let args = [&[command, "eth.toml"], args].concat();
    Command::new(env!("CARGO_BIN_EXE_tidegate")).args(args).current_dir(bench.folder()).output().unwrap()
}

const TRADES: &str = "SELECT count(*) FROM trades";
