//! JSON lines or Parquet in files, one series of files for each table: exactly once, by a record of what counts.
//!
//! ```text
//! <path>/trades-00000000000000000001.jsonl            named after the offset of its first row
//! <path>/trades-00000000000000412345.jsonl            the file in work
//! <path>/trades-00000000000000412345.parquet.part     the same of Parquet: it counts when it is `.parquet`
//! <path>/.tidegate-<pipeline>-<sink>.json             the record
//! ```
//!
//! JSON lines: a chunk is appended and fsynced, then a record with its position and the new length of each file replaces
//! the old one. Opening checks that the files are as long as that, and changes nothing: whether what lies behind the
//! recorded lengths comes again is known when the position was held against the spool. The first write after that cuts it
//! off.
//!
//! Parquet: chunks are accepted until the rotation, which ends the files of all tables at one position: footers, fsync,
//! then the record with the new position and the files that are to lose their `.part`: from here on they count. Then they
//! are renamed, and a record without them follows. Opening finishes recorded renames. After any error, what was taken since
//! the last rotation comes again from the spool, and the first write removes what is left of it.

mod adopt;
mod config;
mod folder;
mod lines;
#[cfg(feature = "parquet")]
mod parquet;
mod record;
mod sink;
#[cfg(test)]
mod tests;

pub use config::{Directory, FileConfig, Format, Rotate};
