//! The sinks of a pipeline, each with its delivery, and the ledger, which reads the spool beside them.

use std::path::Path;

use futures_util::stream::FuturesUnordered;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{Folder, SinkEnd, vanished::Vanished};
use crate::{
    Result,
    caught::caught,
    config::{Commands, SinkStage, WhenFull},
    delivery::{Delivery, Floor, Others, Setup, SpoolLog},
    health::{Registry, StageId},
    intake,
    ledger::{self, Ledger},
    outside,
    spool::{SourceInfo, inspect::inspect},
    table::Derived,
};

/// Deliveries that run; each comes out as it has ended.
pub(super) type RunningSinks = FuturesUnordered<JoinHandle<SinkEnd>>;

/// What the deliveries of a pipeline have in common.
pub(super) struct Deliveries<'a> {
    pub(super) pipeline: &'a str,
    pub(super) folder: &'a Folder,
    pub(super) intake: &'a intake::Started,
    pub(super) when_full: WhenFull,
    pub(super) sources: Vec<SourceInfo>,
    pub(super) derived: Derived,
    pub(super) vanished: &'a [Vanished],
    pub(super) others: Others,
    pub(super) stop: watch::Receiver<Option<Instant>>,
    pub(super) registry: &'a Registry,
    pub(super) commands: &'a Commands,
}

impl Deliveries<'_> {
    /// Starts the deliveries of all sinks, and returns what each no longer needs.
    pub(super) fn start(&self, sinks: Vec<SinkStage>) -> Result<(RunningSinks, Vec<watch::Receiver<Floor>>)> {
        let prepared = sinks.into_iter().map(|sink| self.prepare(sink)).collect::<Result<Vec<_>>>()?;
        // Only once nothing can fail any more: nobody aborts them. A sink may wait for its disk in the middle of a call.
        Ok(prepared.into_iter().map(|(delivery, floor)| (outside::spawn_apart(delivery), floor)).unzip())
    }

    /// Shows the sinks that are not in the TOML any more; returns what the spool keeps for each.
    pub(super) fn show_vanished(&self) -> impl Iterator<Item = watch::Receiver<Floor>> {
        self.vanished.iter().map(|sink| {
            sink.show(self.registry, self.pipeline);
            let passed = sink.floor.committed.map_or(0, |position| position.offset);
            self.intake.reader.claim(&sink.name, passed, sink.entered);
            watch::channel(sink.floor).1
        })
    }

    /// Returns the ledger, to be run, and what it no longer needs.
    pub(super) fn ledger(&self) -> (Ledger, watch::Receiver<Floor>) {
        ledger::prepare(ledger::Setup {
            pipeline: self.pipeline.to_owned(),
            path: self.folder.ledger(),
            reader: self.intake.reader.clone(),
            synced: self.intake.synced.clone(),
            stop: self.stop.clone(),
            health: self.registry.stage(StageId::ledger(self.pipeline)),
        })
    }

    /// Returns the delivery of a sink, to be run, and what it no longer needs.
    fn prepare(&self, sink: SinkStage) -> Result<(impl Future<Output = SinkEnd> + use<>, watch::Receiver<Floor>)> {
        let name = sink.name.clone();
        let (mut delivery, floor) = Delivery::new(Setup {
            pipeline: self.pipeline.to_owned(),
            sink: sink.name,
            factory: sink.factory,
            config: sink.delivery,
            tables: sink.tables,
            derived: self.derived.clone(),
            sources: self.sources.clone(),
            spool: self.intake.reader.spool_id(),
            host: host_name(),
            directory: self.folder.sinks(),
            when_full: self.when_full,
            log: SpoolLog::new(self.intake.reader.clone()),
            synced: self.intake.synced.clone(),
            stop: self.stop.clone(),
            others: self.others.clone(),
            health: self.registry.clone(),
            commands: self.commands.clone(),
        })?;
        match self.vanished.first().filter(|_| delivery.is_new()) {
            Some(one) => delivery.hold(one.holds_back(&name)),
            None => delivery.begin()?,
        }
        let health = self.registry.stage(StageId::sink(self.pipeline, &name));
        let run = async move {
            let ended = caught("the delivery", Box::pin(delivery.run_to_the_stop())).await;
            SinkEnd::new(name, ended, &health)
        };
        Ok((run, floor))
    }
}

/// Looks at what lies in the data directory. What cannot be read says nothing.
pub(super) fn others(data_dir: &Path, strays: &[String]) -> Others {
    let folders = std::fs::read_dir(data_dir).into_iter().flatten().flatten();
    let spool_of = |name: &String| {
        let found = inspect(&Folder::new(data_dir, name).spool()).ok()?;
        Some((name.clone(), u64::from_str_radix(&found.spool, 16).ok()?))
    };
    Others {
        here: folders.filter_map(|folder| folder.file_name().into_string().ok()).collect(),
        strays: strays.iter().filter_map(spool_of).collect(),
    }
}

/// Returns the name of this machine, which a store remembers beside the position.
pub(super) fn host_name() -> String {
    let name =
        std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::fs::read_to_string("/etc/hostname"));
    let name = name.map(|name| name.trim().to_owned()).unwrap_or_default();
    if name.is_empty() { "localhost".to_owned() } else { name }
}
