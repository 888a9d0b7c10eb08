//! Which instruments are followed, and when that is decided anew.

use std::time::Duration;

use serde_json::json;
use tidegate_core::{
    Kind,
    config::Duration as Configured,
    protocol::{Command, Discovery, Outbox, Protocol as _, Reply, Request},
    row::Origin,
};

use super::*;
use crate::deribit::{Kind as InstrumentKind, LifeLeft, Measure, Selector, pools::INSTRUMENTS};

/// A market that the test changes: name, open interest, volume, expiry in seconds from `NOW`.
#[derive(Clone)]
struct Market(Vec<(&'static str, Option<f64>, Option<f64>, i64)>);

impl Market {
    fn serve(&self, request: &Request) -> String {
        let list: Vec<_> = if request.url.contains("get_instruments") {
            let expiry = |seconds: i64| NOW.as_millis() + seconds * 1000;
            let listed = |(name, _, _, seconds): &(&str, _, _, i64)| json!({ "instrument_name": name, "is_active": true, "state": "open", "expiration_timestamp": expiry(*seconds), "new": {} });
            self.0.iter().map(listed).collect()
        } else {
            let row = |(name, open_interest, volume, _): &(&str, Option<f64>, Option<f64>, _)| json!({ "instrument_name": name, "open_interest": open_interest, "volume": volume });
            self.0.iter().map(row).collect()
        };
        json!({ "jsonrpc": "2.0", "result": list, "testnet": false }).to_string()
    }
}

const DAY: i64 = 86_400;

fn market() -> Market {
    Market(vec![
        ("ETH-B", Some(5.0), Some(1.0), DAY),
        ("ETH-A", Some(5.0), Some(1.0), DAY),
        ("ETH-C", Some(10.0), None, DAY),
        ("ETH-D", Some(5.0), Some(3.0), DAY),
        ("ETH-E", None, Some(900.0), DAY),
        ("ETH-F", Some(0.0), None, DAY),
    ])
}

fn selector() -> Selector {
    Selector {
        currency: "ETH".into(),
        kind: InstrumentKind::Option,
        top: "3".parse().ok(),
        by: None,
        leave_at: None,
        expires_in: None,
        refresh: Configured::from_secs(3600),
    }
}

fn following(selectors: Vec<Selector>) -> Script<Deribit> {
    let instruments = selectors.into_iter().map(Choice::Selector).collect();
    listening(DeribitConfig { instruments, channels: vec![Channel::Trades], ..everything() }, "")
}

const STATE: &str = r#"{"timestamp":1790165113500,"state":"open","instrument_name":"ETH-NEW"}"#;

/// Lets the venue tell of a state, so that the instruments are chosen anew at this many seconds from `NOW`.
fn wake_by_a_state(script: &mut Script<Deribit>, seconds: i64) {
    let at = |seconds: i64| Timestamp(NOW.0 + seconds * 1_000_000_000);
    script.at(at(seconds - 10)).frame(&notification("instrument.state.option.ETH", STATE)).unwrap();
    script.at(at(seconds)).wake().unwrap();
}

/// Returns the time so many seconds from `NOW`.
fn after(seconds: i64) -> Timestamp {
    Timestamp(NOW.0 + seconds * 1_000_000_000)
}

fn names(channels: &[String]) -> Vec<&str> {
    let trades = channels.iter().filter_map(|channel| channel.strip_prefix("trades."));
    trades.map(|channel| channel.trim_end_matches(".100ms")).collect()
}

#[test]
fn names_need_no_request() {
    let mut script = script(everything());
    let (requests, channels) = script.discover(|request| panic!("{request:?}")).unwrap();
    assert_eq!(requests, []);
    let expected = [
        "trades.ETH-PERPETUAL.100ms",
        "ticker.ETH-PERPETUAL.100ms",
        "quote.ETH-PERPETUAL",
        "book.ETH-PERPETUAL.100ms",
        "book.ETH-PERPETUAL.none.10.100ms",
        "deribit_price_index.eth_usd",
        "instrument.state.future.ETH",
    ];
    assert_eq!(channels, expected);
}

#[test]
fn the_top_is_ranked_by_one_measure_then_the_other_then_the_name() {
    let mut script = following(vec![selector()]);
    let (requests, channels) = script.discover(|request| market().serve(request)).unwrap();
    let urls: Vec<_> = requests.iter().map(|request| (request.url.as_str(), request.pool)).collect();
    let expected = [
        ("http://main.test/api/v2/public/get_instruments?currency=ETH&kind=option", Some(INSTRUMENTS)),
        ("http://main.test/api/v2/public/get_book_summary_by_currency?currency=ETH&kind=option", None),
    ];
    assert_eq!(urls, expected);
    assert_eq!(channels[0], "instrument.state.option.ETH", "always, to hear of listings");
    assert_eq!(names(&channels), ["ETH-C", "ETH-D", "ETH-A"]);

    let mut script = following(vec![Selector { by: Some(Measure::Volume), ..selector() }]);
    let (_, channels) = script.discover(|request| market().serve(request)).unwrap();
    assert_eq!(names(&channels), ["ETH-E", "ETH-D", "ETH-A"], "no volume ranks below any");
}

#[test]
fn without_top_all_are_followed_and_nothing_is_ranked() {
    let mut script = following(vec![Selector { top: None, ..selector() }]);
    let (requests, channels) = script.discover(|request| market().serve(request)).unwrap();
    assert_eq!(requests.len(), 1);
    assert_eq!(names(&channels), ["ETH-A", "ETH-B", "ETH-C", "ETH-D", "ETH-E", "ETH-F"]);
}

#[test]
fn one_that_is_in_leaves_only_behind_the_margin() {
    let mut script = following(vec![Selector { leave_at: "4".parse().ok(), ..selector() }]);
    script.discover(|request| market().serve(request)).unwrap();
    let mut market = market();
    market.0[0].1 = Some(6.0);
    let an_hour = Timestamp(NOW.0 + 3_600_000_000_000);
    let (_, channels) = script.at(an_hour).discover(|request| market.serve(request)).unwrap();
    assert_eq!(names(&channels), ["ETH-C", "ETH-B", "ETH-D", "ETH-A"], "A is fourth now, and stays");
    market.0[5].1 = Some(7.0);
    let two_hours = Timestamp(an_hour.0 + 3_600_000_000_000);
    let (_, channels) = script.at(two_hours).discover(|request| market.serve(request)).unwrap();
    assert_eq!(names(&channels), ["ETH-C", "ETH-F", "ETH-B", "ETH-D"], "A is fifth");
}

#[test]
fn one_that_expires_soon_does_not_come_in_and_one_that_is_in_stays_to_its_end() {
    let ten_minutes = LifeLeft(Configured::from_secs(600));
    let mut script = following(vec![Selector { expires_in: Some(ten_minutes), ..selector() }]);
    let mut market = market();
    market.0[2].3 = 600;
    market.0[3].3 = 601;
    let (_, channels) = script.discover(|request| market.serve(request)).unwrap();
    assert_eq!(names(&channels), ["ETH-D", "ETH-A", "ETH-B"], "C lives no longer than ten minutes");
    wake_by_a_state(&mut script, 500);
    let (_, channels) = script.discover(|request| market.serve(request)).unwrap();
    assert_eq!(names(&channels), ["ETH-D", "ETH-A", "ETH-B"], "D is in");
    wake_by_a_state(&mut script, 601);
    let (_, channels) = script.discover(|request| market.serve(request)).unwrap();
    assert_eq!(names(&channels), ["ETH-A", "ETH-B", "ETH-F"], "D has expired");
    let has_ended = |name: &str| script.protocol.has_ended(&format!("trades.{name}.100ms"));
    assert!(has_ended("ETH-D") && !has_ended("ETH-A") && !has_ended("ETH-C"));
}

#[test]
fn instruments_whose_end_is_final_are_left_out_and_locked_ones_are_not() {
    let mut script = following(vec![Selector { top: None, ..selector() }]);
    let states = ["open", "locked", "settlement", "halted", "started", "delivered", "archivized", "closed"];
    let listed = states.iter().map(|state| json!({ "instrument_name": format!("ETH-{state}"), "state": state }));
    let inactive = json!({ "instrument_name": "ETH-inactive", "is_active": false });
    let strange = json!({ "instrument_name": "ETH&count=1" });
    let broken = json!({ "instrument": 5 });
    let list: Vec<_> = listed.chain([inactive, strange, broken.clone()]).collect();
    let body = json!({ "result": list }).to_string();
    let (_, channels) = script.discover(|_| body.clone()).unwrap();
    assert_eq!(names(&channels), ["ETH-halted", "ETH-locked", "ETH-open", "ETH-settlement", "ETH-started"]);
    assert_eq!(script.ignored(), ["an instrument with a strange name"]);
    assert_eq!(script.rejected()[0].0, broken.to_string(), "one broken element costs that one");
}

#[test]
fn several_selectors_and_names_are_followed_together_each_instrument_once() {
    let volume = Selector { by: Some(Measure::Volume), ..selector() };
    let usdc = Selector { currency: "USDC".into(), top: None, ..selector() };
    let names_too = [Choice::Name("ETH-PERPETUAL".into()), Choice::Name("ETH-C".into())];
    let selectors = [selector(), volume, usdc].into_iter().map(Choice::Selector);
    let instruments = names_too.into_iter().chain(selectors).collect();
    let mut script = script(DeribitConfig { instruments, channels: vec![Channel::Trades], ..everything() });
    let serve = |request: &Request| {
        let is_usdc = request.url.contains("currency=USDC");
        if is_usdc { Market(vec![("ETH_USDC-X", None, None, DAY)]).serve(request) } else { market().serve(request) }
    };
    let (requests, channels) = script.discover(serve).unwrap();
    assert_eq!(requests.len(), 3, "one list and one summary for ETH, one list for USDC: {requests:?}");
    assert_eq!(names(&channels), ["ETH-PERPETUAL", "ETH-C", "ETH-D", "ETH-A", "ETH-E", "ETH_USDC-X"]);
    assert_eq!(channels[..2], ["instrument.state.option.ETH", "instrument.state.option.USDC"]);
}

#[test]
fn each_selector_chooses_at_its_own_pace_and_the_driver_asks_at_the_fastest() {
    let slow = Selector { currency: "BTC".into(), refresh: Configured::from_secs(7200), ..selector() };
    let mut script = following(vec![selector(), slow]);
    assert_eq!(script.protocol.limits().refresh, Some(Duration::from_secs(3600)));
    let (requests, _) = script.discover(|request| market().serve(request)).unwrap();
    assert_eq!(requests.len(), 4);
    let after = |hours: i64| after(hours * 3600);
    let (requests, channels) = script.at(after(1)).discover(|request| market().serve(request)).unwrap();
    assert_eq!(requests.len(), 2, "BTC has time: {requests:?}");
    assert_eq!(names(&channels).len(), 3, "the names are the same in this test");
    let (requests, _) = script.at(after(2)).discover(|request| market().serve(request)).unwrap();
    assert_eq!(requests.len(), 4);
}

#[test]
fn it_chooses_anew_a_minute_after_an_expiry() {
    let mut script = following(vec![selector()]);
    let mut market = market();
    market.0[5].3 = 1000;
    script.discover(|request| market.serve(request)).unwrap();
    assert_eq!(script.commands.last(), Some(&Command::WakeAfter(Duration::from_secs(1060))));
    script.commands.clear();
    script.at(Timestamp(NOW.0 + 1_060_000_000_000)).wake().unwrap();
    assert_eq!(script.commands[0], Command::Rediscover);
    assert_eq!(script.commands[1], Command::WakeAfter(Duration::from_secs(60)), "should the discovery fail");
    let (requests, _) = script.discover(|request| market.serve(request)).unwrap();
    assert_eq!(requests.len(), 2, "before the refresh");
}

#[test]
fn perpetuals_never_expire() {
    let mut script = following(vec![Selector { top: None, kind: InstrumentKind::Future, ..selector() }]);
    let list = r#"{"result":[{"instrument_name":"ETH-PERPETUAL","expiration_timestamp":32503708800000},{"instrument_name":"ETH-OTHER"}]}"#;
    let (_, channels) = script.discover(|_| list.into()).unwrap();
    assert_eq!(names(&channels), ["ETH-OTHER", "ETH-PERPETUAL"]);
    assert!(!script.commands.iter().any(|command| matches!(command, Command::WakeAfter(_))));
}

#[test]
fn it_chooses_anew_once_after_a_swarm_of_states() {
    let mut script = following(vec![selector()]);
    script.discover(|request| market().serve(request)).unwrap();
    script.commands.clear();
    for _ in 0..3 {
        script.frame(&notification("instrument.state.option.ETH", STATE)).unwrap();
    }
    assert!(script.commands.iter().all(|command| *command == Command::WakeAfter(Duration::from_secs(10))));
    assert_eq!(script.commands.len(), 3);
    assert_eq!(script.stored, [], "the table was not asked for");
    script.commands.clear();
    script.at(Timestamp(NOW.0 + 10_000_000_000)).wake().unwrap();
    assert!(script.asked_for(&Command::Rediscover));
    let mut market = market();
    market.0.push(("ETH-NEW", Some(1e9), None, DAY));
    let (_, channels) = script.discover(|request| market.serve(request)).unwrap();
    assert_eq!(names(&channels), ["ETH-NEW", "ETH-C", "ETH-D"]);
}

#[test]
fn a_timer_is_set_again_when_the_connection_is() {
    let mut script = following(vec![selector()]);
    script.discover(|request| market().serve(request)).unwrap();
    let day = Command::WakeAfter(Duration::from_secs(DAY.unsigned_abs() + 60));
    assert_eq!(script.commands.last(), Some(&day), "{:?}", script.commands);
    script.commands.clear();
    script.open().unwrap();
    let soon = Command::WakeAfter(Duration::from_secs(10));
    assert_eq!(script.commands.last(), Some(&soon), "nobody has told what was listed meanwhile");
    script.at(after(10)).wake().unwrap();
    assert!(script.asked_for(&Command::Rediscover));
    let (requests, _) = script.discover(|request| market().serve(request)).unwrap();
    assert_eq!(requests.len(), 2);
    let rest = Command::WakeAfter(Duration::from_secs(DAY.unsigned_abs() + 50));
    assert_eq!(script.commands.last(), Some(&rest), "{:?}", script.commands);
}

#[test]
fn names_alone_are_not_chosen_anew_when_the_line_is_back_but_asked_for_again_at_last() {
    let mut script = script(everything());
    script.discover(|request| panic!("{request:?}")).unwrap();
    script.commands.clear();
    script.open().unwrap();
    assert!(!script.commands.iter().any(|command| matches!(command, Command::WakeAfter(_))), "{:?}", script.commands);
    assert_eq!(script.protocol.limits().refresh, Some(Duration::from_secs(3600)));
}

#[test]
fn a_state_that_comes_while_it_chooses_is_not_forgotten_nor_is_the_minute_after_an_expiry() {
    let mut script = following(vec![selector()]);
    let mut market = market();
    market.0[5].3 = 1000;
    script.discover(|request| market.serve(request)).unwrap();
    // At the expiry itself the states of all instruments come, and what has expired is gone from the list.
    script.at(after(1000)).frame(&notification("instrument.state.option.ETH", STATE)).unwrap();
    script.at(after(1010)).wake().unwrap();
    market.0.remove(5);
    let mut out = Outbox::new(script.protocol.tables());
    out.begin(after(1010), Origin::Live);
    let mut found = script.protocol.discover(None, &mut out).unwrap();
    // Before the list has come, one more state does.
    script.frame(&notification("instrument.state.option.ETH", STATE)).unwrap();
    while let Discovery::Fetch(request) = found {
        let body = market.serve(&request);
        let reply = Reply { request: &request, status: 200, body: body.as_bytes() };
        found = script.protocol.discover(Some(&reply), &mut out).unwrap();
    }
    let again = Command::WakeAfter(Duration::from_secs(10));
    assert_eq!(out.take_commands().last(), Some(again), "the state is younger than the list");
    script.at(after(1020)).wake().unwrap();
    script.discover(|request| market.serve(request)).unwrap();
    let minute = Command::WakeAfter(Duration::from_secs(40));
    assert_eq!(script.commands.last(), Some(&minute), "new dailies are listed a little later");
    script.at(after(1060)).wake().unwrap();
    let (requests, _) = script.discover(|request| market.serve(request)).unwrap();
    assert_eq!(requests.len(), 2);
}

#[test]
fn an_empty_list_and_measures_of_nothing_change_no_choice() {
    let mut script = following(vec![selector()]);
    let (_, channels) = script.discover(|request| market().serve(request)).unwrap();
    let empty = r#"{"result":[]}"#.to_owned();
    let broken: [fn(&Request) -> bool; 2] =
        [|request| request.url.contains("get_instruments"), |request| request.url.contains("summary")];
    for is_broken in broken {
        let serve = |request: &Request| if is_broken(request) { empty.clone() } else { market().serve(request) };
        let error = script.at(after(3600)).discover(serve).unwrap_err();
        assert!(matches!(error.kind(), Kind::Transient { .. }), "{error}");
    }
    let others = Market(vec![("ETH-Z", Some(1.0), None, DAY)]);
    let error =
        script.discover(
            |request| {
                if request.url.contains("summary") { others.serve(request) } else { market().serve(request) }
            },
        );
    assert!(error.unwrap_err().to_string().contains("measures of nothing that it lists of `ETH`, `option`"));
    let (_, again) = script.discover(|request| market().serve(request)).unwrap();
    assert_eq!(again, channels);
    let (_, none) = script.at(after(DAY + 1)).discover(|_| empty.clone()).unwrap();
    assert_eq!(names(&none), [""; 0], "all have expired: then it may be true");
}

#[test]
fn a_selector_that_finds_nothing_is_named_until_it_finds_something() {
    let usdc = Selector { currency: "USDC".into(), top: None, ..selector() };
    let mut script = following(vec![selector(), usdc]);
    let empty = r#"{"result":[]}"#.to_owned();
    let only_eth = |request: &Request| {
        if request.url.contains("=USDC") { empty.clone() } else { market().serve(request) }
    };
    script.discover(only_eth).unwrap();
    let what = "the venue has nothing for selector 2 of `instruments` (`USDC`, `option`); asked again".to_owned();
    assert!(script.asked_for(&Command::Lacking(Some(what))), "{:?}", script.commands);
    script.commands.clear();
    script.at(after(3600)).discover(|request| market().serve(request)).unwrap();
    assert!(script.asked_for(&Command::Lacking(None)));
}

#[test]
fn who_comes_in_and_who_leaves_is_told_in_one_line_and_nothing_where_nothing_changes() {
    let mut script = following(vec![selector()]);
    let mut market = market();
    let told = |script: &mut Script<Deribit>, market: &Market, seconds: i64| {
        script.commands.clear();
        script.at(after(seconds)).discover(|request| market.serve(request)).unwrap();
        let tell = |command: &Command| {
            if let Command::Tell(what, text) = command { Some(format!("{what} {text}")) } else { None }
        };
        script.commands.iter().filter_map(tell).collect::<Vec<String>>()
    };
    assert_eq!(told(&mut script, &market, 0), ["chosen 3 instruments"]);
    assert_eq!(told(&mut script, &market, 3600), [""; 0]);
    market.0[0].1 = Some(7.0);
    assert_eq!(told(&mut script, &market, 7200), ["chosen 3 instruments; 1 new: ETH-B; 1 left: ETH-A"]);
}

#[test]
fn one_that_comes_back_keeps_its_place_whatever_is_said_of_its_activity() {
    let mut script = following(vec![Selector { top: None, ..selector() }]);
    let list = r#"{"result":[{"instrument_name":"ETH-A","state":"locked","is_active":false},{"instrument_name":"ETH-B","is_active":false},{"instrument_name":"ETH-C","state":"closed","is_active":true}]}"#;
    let (_, channels) = script.discover(|_| list.into()).unwrap();
    assert_eq!(names(&channels), ["ETH-A"]);
}

#[test]
fn a_slower_selector_is_woken_for_at_its_own_time() {
    let slow = Selector { currency: "BTC".into(), refresh: Configured::from_secs(5400), ..selector() };
    let mut script = following(vec![selector(), slow]);
    script.discover(|request| market().serve(request)).unwrap();
    assert_eq!(script.commands.last(), Some(&Command::WakeAfter(Duration::from_secs(5400))));
    script.at(after(3600)).discover(|request| market().serve(request)).unwrap();
    assert_eq!(script.commands.last(), Some(&Command::WakeAfter(Duration::from_secs(1800))), "not at two hours");
}

#[test]
fn a_clock_that_was_set_back_does_not_keep_the_selectors_from_choosing() {
    let mut script = following(vec![selector()]);
    script.at(after(86_400)).discover(|request| market().serve(request)).unwrap();
    let (requests, _) = script.at(after(0)).discover(|request| market().serve(request)).unwrap();
    assert_eq!(requests.len(), 2);
}

#[test]
fn what_was_refused_is_asked_for_again_soon_and_then_ever_later() {
    let mut script = script(everything());
    let (_, channels) = script.discover(|request| panic!("{request:?}")).unwrap();
    let channels: Vec<&str> = channels.iter().map(String::as_str).collect();
    let mut seconds = 0;
    for (id, pause) in (3..).zip([10, 20, 40, 80]) {
        script.commands.clear();
        script.subscribe(&channels[..1]).unwrap();
        script.frame(&format!(r#"{{"id":{id},"result":[]}}"#)).unwrap();
        assert_eq!(script.refused().len(), 1);
        assert_eq!(script.commands.last(), Some(&Command::WakeAfter(Duration::from_secs(pause))), "{id}");
        seconds += pause as i64;
        script.at(after(seconds)).wake().unwrap();
        assert!(script.asked_for(&Command::Rediscover));
        assert_eq!(script.discover(|request| panic!("{request:?}")).unwrap().1, channels);
    }
    script.subscribe(&channels[..1]).unwrap();
    script.frame(&format!(r#"{{"id":7,"result":["{}"]}}"#, channels[0])).unwrap();
    script.subscribe(&channels[..1]).unwrap();
    script.frame(r#"{"id":8,"result":[]}"#).unwrap();
    assert_eq!(script.commands.last(), Some(&Command::WakeAfter(Duration::from_secs(10))), "it was well meanwhile");
}

#[test]
fn a_discovery_that_fails_leaves_what_was_chosen_and_begins_again() {
    let mut script = following(vec![selector()]);
    let error = script.discover(|_| r#"{"error":{"code":-32602,"message":"Invalid params"}}"#.into()).unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent, "a currency that is none is for a person: {error}");
    let (_, channels) = script.discover(|request| market().serve(request)).unwrap();
    let later = Timestamp(NOW.0 + 3_600_000_000_000);
    let bodies =
        ["<html>", r#"{"error":{"code":10028,"message":"x"}}"#, r#"{"error":{"code":-32602,"message":"x"}}"#, "{}"];
    for body in bodies {
        let error = script.at(later).discover(|_| body.into()).unwrap_err();
        assert!(matches!(error.kind(), Kind::Transient { .. }), "{body}: {error}");
    }
    let (requests, again) = script.discover(|request| market().serve(request)).unwrap();
    assert_eq!((requests.len(), again), (2, channels));
}

#[test]
fn a_list_of_the_other_exchange_ends_the_source() {
    let instruments = vec![Choice::Selector(selector())];
    let endpoint = Endpoint::Named(crate::deribit::Venue::Production);
    let mut script = script(DeribitConfig { instruments, endpoint, ..everything() });
    let error = script.discover(|_| r#"{"result":[],"testnet":true}"#.into()).unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
}
