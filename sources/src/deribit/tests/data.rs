//! What becomes of the payloads of each channel.

use tidegate_core::{
    row::{Level, Position, Timestamp},
    testkit::{Script, Stored, Value},
};

use super::*;

/// Reads a file of frames, and returns the rows.
fn rows(fixture: &str) -> Vec<Stored> {
    let mut script = listening(everything(), fixture);
    for line in fixture.lines() {
        script.frame(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    assert_eq!(script.ignored(), [""; 0], "every value was understood");
    script.stored
}

fn absent(row: &Stored, columns: &[&str]) {
    for column in columns {
        assert_eq!(row.value(column), None, "`{column}`");
    }
}

fn numbers(row: &Stored, columns: &[(&str, f64)]) {
    for (column, number) in columns {
        assert_eq!(row.number(column), Some(*number), "`{column}`");
    }
}

#[test]
fn a_ticker_of_an_option_has_greeks_and_volatilities_in_percent_and_no_side_where_nobody_is() {
    let rows = rows(include_str!("../fixtures/option.jsonl"));
    let ticker = &rows[0];
    assert_eq!((&*ticker.stream.table, &*ticker.stream.symbol), ("tickers", "ETH-26SEP26-2760-C"));
    assert_eq!(ticker.head.ts_event, Timestamp(1_790_165_113_657_000_000));
    assert_eq!(ticker.head.position, Position::Unnumbered);
    numbers(
        ticker,
        &[
            ("bid_price", 0.0102),
            ("bid_size", 35.0),
            ("last_price", 0.0105),
            ("mark_price", 0.010482),
            ("index_price", 2722.4),
            ("settlement_price", 0.0117),
            ("min_price", 0.0001),
            ("max_price", 0.0465),
            ("open_interest", 10_002.0),
            ("underlying_price", 2725.1875),
            ("mark_iv", 46.35),
            ("bid_iv", 45.9),
            ("interest_rate", 0.0),
            ("delta", 0.48211),
            ("gamma", 0.00215),
            ("vega", 1.60331),
            ("theta", -7.04),
            ("rho", 0.091),
            ("volume_24h", 412.5),
            ("high_24h", 0.0125),
            ("low_24h", 0.0095),
            ("price_change_24h", -3.5714),
            ("volume_usd_24h", 11_800.25),
            ("estimated_delivery_price", 2722.4),
        ],
    );
    assert_eq!(ticker.text("state"), Some("open"));
    assert_eq!(ticker.text("underlying"), Some("SYN.ETH-26SEP26"));
    absent(ticker, &["ask_price", "ask_size", "ask_iv", "current_funding", "delivery_price", "combo_state"]);
}

#[test]
fn a_trade_keeps_everything_that_the_venue_says_of_it_integers_beyond_2_to_the_53_included() {
    let rows = rows(include_str!("../fixtures/option.jsonl"));
    let trade = &rows[1];
    assert_eq!((&*trade.stream.table, &*trade.stream.symbol), ("trades", "ETH-26SEP26-2760-C"));
    assert_eq!(trade.head.position, Position::Sequence(41));
    numbers(
        trade,
        &[
            ("price", 0.0105),
            ("size", 3.0),
            ("iv", 46.41),
            ("mark_price", 0.010482),
            ("index_price", 2722.4),
            ("contracts", 3.0),
        ],
    );
    let texts = [
        ("side", "buy"),
        ("id", "ETH-267258393"),
        ("liquidation", "T"),
        ("block_trade_id", "BLOCK-9127"),
        ("combo_id", "ETH-CS-26SEP26-2760_2800"),
        ("combo_trade_id", "43"),
    ];
    for (column, text) in texts {
        assert_eq!(trade.text(column), Some(text), "`{column}`");
    }
    assert_eq!(trade.value("tick_direction"), Some(&Value::I64(0)));
    assert_eq!(trade.value("block_trade_leg_count"), Some(&Value::I64(2)));
    assert_eq!(trade.value("block_rfq_id"), Some(&Value::I64(939)));
    assert_eq!(trade.value("match_id"), Some(&Value::U64(225_046_781_992_378_369)));
    assert_eq!(trade.value("ts_match"), Some(&Value::Time(Timestamp(1_790_165_113_994_718_925))));
}

#[test]
fn quotes_indices_and_states_are_read() {
    let rows = rows(include_str!("../fixtures/option.jsonl"));
    let quote = &rows[2];
    assert_eq!(&*quote.stream.table, "quotes");
    numbers(quote, &[("bid_price", 0.0102), ("bid_size", 35.0)]);
    absent(quote, &["ask_price", "ask_size"]);
    let index = &rows[6];
    assert_eq!((&*index.stream.table, &*index.stream.symbol), ("index_prices", "eth_usd"));
    numbers(index, &[("price", 2722.4)]);
    let status = &rows[7];
    assert_eq!((&*status.stream.table, &*status.stream.symbol), ("instrument_status", "ETH-26SEP26-2760-C"));
    assert_eq!(status.text("state"), Some("halted"));
}

#[test]
fn a_book_is_a_snapshot_best_first_and_changes_linked_to_it() {
    let rows = rows(include_str!("../fixtures/option.jsonl"));
    let level = |price, size| Level { price, size };
    let (snapshot, change, top) = (&rows[3], &rows[4], &rows[5]);
    assert_eq!(snapshot.head.position, Position::Linked { id: 8801, prev: None });
    assert_eq!(snapshot.value("snapshot"), Some(&Value::Bool(true)));
    assert_eq!(snapshot.levels("bids"), [level(0.0102, 35.0), level(0.0101, 12.0)]);
    assert_eq!(snapshot.levels("asks"), [level(0.0108, 7.5), level(0.0109, 4.0)]);
    assert_eq!(change.head.position, Position::Linked { id: 8807, prev: Some(8801) });
    assert_eq!(change.value("snapshot"), Some(&Value::Bool(false)));
    assert_eq!(change.levels("bids"), [level(0.0101, 0.0), level(0.0102, 1000.0)], "a deletion without an amount too");
    assert_eq!(change.levels("asks"), [level(0.0109, 0.0), level(0.0107, 2.0)]);
    assert_eq!((&*top.stream.table, top.head.position), ("book_tops", Position::Unnumbered));
    assert_eq!(top.levels("bids"), [level(0.0102, 1000.0)]);
    assert_eq!(top.value("asks"), Some(&Value::Levels(Vec::new())), "an empty side is there, and empty");
}

#[test]
fn prices_of_combos_may_be_negative_or_zero_and_their_legs_are_not_stored_twice() {
    let rows = rows(include_str!("../fixtures/combo.jsonl"));
    assert_eq!(rows.len(), 2, "the legs come on their own channels");
    let (ticker, trade) = (&rows[0], &rows[1]);
    numbers(
        ticker,
        &[
            ("bid_price", -7.0),
            ("bid_size", 1000.0),
            ("ask_price", 0.0),
            ("ask_size", 2000.0),
            ("mark_price", -3.5),
            ("implied_bid", -7.25),
            ("implied_ask", 0.0),
            ("open_interest", 0.0),
        ],
    );
    assert_eq!(ticker.text("combo_state"), Some("active"));
    absent(ticker, &["last_price", "volume_24h", "high_24h", "delta"]);
    numbers(trade, &[("price", -6.5), ("size", 10.0)]);
    assert_eq!(&*trade.stream.symbol, "ETH-FS-25DEC26_PERP");
}

#[test]
fn a_perpetual_has_funding_and_words_in_place_of_numbers_are_absent() {
    let rows = rows(include_str!("../fixtures/perpetual.jsonl"));
    numbers(
        &rows[0],
        &[
            ("open_interest", 797_578_130.0),
            ("current_funding", -0.000_003_11),
            ("funding_8h", 0.000_017_42),
            ("interest_value", 0.002_821_340_012_247_297_7),
            ("volume_notional_24h", 323_000_000.0),
            ("delivery_price", 2719.5),
        ],
    );
    absent(&rows[0], &["estimated_delivery_price", "delta", "mark_iv", "underlying"]);
    let positions: Vec<_> = rows[1..].iter().map(|row| row.head.position.number().unwrap()).collect();
    assert_eq!(positions, [187_471_858, 187_471_859]);
    absent(&rows[2], &["mark_price", "iv", "contracts", "combo_id", "match_id"]);
}

#[test]
fn a_snapshot_may_name_a_previous_state_and_a_change_of_the_empty_book_is_whole() {
    let position = |data: &str| {
        let mut script = listening(everything(), "");
        script.frame(&notification("book.ETH-PERPETUAL.100ms", data)).unwrap();
        script.stored[0].head.position
    };
    let book = |kind: &str, ids: &str| {
        position(&format!(r#"{{"timestamp":1,{kind}{ids},"instrument_name":"ETH-PERPETUAL","bids":[],"asks":[]}}"#))
    };
    let whole = Position::Linked { id: 5, prev: None };
    assert_eq!(book(r#""type":"snapshot","#, r#""change_id":5,"prev_change_id":4"#), whole);
    assert_eq!(book(r#""type":"change","#, r#""change_id":5,"prev_change_id":0"#), whole);
    assert_eq!(book("", r#""change_id":5"#), whole, "as in 2019");
    let linked = Position::Linked { id: 5, prev: Some(4) };
    assert_eq!(book(r#""type":"change","#, r#""change_id":5,"prev_change_id":4"#), linked, "even as the first message");
    assert_eq!(book("", r#""change_id":5,"prev_change_id":4"#), linked);
    assert_eq!(book(r#""type":"snapshot","#, r#""change_id":0"#), Position::Linked { id: 0, prev: None });
}

#[test]
fn the_order_of_members_spaces_and_escapes_make_no_difference() {
    let plain = notification(
        "quote.ETH-PERPETUAL",
        r#"{"timestamp":5,"instrument_name":"ETH-PERPETUAL","best_bid_price":2.5,"best_bid_amount":1}"#,
    );
    let odd = r#" { "params" : { "data" : { "best_bid_amount":1.0, "channel":"ticker.X.100ms", "best_bid_price":25e-1, "instrument_name":"ETH\u002dPERPETUAL", "timestamp":5.0 }, "channel" : "quote.ETH\u002dPERPETUAL" }, "method" : "subscription", "new" : [{}] } "#;
    let mut script = listening(everything(), "");
    script.frame(&plain).unwrap();
    script.frame(odd).unwrap();
    let [first, second] = &script.stored[..] else { panic!("{:?}", script.stored) };
    assert_eq!(first.values, second.values);
    assert_eq!(first.stream, second.stream);
    assert_eq!(first.head.ts_event, second.head.ts_event);
}

#[test]
fn up_to_fifteen_digits_come_back_digit_for_digit() {
    let mut script: Script<Deribit> = listening(everything(), "");
    for digits in ["0.000123456789012345", "123456.789012345", "99999.9999999999", "1.0e-7", "2.8e-4", "76914.5"] {
        script.stored.clear();
        let data = format!(r#"{{"timestamp":5,"price":{digits},"index_name":"eth_usd"}}"#);
        script.frame(&notification("deribit_price_index.eth_usd", &data)).unwrap();
        let price = script.stored[0].number("price").unwrap();
        assert_eq!(price, digits.parse::<f64>().unwrap(), "{digits}");
        let same: f64 = format!("{price}").parse().unwrap();
        assert_eq!(same.to_bits(), price.to_bits());
    }
}

#[test]
fn every_number_is_the_float_that_is_nearest_to_what_the_venue_wrote() {
    // A reader that is fast and not exact is off by one place in some of these.
    let written = [
        "0.30000000000000004",
        "0.1",
        "0.2",
        "0.3",
        "2.2250738585072011e-308",
        "2.2250738585072014e-308",
        "5e-324",
        "1.7976931348623157e308",
        "9007199254740991.0",
        "9007199254740992.0",
        "9007199254740993.0",
        "9007199254740993",
        "18446744073709551615.5",
        "123456789012345678",
        "12345678901234567e5",
        "8.9884656743115795e307",
        "1e23",
        "8.5e22",
        "7.2057594037927933e16",
        "1.00000000000000011102230246251565",
        "1.00000000000000011102230246251565404e0",
        "0.000035689949035644531",
        "2722.4999999999995",
        "76917.100000000006",
        "0.0084999999999999992",
        "179769313486231.58",
        "4.4501477170144023e-308",
        "6.0221407599999999e23",
        "3.1415926535897931",
        "2.7182818284590451",
        "-4.46e-5",
        "1090544144181609348671888949248",
        "1090544144181609348835077142190",
        "0.48211300000000002",
        "1.0002e6",
        "69.230769230769226",
        "-18.181818181818183",
        "0.017420000000000001",
        "1234567.8901234568",
        "9.5367431640625e-7",
    ];
    let mut script = listening(everything(), "");
    for (seq, text) in written.iter().enumerate() {
        let trade = format!(
            r#"[{{"timestamp":1790165113994,"price":{text},"amount":3.0,"direction":"buy","instrument_name":"ETH-PERPETUAL","trade_seq":{},"trade_id":"1","iv":{text}}}]"#,
            seq + 1
        );
        script.frame(&notification("trades.ETH-PERPETUAL.100ms", &trade)).unwrap();
        let exact: f64 = text.parse().unwrap();
        for column in ["price", "iv"] {
            let stored = script.stored[seq].number(column).unwrap();
            assert_eq!(stored.to_bits(), exact.to_bits(), "{column}: {text} became {stored:?} and is {exact:?}");
        }
    }
}

#[test]
fn a_frame_that_is_of_no_interest_is_counted_and_nothing_else() {
    let mut script = listening(everything(), "");
    for line in include_str!("../fixtures/ignored.jsonl").lines() {
        script.frame(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    assert_eq!(script.ignored().len(), 5);
    assert!(script.stored.is_empty());
    assert_eq!(script.rejected(), [("", ""); 0]);
}

#[test]
fn a_table_that_was_not_asked_for_gets_no_rows() {
    let config = DeribitConfig { channels: vec![Channel::Trades], ..everything() };
    let mut script = listening(config, include_str!("../fixtures/option.jsonl"));
    for line in include_str!("../fixtures/option.jsonl").lines() {
        script.frame(line).unwrap();
    }
    assert_eq!(script.tables().len(), 1);
    assert_eq!(script.stored.len(), 1);
    assert_eq!(script.ignored().len(), 6, "all but the trade and the state, which tells when to choose anew");
}
