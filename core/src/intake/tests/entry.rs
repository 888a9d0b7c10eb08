//! What one handover becomes.

use super::*;
use crate::{protocol::GapId, spool::LeftBy};

#[test]
fn a_handover_becomes_one_entry_with_its_decisions_in_front_of_what_they_are_about() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    feed.link.step(Step::Opened);
    feed.confirm(&["A"]);
    feed.trade("A", 5, Origin::Live);
    feed.trade("A", 8, Origin::Live);
    feed.trade("A", 8, Origin::Live);
    feed.link.step(Step::Ended { why: "cut".into() });
    assert!(host.take(&mut feed) > 0);
    let entries = host.entries();
    let expected = "Stream Confirmed GapOpened 5 GapOpened 8 Ended cut GapOpened";
    assert_eq!(entries.last().unwrap().join(" "), expected, "one entry for all of it");
    host.assert_recoverable();
}

#[test]
fn what_a_recording_says_happened_when_it_was_recorded() {
    let mut host = Host::new(SpoolLimits { max_bytes: 10_000, ..SpoolLimits::default() });
    let mut feed = Feed::new(0);
    feed.link.recorded(Timestamp(2 * S));
    feed.link.step(Step::Opened);
    feed.confirm(&["A"]);
    feed.trade("A", 5, Origin::Live);
    feed.trade("A", 8, Origin::Live);
    feed.link.recorded(Timestamp(9 * S));
    feed.link.step(Step::Ended { why: "cut".into() });
    host.take(&mut feed);
    assert_eq!(host.times(), ["Confirmed 2", "GapOpened 2", "GapOpened 8", "Ended 9", "GapOpened 9"]);

    feed.link.recorded(Timestamp(20 * S));
    feed.link.step(Step::Opened);
    (10..1_000).for_each(|n| feed.trade("A", n, Origin::Live));
    let handover = feed.handover();
    assert_eq!(host.accept(&handover), Accepted::Full);
    let gaps: Vec<GapId> = host.intake.continuity.open_gaps("venue").map(|ask| ask.gap.id).collect();
    host.intake.give_up(host.now, 0, &gaps[..1], "nobody wants it").unwrap();
    assert_eq!(host.times().last().unwrap(), "GapClosed 9", "what there was no room for has not happened");
}

#[test]
fn a_handover_that_brings_nothing_new_writes_nothing() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    feed.confirm(&["A"]);
    feed.trade("A", 5, Origin::Live);
    host.take(&mut feed);
    let before = host.items();
    feed.trade("A", 5, Origin::Live);
    assert_eq!(host.take(&mut feed), 0);
    assert_eq!(host.items(), before);
}

#[test]
fn what_there_was_no_room_for_has_not_happened_and_can_be_tried_again() {
    let mut host = Host::new(SpoolLimits { max_bytes: 2_000, ..SpoolLimits::default() });
    let mut feed = Feed::new(0);
    feed.confirm(&["A"]);
    host.take(&mut feed);
    (1..100).for_each(|n| feed.trade("A", n, Origin::Live));
    (0..3).for_each(|_| feed.ticker("B"));
    let handover = feed.handover();
    let before = host.intake.continuity.snapshot();
    for _ in 0..2 {
        assert_eq!(host.accept(&handover), Accepted::Full);
        assert_eq!(host.intake.continuity.snapshot(), before);
    }
    host.assert_recoverable();

    let place = Place::default();
    let accepted = host.intake.accept(host.now, &handover, place, Rows::Leave).unwrap();
    assert!(matches!(accepted, Accepted::Done(1..)), "events find room in the reserve: {accepted:?}");
    let items = host.items();
    assert_eq!(items[items.len() - 3..], ["Stream", "Ended the spool is full", "Dropped"], "{items:?}");
    assert_eq!(host.intake.continuity.open_gaps("venue").count(), 1, "what was left out is missing");
    host.assert_recoverable();
}

#[test]
fn rows_left_out_of_a_covered_stream_are_asked_for_although_none_comes_after_them() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    feed.confirm(&["A"]);
    feed.trade("A", 1, Origin::Live);
    feed.trade("A", 2, Origin::Live);
    host.take(&mut feed);
    assert_eq!(host.intake.continuity.open_gaps("venue").count(), 0);
    feed.trade("A", 3, Origin::Live);
    let handover = feed.handover();
    host.intake.accept(host.now, &handover, Place::default(), Rows::Leave).unwrap();
    handover.done(0);
    let ask = host.intake.continuity.open_gaps("venue").next().unwrap();
    assert_eq!(ask.gap.after.unwrap().position, Position::Sequence(2));
    feed.link.step(Step::Opened);
    feed.confirm(&["A"]);
    feed.trade("A", 4, Origin::Live);
    feed.trade("A", 3, Origin::Backfill);
    host.take(&mut feed);
    assert_eq!(host.items().iter().filter(|item| item.parse::<u64>().is_ok()).count(), 4);
    assert_eq!(host.intake.continuity.open_gaps("venue").count(), 0);
}

#[test]
fn a_large_handover_becomes_several_entries_and_each_row_is_there_once() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    feed.confirm(&["A"]);
    let rows = 80_000;
    (1..=rows).for_each(|n| feed.trade("A", n, Origin::Live));
    let handover = feed.handover();
    let mut place = Place::default();
    let mut parts = 0;
    loop {
        match host.intake.accept(host.now, &handover, place, Rows::Keep).unwrap() {
            Accepted::Part(next) => place = next,
            Accepted::Done(_) => break,
            refused @ (Accepted::Behind | Accepted::Full) => panic!("{refused:?}"),
        }
        parts += 1;
        host.assert_recoverable();
    }
    assert!(parts > 0, "it was too large for one entry");
    let numbers: Vec<u64> = host.items().iter().filter_map(|item| item.parse().ok()).collect();
    assert_eq!(numbers, (1..=rows).collect::<Vec<_>>());
}

#[test]
fn after_a_kill_everything_goes_on_where_the_log_ends() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    feed.link.step(Step::Opened);
    feed.confirm(&["A", "B"]);
    (10..=12).for_each(|n| feed.trade("A", n, Origin::Live));
    host.take(&mut feed);
    let mut host = host.kill();
    host.assert_recoverable();
    let asks: Vec<_> = host.intake.continuity.open_gaps("venue").collect();
    assert_eq!(asks.len(), 3, "two beginnings that no answer has shown, and one end: {asks:?}");

    let mut feed = Feed::new(0);
    feed.link.step(Step::Opened);
    feed.confirm(&["B", "A"]);
    host.take(&mut feed);
    let ask = host.intake.continuity.open_gaps("venue").find(|ask| ask.gap.after.is_some()).unwrap();
    (11..=14).for_each(|n| feed.trade("A", n, Origin::Backfill));
    feed.link.step(Step::Answered { gap: ask.gap.id, ask: ask.number });
    feed.trade("A", 15, Origin::Live);
    host.take(&mut feed);
    let rows: Vec<String> = host.items().into_iter().filter(|item| item.parse::<u64>().is_ok()).collect();
    assert_eq!(rows, ["10", "11", "12", "13", "14", "15"]);
    assert!(host.intake.continuity.next_session() >= 3, "sessions are not numbered twice");
    host.assert_recoverable();
}

#[test]
fn the_newest_record_before_what_is_owed_is_noted_and_no_row() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    let covered = Covered { key: StreamKey::new("trades", "A"), numbering: Numbering::Sequence };
    feed.link.step(Step::Confirmed { streams: vec![covered], at: Timestamp(20 * S) });
    host.take(&mut feed);
    let ask = host.intake.continuity.open_gaps("venue").next().unwrap();
    (15..=22).for_each(|n| feed.trade("A", n, Origin::Backfill));
    feed.link.step(Step::Answered { gap: ask.gap.id, ask: ask.number });
    host.take(&mut feed);
    let items = host.items();
    assert_eq!(items[items.len() - 5..], ["Baseline", "20", "21", "22", "GapClosed Backfilled"]);
}

#[test]
fn a_stale_answer_closes_nothing() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    feed.confirm(&["A"]);
    host.take(&mut feed);
    let ask = host.intake.continuity.open_gaps("venue").next().unwrap();
    feed.link.step(Step::Ended { why: "cut".into() });
    feed.link.step(Step::Opened);
    feed.confirm(&["A"]);
    feed.link.step(Step::Answered { gap: ask.gap.id, ask: ask.number });
    feed.link.step(Step::Answered { gap: GapId(99), ask: 0 });
    host.take(&mut feed);
    assert_eq!(host.intake.continuity.open_gaps("venue").count(), 1);
}

#[test]
fn a_step_of_the_wall_clock_is_entered_once_also_if_there_was_no_room_at_first() {
    let mut host = Host::new(SpoolLimits { max_bytes: 2_000, ..SpoolLimits::default() });
    let mut feed = Feed::new(0);
    feed.confirm(&["A"]);
    host.take(&mut feed);
    host.now = Now { wall: Timestamp(1_001 * S + 50_000_000), mono: Duration::from_secs(1) };
    feed.link.step(Step::Alive { at: Timestamp::default() });
    host.take(&mut feed);
    host.now = Now { wall: Timestamp(1_003 * S), mono: Duration::from_secs(2) };
    (1..100).for_each(|n| feed.trade("A", n, Origin::Live));
    let handover = feed.handover();
    assert_eq!(host.accept(&handover), Accepted::Full);
    host.intake.accept(host.now, &handover, Place::default(), Rows::Leave).unwrap();
    let steps = host.items().iter().filter(|item| *item == "ClockStep").count();
    assert_eq!(steps, 1, "50 ms are no step, a second is");
}

#[test]
fn a_frame_that_cannot_be_read_is_kept_up_to_a_limit() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    feed.link.step(Step::Malformed { raw: vec![b'x'; 1 << 20], error: "not json".into() });
    host.take(&mut feed);
    assert_eq!(host.items().last().unwrap(), "Malformed");
    assert!(host.intake.spool.bytes() < 100 << 10);
}

#[test]
fn a_link_that_gets_the_number_of_one_that_is_gone_has_streams_of_its_own() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    feed.confirm(&["A", "B"]);
    feed.trade("A", 1, Origin::Live);
    feed.trade("A", 2, Origin::Live);
    feed.trade("B", 1, Origin::Live);
    host.take(&mut feed);
    let gone = Handover::gone(LinkId { source: 0, line: 0 }, "the source panicked");
    assert!(matches!(host.accept(&gone), Accepted::Done(1..)));
    assert_eq!(host.intake.continuity.open_gaps("venue").count(), 2);

    let mut feed = Feed::new(0);
    feed.confirm(&["A", "B"]);
    feed.trade("B", 2, Origin::Live);
    feed.trade("A", 3, Origin::Live);
    host.take(&mut feed);
    assert_eq!(host.intake.continuity.open_gaps("venue").count(), 0, "both go on where they were");
    host.assert_recoverable();
}

/// Takes a handover in as many parts as it needs, and returns their number.
fn take_in_parts(host: &mut Host, handover: Handover) -> usize {
    let (mut place, mut parts) = (Place::default(), 1);
    loop {
        match host.intake.accept(host.now, &handover, place, Rows::Keep).unwrap() {
            Accepted::Part(next) => (place, parts) = (next, parts + 1),
            Accepted::Done(logged) => {
                handover.done(logged);
                host.assert_recoverable();
                return parts;
            }
            refused @ (Accepted::Behind | Accepted::Full) => panic!("{refused:?}"),
        }
    }
}

/// Hands over a trade whose row has more than so many bytes.
fn long_trade(feed: &mut Feed, n: u64, bytes: usize, origin: Origin) {
    let (ts_event, id) = (Timestamp(n as i64 * S), "x".repeat(bytes));
    let row = Trade { price: 1.0, size: 1.0, id: Some(&id), ..Trade::default() };
    feed.link.outbox().begin(ts_event, origin);
    feed.link.outbox().emit(Mark { symbol: "A", position: Position::Sequence(n), ts_event }, &row);
}

fn numbers(host: &mut Host) -> Vec<u64> {
    host.items().iter().filter_map(|item| item.parse().ok()).collect()
}

#[test]
fn a_thousand_frames_that_cannot_be_read_become_several_entries() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    for _ in 0..400 {
        feed.link.step(Step::Malformed { raw: vec![b'x'; 66 << 10], error: "y".repeat(1 << 20) });
    }
    let handover = feed.handover();
    assert!(take_in_parts(&mut host, handover) > 4);
    assert_eq!(host.items().iter().filter(|item| *item == "Malformed").count(), 400);
}

#[test]
fn rows_that_fit_into_no_common_entry_get_one_each() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    feed.confirm(&["A"]);
    (1..=4).for_each(|n| long_trade(&mut feed, n, 14 << 20, Origin::Live));
    let handover = feed.handover();
    let mut place = Place::default();
    while let Accepted::Part(next) = host.intake.accept(host.now, &handover, place, Rows::Keep).unwrap() {
        place = next;
        if let Some(job) = host.intake.spool.sync_job() {
            host.intake.spool.synced(job.run()).unwrap();
        }
    }
    assert_eq!(numbers(&mut host), [1, 2, 3, 4]);
}

#[test]
fn a_row_that_no_entry_can_hold_is_kept_in_part_and_never_called_absent() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    feed.link.step(Step::Opened);
    feed.confirm(&["A"]);
    feed.trade("A", 1, Origin::Live);
    feed.trade("A", 2, Origin::Live);
    long_trade(&mut feed, 3, 17 << 20, Origin::Live);
    feed.trade("A", 4, Origin::Live);
    let handover = feed.handover();
    take_in_parts(&mut host, handover);
    assert_eq!(numbers(&mut host), [1, 2, 4], "the rest goes on, in the same session");
    assert_eq!(host.items().iter().filter(|item| *item == "Malformed").count(), 1);

    // The venue's history has it too.
    for _ in 0..2 {
        let ask = host.intake.continuity.open_gaps("venue").next().unwrap();
        long_trade(&mut feed, 3, 17 << 20, Origin::Backfill);
        feed.link.step(Step::Answered { gap: ask.gap.id, ask: ask.number });
        let handover = feed.handover();
        take_in_parts(&mut host, handover);
        if host.intake.continuity.open_gaps("venue").next().is_none() {
            break;
        }
    }
    let last = host.items().pop().unwrap();
    assert!(last.contains("Lost") && last.contains("longer than the spool can hold"), "{last}");
}

#[test]
fn an_instrument_whose_name_has_megabytes_costs_itself_and_no_other() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    let long = "x".repeat(9 << 20);
    feed.confirm(&[&long, "A"]);
    feed.trade(&long, 1, Origin::Live);
    feed.trade("A", 1, Origin::Live);
    feed.trade(&long, 2, Origin::Live);
    feed.trade("A", 2, Origin::Live);
    let handover = feed.handover();
    take_in_parts(&mut host, handover);
    assert_eq!(numbers(&mut host), [1, 2]);
    let malformed = host.items().iter().filter(|item| *item == "Malformed").count();
    assert_eq!(malformed, 4, "the name where it is met first on each way, and two rows");
    assert!(host.intake.spool.bytes() < 1 << 20);
}

#[test]
fn as_many_streams_as_one_likes_are_confirmed_at_once_and_end_at_once() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    let names: Vec<String> = (0..20_000).map(|n| format!("{n}-{}", "x".repeat(900))).collect();
    let symbols: Vec<&str> = names.iter().map(String::as_str).collect();
    feed.link.step(Step::Opened);
    feed.confirm(&symbols);
    feed.link.step(Step::Ended { why: "cut".into() });
    let handover = feed.handover();
    assert!(take_in_parts(&mut host, handover) > 4);
    assert_eq!(host.intake.continuity.open_gaps("venue").count(), 20_000);
    let ended = host.items().iter().filter(|item| *item == "Ended cut").count();
    assert_eq!(ended, 1);
}

#[test]
fn a_link_whose_session_ended_for_want_of_room_is_told_and_gives_no_row_until_it_begins_another() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    feed.link.step(Step::Opened);
    feed.confirm(&["A"]);
    feed.trade("A", 1, Origin::Live);
    feed.trade("A", 2, Origin::Live);
    host.take(&mut feed);
    feed.trade("A", 3, Origin::Live);
    let mut handover = feed.handover();
    let accepted = host.intake.accept(host.now, &handover, Place::default(), Rows::Leave).unwrap();
    assert!(matches!(accepted, Accepted::Done(1..)));
    assert!(host.intake.has_refused());
    assert_eq!(host.intake.left_out(), 1);
    handover.is_refused = true;
    handover.done(0);

    // There is room again, but this is still of the session that has ended.
    feed.trade("A", 4, Origin::Live);
    let ask = host.intake.continuity.open_gaps("venue").next().unwrap();
    feed.link.step(Step::Answered { gap: ask.gap.id, ask: ask.number });
    let handover = feed.handover();
    assert!(matches!(host.accept(&handover), Accepted::Done(1..)));
    assert!(!host.intake.has_refused(), "it is told once");
    assert_eq!((numbers(&mut host), host.intake.continuity.open_gaps("venue").count()), (vec![1, 2], 1));
    handover.done(0);
    feed.trade("A", 5, Origin::Live);
    let error = feed.link.hand_over().unwrap_err();
    assert!(error.to_string().contains("the spool is full"), "{error}");
    let handover = feed.queue.try_recv().expect("what waited is handed over all the same");
    assert!(matches!(host.accept(&handover), Accepted::Done(1..)));
    handover.done(0);
    assert_eq!(host.intake.left_out(), 1, "and counted");

    feed.link.step(Step::Opened);
    feed.confirm(&["A"]);
    feed.trade("A", 6, Origin::Live);
    host.take(&mut feed);
    assert_eq!(numbers(&mut host), [1, 2, 6]);
    host.assert_recoverable();
}

#[test]
fn what_cannot_be_read_counts_with_all_that_it_takes_in_memory() {
    let (sender, _queue) = mpsc::channel(8);
    let mut link = Link::new(LinkId { source: 0, line: 0 }, tables(), sender, 100_000);
    let mut collected = 0;
    loop {
        link.step(Step::Malformed { raw: vec![b'x'], error: "not json".into() });
        collected += 1;
        if link.hand_over().is_err() {
            break;
        }
        assert!(collected < 10_000, "one byte each, and no end");
    }
    assert!(link.is_pending(), "that the session has ended is all that is left");
    link.hand_over().unwrap();
}

#[test]
fn an_entry_that_says_what_streams_are_costs_their_rows_and_those_of_no_other_stream() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    feed.link.step(Step::Opened);
    feed.confirm(&["A", "B"]);
    host.take(&mut feed);
    for n in 1..=5 {
        feed.trade("A", n, Origin::Live);
        feed.trade("B", n, Origin::Live);
    }
    host.take(&mut feed);
    // A number that is said after the loss stands for itself.
    feed.confirm(&["C"]);
    feed.trade("C", 1, Origin::Live);
    host.take(&mut feed);
    host.items();
    feed.trade("C", 2, Origin::Live);
    host.take(&mut feed);
    host.items();
    let name = host.disk.names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    let bytes = host.disk.bytes(&name);
    let at = bytes.windows(12).position(|window| window == b"venue\x06trades").expect("where A is said");
    host.disk.flip(&name, at, 1);

    let mut host = host.kill();
    let reader = host.intake.spool.reader();
    assert!(reader.stream(0).is_none() && reader.stream(1).is_none(), "nothing says what they are");
    assert_eq!(&*reader.stream(2).unwrap().key.symbol, "C");
    let mut feed = Feed::new(0);
    feed.link.step(Step::Opened);
    feed.confirm(&["B", "A", "D"]);
    feed.trade("A", 6, Origin::Live);
    feed.trade("B", 6, Origin::Live);
    host.take(&mut feed);
    let reader = host.intake.spool.reader();
    let symbol = |id: u32| reader.stream(id).map(|stream| stream.key.symbol.to_string());
    let symbols: Vec<_> = (0..6).map(symbol).collect();
    let said = |symbol: &str| Some(symbol.to_owned());
    assert_eq!(symbols, [None, None, said("C"), said("A"), said("B"), said("D")], "no number is given twice");
    host.assert_recoverable();
    let mut host = host.kill();
    host.assert_recoverable();
    host.items();
    assert!(host.intake.spool.lost() > 3, "the entry itself is said to be lost");
}

#[test]
fn a_stream_that_was_left_is_forgotten_once_the_spool_has_no_row_of_it_and_comes_back_as_another() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    feed.link.step(Step::Opened);
    feed.ticker("A");
    feed.ticker("B");
    host.take(&mut feed);
    let key = StreamKey::new("tickers", "A");
    feed.link.step(Step::Left { streams: vec![key], by: LeftBy::Choice });
    host.take(&mut feed);
    let retire = |host: &mut Host, floor: u64| host.intake.retire(host.now, floor).unwrap();
    let end = host.intake.spool.next_offset() - 1;
    assert_eq!(retire(&mut host, end - 1), Accepted::Done(0), "the spool may have a row of it");
    assert_eq!(retire(&mut host, end), Accepted::Done(0), "it may be confirmed anew any moment");
    host.now.mono += Duration::from_secs(60);
    host.now.wall.0 += 60 * S;
    assert!(matches!(retire(&mut host, end), Accepted::Done(1..)));
    assert_eq!(host.items().last().unwrap(), "Retired");
    let reader = host.intake.spool.reader();
    assert!(reader.stream(0).is_none() && reader.stream(1).is_some());
    host.assert_recoverable();

    // The link still has its own number for it.
    feed.ticker("A");
    feed.ticker("A");
    feed.ticker("B");
    host.take(&mut feed);
    assert_eq!(&*host.intake.spool.reader().stream(2).unwrap().key.symbol, "A");
    assert_eq!(host.items().iter().filter(|item| *item == "Stream").count(), 3);
    let mut host = host.kill();
    host.assert_recoverable();
    assert_eq!(host.items().iter().filter(|item| *item == "Malformed").count(), 0);
}

#[test]
fn a_link_that_begins_its_numbers_again_keeps_streams_apart_and_takes_memory_for_one_session() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    for session in 0..50 {
        feed.link.step(Step::Opened);
        // One that is there always, at another place each time, and two that never come again.
        for symbol in [format!("old{session}"), "A".to_owned(), format!("older{session}")] {
            feed.ticker(&symbol);
        }
        feed.ticker(if session % 2 == 0 { "A" } else { "B" });
        host.take(&mut feed);
        feed.link.forget_streams();
    }
    assert!(host.intake.streams_of_links() <= 4, "{}", host.intake.streams_of_links());
    let reader = host.intake.spool.reader();
    let of = |symbol: &str| host.intake.continuity.stream_id("venue", &StreamKey::new("tickers", symbol)).unwrap();
    let (a, b) = (of("A"), of("B"));
    host.intake.spool.sync_job().map(|job| host.intake.spool.synced(job.run())).unwrap().unwrap();
    let mut cursor = reader.cursor(SpoolPosition::START);
    let mut rows = std::collections::BTreeMap::<u32, u32>::new();
    while let Some(step) = cursor.next(u64::MAX).unwrap() {
        let spool::Step::Entry(entry) = step else { continue };
        let streams = entry.items().filter_map(|(_, item)| if let Item::Row(row, _) = item { Some(row) } else { None });
        streams.for_each(|row| *rows.entry(row.head.stream).or_default() += 1);
    }
    assert_eq!((rows[&a], rows[&b], rows.len()), (75, 25, 102), "each row is of the stream that it was given for");
    host.assert_recoverable();
}

#[test]
fn an_absence_begins_where_a_session_last_vouched_however_many_starts_came_to_nothing_and_clocks_were_set() {
    for year in [0, 31_536_000 * S, -31_536_000 * S] {
        let mut host = Host::new(SpoolLimits::default());
        let mut feed = Feed::new(0);
        let tickers = Covered { key: StreamKey::new("tickers", "A"), numbering: Numbering::Unnumbered };
        // The venue's clock is 400 s behind ours.
        let confirmed = |at: i64| Step::Confirmed { streams: vec![tickers.clone()], at: Timestamp(at * S) };
        feed.link.step(Step::Opened);
        feed.link.step(confirmed(600));
        feed.link.step(Step::Alive { at: Timestamp(1_005 * S) });
        host.take(&mut feed);
        assert!(!host.intake.continuity.is_absent("venue"));
        // Killed, and started and killed before anything was confirmed.
        let mut host = host.kill().kill().kill();
        assert!(host.intake.continuity.is_absent("venue"));
        let absence = host.intake.continuity.absence_until("venue", Timestamp(665 * S)).unwrap();
        assert_eq!(absence.length, Some(Duration::from_secs(60)));
        assert_eq!(absence.unrepeatable, ["tickers".into()]);

        // Whatever our clock was set to meanwhile.
        host.now.wall = Timestamp(1_065 * S + year);
        let mut feed = Feed::new(0);
        feed.link.step(Step::Opened);
        feed.link.step(confirmed(665));
        host.take(&mut feed);
        assert_eq!(host.intake.counts.absences, [absence]);
        assert!(!host.intake.continuity.is_absent("venue"));
        host.assert_recoverable();
    }
}

#[test]
fn a_clock_that_is_set_makes_no_absence_longer() {
    let mut host = Host::new(SpoolLimits::default());
    let mut feed = Feed::new(0);
    let key = StreamKey::new("tickers", "A");
    let confirmed = |at: i64| {
        let streams = vec![Covered { key: key.clone(), numbering: Numbering::Unnumbered }];
        Step::Confirmed { streams, at: Timestamp(at * S) }
    };
    feed.link.step(Step::Opened);
    feed.link.step(confirmed(600));
    host.take(&mut feed);
    feed.link.step(Step::Ended { why: "cut".into() });
    host.take(&mut feed);
    // A year is set, and ten seconds pass.
    let year = 31_536_000 * S;
    host.now = Now { wall: Timestamp(host.now.wall.0 + year + 10 * S), mono: Duration::from_secs(10) };
    feed.link.step(confirmed(610));
    host.take(&mut feed);
    assert_eq!(host.intake.counts.absences[0].length, Some(Duration::from_secs(10)));
    feed.link.step(Step::Ended { why: "cut".into() });
    feed.link.step(confirmed(605));
    host.take(&mut feed);
    assert_eq!(host.intake.counts.absences[0].length, None, "the venue's clock went back: nobody knows");
    host.assert_recoverable();
}

#[test]
fn an_open_gap_outlives_the_segments_in_which_it_was_found() {
    let limits = SpoolLimits { segment_bytes: 4 << 10, max_bytes: 1 << 20, keep: Duration::ZERO };
    let mut host = Host::new(limits);
    let mut feed = Feed::new(0);
    feed.confirm(&["A"]);
    [1, 2, 9].into_iter().for_each(|n| feed.trade("A", n, Origin::Live));
    feed.trade("A", 4, Origin::Backfill);
    let found = host.take(&mut feed);
    for n in 10..500 {
        feed.trade("A", n, Origin::Live);
        host.take(&mut feed);
        if host.intake.spool.wants_roll() {
            host.intake.spool.roll(host.intake.continuity.snapshot()).unwrap();
        }
        host.entries();
    }
    // Every sink has all of it.
    let offset = host.intake.spool.next_offset() - 1;
    host.intake.spool.retain(spool::Floor { offset, now: Duration::ZERO }).unwrap().run().unwrap();
    assert!(host.intake.spool.reader().oldest().offset > found, "nothing before the gap's end is left");

    let mut host = host.kill();
    let mut feed = Feed::new(0);
    let gaps: Vec<_> = host.intake.continuity.open_gaps("venue").filter(|ask| ask.gap.before.is_some()).collect();
    let edge = |edge: Option<crate::protocol::Edge>| edge.unwrap().position;
    assert_eq!(
        gaps.iter().map(|ask| (edge(ask.gap.after), edge(ask.gap.before))).collect::<Vec<_>>(),
        [(Position::Sequence(2), Position::Sequence(9))]
    );
    (1..=10).for_each(|n| feed.trade("A", n, Origin::Backfill));
    host.take(&mut feed);
    assert!(numbers(&mut host).ends_with(&[499, 3, 5, 6, 7, 8]), "{:?}", numbers(&mut host));
    assert_eq!(host.items().last().unwrap(), "GapClosed Backfilled");
}
