//! Nothing is lost or doubled on the way into Kafka, whoever is killed or frozen at whatever moment: the real program between
//! the simulator and a real broker, read back by a consumer of committed messages.
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

mod support;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use serde_json::Value;
use support::{Bench, PATIENCE, Program, Random, busy, faulty::QUICK, tidegate};
use tidegate::testkit::Server;
use tidegate_sources::deribit::simulator::{
    BookKey, Faults, SimulatorConfig,
    comparison::{Comparison, Stored, StoredTrade},
};
use tokio::{task::block_in_place, time::sleep};

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_the_program_and_of_the_broker_lose_nothing_and_double_nothing() {
    let seed = std::env::var("TIDEGATE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 % 1_000_000_000);
    println!("TIDEGATE_SEED={seed}");
    let mut random = Random::new(seed);
    let mut server = Server::start("kafka");
    let bench = bench(&server, SimulatorConfig { seed, ..faulty() }).await;
    let mut story = Vec::new();
    for life in 1..=8 {
        let program = bench.run();
        let lives = Duration::from_millis(200 + random.below(3_000));
        sleep(lives.mul_f64(0.7)).await;
        let trouble = ["none", "none", "killed", "frozen"][random.below(4) as usize];
        match trouble {
            "killed" => block_in_place(|| server.kill()),
            "frozen" => block_in_place(|| server.freeze()),
            _ => {}
        }
        sleep(lives.mul_f64(0.3)).await;
        program.kill().await;
        match trouble {
            "killed" => block_in_place(|| server.restart()),
            "frozen" => block_in_place(|| server.thaw()),
            _ => {}
        }
        story.push(format!("life {life} of {lives:?}, broker {trouble}, kill -9"));
    }
    // One more death of the broker beside a program that lives on.
    let mut program = bench.run();
    until_committed(&mut program, 1_000).await;
    block_in_place(|| server.kill());
    program.until("it waits for the broker", |report| sink(report)["status"] == "degraded").await;
    block_in_place(|| server.restart());
    let comparison = settle(&bench, &server, &mut program).await;
    let verified = tidegate(bench.folder(), &["verify", "eth.toml"]);
    assert_eq!(verified.code, 0, "{verified:?}\n{story:#?}\nthe log:\n{}", program.log());
    comparison.assert_exact(&format!("TIDEGATE_SEED={seed}: {story:#?}\n{verified:?}\nthe log:\n{}", program.log()));
    println!(
        "{} trades owed, {} tickers, {} books stored",
        comparison.trades.made, comparison.tickers.stored, comparison.books.stored
    );
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
    let verified = tidegate(bench.folder(), &["verify", "eth.toml"]);
    assert_eq!(verified.code, 0, "{verified:?}");
    assert!(verified.printed.contains("kafka: agrees"), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_program_on_a_copy_of_the_spool_stops_the_first_and_says_so() {
    let server = Server::start("kafka");
    let bench = bench(&server, busy(500.0)).await;
    let mut first = bench.run();
    first.until_logged("exactly-once (read_committed readers)").await;
    until_committed(&mut first, 200).await;
    // As a copied machine does: the same names, another history from here on.
    first.signal("STOP");
    let copied = std::process::Command::new("cp").args(["-r", "data", "copy"]).current_dir(bench.folder()).status();
    first.signal("CONT");
    assert!(copied.unwrap().success());
    bench.write("copy.toml", "listen = \"127.0.0.1:0\"\ndata_dir = \"copy\"\n[log]\nstats = \"0s\"\n");
    let args = ["run", "eth.toml", "--host", "copy.toml", "--supervised", "50ms"];
    let mut second = Program::start(bench.folder(), &args);
    // Whichever of the two the store still fits stays; the other one stops for good, and says why.
    let deadline = Instant::now() + PATIENCE;
    let mut failed = Vec::new();
    while failed.is_empty() {
        assert!(Instant::now() < deadline, "nobody stops: {}\n---\n{}", first.log(), second.log());
        for program in [&mut first, &mut second] {
            let report = program.next_report().await;
            if sink(&report)["status"] == "failed" {
                failed.push(sink(&report)["reason"].to_string());
            }
        }
    }
    for program in [first, second] {
        program.kill().await;
    }
    let numbers = stored(server.url());
    let twice: usize = numbers
        .trades
        .values()
        .map(|trades| {
            let mut ids: Vec<_> = trades.iter().map(|trade| &trade.id).collect();
            ids.sort_unstable();
            let all = ids.len();
            ids.dedup();
            all - ids.len()
        })
        .sum();
    assert_eq!(twice, 0, "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_topic_that_was_deleted_stops_the_sink_with_the_ways_out() {
    let server = Server::start("kafka");
    let bench = bench(&server, busy(500.0)).await;
    let mut program = bench.run();
    until_committed(&mut program, 200).await;
    let admin: rdkafka::admin::AdminClient<_> =
        ClientConfig::new().set("bootstrap.servers", server.url()).create().unwrap();
    let options = rdkafka::admin::AdminOptions::new();
    admin.delete_topics(&["tidegate.eth.kafka.position"], &options).await.unwrap().remove(0).unwrap();
    let report = program.until("it stops", |report| sink(report)["status"] == "failed").await;
    let why = sink(&report)["reason"].as_str().unwrap().to_owned();
    assert!(why.contains("tidegate adopt"), "{why}");
    program.kill().await;

    let adopted = bench.paste(&why, "--from-log");
    assert_eq!(adopted.code, 0, "{adopted:?}");
    let mut program = bench.run();
    until_committed(&mut program, 200).await;
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");
}

async fn bench(server: &Server, config: SimulatorConfig) -> Bench {
    let bench = Bench::start(config, "", "").await;
    let source = format!(
        "{QUICK}ping = {{ every = \"300ms\", timeout = \"300ms\" }}\n\
         channels = [\"trades\", \"tickers\", \"quotes\", \"book_changes\"]\n\
         instruments = [\"ETH-PERPETUAL\", {{ currency = \"ETH\", kind = \"option\", top = 20 }}]\n"
    );
    let text = bench.pipeline(&source, "");
    let (feed, _) = text.split_once("[sink.sqlite]").unwrap();
    let sink = format!(
        "[sink.kafka]\nbrokers = \"{}\"\ncreate = {{ partitions = 3 }}\ntimeout = \"5s\"\ntransaction_timeout = \"10s\"\n\
         probe = {{ every = \"1s\", timeout = \"5s\" }}\nretry = {{ first = \"20ms\", longest = \"300ms\" }}\n\
         breaker = {{ failures = 5, open_for = \"200ms\", successes = 1 }}\n\
         [spool]\nsegment_bytes = \"512KiB\"\n",
        server.url()
    );
    bench.write("eth.toml", &format!("{feed}{sink}"));
    bench
}

fn faulty() -> SimulatorConfig {
    let faults = "cut=12/m,torn=4/m,close=4/m,malformed=6/m,duplicate=20/m,reorder=20/m,skip=20/m,skip_book=10/m,\
                  rest_down=3/m,rest_lag=4/m";
    SimulatorConfig { faults: Faults::parse(faults).unwrap(), ..busy(500.0) }
}

fn sink(report: &Value) -> &Value {
    &report["checks"]["eth/sink.kafka"]
}

async fn until_committed(program: &mut Program, rows: u64) {
    let what = format!("{rows} rows committed");
    program
        .until(&what, |report| sink(report)["rows_committed"].as_u64().is_some_and(|committed| committed >= rows))
        .await;
}

/// Stops the venue from making anything more, waits until all that is owed is stored, and compares.
async fn settle(bench: &Bench, server: &Server, program: &mut Program) -> Comparison {
    bench.venue.mend();
    bench.venue.freeze();
    // What a first answer cannot prove is asked for again a minute later.
    let deadline = Instant::now() + 4 * PATIENCE;
    loop {
        let comparison = bench.compare_with(&block_in_place(|| stored(server.url())));
        let holes: u64 = comparison.unrepeated().map(|kind| kind.holes).sum();
        if comparison.trades.missing + holes == 0 || Instant::now() > deadline {
            return comparison;
        }
        program.next_report().await;
    }
}

/// Reads what a consumer of committed messages sees of trades, tickers, quotes and books.
fn stored(brokers: &str) -> Stored {
    let mut stored = Stored::default();
    let symbol = |row: &Value| row["symbol"].as_str().unwrap().to_owned();
    for row in rows(brokers, "trades") {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        let trade = StoredTrade {
            id: text("id"),
            price: row["price"].as_f64().unwrap(),
            size: row["size"].as_f64().unwrap(),
            side: text("side"),
            ts_event_ms: milliseconds(&row),
            backfilled: row["origin"] == "backfill",
        };
        stored.trades.entry(symbol(&row)).or_default().push(trade);
    }
    for row in rows(brokers, "tickers") {
        match row["volume_24h"].as_f64() {
            Some(volume) => stored.tickers.entry(symbol(&row)).or_default().push(volume),
            None => stored.unknown_tickers += 1,
        }
    }
    for row in rows(brokers, "quotes") {
        stored.quotes.entry(symbol(&row)).or_default().push(milliseconds(&row));
    }
    for row in rows(brokers, "book_changes") {
        let key = BookKey { change_id: row["seq"].as_u64().unwrap(), snapshot: row["snapshot"].as_bool().unwrap() };
        stored.books.entry(symbol(&row)).or_default().push(key);
    }
    stored
}

fn milliseconds(row: &Value) -> i64 {
    let time = humantime::parse_rfc3339(row["ts_event"].as_str().unwrap()).unwrap();
    time.duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn rows(brokers: &str, topic: &str) -> Vec<Value> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "independent")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "10")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let mut assignment = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        assignment.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
    }
    // A partition that is written to ends more than once.
    let mut open: BTreeSet<i32> = metadata.topics()[0].partitions().iter().map(|partition| partition.id()).collect();
    consumer.assign(&assignment).unwrap();
    let (mut rows, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    while !open.is_empty() {
        assert!(Instant::now() < deadline, "{topic} cannot be read to its end");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => rows.push(serde_json::from_slice(message.payload().unwrap()).unwrap()),
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
            Some(Err(_)) | None => {}
        }
    }
    rows
}
