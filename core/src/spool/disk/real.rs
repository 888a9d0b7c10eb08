//! A directory of the file system.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use super::{Disk, DiskFile, DiskLock, FileId};
use crate::Error;

const LOCK: &str = "lock";

/// So many folders may be new at a start.
const NEW_FOLDERS: usize = 3;

/// A directory of the file system.
#[derive(Debug)]
pub struct RealDisk {
    dir: PathBuf,
    /// The directory itself, to make its names durable: opened once, since a process that has no file left to open must
    /// not take that for a failed fsync.
    handle: OnceLock<File>,
}

impl RealDisk {
    /// Returns the directory, made with its parents where it is missing.
    ///
    /// # Errors
    ///
    /// `Transient` or `Permanent` when it cannot be made.
    pub fn create(dir: impl Into<PathBuf>) -> Result<Self, Error> {
        let disk = Self::at(dir);
        let made = std::fs::create_dir_all(&disk.dir);
        made.map_err(|cause| {
            let text = format!("cannot make `{}`", disk.place());
            let error = if super::is_full(&cause) { Error::transient(text) } else { Error::permanent(text) };
            error.because(cause)
        })?;
        // The new names must survive a power cut as well, or the spool is gone with all that was fsynced into it: its own,
        // the pipeline's folder, and the data folder.
        let real = disk.dir.canonicalize();
        let above = real.iter().flat_map(|dir| dir.ancestors().skip(1).take(NEW_FOLDERS));
        for folder in above {
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            // A folder that may not be read is none that was just made.
            if let Err(cause) = synced.or_else(|cause| if is_denied(&cause) { Ok(()) } else { Err(cause) }) {
                return Err(super::fault("sync the directory above", &disk, "", cause));
            }
        }
        Ok(disk)
    }

    /// Returns a directory that exists.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), handle: OnceLock::new() }
    }

    /// Returns the directory of a pipeline that does not run, for looking only.
    ///
    /// # Errors
    ///
    /// `Config` when there is no such directory, or a process has it.
    pub fn stopped(dir: impl Into<PathBuf>) -> Result<(Self, StoppedLock), Error> {
        let disk = Self::at(dir);
        let readable = std::fs::read_dir(&disk.dir);
        readable
            .map_err(|cause| Error::config(format!("cannot read the directory `{}`", disk.place())).because(cause))?;
        let Ok(file) = File::open(disk.path(LOCK)) else { return Ok((disk, StoppedLock(None))) };
        match file.try_lock_shared() {
            Ok(()) => Ok((disk, StoppedLock(Some(file)))),
            Err(TryLockError::WouldBlock) => Err(disk.in_use()),
            Err(TryLockError::Error(cause)) => Err(super::fault("lock", &disk, LOCK, cause)),
        }
    }

    /// Returns the refusal of a directory that a process has now; `None` where nobody has it, and where nobody can tell:
    /// who takes it will be told what is wrong with it.
    pub fn refusal(dir: impl Into<PathBuf>) -> Option<Error> {
        let disk = Self::at(dir);
        let file = File::open(disk.path(LOCK)).ok()?;
        // Let go of at once: this is a look, not a claim.
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)).then(|| disk.in_use())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn in_use(&self) -> Error {
        let owner = std::fs::read_to_string(self.path(LOCK)).unwrap_or_default();
        let owner = owner.trim();
        let by = if owner.is_empty() { "another process" } else { owner };
        Error::config(format!("`{}` is already in use by {by}", self.place()))
    }
}

impl Disk for RealDisk {
    fn create_new(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.path(name))?;
        Ok(Arc::new(RealFile { file, is_writable: Ok(()) }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path(name);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => RealFile { file, is_writable: Ok(()) },
            Err(why) => RealFile { file: File::open(&path)?, is_writable: Err(why.kind()) },
        };
        Ok(Arc::new(file))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            // A name that is no text is none of ours.
            if let (true, Ok(name)) = (entry.file_type()?.is_file(), entry.file_name().into_string()) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn sync_dir(&self) -> io::Result<()> {
        if let Some(handle) = self.handle.get() {
            return handle.sync_all();
        }
        let handle = File::open(&self.dir)?;
        self.handle.get_or_init(|| handle).sync_all()
    }

    fn lock(&self) -> Result<Box<dyn DiskLock>, Error> {
        let handle = File::open(&self.dir).map_err(|cause| super::fault("open", self, "", cause))?;
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(self.path(LOCK));
        let mut file = opened.map_err(|cause| super::fault("open", self, LOCK, cause))?;
        match file.try_lock() {
            Ok(()) => {}
            // Those who only look share it; what the file says is then of a process that is gone.
            Err(TryLockError::WouldBlock) if file.try_lock_shared().is_ok() => {
                let place = self.place();
                return Err(Error::config(format!(
                    "`{place}` is being looked at by `tidegate spool`: wait for its end"
                )));
            }
            Err(TryLockError::WouldBlock) => return Err(self.in_use()),
            Err(TryLockError::Error(cause)) => return Err(super::fault("lock", self, LOCK, cause)),
        }
        // Now, so that no fsync has to open it.
        self.handle.get_or_init(|| handle);
        let started = humantime::format_rfc3339_seconds(SystemTime::now());
        // Only words for the message of a second process: on a full disk the lock holds all the same.
        let said = file.set_len(0).and_then(|()| writeln!(file, "pid {}, started {started}", std::process::id()));
        if let Err(error) = said {
            tracing::debug!(%error, "the lock file does not say who holds it");
        }
        Ok(Box::new(RealLock(file)))
    }

    fn place(&self) -> String {
        self.dir.display().to_string()
    }
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

#[derive(Debug)]
struct RealFile {
    file: File,
    /// Why nothing can be written, where the file could be opened for reading only.
    is_writable: Result<(), io::ErrorKind>,
}

impl DiskFile for RealFile {
    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.is_writable?;
        self.file.write_all_at(bytes, at)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(bytes, at)
    }

    fn id(&self) -> io::Result<FileId> {
        let metadata = self.file.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.is_writable?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The system lets go of the lock when the file is closed, also by a death of the process.
#[derive(Debug)]
struct RealLock(#[expect(dead_code, reason = "held, not read")] File);

impl DiskLock for RealLock {}

/// Keeps a pipeline from starting on files that are looked at.
#[derive(Debug)]
pub struct StoppedLock(#[expect(dead_code, reason = "held, not read")] Option<File>);
