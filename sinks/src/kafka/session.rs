//! One transactional producer, from its making to its end, and the transactions that it makes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, KafkaResult},
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
    types::RDKafkaErrorCode as Code,
};
use tidegate_core::{
    Error, Result,
    chunk::{Chunk, SinkTable},
    librdkafka::Ear,
    row::Timestamp,
    sink::{Owner, Refusal, Written},
};

use super::{
    KafkaConfig,
    client::{STEP, base, sorted_by},
    encode::{Common, Encoder, Messages, OVERHEAD},
    error::{blames_a_row, error_text, fenced, is_fenced, is_to_repeat, sorted, sorted_code},
    position::{self, Held},
    waited::Waited,
};

/// What came of the messages of a transaction so far.
#[derive(Debug, Default)]
struct Progress {
    sent: u64,
    done: u64,
    /// The messages that did not arrive, by number, and why.
    failed: Vec<(usize, Code)>,
}

/// Counts what the client reports: a future for each message would cost more than the message.
#[derive(Debug, Default, Clone)]
pub(super) struct Deliveries {
    progress: Arc<(Mutex<Progress>, Condvar)>,
    ear: Ear,
}

/// A producer that has the transactional id.
pub(super) struct Producer {
    producer: ThreadedProducer<Deliveries>,
    deliveries: Deliveries,
    config: KafkaConfig,
}

/// Which messages a producer puts into one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Batches {
    /// As many as there are.
    Full,
    /// Each its own: then the broker blames one message, and not its neighbours.
    OfOne,
}

/// Everything that is open between two openings of the sink.
pub(super) struct Session {
    config: KafkaConfig,
    owner: Owner,
    limits: BTreeMap<String, usize>,
    producer: Producer,
    encoder: Encoder,
    /// The record that was committed last.
    pub(super) held: Held,
    topic: String,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.ear.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.ear.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivered: &DeliveryResult<'_>, number: usize) {
        let mut progress = self.lock();
        progress.done += 1;
        if let Err((error, _)) = delivered {
            progress.failed.push((number, error.rdkafka_error_code().unwrap_or(Code::Fail)));
        }
        if progress.done == progress.sent || !progress.failed.is_empty() {
            self.progress.1.notify_all();
        }
    }
}

impl Deliveries {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all that was sent has arrived, or the first have failed, and returns these: behind them the client sends
    /// nothing more of this transaction.
    fn settle(&self, waited: &Waited) -> Result<Vec<(usize, Code)>> {
        let mut progress = self.lock();
        while progress.done < progress.sent && progress.failed.is_empty() {
            waited.check()?;
            progress = self.progress.1.wait_timeout(progress, STEP).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(std::mem::take(&mut progress.failed))
    }
}

impl Producer {
    /// Makes a producer and takes the transactional id: an older producer is fenced, and what it left open is settled.
    fn new(
        config: &KafkaConfig,
        owner: &Owner,
        limits: &BTreeMap<String, usize>,
        batches: Batches,
        waited: &Waited,
    ) -> Result<Self> {
        let mut settings = base(config, owner)?;
        let largest = limits.values().copied().max().unwrap_or(DEFAULT_LIMIT);
        let smallest = limits.values().copied().min().unwrap_or(DEFAULT_LIMIT);
        let mut unless_set = |name: &str, value: String| {
            if config.rdkafka.plain(name).is_none() {
                settings.set(name, value);
            }
        };
        unless_set("message.max.bytes", largest.to_string());
        unless_set("batch.size", smallest.clamp(1_000, BATCH).to_string());
        unless_set("queue.buffering.max.kbytes", "262144".to_owned());
        unless_set("queue.buffering.max.messages", "1000000".to_owned());
        // As the Java clients do: one symbol is in one partition whoever writes it.
        unless_set("partitioner", "murmur2_random".to_owned());
        if batches == Batches::OfOne {
            settings.set("batch.num.messages", "1");
        }
        settings
            .set("transactional.id", format!("tidegate/{}/{}", owner.pipeline, owner.sink))
            .set("transaction.timeout.ms", config.transaction_timeout.0.as_millis().to_string())
            .set("compression.type", config.compression.name())
            .set("linger.ms", config.linger.0.as_millis().to_string());
        let deliveries = Deliveries::default();
        let producer: KafkaResult<ThreadedProducer<Deliveries>> = settings.create_with_context(deliveries.clone());
        let producer = producer.map_err(|error| sorted("the Kafka producer cannot be made", &error))?;
        let producer = Self { producer, deliveries, config: config.clone() };
        // The client looks for its coordinator at once where a broker is connected, and else half a second later. Whether this
        // works is told by what follows.
        drop(producer.producer.client().fetch_metadata(Some(&position::topic(owner)), CONNECT));
        producer.repeat("the transactional id cannot be taken", waited, |producer| {
            producer.init_transactions(STEP.max(Duration::from_secs(1)))
        })?;
        Ok(producer)
    }

    /// Makes a call again until it is done: it only waits for what goes on anyway.
    fn repeat(
        &self,
        what: &str,
        waited: &Waited,
        call: impl Fn(&ThreadedProducer<Deliveries>) -> KafkaResult<()>,
    ) -> Result<()> {
        loop {
            match call(&self.producer) {
                Ok(()) => return Ok(()),
                Err(error) if is_to_repeat(&error) => {
                    waited.check().map_err(|_| self.failed(what, &error))?;
                }
                Err(error) => return Err(self.failed(what, &error)),
            }
        }
    }

    fn begin(&self) -> Result<()> {
        *self.deliveries.lock() = Progress::default();
        self.producer.begin_transaction().map_err(|error| self.failed("no transaction can begin", &error))
    }

    /// Sends a message of the transaction. One that is not taken counts as failed.
    fn send(&self, mut record: BaseRecord<'_, [u8], [u8], usize>, waited: &Waited) -> Result<()> {
        self.deliveries.lock().sent += 1;
        let number = record.delivery_opaque;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) => {
                    record = back;
                    waited.pause(FULL)?;
                }
                Err((error, _)) => {
                    let mut progress = self.deliveries.lock();
                    progress.done += 1;
                    progress.failed.push((number, error.rdkafka_error_code().unwrap_or(Code::Fail)));
                    return Ok(());
                }
            }
        }
    }

    /// Waits until the client has nothing more under way: its own waiting sleeps for 100 ms at a time.
    fn drain(&self, waited: &Waited) -> Result<()> {
        while self.producer.in_flight_count() > 0 {
            waited.pause(Duration::from_micros(50))?;
        }
        Ok(())
    }

    /// Commits. A commit that is not answered in time is asked for again, never aborted: it may have happened.
    fn commit(&self, waited: &Waited) -> Result<()> {
        self.drain(waited)?;
        self.repeat("the commit failed", waited, |producer| producer.commit_transaction(Duration::from_secs(1)))
    }

    /// Aborts, so that readers need not wait for the transaction's end by itself.
    fn abort(&self, waited: &Waited) -> Result<()> {
        let until = Instant::now() + ABORT;
        self.repeat("the transaction cannot be aborted", waited, |producer| {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(KafkaError::MessageProduction(Code::State));
            }
            producer.abort_transaction(left.min(Duration::from_secs(1)))
        })?;
        // What was purged is reported, too, and none of the next transaction's.
        self.drain(waited)
    }

    fn failed(&self, what: &str, error: &KafkaError) -> Error {
        match self.producer.client().fatal_error() {
            Some((code, _)) if is_fenced(code) => fenced(),
            Some((code, text)) => sorted_code(what, code, &self.config.rdkafka.hide_in(&text)),
            None => sorted_by(&self.deliveries.ear, what, error, &self.config),
        }
    }
}

impl Session {
    /// Takes the transactional id. The position is to be read behind this.
    pub(super) fn begin(
        config: &KafkaConfig,
        owner: &Owner,
        tables: &[SinkTable],
        limits: BTreeMap<String, usize>,
        waited: &Waited,
    ) -> Result<Self> {
        let producer = Producer::new(config, owner, &limits, Batches::Full, waited)?;
        let client = config.rdkafka.plain("message.max.bytes").and_then(|bytes| bytes.parse().ok());
        let limit_of = |table: &SinkTable| {
            let of_topic = limits.get(&table.name).copied().unwrap_or(DEFAULT_LIMIT);
            of_topic.min(client.unwrap_or(usize::MAX))
        };
        let of_tables: Vec<usize> = tables.iter().map(limit_of).collect();
        let encoder = Encoder::new(owner, config.key.clone(), config.format, tables, &of_tables);
        let held = Held::taken(owner, None, &[], 0);
        let (config, owner, topic) = (config.clone(), owner.clone(), position::topic(owner));
        Ok(Self { config, owner, limits, producer, encoder, held, topic })
    }

    /// Commits a record of the position, and nothing else.
    pub(super) fn take(&mut self, held: Held, waited: &Waited) -> Result<()> {
        self.producer.begin()?;
        self.send_position(&held, 0, waited)?;
        let mut failed = self.producer.deliveries.settle(waited)?;
        if !failed.is_empty() {
            drop(self.abort(&mut failed, waited));
        }
        self.finish(&failed, waited)?;
        self.held = held;
        Ok(())
    }

    /// Commits rows and position, or nothing. An error ends the session.
    pub(super) fn write(&mut self, chunk: &Chunk, waited: &Waited) -> Result<Written> {
        if chunk.from != self.held.position(&chunk.part) {
            return Err(Error::transient("the position in the store is not where it was left: it is looked at again"));
        }
        let common = Common::of_all(chunk)?;
        let messages = self.encoder.encode(chunk, &common)?;
        let refused = self.encoder.too_large(chunk, &messages);
        if !refused.is_empty() {
            return Ok(Written::Refused(refused));
        }
        let moved = self.held.moved(&chunk.part, chunk.to);
        self.producer.begin()?;
        let mut failed = self.send(chunk, &common, &messages, &[], Some(&moved), waited)?;
        let aborted = if failed.is_empty() { Ok(()) } else { self.abort(&mut failed, waited) };
        if failed.iter().any(|(_, code)| blames_a_row(*code)) {
            aborted?;
            let recent = Timestamp::now().0 / 1_000_000 - RECENT;
            let is_recent = |n: &usize| messages.time(*n).is_some_and(|time| time > recent);
            if failed.iter().any(|(n, code)| *code == Code::InvalidTimestamp && is_recent(n)) {
                return Err(Error::transient(
                    "the broker refuses the time of a row that has just come: the clocks of this host and the broker differ, \
                     or the topic takes too little (`message.timestamp.before.max.ms`, `…after.max.ms`)",
                ));
            }
            let refused = self.blamed(chunk, &common, &messages, waited)?;
            return Ok(Written::Refused(refused));
        }
        self.finish(&failed, waited)?;
        self.held = moved;
        Ok(Written::Committed)
    }

    /// Aborts, and adds all that has failed: with the first that fails the client lets go of what is still in its queue, and
    /// may report that before the reason. The next opening aborts as well: where this fails, readers wait longer.
    fn abort(&self, failed: &mut Vec<(usize, Code)>, waited: &Waited) -> Result<()> {
        let aborted = self.producer.abort(waited);
        failed.append(&mut self.producer.deliveries.lock().failed);
        aborted
    }

    /// Commits what was sent, if all of it arrived.
    fn finish(&self, failed: &[(usize, Code)], waited: &Waited) -> Result<()> {
        let Some((_, first)) = failed.first() else { return self.producer.commit(waited) };
        let mut codes = failed.iter().map(|(_, code)| code);
        let worst =
            codes.clone().find(|code| is_fenced(**code)).or_else(|| codes.find(|code| **code != Code::PurgeQueue));
        Err(self.producer.failed("a message failed", &KafkaError::MessageProduction(*worst.unwrap_or(first))))
    }

    /// Sends the messages but for those left out, and the position; returns those that failed.
    fn send(
        &self,
        chunk: &Chunk,
        common: &[Common<'_>],
        messages: &Messages,
        left_out: &[usize],
        moved: Option<&Held>,
        waited: &Waited,
    ) -> Result<Vec<(usize, Code)>> {
        for n in (0..messages.len()).filter(|n| !left_out.contains(n)) {
            let outgoing = self.encoder.outgoing(chunk, common, messages, n);
            let record = BaseRecord::with_opaque_to(outgoing.topic, n)
                .key(outgoing.key)
                .payload(outgoing.value)
                .headers(outgoing.headers)
                .timestamp(outgoing.timestamp);
            self.producer.send(record, waited)?;
            if n % LOOK == 0 {
                waited.check()?;
            }
        }
        if let Some(moved) = moved {
            self.send_position(moved, messages.len(), waited)?;
        }
        self.producer.deliveries.settle(waited)
    }

    fn send_position(&self, held: &Held, number: usize, waited: &Waited) -> Result<()> {
        let value = held.value();
        let record = BaseRecord::with_opaque_to(&self.topic, number).key(KEY).payload(value.as_slice()).partition(0);
        self.producer.send(record, waited)
    }

    /// Finds the rows that the broker never takes, by sending each message in a batch of its own, in transactions that are
    /// aborted. Behind a message that failed nothing more is sent, so there is a round for each, about.
    fn blamed(
        &mut self,
        chunk: &Chunk,
        common: &[Common<'_>],
        messages: &Messages,
        waited: &Waited,
    ) -> Result<Vec<Refusal>> {
        let until = Instant::now() + SEARCH;
        self.producer = Producer::new(&self.config, &self.owner, &self.limits, Batches::OfOne, waited)?;
        let (mut left_out, mut refused) = (Vec::new(), Vec::new());
        loop {
            self.producer.begin()?;
            let mut failed = self.send(chunk, common, messages, &left_out, None, waited)?;
            self.abort(&mut failed, waited)?;
            let mut found = failed.iter().filter(|(_, code)| blames_a_row(*code)).peekable();
            if found.peek().is_none() {
                match failed.first() {
                    Some((_, code)) => {
                        let error = KafkaError::MessageProduction(*code);
                        return Err(self.producer.failed("a message failed", &error));
                    }
                    None => break,
                }
            }
            for (n, code) in found {
                left_out.push(*n);
                refused.extend(messages.refusals(chunk, *n, || {
                    let why = error_text(&KafkaError::MessageProduction(*code));
                    Error::malformed(format!("the broker does not take the message: {why}"))
                }));
            }
            // The others are found when the chunk comes again without these.
            if Instant::now() > until {
                break;
            }
        }
        if refused.is_empty() {
            return Err(Error::transient("a message was refused, and taken when it was sent alone"));
        }
        self.producer = Producer::new(&self.config, &self.owner, &self.limits, Batches::Full, waited)?;
        refused.sort_by_key(|refusal| refusal.cause);
        Ok(refused)
    }

    /// Fails where the producer has met something that it does not come back from.
    pub(super) fn check(&self) -> Result<()> {
        match self.producer.producer.client().fatal_error() {
            Some((code, text)) => Err(sorted_code("the producer is broken", code, &text)),
            None => Ok(()),
        }
    }
}

/// The key of all records of a position: compaction keeps the last.
const KEY: &[u8] = b"position";
/// What a message may have where the brokers do not tell: their own default is a little more.
const DEFAULT_LIMIT: usize = 1_000_000;
/// The size of a batch.
const BATCH: usize = 1_000_000;
/// A pause while the client's queue is full.
const FULL: Duration = Duration::from_millis(1);
/// How long the first connection of a producer is waited for.
const CONNECT: Duration = Duration::from_secs(1);
/// How long aborting may take.
const ABORT: Duration = Duration::from_secs(5);
/// A row that came within so many milliseconds is not too old for any topic.
const RECENT: i64 = 60 * 60 * 1_000;
/// How long rows are sought that the broker refuses.
const SEARCH: Duration = Duration::from_secs(10);
/// After how many messages it is looked whether somebody still waits.
const LOOK: usize = 1_024;
const _: () = assert!(DEFAULT_LIMIT > OVERHEAD);
