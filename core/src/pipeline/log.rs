//! A pipeline whose source is a log itself: no intake, no spool, no ledger. The source begins and ends deliveries.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tracing::warn;

use super::{
    Ended, Folder, GRACE, SinkEnd, Surroundings,
    deliveries::{host_name, others},
    parts::tell_promises,
};
use crate::{
    Error, Kind, Result,
    catalog::Factory,
    caught::{caught, meet, pauses},
    chunk::Part,
    config::{Commands, DeliveryConfig, Feed, Pipeline, SinkStage, SourceStage, Start, WhenFull},
    delivery::{Delivery, Others, Setup, stage_of},
    health::{Registry, StageHealth, StageId, Status},
    log_source::{LogContext, LogSource, PartDelivery, PartLog},
    metrics::PipelineMetrics,
    outside::{spawn_apart, spawn_blocking},
    spool::{
        SourceInfo,
        disk::{Disk, DiskLock, RealDisk},
    },
    table::Derived,
};

/// What the deliveries of all parts have in common.
pub(crate) struct PartSetup {
    pipeline: String,
    folder: Folder,
    sinks: BTreeMap<String, SinkStage>,
    sources: Vec<SourceInfo>,
    derived: Derived,
    others: Others,
    host: String,
    registry: Registry,
    commands: Commands,
    /// What became of each sink so far.
    ends: Mutex<BTreeMap<String, SinkEnd>>,
}

impl std::fmt::Debug for PartSetup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartSetup").field("pipeline", &self.pipeline).finish_non_exhaustive()
    }
}

impl PartSetup {
    pub(crate) async fn deliver(self: &Arc<Self>, sink: &str, part: PartLog) -> Result<PartDelivery> {
        meet("a part");
        let stage = self.sinks.get(sink).expect("the names are those of the context");
        let PartLog { part, log_id, log, readable } = part;
        let (stop, told) = watch::channel(None);
        let setup = Setup {
            pipeline: self.pipeline.clone(),
            sink: sink.to_owned(),
            factory: stage.factory.clone(),
            // A part without a position is a new one, and nothing of it may be left out.
            config: DeliveryConfig { start: Start::Earliest, ..stage.delivery.clone() },
            tables: stage.tables.clone(),
            derived: self.derived.clone(),
            sources: self.sources.clone(),
            spool: log_id,
            host: self.host.clone(),
            directory: self.folder.sinks(),
            when_full: WhenFull::Block,
            log,
            synced: readable,
            stop: told,
            others: self.others.clone(),
            health: self.registry.clone(),
            commands: self.commands.clone(),
        };
        let of_part = part.clone();
        // It makes and reads files.
        let made = spawn_blocking(move || Delivery::of_part(setup, of_part)).await;
        let (delivery, floor) = made.unwrap_or_else(|error| Err(Error::transient("a part panicked").because(error)))?;
        let name = sink.to_owned();
        let health = self.registry.stage(StageId::sink(&self.pipeline, &stage_of(sink, &part)));
        // Not on a thread of its own: it is cut off where the part is somebody else's before it has ended.
        let task = tokio::spawn(async move {
            let ended = caught("the delivery", Box::pin(delivery.run_to_the_stop())).await;
            SinkEnd::new(name, ended, &health)
        });
        Ok(PartDelivery { sink: sink.to_owned(), part, floor, stop, task: Some(task), setup: self.clone() })
    }

    /// Adds what became of a delivery; `None` where it was cut off.
    pub(crate) fn ended(&self, sink: &str, ended: Option<SinkEnd>) {
        let mut ends = self.ends();
        let Some(end) = ends.get_mut(sink) else { return };
        if let Some(SinkEnd { rows_stored, failure, .. }) = ended {
            end.rows_stored += rows_stored;
            // Of several parts one that needs a person is enough.
            end.failure = end.failure.take().or(failure);
        }
    }

    /// Takes the stages of a delivery away: the part is somebody else's now.
    pub(crate) fn forget(&self, sink: &str, part: &Part) {
        let stage = stage_of(sink, part);
        self.registry.forget_stage(&StageId::sink(&self.pipeline, &stage));
        self.registry.forget_stage(&StageId::dead_letters(&self.pipeline, &stage));
    }

    fn ends(&self) -> MutexGuard<'_, BTreeMap<String, SinkEnd>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Such a pipeline, started.
pub(super) struct LogParts {
    factory: Factory<Box<dyn LogSource>>,
    /// The source's name.
    name: String,
    setup: Arc<PartSetup>,
    health: StageHealth,
    around: Surroundings,
    info: PipelineMetrics,
    _lock: Box<dyn DiskLock>,
}

impl LogParts {
    /// Prepares it. May wait for a disk.
    ///
    /// # Errors
    ///
    /// `Config` when another process has its folder, or a spool lies in there. `Transient` or `Permanent` when the folder cannot
    /// be made.
    #[allow(clippy::unused_async, reason = "a start is a future")]
    pub(super) async fn start(pipeline: Pipeline, around: Surroundings) -> Result<Self> {
        let folder = Folder::of(&around.data_dir, &pipeline);
        let disk = RealDisk::create(folder.sinks())?;
        if std::fs::read_dir(folder.spool()).is_ok_and(|mut files| files.next().is_some()) {
            let spool = folder.spool();
            return Err(Error::config(format!(
                "`{}` is a spool, and a pipeline with this source has none: what waits in it would never be delivered. Let the \
                 old sources deliver it, then move the folder away, or give this pipeline another name",
                spool.display()
            )));
        }
        let lock = disk.lock()?;
        let commands = pipeline.commands();
        let Some(SourceStage { name, feed: Feed::Log { factory }, .. }) = pipeline.sources.first().cloned() else {
            return Err(Error::config("the pipeline has no source that is a log"));
        };
        let health = around.registry.stage(StageId::source(&pipeline.name, &name));
        let where_from = format!("{name}, without a spool");
        tell_promises(&pipeline.name, &where_from, &around.shown_at, &pipeline.sinks)?;
        let end = |sink: &SinkStage| {
            let name = sink.name.clone();
            (name.clone(), SinkEnd { name, rows_stored: 0, rows_left: 0, more_left: false, failure: None })
        };
        let info = PipelineMetrics::new(&pipeline.name, env!("CARGO_PKG_VERSION"));
        let setup = Arc::new(PartSetup {
            ends: Mutex::new(pipeline.sinks.iter().map(end).collect()),
            sources: pipeline.sources.iter().map(SourceStage::info).collect(),
            sinks: pipeline.sinks.into_iter().map(|sink| (sink.name.clone(), sink)).collect(),
            pipeline: pipeline.name,
            folder,
            derived: pipeline.derived,
            others: others(&around.data_dir, &around.strays),
            host: host_name(),
            registry: around.registry.clone(),
            commands,
        });
        Ok(Self { factory, name, setup, health, around, info, _lock: lock })
    }

    /// Runs it until it is told to stop.
    pub(super) async fn run(self) -> Ended {
        let Self { factory, name, setup, health, around, info, _lock } = self;
        info.started();
        // One that blocks, as it should not, is nobody else's trouble.
        let mut source = {
            let (setup, around) = (setup.clone(), around.clone());
            spawn_apart(async move { run_on(&factory, &name, &setup, &health, &around).await })
        };
        let early = around.stop.run_until_cancelled(&mut source).await;
        let since = Instant::now();
        let ended = match early {
            Some(ended) => ended.ok(),
            None => timeout_at(since + around.drain + GRACE, source).await.ok().and_then(std::result::Result::ok),
        };
        let source_failed = ended.unwrap_or_else(|| {
            warn!(pipeline = setup.pipeline, "stuck {} the source does not end, and is left behind", setup.pipeline);
            true
        });
        info.stopped();
        let sinks = std::mem::take(&mut *setup.ends()).into_values().collect();
        let (pipeline, took) = (setup.pipeline.clone(), since.elapsed());
        Ended { pipeline, sinks, took, source_failed, vanished: Vec::new(), has_spool: false }
    }
}

/// Runs the source until the stop, again after what mends itself; returns whether a person is needed.
async fn run_on(
    factory: &Factory<Box<dyn LogSource>>,
    name: &str,
    setup: &Arc<PartSetup>,
    health: &StageHealth,
    around: &Surroundings,
) -> bool {
    let (mut pauses, stop) = (pauses(), &around.stop);
    while !stop.is_cancelled() {
        let began = Instant::now();
        let cx = LogContext {
            name: name.into(),
            pipeline: setup.pipeline.as_str().into(),
            sinks: setup.sinks.keys().cloned().collect(),
            stop: stop.clone(),
            drain: around.drain,
            health: health.clone(),
            setup: setup.clone(),
        };
        let run = async { factory()?.run(cx).await };
        let ended = caught("the source", Box::pin(run)).await.flatten();
        pauses.succeeded_for(began.elapsed());
        health.unsubscribed();
        let error = match ended {
            Ok(()) | Err(_) if stop.is_cancelled() => break,
            Ok(()) => Error::transient("the source has ended"),
            Err(error) => error,
        };
        let Kind::Transient { retry_after } = error.kind() else {
            health.failed(format!("{}; a person has to look", error.chain()));
            stop.cancelled().await;
            return true;
        };
        let pause = pauses.failed(retry_after);
        if health.status() == Status::Failed {
            health.restarted("starting again");
        }
        health.degraded(format!("{}; starting again in {:.1} s", error.chain(), pause.as_secs_f64()));
        stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
    health.stopped("left the log");
    false
}
