//! Many gaps of one market, asked for together.

use super::*;

#[test]
fn many_gaps_of_a_market_are_asked_for_together() {
    let venue = Venue { options: true, ..Venue::default() };
    let mut script = script(everything());
    let gaps = many(30);
    let (first, ids) = request(script.on_gap(&gaps));
    let from = at(NEWEST - 91).as_millis();
    assert_eq!(
        first.url,
        format!(
            "http://main.test/api/v2/public/get_last_trades_by_currency?currency=ETH&kind=option&start_timestamp={from}&count=1000&sorting=asc"
        )
    );
    assert_eq!(ids.len(), 30);
    let answered = script.reply(&first, 200, &venue.serve(&first), &gaps).unwrap();
    assert_eq!(answered, ids);
    let symbols: BTreeSet<_> = gaps.iter().map(|gap| gap.stream.symbol.clone()).collect();
    assert!(script.stored.iter().all(|row| symbols.contains(&row.stream.symbol)), "no streams that nobody follows");
}

#[test]
fn options_that_last_traded_long_ago_are_asked_for_together_too() {
    let venue = Venue { options: true, ..Venue::default() };
    let mut script = script(everything());
    let old = |gap: Gap| Gap { after: Some(edge(1)), since: at(NEWEST - 60), ..gap };
    let gaps: Vec<Gap> = many(30).into_iter().map(old).collect();
    let (first, ids) = request(script.on_gap(&gaps));
    assert!(first.url.contains("by_currency"), "{}", first.url);
    assert!(first.url.contains(&format!("start_timestamp={}&", at(NEWEST - 360).as_millis())), "{}", first.url);
    let answered = script.reply(&first, 200, &venue.serve(&first), &gaps).unwrap();
    assert_eq!(answered, ids, "all that may be missing is younger than the first trade of the walk");
}

#[test]
fn a_sweep_does_not_believe_a_host_that_does_not_show_that_it_remembers() {
    let venue = Venue { options: true, ..Venue::default() };
    let mut script = script(everything());
    let old = |gap: Gap| Gap { after: Some(edge(1)), since: at(NEWEST - 60), ..gap };
    let gaps: Vec<Gap> = many(30).into_iter().map(old).collect();
    let (first, _) = request(script.on_gap(&gaps));
    let forgetful = Request {
        url: first.url.replace(&at(NEWEST - 360).as_millis().to_string(), &at(NEWEST - 50).as_millis().to_string()),
        ..first.clone()
    };
    assert_eq!(script.reply(&first, 200, &venue.serve(&forgetful), &gaps).unwrap(), []);
    assert!(request(script.on_gap(&gaps)).0.url.contains("by_instrument"));
}

#[test]
fn a_sweep_of_several_pages_answers_at_its_end() {
    let venue = Venue { options: true, page: 40, ..Venue::default() };
    let mut script = script(everything());
    let gaps = many(30);
    let mut answered = Vec::new();
    let mut pages = 0;
    while answered.is_empty() {
        let (request, ids) = request(script.on_gap(&gaps));
        assert_eq!(ids.len(), 30);
        answered = script.reply(&request, 200, &venue.serve(&request), &gaps).unwrap();
        pages += 1;
    }
    assert_eq!(answered.len(), 30, "the edges were on another page than the end");
    assert_eq!(pages, 3);
    assert!(script.stored.iter().all(|row| row.head.ts_event != at(NEWEST - 15)), "that is of an option without a gap");
}

#[test]
fn a_gap_that_is_not_due_while_a_page_is_fetched_misses_none_of_its_trades() {
    let venue = Venue { options: true, page: 40, ..Venue::default() };
    let mut script = script(everything());
    let gaps = many(30);
    let mut answered = BTreeSet::new();
    // Of the second page only one gap is told to the protocol, of the others the last answer is being worked off.
    for due in [&gaps[..], &gaps[..1], &gaps[..]] {
        let (request, _) = request(script.on_gap(due));
        assert!(request.url.contains("by_currency"), "{}", request.url);
        answered.extend(script.reply(&request, 200, &venue.serve(&request), due).unwrap());
    }
    assert!(answered.len() > 1, "{answered:?}");
    let stored: BTreeSet<_> = script.stored.iter().map(|row| (row.stream.clone(), row.head.ts_event)).collect();
    for gap in gaps.iter().filter(|gap| answered.contains(&gap.id)) {
        let after = gap.after.unwrap().ts_event;
        let mut owed = (NEWEST - 91..=NEWEST).filter(|&n| *gap.stream.symbol == *venue::option(n) && at(n) > after);
        assert!(owed.all(|n| stored.contains(&(gap.stream.clone(), at(n)))), "{gap:?} is answered, and not whole");
    }
}

#[test]
fn pages_in_no_order_of_time_are_not_walked_on_from() {
    let venue = Venue { options: true, page: 40, shuffles: true, ..Venue::default() };
    let mut script = script(everything());
    let gaps = many(30);
    let (first, _) = request(script.on_gap(&gaps));
    assert_eq!(script.reply(&first, 200, &venue.serve(&first), &gaps).unwrap(), []);
    assert!(request(script.on_gap(&gaps)).0.url.contains("by_instrument"));
}

#[test]
fn what_a_sweep_cannot_answer_is_asked_for_one_by_one() {
    let venue = Venue { options: true, ..Venue::default() };
    let mut script = script(everything());
    let mut gaps = many(30);
    // This edge is on no page: the venue has another number there.
    gaps[7].after = Some(Edge { position: Position::Sequence(1), ..gaps[7].after.unwrap() });
    let (first, _) = request(script.on_gap(&gaps));
    let answered = script.reply(&first, 200, &venue.serve(&first), &gaps).unwrap();
    assert_eq!(answered.len(), 29);
    let (single, ids) = request(script.on_gap(&gaps[7..8]));
    assert!(single.url.contains("by_instrument"), "{}", single.url);
    assert_eq!(ids, [gaps[7].id]);
}

#[test]
fn a_sweep_that_needs_more_pages_than_it_saves_is_given_up() {
    let venue = Venue { options: true, page: 5, ..Venue::default() };
    let mut script = script(everything());
    let gaps = many(12);
    for _ in 0..7 {
        let (request, _) = request(script.on_gap(&gaps));
        assert!(request.url.contains("by_currency"), "{}", request.url);
        assert_eq!(script.reply(&request, 200, &venue.serve(&request), &gaps).unwrap(), []);
    }
    let (request, ids) = request(script.on_gap(&gaps));
    assert!(request.url.contains("by_instrument"), "{}", request.url);
    assert_eq!(ids.len(), 1);
}

#[test]
fn few_old_and_other_gaps_are_no_sweep() {
    let mut script = script(everything());
    let is_single = |remedy| request(remedy).0.url.contains("by_instrument");
    assert!(is_single(script.on_gap(&many(10))));
    let old: Vec<_> = many(30).into_iter().map(|gap| Gap { since: at(NEWEST - 4000), ..gap }).collect();
    assert!(is_single(script.on_gap(&old)));
    let beginnings: Vec<_> = many(30).into_iter().map(|gap| Gap { after: None, ..gap }).collect();
    assert!(is_single(script.on_gap(&beginnings)));
    let unknown: Vec<_> = many(30).into_iter().map(|gap| Gap { stream: stream("ETH-STRANGE"), ..gap }).collect();
    assert!(is_single(script.on_gap(&unknown)));
    let expired = |gap: Gap| Gap { stream: stream(&gap.stream.symbol.replace("SEP26", "AUG26")), ..gap };
    assert!(is_single(script.on_gap(&many(30).into_iter().map(expired).collect::<Vec<_>>())));
}

/// Returns many gaps of different options, each last seen at another trade of the last minutes.
fn many(count: u64) -> Vec<Gap> {
    let of = |n: u64| {
        let after = NEWEST - 60 - n;
        gap(n, stream(&venue::option(after)), Some((venue::seq(after), at(after))), None)
    };
    (1..=count).map(of).collect()
}
