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
