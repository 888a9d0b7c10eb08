//! A message counts once its topic's id was asked for after it had arrived, of the broker that gave it.

use std::{ops::ControlFlow, sync::Arc};

use tidegate_core::{
    delivery::{Log, Seen},
    spool::{Boot, SpoolPosition},
};

use super::{
    super::{
        decode::Incoming,
        window::{Order, PartitionLog, ROWS, Window},
    },
    world::{Broker, trades},
};

const OURS: Boot = Boot(7);
const ANOTHER: Boot = Boot(8);

#[test]
fn an_answer_says_nothing_of_what_arrived_after_the_question() {
    let (window, mut log) = window();
    push(&window, 1, 0);
    let question = window.unconfirmed().unwrap();
    push(&window, 1, 1);
    assert_eq!(readable(&window, &mut log), 0, "nothing before the answer");
    window.confirm(question, OURS);
    assert_eq!(readable(&window, &mut log), 1, "the second one is not confirmed by it");
    // It was of the new topic, as the next question shows.
    window.confirm(window.unconfirmed().unwrap(), ANOTHER);
    assert_eq!(readable(&window, &mut log), 1);
    assert!(window.trouble_now().is_some_and(|why| why.contains("deleted and made again")));
    assert_eq!((window.unconfirmed(), window.order()), (None, Order::Wait), "and nothing more is read");
}

#[test]
fn an_answer_says_nothing_of_what_was_read_again_since_the_question() {
    let (window, mut log) = window();
    push(&window, 1, 0);
    let question = window.unconfirmed().unwrap();
    log.seek(SpoolPosition { boot: OURS, offset: 5 * ROWS }).unwrap();
    log.seek(SpoolPosition { boot: OURS, offset: 0 }).unwrap();
    window.begun(0, 0);
    push(&window, 1, 0);
    window.confirm(question, OURS);
    assert_eq!(readable(&window, &mut log), 0);
    window.confirm(question, ANOTHER);
    assert_eq!(window.trouble_now(), None, "nor is it told from another by it");
    window.confirm(window.unconfirmed().unwrap(), OURS);
    assert_eq!(readable(&window, &mut log), 1);
}

#[test]
fn what_nobody_can_vouch_for_is_read_again_behind_what_counts() {
    let (window, mut log) = window();
    push(&window, 1, 0);
    window.confirm(window.unconfirmed().unwrap(), OURS);
    push(&window, 1, 1);
    window.doubt(window.unconfirmed().unwrap(), "broker 1 does not answer".to_owned());
    assert_eq!(window.trouble_now().as_deref(), Some("broker 1 does not answer"));
    assert_eq!((window.order(), readable(&window, &mut log)), (Order::Begin(1), 1));
    window.begun(1, 0);
    push(&window, 2, 1);
    window.confirm(window.unconfirmed().unwrap(), OURS);
    assert_eq!((readable(&window, &mut log), window.trouble_now()), (2, None));
}

#[test]
fn what_is_damaged_stops_who_comes_to_it_and_nobody_who_goes_behind_it() {
    let (window, mut log) = window();
    push(&window, 1, 0);
    window.damaged("its checksum is wrong");
    push(&window, 1, 2);
    assert_eq!(window.order(), Order::Wait, "nothing is read behind it");
    // As the position says that it is behind the damage.
    log.seek(SpoolPosition { boot: OURS, offset: 2 * ROWS }).unwrap();
    assert_eq!(window.order(), Order::Begin(2));
    window.begun(2, 0);
    push(&window, 1, 2);
    window.confirm(window.unconfirmed().unwrap(), OURS);
    assert_eq!((window.readable().borrow().offset, window.order()), (3 * ROWS, Order::Read));
}

#[test]
fn what_a_leader_lacks_is_not_passed_over_and_what_was_compacted_is() {
    let (window, mut log) = window();
    push(&window, 1, 0);
    push(&window, 1, 1);
    window.confirm(window.unconfirmed().unwrap(), OURS);
    log.seek(SpoolPosition { boot: OURS, offset: 5 * ROWS }).unwrap();
    log.seek(SpoolPosition { boot: OURS, offset: 0 }).unwrap();
    window.begun(0, 0);
    assert!(window.has_had_more());
    // A new leader that has one message, or does not answer.
    for high in [Some(1), None] {
        assert!(!window.at_end(high));
        assert_eq!(window.order(), Order::Begin(0), "and it is asked once more");
        window.begun(0, 0);
        assert!(window.trouble_now().is_some_and(|why| why.contains("its leader lacks messages")), "{high:?}");
        assert_eq!((window.unconfirmed(), window.end_if_all()), (None, None), "nothing is passed over");
    }
    assert!(window.at_end(Some(2)));
    assert_eq!(window.end_if_all().map(|end| end.offset), Some(2 * ROWS));
    assert!(
        window.unconfirmed().is_some(),
        "what the broker has no more, though it ends there, is passed over and counted"
    );
}

#[test]
fn what_retention_has_deleted_is_gone_by_and_what_the_brokers_have_lost_stops_who_would_read_behind_it() {
    // The client finds no offset 2: the partition begins behind it, ends behind it, or ends before it.
    for (low, high, is_cut) in [(5, 9, false), (0, 9, false), (0, 1, true)] {
        let (window, mut log) = window();
        push(&window, 1, 0);
        push(&window, 1, 1);
        window.confirm(window.unconfirmed().unwrap(), OURS);
        assert_eq!(readable(&window, &mut log), 2);
        window.is_gone(low, high);
        if !is_cut {
            assert_eq!(window.order(), Order::Begin(2), "and it is told from where there is something");
            continue;
        }
        assert_eq!(window.order(), Order::Wait, "nothing behind it is read");
        window.confirm(window.unconfirmed().unwrap(), OURS);
        log.seek(SpoolPosition { boot: OURS, offset: 2 * ROWS }).unwrap();
        let error = log.read(9 * ROWS, &mut |_| ControlFlow::Continue(())).unwrap_err();
        assert!(error.to_string().contains("its brokers have lost its newest messages"), "{error}");
    }
}

#[test]
fn a_partition_that_ends_before_where_it_is_begun_stops_whoever_still_wants_to_go_there() {
    let (window, mut log) = window();
    log.seek(SpoolPosition { boot: OURS, offset: 7 * ROWS }).unwrap();
    assert_eq!(window.order(), Order::Begin(7));
    window.has_ended_before(5, 3);
    assert_eq!(window.order(), Order::Begin(7), "that was said of another place");
    window.has_ended_before(7, 3);
    assert_eq!(window.order(), Order::Wait);
    window.confirm(window.unconfirmed().unwrap(), OURS);
    let error = log.read(9 * ROWS, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().contains("(it ends at 3 now)"), "{error}");
}

#[test]
fn each_end_that_a_reader_comes_to_is_another_one() {
    let (window, _log) = window();
    assert_eq!(window.end_if_all(), None);
    assert!(window.at_end(Some(0)));
    let first = window.end_if_all();
    assert_eq!(window.end_if_all(), first);
    // The end of a transaction that was aborted has come: no message, and another end.
    assert!(window.at_end(Some(1)));
    assert_ne!(window.end_if_all(), first);
}

#[test]
fn each_broker_answers_for_what_it_gave() {
    let (window, mut log) = window();
    for (broker, offset) in [(1, 0), (1, 1), (2, 2), (1, 3)] {
        push(&window, broker, offset);
    }
    for (broker, upto) in [(1, 2), (2, 3), (1, 4)] {
        let question = window.unconfirmed().unwrap();
        assert_eq!(question.broker, broker);
        window.confirm(question, OURS);
        assert_eq!(readable(&window, &mut log), upto);
    }
    assert_eq!(window.unconfirmed(), None);
}

fn window() -> (Arc<Window>, PartitionLog) {
    let (window, mut log) = Broker::new().window();
    assert_eq!(window.order(), Order::Wait, "nobody knows where the store is");
    log.begin(SpoolPosition { boot: OURS, offset: 0 });
    assert_eq!(window.order(), Order::Begin(0));
    window.begun(0, 0);
    (window, log)
}

fn push(window: &Window, broker: i32, offset: i64) {
    let (value, header) = trades([offset.unsigned_abs() + 1]).remove(0);
    let (schema, place) = (Some(header.as_bytes()), ("t", 0, offset));
    window.push(broker, Incoming { place, key: None, value: Some(&value), schema, time: Some(5) });
}

/// Returns how many messages a delivery gets to see from the beginning on.
fn readable(window: &Window, log: &mut PartitionLog) -> usize {
    let readable = *window.readable().borrow();
    let mut rows = 0;
    log.seek(SpoolPosition { boot: OURS, offset: 0 }).unwrap();
    // It asks for all there is, whatever it was told of.
    log.read(if readable.offset == 0 { 0 } else { 9 * ROWS }, &mut |seen| {
        rows += usize::from(matches!(seen, Seen::Item { .. }));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(readable.offset, rows as u64 * ROWS, "what it is told of is what it sees");
    rows
}
