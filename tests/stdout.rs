//! Rows on standard output: all of them in lines for a program, in columns for a person at a terminal.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use support::{Bench, PATIENCE, Program, busy};
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread")]
async fn every_row_that_is_stored_is_printed_as_json_where_there_is_no_terminal() {
    let bench = Bench::start(busy(500.0), "", "start = \"earliest\"\n[sink.stdout]\nstart = \"earliest\"\n").await;
    let mut program = Program::start(bench.folder(), &["run", "eth.toml"]);
    until(&program, "300 rows are printed", |printed| printed.lines().count() > 300).await;
    bench.venue.freeze();
    program.signal("TERM");
    let (code, log) = program.ended().await;
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("at-least-once"), "it says what it promises: {log}");

    for table in ["trades", "tickers"] {
        let stored =
            bench.texts(&format!("SELECT symbol || ' ' || ts_event || ' ' || ts_recv FROM {table}")).await.len();
        assert!(stored > 0, "{table}");
        let of_table = |printed: &str| rows(printed).iter().filter(|row| row["table"] == table).count();
        until(&program, &format!("{stored} rows of {table}"), |printed| of_table(printed) == stored).await;
    }
    let printed: Vec<Value> = rows(&program.printed());
    let mut ids: Vec<&str> = printed.iter().filter_map(|row| row["id"].as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, bench.texts("SELECT id FROM trades").await, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_gets_columns() {
    if Command::new("script").arg("--version").output().is_err() {
        support::skipped("no `script` here, which makes a terminal");
        return;
    }
    let bench = Bench::start(busy(500.0), "", "[sink.stdout]\ntables = [\"trades\"]\n").await;
    let command = format!("echo $$ > pid; exec {} run eth.toml", env!("CARGO_BIN_EXE_tidegate"));
    let mut program = Program::start_as(Path::new("script"), bench.folder(), &["-qec", &command, "/dev/null"]);
    let has_columns = |printed: &str| {
        let mut lines =
            printed.lines().skip_while(|line| !(line.starts_with("ts_event") && line.contains("  price  ")));
        lines.any(|line| line.contains("Z  ETH-"))
    };
    until(&program, "columns", has_columns).await;
    assert!(!program.printed().contains("{\"table\""), "{}", program.printed());
    let pid = std::fs::read_to_string(bench.path("pid")).unwrap();
    assert!(Command::new("kill").args(["-TERM", pid.trim()]).status().unwrap().success());
    let (code, _) = program.ended().await;
    assert_eq!(code, 0, "{}", program.printed());
}

/// Waits until what was printed is as wanted.
async fn until(program: &Program, what: &str, wanted: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !wanted(&program.printed()) {
        assert!(Instant::now() < deadline, "never: {what}; {}\nthe log:\n{}", program.printed(), program.log());
        sleep(Duration::from_millis(20)).await;
    }
}

fn rows(printed: &str) -> Vec<Value> {
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
