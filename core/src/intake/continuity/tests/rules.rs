//! One test for each rule.

use super::host::Host;
use crate::{
    intake::continuity::{Drop, MAX_HOLES},
    row::{Numbering, Position},
    spool::{Control, GapOutcome},
};

const S: i64 = 1_000_000_000;

fn seq(n: u64) -> Position {
    Position::Sequence(n)
}

/// A host whose only dense stream was confirmed in session 1 at second 100, with its baseline answered: 10 is the last.
fn with_baseline() -> (Host, u32) {
    let mut host = Host::new();
    let stream = host.stream("A");
    host.confirm(1, 0, &[(stream, Numbering::Sequence)], 100 * S);
    let ask = host.only();
    host.history(1, &[(stream, seq(10), 90 * S, 10)]);
    host.answered(ask.gap.id, ask.number);
    assert!(host.asks().is_empty(), "the baseline is known");
    host.dropped.clear();
    (host, stream)
}

fn live(host: &mut Host, session: u32, stream: u32, n: u64) -> bool {
    host.live(session, stream, seq(n), (100 + n as i64) * S, n as u32)
}

fn history(host: &mut Host, session: u32, stream: u32, numbers: &[u64]) -> usize {
    let rows: Vec<_> = numbers.iter().map(|&n| (stream, seq(n), (100 + n as i64) * S, n as u32)).collect();
    host.history(session, &rows)
}

#[test]
fn the_first_confirmation_asks_for_the_baseline_and_keeps_only_what_is_owed() {
    let mut host = Host::new();
    let stream = host.stream("A");
    host.confirm(1, 0, &[(stream, Numbering::Sequence)], 100 * S);
    assert_eq!(host.hull(), (None, None));

    let ask = host.only();
    let rows = [7, 8, 9, 10, 11].map(|n: u64| (stream, seq(n), (90 + n as i64) * S, n as u32));
    host.history(1, &rows);
    assert_eq!(host.stored(stream), [10, 11], "9 is the neighbour of what is owed, and no row");
    assert_eq!(host.hull(), (Some(11), None));
    host.answered(ask.gap.id, ask.number);
    assert_eq!(host.outcomes(), [GapOutcome::Backfilled]);
    assert!(live(&mut host, 1, stream, 12));
    assert!(host.asks().is_empty(), "12 follows on 11");
}

#[test]
fn a_baseline_that_was_not_answered_before_the_cut_stays_owed_by_time() {
    let mut host = Host::new();
    let stream = host.stream("A");
    host.confirm(1, 0, &[(stream, Numbering::Sequence)], 100 * S);
    host.end(1);
    host.confirm(2, 0, &[(stream, Numbering::Sequence)], 200 * S);
    live(&mut host, 2, stream, 150);
    live(&mut host, 2, stream, 151);
    let ask = host.only();
    assert_eq!((host.hull(), ask.gap.since.0), ((None, Some(150)), 100 * S), "a later session proves nothing");
    history(&mut host, 2, stream, &[149]);
    host.answered(ask.gap.id, ask.number);
    assert_eq!(host.stored(stream), [150, 151, 149]);
    assert!(host.asks().is_empty());
}

#[test]
fn rows_from_the_history_that_overtake_live_ones_survive_a_cut_before_those_come() {
    let mut host = Host::new();
    let stream = host.stream("A");
    host.confirm(1, 0, &[(stream, Numbering::Sequence)], 100 * S);
    let ask = host.only();
    history(&mut host, 1, stream, &[3, 4, 5]);
    host.answered(ask.gap.id, ask.number);
    host.end(1);
    assert_eq!(host.stored(stream), [3, 4, 5]);
    assert_eq!(host.hull(), (Some(5), None));
}

#[test]
fn where_numbers_jump_live_records_of_the_first_session_prove_the_beginning_once_a_second_one_has_come() {
    let mut host = Host::new();
    let stream = host.stream("A");
    let ordered = |host: &mut Host, n: u64| host.live(1, stream, Position::Ordered(n), (100 + n as i64) * S, n as u32);
    host.confirm(1, 0, &[(stream, Numbering::Ordered)], 100 * S);
    ordered(&mut host, 8);
    assert_eq!(host.hull(), (None, Some(8)));
    ordered(&mut host, 7);
    assert_eq!(host.asks().len(), 1, "it may have been overtaken");
    ordered(&mut host, 9);
    assert!(host.asks().is_empty());
    assert_eq!((host.stored(stream), host.outcomes()), (vec![8, 7, 9], vec![GapOutcome::Live]));
}

#[test]
fn the_beginning_of_a_dense_stream_is_proved_by_an_answer_since_the_venue_may_have_skipped_the_first_record() {
    let mut host = Host::new();
    let stream = host.stream("A");
    host.confirm(1, 0, &[(stream, Numbering::Sequence)], 100 * S);
    (8..12).for_each(|n| _ = live(&mut host, 1, stream, n));
    assert_eq!(host.hull(), (None, Some(8)));
    let ask = host.only();
    assert_eq!(history(&mut host, 1, stream, &[7, 8, 9]), 1, "7 was made after the confirmation");
    host.answered(ask.gap.id, ask.number);
    assert!(host.asks().is_empty());
    assert_eq!((host.stored(stream), host.outcomes()), (vec![8, 9, 10, 11, 7], vec![GapOutcome::Backfilled]));
    assert_eq!(history(&mut host, 1, stream, &[5, 6]), 0, "a late reply brings what is not owed");
}

#[test]
fn the_first_number_of_all_proves_that_nothing_came_before() {
    let mut host = Host::new();
    let stream = host.stream("A");
    host.confirm(1, 0, &[(stream, Numbering::Sequence)], 100 * S);
    host.end(1);
    host.confirm(2, 0, &[(stream, Numbering::Sequence)], 200 * S);
    live(&mut host, 2, stream, 1);
    assert!(host.asks().is_empty());
}

#[test]
fn nothing_was_missing_yet_when_a_venue_without_history_gives_up_the_baseline() {
    let mut host = Host::new();
    let stream = host.stream("A");
    host.confirm(1, 0, &[(stream, Numbering::Sequence)], 100 * S);
    host.lost(host.only().gap.id);
    assert_eq!(host.outcomes(), [GapOutcome::Live]);
    host.end(1);
    host.confirm(2, 0, &[(stream, Numbering::Sequence)], 200 * S);
    host.lost(host.only().gap.id);
    assert_eq!(host.outcomes()[1], GapOutcome::Lost("venue forgot".into()));
}

#[test]
fn a_jump_in_a_dense_stream_opens_a_gap_that_the_missing_numbers_close() {
    let (mut host, stream) = with_baseline();
    assert!(live(&mut host, 1, stream, 11));
    assert!(live(&mut host, 1, stream, 14));
    assert_eq!(host.hull(), (Some(11), Some(14)));
    assert!(live(&mut host, 1, stream, 12), "it came late");
    assert_eq!(history(&mut host, 1, stream, &[11, 12, 13, 14]), 1);
    assert!(host.asks().is_empty());
    assert_eq!(host.outcomes()[1..], [GapOutcome::Backfilled]);
    assert_eq!(host.stored(stream), [11, 14, 12, 13]);
}

#[test]
fn repeats_in_a_dense_stream_are_dropped_and_another_content_is_kept_once_and_counted() {
    let (mut host, stream) = with_baseline();
    live(&mut host, 1, stream, 11);
    live(&mut host, 1, stream, 12);
    assert!(!live(&mut host, 1, stream, 11));
    assert!(host.live(1, stream, seq(12), 112 * S, 99), "nothing proves that it is the same");
    assert!(!host.live(1, stream, seq(12), 112 * S, 99));
    assert_eq!((&host.dropped[..], host.conflicts), (&[Drop::Repeat, Drop::Repeat][..], 1));
}

#[test]
fn a_record_that_the_history_has_told_first_is_a_repeat_when_it_comes_live_with_more_said_of_it() {
    let (mut host, stream) = with_baseline();
    live(&mut host, 1, stream, 11);
    host.end(1);
    host.confirm(2, 0, &[(stream, Numbering::Sequence)], 200 * S);
    assert_eq!(history(&mut host, 2, stream, &[12, 13]), 2, "the answer overtakes the line");
    for n in [12, 13] {
        assert!(!host.live(2, stream, seq(n), (100 + n as i64) * S, 1_000 + n as u32), "{n}");
    }
    assert!(live(&mut host, 2, stream, 14));
    assert!(host.live(2, stream, seq(13), 112 * S, 5), "another time is another record");
    assert_eq!(host.stored(stream), [11, 12, 13, 14, 13]);
}

#[test]
fn the_end_of_a_session_opens_the_right_end_of_every_numbered_stream_once() {
    let (mut host, stream) = with_baseline();
    let quotes = host.stream("quotes");
    host.confirm(1, 0, &[(quotes, Numbering::Unnumbered)], 100 * S);
    host.end(1);
    assert_eq!(host.hull(), (Some(10), None));
    host.confirm(2, 0, &[(stream, Numbering::Sequence)], 200 * S);
    host.end(2);
    assert_eq!(host.hull(), (Some(10), None), "the one that is open stays");
    host.boot();
    assert_eq!(host.hull(), (Some(10), None));
}

#[test]
fn the_end_of_one_of_two_lines_is_bridged_by_the_next_record_of_the_other() {
    let (mut host, stream) = with_baseline();
    host.confirm(2, 1, &[(stream, Numbering::Sequence)], 110 * S);
    assert!(host.asks().is_empty(), "line 0 goes on");
    host.end(1);
    assert_eq!(host.hull(), (Some(10), None), "what was on the way on line 0 may be older than line 1");
    live(&mut host, 2, stream, 11);
    assert!(host.asks().is_empty());
}

#[test]
fn the_next_number_closes_an_open_end_and_a_later_one_narrows_it() {
    let (mut host, stream) = with_baseline();
    host.end(1);
    host.confirm(2, 0, &[(stream, Numbering::Sequence)], 200 * S);
    live(&mut host, 2, stream, 11);
    assert!(host.asks().is_empty());
    assert_eq!(host.outcomes()[1..], [GapOutcome::Live]);

    host.end(2);
    host.confirm(3, 0, &[(stream, Numbering::Sequence)], 300 * S);
    live(&mut host, 3, stream, 15);
    assert_eq!(host.hull(), (Some(11), Some(15)));
}

#[test]
fn only_an_answer_to_a_question_of_this_session_closes_an_open_end() {
    let (mut host, stream) = with_baseline();
    host.end(1);
    host.confirm(2, 0, &[(stream, Numbering::Sequence)], 200 * S);
    let early = host.only();
    host.end(2);
    host.answered(early.gap.id, early.number);
    assert_eq!(host.hull(), (Some(10), None), "the line was cut meanwhile");
    host.confirm(3, 0, &[(stream, Numbering::Sequence)], 300 * S);
    host.answered(early.gap.id, early.number);
    assert_eq!(host.hull(), (Some(10), None), "the question is older than the session");
    let ask = host.only();
    host.answered(ask.gap.id, ask.number);
    assert_eq!(host.outcomes()[1..], [GapOutcome::Backfilled], "even an empty answer shows that the end was the end");
}

#[test]
fn a_stream_that_expired_while_nobody_listened_can_be_repaired_after_it_was_left() {
    let (mut host, stream) = with_baseline();
    host.leave(1, stream);
    let ask = host.only();
    assert!(ask.has_left && !ask.is_covered);
    history(&mut host, 1, stream, &[11, 12]);
    host.answered(ask.gap.id, ask.number);
    assert_eq!(host.stored(stream), [11, 12]);
    assert!(host.asks().is_empty());
    host.confirm(1, 0, &[(stream, Numbering::Sequence)], 300 * S);
    assert_eq!(host.hull(), (Some(12), None), "what was made meanwhile is asked for when it comes back");
}

#[test]
fn numbers_are_absent_only_after_two_looks_a_minute_apart() {
    let (mut host, stream) = with_baseline();
    live(&mut host, 1, stream, 13);
    let first = host.only();
    host.answered(first.gap.id, first.number);
    host.answered(first.gap.id, first.number);
    let second = host.only();
    host.answered(second.gap.id, second.number);
    assert_eq!(host.outcomes().len(), 1, "too soon");
    host.now += 60;
    host.answered(second.gap.id, second.number);
    assert_eq!(host.outcomes()[1..], [GapOutcome::Absent]);
}

#[test]
fn a_row_that_comes_after_the_first_look_makes_it_worthless() {
    let (mut host, stream) = with_baseline();
    live(&mut host, 1, stream, 14);
    let ask = host.only();
    host.answered(ask.gap.id, ask.number);
    host.now += 61;
    history(&mut host, 1, stream, &[11]);
    let ask = host.only();
    host.answered(ask.gap.id, ask.number);
    assert_eq!((host.hull(), host.outcomes().len()), ((Some(11), Some(14)), 1), "this is the first look that counts");
}

#[test]
fn an_answer_with_a_hole_inside_ends_the_open_end_and_keeps_the_hole() {
    let (mut host, stream) = with_baseline();
    host.end(1);
    host.confirm(2, 0, &[(stream, Numbering::Sequence)], 200 * S);
    let ask = host.only();
    history(&mut host, 2, stream, &[11, 13]);
    host.answered(ask.gap.id, ask.number);
    assert_eq!(host.hull(), (Some(11), Some(13)));
    live(&mut host, 2, stream, 14);
    assert_eq!(host.hull(), (Some(11), Some(13)), "14 follows on 13");
}

#[test]
fn numbers_below_all_that_came_are_new_when_they_come_live() {
    let (mut host, stream) = with_baseline();
    assert!(host.live(1, stream, seq(7), 80 * S, 7));
    assert_eq!(host.hull(), (Some(7), Some(10)));
}

#[test]
fn a_smaller_number_at_a_later_time_is_a_new_numbering() {
    let (mut host, stream) = with_baseline();
    live(&mut host, 1, stream, 11);
    assert!(host.live(1, stream, seq(1), 300 * S, 1));
    assert!(host.live(1, stream, seq(2), 301 * S, 2));
    assert!(host.asks().is_empty());
    assert_eq!(host.stored(stream), [11, 1, 2]);
}

#[test]
fn the_answer_to_a_baseline_brings_no_record_of_a_new_numbering_a_second_time() {
    let mut host = Host::new();
    let stream = host.stream("A");
    host.confirm(1, 0, &[(stream, Numbering::Sequence)], 100 * S);
    assert!(host.live(1, stream, seq(1_087), 101 * S, 1));
    assert!(host.live(1, stream, seq(1), 101 * S + S / 2, 2), "the venue numbers anew within the second");
    assert!(host.live(1, stream, seq(2), 102 * S, 3));
    let ask = host.only();
    let page = |same: u32| {
        [
            (stream, seq(1_086), 99 * S, 4),
            (stream, seq(1_087), 101 * S, 1),
            (stream, seq(1), 101 * S + S / 2, 2 + same),
            (stream, seq(2), 102 * S, 3 + same),
        ]
    };
    assert_eq!(host.history(1, &page(0)), 0, "all that is owed has come live");
    assert_eq!(host.history(1, &page(10)), 0, "a history may not tell as much as came live");
    host.answered(ask.gap.id, ask.number);
    assert_eq!(host.stored(stream), [1_087, 1, 2]);
    assert!(host.asks().is_empty());
}

#[test]
fn after_a_restart_behind_a_cut_both_numberings_are_filled_from_one_history() {
    let (mut host, stream) = with_baseline();
    live(&mut host, 1, stream, 11);
    host.end(1);
    host.confirm(2, 0, &[(stream, Numbering::Sequence)], 200 * S);
    host.live(2, stream, seq(3), 303 * S, 1003);
    assert_eq!(host.asks().len(), 2, "the end of the old numbers and the beginning of the new");
    let rows = [
        (stream, seq(10), 90 * S, 10),
        (stream, seq(11), 111 * S, 11),
        (stream, seq(12), 112 * S, 12),
        (stream, seq(1), 301 * S, 1001),
        (stream, seq(2), 302 * S, 1002),
        (stream, seq(3), 303 * S, 1003),
    ];
    host.history(2, &rows);
    for ask in host.asks() {
        host.answered(ask.gap.id, ask.number);
    }
    assert_eq!(host.stored(stream), [11, 3, 12, 1, 2]);
    assert!(host.asks().is_empty());
}

#[test]
fn an_answer_that_reaches_back_over_two_restarts_brings_nothing_that_is_here() {
    let (mut host, stream) = with_baseline();
    live(&mut host, 1, stream, 11);
    live(&mut host, 1, stream, 12);
    (1..=3).for_each(|n| _ = host.live(1, stream, seq(n), (200 + n as i64) * S, 200 + n as u32));
    host.end(1);
    host.confirm(2, 0, &[(stream, Numbering::Sequence)], 210 * S);
    (1..=2).for_each(|n| _ = host.live(2, stream, seq(n), (300 + n as i64) * S, 300 + n as u32));
    let before = host.stored(stream);
    let here = [(stream, seq(11), 111 * S, 11), (stream, seq(12), 112 * S, 12), (stream, seq(3), 203 * S, 203)];
    assert_eq!(host.history(2, &here), 0, "each numbering has its own, at its own time");
    assert!(!host.live(2, stream, seq(12), 112 * S, 12), "also on the line");
    assert_eq!(host.stored(stream), before);
    assert_eq!(host.history(2, &[(stream, seq(4), 204 * S, 204)]), 1, "this was missed in the cut");
}

#[test]
fn the_last_record_of_a_numbering_that_the_first_of_the_next_has_overtaken_is_new_once() {
    let (mut host, stream) = with_baseline();
    live(&mut host, 1, stream, 11);
    assert!(host.live(1, stream, seq(1), 200 * S, 1));
    assert!(live(&mut host, 1, stream, 12));
    assert!(!live(&mut host, 1, stream, 12) && !live(&mut host, 1, stream, 11));
    assert!(host.live(1, stream, seq(2), 201 * S, 2));
    assert_eq!(host.stored(stream), [11, 1, 12, 2]);
}

#[test]
fn of_a_moment_earlier_than_the_first_of_a_numbering_is_the_next_but_one_too() {
    let mut host = Host::new();
    let stream = host.stream("A");
    host.confirm(1, 0, &[(stream, Numbering::Sequence)], 100 * S);
    live(&mut host, 1, stream, 1_000);
    assert!(host.live(1, stream, seq(400), 2_000 * S, 400));
    assert!(host.live(1, stream, seq(402), 1_999 * S, 402));
    assert_eq!(host.asks().last().unwrap().gap.before.unwrap().position, seq(402), "401 is missing");
    assert_eq!(host.history(1, &[(stream, seq(402), 1_999 * S, 402)]), 0);
}

#[test]
fn a_number_that_was_given_up_before_the_venue_numbered_anew_is_new_when_it_comes_after_all() {
    let (mut host, stream) = with_baseline();
    live(&mut host, 1, stream, 13);
    let ask = host.only();
    host.lost(ask.gap.id);
    assert!(host.live(1, stream, seq(1), 200 * S, 1));
    assert!(live(&mut host, 1, stream, 12) && !live(&mut host, 1, stream, 12));
    assert_eq!(host.stored(stream), [13, 1, 12]);
}

#[test]
fn a_restart_that_the_venue_tells_of_needs_no_guess() {
    let (mut host, stream) = with_baseline();
    host.decide(|continuity, _, out| continuity.restarted(stream, out));
    assert!(host.live(1, stream, seq(1), 90 * S, 1), "also at the same time as the last one before");
    assert!(host.asks().is_empty());
    assert_eq!(host.stored(stream), [1]);
}

#[test]
fn the_first_record_of_a_numbering_is_known_beside_a_gap_of_the_one_before_that_has_room_for_it() {
    let mut host = Host::new();
    let stream = host.stream("A");
    host.confirm(1, 0, &[(stream, Numbering::Sequence)], 100 * S);
    assert!(host.live(1, stream, seq(3), 101 * S, 1));
    host.decide(|continuity, _, out| continuity.restarted(stream, out));
    assert!(host.live(1, stream, seq(1), 101 * S + S / 2, 2));
    assert_eq!(host.history(1, &[(stream, seq(1), 101 * S + S / 2, 12)]), 0, "a history may not tell as much");
    assert_eq!(host.stored(stream), [3, 1]);
}

#[test]
fn jumping_numbers_open_no_gap_and_only_equal_records_are_repeats() {
    let mut host = Host::new();
    let stream = host.stream("A");
    host.confirm(1, 0, &[(stream, Numbering::Ordered)], 100 * S);
    let ask = host.only();
    host.answered(ask.gap.id, ask.number);
    assert!(host.live(1, stream, Position::Ordered(5), 105 * S, 5));
    assert!(host.live(1, stream, Position::Ordered(9), 109 * S, 9));
    assert!(!host.live(1, stream, Position::Ordered(5), 105 * S, 5));
    assert!(host.live(1, stream, Position::Ordered(5), 105 * S, 6), "another content is kept");
    assert_eq!((host.conflicts, host.asks().len()), (1, 0));
}

#[test]
fn a_gap_in_jumping_numbers_takes_each_row_once_and_closes_by_an_answer_only() {
    let mut host = Host::new();
    let stream = host.stream("A");
    let row = |n: u64| (stream, Position::Ordered(n), (100 + n as i64) * S, n as u32);
    host.confirm(1, 0, &[(stream, Numbering::Ordered)], 100 * S);
    let ask = host.only();
    host.answered(ask.gap.id, ask.number);
    host.live(1, stream, Position::Ordered(5), 105 * S, 5);
    host.end(1);
    host.confirm(2, 0, &[(stream, Numbering::Ordered)], 200 * S);
    host.live(2, stream, Position::Ordered(30), 130 * S, 30);
    assert_eq!(host.history(2, &[row(5), row(9), row(20), row(30)]), 2);
    assert_eq!(host.history(2, &[row(5), row(9), row(15), row(20), row(30)]), 1, "one page overlaps the other");
    let ask = host.only();
    host.answered(ask.gap.id, ask.number);
    assert_eq!(host.stored(stream), [5, 30, 9, 20, 15]);
    assert!(host.asks().is_empty());
}

#[test]
fn a_row_that_came_for_one_gap_is_not_taken_again_for_the_next() {
    let mut host = Host::new();
    let stream = host.stream("A");
    let row = |n: u64| (stream, Position::Ordered(n), (100 + n as i64) * S, n as u32);
    let session = |host: &mut Host, session| host.confirm(session, 0, &[(stream, Numbering::Ordered)], 100 * S);
    session(&mut host, 1);
    host.answered(host.only().gap.id, host.only().number);
    host.live(1, stream, Position::Ordered(5), 105 * S, 5);
    host.end(1);
    session(&mut host, 2);
    let newest: Vec<_> = (10..300).map(row).collect();
    assert_eq!(host.history(2, &newest), 290, "the last page came first");
    host.live(2, stream, Position::Ordered(7), 107 * S, 7);
    host.end(2);
    session(&mut host, 3);
    host.history(3, &[row(6)]);
    let first = host.asks().into_iter().next().unwrap();
    host.answered(first.gap.id, first.number);
    assert_eq!(host.hull(), (Some(7), None), "the second gap is left");
    let all: Vec<_> = (6..300).map(row).collect();
    assert_eq!(host.history(3, &all), 2, "8 and 9");
}

#[test]
fn records_on_the_way_when_the_history_shows_a_new_numbering_belong_to_the_old_one() {
    let (mut host, stream) = with_baseline();
    host.end(1);
    host.confirm(2, 0, &[(stream, Numbering::Sequence)], 100 * S);
    let rows = [(stream, seq(11), 111 * S, 11), (stream, seq(12), 112 * S, 12), (stream, seq(1), 301 * S, 1001)];
    host.history(2, &rows);
    assert!(!live(&mut host, 2, stream, 11) && !live(&mut host, 2, stream, 12), "they were made before the restart");
    assert!(!host.live(2, stream, seq(1), 301 * S, 1001));
    assert!(host.live(2, stream, seq(2), 302 * S, 1002));
    assert_eq!(host.stored(stream), [11, 12, 1, 2]);
}

#[test]
fn a_broken_chain_is_kept_shown_at_once_and_mended_by_the_next_whole_state() {
    let mut host = Host::new();
    let stream = host.stream("book");
    let change = |host: &mut Host, id, prev| {
        host.live(1, stream, Position::Linked { id, prev }, id as i64 * S, id as u32);
        host.asks().len()
    };
    host.confirm(1, 0, &[(stream, Numbering::Linked)], 100 * S);
    assert_eq!(change(&mut host, 100, None), 0);
    assert_eq!(change(&mut host, 105, Some(100)), 0);
    assert_eq!(change(&mut host, 105, Some(100)), 0);
    assert_eq!(change(&mut host, 120, Some(110)), 1);
    assert_eq!(change(&mut host, 121, Some(120)), 1);
    assert_eq!(change(&mut host, 130, Some(125)), 1, "one whole state will end both");
    assert_eq!(host.hull(), (Some(105), Some(120)));
    host.leave(1, stream);
    host.confirm(1, 0, &[(stream, Numbering::Linked)], 140 * S);
    assert_eq!(host.asks().len(), 1, "to leave a book on purpose opens nothing");
    host.live(1, stream, Position::Linked { id: 140, prev: None }, 140 * S, 140);
    assert_eq!(host.stored(stream), [100, 105, 120, 121, 130, 140]);
    assert_eq!(host.outcomes(), [GapOutcome::Resynchronised]);
}

#[test]
fn what_a_book_did_while_the_line_was_cut_is_lost_unless_the_chain_goes_on() {
    let mut host = Host::new();
    let stream = host.stream("book");
    let linked = |id, prev| Position::Linked { id, prev };
    host.confirm(1, 0, &[(stream, Numbering::Linked)], 100 * S);
    host.live(1, stream, linked(100, None), 100 * S, 1);
    host.end(1);
    host.confirm(2, 0, &[(stream, Numbering::Linked)], 200 * S);
    host.live(2, stream, linked(101, Some(100)), 201 * S, 2);
    host.end(2);
    host.confirm(3, 0, &[(stream, Numbering::Linked)], 300 * S);
    host.live(3, stream, linked(150, None), 300 * S, 3);
    assert_eq!(host.outcomes(), [GapOutcome::Live, GapOutcome::Lost("not repeatable".into())]);
}

#[test]
fn what_a_session_has_vouched_for_is_not_asked_for_again() {
    let (mut host, stream) = with_baseline();
    let since = |host: &Host| host.only().gap.since.0;
    host.now = 500;
    host.confirm(1, 0, &[(stream, Numbering::Sequence)], 497 * S);
    host.now = 3_600;
    host.alive(1);
    host.now = 3_700;
    host.end(1);
    assert_eq!(since(&host), (3_600 - 60 - 3) * S, "the last frame, by the venue's clock, and what may be on the way");
    assert_eq!(host.hull(), (Some(10), None), "the edge is the last record all the same");
    host.confirm(2, 0, &[(stream, Numbering::Sequence)], 3_700 * S);
    host.now = 9_000;
    host.alive(2);
    host.end(2);
    assert_eq!(since(&host), 3_537 * S, "nobody has answered for what was missed before");

    let ask = host.only();
    host.answered(ask.gap.id, ask.number);
    host.confirm(3, 0, &[(stream, Numbering::Sequence)], 9_000 * S);
    host.answered(host.only().gap.id, host.only().number);
    host.now = 20_000;
    host.alive(3);
    host.leave(3, stream);
    assert_eq!(since(&host), 19_940 * S, "left on purpose");
    host.answered(host.only().gap.id, host.only().number);
    host.boot();
    assert!(host.asks().is_empty());
    host.now = 30_000;
    host.confirm(4, 0, &[(stream, Numbering::Sequence)], 30_000 * S);
    assert_eq!(since(&host), 19_940 * S, "what was made since it was left");
    host.now = 31_000;
    live(&mut host, 4, stream, 11);
    host.alive(4);
    host.boot();
    assert_eq!(since(&host), 30_940 * S, "a killed process has vouched, too, up to the last word in the log");
}

#[test]
fn a_session_whose_clock_was_set_vouches_for_no_time_that_has_not_been() {
    for (step, vouched) in [(3_600, 4_540), (-3_600, 1_000 - 60)] {
        let (mut host, stream) = with_baseline();
        host.now = 100;
        host.confirm(1, 0, &[(stream, Numbering::Sequence)], 100 * S);
        host.now = 1_000;
        host.alive(1);
        host.now += step;
        let at = host.at();
        host.log([Control::ClockStep { at, step: step * S }]);
        host.now += 3_600;
        host.alive(1);
        host.end(1);
        assert_eq!(host.only().gap.since.0, vouched * S, "a step of {step} s");
    }
}

#[test]
fn a_row_alone_tells_nothing_of_the_venues_clock() {
    let mut host = Host::new();
    let stream = host.stream("A");
    live(&mut host, 1, stream, 5);
    host.now = 10_000;
    host.alive(1);
    host.end(1);
    assert_eq!(host.only().gap.since.0, 105 * S);
}

#[test]
fn streams_of_a_channel_that_carries_whatever_trades_are_covered_from_their_first_record_on() {
    let mut host = Host::new();
    let stream = host.stream("A");
    host.confirm(1, 0, &[], 100 * S);
    assert!(live(&mut host, 1, stream, 5));
    assert!(host.asks().is_empty(), "it came with the first one");
    host.boot();
    assert!(!host.only().is_covered);
    host.confirm(2, 0, &[], 200 * S);
    assert!(host.only().is_covered);
}

#[test]
fn an_unnumbered_stream_keeps_everything_and_opens_nothing() {
    let mut host = Host::new();
    let stream = host.stream("tickers");
    host.confirm(1, 0, &[(stream, Numbering::Unnumbered)], 100 * S);
    assert!(host.live(1, stream, Position::Unnumbered, 101 * S, 0));
    assert!(host.live(1, stream, Position::Unnumbered, 101 * S, 0));
    host.end(1);
    assert!(host.asks().is_empty());
}

#[test]
fn a_record_without_its_number_is_kept_and_counted() {
    let (mut host, stream) = with_baseline();
    assert!(host.live(1, stream, Position::Unnumbered, 101 * S, 0));
    assert_eq!(host.conflicts, 1);
    assert!(live(&mut host, 1, stream, 11));
    assert!(host.asks().is_empty());
}

#[test]
fn memory_is_bounded_by_giving_up_the_oldest_gap_and_saying_so() {
    let (mut host, stream) = with_baseline();
    host.checked = false;
    for n in 0..MAX_HOLES as u64 + 2 {
        live(&mut host, 1, stream, 12 + 2 * n);
    }
    assert_eq!(host.asks().len(), MAX_HOLES);
    assert_eq!(host.outcomes().iter().filter(|outcome| matches!(outcome, GapOutcome::Lost(_))).count(), 2);
    assert_eq!(
        history(&mut host, 1, stream, &[11, 13]),
        2,
        "they were lost, and nobody asked for them; now they are here"
    );

    let (mut host, stream) = with_baseline();
    host.checked = false;
    live(&mut host, 1, stream, 100_000);
    let every_second: Vec<u64> = (0..3_000).map(|n| 12 + 2 * n).collect();
    assert_eq!(history(&mut host, 1, stream, &every_second), 3_000);
    assert_eq!(history(&mut host, 1, stream, &every_second), 0, "none is taken twice");
    assert!(host.continuity.streams.get(stream).unwrap().holes() <= MAX_HOLES);
    host.checked = true;
    host.check();
}

#[test]
fn an_entry_that_was_not_written_leaves_no_trace() {
    let (mut host, stream) = with_baseline();
    live(&mut host, 1, stream, 11);
    // What is put back goes where a stream of another name was kept before.
    let earlier = host.stream("C");
    host.continuity.begin();
    live(&mut host, 1, earlier, 1);
    host.continuity.commit();
    let (log, before) = (host.log.clone(), host.continuity.snapshot());
    host.continuity.begin();
    host.checked = false;
    live(&mut host, 1, stream, 14);
    let other = host.stream("B");
    host.confirm(7, 1, &[(other, Numbering::Sequence)], 300 * S);
    host.end(1);
    host.continuity.roll_back();
    host.log = log;
    assert_eq!(host.continuity.snapshot(), before);
    host.checked = true;
    host.check();
    assert!(live(&mut host, 1, stream, 14));
    assert_eq!(host.hull(), (Some(11), Some(14)));
}

#[test]
fn a_number_that_was_given_up_is_kept_when_it_comes_after_all_and_once() {
    let (mut host, stream) = with_baseline();
    live(&mut host, 1, stream, 11);
    live(&mut host, 1, stream, 15);
    host.lost(host.only().gap.id);
    (16..40).for_each(|n| _ = live(&mut host, 1, stream, n));
    assert!(live(&mut host, 1, stream, 13), "it was lost, and is here");
    host.boot();
    assert!(!live(&mut host, 2, stream, 13) || host.stored(stream).iter().filter(|n| **n == 13).count() == 1);
    assert_eq!(history(&mut host, 2, stream, &[12, 13]), 1, "so is what the history brings unasked");
    assert!(host.asks().iter().all(|ask| ask.gap.before.is_none()), "no hole is opened anew");
}

#[test]
fn after_the_venue_numbers_anew_a_record_that_was_made_before_an_earlier_number_is_no_old_one() {
    let (mut host, stream) = with_baseline();
    live(&mut host, 1, stream, 11);
    // 1 and 2 of the new numbering, of which the second was made first.
    assert!(host.live(1, stream, seq(1), 200 * S, 1));
    assert!(host.live(1, stream, seq(2), 200 * S - 5, 2), "it comes next");
    // 3 is missed, and was made before the first one too.
    assert!(host.live(1, stream, seq(4), 201 * S, 4));
    assert_eq!(host.hull(), (Some(2), Some(4)));
    let rows = [(stream, seq(2), 200 * S - 5, 2), (stream, seq(3), 200 * S - 7, 3), (stream, seq(4), 201 * S, 4)];
    assert_eq!(host.history(1, &rows), 1, "what the venue has sent is not called absent");
    assert!(host.asks().is_empty());
    assert_eq!(host.stored(stream), [11, 1, 2, 4, 3]);
}

#[test]
fn a_stream_that_was_forgotten_leaves_nothing_and_its_number_is_not_given_again() {
    let (mut host, stream) = with_baseline();
    live(&mut host, 1, stream, 11);
    host.leave(1, stream);
    assert_eq!(host.continuity.idle_streams().count(), 0, "what came before it was left is still owed");
    host.answered(host.only().gap.id, host.only().number);
    assert_eq!(host.continuity.idle_streams().collect::<Vec<_>>(), [stream]);
    host.decide(|_, _, out| out.push(Control::Retired { stream }));
    assert!(host.continuity.key(stream).is_none());
    host.roll();
    host.check();

    let again = host.stream("A");
    assert_ne!(again, stream);
    host.confirm(1, 0, &[(again, Numbering::Sequence)], 200 * S);
    host.boot();
    assert!(host.continuity.key(stream).is_none());
    assert_eq!(host.continuity.next_stream(), again + 1);
}

#[test]
fn a_stream_that_was_forgotten_and_is_taken_again_has_no_record_a_second_time() {
    for numbering in [Numbering::Sequence, Numbering::Ordered] {
        let position = |n: u64| match numbering {
            Numbering::Ordered => Position::Ordered(n),
            Numbering::Sequence | Numbering::Linked | Numbering::Unnumbered => seq(n),
        };
        let row = |stream: u32, n: u64, at: i64| (stream, position(n), at * S, n as u32);
        let mut host = Host::new();
        let stream = host.stream("A");
        host.confirm(1, 0, &[(stream, numbering)], 100 * S);
        host.live(1, stream, position(10), 110 * S, 10);
        host.leave(1, stream);
        while let Some(ask) = host.asks().first().cloned() {
            host.answered(ask.gap.id, ask.number);
        }
        host.decide(|_, _, out| out.push(Control::Retired { stream }));

        let again = host.stream("A");
        host.confirm(1, 0, &[(again, numbering)], 115 * S);
        let ask = host.only();
        host.history(1, &[row(again, 10, 110), row(again, 11, 116)]);
        host.answered(ask.gap.id, ask.number);
        assert_eq!(host.stored(again), [11], "{numbering:?}: 10 shows what 11 follows on, and is there already");
        // A second look brings it once more.
        host.history(1, &[row(again, 10, 110), row(again, 11, 116)]);
        host.end(1);
        assert_eq!((host.stored(again), host.hull()), (vec![11], (Some(11), None)), "{numbering:?}");
    }
}

#[test]
fn a_stream_whose_history_is_down_keeps_a_bounded_number_of_gaps() {
    let mut host = Host::new();
    host.checked = false;
    let stream = host.stream("A");
    for session in 1..MAX_HOLES as u32 + 20 {
        host.confirm(session, 0, &[(stream, Numbering::Ordered)], i64::from(session) * S);
        host.live(session, stream, Position::Ordered(u64::from(session) * 10), i64::from(session) * S, session);
        host.end(session);
    }
    assert!(host.continuity.streams.get(stream).unwrap().holes() <= MAX_HOLES);
    assert!(host.outcomes().iter().any(|outcome| matches!(outcome, GapOutcome::Lost(_))), "and says so");
}
