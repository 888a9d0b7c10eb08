//! Nothing that the venue made is lost or doubled: the real program against the simulator over real sockets.
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use support::{Bench, History};
use tidegate_sources::deribit::simulator::{Fault, SimulatorConfig, comparison::Comparison};

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
async fn kills_and_power_cuts_at_any_moment_lose_nothing_double_nothing_and_the_ledger_tells_the_truth() {
    let kills = number("TIDEGATE_KILLS").unwrap_or(21);
    let begin = number("TIDEGATE_SEED")
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 % 1_000_000_000);
    let seeds = number("TIDEGATE_SEEDS").unwrap_or(3);
    println!("TIDEGATE_SEED={begin} TIDEGATE_SEEDS={seeds} TIDEGATE_KILLS={kills}");
    for seed in begin..begin + seeds {
        let mut history = History::start(seed).await;
        while history.kills < kills.div_ceil(seeds) {
            history.live_and_die().await;
        }
        let (mut program, comparison) = history.heal().await;
        let story = || format!("TIDEGATE_SEED={seed} TIDEGATE_SEEDS=1: {:#?}", history.story);
        comparison.assert_exact(&format!("{}\nthe log:\n{}", story(), program.log()));
        let ledger = history.bench.until_ledger(&mut program).await;
        history.bench.assert_ledger_is_true(&ledger).await;
        assert_eq!(ledger.count("lost"), 0, "{}", story());
        let (code, log) = program.stop().await;
        assert_eq!(code, 0, "{}\n{log}", story());
        println!("{}", summary(seed, &history, &comparison));
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|number| number.parse().ok())
}

fn summary(seed: u64, history: &History, comparison: &Comparison) -> String {
    let History { kills, cuts, taken, .. } = history;
    let Comparison { trades, tickers, quotes, books, .. } = comparison;
    format!(
        "seed {seed}: {kills} deaths, {cuts} of them power cuts that took back {} pages and {} names; {} trades owed, {} by \
         REST, {} tickers, {} quotes, {} book messages stored, {} in flight at cuts and deaths",
        taken.pages,
        taken.names,
        trades.made,
        trades.by_rest,
        tickers.stored,
        quotes.stored,
        books.stored,
        tickers.in_flight + quotes.in_flight + books.in_flight,
    )
}
