//! What a delivery driver tells: health, metrics, and one log line for each change.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Balance, Outcome, machine::Machine};
use crate::{
    health::{Registry, StageHealth, StageId, Status},
    metrics::{BreakerMetrics, SinkMetrics},
    policy::BreakerState,
    sink::{Guarantee, Refusal},
    spool::SpoolPosition,
};

/// Tells about one sink.
pub(super) struct Reporter {
    pipeline: String,
    sink: String,
    health: StageHealth,
    letters: StageHealth,
    metrics: SinkMetrics,
    breaker: BreakerMetrics,
    breaker_state: BreakerState,
    guarantee: Option<Guarantee>,
    began: Instant,
    /// Whether the last thing that was said of the sink is that it is healthy: said once, not for each chunk.
    is_well: bool,
    /// Whether it is said that rows are accepted and not yet durable.
    is_holding: bool,
    /// Since when the store has been failing.
    down_since: Option<Instant>,
    /// Since when, and how many rows, what had waited for the store is being delivered.
    drains: Option<(Instant, u64)>,
}

impl Reporter {
    pub(super) fn new(registry: &Registry, pipeline: &str, sink: &str, overdue_after: Duration) -> Self {
        let id = StageId::sink(pipeline, sink);
        let (metrics, breaker) = (SinkMetrics::new(&id), BreakerMetrics::new(&id, BREAKER));
        let health = registry.stage(id);
        health.overdue_after(overdue_after);
        if matches!(health.status(), Status::Failed | Status::Stopped) {
            health.restarted("the delivery begins again");
        }
        Self {
            pipeline: pipeline.to_owned(),
            sink: sink.to_owned(),
            metrics,
            breaker,
            health,
            letters: registry.stage(StageId::dead_letters(pipeline, sink)),
            breaker_state: BreakerState::Closed,
            guarantee: None,
            began: Instant::now(),
            is_well: false,
            is_holding: false,
            down_since: None,
            drains: None,
        }
    }

    /// Shows what the machine looks like.
    pub(super) fn look(&mut self, machine: &Machine, now: Instant) {
        let since = machine.uncommitted_since();
        self.health.uncommitted_since(since);
        self.health.untaken_since(machine.untaken_since());
        self.health.accepted_rows(machine.accepted_rows());
        self.metrics.uncommitted_age.set(since.map_or(0.0, |since| now.duration_since(since).as_secs_f64()));
        let breaker = machine.breaker(now);
        if breaker.state != self.breaker_state {
            self.breaker_state = breaker.state;
            self.breaker.show(breaker.state);
            self.health.breaker(BREAKER, now, breaker);
        }
        if machine.is_idle() {
            self.health.idle();
            self.well("everything in the spool is stored", now);
            if let Some((since, rows)) = self.drains.take() {
                let (pipeline, sink, seconds) = (&self.pipeline, &self.sink, now.duration_since(since).as_secs_f64());
                let subject = self.health.subject();
                info!(
                    pipeline,
                    sink, rows, seconds, "drained {subject} {rows} rows that had waited, in {seconds:.1} s"
                );
            }
        }
        if let Some(why) = machine.failure() {
            self.health.failed(why);
        }
    }

    /// Says where the sink goes on. What the store promises stands in the pipeline's first line.
    pub(super) fn opened(
        &mut self,
        guarantee: &Guarantee,
        at: SpoolPosition,
        read_from: SpoolPosition,
        known: Option<SpoolPosition>,
    ) {
        let (pipeline, sink, subject) = (&self.pipeline, &self.sink, self.health.subject());
        if let Some(known) = known.filter(|known| at.offset < known.offset) {
            warn!(
                pipeline,
                sink, "back {subject} the store went back from {known} to {at}: it is fed again from there"
            );
        }
        if self.guarantee.replace(guarantee.clone()).as_ref() != Some(guarantee) {
            let first = read_from.offset + 1;
            if at == SpoolPosition::START {
                debug!(pipeline, sink, first, "opened {subject} {guarantee}; a new sink, its first offset is {first}");
            } else {
                debug!(pipeline, sink, first, "opened {subject} {guarantee}; goes on at offset {first}");
            }
        }
    }

    /// Notes that a position moved.
    pub(super) fn moved(&mut self, before: Option<&Balance>, after: &Balance, now: Instant) {
        let earlier = before.filter(|before| before.since == after.since).map_or(0, |before| before.fates.delivered);
        let rows = after.fates.delivered.saturating_sub(earlier);
        if before.is_none_or(|before| before.upto == after.upto) && rows == 0 {
            return;
        }
        self.metrics.committed_rows.increment(rows);
        self.metrics.chunks.increment(1);
        self.health.committed(now, rows);
        let seconds = now.duration_since(self.began).as_secs_f64();
        self.well(&format!("first rows stored {seconds:.1} s after the start"), now);
        if std::mem::take(&mut self.is_holding) {
            self.health.healthy("what the store had accepted is durable");
        }
        if let Some((_, drained)) = &mut self.drains {
            *drained += rows;
        }
    }

    /// Notes that the store has taken rows, and will make them durable.
    pub(super) fn accepted(&mut self, now: Instant) {
        self.health.accepted();
        let seconds = now.duration_since(self.began).as_secs_f64();
        self.well(&format!("first rows accepted {seconds:.1} s after the start"), now);
        if !std::mem::replace(&mut self.is_holding, true) {
            self.health.healthy("the store has accepted rows; they stay in the spool until it has made them durable");
        }
    }

    /// Says that all is well, if that is news.
    fn well(&mut self, first: &str, now: Instant) {
        if std::mem::replace(&mut self.is_well, true) {
            return;
        }
        match self.down_since.take() {
            Some(since) => {
                let seconds = now.duration_since(since).as_secs_f64();
                self.health.healthy(format!("the store takes rows again, after {seconds:.1} s"));
                self.drains = Some((now, 0));
            }
            None => drop(self.health.healthy(first)),
        }
    }

    /// Says that a call failed and what comes next.
    pub(super) fn failed(&mut self, machine: &Machine, error: &str, now: Instant) {
        let Some((at, attempt)) = machine.retry() else { return };
        self.metrics.retries.increment(1);
        (self.is_well, self.is_holding) = (false, false);
        self.drains = None;
        self.down_since.get_or_insert(now);
        let pause = at.saturating_duration_since(now).as_secs_f64();
        self.health.degraded(format!("{error}; trying again in {pause:.1} s (attempt {attempt})"));
    }

    pub(super) fn wrote(&self, began: Instant) {
        self.metrics.write.record(began.elapsed().as_secs_f64());
    }

    pub(super) fn checked(&self, began: Instant) {
        self.health.checked(Instant::now(), began.elapsed());
    }

    /// Says that the store refused rows for good.
    pub(super) fn refused(&self, refusals: &[Refusal]) {
        let rows = refusals.len();
        self.metrics.refused_rows.increment(rows as u64);
        let why = refusals.first().map(|refusal| refusal.error.chain()).unwrap_or_default();
        let (pipeline, sink, subject) = (&self.pipeline, &self.sink, self.health.subject());
        let noun = if rows == 1 { "row, now a dead letter" } else { "rows, now dead letters; the first" };
        warn!(pipeline, sink, rows, why, "refused {subject} the store does not take {rows} {noun}: {why}");
    }

    pub(super) fn dead_letters(&self, letters: u64) {
        self.metrics.dead_letters.set(letters as f64);
        self.letters.dead_letters(letters);
        self.letters.healthy(if letters == 0 { "none" } else { "rows wait for a person" });
    }

    /// Says how it ended.
    pub(super) fn ended(&self, outcome: &Outcome) {
        if let Some(why) = &outcome.failure {
            self.health.failed(why.clone());
            return;
        }
        let rows = outcome.rows_left;
        let stays = match (rows, outcome.more_left) {
            (0, false) => "everything in the spool is stored".to_owned(),
            (_, false) => format!("{rows} rows stay in the spool, the next start sends them"),
            (_, true) => format!("more than {rows} rows stay in the spool, the next start sends them"),
        };
        self.health.stopped(stays);
    }
}

const BREAKER: &str = "store";
