//! Every column type with its extremes, by both ways into the server.

use proptest::prelude::*;
use tidegate_core::{
    config::OnConflict,
    row::{Label, Level, Mark, Position, Table, Timestamp},
    sink::Sink,
};
use tokio_postgres::types::Type;

use super::{Bench, assert_committed, refused};

/// A row with a column of every type.
#[derive(Default)]
struct Everything<'a> {
    flag: Option<bool>,
    signed: Option<i64>,
    unsigned: Option<u64>,
    number: Option<f64>,
    text: Option<&'a str>,
    label: Option<Label<'a>>,
    time: Option<Timestamp>,
    levels: Option<&'a [Level]>,
    list: Option<&'a [i64]>,
}

tidegate_core::row!(Everything<'_> => "everything", [flag, signed, unsigned, number, text, label, time, levels, list]);

const LEVELS: [&[Level]; 3] = [
    &[],
    &[Level { price: 1.5, size: 0.1 }],
    &[Level { price: f64::MAX, size: f64::MIN_POSITIVE }, Level { price: f64::NEG_INFINITY, size: f64::NAN }],
];

fn rows() -> Vec<Everything<'static>> {
    let numbers = [0.0, -0.0, 0.1 + 0.2, f64::MAX, f64::MIN, 5e-324, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    let mut rows: Vec<Everything<'_>> =
        numbers.into_iter().map(|number| Everything { number: Some(number), ..Everything::default() }).collect();
    rows.extend([i64::MIN, -1, 0, i64::MAX].map(|n| Everything {
        signed: Some(n),
        unsigned: Some(n as u64),
        time: Some(Timestamp(n)),
        flag: Some(n > 0),
        ..Everything::default()
    }));
    rows.extend(["", "naïve \"text\"\n\t\\N", "قیمت", "{a,b}", "🦀"].map(|text| Everything {
        text: Some(text),
        label: Some(Label(text)),
        ..Everything::default()
    }));
    rows.extend(LEVELS.map(|levels| Everything { levels: Some(levels), ..Everything::default() }));
    rows.extend(
        [&[][..], &[i64::MIN, 0, i64::MAX]].map(|list| Everything { list: Some(list), ..Everything::default() }),
    );
    rows.push(Everything::default());
    rows
}

#[tokio::test]
async fn every_type_and_extreme_comes_back_bit_for_bit_whether_copied_or_inserted() {
    for on_conflict in [OnConflict::Append, OnConflict::Replace, OnConflict::Ignore] {
        let mut bench = Bench::with(vec![Table::of::<Everything<'_>>()]).await;
        if on_conflict != OnConflict::Append {
            bench.key("everything", on_conflict, &["seq"]);
        }
        let all = rows();
        let mut last = 0;
        for (n, row) in all.iter().enumerate() {
            let mark =
                Mark { symbol: "X", position: Position::Sequence(n as u64), ts_event: Timestamp(n as i64 * 1_000) };
            last = bench.log.emit(mark, row);
        }
        let mut sink = bench.opened().await;
        assert_committed(bench.write(&mut sink, 0, last).await);
        let client = bench.client().await;
        let sql = format!(
            "SELECT flag, signed, unsigned::text, number, text, label, levels, list,
                 (extract(epoch FROM time)::numeric * 1000000)::bigint, array_length(levels, 1)
             FROM {}.everything ORDER BY seq",
            bench.schema
        );
        let stored =
            client.query_typed(&sql, &[] as &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)]).await.unwrap();
        assert_eq!(stored.len(), all.len());
        for (row, stored) in all.iter().zip(&stored) {
            assert_eq!(stored.get::<_, Option<bool>>(0), row.flag);
            assert_eq!(stored.get::<_, Option<i64>>(1), row.signed);
            assert_eq!(stored.get::<_, Option<String>>(2), row.unsigned.map(|n| n.to_string()));
            let bits = stored.get::<_, Option<f64>>(3).map(f64::to_bits);
            assert_eq!(bits, row.number.map(f64::to_bits), "{:?}", row.number);
            assert_eq!(stored.get::<_, Option<&str>>(4), row.text);
            assert_eq!(stored.get::<_, Option<&str>>(5), row.label.map(|label| label.0));
            assert_eq!(stored.get::<_, Option<i64>>(8), row.time.map(|time| time.0.div_euclid(1_000)));
            assert_eq!(stored.get::<_, Option<Vec<i64>>>(7).as_deref(), row.list);
            // Read by SQL, since the client's arrays have one dimension.
            assert_eq!(stored.get::<_, Option<i32>>(9), row.levels.filter(|l| !l.is_empty()).map(|l| l.len() as i32));
        }
        let level =
            "SELECT (levels[2][1])::text || ' ' || (levels[2][2])::text || ' ' || (levels[1][1] = 'Infinity') FROM
            everything WHERE array_length(levels, 1) = 2";
        assert_eq!(bench.text(level).await, "-Infinity NaN false");
        assert_eq!(bench.number("SELECT count(*) FROM everything WHERE levels = '{}'").await, 1, "empty is not absent");
        let exact = "SELECT count(*) FROM everything WHERE levels = '{{1.5,0.1}}'
            OR levels[1][1] = 1.7976931348623157e308 AND levels[1][2] = 2.2250738585072014e-308";
        assert_eq!(bench.number(exact).await, 2);
    }
}

#[tokio::test]
async fn lists_are_json_where_the_users_column_is() {
    for kind in ["jsonb", "json", "text"] {
        for on_conflict in [OnConflict::Append, OnConflict::Replace] {
            let mut bench = Bench::with(vec![Table::of::<Everything<'_>>()]).await;
            bench.run(&format!("CREATE TABLE everything (levels {kind}, list {kind}, seq numeric UNIQUE)")).await;
            if on_conflict != OnConflict::Append {
                bench.key("everything", on_conflict, &["seq"]);
            }
            let row = Everything { levels: Some(LEVELS[1]), list: Some(&[1, i64::MAX]), ..Everything::default() };
            let mark = Mark { symbol: "X", position: Position::Sequence(1), ts_event: Timestamp(0) };
            let last = bench.log.emit(mark, &row);
            let mut sink = bench.opened().await;
            assert_committed(bench.write(&mut sink, 0, last).await);
            let stored = bench.text("SELECT replace(levels::text || list::text, ' ', '') FROM everything").await;
            assert_eq!(stored, "[[1.5,0.1]][1,9223372036854775807]", "{kind}");
        }
    }
}

#[tokio::test]
async fn numeric_columns_have_the_digits_that_the_venue_sent() {
    let mut bench = Bench::with(vec![Table::of::<Everything<'_>>()]).await;
    bench.settings.numeric = vec!["number".to_owned()];
    let numbers = [
        (0.1, "0.1"),
        (123_456_789.123_456, "123456789.123456"),
        (1e-7, "0.0000001"),
        (-1e22, "-10000000000000000000000"),
        (0.0, "0"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "Infinity"),
        (f64::NEG_INFINITY, "-Infinity"),
    ];
    let mut last = 0;
    for (n, (number, _)) in numbers.into_iter().enumerate() {
        let mark = Mark { symbol: "X", position: Position::Sequence(n as u64), ts_event: Timestamp(0) };
        last = bench.log.emit(mark, &Everything { number: Some(number), ..Everything::default() });
    }
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, last).await);
    for (n, (_, digits)) in numbers.into_iter().enumerate() {
        assert_eq!(bench.text(&format!("SELECT number::text FROM everything WHERE seq = {n}")).await, digits);
    }
}

#[tokio::test]
async fn any_number_comes_back_the_same_from_numeric_and_any_unsigned_one_with_each_digit() {
    let mut bench = Bench::with(vec![Table::of::<Everything<'_>>()]).await;
    bench.settings.numeric = vec!["number".to_owned()];
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = (any::<f64>(), any::<u64>(), any::<i64>());
    let mut values = Vec::new();
    for n in 0..2_000 {
        use proptest::strategy::ValueTree;
        let (number, unsigned, signed) = strategy.new_tree(&mut runner).unwrap().current();
        let row = Everything {
            number: Some(number),
            unsigned: Some(unsigned),
            time: Some(Timestamp(signed)),
            ..Everything::default()
        };
        let mark = Mark { symbol: "X", position: Position::Sequence(n), ts_event: Timestamp(0) };
        bench.log.emit(mark, &row);
        values.push((number, unsigned, signed));
    }
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 2_000).await);
    let client = bench.client().await;
    let sql = format!(
        "SELECT number::float8, unsigned::text, (extract(epoch FROM time)::numeric * 1000000)::bigint
         FROM {}.everything ORDER BY seq",
        bench.schema
    );
    let stored = client.query(&sql, &[]).await.unwrap();
    for ((number, unsigned, signed), row) in values.into_iter().zip(stored) {
        let back: f64 = row.get(0);
        assert!(back == number || back.is_nan() && number.is_nan(), "{number} came back as {back}");
        assert_eq!(row.get::<_, String>(1), unsigned.to_string());
        assert_eq!(row.get::<_, i64>(2), signed.div_euclid(1_000));
    }
}

#[tokio::test]
async fn bigint_keeps_nanoseconds_and_refuses_numbers_beyond_it() {
    let mut bench = Bench::with(vec![Table::of::<Everything<'_>>()]).await;
    (bench.settings.times, bench.settings.unsigned) = (super::super::Times::Bigint, super::super::Unsigned::Bigint);
    let mark = |n| Mark { symbol: "X", position: Position::Sequence(n), ts_event: Timestamp(123_456_789) };
    let row =
        |unsigned| Everything { unsigned: Some(unsigned), time: Some(Timestamp(i64::MIN)), ..Everything::default() };
    bench.log.emit(mark(1), &row(i64::MAX as u64));
    let bad = bench.log.emit(mark(2), &row(u64::MAX));
    let mut sink = bench.opened().await;
    let refused = refused(bench.write(&mut sink, 0, bad).await);
    assert_eq!(refused[0].0, bad);
    assert!(refused.len() == 1 && refused[0].1.contains("18446744073709551615"), "{refused:?}");
    assert_committed(bench.write(&mut sink, 0, 1).await);
    let stored = bench.text("SELECT ts_event || ' ' || time || ' ' || unsigned FROM everything").await;
    assert_eq!(stored, "123456789 -9223372036854775808 9223372036854775807");
    sink.close().await.unwrap();
}
