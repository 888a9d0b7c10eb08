//! The whole driver, with its task, its files and paused time.

use std::{
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{
    super::{Delivery, Extent, Floor, Log, Others, Outcome, Seen, Setup},
    log, quote,
    store::{Fault, Memory, SharedStore, Store},
    trade,
};
use crate::{
    Result,
    config::{DeliveryConfig, TableChoice},
    deadletter::{self, DeadLetters},
    health::{Registry, StageId, Status},
    sink::{Guarantee, Sink},
    spool::{Boot, SpoolPosition, Standing, disk::RealDisk},
    testkit::{MemoryLog, SimDisk},
};

#[tokio::test(start_paused = true)]
async fn rows_of_all_tables_arrive_in_order_and_the_stop_drains_the_rest() {
    let bench = Bench::new();
    for n in 1..=20 {
        trade(&bench.log, n);
        quote(&bench.log, n);
    }
    let (outcome, store) = bench.run_to_end().await;
    let store = store.lock().unwrap();
    let offsets: Vec<u64> = store.rows.iter().map(|cause| cause.offset).collect();
    assert_eq!(offsets, (1..=40).collect::<Vec<u64>>());
    let balance = outcome.balance.unwrap();
    assert!(balance.is_even());
    assert_eq!((balance.fates.delivered, outcome.rows_left, store.closed), (40, 0, 1));
    assert_eq!(bench.known(), Some(balance.upto), "the last position is known beside the log");
}

#[tokio::test(start_paused = true)]
async fn every_offset_has_one_fate_and_the_counters_add_up() {
    let bench = Bench::new().tables(r#"["trades"]"#);
    for n in 1..=100 {
        match n % 5 {
            0 => drop(bench.log.control()),
            1 => drop(quote(&bench.log, n)),
            2 => bench.log.skip(2),
            _ => drop(trade(&bench.log, n)),
        }
    }
    let refused = bench.log.rows("trades")[7];
    bench.store.lock().unwrap().refuses.insert(refused);
    let (outcome, store) = bench.run_to_end().await;
    let balance = outcome.balance.unwrap();
    let fates = balance.fates;
    assert!(balance.is_even(), "{balance:?}");
    assert_eq!((fates.filtered, fates.control, fates.missing, fates.refused), (20, 20, 40, 1));
    assert_eq!(fates.delivered as usize, store.lock().unwrap().rows.len());
    assert_eq!(fates.delivered + fates.refused, bench.log.rows("trades").len() as u64);
}

#[tokio::test(start_paused = true)]
async fn a_refused_row_is_a_dead_letter_on_disk_and_its_neighbours_are_stored() {
    let bench = Bench::new();
    for n in 1..=10 {
        trade(&bench.log, n);
    }
    bench.store.lock().unwrap().refuses.insert(4);
    let (_, store) = bench.run_to_end().await;
    assert_eq!(store.lock().unwrap().rows.len(), 9);
    let letters = bench.letters();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].offset, letters[0].table.as_str(), letters[0].symbol.as_str()), (4, "trades", "X"));
    assert_eq!(letters[0].row["price"], 4.0);
    assert!(letters[0].error.contains("out of range"));
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_whose_chunk_was_not_committed_is_thrown_away_and_made_anew_if_it_has_to_be() {
    for is_still_refused in [true, false] {
        let bench = Bench::new();
        for n in 1..=10 {
            trade(&bench.log, n);
        }
        {
            let mut store = bench.store.lock().unwrap();
            store.refuses.insert(4);
            store.faults.extend([Fault::None, Fault::Hangs]);
        }
        let running = bench.start();
        bench.until(|| bench.store.lock().unwrap().faults.is_empty()).await;
        assert_eq!(bench.letters().len(), 1, "on disk before its chunk is committed");
        // The process dies while the chunk is being written without the row.
        running.task.abort();
        if !is_still_refused {
            bench.store.lock().unwrap().refuses.clear();
        }
        let (outcome, store) = bench.run_to_end().await;
        let letters = bench.letters().iter().map(|letter| letter.offset).collect::<Vec<_>>();
        let rows = store.lock().unwrap().rows.len();
        let want = if is_still_refused { (9, vec![4]) } else { (10, Vec::new()) };
        assert_eq!((rows, letters), want);
        assert!(outcome.balance.unwrap().is_even());
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_taken_after_all_is_stored_and_no_dead_letter() {
    let bench = Bench::new();
    for n in 1..=10 {
        trade(&bench.log, n);
    }
    {
        let mut store = bench.store.lock().unwrap();
        store.refuses.insert(4);
        store.faults.extend([Fault::None, Fault::Before]);
    }
    let running = bench.start();
    bench.until(|| bench.store.lock().unwrap().faults.is_empty()).await;
    assert_eq!(bench.letters().len(), 1);
    // Somebody mends the table while the driver waits to open it again.
    bench.store.lock().unwrap().refuses.clear();
    bench.until(|| bench.stored() == 10).await;
    let outcome = running.stop().await;
    assert_eq!((bench.store.lock().unwrap().rows.len(), bench.letters().len()), (10, 0));
    assert_eq!(outcome.balance.unwrap().fates.refused, 0);
}

#[tokio::test(start_paused = true)]
async fn a_row_whose_bytes_are_broken_is_a_dead_letter_and_stops_nothing() {
    let bench = Bench::new();
    trade(&bench.log, 1);
    bench.log.emit_raw(0, &[0xff; 3]);
    bench.log.emit_raw(99, &[1]);
    trade(&bench.log, 4);
    let (outcome, store) = bench.run_to_end().await;
    assert_eq!(store.lock().unwrap().rows.len(), 2);
    assert_eq!(outcome.balance.unwrap().fates.refused, 2);
    let letters = bench.letters();
    assert_eq!(letters[0].row["raw"], "ffffff");
    assert_eq!(letters.len(), 2);
}

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
async fn an_open_breaker_spares_the_store() {
    let bench = Bench::new();
    bench.store.lock().unwrap().open_faults.extend([Fault::Before; 1_000]);
    let began = Instant::now();
    let running = bench.start();
    bench.until(|| began.elapsed() > Duration::from_secs(600)).await;
    let opened = bench.store.lock().unwrap().opened;
    assert!((20..=30).contains(&opened), "5 at once, then one probe in 30 s: {opened}");
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
async fn a_quiet_feed_moves_the_position_at_a_segment_border_and_each_ten_seconds() {
    let bench = Bench::new().tables(r#"["trades"]"#);
    trade(&bench.log, 1);
    let running = bench.start();
    bench.until(|| bench.stored() == 1).await;

    quote(&bench.log, 2);
    let began = Instant::now();
    bench.until(|| bench.stored() == 2).await;
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(9) && waited < Duration::from_secs(11), "{waited:?}");

    bench.log.roll();
    quote(&bench.log, 3);
    let began = Instant::now();
    bench.until(|| bench.stored() == 3).await;
    assert!(began.elapsed() < Duration::from_secs(1), "a border is passed at once");

    quote(&bench.log, 4);
    let outcome = running.stop().await;
    assert_eq!(outcome.balance.unwrap().upto.offset, 4, "the stop moves it, too");
}

#[tokio::test(start_paused = true)]
async fn lingers_only_when_told_to_and_never_once_the_chunk_is_full() {
    let bench = Bench::new().config(|config| config.batch.linger = crate::config::Duration::from_secs(3));
    let running = bench.start();
    bench.until(|| bench.store.lock().unwrap().opened == 1).await;
    let began = Instant::now();
    trade(&bench.log, 1);
    bench.until(|| bench.stored() == 1).await;
    assert!(began.elapsed() >= Duration::from_secs(3));

    let began = Instant::now();
    for n in 2..=6 {
        trade(&bench.log, n);
    }
    bench.until(|| bench.stored() >= 6).await;
    assert!(began.elapsed() < Duration::from_secs(1), "five rows fill a chunk here");
    running.stop().await;

    let eager = Bench::new();
    let running = eager.start();
    let began = Instant::now();
    trade(&eager.log, 1);
    eager.until(|| eager.stored() == 1).await;
    assert!(began.elapsed() < Duration::from_millis(100));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn chunks_are_bounded_in_rows() {
    let bench = Bench::new();
    for n in 1..=23 {
        trade(&bench.log, n);
    }
    let (_, store) = bench.run_to_end().await;
    let chunks = store.lock().unwrap().chunks.clone();
    assert!(chunks.iter().all(|(_, _, rows)| *rows <= 5), "{chunks:?}");
    assert!(chunks.windows(2).all(|pair| pair[0].1 == pair[1].0), "contiguous: {chunks:?}");
}

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

#[tokio::test(start_paused = true)]
async fn at_the_deadline_the_rest_stays_and_is_counted() {
    let bench = Bench::new();
    for n in 1..=12 {
        trade(&bench.log, n);
    }
    bench.log.control();
    bench.store.lock().unwrap().open_faults.extend([Fault::Before; 1_000]);
    let running = bench.start();
    bench.until(|| bench.store.lock().unwrap().opened > 0).await;
    let began = Instant::now();
    let outcome = running.stop().await;
    assert!(began.elapsed() <= Duration::from_secs(2), "the deadline holds");
    assert_eq!((outcome.rows_left, outcome.more_left, outcome.balance), (12, false, None));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_does_not_hold_up_the_stop() {
    let bench = Bench::new();
    trade(&bench.log, 1);
    bench.store.lock().unwrap().faults.extend([Fault::Hangs; 10]);
    let running = bench.start();
    bench.until(|| bench.store.lock().unwrap().faults.len() == 9).await;
    let began = Instant::now();
    let outcome = running.stop().await;
    assert!(began.elapsed() <= Duration::from_secs(2));
    assert_eq!(outcome.rows_left, 1);
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
async fn an_idle_store_is_probed() {
    let bench = Bench::new();
    let running = bench.start();
    let began = Instant::now();
    bench.until(|| bench.store.lock().unwrap().checks == 3).await;
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(170) && waited < Duration::from_secs(200), "each minute: {waited:?}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_permanent_error_blames_no_row() {
    let bench = Bench::new();
    trade(&bench.log, 1);
    bench.store.lock().unwrap().faults.push_back(Fault::Permanent);
    let (outcome, store) = bench.run_to_end().await;
    assert!(outcome.failure.unwrap().contains("revoked"));
    assert_eq!((store.lock().unwrap().writes, outcome.rows_left, bench.letters().len()), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_spool_may_forget_only_what_is_noted_beside_it() {
    let bench = Bench::new();
    let running = bench.start();
    for n in 1..=200 {
        trade(&bench.log, n);
        if n % 40 == 0 {
            bench.until(|| bench.stored() == n).await;
            let floor = bench.floor(&running);
            let noted = floor.replay_from.expect("noted at the first commit").offset;
            assert!(noted <= floor.committed.unwrap().offset);
            assert!(bench.known().unwrap().offset >= noted, "a file that says less than what may be forgotten");
        }
    }
    running.stop().await;
}

/// A store, a log and a directory, and one process after the other between them.
pub(super) struct Bench {
    pub(super) log: MemoryLog,
    pub(super) store: SharedStore,
    pub(super) directory: TempDir,
    tables: TableChoice,
    config: DeliveryConfig,
    pub(super) health: Registry,
    pub(super) others: Others,
    /// How often reading the log panics from now on.
    pub(super) panics: Arc<AtomicU32>,
    /// Where dead letters are, if not in the directory.
    pub(super) disk: Option<SimDisk>,
}

pub(super) struct Running {
    stop: watch::Sender<Option<Instant>>,
    floor: watch::Receiver<Floor>,
    task: JoinHandle<Outcome>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let mut config = DeliveryConfig::default();
        config.batch.rows = std::num::NonZeroUsize::new(5).unwrap();
        Self {
            log: log(),
            store: SharedStore::default(),
            directory: tempfile::tempdir().unwrap(),
            tables: TableChoice::All,
            config,
            health: Registry::new(),
            others: Others::default(),
            panics: Arc::default(),
            disk: None,
        }
    }

    pub(super) fn tables(mut self, tables: &str) -> Self {
        self.tables = serde_json::from_str(tables).unwrap();
        self
    }

    pub(super) fn config(mut self, change: impl FnOnce(&mut DeliveryConfig)) -> Self {
        change(&mut self.config);
        self
    }

    pub(super) fn start(&self) -> Running {
        let (stop, stopping) = watch::channel(None);
        let store = self.store.clone();
        let setup = Setup {
            pipeline: "test".to_owned(),
            sink: "memory".to_owned(),
            factory: Arc::new(move || Ok(Box::new(Memory(store.clone())) as Box<dyn Sink>)),
            config: self.config.clone(),
            tables: self.tables.clone(),
            sources: vec![self.log.source()],
            spool: 1,
            host: "here".to_owned(),
            directory: self.directory.path().to_owned(),
            log: Faulty { log: self.log.clone(), panics: self.panics.clone() },
            synced: self.log.synced(),
            stop: stopping,
            others: self.others.clone(),
            health: self.health.clone(),
        };
        let (mut delivery, floor) = Delivery::new(setup).unwrap();
        if let Some(disk) = &self.disk {
            delivery = delivery.with_letters_on(Arc::new(disk.clone()));
        }
        Running { stop, floor, task: tokio::spawn(delivery.run()) }
    }

    pub(super) async fn run_to_end(&self) -> (Outcome, Arc<Mutex<Store>>) {
        let running = self.start();
        (running.stop_within(Duration::from_secs(600)).await, self.store.clone())
    }

    pub(super) async fn until(&self, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(7_200);
        while !condition() {
            assert!(Instant::now() < deadline, "the condition never holds");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) fn stored(&self) -> u64 {
        self.store.lock().unwrap().position.map_or(0, |position| position.offset)
    }

    /// Makes durable what the store has accepted.
    fn apply(&self) {
        let mut store = self.store.lock().unwrap();
        store.applied = store.position;
    }

    pub(super) fn floor(&self, running: &Running) -> Floor {
        *running.floor.borrow()
    }

    pub(super) fn status(&self) -> Option<Status> {
        Some(self.health.stage(StageId::sink("test", "memory")).status())
    }

    pub(super) fn known(&self) -> Option<SpoolPosition> {
        let disk = Arc::new(RealDisk::at(self.directory.path()));
        super::super::known::Known::open(disk, "memory").unwrap().noted().position
    }

    pub(super) fn letters(&self) -> Vec<deadletter::DeadLetter> {
        let path: &Path = &self.directory.path().join("memory").join(DeadLetters::FILE_NAME);
        deadletter::list(path).unwrap().letters
    }
}

impl Running {
    pub(super) async fn stop(self) -> Outcome {
        self.stop_within(Duration::from_secs(2)).await
    }

    pub(super) async fn stop_within(self, limit: Duration) -> Outcome {
        self.stop.send_replace(Some(Instant::now() + limit));
        self.task.await.unwrap()
    }
}

/// A log that panics on demand.
struct Faulty {
    log: MemoryLog,
    panics: Arc<AtomicU32>,
}

impl Log for Faulty {
    fn extent(&self) -> Extent {
        self.log.extent()
    }

    fn standing(&self, position: SpoolPosition) -> Standing {
        self.log.standing(position)
    }

    fn seek(&mut self, position: SpoolPosition) -> Result<()> {
        self.log.seek(position)
    }

    fn read(&mut self, upto: u64, visit: &mut dyn FnMut(Seen<'_>) -> ControlFlow<()>) -> Result<()> {
        let panics = self.panics.try_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        assert!(panics.is_err(), "a fault of the program");
        self.log.read(upto, visit)
    }
}
