//! The process around the pipelines: it ends when it is told to, by nothing else, and says what is the matter until then.
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

mod support;

use std::{
    fs,
    process::{Command, Stdio},
};

use serde_json::Value;
use support::{Bench, SmallDisk};
use tidegate_sources::deribit::simulator::SimulatorConfig;
use tokio::{io::AsyncWriteExt, net::TcpStream};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_ends_does_not_hold_up_the_end() {
    let bench = Bench::start(SimulatorConfig::default(), "", "").await;
    let mut program = bench.run();
    program.until_committed(50).await;
    let mut socket = TcpStream::connect(program.address().await).await.unwrap();
    socket.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    // Answered, so the half request before it has been read.
    assert_eq!(program.get("/health/live").await.0, 200);
    program.signal("INT");
    assert_eq!(program.ended().await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_has_failed_stays_red_in_health_until_the_process_is_told_to_end() {
    let Some(disk) = SmallDisk::mount("4m") else { return };
    disk.resize("4m,ro");
    let bench = Bench::start(SimulatorConfig::default(), "", "").await;
    let host = fs::read_to_string(bench.path("tidegate.toml")).unwrap();
    bench.write("tidegate.toml", &format!("data_dir = \"{}\"\n{host}", disk.path().display()));
    let mut program = bench.run();
    let failed = |report: &Value| report["checks"]["eth/spool"]["status"] == "failed";
    let report = program.until("the spool has failed", failed).await;
    assert!(report["checks"]["eth/spool"]["reason"].as_str().unwrap().contains("Read-only file system"), "{report:#}");
    program.until_logged("Read-only file system").await;
    program.signal("INT");
    let (code, log) = program.ended().await;
    assert_eq!(code, 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_at_the_start_holds_up_its_pipeline_until_there_is_room() {
    let Some(disk) = SmallDisk::mount("8m") else { return };
    let bench = Bench::start(SimulatorConfig::default(), "", "").await;
    let host = fs::read_to_string(bench.path("tidegate.toml")).unwrap();
    bench.write("tidegate.toml", &format!("data_dir = \"{}\"\n{host}", disk.path().display()));
    let filler = disk.path().join("filler");
    // Ends with an error when nothing more fits.
    drop(fs::write(&filler, vec![0; 9 << 20]));
    let mut program = bench.run();
    let waits = |report: &Value| {
        let spool = &report["checks"]["eth/spool"];
        spool["status"] == "degraded" && spool["reason"].as_str().is_some_and(|why| why.contains("trying again in"))
    };
    program.until("the pipeline waits for room", waits).await;
    fs::remove_file(filler).unwrap();
    program.until_committed(100).await;
    assert_eq!(program.stop().await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_has_no_room_for_a_folder_at_the_start_holds_up_its_pipeline_until_it_has() {
    // The only name that it can give is that of its root.
    let Some(disk) = SmallDisk::mount("8m,nr_inodes=1") else { return };
    let bench = Bench::start(SimulatorConfig::default(), "", "").await;
    let host = fs::read_to_string(bench.path("tidegate.toml")).unwrap();
    bench.write("tidegate.toml", &format!("data_dir = \"{}\"\n{host}", disk.path().display()));
    let mut program = bench.run();
    let waits = |report: &Value| {
        let spool = &report["checks"]["eth/spool"];
        let why = spool["reason"].as_str().unwrap_or_default();
        spool["status"] == "degraded" && why.contains("cannot make the folder") && why.contains("trying again in")
    };
    program.until("the pipeline waits for room", waits).await;
    disk.resize("8m,nr_inodes=1000");
    program.until_committed(100).await;
    assert_eq!(program.stop().await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_of_pipelines_alone_and_their_first_line_has_a_rate() {
    let bench = Bench::start(SimulatorConfig { rate: 500.0, ..SimulatorConfig::default() }, "", "").await;
    bench.write("tidegate.toml", "listen = \"127.0.0.1:0\"\n[log]\nstats = \"10s\"\n");
    bench.write("bad.toml", "[pipeline]\nname = \"bad\"\n[source.deribyt]\n[sink.stdout]\n");
    let mut program = bench.run_all();
    program.until_logged("\"stats eth\"").await;
    let log = program.log();
    let stats: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["message"].as_str().is_some_and(|text| text.starts_with("stats ")))
        .collect();
    assert!(stats[0]["received"].as_u64() > Some(0) && stats[0]["per_s"].as_f64() > Some(0.0), "{}", stats[0]);
    assert!(stats.iter().all(|line| line["pipeline"] == "eth"), "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_under_a_new_name_is_told_of_the_spool_that_its_old_one_left() {
    let bench = Bench::start(SimulatorConfig::default(), "", "").await;
    let mut program = bench.run();
    program.until_committed(50).await;
    assert!(!program.log().contains("stray"), "{}", program.log());
    program.stop().await;
    let renamed = bench.pipeline("", "").replace("name = \"eth\"", "name = \"ether\"");
    bench.write("eth.toml", &renamed.replace("eth.sqlite", "ether.sqlite"));
    let mut program = bench.run();
    program.until_logged("`data/eth/spool` is the spool of a pipeline `eth`, which none of the files names").await;
    program.until_logged("healthy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_nobody_can_read_any_more_ends_nothing() {
    let bench = Bench::start(SimulatorConfig { rate: 500.0, ..SimulatorConfig::default() }, "", "").await;
    bench.write("tidegate.toml", "listen = \"127.0.0.1:0\"\n[log]\nlevel = \"error\"\n");
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["run", "eth.toml"])
        .current_dir(bench.folder())
        .env_remove("LOG_LEVEL")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    bench.until_stored(TICKERS, 50).await;
    let pid = child.id().to_string();
    let tell = |signal: &str| assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    tell("-USR1");
    // It goes on storing: the signal came before these.
    let stored = bench.number(TICKERS).await;
    bench.until_stored(TICKERS, stored + 500).await;
    tell("-INT");
    let code = tokio::task::spawn_blocking(move || child.wait().unwrap().code()).await.unwrap();
    assert_eq!(code, Some(0));
}

#[test]
fn a_page_whose_reader_has_read_enough_ends_quietly_and_a_full_disk_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_tidegate");
    for command in ["list", "list deribit", "new deribit sqlite", "schema", "schema --host"] {
        let mut child = Command::new(binary)
            .args(command.split(' '))
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("panicked"), "{command}: {said}");

        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = Command::new(binary).args(command.split(' ')).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command}: {said}");
        assert!(said.contains("error: cannot write to standard output: No space left"), "{command}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_is_looked_into_by_its_pipelines_folder_too() {
    let bench = Bench::start(SimulatorConfig::default(), "", "").await;
    let mut program = bench.run();
    program.until_committed(50).await;
    program.stop().await;
    let said = |folder: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        let output = command.args(["spool", "inspect", folder]).current_dir(bench.folder()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(said("data/eth"), said("data/eth/spool"));
}

const TICKERS: &str = "SELECT count(*) FROM tickers";
