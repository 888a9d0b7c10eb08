//! Reading: where a position stands in the spool, and the entries behind it.

use std::sync::Arc;

use super::{
    Boot, EntryView, SpoolPosition,
    claims::Claim,
    disk::{fault, is_unreadable},
    entry::Header,
    head::{FoundHead, SourceInfo, StreamInfo, read_head},
    scan::{Found, Scanner},
    shared::{Segment, SegmentMeta, Shared, end_before},
};
use crate::Result;

/// The readers' side of a spool. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SpoolReader(Arc<Shared>);

/// Offsets that were durable and cannot be read any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The boot that wrote the first of them.
    pub boot: Boot,
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
    /// The sinks that have not got them.
    pub sinks: Vec<String>,
}

/// Where a position that a store remembers stands in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// All that lies behind it is there.
    Retained,
    /// It is behind, and what lies next was dropped on purpose when the spool was full.
    Dropped,
    /// The spool knows the boot but never had that offset: the spool went back.
    Ahead,
    /// The offset was written by another boot: another history.
    OtherBoot,
    /// What lies next is no longer there.
    Gone,
}

impl SpoolReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Returns the number that was drawn when the spool was made.
    pub fn spool_id(&self) -> u64 {
        self.0.spool
    }

    /// Returns the place behind the last durable offset.
    pub fn end(&self) -> SpoolPosition {
        self.0.read().position(self.0.synced())
    }

    /// Returns the place that everything retained lies behind.
    pub fn oldest(&self) -> SpoolPosition {
        self.0.read().oldest()
    }

    /// Returns the last place that a boot has written, as far as the spool has it; `None` for a boot that it does not know.
    pub fn end_of(&self, boot: Boot) -> Option<SpoolPosition> {
        let state = self.0.read();
        let span = state.boots.iter().find(|span| span.boot == boot)?;
        Some(SpoolPosition { boot, offset: span.last.min(self.0.synced()) })
    }

    /// Returns what a stream's number stands for. Known before the first row of the stream can be read.
    pub fn stream(&self, id: u32) -> Option<Arc<StreamInfo>> {
        self.0.read().streams.get(&id).cloned()
    }

    /// Returns what all streams' numbers stand for.
    pub fn streams(&self) -> Vec<(u32, Arc<StreamInfo>)> {
        self.0.read().streams.iter().map(|(id, info)| (*id, info.clone())).collect()
    }

    /// Returns how many offsets were durable and cannot be read any more, as far as somebody has come upon them.
    pub fn lost(&self) -> u64 {
        self.0.lost()
    }

    /// Compares a position with the spool.
    pub fn check(&self, position: SpoolPosition) -> Standing {
        let state = self.0.read();
        let oldest = state.oldest().offset;
        if position != SpoolPosition::START {
            let Some(span) = state.boots.iter().find(|span| span.boot == position.boot) else {
                // Boots are forgotten some time after their last segment.
                let forgotten = state.boots.first().is_some_and(|first| position.offset < first.first);
                return if forgotten && oldest > 0 { Standing::Gone } else { Standing::OtherBoot };
            };
            if position.offset < span.first {
                return Standing::OtherBoot;
            }
            if position.offset > span.last.min(self.0.synced()) {
                return Standing::Ahead;
            }
        }
        let is_dropped = if position.offset >= oldest {
            state.was_dropped(position.offset + 1)
        } else {
            state.was_all_dropped(position.offset)
        };
        match is_dropped {
            true => Standing::Dropped,
            false if position.offset >= oldest => Standing::Retained,
            false => Standing::Gone,
        }
    }

    /// Returns whether an offset was dropped because the spool was full.
    pub fn was_dropped(&self, offset: u64) -> bool {
        self.0.read().was_dropped(offset)
    }

    /// Returns whether something that lay between two offsets was.
    pub fn has_dropped(&self, behind: u64, upto: u64) -> bool {
        self.0.read().all_dropped().iter().any(|(first, last)| *first <= upto && behind < *last)
    }

    /// Returns what was durable and cannot be read any more, as far as somebody has come upon it, or a sink would.
    pub fn unreadable(&self) -> Vec<Unreadable> {
        let state = self.0.read();
        let unreadable = |(first, last, sinks)| Unreadable { boot: state.position(first).boot, first, last, sinks };
        let behind = |last| self.0.claims.behind(last).into_iter().map(|(sink, _)| sink).collect();
        let lost = self.0.lost_ranges().into_iter().map(|(first, last)| unreadable((first, last, behind(last))));
        // A sink that has something is owed all that follows.
        let oldest = state.oldest().offset;
        let owed = self.0.claims.behind(oldest).into_iter().filter(|(_, passed)| *passed > 0);
        let gone = owed.filter(|(_, passed)| !state.was_all_dropped(*passed));
        let gone = gone.map(|(sink, passed)| unreadable((passed + 1, oldest, vec![sink])));
        lost.chain(gone).collect()
    }

    /// Returns the newest place up to which the spool is what it was: each boot is given with the last offset that is known
    /// of it.
    pub fn in_common(&self, boots: &[(Boot, u64)]) -> Option<SpoolPosition> {
        let state = self.0.read();
        let synced = self.0.synced();
        let common = |&(boot, last): &(Boot, u64)| {
            let span = state.boots.iter().find(|span| span.boot == boot)?;
            let offset = last.min(span.last).min(synced);
            (offset >= span.first).then_some(SpoolPosition { boot, offset })
        };
        boots.iter().filter_map(common).max_by_key(|position| position.offset)
    }

    /// Says how far a sink has got for sure, and the first offset of the newest segment of which it may have got something
    /// since. What lies between is not dropped.
    pub fn claim(&self, sink: &str, passed: u64, entered: u64) -> Claim {
        Claim::new(self.0.clone(), sink, passed, entered)
    }

    /// Returns continuity as the newest head at or before an offset holds it, with the place that it stands for; `None`
    /// where no such head is left.
    ///
    /// # Errors
    ///
    /// `Transient` when a file cannot be read.
    pub fn snapshot(&self, upto: u64) -> Result<Option<(SpoolPosition, Vec<u8>)>> {
        let state = self.0.read();
        let earlier = state.segments.iter().rev().filter(|segment| end_before(segment.first, &state.boots) <= upto);
        let earlier: Vec<_> = earlier.cloned().collect();
        drop(state);
        for segment in earlier {
            let file = segment.open(&*self.0.disk)?;
            let Some(FoundHead { head, .. }) = read_head(&*self.0.disk, &segment.name, &*file)? else { continue };
            if let Some(snapshot) = head.snapshot {
                let state = self.0.read();
                return Ok(Some((state.position(end_before(segment.first, &state.boots)), snapshot)));
            }
        }
        Ok(None)
    }

    /// Returns whether [`snapshot`](Self::snapshot) has one that is not older than an offset. Costs nothing as long as no
    /// segment begins behind that.
    ///
    /// # Errors
    ///
    /// `Transient` when a file cannot be read.
    pub(crate) fn has_snapshot_between(&self, from: u64, upto: u64) -> Result<bool> {
        let state = self.0.read();
        let mut begins = state.segments.iter().map(|segment| end_before(segment.first, &state.boots));
        let may_have = begins.any(|at| (from..=upto).contains(&at));
        drop(begins);
        drop(state);
        Ok(may_have && self.snapshot(upto)?.is_some_and(|(at, _)| at.offset >= from))
    }

    /// Returns a cursor whose first entry is the one behind `from`. What is no longer there it reports as missing.
    pub fn cursor(&self, from: SpoolPosition) -> Cursor {
        Cursor { shared: self.0.clone(), position: from, place: None, scanner: None, claim: None }
    }

    /// Returns a cursor that reads for a sink: what it enters the sink has in hand.
    pub fn claiming_cursor(&self, from: SpoolPosition, claim: &Claim) -> Cursor {
        Cursor { claim: Some(claim.clone()), ..self.cursor(from) }
    }
}

/// What a cursor comes to.
#[derive(Debug, Clone)]
pub enum Step<'a> {
    /// An entry.
    Entry(EntryView<'a>),
    /// Offsets that cannot be read: lost to corruption, or dropped meanwhile because the spool was full.
    Missing {
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
    },
}

/// Reads the entries behind a position, in order, over segments and boots.
#[derive(Debug)]
pub struct Cursor {
    shared: Arc<Shared>,
    position: SpoolPosition,
    place: Option<Place>,
    scanner: Option<Scanner>,
    claim: Option<Claim>,
}

/// The segment that a cursor is in.
#[derive(Debug)]
struct Place {
    segment: Arc<Segment>,
    meta: Option<Arc<SegmentMeta>>,
}

/// What the search for the next entry found, without its bytes.
enum Next {
    Entry(Header),
    Missing(u64, u64),
    Nothing,
}

impl Cursor {
    /// Returns the place behind what was read last.
    pub fn position(&self) -> SpoolPosition {
        self.position
    }

    /// Returns the sources as they were when the entry that was read last was written. The same address: the same
    /// sources.
    pub fn sources(&self) -> &Arc<[SourceInfo]> {
        let meta = self.place.as_ref().and_then(|place| place.meta.as_ref());
        meta.map_or(&self.shared.sources, |meta| &meta.sources)
    }

    /// Reads the next entry whose last offset is at most `upto` and durable.
    ///
    /// # Errors
    ///
    /// `Transient` when a file cannot be read; the next call tries again. What the medium does not give after a number of
    /// tries is missing.
    pub fn next(&mut self, upto: u64) -> Result<Option<Step<'_>>> {
        let upto = upto.min(self.shared.synced());
        match self.advance(upto)? {
            Next::Nothing => Ok(None),
            Next::Missing(first, last) => {
                self.position = self.shared.read().position(last);
                Ok(Some(Step::Missing { first, last }))
            }
            Next::Entry(header) => {
                let behind =
                    std::mem::replace(&mut self.position, SpoolPosition { boot: header.boot, offset: header.last() });
                let segment = self.place.as_ref().map_or(0, |place| place.segment.first);
                let bytes = self.scanner.as_ref().map_or(&[][..], Scanner::entry);
                let meta = self.place.as_ref().and_then(|place| place.meta.as_ref());
                let sources = meta.map_or(&self.shared.sources, |meta| &meta.sources);
                Ok(Some(Step::Entry(EntryView::new(&header, bytes, (segment, sources), behind.offset))))
            }
        }
    }

    /// Shows what lies behind `to` once more: a place within the entry that was read last, or in front of it. Costs no
    /// search, as a new cursor would.
    pub fn step_back(&mut self, to: SpoolPosition) {
        self.position = to;
        if let Some(scanner) = &mut self.scanner {
            scanner.step_back();
        }
    }

    fn advance(&mut self, upto: u64) -> Result<Next> {
        while self.position.offset < upto {
            let read = self.position.offset;
            let is_in = |place: &&Place| place.segment.end() > read && !place.segment.is_dropped();
            let Some(place) = self.place.as_ref().filter(is_in) else {
                match self.enter()? {
                    Some(found) => return Ok(found),
                    None => continue,
                }
            };
            let end = place.segment.end().min(upto);
            let (Some(scanner), Some(_)) = (self.scanner.as_mut(), &place.meta) else {
                self.shared.tell_lost(read + 1, end);
                return Ok(Next::Missing(read + 1, end));
            };
            if place.segment.has_lost() {
                scanner.read_around();
            }
            let found = scanner.next(place.segment.synced_len()).map_err(|cause| {
                if is_unreadable(&cause) {
                    place.segment.failed();
                }
                fault("read", &*self.shared.disk, &place.segment.name, cause)
            })?;
            let expected = (read + 1).max(place.segment.first);
            match found {
                Found::Bad { .. } => {}
                Found::Entry(header) if header.last() <= read => {}
                Found::Entry(header) if header.last() <= end && header.first <= expected => {
                    return Ok(Next::Entry(header));
                }
                Found::Entry(header) => {
                    scanner.step_back();
                    let last = end.min(header.first - 1);
                    if last < expected {
                        return Ok(Next::Nothing);
                    }
                    self.shared.tell_lost(expected, last);
                    return Ok(Next::Missing(expected, last));
                }
                Found::End if expected <= end => {
                    self.shared.tell_lost(expected, end);
                    return Ok(Next::Missing(expected, end));
                }
                Found::End => return Ok(Next::Nothing),
            }
        }
        Ok(Next::Nothing)
    }

    /// Goes to the segment that has the next offset. Returns what is missing in front of it.
    fn enter(&mut self) -> Result<Option<Next>> {
        let read = self.position.offset;
        let state = self.shared.read();
        let next = state.segments.partition_point(|segment| segment.end() <= read);
        let Some(segment) = state.segments.get(next).cloned() else {
            return Ok(Some(Next::Nothing));
        };
        let before = end_before(segment.first, &state.boots);
        if before > read {
            self.place = None;
            return Ok(Some(Next::Missing(read + 1, before)));
        }
        // Before the lock is given back: until then it cannot be dropped.
        self.claim.iter().for_each(|claim| claim.enter(segment.first));
        drop(state);
        let meta = segment.meta(&*self.shared.disk, &self.shared.sources)?;
        if let Some(meta) = &meta {
            let file = segment.open(&*self.shared.disk)?;
            match &mut self.scanner {
                Some(scanner) => scanner.enter(file, meta.seed, meta.boot, meta.entries_at),
                None => self.scanner = Some(Scanner::new(file, meta.seed, meta.boot, meta.entries_at)),
            }
        }
        self.place = Some(Place { segment, meta });
        Ok(None)
    }
}
