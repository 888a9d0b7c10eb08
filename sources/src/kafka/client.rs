//! The clients: one that asks the brokers, what all have in common, and the id of a topic, for which the binding has no call.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString},
    ptr,
    time::Duration,
};

use rdkafka::{
    ClientConfig, bindings as native,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::BorrowedMessage,
};
use tidegate_core::{
    Error, Result,
    librdkafka::{Ear, code, error_text, is_missing, listen, needs_a_person},
    spool::Boot,
};

use super::{
    KafkaConfig,
    window::{ANY_BROKER, Found},
};

/// Asks the brokers; a member of nothing. All of it blocks.
pub(super) struct Monitor {
    consumer: BaseConsumer<Ear>,
    ear: Ear,
    config: KafkaConfig,
}

/// Returns what all clients have in common.
///
/// # Errors
///
/// `Config` when the file of a secret cannot be read.
pub(super) fn base(config: &KafkaConfig, pipeline: &str) -> Result<ClientConfig> {
    let mut base = ClientConfig::new();
    base.set_log_level(RDKafkaLogLevel::Warning)
        .set("client.id", format!("tidegate-{pipeline}"))
        .set("socket.keepalive.enable", "true")
        // New topics and partitions are found this soon.
        .set("topic.metadata.refresh.interval.ms", "30000");
    config.rdkafka.apply(&mut base)?;
    base.set("bootstrap.servers", &config.brokers)
        .set("allow.auto.create.topics", "false")
        .set("group.id", config.group(pipeline))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        .set("isolation.level", "read_committed");
    Ok(base)
}

impl Monitor {
    pub(super) fn new(config: &KafkaConfig, pipeline: &str) -> Result<Self> {
        let ear = Ear::default();
        let consumer: BaseConsumer<Ear> = base(config, pipeline)?
            .create_with_context(ear.clone())
            .map_err(|error| sorted("the Kafka client cannot be made", &error))?;
        Ok(Self { consumer, ear, config: config.clone() })
    }

    /// Returns a hash of the cluster's id.
    ///
    /// # Errors
    ///
    /// `Transient` when no broker answers. `Permanent` when the login is refused.
    pub(super) fn cluster(&self) -> Result<u64> {
        self.forget();
        let id = self.consumer.client().fetch_cluster_id(PATIENCE);
        id.map(|id| hash(&[id.as_bytes()])).ok_or_else(|| {
            let what = format!("the brokers `{}` cannot be reached", self.config.brokers);
            self.heard(&what).unwrap_or_else(|| Error::transient(format!("{what}: none answers")))
        })
    }

    /// Returns how many partitions each topic has; `None` for one that is not there.
    pub(super) fn partitions(&self) -> Result<Vec<(String, Option<usize>)>> {
        self.forget();
        let mut found = Vec::new();
        for topic in &self.config.topics {
            let metadata =
                self.consumer.fetch_metadata(Some(topic), PATIENCE).map_err(|error| self.failed(topic, &error))?;
            let of_topic = metadata.topics().iter().find(|found| found.name() == topic);
            let partitions =
                match of_topic.map(|found| (found.error().map(rdkafka::types::RDKafkaErrorCode::from), found)) {
                    Some((None, found)) => Some(found.partitions().len()),
                    Some((Some(code), _)) if !is_missing(code) => {
                        return Err(Error::transient(format!("topic `{topic}`: {code}")));
                    }
                    Some(_) | None => None,
                };
            found.push((topic.clone(), partitions));
        }
        Ok(found)
    }

    /// Returns what a partition has.
    ///
    /// # Errors
    ///
    /// `Transient` when no broker answers, or there is no such topic.
    pub(super) fn find(&self, topic: &str, partition: i32) -> Result<Found> {
        let ids = self.topic_ids(ANY_BROKER, &[topic])?;
        let Some(id) = ids.get(topic) else {
            return Err(Error::transient(format!("topic `{topic}` is not there")));
        };
        let (low, high) = self.watermarks(topic, partition)?;
        Ok(Found { boot: boot(*id, topic, partition), low, high })
    }

    /// Returns the oldest offset of a partition, and the one behind the newest message that is decided.
    pub(super) fn watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64)> {
        self.forget();
        self.consumer.fetch_watermarks(topic, partition, PATIENCE).map_err(|error| self.failed(topic, &error))
    }

    /// Returns the ids of those topics that are there: random numbers that the cluster gives a topic when it is made. 0 for
    /// all of a cluster from before Kafka 2.8, which has none.
    ///
    /// # Errors
    ///
    /// `Transient` when that broker does not answer.
    pub(super) fn topic_ids(&self, broker: i32, topics: &[&str]) -> Result<BTreeMap<String, u128>> {
        topic_ids(&self.consumer, broker, topics)
    }

    /// Makes an error of what the client has met by itself since the last time; without secrets.
    fn heard(&self, what: &str) -> Option<Error> {
        listen(&self.consumer);
        let (code, reason) = self.ear.heard()?;
        let text = format!("{what}: {}", self.config.rdkafka.hide_in(&reason));
        Some(if needs_a_person(code) { Error::permanent(text) } else { Error::transient(text) })
    }

    /// Forgets what the client has met: what a question that follows comes to has another reason.
    fn forget(&self) {
        listen(&self.consumer);
        drop(self.ear.heard());
    }

    fn failed(&self, topic: &str, error: &KafkaError) -> Error {
        let what = format!("topic `{topic}` cannot be asked");
        self.heard(&what).unwrap_or_else(|| sorted(&what, error))
    }
}

/// Sorts an error by what should happen next.
pub(super) fn sorted(what: &str, error: &KafkaError) -> Error {
    let text = format!("{what}: {}", error_text(error));
    match (code(error), error) {
        (Some(code), _) if needs_a_person(code) => Error::permanent(text),
        // Settings that librdkafka did not take together: the message names no value, which may be a secret.
        (None, KafkaError::ClientConfig(_, _, name, _)) => {
            Error::permanent(format!("{what}: librdkafka does not take `{name}`"))
        }
        (None, KafkaError::ClientCreation(why)) => Error::permanent(format!("{what}: {why}")),
        (Some(_) | None, _) => Error::transient(text),
    }
}

/// Returns what tells a partition's history from others.
pub(super) fn boot(topic_id: u128, topic: &str, partition: i32) -> Boot {
    let number = partition.to_le_bytes();
    let hash = match topic_id {
        0 => hash(&[topic.as_bytes(), &number]),
        id => hash(&[&id.to_le_bytes(), &number]),
    };
    Boot(hash.max(1))
}

/// FNV-1a: it is stored, so it has to be one that never changes.
fn hash(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter().copied().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Asks for the ids of topics by the admin call `DescribeTopics` (`rdkafka.h`): the binding has none for it.
#[allow(unsafe_code, reason = "calls of librdkafka's C interface that its binding does not wrap")]
fn topic_ids(consumer: &BaseConsumer<Ear>, broker: i32, topics: &[&str]) -> Result<BTreeMap<String, u128>> {
    let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(*topic).ok()).collect();
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let millis = i32::try_from(PATIENCE.as_millis()).unwrap_or(i32::MAX);
    let rk = consumer.client().native_ptr();
    // SAFETY: `rk` lives as long as `consumer`, the names as long as `names`; what is made here is destroyed here, and nothing
    // of the event is used once it is destroyed.
    unsafe {
        let collection = native::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let kind = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = native::rd_kafka_AdminOptions_new(rk, kind);
        native::rd_kafka_AdminOptions_set_request_timeout(options, millis, ptr::null_mut(), 0);
        if broker != ANY_BROKER {
            native::rd_kafka_AdminOptions_set_broker(options, broker, ptr::null_mut(), 0);
        }
        let queue = native::rd_kafka_queue_new(rk);
        native::rd_kafka_DescribeTopics(rk, collection, options, queue);
        let event = native::rd_kafka_queue_poll(queue, millis.saturating_add(1_000));
        let found = if event.is_null() { None } else { Some(described(event)) };
        if !event.is_null() {
            native::rd_kafka_event_destroy(event);
        }
        native::rd_kafka_queue_destroy(queue);
        native::rd_kafka_AdminOptions_destroy(options);
        native::rd_kafka_TopicCollection_destroy(collection);
        let late = || Error::transient("the brokers do not say which topics there are");
        found.ok_or_else(late)?.ok_or_else(late)
    }
}

/// Returns the broker that gave a message.
#[allow(unsafe_code, reason = "as for `topic_ids`")]
pub(super) fn broker_of(message: &BorrowedMessage<'_>) -> i32 {
    // SAFETY: the message lives as long as it is borrowed.
    unsafe { native::rd_kafka_message_broker_id(message.ptr()) }
}

/// Reads the answer; `None` where it is an error, or another answer.
///
/// # Safety
///
/// `event` is one of librdkafka's that is not destroyed yet.
#[allow(unsafe_code, reason = "as its caller")]
unsafe fn described(event: *mut native::rd_kafka_event_t) -> Option<BTreeMap<String, u128>> {
    // SAFETY: as the caller promises; pointers that come back belong to the event.
    unsafe {
        let result = native::rd_kafka_event_DescribeTopics_result(event);
        let is_error = native::rd_kafka_event_error(event) != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        if result.is_null() || is_error {
            return None;
        }
        let mut count = 0;
        let topics = native::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        let mut found = BTreeMap::new();
        for number in 0..count {
            let topic = *topics.add(number);
            let error = native::rd_kafka_TopicDescription_error(topic);
            let no_error = native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
            if !error.is_null() && native::rd_kafka_error_code(error) != no_error {
                continue;
            }
            let name = CStr::from_ptr(native::rd_kafka_TopicDescription_name(topic)).to_string_lossy().into_owned();
            let id = native::rd_kafka_TopicDescription_topic_id(topic);
            let high = native::rd_kafka_Uuid_most_significant_bits(id).cast_unsigned();
            let low = native::rd_kafka_Uuid_least_significant_bits(id).cast_unsigned();
            found.insert(name, u128::from(high) << 64 | u128::from(low));
        }
        Some(found)
    }
}

/// How long one question to the brokers may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How often work looks whether somebody still waits for it.
pub(super) const STEP: Duration = Duration::from_millis(100);
