//! One pipeline: its parts wired together, kept running, and stopped in order.
//!
//! ```text
//! sources ──links──→ intake ──→ spool ──→ deliveries          stop: sources, then intake to its last fsync, then deliveries
//!    └─ again after a panic or an error that mends itself          to the deadline; what is not delivered stays in the spool
//! ```
//!
//! Nothing that happens to a pipeline ends another one, or the process. What may wait for a disk, and every source and sink, has
//! a thread of its own, so that a disk that hangs, or a part that blocks, keeps nobody else.

mod check;
mod deliveries;
mod ended;
mod feed;
mod folder;
mod log;
mod own;
mod parts;
pub mod redrive;
pub mod remedies;
mod supervise;
mod vanished;

use std::{convert::Infallible, path::PathBuf, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use check::{Check, check_connections, check_store};
use deliveries::host_name;
pub use ended::{Ended, SinkEnd};
use feed::SourceFeed;
pub use folder::Folder;
use log::LogParts;
pub(crate) use log::PartSetup;
use parts::Parts;

use crate::{
    Error, Kind, Result,
    caught::{self, caught},
    config::Pipeline,
    health::{Registry, StageHealth, StageId},
    http::HttpClient,
    outside,
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

/// Runs a pipeline until it is told to stop, its sources have nothing more to give, or it cannot go on.
///
/// It keeps one of the threads that the runtime has for what blocks, one more for each source, sink and capture, and another for
/// each call that a disk holds up: see [`max_blocking_threads`](tokio::runtime::Builder::max_blocking_threads), of which there are
/// 512 where nobody has said otherwise.
///
/// # Errors
///
/// `Config` when another process has its spool, or its parts do not fit together. `Permanent` when its disk fails.
/// `Transient` when it was told to stop before its disk let it start.
pub async fn run(pipeline: Pipeline, around: Surroundings) -> Result<Ended> {
    let registry = &around.registry;
    if pipeline.is_log() {
        // Of its stages none is there yet.
        let host = StageId::host(&pipeline.name);
        let health = registry.stage(host.clone());
        let parts = started(&around, &health, || LogParts::start(pipeline.clone(), around.clone())).await?;
        registry.forget_stage(&host);
        return Ok(Box::pin(parts.run()).await);
    }
    let spool = registry.stage(StageId::spool(&pipeline.name));
    let parts = started(&around, &spool, || Parts::start(pipeline.clone(), around.clone())).await?;
    parts.run().await
}

/// Starts the parts of a pipeline, again after what mends itself.
async fn started<T, F>(around: &Surroundings, health: &StageHealth, start: impl Fn() -> F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let mut pauses = caught::pauses();
    loop {
        let error = match started_once(start(), around, health).await {
            Ok(parts) => return Ok(parts),
            Err(error) => error,
        };
        // A disk that is full or does not answer may be well again.
        let Kind::Transient { retry_after } = error.kind() else {
            health.failed(format!("{}; the pipeline does not run", error.chain()));
            return Err(error);
        };
        let pause = pauses.failed(retry_after);
        let next = format!("the pipeline does not run yet, trying again in {:.1} s", pause.as_secs_f64());
        health.degraded(format!("{}; {next}", error.chain()));
        if around.stop.run_until_cancelled(sleep(pause)).await.is_none() {
            return Err(error);
        }
    }
}

/// Starts the parts. A disk that hangs on the way holds up nobody else, nor the stop.
async fn started_once<T: Send + 'static>(
    parts: impl Future<Output = Result<T>> + Send + 'static,
    around: &Surroundings,
    health: &StageHealth,
) -> Result<T> {
    // Components are made on the way, and asked what they are.
    let starting = outside::spawn_apart(caught("starting the pipeline", parts));
    let given_up = async {
        around.stop.cancelled().await;
        sleep(GRACE).await;
    };
    let slow = async {
        sleep(LONG_START).await;
        health.degraded("the pipeline is still starting: its disk does not answer, or has much to read");
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        // Its panic was caught.
        started = starting => started.unwrap_or_else(|error| Err(Error::transient("the start was cut off").because(error))).flatten(),
        () = given_up => Err(Error::transient("the pipeline does not come to its start: its disk does not answer")),
        never = slow => match never {},
    }
}

/// How long the parts of a pipeline may take to end, beyond the time in which what waits is sent.
const GRACE: Duration = Duration::from_secs(5);
/// A start that takes longer is said.
const LONG_START: Duration = Duration::from_secs(10);
