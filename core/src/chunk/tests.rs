//! Rows of every column type, of several sources, of any number of columns, and bytes of any kind.

use std::{collections::HashSet, sync::Arc};

use arrow_array::Array;
use proptest::prelude::*;

use super::*;
use crate::{
    config::TableChoice,
    protocol::Outbox,
    row::{
        Column, ColumnType, Head, Label, Level, Mark, Origin, Position, Row, StreamKey, Timestamp,
        kinds::{BookChange, Trade},
    },
    spool::{Boot, RowHead, SourceInfo},
};

/// A row with a column of every type.
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

crate::row!(Everything<'_> => "everything", [flag, signed, unsigned, number, text, label, time, levels, list, absent]);

#[test]
fn every_column_type_comes_back_exactly() {
    let row = Everything {
        flag: true,
        signed: i64::MIN,
        unsigned: u64::MAX,
        number: 0.1 + 0.2,
        text: "naïve \"text\"\n\u{0}",
        label: Label("buy"),
        time: Timestamp(1_795_513_263_123_456_789),
        levels: &[Level { price: 1.5, size: 2.0 }, Level { price: 1.25, size: 0.0 }],
        list: &[-1, i64::MAX],
        absent: None,
    };
    let chunk = one(&row, Position::Sequence(u64::MAX));
    assert_eq!(
        json(&chunk[0], 0),
        "{\"ts_event\":\"1970-01-01T00:00:00.000000001Z\",\"ts_recv\":\"1970-01-01T00:00:00.000000002Z\",\
         \"venue\":\"deribit\",\"symbol\":\"X\",\"seq\":18446744073709551615,\"origin\":\"backfill\",\"flag\":true,\
         \"signed\":-9223372036854775808,\"unsigned\":18446744073709551615,\"number\":0.30000000000000004,\
         \"text\":\"naïve \\\"text\\\"\\n\\u0000\",\"label\":\"buy\",\"time\":\"2026-11-24T09:41:03.123456789Z\",\
         \"levels\":[[1.5,2.0],[1.25,0.0]],\"list\":[-1,9223372036854775807]}",
        "and the absent value has no member"
    );
}

#[test]
fn a_linked_table_has_the_state_before_and_the_chain() {
    let table = Table::of::<BookChange<'_>>().linked();
    let mut bench = Bench::new(vec![source("deribit", vec![table])]);
    let change = BookChange { snapshot: false, bids: &[Level { price: 1.0, size: 2.0 }], asks: &[] };
    let row = bytes(vec![Table::of::<BookChange<'_>>().linked()], &change);
    let mut head = head(Position::Linked { id: 8, prev: Some(7) });
    (head.session, head.epoch) = (3, 2);
    bench.push(&head, &row, 0, "book_changes");
    head.head.position = Position::Linked { id: 9, prev: None };
    bench.push(&head, &row, 0, "book_changes");
    let chunk = bench.finish();
    let text = json(&chunk[0], 0);
    assert!(
        text.contains(&format!("\"seq\":8,\"origin\":\"live\",\"prev_seq\":7,\"chain\":{}", (3_u64 << 32) | 2)),
        "{text}"
    );
    assert!(json(&chunk[0], 1).contains("\"seq\":9,\"origin\":\"live\",\"chain\":"), "a snapshot has none before it");
}

#[test]
fn sources_that_feed_one_table_share_its_columns_and_absent_is_null() {
    let mut other = Table::of::<Trade<'_>>();
    other.columns.push(column("premium", ColumnType::F64, false));
    other.columns.retain(|column| &*column.name != "iv");
    let mut bench = Bench::new(vec![source("deribit", vec![Table::of::<Trade<'_>>()]), source("polygon", vec![other])]);
    let trade = Trade { price: 1.0, iv: Some(50.0), ..Trade::default() };
    let row = bytes(vec![Table::of::<Trade<'_>>()], &trade);
    bench.push(&head(Position::Unnumbered), &row, 0, "trades");
    let mut second = head(Position::Unnumbered);
    second.head.stream = 1;
    // price, size, and the premium, which is its ninth column.
    let mut other_row = 0b1_0000_0011_u64.to_le_bytes().to_vec();
    for number in [2.0_f64, 3.0, 42.0] {
        other_row.extend_from_slice(&number.to_le_bytes());
    }
    bench.push(&second, &other_row, 1, "trades");

    assert_eq!(bench.plan.tables().len(), 1);
    let chunk = bench.finish();
    let (first, second) = (json(&chunk[0], 0), json(&chunk[0], 1));
    assert!(first.contains("\"venue\":\"deribit\"") && first.contains("\"iv\":50.0") && !first.contains("premium"));
    assert!(
        second.contains("\"venue\":\"polygon\"") && second.contains("\"premium\":42.0") && !second.contains("\"iv\"")
    );
}

#[test]
fn the_same_column_with_another_type_is_refused_by_name() {
    let mut other = Table::of::<Trade<'_>>();
    other.columns[0].column_type = ColumnType::Text;
    let sources = vec![source("deribit", vec![Table::of::<Trade<'_>>()]), source("polygon", vec![other])];
    let error = Plan::new("test", sources.clone(), TableChoice::All).unwrap_err();
    assert_eq!(error.kind(), crate::Kind::Config);
    assert!(error.to_string().contains("`price`") && error.to_string().contains("`trades`"), "{error}");

    let apart = choice(r#"{ "trades": "{venue}_{table}" }"#);
    let plan = Plan::new("test", sources, apart).unwrap();
    let names: Vec<&str> = plan.tables().iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["deribit_trades", "polygon_trades"]);
}

#[test]
fn names_that_clash_are_refused() {
    let two = vec![Table::of::<Trade<'_>>(), Table::of::<BookChange<'_>>()];
    let both = choice(r#"{ "trades": "x", "book_changes": "x" }"#);
    let error = Plan::new("test", vec![source("deribit", two)], both).unwrap_err();
    assert!(error.to_string().contains("both called `x`"), "{error}");

    let mut table = Table::of::<Trade<'_>>();
    table.columns[0].name = "seq".into();
    let error = Plan::new("test", vec![source("deribit", vec![table])], TableChoice::All).unwrap_err();
    assert!(error.to_string().contains("two columns called `seq`"), "{error}");

    let by_symbol = choice(r#"{ "trades": "{symbol}" }"#);
    let error = Plan::new("test", vec![source("deribit", vec![Table::of::<Trade<'_>>()])], by_symbol).unwrap_err();
    assert!(error.to_string().contains("a table for each symbol"), "{error}");
}

#[test]
fn a_table_may_have_more_columns_than_a_word_has_bits() {
    let names: Vec<String> = (0..150).map(|n| format!("c{n}")).collect();
    let columns = names.iter().map(|name| column(name, ColumnType::I64, true)).collect();
    let wide = Table { name: "wide".into(), identity: Vec::new(), linked: false, columns, is_whole: false };
    let mut bench = Bench::new(vec![source("deribit", vec![wide])]);
    let mut row = Vec::new();
    let is_there = |n: usize| n.is_multiple_of(3);
    for word in 0..3 {
        let bits = (0..64).filter(|bit| word * 64 + bit < 150 && is_there(word * 64 + bit));
        row.extend_from_slice(&bits.fold(0_u64, |word, bit| word | 1 << bit).to_le_bytes());
    }
    for n in (0..150_i64).filter(|n| is_there(*n as usize)) {
        row.extend_from_slice(&n.to_le_bytes());
    }
    bench.push(&head(Position::Unnumbered), &row, 0, "wide");
    let chunk = bench.finish();
    for n in 0..150 {
        let ColumnView::I64(column) = ColumnView::of(chunk[0].rows.column(6 + n)) else { panic!("an integer") };
        assert_eq!(column.is_valid(0).then(|| column.value(0)), is_there(n).then_some(n as i64), "column {n}");
    }
}

#[test]
fn a_row_that_is_skipped_or_broken_leaves_its_neighbours_alone() {
    let mut bench = Bench::new(vec![source("deribit", vec![Table::of::<Everything<'_>>()])]);
    let row =
        |text| bytes(vec![Table::of::<Everything<'_>>()], &Everything { text, list: &[1, 2], ..Everything::default() });
    let head = head(Position::Unnumbered);
    bench.skip.insert(cause(2));
    assert_eq!(bench.push(&head, &row("one"), 0, "everything"), Fate::Taken);
    assert_eq!(bench.push(&head, &row("two"), 0, "everything"), Fate::Skipped);
    let broken = row("three");
    for cut in 0..broken.len() {
        assert_eq!(bench.push(&head, &broken[..cut], 0, "everything"), Fate::Unreadable, "cut at {cut}");
    }
    assert_eq!(
        bench.push(&head, &[broken.clone(), vec![0]].concat(), 0, "everything"),
        Fate::Unreadable,
        "a byte too much"
    );
    assert_eq!(bench.push(&head, &row("four"), 0, "everything"), Fate::Taken);
    assert_eq!(bench.builder.rows(), 2);
    let chunk = bench.finish();
    assert!(json(&chunk[0], 0).contains("\"text\":\"one\"") && json(&chunk[0], 1).contains("\"text\":\"four\""));
    assert_eq!(chunk[0].causes.len(), 2);
    assert!(bench.finish().is_empty(), "a builder that was finished is empty");
}

#[test]
fn the_chain_is_the_same_for_the_same_tables_only() {
    let plan = |tables, wanted| Plan::new("test", vec![source("deribit", tables)], wanted).unwrap().chain();
    let trades = || vec![Table::of::<Trade<'_>>()];
    assert_eq!(plan(trades(), TableChoice::All), plan(trades(), TableChoice::All));
    assert_ne!(plan(trades(), TableChoice::All), plan(trades(), choice(r#"{ "trades": "t" }"#)));
    assert_ne!(plan(trades(), TableChoice::All), plan(vec![Table::of::<BookChange<'_>>()], TableChoice::All));
}

#[test]
fn times_are_written_as_people_read_them() {
    let text = |nanoseconds| {
        let mut text = Vec::new();
        write_time(nanoseconds, &mut text);
        String::from_utf8(text).unwrap()
    };
    assert_eq!(text(0), "1970-01-01T00:00:00.000000000Z");
    assert_eq!(text(-1), "1969-12-31T23:59:59.999999999Z");
    assert_eq!(text(951_782_400_000_000_000), "2000-02-29T00:00:00.000000000Z");
    assert_eq!(text(i64::MAX), "2262-04-11T23:47:16.854775807Z");
    assert_eq!(text(i64::MIN), "1677-09-21T00:12:43.145224192Z");
}

proptest! {
    #[test]
    fn bytes_of_any_kind_neither_panic_nor_change_a_good_row(
        rows in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 1..20),
    ) {
        let mut bench = Bench::new(vec![source("deribit", vec![Table::of::<Everything<'_>>()])]);
        let good = bytes(vec![Table::of::<Everything<'_>>()], &Everything { text: "good", ..Everything::default() });
        let head = head(Position::Unnumbered);
        let mut taken = 0;
        for row in &rows {
            bench.push(&head, &good, 0, "everything");
            taken += 1 + usize::from(bench.push(&head, row, 0, "everything") == Fate::Taken);
        }
        let chunk = bench.finish();
        prop_assert_eq!(chunk[0].rows.num_rows(), taken);
        let goods = (0..taken).filter(|row| json(&chunk[0], *row).contains("\"text\":\"good\"")).count();
        prop_assert!(goods >= rows.len());
    }
}

#[test]
fn each_chunk_of_a_table_has_the_same_schema_and_none_is_made_for_it() {
    let mut bench = Bench::new(vec![source("deribit", vec![Table::of::<Trade<'_>>()])]);
    let row = bytes(vec![Table::of::<Trade<'_>>()], &Trade::default());
    let mut schemas = Vec::new();
    for _ in 0..2 {
        bench.builder.clear();
        bench.push(&head(Position::Unnumbered), &row, 0, "trades");
        schemas.push(bench.finish()[0].rows.schema());
    }
    assert!(Arc::ptr_eq(&schemas[0], &schemas[1]));
}

struct Bench {
    sources: Vec<SourceInfo>,
    plan: Arc<Plan>,
    builder: ChunkBuilder,
    skip: HashSet<Cause>,
    offset: u64,
}

impl Bench {
    fn new(sources: Vec<SourceInfo>) -> Self {
        let plan = Arc::new(Plan::new("test", sources.clone(), TableChoice::All).unwrap());
        Self { sources, builder: ChunkBuilder::new(plan.clone()), plan, skip: HashSet::new(), offset: 0 }
    }

    fn push(&mut self, head: &RowHead, row: &[u8], source: usize, table: &str) -> Fate {
        self.offset += 1;
        let source = &self.sources[source];
        let table = source.tables.iter().find(|known| *known.name == *table).unwrap();
        let key = StreamKey::new(&table.name, "X");
        let from = RowSource { source: &source.name, venue: &source.venue, key: &key, table };
        self.builder.push(cause(self.offset), head, row, from, &self.skip)
    }

    fn finish(&mut self) -> Vec<TableRows> {
        self.builder.finish()
    }
}

fn one<R: Row + Default>(row: &R, position: Position) -> Vec<TableRows> {
    let mut bench = Bench::new(vec![source("deribit", vec![Table::of::<R>()])]);
    let mut head = head(position);
    head.head.origin = Origin::Backfill;
    bench.push(&head, &bytes(vec![Table::of::<R>()], row), 0, R::TABLE);
    bench.finish()
}

fn bytes<R: Row>(tables: Vec<Table>, row: &R) -> Vec<u8> {
    let mut outbox = Outbox::new(tables);
    outbox.emit(Mark { symbol: "X", position: Position::Unnumbered, ts_event: Timestamp(1) }, row);
    outbox.records().iter().next().unwrap().1.to_vec()
}

fn head(position: Position) -> RowHead {
    let (ts_event, ts_recv) = (Timestamp(1), Timestamp(2));
    RowHead {
        head: Head { stream: 0, position, ts_event, ts_recv, origin: Origin::Live },
        session: 1,
        line: 0,
        epoch: 0,
    }
}

fn cause(offset: u64) -> Cause {
    Cause { boot: Boot(1), offset, sub: 0 }
}

fn source(name: &str, tables: Vec<Table>) -> SourceInfo {
    SourceInfo { name: name.into(), venue: name.into(), tables: tables.into_iter().map(Arc::new).collect() }
}

fn column(name: &str, column_type: ColumnType, nullable: bool) -> Column {
    Column { name: name.into(), column_type, nullable }
}

fn choice(json: &str) -> TableChoice {
    serde_json::from_str(json).unwrap()
}

fn json(part: &TableRows, row: usize) -> String {
    let mut text = Vec::new();
    JsonRows::new(&part.rows).write(row, &mut text);
    String::from_utf8(text).unwrap()
}
