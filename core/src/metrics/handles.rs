//! The handles of each stage's metrics.

use std::marker::PhantomData;

use ::metrics::{Counter, Gauge, Histogram, Label};

use crate::{health::StageId, policy::BreakerState, spool::GapOutcome};

use super::Metric;

/// What the driver of a source counts.
#[derive(Debug, Clone)]
pub struct SourceMetrics {
    /// Frames that came.
    pub frames: Counter,
    /// Their bytes.
    pub received_bytes: Counter,
    /// Rows that came live.
    pub records: Counter,
    /// Frames and events that could not be read.
    pub malformed: Counter,
    /// Messages and values that were left out on purpose.
    pub ignored: ByReason,
    /// Rows that were proved to be there already.
    pub duplicates: Counter,
    /// Rows that were kept although another one has the same position.
    pub position_conflicts: Counter,
    /// Rows that came by backfill.
    pub backfilled_rows: Counter,
    /// Gaps that were found.
    pub gaps_opened: Counter,
    /// Gaps that are over.
    pub gaps_closed: ByLabel<GapOutcome, Counter>,
    /// Gaps that are open.
    pub gaps_open: Gauge,
    /// Seconds of which nobody can repeat a record.
    pub unrepeatable_seconds: Counter,
    /// Open connections.
    pub connections: Gauge,
    /// Connections that ended or did not come about.
    pub reconnects: ByLabel<ReconnectReason, Counter>,
    /// Sessions that were ended because the spool could not keep up.
    pub session_overflows: Counter,
    /// Subscriptions.
    pub subscriptions: ByLabel<SubscriptionState, Gauge>,
    /// Requests to the API.
    pub rest_requests: ByLabel<RestOutcome, Counter>,
}

impl SourceMetrics {
    /// Registers the metrics of a source.
    pub fn new(id: &StageId) -> Self {
        let labels = stage_labels(id);
        Self {
            frames: counter(&super::FRAMES, &labels),
            received_bytes: counter(&super::RECEIVED_BYTES, &labels),
            records: counter(&super::RECORDS, &labels),
            malformed: counter(&super::MALFORMED, &labels),
            ignored: ByReason::new(&super::IGNORED, &labels),
            duplicates: counter(&super::DUPLICATES, &labels),
            position_conflicts: counter(&super::POSITION_CONFLICTS, &labels),
            backfilled_rows: counter(&super::BACKFILLED_ROWS, &labels),
            gaps_opened: counter(&super::GAPS_OPENED, &labels),
            gaps_closed: ByLabel::new(&super::GAPS_CLOSED, &labels, counter),
            gaps_open: gauge(&super::GAPS_OPEN, &labels),
            unrepeatable_seconds: counter(&super::UNREPEATABLE_SECONDS, &labels),
            connections: gauge(&super::CONNECTIONS, &labels),
            reconnects: ByLabel::new(&super::RECONNECTS, &labels, counter),
            session_overflows: counter(&super::SESSION_OVERFLOWS, &labels),
            subscriptions: ByLabel::new(&super::SUBSCRIPTIONS, &labels, gauge),
            rest_requests: ByLabel::new(&super::REST_REQUESTS, &labels, counter),
        }
    }
}

/// What a spool counts.
#[derive(Debug, Clone)]
pub struct SpoolMetrics {
    /// Bytes on disk.
    pub bytes: Gauge,
    /// Segments.
    pub segments: Gauge,
    /// Entries that were appended.
    pub entries: Counter,
    /// Rows that the full spool did not keep.
    pub dropped_rows: Counter,
    /// Offsets that cannot be read any more.
    pub lost_offsets: Gauge,
    /// How long an fsync takes, in seconds.
    pub fsync: Histogram,
    /// How long the last fsynced entry had waited, in seconds.
    pub synced_lag: Gauge,
}

impl SpoolMetrics {
    /// Registers the metrics of a spool.
    pub fn new(id: &StageId) -> Self {
        let labels = stage_labels(id);
        Self {
            bytes: gauge(&super::SPOOL_BYTES, &labels),
            segments: gauge(&super::SPOOL_SEGMENTS, &labels),
            entries: counter(&super::SPOOL_ENTRIES, &labels),
            dropped_rows: counter(&super::SPOOL_DROPPED_ROWS, &labels),
            lost_offsets: gauge(&super::SPOOL_LOST_OFFSETS, &labels),
            fsync: histogram(&super::SPOOL_FSYNC, &labels),
            synced_lag: gauge(&super::SPOOL_SYNCED_LAG, &labels),
        }
    }
}

/// What the driver of a sink counts.
#[derive(Debug, Clone)]
pub struct SinkMetrics {
    /// Rows that the store has committed.
    pub committed_rows: Counter,
    /// Chunks that the store has committed.
    pub chunks: Counter,
    /// Calls that failed and are made again.
    pub retries: Counter,
    /// Rows that the store will never take.
    pub refused_rows: Counter,
    /// Rows that are kept as dead letters.
    pub dead_letters: Gauge,
    /// How long the oldest row that is not committed has been waiting, in seconds.
    pub uncommitted_age: Gauge,
    /// How long the store takes for a chunk, in seconds.
    pub write: Histogram,
    /// How long the store takes to answer when it is idle, in seconds.
    pub probe: Histogram,
}

impl SinkMetrics {
    /// Registers the metrics of a sink.
    pub fn new(id: &StageId) -> Self {
        let labels = stage_labels(id);
        Self {
            committed_rows: counter(&super::SINK_COMMITTED_ROWS, &labels),
            chunks: counter(&super::SINK_CHUNKS, &labels),
            retries: counter(&super::SINK_RETRIES, &labels),
            refused_rows: counter(&super::SINK_REFUSED_ROWS, &labels),
            dead_letters: gauge(&super::SINK_DEAD_LETTERS, &labels),
            uncommitted_age: gauge(&super::SINK_UNCOMMITTED_AGE, &labels),
            write: histogram(&super::SINK_WRITE, &labels),
            probe: histogram(&super::SINK_PROBE, &labels),
        }
    }
}

/// Shows one breaker of a stage.
#[derive(Debug, Clone)]
pub struct BreakerMetrics(Gauge);

impl BreakerMetrics {
    /// Registers the breaker `name` of a stage, closed.
    pub fn new(id: &StageId, name: &str) -> Self {
        let labels = with(&stage_labels(id), "breaker", name.to_owned());
        let breaker = Self(gauge(&super::BREAKER_STATE, &labels));
        breaker.show(BreakerState::Closed);
        breaker
    }

    /// Shows its state.
    pub fn show(&self, state: BreakerState) {
        self.0.set(match state {
            BreakerState::Closed => 0.0,
            BreakerState::HalfOpen => 1.0,
            BreakerState::Open => 2.0,
        });
    }
}

/// Shows that a pipeline runs.
#[derive(Debug, Clone)]
pub struct PipelineMetrics(Gauge);

impl PipelineMetrics {
    /// Registers a pipeline of this version of the program, as not running.
    pub fn new(pipeline: &str, version: &str) -> Self {
        let labels = with(&[Label::new("pipeline", pipeline.to_owned())], "version", version.to_owned());
        Self(gauge(&super::PIPELINE_INFO, &labels))
    }

    /// Shows that it runs.
    pub fn started(&self) {
        self.0.set(1.0);
    }

    /// Shows that it has ended.
    pub fn stopped(&self) {
        self.0.set(0.0);
    }
}

/// Registers the gauge that shows a stage's state.
pub(crate) fn stage_status(id: &StageId) -> Gauge {
    gauge(&super::STAGE_STATUS, &stage_labels(id))
}

/// A value that stands in the third label of a metric, behind pipeline and stage.
pub trait LabelValue {
    /// The label.
    const LABEL: &'static str;
    /// Every value, in the order of [`number`](Self::number).
    const NAMES: &'static [&'static str];

    /// Returns where the value stands in `NAMES`.
    fn number(&self) -> usize;
}

/// One handle for each value of a label, all of them registered at once.
#[derive(Debug, Clone)]
pub struct ByLabel<V, H> {
    handles: Vec<H>,
    values: PhantomData<fn(V)>,
}

impl<V: LabelValue, H> ByLabel<V, H> {
    fn new(metric: &Metric, labels: &[Label], register: fn(&Metric, &[Label]) -> H) -> Self {
        let handle = |name: &&'static str| register(metric, &with(labels, V::LABEL, (*name).to_owned()));
        Self { handles: V::NAMES.iter().map(handle).collect(), values: PhantomData }
    }

    /// Returns the handle of a value.
    pub fn of(&self, value: &V) -> &H {
        &self.handles[value.number()]
    }
}

/// A counter for each reason, made when it is needed first. Reasons are texts of the program: there are few.
#[derive(Debug, Clone)]
pub struct ByReason {
    metric: &'static Metric,
    labels: Vec<Label>,
    counters: Vec<(&'static str, Counter)>,
}

impl ByReason {
    fn new(metric: &'static Metric, labels: &[Label]) -> Self {
        let mut counters = Self { metric, labels: labels.to_vec(), counters: Vec::new() };
        // Something to add up before there is a reason.
        counters.of("none");
        counters
    }

    /// Returns the counter of a reason.
    pub fn of(&mut self, reason: &'static str) -> &Counter {
        let known = self.counters.iter().position(|(known, _)| *known == reason);
        let place = known.unwrap_or_else(|| {
            let labels = with(&self.labels, "reason", reason.to_owned());
            self.counters.push((reason, counter(self.metric, &labels)));
            self.counters.len() - 1
        });
        &self.counters[place].1
    }
}

impl LabelValue for GapOutcome {
    const LABEL: &'static str = "outcome";
    const NAMES: &'static [&'static str] = &["live", "backfilled", "absent", "lost", "resynchronised"];

    fn number(&self) -> usize {
        match self {
            Self::Live => 0,
            Self::Backfilled => 1,
            Self::Absent => 2,
            Self::Lost(_) => 3,
            Self::Resynchronised => 4,
        }
    }
}

/// Why a connection is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReconnectReason {
    /// It did not come about.
    ConnectFailed,
    /// The venue closed it.
    Closed,
    /// It broke.
    Broken,
    /// No frame or pong came in time.
    DeadLink,
    /// Frames came, but no row.
    Silence,
    /// The protocol gave it up: refused credentials, another venue than expected.
    Refused,
    /// The spool could not keep up.
    Overflow,
    /// It was due, before the venue's own cut-off or on a change of what is wanted.
    Planned,
    /// This process stood still, and nobody knows what the venue gave up meanwhile.
    StoodStill,
}

impl LabelValue for ReconnectReason {
    const LABEL: &'static str = "reason";
    const NAMES: &'static [&'static str] =
        &["connect_failed", "closed", "broken", "no_pong", "silence", "refused", "overflow", "planned", "stood_still"];

    fn number(&self) -> usize {
        *self as usize
    }
}

/// What became of subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriptionState {
    /// Asked for.
    Wanted,
    /// Confirmed by the venue.
    Confirmed,
    /// Refused by the venue, also silently.
    Refused,
    /// Confirmed, and without a message for `quiet_after` or ever; the other confirmed ones have data.
    Quiet,
}

impl LabelValue for SubscriptionState {
    const LABEL: &'static str = "state";
    const NAMES: &'static [&'static str] = &["wanted", "confirmed", "refused", "quiet"];

    fn number(&self) -> usize {
        *self as usize
    }
}

/// How a request to a venue's API ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestOutcome {
    /// With an answer.
    Ok,
    /// Put off: too many requests.
    RateLimited,
    /// Refused as wrong.
    ClientError,
    /// With a failure of the venue.
    ServerError,
    /// Not in time.
    TimedOut,
    /// Without reaching the venue.
    Unreachable,
    /// With an answer that could not be read.
    Malformed,
}

impl LabelValue for RestOutcome {
    const LABEL: &'static str = "outcome";
    const NAMES: &'static [&'static str] =
        &["ok", "rate_limited", "client_error", "server_error", "timed_out", "unreachable", "malformed"];

    fn number(&self) -> usize {
        *self as usize
    }
}

fn counter(metric: &Metric, labels: &[Label]) -> Counter {
    let counter = ::metrics::counter!(metric.name, labels.to_vec());
    counter.increment(0);
    counter
}

fn gauge(metric: &Metric, labels: &[Label]) -> Gauge {
    let gauge = ::metrics::gauge!(metric.name, labels.to_vec());
    gauge.increment(0.0);
    gauge
}

fn histogram(metric: &Metric, labels: &[Label]) -> Histogram {
    ::metrics::histogram!(metric.name, labels.to_vec())
}

fn stage_labels(id: &StageId) -> Vec<Label> {
    vec![Label::new("pipeline", id.pipeline().to_owned()), Label::new("stage", id.stage())]
}

fn with(labels: &[Label], key: &'static str, value: String) -> Vec<Label> {
    let mut labels = labels.to_vec();
    labels.push(Label::new(key, value));
    labels
}
