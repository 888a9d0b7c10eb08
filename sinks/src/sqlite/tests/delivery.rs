//! The delivery driver with SQLite behind it: removed files, kills, and the balance.

use std::{path::Path, sync::Arc, time::Duration};

use tidegate_core::{
    config::{Commands, DeliveryConfig, OnConflict, Start, WhenFull},
    delivery::{Delivery, Outcome, Setup},
    health::Registry,
    row::kinds::{Quote, Trade},
    sink::Sink,
    table::Derived,
};
use tokio::{sync::watch, time::Instant};

use super::{super::sink::Sqlite, Bench};

#[tokio::test(flavor = "multi_thread")]
async fn after_kills_at_any_moment_every_row_is_there_once() {
    let bench = Bench::new();
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
async fn a_file_that_is_removed_between_two_runs_is_no_fresh_start() {
    let bench = Bench::new();
    bench.trades(10);
    assert_eq!(to_the_end(&bench).await.failure, None);
    std::fs::remove_file(bench.path()).unwrap();
    let why = to_the_end(&bench).await.failure.expect("a person has to look");
    assert!(why.contains("store: none") && why.contains("last known beside the spool: 10"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_the_file_is_fed_again() {
    let bench = Bench::new();
    bench.trades(10);
    to_the_end(&bench).await;
    let copy = bench.directory.path().join("copy");
    std::fs::copy(bench.path(), &copy).unwrap();
    bench.trades(10);
    to_the_end(&bench).await;
    std::fs::rename(&copy, bench.path()).unwrap();
    let outcome = to_the_end(&bench).await;
    assert_eq!(outcome.failure, None);
    assert_eq!(bench.number("SELECT count(DISTINCT seq) FROM trades").await, 20);
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_spool_on_another_host_writes_nothing() {
    let bench = Bench::new();
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
    let mut bench = Bench::new();
    bench.key("trades", OnConflict::Refuse, &["id"]);
    for n in 0..500 {
        let id = (n % 400).to_string();
        let price = if n % 100 == 7 { f64::NAN } else { 1.0 };
        bench.trade(&Trade { price, id: Some(&id), ..Trade::default() });
    }
    let outcome = to_the_end(&bench).await;
    let balance = outcome.balance.unwrap();
    let stored = bench.number("SELECT count(*) FROM trades").await.cast_unsigned();
    let letters = tidegate_core::deadletter::list(&bench.directory.path().join("sinks/sqlite/dead-letters.jsonl"));
    let letters = letters.unwrap().letters.len() as u64;
    assert!(balance.is_even());
    assert_eq!((balance.fates.delivered, balance.fates.refused), (stored, letters));
    assert_eq!(stored + letters, 500);
    // Five rows are NaN, one of them among the hundred repeats.
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
    let config = bench.config.clone();
    let directory: &Path = bench.directory.path();
    let mut delivery = DeliveryConfig { start: Start::Earliest, ..DeliveryConfig::default() };
    delivery.batch.rows = std::num::NonZeroUsize::new(30).unwrap();
    delivery.retry.first = tidegate_core::config::Duration::from_millis(1);
    let setup = Setup {
        pipeline: "test".to_owned(),
        sink: "sqlite".to_owned(),
        factory: Arc::new(move || Ok(Box::new(Sqlite::new(config.clone())) as Box<dyn Sink>)),
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
