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

/// What is known of a recording that is to be played.
#[derive(Debug)]
pub(super) enum Begun {
    /// It was begun just now.
    New(Played),
    /// It was played before: `to its end`, or with what was missing.
    Before(String),
}

impl Played {
    /// Notes that a recording is being played by the source that keeps its files in `folder`, unless it was played there.
    ///
    /// # Errors
    ///
    /// `Config` when another recording was played there, or this one in part. `Permanent` when it cannot be noted.
    pub(super) fn begin(folder: &Path, from: &Path) -> Result<Begun> {
        let path = folder.join(NAME);
        match fs::read_to_string(&path) {
            Ok(note) => Self::before(&note, folder, from).map(Begun::Before),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = create(folder, &path, from);
                file.map(|file| Begun::New(Self { file })).map_err(|error| unnoted(&path, error))
            }
            Err(error) => Err(unnoted(&path, error)),
        }
    }

    /// Sorts the note of an earlier replay.
    fn before(note: &str, folder: &Path, from: &Path) -> Result<String> {
        let (earlier, end) = note.split_once('\n').unwrap_or((note, ""));
        // `data_dir/PIPELINE/replay/sources/SOURCE`
        let files = folder.ancestors().nth(2).unwrap_or(folder).display();
        let is_over = end.starts_with(FINISHED) && end.ends_with('\n');
        if is_over && Path::new(earlier) == from {
            return Ok(end.trim_end().to_owned());
        }
        let state = if is_over { "holds a replay of" } else { "holds an unfinished replay of" };
        Err(Error::config(format!(
            "`{files}` {state} `{earlier}`, and rows would be doubled: to play `{}` from its beginning, remove this folder \
             and what the stores have of it",
            from.display()
        )))
    }

    /// Notes that the recording was played to its end, as far as there is one, and that all of it is on disk. `cut` is a file
    /// of it that ends before its end.
    ///
    /// # Errors
    ///
    /// `Permanent` when it cannot be noted.
    pub(super) fn end(mut self, cut: Option<&Path>) -> Result<()> {
        let lack = cut.map(|file| format!(", without what is missing behind the cut of its file `{}`", file.display()));
        let note = format!("{FINISHED}{}\n", lack.unwrap_or_default());
        let written = self.file.write_all(note.as_bytes()).and_then(|()| self.file.sync_all());
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
const FINISHED: &str = "to its end";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn a_recording_is_played_into_a_folder_once() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("replay/sources/toy");
        let Begun::New(played) = Played::begin(&folder, Path::new("captures")).unwrap() else { panic!("it is new") };
        let error = Played::begin(&folder, Path::new("captures")).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        let text = error.to_string();
        let place = dir.path().join("replay").display().to_string();
        assert!(text.starts_with(&format!("`{place}` holds an unfinished replay of `captures`")), "{text}");

        played.end(None).unwrap();
        let before = Played::begin(&folder, Path::new("captures")).unwrap();
        assert!(matches!(before, Begun::Before(how) if how == "to its end"), "nothing is left to be played");
        let error = Played::begin(&folder, Path::new("others")).unwrap_err().to_string();
        assert!(error.contains("holds a replay of `captures`"), "{error}");
    }

    #[test]
    fn of_one_that_was_cut_it_is_known_that_its_end_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let Begun::New(played) = Played::begin(folder.path(), Path::new("captures")).unwrap() else {
            panic!("it is new")
        };
        played.end(Some(Path::new("captures/last.jsonl.gz"))).unwrap();
        let Begun::Before(how) = Played::begin(folder.path(), Path::new("captures")).unwrap() else {
            panic!("not twice")
        };
        assert_eq!(how, "to its end, without what is missing behind the cut of its file `captures/last.jsonl.gz`");
    }
}
