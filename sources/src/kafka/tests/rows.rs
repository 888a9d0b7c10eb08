//! What the sink has written is what is read back.

use std::{collections::HashSet, sync::Arc};

use arrow_array::RecordBatch;
use tidegate_core::{
    chunk::{ChunkBuilder, JsonRows, Plan},
    config::TableChoice,
    row::{
        Label, Level, Table,
        kinds::{BookChange, Trade},
    },
    spool::{Boot, Cause, SourceInfo},
    testkit::MemoryLog,
};

use super::{
    super::decode::{Decoded, Decoder, Incoming},
    world::{emit, header},
};

#[test]
fn rows_come_back_as_they_were_as_json_and_as_arrow() {
    let trades = MemoryLog::new("deribit", vec![Table::of::<Trade<'_>>()]);
    let extremes = [0.1, -0.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE, 1e300, 1.0 / 3.0];
    for (number, price) in extremes.into_iter().enumerate() {
        let side = (number % 2 == 0).then_some(Label("buy"));
        let id = (number % 3 == 0).then_some("a \"quoted\"\n\u{1F600}");
        emit(&trades, number as u64 + 1, &Trade { price, size: 2.0, side, id, ..Trade::default() });
    }
    emit(&trades, u64::MAX, &Trade::default());
    comes_back(&trades, &Table::of::<Trade<'_>>());

    let books = Table::of::<BookChange<'_>>().linked();
    let log = MemoryLog::new("deribit", vec![books.clone()]);
    let levels = [Level { price: 1.5, size: 0.0 }, Level { price: 1e-9, size: 2.5 }];
    for number in 1..=4 {
        emit(&log, number, &BookChange { bids: &levels[..(number % 3) as usize], ..BookChange::default() });
    }
    comes_back(&log, &books);
}

/// Encodes a log's rows as a collector does, decodes them, and puts them together as a sink of a loader gets them.
fn comes_back(log: &MemoryLog, table: &Table) {
    let written = log.chunk(0, log.synced().borrow().offset).tables.remove(0).rows;
    let header = header(table);
    let header = header.as_bytes();
    fn incoming<'a>(header: &'a [u8], value: &'a [u8]) -> Incoming<'a> {
        Incoming { place: ("t", 0, 0), key: None, value: Some(value), schema: Some(header), time: None }
    }
    let mut json = Vec::new();
    for number in 0..written.num_rows() {
        let mut value = Vec::new();
        JsonRows::new(&written).write(number, &mut value);
        json.push(value);
    }
    for values in [json, vec![stream(&written)]] {
        let mut decoder = Decoder::new("collectors", vec![table.clone()]);
        let info =
            SourceInfo { name: "collectors".into(), venue: "kafka".into(), tables: vec![Arc::new(table.clone())] };
        let plan = Plan::new("load", vec![info], TableChoice::All).unwrap();
        let mut builder = ChunkBuilder::new(Arc::new(plan));
        let mut offset = 0;
        for value in &values {
            let rows = match decoder.decode(incoming(header, value)) {
                Decoded::Rows(rows) => rows,
                other @ (Decoded::Poison(_) | Decoded::Undeclared(_)) => panic!("{other:?}"),
            };
            for row in rows {
                offset += 1;
                let source = decoder.row_source(row.head.head.stream).unwrap();
                // Built with another decoder's tables: the plan's own are found by name.
                builder.push(Cause { boot: Boot(1), offset, sub: 0 }, &row.head, &row.bytes, source, &HashSet::new());
            }
        }
        let read = builder.finish().remove(0).rows;
        assert_eq!(texts(&read), texts(&written), "{}", table.name);
    }
}

fn texts(rows: &RecordBatch) -> Vec<String> {
    let text = |number| {
        let mut text = Vec::new();
        JsonRows::new(rows).write(number, &mut text);
        String::from_utf8(text).unwrap()
    };
    (0..rows.num_rows()).map(text).collect()
}

#[test]
fn what_is_no_row_says_why() {
    let table = Table::of::<Trade<'_>>();
    let header = header(&table);
    let mut decoder = Decoder::new("collectors", vec![table]);
    let (value, _) = super::world::trades([1]).remove(0);
    let text = String::from_utf8(value).unwrap();
    let cases = [
        (None, "no value"),
        (Some("[1]".to_owned()), "no JSON object"),
        (Some(text.replace("\"origin\":\"live\"", "\"origin\":\"dead\"")), "`origin` is `dead`"),
        (Some(text.replace("\"symbol\":\"S1\",", "")), "column `symbol` has to be a text"),
        (Some(text.replace("\"seq\":1", "\"seq\":-1")), "column `seq`"),
        (Some(text.replace("\"size\":2.0", "\"size\":null").replace("\"size\":2", "\"size\":null")), "column `size`"),
        (Some("\u{0}".repeat(3)), "no JSON object"),
    ];
    for (value, why) in cases {
        let value = value.as_deref().map(str::as_bytes);
        let message = Incoming { place: ("t", 0, 4), key: None, value, schema: Some(header.as_bytes()), time: Some(1) };
        match decoder.decode(message) {
            Decoded::Poison(poison) => assert!(poison.why.contains(why), "{}: {value:?}", poison.why),
            other @ (Decoded::Rows(_) | Decoded::Undeclared(_)) => panic!("{value:?}: {other:?}"),
        }
    }
    let arrow = [0xff, 0xff, 0xff, 0xff, 1, 2, 3];
    let message =
        Incoming { place: ("t", 0, 4), key: None, value: Some(&arrow), schema: Some(header.as_bytes()), time: None };
    assert!(matches!(decoder.decode(message), Decoded::Poison(_)), "no Arrow, and no panic");
}

#[test]
fn an_arrow_stream_that_is_broken_anywhere_or_of_other_types_is_poison_or_rows_and_no_fault() {
    let table = Table::of::<Trade<'_>>();
    let header = header(&table);
    let trades = MemoryLog::new("deribit", vec![table.clone()]);
    emit(&trades, 1, &Trade { price: 1.5, size: 2.0, ..Trade::default() });
    let written = trades.chunk(0, trades.synced().borrow().offset).tables.remove(0).rows;
    let mut decoder = Decoder::new("collectors", vec![table]);
    let mut decode = |value: &[u8]| {
        let (schema, place) = (Some(header.as_bytes()), ("t", 0, 4));
        decoder.decode(Incoming { place, key: None, value: Some(value), schema, time: None })
    };
    let right = stream(&written);
    assert!(matches!(decode(&right), Decoded::Rows(_)));
    for at in 0..right.len() {
        for change in [0x01, 0xff] {
            let mut broken = right.clone();
            broken[at] ^= change;
            drop(decode(&broken));
        }
        drop(decode(&right[..at]));
    }
    let mut fields: Vec<_> = written.schema().fields().iter().map(|field| (**field).clone()).collect();
    let mut columns = written.columns().to_vec();
    let at = fields.iter().position(|field| field.name() == "ts_event").unwrap();
    let milliseconds = arrow_array::TimestampMillisecondArray::from(vec![5; written.num_rows()]).with_timezone("UTC");
    fields[at] = arrow_schema::Field::new("ts_event", arrow_array::Array::data_type(&milliseconds).clone(), false);
    columns[at] = Arc::new(milliseconds);
    let other = RecordBatch::try_new(Arc::new(arrow_schema::Schema::new(fields)), columns).unwrap();
    match decode(&stream(&other)) {
        Decoded::Poison(poison) => assert!(poison.why.contains("`ts_event` Timestamp("), "{}", poison.why),
        other @ (Decoded::Rows(_) | Decoded::Undeclared(_)) => panic!("{other:?}"),
    }
}

fn stream(rows: &RecordBatch) -> Vec<u8> {
    let mut value = Vec::new();
    let mut writer = arrow_ipc::writer::StreamWriter::try_new(&mut value, rows.schema_ref()).unwrap();
    writer.write(rows).unwrap();
    writer.finish().unwrap();
    drop(writer);
    value
}
