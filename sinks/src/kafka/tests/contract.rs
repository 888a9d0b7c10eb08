//! The contract of sinks, on real brokers behind proxies: one for each lane of checks, emptied before each check.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::future::join_all;
use rdkafka::{admin::AdminOptions, consumer::Consumer};
use tidegate_core::{
    catalog::Component,
    chunk::SinkTable,
    row::{Column, Value},
    sink::{Owner, Sink},
    spool::{Boot, SpoolPosition},
    testkit::{
        Proxy, Server,
        contract::{self, CannotTell, SinkBench, StoredRow, row_of_json},
    },
};
use tokio::task::spawn_blocking;

use super::{
    super::{KafkaConfig, position},
    PATIENCE, Reader, Stored, admin, config, delete_topic,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract_of_sinks() {
    // A check mostly waits for the broker, and one takes a minute.
    let brokers = join_all((0..LANES).map(|_| Broker::start())).await;
    let report = contract::assert_kept_in_lanes(LANES, async |lane| Bench::new(brokers[lane].clone()).await).await;
    // A topic has no columns, and each write is committed at once.
    if std::env::var_os("TIDEGATE_CONTRACT").is_none() {
        assert_eq!(report.left_out(), ["back-pressure", "column dropped", "keys"]);
    }
}

/// How many checks run at a time.
const LANES: usize = 5;

/// A broker that sends its clients through a proxy.
struct Broker {
    server: Mutex<Server>,
    proxy: Proxy,
    url: String,
    /// Knows nothing of the sink. A new one after each restart.
    reader: Mutex<Reader>,
}

struct Bench {
    broker: Arc<Broker>,
    config: KafkaConfig,
}

impl Broker {
    async fn start() -> Arc<Self> {
        let mut server = spawn_blocking(|| Server::start("kafka")).await.unwrap();
        let proxy = Proxy::to(server.url()).await.unwrap();
        std::fs::write(server.directory().join("advertised"), proxy.address().port().to_string()).unwrap();
        let server = spawn_blocking(move || {
            server.restart();
            server
        });
        let url = proxy.address().to_string();
        let (server, reader) = (Mutex::new(server.await.unwrap()), Mutex::new(Reader::new(&url)));
        Arc::new(Self { server, proxy, url, reader })
    }

    /// Does something that blocks, beside the other lanes.
    async fn blocking<R: Send + 'static>(self: &Arc<Self>, act: impl FnOnce(&Self) -> R + Send + 'static) -> R {
        let broker = self.clone();
        spawn_blocking(move || act(&broker)).await.unwrap()
    }

    /// Returns the topics that are not the broker's own.
    fn topics(&self) -> Vec<String> {
        let reader = self.reader.lock().unwrap();
        let metadata = reader.committed.fetch_metadata(None, PATIENCE).unwrap();
        let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
        names.filter(|name| !name.starts_with("__")).collect()
    }

    /// Reads what is committed; nothing of a topic that is not there.
    fn read(&self, topic: &str) -> Vec<Stored> {
        if !self.topics().iter().any(|name| name == topic) {
            return Vec::new();
        }
        self.reader.lock().unwrap().read(topic)
    }
}

impl Bench {
    async fn new(broker: Arc<Broker>) -> Self {
        broker.proxy.heal();
        let left = broker.blocking(Broker::topics).await;
        let names: Vec<_> = left.iter().map(String::as_str).collect();
        if !names.is_empty() {
            admin(&broker.url).delete_topics(&names, &AdminOptions::new()).await.unwrap();
        }
        while !broker.blocking(Broker::topics).await.is_empty() {}
        let create = r#"{ "create": { "partitions": 2 }, "transaction_timeout": "15s",
            "rdkafka": { "reconnect.backoff.max.ms": 500 } }"#;
        let config = config(&broker.url, create);
        Self { broker, config }
    }
}

#[async_trait]
impl SinkBench for Bench {
    fn sink(&self) -> Box<dyn Sink> {
        self.config.build().unwrap()
    }

    async fn rows(&mut self, table: &SinkTable) -> Vec<StoredRow> {
        let topic = table.name.clone();
        let stored = self.broker.blocking(move |broker| broker.read(&topic)).await;
        stored.iter().map(|message| row_of_json(table, &message.json())).collect()
    }

    async fn position(&mut self, owner: &Owner) -> Result<Option<SpoolPosition>, CannotTell> {
        let topic = position::topic(owner);
        let last = self.broker.blocking(move |broker| broker.read(&topic).pop()).await;
        let at = last.and_then(|last| last.json()["parts"].get("spool").cloned());
        Ok(at.map(|at| SpoolPosition {
            boot: Boot(u64::from_str_radix(at["boot"].as_str().unwrap(), 16).unwrap()),
            offset: at["offset"].as_u64().unwrap(),
        }))
    }

    fn refuses(&self, _: &Column, value: Option<&Value>) -> bool {
        // Larger than `max.message.bytes`.
        matches!(value, Some(Value::Text(text)) if text.len() > 1_000_000)
    }

    fn refuses_table(&self, name: &str) -> bool {
        !name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    }

    fn proxy(&self) -> Option<&Proxy> {
        Some(&self.broker.proxy)
    }

    fn heals_itself(&self) -> bool {
        true
    }

    async fn restart(&mut self) -> bool {
        let restart = |broker: &Broker| {
            broker.server.lock().unwrap().restart();
            *broker.reader.lock().unwrap() = Reader::new(&broker.url);
        };
        self.broker.blocking(restart).await;
        true
    }

    async fn freeze(&mut self) -> bool {
        self.broker.blocking(|broker| broker.server.lock().unwrap().freeze()).await;
        true
    }

    async fn thaw(&mut self) {
        self.broker.blocking(|broker| broker.server.lock().unwrap().thaw()).await;
    }

    async fn drop_table(&mut self, table: &SinkTable) -> bool {
        delete_topic(&self.broker.url, &table.name).await;
        true
    }

    fn patience(&self) -> std::time::Duration {
        PATIENCE
    }
}
