//! Log → QuestDB against bare questdb-rs over HTTP: the same rows with the same columns, `tg_` ones included, requests of the
//! same size, the same dedup keys. Prints the medians, of what the server has accepted and of what it has applied, and their
//! ratios.
//!
//! `cargo bench -p tidegate-sinks --features questdb --bench questdb [-- ROWS]`
//!
//! Starts a server by `scripts/services`; everything shares the machine.

use std::time::{Duration, Instant};

use questdb::ingress::{Buffer, Sender, TimestampNanos};
use tidegate_core::{
    catalog::Component,
    http::HttpClient,
    row::{Label, Mark, Position, Table, Timestamp, kinds::Trade},
    testkit::{MemoryLog, Server},
};
use tidegate_sinks::questdb::QuestDbConfig;

const ROUNDS: usize = 5;
const BEGIN: i64 = 1_795_513_263_000_000_000;
/// Between rows: a day of them goes into a few partitions, as a feed's do.
const APART: i64 = 1_000_000;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Thousands of rows a second: accepted, and applied.
type Speed = (f64, f64);

#[tokio::main]
async fn main() -> Outcome<()> {
    let rows: u64 = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(200_000);
    let log = MemoryLog::new("deribit", vec![Table::of::<Trade<'_>>()]);
    for n in 1..=rows {
        let id = format!("ETH-{n}");
        let ts_event = Timestamp(BEGIN + n.cast_signed() * APART);
        let mark = Mark { symbol: "ETH-24NOV26-3000-C", position: Position::Sequence(n), ts_event };
        let (price, size) = (n as f64 / 7.0, 1.5);
        let trade = Trade { price, size, side: Some(Label("buy")), id: Some(&id), iv: Some(55.5), ..Trade::default() };
        log.emit(mark, &trade);
    }
    let server = tokio::task::spawn_blocking(|| Server::start("questdb")).await?;
    println!("{rows} trades of 18 columns, k rows/s, accepted / applied, median of {ROUNDS}");
    for chunk in [1_000, 5_000, 20_000] {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let name = format!("c{chunk}r{round}");
            ours.push(through_the_sink(&log, server.url(), &name, rows, chunk).await?);
            bare.push(by_the_client(server.url(), &name, rows, chunk).await?);
        }
        let (ours, bare) = (median(ours), median(bare));
        println!(
            "chunks of {chunk:>6}: sink {:>6.0} / {:>6.0}   questdb-rs {:>6.0} / {:>6.0}   ratio {:.2} / {:.2}",
            ours.0,
            ours.1,
            bare.0,
            bare.1,
            ours.0 / bare.0,
            ours.1 / bare.1
        );
    }
    Ok(())
}

/// From the rows as the spool has them.
async fn through_the_sink(log: &MemoryLog, url: &str, name: &str, rows: u64, chunk: u64) -> Outcome<Speed> {
    let directory = tempfile::tempdir()?;
    let owners = format!("{name}_owners");
    let config: QuestDbConfig = serde_json::from_value(serde_json::json!({ "url": url, "owners": owners }))?;
    let mut sink = config.build()?;
    let mut context = log.context(directory.path());
    context.tables[0].name = format!("{name}_sink");
    sink.open(&context).await?;
    let began = Instant::now();
    let mut applied = 0;
    for from in (0..rows).step_by(chunk as usize) {
        sink.write(&log.chunk(from, (from + chunk).min(rows))).await?;
        // As often as the driver asks, at least.
        applied = sink.applied().await?.map_or(applied, |position| position.offset);
    }
    let accepted = began.elapsed();
    while applied < rows {
        applied = sink.applied().await?.map_or(applied, |position| position.offset);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let speed = speed(rows, accepted, began.elapsed());
    sink.close().await?;
    drop_table(url, &context.tables[0].name).await?;
    Ok(speed)
}

/// What somebody writes who has the values at hand and nothing else to do.
async fn by_the_client(url: &str, name: &str, rows: u64, chunk: u64) -> Outcome<Speed> {
    let table = format!("{name}_bare");
    sql(
        url,
        &format!(
            "CREATE TABLE {table} (ts_event TIMESTAMP_NS, ts_recv TIMESTAMP_NS, venue SYMBOL, symbol SYMBOL, seq LONG,
             origin SYMBOL, price DOUBLE, size DOUBLE, side SYMBOL, id VARCHAR, iv DOUBLE, mark_price DOUBLE,
             index_price DOUBLE, liquidation SYMBOL, block_trade_id VARCHAR, tg_boot LONG, tg_pos LONG, tg_sub INT)
             TIMESTAMP(ts_event) PARTITION BY DAY WAL DEDUP UPSERT KEYS(ts_event, tg_boot, tg_pos, tg_sub)"
        ),
    )
    .await?;
    let address = url.trim_start_matches("http://").to_owned();
    let (writing, began) = (table.clone(), Instant::now());
    let accepted = tokio::task::spawn_blocking(move || -> questdb::Result<Duration> {
        let mut sender = Sender::from_conf(format!("http::addr={address};protocol_version=2;"))?;
        let mut buffer = sender.new_buffer();
        for from in (0..rows).step_by(chunk as usize) {
            for n in from + 1..=(from + chunk).min(rows) {
                row(&mut buffer, &writing, n.cast_signed())?;
            }
            sender.flush(&mut buffer)?;
        }
        Ok(began.elapsed())
    })
    .await??;
    while number(url, &format!("SELECT sequencerTxn - writerTxn FROM wal_tables() WHERE name = '{table}'")).await? > 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let speed = speed(rows, accepted, began.elapsed());
    drop_table(url, &table).await?;
    Ok(speed)
}

fn row(buffer: &mut Buffer, table: &str, n: i64) -> questdb::Result<()> {
    buffer.table(table)?.symbol("venue", "deribit")?.symbol("symbol", "ETH-24NOV26-3000-C")?;
    buffer.symbol("origin", "live")?.symbol("side", "buy")?;
    buffer.column_ts("ts_recv", TimestampNanos::new(BEGIN))?.column_i64("seq", n)?;
    buffer.column_f64("price", n as f64 / 7.0)?.column_f64("size", 1.5)?;
    buffer.column_str("id", format!("ETH-{n}"))?.column_f64("iv", 55.5)?;
    buffer.column_i64("tg_boot", 1)?.column_i64("tg_pos", n)?.column_i64("tg_sub", 0)?;
    buffer.at(TimestampNanos::new(BEGIN + n * APART))
}

async fn drop_table(url: &str, table: &str) -> Outcome<()> {
    sql(url, &format!("DROP TABLE {table}")).await.map(drop)
}

async fn number(url: &str, query: &str) -> Outcome<i64> {
    Ok(sql(url, query).await?["dataset"][0][0].as_i64().ok_or("no number")?)
}

async fn sql(url: &str, query: &str) -> Outcome<serde_json::Value> {
    let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let client = HttpClient::new();
    let request =
        client.client(url).await.map_err(|error| error.to_string())?.get(format!("{url}/exec?query={escaped}"));
    Ok(serde_json::from_slice(&request.send().await?.bytes().await?)?)
}

fn speed(rows: u64, accepted: Duration, applied: Duration) -> Speed {
    let of = |time: Duration| rows as f64 / time.as_secs_f64() / 1e3;
    (of(accepted), of(applied))
}

fn median(mut speeds: Vec<Speed>) -> Speed {
    let mut of = |part: fn(&Speed) -> f64| {
        speeds.sort_by(|a, b| part(a).total_cmp(&part(b)));
        part(&speeds[speeds.len() / 2])
    };
    (of(|speed| speed.0), of(|speed| speed.1))
}
