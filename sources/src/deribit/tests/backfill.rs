//! Gaps: what is asked of which host, and what counts as an answer.

mod sweeps;
mod venue;

use std::collections::BTreeSet;

use tidegate_core::{
    protocol::{Edge, Gap, GapId, Remedy, Request},
    row::{Numbering, Origin, Position, StreamKey},
    testkit::gap,
};

use super::*;
use crate::deribit::pools;
use venue::{Venue, at};

const SYMBOL: &str = "ETH-PERPETUAL";

fn stream(symbol: &str) -> StreamKey {
    StreamKey::new("trades", symbol)
}

/// Returns a gap whose edges are trades of the model venue.
fn between(after: u64, before: Option<u64>) -> Gap {
    gap(1, stream(SYMBOL), Some((after, at(after))), before.map(|before| (before, at(before))))
}

/// Returns a gap that asks for the newest trade before a time, and all from then on.
fn baseline(since: Timestamp, before: Option<u64>) -> Gap {
    Gap { since, ..gap(1, stream(SYMBOL), None, before.map(|before| (before, at(before)))) }
}

/// What came of asking for one gap until there was nothing more to do.
#[derive(Debug)]
struct Outcome {
    asked: Vec<String>,
    found: BTreeSet<u64>,
    /// `None` when it was answered.
    lost: Option<&'static str>,
}

impl Outcome {
    fn hosts(&self) -> String {
        self.asked.iter().map(|url| if url.starts_with(HISTORY) { 'h' } else { 'm' }).collect()
    }
}

/// Asks for a gap as the driver does: what was found makes it smaller, until it is answered, lost, or filled.
fn heal(script: &mut Script<Deribit>, venue: &Venue, mut gap: Gap) -> Outcome {
    let (after, before) = (number(gap.after), number(gap.before));
    let mut outcome = Outcome { asked: Vec::new(), found: BTreeSet::new(), lost: None };
    for _ in 0..100 {
        let (request, gaps) = match script.on_gap(std::slice::from_ref(&gap)) {
            Remedy::Fetch { request, gaps } => (request, gaps),
            Remedy::Lost { why, .. } => return Outcome { lost: Some(why), ..outcome },
            other @ Remedy::Resubscribe { .. } => panic!("{other:?}"),
        };
        assert_eq!(gaps, [gap.id]);
        let body = venue.serve(&request);
        // A driver leaves a pause behind a reply that brought nothing.
        script.at(Timestamp(script.now().0 + 61_000_000_000));
        let answered = script.reply(&request, 200, &body, std::slice::from_ref(&gap)).unwrap();
        outcome.asked.push(request.url);
        for row in script.stored.drain(..) {
            assert_eq!(row.head.origin, Origin::Backfill);
            outcome.found.insert(row.head.position.number().unwrap());
        }
        let is_there = |n: &u64| outcome.found.contains(n);
        if let (Some(after), Some(before)) = (after, before) {
            if (after + 1..before).all(|n| is_there(&n)) {
                return outcome;
            }
            let last = (after + 1..before).rev().find(|n| !is_there(n)).unwrap() + 1;
            gap.before = Some(edge(last));
        }
        if let Some(after) = after {
            gap.after = Some(edge((after + 1..).find(|n| !is_there(n)).unwrap() - 1));
        }
        if answered.contains(&gap.id) {
            return outcome;
        }
    }
    panic!("it asks for ever: {outcome:#?}");
}

fn edge(n: u64) -> Edge {
    Edge { position: Position::Sequence(n), ts_event: at(n) }
}

fn number(edge: Option<Edge>) -> Option<u64> {
    edge.and_then(|edge| edge.position.number())
}

fn request(remedy: Remedy) -> (Request, Vec<GapId>) {
    let Remedy::Fetch { request, gaps } = remedy else { panic!("{remedy:?}") };
    (request, gaps)
}

/// The model venue has made this many trades up to now, one a second.
const NEWEST: u64 = 1_000_000;

#[test]
fn what_lies_between_two_known_trades_is_fetched_with_both_of_them() {
    let mut script = script(everything());
    let outcome = heal(&mut script, &Venue::default(), between(NEWEST - 50, Some(NEWEST - 10)));
    assert_eq!(
        outcome.asked,
        [
            "http://main.test/api/v2/public/get_last_trades_by_instrument?instrument_name=ETH-PERPETUAL&count=1000&sorting=asc&start_seq=999950&end_seq=999990"
        ]
    );
    assert_eq!(outcome.found, (NEWEST - 50..=NEWEST - 10).collect());
}

#[test]
fn an_open_end_is_answered_by_a_page_that_holds_the_last_trade_and_nothing_more() {
    let mut script = script(everything());
    let outcome = heal(&mut script, &Venue::default(), between(NEWEST, None));
    assert_eq!(
        outcome.asked,
        [
            "http://main.test/api/v2/public/get_last_trades_by_instrument?instrument_name=ETH-PERPETUAL&count=1000&sorting=asc&start_seq=1000000"
        ]
    );
    assert_eq!(outcome.found, [NEWEST].into());
    assert_eq!(outcome.lost, None);
}

#[test]
fn a_long_gap_takes_several_pages_each_beginning_with_the_end_of_the_last() {
    let mut script = script(everything());
    let outcome = heal(&mut script, &Venue::default(), between(NEWEST - 2500, None));
    assert_eq!(outcome.hosts(), "mmm");
    assert!(outcome.asked[1].ends_with("start_seq=998499"), "{:?}", outcome.asked);
    assert_eq!(outcome.found, (NEWEST - 2500..=NEWEST).collect());
}

#[test]
fn a_number_that_never_was_does_not_make_the_pages_begin_anew() {
    let venue = Venue { never: [NEWEST - 2400].into(), ..Venue::default() };
    let outcome = heal(&mut script(everything()), &venue, between(NEWEST - 2500, None));
    assert_eq!(outcome.hosts(), "mmm", "{:?}", outcome.asked);
    assert_eq!(outcome.found.len(), 2500);
    let outcome = heal(&mut script(everything()), &venue, between(NEWEST - 2401, Some(NEWEST - 2399)));
    assert_eq!(outcome.hosts(), "m", "an answer that holds both neighbours shows that there is none");
    assert_eq!(outcome.lost, None);
}

#[test]
fn what_the_main_host_has_forgotten_comes_from_the_history_host_in_any_order() {
    let day = 86_400;
    let (after, before) = (NEWEST - 2 * day, NEWEST - 2 * day + 1500);
    let outcome = heal(&mut script(everything()), &Venue::default(), between(after, Some(before)));
    assert_eq!(outcome.found, (after..=before).collect());
    assert_eq!(outcome.lost, None);
    assert_eq!(outcome.hosts(), "mhh", "{:?}", outcome.asked);
}

#[test]
fn an_open_end_is_not_believed_of_the_history_host_alone() {
    let quiet = Venue { only: Some([5, NEWEST - 4 * 86_400].into()), ..Venue::default() };
    let outcome = heal(&mut script(everything()), &quiet, between(NEWEST - 4 * 86_400, None));
    assert_eq!(outcome.hosts(), "mh", "the main host first, for the last day");
    assert_eq!(outcome.lost, None);

    let mut script = script(everything());
    let gap = between(NEWEST - 4 * 86_400, None);
    let (first, _) = request(script.on_gap(std::slice::from_ref(&gap)));
    let not_all = r#"{"result":{"trades":[],"has_more":true}}"#;
    script.reply(&first, 200, not_all, std::slice::from_ref(&gap)).unwrap();
    let (second, _) = request(script.on_gap(std::slice::from_ref(&gap)));
    assert!(second.url.starts_with(HISTORY));
    let answered = script.reply(&second, 200, &quiet.serve(&second), std::slice::from_ref(&gap)).unwrap();
    assert_eq!(answered, [], "the main host had more to say");
}

#[test]
fn an_answer_of_the_last_session_proves_nothing_about_the_begin_of_this_one() {
    let quiet = Venue { only: Some([NEWEST - 4 * 86_400].into()), ..Venue::default() };
    let mut script = script(everything());
    let gap = between(NEWEST - 4 * 86_400, None);
    let (first, _) = request(script.on_gap(std::slice::from_ref(&gap)));
    script.reply(&first, 200, &quiet.serve(&first), std::slice::from_ref(&gap)).unwrap();
    script.open().unwrap();
    let (again, _) = request(script.on_gap(std::slice::from_ref(&gap)));
    assert!(again.url.starts_with(MAIN), "asked anew");
}

#[test]
fn a_host_that_lags_is_asked_again_and_not_believed() {
    let lagging = Venue { lag: 40, ..Venue::default() };
    let mut script = script(everything());
    let gap = between(NEWEST - 100, Some(NEWEST - 20));
    let mut hosts = String::new();
    for _ in 0..12 {
        let (request, _) = request(script.on_gap(std::slice::from_ref(&gap)));
        hosts.push(if request.url.starts_with(HISTORY) { 'h' } else { 'm' });
        let answered = script.reply(&request, 200, &lagging.serve(&request), std::slice::from_ref(&gap)).unwrap();
        assert_eq!(answered, [], "the trade behind the gap is not there yet");
    }
    assert_eq!(hosts, "mhmhmhmhmhmh", "a young gap is never given up");
    let (request, _) = request(script.on_gap(std::slice::from_ref(&gap)));
    let answered = script.reply(&request, 200, &Venue::default().serve(&request), std::slice::from_ref(&gap)).unwrap();
    assert_eq!(answered, [gap.id]);
}

#[test]
fn an_old_gap_is_lost_when_both_hosts_were_without_its_edge_twice() {
    let forgetful = Venue { history_from: NEWEST - 1000, ..Venue::default() };
    let outcome = heal(&mut script(everything()), &forgetful, between(NEWEST - 200_000, Some(NEWEST - 199_000)));
    assert_eq!(outcome.hosts(), "mhmh");
    assert_eq!(outcome.lost, Some("the venue forgot"));
}

#[test]
fn without_a_history_host_the_main_host_decides() {
    let Endpoint::Own(hosts) = everything().endpoint else { unreachable!() };
    let endpoint = Endpoint::Own(Hosts { history: None, ..hosts });
    let config = DeribitConfig { endpoint, ..everything() };
    let outcome = heal(&mut script(config.clone()), &Venue::default(), between(NEWEST - 200_000, None));
    assert_eq!((outcome.hosts(), outcome.lost), ("mm".into(), Some("the venue forgot")));
    let outcome = heal(&mut script(config), &Venue::default(), between(NEWEST - 2000, None));
    assert_eq!((outcome.hosts(), outcome.lost), ("mmm".into(), None));
}

#[test]
fn a_gap_that_is_known_to_be_young_needs_no_neighbour_that_is_old() {
    let quiet = Venue { only: Some([NEWEST - 4 * 86_400].into()), ..Venue::default() };
    let gap = Gap { since: at(NEWEST - 60), ..between(NEWEST - 4 * 86_400, None) };
    let outcome = heal(&mut script(everything()), &quiet, gap.clone());
    assert_eq!((outcome.hosts(), outcome.lost), ("m".into(), None), "the main host remembers the time that is owed");
    let from = format!("&sorting=asc&start_timestamp={}", at(NEWEST - 60).as_millis());
    assert!(outcome.asked[0].ends_with(&from), "{:?}", outcome.asked);

    let busy = Venue {
        only: Some((NEWEST - 4 * 86_400..=NEWEST - 4 * 86_400).chain(NEWEST - 2500..=NEWEST).collect()),
        ..Venue::default()
    };
    let outcome = heal(&mut script(everything()), &busy, Gap { since: at(NEWEST - 2500), ..gap.clone() });
    assert_eq!(outcome.found, (NEWEST - 2500..=NEWEST).collect());
    assert_eq!((outcome.hosts(), outcome.lost), ("mmm".into(), None));

    let Endpoint::Own(hosts) = everything().endpoint else { unreachable!() };
    let endpoint = Endpoint::Own(Hosts { history: None, ..hosts });
    let mut script = script(DeribitConfig { endpoint, ..everything() });
    let outcome = heal(&mut script, &quiet, gap.clone());
    assert_eq!((outcome.hosts(), outcome.lost), ("m".into(), None), "no other host is needed for it");
    let bounded = Gap { before: Some(edge(NEWEST - 30)), ..gap };
    let (request, _) = request(script.on_gap(&[bounded]));
    assert!(request.url.contains("start_seq="), "between two numbers both of them have to be shown: {}", request.url);
}

#[test]
fn refusals_say_nothing_of_what_the_venue_has_however_many_they_are() {
    let refusals = [
        (403, "<html>blocked</html>"),
        (404, "not found"),
        (200, "<html>maintenance</html>"),
        (400, r#"{"error":{"code":-32602,"message":"Invalid params"}}"#),
        (200, r#"{"error":{"code":13021,"message":"forbidden"}}"#),
    ];
    for (status, body) in refusals {
        let mut script = script(everything());
        let gap = between(NEWEST - 200_000, Some(NEWEST - 199_990));
        let mut hosts = String::new();
        for minute in 0..10 {
            let (request, _) = request(script.on_gap(std::slice::from_ref(&gap)));
            hosts.push(if request.url.starts_with(HISTORY) { 'h' } else { 'm' });
            script.at(Timestamp(NOW.0 + minute * 60_000_000_000));
            // A web page with the status 200 is malformed; the gap is open all the same.
            drop(script.reply(&request, status, body, std::slice::from_ref(&gap)));
        }
        assert_eq!(hosts, "mhmhmhmhmh", "{body}");
        let outcome = heal(&mut script, &Venue::default(), gap);
        assert_eq!(outcome.lost, None, "{body}");
        assert!(outcome.found.contains(&(NEWEST - 199_999)));
    }
}

#[test]
fn a_venue_has_forgotten_only_what_it_was_without_at_two_looks_a_minute_apart() {
    let forgetful = Venue { history_from: NEWEST - 1000, ..Venue::default() };
    let gap = between(NEWEST - 200_000, Some(NEWEST - 199_000));
    let mut script = script(everything());
    for _ in 0..10 {
        let (request, _) = request(script.on_gap(std::slice::from_ref(&gap)));
        script.reply(&request, 200, &forgetful.serve(&request), std::slice::from_ref(&gap)).unwrap();
    }
    script.at(Timestamp(NOW.0 + 60_000_000_000));
    for _ in 0..2 {
        let (request, _) = request(script.on_gap(std::slice::from_ref(&gap)));
        script.reply(&request, 200, &forgetful.serve(&request), std::slice::from_ref(&gap)).unwrap();
    }
    assert!(matches!(script.on_gap(&[gap]), Remedy::Lost { why: "the venue forgot", .. }));
}

#[test]
fn an_instrument_that_both_hosts_do_not_know_any_more_is_forgotten() {
    let mut script = script(everything());
    let gap = between(NEWEST - 200_000, None);
    for minute in 0..4 {
        let (request, _) = request(script.on_gap(std::slice::from_ref(&gap)));
        script.at(Timestamp(NOW.0 + minute * 60_000_000_000));
        let unknown = r#"{"error":{"code":13020,"message":"not_found"}}"#;
        script.reply(&request, 400, unknown, std::slice::from_ref(&gap)).unwrap();
    }
    assert!(matches!(script.on_gap(&[gap]), Remedy::Lost { .. }));
}

#[test]
fn a_reply_of_the_other_exchange_ends_the_source_before_a_row_of_it_is_kept() {
    let Endpoint::Own(hosts) = everything().endpoint else { unreachable!() };
    let endpoint = Endpoint::Own(Hosts { testnet: Some(false), ..hosts });
    let mut script = script(DeribitConfig { endpoint, ..everything() });
    let gap = between(NEWEST - 50, None);
    let (request, _) = request(script.on_gap(std::slice::from_ref(&gap)));
    let body = Venue::default().serve(&request);
    let reply = |testnet| body.replace("{\"jsonrpc\"", &format!("{{\"testnet\":{testnet},\"jsonrpc\""));
    let error = script.reply(&request, 200, &reply(true), std::slice::from_ref(&gap)).unwrap_err();
    assert_eq!(error.kind(), tidegate_core::Kind::Permanent);
    assert_eq!(script.stored, []);
    script.reply(&request, 200, &reply(false), std::slice::from_ref(&gap)).unwrap();
    assert_eq!(script.stored.len(), 51);
}

#[test]
fn the_history_host_is_asked_more_slowly() {
    let mut script = script(everything());
    let gap = between(NEWEST - 200_000, None);
    let (first, _) = request(script.on_gap(std::slice::from_ref(&gap)));
    script.reply(&first, 200, &Venue::default().serve(&first), std::slice::from_ref(&gap)).unwrap();
    let (second, _) = request(script.on_gap(std::slice::from_ref(&gap)));
    assert!(second.url.starts_with(HISTORY));
    assert_eq!((first.pool, second.pool), (None, Some(pools::HISTORY)), "that of the main host, and one of its own");
}

#[test]
fn trades_of_other_instruments_in_a_page_make_no_streams() {
    let mut script = script(everything());
    let gap = between(NEWEST - 3, None);
    let (request, _) = request(script.on_gap(std::slice::from_ref(&gap)));
    let body = Venue::default().serve(&request).replacen(SYMBOL, "NO-SUCH", 1);
    script.reply(&request, 200, &body, std::slice::from_ref(&gap)).unwrap();
    assert!(script.stored.iter().all(|row| &*row.stream.symbol == SYMBOL));
    assert_eq!(script.stored.len(), 3);
}

#[test]
fn a_baseline_is_the_newest_trade_before_its_time_and_all_since() {
    let outcome = heal(&mut script(everything()), &Venue::default(), baseline(at(NEWEST - 3), None));
    assert_eq!(
        outcome.asked,
        [
            "http://main.test/api/v2/public/get_last_trades_by_instrument?instrument_name=ETH-PERPETUAL&count=100&sorting=desc"
        ]
    );
    assert_eq!(outcome.found, (NEWEST - 4..=NEWEST).collect(), "and nothing older");
}

#[test]
fn an_old_baseline_takes_pages_backwards() {
    let outcome = heal(&mut script(everything()), &Venue::default(), baseline(at(NEWEST - 2500), None));
    assert_eq!(outcome.hosts(), "mmm");
    assert!(outcome.asked[1].ends_with("&count=1000&sorting=desc&end_seq=999001"), "{:?}", outcome.asked);
    assert_eq!(outcome.found, (NEWEST - 2501..=NEWEST).collect());
    let outcome = heal(&mut script(everything()), &Venue::default(), baseline(at(NEWEST - 2500), Some(NEWEST - 100)));
    assert!(outcome.asked[0].ends_with("&end_seq=999900"), "{:?}", outcome.asked);
    assert_eq!(outcome.found, (NEWEST - 2501..=NEWEST - 100).collect());
}

#[test]
fn an_instrument_that_never_traded_has_an_empty_baseline() {
    let silent = Venue { only: Some(BTreeSet::new()), ..Venue::default() };
    let outcome = heal(&mut script(everything()), &silent, baseline(at(NEWEST - 3), None));
    assert_eq!((outcome.hosts(), outcome.lost), ("m".into(), None));
    let outcome = heal(&mut script(everything()), &silent, baseline(at(NEWEST - 2 * 86_400), None));
    assert_eq!((outcome.hosts(), outcome.lost), ("mh".into(), None), "older than what the main host remembers");
}

#[test]
fn a_baseline_that_is_older_than_the_main_hosts_memory_goes_on_at_the_history_host() {
    let sparse: BTreeSet<u64> = (0..=NEWEST).step_by(10_000).collect();
    let venue = Venue { only: Some(sparse), ..Venue::default() };
    let outcome = heal(&mut script(everything()), &venue, baseline(at(NEWEST - 150_001), None));
    assert_eq!(outcome.hosts(), "mh");
    assert!(outcome.asked[1].ends_with("&end_seq=920000"), "where the main host ended: {:?}", outcome.asked);
    assert_eq!(outcome.found, (NEWEST - 160_000..=NEWEST).step_by(10_000).collect());
}

#[test]
fn a_trade_that_cannot_be_read_is_kept_raw_and_its_gap_is_not_called_empty() {
    let broken = Venue { broken: [NEWEST - 20].into(), ..Venue::default() };
    for gap in [between(NEWEST - 30, Some(NEWEST - 10)), between(NEWEST - 30, None)] {
        let mut script = script(everything());
        let outcome = heal(&mut script, &broken, gap);
        assert_eq!(outcome.lost, Some("a trade in it cannot be read; it is kept raw"));
        assert!(outcome.found.contains(&(NEWEST - 19)));
        assert_eq!(script.rejected().len(), 1);
        assert!(script.rejected()[0].0.contains(r#""trade_seq":999980"#));
    }
}

#[test]
fn a_refused_request_is_tried_at_the_other_host_and_a_passing_refusal_later() {
    let mut script = script(everything());
    let gap = between(NEWEST - 50, None);
    let refusals = [
        (400, r#"{"error":{"code":-32602,"message":"Invalid params","data":{"reason":"instrument not found"}}}"#),
        (404, "<html>not here</html>"),
        (200, r#"{"error":{"code":13020,"message":"not_found"}}"#),
    ];
    let hosts = [MAIN, HISTORY, MAIN];
    for ((status, body), host) in refusals.into_iter().zip(hosts) {
        let (request, _) = request(script.on_gap(std::slice::from_ref(&gap)));
        assert!(request.url.starts_with(host), "{}", request.url);
        let answered = script.reply(&request, status, body, std::slice::from_ref(&gap)).unwrap();
        assert_eq!(answered, []);
    }
    assert_eq!(script.ignored(), ["a request for trades that was refused"; 3]);
    let (request, _) = request(script.on_gap(std::slice::from_ref(&gap)));
    let later = r#"{"error":{"code":10028,"message":"too_many_requests"}}"#;
    let error = script.reply(&request, 200, later, std::slice::from_ref(&gap)).unwrap_err();
    assert!(matches!(error.kind(), tidegate_core::Kind::Transient { retry_after: Some(_) }));
    for body in
        ["", "{", r#"{"result":[]}"#, r#"{"result":{"trades":5,"has_more":false}}"#, r#"{"result":{"trades":[]}}"#]
    {
        let error = script.reply(&request, 200, body, std::slice::from_ref(&gap)).unwrap_err();
        assert_eq!(error.kind(), tidegate_core::Kind::Malformed, "{body}");
    }
}

#[test]
fn a_broken_book_is_subscribed_to_anew_and_other_streams_cannot_be_repeated() {
    let mut script = script(everything());
    let of = |table: &str, id| Gap {
        stream: StreamKey::new(table, SYMBOL),
        numbering: Numbering::Linked,
        ..gap(id, stream(SYMBOL), None, None)
    };
    let gaps = [of("book_changes", 1), of("trades", 2), of("book_changes", 3)];
    let expected = Remedy::Resubscribe { channel: "book.ETH-PERPETUAL.100ms".into(), gaps: vec![GapId(1), GapId(3)] };
    assert_eq!(script.on_gap(&gaps), expected);
    let lost = Remedy::Lost { gaps: vec![GapId(4)], why: "deribit keeps no history of it" };
    assert_eq!(script.on_gap(&[of("tickers", 4), of("trades", 2)]), lost);
}

#[test]
fn what_was_missed_before_the_venue_numbered_anew_is_found_by_its_time() {
    let venue = Venue { renumbered: Some(NEWEST - 10), ..Venue::default() };
    let mut script = script(everything());
    // In the new numbering there is a trade 5, too, but not the one at this edge.
    for edge in [NEWEST - 50, 5] {
        let gap = gap(1, stream(SYMBOL), Some((edge, at(NEWEST - 50))), None);
        let mut hosts = String::new();
        let answered = loop {
            let (request, _) = request(script.on_gap(std::slice::from_ref(&gap)));
            hosts.push(if request.url.starts_with(HISTORY) { 'h' } else { 'm' });
            let body = venue.serve(&request).replace(r#""trade_seq":999950,"#, &format!(r#""trade_seq":{edge},"#));
            let answered = script.reply(&request, 200, &body, std::slice::from_ref(&gap)).unwrap();
            if !answered.is_empty() || hosts.len() > 10 {
                break answered;
            }
        };
        assert_eq!((answered, hosts.as_str()), (vec![gap.id], "mhm"));
        let ids: BTreeSet<String> = script.stored.drain(..).map(|row| row.text("id").unwrap().to_owned()).collect();
        assert!((NEWEST - 50..=NEWEST).all(|second| ids.contains(&format!("ETH-{second}"))));
    }
}

#[test]
fn what_was_made_since_the_confirmation_is_found_by_its_time_once_the_venue_has_numbered_anew() {
    let venue = Venue { renumbered: Some(NEWEST - 10), ..Venue::default() };
    let mut script = script(everything());
    let gap = baseline(at(NEWEST - 40), Some(NEWEST - 20));
    let mut asked = Vec::new();
    let answered = loop {
        let (request, _) = request(script.on_gap(std::slice::from_ref(&gap)));
        let body = venue.serve(&request);
        let answered = script.reply(&request, 200, &body, std::slice::from_ref(&gap)).unwrap();
        asked.push(request.url);
        if !answered.is_empty() || asked.len() > 10 {
            break answered;
        }
    };
    assert_eq!((answered, asked.len()), (vec![gap.id], 3), "by number at both hosts, then by time: {asked:#?}");
    assert!(asked[2].contains("sorting=asc&start_timestamp="), "{asked:#?}");
    let ids: BTreeSet<String> = script.stored.drain(..).map(|row| row.text("id").unwrap().to_owned()).collect();
    assert!((NEWEST - 40..=NEWEST - 20).all(|second| ids.contains(&format!("ETH-{second}"))), "{ids:?}");

    // Where the main host has forgotten that time, only the other one is asked for it.
    script.at(Timestamp(script.now().0 + 90_000_000_000));
    let old = baseline(at(NEWEST - 3 * 86_400), Some(NEWEST - 3 * 86_400 + 50));
    let outcome = heal(&mut script, &venue, old);
    let by_time: Vec<_> = outcome.asked.iter().filter(|url| url.contains("start_timestamp")).collect();
    assert!(!by_time.is_empty() && by_time.iter().all(|url| url.starts_with(HISTORY)), "{:#?}", outcome.asked);
    assert!(outcome.asked.iter().all(|url| !(url.contains("sorting=asc") && url.contains("end_seq"))), "no mixture");
    assert_eq!(outcome.lost, None);
}
