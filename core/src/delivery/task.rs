//! The tokio shell around [`Machine`]: calls the sink, reads the log, keeps the files, and tells what happened.

mod files;
mod mismatch;

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tracing::warn;

use super::{
    event::{Do, Event},
    feeder::{Bounds, Feeder, Read},
    guard::{Guard, blocking, given_up, locked},
    keys::Keys,
    known::{Known, Noted},
    log::Log,
    machine::Machine,
    neighbours::{Advice, Others},
    opening::{FROM_LOG, FROM_STORE, NO_LONGER, Opening, compare, overtaken},
    report::{Opened, Reporter},
    setup::{Floor, Outcome, Setup, settings, stage_of},
};
use crate::{
    Error, Kind, Result,
    catalog::Factory,
    caught::{caught, pauses},
    chunk::{Chunk, Part, TableRows},
    config::{Commands, DeliveryConfig, Start, WhenFull},
    deadletter::DeadLetters,
    outside,
    sink::{Owner, Refusal, Sink, SinkContext, Written},
    spool::{
        SpoolPosition, Standing,
        disk::{self, Disk},
    },
};

/// The delivery driver of one sink.
pub struct Delivery<L> {
    pipeline: String,
    name: String,
    part: Part,
    factory: Factory<Box<dyn Sink>>,
    sink: Option<Box<dyn Sink>>,
    /// Set when the sink panicked: its state may be anything.
    is_broken: bool,
    config: DeliveryConfig,
    owner: (u64, String),
    others: Others,
    commands: Commands,
    /// The sink's own directory: dead letters, and what the sink keeps there.
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    feeder: Arc<Mutex<Feeder<L>>>,
    machine: Machine,
    /// `None` where the file says nothing that could be gone by; then the sink is not opened.
    known: Option<Arc<Mutex<Known>>>,
    /// What the file said at the start.
    noted: Noted,
    /// Where a sink begins that was never written to; `None` for the oldest row.
    begins_at: Option<SpoolPosition>,
    /// Whether the log may let go of what has no fate yet.
    drops_oldest: bool,
    /// Whether no disk took the last note.
    is_unnoted: bool,
    /// Whether the store tells its position itself.
    keeps_position: bool,
    /// Since when the store is ahead of a part of another machine's log.
    ahead_since: Option<Instant>,
    /// The tables of today.
    chain: u64,
    letters: Option<Arc<Mutex<DeadLetters>>>,
    /// What keys make of the rows.
    keys: Keys,
    /// The rows of the range in hand.
    rows: Vec<TableRows>,
    refusals: Vec<Refusal>,
    synced: watch::Receiver<SpoolPosition>,
    stop: watch::Receiver<Option<Instant>>,
    floor: watch::Sender<Floor>,
    /// When a position may be noted again.
    remember_at: Instant,
    rows_stored: u64,
    /// The fault of the program that stopped the last run, until rows arrive again.
    fault: Option<String>,
    reporter: Reporter,
}

impl<L: Log> Delivery<L> {
    /// Prepares a delivery, and returns it with what it says about the log's floor. Does not touch the store.
    ///
    /// Where the sink's files beside the spool cannot be used it is not opened: it runs, as a failed one, and the log
    /// keeps everything for it.
    ///
    /// # Errors
    ///
    /// `Config` when the tables of two sources do not fit under one name; `Transient` when the sink's files cannot be opened for
    /// now.
    pub fn new(setup: Setup<L>) -> Result<(Self, watch::Receiver<Floor>)> {
        Self::of_part(setup, Part::spool())
    }

    /// Prepares the delivery of one of the parts that a log has.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn of_part(setup: Setup<L>, part: Part) -> Result<(Self, watch::Receiver<Floor>)> {
        let (stage, (place, file)) = (stage_of(&setup.sink, &part), setup.place(&part));
        let Setup { pipeline, sink: name, config, tables, derived, .. } = setup;
        let directory = place.join(&file);
        let made = outside::make_directory(&directory)
            .map_err(|error| disk::trouble(format!("cannot make the directory `{}`", directory.display()), error));
        let known = made.and_then(|()| Known::open(outside::disk_with(&place), &file));
        let (known, unusable) = match known {
            Ok(known) => (Some(known), None),
            Err(error) if matches!(error.kind(), Kind::Transient { .. }) => return Err(error),
            Err(error) => (None, Some(unusable(&error, (&setup.commands, &name), &part))),
        };
        let noted = known.as_ref().map_or_else(Noted::default, Known::noted);
        let begins_at = match config.start {
            Start::Earliest => None,
            Start::Latest => Some(noted.begins_at.unwrap_or_else(|| setup.log.extent().last)),
        };
        let bounds = Bounds::of(&config.batch);
        let mut feeder = Feeder::new(setup.log, &name, &pipeline, setup.sources, (tables, derived), bounds)?;
        // Of a store whose note cannot be read nobody knows how far it has got: it may have anything of what there is, and none
        // of that is dropped.
        let unknown = (0, feeder.log().extent().last.offset);
        let (passed, entered) = known.as_ref().map_or(unknown, |_| passed(&noted, begins_at));
        feeder.claim(passed, entered);
        let machine = Machine::new(settings(&config, &pipeline, &name));
        let (floor, floors) = watch::channel(Floor { replay_from: noted.position, ..Floor::default() });
        // An idle range waits for ten seconds, rows for the linger; then a write may take all its time, and be tried again.
        let overdue_after = config.batch.linger.0 + 3 * config.timeout.0;
        let reporter = Reporter::new(&setup.health, &pipeline, (&stage, &part), overdue_after);
        let mut delivery = Self {
            pipeline,
            name,
            part,
            factory: setup.factory,
            sink: None,
            is_broken: false,
            config,
            owner: (setup.spool, setup.host),
            drops_oldest: setup.when_full == WhenFull::DropOldest,
            others: setup.others,
            commands: setup.commands,
            disk: outside::disk_with(&directory),
            directory,
            chain: feeder.plan().chain(),
            feeder: Arc::new(Mutex::new(feeder)),
            machine,
            known: known.map(|known| Arc::new(Mutex::new(known))),
            noted,
            begins_at,
            is_unnoted: false,
            keeps_position: false,
            ahead_since: None,
            letters: None,
            keys: Keys::default(),
            rows: Vec::new(),
            refusals: Vec::new(),
            synced: setup.synced,
            stop: setup.stop,
            floor,
            remember_at: Instant::now(),
            rows_stored: 0,
            fault: None,
            reporter,
        };
        delivery.reporter.look(&delivery.machine, Instant::now());
        if let Some(why) = unusable {
            delivery.hold(why);
        }
        Ok((delivery, floors))
    }

    /// Returns whether nothing is known of a sink of this name.
    pub fn is_new(&self) -> bool {
        self.known.is_some() && self.noted == Noted::default()
    }

    /// Keeps the sink from being opened: a person has to look first.
    pub fn hold(&mut self, why: String) {
        let now = Instant::now();
        self.machine.on(now, Event::Mismatch(why));
        self.reporter.look(&self.machine, now);
    }

    /// Keeps the dead letters on another disk.
    #[cfg(test)]
    pub(super) fn with_letters_on(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = disk;
        self
    }

    /// Delivers until the pipeline stops or a person is needed.
    ///
    /// # Cancel safety
    ///
    /// Dropping it is like a crash: the next start settles what is in doubt.
    pub async fn run(mut self) -> Outcome {
        self.drive_on().await;
        self.end().await
    }

    /// Runs like [`run`](Self::run); a store that needs a person is left alone until the pipeline stops, so that the rows
    /// that stay in the spool are all of them.
    pub async fn run_to_the_stop(mut self) -> Outcome {
        self.drive_on().await;
        self.sink = None;
        while self.stop.borrow_and_update().is_none() && self.stop.changed().await.is_ok() {}
        self.end().await
    }

    /// Drives to the end, again after each fault of the program.
    async fn drive_on(&mut self) {
        let mut pauses = pauses();
        loop {
            let began = Instant::now();
            let Err(panic) = caught("the delivery", self.drive()).await else { return };
            let now = Instant::now();
            pauses.succeeded_for(now - began);
            let pause = pauses.failed(None);
            // What was under way may have been left in any state. The next opening settles what is in doubt.
            let sink = self.sink.take();
            // Letting go of a sink that has a fault may panic, too.
            drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(sink))));
            self.letters = None;
            self.rows.clear();
            self.refusals.clear();
            self.machine.on(now, Event::Again(None));
            self.reporter.panicked(&panic.chain(), pause, pauses.attempt(), now);
            self.fault = Some(panic.chain());
            tokio::select! {
                biased;
                () = tokio::time::sleep(pause) => {}
                () = given_up(&mut self.stop) => return,
            }
        }
    }

    async fn drive(&mut self) {
        if self.machine.failure().is_none() && self.begins_at.is_some() && self.noted.position.is_none() {
            self.note().await;
        }
        loop {
            let now = Instant::now();
            self.reporter.busy_since(Some(now));
            self.note_in_time(now).await;
            self.look_around(now);
            let next = self.machine.next(now);
            // Behind the decision, which may let a probe through the breaker.
            self.reporter.look(&self.machine, now);
            if next == Do::End {
                self.reporter.busy_since(None);
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
    }

    async fn wait(&mut self, until: Option<Instant>) {
        let until = until.into_iter().chain(self.note_at()).min();
        let alarm = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        self.reporter.busy_since(None);
        let (synced, stop) = (&mut self.synced, &mut self.stop);
        tokio::select! {
            biased;
            () = alarm => {}
            () = changed(synced) => {}
            () = stopped(stop, &mut self.machine) => {}
        }
    }

    async fn carry_out(&mut self, next: Do) -> Option<Event> {
        Some(match next {
            Do::Open => self.open().await.unwrap_or_else(Event::Failed),
            Do::Discard => self.discard().await,
            Do::Build => self.build().await,
            Do::Write => self.write().await,
            Do::Bury => self.bury().await,
            Do::Applied => self.applied().await.map_or_else(Event::Failed, Event::Applied),
            Do::Check => self.check().await.map_or_else(Event::Failed, |()| Event::Checked),
            // What cannot be counted may be there.
            Do::Count => Event::Counted(self.count().await.map_or(1, |(rows, has_more)| rows + u64::from(has_more))),
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
        let unburied = if let Event::NotBuried(error) = &event { Some(error.chain()) } else { None };
        let before = (self.machine.balance().copied(), self.machine.stored());
        if matches!(event, Event::Accepted) {
            self.reporter.accepted(&self.machine, now);
        }
        self.machine.on(now, event);
        if let Some(error) = error {
            self.reporter.failed(&self.machine, &error, now);
        }
        if let Some(error) = unburied {
            self.reporter.not_buried(&self.machine, &error, now);
        }
        let after = (self.machine.balance().copied(), self.machine.stored());
        if before != after
            && let (Some(_), Some(stored)) = after
        {
            self.feeder().committed(stored);
            if let Some(letters) = &self.letters {
                locked(letters).committed();
            }
            self.rows_stored += self.reporter.moved(before.0.as_ref(), &self.machine, now);
            self.reporter.keys(&self.keys);
            self.note_in_time(now).await;
            self.fault = None;
        }
        if self.machine.is_idle() {
            self.fault = None;
        }
        self.show_floor();
        self.reporter.look(&self.machine, now);
    }

    async fn open(&mut self) -> Result<Event> {
        if std::mem::take(&mut self.is_broken) {
            self.sink = None;
        }
        if self.sink.is_none() {
            self.sink = Some((self.factory)()?);
        }
        let known = self.last_known();
        let context = self.context(known);
        let (sink, mut guard) = self.sink("opening", self.config.timeout.0)?;
        let opened = guard.call(sink.open(&context)).await;
        let positions = match opened {
            Ok(positions) => positions,
            Err(error) => return self.claimed_otherwise(&error, known).await.ok_or(error),
        };
        let Some(sink) = &self.sink else { return Err(Error::transient("the sink is not open")) };
        let (guarantee, neighbours, newest) = (sink.guarantee(), sink.neighbours(), sink.newest());
        let (weaker, found) = (sink.weaker(), sink.unique_keys());
        let store = positions.iter().find(|(part, _)| *part == self.part).map(|(_, position)| *position);
        self.keeps_position = guarantee.keeps_position();
        if !self.part.is_spool() {
            blocking(&self.feeder, Feeder::look).await?;
        }
        let was_ahead_since = self.ahead_since.take();
        let mut feeder = self.feeder();
        let log = feeder.log();
        let extent = log.extent();
        let stand = |position: SpoolPosition| (position, log.standing(position));
        if let Some(why) = newest.and_then(|newest| overtaken(log.standing(newest))) {
            return Ok(self.mismatch(why, newest, known, extent));
        }
        let is_ahead = store.is_some_and(|store| log.standing(store) == Standing::Ahead);
        let stand_still = is_ahead && !self.part.is_spool();
        let ahead_since = stand_still.then(|| was_ahead_since.unwrap_or_else(Instant::now));
        if ahead_since.is_some_and(|since| since.elapsed() < AHEAD_FOR) {
            drop(feeder);
            self.ahead_since = ahead_since;
            return Err(Error::transient("the log ends before what the store has: it is looked at again"));
        }
        let at = match compare(store.map(stand), known.map(stand), !self.keeps_position) {
            Opening::Mismatch(why) => return Ok(self.mismatch(why, store, known, extent)),
            Opening::Again(at) => at,
            Opening::Start => SpoolPosition::START,
        };
        // What it had once, a full spool has dropped for others: nothing in the log says that this sink lacks it.
        let had = known.filter(|known| store.is_some() && fits(log.standing(*known)) && at.offset < known.offset);
        if had.is_some_and(|had| log.has_dropped(at.offset, had.offset)) {
            return Ok(self.mismatch(NO_LONGER, store, known, extent));
        }
        // A beginning in another history says nothing of this one: then nothing is left out.
        let begins_at = self.begins_at.filter(|at| fits(log.standing(*at)));
        let read_from = if at == SpoolPosition::START { begins_at.unwrap_or(extent.first) } else { at };
        // What is in doubt a store settles that tells where it is; another one may still have some of it.
        let entered = if self.keeps_position { 0 } else { feeder.log().entered() };
        feeder.opened(read_from, entered);
        let tables = feeder.plan().tables().to_vec();
        drop(feeder);
        self.keys.plan(&tables, &found);
        match self.others.judge(&neighbours, &self.commands).filter(|_| at == SpoolPosition::START) {
            Some(Advice::Hold(why)) => return Ok(Event::Mismatch(why)),
            Some(Advice::Tell(what)) => self.reporter.has_neighbour(what),
            None => {}
        }
        let is_changed = self.noted.chain.take().is_some_and(|chain| chain != self.chain);
        if is_changed {
            self.noted.changed = Some(at.offset);
        }
        let oldest = extent.first;
        self.reporter.weaker(weaker);
        self.reporter.opened(&guarantee, &Opened { at, read_from, oldest, known, is_changed });
        Ok(Event::Opened { at, read_from })
    }

    /// Returns the last known position. The file may lag behind: what this process knows counts more.
    fn last_known(&self) -> Option<SpoolPosition> {
        self.machine.stored().or_else(|| self.known.as_ref().and_then(|known| locked(known).noted().position))
    }

    fn context(&self, known: Option<SpoolPosition>) -> SinkContext {
        let (pipeline, (spool, host)) = (self.pipeline.clone(), self.owner.clone());
        let feeder = self.feeder();
        let plan = feeder.plan();
        let owner =
            Owner { pipeline, sink: self.name.clone(), part: self.part.clone(), spool, host, chain: plan.chain() };
        SinkContext { owner, tables: plan.tables().to_vec(), directory: self.directory.clone(), known }
    }

    fn feeder(&self) -> MutexGuard<'_, Feeder<L>> {
        locked(&self.feeder)
    }

    async fn build(&mut self) -> Event {
        let (from, synced) = (self.machine.read_to(), self.synced.borrow().offset);
        match blocking(&self.feeder, move |feeder| feeder.read(from, synced)).await {
            Ok(Read::Range { portion, border, rows }) => {
                self.rows = rows;
                Event::Built { portion, border }
            }
            Ok(Read::Replanned) => Event::Again(None),
            Ok(Read::Redrives(rows)) => self.ask_letters(rows).await,
            Ok(Read::Unreadable(letters)) => self.leave_out(letters).await,
            Ok(Read::Unfit(letters)) => {
                self.reporter.unfit(&letters, Instant::now());
                self.leave_out(letters).await
            }
            Err(error) => Event::Again(Some(error)),
        }
    }

    async fn write(&mut self) -> Event {
        if let Err(error) = self.note_segment().await {
            return Event::Again(Some(error));
        }
        let range = *self.machine.in_hand();
        let tables = if range.fates.delivered > 0 { std::mem::take(&mut self.rows) } else { Vec::new() };
        let chunk = Chunk { part: self.part.clone(), from: range.from, to: range.to, bytes: range.bytes, tables };
        self.keys.see(&chunk.tables);
        self.machine.is_writing();
        let began = Instant::now();
        let written = match self.sink("writing", self.config.timeout.0) {
            Ok((sink, mut guard)) => guard.call(sink.write(&chunk)).await,
            Err(error) => Err(error),
        };
        self.reporter.wrote(began, &written);
        match written {
            Ok(Written::Committed) => Event::Committed,
            Ok(Written::Accepted) => Event::Accepted,
            Ok(Written::Refused(refusals)) => {
                let mut new = HashSet::new();
                let is_sound = !refusals.is_empty()
                    && refusals.iter().all(|r| new.insert(r.cause) && !self.feeder().leaves_out(&r.cause));
                self.rows = chunk.tables;
                self.refusals = refusals;
                if is_sound { Event::Refused } else { Event::Failed(strange_refusals()) }
            }
            Err(error) => Event::Failed(error),
        }
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

/// Says what to do where the note of a store's position cannot be used.
fn unusable(error: &Error, (commands, sink): (&Commands, &str), part: &Part) -> String {
    let text = error.chain();
    if !part.is_spool() {
        return format!("{text}; the store's own position counts: remove the file, and start again");
    }
    let ways = [FROM_STORE, FROM_LOG].map(|which| commands.adopt(sink, which)).join(" or ");
    format!("{text}; bring it back from a copy, or stop, and do without it: {ways}")
}

/// Returns the offset up to which everything has its fate, and the first one of the newest segment of which more may have.
fn passed(noted: &Noted, begins_at: Option<SpoolPosition>) -> (u64, u64) {
    (noted.position.or(begins_at).map_or(0, |at| at.offset), noted.entered.unwrap_or_default())
}

/// A broker that has just become the leader of a part may know for a moment less of it than the last one.
const AHEAD_FOR: Duration = Duration::from_secs(10);

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

/// Returns whether the log has what lies behind a position, or left it out on purpose.
fn fits(standing: Standing) -> bool {
    matches!(standing, Standing::Retained | Standing::Dropped)
}

fn strange_refusals() -> Error {
    Error::permanent("the sink refused rows that the chunk does not hold: a fault of the sink")
}
