//! Whatever becomes of the spool's disk is said, and costs no more than it must.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use sqlx::Connection;
use support::{Bench, PATIENCE, Program, SmallDisk, busy, tidegate};
use tidegate_sources::deribit::simulator::{Fault, SimulatorConfig};
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_is_full_blocks_and_loses_no_trade() {
    let bench = with_store_down(&spool("block")).await;
    let mut program = bench.run();
    until_full(&mut program, "nothing more is taken").await;
    assert_eq!(program.get("/health").await.0, 200, "it mends itself");
    until_waiting(&mut program).await;
    program.until("gaps are open", |report| report["checks"]["eth/source.deribit"]["gaps"]["open"] != 0).await;
    assert!(program.metric("tidegate_gaps_open").await > 0.0);
    let (since, sessions) = (std::time::Instant::now(), sessions(&bench));
    until_made(&bench, &mut program, 1_000).await;
    assert_eq!(self::sessions(&bench), sessions, "nobody dials");
    let away = since.elapsed().as_secs_f64();
    heal(&bench);
    program.until_logged("there is room again").await;
    program.until_committed(1_000).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    let report = program.next_report().await;
    let missed = report["checks"]["eth/source.deribit"]["gaps"]["unrepeatable_seconds"].as_f64().unwrap();
    assert!(missed >= away, "tickers of {away} s are lost, of {missed} s it is said; {}", program.log());
    assert!(program.metric("tidegate_unrepeatable_seconds_total").await >= away.floor());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_says_when_it_heard_the_last_whatever_becomes_of_the_process() {
    let bench = with_store_down(&spool("block")).await;
    let mut program = bench.run();
    until_full(&mut program, "nothing more is taken").await;
    until_waiting(&mut program).await;
    until_made(&bench, &mut program, 500).await;
    program.kill().await;
    let items = bench.dump();
    let ended = items.iter().rposition(|item| item["control"]["Ended"]["why"] == "the spool is full").unwrap();
    let claims = |item: &&Value| {
        let control = &item["control"];
        item.get("ts_recv").is_some() || control.get("Alive").is_some() || control.get("Confirmed").is_some()
    };
    let later: Vec<_> = items[ended..].iter().filter(claims).collect();
    assert!(later.is_empty(), "heard after the end: {later:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_blocks_and_loses_no_trade() {
    let Some(disk) = SmallDisk::mount("4m") else { return };
    let bench = with_store_down("[spool]\nsegment_bytes = \"512KiB\"\n").await;
    put_data_at(&bench, disk.path());
    let mut program = bench.run();
    until_full(&mut program, "nothing more is taken").await;
    disk.resize("200m");
    program.until_logged("there is room again").await;
    heal(&bench);
    program.until_committed(1_000).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_not_even_takes_the_note_of_a_position_is_drained_all_the_same_once_the_store_is_free() {
    let Some(disk) = SmallDisk::mount("3m") else { return };
    let spool = "[spool]\nsegment_bytes = \"256KiB\"\nkeep = \"1s\"\nwhen_full = \"block\"\n";
    let rest = format!("lock_timeout = \"100ms\"\n{spool}");
    let bench = Bench::start(busy(2_000.0), "queue = \"256KiB\"\n", &rest).await;
    put_data_at(&bench, disk.path());
    let mut program = bench.run();
    program.until_committed(500).await;
    let mut other = bench.connection().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    until_full(&mut program, "nothing more is taken").await;
    // What the spool has left, and what it had in reserve, is taken by somebody else: now no file can be written anew.
    drop(fs::remove_file(disk.path().join("eth/spool/reserve")));
    drop(fs::write(disk.path().join("filler"), vec![0; 3 << 20]));
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    program.until_logged("is not noted on this host").await;
    program.until_logged("there is room again").await;
    let committed = program.next_report().await["checks"]["eth/sink.sqlite"]["rows_committed"].as_u64().unwrap();
    program.until_committed(committed + 2_000).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_that_drops_the_newest_counts_what_it_drops_and_goes_on() {
    let bench = with_store_down(&spool("drop_newest")).await;
    let mut program = bench.run();
    until_full(&mut program, "counted and thrown away").await;
    program.until("rows are dropped", |report| dropped(report) > 100).await;
    program.kill().await;
    let entered = bench.dump().iter().filter(|item| item["control"].get("Dropped").is_some()).count();
    assert!(entered > 0, "what was dropped is in the spool");

    let mut program = bench.run();
    until_full(&mut program, "counted and thrown away").await;
    heal(&bench);
    program.until_logged("there is room again; of what was thrown away").await;
    goes_on_without_doubles(&bench, &mut program).await;
    bench.venue.resume();
    // Thrown away, and then come again: both are said, and that it is so only of what the venue repeats.
    let began = Instant::now();
    loop {
        let page = tidegate(bench.folder(), &["coverage", "eth.toml"]).printed;
        if page.contains("trades: ") && page.contains(" thrown away: spool full; all that was missing came again\n") {
            let tickers = page.lines().find(|line| line.starts_with("tickers: ") && line.contains("thrown away"));
            assert!(tickers.is_some_and(|line| line.ends_with("; the venue does not repeat it")), "{page}");
            break;
        }
        assert!(began.elapsed() < PATIENCE, "it never came again:\n{page}\n{}", program.log());
        program.next_report().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_that_drops_the_oldest_says_for_whom_and_goes_on() {
    let bench = with_store_down(&spool("drop_oldest")).await;
    let mut program = bench.run();
    until_full(&mut program, "the oldest segment goes").await;
    program.until("rows are dropped", |report| dropped(report) > 100).await;
    program.until_logged("rows, for sqlite").await;
    heal(&bench);
    goes_on_without_doubles(&bench, &mut program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_pipeline_had_in_hand_when_its_spool_dropped_the_oldest_is_stored_or_said_to_be_dropped() {
    let bench = Bench::start(busy(2_000.0), "", &spool("drop_oldest")).await;
    let mut program = bench.run();
    program.until_committed(1_000).await;
    for _ in 0..2 {
        let mut store = bench.connection().await;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut store).await.unwrap();
        program.until("rows are dropped", |report| dropped(report) > 2_000).await;
        program.kill().await;
        sqlx::query("ROLLBACK").execute(&mut store).await.unwrap();
        store.close().await.unwrap();
        program = bench.run();
        goes_on_without_doubles(&bench, &mut program).await;
        bench.venue.resume();
    }
    bench.venue.freeze();
    let idle = |report: &Value| report["checks"]["eth/sink.sqlite"]["oldest_uncommitted_seconds"].is_null();
    program.until("all that is spooled is stored", idle).await;
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    let args = ["coverage", "eth.toml", "--json"];
    let said = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(args).current_dir(bench.folder()).output().unwrap();
    let said: Value = serde_json::from_slice(&said.stdout).unwrap();
    let coverage = &said["coverage"];
    for kind in coverage["kinds"].as_array().unwrap() {
        let table = kind["table"].as_str().unwrap();
        let of_table = |dropped: &&Value| dropped["table"] == table && dropped["sink"] == "sqlite";
        let dropped = coverage["dropped"].as_array().unwrap().iter().filter(of_table);
        let dropped: i64 = dropped.map(|dropped| dropped["rows"].as_i64().unwrap()).sum();
        let spooled = kind["rows_received"].as_i64().unwrap() + kind["rows_backfilled"].as_i64().unwrap();
        let stored = bench.number(&format!("SELECT count(*) FROM {table}")).await;
        assert_eq!((stored + dropped, dropped > 100), (spooled, true), "{table}: {stored} stored, {dropped} dropped");
    }
    bench.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_cannot_be_made_stops_its_pipeline_and_no_other() {
    let bench = Bench::start(SimulatorConfig { rate: 500.0, ..SimulatorConfig::default() }, "", "").await;
    let other = bench.pipeline("", "").replace("name = \"eth\"", "name = \"stuck\"").replace("eth.sqlite", "s.sqlite");
    bench.write("stuck.toml", &other);
    fs::create_dir_all(bench.path("data/stuck")).unwrap();
    bench.write("data/stuck/spool", "a file where the folder has to be");
    let mut program = bench.run_all();
    program.until_committed(300).await;
    let report = program.next_report().await;
    let spool = &report["checks"]["stuck/spool"];
    assert_eq!(spool["status"], "failed", "{report:#}");
    let why = spool["reason"].as_str().unwrap();
    assert!(why.contains("stuck/spool") && why.contains("the pipeline does not run"), "{why}");
    assert_eq!(program.get("/health").await.0, 503);
    bench.settle(&mut program).await.assert_exact(&program.log());
    let (code, log) = program.stop().await;
    assert_eq!(code, 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_costs_its_entry_and_no_other() {
    let bench = with_store_down("[spool]\nsegment_bytes = \"256KiB\"\n").await;
    let mut program = bench.run();
    program.until("some segments", |_| segments(&bench).len() > 3).await;
    bench.venue.freeze();
    program.until("gaps are filled", |report| report["checks"]["eth/source.deribit"]["gaps"]["open"] == 0).await;
    program.stop().await;
    let sound = rows(&bench);
    let sealed = &segments(&bench)[1];
    let middle = fs::metadata(sealed).unwrap().len() / 2;
    flip(sealed, middle);
    let lost = sound - rows(&bench);
    assert!(lost > 0 && lost < 100, "{lost} of {sound} rows can be read no more");
    heal(&bench);
    let bench = bench.at("store/eth.sqlite");
    let mut program = bench.run();
    program.until_committed(sound - lost).await;
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("corrupt") && log.contains("lost"), "the loss is said:\n{log}");
    let comparison = bench.compare().await;
    assert_eq!(comparison.trades.twice + comparison.tickers.twice + comparison.invented, 0, "{comparison:?}");
    assert!(comparison.trades.missing + comparison.tickers.holes <= lost, "{comparison:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_flipped_in_what_is_delivered_later_is_said_once_and_counted() {
    let bench = with_store_down("[spool]\nsegment_bytes = \"256KiB\"\n").await;
    let mut program = bench.run();
    program.until("some segments", |_| segments(&bench).len() > 4).await;
    bench.venue.freeze();
    program.stop().await;
    // A restart reads the newest segment only.
    let sealed = &segments(&bench)[1];
    flip(sealed, fs::metadata(sealed).unwrap().len() / 2);
    let mut program = bench.run();
    program.until_logged("the spool ends at offset").await;
    heal(&bench);
    program.until_logged("of the spool cannot be read any more: lost").await;
    program
        .until("all is stored", |report| report["checks"]["eth/sink.sqlite"]["oldest_uncommitted_seconds"].is_null())
        .await;
    let deadline = Instant::now() + PATIENCE;
    while program.metric("tidegate_spool_lost_offsets").await == 0.0 {
        assert!(Instant::now() < deadline, "it is not counted");
        program.next_report().await;
    }
    let (_, log) = program.stop().await;
    assert_eq!(log.matches("of the spool cannot be read any more: lost").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_is_full_is_drained_after_any_number_of_restarts() {
    let bench = with_store_down(&spool("block")).await;
    let mut program = bench.run();
    until_full(&mut program, "nothing more is taken").await;
    program.kill().await;
    for _ in 0..3 {
        let mut program = bench.run();
        until_full(&mut program, "nothing more is taken").await;
        program.kill().await;
    }
    // Smaller than what is there, by more than a reserve.
    let smaller = spool("block").replace("1MiB", "256KiB").replace("128KiB", "64KiB");
    bench.write("eth.toml", &bench.pipeline("queue = \"256KiB\"\n", &smaller));
    heal(&bench);
    let mut program = bench.run();
    program.until_committed(1_000).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_frame_of_a_venue_ends_the_pipeline() {
    let source = "channels = [\"trades\", \"book_changes\"]\ninstruments = [\"ETH-PERPETUAL\"]\n";
    let bench = Bench::start(busy(2_000.0), source, "").await;
    let mut program = bench.run();
    program.until_committed(300).await;
    // Many that cannot be read, together more than one entry may have.
    for _ in 0..400 {
        bench.venue.inject(Fault::Frame("x".repeat(66 << 10)));
    }
    // A name of megabytes, and one row of megabytes.
    bench.venue.inject(Fault::Frame(trade_of(&"X".repeat(9 << 20))));
    bench.venue.inject(Fault::Frame(book_of(1_250_000)));
    let deadline = Instant::now() + PATIENCE;
    while program.metric("tidegate_malformed_total").await < 402.0 {
        assert!(Instant::now() < deadline, "not all are counted; the log:\n{}", program.log());
        program.next_report().await;
    }
    program.until_committed(600).await;
    let comparison = bench.settle(&mut program).await;
    assert_eq!(comparison.trades.missing + comparison.trades.twice, 0, "{comparison:?}\n{}", program.log());
    assert_eq!(program.get("/health/live").await.0, 200);
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_is_cut_and_said_and_costs_nothing() {
    let bench = Bench::start(busy(2_000.0), "", "").await;
    let mut program = bench.run();
    program.until_committed(500).await;
    program.kill().await;
    let last = segments(&bench).pop().unwrap();
    let end = fs::metadata(&last).unwrap().len();
    fs::OpenOptions::new().write(true).open(&last).unwrap().write_all_at(&[7; 1_000], end).unwrap();
    let mut program = bench.run();
    program.until_logged("that were never durable are cut off the spool's end").await;
    bench.settle(&mut program).await.assert_exact(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_come_and_go_under_load_and_kills_and_nothing_is_lost() {
    let bench =
        Bench::start(busy(2_000.0), "", "[spool]\nsegment_bytes = \"256KiB\"\nmax_bytes = \"8MiB\"\nkeep = \"0s\"\n")
            .await;
    let mut first = None;
    for _ in 0..4 {
        let mut program = bench.run();
        let begin = segments(&bench).first().cloned();
        first = first.or(begin);
        program.until_committed(3_000).await;
        program.kill().await;
    }
    let mut program = bench.run();
    program.until_committed(3_000).await;
    bench.settle(&mut program).await.assert_exact(&program.log());
    program.until("the first segment has gone", |_| segments(&bench).first() != first.as_ref()).await;
    program.until("the spool is small", |report| spool_bytes(report) < 3 << 20).await;
}

/// Returns a frame with a trade of an instrument of this name.
fn trade_of(name: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"trades.ETH-PERPETUAL.100ms","data":[{{"timestamp":1790165113907,"price":2722.7,"amount":1.0,"direction":"sell","index_price":2722.65,"instrument_name":"{name}","trade_seq":1,"mark_price":2722.16,"tick_direction":0,"trade_id":"ETH-1"}}]}}}}"#
    )
}

/// Returns a frame with a whole book of so many levels, which take more room in the spool than in the frame.
fn book_of(levels: usize) -> String {
    let levels = vec![r#"["new",1,1]"#; levels].join(",");
    format!(
        r#"{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"book.ETH-PERPETUAL.100ms","data":{{"timestamp":1790165113100,"type":"snapshot","change_id":1,"instrument_name":"ETH-PERPETUAL","bids":[{levels}],"asks":[]}}}}}}"#
    )
}

const DOWN: &str = "store";

/// Returns a bench whose store cannot be opened until [`heal`].
async fn with_store_down(spool: &str) -> Bench {
    let bench = Bench::start(busy(2_000.0), "queue = \"256KiB\"\n", "").await.at("store/eth.sqlite");
    bench.write(DOWN, "in the way");
    bench.write("eth.toml", &bench.pipeline("queue = \"256KiB\"\n", spool));
    bench
}

fn heal(bench: &Bench) {
    fs::remove_file(bench.path(DOWN)).unwrap();
}

fn spool(when_full: &str) -> String {
    format!("[spool]\nmax_bytes = \"1MiB\"\nsegment_bytes = \"128KiB\"\nkeep = \"0s\"\nwhen_full = \"{when_full}\"\n")
}

fn put_data_at(bench: &Bench, directory: &Path) {
    let host = fs::read_to_string(bench.path("tidegate.toml")).unwrap();
    bench.write("tidegate.toml", &format!("data_dir = \"{}\"\n{host}", directory.display()));
}

async fn until_full(program: &mut Program, what: &str) {
    let is_full = |report: &Value| {
        let spool = &report["checks"]["eth/spool"];
        spool["status"] == "degraded" && spool["reason"].as_str().is_some_and(|why| why.contains("the spool is full"))
    };
    let report = program.until("the spool is full", is_full).await;
    let why = report["checks"]["eth/spool"]["reason"].as_str().unwrap();
    assert!(why.contains(what), "{why}");
    program.until_logged(why).await;
}

async fn until_waiting(program: &mut Program) {
    let waits = |report: &Value| {
        let why = report["checks"]["eth/source.deribit"]["reason"].as_str().unwrap_or_default();
        why.contains("waiting for room in the spool")
    };
    program.until("the source waits", waits).await;
}

/// Waits until the venue has made so many trades more.
async fn until_made(bench: &Bench, program: &mut Program, more: u64) {
    let wanted = bench.venue.read(|oracle| oracle.trades_made) + more;
    bench.until_oracle(program, "trades are made", |oracle| oracle.trades_made >= wanted).await;
}

fn sessions(bench: &Bench) -> usize {
    bench.venue.read(|oracle| oracle.sessions.len())
}

/// Asserts that what is made from now on is stored, and nothing was stored twice.
async fn goes_on_without_doubles(bench: &Bench, program: &mut Program) {
    program.until_committed(1_000).await;
    until_made(bench, program, 200).await;
    bench.venue.freeze();
    let idle = |report: &Value| report["checks"]["eth/sink.sqlite"]["oldest_uncommitted_seconds"].is_null();
    program.until("all that is spooled is stored", idle).await;
    let comparison = bench.compare().await;
    assert_eq!(comparison.trades.twice + comparison.tickers.twice + comparison.invented, 0, "{comparison:?}");
}

fn dropped(report: &Value) -> u64 {
    report["checks"]["eth/spool"]["rows_dropped"].as_u64().unwrap_or(0)
}

fn spool_bytes(report: &Value) -> u64 {
    report["checks"]["eth/spool"]["bytes"].as_u64().unwrap_or(u64::MAX)
}

/// Returns the segments, oldest first.
fn segments(bench: &Bench) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(bench.path("data/eth/spool")) else { return Vec::new() };
    let mut segments: Vec<_> = found.map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|end| end == "seg"));
    segments.sort();
    segments
}

fn rows(bench: &Bench) -> u64 {
    bench.dump().iter().filter(|item| item.get("ts_recv").is_some()).count() as u64
}

fn flip(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
}
