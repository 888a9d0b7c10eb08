//! What a store has accepted and not yet made durable.

use std::time::Duration;

use tokio::time::Instant;

use super::{bench::Bench, quote, store::Fault, trade};
use crate::{
    health::Status,
    spool::{Boot, SpoolPosition},
};

#[tokio::test(start_paused = true)]
async fn what_is_only_accepted_is_not_committed() {
    let bench = Bench::new();
    bench.store.lock().unwrap().is_lazy = true;
    for n in 1..=12 {
        trade(&bench.log, n);
    }
    let running = bench.start();
    bench.until(|| bench.store.lock().unwrap().rows.len() == 12).await;
    assert_eq!(bench.floor(&running).committed, None, "nothing is durable yet");

    bench.store.lock().unwrap().applied = Some(SpoolPosition { boot: Boot(1), offset: 7 });
    bench.until(|| bench.floor(&running).committed.is_some_and(|at| at.offset == 5)).await;
    bench.store.lock().unwrap().applied = Some(SpoolPosition { boot: Boot(1), offset: 12 });
    bench.until(|| bench.floor(&running).committed.is_some_and(|at| at.offset == 12)).await;
    let outcome = running.stop().await;
    assert_eq!(outcome.balance.unwrap().fates.delivered, 12);
}

#[tokio::test(start_paused = true)]
async fn any_number_of_chunks_is_accepted_and_counts_together() {
    let bench = Bench::new();
    bench.store.lock().unwrap().is_lazy = true;
    for n in 1..=500 {
        trade(&bench.log, n);
    }
    let running = bench.start();
    bench.until(|| bench.store.lock().unwrap().rows.len() == 500).await;
    assert!(bench.store.lock().unwrap().chunks.len() >= 100, "chunks of five rows");
    assert_eq!(bench.floor(&running).committed, None, "the spool keeps all of it");

    bench.store.lock().unwrap().applied = Some(SpoolPosition { boot: Boot(1), offset: 500 });
    bench.until(|| bench.floor(&running).committed.is_some_and(|at| at.offset == 500)).await;
    let outcome = running.stop().await;
    let balance = outcome.balance.unwrap();
    assert!(balance.is_even() && balance.fates.delivered == 500, "{balance:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_accepted_is_life_and_shown_as_such() {
    let bench = Bench::new();
    bench.store.lock().unwrap().is_lazy = true;
    let running = bench.start();
    trade(&bench.log, 1);
    bench.until(|| bench.store.lock().unwrap().rows.len() == 1).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(bench.status(), Some(Status::Healthy));
    let report = bench.health.report();
    let check = &report.checks["test/sink.memory"];
    assert_eq!(check.status, Status::Healthy, "an hour until the rename is no fault: {}", check.reason);
    assert!(check.reason.contains("stay in the spool"), "{}", check.reason);
    let crate::health::Detail::Sink(sink) = &check.detail else { panic!("not a sink") };
    assert_eq!((sink.rows_accepted, sink.rows_committed, sink.committed_or_idle), (1, 0, true));
    assert!(sink.oldest_uncommitted_seconds.is_some_and(|seconds| seconds > 3_599.0));

    // The store loses what it had only accepted: it is given again, and has waited since it came.
    bench.store.lock().unwrap().faults.push_back(Fault::Before);
    trade(&bench.log, 2);
    bench.until(|| bench.store.lock().unwrap().rows.len() == 2).await;
    let report = bench.health.report();
    let crate::health::Detail::Sink(sink) = &report.checks["test/sink.memory"].detail else { panic!("not a sink") };
    assert!(sink.oldest_uncommitted_seconds.is_some_and(|seconds| seconds > 3_599.0), "{sink:?}");

    bench.apply();
    bench.until(|| bench.stored() == 2 && bench.floor(&running).committed.is_some()).await;
    let reason = bench.health.report().checks["test/sink.memory"].reason.clone();
    assert!(reason.contains("durable") && !reason.contains("stay"), "{reason}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_stop_makes_durable_what_was_accepted_and_ends_at_once() {
    let bench = Bench::new();
    bench.store.lock().unwrap().is_lazy = true;
    for n in 1..=12 {
        trade(&bench.log, n);
    }
    let running = bench.start();
    bench.until(|| bench.store.lock().unwrap().rows.len() == 12).await;
    let began = Instant::now();
    let outcome = running.stop_within(Duration::from_secs(600)).await;
    assert!(began.elapsed() < Duration::from_secs(1), "it did not wait for its deadline");
    assert_eq!((outcome.balance.unwrap().fates.delivered, outcome.rows_left), (12, 0));
    assert_eq!(bench.known().map(|known| known.offset), Some(12));

    let bench = Bench::new();
    {
        let mut store = bench.store.lock().unwrap();
        (store.is_lazy, store.fails_to_close) = (true, true);
    }
    trade(&bench.log, 1);
    let running = bench.start();
    bench.until(|| bench.store.lock().unwrap().rows.len() == 1).await;
    let outcome = running.stop().await;
    assert_eq!((outcome.balance.map_or(0, |balance| balance.fates.delivered), outcome.rows_left), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_feed_of_filtered_rows_moves_the_position_as_seldom_as_a_quiet_one_while_something_is_accepted() {
    let bench = Bench::new().tables(r#"["trades"]"#);
    bench.store.lock().unwrap().is_lazy = true;
    trade(&bench.log, 1);
    let running = bench.start();
    bench.until(|| bench.store.lock().unwrap().writes == 1).await;
    for n in 2..=100 {
        quote(&bench.log, n);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let writes = bench.store.lock().unwrap().writes;
    assert!((8..=12).contains(&writes), "{writes} writes in 99 seconds");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_never_rests_is_asked_what_is_durable() {
    let bench = Bench::new();
    bench.store.lock().unwrap().is_lazy = true;
    let running = bench.start();
    let mut made = 0;
    while bench.floor(&running).committed.is_none() {
        made += 1;
        assert!(made < 10_000, "nothing was ever committed");
        trade(&bench.log, made);
        bench.apply();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    running.stop().await;
}
