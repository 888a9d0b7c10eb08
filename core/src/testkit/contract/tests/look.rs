//! What that store can be asked.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{super::StoredRow, how::How, server::Disk, sink::Flaw};
use crate::{
    Result,
    chunk::SinkTable,
    row::{Timestamp, Value},
    sink::{Neighbour, Owner},
    spool::SpoolPosition,
    verify::{Audit, Doubled, RowId, Stream, Sum},
};

/// What the store held when it was asked.
pub(super) struct Look {
    pub(super) disk: Disk,
    pub(super) owner: Owner,
    pub(super) how: How,
}

impl Look {
    fn of(&self, table: &SinkTable) -> Vec<(Stream, RowId)> {
        let rows = self.disk.tables.get(&table.name).map(|rows| rows.rows.as_slice()).unwrap_or_default();
        let text = |row: &StoredRow, name: &str| match row.get(name) {
            Some(Value::Text(text)) => text.clone(),
            _ => String::new(),
        };
        let time = |row: &StoredRow, name: &str| match row.get(name) {
            Some(Value::Time(time)) => *time,
            _ => Timestamp(0),
        };
        let seq = |row: &StoredRow| match row.get("seq") {
            Some(Value::U64(seq)) => Some(*seq),
            _ => None,
        };
        let id = |row| RowId { seq: seq(row), ts_event: time(row, "ts_event"), ts_recv: time(row, "ts_recv") };
        let stream = |row| Stream { venue: text(row, "venue"), symbol: text(row, "symbol") };
        rows.iter().map(|(_, row)| (stream(row), id(row))).collect()
    }
}

#[async_trait]
impl Audit for Look {
    async fn position(&mut self) -> Result<Option<(u64, SpoolPosition)>> {
        let held = self.disk.positions.get(&(self.owner.pipeline.clone(), self.owner.sink.clone()));
        Ok(held.filter(|held| held.at != SpoolPosition::START).map(|held| (held.spool, held.at)))
    }

    async fn neighbours(&mut self, _: &[SinkTable]) -> Result<Vec<Neighbour>> {
        Ok(Vec::new())
    }

    async fn sums(&mut self, table: &SinkTable, since: Timestamp) -> Result<Option<Vec<Sum>>> {
        if !self.disk.tables.contains_key(&table.name) {
            return Ok(None);
        }
        let mut sums: BTreeMap<Stream, Sum> = BTreeMap::new();
        for (stream, row) in self.of(table).into_iter().filter(|(_, row)| row.ts_recv >= since) {
            let sum = sums.entry(stream.clone()).or_insert(Sum { stream, rows: 0, redriven: 0, marks: 0 });
            sum.rows += 1;
            sum.marks += row.mark();
        }
        let less = u64::from(self.how.is(Flaw::CountsOneLess));
        Ok(Some(sums.into_values().map(|sum| Sum { rows: sum.rows - less, ..sum }).collect()))
    }

    async fn count(&mut self, table: &SinkTable) -> Result<Option<u64>> {
        Ok(self.disk.tables.contains_key(&table.name).then(|| self.of(table).len() as u64))
    }

    async fn rows(&mut self, table: &SinkTable, stream: &Stream, since: Timestamp) -> Result<Vec<RowId>> {
        let all = self.of(table).into_iter();
        Ok(all.filter(|(of, row)| of == stream && row.ts_recv >= since).map(|(_, row)| row).collect())
    }

    async fn doubled(&mut self, _: &SinkTable, _: Timestamp) -> Result<Vec<Doubled>> {
        Ok(Vec::new())
    }
}
