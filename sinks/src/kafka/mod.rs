//! Kafka: rows and the position in one transaction, exactly once for readers with `isolation.level=read_committed`.
//!
//! ```text
//! <table>                                 a topic of rows for each table; the key of a message is the symbol, or a template
//! tidegate.<pipeline>.<sink>.position     one partition, compacted: where the store is, who owns it, which topics have rows
//! ```
//!
//! `open` takes the transactional id `tidegate/<pipeline>/<sink>`, which fences an older owner and settles what it left
//! open, and reads the position only then, when nothing of the partition is undecided any more. Before that it looks whose
//! the position is, so that a stranger fences nobody. It then writes a record with a higher epoch: an owner that was
//! fenced finds it at its next opening, and stops for good; one that was fenced because its own transaction took too long
//! finds its own epoch, and goes on.
//!
//! A row is a JSON object (see [`JsonRows`](tidegate_core::chunk::JsonRows)), or rows of one key are one Arrow IPC stream.
//! What a column is in JSON:
//!
//! | column | in JSON | in Arrow |
//! |---|---|---|
//! | true or false | `true`, `false` | `Boolean` |
//! | signed integer, unsigned integer | all digits, also beyond 2^53 | `Int64`, `UInt64` |
//! | number | shortest that reads back the same; not a number: `"NaN"`, `"inf"`, `"-inf"` | `Float64` |
//! | text, label | text | `Utf8` |
//! | time | text, RFC 3339 with nanoseconds, UTC | `Timestamp(ns, UTC)` |
//! | price levels | `[[price,size],…]` | `List<Struct<price, size>>` |
//! | list of integers | list | `List<Int64>` |
//! | absent | no member | null |
//!
//! Headers of each message: `tg_position` (boot, offset and number of the row's cause in the spool; of the first row for
//! Arrow), `tg_origin` (`live`, `backfill`, `redrive`), `tg_schema` (table and a hash of its columns). Its time is
//! `ts_recv`, so that retention counts from when a row came.
//!
//! What Kafka's own codes mean here ([protocol guide](https://kafka.apache.org/protocol#protocol_error_codes) and
//! `rdkafka.h`) stands in `error.rs`. A row larger than its topic's `max.message.bytes`, before compression, is refused
//! before anything is sent. What only the broker can tell (the limit was lowered meanwhile, a rule on timestamps) is found by
//! sending the rows in batches of one, in transactions that are aborted.

mod adopt;
mod arrow;
mod audit;
mod client;
mod config;
mod encode;
mod error;
mod position;
mod session;
mod settings;
mod sink;
#[cfg(test)]
mod tests;
mod topics;
mod waited;

pub use config::{Compression, CreateTopics, Format, KafkaConfig};
pub use tidegate_core::librdkafka::Settings;
