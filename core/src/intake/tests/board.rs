//! What a source's driver is shown of the open gaps, and when.

use tokio::time::Instant;

use super::*;
use crate::intake::asks::{Board, Look};

const LAG: Duration = Duration::from_secs(2);

fn board_of(host: &Host) -> Board {
    board_at(host, Instant::now())
}

fn board_at(host: &Host, now: Instant) -> Board {
    let mut board = Board::new("venue".into(), vec!["trades".into(), "book_changes".into()], LAG);
    refresh(&mut board, host, now);
    board
}

/// Brings a board up to date, as the task does once a second.
fn refresh(board: &mut Board, host: &Host, now: Instant) -> Look {
    board.gone(&host.intake.continuity, now);
    board.publish(&host.intake.continuity, now)
}

#[test]
fn an_open_end_is_shown_while_somebody_listens_and_with_a_new_number_each_time() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    feed.confirm(&["A"]);
    host.take(&mut feed);
    let mut board = board_of(&host);
    let asks = board.subscribe();
    let start = Instant::now();
    refresh(&mut board, &host, start);
    let first = asks.borrow()[0].clone();
    assert!(
        first.not_before.is_some_and(|at| at > start + LAG - Duration::from_secs(1)),
        "not before the history has it"
    );

    feed.link.step(Step::Ended { why: "cut".into() });
    host.take(&mut feed);
    let look = refresh(&mut board, &host, start + Duration::from_secs(1));
    assert_eq!((asks.borrow().len(), look.open), (0, 1), "it is open, but nobody listens");

    feed.confirm(&["A"]);
    host.take(&mut feed);
    refresh(&mut board, &host, start + Duration::from_secs(5));
    let second = asks.borrow()[0].clone();
    assert_ne!(second.number, first.number);
    assert_eq!(second.not_before, Some(start + Duration::from_secs(5) + LAG));
}

#[test]
fn what_the_venue_forgets_first_stands_in_front_whenever_it_was_found() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    feed.confirm(&["A", "B", "C"]);
    host.take(&mut feed);
    // Holes that begin at 70, 30 and 50 s, found in this order.
    for (symbol, n) in [("A", 70), ("B", 30), ("C", 50)] {
        feed.trade(symbol, n, Origin::Live);
        feed.trade(symbol, n + 5, Origin::Live);
    }
    host.take(&mut feed);
    let board = board_of(&host);
    let asks = board.subscribe().borrow().clone();
    let holes: Vec<_> =
        asks.iter().filter_map(|ask| Some((ask.gap.after?.position.number()?, &*ask.gap.stream.symbol))).collect();
    assert_eq!(holes, [(30, "B"), (50, "C"), (70, "A")]);
    assert!(asks.is_sorted_by_key(|ask| (ask.gap.since, ask.gap.id)));
}

#[test]
fn a_gap_of_a_table_that_the_source_has_no_more_rows_of_is_not_asked_for() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    feed.confirm(&["A"]);
    host.take(&mut feed);
    let mut board = Board::new("venue".into(), vec!["tickers".into()], LAG);
    let asks = board.subscribe();
    let look = refresh(&mut board, &host, Instant::now());
    assert_eq!((asks.borrow().len(), look.open), (0, 0), "nobody could take an answer");
    let mut board = board_of(&host);
    let asks = board.subscribe();
    refresh(&mut board, &host, Instant::now());
    assert_eq!(asks.borrow().len(), 1, "it is still open for when its channel is collected again");
}

#[test]
fn a_stream_that_went_while_nobody_listened_is_left_once_sessions_have_been_up_for_a_while() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    feed.confirm(&["A", "B"]);
    host.take(&mut feed);
    let mut host = host.kill();
    let mut feed = Feed::new(0);
    feed.link.step(Step::Opened);
    feed.confirm(&["B"]);
    host.take(&mut feed);
    let start = Instant::now();
    let mut board = board_at(&host, start);
    assert!(board.gone(&host.intake.continuity, start + Duration::from_secs(59)).is_empty(), "it may come back");
    let gone = board.gone(&host.intake.continuity, start + Duration::from_secs(119));
    assert_eq!(gone.len(), 1);
    assert_eq!(&*host.intake.continuity.key(gone[0]).unwrap().symbol, "A");
    host.intake.gone(host.now, 0, gone).unwrap();
    assert!(board.gone(&host.intake.continuity, start + Duration::from_secs(200)).is_empty(), "that is in the log");
    assert!(host.entries().last().unwrap().join(" ").starts_with("Left"), "{:?}", host.entries().last());
    host.assert_recoverable();
}

#[test]
fn a_stream_that_no_session_covers_any_more_is_asked_for_once_the_session_has_settled() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    feed.confirm(&["A", "B"]);
    feed.link.step(Step::Ended { why: "cut".into() });
    feed.link.step(Step::Opened);
    feed.confirm(&["B"]);
    host.take(&mut feed);
    let start = Instant::now();
    let mut board = board_at(&host, start);
    let asks = board.subscribe();
    refresh(&mut board, &host, start + Duration::from_secs(59));
    assert_eq!(asks.borrow().len(), 1, "A may still be subscribed to");
    refresh(&mut board, &host, start + Duration::from_secs(60));
    assert_eq!(asks.borrow().len(), 2, "A has expired");
}

#[test]
fn a_stream_that_nobody_subscribes_to_again_is_asked_for_although_no_session_lasts() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    feed.confirm(&["A", "B"]);
    host.take(&mut feed);
    let start = Instant::now();
    let mut board = board_at(&host, start);
    let asks = board.subscribe();
    let asked_for_a = || asks.borrow().iter().any(|ask| &*ask.gap.stream.symbol == "A");
    // Down for an hour, then up for 20 s and down for 1 s, again and again.
    let mut at = start;
    for session in 0..4 {
        feed.link.step(Step::Ended { why: "cut".into() });
        host.take(&mut feed);
        refresh(&mut board, &host, at);
        assert!(!asked_for_a(), "while nobody listens nobody can say that it has gone");
        at += Duration::from_secs(if session == 0 { 3_600 } else { 1 });
        refresh(&mut board, &host, at);
        feed.link.step(Step::Opened);
        feed.confirm(&["B"]);
        host.take(&mut feed);
        refresh(&mut board, &host, at);
        assert_eq!(asked_for_a(), session == 3, "session {session}");
        at += Duration::from_secs(20);
        refresh(&mut board, &host, at);
        assert_eq!(asked_for_a(), session >= 2, "session {session}");
    }
}

#[test]
fn a_broken_book_is_shown_at_once_and_one_that_is_gone_is_given_up() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    let linked = |feed: &mut Feed, id: u64, prev| {
        let mark = Mark { symbol: "A", position: Position::Linked { id, prev }, ts_event: Timestamp(S) };
        feed.link.outbox().begin(Timestamp(S), Origin::Live);
        feed.link.outbox().emit(mark, &Trade::default());
    };
    linked(&mut feed, 1, None);
    linked(&mut feed, 3, Some(2));
    host.take(&mut feed);
    let start = Instant::now();
    let mut board = board_at(&host, start);
    let asks = board.subscribe();
    assert!(asks.borrow()[0].not_before.is_some_and(|at| at <= start));

    feed.link.step(Step::Ended { why: "cut".into() });
    feed.link.step(Step::Opened);
    feed.confirm(&["other"]);
    host.take(&mut feed);
    assert!(refresh(&mut board, &host, start).abandoned.is_empty());
    let look = refresh(&mut board, &host, start + Duration::from_secs(60));
    assert_eq!(look.abandoned.len(), 1);
    host.intake.give_up(host.now, 0, &look.abandoned, "gone").unwrap();
    assert_eq!(host.items().last().unwrap(), "GapClosed Lost(\"gone\")");
}

#[test]
fn replies_that_bring_nothing_are_counted_until_one_brings_something() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    feed.confirm(&["A"]);
    feed.trade("A", 1, Origin::Live);
    feed.trade("A", 2, Origin::Live);
    feed.trade("A", 9, Origin::Live);
    host.take(&mut feed);
    let mut board = board_of(&host);
    let asks = board.subscribe();
    let gap = asks.borrow()[0].gap.id;
    let mut reply = |filled| {
        board.replied(gap, filled);
        refresh(&mut board, &host, Instant::now());
        asks.borrow()[0].gap.dry_replies
    };
    assert_eq!([reply(0), reply(0), reply(3), reply(3)], [1, 2, 0, 1]);
}
