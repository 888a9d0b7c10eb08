//! Recorded frames, where they are: they are not ours to pass on, so they lie outside the repository.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::PathBuf,
};

use serde_json::Value as Json;
use tidegate_core::{
    protocol::Request,
    row::{Level, Position, StreamKey},
    testkit::{Stored, Value, gap},
};

use super::*;

/// Returns a file of recorded frames; `None` where there is none, and the test is counted among those that were skipped.
fn sample(name: &str) -> Option<String> {
    let folder =
        std::env::var_os("TIDEGATE_SAMPLES").map_or_else(|| PathBuf::from("/work/shared/samples"), PathBuf::from);
    let path = folder.join("deribit").join(name);
    let text = std::fs::read_to_string(&path);
    if text.is_err() {
        skipped(&format!("no {}", path.display()));
    }
    text.ok()
}

/// Says that a test cannot run here, or not all of it: once, for `scripts/test` counts these lines.
fn skipped(why: &str) {
    thread_local! { static IS_SAID: Cell<bool> = const { Cell::new(false) } }
    if IS_SAID.replace(true) {
        return;
    }
    let line = format!("SKIPPED {}: {why}", std::thread::current().name().unwrap_or("a test"));
    eprintln!("{line}");
    if let Some(file) = std::env::var_os("SKIPPED_TESTS") {
        let mut file = std::fs::File::options().create(true).append(true).open(file).unwrap();
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

fn count(script: &Script<Deribit>, table: &str) -> usize {
    script.stored.iter().filter(|row| &*row.stream.table == table).count()
}

#[test]
fn two_minutes_of_a_recorded_connection_give_the_rows_that_were_counted_by_other_means() {
    let (Some(frames), Some(expected)) = (sample("ws_options_2021-04-05_raw.jsonl"), sample("expected.json")) else {
        return;
    };
    let expected: Json = serde_json::from_str(&expected).unwrap();
    let expected = &expected["ws_options_2021-04-05_raw.jsonl"];
    let mut script = listening(everything(), &frames);
    for line in frames.lines() {
        script.frame(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    let number = |key: &str| expected[key].as_u64().unwrap() as usize;
    assert_eq!(count(&script, "tickers"), number("quotes"));
    assert_eq!(count(&script, "book_changes"), expected["frames_by_kind"]["book"].as_u64().unwrap() as usize);
    assert_eq!(count(&script, "trades"), number("trades"));
    let snapshots = script.stored.iter().filter(|row| row.value("snapshot") == Some(&Value::Bool(true)));
    assert_eq!(snapshots.count(), number("book_snapshots"));
    assert_eq!(script.ignored(), ["a reply to nothing that was asked"], "the reply to its subscription");
    assert_eq!(script.rejected(), [("", ""); 0]);
    let symbols: BTreeSet<&str> = script.stored.iter().map(|row| &*row.stream.symbol).collect();
    let known: BTreeSet<&str> =
        expected["symbols"]["book"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(symbols, known);
    let mut books = Books::default();
    let changes: Vec<&Stored> = script.stored.iter().filter(|row| &*row.stream.table == "book_changes").collect();
    changes.iter().for_each(|row| books.apply(row));
    assert_eq!(books.breaks, number("book_gaps"));
    for (channel, top) in expected["final_top_of_book"].as_object().unwrap() {
        let symbol = channel.split('.').nth(1).unwrap();
        books.compare(symbol, top);
    }
}

/// Books, folded from rows.
#[derive(Default)]
struct Books {
    of: BTreeMap<String, Book>,
    breaks: usize,
}

#[derive(Default)]
struct Book {
    last: u64,
    /// Prices as bits of positive floats, which sort as the floats do.
    sides: [BTreeMap<u64, f64>; 2],
}

impl Books {
    fn apply(&mut self, row: &Stored) {
        let book = self.of.entry(row.stream.symbol.to_string()).or_default();
        let Position::Linked { id, prev } = row.head.position else { panic!("{row:?}") };
        match prev {
            None => book.sides = Default::default(),
            Some(prev) => self.breaks += usize::from(prev != book.last),
        }
        book.last = id;
        for (side, column) in ["bids", "asks"].into_iter().enumerate() {
            for Level { price, size } in row.levels(column) {
                if *size == 0.0 {
                    book.sides[side].remove(&price.to_bits());
                } else {
                    book.sides[side].insert(price.to_bits(), *size);
                }
            }
        }
    }

    fn compare(&self, symbol: &str, top: &Json) {
        let book = &self.of[symbol];
        let best = |level: Option<(&u64, &f64)>| level.map(|(price, size)| [f64::from_bits(*price), *size]);
        let told = |side: &str| {
            let number = |place: usize| top[side][place].as_str().map(|text| text.parse::<f64>().unwrap());
            number(0).zip(number(1)).map(|(price, size)| [price, size])
        };
        assert_eq!(best(book.sides[0].last_key_value()), told("bid"), "{symbol}");
        assert_eq!(best(book.sides[1].first_key_value()), told("ask"), "{symbol}");
        assert_eq!(book.sides[0].len() as u64, top["bid_levels"].as_u64().unwrap(), "{symbol}");
        assert_eq!(book.sides[1].len() as u64, top["ask_levels"].as_u64().unwrap(), "{symbol}");
        assert_eq!(Some(book.last.to_string().as_str()), top["last_change_id"].as_str(), "{symbol}");
    }
}

#[test]
fn every_recorded_and_documented_frame_is_read_or_left_out_knowingly() {
    for (name, rows) in [("ws_mixed.jsonl", 33), ("ws_docs_examples.jsonl", 11)] {
        let Some(frames) = sample(name) else { continue };
        // Nobody asks for channels of many instruments.
        let frames: Vec<&str> = frames.lines().filter(|line| !line.contains(r#""trades.option."#)).collect();
        let mut script = listening(everything(), &frames.concat());
        for line in &frames {
            script.frame(line).unwrap_or_else(|error| panic!("{name}: {error}: {line}"));
        }
        let arrays: usize = frames
            .iter()
            .map(|line| {
                let frame: Json = serde_json::from_str(line).unwrap();
                let params = &frame["params"];
                match (Channel::of(params["channel"].as_str().unwrap()), &params["data"]) {
                    (Some(Channel::Trades), Json::Array(trades)) => trades.len(),
                    (Some(_), _) => 1,
                    (None, _) => 0,
                }
            })
            .sum();
        assert_eq!(script.stored.len(), arrays, "{name}");
        assert!(arrays >= rows / 2, "{name}: {arrays}");
        assert_eq!(script.rejected(), [("", ""); 0], "{name}");
        assert!(script.ignored().iter().all(|what| *what == "a channel of no interest"), "{:?}", script.ignored());
    }
}

#[test]
fn every_number_of_a_recorded_frame_is_in_its_row() {
    let Some(frames) = sample("ws_mixed.jsonl") else { return };
    for line in frames.lines() {
        let frame: Json = serde_json::from_str(line).unwrap();
        let data = &frame["params"]["data"];
        let mut script = listening(everything(), line);
        script.frame(line).unwrap();
        let elements = data.as_array().cloned().unwrap_or_else(|| vec![data.clone()]);
        for (row, element) in script.stored.iter().zip(&elements) {
            for key in ["mark_price", "index_price", "price", "open_interest", "contracts", "settlement_price"] {
                if let (Some(number), false) = (element[key].as_f64(), &*row.stream.table == "quotes") {
                    assert_eq!(row.number(key), Some(number), "`{key}` of {line}");
                }
            }
            if let Some(id) = element["starbase_match_id"].as_u64() {
                assert_eq!(row.value("match_id"), Some(&Value::U64(id)));
            }
        }
    }
}

#[test]
fn recorded_replies_and_heartbeats_are_answered_and_refusals_sorted() {
    use tidegate_core::Kind;
    let Some(frames) = sample("ws_control.jsonl") else { return };
    let mut kinds = BTreeMap::new();
    for line in frames.lines() {
        let mut script = script(everything());
        match script.frame(line) {
            Ok(()) => assert_eq!(script.stored, [], "{line}"),
            Err(error) => {
                let frame: Json = serde_json::from_str(line).unwrap();
                kinds.insert(frame["error"]["code"].as_i64().unwrap(), error.kind());
            }
        }
    }
    let transient = Kind::Transient { retry_after: None };
    let expected = [(-32602, Kind::Malformed), (-32600, Kind::Malformed), (13009, transient), (13778, Kind::Permanent)];
    assert_eq!(kinds, expected.into());
}

#[test]
fn recorded_lists_of_instruments_and_pages_of_trades_are_read() {
    for (name, rows) in
        [("rest_get_instruments_ETH_2021-07-22.jsonl", 426), ("rest_get_instruments_USDC_2022-05-29.jsonl", 16)]
    {
        let Some(line) = sample(name) else { continue };
        let body = serde_json::from_str::<Json>(line.trim()).unwrap()["response"].to_string();
        let instruments = serde_json::from_str(r#"[{ "currency": "ETH" }]"#).unwrap();
        let mut script = Script::new(
            Deribit::new(DeribitConfig { instruments, channels: vec![Channel::Trades], ..everything() }),
            Timestamp::default(),
        );
        let (_, channels) = script.discover(|_| body.clone()).unwrap();
        assert_eq!(channels.len(), rows + 1, "{name}");
        assert_eq!((script.ignored().len(), script.rejected().len()), (0, 0), "{name}");
    }
    let Some(replies) = sample("rest_mixed.jsonl") else { return };
    let mut pages = 0;
    for line in replies.lines().filter(|line| line.contains("get_last_trades")) {
        let line: Json = serde_json::from_str(line).unwrap();
        let mut script = script(everything());
        let trades = line["response"]["result"]["trades"].as_array().unwrap();
        let request = Request::get(format!("{MAIN}/public/get_last_trades_by_instrument?"));
        let names: BTreeSet<&str> = trades.iter().map(|trade| trade["instrument_name"].as_str().unwrap()).collect();
        let gaps: Vec<_> =
            (0..).zip(names).map(|(id, name)| gap(id, StreamKey::new("trades", name), None, None)).collect();
        script.reply(&request, 200, &line["response"].to_string(), &gaps).unwrap();
        assert_eq!(script.stored.len(), trades.len());
        pages += 1;
    }
    assert_eq!(pages, 4);
}
