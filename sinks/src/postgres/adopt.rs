//! What `tidegate adopt` and the renaming commands ask of a database, while nobody writes to it.

use tidegate_core::{
    Error, Result,
    sink::{Claim, Owner},
    spool::SpoolPosition,
};

use super::{
    config::Settings,
    error::sorted,
    link::Link,
    open::server,
    position::Positions,
    schema::{Maker, quoted},
};
use crate::held::Held;

type Failed = tokio_postgres::Error;

/// Reads whose the position is. Makes nothing.
pub(super) async fn claim(settings: &Settings, owner: &Owner) -> Result<Option<Claim>> {
    let link = Link::open(settings, None).await?;
    let read = read(settings, &link, owner).await.map_err(|error| link.at(sorted(error)))?;
    link.close().await;
    read
}

async fn read(settings: &Settings, link: &Link, owner: &Owner) -> Result<Result<Option<Claim>>, Failed> {
    let positions = Positions::of(&server(settings, link).await?.schema);
    if positions.missing(link).await?.is_some() {
        return Ok(Ok(None));
    }
    let held = match positions.read(link, owner, "").await? {
        Ok(held) => held.into_iter().find(|held| held.part == owner.part),
        Err(error) => return Ok(Err(error)),
    };
    let Some(Held { position, host, tables, spool, .. }) = held else { return Ok(Ok(None)) };
    let gone = if position == SpoolPosition::START { Vec::new() } else { positions.gone(link, &tables).await? };
    Ok(Ok(Some(Claim { position, spool, host, gone })))
}

/// Sets the position, in one transaction. Tables that are gone are known no longer, and so may be made anew.
pub(super) async fn adopt(settings: &Settings, owner: &Owner, at: SpoolPosition) -> Result<()> {
    let link = Link::open(settings, None).await?;
    let adopted = async {
        let schema = server(settings, &link).await?.schema;
        let positions = Positions::of(&schema);
        link.run("BEGIN; SET LOCAL synchronous_commit = on").await?;
        let mut maker = Maker::new(settings.create);
        if let Some(statement) = positions.missing(&link).await? {
            maker.make(&link, format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(&schema))).await?;
            maker.make(&link, statement).await?;
        }
        if let Some(error) = maker.wants() {
            return Ok(Err(error));
        }
        let held = match positions.read(&link, owner, "FOR UPDATE").await? {
            Ok(held) => held.into_iter().find(|held| held.part == owner.part),
            Err(error) => return Ok(Err(error)),
        };
        let (epoch, mut tables) = held.map_or_else(Default::default, |held| (held.epoch, held.tables));
        for gone in positions.gone(&link, &tables).await? {
            tables.remove(&gone);
        }
        link.run(&positions.adopt(owner, &owner.part, at, (epoch + 1, &tables))).await?;
        link.run("COMMIT").await?;
        Ok(Ok(()))
    };
    let adopted = adopted.await.map_err(|error: Failed| link.at(sorted(error)))?;
    link.close().await;
    adopted
}

/// Gives what goes by the old names the new ones, in one transaction.
pub(super) async fn rename(settings: &Settings, old: &Owner, owner: &Owner) -> Result<()> {
    let link = Link::open(settings, None).await?;
    let renamed = async {
        let schema = server(settings, &link).await?.schema;
        let positions = Positions::of(&schema);
        link.run("BEGIN; SET LOCAL synchronous_commit = on").await?;
        if positions.missing(&link).await?.is_some() {
            return Ok(Ok(()));
        }
        let (under_old, under_new) = match (
            positions.read(&link, old, "FOR UPDATE").await?,
            positions.read(&link, owner, "FOR UPDATE").await?,
        ) {
            (Ok(under_old), Ok(under_new)) => (under_old, under_new),
            (Err(error), _) | (_, Err(error)) => return Ok(Err(error)),
        };
        if under_old.is_empty() {
            return Ok(Ok(()));
        }
        if let Some(held) = under_new.iter().find(|held| held.position != SpoolPosition::START) {
            return Ok(Err(Error::permanent(format!(
                "{} has positions of both names, `{}` and `{}`, `{}` and `{}`, the latter at {}: two sinks have written to it",
                link.shown, old.pipeline, old.sink, owner.pipeline, owner.sink, held.position
            ))));
        }
        link.run(&positions.rename(old, owner)).await?;
        // Made again under the new name, if `key` still asks for them.
        for index in keys_of(&link, &schema, old).await? {
            link.run(&format!("DROP INDEX {}.{}", quoted(&schema), quoted(&index))).await?;
        }
        link.run("COMMIT").await?;
        Ok(Ok(()))
    };
    let renamed = renamed.await.map_err(|error: Failed| link.at(sorted(error)))?;
    link.close().await;
    renamed
}

async fn keys_of(link: &Link, schema: &str, owner: &Owner) -> Result<Vec<String>, Failed> {
    let all = super::keys::ours(link, schema, &super::keys::label(owner)).await?;
    Ok(all.into_iter().map(|(name, _, _)| name).collect())
}
