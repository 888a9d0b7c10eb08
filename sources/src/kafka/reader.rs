//! Reads one partition into a window, on a thread of its own, until the window is closed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers},
    types::RDKafkaErrorCode as Code,
};
use tidegate_core::{
    Error, Result,
    librdkafka::{Ear, Settings, code, needs_a_person},
};
use tracing::warn;

use super::{
    client::{Monitor, STEP, broker_of, sorted},
    decode::Incoming,
    window::{Order, Window},
};

/// What reads a partition.
pub(super) struct Reader {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) window: Arc<Window>,
    pub(super) monitor: Arc<Monitor>,
    pub(super) settings: ClientConfig,
    pub(super) secrets: Settings,
}

impl Reader {
    /// Reads until the window is closed. Blocks.
    pub(super) fn run(self) {
        let (mut consumer, mut ahead_since) = (None, None);
        loop {
            match self.window.order() {
                Order::End => return,
                Order::Wait => {}
                Order::Begin(at) => match self.begin(at, &mut ahead_since) {
                    Ok(begun) => consumer = begun,
                    Err(error) => {
                        consumer = None;
                        self.window.trouble(error.chain());
                        pause();
                    }
                },
                Order::Read => match &consumer {
                    Some(consumer) => self.read(consumer),
                    // Nobody has said where.
                    None => self.window.begin_anew(),
                },
            }
        }
    }

    /// Makes a client that begins at an offset. A new one each time: of an old one, messages from elsewhere may be under way.
    /// None where the partition ends before that offset for good.
    fn begin(&self, at: i64, ahead_since: &mut Option<(i64, Instant)>) -> Result<Option<BaseConsumer<Ear>>> {
        let what = || format!("partition {} of topic `{}`", self.partition, self.topic);
        // Only what is said again and again counts.
        let was_ahead = ahead_since.take().filter(|(before, _)| *before == at);
        let (low, high) = self.monitor.watermarks(&self.topic, self.partition)?;
        if at > high {
            let (_, since) = *ahead_since.insert(was_ahead.unwrap_or_else(|| (at, Instant::now())));
            if since.elapsed() > AHEAD_FOR {
                self.window.has_ended_before(at, high);
                return Ok(None);
            }
            return Err(Error::transient(format!("it ends before offset {high}, and {at} was to be read next")));
        }
        let made = self.settings.create_with_context(Ear::default());
        let consumer: BaseConsumer<Ear> = made.map_err(|error| sorted(&what(), &error))?;
        let mut assignment = TopicPartitionList::new();
        let from = Offset::Offset(at.max(low));
        let assigned = assignment.add_partition_offset(&self.topic, self.partition, from);
        assigned.and_then(|()| consumer.assign(&assignment)).map_err(|error| sorted(&what(), &error))?;
        self.window.begun(at, low);
        Ok(Some(consumer))
    }

    fn read(&self, consumer: &BaseConsumer<Ear>) {
        match consumer.poll(STEP) {
            None => {}
            Some(Ok(message)) => self.window.push(broker_of(&message), self.incoming(&message)),
            Some(Err(KafkaError::PartitionEOF(_))) => {
                let asks = self.window.has_had_more();
                let high = asks.then(|| self.monitor.watermarks(&self.topic, self.partition).ok()).flatten();
                if !self.window.at_end(high.map(|(_, high)| high)) {
                    pause();
                }
            }
            Some(Err(error)) => self.failed(&error),
        }
    }

    fn incoming<'a>(&'a self, message: &'a BorrowedMessage<'_>) -> Incoming<'a> {
        let schema = message.headers().and_then(|headers| headers.iter().find(|header| header.key == "tg_schema"));
        Incoming {
            place: (&self.topic, self.partition, message.offset()),
            key: message.key(),
            value: message.payload(),
            schema: schema.and_then(|header| header.value),
            time: message.timestamp().to_millis(),
        }
    }

    fn failed(&self, error: &KafkaError) {
        let Some(code) = code(error) else { return };
        let text = self.secrets.hide_in(&error.to_string());
        if GONE.contains(&code) {
            warn!(topic = self.topic, partition = self.partition, "what was to be read next is gone: {text}");
            match self.monitor.watermarks(&self.topic, self.partition) {
                Ok((low, high)) => self.window.is_gone(low, high),
                // The client stands still, and says so once.
                Err(error) => {
                    self.window.begin_anew();
                    self.window.trouble(error.chain());
                }
            }
        } else if DAMAGED.contains(&code) {
            self.window.damaged(&text);
        } else if needs_a_person(code) || !PASSING.contains(&code) {
            self.window.trouble(text);
        }
    }
}

/// Makes an error of what the reader is in trouble with.
pub(super) fn trouble(partition: &str, what: &str) -> Error {
    Error::transient(format!("{partition} cannot be read: {what}"))
}

#[allow(clippy::disallowed_methods, reason = "on a thread that may block")]
fn pause() {
    std::thread::sleep(PAUSE);
}

/// The offset is not there: the oldest messages were deleted, or the newest are lost.
const GONE: [Code; 2] = [Code::AutoOffsetReset, Code::OffsetOutOfRange];

/// The client gives no message for these, and would go on behind it.
const DAMAGED: [Code; 7] = [
    Code::BadMessage,
    Code::BadCompression,
    Code::InvalidMessage,
    Code::InvalidMessageSize,
    Code::Underflow,
    Code::NotImplemented,
    Code::UnsupportedCompressionType,
];

/// The client goes on by itself after these.
const PASSING: [Code; 5] = [
    Code::BrokerTransportFailure,
    Code::AllBrokersDown,
    Code::OperationTimedOut,
    Code::NotLeaderForPartition,
    Code::LeaderNotAvailable,
];

/// How long a broker may lack what was read before, as one that has just become the leader does.
const AHEAD_FOR: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(500);
