//! Deribit: options, futures, perpetuals and spot, over JSON-RPC on a WebSocket; trades of the past over HTTP.
//!
//! [`DeribitConfig`] is the table in a pipeline's file. `protocol` says what to do about each event, `message` how the
//! venue writes, `selection` which instruments to follow, `backfill` how to fetch what was missed.

mod backfill;
mod channel;
mod config;
mod data;
mod instrument;
mod message;
mod pools;
mod protocol;
mod refusal;
mod rows;
mod selection;
mod session;
#[cfg(feature = "simulator")]
pub mod simulator;
mod value;

#[cfg(test)]
mod tests;

pub use channel::{Channel, Interval};
pub use config::{Choice, DeribitConfig, Endpoint, Hosts, LifeLeft, Measure, Selector, Venue};
pub use instrument::Kind;

use protocol::Deribit;
