//! The handle by which a driver speaks for its stage.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use ::metrics::Gauge;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::{
    delivery::{Balance, Measured},
    metrics::stage_status,
    policy::BreakerSnapshot,
};

use super::{
    Registry, StageId, StageKind,
    evidence::Evidence,
    report::Filling,
    state::{Move, Standing, Status},
};

/// One stage as the registry sees it.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) id: StageId,
    pub(super) origin: Instant,
    pub(super) evidence: Evidence,
    standing: Mutex<Standing>,
    shown: Gauge,
}

/// The health of one stage, in the hands of its driver. Clones speak for the same stage.
///
/// Evidence is left without a lock and with the caller's time, so that it may be left for every frame. A move takes a
/// lock and may write a log line. Its reason says what happens next, as in
/// `connection lost: no pong for 10 s; trying again in 1 s (attempt 1)`, and holds no secret.
#[derive(Debug, Clone)]
pub struct StageHealth {
    stage: Arc<Stage>,
    registry: Registry,
}

impl Stage {
    pub(super) fn new(id: StageId, origin: Instant) -> Self {
        let standing = Mutex::new(Standing::new(Instant::now()));
        let shown = stage_status(&id);
        shown.set(Status::Starting.number());
        Self { id, origin, evidence: Evidence::default(), standing, shown }
    }

    pub(super) fn is_required(&self) -> bool {
        !self.evidence.is_side_input.load(Relaxed)
    }

    pub(super) fn status(&self) -> Status {
        self.standing().status
    }

    /// Returns what was said with the last move.
    pub(super) fn reason(&self) -> String {
        self.with_gaps(self.standing().reason.clone())
    }

    /// Adds to a reason how many gaps wait for what it names: as many as are open now, whenever the reason was given.
    fn with_gaps(&self, reason: String) -> String {
        if !self.evidence.gaps_wait.load(Relaxed) {
            return reason;
        }
        match self.evidence.gaps_open.number() {
            0 => reason,
            1 => format!("{reason}; 1 gap waits"),
            gaps => format!("{reason}; {gaps} gaps wait"),
        }
    }

    /// Returns the state at `now`: what the driver says, unless the evidence shows that the driver is stuck.
    pub(super) fn judged(&self, now: Instant) -> Standing {
        let mut standing = self.standing().clone();
        standing.reason = self.with_gaps(standing.reason);
        if standing.status == Status::Healthy
            && let Some(overdue) = self.overdue(now)
        {
            standing.status = Status::Degraded;
            standing.reason = overdue;
        }
        standing
    }

    fn overdue(&self, now: Instant) -> Option<String> {
        let limit = self.evidence.overdue_after.duration();
        let (waits, what) = match self.id.kind() {
            StageKind::Source => (self.evidence.last_frame.age(self.origin, now)?, "no frame for"),
            StageKind::Sink => {
                let untaken = self.evidence.untaken_since.age(self.origin, now);
                let busy = self.evidence.busy_since.age(self.origin, now);
                match untaken {
                    Some(waits) => (waits, "the oldest row has waited for"),
                    // Who is stuck has not seen yet what came meanwhile.
                    None => (busy?, "it has been at one step for"),
                }
            }
            StageKind::Ledger => {
                (self.evidence.untaken_since.age(self.origin, now)?, "what is durable has been read for")
            }
            StageKind::Spool => {
                (self.evidence.untaken_since.age(self.origin, now)?, "the disk has not made the oldest row durable for")
            }
            StageKind::Host | StageKind::DeadLetters => return None,
        };
        let (waited, allowed) = (waits.as_secs(), limit.as_secs_f64());
        let is_overdue = !limit.is_zero() && waits > limit;
        is_overdue.then(|| format!("{what} {waited} s, expected within {allowed} s; the stage itself reports nothing"))
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Moves. Each returns whether there was such a move: `Failed` and `Stopped` are left by [`restarted`](Self::restarted).
impl StageHealth {
    pub(super) fn new(stage: Arc<Stage>, registry: Registry) -> Self {
        Self { stage, registry }
    }

    /// Says that the stage does what it should.
    pub fn healthy(&self, reason: impl Into<String>) -> bool {
        self.go(Status::Healthy, reason.into())
    }

    /// Says how far a stage has come that has not begun yet; of any other one nothing changes. In no log: it changes often.
    pub(crate) fn starting(&self, reason: impl Into<String>) {
        let reason = printable(&reason.into()).into_owned();
        let _: Move = self.stage.standing().move_to(Status::Starting, reason, Instant::now());
    }

    /// Says that the stage does less than it should and mends itself. A sink's next commit is waited for.
    pub fn degraded(&self, reason: impl Into<String>) -> bool {
        if self.stage.id.kind() == StageKind::Sink {
            self.stage.evidence.is_committed_or_idle.store(false, Relaxed);
        }
        self.go(Status::Degraded, reason.into())
    }

    /// Says that the stage does nothing until a person acts.
    pub fn failed(&self, reason: impl Into<String>) -> bool {
        self.go(Status::Failed, reason.into())
    }

    /// Says that the stage has ended as it was told to.
    pub fn stopped(&self, reason: impl Into<String>) -> bool {
        self.go(Status::Stopped, reason.into())
    }

    /// Says that the stage begins anew, after a panic or by a person's command. Evidence of the present is taken back.
    pub fn restarted(&self, reason: impl Into<String>) {
        self.stage.evidence.restart();
        let reason = reason.into();
        let moved = self.stage.standing().restart(reason.clone(), Instant::now());
        self.tell(moved, Status::Starting, &reason);
    }

    fn go(&self, status: Status, reason: String) -> bool {
        let reason = printable(&reason).into_owned();
        let moved = self.stage.standing().move_to(status, reason.clone(), Instant::now());
        self.tell(moved, status, &self.stage.with_gaps(reason));
        moved != Move::Refused
    }

    /// Writes the log line of a move, if it is worth one.
    fn tell(&self, moved: Move, status: Status, reason: &str) {
        let Move::Told { from } = moved else { return };
        self.stage.shown.set(status.number());
        let id = &self.stage.id;
        let (pipeline, stage) = (id.pipeline(), id.stage());
        let subject = self.subject();
        match status {
            // One line when the last stage of a pipeline has begun, not one for each.
            Status::Healthy if from == Status::Starting && !self.registry.is_healthy(pipeline) => {
                debug!(pipeline, stage, %status, "{status} {id} {reason}");
            }
            // Whichever stage was the last, of a pipeline that is there people want to know what comes.
            Status::Healthy if from == Status::Starting => {
                let (source, reason) =
                    self.registry.source_reason(pipeline).unwrap_or_else(|| (stage, reason.to_owned()));
                info!(pipeline, stage = source, %status, "{status} {subject} {reason}");
            }
            // A pipeline is healthy when all of it is: else only the stage that has recovered.
            Status::Healthy if !self.registry.is_healthy(pipeline) => {
                info!(pipeline, stage, %status, "{status} {id} {reason}");
            }
            // The pipeline says in one line how all of its stages have ended.
            Status::Stopped => debug!(pipeline, stage, %status, "{status} {subject} {reason}"),
            Status::Healthy | Status::Starting => {
                info!(pipeline, stage, %status, "{status} {subject} {reason}");
            }
            Status::Degraded => warn!(pipeline, stage, %status, "{status} {subject} {reason}"),
            Status::Failed => error!(pipeline, stage, %status, "{status} {subject} {reason}"),
        }
    }

    /// Returns the pipeline's name, with the stage's where the pipeline has more than one of the kind.
    pub(crate) fn subject(&self) -> String {
        let id = &self.stage.id;
        if id.pipeline().is_empty() || self.registry.has_sibling(id) { id.to_string() } else { id.pipeline().into() }
    }
}

/// What the stage is.
impl StageHealth {
    /// Returns the stage's name.
    pub fn id(&self) -> &StageId {
        &self.stage.id
    }

    /// Returns the state that the last move led to.
    pub fn status(&self) -> Status {
        self.stage.status()
    }

    /// Marks the stage as a side input: it is shown, but neither the whole's status nor its readiness waits for it.
    pub fn side_input(&self) {
        self.stage.evidence.is_side_input.store(true, Relaxed);
    }

    /// Sets after how long without a frame (source), or with a row that the store has not taken (sink), a healthy stage is
    /// shown as degraded, although its driver says nothing: the driver itself may be stuck.
    pub fn overdue_after(&self, limit: Duration) {
        self.stage.evidence.overdue_after.set_duration(limit);
    }
}

/// Evidence of a source.
impl StageHealth {
    /// Notes that a frame came.
    pub fn frame(&self, now: Instant) {
        self.stage.evidence.last_frame.set(self.stage.origin, now);
    }

    /// Notes that rows came, live.
    pub fn received(&self, now: Instant, rows: u64) {
        self.stage.evidence.last_record.set(self.stage.origin, now);
        self.stage.evidence.rows_received.add(rows);
    }

    /// Notes that rows came by backfill.
    pub fn backfilled(&self, rows: u64) {
        self.stage.evidence.rows_backfilled.add(rows);
    }

    /// Sets how many connections are open.
    pub fn connections(&self, open: u64) {
        self.stage.evidence.connections.set(open);
    }

    /// Sets how many subscriptions are wanted, and what the venue says of them.
    pub fn subscriptions(&self, wanted: u64, confirmed: u64, refused: u64) {
        self.stage.evidence.subscriptions_wanted.set(wanted);
        self.stage.evidence.subscriptions_confirmed.set(confirmed);
        self.stage.evidence.subscriptions_refused.set(refused);
    }

    /// Sets how many confirmed subscriptions bring no message, and the first of them.
    pub(crate) fn quiet<'c>(&self, count: u64, first: impl Iterator<Item = &'c str>) {
        self.stage.evidence.set_quiet(count, first.map(|name| printable(name).into_owned()).collect());
    }

    /// Notes that the venue has answered for every subscription that is wanted: the source is ready.
    pub fn subscribed(&self) {
        self.stage.evidence.is_subscribed.store(true, Relaxed);
    }

    /// Notes that the session has ended: the source is not ready.
    pub fn unsubscribed(&self) {
        self.stage.evidence.is_subscribed.store(false, Relaxed);
    }

    /// Sets how many messages of each part of a log are not stored yet.
    pub fn lags(&self, lags: BTreeMap<String, u64>) {
        self.stage.evidence.set_lags(lags);
    }

    /// Sets whether gaps wait for what the reason names, which then says how many are open.
    pub(crate) fn gaps_wait(&self, wait: bool) {
        self.stage.evidence.gaps_wait.store(wait, Relaxed);
    }

    /// Sets how many gaps are open.
    pub fn gaps_open(&self, gaps: u64) {
        self.stage.evidence.gaps_open.set(gaps);
    }

    /// Shows how far the filling of gaps has come.
    pub fn filling(&self, filling: Option<Filling>) {
        self.stage.evidence.set_filling(filling);
    }

    /// Counts gaps that were filled, or shown to be none.
    pub fn gaps_filled(&self, gaps: u64) {
        self.stage.evidence.gaps_filled.add(gaps);
    }

    /// Counts gaps of books that began anew with a whole state.
    pub fn gaps_resynchronised(&self, gaps: u64) {
        self.stage.evidence.gaps_resynchronised.add(gaps);
    }

    /// Adds a time in which nobody listened to what the venue does not repeat.
    pub fn unrepeatable(&self, missed: Duration) {
        self.stage.evidence.unrepeatable.add(u64::try_from(missed.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts gaps whose rows nobody can give back.
    pub fn gaps_lost(&self, gaps: u64) {
        self.stage.evidence.gaps_lost.add(gaps);
    }
}

/// Evidence of a sink, and of what both have.
impl StageHealth {
    /// Notes that the store has committed rows, or an empty chunk.
    pub fn committed(&self, now: Instant, rows: u64) {
        let oldest = self.stage.evidence.uncommitted_since.age(self.stage.origin, now);
        if let Some(waited) = oldest.filter(|_| rows > 0) {
            self.stage.evidence.waits.add(waited);
        }
        self.stage.evidence.last_commit.set(self.stage.origin, now);
        self.stage.evidence.rows_committed.add(rows);
        self.stage.evidence.is_committed_or_idle.store(true, Relaxed);
    }

    /// Notes that the store has taken rows and will make them durable later.
    pub fn accepted(&self) {
        self.stage.evidence.is_committed_or_idle.store(true, Relaxed);
    }

    /// Sets how many rows the store has accepted and not yet made durable.
    pub fn accepted_rows(&self, rows: u64) {
        self.stage.evidence.rows_accepted.set(rows);
    }

    /// Sets when the oldest row came that is accepted and not yet durable; `None` if there is none.
    pub fn accepted_since(&self, arrival: Option<Instant>) {
        self.stage.evidence.accepted_since.set_or_clear(self.stage.origin, arrival);
    }

    /// Notes that the store was opened, and is ours.
    pub fn owned(&self, now: Instant) {
        self.stage.evidence.owned_since.set(self.stage.origin, now);
    }

    /// Notes that nobody knows whose the store is: a call has failed. The next opening tells.
    pub fn disowned(&self) {
        self.stage.evidence.owned_since.clear();
    }

    /// Sets for which tables the store promises less than it does in general, and why.
    pub fn weaker(&self, tables: Vec<String>) {
        self.stage.evidence.set_weaker(tables);
    }

    /// Sets what keys made of the rows so far.
    pub fn keys<'a>(&self, keys: impl Iterator<Item = &'a Measured>) {
        self.stage.evidence.set_keys(keys);
    }

    /// Sets what became of every offset up to the committed one.
    pub fn balance(&self, balance: &Balance) {
        self.stage.evidence.set_balance(*balance);
    }

    /// Notes that the store is open and nothing waits for it.
    pub fn idle(&self) {
        self.stage.evidence.uncommitted_since.clear();
        self.stage.evidence.untaken_since.clear();
        self.stage.evidence.is_committed_or_idle.store(true, Relaxed);
    }

    /// Sets when the oldest row came that is not committed; `None` if there is none.
    pub fn uncommitted_since(&self, arrival: Option<Instant>) {
        self.stage.evidence.uncommitted_since.set_or_clear(self.stage.origin, arrival);
    }

    /// Sets when the oldest row came that is neither committed nor accepted; `None` if there is none. Of a ledger: when it
    /// began to read what it reads now. Of a spool: when the oldest row came that its disk has not made durable.
    pub fn untaken_since(&self, arrival: Option<Instant>) {
        self.stage.evidence.untaken_since.set_or_clear(self.stage.origin, arrival);
    }

    /// Sets when the stage began what it is at now; `None` while it waits for something to do.
    pub(crate) fn busy_since(&self, began: Option<Instant>) {
        self.stage.evidence.busy_since.set_or_clear(self.stage.origin, began);
    }

    /// Notes that the stage was probed, and how long that took.
    pub fn checked(&self, now: Instant, took: Duration) {
        self.stage.evidence.last_check.set(self.stage.origin, now);
        self.stage.evidence.check_took.set_duration(took);
        self.took(took);
    }

    /// Notes how long something took that shows that the stage works: a round trip, an fsync, a commit, a write.
    pub fn took(&self, took: Duration) {
        self.stage.evidence.set_took(took);
    }

    /// Sets what a breaker looks like. To be called when its state has changed.
    pub fn breaker(&self, name: &str, now: Instant, snapshot: BreakerSnapshot) {
        self.stage.evidence.set_breaker(name, snapshot, now);
    }
}

/// Evidence of a spool, a ledger and dead letters.
impl StageHealth {
    /// Notes that rows were appended.
    pub fn appended(&self, now: Instant, rows: u64) {
        self.received(now, rows);
    }

    /// Counts rows that the spool could not keep.
    pub fn dropped(&self, rows: u64) {
        self.stage.evidence.rows_dropped.add(rows);
    }

    /// Sets how many bytes the spool takes and may take.
    pub fn spool_bytes(&self, bytes: u64, limit: u64) {
        self.stage.evidence.spool_bytes.set(bytes);
        self.stage.evidence.spool_limit.set(limit);
    }

    /// Sets how long the last append waited for its fsync.
    pub fn synced_lag(&self, lag: Duration) {
        self.stage.evidence.synced_lag.set_duration(lag);
    }

    /// Notes that the ledger goes up to an offset, and of how many streams something is asked for.
    pub fn ledger(&self, now: Instant, offset: u64, open: usize) {
        self.stage.evidence.last_commit.set(self.stage.origin, now);
        self.stage.evidence.untaken_since.clear();
        self.stage.evidence.offset.set(offset);
        self.stage.evidence.gaps_open.set(open as u64);
    }

    /// Sets how many rows are kept as dead letters.
    pub fn dead_letters(&self, letters: u64) {
        self.stage.evidence.dead_letters.set(letters);
    }
}

/// Returns a text of somebody else's with its control characters escaped: it forges no line of a log and moves no cursor.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(escaped).collect())
}
