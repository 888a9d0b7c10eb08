//! A derived table over the columns that its rows have: typed, and applied to rows.

use std::{fmt, sync::Arc};

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, cast::AsArray};
use arrow_schema::SchemaRef;
use arrow_select::filter::{FilterBuilder, FilterPredicate, prep_null_mask_filter};

use super::{
    Definition, Part,
    expression::{Failure, Field, Item, Kind, Mistake, Node, Rows, Scope, as_labels, evaluate},
};
use crate::{
    caught::meet,
    row::{Column, Table},
};

/// One derived table, by way of those that it is made of.
#[derive(Debug)]
pub(crate) struct Derivation {
    pub(crate) sub: u32,
    stages: Vec<Stage>,
    /// What comes out.
    pub(crate) table: Arc<Table>,
    schema: SchemaRef,
    pub(crate) time_column: String,
    /// The columns of the source's table that come out as they are, with their names then.
    carried: Vec<(String, String)>,
}

/// One definition, typed.
#[derive(Debug)]
struct Stage {
    name: Arc<str>,
    condition: Option<Node>,
    /// `None` for all columns as they are.
    columns: Option<Vec<Node>>,
}

/// A definition that does not go with its columns.
#[derive(Debug)]
pub(crate) struct Unplanned {
    pub(crate) table: Arc<str>,
    pub(crate) part: Part,
    pub(crate) mistakes: Vec<Mistake>,
}

/// What became of some rows.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// Those of the derived table; `None` for none.
    pub(crate) rows: Option<RecordBatch>,
    /// Which these were.
    pub(crate) kept: Vec<usize>,
    /// Those that have no value, with the reason.
    pub(crate) refused: Vec<(usize, String)>,
}

impl Derivation {
    /// Types a table by way of `way`, the nearest to the source first, over the rows of `input`.
    pub(crate) fn new(way: &[&Definition], input: &Table) -> Result<Self, Unplanned> {
        let fields = input.schema();
        let names = fields.fields().iter().map(|field| (field.name().clone(), field.name().clone()));
        let mut derivation = Self {
            sub: way.last().map_or(0, |last| last.sub()),
            stages: Vec::new(),
            table: Arc::new(input.clone()),
            schema: fields.clone(),
            time_column: "ts_event".to_owned(),
            carried: names.collect(),
        };
        for definition in way {
            derivation.add(definition)?;
        }
        Ok(derivation)
    }

    fn add(&mut self, definition: &Definition) -> Result<(), Unplanned> {
        let fields = fields(&self.schema);
        let scope = Scope { table: &definition.from, fields: &fields };
        let wrong = |part, mistakes| Unplanned { table: definition.name.clone(), part, mistakes };
        let condition = definition.condition.as_ref().map(|condition| condition.plan(&scope)).transpose();
        let condition = condition.map_err(|mistakes| wrong(Part::Where, mistakes))?;
        let items = definition.selection.as_ref().map(|selection| selection.plan(&scope)).transpose();
        let items = items.map_err(|mistakes| wrong(Part::Select, mistakes))?;
        match &items {
            None => self.table = Arc::new(Table { name: definition.name.clone(), ..Table::clone(&self.table) }),
            Some(items) => {
                let whole = 0..definition.selection.as_ref().map_or(0, |selection| selection.length());
                self.select(definition, items, &fields)
                    .ok_or_else(|| wrong(Part::Select, vec![without_time(whole, &self.time_column)]))?;
            }
        }
        self.schema = self.table.schema();
        let columns = items.map(|items| items.into_iter().map(|item| item.node).collect());
        self.stages.push(Stage { name: definition.name.clone(), condition, columns });
        Ok(())
    }

    /// Takes on the columns of a `select`; `None` where none of them is a time.
    fn select(&mut self, definition: &Definition, items: &[Item], fields: &[Field]) -> Option<()> {
        let source = |item: &Item| item.node.as_column().map(|column| fields[column].name.as_str());
        let time = items.iter().find(|item| source(item) == Some(&self.time_column));
        let time = time.or_else(|| items.iter().find(|item| item.node.kind == Kind::Time))?;
        let renamed = |name: &str| items.iter().find(|item| source(item) == Some(name)).map(|item| item.name.clone());
        let identity: Option<Vec<Arc<str>>> =
            self.table.identity.iter().map(|name| renamed(name).map(Into::into)).collect();
        let columns = items.iter().filter_map(|item| {
            let column_type = item.node.kind.column(item.node.is_label)?;
            Some(Column { name: item.name.as_str().into(), column_type, nullable: item.node.nullable })
        });
        let table = Table {
            name: definition.name.clone(),
            identity: identity.unwrap_or_default(),
            linked: false,
            columns: columns.collect(),
            is_whole: true,
        };
        let carried = std::mem::take(&mut self.carried).into_iter();
        self.carried = carried.filter_map(|(root, name)| Some((root, renamed(&name)?))).collect();
        self.time_column = time.name.clone();
        self.table = Arc::new(table);
        Some(())
    }

    /// Returns what a column of the source's table is called in this one, if it comes out as it is.
    pub(crate) fn carried(&self, column: &str) -> Option<&str> {
        self.carried.iter().find(|(root, _)| root == column).map(|(_, name)| name.as_str())
    }

    /// Makes rows of the derived table. Each row by itself: one that has no value changes no other.
    pub(crate) fn apply(&self, rows: &RecordBatch) -> Applied {
        meet("a table");
        let (mut applied, mut pieces) = (Applied::default(), Vec::new());
        // Halves of what holds a row without a value, until that row is alone.
        let mut open = vec![(0, rows.num_rows())];
        while let Some((first, count)) = open.pop() {
            if count == 0 {
                continue;
            }
            let piece = if count == rows.num_rows() { rows.clone() } else { rows.slice(first, count) };
            match self.run(&piece) {
                Ok((derived, kept)) => {
                    applied.kept.extend(kept.into_iter().map(|row| first + row));
                    pieces.push(derived);
                }
                Err((stage, failure)) if count == 1 => {
                    let Failure { text, why } = failure;
                    applied.refused.push((first, format!("[table.{}] `{text}`: {why}", stage.name)));
                }
                Err(_) => {
                    let half = count / 2;
                    open.push((first + half, count - half));
                    open.push((first, half));
                }
            }
        }
        pieces.retain(|piece| piece.num_rows() > 0);
        applied.rows = match pieces.len() {
            0 | 1 => pieces.pop(),
            _ => Some(arrow_select::concat::concat_batches(&self.schema, &pieces).expect("all have this schema")),
        };
        applied
    }

    fn run(&self, rows: &RecordBatch) -> Result<(RecordBatch, Vec<usize>), (&Stage, Failure)> {
        let (mut columns, mut count) = (rows.columns().to_vec(), rows.num_rows());
        // `None` while that is all.
        let mut kept: Option<Vec<usize>> = None;
        for stage in &self.stages {
            let wrong = |failure| (stage, failure);
            if let Some(condition) = &stage.condition {
                let holds = evaluate(condition, &Rows { columns: &columns, rows: count }).map_err(wrong)?.column(count);
                let Some(holds) = holds.as_boolean_opt() else {
                    return Ok((RecordBatch::new_empty(self.schema.clone()), Vec::new()));
                };
                let passes = if holds.null_count() > 0 { prep_null_mask_filter(holds) } else { holds.clone() };
                let passed = passes.true_count();
                if passed < count {
                    let places = passes.values().set_indices();
                    kept = Some(match &kept {
                        None => places.collect(),
                        Some(kept) => places.map(|place| kept[place]).collect(),
                    });
                    stage.keep(&mut columns, &FilterBuilder::new(&passes).optimize().build());
                    count = passed;
                }
            }
            if let Some(items) = &stage.columns {
                let rows = Rows { columns: &columns, rows: count };
                columns = items.iter().map(|node| output(node, &rows)).collect::<Result<_, _>>().map_err(wrong)?;
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options);
        let batch = batch.expect("each column has the type that was planned, and no NULL where there may be none");
        Ok((batch, kept.unwrap_or_else(|| (0..count).collect())))
    }
}

impl Stage {
    /// Leaves out the rows that did not pass, of the columns that are still read.
    fn keep(&self, columns: &mut [ArrayRef], predicate: &FilterPredicate) {
        let is_read =
            |at: &usize| self.columns.as_ref().is_none_or(|items| items.iter().any(|node| node.columns.contains(at)));
        for (_, column) in (0..).zip(columns).filter(|(at, _)| is_read(at)) {
            *column = predicate.filter(column).expect("the predicate has as many rows");
        }
    }
}

/// Returns a column of the derived table.
fn output(node: &Node, rows: &Rows<'_>) -> Result<ArrayRef, Failure> {
    if let Some(column) = node.as_column() {
        return Ok(rows.columns[column].clone());
    }
    let column = evaluate(node, rows)?.column(rows.rows);
    Ok(if node.kind == Kind::Text && node.is_label { as_labels(&column) } else { column })
}

/// Returns the columns of a table, for expressions.
fn fields(schema: &SchemaRef) -> Vec<Field> {
    let field = |field: &Arc<arrow_schema::Field>| {
        let (kind, is_label) = Kind::of(field.data_type()).expect("a chunk has columns of nine types");
        Field { name: field.name().clone(), kind, is_label, nullable: field.is_nullable() }
    };
    schema.fields().iter().map(field).collect()
}

fn without_time(span: std::ops::Range<usize>, time: &str) -> Mistake {
    let title = "`select` leaves out every time, and a table is ordered by one";
    Mistake::new(span, title).help(format!("add `{time}`, under a name of your choice: {time} as timestamp"))
}

impl fmt::Display for Unplanned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[table.{}] {}", self.table, self.part)?;
        for mistake in &self.mistakes {
            write!(f, ": {}", mistake.title)?;
        }
        Ok(())
    }
}
