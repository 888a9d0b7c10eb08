//! Rows as the sources have them → the rows of a sink's tables, derived ones among them, and what became of each.

use std::collections::{BTreeMap, HashSet};

use arrow_array::UInt64Array;
use serde_json::{Map, Value};

use super::ChunkBuilder;
use crate::{
    chunk::{ColumnView, JsonRows, TableRows, plan::Output},
    row::Timestamp,
    spool::Cause,
};

/// The rows of some offsets.
#[derive(Debug, Default)]
pub(crate) struct Finished {
    /// The rows of all tables that have any.
    pub(crate) rows: Vec<TableRows>,
    /// Rows for which a derived table has no value, and which the caller has not left out.
    pub(crate) unfit: Vec<Unfit>,
    /// Offsets of which some table has a row.
    pub(crate) delivered: u64,
    /// Offsets of which none has, though one would but for a refusal.
    pub(crate) refused: u64,
    /// The others: each table's `where` lets them go.
    pub(crate) filtered: u64,
}

/// A row for which a derived table has no value.
#[derive(Debug)]
pub(crate) struct Unfit {
    pub(crate) cause: Cause,
    /// The derived table's number.
    pub(crate) table: usize,
    pub(crate) origin: Origin,
    pub(crate) why: String,
}

/// What a row of a derived table was made of.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The source's row, with the columns that every table has.
    pub(crate) row: Map<String, Value>,
    pub(crate) stream: u32,
    pub(crate) ts_event: Timestamp,
}

/// What became of one offset.
#[derive(Debug, Clone, Copy, Default)]
struct Became {
    is_delivered: bool,
    is_refused: bool,
}

impl Finished {
    fn count(&mut self, became: &Became) {
        match became {
            Became { is_delivered: true, .. } => self.delivered += 1,
            Became { is_refused: true, .. } => self.refused += 1,
            Became { .. } => self.filtered += 1,
        }
    }
}

impl ChunkBuilder {
    /// Returns the rows of all tables but for those of `skip`, and is empty again.
    pub(crate) fn finish_without(&mut self, skip: &HashSet<Cause>) -> Finished {
        let mut finished = Finished::default();
        let offsets = self.rows as u64;
        let inputs = self.inputs();
        if !self.plan.derives() && self.addressed.is_empty() {
            for mut rows in inputs {
                // A table that is not derived has one input, and that one no other table.
                rows.table = self.plan.inputs()[rows.table].outputs[0];
                finished.rows.push(rows);
            }
            finished.rows.sort_by_key(|rows| rows.table);
            finished.delivered = offsets;
            return finished;
        }
        let mut of_offsets: BTreeMap<u64, Became> = BTreeMap::new();
        let is_one_input = inputs.len() == 1;
        for rows in &inputs {
            let mut became = vec![Became::default(); rows.causes.len()];
            for &number in &self.plan.inputs()[rows.table].outputs {
                self.output(number, rows, skip, &mut became, &mut finished);
            }
            if is_one_input {
                became.iter().for_each(|of| finished.count(of));
                continue;
            }
            // An offset may have rows in several inputs.
            for (cause, became) in rows.causes.iter().zip(&became) {
                let of = of_offsets.entry(cause.offset).or_default();
                of.is_delivered |= became.is_delivered;
                of.is_refused |= became.is_refused;
            }
        }
        of_offsets.values().for_each(|of| finished.count(of));
        finished.rows.sort_by_key(|rows| rows.table);
        self.addressed.clear();
        finished
    }

    /// Makes the rows of one table.
    fn output(
        &self,
        number: usize,
        input: &TableRows,
        skip: &HashSet<Cause>,
        became: &mut [Became],
        finished: &mut Finished,
    ) {
        let Output { derivation, .. } = &self.plan.outputs()[number];
        let sub = derivation.as_ref().map_or(0, |derivation| derivation.sub);
        let given = self.given(sub, input, skip, became);
        let rows = match &given {
            None => input.clone(),
            Some(given) => only(input, given),
        };
        let place = |row: usize| given.as_ref().map_or(row, |given| given[row]);
        let Some(derivation) = derivation else {
            (0..rows.causes.len()).for_each(|row| became[place(row)].is_delivered = true);
            if !rows.causes.is_empty() {
                finished.rows.push(TableRows { table: number, ..rows });
            }
            return;
        };
        let cause = |row: usize| Cause { sub, ..rows.causes[row] };
        let applied = derivation.apply(&rows.rows);
        for (row, why) in applied.refused {
            became[place(row)].is_refused = true;
            finished.unfit.push(Unfit { cause: cause(row), table: number, origin: origin(&rows, row), why });
        }
        applied.kept.iter().for_each(|row| became[place(*row)].is_delivered = true);
        if let Some(derived) = applied.rows {
            let causes = applied.kept.iter().map(|row| cause(*row)).collect();
            let streams = applied.kept.iter().map(|row| rows.streams[*row]).collect();
            finished.rows.push(TableRows { table: number, rows: derived, causes, streams });
        }
    }

    /// Returns which rows are for a table, but for those that are left out; `None` for all.
    fn given(&self, sub: u32, input: &TableRows, skip: &HashSet<Cause>, became: &mut [Became]) -> Option<Vec<usize>> {
        if skip.is_empty() && self.addressed.is_empty() {
            return None;
        }
        let mut given = Vec::with_capacity(input.causes.len());
        for (row, cause) in input.causes.iter().enumerate() {
            if self.addressed.get(&cause.offset).is_some_and(|only| *only != sub) {
                continue;
            }
            if skip.contains(&Cause { sub, ..*cause }) {
                became[row].is_refused = true;
            } else {
                given.push(row);
            }
        }
        (given.len() < input.causes.len()).then_some(given)
    }

    /// Returns what the rows of these offsets are as the sources have them, and is empty again.
    pub(crate) fn origins(&mut self) -> BTreeMap<u64, Origin> {
        self.addressed.clear();
        let inputs = self.inputs();
        let rows = inputs.iter().flat_map(|input| (0..input.causes.len()).map(move |row| (input, row)));
        rows.map(|(input, row)| (input.causes[row].offset, origin(input, row))).collect()
    }
}

/// Returns the rows at these places.
fn only(input: &TableRows, places: &[usize]) -> TableRows {
    let indices = UInt64Array::from_iter_values(places.iter().map(|place| *place as u64));
    let rows = arrow_select::take::take_record_batch(&input.rows, &indices).expect("places are rows of it");
    let causes = places.iter().map(|place| input.causes[*place]).collect();
    let streams = places.iter().map(|place| input.streams[*place]).collect();
    TableRows { table: input.table, rows, causes, streams }
}

fn origin(input: &TableRows, row: usize) -> Origin {
    let mut text = Vec::new();
    JsonRows::new(&input.rows.slice(row, 1)).write(0, &mut text);
    let times = ColumnView::of(input.rows.column(0));
    let ts_event = if let ColumnView::Time(times) = times { times.value(row) } else { 0 };
    Origin {
        row: serde_json::from_slice(&text).unwrap_or_default(),
        stream: input.streams[row],
        ts_event: Timestamp(ts_event),
    }
}
