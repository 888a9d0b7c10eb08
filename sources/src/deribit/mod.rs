//! Deribit: options, futures and perpetuals.

#[cfg(feature = "simulator")]
pub mod simulator;
