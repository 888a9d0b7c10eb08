//! What `/health` answers.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use serde::Serialize;
use tokio::time::Instant;

use crate::{
    delivery::{Balance, Fates, Measured},
    policy::{BreakerSnapshot, BreakerState},
};

use super::{
    StageKind,
    stage::Stage,
    state::{Standing, Status},
};

/// Everything that is known of all stages at one moment. Serialised, it is the body of `/health`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The worst state of all required stages.
    pub status: Status,
    /// When it was made, RFC 3339 in UTC.
    pub timestamp: String,
    /// What is known of each stage, by its name: `deribit-eth/source.deribit`.
    pub checks: BTreeMap<String, Check>,
}

/// What is known of one stage.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// How it is doing.
    pub status: Status,
    /// When it last gave a sign of life: a frame, a commit, a probe, a change of state.
    pub last_check: String,
    /// How long the last thing took that shows that it works; `None` before the first one. Of a source on a WebSocket: from a ping
    /// to its answer, before the first answer from asking for a channel to its confirmation. Of a spool: an fsync. Of a sink: a
    /// commit or a probe. Of a ledger and of dead letters: a write. Others have none.
    pub duration: Option<String>,
    /// Since when it is in this state.
    pub since: String,
    /// Why, and what happens next.
    pub reason: String,
    /// Whether the status of the whole depends on it.
    pub required: bool,
    /// What only stages of its kind have.
    #[serde(flatten)]
    pub detail: Detail,
}

/// What only stages of one kind have.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Detail {
    /// Of a source.
    Source(SourceDetail),
    /// Of a spool.
    Spool(SpoolDetail),
    /// Of a ledger.
    Ledger(LedgerDetail),
    /// Of a sink.
    Sink(SinkDetail),
    /// Of dead letters.
    DeadLetters(DeadLettersDetail),
    /// Of the process: nothing more.
    Host {},
}

/// What is known of a source.
#[derive(Debug, Clone, Serialize)]
pub struct SourceDetail {
    /// Whether the venue has answered for every subscription.
    pub subscribed: bool,
    /// Connections that are open.
    pub connections: u64,
    /// What was asked for, and what became of it.
    pub subscriptions: Subscriptions,
    /// The first of the quiet ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quiet_channels: Vec<String>,
    /// When the last frame came.
    pub last_frame: Option<String>,
    /// When the last row came.
    pub last_row: Option<String>,
    /// Rows that came live since the start.
    pub rows_received: u64,
    /// Rows that came by backfill since the start.
    pub rows_backfilled: u64,
    /// What is missing, and what became of it.
    pub gaps: Gaps,
    /// Of a source that is a log itself: how many messages of each of its parts that are read here are not stored yet.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub lag: BTreeMap<String, u64>,
    /// The breakers of the `connection` and of each host of the REST interface (`rest HOST`).
    pub breakers: BTreeMap<String, BreakerCheck>,
}

/// Subscriptions by what the venue says of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Subscriptions {
    /// Asked for.
    pub wanted: u64,
    /// Confirmed.
    pub confirmed: u64,
    /// Refused, also silently.
    pub refused: u64,
    /// Confirmed, and without a message for `quiet_after`, or ever; the other confirmed ones have data. Looked at ten times within
    /// that time.
    pub quiet: u64,
}

/// How far the filling of gaps has come, since somebody listens again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Filling {
    /// Gaps that are filled, or shown to be none.
    pub filled: u64,
    /// Gaps of which something is lost.
    pub lost: u64,
    /// How many there were in all.
    pub of: u64,
    /// Rows that the venue's history gave.
    pub rows: u64,
    /// About how long the rest will take; absent as long as nothing tells.
    pub seconds_left: Option<f64>,
}

/// Gaps by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Gaps {
    /// Not closed yet.
    pub open: u64,
    /// Filled, or shown to be none.
    pub filled: u64,
    /// Of books: nobody repeats the changes before their next whole state.
    pub resynchronised: u64,
    /// What was missing could have been had, and cannot any more: that of which `coverage` says that it is lost.
    pub lost: u64,
    /// How far the filling of those that are open has come; absent where nobody is asked.
    pub filling: Option<Filling>,
    /// For so long since the start, and before it since the last run, nobody listened to what the venue does not repeat, such
    /// as tickers: nobody can tell those of that time. An absence counts when it is over.
    pub unrepeatable_seconds: f64,
}

/// What is known of a spool.
#[derive(Debug, Clone, Serialize)]
pub struct SpoolDetail {
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes that it may take; 0 is no limit.
    pub max_bytes: u64,
    /// When the last row was appended.
    pub last_row: Option<String>,
    /// Rows appended since the start.
    pub rows_appended: u64,
    /// Rows that it could not keep, since the start. Those that the venue's history repeats are asked for again, and count twice
    /// if there is no room then either; what is lost of them `tidegate coverage` says.
    pub rows_dropped: u64,
    /// How long the last append waited for its fsync.
    pub synced_lag_seconds: f64,
}

/// What is known of a ledger.
#[derive(Debug, Clone, Serialize)]
pub struct LedgerDetail {
    /// When it was written last.
    pub last_commit: Option<String>,
    /// Up to which offset it has read the spool.
    pub offset: u64,
    /// Streams of which something may be missing, that is asked for.
    pub streams_open: u64,
}

/// What is known of a sink.
#[derive(Debug, Clone, Serialize)]
pub struct SinkDetail {
    /// Whether it is ready: it has committed or accepted rows since it was last in trouble, or nothing waits for it.
    pub committed_or_idle: bool,
    /// When it last committed.
    pub last_commit: Option<String>,
    /// Rows committed since the start.
    pub rows_committed: u64,
    /// Rows that the store has taken and will make durable later, as a Parquet file at its end: no fault. They stay in the
    /// spool until then.
    pub rows_accepted: u64,
    /// How long the oldest of them has waited for that; `None` if none does.
    pub oldest_accepted_seconds: Option<f64>,
    /// Since when the store is open and ours; `None` while nobody knows, since a call has failed. Looked at by each probe.
    pub owned_since: Option<String>,
    /// How long the last probe took that an idle store has answered; `None` before the first one.
    pub probe_seconds: Option<f64>,
    /// Tables for which the store promises less than the sink does in general, and why.
    pub weaker: Vec<String>,
    /// What keys make of the rows, those that are declared and those that the store has, since the start.
    pub keys: Vec<KeyCheck>,
    /// What became of every offset of the spool up to the committed one; `None` until the store was opened.
    pub balance: Option<BalanceCheck>,
    /// How long the oldest row has been waiting until it is durable; `None` if none waits.
    pub oldest_uncommitted_seconds: Option<f64>,
    /// How long the oldest rows of the last commits had waited in the spool; `None` before the first one.
    pub commit_seconds: Option<Quantiles>,
    /// The breaker of the store.
    pub breakers: BTreeMap<String, BreakerCheck>,
}

/// What a key makes of the rows that were sent since the start.
#[derive(Debug, Clone, Serialize)]
pub struct KeyCheck {
    /// In a sentence.
    pub summary: String,
    /// In numbers.
    #[serde(flatten)]
    pub measured: Measured,
}

/// The fates of the offsets behind `since`, up to and including `upto`: each has one, so their sum is the difference. It
/// begins anew where the store went back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BalanceCheck {
    /// Where counting began: what the store had at the start.
    pub since: u64,
    /// What is committed.
    pub upto: u64,
    /// Rows that the store has.
    pub delivered: u64,
    /// Rows of tables that the sink does not take.
    pub filtered: u64,
    /// Rows that the store will never take: dead letters.
    pub refused: u64,
    /// Offsets of control entries.
    pub control: u64,
    /// Offsets that the spool does not have: dropped, corrupt, or cut off as a torn tail.
    pub missing: u64,
}

/// A distribution, in short.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quantiles {
    /// Half of the values are not above it.
    pub p50: f64,
    /// 99 of 100 values are not above it.
    pub p99: f64,
}

/// What is known of a sink's dead letters.
#[derive(Debug, Clone, Serialize)]
pub struct DeadLettersDetail {
    /// Rows that are kept.
    pub dead_letters: u64,
}

/// What is known of a breaker.
#[derive(Debug, Clone, Serialize)]
pub struct BreakerCheck {
    /// Whether calls go out.
    pub state: BreakerState,
    /// The failure that opened it.
    pub reason: Option<String>,
    /// When the next probe may go out.
    pub next_probe: Option<String>,
}

impl Report {
    pub(super) fn of(stages: &[Arc<Stage>], now: Instant) -> Self {
        let clock = Clock { now, wall: SystemTime::now() };
        let mut status = None;
        let mut checks = BTreeMap::new();
        for stage in stages {
            let check = Check::of(stage, &clock);
            if check.required {
                status = status.max(Some(check.status));
            }
            checks.insert(stage.id.to_string(), check);
        }
        // A process without a stage has not begun.
        Self { status: status.unwrap_or(Status::Starting), timestamp: clock.ago(Duration::ZERO), checks }
    }

    /// Returns whether a monitor should be content: the HTTP status is 200 if so, else 503.
    pub fn is_up(&self) -> bool {
        self.status.is_up()
    }
}

impl Check {
    fn of(stage: &Stage, clock: &Clock) -> Self {
        let Standing { status, reason, since, .. } = stage.judged(clock.now);
        let in_state_for = clock.now.saturating_duration_since(since);
        let newest = stage.evidence.newest(stage.origin, clock.now).map_or(in_state_for, |age| age.min(in_state_for));
        Self {
            status,
            last_check: clock.ago(newest),
            duration: stage.evidence.took().map(|took| humantime::format_duration(took).to_string()),
            since: clock.ago(in_state_for),
            reason,
            required: stage.is_required(),
            detail: Detail::of(stage, clock),
        }
    }
}

impl Detail {
    fn of(stage: &Stage, clock: &Clock) -> Self {
        let evidence = &stage.evidence;
        let ago = |stamp: &super::Stamp| stamp.age(stage.origin, clock.now).map(|age| clock.ago(age));
        match stage.id.kind() {
            StageKind::Host => Self::Host {},
            StageKind::Source => Self::Source(SourceDetail {
                subscribed: evidence.is_subscribed.load(Relaxed),
                connections: evidence.connections.number(),
                subscriptions: Subscriptions::of(stage),
                quiet_channels: evidence.quiet(),
                last_frame: ago(&evidence.last_frame),
                last_row: ago(&evidence.last_record),
                rows_received: evidence.rows_received.number(),
                rows_backfilled: evidence.rows_backfilled.number(),
                gaps: Gaps {
                    open: evidence.gaps_open.number(),
                    filled: evidence.gaps_filled.number(),
                    resynchronised: evidence.gaps_resynchronised.number(),
                    lost: evidence.gaps_lost.number(),
                    filling: evidence.filling(),
                    unrepeatable_seconds: evidence.unrepeatable.duration().as_secs_f64(),
                },
                lag: evidence.lags(),
                breakers: breakers(stage, clock),
            }),
            StageKind::Spool => Self::Spool(SpoolDetail {
                bytes: evidence.spool_bytes.number(),
                max_bytes: evidence.spool_limit.number(),
                last_row: ago(&evidence.last_record),
                rows_appended: evidence.rows_received.number(),
                rows_dropped: evidence.rows_dropped.number(),
                synced_lag_seconds: evidence.synced_lag.duration().as_secs_f64(),
            }),
            StageKind::Ledger => Self::Ledger(LedgerDetail {
                last_commit: ago(&evidence.last_commit),
                offset: evidence.offset.number(),
                streams_open: evidence.gaps_open.number(),
            }),
            StageKind::Sink => Self::Sink(SinkDetail {
                committed_or_idle: evidence.is_committed_or_idle.load(Relaxed),
                last_commit: ago(&evidence.last_commit),
                rows_committed: evidence.rows_committed.number(),
                rows_accepted: evidence.rows_accepted.number(),
                oldest_accepted_seconds: evidence
                    .accepted_since
                    .age(stage.origin, clock.now)
                    .map(|age| age.as_secs_f64()),
                owned_since: ago(&evidence.owned_since),
                probe_seconds: evidence
                    .last_check
                    .age(stage.origin, clock.now)
                    .map(|_| evidence.check_took.duration().as_secs_f64()),
                weaker: evidence.weaker(),
                keys: evidence.keys().into_iter().map(KeyCheck::of).collect(),
                balance: evidence.balance().map(BalanceCheck::of),
                oldest_uncommitted_seconds: evidence
                    .uncommitted_since
                    .age(stage.origin, clock.now)
                    .map(|age| age.as_secs_f64()),
                commit_seconds: evidence
                    .waits
                    .p50_and_p99()
                    .map(|(p50, p99)| Quantiles { p50: p50.as_secs_f64(), p99: p99.as_secs_f64() }),
                breakers: breakers(stage, clock),
            }),
            StageKind::DeadLetters => {
                Self::DeadLetters(DeadLettersDetail { dead_letters: evidence.dead_letters.number() })
            }
        }
    }
}

impl KeyCheck {
    fn of(measured: Measured) -> Self {
        Self { summary: measured.to_string(), measured }
    }
}

impl BalanceCheck {
    fn of(Balance { since, upto, fates }: Balance) -> Self {
        let Fates { delivered, filtered, refused, control, missing } = fates;
        Self { since: since.offset, upto: upto.offset, delivered, filtered, refused, control, missing }
    }
}

impl Subscriptions {
    pub(super) fn of(stage: &Stage) -> Self {
        Self {
            wanted: stage.evidence.subscriptions_wanted.number(),
            confirmed: stage.evidence.subscriptions_confirmed.number(),
            refused: stage.evidence.subscriptions_refused.number(),
            quiet: stage.evidence.subscriptions_quiet.number(),
        }
    }
}

fn breakers(stage: &Stage, clock: &Clock) -> BTreeMap<String, BreakerCheck> {
    let mut checks = BTreeMap::new();
    for (name, BreakerSnapshot { state, reason, next_probe_in }) in stage.evidence.breakers_at(clock.now) {
        checks.insert(name, BreakerCheck { state, reason, next_probe: next_probe_in.map(|pause| clock.ahead(pause)) });
    }
    checks
}

/// Turns moments into times of the wall clock, whatever that clock says.
struct Clock {
    now: Instant,
    wall: SystemTime,
}

impl Clock {
    fn ago(&self, age: Duration) -> String {
        rfc3339(self.wall.checked_sub(age))
    }

    fn ahead(&self, pause: Duration) -> String {
        rfc3339(self.wall.checked_add(pause.min(LATEST)))
    }
}

/// A clock that stands before 1970 or after 9999 must not bring the report down: such a time is shown as the border.
fn rfc3339(time: Option<SystemTime>) -> String {
    let since_epoch = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since_epoch.min(LATEST)).to_string()
}

/// The end of the year 9999.
const LATEST: Duration = Duration::from_secs(253_402_300_799);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_centuries_off_is_shown_and_does_not_panic() {
        let long = Duration::from_secs(100);
        let early = Clock { now: Instant::now(), wall: SystemTime::UNIX_EPOCH + Duration::from_secs(3) };
        assert_eq!(early.ago(long), "1970-01-01T00:00:00.000Z");
        let before = Clock { now: Instant::now(), wall: SystemTime::UNIX_EPOCH - long };
        assert_eq!(before.ago(long), "1970-01-01T00:00:00.000Z");
        let late = Clock { now: Instant::now(), wall: SystemTime::UNIX_EPOCH + LATEST };
        assert_eq!(late.ahead(long), "9999-12-31T23:59:59.000Z");
        assert_eq!(late.ahead(Duration::MAX), "9999-12-31T23:59:59.000Z");
    }
}
