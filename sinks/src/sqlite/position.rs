//! The table `tidegate_position`: where the store is, and who owns it.

use sqlx::{Row, SqliteConnection};
use tidegate_core::{
    Error, Result,
    chunk::Part,
    row::Timestamp,
    sink::Owner,
    spool::{Boot, SpoolPosition},
};

/// The row of one part.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) part: Part,
    pub(super) position: SpoolPosition,
    pub(super) epoch: i64,
    /// What stood between the spool and the store at the last commit.
    pub(super) chain: u64,
    spool: u64,
    host: String,
}

/// Makes the table, if it is missing.
pub(super) async fn create_table(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    // Random 64-bit numbers are kept as hexadecimal text: half of them are no INTEGER of SQLite.
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS tidegate_position (
            pipeline TEXT NOT NULL, sink TEXT NOT NULL, part TEXT NOT NULL,
            spool TEXT NOT NULL, host TEXT NOT NULL, epoch INTEGER NOT NULL,
            boot TEXT NOT NULL, \"offset\" INTEGER NOT NULL, chain TEXT NOT NULL, updated INTEGER NOT NULL,
            PRIMARY KEY (pipeline, sink, part)) STRICT",
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Reads all parts of a sink.
pub(super) async fn read(connection: &mut SqliteConnection, owner: &Owner) -> sqlx::Result<Result<Vec<Held>>> {
    let rows = sqlx::query(
        "SELECT part, spool, host, epoch, boot, \"offset\", chain FROM tidegate_position
         WHERE pipeline = ? AND sink = ? ORDER BY part",
    )
    .bind(&owner.pipeline)
    .bind(&owner.sink)
    .fetch_all(connection)
    .await?;
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        let part: String = row.try_get(0)?;
        let (spool, host, epoch): (String, String, i64) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let (boot, offset, chain): (String, i64, String) = (row.try_get(4)?, row.try_get(5)?, row.try_get(6)?);
        let (Some(spool), Some(boot), Some(chain), Ok(offset)) =
            (number(&spool), number(&boot), number(&chain), u64::try_from(offset))
        else {
            return Ok(Err(Error::permanent(format!(
                "the row of `{}` and `{}` in `tidegate_position` is damaged",
                owner.pipeline, owner.sink
            ))));
        };
        let position = SpoolPosition { boot: Boot(boot), offset };
        all.push(Held { part: Part(part.into()), position, epoch, chain, spool, host });
    }
    Ok(Ok(all))
}

/// Takes ownership of a part: from here on no older owner commits.
pub(super) async fn take(
    connection: &mut SqliteConnection,
    owner: &Owner,
    part: &Part,
    epoch: i64,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO tidegate_position (pipeline, sink, part, spool, host, epoch, boot, \"offset\", chain, updated)
         VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?)
         ON CONFLICT (pipeline, sink, part) DO UPDATE SET epoch = excluded.epoch, chain = excluded.chain",
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

impl Held {
    /// Returns why this owner may not have the position.
    pub(super) fn refuses(&self, owner: &Owner, mine: Option<i64>) -> Option<Error> {
        if self.spool != owner.spool || self.host != owner.host {
            return Some(Error::permanent(format!(
                "the position of `{}` and `{}` belongs to spool {:016x} on host `{}`; this is spool {:016x} on host \
                 `{}`: two hosts, or two data directories, may not feed one table",
                owner.pipeline, owner.sink, self.spool, self.host, owner.spool, owner.host
            )));
        }
        (mine.is_some_and(|mine| self.epoch > mine)).then(|| {
            Error::permanent(format!(
                "another program has taken over the position of `{}` and `{}`: it must run once only",
                owner.pipeline, owner.sink
            ))
        })
    }
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

fn number(hex: &str) -> Option<u64> {
    u64::from_str_radix(hex, 16).ok()
}
