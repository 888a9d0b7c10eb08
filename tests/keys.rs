//! What a key would make of the rows is said before it is too late: in health while they come, and by `check --connect` of
//! those that the spool has. The real program against the simulator.
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

mod support;

use std::process::{Command, Stdio};

use support::{Bench, Program, busy};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_merges_is_measured_over_the_running_feed_and_over_its_spool() {
    let tables = "tables = { tickers = {}, trades = { key = [\"venue\", \"symbol\"], on_conflict = \"replace\" } }\n";
    let bench = Bench::start(busy(1_000.0), "", tables).await;
    let mut program = bench.run();
    program
        .until("a key that merges", |report| {
            let keys = &report["checks"]["eth/sink.sqlite"]["keys"];
            keys[0]["repeated"].as_u64().is_some_and(|repeated| repeated > 100) && keys[1].is_null()
        })
        .await;
    let (beside, beside_code) = check(&bench);
    let log = program.log();
    assert_eq!(log.matches("key (venue, symbol) of table `trades` would merge").count(), 1, "once: {log}");
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    let stored = bench.number("SELECT count(*) FROM trades").await;
    let streams = bench.number("SELECT count(DISTINCT symbol) FROM trades").await;
    assert_eq!(stored, streams, "the store does what was said");
    let (after, after_code) = check(&bench);
    for (text, code) in [(beside, beside_code), (after, after_code)] {
        assert_eq!(code, Some(0), "{text}");
        let line = text.lines().find(|line| line.contains("key (venue, symbol)")).unwrap_or_default();
        assert!(line.starts_with("ok      eth/sink.sqlite") && line.contains(" % of these rows: "), "{text}");
    }
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_would_merge_is_measured_over_a_capture_by_its_replay() {
    let bench = Bench::start(busy(1_000.0), "capture = {}", "").await;
    let mut program = bench.run();
    program.until_committed(1_000).await;
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    let path = format!("path = \"{}\"", bench.database().display());
    let key = "tables = { tickers = {}, trades = { key = [\"venue\", \"symbol\"], on_conflict = \"ignore\" } }";
    let text = bench.pipeline("replay = { from = \"data/eth/sources/deribit/capture\", speed = \"max\" }", key);
    bench.write("eth.toml", &text.replace(&path, "path = \"again.sqlite\""));
    let (code, log) = Program::start(bench.folder(), &["run", "eth.toml"]).ended().await;
    assert_eq!(code, 0, "{log}");
    let (text, code) = check(&bench);
    assert_eq!(code, Some(0), "{text}");
    let line = text.lines().find(|line| line.contains("key (venue, symbol)")).unwrap_or_default();
    assert!(line.contains("would leave out") && line.contains(" % of these rows: "), "{text}");
    bench.leave().await;
}

fn check(bench: &Bench) -> (String, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let output = command.args(["check", "eth.toml", "--connect"]).current_dir(bench.folder()).stdin(Stdio::null());
    let output = output.output().unwrap();
    (
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        output.status.code(),
    )
}
