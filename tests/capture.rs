//! What `tidegate capture numbers` says of a capture: which numbers f64 does not give back, where they stand, and nothing else.
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

mod support;

use std::{fs, io::Write, path::Path};

use flate2::{Compression, write::GzEncoder};
use support::tidegate;
use tidegate::{
    connection::capture::{Asked, Body, Event, Line},
    row::Timestamp,
};

#[test]
fn numbers_that_are_rounded_are_listed_by_channel_and_field_with_a_count_and_an_example() {
    let folder = tempfile::tempdir().unwrap();
    let help = tidegate(folder.path(), &["capture", "numbers", "--help"]).printed;
    let example = help.lines().find_map(|line| line.strip_prefix("  tidegate ")).unwrap();
    assert!(help.contains("Exit code 1 if a number is rounded"), "{help}");
    let words: Vec<&str> = example.split(' ').collect();
    let request = Asked { method: "GET".to_owned(), url: "https://venue/api/trades?start=7".to_owned() };
    let reply = Body::Text(r#"{"usIn":1790165113907123,"trades":[{"price":0.30000000000000004441}]}"#.to_owned());
    write(
        &folder.path().join(words[2]),
        vec![
            // Bare: one that comes back, and two that do not.
            frame(r#"{"params":{"channel":"ticker.A","data":{"delta":2722.4999999999995,"price":12.5}}}"#),
            frame(r#"{"params":{"channel":"ticker.A","data":{"delta":0.1234567890123456789,"price":12.25}}}"#),
            frame(r#"{"params":{"channel":"ticker.A","data":{"delta":-0.1234567890123456789e-3,"price":13}}}"#),
            // Between quotes, as other venues write them; an id there is a text.
            frame(r#"{"topic":"trades","data":[{"p":"99.99999999999999999","id":"40236111111111111111111"}]}"#),
            // Whole: exact in a column of whole numbers.
            frame(r#"{"params":{"channel":"trades.A","data":[{"match_id":9007199254740993,"seq":18}]}}"#),
            frame("ping"),
            Event::Reply { request, status: 200, body: reply, gaps: Vec::new() },
            Event::Dropped { lines: 4 },
        ],
    );
    let ran = tidegate(folder.path(), &words);
    assert_eq!(ran.code, 1, "{ran:?}");
    let rows: Vec<Vec<&str>> = ran.printed.lines().map(|line| line.split_whitespace().collect()).collect();
    let quoted = ["trades", "data[].p", "text", "1", "1", "99.99999999999999999", "→", "100"];
    let replied = ["GET", "https://venue/api/trades", "trades[].price", "number", "1", "1", "0.30000000000000004441"];
    assert_eq!(rows[0], ["channel", "field", "form", "numbers", "rounded", "example"]);
    assert_eq!(
        rows[1][..6],
        ["ticker.A", "params.data.delta", "number", "3", "2", "0.1234567890123456789"],
        "{rows:?}"
    );
    assert_eq!(rows[1][6..], ["→", "0.12345678901234568"]);
    assert!(rows[2..4].iter().any(|row| *row == quoted), "{}", ran.printed);
    assert!(rows[2..4].iter().any(|row| row[..7] == replied), "{}", ran.printed);
    let id = ["all", "params.data[].match_id", "whole", "1", "-", "9007199254740993"];
    assert_eq!(rows[4], id, "the last: {}", ran.printed);
    let [.., sum, unreadable, missing] = &ran.printed.lines().collect::<Vec<_>>()[..] else { panic!("{ran:?}") };
    let words = "12 numbers in 7 frames and replies: 5 have more than 15 significant digits, 4 of them are rounded";
    assert_eq!(*sum, words);
    assert!(unreadable.starts_with("1 frames and replies are no JSON"), "{unreadable}");
    assert_eq!(*missing, "4 lines or more are missing in the capture");
}

#[test]
fn a_capture_whose_numbers_all_come_back_ends_with_0_and_none_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let exact =
        r#"{"params":{"channel":"ticker.A","data":[0.1,"2722.5",1790165113907,2722.4999999999995,9007199254740993]}}"#;
    write(&folder.path().join("capture"), vec![frame(exact)]);
    let ran = tidegate(folder.path(), &["capture", "numbers", "capture"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.printed.ends_with("1 have more than 15 significant digits, 0 of them are rounded\n"), "{ran:?}");

    let ran = tidegate(folder.path(), &["capture", "numbers", "nowhere"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.said.contains("no capture at `nowhere`"), "{ran:?}");
    fs::write(folder.path().join("capture/deribit-000002.jsonl.gz"), "no gzip at all").unwrap();
    let ran = tidegate(folder.path(), &["capture", "numbers", "capture"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.said.contains("deribit-000002.jsonl.gz` cannot be read"), "{ran:?}");
}

fn frame(text: &str) -> Event {
    Event::Frame { body: Body::Text(text.to_owned()) }
}

/// Writes a capture of these events.
fn write(folder: &Path, events: Vec<Event>) {
    fs::create_dir_all(folder).unwrap();
    let file = fs::File::create(folder.join("deribit-000001.jsonl.gz")).unwrap();
    let mut file = GzEncoder::new(file, Compression::fast());
    for event in events {
        serde_json::to_writer(&mut file, &Line { at: Timestamp(7), session: 1, event }).unwrap();
        file.write_all(b"\n").unwrap();
    }
    file.finish().unwrap();
}
