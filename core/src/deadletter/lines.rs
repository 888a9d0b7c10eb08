//! Reading a file of dead letters: which lines are whole, which are letters, which replace others.

use std::{
    collections::{HashMap, HashSet},
    io::{self, BufRead, BufReader, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    spool::{
        Cause, SpoolPosition,
        disk::{Disk, DiskFile, RealDisk, read_to},
    },
};

use super::{DeadLetter, failed, sent::Marks};

/// What is in a file of dead letters.
#[derive(Debug, Default)]
pub struct Listing {
    /// The letters, oldest first, each key once.
    pub letters: Vec<DeadLetter>,
    /// Lines that are no letters.
    pub unreadable: u64,
}

/// Returns the letters of a file, which may be open for more at the same time.
///
/// # Errors
///
/// `Permanent` if there is no such file, `Transient` if it cannot be read.
pub fn list(path: &Path) -> Result<Listing> {
    let read = || {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let disk = RealDisk::at(directory);
        let mut listing = listing(&*disk.open(name)?)?;
        let marks = Marks::read(&disk)?;
        for letter in listing.letters.iter_mut().filter(|letter| letter.redriven.is_none()) {
            letter.redriven = marks.of(&letter.cause());
        }
        Ok(listing)
    };
    let shown = path.display().to_string();
    let listing = read();
    listing.map_err(|error: io::Error| {
        if error.kind() == io::ErrorKind::NotFound {
            return Error::permanent(format!("there are no dead letters `{shown}`")).because(error);
        }
        failed("read", &shown, error)
    })
}

/// Returns the letters that have these keys.
pub(super) fn find(file: &dyn DiskFile, wanted: &HashSet<Cause>) -> io::Result<HashMap<Cause, DeadLetter>> {
    let letters = listing(file)?.letters.into_iter();
    Ok(letters.map(|letter| (letter.cause(), letter)).filter(|(cause, _)| wanted.contains(cause)).collect())
}

pub(super) fn listing(file: &dyn DiskFile) -> io::Result<Listing> {
    let mut listing = Listing::default();
    let mut places: HashMap<(String, Cause), usize> = HashMap::new();
    let mut each = |line: &[u8]| {
        let Some(letter) = parsed(line)? else {
            listing.unreadable += 1;
            return Ok(());
        };
        let next = listing.letters.len();
        let place = *places.entry((letter.sink.clone(), letter.cause())).or_insert(next);
        if place < next {
            listing.letters[place] = letter;
        } else {
            listing.letters.push(letter);
        }
        Ok::<_, io::Error>(())
    };
    let mut file = whole(file)?;
    let mut line = Vec::new();
    while next_whole(&mut file, &mut line)? == Some(true) {
        each(&line)?;
    }
    Ok(listing)
}

/// The lines of a file, each with what is to become of it.
#[derive(Debug, Default)]
pub(super) struct Lines {
    lines: Vec<Line>,
    bytes: u64,
    is_torn: bool,
}

#[derive(Debug)]
struct Line {
    /// `None`: no letter. Nobody but a person may throw that away.
    cause: Option<Cause>,
    /// Whether the letter was not sent again.
    is_waiting: bool,
    is_kept: bool,
}

impl Lines {
    pub(super) fn read(file: &dyn DiskFile) -> io::Result<Self> {
        let mut file = whole(file)?;
        let mut found = Self::default();
        let mut newest: HashMap<Cause, usize> = HashMap::new();
        let mut line = Vec::new();
        while let Some(is_whole) = next_whole(&mut file, &mut line)? {
            if !is_whole {
                found.is_torn = true;
                break;
            }
            let letter = parsed(&line)?;
            let cause = letter.as_ref().map(DeadLetter::cause);
            let is_waiting = letter.is_some_and(|letter| letter.redriven.is_none());
            let number = found.lines.len();
            if let Some(replaced) = cause.and_then(|cause| newest.insert(cause, number)) {
                found.lines[replaced].is_kept = false;
            }
            found.bytes += line.len() as u64;
            found.lines.push(Line { cause, is_waiting, is_kept: true });
        }
        Ok(found)
    }

    /// Marks the letters of rows that come again, and returns how many.
    pub(super) fn discard(&mut self, comes_again: impl Fn(SpoolPosition) -> bool) -> u64 {
        let mut discarded = 0;
        for line in self.lines.iter_mut().filter(|line| line.is_kept) {
            let Some(Cause { boot, offset, .. }) = line.cause else { continue };
            if comes_again(SpoolPosition { boot, offset }) {
                line.is_kept = false;
                discarded += 1;
            }
        }
        discarded
    }

    pub(super) fn is_to_be_rewritten(&self) -> bool {
        self.is_torn || self.lines.iter().any(|line| !line.is_kept)
    }

    pub(super) fn is_torn(&self) -> bool {
        self.is_torn
    }

    pub(super) fn letters(&self) -> u64 {
        self.kept().filter(|line| line.cause.is_some()).count() as u64
    }

    /// Returns how many letters wait for a person. `was_sent` knows more than the letters do.
    pub(super) fn waiting(&self, was_sent: impl Fn(&Cause) -> bool) -> u64 {
        let waits = |line: &&Line| line.is_waiting && line.cause.as_ref().is_some_and(|cause| !was_sent(cause));
        self.kept().filter(waits).count() as u64
    }

    /// Returns the highest offset of a letter.
    pub(super) fn newest(&self) -> u64 {
        self.kept().filter_map(|line| line.cause).map(|cause| cause.offset).max().unwrap_or(0)
    }

    pub(super) fn unreadable(&self) -> u64 {
        self.kept().filter(|line| line.cause.is_none()).count() as u64
    }

    /// Returns the length of all whole lines.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Copies the lines that stay, as they are, out of the file that was read.
    pub(super) fn copy_kept(&self, source: &dyn DiskFile, target: &mut dyn Write) -> io::Result<()> {
        let mut source = whole(source)?;
        let mut bytes = Vec::new();
        for line in &self.lines {
            if next_whole(&mut source, &mut bytes)? != Some(true) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.is_kept {
                target.write_all(&bytes)?;
            }
        }
        Ok(())
    }

    fn kept(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.is_kept)
    }
}

/// A letter as it stands in a line.
#[derive(Serialize)]
struct Written<'a> {
    format: u64,
    #[serde(flatten)]
    letter: &'a DeadLetter,
}

/// Returns a letter as a line.
pub(crate) fn written(letter: &DeadLetter) -> Vec<u8> {
    let line = serde_json::to_vec(&Written { format: FORMAT, letter });
    let mut line = line.expect("its fields are text, numbers and JSON");
    line.push(b'\n');
    line
}

/// Reads a line; `None` for one that is no letter.
///
/// # Errors
///
/// For one of a newer format.
pub(crate) fn parsed(line: &[u8]) -> io::Result<Option<DeadLetter>> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(default)]
        format: u64,
    }
    match serde_json::from_slice(line) {
        Ok(Named { format }) if format > FORMAT => {
            let text = format!("a dead letter has format {format}, this program knows up to {FORMAT}");
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
        Ok(_) | Err(_) => Ok(serde_json::from_slice(line).ok()),
    }
}

/// Since 2 a letter names its format.
const FORMAT: u64 = 2;

/// Returns a reader that ends where the file ends now: a device or a pipe in its place would never end.
fn whole(file: &dyn DiskFile) -> io::Result<impl BufRead> {
    Ok(BufReader::new(read_to(file, file.len()?)))
}

/// Reads the next line with its end. Returns whether it has one, and `None` behind the last.
fn next_whole(file: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    let read = file.read_until(b'\n', line)?;
    Ok((read > 0).then(|| line.ends_with(b"\n")))
}
