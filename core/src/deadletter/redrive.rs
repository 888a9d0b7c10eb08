//! A dead letter turned back into a row of the log.

use serde_json::Value;

use super::DeadLetter;
use crate::{
    Error, Result,
    row::{Head, Origin, Position, StreamKey, Table, Timestamp, time},
    spool::{Cause, RowHead},
};

/// A row that is to go to one sink again.
#[derive(Debug, Clone, PartialEq)]
pub struct Redrive {
    /// The sink.
    pub sink: String,
    /// The letter's key.
    pub letter: Cause,
    /// The stream.
    pub stream: StreamKey,
    /// What is known of it besides its columns; its stream has no number yet.
    pub head: RowHead,
    /// The row, in the compact form of its table.
    pub row: Vec<u8>,
}

impl Redrive {
    /// Returns the row of a letter, which a person may have repaired.
    ///
    /// # Errors
    ///
    /// `Config`, naming the column, where it is no row of the table.
    pub fn of(letter: &DeadLetter, table: &Table) -> Result<Self> {
        let position = match (whole(letter, "seq")?, table.linked) {
            (None, _) => Position::Unnumbered,
            (Some(id), true) => Position::Linked { id, prev: whole(letter, "prev_seq")? },
            // Continuity takes no notice of it, so that dense is as good as jumping.
            (Some(n), false) => Position::Ordered(n),
        };
        let chain = whole(letter, "chain")?.unwrap_or_default();
        let (ts_event, ts_recv) = (moment(letter, "ts_event")?, moment(letter, "ts_recv")?);
        let head = Head { stream: 0, position, ts_event, ts_recv, origin: Origin::Redrive };
        let DeadLetter { symbol, listing, .. } = letter;
        Ok(Self {
            sink: letter.sink.clone(),
            letter: letter.cause(),
            stream: StreamKey { listing: listing.as_str().into(), ..StreamKey::new(letter.table_of_row(), symbol) },
            head: RowHead { head, session: (chain >> 32) as u32, line: 0, epoch: chain as u32 },
            row: table.row_of(&letter.row)?,
        })
    }
}

fn whole(letter: &DeadLetter, column: &str) -> Result<Option<u64>> {
    let read = |value: &Value| value.as_u64().ok_or_else(|| wrong(column, "a whole number that is not negative"));
    letter.row.get(column).map(read).transpose()
}

fn moment(letter: &DeadLetter, column: &str) -> Result<Timestamp> {
    let at = letter.row.get(column).and_then(Value::as_str).and_then(time);
    at.ok_or_else(|| wrong(column, "a time such as 2026-11-24T09:41:03.123456789Z"))
}

fn wrong(column: &str, wanted: &str) -> Error {
    Error::config(format!("column `{column}` has to be {wanted}"))
}
