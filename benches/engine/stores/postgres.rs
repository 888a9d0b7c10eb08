//! Postgres, and TimescaleDB on it, beside `COPY` of rows that have the form in which they go over the wire: nothing that a client
//! could do is faster.

use std::{net::SocketAddr, pin::pin};

use bytes::Bytes;
use futures_util::{SinkExt, TryStreamExt};
use tidegate_core::testkit::Server;
use tidegate_sinks::postgres::{PostgresConfig, TimescaleConfig};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, CopyInSink, NoTls};

use super::{CHUNK, Filled, Kind, Measured, Meter, Store, Target, far::address_of};

pub(super) struct Postgres<'a> {
    runtime: &'a Runtime,
    server: Server,
    name: &'static str,
}

/// Rows as binary `COPY` has them, one behind another.
pub(super) struct Copied {
    bytes: Bytes,
    /// Where each row ends.
    ends: Vec<usize>,
}

impl<'a> Postgres<'a> {
    pub(super) fn start(runtime: &'a Runtime) -> Self {
        Self { runtime, server: Server::start("postgres"), name: "Postgres" }
    }

    pub(super) fn start_timescale(runtime: &'a Runtime) -> Self {
        let store = Self { runtime, server: Server::start("timescale"), name: "TimescaleDB" };
        store.run("CREATE EXTENSION IF NOT EXISTS timescaledb");
        store
    }

    fn is_timescale(&self) -> bool {
        self.name == "TimescaleDB"
    }

    fn run(&self, sql: &str) {
        self.runtime.block_on(async { self.connect().await.batch_execute(sql).await }).expect("a statement that works");
    }

    /// Connects; the session ends with the client.
    async fn connect(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(self.server.url(), NoTls).await.expect("it answers");
        tokio::spawn(connection);
        client
    }

    async fn copy_out(&self, table: &str) -> Result<Copied, tokio_postgres::Error> {
        let db = self.connect().await;
        let stream = db.copy_out(&format!("COPY {table} TO STDOUT BINARY")).await?;
        let bytes = pin!(stream)
            .try_fold(Vec::new(), async |mut all: Vec<u8>, part| {
                all.extend_from_slice(&part);
                Ok(all)
            })
            .await?;
        let bytes = Bytes::from(bytes).slice(SIGNATURE.len()..);
        let mut ends = Vec::new();
        let mut at = 0;
        while let Some(columns) = number(&bytes, at, 2).filter(|columns| *columns >= 0) {
            at += 2;
            for _ in 0..columns {
                let length = number(&bytes, at, 4).expect("a field has a length");
                at += 4 + usize::try_from(length).unwrap_or(0);
            }
            ends.push(at);
        }
        Ok(Copied { bytes, ends })
    }

    async fn copy_in(
        &self,
        run: &str,
        model: &str,
        table: &str,
        rows: &Copied,
    ) -> Result<Measured, tokio_postgres::Error> {
        let db = self.connect().await;
        db.batch_execute(&format!(
            "CREATE SCHEMA {run}; CREATE TABLE {run}.{table} (LIKE {model}.{table});
             CREATE TABLE {run}.tidegate_position (LIKE {model}.tidegate_position INCLUDING ALL) WITH (fillfactor = 20);
             INSERT INTO {run}.tidegate_position SELECT * FROM {model}.tidegate_position;
             UPDATE {run}.tidegate_position SET \"offset\" = 0"
        ))
        .await?;
        if self.is_timescale() {
            let sql = "SELECT create_hypertable('{}', 'ts_event', chunk_time_interval => INTERVAL '7 days')";
            db.batch_execute(&sql.replace("{}", &format!("{run}.{table}"))).await?;
        }
        let statement = db.prepare(&format!("COPY {run}.{table} FROM STDIN BINARY")).await?;
        let meter = Meter::begin(&self.server);
        let (mut from, mut start) = (0, 0);
        for rows_of_chunk in rows.ends.chunks(CHUNK) {
            let (to, end) = (from + rows_of_chunk.len(), rows_of_chunk.last().copied().unwrap_or(start));
            db.batch_execute(&format!(
                "BEGIN; WITH moved AS (UPDATE {run}.tidegate_position SET \"offset\" = {to}, updated = now()
                 WHERE pipeline = 'bench' AND \"offset\" = {from} RETURNING 1) SELECT 1 / count(*) FROM moved"
            ))
            .await?;
            let sink: CopyInSink<Bytes> = db.copy_in(&statement).await?;
            let mut sink = pin!(sink);
            sink.feed(Bytes::from_static(SIGNATURE)).await?;
            for at in (start..end).step_by(SEND) {
                sink.send(rows.bytes.slice(at..end.min(at + SEND))).await?;
            }
            sink.send(Bytes::from_static(&[0xff, 0xff])).await?;
            assert_eq!(sink.finish().await?, rows_of_chunk.len() as u64, "all rows are stored");
            db.batch_execute("COMMIT").await?;
            (from, start) = (to, end);
        }
        Ok(meter.end(None))
    }
}

impl Store for Postgres<'_> {
    type Rows = Copied;

    const CLIENT: &'static str = "bare COPY";

    fn name(&self) -> &'static str {
        self.name
    }

    fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    fn target(&self, run: &str, _: Kind, way: Option<SocketAddr>) -> Target {
        let mut url = self.server.url().to_owned();
        if let Some(way) = way {
            url = url.replace(&address_of(&url), &way.to_string());
        }
        let config = serde_json::json!({ "url": url, "schema": run });
        if self.is_timescale() {
            Target::of::<TimescaleConfig>("store", config)
        } else {
            Target::of::<PostgresConfig>("store", config)
        }
    }

    fn rows(&self, run: &str, log: &Filled) -> Copied {
        let table = format!("{run}.{}", log.kind.table());
        // A hypertable's rows are in other tables, which `COPY` does not look into.
        let table = if self.is_timescale() { format!("(SELECT * FROM {table})") } else { table };
        let rows = self.runtime.block_on(self.copy_out(&table)).expect("the table is there");
        assert_eq!(rows.ends.len(), log.rows, "rows are lost, or doubled");
        rows
    }

    fn write(&self, run: &str, model: &str, kind: Kind, rows: &Copied) -> Measured {
        self.runtime
            .block_on(self.copy_in(run, model, kind.table(), rows))
            .expect("rows that the store has taken before")
    }

    fn clear(&self, run: &str, _: Kind) {
        self.run(&format!("DROP SCHEMA {run} CASCADE"));
        // What was thrown away is not to be paid for by the next run.
        self.run("CHECKPOINT");
    }
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<i64> {
    let field = bytes.get(at..at + length)?;
    let is_negative = field[0] >= 0x80;
    let start = if is_negative { -1 } else { 0 };
    Some(field.iter().fold(start, |number, byte| number << 8 | i64::from(*byte)))
}

/// What comes before the first row: a signature, no flags, no extension.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// Bytes that are sent at once: fewer cost calls, many more are slower.
const SEND: usize = 64 * 1024;
