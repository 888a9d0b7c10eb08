//! The table `tidegate_position`: where the store is, who owns it, and in which tables there are rows.

use std::collections::BTreeSet;

use sqlx::{Row, SqliteConnection};
use tidegate_core::{
    Result,
    chunk::{Part, SinkTable},
    row::Timestamp,
    sink::{Neighbour, Owner},
    spool::SpoolPosition,
};

use crate::held::{Columns, Held, hex, number};

/// Returns the statement that makes the table, or makes it whole; `None` if it is.
pub(super) async fn missing(connection: &mut SqliteConnection) -> sqlx::Result<Option<&'static str>> {
    let columns: Vec<String> =
        sqlx::query_scalar("SELECT name FROM pragma_table_info('tidegate_position')").fetch_all(connection).await?;
    Ok(match columns.as_slice() {
        [] => Some(TABLE),
        columns if !columns.iter().any(|column| column == "tables") => Some(TABLES_COLUMN),
        _ => None,
    })
}

/// Reads all parts of a sink.
pub(super) async fn read(connection: &mut SqliteConnection, owner: &Owner) -> sqlx::Result<Result<Vec<Held>>> {
    let rows = sqlx::query(
        "SELECT part, spool, host, epoch, boot, \"offset\", tables FROM tidegate_position
         WHERE pipeline = ? AND sink = ? ORDER BY part",
    )
    .bind(&owner.pipeline)
    .bind(&owner.sink)
    .fetch_all(connection)
    .await?;
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        let columns = Columns {
            part: row.try_get(0)?,
            spool: row.try_get(1)?,
            host: row.try_get(2)?,
            epoch: row.try_get(3)?,
            boot: row.try_get(4)?,
            offset: row.try_get(5)?,
            tables: row.try_get(6)?,
        };
        all.push(columns);
    }
    Ok(all.into_iter().map(|columns| columns.read(owner)).collect())
}

/// Returns those of these tables that are not there.
pub(super) async fn gone(connection: &mut SqliteConnection, tables: &BTreeSet<String>) -> sqlx::Result<Vec<String>> {
    let there: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table'").fetch_all(connection).await?;
    let is_gone = |name: &&String| !there.iter().any(|there| there.eq_ignore_ascii_case(name));
    Ok(tables.iter().filter(is_gone).cloned().collect())
}

/// Gives a part to this owner and puts it at a position, whoever had it and wherever it was.
pub(super) async fn adopt(
    connection: &mut SqliteConnection,
    owner: &Owner,
    part: &Part,
    at: SpoolPosition,
    (epoch, tables): (i64, &BTreeSet<String>),
) -> sqlx::Result<()> {
    take(connection, owner, part, epoch, tables).await?;
    sqlx::query(
        "UPDATE tidegate_position SET spool = ?, boot = ?, \"offset\" = ?, updated = ?
         WHERE pipeline = ? AND sink = ? AND part = ?",
    )
    .bind(hex(owner.spool))
    .bind(hex(at.boot.0))
    .bind(at.offset.cast_signed())
    .bind(Timestamp::now().0)
    .bind(&owner.pipeline)
    .bind(&owner.sink)
    .bind(&*part.0)
    .execute(connection)
    .await
    .map(drop)
}

/// Gives all parts of one name to another, and fences whoever may still write under the old one. What was taken under the
/// new one, and not written to, makes way.
pub(super) async fn rename(connection: &mut SqliteConnection, old: &Owner, owner: &Owner) -> sqlx::Result<()> {
    let unused = "DELETE FROM tidegate_position WHERE pipeline = ? AND sink = ? AND \"offset\" = 0";
    sqlx::query(unused).bind(&owner.pipeline).bind(&owner.sink).execute(&mut *connection).await?;
    sqlx::query(
        "UPDATE tidegate_position SET pipeline = ?, sink = ?, epoch = epoch + 1 WHERE pipeline = ? AND sink = ?",
    )
    .bind(&owner.pipeline)
    .bind(&owner.sink)
    .bind(&old.pipeline)
    .bind(&old.sink)
    .execute(connection)
    .await
    .map(drop)
}

/// Reads which other pipelines have written to these tables.
pub(super) async fn neighbours(
    connection: &mut SqliteConnection,
    owner: &Owner,
    tables: &[SinkTable],
) -> sqlx::Result<Vec<Neighbour>> {
    let rows: Vec<(String, String, String, String, String)> = sqlx::query_as(
        "SELECT pipeline, sink, spool, host, tables FROM tidegate_position
         WHERE pipeline <> ? AND \"offset\" > 0 ORDER BY updated DESC",
    )
    .bind(&owner.pipeline)
    .fetch_all(connection)
    .await?;
    let neighbours = rows.into_iter().filter_map(|(pipeline, sink, spool, host, theirs)| {
        let mut common: Vec<String> = serde_json::from_str(&theirs).ok()?;
        common.retain(|theirs| tables.iter().any(|ours| ours.name.eq_ignore_ascii_case(theirs)));
        (!common.is_empty()).then_some(Neighbour { pipeline, sink, spool: number(&spool)?, host, tables: common })
    });
    Ok(neighbours.collect())
}

/// Takes ownership of a part: from here on no older owner commits.
pub(super) async fn take(
    connection: &mut SqliteConnection,
    owner: &Owner,
    part: &Part,
    epoch: i64,
    tables: &BTreeSet<String>,
) -> sqlx::Result<()> {
    let tables = serde_json::to_string(tables).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query(
        "INSERT INTO tidegate_position
         (pipeline, sink, part, spool, host, epoch, boot, \"offset\", chain, updated, tables)
         VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?)
         ON CONFLICT (pipeline, sink, part) DO UPDATE
         SET host = excluded.host, epoch = excluded.epoch, chain = excluded.chain, tables = excluded.tables",
    )
    .bind(&owner.pipeline)
    .bind(&owner.sink)
    .bind(&*part.0)
    .bind(hex(owner.spool))
    .bind(&owner.host)
    .bind(epoch)
    .bind(hex(SpoolPosition::START.boot.0))
    .bind(hex(owner.chain))
    .bind(Timestamp::now().0)
    .bind(tables)
    .execute(connection)
    .await
    .map(drop)
}

/// Moves a position, and returns whether it stood where it had to and still belongs to this owner.
pub(super) async fn advance(
    connection: &mut SqliteConnection,
    owner: &Owner,
    part: &Part,
    epoch: i64,
    (from, to): (SpoolPosition, SpoolPosition),
) -> sqlx::Result<bool> {
    let moved = sqlx::query(
        "UPDATE tidegate_position SET boot = ?, \"offset\" = ?, chain = ?, updated = ?
         WHERE pipeline = ? AND sink = ? AND part = ? AND spool = ? AND epoch = ? AND boot = ? AND \"offset\" = ?",
    )
    .bind(hex(to.boot.0))
    .bind(to.offset.cast_signed())
    .bind(hex(owner.chain))
    .bind(Timestamp::now().0)
    .bind(&owner.pipeline)
    .bind(&owner.sink)
    .bind(&*part.0)
    .bind(hex(owner.spool))
    .bind(epoch)
    .bind(hex(from.boot.0))
    .bind(from.offset.cast_signed())
    .execute(connection)
    .await?;
    Ok(moved.rows_affected() == 1)
}

/// Reads the epoch of a part.
pub(super) async fn epoch(connection: &mut SqliteConnection, owner: &Owner, part: &Part) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar("SELECT epoch FROM tidegate_position WHERE pipeline = ? AND sink = ? AND part = ?")
        .bind(&owner.pipeline)
        .bind(&owner.sink)
        .bind(&*part.0)
        .fetch_optional(connection)
        .await
}

/// What is in it: [`Columns`].
const TABLE: &str = "CREATE TABLE tidegate_position (pipeline TEXT NOT NULL, sink TEXT NOT NULL, part TEXT NOT NULL, \
    spool TEXT NOT NULL, host TEXT NOT NULL, epoch INTEGER NOT NULL, boot TEXT NOT NULL, \"offset\" INTEGER NOT NULL, \
    chain TEXT NOT NULL, updated INTEGER NOT NULL, tables TEXT NOT NULL DEFAULT '[]', \
    PRIMARY KEY (pipeline, sink, part)) STRICT";

/// What a file of an earlier build lacks.
const TABLES_COLUMN: &str = "ALTER TABLE tidegate_position ADD COLUMN tables TEXT NOT NULL DEFAULT '[]'";
