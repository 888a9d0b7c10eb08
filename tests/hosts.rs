//! What the machine around the program does to its calls: a proxy in the environment, and a venue that counts connections.
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

mod support;

use std::path::Path;

use support::{Bench, PATIENCE, Program};
use tidegate::http::MOST_AT_ONCE;
use tidegate_sources::deribit::simulator::SimulatorConfig;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_in_the_environment_is_not_asked() {
    let bench = Bench::start(SimulatorConfig::default(), "", "").await;
    let nobody = "http://127.0.0.1:9";
    let proxies = [("HTTP_PROXY", nobody), ("http_proxy", nobody), ("ALL_PROXY", nobody), ("HTTPS_PROXY", nobody)];
    let program = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    let mut program =
        Program::start_with(program, bench.folder(), &["run", "eth.toml", "--supervised", "50ms"], &proxies);
    program.until_committed(100).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_certificates_that_holds_none_stops_the_source_and_is_named() {
    let bench = Bench::start(SimulatorConfig::default(), "extra_ca = \"own.pem\"\n", "").await;
    bench.write("own.pem", "no certificate");
    let mut program = bench.run();
    let report = program
        .until("the source has failed", |report| report["checks"]["eth/source.deribit"]["status"] == "failed")
        .await;
    let why = report["checks"]["eth/source.deribit"]["reason"].as_str().unwrap();
    assert!(why.contains("`extra_ca`: `own.pem`"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_share_the_connections_and_the_rate_that_a_venue_allows_a_machine() {
    const PIPELINES: usize = 12;
    // Two to find the instruments, and one for each of 20 to learn what was traded before; the venue takes 100 at once.
    const CALLS: f64 = 150.0;
    // One for each pipeline, and one for each call that may be out at once. As many again lie idle: where a connection that
    // was used is not back yet when the next call begins, the HTTP client opens another, and takes what comes first.
    let connections = PIPELINES + 2 * MOST_AT_ONCE;
    let config = SimulatorConfig { connections, paused: true, ..SimulatorConfig::default() };
    let bench = Bench::start(config, "", "").await;
    for number in 1..PIPELINES {
        let name = format!("p{number}");
        let pipeline = bench.pipeline("", "");
        let pipeline = pipeline.replace("name = \"eth\"", &format!("name = \"{name}\""));
        bench.write(&format!("{name}.toml"), &pipeline.replace("eth.sqlite", &format!("{name}.sqlite")));
    }
    let mut program = bench.run_all();
    program
        .until("all are subscribed", |report| {
            let Some(checks) = report["checks"].as_object() else { return false };
            let sources = checks.iter().filter(|(name, _)| name.contains("source.deribit"));
            sources.filter(|(_, check)| check["status"] == "healthy").count() == PIPELINES
        })
        .await;
    let deadline = Instant::now() + PATIENCE;
    while calls(&mut program, "ok").await < CALLS {
        assert!(Instant::now() < deadline, "{} calls; the log:\n{}", calls(&mut program, "ok").await, program.log());
        program.next_report().await;
    }
    assert_eq!(calls(&mut program, "rate_limited").await, 0.0, "{}", program.log());
    assert!(!program.log().contains("closed with 429"), "{}", program.log());
}

/// Returns how many HTTP calls have ended so.
async fn calls(program: &mut Program, outcome: &str) -> f64 {
    let (_, text) = program.get("/metrics").await;
    let outcome = format!("outcome=\"{outcome}\"");
    let lines =
        text.lines().filter(|line| line.starts_with("tidegate_rest_requests_total{") && line.contains(&outcome));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}
