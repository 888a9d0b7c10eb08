//! What intake shows of itself: counts for health and metrics, and one log line for the gaps of one event.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{info, warn};

use super::{continuity::Absence, entry::Counts, filling::Work};
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
    /// What is not told yet, oldest first: each open gap that was counted is in one of them.
    episodes: Vec<Episode>,
    /// The gaps that the venue's history is asked for.
    work: Option<Work>,
    /// Nobody listens.
    is_absent: bool,
    /// For how long nobody listened to what nobody can repeat.
    unrepeatable: Duration,
}

/// Gaps that were found at once, or the time in which nobody listened that has left them.
#[derive(Debug)]
struct Episode {
    /// When it was noticed, and later when a session covered streams again.
    began: Instant,
    /// Nobody listens yet.
    is_waiting: bool,
    /// It has been told, but for what is open.
    is_told: bool,
    /// For how long nobody listened; `None` where somebody did, or the log does not say.
    absent_for: Option<Duration>,
    open: BTreeSet<GapId>,
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
        let health = registry.stage(id);
        let (pipeline, episodes, unrepeatable) = (pipeline.into(), Vec::new(), Duration::ZERO);
        Self { pipeline, health, metrics, episodes, work: None, is_absent: false, unrepeatable }
    }

    /// Shows what an entry changed, or what the last boot left open.
    pub(super) fn count(&mut self, counts: &Counts) {
        self.metrics.duplicates.increment(counts.repeated);
        self.metrics.malformed.increment(counts.malformed);
        self.metrics.position_conflicts.increment(counts.conflicted);
        if counts.backfilled > 0 {
            self.health.backfilled(counts.backfilled);
            self.metrics.backfilled_rows.increment(counts.backfilled);
            self.work.iter_mut().for_each(|work| work.came(counts.backfilled));
        }
        self.opened(counts);
        counts.absences.iter().for_each(|absence| self.heard_again(absence, counts.is_absent));
        self.is_absent = counts.is_absent;
        counts.closed.iter().for_each(|(gap, outcome, filled)| self.closed(*gap, outcome, *filled));
    }

    /// Counts gaps as found, together with those of the same event.
    fn opened(&mut self, counts: &Counts) {
        let is_known = |gap: &GapId| self.episodes.iter().any(|episode| episode.open.contains(gap));
        let opened: BTreeSet<GapId> = counts.opened.iter().copied().filter(|gap| !is_known(gap)).collect();
        if opened.is_empty() {
            return;
        }
        self.metrics.gaps_opened.increment(opened.len() as u64);
        let is_absence = counts.is_absent || !counts.absences.is_empty();
        let goes_on = self.is_absent;
        let known =
            self.episodes.pop_if(|last| if is_absence { goes_on && last.is_waiting } else { last.is_collecting() });
        let mut episode = known.unwrap_or_else(|| Episode::new(is_absence));
        episode.found += opened.len() as u64;
        episode.open.extend(opened);
        self.episodes.push(episode);
    }

    /// Somebody listens again, or has for a moment.
    fn heard_again(&mut self, absence: &Absence, is_absent: bool) {
        let Absence { length, unrepeatable } = absence;
        if !unrepeatable.is_empty() {
            let (missed, before) = (length.unwrap_or_default(), self.unrepeatable);
            self.unrepeatable += missed;
            self.health.unrepeatable(missed);
            self.metrics.unrepeatable_seconds.increment(self.unrepeatable.as_secs() - before.as_secs());
        }
        let waiting = self.episodes.pop_if(|last| last.is_waiting);
        if waiting.is_none() && unrepeatable.is_empty() {
            return;
        }
        let mut episode = waiting.unwrap_or_else(|| Episode::new(true));
        episode.began = Instant::now();
        episode.is_waiting = is_absent;
        episode.absent_for = length.map(|length| length + episode.absent_for.unwrap_or_default());
        for table in unrepeatable {
            if !episode.cut.contains(table) {
                episode.cut.push(table.clone());
            }
        }
        self.episodes.push(episode);
    }

    fn closed(&mut self, gap: GapId, outcome: &GapOutcome, filled: u64) {
        // The question for a stream's beginning is no gap, unless its session ended before the answer.
        let Some(episode) = self.episodes.iter_mut().find_map(|episode| episode.take(gap)) else { return };
        self.metrics.gaps_closed.of(outcome).increment(1);
        self.work.iter_mut().for_each(|work| work.closed(outcome));
        episode.rows += filled;
        match outcome {
            GapOutcome::Lost(why) => {
                self.health.gaps_lost(1);
                episode.lost += 1;
                episode.why.get_or_insert_with(|| why.clone());
            }
            GapOutcome::Resynchronised => {
                self.health.gaps_resynchronised(1);
                episode.resynchronised += 1;
            }
            GapOutcome::Absent => {
                self.health.gaps_filled(1);
                episode.empty += 1;
            }
            GapOutcome::Backfilled | GapOutcome::Live => self.health.gaps_filled(1),
        }
    }

    /// Shows how many gaps are open, and tells the episodes that are over. One that takes long is told with what is open of
    /// it; that follows when it is over too.
    pub(super) fn settle(&mut self, open: u64) {
        self.health.gaps_open(open);
        self.metrics.gaps_open.set(open as f64);
        self.show_work(open, Instant::now());
        for episode in self.episodes.iter_mut().filter(|episode| episode.is_due()) {
            if episode.is_worth_a_line() {
                episode.tell(&self.pipeline);
            }
            episode.told();
        }
        self.episodes.retain(|episode| episode.is_waiting || !episode.open.is_empty());
    }
}

impl SourceTally {
    /// Shows how far the filling of gaps has come; a line from time to time where it takes long.
    fn show_work(&mut self, open: u64, now: Instant) {
        if open == 0 || self.is_absent {
            if self.work.take().is_some() {
                self.health.filling(None);
            }
            return;
        }
        let work = self.work.get_or_insert_with(|| Work::new(now));
        let is_due = work.is_due(open, now);
        let shown = work.shown(now);
        self.health.filling(Some(shown));
        if is_due {
            let pipeline = &*self.pipeline;
            info!(pipeline, "gap {pipeline} {shown}");
        }
    }
}

impl Episode {
    fn new(is_waiting: bool) -> Self {
        Self {
            began: Instant::now(),
            is_waiting,
            is_told: false,
            absent_for: None,
            open: BTreeSet::new(),
            found: 0,
            empty: 0,
            resynchronised: 0,
            lost: 0,
            rows: 0,
            why: None,
            cut: Vec::new(),
        }
    }

    /// Returns whether gaps that are found now are of this event.
    fn is_collecting(&self) -> bool {
        self.is_waiting || self.began.elapsed() < MOMENTS
    }

    /// Takes out an open gap that is over, if it is one of these.
    fn take(&mut self, gap: GapId) -> Option<&mut Self> {
        self.open.remove(&gap).then_some(self)
    }

    fn is_due(&self) -> bool {
        let is_late = !self.is_told && self.began.elapsed() >= LATE;
        !self.is_waiting && (self.open.is_empty() || is_late)
    }

    /// Returns false for a record that came late or was fetched at once, while the session went on.
    fn is_worth_a_line(&self) -> bool {
        let is_whole = self.absent_for.is_none() && self.cut.is_empty() && self.lost + self.resynchronised == 0;
        !is_whole || self.began.elapsed() >= MOMENTS
    }

    fn tell(&self, pipeline: &str) {
        if self.lost + self.resynchronised > 0 || !self.cut.is_empty() {
            warn!(pipeline, "gap {pipeline} {self}");
        } else {
            info!(pipeline, "gap {pipeline} {self}");
        }
    }

    /// Leaves what is to be told later: what is open.
    fn told(&mut self) {
        let (began, open) = (self.began, std::mem::take(&mut self.open));
        *self = Self { began, is_told: true, found: open.len() as u64, open, ..Self::new(false) };
    }
}

impl fmt::Display for Episode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { began, absent_for, open, found, empty, resynchronised, lost, rows, why, cut, .. } = self;
        let open = open.len() as u64;
        let streams = if *found == 1 { "stream" } else { "streams" };
        match (found, absent_for.map(span)) {
            (0, Some(missed)) => write!(f, "{missed}")?,
            (0, None) => write!(f, "for a time that the spool does not tell")?,
            (_, Some(missed)) => write!(f, "{found} {streams}, {missed}")?,
            (_, None) => write!(f, "{found} {streams}")?,
        }
        if *found > *lost + *resynchronised + open {
            let kind = if *rows == 1 { "row" } else { "rows" };
            write!(f, "; filled: {rows} {kind} in {}", span(began.elapsed()))?;
        }
        if open > 0 {
            write!(f, "; {open} still open after {}", span(began.elapsed()))?;
        }
        if *empty > 0 {
            write!(f, "; {empty} held nothing at the venue")?;
        }
        if *resynchronised > 0 {
            write!(f, "; {resynchronised} not repeatable: the changes of a book before its next whole state")?;
        }
        if let (1.., Some(why)) = (lost, why) {
            write!(f, "; {lost} lost: {why}")?;
        }
        if !cut.is_empty() {
            write!(f, "; {} of that time are not repeatable", cut.join(" and "))?;
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
/// What takes longer is told before it is over.
const LATE: Duration = Duration::from_secs(60);

/// The figures of a spool.
#[derive(Debug)]
pub(super) struct SpoolTally {
    pub(super) health: StageHealth,
    pub(super) metrics: SpoolMetrics,
    max_bytes: u64,
}

impl SpoolTally {
    pub(super) fn new(registry: &Registry, pipeline: &str, max_bytes: u64, sync_pause: Duration) -> Self {
        let id = StageId::spool(pipeline);
        let metrics = SpoolMetrics::new(&id);
        let health = registry.stage(id);
        health.overdue_after(sync_pause + LONGEST_SYNC);
        Self { health, metrics, max_bytes }
    }

    /// Sets since when the oldest row waits for the disk.
    pub(super) fn waits_since(&self, since: Option<Instant>) {
        self.health.untaken_since(since);
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
        self.health.took(took);
    }
}

/// A disk that takes longer, to write or to make durable, is shown as a fault: it may never come back.
const LONGEST_SYNC: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> (SourceTally, Registry) {
        let registry = Registry::new();
        (SourceTally::new(&registry, "eth", "deribit"), registry)
    }

    fn absence(seconds: u64, unrepeatable: &[&str]) -> Absence {
        let unrepeatable = unrepeatable.iter().map(|table| (*table).into()).collect();
        Absence { length: Some(Duration::from_secs(seconds)), unrepeatable }
    }

    fn opened(gaps: &[u64]) -> Counts {
        Counts { opened: gaps.iter().copied().map(GapId).collect(), ..Counts::default() }
    }

    fn cut(gaps: &[u64]) -> Counts {
        Counts { is_absent: true, ..opened(gaps) }
    }

    fn back(absence: Absence) -> Counts {
        Counts { absences: vec![absence], ..Counts::default() }
    }

    /// Each gap was filled by three rows.
    fn closed(gaps: &[u64]) -> Counts {
        let closed = gaps.iter().map(|gap| (GapId(*gap), GapOutcome::Backfilled, 3)).collect();
        Counts { closed, ..Counts::default() }
    }

    fn lines(tally: &SourceTally) -> Vec<String> {
        tally.episodes.iter().map(Episode::to_string).collect()
    }

    fn gaps(registry: &Registry) -> serde_json::Value {
        serde_json::to_value(registry.report()).unwrap()["checks"]["eth/source.deribit"]["gaps"].clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_gap_is_as_long_as_nobody_listened_however_late_it_is_noticed() {
        let (mut tally, registry) = tally();
        tally.count(&cut(&[1, 2]));
        tally.count(&back(absence(20, &["tickers"])));
        tally.count(&closed(&[1, 2]));
        assert_eq!(
            lines(&tally),
            ["2 streams, 20.0 s; filled: 6 rows in 0 ms; tickers of that time are not repeatable"]
        );
        assert_eq!((&gaps(&registry)["unrepeatable_seconds"], &gaps(&registry)["filled"]), (&20.0.into(), &2.into()));
        tally.settle(0);
        assert_eq!(lines(&tally), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn health_says_how_far_the_filling_has_come_while_somebody_listens() {
        let (mut tally, registry) = tally();
        tally.count(&cut(&[1, 2, 3]));
        tally.settle(3);
        assert_eq!(gaps(&registry)["filling"], serde_json::Value::Null, "nobody can be asked");
        tally.count(&back(absence(1, &[])));
        tally.settle(3);
        tokio::time::advance(Duration::from_secs(4)).await;
        tally.count(&Counts { backfilled: 6, ..closed(&[1, 2]) });
        tally.settle(1);
        let filling = serde_json::json!({ "filled": 2, "lost": 0, "of": 3, "rows": 6, "seconds_left": 2.0 });
        assert_eq!(gaps(&registry)["filling"], filling);
        tally.count(&closed(&[3]));
        tally.settle(0);
        assert_eq!(gaps(&registry)["filling"], serde_json::Value::Null, "all is done");
    }

    #[test]
    fn a_start_after_a_stop_says_what_was_missed_meanwhile() {
        let (mut tally, _) = tally();
        tally.count(&cut(&[]));
        tally.settle(0);
        tally.count(&back(absence(158_381, &["tickers"])));
        assert_eq!(lines(&tally), ["1day 19h 59m 41s; tickers of that time are not repeatable"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_cut_off_in_the_entry_that_confirms_it_ends_no_absence() {
        let (mut tally, _) = tally();
        tally.count(&cut(&[1]));
        tally.count(&Counts { is_absent: true, ..back(absence(3, &[])) });
        tally.count(&closed(&[1]));
        tally.settle(0);
        assert_eq!(lines(&tally).len(), 1, "nobody listens yet");
        tally.count(&back(absence(2, &["tickers"])));
        assert_eq!(lines(&tally), ["1 stream, 5.0 s; filled: 3 rows in 0 ms; tickers of that time are not repeatable"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_filled_is_told_although_the_line_is_cut_again_meanwhile() {
        let (mut tally, _) = tally();
        tally.count(&cut(&[1, 2]));
        tally.count(&back(absence(1, &[])));
        tally.count(&cut(&[3]));
        tally.count(&closed(&[1, 2]));
        let first = "2 streams, 1.0 s; filled: 6 rows in 0 ms";
        assert_eq!(lines(&tally), [first, "1 stream; 1 still open after 0 ms"]);
        tally.settle(1);
        assert_eq!(lines(&tally).len(), 1, "the first is told, the second waits");
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_told_but_for_what_is_open() {
        let (mut tally, _) = tally();
        tally.count(&cut(&[1, 2, 3]));
        tally.count(&back(absence(1, &[])));
        tally.count(&closed(&[1, 2]));
        tokio::time::advance(LATE).await;
        assert_eq!(lines(&tally), ["3 streams, 1.0 s; filled: 6 rows in 60.0 s; 1 still open after 60.0 s"]);
        tally.settle(1);
        tally.count(&closed(&[3]));
        assert_eq!(lines(&tally), ["1 stream; filled: 3 rows in 60.0 s"]);
        tally.settle(0);
        assert!(tally.episodes.is_empty());
    }

    #[test]
    fn what_is_repaired_within_moments_is_counted_and_not_told() {
        let (mut tally, registry) = tally();
        tally.count(&opened(&[1]));
        tally.count(&opened(&[1, 2]));
        tally.count(&closed(&[1, 2]));
        assert!(!tally.episodes[0].is_worth_a_line());
        assert_eq!(gaps(&registry)["filled"], 2);
    }

    #[test]
    fn a_book_that_began_anew_is_no_filled_gap() {
        let (mut tally, registry) = tally();
        tally.count(&opened(&[1]));
        tally.count(&Counts { closed: vec![(GapId(1), GapOutcome::Resynchronised, 0)], ..Counts::default() });
        assert_eq!(lines(&tally), ["1 stream; 1 not repeatable: the changes of a book before its next whole state"]);
        assert_eq!((&gaps(&registry)["filled"], &gaps(&registry)["resynchronised"]), (&0.into(), &1.into()));
    }
}
