//! Dead letters are sent again, once, to their sink alone: by the real program over SQLite, running and stopped, killed at
//! the worst moments, and also after all that the spool knew of it is gone.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use sqlx::{AssertSqlSafe, SqliteConnection};
use support::{Bench, Program, busy};

const SELLS: &str = "SELECT count(*) FROM trades WHERE side = 'sell'";
const REDRIVEN: &str = "SELECT count(*) FROM trades WHERE origin = 'redrive'";
const TWICE: &str = "SELECT count(*) - count(DISTINCT symbol || seq) FROM trades";

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_check_has_refused_is_stored_once_when_the_check_is_gone_however_often_it_is_asked_for() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(200).await;
    program.stop().await;
    let newest = bench.number("SELECT max(ts_recv) FROM trades").await;
    checked(&bench, &format!("CHECK (side <> 'sell' OR ts_recv <= {newest})")).await;
    let mut program = bench.run();
    until_letters(&mut program, 10).await;
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    let letters = listed(&bench, "waiting");
    let shown = said(&deadletter(&bench, &["show", "eth.toml"]));
    assert!(shown.contains("CHECK constraint failed") && shown.contains("  raw      {\""), "{shown}");
    checked(&bench, "").await;

    let tried = said(&deadletter(&bench, &["redrive", "eth.toml", "--all", "--dry-run"]));
    assert!(tried.contains(&format!("{letters} dead letters of eth would be sent again")), "{tried}");
    assert_eq!(listed(&bench, "asked_for"), 0, "nothing was sent");
    let first = said(&deadletter(&bench, &["redrive", "eth.toml", "--all"]));
    assert!(first.contains(&format!("{letters} dead letters of eth asked for: nobody runs it")), "{first}");
    let second = said(&deadletter(&bench, &["redrive", "eth.toml", "--all"]));
    assert!(second.contains("0 dead letters of eth asked for"), "{second}");
    assert_eq!(listed(&bench, "asked_for"), letters);

    let mut program = bench.run();
    bench.until_number(&mut program, REDRIVEN, letters).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    no_request_is_left(&bench, &mut program).await;
    let report = program.next_report().await;
    assert_eq!(report["checks"]["eth/deadletters.sqlite"]["dead_letters"], 0, "{report:#}");
    let third = said(&deadletter(&bench, &["redrive", "eth.toml", "--all"]));
    assert!(third.contains("0 dead letters of eth asked for"), "{third}");
    program.stop().await;
    assert_eq!((bench.number(REDRIVEN).await, bench.number(TWICE).await), (letters, 0));
    assert_eq!((listed(&bench, "sent_again"), listed(&bench, "waiting")), (letters, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_pipeline_runs_its_sink_gets_them_at_once_and_no_other_and_what_fails_again_can_be_sent_again() {
    let other = "[sink.other]\ntype = \"sqlite\"\npath = \"other.sqlite\"\n";
    let bench = Bench::start(busy(500.0), "", other).await;
    let mut program = bench.run();
    program.until_committed(200).await;
    let mut db = bench.connection().await;
    refuse_sells(&mut db).await;
    until_letters(&mut program, 3).await;

    let key = keys(&bench, "waiting").remove(0);
    let again = deadletter(&bench, &["redrive", "eth.toml", &key]);
    assert_eq!(again.status.code(), Some(1), "{}", said(&again));
    assert!(said(&again).contains("1 dead letter of eth asked for: 0 stored, 1 refused again"), "{}", said(&again));
    assert_eq!(listed(&bench, "failed_again"), 1);
    let old = said(&deadletter(&bench, &["redrive", "eth.toml", &key]));
    assert!(old.contains("is not sent: it is failed again, as ") && old.contains("0 dead letters"), "{old}");
    let of = |letter: &&Value| letter["redrive_of"] == key;
    let new = letters_of(&bench).iter().find(of).unwrap()["key"].as_str().unwrap().to_owned();
    let shown = said(&deadletter(&bench, &["show", "eth.toml", &new]));
    assert!(shown.contains(&format!("it was sent again from {key}")), "{shown}");

    sqlx::query("DROP TRIGGER no_sells").execute(&mut db).await.unwrap();
    let sent = deadletter(&bench, &["redrive", "eth.toml", "--all", "--sink", "sqlite"]);
    assert_eq!(sent.status.code(), Some(0), "{}", said(&sent));
    let letters = said(&sent).split(' ').next().unwrap().parse().unwrap();
    assert!(
        said(&sent).starts_with(&format!("{letters} dead letters of eth asked for: {letters} stored")),
        "{}",
        said(&sent)
    );
    bench.settle(&mut program).await.assert_exact(&program.log());
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    assert!(letters > 0 && keys(&bench, "sent_again").contains(&new));
    assert_eq!((bench.number(REDRIVEN).await, bench.number(TWICE).await), (letters, 0));
    let bench = bench.at("other.sqlite");
    assert_eq!((bench.number(REDRIVEN).await, bench.number(TWICE).await), (0, 0), "it had them from the venue");
    assert!(bench.number(SELLS).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_asking_and_storing_at_any_step_each_row_is_stored_once() {
    let bench = Bench::start(busy(300.0), "", "lock_timeout = \"50ms\"").await;
    let mut program = bench.run();
    program.until_committed(100).await;
    let mut db = bench.connection().await;
    refuse_sells(&mut db).await;
    until_letters(&mut program, 10).await;
    sqlx::query("DROP TRIGGER no_sells").execute(&mut db).await.unwrap();
    // The letters' own chunks, too: of one that is not committed, the row comes again, and its letter goes.
    let committed = |report: &Value| report["checks"]["eth/sink.sqlite"]["rows_committed"].as_u64().unwrap_or_default();
    let before = committed(&program.next_report().await);
    program.until("a chunk behind the last letter", |report| committed(report) > before + 50).await;

    // In the spool, and not in the store, which is locked.
    sqlx::query("BEGIN IMMEDIATE").execute(&mut db).await.unwrap();
    let letters = listed(&bench, "waiting");
    for round in 0..3 {
        let mut asking = ask(&bench);
        program.until_logged("are in the spool, to be sent again").await;
        program.kill().await;
        asking.kill().unwrap();
        asking.wait().unwrap();
        if round == 2 {
            sqlx::query("ROLLBACK").execute(&mut db).await.unwrap();
        }
        program = bench.run();
        program.until_logged("are in the spool, to be sent again").await;
    }
    // Stored, and the request perhaps still there.
    for stored in [1, letters] {
        bench.until_number(&mut program, REDRIVEN, stored).await;
        program.kill().await;
        program = bench.run();
    }
    bench.settle(&mut program).await.assert_exact(&program.log());
    no_request_is_left(&bench, &mut program).await;
    program.stop().await;
    assert_eq!((bench.number(REDRIVEN).await, bench.number(TWICE).await), (letters, 0));
    assert_eq!((listed(&bench, "sent_again"), listed(&bench, "waiting")), (letters, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_again_when_the_spool_knows_nothing_of_the_first_is_answered_by_the_dead_letters() {
    let bench = Bench::start(busy(2_000.0), "", "[spool]\nsegment_bytes = \"64KiB\"\nkeep = \"0s\"\n").await;
    let mut program = bench.run();
    program.until_committed(100).await;
    let mut db = bench.connection().await;
    refuse_sells(&mut db).await;
    until_letters(&mut program, 3).await;
    sqlx::query("DROP TRIGGER no_sells").execute(&mut db).await.unwrap();
    program.stop().await;
    let letters = listed(&bench, "waiting");
    let asked = said(&deadletter(&bench, &["redrive", "eth.toml", "--all"]));
    assert!(asked.contains("asked for: nobody runs it"), "{asked}");
    let request = requests(&bench).remove(0);
    let copy = fs::read(&request).unwrap();

    let mut program = bench.run();
    bench.until_number(&mut program, REDRIVEN, letters).await;
    no_request_is_left(&bench, &mut program).await;
    let last = letters_of(&bench).iter().filter_map(|letter| offset(&letter["redriven"])).max().unwrap();
    program.until("the segments are gone that had them", |_| oldest(&bench) > last).await;
    program.kill().await;
    assert!(!bench.dump().iter().any(|item| item.get("redrive").is_some()), "{last}");
    // As a power cut does, which takes back that a file was removed.
    fs::write(&request, copy).unwrap();
    let mut program = bench.run();
    program.until_logged(&format!("{letters} not sent again: each was before")).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    program.stop().await;
    assert_eq!((bench.number(REDRIVEN).await, bench.number(TWICE).await), (letters, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_may_be_repaired_by_hand_and_what_does_not_fit_is_said_before_it_is_sent() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(100).await;
    let mut db = bench.connection().await;
    refuse_sells(&mut db).await;
    until_letters(&mut program, 1).await;
    bench.venue.freeze();
    program.stop().await;
    let key = keys(&bench, "waiting").remove(0);
    for (set, wrong) in [
        ("sied=buy", "table `trades` has no column `sied`; did you mean `side`?"),
        ("price=cheap", "column `price` of table `trades` has to be a number"),
        ("price=null", "column `price` of table `trades` has to be a number"),
        ("ts_event=today", "column `ts_event` has to be a time such as"),
    ] {
        let output = deadletter(&bench, &["redrive", "eth.toml", &key, "--set", set]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(wrong), "{set}: {}", said(&output));
    }
    assert!(requests(&bench).is_empty());
    assert_eq!(deadletter(&bench, &["redrive", "eth.toml"]).status.code(), Some(2), "which ones?");
    assert_eq!(deadletter(&bench, &["redrive", "eth.toml", "1.2.3"]).status.code(), Some(1), "no such key");

    let set = ["--set", "side=buy", "--set", "price=0.125", "--set", "ts_event=2026-01-02T03:04:05.000000006Z"];
    deadletter(&bench, &[&["redrive", "eth.toml", &key], &set[..]].concat());
    let mut program = bench.run();
    let repaired = "SELECT count(*) FROM trades WHERE origin = 'redrive' AND side = 'buy' AND price = 0.125 \
                    AND ts_event = 1767323045000000006";
    bench.until_number(&mut program, repaired, 1).await;
    program.stop().await;
    assert_eq!(bench.number(REDRIVEN).await, 1);
}

/// Gives the table of trades other constraints, with the rows that are in it.
async fn checked(bench: &Bench, constraint: &str) {
    let mut db = bench.connection().await;
    let sql: String =
        sqlx::query_scalar("SELECT sql FROM sqlite_schema WHERE name = 'trades'").fetch_one(&mut db).await.unwrap();
    let (columns, end) = sql.rsplit_once(')').unwrap();
    let columns = columns.split(", CHECK").next().unwrap().trim_end();
    let constraint = if constraint.is_empty() { String::new() } else { format!(", {constraint}") };
    for query in [
        "ALTER TABLE trades RENAME TO old".to_owned(),
        format!("{columns}{constraint}){end}"),
        "INSERT INTO trades SELECT * FROM old".to_owned(),
        "DROP TABLE old".to_owned(),
    ] {
        sqlx::query(AssertSqlSafe(query)).execute(&mut db).await.unwrap();
    }
}

async fn refuse_sells(db: &mut SqliteConnection) {
    let trigger = "CREATE TRIGGER no_sells BEFORE INSERT ON trades WHEN NEW.side = 'sell' \
                   BEGIN SELECT RAISE(ABORT, 'sells are not wanted'); END";
    sqlx::query(trigger).execute(db).await.unwrap();
}

/// Waits until there are so many dead letters.
async fn until_letters(program: &mut Program, least: i64) {
    let letters = |report: &Value| report["checks"]["eth/deadletters.sqlite"]["dead_letters"].as_i64();
    program.until("dead letters", |report| letters(report) >= Some(least)).await;
}

async fn no_request_is_left(bench: &Bench, program: &mut Program) {
    program.until("no request is left", |_| requests(bench).is_empty()).await;
}

fn requests(bench: &Bench) -> Vec<PathBuf> {
    let files = fs::read_dir(bench.path("data/eth/sinks/sqlite")).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("redrive-")).collect()
}

/// Returns the first offset of the oldest segment.
fn oldest(bench: &Bench) -> u64 {
    let names = fs::read_dir(bench.path("data/eth/spool")).unwrap().map(|file| file.unwrap().file_name());
    let firsts = names.filter_map(|name| name.to_str()?.strip_suffix(".seg")?.parse().ok());
    firsts.min().unwrap_or(0)
}

/// Returns the offset of a key.
fn offset(key: &Value) -> Option<u64> {
    key.as_str()?.split('.').nth(1)?.parse().ok()
}

fn ask(bench: &Bench) -> std::process::Child {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["deadletter", "redrive", "eth.toml", "--all"])
        .current_dir(bench.folder())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn listed(bench: &Bench, state: &str) -> i64 {
    keys(bench, state).len() as i64
}

fn keys(bench: &Bench, state: &str) -> Vec<String> {
    let letters = letters_of(bench).into_iter().filter(|letter| letter["state"] == state);
    letters.map(|letter| letter["key"].as_str().unwrap().to_owned()).collect()
}

fn letters_of(bench: &Bench) -> Vec<Value> {
    let output = deadletter(bench, &["list", "eth.toml", "--json"]);
    let letters = String::from_utf8(output.stdout).unwrap();
    letters.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn deadletter(bench: &Bench, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("deadletter")
        .args(args)
        .current_dir(bench.folder())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    text(&output.stdout) + &text(&output.stderr)
}
