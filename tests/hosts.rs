//! What the machine around the program does to its calls: a proxy in the environment, and a venue that counts connections.
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

mod support;

use std::path::Path;

use serde_json::Value;
use support::{Bench, Program};
use tidegate::http::MOST_AT_ONCE;
use tidegate_sources::deribit::simulator::SimulatorConfig;

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
    // One connection for each pipeline, and the calls that may be out at once.
    const PIPELINES: usize = 12;
    let config = SimulatorConfig { connections: PIPELINES + MOST_AT_ONCE, ..SimulatorConfig::default() };
    let bench = Bench::start(config, "", "").await;
    for number in 1..PIPELINES {
        let name = format!("p{number}");
        let pipeline = bench.pipeline("", "");
        let pipeline = pipeline.replace("name = \"eth\"", &format!("name = \"{name}\""));
        bench.write(&format!("{name}.toml"), &pipeline.replace("eth.sqlite", &format!("{name}.sqlite")));
    }
    let mut program = bench.run_all();
    program
        .until("all have found their channels and what was traded before", |report| {
            let Some(checks) = report["checks"].as_object() else { return false };
            let sources = checks.iter().filter(|(name, _)| name.contains("source.deribit"));
            let is_done = |check: &Value| {
                check["status"] == "healthy"
                    && check["gaps"]["open"] == 0
                    && check["gaps"]["filled"].as_u64() >= Some(20)
            };
            sources.filter(|(_, check)| is_done(check)).count() == PIPELINES
        })
        .await;
    let log = program.log();
    let refusals = ["answered with 429", "closed with 429"];
    assert!(refusals.iter().all(|refusal| !log.contains(refusal)), "{log}");
}
