//! The client library: its configuration, what it says by itself, and a reader of topics. All of it blocks.

use std::{
    cell::OnceCell,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::BorrowedMessage,
    types::RDKafkaErrorCode,
};
use tidegate_core::{
    Error, Result,
    librdkafka::{Ear, listen},
    sink::Owner,
};

use super::{
    KafkaConfig,
    error::{code as code_of, is_missing, sorted, sorted_code},
    waited::Waited,
};

/// Returns an error, sorted: what was met since the last one counts more than that a call failed. Without secrets.
pub(super) fn sorted_by(ear: &Ear, what: &str, error: &KafkaError, config: &KafkaConfig) -> Error {
    match ear.heard() {
        Some((code, reason)) if code_of(error).is_none_or(is_passing) => {
            sorted_code(what, code, &config.rdkafka.hide_in(&reason))
        }
        Some(_) | None => sorted(what, error),
    }
}

/// Returns what all clients of a sink have in common.
///
/// # Errors
///
/// `Config` when the file of a secret cannot be read.
pub(super) fn base(config: &KafkaConfig, owner: &Owner) -> Result<ClientConfig> {
    let mut base = ClientConfig::new();
    base.set_log_level(RDKafkaLogLevel::Warning)
        .set("client.id", format!("tidegate-{}-{}", owner.pipeline, owner.sink))
        .set("socket.keepalive.enable", "true");
    config.rdkafka.apply(&mut base)?;
    base.set("bootstrap.servers", &config.brokers).set("allow.auto.create.topics", "false");
    Ok(base)
}

/// Reads what transactions have committed, without being a member of any group.
pub(super) struct Reader {
    consumer: BaseConsumer<Ear>,
    /// Sees also what is not committed yet: made when it is asked for.
    all: OnceCell<BaseConsumer<Ear>>,
    settings: ClientConfig,
    ear: Ear,
    config: KafkaConfig,
}

/// A stretch of a partition: the offsets from the first to before the second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub(super) partition: i32,
    pub(super) from: i64,
    pub(super) to: i64,
}

impl Reader {
    /// Makes a client; whether the brokers can be reached is seen when it is used.
    pub(super) fn new(config: &KafkaConfig, owner: &Owner) -> Result<Self> {
        let mut settings = base(config, owner)?;
        settings
            // Never joined: the client does not fetch without a name.
            .set("group.id", format!("tidegate.{}.{}", owner.pipeline, owner.sink))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "10");
        let ear = Ear::default();
        let consumer = consumer(&settings, "read_committed", &ear)?;
        Ok(Self { consumer, all: OnceCell::new(), settings, ear, config: config.clone() })
    }

    /// Returns the partitions of a topic, by number; `None` if there is no such topic.
    pub(super) fn partitions(&self, topic: &str) -> Result<Option<Vec<i32>>> {
        let metadata = self.consumer.fetch_metadata(Some(topic), PATIENCE).map_err(|error| self.unreachable(&error))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
        match found.error().map(RDKafkaErrorCode::from) {
            Some(code) if is_missing(code) => Ok(None),
            Some(code) => Err(sorted_code(&format!("topic `{topic}`"), code, &code.to_string())),
            None => Ok(Some(found.partitions().iter().map(|partition| partition.id()).collect())),
        }
    }

    /// Returns the names of all topics.
    pub(super) fn topics(&self) -> Result<Vec<String>> {
        let metadata = self.consumer.fetch_metadata(None, PATIENCE).map_err(|error| self.unreachable(&error))?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    /// Returns how many brokers answer for each other.
    pub(super) fn brokers(&self) -> Result<usize> {
        let metadata = self.consumer.fetch_metadata(None, PATIENCE).map_err(|error| self.unreachable(&error))?;
        Ok(metadata.brokers().len())
    }

    /// Returns what can be read of a partition: from the oldest message to before the first that is not decided.
    ///
    /// That a commit is answered does not mean that it can be read: the brokers write to each partition that the
    /// transaction has ended after they have answered. [`settled`](Self::settled) waits for that.
    pub(super) fn extent(&self, topic: &str, partition: i32) -> Result<Stretch> {
        self.watermarks(&self.consumer, topic, partition)
    }

    /// Returns what a partition holds now, once every transaction with a message in there is committed or aborted.
    ///
    /// # Errors
    ///
    /// `Transient` when one stays open for longer than the brokers let ours be.
    pub(super) fn settled(&self, topic: &str, partition: i32, waited: &Waited) -> Result<Stretch> {
        let all = match self.all.get() {
            Some(all) => all,
            None => {
                let all = consumer(&self.settings, "read_uncommitted", &self.ear)?;
                self.all.get_or_init(|| all)
            }
        };
        let now = self.watermarks(all, topic, partition)?;
        let since = Instant::now();
        while self.extent(topic, partition)?.to < now.to {
            let is_late = since.elapsed() > self.config.transaction_timeout.0 + SILENCE;
            let given_up = waited.pause(UNDECIDED);
            if is_late || given_up.is_err() {
                return Err(Error::transient(format!(
                    "a transaction on topic `{topic}` is open, and hides what is behind it: it is waited for"
                )));
            }
        }
        Ok(now)
    }

    fn watermarks(&self, consumer: &BaseConsumer<Ear>, topic: &str, partition: i32) -> Result<Stretch> {
        let (from, to) = consumer
            .fetch_watermarks(topic, partition, PATIENCE)
            .map_err(|error| self.failed(&format!("topic `{topic}` cannot be read"), &error))?;
        Ok(Stretch { partition, from, to })
    }

    /// Cuts stretches down to what begins with the first message of this time, in milliseconds since 1970, or a later one.
    pub(super) fn since(&self, topic: &str, stretches: &[Stretch], time: i64) -> Result<Vec<Stretch>> {
        let what = || format!("topic `{topic}` cannot be read");
        let mut asked = TopicPartitionList::new();
        for stretch in stretches {
            let added = asked.add_partition_offset(topic, stretch.partition, Offset::Offset(time));
            added.map_err(|error| sorted(&what(), &error))?;
        }
        let found = self.consumer.offsets_for_times(asked, PATIENCE).map_err(|error| self.failed(&what(), &error))?;
        let cut = |stretch: &Stretch| {
            let found = found.find_partition(topic, stretch.partition).map(|found| found.offset());
            match found {
                Some(Offset::Offset(from)) => Stretch { from: from.max(stretch.from), ..*stretch },
                Some(Offset::End) => Stretch { from: stretch.to, ..*stretch },
                Some(_) | None => *stretch,
            }
        };
        Ok(stretches.iter().map(cut).collect())
    }

    /// Reads the value of the last message of a topic with one partition, of which this is the extent.
    pub(super) fn last(&self, topic: &str, extent: Stretch, waited: &Waited) -> Result<Option<Vec<u8>>> {
        let mut window = WINDOW;
        loop {
            // From the end on: what ends a transaction takes an offset, too, and so do aborted messages.
            let from = extent.to.saturating_sub(window).max(extent.from);
            let mut last = None;
            self.read(topic, &[Stretch { from, ..extent }], waited, |message| {
                last = message.payload().map(<[u8]>::to_vec).or_else(|| last.take());
                Ok(())
            })?;
            if last.is_some() || from == extent.from {
                return Ok(last);
            }
            window = window.saturating_mul(16);
        }
    }

    /// Reads stretches of a topic's partitions. Messages of one partition come in order.
    ///
    /// # Errors
    ///
    /// Those of `each`; `Transient` when nothing comes for a long time.
    pub(super) fn read(
        &self,
        topic: &str,
        stretches: &[Stretch],
        waited: &Waited,
        mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<()>,
    ) -> Result<()> {
        let what = || format!("topic `{topic}` cannot be read");
        let mut open: Vec<Stretch> = stretches.iter().copied().filter(|stretch| stretch.from < stretch.to).collect();
        let mut assignment = TopicPartitionList::new();
        for stretch in &open {
            let added = assignment.add_partition_offset(topic, stretch.partition, Offset::Offset(stretch.from));
            added.map_err(|error| sorted(&what(), &error))?;
        }
        self.consumer.assign(&assignment).map_err(|error| sorted(&what(), &error))?;
        let mut heard = Instant::now();
        while !open.is_empty() {
            waited.check()?;
            let ended = match self.consumer.poll(STEP) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let end = open.iter().find(|stretch| stretch.partition == message.partition()).map(|s| s.to);
                    if end.is_some_and(|end| message.offset() < end) {
                        each(&message)?;
                    }
                    end.is_none_or(|end| message.offset() + 1 >= end).then(|| message.partition())
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => Some(partition),
                Some(Err(error)) if code_of(&error).is_some_and(|code| !is_passing(code)) => {
                    return Err(self.failed(&what(), &error));
                }
                Some(Err(_)) | None => None,
            };
            if let Some(ended) = ended {
                open.retain(|stretch| stretch.partition != ended);
            }
            if heard.elapsed() > SILENCE {
                let silent = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
                return Err(self.failed(&what(), &silent));
            }
        }
        self.consumer.unassign().map_err(|error| sorted(&what(), &error))
    }

    fn unreachable(&self, error: &KafkaError) -> Error {
        self.failed(&format!("Kafka at `{}` cannot be reached", self.config.brokers), error)
    }

    fn failed(&self, what: &str, error: &KafkaError) -> Error {
        listen(&self.consumer);
        sorted_by(&self.ear, what, error, &self.config)
    }
}

fn consumer(settings: &ClientConfig, isolation: &str, ear: &Ear) -> Result<BaseConsumer<Ear>> {
    let mut settings = settings.clone();
    let consumer = settings.set("isolation.level", isolation).create_with_context(ear.clone());
    consumer.map_err(|error| sorted("the Kafka client cannot be made", &error))
}

/// Returns whether the client goes on by itself after this.
fn is_passing(code: RDKafkaErrorCode) -> bool {
    let passing = [
        RDKafkaErrorCode::BrokerTransportFailure,
        RDKafkaErrorCode::AllBrokersDown,
        RDKafkaErrorCode::OperationTimedOut,
        RDKafkaErrorCode::Resolve,
        RDKafkaErrorCode::NotLeaderForPartition,
        RDKafkaErrorCode::LeaderNotAvailable,
        RDKafkaErrorCode::CoordinatorNotAvailable,
        RDKafkaErrorCode::WaitingForCoordinator,
        RDKafkaErrorCode::GroupAuthorizationFailed,
    ];
    passing.contains(&code)
}

/// How long one question to the brokers may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How often work looks whether somebody still waits for it.
pub(super) const STEP: Duration = Duration::from_millis(100);
/// How often it is looked whether a transaction has ended.
const UNDECIDED: Duration = Duration::from_millis(10);
/// How long nothing may come of a partition that has more, and how long the end of a transaction may take.
const SILENCE: Duration = Duration::from_secs(30);
/// How many offsets from the end on are read first.
const WINDOW: i64 = 32;
