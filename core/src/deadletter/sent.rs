//! Which letters were sent again, and by which rows. It stands beside the letters, since a copy of their file that is put
//! back knows nothing of it.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, Read},
};

use serde::{Deserialize, Serialize};

use super::{DeadLetter, Sent};
use crate::spool::{
    Cause,
    disk::{self, Disk},
};

/// The rows that letters were sent again by, by the letters' keys.
#[derive(Debug, Default)]
pub(super) struct Marks(BTreeMap<Cause, Cause>);

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    letter: String,
    row: String,
}

impl Marks {
    /// Reads the file. A line that is none says nothing: it was never whole, or the letter says it too.
    pub(super) fn read(disk: &dyn Disk) -> io::Result<Self> {
        let file = match disk.open(FILE_NAME) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            opened => opened?,
        };
        let mut text = Vec::new();
        disk::read_to(&*file, file.len()?).read_to_end(&mut text)?;
        let mark = |line: &[u8]| {
            let Line { letter, row } = serde_json::from_slice(line).ok()?;
            Some((letter.parse().ok()?, row.parse().ok()?))
        };
        Ok(Self(text.split(|byte| *byte == b'\n').filter_map(mark).collect()))
    }

    /// Returns the row that a letter was sent again by.
    pub(super) fn of(&self, letter: &Cause) -> Option<Cause> {
        self.0.get(letter).copied()
    }

    /// Notes what is sent again now, durably.
    pub(super) fn add(&mut self, disk: &dyn Disk, sent: &[Sent]) -> io::Result<()> {
        if sent.is_empty() {
            return Ok(());
        }
        self.0.extend(sent.iter().map(|sent| (sent.letter, sent.row)));
        self.write(disk)
    }

    /// Forgets what was sent again of these letters, durably: they are made anew.
    pub(super) fn forget(&mut self, disk: &dyn Disk, letters: &[DeadLetter]) -> io::Result<()> {
        let before = self.0.len();
        letters.iter().for_each(|letter| _ = self.0.remove(&letter.cause()));
        if self.0.len() == before { Ok(()) } else { self.write(disk) }
    }

    fn write(&self, disk: &dyn Disk) -> io::Result<()> {
        let written = disk::replace(disk, FILE_NAME, |file| {
            for (letter, row) in &self.0 {
                let line = Line { letter: letter.to_string(), row: row.to_string() };
                serde_json::to_writer(&mut *file, &line)?;
                file.write_all(b"\n")?;
            }
            Ok(())
        });
        written.map(drop)
    }
}

pub(super) const FILE_NAME: &str = "sent-again.jsonl";
