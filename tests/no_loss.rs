//! Nothing that the venue made is lost or doubled: the real program against the simulator over real sockets.
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

mod support;

use std::{
    os::unix::fs::FileExt,
    time::{SystemTime, UNIX_EPOCH},
};

use support::{Bench, History, power::layer};
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
        bench.until_it_hits(&mut program, &fault).await;
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
    let mut tails = [false, true].map(|of_power_cuts| (of_power_cuts, Vec::new()));
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
        for (of_power_cuts, tails) in &mut tails {
            tails.extend(history.tails_ms(&comparison, *of_power_cuts));
        }
    }
    for (of_power_cuts, tails) in &mut tails {
        tails.sort_unstable();
        let what = if *of_power_cuts { "power cut" } else { "kill" };
        println!("from the last frame that is stored to a {what}, in milliseconds: {tails:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_a_year_ahead_and_a_year_back_loses_nothing_and_doubles_nothing() {
    const YEAR: i64 = 365 * 24 * 3_600;
    let bench = Bench::start(SimulatorConfig { rate: 2_000.0, ..SimulatorConfig::default() }, "", "").await;
    // By name: what is chosen by its time to live has none left in a year.
    let all = bench.venue.read(|oracle| oracle.instruments.clone());
    let names: Vec<_> = all.into_iter().take(20).map(|listed| listed.instrument.name).collect();
    let rest = "[spool]\nsegment_bytes = \"256KiB\"\n";
    bench.write("eth.toml", &bench.pipeline(&format!("instruments = {names:?}\n"), rest));
    let Some(library) = layer("clock", bench.folder()) else { return };
    let clock = bench.path("clock");
    let set = |seconds: i64| {
        std::fs::File::options().write(true).open(&clock).unwrap().write_all_at(&seconds.to_le_bytes(), 0)
    };
    std::fs::write(&clock, 0_i64.to_le_bytes()).unwrap();
    let variables = [("LD_PRELOAD", library.to_str().unwrap()), ("CLOCK_FILE", clock.to_str().unwrap())];
    let mut program = bench.run_with(&variables);
    program.until_committed(1_000).await;
    let mut steps = 0;
    for ahead in [YEAR, -YEAR, 0] {
        set(ahead).unwrap();
        // While it runs, over a cut, and over a death.
        steps += 1;
        let log =
            program.until("it goes on", |report| report["checks"]["eth/sink.sqlite"]["rows_committed"].is_u64()).await;
        let rows = log["checks"]["eth/sink.sqlite"]["rows_committed"].as_u64().unwrap();
        program.until_committed(rows + 1_000).await;
        bench.until_it_hits(&mut program, &Fault::Cut).await;
        program.until_committed(rows + 2_000).await;
        program.kill().await;
        program = bench.run_with(&variables);
        program.until_committed(500).await;
    }
    let comparison = bench.settle(&mut program).await;
    comparison.assert_exact(&program.log());
    let ledger = bench.until_ledger(&mut program).await;
    bench.assert_ledger_is_true(&ledger).await;
    assert_eq!(ledger.count("lost"), 0);
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    let stepped = bench.dump().iter().filter(|item| item["control"].get("ClockStep").is_some()).count();
    assert!(stepped >= steps, "{stepped} steps of the clock are in the spool");
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
