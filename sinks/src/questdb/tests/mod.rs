//! The sink against a real QuestDB.

mod contract;
mod delivery;
mod derived;
mod faults;
mod owners;
mod tables;
mod tls;
mod values;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tidegate_core::{
    Result,
    row::{
        Mark, Position, Row, Table, Timestamp,
        kinds::{Quote, Trade},
    },
    sink::{Refusal, Sink, SinkContext, Written},
    spool::SpoolPosition,
    testkit::{MemoryLog, Server},
};

use super::{QuestDbConfig, client::Client, sink::QuestDb};

/// A log, and tables of its own in a QuestDB.
struct Bench {
    log: MemoryLog,
    directory: TempDir,
    config: QuestDbConfig,
    /// Before the names of its tables.
    prefix: String,
}

/// The time of the first row.
const BEGIN: i64 = 1_795_513_263_123_456_789;

impl Bench {
    fn new() -> Self {
        Self::with(vec![Table::of::<Trade<'_>>(), Table::of::<Quote>()])
    }

    fn with(tables: Vec<Table>) -> Self {
        Self::at(Server::shared("questdb").url(), tables)
    }

    /// On a server of its own.
    fn at(url: &str, tables: Vec<Table>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("b{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let config: QuestDbConfig =
            serde_json::from_value(serde_json::json!({ "url": url, "owners": format!("{prefix}_owners") })).unwrap();
        Self { log: MemoryLog::new("deribit", tables), directory: tempfile::tempdir().unwrap(), config, prefix }
    }

    fn context(&self) -> SinkContext {
        let mut context = self.log.context(self.directory.path());
        for table in &mut context.tables {
            table.name = self.name(&table.name);
        }
        context
    }

    /// What the delivery driver gives once rows are stored up to there.
    fn context_at(&self, offset: u64) -> SinkContext {
        let known = Some(self.log.chunk(0, offset).to);
        SinkContext { known, ..self.context() }
    }

    fn name(&self, table: &str) -> String {
        format!("{}_{table}", self.prefix)
    }

    fn sink(&self) -> QuestDb {
        QuestDb::new(self.config.clone())
    }

    async fn opened(&self) -> QuestDb {
        let mut sink = self.sink();
        sink.open(&self.context()).await.unwrap();
        sink
    }

    fn emit<R: Row>(&self, row: &R) -> u64 {
        let n = self.log.synced().borrow().offset + 1;
        let ts_event = Timestamp(BEGIN + n.cast_signed());
        self.log.emit(Mark { symbol: "ETH", position: Position::Sequence(n), ts_event }, row)
    }

    fn trades(&self, count: u64) -> u64 {
        (0..count).fold(0, |_, _| self.emit(&Trade { price: 1.5, size: 2.0, ..Trade::default() }))
    }

    async fn write(&self, sink: &mut QuestDb, from: u64, to: u64) -> Result<Written> {
        sink.write(&self.log.chunk(from, to)).await
    }

    /// Writes, and waits until it counts.
    async fn store(&self, sink: &mut QuestDb, from: u64, to: u64) {
        assert_accepted(self.write(sink, from, to).await);
        applied(sink, to).await;
    }

    async fn sql(&self, sql: &str) -> Vec<Vec<Value>> {
        let client = Client::new(&self.config).await.unwrap();
        client.sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {}", error.chain()))
    }

    /// Runs a statement, and waits until QuestDB has applied it to its tables.
    async fn run(&self, sql: &str) {
        self.sql(sql).await;
        let behind = "SELECT count() FROM wal_tables() WHERE NOT suspended AND writerTxn < sequencerTxn AND name LIKE";
        self.until(&format!("{behind} '{}\\_%'", self.prefix), 0).await;
    }

    async fn number(&self, sql: &str) -> i64 {
        self.sql(sql).await[0][0].as_i64().unwrap()
    }

    /// Waits for a number.
    async fn until(&self, sql: &str, wanted: i64) {
        let mut last = None;
        for _ in 0..3_000 {
            let found = Client::new(&self.config).await.unwrap().sql(sql).await;
            last = found.ok().and_then(|rows| rows.first()?.first()?.as_i64());
            if last == Some(wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{sql}: {last:?} is not {wanted}");
    }
}

async fn applied(sink: &mut QuestDb, to: u64) {
    for _ in 0..3_000 {
        if sink.applied().await.unwrap().is_some_and(|applied| applied.offset == to) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("what was accepted up to {to} is never applied");
}

fn assert_accepted(written: Result<Written>) {
    assert!(matches!(written, Ok(Written::Accepted)), "{written:?}");
}

fn refused(written: Result<Written>) -> Vec<Refusal> {
    match written {
        Ok(Written::Refused(refused)) => refused,
        Ok(Written::Committed | Written::Accepted) => panic!("taken"),
        Err(error) => panic!("{}", error.chain()),
    }
}

fn offsets(refused: &[Refusal]) -> Vec<u64> {
    refused.iter().map(|refusal| refusal.cause.offset).collect()
}

fn offset(position: Option<SpoolPosition>) -> Option<u64> {
    position.map(|position| position.offset)
}
