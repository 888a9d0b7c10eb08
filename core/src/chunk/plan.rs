//! Which tables a sink gets, under what names, with which columns: known before the first row.
//!
//! ```text
//! source × table ──Way──→ Input: columns of all sources ──→ the table itself, where the sink takes it
//!                                                       └─→ derived tables that are made of it
//! ```

use std::{collections::HashMap, sync::Arc};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use super::SinkTable;
use crate::{
    Error, Result,
    config::{NameParts, OnConflict, TableChoice},
    own,
    row::{Column, Table},
    spool::SourceInfo,
    table::{Derivation, Derived},
};

/// The tables of one sink, and the way of each source's rows into them.
#[derive(Debug, Clone)]
pub struct Plan {
    pipeline: String,
    wanted: TableChoice,
    derived: Derived,
    tables: Vec<SinkTable>,
    /// How each table comes about.
    outputs: Vec<Output>,
    inputs: Vec<Input>,
    venues: Vec<Arc<str>>,
    ways: HashMap<(Arc<str>, Arc<str>), Way>,
}

/// Rows as the sources' tables have them.
#[derive(Debug, Clone)]
pub(super) struct Input {
    of: InputOf,
    pub(super) table: Arc<Table>,
    pub(super) schema: SchemaRef,
    /// The tables that are made of it, by number.
    pub(super) outputs: Vec<usize>,
}

/// Which rows an input has.
#[derive(Debug, Clone, PartialEq, Eq)]
enum InputOf {
    /// Those of a table of all sources.
    Table(Arc<str>),
    /// Those that go to one table of the store, whose name depends on the venue.
    Store(String),
}

/// How the rows of a table come about.
#[derive(Debug, Clone, Default)]
pub(super) struct Output {
    /// `None` for the input's rows as they are.
    pub(super) derivation: Option<Arc<Derivation>>,
}

/// Where the rows of one source's table go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    /// The inputs' numbers; none when the sink does not take the table.
    pub(super) inputs: Vec<usize>,
}

impl Plan {
    /// Joins the tables of all sources under the names that the sink wants.
    ///
    /// # Errors
    ///
    /// `Config` when two tables cannot share a name: another type for a column of the same name, or tables of two kinds.
    pub fn new(pipeline: &str, sources: Vec<SourceInfo>, wanted: TableChoice) -> Result<Self> {
        Self::deriving(pipeline, sources, wanted, Derived::default())
    }

    /// Joins the tables of all sources, and derives others of them.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and where a derived table does not go with the columns that it is made of.
    pub fn deriving(pipeline: &str, sources: Vec<SourceInfo>, wanted: TableChoice, derived: Derived) -> Result<Self> {
        let (tables, outputs, inputs) = (Vec::new(), Vec::new(), Vec::new());
        let (venues, ways) = (Vec::new(), HashMap::new());
        let mut plan = Self { pipeline: pipeline.to_owned(), wanted, derived, tables, outputs, inputs, venues, ways };
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
    /// `Config` when a table cannot share a name with one that is there, or a derived one does not go with it.
    pub fn with(&self, source: SourceInfo) -> Result<Self> {
        let mut plan = self.clone();
        plan.add(&source)?;
        Ok(plan)
    }

    /// Returns a hash of what stands between the spool and the store: the same over restarts and builds.
    pub fn chain(&self) -> u64 {
        let description: Vec<_> = self.tables.iter().map(|t| (&t.name, &t.table, &t.key, &t.time_column)).collect();
        let mut bytes = postcard::to_stdvec(&description).expect("a vector takes every byte, and no table can fail");
        for table in self.tables.iter().filter(|table| self.derived.has(&table.table.name)) {
            let way: Vec<_> = self.derived.way(&table.table.name).iter().map(|of| of.described()).collect();
            bytes.extend(postcard::to_stdvec(&way).expect("a vector takes every byte, and texts cannot fail"));
        }
        // FNV-1a: the hash is stored, so it has to be one that never changes.
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
    }

    /// Makes the rows of a derived table of rows as the source has them, for benches and tests; `None` where none pass, or the
    /// table, by its number, is not derived.
    pub fn derive(&self, table: usize, rows: &RecordBatch) -> Option<RecordBatch> {
        self.outputs.get(table)?.derivation.as_ref()?.apply(rows).rows
    }

    /// Returns whether the sink takes the rows of a source's table, known or not: as they are, or what is derived of them.
    pub(crate) fn takes(&self, source: &Arc<str>, table: &Arc<str>) -> bool {
        let is_wanted = || self.wanted.takes(table) || self.derived_of(table).next().is_some();
        self.way(source, table).map_or_else(is_wanted, |way| !way.inputs.is_empty())
    }

    /// Returns what the tables that are made of a source's are called in the store; none when the sink does not take it.
    pub(crate) fn store_names(&self, source: &Arc<str>, table: &Arc<str>) -> Vec<String> {
        match self.way(source, table) {
            Some(_) => self.numbers(source, table).map(|number| self.tables[number].name.clone()).collect(),
            // No source declares it any more.
            None if self.wanted.takes(table) => vec![table.to_string()],
            None => Vec::new(),
        }
    }

    /// Returns the number of the table that a source's rows go into as they are; `None` where the sink does not take it.
    pub(crate) fn number(&self, source: &Arc<str>, table: &Arc<str>) -> Option<usize> {
        self.numbers(source, table).find(|number| self.outputs[*number].derivation.is_none())
    }

    /// Returns the numbers of the tables that a source's rows go into, derived ones among them.
    pub(crate) fn numbers(&self, source: &Arc<str>, table: &Arc<str>) -> impl Iterator<Item = usize> {
        let inputs = self.way(source, table).map_or(&[][..], |way| &way.inputs);
        inputs.iter().flat_map(|input| self.inputs[*input].outputs.iter().copied())
    }

    /// Returns the table of a source that a table is derived of; `None` where it is one itself.
    pub(crate) fn root(&self, table: usize) -> Option<Arc<str>> {
        self.outputs[table].derivation.as_ref()?;
        self.derived.root(&self.tables[table].table.name)
    }

    /// Returns the number of a table's row among those that one offset makes.
    pub(crate) fn sub(&self, table: usize) -> u32 {
        self.outputs[table].derivation.as_ref().map_or(0, |derivation| derivation.sub)
    }

    /// Returns whether a table has the columns that tell its rows apart, under their own names.
    pub(crate) fn tells_apart(&self, table: usize) -> bool {
        let names = ["venue", "symbol", "seq", "ts_event", "ts_recv", "origin"];
        let derivation = self.outputs[table].derivation.as_ref();
        derivation.is_none_or(|of| names.into_iter().all(|name| of.carried(name) == Some(name)))
    }

    /// Returns how many rows one row of the spool becomes at most.
    pub(crate) fn most_rows(&self) -> usize {
        let of = |way: &Way| way.inputs.iter().map(|input| self.inputs[*input].outputs.len()).sum();
        self.ways.values().map(of).max().unwrap_or(1)
    }

    /// Returns whether some table is derived.
    pub(crate) fn derives(&self) -> bool {
        self.outputs.iter().any(|output| output.derivation.is_some())
    }

    pub(super) fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    pub(super) fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    pub(super) fn venues(&self) -> &[Arc<str>] {
        &self.venues
    }

    pub(super) fn way(&self, source: &Arc<str>, table: &Arc<str>) -> Option<&Way> {
        self.ways.get(&(source.clone(), table.clone()))
    }

    /// Returns the derived tables that the sink takes and that are made of a table.
    fn derived_of<'a>(&'a self, table: &'a str) -> impl Iterator<Item = Arc<str>> + 'a {
        let taken = self.derived.definitions().iter().filter(|definition| self.wanted.takes(definition.name()));
        taken
            .filter(move |of| self.derived.root(of.name()).is_some_and(|root| *root == *table))
            .map(|of| of.name.clone())
    }

    fn add(&mut self, declared: &SourceInfo) -> Result<()> {
        position_or_push(&mut self.venues, &declared.venue);
        for table in &declared.tables {
            let mut inputs = Vec::new();
            if let Some(name) = self.name(&declared.venue, &table.name)? {
                let of = match self.depends_on_venue(&table.name) {
                    true => InputOf::Store(name.clone()),
                    false => InputOf::Table(table.name.clone()),
                };
                self.check_free(&name, &table.name)?;
                let input = self.input(of, table, &name)?;
                inputs.push(input);
                self.put(input, name, table.name.clone())?;
            }
            for derived in self.derived_of(&table.name).collect::<Vec<_>>() {
                let Some(name) = self.name(&declared.venue, &derived)? else { continue };
                self.check_free(&name, &derived)?;
                self.check_one_name(&name, &derived)?;
                let input = self.input(InputOf::Table(table.name.clone()), table, &name)?;
                if !inputs.contains(&input) {
                    inputs.push(input);
                }
                self.put(input, name, derived)?;
            }
            for input in &inputs {
                self.refresh(*input)?;
            }
            self.ways.insert((declared.name.clone(), table.name.clone()), Way { inputs });
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

    fn depends_on_venue(&self, table: &str) -> bool {
        let fill = |venue| {
            let parts = NameParts { pipeline: &self.pipeline, venue, table, symbol: "" };
            self.wanted.name(table).map(|template| template.fill(parts))
        };
        fill("a") != fill("b")
    }

    /// Two tables cannot share a name in the store.
    fn check_free(&self, name: &str, table: &str) -> Result<()> {
        match self.tables.iter().find(|known| known.name == name && *known.table.name != *table) {
            None => Ok(()),
            Some(known) => {
                let one = &known.table.name;
                Err(Error::config(format!("tables `{one}` and `{table}` are both called `{name}` in the store")))
            }
        }
    }

    /// A derived table is one, whatever venues its rows are of.
    fn check_one_name(&self, name: &str, derived: &str) -> Result<()> {
        match self.tables.iter().find(|known| *known.table.name == *derived && known.name != name) {
            None => Ok(()),
            Some(known) => {
                let one = &known.name;
                Err(Error::config(format!(
                    "`{derived}` would be called `{one}` and `{name}`: rows of several venues go into it; make one table \
                     for each, with where = \"venue = '…'\""
                )))
            }
        }
    }

    /// Returns the number of an input that has the columns of `table` too.
    fn input(&mut self, of: InputOf, table: &Arc<Table>, name: &str) -> Result<usize> {
        let Some(number) = self.inputs.iter().position(|input| input.of == of) else {
            let schema = checked_schema(name, table)?;
            self.inputs.push(Input { of, table: table.clone(), schema, outputs: Vec::new() });
            return Ok(self.inputs.len() - 1);
        };
        let input = &mut self.inputs[number];
        input.table = Arc::new(union(&input.table, table)?);
        input.schema = checked_schema(name, &input.table)?;
        Ok(number)
    }

    /// Sees to it that a table of the store is made of an input.
    fn put(&mut self, input: usize, name: String, table: Arc<str>) -> Result<()> {
        if self.tables.iter().any(|known| known.name == name) {
            return Ok(());
        }
        let time_column = "ts_event".to_owned();
        // Its columns are described once the input has all of its own.
        let table = Arc::new(Table { name: table, ..Table::clone(&self.inputs[input].table) });
        let retention = self.wanted.config(&table.name).and_then(|config| config.retention);
        let (key, on_conflict) = (Vec::new(), OnConflict::Append);
        self.tables.push(SinkTable { table, name, key, on_conflict, retention, time_column });
        self.outputs.push(Output::default());
        self.inputs[input].outputs.push(self.tables.len() - 1);
        Ok(())
    }

    /// Describes the tables that are made of an input anew.
    fn refresh(&mut self, input: usize) -> Result<()> {
        let Input { table: source, outputs, .. } = self.inputs[input].clone();
        for number in outputs {
            let name = self.tables[number].table.name.clone();
            let (described, output) = if self.derived.has(&name) {
                let way = self.derived.way(&name);
                let derivation = Derivation::new(&way, &source).map_err(|error| Error::config(error.to_string()))?;
                let described = (derivation.table.clone(), derivation.time_column.clone());
                (described, Output { derivation: Some(Arc::new(derivation)) })
            } else {
                ((source.clone(), "ts_event".to_owned()), Output::default())
            };
            let (key, on_conflict) = self.key(&described.0, &source, output.derivation.as_deref());
            let table = &mut self.tables[number];
            (table.table, table.time_column) = described;
            (table.key, table.on_conflict) = (key, on_conflict);
            self.outputs[number] = output;
        }
        Ok(())
    }

    /// Returns the columns of a table's key, and what it is for. The pipeline's own tables have one that nobody has to name;
    /// what is derived of them keeps it as long as it keeps the columns.
    fn key(&self, table: &Table, source: &Table, derivation: Option<&Derivation>) -> (Vec<String>, OnConflict) {
        let config = self.wanted.config(&table.name);
        let on_conflict = config.and_then(|config| config.on_conflict);
        let named = config.map(|config| config.key.clone()).unwrap_or_default();
        let kept = || -> Option<Vec<String>> {
            let key = own::key(source).into_iter();
            key.map(|column| {
                derivation.map_or_else(|| Some(column.clone()), |of| of.carried(&column).map(str::to_owned))
            })
            .collect()
        };
        let own_key = if own::has_key(&source.name) && named.is_empty() { kept() } else { None };
        let Some(own_key) = own_key else { return (named, on_conflict.unwrap_or_default()) };
        let on_conflict = on_conflict.unwrap_or(OnConflict::Replace);
        let key = if on_conflict == OnConflict::Append { Vec::new() } else { own_key };
        (key, on_conflict)
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
    Ok(Table { name: one.name.clone(), identity, linked: one.linked || other.linked, columns, is_whole: false })
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

pub(super) fn position_or_push(names: &mut Vec<Arc<str>>, name: &Arc<str>) -> usize {
    names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.clone());
        names.len() - 1
    })
}
