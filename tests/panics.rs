//! Wherever the program itself has a fault: it is caught, told in health with what happens next, tried again, and costs nobody a
//! row. The real program, made to panic at each place in turn, two pipelines beside each other.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Bench, Program, busy};

/// Where it panics and how often, and the words for it in the log, which has each change of health.
const PLACES: [(&str, &str); 11] = [
    ("the protocol*1", "the protocol panicked: a fault of the program"),
    ("the protocol's streams*1", "the protocol panicked"),
    ("making the source*1", "making the source panicked: a fault of the program"),
    ("the source*2", "the source panicked: a fault of the program"),
    ("starting the pipeline*1", "starting the pipeline panicked: a fault of the program"),
    ("writing*2", "writing panicked: a fault of the program"),
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
    let rest = "tables = [\"trades\", \"tickers\", \"big\", \"status\"]\n\
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

fn run(folder: &Path, place: &str) -> Program {
    let tidegate = PathBuf::from(env!("CARGO_BIN_EXE_tidegate"));
    let faulty = tidegate.with_file_name("examples").join("faulty");
    assert!(faulty.exists(), "`cargo test` makes the examples, too; for one test alone: cargo build --example faulty");
    Program::start_with(&faulty, folder, &["run", ".", "--supervised", "50ms"], &[("FAULTS", place)])
}
