//! Loaders of one consumer group between a real broker and a real Postgres, as real processes: whoever is killed, paused or
//! joins, each row is stored once, and those of a partition in their order.
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::Headers,
};
use serde_json::{Value, json};
use support::{PATIENCE, Program, Random, tidegate};
use tempfile::TempDir;
use tidegate::{
    catalog::Component,
    row::{
        Mark, Position, Table, Timestamp,
        kinds::{Quote, Trade},
    },
    sink::{Sink, SinkContext, Written},
    testkit::{MemoryLog, Server},
};
use tidegate_sinks::kafka::KafkaConfig;
use tokio::{
    task::{JoinHandle, block_in_place},
    time::{Instant, sleep},
};
use tokio_postgres::{Client, NoTls};

#[tokio::test(flavor = "multi_thread")]
async fn loaders_that_are_killed_paused_and_joined_store_each_row_once_and_in_order() {
    let seed = std::env::var("TIDEGATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(29);
    println!("TIDEGATE_SEED={seed}");
    let mut random = Random::new(seed);
    let bench = Bench::start(["trades", "quotes"]).await;
    let [mut trades, mut quotes] = [
        Collector::open(&bench, "collect-trades", "json", Table::of::<Trade<'_>>()).await,
        Collector::open(&bench, "collect-quotes", "arrow", Table::of::<Quote>()).await,
    ];
    let first = bench.loader("a");
    bench.until_tables(&["trades", "quotes"]).await;
    for table in ["trades", "quotes"] {
        // What is stored later has a higher number.
        bench.sql(&format!("ALTER TABLE {table} ADD COLUMN n bigserial")).await;
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let over = is_over.clone();
    let producing: JoinHandle<[Collector; 2]> = tokio::spawn(async move {
        while !over.load(Ordering::Relaxed) {
            trades
                .write(120, |log, mark| _ = log.emit(mark, &Trade { price: 1.5, size: 2.0, ..Trade::default() }))
                .await;
            quotes.write(80, |log, mark| _ = log.emit(mark, &Quote { bid_price: Some(0.5), ..Quote::default() })).await;
            sleep(Duration::from_millis(30)).await;
        }
        [trades, quotes]
    });

    let mut story = Vec::new();
    let mut second = bench.loader("b");
    // Killed at random moments, and restarted.
    for life in 1..=6 {
        let lives = Duration::from_millis(300 + random.below(4_000));
        sleep(lives).await;
        second.kill().await;
        story.push(format!("b: life {life} of {lives:?}, kill -9"));
        second = bench.loader("b");
    }
    // Paused past the session timeout, while the other one has its partitions, and thawed.
    let before = bench.number("SELECT count(*) FROM trades").await;
    for pause in 1..=2 {
        first.signal("STOP");
        sleep(SESSION + Duration::from_millis(2_000 + random.below(2_000))).await;
        first.signal("CONT");
        story.push(format!("a: pause {pause}"));
        sleep(Duration::from_millis(500 + random.below(1_500))).await;
    }
    let after = bench.until_more("trades", before).await;
    story.push(format!("{before} trades before the pauses, {after} after"));
    // A third one joins, and the second is killed beside it.
    let third = bench.loader("c");
    sleep(Duration::from_millis(1_000 + random.below(3_000))).await;
    second.kill().await;
    story.push("c joined, b killed".to_owned());
    let second = bench.loader("b");
    sleep(Duration::from_millis(2_000)).await;
    is_over.store(true, Ordering::Relaxed);
    let [trades, quotes] = producing.await.unwrap();

    let logs = || format!("{story:#?}\na:\n{}\nb:\n{}\nc:\n{}", first.log(), second.log(), third.log());
    for (collector, table) in [(&trades, "trades"), (&quotes, "quotes")] {
        bench.assert_once_and_in_order(table, collector.made, &logs).await;
    }
    let epochs = bench.number("SELECT sum(epoch)::bigint FROM tidegate_position").await;
    println!("{story:#?}; parts were opened {epochs} times");
    assert!(first.log().matches("gave back load").count() >= 2, "the paused one has lost its partitions: {}", logs());
    for program in [first, second, third] {
        let (code, log) = program.stop().await;
        assert_eq!(code, 0, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_row_and_what_is_no_more_is_told_and_a_topic_made_again_stops_its_partitions() {
    let bench = Bench::start(["trades"]).await;
    let trade =
        |log: &MemoryLog, mark: Mark<'_>| _ = log.emit(mark, &Trade { price: 1.5, size: 2.0, ..Trade::default() });
    let mut collector = Collector::open(&bench, "first", "json", Table::of::<Trade<'_>>()).await;
    let mut loader = bench.loader("a");
    bench.until_tables(&["trades"]).await;
    collector.write(200, trade).await;
    bench.until_more("trades", 199).await;
    block_in_place(|| {
        spoil(bench.kafka.url(), "trades");
    });
    collector.write(100, trade).await;
    bench.until_more("trades", 299).await;
    // Aborted messages and the ends of transactions are nobody's loss, and nothing is behind.
    let report = loader
        .until("all is stored", |report| {
            let lag = report["checks"]["load/source.collectors"]["lag"].as_object();
            lag.is_some_and(|lag| lag.len() == 6 && lag.values().all(|behind| *behind == 0))
        })
        .await;
    let checks = report["checks"].as_object().unwrap();
    let of_parts: Vec<_> = checks.iter().filter(|(name, _)| name.starts_with("load/sink.postgres/trades/")).collect();
    assert_eq!(of_parts.len(), 6, "{checks:#?}");
    let sum =
        |fate: &str| of_parts.iter().map(|(_, check)| check["balance"][fate].as_u64().unwrap_or_default()).sum::<u64>();
    assert_eq!((sum("delivered"), sum("refused"), sum("missing")), (300, 1, 0), "{of_parts:#?}");
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 300);
    let letters = tidegate(&bench.folder_of("a"), &["deadletter", "list", "load.toml"]);
    assert!(letters.code == 0 && letters.printed.contains("no JSON object"), "{letters:?}");
    for command in [
        &["verify", "load.toml"][..],
        &["coverage", "load.toml"],
        &["deadletter", "redrive", "load.toml", "--all"],
        &["adopt", "load.toml", "postgres", "--from-store"],
        &["sink", "forget", "load.toml", "old"],
    ] {
        let ran = tidegate(&bench.folder_of("a"), command);
        assert!(ran.code == 2 && ran.said.contains("`load` has no spool and no ledger"), "{command:?}: {ran:?}");
    }

    delete(bench.kafka.url(), "trades").await;
    let mut collector = Collector::open(&bench, "second", "json", Table::of::<Trade<'_>>()).await;
    collector.write(2_000, trade).await;
    let report = loader
        .until("the new topic's partitions are stopped", |report| {
            let checks = report["checks"].as_object().unwrap();
            let of_parts = checks.iter().filter(|(name, _)| name.starts_with("load/sink.postgres/trades/"));
            of_parts.filter(|(_, check)| check["status"] == "failed").count() == 6
        })
        .await;
    let why = report["checks"]["load/sink.postgres/trades/0"]["reason"].as_str().unwrap().to_owned();
    for part in ["deleted and made again", "trades-0.json", "pipeline `load`, sink `postgres` and part `trades/0`"] {
        assert!(why.contains(part), "`{part}` is not in: {why}");
    }
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 300, "nothing of it was written");
    let (_, log) = loader.stop().await;
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_panics_leaves_the_group_and_its_next_run_has_all_partitions() {
    let bench = Bench::start(["trades"]).await;
    let mut collector = Collector::open(&bench, "first", "json", Table::of::<Trade<'_>>()).await;
    collector.write(300, |log, mark| _ = log.emit(mark, &Trade { price: 1.5, size: 2.0, ..Trade::default() })).await;
    let mut loader = bench.faulty_loader("a", "a part*1");
    loader.until_logged("the source panicked: a fault of the program").await;
    // A member that nobody hears, and that goes on to tell the group that it is there, would keep half of them.
    loader
        .until("all is stored", |report| {
            let lag = report["checks"]["load/source.collectors"]["lag"].as_object();
            lag.is_some_and(|lag| lag.len() == 6 && lag.values().all(|behind| *behind == 0))
        })
        .await;
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 300);
    let (code, log) = loader.stop().await;
    assert_eq!(code, 0, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_not_there_is_told_for_as_long_as_it_is_not_and_others_are_read() {
    let mut bench = Bench::start(["trades"]).await;
    let mut collector = Collector::open(&bench, "first", "json", Table::of::<Trade<'_>>()).await;
    collector.write(60, |log, mark| _ = log.emit(mark, &Trade { price: 1.5, size: 2.0, ..Trade::default() })).await;
    bench.topics.push("quotes".to_owned());
    let mut loader = bench.loader("a");
    loader
        .until("the others are read", |report| source(report)["lag"].as_object().is_some_and(|lag| lag.len() == 6))
        .await;
    bench.until_more("trades", 59).await;
    let is_told = |report: &Value| {
        source(report)["status"] == "degraded"
            && source(report)["reason"].as_str().unwrap().contains("topic `quotes` is not there")
    };
    loader.until("the missing one is told", is_told).await;
    let asked = |report: &Value| source(report)["last_check"].as_str().map(str::to_owned);
    // It says so at each look, and not at the first alone.
    let mut looks = std::collections::BTreeSet::new();
    while looks.len() < 4 {
        let report = loader.next_report().await;
        assert!(is_told(&report), "{report:#}");
        looks.insert(asked(&report));
    }
    let mut quotes = Collector::open(&bench, "second", "json", Table::of::<Quote>()).await;
    quotes.write(60, |log, mark| _ = log.emit(mark, &Quote { bid_price: Some(0.5), ..Quote::default() })).await;
    loader.until("it is read once it is there", |report| source(report)["status"] == "healthy").await;
    bench.until_more("quotes", 59).await;
    let (code, log) = loader.stop().await;
    assert_eq!(code, 0, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loader_without_a_partition_is_ready() {
    let bench = Bench::start(["trades"]).await;
    drop(Collector::of(&bench, "first", "json", Table::of::<Trade<'_>>(), 1).await);
    let mut loaders = [bench.loader("a"), bench.loader("b")];
    for loader in &mut loaders {
        loader.until("it is a member", |report| source(report)["status"] == "healthy").await;
        let deadline = Instant::now() + PATIENCE;
        while loader.get("/health/ready").await.0 != 200 {
            assert!(Instant::now() < deadline, "it is never ready: {}", loader.get("/health/ready").await.1);
            loader.next_report().await;
        }
    }
    for loader in loaders {
        let (code, log) = loader.stop().await;
        assert_eq!(code, 0, "{log}");
    }
}

fn source(report: &Value) -> &Value {
    &report["checks"]["load/source.collectors"]
}

/// Writes what is no row of a collector: a transaction that is aborted, and a message that is no JSON.
fn spoil(brokers: &str, topic: &str) {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("transactional.id", "spoiler").create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    let header = || rdkafka::message::Header { key: "tg_schema", value: Some("trades/0000000000000000") };
    let headers = || rdkafka::message::OwnedHeaders::new().insert(header());
    producer.begin_transaction().unwrap();
    for partition in 0..6 {
        let record = BaseRecord::<str, str>::to(topic).partition(partition).payload("aborted").headers(headers());
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    producer.abort_transaction(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    let right = format!("trades/{:016x}", Table::of::<Trade<'_>>().columns_hash());
    let header = rdkafka::message::Header { key: "tg_schema", value: Some(right.as_str()) };
    let headers = rdkafka::message::OwnedHeaders::new().insert(header);
    let record = BaseRecord::<str, str>::to(topic).partition(2).payload("poison").headers(headers);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.commit_transaction(PATIENCE).unwrap();
}

/// Deletes a topic, and waits until it is gone.
async fn delete(brokers: &str, topic: &str) {
    let admin: rdkafka::admin::AdminClient<_> = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let options = rdkafka::admin::AdminOptions::new();
    admin.delete_topics(&[topic], &options).await.unwrap().remove(0).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let is_there = || {
        let metadata = admin.inner().fetch_metadata(None, PATIENCE).unwrap();
        metadata.topics().iter().any(|found| found.name() == topic)
    };
    while block_in_place(is_there) {
        assert!(Instant::now() < deadline, "{topic} does not go");
        sleep(Duration::from_millis(50)).await;
    }
}

/// How long a loader may say nothing before its partitions are given to others: the least that a broker lets it be.
const SESSION: Duration = Duration::from_secs(6);

/// Says where two lists differ first.
fn differ(produced: &[Row], stored: &[Row]) -> String {
    let at = produced
        .iter()
        .zip(stored)
        .position(|(one, other)| one != other)
        .unwrap_or_else(|| produced.len().min(stored.len()));
    let around = |rows: &[Row]| rows[at.min(rows.len())..rows.len().min(at + 5)].to_vec();
    format!(
        "{} produced, {} stored; they differ from row {at} on: {:?} and {:?}",
        produced.len(),
        stored.len(),
        around(produced),
        around(stored)
    )
}

/// Symbol and number.
type Row = (String, u64);

/// A broker, a database, and a folder for each loader.
struct Bench {
    kafka: Server,
    postgres: Server,
    db: Client,
    folder: TempDir,
    topics: Vec<String>,
}

impl Bench {
    async fn start<const N: usize>(topics: [&str; N]) -> Self {
        let (kafka, postgres) = block_in_place(|| (Server::start("kafka"), Server::start("postgres")));
        let (db, connection) = tokio_postgres::connect(postgres.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        let (folder, topics) = (tempfile::tempdir().unwrap(), topics.map(str::to_owned).to_vec());
        Self { kafka, postgres, db, folder, topics }
    }

    fn pipeline(&self) -> String {
        let tables: Vec<String> = self.topics.iter().map(|topic| format!("{topic} = {{}}")).collect();
        format!(
            "[pipeline]\nname = \"load\"\n[source.collectors]\ntype = \"kafka\"\nbrokers = \"{}\"\ntopics = {:?}\n\
             tables = {{ {} }}\n\
             rdkafka = {{ \"session.timeout.ms\" = {}, \"heartbeat.interval.ms\" = 500 }}\n\
             [sink.postgres]\nurl = \"{}\"\nretry = {{ first = \"20ms\", longest = \"300ms\" }}\n",
            self.kafka.url(),
            self.topics,
            tables.join(", "),
            SESSION.as_millis(),
            self.postgres.url()
        )
    }

    /// Starts a loader in a folder of its own, as on a host of its own.
    fn loader(&self, name: &str) -> Program {
        self.faulty_loader(name, "")
    }

    /// Starts one that panics at a place.
    fn faulty_loader(&self, name: &str, place: &str) -> Program {
        let folder = self.folder_of(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(
            folder.join("tidegate.toml"),
            "listen = \"127.0.0.1:0\"\n[log]\nformat = \"human\"\nstats = \"0s\"\n",
        )
        .unwrap();
        std::fs::write(folder.join("load.toml"), self.pipeline()).unwrap();
        let arguments = ["run", "load.toml", "--supervised", "50ms"];
        if place.is_empty() { Program::start(&folder, &arguments) } else { Program::faulty(&folder, &arguments, place) }
    }

    fn folder_of(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    async fn sql(&self, sql: &str) {
        self.db.batch_execute(sql).await.unwrap();
    }

    async fn number(&self, sql: &str) -> i64 {
        self.db.query_one(sql, &[]).await.unwrap().get(0)
    }

    async fn until_tables(&self, tables: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        for table in tables {
            let sql = format!("SELECT count(to_regclass('{table}'))");
            while self.number(&sql).await == 0 {
                assert!(Instant::now() < deadline, "no table {table}");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }

    async fn until_more(&self, table: &str, rows: i64) -> i64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.number(&format!("SELECT count(*) FROM {table}")).await;
            if found > rows {
                return found;
            }
            assert!(Instant::now() < deadline, "no more than {rows} rows of {table}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until so many rows are stored, and holds them against those of the topic.
    async fn assert_once_and_in_order(&self, table: &str, made: u64, logs: &impl Fn() -> String) {
        let deadline = Instant::now() + 3 * PATIENCE;
        while self.number(&format!("SELECT count(*) FROM {table}")).await < made.cast_signed() {
            let stored = self.number(&format!("SELECT count(*) FROM {table}")).await;
            assert!(Instant::now() < deadline, "{stored} of {} {table} are stored; {}", made, logs());
            sleep(Duration::from_millis(200)).await;
        }
        let produced = self.produced(table, made).await;
        let stored = self.stored(table, &produced).await;
        let rows: usize = produced.values().map(Vec::len).sum();
        assert_eq!(rows as u64, made, "what was produced is in the topic");
        for (partition, produced) in &produced {
            let stored = stored.get(partition).map_or(&[][..], Vec::as_slice);
            assert!(stored == produced, "{table}/{partition}: {}\n{}", differ(produced, stored), logs());
        }
        println!("{rows} {table} in {} partitions, each stored once and in order", produced.len());
    }

    /// Reads what the topic of a table holds, by partition, in order.
    async fn produced(&self, table: &str, rows: u64) -> BTreeMap<i32, Vec<Row>> {
        let (brokers, topic) = (self.kafka.url().to_owned(), table.to_owned());
        tokio::task::spawn_blocking(move || read(&brokers, &topic, rows)).await.unwrap()
    }

    /// Reads what is stored, by the partition that a symbol is in, in the order in which it was stored.
    async fn stored(&self, table: &str, produced: &BTreeMap<i32, Vec<Row>>) -> BTreeMap<i32, Vec<Row>> {
        let of_symbol: BTreeMap<&str, i32> = produced
            .iter()
            .flat_map(|(partition, rows)| rows.iter().map(move |(symbol, _)| (symbol.as_str(), *partition)))
            .collect();
        let mut stored: BTreeMap<i32, Vec<Row>> = BTreeMap::new();
        for row in self.db.query(&format!("SELECT symbol::text, seq::text FROM {table} ORDER BY n"), &[]).await.unwrap()
        {
            let (symbol, seq): (String, String) = (row.get(0), row.get(1));
            stored.entry(of_symbol[&*symbol]).or_default().push((symbol, seq.parse().unwrap()));
        }
        stored
    }
}

/// What a collector host does: writes rows of one table into its topic, by the real sink.
struct Collector {
    log: MemoryLog,
    sink: Box<dyn Sink>,
    _directory: TempDir,
    made: u64,
    next: u64,
    /// The broker deletes what is older than its retention, by the times of the messages.
    since: i64,
}

impl Collector {
    async fn open(bench: &Bench, pipeline: &str, format: &str, columns: Table) -> Self {
        Self::of(bench, pipeline, format, columns, 6).await
    }

    async fn of(bench: &Bench, pipeline: &str, format: &str, columns: Table, partitions: u32) -> Self {
        let config: KafkaConfig = serde_json::from_value(json!({
            "brokers": bench.kafka.url(), "format": format, "create": { "partitions": partitions },
        }))
        .unwrap();
        let log = MemoryLog::new("deribit", vec![columns]);
        let directory = tempfile::tempdir().unwrap();
        let context: SinkContext = log.context(directory.path());
        let owner = tidegate::sink::Owner { pipeline: pipeline.to_owned(), ..context.owner.clone() };
        let mut sink = config.build().unwrap();
        sink.open(&SinkContext { owner, ..context }).await.unwrap();
        Self { log, sink, _directory: directory, made: 0, next: 0, since: Timestamp::now().0 }
    }

    /// Writes rows of many symbols in one transaction.
    async fn write(&mut self, rows: u64, emit: impl Fn(&MemoryLog, Mark<'_>)) {
        let from = self.log.synced().borrow().offset;
        for _ in 0..rows {
            self.next += 1;
            let symbol = format!("S{}", self.next * 7 % 31);
            let ts_event = Timestamp(self.since + self.next.cast_signed());
            let position = Position::Sequence(self.next);
            emit(&self.log, Mark { symbol: &symbol, position, ts_event });
        }
        let to = self.log.synced().borrow().offset;
        let written = self.sink.write(&self.log.chunk(from, to)).await.unwrap();
        assert!(matches!(written, Written::Committed), "{written:?}");
        self.made += rows;
    }
}

/// Reads what committed-only consumers see of a topic, until there are so many rows: symbols and numbers, by partition.
fn read(brokers: &str, topic: &str, wanted: u64) -> BTreeMap<i32, Vec<Row>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "test")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let partitions: Vec<i32> = metadata.topics()[0].partitions().iter().map(|of| of.id()).collect();
    let mut assignment = TopicPartitionList::new();
    for partition in &partitions {
        assignment.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let (mut rows, mut quiet): (BTreeMap<i32, Vec<Row>>, u32) = (BTreeMap::new(), 0);
    let deadline = Instant::now() + PATIENCE;
    // Once more than all are there, or nothing more comes, the count is compared.
    while quiet < 20 {
        let count = rows.values().map(Vec::len).sum::<usize>() as u64;
        assert!(count >= wanted || Instant::now() < deadline, "{count} of {wanted} rows are in {topic}");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let of_partition = rows.entry(message.partition()).or_default();
                let value = message.payload().unwrap();
                assert!(
                    message.headers().is_some_and(|headers| headers.iter().any(|header| header.key == "tg_schema"))
                );
                if value.starts_with(b"{") {
                    let row: Value = serde_json::from_slice(value).unwrap();
                    of_partition.push((row["symbol"].as_str().unwrap().to_owned(), row["seq"].as_u64().unwrap()));
                } else {
                    of_partition.extend(arrow_rows(value));
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) | None if count >= wanted => quiet += 1,
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(error)) => panic!("{error}"),
        }
    }
    rows
}

/// Reads an Arrow stream in a way of the test's own.
fn arrow_rows(value: &[u8]) -> Vec<Row> {
    use arrow_array::cast::AsArray;
    let mut rows = Vec::new();
    for batch in arrow_ipc::reader::StreamReader::try_new(value, None).unwrap() {
        let batch = batch.unwrap();
        let symbols = batch.column_by_name("symbol").unwrap().as_string::<i32>().clone();
        let numbers = batch.column_by_name("seq").unwrap().as_primitive::<arrow_array::types::UInt64Type>().clone();
        rows.extend(symbols.iter().zip(numbers.iter()).map(|(symbol, n)| (symbol.unwrap().to_owned(), n.unwrap())));
    }
    rows
}
