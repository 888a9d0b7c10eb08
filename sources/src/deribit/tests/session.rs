//! The handshake, heartbeats, subscriptions and refusals.

use std::time::Duration;

use tidegate_core::{
    Kind, Result,
    config::Secret,
    protocol::{Close, Command, Protocol as _},
};

use super::*;
use crate::deribit::{
    Interval, Venue,
    pools::{REQUESTS, SUBSCRIPTIONS},
};

const CHANNELS: &[&str] = &["ticker.ETH-PERPETUAL.100ms", "trades.ETH-PERPETUAL.100ms", "trades.ETH-9SEP26.100ms"];

/// Returns a script whose session is ready; the next request has the id 3.
fn ready() -> Script<Deribit> {
    let mut script = script(everything());
    script.frame(&result(1, r#"{"version":"1.2.26"}"#)).unwrap();
    script.frame(&result(2, r#""ok""#)).unwrap();
    script.commands.clear();
    script.sent.clear();
    script
}

fn result(id: u64, result: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{result},"usIn":1790165113000100,"usOut":1790165113000179,"usDiff":79,"testnet":false}}"#
    )
}

fn refusal(id: &str, code: i64) -> String {
    format!(r#"{{"jsonrpc":"2.0",{id}"error":{{"code":{code},"message":"some_words"}},"testnet":false}}"#)
}

fn kind(outcome: Result<()>) -> Kind {
    outcome.unwrap_err().kind()
}

fn with_credentials() -> DeribitConfig {
    DeribitConfig {
        interval: Interval::Raw,
        client_id: Some("an-id".into()),
        client_secret: Some(Secret::new("a-marker-that-nobody-may-see")),
        ..everything()
    }
}

#[test]
fn the_handshake_is_over_when_the_venue_has_agreed_to_send_heartbeats() {
    let mut script = script(everything());
    assert!(script.sent[0].contains(r#""method":"public/hello""#), "{:?}", script.sent);
    assert!(
        script.sent[1].contains(r#""method":"public/set_heartbeat","params":{"interval":10}"#),
        "{:?}",
        script.sent
    );
    script.frame(&result(2, r#""ok""#)).unwrap();
    assert!(!script.asked_for(&Command::Ready), "one reply is missing");
    script.frame(&result(1, r#"{"version":"1.2.26"}"#)).unwrap();
    assert!(script.asked_for(&Command::Ready));
    script.commands.clear();
    script.frame(&result(1, r#"{"version":"1.2.26"}"#)).unwrap();
    assert!(!script.asked_for(&Command::Ready), "once is enough");
    assert_eq!(script.ignored(), ["a reply to nothing that was asked"]);
}

#[test]
fn a_new_session_begins_from_the_beginning() {
    let mut script = ready();
    script.subscribe(CHANNELS).unwrap();
    script.open().unwrap();
    assert!(script.sent.last().unwrap().contains(r#""id":5,"method":"public/set_heartbeat""#), "{:?}", script.sent);
    script.frame(&result(3, "[]")).unwrap();
    assert_eq!(script.refused(), [("", ""); 0], "the subscription was the last session's");
}

#[test]
fn each_test_request_is_answered_at_once_and_nothing_else() {
    let mut script = ready();
    script.frame(r#"{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"heartbeat"}}"#).unwrap();
    assert!(script.sent.is_empty());
    for id in 3..6 {
        script.frame(r#"{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"test_request"}}"#).unwrap();
        let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"public/test","params":{{}}}}"#);
        assert_eq!(script.sent.last(), Some(&answer));
    }
    script.frame(&result(5, r#"{"version":"1.2.26"}"#)).unwrap();
    assert_eq!(script.commands, []);
}

#[test]
fn a_channel_that_is_left_out_of_the_accepted_ones_is_refused_by_name() {
    let mut script = ready();
    script.subscribe(CHANNELS).unwrap();
    let sent = r#"{"jsonrpc":"2.0","id":3,"method":"public/subscribe","params":{"channels":["ticker.ETH-PERPETUAL.100ms","trades.ETH-PERPETUAL.100ms","trades.ETH-9SEP26.100ms"]}}"#;
    assert_eq!(script.sent, [sent]);
    script.frame(&result(3, r#"["trades.ETH-PERPETUAL.100ms","ticker.ETH-PERPETUAL.100ms","surprise"]"#)).unwrap();
    let at = Timestamp(1_790_165_113_000_179_000);
    assert_eq!(script.confirmed(), [(CHANNELS[0], at), (CHANNELS[1], at)], "at the venue's own time");
    let refused = script.refused();
    assert_eq!(refused, [("trades.ETH-9SEP26.100ms", "left out of the accepted channels: unknown or expired")]);
    assert_eq!(script.ignored(), ["an accepted channel that was not asked for"]);
}

#[test]
fn without_the_venues_time_a_channel_is_confirmed_when_the_reply_came() {
    let mut script = ready();
    script.subscribe(&CHANNELS[..1]).unwrap();
    script.frame(r#"{"id":3,"result":["ticker.ETH-PERPETUAL.100ms"]}"#).unwrap();
    assert_eq!(script.confirmed(), [(CHANNELS[0], NOW)]);
}

#[test]
fn a_time_that_no_clock_shows_confirms_nothing_at_that_time() {
    for us_out in ["9223372036854775", "-1", "0", "\"noon\""] {
        let mut script = ready();
        script.subscribe(&CHANNELS[..1]).unwrap();
        script.frame(&format!(r#"{{"id":3,"result":["ticker.ETH-PERPETUAL.100ms"],"usOut":{us_out}}}"#)).unwrap();
        assert_eq!(script.confirmed(), [(CHANNELS[0], NOW)], "{us_out}");
        assert_eq!(script.ignored(), ["a time of the venue's that no clock shows"], "{us_out}");
    }
}

#[test]
fn replies_are_matched_by_id_and_not_by_order() {
    let mut script = ready();
    script.subscribe(&CHANNELS[..1]).unwrap();
    script.subscribe(&CHANNELS[1..2]).unwrap();
    script.frame(&result(4, r#"["trades.ETH-PERPETUAL.100ms"]"#)).unwrap();
    script.frame(&result(3, r#"["ticker.ETH-PERPETUAL.100ms"]"#)).unwrap();
    let confirmed: Vec<_> = script.confirmed().into_iter().map(|(channel, _)| channel).collect();
    assert_eq!(confirmed, [CHANNELS[1], CHANNELS[0]]);
    assert!(script.refused().is_empty());
}

#[test]
fn a_channel_has_ended_when_the_venue_says_so() {
    let mut script = ready();
    script.unsubscribe(&CHANNELS[..2]).unwrap();
    assert!(script.sent[0].contains(r#""method":"public/unsubscribe""#));
    assert_eq!(script.commands, []);
    script.frame(&result(3, r#"["ticker.ETH-PERPETUAL.100ms"]"#)).unwrap();
    let ended = |channel: &str| Command::Unsubscribed(channel.to_owned());
    assert_eq!(script.commands, [ended(CHANNELS[0]), ended(CHANNELS[1])], "the other one was not subscribed to");
}

#[test]
fn a_reply_of_the_other_exchange_ends_the_source() {
    let config = |venue| DeribitConfig { endpoint: Endpoint::Named(venue), ..everything() };
    let reply = |testnet: &str| format!(r#"{{"jsonrpc":"2.0","id":2,"result":"ok"{testnet}}}"#);
    let outcome = |venue, testnet| script(config(venue)).frame(&reply(testnet));
    outcome(Venue::Production, r#","testnet":false"#).unwrap();
    outcome(Venue::Test, r#","testnet":true"#).unwrap();
    outcome(Venue::Test, "").unwrap();
    let error = outcome(Venue::Production, r#","testnet":true"#).unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    assert_eq!(
        error.to_string(),
        "`endpoint` is the exchange itself, but the test exchange answers: nothing is stored"
    );
    assert_eq!(kind(outcome(Venue::Test, r#","testnet":false"#)), Kind::Permanent);
    script(everything()).frame(&reply(r#","testnet":true"#)).expect("an endpoint of one's own is not checked");
}

#[test]
fn an_endpoint_of_ones_own_is_checked_if_it_says_what_it_is() {
    let Endpoint::Own(hosts) = everything().endpoint else { unreachable!() };
    let endpoint = Endpoint::Own(Hosts { testnet: Some(true), ..hosts });
    let mut script = script(DeribitConfig { endpoint, ..everything() });
    assert_eq!(kind(script.frame(&result(2, r#""ok""#))), Kind::Permanent);
}

#[test]
fn too_many_requests_end_the_session_with_a_pause() {
    for id in ["", r#""id":3,"#] {
        let mut script = ready();
        script.subscribe(CHANNELS).unwrap();
        let error = script.frame(&refusal(id, 10028)).unwrap_err();
        assert_eq!(error.kind(), Kind::Transient { retry_after: Some(Duration::from_secs(5)) });
        assert!(error.to_string().contains("10028 `some_words`"), "{error}");
    }
}

#[test]
fn a_refusal_that_only_a_person_can_mend_ends_the_source() {
    for code in [10000, 13021, 13778] {
        let mut script = ready();
        script.subscribe(CHANNELS).unwrap();
        assert_eq!(kind(script.frame(&refusal(r#""id":3,"#, code))), Kind::Permanent, "{code}");
    }
}

#[test]
fn a_refusal_that_passes_costs_its_own_channels_a_pause_and_the_line_nothing() {
    for code in [10001, 10040, 10041, 10047, 10066, 11052, 11094, 13025, 13028, 13888, 99_999] {
        let mut script = ready();
        script.subscribe(&CHANNELS[..1]).unwrap();
        script.frame(&refusal(r#""id":3,"#, code)).unwrap_or_else(|error| panic!("{code}: {error}"));
        assert_eq!(script.ignored(), ["a subscription that was put off"], "{code}");
        assert_eq!((script.refused().len(), script.confirmed().len()), (0, 0), "{code}: the driver asks again");
        script.unsubscribe(&CHANNELS[1..2]).unwrap();
        script.frame(&refusal(r#""id":4,"#, code)).unwrap_or_else(|error| panic!("{code}: {error}"));
        assert!(!script.commands.iter().any(|command| matches!(command, Command::Unsubscribed(_))), "{code}");
    }
}

#[test]
fn an_end_of_what_the_venue_does_not_know_any_more_is_one() {
    let mut script = ready();
    script.unsubscribe(&CHANNELS[..1]).unwrap();
    script.frame(&refusal(r#""id":3,"#, 13020)).unwrap();
    assert_eq!(script.commands, [Command::Unsubscribed(CHANNELS[0].to_owned())]);
}

#[test]
fn what_ends_a_session_does_so_in_answer_to_whatever() {
    for code in [10028, 11051, 11056] {
        let mut script = ready();
        script.frame(r#"{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"test_request"}}"#).unwrap();
        let kind = kind(script.frame(&refusal(r#""id":3,"#, code)));
        assert!(matches!(kind, Kind::Transient { retry_after: Some(_) }), "{code}: a test of the line");
        script.unsubscribe(&CHANNELS[..1]).unwrap();
        script.frame(&refusal(r#""id":4,"#, code)).unwrap_err();
    }
}

#[test]
fn an_unknown_refusal_without_an_id_changes_nothing() {
    let mut script = ready();
    script.subscribe(CHANNELS).unwrap();
    assert_eq!(kind(script.frame(&refusal("", 11044))), Kind::Malformed);
    script.frame(&result(3, r#"["ticker.ETH-PERPETUAL.100ms"]"#)).unwrap();
    assert_eq!(script.confirmed().len(), 1, "its reply still counts");
}

#[test]
fn a_refused_subscription_refuses_its_channels_by_name() {
    for code in [-32602, 13020] {
        let mut script = ready();
        script.subscribe(&CHANNELS[..2]).unwrap();
        script.frame(&refusal(r#""id":3,"#, code)).unwrap();
        let why = format!("deribit answered {code} `some_words`");
        assert_eq!(script.refused(), [(CHANNELS[0], why.as_str()), (CHANNELS[1], why.as_str())]);
    }
}

#[test]
fn a_refusal_without_an_id_is_about_the_only_subscription_that_waits() {
    let mut script = ready();
    script.subscribe(&CHANNELS[..1]).unwrap();
    script.frame(&refusal("", -32600)).unwrap();
    assert_eq!(script.refused(), [(CHANNELS[0], "deribit answered -32600 `some_words`")]);

    script.subscribe(&CHANNELS[1..2]).unwrap();
    script.subscribe(&CHANNELS[2..]).unwrap();
    assert_eq!(kind(script.frame(&refusal("", -32600))), Kind::Malformed, "nobody knows which");
    assert_eq!(script.refused().len(), 1, "the driver reports those that are never confirmed");
}

#[test]
fn what_answers_nothing_is_counted() {
    let mut script = ready();
    for frame in [&result(99, r#""ok""#), r#"{"jsonrpc":"2.0","id":"a-text","result":"ok"}"#, r#"{"result":{}}"#] {
        script.frame(frame).unwrap();
    }
    assert_eq!(script.ignored(), ["a reply to nothing that was asked"; 3]);
    assert_eq!(kind(script.frame(&refusal(r#""id":99,"#, -32601))), Kind::Malformed);
}

#[test]
fn credentials_are_sent_as_a_secret_and_subscriptions_wait_for_the_login() {
    let mut script = script(with_credentials());
    let secret = "a-marker-that-nobody-may-see";
    let login = script.sent.iter().find(|text| text.contains("public/auth")).unwrap().clone();
    assert!(login.contains(secret) && login.contains("client_credentials"));
    assert!(script.asked_for(&Command::SendSecret(login, secret.to_owned())), "sent so that no capture has it");
    script.frame(&result(1, "{}")).unwrap();
    script.frame(&result(2, r#""ok""#)).unwrap();
    assert!(!script.asked_for(&Command::Ready));
    script.frame(&result(3, r#"{"access_token":"x","expires_in":900,"scope":"connection"}"#)).unwrap();
    assert!(script.asked_for(&Command::Ready));
    assert!(!format!("{:?}", script.protocol).contains(secret));
}

#[test]
fn a_login_is_renewed_before_it_runs_out() {
    let mut script = script(with_credentials());
    script.frame(&result(3, r#"{"access_token":"x","expires_in":900}"#)).unwrap();
    assert!(script.asked_for(&Command::WakeAfter(Duration::from_secs(720))), "{:?}", script.commands);
    let sent = script.sent.len();
    script.at(Timestamp(NOW.0 + 719_000_000_000)).wake().unwrap();
    assert_eq!(script.sent.len(), sent, "a timer that is early changes nothing");
    script.at(Timestamp(NOW.0 + 720_000_000_000)).wake().unwrap();
    assert!(script.sent.last().unwrap().contains("public/auth"));
}

#[test]
fn a_refused_login_ends_the_source_without_showing_the_secret() {
    for code in [13004, 13009, -32602] {
        let mut script = script(with_credentials());
        let error = script.frame(&refusal(r#""id":3,"#, code)).unwrap_err();
        assert_eq!(error.kind(), Kind::Permanent, "{code}");
        assert!(!error.to_string().contains("marker"), "{error}");
        assert!(error.to_string().contains("`client_id` and `client_secret`, then restart"), "{error}");
    }
    for code in [11051, 10028, 10041, 11094, 99_999] {
        let mut script = script(with_credentials());
        let error = script.frame(&refusal(r#""id":3,"#, code)).unwrap_err();
        assert!(matches!(error.kind(), Kind::Transient { .. }), "{code} passes");
    }
}

#[test]
fn a_venue_that_repeats_the_secret_is_not_quoted() {
    for code in [13004, -32602, 11051, 13888] {
        let mut script = script(with_credentials());
        let repeated = format!(
            r#"{{"id":3,"error":{{"code":{code},"message":"wrong a-marker-that-nobody-may-see","data":{{"reason":"got a-marker-that-nobody-may-see","param":"a-marker-that-nobody-may-see"}}}}}}"#
        );
        let error = script.frame(&repeated).unwrap_err();
        assert!(!error.chain().contains("marker"), "{error}");
        assert!(error.to_string().contains("reason `got •••`"), "the rest is said: {error}");
    }
}

#[test]
fn raw_channels_that_are_refused_although_logged_in_begin_a_new_session() {
    let mut script = script(with_credentials());
    script.subscribe(CHANNELS).unwrap();
    assert!(matches!(kind(script.frame(&refusal(r#""id":4,"#, 13778))), Kind::Transient { .. }));
}

#[test]
fn an_absurd_life_of_a_login_is_neither_too_long_nor_a_storm() {
    let year = 366 * 86_400;
    let lives = [("0", 60), ("1", 60), ("900", 900), ("4611686018427387904", year), ("18446744073709551615", year)];
    for (expires_in, life) in lives {
        let mut script = script(with_credentials());
        script.frame(&result(3, &format!(r#"{{"access_token":"x","expires_in":{expires_in}}}"#))).unwrap();
        assert!(script.asked_for(&Command::WakeAfter(Duration::from_secs(life) * 4 / 5)), "{:?}", script.commands);
    }
}

#[test]
fn a_login_that_has_run_out_begins_a_new_session() {
    let mut script = script(with_credentials());
    script.subscribe(CHANNELS).unwrap();
    assert!(matches!(kind(script.frame(&refusal(r#""id":4,"#, 13009))), Kind::Transient { .. }));
}

#[test]
fn every_end_of_a_connection_is_tried_again_and_too_many_of_them_later() {
    let mut script = ready();
    let close = |code| Close { code, reason: "some words" };
    let error = script.protocol.on_close(&close(1006));
    assert_eq!(error.kind(), Kind::Transient { retry_after: None });
    let error = script.protocol.on_close(&close(429));
    assert_eq!(error.kind(), Kind::Transient { retry_after: Some(Duration::from_secs(60)) });
}

#[test]
fn batches_stay_within_the_limits_of_the_venue() {
    let limits = Deribit::new(everything()).limits();
    let bytes = limits.bytes_per_message.unwrap();
    let name = "trades.MATIC_USDC-9MAR26-1d02-C.100ms";
    let channels = vec![name; bytes / name.len()];
    let mut script = ready();
    script.subscribe(&channels[..limits.channels_per_message.unwrap()]).unwrap();
    assert!(script.sent[0].len() < 32_000, "{} bytes", script.sent[0].len());
    let long = "x".repeat(bytes / 500);
    script.subscribe(&vec![long.as_str(); 500]).unwrap();
    assert!(script.sent[1].len() < 32_000, "{} bytes", script.sent[1].len());
    assert_eq!((limits.messages, limits.requests), (Some(SUBSCRIPTIONS), Some(REQUESTS)));
}
