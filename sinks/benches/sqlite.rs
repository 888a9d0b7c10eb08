//! Log → SQLite against a bare loop of multi-row inserts: the same rows, transactions of the same size, the same
//! `synchronous = FULL`. Prints the medians and their ratio.
//!
//! `cargo bench -p tidegate-sinks --bench sqlite [-- ROWS]`

use std::time::Instant;

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tidegate_core::{
    catalog::Component,
    row::{Label, Mark, Position, Table, Timestamp, kinds::Trade},
    testkit::MemoryLog,
};
use tidegate_sinks::sqlite::SqliteConfig;

const ROUNDS: usize = 5;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let rows = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(200_000);
    let log = MemoryLog::new("deribit", vec![Table::of::<Trade<'_>>()]);
    for n in 1..=rows {
        let id = format!("ETH-{n}");
        let mark = Mark { symbol: "ETH-24NOV26-3000-C", position: Position::Sequence(n), ts_event: Timestamp(1) };
        let (price, size) = (n as f64 / 7.0, 1.5);
        let trade = Trade { price, size, side: Some(Label("buy")), id: Some(&id), iv: Some(55.5), ..Trade::default() };
        log.emit(mark, &trade);
    }
    println!("{rows} trades of 15 columns, k rows/s, median of {ROUNDS}");
    for chunk in [1_000, 5_000, 20_000] {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(through_the_sink(&log, rows, chunk).await?);
            bare.push(by_a_bare_loop(rows, chunk).await?);
        }
        let (ours, bare) = (median(ours), median(bare));
        println!("chunks of {chunk:>6}: sink {ours:>7.0}   bare loop {bare:>7.0}   ratio {:.2}", ours / bare);
    }
    Ok(())
}

/// From the rows as the spool has them to commits.
async fn through_the_sink(log: &MemoryLog, rows: u64, chunk: u64) -> Outcome<f64> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("sink.sqlite");
    let config: SqliteConfig = serde_json::from_value(serde_json::json!({ "path": path }))?;
    let mut sink = config.build()?;
    sink.open(&log.context(directory.path())).await?;
    let began = Instant::now();
    for from in (0..rows).step_by(chunk as usize) {
        sink.write(&log.chunk(from, (from + chunk).min(rows))).await?;
    }
    let speed = rows as f64 / began.elapsed().as_secs_f64() / 1e3;
    sink.close().await?;
    Ok(speed)
}

/// What somebody writes who has the values at hand and nothing else to do.
async fn by_a_bare_loop(rows: u64, chunk: u64) -> Outcome<f64> {
    let directory = tempfile::tempdir()?;
    let options = SqliteConnectOptions::new()
        .filename(directory.path().join("bare.sqlite"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut connection = options.connect().await?;
    sqlx::raw_sql(
        "CREATE TABLE trades (ts_event INTEGER, ts_recv INTEGER, venue TEXT, symbol TEXT, seq ANY, origin TEXT,
         price REAL, size REAL, side TEXT, id TEXT, iv REAL, mark_price REAL, index_price REAL, liquidation TEXT,
         block_trade_id TEXT) STRICT",
    )
    .execute(&mut connection)
    .await?;
    let began = Instant::now();
    for from in (0..rows).step_by(chunk as usize) {
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await?;
        let to = (from + chunk).min(rows);
        for start in (from..to).step_by(1_000) {
            insert(&mut connection, start, (start + 1_000).min(to)).await?;
        }
        sqlx::raw_sql("COMMIT").execute(&mut connection).await?;
    }
    let speed = rows as f64 / began.elapsed().as_secs_f64() / 1e3;
    connection.close().await?;
    Ok(speed)
}

async fn insert(connection: &mut SqliteConnection, from: u64, to: u64) -> Outcome<()> {
    let row = "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";
    let rows = vec![row; (to - from) as usize].join(",");
    let mut query = sqlx::query(AssertSqlSafe(format!("INSERT INTO trades VALUES {rows}")));
    for n in from + 1..=to {
        query = query.bind(1_i64).bind(1_i64).bind("deribit").bind("ETH-24NOV26-3000-C").bind(n.cast_signed());
        query = query.bind("live").bind(n as f64 / 7.0).bind(1.5).bind("buy").bind(format!("ETH-{n}")).bind(55.5);
        query = query.bind(None::<f64>).bind(None::<f64>).bind(None::<&str>).bind(None::<&str>);
    }
    query.execute(connection).await?;
    Ok(())
}

fn median(mut speeds: Vec<f64>) -> f64 {
    speeds.sort_by(f64::total_cmp);
    speeds[speeds.len() / 2]
}
