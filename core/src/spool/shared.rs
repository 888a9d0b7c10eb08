//! What the writer and all readers of a spool know together: segments, boots, streams, and how far all is durable.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    Boot, SpoolPosition,
    claims::Claims,
    disk::{Disk, DiskFile, fault},
    entry,
    head::{BootSpan, FoundHead, SegmentHead, SourceInfo, StreamInfo, read_head},
};
use crate::Result;

/// One segment file.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: String,
    /// The first offset.
    pub(super) first: u64,
    /// The last offset that counts; `u64::MAX` while the segment is written. Entries behind it were written again into a
    /// later segment.
    end: AtomicU64,
    /// How many bytes are durable. Readers go no farther.
    synced_len: AtomicU64,
    /// How many bytes were written.
    len: AtomicU64,
    /// Whether it was dropped because the spool was full, whoever is reading it.
    dropped: AtomicBool,
    /// When everybody had done with it first.
    pub(super) passed: OnceLock<Duration>,
    meta: OnceLock<Arc<SegmentMeta>>,
    /// How often a read has failed since the medium does not give what is there.
    failures: AtomicU32,
}

/// After so many failed reads, with the readers' pauses between them, what a medium does not give is taken for lost.
const PATIENCE: u32 = 6;

/// What reading a segment needs of its head.
#[derive(Debug)]
pub(super) struct SegmentMeta {
    pub(super) seed: u32,
    pub(super) boot: Boot,
    pub(super) entries_at: u64,
    pub(super) sources: Arc<[SourceInfo]>,
}

impl SegmentMeta {
    /// Keeps what is needed of a head. Equal sources stay one value, so that a reader sees by the address when they change.
    pub(super) fn new(head: &SegmentHead, entries_at: u64, known: &Arc<[SourceInfo]>) -> Self {
        let sources = if **known == *head.sources { known.clone() } else { head.sources.clone().into() };
        Self { seed: entry::seed(head.segment), boot: head.boot, entries_at, sources }
    }
}

impl Segment {
    /// Returns a segment that is just written.
    pub(super) fn active(name: String, first: u64, len: u64, meta: SegmentMeta) -> Self {
        Self::new(name, first, u64::MAX, 0, len).known(Some(meta))
    }

    /// Returns a segment of the past, which is read when somebody asks for it.
    pub(super) fn sealed(name: String, first: u64, end: u64, len: u64) -> Self {
        Self::new(name, first, end, len, len)
    }

    /// Adds what has already been read of its head.
    pub(super) fn known(self, meta: Option<SegmentMeta>) -> Self {
        if let Some(meta) = meta {
            self.meta.get_or_init(|| Arc::new(meta));
        }
        self
    }

    fn new(name: String, first: u64, end: u64, synced_len: u64, len: u64) -> Self {
        let number = AtomicU64::new;
        Self {
            name,
            first,
            end: number(end),
            synced_len: number(synced_len),
            len: number(len),
            dropped: AtomicBool::new(false),
            passed: OnceLock::new(),
            meta: OnceLock::new(),
            failures: AtomicU32::new(0),
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    pub(super) fn seal(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    pub(super) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    pub(super) fn set_dropped(&self, is_dropped: bool) {
        self.dropped.store(is_dropped, Ordering::Release);
    }

    pub(super) fn synced_len(&self) -> u64 {
        self.synced_len.load(Ordering::Acquire)
    }

    pub(super) fn set_synced_len(&self, len: u64) {
        self.synced_len.store(len, Ordering::Release);
    }

    pub(super) fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    pub(super) fn set_len(&self, len: u64) {
        self.len.store(len, Ordering::Relaxed);
    }

    /// Notes that the medium did not give what is there.
    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that it has been tried often enough.
    pub(super) fn give_up(&self) {
        self.failures.store(PATIENCE, Ordering::Relaxed);
    }

    /// Returns whether that has been tried often enough.
    pub(super) fn has_lost(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= PATIENCE
    }

    /// Opens the file. Nobody keeps it longer than it takes: a spool may have more segments than a process files.
    pub(super) fn open(&self, disk: &dyn Disk) -> Result<Arc<dyn DiskFile>> {
        disk.open(&self.name).map_err(|cause| fault("open", disk, &self.name, cause))
    }

    /// Returns what the head says; `None` where it cannot be read.
    pub(super) fn meta(&self, disk: &dyn Disk, known: &Arc<[SourceInfo]>) -> Result<Option<Arc<SegmentMeta>>> {
        if let Some(meta) = self.meta.get() {
            return Ok(Some(meta.clone()));
        }
        let file = self.open(disk)?;
        let Some(FoundHead { head, entries_at }) = read_head(disk, &self.name, &*file)? else { return Ok(None) };
        Ok(Some(self.meta.get_or_init(|| Arc::new(SegmentMeta::new(&head, entries_at, known))).clone()))
    }
}

/// The one view that the writer and all readers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) spool: u64,
    /// The sources of today.
    pub(super) sources: Arc<[SourceInfo]>,
    synced: AtomicU64,
    pub(super) claims: Claims,
    /// Who is named in the log.
    pipeline: Arc<str>,
    /// Ranges of offsets that were durable and cannot be read any more, as far as somebody has come upon them.
    lost: Mutex<BTreeMap<u64, u64>>,
    state: RwLock<State>,
}

/// The part of [`Shared`] that changes as a whole.
#[derive(Debug, Default)]
pub(super) struct State {
    /// In the order of their offsets, at least one once the writer runs.
    pub(super) segments: Vec<Arc<Segment>>,
    /// In the order of their offsets; the last one runs.
    pub(super) boots: Vec<BootSpan>,
    pub(super) streams: HashMap<u32, Arc<StreamInfo>>,
    /// Segments that were dropped because the spool was full, as first and last offset, neighbours as one: those that lie
    /// directly before the oldest one that is left, and behind it.
    pub(super) dropped: Vec<(u64, u64)>,
    /// The segment that is about to be.
    pub(super) going: Option<(u64, u64)>,
}

impl Shared {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        pipeline: &str,
        spool: u64,
        sources: Arc<[SourceInfo]>,
        synced: u64,
        state: State,
    ) -> Self {
        let (synced, lost, claims) = (AtomicU64::new(synced), Mutex::default(), Claims::default());
        Self { disk, spool, sources, synced, claims, pipeline: pipeline.into(), lost, state: RwLock::new(state) }
    }

    /// Notes offsets that cannot be read; returns whether that is news.
    pub(super) fn note_lost(&self, first: u64, last: u64) -> bool {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = lost.range(..=first).next_back().is_some_and(|(_, known)| *known >= last);
        if !is_known {
            lost.insert(first, last);
        }
        !is_known
    }

    /// Notes offsets that a reader has come upon and cannot read, and says so the first time.
    pub(super) fn tell_lost(&self, first: u64, last: u64) {
        if self.note_lost(first, last) {
            let pipeline = &*self.pipeline;
            let range = format!("offsets {first} to {last} of the spool");
            tracing::warn!(pipeline, "corrupt {pipeline} {range} cannot be read any more: lost");
        }
    }

    /// Returns the ranges of offsets that are known to be lost.
    pub(super) fn lost_ranges(&self) -> Vec<(u64, u64)> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.iter().map(|(first, last)| (*first, *last)).collect()
    }

    /// Returns how many offsets are known to be lost.
    pub(super) fn lost(&self) -> u64 {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let mut end = 0;
        let mut count = 0;
        for (&first, &last) in lost.iter() {
            count += (last + 1).saturating_sub(first.max(end + 1));
            end = end.max(last);
        }
        count
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    pub(super) fn set_synced(&self, offset: u64) {
        self.synced.store(offset, Ordering::Release);
    }
}

impl State {
    /// Notes what a stream's number stands for. What it has stood for once it stands for always: rows have it.
    pub(super) fn name(&mut self, id: u32, stream: StreamInfo) {
        self.streams.entry(id).or_insert_with(|| Arc::new(stream));
    }

    /// Segments are gone because the spool was full. Returns those whose files are still there.
    pub(super) fn gone(&mut self, first: u64, last: u64) -> Vec<Arc<Segment>> {
        let (gone, left) = self.segments.drain(..).partition(|segment| (first..=last).contains(&segment.first));
        self.segments = left;
        // Where its file is gone, the one before seems to reach as far as the next one begins.
        let before = end_before(first, &self.boots);
        let too_long = self.segments.iter().filter(|segment| segment.first < first && segment.end() > before);
        too_long.for_each(|segment| segment.seal(before));
        self.dropped.push((first, last));
        self.dropped = self.all_dropped();
        gone
    }

    /// Takes out a segment that is about to go: nobody reads on in it.
    pub(super) fn take_out(&mut self, segment: &Arc<Segment>) {
        segment.set_dropped(true);
        self.segments.retain(|known| !Arc::ptr_eq(known, segment));
        self.going = Some((segment.first, segment.end()));
    }

    /// Puts it back, since it could not be written down that it goes.
    pub(super) fn put_back(&mut self, segment: &Arc<Segment>) {
        segment.set_dropped(false);
        let at = self.segments.partition_point(|known| known.first < segment.first);
        self.segments.insert(at, segment.clone());
        self.going = None;
    }

    /// Forgets what was dropped before segments that went in another way.
    pub(super) fn forget_dropped(&mut self) {
        let oldest = self.oldest().offset;
        self.dropped.retain(|(_, last)| *last >= oldest);
    }

    /// Returns what was dropped, neighbours as one.
    pub(super) fn all_dropped(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<_> = self.dropped.iter().copied().chain(self.going).collect();
        ranges.sort_unstable();
        ranges.dedup_by(|next, range| {
            let is_next = end_before(next.0, &self.boots) <= range.1;
            range.1 = if is_next { range.1.max(next.1) } else { range.1 };
            is_next
        });
        ranges
    }

    /// Returns whether an offset was dropped because the spool was full.
    pub(super) fn was_dropped(&self, offset: u64) -> bool {
        self.all_dropped().iter().any(|(first, last)| (*first..=*last).contains(&offset))
    }

    /// Returns whether everything behind a place, up to the oldest segment that is left, was.
    pub(super) fn was_all_dropped(&self, behind: u64) -> bool {
        let oldest = self.oldest().offset;
        let is_all = |(first, last): &(u64, u64)| end_before(*first, &self.boots) <= behind && oldest <= *last;
        self.all_dropped().iter().any(is_all)
    }

    /// Returns the place that everything retained lies behind.
    pub(super) fn oldest(&self) -> SpoolPosition {
        let first = self.segments.first().map_or(1, |segment| segment.first);
        self.position(end_before(first, &self.boots))
    }

    /// Returns the place behind an offset that was written.
    pub(super) fn position(&self, offset: u64) -> SpoolPosition {
        let boot = self.boots.iter().rev().find(|span| span.first <= offset).map_or(Boot(0), |span| span.boot);
        SpoolPosition { boot, offset }
    }
}

/// Returns the last offset that lies before the offset with which a segment begins. A boot may leave some out, the first
/// one too.
pub(super) fn end_before(first: u64, boots: &[BootSpan]) -> u64 {
    let before = boots.iter().rev().find(|span| span.first < first);
    before.map_or(0, |span| span.last.min(first - 1))
}
