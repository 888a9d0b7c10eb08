//! Letting go of segments: those that nobody needs any more, and the oldest when the spool is full.

use std::{
    collections::VecDeque,
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

/// Files that are no longer part of the spool, oldest first. One that cannot be removed is tried again before younger ones,
/// so that what is left on the disk is always the end of the spool, without a hole.
#[derive(Debug, Default)]
pub(super) struct Leftovers(Mutex<VecDeque<String>>);

impl Leftovers {
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

/// The oldest segment of a spool that is full.
#[derive(Debug, Clone)]
pub struct OldSegment {
    shared: Arc<Shared>,
    segment: Arc<Segment>,
}

impl OldSegment {
    /// Returns the first and the last offset.
    pub fn offsets(&self) -> (u64, u64) {
        (self.segment.first, self.segment.end())
    }

    /// Counts the rows of each stream behind an offset that a sink could have got; reads the whole file, so it belongs on a
    /// thread that may block.
    ///
    /// # Errors
    ///
    /// `Transient` when the file cannot be read.
    pub fn rows(&self, behind: u64, sink: &str) -> Result<Vec<(u32, u64)>> {
        let Shared { disk, sources, .. } = &*self.shared;
        let Some(meta) = self.segment.meta(&**disk, sources)? else { return Ok(Vec::new()) };
        let failed = |cause| fault("read", &**disk, &self.segment.name, cause);
        let mut scanner = Scanner::new(self.segment.open(&**disk)?, meta.seed, meta.boot, meta.entries_at);
        scanner.read_around();
        let mut rows = std::collections::BTreeMap::new();
        loop {
            match scanner.next(self.segment.synced_len()).map_err(failed)? {
                Found::Entry(header) => {
                    for (offset, item) in Items::of(&header, scanner.entry()) {
                        let row = match &item {
                            Item::Row(row, _) => Some(row),
                            Item::Control(Control::Redrive { sink: to, head, .. }) if to == sink => Some(head),
                            Item::Control(_) => None,
                        };
                        if let Some(row) = row.filter(|_| offset > behind) {
                            *rows.entry(row.head.stream).or_insert(0) += 1;
                        }
                    }
                }
                Found::Bad { .. } => {}
                Found::End => return Ok(rows.into_iter().collect()),
            }
        }
    }
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

    /// Returns the oldest segment if the spool can do without it. [`drop_oldest`](SpoolWriter::drop_oldest) it, write down
    /// what went, then [`remove`](SpoolWriter::remove) it: before a crash in between nothing has gone.
    pub fn oldest_segment(&self) -> Option<OldSegment> {
        let segment = self.shared().read().segments.first()?.clone();
        self.is_dispensable(&segment).then(|| OldSegment { shared: self.shared().clone(), segment })
    }

    /// Drops a segment that sinks still need: nobody reads on in it. Returns false if it is no longer the oldest.
    pub fn drop_oldest(&mut self, old: &OldSegment) -> bool {
        let mut state = self.shared().write();
        if !state.segments.first().is_some_and(|first| Arc::ptr_eq(first, &old.segment)) {
            return false;
        }
        old.segment.set_dropped();
        state.dropped = state.dropped.max(old.segment.end());
        state.segments.remove(0);
        drop(state);
        self.sealed_bytes -= old.segment.len();
        true
    }

    /// Returns the job that removes the file of a segment that was dropped.
    pub fn remove(&mut self, old: &OldSegment) -> Housekeeping {
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
