//! What the database holds, for `tidegate verify`: read by another connection, in one snapshot, by SQL that the sink's own
//! writing has no part in.

use async_trait::async_trait;
use serde_json::Value;
use tidegate_core::{
    Error, Result,
    chunk::SinkTable,
    row::Timestamp,
    sink::{Neighbour, Owner},
    spool::SpoolPosition,
    verify::{Audit, Doubled, RowId, Stream, Sum},
};
use tokio_postgres::{Row, types::Type};

use super::{
    config::Settings,
    error::sorted,
    link::{Link, Parameter},
    open::server,
    position::Positions,
    schema::{look, quoted},
};

type Failed = tokio_postgres::Error;

/// A look at one schema.
pub(super) struct PostgresAudit {
    link: Link,
    schema: String,
    positions: Positions,
    owner: Owner,
}

impl PostgresAudit {
    /// Begins to read; what other connections commit from now on is not seen.
    pub(super) async fn open(settings: &Settings, owner: &Owner) -> Result<Self> {
        let link = Link::open(settings, None).await?;
        let begun = async {
            let schema = server(settings, &link).await?.schema;
            link.run("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
            Ok(schema)
        };
        let schema = begun.await.map_err(|error: Failed| link.at(sorted(error)))?;
        Ok(Self { link, positions: Positions::of(&schema), schema, owner: owner.clone() })
    }

    fn failed(&self, error: Failed) -> Error {
        self.link.at(sorted(error))
    }

    /// Returns how a table is read: its name, and its times in nanoseconds, with the microseconds that all of them have.
    async fn source(&self, table: &SinkTable) -> Result<Option<Source>> {
        let Some(seen) = look(&self.link, &self.schema, &table.name).await.map_err(|error| self.failed(error))?? else {
            return Ok(None);
        };
        let time = |column: &str| {
            let name = quoted(column);
            let is_number = seen.columns.iter().any(|found| found.name == column && found.declared == "bigint");
            if is_number {
                // Towards the past, as the sink cuts off, whereas `/` goes towards zero.
                format!("(floor({name}::numeric / 1000) * 1000)::bigint")
            } else {
                format!("(extract(epoch FROM {name})::numeric * 1000000)::bigint * 1000")
            }
        };
        let name = format!("{}.{}", quoted(&self.schema), quoted(&table.name));
        Ok(Some(Source { name, event: time("ts_event"), received: time("ts_recv") }))
    }

    async fn fetch(&self, sql: &str, with: &[Parameter<'_>]) -> Result<Vec<Row>> {
        self.link.rows(sql, with).await.map_err(|error| self.failed(error))
    }
}

struct Source {
    name: String,
    event: String,
    received: String,
}

#[async_trait]
impl Audit for PostgresAudit {
    fn time_unit(&self) -> i64 {
        MICROSECOND
    }

    async fn position(&mut self) -> Result<Option<(u64, SpoolPosition)>> {
        if self.positions.missing(&self.link).await.map_err(|error| self.failed(error))?.is_some() {
            return Ok(None);
        }
        let held = self.positions.read(&self.link, &self.owner, "").await.map_err(|error| self.failed(error))??;
        let held = held.into_iter().find(|held| held.part == self.owner.part);
        let held = held.filter(|held| held.position != SpoolPosition::START);
        Ok(held.map(|held| (held.spool, held.position)))
    }

    async fn neighbours(&mut self, tables: &[SinkTable]) -> Result<Vec<Neighbour>> {
        let read = self.positions.neighbours(&self.link, &self.owner, tables).await;
        read.map_err(|error| self.failed(error))
    }

    async fn sums(&mut self, table: &SinkTable, since: Timestamp) -> Result<Option<Vec<Sum>>> {
        let Some(Source { name, event, received }) = self.source(table).await? else { return Ok(None) };
        let divisor = RowId::DIVISOR;
        let sql = format!(
            "SELECT venue::text, symbol::text, count(*), count(*) FILTER (WHERE origin::text = 'redrive'),
                 sum({received} % {divisor} + 3 * ({event} % {divisor}) + 7 * coalesce((seq % {divisor})::bigint, 0))::bigint
             FROM {name} WHERE {received} >= $1 GROUP BY venue, symbol"
        );
        let rows = self.fetch(&sql, &[(&since.0, Type::INT8)]).await?;
        let sum = |row: &Row| -> Result<Sum, Failed> {
            let stream = Stream { venue: row.try_get(0)?, symbol: row.try_get(1)? };
            let (rows, redriven): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
            Ok(Sum { stream, rows: rows.unsigned_abs(), redriven: redriven.unsigned_abs(), marks: row.try_get(4)? })
        };
        let sums: Result<Vec<Sum>, Failed> = rows.iter().map(sum).collect();
        sums.map(Some).map_err(|error| self.failed(error))
    }

    async fn rows(&mut self, table: &SinkTable, stream: &Stream, since: Timestamp) -> Result<Vec<RowId>> {
        let Some(Source { name, event, received }) = self.source(table).await? else { return Ok(Vec::new()) };
        let sql = format!(
            "SELECT seq::text, {event}, {received} FROM {name} WHERE {received} >= $1 AND venue::text = $2 AND symbol::text = $3"
        );
        let with: [Parameter<'_>; 3] =
            [(&since.0, Type::INT8), (&stream.venue, Type::TEXT), (&stream.symbol, Type::TEXT)];
        self.fetch(&sql, &with).await?.iter().map(|row| id(row, 0).map_err(|error| self.failed(error))?).collect()
    }

    async fn values(&mut self, table: &SinkTable, columns: &[&str]) -> Result<Vec<Vec<Value>>> {
        let Some(Source { name, event, received }) = self.source(table).await? else { return Ok(Vec::new()) };
        let parts = columns.iter().map(|column| match *column {
            "ts_event" => event.clone(),
            "ts_recv" => received.clone(),
            other => quoted(other),
        });
        let sql = format!("SELECT json_build_array({})::text FROM {name}", parts.collect::<Vec<_>>().join(", "));
        let values = |row: &Row| {
            let text: &str = row.try_get(0).map_err(|error| self.failed(error))?;
            serde_json::from_str(text).map_err(|error| unreadable().because(error))
        };
        self.fetch(&sql, &[]).await?.iter().map(values).collect()
    }

    async fn doubled(&mut self, table: &SinkTable, before: Timestamp) -> Result<Vec<Doubled>> {
        let Some(Source { name, event, received }) = self.source(table).await? else { return Ok(Vec::new()) };
        let sql = format!(
            "SELECT venue::text, symbol::text, seq::text, {event}, min({received}), count(*), count(DISTINCT ts_recv)
             FROM {name} WHERE {received} < $1 AND seq IS NOT NULL
             GROUP BY venue, symbol, seq, ts_event HAVING count(*) > 1"
        );
        let doubled = |row: &Row| -> Result<Doubled> {
            let texts = (row.try_get(0), row.try_get(1), row.try_get::<_, i64>(5), row.try_get::<_, i64>(6));
            let (Ok(venue), Ok(symbol), Ok(rows), Ok(moments)) = texts else { return Err(unreadable()) };
            let row = id(row, 2).map_err(|error| self.failed(error))??;
            Ok(Doubled {
                stream: Stream { venue, symbol },
                row,
                rows: rows.unsigned_abs(),
                moments: moments.unsigned_abs(),
            })
        };
        self.fetch(&sql, &[(&before.0, Type::INT8)]).await?.iter().map(doubled).collect()
    }
}

/// Reads what tells a row from others, from a column on.
fn id(row: &Row, at: usize) -> Result<Result<RowId>, Failed> {
    let seq: Option<String> = row.try_get(at)?;
    let (event, received): (i64, i64) = (row.try_get(at + 1)?, row.try_get(at + 2)?);
    let Ok(seq) = seq.map(|seq| seq.parse()).transpose() else { return Ok(Err(unreadable())) };
    Ok(Ok(RowId { seq, ts_event: Timestamp(event), ts_recv: Timestamp(received) }))
}

fn unreadable() -> Error {
    Error::permanent("a row cannot be read as this sink writes it")
}

/// In nanoseconds: what Postgres's times tell apart.
const MICROSECOND: i64 = 1_000;
