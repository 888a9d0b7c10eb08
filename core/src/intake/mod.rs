//! Intake: classifies records, appends them with the decisions that they caused as one entry, and only then advances.

mod board;
mod continuity;
mod link;
mod neighbour;

pub use board::{Ask, Asks};
pub use link::{Handover, Link, LinkId, Step};
