//! Rows that come at a steady rate: how long after they were appended they are committed, and how fast a store catches up that
//! was killed while they went on.

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use tidegate_core::{config::Batch, delivery::Outcome, spool::SpoolPosition, testkit::InlineIntake};
use tokio::{runtime::Runtime, sync::watch, task::JoinHandle, time};

use super::{Bench, CHUNK, Store};
use crate::{
    delivered::{Sending, Target, spool},
    feeder::{self, Feeder},
    frames::{Feed, Kind},
    program::wait,
    table::{Table, milliseconds, quantiles},
    watched::Shared,
};

/// Rows a second.
const RATE: f64 = 2_000.0;
/// What has come since the last one is appended, and fsynced.
const TICK: Duration = Duration::from_millis(5);
/// For so many seconds rows go on while a store catches up.
const CATCHING_UP: f64 = 20.0;
/// How long anything may take at most.
const LONGEST: Duration = Duration::from_secs(300);

impl<S: Store> Bench<'_, S> {
    pub(super) fn live(&mut self, number: &str) {
        let mut table = Table::new(&[
            "rows",
            "a second",
            "p50",
            "p99",
            "max",
            "commits",
            "left by the outage",
            "back → 1st commit",
            "then caught up",
        ]);
        for kind in self.effort.kinds() {
            let line = self.live_of(kind);
            table.line(line);
        }
        table.print(&format!(
            "{number}b. appended → committed in {} at {RATE} rows a second, linger 0: fsync of the log, then the store; then the \
             server is killed, rows come, and it is started again",
            self.store.name()
        ));
    }

    fn live_of(&mut self, kind: Kind) -> Vec<String> {
        let (effort, run) = (self.effort, self.next());
        let seconds = effort.seconds as f64;
        let most = ((seconds + 1.0 + CATCHING_UP) * RATE) as usize + effort.stored;
        let feed = Feed::own(kind, most);
        let mut target = self.store.target(&run, kind, None);
        let seen = Shared::with_times();
        target.factory = seen.watch(target.factory);
        let folder = tempfile::tempdir_in(self.folder).expect("a folder for files");
        let mut stream = Stream::begin(self.runtime, &feed, folder.path(), &target);

        stream.pour(|_| seen.lock().watch.is_some());
        stream.pour(|passed| passed >= Duration::from_secs(1));
        let commits = seen.lock().commits;
        drop(seen.lock().take_times());
        stream.pour(|passed| passed >= Duration::from_secs(effort.seconds));
        let (_, mut times) = seen.lock().take_times();
        let commits = seen.lock().commits - commits;
        let [p50, p99, max] = quantiles(&mut times).map(milliseconds);
        let rate = format!("{:.0}", times.len() as f64 / seconds);
        let mut line = vec![feed.name.clone(), rate, p50, p99, max, commits.to_string()];

        let end = stream.end();
        stream.pour(|_| seen.lock().position >= end);
        self.store.server().kill();
        stream.append(effort.stored);
        self.store.server().restart();
        let (back, before) = (Instant::now(), seen.lock().rows);
        stream.pour(|_| seen.lock().rows > before);
        let (first, had) = (back.elapsed(), seen.lock().rows);
        // Live rows go on, so the end does; it is caught up with when no more than a few ticks are left.
        let is_close = |end: u64| end - seen.lock().position < (RATE * 0.1) as u64;
        while !is_close(stream.end()) {
            stream.pour(|passed| passed >= TICK);
            assert!(back.elapsed() < LONGEST, "the store does not catch up");
        }
        let (took, rows) = (back.elapsed() - first, seen.lock().rows - had);
        let speed =
            if took < TICK { "at once".to_owned() } else { format!("{:.0} rows/s", rows as f64 / took.as_secs_f64()) };
        line.extend([format!("{} rows", effort.stored), format!("{:.2} s", first.as_secs_f64()), speed]);
        stream.finish();
        self.store.clear(&run, kind);
        line
    }
}

/// Rows on their way: a log that grows, and a delivery that follows.
struct Stream<'a> {
    runtime: &'a Runtime,
    intake: InlineIntake,
    feeder: Feeder,
    frames: &'a [String],
    synced: watch::Sender<SpoolPosition>,
    stop: watch::Sender<Option<time::Instant>>,
    running: JoinHandle<Outcome>,
}

impl<'a> Stream<'a> {
    fn begin(runtime: &'a Runtime, feed: &'a Feed, folder: &std::path::Path, target: &Target) -> Self {
        let intake = spool(&folder.join("spool"));
        let feeder = Feeder::begin(intake.link(0, feeder::tables()), feed);
        let reader = intake.reader();
        let (synced, synced_seen) = watch::channel(reader.end());
        let (stop, stop_seen) = watch::channel(None);
        let rows = NonZeroUsize::new(CHUNK).unwrap_or(NonZeroUsize::MIN);
        let sending = Sending { folder, reader: &reader, batch: Batch { rows, ..Batch::default() } };
        let delivery = sending.delivery(target, &folder.join("known"), synced_seen, stop_seen);
        let running = runtime.spawn(delivery.run());
        Self { runtime, intake, feeder, frames: &feed.frames, synced, stop, running }
    }

    /// Returns the last offset that there is.
    fn end(&self) -> u64 {
        self.synced.borrow().offset
    }

    /// Appends so many rows, if there are any left, and makes them durable.
    fn append(&mut self, count: usize) {
        let (now, later) = self.frames.split_at(count.min(self.frames.len()));
        self.frames = later;
        for burst in now.chunks(16) {
            burst.iter().for_each(|frame| self.feeder.read(frame));
            self.feeder.link().hand_over().expect("intake is there");
            self.intake.enter().expect("the disk works");
        }
        self.intake.sync().expect("the disk works");
        self.synced.send_replace(self.intake.reader().end());
    }

    /// Appends rows at the steady rate until it is enough, which is told how long that has taken.
    fn pour(&mut self, is_enough: impl Fn(Duration) -> bool) {
        let (began, mut appended) = (Instant::now(), 0);
        while !is_enough(began.elapsed()) {
            assert!(began.elapsed() < LONGEST, "nothing comes of it");
            assert!(!self.running.is_finished(), "the delivery has ended");
            let due = (began.elapsed().as_secs_f64() * RATE) as usize;
            self.append(due - appended);
            appended = due;
            wait(self.runtime, TICK);
        }
    }

    /// Waits until everything is stored.
    fn finish(self) {
        self.stop.send_replace(Some(time::Instant::now() + LONGEST));
        let outcome = self.runtime.block_on(self.running).expect("no panic");
        assert_eq!((outcome.failure, outcome.rows_left), (None, 0), "rows stay behind");
    }
}
