//! The task around intake: what is durable, what is full, what is broken.

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    config::{SpoolConfig, WhenFull},
    delivery::Floor,
    intake::{
        Running, Setup, SourceSetup,
        opening::{Started, open_on},
    },
    testkit::Failure,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// For whom, how many rows, and which offsets.
type Dropped = (Vec<String>, u64, (u64, u64));

struct Shell {
    disk: SimDisk,
    running: Running,
    /// Of a source that can wait.
    link: Link,
    /// Of a feed that cannot.
    live: Link,
    floor: watch::Sender<Floor>,
    stop: CancellationToken,
    synced: watch::Receiver<SpoolPosition>,
    reader: spool::SpoolReader,
    registry: Registry,
}

impl Shell {
    fn start(config: SpoolConfig) -> Self {
        let disk = SimDisk::default();
        let registry = Registry::new();
        let setup = Setup {
            pipeline: "p".into(),
            folder: "".into(),
            config,
            sources: vec![SourceSetup { info: source(), history_lag: Duration::from_millis(1) }],
            registry: registry.clone(),
        };
        let started = open_on(Arc::new(disk.clone()), setup).unwrap();
        let (reader, synced) = (started.reader.clone(), started.synced.clone());
        let (floor, floors) = watch::channel(Floor { committed: Some(SpoolPosition::START), ..Floor::default() });
        let stop = CancellationToken::new();
        let (running, queue) = Started::run(started, vec![floors], stop.clone());
        let link = Link::new(LinkId { source: 0, line: 0 }, tables(), queue.clone(), 1 << 30);
        let live = Link::new(LinkId { source: 0, line: 1 }, tables(), queue, 1 << 30).live();
        Self { disk, running, link, live, floor, stop, synced, reader, registry }
    }

    /// Returns what `/health` shows of the spool.
    fn spool(&self) -> serde_json::Value {
        serde_json::to_value(self.registry.report()).unwrap()["checks"]["p/spool"].clone()
    }

    /// Hands over so many trades and waits until intake has them.
    async fn trades(&mut self, numbers: std::ops::Range<u64>) -> u64 {
        numbers.for_each(|n| trade(&mut self.link, "A", n, Origin::Live));
        self.link.logged().await.unwrap()
    }

    /// Hands over trades of a feed until there is no room, and returns the number of the next one.
    async fn fill_live(&mut self, first: u64) -> u64 {
        let mut next = first;
        while *self.running.room.borrow() {
            (next..next + 100).for_each(|n| trade(&mut self.live, "A", n, Origin::Live));
            let logged = timeout(PATIENCE, self.live.logged()).await.expect("a feed is never held up").unwrap();
            self.durable(logged).await;
            next += 100;
            assert!(next < 100_000, "it never became full");
        }
        next
    }

    /// Waits until all up to an offset is durable.
    async fn durable(&self, offset: u64) {
        let mut synced = self.synced.clone();
        timeout(PATIENCE, synced.wait_for(|position| position.offset >= offset)).await.unwrap().unwrap();
    }

    /// Returns what is durable.
    fn items(&self) -> Vec<String> {
        let mut cursor = self.reader.cursor(SpoolPosition::START);
        let mut words = Vec::new();
        while let Some(step) = cursor.next(u64::MAX).unwrap() {
            if let spool::Step::Entry(entry) = step {
                words.extend(entry.items().map(|(_, item)| word(&item)));
            }
        }
        words
    }

    /// Returns what is behind an offset, with the last offset of each step.
    fn items_behind(&self, offset: u64) -> Vec<(&'static str, u64)> {
        let mut cursor = self.reader.cursor(SpoolPosition { offset, ..*self.synced.borrow() });
        let mut steps = Vec::new();
        while let Some(step) = cursor.next(u64::MAX).unwrap() {
            steps.push(match step {
                spool::Step::Entry(entry) => ("entry", entry.last),
                spool::Step::Missing { last, .. } => ("missing", last),
            });
        }
        steps
    }

    /// Returns for whom how many rows are gone, as it is written down.
    fn dropped(&self) -> Vec<Dropped> {
        let mut cursor = self.reader.cursor(SpoolPosition::START);
        let mut found = Vec::new();
        while let Some(step) = cursor.next(u64::MAX).unwrap() {
            let spool::Step::Entry(entry) = step else { continue };
            for (_, item) in entry.items() {
                if let Item::Control(Control::Dropped { sinks, rows, offsets: Some(offsets), .. }) = item {
                    found.push((sinks, rows.iter().map(|(_, count)| count).sum(), offsets));
                }
            }
        }
        found
    }

    async fn end(self) -> crate::Result<()> {
        drop((self.link, self.live));
        timeout(PATIENCE, self.running.task).await.expect("it ends").unwrap()
    }
}

fn small(when_full: WhenFull) -> SpoolConfig {
    let bytes = |bytes| crate::config::ByteSize(bytes);
    let (max_bytes, segment_bytes) = (bytes(200 << 10), bytes(50 << 10));
    SpoolConfig {
        max_bytes,
        segment_bytes,
        when_full,
        keep: crate::config::Duration(Duration::ZERO),
        ..SpoolConfig::default()
    }
}

#[tokio::test]
async fn what_intake_has_taken_becomes_durable_and_is_all_there_at_the_end() {
    let mut shell = Shell::start(SpoolConfig::default());
    shell.link.step(confirmed(&["A"]));
    let logged = shell.trades(1..100).await;
    let mut synced = shell.running.synced_offset.clone();
    timeout(PATIENCE, synced.wait_for(|offset| *offset >= logged)).await.unwrap().unwrap();
    assert_eq!(shell.synced.borrow().offset, *synced.borrow());
    shell.trades(100..200).await;
    let reader = shell.reader.clone();
    shell.end().await.unwrap();
    assert!(reader.end().offset >= logged + 100);
}

#[tokio::test(start_paused = true)]
async fn between_two_fsyncs_lies_the_pause_that_is_configured() {
    for pause in [Duration::ZERO, Duration::from_millis(200)] {
        let sync = crate::config::Duration(pause);
        let mut shell = Shell::start(SpoolConfig { sync, ..SpoolConfig::default() });
        shell.link.step(confirmed(&["A"]));
        let logged = shell.trades(1..2).await;
        shell.durable(logged).await;
        let began = Instant::now();
        for number in 2..7 {
            let logged = shell.trades(number..number + 1).await;
            shell.durable(logged).await;
        }
        // The first of the five may begin at once, or wait for the pause behind the one before.
        let took = began.elapsed();
        assert!(4 * pause <= took && took <= 5 * pause + Duration::from_millis(100), "{pause:?}: {took:?}");
        shell.end().await.unwrap();
    }
}

#[tokio::test]
async fn the_board_shows_a_gap_until_it_is_answered() {
    let mut shell = Shell::start(SpoolConfig::default());
    let mut asks = shell.running.asks[0].clone();
    shell.link.step(confirmed(&["A"]));
    shell.link.handed_over().await.unwrap();
    let ask = timeout(PATIENCE, asks.wait_for(|asks| !asks.is_empty())).await.unwrap().unwrap()[0].clone();
    assert_eq!((ask.gap.after, ask.gap.before), (None, None));
    trade(&mut shell.link, "A", 7, Origin::Backfill);
    shell.link.step(Step::Answered { gap: ask.gap.id, ask: ask.number });
    shell.link.handed_over().await.unwrap();
    timeout(PATIENCE, asks.wait_for(|asks| asks.is_empty())).await.unwrap().unwrap();
}

/// Sends a hundred trades; whether they have to wait, as health says, too.
async fn is_full(shell: &mut Shell, next: u64) -> bool {
    let sent = timeout(Duration::from_millis(300), shell.trades(next..next + 100)).await;
    sent.is_err() && {
        let stage = shell.registry.stage(crate::health::StageId::spool("p"));
        timeout(PATIENCE, async {
            while stage.status() != crate::health::Status::Degraded {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the spool says that it is full");
        true
    }
}

#[tokio::test]
async fn a_full_spool_that_blocks_goes_on_when_a_sink_has_caught_up() {
    let mut shell = Shell::start(small(WhenFull::Block));
    shell.link.step(confirmed(&["A"]));
    let mut next = 1;
    while !is_full(&mut shell, next).await {
        next += 100;
        assert!(next < 100_000, "it never became full");
    }
    let at = *shell.synced.borrow();
    shell.floor.send_replace(Floor { committed: Some(at), ..Floor::default() });
    let mut synced = shell.synced.clone();
    timeout(PATIENCE, synced.wait_for(|position| position.offset > at.offset)).await.unwrap().unwrap();
    let last = *shell.synced.borrow();
    shell.floor.send_replace(Floor { committed: Some(last), ..Floor::default() });
    let reader = shell.reader.clone();
    shell.end().await.unwrap();
    assert!(reader.end().offset >= next + 99, "the last hundred was written too, once there was room");
}

#[tokio::test]
async fn a_full_spool_that_blocks_ends_the_session_of_a_feed_at_once_and_takes_the_next_one_when_there_is_room() {
    let mut shell = Shell::start(small(WhenFull::Block));
    shell.live.step(Step::Opened);
    shell.live.step(confirmed(&["A"]));
    let next = shell.fill_live(1).await;
    let at = *shell.synced.borrow();
    let items = shell.items();
    assert_eq!(items[items.len() - 3..], ["Ended the spool is full", "GapOpened", "Dropped"], "{items:?}");

    // What still comes of that session is neither kept nor claimed to have been heard.
    shell.live.step(confirmed(&["A", "B"]));
    trade(&mut shell.live, "A", next, Origin::Live);
    timeout(PATIENCE, shell.live.logged()).await.expect("nothing waits").unwrap();
    shell.floor.send_replace(Floor { committed: Some(at), replay_from: Some(at) });
    let mut room = shell.running.room.clone();
    timeout(PATIENCE, room.wait_for(|room| *room)).await.expect("there is room again").unwrap();
    trade(&mut shell.live, "A", next + 1, Origin::Live);
    timeout(PATIENCE, shell.live.logged()).await.unwrap().unwrap();
    assert!(shell.live.was_refused(), "the link has to begin another session");

    shell.live.step(Step::Opened);
    shell.live.step(confirmed(&["A"]));
    trade(&mut shell.live, "A", next + 2, Origin::Live);
    let logged = timeout(PATIENCE, shell.live.logged()).await.unwrap().unwrap();
    shell.durable(logged).await;
    let items = shell.items();
    let after = items.iter().rposition(|item| item == "Dropped").unwrap();
    assert_eq!(items[after + 1..], ["Confirmed".to_owned(), (next + 2).to_string()], "{items:?}");
    shell.end().await.unwrap();
}

#[tokio::test]
async fn a_source_that_waits_for_room_holds_up_no_feed_and_its_rows_are_kept_in_order() {
    let mut shell = Shell::start(small(WhenFull::Block));
    shell.live.step(Step::Opened);
    shell.live.step(confirmed(&["A"]));
    shell.fill_live(1).await;
    let at = *shell.synced.borrow();
    for first in [500_001, 500_101] {
        (first..first + 100).for_each(|n| trade(&mut shell.link, "B", n, Origin::Live));
        timeout(PATIENCE, shell.link.handed_over()).await.expect("there are two buffers").unwrap();
    }
    trade(&mut shell.live, "A", 1_000_000, Origin::Live);
    let logged = timeout(PATIENCE, shell.live.logged()).await.expect("the feed is answered").unwrap();
    shell.durable(logged).await;
    assert!(!shell.items().contains(&"500001".to_owned()), "there is no room yet");

    shell.floor.send_replace(Floor { committed: Some(at), replay_from: Some(at) });
    let logged = timeout(PATIENCE, shell.link.logged()).await.expect("there is room").unwrap();
    assert!(!shell.link.was_refused());
    shell.durable(logged).await;
    let items = shell.items();
    let numbers: Vec<u64> = items[items.len() - 200..].iter().filter_map(|item| item.parse().ok()).collect();
    assert_eq!(numbers, Vec::from_iter(500_001..500_201), "{items:?}");
    shell.end().await.unwrap();
}

#[tokio::test]
async fn a_full_spool_does_not_hold_up_the_end() {
    let mut shell = Shell::start(small(WhenFull::Block));
    shell.link.step(confirmed(&["A"]));
    let mut next = 1;
    while !is_full(&mut shell, next).await {
        next += 100;
    }
    shell.stop.cancel();
    let reader = shell.reader.clone();
    shell.end().await.unwrap();
    let mut cursor = reader.cursor(SpoolPosition::START);
    let mut last = Vec::new();
    while let Some(step) = cursor.next(u64::MAX).unwrap() {
        if let spool::Step::Entry(entry) = step {
            last = entry.items().map(|(_, item)| word(&item)).collect();
        }
    }
    assert_eq!(last, ["Ended the spool is full", "GapOpened", "Dropped"]);
}

#[tokio::test]
async fn drop_oldest_lets_the_feed_go_on_and_says_for_whom_rows_are_gone() {
    let mut shell = Shell::start(small(WhenFull::DropOldest));
    let _claim = shell.reader.claim("store", 0, 0);
    shell.link.step(confirmed(&["A"]));
    for hundred in 0..100 {
        let numbers = 1 + hundred * 100..101 + hundred * 100;
        timeout(PATIENCE, shell.trades(numbers)).await.expect("it goes on");
    }
    let mut synced = shell.synced.clone();
    timeout(PATIENCE, synced.wait_for(|position| position.offset > 10_000)).await.unwrap().unwrap();
    assert!(shell.items().iter().any(|item| item == "Dropped"), "what is gone is written down");
    assert!(shell.reader.oldest().offset > 1, "the beginning is gone");
    shell.end().await.unwrap();
}

#[tokio::test]
async fn what_a_sink_has_is_not_counted_as_dropped_for_it_and_a_segment_in_its_hands_stays() {
    let mut shell = Shell::start(small(WhenFull::DropOldest));
    let claim = shell.reader.claim("store", 0, 0);
    shell.link.step(confirmed(&["A"]));
    let mut next = 1;
    while shell.reader.oldest().offset == 0 {
        timeout(PATIENCE, shell.trades(next..next + 50)).await.expect("it goes on");
        next += 50;
        let mut durable = shell.synced.clone();
        timeout(PATIENCE, durable.wait_for(|position| position.offset + 1 >= next)).await.unwrap().unwrap();
        claim.passed(shell.synced.borrow().offset);
    }
    assert!(shell.dropped().is_empty(), "it has passed them: {:?}", shell.dropped());

    // It has read the oldest segment up to there, and the store has said nothing since.
    let (read, synced) = (shell.reader.oldest().offset, *shell.synced.borrow());
    let claim = shell.reader.claim("store", read + 20, 0);
    let mut cursor = shell.reader.claiming_cursor(SpoolPosition { offset: read + 20, ..synced }, &claim);
    cursor.next(u64::MAX).unwrap();
    while shell.dropped().is_empty() {
        timeout(PATIENCE, shell.trades(next..next + 50)).await.expect("it goes on");
        next += 50;
    }
    assert_eq!(shell.reader.oldest().offset, read, "what it has in hand stays");
    let (sinks, rows, (first, last)) = shell.dropped()[0].clone();
    assert_eq!((&sinks[..], rows), (&["store".to_owned()][..], last - first + 1));
    let first_gone = shell.items_behind(read).iter().position(|(_, offset)| *offset > first).unwrap();
    let (missing, _) = &shell.items_behind(read)[first_gone];
    assert_eq!(*missing, "missing", "what went lies behind it, and is no longer there");

    let claim = shell.reader.claim("store", read + 20, 0);
    while shell.reader.oldest().offset == read {
        timeout(PATIENCE, shell.trades(next..next + 50)).await.expect("it goes on");
        next += 50;
    }
    drop(claim);
    let mut synced = shell.synced.clone();
    let of_oldest = |shell: &Shell| shell.dropped().into_iter().find(|(_, _, (first, _))| *first == read + 21);
    timeout(PATIENCE, synced.wait_for(|_| of_oldest(&shell).is_some())).await.unwrap().unwrap();
    let (_, rows, (first, last)) = of_oldest(&shell).unwrap();
    assert!(rows <= last - first + 1 && rows > 0, "{rows} of {first} to {last}: no row that it has");
    shell.end().await.unwrap();
}

#[tokio::test]
async fn drop_newest_goes_on_dropping_when_not_even_the_word_of_it_fits_and_keeps_again_when_there_is_room() {
    let mut shell = Shell::start(small(WhenFull::DropNewest));
    shell.link.step(confirmed(&["A"]));
    let bytes = |shell: &Shell| shell.items().len();
    let (mut next, mut last_len) = (1, 0);
    // Until a thousand more handovers leave no word behind.
    loop {
        for _ in 0..1_000 {
            timeout(PATIENCE, shell.trades(next..next + 1)).await.expect("it goes on dropping");
            next += 1;
        }
        if bytes(&shell) == last_len {
            break;
        }
        last_len = bytes(&shell);
        assert!(next < 1_000_000, "it never became full");
    }
    let dropped = next;
    let at = *shell.synced.borrow();
    shell.floor.send_replace(Floor { committed: Some(at), replay_from: Some(at) });
    let keeps_again = async {
        loop {
            shell.link.step(Step::Opened);
            shell.link.step(confirmed(&["A"]));
            shell.trades(next..next + 1).await;
            next += 1;
            if shell.items().last().is_some_and(|item| item.parse::<u64>().is_ok_and(|n| n > dropped)) {
                return;
            }
        }
    };
    timeout(PATIENCE, keeps_again).await.expect("what comes is kept again");
    let report = serde_json::to_value(shell.registry.report()).unwrap();
    let spool = &report["checks"]["p/spool"];
    let number = |name: &str| spool[name].as_u64().unwrap();
    assert_eq!(number("rows_appended") + number("rows_dropped"), next - 1, "each row is stored or counted");
    shell.end().await.unwrap();
}

#[tokio::test]
async fn a_spool_in_which_not_even_the_end_of_a_session_fits_does_not_hold_up_the_end() {
    let mut shell = Shell::start(small(WhenFull::DropNewest));
    shell.link.step(confirmed(&["A"]));
    shell.disk.fail(Failure::Full(0));
    let taken = timeout(Duration::from_millis(300), async {
        for n in 1..50_000 {
            shell.trades(n..n + 1).await;
        }
    });
    _ = taken.await;
    shell.stop.cancel();
    shell.end().await.unwrap();
}

#[tokio::test]
async fn segments_go_when_the_sink_has_them() {
    let mut shell = Shell::start(small(WhenFull::Block));
    shell.link.step(confirmed(&["A"]));
    for hundred in 0..100 {
        let logged = shell.trades(1 + hundred * 100..101 + hundred * 100).await;
        let mut synced = shell.synced.clone();
        let at = *timeout(PATIENCE, synced.wait_for(|position| position.offset >= logged)).await.unwrap().unwrap();
        shell.floor.send_replace(Floor { committed: Some(at), replay_from: Some(at) });
    }
    assert!(shell.reader.oldest().offset > 1);
    shell.end().await.unwrap();
}

#[tokio::test]
async fn a_segment_that_cannot_be_begun_degrades_the_spool_until_one_is() {
    let mut shell = Shell::start(small(WhenFull::Block));
    let spool = shell.registry.stage(crate::health::StageId::spool("p"));
    shell.link.step(confirmed(&["A"]));
    shell.disk.fail(Failure::Opens(0));
    let mut next = 1;
    while spool.status() != crate::health::Status::Degraded {
        assert!(next < 10_000, "{}", shell.spool()["reason"]);
        shell.trades(next..next + 100).await;
        next += 100;
    }
    let why = shell.spool()["reason"].as_str().unwrap().to_owned();
    for said in ["cannot begin a segment in `simulated/`", "Too many open files", "the present segment goes on"] {
        assert!(why.contains(said), "no `{said}` in {why}");
    }
    shell.disk.fail(Failure::None);
    while spool.status() != crate::health::Status::Healthy {
        assert!(next < 20_000, "{}", shell.spool()["reason"]);
        shell.trades(next..next + 100).await;
        next += 100;
    }
    assert_eq!(shell.spool()["reason"], "segments are begun again");
    shell.end().await.unwrap();
}

#[tokio::test]
async fn a_disk_that_fails_for_good_ends_the_task_and_shows_it() {
    let mut shell = Shell::start(SpoolConfig::default());
    shell.link.step(confirmed(&["A"]));
    shell.trades(1..10).await;
    shell.disk.fail(Failure::Syncs);
    trade(&mut shell.link, "A", 10, Origin::Live);
    shell.link.handed_over().await.unwrap();
    let registry = shell.registry.clone();
    let ended = timeout(PATIENCE, shell.running.task).await.expect("it ends").unwrap();
    assert!(ended.is_err());
    let spool = registry.stage(crate::health::StageId::spool("p"));
    assert_eq!(spool.status(), crate::health::Status::Failed);
}
