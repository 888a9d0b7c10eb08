//! The ledger: what is known of each stream's time, interval by interval, for people to look at.
//!
//! ```text
//! spool ──items, rows too──→ Fold (continuity beside it) ──marks, position──→ ledger.sqlite ←── tidegate coverage
//! ```
//!
//! It reads the log as a sink does: what is fsynced, in order, each item once, since the position stands in the transaction
//! of what it says. It holds back the log until it has read it, but for as long as it fails: a ledger never stops a
//! pipeline. Where its file is gone, or the log does not reach back to it, it begins with the oldest head that is left, and
//! says that what lies before is unknown.
//!
//! It belongs to one pipeline, which stands in it: another one's is put aside. Where the spool went back to an older state,
//! it goes on behind the last offset that both have, so that no row is counted twice.
//!
//! Where a sink takes the table `coverage`, each stretch that is new or another one is a row of it, appended by intake like any
//! other. What was told is what the ledger reads in the log: a row that it does not find there it tells again.
//!
//! All times are the venue's, in UTC nanoseconds.

mod fold;
mod read;
mod report;
#[cfg(test)]
mod shelf;
mod store;
mod task;
mod teller;
#[cfg(test)]
mod tests;
mod timeline;
mod told;

#[cfg(test)]
pub(crate) use fold::Fold;
pub use read::Keeper;
pub use report::{
    Coverage, Dropped, Fate, Interval, Kind, LostRows, Proof, SinkCoverage, Skipped, StreamCoverage, Stretch, Totals,
    Unread,
};
#[cfg(test)]
pub(crate) use shelf::Shelf;
pub(crate) use task::{Ledger, Setup, prepare};
pub(crate) use teller::Telling;
#[cfg(test)]
pub(crate) use timeline::Mark;
pub use timeline::{Joined, State};
