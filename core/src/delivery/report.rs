//! What a delivery driver tells: health, metrics, and one log line for each change.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Balance, Keys, Outcome, machine::Machine};
use crate::{
    Result,
    chunk::Part,
    deadletter::DeadLetter,
    health::{Registry, StageHealth, StageId, Status},
    metrics::{BreakerMetrics, SinkMetrics},
    policy::BreakerState,
    sink::{Guarantee, Refusal, Weaker, Written},
    spool::SpoolPosition,
};

/// Tells about one sink.
pub(super) struct Reporter {
    pipeline: String,
    sink: String,
    /// What rows wait in.
    log: &'static str,
    health: StageHealth,
    letters: StageHealth,
    metrics: SinkMetrics,
    breaker: BreakerMetrics,
    /// As it is shown; `None` before it is.
    breaker_state: Option<BreakerState>,
    guarantee: Option<Guarantee>,
    /// Where it is weaker, as it was said.
    weaker: Vec<Weaker>,
    /// Keys of which it was said that they merge or refuse rows.
    repeating: Vec<(String, Vec<String>)>,
    /// What has to be said as long as the pipeline runs, though rows are stored.
    reservation: Option<String>,
    began: Instant,
    /// Whether the last thing that was said of the sink is that it is healthy: said once, not for each chunk.
    is_well: bool,
    /// Whether it is said that rows are accepted and not yet durable.
    is_holding: bool,
    /// Since when nothing is stored, and what has to be said when it is again.
    down: Option<(Instant, &'static str)>,
    drains: Option<Drain>,
    refusals: Seldom,
    unnoted: Seldom,
    /// The newest reasons of those two.
    last_refusal: String,
    last_unnoted: String,
}

/// What had waited is being delivered.
#[derive(Debug, Clone, Copy)]
struct Drain {
    since: Instant,
    upto: u64,
    rows: u64,
}

/// Where a sink goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opened {
    /// Where the store is.
    pub(super) at: SpoolPosition,
    /// Behind which offset the spool is read; another one for a sink that was never written to.
    pub(super) read_from: SpoolPosition,
    /// The place that everything retained lies behind.
    pub(super) oldest: SpoolPosition,
    /// The last known position.
    pub(super) known: Option<SpoolPosition>,
    /// Whether the tables are others than those of the last start.
    pub(super) is_changed: bool,
}

/// Something that may happen for each row, and is said at once, then once a minute with its number.
#[derive(Debug, Default)]
struct Seldom {
    said_at: Option<Instant>,
    unsaid: u64,
}

impl Reporter {
    /// `stage` is the name of the delivery's own, which is the sink's where there is one part only.
    pub(super) fn new(
        registry: &Registry,
        pipeline: &str,
        (sink, part): (&str, &Part),
        overdue_after: Duration,
    ) -> Self {
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
            log: if part.is_spool() { "the spool" } else { "the log" },
            metrics,
            breaker,
            health,
            letters: registry.stage(StageId::dead_letters(pipeline, sink)),
            breaker_state: None,
            guarantee: None,
            weaker: Vec::new(),
            repeating: Vec::new(),
            reservation: None,
            began: Instant::now(),
            is_well: false,
            is_holding: false,
            down: None,
            drains: None,
            refusals: Seldom::default(),
            unnoted: Seldom::default(),
            last_refusal: String::new(),
            last_unnoted: String::new(),
        }
    }

    /// Says since when the delivery is at what it does now; `None` while it waits.
    pub(super) fn busy_since(&self, began: Option<Instant>) {
        self.health.busy_since(began);
    }

    /// Shows what the machine looks like.
    pub(super) fn look(&mut self, machine: &Machine, now: Instant) {
        let since = machine.uncommitted_since();
        self.health.uncommitted_since(since);
        self.health.untaken_since(machine.untaken_since());
        self.health.accepted_rows(machine.accepted_rows());
        self.health.accepted_since(machine.accepted_since());
        self.metrics.uncommitted_age.set(since.map_or(0.0, |since| now.duration_since(since).as_secs_f64()));
        let breaker = machine.breaker(now);
        if self.breaker_state.replace(breaker.state) != Some(breaker.state) {
            self.breaker.show(breaker.state);
            self.health.breaker(BREAKER, now, breaker);
        }
        if machine.is_idle() {
            self.health.idle();
            self.well(&format!("everything in {} is stored", self.log), machine, now);
        }
        self.drained(machine, now);
        self.tell_refused(now);
        self.tell_unnoted(now);
        if let Some(why) = machine.failure() {
            self.health.disowned();
            self.health.failed(why);
        }
    }

    /// Says that what had waited is stored, once it is.
    fn drained(&mut self, machine: &Machine, now: Instant) {
        let stored = machine.stored().map_or(0, |stored| stored.offset);
        let Some(Drain { since, rows, .. }) = self.drains.take_if(|drain| stored >= drain.upto || machine.is_idle())
        else {
            return;
        };
        let (pipeline, sink, seconds) = (&self.pipeline, &self.sink, now.duration_since(since).as_secs_f64());
        let subject = self.health.subject();
        info!(pipeline, sink, rows, seconds, "drained {subject} all that had waited: {rows} rows in {seconds:.1} s");
    }

    /// Says where the sink goes on. What the store promises stands in the pipeline's first line.
    pub(super) fn opened(&mut self, guarantee: &Guarantee, opened: &Opened) {
        let &Opened { at, read_from, oldest, known, is_changed } = opened;
        let (pipeline, sink, subject) = (&self.pipeline, &self.sink, self.health.subject());
        if let Some(known) = known.filter(|known| at.offset < known.offset) {
            warn!(
                pipeline,
                sink, "back {subject} the store went back from {known} to {at}: it is fed again from there"
            );
        }
        if is_changed {
            info!(
                pipeline,
                sink, "changed {subject} the tables are not those of the last start, in columns, names or definitions"
            );
        }
        self.health.owned(Instant::now());
        if self.guarantee.replace(guarantee.clone()).as_ref() == Some(guarantee) {
            return;
        }
        let first = read_from.offset + 1;
        let left_out = read_from.offset.saturating_sub(oldest.offset);
        if at != SpoolPosition::START {
            debug!(pipeline, sink, first, "opened {subject} {guarantee}; goes on at offset {first}");
        } else if left_out > 0 {
            info!(
                pipeline,
                sink,
                first,
                "begins {subject} a new sink: the first offset that it gets is {first}; start = \"earliest\" would give it \
                 the {left_out} before that, too"
            );
        } else {
            debug!(pipeline, sink, first, "opened {subject} {guarantee}; a new sink, its first offset is {first}");
        }
    }

    /// Says for which tables the store promises less than the pipeline's first line says, when that is news.
    pub(super) fn weaker(&mut self, weaker: Vec<Weaker>) {
        if self.weaker == weaker {
            return;
        }
        let (pipeline, sink, subject) = (&self.pipeline, &self.sink, self.health.subject());
        for table in &weaker {
            warn!(pipeline, sink, table = table.table, "weaker {subject} {table}");
        }
        self.health.weaker(weaker.iter().map(ToString::to_string).collect());
        self.weaker = weaker;
    }

    /// Shows what keys make of the rows; once for each, that there is something to show.
    pub(super) fn keys(&mut self, keys: &Keys) {
        for measured in keys.measured().filter(|measured| measured.repeated > 0) {
            let name = (measured.table.clone(), measured.key.clone());
            if self.repeating.contains(&name) {
                continue;
            }
            let (pipeline, sink, subject) = (&self.pipeline, &self.sink, self.health.subject());
            info!(pipeline, sink, table = measured.table, "key {subject} {measured}; health shows how it goes on");
            self.repeating.push(name);
        }
        self.health.keys(keys.measured());
    }

    /// Notes that somebody else has written to the tables, which a person should look at.
    pub(super) fn has_neighbour(&mut self, what: String) {
        self.reservation = Some(what);
    }

    /// Notes that a position moved, and returns how many rows were stored.
    pub(super) fn moved(&mut self, before: Option<&Balance>, machine: &Machine, now: Instant) -> u64 {
        let Some(after) = machine.balance() else { return 0 };
        self.health.balance(after);
        let earlier = before.filter(|before| before.since == after.since).map_or(0, |before| before.fates.delivered);
        let rows = after.fates.delivered.saturating_sub(earlier);
        if before.is_none_or(|before| before.upto == after.upto) && rows == 0 {
            return 0;
        }
        self.metrics.committed_rows.increment(rows);
        self.metrics.chunks.increment(1);
        self.health.committed(now, rows);
        if rows > 0 {
            let seconds = now.duration_since(self.began).as_secs_f64();
            self.well(&format!("first rows stored {seconds:.1} s after the start"), machine, now);
        } else {
            self.well("the store keeps the position; no rows for it yet", machine, now);
        }
        if std::mem::take(&mut self.is_holding) {
            self.healthy("what the store had accepted is durable");
        }
        if let Some(drain) = &mut self.drains {
            drain.rows += rows;
        }
        rows
    }

    /// Notes that the store has taken rows, and will make them durable.
    pub(super) fn accepted(&mut self, machine: &Machine, now: Instant) {
        self.health.accepted();
        let seconds = now.duration_since(self.began).as_secs_f64();
        self.well(&format!("first rows accepted {seconds:.1} s after the start"), machine, now);
        if !std::mem::replace(&mut self.is_holding, true) {
            self.healthy(&format!(
                "the store has accepted rows; they stay in {} until it has made them durable",
                self.log
            ));
        }
    }

    /// Says that all is well, if that is news.
    fn well(&mut self, first: &str, machine: &Machine, now: Instant) {
        if std::mem::replace(&mut self.is_well, true) {
            return;
        }
        match self.down.take() {
            Some((since, mended)) => {
                let seconds = now.duration_since(since).as_secs_f64();
                self.healthy(&format!("{mended}, after {seconds:.1} s"));
                self.drains = Some(Drain { since: now, upto: machine.readable(), rows: 0 });
            }
            None => self.healthy(first),
        }
    }

    /// Says that rows are stored; and that somebody should look all the same, where that is so.
    fn healthy(&self, how: &str) {
        match &self.reservation {
            Some(what) => _ = self.health.degraded(format!("{how}; {what}")),
            None => _ = self.health.healthy(how),
        }
    }

    /// Says that a call failed and what comes next.
    pub(super) fn failed(&mut self, machine: &Machine, error: &str, now: Instant) {
        let Some((at, attempt)) = machine.retry(now) else { return };
        self.metrics.retries.increment(1);
        self.is_down("the store takes rows again", now);
        let pause = at.saturating_duration_since(now).as_secs_f64();
        let breaker = if machine.breaker(now).state == BreakerState::Open { "; the breaker is open" } else { "" };
        if machine.deadline().is_some() {
            self.health
                .degraded(format!("{error}; tried again up to the deadline, what is left then stays in {}", self.log));
            return;
        }
        self.health.degraded(format!("{error}; trying again in {pause:.1} s (attempt {attempt}{breaker})"));
    }

    /// Says that dead letters cannot be written, for which their sink waits.
    pub(super) fn not_buried(&mut self, machine: &Machine, error: &str, now: Instant) {
        let Some((at, attempt)) = machine.letters_retry() else { return };
        self.is_down("dead letters are written again", now);
        let pause = at.saturating_duration_since(now).as_secs_f64();
        self.letters.degraded(format!("{error}; trying again in {pause:.1} s (attempt {attempt})"));
        self.health.degraded("waits for its dead letters, without which no row goes on");
    }

    /// Says that the program itself failed and what comes next.
    pub(super) fn panicked(&mut self, panic: &str, pause: Duration, attempt: u32, now: Instant) {
        self.is_down("rows are stored again", now);
        if self.health.status() == Status::Failed {
            self.health.restarted("the delivery begins again");
        }
        let pause = pause.as_secs_f64();
        self.health.degraded(format!("{panic}; beginning again in {pause:.1} s (attempt {attempt})"));
    }

    fn is_down(&mut self, mended: &'static str, now: Instant) {
        self.health.disowned();
        (self.is_well, self.is_holding) = (false, false);
        self.drains = None;
        self.down.get_or_insert((now, mended));
    }

    pub(super) fn wrote(&self, began: Instant, outcome: &Result<Written>) {
        let took = began.elapsed();
        self.metrics.write.record(took.as_secs_f64());
        if matches!(outcome, Ok(Written::Committed | Written::Accepted)) {
            self.health.took(took);
        }
    }

    pub(super) fn checked(&self, began: Instant) {
        let took = began.elapsed();
        self.metrics.probe.record(took.as_secs_f64());
        self.health.checked(Instant::now(), took);
    }

    /// Says that the store refused rows for good.
    pub(super) fn refused(&mut self, refusals: &[Refusal], now: Instant) {
        self.metrics.refused_rows.increment(refusals.len() as u64);
        self.last_refusal = refusals.first().map(|refusal| refusal.error.chain()).unwrap_or_default();
        self.refusals.unsaid += refusals.len() as u64;
        self.tell_refused(now);
    }

    /// Says that derived tables have no value for rows.
    pub(super) fn unfit(&mut self, letters: &[DeadLetter], now: Instant) {
        self.metrics.refused_rows.increment(letters.len() as u64);
        self.last_refusal = letters.first().map(|letter| letter.error.clone()).unwrap_or_default();
        self.refusals.unsaid += letters.len() as u64;
        self.tell_refused(now);
    }

    /// Says what becomes of rows that send dead letters again.
    pub(super) fn redriven(&self, go: &[bool]) {
        let (pipeline, sink, subject) = (&self.pipeline, &self.sink, self.health.subject());
        let rows = go.iter().filter(|goes| **goes).count();
        let left = go.len() - rows;
        if rows > 0 {
            let noun = if rows == 1 { "dead letter" } else { "dead letters" };
            info!(pipeline, sink, rows, "redriven {subject} {rows} {noun} sent again");
        }
        if left > 0 {
            let what = "not sent again: each was before, or is no dead letter any more";
            info!(pipeline, sink, rows = left, "redriven {subject} {left} {what}");
        }
    }

    fn tell_refused(&mut self, now: Instant) {
        let Some(rows) = self.refusals.due(now) else { return };
        let (pipeline, sink, subject, why) = (&self.pipeline, &self.sink, self.health.subject(), &self.last_refusal);
        let noun = if rows == 1 { "row, now a dead letter" } else { "rows, now dead letters; the newest" };
        warn!(pipeline, sink, rows, why, "refused {subject} the store does not take {rows} {noun}: {why}");
    }

    /// Says whether the position could be noted beside the spool.
    pub(super) fn noted(&mut self, written: Result<()>, now: Instant) {
        match written {
            Ok(()) => self.unnoted = Seldom::default(),
            Err(error) => {
                self.last_unnoted = error.chain();
                self.unnoted.unsaid += 1;
                self.tell_unnoted(now);
            }
        }
    }

    fn tell_unnoted(&mut self, now: Instant) {
        let Some(times) = self.unnoted.due(now) else { return };
        let (pipeline, sink, subject, why) = (&self.pipeline, &self.sink, self.health.subject(), &self.last_unnoted);
        warn!(
            pipeline,
            sink,
            times,
            why,
            "unnoted {subject} the position is not noted on this host, and a spool keeps more for that: {why}"
        );
    }

    pub(super) fn dead_letters(&self, letters: u64) {
        self.metrics.dead_letters.set(letters as f64);
        self.letters.dead_letters(letters);
        self.letters.healthy(if letters == 0 { "none" } else { "rows wait for a person" });
    }

    /// Notes that dead letters were written, since `began`.
    pub(super) fn buried(&self, began: Instant, letters: u64) {
        self.letters.took(began.elapsed());
        self.dead_letters(letters);
    }

    /// Says how it ended.
    pub(super) fn ended(&mut self, outcome: &Outcome, now: Instant) {
        self.refusals.said_at = None;
        self.tell_refused(now);
        if let Some(why) = &outcome.failure {
            self.health.failed(why.clone());
            return;
        }
        let (rows, log) = (outcome.rows_left, self.log);
        let stays = match (rows, outcome.more_left) {
            (0, false) => format!("everything in {log} is stored"),
            (_, false) => format!("{rows} rows stay in {log}, the next start sends them"),
            (_, true) => format!("more than {rows} rows stay in {log}, the next start sends them"),
        };
        self.health.stopped(stays);
    }
}

impl Seldom {
    /// Returns how many have not been said yet, if it is time to.
    fn due(&mut self, now: Instant) -> Option<u64> {
        let is_early = self.said_at.is_some_and(|at| now < at + SAID_EVERY);
        if self.unsaid == 0 || is_early {
            return None;
        }
        self.said_at = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

const BREAKER: &str = "store";

const SAID_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_happen_for_each_row_is_said_at_once_and_then_once_a_minute_with_its_number() {
        let start = Instant::now();
        let mut seldom = Seldom::default();
        assert_eq!(seldom.due(start), None, "nothing happened");
        seldom.unsaid += 1;
        assert_eq!(seldom.due(start), Some(1));
        for second in 1..60 {
            seldom.unsaid += 1;
            assert_eq!(seldom.due(start + Duration::from_secs(second)), None);
        }
        assert_eq!(seldom.due(start + SAID_EVERY), Some(59));
        assert_eq!(seldom.due(start + 3 * SAID_EVERY), None, "all was said");
    }
}
