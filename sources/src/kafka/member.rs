//! The member of the consumer group: hears which partitions are this process's, and reads nothing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
    error::KafkaError,
};
use tidegate_core::{
    Result,
    librdkafka::{Ear, code, needs_a_person},
};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use super::{
    KafkaConfig,
    client::{STEP, base, sorted},
};

/// A partition of a topic.
pub(super) type Partition = (String, i32);

/// What the group says.
#[derive(Debug)]
pub(super) enum Said {
    /// These are this process's from now on.
    Yours(Vec<Partition>),
    /// These are not, once the answer is given: nothing of them may be written any more. The client's thread waits for it, and
    /// with it the group.
    Back(Vec<Partition>, oneshot::Sender<()>),
}

/// What the thread and its owner share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// How far the stores are, in Kafka's offsets: the group is told, for people and their tools.
    stored: Mutex<BTreeMap<Partition, i64>>,
    is_over: AtomicBool,
    heard: Mutex<Option<String>>,
}

impl Shared {
    /// Sets how far the stores are.
    pub(super) fn store(&self, stored: BTreeMap<Partition, i64>) {
        *self.stored() = stored;
    }

    /// Tells the member to leave the group.
    pub(super) fn leave(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Returns what the client has met since the last time; without secrets.
    pub(super) fn heard(&self) -> Option<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn stored(&self) -> MutexGuard<'_, BTreeMap<Partition, i64>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Is a member of the group until it is told to leave. Blocks.
///
/// # Errors
///
/// `Permanent` when a person has to change a right, a login or a setting; `Config` when the file of a secret cannot be read.
pub(super) fn be_member(
    config: &KafkaConfig,
    pipeline: &str,
    shared: &Arc<Shared>,
    said: mpsc::UnboundedSender<Said>,
) -> Result<()> {
    let group = config.group(pipeline);
    let what = format!("group `{group}`");
    let ear = Ear::default();
    let context = Group { said, ear: ear.clone(), shared: shared.clone() };
    let mut settings = base(config, pipeline)?;
    // What moves is given back, and nothing else stands still meanwhile.
    settings.set("partition.assignment.strategy", "cooperative-sticky");
    // Nothing is read: see `Group`.
    settings.set("queued.max.messages.kbytes", "64");
    let made = settings.create_with_context(context);
    let consumer: BaseConsumer<Group> = made.map_err(|error| sorted(&what, &error))?;
    let topics: Vec<&str> = config.topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).map_err(|error| sorted(&what, &error))?;
    let mut commit_at = Instant::now() + COMMIT_EVERY;
    while !shared.is_over.load(Ordering::Relaxed) {
        if let Some(Err(error)) = consumer.poll(STEP) {
            if code(&error).is_some_and(needs_a_person) {
                return Err(sorted(&what, &error));
            }
            hear(shared, config, &error.to_string());
        }
        if let Some((_, reason)) = ear.heard() {
            hear(shared, config, &reason);
        }
        if Instant::now() >= commit_at {
            commit_at = Instant::now() + COMMIT_EVERY;
            commit(&consumer, shared);
        }
    }
    commit(&consumer, shared);
    // It leaves the group as it is dropped.
    Ok(())
}

fn hear(shared: &Shared, config: &KafkaConfig, text: &str) {
    *shared.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(config.rdkafka.hide_in(text));
}

/// Tells the group how far the stores are. Nothing rests on it.
fn commit(consumer: &BaseConsumer<Group>, shared: &Shared) {
    let mut offsets = TopicPartitionList::new();
    for ((topic, partition), offset) in &*shared.stored() {
        if let Err(error) = offsets.add_partition_offset(topic, *partition, Offset::Offset(*offset)) {
            debug!(%error, "an offset cannot be shown to the group");
        }
    }
    if offsets.count() > 0
        && let Err(error) = consumer.commit(&offsets, CommitMode::Async)
    {
        debug!(%error, "the group is not told how far the stores are");
    }
}

/// Hears what the group says, on the thread that polls.
struct Group {
    said: mpsc::UnboundedSender<Said>,
    ear: Ear,
    shared: Arc<Shared>,
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.ear.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.ear.error(error, reason);
    }
}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let partitions = match rebalance {
            Rebalance::Revoke(partitions) => named(partitions),
            Rebalance::Assign(_) => return,
            Rebalance::Error(error) => return self.ear.hear(error, &error.to_string()),
        };
        let (given_back, answer) = oneshot::channel();
        // Nobody is there any more at the end of the source, which has ended all deliveries before.
        if self.said.send(Said::Back(partitions, given_back)).is_ok() {
            drop(answer.blocking_recv());
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                // Each delivery has a reader of its own.
                if let Err(error) = consumer.pause(partitions) {
                    debug!(%error, "partitions are read by the member of the group, for nothing");
                }
                // None, too: there are more members than partitions, and this one is ready.
                drop(self.said.send(Said::Yours(named(partitions))));
            }
            Rebalance::Revoke(partitions) => {
                let gone = named(partitions);
                self.shared.stored().retain(|partition, _| !gone.contains(partition));
            }
            Rebalance::Error(_) => {}
        }
    }
}

fn named(partitions: &TopicPartitionList) -> Vec<Partition> {
    partitions.elements().iter().map(|of| (of.topic().to_owned(), of.partition())).collect()
}

const COMMIT_EVERY: Duration = Duration::from_secs(5);
