//! What `tidegate adopt` and the renaming commands ask of an SQLite file, while nobody writes to it.

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tidegate_core::{
    Error, Result,
    chunk::Part,
    sink::{Claim, Owner},
    spool::SpoolPosition,
};

use super::{
    SqliteConfig,
    error::sorted,
    position,
    schema::{Maker, quoted},
};
use crate::held::Held;

/// Reads whose the position is. Makes nothing.
pub(super) async fn claim(config: &SqliteConfig, owner: &Owner) -> Result<Option<Claim>> {
    let path = &config.path;
    if !path.exists() {
        return Ok(None);
    }
    let read = async {
        let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(config.lock_timeout.0);
        let mut connection = options.disable_statement_logging().connect().await?;
        let claim = read(&mut connection, owner).await?;
        connection.close().await?;
        Ok(claim)
    };
    read.await.map_err(|error| sorted(path, error))?
}

async fn read(connection: &mut SqliteConnection, owner: &Owner) -> sqlx::Result<Result<Option<Claim>>> {
    // A file of an earlier build, which does not name its tables, is brought up to date by the next start.
    if position::missing(connection).await?.is_some() {
        return Ok(Ok(None));
    }
    let held = match position::read(connection, owner).await? {
        Ok(held) => held.into_iter().find(|held| held.part == Part::spool()),
        Err(error) => return Ok(Err(error)),
    };
    let Some(Held { position, host, tables, spool, .. }) = held else { return Ok(Ok(None)) };
    let gone = if position == SpoolPosition::START { Vec::new() } else { position::gone(connection, &tables).await? };
    Ok(Ok(Some(Claim { position, spool, host, gone })))
}

/// Sets the position, in one transaction. Tables that are gone are known no longer, and so may be made anew.
pub(super) async fn adopt(
    config: &SqliteConfig,
    mut connection: SqliteConnection,
    owner: &Owner,
    at: SpoolPosition,
) -> Result<()> {
    let path = &config.path;
    let adopted = async {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await?;
        let mut maker = Maker::new(config.create);
        if let Some(statement) = position::missing(&mut connection).await? {
            maker.make(&mut connection, statement.to_owned()).await?;
        }
        if let Some(error) = maker.wants() {
            return Ok(Err(error));
        }
        let held = match position::read(&mut connection, owner).await? {
            Ok(held) => held.into_iter().find(|held| held.part == Part::spool()),
            Err(error) => return Ok(Err(error)),
        };
        let (epoch, mut tables) = held.map_or_else(Default::default, |held| (held.epoch, held.tables));
        for gone in position::gone(&mut connection, &tables).await? {
            tables.remove(&gone);
        }
        position::adopt(&mut connection, owner, &Part::spool(), at, (epoch + 1, &tables)).await?;
        sqlx::query("COMMIT").execute(&mut connection).await?;
        connection.close().await?;
        Ok(Ok(()))
    };
    adopted.await.map_err(|error| sorted(path, error))?
}

/// Gives what goes by the old names the new ones, in one transaction.
pub(super) async fn rename(
    config: &SqliteConfig,
    mut connection: SqliteConnection,
    old: &Owner,
    owner: &Owner,
) -> Result<()> {
    let path = &config.path;
    let renamed = async {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await?;
        if position::missing(&mut connection).await?.is_some() {
            return Ok(Ok(()));
        }
        let (under_old, under_new) =
            match (position::read(&mut connection, old).await?, position::read(&mut connection, owner).await?) {
                (Ok(under_old), Ok(under_new)) => (under_old, under_new),
                (Err(error), _) | (_, Err(error)) => return Ok(Err(error)),
            };
        if under_old.is_empty() {
            return Ok(Ok(()));
        }
        if let Some(held) = under_new.iter().find(|held| held.position != SpoolPosition::START) {
            return Ok(Err(Error::permanent(format!(
                "`{}` has positions of both names, `{}` and `{}`, `{}` and `{}`, the latter at {}: two sinks have written \
                 to it",
                path.display(),
                old.pipeline,
                old.sink,
                owner.pipeline,
                owner.sink,
                held.position
            ))));
        }
        position::rename(&mut connection, old, owner).await?;
        // Made again under the new name, if `key` still asks for them.
        let prefix = format!("tidegate_key/{}/{}/", old.pipeline, old.sink);
        let keys: Vec<String> = sqlx::query_scalar(
            "SELECT name FROM sqlite_schema WHERE type = 'index' AND substr(name, 1, length(?1)) = ?1",
        )
        .bind(&prefix)
        .fetch_all(&mut connection)
        .await?;
        for key in keys {
            let drop = AssertSqlSafe(format!("DROP INDEX {}", quoted(&key)));
            sqlx::query(drop).execute(&mut connection).await?;
        }
        sqlx::query("COMMIT").execute(&mut connection).await?;
        connection.close().await?;
        Ok(Ok(()))
    };
    renamed.await.map_err(|error| sorted(path, error))?
}
