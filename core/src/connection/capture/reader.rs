//! Reads captures.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

use super::{Event, Line, VERSION, writer::SUFFIX};
use crate::{Error, Result};

/// The lines of a capture, in order.
#[derive(Debug)]
pub struct Reader {
    files: std::vec::IntoIter<PathBuf>,
    current: Option<(PathBuf, BufReader<MultiGzDecoder<BufReader<File>>>)>,
    number: u64,
    text: String,
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
    Ok(Reader { files: files.into_iter(), current: None, number: 0, text: String::new() })
}

impl Iterator for Reader {
    type Item = Result<Line>;

    fn next(&mut self) -> Option<Result<Line>> {
        loop {
            let Some((path, file)) = &mut self.current else {
                let path = self.files.next()?;
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
                // The last line of a process that was killed is cut.
                Ok(_) if !self.text.ends_with('\n') => self.current = None,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.current = None,
                Ok(_) => return Some(parse(&self.text, path, self.number)),
                Err(error) => {
                    let error = unreadable(path, self.number, &error);
                    self.current = None;
                    return Some(Err(error));
                }
            }
        }
    }
}

fn parse(text: &str, path: &Path, number: u64) -> Result<Line> {
    let line: Line = serde_json::from_str(text).map_err(|error| unreadable(path, number, &error))?;
    if let Event::Start { version, .. } = line.event
        && version != VERSION
    {
        let known = format!("written in version {version} of the format, this program reads {VERSION}");
        return Err(Error::config(format!("`{}` is {known}", path.display())));
    }
    Ok(line)
}

fn unreadable(path: &Path, line: u64, error: &dyn std::fmt::Display) -> Error {
    Error::permanent(format!("line {line} of the capture `{}` cannot be read: {error}", path.display()))
}
