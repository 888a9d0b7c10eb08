//! Instruments that are listed, expire and change their rank while the program follows them: the real program against the
//! simulator.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use std::time::Duration;

use support::{
    Bench, busy,
    faulty::{LONG, QUICK, source_of, traded_instruments},
};
use tidegate_sources::deribit::simulator::{Condition, Fault, Oracle, SimulatorConfig};

#[tokio::test(flavor = "multi_thread")]
async fn instruments_come_and_go_without_touching_the_rest() {
    let source = format!("{QUICK}instruments = [{{ currency = \"ETH\", kind = \"option\" }}]\n");
    let bench = Bench::start(SimulatorConfig { instruments: 20, ..busy(500.0) }, &source, "").await;
    let mut program = bench.run();
    program.until_committed(500).await;
    let before = bench.venue.read(Oracle::clone);
    assert_eq!(before.sessions.len(), 1);
    assert_eq!(bench.venue.inject(Fault::List), 1);
    let listed = bench.venue.read(|oracle| oracle.instruments.last().unwrap().instrument.name.clone());
    let gone = before.trades.keys().find(|name| name.ends_with("-C")).unwrap().clone();
    assert!(bench.venue.expire(&gone));
    bench
        .until_oracle(&mut program, "the new one is subscribed to", |oracle| {
            let all = &oracle.sessions[0].subscriptions;
            all.iter().any(|one| one.channel.starts_with(&format!("trades.{listed}.")))
        })
        .await;
    program.until_committed(1_500).await;
    let after = bench.settle(&mut program).await;
    after.assert_exact(&program.log());
    bench.venue.read(|oracle| {
        assert_eq!(oracle.sessions.len(), 1, "the line was not touched");
        for one in before.sessions[0].subscriptions.iter().filter(|one| !one.channel.contains(&gone)) {
            let same: Vec<_> =
                oracle.sessions[0].subscriptions.iter().filter(|other| other.channel == one.channel).collect();
            assert!(same.len() == 1 && same[0].ended.is_none(), "{} was touched", one.channel);
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn every_channel_of_the_venue_fills_its_table() {
    const TABLES: [&str; 7] =
        ["trades", "tickers", "quotes", "book_changes", "book_tops", "index_prices", "instrument_status"];
    let source = format!("{QUICK}channels = {TABLES:?}\n");
    let bench = Bench::start(busy(1_000.0), &source, "").await;
    let mut program = bench.run();
    program.until("all is subscribed", |report| source_of(report)["status"] == "healthy").await;
    assert_eq!(bench.venue.inject(Fault::List), 1);
    for table in TABLES {
        bench.until_number(&mut program, &format!("SELECT count(*) FROM {table}"), 1).await;
    }
    let report = program.next_report().await;
    assert_eq!(source_of(&report)["subscriptions"]["refused"], 0, "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ranked_choice_takes_the_next_one_in_when_one_of_it_expires() {
    let source =
        format!("{QUICK}instruments = [{{ currency = \"ETH\", kind = \"option\", top = 5, refresh = \"10s\" }}]\n");
    let bench = Bench::start(SimulatorConfig { instruments: 20, ..busy(500.0) }, &source, "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    let chosen = bench.venue.read(traded_instruments);
    assert_eq!(chosen.len(), 5, "{chosen:?}");
    assert!(bench.venue.expire(&chosen[0]));
    bench
        .until_oracle(&mut program, "a sixth one is subscribed to", |oracle| traded_instruments(oracle).len() >= 6)
        .await;
    assert_eq!(bench.venue.read(|oracle| oracle.sessions.len()), 1);
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn trades_of_half_the_instruments_that_expire_during_a_cut_are_stored() {
    let bench = Bench::start(busy(500.0), QUICK, "").await;
    let mut program = bench.run();
    program.until_committed(1_000).await;
    let traded = bench.venue.read(traded_instruments);
    let half = &traded[..traded.len() / 2];
    assert!(half.len() >= 10, "{traded:?}");
    bench.venue.inject(Fault::Lasting(Condition::PlainHttp, LONG));
    bench.venue.inject(Fault::Cut);
    for option in half {
        assert!((0..3).all(|_| bench.venue.make_trade(option)));
        assert!(bench.venue.expire(option));
    }
    bench.venue.mend();
    // Only when nobody has subscribed to them for a minute are they taken for gone.
    let made: Vec<String> = bench.venue.read(|oracle| {
        let last = |name| oracle.trades[name].iter().rev().take(3).map(|trade| trade.trade_id());
        half.iter().flat_map(last).collect()
    });
    let query = format!("SELECT count(*) FROM trades WHERE id IN ('{}')", made.join("', '"));
    bench.until_number_within(Duration::from_secs(100), &mut program, &query, made.len() as i64).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    program.until("no gap is left", |report| source_of(report)["gaps"]["open"] == 0).await;
}
