//! What is known of a replay besides its rows: that it was begun, and that it has come to its end.
//!
//! Rows without numbers cannot be told from those of an earlier replay, so a recording is played into a spool once. The
//! word that it was begun is on disk before the first row, the word of its end after the last.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// The note of a replay that was begun just now.
#[derive(Debug)]
pub(super) struct Played {
    file: File,
}

impl Played {
    /// Notes that a recording is being played by the source that keeps its files in `folder`. `None` if it was played
    /// there to its end.
    ///
    /// # Errors
    ///
    /// `Config` when another recording was played there, or this one in part. `Permanent` when it cannot be noted.
    pub(super) fn begin(folder: &Path, from: &Path) -> Result<Option<Self>> {
        let path = folder.join(NAME);
        match fs::read_to_string(&path) {
            Ok(note) => Self::before(&note, folder, from).map(|()| None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = create(folder, &path, from);
                file.map(|file| Some(Self { file })).map_err(|error| unnoted(&path, error))
            }
            Err(error) => Err(unnoted(&path, error)),
        }
    }

    /// Sorts the note of an earlier replay.
    fn before(note: &str, folder: &Path, from: &Path) -> Result<()> {
        let (earlier, end) = note.split_once('\n').unwrap_or((note, ""));
        // `data_dir/PIPELINE/replay/sources/SOURCE`
        let files = folder.ancestors().nth(2).unwrap_or(folder).display();
        let state = match end {
            FINISHED if Path::new(earlier) == from => return Ok(()),
            FINISHED => "holds a replay of",
            _ => "holds an unfinished replay of",
        };
        Err(Error::config(format!(
            "`{files}` {state} `{earlier}`, and rows would be doubled: to play `{}` from its beginning, remove this folder \
             and what the stores have of it",
            from.display()
        )))
    }

    /// Notes that the recording was played to its end, and that all of it is on disk.
    ///
    /// # Errors
    ///
    /// `Permanent` when it cannot be noted.
    pub(super) fn end(mut self) -> Result<()> {
        let written = self.file.write_all(FINISHED.as_bytes()).and_then(|()| self.file.sync_all());
        written.map_err(|error| Error::permanent("cannot note the end of the replay").because(error))
    }
}

fn create(folder: &Path, path: &PathBuf, from: &Path) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(format!("{}\n", from.display()).as_bytes())?;
    file.sync_all()?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}

fn unnoted(path: &Path, error: io::Error) -> Error {
    Error::permanent(format!("cannot note the replay in `{}`", path.display())).because(error)
}

const NAME: &str = "played";
const FINISHED: &str = "to its end\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn a_recording_is_played_into_a_folder_once() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("replay/sources/toy");
        let played = Played::begin(&folder, Path::new("captures")).unwrap().unwrap();
        let error = Played::begin(&folder, Path::new("captures")).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        let text = error.to_string();
        let place = dir.path().join("replay").display().to_string();
        assert!(text.starts_with(&format!("`{place}` holds an unfinished replay of `captures`")), "{text}");

        played.end().unwrap();
        assert!(Played::begin(&folder, Path::new("captures")).unwrap().is_none(), "nothing is left to be played");
        let error = Played::begin(&folder, Path::new("others")).unwrap_err().to_string();
        assert!(error.contains("holds a replay of `captures`"), "{error}");
    }
}
