//! Where a sink goes on after an opening, and where not.

use std::fs;

use super::{
    bench::Bench,
    store::{Fault, Store},
    trade,
};
use crate::{
    health::Status,
    sink::{Claim, Guarantee, Neighbour},
    spool::{Boot, SpoolPosition},
};

#[tokio::test(start_paused = true)]
async fn in_doubt_is_settled_by_the_next_opening_whatever_happened() {
    for fault in [
        Fault::Before,
        Fault::AnswerLost,
        Fault::CommitsLater(true),
        Fault::CommitsLater(false),
        Fault::Hangs,
        Fault::HangsCommitted,
        Fault::Panics,
    ] {
        let bench = Bench::new();
        trade(&bench.log, 1);
        bench.store.lock().unwrap().faults.push_back(fault);
        let (outcome, store) = bench.run_to_end().await;
        let store = store.lock().unwrap();
        assert_eq!(store.rows.len(), 1, "{fault:?}");
        assert_eq!(outcome.balance.unwrap().fates.delivered, 1, "{fault:?}");
        assert_eq!(store.opened, 2, "{fault:?}: opened at the start and after the fault");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_at_the_start_is_asked_again_and_again_and_shown_as_degraded() {
    let bench = Bench::new();
    trade(&bench.log, 1);
    bench.store.lock().unwrap().open_faults.extend([Fault::Before; 40]);
    let running = bench.start();
    bench.until(|| bench.status() == Some(Status::Degraded)).await;
    bench.until(|| bench.store.lock().unwrap().rows.len() == 1).await;
    bench.until(|| bench.status() == Some(Status::Healthy)).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_position_that_does_not_fit_needs_a_person_and_shows_all_three() {
    let bench = Bench::new();
    for n in 1..=5 {
        trade(&bench.log, n);
    }
    let (outcome, _) = bench.run_to_end().await;
    assert_eq!(outcome.failure, None);

    // The store lost its position: never a fresh start, since one was known.
    *bench.store.lock().unwrap() = Store::default();
    let (outcome, store) = bench.run_to_end().await;
    let why = outcome.failure.expect("a mismatch");
    assert!(why.contains("store: none") && why.contains("last known beside the spool: 5 (boot"), "{why}");
    for command in ["`tidegate adopt eth.toml memory --from-log`", "`tidegate adopt eth.toml memory --from-store`"] {
        assert!(why.contains(command), "{why}");
    }
    assert_eq!(bench.status(), Some(Status::Failed));
    assert_eq!(store.lock().unwrap().writes, 0, "nothing is written");

    // The spool was restored from an older copy.
    store.lock().unwrap().position = Some(SpoolPosition { boot: Boot(1), offset: 5 });
    bench.log.restore(3);
    let (outcome, _) = bench.run_to_end().await;
    assert!(outcome.failure.expect("a mismatch").contains("ahead of the spool"));

    // Another history.
    store.lock().unwrap().position = Some(SpoolPosition { boot: Boot(1), offset: 2 });
    bench.log.forge();
    let (outcome, _) = bench.run_to_end().await;
    assert!(outcome.failure.expect("a mismatch").contains("another history"));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_went_back_is_fed_again() {
    let bench = Bench::new();
    for n in 1..=10 {
        trade(&bench.log, n);
    }
    bench.run_to_end().await;
    {
        let mut store = bench.store.lock().unwrap();
        store.rows.truncate(4);
        store.position = Some(SpoolPosition { boot: Boot(1), offset: 4 });
    }
    let (outcome, store) = bench.run_to_end().await;
    assert_eq!(outcome.failure, None);
    assert_eq!(store.lock().unwrap().rows.iter().map(|c| c.offset).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_went_back_behind_what_was_dropped_for_others_since_needs_a_person() {
    for (dropped, needs) in [((5, 6), true), ((9, 9), true), ((1, 4), false), ((11, 20), false)] {
        let mut bench = Bench::new();
        for n in 1..=10 {
            trade(&bench.log, n);
        }
        bench.run_to_end().await;
        bench.dropped = Some(dropped);
        {
            let mut store = bench.store.lock().unwrap();
            store.rows.truncate(4);
            store.position = Some(SpoolPosition { boot: Boot(1), offset: 4 });
        }
        let (outcome, store) = bench.run_to_end().await;
        let why = outcome.failure.unwrap_or_default();
        assert_eq!(why.contains("no longer has what the store lacks"), needs, "{dropped:?}: {why}");
        let rows = if needs { 4 } else { 10 };
        assert_eq!(store.lock().unwrap().rows.len(), rows, "{dropped:?}: nothing is left out in silence");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_sink_begins_where_it_was_told_to() {
    let bench = Bench::new().config(|config| config.start = crate::config::Start::Latest);
    for n in 1..=5 {
        trade(&bench.log, n);
    }
    let running = bench.start();
    bench.until(|| bench.stored() == 5).await;
    trade(&bench.log, 6);
    bench.until(|| bench.stored() == 6).await;
    running.stop().await;
    assert_eq!(bench.store.lock().unwrap().rows.len(), 1, "only the row that came afterwards");

    let bench = Bench::new();
    for n in 1..=5 {
        trade(&bench.log, n);
    }
    bench.log.forget(2);
    let (outcome, store) = bench.run_to_end().await;
    assert_eq!(store.lock().unwrap().rows.len(), 3, "earliest is what the spool still has");
    assert!(outcome.balance.unwrap().is_even());
}

#[tokio::test(start_paused = true)]
async fn a_store_without_positions_goes_on_from_the_one_beside_the_log() {
    let bench = Bench::new();
    bench.store.lock().unwrap().guarantee = Some(Guarantee::AtLeastOnce);
    for n in 1..=3 {
        trade(&bench.log, n);
    }
    bench.run_to_end().await;
    trade(&bench.log, 4);
    {
        // It never says where it is, and takes what comes.
        let mut store = bench.store.lock().unwrap();
        store.position = None;
    }
    let running = bench.start();
    bench.until(|| bench.store.lock().unwrap().writes > 1).await;
    drop(running);
    let known = bench.known().unwrap();
    assert!(known.offset >= 3, "goes on behind what is known: {known}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_fed_from_another_spool_or_lost_a_table_is_shown_with_the_commands() {
    for (spool, gone, shown) in [(7, "", "store: 5 (boot"), (1, "trades", "store: 5 (boot")] {
        let bench = Bench::new();
        trade(&bench.log, 1);
        {
            let mut store = bench.store.lock().unwrap();
            store.open_refusal = Some("it is not for us".to_owned());
            let position = SpoolPosition { boot: Boot(1), offset: 5 };
            let gone = if gone.is_empty() { Vec::new() } else { vec![gone.to_owned()] };
            store.claim = Some(Claim { position, spool, host: "there".to_owned(), gone });
        }
        let (outcome, _) = bench.run_to_end().await;
        let why = outcome.failure.expect("a person has to look");
        assert!(why.contains("it is not for us") && why.contains(shown), "{why}");
        assert!(why.contains("`tidegate adopt eth.toml memory --from-store`"), "{why}");
    }
    // What is wrong with the store itself has another remedy.
    let bench = Bench::new();
    bench.store.lock().unwrap().open_refusal = Some("a column does not fit".to_owned());
    let (outcome, _) = bench.run_to_end().await;
    let why = outcome.failure.expect("a person has to look");
    assert!(!why.contains("tidegate adopt"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_replaced_before_its_position_could_be_noted_is_no_new_one() {
    let bench = Bench::new();
    trade(&bench.log, 1);
    bench.store.lock().unwrap().faults.push_back(Fault::Hangs);
    let running = bench.start();
    let path = bench.directory.path().join("memory.json");
    bench.until(|| path.exists()).await;
    // The segment is noted. In the place of its file, so that nothing more can be.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    bench.until(|| bench.stored() == 1).await;
    let mut replaced = Store::default();
    replaced.faults.push_back(Fault::Before);
    *bench.store.lock().unwrap() = replaced;
    trade(&bench.log, 2);
    bench.until(|| bench.status() == Some(Status::Failed)).await;
    assert_eq!(bench.store.lock().unwrap().known.map(|known| known.offset), Some(1), "the sink is told, too");
    let why = running.stop().await.failure.expect("a mismatch");
    assert!(why.contains("store: none; last known beside the spool: 1 (boot"), "{why}");
    assert_eq!(bench.store.lock().unwrap().rows, [], "nothing is written into it");
}

#[tokio::test(start_paused = true)]
async fn a_new_sink_whose_tables_a_pipeline_has_written_to_that_nobody_names_waits_for_a_person() {
    let mut bench = Bench::new();
    trade(&bench.log, 1);
    bench.store.lock().unwrap().neighbours.push(neighbour());
    bench.others.here.insert("old".to_owned());
    bench.others.strays.insert("old".to_owned(), 7);
    let (outcome, store) = bench.run_to_end().await;
    let why = outcome.failure.expect("it is not sure");
    assert!(
        why.contains("pipeline `old`, by its sink `sqlite` on host `here`, has written to table `trades`"),
        "{why}"
    );
    assert_eq!((store.lock().unwrap().writes, bench.status()), (0, Some(Status::Failed)));

    // Named again by a file, it is another feed.
    bench.others.strays.clear();
    let (outcome, store) = bench.run_to_end().await;
    assert_eq!((outcome.failure, store.lock().unwrap().rows.len()), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn of_a_pipeline_of_which_nothing_is_known_here_health_tells_until_the_next_start() {
    let bench = Bench::new();
    trade(&bench.log, 1);
    bench.store.lock().unwrap().neighbours.push(neighbour());
    for status in [Status::Degraded, Status::Healthy] {
        let running = bench.start();
        bench.until(|| bench.status() == Some(status)).await;
        assert_eq!(running.stop().await.failure, None);
    }
    assert_eq!(bench.store.lock().unwrap().rows.len(), 1);
}

fn neighbour() -> Neighbour {
    let (pipeline, sink, host) = ("old".to_owned(), "sqlite".to_owned(), "here".to_owned());
    Neighbour { pipeline, sink, spool: 7, host, tables: vec!["trades".to_owned()] }
}
