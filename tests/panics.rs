//! Wherever the program itself has a fault: it is caught, told in health with what happens next, tried again, and costs nobody a
//! row. The real program, made to panic at each place in turn, two pipelines beside each other.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use std::{path::Path, process::Command};

use serde_json::Value;
use support::{Bench, Program, busy};

/// Where it panics and how often, and the words for it in the log, which has each change of health.
const PLACES: [(&str, &str); 12] = [
    ("the protocol*1", "the protocol panicked: a fault of the program"),
    ("the protocol's streams*1", "the protocol panicked"),
    ("making the source*1", "making the source panicked: a fault of the program"),
    ("the source*2", "the source panicked: a fault of the program"),
    ("starting the pipeline*1", "starting the pipeline panicked: a fault of the program"),
    ("writing*2", "writing panicked: a fault of the program"),
    ("the probe*2", "the probe panicked: a fault of the program"),
    ("a table*1", "the delivery panicked: a fault of the program"),
    ("the ledger*1", "the ledger panicked: a fault of the program"),
    ("the ledger, under way*2", "the ledger panicked: a fault of the program"),
    ("the status*1", "is told again after a pause"),
    ("sending dead letters again*1", "is looked for again after a pause"),
];

#[tokio::test(flavor = "multi_thread")]
async fn wherever_the_program_panics_it_says_so_begins_again_and_no_pipeline_loses_a_row() {
    let mut tests = tokio::task::JoinSet::new();
    // Four at once: each is two pipelines.
    let mut places = PLACES.into_iter();
    for (place, words) in places.by_ref().take(4) {
        tests.spawn(panics(place, words));
    }
    while let Some(ended) = tests.join_next().await {
        ended.unwrap();
        if let Some((place, words)) = places.next() {
            tests.spawn(panics(place, words));
        }
    }
}

async fn panics(place: &'static str, words: &'static str) {
    let rest = "probe = { every = \"5ms\" }\ntables = [\"trades\", \"tickers\", \"big\", \"status\"]\n\
        [table.big]\nfrom = \"trades\"\nwhere = \"price > 0\"\n";
    let bench = Bench::start(busy(300.0), "capture = {}\n", rest).await;
    // A venue of its own: what one pipeline was sent is not what the other one was.
    let other = Bench::start(busy(300.0), "", "").await;
    bench.write("other.toml", &other.pipeline("", "").replace("name = \"eth\"", "name = \"other\""));
    let mut program = run(bench.folder(), place);
    program.until_logged(words).await;
    // It begins again: all are well in the end, and both stores get rows.
    let is_well = |report: &Value| {
        let checks = report["checks"].as_object().unwrap();
        let committed = |sink: &str| report["checks"][sink]["rows_committed"].as_u64() > Some(300);
        checks.values().all(|check| check["status"] == "healthy")
            && committed("eth/sink.sqlite")
            && committed("other/sink.sqlite")
    };
    program.until(&format!("all are well again after a fault in {place}"), is_well).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    let big = "SELECT (SELECT count(*) FROM trades) - (SELECT count(*) FROM big)";
    assert_eq!(bench.number(big).await, 0, "{place}: each row of the derived table is there, once");
    other.settle(&mut program).await.assert_exact(&program.log());
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{place}:\n{log}");
    // Of two pipelines one at most was touched, but by the start that both share.
    let of = |name: &str| log.lines().filter(|line| line.contains(words) && line.contains(name)).count();
    assert!(of(" eth") == 0 || of(" other") == 0 || place.ends_with("*2"), "{place}:\n{log}");
    bench.leave().await;
    other.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_panics_ends_is_told_and_costs_nobody_a_row() {
    let (bench, other) = two("capture = {}\n").await;
    let mut program = run(bench.folder(), "the capture*1");
    let source = |report: &Value| report["checks"]["eth/source.deribit"].clone();
    let is_told = |report: &Value| {
        let why = "capture stopped: it panicked: a fault of the program";
        source(report)["status"] == "degraded" && source(report)["reason"].as_str().unwrap().contains(why)
    };
    let report = program.until("the capture has ended", is_told).await;
    assert!(source(&report)["reason"].as_str().unwrap().ends_with("; the feed goes on"), "{report:#}");
    program.until_committed(300).await;
    for bench in [&bench, &other] {
        bench.settle(&mut program).await.assert_exact(&program.log());
    }
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    let files = || std::fs::read_dir(bench.path("data/eth/sources/deribit/capture")).unwrap().count();
    assert_eq!(files(), 0, "it had written nothing");
    let mut program = bench.run();
    program
        .until("the next start captures again", |report| source(report)["status"] == "healthy" && files() == 1)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_while_dead_letters_are_sent_again_is_told_and_each_is_stored_once() {
    const REDRIVEN: &str = "SELECT count(*) FROM trades WHERE origin = 'redrive'";
    let (bench, other) = two("").await;
    let mut program = run(bench.folder(), "");
    program.until_committed(200).await;
    let mut db = bench.connection().await;
    let trigger = "CREATE TRIGGER no_sells BEFORE INSERT ON trades WHEN NEW.side = 'sell' \
                   BEGIN SELECT RAISE(ABORT, 'sells are not wanted'); END";
    sqlx::query(trigger).execute(&mut db).await.unwrap();
    let letters = |report: &Value| report["checks"]["eth/deadletters.sqlite"]["dead_letters"].as_i64().unwrap_or(0);
    program.until("dead letters", |report| letters(report) >= 10).await;
    sqlx::query("DROP TRIGGER no_sells").execute(&mut db).await.unwrap();
    drop(db);
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");

    let asked = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["deadletter", "redrive", "eth.toml", "--all"])
        .current_dir(bench.folder())
        .output()
        .unwrap();
    let asked = String::from_utf8(asked.stdout).unwrap();
    let letters: i64 = asked.split(' ').next().unwrap().parse().unwrap();
    assert!(letters >= 10, "{asked}");
    let mut program = run(bench.folder(), "a redrive, under way*2");
    program.until_logged("is looked for again after a pause").await;
    bench.until_number(&mut program, REDRIVEN, letters).await;
    for bench in [&bench, &other] {
        bench.settle(&mut program).await.assert_exact(&program.log());
    }
    let folder = bench.path("data/eth/sinks/sqlite");
    let requests = || {
        let names = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name());
        names.filter(|name| name.to_str().unwrap().starts_with("redrive-")).count()
    };
    program.until("no request is left", |_| requests() == 0).await;
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    assert_eq!(log.matches("is looked for again after a pause").count(), 2, "{log}");
    assert_eq!(bench.number(REDRIVEN).await, letters);
}

/// Two pipelines in one folder, `eth` and `other`, each with a venue of its own.
async fn two(source: &str) -> (Bench, Bench) {
    let bench = Bench::start(busy(300.0), source, "").await;
    let other = Bench::start(busy(300.0), "", "").await;
    bench.write("other.toml", &other.pipeline("", "").replace("name = \"eth\"", "name = \"other\""));
    (bench, other)
}

fn run(folder: &Path, place: &str) -> Program {
    Program::faulty(folder, &["run", ".", "--supervised", "50ms"], place)
}
