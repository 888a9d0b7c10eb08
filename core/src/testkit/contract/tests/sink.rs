//! A sink of that store, right in four kinds, and wrong in one way at a time.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;

use super::{
    super::{
        StoredRow,
        stored::{columns, rows_of},
    },
    server::{Client, Connector, Disk, Held, Rows},
};
use crate::{
    Error, Result,
    chunk::{Chunk, Part, SinkTable},
    config::OnConflict,
    row::{Column, Timestamp, Value},
    sink::{Claim, Guarantee, Neighbour, Owner, Refusal, Sink, SinkContext, Written},
    spool::{Boot, Cause, SpoolPosition},
    verify::{Audit, Doubled, RowId, Stream, Sum},
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

#[derive(Debug, Clone, Copy)]
struct How {
    kind: Kind,
    flaw: Option<Flaw>,
}

#[derive(Debug, Clone)]
struct Session {
    owner: Owner,
    tables: Vec<SinkTable>,
    by: (u64, u64),
    /// Where the next chunk has to begin.
    at: SpoolPosition,
}

/// Who has taken a position, and where it is.
type Taken = ((u64, u64), SpoolPosition);

/// A chunk as the store takes it.
#[derive(Debug, Clone)]
struct Portion {
    rows: Vec<(usize, Cause, StoredRow)>,
    from: SpoolPosition,
    to: SpoolPosition,
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

/// Returns whether the store takes no such value: no NUL in texts, no number that is none.
pub(super) fn refuses(value: Option<&Value>) -> bool {
    match value {
        Some(Value::F64(number)) => number.is_nan(),
        Some(Value::Text(text)) => text.contains('\0'),
        Some(Value::Bool(_) | Value::I64(_) | Value::U64(_) | Value::Time(_) | Value::Levels(_) | Value::List(_))
        | None => false,
    }
}

impl How {
    fn is(self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn keeps_position(self) -> bool {
        matches!(self.kind, Kind::Transaction | Kind::Accepting)
    }

    fn refuses(self, column: &Column, value: Option<&Value>) -> bool {
        let is_long = matches!(value, Some(Value::Text(text)) if text.len() > 100_000);
        if self.is(Flaw::NanIsAbsent) && &*column.name == "number" {
            return false;
        }
        refuses(value) || is_long && self.is(Flaw::RefusesLongTexts)
    }

    fn name(self, table: &SinkTable) -> String {
        let end = table.name.find([' ', '\'', '"']).filter(|_| self.is(Flaw::DoesNotQuote));
        table.name[..end.unwrap_or(table.name.len())].to_owned()
    }

    /// Takes ownership; none where a position is known and there is none.
    fn take(self, disk: &mut Disk, cx: &SinkContext, me: u64, has_begun: bool) -> Result<Option<Taken>> {
        let key = (cx.owner.pipeline.clone(), cx.owner.sink.clone());
        let held = disk.positions.get(&key).cloned();
        if let Some(held) = &held {
            if held.spool != cx.owner.spool && !self.is(Flaw::AsksForNoSpool) {
                return Err(Error::permanent("the position belongs to another spool"));
            }
            if has_begun && held.by.0 != me && !self.is(Flaw::TakesBack) {
                return Err(Error::permanent("another program has taken over"));
            }
        }
        let at = held.as_ref().map_or(SpoolPosition::START, |held| held.at);
        let is_known = cx.known.is_some();
        if self.keeps_position() && is_known && at == SpoolPosition::START && !self.is(Flaw::BeginsAnew) {
            return Ok(None);
        }
        for table in &cx.tables {
            let name = self.name(table);
            if is_known
                && !disk.tables.contains_key(&name)
                && !self.is(Flaw::MakesTablesAnew)
                && !self.is(Flaw::BeginsAnew)
            {
                return Err(Error::permanent(format!("table `{name}` is gone")));
            }
            let made = disk.tables.entry(name).or_default();
            if made.columns.is_empty() || !self.is(Flaw::LeavesColumnsOut) {
                made.columns.extend(columns(table).iter().map(|column| column.name.to_string()));
            }
        }
        let by = (me, held.as_ref().map_or(0, |held| held.by.1) + 1);
        if self.keeps_position() {
            let (spool, host) = (cx.owner.spool, cx.owner.host.clone());
            let tables = cx.tables.iter().map(|table| table.name.clone()).collect();
            let at =
                if self.is(Flaw::BeginsAnew) && is_known { SpoolPosition { boot: Boot(1), offset: 1 } } else { at };
            disk.positions.insert(key, Held { spool, host, by, at, tables });
        }
        Ok(Some((by, at)))
    }

    fn transact(self, disk: &mut Disk, session: &Session, portion: &Portion) -> Result<()> {
        self.guard(disk, session, portion)?;
        self.insert(disk, session, portion)?;
        self.place(disk, session, portion);
        Ok(())
    }

    fn advance(self, disk: &mut Disk, session: &Session, portion: &Portion) -> Result<()> {
        self.guard(disk, session, portion)?;
        self.place(disk, session, portion);
        Ok(())
    }

    fn guard(self, disk: &Disk, session: &Session, portion: &Portion) -> Result<()> {
        let held = disk.positions.get(&(session.owner.pipeline.clone(), session.owner.sink.clone()));
        let Some(held) = held else { return Err(Error::transient("there is no position")) };
        let stands = held.at == portion.from
            || self.is(Flaw::GuardsTheOffsetOnly) && held.at.offset == portion.from.offset
            || self.is(Flaw::CutsTheBoot);
        let is_ours = held.by == session.by || self.is(Flaw::HasNoEpoch);
        if stands && is_ours || self.is(Flaw::DoesNotGuard) {
            return Ok(());
        }
        let text = "the position is not where it was left";
        Err(if self.is(Flaw::MissedGuardIsPermanent) { Error::permanent(text) } else { Error::transient(text) })
    }

    fn place(self, disk: &mut Disk, session: &Session, portion: &Portion) {
        let key = (session.owner.pipeline.clone(), session.owner.sink.clone());
        let Some(held) = disk.positions.get_mut(&key) else { return };
        held.at = portion.to;
        if self.is(Flaw::CutsTheBoot) {
            held.at.boot.0 &= u64::from(u32::MAX);
        }
    }

    /// Inserts all rows, or none.
    fn insert(self, disk: &mut Disk, session: &Session, portion: &Portion) -> Result<()> {
        let mut tables: BTreeMap<String, Rows> = BTreeMap::new();
        for (n, (number, cause, row)) in portion.rows.iter().enumerate() {
            if self.is(Flaw::LosesOneInSeven) && n % 7 == 6 || self.is(Flaw::CutsHugeChunks) && n > 1_000 {
                continue;
            }
            let (table, name) = (&session.tables[*number], self.name(&session.tables[*number]));
            if !tables.contains_key(&name) {
                let there = disk.tables.get(&name).cloned();
                let made = self.is(Flaw::MakesTablesAnew).then(Rows::default);
                let Some(there) = there.or(made) else {
                    return Err(Error::permanent(format!("table `{name}` is gone")));
                };
                tables.insert(name.clone(), there);
            }
            let Some(rows) = tables.get_mut(&name) else { continue };
            let mut row: StoredRow =
                row.clone().into_iter().filter_map(|(name, value)| self.kept(name, value)).collect();
            let lacking = row.keys().find(|name| !rows.columns.is_empty() && !rows.columns.contains(*name)).cloned();
            match lacking {
                Some(_) if self.is(Flaw::LeavesColumnsOut) => row.retain(|name, _| rows.columns.contains(name)),
                Some(name) => return Err(Error::transient(format!("no column `{name}`"))),
                None => {}
            }
            self.put(rows, table, *cause, row);
        }
        disk.tables.extend(tables);
        Ok(())
    }

    fn put(self, rows: &mut Rows, table: &SinkTable, cause: Cause, row: StoredRow) {
        let same = if self.kind == Kind::Keyed && !self.is(Flaw::HasNoKeys) {
            rows.rows.iter().position(|(known, _)| *known == cause)
        } else if table.key.is_empty() || self.is(Flaw::ReplaceAppends) {
            None
        } else {
            rows.rows.iter().position(|(_, known)| table.key.iter().all(|column| known.get(column) == row.get(column)))
        };
        match same {
            Some(_) if table.on_conflict == OnConflict::Ignore => {}
            Some(at) => rows.rows[at] = (cause, row),
            None => rows.rows.push((cause, row)),
        }
    }

    fn kept(self, name: String, value: Value) -> Option<(String, Value)> {
        let value = match (self.flaw, value) {
            (Some(Flaw::ClampsUnsigned), Value::U64(n)) => Value::U64(n.min(i64::MAX as u64)),
            (Some(Flaw::DropsTheSignOfZero), Value::F64(0.0)) => Value::F64(0.0),
            (Some(Flaw::NanIsAbsent), Value::F64(n)) if n.is_nan() => return None,
            (Some(Flaw::EmptyIsAbsent), Value::Text(text)) if text.is_empty() => return None,
            (Some(Flaw::CutsTimes), Value::Time(Timestamp(n))) => Value::Time(Timestamp(n / 1_000 * 1_000)),
            (_, value) => value,
        };
        Some((name, value))
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

/// What the store held when it was asked.
struct Look {
    disk: Disk,
    owner: Owner,
    how: How,
}

impl Look {
    fn of(&self, table: &SinkTable) -> Vec<(Stream, RowId)> {
        let rows = self.disk.tables.get(&table.name).map(|rows| rows.rows.as_slice()).unwrap_or_default();
        let text = |row: &StoredRow, name: &str| match row.get(name) {
            Some(Value::Text(text)) => text.clone(),
            _ => String::new(),
        };
        let time = |row: &StoredRow, name: &str| match row.get(name) {
            Some(Value::Time(time)) => *time,
            _ => Timestamp(0),
        };
        let seq = |row: &StoredRow| match row.get("seq") {
            Some(Value::U64(seq)) => Some(*seq),
            _ => None,
        };
        let id = |row| RowId { seq: seq(row), ts_event: time(row, "ts_event"), ts_recv: time(row, "ts_recv") };
        let stream = |row| Stream { venue: text(row, "venue"), symbol: text(row, "symbol") };
        rows.iter().map(|(_, row)| (stream(row), id(row))).collect()
    }
}

#[async_trait]
impl Audit for Look {
    async fn position(&mut self) -> Result<Option<(u64, SpoolPosition)>> {
        let held = self.disk.positions.get(&(self.owner.pipeline.clone(), self.owner.sink.clone()));
        Ok(held.filter(|held| held.at != SpoolPosition::START).map(|held| (held.spool, held.at)))
    }

    async fn neighbours(&mut self, _: &[SinkTable]) -> Result<Vec<Neighbour>> {
        Ok(Vec::new())
    }

    async fn sums(&mut self, table: &SinkTable, since: Timestamp) -> Result<Option<Vec<Sum>>> {
        if !self.disk.tables.contains_key(&table.name) {
            return Ok(None);
        }
        let mut sums: BTreeMap<Stream, Sum> = BTreeMap::new();
        for (stream, row) in self.of(table).into_iter().filter(|(_, row)| row.ts_recv >= since) {
            let sum = sums.entry(stream.clone()).or_insert(Sum { stream, rows: 0, redriven: 0, marks: 0 });
            sum.rows += 1;
            sum.marks += row.mark();
        }
        let less = u64::from(self.how.is(Flaw::CountsOneLess));
        Ok(Some(sums.into_values().map(|sum| Sum { rows: sum.rows - less, ..sum }).collect()))
    }

    async fn rows(&mut self, table: &SinkTable, stream: &Stream, since: Timestamp) -> Result<Vec<RowId>> {
        let all = self.of(table).into_iter();
        Ok(all.filter(|(of, row)| of == stream && row.ts_recv >= since).map(|(_, row)| row).collect())
    }

    async fn doubled(&mut self, _: &SinkTable, _: Timestamp) -> Result<Vec<Doubled>> {
        Ok(Vec::new())
    }
}
