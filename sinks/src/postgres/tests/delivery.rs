//! The delivery driver with Postgres behind it: kills of ours and of the server's, restored stores, and the balance.

use std::{path::Path, sync::Arc, time::Duration};

use tidegate_core::{
    config::{Commands, DeliveryConfig, OnConflict, Start, WhenFull},
    delivery::{Delivery, Outcome, Setup},
    health::Registry,
    row::{
        Table,
        kinds::{Quote, Trade},
    },
    sink::Sink,
    table::Derived,
};
use tokio::{sync::watch, time::Instant};

use super::{
    super::sink::Postgres,
    Bench,
    proxy::{Cut, Proxy},
    server,
};

#[tokio::test(flavor = "multi_thread")]
async fn after_kills_at_any_moment_every_row_is_there_once() {
    let bench = Bench::new().await;
    let mut random = 7_u64;
    for _ in 0..40 {
        for _ in 0..50 {
            bench.trade(&Trade { price: 1.0, ..Trade::default() });
            bench.quote(&Quote::default());
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let until = Duration::from_micros(random >> 32 & 0x1fff);
        let (_stop, running) = start(&bench, "here");
        // Dropped wherever it stands: like kill -9, but for the bytes that were not written.
        drop(tokio::time::timeout(until, running).await);
    }
    let outcome = to_the_end(&bench).await;
    assert_eq!((outcome.failure, outcome.rows_left), (None, 0));
    assert!(outcome.balance.unwrap().is_even());
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 2_000);
    assert_eq!(bench.number("SELECT count(DISTINCT seq) FROM trades").await, 2_000);
    assert_eq!(bench.number("SELECT count(*) FROM quotes").await, 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_killed_frozen_and_cut_off_every_row_is_there_once() {
    let mut server = server().await;
    let mut bench = Bench::at(server.url(), vec![Table::of::<Trade<'_>>(), Table::of::<Quote>()]);
    bench.settings.connect_timeout = tidegate_core::config::Duration::from_millis(500);
    let proxy = Proxy::to(server.url()).await;
    bench.settings.url = tidegate_core::config::Secret::new(proxy.url());
    let (stop, running) = start(&bench, "here");
    let running = tokio::spawn(running);
    for round in 0..12 {
        for _ in 0..100 {
            bench.trade(&Trade { price: 1.0, ..Trade::default() });
            bench.quote(&Quote::default());
        }
        match round % 4 {
            0 => {
                server.kill();
                server.restart();
            }
            1 => proxy.cut(Cut::AtCommit),
            2 => {
                server.freeze();
                server.thaw();
            }
            _ => proxy.cut(Cut::AfterCommit),
        }
        // Some of it is stored before the next blow.
        let reached = format!("SELECT (SELECT count(*) FROM trades) >= {}", round * 100);
        until(&format!("round {round}"), || async { bench.try_text(&reached).await.as_deref() == Some("true") }).await;
    }
    stop.send_replace(Some(Instant::now() + Duration::from_secs(60)));
    let outcome = running.await.unwrap();
    assert_eq!((outcome.failure, outcome.rows_left), (None, 0));
    assert!(outcome.balance.unwrap().is_even());
    assert!(proxy.cuts() > 0);
    for sql in ["count(*) FROM trades", "count(DISTINCT seq) FROM trades", "count(*) FROM quotes"] {
        assert_eq!(bench.number(&format!("SELECT {sql}")).await, 1_200, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_is_deleted_between_two_runs_is_no_fresh_start() {
    let bench = Bench::new().await;
    bench.trades(10);
    assert_eq!(to_the_end(&bench).await.failure, None);
    bench.run("TRUNCATE tidegate_position").await;
    let why = to_the_end(&bench).await.failure.expect("a person has to look");
    assert!(why.contains("store: none") && why.contains("last known beside the spool: 10"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_restored_from_a_backup_is_fed_again() {
    let bench = Bench::new().await;
    bench.trades(10);
    to_the_end(&bench).await;
    bench.run("CREATE TABLE backup AS TABLE trades; CREATE TABLE position AS TABLE tidegate_position").await;
    bench.trades(10);
    to_the_end(&bench).await;
    let restore = "TRUNCATE trades, tidegate_position; INSERT INTO trades TABLE backup; INSERT INTO tidegate_position TABLE position";
    bench.run(restore).await;
    let outcome = to_the_end(&bench).await;
    assert_eq!(outcome.failure, None);
    assert_eq!(bench.number("SELECT count(DISTINCT seq) FROM trades").await, 20);
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_spool_on_another_host_writes_nothing() {
    let bench = Bench::new().await;
    bench.trades(10);
    assert_eq!(to_the_end(&bench).await.failure, None);
    // The copy is of an earlier moment, and went on in its own way.
    bench.log.restore(5);
    bench.log.reboot();
    bench.trades(10);
    std::fs::remove_dir_all(bench.directory.path().join("sinks")).unwrap();
    let why = to_the_end_on(&bench, "elsewhere").await.failure.expect("a person has to look");
    assert!(why.contains("another history") && why.contains("store: ") && why.contains("spool: behind"), "{why}");
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rows_are_dead_letters_and_the_balance_is_even() {
    let mut bench = Bench::new().await;
    bench.key("trades", OnConflict::Refuse, &["id"]);
    for n in 0..500 {
        let id = (n % 400).to_string();
        let text = if n % 100 == 7 { "a\0b" } else { "fine" };
        bench.trade(&Trade { id: Some(&id), block_trade_id: Some(text), ..Trade::default() });
    }
    let outcome = to_the_end(&bench).await;
    let balance = outcome.balance.unwrap();
    let stored = bench.number("SELECT count(*) FROM trades").await.cast_unsigned();
    let letters = tidegate_core::deadletter::list(&bench.directory.path().join("sinks/postgres/dead-letters.jsonl"));
    let letters = letters.unwrap().letters.len() as u64;
    assert!(balance.is_even());
    assert_eq!((balance.fates.delivered, balance.fates.refused), (stored, letters));
    assert_eq!(stored + letters, 500);
    // Five rows have a NUL, one of them among the hundred repeats.
    assert_eq!(letters, 5 + 99);
}

pub(super) async fn to_the_end(bench: &Bench) -> Outcome {
    to_the_end_on(bench, "here").await
}

async fn to_the_end_on(bench: &Bench, host: &str) -> Outcome {
    let (stop, running) = start(bench, host);
    stop.send_replace(Some(Instant::now() + Duration::from_secs(60)));
    running.await
}

fn start(bench: &Bench, host: &str) -> (watch::Sender<Option<Instant>>, impl Future<Output = Outcome> + use<>) {
    let (stop, stopping) = watch::channel(None);
    let config = bench.settings.clone();
    let directory: &Path = bench.directory.path();
    let mut delivery = DeliveryConfig { start: Start::Earliest, ..DeliveryConfig::default() };
    delivery.batch.rows = std::num::NonZeroUsize::new(30).unwrap();
    delivery.retry.first = tidegate_core::config::Duration::from_millis(1);
    delivery.retry.longest = tidegate_core::config::Duration::from_millis(100);
    delivery.breaker.open_for = tidegate_core::config::Duration::from_millis(50);
    let setup = Setup {
        pipeline: "test".to_owned(),
        sink: "postgres".to_owned(),
        factory: Arc::new(move || Ok(Box::new(Postgres::new(config.clone())) as Box<dyn Sink>)),
        config: delivery,
        tables: bench.choice(),
        derived: Derived::default(),
        sources: vec![bench.log.source()],
        spool: 1,
        host: host.to_owned(),
        directory: directory.join("sinks"),
        log: bench.log.clone(),
        synced: bench.log.synced(),
        stop: stopping,
        when_full: WhenFull::Block,
        others: Default::default(),
        health: Registry::new(),
        commands: Commands::default(),
    };
    (stop, Delivery::new(setup).unwrap().0.run())
}

/// Waits for a condition, for a minute.
async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(Instant::now() < deadline, "it never came: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
