//! The engine of Tidegate. Names no venue and no store.
//!
//! ```text
//!  venue ─frames→  connection driver ──records──→ INTAKE ──entries──→ SPOOL ──→ per sink: cursor → delivery driver → store
//!    ↑  commands   + Protocol (pure)              classify: new, duplicate,
//!    └──────────── ↑ REST: discovery, backfill ── fills a gap; append
//!                  └──────── gaps ───────────────
//! ```
//!
//! Data goes one way. The only word that travels back is a sink's position, which lets the spool truncate.
//!
//! Where to look: [`row`](mod@row) (what flows), [`protocol`] and [`sink`] (what an author implements), [`intake`] (continuity),
//! [`spool`] (the log), [`ledger`] (what is known of each stream's time).

pub mod catalog;
mod caught;
pub mod chunk;
pub mod config;
pub mod connection;
pub mod deadletter;
pub mod delivery;
mod error;
pub mod health;
pub mod http;
pub mod intake;
pub mod ledger;
#[cfg(feature = "librdkafka")]
pub mod librdkafka;
pub mod log_source;
pub mod metrics;
mod outside;
pub mod own;
pub mod pipeline;
pub mod policy;
pub mod protocol;
pub mod row;
mod rules;
#[cfg(test)]
mod sim;
pub mod sink;
pub mod source;
pub mod spool;
pub mod table;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod verify;

pub use error::{Error, Kind, Result};
