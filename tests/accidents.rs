//! Whatever happens to a store or a spool while nobody looks, the next start says so with the numbers, and the command that
//! it shows heals it: nothing is sent again or left out silently.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use std::{fs, path::Path};

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection};
use support::{Bench, Program, busy, tidegate};
use tidegate_sources::deribit::simulator::comparison::Comparison;

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_was_deleted_is_begun_anew_and_all_that_it_has_is_sent() {
    let bench = fed("", KEY).await;
    fs::remove_dir_all(bench.path("data")).unwrap();
    let mut program = bench.run();
    let why = program.until_failed(SINK).await;
    assert!(why.contains("belongs to spool") && why.contains("last known beside the spool: none"), "{why}");
    until_listening(&mut program).await;
    bench.venue.resume();
    spools(&mut program, 500).await;
    let stored = bench.number(TRADES).await;
    program.stop().await;
    assert_eq!(bench.number(TRADES).await, stored, "nothing is written before somebody has decided");

    let done = bench.paste(&why, "--from-log");
    assert!(done.printed.contains("why      the store was fed from another spool"), "{done:?}");
    assert!(number_in(&done.printed, "sent     ") >= 500, "{done:?}");
    let mut program = bench.run();
    drained(&mut program).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_when_the_store_is_gone_by_is_counted_and_lost_at_the_sink() {
    let bench = fed("", KEY).await;
    fs::remove_dir_all(bench.path("data")).unwrap();
    let mut program = bench.run();
    let why = program.until_failed(SINK).await;
    until_listening(&mut program).await;
    bench.venue.resume();
    spools(&mut program, 500).await;
    bench.venue.freeze();
    filled(&mut program).await;
    program.stop().await;

    let done = bench.paste(&why, "--from-store");
    assert!(
        done.printed.contains("lost     what came before this spool; the store was fed from another spool"),
        "{done:?}"
    );
    let left_out = number_in(done.printed.split("lost     ").nth(2).unwrap(), ", ");
    assert!(left_out >= 500, "{done:?}");
    let before = all_rows(&bench).await;
    let mut program = bench.run();
    drained(&mut program).await;
    // The new session begins with a ticker of each instrument.
    assert!((before..=before + 20).contains(&all_rows(&bench).await), "{done:?}");
    bench.venue.resume();
    program.until_committed(200).await;
    at_rest(&bench, &mut program).await;
    let comparison = bench.compare().await;
    nothing_twice(&comparison);
    program.stop().await;
    let coverage = bench.coverage();
    let skipped = coverage["skipped"].as_array().unwrap();
    assert_eq!((&skipped[0]["last"], &skipped[0]["rows"]), (&Value::from(0), &Value::Null), "{coverage:#}");
    let lost: i64 = skipped.iter().filter_map(|one| one["rows"].as_i64()).sum();
    assert_eq!((lost, &coverage["is_lost"]), (left_out, &Value::Bool(true)), "{coverage:#}");
    let page = tidegate(bench.folder(), &["coverage", "eth.toml"]);
    assert_eq!(page.code, 1, "{page:?}");
    assert!(page.printed.contains("rows lost at sqlite: left out: the store was gone by"), "{page:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_restored_from_an_older_copy_passes_over_what_the_store_has_got() {
    let bench = fed("", "").await;
    copy(&bench.path("data"), &bench.path("copy"));
    bench.venue.resume();
    let mut program = bench.run();
    program.until_committed(600).await;
    bench.rest(program).await;
    restore(&bench, "copy");
    // What was made since the copy is asked for again, and the store has it.
    let mut program = bench.run();
    let why = program.until_failed(SINK).await;
    assert!(why.contains("the store was written from another history of the spool"), "{why}");
    let is_asked_for = |report: &Value| {
        report["checks"]["eth/spool"]["rows_appended"].as_u64() > Some(50)
            && report["checks"]["eth/source.deribit"]["gaps"]["open"] == 0
    };
    program.until("the gaps are filled", is_asked_for).await;
    program.stop().await;

    bench.paste(&why, "--from-store");
    goes_on_exactly(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_restored_into_the_boot_that_the_store_knows_is_behind_the_store() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    // As a backup that is made of a running host.
    program.signal("STOP");
    copy(&bench.path("data"), &bench.path("copy"));
    program.signal("CONT");
    program.until_committed(900).await;
    at_rest(&bench, &mut program).await;
    bench.rest(program).await;
    restore(&bench, "copy");
    let mut program = bench.run();
    let why = program.until_failed(SINK).await;
    assert!(why.contains("the store is ahead of the spool"), "{why}");
    until_listening(&mut program).await;
    program.stop().await;
    // Sent again is what lies behind the place that both have, and that many rows come.
    let done = bench.paste(&why, "--from-log");
    let promised = number_in(&done.printed, "again    ") + number_in(&done.printed, "sent     ");
    let before = all_rows(&bench).await;
    let mut program = bench.run();
    drained(&mut program).await;
    // The new session begins with a ticker of each instrument.
    assert!((before + promised..=before + promised + 20).contains(&all_rows(&bench).await), "{done:?}");
    let comparison = bench.compare().await;
    assert!(comparison.trades.missing == 0 && comparison.invented == 0, "{comparison:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_was_copied_to_a_second_host_is_another_history_there() {
    let bench = fed("", "").await;
    copy(&bench.path("data"), &bench.path("second"));
    bench.venue.resume();
    let mut program = bench.run();
    program.until_committed(300).await;
    bench.rest(program).await;
    let rows = all_rows(&bench).await;
    fs::rename(bench.path("data"), bench.path("first")).unwrap();
    fs::rename(bench.path("second"), bench.path("data")).unwrap();
    let mut second = bench.run();
    let why = second.until_failed(SINK).await;
    assert!(why.contains("another history of the spool: it was copied"), "{why}");
    assert!(why.contains("tidegate adopt eth.toml sqlite --from-log"), "{why}");
    second.stop().await;
    assert_eq!(all_rows(&bench).await, rows, "nothing is written");

    // The first host goes on.
    fs::rename(bench.path("data"), bench.path("second")).unwrap();
    restore(&bench, "first");
    goes_on_exactly(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spools_that_were_swapped_between_pipelines_are_told_apart_by_their_names() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let other = bench.pipeline("", "").replace("name = \"eth\"", "name = \"btc\"").replace("eth.sqlite", "btc.sqlite");
    bench.write("btc.toml", &other);
    // What is made once one of the two is subscribed is owed to that one alone.
    bench.venue.freeze();
    let mut program = bench.run_all();
    let is_up = |report: &Value, name: &str| report["checks"][format!("{name}/source.deribit")]["status"] == "healthy";
    program.until("both are subscribed", |report| is_up(report, "eth") && is_up(report, "btc")).await;
    bench.venue.resume();
    program.until_committed(300).await;
    program.stop().await;
    swap(&bench);
    let mut program = bench.run_all();
    for (ours, theirs) in [("eth", "btc"), ("btc", "eth")] {
        let why = program.until_failed(&format!("{ours}/spool")).await;
        assert!(why.contains(&format!("is that of the pipeline `{theirs}`, not of `{ours}`")), "{why}");
        assert!(why.contains(&format!("tidegate spool rename ./{ours}.toml {theirs}")), "{why}");
    }
    program.stop().await;
    swap(&bench);
    let mut program = bench.run_all();
    program.until_committed(200).await;
    at_rest(&bench, &mut program).await;
    // Of two lines the venue cannot say which tickers were sent to which.
    let comparison = bench.until_no_trade_is_missing(&mut program).await;
    assert!(comparison.trades.made > 0 && comparison.trades.missing == 0, "{comparison:?}");
    nothing_twice(&comparison);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_restored_from_a_backup_that_the_spool_does_not_reach_back_to_loses_just_that_and_the_ledger_says_so() {
    let spool = "[spool]\nsegment_bytes = \"64KiB\"\nmax_bytes = \"8MiB\"\nkeep = \"0s\"\n";
    let bench = fed("", spool).await;
    let backup = bench.path("backup.sqlite");
    fs::copy(bench.database(), &backup).unwrap();
    let had = bench.number("SELECT \"offset\" FROM tidegate_position").await;
    bench.venue.resume();
    let mut program = bench.run();
    let first = |bench: &Bench| -> i64 { segments(bench).first().map_or(0, |name| name.parse().unwrap()) };
    program.until("what the backup lacks is let go of", |_| first(&bench) > had + 100).await;
    bench.rest(program).await;
    fs::rename(&backup, bench.database()).unwrap();
    let why = refused(&bench).await;
    assert!(why.contains("the spool no longer has what the store lacks"), "{why}");

    let done = bench.paste(&why, "--from-log");
    assert!(done.printed.contains(&format!("lost     offsets {} to ", had + 1)), "{done:?}");
    let (comparison, coverage) = goes_on_once(&bench).await;
    let skipped = &coverage["skipped"][0];
    assert_eq!((&skipped["sink"], skipped["first"].as_i64()), (&Value::from("sqlite"), Some(had + 1)), "{coverage:#}");
    assert!(skipped["rows"].is_null(), "nobody could count them any more: {skipped:#}");
    let lost = skipped["last"].as_i64().unwrap() - had;
    assert!(comparison.trades.missing <= lost.unsigned_abs(), "{comparison:?} of {lost}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_was_deleted_is_taken_from_the_note_beside_the_spool() {
    let bench = fed("", "").await;
    run_sql(&bench, "DELETE FROM tidegate_position").await;
    let why = refused(&bench).await;
    bench.paste(&why, "--from-store");
    goes_on_exactly(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_a_store_that_was_emptied_is_lost_when_it_is_gone_by_and_the_ledger_says_so() {
    let bench = fed("", "").await;
    let stored = all_rows(&bench).await;
    for table in ["trades", "tickers", "tidegate_position"] {
        run_sql(&bench, &format!("DELETE FROM {table}")).await;
    }
    let why = refused(&bench).await;
    let done = bench.paste(&why, "--from-store");
    assert_eq!(number_in(done.printed.split("lost     ").nth(1).unwrap(), ", "), stored, "{done:?}");
    let (_, coverage) = goes_on_once(&bench).await;
    let lost: i64 = coverage["skipped"].as_array().unwrap().iter().filter_map(|one| one["rows"].as_i64()).sum();
    assert_eq!((lost, &coverage["is_lost"]), (stored, &Value::Bool(true)), "{coverage:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_were_dropped_are_filled_again_from_the_spool() {
    let bench = fed("", "").await;
    run_sql(&bench, "DROP TABLE trades").await;
    run_sql(&bench, "DROP TABLE tickers").await;
    let why = refused(&bench).await;
    assert!(why.contains("is gone, and rows may have been stored in it"), "{why}");
    let done = bench.paste(&why, "--from-log");
    assert!(done.printed.contains("why      `tickers`, `trades` was in the store and is gone"), "{done:?}");
    bench.venue.resume();
    let mut program = bench.run();
    program.until_committed(400).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_dropped_is_made_anew_and_what_was_in_it_lost_when_the_store_is_gone_by() {
    let bench = fed("", "").await;
    let stored = bench.number(TRADES).await;
    run_sql(&bench, "DROP TABLE trades").await;
    let why = refused(&bench).await;
    let done = bench.paste(&why, "--from-store");
    bench.venue.resume();
    let mut program = bench.run();
    program.until_committed(100).await;
    at_rest(&bench, &mut program).await;
    let comparison = bench.compare().await;
    nothing_twice(&comparison);
    assert!(comparison.trades.missing > 0, "{done:?}");
    program.stop().await;
    let coverage = bench.coverage();
    assert_eq!(coverage["skipped"][0]["rows"].as_i64(), Some(stored), "{coverage:#}");
    assert_eq!(coverage["skipped"][0]["table"], "trades", "{coverage:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_another_path_leads_to_is_fed_with_all_that_the_spool_has() {
    let bench = fed("", "").await.at("elsewhere.sqlite");
    bench.write("eth.toml", &bench.pipeline("", ""));
    let why = refused(&bench).await;
    assert!(why.contains("or another one is addressed"), "{why}");
    assert!(!bench.database().exists(), "nothing is made");
    bench.paste(&why, "--from-log");
    goes_on_exactly(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_that_cannot_be_read_is_done_without_by_command() {
    let bench = fed("", "").await;
    bench.write("data/eth/sinks/sqlite.json", "{");
    let why = refused(&bench).await;
    assert!(why.contains("is damaged: it holds no position"), "{why}");
    bench.paste(&why, "--from-store");
    goes_on_exactly(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_with_a_spool_each_do_not_feed_one_store_and_one_can_take_it_over() {
    let bench = Bench::start(busy(500.0), "", KEY).await;
    let mut first = bench.run();
    first.until_committed(300).await;
    // The same TOML and the same store, another data directory.
    bench.write(
        "other.toml",
        "data_dir = \"other\"\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"human\"\nstats = \"0s\"\n",
    );
    let run_second =
        || Program::start(bench.folder(), &["run", "eth.toml", "--host", "other.toml", "--supervised", "50ms"]);
    let mut second = run_second();
    let why = second.until_failed(SINK).await;
    assert!(why.contains("belongs to spool"), "{why}");
    assert!(why.contains("`tidegate adopt eth.toml sqlite --from-store --host other.toml`"), "{why}");
    first.until_committed(600).await;
    second.stop().await;

    bench.paste(&why, "--from-store");
    let mut second = run_second();
    second.until_committed(100).await;
    // The one that was taken over from stops, and writes nothing any more.
    let why = first.until_failed(SINK).await;
    assert!(why.contains("belongs to spool"), "{why}");
    at_rest(&bench, &mut second).await;
    let comparison = bench.compare().await;
    nothing_twice(&comparison);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_runs_is_left_alone_and_named_by_its_process() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(100).await;
    let pid = format!("pid {}", program.id());
    for words in [
        &["adopt", "eth.toml", "sqlite", "--from-log", "--yes"][..],
        &["sink", "forget", "eth.toml", "other", "--yes"],
        &["sink", "rename", "eth.toml", "other", "sqlite", "--yes"],
        &["run", "eth.toml"],
    ] {
        let ran = tidegate(bench.folder(), words);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.said.contains("is already in use by") && ran.said.contains(&pid), "{ran:?}");
    }
    bench.settle(&mut program).await.assert_exact(&program.log());
}

const SINK: &str = "eth/sink.sqlite";
/// Two spools know nothing of each other: what one asks the venue's history for, the other may have stored. A new one asks for
/// the newest trade of each stream at least, to know where it begins.
const KEY: &str =
    "tables = { trades = { key = [\"symbol\", \"id\"], on_conflict = \"ignore\" }, tickers = { name = \"tickers\" } }";
const TRADES: &str = "SELECT count(*) FROM trades";

/// Returns a bench with some hundred rows in its store, all that was made; nobody runs the pipeline, and the venue rests.
async fn fed(source: &str, rest: &str) -> Bench {
    let bench = Bench::start(busy(500.0), source, rest).await;
    let mut program = bench.run();
    program.until_committed(300).await;
    bench.rest(program).await;
    bench
}

/// Starts a pipeline whose sink will not begin, and returns why.
async fn refused(bench: &Bench) -> String {
    let mut program = bench.run();
    let why = program.until_failed(SINK).await;
    program.stop().await;
    why
}

/// The venue goes on, and so does the pipeline: in the end the store has what was made, once.
async fn goes_on_exactly(bench: &Bench) {
    bench.venue.resume();
    let mut program = bench.run();
    program.until_committed(200).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
}

/// The venue goes on, and so does the pipeline: in the end nothing is there twice. Returns what is missing, and the ledger.
async fn goes_on_once(bench: &Bench) -> (Comparison, Value) {
    bench.venue.resume();
    let mut program = bench.run();
    program.until_committed(100).await;
    at_rest(bench, &mut program).await;
    let comparison = bench.compare().await;
    nothing_twice(&comparison);
    program.stop().await;
    (comparison, bench.coverage())
}

/// Waits until the venue has confirmed all that is asked for.
async fn until_listening(program: &mut Program) {
    program.until("the venue confirms", |report| report["checks"]["eth/source.deribit"]["status"] == "healthy").await;
}

async fn spools(program: &mut Program, rows: u64) {
    let spooled = |report: &Value| report["checks"]["eth/spool"]["rows_appended"].as_u64() >= Some(rows);
    program.until("rows are spooled", spooled).await;
}

async fn drained(program: &mut Program) {
    let idle = |report: &Value| {
        let sink = &report["checks"][SINK];
        sink["status"] == "healthy" && sink["oldest_uncommitted_seconds"].is_null()
    };
    program.until("all that is spooled is stored", idle).await;
}

/// Waits until all that was made is asked for and stored.
async fn at_rest(bench: &Bench, program: &mut Program) {
    bench.venue.freeze();
    filled(program).await;
    drained(program).await;
}

async fn filled(program: &mut Program) {
    program.until("gaps are filled", |report| report["checks"]["eth/source.deribit"]["gaps"]["open"] == 0).await;
}

fn nothing_twice(comparison: &Comparison) {
    let twice = comparison.trades.twice + comparison.tickers.twice;
    assert!(twice == 0 && comparison.invented == 0, "{comparison:?}");
}

async fn all_rows(bench: &Bench) -> i64 {
    bench.number(TRADES).await + bench.number("SELECT count(*) FROM tickers").await
}

async fn run_sql(bench: &Bench, sql: &str) {
    let mut other = bench.connection().await;
    sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut other).await.unwrap();
    other.close().await.unwrap();
}

/// Returns the number that follows `label`.
fn number_in(text: &str, label: &str) -> i64 {
    let (_, rest) = text.split_once(label).unwrap_or_else(|| panic!("no `{label}` in {text}"));
    if rest.starts_with("nothing") {
        return 0;
    }
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number behind `{label}` in {text}"))
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").args(["-r", from.to_str().unwrap(), to.to_str().unwrap()]).status();
    assert!(copied.unwrap().success());
}

fn restore(bench: &Bench, copy: &str) {
    _ = fs::remove_dir_all(bench.path("data"));
    fs::rename(bench.path(copy), bench.path("data")).unwrap();
}

fn swap(bench: &Bench) {
    let path = |name: &str| bench.path(&format!("data/{name}"));
    for (from, to) in [("eth", "aside"), ("btc", "eth"), ("aside", "btc")] {
        fs::rename(path(from), path(to)).unwrap();
    }
}

/// Returns the numbers in the names of the segments, in order.
fn segments(bench: &Bench) -> Vec<String> {
    let found = fs::read_dir(bench.path("data/eth/spool")).unwrap();
    let mut names: Vec<String> = found.filter_map(|file| file.unwrap().file_name().into_string().ok()).collect();
    names.retain(|name| name.ends_with(".seg"));
    names.sort();
    names.iter().map(|name| name.trim_end_matches(".seg").to_owned()).collect()
}
