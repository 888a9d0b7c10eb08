//! The client library of Kafka, as far as whatever uses it has it in common: its settings, what it says by itself, what its
//! errors mean.
#![allow(clippy::wildcard_enum_match_arm, reason = "errors of the client that have a code mean what the code says")]

mod settings;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, ConsumerContext},
    error::KafkaError,
    types::RDKafkaErrorCode as Code,
};
use tracing::debug;

pub use settings::Settings;

use crate::config::Faults;

/// Keeps what the client meets by itself, a refused login say: what its calls return is often no more than that they failed.
#[derive(Debug, Default, Clone)]
pub struct Ear(Arc<Mutex<Option<(Code, String)>>>);

impl Ear {
    /// Takes what was met since the last time.
    pub fn heard(&self) -> Option<(Code, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Keeps what the client has met, and writes it into the log of debugging.
    pub fn hear(&self, error: &KafkaError, reason: &str) {
        debug!(target: "librdkafka", %error, "{reason}");
        // That all are down follows from why each is.
        if let Some(code) = code(error).filter(|code| *code != Code::AllBrokersDown) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((code, reason.to_owned()));
        }
    }
}

impl ClientContext for Ear {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(target: "librdkafka", facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.hear(&error, reason);
    }
}

impl ConsumerContext for Ear {}

/// Has an [`Ear`] hear what its client has met: the client tells whoever polls, and nobody else does for one that reads nothing.
pub fn listen(consumer: &BaseConsumer<Ear>) {
    for _ in 0..EVENTS {
        drop(consumer.poll(Duration::ZERO));
    }
}

/// Says which of the addresses of `brokers = "host:9092,…"` is none.
pub fn check_brokers(brokers: &str, faults: &mut Faults) {
    if let Some(wrong) = brokers.split(',').map(str::trim).find(|address| !is_address(address)) {
        faults.at("brokers", format!("`brokers` has `{wrong}`, which is no address: write \"host:9092\""));
    }
}

fn is_address(address: &str) -> bool {
    let host_and_port = address.rsplit_once("://").map_or(address, |(_, rest)| rest).rsplit_once(':');
    host_and_port.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Returns the code of an error.
pub fn code(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::Transaction(error) => Some(error.code()),
        other => other.rdkafka_error_code(),
    }
}

/// Returns what an error says, once.
pub fn error_text(error: &KafkaError) -> String {
    match error {
        KafkaError::Transaction(error) => error.string(),
        other => code(other).map_or_else(|| other.to_string(), |code| code.to_string()),
    }
}

/// Returns whether there is no such topic.
pub fn is_missing(code: Code) -> bool {
    [Code::UnknownTopicOrPartition, Code::UnknownTopic, Code::UnknownPartition].contains(&code)
}

/// Returns whether a person has to act before the same can go well.
pub fn needs_a_person(code: Code) -> bool {
    PERMANENT.contains(&code)
}

/// A person has to change a right, a login or a setting. Everything else may mend itself, also what only a new producer
/// mends: a sequence out of order, an unknown producer.
const PERMANENT: [Code; 16] = [
    Code::Authentication,
    Code::SaslAuthenticationFailed,
    Code::UnsupportedSASLMechanism,
    Code::IllegalSASLState,
    Code::TopicAuthorizationFailed,
    Code::GroupAuthorizationFailed,
    Code::ClusterAuthorizationFailed,
    Code::TransactionalIdAuthorizationFailed,
    Code::SecurityDisabled,
    Code::InvalidTopic,
    Code::InvalidConfig,
    Code::InvalidPartitions,
    Code::PolicyViolation,
    Code::InvalidTransactionTimeout,
    Code::UnsupportedForMessageFormat,
    Code::UnsupportedCompressionType,
];

/// How many events of a client are looked at.
const EVENTS: u32 = 16;
