//! A process: intake and the deliveries of all sinks as a pipeline runs them, on the disks of the machine.

use std::{num::NonZeroUsize, path::Path, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    machine,
    plan::Setting,
    store::{Session, Shared},
    venue,
};
use crate::{
    Result,
    config::{self, ByteSize, Commands, DeliveryConfig, SpoolConfig, TableChoice},
    delivery::{Delivery, Floor, Others, Outcome, SpoolLog},
    health::Registry,
    intake::{self, Handover, Link, LinkId, Running, SourceSetup, open_on},
    outside,
    sink::Sink,
    spool::{SourceInfo, SpoolLimits, SpoolOptions, SpoolPosition, SpoolReader},
    testkit::Failure,
};

/// Where the spool is.
pub(super) const SPOOL: &str = "/spool";
/// Where the positions of the sinks are, and below it the directories of each.
pub(super) const SINKS: &str = "/sinks";

const PIPELINE: &str = "simulated";

/// A running pipeline.
pub(super) struct Engine {
    pub(super) links: Vec<Link>,
    pub(super) running: Running,
    pub(super) reader: SpoolReader,
    /// What the ledger no longer needs.
    pub(super) ledger: watch::Sender<Floor>,
    queue: mpsc::Sender<Handover>,
    stop: CancellationToken,
    /// One for each: see [`in_order`].
    stop_sinks: Vec<watch::Sender<Option<Instant>>>,
    sinks: Vec<JoinHandle<Outcome>>,
}

/// How a pipeline ended.
pub(super) struct Ended {
    pub(super) intake: Result<()>,
    pub(super) sinks: Vec<Outcome>,
}

impl Engine {
    /// Starts a pipeline as `pipeline::Parts` does.
    pub(super) fn start(setting: &Setting, stores: &[Shared]) -> Result<Self> {
        let source = source();
        let names: Vec<String> = (0..stores.len()).map(name).collect();
        let registry = Registry::new();
        let disk = outside::disk_with(Path::new(SPOOL));
        let started = open_on(
            disk,
            intake::Setup {
                pipeline: PIPELINE.to_owned(),
                folder: SPOOL.into(),
                config: spool_config(setting),
                sources: vec![SourceSetup {
                    info: source.clone(),
                    history_lag: Duration::from_secs(venue::LAG as u64 + 1),
                }],
                registry: registry.clone(),
            },
        )?;
        let (mut sinks, mut floors, mut stop_sinks) = (Vec::new(), Vec::new(), Vec::new());
        let synced = in_order(started.synced.clone(), stores.len());
        for ((name, store), synced) in names.into_iter().zip(stores).zip(synced) {
            let store = store.clone();
            let (stop, told) = watch::channel(None);
            stop_sinks.push(stop);
            let (delivery, floor) = Delivery::new(crate::delivery::Setup {
                pipeline: PIPELINE.to_owned(),
                sink: name,
                factory: Arc::new(move || Ok(Box::new(Session(store.clone())) as Box<dyn Sink>)),
                config: delivery_config(setting),
                tables: TableChoice::All,
                derived: Default::default(),
                sources: vec![source.clone()],
                spool: started.reader.spool_id(),
                host: "here".to_owned(),
                directory: SINKS.into(),
                when_full: setting.when_full,
                log: SpoolLog::new(started.reader.clone()),
                synced,
                stop: told,
                others: Others::default(),
                health: registry.clone(),
                commands: Commands::default(),
            })?;
            delivery.begin()?;
            floors.push(floor);
            sinks.push(tokio::spawn(delivery.run_to_the_stop()));
        }
        let (ledger, floor) = watch::channel(Floor::default());
        floors.push(floor);
        let stop = CancellationToken::new();
        let reader = started.reader.clone();
        let (running, queue) = started.run(floors, stop.clone());
        let link = |line| {
            let id = LinkId { source: 0, line };
            Link::new(id, venue::tables(), queue.clone(), setting.link_bytes).live()
        };
        let links = (0..2).map(link).collect();
        Ok(Self { links, running, reader, ledger, queue, stop, stop_sinks, sinks })
    }

    /// Returns whether intake has ended: a person has to look at the disk.
    pub(super) fn has_failed(&self) -> bool {
        self.running.task.is_finished()
    }

    /// Stops the pipeline in order, as `pipeline::Parts` does.
    pub(super) async fn stop(self) -> Ended {
        let Self { mut links, running, queue, stop, stop_sinks, sinks, .. } = self;
        stop.cancel();
        let deadline = Instant::now() + DRAIN;
        for link in &mut links {
            // An intake that has ended takes nothing.
            drop(link.handed_over().await);
        }
        drop((links, queue));
        let intake = running.task.await.unwrap_or_else(|error| Err(crate::Error::permanent(error.to_string())));
        stop_sinks.iter().for_each(|stop| _ = stop.send_replace(Some(deadline)));
        let mut ended = Vec::new();
        for sink in sinks {
            ended.extend(sink.await);
        }
        Ended { intake, sinks: ended }
    }
}

/// Returns a receiver for each sink, which wake in their order: those who wait for one watch wake in an order that tokio
/// draws, and from no seed of ours.
fn in_order(mut all: watch::Receiver<SpoolPosition>, sinks: usize) -> Vec<watch::Receiver<SpoolPosition>> {
    let now = *all.borrow_and_update();
    let (each, receivers): (Vec<_>, Vec<_>) = (0..sinks).map(|_| watch::channel(now)).unzip();
    // It ends with whoever sends, or with the runtime.
    tokio::spawn(async move {
        while all.changed().await.is_ok() {
            let next = *all.borrow_and_update();
            each.iter().for_each(|one| _ = one.send_replace(next));
        }
    });
    receivers
}

fn source() -> SourceInfo {
    let tables = venue::tables().into_iter().map(Arc::new).collect();
    SourceInfo { name: "venue".into(), venue: "venue".into(), tables }
}

/// Returns what the spool is opened with.
pub(super) fn spool_options() -> SpoolOptions {
    SpoolOptions { pipeline: PIPELINE.to_owned(), sources: vec![source()], limits: SpoolLimits::default() }
}

/// Returns the directory of the dead letters of a sink.
pub(super) fn letters_of(sink: usize) -> std::path::PathBuf {
    Path::new(SINKS).join(name(sink))
}

/// Makes all disks well.
pub(super) fn mend_disks() {
    machine::disks().iter().for_each(|(_, disk)| disk.fail(Failure::None));
}

fn name(sink: usize) -> String {
    format!("sink{sink}")
}

fn spool_config(setting: &Setting) -> SpoolConfig {
    SpoolConfig {
        max_bytes: ByteSize(setting.max_bytes),
        when_full: setting.when_full,
        segment_bytes: ByteSize(setting.segment_bytes),
        keep: config::Duration(setting.keep),
        sync: config::Duration(setting.sync),
    }
}

fn delivery_config(setting: &Setting) -> DeliveryConfig {
    let mut config = DeliveryConfig::default();
    config.batch.rows = NonZeroUsize::new(setting.batch_rows).unwrap_or(NonZeroUsize::MIN);
    config.batch.linger = config::Duration(setting.linger);
    config.retry.first = config::Duration(Duration::from_millis(200));
    config.retry.longest = config::Duration(Duration::from_secs(4));
    config.breaker.open_for = config::Duration(Duration::from_secs(5));
    config.timeout = config::Duration(Duration::from_secs(5));
    config
}

/// How long a stop waits for the stores.
const DRAIN: Duration = Duration::from_secs(120);
