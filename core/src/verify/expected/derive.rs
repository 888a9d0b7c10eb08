//! Rows of derived tables: made of the spool's once more, as the delivery has made them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{super::values::Printer, Known, Row, RowId, Show, Stream, Wanted};
use crate::{
    chunk::{ChunkBuilder, Fate, Plan, RowSource},
    spool::{Cause, RowHead},
};

/// Rows of which something is derived, until there are enough to make it of.
pub(in super::super) struct Deriving {
    builder: ChunkBuilder,
    /// Those that are dead letters.
    refused: HashSet<Cause>,
    /// By offset.
    rows: HashMap<u64, (Stream, RowId)>,
}

impl Deriving {
    /// Returns `None` where no table of the plan is derived.
    pub(in super::super) fn new(plan: &Plan, refused: HashSet<Cause>) -> Option<Self> {
        let builder = ChunkBuilder::new(Arc::new(plan.clone()));
        plan.derives().then(|| Self { builder, refused, rows: HashMap::new() })
    }
}

impl Wanted {
    /// Tells whether a table is derived of a stream's rows.
    pub(super) fn derives(&self, stream: &Known) -> bool {
        let mut tables = self.plan.numbers(&stream.source, &stream.key.table);
        self.deriving.is_some() && tables.any(|number| self.plan.root(number).is_some())
    }

    /// Takes a row of which something is derived. What becomes of it is told once there are enough.
    pub(super) fn derive(
        &mut self,
        cause: Cause,
        (head, bytes): (&RowHead, &[u8]),
        is_sent_again: bool,
        (stream, name): (&Known, &Stream),
        show: &mut Show<'_>,
    ) {
        let times = [head.head.ts_event, head.head.ts_recv].map(|time| self.cut(time));
        let Some(Deriving { builder, refused, rows }) = &mut self.deriving else { return };
        let subs = self.plan.numbers(&stream.source, &stream.key.table).map(|number| self.plan.sub(number));
        let causes = subs.chain([cause.sub]).map(|sub| Cause { sub, ..cause });
        self.found_letters.extend(causes.filter(|cause| self.letters.contains_key(cause)));
        let fate = match &stream.table {
            None => Fate::Unreadable,
            Some(table) => {
                let from = RowSource { source: &stream.source, venue: &stream.venue, key: &stream.key, table };
                let plain = Cause { sub: 0, ..cause };
                if is_sent_again {
                    builder.push_to(cause.sub, plain, head, bytes, from, refused)
                } else {
                    builder.push(plain, head, bytes, from, refused)
                }
            }
        };
        match fate {
            Fate::Taken => {
                let seq = head.head.position.number();
                let [ts_event, ts_recv] = times;
                let id = RowId { seq, ts_event, ts_recv };
                rows.insert(cause.offset, (name.clone(), id));
            }
            Fate::Filtered => self.fates.filtered += 1,
            Fate::Skipped | Fate::Unreadable | Fate::Unplanned => self.fates.refused += 1,
        }
        if builder.rows() >= ENOUGH {
            self.settle(show);
        }
    }

    /// Tells what became of the rows that were taken so far.
    pub(super) fn settle(&mut self, show: &mut Show<'_>) {
        let Some(Deriving { builder, refused, rows }) = &mut self.deriving else { return };
        let (finished, rows) = (builder.finish_without(refused), std::mem::take(rows));
        self.fates.delivered += finished.delivered;
        self.fates.refused += finished.refused;
        self.fates.filtered += finished.filtered;
        for part in finished.rows {
            let is_derived = self.plan.root(part.table).is_some();
            let of_today = part.causes.iter().filter(|cause| !is_derived || cause.offset > self.changed);
            *self.delivered.entry(part.table).or_default() += of_today.count() as u64;
            if !self.is_compared(part.table) {
                continue;
            }
            let columns = self.columns.get(&part.table).cloned().unwrap_or_default();
            let printer = Printer::new(&part.rows, &columns, self.time_unit);
            for (at, Cause { offset, .. }) in part.causes.into_iter().enumerate() {
                let Some((stream, id)) = rows.get(&offset) else { continue };
                if self.is_shown(part.table, id) {
                    let values = (!columns.is_empty()).then(|| printer.values(at));
                    show(&Row { table: part.table, stream, id: *id, offset, values });
                }
            }
        }
    }
}

/// Rows that are worth the columns that are made of them.
const ENOUGH: usize = 4_096;
