//! The sink on real servers: each test in a schema of its own.

mod conflicts;
mod contract;
mod delivery;
mod derived;
mod faults;
mod parts;
mod pooled;
mod proxy;
mod tables;
mod timescale;
mod tls;
mod types;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use tempfile::TempDir;
use tidegate_core::{
    Result,
    config::{OnConflict, TableChoice, TableConfig},
    row::{
        Mark, Position, Table, Timestamp,
        kinds::{Quote, Trade},
    },
    sink::{Sink, SinkContext, Written},
    spool::SpoolPosition,
    testkit::{MemoryLog, Server},
};
use tokio_postgres::NoTls;

use super::{PostgresConfig, TimescaleConfig, config::Settings, link::Link, sink::Postgres};

/// A log, and a schema that does not exist yet.
struct Bench {
    log: MemoryLog,
    directory: TempDir,
    url: String,
    schema: String,
    settings: Settings,
    /// Tables with their keys.
    keys: Vec<(String, OnConflict, Vec<String>)>,
}

impl Bench {
    async fn new() -> Self {
        Self::with(vec![Table::of::<Trade<'_>>(), Table::of::<Quote>()]).await
    }

    async fn with(tables: Vec<Table>) -> Self {
        Self::at(shared("postgres").await, tables)
    }

    /// A bench in a database of a test's own server.
    fn at(url: &str, tables: Vec<Table>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let schema = format!("t{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let settings = settings(&format!(r#"{{"url":"{url}","schema":"{schema}","lock_timeout":"1s"}}"#));
        let directory = tempfile::tempdir().unwrap();
        let log = MemoryLog::new("deribit", tables);
        Self { log, directory, url: url.to_owned(), schema, settings, keys: Vec::new() }
    }

    async fn timescale(options: &str) -> Self {
        let mut bench = Self::at(shared("timescale").await, vec![Table::of::<Trade<'_>>()]);
        let (url, schema) = (&bench.url, &bench.schema);
        let text = format!(r#"{{"url":"{url}","schema":"{schema}"{options}}}"#);
        bench.settings = serde_json::from_str::<TimescaleConfig>(&text).unwrap().with_hypertables();
        bench
    }

    fn context(&self) -> SinkContext {
        let mut context = self.log.context(self.directory.path());
        for (name, on_conflict, key) in &self.keys {
            for table in context.tables.iter_mut().filter(|table| table.name == *name) {
                (table.on_conflict, table.key) = (*on_conflict, key.clone());
            }
        }
        context
    }

    /// Returns the tables with their keys as a pipeline's file has them.
    fn choice(&self) -> TableChoice {
        if self.keys.is_empty() {
            return TableChoice::All;
        }
        let mut tables: BTreeMap<String, TableConfig> =
            self.context().tables.into_iter().map(|table| (table.name, TableConfig::default())).collect();
        for (name, on_conflict, key) in self.keys.iter().cloned() {
            let on_conflict = Some(on_conflict);
            tables.insert(name, TableConfig { key, on_conflict, ..TableConfig::default() });
        }
        TableChoice::Only(tables)
    }

    /// Gives a table a key, in place of all that have one.
    fn key(&mut self, table: &str, on_conflict: OnConflict, key: &[&str]) {
        self.keys = vec![(table.to_owned(), on_conflict, key.iter().map(|&column| column.to_owned()).collect())];
    }

    fn sink(&self) -> Postgres {
        Postgres::new(self.settings.clone())
    }

    async fn opened(&self) -> Postgres {
        let mut sink = self.sink();
        sink.open(&self.context()).await.unwrap();
        sink
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
        let n = self.log.synced().borrow().offset + 1;
        self.trade_at(trade, Timestamp(n.cast_signed() * 1_000))
    }

    fn trade_at(&self, trade: &Trade<'_>, ts_event: Timestamp) -> u64 {
        let n = self.log.synced().borrow().offset + 1;
        self.log.emit(Mark { symbol: "ETH", position: Position::Sequence(n), ts_event }, trade)
    }

    fn quote(&self, quote: &Quote) -> u64 {
        let mark = Mark { symbol: "ETH", position: Position::Unnumbered, ts_event: Timestamp(1_000) };
        self.log.emit(mark, quote)
    }

    /// Writes what lies between two offsets.
    async fn write(&self, sink: &mut Postgres, from: u64, to: u64) -> Result<Written> {
        sink.write(&self.log.chunk(from, to)).await
    }

    /// Runs statements with a connection of its own, in the bench's schema.
    async fn run(&self, sql: &str) {
        // In one message: the TimescaleDB that is to be had here has one session for all.
        let whole = format!("CREATE SCHEMA IF NOT EXISTS {0}; SET search_path = {0}, public; {sql}", self.schema);
        self.client().await.batch_execute(&whole).await.unwrap();
    }

    /// Reads one value as a text.
    async fn text(&self, sql: &str) -> String {
        let whole = format!("SET search_path = {}, public; {sql}", self.schema);
        let answers = self.client().await.simple_query(&whole).await.unwrap();
        let row = answers.iter().find_map(|answer| {
            let tokio_postgres::SimpleQueryMessage::Row(row) = answer else { return None };
            Some(row.get(0).unwrap_or("NULL").to_owned())
        });
        row.unwrap_or_else(|| panic!("no row: {sql}"))
    }

    /// Reads one value as a text; `None` while that is not to be had.
    async fn try_text(&self, sql: &str) -> Option<String> {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.ok()?;
        tokio::spawn(connection);
        client.batch_execute(&format!("SET search_path = {}, public", self.schema)).await.ok()?;
        client.query_one(&format!("SELECT ({sql})::text"), &[]).await.ok()?.try_get(0).ok()
    }

    async fn number(&self, sql: &str) -> i64 {
        self.text(sql).await.parse().unwrap()
    }

    async fn client(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

/// Starting one blocks for seconds.
async fn shared(name: &'static str) -> &'static str {
    tokio::task::spawn_blocking(move || Server::shared(name).url()).await.unwrap()
}

/// A server of the test's own.
async fn server() -> Server {
    tokio::task::spawn_blocking(|| Server::start("postgres")).await.unwrap()
}

fn settings(json: &str) -> Settings {
    serde_json::from_str::<PostgresConfig>(json).unwrap().settings()
}

async fn link(settings: &Settings) -> Result<Link> {
    Link::open(settings, None).await
}

fn assert_committed(written: Result<Written>) {
    assert!(matches!(written, Ok(Written::Committed)), "{written:?}");
}

fn refused(written: Result<Written>) -> Vec<(u64, String)> {
    let Ok(Written::Refused(refused)) = written else { panic!("not refused: {written:?}") };
    refused.into_iter().map(|refusal| (refusal.cause.offset, refusal.error.chain())).collect()
}

fn offset(positions: &[(tidegate_core::chunk::Part, SpoolPosition)]) -> Option<u64> {
    positions.first().map(|(_, position)| position.offset)
}
