//! The sink on a real broker. What is stored is read back by a consumer that knows nothing of the sink.

mod contract;
mod derived;
mod faults;
mod kills;
mod owners;
mod rows;
mod settings;
mod sizes;
mod topics;
mod verify;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers},
};
use tempfile::TempDir;
use tidegate_core::{
    Kind, Result,
    catalog::Component,
    row::{
        Mark, Position, Table, Timestamp,
        kinds::{Quote, Trade},
    },
    sink::{Sink, SinkContext, Written},
    spool::SpoolPosition,
    testkit::{MemoryLog, Server},
};

use super::KafkaConfig;

/// How long a condition may take to come true before a test gives up: a test machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A log, and names on a broker that nobody else has.
struct Bench {
    log: MemoryLog,
    directory: TempDir,
    config: KafkaConfig,
    name: String,
}

/// A message as a consumer sees it.
#[derive(Debug, Clone, PartialEq)]
struct Stored {
    partition: i32,
    key: String,
    value: Vec<u8>,
    headers: BTreeMap<String, String>,
    timestamp_ms: i64,
}

impl Bench {
    /// On the broker that all tests share.
    fn new() -> Self {
        Self::at(Server::shared("kafka").url())
    }

    fn at(brokers: &str) -> Self {
        Self::with(brokers, vec![Table::of::<Trade<'_>>(), Table::of::<Quote>()])
    }

    fn with(brokers: &str, tables: Vec<Table>) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let name = format!("t{now}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let config = config(brokers, r#"{ "create": { "partitions": 3 } }"#);
        Self { log: MemoryLog::new("deribit", tables), directory: tempfile::tempdir().unwrap(), config, name }
    }

    fn topic(&self, table: &str) -> String {
        format!("{}.{table}", self.name)
    }

    fn position_topic(&self) -> String {
        super::position::topic(&self.context().owner)
    }

    fn context(&self) -> SinkContext {
        let mut context = self.log.context(self.directory.path());
        context.owner.pipeline.clone_from(&self.name);
        for table in &mut context.tables {
            table.name = self.topic(&table.table.name);
        }
        context
    }

    fn known(&self, offset: u64) -> SinkContext {
        SinkContext { known: Some(SpoolPosition { boot: tidegate_core::spool::Boot(1), offset }), ..self.context() }
    }

    fn sink(&self) -> Box<dyn Sink> {
        self.config.build().unwrap()
    }

    async fn opened(&self) -> Box<dyn Sink> {
        let mut sink = self.sink();
        sink.open(&self.context()).await.unwrap();
        sink
    }

    /// Opens a sink again and again, as the driver does, until it is open, and returns where it stands.
    async fn reopened(&self, sink: &mut Box<dyn Sink>) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let opened = tokio::time::timeout(Duration::from_secs(30), sink.open(&self.context())).await;
            match opened {
                Ok(Ok(positions)) => return offset(&positions),
                Ok(Err(error)) => {
                    assert!(matches!(error.kind(), Kind::Transient { .. }), "{}", error.chain());
                    assert!(Instant::now() < deadline, "{}", error.chain());
                }
                Err(_) => assert!(Instant::now() < deadline, "opening takes too long"),
            }
        }
    }

    /// Appends trades, numbered on.
    fn trades(&self, count: u64) -> u64 {
        let mut last = 0;
        for _ in 0..count {
            last = self.trade(&Trade { price: 1.5, size: 2.0, ..Trade::default() });
        }
        last
    }

    fn trade(&self, trade: &Trade<'_>) -> u64 {
        self.trade_of("ETH", trade)
    }

    fn trade_of(&self, symbol: &str, trade: &Trade<'_>) -> u64 {
        let n = self.log.synced().borrow().offset + 1;
        let mark = Mark { symbol, position: Position::Sequence(n), ts_event: Timestamp(n.cast_signed()) };
        self.log.emit(mark, trade)
    }

    async fn write(&self, sink: &mut Box<dyn Sink>, from: u64, to: u64) -> Result<Written> {
        sink.write(&self.log.chunk(from, to)).await
    }

    /// Reads what committed-only consumers see of a table.
    async fn stored(&self, table: &str) -> Vec<Stored> {
        let (brokers, topic) = (self.config.brokers.clone(), self.topic(table));
        tokio::task::spawn_blocking(move || read(&brokers, &topic)).await.unwrap()
    }

    /// Returns the numbers of the trades that are stored, in order.
    async fn numbers(&self) -> Vec<u64> {
        let seq = |stored: &Stored| stored.json()["seq"].as_u64().unwrap();
        let mut numbers: Vec<_> = self.stored("trades").await.iter().map(seq).collect();
        numbers.sort_unstable();
        numbers
    }
}

impl Stored {
    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.value).unwrap()
    }
}

/// Returns a configuration, as a file would have it.
fn config(brokers: &str, more: &str) -> KafkaConfig {
    let mut table: serde_json::Map<String, serde_json::Value> = match more {
        "" => serde_json::Map::new(),
        json => serde_json::from_str(json).unwrap(),
    };
    table.insert("brokers".to_owned(), brokers.into());
    serde_json::from_value(table.into()).unwrap()
}

/// Reads topics, and knows nothing of the sink.
struct Reader {
    committed: BaseConsumer,
    all: BaseConsumer,
}

fn client(brokers: &str, isolation: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "independent")
        .set("isolation.level", isolation)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        // Else the broker holds back for half a second the answer that says that a partition has ended.
        .set("fetch.wait.max.ms", "10")
        .set("reconnect.backoff.max.ms", "200")
        .create()
        .unwrap()
}

/// Reads a topic from its beginning to the end of what is committed.
fn read(brokers: &str, topic: &str) -> Vec<Stored> {
    Reader::new(brokers).read(topic)
}

impl Reader {
    fn new(brokers: &str) -> Self {
        Self { committed: client(brokers, "read_committed"), all: client(brokers, "read_uncommitted") }
    }

    fn read(&self, topic: &str) -> Vec<Stored> {
        let (mut stored, deadline) = (Vec::new(), Instant::now() + PATIENCE);
        let metadata = self.committed.fetch_metadata(Some(topic), PATIENCE).unwrap();
        let mut assignment = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            self.settled(topic, partition.id(), deadline);
            assignment.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
        }
        // A partition that is written to ends more than once.
        let mut open: BTreeSet<i32> = metadata.topics()[0].partitions().iter().map(|part| part.id()).collect();
        self.committed.assign(&assignment).unwrap();
        while !open.is_empty() {
            assert!(Instant::now() < deadline, "{topic} cannot be read to its end");
            match self.committed.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => stored.push(seen(&message)),
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
                Some(Err(_)) | None => {}
            }
        }
        self.committed.unassign().unwrap();
        stored
    }

    /// Waits until all that a partition holds now is decided: a commit is answered before its end is written everywhere.
    fn settled(&self, topic: &str, partition: i32, deadline: Instant) {
        let end = |client: &BaseConsumer| loop {
            match client.fetch_watermarks(topic, partition, PATIENCE) {
                Ok((_, end)) => return end,
                // A topic that was just made has no leader yet.
                Err(error) => assert!(Instant::now() < deadline, "{topic}: {error}"),
            }
        };
        let upto = end(&self.all);
        while end(&self.committed) < upto {
            assert!(Instant::now() < deadline, "{topic} has a transaction that nobody ends");
        }
    }
}

fn seen(message: &BorrowedMessage<'_>) -> Stored {
    let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap();
    let headers = message
        .headers()
        .map(|headers| headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect());
    Stored {
        partition: message.partition(),
        key: text(message.key()),
        value: message.payload().unwrap_or_default().to_vec(),
        headers: headers.unwrap_or_default(),
        timestamp_ms: message.timestamp().to_millis().unwrap(),
    }
}

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap()
}

async fn make_topic(brokers: &str, name: &str, settings: &[(&str, &str)]) {
    let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1));
    let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
    let made = admin(brokers).create_topics([&topic], &AdminOptions::new()).await.unwrap();
    made.into_iter().for_each(|made| drop(made.unwrap()));
}

async fn change_topic(brokers: &str, name: &str, (setting, value): (&str, &str)) {
    let change = AlterConfig::new(ResourceSpecifier::Topic(name)).set(setting, value);
    let changed = admin(brokers).alter_configs([&change], &AdminOptions::new()).await.unwrap();
    changed.into_iter().for_each(|changed| drop(changed.unwrap()));
}

async fn delete_topic(brokers: &str, name: &str) {
    let deleted = admin(brokers).delete_topics(&[name], &AdminOptions::new()).await.unwrap();
    deleted.into_iter().for_each(|deleted| drop(deleted.unwrap()));
    let (brokers, name) = (brokers.to_owned(), name.to_owned());
    tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + PATIENCE;
        while has_topic(&brokers, &name) {
            assert!(Instant::now() < deadline, "{name} does not go");
        }
    })
    .await
    .unwrap();
}

fn has_topic(brokers: &str, name: &str) -> bool {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let metadata = consumer.fetch_metadata(None, PATIENCE).unwrap();
    metadata.topics().iter().any(|topic| topic.name() == name)
}

fn assert_committed(written: Result<Written>) {
    assert!(matches!(written, Ok(Written::Committed)), "{written:?}");
}

fn assert_transient<T: std::fmt::Debug>(outcome: Result<T>) -> String {
    let error = outcome.unwrap_err();
    assert!(matches!(error.kind(), Kind::Transient { .. }), "{}", error.chain());
    error.chain()
}

fn assert_permanent<T: std::fmt::Debug>(outcome: Result<T>) -> String {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent, "{}", error.chain());
    error.chain()
}

fn offset(positions: &[(tidegate_core::chunk::Part, SpoolPosition)]) -> u64 {
    positions.first().map_or(0, |(_, position)| position.offset)
}

fn up_to(last: u64) -> Vec<u64> {
    (1..=last).collect()
}
