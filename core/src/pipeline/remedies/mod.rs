//! What a person decides after an accident: whether the store or the spool is to be gone by, and what becomes of what had
//! another name. `tidegate adopt`, `tidegate sink rename | forget`, `tidegate spool rename`.
//!
//! Everything is done to a pipeline that does not run, under its spool's lock, in two steps: look, which changes nothing but
//! what every start does, and shows what will happen in numbers; then do it. Doing it is made of steps each of which may be
//! the last: whatever a crash leaves, the same command finds and goes on with, and done twice it is as done once. What a
//! sink never gets stands in the spool before anything else is touched, so that the ledger knows.

mod adopt;
mod course;
mod forget;
mod losses;
mod rename_sink;
mod rename_spool;

pub use adopt::Adoption;
pub use course::Trust;
pub use forget::Forgetting;
pub use rename_sink::SinkRenaming;
pub use rename_spool::SpoolRenaming;

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc, time::Duration};

use super::{Folder, host_name};
use crate::{
    Error, Result,
    chunk::{Part, Plan},
    config::{Pipeline, SinkStage},
    delivery::{Known, SpoolLog},
    intake::{self, Continuity},
    row::Timestamp,
    sink::{Owner, Sink},
    spool::{
        Append, Begun, Control, ItemBuffer, Recovery, SourceInfo, SpoolLimits, SpoolOptions, SpoolPosition,
        SpoolReader, SpoolWriter,
        disk::{Disk, RealDisk},
    },
};

/// Gives the position in a store its new names.
///
/// # Errors
///
/// As [`Sink::rename`]; `Permanent` where there is none although one was `known`: a start would take the store for new.
async fn rename_in(store: &mut dyn Sink, (old, new): (&Owner, &Owner), known: Option<SpoolPosition>) -> Result<()> {
    store.rename(old, new).await?;
    let Some(known) = known else { return Ok(()) };
    let is_there = store.claim(new).await?.is_some_and(|claim| claim.position != SpoolPosition::START);
    if is_there {
        return Ok(());
    }
    Err(Error::permanent(format!(
        "the store of `{}` has no position of `{}/{}`, which was at {known} last: it was moved away or emptied, or another one \
         is addressed. Put it back; the same command goes on from there",
        new.sink, old.pipeline, old.sink
    )))
}

/// A pipeline that does not run, its spool locked and ready to be looked at.
#[derive(Debug)]
pub struct Stopped {
    pipeline: Pipeline,
    folder: Folder,
    recovery: Recovery,
    continuity: Continuity,
}

impl Stopped {
    /// Takes the spool of a pipeline, finds its end as every start does, and restores what stands in it.
    ///
    /// # Errors
    ///
    /// `Config` when a process has it, naming that process, or it is another pipeline's; as [`Recovery::open`] otherwise.
    pub fn open(pipeline: Pipeline, folder: Folder) -> Result<Self> {
        Self::take(pipeline, folder, None)
    }

    /// Takes the spool that may still be that of a pipeline of another name.
    fn take(pipeline: Pipeline, folder: Folder, old: Option<&str>) -> Result<Self> {
        let limits = SpoolLimits {
            segment_bytes: pipeline.spool.segment_bytes.0,
            max_bytes: pipeline.spool.max_bytes.0,
            keep: pipeline.spool.keep.0,
        };
        let options = SpoolOptions { pipeline: pipeline.name.clone(), sources: sources(&pipeline), limits };
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::at(folder.spool()));
        let recovery = match old {
            Some(old) => Recovery::open_renamed(disk, options, old)?,
            None => Recovery::open(disk, options)?,
        };
        let (recovery, continuity, _) = intake::restore(recovery)?;
        Ok(Self { pipeline, folder, recovery, continuity })
    }

    fn reader(&self) -> SpoolReader {
        self.recovery.reader()
    }

    fn sink(&self, name: &str) -> Result<&SinkStage> {
        self.pipeline.sinks.iter().find(|sink| sink.name == name).ok_or_else(|| {
            let known: Vec<_> = self.pipeline.sinks.iter().map(|sink| &*sink.name).collect();
            let (file, known) = (self.pipeline.file.display(), known.join(", "));
            Error::config(format!("there is no `[sink.{name}]` in `{file}`, there are: {known}"))
        })
    }

    fn plan(&self, sink: &SinkStage) -> Result<Plan> {
        let Pipeline { name, derived, .. } = &self.pipeline;
        Plan::deriving(name, sources(&self.pipeline), sink.tables.clone(), derived.clone())
    }

    fn owner(&self, sink: &SinkStage) -> Result<Owner> {
        Ok(Owner {
            pipeline: self.pipeline.name.clone(),
            sink: sink.name.clone(),
            part: Part::spool(),
            spool: self.reader().spool_id(),
            host: host_name(),
            chain: self.plan(sink)?.chain(),
        })
    }

    /// Begins the spool and writes into it, durably. What is returned keeps others out.
    fn keep(self, items: &[Control]) -> Result<SpoolWriter> {
        let snapshot = self.continuity.snapshot();
        let Begun { mut writer, .. } = self.recovery.begin(snapshot, Timestamp::now(), env!("CARGO_PKG_VERSION"))?;
        for item in items {
            let mut entry = ItemBuffer::default();
            let fits = entry.push_control(item);
            match writer.append(&entry, Duration::ZERO)? {
                Append::Written { .. } if fits => {}
                Append::Written { .. } | Append::Full | Append::Behind => {
                    return Err(Error::transient("the spool has no room for what has to be written down"));
                }
            }
        }
        while let Some(job) = writer.sync_job() {
            writer.synced(job.run())?;
        }
        Ok(writer)
    }
}

fn sources(pipeline: &Pipeline) -> Vec<SourceInfo> {
    let info = |source: &crate::config::SourceStage| SourceInfo {
        name: source.name.as_str().into(),
        venue: source.component.as_str().into(),
        tables: source.tables.iter().cloned().map(Arc::new).collect(),
    };
    pipeline.sources.iter().map(info).collect()
}

/// Rows by table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rows(BTreeMap<Arc<str>, u64>);

impl Rows {
    fn add(&mut self, table: &Arc<str>) {
        *self.0.entry(table.clone()).or_insert(0) += 1;
    }

    fn sum(&self) -> u64 {
        self.0.values().sum()
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = self.sum();
        write!(f, "{sum} {}", if sum == 1 { "row" } else { "rows" })?;
        for (n, (table, rows)) in self.0.iter().enumerate() {
            write!(f, "{}{table} {rows}", if n == 0 { ": " } else { ", " })?;
        }
        Ok(())
    }
}

/// Reads what is known of a sink; `Err` holds why it cannot be gone by.
fn known_of(sinks: &Path, name: &str) -> (Known, Option<String>) {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::at(sinks));
    match Known::open(disk.clone(), name) {
        Ok(known) => (known, None),
        Err(error) => (Known::blank(disk, name), Some(error.chain())),
    }
}

/// Returns a reader of all items.
fn log_of(reader: &SpoolReader) -> SpoolLog {
    SpoolLog::new(reader.clone())
}

/// Makes the names in a folder durable.
fn sync_folder(folder: &Path) -> Result<()> {
    let synced = RealDisk::at(folder).sync_dir();
    synced.map_err(|error| Error::transient(format!("cannot fsync the folder `{}`", folder.display())).because(error))
}
