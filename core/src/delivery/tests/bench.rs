//! A log, a store and what lies beside them: what the tests of the driver begin with.

use std::{
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{
    super::{
        Delivery, Extent, Floor, Log, Others, Outcome, Seen, Setup,
        known::{Known, Noted},
    },
    log,
    store::{Memory, SharedStore, Store},
};
use crate::{
    Result,
    config::{Commands, DeliveryConfig, Start, TableChoice, WhenFull},
    deadletter::{self, DeadLetters},
    health::{Registry, StageId, Status},
    sink::Sink,
    spool::{SpoolPosition, Standing, disk::RealDisk},
    table::Derived,
    testkit::{MemoryLog, SimDisk},
};

/// A store, a log and a directory, and one process after the other between them.
pub(super) struct Bench {
    pub(super) log: MemoryLog,
    pub(super) store: SharedStore,
    pub(super) directory: TempDir,
    tables: TableChoice,
    derived: Derived,
    config: DeliveryConfig,
    pub(super) when_full: WhenFull,
    pub(super) health: Registry,
    pub(super) others: Others,
    /// How often reading the log panics from now on.
    pub(super) panics: Arc<AtomicU32>,
    /// What a full log has dropped: the first and the last offset.
    pub(super) dropped: Option<(u64, u64)>,
    /// Where dead letters are, if not in the directory.
    pub(super) disk: Option<SimDisk>,
}

pub(super) struct Running {
    stop: watch::Sender<Option<Instant>>,
    floor: watch::Receiver<Floor>,
    pub(super) task: JoinHandle<Outcome>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let mut config = DeliveryConfig::default();
        config.batch.rows = std::num::NonZeroUsize::new(5).unwrap();
        config.start = Start::Earliest;
        Self {
            log: log(),
            store: SharedStore::default(),
            directory: tempfile::tempdir().unwrap(),
            tables: TableChoice::All,
            derived: Derived::default(),
            config,
            when_full: WhenFull::DropOldest,
            health: Registry::new(),
            others: Others::default(),
            panics: Arc::default(),
            dropped: None,
            disk: None,
        }
    }

    pub(super) fn tables(mut self, tables: &str) -> Self {
        self.tables = serde_json::from_str(tables).unwrap();
        self
    }

    pub(super) fn config(mut self, change: impl FnOnce(&mut DeliveryConfig)) -> Self {
        change(&mut self.config);
        self
    }

    pub(super) fn start(&self) -> Running {
        let (stop, stopping) = watch::channel(None);
        let log = Faulty { log: self.log.clone(), panics: self.panics.clone(), dropped: self.dropped };
        let (mut delivery, floor) = Delivery::new(self.setup(log, stopping)).unwrap();
        if let Some(disk) = &self.disk {
            delivery = delivery.with_letters_on(Arc::new(disk.clone()));
        }
        Running { stop, floor, task: tokio::spawn(delivery.run()) }
    }

    /// Returns what a delivery over a log needs.
    pub(super) fn setup<L>(&self, log: L, stop: watch::Receiver<Option<Instant>>) -> Setup<L> {
        let store = self.store.clone();
        Setup {
            pipeline: "test".to_owned(),
            sink: "memory".to_owned(),
            factory: Arc::new(move || Ok(Box::new(Memory(store.clone())) as Box<dyn Sink>)),
            config: self.config.clone(),
            tables: self.tables.clone(),
            derived: self.derived.clone(),
            sources: vec![self.log.source()],
            spool: 1,
            host: "here".to_owned(),
            directory: self.directory.path().to_owned(),
            when_full: self.when_full,
            log,
            synced: self.log.synced(),
            stop,
            others: self.others.clone(),
            health: self.health.clone(),
            commands: Commands::new(Path::new("eth.toml"), None),
        }
    }

    pub(super) async fn run_to_end(&self) -> (Outcome, Arc<Mutex<Store>>) {
        let running = self.start();
        (running.stop_within(Duration::from_secs(600)).await, self.store.clone())
    }

    pub(super) async fn until(&self, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(7_200);
        while !condition() {
            assert!(Instant::now() < deadline, "the condition never holds");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) fn stored(&self) -> u64 {
        self.store.lock().unwrap().position.map_or(0, |position| position.offset)
    }

    /// Makes durable what the store has accepted.
    pub(super) fn apply(&self) {
        let mut store = self.store.lock().unwrap();
        store.applied = store.position;
    }

    pub(super) fn floor(&self, running: &Running) -> Floor {
        *running.floor.borrow()
    }

    pub(super) fn status(&self) -> Option<Status> {
        Some(self.health.stage(StageId::sink("test", "memory")).status())
    }

    pub(super) fn known(&self) -> Option<SpoolPosition> {
        self.noted().position
    }

    pub(super) fn noted(&self) -> Noted {
        let disk = Arc::new(RealDisk::at(self.directory.path()));
        Known::open(disk, "memory").unwrap().noted()
    }

    pub(super) fn letters(&self) -> Vec<deadletter::DeadLetter> {
        let path: &Path = &self.directory.path().join("memory").join(DeadLetters::FILE_NAME);
        deadletter::list(path).unwrap().letters
    }
}

impl Running {
    pub(super) async fn stop(self) -> Outcome {
        self.stop_within(Duration::from_secs(2)).await
    }

    pub(super) async fn stop_within(self, limit: Duration) -> Outcome {
        self.stop.send_replace(Some(Instant::now() + limit));
        self.task.await.unwrap()
    }
}

/// A log that panics on demand, and may have dropped something.
struct Faulty {
    log: MemoryLog,
    panics: Arc<AtomicU32>,
    dropped: Option<(u64, u64)>,
}

impl Log for Faulty {
    fn extent(&self) -> Extent {
        self.log.extent()
    }

    fn standing(&self, position: SpoolPosition) -> Standing {
        self.log.standing(position)
    }

    fn has_dropped(&self, behind: u64, upto: u64) -> bool {
        self.dropped.is_some_and(|(first, last)| first <= upto && behind < last)
    }

    fn seek(&mut self, position: SpoolPosition) -> Result<()> {
        self.log.seek(position)
    }

    fn read(&mut self, upto: u64, visit: &mut dyn FnMut(Seen<'_>) -> ControlFlow<()>) -> Result<()> {
        let panics = self.panics.try_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        assert!(panics.is_err(), "a fault of the program");
        self.log.read(upto, visit)
    }

    fn claim(&mut self, sink: &str, passed: u64, entered: u64) {
        self.log.claim(sink, passed, entered);
    }

    fn passed(&mut self, upto: u64) {
        self.log.passed(upto);
    }

    fn entered(&self) -> u64 {
        self.log.entered()
    }
}
