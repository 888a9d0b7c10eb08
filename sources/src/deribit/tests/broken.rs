//! Broken, strange and hostile input: nothing panics, nothing becomes 0, nothing is silent.

use proptest::prelude::*;
use tidegate_core::{Kind, protocol::Command};

use super::*;

const TRADE: &str = r#"{"timestamp":1790165113994,"price":0.0105,"amount":3.0,"direction":"buy","instrument_name":"ETH-PERPETUAL","trade_seq":41,"trade_id":"ETH-1"}"#;
const TICKER: &str = r#"{"timestamp":1790165113994,"instrument_name":"ETH-PERPETUAL","mark_price":2722.5,"best_bid_price":2722.4,"best_bid_amount":5.0}"#;

fn trade(change: (&str, &str)) -> String {
    assert!(TRADE.contains(change.0));
    TRADE.replace(change.0, change.1)
}

#[test]
fn one_broken_trade_costs_that_one() {
    let mut script = listening(everything(), "");
    let broken = trade((r#""price":0.0105"#, r#""price":"NaN""#));
    let third = trade(("41", "43"));
    script.frame(&notification("trades.ETH-PERPETUAL.100ms", &format!("[{TRADE},{broken},{third}]"))).unwrap();
    let numbers: Vec<_> = script.stored.iter().map(|row| row.head.position.number().unwrap()).collect();
    assert_eq!(numbers, [41, 43]);
    let [(raw, why)] = script.rejected()[..] else { panic!("{:?}", script.commands) };
    assert_eq!(raw, broken, "kept as it came");
    assert!(why.contains("invalid type"), "{why}");
}

#[test]
fn a_number_that_no_trade_has_is_kept_raw_and_begins_no_numbering() {
    let mut script = listening(everything(), "");
    let numbers = ["0", "9223372036854775808", "18446744073709551615", "9223372036854775807"];
    let events: Vec<_> = numbers.iter().map(|number| trade((":41", &format!(":{number}")))).collect();
    script.frame(&notification("trades.ETH-PERPETUAL.100ms", &format!("[{}]", events.join(",")))).unwrap();
    let stored: Vec<_> = script.stored.iter().map(|row| row.head.position.number().unwrap()).collect();
    assert_eq!(stored, [i64::MAX as u64], "the largest that there can be");
    let rejected = script.rejected();
    assert_eq!(rejected.len(), 3);
    assert!(rejected.iter().all(|(_, why)| why.contains("is no number of a trade")), "{rejected:?}");
}

#[test]
fn a_frame_that_says_something_twice_is_malformed_and_leaves_no_row() {
    let mut script = listening(everything(), "");
    let channel = r#""channel":"ticker.ETH-PERPETUAL.100ms""#;
    let data = format!(r#""data":{TICKER}"#);
    let frames = [
        format!(r#"{{"method":"subscription","params":{{{channel},{data},{data}}}}}"#),
        format!(r#"{{"method":"subscription","params":{{{channel},{channel},{data}}}}}"#),
        format!(r#"{{"method":"subscription","params":{{{channel},{data},"channel":"quote.ETH-PERPETUAL"}}}}"#),
        format!(r#"{{"method":"subscription","params":{{{channel},{data}}},"params":{{}}}}"#),
        format!(r#"{{"method":"subscription","params":{{{channel},{data}}},"params":{{{channel},{data}}}}}"#),
    ];
    for frame in frames {
        let error = script.frame(&frame).unwrap_err();
        assert_eq!(error.kind(), Kind::Malformed, "{frame}");
        assert!(error.to_string().contains("duplicate field"), "{frame}: {error}");
    }
    assert!(script.stored.is_empty(), "{:?}", script.stored);
}

#[test]
fn of_a_frame_full_of_broken_events_most_are_kept_together() {
    let mut script = listening(everything(), "");
    let broken = vec!["0"; 100_000];
    let events = format!("[{TRADE},{}]", broken.join(","));
    script.frame(&notification("trades.ETH-PERPETUAL.100ms", &events)).unwrap();
    let rejected = script.rejected();
    assert_eq!((script.stored.len(), rejected.len()), (1, 17), "the good one is stored");
    let kept: usize = rejected.iter().map(|(raw, _)| raw.matches('0').count()).sum();
    assert_eq!(kept, broken.len(), "and nothing is thrown away");
}

#[test]
fn a_trade_with_a_missing_or_impossible_member_is_rejected() {
    let changes = [
        (r#""price":0.0105"#, r#""price":null"#),
        (r#""price":0.0105"#, r#""price":"0.0105""#),
        (r#""price":0.0105,"#, ""),
        (r#""amount":3.0"#, r#""amount":-3.0"#),
        (r#""amount":3.0"#, r#""amount":{}"#),
        (r#""direction":"buy""#, r#""direction":"up""#),
        (r#""direction":"buy""#, r#""direction":null"#),
        (r#""trade_seq":41"#, r#""trade_seq":-41"#),
        (r#""trade_seq":41"#, r#""trade_seq":41.5"#),
        (r#""trade_seq":41"#, r#""trade_seq":1234567890123456789012345678901234567890"#),
        (r#","trade_id":"ETH-1""#, ""),
        (r#""instrument_name":"ETH-PERPETUAL","#, ""),
        (r#""timestamp":1790165113994,"#, ""),
        (r#""timestamp":1790165113994"#, r#""timestamp":"yesterday""#),
    ];
    for change in changes {
        let mut script = listening(everything(), "");
        let raw = trade(change);
        script.frame(&notification("trades.ETH-PERPETUAL.100ms", &format!("[{raw}]"))).unwrap();
        assert_eq!(script.stored, [], "{raw}");
        assert_eq!(script.rejected().len(), 1, "{raw}");
        assert_eq!(script.rejected()[0].0, raw);
    }
}

#[test]
fn what_is_not_required_and_no_number_is_absent_and_counted() {
    for value in [r#""NaN""#, r#""n/a""#, "true", "[1,[2]]", r#"{"a":{"b":1}}"#] {
        let mut script = listening(everything(), "");
        let ticker = TICKER.replace("2722.5", value);
        script.frame(&notification("ticker.ETH-PERPETUAL.100ms", &ticker)).unwrap();
        assert_eq!(script.stored[0].value("mark_price"), None, "{value}");
        assert_eq!(script.stored[0].number("bid_price"), Some(2722.4), "{value}");
        assert_eq!(script.ignored(), ["a value that is no number"], "{value}");
    }
}

#[test]
fn a_number_too_big_for_its_type_is_malformed_or_absent_and_never_zero() {
    let mut script = listening(everything(), "");
    let frame = |value| notification("ticker.ETH-PERPETUAL.100ms", &TICKER.replace("2722.5", value));
    let error = script.frame(&frame("1e400")).unwrap_err();
    assert_eq!(error.kind(), Kind::Malformed);
    script.frame(&frame("1234567890123456789012345678901234567890")).unwrap();
    assert_eq!(script.stored[0].number("mark_price"), Some(1.234_567_890_123_456_8e39));
    let huge =
        trade((r#""trade_seq":41"#, r#""trade_seq":41,"starbase_match_id":1234567890123456789012345678901234567890"#));
    script.frame(&notification("trades.ETH-PERPETUAL.100ms", &format!("[{huge}]"))).unwrap();
    assert_eq!(script.stored[1].value("match_id"), None);
    assert_eq!(script.ignored(), ["a value that is no number"]);
}

#[test]
fn a_time_beyond_the_calendar_is_rejected() {
    let mut script = listening(everything(), "");
    for time in ["32503708800000000000", "32503708800000", "-32503708800000", "9223372036855"] {
        script.commands.clear();
        let late = trade(("1790165113994", time));
        script.frame(&notification("trades.ETH-PERPETUAL.100ms", &format!("[{late}]"))).unwrap();
        assert_eq!(script.rejected().len(), 1, "{time}");
        let ticker = notification("ticker.ETH-PERPETUAL.100ms", &TICKER.replace("1790165113994", time));
        assert_eq!(script.frame(&ticker).unwrap_err().kind(), Kind::Malformed, "{time}");
        assert_eq!(script.stored, [], "{time}: it would be the newest for ever");
    }
}

#[test]
fn a_member_of_another_shape_is_absent_and_counted_and_costs_no_more() {
    let members = [
        (r#""underlying_index":2725.25"#, 1),
        (r#""underlying_index":[1,{}],"greeks":"none","stats":5,"state":true,"combo_state":{}"#, 5),
        (r#""greeks":null,"stats":null,"state":null,"underlying_index":null"#, 0),
        (r#""greeks":{"delta":{}},"stats":[{}]"#, 2),
        (
            r#""open_interest":-1.0,"stats":{"volume":-5.0,"volume_usd":-1,"volume_notional":-0.5,"price_change":-3.5}"#,
            4,
        ),
    ];
    for (members, odd) in members {
        let mut script = listening(everything(), "");
        let ticker = TICKER.replace("{", &format!("{{{members},"));
        script.frame(&notification("ticker.ETH-PERPETUAL.100ms", &ticker)).unwrap();
        let row = &script.stored[0];
        assert_eq!(row.number("bid_price"), Some(2722.4), "{members}");
        for column in ["underlying", "state", "combo_state", "delta", "open_interest", "volume_24h", "volume_usd_24h"] {
            assert_eq!(row.value(column), None, "{column} of {members}");
        }
        assert_eq!(script.ignored().len(), odd, "{members}");
    }
    let mut script = listening(everything(), "");
    let raw = TRADE.replace("{", r#"{"contracts":-3.0,"liquidation":{},"block_trade_id":5.5,"combo_id":[],"#);
    script.frame(&notification("trades.ETH-PERPETUAL.100ms", &format!("[{raw}]"))).unwrap();
    assert_eq!(script.stored[0].number("price"), Some(0.0105));
    assert_eq!(script.stored[0].value("contracts"), None);
    assert_eq!(script.ignored().len(), 4);
}

#[test]
fn what_nobody_asked_for_makes_no_stream() {
    let long = "X".repeat(300_000);
    for name in ["NO-SUCH", "ETH-25DEC26", "", &long] {
        let mut script = listening(everything(), "");
        let named = |text: &str| text.replace("ETH-PERPETUAL", name);
        let other = |text: &str| {
            text.replace(r#""instrument_name":"ETH-PERPETUAL""#, &format!(r#""instrument_name":"{name}""#))
        };
        let quote = r#"{"timestamp":5,"instrument_name":"ETH-PERPETUAL","best_bid_price":1,"best_bid_amount":1}"#;
        let book = r#"{"timestamp":5,"change_id":1,"instrument_name":"ETH-PERPETUAL","bids":[],"asks":[]}"#;
        let trades = format!("[{TRADE}]");
        let all = [
            ("trades.ETH-PERPETUAL.100ms", trades.as_str()),
            ("ticker.ETH-PERPETUAL.100ms", TICKER),
            ("quote.ETH-PERPETUAL", quote),
            ("book.ETH-PERPETUAL.100ms", book),
        ];
        for (channel, data) in all {
            script.commands.clear();
            script.frame(&notification(&named(channel), &named(data))).unwrap();
            assert_eq!(script.ignored(), ["a channel of no interest"], "{channel} of {name:.10}");
            let outcome = script.frame(&notification(channel, &other(data)));
            assert!(outcome.is_err() || script.rejected().len() == 1, "{channel} with {name:.10}");
        }
        let group = notification("trades.option.any.100ms", &trades);
        script.frame(&group).unwrap();
        let index = r#"{"timestamp":5,"price":1.5,"index_name":"btc_usd"}"#;
        script.frame(&notification("deribit_price_index.eth_usd", index)).unwrap_err();
        assert_eq!(script.stored, [], "{name:.10}");
    }
    let mut script = listening(everything(), "");
    let state = r#"{"timestamp":5,"state":"open","instrument_name":"ETH SUCH"}"#;
    script.frame(&notification("instrument.state.option.ETH", state)).unwrap_err();
    let both = format!("[{TRADE},{}]", TRADE.replace("ETH-PERPETUAL", "NO-SUCH"));
    script.frame(&notification("trades.ETH-PERPETUAL.100ms", &both)).unwrap();
    assert_eq!((script.stored.len(), script.rejected().len()), (1, 1), "the other trade is kept raw");
}

#[test]
fn the_last_frames_of_a_channel_that_was_left_are_read_and_none_in_the_next_session() {
    let mut script = listening(everything(), "");
    let frame = notification("ticker.ETH-PERPETUAL.100ms", TICKER);
    script.unsubscribe(&["ticker.ETH-PERPETUAL.100ms"]).unwrap();
    script.frame(r#"{"id":4,"result":["ticker.ETH-PERPETUAL.100ms"]}"#).unwrap();
    script.frame(&frame).unwrap();
    assert_eq!(script.stored.len(), 1, "it was on the way");
    script.open().unwrap();
    script.frame(&frame).unwrap();
    assert_eq!((script.stored.len(), script.ignored()), (1, vec!["a channel of no interest"]));
}

#[test]
fn a_broken_frame_is_malformed_and_leaves_no_rows() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let book = |levels: &str| {
        let data = format!(
            r#"{{"timestamp":1,"type":"change","prev_change_id":1,"change_id":2,"instrument_name":"E","bids":{levels},"asks":[]}}"#
        );
        notification("book.E.100ms", &data)
    };
    let frames = [
        String::new(),
        "{".into(),
        "null".into(),
        "[]".into(),
        "{}".into(),
        r#"{"jsonrpc":"2.0"}"#.into(),
        "NaN".into(),
        r#"{"method":"subscription"}"#.into(),
        r#"{"method":"subscription","params":{"channel":"ticker.ETH-PERPETUAL.100ms"}}"#.into(),
        r#"{"method":"subscription","params":[]}"#.into(),
        r#"{"method":"heartbeat"}"#.into(),
        deep.clone(),
        notification("ticker.ETH-PERPETUAL.100ms", &deep),
        notification("ticker.ETH-PERPETUAL.100ms", TRADE).replace(r#""timestamp":1790165113994,"#, ""),
        notification("ticker.ETH-PERPETUAL.100ms", "[]"),
        notification("ticker.ETH-PERPETUAL.100ms", &TICKER.replace("5.0", "-5.0")),
        notification("ticker.ETH-PERPETUAL.100ms", &TICKER.replace("{", r#"{"timestamp":1,"#)),
        notification("trades.ETH-PERPETUAL.100ms", TRADE),
        notification("trades.ETH-PERPETUAL.100ms", "null"),
        notification("deribit_price_index.eth_usd", r#"{"timestamp":1,"price":null,"index_name":"eth_usd"}"#),
        book(r#"[["new",1.0]]"#),
        book(r#"[["jump",1.0,2.0]]"#),
        book(r#"[["new","1.0",2.0]]"#),
        book(r#"[["new",1.0,-2.0]]"#),
        book(r#"[[1.0,2.0]]"#),
        book("{}"),
        book("[]").replace(r#""prev_change_id":1,"#, ""),
    ];
    for frame in frames {
        let mut script = listening(everything(), &frame);
        let shown: String = frame.chars().take(200).collect();
        let error = script.frame(&frame).expect_err(&shown);
        assert_eq!(error.kind(), Kind::Malformed, "{shown}: {error}");
        assert_eq!(script.stored, [], "{shown}");
    }
}

#[test]
fn a_cut_frame_is_malformed_wherever_it_was_cut() {
    let fixtures = [include_str!("../fixtures/option.jsonl"), include_str!("../fixtures/perpetual.jsonl")].concat();
    for line in fixtures.lines() {
        for end in 0..line.len() {
            let mut script = listening(everything(), line);
            let error = script.frame(&line[..end]).expect_err(&line[..end]);
            assert_eq!(error.kind(), Kind::Malformed, "{error}");
            assert_eq!(script.stored, []);
        }
    }
}

#[test]
fn a_binary_frame_is_malformed() {
    assert_eq!(listening(everything(), "").binary(b"\x1f\x8b\x00").unwrap_err().kind(), Kind::Malformed);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        // Whether it is an error does not matter here.
        drop(listening(everything(), "").frame(&text));
    }

    #[test]
    fn no_change_of_a_frame_makes_it_panic_or_repeat_a_row(
        line in 0usize..12,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let fixtures = [
            include_str!("../fixtures/option.jsonl"),
            include_str!("../fixtures/perpetual.jsonl"),
            include_str!("../fixtures/combo.jsonl"),
        ].concat();
        let line = fixtures.lines().nth(line).unwrap();
        let most = line.matches("trade_seq").count().max(1);
        let mut bytes = line.as_bytes().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(text) = String::from_utf8(bytes) {
            let mut script = listening(everything(), line);
            let outcome = script.frame(&text);
            let is_told = outcome.is_err() || script.commands.iter().any(is_word);
            prop_assert!(script.stored.len() <= most);
            prop_assert!(is_told || !script.stored.is_empty() || text.contains("[]"), "silent: {text}");
        }
    }

    #[test]
    fn up_to_fifteen_digits_are_what_the_venue_wrote(digits in 1u64..1_000_000_000_000_000, exponent in -20i32..12) {
        let written = format!("{digits}e{exponent}");
        let mut script = listening(everything(), "");
        let data = format!(r#"{{"timestamp":5,"price":{written},"index_name":"eth_usd"}}"#);
        script.frame(&notification("deribit_price_index.eth_usd", &data)).unwrap();
        let price = script.stored[0].number("price").unwrap();
        let back = format!("{price:.14e}");
        let (mantissa, power) = back.split_once('e').unwrap();
        let found: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        let found = found.trim_end_matches('0');
        let digits = digits.to_string();
        prop_assert_eq!(found, digits.trim_end_matches('0'));
        let places = digits.len() as i32 - 1;
        prop_assert_eq!(power.parse::<i32>().unwrap(), exponent + places);
    }
}

fn is_word(command: &Command) -> bool {
    matches!(command, Command::Reject(..) | Command::Ignore(_))
}
