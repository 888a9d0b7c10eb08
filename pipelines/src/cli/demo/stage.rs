//! The run itself: children one after the other, kills, and an end at which nothing is left open.

use std::{
    io::Stdout,
    process::ExitStatus,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tidegate_sources::deribit::simulator::{Oracle, Session, Simulator};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::{
    Signals,
    child::{Child, Event, Stopped, tail},
    folder::Folder,
    kills::{Kills, Moment},
    picture::{Cuts, Facts, Picture},
    report::Report,
    screen::Screen,
    sink::Sink,
    store::Store,
    tally::{Resumed, Tally},
};
use crate::cli::{
    DemoArgs, Failure, simulate,
    text::{count, grouped, short},
};

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) folder: Folder,
    pub(super) simulator: Simulator,
    pub(super) sink: Sink,
    pub(super) store: Store,
    screen: Screen<Stdout>,
    began: Instant,
    /// When it ends by itself, not before the kills are done.
    ends_at: Option<Instant>,
    /// Whether it was said that it goes on after that for the sake of the kills.
    is_delay_told: bool,
    /// Sessions of earlier runs.
    sessions_before: usize,
    child: Child,
    tally: Tally,
    kills: Kills,
    /// Children that have ended without being told to.
    deaths: u32,
    /// What needs a person, as it was told last.
    failure: Option<String>,
    is_first_row_told: bool,
    /// Whether the venue makes events: it waits for the first subscription.
    is_awake: bool,
}

/// What is there before the first child is.
pub(super) struct Set {
    pub(super) folder: Folder,
    pub(super) simulator: Simulator,
    pub(super) sink: Sink,
    pub(super) store: Store,
    pub(super) screen: Screen<Stdout>,
}

/// Why the end is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Somebody waits for it.
    Asked,
    /// It was time.
    Due,
    /// Children end by themselves again and again.
    Broken,
}

/// What the end left.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Done {
    /// When the venue made the last, in milliseconds since 1970.
    pub(super) ended_ms: i64,
    /// What needs a person, and kept the pipeline from storing what came.
    pub(super) failure: Option<String>,
    /// Gaps that the last child still knew to be open.
    pub(super) gaps_open: u64,
    pub(super) kills: u32,
}

impl Stage {
    /// Starts the first child.
    ///
    /// # Errors
    ///
    /// If it cannot be started, or the database cannot be read.
    pub(super) async fn begin(set: Set, args: &DemoArgs, began: Instant) -> Result<Self, Failure> {
        let Set { folder, simulator, sink, mut store, screen } = set;
        let mut tally = Tally::default();
        tally.begin(store.standing().await?);
        Ok(Self {
            child: start(&folder, &sink)?,
            kills: Kills::new(args.kill.unwrap_or(0), folder.seed()),
            ends_at: args.duration.map(|duration| began + duration),
            is_delay_told: false,
            sessions_before: simulator.read(|oracle| oracle.sessions.len()),
            folder,
            simulator,
            sink,
            store,
            screen,
            began,
            tally,
            deaths: 0,
            failure: None,
            is_first_row_told: false,
            is_awake: false,
        })
    }

    /// Runs until it is time to end.
    ///
    /// # Errors
    ///
    /// If a child cannot be started or heard, or the database cannot be read.
    pub(super) async fn run(&mut self, signals: &mut Signals) -> Result<Ending, Failure> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = self.child.next() => match event.map_err(unheard)? {
                    Event::Report(report) => self.hear(*report)?,
                    Event::Ended(status) if !self.restart_after(status).await? => return Ok(Ending::Broken),
                    Event::Ended(_) => {}
                },
                _ = ticks.tick() => {}
                () = signals.stop() => return Ok(Ending::Asked),
                error = self.simulator.failed() => return Err(Failure::failed(simulate::unwritable(&error))),
            }
            let now = Instant::now();
            self.show(now);
            self.tell_delay(now);
            if !self.is_awake && self.simulator.read(is_heard) {
                // Faults begin when there is something that they can hit.
                self.simulator.resume();
                self.is_awake = true;
            }
            if self.kills.is_due(now - self.child.began, self.tally.report().source.gaps.open) {
                self.kill().await?;
            } else if self.is_over(now) {
                return Ok(Ending::Due);
            }
        }
    }

    /// Lets the venue make nothing more and mend, the pipeline catch up, and stops it.
    ///
    /// # Errors
    ///
    /// If a child cannot be heard or started again.
    pub(super) async fn end(&mut self, ending: Ending) -> Result<Done, Failure> {
        let began = Instant::now();
        let (heal, stop) = match ending {
            Ending::Asked if self.sink.is_file() => HURRIED,
            // Across a network a commit takes its time.
            Ending::Asked => FAR,
            Ending::Due | Ending::Broken => PATIENT,
        };
        self.simulator.freeze();
        self.simulator.mend();
        let (before, ended_ms) = (self.tally.rows(), now_ms());
        if ending != Ending::Broken && self.heal(began + heal).await? {
            let last = self.simulator.read(|oracle| oracle.sessions.len());
            self.folder.settle(last)?;
        }
        let failure = if ending == Ending::Broken {
            Some("the pipeline has ended by itself; the end of its log is above".to_owned())
        } else {
            self.tally.report().failure()
        };
        // The end of the last session opens a gap in every stream, which the next demo finds and fills.
        let gaps_open = self.tally.totals().gaps_open;
        let facts = self.facts(Instant::now());
        let Stopped { last, in_time } = self.child.stop(stop).await.map_err(unheard)?;
        self.tally.end(last.as_deref(), self.store.standing().await?);
        if !in_time {
            self.screen
                .say("the pipeline did not end in time and was killed; what is in its spool is stored next time");
        }
        self.screen.finish(&Picture { facts, tally: &self.tally });
        let rows = count(self.tally.rows().saturating_sub(before), "row");
        self.screen
            .say(&format!("stopping: connection closed, {rows} written, {:.2} s", began.elapsed().as_secs_f64()));
        if failure.is_none() && self.tally.rows() > MANY_ROWS {
            self.screen.say(&format!(
                "comparing {} rows with the simulator's own list; Ctrl-C ends it without",
                grouped(self.tally.rows())
            ));
        }
        Ok(Done { ended_ms, failure, gaps_open, kills: self.kills.done })
    }

    /// Waits until everything that the venue made has come, been fetched and been stored; returns false if the time was up
    /// before.
    async fn heal(&mut self, deadline: Instant) -> Result<bool, Failure> {
        if timeout_at(deadline, self.simulator.settle()).await.is_err() {
            return Ok(false);
        }
        let mut calm = 0;
        let mut received = None;
        while calm < CALM {
            let Ok(event) = timeout_at(deadline, self.child.next()).await else { return Ok(false) };
            match event.map_err(unheard)? {
                Event::Report(report) => self.hear(*report)?,
                Event::Ended(status) if !self.restart_after(status).await? => return Ok(false),
                Event::Ended(_) => {}
            }
            let report = self.tally.report();
            if report.failure().is_some() {
                return Ok(false);
            }
            let so_far = report.source.rows_received + report.source.rows_backfilled;
            let is_calm = report.is_quiet() && received == Some(so_far) && self.simulator.read(is_heard);
            calm = if is_calm { calm + 1 } else { 0 };
            received = Some(so_far);
        }
        Ok(true)
    }

    fn hear(&mut self, report: Report) -> Result<(), Failure> {
        let resumed = self.tally.hear(report, Instant::now());
        if self.folder.history().claimed_from.is_none() && self.tally.claims() {
            self.folder.claim_from(self.simulator.read(|oracle| oracle.sessions.len()))?;
        }
        let failure = self.tally.report().failure();
        if failure != self.failure {
            self.failure = failure;
            self.failure.iter().for_each(|text| self.screen.say(text));
        }
        if let Some(first) = self.tally.first_row.filter(|_| !self.is_first_row_told) {
            self.is_first_row_told = true;
            let after = (first - self.began).as_secs_f64();
            self.screen.say(&format!("first row stored {after:.2} s after the start"));
        }
        if let Some(text) = resumed.and_then(|resumed| self.resumed(resumed)) {
            self.screen.say(&text);
        }
        Ok(())
    }

    /// Words what a child found that went on where another had stopped.
    fn resumed(&self, Resumed { from_spool, by_rest, newest_ms }: Resumed) -> Option<String> {
        let newest_ms = newest_ms?;
        let confirmed_ms = |oracle: &Oracle| Some(oracle.sessions.last()?.subscriptions.first()?.confirmed_ms);
        let gap = self.simulator.read(confirmed_ms).map_or(0, |confirmed_ms| (confirmed_ms - newest_ms).max(0));
        let (rows, trades) = (grouped(from_spool), count(by_rest, "trade"));
        let gap = short(gap as f64 / 1000.0);
        Some(format!("resumed: {rows} rows were in the spool, gap of {gap} found, filled ({trades} by REST)"))
    }

    fn show(&mut self, now: Instant) {
        let facts = self.facts(now);
        self.screen.show(&Picture { facts, tally: &self.tally }, now);
    }

    fn facts(&self, now: Instant) -> Facts {
        Facts {
            passed: now - self.began,
            cuts: self.simulator.read(|oracle| cuts(&oracle.sessions[self.sessions_before..], now_ms())),
            kills: (self.kills.wanted() > 0).then(|| (self.kills.done, self.kills.wanted())),
            sink: (self.sink.name(), self.sink.guarantee()),
        }
    }

    /// Says it once where the kills take longer than the time that was asked for.
    fn tell_delay(&mut self, now: Instant) {
        let is_late = !self.kills.is_over() && self.ends_at.is_some_and(|ends_at| now >= ends_at);
        if is_late && !self.is_delay_told {
            self.is_delay_told = true;
            let left = count(u64::from(self.kills.wanted() - self.kills.done), "kill");
            self.screen.say(&format!("the time of --for is over, and it ends after {left} more"));
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        if !self.kills.is_over() {
            return false;
        }
        match self.ends_at {
            Some(ends_at) => now >= ends_at,
            // Nobody said when: after the last kill it has shown what it is for.
            None => self.kills.done > 0 && now - self.child.began >= AFTER_KILLS,
        }
    }

    async fn kill(&mut self) -> Result<(), Failure> {
        let age = self.child.began.elapsed().as_secs_f64();
        let gaps_open = self.tally.report().source.gaps.open;
        self.child.kill().await.map_err(unheard)?;
        let moment = self.kills.killed();
        let in_backfill = matches!(moment, Moment::Backfill(_)) && gaps_open > 0;
        let place = if in_backfill { format!(", with {} open", count(gaps_open, "gap")) } else { String::new() };
        let (done, wanted) = (self.kills.done, self.kills.wanted());
        self.screen.say(&format!("killed {done} of {wanted}: kill -9 after {age:.2} s{place}"));
        self.start_another().await
    }

    /// Says that a child has ended by itself, and starts another one; returns false after too many, and where the next one
    /// would refuse to start as this one did.
    async fn restart_after(&mut self, status: ExitStatus) -> Result<bool, Failure> {
        self.deaths += 1;
        let (log, log_path) = (tail(&self.folder.log_path()), self.folder.log_path());
        let is_last = self.deaths > MOST_DEATHS || status.code() == Some(REFUSES_TO_START);
        let next = if is_last { "not started again" } else { "started again" };
        self.screen.say(&format!(
            "the pipeline has ended by itself ({status}) and is {next}; the end of {}:\n{log}",
            log_path.display()
        ));
        if is_last {
            return Ok(false);
        }
        self.start_another().await?;
        Ok(true)
    }

    async fn start_another(&mut self) -> Result<(), Failure> {
        self.tally.begin(self.store.standing().await?);
        self.child = start(&self.folder, &self.sink)?;
        Ok(())
    }
}

fn start(folder: &Folder, sink: &Sink) -> Result<Child, Failure> {
    Child::start(folder, sink).map_err(|error| Failure::failed(format!("cannot start the pipeline's process: {error}")))
}

fn unheard(error: std::io::Error) -> Failure {
    Failure::failed(format!("cannot watch the pipeline's process: {error}"))
}

/// Returns whether the venue has a session with somebody. A half-open one counts as ended: the client does not know yet.
fn is_heard(oracle: &Oracle) -> bool {
    oracle.sessions.last().is_some_and(|last| last.ended_ms.is_none() && !last.subscriptions.is_empty())
}

fn cuts(sessions: &[Session], now_ms: i64) -> Cuts {
    let ends = sessions.iter().filter_map(|session| session.ended_ms);
    let age = |ended_ms: i64| Duration::from_millis(u64::try_from(now_ms - ended_ms).unwrap_or(0));
    Cuts { count: ends.clone().count() as u64, last: ends.max().map(age) }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// How often kills and the end are looked at.
const TICK: Duration = Duration::from_millis(50);

/// How long gaps may take to be filled, and the pipeline to end, for somebody who pressed Ctrl-C: 2 s in all.
const HURRIED: (Duration, Duration) = (Duration::from_millis(1_600), Duration::from_millis(250));
const FAR: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));
const PATIENT: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(6));

/// So many reports in a row in which nothing more came.
const CALM: u32 = 2;

/// How long the last child is watched after the last kill.
const AFTER_KILLS: Duration = Duration::from_secs(3);

const MOST_DEATHS: u32 = 3;

/// The exit code of `run` for a mistake in its files or variables.
const REFUSES_TO_START: i32 = 2;

/// More cannot be compared in a moment.
const MANY_ROWS: u64 = 500_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn session(ended_ms: Option<i64>) -> Session {
        Session { opened_ms: 1_000, ended_ms, ..Session::default() }
    }

    #[test]
    fn every_session_that_has_ended_is_a_cut() {
        assert_eq!(cuts(&[session(None)], 9_000), Cuts::default());
        let sessions = [session(Some(2_000)), session(Some(6_000)), session(None)];
        assert_eq!(cuts(&sessions, 9_000), Cuts { count: 2, last: Some(Duration::from_secs(3)) });
    }

    #[test]
    fn a_venue_is_heard_only_over_a_live_session() {
        let subscription = tidegate_sources::deribit::simulator::Subscription {
            channel: "trades.option.ETH.100ms".to_owned(),
            confirmed_ms: 1,
            from: std::collections::BTreeMap::new(),
            ended: None,
        };
        let mut oracle = Oracle::default();
        oracle.sessions.push(session(None));
        assert!(!is_heard(&oracle), "nobody has subscribed");
        oracle.sessions[0].subscriptions.push(subscription);
        assert!(is_heard(&oracle));
        oracle.sessions[0].ended_ms = Some(5_000);
        assert!(!is_heard(&oracle), "half open, or cut");
    }
}
