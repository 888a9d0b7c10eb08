//! JSON lines: each chunk counts at once.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    time::Duration,
};

use tidegate_core::{
    Error, Result,
    chunk::{Chunk, JsonRows},
    row::Timestamp,
    sink::Written,
    spool::SpoolPosition,
};

use super::{
    config::Rotate,
    folder::{Folder, gone},
    record::{InWork, Record, failed},
    sink::Files,
};

/// The files in work, open.
#[derive(Debug)]
pub(super) struct Lines {
    folder: Folder,
    rotate: Rotate,
    open: BTreeMap<String, File>,
    /// What does not count is still there: it goes with the first write, once it is known that it comes again.
    is_uncut: bool,
    text: Vec<u8>,
}

impl Lines {
    /// Opens the files in work, and checks that what counts is there. Destroys nothing: whether what lies behind the
    /// position comes again is known only when the position was held against the spool, and then a write follows.
    pub(super) fn open(folder: Folder, rotate: Rotate) -> Result<Self> {
        let mut open = BTreeMap::new();
        for (table, in_work) in &folder.record().files {
            let path = folder.path(&in_work.name);
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
            open.insert(table.clone(), file);
        }
        Ok(Self { folder, rotate, open, is_uncut: true, text: Vec::new() })
    }

    /// Opens the file in work of a table, or the next one if it is time for it.
    fn begin_if_due(&mut self, record: &mut Record, table: &str, offset: u64) -> Result<()> {
        let now = Timestamp::now().0;
        let is_due = record.files.get(table).is_none_or(|in_work| {
            let age = Duration::from_nanos(now.saturating_sub(in_work.begun).max(0).cast_unsigned());
            in_work.bytes >= self.rotate.bytes.0 || age >= self.rotate.every.0
        });
        if is_due {
            if let (Some(in_work), Some(file)) = (record.files.get(table), self.open.get(table)) {
                // A file that nobody writes to any more may go wherever its owner wants it: this one not yet.
                self.folder.check(file, &in_work.name)?;
            }
            let name = self.folder.name(table, offset);
            self.open.insert(table.to_owned(), self.folder.begin(&name)?);
            record.files.insert(table.to_owned(), InWork { name, bytes: 0, begun: now });
        }
        Ok(())
    }

    /// Cuts the files in work to their recorded lengths, and removes files that were begun by a chunk that does not count.
    fn cut(&self) -> Result<()> {
        for (table, in_work) in &self.folder.record().files {
            let Some(file) = self.open.get(table) else { continue };
            let path = self.folder.path(&in_work.name);
            let length = file.metadata().map_err(|error| failed("look at", &path, error))?.len();
            if length > in_work.bytes {
                file.set_len(in_work.bytes).map_err(|error| failed("cut", &path, error))?;
                file.sync_all().map_err(|error| failed("fsync", &path, error))?;
            }
        }
        self.folder.remove_what_does_not_count()
    }
}

impl Files for Lines {
    fn position(&self) -> SpoolPosition {
        self.folder.position()
    }

    /// Appends a chunk, and makes it count.
    fn write(&mut self, chunk: &Chunk) -> Result<Written> {
        if chunk.from != self.position() {
            return Err(Error::transient("the files are not where they were left: they are looked at again"));
        }
        if self.is_uncut {
            self.cut()?;
            self.is_uncut = false;
        }
        let mut record = self.folder.record().clone().at(chunk.to);
        for part in &chunk.tables {
            let Some(first) = part.causes.first() else { continue };
            let table = self.folder.table(part.table).to_owned();
            self.begin_if_due(&mut record, &table, first.offset)?;
            let Some(in_work) = record.files.get_mut(&table) else { continue };
            self.text.clear();
            let rows = JsonRows::new(&part.rows);
            for row in 0..part.rows.num_rows() {
                rows.write(row, &mut self.text);
                self.text.push(b'\n');
            }
            let path = self.folder.path(&in_work.name);
            let file = self.open.get(&table).ok_or_else(|| Error::transient("a file is not open"))?;
            file.write_all_at(&self.text, in_work.bytes).map_err(|error| failed("append to", &path, error))?;
            file.sync_data().map_err(|error| failed("fsync", &path, error))?;
            self.folder.check(file, &in_work.name)?;
            in_work.bytes += self.text.len() as u64;
        }
        self.folder.commit(record)?;
        Ok(Written::Committed)
    }

    fn check(&self) -> Result<()> {
        for (table, file) in &self.open {
            if let Some(in_work) = self.folder.record().files.get(table) {
                self.folder.check(file, &in_work.name)?;
            }
        }
        self.folder.check_record()
    }
}
