//! `tidegate_owners`: who feeds which tables, one row for each sink, with a heartbeat.
//!
//! QuestDB has no lock and no compare-and-set, so this is advice: of two that begin in the same moment both may write. What
//! they write is told apart by `tg_boot`, and nothing is overwritten.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use tidegate_core::{
    Error, Result,
    chunk::SinkTable,
    sink::{Neighbour, Owner},
    spool::{Boot, SpoolPosition},
};

use super::{
    client::Client,
    look::strange,
    schema::{quoted, text},
};

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) pipeline: String,
    pub(super) sink: String,
    /// 0 for a row whose sink has another name now: QuestDB deletes no rows.
    pub(super) spool: u64,
    pub(super) host: String,
    pub(super) epoch: i64,
    /// Up to where rows counted at the last heartbeat.
    pub(super) position: SpoolPosition,
    /// The newest boot whose rows were sent; 0 for none.
    pub(super) writing: u64,
    /// Tables by their names, with their ids.
    pub(super) tables: BTreeMap<String, i64>,
    /// How long ago the last heartbeat was, by QuestDB's clock.
    pub(super) age: Duration,
}

impl Held {
    /// Returns the row of a sink that has none.
    pub(super) fn new(owner: &Owner) -> Self {
        Self {
            pipeline: owner.pipeline.clone(),
            sink: owner.sink.clone(),
            spool: owner.spool,
            host: owner.host.clone(),
            epoch: 0,
            position: SpoolPosition::START,
            writing: 0,
            tables: BTreeMap::new(),
            age: Duration::MAX,
        }
    }

    /// Returns whether rows may have been stored.
    pub(super) fn has_written(&self) -> bool {
        self.position != SpoolPosition::START || self.writing != 0
    }

    /// Says why the owner may not write, if so. `epoch` is that of the last time this process took over.
    pub(super) fn refuses(&self, owner: &Owner, epoch: Option<i64>) -> Option<Error> {
        let (stage, host, age) = (format!("{}/sink.{}", owner.pipeline, owner.sink), &self.host, self.age.as_secs());
        if self.spool != owner.spool && self.has_written() {
            return Some(Error::permanent(format!(
                "what `{stage}` has stored belongs to spool {:016x} of host `{host}`, last heard of {age} s ago, and this is \
                 spool {:016x} of host `{}`",
                self.spool, owner.spool, owner.host
            )));
        }
        let is_beating = self.age < SILENT_AFTER;
        if self.host != owner.host && is_beating && self.spool == owner.spool {
            return Some(Error::transient(format!(
                "host `{host}` was heard of {age} s ago as the one that writes for `{stage}`: two hosts with one spool double \
                 rows; it is waited for until it is silent for {} s",
                SILENT_AFTER.as_secs()
            )));
        }
        epoch.filter(|epoch| self.epoch > *epoch).map(|_| fenced(&stage, host))
    }

    /// Writes the row, as of now.
    pub(super) async fn beat(&self, client: &Client, table: &str) -> Result<()> {
        client.sql(&self.statement(table)).await.map(drop)
    }

    /// Writes the row as one of which nothing more will be heard: another host need not wait.
    pub(super) async fn leave(&self, client: &Client, table: &str) -> Result<()> {
        let past = format!("dateadd('s', -{}, systimestamp())", SILENT_AFTER.as_secs());
        client.sql(&self.statement(table).replace("systimestamp()", &past)).await.map(drop)
    }

    /// Returns the statement that writes it.
    pub(super) fn statement(&self, table: &str) -> String {
        let tables = serde_json::to_string(&self.tables).expect("texts and numbers can be written");
        format!(
            "INSERT INTO {} (ts, pipeline, sink, spool, host, epoch, boot, pos, writing, beat, tables) \
             VALUES (0, {}, {}, {}, {}, {}, {}, {}, {}, systimestamp(), {})",
            quoted(table),
            text(&self.pipeline),
            text(&self.sink),
            self.spool.cast_signed(),
            text(&self.host),
            self.epoch,
            self.position.boot.0.cast_signed(),
            self.position.offset,
            self.writing.cast_signed(),
            text(&tables)
        )
    }
}

/// Returns the statement that makes the table. Its rows are told apart by their names alone: `ts` is 1970 in all of them.
pub(super) fn made(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (ts TIMESTAMP, pipeline SYMBOL, sink SYMBOL, spool LONG, host VARCHAR, epoch LONG, \
         boot LONG, pos LONG, writing LONG, beat TIMESTAMP, tables VARCHAR) TIMESTAMP(ts) PARTITION BY YEAR WAL \
         DEDUP UPSERT KEYS(ts, pipeline, sink)",
        quoted(table)
    )
}

/// Reads all rows.
pub(super) async fn all(client: &Client, table: &str) -> Result<Vec<Held>> {
    let sql = format!(
        "SELECT pipeline, sink, spool, host, epoch, boot, pos, writing, datediff('s', beat, systimestamp()), tables FROM {}",
        quoted(table)
    );
    let rows = client.sql(&sql).await?;
    let held: Option<Vec<Held>> = rows.iter().map(|row| held(row)).collect();
    Ok(held.ok_or_else(strange)?.into_iter().filter(|held| held.spool != 0).collect())
}

/// Returns the row of a sink.
pub(super) fn of<'a>(all: &'a [Held], owner: &Owner) -> Option<&'a Held> {
    all.iter().find(|held| held.pipeline == owner.pipeline && held.sink == owner.sink)
}

/// Returns the other sinks that have written to tables.
pub(super) fn neighbours(all: &[Held], owner: &Owner, tables: &[SinkTable]) -> Vec<Neighbour> {
    let others = all.iter().filter(|held| held.pipeline != owner.pipeline && held.has_written());
    let with_tables = others.map(|held| {
        let shared = tables.iter().map(|table| table.name.clone()).filter(|name| held.tables.contains_key(name));
        (held, shared.collect::<Vec<_>>())
    });
    let shared = with_tables.filter(|(_, shared)| !shared.is_empty());
    shared
        .map(|(held, tables)| Neighbour {
            pipeline: held.pipeline.clone(),
            sink: held.sink.clone(),
            spool: held.spool,
            host: held.host.clone(),
            tables,
        })
        .collect()
}

fn held(row: &[Value]) -> Option<Held> {
    let words = |at: usize| Some(row.get(at)?.as_str()?.to_owned());
    let number = |at: usize| row.get(at)?.as_i64();
    let offset = u64::try_from(number(6)?).ok()?;
    let boot = Boot(number(5)?.cast_unsigned());
    Some(Held {
        pipeline: words(0)?,
        sink: words(1)?,
        spool: number(2)?.cast_unsigned(),
        host: words(3)?,
        epoch: number(4)?,
        position: SpoolPosition { boot, offset },
        writing: number(7)?.cast_unsigned(),
        age: Duration::from_secs(number(8)?.unsigned_abs()),
        tables: serde_json::from_str(&words(9)?).ok()?,
    })
}

pub(super) fn fenced(stage: &str, host: &str) -> Error {
    Error::permanent(format!("host `{host}` has begun to write for `{stage}`, and this one stops"))
}

/// How often the row is written.
pub(super) const BEAT_EVERY: Duration = Duration::from_secs(10);

/// After how long without a heartbeat another host takes over.
const SILENT_AFTER: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::Kind;

    #[test]
    fn another_spool_is_refused_another_host_waited_for_and_a_newer_owner_obeyed() {
        let part = tidegate_core::chunk::Part::spool();
        let owner = Owner { pipeline: "p".into(), sink: "s".into(), part, spool: 7, host: "here".into(), chain: 0 };
        let held = Held { position: at(5), age: Duration::from_secs(3), ..Held::new(&owner) };
        assert!(held.refuses(&owner, None).is_none(), "a restart");
        let kind = |held: Held, epoch| held.refuses(&owner, epoch).map(|error| error.kind());
        assert_eq!(kind(Held { spool: 8, ..held.clone() }, None), Some(Kind::Permanent));
        let never_written = Held { spool: 8, position: SpoolPosition::START, ..held.clone() };
        assert_eq!(kind(never_written, None), None);
        let elsewhere = Held { host: "there".into(), ..held.clone() };
        assert_eq!(kind(elsewhere.clone(), None), Some(Kind::Transient { retry_after: None }));
        assert_eq!(kind(Held { age: SILENT_AFTER, ..elsewhere }, None), None);
        assert_eq!(kind(Held { epoch: 3, ..held.clone() }, Some(2)), Some(Kind::Permanent));
        assert_eq!(kind(Held { epoch: 2, ..held }, Some(2)), None);
    }

    const fn at(offset: u64) -> SpoolPosition {
        SpoolPosition { boot: Boot(1), offset }
    }
}
