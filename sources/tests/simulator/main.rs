//! The simulated Deribit over real sockets: what a client sees of it, of its faults, and of what it says it made.

#[allow(clippy::unwrap_used, reason = "a test's helper")]
mod client;
#[allow(clippy::unwrap_used, reason = "a test's helper")]
mod faults;
#[allow(clippy::unwrap_used, reason = "a test's helper")]
mod market_data;
#[allow(clippy::unwrap_used, reason = "a test's helper")]
mod oracle;
#[allow(clippy::unwrap_used, reason = "a test's helper")]
mod rest;
#[allow(clippy::unwrap_used, reason = "a test's helper")]
mod session;
