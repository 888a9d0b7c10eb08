//! What is particular to SQLite: a disk that can only be read, and mistakes that only this store makes mistakes.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use std::process::Command;

use serde_json::Value;
use support::{Bench, Program, SmallDisk, busy};
use tidegate_sources::deribit::simulator::SimulatorConfig;

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_can_only_be_read_is_written_to_again_when_it_can() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let Some(disk) = SmallDisk::mount("200m") else { return };
    let bench = bench.at(disk.path().join("eth.sqlite"));
    bench.write("eth.toml", &bench.pipeline("", "breaker = { open_for = \"200ms\" }"));
    let mut program = bench.run();
    program.until_committed(200).await;
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");

    disk.resize("200m,ro");
    let mut program = bench.run();
    let report = until_sink(&mut program, "degraded").await;
    let why = report["checks"]["eth/sink.sqlite"]["reason"].as_str().unwrap();
    assert!(why.contains("can only be read") || why.contains("cannot be opened"), "{why}");
    let rows = spooled(&report);
    program.until("the feed goes on", |report| spooled(report) > rows + 200).await;
    disk.resize("200m,rw");
    until_sink(&mut program, "healthy").await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sqlite_cannot_have_is_refused_when_the_file_is_loaded() {
    let bench = Bench::start(SimulatorConfig::default(), "", "").await;
    let sinks = "[sink.first]\ntype = \"sqlite\"\npath = \"x.sqlite\"\ntables = [\"trades\"]\n\
                 [sink.second]\ntype = \"sqlite\"\npath = \"./other/../x.sqlite\"\ntables = { trades = \"TRADES\" }\n\
                 [sink.key]\ntype = \"sqlite\"\npath = \"a.sqlite\"\n\
                 tables = { trades = { key = [\"nonsense\"], on_conflict = \"replace\" } }\n\
                 [sink.own]\ntype = \"sqlite\"\npath = \"b.sqlite\"\ntables = { trades = \"sqlite_trades\" }\n\
                 [sink.one]\ntype = \"sqlite\"\npath = \"c.sqlite\"\ntables = { trades = \"x\", tickers = \"X\" }\n\
                 [sink.symbols]\ntype = \"sqlite\"\npath = \"d.sqlite\"\ntables = { trades = \"{symbol}\" }\n";
    bench.write("eth.toml", &bench.pipeline("", sinks));
    let checked = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["check", "eth.toml"])
        .current_dir(bench.folder())
        .output()
        .unwrap();
    let said = String::from_utf8(checked.stdout).unwrap() + &String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.code(), Some(2), "{said}");
    for mistake in [
        "sinks `first` and `second` write table `TRADES` to one store",
        "table `trades` has no column `nonsense`",
        "a table cannot be called `sqlite_trades` in SQLite",
        "tables `X` and `x` are one for SQLite",
        "`{symbol}` has a table for each symbol",
    ] {
        assert!(said.contains(mistake), "never said: {mistake}\n{said}");
    }
    assert!(said.contains("5 errors"), "{said}");
}

fn spooled(report: &Value) -> u64 {
    report["checks"]["eth/spool"]["rows_appended"].as_u64().unwrap_or(0)
}

async fn until_sink(program: &mut Program, status: &str) -> Value {
    program
        .until(&format!("the sink is {status}"), |report| report["checks"]["eth/sink.sqlite"]["status"] == status)
        .await
}
