//! Postgres, and TimescaleDB on it: rows and position in one transaction.
//!
//! Tables are made from the schema, and carry a comment that says so. What a column becomes, and what else may be there:
//!
//! | column | made as | taken as well, where it is there |
//! |---|---|---|
//! | true or false | `boolean` | |
//! | signed integer | `bigint` | `numeric`; `integer`, `smallint`, `numeric(p,s)`: rows beyond them are refused |
//! | unsigned integer | `numeric(20)`, which holds all of them; `unsigned = "bigint"`: up to 2^63 − 1 | as above |
//! | number | `double precision`, bit for bit, NaN and infinities too; columns in `numeric = […]`: `numeric`, the digits of the shortest decimal that is the same number | `numeric(p,s)`: rows that it would change are refused, unless `round = […]` names the column; `real` only with `round` |
//! | text, label | `text`; a NUL is refused | `varchar`; `varchar(n)`: longer ones are refused; enums: others are refused |
//! | time | `timestamptz`: microseconds, what is below is cut off; `times = "bigint"`: UTC nanoseconds | `timestamp` (UTC), `bigint` |
//! | price levels | `double precision[]`, `{{price,size},…}` | `jsonb`, `json`, `text`: `[[price,size],…]` |
//! | list of integers | `bigint[]` | `jsonb`, `json`, `text` |
//!
//! Whatever else is there would change values (`char(n)`, `integer` for a number): the sink does not start, and names the
//! column. Where a column holds less than may come, the start and `tidegate check --connect` say which, before a row is refused.
//! Levels are an array and no `jsonb`, since that has no infinity and is a third larger.
//!
//! Rows go in by binary `COPY`, or where a key decides (`replace`, `ignore`) by `INSERT … SELECT FROM unnest(…)`: a temporary table
//! would leave dead rows in the catalog with each chunk, and not pass a PgBouncer. Of a chunk's rows with one key, `replace` writes
//! the last one only.
//!
//! A transaction begins, in one message, with the compare-and-set of the position, which fails where nothing is set; then the
//! tables are locked against changes of their columns, and compared with what they were at the opening. So a column that got
//! another type under way, or a table that was dropped and made anew, takes no garbage: the store is opened again, and that says
//! what is wrong. `synchronous_commit` is on in every transaction, whatever the role or the database says.
//!
//! What an error means, by its SQLSTATE
//! (<https://www.postgresql.org/docs/current/errcodes-appendix.html>):
//!
//! | class or code | |
//! |---|---|
//! | the connection (I/O, 08), 53, 57, 58, 40, 55P03, 25006, XX000 | tried again, over a new connection |
//! | 22, 23, 44, 54000, P0001, by a statement with rows | the rows are looked at one by one, those that the store never takes are dead letters |
//! | anything at the compare-and-set and the lock | tried again from the opening: no row is blamed |
//! | 42P01, 42703 | the opening looks what is gone, and says it |
//! | 42, 0A, XX001, XX002 | needs a person |
//! | 28, 3D000, a certificate that is not trusted | a mistake in the configuration |
//!
//! Nothing is prepared beyond its transaction, and nothing set beyond it, so a PgBouncer in transaction mode may stand between.
//! The position is in `tidegate_position`, beside it the names of the sink's tables: one of them that vanished is not made again
//! silently. A session is called `tidegate/PIPELINE/SINK` (`application_name`): opening waits for older ones of that name
//! that hold the position, and ends them after `lock_timeout`.

mod address;
mod adopt;
mod audit;
mod config;
mod decimal;
mod encode;
mod error;
mod insert;
mod keys;
mod link;
mod open;
mod position;
mod schema;
mod session;
mod sink;
#[cfg(test)]
mod tests;
mod timescale;
mod types;

pub use config::{Hypertable, PostgresConfig, Times, TimescaleConfig, Tls, Unsigned};
