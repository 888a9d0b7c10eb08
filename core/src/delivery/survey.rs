//! Keys held against the rows that a spool has: what they would have made of them, had a sink sent them all.

use super::{
    feeder::{Bounds, Feeder, Read},
    keys::{Keys, Measured},
    log::Log,
};
use crate::{Result, config::TableChoice, deadletter::DeadLetter, sink::UniqueKey, spool::SourceInfo, table::Derived};

/// Reads everything that the log has for a sink, once, and returns what keys make of it. Blocks.
///
/// # Errors
///
/// Those of reading the log; `Config` where its tables do not fit the sink's.
pub(crate) fn survey<L: Log>(
    log: L,
    (pipeline, sink): (&str, &str),
    sources: Vec<SourceInfo>,
    tables: (TableChoice, Derived),
    found: &[UniqueKey],
) -> Result<Vec<Measured>> {
    let extent = log.extent();
    let mut feeder = Feeder::new(log, sink, pipeline, sources, tables, BOUNDS)?;
    let mut keys = Keys::default();
    keys.plan(feeder.plan().tables(), found);
    if keys.measured().next().is_none() {
        return Ok(Vec::new());
    }
    let mut from = extent.first;
    while from.offset < extent.last.offset {
        match feeder.read(from, extent.last.offset)? {
            Read::Range { portion, rows, .. } => {
                keys.see(&rows);
                feeder.committed(portion.to);
                from = portion.to;
            }
            Read::Unreadable(letter) => feeder.leave_out([letter.cause()]),
            Read::Unfit(letters) => feeder.leave_out(letters.iter().map(DeadLetter::cause)),
            // Dead letters that were sent again: their first rows are counted.
            Read::Redrives(rows) => {
                let none = vec![false; rows.len()];
                feeder.redriven(rows, &none);
            }
            Read::Replanned => keys.plan(feeder.plan().tables(), found),
        }
    }
    Ok(keys.measured().cloned().collect())
}

const BOUNDS: Bounds = Bounds { rows: 5_000, bytes: 8 << 20 };
