//! What `tidegate adopt` and the renaming commands ask of a position's topic, while nobody writes to it.

use std::collections::BTreeMap;

use tidegate_core::{
    Error, Result,
    chunk::Part,
    sink::{Claim, Owner},
    spool::SpoolPosition,
};

use super::{
    KafkaConfig,
    client::Reader,
    position::{self, Held},
    session::Session,
    topics,
    waited::Waited,
};

/// Reads whose the position is. Makes nothing.
pub(super) fn claim(config: &KafkaConfig, owner: &Owner, waited: &Waited) -> Result<Option<Claim>> {
    let reader = Reader::new(config, owner)?;
    let Some(held) = held(&reader, owner, waited)? else { return Ok(None) };
    let position = held.position(&Part::spool());
    let gone = if held.is_written() { gone(&reader, &held)? } else { Vec::new() };
    Ok(Some(Claim { position, spool: held.spool(), host: held.host, gone }))
}

/// Sets the position. Topics that are gone are known no longer, and so may be made anew.
pub(super) fn adopt(config: &KafkaConfig, owner: &Owner, at: SpoolPosition, waited: &Waited) -> Result<()> {
    let reader = Reader::new(config, owner)?;
    if reader.partitions(&position::topic(owner))?.is_none() {
        topics::make_position(config, owner, &reader, waited)?;
    }
    let mut session = Session::begin(config, owner, &[], BTreeMap::new(), waited)?;
    let before = held(&reader, owner, waited)?;
    let epoch = before.as_ref().map_or(0, |held| held.epoch) + 1;
    let mut adopted = Held::taken(owner, before.as_ref(), &[], epoch).moved(&Part::spool(), at);
    for gone in gone(&reader, &adopted)? {
        adopted.topics.remove(&gone);
    }
    session.take(adopted, waited)
}

/// Gives what goes by the old names the new ones. The old record is emptied behind that: twice is once.
pub(super) fn rename(config: &KafkaConfig, old: &Owner, owner: &Owner, waited: &Waited) -> Result<()> {
    let reader = Reader::new(config, owner)?;
    if reader.partitions(&position::topic(old))?.is_none() {
        return Ok(());
    }
    // Whoever may still write under the old name is fenced first: then what is read is the last word.
    let mut at_old = Session::begin(config, old, &[], BTreeMap::new(), waited)?;
    let Some(under_old) = held(&reader, old, waited)?.filter(Held::is_written) else { return Ok(()) };
    let under_new = held(&reader, owner, waited)?.filter(Held::is_written);
    if let Some(under_new) = under_new
        && under_new != under_old.renamed(owner, under_new.epoch)
    {
        return Err(Error::permanent(format!(
            "there are positions of both names, in `{}` and `{}`, the latter at {}: two sinks have written",
            position::topic(old),
            position::topic(owner),
            under_new.position(&Part::spool())
        )));
    }
    if reader.partitions(&position::topic(owner))?.is_none() {
        topics::make_position(config, owner, &reader, waited)?;
    }
    let mut at_new = Session::begin(config, owner, &[], BTreeMap::new(), waited)?;
    at_new.take(under_old.renamed(owner, under_old.epoch + 1), waited)?;
    at_old.take(under_old.emptied(), waited)
}

fn held(reader: &Reader, owner: &Owner, waited: &Waited) -> Result<Option<Held>> {
    let topic = position::topic(owner);
    if reader.partitions(&topic)?.is_none() {
        return Ok(None);
    }
    position::read(reader, &topic, waited)
}

/// Returns those of the topics with rows that are not there.
fn gone(reader: &Reader, held: &Held) -> Result<Vec<String>> {
    let mut gone = Vec::new();
    for name in &held.topics {
        if reader.partitions(name)?.is_none() {
            gone.push(name.clone());
        }
    }
    Ok(gone)
}
