//! The folder of one sink: locked, with a record of what counts in it, and shared with nobody. Everything here blocks.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tidegate_core::{
    Error, Result,
    chunk::SinkTable,
    sink::{Owner, SinkContext},
    spool::SpoolPosition,
};

use super::{
    config::Format,
    record::{Record, failed, sync_directory},
};

/// A folder, locked.
#[derive(Debug)]
pub(super) struct Folder {
    directory: PathBuf,
    record_path: PathBuf,
    /// What counts, as it stands on the disk.
    record: Record,
    record_id: FileId,
    /// The tables' names in the store.
    tables: Vec<String>,
    format: Format,
    /// Keeps others out while it lives.
    _lock: File,
}

/// Which file a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId(u64, u64);

impl Folder {
    /// Makes and locks the folder, and reads or begins its record; returns none where rows are known to have been written,
    /// and there is no record of them. Destroys nothing.
    pub(super) fn open(directory: PathBuf, format: Format, cx: &SinkContext) -> Result<Option<Self>> {
        // Made anew, it would be in the way of the one that was moved away.
        if cx.known.is_some() && matches!(directory.try_exists(), Ok(false)) {
            return Ok(None);
        }
        fs::create_dir_all(&directory).map_err(|error| failed("make the directory", &directory, error))?;
        let lock = lock(&directory)?;
        refuse_others(&directory, &cx.owner)?;
        let tables: Vec<String> = cx.tables.iter().map(|table| table.name.clone()).collect();
        check_names(&cx.tables)?;
        let record_path = directory.join(Record::name(&cx.owner));
        let record = match Record::read(&record_path, &cx.owner)? {
            Some(record) => record,
            None => {
                refuse_strangers(&directory, format, &tables)?;
                if cx.known.is_some() {
                    return Ok(None);
                }
                // Before the first row: then what is found beside a record is ours.
                let record = Record::new(&cx.owner, format);
                record.write(&record_path)?;
                record
            }
        };
        if record.format != format {
            return Err(Error::permanent(format!(
                "`{}` holds files of format \"{}\" of this sink: files of format \"{format}\" need a folder and a sink of \
                 their own",
                directory.display(),
                record.format
            )));
        }
        let record_id = FileId::at(&record_path)?;
        Ok(Some(Self { directory, record_path, record, record_id, tables, format, _lock: lock }))
    }

    /// Returns the path of a file of this folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Returns what counts.
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// Returns where the store is.
    pub(super) fn position(&self) -> SpoolPosition {
        self.record.position().unwrap_or(SpoolPosition::START)
    }

    /// Returns the name in the store of a chunk's table.
    pub(super) fn table(&self, number: usize) -> &str {
        &self.tables[number]
    }

    /// Replaces the record, durably: from here on it is what counts.
    pub(super) fn commit(&mut self, record: Record) -> Result<()> {
        record.write(&self.record_path)?;
        self.record = record;
        self.record_id = FileId::at(&self.record_path)?;
        Ok(())
    }

    /// Returns the name of the file of a table that begins with the row of this offset.
    pub(super) fn name(&self, table: &str, first: u64) -> String {
        format!("{table}-{first:020}.{}", self.format.extension())
    }

    /// Begins a file that must not be there.
    pub(super) fn begin(&self, name: &str) -> Result<File> {
        let path = self.path(name);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|error| failed("make", &path, error))?;
        let length = file.metadata().map_err(|error| failed("look at", &path, error))?.len();
        if length > 0 {
            return Err(Error::permanent(format!("`{}` is there already", path.display())));
        }
        self.sync()?;
        Ok(file)
    }

    /// Removes files that were begun by chunks that do not count, finished or not. They come again: to be called only once
    /// the position was held against the spool.
    pub(super) fn remove_what_does_not_count(&self) -> Result<()> {
        let position = self.position().offset;
        for (name, first) in files_of(&self.directory, self.format, &self.tables)? {
            if first > position {
                let path = self.path(&name);
                fs::remove_file(&path).map_err(|error| failed("remove", &path, error))?;
            }
        }
        self.sync()
    }

    /// Checks that a name still leads to the file that is open.
    pub(super) fn check(&self, file: &File, name: &str) -> Result<()> {
        let path = self.path(name);
        let open = FileId::of(&file.metadata().map_err(|error| failed("look at", &path, error))?);
        if FileId::at(&path).ok() == Some(open) { Ok(()) } else { Err(replaced(&path)) }
    }

    /// Checks that the record is the one that was written.
    pub(super) fn check_record(&self) -> Result<()> {
        if FileId::at(&self.record_path)? == self.record_id { Ok(()) } else { Err(replaced(&self.record_path)) }
    }

    /// Makes what was created, renamed or removed durable.
    pub(super) fn sync(&self) -> Result<()> {
        sync_directory(&self.directory)
    }
}

impl FileId {
    fn of(found: &fs::Metadata) -> Self {
        Self(found.dev(), found.ino())
    }

    fn at(path: &Path) -> Result<Self> {
        fs::metadata(path).map(|found| Self::of(&found)).map_err(|error| failed("look at", path, error))
    }
}

/// Looks whether files can be called like these tables.
pub(super) fn check_names(tables: &[SinkTable]) -> Result<()> {
    let is_strange = |table: &&SinkTable| table.name.contains(['/', '\0']) || table.name.starts_with('.');
    let Some(table) = tables.iter().find(is_strange) else { return Ok(()) };
    Err(Error::config(format!("a file cannot be called `{}`", table.name)))
}

/// What is said of rows that were written and cannot be found.
pub(super) fn gone(path: &Path) -> Error {
    Error::permanent(format!("`{}` is gone, and rows were written to it", path.display()))
}

fn replaced(path: &Path) -> Error {
    Error::transient(format!("`{}` was removed or replaced while it was open", path.display()))
}

/// Takes the directory for this sink: no other one may write there. Waits a moment for one that is just ending: a write that
/// was given up goes on, and holds the lock until it is done.
pub(super) fn lock(directory: &Path) -> Result<File> {
    let path = directory.join(".tidegate.lock");
    let file = File::create(&path).map_err(|error| failed("make", &path, error))?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => pause(),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::permanent(format!(
                    "another sink or program writes to `{}`: each file sink needs a folder of its own",
                    directory.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock", &path, error)),
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "everything in this folder is done on a thread that may block")]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

/// How long to wait for a lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Files are named by table and offset: those of two sinks in one folder could not be told apart.
fn refuse_others(directory: &Path, owner: &Owner) -> Result<()> {
    let failed = |error| failed("list", directory, error);
    let ours = Record::name(owner);
    for entry in fs::read_dir(directory).map_err(failed)? {
        let Ok(name) = entry.map_err(failed)?.file_name().into_string() else { continue };
        if name != ours && Record::is_name(&name) {
            return Err(Error::permanent(format!(
                "`{}` holds the files of another sink (`{name}`): each file sink needs a folder of its own",
                directory.display()
            )));
        }
    }
    Ok(())
}

/// Without a record nobody knows what counts of the files that are there.
fn refuse_strangers(directory: &Path, format: Format, tables: &[String]) -> Result<()> {
    let files = files_of(directory, format, tables)?;
    let Some((name, _)) = files.first() else { return Ok(()) };
    Err(Error::permanent(format!(
        "`{}` holds `{name}` and no record of how much of it counts: move the files away, or bring the record back",
        directory.display()
    )))
}

/// Returns the files of these tables, finished or not, with the offsets in their names.
fn files_of(directory: &Path, format: Format, tables: &[String]) -> Result<Vec<(String, u64)>> {
    files_named(directory, format, |table| tables.iter().any(|known| known == table))
}

/// Returns the files of the tables that `is_meant`, finished or not, with the offsets in their names.
pub(super) fn files_named(
    directory: &Path,
    format: Format,
    is_meant: impl Fn(&str) -> bool,
) -> Result<Vec<(String, u64)>> {
    let failed = |error| failed("list", directory, error);
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let Ok(name) = entry.map_err(failed)?.file_name().into_string() else { continue };
        let finished = name.strip_suffix(PART).unwrap_or(&name);
        let stem = finished.strip_suffix(format.extension()).and_then(|stem| stem.strip_suffix('.'));
        let Some((table, first)) = stem.and_then(|stem| stem.rsplit_once('-')) else { continue };
        let is_ours = first.len() == 20 && is_meant(table);
        if let Some(first) = is_ours.then(|| first.parse().ok()).flatten() {
            files.push((name, first));
        }
    }
    files.sort();
    Ok(files)
}

/// Ends the name of a file that is not finished.
pub(super) const PART: &str = ".part";
