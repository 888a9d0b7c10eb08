//! `tidegate spool rename`: what a pipeline has under its old name goes to the new one: its folder, its spool, and its
//! positions in the stores.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use super::{Rows, Stopped, known_of, rename_in, sync_folder};
use crate::{
    Error, Result,
    config::{Pipeline, nearest},
    delivery::{Log, Seen},
    pipeline::Folder,
    sink::Owner,
    spool::{Item, inspect::inspect},
};

/// What will happen, in numbers. Shown by `Display`.
#[derive(Debug)]
pub struct SpoolRenaming {
    pipeline: Pipeline,
    old: String,
    /// Where the old spool is now, and where it has to be; none where nothing has to be done.
    way: Option<Way>,
}

#[derive(Debug)]
struct Way {
    from: Folder,
    to: Folder,
    /// The spool.
    stopped: Stopped,
    /// One that was begun under the new name, and what it has.
    replaced: Option<(Stopped, Rows)>,
}

impl SpoolRenaming {
    /// Looks at what there is under both names. `others` are the pipelines that other files name, with those files.
    ///
    /// # Errors
    ///
    /// `Config` where the old name is that of a pipeline which is still there, there is no spool of it, a process has one of
    /// the two, or the new one has fed stores.
    pub fn look(pipeline: Pipeline, data_dir: &Path, old: &str, others: &BTreeMap<String, PathBuf>) -> Result<Self> {
        if let Some(file) = others.get(old).filter(|_| old != pipeline.name) {
            let (file, own) = (file.display(), pipeline.file.display());
            return Err(Error::config(format!(
                "`{file}` names the pipeline `{old}`, beside `{own}`: the spool is its own. If `{own}` is that pipeline under \
                 a new name, take `{file}` away first"
            )));
        }
        let to = Folder::of(data_dir, &pipeline);
        let mut renamed = pipeline.clone();
        old.clone_into(&mut renamed.name);
        let from = Folder::of(data_dir, &renamed);
        let left = left(data_dir, &pipeline.name, others);
        let Some(from) = find(&pipeline.name, old, from, &to, &left)? else {
            return Ok(Self { pipeline, old: old.to_owned(), way: None });
        };
        let stopped = Stopped::take(pipeline.clone(), from.clone(), Some(old))?;
        let is_begun_anew = from != to && to.spool().is_dir();
        let replaced = is_begun_anew.then(|| begun_anew(&pipeline, &to)).transpose()?;
        Ok(Self { pipeline, old: old.to_owned(), way: Some(Way { from, to, stopped, replaced }) })
    }

    /// Does it: the spool gets the new name, then the positions in the stores, then the folder, which decides.
    ///
    /// # Errors
    ///
    /// Whatever the spool, a store or the disk says. The same command goes on from there.
    pub async fn rename(self) -> Result<()> {
        let Self { pipeline, old, way: Some(Way { from, to, stopped, replaced }) } = self else { return Ok(()) };
        let mut owners = Vec::new();
        for sink in &pipeline.sinks {
            owners.push((sink, stopped.owner(sink)?));
        }
        // Held until the end: nobody starts on what is half done.
        let _spool = stopped.keep(&[])?;
        for (sink, owner) in owners {
            let mut store = (sink.factory)()?;
            let before = Owner { pipeline: old.clone(), ..owner.clone() };
            let keeps_position = store.guarantee().keeps_position();
            if keeps_position || store.claim(&before).await?.is_some() {
                let known = known_of(&from.sinks(), &sink.name).0.noted().position;
                rename_in(&mut *store, (&before, &owner), known.filter(|_| keeps_position)).await?;
            }
        }
        if from == to {
            return Ok(());
        }
        if let Some((replaced, _)) = replaced {
            rename(&to, from.path().join(replaced_name(&replaced)))?;
        }
        rename(&from, to.path().to_owned())
    }

    /// Returns whether there is anything to do.
    pub fn changes_something(&self) -> bool {
        self.way.is_some()
    }
}

/// Finds the spool of the old name: in its old folder, or in the new one, if somebody has moved it there. None where all is
/// done. `left` are the spools that no file names.
fn find(new: &str, old: &str, from: Folder, to: &Folder, left: &[String]) -> Result<Option<Folder>> {
    if old == new {
        return Err(Error::config(format!("the pipeline is called `{new}` already: give the old name")));
    }
    let name_in = |folder: &Folder| {
        let found = folder.spool().is_dir().then(|| inspect(&folder.spool())).transpose()?;
        Ok::<_, Error>(found.map(|found| found.pipeline))
    };
    match (name_in(&from)?, name_in(to)?) {
        // With the new name in it a crash has come between.
        (Some(name), _) if name == old || name == new => Ok(Some(from)),
        (None, Some(name)) if name == old => Ok(Some(to.clone())),
        // A name that is nearly that of a spool is no name that was given up long ago.
        (None, Some(name)) if name == new && nearest(old, names(left)).is_none() => Ok(None),
        (Some(name), _) => {
            let place = from.spool();
            Err(Error::config(format!("`{}` is the spool of `{name}`, not of `{old}`", place.display())))
        }
        (None, _) => {
            let meant =
                nearest(old, names(left)).map_or_else(String::new, |meant| format!(", did you mean `{meant}`?"));
            let known = match left {
                [] => "no spool is there that no file names".to_owned(),
                left => format!("spools that no file names: {}", left.join(", ")),
            };
            Err(Error::config(format!("there is no spool `{}`{meant}; {known}", from.spool().display())))
        }
    }
}

fn names(of: &[String]) -> impl Iterator<Item = &str> {
    of.iter().map(String::as_str)
}

/// Returns the pipelines whose spools lie in the data directory, and which no file names: any of them may be an old name.
fn left(data_dir: &Path, new: &str, others: &BTreeMap<String, PathBuf>) -> Vec<String> {
    let folders = fs::read_dir(data_dir).into_iter().flatten().flatten();
    let names = folders.filter_map(|folder| folder.file_name().into_string().ok());
    let is_left =
        |name: &String| name != new && !others.contains_key(name) && Folder::new(data_dir, name).spool().is_dir();
    let mut left: Vec<_> = names.filter(is_left).collect();
    left.sort();
    left
}

/// Looks at a spool that was begun under the new name: it has to make way.
fn begun_anew(pipeline: &Pipeline, folder: &Folder) -> Result<(Stopped, Rows)> {
    let stopped = Stopped::open(pipeline.clone(), folder.clone())?;
    for sink in super::rename_sink::notes(&folder.sinks()) {
        if let Some(at) = known_of(&folder.sinks(), &sink).0.noted().position {
            let (place, name) = (folder.path().display(), &pipeline.name);
            return Err(Error::config(format!(
                "`{place}` has fed `{sink}` up to {at}: `{name}` is a pipeline of its own. Move that folder away if its spool \
                 is not to be gone on with"
            )));
        }
    }
    let reader = stopped.reader();
    let mut rows = Rows::default();
    let mut log = super::log_of(&reader);
    log.read(u64::MAX, &mut |seen| {
        if let Seen::Item { item: Item::Row(..), source: Some(source), .. } = seen {
            rows.add(&source.table.name);
        }
        std::ops::ControlFlow::Continue(())
    })?;
    drop(log);
    Ok((stopped, rows))
}

fn replaced_name(replaced: &Stopped) -> String {
    format!("replaced-{:016x}", replaced.reader().spool_id())
}

fn rename(from: &Folder, to: PathBuf) -> Result<()> {
    let failed = |error| {
        let (from, to) = (from.path().display(), to.display());
        Error::transient(format!("cannot rename the folder `{from}` to `{to}`")).because(error)
    };
    fs::rename(from.path(), &to).map_err(failed)?;
    let above = |path: &Path| path.parent().map_or_else(PathBuf::new, Path::to_owned);
    sync_folder(&above(&to))?;
    sync_folder(&above(from.path()))
}

impl fmt::Display for SpoolRenaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (old, new) = (&self.old, &self.pipeline.name);
        writeln!(f, "{old} → {new}")?;
        let Some(Way { from, to, stopped, replaced }) = &self.way else {
            return writeln!(f, "the spool is that of `{new}`, and there is none of `{old}`: there is nothing to do");
        };
        let reader = stopped.reader();
        writeln!(f, "spool    behind {} up to {}", reader.oldest(), reader.end())?;
        for sink in &self.pipeline.sinks {
            match known_of(&from.sinks(), &sink.name).0.noted().position {
                Some(known) => writeln!(f, "sink     {}, which is at {known}, goes on there", sink.name)?,
                None => writeln!(f, "sink     {}, of which nothing is known there", sink.name)?,
            }
        }
        if from != to {
            writeln!(f, "folder   {} → {}", from.path().display(), to.path().display())?;
        }
        if let Some((replaced, rows)) = replaced {
            let place = to.path().join(replaced_name(replaced));
            writeln!(f, "aside    the spool begun under the new name, {rows}: no store gets them")?;
            writeln!(f, "         it stays in `{}`", place.display())?;
            writeln!(f, "         what the venue repeats of that time is asked for again")?;
        }
        writeln!(f, "nothing is sent again and nothing of the old spool left out")
    }
}
