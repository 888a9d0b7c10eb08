//! Looking at the spool of a pipeline that does not run: `tidegate spool inspect | verify | dump`. Nothing is changed.

use std::{fmt, path::Path, sync::Arc};

use serde::Serialize;

use super::{
    BootSpan, Control, Item, SourceInfo, SpoolReader,
    disk::{Disk, RealDisk},
    recovery::{list, share},
    shared::Shared,
    survey::{File, Survey, Verdict, survey},
};
use crate::{Error, Result};

mod dump;

#[cfg(test)]
pub(super) use dump::dump_disk;
pub use dump::{DumpFormat, dump};

/// What the heads of a spool's segments say.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// The directory.
    pub directory: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The spool's id, in hexadecimal digits.
    pub spool: String,
    /// The length of all segments together, in bytes.
    pub bytes: u64,
    /// How many streams had a number when the newest segment began.
    pub streams: usize,
    /// The boots that are still of interest.
    pub boots: Vec<BootLine>,
    /// The sources, with their tables, as the last boot had them.
    pub sources: Vec<SourceLine>,
    /// The segments, oldest first.
    pub segments: Vec<SegmentLine>,
}

/// The offsets of a boot.
#[derive(Debug, Clone, Serialize)]
pub struct BootLine {
    /// The boot's number, in hexadecimal digits.
    pub boot: String,
    /// Its first offset.
    pub first: u64,
    /// Its last offset, where a later boot has found it.
    pub last: Option<u64>,
}

/// A source with its tables.
#[derive(Debug, Clone, Serialize)]
pub struct SourceLine {
    /// The source's name.
    pub name: String,
    /// The component's type.
    pub venue: String,
    /// Its tables, by name.
    pub tables: Vec<String>,
}

/// One segment file.
#[derive(Debug, Clone, Serialize)]
pub struct SegmentLine {
    /// The file's name.
    pub file: String,
    /// The first offset.
    pub first: u64,
    /// The length of the file, in bytes.
    pub bytes: u64,
    /// The boot that wrote it, in hexadecimal digits; absent where the head cannot be read.
    pub boot: Option<String>,
    /// The length of continuity at its head, in bytes; absent where there is none.
    pub snapshot_bytes: Option<usize>,
}

/// What reading every entry of a spool has shown.
#[derive(Debug, Clone, Serialize)]
pub struct Verification {
    /// The directory.
    pub directory: String,
    /// Whether everything that was durable can be read.
    pub sound: bool,
    /// The first offset.
    pub first: u64,
    /// The last offset.
    pub last: u64,
    /// All offsets up to this one are known to have been fsynced.
    pub mark: u64,
    /// How many entries there are.
    pub entries: u64,
    /// Offsets that were durable and are lost.
    pub corrupt: Vec<Missing>,
    /// How many bytes at the end the next start will cut, because they were never durable as a whole.
    pub torn_bytes: u64,
    /// Segments whose head cannot be read.
    pub unreadable: Vec<String>,
}

/// Offsets that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
}

/// Returns a reader of what is on the disk now, also beside the process that has the spool: what comes later it does not see.
///
/// # Errors
///
/// `Config` when there is no spool, or none that can be read; `Transient` when the disk fails, or a segment went meanwhile.
pub(crate) fn beside(directory: &Path) -> Result<SpoolReader> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::at(directory));
    let opened = Opened::read(&*disk)?;
    Ok(SpoolReader::new(Arc::new(opened.share(disk)?)))
}

/// Reads the heads.
///
/// # Errors
///
/// `Config` when there is no spool, or a process has it.
pub fn inspect(directory: &Path) -> Result<Inspection> {
    let (disk, _lock) = RealDisk::stopped(directory)?;
    inspect_disk(&disk)
}

/// Reads everything.
///
/// # Errors
///
/// `Config` when there is no spool, or a process has it; `Transient` when the disk fails.
pub fn verify(directory: &Path) -> Result<Verification> {
    let (disk, _lock) = RealDisk::stopped(directory)?;
    verify_disk(Arc::new(disk))
}

pub(super) fn inspect_disk(disk: &dyn Disk) -> Result<Inspection> {
    let files = open_all(disk)?;
    let newest = files.iter().rev().find_map(|file| file.head.as_ref());
    let newest = newest.ok_or_else(|| Error::config(format!("no segment in `{}` can be read", disk.place())))?;
    let boots = newest.boots.iter().map(|span| {
        let BootSpan { boot, first, last } = *span;
        BootLine { boot: hex(boot.0), first, last: (last < u64::MAX).then_some(last) }
    });
    let sources = newest.sources.iter().map(|source| SourceLine {
        name: source.name.to_string(),
        venue: source.venue.to_string(),
        tables: source.tables.iter().map(|table| table.name.to_string()).collect(),
    });
    let segments = files.iter().map(|file| SegmentLine {
        file: file.name.clone(),
        first: file.first,
        bytes: file.len,
        boot: file.head.as_ref().map(|head| hex(head.boot.0)),
        snapshot_bytes: file.head.as_ref().and_then(|head| head.snapshot.as_ref()).map(Vec::len),
    });
    Ok(Inspection {
        directory: disk.place(),
        pipeline: newest.pipeline.clone(),
        spool: hex(newest.spool),
        bytes: files.iter().map(|file| file.len).sum(),
        streams: newest.streams.len(),
        boots: boots.collect(),
        sources: sources.collect(),
        segments: segments.collect(),
    })
}

pub(super) fn verify_disk(disk: Arc<dyn Disk>) -> Result<Verification> {
    let Opened { files, survey, verdict, unreadable, .. } = Opened::read(&*disk)?;
    let torn_bytes = verdict.cut.map_or(0, |(last, at)| {
        files[last].len.saturating_sub(at) + files[last + 1..].iter().map(|file| file.len).sum::<u64>()
    });
    Ok(Verification {
        directory: disk.place(),
        sound: verdict.corrupt.is_empty() && unreadable.is_empty(),
        first: files.first().map_or(0, |file| file.first),
        last: verdict.end,
        mark: survey.mark,
        entries: files.iter().map(|file| file.entries).sum(),
        corrupt: verdict.corrupt.iter().map(|&(first, last)| Missing { first, last }).collect(),
        torn_bytes,
        unreadable,
    })
}

/// All segments of a spool, read.
struct Opened {
    files: Vec<File>,
    survey: Survey,
    verdict: Verdict,
    unreadable: Vec<String>,
    /// What was dropped because the spool was full.
    dropped: Vec<(u64, u64)>,
}

impl Opened {
    fn read(disk: &dyn Disk) -> Result<Self> {
        let mut files = open_all(disk)?;
        let unreadable = files.iter().filter(|file| file.head.is_none()).map(|file| file.name.clone()).collect();
        // Before the first head nothing can be understood.
        let readable = files.iter().position(|file| file.head.is_some());
        files.drain(..readable.unwrap_or(files.len()));
        if files.is_empty() {
            return Err(Error::config(format!("no segment in `{}` can be read", disk.place())));
        }
        let survey = survey(disk, &mut files)?;
        let mut verdict = survey.judge(&files);
        let dropped = dropped(disk, &files)?;
        for gone in &dropped {
            verdict.corrupt = verdict.corrupt.iter().flat_map(|range| without(*range, *gone)).collect();
        }
        Ok(Self { files, survey, verdict, unreadable, dropped })
    }

    /// Returns a view for a cursor, without what a start would cut.
    fn share(mut self, disk: Arc<dyn Disk>) -> Result<Shared> {
        if let Some((last, at)) = self.verdict.cut {
            self.files.truncate(last + 1);
            self.files[last].len = at;
        }
        let newest = self.files.iter().rev().find_map(|file| file.head.as_ref());
        let sources: Arc<[SourceInfo]> = newest.map_or(&[][..], |head| &head.sources).into();
        let pipeline = newest.map_or_else(String::new, |head| head.pipeline.clone());
        let (shared, _) = share(disk, &pipeline, sources, self.files, Vec::new(), self.verdict.end)?;
        self.dropped.iter().for_each(|&(first, last)| _ = shared.write().gone(first, last));
        Ok(shared)
    }
}

/// Returns what the newest head says of offsets that were dropped, and what stands behind it.
fn dropped(disk: &dyn Disk, files: &[File]) -> Result<Vec<(u64, u64)>> {
    let Some(newest) = files.iter().rfind(|file| file.head.is_some()) else { return Ok(Vec::new()) };
    let mut dropped = newest.head.as_ref().map_or_else(Vec::new, |head| head.dropped.clone());
    newest.each_item(disk, |item| {
        if let Item::Control(Control::SegmentDropped { first, last }) = item {
            dropped.push((first, last));
        }
    })?;
    Ok(dropped)
}

/// Returns what is left of a range without another one.
fn without((first, last): (u64, u64), gone: (u64, u64)) -> impl Iterator<Item = (u64, u64)> {
    let parts = [(first, last.min(gone.0.saturating_sub(1))), (first.max(gone.1.saturating_add(1)), last)];
    parts.into_iter().filter(|(first, last)| first <= last)
}

fn open_all(disk: &dyn Disk) -> Result<Vec<File>> {
    let names = list(disk)?;
    if names.is_empty() {
        return Err(Error::config(format!("there is no spool in `{}`", disk.place())));
    }
    names.into_iter().map(|(first, name)| File::open(disk, name, first)).collect()
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "spool     {} of the pipeline `{}` in {}", self.spool, self.pipeline, self.directory)?;
        let (bytes, segments, streams) = (self.bytes, self.segments.len(), self.streams);
        let segments = if segments == 1 { "1 segment".to_owned() } else { format!("{segments} segments") };
        let streams = if streams == 1 { "1 stream was".to_owned() } else { format!("{streams} streams were") };
        writeln!(f, "size      {bytes} bytes in {segments}; {streams} known when the newest began")?;
        for source in &self.sources {
            writeln!(f, "source    {} ({}): {}", source.name, source.venue, source.tables.join(", "))?;
        }
        for boot in &self.boots {
            let last = boot.last.map_or_else(|| "…".to_owned(), |last| last.to_string());
            writeln!(f, "boot      {}  offsets {} to {last}", boot.boot, boot.first)?;
        }
        for segment in &self.segments {
            let boot = segment.boot.as_deref().unwrap_or("unreadable head");
            writeln!(f, "segment   {}  {} bytes  {boot}", segment.file, segment.bytes)?;
        }
        Ok(())
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.sound { "sound" } else { "DAMAGED" };
        writeln!(
            f,
            "{verdict}: {} entries, offsets {} to {} in {}",
            self.entries, self.first, self.last, self.directory
        )?;
        writeln!(f, "the last fsync that an entry tells of: up to offset {}", self.mark)?;
        for Missing { first, last } in &self.corrupt {
            writeln!(f, "lost to corruption: offsets {first} to {last}")?;
        }
        for file in &self.unreadable {
            writeln!(f, "unreadable head: {file}")?;
        }
        if self.torn_bytes > 0 {
            writeln!(f, "torn tail: {} bytes that were never durable, cut at the next start", self.torn_bytes)?;
        }
        Ok(())
    }
}
