//! What stands in QuestDB's own tables about ours.

use std::collections::BTreeSet;

use serde_json::Value;
use tidegate_core::{Error, Result};

use super::{
    client::{Client, Rows},
    schema::{Found, quoted, text},
    wal::State,
};

/// A table that is there.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub(super) name: String,
    pub(super) has_wal: bool,
    /// How long rows are kept at least, in nanoseconds.
    pub(super) ttl: Option<i64>,
    pub(super) state: State,
}

/// Reads what is known of tables by their names, in one query; those that are not there are left out.
pub(super) async fn standings(client: &Client, names: &[&str]) -> Result<Vec<Standing>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<_> = names.iter().map(|name| text(&name.to_lowercase())).collect();
    let rows = client
        .sql(&format!(
            "SELECT t.table_name, t.id, t.walEnabled, t.dedup, t.ttlValue, t.ttlUnit,
                w.suspended, w.writerTxn, w.sequencerTxn, w.errorTag, w.errorMessage
             FROM tables() t LEFT JOIN wal_tables() w ON w.name = t.table_name
             WHERE lower(t.table_name) IN ({})",
            names.join(", ")
        ))
        .await?;
    rows.iter().map(|row| standing(row).ok_or_else(strange)).collect()
}

/// Returns the table of this name, in any case, as QuestDB tells names apart.
pub(super) fn find<'a>(standings: &'a [Standing], name: &str) -> Option<&'a Standing> {
    standings.iter().find(|standing| standing.name.to_lowercase() == name.to_lowercase())
}

/// Reads the columns of a table.
pub(super) async fn columns(client: &Client, table: &str) -> Result<Vec<Found>> {
    let sql = format!("SELECT \"column\", \"type\", upsertKey, designated FROM table_columns({})", text(table));
    let rows = client.sql(&sql).await?;
    let found = |row: &Vec<Value>| {
        Some(Found {
            name: row.first()?.as_str()?.to_owned(),
            column_type: row.get(1)?.as_str()?.to_owned(),
            is_key: row.get(2)?.as_bool()?,
            is_designated: row.get(3)?.as_bool()?,
        })
    };
    rows.iter().map(|row| found(row).ok_or_else(strange)).collect()
}

/// Reads the names of all columns of tables, in lower case, in one query.
pub(super) async fn all_columns(client: &Client, names: &[&str]) -> Result<BTreeSet<(String, String)>> {
    let names: Vec<_> = names.iter().map(|name| text(&name.to_lowercase())).collect();
    let sql = format!(
        "SELECT table_name, column_name FROM information_schema.columns() WHERE lower(table_name) IN ({})",
        names.join(", ")
    );
    let named = |row: &Vec<Value>| {
        let name = |at: usize| Some(row.get(at)?.as_str()?.to_lowercase());
        Some((name(0)?, name(1)?))
    };
    client.sql(&sql).await?.iter().map(|row| named(row).ok_or_else(strange)).collect()
}

/// Returns the newest designated timestamp of a table, in nanoseconds.
///
/// `table_max_timestamp` of `tables()` does not say it: it is in microseconds at times, and in the column's own unit at others
/// (9.3.4).
pub(super) async fn latest(client: &Client, table: &str, time: &Found) -> Result<Option<i64>> {
    let (table, name) = (quoted(table), quoted(&time.name));
    let rows = client.sql(&format!("SELECT cast(max({name}) AS LONG) FROM {table}")).await?;
    let unit = if time.column_type == "TIMESTAMP_NS" { 1 } else { 1_000 };
    Ok(number(&rows).map(|latest| latest.saturating_mul(unit)))
}

/// Returns the newest offset of a boot in the last day of a table.
pub(super) async fn newest_of(client: &Client, table: &str, boot: i64, time: &Found) -> Result<Option<u64>> {
    let Some(latest) = latest(client, table, time).await? else { return Ok(None) };
    // What is older is in the owners' table since long.
    let since = latest.saturating_sub(24 * HOUR).max(0);
    let since = if time.column_type == "TIMESTAMP_NS" { since } else { since / 1_000 };
    let (table, name, unit) = (quoted(table), quoted(&time.name), &time.column_type);
    let sql = format!("SELECT max(tg_pos) FROM {table} WHERE tg_boot = {boot} AND {name} >= cast({since} AS {unit})");
    Ok(number(&client.sql(&sql).await?).map(i64::cast_unsigned))
}

/// Returns the only number of an answer.
fn number(rows: &Rows) -> Option<i64> {
    rows.first()?.first()?.as_i64()
}

fn standing(row: &[Value]) -> Option<Standing> {
    let number = |at: usize| row.get(at)?.as_i64();
    let flag = |at: usize| row.get(at)?.as_bool();
    let words = |at: usize| row.get(at).and_then(Value::as_str).unwrap_or_default();
    let ttl = number(4).filter(|ttl| *ttl > 0).and_then(|ttl| ttl.checked_mul(unit(words(5))?));
    let error = [words(9), words(10)].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(": ");
    Some(Standing {
        name: row.first()?.as_str()?.to_owned(),
        has_wal: flag(2)?,
        ttl,
        state: State {
            id: number(1)?,
            has_dedup: flag(3)?,
            is_suspended: flag(6).unwrap_or(false),
            writer: number(7).unwrap_or(0),
            sequencer: number(8).unwrap_or(0),
            error,
        },
    })
}

/// Returns the longest time that a unit of a TTL may be, in nanoseconds.
fn unit(word: &str) -> Option<i64> {
    match word {
        "HOUR" => Some(HOUR),
        "DAY" => Some(24 * HOUR),
        "WEEK" => Some(7 * 24 * HOUR),
        "MONTH" => Some(31 * 24 * HOUR),
        "YEAR" => Some(366 * 24 * HOUR),
        _ => None,
    }
}

pub(super) fn strange() -> Error {
    Error::permanent("QuestDB's answer has another form than those of 9.0 to 9.3: another version is needed")
}

const HOUR: i64 = 3_600_000_000_000;
