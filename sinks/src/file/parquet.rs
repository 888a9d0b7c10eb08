//! Parquet: a file counts when it is finished and has its name.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::Path,
    sync::Arc,
    time::Instant,
};

use arrow_schema::Schema;
use parquet::{
    arrow::ArrowWriter,
    basic::Compression,
    errors::ParquetError,
    file::{metadata::KeyValue, properties::WriterProperties},
};
use tidegate_core::{
    Error, Result,
    chunk::{Chunk, TableRows},
    sink::Written,
    spool::SpoolPosition,
};

use super::{
    config::Rotate,
    folder::{Folder, PART, gone},
    record::{failed, hex},
    sink::Files,
};

/// The files in work.
#[derive(Debug)]
pub(super) struct Parquet {
    folder: Folder,
    rotate: Rotate,
    /// Up to where rows were taken. `None` after an error: nobody knows what the files hold.
    taken: Option<SpoolPosition>,
    /// By the table's number.
    parts: BTreeMap<usize, InWork>,
    /// About how much has to stay in the spool until the next rotation: what others take waits there as well.
    bytes: u64,
    /// When the first of it was.
    begun: Option<Instant>,
    /// What does not count is still there: it goes with the first write, once it is known that it comes again.
    is_uncut: bool,
}

/// A file that rows are added to.
#[derive(Debug)]
struct InWork {
    /// What it is called when it counts.
    name: String,
    /// The file once more, since its writer lends it only as one that may be written to.
    file: File,
    writer: ArrowWriter<File>,
}

impl Parquet {
    /// Finishes the renames of the last rotation. Destroys nothing: whether what was begun behind the position comes again
    /// is known only when the position was held against the spool, and then a write follows.
    pub(super) fn open(mut folder: Folder, rotate: Rotate) -> Result<Self> {
        rename(&mut folder)?;
        let taken = Some(folder.position());
        Ok(Self { folder, rotate, taken, parts: BTreeMap::new(), bytes: 0, begun: None, is_uncut: true })
    }

    fn is_due(&self) -> bool {
        self.bytes >= self.rotate.bytes.0 || self.begun.is_some_and(|begun| begun.elapsed() >= self.rotate.every.0)
    }

    fn add(&mut self, rows: &TableRows) -> Result<()> {
        let Some(first) = rows.causes.first() else { return Ok(()) };
        if !self.parts.contains_key(&rows.table) {
            let part = self.begin(rows, first.offset)?;
            self.parts.insert(rows.table, part);
        }
        let Some(part) = self.parts.get_mut(&rows.table) else { return Ok(()) };
        part.writer
            .write(&rows.rows)
            .map_err(|error| broken("write to", &self.folder.path(&part.unfinished()), error))?;
        self.begun.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn begin(&self, rows: &TableRows, first: u64) -> Result<InWork> {
        let name = self.folder.name(self.folder.table(rows.table), first);
        let unfinished = format!("{name}{PART}");
        let path = self.folder.path(&unfinished);
        let file = self.folder.begin(&unfinished)?;
        let again = file.try_clone().map_err(|error| failed("open", &path, error))?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let schema: Arc<Schema> = rows.rows.schema();
        let writer = ArrowWriter::try_new(again, schema, Some(properties));
        Ok(InWork { name, file, writer: writer.map_err(|error| broken("write to", &path, error))? })
    }

    /// Writes the largest row groups out until what is in memory is little enough.
    fn bound_memory(&mut self) -> Result<()> {
        while self.parts.values().map(|part| part.writer.memory_size()).sum::<usize>() >= MOST_IN_MEMORY {
            let largest = self.parts.values_mut().max_by_key(|part| part.writer.memory_size());
            let Some(part) = largest.filter(|part| part.writer.in_progress_rows() > 0) else { return Ok(()) };
            let path = self.folder.path(&part.unfinished());
            part.writer.flush().map_err(|error| broken("write to", &path, error))?;
        }
        Ok(())
    }

    /// Ends the files of all tables at one position, makes them count, and gives them their names.
    fn rotate(&mut self, to: SpoolPosition) -> Result<()> {
        let mut record = self.folder.record().clone().at(to);
        let about = about(record.spool(), self.position(), to);
        for (_, InWork { name, file, mut writer }) in std::mem::take(&mut self.parts) {
            let path = self.folder.path(&format!("{name}{PART}"));
            about.iter().for_each(|entry| writer.append_key_value_metadata(entry.clone()));
            writer.close().map_err(|error| broken("write to", &path, error))?;
            file.sync_all().map_err(|error| failed("fsync", &path, error))?;
            self.folder.check(&file, &format!("{name}{PART}"))?;
            record.renames.push(name);
        }
        // The names of the parts are durable before the record that counts on them.
        self.folder.sync()?;
        self.folder.commit(record)?;
        rename(&mut self.folder)?;
        (self.bytes, self.begun, self.taken) = (0, None, Some(to));
        Ok(())
    }
}

impl Files for Parquet {
    fn position(&self) -> SpoolPosition {
        self.folder.position()
    }

    /// Takes a chunk, which counts with the next rotation: at once, if it is due or nothing waits for it.
    fn write(&mut self, chunk: &Chunk) -> Result<Written> {
        if self.taken.take() != Some(chunk.from) {
            return Err(Error::transient("the files are not where they were left: they are looked at again"));
        }
        if self.is_uncut {
            self.folder.remove_what_does_not_count()?;
            self.is_uncut = false;
        }
        for rows in &chunk.tables {
            self.add(rows)?;
        }
        self.bytes += chunk.bytes;
        self.bound_memory()?;
        if self.is_due() || self.parts.is_empty() {
            self.rotate(chunk.to)?;
            return Ok(Written::Committed);
        }
        self.taken = Some(chunk.to);
        Ok(Written::Accepted)
    }

    /// Rotates if the files are old enough.
    fn applied(&mut self) -> Result<SpoolPosition> {
        self.check()?;
        if self.is_due() {
            self.finish()?;
        }
        Ok(self.position())
    }

    fn finish(&mut self) -> Result<()> {
        let Some(to) = self.taken.take() else {
            return Err(Error::transient("the files are not where they were left: they are looked at again"));
        };
        if to == self.position() {
            self.taken = Some(to);
            return Ok(());
        }
        self.rotate(to)
    }

    fn check(&self) -> Result<()> {
        for part in self.parts.values() {
            self.folder.check(&part.file, &part.unfinished())?;
        }
        self.folder.check_record()
    }
}

impl InWork {
    fn unfinished(&self) -> String {
        format!("{}{PART}", self.name)
    }
}

/// Gives the files that count their names; where that was done before, it stays done.
fn rename(folder: &mut Folder) -> Result<()> {
    let mut record = folder.record().clone();
    if record.renames.is_empty() {
        return Ok(());
    }
    for name in record.renames.drain(..) {
        let (part, whole) = (folder.path(&format!("{name}{PART}")), folder.path(&name));
        match (exists(&part)?, exists(&whole)?) {
            (true, false) => fs::rename(&part, &whole).map_err(|error| failed("rename", &part, error))?,
            (false, true) => {}
            (false, false) => return Err(gone(&whole)),
            (true, true) => {
                return Err(Error::permanent(format!(
                    "`{}` is there already, not written by this sink",
                    whole.display()
                )));
            }
        }
    }
    folder.sync()?;
    folder.commit(record)
}

fn exists(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("look at", path, error)),
    }
}

/// Returns what a footer says about where its rows come from: those behind `from`, up to and including `to`.
fn about(spool: &str, from: SpoolPosition, to: SpoolPosition) -> [KeyValue; 4] {
    let entry = |key: &str, value: String| KeyValue::new(format!("tidegate.{key}"), value);
    [
        entry("spool", spool.to_owned()),
        entry("boot", hex(to.boot.0)),
        entry("from", from.offset.to_string()),
        entry("to", to.offset.to_string()),
    ]
}

/// Returns what a failed call of the Parquet writer means: mostly that a call on its file failed.
fn broken(what: &str, path: &Path, error: ParquetError) -> Error {
    let cause = if let ParquetError::External(cause) = error { cause } else { error.into() };
    let error = cause.downcast::<io::Error>().map_or_else(io::Error::other, |error| *error);
    failed(what, path, error)
}

/// How many bytes of rows, of all tables together, may be in memory on their way into their files.
const MOST_IN_MEMORY: usize = 64 << 20;
