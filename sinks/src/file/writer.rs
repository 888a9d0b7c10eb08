//! The files of one sink. Everything here blocks.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tidegate_core::{
    Error, Result,
    chunk::{Chunk, JsonRows},
    row::Timestamp,
    sink::{Owner, SinkContext},
    spool::SpoolPosition,
};

use super::{
    config::Rotate,
    record::{InWork, Record, failed, sync_directory, within},
};

/// The files, open and locked.
#[derive(Debug)]
pub(super) struct Writer {
    directory: PathBuf,
    rotate: Rotate,
    record_path: PathBuf,
    record: Record,
    position: SpoolPosition,
    /// The tables' names in the store.
    tables: Vec<String>,
    open: BTreeMap<String, File>,
    /// What does not count is still there: it goes with the first write, once it is known that it comes again.
    is_uncut: bool,
    text: Vec<u8>,
    /// Keeps others out while it lives.
    _lock: File,
}

impl Writer {
    /// Locks the directory, and checks that what counts is there. Destroys nothing: whether what lies behind the position
    /// comes again is known only when the position was held against the spool, and then a write follows.
    pub(super) fn open(directory: PathBuf, rotate: Rotate, cx: &SinkContext) -> Result<Self> {
        fs::create_dir_all(&directory).map_err(|error| failed("make the directory", &directory, error))?;
        let lock = lock(&directory)?;
        refuse_others(&directory, &cx.owner)?;
        let tables: Vec<String> = cx.tables.iter().map(|table| table.name.clone()).collect();
        if let Some(table) = tables.iter().find(|table| table.contains(['/', '\0']) || table.starts_with('.')) {
            return Err(Error::permanent(format!("a file cannot be called `{table}`")));
        }
        let record_path = within(&directory, &Record::name(&cx.owner));
        let record = match Record::read(&record_path, &cx.owner)? {
            Some(record) => record,
            None => {
                refuse_strangers(&directory, &tables)?;
                // Before the first row: then what is found beside a record is ours.
                let record = Record::new(&cx.owner);
                record.write(&record_path)?;
                record
            }
        };
        let position = record.position().unwrap_or(SpoolPosition::START);
        let mut writer = Self {
            directory,
            rotate,
            record_path,
            record,
            position,
            tables,
            open: BTreeMap::new(),
            is_uncut: true,
            text: Vec::new(),
            _lock: lock,
        };
        writer.open_files()?;
        Ok(writer)
    }

    /// Returns where the store is; `None` if nothing was ever written.
    pub(super) fn position(&self) -> Option<SpoolPosition> {
        (self.position != SpoolPosition::START).then_some(self.position)
    }

    /// Appends a chunk, and makes it count.
    pub(super) fn write(&mut self, chunk: &Chunk) -> Result<()> {
        if chunk.from != self.position {
            return Err(Error::transient("the files are not where they were left: they are looked at again"));
        }
        if self.is_uncut {
            self.cut()?;
            self.is_uncut = false;
        }
        let mut record = self.record.clone().at(chunk.to);
        for part in &chunk.tables {
            let Some(first) = part.causes.first() else { continue };
            let table = self.tables[part.table].clone();
            self.begin_if_due(&mut record, &table, first.offset)?;
            let Some(in_work) = record.files.get_mut(&table) else { continue };
            self.text.clear();
            let rows = JsonRows::new(&part.rows);
            for row in 0..part.rows.num_rows() {
                rows.write(row, &mut self.text);
                self.text.push(b'\n');
            }
            let path = within(&self.directory, &in_work.name);
            let file = self.open.get(&table).ok_or_else(|| Error::transient("a file is not open"))?;
            file.write_all_at(&self.text, in_work.bytes).map_err(|error| failed("append to", &path, error))?;
            file.sync_data().map_err(|error| failed("fsync", &path, error))?;
            check(file, &path)?;
            in_work.bytes += self.text.len() as u64;
        }
        record.write(&self.record_path)?;
        self.record = record;
        self.position = chunk.to;
        Ok(())
    }

    /// Checks that the files are those that were opened.
    pub(super) fn check(&self) -> Result<()> {
        for (table, file) in &self.open {
            if let Some(in_work) = self.record.files.get(table) {
                check(file, &within(&self.directory, &in_work.name))?;
            }
        }
        check_exists(&self.record_path)
    }

    /// Opens the file in work of a table, or the next one if it is time for it.
    fn begin_if_due(&mut self, record: &mut Record, table: &str, offset: u64) -> Result<()> {
        let now = Timestamp::now().0;
        let is_due = record.files.get(table).is_none_or(|in_work| {
            let age = Duration::from_nanos(now.saturating_sub(in_work.begun).max(0).cast_unsigned());
            in_work.bytes >= self.rotate.bytes.0 || age >= self.rotate.every.0
        });
        if !is_due {
            return Ok(());
        }
        let name = format!("{table}-{offset:020}.jsonl");
        let path = within(&self.directory, &name);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|error| failed("make", &path, error))?;
        let length = file.metadata().map_err(|error| failed("look at", &path, error))?.len();
        if length > 0 {
            return Err(Error::permanent(format!("`{}` is there already", path.display())));
        }
        sync_directory(&self.directory)?;
        self.open.insert(table.to_owned(), file);
        record.files.insert(table.to_owned(), InWork { name, bytes: 0, begun: now });
        Ok(())
    }

    /// Opens the files in work.
    fn open_files(&mut self) -> Result<()> {
        for (table, in_work) in &self.record.files {
            let path = within(&self.directory, &in_work.name);
            let file = OpenOptions::new().write(true).open(&path).map_err(|error| {
                if error.kind() == io::ErrorKind::NotFound { gone(&path) } else { failed("open", &path, error) }
            })?;
            let length = file.metadata().map_err(|error| failed("look at", &path, error))?.len();
            if length < in_work.bytes {
                return Err(Error::permanent(format!(
                    "`{}` has {length} bytes, and {} were written: rows are missing",
                    path.display(),
                    in_work.bytes
                )));
            }
            self.open.insert(table.clone(), file);
        }
        Ok(())
    }

    /// Cuts the files in work to their recorded lengths, and removes files that were begun by a chunk that does not count.
    fn cut(&self) -> Result<()> {
        for (table, in_work) in &self.record.files {
            let Some(file) = self.open.get(table) else { continue };
            let path = within(&self.directory, &in_work.name);
            let length = file.metadata().map_err(|error| failed("look at", &path, error))?.len();
            if length > in_work.bytes {
                file.set_len(in_work.bytes).map_err(|error| failed("cut", &path, error))?;
                file.sync_all().map_err(|error| failed("fsync", &path, error))?;
            }
        }
        for (name, first) in files_of(&self.directory, &self.tables)? {
            if first > self.position.offset {
                let path = within(&self.directory, &name);
                fs::remove_file(&path).map_err(|error| failed("remove", &path, error))?;
            }
        }
        sync_directory(&self.directory)
    }
}

/// Takes the directory for this sink: no other one may write there.
fn lock(directory: &Path) -> Result<File> {
    let path = within(directory, ".tidegate.lock");
    let file = File::create(&path).map_err(|error| failed("make", &path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::permanent(format!(
            "another sink or program writes to `{}`: each file sink needs a folder of its own",
            directory.display()
        ))),
        Err(TryLockError::Error(error)) => Err(failed("lock", &path, error)),
    }
}

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
fn refuse_strangers(directory: &Path, tables: &[String]) -> Result<()> {
    let files = files_of(directory, tables)?;
    let Some((name, _)) = files.first() else { return Ok(()) };
    Err(Error::permanent(format!(
        "`{}` holds `{name}` and no record of how much of it counts: move the files away, or bring the record back",
        directory.display()
    )))
}

/// Returns the files of these tables with the offsets in their names.
fn files_of(directory: &Path, tables: &[String]) -> Result<Vec<(String, u64)>> {
    let failed = |error| failed("list", directory, error);
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let Ok(name) = entry.map_err(failed)?.file_name().into_string() else { continue };
        let Some((table, first)) = name.strip_suffix(".jsonl").and_then(|stem| stem.rsplit_once('-')) else { continue };
        let is_ours = first.len() == 20 && tables.iter().any(|known| known == table);
        if let Some(first) = is_ours.then(|| first.parse().ok()).flatten() {
            files.push((name, first));
        }
    }
    files.sort();
    Ok(files)
}

/// Checks that a path still leads to the file that is open.
fn check(file: &File, path: &Path) -> Result<()> {
    let id = |found: fs::Metadata| (found.dev(), found.ino());
    let open = file.metadata().map(id).map_err(|error| failed("look at", path, error))?;
    if fs::metadata(path).map(id).ok() == Some(open) {
        return Ok(());
    }
    Err(Error::transient(format!("`{}` was removed or replaced while it was open", path.display())))
}

fn check_exists(path: &Path) -> Result<()> {
    fs::metadata(path).map(drop).map_err(|error| failed("look at", path, error))
}

fn gone(path: &Path) -> Error {
    Error::permanent(format!("`{}` is gone, and rows were written to it", path.display()))
}
