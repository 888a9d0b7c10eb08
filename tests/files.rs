//! Rows in files, written by the real program that is killed on the way: nothing is lost, nothing is there twice.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use serde_json::Value;
use support::{Bench, PATIENCE, Power, Random};
use tidegate_sources::deribit::simulator::{
    Faults, SimulatorConfig,
    comparison::{Comparison, Stored, StoredTrade},
};
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn kills_and_power_cuts_at_any_moment_lose_no_line_and_double_none() {
    let bench = bench("format = \"json\"\nrotate = { bytes = \"64KiB\" }").await;
    killed_and_killed_again(&bench).await;
    assert!(files(&bench, "jsonl").len() > 4, "rotated: {:?}", files(&bench, "jsonl"));
}

#[cfg(feature = "parquet")]
#[tokio::test(flavor = "multi_thread")]
async fn kills_and_power_cuts_at_any_moment_lose_no_row_of_parquet_and_double_none() {
    let bench = bench("format = \"parquet\"\nrotate = { bytes = \"256KiB\", every = \"300ms\" }").await;
    killed_and_killed_again(&bench).await;
    assert!(files(&bench, "parquet").len() > 4, "rotated: {:?}", files(&bench, "parquet"));
}

#[cfg(feature = "parquet")]
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_the_parquet_files_in_work_and_leaves_nothing_behind() {
    let bench = bench("format = \"parquet\"").await;
    let mut program = bench.run();
    let accepted = |report: &Value| report["checks"]["eth/sink.file"]["rows_accepted"].as_u64() > Some(1_000);
    program.until("rows are accepted", accepted).await;
    assert_eq!(program.get("/health/ready").await.0, 200, "nothing is renamed for an hour, and that is no fault");
    assert_eq!(program.get("/health").await.0, 200);
    assert_eq!(files(&bench, "parquet"), Vec::<PathBuf>::new());
    assert_eq!(files(&bench, "part").len(), 2);

    program.signal("INT");
    let (code, log) = program.ended().await;
    let rows: usize = files(&bench, "parquet").iter().map(|path| rows(path).len()).sum();
    let stored = format!("file: {rows} rows stored since the start, nothing left in the spool");
    assert!(code == 0 && log.contains(&stored), "{code}, {stored}\n{log}");
    assert_eq!(files(&bench, "part"), Vec::<PathBuf>::new());
    assert_eq!(files(&bench, "parquet").len(), 2);
    // What was on its way when the lines were closed is asked for at the next start.
    let comparison = compare(&bench);
    let Comparison { trades, tickers, invented, .. } = &comparison;
    assert!(rows > 1_000 && trades.twice + tickers.twice + tickers.holes + invented == 0, "{comparison:?}");
}

#[cfg(feature = "parquet")]
#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_is_full_before_a_file_ends_is_refused() {
    let bench = bench("format = \"parquet\"\n[spool]\nmax_bytes = \"400MiB\"").await;
    let mut check = support::Program::start(bench.folder(), &["check", "eth.toml"]);
    let (code, log) = check.ended().await;
    let said = format!("{}{log}", check.printed());
    assert_ne!(code, 0, "{said}");
    assert!(said.contains("sink `file` lets rows of 256MiB wait in a spool of 400MiB"), "{said}");
}

/// A busy venue with faults, and a pipeline of trades and tickers into files.
async fn bench(sink: &str) -> Bench {
    let faults = Faults::parse("cut=12/m,malformed=6/m,duplicate=20/m,reorder=20/m,skip=10/m").unwrap();
    let config = SimulatorConfig { rate: 2_000.0, faults, ..SimulatorConfig::default() };
    let bench = Bench::start(config, "", "").await;
    let pipeline = bench.pipeline("", "");
    let (source, _) = pipeline.split_once("[sink.sqlite]").unwrap();
    let retry = "retry = { first = \"20ms\", longest = \"300ms\" }";
    bench.write("eth.toml", &format!("{source}[sink.file]\npath = \"rows/{{pipeline}}\"\n{retry}\n{sink}\n"));
    bench
}

/// Kills the program at any moment: before the spool is open, in the middle of a write, of a rotation, of the renames. Of three
/// deaths one is a power cut, where that can be had.
async fn killed_and_killed_again(bench: &Bench) {
    let seed = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("kills by seed {seed}");
    let mut random = Random::new(seed);
    let power = Power::of(bench.folder());
    let variables = power.as_ref().map_or_else(Vec::new, Power::variables);
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    for _ in 0..12 {
        let program = bench.run_with(&variables);
        tokio::time::sleep(Duration::from_millis(20 + random.below(1_200))).await;
        program.kill().await;
        if let Some(power) = power.as_ref().filter(|_| random.below(3) == 0) {
            println!("{:?}", power.cut(&mut random));
        }
    }
    let mut program = bench.run();
    let committed = |report: &Value| report["checks"]["eth/sink.file"]["rows_committed"].as_u64() > Some(1_000);
    program.until("1000 rows are committed", committed).await;
    bench.venue.mend();
    bench.venue.freeze();
    let deadline = Instant::now() + PATIENCE;
    while compare(bench).trades.missing > 0 && Instant::now() < deadline {
        program.next_report().await;
    }
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    compare(bench).assert_exact(&log);
    assert_eq!(files(bench, "part"), Vec::<PathBuf>::new());
}

fn compare(bench: &Bench) -> Comparison {
    let mut stored = Stored::default();
    for path in files(bench, "jsonl").into_iter().chain(files(bench, "parquet")) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        for row in rows(&path) {
            let symbol = row["symbol"].as_str().unwrap().to_owned();
            if name.starts_with("trades-") {
                stored.trades.entry(symbol).or_default().push(trade(&row));
            } else {
                stored.tickers.entry(symbol).or_default().push(row["volume_24h"].as_f64().unwrap());
            }
        }
    }
    bench.compare_with(&stored)
}

fn trade(row: &Value) -> StoredTrade {
    let at = humantime::parse_rfc3339(row["ts_event"].as_str().unwrap()).unwrap();
    StoredTrade {
        id: row["id"].as_str().unwrap().to_owned(),
        price: row["price"].as_f64().unwrap(),
        size: row["size"].as_f64().unwrap(),
        side: row["side"].as_str().unwrap().to_owned(),
        ts_event_ms: at.duration_since(UNIX_EPOCH).unwrap().as_millis() as i64,
        backfilled: row["origin"] == "backfill",
    }
}

/// Returns the rows of a file; of one that is being written, those that are whole.
fn rows(path: &Path) -> Vec<Value> {
    #[cfg(feature = "parquet")]
    if path.extension().is_some_and(|end| end == "parquet") {
        return rows_of_parquet(path);
    }
    let text = fs::read(path).unwrap();
    text.split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.ends_with(b"\n"))
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

#[cfg(feature = "parquet")]
fn rows_of_parquet(path: &Path) -> Vec<Value> {
    let file = fs::File::open(path).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let mut rows = Vec::new();
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        let lines = tidegate::chunk::JsonRows::new(&batch);
        for row in 0..batch.num_rows() {
            let mut text = Vec::new();
            lines.write(row, &mut text);
            rows.push(serde_json::from_slice(&text).unwrap());
        }
    }
    rows
}

/// Returns the files whose names end so.
fn files(bench: &Bench, extension: &str) -> Vec<PathBuf> {
    let Ok(all) = fs::read_dir(bench.path("rows/eth")) else { return Vec::new() };
    let mut files: Vec<PathBuf> = all
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}
