//! What stands in a row of segments: how far entries were fsynced, where bytes are no entries, and what that means.
//!
//! Every entry, and every head, states the highest offset that was fsynced when it was written. The highest such *mark*
//! decides about bytes that are no entry: offsets up to it were durable, so they are lost to corruption, and what stands
//! behind them counts. Offsets above it may never have reached the disk: there the spool ends, and what stands behind is
//! cut, even where it is whole.

use std::sync::Arc;

use super::{
    Item, Items,
    disk::{Disk, DiskFile, fault},
    entry,
    head::{FoundHead, SegmentHead, read_head},
    scan::{Found, Scanner},
};
use crate::{
    Error, Result,
    rules::{Rule, holds},
};

/// So many damaged places are remembered.
const MAX_HOLES: usize = 1 << 16;

/// How far apart the places are that are noted, in bytes.
const PLACES: u64 = 256 << 10;

/// A segment file.
#[derive(Debug)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) first: u64,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) len: u64,
    /// `None`: neither copy can be read.
    pub(super) head: Option<SegmentHead>,
    pub(super) entries_at: u64,
    pub(super) entries: u64,
    /// Whether the medium does not give all of it.
    pub(super) has_lost: bool,
}

impl File {
    /// Opens a segment file and reads its head.
    pub(super) fn open(disk: &dyn Disk, name: String, first: u64) -> Result<Self> {
        let failed = |cause| fault("open", disk, &name, cause);
        let file = disk.open(&name).map_err(failed)?;
        let len = file.len().map_err(failed)?;
        let found = read_head(disk, &name, &*file)?;
        let (head, entries_at) = match found {
            Some(FoundHead { head, entries_at }) if head.first == first => (Some(head), entries_at),
            _ => (None, 0),
        };
        Ok(Self { name, first, file, len, head, entries_at, entries: 0, has_lost: false })
    }

    /// Returns whether a restart can begin here: continuity stands in the head, and all before it was durable, by the word
    /// of the head, of an entry, or of a later segment: `mark` is what those say, and grows by what this one does.
    pub(super) fn is_base(&self, disk: &dyn Disk, mark: &mut u64) -> Result<bool> {
        let Some(head) = &self.head else { return Ok(false) };
        *mark = head.synced.max(*mark);
        if head.snapshot.is_some() && *mark >= head.previous_end {
            return Ok(true);
        }
        let mut scanner = self.scanner(head);
        loop {
            match scanner.next(self.len).map_err(|cause| fault("read", disk, &self.name, cause))? {
                Found::End => return Ok(false),
                Found::Entry(header) => *mark = header.synced.max(*mark),
                Found::Bad { .. } => {}
            }
            if head.snapshot.is_some() && *mark >= head.previous_end {
                return Ok(true);
            }
        }
    }

    /// Shows every item that can be read.
    pub(super) fn each_item(&self, disk: &dyn Disk, mut each: impl FnMut(Item<'_>)) -> Result<()> {
        let Some(head) = &self.head else { return Ok(()) };
        let mut scanner = self.scanner(head);
        loop {
            match scanner.next(self.len).map_err(|cause| fault("read", disk, &self.name, cause))? {
                Found::End => return Ok(()),
                Found::Bad { .. } => {}
                Found::Entry(header) => Items::of(&header, scanner.entry()).for_each(|(_, item)| each(item)),
            }
        }
    }

    fn scanner(&self, head: &SegmentHead) -> Scanner {
        let mut scanner = Scanner::new(self.file.clone(), entry::seed(head.segment), head.boot, self.entries_at);
        scanner.read_around();
        scanner
    }
}

/// Offsets that cannot be read, between two that can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) first: u64,
    pub(super) last: u64,
    /// The file, and the place in it, where the bytes that are no entry begin.
    pub(super) at: (usize, u64),
}

/// What was found.
#[derive(Debug)]
pub(super) struct Survey {
    /// All offsets up to here were fsynced once.
    pub(super) mark: u64,
    /// The highest offset that any entry or name shows.
    pub(super) seen: u64,
    /// The last offset that can be read, if nothing has to be cut.
    pub(super) end: u64,
    pub(super) holes: Vec<Hole>,
    /// The file, and the place in it, where the last good entry ends.
    good: (usize, u64),
    /// Places that the medium does not give.
    pub(super) unreadable: Vec<(usize, u64)>,
    /// Offsets with the places behind them, here and there.
    places: Vec<(u64, (usize, u64))>,
}

/// What follows from it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The last offset of the spool.
    pub(super) end: u64,
    /// Ranges of offsets that were durable and are lost.
    pub(super) corrupt: Vec<(u64, u64)>,
    /// Where the torn tail begins: a file, and a place in it.
    pub(super) cut: Option<(usize, u64)>,
}

/// Reads all entries of consecutive files; the first one must have a head.
pub(super) fn survey(disk: &dyn Disk, files: &mut [File]) -> Result<Survey> {
    let before = files.first().and_then(|file| file.head.as_ref()).map_or(0, |head| head.previous_end);
    let mut survey = Survey {
        mark: 0,
        seen: before,
        end: before,
        holes: Vec::new(),
        good: (0, 0),
        unreadable: Vec::new(),
        places: Vec::new(),
    };
    for i in 0..files.len() {
        // What a later segment does not count as before it was cut or written again.
        let bound =
            files[i + 1..].iter().find_map(|file| file.head.as_ref()).map_or(u64::MAX, |head| head.previous_end);
        let file = &mut files[i];
        survey.seen = survey.seen.max(file.first - 1);
        let Some(head) = &file.head else { continue };
        survey.mark = survey.mark.max(head.synced);
        if head.previous_end > survey.end {
            survey.hole(survey.end + 1, head.previous_end)?;
        }
        survey.good = (i, file.entries_at);
        survey.places.push((survey.end, (i, 0)));
        survey.read(disk, i, file, bound)?;
    }
    Ok(survey)
}

impl Survey {
    fn read(&mut self, disk: &dyn Disk, i: usize, file: &mut File, bound: u64) -> Result<()> {
        let Some(head) = &file.head else { return Ok(()) };
        let mut scanner = file.scanner(head);
        loop {
            let found = scanner.next(file.len).map_err(|cause| fault("read", disk, &file.name, cause))?;
            let header = match found {
                Found::End => {
                    file.has_lost = !scanner.unreadable().is_empty();
                    self.unreadable.extend(scanner.unreadable().iter().map(|(at, _)| (i, *at)));
                    return Ok(());
                }
                Found::Bad { .. } => continue,
                Found::Entry(header) => header,
            };
            self.mark = self.mark.max(header.synced);
            self.seen = self.seen.max(header.last());
            let expected = file.first.max(self.end + 1);
            if header.last() > bound || header.first < expected {
                continue;
            }
            if header.first > expected {
                self.hole(expected, header.first - 1)?;
            }
            self.end = header.last();
            file.entries += 1;
            self.good = (i, scanner.at());
            let noted = self.places.last().map_or(0, |(_, (_, at))| *at);
            if scanner.at() - noted >= PLACES {
                self.places.push((self.end, self.good));
            }
        }
    }

    fn hole(&mut self, first: u64, last: u64) -> Result<()> {
        if self.holes.len() == MAX_HOLES {
            return Err(Error::permanent(format!("the spool is damaged in more than {MAX_HOLES} places")));
        }
        self.end = last;
        self.holes.push(Hole { first, last, at: self.good });
        Ok(())
    }

    /// Returns a file, and a place in it, before which all is known to be durable.
    pub(super) fn durable(&self) -> (usize, u64) {
        let known = self.places.iter().rev().find(|(offset, _)| *offset <= self.mark);
        known.map_or((0, 0), |(_, place)| *place)
    }

    /// Tells corruption from a torn tail.
    pub(super) fn judge(&self, files: &[File]) -> Verdict {
        let mut verdict = Verdict { end: self.end, ..Verdict::default() };
        for hole in &self.holes {
            if hole.first <= self.mark {
                verdict.corrupt.push((hole.first, hole.last.min(self.mark)));
            }
            if hole.last > self.mark || !holds(Rule::TornOrRot) {
                verdict.end = self.mark.max(hole.first - 1);
                verdict.cut = Some(hole.at);
                return verdict;
            }
        }
        if self.mark > self.end {
            verdict.corrupt.push((self.end + 1, self.mark));
            verdict.end = self.mark;
            return verdict;
        }
        verdict.cut = files.iter().any(|file| file.head.is_some()).then_some(self.good);
        verdict
    }
}
