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
//! All times are the venue's, in UTC nanoseconds.

mod fold;
mod report;
mod store;
mod task;
#[cfg(test)]
mod tests;
mod timeline;

#[cfg(test)]
pub(crate) use fold::Fold;
pub use report::{Coverage, Dropped, Interval, Keeper, Kind, Proof, Skipped, StreamCoverage};
pub(crate) use task::{Setup, prepare};
#[cfg(test)]
pub(crate) use timeline::Mark;
pub use timeline::State;
