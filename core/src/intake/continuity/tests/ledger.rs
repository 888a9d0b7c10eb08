//! What the ledger says of logs that were written by hand.

use super::host::{Host, Logged};
use crate::{
    intake::continuity::Continuity,
    ledger::{Fold, Mark, State},
    protocol::GapId,
    row::{Numbering, Position, Timestamp},
    spool::{Boot, Control, GapOutcome},
};

const S: i64 = 1_000_000_000;

/// Folds a log from its beginning.
pub(super) fn ledger_of(log: &[Logged]) -> Fold {
    let mut fold = Fold::begin(Continuity::default(), Vec::new(), "the ledger began later");
    show(&mut fold, log);
    fold
}

/// Shows a ledger a part of the log.
pub(super) fn show(fold: &mut Fold, log: &[Logged]) {
    for item in log {
        match item {
            Logged::Control(control) => fold.control(control),
            Logged::Row(row, _) => fold.row(row),
        }
    }
}

/// Words what is known of a stream, times in seconds.
fn said(fold: &Fold, stream: u32) -> String {
    let word = |mark: &Mark| {
        let why = mark.known.why.as_deref().map_or_else(String::new, |why| format!(" ({why})"));
        let (name, at) = (mark.known.state.name(), mark.from.0 as f64 / S as f64);
        format!("{at} {name}{why}")
    };
    fold.marks(stream).iter().map(word).collect::<Vec<_>>().join(", ")
}

/// A host whose only stream was confirmed in session 1 at second 100, and began with number 10.
fn begun(numbering: Numbering) -> (Host, u32) {
    let mut host = Host::new();
    let stream = host.stream("A");
    host.now = 100;
    host.confirm(1, 0, &[(stream, numbering)], 100 * S);
    live(&mut host, 1, stream, 10);
    live(&mut host, 1, stream, 11);
    if numbering == Numbering::Sequence {
        // Its beginning is known.
        let ask = host.only();
        host.answered(ask.gap.id, ask.number);
    }
    (host, stream)
}

/// A number comes at the second of which it is the number, after 100.
fn live(host: &mut Host, session: u32, stream: u32, n: u64) {
    host.now = 100 + n as i64;
    host.alive(session);
    let position = match host.continuity.standing(stream).unwrap().numbering {
        Some(Numbering::Unnumbered) => Position::Unnumbered,
        Some(Numbering::Linked) => Position::Linked { id: n, prev: Some(n - 1) },
        Some(Numbering::Ordered) => Position::Ordered(n),
        Some(Numbering::Sequence) | None => Position::Sequence(n),
    };
    host.live(session, stream, position, host.now * S, n as u32);
}

fn history(host: &mut Host, stream: u32, numbers: &[u64]) {
    let rows: Vec<_> =
        numbers.iter().map(|&n| (stream, Position::Sequence(n), (100 + n as i64) * S, n as u32)).collect();
    host.history(2, &rows);
}

fn confirm_again(host: &mut Host, stream: u32, numbering: Numbering, at: i64) {
    host.now = at;
    host.confirm(2, 0, &[(stream, numbering)], at * S);
}

#[test]
fn a_stream_without_a_gap_is_one_interval() {
    let (mut host, stream) = begun(Numbering::Sequence);
    (12..500).for_each(|n| live(&mut host, 1, stream, n));
    assert_eq!(said(&ledger_of(&host.log), stream), "100 received");
}

#[test]
fn what_comes_between_two_sessions_is_open_until_the_history_has_filled_it() {
    let (mut host, stream) = begun(Numbering::Sequence);
    host.now = 115;
    host.end(1);
    assert_eq!(said(&ledger_of(&host.log), stream), "100 received, 111 open");
    confirm_again(&mut host, stream, Numbering::Sequence, 120);
    assert_eq!(said(&ledger_of(&host.log), stream), "100 received, 111 open, 120 received");
    let ask = host.only();
    history(&mut host, stream, &[12, 13]);
    host.answered(ask.gap.id, ask.number);
    assert_eq!(said(&ledger_of(&host.log), stream), "100 received, 111 backfilled, 120 received");
}

#[test]
fn a_gap_in_which_nothing_was_is_received_and_leaves_no_mark() {
    let (mut host, stream) = begun(Numbering::Sequence);
    host.end(1);
    confirm_again(&mut host, stream, Numbering::Sequence, 120);
    live(&mut host, 2, stream, 12);
    assert!(host.asks().is_empty(), "the next number is here");
    assert_eq!(said(&ledger_of(&host.log), stream), "100 received");
}

#[test]
fn of_a_gap_that_is_filled_in_part_only_the_rest_is_lost() {
    let (mut host, stream) = begun(Numbering::Sequence);
    host.end(1);
    confirm_again(&mut host, stream, Numbering::Sequence, 130);
    live(&mut host, 2, stream, 40);
    history(&mut host, stream, &[12, 13, 14]);
    host.now = 300;
    host.alive(2);
    let gap = host.only().gap.id;
    host.lost(gap);
    let lost = "100 received, 111 backfilled, 114 lost (venue forgot), 140 received";
    assert_eq!(said(&ledger_of(&host.log), stream), lost);
}

#[test]
fn what_may_still_have_been_on_its_way_when_it_was_given_up_or_the_line_cut_is_lost_with_the_rest() {
    for is_cut in [false, true] {
        let (mut host, stream) = begun(Numbering::Sequence);
        host.end(1);
        confirm_again(&mut host, stream, Numbering::Sequence, 130);
        live(&mut host, 2, stream, 40);
        let gap = host.only().gap.id;
        if is_cut {
            host.end(2);
            host.now = 300;
        }
        host.lost(gap);
        let said = said(&ledger_of(&host.log), stream);
        assert!(said.starts_with("100 received, 111 lost (venue forgot), 140 "), "{said}");
    }
}

#[test]
fn what_two_gaps_ask_for_is_lost_if_one_of_them_is() {
    let (mut host, stream) = begun(Numbering::Sequence);
    host.end(1);
    confirm_again(&mut host, stream, Numbering::Sequence, 120);
    let after = host.only().gap.after;
    let (gap, since, at) = (GapId(99), Timestamp(111 * S), host.at());
    host.log([Control::GapOpened { gap, stream, after, before: None, since, at }]);
    host.log([Control::GapClosed { gap, stream, outcome: GapOutcome::Lost("venue forgot".into()), filled: 0, at }]);
    let ask = host.only();
    host.answered(ask.gap.id, ask.number);
    assert_eq!(said(&ledger_of(&host.log), stream), "100 received, 111 lost (venue forgot), 120 received");
}

#[test]
fn numbers_that_the_venue_never_gave_are_absent() {
    let (mut host, stream) = begun(Numbering::Sequence);
    live(&mut host, 1, stream, 13);
    assert_eq!(said(&ledger_of(&host.log), stream), "100 received, 111 open, 113 received");
    for now in [200, 261] {
        host.now = now;
        let ask = host.only();
        host.answered(ask.gap.id, ask.number);
    }
    assert_eq!(said(&ledger_of(&host.log), stream), "100 received, 111 absent, 113 received");
}

#[test]
fn what_was_left_on_purpose_is_not_subscribed_and_what_was_before_is_still_owed() {
    let (mut host, stream) = begun(Numbering::Sequence);
    host.now = 115;
    host.alive(1);
    host.leave(1, stream);
    assert_eq!(
        said(&ledger_of(&host.log), stream),
        "100 received, 111 open, 115 not_subscribed (the choice has other instruments)"
    );
    let ask = host.only();
    host.answered(ask.gap.id, ask.number);
    assert_eq!(
        said(&ledger_of(&host.log), stream),
        "100 received, 115 not_subscribed (the choice has other instruments)"
    );
    host.now = 300;
    host.confirm(1, 0, &[(stream, Numbering::Sequence)], 300 * S);
    let ask = host.only();
    host.answered(ask.gap.id, ask.number);
    assert_eq!(
        said(&ledger_of(&host.log), stream),
        "100 received, 115 not_subscribed (the choice has other instruments), 300 received"
    );
}

#[test]
fn a_killed_process_has_received_up_to_its_last_frame() {
    let (mut host, stream) = begun(Numbering::Unnumbered);
    let book = host.stream("B");
    host.confirm(1, 0, &[(book, Numbering::Sequence)], 111 * S);
    host.now = 140;
    host.boot();
    confirm_again(&mut host, stream, Numbering::Unnumbered, 150);
    host.confirm(2, 0, &[(book, Numbering::Sequence)], 150 * S);
    let ledger = ledger_of(&host.log);
    let unknown = "unknown (nobody listened, and the venue does not repeat it)";
    assert_eq!(said(&ledger, stream), format!("100 received, 111 {unknown}, 150 received"));
    assert_eq!(said(&ledger, book), "111 open, 150 received", "its beginning was never answered");
}

#[test]
fn a_row_that_waited_while_the_process_stood_still_claims_nothing_of_the_time_between() {
    let (mut host, stream) = begun(Numbering::Unnumbered);
    host.now = 200;
    host.live(1, stream, Position::Unnumbered, 112 * S, 12);
    host.end(1);
    confirm_again(&mut host, stream, Numbering::Unnumbered, 201);
    let unknown = "unknown (nobody listened, and the venue does not repeat it)";
    assert_eq!(said(&ledger_of(&host.log), stream), format!("100 received, 111 {unknown}, 201 received"));
}

#[test]
fn a_restart_of_the_numbering_asks_for_what_was_before_its_first_number() {
    let (mut host, stream) = begun(Numbering::Sequence);
    host.end(1);
    confirm_again(&mut host, stream, Numbering::Sequence, 111);
    live(&mut host, 2, stream, 12);
    host.now = 130;
    host.live(2, stream, Position::Sequence(3), 130 * S, 3);
    assert_eq!(said(&ledger_of(&host.log), stream), "100 received, 112 open, 130 received");
    let gap = host.only().gap.id;
    host.lost(gap);
    assert_eq!(said(&ledger_of(&host.log), stream), "100 received, 112 lost (venue forgot), 130 received");
}

#[test]
fn a_gap_that_is_given_up_while_nobody_listens_ends_when_that_is_said() {
    let (mut host, stream) = begun(Numbering::Sequence);
    host.end(1);
    host.now = 500;
    let gap = host.only().gap.id;
    host.lost(gap);
    let lost = "100 received, 111 lost (venue forgot), 500 unknown (nobody listened)";
    assert_eq!(said(&ledger_of(&host.log), stream), lost);
    confirm_again(&mut host, stream, Numbering::Sequence, 600);
    let again = "100 received, 111 lost (venue forgot), 500 open, 600 received";
    assert_eq!(said(&ledger_of(&host.log), stream), again, "it is asked for after all");
}

#[test]
fn of_a_book_whose_chain_broke_or_that_was_cut_nobody_knows_what_it_did_before_the_next_whole_state() {
    let (mut host, stream) = begun(Numbering::Linked);
    let whole = |host: &mut Host, session, n: u64| {
        host.now = 100 + n as i64;
        host.live(session, stream, Position::Linked { id: n, prev: None }, host.now * S, n as u32);
    };
    whole(&mut host, 1, 12);
    live(&mut host, 1, stream, 20);
    whole(&mut host, 1, 22);
    let broke = "unknown (the chain of changes broke, and a whole state followed)";
    let before = said(&ledger_of(&host.log), stream);
    assert!(before.ends_with(&format!("112 {broke}, 120 received")), "{before}");
    host.alive(1);
    host.end(1);
    confirm_again(&mut host, stream, Numbering::Linked, 130);
    whole(&mut host, 2, 33);
    let after = said(&ledger_of(&host.log), stream);
    assert!(after.ends_with("122 unknown (not repeatable), 130 received"), "{after}");
}

#[test]
fn rows_that_a_full_spool_threw_away_are_lost_where_nobody_repeats_them() {
    let (mut host, stream) = begun(Numbering::Unnumbered);
    let dense = host.stream("B");
    host.confirm(1, 0, &[(dense, Numbering::Sequence)], 111 * S);
    host.end(1);
    let at = host.at();
    let rows = vec![(stream, 3), (dense, 2)];
    host.log([Control::Dropped { sinks: Vec::new(), rows, offsets: None, at }]);
    host.log([Control::Dropped { sinks: vec!["sqlite".into()], rows: vec![(dense, 9)], offsets: Some((1, 20)), at }]);
    confirm_again(&mut host, stream, Numbering::Unnumbered, 150);
    let ledger = ledger_of(&host.log);
    assert_eq!(said(&ledger, stream), "100 received, 111 lost (the spool was full), 150 received");
    assert_eq!(said(&ledger, dense), "111 open", "it is asked for");
    let drops: Vec<_> = ledger.drops().iter().map(|drops| (drops.stream, drops.sink.clone(), drops.rows)).collect();
    assert_eq!(drops, [(stream, None, 3), (dense, None, 2), (dense, Some("sqlite".into()), 9)]);
}

#[test]
fn our_clock_may_be_wrong_since_the_venues_time_is_what_counts() {
    let mut host = Host::new();
    let stream = host.stream("A");
    host.now = 1_000_100;
    host.confirm(1, 0, &[(stream, Numbering::Unnumbered)], 100 * S);
    host.now += 15;
    host.alive(1);
    host.now += 100;
    host.end(1);
    let unknown = "unknown (nobody listened, and the venue does not repeat it)";
    assert_eq!(said(&ledger_of(&host.log), stream), format!("100 received, 115 {unknown}"));
}

#[test]
fn a_year_that_our_clock_is_set_by_is_a_year_of_no_stream() {
    for year in [31_536_000, -31_536_000] {
        for is_restarted in [false, true] {
            let (mut host, stream) = begun(Numbering::Sequence);
            let plain = host.stream("B");
            host.confirm(1, 0, &[(plain, Numbering::Unnumbered)], 111 * S);
            let step = |host: &mut Host| {
                host.now += year;
                let (at, step) = (host.at(), year * S);
                host.log([Control::ClockStep { at, step }]);
            };
            if is_restarted {
                host.now += year;
                host.boot();
            } else {
                step(&mut host);
                host.alive(1);
                host.end(1);
            }
            host.now += 9;
            let gap = host.only().gap.id;
            host.lost(gap);
            let now = 1_000 + 111;
            host.confirm(2, 0, &[(stream, Numbering::Sequence), (plain, Numbering::Unnumbered)], now * S);
            let fold = ledger_of(&host.log);
            let moments = [stream, plain].map(|stream| fold.marks(stream).iter().map(|mark| mark.from.0 / S).max());
            assert_eq!(moments, [Some(now); 2], "{year} {is_restarted}: {}", said(&fold, stream));
            assert!(said(&fold, stream).contains("111 lost (venue forgot)"), "{}", said(&fold, stream));
            let unknown = "111 unknown (nobody listened, and the venue does not repeat it)";
            assert!(said(&fold, plain).contains(unknown), "{}", said(&fold, plain));
        }
    }
}

#[test]
fn two_lines_cover_a_stream_until_the_last_of_them_is_cut() {
    let (mut host, stream) = begun(Numbering::Sequence);
    host.confirm(2, 1, &[(stream, Numbering::Sequence)], 111 * S);
    host.end(1);
    live(&mut host, 2, stream, 12);
    assert_eq!(said(&ledger_of(&host.log), stream), "100 received", "what was on its way is here");
    host.end(2);
    assert_eq!(said(&ledger_of(&host.log), stream), "100 received, 112 open");
}

#[test]
fn a_ledger_that_begins_in_the_middle_says_that_it_does_not_know_what_was_before() {
    let (mut host, stream) = begun(Numbering::Sequence);
    let left = host.stream("B");
    host.confirm(1, 0, &[(left, Numbering::Sequence)], 111 * S);
    host.leave(1, left);
    let (snapshot, from) = (host.continuity.snapshot(), host.log.len());
    let begin = || Fold::begin(Continuity::restore(&snapshot).unwrap(), Vec::new(), "the ledger began later");
    assert_eq!(said(&begin(), stream), "100 unknown (the ledger began later)");
    assert!(
        said(&begin(), left).ends_with("open, 111 not_subscribed") || said(&begin(), left).ends_with("not_subscribed")
    );

    live(&mut host, 1, stream, 12);
    let mut ledger = begin();
    show(&mut ledger, &host.log[from..]);
    assert_eq!(said(&ledger, stream), "100 unknown (the ledger began later), 112 received");

    let mut killed = begin();
    killed.control(&Control::Boot { boot: Boot(2), at: Timestamp(200 * S), version: String::new() });
    assert_eq!(said(&killed, stream), "100 unknown (the ledger began later), 111 unknown (nobody listened)");
}

#[test]
fn what_was_in_a_part_of_the_log_that_cannot_be_read_is_lost_until_frames_come_again() {
    let (mut host, stream) = begun(Numbering::Unnumbered);
    let mut ledger = ledger_of(&host.log);
    ledger.unreadable();
    let from = host.log.len();
    live(&mut host, 1, stream, 15);
    show(&mut ledger, &host.log[from..]);
    let lost = "lost (a part of the spool cannot be read any more)";
    assert_eq!(said(&ledger, stream), format!("100 received, 111 {lost}, 115 received"));
}

#[test]
fn a_ledger_that_goes_on_in_the_middle_says_what_one_says_that_has_seen_all() {
    let (mut host, stream) = begun(Numbering::Sequence);
    let snapshot = host.continuity.snapshot();
    let head = host.log.len();
    live(&mut host, 1, stream, 14);
    host.end(1);
    let place = host.log.len();
    confirm_again(&mut host, stream, Numbering::Sequence, 120);
    let open: Vec<GapId> = host.asks().iter().map(|ask| ask.gap.id).collect();
    open.into_iter().for_each(|gap| host.lost(gap));

    let stored = ledger_of(&host.log[..place]).stored();
    let mut ledger = Fold::restoring(Continuity::restore(&snapshot).unwrap());
    show(&mut ledger, &host.log[head..place]);
    ledger.resume(stored);
    show(&mut ledger, &host.log[place..]);
    let whole = ledger_of(&host.log);
    assert_eq!(ledger.marks(stream), whole.marks(stream));
    assert!(whole.marks(stream).iter().any(|mark| mark.known.state == State::Lost));
    assert_eq!(host.outcomes().iter().filter(|outcome| matches!(outcome, GapOutcome::Lost(_))).count(), 2);
}
