//! Dead letters: the rows that a store will never take, kept where a person can read, repair and send them again.
//!
//! One file of JSON lines per sink. A letter is on disk before its chunk is committed without the row, so a crash between
//! the two leaves a letter whose row is not settled: those beyond the store's position are thrown away when the sink is
//! opened, and the refusal makes them anew. A second letter with the same cause replaces the first.
//!
//! All calls block until the disk has answered.

mod lines;

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Error, Result,
    row::Timestamp,
    spool::{Boot, Cause, SpoolPosition},
};

use lines::Lines;
pub use lines::{Listing, list};

/// A row that the store will never take, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The sink that could not write it.
    pub sink: String,
    /// The opening of the spool that wrote the row; sixteen hexadecimal digits, since many readers round large numbers.
    #[serde(with = "hex")]
    pub boot: Boot,
    /// The offset that made the row.
    pub offset: u64,
    /// The row's number among those that the offset made.
    pub sub: u32,
    /// The table.
    pub table: String,
    /// The instrument.
    pub symbol: String,
    /// The venue's time, in UTC nanoseconds.
    pub ts_event: Timestamp,
    /// The row as the store was asked to take it.
    pub row: Map<String, Value>,
    /// Why not.
    pub error: String,
    /// When it was refused, in UTC nanoseconds.
    pub when: Timestamp,
}

impl DeadLetter {
    /// Returns what made the row. With the sink it is the letter's key.
    pub fn cause(&self) -> Cause {
        Cause { boot: self.boot, offset: self.offset, sub: self.sub }
    }
}

/// The dead letters of one sink, open for more.
#[derive(Debug)]
pub struct DeadLetters {
    path: PathBuf,
    file: File,
    /// The bytes that are known to be on disk and whole.
    len: u64,
    letters: u64,
    /// Letters whose chunk is not committed.
    pending: HashSet<Cause>,
    /// Set when nobody knows what is behind `len`, or whether the file still takes anything.
    is_broken: bool,
}

/// What was found when dead letters were opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Letters that are kept.
    pub letters: u64,
    /// Letters beyond the store's position, thrown away.
    pub discarded: u64,
    /// Whether the last line was cut off by a crash.
    pub is_torn: bool,
    /// Lines that are no letters; they stay as they are.
    pub unreadable: u64,
}

impl DeadLetters {
    /// The usual name of the file.
    pub const FILE_NAME: &str = "dead-letters.jsonl";

    /// Opens the file, which is made if it is missing, and keeps the letters that `is_committed` says the store has
    /// passed.
    ///
    /// # Errors
    ///
    /// `Permanent` where a person has to act (another kind of file, no permission, a read-only disk), else `Transient`.
    /// Either names the path.
    pub fn open(path: &Path, is_committed: impl Fn(SpoolPosition) -> bool) -> Result<(Self, Recovered)> {
        let is_new = !is_regular(path)?;
        let file = open_for_append(path)?;
        if is_new {
            sync_directory_of(path)?;
        }
        let (path, pending) = (path.to_owned(), HashSet::new());
        let mut letters = Self { path, file, len: 0, letters: 0, pending, is_broken: false };
        let recovered = letters.recover(is_committed)?;
        Ok((letters, recovered))
    }

    /// Returns how many letters there are.
    pub fn count(&self) -> u64 {
        self.letters
    }

    /// Appends letters and returns when they are on disk. A letter whose key is there already replaces it.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open). None of the letters counts then, whatever of them has reached the disk; the same ones may
    /// be appended again.
    pub fn append(&mut self, letters: &[DeadLetter]) -> Result<()> {
        if letters.is_empty() {
            return Ok(());
        }
        if self.is_broken {
            self.mend()?;
        }
        let mut lines = Vec::new();
        for letter in letters {
            serde_json::to_writer(&mut lines, letter).expect("its fields are text, numbers and JSON");
            lines.push(b'\n');
        }
        if let Err(error) = self.file.write_all(&lines) {
            // A part of a line must not stay, or the next one would be glued to it.
            self.is_broken = self.file.set_len(self.len).is_err();
            return Err(failed("append to", &self.path, error));
        }
        if let Err(error) = self.file.sync_data() {
            // After a failed fsync the kernel may call lost pages clean: this file descriptor proves nothing any more.
            self.is_broken = true;
            return Err(failed("fsync", &self.path, error));
        }
        self.len += lines.len() as u64;
        for letter in letters {
            self.letters += u64::from(self.pending.insert(letter.cause()));
        }
        Ok(())
    }

    /// Notes that everything appended so far is settled: the chunk without the rows is committed, and none of its keys
    /// comes again. Until then they are remembered, so that a repeated letter is not counted twice.
    pub fn committed(&mut self) {
        self.pending.clear();
    }

    /// Throws away the letters that `is_committed` does not cover, and returns how many. To be called whenever the sink
    /// was opened again: what was refused may be taken this time, also after the store went back to an older position.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn discard_uncommitted(&mut self, is_committed: impl Fn(SpoolPosition) -> bool) -> Result<u64> {
        if self.is_broken {
            self.mend()?;
        }
        Ok(self.recover(is_committed)?.discarded)
    }

    /// Reads the whole file, and writes it anew without what is torn, replaced or not committed, if there is any.
    fn recover(&mut self, is_committed: impl Fn(SpoolPosition) -> bool) -> Result<Recovered> {
        let mut lines = Lines::read(&self.path)?;
        let discarded = lines.discard(is_committed);
        if lines.is_to_be_rewritten() {
            let kept = lines.kept_in(open_for_reading(&self.path)?);
            self.replace_by(|file| kept.copy_to(file))?;
        } else {
            self.len = lines.bytes();
        }
        self.letters = lines.letters();
        self.pending.clear();
        let (letters, is_torn, unreadable) = (lines.letters(), lines.is_torn(), lines.unreadable());
        Ok(Recovered { letters, discarded, is_torn, unreadable })
    }

    /// Goes on in a new file that holds what is known to be whole.
    fn mend(&mut self) -> Result<()> {
        let len = self.len;
        let mut whole = open_for_reading(&self.path)?.take(len);
        self.replace_by(|file| {
            let copied = io::copy(&mut whole, file)?;
            if copied == len { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
        })
    }

    /// Puts a new file in the place of the old one: a crash leaves one or the other, whole.
    fn replace_by(&mut self, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
        let new = self.path.with_extension("jsonl.new");
        let written = File::create(&new).and_then(|mut file| {
            write(&mut file)?;
            file.sync_all()?;
            file.metadata().map(|metadata| metadata.len())
        });
        let len = written.map_err(|error| failed("write", &new, error))?;
        std::fs::rename(&new, &self.path).map_err(|error| failed("replace", &self.path, error))?;
        self.len = len;
        // Until it is opened, the old descriptor writes into a file that nobody will find.
        self.is_broken = true;
        sync_directory_of(&self.path)?;
        self.file = open_for_append(&self.path)?;
        self.is_broken = false;
        Ok(())
    }
}

/// Returns whether there is such a file.
///
/// Anything else of that name is refused before it is read: a device or a pipe may never end.
fn is_regular(path: &Path) -> Result<bool> {
    match path.metadata() {
        Ok(found) if found.is_file() => Ok(true),
        Ok(_) => Err(Error::permanent(format!("dead letters `{}` are no file", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("open", path, error)),
    }
}

fn open_for_append(path: &Path) -> Result<File> {
    OpenOptions::new().append(true).create(true).open(path).map_err(|error| failed("open", path, error))
}

fn open_for_reading(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| failed("read", path, error))
}

/// Makes a new or renamed file findable after a power cut.
fn sync_directory_of(path: &Path) -> Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| failed("fsync the directory of", path, error))
}

/// Returns an error that names the file, sorted by whether waiting helps: disks get space again, permissions do not
/// come back by themselves.
fn failed(doing: &str, path: &Path, error: io::Error) -> Error {
    use io::ErrorKind as Is;

    let message = format!("cannot {doing} dead letters `{}`", path.display());
    let needs_a_person = matches!(
        error.kind(),
        Is::NotFound | Is::PermissionDenied | Is::ReadOnlyFilesystem | Is::NotADirectory | Is::IsADirectory
    );
    if needs_a_person { Error::permanent(message).because(error) } else { Error::transient(message).because(error) }
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::spool::Boot;

    pub(super) fn serialize<S: Serializer>(boot: &Boot, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:016x}", boot.0))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Boot, D::Error> {
        let digits = String::deserialize(from)?;
        u64::from_str_radix(&digits, 16).map(Boot).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
