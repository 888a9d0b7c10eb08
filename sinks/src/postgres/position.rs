//! The table `tidegate_position`: where the store is, who owns it, and in which tables there are rows.

use std::collections::BTreeSet;

use tidegate_core::{
    Result,
    chunk::{Part, SinkTable},
    sink::{Neighbour, Owner},
    spool::SpoolPosition,
};
use tokio_postgres::types::Type;

use super::{
    link::Link,
    schema::{literal, quoted},
};
use crate::held::{self, Columns, Held, number};

/// The position table of one schema.
#[derive(Debug, Clone)]
pub(super) struct Positions {
    schema: String,
    table: String,
}

type Failed = tokio_postgres::Error;

impl Positions {
    pub(super) fn of(schema: &str) -> Self {
        Self { schema: schema.to_owned(), table: format!("{}.tidegate_position", quoted(schema)) }
    }

    /// Returns the quoted name of the table, with the schema.
    pub(super) fn table(&self) -> &str {
        &self.table
    }

    /// Returns the statement that makes the table; `None` if it is there. Room is left in each page, so that a new version stays in it.
    pub(super) async fn missing(&self, link: &Link) -> Result<Option<String>, Failed> {
        let there = "SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tablename = 'tidegate_position'";
        let there = link.rows(there, &[(&self.schema, Type::TEXT)]).await?;
        Ok(there.is_empty().then(|| {
            format!(
                "CREATE TABLE IF NOT EXISTS {} (pipeline text, sink text, part text, spool text NOT NULL, \
                 host text NOT NULL, epoch bigint NOT NULL, boot text NOT NULL, \"offset\" bigint NOT NULL, \
                 chain text NOT NULL, updated timestamptz NOT NULL, tables text NOT NULL DEFAULT '[]', \
                 PRIMARY KEY (pipeline, sink, part)) WITH (fillfactor = 20)",
                self.table
            )
        }))
    }

    /// Reads the owner's part. `how` may say `FOR UPDATE`: then a session that is gone, and may still commit, is waited for.
    pub(super) async fn read(&self, link: &Link, owner: &Owner, how: &str) -> Result<Result<Vec<Held>>, Failed> {
        let sql = format!(
            "SELECT part, spool, host, epoch, boot, \"offset\", tables FROM {}
             WHERE pipeline = $1 AND sink = $2 AND part = $3 {how}",
            self.table
        );
        let part: &str = &owner.part.0;
        let names = [(&owner.pipeline as _, Type::TEXT), (&owner.sink as _, Type::TEXT), (&part as _, Type::TEXT)];
        let rows = link.rows(&sql, &names).await?;
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
    pub(super) async fn gone(&self, link: &Link, tables: &BTreeSet<String>) -> Result<Vec<String>, Failed> {
        let there = "SELECT tablename::text FROM pg_catalog.pg_tables WHERE schemaname = $1";
        let there = link.rows(there, &[(&self.schema, Type::TEXT)]).await?;
        let there: Vec<String> = there.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        Ok(tables.iter().filter(|name| !there.contains(name)).cloned().collect())
    }

    /// Returns the statement that gives a part a row, if it has none: only a row can be locked.
    pub(super) fn begin(&self, owner: &Owner, part: &Part) -> String {
        self.insert(owner, part, 0, &BTreeSet::new()) + " ON CONFLICT (pipeline, sink, part) DO NOTHING"
    }

    /// Returns the statement that takes ownership of a part: from there on no older owner commits.
    pub(super) fn take(&self, owner: &Owner, part: &Part, epoch: i64, tables: &BTreeSet<String>) -> String {
        self.insert(owner, part, epoch, tables)
            + " ON CONFLICT (pipeline, sink, part) DO UPDATE SET host = excluded.host, epoch = excluded.epoch, \
               chain = excluded.chain, tables = excluded.tables"
    }

    fn insert(&self, owner: &Owner, part: &Part, epoch: i64, tables: &BTreeSet<String>) -> String {
        let tables = serde_json::to_string(tables).expect("names are texts");
        let Owner { pipeline, sink, spool, host, chain, part: _ } = owner;
        format!(
            "INSERT INTO {} (pipeline, sink, part, spool, host, epoch, boot, \"offset\", chain, updated, tables)
             VALUES ({}, {}, {}, {}, {}, {epoch}, {}, 0, {}, now(), {})",
            self.table,
            literal(pipeline),
            literal(sink),
            literal(&part.0),
            hex(*spool),
            literal(host),
            hex(SpoolPosition::START.boot.0),
            hex(*chain),
            literal(&tables)
        )
    }

    /// Returns the statement that moves a part from one position to the next. It fails where that is not what is stored, or the
    /// owner is another: an update of no row would be no error, and what comes after it in the transaction would be stored.
    pub(super) fn advance(
        &self,
        owner: &Owner,
        part: &Part,
        epoch: i64,
        (from, to): (SpoolPosition, SpoolPosition),
    ) -> String {
        format!(
            "WITH moved AS (UPDATE {} SET boot = {}, \"offset\" = {}, chain = {}, updated = now()
             WHERE pipeline = {} AND sink = {} AND part = {} AND spool = {} AND epoch = {epoch} AND boot = {}
             AND \"offset\" = {} RETURNING 1) SELECT 1 / count(*) FROM moved",
            self.table,
            hex(to.boot.0),
            to.offset.cast_signed(),
            hex(owner.chain),
            literal(&owner.pipeline),
            literal(&owner.sink),
            literal(&part.0),
            hex(owner.spool),
            hex(from.boot.0),
            from.offset.cast_signed()
        )
    }

    /// Returns the statements that put a part at a position, whoever had it and wherever it was.
    pub(super) fn adopt(
        &self,
        owner: &Owner,
        part: &Part,
        at: SpoolPosition,
        (epoch, tables): (i64, &BTreeSet<String>),
    ) -> String {
        format!(
            "{}; UPDATE {} SET spool = {}, boot = {}, \"offset\" = {}, updated = now()
             WHERE pipeline = {} AND sink = {} AND part = {}",
            self.take(owner, part, epoch, tables),
            self.table,
            hex(owner.spool),
            hex(at.boot.0),
            at.offset.cast_signed(),
            literal(&owner.pipeline),
            literal(&owner.sink),
            literal(&part.0)
        )
    }

    /// Returns the statements that give all parts of one name to another, and fence whoever may still write under the old one.
    /// What was taken under the new one, and not written to, makes way.
    pub(super) fn rename(&self, old: &Owner, owner: &Owner) -> String {
        let [pipeline, sink] = [&owner.pipeline, &owner.sink].map(|name| literal(name));
        format!(
            "DELETE FROM {table} WHERE pipeline = {pipeline} AND sink = {sink} AND \"offset\" = 0;
             UPDATE {table} SET pipeline = {pipeline}, sink = {sink}, epoch = epoch + 1
             WHERE pipeline = {} AND sink = {}",
            literal(&old.pipeline),
            literal(&old.sink),
            table = self.table,
        )
    }

    /// Reads which other pipelines have written to these tables.
    pub(super) async fn neighbours(
        &self,
        link: &Link,
        owner: &Owner,
        tables: &[SinkTable],
    ) -> Result<Vec<Neighbour>, Failed> {
        let sql = format!(
            "SELECT pipeline, sink, spool, host, tables FROM {}
             WHERE pipeline <> $1 AND \"offset\" > 0 ORDER BY updated DESC",
            self.table
        );
        let mut neighbours = Vec::new();
        for row in link.rows(&sql, &[(&owner.pipeline, Type::TEXT)]).await? {
            let (pipeline, sink, spool): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let (host, theirs): (String, String) = (row.try_get(3)?, row.try_get(4)?);
            let (Ok(theirs), Some(spool)) = (serde_json::from_str::<Vec<String>>(&theirs), number(&spool)) else {
                continue;
            };
            let tables: Vec<String> =
                theirs.into_iter().filter(|theirs| tables.iter().any(|ours| ours.name == *theirs)).collect();
            if !tables.is_empty() {
                neighbours.push(Neighbour { pipeline, sink, spool, host, tables });
            }
        }
        Ok(neighbours)
    }

    /// Reads the epoch of a part.
    pub(super) async fn epoch(&self, link: &Link, owner: &Owner, part: &Part) -> Result<Option<i64>, Failed> {
        let sql = format!("SELECT epoch FROM {} WHERE pipeline = $1 AND sink = $2 AND part = $3", self.table);
        let names = [(&owner.pipeline, Type::TEXT), (&owner.sink, Type::TEXT)];
        let part: &str = &part.0;
        let with = [(names[0].0 as _, Type::TEXT), (names[1].0 as _, Type::TEXT), (&part as _, Type::TEXT)];
        let rows = link.rows(&sql, &with).await?;
        rows.first().map(|row| row.try_get(0)).transpose()
    }
}

/// Returns a random number as SQL writes it.
fn hex(number: u64) -> String {
    literal(&held::hex(number))
}
