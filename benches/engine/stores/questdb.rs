//! QuestDB beside its own client over HTTP, which has values in memory and encodes them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use questdb::ingress::{Buffer, ColumnName, Sender, TableName, TimestampNanos};
use serde_json::Value as Json;
use tidegate_core::{
    chunk::{ColumnView, TableRows},
    http::HttpClient,
    spool::Cause,
    testkit::Server,
};
use tidegate_sinks::questdb::QuestDbConfig;
use tokio::runtime::Runtime;

use super::{CHUNK, Filled, Kind, Measured, Meter, Store, Target, far::address_of, named, table};
use crate::delivered::chunks;

pub(super) struct QuestDb<'a> {
    runtime: &'a Runtime,
    server: Server,
    http: HttpClient,
}

/// Rows as a program without an engine has them.
pub(super) struct Rows {
    columns: Vec<String>,
    rows: Vec<Row>,
}

struct Row {
    ts_event: i64,
    cause: Cause,
    /// With the number of the column; symbols first, as the protocol has it.
    values: Vec<(usize, Value)>,
}

enum Value {
    Symbol(Arc<str>),
    Text(Box<str>),
    Long(i64),
    Double(f64),
    Time(i64),
}

impl<'a> QuestDb<'a> {
    pub(super) fn start(runtime: &'a Runtime) -> Self {
        Self { runtime, server: Server::start("questdb"), http: HttpClient::new() }
    }

    fn sql(&self, query: &str) -> Json {
        let url = self.server.url();
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.runtime.block_on(async {
            let client = self.http.client(url).await.expect("a client");
            let answer = client.get(format!("{url}/exec?query={escaped}")).send().await?;
            let status = answer.status().as_u16();
            Ok::<_, reqwest::Error>((status, answer.bytes().await?))
        });
        let (status, body) = answer.expect("it answers");
        assert_eq!(status, 200, "{query}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).expect("an answer is JSON")
    }

    fn number(&self, query: &str) -> i64 {
        self.sql(query)["dataset"][0][0].as_i64().expect("a number")
    }
}

impl Store for QuestDb<'_> {
    type Rows = Rows;

    const CLIENT: &'static str = "questdb-rs";

    fn name(&self) -> &'static str {
        "QuestDB"
    }

    fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    fn target(&self, run: &str, kind: Kind, way: Option<SocketAddr>) -> Target {
        let url = way.map_or_else(|| self.server.url().to_owned(), |way| format!("http://{way}"));
        let config = serde_json::json!({ "url": url, "owners": format!("{run}_owners") });
        let mut target = Target::of::<QuestDbConfig>("store", config);
        target.tables = named(run, kind);
        target
    }

    fn rows(&self, run: &str, log: &Filled) -> Rows {
        let stored = self.number(&format!("SELECT count() FROM {}", table(run, log.kind)));
        assert_eq!(stored, log.rows as i64, "rows are lost, or doubled");
        let mut rows = Rows { columns: Vec::new(), rows: Vec::with_capacity(log.rows) };
        chunks(&log.reader(), CHUNK, |parts| parts.iter().for_each(|part| rows.add(part)));
        rows
    }

    fn write(&self, run: &str, model: &str, kind: Kind, rows: &Rows) -> Measured {
        let (model, table) = (table(model, kind), table(run, kind));
        let made = self.sql(&format!("SHOW CREATE TABLE {model}"));
        let made = made["dataset"][0][0].as_str().expect("a statement").replace(&model, &table);
        self.sql(made.trim_end_matches([';', '\n']));
        let address = address_of(self.server.url());
        let meter = Meter::begin(&self.server);
        let sent: questdb::Result<()> = std::thread::scope(|scope| {
            // Its calls block.
            let sending = scope.spawn(|| {
                let mut sender = Sender::from_conf(format!("http::addr={address};protocol_version=2;"))?;
                let mut buffer = sender.new_buffer();
                for chunk in rows.rows.chunks(CHUNK) {
                    chunk.iter().try_for_each(|row| row.write(&table, &rows.columns, &mut buffer))?;
                    sender.flush(&mut buffer)?;
                }
                Ok(())
            });
            sending.join().expect("no panic")
        });
        sent.expect("rows that the store has taken before");
        let taken = meter.elapsed();
        let behind = format!("SELECT sequencerTxn - writerTxn FROM wal_tables() WHERE name = '{table}'");
        while self.number(&behind) > 0 {
            self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(10)).await });
        }
        let measured = meter.end(Some(taken));
        let stored = self.number(&format!("SELECT count() FROM {table}"));
        assert_eq!(stored, rows.rows.len() as i64, "rows are lost, or doubled");
        measured
    }

    fn clear(&self, run: &str, kind: Kind) {
        for table in [table(run, kind), format!("{run}_owners")] {
            self.sql(&format!("DROP TABLE IF EXISTS {table}"));
        }
    }
}

impl Rows {
    fn add(&mut self, part: &TableRows) {
        let schema = part.rows.schema_ref();
        self.columns = schema.fields().iter().map(|field| field.name().clone()).collect();
        let views: Vec<ColumnView<'_>> = part.rows.columns().iter().map(ColumnView::of).collect();
        let ColumnView::Time(made) = &views[0] else { unreachable!("the first column is `ts_event`") };
        for (row, cause) in part.causes.iter().enumerate() {
            let there = views.iter().enumerate().skip(1).filter(|(_, view)| !view.is_null(row));
            let mut values: Vec<(usize, Value)> = there.map(|(column, view)| (column, Value::of(view, row))).collect();
            values.sort_by_key(|(_, value)| !matches!(value, Value::Symbol(_)));
            self.rows.push(Row { ts_event: made.value(row), cause: *cause, values });
        }
    }
}

impl Row {
    fn write(&self, table: &str, columns: &[String], buffer: &mut Buffer) -> questdb::Result<()> {
        buffer.table(TableName::new_unchecked(table))?;
        for (column, value) in &self.values {
            let name = ColumnName::new_unchecked(&columns[*column]);
            match value {
                Value::Symbol(text) => buffer.symbol(name, text)?,
                Value::Text(text) => buffer.column_str(name, text)?,
                Value::Long(number) => buffer.column_i64(name, *number)?,
                Value::Double(number) => buffer.column_f64(name, *number)?,
                Value::Time(time) => buffer.column_ts(name, TimestampNanos::new(*time))?,
            };
        }
        buffer.column_i64("tg_boot", self.cause.boot.0.cast_signed())?;
        buffer.column_i64("tg_pos", self.cause.offset.cast_signed())?;
        buffer.column_i64("tg_sub", i64::from(self.cause.sub))?;
        buffer.at(TimestampNanos::new(self.ts_event))
    }
}

impl Value {
    fn of(view: &ColumnView<'_>, row: usize) -> Self {
        match view {
            ColumnView::Label(keys, texts) => Self::Symbol(texts.value(keys.value(row) as usize).into()),
            ColumnView::Bool(column) => Self::Symbol(column.value(row).to_string().into()),
            ColumnView::Text(column) => Self::Text(column.value(row).into()),
            ColumnView::I64(column) => Self::Long(column.value(row)),
            ColumnView::U64(column) => Self::Long(column.value(row).cast_signed()),
            ColumnView::F64(column) => Self::Double(column.value(row)),
            ColumnView::Time(column) => Self::Time(column.value(row)),
            ColumnView::Levels(_) | ColumnView::ListI64(_) => unreachable!("neither trades nor tickers have lists"),
        }
    }
}
