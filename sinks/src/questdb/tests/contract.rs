//! The contract of sinks, on a real QuestDB behind a proxy.

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use questdb::ingress::{ColumnName, TableName};
use serde_json::Value as Json;
use tidegate_core::{
    chunk::SinkTable,
    row::{Column, ColumnType, Level, Timestamp, Value},
    sink::Sink,
    testkit::{
        Proxy, Server,
        contract::{self, SinkBench, StoredRow, columns, value_of_json},
    },
};

use super::super::{QuestDbConfig, client::Client, look, schema::quoted, sink::QuestDb};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract_of_sinks() {
    let report = contract::assert_kept(async || Behind::new().await).await;
    // The position is beside the spool; who may write, and restarts, have tests of their own here. A key holds the time.
    let left_out = report.left_out();
    for name in ["restarted store", "two owners", "adopt", "rename"] {
        assert!(left_out.contains(&name), "{name} can be checked now: {left_out:?}");
    }
    assert!(left_out.len() <= 8, "{report}");
}

/// Tables of its own in the server that all tests share.
struct Behind {
    proxy: Proxy,
    prefix: String,
}

impl Behind {
    async fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let server = tokio::task::spawn_blocking(|| Server::shared("questdb")).await.unwrap();
        let proxy = Proxy::to(server.url().trim_start_matches("http://")).await.unwrap();
        Self { proxy, prefix: format!("k{} ", NUMBER.fetch_add(1, Ordering::Relaxed)) }
    }

    fn config(&self, url: String) -> QuestDbConfig {
        let owners = format!("{}owners", self.prefix);
        serde_json::from_value(serde_json::json!({ "url": url, "owners": owners })).unwrap()
    }

    /// Past the proxy.
    async fn client(&self) -> Client {
        Client::new(&self.config(Server::shared("questdb").url().to_owned())).await.unwrap()
    }

    async fn run(&self, sql: &str) {
        self.client().await.sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {}", error.chain()));
    }
}

#[async_trait]
impl SinkBench for Behind {
    fn sink(&self) -> Box<dyn Sink> {
        Box::new(QuestDb::new(self.config(format!("http://{}", self.proxy.address()))))
    }

    async fn rows(&mut self, table: &SinkTable) -> Vec<StoredRow> {
        let client = self.client().await;
        if look::standings(&client, &[&table.name]).await.unwrap().is_empty() {
            return Vec::new();
        }
        let columns = columns(table);
        let shown = |column: &Column| match column.column_type {
            ColumnType::Time => format!("cast({} AS LONG)", quoted(&column.name)),
            ColumnType::Bool
            | ColumnType::I64
            | ColumnType::U64
            | ColumnType::F64
            | ColumnType::Text
            | ColumnType::Label
            | ColumnType::Levels
            | ColumnType::ListI64 => quoted(&column.name),
        };
        let names: Vec<String> = columns.iter().map(shown).collect();
        let rows = client.sql(&format!("SELECT {} FROM {}", names.join(", "), quoted(&table.name))).await.unwrap();
        let row = |row: &Vec<Json>| {
            let named = columns.iter().zip(row).filter(|(_, json)| !json.is_null());
            named.map(|(column, json)| (column.name.to_string(), value(column, json))).collect()
        };
        rows.iter().map(row).collect()
    }

    fn refuses(&self, column: &Column, value: Option<&Value>) -> bool {
        match value {
            Some(Value::F64(number)) => !number.is_finite(),
            Some(Value::I64(number)) => *number == i64::MIN,
            Some(Value::U64(number)) => i64::try_from(*number).is_err(),
            Some(Value::Time(time)) if &*column.name == "ts_event" => !(0..=LAST_TIME).contains(&time.0),
            Some(Value::Time(time)) => time.0 == i64::MIN,
            Some(Value::Text(text)) => column.column_type == ColumnType::Label && text.contains('\0'),
            Some(Value::Levels(levels)) => {
                levels.iter().any(|level| !level.price.is_finite() || !level.size.is_finite())
            }
            Some(Value::Bool(_) | Value::List(_)) | None => false,
        }
    }

    fn refuses_table(&self, name: &str) -> bool {
        TableName::new(name).is_err()
    }

    fn refuses_column(&self, name: &str) -> bool {
        ColumnName::new(name).is_err()
    }

    fn table_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn proxy(&self) -> Option<&Proxy> {
        Some(&self.proxy)
    }

    async fn drop_table(&mut self, table: &SinkTable) -> bool {
        self.run(&format!("DROP TABLE {}", quoted(&table.name))).await;
        true
    }

    async fn drop_column(&mut self, table: &SinkTable, column: &str) -> bool {
        self.run(&format!("ALTER TABLE {} DROP COLUMN {}", quoted(&table.name), quoted(column))).await;
        true
    }

    fn fences(&self) -> bool {
        false
    }
}

/// Reads a value as the sink's documentation says that it is stored.
fn value(column: &Column, json: &Json) -> Value {
    let read = || {
        Some(match column.column_type {
            // It may be absent, so it is a symbol.
            ColumnType::Bool if json.is_string() => Value::Bool(json == "true"),
            ColumnType::Time => Value::Time(Timestamp(json.as_i64()?)),
            ColumnType::Levels => {
                let sides: Vec<Vec<f64>> = serde_json::from_value(json.clone()).ok()?;
                let pairs = sides.first().into_iter().flatten().zip(sides.get(1).into_iter().flatten());
                Value::Levels(pairs.map(|(price, size)| Level { price: *price, size: *size }).collect())
            }
            ColumnType::ListI64 => value_of_json(column.column_type, &serde_json::from_str(json.as_str()?).ok()?)?,
            ColumnType::Bool
            | ColumnType::I64
            | ColumnType::U64
            | ColumnType::F64
            | ColumnType::Text
            | ColumnType::Label => value_of_json(column.column_type, json)?,
        })
    };
    read().unwrap_or_else(|| panic!("column `{}` holds {json}, and is {column:?}", column.name))
}

const LAST_TIME: i64 = 9_214_646_399_999_999_999;
