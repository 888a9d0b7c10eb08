//! The file of everything the venue made and sent: JSON lines, given to the operating system before anybody is told.
//!
//! A killed simulator therefore never told a client something that its file does not hold, and goes on from there.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, Read, Write},
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
    /// Opens or makes the file for this simulator alone, cuts off a torn last line and returns what the rest says.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Oracle)> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        check_kind(path)?;
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let why = format!("another simulator writes `{}`: name another file", path.display());
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, why));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
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

/// Refuses what is no file: a device has no end, and a named pipe waits for somebody else.
fn check_kind(path: &Path) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|file| !file.is_file()) {
        let why = format!("`{}` is no regular file", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(())
}

/// Reads a file up to its last whole line.
pub(super) fn load(path: &Path) -> io::Result<Loaded> {
    check_kind(path)?;
    let mut reader = BufReader::new(File::open(path)?);
    let mut loaded = Loaded { oracle: Oracle::default(), whole_bytes: 0 };
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        reader.by_ref().take(LONGEST).read_until(b'\n', &mut line)?;
        let damaged = |why: String| {
            io::Error::new(io::ErrorKind::InvalidData, format!("`{}`, line {number}: {why}", path.display()))
        };
        if line.last() != Some(&b'\n') {
            // A torn line is cut off: not what somebody else wrote.
            if line.len() as u64 == LONGEST || !(line.starts_with(BEGINNING) || BEGINNING.starts_with(&line)) {
                return Err(damaged("this is no line of a simulator".to_owned()));
            }
            break;
        }
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

/// How every line begins.
const BEGINNING: &[u8] = br#"{"at_ms":"#;
/// A line is shorter than this.
const LONGEST: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_simulator_wrote_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let notes = dir.path().join("notes");
        fs::write(&notes, "a line without an end").unwrap();
        let error = SentFile::open(&notes).unwrap_err().to_string();
        assert!(error.ends_with("line 1: this is no line of a simulator"), "{error}");
        assert_eq!(fs::read_to_string(&notes).unwrap(), "a line without an end");

        let endless = dir.path().join("endless");
        File::create(&endless).unwrap().set_len(1 << 40).unwrap();
        assert!(SentFile::open(&endless).is_err(), "and memory has a bound");
        let error = SentFile::open(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(error.contains("is no regular file"), "{error}");
    }

    #[test]
    fn a_file_is_written_by_one_simulator_at_a_time_and_its_torn_line_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sent.jsonl");
        fs::write(&path, r#"{"at_ms":17"#).unwrap();
        let first = SentFile::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        let error = SentFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("another simulator writes"), "{error}");
        drop(first);
        SentFile::open(&path).unwrap();
    }
}
