//! The simulated Deribit over real sockets: what a client sees of it, of its faults, and of what it says it made.

mod client;
mod faults;
mod market_data;
mod oracle;
mod rest;
mod session;
