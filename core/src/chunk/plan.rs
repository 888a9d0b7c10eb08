//! Which tables a sink gets, under what names, with which columns: known before the first row.

use std::{collections::HashMap, sync::Arc};

use arrow_schema::SchemaRef;

use super::SinkTable;
use crate::{
    Error, Result,
    config::{NameParts, OnConflict, TableChoice},
    own,
    row::{Column, Table},
    spool::SourceInfo,
};

/// The tables of one sink, and the way of each source's rows into them.
#[derive(Debug, Clone)]
pub struct Plan {
    pipeline: String,
    wanted: TableChoice,
    tables: Vec<SinkTable>,
    /// Of each table.
    schemas: Vec<SchemaRef>,
    venues: Vec<Arc<str>>,
    ways: HashMap<(Arc<str>, Arc<str>), Way>,
}

/// Where the rows of one source's table go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    /// The table's number in the plan; `None` when the sink does not take it.
    pub(super) table: Option<usize>,
    /// The venue's number in the plan.
    pub(super) venue: usize,
}

impl Plan {
    /// Joins the tables of all sources under the names that the sink wants.
    ///
    /// # Errors
    ///
    /// `Config` when two tables cannot share a name: another type for a column of the same name, or tables of two kinds.
    pub fn new(pipeline: &str, sources: Vec<SourceInfo>, wanted: TableChoice) -> Result<Self> {
        let (tables, schemas, venues, ways) = (Vec::new(), Vec::new(), Vec::new(), HashMap::new());
        let mut plan = Self { pipeline: pipeline.to_owned(), wanted, tables, schemas, venues, ways };
        for declared in sources {
            plan.add(&declared)?;
        }
        Ok(plan)
    }

    /// Returns the tables in the order in which `TableRows::table` counts them.
    pub fn tables(&self) -> &[SinkTable] {
        &self.tables
    }

    /// Returns the plan with more tables: those of rows in the spool that no source declares any more.
    ///
    /// # Errors
    ///
    /// `Config` when a table cannot share a name with one that is there.
    pub fn with(&self, source: SourceInfo) -> Result<Self> {
        let mut plan = self.clone();
        plan.add(&source)?;
        Ok(plan)
    }

    /// Returns a hash of what stands between the spool and the store: the same over restarts and builds.
    pub fn chain(&self) -> u64 {
        let description: Vec<_> = self.tables.iter().map(|t| (&t.name, &t.table, &t.key, &t.time_column)).collect();
        let bytes = postcard::to_stdvec(&description).expect("a vector takes every byte, and no table can fail");
        // FNV-1a: the hash is stored, so it has to be one that never changes.
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
    }

    /// Returns whether the sink takes the rows of a source's table, known or not.
    pub(crate) fn takes(&self, source: &Arc<str>, table: &Arc<str>) -> bool {
        self.way(source, table).map_or_else(|| self.wanted.takes(table), |way| way.table.is_some())
    }

    /// Returns what a source's table is called in the store; `None` when the sink does not take it.
    pub(crate) fn store_name(&self, source: &Arc<str>, table: &Arc<str>) -> Option<String> {
        match self.way(source, table) {
            Some(way) => way.table.map(|number| self.tables[number].name.clone()),
            // No source declares it any more.
            None => self.wanted.takes(table).then(|| table.to_string()),
        }
    }

    /// Returns the number of the table that a source's table goes into; `None` where the sink does not take it.
    pub(crate) fn number(&self, source: &Arc<str>, table: &Arc<str>) -> Option<usize> {
        self.way(source, table)?.table
    }

    /// Returns a table with its schema.
    pub(super) fn table(&self, number: usize) -> (&Table, &SchemaRef) {
        (&self.tables[number].table, &self.schemas[number])
    }

    pub(super) fn venues(&self) -> &[Arc<str>] {
        &self.venues
    }

    pub(super) fn way(&self, source: &Arc<str>, table: &Arc<str>) -> Option<Way> {
        self.ways.get(&(source.clone(), table.clone())).copied()
    }

    fn add(&mut self, declared: &SourceInfo) -> Result<()> {
        let venue = position_or_push(&mut self.venues, &declared.venue);
        for table in &declared.tables {
            let number = match self.name(&declared.venue, &table.name)? {
                Some(name) => Some(self.join(name, table)?),
                None => None,
            };
            self.ways.insert((declared.name.clone(), table.name.clone()), Way { table: number, venue });
        }
        Ok(())
    }

    /// Returns the name in the store; `None` when the sink does not take the table.
    fn name(&self, venue: &str, table: &str) -> Result<Option<String>> {
        if !self.wanted.takes(table) {
            return Ok(None);
        }
        let Some(template) = self.wanted.name(table) else { return Ok(Some(table.to_owned())) };
        let parts = NameParts { pipeline: &self.pipeline, venue, table, symbol: "" };
        if template.fill(parts) != template.fill(NameParts { symbol: "x", ..parts }) {
            return Err(Error::config(format!(
                "`{template}` has a table for each symbol: this store takes `{{pipeline}}`, `{{venue}}` and `{{table}}`"
            )));
        }
        Ok(Some(template.fill(parts)))
    }

    /// Returns the columns of a table's key, and what it is for. The pipeline's own tables have one that nobody has to name.
    fn key(&self, table: &Table) -> (Vec<String>, OnConflict) {
        let config = self.wanted.config(&table.name);
        let on_conflict = config.and_then(|config| config.on_conflict);
        let named = config.map(|config| config.key.clone()).unwrap_or_default();
        if !own::has_key(&table.name) || !named.is_empty() {
            return (named, on_conflict.unwrap_or_default());
        }
        let on_conflict = on_conflict.unwrap_or(OnConflict::Replace);
        let key = if on_conflict == OnConflict::Append { Vec::new() } else { own::key(table) };
        (key, on_conflict)
    }

    fn join(&mut self, name: String, table: &Arc<Table>) -> Result<usize> {
        let Some(number) = self.tables.iter().position(|known| known.name == name) else {
            self.schemas.push(checked_schema(&name, table)?);
            let (key, on_conflict) = self.key(table);
            let time_column = "ts_event".to_owned();
            self.tables.push(SinkTable { table: table.clone(), name, key, on_conflict, time_column });
            return Ok(self.tables.len() - 1);
        };
        let known = &mut self.tables[number];
        if known.table.name != table.name {
            let (one, other) = (&known.table.name, &table.name);
            return Err(Error::config(format!("tables `{one}` and `{other}` are both called `{name}` in the store")));
        }
        known.table = Arc::new(union(&known.table, table)?);
        self.schemas[number] = checked_schema(&name, &known.table)?;
        Ok(number)
    }
}

/// Joins the columns of two tables. What one of them lacks may be absent.
fn union(one: &Table, other: &Table) -> Result<Table> {
    let mut columns = one.columns.clone();
    for column in &mut columns {
        let lacks = !other.columns.iter().any(|c| c.name == column.name);
        column.nullable |= lacks;
    }
    for column in &other.columns {
        let Some(known) = columns.iter_mut().find(|known| known.name == column.name) else {
            columns.push(Column { nullable: true, ..column.clone() });
            continue;
        };
        if known.column_type != column.column_type {
            let (table, name) = (&one.name, &column.name);
            return Err(Error::config(format!(
                "column `{name}` of table `{table}` is {:?} in one source and {:?} in another: give them two names, \
                 like `{table} = \"{{venue}}_{{table}}\"`",
                known.column_type, column.column_type
            )));
        }
        known.nullable |= column.nullable;
    }
    let identity = if one.identity == other.identity { one.identity.clone() } else { Vec::new() };
    Ok(Table { name: one.name.clone(), identity, linked: one.linked || other.linked, columns })
}

/// Returns the schema of a table, no column of whose row kind has the name of one that every table has.
fn checked_schema(name: &str, table: &Table) -> Result<SchemaRef> {
    let schema = table.schema();
    let common = schema.fields().len() - table.columns.len();
    for (index, field) in schema.fields().iter().enumerate().skip(common) {
        if schema.fields()[..index].iter().any(|earlier| earlier.name() == field.name()) {
            return Err(Error::config(format!("table `{name}` has two columns called `{}`", field.name())));
        }
    }
    Ok(schema)
}

fn position_or_push(names: &mut Vec<Arc<str>>, name: &Arc<str>) -> usize {
    names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.clone());
        names.len() - 1
    })
}
