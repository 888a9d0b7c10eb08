//! Intake over a real spool on a disk in memory, fed through real links.

mod board;
mod entry;
mod shell;

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::{
    Handover, Link, LinkId, Step,
    continuity::{Continuity, row_hash},
    entry::{Accepted, Intake, Now, Place, Rows},
    tally::SourceTally,
};
use crate::{
    health::Registry,
    protocol::Covered,
    row::{
        Mark, Numbering, Origin, Position, StreamKey, Table, Timestamp,
        kinds::{Ticker, Trade},
    },
    spool::{self, Control, Item, Recovery, SourceInfo, SpoolLimits, SpoolOptions, SpoolPosition},
    testkit::SimDisk,
};

const S: i64 = 1_000_000_000;

fn tables() -> Vec<Table> {
    vec![Table::of::<Trade<'_>>(), Table::of::<Ticker<'_>>()]
}

fn source() -> SourceInfo {
    SourceInfo { name: "venue".into(), venue: "toy".into(), tables: tables().into_iter().map(Arc::new).collect() }
}

fn options(limits: SpoolLimits) -> SpoolOptions {
    SpoolOptions { pipeline: "p".into(), sources: vec![source()], limits }
}

/// A venue's link, and the queue to intake.
struct Feed {
    link: Link,
    queue: mpsc::Receiver<Handover>,
}

impl Feed {
    fn new(line: u16) -> Self {
        let (sender, queue) = mpsc::channel(8);
        Self { link: Link::new(LinkId { source: 0, line }, tables(), sender, 1 << 30), queue }
    }

    fn trade(&mut self, symbol: &str, n: u64, origin: Origin) {
        trade(&mut self.link, symbol, n, origin);
    }

    fn ticker(&mut self, symbol: &str) {
        let mark = Mark { symbol, position: Position::Unnumbered, ts_event: Timestamp(S) };
        self.link.outbox().begin(Timestamp(S), Origin::Live);
        self.link.outbox().emit(mark, &Ticker::default());
    }

    fn confirm(&mut self, symbols: &[&str]) {
        self.link.step(confirmed(symbols));
    }

    fn handover(&mut self) -> Handover {
        self.link.hand_over().expect("a buffer is there");
        self.queue.try_recv().expect("something was handed over")
    }
}

fn trade(link: &mut Link, symbol: &str, n: u64, origin: Origin) {
    let ts_event = Timestamp(n as i64 * S);
    let row = Trade { price: n as f64, size: 1.0, id: Some("a trade's id"), ..Trade::default() };
    link.outbox().begin(ts_event, origin);
    link.outbox().emit(Mark { symbol, position: Position::Sequence(n), ts_event }, &row);
}

fn confirmed(symbols: &[&str]) -> Step {
    let covered = |symbol: &&str| Covered { key: StreamKey::new("trades", symbol), numbering: Numbering::Sequence };
    Step::Confirmed { streams: symbols.iter().map(covered).collect(), at: Timestamp(0) }
}

/// Intake on a disk.
struct Host {
    disk: SimDisk,
    limits: SpoolLimits,
    intake: Intake,
    now: Now,
}

impl Host {
    fn new(limits: SpoolLimits) -> Self {
        Self::on(SimDisk::default(), limits)
    }

    fn on(disk: SimDisk, limits: SpoolLimits) -> Self {
        let now = Now { wall: Timestamp(1_000 * S), mono: Duration::ZERO };
        let recovery = Recovery::open(Arc::new(disk.clone()), options(limits)).unwrap();
        let mut continuity = Continuity::restore(recovery.snapshot().unwrap_or_default()).unwrap();
        let recovery = recovery.replay(|step| fold(&mut continuity, &step)).unwrap();
        let begun = recovery.begin(continuity.snapshot(), now.wall, "test").unwrap();
        continuity.apply(&begun.boot);
        let tally = SourceTally::new(&Registry::new(), "p", "venue");
        let mut intake = Intake::new(continuity, begun.writer, vec!["venue".into()], vec![tally]);
        intake.booted(now).unwrap();
        Self { disk, limits, intake, now }
    }

    fn accept(&mut self, handover: &Handover) -> Accepted {
        self.intake.accept(self.now, handover, Place::default(), Rows::Keep).unwrap()
    }

    /// Takes a handover and gives its buffer back.
    fn take(&mut self, feed: &mut Feed) -> u64 {
        let handover = feed.handover();
        let Accepted::Done(logged) = self.accept(&handover) else { panic!("there was no room") };
        handover.done(logged);
        logged
    }

    /// The process is killed, and starts again.
    fn kill(self) -> Self {
        self.disk.kill();
        drop(self.intake);
        Self::on(self.disk, self.limits)
    }

    /// Returns what each durable item is.
    fn items(&mut self) -> Vec<String> {
        self.entries().into_iter().flatten().collect()
    }

    /// Returns what was decided since the boot and is durable, with the second in which it happened.
    fn times(&mut self) -> Vec<String> {
        self.entries();
        let mut cursor = self.intake.spool.reader().cursor(SpoolPosition::START);
        let mut times = Vec::new();
        while let Some(step) = cursor.next(u64::MAX).unwrap() {
            let spool::Step::Entry(entry) = step else { continue };
            for (_, item) in entry.items() {
                if let Item::Control(
                    Control::Confirmed { at, .. }
                    | Control::Ended { at, .. }
                    | Control::GapOpened { at, .. }
                    | Control::GapClosed { at, .. },
                ) = &item
                {
                    times.push(format!("{} {}", word(&item).split(' ').next().unwrap_or_default(), at.0 / S));
                }
            }
        }
        times
    }

    /// Returns the durable entries as words.
    fn entries(&mut self) -> Vec<Vec<String>> {
        if let Some(job) = self.intake.spool.sync_job() {
            self.intake.spool.synced(job.run()).unwrap();
        }
        let mut cursor = self.intake.spool.reader().cursor(SpoolPosition::START);
        let mut entries = Vec::new();
        while let Some(step) = cursor.next(u64::MAX).unwrap() {
            if let spool::Step::Entry(entry) = step {
                entries.push(entry.items().map(|(_, item)| word(&item)).collect());
            }
        }
        entries
    }

    /// I5 on the disk: what a restart would know is what memory knows.
    fn assert_recoverable(&mut self) {
        let copy = self.disk.copy();
        copy.kill();
        let recovery = Recovery::open(Arc::new(copy), options(self.limits)).unwrap();
        let mut continuity = Continuity::restore(recovery.snapshot().unwrap_or_default()).unwrap();
        recovery.replay(|step| fold(&mut continuity, &step)).unwrap();
        assert!(continuity == self.intake.continuity, "the disk says something else than memory");
    }
}

fn fold(continuity: &mut Continuity, step: &spool::Step<'_>) {
    let spool::Step::Entry(entry) = step else { return };
    for (_, item) in entry.items() {
        match item {
            Item::Row(row, bytes) => continuity.apply_row(&row, row_hash(&row.head, bytes)),
            Item::Control(control) => continuity.apply(&control),
        }
    }
}

fn word(item: &Item<'_>) -> String {
    match item {
        Item::Row(row, _) => format!("{}", row.head.position.number().unwrap_or(0)),
        Item::Control(control) => {
            let text = format!("{control:?}");
            let name = text.split([' ', '(']).next().unwrap_or_default();
            if let Control::Ended { why, .. } = control {
                return format!("{name} {why}");
            }
            if let Control::GapClosed { outcome, .. } = control {
                return format!("{name} {outcome:?}");
            }
            name.to_owned()
        }
    }
}
