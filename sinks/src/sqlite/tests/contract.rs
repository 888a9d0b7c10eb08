//! The contract of sinks, on real files.

use std::path::PathBuf;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, ConnectOptions, Row, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tidegate_core::{
    chunk::SinkTable,
    config::{Duration, OnConflict},
    row::{Column, ColumnType, Timestamp, Value},
    sink::{Owner, Sink},
    spool::{Boot, SpoolPosition},
    testkit::contract::{self, CannotTell, SinkBench, StoredRow, columns, value_of_json},
};

use super::super::{SqliteConfig, schema::quoted, sink::Sqlite};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract_of_sinks() {
    let report = contract::assert_kept(async || File::new()).await;
    // There is no server, and no way to it that could be cut; each write is committed at once.
    let left_out = [
        "back-pressure",
        "connection cut anywhere",
        "slow store",
        "frozen store",
        "store that is down",
        "restarted store",
    ];
    assert_eq!(report.left_out(), left_out);
}

/// A file that does not exist yet.
struct File {
    directory: TempDir,
}

impl File {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("test.sqlite")
    }

    async fn connection(&self) -> SqliteConnection {
        SqliteConnectOptions::new().filename(self.path()).create_if_missing(true).connect().await.unwrap()
    }

    async fn run(&self, sql: String) {
        sqlx::query(AssertSqlSafe(sql)).execute(&mut self.connection().await).await.unwrap();
    }
}

#[async_trait]
impl SinkBench for File {
    fn sink(&self) -> Box<dyn Sink> {
        let lock_timeout = Duration::from_millis(200);
        Box::new(Sqlite::new(SqliteConfig { path: self.path(), create: true, lock_timeout }))
    }

    async fn rows(&mut self, table: &SinkTable) -> Vec<StoredRow> {
        let mut connection = self.connection().await;
        let there = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?");
        if there.bind(&table.name).fetch_one(&mut connection).await.map(|there: i64| there == 0).unwrap() {
            return Vec::new();
        }
        let columns = columns(table);
        let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
        let sql = format!("SELECT {} FROM {}", names.join(", "), quoted(&table.name));
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
        let row = |row| columns.iter().enumerate().filter_map(|(n, column)| value(row, n, column)).collect();
        rows.iter().map(row).collect()
    }

    async fn position(&mut self, owner: &Owner) -> Result<Option<SpoolPosition>, CannotTell> {
        let sql = "SELECT boot, \"offset\" FROM tidegate_position WHERE pipeline = ? AND sink = ?";
        let row = sqlx::query(sql).bind(&owner.pipeline).bind(&owner.sink);
        let row = row.fetch_optional(&mut self.connection().await).await.unwrap();
        Ok(row.map(|row| SpoolPosition {
            boot: Boot(u64::from_str_radix(row.get(0), 16).unwrap()),
            offset: row.get::<i64, _>(1).cast_unsigned(),
        }))
    }

    fn refuses(&self, _: &Column, value: Option<&Value>) -> bool {
        matches!(value, Some(Value::F64(number)) if number.is_nan())
    }

    fn keeps_sign_of_zero(&self) -> bool {
        false
    }

    async fn drop_table(&mut self, table: &SinkTable) -> bool {
        self.run(format!("DROP TABLE {}", quoted(&table.name))).await;
        true
    }

    async fn drop_column(&mut self, table: &SinkTable, column: &str) -> bool {
        self.run(format!("ALTER TABLE {} DROP COLUMN {}", quoted(&table.name), quoted(column))).await;
        true
    }

    fn knows(&self, _: OnConflict) -> bool {
        true
    }
}

/// Reads a value as the sink's documentation says that it is stored.
fn value(row: &sqlx::sqlite::SqliteRow, n: usize, column: &Column) -> Option<(String, Value)> {
    let is_text = row.try_get::<Option<String>, _>(n).is_ok();
    let value = match column.column_type {
        ColumnType::Bool => row.get::<Option<bool>, _>(n).map(Value::Bool),
        ColumnType::I64 => row.get::<Option<i64>, _>(n).map(Value::I64),
        // What is beyond 2^63 is text.
        ColumnType::U64 if is_text => row.get::<Option<String>, _>(n).map(|text| Value::U64(text.parse().unwrap())),
        ColumnType::U64 => row.get::<Option<i64>, _>(n).map(|number| Value::U64(number.cast_unsigned())),
        ColumnType::F64 => row.get::<Option<f64>, _>(n).map(Value::F64),
        ColumnType::Text | ColumnType::Label => row.get::<Option<String>, _>(n).map(Value::Text),
        ColumnType::Time => row.get::<Option<i64>, _>(n).map(|time| Value::Time(Timestamp(time))),
        ColumnType::Levels | ColumnType::ListI64 => row.get::<Option<String>, _>(n).map(|text| {
            let json = serde_json::from_str(&text).unwrap();
            value_of_json(column.column_type, &json).unwrap()
        }),
    };
    Some((column.name.to_string(), value?))
}
