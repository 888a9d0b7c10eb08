//! SQLite: one file, rows and position in one transaction.
//!
//! Tables are made from the schema, `STRICT`. What a column holds:
//!
//! | column | in SQLite |
//! |---|---|
//! | true or false | `INTEGER` 1 or 0 |
//! | signed integer, time (UTC nanoseconds) | `INTEGER` |
//! | unsigned integer | `ANY`: an integer up to 2^63 − 1, beyond that its digits as text. So no digit is ever lost, and comparison, order and index are those of integers for every number below 2^63 |
//! | number | `REAL`; a NaN, which SQLite would store as NULL, is refused; -0.0 comes back as 0.0, its equal |
//! | text, label | `TEXT` |
//! | price levels | `TEXT`: JSON, `[[price,size],…]` |
//! | list of integers | `TEXT`: JSON |
//!
//! A table that is there already is taken as it is, if each column can hold what comes; columns that it lacks are added.
//! The position stands in `tidegate_position`, beside it the names of the sink's tables: one of them that vanished is not
//! made again silently. The unique index of a `key` is called `tidegate_key/PIPELINE/SINK/TABLE`; one of the user's own serves as well. A commit counts only if
//! the file under the path is still the one that was opened: SQLite itself goes on committing into a file that somebody
//! removed.

mod adopt;
mod audit;
mod config;
mod error;
mod insert;
mod keys;
mod log;
mod position;
mod schema;
mod sink;
#[cfg(test)]
mod tests;

pub use config::SqliteConfig;
