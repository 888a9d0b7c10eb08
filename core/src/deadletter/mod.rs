//! Dead letters: the rows that a store will never take, kept where a person can read, repair and send them again.
//!
//! One file of JSON lines per sink. A letter is on disk before its chunk is committed without the row, so a crash between
//! the two leaves a letter whose row is not settled: those that come again are thrown away when the sink is opened, and
//! the refusal makes them anew. A second letter with the same cause replaces the first.
//!
//! The file belongs to the person, too: who has dealt with the letters may remove it, empty it or take lines out at any
//! time, also while the pipeline runs.
//!
//! A letter is sent again by an item of the log, [`Redrive`], and the letter says which one: the first that the sink comes
//! to is noted in the letter before the row is written, and no other counts. So however often it is asked for, and
//! whenever the program dies, the row arrives once; and a letter that is no longer there, because its row came again from a
//! log that the store had gone back in, or because a person took it out, withdraws it. What the store refuses again is a
//! letter of its own. A second file, `sent-again.jsonl`, remembers it too: where the letters are put back from a copy that was
//! made before, none is sent a second time.
//!
//! Each line names its format, but for those of the first one. A newer program's are refused: whoever does not know all that
//! a letter says must not write it anew.
//!
//! All calls block until the disk has answered.

mod lines;
mod redrive;
mod sent;

use std::{
    collections::HashSet,
    io::{self, Write},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Error, Result,
    row::Timestamp,
    rules::{Rule, holds},
    spool::{
        Boot, Cause, SpoolPosition,
        disk::{self, Disk, DiskFile, FileId},
    },
};

use lines::Lines;
pub use lines::{Listing, list};
pub(crate) use lines::{parsed, written};
pub use redrive::Redrive;
use sent::Marks;

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
    /// The source's name; letters of the first version do not say it.
    #[serde(default)]
    pub source: String,
    /// The table.
    pub table: String,
    /// The source's table that the row is of, where `table` is derived; else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// The instrument.
    pub symbol: String,
    /// Which of the instruments that have had this name; empty where the venue never gives one twice.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub listing: String,
    /// The venue's time, in UTC nanoseconds.
    pub ts_event: Timestamp,
    /// The row as the store was asked to take it; where `table` is derived, the row that it was to be made of.
    pub row: Map<String, Value>,
    /// Why not.
    pub error: String,
    /// When it was refused, in UTC nanoseconds.
    pub when: Timestamp,
    /// The letter that this row was sent again from: it was refused once more.
    #[serde(default, with = "key", skip_serializing_if = "Option::is_none")]
    pub redrive_of: Option<Cause>,
    /// What made the row that was sent again: the key of the next letter, if that is refused too.
    #[serde(default, with = "key", skip_serializing_if = "Option::is_none")]
    pub redriven: Option<Cause>,
}

/// A row of the log that sends a letter again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The letter's key.
    pub letter: Cause,
    /// What made the row.
    pub row: Cause,
}

impl DeadLetter {
    /// Returns the source's table that the row is of.
    pub fn table_of_row(&self) -> &str {
        if self.from.is_empty() { &self.table } else { &self.from }
    }

    /// Returns what made the row. With the sink it is the letter's key.
    pub fn cause(&self) -> Cause {
        Cause { boot: self.boot, offset: self.offset, sub: self.sub }
    }
}

/// The dead letters of one sink, open for more.
#[derive(Debug)]
pub struct DeadLetters {
    disk: Arc<dyn Disk>,
    /// The file as it was left here. Another one, or another length, is a person's work.
    id: FileId,
    /// The bytes that are known to be on disk and whole.
    len: u64,
    /// Letters that were not sent again.
    letters: u64,
    /// The highest offset of a letter.
    newest: u64,
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
    /// Letters of rows that come again, thrown away.
    pub discarded: u64,
    /// Whether the last line was cut off by a crash.
    pub is_torn: bool,
    /// Lines that are no letters; they stay as they are.
    pub unreadable: u64,
}

impl DeadLetters {
    /// The name of the file.
    pub const FILE_NAME: &str = "dead-letters.jsonl";

    /// Opens the file, which is made if it is missing, and throws away the letters of rows that come again.
    ///
    /// # Errors
    ///
    /// `Transient`, naming the file: whatever is wrong with a disk, the rows wait until it is mended.
    pub fn open(disk: Arc<dyn Disk>, comes_again: impl Fn(SpoolPosition) -> bool) -> Result<(Self, Recovered)> {
        let pending = HashSet::new();
        let mut letters = Self { disk, id: (0, 0), len: 0, letters: 0, newest: 0, pending, is_broken: false };
        let recovered = letters.recover(comes_again)?;
        Ok((letters, recovered))
    }

    /// Returns how many letters wait for a person: those that were sent again do not.
    pub fn count(&self) -> u64 {
        self.letters
    }

    /// Appends letters and returns when they are on disk, in the file that has the name. A letter whose key is there
    /// already replaces it.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open). None of the letters counts then, whatever of them has reached the disk; the same ones may
    /// be appended again.
    pub fn append(&mut self, letters: &[DeadLetter]) -> Result<()> {
        // The store is before these rows, and so before whatever has sent them again: that counts anew when it comes again.
        let forgotten = self.marks()?.forget(&*self.disk, letters);
        forgotten.map_err(|error| self.failed_to("rewrite", sent::FILE_NAME, error))?;
        self.write(letters)?;
        for letter in letters {
            self.letters += u64::from(self.pending.insert(letter.cause()));
            self.newest = self.newest.max(letter.offset);
        }
        Ok(())
    }

    /// Says of each of these rows whether it goes to the store: if its letter is there, and has not been sent again by
    /// another one. From then on, durably, this is the row that the letter was sent again by.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open). The same question may be put again.
    pub fn redriven(&mut self, rows: &[Sent]) -> Result<Vec<bool>> {
        let file = self.whole()?;
        let wanted = rows.iter().map(|sent| sent.letter).collect();
        let mut known = lines::find(&*file, &wanted).map_err(|error| self.failed("read", error))?;
        let mut marks = self.marks()?;
        let (mut marked, mut new) = (Vec::new(), Vec::new());
        let mut goes = |sent: &Sent| {
            let Some(letter) = known.get_mut(&sent.letter) else { return false };
            if letter.redriven.is_none() {
                // A letter without its mark is a copy, where one is known.
                letter.redriven = marks.of(&sent.letter).or(Some(sent.row));
                marked.push(letter.clone());
            }
            let goes = letter.redriven == Some(sent.row);
            new.extend(Some(*sent).filter(|_| goes && marks.of(&sent.letter) != Some(sent.row)));
            goes
        };
        let go = rows.iter().map(&mut goes).collect();
        let noted = if holds(Rule::LettersFirst) { marks.add(&*self.disk, &new) } else { Ok(()) };
        noted.map_err(|error| self.failed_to("note in", sent::FILE_NAME, error))?;
        self.write(&marked)?;
        self.letters = self.letters.saturating_sub(marked.len() as u64);
        Ok(go)
    }

    /// Appends lines, and returns when they are on disk, in the file that has the name.
    fn write(&mut self, letters: &[DeadLetter]) -> Result<()> {
        if letters.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::new();
        for letter in letters {
            lines.extend(written(letter));
        }
        loop {
            let file = self.whole()?;
            if let Err(error) = file.write_all_at(&lines, self.len) {
                // A part of a line must not stay, or the next one would be glued to it.
                self.is_broken = file.truncate(self.len).is_err();
                return Err(self.failed("append to", error));
            }
            let synced = if holds(Rule::LettersFirst) { file.sync_data() } else { Ok(()) };
            if let Err(error) = synced {
                // After a failed fsync the kernel may call lost pages clean: this file proves nothing any more.
                self.is_broken = true;
                return Err(self.failed("fsync", error));
            }
            self.len += lines.len() as u64;
            // Removed meanwhile: the letters went with it.
            if self.named()?.is_some_and(|(_, id)| id == self.id) {
                return Ok(());
            }
        }
    }

    /// Returns the letters on disk.
    #[cfg(test)]
    pub(crate) fn all(&mut self) -> Vec<DeadLetter> {
        lines::listing(&*self.whole().expect("a disk without faults")).expect("a disk without faults").letters
    }

    /// Notes that everything appended so far is settled: the chunk without the rows is committed, and none of its keys
    /// comes again. Until then they are remembered, so that a repeated letter is not counted twice.
    pub fn committed(&mut self) {
        self.pending.clear();
    }

    /// Throws away the letters of rows that come again, all of which lie behind offset `after`, and returns how many. To be
    /// called whenever the sink was opened again: what was refused may be taken this time, also after the store went back
    /// to an older position.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn discard(&mut self, after: u64, comes_again: impl Fn(SpoolPosition) -> bool) -> Result<u64> {
        self.whole()?;
        if self.newest <= after {
            self.pending.clear();
            return Ok(0);
        }
        Ok(self.recover(comes_again)?.discarded)
    }

    /// Returns the file, whole and known: mended if a disk has failed, read anew if somebody else has changed it.
    fn whole(&mut self) -> Result<Arc<dyn DiskFile>> {
        let named = self.named()?;
        let Some((file, _)) = named.filter(|(_, id)| *id == self.id) else { return self.read_again() };
        if self.is_broken {
            return self.mend(&*file);
        }
        let len = file.len().map_err(|error| self.failed("read", error))?;
        if len == self.len { Ok(file) } else { self.read_again() }
    }

    fn read_again(&mut self) -> Result<Arc<dyn DiskFile>> {
        self.recover(|_| false)?;
        let named = self.named()?;
        named.map(|(file, _)| file).ok_or_else(|| self.failed("open", io::ErrorKind::NotFound.into()))
    }

    /// Reads the whole file, which is made if it is missing, and writes it anew without what is torn, replaced or comes
    /// again, if there is any.
    fn recover(&mut self, comes_again: impl Fn(SpoolPosition) -> bool) -> Result<Recovered> {
        let (file, id) = match self.named()? {
            Some(named) => named,
            None => self.make()?,
        };
        let mut lines = Lines::read(&*file).map_err(|error| self.failed("read", error))?;
        let discarded = if holds(Rule::LettersComeAgain) { lines.discard(comes_again) } else { 0 };
        let marks = self.marks()?;
        if lines.is_to_be_rewritten() {
            self.replace_by(|new| lines.copy_kept(&*file, new))?;
        } else {
            // Whoever made the file, its name must survive a power cut.
            self.disk.sync_dir().map_err(|error| self.failed("keep", error))?;
            (self.id, self.len, self.is_broken) = (id, lines.bytes(), false);
        }
        (self.letters, self.newest) = (lines.waiting(|letter| marks.of(letter).is_some()), lines.newest());
        self.pending.clear();
        let (letters, is_torn, unreadable) = (lines.letters(), lines.is_torn(), lines.unreadable());
        Ok(Recovered { letters, discarded, is_torn, unreadable })
    }

    /// Goes on in a new file that holds what is known to be whole.
    fn mend(&mut self, file: &dyn DiskFile) -> Result<Arc<dyn DiskFile>> {
        let len = self.len;
        self.replace_by(|new| {
            let copied = io::copy(&mut disk::read_to(file, len), new)?;
            if copied == len { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
        })
    }

    fn replace_by(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<Arc<dyn DiskFile>> {
        let replaced = disk::replace(&*self.disk, Self::FILE_NAME, write);
        let replaced = replaced.and_then(|file| Ok((file.id()?, file.len()?, file)));
        let (id, len, file) = replaced.map_err(|error| self.failed("rewrite", error))?;
        (self.id, self.len, self.is_broken) = (id, len, false);
        Ok(file)
    }

    fn make(&self) -> Result<(Arc<dyn DiskFile>, FileId)> {
        let made = self.disk.create_new(Self::FILE_NAME).and_then(|file| Ok((file.id()?, file)));
        made.map(|(id, file)| (file, id)).map_err(|error| self.failed("make", error))
    }

    /// Returns the file that has the name now, and what tells it from others.
    fn named(&self) -> Result<Option<(Arc<dyn DiskFile>, FileId)>> {
        let opened = match self.disk.open(Self::FILE_NAME) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.and_then(|file| Ok((file.id()?, file))),
        };
        opened.map(|(id, file)| Some((file, id))).map_err(|error| self.failed("open", error))
    }

    /// Returns what was sent again, whatever the letters say.
    fn marks(&self) -> Result<Marks> {
        Marks::read(&*self.disk).map_err(|error| self.failed_to("read", sent::FILE_NAME, error))
    }

    fn failed(&self, doing: &str, error: io::Error) -> Error {
        self.failed_to(doing, Self::FILE_NAME, error)
    }

    fn failed_to(&self, doing: &str, name: &str, error: io::Error) -> Error {
        failed(doing, &format!("{}/{name}", self.disk.place()), error)
    }
}

fn failed(doing: &str, file: &str, error: io::Error) -> Error {
    Error::transient(format!("cannot {doing} the dead letters `{file}`")).because(error)
}

/// A key as one text.
mod key {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::spool::Cause;

    pub(super) fn serialize<S: Serializer>(key: &Option<Cause>, to: S) -> Result<S::Ok, S::Error> {
        match key {
            Some(key) => to.collect_str(key),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Cause>, D::Error> {
        let text: Option<String> = Deserialize::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
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
