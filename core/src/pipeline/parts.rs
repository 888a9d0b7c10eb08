//! The parts of a pipeline: started in the order in which they need each other, and stopped in the order in which rows go.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Ended, Folder, GRACE, SourceFeed, Surroundings,
    deliveries::{Deliveries, RunningSinks, others},
    own::{self, Own, OwnSetup},
    redrive::Redrives,
    supervise::{SourceEnd, Supervised},
    vanished::{self, Vanished},
};
use crate::{
    Error, Kind, Result,
    caught::text_of,
    config::{Commands, Pipeline, SinkStage},
    delivery::Floor,
    health::{StageHealth, StageId},
    intake,
    metrics::PipelineMetrics,
    outside,
    source::Lines,
    spool::{SourceInfo, inspect::inspect},
    table::Derived,
};

/// A pipeline whose tasks run.
pub(super) struct Parts {
    name: String,
    sources: JoinSet<SourceEnd>,
    stop_sources: CancellationToken,
    intake: JoinHandle<Result<()>>,
    end_intake: CancellationToken,
    deliveries: RunningSinks,
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
    pub(super) async fn start(pipeline: Pipeline, around: Surroundings) -> Result<Self> {
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
            sources.spawn(way.source(number, feed, held));
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
            end_intake: running.end,
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
    pub(super) async fn run(mut self) -> Result<Ended> {
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
        self.stop_sources.cancel();
        let mut sources = std::mem::take(&mut self.sources);
        // What hangs, on a disk that does not answer, is left behind: a capture by its source, and a source by us.
        let ended = timeout_at(deadline.max(began + GRACE) + GRACE, async {
            while let Some(ended) = sources.join_next().await {
                needs_person |= !matches!(ended, Ok(SourceEnd::Finished));
            }
            while self.redrives.join_next().await.is_some() {}
        });
        let is_stuck = ended.await.is_err();
        if is_stuck {
            warn!(pipeline = self.name, "stuck {} a source does not end, and is left behind", self.name);
            needs_person = true;
        }
        // What the pipeline says of itself comes last.
        self.own.say_last_word();
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => self.intake_ended(deadline.max(Instant::now()) + GRACE, is_stuck).await,
        };
        self.stop_sinks.send_replace(Some(deadline));
        let mut sinks = Vec::new();
        let ended = timeout_at(deadline.max(Instant::now()) + 2 * GRACE, async {
            while let Some(ended) = self.deliveries.next().await {
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
    /// Waits until intake has written what is in its queue, and made it durable. The queue is closed once nobody has a way to it
    /// any more, or, where a source keeps its own, when all others had the time for their last words.
    async fn intake_ended(&mut self, last: Instant, is_stuck: bool) -> Result<()> {
        let mut ended = timeout_at(last, &mut self.intake).await;
        if is_stuck && ended.is_err() {
            self.end_intake.cancel();
            ended = timeout_at(last + GRACE, &mut self.intake).await;
        }
        if let Ok(ended) = ended {
            return joined(ended, &self.spool);
        }
        let why = "the spool does not come to its end: its disk does not answer, or is too slow";
        self.spool.failed(format!("{why}; what is durable is sent after the next start"));
        Err(Error::transient(why))
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
    /// Starts a source, and returns its end. Also one that blocks, as it should not, is nobody else's trouble.
    fn source(
        &self,
        number: usize,
        feed: SourceFeed,
        held: Option<String>,
    ) -> impl Future<Output = SourceEnd> + Send + use<> {
        let supervised = Supervised {
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
        };
        let running = outside::spawn_apart(supervised.run());
        async { running.await.unwrap_or(SourceEnd::Failed) }
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

/// Says, in one line, what a pipeline is about to do: from which spool, into what, with which promise, shown where.
fn tell_start(pipeline: &str, folder: &Folder, is_new: bool, shown_at: &str, sinks: &[SinkStage]) -> Result<()> {
    let (spool, age) = (folder.spool(), if is_new { "new" } else { "resumed" });
    tell_promises(pipeline, &format!("spool {} ({age})", spool.display()), shown_at, sinks)
}

/// Says in one line what a pipeline is about to do, `from` saying from where.
pub(super) fn tell_promises(pipeline: &str, from: &str, shown_at: &str, sinks: &[SinkStage]) -> Result<()> {
    let mut promises = String::new();
    for sink in sinks {
        // Built, not opened: what a store promises does not depend on what is in it.
        promises.push_str(&format!("  {}: {}", sink.name, (sink.factory)()?.guarantee()));
    }
    info!(pipeline, "start {pipeline} {from}  {shown_at}{promises}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Registry, Status};

    #[tokio::test]
    async fn a_panic_of_intake_fails_the_spools_stage_and_is_said() {
        let health = Registry::new().stage(StageId::spool("eth"));
        health.healthy("open");
        let ended = tokio::spawn(async { panic!("a fault of the program") }).await;
        let error = joined(ended, &health).unwrap_err();
        assert_eq!(error.to_string(), "intake panicked: a fault of the program");
        assert_eq!(health.status(), Status::Failed);
    }
}
