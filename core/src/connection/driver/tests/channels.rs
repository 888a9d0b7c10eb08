//! Subscriptions and discovery: what is asked for, in what pieces, and what is told of it.

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Error as WsError;

use super::*;
use crate::{
    Kind, config,
    protocol::{Limits, Pool},
};

#[tokio::test(start_paused = true)]
async fn nothing_is_subscribed_before_the_handshake_is_done() {
    let mut world = World::start(Toy::new(&["a"]));
    let mut peer = world.connect().await;
    assert_eq!(peer.heard().await, "hello");
    tokio::time::sleep(SECOND * 5).await;
    assert!(peer.sent.try_recv().is_err());
    peer.say("welcome");
    assert_eq!(peer.heard().await, "sub a");
}

#[tokio::test(start_paused = true)]
async fn channels_of_one_reply_are_confirmed_in_one_step_at_the_venues_time() {
    let mut world = World::start(Toy::new(&["a", "b", "c"]));
    let peer = world.connect().await;
    peer.say("welcome");
    peer.say("ok c,a");
    peer.say("ok b\nok b");
    let log = world.logged("confirmed b at 7").await;
    assert!(log.contains(&"confirmed c,a at 7".to_owned()), "{log:?}");
    world.told("healthy 3 of 3 channels subscribed").await;
    assert!(world.registry.ready().ready);
}

#[tokio::test(start_paused = true)]
async fn requests_keep_to_the_venues_number_of_channels_and_messages_a_second() {
    let names: Vec<String> = (0..7).map(|number| format!("c{number}")).collect();
    let mut toy = Toy::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    toy.limits = Limits { channels_per_message: Some(3), messages: Some(ONE_AT_ONCE), ..Limits::default() };
    let mut world = World::start(toy);
    let mut peer = world.connect().await;
    peer.say("welcome");
    peer.heard().await;
    let mut asked = Vec::new();
    for _ in 0..3 {
        asked.push((peer.heard().await, Instant::now()));
    }
    let texts: Vec<&str> = asked.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(texts, ["sub c0,c1,c2", "sub c3,c4,c5", "sub c6"]);
    assert!(asked[1].1 - asked[0].1 >= SECOND / 2 && asked[2].1 - asked[1].1 >= SECOND / 2);
}

#[tokio::test(start_paused = true)]
async fn connections_to_one_host_keep_to_its_messages_a_second_together() {
    let toy = || Toy { limits: Limits { messages: Some(ONE_AT_ONCE), ..Limits::default() }, ..Toy::new(&["a"]) };
    let first = World::start(toy());
    let mut worlds = vec![first.beside(toy()), first.beside(toy()), first];
    let start = Instant::now();
    let mut peers = Vec::new();
    for world in &mut worlds {
        let peer = world.connect().await;
        peer.say("welcome");
        peers.push(peer);
    }
    let mut asked = Vec::new();
    for peer in &mut peers {
        assert_eq!(peer.heard().await, "hello");
        assert_eq!(peer.heard().await, "sub a");
        peer.chatter("nothing");
        asked.push(start.elapsed());
    }
    assert!(*asked.iter().max().unwrap() >= SECOND, "the third of two a second: {asked:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_venue_does_not_have_degrades_the_source_until_it_has_it() {
    let mut world = World::start(Toy::discovering());
    world.called().await.reply("a\nlack b");
    let peer = world.connect().await;
    peer.say("welcome");
    peer.say("ok a");
    world.told("degraded the venue has no b").await;
    peer.say("plenty");
    world.told("healthy 1 of 1 channels subscribed").await;
}

#[tokio::test(start_paused = true)]
async fn while_channels_wait_for_their_answers_health_says_how_far_it_is() {
    let mut world = World::start(Toy::discovering());
    world.called().await.reply("a,b,c");
    let peer = world.connect().await;
    peer.say("welcome");
    peer.say("ok a");
    world.told("starting 1 of 3 channels subscribed, 0 refused").await;
    peer.say("no b");
    world.told("starting 1 of 3 channels subscribed, 1 refused").await;
    peer.say("no c");
    world.told("degraded 1 of 3 channels subscribed, refused: `b`, `c`").await;
}

#[tokio::test(start_paused = true)]
async fn health_counts_and_names_the_channels_that_are_quiet_until_they_speak_or_the_session_ends() {
    let quiet_after = config::Duration::from_secs(60);
    let mut world = World::with(Toy::new(&["a", "b", "c"]), |config| config.quiet_after = quiet_after);
    let peer = world.subscribe("a,b,c").await;
    peer.chatter("row a 1");
    peer.say("heard b");
    world.told("healthy 3 of 3 channels subscribed, 2 of them quiet").await;
    let source =
        |world: &World| serde_json::to_value(world.registry.report()).unwrap()["checks"]["test/source.toy"].clone();
    let check = source(&world);
    assert_eq!(check["subscriptions"], serde_json::json!({ "wanted": 3, "confirmed": 3, "refused": 0, "quiet": 2 }));
    assert_eq!(check["quiet_channels"], serde_json::json!(["b", "c"]), "one ceased, one has never spoken");

    peer.say("heard c");
    world.told("healthy 3 of 3 channels subscribed, 1 of them quiet").await;
    assert_eq!(source(&world)["quiet_channels"], serde_json::json!(["b"]));
    peer.fail(WsError::ConnectionClosed);
    world.told("degraded connection lost").await;
    assert_eq!(source(&world)["subscriptions"]["quiet"], 0, "nothing is subscribed to");
}

#[tokio::test(start_paused = true)]
async fn a_refused_channel_is_told_by_name_and_asked_for_again_after_a_pause_and_at_the_next_discovery() {
    let mut world = World::start(Toy::discovering());
    world.called().await.reply("a,b");
    let mut peer = world.connect().await;
    peer.say("welcome");
    assert_eq!((peer.heard().await, peer.heard().await), ("hello".into(), "sub a,b".into()));
    peer.say("ok a\nno b");
    let reason = world.told("1 of 2 channels subscribed").await;
    assert!(reason.starts_with("degraded") && reason.contains("refused: `b`"), "{reason}");
    assert!(world.registry.ready().ready, "every channel has been answered for");
    peer.chatter("row a 1");
    let refused = Instant::now();
    assert_eq!(peer.heard().await, "sub b", "the pings aside, nothing was sent since");
    assert!(refused.elapsed() > SECOND * 59, "{:?}", refused.elapsed());
    peer.say("no b");
    world.settle().await;
    peer.say("rediscover");
    world.called().await.reply("a,b");
    assert_eq!(peer.heard().await, "sub b");
    assert!(refused.elapsed() < SECOND * 90, "{:?}", refused.elapsed());
    peer.say("ok b");
    world.told("2 of 2 channels subscribed").await;
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_never_answered_is_told_and_asked_for_again_after_growing_pauses() {
    let mut world = World::start(Toy::new(&["a", "b"]));
    let mut peer = world.connect().await;
    peer.chatter("row a 1");
    peer.say("welcome");
    assert_eq!((peer.heard().await, peer.heard().await), ("hello".into(), "sub a,b".into()));
    peer.say("ok a");
    let start = Instant::now();
    let mut asked = Vec::new();
    for _ in 0..3 {
        assert_eq!(peer.heard().await, "sub b");
        asked.push((Instant::now() - start).as_secs());
    }
    assert_eq!(asked, [20, 50, 100], "10 s for the answer, then 10, 20, 40 s of pause");
    assert!(world.reason().starts_with("degraded 1 of 2 channels subscribed"), "{}", world.reason());
    assert!(!world.registry.ready().ready);
    peer.say("ok b");
    world.told("healthy 2 of 2 channels subscribed").await;
}

#[tokio::test(start_paused = true)]
async fn a_rediscovery_subscribes_the_entrants_ends_the_leavers_and_leaves_the_rest_alone() {
    let mut toy = Toy::discovering();
    toy.limits.refresh = Some(SECOND * 60);
    let mut world = World::start(toy);
    world.called().await.reply("a,b,c");
    let mut peer = world.subscribe("a,b,c").await;
    peer.chatter("row b 1");
    world.called().await.reply("b,c,d");
    assert_eq!(peer.heard().await, "unsub a");
    assert_eq!(peer.heard().await, "sub d");
    peer.say("ok d\ngone a");
    let log = world.logged("unsubscribed a").await;
    assert!(log.contains(&"confirmed d at 7".to_owned()), "{log:?}");
    world.told("healthy 3 of 3 channels subscribed").await;
    assert!(!log.iter().any(|line| line.contains("ended")), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_another_channel_still_carries_is_not_said_to_have_ended() {
    let mut world = World::start(Toy::discovering());
    world.called().await.reply("a+b,b");
    let peer = world.subscribe("a+b,b").await;
    peer.say("rediscover");
    world.called().await.reply("b");
    peer.say("gone a+b");
    world.logged("unsubscribed a").await;
}

#[tokio::test(start_paused = true)]
async fn without_a_way_to_unsubscribe_the_line_is_opened_anew_without_the_leavers() {
    let mut world = World::start(Toy { cannot_unsubscribe: true, ..Toy::discovering() });
    world.called().await.reply("a,b");
    let peer = world.subscribe("a,b").await;
    peer.say("rediscover");
    world.called().await.reply("b");
    world.logged("ended: the venue has no way to unsubscribe").await;
    world.subscribe("b").await;
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_the_venue_ends_of_its_own_will_is_entered_and_asked_for_again_after_a_pause() {
    let mut world = World::start(Toy::new(&["a", "b"]));
    let mut peer = world.subscribe("a,b").await;
    peer.chatter("row a 1");
    let start = Instant::now();
    peer.say("gone b");
    world.logged("unsubscribed b").await;
    assert_eq!(peer.heard().await, "sub b");
    assert!(Instant::now() - start >= SECOND * 10, "the venue had its reasons");
}

#[tokio::test(start_paused = true)]
async fn a_failing_discovery_is_repeated_at_the_start_and_keeps_the_old_channels_later() {
    let mut toy = Toy::discovering();
    toy.limits.refresh = Some(SECOND * 60);
    let mut world = World::start(toy);
    world.called().await.fail();
    let reason = world.told("discovery: http://venue/channels: connection refused; trying again in").await;
    assert!(reason.starts_with("degraded"), "{reason}");
    assert!(world.try_dial().is_none(), "nobody knows what to subscribe to");
    world.called().await.status(503, None, "");
    world.called().await.reply("a\nbad");
    world.told("discovery failed: what is this; trying again in").await;
    world.called().await.reply("a");
    let peer = world.subscribe("a").await;
    world.told("healthy 1 of 1").await;
    peer.chatter("row a 1");
    world.called().await.reply("b\nbad");
    world.told("discovery failed").await;
    assert!(!peer.is_gone(), "the old set is kept");
    world.called().await.reply("a");
    world.told("healthy 1 of 1").await;
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_discovery_before_the_first_connection_have_a_session_of_their_own() {
    let mut world = World::start(Toy::discovering());
    world.called().await.reply("a\nrow x 1");
    let log = world.logged("ended: discovery is done").await;
    assert_eq!(log, ["opened", "row x 1 live", "ended: discovery is done"]);
    let now = Instant::now();
    assert!(world.dial().await.at - now < SECOND / 10, "nothing else has to happen before the line is opened");
}

#[tokio::test(start_paused = true)]
async fn without_a_channel_nothing_is_dialled_and_health_says_so() {
    let mut toy = Toy::discovering();
    toy.limits.refresh = Some(SECOND * 60);
    let mut world = World::start(toy);
    world.called().await.reply("");
    world.told("degraded the venue has no channel that is wanted; asked again in 1m").await;
    assert!(world.try_dial().is_none());
    world.called().await.reply("a");
    world.subscribe("a").await;
}

#[tokio::test(start_paused = true)]
async fn what_needs_several_connections_is_refused_with_the_reason() {
    let mut toy = Toy::new(&["a", "b", "c"]);
    toy.limits.channels_per_connection = Some(2);
    let error = World::start(toy).ended().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.to_string().starts_with("3 channels are wanted and the venue allows 2 on a connection"), "{error}");

    let toy = Toy { groups_by_first_letter: true, ..Toy::new(&["a1", "b1"]) };
    let error = World::start(toy).ended().await.unwrap_err();
    assert!(error.to_string().contains("the feeds `a` and `b`"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn after_a_reconnect_every_wanted_channel_is_subscribed_again() {
    let mut world = World::start(Toy::new(&["a", "b"]));
    drop(world.subscribe("a,b").await);
    world.logged("ended: the venue hung up").await;
    let now = Instant::now();
    world.subscribe("a,b").await;
    assert!(Instant::now() - now <= SECOND * 2, "nothing else has to happen before the line is opened");
    world.told("healthy 2 of 2").await;
}

#[tokio::test(start_paused = true)]
async fn connections_of_a_source_start_no_closer_than_the_user_wants() {
    let mut world = World::with(Toy::new(&["a"]), |config| {
        config.start_every = config::Duration::from_secs(20);
        config.breaker.failures = std::num::NonZeroU32::new(100).unwrap();
    });
    let first = world.dial().await;
    let begun = first.at;
    first.refuse("connection refused");
    assert!(world.dial().await.at - begun >= SECOND * 20);
}

const ONE_AT_ONCE: Pool = Pool { name: "messages", per_second: 2.0, burst: 1 };
