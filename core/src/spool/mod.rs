//! The spool: one durable, segmented, append-only log per pipeline, and the only memory.

mod item;
mod position;

pub use item::{Control, GapOutcome, Item, RowHead};
pub use position::{Boot, Cause, SpoolPosition};
