//! The contract of sinks, on a real broker behind a proxy. One broker for all checks, emptied before each.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rdkafka::{
    ClientConfig,
    admin::AdminOptions,
    consumer::{BaseConsumer, Consumer},
};
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
use tokio::task::block_in_place;

use super::{
    super::{KafkaConfig, position},
    PATIENCE, admin, config, delete_topic, has_topic, read,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes over ten minutes here, and was not yet seen to pass as a whole: run it with `--ignored`"]
async fn keeps_the_contract_of_sinks() {
    let broker = Arc::new(Broker::start().await);
    let report = contract::assert_kept(async || Bench::new(broker.clone()).await).await;
    // A topic has no columns, and each write is committed at once.
    if std::env::var_os("TIDEGATE_CONTRACT").is_none() {
        assert_eq!(report.left_out(), ["back-pressure", "column dropped", "keys"]);
    }
}

/// A broker that sends its clients through a proxy.
struct Broker {
    server: Mutex<Server>,
    proxy: Proxy,
    url: String,
}

struct Bench {
    broker: Arc<Broker>,
    config: KafkaConfig,
}

impl Broker {
    async fn start() -> Self {
        let mut server = Server::start("kafka");
        let proxy = Proxy::to(server.url()).await.unwrap();
        std::fs::write(server.directory().join("advertised"), proxy.address().port().to_string()).unwrap();
        block_in_place(|| server.restart());
        let url = proxy.address().to_string();
        Self { server: Mutex::new(server), proxy, url }
    }
}

impl Bench {
    async fn new(broker: Arc<Broker>) -> Self {
        broker.proxy.heal();
        let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &broker.url).create().unwrap();
        let metadata = consumer.fetch_metadata(None, PATIENCE).unwrap();
        let left = metadata.topics().iter().map(|topic| topic.name().to_owned());
        let left: Vec<_> = left.filter(|name| !name.starts_with("__")).collect();
        let names: Vec<_> = left.iter().map(String::as_str).collect();
        if !names.is_empty() {
            admin(&broker.url).delete_topics(&names, &AdminOptions::new()).await.unwrap();
        }
        for name in &names {
            while has_topic(&broker.url, name) {}
        }
        // The contract's rows are of 2025: brokers delete what came longer ago than is kept.
        let create = r#"{ "create": { "partitions": 2, "retention": "3000days" }, "transaction_timeout": "15s" }"#;
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
        block_in_place(|| {
            if !has_topic(&self.broker.url, &table.name) {
                return Vec::new();
            }
            let stored = read(&self.broker.url, &table.name);
            stored.iter().map(|message| row_of_json(table, &message.json())).collect()
        })
    }

    async fn position(&mut self, owner: &Owner) -> Result<Option<SpoolPosition>, CannotTell> {
        let topic = position::topic(owner);
        block_in_place(|| {
            if !has_topic(&self.broker.url, &topic) {
                return Ok(None);
            }
            let last = read(&self.broker.url, &topic).pop().map(|message| message.json());
            let at = last.and_then(|last| last["parts"].get("spool").cloned());
            Ok(at.map(|at| SpoolPosition {
                boot: Boot(u64::from_str_radix(at["boot"].as_str().unwrap(), 16).unwrap()),
                offset: at["offset"].as_u64().unwrap(),
            }))
        })
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
        block_in_place(|| self.broker.server.lock().unwrap().restart());
        true
    }

    async fn freeze(&mut self) -> bool {
        block_in_place(|| self.broker.server.lock().unwrap().freeze());
        true
    }

    async fn thaw(&mut self) {
        block_in_place(|| self.broker.server.lock().unwrap().thaw());
    }

    async fn drop_table(&mut self, table: &SinkTable) -> bool {
        delete_topic(&self.broker.url, &table.name).await;
        true
    }

    fn patience(&self) -> std::time::Duration {
        PATIENCE
    }
}
