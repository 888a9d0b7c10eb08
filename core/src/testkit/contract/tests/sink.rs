//! A sink of that store, right in four kinds, and wrong in one way at a time.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    super::{StoredRow, columns, rows_of},
    how::{How, Portion, Session},
    look::Look,
    server::{Client, Connector, Disk, Held},
};
use crate::{
    Error, Result,
    chunk::{Chunk, Part, SinkTable},
    config::OnConflict,
    sink::{Claim, Guarantee, Owner, Refusal, Sink, SinkContext, Written},
    spool::{Boot, SpoolPosition},
    verify::Audit,
};

/// How it keeps its promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Rows and position in one transaction.
    Transaction,
    /// The same, later.
    Accepting,
    /// One row for each cause, no position.
    Keyed,
    /// Nothing of that.
    AtLeastOnce,
}

/// What it does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    InventsAPosition,
    BeginsAnew,
    CutsTheBoot,
    LosesOneInSeven,
    DoesNotGuard,
    HasNoKeys,
    GuardsTheOffsetOnly,
    MissedGuardIsPermanent,
    SkipsEmptyChunks,
    CutsHugeChunks,
    AppliesTooSoon,
    NeverApplies,
    ClosesWithoutAWord,
    ClampsUnsigned,
    DropsTheSignOfZero,
    EmptyIsAbsent,
    CutsTimes,
    NanIsAbsent,
    RefusesLongTexts,
    RefusesTheFirstOnly,
    WritesBesideRefusals,
    FailsOverARow,
    RefusesInOneTable,
    DoesNotQuote,
    PositionApart,
    OpensInTwoSteps,
    RepeatsByItself,
    IsImpatient,
    SilenceIsPermanent,
    ChecksNothing,
    ForgetsAtRestart,
    MakesTablesAnew,
    LeavesColumnsOut,
    HasNoEpoch,
    TakesBack,
    AsksForNoSpool,
    ReachTakesOver,
    CountsOneLess,
    AdoptsTwice,
    RenamesTwice,
    ReplaceAppends,
}

pub(super) struct MemorySink {
    connector: Connector,
    how: How,
    client: Option<Client>,
    session: Option<Session>,
    /// What tells it from others; and whether it has begun to open.
    me: u64,
    has_begun: bool,
    /// What was accepted and is not written.
    accepted: Vec<Portion>,
    /// How often it was asked for that.
    asked: u32,
}

impl MemorySink {
    pub(super) fn new(connector: Connector, kind: Kind, flaw: Option<Flaw>) -> Self {
        let how = How { kind, flaw };
        let me = connector.number();
        Self { connector, how, client: None, session: None, me, has_begun: false, accepted: Vec::new(), asked: 0 }
    }

    async fn ask<T: Send + 'static>(
        &mut self,
        bytes: usize,
        what: impl FnOnce(&mut Disk) -> T + Send + 'static,
    ) -> Result<T> {
        let how = self.how;
        let Some(client) = &mut self.client else { return Err(Error::transient("the sink is not open")) };
        let asked = client.ask(bytes, what);
        let patience = match how.flaw {
            Some(Flaw::IsImpatient) => Duration::from_millis(5),
            Some(Flaw::SilenceIsPermanent) => Duration::from_millis(100),
            _ => return asked.await,
        };
        tokio::time::timeout(patience, asked).await.unwrap_or_else(|_| {
            let text = "the store does not answer";
            Err(if how.is(Flaw::IsImpatient) { Error::transient(text) } else { Error::permanent(text) })
        })
    }

    async fn commit(&mut self, portion: Portion) -> Result<()> {
        let Some(session) = self.session.clone() else { return Err(Error::transient("the sink is not open")) };
        let (how, bytes) = (self.how, portion.rows.len() * 50);
        if how.is(Flaw::PositionApart) {
            let (rows, apart) = (portion.clone(), session.clone());
            self.ask(bytes, move |disk| how.insert(disk, &apart, &rows)).await??;
            return self.ask(0, move |disk| how.advance(disk, &session, &portion)).await?;
        }
        if matches!(how.kind, Kind::Keyed | Kind::AtLeastOnce) {
            for table in 0..session.tables.len() {
                let mut part = portion.clone();
                part.rows.retain(|(of, _, _)| *of == table);
                let session = session.clone();
                self.ask(bytes, move |disk| how.insert(disk, &session, &part)).await??;
            }
            return Ok(());
        }
        let (again, session_again) = (portion.clone(), session.clone());
        let asked = self.ask(bytes, move |disk| how.transact(disk, &session, &portion)).await;
        match asked {
            Err(_) if how.is(Flaw::RepeatsByItself) => {
                self.client = Some(self.connector.connect().await?);
                self.ask(bytes, move |disk| {
                    how.insert(disk, &session_again, &again)?;
                    how.place(disk, &session_again, &again);
                    Ok(())
                })
                .await?
            }
            asked => asked?,
        }
    }

    fn refusals(&self, chunk: &Chunk) -> Vec<Refusal> {
        let Some(session) = &self.session else { return Vec::new() };
        let mut refused = Vec::new();
        for part in &chunk.tables {
            let columns = columns(&session.tables[part.table]);
            for (row, cause) in rows_of(&part.rows).iter().zip(&part.causes) {
                let unfit = columns.iter().find(|column| self.how.refuses(column, row.get(&*column.name)));
                if let Some(column) = unfit {
                    let error = Error::malformed(format!("column `{}` does not take it", column.name));
                    refused.push(Refusal { cause: *cause, table: part.table, error });
                }
            }
        }
        if self.how.is(Flaw::RefusesTheFirstOnly) {
            refused.truncate(1);
        }
        if self.how.is(Flaw::RefusesInOneTable) {
            refused.retain(|refusal| refusal.table == 0);
        }
        refused
    }
}

#[async_trait]
impl Sink for MemorySink {
    async fn open(&mut self, cx: &SinkContext) -> Result<Vec<(Part, SpoolPosition)>> {
        (self.client, self.session) = (None, None);
        self.accepted.clear();
        if let Some(table) = cx.tables.iter().find(|table| table.name.contains(';')) {
            return Err(Error::config(format!("no table can be called `{}`", table.name)));
        }
        self.client = Some(self.connector.connect().await?);
        let (how, me, context) = (self.how, self.me, cx.clone());
        let has_begun = std::mem::replace(&mut self.has_begun, true);
        let taken = self.ask(0, move |disk| {
            let taken = how.take(disk, &context, me, has_begun);
            let key = (context.owner.pipeline, context.owner.sink);
            if let Some(held) = disk.positions.get_mut(&key).filter(|_| how.is(Flaw::OpensInTwoSteps)) {
                held.at = SpoolPosition::START;
            }
            taken
        });
        let Some((by, at)) = taken.await?? else { return Ok(Vec::new()) };
        if how.is(Flaw::OpensInTwoSteps) {
            let key = (cx.owner.pipeline.clone(), cx.owner.sink.clone());
            self.ask(0, move |disk| disk.positions.get_mut(&key).into_iter().for_each(|held| held.at = at)).await?;
        }
        self.session = Some(Session { owner: cx.owner.clone(), tables: cx.tables.clone(), by, at });
        if !how.keeps_position() || at == SpoolPosition::START && !how.is(Flaw::InventsAPosition) {
            return Ok(Vec::new());
        }
        Ok(vec![(Part::spool(), at)])
    }

    async fn write(&mut self, chunk: &Chunk) -> Result<Written> {
        let how = self.how;
        let Some(session) = &mut self.session else { return Err(Error::transient("the sink is not open")) };
        if how.kind == Kind::Accepting && session.at != chunk.from {
            return Err(Error::transient("the position is not where it was left"));
        }
        if how.is(Flaw::SkipsEmptyChunks) && chunk.is_empty() {
            return Ok(Written::Committed);
        }
        let mut rows = Vec::new();
        for part in &chunk.tables {
            let of = rows_of(&part.rows).into_iter().zip(&part.causes);
            rows.extend(of.map(|(row, cause)| (part.table, *cause, row)));
        }
        let mut portion = Portion { rows, from: chunk.from, to: chunk.to };
        let mut refused = self.refusals(chunk);
        refused.extend(self.in_the_way(&portion).await?);
        if !refused.is_empty() {
            if how.is(Flaw::FailsOverARow) {
                return Err(Error::permanent("a row is out of range"));
            }
            if how.is(Flaw::WritesBesideRefusals) {
                portion.rows.retain(|(_, cause, _)| !refused.iter().any(|refusal| refusal.cause == *cause));
                self.commit(portion).await?;
            }
            return Ok(Written::Refused(refused));
        }
        if let (Kind::Accepting, Some(session)) = (how.kind, &mut self.session) {
            session.at = chunk.to;
            self.accepted.push(portion);
            return Ok(Written::Accepted);
        }
        self.commit(portion).await?;
        if let Some(session) = &mut self.session {
            session.at = chunk.to;
        }
        Ok(if how.kind == Kind::Keyed { Written::Accepted } else { Written::Committed })
    }

    async fn applied(&mut self) -> Result<Option<SpoolPosition>> {
        self.asked += 1;
        if self.how.is(Flaw::NeverApplies) {
            return Ok(None);
        }
        if self.asked.is_multiple_of(2) && !self.how.is(Flaw::AppliesTooSoon) {
            while let Some(portion) = self.accepted.first().cloned() {
                self.commit(portion).await?;
                self.accepted.remove(0);
            }
        }
        let waits = self.accepted.first().map(|portion| portion.from).filter(|_| !self.how.is(Flaw::AppliesTooSoon));
        Ok(waits.or_else(|| self.session.as_ref().map(|session| session.at)))
    }

    async fn check(&mut self) -> Result<()> {
        if self.how.is(Flaw::ChecksNothing) {
            return Ok(());
        }
        let Some(session) = self.session.clone() else { return Err(Error::transient("the sink is not open")) };
        let how = self.how;
        let is_ours = self.ask(0, move |disk| {
            let held = disk.positions.get(&(session.owner.pipeline, session.owner.sink));
            !how.keeps_position() || held.is_some_and(|held| held.by == session.by)
        });
        if is_ours.await? { Ok(()) } else { Err(Error::transient("somebody else has taken over")) }
    }

    async fn reach(&mut self, _: &[SinkTable]) -> Result<String> {
        self.client = Some(self.connector.connect().await?);
        let how = self.how;
        self.ask(0, move |disk| {
            if how.is(Flaw::ReachTakesOver) {
                let at = SpoolPosition { boot: Boot(1), offset: 1 };
                let held =
                    Held { spool: 0xf123_4567_89ab_cdef, host: "here".to_owned(), by: (0, 1), at, tables: [].into() };
                disk.positions.entry(("test".to_owned(), "sink".to_owned())).or_insert(held);
            }
            format!("a store with {} tables", disk.tables.len())
        })
        .await
    }

    async fn audit(&mut self, cx: &SinkContext) -> Result<Option<Box<dyn Audit>>> {
        self.client = Some(self.connector.connect().await?);
        let disk = self.ask(0, |disk| disk.clone()).await?;
        Ok(Some(Box::new(Look { disk, owner: cx.owner.clone(), how: self.how })))
    }

    async fn close(&mut self) -> Result<()> {
        if !self.how.is(Flaw::ClosesWithoutAWord) {
            for portion in std::mem::take(&mut self.accepted) {
                self.commit(portion).await?;
            }
        }
        (self.client, self.session) = (None, None);
        Ok(())
    }

    fn guarantee(&self) -> Guarantee {
        match self.how.kind {
            Kind::Transaction | Kind::Accepting => Guarantee::Transaction,
            Kind::Keyed => Guarantee::DedupKeys(vec!["cause".to_owned()]),
            Kind::AtLeastOnce => Guarantee::AtLeastOnce,
        }
    }

    async fn claim(&mut self, owner: &Owner) -> Result<Option<Claim>> {
        self.client = Some(self.connector.connect().await?);
        let key = (owner.pipeline.clone(), owner.sink.clone());
        let held = self.ask(0, move |disk| disk.positions.get(&key).cloned()).await?;
        Ok(held.map(|Held { spool, host, at, .. }| Claim { position: at, spool, host, gone: Vec::new() }))
    }

    async fn adopt(&mut self, owner: &Owner, at: SpoolPosition) -> Result<()> {
        self.client = Some(self.connector.connect().await?);
        let (owner, how) = (owner.clone(), self.how);
        self.ask(0, move |disk| {
            let key = (owner.pipeline, owner.sink);
            let held = disk.positions.get(&key).cloned();
            let twice = u64::from(how.is(Flaw::AdoptsTwice) && held.as_ref().is_some_and(|held| held.at == at));
            let at = SpoolPosition { offset: at.offset + twice, ..at };
            let (taken, tables) = held.map_or_else(Default::default, |held| (held.by.1 + 1, held.tables));
            disk.positions.insert(key, Held { spool: owner.spool, host: owner.host, by: (0, taken), at, tables });
        })
        .await
    }

    async fn rename(&mut self, old: &Owner, owner: &Owner) -> Result<()> {
        self.client = Some(self.connector.connect().await?);
        let keys = [old, owner].map(|owner| (owner.pipeline.clone(), owner.sink.clone()));
        let how = self.how;
        self.ask(0, move |disk| {
            let [old, new] = keys;
            match disk.positions.remove(&old) {
                Some(held) => drop(disk.positions.insert(new, held)),
                None if how.is(Flaw::RenamesTwice) => drop(disk.positions.remove(&new)),
                None => {}
            }
        })
        .await
    }
}

impl MemorySink {
    /// Returns the rows whose keys are there, where they are to be refused.
    async fn in_the_way(&mut self, portion: &Portion) -> Result<Vec<Refusal>> {
        let Some(session) = self.session.clone() else { return Ok(Vec::new()) };
        if !session.tables.iter().any(|table| table.on_conflict == OnConflict::Refuse) {
            return Ok(Vec::new());
        }
        let (how, portion) = (self.how, portion.clone());
        self.ask(0, move |disk| {
            let key = |table: &SinkTable, row: &StoredRow| {
                let values: Vec<_> = table.key.iter().map(|column| format!("{:?}", row.get(column))).collect();
                (table.name.clone(), values)
            };
            let mut seen = Vec::new();
            for table in session.tables.iter().filter(|table| table.on_conflict == OnConflict::Refuse) {
                let there = disk.tables.get(&how.name(table)).map(|rows| rows.rows.as_slice()).unwrap_or_default();
                seen.extend(there.iter().map(|(_, row)| key(table, row)));
            }
            let mut refused = Vec::new();
            for (number, cause, row) in portion.rows {
                let table = &session.tables[number];
                let key = key(table, &row);
                if table.on_conflict == OnConflict::Refuse && seen.contains(&key) {
                    let error = Error::malformed("a row with the same key is there");
                    refused.push(Refusal { cause, table: number, error });
                } else {
                    seen.push(key);
                }
            }
            refused
        })
        .await
    }
}
