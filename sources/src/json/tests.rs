use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use super::{Orders, Reader};

/// What venues send, and what is written as they write it.
const FRAMES: &str = include_str!("../deribit/fixtures/option.jsonl");

#[derive(Debug, PartialEq, Deserialize)]
struct Member<'a> {
    name: &'a str,
    #[serde(default)]
    size: Option<f64>,
    #[serde(default)]
    kind: Kind,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Buy,
    Sell,
}

#[test]
fn members_are_read_in_any_order_and_those_of_no_interest_are_skipped() {
    let texts = [
        r#"{"name":"a","size":1.5,"kind":"sell"}"#,
        r#"{"kind":"sell","name":"a","size":1.5}"#,
        r#"{"more":[{"name":"b"},-1.5e3,true,false,null],"size":1.5,"kind":"sell","name":"a","most":{}}"#,
        " { \"name\" : \"a\" ,\n\t\"size\":\r1.5 , \"kind\": \"sell\" } ",
    ];
    let mut orders = Orders::default();
    for text in texts.iter().cycle().take(12) {
        let member: Option<Member<'_>> = read(text, &mut orders);
        assert_eq!(member, Some(Member { name: "a", size: Some(1.5), kind: Kind::Sell }), "{text}");
    }
}

#[test]
fn what_may_be_left_out_may_be_left_out() {
    let mut orders = Orders::default();
    for text in [r#"{"name":"","size":1,"kind":"buy"}"#, r#"{"name":""}"#, r#"{"kind":"buy","size":null,"name":""}"#] {
        assert!(read::<Member<'_>>(text, &mut orders).is_some(), "{text}");
    }
    for text in [r#"{"size":1}"#, r#"{"name":"a","name":"b"}"#, r#"{"name":"a","kind":"hold"}"#, r#"["a",1.5,"buy"]"#] {
        assert_eq!(read::<Member<'_>>(text, &mut orders), None, "{text}");
    }
}

#[test]
fn a_number_is_the_one_that_serde_json_reads() {
    let numbers = [
        "0",
        "-0",
        "-0.0",
        "7",
        "-7",
        "0.1",
        "1.0e3",
        "1E+3",
        "5e-324",
        "2.8e-4",
        "1e22",
        "1e23",
        "123456789012345678",
        "9007199254740993.0",
        "225046781992378369",
        "9999999999999999999",
        "-9223372036854775807",
        "0.00001",
        "1.7976931348623157e308",
        "8.41e21",
        "9.5e-7",
        "0.30000000000000004",
        "123456789.123456789123456789",
    ];
    for number in numbers {
        assert_eq!(
            exact(number),
            serde_json::from_str::<Value>(number).ok().map(|value| format!("{value:?}")),
            "{number}"
        );
    }
}

#[test]
fn what_is_no_number_of_json_is_not_read() {
    for text in ["", "-", "01", "-01", "1.", ".5", "1e", "1e+", "+1", "0x1", "1e400", "NaN", "Infinity", "1_000", "1 2"]
    {
        assert_eq!(exact(text), None, "{text}");
    }
}

#[test]
fn a_text_with_escapes_or_control_characters_is_left_to_serde_json() {
    for len in 0..20 {
        let text = "ä".repeat(len);
        assert_eq!(read::<&str>(&format!(r#""{text}""#), &mut Orders::default()), Some(&*text));
        for odd in ["\\n", "\\\"", "\n", "\0", "\u{1f}"] {
            let text = format!(r#""{text}{odd}{text}""#);
            assert_eq!(read::<&str>(&text, &mut Orders::default()), None, "{text}");
        }
    }
}

#[test]
fn what_lies_deep_is_left_to_serde_json() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let nested = |depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
        assert!(exact(&nested(32)).is_some());
        for depth in [33, 100_000] {
            assert!(exact(&nested(depth)).is_none());
            assert!(read::<serde::de::IgnoredAny>(&nested(depth), &mut Orders::default()).is_none());
        }
    }
}

#[test]
fn of_a_struct_the_order_is_learnt() {
    let mut orders = Orders::default();
    let order = orders.of(&["a", "b", "c"]);
    assert_eq!(orders.expected(order, None), Some((0, "a")), "at first that of the fields");
    assert_eq!(orders.learn(order, None, "c"), Some(2));
    assert_eq!(orders.learn(order, Some(2), "strange"), None);
    assert_eq!(orders.learn(order, Some(2), "a"), Some(0));
    assert_eq!(orders.expected(order, None), Some((2, "c")));
    assert_eq!(orders.expected(order, Some(2)), Some((0, "a")));
    assert_eq!(orders.expected(order, Some(1)), Some((2, "c")), "nothing came behind it yet");
}

proptest! {
    #[test]
    fn what_is_read_of_a_broken_frame_is_what_serde_json_reads(
        frame in 0..FRAMES.lines().count(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), change()), 0..4),
    ) {
        let mut text: Vec<char> = FRAMES.lines().nth(frame).unwrap_or_default().chars().collect();
        for (at, change) in changes {
            let at = at.index(text.len());
            match change {
                Change::Put(put) => text.splice(at..at, put.chars()).for_each(drop),
                Change::Cut(len) => _ = text.drain(at..text.len().min(at + len)),
            }
            text.push(' ');
        }
        agrees(&text.into_iter().collect::<String>());
    }

    #[test]
    fn every_float_is_the_nearest(bits in any::<u64>(), digits in 1..20_usize) {
        let float = f64::from_bits(bits);
        prop_assume!(float.is_finite());
        for text in [format!("{float}"), format!("{float:e}"), format!("{float:.digits$e}"), format!("{:.digits$}", float % 1e9)] {
            agrees(&text);
        }
    }

    #[test]
    fn a_decimal_as_venues_write_it_is_read(whole in 0..1_000_000_u64, fraction in 0..1_000_000_u64, power in -9..9_i32) {
        for text in [format!("{whole}.{fraction}"), format!("-{whole}.{fraction}e{power}"), format!("{whole}{fraction:06}")] {
            prop_assert!(exact(&text).is_some(), "{text}");
            agrees(&text);
        }
    }
}

#[derive(Debug, Clone)]
enum Change {
    Put(String),
    Cut(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let pieces = [
        "\"",
        "\\",
        "\\u0041",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        " ",
        "\n",
        "\0",
        "\t",
        "-",
        ".",
        "e",
        "E",
        "+",
        "0",
        "1",
        "9",
        "99999999999999999999",
        "null",
        "true",
        "false",
        "ä",
        "€",
        "\u{7f}",
        "\u{1}",
        "e400",
        "\"a\":1,",
    ];
    prop_oneof![
        3 => proptest::sample::select(pieces.to_vec()).prop_map(|piece| Change::Put(piece.to_owned())),
        1 => (1..12_usize).prop_map(Change::Cut),
    ]
}

/// What is read here is read by serde_json, and means the same.
fn agrees(text: &str) {
    if let Some(ours) = exact(text) {
        let theirs = serde_json::from_str::<Value>(text).map(|value| format!("{value:?}"));
        assert_eq!(Some(ours), theirs.ok(), "{text}");
    }
    let ours = read::<serde::de::IgnoredAny>(text, &mut Orders::default());
    assert!(ours.is_none() || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok(), "skipped: {text}");
}

/// Reads any value; shown, since -0.0 and 0.0 are equal.
fn exact(text: &str) -> Option<String> {
    read::<Value>(text, &mut Orders::default()).map(|value| format!("{value:?}"))
}

fn read<'de, T: Deserialize<'de>>(text: &'de str, orders: &mut Orders) -> Option<T> {
    let mut reader = Reader::new(text, orders);
    let value = T::deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    Some(value)
}
