//! The keys of `[sink.NAME]` with `type = "kafka"`.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_core::{
    Error, Result,
    catalog::Component,
    chunk::SinkTable,
    config::{Duration, Faults, NameTemplate, positive},
    librdkafka::{Settings, check_brokers},
    row::ColumnType,
    sink::Sink,
};

use super::{position, settings::OWNED, sink::Kafka};

/// Writes rows into topics, with the position in the same transaction: exactly once for readers of committed messages
/// (`isolation.level=read_committed`; the default of Kafka's Java clients shows rows of aborted transactions, too).
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// Brokers to ask first, `host:port`, with commas in between.
    pub brokers: String,
    /// The key of a message, in which {pipeline}, {venue}, {table} and {symbol} may stand. Messages of one key stay in
    /// order, in one partition.
    #[serde(default = "symbol")]
    pub key: NameTemplate,
    /// What a message holds: `json`, one row as an object, or `arrow`, the rows of one key as an Arrow IPC stream.
    #[serde(default)]
    pub format: Format,
    /// Makes topics that are missing. Without it, a missing topic stops the sink; only the position's own is made.
    #[serde(default)]
    pub create: Option<CreateTopics>,
    /// How batches are compressed: `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    #[serde(default)]
    pub compression: Compression,
    /// How long a batch waits for more messages.
    #[serde(default = "linger")]
    pub linger: Duration,
    /// How long the rest of a transaction may take before the brokers abort it. So long, too, do readers of the topics wait
    /// when the program dies and nobody starts it again. About twice `timeout`, which is for one write.
    #[serde(default = "transaction_timeout", deserialize_with = "positive")]
    pub transaction_timeout: Duration,
    /// More settings of the client, by the names of librdkafka: TLS, SASL, sizes. Those that exactly-once rests on are the
    /// sink's own. Secrets by `${NAME}` or `{ file = "…" }`.
    #[serde(default)]
    pub rdkafka: Settings,
}

/// What a message holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One row, as a JSON object.
    #[default]
    Json,
    /// The rows of one key, as an Arrow IPC stream.
    Arrow,
}

/// How batches are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all.
    None,
    /// Small and slow; every reader knows it.
    Gzip,
    /// Fast.
    Snappy,
    /// Fastest.
    #[default]
    Lz4,
    /// Smallest.
    Zstd,
}

impl Compression {
    /// Returns the name that librdkafka has for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// How topics are made; what is left out is the brokers' choice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CreateTopics {
    /// How many partitions a topic of rows has.
    pub partitions: Option<NonZeroU32>,
    /// How many brokers have a copy; also of the position.
    pub replication: Option<NonZeroU32>,
    /// How long rows are kept, from when they came: those that waited for longer, in the spool or as dead letters, are deleted by
    /// the broker soon after they were written. By default as the broker says, a week for most.
    pub retention: Option<Duration>,
}

impl Component for KafkaConfig {
    const TYPE: &'static str = "kafka";
    const EXAMPLE: &'static str = "brokers = \"localhost:9092\"\ncreate = { partitions = 6 }";
    type Built = Box<dyn Sink>;

    fn check(&self, faults: &mut Faults) {
        check_brokers(&self.brokers, faults);
        if let Some(retention) = self.create.as_ref().and_then(|create| create.retention)
            && retention.0.is_zero()
        {
            faults.within("create", |faults| _ = faults.at("retention", "with `retention` \"0s\" no row is kept"));
        }
        faults.within("rdkafka", |faults| self.rdkafka.check("sink", OWNED, faults));
    }

    fn build(&self) -> Result<Self::Built> {
        Faults::of(self).into_result()?;
        Ok(Box::new(Kafka::new(self.clone())))
    }

    fn store(&self) -> Option<String> {
        let mut addresses: Vec<_> = self.addresses().collect();
        addresses.sort_unstable();
        Some(format!("kafka {}", addresses.join(",")))
    }

    fn check_tables(&self, tables: &[SinkTable]) -> Result<()> {
        for (n, table) in tables.iter().enumerate() {
            let name = &table.name;
            check_topic(name)?;
            check_columns(table)?;
            // Kafka itself refuses the second of these, since their metrics would have one name.
            if let Some(other) = tables[..n].iter().find(|other| metric(&other.name) == metric(name)) {
                let other = &other.name;
                return Err(Error::config(format!("topics `{other}` and `{name}` are one for Kafka: `.` is like `_`")));
            }
        }
        Ok(())
    }
}

impl KafkaConfig {
    /// Returns the brokers' addresses.
    fn addresses(&self) -> impl Iterator<Item = &str> {
        self.brokers.split(',').map(str::trim)
    }
}

/// Looks whether a topic may be called so: `org.apache.kafka.common.internals.Topic`.
fn check_topic(name: &str) -> Result<()> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let why = if name.is_empty() || name == "." || name == ".." || !name.chars().all(is_legal) {
        "the name of a topic has letters (a-z), digits, `.`, `_` and `-` only"
    } else if name.len() > 249 {
        "the name of a topic has at most 249 letters"
    } else if position::is_topic(name) {
        "topics of this name hold positions"
    } else {
        return Ok(());
    };
    Err(Error::config(format!("table `{name}` cannot be a topic: {why}; give it another name by `tables`")))
}

fn metric(topic: &str) -> String {
    topic.replace('.', "_")
}

fn symbol() -> NameTemplate {
    NameTemplate::parse("{symbol}").expect("a template of one word")
}

fn linger() -> Duration {
    Duration::from_millis(1)
}

fn transaction_timeout() -> Duration {
    Duration::from_secs(60)
}

/// Key, headers and time of a message are made of columns that a `select` may leave out.
fn check_columns(table: &SinkTable) -> Result<()> {
    let schema = table.table.schema();
    let wanted = [ColumnType::Label, ColumnType::Label, ColumnType::Label, ColumnType::Time];
    for (name, wanted) in ["venue", "symbol", "origin", "ts_recv"].into_iter().zip(wanted) {
        if schema.field_with_name(name).is_ok_and(|field| *field.data_type() == wanted.arrow()) {
            continue;
        }
        let table = &table.table.name;
        let text =
            format!("table `{table}` has no column `{name}`, and a message's key, headers and time are made of it");
        return Err(Error::config(format!("{text}: add it to `select` as it is")));
    }
    Ok(())
}
