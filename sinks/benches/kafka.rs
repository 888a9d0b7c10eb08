//! What exactly-once costs: chunks through the sink beside the same messages through a bare transactional producer, on one
//! broker, in turns. Same topic settings, keys, values, headers, compression, chunk size, and a record of the position in
//! each transaction. `KAFKA_BROKER` names the broker: `scripts/services start kafka`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench says what it finds")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use tidegate_core::{
    catalog::Component,
    chunk::{Chunk, JsonRows},
    row::{
        Label, Mark, Position, Table, Timestamp,
        kinds::{Ticker, Trade},
    },
    sink::{Sink, Written},
    testkit::MemoryLog,
};
use tidegate_sinks::kafka::KafkaConfig;
use tokio::runtime::Runtime;

fn main() {
    let Ok(brokers) = std::env::var("KAFKA_BROKER") else {
        println!("no KAFKA_BROKER: scripts/services start kafka");
        return;
    };
    let runtime = Runtime::new().unwrap();
    for (what, rows, chunk_rows) in [("trades", 200_000, 5_000), ("tickers", 100_000, 5_000), ("trades", 20_000, 200)] {
        let chunks = chunks(what, rows, chunk_rows);
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            ours.push(runtime.block_on(through_the_sink(&brokers, what, &chunks)));
            bare.push(runtime.block_on(bare_producer(&brokers, what, &chunks)));
        }
        let best = |times: &[Duration]| times.iter().min().copied().unwrap();
        let rate = |time: Duration| rows as f64 / time.as_secs_f64();
        println!(
            "{what}, {chunk_rows} a chunk: sink {:.0} rows/s, bare {:.0} rows/s, ratio {:.2}",
            rate(best(&ours)),
            rate(best(&bare)),
            rate(best(&ours)) / rate(best(&bare))
        );
    }
}

fn chunks(what: &str, rows: u64, chunk_rows: u64) -> Vec<Chunk> {
    let log = MemoryLog::new("deribit", vec![Table::of::<Trade<'_>>(), Table::of::<Ticker<'_>>()]);
    for n in 1..=rows {
        let symbol = format!("ETH-{}-C", n % 50);
        let ts_event = Timestamp(1_795_513_263_000_000_000 + n.cast_signed());
        let mark = Mark { symbol: &symbol, position: Position::Sequence(n), ts_event };
        if what == "trades" {
            let (id, price) = (format!("ETH-{n}"), 0.0525 + n as f64 * 1e-7);
            let side = Some(Label("buy"));
            log.emit(mark, &Trade { id: Some(&id), price, size: 12.0, side, ..Trade::default() });
        } else {
            let number = Some(0.0525 + n as f64 * 1e-7);
            log.emit(
                mark,
                &Ticker { last_price: number, mark_price: number, index_price: number, ..Ticker::default() },
            );
        }
    }
    (0..rows / chunk_rows).map(|n| log.chunk(n * chunk_rows, (n + 1) * chunk_rows)).collect()
}

fn unique(what: &str) -> String {
    format!("bench-{what}-{}", SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos())
}

/// Makes the topics, and returns an open sink on them.
async fn opened(brokers: &str, name: &str) -> Box<dyn Sink> {
    let config = serde_json::json!({ "brokers": brokers, "create": { "partitions": 3 } });
    let config: KafkaConfig = serde_json::from_value(config).unwrap();
    let log = MemoryLog::new("deribit", vec![Table::of::<Trade<'_>>(), Table::of::<Ticker<'_>>()]);
    let mut context = log.context(std::path::Path::new("."));
    context.owner.pipeline = name.to_owned();
    for table in &mut context.tables {
        table.name = format!("{name}.{}", table.table.name);
    }
    let mut sink = config.build().unwrap();
    sink.open(&context).await.unwrap();
    sink
}

async fn through_the_sink(brokers: &str, what: &str, chunks: &[Chunk]) -> Duration {
    let mut sink = opened(brokers, &unique(what)).await;
    let began = Instant::now();
    for chunk in chunks {
        assert!(matches!(sink.write(chunk).await, Ok(Written::Committed)));
    }
    began.elapsed()
}

/// The same messages, encoded within the time as ours are: by the same code, since it is the client that is compared.
async fn bare_producer(brokers: &str, what: &str, chunks: &[Chunk]) -> Duration {
    let name = unique(what);
    drop(opened(brokers, &name).await);
    let (brokers, chunks, topic) = (brokers.to_owned(), chunks.to_vec(), format!("{name}.{what}"));
    let bare = tokio::task::spawn_blocking(move || {
        let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("transactional.id", &name)
            .set("compression.type", "lz4")
            .set("linger.ms", "1")
            .set("batch.size", "1000000")
            .set("queue.buffering.max.messages", "1000000")
            .set("partitioner", "murmur2_random")
            .create()
            .unwrap();
        producer.init_transactions(Duration::from_secs(30)).unwrap();
        let position = format!("tidegate.{name}.sink.position");
        let began = Instant::now();
        for chunk in &chunks {
            producer.begin_transaction().unwrap();
            for part in &chunk.tables {
                let rows = JsonRows::new(&part.rows);
                let mut value = Vec::new();
                for row in 0..part.rows.num_rows() {
                    value.clear();
                    rows.write(row, &mut value);
                    let key = format!("ETH-{}-C", part.causes[row].offset % 50);
                    let cause = part.causes[row].to_string();
                    let headers = OwnedHeaders::new_with_capacity(3)
                        .insert(Header { key: "tg_position", value: Some(cause.as_str()) })
                        .insert(Header { key: "tg_origin", value: Some("live") })
                        .insert(Header { key: "tg_schema", value: Some("trades/0123456789abcdef") });
                    producer.send(BaseRecord::to(&topic).key(&key).payload(&value).headers(headers)).unwrap();
                }
            }
            producer.send(BaseRecord::to(&position).key("position").payload(&[b'x'; 300][..])).unwrap();
            while producer.in_flight_count() > 0 {
                std::hint::spin_loop();
                std::thread::yield_now();
            }
            producer.commit_transaction(Duration::from_secs(30)).unwrap();
        }
        began.elapsed()
    });
    bare.await.unwrap()
}
