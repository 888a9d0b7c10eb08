//! What a pipeline says of itself: the ledger, which runs always, and the tables that sinks take.

use std::time::Duration;

use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    caught::{caught, pauses},
    health::Registry,
    intake::{Handover, SourceSetup},
    ledger::{Ledger, Telling},
    own::{self, Coverage, Status},
    row::{Row as _, Table},
    source::Lines,
    spool::SourceInfo,
};

/// The running ledger, and what tells how the stages are.
pub(super) struct Own {
    tasks: JoinSet<()>,
    /// Cancelled when no source says anything any more.
    done: CancellationToken,
}

/// What they need.
pub(super) struct OwnSetup<'a> {
    pub(super) pipeline: &'a str,
    /// The number of the pipeline's own source.
    pub(super) number: u16,
    pub(super) queue: &'a mpsc::Sender<Handover>,
    pub(super) registry: &'a Registry,
}

impl Own {
    /// Starts the ledger, and whatever tells the tables of `source`.
    pub(super) fn start(ledger: Ledger, source: Option<SourceInfo>, setup: OwnSetup<'_>) -> Self {
        let (mut tasks, done) = (JoinSet::new(), CancellationToken::new());
        let tables: Vec<Table> =
            source.iter().flat_map(|source| &source.tables).map(|table| Table::clone(table)).collect();
        let has = |name: &str| tables.iter().any(|table| *table.name == *name);
        let (has_coverage, has_status) = (has(Coverage::TABLE), has(Status::TABLE));
        let lines = Lines::new(setup.number, tables, setup.queue.clone());
        let telling = has_coverage.then(|| Telling { lines: lines.clone(), done: done.clone() });
        tasks.spawn(ledger.run(telling));
        if has_status {
            let (pipeline, registry) = (setup.pipeline.to_owned(), setup.registry.clone());
            tasks.spawn(tell_status(lines, pipeline, registry, done.clone()));
        }
        Self { tasks, done }
    }

    /// Lets them say how all has ended. Intake ends behind that.
    pub(super) fn say_last_word(&self) {
        self.done.cancel();
    }

    /// Waits until they have ended.
    pub(super) async fn ended(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Tells how the stages are until the stop, again after a panic.
async fn tell_status(lines: Lines, pipeline: String, registry: Registry, stop: CancellationToken) {
    let mut pauses = pauses();
    loop {
        let link = lines.link(STATUS_BYTES);
        let told = caught("the status", own::tell_status(link, &pipeline, &registry, stop.clone())).await;
        match told {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                warn!(pipeline, error = error.chain(), "status {pipeline} is told no more; the next start goes on");
                return;
            }
            Err(panic) => warn!(pipeline, error = panic.chain(), "status {pipeline} is told again after a pause"),
        }
        if stop.run_until_cancelled(tokio::time::sleep(pauses.failed(None))).await.is_none() {
            return;
        }
    }
}

/// Returns the pipeline's own source as intake knows it.
pub(super) fn intake_source(info: SourceInfo) -> SourceSetup {
    SourceSetup { info, history_lag: Duration::ZERO }
}

/// More than the rows of all stages take.
const STATUS_BYTES: usize = 64 << 20;
