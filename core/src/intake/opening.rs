//! Opening: continuity from the last segment's head and what follows it, and a task that is ready to run.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Asks,
    continuity::{Continuity, row_hash},
    task::{Prepared, Task},
};
use crate::{
    Error, Result,
    config::SpoolConfig,
    health::Registry,
    own,
    row::Timestamp,
    rules::{Rule, holds},
    spool::{
        self, Begun, Item, Recovery, RecoveryReport, SourceInfo, SpoolLimits, SpoolOptions, SpoolPosition, SpoolReader,
        disk::{Disk, RealDisk},
    },
};

/// What a pipeline's intake is started with.
#[derive(Debug)]
pub struct Setup {
    /// The pipeline's name.
    pub pipeline: String,
    /// The spool's folder.
    pub folder: PathBuf,
    /// How the spool is kept.
    pub config: SpoolConfig,
    /// The sources, by their numbers.
    pub sources: Vec<SourceSetup>,
    /// Where it is shown.
    pub registry: Registry,
}

/// A source as intake knows it.
#[derive(Debug)]
pub struct SourceSetup {
    /// Its name, type and tables.
    pub info: SourceInfo,
    /// How far its history lags behind the live feed.
    pub history_lag: Duration,
}

/// An intake whose spool is open, and which does not run yet.
#[derive(Debug)]
pub struct Started {
    /// The readers' side of the spool.
    pub reader: SpoolReader,
    /// Up to where the spool is durable.
    pub synced: watch::Receiver<SpoolPosition>,
    /// Whether the spool was made just now.
    pub is_new: bool,
    /// The sources that have streams in the spool, those too that are not in the pipeline's file any more.
    pub known: Vec<SourceInfo>,
    pub(super) task: Task,
}

/// A running intake.
#[derive(Debug)]
pub struct Running {
    /// The open gaps of each source.
    pub asks: Vec<Asks>,
    /// The highest durable offset.
    pub synced_offset: watch::Receiver<u64>,
    /// Whether rows of a feed that cannot wait are taken: not while the spool is full and nothing may be dropped.
    pub room: watch::Receiver<bool>,
    /// Cancelled where nothing more is to be taken from the queue, whoever could still put something in.
    pub end: CancellationToken,
    /// Ends when the queue is closed and all that was in it is durable, or when the disk fails.
    pub task: JoinHandle<Result<()>>,
}

/// Opens the spool, restores continuity, and enters what the last boot left open.
///
/// # Errors
///
/// `Config` when another process has the spool, or it is another pipeline's or of a newer format. `Permanent` when it
/// cannot be read or written.
pub async fn start(setup: Setup) -> Result<Started> {
    let opened = tokio::task::spawn_blocking(move || open(setup)).await;
    opened.map_err(|error| Error::permanent("the spool could not be opened").because(error))?
}

fn open(setup: Setup) -> Result<Started> {
    let disk = Arc::new(RealDisk::create(setup.folder.clone())?);
    open_on(disk, setup)
}

/// Opens a spool on a disk of the caller's choice.
pub(crate) fn open_on(disk: Arc<dyn Disk>, setup: Setup) -> Result<Started> {
    let Setup { pipeline, folder: _, config, sources, registry } = setup;
    let limits =
        SpoolLimits { segment_bytes: config.segment_bytes.0, max_bytes: config.max_bytes.0, keep: config.keep.0 };
    let options = SpoolOptions {
        pipeline: pipeline.clone(),
        sources: sources.iter().map(|source| source.info.clone()).collect(),
        limits,
    };
    let began = std::time::Instant::now();
    let recovery = Recovery::open(disk, options)?;
    let report = recovery.report().clone();
    let (recovery, mut continuity, rows) = restore(recovery)?;
    let known = recovery.sources();
    let Begun { writer, boot, .. } =
        recovery.begin(continuity.snapshot(), Timestamp::now(), env!("CARGO_PKG_VERSION"))?;
    continuity.apply(&boot);
    for (source, streams, gaps) in continuity.sources_owed() {
        if *source != *own::SOURCE && !sources.iter().any(|known| known.info.name == source) {
            warn!(
                pipeline,
                "gap {pipeline} `[source.{source}]` is not in the file any more: nobody listens to {streams} of its streams, and \
                 {gaps} gaps of it stay open; what they miss is asked for once it is there again, under this name"
            );
        }
    }
    tell_recovery(&pipeline, &report, rows, began.elapsed());
    let reader = writer.reader();
    let (synced, synced_seen) = watch::channel(reader.end());
    let prepared = Prepared { pipeline, continuity, writer, config, sources, registry, synced };
    Ok(Started { reader, synced: synced_seen, is_new: report.new, known, task: Task::new(prepared)? })
}

/// Restores continuity from the last head and what came after it; says how many rows that were.
///
/// # Errors
///
/// `Permanent` when the head says nothing to us; `Transient` when the disk fails.
pub(crate) fn restore(recovery: Recovery) -> Result<(Recovery, Continuity, u64)> {
    let mut continuity =
        Continuity::restore(recovery.snapshot().filter(|_| holds(Rule::Snapshot)).unwrap_or_default())?;
    for (id, stream) in recovery.streams() {
        continuity.add_stream(id, &stream.source, &stream.key);
    }
    let mut rows = 0;
    let recovery = recovery.replay(|step| rows += fold(&mut continuity, &step))?;
    Ok((recovery, continuity, rows))
}

fn fold(continuity: &mut Continuity, step: &spool::Step<'_>) -> u64 {
    let spool::Step::Entry(entry) = step else { return 0 };
    let mut rows = 0;
    for (_, item) in entry.items() {
        match item {
            Item::Row(row, bytes) => {
                continuity.apply_row(&row, row_hash(&row.head, bytes));
                rows += 1;
            }
            Item::Control(control) => continuity.apply(&control),
        }
    }
    rows
}

fn tell_recovery(pipeline: &str, report: &RecoveryReport, rows: u64, took: Duration) {
    let RecoveryReport { new, end, torn_bytes, corrupt, unreadable } = report;
    if !new {
        let took = took.as_secs_f64();
        info!(pipeline, "resumed {pipeline} the spool ends at offset {end}; {rows} rows read again in {took:.2} s");
    }
    if *torn_bytes > 0 {
        info!(pipeline, "resumed {pipeline} {torn_bytes} bytes that were never durable are cut off the spool's end");
    }
    for (first, last) in corrupt {
        warn!(pipeline, "corrupt {pipeline} offsets {first} to {last} of the spool cannot be read any more: lost");
    }
    for name in unreadable {
        warn!(pipeline, "corrupt {pipeline} segment `{name}` of the spool cannot be read any more");
    }
}
