//! What the author of a source implements that is a durable log itself: [`LogSource`]. It has no spool.
//!
//! ```text
//! log: part 0 ──→ delivery ──→ store      the position of each part is in the store, guarded, and nowhere else;
//!      part 1 ──→ delivery ──→ store      several processes share the parts: who opens a part last, writes it
//! ```
//!
//! A spool between two logs would double rows: what one process has spooled and not delivered when it loses a part, another
//! one reads from the log and delivers, too (failure mode 9). So the store's position is the only one, a delivery reads the log
//! itself, and what a part gets in the meantime stays where it is.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    Result,
    chunk::Part,
    delivery::{Floor, Log},
    health::StageHealth,
    pipeline::{PartSetup, SinkEnd},
    row::Table,
    spool::SpoolPosition,
};

/// A source whose records have positions of their own, and stay where they are.
#[async_trait]
pub trait LogSource: Send + 'static {
    /// Returns the tables of its rows. Asked once, before `run`.
    fn tables(&self) -> Vec<Table>;

    /// Looks whether the log can be reached, without taking part in anything, and says in a few words what it found.
    ///
    /// # Errors
    ///
    /// Any, when it cannot be reached.
    async fn reach(&mut self) -> Result<String> {
        Ok("this source has nothing to dial".to_owned())
    }

    /// Delivers the parts that are this process's, by [`LogContext::deliver`], until `cx.stop` is cancelled; ends all
    /// deliveries before it returns.
    ///
    /// # Errors
    ///
    /// `Transient`: called again, on a new instance, after the back-off. `Permanent` and `Config`: waits for a person.
    async fn run(self: Box<Self>, cx: LogContext) -> Result<()>;
}

/// A log source's way to the stores.
pub struct LogContext {
    /// The source's name.
    pub name: Arc<str>,
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// The names of the sinks. Each part goes to each of them, by a delivery and a log of its own: one that is down holds up no
    /// other.
    pub sinks: Vec<String>,
    /// Cancelled when it should end.
    pub stop: CancellationToken,
    /// How long what was read may be delivered after that.
    pub drain: Duration,
    /// The health of its stage.
    pub health: StageHealth,
    pub(crate) setup: Arc<PartSetup>,
}

/// What a delivery of a part reads.
pub struct PartLog {
    /// The part.
    pub part: Part,
    /// The id of the log, which its positions in a store belong to: the same in every process, another for another log.
    pub log_id: u64,
    /// The log, read by this delivery only.
    pub log: Box<dyn Log>,
    /// Up to where it may be read at once.
    pub readable: watch::Receiver<SpoolPosition>,
}

/// The running delivery of one part to one sink. Dropping it is like a crash: whoever opens the part next settles what is in
/// doubt.
#[derive(Debug)]
pub struct PartDelivery {
    pub(crate) sink: String,
    pub(crate) part: Part,
    pub(crate) floor: watch::Receiver<Floor>,
    pub(crate) stop: watch::Sender<Option<Instant>>,
    pub(crate) task: Option<JoinHandle<SinkEnd>>,
    pub(crate) setup: Arc<PartSetup>,
}

impl LogContext {
    /// Begins to deliver a part to a sink of this name: from where the store is, or from its beginning.
    ///
    /// # Errors
    ///
    /// `Transient` when the folder of its dead letters cannot be made or read for now.
    ///
    /// # Panics
    ///
    /// If there is no such sink.
    pub async fn deliver(&self, sink: &str, part: PartLog) -> Result<PartDelivery> {
        self.setup.deliver(sink, part).await
    }
}

impl PartDelivery {
    /// Returns what the store is known to have.
    pub fn committed(&self) -> Option<SpoolPosition> {
        self.floor.borrow().committed
    }

    /// Tells the delivery to write what may be read, until this time, and to end.
    pub fn stop(&self, deadline: Instant) {
        self.stop.send_replace(Some(deadline));
    }

    /// Waits for its end, which it was told to come to by `deadline`; cuts it off where it does not. Nothing of the part is
    /// written from here on: what may be under way is guarded by the position, and settled by whoever opens it next.
    pub async fn ended(mut self, deadline: Instant) {
        let Some(mut task) = self.task.take() else { return };
        let ended = match tokio::time::timeout_at(deadline + GRACE, &mut task).await {
            Ok(ended) => ended.ok(),
            Err(_) => {
                task.abort();
                task.await.ok()
            }
        };
        self.setup.ended(&self.sink, ended);
    }
}

impl Drop for PartDelivery {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.setup.forget(&self.sink, &self.part);
    }
}

/// How long a delivery may take to end once its time is up.
const GRACE: Duration = Duration::from_millis(500);
