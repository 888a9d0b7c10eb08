//! Rows as the spool holds them → record batches, one for each table.

use std::{collections::HashSet, sync::Arc};

use arrow_array::{ArrayRef, RecordBatch, UInt64Array};
use arrow_buffer::NullBuffer;
use arrow_schema::SchemaRef;

use super::{
    Plan, TableRows,
    columns::{ColumnBuilder, dictionary, times},
};
use crate::{
    row::{Origin, Position, Reader, StreamKey, Table},
    spool::{Cause, RowHead},
};

/// Where a row in the spool came from.
#[derive(Debug, Clone, Copy)]
pub struct RowSource<'a> {
    /// The source's name.
    pub source: &'a Arc<str>,
    /// The type of its component.
    pub venue: &'a Arc<str>,
    /// The stream.
    pub key: &'a StreamKey,
    /// The table that the row was written with.
    pub table: &'a Arc<Table>,
}

/// What became of a row that was given to a [`ChunkBuilder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is in the chunk.
    Taken,
    /// The sink does not take the table.
    Filtered,
    /// The caller asked to leave it out.
    Skipped,
    /// Its bytes are none of its table's: a faulty program wrote them.
    Unreadable,
    /// The plan does not know its table, or lacks some of its columns: it has to be extended by [`Plan::with`] first.
    Unplanned,
}

/// Collects rows, and gives them back as columns.
#[derive(Debug)]
pub struct ChunkBuilder {
    plan: Arc<Plan>,
    tables: Vec<TableBuilder>,
    /// By stream number. What is known of a stream holds until its rows are written with another table.
    routes: Vec<Option<Route>>,
    rows: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Route {
    /// The table that the route was made for.
    written: Arc<Table>,
    source: Arc<str>,
    key: StreamKey,
    venue: i32,
    target: Option<Target>,
}

#[derive(Debug)]
struct Target {
    table: usize,
    /// The sink table's column for each column of the written one.
    columns: Vec<usize>,
    /// The sink table's columns that the written one lacks.
    absent: Vec<usize>,
}

#[derive(Debug)]
struct TableBuilder {
    schema: SchemaRef,
    linked: bool,
    causes: Vec<Cause>,
    ts_event: Vec<i64>,
    ts_recv: Vec<i64>,
    venues: Vec<i32>,
    /// The stream of each row, which becomes its symbol at the end: no hash for each row.
    streams: Vec<u32>,
    seq: Vec<Option<u64>>,
    origins: Vec<i32>,
    prev: Vec<Option<u64>>,
    chains: Vec<u64>,
    columns: Vec<ColumnBuilder>,
}

impl ChunkBuilder {
    /// Returns a builder of the tables of `plan`.
    pub fn new(plan: Arc<Plan>) -> Self {
        let tables = (0..plan.tables().len()).map(|number| TableBuilder::new(plan.table(number))).collect();
        Self { plan, tables, routes: Vec::new(), rows: 0, bytes: 0 }
    }

    /// Returns how many rows it holds.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns how many bytes these rows have in the spool.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a row, unless it is one of `skip`.
    #[inline]
    pub fn push(
        &mut self,
        cause: Cause,
        head: &RowHead,
        row: &[u8],
        from: RowSource<'_>,
        skip: &HashSet<Cause>,
    ) -> Fate {
        let stream = head.head.stream as usize;
        let is_known = matches!(self.routes.get(stream), Some(Some(route)) if Arc::ptr_eq(&route.written, from.table));
        if !is_known && !self.route(stream, from) {
            return Fate::Unplanned;
        }
        let route = self.routes[stream].as_ref().expect("made above");
        let Some(target) = &route.target else { return Fate::Filtered };
        if !skip.is_empty() && skip.contains(&cause) {
            return Fate::Skipped;
        }
        let table = &mut self.tables[target.table];
        if table.push_columns(row, target, route.written.presence_words()).is_none() {
            table.take_back();
            return Fate::Unreadable;
        }
        table.push_head(cause, head, route.venue);
        self.rows += 1;
        self.bytes += row.len() + HEAD_BYTES;
        Fate::Taken
    }

    /// Returns the rows of all tables that have any, and is empty again.
    pub fn finish(&mut self) -> Vec<TableRows> {
        (self.rows, self.bytes) = (0, 0);
        let mut all = Vec::new();
        for (number, table) in self.tables.iter_mut().enumerate() {
            if table.causes.is_empty() {
                continue;
            }
            let full = std::mem::replace(table, TableBuilder::new(self.plan.table(number)));
            all.push(full.finish(number, &self.plan, &self.routes));
        }
        all
    }

    /// Returns the source and the name of a stream that rows were given of.
    pub fn stream(&self, number: u32) -> Option<(&Arc<str>, &StreamKey)> {
        let route = self.routes.get(number as usize)?.as_ref()?;
        Some((&route.source, &route.key))
    }

    /// Forgets the rows.
    pub fn clear(&mut self) {
        (self.rows, self.bytes) = (0, 0);
        for (number, table) in self.tables.iter_mut().enumerate().filter(|(_, table)| !table.causes.is_empty()) {
            *table = TableBuilder::new(self.plan.table(number));
        }
    }

    /// Finds the way of a stream; false when the plan has none for all its columns.
    fn route(&mut self, stream: usize, from: RowSource<'_>) -> bool {
        let Some(way) = self.plan.way(from.source, &from.table.name) else { return false };
        let target = match way.table {
            Some(number) => match Target::new(number, from.table, &self.plan.tables()[number].table) {
                Some(target) => Some(target),
                None => return false,
            },
            None => None,
        };
        if self.routes.len() <= stream {
            self.routes.resize_with(stream + 1, || None);
        }
        let (written, source, key) = (from.table.clone(), from.source.clone(), from.key.clone());
        self.routes[stream] = Some(Route { written, source, key, venue: way.venue as i32, target });
        true
    }
}

impl Target {
    /// Returns `None` when `sink` lacks a column, has it with another type, or takes no absent value where one may come.
    fn new(table: usize, written: &Table, sink: &Table) -> Option<Self> {
        if written.linked && !sink.linked {
            return None;
        }
        let mut columns = Vec::with_capacity(written.columns.len());
        for column in &written.columns {
            let at = sink.columns.iter().position(|c| c.name == column.name && c.column_type == column.column_type)?;
            if column.nullable && !sink.columns[at].nullable {
                return None;
            }
            columns.push(at);
        }
        let absent: Vec<usize> = (0..sink.columns.len()).filter(|at| !columns.contains(at)).collect();
        absent.iter().all(|&at| sink.columns[at].nullable).then_some(Self { table, columns, absent })
    }
}

impl TableBuilder {
    fn new((table, schema): (&Table, &SchemaRef)) -> Self {
        Self {
            schema: schema.clone(),
            linked: table.linked,
            causes: Vec::new(),
            ts_event: Vec::new(),
            ts_recv: Vec::new(),
            venues: Vec::new(),
            streams: Vec::new(),
            seq: Vec::new(),
            origins: Vec::new(),
            prev: Vec::new(),
            chains: Vec::new(),
            columns: table.columns.iter().map(|column| ColumnBuilder::new(column.column_type)).collect(),
        }
    }

    #[inline]
    fn push_columns(&mut self, row: &[u8], target: &Target, words: usize) -> Option<()> {
        let mut reader = Reader::new(row);
        let mut presence = Reader::new(reader.bytes(words * 8)?);
        let mut word = 0;
        for (number, &at) in target.columns.iter().enumerate() {
            if number % 64 == 0 {
                word = presence.u64()?;
            }
            if word & 1 == 1 {
                self.columns[at].push(&mut reader)?;
            } else {
                // A value that may not be absent is no less broken than one that cannot be read.
                self.nullable(at).then(|| self.columns[at].absent())?;
            }
            word >>= 1;
        }
        for &at in &target.absent {
            self.columns[at].absent();
        }
        reader.rest().is_empty().then_some(())
    }

    fn nullable(&self, column: usize) -> bool {
        self.schema.field(self.schema.fields().len() - self.columns.len() + column).is_nullable()
    }

    /// Takes back the columns of a row whose head was not pushed.
    fn take_back(&mut self) {
        for column in &mut self.columns {
            column.truncate(self.causes.len());
        }
    }

    #[inline]
    fn push_head(&mut self, cause: Cause, row: &RowHead, venue: i32) {
        let head = &row.head;
        self.causes.push(cause);
        self.ts_event.push(head.ts_event.0);
        self.ts_recv.push(head.ts_recv.0);
        self.venues.push(venue);
        self.streams.push(head.stream);
        self.seq.push(head.position.number());
        self.origins.push(head.origin as i32);
        if self.linked {
            self.prev.push(match head.position {
                Position::Linked { prev, .. } => prev,
                Position::Unnumbered | Position::Ordered(_) | Position::Sequence(_) => None,
            });
            self.chains.push(u64::from(row.session) << 32 | u64::from(row.epoch));
        }
    }

    fn finish(self, number: usize, plan: &Plan, routes: &[Option<Route>]) -> TableRows {
        let mut arrays: Vec<ArrayRef> = vec![
            times(self.ts_event, None),
            times(self.ts_recv, None),
            dictionary(self.venues, None, plan.venues().iter().map(|venue| &**venue)),
            symbols(&self.streams, routes),
            numbers(&self.seq),
            dictionary(self.origins, None, Origin::NAMES),
        ];
        if self.linked {
            arrays.push(numbers(&self.prev));
            arrays.push(Arc::new(UInt64Array::from(self.chains)));
        }
        arrays.extend(self.columns.into_iter().map(ColumnBuilder::finish));
        let rows = RecordBatch::try_new(self.schema, arrays).expect("the builders were made from the same schema");
        TableRows { table: number, rows, causes: self.causes, streams: self.streams }
    }
}

/// Turns stream numbers into dictionary keys.
fn symbols(streams: &[u32], routes: &[Option<Route>]) -> ArrayRef {
    let mut key_of = vec![-1; routes.len()];
    let mut names: Vec<&str> = Vec::new();
    let mut keys = Vec::with_capacity(streams.len());
    for stream in streams {
        let key = &mut key_of[*stream as usize];
        if *key < 0 {
            *key = names.len() as i32;
            names.push(routes[*stream as usize].as_ref().map_or("", |route| &route.key.symbol));
        }
        keys.push(*key);
    }
    dictionary(keys, None, names)
}

fn numbers(values: &[Option<u64>]) -> ArrayRef {
    let nulls = values.iter().any(Option::is_none).then(|| values.iter().map(Option::is_some).collect::<NullBuffer>());
    let values: Vec<u64> = values.iter().map(|value| value.unwrap_or_default()).collect();
    Arc::new(UInt64Array::new(values.into(), nulls))
}

/// About what a row's head takes in the spool: part of what `batch.bytes` bounds.
const HEAD_BYTES: usize = 40;
