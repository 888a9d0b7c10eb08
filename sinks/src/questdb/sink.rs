//! The sink: opens, writes chunks, and asks what became of them.

use std::collections::BTreeSet;

use async_trait::async_trait;
use questdb::ingress::Buffer;
use tidegate_core::{
    Error, Kind, Result,
    catalog::Component,
    chunk::{Chunk, Part, SinkTable, TableRows},
    row::Timestamp,
    sink::{Claim, Guarantee, Neighbour, Owner, Refusal, Sink, SinkContext, Written},
    spool::SpoolPosition,
    verify::Audit,
};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    QuestDbConfig,
    audit::QuestDbAudit,
    client::{Client, Posted},
    encode::{self, Columns},
    look,
    owner::{self, BEAT_EVERY, Held},
    prepare::{Prepared, Preparing, Target, lost_dedup, server, suspended},
    schema::TG_COLUMNS,
    wal::{Pending, State},
};

/// A QuestDB.
#[derive(Debug)]
pub(super) struct QuestDb {
    config: QuestDbConfig,
    session: Option<Session>,
    /// The epoch of the last opening: a higher one is somebody else's.
    epoch: Option<i64>,
    neighbours: Vec<Neighbour>,
    newest: Option<SpoolPosition>,
    is_exact: bool,
    time_columns: BTreeSet<String>,
    /// Remarks that were made already.
    said: BTreeSet<String>,
}

/// What holds from one opening to the next.
#[derive(Debug)]
struct Session {
    config: QuestDbConfig,
    client: Client,
    owner: Owner,
    targets: Vec<Target>,
    held: Option<Held>,
    pending: Pending,
    buffer: Buffer,
    /// When to look whether somebody else writes.
    beat_at: Instant,
    /// When the position is to be told, while rows wait.
    note_at: Instant,
}

impl QuestDb {
    pub(super) fn new(config: QuestDbConfig) -> Self {
        Self {
            config,
            session: None,
            epoch: None,
            neighbours: Vec::new(),
            newest: None,
            is_exact: true,
            time_columns: BTreeSet::from(["ts_event".to_owned()]),
            said: BTreeSet::new(),
        }
    }

    fn remark(&mut self, owner: &Owner, remarks: Vec<String>) {
        let (pipeline, sink) = (&owner.pipeline, &owner.sink);
        for remark in remarks {
            if self.said.insert(remark.clone()) {
                warn!(pipeline, sink, "{remark}");
            }
        }
    }
}

#[async_trait]
impl Sink for QuestDb {
    async fn open(&mut self, cx: &SinkContext) -> Result<Vec<(Part, SpoolPosition)>> {
        self.session = None;
        self.config.check_tables(&cx.tables)?;
        let client = Client::new(&self.config).await?;
        if let Some(mode) = server(&self.config, &client).await? {
            let (pipeline, sink) = (&cx.owner.pipeline, &cx.owner.sink);
            let said = format!(
                "QuestDB commits with cairo.commit.mode={mode}: a power cut at its host can take back what it has stored; the \
                 spool's `keep` is how far back it can be fed again"
            );
            if self.said.insert(said.clone()) {
                info!(pipeline, sink, "{said}");
            }
        }
        let preparing = Preparing { config: &self.config, client: &client, cx, epoch: self.epoch };
        let Prepared { mut targets, held, others, newest } = preparing.prepare().await?;
        if let Some(held) = &held {
            // Before it is known to be written: if this call is given up, the next one must not take it for another's.
            self.epoch = Some(held.epoch);
            held.beat(&client, &self.config.owners).await?;
        }
        let remarks = targets.iter_mut().flat_map(|target| std::mem::take(&mut target.remarks)).collect();
        self.remark(&cx.owner, remarks);
        let is_new = held.as_ref().is_none_or(|held| !held.has_written());
        self.neighbours = if is_new { owner::neighbours(&others, &cx.owner, &cx.tables) } else { Vec::new() };
        self.newest = newest;
        self.is_exact = targets.iter().all(|target| target.dedup.is_some());
        if !cx.tables.is_empty() {
            self.time_columns = cx.tables.iter().map(|table| table.time_column.clone()).collect();
        }
        self.session = Some(Session {
            config: self.config.clone(),
            client,
            owner: cx.owner.clone(),
            targets,
            held,
            pending: Pending::default(),
            buffer: encode::buffer(),
            beat_at: Instant::now() + BEAT_EVERY,
            note_at: Instant::now() + NOTE_EVERY,
        });
        Ok(Vec::new())
    }

    async fn write(&mut self, chunk: &Chunk) -> Result<Written> {
        self.session.as_mut().ok_or_else(not_open)?.write(chunk).await
    }

    async fn applied(&mut self) -> Result<Option<SpoolPosition>> {
        self.session.as_mut().ok_or_else(not_open)?.applied().await
    }

    async fn check(&mut self) -> Result<()> {
        let session = self.session.as_mut().ok_or_else(not_open)?;
        session.states().await?;
        session.columns_are_there().await?;
        session.beat_in_time(true).await
    }

    async fn reach(&mut self, tables: &[SinkTable]) -> Result<String> {
        let client = Client::new(&self.config).await?;
        server(&self.config, &client).await?;
        super::prepare::reach(&self.config, &client, tables).await
    }

    async fn audit(&mut self, cx: &SinkContext) -> Result<Option<Box<dyn Audit>>> {
        let audit = QuestDbAudit::open(&self.config, &cx.owner).await?;
        Ok(Some(Box::new(audit)))
    }

    async fn close(&mut self) -> Result<()> {
        let Some(mut session) = self.session.take() else { return Ok(()) };
        while !session.pending.is_empty() {
            session.applied().await?;
            tokio::time::sleep(CLOSE_PAUSE).await;
        }
        session.beat_in_time(true).await?;
        match &session.held {
            Some(held) => held.leave(&session.client, &self.config.owners).await,
            None => Ok(()),
        }
    }

    async fn claim(&mut self, owner: &Owner) -> Result<Option<Claim>> {
        let client = Client::new(&self.config).await?;
        let Some(all) = super::prepare::owners(&self.config, &client).await? else { return Ok(None) };
        let Some(held) = owner::of(&all, owner) else { return Ok(None) };
        let names: Vec<&str> = held.tables.keys().map(String::as_str).collect();
        let standings = look::standings(&client, &names).await?;
        let is_gone = |(name, id): &(&String, &i64)| {
            held.has_written() && look::find(&standings, name).is_none_or(|standing| standing.state.id != **id)
        };
        let gone: Vec<_> = held.tables.iter().filter(is_gone).map(|(name, _)| name.clone()).collect();
        let there = standings.iter().filter(|standing| !gone.contains(&standing.name));
        let newest = super::prepare::newest(&client, held, there).await?;
        let position = newest.unwrap_or(SpoolPosition::START);
        Ok(Some(Claim { position, spool: held.spool, host: held.host.clone(), gone }))
    }

    async fn adopt(&mut self, owner: &Owner, at: SpoolPosition) -> Result<()> {
        let client = Client::new(&self.config).await?;
        let claim = self.claim(owner).await?;
        let all = super::prepare::owners(&self.config, &client).await?.unwrap_or_default();
        let (Some(claim), Some(held)) = (claim, owner::of(&all, owner)) else { return Ok(()) };
        let mut tables = held.tables.clone();
        tables.retain(|name, _| !claim.gone.contains(name));
        // Rows of older boots say nothing of this spool any more.
        let (spool, host, epoch) = (owner.spool, owner.host.clone(), held.epoch + 1);
        let adopted = Held { spool, host, epoch, tables, position: at, writing: 0, ..held.clone() };
        adopted.beat(&client, &self.config.owners).await?;
        settled(&self.config, &client, &adopted).await
    }

    async fn rename(&mut self, old: &Owner, owner: &Owner) -> Result<()> {
        let client = Client::new(&self.config).await?;
        let Some(all) = super::prepare::owners(&self.config, &client).await? else { return Ok(()) };
        let Some(held) = owner::of(&all, old) else { return Ok(()) };
        if owner::of(&all, owner).is_some_and(Held::has_written) {
            return Err(Error::permanent(format!(
                "`{}` knows both names, `{}/{}` and `{}/{}`: two sinks have written to it",
                self.config.owners, old.pipeline, old.sink, owner.pipeline, owner.sink
            )));
        }
        let (pipeline, sink) = (owner.pipeline.clone(), owner.sink.clone());
        let renamed = Held { pipeline, sink, epoch: held.epoch + 1, ..held.clone() };
        renamed.beat(&client, &self.config.owners).await?;
        settled(&self.config, &client, &renamed).await?;
        Held { spool: 0, ..held.clone() }.beat(&client, &self.config.owners).await
    }

    fn neighbours(&self) -> Vec<Neighbour> {
        self.neighbours.clone()
    }

    fn newest(&self) -> Option<SpoolPosition> {
        self.newest
    }

    fn guarantee(&self) -> Guarantee {
        if !self.is_exact {
            return Guarantee::AtLeastOnce;
        }
        let keys = self.time_columns.iter().cloned().chain(TG_COLUMNS.map(str::to_owned));
        Guarantee::DedupKeys(keys.collect())
    }
}

impl Session {
    async fn write(&mut self, chunk: &Chunk) -> Result<Written> {
        let refused = self.unfit(chunk);
        if !refused.is_empty() {
            return Ok(Written::Refused(refused));
        }
        if chunk.is_empty() && self.pending.is_empty() {
            if let Some(held) = &mut self.held {
                held.position = chunk.to;
            }
            self.beat_in_time(false).await?;
            return Ok(Written::Committed);
        }
        if !chunk.is_empty() {
            self.announce(chunk).await?;
        }
        let mut refused = Vec::new();
        for part in &chunk.tables {
            refused.extend(self.send(part).await?);
        }
        if !refused.is_empty() {
            // The others may be stored already, and are again with the next write: as one row each.
            return Ok(Written::Refused(refused));
        }
        for part in &chunk.tables {
            let target = &mut self.targets[part.table];
            if target.encoder.has_ttl() {
                target.latest = target.latest.max(target.encoder.latest(&target.encoder.columns(part)));
            }
        }
        self.pending.push(chunk.to, chunk.tables.iter().map(|part| part.table));
        Ok(Written::Accepted)
    }

    /// Returns the rows that can be seen to be unfit without asking.
    fn unfit(&self, chunk: &Chunk) -> Vec<Refusal> {
        let now = Timestamp::now();
        let of_part = |part: &TableRows| {
            let target = &self.targets[part.table];
            let unfit = target.encoder.unfit(&target.encoder.columns(part), target.latest, now);
            let refusal = |(row, why): (usize, String)| refusal(part, row, &why);
            unfit.into_iter().map(refusal).collect::<Vec<_>>()
        };
        chunk.tables.iter().flat_map(of_part).collect()
    }

    /// Sends the rows of one table, and returns those that QuestDB blames. Where it blames one, nothing of that request is
    /// stored; what follows is sent in small requests, so that a table full of such rows costs a request each and no more.
    async fn send(&mut self, part: &TableRows) -> Result<Vec<Refusal>> {
        let rows = part.rows.num_rows();
        let Self { client, targets, buffer, config, .. } = self;
        let encoder = &targets[part.table].encoder;
        let columns: Columns<'_> = encoder.columns(part);
        let (mut first, mut most, mut refused) = (0, usize::MAX, Vec::new());
        while first < rows && refused.len() < MOST_BLAMED {
            buffer.clear();
            let upto = first.saturating_add(most).min(rows);
            let behind = encoder.encode(&columns, first..upto, config.request_bytes.0, buffer)?;
            match client.post(buffer.as_bytes().to_vec()).await? {
                Posted::Taken => {
                    first = behind;
                    most = most.saturating_mul(2);
                }
                Posted::Blamed { line, why } if first + line < behind => {
                    refused.push(refusal(part, first + line, &why));
                    (first, most) = (first + line + 1, 1);
                }
                Posted::Blamed { line, why } => {
                    return Err(Error::transient(format!(
                        "QuestDB blames line {} of {}: {why}",
                        line + 1,
                        behind - first
                    )));
                }
            }
        }
        Ok(refused)
    }

    /// Notes the boot whose rows go out, before the first of them does.
    async fn announce(&mut self, chunk: &Chunk) -> Result<()> {
        let boot = chunk.to.boot.0;
        if let Some(held) = self.held.as_mut().filter(|held| held.writing != boot) {
            held.writing = boot;
            self.beat_in_time(true).await?;
        }
        Ok(())
    }

    async fn applied(&mut self) -> Result<Option<SpoolPosition>> {
        let states = self.states().await?;
        let applied = self.pending.settle(&states);
        if applied.is_some() {
            self.columns_are_there().await?;
        }
        if let (Some(applied), Some(held)) = (applied, &mut self.held) {
            held.position = applied;
            // What is up to date in a quiet feed costs a busy one no more than this.
            if self.pending.is_empty() || Instant::now() >= self.note_at {
                held.beat(&self.client, &self.config.owners).await?;
                self.note_at = Instant::now() + NOTE_EVERY;
            }
        }
        self.beat_in_time(false).await?;
        Ok(applied)
    }

    /// Asks for the state of each table, and checks that it is the one that was opened.
    async fn states(&mut self) -> Result<Vec<State>> {
        let names: Vec<&str> = self.targets.iter().map(|target| target.name.as_str()).collect();
        let standings = look::standings(&self.client, &names).await?;
        let mut states = Vec::with_capacity(self.targets.len());
        for target in &self.targets {
            let name = &target.name;
            // The next opening says what has become of it, and what a person can do.
            let another =
                || Error::transient(format!("table `{name}` is not the one that was opened: it is looked at again"));
            let same = look::find(&standings, name).filter(|standing| standing.state.id == target.id);
            let standing = same.ok_or_else(another)?;
            if let Some(statement) = target.dedup.as_ref().filter(|_| !standing.state.has_dedup) {
                return Err(lost_dedup(name, statement));
            }
            if standing.state.is_suspended {
                return Err(suspended(standing));
            }
            states.push(standing.state.clone());
        }
        Ok(states)
    }

    /// Checks that no column is gone. One that is dropped while rows are on their way takes their values along: those rows do
    /// not count, so this is asked behind what says that they do.
    async fn columns_are_there(&self) -> Result<()> {
        let names: Vec<&str> = self.targets.iter().map(|target| target.name.as_str()).collect();
        let columns = look::all_columns(&self.client, &names).await?;
        for target in &self.targets {
            let table = target.name.to_lowercase();
            let is_gone = |column: &&str| !columns.contains(&(table.clone(), column.to_lowercase()));
            if let Some(column) = target.encoder.sent().find(is_gone) {
                let name = &target.name;
                return Err(Error::transient(format!(
                    "column `{column}` of table `{name}` is gone: it is looked at again"
                )));
            }
        }
        Ok(())
    }

    /// Says that this one writes, if it still is the one.
    async fn beat_in_time(&mut self, at_once: bool) -> Result<()> {
        let Self { client, owner, held, beat_at, config, .. } = self;
        let Some(held) = held else { return Ok(()) };
        if !at_once && Instant::now() < *beat_at {
            return Ok(());
        }
        let all = owner::all(client, &config.owners).await?;
        match owner::of(&all, owner).and_then(|found| found.refuses(owner, Some(held.epoch))) {
            Some(error) if error.kind() == Kind::Permanent => return Err(error),
            Some(_) | None => {}
        }
        held.beat(client, &config.owners).await?;
        *beat_at = Instant::now() + BEAT_EVERY;
        Ok(())
    }
}

/// Waits until a row of the owners' table can be read.
async fn settled(config: &QuestDbConfig, client: &Client, held: &Held) -> Result<()> {
    for _ in 0..SETTLE_TRIES {
        let all = owner::all(client, &config.owners).await?;
        let is_there = |found: &&Held| found.pipeline == held.pipeline && found.sink == held.sink;
        if all.iter().find(is_there).is_some_and(|found| found.epoch == held.epoch && found.spool == held.spool) {
            return Ok(());
        }
        tokio::time::sleep(CLOSE_PAUSE).await;
    }
    Err(Error::transient(format!("table `{}` does not take what is written: is it suspended?", config.owners)))
}

fn refusal(part: &TableRows, row: usize, why: &str) -> Refusal {
    Refusal { cause: part.causes[row], table: part.table, error: Error::malformed(why) }
}

fn not_open() -> Error {
    Error::transient("QuestDB is not open")
}

/// So many rows are found at once; what comes after them is found in the next round.
const MOST_BLAMED: usize = 1_000;
const NOTE_EVERY: std::time::Duration = std::time::Duration::from_secs(1);
const CLOSE_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);
const SETTLE_TRIES: u32 = 500;
