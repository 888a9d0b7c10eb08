//! The examples are programs that work: each runs a pipeline, and what came out is looked at.
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

#[path = "../examples/own_sink.rs"]
mod own_sink;
mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use support::{Bench, Program};
use tidegate::{
    catalog::Component,
    chunk::SinkTable,
    sink::Sink,
    testkit::contract::{self, SinkBench, StoredRow, row_of_json},
};
use tidegate_sources::deribit::simulator::SimulatorConfig;

#[test]
fn a_source_of_one_s_own_is_collected_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[pipeline]\nname = \"dice\"\n[source.dice]\nthrows = 1000\n[sink.file]\npath = \"out\"\n";
    fs::write(folder.path().join("dice.toml"), text).unwrap();
    fs::write(folder.path().join("tidegate.toml"), "listen = \"127.0.0.1:0\"\n").unwrap();
    let output = run("own_source", folder.path(), &["run", "dice.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(rows(folder.path()), 1_000, "{}", said(&output));
    let output = run("own_source", folder.path(), &["list", "dice"]);
    assert!(said(&output).contains("How often."), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_of_one_s_own_counts_every_row_once_through_kill_9() {
    let bench = Bench::start(SimulatorConfig { rate: 1_000.0, ..SimulatorConfig::default() }, "", "").await;
    let text = bench.pipeline("", "");
    let (source, _) = text.split_once("[sink.sqlite]").unwrap();
    bench.write(
        "eth.toml",
        &format!("{source}[sink.pages]\nfolder = \"pages\"\n[sink.sqlite]\npath = \"eth.sqlite\"\n"),
    );
    let start = || {
        let args = ["run", "eth.toml", "--supervised", "50ms"];
        Program::start_as(&example("own_sink"), bench.folder(), &args)
    };
    let mut program = start();
    program.until_committed(500).await;
    program.kill().await;
    let mut program = start();
    program.until_committed(500).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    for table in ["trades", "tickers"] {
        let stored = bench.number(&format!("SELECT count(*) FROM {table}")).await;
        let pages = lines_of(&bench.path("pages"));
        let rows = pages.iter().filter(|line| line["table"] == table).count();
        assert_eq!(rows as i64, stored, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_of_one_s_own_keeps_the_contract_of_sinks() {
    let report = contract::assert_kept(async || Pages { folder: tempfile::tempdir().unwrap() }).await;
    let left_out = [
        "back-pressure",
        "refused rows",
        "refused row in several tables",
        "connection cut anywhere",
        "slow store",
        "frozen store",
        "store that is down",
        "restarted store",
        "table dropped",
        "column dropped",
        "audit",
        "adopt",
        "rename",
        "keys",
    ];
    assert_eq!(report.left_out(), left_out, "there is no server, and it refuses nothing");
}

/// The bench of the example's sink: all that an author has to write.
struct Pages {
    folder: tempfile::TempDir,
}

#[async_trait::async_trait]
impl SinkBench for Pages {
    fn sink(&self) -> Box<dyn Sink> {
        own_sink::PagesConfig { folder: self.folder.path().to_owned() }.build().unwrap()
    }

    async fn rows(&mut self, table: &SinkTable) -> Vec<StoredRow> {
        let lines = lines_of(self.folder.path()).into_iter();
        lines.filter(|line| line["table"] == *table.name).map(|line| row_of_json(table, &line["row"])).collect()
    }
}

/// Returns the lines of all pages below a folder.
fn lines_of(folder: &Path) -> Vec<Value> {
    let mut lines = Vec::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            lines.extend(lines_of(&path));
        } else if path.extension().is_some_and(|end| end == "jsonl") {
            let text = fs::read_to_string(path).unwrap();
            lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        }
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_runs_two_pipelines_inside_another_program() {
    let bench = Bench::start(SimulatorConfig { rate: 1_000.0, ..SimulatorConfig::default() }, "", "").await;
    let other = bench.pipeline("", "").replace("name = \"eth\"", "name = \"two\"").replace("eth.sqlite", "two.sqlite");
    bench.write("two.toml", &other);
    let mut program = Program::start_as(&example("several_pipelines"), bench.folder(), &["eth.toml", "two.toml"]);
    bench.until_stored("SELECT count(*) FROM tickers", 200).await;
    bench.venue.freeze();
    program.signal("INT");
    let (code, log) = program.ended().await;
    assert_eq!(code, 0, "{log}");
    for name in ["eth", "two"] {
        let last = format!("stopped {name} in");
        assert!(program.printed().contains(&last), "no `{last}` in\n{}", program.printed());
    }
    assert!(bench.number("SELECT count(*) FROM tickers").await >= 200);
    assert!(bench.path("two.sqlite").exists());
}

/// Returns an example's program, which `cargo test` builds beside the tests.
fn example(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is not built: run the tests without naming one, or build the examples", path.display());
    path
}

fn run(name: &str, folder: &Path, args: &[&str]) -> Output {
    Command::new(example(name)).args(args).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

/// Counts the lines of the files below `out`.
fn rows(folder: &Path) -> usize {
    let files = fs::read_dir(folder.join("out")).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.is_file());
    files.map(|path| fs::read_to_string(path).unwrap().lines().filter(|line| line.contains("DICE")).count()).sum()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
