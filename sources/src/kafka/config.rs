//! The keys of `[source.NAME]` with `type = "kafka"`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_core::{
    Error, Result,
    catalog::Component,
    config::{Faults, nearest},
    librdkafka::{Settings, check_brokers},
    log_source::LogSource,
    row::{Column, ColumnType, Table, kinds},
};

use super::source::Kafka;

/// Reads what sinks `kafka` of other hosts have written. Loaders of one group share the partitions of the topics; each
/// partition has a position in the store, in the transaction of its rows. A pipeline with this source has no spool, no other
/// source, and sinks that guard a position for each partition: `postgres`, `timescale`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// Brokers to ask first, `host:port`, with commas in between.
    pub brokers: String,
    /// The topics.
    pub topics: Vec<String>,
    /// The consumer group whose members share the partitions. By default `tidegate.` and the pipeline's name, which has to be
    /// the same on every host.
    #[serde(default)]
    pub group: Option<String>,
    /// The tables whose rows are in the topics, with their columns as the sink there has them.
    pub tables: BTreeMap<String, TableConfig>,
    /// More settings of the client, by the names of librdkafka: TLS, SASL, `session.timeout.ms`. Those that exactly-once rests
    /// on are the source's own. Secrets by `${NAME}` or `{ file = "…" }`.
    #[serde(default)]
    pub rdkafka: Settings,
}

/// A table whose rows are in the topics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TableConfig {
    /// Its own columns, in their order, behind those that every table has: `["price f64", "side label?"]`. A type is `bool`,
    /// `i64`, `u64`, `f64`, `text`, `label`, `time`, `levels` or `list`; `?` says that a value may be absent. Without it, those
    /// of the built-in table of this name.
    pub columns: Option<Vec<String>>,
    /// Whether its rows form chains, as those of `book_changes`: then they have `prev_seq` and `chain`. By default as the
    /// built-in table of this name.
    pub linked: Option<bool>,
}

impl Component for KafkaConfig {
    const TYPE: &'static str = "kafka";
    const EXAMPLE: &'static str = "brokers = \"localhost:9092\"\ntopics = [\"trades\"]\ntables = { trades = {} }";
    type Built = Box<dyn LogSource>;

    fn check(&self, faults: &mut Faults) {
        check_brokers(&self.brokers, faults);
        if self.topics.is_empty() {
            faults.at("topics", "`topics` names no topic");
        }
        for (n, topic) in self.topics.iter().enumerate() {
            // The client takes it for a pattern, and a position belongs to a name.
            if topic.starts_with('^') {
                faults.within("topics", |faults| {
                    faults.at(n, format!("`{topic}` is a pattern, and topics are named one by one"));
                });
            } else if self.topics[..n].contains(topic) {
                faults.within("topics", |faults| _ = faults.at(n, format!("topic `{topic}` is named twice")));
            }
        }
        if self.group.as_ref().is_some_and(String::is_empty) {
            faults.at("group", "`group` is empty: leave it out for `tidegate.` and the pipeline's name");
        }
        if self.tables.is_empty() {
            faults.at("tables", "`tables` names no table: tables = { trades = {} }");
        }
        faults.within("tables", |faults| {
            for (name, table) in &self.tables {
                check_table(name, table, faults);
            }
        });
        faults.within("rdkafka", |faults| self.rdkafka.check("source", OWNED, faults));
    }

    fn build(&self) -> Result<Self::Built> {
        Faults::of(self).into_result()?;
        Ok(Box::new(Kafka::new(self.clone())?))
    }
}

impl KafkaConfig {
    /// Returns the declared tables.
    ///
    /// # Errors
    ///
    /// `Config` for what [`check`](Component::check) finds.
    pub(super) fn tables(&self) -> Result<Vec<Table>> {
        self.tables.iter().map(|(name, config)| config.table(name).map_err(Error::config)).collect()
    }

    pub(super) fn group(&self, pipeline: &str) -> String {
        self.group.clone().unwrap_or_else(|| format!("tidegate.{pipeline}"))
    }
}

impl TableConfig {
    fn table(&self, name: &str) -> Result<Table, String> {
        let known = built_in(name);
        let columns = match (&self.columns, &known) {
            (Some(columns), _) => columns.iter().map(|column| read_column(column)).collect::<Result<_, _>>()?,
            (None, Some(known)) => known.columns.clone(),
            (None, None) => return Err(unknown_table(name)),
        };
        let linked = self.linked.unwrap_or_else(|| known.is_some_and(|known| known.linked));
        Ok(Table { name: name.into(), identity: Vec::new(), linked, columns, is_whole: false })
    }
}

fn check_table(name: &str, table: &TableConfig, faults: &mut Faults) {
    let Some(columns) = &table.columns else {
        if built_in(name).is_none() {
            faults.at(name, unknown_table(name));
        }
        return;
    };
    faults.within(name, |faults| {
        faults.within("columns", |faults| {
            let mut names: Vec<String> = COMMON.map(str::to_owned).to_vec();
            for (n, column) in columns.iter().enumerate() {
                match read_column(column) {
                    Err(why) => _ = faults.at(n, why),
                    Ok(column) if names.contains(&column.name.to_string()) => {
                        let name = &column.name;
                        let why = if COMMON.contains(&&**name) { "every table has it" } else { "it is named twice" };
                        faults.at(n, format!("column `{name}` is left out here: {why}"));
                    }
                    Ok(column) => names.push(column.name.to_string()),
                }
            }
        });
    });
}

fn unknown_table(name: &str) -> String {
    let known = BUILT_IN.map(|table| table().name.to_string());
    let meant = nearest(name, known.iter().map(|known| &**known));
    let meant = meant.map(|meant| format!("did you mean `{meant}`? Else ")).unwrap_or_default();
    format!("table `{name}` is none of the built-in ones: {meant}say what columns it has, columns = [\"price f64\"]")
}

/// Reads `price f64` or `side label?`.
fn read_column(text: &str) -> Result<Column, String> {
    let form = || {
        format!("`{text}` is no column: write name and type, \"price f64\", or \"price f64?\" where it may be absent")
    };
    let (name, kind) = text.trim().split_once(' ').ok_or_else(form)?;
    let required = (kind.trim(), false);
    let (kind, nullable) = kind.trim().strip_suffix('?').map_or(required, |kind| (kind.trim(), true));
    let Some((_, column_type)) = TYPES.iter().find(|(known, _)| *known == kind) else {
        let known = TYPES.map(|(known, _)| known);
        let meant = nearest(kind, known).map(|meant| format!(", did you mean `{meant}`?")).unwrap_or_default();
        return Err(format!("`{kind}` is no type of a column{meant} (there are: {})", known.join(", ")));
    };
    Ok(Column { name: name.into(), column_type: *column_type, nullable })
}

/// Returns the built-in table of this name.
fn built_in(name: &str) -> Option<Table> {
    BUILT_IN.iter().map(|table| table()).find(|table| *table.name == *name)
}

const BUILT_IN: [fn() -> Table; 9] = [
    Table::of::<kinds::Trade<'_>>,
    Table::of::<kinds::Quote>,
    Table::of::<kinds::Ticker<'_>>,
    || Table::of::<kinds::BookChange<'_>>().linked(),
    Table::of::<kinds::BookTop<'_>>,
    Table::of::<kinds::Bar>,
    Table::of::<kinds::Funding>,
    Table::of::<kinds::Index>,
    Table::of::<kinds::InstrumentStatus<'_>>,
];

const TYPES: [(&str, ColumnType); 9] = [
    ("bool", ColumnType::Bool),
    ("i64", ColumnType::I64),
    ("u64", ColumnType::U64),
    ("f64", ColumnType::F64),
    ("text", ColumnType::Text),
    ("label", ColumnType::Label),
    ("time", ColumnType::Time),
    ("levels", ColumnType::Levels),
    ("list", ColumnType::ListI64),
];

/// The columns that every table has, and those of chains.
const COMMON: [&str; 8] = ["ts_event", "ts_recv", "venue", "symbol", "seq", "origin", "prev_seq", "chain"];

const ONCE: &str = "the store's position counts, and nothing else";

/// Settings that exactly-once rests on, or that have a key of their own, with the reason.
const OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", "write `brokers`"),
    ("metadata.broker.list", "write `brokers`"),
    ("group.id", "write `group`"),
    ("group.protocol", "partitions are given back before another loader gets them"),
    ("partition.assignment.strategy", "partitions are given back one by one, before another loader gets them"),
    ("isolation.level", "rows of transactions that were aborted are none"),
    ("enable.auto.commit", ONCE),
    ("auto.commit.enable", ONCE),
    ("enable.auto.offset.store", ONCE),
    ("auto.offset.reset", ONCE),
    ("enable.partition.eof", "it tells by it that a partition is read to its end"),
    ("check.crcs", "a message that was damaged on its way must not be stored"),
    ("allow.auto.create.topics", "a topic that vanished is not made again silently"),
    ("plugin.library.paths", "no code is loaded into the program"),
];
