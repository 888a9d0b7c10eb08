//! Appending: one entry, one write, and what happens when it fails.

use std::{io, sync::Arc, time::Duration};

use super::{
    Boot, BootSpan, ItemBuffer, SpoolPosition, SpoolReader,
    disk::{Disk, DiskFile, DiskLock, fault, is_full},
    entry::{HEADER, Header, MAX_ENTRY},
    reserve::{self, Reserve},
    retention::Leftovers,
    shared::{Segment, Shared},
    sync::{Part, SyncState, Unsynced},
};
use crate::{
    Error, Result, outside,
    rules::{Rule, holds},
};

mod roll;

use roll::Origin;

/// How large a spool may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolLimits {
    /// From this length on a segment is followed by another.
    pub segment_bytes: u64,
    /// The length of all segments together from which on rows are refused.
    pub max_bytes: u64,
    /// How long a segment stays that nobody needs any more, so that a store that went back can be fed again.
    pub keep: Duration,
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, max_bytes: 10 << 30, keep: Duration::from_secs(3600) }
    }
}

/// The outcome of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Append {
    /// The entry is written: a killed process does not lose it, a power cut may until it is fsynced.
    Written {
        /// The offset of the first item.
        first: u64,
        /// The offset of the last item.
        last: u64,
    },
    /// There is no room, by `max_bytes` or on the disk. Nothing was written. An entry without rows still fits.
    Full,
    /// Too much waits for an fsync. Nothing was written; it fits when the running [`SyncJob`](super::SyncJob) has ended.
    Behind,
}

/// The one writer of a spool. Does no fsync itself: see [`SpoolWriter::sync_job`].
#[derive(Debug)]
pub struct SpoolWriter {
    disk: Arc<dyn Disk>,
    shared: Arc<Shared>,
    limits: SpoolLimits,
    pipeline: String,
    boot: Boot,
    /// The offset of the next item.
    next: u64,
    active: Active,
    /// From this length of the active segment on another is begun.
    roll_at: u64,
    /// Segments that are full but not fsynced.
    pub(super) dirty: Vec<Part>,
    pub(super) unsynced: Unsynced,
    /// Whether a segment has a name that is not durable.
    pub(super) dir_dirty: bool,
    pub(super) sync: SyncState,
    pub(super) reserve: Arc<Reserve>,
    pub(super) leftovers: Arc<Leftovers>,
    /// The length of all segments but the active one.
    pub(super) sealed_bytes: u64,
    /// The length of all segments when the boot began: however full it was, what has to be said of the boot fits.
    begun_bytes: u64,
    /// Segments whose head has a snapshot, from the newest one on from which a restart can begin.
    snapshots: Vec<HeadSnapshot>,
    /// Why nothing can be written any more.
    failed: Option<String>,
    _lock: Box<dyn DiskLock>,
}

/// The segment that is written.
#[derive(Debug)]
struct Active {
    segment: Arc<Segment>,
    file: Arc<dyn DiskFile>,
    seed: u32,
}

/// A snapshot at the head of a segment.
#[derive(Debug)]
struct HeadSnapshot {
    first: u64,
    /// Whether the head is durable.
    durable: bool,
    /// Kept until an entry behind it is durable: up to then the segment may have to be written again.
    bytes: Vec<u8>,
}

/// What a writer begins with.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) lock: Box<dyn DiskLock>,
    pub(super) shared: Shared,
    pub(super) limits: SpoolLimits,
    pub(super) pipeline: String,
    pub(super) boot: Boot,
    pub(super) first: u64,
    pub(super) snapshot: Vec<u8>,
    /// Files that are no part of the spool any more.
    pub(super) leftovers: Vec<String>,
}

impl SpoolWriter {
    /// Begins a segment of a new boot.
    pub(super) fn begin(beginning: Beginning) -> Result<Self> {
        let Beginning { disk, lock, shared, limits, pipeline, boot, first, snapshot, leftovers } = beginning;
        let reserve = Arc::new(Reserve::find(&*disk));
        let sealed_bytes = shared.read().segments.iter().map(|segment| segment.len()).sum();
        shared.write().boots.push(BootSpan { boot, first, last: u64::MAX });
        let origin = Origin { shared: &shared, pipeline: &pipeline, boot };
        let made = roll::make_first(&origin, &reserve, first, &snapshot);
        let active = made.map_err(|cause| fault("begin a segment in", &*disk, "", cause))?;
        shared.write().segments.push(active.segment.clone());
        let begun_bytes = sealed_bytes + active.segment.len();
        let writer = Self {
            limits,
            next: first,
            roll_at: active.segment.len() + limits.segment_bytes,
            active,
            dirty: Vec::new(),
            unsynced: Unsynced::default(),
            dir_dirty: false,
            sync: SyncState::default(),
            reserve,
            leftovers: Arc::new(Leftovers::new(leftovers)),
            sealed_bytes,
            begun_bytes,
            snapshots: vec![HeadSnapshot { first, durable: true, bytes: snapshot }],
            failed: None,
            pipeline,
            boot,
            disk,
            shared: Arc::new(shared),
            _lock: lock,
        };
        if let Err(error) = writer.reserve.make(&*writer.disk) {
            tracing::warn!(%error, "no room for the spool's reserve");
        }
        Ok(writer)
    }

    /// Returns the readers' side.
    pub fn reader(&self) -> SpoolReader {
        SpoolReader::new(self.shared.clone())
    }

    /// Returns this opening's number.
    pub fn boot(&self) -> Boot {
        self.boot
    }

    /// Returns the offset that the next item gets.
    pub fn next_offset(&self) -> u64 {
        self.next
    }

    /// Returns the place behind the last durable offset.
    pub fn synced_position(&self) -> SpoolPosition {
        self.shared.read().position(self.shared.synced())
    }

    /// Returns how many offsets were durable and cannot be read any more, as far as somebody has come upon them.
    pub fn lost(&self) -> u64 {
        self.shared.lost()
    }

    /// Returns the length of all segments together.
    pub fn bytes(&self) -> u64 {
        self.sealed_bytes + self.active.segment.len()
    }

    /// Returns how many segments there are.
    pub fn segments(&self) -> usize {
        self.shared.read().segments.len()
    }

    /// Returns whether a spool that was full has room for more than the next entry: a tenth of `max_bytes`, and the reserve
    /// on the disk; or whether no segment is left that a sink with all up to `floor` could make way.
    pub fn has_room(&self, floor: u64) -> bool {
        let SpoolLimits { max_bytes, .. } = self.limits;
        let fits = self.bytes() <= max_bytes - max_bytes / 10 || floor + 1 >= self.active.segment.first;
        fits && self.reserve.is_there()
    }

    /// Appends one entry. `mono` is the monotonic time since the boot.
    ///
    /// Nothing of an entry that was not written is ever seen by a reader or after a restart as a part of one.
    ///
    /// # Errors
    ///
    /// `Malformed` for an entry that is longer than [`MAX_ENTRY`]; the spool is as before. `Permanent` when the disk
    /// fails, in a new segment too: nothing can be written any more.
    pub fn append(&mut self, items: &ItemBuffer, mono: Duration) -> Result<Append> {
        self.check_failed()?;
        let len = HEADER + items.bytes().len();
        if len > MAX_ENTRY {
            return Err(Error::malformed(format!("an entry of {len} bytes is longer than {MAX_ENTRY}")));
        }
        if items.is_empty() {
            return Ok(Append::Written { first: self.next, last: self.next - 1 });
        }
        let waiting = self.unsynced.bytes();
        if self.is_mending() || waiting > 0 && waiting + len > outside::max_unsynced() {
            return Ok(Append::Behind);
        }
        let SpoolLimits { max_bytes, .. } = self.limits;
        let without_rows = max_bytes.max(self.begun_bytes).saturating_add(reserve::BYTES);
        let limit = if items.rows() > 0 { max_bytes } else { without_rows };
        if self.bytes() + len as u64 > limit {
            return Ok(Append::Full);
        }
        let header = Header {
            len,
            boot: self.boot,
            first: self.next,
            count: items.len(),
            synced: self.shared.synced(),
            mono: i64::try_from(mono.as_nanos()).unwrap_or(i64::MAX),
        };
        self.unsynced.push(&header, items.bytes(), self.active.seed);
        match self.write_last(len, items.rows() > 0) {
            Ok(true) => {}
            Ok(false) => {
                self.unsynced.pop(len);
                return Ok(Append::Full);
            }
            Err(cause) => {
                self.unsynced.pop(len);
                return Err(self.fail("append", cause));
            }
        }
        self.next += u64::from(items.len());
        self.learn(items);
        if !holds(Rule::SyncedOnly) {
            self.active.segment.set_synced_len(self.active.segment.len());
            self.shared.set_synced(header.last());
        }
        Ok(Append::Written { first: header.first, last: header.last() })
    }

    /// Writes the entry that was just put behind the unsynced ones; `false`: there is no room.
    fn write_last(&mut self, len: usize, rows: bool) -> io::Result<bool> {
        let Err(mut error) = self.try_write_last(len) else { return Ok(true) };
        if is_full(&error) && !rows && self.reserve.release(&*self.disk) {
            match self.try_write_last(len) {
                Ok(()) => return Ok(true),
                Err(again) => error = again,
            }
        }
        if is_full(&error) {
            return Ok(false);
        }
        tracing::warn!(%error, segment = self.active.segment.name, "write failed, trying once more");
        // A segment without entries keeps its name, and so its file.
        if self.active.segment.first < self.next {
            self.begin_segment(None)?;
            self.unsynced.sign_last(len, self.active.seed);
        }
        self.try_write_last(len).map(|()| true)
    }

    fn try_write_last(&self, len: usize) -> io::Result<()> {
        let Active { segment, file, .. } = &self.active;
        let at = segment.len();
        if let Err(error) = file.write_all_at(self.unsynced.last(len), at) {
            // What is left of the entry ends the segment or is overwritten by the next one; a cut only makes it tidy.
            drop(file.truncate(at));
            return Err(error);
        }
        segment.set_len(at + len as u64);
        Ok(())
    }

    fn learn(&self, items: &ItemBuffer) {
        if items.streams().is_empty() && items.retired().is_empty() {
            return;
        }
        let mut state = self.shared.write();
        for (id, stream) in items.streams() {
            state.name(*id, stream.clone());
        }
        for id in items.retired() {
            state.streams.remove(id);
        }
    }

    pub(super) fn check_failed(&self) -> Result<()> {
        match &self.failed {
            Some(why) => Err(Error::permanent(format!("the spool `{}` has failed: {why}", self.disk.place()))),
            None => Ok(()),
        }
    }

    /// Stops the writer for good.
    pub(super) fn fail(&mut self, action: &str, cause: io::Error) -> Error {
        self.failed = Some(format!("cannot {action}: {cause}"));
        Error::permanent(format!("the spool `{}` has failed: cannot {action}", self.disk.place())).because(cause)
    }

    pub(super) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn limits(&self) -> &SpoolLimits {
        &self.limits
    }

    pub(super) fn active(&self) -> &Arc<Segment> {
        &self.active.segment
    }

    pub(super) fn active_file(&self) -> Arc<dyn DiskFile> {
        self.active.file.clone()
    }
}
