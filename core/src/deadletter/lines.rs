//! Reading a file of dead letters: which lines are whole, which are letters, which replace others.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::Path,
};

use crate::{
    Result,
    spool::{Cause, SpoolPosition},
};

use super::{DeadLetter, failed, open_for_reading};

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
/// As [`DeadLetters::open`](super::DeadLetters::open), and `Permanent` if there is no such file.
pub fn list(path: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    let mut places: HashMap<(String, Cause), usize> = HashMap::new();
    let mut each = |line: &[u8]| {
        let Ok(letter) = serde_json::from_slice::<DeadLetter>(line) else {
            listing.unreadable += 1;
            return;
        };
        let next = listing.letters.len();
        let place = *places.entry((letter.sink.clone(), letter.cause())).or_insert(next);
        if place < next {
            listing.letters[place] = letter;
        } else {
            listing.letters.push(letter);
        }
    };
    if !super::is_regular(path)? {
        return Err(failed("read", path, io::ErrorKind::NotFound.into()));
    }
    let mut file = BufReader::new(open_for_reading(path)?);
    let mut line = Vec::new();
    while next_whole(&mut file, &mut line).map_err(|error| failed("read", path, error))? == Some(true) {
        each(&line);
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
    is_kept: bool,
}

impl Lines {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut file = BufReader::new(open_for_reading(path)?);
        let mut found = Self::default();
        let mut newest: HashMap<Cause, usize> = HashMap::new();
        let mut line = Vec::new();
        while let Some(is_whole) = next_whole(&mut file, &mut line).map_err(|error| failed("read", path, error))? {
            if !is_whole {
                found.is_torn = true;
                break;
            }
            let letter: Option<DeadLetter> = serde_json::from_slice(&line).ok();
            let cause = letter.map(|letter| letter.cause());
            let number = found.lines.len();
            if let Some(replaced) = cause.and_then(|cause| newest.insert(cause, number)) {
                found.lines[replaced].is_kept = false;
            }
            found.bytes += line.len() as u64;
            found.lines.push(Line { cause, is_kept: true });
        }
        Ok(found)
    }

    /// Marks the letters that are not committed, and returns how many.
    pub(super) fn discard(&mut self, is_committed: impl Fn(SpoolPosition) -> bool) -> u64 {
        let mut discarded = 0;
        for line in self.lines.iter_mut().filter(|line| line.is_kept) {
            let Some(Cause { boot, offset, .. }) = line.cause else { continue };
            if !is_committed(SpoolPosition { boot, offset }) {
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

    pub(super) fn unreadable(&self) -> u64 {
        self.kept().filter(|line| line.cause.is_none()).count() as u64
    }

    /// Returns the length of all whole lines.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the lines that stay, to be copied out of the file that was read.
    pub(super) fn kept_in(&self, file: File) -> Kept<'_> {
        Kept { lines: &self.lines, file }
    }

    fn kept(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.is_kept)
    }
}

/// The lines of a file that stay.
pub(super) struct Kept<'a> {
    lines: &'a [Line],
    file: File,
}

impl Kept<'_> {
    /// Copies them as they are.
    pub(super) fn copy_to(self, target: &mut File) -> io::Result<()> {
        let mut source = BufReader::new(self.file);
        let mut target = BufWriter::new(target);
        let mut bytes = Vec::new();
        for line in self.lines {
            if next_whole(&mut source, &mut bytes)? != Some(true) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.is_kept {
                target.write_all(&bytes)?;
            }
        }
        target.flush()
    }
}

/// Reads the next line with its end. Returns whether it has one, and `None` behind the last.
fn next_whole(file: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    let read = file.read_until(b'\n', line)?;
    Ok((read > 0).then(|| line.ends_with(b"\n")))
}
