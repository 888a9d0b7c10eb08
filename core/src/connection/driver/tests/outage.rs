//! A history that is away for an hour: under paused time, with everything around the driver scripted.

use tokio::time::Instant;

use super::{history::ask, *};

#[tokio::test(start_paused = true)]
async fn an_api_that_is_down_for_an_hour_is_asked_a_few_times_a_minute_and_fills_every_gap_when_it_is_back() {
    const GAPS: u64 = 50;
    let mut world = World::start(Toy::new(&["a"]));
    let peer = world.subscribe("a").await;
    peer.chatter("row a 1");
    world.show((1..=GAPS).map(|gap| ask(gap, 1)).collect());
    let began = Instant::now();
    let mut calls = 0;
    let answer = loop {
        let called = world.called().await;
        if began.elapsed() >= HOUR {
            break called;
        }
        calls += 1;
        called.fail();
    };
    assert!((30..300).contains(&calls), "{calls} calls in an hour");
    assert!(!peer.is_gone(), "the feed goes on");
    let reason = world.reason();
    assert!(reason.contains("; 50 gaps wait"), "{reason}");
    let closed = world.log.lock().unwrap().iter().filter(|line| line.starts_with("answered")).count();
    assert_eq!(closed, 0, "nothing is given up");

    answer.reply("all");
    for gap in 1..=GAPS {
        world.seen(&format!("answered {gap} ask 1")).await;
    }
    world.show(Vec::new());
    assert!(world.told("healthy").await.starts_with("healthy"), "{}", world.reason());
}

const HOUR: Duration = Duration::from_secs(3_600);
