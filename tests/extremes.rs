//! The same promises where there is much of it: a storm of reconnects, an outage that makes the spool far larger than the
//! memory, ten thousand streams.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use std::{fs, time::Duration};

use serde_json::Value;
use support::{
    Bench, Program, busy,
    faulty::{LONG, QUICK, source_of},
};
use tidegate_sources::deribit::simulator::{Condition, Fault, Oracle, SimulatorConfig};

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_reconnects_with_a_slow_api_loses_no_trade_and_asks_no_more_than_the_venue_takes() {
    const CUTS: usize = 30;
    let bench = Bench::start(busy(2_000.0), QUICK, "").await;
    let mut program = bench.run();
    program.until_committed(500).await;
    // Later than a call may take is never; this is late, and within that.
    bench.venue.inject(Fault::Lasting(Condition::Slow { by: Duration::from_millis(300) }, LONG));
    for cuts in 1..=CUTS {
        assert!(bench.venue.inject(Fault::Cut) > 0);
        // Cut again as soon as anything is subscribed to, each third time as soon as it is connected.
        let is_next = |oracle: &Oracle| {
            let session = oracle.sessions.get(cuts);
            session.is_some_and(|session| cuts % 3 == 0 || !session.subscriptions.is_empty())
        };
        bench.until_oracle(&mut program, "it is back", is_next).await;
    }
    let comparison = bench.settle(&mut program).await;
    comparison.assert_exact(&program.log());
    assert!(comparison.trades.by_rest > 0, "{comparison:?}");
    let report = program.until("no gap is left", |report| source_of(report)["gaps"]["open"] == 0).await;
    assert_eq!(source_of(&report)["gaps"]["lost"], 0, "{report:#}");
    assert_eq!(refused(&mut program).await, 0.0, "{}", program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_store_costs_disk_and_no_memory_and_loses_nothing() {
    // What matters of two hours is that the spool grows far beyond what may wait in memory, over many segments.
    const EARLY: usize = 16;
    const LATE: usize = 56;
    let source = "queue = \"2MiB\"\nchannels = [\"trades\", \"tickers\", \"book_changes\"]\n\
                  instruments = [{ currency = \"ETH\", kind = \"option\" }]\n";
    let bench = Bench::start(busy(2_500.0), source, "").await.at("store/eth.sqlite");
    bench.write("store", "in the way");
    bench.write("eth.toml", &bench.pipeline(source, "[spool]\nsegment_bytes = \"256KiB\"\n"));
    let mut program = bench.run();
    program.until("some segments", |_| segments(&bench) >= EARLY).await;
    let before = resident(&program);
    program.until("many segments", |_| segments(&bench) >= LATE).await;
    let after = resident(&program);
    let spooled = (LATE - EARLY) as u64 * (256 << 10);
    assert!(after < before + spooled / 2, "{before} bytes of memory became {after} while {spooled} were spooled");

    // A program that is built for debugging stores hardly faster than this venue sends.
    bench.venue.freeze();
    fs::remove_file(bench.path("store")).unwrap();
    bench.until_complete(&mut program).await.assert_exact(&program.log());
    bench.venue.resume();
    let rows = bench.number("SELECT count(*) FROM tickers").await;
    bench.until_number(&mut program, "SELECT count(*) FROM tickers", rows + 1_000).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_streams_survive_cuts_and_kill_9_within_bounded_memory() {
    let config = SimulatorConfig { instruments: 3_300, credits: 100.0, ..busy(500.0) };
    let all = "channels = [\"tickers\", \"quotes\", \"book_changes\"]\n\
               instruments = [{ currency = \"ETH\", kind = \"option\" }]\n";
    let bench = Bench::start(config, all, "").await;
    // Where each stream of trades begins is asked for one by one, so these are fewer.
    let (ws, http) = (bench.venue.ws_url(), bench.venue.http_url());
    let few = format!(
        "[source.few]\ntype = \"deribit\"\nendpoint = {{ ws = \"{ws}\", http = \"{http}\" }}\nchannels = [\"trades\"]\n\
         instruments = [{{ currency = \"ETH\", kind = \"option\", top = 120 }}]\n\
         reconnect = {{ first = \"20ms\", longest = \"300ms\" }}\n"
    );
    bench.write("eth.toml", &bench.pipeline(all, &few));
    let mut program = bench.run();
    until_caught_up(&bench, &mut program).await;
    assert!(bench.venue.inject(Fault::Cut) > 1);
    until_caught_up(&bench, &mut program).await;
    program.kill().await;
    let mut program = bench.run();
    until_subscribed(&mut program).await;
    assert!(resident(&program) < 256 << 20, "{} bytes of memory", resident(&program));
    let comparison = bench.settle(&mut program).await;
    comparison.assert_exact(&program.log());
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    let streams = bench.dump().iter().filter(|item| item["control"].get("Stream").is_some()).count();
    println!("{streams} streams; {comparison:?}");
}

async fn until_subscribed(program: &mut Program) {
    let is_well = |report: &Value| {
        let sources = ["eth/source.deribit", "eth/source.few"].map(|name| &report["checks"][name]);
        sources.iter().all(|source| source["subscribed"] == true)
    };
    program.until("all is subscribed", is_well).await;
}

/// Waits until all is subscribed and nothing waits in the sockets: a program that is built for debugging takes longer with the
/// beginnings of so many than what is taken for in flight.
async fn until_caught_up(bench: &Bench, program: &mut Program) {
    until_subscribed(program).await;
    bench.venue.freeze();
    bench.venue.settle().await;
    let comparison = bench.until_complete(program).await;
    assert_eq!(comparison.tickers.holes + comparison.quotes.holes + comparison.books.holes, 0, "{comparison:#?}");
    bench.venue.resume();
}

/// Returns how many HTTP calls the venue has refused for being too many.
async fn refused(program: &mut Program) -> f64 {
    let (_, text) = program.get("/metrics").await;
    let lines = text
        .lines()
        .filter(|line| line.starts_with("tidegate_rest_requests_total{") && line.contains("outcome=\"rate_limited\""));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// Returns how many segments lie in the spool.
fn segments(bench: &Bench) -> usize {
    let Ok(found) = fs::read_dir(bench.path("data/eth/spool")) else { return 0 };
    found.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|end| end == "seg")).count()
}

/// Returns how many bytes of memory the program holds.
fn resident(program: &Program) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}
