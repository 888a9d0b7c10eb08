//! `tidegate sink forget`: a sink that is not in the file any more is given up, with what the spool keeps for it.

use std::{fmt, fs, io::ErrorKind, path::PathBuf};

use super::{
    Rows, Stopped,
    course::Loss,
    known_of,
    losses::{Count, Counted},
    sync_folder,
};
use crate::{Error, Result, deadletter, spool::Control};

/// What will happen, in numbers. Shown by `Display`.
#[derive(Debug)]
pub struct Forgetting {
    stage: String,
    sink: String,
    /// The note of it; none where nothing is known of it.
    note: Option<PathBuf>,
    /// What cannot be read of the note.
    damage: Option<String>,
    had: u64,
    end: u64,
    rows: Rows,
    entries: Vec<Control>,
    letters: Option<(usize, PathBuf)>,
}

impl Stopped {
    /// Looks at what is known of a sink that is not in the file any more.
    ///
    /// # Errors
    ///
    /// `Config` for one that is; `Transient` when the spool cannot be read.
    pub fn forgetting(&self, sink: &str) -> Result<Forgetting> {
        if self.pipeline.sinks.iter().any(|stage| stage.name == sink) {
            let file = self.pipeline.file.display();
            return Err(Error::config(format!("`[sink.{sink}]` stands in `{file}`: take it out first")));
        }
        let note = self.folder.note_of(sink);
        let is_known = note.exists();
        let (known, damage) = known_of(&self.folder.sinks(), sink);
        let noted = known.noted();
        let reader = self.reader();
        let had = noted.position.or(noted.begins_at).map_or(0, |at| at.offset);
        let end = reader.end().offset;
        let why = "forgotten, with what it had not got".to_owned();
        let loss = Loss { first: had + 1, last: end, tables: Vec::new(), why };
        let losses = if is_known && had < end { vec![loss] } else { Vec::new() };
        // Which tables it took stood in the file.
        let names_of = &|_: &_, table: &std::sync::Arc<str>| vec![table.to_string()];
        let count = Count { sink, sent_behind: None, had, losses: &losses, names_of };
        let Counted { lost, entries, .. } = count.take(&reader)?;
        let letters = self.folder.dead_letters(sink);
        let letters = deadletter::list(&letters).ok().map(|listing| (listing.letters.len(), letters));
        Ok(Forgetting {
            stage: format!("{}/sink.{sink}", self.pipeline.name),
            sink: sink.to_owned(),
            note: is_known.then_some(note),
            damage,
            had,
            end,
            rows: lost.into_iter().next().unwrap_or_default(),
            entries,
            letters: letters.filter(|(count, _)| *count > 0),
        })
    }

    /// Gives it up: what it never gets is written down, then nothing is known of it any more. Its dead letters stay.
    ///
    /// # Errors
    ///
    /// Whatever the disk says. The same command goes on from there.
    pub fn forget(self, forgetting: Forgetting) -> Result<()> {
        let Forgetting { note: Some(note), entries, .. } = forgetting else { return Ok(()) };
        let sinks = self.folder.sinks();
        let _spool = self.keep(&entries)?;
        match fs::remove_file(&note) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::transient(format!("cannot remove `{}`", note.display())).because(error));
            }
            Ok(()) | Err(_) => {}
        }
        sync_folder(&sinks)
    }
}

impl Forgetting {
    /// Returns whether there is anything to do.
    pub fn changes_something(&self) -> bool {
        self.note.is_some()
    }
}

impl fmt::Display for Forgetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.stage)?;
        if self.note.is_none() {
            return writeln!(f, "nothing is known of it: there is nothing to do");
        }
        match &self.damage {
            Some(damage) => writeln!(f, "known    {damage}: it may have got nothing")?,
            None => writeln!(f, "known    all up to offset {} of {}, beside the spool", self.had, self.end)?,
        }
        let Self { rows, sink, had, end, .. } = self;
        match rows.sum() {
            0 => writeln!(f, "lost     nothing: it has all that there is")?,
            _ => writeln!(f, "lost     offsets {} to {end}, {rows}; the ledger says so, lost at {sink}", had + 1)?,
        }
        if let Some((count, path)) = &self.letters {
            writeln!(f, "stays    {count} dead letters in `{}`", path.display())?;
        }
        writeln!(f, "its store is not touched")
    }
}
