//! The file of everything the venue made and sent: JSON lines, given to the operating system before anybody is told.
//!
//! A killed simulator therefore never told a client something that its file does not hold, and goes on from there.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{fold::Event, oracle::Oracle};

/// The version that is written; another one is refused.
pub(super) const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Line<E> {
    at_ms: i64,
    event: E,
}

/// The file while the venue runs.
#[derive(Debug)]
pub(super) struct SentFile {
    file: File,
    buffer: Vec<u8>,
}

/// What a file held.
pub(super) struct Loaded {
    pub(super) oracle: Oracle,
    /// Where the last whole line ends.
    pub(super) whole_bytes: u64,
}

impl SentFile {
    /// Opens or makes the file, cuts off a torn last line and returns what the rest says.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Oracle)> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let loaded = load(path)?;
        file.set_len(loaded.whole_bytes)?;
        Ok((Self { file, buffer: Vec::new() }, loaded.oracle))
    }

    /// Adds an event to what the next `flush` writes.
    pub(super) fn append(&mut self, at_ms: i64, event: &Event) {
        serde_json::to_writer(&mut self.buffer, &Line { at_ms, event })
            .expect("events hold finite numbers and text keys");
        self.buffer.push(b'\n');
    }

    /// Hands everything appended to the operating system.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

/// Reads a file up to its last whole line.
pub(super) fn load(path: &Path) -> io::Result<Loaded> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut loaded = Loaded { oracle: Oracle::default(), whole_bytes: 0 };
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        reader.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            break;
        }
        let damaged = |why: String| {
            io::Error::new(io::ErrorKind::InvalidData, format!("`{}`, line {number}: {why}", path.display()))
        };
        let Line { at_ms, event } = serde_json::from_slice(&line).map_err(|error| damaged(error.to_string()))?;
        if let Event::Started { version, .. } = &event
            && *version != VERSION
        {
            return Err(damaged(format!("written by version {version}, this one reads {VERSION}")));
        }
        loaded.oracle.apply(at_ms, event);
        loaded.whole_bytes += line.len() as u64;
    }
    Ok(loaded)
}
