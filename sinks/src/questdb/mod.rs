//! QuestDB: rows by its line protocol over HTTP, one table a request; what is sent twice is stored once.
//!
//! A request to one table is one transaction of QuestDB's, and a chunk of several tables is several of them. So nothing here
//! is atomic but for a row, and exactly-once rests on the key of each table that the sink makes: the time column, `tg_boot`
//! and `tg_pos` (the entry of the spool that caused the row), `tg_sub` (its number among the rows of that entry). A chunk of
//! which some tables have landed and others have not is sent again whole, as often as it takes.
//!
//! ```text
//! write ──POST /write, a table at a time──→ 204 = in QuestDB's write-ahead log: `Accepted`
//! applied ──wal_tables(): writerTxn ≥ the sequencerTxn read after the 204──→ the chunk counts
//!         ──tables(): same id, same key, not suspended──→ or a person is needed
//! ```
//!
//! The position is kept beside the spool. `tidegate_owners` says which spool feeds the tables, so that a second host, another
//! spool or another store is noticed; this is advice and no lock: QuestDB has none. A spool that was restored from an older
//! copy shows by rows in the tables that it never wrote.
//!
//! | column | in QuestDB |
//! |---|---|
//! | true or false | `BOOLEAN`, which has no NULL: where the value may be absent, `SYMBOL` with `true` and `false` |
//! | signed integer | `LONG`; −2^63 is its NULL, and refused |
//! | unsigned integer | `LONG`, a number beyond 2^63 − 1 is refused; with `unsigned = "decimal"` a `DECIMAL(20,0)`, which holds all |
//! | number | `DOUBLE`; NaN and the infinities, which QuestDB reads as NULL, are refused |
//! | text | `VARCHAR` |
//! | label | `SYMBOL`; a NUL in it is refused |
//! | time (UTC nanoseconds) | `TIMESTAMP_NS`, or `TIMESTAMP` with `timestamps = "us"`, which cuts off what is below a microsecond |
//! | price levels | `DOUBLE[][]`: the prices, then the sizes, as QuestDB's functions for books want them |
//! | list of integers | `VARCHAR`: JSON |
//!
//! The designated timestamp is the table's time column: absent, before 1970 or behind 2261-12-31 it is a refusal, and so is a row
//! older than the table's TTL. A table that is there already is taken as it is, if each column can hold what comes: columns
//! that it lacks are added, but never `tg_…` and never a key. Its rows come at least once.
//!
//! # What an answer means
//!
//! | answer | |
//! |---|---|
//! | 204 of `/write` | in the write-ahead log |
//! | 400 that names a line, for a value | that row is refused |
//! | 400 otherwise | transient: `open` finds out what has become of the table |
//! | 401, 403 | permanent: user, password or token |
//! | 404, 405, 413, 415 | permanent: no QuestDB, or a proxy's limit |
//! | 429, 500 and above, no answer | transient; in doubt, so sent again |
//!
//! A server that is killed while it makes a table can leave one that takes no row (`timestamp index is outside of range`, seen on
//! 9.3.4): drop it, and the sink makes it again.
//!
//! Seen on 9.3.4, and in `LineHttpProcessorState` of QuestDB's sources.

mod audit;
mod client;
mod config;
mod encode;
mod look;
mod owner;
mod prepare;
mod schema;
mod sink;
#[cfg(test)]
mod tests;
mod wal;

pub use config::{Layout, Partition, QuestDbConfig, Timestamps, Unsigned};
