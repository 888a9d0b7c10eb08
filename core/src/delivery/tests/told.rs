//! What health says of a store: its probes, whose it is, what it promises less, what keys make of its rows.

use std::time::Duration;

use super::{
    super::{Effect, keys::Measured, survey},
    bench::Bench,
    log,
    store::Fault,
    trade,
};
use crate::{
    config::TableChoice,
    health::{Check, Detail, SinkDetail, Status},
    sink::{Guarantee, UniqueKey, Weaker},
};

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_or_comes_late_is_degraded_with_its_reason_until_the_store_was_opened_again() {
    for (fault, why) in [(Fault::Before, "the store is down"), (Fault::Hangs, "the probe took longer than 3")] {
        let bench = Bench::new().config(|config| {
            config.probe.every = crate::config::Duration::from_secs(7);
            config.probe.timeout = crate::config::Duration::from_secs(3);
            config.retry.first = crate::config::Duration::from_secs(20);
        });
        let running = bench.start();
        bench.until(|| bench.store.lock().unwrap().checks == 2).await;
        bench.until(|| shown(&bench).1.probe_seconds.is_some()).await;
        assert_eq!(shown(&bench).0.status, Status::Healthy);
        assert!(shown(&bench).1.owned_since.is_some(), "it was opened, and nothing has failed");

        bench.store.lock().unwrap().check_faults.push_back(fault);
        bench.until(|| shown(&bench).0.status == Status::Degraded).await;
        let (check, sink) = shown(&bench);
        assert!(check.reason.contains(why), "{}", check.reason);
        assert_eq!(sink.owned_since, None, "nobody knows until it is opened again");

        bench.until(|| shown(&bench).0.status == Status::Healthy).await;
        assert!(shown(&bench).1.owned_since.is_some());
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_accepted_and_not_durable_is_shown_with_its_age() {
    let bench = Bench::new();
    bench.store.lock().unwrap().is_lazy = true;
    let running = bench.start();
    for n in 1..=3 {
        trade(&bench.log, n);
    }
    bench.until(|| shown(&bench).1.rows_accepted == 3).await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    let age = shown(&bench).1.oldest_accepted_seconds.unwrap();
    assert!(age >= 90.0, "by a clock that only timers move: {age}");
    bench.apply();
    bench.until(|| shown(&bench).1.rows_accepted == 0).await;
    assert_eq!(shown(&bench).1.oldest_accepted_seconds, None);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_table_for_which_less_is_promised_is_named_with_the_reason() {
    let bench = Bench::new();
    bench.store.lock().unwrap().weaker = vec![Weaker {
        table: "trades".to_owned(),
        guarantee: Guarantee::AtLeastOnce,
        why: "it is not ours, and has no dedup; ALTER TABLE would give it one".to_owned(),
    }];
    let running = bench.start();
    bench.until(|| !shown(&bench).1.weaker.is_empty()).await;
    let told = "table `trades` is at-least-once: it is not ours, and has no dedup; ALTER TABLE would give it one";
    assert_eq!(shown(&bench).1.weaker, [told]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_key_would_merge_is_shown_as_rows_come_and_a_chunk_that_is_sent_again_counts_once() {
    let tables = r#"{"trades":{"key":["price","size"],"on_conflict":"replace"},"quotes":{}}"#;
    let bench = Bench::new().tables(tables);
    bench.store.lock().unwrap().unique_keys = vec![found("trades", &["size"]), found("quotes", &["id_of_theirs"])];
    bench.store.lock().unwrap().faults.extend([Fault::Before, Fault::AnswerLost]);
    for n in [1, 2, 3, 3, 3, 4, 5, 6, 7, 7] {
        trade(&bench.log, n);
    }
    let running = bench.start();
    bench.until(|| bench.stored() == 10).await;
    let of = |keys: Vec<crate::health::KeyCheck>| keys.into_iter().map(|key| key.summary).collect::<Vec<_>>();
    let both = [
        "key (price, size) of table `trades` would merge 30.0 % of these rows: 3 of 10",
        "key (size) of table `trades` would merge 90.0 % of these rows: 9 of 10",
    ];
    bench.until(|| of(shown(&bench).1.keys) == both).await;
    running.stop().await;
}

#[test]
fn the_rows_of_a_spool_are_held_against_keys_without_a_sink() {
    let log = log();
    for n in 1..=12_000 {
        trade(&log, n.min(11_000));
    }
    let tables: TableChoice =
        serde_json::from_str(r#"{"trades":{"key":["ts_event","symbol"],"on_conflict":"refuse"}}"#).unwrap();
    let found = [found("quotes", &["ts_event"])];
    let measured = survey(log.clone(), ("test", "memory"), vec![log.source()], tables, &found).unwrap();
    let key = ["ts_event", "symbol"].map(str::to_owned).to_vec();
    let table = "trades".to_owned();
    let expected = Measured { table, key, effect: Effect::Refuse, rows: 12_000, repeated: 1_000, absent: 0 };
    assert_eq!(measured, [expected], "the sink takes no quotes");
}

fn found(table: &str, columns: &[&str]) -> UniqueKey {
    UniqueKey { table: table.to_owned(), columns: columns.iter().map(|&column| column.to_owned()).collect() }
}

fn shown(bench: &Bench) -> (Check, SinkDetail) {
    let check = bench.health.report().checks["test/sink.memory"].clone();
    let Detail::Sink(sink) = check.detail.clone() else { panic!("{check:?}") };
    (check, sink)
}
