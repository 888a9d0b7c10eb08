//! Reads captures.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

use super::{Event, Line, VERSION, writer::SUFFIX};
use crate::{Error, Result, row::Timestamp};

/// The lines of a capture, in order.
#[derive(Debug)]
pub struct Reader {
    files: std::vec::IntoIter<PathBuf>,
    current: Option<(PathBuf, BufReader<MultiGzDecoder<BufReader<File>>>)>,
    number: u64,
    text: String,
    /// When the last line was written, and in which session.
    last: Option<(Timestamp, u64)>,
}

/// Opens a capture: a folder of files, or one of them.
///
/// # Errors
///
/// `Config` when there is none.
pub fn read(from: &Path) -> Result<Reader> {
    let none = |why: String| Error::config(format!("no capture at `{}`: {why}", from.display()));
    let mut files = if from.is_dir() {
        let entries = fs::read_dir(from).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
        entries.map_err(|error| none(error.to_string()))?.into_iter().map(|entry| entry.path()).collect()
    } else {
        vec![from.to_owned()]
    };
    files.retain(|file: &PathBuf| file.to_string_lossy().ends_with(SUFFIX));
    files.sort();
    if files.is_empty() {
        return Err(none(format!("no file `*.{SUFFIX}`")));
    }
    if let Err(error) = File::open(&files[0]) {
        return Err(none(error.to_string()));
    }
    Ok(Reader { files: files.into_iter(), current: None, number: 0, text: String::new(), last: None })
}

impl Iterator for Reader {
    type Item = Result<Line>;

    fn next(&mut self) -> Option<Result<Line>> {
        loop {
            let Some((path, file)) = &mut self.current else {
                let Some(path) = self.files.next() else { return self.nothing_read() };
                match File::open(&path) {
                    Ok(file) => {
                        self.current = Some((path, BufReader::new(MultiGzDecoder::new(BufReader::new(file)))));
                    }
                    Err(error) => return Some(Err(unreadable(&path, 0, &error))),
                }
                self.number = 0;
                continue;
            };
            self.text.clear();
            self.number += 1;
            match file.read_line(&mut self.text) {
                Ok(0) => self.current = None,
                Ok(_) if self.text.ends_with('\n') => {
                    let line = parse(&self.text, path, self.number);
                    self.last = line.as_ref().ok().map(|line| (line.at, line.session)).or(self.last);
                    return Some(line);
                }
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                    let error = unreadable(path, self.number, &error);
                    self.current = None;
                    return Some(Err(error));
                }
                // As a process leaves it that is killed, or a copy that was broken off.
                Ok(_) | Err(_) => {
                    let cut = self.cut();
                    if cut.is_some() {
                        return cut;
                    }
                }
            }
        }
    }
}

impl Reader {
    /// Leaves a file that ends before its end. With nothing before it the capture begins behind it.
    fn cut(&mut self) -> Option<Result<Line>> {
        let (file, reader) = self.current.take()?;
        // What a killed process leaves has the head of a gzip file, or nothing.
        let is_empty = fs::metadata(&file).is_ok_and(|file| file.len() == 0);
        if reader.get_ref().header().is_none() && !is_empty {
            return Some(Err(unreadable(&file, self.number, &"this is no gzip")));
        }
        let Some((at, session)) = self.last else {
            tracing::warn!("the capture's file `{}` has no whole line: it is left out", file.display());
            return None;
        };
        Some(Ok(Line { at, session, event: Event::Cut { file } }))
    }

    /// Ends; a capture without a line is none.
    fn nothing_read(&mut self) -> Option<Result<Line>> {
        if self.last.is_some() {
            return None;
        }
        self.last = Some((Timestamp::default(), 0));
        Some(Err(Error::permanent("no file of the capture has a whole line")))
    }
}

fn parse(text: &str, path: &Path, number: u64) -> Result<Line> {
    let line: Line = serde_json::from_str(text).map_err(|error| unreadable(path, number, &error))?;
    if let Event::Start { version, .. } = line.event
        && version > VERSION
    {
        let known = format!("written in version {version} of the format, this program reads up to {VERSION}");
        return Err(Error::config(format!("`{}` is {known}", path.display())));
    }
    Ok(line)
}

fn unreadable(path: &Path, line: u64, error: &dyn std::fmt::Display) -> Error {
    Error::permanent(format!("line {line} of the capture `{}` cannot be read: {error}", path.display()))
}
