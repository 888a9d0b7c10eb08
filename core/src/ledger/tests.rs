//! The task over a spool on a disk in memory, and the file that it keeps.

use std::{path::PathBuf, sync::Arc, time::Duration};

use sqlx::Connection as _;
use tempfile::TempDir;
use tokio::{sync::watch, time::Instant};

use super::{Coverage, Keeper, Setup, State, prepare, task::Reading};
use crate::{
    delivery,
    health::{Registry, StageId, Status},
    intake::Continuity,
    protocol::{Edge, GapId},
    row::{Head, Numbering, Origin, Position, StreamKey, Timestamp},
    spool::{
        Append, Control, Floor, GapOutcome, Item, ItemBuffer, LeftBy, Recovery, RowHead, SourceInfo, SpoolLimits,
        SpoolOptions, SpoolWriter, Step,
    },
    testkit::SimDisk,
};

const S: i64 = 1_000_000_000;
const DENSE: u32 = 0;
const PLAIN: u32 = 1;

/// A spool, written by hand, and a folder for ledgers.
struct Spool {
    disk: SimDisk,
    writer: SpoolWriter,
    continuity: Continuity,
    folder: TempDir,
}

/// An item, as it is written by hand.
enum Put {
    Control(Control),
    Row(u32, u64, Origin),
}

impl Spool {
    fn new() -> Self {
        Self::on(SimDisk::default(), tempfile::tempdir().unwrap())
    }

    fn on(disk: SimDisk, folder: TempDir) -> Self {
        let source = SourceInfo { name: "deribit".into(), venue: "deribit".into(), tables: Vec::new() };
        let limits = SpoolLimits { segment_bytes: 1 << 20, max_bytes: 1 << 30, keep: Duration::ZERO };
        let options = SpoolOptions { pipeline: "eth".into(), sources: vec![source], limits };
        let recovery = Recovery::open(Arc::new(disk.clone()), options).unwrap();
        let mut continuity = Continuity::restore(recovery.snapshot().unwrap_or_default()).unwrap();
        let fold = |step: Step<'_>| {
            let Step::Entry(entry) = step else { return };
            entry.items().for_each(|(_, item)| match item {
                Item::Control(control) => continuity.apply(&control),
                Item::Row(row, _) => continuity.apply_row(&row, 0),
            });
        };
        let recovery = recovery.replay(fold).unwrap();
        let begun = recovery.begin(continuity.snapshot(), Timestamp(0), "test").unwrap();
        let mut spool = Self { disk, writer: begun.writer, continuity, folder };
        spool.continuity.apply(&begun.boot);
        spool.sync();
        spool
    }

    fn put(&mut self, item: Put) {
        let mut items = ItemBuffer::default();
        match item {
            Put::Control(control) => {
                assert!(items.push_control(&control));
                self.continuity.apply(&control);
            }
            Put::Row(stream, n, origin) => {
                let position = if stream == DENSE { Position::Sequence(n) } else { Position::Unnumbered };
                let at = Timestamp((100 + n as i64) * S);
                let head = Head { stream, position, ts_event: at, ts_recv: at, origin };
                let row = RowHead { head, session: 1, line: 0, epoch: 0 };
                items.push_row(&row, b"");
                self.continuity.apply_row(&row, 0);
            }
        }
        assert!(matches!(self.writer.append(&items, Duration::ZERO).unwrap(), Append::Written { .. }));
        self.sync();
    }

    fn put_all(&mut self, items: impl IntoIterator<Item = Put>) {
        items.into_iter().for_each(|item| self.put(item));
    }

    fn sync(&mut self) {
        while let Some(job) = self.writer.sync_job() {
            self.writer.synced(job.run()).unwrap();
        }
    }

    fn roll(&mut self) {
        self.writer.roll(self.continuity.snapshot()).unwrap();
        self.sync();
    }

    /// Lets go of all that a restart does not need.
    fn forget(&mut self) {
        let floor = Floor { offset: u64::MAX, now: Duration::from_secs(3_600) };
        if let Some(job) = self.writer.retain(floor) {
            job.run().unwrap();
        }
    }

    fn path(&self, ledger: &str) -> PathBuf {
        self.folder.path().join(ledger)
    }

    /// Runs a ledger until it has all; returns how it stands then, and what the spool is kept for.
    async fn follow(&self, ledger: &str) -> (Status, delivery::Floor) {
        self.follow_as("eth", ledger).await
    }

    async fn follow_as(&self, pipeline: &str, ledger: &str) -> (Status, delivery::Floor) {
        let health = Registry::new().stage(StageId::ledger(pipeline));
        let setup = Setup {
            pipeline: pipeline.to_owned(),
            path: self.path(ledger),
            reader: self.writer.reader(),
            synced: watch::channel(self.writer.synced_position()).1,
            stop: watch::channel(Some(Instant::now() + Duration::from_secs(60))).1,
            health: health.clone(),
        };
        let (task, floor) = prepare(setup);
        Box::pin(task.run(None)).await;
        let floor = *floor.borrow();
        (health.status(), floor)
    }

    async fn covered(&self, ledger: &str) -> Coverage {
        self.covered_since(ledger, None, Keeper::Running(Timestamp(0))).await
    }

    async fn write(&self, ledger: &str, sql: &'static str) {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.path(ledger));
        let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::query(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    async fn covered_since(&self, ledger: &str, since: Option<i64>, keeper: Keeper) -> Coverage {
        let since = since.map(|second| Timestamp(second * S));
        Coverage::read(&self.path(ledger), since, keeper).await.unwrap()
    }
}

/// Words the intervals of a stream, times in seconds.
fn said(coverage: &Coverage, table: &str) -> String {
    let stream = coverage.streams.iter().find(|stream| stream.table == table).expect("the table is there");
    let word = |at: Timestamp| (at.0 / S).to_string();
    let mut text = String::new();
    for interval in &stream.intervals {
        let why = interval.why.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        text.push_str(&format!("{} {}{why}, ", word(interval.from), interval.state.name()));
    }
    text + &stream.intervals.last().and_then(|last| last.to).map_or_else(|| "now".to_owned(), word)
}

/// The beginning of every log here: two streams that are confirmed at second 100.
fn beginning() -> Vec<Put> {
    let stream =
        |id, table| Put::Control(Control::Stream { id, source: "deribit".to_owned(), key: StreamKey::new(table, "A") });
    let mut items = vec![stream(DENSE, "trades"), stream(PLAIN, "tickers"), confirmed(1, 100)];
    items.extend([
        Put::Row(DENSE, 5, Origin::Live),
        Put::Row(PLAIN, 6, Origin::Live),
        Put::Row(DENSE, 6, Origin::Live),
    ]);
    items
}

fn confirmed(session: u32, at: i64) -> Put {
    let streams = vec![(DENSE, Numbering::Sequence), (PLAIN, Numbering::Unnumbered)];
    let at = Timestamp(at * S);
    Put::Control(Control::Confirmed { session, source: "deribit".to_owned(), line: 0, streams, venue_at: at, at })
}

/// A cut at second 106, and what was made of it: a gap that was filled in part, and then given up.
fn cut() -> Vec<Put> {
    let at = |second: i64| Timestamp(second * S);
    let after = Some(Edge { position: Position::Sequence(6), ts_event: at(106) });
    let gap = GapId(0);
    let opened = Control::GapOpened { gap, stream: DENSE, after, before: None, since: at(106), at: at(110) };
    let outcome = GapOutcome::Lost("the venue forgot".to_owned());
    vec![
        Put::Control(Control::Ended { session: 1, why: "cut".to_owned(), at: at(110) }),
        Put::Control(opened),
        confirmed(2, 120),
        Put::Row(DENSE, 7, Origin::Backfill),
        Put::Row(DENSE, 8, Origin::Backfill),
        Put::Control(Control::GapClosed { gap, stream: DENSE, outcome, filled: 2, at: at(130) }),
        Put::Control(Control::Alive { session: 2, at: at(140) }),
    ]
}

const DENSE_SAID: &str = "100 received, 106 backfilled, 108 lost (the venue forgot), 120 received, 140";

#[tokio::test]
async fn it_follows_to_the_end_and_says_what_is_kept_for_it() {
    let mut spool = Spool::new();
    spool.put_all(beginning().into_iter().chain(cut()));
    let (status, floor) = spool.follow("one").await;
    assert_eq!(status, Status::Stopped);
    assert_eq!(floor.committed, Some(spool.writer.synced_position()), "all is read: nothing is kept");
    let coverage = spool.covered("one").await;
    assert_eq!(said(&coverage, "trades"), DENSE_SAID);
    let unknown = "unknown (nobody listened, and the venue does not repeat it)";
    assert_eq!(said(&coverage, "tickers"), format!("100 received, 106 {unknown}, 120 received, 140"));
    assert!(coverage.is_lost);
    assert_eq!(coverage.offset, spool.writer.synced_position().offset);
    let trades = coverage.kinds.iter().find(|kind| kind.table == "trades").unwrap();
    assert_eq!((trades.rows_received, trades.rows_backfilled), (Some(2), Some(2)));
    assert_eq!((trades.lost, trades.lost_seconds, trades.complete_since), (1, 12.0, Some(Timestamp(120 * S))));
}

#[tokio::test]
async fn what_is_open_at_the_end_is_not_complete_and_until_when_it_was_is_said() {
    let at = |second: i64| Timestamp(second * S);
    let complete = |coverage: &Coverage| {
        let kind = coverage.kinds.iter().find(|kind| kind.table == "trades").unwrap();
        let stream = coverage.streams.iter().find(|stream| stream.table == "trades").unwrap();
        assert_eq!((kind.complete_since, kind.was_complete), (stream.complete_since, stream.was_complete));
        (kind.complete_since, kind.was_complete.map(|was| (was.from, was.to)))
    };
    let mut spool = Spool::new();
    spool.put_all(beginning());
    spool.follow("one").await;
    assert_eq!(complete(&spool.covered("one").await), (Some(at(100)), None), "nothing is open");

    // The line is down, and what it misses is asked for.
    let mut after = cut();
    spool.put_all(after.drain(..2));
    spool.follow("one").await;
    assert_eq!(complete(&spool.covered("one").await), (None, Some((at(100), at(106)))));
    let nobody = spool.covered_since("one", None, Keeper::Nobody(at(150))).await;
    assert_eq!(complete(&nobody), (None, Some((at(100), at(106)))), "nor while nobody runs it");
    let since = spool.covered_since("one", Some(130), Keeper::Nobody(at(150))).await;
    assert_eq!(complete(&since), (None, None), "of the time that is asked for nothing is complete");

    // Subscribed again at this moment, with the hole still open: a moment of no length is not complete either.
    spool.put_all(after.drain(..1));
    spool.follow("one").await;
    assert_eq!(complete(&spool.covered("one").await), (None, Some((at(100), at(106)))));

    spool.put_all(after);
    spool.follow("one").await;
    assert_eq!(complete(&spool.covered("one").await), (Some(at(120)), None), "behind what is lost");
    let nobody = spool.covered_since("one", None, Keeper::Nobody(at(150))).await;
    assert_eq!(complete(&nobody), (None, Some((at(120), at(140)))), "nobody listens since");
}

#[test]
fn it_stops_reading_when_the_time_for_stopping_is_over_and_goes_on_from_there() {
    let mut spool = Spool::new();
    spool.put_all(beginning());
    spool.put_all((0..2_000).map(|n| Put::Row(PLAIN, n, Origin::Live)));
    let end = spool.writer.synced_position();
    let mut reading = Reading::begin(&spool.writer.reader(), Vec::new(), "").unwrap();
    reading.read(end.offset, &|| true).unwrap();
    assert!(reading.position.offset < 1_000, "{:?}", reading.position);
    reading.read(end.offset, &|| false).unwrap();
    assert_eq!(reading.position, end);
}

#[tokio::test]
async fn killed_behind_every_item_it_says_the_same_as_if_it_had_never_been() {
    let mut spool = Spool::new();
    for (n, item) in beginning().into_iter().chain(cut()).enumerate() {
        spool.put(item);
        if n % 3 == 1 {
            spool.roll();
        }
        assert_eq!(spool.follow("often").await.0, Status::Stopped);
    }
    spool.follow("once").await;
    let (often, once) = (spool.covered("often").await, spool.covered("once").await);
    assert_eq!(said(&often, "trades"), DENSE_SAID);
    assert_eq!(serde_json::to_value(&often).unwrap(), serde_json::to_value(&once).unwrap());
}

#[tokio::test]
async fn what_was_dropped_before_it_was_read_is_unknown_and_what_follows_is_not() {
    let mut spool = Spool::new();
    spool.put_all(beginning());
    spool.follow("behind").await;
    spool.put_all(cut());
    spool.roll();
    spool.put(Put::Control(Control::Alive { session: 2, at: Timestamp(150 * S) }));
    spool.roll();
    spool.put(Put::Control(Control::Alive { session: 2, at: Timestamp(160 * S) }));
    spool.forget();
    assert_eq!(spool.follow("behind").await.0, Status::Stopped);
    let why = "the spool does not reach back so far";
    let coverage = spool.covered("behind").await;
    assert_eq!(said(&coverage, "trades"), format!("100 received, 106 unknown ({why}), 160 received, 160"));
    assert!(!coverage.is_lost, "nobody knows");

    spool.follow("new").await;
    let new = said(&spool.covered("new").await, "trades");
    assert_eq!(new, "100 unknown (the ledger began later), 160 received, 160", "the file is gone");
}

#[tokio::test]
async fn what_a_full_spool_dropped_and_what_the_disk_does_not_give_back_is_lost() {
    let mut spool = Spool::new();
    spool.put_all(beginning());
    let at = Timestamp(107 * S);
    let drops = |sinks: &[&str], rows| {
        let sinks = sinks.iter().map(|sink| (*sink).to_owned()).collect();
        Put::Control(Control::Dropped { sinks, rows: vec![(DENSE, rows)], offsets: Some((1, 9)), at })
    };
    spool.put_all([drops(&["sqlite"], 3), drops(&["sqlite", "file"], 4), drops(&[], 5)]);
    spool.follow("one").await;
    let coverage = spool.covered("one").await;
    let dropped: Vec<_> = coverage.dropped.iter().map(|one| (one.sink.as_deref(), one.rows)).collect();
    assert_eq!(dropped, [(None, 5), (Some("file"), 4), (Some("sqlite"), 7)]);
    assert!(coverage.is_lost, "a sink did not get them");

    let segment = spool.disk.names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    let bytes = spool.disk.bytes(&segment).len();
    spool.put(Put::Row(PLAIN, 8, Origin::Live));
    spool.put_all([
        Put::Row(PLAIN, 9, Origin::Live),
        Put::Control(Control::Alive { session: 1, at: Timestamp(110 * S) }),
    ]);
    spool.disk.flip(&segment, bytes + 60, 3);
    spool.follow("one").await;
    let coverage = spool.covered("one").await;
    assert_eq!(coverage.unreadable.len(), 1, "{coverage:?}");
    let lost = "lost (a part of the spool cannot be read any more)";
    assert_eq!(said(&coverage, "tickers"), format!("100 received, 106 {lost}, 109 received, 110"));
}

/// A live record shows at second 109 that numbers 7 and 8 are missing.
fn missed() -> Vec<Put> {
    let edge = |n: u64| Some(Edge { position: Position::Sequence(n), ts_event: Timestamp((100 + n as i64) * S) });
    let (since, at) = (Timestamp(106 * S), Timestamp(109 * S));
    let opened = Control::GapOpened { gap: GapId(0), stream: DENSE, after: edge(6), before: edge(9), since, at };
    vec![Put::Control(opened), Put::Row(DENSE, 9, Origin::Live)]
}

#[tokio::test]
async fn what_a_gap_asked_for_is_lost_when_the_disk_has_lost_the_gap_and_nobody_asks_any_more() {
    let mut spool = Spool::new();
    spool.put_all(beginning());
    let segment = spool.disk.names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    let at = spool.disk.bytes(&segment).len();
    spool.put_all(missed());
    spool.follow("one").await;
    assert_eq!(said(&spool.covered("one").await, "trades"), "100 received, 106 open, 109 received, 109");

    spool.disk.flip(&segment, at + 60, 3);
    let Spool { disk, folder, writer, .. } = spool;
    drop(writer);
    let mut spool = Spool::on(disk, folder);
    spool.put(confirmed(2, 120));
    spool.follow("one").await;
    let lost = "lost (a part of the spool cannot be read any more)";
    let expected = format!("100 received, 106 {lost}, 109 unknown (nobody listened), 120 received, 120");
    assert_eq!(said(&spool.covered("one").await, "trades"), expected);
}

#[tokio::test]
async fn what_an_unreadable_entry_has_changed_is_known_again_behind_the_next_head() {
    let mut spool = Spool::new();
    spool.put_all(beginning().into_iter().chain(missed()));
    let segment = spool.disk.names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    let at = spool.disk.bytes(&segment).len();
    let (gap, outcome) = (GapId(0), GapOutcome::Backfilled);
    spool.put_all([
        Put::Control(Control::GapClosed { gap, stream: DENSE, outcome, filled: 2, at: Timestamp(115 * S) }),
        Put::Control(Control::Alive { session: 1, at: Timestamp(116 * S) }),
    ]);
    spool.disk.flip(&segment, at + 60, 3);
    spool.follow("one").await;
    let lost = "lost (a part of the spool cannot be read any more)";
    let open = format!("100 received, 106 open, 109 {lost}, 116 received, 116");
    assert_eq!(said(&spool.covered("one").await, "trades"), open, "it may still be asked for");

    spool.roll();
    spool.put(Put::Control(Control::Alive { session: 1, at: Timestamp(120 * S) }));
    for ledger in ["one", "that reads all of it at once"] {
        spool.follow(ledger).await;
        let expected = format!("100 received, 106 {lost}, 116 received, 120");
        assert_eq!(said(&spool.covered(ledger).await, "trades"), expected, "{ledger}");
    }
}

#[tokio::test]
async fn of_a_stream_whose_name_the_disk_has_lost_nothing_is_claimed_until_it_is_confirmed_anew() {
    let mut spool = Spool::new();
    let segment = spool.disk.names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    let at = spool.disk.bytes(&segment).len();
    spool.put_all(beginning());
    spool.follow("one").await;
    // The first entry names `trades`.
    spool.disk.flip(&segment, at + 60, 3);
    let Spool { disk, folder, writer, .. } = spool;
    drop(writer);
    let mut spool = Spool::on(disk, folder);
    let (id, key) = (7, StreamKey::new("trades", "A"));
    let at = Timestamp(120 * S);
    let streams = vec![(id, Numbering::Sequence)];
    spool.put_all([
        Put::Control(Control::Stream { id, source: "deribit".to_owned(), key }),
        Put::Control(Control::Confirmed {
            session: 2,
            source: "deribit".to_owned(),
            line: 0,
            streams,
            venue_at: at,
            at,
        }),
    ]);
    spool.follow("one").await;
    let lost = "lost (a part of the spool cannot be read any more)";
    // How far its records had come by then is not known of each stream.
    assert_eq!(said(&spool.covered("one").await, "trades"), format!("100 {lost}, 120 received, 120"));
}

#[tokio::test]
async fn what_was_made_while_nobody_listened_is_lost_where_the_gap_that_asks_for_it_cannot_be_read() {
    for is_asked_for in [false, true] {
        let mut spool = Spool::new();
        spool.put_all(beginning());
        let segment = spool.disk.names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
        spool.put(Put::Control(Control::Ended { session: 1, why: "cut".to_owned(), at: Timestamp(110 * S) }));
        let gap = |id| {
            let after = Some(Edge { position: Position::Sequence(6), ts_event: Timestamp(106 * S) });
            let (since, at) = (Timestamp(106 * S), Timestamp(110 * S));
            Put::Control(Control::GapOpened { gap: GapId(id), stream: DENSE, after, before: None, since, at })
        };
        if is_asked_for {
            spool.put(gap(0));
        }
        let at = spool.disk.bytes(&segment).len();
        spool.put(gap(1));
        spool.put(confirmed(2, 120));
        spool.disk.flip(&segment, at + 60, 3);
        spool.follow("one").await;
        // It is claimed behind the moment of the confirmation: what was made at that moment nobody has vouched for.
        let lost = "lost (a part of the spool cannot be read any more)";
        let expected = if is_asked_for { "open".to_owned() } else { lost.to_owned() };
        let coverage = spool.covered("one").await;
        assert_eq!(said(&coverage, "trades"), format!("100 received, 106 {expected}, 120 received, 120"));
        let trades = coverage.streams.iter().find(|stream| stream.table == "trades").unwrap();
        assert_eq!(trades.intervals.last().unwrap().from.0 - 120 * S, i64::from(!is_asked_for));
    }
}

#[tokio::test]
async fn a_spool_that_was_replaced_leaves_what_was_known_and_says_that_it_is_another_one() {
    let mut spool = Spool::new();
    spool.put_all(beginning());
    spool.follow("one").await;
    let Spool { folder, .. } = spool;
    let mut other = Spool::on(SimDisk::default(), folder);
    other.put_all(beginning().into_iter().take(2).chain([confirmed(1, 300)]));
    assert_eq!(other.follow("one").await.0, Status::Stopped);
    let coverage = other.covered("one").await;
    let known = "100 received, 106 unknown (the spool is another one), 300 received, 300";
    assert_eq!(said(&coverage, "trades"), known);
}

#[tokio::test]
async fn a_ledger_of_another_pipeline_is_put_aside_and_none_of_its_streams_is_taken_over() {
    let mut spool = Spool::new();
    spool.put_all(beginning());
    spool.follow_as("btc", "one").await;
    // The same spool under another name: it was renamed.
    spool.follow_as("eth", "one").await;
    assert!(!spool.path("one.foreign").exists());
    let Spool { folder, .. } = spool;
    let mut spool = Spool::on(SimDisk::default(), folder);
    spool.put_all(beginning());
    // It is put aside, and built again by the next try.
    assert_eq!(spool.follow("one").await.0, Status::Degraded);
    assert_eq!(spool.follow("one").await.0, Status::Stopped);
    assert_eq!(said(&spool.covered("one").await, "trades"), "100 received, 106");
    assert!(spool.path("one.foreign").exists() && !spool.path("one.damaged").exists());

    // One that does not say whose it is, beside another spool.
    let old = async |path: PathBuf| {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
        let mut file = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        let back = "DROP TABLE owner; DROP TABLE boots; DROP TABLE skipped; DROP TABLE counted; \
            ALTER TABLE unreadable DROP COLUMN sinks; ALTER TABLE streams DROP COLUMN filled; \
            ALTER TABLE streams DROP COLUMN absent; DROP VIEW intervals; ALTER TABLE marks DROP COLUMN parts; \
            ALTER TABLE marks DROP COLUMN lasted; PRAGMA user_version = 1";
        sqlx::raw_sql(back).execute(&mut file).await.unwrap();
        file.close().await.unwrap();
    };
    old(spool.path("one")).await;
    assert_eq!(spool.follow("one").await.0, Status::Stopped);
    let trades = |coverage: &Coverage| coverage.kinds.iter().find(|kind| kind.table == "trades").unwrap().rows_received;
    assert_eq!(trades(&spool.covered("one").await), Some(2), "the first format goes on as it was");
    old(spool.path("one")).await;
    let Spool { folder, .. } = spool;
    std::fs::remove_file(folder.path().join("one.foreign")).unwrap();
    let mut other = Spool::on(SimDisk::default(), folder);
    other.put_all(beginning().into_iter().take(2).chain([confirmed(1, 300)]));
    assert_eq!(other.follow("one").await.0, Status::Degraded);
    assert_eq!(other.follow("one").await.0, Status::Stopped);
    assert!(other.path("one.foreign").exists());
    assert_eq!(said(&other.covered("one").await, "trades"), "300 received, 300");
}

#[tokio::test]
async fn what_a_spool_that_went_back_still_has_is_not_counted_twice() {
    for is_older_boot in [false, true] {
        let mut spool = Spool::new();
        spool.put_all(beginning());
        let copy = spool.disk.copy();
        if is_older_boot {
            let Spool { disk, writer, folder, .. } = spool;
            disk.kill();
            drop(writer);
            spool = Spool::on(disk, folder);
        }
        spool.follow("one").await;
        spool.put_all([confirmed(2, 106), Put::Row(DENSE, 7, Origin::Live), Put::Row(DENSE, 8, Origin::Live)]);
        spool.follow("one").await;
        let Spool { folder, .. } = spool;
        copy.kill();
        let mut restored = Spool::on(copy, folder);
        restored.put_all([confirmed(3, 300), Put::Row(DENSE, 9, Origin::Live)]);
        assert_eq!(restored.follow("one").await.0, Status::Stopped);
        let coverage = restored.covered("one").await;
        let trades = coverage.kinds.iter().find(|kind| kind.table == "trades").unwrap();
        assert_eq!(trades.rows_received, Some(5), "5 and 6 were there before; {coverage:?}");
        let tickers = said(&coverage, "tickers");
        let last = if is_older_boot { 106 } else { 108 };
        assert!(tickers.starts_with(&format!("100 received, {last} unknown (")), "{tickers}");
        assert!(tickers.ends_with(", 300 received, 300"), "{tickers}");
    }
}

#[tokio::test]
async fn what_the_ledger_has_read_and_a_sink_has_not_is_lost_at_that_sink_when_it_rots_or_goes() {
    let mut spool = Spool::new();
    spool.put_all(beginning());
    let (slow, fast) = (spool.writer.reader().claim("slow", 2, 0), spool.writer.reader().claim("fast", 99, 0));
    spool.follow("one").await;
    assert!(!spool.covered("one").await.is_lost);
    let segment = spool.disk.names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    let row = spool.disk.bytes(&segment).len() - 30;
    spool.disk.flip(&segment, row, 3);
    let mut cursor = spool.writer.reader().claiming_cursor(crate::spool::SpoolPosition::START, &slow);
    while cursor.next(u64::MAX).unwrap().is_some() {}
    spool.follow("one").await;
    let coverage = spool.covered("one").await;
    let [unread] = &coverage.unreadable[..] else { panic!("{:?}", coverage.unreadable) };
    assert_eq!((&unread.sinks[..], coverage.is_lost), (&["slow".to_owned()][..], true));
    assert_eq!(unread.last, spool.writer.synced_position().offset);
    assert_eq!(said(&coverage, "trades"), "100 received, 106", "the ledger had read it");
    spool.follow("one").await;
    assert_eq!(spool.covered("one").await.unreadable.len(), 1, "said once");
    drop(fast);

    spool.roll();
    spool.put(Put::Control(Control::Alive { session: 1, at: Timestamp(150 * S) }));
    let oldest = spool.writer.synced_position().offset - 1;
    spool.forget();
    spool.follow("one").await;
    let unreadable = spool.covered("one").await.unreadable;
    let gone = unreadable.iter().find(|unread| unread.first == 3).expect("what is gone behind offset 2");
    assert_eq!((gone.last, &gone.sinks[..]), (oldest, &["slow".to_owned()][..]));
}

#[tokio::test]
async fn what_is_older_than_what_is_asked_for_is_not_read() {
    let mut spool = Spool::new();
    spool.put_all(beginning().into_iter().chain(cut()));
    spool.follow("one").await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(spool.path("one")).read_only(true);
    let mut file = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    for query in [super::read::intervals(4), super::read::HEARD.to_owned()] {
        let plan = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {query}"));
        let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(plan).bind(7).fetch_all(&mut file).await.unwrap();
        let of_marks: Vec<_> = plan.into_iter().map(|(.., step)| step).filter(|step| step.contains("marks")).collect();
        let is_seek = |step: &String| step.starts_with("SEARCH marks") || step.starts_with("SEARCH held");
        assert!(of_marks.iter().any(is_seek) && !of_marks.iter().any(|step| step.contains("SCAN")), "{of_marks:?}");
    }
    let coverage = spool.covered_since("one", Some(107), Keeper::Running(Timestamp(0))).await;
    assert_eq!(said(&coverage, "trades"), DENSE_SAID.replace("100 received, 106", "107"), "what holds then is told");
    let coverage = spool.covered_since("one", Some(108), Keeper::Running(Timestamp(0))).await;
    assert!(said(&coverage, "trades").starts_with("108 lost"), "{}", said(&coverage, "trades"));
}

#[tokio::test]
async fn a_boot_ends_what_was_received_at_the_last_frame_that_is_durable() {
    let mut spool = Spool::new();
    spool.put_all(beginning());
    spool.follow("one").await;
    let Spool { disk, writer, folder, .. } = spool;
    disk.kill();
    drop(writer);
    let mut spool = Spool::on(disk, folder);
    spool.put_all([confirmed(7, 200)]);
    spool.follow("one").await;
    let coverage = spool.covered("one").await;
    let unknown = "unknown (nobody listened, and the venue does not repeat it)";
    assert_eq!(said(&coverage, "tickers"), format!("100 received, 106 {unknown}, 200 received, 200"));
    let trades = coverage.streams.iter().find(|stream| stream.table == "trades").unwrap();
    let states: Vec<_> = trades.intervals.iter().map(|interval| interval.state).collect();
    assert_eq!(states[0], State::Received);
    assert!(!states[1].is_complete(), "{states:?}");
}

#[tokio::test]
async fn what_nobody_runs_is_received_up_to_the_last_frame_and_unknown_from_then_until_now() {
    let mut spool = Spool::new();
    spool.put_all(beginning());
    spool.follow("one").await;
    let (trades, tickers) = ("nobody listened", "nobody listened, and the venue does not repeat it");
    let nobody = Keeper::Nobody(Timestamp(150 * S));
    // Frames had ended for 34 s when somebody was there for the last time.
    spool.write("one", "UPDATE position SET at = 140000000000").await;
    let coverage = spool.covered_since("one", None, nobody).await;
    assert_eq!(said(&coverage, "trades"), format!("100 received, 106 unknown ({trades}), now"));
    assert_eq!(said(&coverage, "tickers"), format!("100 received, 106 unknown ({tickers}), now"));
    assert_eq!((coverage.stopped, coverage.to), (Some(Timestamp(140 * S)), Some(Timestamp(150 * S))));
    assert!(coverage.kinds.iter().all(|kind| (kind.away, kind.unknown_seconds) == (1, 44.0)), "{coverage:?}");

    let coverage = spool.covered_since("one", Some(130), nobody).await;
    assert_eq!(said(&coverage, "trades"), format!("130 unknown ({trades}), now"));
    assert!(coverage.kinds.iter().all(|kind| (kind.away, kind.unknown_seconds) == (1, 20.0)), "{coverage:?}");
    assert!(coverage.kinds.iter().all(|kind| kind.complete_since.is_none()), "{coverage:?}");
    assert_eq!(coverage.stopped, Some(Timestamp(140 * S)), "whatever is looked at");
}

#[tokio::test]
async fn of_what_somebody_runs_nothing_is_claimed_behind_the_last_frame() {
    let mut spool = Spool::new();
    spool.put_all(beginning());
    spool.follow("one").await;
    let coverage = spool.covered_since("one", Some(130), Keeper::Running(Timestamp(131 * S))).await;
    assert_eq!(said(&coverage, "trades"), "106 received, 106");
    assert_eq!((coverage.stopped, coverage.to), (None, Some(Timestamp(106 * S))));

    spool.put(Put::Control(Control::Ended { session: 1, why: "cut".to_owned(), at: Timestamp(110 * S) }));
    spool.follow("one").await;
    let coverage = spool.covered_since("one", None, Keeper::Running(Timestamp(131 * S))).await;
    let tickers = coverage.kinds.iter().find(|kind| kind.table == "tickers").unwrap();
    assert_eq!(tickers.unknown_seconds, 25.0, "the venue is away until now");
    let coverage = spool.covered_since("one", None, Keeper::Recording).await;
    assert_eq!((coverage.stopped, coverage.kinds[0].unknown_seconds), (None, 0.0), "no time goes by in a recording");
}

#[tokio::test]
async fn a_stream_that_was_given_up_and_comes_back_goes_on_where_it_was() {
    let mut spool = Spool::new();
    spool.put_all(beginning());
    let left = Control::Left { session: 1, streams: vec![PLAIN], by: LeftBy::Choice, at: Timestamp(107 * S) };
    spool.put_all([Put::Control(left), Put::Control(Control::Retired { stream: PLAIN })]);
    spool.follow("one").await;
    let (id, key) = (9, StreamKey::new("tickers", "A"));
    let at = Timestamp(400 * S);
    let streams = vec![(id, Numbering::Unnumbered)];
    let (source, line) = ("deribit".to_owned(), 0);
    spool.put(Put::Control(Control::Stream { id, source: source.clone(), key }));
    spool.put(Put::Control(Control::Confirmed { session: 3, source, line, streams, venue_at: at, at }));
    spool.follow("one").await;
    let coverage = spool.covered("one").await;
    assert_eq!(
        said(&coverage, "tickers"),
        "100 received, 106 not_subscribed (the choice has other instruments), 400 received, 400"
    );
    assert_eq!(coverage.streams.len(), 2, "it is one stream, whatever its number");
}

#[tokio::test]
async fn while_a_market_is_closed_by_its_schedule_nothing_is_missing() {
    let mut spool = Spool::new();
    spool.put_all(beginning());
    let closes = Control::Left { session: 1, streams: vec![PLAIN], by: LeftBy::Schedule, at: Timestamp(107 * S) };
    spool.put(Put::Control(closes));
    spool.follow("one").await;
    // Killed in between: what the next process finds in its file is the reason.
    let at = Timestamp(400 * S);
    let (source, line, streams) = ("deribit".to_owned(), 0, vec![(PLAIN, Numbering::Unnumbered)]);
    spool.put(Put::Control(Control::Confirmed { session: 3, source, line, streams, venue_at: at, at }));
    spool.follow("one").await;
    let coverage = spool.covered("one").await;
    assert_eq!(said(&coverage, "tickers"), "100 received, 106 closed (by the schedule), 400 received, 400");
    let tickers = coverage.kinds.iter().find(|kind| kind.table == "tickers").unwrap();
    assert_eq!((tickers.closed_seconds, tickers.unknown_seconds), (294.0, 0.0));
    assert!(!coverage.is_lost);
}
