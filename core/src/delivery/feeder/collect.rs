//! The rows of one chunk, put together from several readings: a derived table may leave most rows of each out.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;

use super::{Bounds, Fates};
use crate::chunk::{Finished, TableRows, Unfit};

#[derive(Default)]
pub(super) struct Collected {
    /// By the table's number.
    tables: BTreeMap<usize, Vec<TableRows>>,
    rows: usize,
    /// About what these rows take in the spool.
    bytes: usize,
    pub(super) unfit: Vec<Unfit>,
}

impl Collected {
    /// Returns how many rows and bytes may be read next, where one row becomes `most_rows` at most.
    pub(super) fn room(&self, bounds: &Bounds, most_rows: usize) -> (usize, usize) {
        let rows = bounds.rows.saturating_sub(self.rows) / most_rows.max(1);
        (rows.max(1), bounds.bytes.saturating_sub(self.bytes).max(1))
    }

    /// Returns whether there may be no room for one more row.
    pub(super) fn is_full(&self, bounds: &Bounds, most_rows: usize) -> bool {
        self.rows + most_rows > bounds.rows && self.rows > 0
            || self.bytes >= bounds.bytes
            || self.unfit.len() >= bounds.rows
    }

    /// Adds what was read, of so many bytes, and counts what became of it.
    pub(super) fn add(&mut self, finished: Finished, bytes: usize, fates: &mut Fates) {
        let offsets = finished.delivered + finished.refused + finished.filtered;
        fates.delivered += finished.delivered;
        fates.refused += finished.refused;
        fates.filtered += finished.filtered;
        if offsets > 0 {
            self.bytes += (bytes as u128 * u128::from(finished.delivered) / u128::from(offsets)) as usize;
        }
        self.unfit.extend(finished.unfit);
        for part in finished.rows {
            self.rows += part.rows.num_rows();
            self.tables.entry(part.table).or_default().push(part);
        }
    }

    pub(super) fn rows(self) -> Vec<TableRows> {
        self.tables.into_values().filter_map(joined).collect()
    }
}

/// Joins the parts of one table.
fn joined(mut parts: Vec<TableRows>) -> Option<TableRows> {
    if parts.len() < 2 {
        return parts.pop();
    }
    let schema = parts[0].rows.schema();
    let batches: Vec<&RecordBatch> = parts.iter().map(|part| &part.rows).collect();
    let rows = arrow_select::concat::concat_batches(&schema, batches).expect("all are of one table");
    let causes = parts.iter().flat_map(|part| part.causes.iter().copied()).collect();
    let streams = parts.iter().flat_map(|part| part.streams.iter().copied()).collect();
    Some(TableRows { table: parts[0].table, rows, causes, streams })
}
