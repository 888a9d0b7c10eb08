//! Kafka beside a transactional producer of the same library, with the same settings, keys, headers and record of the position. It
//! has the rows as columns in memory, and encodes them by the code that the sink has: it is the client that is compared.

use std::{net::SocketAddr, time::Duration};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
    types::RDKafkaErrorCode,
};
use tidegate_core::{
    chunk::{ColumnView, JsonRows, TableRows},
    testkit::Server,
};
use tidegate_sinks::kafka::KafkaConfig;
use tokio::runtime::Runtime;

use super::{CHUNK, Filled, Kind, Measured, Meter, Store, Target, named, table};
use crate::delivered::chunks;

type Bare = ThreadedProducer<DefaultProducerContext>;

pub(super) struct Kafka<'a> {
    runtime: &'a Runtime,
    server: Server,
}

impl<'a> Kafka<'a> {
    pub(super) fn start(runtime: &'a Runtime) -> Self {
        Self { runtime, server: Server::start("kafka") }
    }

    fn settings(&self) -> ClientConfig {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", self.server.url());
        settings
    }

    /// Makes a topic for rows and one for positions, as the sink does.
    fn make_topics(&self, rows: &str, position: &str) {
        let admin: AdminClient<DefaultClientContext> = self.settings().create().expect("a client");
        let topics = [
            NewTopic::new(rows, PARTITIONS, TopicReplication::Fixed(1)),
            NewTopic::new(position, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact"),
        ];
        let made = self.runtime.block_on(admin.create_topics(&topics, &AdminOptions::new())).expect("it answers");
        made.into_iter().for_each(|made| drop(made.expect("a new topic")));
    }
}

impl Store for Kafka<'_> {
    type Rows = Vec<TableRows>;

    const CLIENT: &'static str = "bare producer";

    fn name(&self) -> &'static str {
        "Kafka"
    }

    fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    fn target(&self, run: &str, kind: Kind, way: Option<SocketAddr>) -> Target {
        let brokers = way.map_or_else(|| self.server.url().to_owned(), |way| way.to_string());
        let config = serde_json::json!({ "brokers": brokers, "create": { "partitions": PARTITIONS } });
        // The position's topic is called after the sink.
        let mut target = Target::of::<KafkaConfig>(run, config);
        target.tables = named(run, kind);
        target
    }

    fn rows(&self, _: &str, log: &Filled) -> Vec<TableRows> {
        let mut rows = Vec::new();
        chunks(&log.reader(), CHUNK, |parts| rows.extend(parts));
        rows
    }

    fn write(&self, run: &str, _: &str, kind: Kind, rows: &Vec<TableRows>) -> Measured {
        let (topic, position) = (table(run, kind), format!("tidegate.bench.{run}.position"));
        self.make_topics(&topic, &position);
        let producer: Bare = self
            .settings()
            .set("transactional.id", run)
            .set("compression.type", "lz4")
            .set("linger.ms", "1")
            .set("batch.size", "1000000")
            .set("queue.buffering.max.messages", "1000000")
            .set("queue.buffering.max.kbytes", "262144")
            .set("partitioner", "murmur2_random")
            .create()
            .expect("a producer");
        producer.init_transactions(PATIENCE).expect("it answers");
        let meter = Meter::begin(&self.server);
        for part in rows {
            commit(&producer, &topic, &position, part).expect("rows that the store has taken before");
        }
        meter.end(None)
    }

    fn clear(&self, run: &str, kind: Kind) {
        let admin: AdminClient<DefaultClientContext> = self.settings().create().expect("a client");
        let topic = table(run, kind);
        let gone = self.runtime.block_on(admin.delete_topics(&[&topic], &AdminOptions::new())).expect("it answers");
        gone.into_iter().for_each(|gone| drop(gone.expect("it was there")));
    }

    /// Clients go to where the broker says that it is.
    fn stands_behind(&mut self, way: SocketAddr) {
        let told = self.server.directory().join("advertised");
        std::fs::write(told, way.port().to_string()).expect("a directory that can be written");
        self.server.restart();
    }
}

/// One transaction.
fn commit(producer: &Bare, topic: &str, position: &str, part: &TableRows) -> Result<(), KafkaError> {
    producer.begin_transaction()?;
    let label = |name| match part.rows.column_by_name(name).map(ColumnView::of) {
        Some(ColumnView::Label(keys, texts)) => (keys, texts),
        Some(_) | None => unreachable!("every table has it"),
    };
    let (symbol, origin) = (label("symbol"), label("origin"));
    let ColumnView::Time(received) = ColumnView::of(part.rows.column(1)) else {
        unreachable!("the second is `ts_recv`")
    };
    let json = JsonRows::new(&part.rows);
    let mut value = Vec::new();
    for (row, cause) in part.causes.iter().enumerate() {
        value.clear();
        json.write(row, &mut value);
        let cause = cause.to_string();
        let headers = OwnedHeaders::new_with_capacity(3)
            .insert(Header { key: "tg_position", value: Some(&cause) })
            .insert(Header { key: "tg_origin", value: Some(origin.1.value(origin.0.value(row) as usize)) })
            .insert(Header { key: "tg_schema", value: Some("trades/0123456789abcdef") });
        let key = symbol.1.value(symbol.0.value(row) as usize);
        let record = BaseRecord::to(topic).key(key).payload(&value).headers(headers);
        send(producer, record.timestamp(received.value(row) / 1_000_000))?;
    }
    send(producer, BaseRecord::to(position).key("position").payload(&[b'x'; 300][..]).partition(0))?;
    // Its own waiting sleeps for 100 ms at a time.
    while producer.in_flight_count() > 0 {
        pause();
    }
    producer.commit_transaction(PATIENCE)
}

fn send<P: ?Sized + rdkafka::message::ToBytes>(
    producer: &Bare,
    mut record: BaseRecord<'_, str, P>,
) -> Result<(), KafkaError> {
    while let Err((error, back)) = producer.send(record) {
        if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
            return Err(error);
        }
        record = back;
        pause();
    }
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "a client that blocks, on a thread of its own")]
fn pause() {
    std::thread::sleep(Duration::from_micros(50));
}

const PARTITIONS: i32 = 3;
const PATIENCE: Duration = Duration::from_secs(30);
