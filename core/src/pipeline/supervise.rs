//! Keeps a source running: again after what mends itself, after a panic too; not after what needs a person.

use std::sync::Arc;

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    Error, Kind, Result,
    caught::{caught, pauses},
    health::{StageHealth, Status},
    http::HttpClient,
    intake::Asks,
    source::{Lines, Source, SourceContext, SourceParts},
};

/// Makes a source as often as it is needed.
pub(super) type MakeSource = Box<dyn Fn() -> Result<Box<dyn Source>> + Send + Sync>;

/// A source and what each of its runs gets.
pub(super) struct Supervised {
    pub(super) name: Arc<str>,
    pub(super) make: MakeSource,
    pub(super) lines: Lines,
    pub(super) asks: Asks,
    pub(super) synced: watch::Receiver<u64>,
    pub(super) room: watch::Receiver<bool>,
    pub(super) stop: CancellationToken,
    pub(super) health: StageHealth,
    pub(super) http: HttpClient,
    pub(super) folder: std::path::PathBuf,
    /// Why it is not started: a person has to look first.
    pub(super) held: Option<String>,
}

/// How a source ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceEnd {
    /// There is nothing more to come, or it was told to stop.
    Finished,
    /// A person is needed.
    Failed,
}

impl Supervised {
    /// Runs the source until it is told to stop, or has nothing more to give. One that needs a person stays as it is until
    /// the stop, and with it the queue to intake: the pipeline goes on with what it has.
    pub(super) async fn run(mut self) -> SourceEnd {
        let end = match self.held.take() {
            Some(why) => {
                self.health.failed(why);
                SourceEnd::Failed
            }
            None => self.run_on().await,
        };
        if end == SourceEnd::Failed {
            self.stop.cancelled().await;
        }
        end
    }

    async fn run_on(&self) -> SourceEnd {
        let mut backoff = pauses();
        loop {
            let began = Instant::now();
            let outcome = self.run_once().await;
            // A run that ended in another way than by its own word may have left a session open.
            let why = outcome.as_ref().err().map_or_else(|| "the source has ended".to_owned(), Error::chain);
            self.lines.end_all(&why).await;
            backoff.succeeded_for(began.elapsed());
            let error = match outcome {
                Ok(()) => {
                    if !self.stop.is_cancelled() {
                        let (pipeline, stage) = (self.health.id().pipeline(), self.health.id().stage());
                        info!(
                            pipeline,
                            stage,
                            "finished {} the source has nothing more to give",
                            self.health.subject()
                        );
                    }
                    self.health.stopped("connection closed");
                    return SourceEnd::Finished;
                }
                Err(_) if self.stop.is_cancelled() => {
                    self.health.stopped("connection closed");
                    return SourceEnd::Finished;
                }
                Err(error) => error,
            };
            let Kind::Transient { retry_after } = error.kind() else {
                self.health.failed(format!("{}; a person has to look", error.chain()));
                return SourceEnd::Failed;
            };
            let pause = backoff.failed(retry_after);
            if self.health.status() == Status::Failed {
                self.health.restarted("starting again");
            }
            self.health.degraded(format!("{}; starting again in {:.1} s", error.chain(), pause.as_secs_f64()));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => {}
            }
            if self.stop.is_cancelled() {
                self.health.stopped("connection closed");
                return SourceEnd::Finished;
            }
        }
    }

    async fn run_once(&self) -> Result<()> {
        let source = caught("making the source", async { (self.make)() }).await.flatten()?;
        let cx = SourceContext::new(SourceParts {
            name: self.name.clone(),
            folder: self.folder.clone(),
            lines: self.lines.clone(),
            asks: self.asks.clone(),
            synced: self.synced.clone(),
            room: self.room.clone(),
            stop: self.stop.clone(),
            health: self.health.clone(),
            http: self.http.clone(),
        });
        caught("the source", source.run(cx)).await?
    }
}
