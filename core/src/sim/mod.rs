//! The bench of histories.

mod check;
mod engine;
mod ledger;
pub(crate) mod machine;
pub(crate) mod market;
mod plan;
pub(crate) mod random;
mod recorder;
mod shrink;
mod store;
mod tests;
mod venue;
mod world;
