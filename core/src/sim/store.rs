//! A store that outlives the processes that write to it, and fails in every way a store can.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arrow_array::{cast::AsArray, types::UInt64Type};
use async_trait::async_trait;

use super::machine;
use crate::{
    Error, Result,
    chunk::{Chunk, Part},
    policy::Random,
    rules::{Rule, holds},
    sink::{Guarantee, Refusal, Sink, SinkContext, Written},
    spool::{Cause, SpoolPosition},
};

/// How a store commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Rows and position are one transaction.
    Transaction,
    /// It takes what it is given, and makes it durable some time later; an opening cuts it back to that.
    Lazy,
    /// Each table for itself, and a row of the same cause replaces the first one. Keeps no position.
    Keyed,
}

/// What a write meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It fails, and nothing happened, but for a store that commits each table for itself: some of them may be there.
    Before,
    /// It fails, and the store has committed.
    AnswerLost,
    /// It fails, and the transaction still runs.
    CommitsLater,
    /// It never ends, and nothing happened.
    Hangs,
    /// It never ends, and the store has committed.
    HangsCommitted,
}

/// A row, by what made it: the record of the venue.
pub(super) type Rows = Vec<(usize, Cause, u64)>;

/// The store.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) contents: Contents,
    /// What the next writes meet.
    pub(super) faults: VecDeque<Fault>,
    pub(super) is_down: bool,
    /// Records that it does not take.
    pub(super) refuses: BTreeSet<u64>,
    /// Those and others that it has not taken for a time.
    pub(super) has_refused: BTreeSet<u64>,
    /// Whether an opening waits for transactions of sessions that are gone.
    pub(super) waits: bool,
    /// Transactions of such sessions.
    running: Vec<Transaction>,
    /// Keyed: what the writer of today has had accepted.
    accepted: Option<SpoolPosition>,
    random: Random,
    slowest: u64,
    /// A rule of the store that was broken.
    pub(super) broken: Option<String>,
}

/// What a backup has.
#[derive(Debug, Clone, Default)]
pub(super) struct Contents {
    pub(super) rows: Rows,
    pub(super) position: Option<SpoolPosition>,
    /// Lazy: the position up to which all is durable.
    pub(super) applied: Option<SpoolPosition>,
    /// Keyed: the rows by table and cause.
    keyed: BTreeMap<(usize, Cause), u64>,
}

#[derive(Debug, Clone)]
struct Transaction {
    rows: Rows,
    from: SpoolPosition,
    to: SpoolPosition,
}

pub(super) type Shared = Arc<Mutex<Store>>;

impl Store {
    pub(super) fn new(name: &str, kind: Kind, waits: bool, seed: u64) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            contents: Contents::default(),
            faults: VecDeque::new(),
            is_down: false,
            refuses: BTreeSet::new(),
            has_refused: BTreeSet::new(),
            waits,
            running: Vec::new(),
            accepted: None,
            random: Random::new(seed),
            slowest: 20,
            broken: None,
        }
    }

    /// Returns every row that can be read, with its table and its cause.
    pub(super) fn rows(&self) -> Rows {
        match self.kind {
            Kind::Transaction | Kind::Lazy => self.contents.rows.clone(),
            Kind::Keyed => self.contents.keyed.iter().map(|((table, cause), row)| (*table, *cause, *row)).collect(),
        }
    }

    /// Returns up to where it has everything, as far as it knows.
    pub(super) fn durable(&self) -> Option<SpoolPosition> {
        match self.kind {
            Kind::Transaction => self.contents.position,
            Kind::Lazy => self.contents.applied,
            Kind::Keyed => None,
        }
    }

    /// From now on it does not take a record.
    pub(super) fn refuse(&mut self, record: u64) {
        self.refuses.insert(record);
        self.has_refused.insert(record);
    }

    /// A transaction of a session that is gone ends, one way or the other.
    pub(super) fn end_transaction(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let at = self.random.below(self.running.len() as u64) as usize;
        let transaction = self.running.swap_remove(at);
        if self.random.below(3) > 0 {
            self.commit(&transaction);
        }
    }

    /// Makes durable what a lazy store has taken.
    pub(super) fn apply(&mut self) {
        self.contents.applied = self.contents.position;
    }

    /// It was restored from a backup: whoever wrote to it is gone.
    pub(super) fn restore(&mut self, contents: Contents) {
        self.contents = contents;
        self.running.clear();
    }

    fn commit(&mut self, transaction: &Transaction) -> bool {
        let Transaction { rows, from, to } = transaction;
        if self.kind == Kind::Keyed {
            return self.upsert(rows, None);
        }
        if holds(Rule::Guard) && self.contents.position.unwrap_or(SpoolPosition::START) != *from {
            return false;
        }
        self.contents.rows.extend_from_slice(rows);
        self.contents.position = Some(*to);
        true
    }

    /// Writes the rows of all tables, or of one.
    fn upsert(&mut self, rows: &Rows, only: Option<usize>) -> bool {
        for (table, cause, row) in rows.iter().filter(|row| only.is_none_or(|only| only == row.0)) {
            let before = self.contents.keyed.insert((*table, *cause), *row);
            if before.is_some_and(|before| before != *row) {
                self.broken = Some(format!("{cause:?} was record {before:?} and is {row}"));
            }
        }
        true
    }

    fn open(&mut self) -> Result<Option<SpoolPosition>> {
        if self.is_down {
            return Err(Error::transient("the store is down"));
        }
        while self.waits && !self.running.is_empty() {
            self.end_transaction();
        }
        self.accepted = None;
        let Contents { rows, position, applied, .. } = &mut self.contents;
        if self.kind == Kind::Lazy {
            *position = *applied;
            rows.retain(|(_, cause, _)| applied.is_some_and(|applied| cause.offset <= applied.offset));
        }
        Ok(*position)
    }

    /// Carries out a write that meets a fault; `Err` also for what never ends.
    fn write(&mut self, chunk: &Chunk, fault: Option<Fault>) -> Result<Written> {
        let failed = || Err(Error::transient("the connection broke"));
        if self.is_down {
            return failed();
        }
        let refused = self.refusals(chunk);
        let transaction = Transaction { rows: rows_of(chunk), from: chunk.from, to: chunk.to };
        match fault {
            Some(Fault::Before | Fault::Hangs) => {
                if self.kind == Kind::Keyed && refused.is_empty() {
                    let only = transaction.rows.first().map(|row| row.0);
                    self.upsert(&transaction.rows, only);
                }
                return failed();
            }
            Some(Fault::CommitsLater) => {
                if refused.is_empty() && self.kind != Kind::Lazy {
                    self.running.push(transaction);
                }
                return failed();
            }
            None | Some(Fault::AnswerLost | Fault::HangsCommitted) => {}
        }
        if !refused.is_empty() {
            return Ok(Written::Refused(refused));
        }
        if !self.commit(&transaction) {
            return Err(Error::transient("the position is not where it was left"));
        }
        self.accepted = Some(chunk.to);
        if fault.is_some() {
            return failed();
        }
        Ok(if self.kind == Kind::Transaction { Written::Committed } else { Written::Accepted })
    }

    fn refusals(&self, chunk: &Chunk) -> Vec<Refusal> {
        if self.refuses.is_empty() {
            return Vec::new();
        }
        let refused = rows_of(chunk).into_iter().filter(|(_, _, record)| self.refuses.contains(record));
        refused.map(|(table, cause, _)| Refusal { cause, table, error: Error::malformed("out of range") }).collect()
    }

    /// Returns up to where it says that accepted writes are durable.
    fn applied(&mut self) -> Option<SpoolPosition> {
        if self.random.below(3) == 0 {
            self.apply();
        }
        match self.kind {
            Kind::Transaction => None,
            Kind::Lazy => self.contents.applied,
            Kind::Keyed => self.accepted,
        }
    }

    fn pause(&mut self) -> Duration {
        Duration::from_millis(self.random.below(self.slowest + 1))
    }
}

/// Returns the rows of a chunk in the order of the log.
fn rows_of(chunk: &Chunk) -> Rows {
    let mut rows = Vec::with_capacity(chunk.rows());
    for part in &chunk.tables {
        let records = part.rows.column_by_name("record").expect("every table has it").as_primitive::<UInt64Type>();
        rows.extend(part.causes.iter().zip(records.values()).map(|(cause, record)| (part.table, *cause, *record)));
    }
    rows.sort_unstable_by_key(|(_, cause, _)| cause.offset);
    rows
}

/// One session of the store.
pub(super) struct Session(pub(super) Shared);

impl Session {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pause(&self) {
        let pause = self.store().pause();
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        // A process that is dead and does not know it yet writes nothing more.
        if machine::has_died() {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Sink for Session {
    async fn open(&mut self, _: &SinkContext) -> Result<Vec<(Part, SpoolPosition)>> {
        self.pause().await;
        let position = self.store().open()?;
        Ok(position.map(|position| (Part::spool(), position)).into_iter().collect())
    }

    async fn write(&mut self, chunk: &Chunk) -> Result<Written> {
        self.pause().await;
        let fault = self.store().faults.pop_front();
        let written = self.store().write(chunk, fault);
        if matches!(fault, Some(Fault::Hangs | Fault::HangsCommitted)) {
            std::future::pending::<()>().await;
        }
        self.pause().await;
        written
    }

    async fn applied(&mut self) -> Result<Option<SpoolPosition>> {
        self.pause().await;
        let mut store = self.store();
        if store.is_down { Err(Error::transient("the store is down")) } else { Ok(store.applied()) }
    }

    async fn check(&mut self) -> Result<()> {
        if self.store().is_down { Err(Error::transient("the store is down")) } else { Ok(()) }
    }

    async fn close(&mut self) -> Result<()> {
        self.pause().await;
        let mut store = self.store();
        if store.is_down {
            return Err(Error::transient("the store is down"));
        }
        store.apply();
        Ok(())
    }

    fn guarantee(&self) -> Guarantee {
        match self.store().kind {
            Kind::Transaction => Guarantee::Transaction,
            Kind::Lazy => Guarantee::Truncation,
            Kind::Keyed => Guarantee::DedupKeys(Vec::new()),
        }
    }
}
