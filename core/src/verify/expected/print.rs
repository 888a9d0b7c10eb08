//! Values of rows as they are: made columns of, as the delivery has made them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{super::values::Printer, Known, Row, RowId, Show, Stream, Wanted};
use crate::{
    chunk::{ChunkBuilder, Fate, Plan, RowSource},
    spool::{Cause, RowHead},
};

/// Rows, until there are enough to make columns of.
pub(in super::super) struct Printing {
    builder: ChunkBuilder,
    /// By offset.
    rows: HashMap<u64, (Stream, RowId)>,
}

impl Printing {
    pub(in super::super) fn new(plan: &Plan) -> Self {
        Self { builder: ChunkBuilder::new(Arc::new(plan.clone())), rows: HashMap::new() }
    }
}

impl Wanted {
    /// Takes a row, and shows it with its values once there are enough; one that cannot be read with the columns of today is
    /// shown at once, without them.
    pub(super) fn print(
        &mut self,
        row: Row<'_>,
        (head, bytes): (&RowHead, &[u8]),
        stream: &Known,
        cause: Cause,
        show: &mut Show<'_>,
    ) {
        let Printing { builder, rows } = &mut self.printing;
        let fate = stream.table.as_ref().map(|table| {
            let from = RowSource { source: &stream.source, venue: &stream.venue, key: &stream.key, table };
            builder.push(Cause { sub: 0, ..cause }, head, bytes, from, &HashSet::new())
        });
        if fate != Some(Fate::Taken) {
            return show(&row);
        }
        rows.insert(row.offset, (row.stream.clone(), row.id));
        if builder.rows() >= ENOUGH {
            self.settle_values(show);
        }
    }

    /// Shows the rows that were taken so far.
    pub(super) fn settle_values(&mut self, show: &mut Show<'_>) {
        let Printing { builder, rows } = &mut self.printing;
        let mut rows = std::mem::take(rows);
        for part in builder.finish() {
            let columns = self.columns.get(&part.table).map_or(&[][..], |columns| columns);
            let printer = Printer::new(&part.rows, columns, self.time_unit);
            for (at, Cause { offset, .. }) in part.causes.into_iter().enumerate() {
                let Some((stream, id)) = rows.remove(&offset) else { continue };
                show(&Row { table: part.table, stream: &stream, id, offset, values: Some(printer.values(at)) });
            }
        }
    }
}

/// Rows that are worth the columns that are made of them.
const ENOUGH: usize = 4_096;
