//! What a message holds.

use arrow_array::{Array, cast::AsArray, types::UInt64Type};
use arrow_ipc::reader::StreamReader;
use tidegate_core::{
    config::NameTemplate,
    row::{Label, Level, Mark, Position, Table, Timestamp, kinds::Trade},
};

use super::{super::Format, Bench, assert_committed, offset, up_to};

#[derive(Default)]
struct Everything<'a> {
    flag: bool,
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
    [flag, signed, unsigned, number, text, label, time, levels, list, absent]);

const EXTREMES: Everything<'_> = Everything {
    flag: true,
    signed: i64::MIN,
    unsigned: u64::MAX,
    number: 0.1 + 0.2,
    text: "naïve 'text'\u{0} \"behind\"",
    label: Label("buy"),
    time: Timestamp(1_795_513_263_123_456_789),
    levels: &[Level { price: 1.5, size: 2.0 }, Level { price: 1.25, size: 0.0 }],
    list: &[-1, i64::MAX],
    absent: None,
};

fn bench() -> Bench {
    let url = tidegate_core::testkit::Server::shared("kafka").url();
    Bench::with(url, vec![Table::of::<Everything<'_>>()])
}

#[tokio::test]
async fn a_row_is_a_json_object_with_every_digit_its_key_and_headers() {
    let bench = bench();
    let mark = Mark { symbol: "تومان \"quoted\"", position: Position::Sequence(1 << 63), ts_event: Timestamp(7) };
    let last = bench.log.emit(mark, &EXTREMES);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, last).await);

    let [stored] = &bench.stored("everything").await[..] else { panic!("one row, one message") };
    assert_eq!(stored.key, "تومان \"quoted\"");
    let text = std::str::from_utf8(&stored.value).unwrap();
    let expected = "\"venue\":\"deribit\",\"symbol\":\"تومان \\\"quoted\\\"\",\"seq\":9223372036854775808,\
                    \"origin\":\"live\",\"flag\":true,\"signed\":-9223372036854775808,\
                    \"unsigned\":18446744073709551615,\"number\":0.30000000000000004,\
                    \"text\":\"naïve 'text'\\u0000 \\\"behind\\\"\",\"label\":\"buy\",\
                    \"time\":\"2026-11-24T09:41:03.123456789Z\",\"levels\":[[1.5,2.0],[1.25,0.0]],\
                    \"list\":[-1,9223372036854775807]}";
    assert!(text.starts_with("{\"ts_event\":\"1970-01-01T00:00:00.000000007Z\",\"ts_recv\":"), "{text}");
    assert!(text.ends_with(expected), "{text}\n{expected}");
    assert_eq!(stored.headers["tg_position"], "0000000000000001.1.0");
    assert_eq!(stored.headers["tg_origin"], "live");
    let schema = &stored.headers["tg_schema"];
    assert!(schema.starts_with("everything/") && schema.len() == "everything/".len() + 16, "{schema}");
}

#[tokio::test]
async fn rows_of_one_key_are_one_arrow_stream_with_every_bit() {
    let mut bench = bench();
    bench.config.format = Format::Arrow;
    for (n, symbol) in ["A", "B", "A"].into_iter().enumerate() {
        let mark = Mark { symbol, position: Position::Sequence(n as u64 + 1), ts_event: Timestamp(7) };
        bench.log.emit(mark, &EXTREMES);
    }
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 3).await);

    let mut stored = bench.stored("everything").await;
    stored.sort_by(|a, b| a.key.cmp(&b.key));
    let keys: Vec<_> = stored.iter().map(|message| message.key.as_str()).collect();
    assert_eq!(keys, ["A", "B"]);
    assert_eq!(stored[0].headers["tg_position"], "0000000000000001.1.0", "that of its first row");
    let batches: Vec<_> = StreamReader::try_new(&stored[0].value[..], None).unwrap().collect::<Result<_, _>>().unwrap();
    let [batch] = &batches[..] else { panic!("one batch") };
    assert_eq!(batch.column_by_name("seq").unwrap().as_primitive::<UInt64Type>().values()[..], [1, 3]);
    assert_eq!(batch.column_by_name("unsigned").unwrap().as_primitive::<UInt64Type>().value(1), u64::MAX);
    assert_eq!(batch.column_by_name("label").unwrap().as_string::<i32>().value(1), "buy", "a text, no dictionary");
    assert_eq!(batch.column_by_name("text").unwrap().as_string::<i32>().value(0), EXTREMES.text);
    assert_eq!(batch.column_by_name("levels").unwrap().as_list::<i32>().value(1).len(), 2);
    assert!(batch.column_by_name("absent").unwrap().is_null(0));
}

#[tokio::test]
async fn the_key_is_a_template_and_its_rows_stay_in_order_in_one_partition() {
    let mut bench = Bench::new();
    bench.config.key = NameTemplate::parse("{venue}:{symbol}").unwrap();
    for _ in 0..200 {
        bench.trade_of("ETH", &Trade::default());
        bench.trade_of("BTC", &Trade::default());
        bench.trade_of("SOL", &Trade::default());
    }
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 300).await);
    assert_committed(bench.write(&mut sink, 300, 600).await);
    let stored = bench.stored("trades").await;
    for key in ["deribit:ETH", "deribit:BTC", "deribit:SOL"] {
        let of_key: Vec<_> = stored.iter().filter(|message| message.key == key).collect();
        assert_eq!(of_key.len(), 200);
        assert!(of_key.iter().all(|message| message.partition == of_key[0].partition), "{key} is in one partition");
        let numbers: Vec<_> = of_key.iter().map(|message| message.json()["seq"].as_u64().unwrap()).collect();
        assert!(numbers.is_sorted(), "{key}: {numbers:?}");
    }
}

#[tokio::test]
async fn the_time_of_a_message_is_when_its_row_came() {
    let bench = Bench::new();
    // The log takes a row at once: it came when it happened.
    let came = Timestamp(1_795_513_263_123_456_789);
    let mark = Mark { symbol: "ETH", position: Position::Sequence(1), ts_event: came };
    let last = bench.log.emit(mark, &Trade::default());
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, last).await);
    let [stored] = &bench.stored("trades").await[..] else { panic!("one row, one message") };
    assert_eq!(stored.timestamp_ms, 1_795_513_263_123);
}

#[tokio::test]
async fn every_compression_is_read_back() {
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let mut bench = Bench::new();
        bench.config.compression = serde_json::from_value(compression.into()).unwrap();
        let last = bench.trades(50);
        let mut sink = bench.opened().await;
        assert_committed(bench.write(&mut sink, 0, last).await);
        assert_eq!(bench.numbers().await, up_to(50), "{compression}");
    }
}

#[tokio::test]
async fn an_empty_chunk_moves_the_position_and_a_huge_one_is_one_transaction() {
    let bench = Bench::new();
    let mut sink = bench.opened().await;
    let last = bench.log.control();
    assert_committed(bench.write(&mut sink, 0, last).await);
    assert_eq!(offset(&sink.open(&bench.context()).await.unwrap()), last);
    let end = bench.trades(30_000);
    assert_committed(bench.write(&mut sink, last, end).await);
    assert_eq!(bench.numbers().await.len(), 30_000);
}
