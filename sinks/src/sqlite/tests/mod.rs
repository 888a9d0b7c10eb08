//! The sink on real files.

mod conflicts;
mod contract;
mod delivery;
mod faults;
mod kills;
mod tables;

use std::{collections::BTreeMap, path::PathBuf};

use sqlx::{AssertSqlSafe, ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tidegate_core::{
    Result,
    config::{Duration, OnConflict, TableChoice, TableConfig},
    row::{
        Mark, Position, Table, Timestamp,
        kinds::{Quote, Trade},
    },
    sink::{Sink, SinkContext, Written},
    spool::SpoolPosition,
    testkit::MemoryLog,
};

use super::{SqliteConfig, sink::Sqlite};

/// A log, and a file that does not exist yet.
struct Bench {
    log: MemoryLog,
    directory: TempDir,
    config: SqliteConfig,
    /// Tables with their keys.
    keys: Vec<(String, OnConflict, Vec<String>)>,
}

impl Bench {
    fn new() -> Self {
        Self::with(vec![Table::of::<Trade<'_>>(), Table::of::<Quote>()])
    }

    fn with(tables: Vec<Table>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = SqliteConfig {
            path: directory.path().join("data").join("test.sqlite"),
            create: true,
            lock_timeout: Duration::from_millis(200),
        };
        Self { log: MemoryLog::new("deribit", tables), directory, config, keys: Vec::new() }
    }

    fn path(&self) -> PathBuf {
        self.config.path.clone()
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
            tables.insert(name, TableConfig { key, on_conflict: Some(on_conflict), ..TableConfig::default() });
        }
        TableChoice::Only(tables)
    }

    /// Gives a table a key, in place of all that have one.
    fn key(&mut self, table: &str, on_conflict: OnConflict, key: &[&str]) {
        self.keys = vec![(table.to_owned(), on_conflict, key.iter().map(|&column| column.to_owned()).collect())];
    }

    fn sink(&self) -> Sqlite {
        Sqlite::new(self.config.clone())
    }

    async fn opened(&self) -> Sqlite {
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
        let mark = Mark { symbol: "ETH", position: Position::Sequence(n), ts_event: Timestamp(n.cast_signed()) };
        self.log.emit(mark, trade)
    }

    fn quote(&self, quote: &Quote) -> u64 {
        let mark = Mark { symbol: "ETH", position: Position::Unnumbered, ts_event: Timestamp(1) };
        self.log.emit(mark, quote)
    }

    /// Writes what lies between two offsets.
    async fn write(&self, sink: &mut Sqlite, from: u64, to: u64) -> Result<Written> {
        sink.write(&self.log.chunk(from, to)).await
    }

    /// Reads one number with a connection of its own.
    async fn number(&self, sql: &str) -> i64 {
        let mut connection = self.connection().await;
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await.unwrap()
    }

    async fn text(&self, sql: &str) -> String {
        let mut connection = self.connection().await;
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await.unwrap()
    }

    async fn run(&self, sql: &str) {
        let mut connection = self.connection().await;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    }

    async fn connection(&self) -> SqliteConnection {
        std::fs::create_dir_all(self.path().parent().unwrap()).unwrap();
        let options = SqliteConnectOptions::new().filename(self.path()).create_if_missing(true);
        options.connect().await.unwrap()
    }
}

fn assert_committed(written: Result<Written>) {
    assert!(matches!(written, Ok(Written::Committed)), "{written:?}");
}

fn offset(positions: &[(tidegate_core::chunk::Part, SpoolPosition)]) -> Option<u64> {
    positions.first().map(|(_, position)| position.offset)
}
