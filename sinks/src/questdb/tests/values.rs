//! What a value becomes, and which ones become nothing.

use serde_json::json;
use tidegate_core::{
    config::Duration,
    row::{Label, Level, Mark, Position, Table, Timestamp, kinds::Trade},
    sink::Sink,
};

use super::{super::*, BEGIN, Bench, assert_accepted, offsets, refused};

#[derive(Default)]
struct Everything<'a> {
    flag: bool,
    maybe: Option<bool>,
    signed: i64,
    unsigned: u64,
    number: f64,
    text: &'a str,
    label: Label<'a>,
    time: Timestamp,
    levels: &'a [Level],
    list: &'a [i64],
    absent: Option<f64>,
}

tidegate_core::row!(Everything<'_> => "everything",
    [flag, maybe, signed, unsigned, number, text, label, time, levels, list, absent]);

const ALL: &str = "cast(ts_event AS LONG), symbol, flag, maybe, signed, cast(unsigned AS VARCHAR), number, text, label, \
                   cast(time AS LONG), levels, list, absent, cast(seq AS VARCHAR), origin, venue";

#[tokio::test]
async fn every_value_comes_back_exactly() {
    let mut bench = Bench::with(vec![Table::of::<Everything<'_>>()]);
    bench.config.unsigned = Unsigned::Decimal;
    let row = Everything {
        flag: true,
        maybe: Some(false),
        signed: i64::MIN + 1,
        unsigned: u64::MAX,
        number: 0.1 + 0.2,
        text: "naïve \"text\"\n\\ , = سلام",
        label: Label("a label, with = and \\ and\nmore"),
        time: Timestamp(-1),
        levels: &[Level { price: 1.5, size: 2.0 }, Level { price: 1.25, size: 0.0 }],
        list: &[-1, i64::MAX],
        absent: None,
    };
    let symbol = "a \"quoted\", one=x\\ سلام";
    let mark = |n, ts| Mark { symbol, position: Position::Sequence(n), ts_event: Timestamp(ts) };
    bench.log.emit(mark(1 << 63, BEGIN), &row);
    let least = Everything { number: f64::MAX, signed: i64::MAX, time: Timestamp(i64::MAX), ..Everything::default() };
    bench.log.emit(mark(0, 0), &least);
    let last = bench.log.emit(mark(1, 9_214_646_399_999_999_999), &Everything { number: -0.0, ..least });
    let mut sink = bench.opened().await;
    bench.store(&mut sink, 0, last).await;
    let rows = bench.sql(&format!("SELECT {ALL} FROM {} ORDER BY ts_event", bench.name("everything"))).await;
    assert_eq!(
        rows[1],
        [
            json!(BEGIN),
            json!(symbol),
            json!(true),
            json!("false"),
            json!(i64::MIN + 1),
            json!("18446744073709551615"),
            json!(0.1 + 0.2),
            json!(row.text),
            json!(row.label.0),
            json!(-1),
            json!([[1.5, 1.25], [2.0, 0.0]]),
            json!("[-1,9223372036854775807]"),
            json!(null),
            json!("9223372036854775808"),
            json!("live"),
            json!("deribit"),
        ]
    );
    assert_eq!(rows[0][..4], [json!(0), json!(symbol), json!(false), json!(null)]);
    assert_eq!(rows[0][4], json!(i64::MAX));
    assert_eq!((&rows[0][6], &rows[0][7], &rows[0][8]), (&json!(f64::MAX), &json!(""), &json!("")));
    assert_eq!((&rows[0][9], &rows[0][10], &rows[0][11]), (&json!(i64::MAX), &json!([]), &json!("[]")));
    assert_eq!(rows[2][0], json!(9_214_646_399_999_999_999_i64));
}

#[tokio::test]
async fn what_quest_db_would_turn_into_null_or_another_value_is_refused_with_its_column_and_nothing_is_sent() {
    let bench = Bench::with(vec![Table::of::<Everything<'_>>(), Table::of::<Trade<'_>>()]);
    let good = || Everything { number: 1.0, ..Everything::default() };
    let nan = [Level { price: f64::NAN, size: 1.0 }];
    let bad = [
        (Everything { number: f64::NAN, ..good() }, "`number` would turn NaN into NULL"),
        (Everything { number: f64::INFINITY, ..good() }, "`number` would turn inf into NULL"),
        (Everything { signed: i64::MIN, ..good() }, "`signed` would turn -9223372036854775808 into NULL"),
        (Everything { unsigned: 1 << 63, ..good() }, "`unsigned` is too small for 9223372036854775808"),
        (Everything { time: Timestamp(i64::MIN), ..good() }, "`time` would turn its smallest time"),
        (Everything { label: Label("a\0b"), ..good() }, "`label` takes no NUL"),
        (Everything { levels: &nan, ..good() }, "`levels` holds levels of numbers only"),
    ];
    for (row, _) in &bad {
        bench.emit(&good());
        bench.emit(row);
    }
    let mark = |ts| Mark { symbol: "ETH", position: Position::Unnumbered, ts_event: Timestamp(ts) };
    let early = bench.log.emit(mark(-1), &good());
    let late = bench.log.emit(mark(i64::MAX), &good());
    bench.trades(2);
    let nul_in_symbol = bench.log.emit(Mark { symbol: "\0", ..mark(BEGIN) }, &good());
    let mut sink = bench.opened().await;
    let found = refused(bench.write(&mut sink, 0, nul_in_symbol).await);
    let wanted: Vec<u64> = (1..=7).map(|n| 2 * n).chain([early, late, nul_in_symbol]).collect();
    assert_eq!(offsets(&found), wanted);
    let says = [
        "`ts_event` cannot hold a time before 1970",
        "`ts_event` cannot hold a time behind 2261",
        "`symbol` takes no NUL",
    ];
    for (refusal, says) in found.iter().zip(bad.iter().map(|(_, says)| *says).chain(says)) {
        assert!(refusal.error.to_string().contains(says), "{}: {says}", refusal.error);
    }
    let both = format!(
        "SELECT sum(n) FROM (SELECT count() n FROM {} UNION ALL SELECT count() n FROM {})",
        bench.name("everything"),
        bench.name("trades")
    );
    let sequencer = "SELECT sum(sequencerTxn) FROM wal_tables() WHERE name IN";
    let sent = format!("{sequencer} ('{}', '{}')", bench.name("everything"), bench.name("trades"));
    assert_eq!((bench.number(&both).await, bench.number(&sent).await), (0, 0), "a refusal sends nothing");
}

#[tokio::test]
async fn with_microseconds_what_is_below_is_cut_off() {
    let mut bench = Bench::new();
    bench.config.timestamps = Timestamps::Microseconds;
    let last = bench.trades(3);
    let mut sink = bench.opened().await;
    bench.store(&mut sink, 0, last).await;
    let rows =
        bench.sql(&format!("SELECT cast(ts_event AS LONG), seq FROM {} ORDER BY seq", bench.name("trades"))).await;
    // One moment for all three: the spool's positions tell them apart.
    let wanted: Vec<_> = (1..=3).map(|seq| vec![json!(BEGIN / 1_000), json!(seq)]).collect();
    assert_eq!(rows, wanted);
}

#[tokio::test]
async fn a_row_older_than_the_ttl_is_refused_and_one_that_is_not_is_kept() {
    let mut bench = Bench::new();
    (bench.config.partition, bench.config.ttl) = (Partition::Hour, Some(Duration::from_secs(2 * 3_600)));
    const HOUR: i64 = 3_600_000_000_000;
    let at = |ts| {
        let mark = Mark { symbol: "ETH", position: Position::Unnumbered, ts_event: Timestamp(ts) };
        bench.log.emit(mark, &Trade { price: 1.0, ..Trade::default() })
    };
    at(BEGIN);
    at(BEGIN - HOUR);
    let in_chunk = at(BEGIN - 4 * HOUR);
    let mut sink = bench.opened().await;
    assert_eq!(offsets(&refused(bench.write(&mut sink, 0, in_chunk).await)), [in_chunk]);
    bench.store(&mut sink, 0, in_chunk - 1).await;
    // What an outage has held up comes in its order.
    at(BEGIN + 5 * HOUR);
    let late = at(BEGIN);
    let found = refused(bench.write(&mut sink, in_chunk, late).await);
    assert_eq!(offsets(&found), [late]);
    assert!(found[0].error.to_string().contains("its TTL"), "{}", found[0].error);
    let counted = bench.number(&format!("SELECT count() FROM {}", bench.name("trades"))).await;
    assert_eq!(counted, 2);
    // A sink that is opened anew knows the newest row of the table.
    let mut sink = bench.sink();
    sink.open(&bench.context_at(in_chunk - 1)).await.unwrap();
    let late = at(BEGIN - 3 * HOUR);
    assert_eq!(offsets(&refused(bench.write(&mut sink, late - 1, late).await)), [late]);
}

#[tokio::test]
async fn long_texts_and_a_chunk_of_many_requests_are_stored_whole() {
    let mut bench = Bench::with(vec![Table::of::<Everything<'_>>()]);
    bench.config.request_bytes = tidegate_core::config::ByteSize(100_000);
    let long = "x".repeat(5_000_000);
    for n in 0..5_000_u64 {
        let text = if n == 2_500 { long.as_str() } else { "short" };
        bench.emit(&Everything { unsigned: n, text, ..Everything::default() });
    }
    let mut sink = bench.opened().await;
    bench.store(&mut sink, 0, 5_000).await;
    let name = bench.name("everything");
    assert_eq!(bench.number(&format!("SELECT count_distinct(tg_pos) FROM {name}")).await, 5_000);
    assert_eq!(bench.number(&format!("SELECT max(length(text)) FROM {name}")).await, 5_000_000);
    let requests = bench.number(&format!("SELECT sequencerTxn FROM wal_tables() WHERE name = '{name}'")).await;
    assert!(requests > 5, "{requests} requests");
    // And again: nothing is doubled.
    assert_accepted(bench.write(&mut sink, 0, 5_000).await);
    super::applied(&mut sink, 5_000).await;
    assert_eq!(bench.number(&format!("SELECT count() FROM {name}")).await, 5_000);
}
