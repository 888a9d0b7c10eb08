//! One pipeline: its parts wired together, kept running, and stopped in order.
//!
//! ```text
//! sources ──links──→ intake ──→ spool ──→ deliveries          stop: sources, then intake to its last fsync, then deliveries
//!    └─ again after a panic or an error that mends itself          to the deadline; what is not delivered stays in the spool
//! ```
//!
//! Nothing that happens to a pipeline ends another one, or the process.

mod check;
mod folder;
mod log;
mod own;
pub mod redrive;
pub mod remedies;
mod supervise;
mod vanished;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use check::{Check, check_connections, check_store};
pub use folder::Folder;
pub(crate) use log::PartSetup;
use own::{Own, OwnSetup};
use redrive::Redrives;
use supervise::{MakeSource, SourceEnd, Supervised};
use vanished::Vanished;

use crate::{
    Error, Kind, Result,
    caught::{self, caught, text_of},
    config::{Commands, Feed, Pipeline, SinkStage, SourceStage, WhenFull},
    connection::ConnectionSource,
    delivery::{Delivery, Floor, Others, Outcome, Setup, SpoolLog},
    health::{Registry, StageHealth, StageId},
    http::HttpClient,
    intake,
    ledger::{self, Ledger},
    metrics::PipelineMetrics,
    row::Table,
    source::{Lines, Source},
    spool::{SourceInfo, inspect::inspect},
    table::Derived,
};

/// What a pipeline gets from the process that it runs in.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The folder of all pipelines' files.
    pub data_dir: PathBuf,
    /// Where its stages are shown.
    pub registry: Registry,
    /// Cancelled when it should stop.
    pub stop: CancellationToken,
    /// How long the spool may be sent on after that.
    pub drain: Duration,
    /// Where `/health` is, for the first line of the log.
    pub shown_at: String,
    /// Pipelines whose spools lie in `data_dir`, which no file names and nobody runs: one of these may be a new one's old
    /// name.
    pub strays: Vec<String>,
    /// Calls over HTTP. One for all pipelines: a venue counts the connections of the whole machine.
    pub http: HttpClient,
}

/// How a pipeline ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its name.
    pub pipeline: String,
    /// Its sinks.
    pub sinks: Vec<SinkEnd>,
    /// How long it took to stop.
    pub took: Duration,
    /// Whether a source had ended that does not mend itself.
    pub source_failed: bool,
    /// Sinks that it had once and that are not in its TOML any more.
    pub vanished: Vec<String>,
    /// Whether it has a spool.
    pub has_spool: bool,
}

impl Ended {
    /// Returns whether nobody has to look after it: no source and no sink had failed.
    pub fn is_well(&self) -> bool {
        !self.source_failed && self.vanished.is_empty() && self.sinks.iter().all(|sink| sink.failure.is_none())
    }
}

/// How a sink ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkEnd {
    /// Its name.
    pub name: String,
    /// Rows that it stored since the start.
    pub rows_stored: u64,
    /// Rows that it takes and that stay in the spool.
    pub rows_left: u64,
    /// Whether there are more than were counted.
    pub more_left: bool,
    /// Why a person is needed.
    pub failure: Option<String>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopped {} in {:.2} s: connections closed", self.pipeline, self.took.as_secs_f64())?;
        for sink in &self.sinks {
            write!(f, "; {}: {} rows stored since the start", sink.name, sink.rows_stored)?;
            let (verb, them) = if sink.rows_left == 1 { ("row stays", "it") } else { ("rows stay", "them") };
            match (sink.rows_left, sink.more_left) {
                (0, false) if !self.has_spool => {}
                (0, false) => f.write_str(", nothing left in the spool")?,
                (0, true) => f.write_str(", nobody knows what is left in the spool")?,
                (n, false) => write!(f, ", {n} {verb} in the spool")?,
                (n, true) => write!(f, ", more than {n} {verb} in the spool")?,
            }
            match &sink.failure {
                Some(failure) => write!(f, " ({failure})")?,
                None if sink.rows_left > 0 => write!(f, ", the next start sends {them}")?,
                None => {}
            }
        }
        for name in &self.vanished {
            write!(f, "; {name}: not in the TOML any more")?;
        }
        Ok(())
    }
}

/// Runs a pipeline until it is told to stop, its sources have nothing more to give, or it cannot go on.
///
/// # Errors
///
/// `Config` when another process has its spool, or its parts do not fit together. `Permanent` when its disk fails.
/// `Transient` when it was told to stop before its disk let it start.
pub async fn run(pipeline: Pipeline, around: Surroundings) -> Result<Ended> {
    if pipeline.is_log() {
        let (name, registry) = (pipeline.name.clone(), around.registry.clone());
        return Box::pin(log::run(pipeline, around)).await.inspect_err(|error| {
            registry.stage(StageId::host(&name)).failed(format!("{}; the pipeline does not run", error.chain()));
        });
    }
    let spool_health = around.registry.stage(StageId::spool(&pipeline.name));
    let mut pauses = caught::pauses();
    let parts = loop {
        // Components are made on the way, and asked what they are.
        let started = caught("starting the pipeline", Parts::start(pipeline.clone(), around.clone())).await;
        let error = match started.flatten() {
            Ok(parts) => break parts,
            Err(error) => error,
        };
        // A disk that is full or does not answer may be well again.
        let Kind::Transient { retry_after } = error.kind() else {
            spool_health.failed(format!("{}; the pipeline does not run", error.chain()));
            return Err(error);
        };
        let pause = pauses.failed(retry_after);
        let next = format!("the pipeline does not run yet, trying again in {:.1} s", pause.as_secs_f64());
        spool_health.degraded(format!("{}; {next}", error.chain()));
        if around.stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Err(error);
        }
    };
    parts.run().await
}

/// A pipeline whose tasks run.
struct Parts {
    name: String,
    sources: JoinSet<SourceEnd>,
    stop_sources: CancellationToken,
    intake: JoinHandle<Result<()>>,
    deliveries: JoinSet<SinkEnd>,
    own: Own,
    redrives: JoinSet<()>,
    vanished: Vec<String>,
    spool: StageHealth,
    stop_sinks: watch::Sender<Option<Instant>>,
    stop: CancellationToken,
    drain: Duration,
    info: PipelineMetrics,
}

impl Parts {
    async fn start(pipeline: Pipeline, around: Surroundings) -> Result<Self> {
        let folder = Folder::of(&around.data_dir, &pipeline).create()?;
        let commands = pipeline.commands();
        let names: Vec<&str> = pipeline.sinks.iter().map(|sink| &*sink.name).collect();
        let vanished = Vanished::find(&folder.sinks(), &names, &commands)?;
        let own = crate::own::source(&pipeline.sinks, &pipeline.derived);
        let feeds = pipeline.sources.into_iter().map(SourceFeed::new).collect::<Result<Vec<_>>>()?;
        let when_full = pipeline.spool.when_full;
        let intake = intake::start(intake::Setup {
            pipeline: pipeline.name.clone(),
            folder: folder.spool(),
            config: pipeline.spool,
            sources: feeds.iter().map(SourceFeed::intake_source).chain(own.clone().map(own::intake_source)).collect(),
            registry: around.registry.clone(),
        })
        .await
        .map_err(|error| with_the_way_out(error, &folder, &pipeline.name, &commands))?;
        tell_start(&pipeline.name, &folder, intake.is_new, &around.shown_at, &pipeline.sinks)?;
        let (stop_sinks, told) = watch::channel(None);
        let around_sinks = Deliveries {
            pipeline: &pipeline.name,
            folder: &folder,
            intake: &intake,
            when_full,
            derived: pipeline.derived,
            sources: feeds.iter().map(SourceFeed::info).chain(own.clone()).collect(),
            vanished: &vanished,
            others: others(&around.data_dir, &around.strays),
            stop: told,
            registry: &around.registry,
            commands: &commands,
        };
        let sinks: Vec<String> = pipeline.sinks.iter().map(|sink| sink.name.clone()).collect();
        let (deliveries, mut floors) = around_sinks.start(pipeline.sinks)?;
        let sinks = sinks.into_iter().zip(floors.clone()).collect();
        floors.extend(around_sinks.show_vanished());
        let (follow, floor) = around_sinks.ledger();
        floors.push(floor);
        let stop_sources = CancellationToken::new();
        let held = vanished::renamed(&around_sinks.sources, &intake.known);
        let (known, derived) = (around_sinks.sources, around_sinks.derived);
        let (running, queue) = intake.run(floors, stop_sources.clone());
        let (number, registry) = (feeds.len() as u16, &around.registry);
        let own = Own::start(follow, own, OwnSetup { pipeline: &pipeline.name, number, queue: &queue, registry });
        let (name, stop) = (pipeline.name.as_str(), &stop_sources);
        let way = Way { pipeline: name, folder: &folder, running: &running, queue: &queue, stop, around: &around };
        let redrives = way.redrives(sinks, known, derived);
        let mut sources = JoinSet::new();
        for ((number, feed), held) in feeds.into_iter().enumerate().zip(held) {
            sources.spawn(way.source(number, feed, held).run());
        }
        let info = PipelineMetrics::new(&pipeline.name, env!("CARGO_PKG_VERSION"));
        info.started();
        Ok(Self {
            spool: around.registry.stage(StageId::spool(&pipeline.name)),
            name: pipeline.name,
            vanished: vanished.into_iter().map(|sink| sink.name).collect(),
            sources,
            stop_sources,
            intake: running.task,
            deliveries,
            own,
            redrives,
            stop_sinks,
            stop: around.stop,
            drain: around.drain,
            info,
        })
    }

    /// Waits for the end, and brings it about in order.
    async fn run(mut self) -> Result<Ended> {
        let mut outcome = None;
        let mut needs_person = false;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                // One that a person has to look at ends only with the pipeline: its stores are still fed, and health shows why.
                Some(ended) = self.sources.join_next() => {
                    needs_person |= !matches!(ended, Ok(SourceEnd::Finished));
                    if self.sources.is_empty() && !needs_person {
                        break;
                    }
                }
                ended = &mut self.intake => {
                    outcome = Some(joined(ended, &self.spool));
                    break;
                }
            }
        }
        let began = Instant::now();
        let deadline = began + self.drain;
        // All of them look at the deadline; what hangs, on a disk that does not answer, is left behind.
        let last = deadline + GRACE;
        self.stop_sources.cancel();
        let mut sources = std::mem::take(&mut self.sources);
        let ended = timeout_at(last, async {
            while let Some(ended) = sources.join_next().await {
                needs_person |= !matches!(ended, Ok(SourceEnd::Finished));
            }
            while self.redrives.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            warn!(pipeline = self.name, "stuck {} a source does not end, and is left behind", self.name);
            needs_person = true;
        }
        // What the pipeline says of itself comes last.
        self.own.say_last_word();
        // The queue is closed soon: intake writes what is in it, makes it durable, and ends.
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => match timeout_at(last, &mut self.intake).await {
                Ok(ended) => joined(ended, &self.spool),
                Err(_) => Err(self.left_behind()),
            },
        };
        self.stop_sinks.send_replace(Some(deadline));
        let mut sinks = Vec::new();
        let ended = timeout_at(last + GRACE, async {
            while let Some(ended) = self.deliveries.join_next().await {
                // Its panic was caught, and nobody aborts it.
                sinks.extend(ended);
            }
            self.own.ended().await;
        });
        if ended.await.is_err() {
            warn!(pipeline = self.name, "stuck {} a sink or the ledger does not end, and is left behind", self.name);
            needs_person = true;
        }
        sinks.sort_by(|a, b| a.name.cmp(&b.name));
        self.info.stopped();
        let (took, vanished) = (began.elapsed(), self.vanished);
        let (pipeline, source_failed) = (self.name, needs_person);
        outcome.map(|()| Ended { pipeline, sinks, took, source_failed, vanished, has_spool: true })
    }
}

impl Parts {
    /// Says that intake hangs, most likely on its disk.
    fn left_behind(&self) -> Error {
        let why = "the spool does not come to its end: its disk does not answer, or is too slow";
        self.spool.failed(format!("{why}; what is durable is sent after the next start"));
        Error::transient(why)
    }
}

/// What all that writes to the log has in common.
struct Way<'a> {
    pipeline: &'a str,
    folder: &'a Folder,
    running: &'a intake::Running,
    queue: &'a mpsc::Sender<intake::Handover>,
    stop: &'a CancellationToken,
    around: &'a Surroundings,
}

impl Way<'_> {
    /// Returns a source, to be run.
    fn source(&self, number: usize, feed: SourceFeed, held: Option<String>) -> Supervised {
        Supervised {
            held,
            folder: self.folder.source(&feed.name),
            lines: Lines::new(number as u16, feed.owned_tables(), self.queue.clone()),
            asks: self.running.asks[number].clone(),
            synced: self.running.synced_offset.clone(),
            room: self.running.room.clone(),
            stop: self.stop.clone(),
            http: self.around.http.clone(),
            health: feed.health(&self.around.registry, self.pipeline),
            name: feed.name,
            make: feed.make,
        }
    }

    /// Starts to look for dead letters that are to be sent again, of these sinks.
    fn redrives(
        &self,
        sinks: Vec<(String, watch::Receiver<Floor>)>,
        sources: Vec<SourceInfo>,
        derived: Derived,
    ) -> JoinSet<()> {
        let (pipeline, folder) = (self.pipeline.to_owned(), self.folder.clone());
        let (queue, stop) = (self.queue.clone(), self.stop.clone());
        let mut redrives = JoinSet::new();
        redrives.spawn(Redrives { pipeline, folder, sinks, sources, derived, queue, stop }.run());
        redrives
    }
}

/// What the deliveries of a pipeline have in common.
struct Deliveries<'a> {
    pipeline: &'a str,
    folder: &'a Folder,
    intake: &'a intake::Started,
    when_full: WhenFull,
    sources: Vec<SourceInfo>,
    derived: Derived,
    vanished: &'a [Vanished],
    others: Others,
    stop: watch::Receiver<Option<Instant>>,
    registry: &'a Registry,
    commands: &'a Commands,
}

impl Deliveries<'_> {
    /// Starts the deliveries of all sinks, and returns what each no longer needs.
    fn start(&self, sinks: Vec<SinkStage>) -> Result<(JoinSet<SinkEnd>, Vec<watch::Receiver<Floor>>)> {
        let (mut deliveries, mut floors) = (JoinSet::new(), Vec::new());
        for sink in sinks {
            let (delivery, floor) = self.prepare(sink)?;
            floors.push(floor);
            deliveries.spawn(delivery);
        }
        Ok((deliveries, floors))
    }

    /// Shows the sinks that are not in the TOML any more; returns what the spool keeps for each.
    fn show_vanished(&self) -> impl Iterator<Item = watch::Receiver<Floor>> {
        self.vanished.iter().map(|sink| {
            sink.show(self.registry, self.pipeline);
            let passed = sink.floor.committed.map_or(0, |position| position.offset);
            self.intake.reader.claim(&sink.name, passed, sink.entered);
            watch::channel(sink.floor).1
        })
    }

    /// Returns the ledger, to be run, and what it no longer needs.
    fn ledger(&self) -> (Ledger, watch::Receiver<Floor>) {
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

/// Says what to do where the spool is that of a pipeline of another name.
fn with_the_way_out(error: Error, folder: &Folder, name: &str, commands: &Commands) -> Error {
    let Ok(found) = inspect(&folder.spool()) else { return error };
    if error.kind() != Kind::Config || found.pipeline == name {
        return error;
    }
    let rename = commands.rename_spool(&found.pipeline);
    Error::config(format!(
        "{}; bring its own back, or, if `{name}` is `{}` under a new name, run {rename}",
        error.chain(),
        found.pipeline
    ))
}

/// Returns how intake ended. Its own errors it has shown itself.
/// How long the parts of a pipeline may take to end, beyond the time in which what waits is sent.
const GRACE: Duration = Duration::from_secs(5);

fn joined(ended: Result<Result<()>, tokio::task::JoinError>, spool: &StageHealth) -> Result<()> {
    ended.unwrap_or_else(|error| {
        let why = match error.try_into_panic() {
            Ok(panic) => format!("intake panicked: {}", text_of(&*panic)),
            Err(error) => format!("intake was cut off: {error}"),
        };
        spool.failed(format!("{why}; the pipeline has stopped, the next start goes on"));
        Err(Error::permanent(why))
    })
}

/// A source with what is known of it before it runs.
struct SourceFeed {
    name: Arc<str>,
    venue: Arc<str>,
    required: bool,
    tables: Vec<Arc<Table>>,
    history_lag: Duration,
    make: MakeSource,
}

impl SourceFeed {
    fn new(stage: SourceStage) -> Result<Self> {
        let (make, history_lag): (MakeSource, _) = match stage.feed {
            Feed::Protocol { factory, connection } => {
                let history_lag = factory()?.limits().history_lag;
                let make = move || {
                    let source = ConnectionSource::new(factory.clone(), connection.clone())?;
                    Ok(Box::new(source) as Box<dyn Source>)
                };
                (Box::new(make), history_lag)
            }
            Feed::Source { factory } => (Box::new(move || factory()), Duration::ZERO),
            Feed::Log { .. } => return Err(Error::config("a source that is a log has no spool")),
        };
        let tables = make()?.tables().into_iter().map(Arc::new).collect();
        let (name, venue) = (stage.name.into(), stage.component.into());
        Ok(Self { name, venue, required: stage.required, tables, history_lag, make })
    }

    fn owned_tables(&self) -> Vec<Table> {
        self.tables.iter().map(|table| (**table).clone()).collect()
    }

    fn health(&self, registry: &Registry, pipeline: &str) -> StageHealth {
        let health = registry.stage(StageId::source(pipeline, &self.name));
        if !self.required {
            health.side_input();
        }
        health
    }

    fn info(&self) -> SourceInfo {
        SourceInfo { name: self.name.clone(), venue: self.venue.clone(), tables: self.tables.clone() }
    }

    fn intake_source(&self) -> intake::SourceSetup {
        intake::SourceSetup { info: self.info(), history_lag: self.history_lag }
    }
}

impl SinkEnd {
    fn new(name: String, ended: Result<Outcome>, health: &StageHealth) -> Self {
        match ended {
            Ok(Outcome { rows_stored, rows_left, more_left, failure, balance: _ }) => {
                Self { name, rows_stored, rows_left, more_left, failure }
            }
            Err(error) => {
                let why = error.chain();
                health.failed(format!("{why}; the next start goes on"));
                Self { name, rows_stored: 0, rows_left: 0, more_left: true, failure: Some(why) }
            }
        }
    }
}

/// Says, in one line, what a pipeline is about to do: from which spool, into what, with which promise, shown where.
fn tell_start(pipeline: &str, folder: &Folder, is_new: bool, shown_at: &str, sinks: &[SinkStage]) -> Result<()> {
    let (spool, age) = (folder.spool(), if is_new { "new" } else { "resumed" });
    tell_promises(pipeline, &format!("spool {} ({age})", spool.display()), shown_at, sinks)
}

/// Says in one line what a pipeline is about to do, `from` saying from where.
fn tell_promises(pipeline: &str, from: &str, shown_at: &str, sinks: &[SinkStage]) -> Result<()> {
    let mut promises = String::new();
    for sink in sinks {
        // Built, not opened: what a store promises does not depend on what is in it.
        promises.push_str(&format!("  {}: {}", sink.name, (sink.factory)()?.guarantee()));
    }
    info!(pipeline, "start {pipeline} {from}  {shown_at}{promises}");
    Ok(())
}

/// Looks at what lies in the data directory. What cannot be read says nothing.
fn others(data_dir: &Path, strays: &[String]) -> Others {
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
fn host_name() -> String {
    let name =
        std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::fs::read_to_string("/etc/hostname"));
    let name = name.map(|name| name.trim().to_owned()).unwrap_or_default();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Status;

    #[tokio::test]
    async fn a_panic_of_intake_fails_the_spools_stage_and_is_said() {
        let health = Registry::new().stage(StageId::spool("eth"));
        health.healthy("open");
        let ended = tokio::spawn(async { panic!("a fault of the program") }).await;
        let error = joined(ended, &health).unwrap_err();
        assert_eq!(error.to_string(), "intake panicked: a fault of the program");
        assert_eq!(health.status(), Status::Failed);
    }

    #[tokio::test]
    async fn a_delivery_that_panicked_to_the_end_is_a_failed_sink() {
        let health = Registry::new().stage(StageId::sink("eth", "sqlite"));
        health.healthy("stored");
        let ended = caught("the delivery", async { panic!("a fault of the program") }).await;
        let end = SinkEnd::new("sqlite".to_owned(), ended, &health);
        assert_eq!(health.status(), Status::Failed);
        let ended = ended_with(end);
        assert!(!ended.is_well());
        assert!(ended.to_string().ends_with("(the delivery panicked: a fault of the program)"), "{ended}");
    }

    #[test]
    fn rows_that_stay_are_sent_at_the_next_start_only_where_nobody_has_to_act() {
        let end = |rows_left, failure: Option<&str>| {
            let (name, failure) = ("sqlite".to_owned(), failure.map(str::to_owned));
            ended_with(SinkEnd { name, rows_stored: 7, rows_left, more_left: false, failure }).to_string()
        };
        let said = |text: String| text.split_once("; ").expect("sinks come last").1.to_owned();
        assert_eq!(said(end(0, None)), "sqlite: 7 rows stored since the start, nothing left in the spool");
        let one = "sqlite: 7 rows stored since the start, 1 row stays in the spool, the next start sends it";
        assert_eq!(said(end(1, None)), one);
        let failed = "sqlite: 7 rows stored since the start, 3 rows stay in the spool (the password was revoked)";
        assert_eq!(said(end(3, Some("the password was revoked"))), failed);
    }

    fn ended_with(sink: SinkEnd) -> Ended {
        let (pipeline, took) = ("eth".to_owned(), Duration::ZERO);
        Ended { pipeline, sinks: vec![sink], took, source_failed: false, vanished: Vec::new(), has_spool: true }
    }
}
