//! A store with transactions, in memory. It outlives the sinks that write to it, as a server does.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    Error, Result,
    chunk::{Chunk, Part},
    sink::{Claim, Guarantee, Neighbour, Owner, Refusal, Sink, SinkContext, UniqueKey, Weaker, Written},
    spool::{Cause, SpoolPosition},
};

/// What a call meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The call works.
    None,
    /// It fails, and nothing happened.
    Before,
    /// It fails, and the store has committed.
    AnswerLost,
    /// It fails, and the transaction still runs: it ends at the next opening, one way or the other.
    CommitsLater(bool),
    /// It never ends, and nothing happened.
    Hangs,
    /// It never ends, and the store has committed.
    HangsCommitted,
    /// It panics.
    Panics,
    /// It fails, and a person is needed.
    Permanent,
}

/// The store.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) rows: Vec<Cause>,
    pub(super) position: Option<SpoolPosition>,
    pub(super) opened: u32,
    pub(super) writes: u32,
    pub(super) checks: u32,
    pub(super) closed: u32,
    pub(super) chunks: Vec<(u64, u64, usize)>,
    /// What the next writes meet.
    pub(super) faults: VecDeque<Fault>,
    /// What the next openings meet.
    pub(super) open_faults: VecDeque<Fault>,
    /// Offsets whose rows it refuses for good.
    pub(super) refuses: BTreeSet<u64>,
    /// Accepts, and makes durable when the test says so.
    pub(super) is_lazy: bool,
    pub(super) applied: Option<SpoolPosition>,
    pub(super) fails_to_close: bool,
    pub(super) guarantee: Option<Guarantee>,
    pub(super) neighbours: Vec<Neighbour>,
    pub(super) weaker: Vec<Weaker>,
    pub(super) unique_keys: Vec<UniqueKey>,
    /// What the next probes meet.
    pub(super) check_faults: VecDeque<Fault>,
    /// Why it needs a person before it can be opened.
    pub(super) open_refusal: Option<String>,
    pub(super) claim: Option<Claim>,
    /// What the last opening was told of it.
    pub(super) known: Option<SpoolPosition>,
    pending: Option<(Vec<Cause>, SpoolPosition, SpoolPosition, bool)>,
}

pub(super) type SharedStore = Arc<Mutex<Store>>;

/// One sink of the store.
pub(super) struct Memory(pub(super) SharedStore);

impl Store {
    fn apply(&mut self, rows: &[Cause], from: SpoolPosition, to: SpoolPosition) -> bool {
        if self.position.unwrap_or(SpoolPosition::START) != from {
            return false;
        }
        self.rows.extend_from_slice(rows);
        self.position = Some(to);
        true
    }

    /// Ends the transaction of a session that is gone: an opening waits for its lock.
    pub(super) fn settle(&mut self) {
        if let Some((rows, from, to, commits)) = self.pending.take()
            && commits
        {
            self.apply(&rows, from, to);
        }
    }

    /// Opens; the position is the truth.
    pub(super) fn open(&mut self) -> Result<Option<SpoolPosition>> {
        self.opened += 1;
        if self.open_faults.pop_front().is_some() {
            return Err(Error::transient("the store is down"));
        }
        if let Some(why) = &self.open_refusal {
            return Err(Error::permanent(why.clone()));
        }
        self.settle();
        if self.is_lazy {
            // What was accepted and not applied is gone.
            self.position = self.applied;
            self.rows.retain(|cause| self.applied.is_some_and(|applied| cause.offset <= applied.offset));
        }
        Ok(self.position)
    }

    /// Writes, and meets the next fault. `Hangs` of any kind is an error here.
    pub(super) fn write(&mut self, chunk: &Chunk, fault: Fault) -> Result<Written> {
        self.writes += 1;
        let mut rows: Vec<Cause> = chunk.tables.iter().flat_map(|part| part.causes.iter().copied()).collect();
        rows.sort_unstable();
        let failed = || Err(Error::transient("the connection broke"));
        match fault {
            Fault::Before | Fault::Hangs | Fault::Panics => return failed(),
            Fault::Permanent => return Err(Error::permanent("the password was revoked")),
            Fault::CommitsLater(commits) => {
                let commits = commits && self.refusals(chunk).is_empty();
                self.pending = Some((rows, chunk.from, chunk.to, commits));
                return failed();
            }
            Fault::None | Fault::AnswerLost | Fault::HangsCommitted => {}
        }
        let refused: Vec<Refusal> = self.refusals(chunk);
        if !refused.is_empty() {
            return Ok(Written::Refused(refused));
        }
        if !self.apply(&rows, chunk.from, chunk.to) {
            return Err(Error::transient("the position is not where it was left"));
        }
        self.chunks.push((chunk.from.offset, chunk.to.offset, rows.len()));
        if fault != Fault::None {
            return failed();
        }
        Ok(if self.is_lazy { Written::Accepted } else { Written::Committed })
    }

    fn refusals(&self, chunk: &Chunk) -> Vec<Refusal> {
        let mut refused = Vec::new();
        for part in &chunk.tables {
            for cause in part.causes.iter().filter(|cause| self.refuses.contains(&cause.offset)) {
                refused.push(Refusal { cause: *cause, table: part.table, error: Error::malformed("out of range") });
            }
        }
        refused
    }
}

impl Memory {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[async_trait]
impl Sink for Memory {
    async fn open(&mut self, cx: &SinkContext) -> Result<Vec<(Part, SpoolPosition)>> {
        self.store().known = cx.known;
        let position = self.store().open()?;
        Ok(position.map(|position| (Part::spool(), position)).into_iter().collect())
    }

    async fn write(&mut self, chunk: &Chunk) -> Result<Written> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let fault = self.store().faults.pop_front().unwrap_or(Fault::None);
        if fault == Fault::Panics {
            panic!("a fault of the sink");
        }
        if fault == Fault::Hangs {
            std::future::pending::<()>().await;
        }
        let written = self.store().write(chunk, fault);
        if fault == Fault::HangsCommitted {
            std::future::pending::<()>().await;
        }
        written
    }

    async fn applied(&mut self) -> Result<Option<SpoolPosition>> {
        Ok(self.store().applied)
    }

    async fn check(&mut self) -> Result<()> {
        self.store().checks += 1;
        let fault = self.store().check_faults.pop_front();
        match fault {
            Some(Fault::Hangs) => std::future::pending().await,
            Some(_) => Err(Error::transient("the store is down")),
            None => Ok(()),
        }
    }

    async fn close(&mut self) -> Result<()> {
        let mut store = self.store();
        store.closed += 1;
        if store.fails_to_close {
            return Err(Error::transient("the disk is full"));
        }
        if store.is_lazy {
            store.applied = store.position;
        }
        Ok(())
    }

    async fn claim(&mut self, _: &Owner) -> Result<Option<Claim>> {
        Ok(self.0.lock().unwrap().claim.clone())
    }

    fn neighbours(&self) -> Vec<Neighbour> {
        self.store().neighbours.clone()
    }

    fn weaker(&self) -> Vec<Weaker> {
        self.store().weaker.clone()
    }

    fn unique_keys(&self) -> Vec<UniqueKey> {
        self.store().unique_keys.clone()
    }

    fn guarantee(&self) -> Guarantee {
        self.store().guarantee.clone().unwrap_or(Guarantee::Transaction)
    }
}
