//! Rows as the spool holds them → record batches, one for each table.

mod derive;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

pub(crate) use derive::{Finished, Origin as RowOrigin, Unfit};

use arrow_array::{ArrayRef, RecordBatch, UInt64Array};
use arrow_buffer::NullBuffer;
use arrow_schema::SchemaRef;

use super::{
    Plan, TableRows,
    columns::{ColumnBuilder, dictionary, times},
    plan::{Input, position_or_push},
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
    /// It is in the chunk, as far as the derived tables that are made of it take it.
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
    /// By offset: rows that go to one table only.
    addressed: HashMap<u64, u32>,
    /// Those of the plan, and behind them what only the rows of a log name.
    venues: Vec<Arc<str>>,
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
    /// None where the sink takes nothing of it.
    targets: Vec<Target>,
    /// Whether something is derived of it: what becomes of a row is not known before all are there.
    is_derived: bool,
}

#[derive(Debug)]
struct Target {
    /// The input's number.
    input: usize,
    /// The input's column for each column of the written one.
    columns: Vec<usize>,
    /// The input's columns that the written one lacks.
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
        let tables = plan.inputs().iter().map(TableBuilder::new).collect();
        let venues = plan.venues().to_vec();
        Self { plan, tables, routes: Vec::new(), addressed: HashMap::new(), venues, rows: 0, bytes: 0 }
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
        if route.targets.is_empty() {
            return Fate::Filtered;
        }
        let is_skipped = !skip.is_empty() && skip.contains(&cause);
        if is_skipped && !route.is_derived {
            return Fate::Skipped;
        }
        let words = route.written.presence_words();
        let is_whole =
            route.targets.iter().all(|target| self.tables[target.input].push_columns(row, target, words).is_some());
        if !is_whole {
            route.targets.iter().for_each(|target| self.tables[target.input].take_back());
            return if is_skipped { Fate::Skipped } else { Fate::Unreadable };
        }
        for target in &route.targets {
            self.tables[target.input].push_head(cause, head, route.venue);
        }
        self.rows += 1;
        self.bytes += row.len() + HEAD_BYTES;
        Fate::Taken
    }

    /// Takes a row that goes to one table only, by the number of its row among those that its offset makes.
    pub(crate) fn push_to(
        &mut self,
        sub: u32,
        cause: Cause,
        head: &RowHead,
        row: &[u8],
        from: RowSource<'_>,
        skip: &HashSet<Cause>,
    ) -> Fate {
        let fate = self.push(cause, head, row, from, skip);
        if fate == Fate::Taken {
            self.addressed.insert(cause.offset, sub);
        }
        fate
    }

    /// Returns the rows of all tables that have any, and is empty again. Rows for which a derived table has no value are
    /// left out of it.
    pub fn finish(&mut self) -> Vec<TableRows> {
        self.finish_without(&HashSet::new()).rows
    }

    /// Returns the rows of all tables as the sources have them, by the numbers of the plan's inputs, and is empty again.
    fn inputs(&mut self) -> Vec<TableRows> {
        (self.rows, self.bytes) = (0, 0);
        let mut all = Vec::new();
        for (number, table) in self.tables.iter_mut().enumerate() {
            if table.causes.is_empty() {
                continue;
            }
            let full = std::mem::replace(table, TableBuilder::new(&self.plan.inputs()[number]));
            all.push(full.finish(number, &self.venues, &self.routes));
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
        self.addressed.clear();
        for (number, table) in self.tables.iter_mut().enumerate().filter(|(_, table)| !table.causes.is_empty()) {
            *table = TableBuilder::new(&self.plan.inputs()[number]);
        }
    }

    /// Finds the way of a stream; false when the plan has none for all its columns.
    fn route(&mut self, stream: usize, from: RowSource<'_>) -> bool {
        let Some(way) = self.plan.way(from.source, &from.table.name) else { return false };
        let target = |&input: &usize| Target::new(input, from.table, &self.plan.inputs()[input].table);
        let Some(targets) = way.inputs.iter().map(target).collect::<Option<Vec<_>>>() else { return false };
        let mut outputs = self.plan.numbers(from.source, &from.table.name);
        let is_derived = outputs.any(|output| self.plan.outputs()[output].derivation.is_some());
        let venue = position_or_push(&mut self.venues, from.venue) as i32;
        if self.routes.len() <= stream {
            self.routes.resize_with(stream + 1, || None);
        }
        let (written, source, key) = (from.table.clone(), from.source.clone(), from.key.clone());
        self.routes[stream] = Some(Route { written, source, key, venue, targets, is_derived });
        true
    }
}

impl Target {
    /// Returns `None` when the input lacks a column, has it with another type, or takes no absent value where one may come.
    fn new(input: usize, written: &Table, table: &Table) -> Option<Self> {
        if written.linked && !table.linked {
            return None;
        }
        let mut columns = Vec::with_capacity(written.columns.len());
        for column in &written.columns {
            let at = table.columns.iter().position(|c| c.name == column.name && c.column_type == column.column_type)?;
            if column.nullable && !table.columns[at].nullable {
                return None;
            }
            columns.push(at);
        }
        let absent: Vec<usize> = (0..table.columns.len()).filter(|at| !columns.contains(at)).collect();
        absent.iter().all(|&at| table.columns[at].nullable).then_some(Self { input, columns, absent })
    }
}

impl TableBuilder {
    fn new(input: &Input) -> Self {
        let Input { table, schema, .. } = input;
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

    fn finish(self, number: usize, venues: &[Arc<str>], routes: &[Option<Route>]) -> TableRows {
        let mut arrays: Vec<ArrayRef> = vec![
            times(self.ts_event, None),
            times(self.ts_recv, None),
            dictionary(self.venues, None, venues.iter().map(|venue| &**venue)),
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
