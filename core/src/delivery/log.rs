//! The log as a delivery driver reads it.

use std::{ops::ControlFlow, sync::Arc};

use serde_json::{Map, Value};

use super::opening::Extent;
use crate::{
    Result,
    chunk::RowSource,
    row::Timestamp,
    spool::{Control, Item, SpoolPosition, Standing},
};

/// A durable log of items, each with one offset. The spool is one, a part of a source that is a log itself another; tests and
/// simulations have more.
///
/// [`look`](Self::look), [`seek`](Self::seek) and [`read`](Self::read) are called where they may wait for a disk, or for a
/// while for another machine; the others never wait.
pub trait Log: Send + 'static {
    /// Looks anew at what the log holds, before a store's position is held against it.
    ///
    /// # Errors
    ///
    /// `Transient` when nobody can tell now.
    fn look(&mut self) -> Result<()> {
        Ok(())
    }

    /// Returns what the log holds.
    fn extent(&self) -> Extent;

    /// Says whether everything behind `position` can be read.
    fn standing(&self, position: SpoolPosition) -> Standing;

    /// Returns whether something that lay between two offsets was dropped because the log was full, for whomever.
    fn has_dropped(&self, _behind: u64, _upto: u64) -> bool {
        false
    }

    /// Says that a store is open, and behind which position it is read next: a log that reads ahead begins there, however
    /// long the delivery then waits to be told of more.
    fn begin(&mut self, _position: SpoolPosition) {}

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
    /// `Transient` when the log cannot be read, `Permanent` when a person has to look first.
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

impl<L: Log + ?Sized> Log for Box<L> {
    fn look(&mut self) -> Result<()> {
        (**self).look()
    }

    fn extent(&self) -> Extent {
        (**self).extent()
    }

    fn standing(&self, position: SpoolPosition) -> Standing {
        (**self).standing(position)
    }

    fn begin(&mut self, position: SpoolPosition) {
        (**self).begin(position);
    }

    fn seek(&mut self, position: SpoolPosition) -> Result<()> {
        (**self).seek(position)
    }

    fn read(&mut self, upto: u64, visit: &mut dyn FnMut(Seen<'_>) -> ControlFlow<()>) -> Result<()> {
        (**self).read(upto, visit)
    }

    fn claim(&mut self, sink: &str, passed: u64, entered: u64) {
        (**self).claim(sink, passed, entered);
    }

    fn passed(&mut self, upto: u64) {
        (**self).passed(upto);
    }

    fn entered(&self) -> u64 {
        (**self).entered()
    }
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
    /// Offsets behind which nothing ever stood, of a log that counts with holes, or messages that it has let go of.
    Void {
        /// Where the log stands behind them.
        position: SpoolPosition,
        /// How many messages there were, or may have been.
        lost: u64,
    },
    /// Something that is no row.
    Poison {
        /// Where the log stands behind it.
        position: SpoolPosition,
        /// What it is.
        poison: &'a Poison,
    },
}

/// What stands in the log in a row's place.
#[derive(Debug, Clone)]
pub struct Poison {
    /// The source's name.
    pub source: Arc<str>,
    /// The table that it says it is of; empty if it does not.
    pub table: String,
    /// When it came.
    pub at: Timestamp,
    /// Why it is no row.
    pub why: String,
    /// What a person gets to see of it.
    pub shown: Map<String, Value>,
}

impl Seen<'_> {
    /// Returns where the log stands behind it.
    pub(super) fn position(&self) -> SpoolPosition {
        match self {
            Self::Item { position, .. }
            | Self::Missing { position }
            | Self::Void { position, .. }
            | Self::Poison { position, .. } => *position,
        }
    }

    /// Returns about how many bytes it takes in the log.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Item { item: Item::Row(_, bytes), .. } => HEAD + bytes.len() as u64,
            Self::Item { item: Item::Control(Control::Redrive { row, .. }), .. } => HEAD + row.len() as u64,
            Self::Item { item: Item::Control(Control::Malformed { raw, .. }), .. } => HEAD + raw.len() as u64,
            Self::Item { item: Item::Control(_), .. } => HEAD,
            Self::Missing { .. } | Self::Void { .. } => 0,
            Self::Poison { .. } => HEAD,
        }
    }
}

/// About what an item takes in the spool beside the bytes of its row, with its share of the entry.
const HEAD: u64 = 64;
