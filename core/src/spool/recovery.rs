//! Opening a spool: what is there, what is cut, what is lost, and from where continuity is restored.

use std::{cmp::Ordering, sync::Arc};

use super::{
    Boot, BootSpan, Control, Cursor, Item, ItemBuffer, SourceInfo, SpoolLimits, SpoolPosition, SpoolReader,
    SpoolWriter, Step, StreamInfo,
    disk::{Disk, DiskLock, fault, is_unreadable, read_around, read_full, remove_any},
    entry::MIN_ITEM,
    files::{BAD, NEXT, random, segment_first},
    head::SegmentHead,
    shared::{Segment, SegmentMeta, Shared, State, end_before},
    survey::{File, Verdict, survey},
    writer::{Append, Beginning},
};
use crate::{
    Error, Result,
    row::Timestamp,
    rules::{Rule, holds},
};

/// Whose spool it is.
#[derive(Debug, Clone)]
pub struct SpoolOptions {
    /// The pipeline's name. A spool belongs to one.
    pub pipeline: String,
    /// The sources of today, with their tables.
    pub sources: Vec<SourceInfo>,
    /// How large it may get.
    pub limits: SpoolLimits,
}

/// Segment files in the order of their first offsets.
type Names = Vec<(u64, String)>;

/// What was found when a spool was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Whether there was no spool.
    pub new: bool,
    /// The last offset.
    pub end: u64,
    /// How many bytes of the torn tail were cut.
    pub torn_bytes: u64,
    /// Offsets that were durable and are lost to corruption, as first and last. Those in segments that need not be read to
    /// go on are found when somebody reads them.
    pub corrupt: Vec<(u64, u64)>,
    /// Segments whose head cannot be read. At the end of the spool they are put aside under another name.
    pub unreadable: Vec<String>,
}

/// A spool that is locked, checked and cut, and not yet written.
#[derive(Debug)]
pub struct Recovery {
    disk: Arc<dyn Disk>,
    lock: Box<dyn DiskLock>,
    options: SpoolOptions,
    report: RecoveryReport,
    shared: Arc<Shared>,
    snapshot: Option<Vec<u8>>,
    /// The sources as the newest head has them.
    before: Vec<SourceInfo>,
    /// Where the snapshot stands.
    replay_from: u64,
    replayed: bool,
    next: u64,
    /// Files that are no part of the spool any more.
    leftovers: Vec<String>,
}

impl Recovery {
    /// Locks the directory and finds the end of the spool. What is readable afterwards is durable.
    ///
    /// # Errors
    ///
    /// `Config` when another process has the spool, or it is another pipeline's or of a newer format. `Permanent` when
    /// continuity cannot be restored from it. `Transient` when the disk fails.
    pub fn open(disk: Arc<dyn Disk>, options: SpoolOptions) -> Result<Self> {
        let name = options.pipeline.clone();
        Self::open_of(disk, options, &[&name])
    }

    /// Opens a spool as [`open`](Self::open) does, which may be that of the pipeline `old`: what is written from here on says
    /// that it is that of `options`.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_renamed(disk: Arc<dyn Disk>, options: SpoolOptions, old: &str) -> Result<Self> {
        let name = options.pipeline.clone();
        Self::open_of(disk, options, &[&name, old])
    }

    fn open_of(disk: Arc<dyn Disk>, options: SpoolOptions, pipelines: &[&str]) -> Result<Self> {
        let lock = disk.lock()?;
        let names = tidy(&*disk)?;
        let (mut files, older) = read_tail(&*disk, names)?;
        check_identity(&*disk, &files, pipelines)?;
        let survey = survey(&*disk, &mut files)?;
        let verdict = survey.judge(&files);
        if let Some((last, at)) = verdict.cut
            && survey.unreadable.iter().any(|place| *place >= (last, at))
        {
            // What may be only out of reach is not cut.
            let name = &files[last].name;
            return Err(Error::transient(format!("the end of `{}/{name}` cannot be read", disk.place())));
        }
        let mut report =
            RecoveryReport { corrupt: verdict.corrupt.clone(), end: verdict.end, ..RecoveryReport::default() };
        cut(&*disk, &mut files, &verdict, &mut report)?;
        if holds(Rule::Harden) {
            harden(&*disk, &files, survey.durable())?;
        }
        let base = files.first_mut().and_then(|file| file.head.as_mut());
        report.new = base.is_none();
        let replay_from = base.as_ref().map_or(0, |head| head.previous_end);
        let snapshot = base.and_then(|head| head.snapshot.take());
        // No two segments have one name, even if the last one is empty.
        let newest = files.last().map_or(0, |file| file.first);
        let newest_head = files.iter().rev().find_map(|file| file.head.as_ref());
        let before = newest_head.map_or_else(Vec::new, |head| head.sources.clone());
        let highest = survey.seen.max(survey.mark).max(report.end).max(newest);
        // What was cut had offsets too, and nobody can tell which any more.
        let torn = if report.torn_bytes > 0 { report.torn_bytes / MIN_ITEM + 1 } else { 0 };
        let sources = options.sources.clone().into();
        // A boot that wrote nothing leaves its place to the next one.
        let unused = files.last().filter(|last| last.head.is_some() && last.entries == 0 && highest == last.first);
        let unused = unused.filter(|_| torn == 0).map(|last| last.first);
        let (shared, leftovers) = share(disk.clone(), &options.pipeline, sources, files, older, report.end)?;
        for (first, last) in &report.corrupt {
            shared.note_lost(*first, *last);
        }
        if unused.is_some() {
            shared.write().segments.pop();
        }
        // What did not survive its making was never seen by anybody: the spool begins anew, under another id.
        let next = if report.new { 1 } else { unused.unwrap_or(highest + torn + 1) };
        let shared = Arc::new(shared);
        Ok(Self {
            disk,
            lock,
            options,
            report,
            shared,
            snapshot,
            before,
            replay_from,
            replayed: false,
            next,
            leftovers,
        })
    }

    /// Returns what was found.
    pub fn report(&self) -> &RecoveryReport {
        &self.report
    }

    /// Returns continuity as it was before the items that [`Recovery::replay`] shows; `None` for a new spool.
    pub fn snapshot(&self) -> Option<&[u8]> {
        self.snapshot.as_deref()
    }

    /// Returns what the heads say of streams, by number. Known before the replay, it outlives the item that said it first.
    pub fn streams(&self) -> Vec<(u32, Arc<StreamInfo>)> {
        let mut streams: Vec<_> = self.shared.read().streams.iter().map(|(id, info)| (*id, info.clone())).collect();
        streams.sort_unstable_by_key(|(id, _)| *id);
        streams
    }

    /// Returns the sources that have streams here: today's as they are today, the others as the newest head has them.
    pub fn sources(&self) -> Vec<SourceInfo> {
        let today = &self.options.sources;
        let vanished = self.before.iter().filter(|old| !today.iter().any(|source| source.name == old.name));
        let state = self.shared.read();
        let has_streams = |source: &&SourceInfo| state.streams.values().any(|stream| stream.source == source.name);
        today.iter().chain(vanished).filter(has_streams).cloned().collect()
    }

    /// Shows all that came after the snapshot.
    ///
    /// # Errors
    ///
    /// `Transient` when a file cannot be read.
    pub fn replay(mut self, mut each: impl FnMut(Step<'_>)) -> Result<Self> {
        let from = SpoolPosition { offset: self.replay_from, ..SpoolPosition::START };
        let mut cursor = self.reader().cursor(from);
        learn(&self.shared, &mut cursor, &mut self.leftovers, &mut each)?;
        self.replayed = true;
        Ok(self)
    }

    /// Returns the readers' side, to look before anything is written: it must be let go of before the spool is begun. What
    /// streams stand for is known after the replay.
    pub fn reader(&self) -> SpoolReader {
        SpoolReader::new(self.shared.clone())
    }

    /// Begins to write: a new boot with a segment of its own, at whose head `snapshot` stands, and whose first entry is the
    /// control item that is returned, at the returned offset.
    ///
    /// # Errors
    ///
    /// `Transient` when the disk has no room or fails; `Permanent` when it is read-only, or somebody still looks.
    pub fn begin(self, snapshot: Vec<u8>, at: Timestamp, version: &str) -> Result<Begun> {
        let recovery = if self.replayed { self } else { self.replay(|_| {})? };
        // One that is gone stays in the heads as long as it has streams: at the next start it is asked for, too.
        let today = &recovery.options.sources;
        let is_gone = |source: &SourceInfo| !today.iter().any(|known| known.name == source.name);
        let gone = recovery.sources().into_iter().filter(is_gone);
        let sources = today.iter().cloned().chain(gone).collect();
        let alone = Arc::into_inner(recovery.shared);
        let mut shared = alone.ok_or_else(|| Error::permanent("somebody still reads the spool that is to be begun"))?;
        shared.sources = sources;
        let boot = Boot(if holds(Rule::FreshBoot) { random() } else { 1 });
        let mut writer = SpoolWriter::begin(Beginning {
            disk: recovery.disk,
            lock: recovery.lock,
            shared,
            limits: recovery.options.limits,
            pipeline: recovery.options.pipeline,
            boot,
            first: recovery.next,
            snapshot,
            leftovers: recovery.leftovers,
        })?;
        let item = Control::Boot { boot, at, version: version.to_owned() };
        let mut items = ItemBuffer::default();
        items.push_control(&item);
        match writer.append(&items, std::time::Duration::ZERO)? {
            Append::Written { first, .. } => Ok(Begun { writer, boot: item, offset: first }),
            // `max_bytes` does not count here.
            Append::Full | Append::Behind => Err(Error::transient("the disk has no room to open the spool")),
        }
    }
}

/// A spool that can be written.
#[derive(Debug)]
pub struct Begun {
    /// Its writer.
    pub writer: SpoolWriter,
    /// The first item, already written.
    pub boot: Control,
    /// Its offset.
    pub offset: u64,
}

/// Returns the segments in the order of their offsets, and removes what a crash left unfinished.
fn tidy(disk: &dyn Disk) -> Result<Names> {
    remove_any(disk, NEXT).map_err(|cause| fault("remove", disk, NEXT, cause))?;
    list(disk)
}

/// Returns the segments in the order of their offsets.
pub(super) fn list(disk: &dyn Disk) -> Result<Names> {
    let names = disk.list().map_err(|cause| fault("list", disk, "", cause))?;
    let mut segments: Vec<_> = names.into_iter().filter_map(|name| Some((segment_first(&name)?, name))).collect();
    segments.sort_unstable();
    Ok(segments)
}

/// Reads the newest segments, back to one from which continuity can be restored and before which all was durable. The
/// rest is returned as it is.
fn read_tail(disk: &dyn Disk, mut names: Names) -> Result<(Vec<File>, Names)> {
    let (mut files, mut mark) = (Vec::new(), 0);
    while let Some((first, name)) = names.pop() {
        let file = File::open(disk, name, first)?;
        let is_base = file.is_base(disk, &mut mark)?;
        files.push(file);
        if is_base {
            files.reverse();
            return Ok((files, names));
        }
    }
    files.reverse();
    // What stood before the oldest went because a later head with a snapshot was durable, and all before that head. Which
    // one is written nowhere: none of them is older than the first that is left.
    let has_none = |file: &&File| file.head.as_ref().is_some_and(|head| head.snapshot.is_none());
    let without = files.iter().take_while(has_none).count();
    if files.get(without).is_some_and(|file| file.head.is_some()) {
        let older = files.drain(..without).map(|file| (file.first, file.name)).collect();
        return Ok((files, older));
    }
    // A spool whose first segment did not survive its making has never been read by anybody.
    if files.len() > 1 || files.iter().any(|file| file.first > 1 || file.head.is_some()) {
        let place = disk.place();
        return Err(Error::permanent(format!(
            "no segment in `{place}` has a head from which continuity can be restored"
        )));
    }
    Ok((files, names))
}

fn check_identity(disk: &dyn Disk, files: &[File], pipelines: &[&str]) -> Result<()> {
    let mut heads = files.iter().filter_map(|file| file.head.as_ref());
    let Some(base) = heads.next() else { return Ok(()) };
    let place = disk.place();
    if !pipelines.contains(&&*base.pipeline) {
        let (theirs, ours) = (&base.pipeline, pipelines[0]);
        return Err(Error::config(format!("the spool `{place}` is that of the pipeline `{theirs}`, not of `{ours}`")));
    }
    if heads.any(|head| head.spool != base.spool) {
        return Err(Error::permanent(format!("`{place}` holds segments of more than one spool")));
    }
    Ok(())
}

/// Cuts the torn tail, and puts segments without a head aside where nothing durable follows.
fn cut(disk: &dyn Disk, files: &mut Vec<File>, verdict: &Verdict, report: &mut RecoveryReport) -> Result<()> {
    let keep = match verdict.cut {
        Some((last, at)) => {
            let file = &mut files[last];
            if file.len > at {
                report.torn_bytes += file.len - at;
                file.file.truncate(at).map_err(|cause| fault("cut", disk, &file.name, cause))?;
                file.len = at;
            }
            last + 1
        }
        None => files.iter().rposition(|file| file.head.is_some()).map_or(0, |last| last + 1),
    };
    let torn: Vec<_> = files.drain(keep..).collect();
    for file in torn.iter().rev() {
        report.torn_bytes += file.len;
        let failed = |cause| fault("remove", disk, &file.name, cause);
        if file.head.is_some() {
            disk.remove(&file.name).map_err(failed)?;
        } else if is_blank(disk, file)? {
            // A power cut came before its head was on disk: there was never anything in it.
            disk.remove(&file.name).map_err(failed)?;
        } else {
            let aside = format!("{}.{BAD}", file.name);
            disk.rename(&file.name, &aside).map_err(failed)?;
            report.unreadable.push(aside);
        }
    }
    let unreadable = files.iter().filter(|file| file.head.is_none());
    report.unreadable.extend(unreadable.map(|file| file.name.clone()));
    Ok(())
}

/// Returns whether a file holds nothing but zeros, if anything.
fn is_blank(disk: &dyn Disk, file: &File) -> Result<bool> {
    let mut block = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        match read_full(&*file.file, &mut block, at) {
            Ok(0) => return Ok(true),
            Ok(n) if block[..n].iter().all(|byte| *byte == 0) => at += n as u64,
            Ok(_) => return Ok(false),
            Err(error) if is_unreadable(&error) => return Ok(false),
            Err(cause) => return Err(fault("read", disk, &file.name, cause)),
        }
    }
}

/// Makes durable what a process that is gone may have left to the system only.
///
/// All behind `durable` is written once more as it is: where an fsync of that process failed, the system may hold pages that
/// it takes for written, and another fsync would pass over them.
fn harden(disk: &dyn Disk, files: &[File], durable: (usize, u64)) -> Result<()> {
    let mut block = vec![0; 1 << 20];
    // The last one may have been cut, whatever is known about it.
    for (i, file) in files.iter().enumerate().skip(durable.0.min(files.len().saturating_sub(1))) {
        let mut at = match i.cmp(&durable.0) {
            Ordering::Less => file.len,
            Ordering::Equal => durable.1,
            Ordering::Greater => 0,
        };
        while at < file.len {
            let wanted = block.len().min(usize::try_from(file.len - at).unwrap_or(usize::MAX));
            let mut lost = Vec::new();
            let read = read_around(&*file.file, &mut block[..wanted], at, &mut lost);
            let n = read.map_err(|cause| fault("read", disk, &file.name, cause))?;
            if n == 0 {
                break;
            }
            let end = at + n as u64;
            let mut from = at;
            for (lost_from, lost_to) in lost.into_iter().chain([(end, end)]) {
                let some = &block[(from - at) as usize..(lost_from - at) as usize];
                file.file.write_all_at(some, from).map_err(|cause| fault("write", disk, &file.name, cause))?;
                from = lost_to;
            }
            at = end;
        }
        file.file.sync_data().map_err(|cause| fault("sync", disk, &file.name, cause))?;
    }
    disk.sync_dir().map_err(|cause| fault("sync", disk, "", cause))
}

/// Makes the common view of all that is left, and returns it with the names of files that are no part of it any more.
pub(super) fn share(
    disk: Arc<dyn Disk>,
    pipeline: &str,
    sources: Arc<[SourceInfo]>,
    files: Vec<File>,
    older: Names,
    end: u64,
) -> Result<(Shared, Vec<String>)> {
    let newest = files.iter().rev().find_map(|file| file.head.as_ref());
    let boots = newest.map_or_else(Vec::new, |head| closed_boots(head, end));
    let spool = newest.map_or_else(random, |head| head.spool);
    let dropped = newest.map_or_else(Vec::new, |head| head.dropped.clone());
    let mut state = State { boots, ..State::default() };
    // Later heads too: an item that is lost between them said no more.
    for (id, stream) in files.iter().filter_map(|file| file.head.as_ref()).flat_map(|head| &head.streams) {
        state.name(*id, stream.clone());
    }

    let firsts: Vec<u64> = older.iter().map(|(first, _)| *first).chain(files.iter().map(|file| file.first)).collect();
    let end_of = |i: usize| firsts.get(i + 1).map_or(end, |&next| end_before(next, &state.boots));
    let mut segments = Vec::with_capacity(firsts.len());
    for (first, name) in older {
        let len = disk.open(&name).and_then(|file| file.len());
        let len = len.map_err(|cause| fault("open", &*disk, &name, cause))?;
        segments.push(Arc::new(Segment::sealed(name, first, end_of(segments.len()), len)));
    }
    for file in files {
        let segment = Segment::sealed(file.name, file.first, end_of(segments.len()), file.len);
        if file.has_lost {
            segment.give_up();
        }
        let meta = file.head.map(|head| SegmentMeta::new(&head, file.entries_at, &sources));
        segments.push(Arc::new(segment.known(meta)));
    }
    state.segments = segments;
    // A process that was killed may not have removed the files.
    let left = dropped.into_iter().flat_map(|(first, last)| state.gone(first, last));
    let left = left.map(|segment| segment.name.clone()).collect();
    let shared = Shared::new(disk, pipeline, spool, sources, end, state);
    Ok((shared, left))
}

/// Returns the boots of a head, none of which runs any more.
fn closed_boots(head: &SegmentHead, end: u64) -> Vec<BootSpan> {
    let mut boots = head.boots.clone();
    if let Some(last) = boots.last_mut() {
        last.last = end;
    }
    // One that left nothing behind was never seen by anybody.
    boots.retain(|span| span.first <= span.last);
    boots
}

/// Shows each step, and keeps what readers have to know.
fn learn(
    shared: &Shared,
    cursor: &mut Cursor,
    leftovers: &mut Vec<String>,
    each: &mut impl FnMut(Step<'_>),
) -> Result<()> {
    while let Some(step) = cursor.next(u64::MAX)? {
        if let Step::Entry(entry) = &step {
            for (_, item) in entry.items() {
                match item {
                    Item::Control(Control::Stream { id, source, key }) => {
                        shared.write().name(id, StreamInfo { source: source.into(), key });
                    }
                    Item::Control(Control::Retired { stream }) => _ = shared.write().streams.remove(&stream),
                    Item::Control(Control::SegmentDropped { first, last }) => {
                        let gone = shared.write().gone(first, last);
                        leftovers.extend(gone.into_iter().map(|segment| segment.name.clone()));
                    }
                    Item::Control(_) | Item::Row(..) => {}
                }
            }
        }
        each(step);
    }
    Ok(())
}
