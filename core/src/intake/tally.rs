//! What intake shows of itself: counts for health and metrics, and one log line for a group of gaps.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{info, warn};

use super::entry::Counts;
use crate::{
    health::{Registry, StageHealth, StageId},
    metrics::{SourceMetrics, SpoolMetrics},
    protocol::GapId,
    row::Timestamp,
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
    /// When a session last vouched for what came, by the wall clock: as the log has it, over restarts.
    heard: Option<Timestamp>,
    /// Set while no session vouches for what the venue sends.
    absence: Option<Absence>,
}

/// A time in which nobody listened.
#[derive(Debug, Default)]
pub(super) struct Absence {
    /// When a session last vouched for what came; `None` where the log does not say.
    pub(super) since: Option<Timestamp>,
    /// Tables of which nobody can repeat a record.
    pub(super) unrepeatable: Vec<Arc<str>>,
}

/// The time from the first open gap to the moment when none is left.
#[derive(Debug)]
struct Episode {
    /// When it was noticed, and later when a session covered streams again.
    began: Instant,
    /// For how long nobody listened; `None` where somebody did, or the log does not say.
    absent_for: Option<Duration>,
    found: u64,
    empty: u64,
    resynchronised: u64,
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
        let (health, found) = (registry.stage(id), BTreeSet::new());
        Self { pipeline: pipeline.into(), health, metrics, found, episode: None, heard: None, absence: None }
    }

    /// Shows what the last boot left open, and since when nobody has listened.
    pub(super) fn booted(&mut self, opened: Vec<GapId>, absence: Absence) {
        self.heard = absence.since;
        let ended = absence.since.is_some() || !absence.unrepeatable.is_empty();
        self.count(&Counts { opened, cut: absence.unrepeatable, ended, ..Counts::default() });
    }

    /// Shows what an entry changed.
    pub(super) fn count(&mut self, counts: &Counts) {
        self.metrics.duplicates.increment(counts.repeated);
        self.metrics.malformed.increment(counts.malformed);
        self.metrics.position_conflicts.increment(counts.conflicted);
        let opened = counts.opened.iter().filter(|gap| self.found.insert(**gap)).count() as u64;
        self.metrics.gaps_opened.increment(opened);
        if opened > 0 || !counts.cut.is_empty() {
            self.episode.get_or_insert_with(Episode::new).found += opened;
        }
        if counts.backfilled > 0 {
            self.health.backfilled(counts.backfilled);
            self.metrics.backfilled_rows.increment(counts.backfilled);
        }
        self.episode.iter_mut().for_each(|episode| episode.rows += counts.backfilled);
        self.listen(counts);
        counts.closed.iter().for_each(|(gap, outcome)| self.closed(*gap, outcome));
    }

    /// Follows whether anybody listens.
    fn listen(&mut self, counts: &Counts) {
        // Confirmed and cut off again in one entry: nobody has listened in between.
        let is_back = counts.confirmed && !(counts.ended && self.absence.is_some());
        if counts.ended {
            let since = self.heard;
            let absence = self.absence.get_or_insert_with(|| Absence { since, ..Absence::default() });
            add_new(&mut absence.unrepeatable, &counts.cut);
        }
        if is_back && let Some(Absence { since, unrepeatable }) = self.absence.take() {
            let missed = since.map(|since| Timestamp::now().0.saturating_sub(since.0));
            let missed = missed.map(|missed| Duration::from_nanos(u64::try_from(missed).unwrap_or(0)));
            if !unrepeatable.is_empty() {
                self.health.unrepeatable(missed.unwrap_or_default());
            }
            if let Some(episode) = &mut self.episode {
                episode.began = Instant::now();
                episode.absent_for = missed.map(|missed| missed + episode.absent_for.unwrap_or_default());
                add_new(&mut episode.cut, &unrepeatable);
            }
        }
        if counts.heard || counts.rows > counts.backfilled {
            self.heard = Some(Timestamp::now());
        }
    }

    fn closed(&mut self, gap: GapId, outcome: &GapOutcome) {
        // The question for a stream's beginning is no gap, unless its session ended before the answer.
        if !self.found.remove(&gap) {
            return;
        }
        self.metrics.gaps_closed.of(outcome).increment(1);
        match outcome {
            GapOutcome::Lost(_) => self.health.gaps_lost(1),
            GapOutcome::Resynchronised => self.health.gaps_resynchronised(1),
            GapOutcome::Backfilled | GapOutcome::Live | GapOutcome::Absent => self.health.gaps_filled(1),
        }
        let Some(episode) = &mut self.episode else { return };
        match outcome {
            GapOutcome::Lost(why) => {
                episode.lost += 1;
                episode.why.get_or_insert_with(|| why.clone());
            }
            GapOutcome::Resynchronised => episode.resynchronised += 1,
            GapOutcome::Absent => episode.empty += 1,
            GapOutcome::Backfilled | GapOutcome::Live => {}
        }
    }

    /// Shows how many gaps are open, and says so when the last one has closed.
    pub(super) fn settle(&mut self, open: u64) {
        self.health.gaps_open(open);
        if open > 0 || self.absence.is_some() {
            return;
        }
        let Some(episode) = self.episode.take().filter(Episode::is_worth_a_line) else { return };
        let pipeline = &*self.pipeline;
        if episode.lost > 0 || !episode.cut.is_empty() {
            warn!(pipeline, "gap {pipeline} {episode}");
        } else {
            info!(pipeline, "gap {pipeline} {episode}");
        }
    }
}

fn add_new(tables: &mut Vec<Arc<str>>, more: &[Arc<str>]) {
    for table in more {
        if !tables.contains(table) {
            tables.push(table.clone());
        }
    }
}

impl Episode {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            absent_for: None,
            found: 0,
            empty: 0,
            resynchronised: 0,
            lost: 0,
            rows: 0,
            why: None,
            cut: Vec::new(),
        }
    }

    /// Returns false for a record that came late or was fetched at once, while the session went on.
    fn is_worth_a_line(&self) -> bool {
        let is_whole = self.absent_for.is_none() && self.cut.is_empty() && self.lost + self.resynchronised == 0;
        !is_whole || self.began.elapsed() >= MOMENTS
    }
}

impl fmt::Display for Episode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { began, absent_for, found, empty, resynchronised, lost, rows, why, cut } = self;
        let streams = if *found == 1 { "stream" } else { "streams" };
        match (found, absent_for.map(span)) {
            (0, Some(missed)) => write!(f, "{missed}")?,
            (0, None) => write!(f, "for a time that the spool does not tell")?,
            (_, Some(missed)) => write!(f, "{found} {streams}, {missed}")?,
            (_, None) => write!(f, "{found} {streams}")?,
        }
        if *found > *lost + *resynchronised {
            let kind = if *rows == 1 { "row" } else { "rows" };
            write!(f, "; filled: {rows} {kind} in {}", span(began.elapsed()))?;
        }
        if *empty > 0 {
            write!(f, "; {empty} held nothing at the venue")?;
        }
        if *resynchronised > 0 {
            write!(f, "; {resynchronised} began anew with a whole state, the changes before it are lost")?;
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

/// Words a duration in the unit that suits it.
fn span(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        1..120 => format!("{:.1} s", duration.as_secs_f64()),
        seconds => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
    }
}

/// What is repaired faster, while the session goes on, is counted and not told.
const MOMENTS: Duration = Duration::from_secs(5);

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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn tally() -> (SourceTally, Registry) {
        let registry = Registry::new();
        (SourceTally::new(&registry, "eth", "deribit"), registry)
    }

    fn ago(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp(Timestamp::now().0 - seconds * SECOND))
    }

    fn confirmed() -> Counts {
        Counts { confirmed: true, heard: true, ..Counts::default() }
    }

    fn line(tally: &SourceTally) -> String {
        tally.episode.as_ref().map(Episode::to_string).unwrap_or_default()
    }

    fn gaps(registry: &Registry) -> serde_json::Value {
        serde_json::to_value(registry.report()).unwrap()["checks"]["eth/source.deribit"]["gaps"].clone()
    }

    #[test]
    fn a_gap_is_as_long_as_nobody_listened_however_late_it_is_noticed() {
        let (mut tally, registry) = tally();
        tally.booted(vec![GapId(1), GapId(2)], Absence { since: ago(20), unrepeatable: vec!["tickers".into()] });
        assert!(tally.absence.is_some());
        tally.count(&confirmed());
        tally.count(&Counts { rows: 3, backfilled: 3, closed: closed(&[1, 2]), ..Counts::default() });
        assert_eq!(line(&tally), "2 streams, 20.0 s; filled: 3 rows in 0 ms; tickers of that time are lost");
        let seconds = gaps(&registry)["unrepeatable_seconds"].as_f64().unwrap();
        assert!((20.0..25.0).contains(&seconds), "{seconds}");
        assert_eq!(gaps(&registry)["filled"], 2);

        tally.settle(0);
        tally.heard = ago(3);
        tally.count(&Counts { ended: true, cut: vec!["tickers".into()], ..Counts::default() });
        tally.settle(0);
        tally.count(&confirmed());
        assert_eq!(line(&tally), "3.0 s; tickers of that time are lost", "half open: since the last frame");
        tally.count(&Counts { ended: true, ..Counts::default() });
        tally.count(&Counts { ended: true, ..confirmed() });
        assert!(tally.absence.is_some(), "confirmed and cut off again");
    }

    #[test]
    fn a_start_after_a_stop_says_what_was_missed_meanwhile() {
        let (mut tally, _) = tally();
        tally.booted(Vec::new(), Absence { since: ago(158_381), unrepeatable: vec!["tickers".into()] });
        tally.settle(0);
        tally.count(&confirmed());
        assert_eq!(line(&tally), "1day 19h 59m 41s; tickers of that time are lost");
    }

    #[test]
    fn what_is_repaired_within_moments_is_counted_and_not_told() {
        let (mut tally, registry) = tally();
        tally.count(&Counts { opened: vec![GapId(1)], rows: 1, ..Counts::default() });
        tally.count(&Counts { closed: closed(&[1]), ..Counts::default() });
        assert!(!tally.episode.as_ref().unwrap().is_worth_a_line());
        assert_eq!(gaps(&registry)["filled"], 1);
    }

    #[test]
    fn a_book_that_began_anew_is_no_filled_gap() {
        let (mut tally, registry) = tally();
        tally.count(&Counts { opened: vec![GapId(1)], ..Counts::default() });
        tally.count(&Counts { closed: vec![(GapId(1), GapOutcome::Resynchronised)], ..Counts::default() });
        assert_eq!(line(&tally), "1 stream; 1 began anew with a whole state, the changes before it are lost");
        assert_eq!((&gaps(&registry)["filled"], &gaps(&registry)["resynchronised"]), (&0.into(), &1.into()));
    }

    fn closed(gaps: &[u64]) -> Vec<(GapId, GapOutcome)> {
        gaps.iter().map(|gap| (GapId(*gap), GapOutcome::Backfilled)).collect()
    }
}
