//! Nothing that the venue made is lost or doubled: the real program against the simulator over real sockets.
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

mod support;

use std::time::Duration;

use support::Bench;
use tidegate_sources::deribit::simulator::{Fault, Faults, SimulatorConfig};

#[tokio::test(flavor = "multi_thread")]
async fn everything_made_from_the_first_confirmation_on_is_stored_once() {
    let bench = Bench::start(SimulatorConfig { rate: 1_000.0, ..SimulatorConfig::default() }, "", "").await;
    let mut program = bench.run();
    program.until_committed(2_000).await;
    let comparison = bench.settle(&mut program).await;
    comparison.assert_exact(&program.log());
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_line_loses_no_trade() {
    let bench = Bench::start(SimulatorConfig { rate: 1_000.0, ..SimulatorConfig::default() }, "", "").await;
    let mut program = bench.run();
    let mut committed = 0;
    for fault in [Fault::Cut, Fault::Torn, Fault::Close { code: 1001 }, Fault::Skip, Fault::Reorder, Fault::Duplicate] {
        committed += 1_000;
        program.until_committed(committed).await;
        assert!(bench.venue.inject(fault.clone()) > 0, "{fault:?} hit nobody");
    }
    program.until_committed(committed + 500).await;
    let comparison = bench.settle(&mut program).await;
    comparison.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_repeat_is_said_after_a_stop_and_after_a_kill() {
    let bench = Bench::start(SimulatorConfig { rate: 1_000.0, ..SimulatorConfig::default() }, "", "").await;
    let mut program = bench.run();
    program.until_committed(500).await;
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    let pipeline = bench.pipeline("", "");
    for is_killed in [false, true] {
        let away = std::time::Instant::now();
        if is_killed {
            // A start that comes to nothing, and is killed too.
            bench.write("eth.toml", &pipeline.replace(&bench.venue.http_url(), "http://127.0.0.1:9"));
            let mut program = bench.run();
            program.until_logged("discovery").await;
            program.kill().await;
            bench.write("eth.toml", &pipeline);
        }
        // Nobody listens until the venue has made some more.
        let made = bench.venue.read(|oracle| oracle.trades_made);
        while bench.venue.read(|oracle| oracle.trades_made) < made + 50 {
            tokio::task::yield_now().await;
        }
        let away = away.elapsed();
        let mut program = bench.run();
        program.until_logged("tickers of that time are not repeatable").await;
        let missed = |report: &serde_json::Value| {
            report["checks"]["eth/source.deribit"]["gaps"]["unrepeatable_seconds"].as_f64().unwrap_or(0.0)
        };
        let report = program.until("it is in health", |report| missed(report) > 0.0).await;
        assert!(missed(&report) >= away.as_secs_f64(), "{} s of {away:?}; {}", missed(&report), program.log());
        program.until_committed(500).await;
        if is_killed {
            bench.settle(&mut program).await.assert_exact(&program.log());
        } else {
            program.kill().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tickers_that_are_not_stored_are_holes_unless_they_were_in_flight() {
    let bench = Bench::start(SimulatorConfig { rate: 1_000.0, ..SimulatorConfig::default() }, "", "").await;
    let mut program = bench.run();
    program.until_committed(1_000).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    let mut stored = support::Stored::read(&bench.database()).await;
    let volumes = stored.tickers.len();
    let holes =
        |stored: &support::Stored| bench.venue.read(|oracle| support::Comparison::of(oracle, stored).holes.len());
    let newest = stored.tickers.keys().next_back().unwrap().clone();
    stored.tickers.remove(&newest);
    assert_eq!(holes(&stored), 1, "the line is up: the last one is owed too");
    stored.tickers.clear();
    assert_eq!(holes(&stored), volumes, "all of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_at_any_moment_loses_nothing_and_doubles_nothing() {
    let kills: u64 = std::env::var("TIDEGATE_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let seed: u64 = std::env::var("TIDEGATE_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
    });
    println!("TIDEGATE_SEED={seed} TIDEGATE_KILLS={kills}");
    let faults = Faults::parse("cut=12/m,malformed=6/m,duplicate=20/m,reorder=20/m,skip=10/m").unwrap();
    let config = SimulatorConfig { rate: 2_000.0, seed, faults, ..SimulatorConfig::default() };
    let bench = Bench::start(config, "", "").await;
    let mut random = seed;
    for _ in 0..kills {
        let program = bench.run();
        // Any moment: before the spool is open, in the middle of a handshake, of a backfill, of a commit.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        tokio::time::sleep(Duration::from_millis(20 + (random >> 33) % 900)).await;
        program.kill().await;
    }
    let mut program = bench.run();
    program.until_committed(1_000).await;
    let comparison = bench.settle(&mut program).await;
    comparison.assert_exact(&program.log());
    println!("{} trades owed over {kills} kills, none missing, none twice", comparison.owed);
}
