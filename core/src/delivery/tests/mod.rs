//! The delivery driver against a store in memory that fails in every way a store can.

mod accepted;
mod bench;
mod derived;
mod driver;
mod dropped;
mod faults;
mod histories;
mod opening;
mod spool;
mod store;
mod told;

use crate::{
    row::{
        Mark, Position, Table, Timestamp,
        kinds::{Quote, Trade},
    },
    testkit::MemoryLog,
};

/// A log of trades and quotes.
fn log() -> MemoryLog {
    MemoryLog::new("test", vec![Table::of::<Trade<'_>>(), Table::of::<Quote>()])
}

/// Appends a trade whose price is its offset.
fn trade(log: &MemoryLog, n: u64) -> u64 {
    let mark = Mark { symbol: "X", position: Position::Sequence(n), ts_event: Timestamp(n.cast_signed()) };
    log.emit(mark, &Trade { price: n as f64, size: 1.0, ..Trade::default() })
}

/// Appends a quote.
fn quote(log: &MemoryLog, n: u64) -> u64 {
    let mark = Mark { symbol: "X", position: Position::Unnumbered, ts_event: Timestamp(n.cast_signed()) };
    log.emit(mark, &Quote { bid_price: Some(n as f64), ..Quote::default() })
}
