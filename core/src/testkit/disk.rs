//! A disk in memory that fails on demand.
//!
//! It knows the difference between written and durable. A killed process loses nothing that was written; a power cut
//! loses every 4 KiB page that was not synced, each by its own luck, and names since the last sync of the directory. A
//! failed sync drops the pages for good: asking again succeeds and proves nothing, as on real systems.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::pages::{PAGE, Pages};
use crate::{
    Error,
    spool::disk::{Disk, DiskFile, DiskLock, FileId},
};

/// A directory in memory. Clones are the same directory.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

/// How the disk fails from now on, until told otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Failure {
    /// Not at all.
    #[default]
    None,
    /// There is room for so many more bytes.
    Full(u64),
    /// So many more writes succeed, then all fail, each having written a part.
    Writes(u32),
    /// The next write fails, having written a part.
    OneWrite,
    /// So many more syncs succeed, then one fails.
    OneSync(u32),
    /// Every sync fails.
    Syncs,
    /// The next sync of the directory fails.
    OneDirSync,
    /// So many more files can be opened or made, as when a process has too many.
    Opens(u32),
    /// No name can be made, changed or removed.
    Names,
    /// Nothing can be changed.
    ReadOnly,
}

#[derive(Debug, Clone, Default)]
struct State {
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// What happened to names since the directory was synced.
    pending: Vec<NameChange>,
    files: HashMap<u64, Contents>,
    next_file: u64,
    /// Files that were removed, by the last name, where somebody wants to look at them.
    removed: Option<BTreeMap<String, u64>>,
    failure: Failure,
    locked: bool,
    /// After so many more changes the process that makes them is gone.
    dies_in: Option<u32>,
    /// Counts crashes: handles of a process that is gone do nothing.
    life: u32,
    syncs: u64,
    writes: u64,
}

#[derive(Debug, Clone)]
enum NameChange {
    Added(String, u64),
    Removed(String),
    Renamed(String, String),
}

#[derive(Debug, Clone, Default)]
struct Contents {
    written: Pages,
    durable: Pages,
    /// Pages that a sync would make durable.
    dirty: BTreeSet<usize>,
    /// Pages that the medium does not give any more.
    bad: BTreeSet<usize>,
    /// Pages that are in memory only and that no sync touches any more.
    dropped: BTreeSet<usize>,
}

impl SimDisk {
    /// Sets how the disk fails from now on.
    pub fn fail(&self, failure: Failure) {
        self.state().failure = failure;
    }

    /// Returns how the disk fails.
    pub fn failure(&self) -> Failure {
        self.state().failure
    }

    /// The process is killed: what it has written stays, its handles are dead, its lock is gone.
    pub fn kill(&self) {
        let mut state = self.state();
        state.life += 1;
        state.locked = false;
        state.dies_in = None;
    }

    /// The process is killed in the middle of what it does: so many more changes succeed, then nothing does any more, until
    /// [`kill`](Self::kill) or [`cut_power`](Self::cut_power) says that it is over.
    pub fn kill_after(&self, changes: u32) {
        self.state().dies_in = Some(changes);
    }

    /// The process is killed no more.
    pub fn spare(&self) {
        self.state().dies_in = None;
    }

    /// Returns whether the process is gone that [`kill_after`](Self::kill_after) was to end.
    pub fn is_dead(&self) -> bool {
        self.state().dies_in == Some(0)
    }

    /// The power fails: what was synced stays, of the rest a part that `luck` decides. Returns numbers up to its argument,
    /// which is included.
    pub fn cut_power(&self, mut luck: impl FnMut(u64) -> u64) {
        let mut state = self.state();
        state.life += 1;
        state.locked = false;
        state.dies_in = None;
        let pending = std::mem::take(&mut state.pending);
        let survived = luck(pending.len() as u64) as usize;
        let mut names = std::mem::take(&mut state.durable_names);
        for change in pending.into_iter().take(survived) {
            change.apply(&mut names);
        }
        // In the order of the names, so that one seed gives one history.
        for file in names.values() {
            if let Some(contents) = state.files.get_mut(file) {
                contents.cut_power(&mut luck);
            }
        }
        let removed = state.removed.clone().unwrap_or_default();
        state.files.retain(|file, _| names.values().chain(removed.values()).any(|named| named == file));
        state.durable_names = names.clone();
        state.names = names;
    }

    /// Flips one bit of a file, in memory and on the medium.
    pub fn flip(&self, name: &str, byte: usize, bit: u8) {
        self.change(name, |contents| {
            contents.written.flip(byte, bit);
            contents.durable.flip(byte, bit);
        });
    }

    /// From now on the page with this byte cannot be read; the disk is well again with [`SimDisk::heal`].
    pub fn spoil(&self, name: &str, byte: usize) {
        self.change(name, |contents| _ = contents.bad.insert(byte / PAGE));
    }

    /// What could not be read can be read again.
    pub fn heal(&self, name: &str) {
        self.change(name, |contents| contents.bad.clear());
    }

    /// Puts a file there, durably.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state();
        state.next_file += 1;
        let file = state.next_file;
        state.names.insert(name.to_owned(), file);
        state.durable_names.insert(name.to_owned(), file);
        let bytes = Pages::of(bytes);
        let contents = Contents { written: bytes.clone(), durable: bytes, ..Contents::default() };
        state.files.insert(file, contents);
    }

    /// Returns what a process would read.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.names.get(name).map(|file| state.files[file].written.bytes()).unwrap_or_default()
    }

    /// Returns the names of all files.
    pub fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// From now on files that are removed are kept where [`with_removed`](Self::with_removed) finds them.
    pub fn keep_removed(&self) {
        self.state().removed.get_or_insert_default();
    }

    /// Returns a disk with all files, those that were removed too.
    #[must_use]
    pub fn with_removed(&self) -> Self {
        let state = self.state();
        let mut names = state.removed.clone().unwrap_or_default();
        names.extend(state.names.iter().map(|(name, file)| (name.clone(), *file)));
        let files = names.values().map(|file| (*file, state.files[file].clone())).collect();
        let durable_names = names.clone();
        Self(Arc::new(Mutex::new(State { names, durable_names, files, ..State::default() })))
    }

    /// Returns a copy: a backup, or the same disk in another machine.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = State { locked: false, dies_in: None, ..self.state().clone() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Returns how many writes and how many syncs of files there were.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.writes, state.syncs)
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Contents)) {
        let mut state = self.state();
        let file = state.names.get(name).copied();
        if let Some(contents) = file.and_then(|file| state.files.get_mut(&file)) {
            change(contents);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, file: u64, life: u32) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), file, life })
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("names", &self.names()).finish_non_exhaustive()
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Added(name, file) => {
                names.insert(name, file);
            }
            Self::Removed(name) => {
                names.remove(&name);
            }
            Self::Renamed(from, to) => {
                if let Some(file) = names.remove(&from) {
                    names.insert(to, file);
                }
            }
        }
    }
}

impl State {
    /// Counts a change that a process makes.
    fn live_on(&mut self) -> io::Result<()> {
        let Some(left) = &mut self.dies_in else { return Ok(()) };
        *left = left.saturating_sub(1);
        if *left == 0 { Err(io::Error::other("the process is gone")) } else { Ok(()) }
    }

    fn change_name(&mut self, change: NameChange) -> io::Result<()> {
        self.writable()?;
        if self.failure == Failure::Names {
            return Err(io::Error::other("input/output error"));
        }
        change.clone().apply(&mut self.names);
        self.pending.push(change);
        Ok(())
    }

    fn writable(&mut self) -> io::Result<()> {
        self.live_on()?;
        if self.failure == Failure::ReadOnly { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }

    fn admit_open(&mut self) -> io::Result<()> {
        let Failure::Opens(left) = &mut self.failure else { return Ok(()) };
        let after = left.checked_sub(1).ok_or_else(|| io::Error::from_raw_os_error(24))?;
        *left = after;
        Ok(())
    }

    /// Returns how many of `len` bytes get written, and what is said about the rest.
    fn admit(&mut self, grows: u64, len: usize) -> (usize, io::Result<()>) {
        match &mut self.failure {
            Failure::ReadOnly => (0, Err(io::ErrorKind::ReadOnlyFilesystem.into())),
            Failure::Full(room) if *room < grows => {
                let written = len - (grows - *room) as usize;
                *room = 0;
                (written, Err(io::ErrorKind::StorageFull.into()))
            }
            Failure::Full(room) => {
                *room -= grows;
                (len, Ok(()))
            }
            Failure::Writes(0) => (len / 2, Err(io::Error::other("input/output error"))),
            Failure::OneWrite => {
                self.failure = Failure::None;
                (len / 2, Err(io::Error::other("input/output error")))
            }
            Failure::Writes(left) => {
                *left -= 1;
                (len, Ok(()))
            }
            Failure::None
            | Failure::OneSync(_)
            | Failure::Syncs
            | Failure::OneDirSync
            | Failure::Opens(_)
            | Failure::Names => (len, Ok(())),
        }
    }

    fn admit_sync(&mut self) -> io::Result<()> {
        self.live_on()?;
        self.syncs += 1;
        match &mut self.failure {
            Failure::Syncs => Err(io::Error::other("input/output error")),
            Failure::OneSync(0) => {
                self.failure = Failure::None;
                Err(io::Error::other("input/output error"))
            }
            Failure::OneSync(left) => {
                *left -= 1;
                Ok(())
            }
            Failure::None
            | Failure::Full(_)
            | Failure::Writes(_)
            | Failure::OneWrite
            | Failure::ReadOnly
            | Failure::OneDirSync
            | Failure::Opens(_)
            | Failure::Names => Ok(()),
        }
    }
}

impl Contents {
    fn write(&mut self, bytes: &[u8], at: usize) {
        self.written.write(bytes, at);
        for page in at / PAGE..(at + bytes.len()).div_ceil(PAGE) {
            self.dirty.insert(page);
            self.dropped.remove(&page);
        }
    }

    fn sync(&mut self) {
        self.durable.resize(self.written.len());
        for page in std::mem::take(&mut self.dirty) {
            self.durable.take(page, &self.written);
        }
    }

    /// The length may be that of the file before or after; each page too, and where it was never written it is zeros.
    fn cut_power(&mut self, luck: &mut impl FnMut(u64) -> u64) {
        let (before, after) = (self.durable.len(), self.written.len());
        let len = before.min(after) + luck(before.abs_diff(after) as u64) as usize;
        let pages: Vec<_> = self.dirty.union(&self.dropped).copied().collect();
        for page in &pages {
            if luck(1) == 1 {
                self.durable.take(*page, &self.written);
            }
        }
        self.durable.resize(len);
        if before != after || !pages.is_empty() {
            self.written.clone_from(&self.durable);
        }
        self.dirty.clear();
        self.dropped.clear();
    }
}

impl Disk for SimDisk {
    fn create_new(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.writable()?;
        state.admit_open()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.next_file += 1;
        let (file, life) = (state.next_file, state.life);
        state.files.insert(file, Contents::default());
        state.change_name(NameChange::Added(name.to_owned(), file))?;
        drop(state);
        Ok(self.handle(file, life))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.admit_open()?;
        let file = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        let life = state.life;
        drop(state);
        Ok(self.handle(file, life))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let file = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        state.change_name(NameChange::Removed(name.to_owned()))?;
        if let Some(removed) = &mut state.removed {
            removed.insert(name.to_owned(), file);
        }
        let freed = state.files[&file].written.len() as u64;
        if let Failure::Full(room) = &mut state.failure {
            *room += freed;
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_name(NameChange::Renamed(from.to_owned(), to.to_owned()))
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        state.live_on()?;
        if state.failure == Failure::OneDirSync {
            state.failure = Failure::None;
            return Err(io::Error::other("input/output error"));
        }
        state.pending.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn lock(&self) -> Result<Box<dyn DiskLock>, Error> {
        let mut state = self.state();
        if state.locked {
            return Err(Error::config("`simulated` is already in use"));
        }
        state.locked = true;
        Ok(Box::new(SimLock { disk: self.clone(), life: state.life }))
    }

    fn place(&self) -> String {
        "simulated".to_owned()
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: u64,
    life: u32,
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut State, &mut Contents) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        if state.life != self.life {
            return Err(io::Error::other("the process that opened this file is gone"));
        }
        let Some(mut contents) = state.files.remove(&self.file) else { return Err(io::ErrorKind::NotFound.into()) };
        let result = act(&mut state, &mut contents);
        state.files.insert(self.file, contents);
        result
    }
}

impl DiskFile for SimFile {
    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.with(|state, contents| {
            state.writes += 1;
            state.live_on()?;
            let grows = (at + bytes.len() as u64).saturating_sub(contents.written.len() as u64);
            let (written, result) = state.admit(grows, bytes.len());
            contents.write(&bytes[..written], at as usize);
            result
        })
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        self.with(|_, contents| {
            let start = contents.written.len().min(at as usize);
            let mut n = bytes.len().min(contents.written.len() - start);
            if let Some(bad) = contents.bad.range(start / PAGE..).next().map(|page| page * PAGE)
                && bad < start + n
            {
                if bad <= start {
                    return Err(io::Error::from_raw_os_error(5));
                }
                n = bad - start;
            }
            Ok(contents.written.read(&mut bytes[..n], start))
        })
    }

    fn id(&self) -> io::Result<FileId> {
        Ok((0, self.file))
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|_, contents| Ok(contents.written.len() as u64))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.with(|state, contents| {
            state.writable()?;
            let old = contents.written.len();
            contents.written.resize(len as usize);
            if let (Failure::Full(room), true) = (&mut state.failure, old > len as usize) {
                *room += (old - len as usize) as u64;
            }
            contents.dirty.insert(len as usize / PAGE);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|state, contents| {
            if let Err(error) = state.admit_sync() {
                let lost = std::mem::take(&mut contents.dirty);
                contents.dropped.extend(lost);
                return Err(error);
            }
            contents.sync();
            Ok(())
        })
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    life: u32,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.locked = false;
        }
    }
}
