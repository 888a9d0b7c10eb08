//! Kafka as a source: what the sink `kafka` of other hosts has written goes on to stores, each row once.
//!
//! ```text
//! consumer group ──which partitions──→ source.rs ──begins and ends──→ delivery per partition and sink
//!                                                                        ↑ window.rs, a `Log` ←── reader.rs ←── partition
//!                                                                                        ↑ confirm.rs: of the topic that it was
//! ```
//!
//! There is no spool: a partition is a log already, and the store keeps a position for each, guarded. The member of the group
//! reads nothing and only hears which partitions are this process's; each delivery has a reader of its own, which begins where
//! the store is. So two stores, of which one is down for hours, do not wait for each other, and nothing rests on the group: a
//! partition that two processes write for a moment, since one of them was paused, is fenced by its epoch in the store.
//!
//! A position counts messages in millions: the rows of the message at Kafka's offset `k` (one as JSON, several as Arrow) are at
//! `k * 1,000,000 + 1` and so on, the last one always at `(k + 1) * 1,000,000`. Its boot is a hash of the topic's id and the
//! partition: a topic that was deleted and made again is another history.

mod client;
mod config;
mod confirm;
mod decode;
mod member;
mod progress;
mod reader;
mod source;
#[cfg(test)]
mod tests;
mod window;

pub use config::{KafkaConfig, TableConfig};
