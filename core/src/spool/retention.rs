//! Letting go of segments: those that nobody needs any more, and the oldest when the spool is full.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    Items, SpoolWriter,
    disk::{Disk, fault, remove_any},
    item::{Control, Item},
    reserve::Reserve,
    scan::{Found, Scanner},
    shared::{Segment, Shared},
};
use crate::{
    Result,
    rules::{Rule, holds},
};

/// How far a spool may be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// The lowest offset up to which every sink has done with the spool.
    ///
    /// Open gaps hold nothing back: each head's snapshot of continuity has them, with the records that tell a repeat from
    /// what is missing.
    pub offset: u64,
    /// Monotonic time since the boot.
    pub now: Duration,
}

/// Files to remove, on a thread that may block.
#[derive(Debug)]
#[must_use = "the files stay until it is run"]
pub struct Housekeeping {
    disk: Arc<dyn Disk>,
    reserve: Arc<Reserve>,
    leftovers: Arc<Leftovers>,
}

/// Files that are no longer part of the spool, in the order in which they went. One that cannot be removed is tried again
/// before later ones, so that what is left on the disk is always the end of the spool, but for what was dropped.
#[derive(Debug, Default)]
pub(super) struct Leftovers(Mutex<VecDeque<String>>);

impl Leftovers {
    pub(super) fn new(names: Vec<String>) -> Self {
        Self(Mutex::new(names.into()))
    }

    fn names(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn oldest(&self) -> Option<String> {
        self.names().front().cloned()
    }

    fn removed(&self, name: &str) {
        let mut names = self.names();
        if names.front().is_some_and(|oldest| oldest == name) {
            names.pop_front();
        }
    }
}

impl Housekeeping {
    /// Does it.
    ///
    /// # Errors
    ///
    /// When a file cannot be removed. The next job tries it again, and so does the next start.
    pub fn run(self) -> Result<()> {
        let disk = &*self.disk;
        while let Some(name) = self.leftovers.oldest() {
            let removed = remove_any(disk, &name).and_then(|()| disk.sync_dir());
            removed.map_err(|cause| fault("remove", disk, &name, cause))?;
            self.leftovers.removed(&name);
        }
        if let Err(error) = self.reserve.make(disk) {
            tracing::debug!(%error, "still no room for the spool's reserve");
        }
        Ok(())
    }
}

/// A segment of a spool that is full, on its way out.
#[derive(Debug, Clone)]
pub struct OldSegment {
    shared: Arc<Shared>,
    segment: Arc<Segment>,
    behind: Vec<(String, u64)>,
}

impl OldSegment {
    /// Returns the first and the last offset.
    pub fn offsets(&self) -> (u64, u64) {
        (self.segment.first, self.segment.end())
    }

    /// Returns what each sink does not get of it, if there is anything; reads the whole file, so it belongs on a thread that
    /// may block.
    ///
    /// # Errors
    ///
    /// `Transient` when the file cannot be read.
    pub fn losses(&self) -> Result<Vec<Loss>> {
        let (first, last) = self.offsets();
        let loss = |(sink, passed): &(String, u64)| Loss {
            sink: sink.clone(),
            offsets: (first.max(passed + 1), last),
            rows: BTreeMap::new(),
        };
        let mut losses: Vec<_> = self.behind.iter().map(loss).collect();
        let Shared { disk, sources, .. } = &*self.shared;
        if losses.is_empty() {
            return Ok(losses);
        }
        let Some(meta) = self.segment.meta(&**disk, sources)? else { return Ok(losses) };
        let failed = |cause| fault("read", &**disk, &self.segment.name, cause);
        let mut scanner = Scanner::new(self.segment.open(&**disk)?, meta.seed, meta.boot, meta.entries_at);
        scanner.read_around();
        loop {
            match scanner.next(self.segment.synced_len()).map_err(failed)? {
                Found::Entry(header) => {
                    for (offset, item) in Items::of(&header, scanner.entry()) {
                        for loss in losses.iter_mut().filter(|loss| (loss.offsets.0..=last).contains(&offset)) {
                            let row = match &item {
                                Item::Row(row, _) => Some(row),
                                Item::Control(Control::Redrive { sink, head, .. }) if *sink == loss.sink => Some(head),
                                Item::Control(_) => None,
                            };
                            if let Some(row) = row {
                                *loss.rows.entry(row.head.stream).or_default() += 1;
                            }
                        }
                    }
                }
                Found::Bad { .. } => {}
                Found::End => return Ok(losses),
            }
        }
    }
}

/// What one sink does not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The sink.
    pub sink: String,
    /// The first and the last offset.
    pub offsets: (u64, u64),
    /// Rows by stream.
    pub rows: BTreeMap<u32, u64>,
}

impl SpoolWriter {
    /// Lets go of the segments that lie below the floor and have for `keep`, or that take more than a tenth of
    /// `max_bytes`. Never one from which a restart or the reading of a later one begins.
    pub fn retain(&mut self, floor: Floor) -> Option<Housekeeping> {
        let passed = self.passed(floor);
        let mut kept: u64 = passed.iter().map(|segment| segment.len()).sum();
        let mut names = Vec::new();
        for segment in passed {
            let since = *segment.passed.get_or_init(|| floor.now);
            let young = floor.now.saturating_sub(since) < self.limits().keep;
            if young && kept <= self.limits().max_bytes / 10 {
                break;
            }
            kept -= segment.len();
            names.push(segment.name.clone());
        }
        self.let_go(names)
    }

    /// Takes out the oldest segment that the spool can do without and of which no sink has anything in hand. Then write down
    /// what that means, with [`Control::SegmentDropped`](super::Control::SegmentDropped) in the same entry, and
    /// [`remove`](Self::remove) the segment once that is durable, or [`put it back`](Self::put_back). A crash before the word
    /// is written finds the segment where it was; one behind it goes on without it.
    pub fn take_oldest(&mut self) -> Option<OldSegment> {
        let shared = self.shared().clone();
        let mut state = shared.write();
        let can_go =
            |segment: &&Arc<Segment>| self.is_dispensable(segment) && !shared.claims.hold(segment.first, segment.end());
        let segment = state.segments.iter().find(can_go)?.clone();
        let behind = shared.claims.behind(segment.end());
        state.take_out(&segment);
        drop(state);
        self.sealed_bytes -= segment.len();
        Some(OldSegment { shared, segment, behind })
    }

    /// Puts a segment back that was taken out.
    pub fn put_back(&mut self, old: &OldSegment) {
        self.shared().write().put_back(&old.segment);
        self.sealed_bytes += old.segment.len();
    }

    /// Returns the job that removes the file of a segment that was taken out, when that is written down and durable.
    pub fn remove(&mut self, old: &OldSegment) -> Housekeeping {
        let (first, last) = old.offsets();
        let mut state = self.shared().write();
        state.going = None;
        state.gone(first, last);
        drop(state);
        self.housekeeping(vec![old.segment.name.clone()])
    }

    /// Returns the segments that nobody needs, oldest first, and notes since when.
    fn passed(&self, floor: Floor) -> Vec<Arc<Segment>> {
        let state = self.shared().read();
        let passed = state.segments.iter().take_while(|segment| {
            segment.end() <= floor.offset.min(self.shared().synced()) && self.is_dispensable(segment)
        });
        let passed: Vec<_> = passed.cloned().collect();
        for segment in &passed {
            segment.passed.get_or_init(|| floor.now);
        }
        passed
    }

    /// A later segment, durable at least in its head, must hold all that a restart needs.
    fn is_dispensable(&self, segment: &Segment) -> bool {
        (segment.first < self.restart_at() || !holds(Rule::RestartPoint)) && segment.end() <= self.shared().synced()
    }

    /// Takes the oldest segments out of the spool, `names` in their order.
    fn let_go(&mut self, names: Vec<String>) -> Option<Housekeeping> {
        let nothing = names.is_empty() && self.leftovers.oldest().is_none() && self.reserve.is_there();
        if nothing {
            return None;
        }
        let mut state = self.shared().write();
        let gone: u64 = state.segments.drain(..names.len()).map(|segment| segment.len()).sum();
        state.forget_dropped();
        drop(state);
        self.sealed_bytes -= gone;
        Some(self.housekeeping(names))
    }

    fn housekeeping(&mut self, names: Vec<String>) -> Housekeeping {
        self.leftovers.names().extend(names);
        let (reserve, leftovers) = (self.reserve.clone(), self.leftovers.clone());
        Housekeeping { disk: self.disk().clone(), reserve, leftovers }
    }
}
