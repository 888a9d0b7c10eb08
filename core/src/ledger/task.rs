//! The task that keeps the ledger: follows the log, about a second behind, and begins anew after whatever went wrong.

use std::{collections::BTreeSet, ops::ControlFlow, path::PathBuf, time::Duration};

use tokio::{sync::watch, time::Instant};
use tracing::warn;

use super::{
    fold::{Fold, StoredLine},
    store::{self, News, Owner, Place, Store},
    teller::{self, Teller, Telling},
    told::Statement,
};
use crate::{
    Error, Kind, Result,
    caught::{caught, meet, pauses},
    delivery::{Floor, Log, Seen, SpoolLog},
    health::StageHealth,
    intake::Continuity,
    spool::{Boot, Item, SpoolPosition, SpoolReader, Standing, Unreadable},
};

/// What a ledger needs.
pub(crate) struct Setup {
    /// The pipeline's name.
    pub(crate) pipeline: String,
    /// Its file.
    pub(crate) path: PathBuf,
    pub(crate) reader: SpoolReader,
    /// Up to where the log is fsynced.
    pub(crate) synced: watch::Receiver<SpoolPosition>,
    /// Set once the pipeline stops and `synced` has its last value: the time at which to give up.
    pub(crate) stop: watch::Receiver<Option<Instant>>,
    pub(crate) health: StageHealth,
}

/// Returns the ledger, and what the log is kept for.
pub(crate) fn prepare(setup: Setup) -> (Ledger, watch::Receiver<Floor>) {
    let (floor, shown) = watch::channel(Floor::default());
    setup.health.overdue_after(OVERDUE_AFTER);
    (Ledger { setup, floor, teller: None }, shown)
}

/// A ledger that is ready to follow the log.
pub(crate) struct Ledger {
    setup: Setup,
    floor: watch::Sender<Floor>,
    /// Where a sink takes the table `coverage`, and until its last word.
    teller: Option<Teller>,
}

impl Ledger {
    /// Follows the log until the pipeline stops, and tells the table `coverage` of it, if it is to.
    pub(crate) async fn run(mut self, telling: Option<Telling>) {
        self.teller = telling.map(|telling| Teller::new(&self.setup.pipeline, &telling));
        let mut pauses = pauses();
        loop {
            let began = Instant::now();
            let ended = caught("the ledger", Box::pin(self.follow())).await.flatten();
            pauses.succeeded_for(began.elapsed());
            let Err(error) = ended else {
                self.setup.health.stopped("all that is durable is in it");
                return;
            };
            // The log is there for the stores: what is gone when the ledger works again is unknown then.
            self.keep_from(SpoolPosition { boot: Boot(0), offset: u64::MAX });
            // Intake waits for the last word: the next start has it.
            self.teller = self.teller.take().filter(|teller| !teller.done.is_cancelled());
            if !self.can_go_on(&error, pauses.failed(None)).await {
                return;
            }
        }
    }

    /// Says what went wrong, and waits a while; returns false if there is no other try.
    async fn can_go_on(&mut self, error: &Error, pause: Duration) -> bool {
        let (health, why) = (&self.setup.health, error.chain());
        if matches!(error.kind(), Kind::Permanent | Kind::Config) {
            health.failed(format!("{why}; the pipeline goes on without it"));
            return false;
        }
        if let Some(suffix) = store::aside(error) {
            let path = self.setup.path.display();
            match store::put_aside(&self.setup.path, suffix) {
                Ok(()) => health.degraded(format!("{why}; it is put aside as `{path}{suffix}` and built again")),
                Err(error) => health.degraded(format!("{why}; {}", error.chain())),
            };
        } else {
            let next = format!("the pipeline goes on, trying again in {:.1} s", pause.as_secs_f64());
            health.degraded(format!("{why}; {next}"));
        }
        let done = done(self.teller.as_ref());
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = done => {
                self.teller = None;
                true
            }
            () = stopped(&mut self.setup.stop) => false,
        }
    }

    /// Follows the log until the pipeline stops.
    async fn follow(&mut self) -> Result<()> {
        let owner = Owner { pipeline: self.setup.pipeline.clone(), spool: self.setup.reader.spool_id() };
        let mut store = Store::open(&self.setup.path, owner).await?;
        if self.teller.is_some() {
            store.tell().await?;
        }
        let mut reading = self.start(&mut store).await?;
        let begins_at = self.setup.synced.borrow().offset;
        self.setup.health.healthy("follows the spool");
        let mut compact_at = Instant::now();
        loop {
            if compact_at <= Instant::now() {
                compact_at = Instant::now() + COMPACT_EVERY;
                store.compact(KEPT_APART).await?;
            }
            let is_last = self.setup.stop.borrow_and_update().is_some();
            let upto = self.setup.synced.borrow_and_update().offset;
            let next_at = Instant::now() + PACE;
            reading = self.catch_up(&mut store, reading, upto).await?;
            if reading.is_outdated {
                reading = self.start(&mut store).await?;
                self.save(&mut store, &mut reading).await?;
            }
            if reading.position.offset >= begins_at
                && let Some(told) = store.told().filter(|told| told.is_new())
            {
                told.wake();
                self.save(&mut store, &mut reading).await?;
            }
            match self.teller.take() {
                Some(teller) if teller.done.is_cancelled() => {
                    let last = self.last_word(teller, &mut store, reading);
                    reading = tokio::time::timeout(LAST_WORD, last).await.map_err(|_| too_late())??;
                }
                Some(mut teller) => {
                    teller.tell(&mut store, reading.position.offset).await?;
                    self.teller = Some(teller);
                }
                None => {}
            }
            if is_last {
                return store.close().await;
            }
            let (mut stop, done) = (self.setup.stop.clone(), done(self.teller.as_ref()));
            let is_quiet = tokio::select! {
                () = self.news(next_at) => false,
                () = done => false,
                () = stopped(&mut stop) => false,
                () = tokio::time::sleep(SIGN_OF_LIFE) => true,
            };
            if is_quiet {
                self.save(&mut store, &mut reading).await?;
            }
        }
    }

    /// Reads up to an offset.
    async fn catch_up(&self, store: &mut Store, mut reading: Reading, upto: u64) -> Result<Reading> {
        while reading.position.offset < upto || reading.has_losses() {
            let stop = self.setup.stop.clone();
            let is_over = move || stop.borrow().is_some_and(|deadline| deadline <= Instant::now());
            if is_over() {
                return Err(too_late());
            }
            self.setup.health.untaken_since(Some(Instant::now()));
            let read;
            (reading, read) = blocking(reading, move |reading| reading.read_on(upto, &is_over)).await?;
            read?;
            self.save(store, &mut reading).await?;
        }
        Ok(reading)
    }

    async fn save(&self, store: &mut Store, reading: &mut Reading) -> Result<()> {
        meet("the ledger, under way");
        let said = std::mem::take(&mut reading.said);
        if let Some(told) = store.told() {
            told.hear(said);
        }
        let place = Place { spool: self.setup.reader.spool_id(), position: reading.position };
        let counts_all = reading.counts_all.or_else(|| (!reading.unread.is_empty()).then_some(false));
        let boots = std::mem::take(&mut reading.passed);
        let news = News { unreadable: reading.losses(), boots, counts_all };
        let began = Instant::now();
        store.save(&mut reading.fold, place, &news).await?;
        self.setup.health.took(began.elapsed());
        reading.counts_all = None;
        reading.unread.clear();
        reading.known_lost.extend(news.unreadable.iter().map(|loss| (loss.first, loss.last)));
        self.setup.health.ledger(Instant::now(), reading.position.offset, reading.fold.open());
        self.keep_from(reading.position);
        Ok(())
    }

    /// Tells the table how the sources have ended, as the last one that intake hears of.
    async fn last_word(&mut self, mut teller: Teller, store: &mut Store, reading: Reading) -> Result<Reading> {
        // An intake that is gone hears nothing: the next start says it.
        let Ok(end) = teller.end().await else { return Ok(reading) };
        if self.setup.synced.wait_for(|synced| synced.offset >= end).await.is_err() {
            return Ok(reading);
        }
        let reading = self.catch_up(store, reading, end).await?;
        teller.last_word(store).await?;
        Ok(reading)
    }

    /// Waits until more is durable, and for a while between one look and the next.
    async fn news(&self, next_at: Instant) {
        tokio::time::sleep_until(next_at).await;
        // Intake is gone: no more comes, and the stop is near.
        if self.setup.synced.clone().changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Restores what is known at the ledger's place in the log.
    async fn start(&self, store: &mut Store) -> Result<Reading> {
        let lines = store.lines().await?;
        let (reader, pipeline) = (self.setup.reader.clone(), self.setup.pipeline.clone());
        let (place, boots) = (store.place(), store.boots().await?);
        let (_, begun) = blocking(reader, move |reader| {
            let Some(place) = place else { return Reading::begin(reader, lines, NEW) };
            let why = match standing(reader, &place) {
                Standing::Retained => match reader.snapshot(place.position.offset)? {
                    Some((at, snapshot)) => return Reading::resume(reader, lines, (at, &snapshot), place.position),
                    None => NO_HEAD,
                },
                Standing::Dropped => DROPPED,
                Standing::Gone => GONE,
                Standing::Ahead => WENT_BACK,
                Standing::OtherBoot => OTHER_SPOOL,
            };
            // What is there as it was has been counted.
            let common = reader.in_common(&boots).filter(|_| place.spool == reader.spool_id());
            if let Some(common) = common.filter(|_| matches!(why, WENT_BACK | OTHER_SPOOL))
                && let Some((at, snapshot)) = reader.snapshot(common.offset)?
            {
                warn!(pipeline, "ledger {pipeline} {WENT_BACK}: it goes on behind offset {}", common.offset);
                return Reading::turn(reader, lines, (at, &snapshot), common);
            }
            let oldest = reader.oldest().offset;
            warn!(pipeline, "ledger {pipeline} {why}: from there to offset {oldest} nothing is known");
            Reading::begin(reader, lines, why)
        })
        .await?;
        begun
    }

    fn keep_from(&self, position: SpoolPosition) {
        let floor = Floor { committed: Some(position), replay_from: None };
        self.floor.send_replace(floor);
    }
}

fn standing(reader: &SpoolReader, place: &Place) -> Standing {
    if place.spool == reader.spool_id() { reader.check(place.position) } else { Standing::OtherBoot }
}

/// A fold with its place in the log.
pub(super) struct Reading {
    fold: Fold,
    log: SpoolLog,
    reader: SpoolReader,
    pub(super) position: SpoolPosition,
    /// The last place of each boot that it has passed, since the store was told.
    passed: Vec<SpoolPosition>,
    /// The last offset that it could not read, until it begins anew with what intake knew behind that.
    torn: Option<u64>,
    /// Whether a head follows that, so that it is time to begin anew.
    is_outdated: bool,
    /// What it could not read itself, since the store was told.
    unread: Vec<Unreadable>,
    /// Ranges of offsets that the store knows to be unreadable.
    known_lost: BTreeSet<(u64, u64)>,
    /// Statements of the ledger's own that were read since the store was told.
    said: Vec<Statement>,
    /// Whether the store counts every row of this spool and no other, where that is news.
    counts_all: Option<bool>,
}

impl Reading {
    /// Begins with the oldest head.
    pub(super) fn begin(reader: &SpoolReader, lines: Vec<StoredLine>, why: &str) -> Result<Self> {
        let position = reader.oldest();
        let snapshot = reader.snapshot(position.offset)?.filter(|(at, _)| at.offset == position.offset);
        let mut continuity = Continuity::restore(snapshot.as_ref().map_or(&[][..], |(_, snapshot)| snapshot))?;
        for (id, stream) in reader.streams().into_iter().filter(|_| snapshot.is_none()) {
            continuity.add_stream(id, &stream.source, &stream.key);
        }
        let counts_all = Some(lines.is_empty() && position.offset == 0);
        let reading = Self::at(reader, Fold::begin(continuity, lines, why), position)?;
        Ok(Self { counts_all, ..reading })
    }

    /// Goes on behind `position`, with continuity as it was `at` a place before it.
    fn resume(
        reader: &SpoolReader,
        lines: Vec<StoredLine>,
        (at, snapshot): (SpoolPosition, &[u8]),
        position: SpoolPosition,
    ) -> Result<Self> {
        let mut reading = Self::restored(reader, (at, snapshot), position)?;
        reading.fold.resume(lines);
        if reader.lost() > 0 {
            reading.fold.doubt();
        }
        Ok(reading)
    }

    /// Goes on behind `position`, after which the log is another one than was read.
    fn turn(
        reader: &SpoolReader,
        lines: Vec<StoredLine>,
        head: (SpoolPosition, &[u8]),
        position: SpoolPosition,
    ) -> Result<Self> {
        let Self { fold, .. } = Self::restored(reader, head, position)?;
        let reading = Self::at(reader, Fold::begin(fold.into_continuity(), lines, WENT_BACK), position)?;
        Ok(Self { counts_all: Some(false), ..reading })
    }

    /// Returns continuity as it is at `position`, from a head before it.
    fn restored(reader: &SpoolReader, (at, snapshot): (SpoolPosition, &[u8]), position: SpoolPosition) -> Result<Self> {
        let mut reading = Self::at(reader, Fold::restoring(Continuity::restore(snapshot)?), at)?;
        while reading.position.offset < position.offset {
            reading.read(position.offset, &|| false)?;
        }
        Ok(reading)
    }

    /// Returns whether there is something to be told that cannot be read.
    fn has_losses(&self) -> bool {
        !self.losses().is_empty()
    }

    /// Returns what cannot be read any more and the store does not know of: what is not in the ledger, and what a sink has
    /// not got.
    fn losses(&self) -> Vec<Unreadable> {
        let of_sinks = self.reader.unreadable().into_iter().filter(|loss| !loss.sinks.is_empty());
        let is_news = |loss: &Unreadable| !self.known_lost.contains(&(loss.first, loss.last));
        of_sinks.chain(self.unread.iter().cloned()).filter(is_news).collect()
    }

    fn at(reader: &SpoolReader, fold: Fold, position: SpoolPosition) -> Result<Self> {
        let mut log = SpoolLog::new(reader.clone());
        log.seek(position)?;
        let (passed, unread, known_lost) = (Vec::new(), Vec::new(), BTreeSet::new());
        let (reader, said) = (reader.clone(), Vec::new());
        Ok(Self {
            fold,
            log,
            reader,
            position,
            passed,
            unread,
            known_lost,
            said,
            torn: None,
            is_outdated: false,
            counts_all: None,
        })
    }

    /// Reads on, if there is more.
    fn read_on(&mut self, upto: u64, is_over: &dyn Fn() -> bool) -> Result<()> {
        if self.position.offset < upto {
            self.read(upto, is_over)?;
        }
        if let Some(torn) = self.torn {
            self.is_outdated = self.reader.has_snapshot_between(torn, self.position.offset)?;
        }
        Ok(())
    }

    /// Reads on, so far that what has to be written then is bounded, and as long as there is time.
    pub(super) fn read(&mut self, upto: u64, is_over: &dyn Fn() -> bool) -> Result<()> {
        let Self { fold, log, reader, position, passed, torn, unread, said, .. } = self;
        let (mut items, mut is_dropped) = (0, false);
        let before = *position;
        log.read(upto, &mut |seen| {
            if items >= AT_ONCE || (items > 0 && items % LOOKS_UP_EVERY == 0 && is_over()) {
                return ControlFlow::Break(());
            }
            items += 1;
            match seen {
                Seen::Item { position: at, item, source, .. } => {
                    said.extend(teller::said(&item, source.as_ref()));
                    match item {
                        Item::Row(row, _) => fold.row(&row),
                        Item::Control(control) => fold.control(&control),
                    }
                    passed.extend(Some(*position).filter(|left| left.boot != at.boot && left.offset > 0));
                    *position = at;
                }
                Seen::Missing { position: at } => {
                    is_dropped = reader.was_dropped(at.offset) || at.offset <= reader.oldest().offset;
                    if is_dropped {
                        return ControlFlow::Break(());
                    }
                    fold.unreadable();
                    *torn = Some(at.offset);
                    let (boot, first, last) = (at.boot, position.offset + 1, at.offset);
                    unread.push(Unreadable { boot, first, last, sinks: Vec::new() });
                    reader.streams().iter().for_each(|(id, stream)| fold.name(*id, &stream.source, &stream.key));
                    *position = at;
                }
                // No spool shows such.
                Seen::Void { position: at, .. } | Seen::Poison { position: at, .. } => *position = at,
            }
            ControlFlow::Continue(())
        })?;
        if is_dropped {
            return Err(Error::transient(format!("the spool has dropped what follows {before} before it was read")));
        }
        if *position == before {
            return Err(Error::transient(format!("the spool shows nothing behind {before}, but ends at {upto}")));
        }
        Ok(())
    }
}

fn too_late() -> Error {
    Error::transient("the time for stopping is over; the next start goes on")
}

/// Waits until the sources have said their last word.
fn done(teller: Option<&Teller>) -> impl Future<Output = ()> + use<> {
    let done = teller.map(|teller| teller.done.clone());
    async move {
        match done {
            Some(done) => done.cancelled().await,
            None => std::future::pending().await,
        }
    }
}

/// Waits until the pipeline stops.
async fn stopped(stop: &mut watch::Receiver<Option<Instant>>) {
    if stop.wait_for(Option::is_some).await.is_err() {
        // The pipeline is gone, and takes this task along.
        std::future::pending::<()>().await;
    }
}

/// Lends something to a thread that may block.
async fn blocking<T: Send + 'static, R: Send + 'static>(
    mut with: T,
    work: impl FnOnce(&mut T) -> R + Send + 'static,
) -> Result<(T, R)> {
    let done = tokio::task::spawn_blocking(move || {
        let result = work(&mut with);
        (with, result)
    });
    done.await.map_err(|error| Error::transient("the ledger's thread has panicked").because(error))
}

/// So often the ledger is written: what is shown of a running pipeline is that old.
const PACE: Duration = Duration::from_secs(1);

/// So often it is written at least, with nothing but the time: since when nobody runs a pipeline is told by that.
const SIGN_OF_LIFE: Duration = Duration::from_secs(60);

/// How often what is settled is joined.
const COMPACT_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// For so long each stretch that was filled stays one of its own.
const KEPT_APART: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// How long the last word may take.
const LAST_WORD: Duration = Duration::from_secs(5);

/// So many items are read between two commits.
const AT_ONCE: usize = 200_000;

/// And so many before it is asked whether there is time for more.
const LOOKS_UP_EVERY: usize = 512;

/// Reading on for so long is shown as a fault: what the ledger has not read, the spool keeps.
const OVERDUE_AFTER: Duration = Duration::from_secs(30);

const NEW: &str = "the ledger began later";
const NO_HEAD: &str = "the spool has no head left that the ledger could go on from";
const DROPPED: &str = "the spool was full, and dropped what the ledger had not read";
const GONE: &str = "the spool does not reach back so far";
const WENT_BACK: &str = "the spool went back to an older state";
const OTHER_SPOOL: &str = "the spool is another one";
