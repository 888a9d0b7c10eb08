//! The tokio shell around [`Machine`]: calls the sink, reads the log, keeps the files, and tells what happened.

use std::{collections::HashSet, path::PathBuf, time::Duration};

use tokio::{sync::watch, time::Instant};
use tracing::warn;

use super::{
    event::{Do, Event},
    feeder::{Bounds, Feeder, Read},
    guard::{Guard, blocking},
    known::Known,
    log::Log,
    machine::Machine,
    opening::{Opening, compare},
    report::Reporter,
    setup::{Floor, Outcome, Setup, settings},
};
use crate::{
    Error, Result,
    catalog::Factory,
    chunk::{Chunk, Part, TableRows},
    config::{DeliveryConfig, Start},
    deadletter::{DeadLetter, DeadLetters},
    row::Timestamp,
    sink::{Guarantee, Owner, Refusal, Sink, SinkContext, Written},
    spool::SpoolPosition,
};

/// The delivery driver of one sink.
pub struct Delivery<L> {
    pipeline: String,
    name: String,
    factory: Factory<Box<dyn Sink>>,
    sink: Option<Box<dyn Sink>>,
    /// Set when the sink panicked: its state may be anything.
    is_broken: bool,
    config: DeliveryConfig,
    owner: (u64, String),
    /// The sink's own directory: dead letters, and what the sink keeps there.
    directory: PathBuf,
    feeder: Feeder<L>,
    machine: Machine,
    known: Option<Known>,
    letters: Option<DeadLetters>,
    /// The rows of the range in hand.
    rows: Vec<TableRows>,
    refusals: Vec<Refusal>,
    synced: watch::Receiver<SpoolPosition>,
    stop: watch::Receiver<Option<Instant>>,
    floor: watch::Sender<Floor>,
    remembered_at: Option<Instant>,
    reporter: Reporter,
}

impl<L: Log> Delivery<L> {
    /// Prepares a delivery, and returns it with what it says about the log's floor. Does not touch the store.
    ///
    /// # Errors
    ///
    /// `Config` when the tables of two sources do not fit under one name. `Permanent` when the sink's files beside the
    /// spool cannot be used.
    pub fn new(setup: Setup<L>) -> Result<(Self, watch::Receiver<Floor>)> {
        let Setup { pipeline, sink: name, config, .. } = setup;
        let directory = setup.directory.join(&name);
        std::fs::create_dir_all(&directory).map_err(|error| {
            Error::permanent(format!("cannot make the directory `{}`", directory.display())).because(error)
        })?;
        let known = Known::open(setup.directory.join(format!("{name}.json")))?;
        let bounds = Bounds {
            rows: config.batch.rows.get(),
            bytes: usize::try_from(config.batch.bytes.0).unwrap_or(usize::MAX).max(1),
        };
        let feeder = Feeder::new(setup.log, &name, &pipeline, setup.sources, setup.tables, bounds)?;
        let machine = Machine::new(settings(&config, &pipeline, &name));
        let floor = Floor { committed: None, replay_from: known.position() };
        let (floor, floors) = watch::channel(floor);
        // An idle range waits for ten seconds, rows for the linger; then a write may take all its time, and be tried again.
        let overdue_after = config.batch.linger.0 + 3 * config.timeout.0;
        let reporter = Reporter::new(&setup.health, &pipeline, &name, overdue_after);
        let delivery = Self {
            pipeline,
            name,
            factory: setup.factory,
            sink: None,
            is_broken: false,
            config,
            owner: (setup.spool, setup.host),
            directory,
            feeder,
            machine,
            known: Some(known),
            letters: None,
            rows: Vec::new(),
            refusals: Vec::new(),
            synced: setup.synced,
            stop: setup.stop,
            floor,
            remembered_at: None,
            reporter,
        };
        Ok((delivery, floors))
    }

    /// Delivers until the pipeline stops or a person is needed.
    ///
    /// # Cancel safety
    ///
    /// Dropping it is like a crash: the next start settles what is in doubt.
    pub async fn run(mut self) -> Outcome {
        self.drive().await;
        self.end().await
    }

    /// Runs like [`run`](Self::run); a store that needs a person is left alone until the pipeline stops, so that the rows
    /// that stay in the spool are all of them.
    pub async fn run_to_the_stop(mut self) -> Outcome {
        self.drive().await;
        self.sink = None;
        while self.stop.borrow_and_update().is_none() && self.stop.changed().await.is_ok() {}
        self.end().await
    }

    async fn drive(&mut self) {
        loop {
            let now = Instant::now();
            self.look_around(now);
            let next = self.machine.next(now);
            if next == Do::End {
                break;
            }
            if let Some(event) = self.carry_out(next).await {
                self.conclude(event).await;
            }
        }
    }

    /// Takes note of what the log and the pipeline say.
    fn look_around(&mut self, now: Instant) {
        let synced = self.synced.borrow_and_update().offset;
        self.machine.on(now, Event::Synced(synced));
        if let Some(deadline) = *self.stop.borrow_and_update() {
            self.machine.on(now, Event::Stop(deadline));
        }
        self.reporter.look(&self.machine, now);
    }

    async fn wait(&mut self, until: Option<Instant>) {
        let alarm = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let (synced, stop) = (&mut self.synced, &mut self.stop);
        tokio::select! {
            () = alarm => {}
            () = changed(synced) => {}
            () = stopped(stop, &mut self.machine) => {}
        }
    }

    async fn carry_out(&mut self, next: Do) -> Option<Event> {
        Some(match next {
            Do::Open => self.open().await.unwrap_or_else(Event::Failed),
            Do::Build => self.build().await,
            Do::Write => self.write().await,
            Do::Bury => self.bury().await,
            Do::Applied => self.applied().await.map_or_else(Event::Failed, Event::Applied),
            Do::Check => self.check().await.map_or_else(Event::Failed, |()| Event::Checked),
            Do::Close => {
                if let Err(error) = self.close().await {
                    warn!(pipeline = self.pipeline, sink = self.name, error = error.chain(), "closing failed");
                    return Some(Event::NotClosed);
                }
                Event::Closed
            }
            Do::Wait(until) => {
                self.wait(until).await;
                return None;
            }
            Do::End => return None,
        })
    }

    /// Tells the machine, and everybody else, how something ended.
    async fn conclude(&mut self, event: Event) {
        let now = Instant::now();
        let error = event.error().map(Error::chain);
        let before = (self.machine.balance().copied(), self.machine.stored());
        if matches!(event, Event::Accepted) {
            self.reporter.accepted(now);
        }
        self.machine.on(now, event);
        if let Some(error) = error {
            self.reporter.failed(&self.machine, &error, now);
        }
        let after = (self.machine.balance().copied(), self.machine.stored());
        if before != after
            && let (Some(balance), Some(stored)) = after
        {
            self.feeder.committed(stored);
            self.reporter.moved(before.0.as_ref(), &balance, now);
            self.remember(stored, now).await;
        }
        self.reporter.look(&self.machine, now);
    }

    async fn open(&mut self) -> Result<Event> {
        if std::mem::take(&mut self.is_broken) {
            self.sink = None;
        }
        if self.sink.is_none() {
            self.sink = Some((self.factory)()?);
        }
        let context = self.context();
        let (sink, mut guard) = self.sink("opening", self.config.timeout.0)?;
        let positions = guard.call(sink.open(&context)).await?;
        let guarantee = sink.guarantee();
        let store = positions.iter().find(|(part, _)| *part == Part::spool()).map(|(_, position)| *position);
        let log = self.feeder.log();
        let extent = log.extent();
        let stand = |position: SpoolPosition| (position, log.standing(position));
        let keeps_none = matches!(guarantee, Guarantee::AtLeastOnce | Guarantee::DedupKeys(_));
        // The file may lag behind: what this process knows counts more.
        let known = self.machine.stored().filter(|_| keeps_none);
        let known = known.or_else(|| self.known.as_ref().and_then(Known::position));
        let at = match compare(store.map(stand), known.map(stand), extent, keeps_none) {
            Opening::Mismatch(text) => return Ok(Event::Mismatch(text)),
            Opening::Again(at) => at,
            Opening::Start => SpoolPosition::START,
        };
        let read_from = match (at == SpoolPosition::START, self.config.start) {
            (false, _) => at,
            (true, Start::Earliest) => extent.first,
            (true, Start::Latest) => extent.last,
        };
        self.open_letters(at).await?;
        self.feeder.opened();
        self.reporter.opened(&guarantee, at, read_from, known);
        Ok(Event::Opened { at, read_from })
    }

    fn context(&self) -> SinkContext {
        let (spool, host) = self.owner.clone();
        let chain = self.feeder.plan().chain();
        let owner = Owner { pipeline: self.pipeline.clone(), sink: self.name.clone(), spool, host, chain };
        SinkContext { owner, tables: self.feeder.plan().tables().to_vec(), directory: self.directory.clone() }
    }

    /// Throws away the dead letters of rows that the store has not passed: they come again.
    async fn open_letters(&mut self, at: SpoolPosition) -> Result<()> {
        let letters = self.letters.take();
        let path = self.directory.join(DeadLetters::FILE_NAME);
        let letters = blocking(move || {
            let is_committed = |position: SpoolPosition| position.offset <= at.offset;
            let Some(mut letters) = letters else { return DeadLetters::open(&path, is_committed).map(|(all, _)| all) };
            letters.discard_uncommitted(is_committed)?;
            Ok(letters)
        });
        let letters = letters.await?;
        self.reporter.dead_letters(letters.count());
        self.letters = Some(letters);
        Ok(())
    }

    async fn build(&mut self) -> Event {
        let synced = self.synced.borrow().offset;
        match self.feeder.read(self.machine.read_to(), synced) {
            Ok(Read::Range { portion, border, rows }) => {
                self.rows = rows;
                Event::Built { portion, border }
            }
            Ok(Read::Replanned) => Event::Again(None),
            Ok(Read::Unreadable(letter)) => {
                let cause = letter.cause();
                match self.append(vec![*letter]).await {
                    Ok(()) => {
                        self.feeder.leave_out([cause]);
                        Event::Buried
                    }
                    Err(error) => Event::Again(Some(error)),
                }
            }
            Err(error) => Event::Again(Some(error)),
        }
    }

    async fn write(&mut self) -> Event {
        let range = *self.machine.in_hand();
        let tables = if range.fates.delivered > 0 { std::mem::take(&mut self.rows) } else { Vec::new() };
        let chunk = Chunk { part: Part::spool(), from: range.from, to: range.to, tables };
        self.machine.is_writing();
        let began = Instant::now();
        let written = match self.sink("writing", self.config.timeout.0) {
            Ok((sink, mut guard)) => guard.call(sink.write(&chunk)).await,
            Err(error) => Err(error),
        };
        self.reporter.wrote(began);
        match written {
            Ok(Written::Committed) => Event::Committed,
            Ok(Written::Accepted) => Event::Accepted,
            Ok(Written::Refused(refusals)) => {
                let mut new = HashSet::new();
                let is_sound = !refusals.is_empty()
                    && refusals.iter().all(|r| new.insert(r.cause) && !self.feeder.leaves_out(&r.cause));
                self.rows = chunk.tables;
                self.refusals = refusals;
                if is_sound { Event::Refused } else { Event::Failed(strange_refusals()) }
            }
            Err(error) => Event::Failed(error),
        }
    }

    /// Makes the refused rows dead letters.
    async fn bury(&mut self) -> Event {
        let Some(letters) = self.feeder.letters(&self.rows, &self.refusals, Timestamp::now()) else {
            return Event::Failed(strange_refusals());
        };
        match self.append(letters).await {
            Ok(()) => {
                self.reporter.refused(&self.refusals);
                self.feeder.leave_out(self.refusals.drain(..).map(|refusal| refusal.cause));
                self.rows.clear();
                Event::Buried
            }
            Err(error) => {
                warn!(pipeline = self.pipeline, sink = self.name, error = error.chain(), "dead letters not written");
                Event::NotBuried
            }
        }
    }

    async fn append(&mut self, batch: Vec<DeadLetter>) -> Result<()> {
        let Some(mut letters) = self.letters.take() else {
            return Err(Error::transient("the dead letters are not open"));
        };
        let (letters, appended) = blocking(move || {
            let appended = letters.append(&batch);
            Ok((letters, appended))
        })
        .await?;
        self.reporter.dead_letters(letters.count());
        self.letters = Some(letters);
        appended
    }

    /// Keeps the position beside the log: at once the first time, then once a second.
    async fn remember(&mut self, position: SpoolPosition, now: Instant) {
        if let Some(letters) = &mut self.letters {
            letters.committed();
        }
        let is_early = self.remembered_at.is_some_and(|at| now < at + REMEMBER_EVERY);
        if !is_early {
            self.remember_now(position).await;
            self.remembered_at = Some(now);
        }
        let replay_from = self.known.as_ref().and_then(Known::position);
        self.floor.send_replace(Floor { committed: Some(position), replay_from });
    }

    async fn remember_now(&mut self, position: SpoolPosition) {
        let Some(mut known) = self.known.take() else { return };
        let written = blocking(move || {
            let written = known.write(position);
            Ok((known, written))
        });
        match written.await {
            Ok((known, written)) => {
                self.known = Some(known);
                if let Err(error) = written {
                    warn!(pipeline = self.pipeline, sink = self.name, error = error.chain(), "position not noted");
                }
            }
            Err(error) => {
                warn!(pipeline = self.pipeline, sink = self.name, error = error.chain(), "position not noted")
            }
        }
    }

    async fn end(mut self) -> Outcome {
        let balance = self.machine.balance().copied();
        if let Some(stored) = self.machine.stored() {
            self.remember_now(stored).await;
        }
        let synced = self.synced.borrow().offset;
        let from = balance.map_or_else(|| self.feeder.log().extent().first, |balance| balance.upto);
        let left =
            if from.offset < synced { self.feeder.count_rows(from, synced, MOST_COUNTED) } else { Ok((0, false)) };
        let (rows_left, more_left) = left.unwrap_or((0, true));
        let failure = self.machine.failure().map(str::to_owned);
        let outcome = Outcome { balance, rows_left, more_left, failure };
        self.reporter.ended(&outcome);
        outcome
    }

    async fn applied(&mut self) -> Result<Option<SpoolPosition>> {
        let (sink, mut guard) = self.sink("asking what is durable", self.config.timeout.0)?;
        guard.call(sink.applied()).await
    }

    async fn check(&mut self) -> Result<()> {
        let began = Instant::now();
        let (sink, mut guard) = self.sink("the probe", self.config.probe.timeout.0)?;
        guard.call(sink.check()).await?;
        self.reporter.checked(began);
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        let (sink, mut guard) = self.sink("closing", self.config.timeout.0)?;
        guard.call(sink.close()).await
    }

    /// Returns the sink, and what a call of it goes through.
    fn sink(&mut self, what: &'static str, limit: Duration) -> Result<(&mut Box<dyn Sink>, Guard<'_>)> {
        let Some(sink) = &mut self.sink else { return Err(Error::transient("the sink is not open")) };
        Ok((sink, Guard { what, limit, stop: &mut self.stop, is_broken: &mut self.is_broken }))
    }
}

/// Waits for a change; for ever once nobody is left who could make one.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits until the pipeline stops. One that is gone without a word gives no time.
async fn stopped(stop: &mut watch::Receiver<Option<Instant>>, machine: &mut Machine) {
    if machine.deadline().is_some() {
        return std::future::pending().await;
    }
    if stop.changed().await.is_err() {
        let now = Instant::now();
        machine.on(now, Event::Stop(now));
    }
}

fn strange_refusals() -> Error {
    Error::permanent("the sink refused rows that the chunk does not hold: a fault of the sink")
}

/// How often a position is noted beside the log.
const REMEMBER_EVERY: Duration = Duration::from_secs(1);

/// How many offsets are looked at to say how many rows stay behind.
const MOST_COUNTED: u64 = 1_000_000;
