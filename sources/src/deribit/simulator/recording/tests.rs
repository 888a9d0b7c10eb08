use std::{fs::File, io::Write};

use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use tempfile::TempDir;

use super::*;

const NAME: &str = "ETH-26SEP26-2760-C";
const BEGAN_MS: i64 = 1_790_000_000_000;

#[test]
fn frames_come_in_their_order_and_at_their_pace_and_trades_with_them() {
    let capture = Capture::default()
        .frame(100, "ticker", &ticker(1.5))
        .frame(300, "trades", &json!([trade(7, 250)]))
        .frame(300, "ticker", &ticker(1.5))
        .write();
    let mut recording = Recording::open(capture.path(), 2.0).unwrap();
    assert_eq!(recording.now_us(), BEGAN_MS * 1000);
    assert_eq!(due(&mut recording), Vec::<String>::new(), "nothing before its time");

    recording.pass(Duration::from_millis(50));
    assert_eq!(due(&mut recording), ["ticker"], "50 ms at twice the speed");
    recording.pass(Duration::from_millis(99));
    assert_eq!(due(&mut recording), ["made 7"], "made at its own time, and told behind it");
    assert!(!recording.is_over());
    recording.pass(Duration::from_millis(1));
    assert_eq!(due(&mut recording), ["trades", "ticker"]);
    assert!(recording.is_over());
}

#[test]
fn trades_that_came_by_rest_only_are_made_in_their_time_and_told_by_no_frame() {
    let page = json!([trade(5, -60_000), trade(6, 120), trade(7, 250)]);
    let capture = Capture::default().reply(900, &page).frame(300, "trades", &json!([trade(7, 250)])).write();
    let mut recording = Recording::open(capture.path(), 1.0).unwrap();
    let past: Vec<u64> = recording.past().iter().map(|(_, trade)| trade.seq).collect();
    assert_eq!(past, [5], "made before the recording began");
    recording.pass(Duration::from_millis(120));
    let Due { trades, frame } = recording.next_due().unwrap();
    assert!(trades[0].1.seq == 6 && frame.is_none() && !recording.tells(&trades[0].1), "the venue has to tell it");
    recording.pass(Duration::from_millis(880));
    assert_eq!(due(&mut recording), ["made 7", "trades"]);
}

#[test]
fn two_trades_of_one_number_are_refused() {
    let other = json!({ "trade_id": "ETH-1" });
    let mut anew = trade(7, 300);
    anew.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
    let capture = Capture::default().frame(300, "trades", &json!([trade(7, 250)])).frame(400, "trades", &json!([anew]));
    let error = Recording::open(capture.write().path(), 1.0).unwrap_err().to_string();
    assert!(error.contains("two trades numbered 7"), "{error}");
}

#[test]
fn a_book_is_shown_as_its_frames_left_it_and_is_unknown_behind_a_break() {
    let snapshot = book("snapshot", 10, None, &json!([["new", 0.01, 5.0], ["new", 0.02, 1.0]]));
    let change = book("change", 12, Some(10), &json!([["delete", 0.02, 0.0], ["change", 0.01, 4.0]]));
    let broken = book("change", 20, Some(15), &json!([]));
    let lost = book("change", 21, Some(20), &json!([]));
    let capture = [snapshot, change, broken, lost].into_iter().enumerate();
    let capture = capture.fold(Capture::default(), |capture, (n, data)| capture.frame(100 * n as i64, "book", &data));
    let capture = capture.write();
    let mut recording = Recording::open(capture.path(), 1.0).unwrap();
    let channel = format!("book.{NAME}.100ms");
    assert!(recording.snapshot(&channel).is_none());
    recording.pass(Duration::from_millis(100));
    assert_eq!(due(&mut recording), ["book", "book"]);
    let (text, _) = recording.snapshot(&channel).unwrap();
    assert!(text.contains(r#""change_id":12"#) && text.contains(r#""bids":[["new",0.01,4.0]]"#), "{text}");

    recording.pass(Duration::from_millis(100));
    assert_eq!(due(&mut recording), ["book"], "who follows the book sees that it is broken");
    assert!(recording.snapshot(&channel).is_none());
    recording.pass(Duration::from_millis(100));
    assert_eq!(due(&mut recording), ["made nothing"], "a change of an unknown book");
}

#[test]
fn a_request_is_answered_as_it_was_last_and_instruments_are_listed_by_it() {
    let row = json!([{
        "instrument_name": NAME, "instrument_id": 4, "kind": "option", "strike": 2760.0, "option_type": "call",
        "expiration_timestamp": 5, "creation_timestamp": 1, "settlement_period": "week"
    }]);
    let capture =
        Capture::default().discovered(10, &row).discovered(500, &json!([])).frame(600, "ticker", &ticker(0.0));
    let capture = capture.write();
    let mut recording = Recording::open(capture.path(), 1.0).unwrap();
    let listed = recording.instruments();
    assert_eq!((listed.len(), listed[0].id, listed[0].expiration_ms), (1, 4, 5));
    let params = |kind: &str| Params::of_query(vec![("kind".into(), kind.into()), ("currency".into(), "ETH".into())]);
    let ask = |recording: &Recording, kind| {
        recording.reply("public/get_instruments", &params(kind)).map(|text| text.contains(NAME))
    };
    assert_eq!(ask(&recording, "option"), Some(true));
    assert_eq!(ask(&recording, "future"), None, "never asked");
    recording.pass(Duration::from_millis(500));
    assert_eq!(ask(&recording, "option"), Some(false), "the later reply");
}

#[test]
fn what_cannot_be_played_is_left_out_in_words() {
    let mut foreign = trade(1, 0);
    foreign["instrument_name"] = json!("ETH-CS-19MAY26-2700_2750");
    let dropped = capture::Event::Dropped { lines: 3 };
    let capture = Capture::default().frame(10, "trades", &json!([foreign])).with(20, dropped);
    let capture = capture.frame(30, "quote", &json!({})).frame(40, "ticker", &ticker(0.0)).write();
    let mut recording = Recording::open(capture.path(), 1.0).unwrap();
    let lacks = recording.lacks();
    assert!(lacks.len() == 2 && lacks[0].starts_with("2 frames ") && lacks[1].starts_with("3 lines "), "{lacks:?}");
    recording.pass(Duration::from_millis(40));
    assert_eq!(due(&mut recording), ["ticker"]);
}

#[test]
fn a_capture_whose_file_is_cut_is_played_up_to_there_and_that_is_said() {
    let capture = Capture::default().frame(10, "ticker", &ticker(0.0)).write();
    let text: String = (0..10_000).map(|number| format!("{number} ")).collect();
    let file = File::create(capture.path().join("deribit-000002.jsonl.gz")).unwrap();
    let mut cut = GzEncoder::new(file, Compression::fast());
    cut.write_all(text.as_bytes()).unwrap();
    cut.finish().unwrap();
    let mut recording = Recording::open(capture.path(), 1.0).unwrap();
    let lacks = recording.lacks();
    assert!(lacks.len() == 1 && lacks[0].contains("deribit-000002.jsonl.gz` is missing"), "{lacks:?}");
    recording.pass(Duration::from_millis(40));
    assert_eq!(due(&mut recording), ["ticker"]);
}

#[test]
fn a_capture_with_nothing_to_play_is_refused() {
    let capture = Capture::default().discovered(10, &json!([])).write();
    let error = Recording::open(capture.path(), 1.0).unwrap_err().to_string();
    assert!(error.contains("holds no frame"), "{error}");
    let missing = Recording::open(&capture.path().join("nowhere"), 1.0).unwrap_err().to_string();
    assert!(missing.contains("no capture at"), "{missing}");
}

/// Returns what is due, a word for each.
fn due(recording: &mut Recording) -> Vec<String> {
    let mut words = Vec::new();
    while let Some(Due { trades, frame }) = recording.next_due() {
        if trades.is_empty() && frame.is_none() {
            words.push("made nothing".to_owned());
        }
        words.extend(trades.iter().map(|(_, trade)| format!("made {}", trade.seq)));
        words.extend(frame.map(|frame| frame.channel.split('.').next().unwrap().to_owned()));
    }
    words
}

fn ticker(volume: f64) -> serde_json::Value {
    json!({ "stats": { "volume": volume }, "instrument_name": NAME })
}

fn trade(seq: u64, at_ms: i64) -> serde_json::Value {
    json!({
        "instrument_name": NAME, "trade_seq": seq, "trade_id": format!("ETH-{}", 100 + seq),
        "timestamp": BEGAN_MS + at_ms, "price": 0.01, "amount": 1.0, "direction": "buy"
    })
}

fn book(kind: &str, change_id: u64, previous: Option<u64>, bids: &serde_json::Value) -> serde_json::Value {
    json!({
        "type": kind, "timestamp": BEGAN_MS, "change_id": change_id, "prev_change_id": previous,
        "instrument_name": NAME, "bids": bids, "asks": []
    })
}

/// A capture in the making.
#[derive(Default)]
struct Capture(Vec<(i64, capture::Event)>);

impl Capture {
    fn frame(self, at_ms: i64, kind: &str, data: &serde_json::Value) -> Self {
        let interval = if kind == "quote" { "" } else { ".100ms" };
        let channel = format!("{kind}.{NAME}{interval}");
        let frame = json!({
            "jsonrpc": "2.0", "method": "subscription", "params": { "channel": channel, "data": data }
        });
        self.with(at_ms, capture::Event::Frame { body: Body::Text(frame.to_string()) })
    }

    fn discovered(self, at_ms: i64, result: &serde_json::Value) -> Self {
        let url = "http://venue/api/v2/public/get_instruments?currency=ETH&kind=option";
        let request = capture::Asked { method: "GET".into(), url: url.into() };
        let body = Body::Text(json!({ "result": result }).to_string());
        self.with(at_ms, capture::Event::Discovered { request, status: 200, body })
    }

    fn reply(self, at_ms: i64, trades: &serde_json::Value) -> Self {
        let request = capture::Asked { method: "GET".into(), url: "http://venue".into() };
        let body = Body::Text(json!({ "result": { "trades": trades, "has_more": false } }).to_string());
        self.with(at_ms, capture::Event::Reply { request, status: 200, body, gaps: Vec::new() })
    }

    fn with(mut self, at_ms: i64, event: capture::Event) -> Self {
        self.0.push((at_ms, event));
        self
    }

    fn write(self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("deribit-000001.jsonl.gz")).unwrap();
        let mut file = GzEncoder::new(file, Compression::fast());
        let start = capture::Event::Start { version: capture::VERSION, source: "deribit".into() };
        for (at_ms, event) in [(0, start)].into_iter().chain(self.0) {
            let line = Line { at: Timestamp((BEGAN_MS + at_ms) * 1_000_000), session: 1, event };
            serde_json::to_writer(&mut file, &line).unwrap();
            file.write_all(b"\n").unwrap();
        }
        file.finish().unwrap();
        folder
    }
}
