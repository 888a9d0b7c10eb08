//! The delivery driver: one task per sink that takes rows from the log to a store, each once.
//!
//! ```text
//! log ──Feeder──→ chunk ──→ retry (full jitter, no last attempt) → breaker → timeout → Sink
//!                                       Machine says what is next, Delivery carries it out
//! ```
//!
//! What must hold: a sink sees only what is fsynced in the log, so no store is ever ahead of it. Chunks go in order. After
//! any error, any call that was given up and any panic the sink is opened again, and what `open` says is the truth.
//! What a store has only accepted stays in the log until it is durable; the stop closes the sink, which makes it so.
//! A refused row is a dead letter on disk before its chunk is committed without it. Every offset up to the committed one
//! has exactly one fate ([`Balance`]).

mod arrivals;
mod balance;
mod event;
mod feeder;
mod guard;
mod keys;
mod known;
mod log;
mod machine;
mod neighbours;
mod opening;
mod report;
mod setup;
mod spool_log;
mod survey;
mod task;
#[cfg(test)]
mod tests;

pub use balance::{Balance, Fates};
pub use keys::{Effect, Keys, Measured};
pub(crate) use known::{Known, Noted, file_name};
pub use log::{Log, Poison, Seen};
pub use neighbours::Others;
pub use opening::{Extent, Opening, compare};
pub(crate) use opening::{FROM_LOG, FROM_STORE, misfit, overtaken};
pub(crate) use setup::stage_of;
pub use setup::{Floor, Outcome, Setup};
pub use spool_log::SpoolLog;
pub(crate) use survey::survey;
pub use task::Delivery;
