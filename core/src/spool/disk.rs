//! What the spool needs of a directory, so that every fault of a disk can be a test.

use std::{
    fmt,
    io::{self, BufWriter, Read, Write},
    sync::Arc,
};

use crate::Error;

mod real;

pub use real::{RealDisk, StoppedLock};

/// One directory. Names have no separators; nobody else writes there while it is locked.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Makes an empty file that must not exist.
    fn create_new(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for reading; for writing too where the medium allows it.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Returns the names of all files.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Removes a file. Who has it open can still read it.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, in place of what has that name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes the names durable.
    fn sync_dir(&self) -> io::Result<()>;

    /// Takes the directory for the life of the returned value.
    ///
    /// # Errors
    ///
    /// `Config` when another process has it, naming that process.
    fn lock(&self) -> Result<Box<dyn DiskLock>, Error>;

    /// Returns how a person would name the directory.
    fn place(&self) -> String;
}

/// One file of a [`Disk`]. Reads and writes at the same time are safe.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Writes all bytes at a place. After an error any part of them may be there.
    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Reads from a place, and returns how many bytes there were: 0 at the end.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize>;

    /// Returns what tells this file from all others that there are now: a name may mean another file than the one that was
    /// opened under it.
    fn id(&self) -> io::Result<FileId>;

    /// Returns the length.
    fn len(&self) -> io::Result<u64>;

    /// Returns whether there is no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Makes the bytes durable. After an error nothing is known about those written since the last success, and calling
    /// again proves nothing: the system may have dropped them.
    fn sync_data(&self) -> io::Result<()>;
}

/// What tells a file from all others that there are: device and number.
pub type FileId = (u64, u64);

/// Keeps a directory taken until it is dropped.
pub trait DiskLock: fmt::Debug + Send + Sync {}

/// Returns the error of a failed file operation.
pub(super) fn fault(action: &str, disk: &dyn Disk, name: &str, cause: io::Error) -> Error {
    let text = format!("cannot {action} `{}/{name}`", disk.place());
    let hopeless = matches!(cause.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied);
    let error = if hopeless { Error::permanent(text) } else { Error::transient(text) };
    error.because(cause)
}

/// Puts a file in the place of what has its name: a crash leaves one or the other, whole.
pub(crate) fn replace(
    disk: &dyn Disk,
    name: &str,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<Arc<dyn DiskFile>> {
    let new = format!("{name}.new");
    remove_any(disk, &new)?;
    let file = disk.create_new(&new)?;
    let mut writer = BufWriter::new(InOrder { file: &*file, at: 0, end: u64::MAX });
    write(&mut writer)?;
    writer.flush()?;
    drop(writer);
    file.sync_data()?;
    disk.rename(&new, name)?;
    disk.sync_dir()?;
    Ok(file)
}

/// Returns a reader of the first `end` bytes of a file.
pub(crate) fn read_to(file: &dyn DiskFile, end: u64) -> impl Read {
    InOrder { file, at: 0, end }
}

/// A file that is read or written from its beginning on.
struct InOrder<'a> {
    file: &'a dyn DiskFile,
    at: u64,
    end: u64,
}

impl Read for InOrder<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.end - self.at).map_or(bytes.len(), |left| left.min(bytes.len()));
        let read = self.file.read_at(&mut bytes[..most], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Write for InOrder<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Removes a file that may not exist.
pub(super) fn remove_any(disk: &dyn Disk, name: &str) -> io::Result<()> {
    match disk.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Returns whether a failure means that there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Returns the error of a file without which nothing goes on: `Transient` where the machine lacks something for now, which is
/// room, descriptors or memory; else `Permanent`.
pub(crate) fn trouble(text: String, cause: io::Error) -> Error {
    let passes = is_full(&cause)
        || matches!(cause.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::Interrupted)
        || matches!(cause.raw_os_error(), Some(ENFILE | EMFILE));
    let error = if passes { Error::transient(text) } else { Error::permanent(text) };
    error.because(cause)
}

/// Too many open files, of the machine and of the process, for which the standard library has no name.
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

/// The part of a file that a medium loses as one.
const SECTOR: usize = 4096;

/// How often a sector is tried that cannot be read.
const TRIES: usize = 3;

/// Returns whether a failure means that the medium has lost the bytes, as far as it knows.
pub(super) fn is_unreadable(error: &io::Error) -> bool {
    // EIO, for which the standard library has no name.
    error.raw_os_error() == Some(5)
}

/// Reads like [`read_full`], and past sectors that cannot be read: their bytes are zeros, and `lost` gets their places.
///
/// # Errors
///
/// When no sector can be read: then it is the medium that is away, and not its bytes.
pub(super) fn read_around(
    file: &dyn DiskFile,
    bytes: &mut [u8],
    at: u64,
    lost: &mut Vec<(u64, u64)>,
) -> io::Result<usize> {
    let failed = match read_full(file, bytes, at) {
        Err(error) if is_unreadable(&error) => error,
        read => return read,
    };
    let len = usize::try_from(file.len()?.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
    let (mut done, before) = (0, lost.len());
    while done < len {
        let place = at + done as u64;
        let sector = &mut bytes[done..len.min(done + SECTOR - (place % SECTOR as u64) as usize)];
        let mut read = read_full(file, sector, place);
        for _ in 1..TRIES {
            if read.as_ref().is_err_and(is_unreadable) {
                read = read_full(file, sector, place);
            }
        }
        match read {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if is_unreadable(&error) => {
                sector.fill(0);
                lost.push((place, place + sector.len() as u64));
                done += sector.len();
            }
            Err(error) => return Err(error),
        }
    }
    let given: u64 = lost[before..].iter().map(|(from, to)| to - from).sum();
    // A block may be no more than the sector itself: then the file's beginning tells.
    let answers = given < done as u64 || file.read_at(&mut [0], 0).is_ok_and(|_| at > 0);
    if answers { Ok(done) } else { Err(failed) }
}

/// Reads until the buffer is full or the file ends, and returns how many bytes there were.
pub(super) fn read_full(file: &dyn DiskFile, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], at + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
