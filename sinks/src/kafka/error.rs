//! What an error of Kafka means for the driver.
#![allow(clippy::wildcard_enum_match_arm, reason = "errors of the client that have a code mean what the code says")]

use rdkafka::{error::KafkaError, types::RDKafkaErrorCode as Code};
pub(super) use tidegate_core::librdkafka::{code, error_text, is_missing};
use tidegate_core::{Error, librdkafka::needs_a_person};

/// Sorts an error by what should happen next. One that blames a row does not come here.
pub(super) fn sorted(what: &str, error: &KafkaError) -> Error {
    match code(error) {
        Some(code) => sorted_code(what, code, &error_text(error)),
        // Settings that librdkafka did not take together: the message names no value, which may be a secret.
        None => match error {
            KafkaError::ClientConfig(_, _, name, _) => {
                Error::permanent(format!("{what}: librdkafka does not take `{name}`"))
            }
            KafkaError::ClientCreation(why) => Error::permanent(format!("{what}: {why}")),
            other => Error::transient(format!("{what}: {other}")),
        },
    }
}

/// Sorts a code of Kafka, or of its client.
pub(super) fn sorted_code(what: &str, code: Code, text: &str) -> Error {
    if is_fenced(code) {
        return fenced();
    }
    let text = format!("{what}: {text}");
    if needs_a_person(code) { Error::permanent(text) } else { Error::transient(text) }
}

/// The producer's epoch is an old one: another program has taken over, or a transaction took too long. `open` decides.
pub(super) fn fenced() -> Error {
    Error::transient("the transaction was ended by another program, or took too long: the position is looked at again")
}

/// Returns whether the same call is to be made again: what it began goes on meanwhile.
pub(super) fn is_to_repeat(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => {
            !error.is_fatal() && !error.txn_requires_abort() && (error.is_retriable() || is_timeout(error.code()))
        }
        other => code(other).is_some_and(is_timeout),
    }
}

/// Returns whether a newer producer has the transactional id.
pub(super) fn is_fenced(code: Code) -> bool {
    [Code::Fenced, Code::ProducerFenced, Code::InvalidProducerEpoch].contains(&code)
}

/// Returns whether a message can never be stored; which of a batch is not said.
pub(super) fn blames_a_row(code: Code) -> bool {
    let blaming = [
        Code::MessageSizeTooLarge,
        Code::MessageBatchTooLarge,
        Code::InvalidMessageSize,
        Code::InvalidTimestamp,
        Code::InvalidRecord,
    ];
    blaming.contains(&code)
}

fn is_timeout(code: Code) -> bool {
    [Code::OperationTimedOut, Code::RequestTimedOut, Code::TimedOutQueue].contains(&code)
}
