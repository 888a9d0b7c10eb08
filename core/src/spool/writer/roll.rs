//! Beginning segments: when one is full, when one cannot be written any more, when an fsync has failed.
//!
//! A segment is made when it is needed and not ahead: its name is its first offset, its head holds what was known just
//! then, and making it takes no longer than an append, since both fsyncs that it needs (its own, its name's) are part of the
//! next `SyncJob`. Only that of a boot is durable before it appears: then something always is from which a restart can
//! begin. Each appears under its name with a whole head, so that a killed process leaves none without.

use std::{io, sync::Arc};

use super::{Active, HeadSnapshot, SpoolWriter};
use crate::{
    Result,
    spool::{
        Boot,
        disk::{DiskFile, fault, is_full},
        entry,
        files::{NEXT, random, segment_name},
        head::SegmentHead,
        reserve::Reserve,
        shared::{Segment, SegmentMeta, Shared, end_before},
        sync::{Part, create_next},
    },
};

/// Boots whose last segment is gone are remembered up to this number, to tell an old position from a strange one.
const OLD_BOOTS: usize = 64;

/// Who begins a segment.
pub(super) struct Origin<'a> {
    pub(super) shared: &'a Shared,
    pub(super) pipeline: &'a str,
    pub(super) boot: Boot,
}

impl SpoolWriter {
    /// Returns whether it is time for [`SpoolWriter::roll`].
    pub fn wants_roll(&self) -> bool {
        self.active.segment.len() >= self.roll_at && !self.is_mending()
    }

    /// Begins the next segment. `snapshot` is continuity as it is now, which is all that a restart needs of the past.
    ///
    /// # Errors
    ///
    /// `Transient` when the segment cannot be made: the present one goes on, and it is time again a quarter of a segment
    /// later.
    pub fn roll(&mut self, snapshot: Vec<u8>) -> Result<()> {
        self.check_failed()?;
        if self.active.segment.first == self.next || self.is_mending() {
            return Ok(());
        }
        if let Err(cause) = self.begin_segment(Some(&snapshot)) {
            self.roll_at = self.active.segment.len() + self.limits.segment_bytes / 4;
            return Err(fault("begin a segment in", &*self.disk, "", cause));
        }
        self.snapshots.push(HeadSnapshot { first: self.next, durable: false, bytes: snapshot });
        Ok(())
    }

    /// Ends the present segment and begins one at the next offset.
    pub(super) fn begin_segment(&mut self, snapshot: Option<&[u8]>) -> io::Result<()> {
        let origin = self.origin();
        let active = make(&origin, &self.reserve, head(&origin, self.next, snapshot), |_| Ok(()))?;
        let mut state = self.shared.write();
        let Active { segment: last, file, .. } = std::mem::replace(&mut self.active, active);
        last.seal(self.next - 1);
        state.segments.push(self.active.segment.clone());
        drop(state);
        self.sealed_bytes += last.len();
        self.dirty.push(Part { len: last.len(), segment: last, file });
        self.dir_dirty = true;
        self.roll_at = self.active.segment.len() + self.limits.segment_bytes;
        Ok(())
    }

    fn origin(&self) -> Origin<'_> {
        Origin { shared: &self.shared, pipeline: &self.pipeline, boot: self.boot }
    }

    /// Returns the head of a segment that takes the place of all that is not durable, and the names of the segments
    /// that it replaces beside the one of its own name.
    pub(in crate::spool) fn replacement(&self) -> (SegmentHead, Vec<String>) {
        let state = self.shared.read();
        let begun = state.boots.last().map_or(1, |span| span.first);
        let first = (self.shared.synced() + 1).max(begun);
        let replaced = state.segments.iter().filter(|old| old.first > first).map(|old| old.name.clone()).collect();
        drop(state);
        let known = self.snapshots.iter().find(|head| head.first == first);
        (head(&self.origin(), first, known.map(|head| &*head.bytes)), replaced)
    }

    /// Goes on in a segment that has taken the place of all segments from its first offset on, and is durable.
    pub(in crate::spool) fn replaced(
        &mut self,
        head: &SegmentHead,
        file: Arc<dyn DiskFile>,
        entries_at: u64,
        len: u64,
    ) {
        let active = activate(&self.shared, head, file, entries_at);
        active.segment.set_len(len);
        active.segment.set_synced_len(len);
        let mut state = self.shared.write();
        let kept = state.segments.partition_point(|old| old.first < head.first);
        for old in state.segments.drain(kept..) {
            old.seal(0);
        }
        if let Some(last) = state.segments.last() {
            last.seal(head.previous_end);
        }
        self.sealed_bytes = state.segments.iter().map(|old| old.len()).sum();
        state.segments.push(active.segment.clone());
        drop(state);
        self.snapshots.retain(|snapshot| snapshot.first <= head.first);
        self.active = active;
        self.dirty.clear();
        self.roll_at = entries_at + self.limits.segment_bytes;
    }

    /// Notes that all up to `upto` is durable.
    pub(in crate::spool) fn advance_synced(&mut self, upto: u64) {
        // A boot that has written nothing yet ends where the last one did.
        if upto >= self.shared.read().boots.last().map_or(0, |span| span.first) {
            self.shared.set_synced(upto);
        }
        let state = self.shared.read();
        for head in &mut self.snapshots {
            // Not by the offset: a job that began before the segment did has not made that durable.
            let is_synced = |at: usize| state.segments[at].synced_len() > 0;
            head.durable |= state.segments.binary_search_by_key(&head.first, |old| old.first).is_ok_and(is_synced);
            if head.first <= upto {
                head.bytes = Vec::new();
            }
        }
        drop(state);
        // A restart begins at the newest durable one: older ones are of no interest.
        let durable = self.snapshots.iter().rposition(|head| head.durable);
        self.snapshots.drain(..durable.unwrap_or(0));
    }

    /// Returns the first offset of the newest segment from which a restart can begin; 0 while that is one of an earlier
    /// boot.
    pub(in crate::spool) fn restart_at(&self) -> u64 {
        self.snapshots.iter().find(|head| head.durable).map_or(0, |head| head.first)
    }
}

/// Makes the first segment of a boot, durable.
pub(super) fn make_first(origin: &Origin<'_>, reserve: &Reserve, first: u64, snapshot: &[u8]) -> io::Result<Active> {
    let active = make(origin, reserve, head(origin, first, Some(snapshot)), |file| file.sync_data())?;
    origin.shared.disk.sync_dir()?;
    active.segment.set_synced_len(active.segment.len());
    Ok(active)
}

/// Makes a segment with its head.
fn make(
    origin: &Origin<'_>,
    reserve: &Reserve,
    head: SegmentHead,
    harden: impl Fn(&dyn DiskFile) -> io::Result<()>,
) -> io::Result<Active> {
    let bytes = head.encode().map_err(io::Error::other)?;
    let disk = &*origin.shared.disk;
    let create = || {
        let file = create_next(disk)?;
        file.write_all_at(&bytes, 0)?;
        harden(&*file)?;
        disk.rename(NEXT, &segment_name(head.first))?;
        Ok(file)
    };
    let made = create().or_else(|error: io::Error| {
        // A new segment gives more than it takes: it lets the old ones go.
        if is_full(&error) && reserve.release(disk) { create() } else { Err(error) }
    });
    let file = made.inspect_err(|_| {
        // Tidying only: the next one begins by removing it.
        drop(disk.remove(NEXT));
    })?;
    Ok(activate(origin.shared, &head, file, bytes.len() as u64))
}

fn activate(shared: &Shared, head: &SegmentHead, file: Arc<dyn DiskFile>, entries_at: u64) -> Active {
    let meta = SegmentMeta::new(head, entries_at, &shared.sources);
    let segment = Segment::active(segment_name(head.first), head.first, entries_at, meta);
    Active { segment: Arc::new(segment), file, seed: entry::seed(head.segment) }
}

/// Returns the head of a segment that begins now.
fn head(origin: &Origin<'_>, first: u64, snapshot: Option<&[u8]>) -> SegmentHead {
    let Origin { shared, pipeline, boot } = *origin;
    let state = shared.read();
    let mut boots = state.boots.clone();
    let oldest = state.segments.first().map_or(first, |segment| segment.first);
    let gone = boots.iter().take_while(|span| span.last < oldest).count();
    boots.drain(..gone.saturating_sub(OLD_BOOTS));
    let mut streams: Vec<_> = state.streams.iter().map(|(id, stream)| (*id, (**stream).clone())).collect();
    streams.sort_unstable_by_key(|(id, _)| *id);
    SegmentHead {
        spool: shared.spool,
        pipeline: pipeline.to_owned(),
        segment: random(),
        first,
        previous_end: end_before(first, &boots),
        synced: shared.synced(),
        boot,
        boots,
        dropped: state.dropped.clone(),
        sources: shared.sources.to_vec(),
        streams,
        snapshot: snapshot.map(<[u8]>::to_vec),
    }
}
