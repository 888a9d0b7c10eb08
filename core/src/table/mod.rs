//! Derived tables: `[table.NAME]` with `from`, `where` and `select`.
//!
//! ```text
//! [table.NAME] ──Definition: read once──┐
//! a sink's tables of the sources ───────┴─ Derivation: typed for these columns ──→ rows of the derived table, or none
//! ```
//!
//! A derived table is made for each sink, between its cursor and its store, and is nothing but a function of the spool's
//! rows: no clock, no I/O, no memory of earlier rows. So a row that is sent again is the same row, and what it becomes does
//! not depend on where chunks are cut.
//!
//! The order is fixed, each step at most once: `where`, `dedup`, `bars` or `snapshot` or `throttle`, `asof`, `select`. This
//! version has the first and the last.

mod definition;
mod derivation;
pub mod expression;

pub use definition::{Definition, Derived};

pub(crate) use definition::Part;
pub(crate) use derivation::Derivation;
