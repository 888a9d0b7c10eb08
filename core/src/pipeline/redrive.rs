//! Dead letters that are to be sent again: who asks writes a file, and the running pipeline enters it in the log.
//!
//! ```text
//! tidegate deadletter redrive ──→ sinks/NAME/redrive-….jsonl ──→ Redrives ──link──→ intake ──→ spool ──→ the sink's delivery
//!                                       removed once the sink has passed it ←───────────────────────────────┘
//! ```
//!
//! A request is a file beside the dead letters and no call of a port: nobody reaches it who may not write where the spool
//! is, so no web page either; nobody has to know where a host listens; and it is the same whether the pipeline runs, or will
//! at its next start. It stays until the sink has what it asks for. Whoever dies on the way leaves it to be entered once
//! more, which the letters see through: each is sent again once.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Folder, SourceFeed};
use crate::{
    Error, Result,
    caught::{caught, meet, pauses},
    config::Pipeline,
    deadletter::{self, DeadLetter, Redrive},
    delivery::Floor,
    intake::{Handover, Link, LinkId, MAX_ROW, Step},
    row::{Table, Timestamp},
    spool::{
        Cause, SourceInfo,
        disk::{self, RealDisk},
    },
    table::Derived,
};

/// What the rows of dead letters have to fit: the sources with their tables, as the pipeline's file has them today.
#[derive(Debug)]
pub struct Tables(Vec<SourceInfo>, Derived);

impl Tables {
    /// Returns those of a pipeline.
    ///
    /// # Errors
    ///
    /// Those of building its sources.
    pub fn of(pipeline: &Pipeline) -> Result<Self> {
        let sources = pipeline.sources.iter().cloned().map(|stage| Ok(SourceFeed::new(stage)?.info()));
        // In the order in which intake numbers them.
        let own = crate::own::source(&pipeline.sinks, &pipeline.derived).map(Ok);
        Ok(Self(sources.chain(own).collect::<Result<_>>()?, pipeline.derived.clone()))
    }

    /// Returns the table of a letter's row.
    ///
    /// # Errors
    ///
    /// `Config` where the letter holds bytes that are no row, or the pipeline has no such source or table.
    pub fn of_letter(&self, letter: &DeadLetter) -> Result<&Arc<Table>> {
        self.find(letter).map(|(_, table)| table)
    }

    fn find(&self, letter: &DeadLetter) -> Result<(u16, &Arc<Table>)> {
        let (source, table) = (&letter.source, letter.table_of_row());
        if !letter.from.is_empty() && self.1.root(&letter.table).is_none_or(|root| *root != *letter.from) {
            let DeadLetter { table, from, .. } = letter;
            return Err(Error::config(format!("`[table.{table}]`, from `{from}`, is not in the pipeline's file")));
        }
        if source.is_empty() {
            return Err(Error::config("it does not say which source its row is of"));
        }
        let Some((number, known)) = (0..).zip(&self.0).find(|(_, known)| *known.name == **source) else {
            return Err(Error::config(format!("`[source.{source}]` is not in the pipeline's file")));
        };
        let found = known.tables.iter().find(|known| *known.name == *table);
        let found = found.ok_or_else(|| Error::config(format!("`[source.{source}]` has no table `{table}`")));
        found.map(|table| (number, table))
    }

    /// Returns a letter as a row of the log, with the number of its source.
    fn row(&self, letter: &DeadLetter) -> Result<(u16, Redrive)> {
        let (source, table) = self.find(letter)?;
        let redrive = Redrive::of(letter, table)?;
        let bytes = redrive.row.len();
        if bytes > MAX_ROW {
            return Err(Error::config(format!("a row of {bytes} bytes is longer than the spool can hold ({MAX_ROW})")));
        }
        Ok((source, redrive))
    }

    /// Looks whether a letter can be sent again as it is.
    ///
    /// # Errors
    ///
    /// `Config`, saying why not.
    pub fn check(&self, letter: &DeadLetter) -> Result<()> {
        self.row(letter).map(drop)
    }
}

/// Asks for letters of one sink to be sent again, as they are, or as a person has repaired them. Returns the file of the
/// request, which is there until the sink has passed the rows.
///
/// # Errors
///
/// `Transient` when it cannot be written.
pub fn ask(folder: &Folder, sink: &str, letters: &[DeadLetter]) -> Result<PathBuf> {
    let directory = folder.sinks().join(sink);
    let name = format!("{PREFIX}{:020}-{}{SUFFIX}", Timestamp::now().0, std::process::id());
    let written = disk::replace(&RealDisk::at(&directory), &name, |file| {
        for letter in letters {
            file.write_all(&deadletter::written(letter))?;
        }
        Ok(())
    });
    let path = directory.join(name);
    written.map_err(|error| Error::transient(format!("cannot write `{}`", path.display())).because(error))?;
    Ok(path)
}

/// Returns the letters of a sink that were asked for, and which it has not passed yet.
///
/// # Errors
///
/// `Transient` when a request cannot be read.
pub fn asked(folder: &Folder, sink: &str) -> Result<HashSet<Cause>> {
    let mut asked = HashSet::new();
    for path in requests(&folder.sinks().join(sink))? {
        asked.extend(read(&path)?.iter().map(DeadLetter::cause));
    }
    Ok(asked)
}

/// Returns the files of the requests, oldest first.
fn requests(directory: &Path) -> Result<Vec<PathBuf>> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut requests = Vec::new();
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX)) {
                requests.push(directory.join(name));
            }
        }
        requests.sort();
        Ok(requests)
    };
    list().map_err(|error| Error::transient(format!("cannot read the folder `{}`", directory.display())).because(error))
}

/// Reads a request; nothing where it has gone meanwhile.
fn read(path: &Path) -> Result<Vec<DeadLetter>> {
    let cannot = |error| Error::transient(format!("cannot read `{}`", path.display())).because(error);
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text.map_err(cannot)?,
    };
    let none = || io::Error::new(io::ErrorKind::InvalidData, "a line of it is no dead letter");
    let letter = |line: &str| deadletter::parsed(line.as_bytes()).and_then(|letter| letter.ok_or_else(none));
    text.lines().map(|line| letter(line).map_err(cannot)).collect()
}

/// Enters requests in the log of a running pipeline.
#[derive(Clone)]
pub(super) struct Redrives {
    pub(super) pipeline: String,
    pub(super) folder: Folder,
    /// The sinks, and up to where each has passed.
    pub(super) sinks: Vec<(String, watch::Receiver<Floor>)>,
    pub(super) sources: Vec<SourceInfo>,
    pub(super) derived: Derived,
    pub(super) queue: mpsc::Sender<Handover>,
    pub(super) stop: CancellationToken,
}

impl Redrives {
    /// Looks for requests until the pipeline stops, again after a panic: what was entered then is entered once more, which the
    /// letters see through.
    pub(super) async fn run(self) {
        let (stop, pipeline, mut pauses) = (self.stop.clone(), self.pipeline.clone(), pauses());
        while let Err(panic) = caught("sending dead letters again", self.clone().look_on()).await {
            warn!(pipeline, error = panic.chain(), "redrive {pipeline} is looked for again after a pause");
            if stop.run_until_cancelled(tokio::time::sleep(pauses.failed(None))).await.is_none() {
                return;
            }
        }
    }

    async fn look_on(self) {
        let Self { pipeline, folder, sinks, sources, derived, queue, stop } = self;
        let mut desks: Vec<_> = sinks
            .into_iter()
            .map(|(sink, floor)| Desk { directory: folder.sinks().join(&sink), sink, floor, entered: HashMap::new() })
            .collect();
        let way = Way { pipeline, tables: Arc::new(Tables(sources, derived)), queue };
        let mut trouble = String::new();
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            for desk in &mut desks {
                let Some(looked) = stop.run_until_cancelled(desk.look(&way)).await else { return };
                // Said once, and tried on and on.
                let error = looked.err().map_or_else(String::new, |error| error.chain());
                if !error.is_empty() && error != trouble {
                    let pipeline = &way.pipeline;
                    warn!(pipeline, sink = desk.sink, "redrive {pipeline} not yet: {error}");
                    trouble = error;
                }
            }
        }
    }
}

/// The way into the log.
struct Way {
    pipeline: String,
    tables: Arc<Tables>,
    queue: mpsc::Sender<Handover>,
}

/// The requests of one sink.
struct Desk {
    sink: String,
    directory: PathBuf,
    floor: watch::Receiver<Floor>,
    /// Those that are in the log, up to which offset.
    entered: HashMap<PathBuf, u64>,
}

impl Desk {
    async fn look(&mut self, way: &Way) -> Result<()> {
        let directory = self.directory.clone();
        for path in blocking(move || requests(&directory)).await? {
            let upto = match self.entered.get(&path) {
                Some(upto) => *upto,
                None => way.enter(&self.sink, &path).await?,
            };
            meet("a redrive, under way");
            let passed = self.floor.borrow().committed.map_or(0, |committed| committed.offset);
            if passed >= upto {
                self.entered.remove(&path);
                blocking(move || remove(&path)).await?;
            } else {
                self.entered.insert(path, upto);
            }
        }
        Ok(())
    }
}

impl Way {
    /// Enters a request; returns the last offset of it, 0 where nothing came of it.
    async fn enter(&self, sink: &str, path: &Path) -> Result<u64> {
        let (tables, request) = (self.tables.clone(), path.to_owned());
        let rows = blocking(move || {
            Ok(read(&request)?.iter().map(|letter| (letter.cause(), tables.row(letter))).collect::<Vec<_>>())
        });
        let pipeline = &self.pipeline;
        let mut by_source: BTreeMap<u16, Vec<Redrive>> = BTreeMap::new();
        let mut count = 0;
        for (key, row) in rows.await? {
            match row {
                Ok((source, redrive)) if redrive.sink == sink => {
                    by_source.entry(source).or_default().push(redrive);
                    count += 1;
                }
                Ok((_, redrive)) => {
                    warn!(pipeline, sink, "redrive {pipeline} {key} is a dead letter of {}", redrive.sink)
                }
                Err(error) => {
                    let why = error.chain();
                    warn!(pipeline, sink, why, "redrive {pipeline} the dead letter {key} is not sent again: {why}");
                }
            }
        }
        let mut upto = 0;
        for (source, redrives) in by_source {
            let mut link = Link::new(LinkId { source, line: LINE }, Vec::new(), self.queue.clone(), usize::MAX);
            redrives.into_iter().for_each(|redrive| link.step(Step::Redrive(Box::new(redrive))));
            upto = upto.max(link.logged().await?);
            if link.was_refused() {
                return Err(Error::transient("the spool is full"));
            }
        }
        info!(
            pipeline,
            sink, count, "redrive {pipeline} {count} dead letters of {sink} are in the spool, to be sent again"
        );
        Ok(upto)
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => {
            removed.map_err(|error| Error::transient(format!("cannot remove `{}`", path.display())).because(error))
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::transient("a request could not be looked at").because(error))?
}

const PREFIX: &str = "redrive-";
const SUFFIX: &str = ".jsonl";
/// How soon a request is seen.
const EVERY: Duration = Duration::from_millis(500);
/// No connection of a source has this number.
const LINE: u16 = u16::MAX;
