//! The page fits its columns, and says what the figures say.

use tidegate_core::ledger::Dropped;

use super::*;

const LONG: &str = "a name that is far longer than any that a table or an instrument should have";
const LATE: Timestamp = Timestamp(4_000_000_000_000_000_000);

fn kind(proof: Proof) -> Kind {
    Kind {
        source: LONG.to_owned(),
        table: LONG.to_owned(),
        streams: 10_000,
        proof,
        from: Timestamp(1),
        to: LATE,
        rows_received: Some(99_999_999_999),
        rows_backfilled: Some(99_999_999),
        filled: 999_999,
        absent: 999_999,
        open: 999_999,
        away: 10_000,
        lost: 999_999,
        lost_seconds: 80_000_000.0,
        lost_because: BTreeMap::from([(LONG.to_owned(), 10_000)]),
        unknown_seconds: 80_000_000.0,
        closed_seconds: 80_000_000.0,
        complete_since: None,
        was_complete: Some(Stretch { from: Timestamp(1), to: LATE }),
        incomplete_at: Vec::new(),
    }
}

fn stream() -> StreamCoverage {
    let interval = |to, state| Interval { from: Timestamp(1), to, state, why: Some(LONG.to_owned()), joined: None };
    let intervals = State::ALL.iter().flat_map(|(state, _)| [interval(Some(LATE), *state), interval(None, *state)]);
    StreamCoverage {
        source: LONG.to_owned(),
        table: LONG.to_owned(),
        symbol: LONG.to_owned(),
        listing: LONG.to_owned(),
        proof: Proof::DenseSequence,
        rows_received: Some(99_999_999),
        rows_backfilled: Some(u64::MAX / 1_000_000_000),
        complete_since: None,
        was_complete: Some(Stretch { from: Timestamp(1), to: LATE }),
        intervals: intervals.collect(),
    }
}

fn skipped(rows: Option<u64>) -> Skipped {
    let (sink, table, why) = (LONG.to_owned(), LONG.to_owned(), LONG.to_owned());
    Skipped { sink, first: u64::MAX, last: u64::MAX, table, rows, why, at: LATE }
}

#[test]
fn no_line_is_wider_than_the_terminal_whatever_stands_in_it() {
    let (table, symbol, sink) = (LONG.to_owned(), LONG.to_owned(), Some(LONG.to_owned()));
    let dropped =
        Dropped { table, symbol, sink, fate: Some(Fate::PartlyLost), rows: u64::MAX, first_at: LATE, last_at: LATE };
    let coverage = Coverage {
        offset: u64::MAX,
        counts_all: true,
        from: Some(Timestamp(1)),
        to: Some(LATE),
        stopped: Some(LATE),
        is_lost: true,
        totals: Totals::default(),
        sinks: Vec::new(),
        kinds: vec![kind(Proof::DenseSequence), kind(Proof::History), kind(Proof::None)],
        dropped: vec![Dropped { rows: 99_999_999_999, ..dropped }],
        unreadable: vec![Unread { first: u64::MAX, last: u64::MAX, sinks: vec![LONG.to_owned()] }],
        skipped: [None, Some(u64::MAX)].map(skipped).into(),
        streams: vec![stream()],
    };
    let coverage = coverage.with_dead_letters(BTreeMap::from([(LONG.to_owned(), 99_999_999_999)]));
    for (by, width) in [40, 60, 79, 80].into_iter().flat_map(|width| [(By::Table, width), (By::Stream, width)]) {
        let page = Page { pipeline: LONG, coverage: &coverage, by, width }.to_string();
        let wide: Vec<&str> = page.lines().filter(|line| line.chars().count() > width).collect();
        assert!(wide.is_empty(), "{width}: {wide:#?}");
        assert!(page.contains("a name that is") && page.contains("99,999,9"), "{width}: {page}");
    }
}

#[test]
fn a_narrow_page_says_all_that_a_wide_one_says() {
    let coverage = Coverage {
        offset: 1,
        counts_all: true,
        from: Some(Timestamp(1)),
        to: Some(LATE),
        stopped: None,
        is_lost: false,
        totals: Totals::default(),
        sinks: Vec::new(),
        kinds: vec![Kind { table: "trades".to_owned(), ..kind(Proof::History) }],
        dropped: Vec::new(),
        unreadable: Vec::new(),
        skipped: Vec::new(),
        streams: vec![StreamCoverage { table: "trades".to_owned(), symbol: "ETH".to_owned(), ..stream() }],
    };
    for by in [By::Table, By::Stream] {
        let words = |width| {
            let page = Page { pipeline: "eth", coverage: &coverage, by, width }.to_string();
            let words = page.split([' ', '\n', ',']).map(|word| word.trim_end_matches([':', ','])).map(str::to_owned);
            words.collect::<std::collections::BTreeSet<_>>()
        };
        let missing: Vec<_> = words(80).difference(&words(60)).cloned().collect();
        assert_eq!(missing, ["streams"; 0].into_iter().collect::<Vec<&str>>(), "{by:?}");
    }
}

/// A page is one truth: what it says of a table, of a sink, in total and by its exit code is of the same losses.
#[expect(clippy::too_many_lines, reason = "a table of cases")]
#[test]
fn what_sinks_lack_is_on_the_page_in_its_total_and_in_the_exit_code() {
    let at = Timestamp(1_790_000_000_000_000_000);
    let trades = |lost: usize| Kind {
        table: "trades".to_owned(),
        source: "deribit".to_owned(),
        streams: 2,
        from: at,
        to: at,
        rows_received: Some(1_234),
        rows_backfilled: Some(5),
        filled: 3,
        absent: 0,
        open: 0,
        away: 0,
        lost,
        lost_seconds: lost as f64 * 60.0,
        lost_because: (0..lost.min(1)).map(|_| ("the venue forgot".to_owned(), 1)).collect(),
        unknown_seconds: 0.0,
        closed_seconds: 0.0,
        complete_since: Some(at),
        was_complete: None,
        ..kind(Proof::DenseSequence)
    };
    let clean = Coverage {
        offset: 10,
        counts_all: true,
        from: Some(at),
        to: Some(at),
        stopped: None,
        is_lost: false,
        totals: Totals::default(),
        kinds: vec![trades(0)],
        sinks: Vec::new(),
        dropped: Vec::new(),
        unreadable: Vec::new(),
        skipped: Vec::new(),
        streams: Vec::new(),
    };
    let dropped = Dropped {
        table: "trades".to_owned(),
        symbol: "ETH".to_owned(),
        sink: Some("sqlite".to_owned()),
        fate: None,
        rows: 70,
        first_at: at,
        last_at: at,
    };
    let thrown_away = Dropped { sink: None, ..dropped.clone() };
    let skip = |rows, table: &str| Skipped {
        sink: "sqlite".to_owned(),
        table: table.to_owned(),
        first: 1,
        last: 9,
        why: "left out: the store was gone by".to_owned(),
        ..skipped(rows)
    };
    let unread = |sinks: &[&str]| Unread { first: 4, last: 6, sinks: sinks.iter().map(|&sink| sink.into()).collect() };
    let cases = [
        (
            clean.clone(),
            0,
            "total: 3 gaps filled, 0 open, 0 lost",
            vec!["trades: complete since 2026-09-21 14:13:20\n"],
        ),
        (
            Coverage { kinds: vec![trades(2)], ..clean.clone() },
            0,
            "total: 3 gaps filled, 0 open, 2 lost",
            vec!["trades: lost of 1 stream: the venue forgot\n"],
        ),
        (
            Coverage { dropped: vec![dropped.clone()], ..clean.clone() },
            0,
            "total: 3 gaps filled, 0 open, 0 lost; 70 rows lost at sinks",
            vec![
                "trades: complete since 2026-09-21 14:13:20, but at sqlite\n",
                "trades: 70 rows dropped unread by sqlite: spool full\n",
                "at sqlite: 70 rows lost\n",
            ],
        ),
        (
            Coverage {
                skipped: vec![skip(None, ""), skip(Some(34), "trades")],
                dropped: vec![dropped],
                ..clean.clone()
            },
            2,
            "total: 3 gaps filled, 0 open, 0 lost; at least 104 rows lost at sinks; 2 dead\n    letters wait",
            vec![
                "trades: complete since 2026-09-21 14:13:20, but at sqlite\n",
                "offsets 1 to 9 lost at sqlite: left out: the store was gone by\n",
                "trades: 34 rows lost at sqlite: left out: the store was gone by\n",
                "at sqlite: at least 104 rows lost, 2 dead letters wait\n",
            ],
        ),
        (
            Coverage { unreadable: vec![unread(&["sqlite"])], ..clean.clone() },
            0,
            "total: 3 gaps filled, 0 open, 0 lost; rows that nobody could count lost at sinks",
            vec!["spool: offsets 4 to 6 cannot be read by sqlite\n", ", but at sqlite\n"],
        ),
        (
            Coverage { unreadable: vec![unread(&[])], ..clean.clone() },
            0,
            "total: 3 gaps filled, 0 open, 0 lost; rows that nobody could count lost in the\n    spool",
            vec!["spool: offsets 4 to 6 cannot be read\n"],
        ),
        (
            Coverage {
                kinds: vec![Kind {
                    complete_since: None,
                    was_complete: Some(Stretch { from: at, to: Timestamp(at.0 + 60_000_000_000) }),
                    open: 1,
                    ..trades(0)
                }],
                ..clean.clone()
            },
            0,
            "total: 3 gaps filled, 1 open, 0 lost",
            vec!["trades: complete from 2026-09-21 14:13:20 to 2026-09-21 14:14:20\ntrades: 1 gap open, asked for\n"],
        ),
        (
            Coverage { dropped: vec![thrown_away.clone()], ..clean.clone() },
            0,
            "total: 3 gaps filled, 0 open, 0 lost",
            vec![
                "trades: complete since 2026-09-21 14:13:20\n",
                "trades: 70 rows thrown away: spool full; all that was missing came again\n",
            ],
        ),
        (
            Coverage {
                kinds: vec![Kind { open: 2, ..trades(0) }],
                dropped: vec![Dropped { rows: 1, ..thrown_away.clone() }],
                ..clean.clone()
            },
            0,
            "total: 3 gaps filled, 2 open, 0 lost",
            vec!["trades: 1 row thrown away: spool full; asked for again\n"],
        ),
        (
            Coverage { kinds: vec![trades(2)], dropped: vec![thrown_away.clone()], ..clean.clone() },
            0,
            "total: 3 gaps filled, 0 open, 2 lost",
            vec!["trades: 70 rows thrown away: spool full; what did not come again is lost\n"],
        ),
        (
            Coverage {
                kinds: vec![Kind { proof: Proof::None, ..trades(0) }],
                dropped: vec![thrown_away],
                ..clean.clone()
            },
            0,
            "total: 3 gaps filled, 0 open, 0 lost",
            vec!["trades: 70 rows thrown away: spool full; the venue does not repeat it\n"],
        ),
        (
            clean,
            1,
            "total: 3 gaps filled, 0 open, 0 lost; 1 dead letter waits",
            vec!["trades: complete since 2026-09-21 14:13:20\n", "at sqlite: 1 dead letter waits\n"],
        ),
    ];
    for (coverage, letters, total, lines) in cases {
        let coverage = coverage.with_dead_letters(BTreeMap::from([("sqlite".to_owned(), letters)]));
        let page = Page { pipeline: "eth", coverage: &coverage, by: By::Table, width: 80 }.to_string();
        assert!(page.ends_with(&format!("\n{total}\n")), "{total}: {page}");
        for line in lines {
            assert!(page.contains(line), "{line}: {page}");
        }
        let says_lost = coverage.totals.lost > 0 || total.contains("; rows that") || total.contains("lost at sinks");
        assert_eq!(coverage.is_lost, says_lost, "{page}");
    }
}

#[test]
fn the_help_names_every_state_and_every_exit_code() {
    for (_, name) in State::ALL {
        assert!(super::super::COVERAGE_EXAMPLES.contains(name), "{name}");
    }
    assert!(["Exit code 1 if", "Exit code 2 where"].iter().all(|code| super::super::COVERAGE_EXAMPLES.contains(code)));
}

#[test]
fn lengths_of_time_and_numbers_are_short() {
    let spans = [0.0, 0.04, 11.8, 119.9, 120.0, 3_599.0, 7_200.0, 86_400.0 * 3.5].map(span);
    assert_eq!(spans, ["0", "0.0 s", "11.8 s", "119.9 s", "2m 0s", "59m 59s", "2h 0m", "3d 12h"]);
    let numbers = [0, 999, 1_000, 99_999_999, 100_000_000, 12_345_678_901].map(short);
    assert_eq!(numbers, ["0", "999", "1,000", "99,999,999", "100 M", "12,345 M"]);
}
