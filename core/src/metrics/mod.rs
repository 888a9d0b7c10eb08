//! Every metric that there is, in one list, and the handles by which drivers count.
//!
//! A driver makes its stage's handles once ([`SourceMetrics`], [`SpoolMetrics`], [`SinkMetrics`]); counting is then one
//! atomic addition. They belong to the recorder that is installed at that moment, so the exporter comes first. A handle
//! is shown as 0 from its beginning: a counter that appears with its first error cannot be alerted on. What a
//! protocol leaves out on purpose has reasons of its own, each of which appears when it happens, beside an empty one.

mod handles;

use ::metrics::Unit;
pub(crate) use handles::stage_status;
pub use handles::{
    BreakerMetrics, ByLabel, ByReason, LabelValue, PipelineMetrics, ReconnectReason, RestOutcome, SinkMetrics,
    SourceMetrics, SpoolMetrics, SubscriptionState,
};

/// One metric as dashboards see it.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// The full name.
    pub name: &'static str,
    /// What its numbers do.
    pub kind: MetricKind,
    /// What it counts or measures.
    pub unit: Unit,
    /// Its labels, always all of them.
    pub labels: &'static [&'static str],
    /// What it says, in one sentence.
    pub help: &'static str,
}

/// What the numbers of a metric do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetricKind {
    /// Grows only.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Is a distribution.
    Histogram,
}

impl Metric {
    const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: MetricKind::Counter, unit: Unit::Count, labels, help }
    }

    const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: MetricKind::Gauge, unit: Unit::Count, labels, help }
    }

    const fn seconds(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: MetricKind::Histogram, unit: Unit::Seconds, labels: STAGE, help }
    }

    const fn in_unit(self, unit: Unit) -> Self {
        Self { unit, ..self }
    }
}

/// Tells the installed recorder what each metric means. Called once, by whoever installed it.
pub fn describe_all() {
    for metric in ALL {
        match metric.kind {
            MetricKind::Counter => ::metrics::describe_counter!(metric.name, metric.unit, metric.help),
            MetricKind::Gauge => ::metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            MetricKind::Histogram => ::metrics::describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
}

/// The bounds, in seconds, that an exporter should sort durations by: from a fast fsync to a slow store.
pub const SECONDS_BUCKETS: &[f64] =
    &[0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

const STAGE: &[&str] = &["pipeline", "stage"];

const PIPELINE_INFO: Metric =
    Metric::gauge("tidegate_pipeline_info", &["pipeline", "version"], "Is 1 for each pipeline that runs.");
const STAGE_STATUS: Metric = Metric::gauge(
    "tidegate_stage_status",
    STAGE,
    "Is 0 for a healthy stage, 1 for a starting, 2 for a degraded, 3 for a stopped and 4 for a failed one.",
);
const BREAKER_STATE: Metric = Metric::gauge(
    "tidegate_breaker_state",
    &["pipeline", "stage", "breaker"],
    "Is 0 for a closed breaker, 1 for a half-open and 2 for an open one.",
);

const FRAMES: Metric = Metric::counter("tidegate_frames_total", STAGE, "Counts frames that a venue sent.");
const RECEIVED_BYTES: Metric =
    Metric::counter("tidegate_received_bytes_total", STAGE, "Counts bytes of frames that a venue sent.")
        .in_unit(Unit::Bytes);
const RECORDS: Metric = Metric::counter("tidegate_received_rows_total", STAGE, "Counts rows that came live.");
const MALFORMED: Metric =
    Metric::counter("tidegate_malformed_total", STAGE, "Counts frames and events that could not be read.");
const IGNORED: Metric = Metric::counter(
    "tidegate_ignored_total",
    &["pipeline", "stage", "reason"],
    "Counts messages and values that a source leaves out on purpose, by why.",
);
const DUPLICATES: Metric =
    Metric::counter("tidegate_duplicates_total", STAGE, "Counts rows that were proved to be there already.");
const POSITION_CONFLICTS: Metric = Metric::counter(
    "tidegate_position_conflicts_total",
    STAGE,
    "Counts rows that were kept although another one has the same position.",
);
const BACKFILLED_ROWS: Metric =
    Metric::counter("tidegate_backfilled_rows_total", STAGE, "Counts rows that came by backfill.");
const GAPS_OPENED: Metric =
    Metric::counter("tidegate_gaps_opened_total", STAGE, "Counts gaps that were found in numbered streams.");
const GAPS_CLOSED: Metric = Metric::counter(
    "tidegate_gaps_closed_total",
    &["pipeline", "stage", "outcome"],
    "Counts gaps that are over, by how they ended.",
);
const GAPS_OPEN: Metric =
    Metric::gauge("tidegate_gaps_open", STAGE, "Shows how many gaps of streams that are collected are open.");
const UNREPEATABLE_SECONDS: Metric = Metric::counter(
    "tidegate_unrepeatable_seconds_total",
    STAGE,
    "Counts seconds of which a stream is lost that a venue does not repeat: while nobody listened, added when it is over.",
)
.in_unit(Unit::Seconds);
const CONNECTIONS: Metric = Metric::gauge("tidegate_connections", STAGE, "Shows how many connections are open.");
const RECONNECTS: Metric = Metric::counter(
    "tidegate_reconnects_total",
    &["pipeline", "stage", "reason"],
    "Counts connections that ended or did not come about, by why.",
);
const SESSION_OVERFLOWS: Metric = Metric::counter(
    "tidegate_session_overflows_total",
    STAGE,
    "Counts sessions that were ended because the spool could not keep up.",
);
const SUBSCRIPTIONS: Metric = Metric::gauge(
    "tidegate_subscriptions",
    &["pipeline", "stage", "state"],
    "Shows how many subscriptions are wanted, how many the venue has confirmed and refused, and how many confirmed ones are quiet.",
);
const REST_REQUESTS: Metric = Metric::counter(
    "tidegate_rest_requests_total",
    &["pipeline", "stage", "outcome"],
    "Counts requests to a venue's REST interface, by how they ended.",
);

const SPOOL_BYTES: Metric =
    Metric::gauge("tidegate_spool_bytes", STAGE, "Shows how many bytes the spool takes on disk.").in_unit(Unit::Bytes);
const SPOOL_SEGMENTS: Metric =
    Metric::gauge("tidegate_spool_segments", STAGE, "Shows how many segments the spool has.");
const SPOOL_ENTRIES: Metric =
    Metric::counter("tidegate_spool_entries_total", STAGE, "Counts entries that were appended to the spool.");
const SPOOL_DROPPED_ROWS: Metric =
    Metric::counter("tidegate_spool_dropped_rows_total", STAGE, "Counts rows that the full spool did not keep.");
const SPOOL_LOST_OFFSETS: Metric = Metric::gauge(
    "tidegate_spool_lost_offsets",
    STAGE,
    "Shows how many offsets of the spool were durable and cannot be read any more, as far as a reader met them.",
);
const SPOOL_FSYNC: Metric = Metric::seconds("tidegate_spool_fsync_seconds", "Measures how long an fsync takes.");
const SPOOL_SYNCED_LAG: Metric = Metric::gauge(
    "tidegate_spool_synced_lag_seconds",
    STAGE,
    "Shows how long the last fsynced entry had waited for its fsync.",
)
.in_unit(Unit::Seconds);

const SINK_COMMITTED_ROWS: Metric =
    Metric::counter("tidegate_sink_committed_rows_total", STAGE, "Counts rows that the store has committed.");
const SINK_CHUNKS: Metric =
    Metric::counter("tidegate_sink_chunks_total", STAGE, "Counts chunks that the store has committed.");
const SINK_RETRIES: Metric =
    Metric::counter("tidegate_sink_retries_total", STAGE, "Counts calls to the store that failed and are made again.");
const SINK_REFUSED_ROWS: Metric =
    Metric::counter("tidegate_sink_refused_rows_total", STAGE, "Counts rows that the store will never take.");
const SINK_DEAD_LETTERS: Metric =
    Metric::gauge("tidegate_sink_dead_letters", STAGE, "Shows how many rows are kept as dead letters.");
const SINK_UNCOMMITTED_AGE: Metric = Metric::gauge(
    "tidegate_sink_uncommitted_age_seconds",
    STAGE,
    "Shows how long the oldest row that is not committed has been waiting.",
)
.in_unit(Unit::Seconds);
const SINK_WRITE: Metric =
    Metric::seconds("tidegate_sink_write_seconds", "Measures how long the store takes for a chunk.");
const SINK_PROBE: Metric =
    Metric::seconds("tidegate_sink_probe_seconds", "Measures how long an idle store takes to answer a probe.");

/// Every metric. What is not in here does not exist.
pub const ALL: &[Metric] = &[
    PIPELINE_INFO,
    STAGE_STATUS,
    BREAKER_STATE,
    FRAMES,
    RECEIVED_BYTES,
    RECORDS,
    MALFORMED,
    IGNORED,
    DUPLICATES,
    POSITION_CONFLICTS,
    BACKFILLED_ROWS,
    GAPS_OPENED,
    GAPS_CLOSED,
    GAPS_OPEN,
    UNREPEATABLE_SECONDS,
    CONNECTIONS,
    RECONNECTS,
    SESSION_OVERFLOWS,
    SUBSCRIPTIONS,
    REST_REQUESTS,
    SPOOL_BYTES,
    SPOOL_SEGMENTS,
    SPOOL_ENTRIES,
    SPOOL_DROPPED_ROWS,
    SPOOL_LOST_OFFSETS,
    SPOOL_FSYNC,
    SPOOL_SYNCED_LAG,
    SINK_COMMITTED_ROWS,
    SINK_CHUNKS,
    SINK_RETRIES,
    SINK_REFUSED_ROWS,
    SINK_DEAD_LETTERS,
    SINK_UNCOMMITTED_AGE,
    SINK_WRITE,
    SINK_PROBE,
];

#[cfg(test)]
mod tests;
