//! What every stage of every pipeline is doing, from evidence, for people, load balancers and dashboards.
//!
//! A driver holds the [`StageHealth`] of its stage. It leaves *evidence* there (a frame came, rows were committed), which
//! costs one atomic store, and *moves* the stage between states when the evidence says so; a move is a log line, and is
//! shown in the [`Report`]. No value of a configuration gets in: only numbers, states and reasons that drivers word.
//!
//! ```text
//! Starting → Healthy ⇄ Degraded → Failed | Stopped        Degraded mends itself, Failed needs a person
//! ```

mod evidence;
mod readiness;
mod report;
mod stage;
mod state;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use evidence::Stamp;
pub use readiness::Readiness;
pub use report::{
    BalanceCheck, BreakerCheck, Check, DeadLettersDetail, Detail, Filling, Gaps, KeyCheck, LedgerDetail, Quantiles,
    Report, SinkDetail, SourceDetail, SpoolDetail, Subscriptions,
};
use stage::Stage;
pub use stage::StageHealth;
pub(crate) use stage::printable;
pub use state::Status;

/// All stages of a process. Clones show the same.
#[derive(Debug, Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Moments are kept as the time since this one, so that they fit into an atomic.
    origin: Instant,
    stages: Mutex<BTreeMap<StageId, Arc<Stage>>>,
    last_beat: Stamp,
}

/// What a stage is, which decides what evidence it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StageKind {
    /// The process itself: what belongs to no pipeline.
    Host,
    /// Reads a venue.
    Source,
    /// Keeps what was read.
    Spool,
    /// Keeps what is known of each stream's time.
    Ledger,
    /// Writes to a store.
    Sink,
    /// Keeps the rows that a store will never take.
    DeadLetters,
}

/// Names one stage. The same words are in the TOML, the log, the metrics and the report: `deribit-eth/source.deribit`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageId {
    pipeline: Arc<str>,
    kind: StageKind,
    name: Arc<str>,
}

impl Registry {
    /// Returns a registry without stages. It counts as live from now on.
    pub fn new() -> Self {
        let origin = Instant::now();
        let last_beat = Stamp::default();
        last_beat.set(origin, origin);
        Self { shared: Arc::new(Shared { origin, stages: Mutex::default(), last_beat }) }
    }

    /// Returns the handle of a stage, which is made at the first call: whoever names the same stage gets the same one.
    pub fn stage(&self, id: StageId) -> StageHealth {
        let stage = Arc::clone(
            self.stages().entry(id).or_insert_with_key(|id| Arc::new(Stage::new(id.clone(), self.shared.origin))),
        );
        StageHealth::new(stage, self.clone())
    }

    /// Forgets a stage that is somebody else's now. Handles that are still held go on, unseen.
    pub(crate) fn forget_stage(&self, id: &StageId) {
        self.stages().remove(id);
    }

    /// Forgets the stages of a pipeline that is gone. Handles that are still held go on, unseen.
    pub fn forget(&self, pipeline: &str) {
        self.stages().retain(|id, _| id.pipeline() != pipeline);
    }

    /// Returns everything that is known, now.
    pub fn report(&self) -> Report {
        Report::of(&self.all(), Instant::now())
    }

    /// Returns whether every required source is subscribed and every sink has committed or is idle, and if not, what is
    /// waited for.
    pub fn ready(&self) -> Readiness {
        Readiness::of(&self.all(), Instant::now())
    }

    /// Returns whether the runtime turns: its [`heartbeat`](Self::heartbeat) was seen within the last five seconds.
    pub fn live(&self) -> bool {
        let age = self.shared.last_beat.age(self.shared.origin, Instant::now());
        age.is_some_and(|age| age <= STALE_BEAT)
    }

    /// Beats once a second until `stop`. The runner spawns it, and stops it last: without it the process counts as hung.
    pub async fn heartbeat(&self, stop: CancellationToken) {
        let mut every = tokio::time::interval(BEAT);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                now = every.tick() => self.shared.last_beat.set(self.shared.origin, now),
            }
        }
    }

    fn all(&self) -> Vec<Arc<Stage>> {
        self.stages().values().cloned().collect()
    }

    /// Returns whether a stage shares its pipeline with another of its kind, so that a log line must tell them apart.
    fn has_sibling(&self, id: &StageId) -> bool {
        self.stages().keys().filter(|other| other.pipeline == id.pipeline && other.kind == id.kind).count() > 1
    }

    /// Returns whether every required stage of `pipeline` is healthy.
    fn is_healthy(&self, pipeline: &str) -> bool {
        let stages = self.stages();
        let mut required = stages.values().filter(|stage| stage.id.pipeline() == pipeline && stage.is_required());
        required.all(|stage| stage.status() == Status::Healthy)
    }

    /// Returns the name of a pipeline's source, and what it said last; of several, the first by name.
    fn source_reason(&self, pipeline: &str) -> Option<(String, String)> {
        let stages = self.stages();
        let is_it = |stage: &&Arc<Stage>| stage.id.pipeline() == pipeline && stage.id.kind() == StageKind::Source;
        stages.values().find(is_it).map(|stage| (stage.id.stage(), stage.reason()))
    }

    /// A panic while it was held leaves no half-made change behind.
    fn stages(&self) -> MutexGuard<'_, BTreeMap<StageId, Arc<Stage>>> {
        self.shared.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl StageId {
    /// Names the source `[source.NAME]` of a pipeline.
    pub fn source(pipeline: &str, name: &str) -> Self {
        Self::new(pipeline, StageKind::Source, name)
    }

    /// Names the spool of a pipeline.
    pub fn spool(pipeline: &str) -> Self {
        Self::new(pipeline, StageKind::Spool, "")
    }

    /// Names the ledger of a pipeline.
    pub fn ledger(pipeline: &str) -> Self {
        Self::new(pipeline, StageKind::Ledger, "")
    }

    /// Names the sink `[sink.NAME]` of a pipeline.
    pub fn sink(pipeline: &str, name: &str) -> Self {
        Self::new(pipeline, StageKind::Sink, name)
    }

    /// Names the dead letters of the sink `[sink.NAME]` of a pipeline.
    pub fn dead_letters(pipeline: &str, sink: &str) -> Self {
        Self::new(pipeline, StageKind::DeadLetters, sink)
    }

    /// Names a part of the process that belongs to no pipeline, or a pipeline that could not be read.
    pub fn host(name: &str) -> Self {
        Self::new("", StageKind::Host, name)
    }

    fn new(pipeline: &str, kind: StageKind, name: &str) -> Self {
        Self { pipeline: pipeline.into(), kind, name: name.into() }
    }

    /// Returns the pipeline's name; empty for the host.
    pub fn pipeline(&self) -> &str {
        &self.pipeline
    }

    /// Returns what the stage is.
    pub fn kind(&self) -> StageKind {
        self.kind
    }

    /// Returns the stage's own name; empty for a spool or a ledger.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the stage's name within its pipeline, as the TOML has it: `source.deribit`. It is the metrics' label.
    pub fn stage(&self) -> String {
        if self.name.is_empty() { self.kind.to_string() } else { format!("{}.{}", self.kind, self.name) }
    }
}

impl fmt::Display for StageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.pipeline.is_empty() {
            write!(f, "{}/", self.pipeline)?;
        }
        f.write_str(&self.stage())
    }
}

impl fmt::Display for StageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Source => "source",
            Self::Spool => "spool",
            Self::Ledger => "ledger",
            Self::Sink => "sink",
            Self::DeadLetters => "deadletters",
        })
    }
}

const BEAT: Duration = Duration::from_secs(1);
const STALE_BEAT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
