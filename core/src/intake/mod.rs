//! Intake: classifies records, appends them with the decisions that they caused as one entry, and only then advances.
//!
//! ```text
//! Link ──Handover──→ task ──→ Intake (one entry: decide, write, take for true) ──→ spool
//!   ↑                  ├─ fsync on another thread ──→ what sinks may see
//!   └──── Asks ────────┘ board: open gaps that may be asked for
//! ```

mod asks;
mod board;
mod continuity;
mod entry;
mod filling;
#[cfg(any(test, feature = "testkit"))]
pub(crate) mod inline;
mod link;
mod neighbour;
mod opening;
mod tally;
mod task;
#[cfg(test)]
mod tests;

pub use board::{Ask, Asks};
#[cfg(test)]
pub(crate) use continuity::row_hash;
pub(crate) use continuity::{Continuity, Span, Standing};
pub(crate) use entry::MAX_ROW;
pub use link::{Handover, Link, LinkId, Step};
#[cfg(test)]
pub(crate) use opening::open_on;
pub(crate) use opening::restore;
pub use opening::{Running, Setup, SourceSetup, Started, start};
