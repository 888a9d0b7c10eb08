//! Whatever becomes of a store, the feed goes on into the spool, and the store gets every row once when it is back, or
//! nothing at all and the reason.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use std::{fs, path::Path};

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection};
use support::{Bench, Program, busy};

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_at_the_start_is_spooled_for_and_drained_to_later() {
    let bench = Bench::start(busy(500.0), "", "").await;
    // A file where the directory of the database has to be.
    bench.write("store", "in the way");
    bench.write("eth.toml", &bench.pipeline("", "").replace("eth.sqlite", "store/eth.sqlite"));
    let mut program = bench.run();
    let report = program.until("rows are spooled", |report| spooled(report) > 500).await;
    let sink = &report["checks"]["eth/sink.sqlite"];
    assert_eq!(sink["status"], "degraded", "{sink:#}");
    assert!(sink["reason"].as_str().unwrap().contains("trying again in"), "{sink:#}");
    assert!(sink["oldest_uncommitted_seconds"].as_f64() > Some(0.0), "{sink:#}");
    assert_eq!(source_status(&report), "healthy", "the feed runs");
    assert_eq!(program.get("/health").await.0, 200, "it mends itself");
    assert_eq!(program.get("/health/ready").await.0, 503);
    fs::remove_file(bench.path("store")).unwrap();
    program.until_committed(500).await;
    program.until_logged("all that had waited: ").await;
    program.until_logged("the store takes rows again").await;
    bench.at("store/eth.sqlite").settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_another_program_has_locked_is_waited_for() {
    let bench = Bench::start(busy(500.0), "", "lock_timeout = \"100ms\"").await;
    let mut program = bench.run();
    program.until_committed(200).await;
    let mut other = bench.connection().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let report = until_sink(&mut program, "degraded").await;
    assert!(why(&report).contains("is locked by another program"), "{}", why(&report));
    let rows = spooled(&report);
    program.until("the feed goes on", |report| spooled(report) > rows + 300).await;
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    until_sink(&mut program, "healthy").await;
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_removed_while_it_is_written_stops_the_sink_and_nothing_else() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    remove(&bench.database());
    stopped_by_mismatch(&mut program).await;
    assert!(!bench.database().exists(), "nothing is in the way of the one that was moved away");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_moved_away_is_filled_on_exactly_once_it_is_moved_back() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    let names = ["", "-wal", "-shm"].map(|end| format!("{}{end}", bench.database().display()));
    names.iter().for_each(|name| _ = fs::rename(name, format!("{name}.moved")));
    stopped_by_mismatch(&mut program).await;
    program.stop().await;
    names.iter().for_each(|name| _ = fs::rename(format!("{name}.moved"), name));
    let mut program = bench.run();
    program.until_committed(300).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_replaced_by_another_one_stops_the_sink_and_nothing_else() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    remove(&bench.database());
    let mut other = bench.another_database().await;
    sqlx::query("CREATE TABLE somebody_elses (x)").execute(&mut other).await.unwrap();
    stopped_by_mismatch(&mut program).await;
    let tables = bench.texts("SELECT name FROM sqlite_schema").await;
    assert_eq!(tables, ["somebody_elses"], "the other one is left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_replaced_by_a_directory_stops_the_sink_and_nothing_else() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    remove(&bench.database());
    fs::create_dir(bench.database()).unwrap();
    let report = until_sink(&mut program, "failed").await;
    assert!(why(&report).contains("is a directory"), "{}", why(&report));
    goes_on(&mut program, &report).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_was_deleted_stops_the_sink_with_the_three_positions() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    let mut other = bench.connection().await;
    sqlx::query("DELETE FROM tidegate_position").execute(&mut other).await.unwrap();
    stopped_by_mismatch(&mut program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_database_is_written_to_again_when_it_has_room() {
    let bench = Bench::start(busy(500.0), "", "").await;
    // The limit is one of the connection, so it is a disk of its own that is full.
    let Some(disk) = support::SmallDisk::mount("512k") else { return };
    let bench = bench.at(disk.path().join("eth.sqlite"));
    bench.write("eth.toml", &bench.pipeline("", ""));
    let mut program = bench.run();
    let report = until_sink(&mut program, "degraded").await;
    assert!(why(&report).contains("full") || why(&report).contains("cannot"), "{}", why(&report));
    goes_on(&mut program, &report).await;
    disk.resize("200m");
    until_sink(&mut program, "healthy").await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_restored_from_an_older_copy_is_fed_again_exactly() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    let copy = bench.path("copy.sqlite");
    let mut other = bench.connection().await;
    sqlx::query(AssertSqlSafe(format!("VACUUM INTO '{}'", copy.display()))).execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    program.until_committed(1_000).await;
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    remove(&bench.database());
    fs::rename(&copy, bench.database()).unwrap();
    let mut program = bench.run();
    program.until_logged("the store went back from").await;
    program.until_committed(800).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_spool_is_refused_and_left_as_it_is() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    program.stop().await;
    let rows = bench.number("SELECT count(*) FROM trades").await;
    fs::rename(bench.path("data"), bench.path("data-of-another")).unwrap();
    let mut program = bench.run();
    let report = until_sink(&mut program, "failed").await;
    let why = why(&report);
    assert!(why.contains("belongs to spool") && why.contains("`tidegate adopt eth.toml sqlite --from-log`"), "{why}");
    goes_on(&mut program, &report).await;
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_table_refuses_becomes_a_dead_letter_and_the_rest_is_stored() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(100).await;
    program.stop().await;
    // The user's own rule, on a table that is there already: SQLite can hold it in a trigger.
    let mut other = bench.connection().await;
    sqlx::query(
        "CREATE TRIGGER no_sells BEFORE INSERT ON trades WHEN NEW.side = 'sell' \
         BEGIN SELECT RAISE(ABORT, 'sells are not wanted'); END",
    )
    .execute(&mut other)
    .await
    .unwrap();
    let (trades, tickers) = (bench.number(TRADES).await, bench.number(TICKERS).await);
    let mut program = bench.run();
    let letters = |report: &Value| report["checks"]["eth/deadletters.sqlite"]["dead_letters"].as_u64() > Some(20);
    let report = program.until("dead letters", letters).await;
    assert_eq!(report["checks"]["eth/sink.sqlite"]["status"], "healthy", "{report:#}");
    program.until_logged("sells are not wanted").await;
    bench.venue.freeze();
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("nothing left in the spool"), "{log}");
    let said = log.matches("the store does not take").count();
    assert!(said < 10, "a line at once and one a minute, not {said} for each row:\n{log}");

    let listed = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["deadletter", "list", "eth.toml", "--json"])
        .current_dir(bench.folder())
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let letters = listed.lines().count() as i64;
    assert!(listed.lines().all(|line| line.contains("sell")), "{listed}");
    // The balance: what came since, each row stored or a letter.
    let stored = bench.number(TRADES).await - trades + bench.number(TICKERS).await - tickers;
    let rows = bench.dump().iter().filter(|item| item.get("ts_recv").is_some()).count() as i64;
    assert_eq!(stored + letters + trades + tickers, rows, "{letters} letters");
    assert!(bench.number("SELECT count(*) FROM trades WHERE side = 'buy'").await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_was_renamed_is_held_back_so_that_nothing_is_stored_twice() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    program.stop().await;
    let text = bench.pipeline("", "");
    bench.write("eth.toml", &text.replace("[sink.sqlite]", "[sink.store]\ntype = \"sqlite\""));
    let mut program = bench.run();
    let is_failed = |report: &Value, sink: &str| report["checks"][format!("eth/sink.{sink}")]["status"] == "failed";
    let held = |report: &Value| is_failed(report, "store") && is_failed(report, "sqlite");
    let report = program.until("the new name is held back", held).await;
    let gone = &report["checks"]["eth/sink.sqlite"];
    assert_eq!(gone["status"], "failed", "{gone:#}");
    for stage in ["sqlite", "store"] {
        let why = report["checks"][format!("eth/sink.{stage}")]["reason"].as_str().unwrap();
        let (back, forget) = ("give the sink its name back, `[sink.sqlite]`", "`tidegate sink forget eth.toml sqlite`");
        assert!(why.contains(back) && why.contains(forget), "{why}");
        program.until_logged(why).await;
    }
    assert_eq!(program.get("/health").await.0, 503, "a person is needed");
    goes_on(&mut program, &report).await;
    let (code, log) = program.stop().await;
    assert!(code == 1 && log.contains("sqlite: not in the TOML any more"), "{log}");

    // Given its name back, it goes on as if nothing had been.
    bench.write("eth.toml", &text);
    let mut program = bench.run();
    program.until_committed(300).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_was_renamed_is_held_back_however_often_it_is_started() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    program.stop().await;
    let text = bench.pipeline("", "");
    bench.write("eth.toml", &text.replace("[source.deribit]", "[source.venue]\ntype = \"deribit\""));
    for _ in 0..2 {
        let mut program = bench.run();
        let held = |report: &Value| report["checks"]["eth/source.venue"]["status"] == "failed";
        let report = program.until("the new name is held back", held).await;
        let why = report["checks"]["eth/source.venue"]["reason"].as_str().unwrap();
        assert!(why.contains("give the source its name back, `[source.deribit]`"), "{why}");
        program.until_logged(why).await;
        until_sink(&mut program, "healthy").await;
        assert_eq!(program.get("/health").await.0, 503, "a person is needed");
        let (code, log) = program.stop().await;
        assert!(code == 1 && !log.contains("connected"), "{code}: {log}");
    }

    // Given its name back, it goes on as if nothing had been, and what was made meanwhile is asked for.
    bench.write("eth.toml", &text);
    let mut program = bench.run();
    program.until_committed(300).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_still_fed_from_the_spool_when_the_only_source_needs_a_person() {
    let bench = Bench::start(busy(500.0), "", "").await;
    bench.write("store", "in the way");
    let text = bench.pipeline("", "").replace("eth.sqlite", "store/eth.sqlite");
    bench.write("eth.toml", &text);
    let mut program = bench.run();
    program.until("rows are spooled", |report| spooled(report) > 300).await;
    program.kill().await;
    let gives_up = text.replace("reconnect = {", "reconnect = { max_attempts = 1,");
    let nowhere = gives_up.replace(&bench.venue.ws_url(), "ws://127.0.0.1:9/ws");
    bench.write("eth.toml", &nowhere);
    let mut program = bench.run();
    let failed = |report: &Value| report["checks"]["eth/source.deribit"]["status"] == "failed";
    program.until("the source has given up", failed).await;
    fs::remove_file(bench.path("store")).unwrap();
    program.until_committed(300).await;
    assert_eq!(program.get("/health").await.0, 503, "a person is needed");
    let (code, log) = program.stop().await;
    assert_eq!(code, 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_was_renamed_is_held_back_from_the_tables_that_its_old_name_has_filled() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    program.stop().await;
    let rows = bench.number(TRADES).await;
    let text = bench.pipeline("", "");
    bench.write("eth.toml", &text.replace("name = \"eth\"", "name = \"ether\""));
    for _ in 0..2 {
        let mut program = bench.run();
        let held = |report: &Value| report["checks"]["ether/sink.sqlite"]["status"] == "failed";
        let report = program.until("the new name is held back", held).await;
        let why = report["checks"]["ether/sink.sqlite"]["reason"].as_str().unwrap();
        assert!(why.contains("pipeline `eth`, by its sink `sqlite`") && why.contains("`name = \"eth\"`"), "{why}");
        assert_eq!(program.get("/health").await.0, 503, "a person is needed");
        assert_eq!(program.stop().await.0, 1);
    }
    assert_eq!(bench.number(TRADES).await, rows, "nothing is written");

    // Beside a file that names the old one, it is another feed into the same tables.
    bench.write("old.toml", &text);
    let mut program = bench.run();
    program.until("rows are stored", |report| report["checks"]["ether/sink.sqlite"]["status"] == "healthy").await;
    assert_eq!(program.stop().await.0, 0);

    // Given its name back, it goes on.
    bench.write("eth.toml", &text);
    let mut program = bench.run();
    program.until_committed(300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_tables_than_at_the_last_start_are_said_once() {
    let bench = Bench::start(busy(500.0), "", "").await;
    for (rest, is_said) in [("", false), ("tables = [\"trades\"]", true), ("tables = [\"trades\"]", false)] {
        bench.write("eth.toml", &bench.pipeline("", rest));
        let mut program = bench.run();
        program.until_committed(50).await;
        let (code, log) = program.stop().await;
        assert_eq!(code, 0, "{log}");
        assert_eq!(log.contains("the tables are not those of the last start"), is_said, "{rest}:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_whose_file_beside_the_spool_is_damaged_fails_alone() {
    let bench = Bench::start(busy(500.0), "", "[sink.other]\ntype = \"file\"\npath = \"rows\"").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    program.stop().await;
    bench.write("data/eth/sinks/other.json", "");
    let mut program = bench.run();
    let failed = |report: &Value| report["checks"]["eth/sink.other"]["status"] == "failed";
    let report = program.until("the damaged one has failed", failed).await;
    let why = report["checks"]["eth/sink.other"]["reason"].as_str().unwrap();
    assert!(why.contains("data/eth/sinks/other.json` is damaged"), "{why}");
    goes_on(&mut program, &report).await;
    program.until_committed(300).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_stores_the_one_that_is_up_does_not_wait_for_the_one_that_is_down() {
    let bench = Bench::start(busy(500.0), "", "").await;
    bench.write("store", "in the way");
    let down = format!(
        "[sink.down]\ntype = \"sqlite\"\npath = \"{}\"\nretry = {{ first = \"20ms\", longest = \"300ms\" }}",
        bench.path("store/down.sqlite").display()
    );
    bench.write("eth.toml", &bench.pipeline("", &down));
    let mut program = bench.run();
    program.until_committed(1_000).await;
    let report = program.next_report().await;
    assert_eq!(report["checks"]["eth/sink.down"]["status"], "degraded", "{report:#}");
    assert_eq!(report["checks"]["eth/sink.sqlite"]["status"], "healthy", "{report:#}");
    bench.settle(&mut program).await.assert_exact(&program.log());
    fs::remove_file(bench.path("store")).unwrap();
    let drained = |report: &Value| report["checks"]["eth/sink.down"]["status"] == "healthy";
    program.until("the other one is drained to", drained).await;
    bench.at("store/down.sqlite").settle(&mut program).await.assert_exact(&program.log());
}

const TRADES: &str = "SELECT count(*) FROM trades";
const TICKERS: &str = "SELECT count(*) FROM tickers";

fn spooled(report: &Value) -> u64 {
    report["checks"]["eth/spool"]["rows_appended"].as_u64().unwrap_or(0)
}

fn source_status(report: &Value) -> &str {
    report["checks"]["eth/source.deribit"]["status"].as_str().unwrap()
}

fn why(report: &Value) -> &str {
    report["checks"]["eth/sink.sqlite"]["reason"].as_str().unwrap()
}

async fn until_sink(program: &mut Program, status: &str) -> Value {
    program
        .until(&format!("the sink is {status}"), |report| report["checks"]["eth/sink.sqlite"]["status"] == status)
        .await
}

/// Asserts that the sink has stopped with the three positions, in health and log, and the feed has not.
async fn stopped_by_mismatch(program: &mut Program) {
    let report = until_sink(program, "failed").await;
    let why = why(&report);
    assert!(why.contains("store: none; last known beside the spool: ") && why.contains("; spool: behind "), "{why}");
    for command in ["`tidegate adopt eth.toml sqlite --from-log`", "`tidegate adopt eth.toml sqlite --from-store`"] {
        assert!(why.contains(command), "{why}");
    }
    program.until_logged(why).await;
    assert_eq!(program.get("/health").await.0, 503, "a person is needed");
    goes_on(program, &report).await;
}

/// Asserts that rows still come into the spool, and the source is well.
async fn goes_on(program: &mut Program, report: &Value) {
    let rows = spooled(report);
    let report = program.until("the feed goes on", |report| spooled(report) > rows + 200).await;
    assert_eq!(source_status(&report), "healthy", "{report:#}");
}

fn remove(database: &Path) {
    for end in ["", "-wal", "-shm"] {
        _ = fs::remove_file(format!("{}{end}", database.display()));
    }
}
