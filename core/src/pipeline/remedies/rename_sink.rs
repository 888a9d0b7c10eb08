//! `tidegate sink rename`: what is known of a sink under its old name goes to the new one, in the store too.

use std::{
    fmt,
    fs::{self, File},
    io::{BufRead, BufReader, ErrorKind},
    path::{Path, PathBuf},
};

use super::{Stopped, known_of, rename_in, sync_folder};
use crate::{
    Error, Result,
    deadletter::{self, DeadLetter, DeadLetters},
    sink::{Claim, Owner},
    spool::{
        SpoolPosition,
        disk::{RealDisk, replace},
    },
};

/// What will happen, in numbers. Shown by `Display`.
#[derive(Debug)]
pub struct SinkRenaming {
    pipeline: String,
    old: String,
    new: String,
    is_done: bool,
    /// Where the store is under the old name.
    claim: Option<Claim>,
    keeps_position: bool,
    known: Option<SpoolPosition>,
    end: SpoolPosition,
}

impl Stopped {
    /// Looks at what is known under both names.
    ///
    /// # Errors
    ///
    /// `Config` where the new name is not in the file, or the old one still is; where nothing is known of the old one; where
    /// the new one has been fed already.
    pub async fn sink_renaming(&self, old: &str, new: &str) -> Result<SinkRenaming> {
        let stage = self.sink(new)?;
        if self.pipeline.sinks.iter().any(|stage| stage.name == old) {
            let file = self.pipeline.file.display();
            return Err(Error::config(format!("`[sink.{old}]` still stands in `{file}`: rename it there first")));
        }
        let sinks = self.folder.sinks();
        let (is_there, is_new_there) = (self.folder.note_of(old).exists(), self.folder.note_of(new).exists());
        if !is_there && !is_new_there {
            return Err(Error::config(format!(
                "nothing is known of a sink `{old}`; known are: {}",
                notes(&sinks).join(", ")
            )));
        }
        let (known, damage) = known_of(&sinks, if is_there { old } else { new });
        if let Some(damage) = damage {
            return Err(Error::permanent(damage));
        }
        if is_there && let Some(at) = known_of(&sinks, new).0.noted().position {
            return Err(Error::config(format!(
                "`[sink.{new}]` has been fed up to {at}: it is a sink of its own, and `{old}` can only be forgotten"
            )));
        }
        let had = known.noted().position.map_or(0, |at| at.offset);
        let waiting = if is_there { super::losses::redriven_behind(&self.reader(), old, had)? } else { 0 };
        if waiting > 0 {
            // They are addressed to the old name, and no other gets them.
            return Err(Error::config(format!(
                "{waiting} dead letters that are sent again wait for `{old}`: give it its name back, let them be stored, and \
                 rename it then"
            )));
        }
        let owner = Owner { sink: old.to_owned(), ..self.owner(stage)? };
        let mut store = (stage.factory)()?;
        let keeps_position = store.guarantee().keeps_position();
        let claim = store.claim(&owner).await?;
        Ok(SinkRenaming {
            pipeline: self.pipeline.name.clone(),
            old: old.to_owned(),
            new: new.to_owned(),
            is_done: !is_there,
            claim,
            keeps_position,
            known: known.noted().position,
            end: self.reader().end(),
        })
    }

    /// Does it: in the store, then its folder with the dead letters, then the note beside the spool, which decides.
    ///
    /// # Errors
    ///
    /// Whatever the store or the disk says. The same command goes on from there.
    pub async fn rename_sink(self, renaming: SinkRenaming) -> Result<()> {
        let SinkRenaming { old, new, is_done, keeps_position, claim, known, .. } = renaming;
        if is_done {
            return Ok(());
        }
        let stage = self.sink(&new)?;
        let owner = self.owner(stage)?;
        if keeps_position || claim.is_some() {
            let mut store = (stage.factory)()?;
            let before = Owner { sink: old.clone(), ..owner.clone() };
            rename_in(&mut *store, (&before, &owner), known.filter(|_| keeps_position)).await?;
        }
        let sinks = self.folder.sinks();
        rename_folder(&sinks.join(&old), &sinks.join(&new))?;
        rename_in_letters(&sinks.join(&new), &new)?;
        let (from, to) = (self.folder.note_of(&old), self.folder.note_of(&new));
        fs::rename(&from, &to).map_err(|error| cannot_rename(&from, &to).because(error))?;
        sync_folder(&sinks)
    }
}

/// Gives a folder another name, if it has not got it yet. One that a start has made under the new name is empty.
fn rename_folder(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        renamed => renamed.map_err(|error| cannot_rename(from, to).because(error)),
    }
}

fn cannot_rename(from: &Path, to: &Path) -> Error {
    Error::transient(format!("cannot rename `{}` to `{}`", from.display(), to.display()))
}

/// Puts the new name into the dead letters. Lines that are none stay as they are.
fn rename_in_letters(folder: &Path, new: &str) -> Result<()> {
    let path = folder.join(DeadLetters::FILE_NAME);
    let failed =
        |error| Error::transient(format!("cannot rewrite the dead letters `{}`", path.display())).because(error);
    let letters = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(failed)?,
    };
    let disk = RealDisk::at(folder);
    let written = replace(&disk, DeadLetters::FILE_NAME, |file| {
        for line in BufReader::new(letters).split(b'\n') {
            let line = line?;
            match deadletter::parsed(&line)? {
                Some(letter) => {
                    file.write_all(&deadletter::written(&DeadLetter { sink: new.to_owned(), ..letter }))?;
                }
                None => {
                    file.write_all(&line)?;
                    file.write_all(b"\n")?;
                }
            }
        }
        Ok(())
    });
    written.map(drop).map_err(failed)
}

/// Returns the names of the sinks that something is known of.
pub(super) fn notes(sinks: &Path) -> Vec<String> {
    let files = fs::read_dir(sinks).into_iter().flatten().flatten();
    let name = |file: fs::DirEntry| Some(file.file_name().to_str()?.strip_suffix(".json")?.to_owned());
    let mut names: Vec<_> = files.filter_map(name).collect();
    names.sort();
    names
}

impl SinkRenaming {
    /// Returns whether there is anything to do.
    pub fn changes_something(&self) -> bool {
        !self.is_done
    }
}

impl fmt::Display for SinkRenaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pipeline, old, new, known, end, .. } = self;
        writeln!(f, "{pipeline}/sink.{old} → {pipeline}/sink.{new}")?;
        if self.is_done {
            return writeln!(f, "nothing is known of `{old}`, and `{new}` is known: there is nothing to do");
        }
        match &self.claim {
            _ if !self.keeps_position => writeln!(f, "store    keeps no position")?,
            Some(claim) => writeln!(f, "store    {}", claim.position)?,
            None => writeln!(f, "store    no position under the old name")?,
        }
        match known {
            Some(known) => writeln!(f, "known    {known}, beside the spool")?,
            None => writeln!(f, "known    that nothing was stored yet, beside the spool")?,
        }
        writeln!(f, "spool    up to {end}")?;
        writeln!(f, "nothing is sent again and nothing left out: `{new}` goes on where `{old}` was")
    }
}

impl super::Folder {
    /// Returns the file in which what is known of a sink is noted.
    pub(super) fn note_of(&self, sink: &str) -> PathBuf {
        self.sinks().join(crate::delivery::file_name(sink))
    }
}
