//! What intake shows of itself: counts for health and metrics, and one log line for a group of gaps.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    health::{Registry, StageHealth, StageId},
    metrics::{SourceMetrics, SpoolMetrics},
    protocol::GapId,
    spool::GapOutcome,
};

/// The figures of one source.
#[derive(Debug)]
pub(super) struct SourceTally {
    pipeline: Arc<str>,
    health: StageHealth,
    metrics: SourceMetrics,
    /// Gaps that were counted as found, and are open.
    found: BTreeSet<GapId>,
    /// What has happened since the last moment without an open gap.
    episode: Option<Episode>,
}

/// The time from the first open gap to the moment when none is left.
#[derive(Debug)]
struct Episode {
    since: Instant,
    found: u64,
    filled: u64,
    absent: u64,
    lost: u64,
    rows: u64,
    why: Option<String>,
}

impl SourceTally {
    pub(super) fn new(registry: &Registry, pipeline: &str, source: &str) -> Self {
        let id = StageId::source(pipeline, source);
        let metrics = SourceMetrics::new(&id);
        Self { pipeline: pipeline.into(), health: registry.stage(id), metrics, found: BTreeSet::new(), episode: None }
    }

    pub(super) fn repeated(&self) {
        self.metrics.duplicates.increment(1);
    }

    pub(super) fn conflicted(&self) {
        self.metrics.position_conflicts.increment(1);
    }

    pub(super) fn backfilled(&mut self, rows: u64) {
        self.health.backfilled(rows);
        self.metrics.backfilled_rows.increment(rows);
        if let Some(episode) = &mut self.episode {
            episode.rows += rows;
        }
    }

    pub(super) fn opened(&mut self, gap: GapId) {
        self.found.insert(gap);
        self.metrics.gaps_opened.increment(1);
        let new = || Episode { since: Instant::now(), found: 0, filled: 0, absent: 0, lost: 0, rows: 0, why: None };
        self.episode.get_or_insert_with(new).found += 1;
    }

    /// Counts a gap that is over. The question for a stream's beginning is one only if something came between.
    pub(super) fn closed(&mut self, gap: GapId, outcome: &GapOutcome, is_baseline: bool) {
        if !self.found.contains(&gap) {
            if is_baseline {
                return;
            }
            self.opened(gap);
        }
        self.found.remove(&gap);
        self.metrics.gaps_closed.of(outcome).increment(1);
        let mut lost = 0;
        if let Some(episode) = &mut self.episode {
            match outcome {
                GapOutcome::Live | GapOutcome::Backfilled | GapOutcome::Resynchronised => episode.filled += 1,
                GapOutcome::Absent => episode.absent += 1,
                GapOutcome::Lost(why) => {
                    episode.lost += 1;
                    lost = 1;
                    episode.why.get_or_insert_with(|| why.clone());
                }
            }
        }
        if lost > 0 { self.health.gaps_lost(1) } else { self.health.gaps_filled(1) }
    }

    /// Shows how many gaps are open, and says so when the last one has closed.
    pub(super) fn settle(&mut self, open: u64) {
        self.health.gaps_open(open);
        if open > 0 {
            return;
        }
        let Some(episode) = self.episode.take() else { return };
        let Episode { found, filled, absent, lost, rows, why, since } = episode;
        let pipeline = &*self.pipeline;
        let took = since.elapsed().as_secs_f64();
        let absent = if absent > 0 { format!(", {absent} absent at the venue") } else { String::new() };
        match why {
            None => info!(
                pipeline,
                "gap        {pipeline} {found} gaps, {filled} filled in {took:.1} s by {rows} rows{absent}"
            ),
            Some(why) => warn!(
                pipeline,
                "gap        {pipeline} {found} gaps, {filled} filled in {took:.1} s by {rows} rows{absent}, {lost} lost: {why}"
            ),
        }
    }
}

/// The figures of a spool.
#[derive(Debug)]
pub(super) struct SpoolTally {
    pub(super) health: StageHealth,
    pub(super) metrics: SpoolMetrics,
    max_bytes: u64,
}

impl SpoolTally {
    pub(super) fn new(registry: &Registry, pipeline: &str, max_bytes: u64) -> Self {
        let id = StageId::spool(pipeline);
        let metrics = SpoolMetrics::new(&id);
        Self { health: registry.stage(id), metrics, max_bytes }
    }

    pub(super) fn appended(&self, now: Instant, rows: u64) {
        self.metrics.entries.increment(1);
        self.health.appended(now, rows);
    }

    pub(super) fn dropped(&self, rows: u64) {
        self.metrics.dropped_rows.increment(rows);
        self.health.dropped(rows);
    }

    pub(super) fn size(&self, bytes: u64, segments: usize) {
        self.metrics.bytes.set(bytes as f64);
        self.metrics.segments.set(segments as f64);
        self.health.spool_bytes(bytes, self.max_bytes);
    }

    pub(super) fn synced(&self, took: Duration, lag: Duration) {
        self.metrics.fsync.record(took.as_secs_f64());
        self.metrics.synced_lag.set(lag.as_secs_f64());
        self.health.synced_lag(lag);
    }
}
