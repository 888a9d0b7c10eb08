//! The sink: connects, takes ownership, hands chunks to its session.

use async_trait::async_trait;
use tidegate_core::{
    Error, Result,
    chunk::{Chunk, Part, SinkTable},
    sink::{Claim, Guarantee, Neighbour, Owner, Sink, SinkContext, UniqueKey, Written},
    spool::SpoolPosition,
    verify::Audit,
};

use super::{
    adopt,
    audit::PostgresAudit,
    config::Settings,
    error::sorted,
    keys::{lacking, to_be_made, unique},
    link::Link,
    open::{Opening, server},
    position::Positions,
    schema::{Maker, prepare, quoted},
    session::Session,
};

/// A database of Postgres's, or TimescaleDB's.
#[derive(Debug)]
pub(super) struct Postgres {
    settings: Settings,
    pub(super) session: Option<Session>,
    /// The epoch of the last opening: a higher one in the store is somebody else's.
    epoch: Option<i64>,
    /// The index that is being made. It is there at the next opening if the last one was given up over it.
    making: Option<String>,
    /// The other pipelines that have written to the tables of a sink that has not.
    neighbours: Vec<Neighbour>,
    unique_keys: Vec<UniqueKey>,
    /// What was said of the tables, so that it is said once.
    said: Vec<String>,
}

impl Postgres {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            session: None,
            epoch: None,
            making: None,
            neighbours: Vec::new(),
            unique_keys: Vec::new(),
            said: Vec::new(),
        }
    }

    fn session(&mut self) -> Result<Session> {
        self.session.take().ok_or_else(|| Error::transient("the database is not open"))
    }

    /// Says what a person should know, on change.
    fn say(&mut self, owner: &Owner, notes: Vec<String>) {
        let Owner { pipeline, sink, .. } = owner;
        for note in notes.iter().filter(|note| !self.said.contains(note)) {
            tracing::warn!(pipeline, sink, "{note}");
        }
        self.said = notes;
    }
}

#[async_trait]
impl Sink for Postgres {
    async fn open(&mut self, cx: &SinkContext) -> Result<Vec<(Part, SpoolPosition)>> {
        self.session = None;
        if let Some(statement) = self.making.take() {
            return Err(takes_too_long(&statement));
        }
        self.settings.check_tables(&cx.tables)?;
        let link = Link::open(&self.settings, Some(&cx.owner)).await?;
        let mut opening = Opening { settings: &self.settings, cx, epoch: &mut self.epoch, making: &mut self.making };
        let Some(opened) = opening.run(link).await? else {
            return Ok(Vec::new());
        };
        self.neighbours = opened.neighbours;
        self.unique_keys = opened.unique_keys;
        self.session = Some(opened.session);
        self.say(&cx.owner, opened.notes);
        Ok(opened.positions)
    }

    async fn write(&mut self, chunk: &Chunk) -> Result<Written> {
        // An error, or whoever gives up the call, ends the session with it: no lock is held until the next opening.
        let mut session = self.session()?;
        let written = session.write(chunk).await?;
        self.session = Some(session);
        Ok(written)
    }

    async fn check(&mut self) -> Result<()> {
        let session = self.session()?;
        session.check().await?;
        self.session = Some(session);
        Ok(())
    }

    async fn reach(&mut self, tables: &[SinkTable]) -> Result<String> {
        let link = Link::open(&self.settings, None).await?;
        let looked = reach(&self.settings, &link, tables).await;
        let answer = looked.map_err(|error| link.at(sorted(error)))?;
        link.close().await;
        let (said, unique_keys) = answer?;
        self.unique_keys = unique_keys;
        Ok(said)
    }

    async fn audit(&mut self, cx: &SinkContext) -> Result<Option<Box<dyn Audit>>> {
        let audit = PostgresAudit::open(&self.settings, &cx.owner).await?;
        Ok(Some(Box::new(audit)))
    }

    async fn close(&mut self) -> Result<()> {
        if let Some(session) = self.session.take() {
            session.link.close().await;
        }
        Ok(())
    }

    async fn claim(&mut self, owner: &Owner) -> Result<Option<Claim>> {
        adopt::claim(&self.settings, owner).await
    }

    async fn adopt(&mut self, owner: &Owner, at: SpoolPosition) -> Result<()> {
        adopt::adopt(&self.settings, owner, at).await
    }

    async fn rename(&mut self, old: &Owner, owner: &Owner) -> Result<()> {
        adopt::rename(&self.settings, old, owner).await
    }

    fn neighbours(&self) -> Vec<Neighbour> {
        self.neighbours.clone()
    }

    fn unique_keys(&self) -> Vec<UniqueKey> {
        self.unique_keys.clone()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::Transaction
    }
}

/// Looks at the tables, in a transaction that can change nothing.
async fn reach(
    settings: &Settings,
    link: &Link,
    tables: &[SinkTable],
) -> Result<Result<(String, Vec<UniqueKey>)>, tokio_postgres::Error> {
    link.run("BEGIN READ ONLY").await?;
    let server = server(settings, link).await?;
    let (mut maker, mut found) = (Maker::looking(settings.create), 0);
    // As the first opening would say it, in the same order.
    if !server.has_schema {
        maker.make(link, format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(&server.schema))).await?;
    }
    if let Some(statement) = Positions::of(&server.schema).missing(link).await? {
        maker.make(link, statement).await?;
    }
    let (mut missing, mut keys) = (Vec::new(), Vec::new());
    for table in tables {
        let with = (settings, &*server.schema);
        match prepare(link, with, table, false, &mut maker).await? {
            Err(error) => return Ok(Err(error)),
            Ok(None) if settings.create => {}
            Ok(None) => missing.extend(to_be_made(&server.schema, table).map(|sql| (&table.name, sql))),
            Ok(Some(target)) => {
                found += 1;
                missing.extend(lacking(link, &server.schema, table, &target).await?.map(|sql| (&table.name, sql)));
                let there = unique(link, target.oid).await?.into_iter();
                keys.extend(there.map(|columns| UniqueKey { table: table.name.clone(), columns }));
            }
        }
    }
    link.run("COMMIT").await?;
    let mut notes = server.notes(settings);
    notes.append(&mut maker.notes);
    for (table, statement) in missing {
        maker.leave(table, statement);
    }
    if let Some(error) = maker.wants() {
        return Ok(Err(error));
    }
    let count = tables.len();
    let mut said = format!("{} at {}: {found} of {count} tables are there", server.version, link.shown);
    for note in notes {
        said.push_str("; ");
        said.push_str(&note);
    }
    Ok(Ok((said, keys)))
}

fn takes_too_long(statement: &str) -> Error {
    Error::permanent(format!(
        "making the index of a key took longer than the sink's `timeout`: raise it, or stop the program and run: {statement}"
    ))
}
