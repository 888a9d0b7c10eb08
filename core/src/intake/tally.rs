//! What intake shows of itself: counts for health and metrics, and one log line for a group of gaps.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{info, warn};

use super::entry::Counts;
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
    /// When a session covered streams again.
    confirmed: Option<Instant>,
    found: u64,
    absent: u64,
    lost: u64,
    rows: u64,
    why: Option<String>,
    /// Tables of which nobody can repeat a record that came in this time.
    cut: Vec<Arc<str>>,
}

impl SourceTally {
    pub(super) fn new(registry: &Registry, pipeline: &str, source: &str) -> Self {
        let id = StageId::source(pipeline, source);
        let metrics = SourceMetrics::new(&id);
        Self { pipeline: pipeline.into(), health: registry.stage(id), metrics, found: BTreeSet::new(), episode: None }
    }

    /// Shows what an entry changed.
    pub(super) fn count(&mut self, counts: &Counts) {
        self.metrics.duplicates.increment(counts.repeated);
        self.metrics.malformed.increment(counts.malformed);
        self.metrics.position_conflicts.increment(counts.conflicted);
        let opened = counts.opened.iter().filter(|gap| self.found.insert(**gap)).count() as u64;
        self.metrics.gaps_opened.increment(opened);
        if opened > 0 || !counts.cut.is_empty() {
            let episode = self.episode.get_or_insert_with(Episode::new);
            episode.found += opened;
            for table in &counts.cut {
                if !episode.cut.contains(table) {
                    episode.cut.push(table.clone());
                }
            }
        }
        if counts.backfilled > 0 {
            self.health.backfilled(counts.backfilled);
            self.metrics.backfilled_rows.increment(counts.backfilled);
        }
        if let Some(episode) = &mut self.episode {
            episode.rows += counts.backfilled;
            if counts.confirmed {
                episode.confirmed.get_or_insert_with(Instant::now);
            }
        }
        counts.closed.iter().for_each(|(gap, outcome)| self.closed(*gap, outcome));
    }

    fn closed(&mut self, gap: GapId, outcome: &GapOutcome) {
        // The question for a stream's beginning is no gap, unless its session ended before the answer.
        if !self.found.remove(&gap) {
            return;
        }
        self.metrics.gaps_closed.of(outcome).increment(1);
        let GapOutcome::Lost(why) = outcome else {
            if let Some(episode) = &mut self.episode {
                episode.absent += u64::from(*outcome == GapOutcome::Absent);
            }
            return self.health.gaps_filled(1);
        };
        self.health.gaps_lost(1);
        if let Some(episode) = &mut self.episode {
            episode.lost += 1;
            episode.why.get_or_insert_with(|| why.clone());
        }
    }

    /// Shows how many gaps are open, and says so when the last one has closed.
    pub(super) fn settle(&mut self, open: u64) {
        self.health.gaps_open(open);
        let is_covered = self.episode.as_ref().is_some_and(|episode| episode.confirmed.is_some() || episode.found > 0);
        if open > 0 || !is_covered {
            return;
        }
        let Some(episode) = self.episode.take() else { return };
        let pipeline = &*self.pipeline;
        if episode.lost > 0 || !episode.cut.is_empty() {
            warn!(pipeline, "gap {pipeline} {episode}");
        } else {
            info!(pipeline, "gap {pipeline} {episode}");
        }
    }
}

impl Episode {
    fn new() -> Self {
        let (cut, now) = (Vec::new(), Instant::now());
        Self { since: now, confirmed: None, found: 0, absent: 0, lost: 0, rows: 0, why: None, cut }
    }
}

impl fmt::Display for Episode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { since, confirmed, found, absent, lost, rows, why, cut } = self;
        let streams = if *found == 1 { "stream" } else { "streams" };
        match (found, confirmed.map(|confirmed| (confirmed - *since).as_secs_f64())) {
            (0, Some(missed)) => write!(f, "{missed:.1} s")?,
            (_, Some(missed)) => write!(f, "{found} {streams}, {missed:.1} s")?,
            (_, None) => write!(f, "{found} {streams}")?,
        }
        if *found > 0 {
            let took = confirmed.unwrap_or(*since).elapsed().as_secs_f64();
            let kind = if *rows == 1 { "row" } else { "rows" };
            write!(f, "; filled: {rows} {kind} in {took:.1} s")?;
        }
        if *absent > 0 {
            write!(f, "; {absent} held nothing at the venue")?;
        }
        if let (1.., Some(why)) = (lost, why) {
            write!(f, "; {lost} lost: {why}")?;
        }
        if !cut.is_empty() {
            write!(f, "; {} of that time are lost", cut.join(" and "))?;
        }
        Ok(())
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

    pub(super) fn lost(&self, offsets: u64) {
        self.metrics.lost_offsets.set(offsets as f64);
    }

    pub(super) fn synced(&self, took: Duration, lag: Duration) {
        self.metrics.fsync.record(took.as_secs_f64());
        self.metrics.synced_lag.set(lag.as_secs_f64());
        self.health.synced_lag(lag);
    }
}
