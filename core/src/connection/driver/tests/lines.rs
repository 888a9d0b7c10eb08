//! The life of a connection: what opens it, what ends it, and what the log hears of it.

use std::{num::NonZeroU32, sync::atomic::Ordering};

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{
    Error as WsError, Message,
    error::{CapacityError, ProtocolError},
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::*;
use crate::{Kind, config};

#[tokio::test(start_paused = true)]
async fn rows_follow_the_confirmation_and_the_end_is_in_the_log() {
    let mut world = World::start(Toy::new(&["a", "b"]));
    let peer = world.subscribe("a,b").await;
    peer.say("row a 1\nrow b 1");
    peer.say("row a 2");
    world.logged("row a 2 live").await;
    drop(peer);
    assert_eq!(world.logged("ended: the venue hung up").await.last().unwrap(), "ended: the venue hung up");
    assert!(
        world.reason().starts_with("degraded connection lost: the venue hung up; trying again in "),
        "{}",
        world.reason()
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_with_the_word_when_its_last_frame_came() {
    let mut world = World::with(Toy::new(&["a"]), |config| {
        config.silence.reconnect = config::Duration::from_secs(20);
        config.ping.every = config::Duration::from_secs(60);
    });
    let peer = world.subscribe("a").await;
    peer.say("row a 1");
    tokio::time::sleep(SECOND / 2).await;
    peer.say("row a 2");
    world.logged("row a 2 live").await;
    peer.gone().await;
    let log = world.logged("ended: no data for 20s").await;
    assert_eq!(log, ["alive", "ended: no data for 20s"]);
    let alive = world.alive.lock().unwrap().clone();
    let between = alive[alive.len() - 1].0 - alive[alive.len() - 2].0;
    assert!((500_000_000..600_000_000).contains(&between), "of the second row, 20 s before: {alive:?}");
}

#[tokio::test(start_paused = true)]
async fn a_venue_that_is_behind_with_sending_and_then_cuts_is_believed_up_to_the_ping_that_it_has_not_answered() {
    let mut world = World::start(Toy::new(&["a"]));
    let mut peer = world.subscribe("a").await;
    peer.is_deaf.store(true, Ordering::Relaxed);
    let mut pings = std::collections::VecDeque::new();
    // What it sends is always 80 s old, and so are its answers; nothing ever waits in our socket.
    for second in 0..200 {
        tokio::time::sleep(SECOND).await;
        peer.say(if second == 0 { "row a 1" } else { "nothing of interest" });
        world.settle().await;
        while let Ok(message) = peer.sent.try_recv() {
            if let Message::Ping(payload) = message {
                pings.push_back((second, payload));
            }
        }
        if let Some((_, payload)) = pings.pop_front_if(|(sent, _)| *sent + 80 <= second) {
            peer.send(Message::Pong(payload));
        }
    }
    drop(peer);
    world.logged("ended: the venue hung up").await;
    let alive = world.alive.lock().unwrap().clone();
    let heard = (alive[alive.len() - 1].0 - alive[0].0) / 1_000_000_000;
    assert!((110..=130).contains(&heard), "{heard} of 200 s");
    assert!(alive.is_sorted(), "{alive:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_read_after_the_process_stood_still_tells_nothing_of_the_time_between() {
    let mut world = World::start(Toy::new(&["a"]));
    let peer = world.subscribe("a").await;
    peer.say("row a 1");
    world.logged("row a 1 live").await;
    tokio::time::sleep(SECOND * 5).await;
    peer.say("row a 2");
    // The driver does not run meanwhile; the venue has given up then.
    tokio::time::advance(SECOND * 100).await;
    drop(peer);
    world.logged("ended: this process stood still for 1m 35s").await;
    let alive = world.alive.lock().unwrap().clone();
    let heard = alive[alive.len() - 1].0 - alive[0].0;
    assert!(heard < 10_000_000_000, "nobody has listened for 100 s: {alive:?}");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_reads_what_is_there_and_begins_a_new_session() {
    let mut world = World::start(Toy::new(&["a"]));
    let peer = world.subscribe("a").await;
    peer.say("row a 1");
    world.logged("row a 1 live").await;
    peer.say("row a 2\nrow a 3");
    tokio::time::advance(SECOND * 100).await;
    let log = world.logged("ended: this process stood still for 1m 30s").await;
    let log: Vec<&str> = log.iter().map(String::as_str).filter(|line| *line != "alive").collect();
    assert_eq!(log, ["row a 2 live", "row a 3 live", "ended: this process stood still for 1m 30s"]);
    let alive = world.alive.lock().unwrap().clone();
    assert!(alive[alive.len() - 1].0 - alive[0].0 < 10_000_000_000, "{alive:?}");
    peer.gone().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_session_in_the_log_and_takes_leave_of_the_venue() {
    let mut world = World::start(Toy::new(&["a"]));
    let mut peer = world.subscribe("a").await;
    peer.say("row a 1");
    world.settle().await;
    world.stop.cancel();
    assert_eq!(world.logged("ended: stopped").await.last().unwrap(), "ended: stopped");
    assert_eq!(peer.sent.recv().await, Some(Message::Close(None)));
    world.ended().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_and_a_short_connection_does_not_reset_them() {
    let mut world = World::with(Toy::new(&["a"]), |config| {
        config.breaker.failures = NonZeroU32::new(1_000).unwrap();
        config.start_every = config::Duration::from_millis(0);
    });
    for attempt in 1..=6 {
        world.dial().await.refuse("connection refused");
        world.told(&format!("(attempt {attempt})")).await;
    }
    let mut peer = world.subscribe("a").await;
    tokio::time::sleep(SECOND * 29).await;
    while !peer.is_gone() && peer.sent.try_recv().is_ok() {}
    peer.say("row a 1");
    drop(peer);
    world.told("(attempt 7)").await;

    let peer = world.subscribe("a").await;
    for number in 0..31 {
        peer.say(&format!("row a {number}"));
        tokio::time::sleep(SECOND).await;
    }
    drop(peer);
    assert!(world.told("connection lost").await.ends_with("(attempt 1)"), "it held for the stable period");
}

#[tokio::test(start_paused = true)]
async fn one_attempt_at_a_time_and_a_hanging_one_ends_with_the_connect_timeout() {
    let mut world = World::start(Toy::new(&["a"]));
    let dialled = world.dial().await;
    tokio::time::sleep(SECOND * 9).await;
    assert!(world.try_dial().is_none(), "the first is still under way");
    let reason = world.told("no connection").await;
    assert!(reason.contains("ws://venue/feed: no connection after 10s"), "{reason}");
    assert!(Instant::now() - dialled.at < SECOND * 11);
    world.dial().await;
}

#[tokio::test(start_paused = true)]
async fn three_failures_open_the_breaker_and_health_shows_reason_and_next_probe() {
    let mut world = World::start(Toy::new(&["a"]));
    for _ in 0..3 {
        world.dial().await.refuse("connection refused");
    }
    world.told("held back after failures in a row").await;
    let opened = Instant::now();
    let report = serde_json::to_value(world.registry.report()).unwrap();
    let breaker = report["checks"]["test/source.toy"]["breakers"]["connection"].clone();
    assert_eq!(breaker["state"], "open", "{report:#}");
    assert!(breaker["reason"].as_str().unwrap().contains("connection refused"), "{breaker}");
    let probe = world.dial().await;
    assert!(probe.at - opened > SECOND * 29, "{:?}", probe.at - opened);
}

#[tokio::test(start_paused = true)]
async fn gives_up_after_the_last_attempt_if_there_is_one() {
    let mut world = World::with(Toy::new(&["a"]), |config| config.reconnect.max_attempts = NonZeroU32::new(2));
    world.dial().await.refuse("connection refused");
    world.dial().await.refuse("connection refused");
    let error = world.ended().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    assert!(error.to_string().starts_with("gave up after 2 attempts"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_dead_link_is_found_by_the_ping_and_any_frame_keeps_it_alive() {
    let mut world = World::start(Toy::new(&["a"]));
    let mut peer = world.subscribe("a").await;
    peer.is_deaf.store(true, Ordering::Relaxed);
    let start = Instant::now();
    for _ in 0..10 {
        tokio::time::sleep(SECOND * 9).await;
        peer.say("nothing of interest");
    }
    while let Ok(message) = peer.sent.try_recv() {
        assert!(matches!(message, Message::Ping(_)), "{message:?}");
    }
    assert!(!peer.is_gone());
    let last = Instant::now();
    peer.gone().await;
    assert!(Instant::now() - last <= SECOND * 30, "every + timeout at most, not {:?}", Instant::now() - last);
    assert!(Instant::now() - start > SECOND * 90);
    world.logged("ended: no pong for 10s").await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_late_reads_what_waits_before_it_calls_the_link_dead() {
    for _ in 0..20 {
        let mut world = World::start(Toy::new(&["a"]));
        let mut peer = world.subscribe("a").await;
        peer.is_deaf.store(true, Ordering::Relaxed);
        while !matches!(peer.sent.recv().await, Some(Message::Ping(_))) {}
        peer.say("row a 1");
        tokio::time::advance(SECOND * 15).await;
        world.logged("row a 1 live").await;
        assert!(!peer.is_gone());
    }
}

#[tokio::test(start_paused = true)]
async fn a_pong_is_life_though_no_row_comes() {
    let mut world = World::with(Toy::new(&["a"]), |config| config.silence.reconnect = config::Duration::from_secs(0));
    let mut peer = world.subscribe("a").await;
    peer.is_deaf.store(true, Ordering::Relaxed);
    for _ in 0..20 {
        loop {
            if let Message::Ping(payload) = peer.sent.recv().await.unwrap() {
                peer.send(Message::Pong(payload));
                break;
            }
        }
    }
    assert!(!peer.is_gone());
}

#[tokio::test(start_paused = true)]
async fn health_shows_how_long_the_venue_took_for_a_confirmation_and_then_for_the_last_ping() {
    let mut world = World::start(Toy::new(&["a", "b"]));
    let took = |world: &World| world.registry.report().checks["test/source.toy"].duration.clone();
    let mut peer = world.connect().await;
    peer.is_deaf.store(true, Ordering::Relaxed);
    peer.say("welcome");
    assert_eq!([peer.heard().await, peer.heard().await], ["hello", "sub a,b"]);
    assert_eq!(took(&world), None, "nothing was answered yet");
    tokio::time::sleep(SECOND * 3).await;
    peer.say("ok a");
    world.logged("confirmed a at 7").await;
    let seconds = |world: &World| humantime::parse_duration(&took(world).unwrap()).unwrap().as_secs();
    assert_eq!(seconds(&world), 3);
    let Message::Ping(payload) = peer.sent.recv().await.unwrap() else { panic!("a ping comes next") };
    tokio::time::sleep(SECOND * 2).await;
    peer.send(Message::Pong(payload));
    world.settle().await;
    assert_eq!(seconds(&world), 2);
    peer.say("ok b");
    world.logged("confirmed b at 7").await;
    assert_eq!(seconds(&world), 2, "a ping says more");
}

#[tokio::test(start_paused = true)]
async fn frames_without_rows_are_told_early_and_end_the_session_late() {
    let mut world = World::start(Toy::new(&["a"]));
    let peer = world.subscribe("a").await;
    let start = Instant::now();
    let mut told_at = None;
    while !peer.is_gone() {
        tokio::time::sleep(SECOND).await;
        if !peer.is_gone() {
            peer.say("nothing of interest");
        }
        if told_at.is_none() && world.reason().contains("no data for 30s; the connection is up") {
            told_at = Some(Instant::now() - start);
        }
    }
    assert!(told_at.is_some_and(|at| at < SECOND * 33), "{told_at:?}");
    assert!(Instant::now() - start >= SECOND * 299);
    world.logged("ended: no data for 5m").await;
}

#[tokio::test(start_paused = true)]
async fn a_row_ends_the_silence() {
    let mut world = World::start(Toy::new(&["a"]));
    let peer = world.subscribe("a").await;
    while !world.reason().contains("no data") {
        tokio::time::sleep(SECOND).await;
        peer.say("nothing of interest");
    }
    peer.say("row a 1");
    world.told("healthy 1 of 1 channels subscribed").await;
}

#[tokio::test(start_paused = true)]
async fn a_venue_that_accepts_and_never_greets_is_left() {
    let mut world = World::start(Toy::new(&["a"]));
    let peer = world.connect().await;
    peer.gone().await;
    world.logged("ended: no end of the handshake for 10s").await;
}

#[tokio::test(start_paused = true)]
async fn a_close_frame_and_a_refused_upgrade_are_sorted_by_the_protocol() {
    let mut world = World::start(Toy::new(&["a"]));
    let peer = world.subscribe("a").await;
    peer.send(Message::Close(Some(CloseFrame { code: CloseCode::Restart, reason: "maintenance".into() })));
    world.logged("ended: closed with 1012 maintenance").await;
    world.dial().await.answer(503, "busy");
    world.told("closed with 503 busy").await;
    world.dial().await.answer(401, "no");
    let error = world.ended().await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Permanent, "the key is refused"));
}

#[tokio::test(start_paused = true)]
async fn an_oversized_message_and_a_broken_line_end_the_session_with_a_clear_reason() {
    let mut world = World::start(Toy::new(&["a"]));
    let peer = world.subscribe("a").await;
    peer.fail(WsError::Capacity(CapacityError::MessageTooLong { size: 20, max_size: 10 }));
    world.logged("ended: a message of 20 bytes is longer than `max_message` allows, 10 bytes").await;
    let peer = world.subscribe("a").await;
    peer.fail(WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake));
    world.logged("ended: the venue hung up").await;
}

#[tokio::test(start_paused = true)]
async fn a_malformed_frame_is_kept_raw_costs_no_row_of_others_and_leaves_the_line_up() {
    let mut world = World::start(Toy::new(&["a"]));
    let peer = world.subscribe("a").await;
    peer.say("row a 1");
    peer.say("row a 2\nbad");
    peer.say("row a 3\npart");
    peer.send(Message::binary(vec![1, 2, 3]));
    peer.say(&format!("bad {}", "x".repeat(100_000)));
    peer.say("row a 4");
    let log = world.logged("row a 4 live").await;
    let log: Vec<&str> = log.iter().map(String::as_str).filter(|line| *line != "alive").collect();
    assert_eq!(log[0], "row a 1 live");
    assert_eq!(log[1], "malformed 11 `row a 2\nbad`: what is this", "the row of a broken frame is taken back");
    assert_eq!(&log[2..4], ["row a 3 live", "malformed 10 `half a row`: cut"], "one broken event costs that one");
    assert!(log[4].starts_with("malformed 3 ") && log[4].ends_with("a binary frame of 3 bytes"), "{}", log[4]);
    assert!(log[5].starts_with("malformed 65536 `bad xxx"), "cut: {}", log[5]);
    assert!(!peer.is_gone());
}

#[tokio::test(start_paused = true)]
async fn what_the_protocol_calls_transient_reconnects_not_before_the_time_that_was_asked_for() {
    let mut world = World::start(Toy::new(&["a"]));
    let peer = world.subscribe("a").await;
    let start = Instant::now();
    peer.say("row a 1\nlater 90");
    let log = world.logged("ended: too many requests").await;
    assert!(!log.contains(&"row a 1 live".to_owned()), "{log:?}");
    assert!(world.dial().await.at - start >= SECOND * 90);
}

#[tokio::test(start_paused = true)]
async fn what_the_protocol_calls_permanent_ends_the_source() {
    let mut world = World::start(Toy::new(&["a"]));
    let peer = world.subscribe("a").await;
    peer.say("fatal");
    world.logged("ended: password refused").await;
    assert_eq!(world.ended().await.unwrap_err().kind(), Kind::Permanent);
}

#[tokio::test(start_paused = true)]
async fn a_panic_costs_the_session_and_a_new_protocol_goes_on() {
    let toy = Toy::new(&["a"]);
    let made = std::sync::Arc::clone(&toy.made);
    let mut world = World::start(toy);
    let peer = world.subscribe("a").await;
    let before = made.load(Ordering::SeqCst);
    peer.say("row a 1\npanic");
    let log = world.logged("ended: the protocol panicked: a fault of the protocol").await;
    assert!(!log.contains(&"row a 1 live".to_owned()), "its rows are taken back: {log:?}");
    assert!(world.reason().contains("the protocol panicked"));
    assert_eq!(made.load(Ordering::SeqCst), before + 1);
    let peer = world.subscribe("a").await;
    peer.say("row a 2");
    world.logged("row a 2 live").await;
}

#[tokio::test(start_paused = true)]
async fn when_the_log_cannot_keep_up_the_session_ends_and_no_line_is_opened_before_it_has_the_end() {
    let mut world = World::with(Toy::new(&["a"]), |config| config.queue = config::ByteSize(10_000));
    let peer = world.subscribe("a").await;
    world.takes.send_replace(false);
    for number in 1..2_000 {
        if peer.is_gone() {
            break;
        }
        peer.say(&format!("row a {number}"));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(peer.is_gone(), "2,000 rows are more than 10 kB");
    assert!(world.reason().contains("the log cannot keep up"), "{}", world.reason());
    tokio::time::sleep(SECOND * 600).await;
    assert!(world.try_dial().is_none(), "nobody could keep what comes");

    world.takes.send_replace(true);
    let log = world.logged("ended: the log cannot keep up: what came meanwhile is thrown away").await;
    let rows: Vec<&String> = log.iter().filter(|line| line.starts_with("row")).collect();
    assert!(!rows.is_empty() && rows.len() < 1_999, "{} rows", rows.len());
    assert_ne!(log[log.len() - 2], "alive", "what was thrown away was not heard");
    world.subscribe("a").await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_is_not_lost_with_what_came_before_it() {
    let mut world = World::with(Toy::new(&["a"]), |config| config.queue = config::ByteSize(10_000));
    let peer = world.subscribe("a").await;
    world.takes.send_replace(false);
    for number in 1..=2 {
        peer.say(&format!("row a {number}"));
        world.settle().await;
    }
    // Both buffers are away. More than the queue may hold, and the end, in one turn.
    let rows: Vec<String> = (3..1_000).map(|number| format!("row a {number}")).collect();
    peer.say(&rows.join("\n"));
    drop(peer);
    let reason = world.told("the spool has not taken yet what came before").await;
    assert!(reason.starts_with("degraded no connection"), "{reason}");
    tokio::time::sleep(SECOND * 600).await;
    assert!(world.try_dial().is_none(), "nobody could keep what comes");
    world.takes.send_replace(true);
    let log = world.logged("ended: the log cannot keep up: what came meanwhile is thrown away").await;
    let rows = log.iter().filter(|line| line.starts_with("row")).count();
    assert_eq!(rows, 2, "{log:?}");
    world.subscribe("a").await;
}

#[tokio::test(start_paused = true)]
async fn what_a_venue_says_forges_no_line() {
    let mut world = World::start(Toy::new(&["a"]));
    world.dial().await.answer(404, "no\n2026 INFO all is well \u{1b}[2J");
    let reason = world.told("404").await;
    assert!(reason.contains("no\\n2026 INFO all is well \\u{1b}[2J"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn without_pings_a_quiet_line_is_ready() {
    let mut world = World::with(Toy::new(&["a"]), |config| {
        config.ping.every = config::Duration::from_secs(0);
        config.silence.warn = config::Duration::from_secs(0);
        config.silence.reconnect = config::Duration::from_secs(0);
    });
    let peer = world.subscribe("a").await;
    peer.say("row a 1");
    tokio::time::sleep(SECOND * 3_600).await;
    assert!(world.registry.ready().ready, "{}", world.reason());
}

#[tokio::test(start_paused = true)]
async fn raw_frames_count_towards_what_may_wait() {
    let mut world = World::with(Toy::new(&["a"]), |config| config.queue = config::ByteSize(100_000));
    let peer = world.subscribe("a").await;
    world.takes.send_replace(false);
    for _ in 0..20 {
        if !peer.is_gone() {
            peer.say(&format!("bad {}", "x".repeat(60_000)));
            world.settle().await;
        }
    }
    assert!(peer.is_gone());
}

#[tokio::test(start_paused = true)]
async fn while_the_spool_is_full_no_line_is_open_and_none_is_dialled_until_there_is_room() {
    let mut world = World::with(Toy::new(&["a"]), |config| {
        config.reconnect.max_attempts = NonZeroU32::new(1);
    });
    let peer = world.subscribe("a").await;
    world.room.send_replace(false);
    peer.gone().await;
    world.logged("ended: the spool is full").await;
    world.told("degraded connection closed: waiting for room in the spool").await;
    tokio::time::sleep(SECOND * 3_600).await;
    assert!(world.try_dial().is_none(), "{}", world.reason());
    world.told("degraded no connection: waiting for room in the spool").await;
    assert!(world.is_running(), "the venue is not to blame: no attempt was in vain");

    let room_at = Instant::now();
    world.room.send_replace(true);
    let dialled = world.dial().await;
    assert!(dialled.at - room_at < SECOND, "the pause after the session has long passed");
    let mut peer = dialled.accept();
    peer.say("welcome");
    assert_eq!(peer.heard().await, "hello");
}

#[tokio::test(start_paused = true)]
async fn a_session_does_not_outlive_a_spool_that_was_full_for_a_moment() {
    let mut world = World::start(Toy::new(&["a"]));
    let peer = world.subscribe("a").await;
    world.room.send_replace(false);
    world.room.send_replace(true);
    // The venue says nothing more by which it would show.
    peer.gone().await;
    world.logged("ended: the spool is full").await;
    let _peer = world.subscribe("a").await;
    world.settle().await;
    assert!(world.reason().starts_with("healthy"), "{}", world.reason());
}

#[tokio::test(start_paused = true)]
async fn a_line_that_comes_about_when_the_spool_has_become_full_is_closed_again() {
    let mut world = World::start(Toy::new(&["a"]));
    let dialled = world.dial().await;
    world.room.send_replace(false);
    dialled.accept().gone().await;
    world.told("waiting for room in the spool").await;
    tokio::time::sleep(SECOND * 60).await;
    assert!(world.try_dial().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_log_hears_once_a_second_that_frames_still_come() {
    let mut world = World::start(Toy::new(&["a"]));
    let peer = world.subscribe("a").await;
    for _ in 0..100 {
        tokio::time::sleep(SECOND / 10).await;
        peer.say("nothing of interest");
    }
    peer.say("row a 1");
    let log = world.logged("row a 1 live").await;
    let alive = log.iter().filter(|line| *line == "alive").count();
    assert!((9..=11).contains(&alive), "{alive} in 10 s");
    tokio::time::sleep(SECOND * 5).await;
    assert!(world.log.lock().unwrap().is_empty(), "without frames nothing is alive");
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_numbers_stands_before_the_rows_that_it_numbers() {
    let mut world = World::start(Toy::new(&["a"]));
    let peer = world.subscribe("a").await;
    peer.say("row a 8\nrestart a\nrow a 1");
    let log = world.logged("row a 1 live").await;
    let log: Vec<&str> = log.iter().map(String::as_str).filter(|line| *line != "alive").collect();
    assert_eq!(log, ["row a 8 live", "restart a", "row a 1 live"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_protocol_answers_is_sent_and_it_is_woken_when_it_wished() {
    let mut world = World::start(Toy::new(&["a"]));
    let mut peer = world.subscribe("a").await;
    peer.say("answer pong");
    assert_eq!(peer.heard().await, "pong");
    let start = Instant::now();
    peer.say("wake 5");
    assert_eq!(peer.heard().await, "woken");
    assert!((SECOND * 5..SECOND * 6).contains(&(Instant::now() - start)));
}
