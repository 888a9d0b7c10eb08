//! Each kind of wrong row is seen for what it is, and what the venue cannot repeat is not held against the pipeline.

use std::collections::BTreeMap;

use super::{
    super::oracle::{Direction, Mark, Subscription},
    *,
};

const OPTION: &str = "ETH-26SEP26-2760-C";

/// A venue that made three trades before anybody came and four afterwards, and sent five tickers, 1 s apart, in each of two
/// sessions, of which the first was cut.
fn oracle() -> Oracle {
    let mut oracle = Oracle::default();
    oracle.trades.insert(OPTION.to_owned(), (1..=7).map(made).collect());
    let subscription = Subscription {
        channel: format!("trades.{OPTION}.100ms"),
        confirmed_ms: 1_000,
        from: BTreeMap::from([(OPTION.to_owned(), Mark { epoch: 0, seq: 3 })]),
        ended: None,
    };
    let tickers = |volumes: std::ops::Range<u32>| {
        let sent = |volume| Handed { key: f64::from(volume) / 2.0, at_ms: 1_000 + 1_000 * i64::from(volume) };
        BTreeMap::from([(OPTION.to_owned(), volumes.map(sent).collect())])
    };
    let first = Session { opened_ms: 900, ended_ms: Some(5_100), tickers: tickers(0..5), ..Session::default() };
    let second =
        Session { opened_ms: 5_700, subscriptions: vec![subscription], tickers: tickers(5..10), ..Session::default() };
    oracle.sessions = vec![first, second];
    oracle
}

fn made(seq: u64) -> Trade {
    Trade {
        epoch: 0,
        seq,
        id: 100 + seq,
        timestamp: 1_000 + seq as i64,
        price: 0.015,
        amount: 2.0,
        direction: Direction::Buy,
        index_price: 2_700.0,
        mark_price: 0.0149,
        iv: Some(61.0),
        tick_direction: 0,
        raw: None,
    }
}

fn row(seq: u64) -> StoredTrade {
    StoredTrade {
        id: format!("ETH-{}", 100 + seq),
        price: 0.015,
        size: 2.0,
        side: "buy".to_owned(),
        ts_event_ms: 1_000 + seq as i64,
        backfilled: seq == 5,
    }
}

fn stored(seqs: &[u64], volumes: &[u32]) -> Stored {
    let trades = HashMap::from([(OPTION.to_owned(), seqs.iter().copied().map(row).collect())]);
    let volumes = volumes.iter().map(|volume| f64::from(*volume) / 2.0).collect();
    Stored { trades, tickers: HashMap::from([(OPTION.to_owned(), volumes)]), ..Stored::default() }
}

fn history() -> History {
    History { began_ms: vec![800], ..History::default() }
}

const ALL: [u32; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

#[test]
fn a_store_that_holds_what_is_owed_is_exact() {
    let comparison = Comparison::of(&oracle(), &stored(&[4, 5, 6, 7], &ALL), &history(), 9_000);
    assert!(comparison.is_exact(), "{comparison:?}");
    let Comparison { trades, tickers, silent_ms, .. } = comparison;
    assert_eq!(trades, Trades { made: 4, stored: 4, by_rest: 1, ..Trades::default() });
    assert_eq!(tickers, Unrepeated { sent: 10, stored: 10, ..Unrepeated::default() });
    assert_eq!(silent_ms, 600);
}

#[test]
fn a_trade_that_is_not_there_is_missing_and_one_from_before_is_no_fault() {
    let comparison = Comparison::of(&oracle(), &stored(&[2, 4, 5, 7], &ALL), &history(), 9_000);
    let expected = Trades { made: 4, stored: 3, by_rest: 1, missing: 1, earlier: 1, ..Trades::default() };
    assert_eq!(comparison.trades, expected);
    assert!(!comparison.is_exact());
    assert_eq!(comparison.examples, [format!("missing: trade ETH-106 of {OPTION}, number 6")]);
}

#[test]
fn a_row_too_many_is_counted_once_for_each_copy() {
    let comparison =
        Comparison::of(&oracle(), &stored(&[4, 4, 4, 5, 6, 7], &[0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9]), &history(), 9_000);
    assert_eq!((comparison.trades.twice, comparison.tickers.twice), (2, 1));
    assert_eq!((comparison.trades.stored, comparison.tickers.stored), (4, 10), "a copy is no second row");
    assert!(!comparison.is_exact());
}

#[test]
fn tickers_that_are_gone_are_holes_wherever_they_were() {
    let holes = |volumes: &[u32]| {
        let comparison = Comparison::of(&oracle(), &stored(&[4, 5, 6, 7], volumes), &history(), 19_000);
        let Unrepeated { sent, stored, holes, in_flight, .. } = comparison.tickers;
        assert_eq!(stored + holes + in_flight, sent, "every one has one fate");
        assert_eq!(comparison.is_exact(), holes == 0, "{comparison:?}");
        (holes, in_flight)
    };
    assert_eq!(holes(&[1, 2, 3, 4, 5, 6, 7, 8, 9]), (1, 0), "at the beginning");
    assert_eq!(holes(&[0, 1, 3, 4, 5, 6, 7, 8, 9]), (1, 0), "in the middle");
    assert_eq!(holes(&[0, 1, 2, 3, 4, 5, 6, 7, 8]), (1, 0), "at the end of a session that nobody has cut");
    assert_eq!(holes(&[0, 1, 2, 5, 6, 7, 8, 9]), (0, 2), "the last moments before a cut are no holes");
    assert_eq!(holes(&[0, 1, 2, 4, 5, 6, 7, 8, 9]), (1, 0), "unless what came behind is there");
    assert_eq!(holes(&[0, 5, 6, 7, 8, 9]), (2, 2), "what was sent long before the cut had its time");
    assert_eq!(holes(&[5, 6, 7, 8, 9]), (3, 2), "all of a session that was cut");
    assert_eq!(holes(&[]), (8, 2), "all of them");
}

#[test]
fn quotes_and_books_are_the_beginning_of_what_each_session_sent_each_once() {
    let book = |change_id, snapshot| BookKey { change_id, snapshot };
    let sent = |messages: &[(u64, bool, i64)]| {
        let handed = |(id, snapshot, at_ms): &(u64, bool, i64)| Handed { key: book(*id, *snapshot), at_ms: *at_ms };
        BTreeMap::from([(OPTION.to_owned(), messages.iter().map(handed).collect())])
    };
    let mut oracle = oracle();
    // The book has not changed between the sessions, so both begin with the same whole state.
    oracle.sessions[0].books = sent(&[(1, true, 1_000), (2, false, 2_000), (7, true, 5_000)]);
    oracle.sessions[1].books = sent(&[(7, true, 6_000), (8, false, 7_000)]);
    oracle.sessions[1].quotes = BTreeMap::from([(OPTION.to_owned(), vec![Handed { key: 6_500, at_ms: 6_500 }])]);
    let compare = |books: &[BookKey], quotes: &[i64]| {
        let mut stored = stored(&[4, 5, 6, 7], &ALL);
        stored.books.insert(OPTION.to_owned(), books.to_vec());
        stored.quotes.insert(OPTION.to_owned(), quotes.to_vec());
        let comparison = Comparison::of(&oracle, &stored, &history(), 19_000);
        let Unrepeated { stored, holes, twice, in_flight, .. } = comparison.books;
        (stored, holes, twice, in_flight, comparison.quotes.holes + comparison.quotes.twice + comparison.invented)
    };
    let [one, two, seven, eight] = [book(1, true), book(2, false), book(7, true), book(8, false)];
    assert_eq!(compare(&[one, two, seven, seven, eight], &[6_500]), (5, 0, 0, 0, 0));
    assert_eq!(compare(&[one, two, seven, eight], &[6_500]), (4, 0, 0, 1, 0), "one of the two was in flight");
    assert_eq!(compare(&[one, seven, eight], &[6_500]), (3, 1, 0, 1, 0), "a hole in the middle");
    assert_eq!(compare(&[one, two, seven, seven, eight, eight], &[6_500]), (5, 0, 1, 0, 0));
    assert_eq!(compare(&[one, two, seven, seven, eight], &[]), (5, 0, 0, 0, 1), "a quote that is missing");
    assert_eq!(
        compare(&[one, two, seven, seven, eight], &[6_500, 6_500, 6_501]),
        (5, 0, 0, 0, 2),
        "twice and invented"
    );
}

#[test]
fn nothing_was_in_flight_in_a_session_of_which_the_pipeline_had_stored_all() {
    let settled = History { settled: BTreeSet::from([1]), ..history() };
    let comparison = Comparison::of(&oracle(), &stored(&[4, 5, 6, 7], &[0, 1, 2, 5, 6, 7, 8, 9]), &settled, 19_000);
    assert_eq!((comparison.tickers.holes, comparison.tickers.in_flight), (2, 0));
    let holes = format!(
        "holes: 2 of 5 tickers of {OPTION} in session 1 (its end: none yet), 2 with nothing stored behind them"
    );
    assert_eq!(comparison.examples, [holes]);
}

#[test]
fn what_the_venue_did_not_make_is_invented() {
    let mut other_price = stored(&[4, 5, 6, 7], &ALL);
    other_price.trades.get_mut(OPTION).unwrap()[0].price = 0.016;
    let comparison = Comparison::of(&oracle(), &other_price, &history(), 9_000);
    assert_eq!((comparison.invented, comparison.trades.missing), (1, 1), "the true one is not there");

    let mut strangers = stored(&[4, 5, 6, 7], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11]);
    strangers.trades.insert("BTC-PERPETUAL".to_owned(), vec![row(1)]);
    strangers.tickers.insert("BTC-PERPETUAL".to_owned(), vec![1.0, 2.0]);
    strangers.unknown_tickers = 1;
    let comparison = Comparison::of(&oracle(), &strangers, &history(), 9_000);
    assert_eq!(comparison.invented, 5);
    assert!(!comparison.is_exact() && comparison.trades.missing == 0);
}

#[test]
fn a_venue_that_nobody_came_to_proves_nothing() {
    let comparison = Comparison::of(&Oracle::default(), &Stored::default(), &history(), 9_000);
    assert!(comparison.is_empty() && !comparison.is_exact());
}

#[test]
fn an_empty_store_misses_every_owed_trade() {
    let comparison = Comparison::of(&oracle(), &Stored::default(), &history(), 9_000);
    assert_eq!((comparison.trades.missing, comparison.tickers.holes, comparison.tickers.in_flight), (4, 8, 2));
    assert_eq!(comparison.examples.len(), 3 + 2, "some of each kind: {:?}", comparison.examples);
}

#[test]
fn a_session_of_which_nothing_was_claimed_or_stored_is_not_owed() {
    let mut oracle = oracle();
    let mut early = oracle.sessions[1].subscriptions[0].clone();
    early.from.insert(OPTION.to_owned(), Mark { epoch: 0, seq: 1 });
    oracle.sessions[0].subscriptions.push(early);
    oracle.sessions[0].tickers.get_mut(OPTION).unwrap().drain(..3);

    let only_second = stored(&[4, 5, 6, 7], &[5, 6, 7, 8, 9]);
    let comparison = Comparison::of(&oracle, &only_second, &history(), 9_000);
    assert!(comparison.is_exact(), "killed before its first write: {comparison:?}");
    let claimed = History { claimed_from: Some(1), ..history() };
    assert_eq!(
        Comparison::of(&oracle, &only_second, &claimed, 9_000).trades.missing,
        2,
        "it had said that it was storing"
    );
    let both = stored(&[4, 5, 6, 7], &[3, 5, 6, 7, 8, 9]);
    assert_eq!(Comparison::of(&oracle, &both, &history(), 9_000).trades.missing, 2, "a ticker of it is there");
}

#[test]
fn while_the_venue_itself_was_not_running_is_not_silence() {
    let silent = |up: &[(i64, i64)], began_ms: &[i64], ended_ms| time_outside(up.iter().copied(), began_ms, ended_ms);
    let up = [(1_000, 5_000), (90_300, 95_000), (95_500, i64::MAX)];
    assert_eq!(silent(&up, &[900, 90_000], 99_000), 300 + 500);
    assert_eq!(silent(&up, &[900], 99_000), 85_300 + 500);
    assert_eq!(silent(&[], &[900], 99_000), 0);
    let overlapping = [(1_000, 5_000), (4_000, 9_000), (9_100, i64::MAX)];
    assert_eq!(silent(&overlapping, &[], 99_000), 100);
    assert_eq!(silent(&[(1_000, 5_000)], &[900], 6_500), 1_500, "nobody came back");
}

#[test]
fn not_heard_is_of_all_runs_as_not_sent_is_and_never_shorter() {
    let mut oracle = oracle();
    oracle.sessions[1].subscriptions[0].confirmed_ms = 5_750;
    let unheard = |oracle: &Oracle, volumes: &[u32], began_ms: &[i64]| {
        let history = History { began_ms: began_ms.to_vec(), ..History::default() };
        let comparison = Comparison::of(oracle, &stored(&[4, 5, 6, 7], volumes), &history, 19_000);
        assert!(comparison.unheard_ms >= comparison.silent_ms, "{comparison:?}");
        comparison.unheard_ms
    };
    assert_eq!(unheard(&oracle, &ALL, &[800]), 750, "from the last ticker, 5,000, to the confirmation");
    assert_eq!(unheard(&oracle, &ALL[..4], &[800]), 1_700 + 13_300, "of the second session nothing came");
    assert_eq!(unheard(&oracle, &ALL, &[800, 5_500]), 250, "the venue stood still in between");
    oracle.sessions[1].ended_ms = Some(11_500);
    assert_eq!(unheard(&oracle, &ALL, &[800]), 750 + 9_000, "nobody came back");
}
