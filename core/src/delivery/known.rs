//! The last known position of a sink, kept beside the log: with it, a store that lost its position is not taken for a
//! new one.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    spool::{Boot, SpoolPosition},
};

/// The file `<data>/<pipeline>/sinks/<name>.json`.
#[derive(Debug)]
pub(crate) struct Known {
    path: PathBuf,
    position: Option<SpoolPosition>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    /// In hexadecimal: a program that reads JSON numbers as floats would change it.
    boot: String,
    offset: u64,
}

impl Known {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    ///
    /// `Permanent` when it cannot be read or is none of ours: what it said must not be guessed.
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        let position =
            match fs::read(&path) {
                Ok(bytes) => Some(parse(&bytes).ok_or_else(|| {
                    Error::permanent(format!("`{}` is damaged: it holds no position", path.display()))
                })?),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(Error::permanent(format!("cannot read `{}`", path.display())).because(error)),
            };
        Ok(Self { path, position })
    }

    /// Returns the position that the file holds.
    pub(crate) fn position(&self) -> Option<SpoolPosition> {
        self.position
    }

    /// Replaces the file, durably. Until then the old one counts.
    ///
    /// # Errors
    ///
    /// `Transient`, naming the file.
    pub(crate) fn write(&mut self, position: SpoolPosition) -> Result<()> {
        if self.position == Some(position) {
            return Ok(());
        }
        replace(&self.path, position)
            .map_err(|error| Error::transient(format!("cannot write `{}`", self.path.display())).because(error))?;
        self.position = Some(position);
        Ok(())
    }
}

fn parse(bytes: &[u8]) -> Option<SpoolPosition> {
    let content: Content = serde_json::from_slice(bytes).ok()?;
    let boot = Boot(u64::from_str_radix(&content.boot, 16).ok()?);
    Some(SpoolPosition { boot, offset: content.offset })
}

fn replace(path: &Path, position: SpoolPosition) -> io::Result<()> {
    let content = Content { boot: format!("{:016x}", position.boot.0), offset: position.offset };
    let temporary = path.with_extension("json.new");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(&content)?)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    File::open(path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_known_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sqlite.json");
        assert_eq!(Known::open(path.clone()).unwrap().position(), None);

        let position = SpoolPosition { boot: Boot(u64::MAX - 1), offset: 1 << 60 };
        Known::open(path.clone()).unwrap().write(position).unwrap();
        assert_eq!(Known::open(path).unwrap().position(), Some(position));
    }

    #[test]
    fn a_damaged_file_is_no_fresh_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sqlite.json");
        for content in ["", "{}", "{\"boot\":\"x\",\"offset\":1}", "{\"boot\":\"1\""] {
            fs::write(&path, content).unwrap();
            let error = Known::open(path.clone()).unwrap_err();
            assert!(error.to_string().contains("sqlite.json"), "{content}: {error}");
        }
    }

    #[test]
    fn a_directory_in_its_place_is_said_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sqlite.json");
        let mut known = Known::open(path.clone()).unwrap();
        fs::create_dir(&path).unwrap();
        let error = known.write(SpoolPosition { boot: Boot(1), offset: 1 }).unwrap_err();
        assert!(error.to_string().contains("sqlite.json"), "{error}");
        assert_eq!(known.position(), None, "a position that was not written is not known");
    }
}
