//! The tokio shell around intake: takes handovers, has the disk made safe on another thread, shows what is open.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    asks::Board,
    continuity::Continuity,
    entry::{Accepted, Intake, Now, Place, Rows},
    link::{Handover, Step},
    opening::{Running, SourceSetup, Started},
    tally::{SourceTally, SpoolTally},
};
use crate::{
    Error, Result,
    config::{SpoolConfig, WhenFull},
    delivery,
    health::Registry,
    outside, own,
    row::Timestamp,
    rules::{Rule, holds},
    spool::{Control, Floor, Housekeeping, Loss, SpoolPosition, SpoolWriter, SyncDone},
};

impl Started {
    /// Starts to take handovers. `floors` are what the sinks no longer need. Once `stop` is cancelled nothing waits for room
    /// any more: the sinks that would make some end only after intake.
    pub fn run(
        mut self,
        floors: Vec<watch::Receiver<delivery::Floor>>,
        stop: CancellationToken,
    ) -> (Running, mpsc::Sender<Handover>) {
        // Every buffer of every link has a place, of those links too that a restarted source has left behind.
        let (queue, handovers) = mpsc::channel(QUEUE);
        self.task.floors = floors;
        self.task.stop = stop;
        let asks = self.task.boards.iter().map(Board::subscribe).collect();
        let (synced_offset, room) = (self.task.synced_offset.subscribe(), self.task.room.subscribe());
        // Appending waits for the disk.
        let end = self.task.end.clone();
        let task = outside::spawn_apart(self.task.run(handovers));
        (Running { asks, synced_offset, room, end, task }, queue)
    }
}

/// What a task is made of.
pub(super) struct Prepared {
    pub(super) pipeline: String,
    pub(super) continuity: Continuity,
    pub(super) writer: SpoolWriter,
    pub(super) config: SpoolConfig,
    pub(super) sources: Vec<SourceSetup>,
    pub(super) registry: Registry,
    pub(super) synced: watch::Sender<SpoolPosition>,
}

/// The task of a pipeline's intake.
#[derive(Debug)]
pub(super) struct Task {
    pipeline: String,
    intake: Intake,
    boards: Vec<Board>,
    spool: SpoolTally,
    when_full: WhenFull,
    sync_pause: Duration,
    began: Instant,
    synced: watch::Sender<SpoolPosition>,
    synced_offset: watch::Sender<u64>,
    floors: Vec<watch::Receiver<delivery::Floor>>,
    stop: CancellationToken,
    /// Nothing more is taken, whoever may still hold a way to the queue.
    end: CancellationToken,
    /// The fsync under way.
    syncing: Option<JoinHandle<SyncDone>>,
    sync_began: Option<Instant>,
    /// When the oldest entry was written that is not durable.
    waiting_since: Option<Instant>,
    /// Whether the boards may be out of date.
    is_dirty: bool,
    /// When the boards are published again at the earliest.
    publish_at: Option<Instant>,
    kept_up: Option<Instant>,
    is_full: bool,
    /// What is said of it since no new segment can be begun.
    no_segment: Option<String>,
    /// Whether rows of a feed that cannot wait are taken.
    room: watch::Sender<bool>,
    /// What sources that can wait have handed over since there is no room, and how far the first of them has got.
    held: VecDeque<Taking>,
}

/// A handover, and how far it has got.
type Taking = (Handover, Place);

impl Task {
    /// Returns a task that has entered what the last boot left open.
    pub(super) fn new(prepared: Prepared) -> Result<Self> {
        let Prepared { pipeline, continuity, writer, config, sources, registry, synced } = prepared;
        let names: Vec<Arc<str>> = sources.iter().map(|source| source.info.name.clone()).collect();
        // The pipeline's own source, which comes last, is no stage.
        let shown = names.iter().filter(|name| ***name != *own::SOURCE);
        let tallies = shown.map(|name| SourceTally::new(&registry, &pipeline, name)).collect();
        let board = |source: &SourceSetup| {
            let tables = source.info.tables.iter().map(|table| table.name.clone()).collect();
            Board::new(source.info.name.clone(), tables, source.history_lag)
        };
        let boards = sources.iter().map(board).collect();
        let mut task = Self {
            intake: Intake::new(continuity, writer, names, tallies),
            boards,
            spool: SpoolTally::new(&registry, &pipeline, config.max_bytes.0, config.sync.0),
            pipeline,
            when_full: config.when_full,
            sync_pause: config.sync.0,
            began: Instant::now(),
            synced,
            synced_offset: watch::channel(0).0,
            floors: Vec::new(),
            stop: CancellationToken::new(),
            end: CancellationToken::new(),
            syncing: None,
            sync_began: None,
            waiting_since: None,
            is_dirty: true,
            publish_at: None,
            kept_up: None,
            is_full: false,
            no_segment: None,
            room: watch::channel(true).0,
            held: VecDeque::new(),
        };
        task.intake.booted(task.now())?;
        Ok(task)
    }

    /// Returns the state machine alone.
    #[cfg(any(test, feature = "testkit"))]
    pub(super) fn into_intake(self) -> Intake {
        self.intake
    }

    async fn run(mut self, mut handovers: mpsc::Receiver<Handover>) -> Result<()> {
        self.spool.health.healthy("open");
        let ended = self.work(&mut handovers).await;
        match &ended {
            Ok(()) => _ = self.spool.health.stopped("everything is durable"),
            Err(error) => _ = self.spool.health.failed(format!("{}; the pipeline has stopped", error.chain())),
        }
        ended
    }

    async fn work(&mut self, handovers: &mut mpsc::Receiver<Handover>) -> Result<()> {
        let mut is_open = true;
        loop {
            self.take_held().await?;
            self.start_sync();
            let (publish_at, sync_at) = (self.publish_at(), self.sync_at());
            let keep_up_at = self.keep_up_at();
            tokio::select! {
                // What is durable comes first: it is what everybody else waits for.
                biased;
                done = finished(&mut self.syncing) => self.synced(done)?,
                () = sleep_until(sync_at) => {}
                () = sleep_until(publish_at) => self.publish()?,
                () = sleep_until(Some(keep_up_at)) => {
                    self.keep_up();
                    self.retire()?;
                }
                () = self.end.cancelled(), if !handovers.is_closed() => handovers.close(),
                handover = handovers.recv(), if is_open => match handover {
                    Some(handover) => self.take_new((handover, Place::default())).await?,
                    None => is_open = false,
                },
            }
            let is_done = !is_open && self.held.is_empty();
            if is_done && self.syncing.is_none() && !self.intake.spool.is_unsynced() {
                return self.publish();
            }
        }
    }

    /// Takes a handover, unless it has to wait.
    async fn take_new(&mut self, taking: Taking) -> Result<()> {
        let is_behind = self.held.iter().any(|(held, _)| held.link == taking.0.link);
        let left = if is_behind { Some(taking) } else { self.take(taking).await? };
        self.held.extend(left);
        Ok(())
    }

    /// Takes what was held, once there is room or nothing waits for it any more.
    async fn take_held(&mut self) -> Result<()> {
        while (!self.is_full || self.stop.is_cancelled())
            && let Some(first) = self.held.pop_front()
        {
            if let Some(left) = self.take(first).await? {
                self.held.push_front(left);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes a handover; what there is no room for is given back, if its source can wait.
    async fn take(&mut self, (mut handover, mut place): Taking) -> Result<Option<Taking>> {
        let can_wait = !handover.is_live && self.when_full != WhenFull::DropNewest;
        let mut rows = if self.is_refusing() && !can_wait { Rows::Leave } else { Rows::Keep };
        let logged = loop {
            self.begins_to_wait();
            let accepted = self.intake.accept(self.now(), &handover, place, rows)?;
            if matches!(accepted, Accepted::Done(_) | Accepted::Part(_)) {
                self.written();
                self.spool.dropped(self.intake.left_out());
                handover.is_refused |= self.intake.has_refused();
            } else {
                self.spool.waits_since(self.waiting_since);
            }
            match accepted {
                Accepted::Done(logged) => break logged,
                Accepted::Part(next) => place = next,
                Accepted::Behind => self.catch_up().await?,
                Accepted::Full if rows == Rows::Keep => {
                    if self.make_room().await? {
                        continue;
                    }
                    if can_wait && !self.stop.is_cancelled() {
                        return Ok(Some((handover, place)));
                    }
                    rows = Rows::Leave;
                }
                // Not even the word of it fits. At a stop the next start knows that the session ended before it; and
                // where no session is open in the log, nothing is claimed that would be wrong without it.
                Accepted::Full if self.stop.is_cancelled() || self.intake.claims_nothing(&handover) => {
                    self.spool.dropped(self.intake.left_out());
                    break 0;
                }
                Accepted::Full => self.wait_for_room().await?,
            }
        };
        if rows == Rows::Keep {
            self.look_for_room();
        }
        self.tell_board(&handover);
        // Live records may narrow a gap without a word.
        self.is_dirty |= !handover.steps.is_empty() || self.intake.continuity.has_stirred();
        handover.done(logged.max(self.intake.spool.next_offset().saturating_sub(1)));
        if self.intake.spool.wants_roll() {
            self.roll();
        }
        Ok(None)
    }

    /// Begins the next segment. Of one that cannot be begun nothing is lost: the present one goes on. But it grows, and none
    /// of it can be let go.
    fn roll(&mut self) {
        let Err(error) = self.intake.spool.roll(self.intake.continuity.snapshot()) else {
            let had_failed = self.no_segment.take().is_some();
            if had_failed && !self.is_full {
                self.spool.health.healthy("segments are begun again");
            }
            return;
        };
        let why = format!(
            "{}; the present segment goes on, and another is tried each time it has grown by a quarter",
            error.chain()
        );
        if !self.is_full {
            self.spool.health.degraded(&*why);
        }
        self.no_segment = Some(why);
    }

    fn tell_board(&mut self, handover: &Handover) {
        let board = &mut self.boards[usize::from(handover.link.source)];
        for (_, step) in &handover.steps {
            if let Step::Asked { gap } = step {
                let filled = self.intake.continuity.gap_filled(*gap).map_or(0, |(_, filled)| filled);
                board.replied(*gap, filled);
            }
        }
    }

    /// Says that something waits for the disk: one that hangs is seen from outside only.
    fn begins_to_wait(&self) {
        self.spool.waits_since(Some(self.waiting_since.unwrap_or_else(Instant::now)));
    }

    /// Enters what no handover has brought.
    fn enter(&mut self, entering: impl FnOnce(&mut Intake, Now) -> Result<Accepted>) -> Result<Accepted> {
        self.begins_to_wait();
        let now = self.now();
        let accepted = entering(&mut self.intake, now)?;
        match accepted {
            Accepted::Done(1..) => self.written(),
            Accepted::Done(0) | Accepted::Part(_) | Accepted::Full | Accepted::Behind => {
                self.spool.waits_since(self.waiting_since);
            }
        }
        Ok(accepted)
    }

    fn written(&mut self) {
        let now = Instant::now();
        self.waiting_since.get_or_insert(now);
        self.spool.waits_since(self.waiting_since);
        self.spool.appended(now, self.intake.rows());
        self.start_sync();
    }

    /// Returns whether rows that cannot wait are left out without a try: room for a single handover is none.
    fn is_refusing(&self) -> bool {
        self.is_full && (self.when_full == WhenFull::DropNewest || !*self.room.borrow())
    }

    /// Says it when a spool that was full is no longer.
    fn look_for_room(&mut self) {
        if self.is_full && self.intake.spool.has_room(self.floor()) {
            self.is_full = false;
            match &self.no_segment {
                Some(why) => self.spool.health.degraded(&**why),
                None if self.when_full == WhenFull::DropNewest => self.spool.health.healthy(
                    "there is room again; of what was thrown away, all that the venue's history has is asked for",
                ),
                None => self.spool.health.healthy("there is room again"),
            };
            self.room.send_replace(true);
        }
    }

    /// Waits until an fsync has ended.
    async fn catch_up(&mut self) -> Result<()> {
        self.start_sync_now();
        let done = finished(&mut self.syncing).await;
        self.synced(done)
    }

    /// Does what `when_full` says; returns whether there may be room now.
    async fn make_room(&mut self) -> Result<bool> {
        if !self.is_full {
            self.is_full = true;
            let next = match self.when_full {
                WhenFull::Block => {
                    "nothing more is taken until the sinks and the ledger have caught up; sessions end, their gaps are filled later"
                }
                WhenFull::DropNewest => {
                    "what comes is counted and thrown away until the sinks and the ledger have caught up; then what the venue's history has of it is asked for"
                }
                WhenFull::DropOldest => "the oldest segment goes, also for sinks that have not passed it",
            };
            self.spool.health.degraded(format!("the spool is full: {next}"));
        }
        if self.when_full == WhenFull::DropOldest && !self.stop.is_cancelled() {
            if self.drop_oldest().await? {
                return Ok(true);
            }
            // A segment may go once a later one is durable.
            if self.intake.spool.is_unsynced() {
                self.catch_up().await?;
                return Ok(true);
            }
        }
        if self.when_full != WhenFull::DropNewest {
            self.room.send_replace(false);
        }
        if self.when_full == WhenFull::DropOldest {
            self.spool.health.degraded(
                "the spool is full: nothing more is taken, since a sink has rows of every segment that could go in hand",
            );
        }
        Ok(false)
    }

    /// Waits a while for room for the word of what has happened.
    async fn wait_for_room(&mut self) -> Result<()> {
        // Room comes of sinks that go on, which need what is written to be durable.
        if self.intake.spool.is_unsynced() {
            self.catch_up().await?;
        } else {
            self.stop.run_until_cancelled(tokio::time::sleep(FULL_PAUSE)).await;
        }
        self.keep_up();
        self.publish()
    }

    /// Drops the oldest segment that no sink has in hand, and says for whom what is lost; returns whether there was one. The
    /// word is durable before the file goes: whoever starts next finds either both or neither.
    async fn drop_oldest(&mut self) -> Result<bool> {
        let Some(old) = self.intake.spool.take_oldest() else { return Ok(false) };
        let counted = old.clone();
        let losses = outside::spawn_blocking(move || counted.losses()).await;
        let losses = match losses.map_err(|error| Error::permanent("counting rows has panicked").because(error))? {
            Ok(losses) => losses,
            Err(error) => {
                warn!(pipeline = self.pipeline, error = error.chain(), "the oldest segment stays for now");
                self.intake.spool.put_back(&old);
                return Ok(false);
            }
        };
        let (first, last) = old.offsets();
        let now = self.now();
        let dropped = |loss: &Loss| Control::Dropped {
            sinks: vec![loss.sink.clone()],
            rows: loss.rows.iter().map(|(stream, rows)| (*stream, *rows)).collect(),
            offsets: Some(loss.offsets),
            at: now.wall,
        };
        let entered = losses.iter().map(dropped);
        let gone: Vec<_> = entered.chain([Control::SegmentDropped { first, last }]).collect();
        let written = loop {
            match self.enter(|intake, now| intake.enter(now, &gone))? {
                Accepted::Behind => self.catch_up().await?,
                Accepted::Done(written) => break written,
                Accepted::Part(_) | Accepted::Full => {
                    self.intake.spool.put_back(&old);
                    return Ok(false);
                }
            }
        };
        while self.synced.borrow().offset < written {
            self.catch_up().await?;
        }
        for Loss { sink, offsets: (first, last), rows } in &losses {
            let (pipeline, count) = (&self.pipeline, rows.values().sum::<u64>());
            warn!(pipeline, sink, count, "dropped {pipeline} offsets {first} to {last}, {count} rows, for {sink}");
        }
        self.spool.dropped(losses.iter().map(|loss| loss.rows.values().sum()).max().unwrap_or(0));
        // Waited for: a disk that is full has no room before. What is left of it is found again.
        drop(tidy(&self.pipeline, self.intake.spool.remove(&old)).await);
        Ok(true)
    }

    fn sync_at(&self) -> Option<Instant> {
        let waits = self.syncing.is_none() && self.intake.spool.is_unsynced();
        waits.then(|| self.sync_began.map_or_else(Instant::now, |began| began + self.sync_pause))
    }

    /// Begins the next fsync if one is due.
    fn start_sync(&mut self) {
        if self.sync_at().is_some_and(|at| at <= Instant::now()) {
            self.start_sync_now();
        }
    }

    fn start_sync_now(&mut self) {
        if self.syncing.is_none()
            && let Some(job) = self.intake.spool.sync_job()
        {
            self.sync_began = Some(Instant::now());
            self.syncing = Some(outside::spawn_blocking(move || job.run()));
        }
    }

    fn synced(&mut self, done: Result<SyncDone>) -> Result<()> {
        self.syncing = None;
        self.intake.spool.synced(done?)?;
        let now = Instant::now();
        let took = self.sync_began.map_or(Duration::ZERO, |began| now - began);
        let lag = self.waiting_since.map_or(Duration::ZERO, |since| now - since);
        self.waiting_since = self.intake.spool.is_unsynced().then_some(self.sync_began.unwrap_or(now));
        self.spool.waits_since(self.waiting_since);
        self.spool.synced(took, lag);
        let position = self.intake.spool.synced_position();
        self.synced.send_replace(position);
        self.synced_offset.send_replace(position.offset);
        Ok(())
    }

    fn publish_at(&self) -> Option<Instant> {
        self.is_dirty.then(|| self.publish_at.unwrap_or_else(Instant::now))
    }

    fn publish(&mut self) -> Result<()> {
        let now = Instant::now();
        let mut abandoned = Vec::new();
        for ((source, board), tally) in (0..).zip(&mut self.boards).zip(&mut self.intake.tallies) {
            let look = board.publish(&self.intake.continuity, now);
            tally.settle(look.open);
            if !look.abandoned.is_empty() {
                abandoned.push((source, look.abandoned));
            }
        }
        self.is_dirty = false;
        // With very many open gaps it takes no more than a fifth of the time.
        self.publish_at = Some(Instant::now() + PUBLISH_EVERY.max(4 * now.elapsed()));
        for (source, gaps) in abandoned {
            let why = "no longer subscribed to, and not repeatable";
            self.enter(|intake, now| intake.give_up(now, source, &gaps, why))?;
        }
        Ok(())
    }

    fn keep_up_at(&self) -> Instant {
        let pause = if self.is_full { FULL_PAUSE } else { UPKEEP };
        self.kept_up.map_or_else(Instant::now, |kept_up| kept_up + pause)
    }

    /// Lets go of what nobody needs any more.
    fn keep_up(&mut self) {
        self.kept_up = Some(Instant::now());
        let offset = self.floor();
        if let Some(housekeeping) = self.intake.spool.retain(Floor { offset, now: self.began.elapsed() }) {
            // Not waited for: what is left is found again at the next start.
            drop(tidy(&self.pipeline, housekeeping));
        }
        self.spool.size(self.intake.spool.bytes(), self.intake.spool.segments());
        self.spool.lost(self.intake.spool.lost());
        self.look_for_room();
        // Time alone may show that a stream is gone.
        self.is_dirty |= self.intake.continuity.has_gaps();
    }

    /// Forgets the streams that nothing is left of, and enters which ones have gone.
    fn retire(&mut self) -> Result<()> {
        for source in 0..self.boards.len() {
            let gone = self.boards[source].gone(&self.intake.continuity, Instant::now());
            if !gone.is_empty() {
                let entered = self.enter(|intake, now| intake.gone(now, source as u16, gone))?;
                self.is_dirty |= matches!(entered, Accepted::Done(1..));
            }
        }
        let floor = self.floor().min(self.intake.spool.reader().oldest().offset);
        self.enter(|intake, now| intake.retire(now, floor)).map(drop)
    }

    /// Returns the lowest offset up to which every sink has done with the spool.
    fn floor(&self) -> u64 {
        let floor = self.floors.iter().map(|floor| {
            let floor = floor.borrow();
            let known = floor.committed.into_iter().chain(floor.replay_from);
            known.map(|position| position.offset).min().filter(|_| floor.committed.is_some()).unwrap_or(0)
        });
        if holds(Rule::SlowestSink) { floor.min().unwrap_or(0) } else { floor.max().unwrap_or(0) }
    }

    fn now(&self) -> Now {
        Now { wall: Timestamp::now(), mono: self.began.elapsed() }
    }
}

/// Removes files where it holds up nobody.
fn tidy(pipeline: &str, housekeeping: Housekeeping) -> JoinHandle<()> {
    let pipeline = pipeline.to_owned();
    outside::spawn_blocking(move || {
        if let Err(error) = housekeeping.run() {
            warn!(pipeline, error = error.chain(), "an old segment could not be removed");
        }
    })
}

async fn finished(syncing: &mut Option<JoinHandle<SyncDone>>) -> Result<SyncDone> {
    match syncing {
        Some(task) => task.await.map_err(|error| Error::permanent("an fsync has panicked").because(error)),
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Places in the queue of a pipeline.
const QUEUE: usize = 1_024;
const PUBLISH_EVERY: Duration = Duration::from_millis(20);
const UPKEEP: Duration = Duration::from_secs(1);
const FULL_PAUSE: Duration = Duration::from_millis(50);
