//! JSON lines in files, one series of files for each table: exactly once, by cutting off what is not in the record.
//!
//! ```text
//! <path>/trades-00000000000000000001.jsonl     named after the offset of its first row
//! <path>/trades-00000000000000412345.jsonl     the file in work
//! <path>/.tidegate-<pipeline>-<sink>.json      the record: position, and the length of each file in work
//! ```
//!
//! A chunk is appended and fsynced, then the record replaces the old one. What lies behind the recorded lengths at the
//! next opening belongs to a chunk that did not count, and is cut off.

mod config;
mod record;
mod sink;
#[cfg(test)]
mod tests;
mod writer;

pub use config::{Directory, FileConfig, Rotate};
