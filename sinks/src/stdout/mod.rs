//! Rows on standard output: JSON lines, CSV, or aligned columns for a person.
//!
//! At least once: nobody can take back what was printed, so after a crash the rows since the last noted position come
//! again.

mod config;
#[cfg(test)]
mod contract;
mod printer;
mod sink;

pub use config::{Format, StdoutConfig};
