//! The unique indexes of keys: ours are made and dropped as the TOML says, those of other people serve as they are.

use sqlx::{AssertSqlSafe, SqliteConnection};
use tidegate_core::{
    Error, Result,
    chunk::SinkTable,
    sink::{Owner, UniqueKey},
};

use super::{
    error::blames_a_row,
    schema::{Maker, quoted},
};

/// Makes the unique indexes that tables with a key lack, and drops those of this sink that nobody asks for any more. `making`
/// holds the statement while it runs.
///
/// # Errors
///
/// The inner one `Permanent`, naming the table, when it holds rows that the key forbids; the outer one is SQLite's.
pub(super) async fn keys(
    connection: &mut SqliteConnection,
    owner: &Owner,
    tables: &[SinkTable],
    maker: &mut Maker,
    making: &mut Option<String>,
) -> sqlx::Result<Result<()>> {
    // No name of a pipeline or a sink has a slash: two sinks that write to one table leave each other's keys alone.
    let prefix = format!("tidegate_key/{}/{}/", owner.pipeline, owner.sink);
    let keyed = tables.iter().filter(|table| !table.key.is_empty());
    let wanted = keyed.map(|table| (table, statement(&format!("{prefix}{}", table.name), table)));
    // With those of an earlier build, whose names did not say whose they are.
    let there: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT name, tbl_name, sql FROM sqlite_schema
         WHERE type = 'index' AND (substr(name, 1, length(?1)) = ?1 OR substr(name, 1, 13) = 'tidegate_key_')",
    )
    .bind(&prefix)
    .fetch_all(&mut *connection)
    .await?;
    for (name, table, _) in there.iter().filter(|(_, _, sql)| !wanted.clone().any(|(_, wanted)| wanted == *sql)) {
        maker.make(connection, format!("DROP INDEX {}", quoted(name))).await?;
        maker.dropped.push(table.clone());
    }
    for (table, statement) in wanted.filter(|(_, wanted)| !there.iter().any(|(_, _, sql)| sql == wanted)) {
        if is_unique(connection, table).await? {
            continue;
        }
        if is_foreign(connection, table).await? {
            maker.leave(&table.name, of_their_own(table));
            continue;
        }
        *making = Some(statement.clone());
        let made = maker.make(connection, statement).await;
        *making = None;
        match made {
            Err(error) if blames_a_row(&error) => {
                let text = format!("table `{}` already holds rows that are equal in its key", table.name);
                return Ok(Err(Error::permanent(text).because(error)));
            }
            made => made?,
        }
    }
    Ok(Ok(()))
}

/// Returns the statement that makes the index of a table which somebody else has made, and which has none: it may be large,
/// and is not ours.
pub(super) async fn lacking(connection: &mut SqliteConnection, table: &SinkTable) -> sqlx::Result<Option<String>> {
    if table.key.is_empty() || is_unique(connection, table).await? {
        return Ok(None);
    }
    Ok(is_foreign(connection, table).await?.then(|| of_their_own(table)))
}

/// Reads the unique indexes of a table, whoever made them: those over all rows, and over columns as they are.
pub(super) async fn unique(connection: &mut SqliteConnection, table: &str) -> sqlx::Result<Vec<UniqueKey>> {
    let indexes: Vec<String> =
        sqlx::query_scalar("SELECT name FROM pragma_index_list(?) WHERE \"unique\" AND NOT partial")
            .bind(table)
            .fetch_all(&mut *connection)
            .await?;
    let mut keys = Vec::new();
    for index in indexes {
        let columns = sqlx::query_scalar("SELECT name FROM pragma_index_info(?) ORDER BY seqno").bind(index);
        // A part that is an expression has no name.
        let columns: Vec<Option<String>> = columns.fetch_all(&mut *connection).await?;
        if let Some(columns) = columns.into_iter().collect() {
            keys.push(UniqueKey { table: table.to_owned(), columns });
        }
    }
    Ok(keys)
}

async fn is_foreign(connection: &mut SqliteConnection, table: &SinkTable) -> sqlx::Result<bool> {
    let made = sqlx::query_scalar("SELECT sql FROM sqlite_schema WHERE type = 'table' AND lower(name) = lower(?)");
    let made: Option<String> = made.bind(&table.name).fetch_optional(connection).await?;
    Ok(made.is_some_and(|sql| !is_ours(&sql, table)))
}

fn of_their_own(table: &SinkTable) -> String {
    statement(&format!("{}_{}", table.name, table.key.join("_")), table)
}

/// Asks SQLite whether no two rows of a table can be equal in its key: only then can it be told what to do about those that
/// would be. Whoever made the index, and however it is written.
async fn is_unique(connection: &mut SqliteConnection, table: &SinkTable) -> sqlx::Result<bool> {
    let (columns, nulls) = (columns(table), vec!["NULL"; table.key.len()].join(", "));
    let name = quoted(&table.name);
    let sql = format!("EXPLAIN INSERT INTO {name} ({columns}) VALUES ({nulls}) ON CONFLICT ({columns}) DO NOTHING");
    match sqlx::query(AssertSqlSafe(sql)).persistent(false).fetch_all(connection).await {
        Ok(_) => Ok(true),
        // One code for all that is wrong with a statement: without the table, or a column, there is no such index either.
        Err(error) if super::error::is_wrong(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn statement(index: &str, table: &SinkTable) -> String {
    format!("CREATE UNIQUE INDEX {} ON {} ({})", quoted(index), quoted(&table.name), columns(table))
}

fn columns(table: &SinkTable) -> String {
    table.key.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ")
}

/// Tells whether a sink has made a table: it begins with the columns that all have, or, where a `select` says which there are,
/// with the first of these, and is strict.
fn is_ours(sql: &str, table: &SinkTable) -> bool {
    const OURS: &str = "(\"ts_event\" INTEGER, \"ts_recv\" INTEGER, ";
    match table.table.columns.first().filter(|_| table.table.is_whole) {
        Some(first) => sql.contains(&format!("({} ", quoted(&first.name))) && sql.ends_with(") STRICT"),
        None => sql.contains(OURS),
    }
}
