//! The whole driver, with its task, its files and paused time.

use std::time::Duration;

use tokio::time::Instant;

use super::{bench::Bench, quote, store::Fault, trade};

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
