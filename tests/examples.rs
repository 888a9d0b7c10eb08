//! The examples are programs that work: each runs a pipeline, and what came out is looked at. Those that are crates of their own
//! have tests of their own, as yours would: `examples/own-source/tests`, `examples/own-sink/tests`.
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use support::{Bench, Program};
use tidegate_sources::deribit::simulator::SimulatorConfig;

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
        Program::start_as(&beside_the_program("own-sink"), bench.folder(), &args)
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
    let mut program =
        Program::start_as(&beside_the_program("examples/several_pipelines"), bench.folder(), &["eth.toml", "two.toml"]);
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

/// Returns an example's program, which `cargo test --workspace` builds beside the tests.
fn beside_the_program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_tidegate")).with_file_name(name);
    let remedy = "cargo build --workspace --all-features --bins --examples";
    assert!(path.exists(), "{} is not built: run the tests of the workspace, or {remedy}", path.display());
    path
}
