//! The log as a delivery driver reads it.

use std::ops::ControlFlow;

use super::opening::Extent;
use crate::{
    Result,
    chunk::RowSource,
    spool::{Control, Item, SpoolPosition, Standing},
};

/// A durable log of items, each with one offset. The spool is one; tests and simulations have others.
///
/// Calls may read from disk, but never wait for anything else.
pub trait Log: Send + 'static {
    /// Returns what the log holds.
    fn extent(&self) -> Extent;

    /// Says whether everything behind `position` can be read.
    fn standing(&self, position: SpoolPosition) -> Standing;

    /// Returns whether something that lay between two offsets was dropped because the log was full, for whomever.
    fn has_dropped(&self, _behind: u64, _upto: u64) -> bool {
        false
    }

    /// Goes on reading behind `position`, which is retained.
    ///
    /// # Errors
    ///
    /// `Transient` when the log cannot be read.
    fn seek(&mut self, position: SpoolPosition) -> Result<()>;

    /// Shows the next items up to offset `upto`, until there are none or `visit` breaks. The item at which it broke is
    /// the next one again.
    ///
    /// # Errors
    ///
    /// `Transient` when the log cannot be read.
    fn read(&mut self, upto: u64, visit: &mut dyn FnMut(Seen<'_>) -> ControlFlow<()>) -> Result<()>;

    /// Says up to where everything has its fate, and the first offset of the newest segment of which the store may have
    /// something since; 0 where it is known to have nothing. What lies between the log does not drop, from now on together
    /// with each segment that is read.
    fn claim(&mut self, sink: &str, passed: u64, entered: u64);

    /// Says that everything up to an offset has its fate.
    fn passed(&mut self, upto: u64);

    /// Returns the first offset of the newest segment that was read since the claim.
    fn entered(&self) -> u64;
}

/// What a log shows.
#[derive(Debug)]
pub enum Seen<'a> {
    /// An item.
    Item {
        /// Where the log stands behind it.
        position: SpoolPosition,
        /// Tells one segment from another.
        segment: u64,
        /// The item.
        item: Item<'a>,
        /// For a row, also one that is sent to one sink again, where it came from; `None` if the log does not know its
        /// stream.
        source: Option<RowSource<'a>>,
    },
    /// Offsets that the log does not have any more, or never had.
    Missing {
        /// Where the log stands behind them.
        position: SpoolPosition,
    },
}

impl Seen<'_> {
    /// Returns about how many bytes it takes in the log.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Item { item: Item::Row(_, bytes), .. } => HEAD + bytes.len() as u64,
            Self::Item { item: Item::Control(Control::Redrive { row, .. }), .. } => HEAD + row.len() as u64,
            Self::Item { item: Item::Control(Control::Malformed { raw, .. }), .. } => HEAD + raw.len() as u64,
            Self::Item { item: Item::Control(_), .. } => HEAD,
            Self::Missing { .. } => 0,
        }
    }
}

/// About what an item takes in the spool beside the bytes of its row, with its share of the entry.
const HEAD: u64 = 64;
