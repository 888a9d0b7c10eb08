//! The contract of sinks, on servers of its own, which are killed and frozen: plain tables on Postgres, hypertables on TimescaleDB.

use std::{
    error::Error,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use tidegate_core::{
    chunk::SinkTable,
    config::OnConflict,
    row::{Column, ColumnType, Level, Timestamp, Value},
    sink::{Owner, Sink},
    spool::{Boot, SpoolPosition},
    testkit::{
        Proxy, Server,
        contract::{self, CannotTell, SinkBench, StoredRow, columns},
    },
};
use tokio_postgres::{
    Client, NoTls, Row,
    types::{FromSql, Type},
};

use super::super::{
    TimescaleConfig,
    schema::{check_identifier, quoted},
    sink::Postgres,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract_of_sinks() {
    let server = Arc::new(Mutex::new(super::server().await));
    let report = contract::assert_kept(async || Schema::new(server.clone(), Store::Postgres).await).await;
    // Each write is committed at once.
    assert_eq!(report.left_out(), ["back-pressure"]);
}

/// The build of TimescaleDB that is to be had here has one backend: an open transaction of one connection holds up all others,
/// and no session can be ended by another one. So nothing is looked at while a transaction is open, and what two sessions do to
/// each other at one moment is shown on Postgres only, by the same code.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract_of_sinks_with_hypertables() {
    let server = tokio::task::spawn_blocking(|| Server::start("timescale")).await.unwrap();
    let server = Arc::new(Mutex::new(server));
    let report = contract::assert_kept(async || Schema::new(server.clone(), Store::Timescale).await).await;
    assert_eq!(report.left_out(), ["back-pressure"]);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Store {
    Postgres,
    Timescale,
}

/// A schema that does not exist yet.
struct Schema {
    store: Store,
    server: Arc<Mutex<Server>>,
    /// Past the proxy.
    url: String,
    proxy: Proxy,
    name: String,
}

impl Schema {
    async fn new(server: Arc<Mutex<Server>>, store: Store) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let url = server.lock().unwrap().url().to_owned();
        let address = url.split_once('@').unwrap().1.split_once('/').unwrap().0.to_owned();
        let proxy = Proxy::to(address).await.unwrap();
        Self { store, server, url, proxy, name: format!("c{}", NEXT.fetch_add(1, Ordering::Relaxed)) }
    }

    async fn client(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    async fn is_there(&self, client: &Client, table: &str) -> bool {
        let sql = "SELECT count(*) FROM pg_tables WHERE schemaname = $1 AND tablename = $2";
        client.query_one(sql, &[&self.name, &table]).await.unwrap().get::<_, i64>(0) == 1
    }

    fn table(&self, name: &str) -> String {
        format!("{}.{}", quoted(&self.name), quoted(name))
    }

    async fn order(&self, act: impl FnOnce(&mut Server) + Send + 'static) -> bool {
        let server = self.server.clone();
        tokio::task::spawn_blocking(move || act(&mut server.lock().unwrap())).await.unwrap();
        true
    }
}

#[async_trait]
impl SinkBench for Schema {
    fn sink(&self) -> Box<dyn Sink> {
        // Nanoseconds, so that every time comes back.
        let json = format!(
            r#"{{"url":"postgres://postgres@{}/postgres","schema":"{}","times":"bigint","lock_timeout":"1s","connect_timeout":"2s"}}"#,
            self.proxy.address(),
            self.name
        );
        let settings = match self.store {
            Store::Postgres => super::settings(&json),
            Store::Timescale => serde_json::from_str::<TimescaleConfig>(&json).unwrap().with_hypertables(),
        };
        Box::new(Postgres::new(settings))
    }

    async fn rows(&mut self, table: &SinkTable) -> Vec<StoredRow> {
        let client = self.client().await;
        if !self.is_there(&client, &table.name).await {
            return Vec::new();
        }
        let columns = columns(table);
        let names: Vec<String> = columns
            .iter()
            .map(|column| {
                let digits = if column.column_type == ColumnType::U64 { "::text" } else { "" };
                format!("{}{digits}", quoted(&column.name))
            })
            .collect();
        let sql = format!("SELECT {} FROM {}", names.join(", "), self.table(&table.name));
        let rows = client.query(&sql, &[]).await.unwrap();
        let row = |row| columns.iter().enumerate().filter_map(|(n, column)| value(row, n, column)).collect();
        rows.iter().map(row).collect()
    }

    async fn position(&mut self, owner: &Owner) -> Result<Option<SpoolPosition>, CannotTell> {
        let client = self.client().await;
        if !self.is_there(&client, "tidegate_position").await {
            return Ok(None);
        }
        let positions = self.table("tidegate_position");
        let sql = format!("SELECT boot, \"offset\" FROM {positions} WHERE pipeline = $1 AND sink = $2");
        let row = client.query_opt(&sql, &[&owner.pipeline, &owner.sink]).await.unwrap();
        Ok(row.map(|row| SpoolPosition {
            boot: Boot(u64::from_str_radix(row.get(0), 16).unwrap()),
            offset: row.get::<_, i64>(1).cast_unsigned(),
        }))
    }

    fn refuses(&self, _: &Column, value: Option<&Value>) -> bool {
        matches!(value, Some(Value::Text(text)) if text.contains('\0'))
    }

    fn refuses_table(&self, name: &str) -> bool {
        check_identifier(name).is_err()
    }

    fn refuses_column(&self, name: &str) -> bool {
        check_identifier(name).is_err()
    }

    fn proxy(&self) -> Option<&Proxy> {
        Some(&self.proxy)
    }

    async fn restart(&mut self) -> bool {
        self.order(Server::restart).await
    }

    async fn freeze(&mut self) -> bool {
        self.order(Server::freeze).await
    }

    async fn thaw(&mut self) {
        self.order(Server::thaw).await;
    }

    async fn drop_table(&mut self, table: &SinkTable) -> bool {
        let sql = format!("DROP TABLE {}", self.table(&table.name));
        self.client().await.batch_execute(&sql).await.unwrap();
        true
    }

    async fn drop_column(&mut self, table: &SinkTable, column: &str) -> bool {
        let sql = format!("ALTER TABLE {} DROP COLUMN {}", self.table(&table.name), quoted(column));
        self.client().await.batch_execute(&sql).await.unwrap();
        true
    }

    fn knows(&self, _: OnConflict) -> bool {
        true
    }
}

/// Reads a value as the sink's documentation says that it is stored.
fn value(row: &Row, n: usize, column: &Column) -> Option<(String, Value)> {
    let value = match column.column_type {
        ColumnType::Bool => row.get::<_, Option<bool>>(n).map(Value::Bool),
        ColumnType::I64 => row.get::<_, Option<i64>>(n).map(Value::I64),
        ColumnType::U64 => row.get::<_, Option<String>>(n).map(|digits| Value::U64(digits.parse().unwrap())),
        ColumnType::F64 => row.get::<_, Option<f64>>(n).map(Value::F64),
        ColumnType::Text | ColumnType::Label => row.get::<_, Option<String>>(n).map(Value::Text),
        ColumnType::Time => row.get::<_, Option<i64>>(n).map(|time| Value::Time(Timestamp(time))),
        ColumnType::ListI64 => row.get::<_, Option<Vec<i64>>>(n).map(Value::List),
        ColumnType::Levels => row.get::<_, Option<Pairs>>(n).map(|pairs| Value::Levels(pairs.0)),
    };
    Some((column.name.to_string(), value?))
}

/// An array of two dimensions, which the client has no type for.
struct Pairs(Vec<Level>);

impl<'a> FromSql<'a> for Pairs {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let dimensions = i32::from_be_bytes(raw[..4].try_into()?) as usize;
        let values: Vec<f64> = raw[12 + 8 * dimensions..]
            .chunks(12)
            .map(|element| f64::from_be_bytes(element[4..].try_into().unwrap()))
            .collect();
        Ok(Self(values.chunks(2).map(|pair| Level { price: pair[0], size: pair[1] }).collect()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
