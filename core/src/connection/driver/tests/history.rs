//! Gaps: what is asked for, when, and what becomes of the answers.

use std::{num::NonZeroU32, sync::Arc};

use tokio::time::Instant;

use super::{world::Called, *};
use crate::{
    config,
    intake::Ask,
    protocol::{Gap, GapId, Limits, Pool},
    row::{Numbering, StreamKey, Timestamp},
};

#[tokio::test(start_paused = true)]
async fn one_request_covers_all_gaps_and_its_rows_stand_before_the_answers() {
    let mut world = World::start(Toy::new(&["a"]));
    let peer = world.subscribe("a").await;
    peer.chatter("nothing");
    world.show(vec![ask(1, 5), ask(2, 6)]);
    let called = world.called().await;
    assert_eq!(called.request.shown(), "http://venue/history");
    called.reply("row a 3\nrow b 4\nanswered 2");
    let log = world.logged("answered 2 ask 6").await;
    let log: Vec<&str> = log.iter().map(String::as_str).filter(|line| *line != "alive").collect();
    assert_eq!(log, ["row a 3 backfill", "row b 4 backfill", "asked 1", "answered 2 ask 6"]);
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_not_asked_for_before_its_time_nor_twice_while_it_is_asked_for() {
    let mut world = World::start(Toy::new(&["a"]));
    let peer = world.subscribe("a").await;
    peer.chatter("nothing");
    let not_before = Instant::now() + SECOND * 3;
    world.show(vec![Ask { not_before: Some(not_before), ..ask(1, 1) }]);
    let called = world.called().await;
    assert!(called.at >= not_before && called.at < not_before + SECOND / 10);
    world.show(vec![ask(1, 2)]);
    tokio::time::sleep(SECOND * 5).await;
    assert!(world.try_called().is_none());
    called.reply("");
    world.logged("asked 1").await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_under_the_number_of_the_moment_when_it_was_asked_for() {
    let mut world = World::start(Toy::new(&["a"]));
    world.subscribe("a").await.chatter("nothing");
    world.show(vec![ask(1, 5)]);
    let called = world.called().await;
    world.show(vec![ask(1, 9)]);
    world.settle().await;
    called.reply("all");
    world.logged("answered 1 ask 5").await;
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_shown_again_only_when_the_log_has_worked_off_the_answer() {
    let toy = Toy::new(&["a"]);
    let shown = Arc::clone(&toy.shown);
    let mut world = World::start(toy);
    world.subscribe("a").await.chatter("nothing");
    world.show(vec![ask(1, 1)]);
    world.called().await.reply("row a 1");
    world.logged("asked 1").await;
    world.settle().await;
    assert_eq!(shown.lock().unwrap().len(), 1, "the board still shows what it showed before the answer");
    world.show(vec![ask(1, 2)]);
    world.called().await.reply("");
    assert_eq!(shown.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_history_that_lags_is_not_asked_without_pause_though_the_board_moves() {
    let toy = Toy { has_host_for_each: true, ..Toy::new(&["a"]) };
    let mut world = World::start(toy);
    world.subscribe("a").await.chatter("row a 1");
    let start = Instant::now();
    let mut calls = 0;
    while start.elapsed() < SECOND * 40 {
        world.show(vec![with_dry_replies(ask(1, u64::from(calls)), calls)]);
        world.called().await.reply("");
        world.logged("asked 1").await;
        calls += 1;
    }
    assert!((5..10).contains(&calls), "{calls} in 40 s");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_down_holds_back_no_call_to_another() {
    let toy = Toy { has_host_for_each: true, ..Toy::discovering() };
    let mut world = World::start(toy);
    world.called().await.reply("a");
    let peer = world.subscribe("a").await;
    peer.chatter("row a 1");
    let mut asks: Vec<Ask> = (1..=40).map(|id| of_stream(ask(id, 1), "down")).collect();
    asks.push(of_stream(ask(41, 1), "up"));
    world.show(asks.clone());
    let called = next_to(&mut world, "http://up/history").await;
    called.reply("all");
    world.logged("answered 41 ask 1").await;
    asks.pop();
    world.show(asks.clone());
    while !world.reason().starts_with("degraded http://down/history: connection refused, next try in") {
        world.called().await.fail();
    }
    for id in 42..60 {
        let start = Instant::now();
        asks.push(of_stream(ask(id, 1), "up"));
        world.show(asks.clone());
        next_to(&mut world, "http://up/history").await.reply("all");
        world.logged(&format!("answered {id} ask 1")).await;
        asks.pop();
        world.show(asks.clone());
        assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
        tokio::time::sleep(SECOND * 10).await;
    }
    peer.say("rediscover");
    next_to(&mut world, "http://venue/channels").await.reply("a");
    let report = serde_json::to_value(world.registry.report()).unwrap();
    let breakers = &report["checks"]["test/source.toy"]["breakers"];
    assert_ne!(breakers["rest down"]["state"], "closed", "{breakers:#}");
    assert_eq!(breakers["rest up"]["state"], "closed", "{breakers:#}");
}

#[tokio::test(start_paused = true)]
async fn what_got_no_answer_goes_back_to_the_protocol_as_it_is_then() {
    let toy = Toy::new(&["a"]);
    let shown = Arc::clone(&toy.shown);
    let mut world = World::start(toy);
    world.subscribe("a").await.chatter("row a 1");
    world.show(vec![ask(1, 1), ask(2, 1)]);
    let called = world.called().await;
    world.show(vec![ask(2, 5)]);
    called.fail();
    world.called().await.reply("all");
    world.logged("answered 2 ask 5").await;
    let shown = shown.lock().unwrap().clone();
    assert_eq!(shown[0], [1, 2]);
    assert!(shown[1..].iter().all(|gaps| !gaps.contains(&1)), "{shown:?}");
}

#[tokio::test(start_paused = true)]
async fn an_api_that_answers_again_is_well_though_its_breaker_waits_for_more() {
    let mut world = World::start(Toy::new(&["a"]));
    world.subscribe("a").await.chatter("row a 1");
    world.show(vec![ask(1, 1)]);
    while !world.reason().contains("1 gap waits") {
        world.called().await.fail();
    }
    world.called().await.reply("all");
    world.logged("answered 1 ask 1").await;
    let reason = world.told("healthy").await;
    assert_eq!(reason, "healthy 1 of 1 channels subscribed");
}

#[tokio::test(start_paused = true)]
async fn an_api_that_nobody_has_to_ask_any_more_is_no_trouble() {
    let mut world = World::start(Toy::new(&["a"]));
    world.subscribe("a").await.chatter("row a 1");
    world.show(vec![ask(1, 1)]);
    while !world.reason().contains("1 gap waits") {
        world.called().await.fail();
    }
    world.show(vec![]);
    while let Ok(called) = tokio::time::timeout(SECOND * 100, world.called()).await {
        called.fail();
    }
    world.told("healthy").await;
}

#[tokio::test(start_paused = true)]
async fn what_nothing_can_be_done_about_is_lost_for_the_reason_that_the_protocol_gives() {
    let mut world = World::start(Toy::new(&["a"]));
    world.subscribe("a").await.chatter("nothing");
    world.show(vec![with_dry_replies(ask(1, 1), 3)]);
    world.logged("lost 1: the venue forgot").await;
}

#[tokio::test(start_paused = true)]
async fn refusals_failures_and_silence_of_the_api_are_repeated_and_never_reach_the_protocol() {
    let mut world = World::start(Toy::new(&["a"]));
    world.subscribe("a").await.chatter("row a 1");
    world.show(vec![ask(1, 1)]);
    let first = world.called().await;
    let start = first.at;
    first.status(429, Some(SECOND * 7), "bad");
    let second = world.called().await;
    assert!(second.at - start >= SECOND * 7, "as long as the venue asked for");
    second.status(502, None, "bad");
    world.called().await.fail();
    let hanging = world.called().await;
    let next = world.called().await;
    assert!(next.at - hanging.at >= SECOND * 10, "the call's own time limit");
    next.reply("all");
    let log = world.logged("answered 1 ask 1").await;
    assert!(!log.iter().any(|line| line.starts_with("malformed") || line.starts_with("asked")), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn an_api_that_is_down_leaves_the_gaps_open_the_feed_up_and_health_degraded_with_their_number() {
    let mut world = World::start(Toy::new(&["a"]));
    let peer = world.subscribe("a").await;
    peer.chatter("row a 1");
    world.show(vec![ask(1, 1), ask(2, 1)]);
    for _ in 0..5 {
        world.called().await.fail();
    }
    let reason = world.told("2 gaps wait").await;
    assert!(reason.starts_with("degraded http://venue/history: connection refused, next try in"), "{reason}");
    // The next question comes later; the number is that of now.
    world.show(vec![ask(1, 1), ask(2, 1), ask(3, 1)]);
    let report = serde_json::to_value(world.registry.report()).unwrap();
    let check = &report["checks"]["test/source.toy"];
    assert_eq!(check["gaps"]["open"], 3);
    assert!(check["reason"].as_str().unwrap().ends_with("; 3 gaps wait"), "{check:#}");
    world.show(vec![ask(1, 1), ask(2, 1)]);
    let broken = Instant::now();
    let probe = world.called().await;
    assert!(probe.at - broken > SECOND * 50, "the breaker is open");
    assert!(!peer.is_gone());
    probe.reply("all");
    world.logged("answered 1 ask 1").await;
}

#[tokio::test(start_paused = true)]
async fn calls_keep_to_the_users_rate_beside_the_venues() {
    let mut toy = Toy::discovering();
    toy.limits = Limits { requests: Some(POOL), ..Limits::default() };
    let mut world = World::with(toy, |config| {
        config.rest.rate = Some(config::Rate { times: NonZeroU32::new(30).unwrap(), per: SECOND * 60 });
    });
    let first = world.called().await;
    let start = first.at;
    first.reply("a");
    world.subscribe("a").await.chatter("nothing");
    world.show(vec![ask(1, 1)]);
    assert!(world.called().await.at - start >= SECOND * 2, "the user wants one in two seconds");
}

#[tokio::test(start_paused = true)]
async fn twelve_sources_of_a_process_keep_to_the_rate_of_their_venue_together_and_all_find_their_channels() {
    let toy = || Toy { limits: Limits { requests: Some(POOL), ..Limits::default() }, ..Toy::discovering() };
    let start = Instant::now();
    let first = World::start(toy());
    let mut worlds: Vec<World> = (1..12).map(|_| first.beside(toy())).collect();
    worlds.push(first);
    let mut calls = Vec::new();
    for world in &mut worlds {
        let called = world.called().await;
        calls.push(called.at);
        called.reply("a");
        world.subscribe("a").await.chatter("nothing");
    }
    calls.sort_unstable();
    let late = calls.iter().filter(|at| **at > start).count();
    assert_eq!(late, 12 - 3, "three at once");
    assert!(*calls.last().unwrap() >= start + SECOND * 9 / 2, "then two a second");
}

#[tokio::test(start_paused = true)]
async fn one_source_is_told_to_come_later_and_all_that_call_that_host_do() {
    let mut world = World::start(Toy::new(&["a"]));
    let mut other = world.beside(Toy::new(&["a"]));
    for world in [&mut world, &mut other] {
        world.subscribe("a").await.chatter("row a 1");
    }
    world.show(vec![ask(1, 1)]);
    world.called().await.status(429, Some(SECOND * 30), "too many");
    let told = Instant::now();
    let reason = world.told("answered with 429").await;
    assert!(reason.contains("answered with 429, next try in 3") && reason.ends_with("; 1 gap waits"), "{reason}");
    other.show(vec![ask(1, 1)]);
    assert_eq!(other.told("degraded").await, "degraded venue wants no calls for now, next try in 30s; 1 gap waits");
    for world in [&mut world, &mut other] {
        let called = world.called().await;
        assert!(called.at >= told + SECOND * 30);
        called.reply("all");
        world.logged("answered 1 ask 1").await;
        world.told("healthy").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_venue_that_says_later_to_many_calls_at_once_is_asked_again_when_it_said_and_not_a_minute_later() {
    let toy = Toy { has_host_for_each: true, ..Toy::new(&["a"]) };
    let mut world = World::with(toy, |config| config.rest.breaker.failures = NonZeroU32::MIN);
    world.subscribe("a").await.chatter("row a 1");
    world.show((1..=4).map(|id| ask(id, 1)).collect());
    let mut out = Vec::new();
    for _ in 0..4 {
        out.push(world.called().await);
    }
    let start = Instant::now();
    out.into_iter().for_each(|called| called.status(429, Some(SECOND), "too many"));
    let next = world.called().await;
    assert!((1..5).contains(&(next.at - start).as_secs()), "{:?}", next.at - start);
    // It goes on, so it is no matter of a moment.
    next.status(429, Some(SECOND), "too many");
    while let Ok(called) = tokio::time::timeout(SECOND * 40, world.called()).await {
        assert!(called.at <= start + SECOND * 10);
        called.status(429, Some(SECOND), "too many");
    }
    let report = serde_json::to_value(world.registry.report()).unwrap();
    assert_eq!(report["checks"]["test/source.toy"]["breakers"]["rest a"]["state"], "open");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_longer_missing_when_its_turn_comes_is_not_asked_for() {
    let mut toy = Toy::new(&["a"]);
    toy.limits = Limits { requests: Some(Pool { burst: 1, ..POOL }), ..Limits::default() };
    let mut world = World::start(toy);
    world.subscribe("a").await.chatter("nothing");
    world.show(vec![ask(1, 1)]);
    world.called().await.reply("all");
    world.logged("answered 1 ask 1").await;
    world.show(vec![ask(2, 1), ask(3, 1)]);
    world.settle().await;
    assert!(world.try_called().is_none(), "its turn has not come");
    world.show(vec![ask(3, 2)]);
    world.called().await.reply("all");
    world.logged("answered 3 ask 2").await;
    world.show(vec![ask(4, 1)]);
    world.settle().await;
    world.show(vec![]);
    tokio::time::sleep(SECOND * 5).await;
    assert!(world.try_called().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_an_ended_session_is_dropped_and_the_question_is_asked_again_in_the_next() {
    let mut world = World::start(Toy::new(&["a"]));
    let peer = world.subscribe("a").await;
    world.show(vec![ask(1, 1)]);
    let called = world.called().await;
    drop(peer);
    world.logged("ended: the venue hung up").await;
    world.settle().await;
    assert!(called.is_dropped(), "nobody waits for it");
    world.show(vec![ask(1, 2)]);
    world.subscribe("a").await.chatter("nothing");
    world.called().await.reply("all");
    let log = world.logged("answered 1 ask 2").await;
    assert!(!log.contains(&"answered 1 ask 1".to_owned()), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_answer_is_kept_raw_and_counts_as_none() {
    let mut world = World::start(Toy::new(&["a"]));
    world.subscribe("a").await.chatter("nothing");
    world.show(vec![ask(1, 1)]);
    world.called().await.reply("row a 1\nall\nbad");
    let log = world.logged("asked 1").await;
    let log: Vec<&str> = log.iter().map(String::as_str).filter(|line| *line != "alive").collect();
    assert_eq!(log, ["malformed 15 `row a 1\nall\nbad`: what is this", "asked 1"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_says_later_is_repeated_later_and_the_feed_goes_on() {
    let mut world = World::start(Toy::new(&["a"]));
    let peer = world.subscribe("a").await;
    peer.chatter("nothing");
    world.show(vec![ask(1, 1)]);
    let first = world.called().await;
    let start = first.at;
    first.reply("later 20");
    let second = world.called().await;
    assert!(second.at - start >= SECOND * 20);
    assert!(!peer.is_gone());
}

#[tokio::test(start_paused = true)]
async fn a_broken_book_is_ended_and_begun_anew_one_at_a_time_with_growing_pauses() {
    let mut world = World::start(Toy { resubscribes: true, ..Toy::new(&["a", "b"]) });
    let mut peer = world.subscribe("a,b").await;
    peer.chatter("row b 1");
    let mut pauses = Vec::new();
    for number in 1..=4 {
        let start = Instant::now();
        world.show(vec![ask(number, 1)]);
        assert_eq!(peer.heard().await, "unsub a");
        pauses.push((Instant::now() - start).as_secs());
        tokio::time::sleep(SECOND).await;
        let said = std::iter::from_fn(|| peer.sent.try_recv().ok());
        assert!(said.into_iter().all(|message| message.is_ping()), "the end is waited for");
        peer.say("gone a");
        assert_eq!(peer.heard().await, "sub a");
        peer.say("ok a");
        let log = world.logged("confirmed a at 7").await;
        assert!(log.contains(&"unsubscribed a".to_owned()), "{log:?}");
        world.show(vec![]);
    }
    assert_eq!(pauses, [0, 1, 2, 4]);
}

#[tokio::test(start_paused = true)]
async fn many_gaps_are_asked_for_a_few_at_a_time_so_that_each_is_asked_for_as_it_is_then() {
    let toy = Toy::new(&["a"]);
    let shown = Arc::clone(&toy.shown);
    let mut world = World::start(toy);
    world.subscribe("a").await.chatter("nothing");
    // Each request covers all that are due, so gaps that come one by one make requests one by one.
    let mut asks = Vec::new();
    for number in 1..=20 {
        asks.push(ask(number, 1));
        world.show(asks.clone());
        world.settle().await;
    }
    let mut out: Vec<_> = std::iter::from_fn(|| world.try_called()).collect();
    assert_eq!(out.len(), 4);
    world.show(asks.split_off(10));
    world.settle().await;
    out.remove(0).reply("");
    world.settle().await;
    assert!(shown.lock().unwrap().last().unwrap().iter().all(|gap| *gap > 10), "{:?}", shown.lock().unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_the_venue_forgets_first_is_asked_for_first_also_where_it_was_found_last() {
    let toy = Toy { has_host_for_each: true, ..Toy::new(&["a"]) };
    let mut world = World::start(toy);
    world.subscribe("a").await.chatter("nothing");
    // As the board shows them: the oldest first.
    let since = |id: u64, since: i64| Ask { gap: Gap { since: Timestamp(since), ..ask(id, 1).gap }, ..ask(id, 1) };
    let mut asks: Vec<Ask> = (1..=14).map(|id| since(id, 100 + id as i64)).collect();
    world.show(asks.clone());
    world.settle().await;
    // Four are out, and a few wait for their turn, when an older one is found.
    asks.insert(0, since(99, 5));
    world.show(asks.clone());
    let mut order = Vec::new();
    while !asks.is_empty() {
        world.called().await.reply("all");
        let answered = world.answered().await;
        asks.retain(|ask| ask.gap.id.0 != answered);
        world.show(asks.clone());
        world.settle().await;
        order.push(answered);
    }
    let found = order.iter().position(|id| *id == 99).unwrap();
    assert!(found < 10, "{order:?}");
    order.remove(found);
    assert!(order.is_sorted(), "{order:?}");
}

#[tokio::test(start_paused = true)]
async fn an_api_that_is_down_for_hours_is_asked_until_it_answers_and_nothing_is_given_up() {
    let mut world = World::start(Toy::new(&["a"]));
    let peer = world.subscribe("a").await;
    peer.chatter("row a 1");
    world.show(vec![ask(1, 1), ask(2, 1)]);
    let start = Instant::now();
    let mut calls = 0;
    while start.elapsed() < SECOND * 3_600 * 3 {
        world.called().await.fail();
        calls += 1;
    }
    assert!(calls < 400, "{calls} in three hours");
    world.called().await.reply("all");
    let log = world.logged("answered 2 ask 1").await;
    assert!(
        log.contains(&"answered 1 ask 1".to_owned()) && !log.iter().any(|line| line.starts_with("lost")),
        "{log:?}"
    );
    assert!(!peer.is_gone(), "the feed is none the worse for it");
}

const POOL: Pool = Pool { name: "", per_second: 2.0, burst: 3 };

/// Waits for a call to an address; those to others fail.
async fn next_to(world: &mut World, address: &str) -> Called {
    loop {
        let called = world.called().await;
        if called.request.shown() == address {
            return called;
        }
        called.fail();
    }
}

fn of_stream(ask: Ask, symbol: &str) -> Ask {
    Ask { gap: Gap { stream: StreamKey::new("prints", symbol), ..ask.gap }, ..ask }
}

pub(super) fn ask(id: u64, number: u64) -> Ask {
    let gap = Gap {
        id: GapId(id),
        stream: StreamKey::new("prints", "a"),
        numbering: Numbering::Sequence,
        after: None,
        before: None,
        since: Timestamp(0),
        dry_replies: 0,
    };
    Ask { gap, number, not_before: None }
}

fn with_dry_replies(ask: Ask, dry_replies: u32) -> Ask {
    Ask { gap: Gap { dry_replies, ..ask.gap }, ..ask }
}
