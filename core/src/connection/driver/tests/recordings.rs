//! Captures and replays: the same rows again, and a feed that no disk can stop. In real time, since files are written.

use std::{
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex},
    time::Instant,
};

use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::*;
use crate::{
    Error,
    config::{self, ConnectionConfig, ReplayConfig, Speed},
    connection::capture::{self, Event},
    intake::Ask,
    protocol::{Gap, GapId},
    row::{Numbering, StreamKey, Timestamp},
    spool::disk::{Disk, DiskFile, DiskLock, RealDisk},
    testkit::{Failure, SimDisk},
};

#[tokio::test]
async fn a_replay_gives_the_same_rows_and_steps_in_the_same_order_and_closes_the_gap_of_its_own_pipeline() {
    let dir = tempfile::tempdir().unwrap();
    let world = record_everything(dir.path()).await;
    let (live, live_rows) = (in_common(&world.log), world.rows.lock().unwrap().clone());
    assert!(
        live.iter().any(|line| line.starts_with("malformed")) && live.contains(&"restart a".to_owned()),
        "{live:?}"
    );
    assert!(live_rows.iter().any(|(line, ..)| line.ends_with("backfill")), "{live_rows:?}");

    let ask = Ask { gap: gap(77), number: 9, not_before: None };
    let again = World::replaying(Toy::discovering(), replay(dir.path(), Speed::Max), vec![ask]);
    let (log, rows) = (Arc::clone(&again.log), Arc::clone(&again.rows));
    again.ended().await.unwrap();
    assert_eq!(*rows.lock().unwrap(), live_rows, "with the times at which they came");
    assert_eq!(in_common(&log), live);
    assert!(log.lock().unwrap().contains(&"answered 77 ask 9".to_owned()), "{log:?}");
}

#[tokio::test]
async fn a_channel_that_was_counted_as_ended_ends_in_the_replay_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut toy = Toy::discovering();
    toy.limits.refresh = Some(SECOND / 10);
    let configure = |config: &mut ConnectionConfig| config.subscribe_timeout = config::Duration::from_secs(1);
    let mut world = World::recording(toy, disk(dir.path()), configure);
    world.called().await.reply("a,b");
    let mut peer = world.subscribe("a,b").await;
    world.called().await.reply("b");
    assert_eq!(peer.heard().await, "unsub a");
    world.logged("unsubscribed a").await;
    finish(world).await;
    let again = World::replaying(Toy::discovering(), replay(dir.path(), Speed::Max), vec![]);
    again.logged("unsubscribed a").await;
}

#[tokio::test]
async fn a_reply_that_could_not_be_read_answers_nothing_in_the_replay_either() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::recording(Toy::new(&["a"]), disk(dir.path()), |_| {});
    let _peer = world.subscribe("a").await;
    world.show(vec![Ask { gap: gap(1), number: 1, not_before: None }]);
    world.called().await.reply("all\nbad");
    world.logged("asked 1").await;
    finish(world).await;
    let ask = Ask { gap: gap(77), number: 9, not_before: None };
    let again = World::replaying(Toy::new(&["a"]), replay(dir.path(), Speed::Max), vec![ask]);
    let log = Arc::clone(&again.log);
    again.ended().await.unwrap();
    let log = log.lock().unwrap();
    assert!(log.iter().any(|line| line.starts_with("malformed")), "{log:?}");
    assert!(!log.iter().any(|line| line.starts_with("answered")), "{log:?}");
}

#[tokio::test]
async fn a_replay_is_ready_and_is_played_once() {
    let dir = tempfile::tempdir().unwrap();
    record_rows(disk(dir.path()), 3, || {}).await;
    let again = World::replaying(Toy::new(&["a"]), replay(dir.path(), Speed::Max), vec![]);
    again.logged("row a 3 live").await;
    assert!(again.registry.ready().ready, "{}", again.reason());
    again.ended().await.unwrap();
}

#[tokio::test]
async fn a_replay_keeps_to_the_pace_that_was_asked_for_and_stops_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::recording(Toy::new(&["a"]), disk(dir.path()), |_| {});
    let peer = world.subscribe("a").await;
    peer.say("row a 1");
    world.logged("row a 1 live").await;
    let began = Instant::now();
    while began.elapsed() < SECOND * 2 {
        world.settle().await;
    }
    peer.say("row a 2");
    world.logged("row a 2 live").await;
    finish(world).await;

    let faster = Speed::Times(std::num::NonZeroU32::new(4).unwrap());
    let began = Instant::now();
    World::replaying(Toy::new(&["a"]), replay(dir.path(), faster), vec![]).logged("row a 2 live").await;
    assert!(began.elapsed() >= SECOND / 2 && began.elapsed() < SECOND * 2, "{:?}", began.elapsed());

    let slow = World::replaying(Toy::new(&["a"]), replay(dir.path(), Speed::Times(std::num::NonZeroU32::MIN)), vec![]);
    slow.logged("row a 1 live").await;
    slow.stop.cancel();
    slow.logged("ended: the capture ends").await;
    slow.ended().await.unwrap();
}

#[tokio::test]
async fn no_secret_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::recording(Toy::discovering(), disk(dir.path()), |_| {});
    world.called().await.reply("a");
    let mut peer = world.subscribe("a").await;
    peer.say("login");
    assert_eq!(peer.heard().await, "password MARKER");
    peer.say(r#"{"access_token":"MARKER"}"#);
    peer.say("row a 1");
    world.logged("row a 1 live").await;
    // Venues repeat what they were sent.
    peer.say(r#"{"refused":"MARKER"}"#);
    let frame = CloseFrame { code: CloseCode::Policy, reason: "wrong password MARKER".into() };
    peer.send(Message::Close(Some(frame)));
    world.logged("ended: closed with 1008 wrong password •••").await;
    assert!(!world.reason().contains("MARKER"), "{}", world.reason());
    finish(world).await;
    let text = format!("{:?}", lines(dir.path()));
    assert!(text.contains("http://venue/channels?key=***") && text.contains("Sent"), "{text}");
    assert!(!text.contains("MARKER") && !text.contains("hidden"), "{text}");
}

#[tokio::test]
async fn files_rotate_by_size_and_are_read_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let configure = |config: &mut ConnectionConfig| {
        let rotate_bytes = config::ByteSize(2_000);
        config.capture = Some(config::CaptureConfig { rotate_bytes, ..config::CaptureConfig::default() });
    };
    let mut world = World::recording(Toy::new(&["a"]), disk(dir.path()), configure);
    let peer = world.subscribe("a").await;
    for number in 1..=100 {
        peer.say(&format!("row a {number}"));
    }
    world.logged("row a 100 live").await;
    finish(world).await;
    let files = std::fs::read_dir(dir.path()).unwrap().count();
    assert!((3..20).contains(&files), "{files} files");
    let frames = lines(dir.path()).into_iter().filter(|event| matches!(event, Event::Frame { .. })).count();
    assert_eq!(frames, 102, "two of the handshake and a hundred rows");
}

#[tokio::test]
async fn files_rotate_by_time_and_are_read_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let configure = |config: &mut ConnectionConfig| {
        let rotate_every = config::Duration::from_millis(1);
        config.capture = Some(config::CaptureConfig { rotate_every, ..config::CaptureConfig::default() });
    };
    let mut world = World::recording(Toy::new(&["a"]), disk(dir.path()), configure);
    let peer = world.subscribe("a").await;
    let (mut rows, deadline) = (0, Instant::now() + SECOND * 20);
    while std::fs::read_dir(dir.path()).unwrap().count() < 4 {
        assert!(Instant::now() < deadline, "no other file was begun");
        rows += 1;
        peer.say(&format!("row a {rows}"));
        world.logged(&format!("row a {rows} live")).await;
    }
    finish(world).await;
    let frames = lines(dir.path()).into_iter().filter(|event| matches!(event, Event::Frame { .. })).count();
    assert_eq!(frames, 2 + rows);
}

#[tokio::test]
async fn what_came_last_can_be_read_after_a_kill_though_nothing_follows() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::recording(Toy::new(&["a"]), disk(dir.path()), |_| {});
    let peer = world.subscribe("a").await;
    peer.say("row a 1");
    world.logged("row a 1 live").await;
    let deadline = Instant::now() + SECOND * 20;
    // The file is read as a kill at this moment would leave it.
    while !capture::read(dir.path()).is_ok_and(|lines| lines.flatten().any(|line| is_row(&line.event, b"row a 1"))) {
        assert!(Instant::now() < deadline, "the row is only in memory");
        world.settle().await;
    }
}

#[tokio::test]
async fn the_order_of_files_does_not_depend_on_the_clock() {
    let dir = tempfile::tempdir().unwrap();
    record_rows(disk(dir.path()), 1, || {}).await;
    let first = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let name = first.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("toy-00000001-1970"), "{name}");
    // As if the clock had been ahead by far.
    std::fs::rename(&first, first.with_file_name(name.replace("1970", "2970"))).unwrap();
    record_rows(disk(dir.path()), 2, || {}).await;
    let rows: Vec<Event> = lines(dir.path()).into_iter().filter(|event| is_row(event, b"row")).collect();
    assert_eq!(rows.len(), 3);
    assert!(is_row(&rows[0], b"row a 1") && is_row(&rows[1], b"row a 1") && is_row(&rows[2], b"row a 2"), "{rows:?}");
}

#[tokio::test]
async fn a_file_that_was_cut_is_read_up_to_the_cut() {
    let dir = tempfile::tempdir().unwrap();
    record_rows(disk(dir.path()), 10, || {}).await;
    let whole = lines(dir.path()).len();
    let file = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 40]).unwrap();
    let cut = lines(dir.path()).len();
    assert!(cut < whole, "{cut} of {whole}");
    assert!(matches!(lines(dir.path()).last(), Some(Event::Cut { file: cut }) if *cut == file), "and that is said");
}

#[tokio::test]
async fn what_is_missing_behind_a_cut_in_the_middle_of_a_capture_ends_the_session_there() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        record_rows(disk(dir.path()), 10, || {}).await;
    }
    let mut files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let bytes = std::fs::read(&files[0]).unwrap();
    std::fs::write(&files[0], &bytes[..bytes.len() - 40]).unwrap();
    let again = World::replaying(Toy::new(&["a"]), replay(dir.path(), Speed::Max), vec![]);
    let (log, folder) = (Arc::clone(&again.log), Arc::clone(&again.folder));
    again.ended().await.unwrap();
    let log = log.lock().unwrap();
    let note = std::fs::read_to_string(folder.path().join("replay/sources/toy/played")).unwrap();
    assert!(note.contains(&format!("behind the cut of its file `{}`", files[0].display())), "{note}");
    let cut = format!("ended: the capture's file `{}` is cut", files[0].display());
    let ends: Vec<&String> = log.iter().filter(|line| line.starts_with("ended")).collect();
    assert!(ends.len() == 2 && ends[0].starts_with(&cut), "{ends:?}");
}

#[tokio::test]
async fn a_disk_that_fails_ends_the_capture_and_never_the_feed() {
    for failure in [Failure::Full(0), Failure::Full(100), Failure::Writes(0), Failure::ReadOnly, Failure::Syncs] {
        let disk = SimDisk::default();
        disk.fail(failure);
        let configure = |config: &mut ConnectionConfig| {
            let rotate_bytes = config::ByteSize(1);
            config.capture = Some(config::CaptureConfig { rotate_bytes, ..config::CaptureConfig::default() });
        };
        let mut world = World::recording(Toy::new(&["a"]), Arc::new(disk), configure);
        let peer = world.subscribe("a").await;
        for number in 1..=50 {
            peer.say(&format!("row a {number}\nheard a"));
        }
        world.logged("row a 50 live").await;
        let reason = world.told("capture stopped").await;
        assert!(reason.starts_with("degraded") && reason.ends_with("the feed goes on"), "{failure:?}: {reason}");
        assert!(!peer.is_gone());
        peer.say("row a 51");
        world.logged("row a 51 live").await;
    }
}

#[tokio::test]
async fn lines_that_a_slow_disk_has_no_time_for_are_counted_and_the_feed_goes_on() {
    let (quick, slow) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    record_rows(disk(quick.path()), 1, || {}).await;
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let stuck = Slow { disk: disk(slow.path()), gate: Arc::clone(&gate) };
    let open = || {
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
    };
    record_rows(Arc::new(stuck), 9_000, open).await;
    let (mut dropped, mut written) = (0, 0);
    for event in lines(slow.path()) {
        if let Event::Dropped { lines } = event {
            dropped += lines;
        } else {
            written += 1;
        }
    }
    assert!(dropped > 0, "{written} written");
    assert_eq!(written + dropped, lines(quick.path()).len() as u64 + 8_999, "none is missing without a word");
}

#[test]
fn what_is_no_capture_is_an_error_of_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let error = capture::read(dir.path()).unwrap_err();
    assert!(error.to_string().contains("no file `*.jsonl.gz`"), "{error}");
    std::fs::write(dir.path().join("x.jsonl.gz"), "this is no gzip at all").unwrap();
    assert!(capture::read(dir.path()).unwrap().next().unwrap().is_err());
    std::fs::write(dir.path().join("x.jsonl.gz"), "hello\n").unwrap();
    assert!(capture::read(dir.path()).unwrap().next().unwrap().is_err(), "shorter than the head of a gzip file");
    std::fs::write(dir.path().join("x.jsonl.gz"), "").unwrap();
    let mut lines = capture::read(dir.path()).unwrap();
    let error = lines.next().unwrap().unwrap_err().to_string();
    assert!(error.contains("no file of the capture has a whole line"), "{error}");
    assert!(lines.next().is_none());
}

#[tokio::test]
async fn a_replay_asks_about_gaps_as_the_recorded_run_did() {
    let dir = tempfile::tempdir().unwrap();
    let toy = || Toy { has_host_for_each: true, ..Toy::new(&["a"]) };
    let (live, again) = (toy(), toy());
    let shown = [&live, &again].map(|toy| Arc::clone(&toy.shown));
    let mut world = World::recording(live, disk(dir.path()), |_| {});
    let _peer = world.subscribe("a").await;
    world.show([1, 2].map(|id| Ask { gap: gap(id), number: 1, not_before: None }).into());
    for _ in 0..2 {
        world.called().await.reply("all");
    }
    for answered in ["answered 1 ask 1", "answered 2 ask 1"] {
        world.seen(answered).await;
    }
    world.show(vec![]);
    finish(world).await;
    let [live, again_shown] = shown;
    assert_eq!(*live.lock().unwrap(), [vec![1, 2], vec![2]]);
    World::replaying(again, replay(dir.path(), Speed::Max), vec![]).ended().await.unwrap();
    assert_eq!(*again_shown.lock().unwrap(), *live.lock().unwrap());
}

#[tokio::test]
async fn what_the_protocol_gave_up_is_lost_in_a_replay_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::recording(Toy::new(&["a"]), disk(dir.path()), |_| {});
    let _peer = world.subscribe("a").await;
    let ask = |id| Ask { gap: Gap { dry_replies: 3, ..gap(id) }, number: 1, not_before: None };
    world.show(vec![ask(1)]);
    world.logged("lost 1: the venue forgot").await;
    world.show(vec![]);
    finish(world).await;
    // The gap has another name here.
    let again = World::replaying(Toy::new(&["a"]), replay(dir.path(), Speed::Max), vec![ask(7)]);
    again.logged("lost 7: the venue forgot").await;
}

fn is_row(event: &Event, text: &[u8]) -> bool {
    matches!(event, Event::Frame { body } if body.bytes().starts_with(text))
}

/// Records a session of so many rows, and does something when all have come.
async fn record_rows(disk: Arc<dyn Disk>, rows: u32, when_come: impl FnOnce()) {
    let mut world = World::recording(Toy::new(&["a"]), disk, |_| {});
    let peer = world.subscribe("a").await;
    for number in 1..=rows {
        peer.say(&format!("row a {number}"));
    }
    world.logged(&format!("row a {rows} live")).await;
    when_come();
    finish(world).await;
}

/// Records a session with every kind of call, and a second one after a panic.
async fn record_everything(dir: &Path) -> World {
    let configure = |config: &mut ConnectionConfig| {
        config.reconnect.first = config::Duration::from_millis(10);
        config.start_every = config::Duration::from_millis(0);
    };
    let mut world = World::recording(Toy::discovering(), disk(dir), configure);
    world.called().await.reply("a,b\nrow x 1");
    let mut peer = world.connect().await;
    peer.say("welcome");
    assert_eq!((peer.heard().await, peer.heard().await), ("hello".into(), "sub a,b".into()));
    peer.say("ok a,b");
    peer.say("row a 1\nrow b 1");
    peer.say("row a 2\nbad");
    peer.say("row a 3\npart\nrestart a\nrow a 1");
    peer.send(Message::binary(vec![1, 2, 254]));
    peer.say("wake 0");
    assert_eq!(peer.heard().await, "woken");
    world.show(vec![Ask { gap: gap(1), number: 1, not_before: None }]);
    world.called().await.reply("row a 7\nall");
    world.seen("answered 1 ask 1").await;
    world.show(vec![]);
    peer.say("rediscover");
    world.called().await.reply("b,c");
    assert_eq!((peer.heard().await, peer.heard().await), ("unsub a".into(), "sub c".into()));
    peer.say("gone a\nok c");
    peer.say("panic");
    world.called().await.reply("b,c");
    let peer = world.connect().await;
    peer.say("welcome");
    peer.say("ok b,c");
    peer.say("row c 9");
    world.seen("row c 9 live").await;
    world.stop.cancel();
    world.seen("ended: stopped").await;
    while world.is_running() {
        world.settle().await;
    }
    world
}

/// A disk that makes no file before its gate is open.
#[derive(Debug)]
struct Slow {
    disk: Arc<dyn Disk>,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Disk for Slow {
    fn create_new(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let closed = self.gate.0.lock().unwrap();
        drop(self.gate.1.wait_while(closed, |is_open| !*is_open).unwrap());
        self.disk.create_new(name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn lock(&self) -> Result<Box<dyn DiskLock>, Error> {
        self.disk.lock()
    }

    fn place(&self) -> String {
        self.disk.place()
    }
}

async fn finish(world: World) {
    world.stop.cancel();
    world.ended().await.unwrap();
}

fn in_common(log: &Mutex<Vec<String>>) -> Vec<String> {
    log.lock().unwrap().iter().filter(|line| !is_of_one_run(line)).cloned().collect()
}

fn is_of_one_run(line: &str) -> bool {
    // A live session knows when nothing was left to read, its capture does not.
    line.starts_with("answered") || line.starts_with("asked") || line == "alive"
}

fn lines(dir: &Path) -> Vec<Event> {
    capture::read(dir).unwrap().map(|line| line.unwrap().event).collect()
}

fn replay(dir: &Path, speed: Speed) -> ReplayConfig {
    ReplayConfig { from: dir.to_owned(), speed }
}

fn disk(dir: &Path) -> Arc<dyn Disk> {
    Arc::new(RealDisk::create(dir).unwrap())
}

fn gap(id: u64) -> Gap {
    Gap {
        id: GapId(id),
        stream: StreamKey::new("prints", "a"),
        numbering: Numbering::Sequence,
        after: None,
        before: None,
        since: Timestamp(0),
        dry_replies: 0,
    }
}
