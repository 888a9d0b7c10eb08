//! What goes wrong beside the store: files, disks, the program itself; and what is said of it.

use std::{fs, sync::atomic::Ordering::Relaxed, time::Duration};

use serde_json::Value;
use tokio::{sync::watch, time::Instant};

use super::{
    super::{
        Delivery, SpoolLog,
        feeder::{Bounds, Feeder, Read},
    },
    bench::Bench,
    quote, spool,
    store::{Fault, Store},
    trade,
};
use crate::{
    config::{Start, TableChoice, WhenFull},
    health::{StageId, Status},
    sink::Guarantee,
    spool::{Boot, SpoolPosition, SpoolWriter},
    testkit::{Failure, SimDisk},
};

#[tokio::test(start_paused = true)]
async fn latest_is_the_first_start_however_late_the_store_comes_and_after_a_restart_too() {
    let bench = Bench::new().config(|config| config.start = Start::Latest);
    for n in 1..=5 {
        trade(&bench.log, n);
    }
    bench.store.lock().unwrap().open_faults.extend([Fault::Before; 1_000]);
    let running = bench.start();
    bench.until(|| bench.store.lock().unwrap().opened > 2).await;
    trade(&bench.log, 6);
    let outcome = running.stop().await;
    assert_eq!(outcome.rows_left, 1, "what came before is not waited for");

    trade(&bench.log, 7);
    bench.store.lock().unwrap().open_faults.clear();
    bench.run_to_end().await;
    assert_eq!(bench.offsets(), [6, 7]);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_begins_anew_keeps_the_letters_of_rows_that_the_spool_has_no_more() {
    let bench = Bench::new();
    for n in 1..=10 {
        trade(&bench.log, n);
    }
    bench.store.lock().unwrap().refuses.extend([2, 8]);
    bench.run_to_end().await;
    bench.log.forget(5);
    *bench.store.lock().unwrap() = Store::default();
    fs::remove_file(bench.directory.path().join("memory.json")).unwrap();
    bench.run_to_end().await;
    assert_eq!(bench.offsets(), [6, 7, 8, 9, 10]);
    assert_eq!(bench.letters().iter().map(|letter| letter.offset).collect::<Vec<_>>(), [2], "8 is stored now");
}

#[tokio::test(start_paused = true)]
async fn letters_that_a_person_takes_away_while_the_sink_runs_cost_no_later_one() {
    let bench = Bench::new();
    let running = bench.start();
    bench.store.lock().unwrap().refuses.extend([1, 2]);
    trade(&bench.log, 1);
    bench.until(|| bench.stored() == 1).await;
    fs::remove_file(bench.directory.path().join("memory/dead-letters.jsonl")).unwrap();
    trade(&bench.log, 2);
    bench.until(|| bench.stored() == 2).await;
    assert_eq!(bench.letters().iter().map(|letter| letter.offset).collect::<Vec<_>>(), [2]);
    assert_eq!(bench.check("deadletters.memory")["dead_letters"], 1);
    // Also when the store is opened again.
    fs::remove_file(bench.directory.path().join("memory/dead-letters.jsonl")).unwrap();
    bench.store.lock().unwrap().faults.push_back(Fault::Before);
    trade(&bench.log, 3);
    bench.until(|| bench.stored() == 3).await;
    let outcome = running.stop().await;
    assert_eq!((outcome.failure, bench.letters().len()), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn letters_that_no_disk_takes_hold_up_their_sink_blame_no_store_and_heal_by_themselves() {
    for failure in [Failure::Full(0), Failure::ReadOnly, Failure::Writes(0), Failure::Syncs] {
        let mut bench = Bench::new();
        let disk = SimDisk::default();
        bench.disk = Some(disk.clone());
        let running = bench.start();
        bench.store.lock().unwrap().refuses.insert(2);
        trade(&bench.log, 1);
        bench.until(|| bench.stored() == 1).await;
        disk.fail(failure);
        trade(&bench.log, 2);
        trade(&bench.log, 3);
        bench.until(|| bench.check("deadletters.memory")["status"] == "degraded").await;
        let began = Instant::now();
        bench.until(|| began.elapsed() > Duration::from_secs(300)).await;
        let letters = bench.check("deadletters.memory");
        let why = letters["reason"].as_str().unwrap();
        assert!(why.contains("dead-letters.jsonl`: ") && why.contains("; trying again in "), "{failure:?}: {why}");
        let sink = bench.check("sink.memory");
        assert_eq!((&sink["status"], &sink["committed_or_idle"]), (&"degraded".into(), &false.into()), "{failure:?}");
        assert_eq!(sink["breakers"]["store"]["state"], "closed", "{failure:?}: the store is well");
        assert_eq!((bench.stored(), bench.store.lock().unwrap().opened), (1, 1), "{failure:?}");

        disk.fail(Failure::None);
        bench.until(|| bench.stored() == 3).await;
        bench.until(|| bench.status() == Some(Status::Healthy)).await;
        assert_eq!(bench.check("deadletters.memory")["status"], "healthy", "{failure:?}");
        let outcome = running.stop().await;
        assert_eq!(outcome.balance.unwrap().fates.refused, 1, "{failure:?}");
        assert_eq!(bench.offsets(), [1, 3], "{failure:?}");
        let text = String::from_utf8(disk.bytes("dead-letters.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 1, "{failure:?}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_read_only_at_the_start_is_waited_for() {
    let mut bench = Bench::new();
    let disk = SimDisk::default();
    disk.fail(Failure::ReadOnly);
    bench.disk = Some(disk.clone());
    trade(&bench.log, 1);
    let running = bench.start();
    bench.until(|| bench.check("deadletters.memory")["status"] == "degraded").await;
    assert_eq!(bench.stored(), 0, "without letters no row goes on");
    disk.fail(Failure::None);
    bench.until(|| bench.stored() == 1).await;
    assert_eq!(running.stop().await.failure, None);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_file_beside_the_spool_fails_its_sink_and_keeps_the_spool() {
    let bench = Bench::new();
    trade(&bench.log, 1);
    fs::write(bench.directory.path().join("memory.json"), "").unwrap();
    let running = bench.start();
    bench.until(|| bench.status() == Some(Status::Failed)).await;
    assert!(bench.check("sink.memory")["reason"].as_str().unwrap().contains("memory.json` is damaged"));
    assert_eq!(bench.floor(&running).replay_from, None);
    let outcome = running.stop().await;
    assert_eq!((outcome.rows_left, bench.store.lock().unwrap().opened), (1, 0));
    assert!(outcome.failure.is_some());
    assert_eq!(fs::read(bench.directory.path().join("memory.json")).unwrap(), b"", "left for a person");
}

#[tokio::test]
async fn of_a_sink_whose_note_cannot_be_read_a_full_spool_drops_nothing_until_it_can_be() {
    let bench = Bench::new();
    let note = bench.directory.path().join("memory.json");
    fs::write(&note, "").unwrap();
    let mut writer = spool::open(&SimDisk::default(), vec![bench.log.source()]);
    spool::append(&mut writer, &spool::streams());
    while writer.segments() < 3 {
        spool::append(&mut writer, &spool::trades(20, 0));
        if writer.wants_roll() {
            writer.roll(Vec::new()).unwrap();
        }
        spool::sync(&mut writer);
    }
    let open = |writer: &SpoolWriter| {
        let (_, stop) = watch::channel(None);
        Delivery::new(bench.setup(SpoolLog::new(writer.reader()), stop)).unwrap()
    };
    let held = open(&writer);
    assert!(writer.take_oldest().is_none(), "the store may have any of it, and nobody can say what it lacks");
    drop(held);
    fs::write(&note, format!(r#"{{"boot":"{:016x}","offset":1}}"#, writer.reader().end().boot.0)).unwrap();
    let read = open(&writer);
    let old = writer.take_oldest().expect("what the sink has not begun to read can go");
    let losses = old.losses().unwrap();
    assert_eq!((losses.len(), losses[0].offsets.0), (1, 2), "{losses:?}");
    drop(read);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_panics_begins_again_and_stores_each_row_once() {
    let bench = Bench::new();
    bench.store.lock().unwrap().refuses.insert(2);
    for n in 1..=10 {
        trade(&bench.log, n);
    }
    bench.panics.store(3, Relaxed);
    let running = bench.start();
    bench.until(|| bench.status() == Some(Status::Degraded)).await;
    let why = bench.check("sink.memory")["reason"].clone();
    let why = why.as_str().unwrap();
    assert!(why.starts_with("the delivery panicked: a fault of the program; beginning again in "), "{why}");
    bench.until(|| bench.stored() == 10).await;
    bench.panics.store(2, Relaxed);
    trade(&bench.log, 11);
    bench.until(|| bench.stored() == 11).await;
    bench.until(|| bench.status() == Some(Status::Healthy)).await;
    let outcome = running.stop().await;
    assert_eq!((outcome.failure, outcome.rows_stored, bench.letters().len()), (None, 10, 1));
    assert_eq!(bench.offsets(), [1, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_never_comes_back_has_failed() {
    let bench = Bench::new();
    trade(&bench.log, 1);
    bench.panics.store(1_000, Relaxed);
    let running = bench.start();
    bench.until(|| bench.status() == Some(Status::Degraded)).await;
    let outcome = running.stop().await;
    assert!(outcome.failure.unwrap().contains("a fault of the program"));
    assert_eq!((outcome.rows_left, outcome.more_left), (0, true), "nobody knows how many stay");
    assert_eq!(bench.status(), Some(Status::Failed));
}

#[tokio::test(start_paused = true)]
async fn what_stays_is_counted_from_what_is_known_and_without_tables_that_are_not_taken() {
    let bench = Bench::new().tables(r#"["trades"]"#);
    for n in 1..=10 {
        trade(&bench.log, n);
        quote(&bench.log, n);
    }
    bench.run_to_end().await;
    for n in 11..=13 {
        trade(&bench.log, n);
        quote(&bench.log, n);
    }
    bench.store.lock().unwrap().open_faults.extend([Fault::Before; 1_000]);
    let running = bench.start();
    bench.until(|| bench.store.lock().unwrap().opened > 1).await;
    let outcome = running.stop().await;
    assert_eq!((outcome.rows_left, outcome.rows_stored), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_with_nothing_to_give_it_does_not_hold_up_the_stop() {
    let bench = Bench::new().tables(r#"["trades"]"#);
    trade(&bench.log, 1);
    let running = bench.start();
    bench.until(|| bench.stored() == 1).await;
    bench.store.lock().unwrap().open_faults.extend([Fault::Before; 10_000]);
    bench.store.lock().unwrap().faults.push_back(Fault::Before);
    quote(&bench.log, 2);
    bench.until(|| bench.status() == Some(Status::Degraded)).await;
    bench.log.control();
    let began = Instant::now();
    let outcome = running.stop_within(Duration::from_secs(600)).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!((outcome.rows_left, outcome.failure), (0, None));
}

#[tokio::test(start_paused = true)]
async fn while_the_breaker_is_open_the_next_attempt_is_said_to_be_after_it() {
    let bench = Bench::new();
    bench.store.lock().unwrap().open_faults.extend([Fault::Before; 1_000]);
    let running = bench.start();
    let breaker = || bench.check("sink.memory")["breakers"]["store"].clone();
    assert_eq!(breaker()["state"], "closed", "shown before anything happened");
    bench.until(|| breaker()["state"] == "open").await;
    let why = bench.check("sink.memory")["reason"].clone();
    assert_eq!(why, "the store is down; trying again in 30.0 s (attempt 5; the breaker is open)");
    assert!(breaker()["next_probe"].is_string() && breaker()["reason"] == "the store is down", "{}", breaker());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_tries_a_store_once_more_whatever_the_breaker_says() {
    let bench = Bench::new();
    bench.store.lock().unwrap().open_faults.extend([Fault::Before; 1_000]);
    trade(&bench.log, 1);
    let running = bench.start();
    bench.until(|| bench.check("sink.memory")["breakers"]["store"]["state"] == "open").await;
    bench.store.lock().unwrap().open_faults.clear();
    let outcome = running.stop().await;
    assert_eq!(
        (bench.stored(), outcome.rows_left),
        (1, 0),
        "the stop leaves two seconds, the breaker's pause is longer"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_try_a_store_that_is_down_again_and_again() {
    let bench = Bench::new();
    bench.store.lock().unwrap().open_faults.extend([Fault::Before; 1_000]);
    trade(&bench.log, 1);
    let running = bench.start();
    bench.until(|| bench.check("sink.memory")["breakers"]["store"]["state"] == "open").await;
    let before = bench.store.lock().unwrap().opened;
    running.stop().await;
    assert_eq!(bench.store.lock().unwrap().opened, before + 1);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_out_is_shown_as_half_open() {
    let bench = Bench::new();
    bench.store.lock().unwrap().open_faults.extend([Fault::Before; 5]);
    bench.store.lock().unwrap().faults.push_back(Fault::Hangs);
    trade(&bench.log, 1);
    let running = bench.start();
    bench.until(|| bench.check("sink.memory")["breakers"]["store"]["state"] == "half_open").await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn of_which_segment_a_store_may_have_something_is_noted_before_it_gets_the_first_of_it() {
    let bench = Bench::new();
    bench.store.lock().unwrap().faults.push_back(Fault::Hangs);
    let running = bench.start();
    trade(&bench.log, 1);
    let noted = || bench.noted();
    bench.until(|| noted().entered == Some(1)).await;
    assert_eq!((noted().position, bench.stored()), (None, 0));
    bench.until(|| bench.stored() == 1).await;
    bench.log.roll();
    bench.store.lock().unwrap().faults.push_back(Fault::Hangs);
    trade(&bench.log, 2);
    bench.until(|| noted().entered == Some(2)).await;
    assert_eq!(noted().position.map(|position| position.offset), Some(1));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_segment_goes_to_a_store_or_becomes_a_letter_before_it_is_noted() {
    let bench = Bench::new();
    let path = bench.directory.path().join("memory.json");
    let running = bench.start();
    trade(&bench.log, 1);
    bench.until(|| bench.stored() == 1 && bench.known().is_some()).await;
    for (n, is_unreadable) in [(2, false), (3, true)] {
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        bench.log.roll();
        if is_unreadable {
            bench.log.emit_raw(0, b"?");
        } else {
            trade(&bench.log, n);
        }
        bench.until(|| bench.status() == Some(Status::Degraded)).await;
        let began = Instant::now();
        bench.until(|| began.elapsed() > Duration::from_secs(300)).await;
        let checks = ["sink.memory", "deadletters.memory"].map(|stage| bench.check(stage));
        let is_said = |why: &str| why.contains("memory.json`: ") && why.contains("; trying again in ");
        assert!(checks.iter().any(|check| check["reason"].as_str().is_some_and(is_said)), "{checks:?}");
        assert_eq!(checks[0]["breakers"]["store"]["state"], "closed", "the store is well");
        assert_eq!((bench.stored(), bench.letters().len()), (n - 1, 0));

        fs::remove_dir(&path).unwrap();
        bench.until(|| bench.stored() == n).await;
        bench.until(|| bench.status() == Some(Status::Healthy)).await;
    }
    assert_eq!((bench.noted().entered, bench.letters().len()), (Some(3), 1));
    assert_eq!(running.stop().await.failure, None);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_takes_no_note_holds_nothing_up_where_the_log_drops_nothing() {
    let mut bench = Bench::new();
    bench.when_full = WhenFull::Block;
    let path = bench.directory.path().join("memory.json");
    let running = bench.start();
    trade(&bench.log, 1);
    bench.until(|| bench.stored() == 1 && bench.known().is_some()).await;
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    bench.log.roll();
    trade(&bench.log, 2);
    bench.log.emit_raw(0, b"?");
    bench.until(|| bench.stored() == 3 && bench.letters().len() == 1).await;
    assert_eq!(running.stop().await.failure, None);
}

#[tokio::test(start_paused = true)]
async fn what_a_store_without_a_position_may_have_stays_noted_when_it_is_opened_again() {
    let bench = Bench::new();
    bench.store.lock().unwrap().guarantee = Some(Guarantee::DedupKeys(Vec::new()));
    let running = bench.start();
    trade(&bench.log, 1);
    bench.until(|| bench.stored() == 1 && bench.known().is_some()).await;
    bench.log.roll();
    bench.store.lock().unwrap().faults.push_back(Fault::Hangs);
    trade(&bench.log, 2);
    bench.until(|| bench.noted().entered == Some(2)).await;
    bench.panics.store(1_000, Relaxed);
    // With full jitter the next opening may follow at once.
    bench.until(|| bench.store.lock().unwrap().opened >= 2).await;
    running.stop().await;
    assert_eq!(bench.noted().entered, Some(2), "the write that was given up may have been carried out");
}

#[tokio::test(start_paused = true)]
async fn the_last_position_is_noted_although_no_more_is_committed_since_the_log_keeps_all_behind_it() {
    let bench = Bench::new();
    let running = bench.start();
    for n in 1..=3 {
        trade(&bench.log, n);
        bench.until(|| bench.stored() == n).await;
    }
    bench.until(|| bench.floor(&running).replay_from.is_some_and(|noted| noted.offset == 3)).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_balance_is_shown_and_each_offset_is_in_it_once() {
    let bench = Bench::new().tables(r#"["trades"]"#);
    bench.store.lock().unwrap().refuses.insert(1);
    trade(&bench.log, 1);
    trade(&bench.log, 2);
    quote(&bench.log, 3);
    bench.log.control();
    bench.log.skip(2);
    trade(&bench.log, 7);
    bench.run_to_end().await;
    let balance = bench.check("sink.memory")["balance"].clone();
    let want = serde_json::json!({
        "since": 0, "upto": 7, "delivered": 2, "filtered": 1, "refused": 1, "control": 1, "missing": 2,
    });
    assert_eq!(balance, want);
}

#[tokio::test(start_paused = true)]
async fn rows_that_nobody_takes_do_not_wait() {
    let bench = Bench::new().tables(r#"["trades"]"#);
    let running = bench.start();
    trade(&bench.log, 1);
    bench.until(|| bench.stored() == 1).await;
    quote(&bench.log, 2);
    bench.log.control();
    let began = Instant::now();
    bench.until(|| began.elapsed() > Duration::from_secs(5)).await;
    assert_eq!(bench.stored(), 1, "the position moves later");
    assert_eq!(bench.check("sink.memory")["oldest_uncommitted_seconds"], Value::Null);
    trade(&bench.log, 4);
    bench.until(|| bench.stored() == 4).await;
    let p99 = bench.check("sink.memory")["commit_seconds"]["p99"].as_f64().unwrap();
    assert!(p99 < 1.0, "a trade waited {p99} s");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rows_stored_are_those_of_the_whole_run_also_when_the_store_goes_back() {
    let bench = Bench::new();
    let running = bench.start();
    for n in 1..=10 {
        trade(&bench.log, n);
    }
    bench.until(|| bench.stored() == 10).await;
    {
        let mut store = bench.store.lock().unwrap();
        store.rows.truncate(4);
        store.position = Some(SpoolPosition { boot: Boot(1), offset: 4 });
        store.faults.push_back(Fault::Before);
    }
    trade(&bench.log, 11);
    bench.until(|| bench.stored() == 11).await;
    let outcome = running.stop().await;
    assert_eq!(outcome.rows_stored, 17, "ten, and seven again or anew");
}

#[tokio::test(start_paused = true)]
async fn an_empty_chunk_is_no_first_row() {
    let bench = Bench::new().tables(r#"["trades"]"#).config(|config| config.start = Start::Latest);
    quote(&bench.log, 1);
    let running = bench.start();
    bench.until(|| bench.stored() == 1).await;
    bench.until(|| bench.status() == Some(Status::Healthy)).await;
    let why = bench.check("sink.memory")["reason"].clone();
    assert!(!why.as_str().unwrap().contains("first rows stored"), "{why}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_chunk_ends_at_its_bytes_and_at_so_many_offsets_without_a_row() {
    let bench = Bench::new().config(|config| config.batch.bytes.0 = 1);
    for n in 1..=3 {
        trade(&bench.log, n);
    }
    bench.run_to_end().await;
    let chunks = bench.store.lock().unwrap().chunks.clone();
    assert_eq!(chunks, [(0, 1, 1), (1, 2, 1), (2, 3, 1)], "the row that reaches the bound is the last one");

    // Five rows in a chunk are twenty times as many offsets: a long filtered stretch is passed in parts.
    let bench = Bench::new().tables(r#"["trades"]"#);
    for n in 1..=250 {
        quote(&bench.log, n);
    }
    let tables: TableChoice = serde_json::from_str(r#"["trades"]"#).unwrap();
    let bounds = Bounds { rows: 5, bytes: usize::MAX };
    let mut feeder =
        Feeder::new(bench.log.clone(), "memory", "test", vec![bench.log.source()], tables, bounds).unwrap();
    let (mut at, mut ends) = (SpoolPosition::START, Vec::new());
    while at.offset < 250 {
        let Read::Range { portion, .. } = feeder.read(at, 250).unwrap() else { panic!("everything can be read") };
        at = portion.to;
        ends.push(at.offset);
    }
    assert_eq!(ends, [100, 200, 250]);
}

impl Bench {
    fn offsets(&self) -> Vec<u64> {
        self.store.lock().unwrap().rows.iter().map(|cause| cause.offset).collect()
    }

    /// Returns what health says of a stage.
    fn check(&self, stage: &str) -> Value {
        // Named here, or it is not there before its driver is.
        self.health.stage(StageId::sink("test", "memory"));
        serde_json::to_value(self.health.report()).unwrap()["checks"][format!("test/{stage}")].clone()
    }
}
