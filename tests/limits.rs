//! How many files and connections the process may have, and what it does when there are no more.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use std::{fs, path::Path};

use serde_json::Value;
use support::{Bench, PATIENCE, Program, busy};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::Instant};

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_descriptors_is_raised_as_far_as_the_system_allows() {
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = limited(&bench, "ulimit -Sn 48");
    program.until_committed(100).await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", program.id())).unwrap();
    let open_files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let [soft, hard, ..] = *open_files.split_whitespace().collect::<Vec<_>>() else { panic!("{open_files}") };
    assert_eq!(soft, hard);
    assert!(soft == "unlimited" || soft.parse::<u64>().unwrap() > 48, "{soft}");
    assert!(!program.log().contains("limited to"), "{}", program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_descriptors_are_told_at_the_start_with_numbers_and_health_is_degraded_when_there_are_no_more() {
    let bench = Bench::start(busy(500.0), "", "").await;
    for number in 1..10 {
        let text = bench.pipeline("", "").replace("name = \"eth\"", &format!("name = \"eth{number}\""));
        bench.write(&format!("eth{number}.toml"), &text.replace("eth.sqlite", &format!("eth{number}.sqlite")));
    }
    let mut program = limited(&bench, "ulimit -n 64");
    program.until_logged("limited     to 64 files and connections, and 10 pipelines need about ").await;
    program.until_logged("ulimit -Hn").await;
    // Whoever asks is answered all the same.
    let deadline = Instant::now() + PATIENCE;
    let report = loop {
        assert!(Instant::now() < deadline, "never degraded; the log:\n{}", program.log());
        let (_, body) = program.get("/health").await;
        let report: Value = serde_json::from_str(&body).unwrap();
        if report["checks"]["host.descriptors"]["status"] == "degraded" {
            break report;
        }
    };
    let reason = report["checks"]["host.descriptors"]["reason"].as_str().unwrap();
    assert!(reason.contains("the process may have 64") && reason.contains("LimitNOFILE"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_request_a_thousand_times_takes_no_descriptor_from_the_pipelines_and_not_the_address() {
    const LIMIT: usize = 144;
    let bench = Bench::start(busy(500.0), "", "").await;
    let mut program = limited(&bench, &format!("ulimit -n {LIMIT}"));
    program.until_committed(100).await;
    let address = program.address().await;
    let mut halves = Vec::new();
    for _ in 0..LIMIT {
        let mut half = TcpStream::connect(&address).await.unwrap();
        half.write_all(b"GET /health HTTP/1.1\r\nHost: ").await.unwrap();
        halves.push(half);
    }
    let committed = |report: &Value| report["checks"]["eth/sink.sqlite"]["rows_committed"].as_u64().unwrap();
    let before = committed(&program.next_report().await);
    program.until("rows are stored as before", |report| committed(report) > before + 500).await;
    let open = fs::read_dir(Path::new("/proc").join(program.id().to_string()).join("fd")).unwrap().count();
    assert!(open < LIMIT, "{open}");
    // They are not waited for for long.
    assert_eq!(program.get("/health/live").await, (200, "{\"live\":true}".to_owned()));
    let (status, body) = program.get("/health").await;
    assert_eq!(status, 200, "{body}");
    let health: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(health["status"], "healthy", "{health:#}");
    assert!(health["checks"]["host.descriptors"].is_null(), "{health:#}");
    drop(halves);
}

/// Runs the program on every pipeline of the folder, under limits that the shell sets.
fn limited(bench: &Bench, limits: &str) -> Program {
    let run = format!("{limits}; exec '{}' run . --supervised 50ms", env!("CARGO_BIN_EXE_tidegate"));
    Program::start_as(Path::new("/bin/sh"), bench.folder(), &["-c", &run])
}
