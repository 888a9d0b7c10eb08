//! The position's topic: where the store is, who owns it, and in which topics there are rows.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tidegate_core::{
    Error, Result,
    chunk::{Part, SinkTable},
    row::Timestamp,
    sink::{Neighbour, Owner},
    spool::{Boot, SpoolPosition},
};

use super::{client::Reader, waited::Waited};

/// What the last record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) pipeline: String,
    pub(super) sink: String,
    /// Random 64-bit numbers are written in hexadecimal: many readers round large numbers.
    spool: Hex,
    pub(super) host: String,
    pub(super) epoch: u64,
    chain: Hex,
    /// When it was written, in UTC nanoseconds.
    updated: i64,
    /// The topics that were made for the sink, or found.
    pub(super) topics: BTreeSet<String>,
    /// Where the store is, of each part that was written.
    parts: BTreeMap<String, At>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct At {
    boot: Hex,
    offset: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hex(u64);

impl Held {
    /// Returns the record of a sink that takes over, behind what was there.
    pub(super) fn taken(owner: &Owner, before: Option<&Self>, tables: &[SinkTable], epoch: u64) -> Self {
        let mut topics = before.map(|held| held.topics.clone()).unwrap_or_default();
        topics.extend(tables.iter().map(|table| table.name.clone()));
        Self {
            pipeline: owner.pipeline.clone(),
            sink: owner.sink.clone(),
            spool: Hex(owner.spool),
            host: owner.host.clone(),
            epoch,
            chain: Hex(owner.chain),
            updated: Timestamp::now().0,
            topics,
            parts: before.map(|held| held.parts.clone()).unwrap_or_default(),
        }
    }

    /// Returns the record with a part at another position.
    pub(super) fn moved(&self, part: &Part, to: SpoolPosition) -> Self {
        let mut moved = self.clone();
        moved.parts.insert(part.0.to_string(), At { boot: Hex(to.boot.0), offset: to.offset });
        moved.updated = Timestamp::now().0;
        moved
    }

    /// Returns the record under other names.
    pub(super) fn renamed(&self, owner: &Owner, epoch: u64) -> Self {
        Self { pipeline: owner.pipeline.clone(), sink: owner.sink.clone(), epoch, ..self.clone() }
    }

    /// Returns the record of one that was given another name: nothing is known under the old one.
    pub(super) fn emptied(&self) -> Self {
        Self { topics: BTreeSet::new(), parts: BTreeMap::new(), epoch: self.epoch + 1, ..self.clone() }
    }

    /// Returns where a part is.
    pub(super) fn position(&self, part: &Part) -> SpoolPosition {
        self.parts.get(&*part.0).map_or(SpoolPosition::START, At::position)
    }

    /// Returns where each part is that was written.
    pub(super) fn positions(&self) -> Vec<(Part, SpoolPosition)> {
        self.parts.iter().map(|(part, at)| (Part(part.as_str().into()), at.position())).collect()
    }

    /// Returns whether anything was written.
    pub(super) fn is_written(&self) -> bool {
        !self.parts.is_empty()
    }

    pub(super) fn spool(&self) -> u64 {
        self.spool.0
    }

    /// Returns the message's value.
    pub(super) fn value(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names and numbers can always be written")
    }

    /// Returns why this owner may not have the position. `mine` is the epoch of its own last opening.
    pub(super) fn refuses(&self, owner: &Owner, mine: Option<u64>) -> Option<Error> {
        if (&self.pipeline, &self.sink) != (&owner.pipeline, &owner.sink) {
            return Some(Error::permanent(format!(
                "topic `{}` has the position of `{}` and `{}`: rename one of the two",
                topic(owner),
                self.pipeline,
                self.sink
            )));
        }
        // The host's name proves nothing: a machine is renamed, a container made anew. The spool's id does.
        if self.spool.0 != owner.spool {
            return Some(Error::permanent(format!(
                "the position of `{}` and `{}`, {}, belongs to spool {:016x}, last of host `{}`; this is spool {:016x} on \
                 host `{}`, which knows nothing of those rows: two data directories may not feed one topic. Bring back \
                 the data directory of that spool, or give the pipeline another name",
                owner.pipeline,
                owner.sink,
                self.position(&Part::spool()),
                self.spool.0,
                self.host,
                owner.spool,
                owner.host
            )));
        }
        mine.is_some_and(|mine| self.epoch > mine).then(|| {
            Error::permanent(format!(
                "another program, on host `{}`, has taken over the position of `{}` and `{}`, and fenced this one: it must \
                 run once only",
                self.host, owner.pipeline, owner.sink
            ))
        })
    }

    /// Returns what another pipeline has in common with these tables.
    fn neighbour(&self, tables: &[SinkTable]) -> Option<Neighbour> {
        let common: Vec<_> =
            tables.iter().map(|table| &table.name).filter(|name| self.topics.contains(*name)).collect();
        (!common.is_empty() && self.is_written()).then(|| Neighbour {
            pipeline: self.pipeline.clone(),
            sink: self.sink.clone(),
            spool: self.spool.0,
            host: self.host.clone(),
            tables: common.into_iter().cloned().collect(),
        })
    }
}

impl At {
    fn position(&self) -> SpoolPosition {
        SpoolPosition { boot: Boot(self.boot.0), offset: self.offset }
    }
}

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Returns the topic of a sink's position.
pub(super) fn topic(owner: &Owner) -> String {
    format!("{BEGIN}{}.{}{END}", owner.pipeline, owner.sink)
}

/// Returns whether a topic is for a position.
pub(super) fn is_topic(name: &str) -> bool {
    name.starts_with(BEGIN) && name.ends_with(END)
}

/// Reads the last record of a topic that is there, once nothing of it is undecided; `None` if there never was one.
pub(super) fn read(reader: &Reader, topic: &str, waited: &Waited) -> Result<Option<Held>> {
    parsed(topic, reader.last(topic, reader.settled(topic, 0, waited)?, waited)?)
}

/// Reads the last record that is known to be committed, without waiting for whoever may be writing the next one.
pub(super) fn glance(reader: &Reader, topic: &str, waited: &Waited) -> Result<Option<Held>> {
    parsed(topic, reader.last(topic, reader.extent(topic, 0)?, waited)?)
}

fn parsed(topic: &str, value: Option<Vec<u8>>) -> Result<Option<Held>> {
    let Some(value) = value else { return Ok(None) };
    serde_json::from_slice(&value).map(Some).map_err(|error| {
        Error::permanent(format!("the last record of topic `{topic}` is damaged: it holds no position")).because(error)
    })
}

/// Reads which other pipelines have written to these tables.
pub(super) fn neighbours(
    reader: &Reader,
    owner: &Owner,
    tables: &[SinkTable],
    waited: &Waited,
) -> Result<Vec<Neighbour>> {
    let mut neighbours = Vec::new();
    for name in reader.topics()?.iter().filter(|name| is_topic(name)) {
        // One that cannot be read, or is gone meanwhile, tells nothing.
        if let Ok(Some(held)) = glance(reader, name, waited)
            && held.pipeline != owner.pipeline
        {
            neighbours.extend(held.neighbour(tables));
        }
        waited.check()?;
    }
    Ok(neighbours)
}

const BEGIN: &str = "tidegate.";
const END: &str = ".position";
