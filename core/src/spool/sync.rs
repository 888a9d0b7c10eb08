//! Making durable: what waits for an fsync is held in memory, the fsync runs on another thread, and when it fails all that
//! waited is written again into a new segment.
//!
//! A file whose fsync has failed is never asked again: the system may have dropped the pages and would report success.

use std::{io, sync::Arc};

use super::{
    SpoolWriter,
    disk::{Disk, DiskFile, is_full, remove_any},
    entry::{HEADER, Header, sign},
    files::{NEXT, segment_name},
    head::SegmentHead,
    reserve::Reserve,
    shared::Segment,
};
use crate::{
    Result,
    rules::{Rule, holds},
};

/// A buffer that had to grow beyond this in a burst is given back.
const KEPT: usize = 8 << 20;

/// Entries that are written and not durable, as they were written: those that an fsync is under way for, and those
/// behind them. The two buffers take turns.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    flying: Vec<u8>,
    waiting: Vec<u8>,
}

impl Unsynced {
    pub(super) fn bytes(&self) -> usize {
        self.flying.len() + self.waiting.len()
    }

    /// Puts an entry behind the others.
    pub(super) fn push(&mut self, header: &Header, items: &[u8], seed: u32) {
        let start = self.waiting.len();
        self.waiting.resize(start + HEADER, 0);
        self.waiting.extend_from_slice(items);
        header.write(&mut self.waiting[start..], seed);
    }

    /// Returns the last entry, which has `len` bytes.
    pub(super) fn last(&self, len: usize) -> &[u8] {
        &self.waiting[self.waiting.len() - len..]
    }

    /// Takes the last entry back.
    pub(super) fn pop(&mut self, len: usize) {
        self.waiting.truncate(self.waiting.len() - len);
    }

    /// Makes the last entry one of another segment.
    pub(super) fn sign_last(&mut self, len: usize, seed: u32) {
        let start = self.waiting.len() - len;
        sign(&mut self.waiting[start..], seed);
    }

    /// An fsync begins.
    fn start(&mut self) {
        std::mem::swap(&mut self.flying, &mut self.waiting);
    }

    /// The fsync has succeeded.
    fn landed(&mut self) {
        self.flying.clear();
        self.flying.shrink_to(KEPT);
    }

    /// Takes everything, to be written again into the segment that `seed` belongs to.
    fn take(&mut self, seed: u32) -> Vec<u8> {
        let mut entries = std::mem::take(&mut self.flying);
        entries.append(&mut self.waiting);
        let mut rest = &mut entries[..];
        while rest.len() >= HEADER {
            let len = u32::from_le_bytes([rest[4], rest[5], rest[6], rest[7]]) as usize;
            let (entry, behind) = rest.split_at_mut(len);
            sign(entry, seed);
            rest = behind;
        }
        entries
    }
}

/// How far the writer is with an fsync.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum SyncState {
    /// None is under way.
    #[default]
    Idle,
    /// A job is out.
    Running,
    /// An fsync has failed: the next job writes everything again, and nothing is appended until it has ended.
    Failed,
    /// That job is out.
    Mending,
}

/// An fsync, to be run on a thread that may block. Its outcome must go back to [`SpoolWriter::synced`].
#[derive(Debug)]
pub struct SyncJob {
    disk: Arc<dyn Disk>,
    upto: u64,
    work: Work,
}

/// How a [`SyncJob`] ended.
#[derive(Debug)]
pub struct SyncDone {
    upto: u64,
    outcome: io::Result<Outcome>,
}

#[derive(Debug)]
enum Work {
    Sync { files: Vec<Part>, names: bool },
    Mend(Box<Mend>),
}

/// A segment up to a length, whose file stays open until it is durable.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) segment: Arc<Segment>,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) len: u64,
}

/// Everything that is not durable, on its way into a new segment.
#[derive(Debug)]
struct Mend {
    head: SegmentHead,
    entries: Vec<u8>,
    /// Segments that begin behind the new one: it has all that they have.
    replaced: Vec<String>,
    reserve: Arc<Reserve>,
}

#[derive(Debug)]
enum Outcome {
    Synced(Vec<Part>),
    /// With where the entries begin in the new segment.
    Mended(Box<Mend>, Arc<dyn DiskFile>, u64),
}

impl SyncJob {
    /// Does it.
    pub fn run(self) -> SyncDone {
        let Self { disk, upto, work } = self;
        let outcome = match work {
            Work::Sync { files, names } => sync(&*disk, &files, names).map(|()| Outcome::Synced(files)),
            Work::Mend(mend) => mend.run(&*disk).map(|(file, entries_at)| Outcome::Mended(mend, file, entries_at)),
        };
        SyncDone { upto, outcome }
    }
}

fn sync(disk: &dyn Disk, files: &[Part], names: bool) -> io::Result<()> {
    for part in files {
        part.file.sync_data()?;
    }
    if names { disk.sync_dir() } else { Ok(()) }
}

impl Mend {
    /// The new segment is durable before it takes the place of one that may hold the only durable head.
    fn run(&self, disk: &dyn Disk) -> io::Result<(Arc<dyn DiskFile>, u64)> {
        let head = self.head.encode().map_err(io::Error::other)?;
        let file = self.write(&head, disk).or_else(|error| {
            if is_full(&error) && self.reserve.release(disk) { self.write(&head, disk) } else { Err(error) }
        })?;
        for name in &self.replaced {
            remove_any(disk, name)?;
        }
        disk.sync_dir()?;
        disk.rename(NEXT, &segment_name(self.head.first))?;
        disk.sync_dir()?;
        Ok((file, head.len() as u64))
    }

    fn write(&self, head: &[u8], disk: &dyn Disk) -> io::Result<Arc<dyn DiskFile>> {
        let file = create_next(disk)?;
        file.write_all_at(head, 0)?;
        file.write_all_at(&self.entries, head.len() as u64)?;
        file.sync_data()?;
        Ok(file)
    }
}

/// Makes the file that a new segment begins as.
pub(super) fn create_next(disk: &dyn Disk) -> io::Result<Arc<dyn DiskFile>> {
    remove_any(disk, NEXT)?;
    disk.create_new(NEXT)
}

impl SpoolWriter {
    /// Returns the next fsync; `None` while one is under way or nothing waits for one.
    pub fn sync_job(&mut self) -> Option<SyncJob> {
        if self.check_failed().is_err() {
            return None;
        }
        let work = match self.sync {
            SyncState::Idle if self.is_unsynced() => self.plain_sync(),
            SyncState::Failed => Work::Mend(self.mend()),
            SyncState::Idle | SyncState::Running | SyncState::Mending => return None,
        };
        self.sync = if matches!(work, Work::Mend(_)) { SyncState::Mending } else { SyncState::Running };
        Some(SyncJob { disk: self.disk().clone(), upto: self.next_offset() - 1, work })
    }

    /// Returns whether something waits for an fsync.
    pub fn is_unsynced(&self) -> bool {
        self.unsynced.bytes() > 0 || self.dir_dirty || !self.dirty.is_empty() || self.active().synced_len() == 0
    }

    /// Takes the outcome of a job: readers see what is durable now, [`SpoolWriter::synced_position`] says how far.
    ///
    /// After a first failure nothing can be appended ([`Append::Behind`](super::Append::Behind)) until the next job has
    /// written everything again.
    ///
    /// # Errors
    ///
    /// `Permanent` when that failed too: nothing can be written any more.
    pub fn synced(&mut self, done: SyncDone) -> Result<()> {
        match (done.outcome, self.sync) {
            (Ok(Outcome::Synced(files)), _) => {
                for part in &files {
                    part.segment.set_synced_len(part.len);
                }
                self.dirty.retain(|part| part.segment.synced_len() < part.len);
                self.unsynced.landed();
            }
            (Ok(Outcome::Mended(mend, file, entries_at)), _) => {
                self.replaced(&mend.head, file, entries_at, entries_at + mend.entries.len() as u64);
            }
            (Err(error), SyncState::Running) => {
                tracing::warn!(%error, "fsync failed, writing everything since the last one into a new segment");
                self.sync = if holds(Rule::MendAnew) { SyncState::Failed } else { SyncState::Idle };
                return Ok(());
            }
            (Err(error), _) => return Err(self.fail("fsync", error)),
        }
        self.sync = SyncState::Idle;
        self.advance_synced(done.upto);
        Ok(())
    }

    fn plain_sync(&mut self) -> Work {
        let mut files = self.dirty.clone();
        files.push(Part { segment: self.active().clone(), file: self.active_file(), len: self.active().len() });
        self.unsynced.start();
        Work::Sync { files, names: std::mem::take(&mut self.dir_dirty) }
    }

    fn mend(&mut self) -> Box<Mend> {
        let (head, replaced) = self.replacement();
        let entries = self.unsynced.take(super::entry::seed(head.segment));
        Box::new(Mend { head, entries, replaced, reserve: self.reserve.clone() })
    }

    pub(super) fn is_mending(&self) -> bool {
        matches!(self.sync, SyncState::Failed | SyncState::Mending)
    }
}
