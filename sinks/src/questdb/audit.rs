//! What QuestDB holds, for `tidegate verify`: by SQL that the sink's own writing has no part in.
//!
//! The answers are of one moment although it has no transactions for reading: rows are asked for up to the position that was
//! read first, by their `tg_pos`, and no row before a position that counts is written any more.

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

use super::{
    QuestDbConfig,
    client::Client,
    look::{self, strange},
    owner::{self, Held},
    prepare::owners,
    schema::{TG_COLUMNS, quoted, text},
};

/// A look at one QuestDB.
pub(super) struct QuestDbAudit {
    client: Client,
    owner: Owner,
    all: Vec<Held>,
    /// Up to where rows count.
    upto: u64,
}

impl QuestDbAudit {
    pub(super) async fn open(config: &QuestDbConfig, owner: &Owner) -> Result<Self> {
        let client = Client::new(config).await?;
        let missing =
            || Error::permanent(format!("there is no table `{}`, which says up to where rows count", config.owners));
        let all = owners(config, &client).await?.ok_or_else(missing)?;
        let upto = owner::of(&all, owner).map_or(0, |held| held.position.offset);
        Ok(Self { client, owner: owner.clone(), all, upto })
    }

    /// Looks whether a table's rows can be compared; `None` where there is no such table.
    async fn is_there(&self, table: &SinkTable) -> Result<bool> {
        let name = &table.name;
        if look::standings(&self.client, &[name]).await?.is_empty() {
            return Ok(false);
        }
        let columns = look::columns(&self.client, name).await?;
        let type_of = |wanted: &str| columns.iter().find(|c| c.name == wanted).map(|c| c.column_type.as_str());
        if !TG_COLUMNS.iter().all(|column| type_of(column).is_some()) {
            return Err(without_cause(name));
        }
        if ["ts_event", "ts_recv"].iter().any(|column| type_of(column) != Some("TIMESTAMP_NS")) {
            return Err(Error::permanent(format!(
                "{name}: its times are cut to microseconds, and rows cannot be told apart"
            )));
        }
        Ok(true)
    }
}

#[async_trait]
impl Audit for QuestDbAudit {
    async fn position(&mut self) -> Result<Option<(u64, SpoolPosition)>> {
        let held = owner::of(&self.all, &self.owner).filter(|held| held.position != SpoolPosition::START);
        Ok(held.map(|held| (held.spool, held.position)))
    }

    async fn neighbours(&mut self, tables: &[SinkTable]) -> Result<Vec<Neighbour>> {
        Ok(owner::neighbours(&self.all, &self.owner, tables))
    }

    async fn sums(&mut self, table: &SinkTable, since: Timestamp) -> Result<Option<Vec<Sum>>> {
        if !self.is_there(table).await? {
            return Ok(None);
        }
        let (name, since, upto, d) = (quoted(&table.name), number(since), self.upto, RowId::DIVISOR);
        let rows = self
            .client
            .sql(&format!(
                "SELECT venue, symbol, count(), sum(CASE WHEN origin = 'redrive' THEN 1 ELSE 0 END),
                     sum(cast(ts_recv AS LONG) % {d} + 3 * (cast(ts_event AS LONG) % {d})
                         + 7 * coalesce(cast(seq AS LONG) % {d}, 0))
                 FROM {name} WHERE cast(ts_recv AS LONG) >= {since} AND tg_pos <= {upto} GROUP BY venue, symbol"
            ))
            .await?;
        let sum = |row: &Vec<Value>| {
            let count = |at: usize| row.get(at)?.as_u64();
            let marks = row.get(4)?.as_i64()?;
            Some(Sum { stream: stream(row)?, rows: count(2)?, redriven: count(3)?, marks })
        };
        rows.iter().map(|row| sum(row).ok_or_else(strange)).collect::<Result<_>>().map(Some)
    }

    async fn count(&mut self, table: &SinkTable) -> Result<Option<u64>> {
        if look::standings(&self.client, &[&table.name]).await?.is_empty() {
            return Ok(None);
        }
        let columns = look::columns(&self.client, &table.name).await?;
        if !columns.iter().any(|column| column.name == "tg_pos") {
            return Err(without_cause(&table.name));
        }
        let (name, upto) = (quoted(&table.name), self.upto);
        let rows = self.client.sql(&format!("SELECT count() FROM {name} WHERE tg_pos <= {upto}")).await?;
        rows.first().and_then(|row| row.first()?.as_u64()).map(Some).ok_or_else(strange)
    }

    async fn rows(&mut self, table: &SinkTable, stream: &Stream, since: Timestamp) -> Result<Vec<RowId>> {
        if !self.is_there(table).await? {
            return Ok(Vec::new());
        }
        let (name, since, upto) = (quoted(&table.name), number(since), self.upto);
        let (venue, symbol) = (text(&stream.venue), text(&stream.symbol));
        let rows = self
            .client
            .sql(&format!(
                "SELECT cast(seq AS VARCHAR), cast(ts_event AS LONG), cast(ts_recv AS LONG) FROM {name}
                 WHERE cast(ts_recv AS LONG) >= {since} AND tg_pos <= {upto} AND venue = {venue} AND symbol = {symbol}"
            ))
            .await?;
        rows.iter().map(|row| id(row, 0).ok_or_else(strange)).collect()
    }

    async fn values(&mut self, table: &SinkTable, columns: &[&str]) -> Result<Vec<Vec<Value>>> {
        if !self.is_there(table).await? {
            return Ok(Vec::new());
        }
        let parts = columns.iter().map(|column| match *column {
            "ts_event" | "ts_recv" => format!("cast({column} AS LONG)"),
            other => quoted(other),
        });
        let (parts, name, upto) = (parts.collect::<Vec<_>>().join(", "), quoted(&table.name), self.upto);
        self.client.sql(&format!("SELECT {parts} FROM {name} WHERE tg_pos <= {upto}")).await
    }

    async fn doubled(&mut self, table: &SinkTable, before: Timestamp) -> Result<Vec<Doubled>> {
        let (name, before, upto) = (quoted(&table.name), number(before), self.upto);
        let rows = self
            .client
            .sql(&format!(
                "SELECT venue, symbol, cast(seq AS VARCHAR), cast(ts_event AS LONG), first, n, moments FROM (
                     SELECT venue, symbol, seq, ts_event, min(cast(ts_recv AS LONG)) first, count() n,
                         count_distinct(cast(ts_recv AS LONG)) moments
                     FROM {name} WHERE cast(ts_recv AS LONG) < {before} AND tg_pos <= {upto} AND seq IS NOT NULL
                     GROUP BY venue, symbol, seq, ts_event
                 ) WHERE n > 1"
            ))
            .await?;
        let doubled = |row: &Vec<Value>| {
            let count = |at: usize| row.get(at)?.as_u64();
            Some(Doubled { stream: stream(row)?, row: id(row, 2)?, rows: count(5)?, moments: count(6)? })
        };
        rows.iter().map(|row| doubled(row).ok_or_else(strange)).collect()
    }
}

fn without_cause(table: &str) -> Error {
    Error::permanent(format!(
        "{table}: its rows do not say what caused them (`tg_pos`), so those that count cannot be told from the rest"
    ))
}

/// Returns a time as a number that QuestDB can read: its smallest one is NULL there.
fn number(time: Timestamp) -> i64 {
    time.0.max(i64::MIN + 1)
}

fn stream(row: &[Value]) -> Option<Stream> {
    let words = |at: usize| Some(row.get(at)?.as_str()?.to_owned());
    Some(Stream { venue: words(0)?, symbol: words(1)? })
}

fn id(row: &[Value], at: usize) -> Option<RowId> {
    let seq = row.get(at)?;
    let seq = if seq.is_null() { None } else { Some(seq.as_str()?.parse().ok()?) };
    let time = |at: usize| row.get(at)?.as_i64().map(Timestamp);
    Some(RowId { seq, ts_event: time(at + 1)?, ts_recv: time(at + 2)? })
}
