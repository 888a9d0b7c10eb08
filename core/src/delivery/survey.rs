//! Keys held against the rows that a spool has: what they would have made of them, had a sink sent them all.

use super::{
    feeder::{Bounds, Feeder, Read, Wanted},
    keys::{Keys, Measured},
    log::Log,
};
use crate::{Error, Result, config::Batch, deadletter::DeadLetter, sink::UniqueKey, spool::SourceInfo};

/// Reads everything that the log has for a sink, once, and returns what keys make of it. Blocks.
///
/// # Errors
///
/// Those of reading the log; `Config` where its tables do not fit the sink's; `Permanent` where it holds many rows that
/// cannot be read.
pub(crate) fn survey<L: Log>(
    log: L,
    (pipeline, sink): (&str, &str),
    sources: Vec<SourceInfo>,
    wanted: impl Into<Wanted>,
    found: &[UniqueKey],
) -> Result<Vec<Measured>> {
    let extent = log.extent();
    let bounds = Bounds::of(&Batch::default());
    let mut feeder = Feeder::new(log, sink, pipeline, sources, wanted, bounds)?;
    let mut keys = Keys::default();
    keys.plan(feeder.plan().tables(), found);
    if keys.measured().next().is_none() {
        return Ok(Vec::new());
    }
    let (mut from, mut unreadable) = (extent.first, 0);
    while from.offset < extent.last.offset {
        match feeder.read(from, extent.last.offset)? {
            Read::Range { portion, rows, .. } => {
                keys.see(&rows);
                feeder.committed(portion.to);
                from = portion.to;
            }
            // Each has its range read again.
            Read::Unreadable(letters) => {
                unreadable += letters.len();
                if let Some(letter) = letters.first().filter(|_| unreadable > MOST_UNREADABLE) {
                    let why = Error::permanent("too many rows of the spool cannot be read");
                    return Err(why.because(letter.error.clone()));
                }
                feeder.leave_out(letters.iter().map(DeadLetter::cause));
            }
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

const MOST_UNREADABLE: usize = 1_000;
