//! Taking over: one transaction that waits for older sessions, makes what is missing, and takes the position.

use std::collections::BTreeSet;

use tidegate_core::{
    Error, Result,
    chunk::{Part, SinkTable},
    sink::{Neighbour, Owner, SinkContext, UniqueKey},
    spool::SpoolPosition,
};
use tokio_postgres::types::Type;
use tracing::{info, warn};

use super::{
    config::Settings,
    error::{is_locked, sorted},
    insert::Inserter,
    keys::{keys, unique},
    link::{KEEPALIVE_SQL, Link, session_name},
    position::Positions,
    schema::{Maker, Target, literal, misfit, prepare, quoted},
    session::{OpenTable, Session},
    timescale,
};
use crate::held::Held;

type Failed = tokio_postgres::Error;

/// An opening under way.
pub(super) struct Opening<'a> {
    pub(super) settings: &'a Settings,
    pub(super) cx: &'a SinkContext,
    pub(super) epoch: &'a mut Option<i64>,
    pub(super) making: &'a mut Option<String>,
}

/// What it has given.
pub(super) struct Opened {
    pub(super) session: Session,
    pub(super) positions: Vec<(Part, SpoolPosition)>,
    pub(super) neighbours: Vec<Neighbour>,
    pub(super) unique_keys: Vec<UniqueKey>,
    pub(super) notes: Vec<String>,
}

/// What the server says of itself.
pub(super) struct Server {
    pub(super) version: String,
    /// The schema that everything is in.
    pub(super) schema: String,
    pub(super) has_schema: bool,
    keeps_commits: bool,
    /// The schema, quoted where it must be, that TimescaleDB's functions are in.
    pub(super) timescale: Option<String>,
}

impl Opening<'_> {
    /// Takes over. `None`, and nothing made or taken, where no position is stored and one is known.
    pub(super) async fn run(&mut self, link: Link) -> Result<Option<Opened>> {
        let server = server(self.settings, &link).await.map_err(|error| link.at(sorted(error)))?;
        if self.settings.hypertables.is_some() && server.timescale.is_none() {
            return Err(link.at(Error::permanent(
                "the database has no extension `timescaledb`: run CREATE EXTENSION timescaledb, or take `type = \"postgres\"`",
            )));
        }
        let positions = Positions::of(&server.schema);
        self.settle(&link, &positions).await?;
        let taken = self.take_over(&link, &server, &positions).await;
        let Some(mut taken) = taken.map_err(|error| link.at(sorted(error)))?? else {
            link.close().await;
            return Ok(None);
        };
        taken.notes.splice(..0, server.notes(self.settings));
        let Taken { epoch, tables, positions: at, neighbours, unique_keys, notes } = taken;
        let (settings, owner) = (self.settings.clone(), self.cx.owner.clone());
        let session = Session { link, settings, owner, epoch, positions, tables };
        Ok(Some(Opened { session, positions: at, neighbours, unique_keys, notes }))
    }

    /// Begins the transaction, and waits for a session that is gone, and may still commit: it has the row. One that does not
    /// go, since its host vanished and its server has not noticed, is ended.
    async fn settle(&self, link: &Link, positions: &Positions) -> Result<()> {
        let failed = |error: Failed| link.at(sorted(error));
        self.begin(link).await.map_err(failed)?;
        match self.locked(link, positions).await {
            Ok(held) => held,
            Err(error) if is_locked(&error) => {
                link.run("ROLLBACK").await.map_err(failed)?;
                let ended = end_older(link, &self.cx.owner, positions).await.map_err(failed)?;
                let Owner { pipeline, sink, .. } = &self.cx.owner;
                let waited = self.settings.lock_timeout;
                warn!(pipeline, sink, ended, "the position was held by another session for {waited}: ended {ended}");
                self.begin(link).await.map_err(failed)?;
                self.locked(link, positions).await.map_err(failed)?
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Locks the position, if it is there and ours: the sessions of another owner are not ours to wait for, or to end.
    async fn locked(&self, link: &Link, positions: &Positions) -> Result<Result<()>, Failed> {
        if positions.missing(link).await?.is_some() {
            return Ok(Ok(()));
        }
        let held = match positions.read(link, &self.cx.owner, "").await? {
            Ok(held) => held,
            Err(error) => return Ok(Err(error)),
        };
        if let Some(error) = held.iter().find_map(|held| held.refuses(&self.cx.owner, *self.epoch, "schema")) {
            return Ok(Err(error));
        }
        Ok(positions.read(link, &self.cx.owner, "FOR UPDATE").await?.map(drop))
    }

    async fn begin(&self, link: &Link) -> Result<(), Failed> {
        let statement = self.settings.statement_timeout.0.as_millis();
        let lock = self.settings.lock_timeout.0.as_millis();
        let idle = self.settings.bulk_timeout.0.as_millis();
        link.run(&format!(
            "BEGIN; SET LOCAL synchronous_commit = on; SET LOCAL statement_timeout = {statement}; \
             SET LOCAL lock_timeout = {lock}; SET LOCAL idle_in_transaction_session_timeout = {idle}; {KEEPALIVE_SQL}"
        ))
        .await
    }

    /// Takes ownership and prepares the tables, all in the transaction that has begun.
    async fn take_over(
        &mut self,
        link: &Link,
        server: &Server,
        positions: &Positions,
    ) -> Result<Result<Option<Taken>>, Failed> {
        let Self { settings, cx, .. } = self;
        if !cx.owner.part.is_spool() {
            // Many open at once, on several hosts: only one of them makes what is missing.
            link.run(&format!("SELECT pg_advisory_xact_lock({})", one_at_a_time(&cx.owner))).await?;
        }
        let mut maker = Maker::new(settings.create);
        let is_missing = positions.missing(link).await?;
        if is_missing.is_some() && cx.known.is_some() {
            link.run("ROLLBACK").await?;
            return Ok(Ok(None));
        }
        if !server.has_schema {
            maker.make(link, format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(&server.schema))).await?;
        }
        if let Some(statement) = is_missing {
            maker.make(link, statement).await?;
        }
        let can_be_read = maker.wants().is_none();
        if can_be_read && cx.known.is_none() {
            // Of two that open a new store at once, one waits here for the other.
            link.run(&positions.begin(&cx.owner, &cx.owner.part)).await?;
        }
        let held = match if can_be_read { positions.read(link, &cx.owner, "FOR UPDATE").await? } else { Ok(Vec::new()) }
        {
            Ok(held) => held,
            Err(error) => return Ok(Err(error)),
        };
        if let Some(error) = held.iter().find_map(|held| held.refuses(&cx.owner, *self.epoch, "schema")) {
            return Ok(Err(error));
        }
        let written: Vec<&Held> = held.iter().filter(|held| held.position != SpoolPosition::START).collect();
        if written.is_empty() && cx.known.is_some() {
            link.run("ROLLBACK").await?;
            return Ok(Ok(None));
        }
        let neighbours = if written.is_empty() && can_be_read {
            positions.neighbours(link, &cx.owner, &cx.tables).await?
        } else {
            Vec::new()
        };
        let mut names: BTreeSet<String> = written.iter().flat_map(|held| held.tables.iter().cloned()).collect();
        let targets = match self.targets(link, server, &names, &mut maker).await? {
            Ok(targets) => targets,
            Err(error) => return Ok(Err(error)),
        };
        if let Some(error) = maker.wants() {
            return Ok(Err(error));
        }
        names.extend(self.cx.tables.iter().map(|table| table.name.clone()));
        let epoch = held.iter().map(|held| held.epoch).chain(*self.epoch).max().unwrap_or(0) + 1;
        let parts: BTreeSet<Part> =
            held.iter().map(|held| held.part.clone()).chain([self.cx.owner.part.clone()]).collect();
        for part in parts {
            link.run(&positions.take(&self.cx.owner, &part, epoch, &names)).await?;
        }
        let unique_keys = unique_keys(link, &self.cx.tables, &targets).await?;
        let tables = self.tables(link, server, targets).await?;
        // Before it is known to be committed: if this call is given up, the next one must not take it for another's.
        *self.epoch = Some(epoch);
        link.run("COMMIT").await?;
        self.report(&held, &maker.dropped);
        let positions = written.into_iter().map(|held| (held.part.clone(), held.position)).collect();
        Ok(Ok(Some(Taken { epoch, tables, positions, neighbours, unique_keys, notes: maker.notes })))
    }

    /// Makes or checks the tables and their indexes.
    async fn targets(
        &mut self,
        link: &Link,
        server: &Server,
        names: &BTreeSet<String>,
        maker: &mut Maker,
    ) -> Result<Result<Vec<Target>>, Failed> {
        let Self { settings, cx, making, .. } = self;
        let (mut targets, mut wrong) = (Vec::with_capacity(cx.tables.len()), Vec::new());
        for table in &cx.tables {
            let was_there = names.contains(&table.name);
            // Beside one that is wrong the others are only looked at, so that a person mends all of them at once.
            if !wrong.is_empty() {
                wrong.extend(misfit(link, (settings, &server.schema), table).await?);
                continue;
            }
            match prepare(link, (settings, &server.schema), table, was_there, maker).await? {
                Ok(target) => targets.push(target),
                Err(error) => wrong.push(error),
            }
        }
        if !wrong.is_empty() {
            let all: Vec<_> = wrong.iter().map(Error::chain).collect();
            return Ok(Err(Error::permanent(all.join("; "))));
        }
        if settings.create {
            for (table, target) in cx.tables.iter().zip(&targets) {
                if let (Some(hypertables), Some(target), Some(functions)) =
                    (&settings.hypertables, target, &server.timescale)
                {
                    let making = timescale::Making { link, functions, hypertables, notes: &mut maker.notes };
                    making.prepare(table, target).await?;
                }
            }
        }
        let both: Vec<_> = cx.tables.iter().zip(targets.iter().map(Option::as_ref)).collect();
        if let Err(error) = keys(link, (&server.schema, &cx.owner), &both, maker, making).await? {
            return Ok(Err(error));
        }
        // Where one is missing, there is something to be run.
        Ok(Ok(targets.into_iter().flatten().collect()))
    }

    async fn tables(&self, link: &Link, server: &Server, targets: Vec<Target>) -> Result<Vec<OpenTable>, Failed> {
        let mut tables = Vec::with_capacity(targets.len());
        for (table, target) in self.cx.tables.iter().zip(targets) {
            let signature = OpenTable::signature(link, target.oid).await?;
            let mut inserter = Inserter::new(target, table);
            if server.timescale.is_some()
                && let Some(keep) = timescale::retention(link, inserter.target.oid).await?
            {
                inserter = inserter.keeping(table, keep);
            }
            tables.push(OpenTable { table: table.clone(), inserter, signature });
        }
        Ok(tables)
    }

    fn report(&self, held: &[Held], dropped: &[String]) {
        let Owner { pipeline, sink, host, .. } = &self.cx.owner;
        for table in dropped {
            info!(pipeline, sink, table, "dropped an index of table {table}: `key` does not ask for it any more");
        }
        if let Some(Held { host: old, .. }) = held.iter().find(|held| held.host != *host) {
            info!(
                pipeline,
                sink, old, host, "the position was of host {old}, and the spool is the same: it is of {host} now"
            );
        }
    }
}

struct Taken {
    epoch: i64,
    tables: Vec<OpenTable>,
    positions: Vec<(Part, SpoolPosition)>,
    neighbours: Vec<Neighbour>,
    unique_keys: Vec<UniqueKey>,
    notes: Vec<String>,
}

/// Returns what the openings of one sink's parts wait for.
fn one_at_a_time(owner: &Owner) -> i64 {
    hash(&[&owner.pipeline, &owner.sink]).cast_signed()
}

/// FNV-1a: two builds of the program have to agree.
pub(super) fn hash(names: &[&str]) -> u64 {
    let bytes = names.iter().flat_map(|name| name.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

async fn unique_keys(link: &Link, tables: &[SinkTable], targets: &[Target]) -> Result<Vec<UniqueKey>, Failed> {
    let mut found = Vec::new();
    for (table, target) in tables.iter().zip(targets) {
        let keys = unique(link, target.oid).await?.into_iter();
        found.extend(keys.map(|columns| UniqueKey { table: table.name.clone(), columns }));
    }
    Ok(found)
}

/// Ends the sessions that go by this sink's name and have a lock on the position table of this schema; returns how many. A sink
/// of the same name in another schema is another one, and sessions that only stand in a pool of PgBouncer's have no lock.
async fn end_older(link: &Link, owner: &Owner, positions: &Positions) -> Result<i64, Failed> {
    let sql = "SELECT count(pg_catalog.pg_terminate_backend(a.pid)) FROM pg_catalog.pg_stat_activity a
        WHERE a.application_name = $1 AND a.pid <> pg_catalog.pg_backend_pid() AND a.pid IN
        (SELECT l.pid FROM pg_catalog.pg_locks l WHERE l.granted AND l.relation = $2::text::regclass)";
    let name = session_name(owner);
    let rows = link.rows(sql, &[(&name, Type::TEXT), (&positions.table(), Type::TEXT)]).await?;
    rows.first().map_or(Ok(0), |row| row.try_get(0))
}

/// Asks the server what it is, and which schema is meant.
pub(super) async fn server(settings: &Settings, link: &Link) -> Result<Server, Failed> {
    let schema = settings.schema.as_deref().map_or_else(|| "current_schema()::text".to_owned(), literal);
    let sql = format!(
        "SELECT current_setting('server_version'), coalesce({schema}, 'public'),
            EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = coalesce({schema}, 'public')),
            current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on',
            e.extversion, e.extnamespace::regnamespace::text
         FROM (SELECT) AS one LEFT JOIN pg_catalog.pg_extension e ON e.extname = 'timescaledb'"
    );
    let rows = link.rows(&sql, &[]).await?;
    let row = rows.first().expect("a SELECT without FROM has one row");
    let (version, extension): (String, Option<String>) = (row.try_get(0)?, row.try_get(4)?);
    let extended = extension.as_ref().map(|number| format!(" with TimescaleDB {number}")).unwrap_or_default();
    Ok(Server {
        version: format!("PostgreSQL {version}{extended}"),
        schema: row.try_get(1)?,
        has_schema: row.try_get(2)?,
        keeps_commits: row.try_get(3)?,
        timescale: row.try_get(5)?,
    })
}

impl Server {
    /// Says where the server or the settings promise less than exactly once, or less than each digit.
    pub(super) fn notes(&self, settings: &Settings) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.keeps_commits {
            let text =
                "the server has `fsync` or `full_page_writes` off: a power cut may take back what it has committed";
            notes.push(text.to_owned());
        }
        if self.timescale.is_some() && settings.hypertables.is_none() {
            notes.push("the database has TimescaleDB: `type = \"timescale\"` makes hypertables".to_owned());
        }
        notes
    }
}
