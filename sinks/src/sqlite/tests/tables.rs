//! What is stored, and into which tables.

use tidegate_core::{
    Kind,
    row::{Label, Level, Mark, Position, Table, Timestamp, kinds::Quote, kinds::Trade},
    sink::{Sink, Written},
};

use super::{Bench, assert_committed, offset};

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

#[tokio::test]
async fn every_value_comes_back_exactly() {
    let bench = Bench::with(vec![Table::of::<Everything<'_>>()]);
    let row = Everything {
        flag: true,
        signed: i64::MIN,
        unsigned: u64::MAX,
        number: 0.1 + 0.2,
        text: "naïve 'text'\u{0} behind",
        label: Label("buy"),
        time: Timestamp(1_795_513_263_123_456_789),
        levels: &[Level { price: 1.5, size: 2.0 }, Level { price: 1.25, size: 0.0 }],
        list: &[-1, i64::MAX],
        absent: None,
    };
    let mark = Mark { symbol: "a \"quoted\" one", position: Position::Sequence(1 << 63), ts_event: Timestamp(7) };
    let last = bench.log.emit(mark, &row);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, last).await);
    let shown = bench
        .text(
            "SELECT flag || '|' || signed || '|' || unsigned || '|' || printf('%!.17g', number) || '|' || hex(text)
                || '|' || label || '|' || time || '|' || levels || '|' || list || '|' || (absent IS NULL)
                || '|' || symbol || '|' || venue || '|' || origin || '|' || ts_event || '|' || seq FROM everything",
        )
        .await;
    let text: String = "naïve 'text'\u{0} behind".bytes().map(|byte| format!("{byte:02X}")).collect();
    assert_eq!(
        shown,
        format!(
            "1|-9223372036854775808|18446744073709551615|0.30000000000000004|{text}|buy|1795513263123456789\
             |[[1.5,2.0],[1.25,0.0]]|[-1,9223372036854775807]|1|a \"quoted\" one|deribit|live|7|9223372036854775808"
        )
    );
}

#[tokio::test]
async fn unsigned_numbers_below_two_to_the_63_are_integers() {
    let bench = Bench::new();
    bench.trades(20);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 20).await);
    assert_eq!(bench.number("SELECT count(*) FROM trades WHERE typeof(seq) = 'integer'").await, 20);
    assert_eq!(bench.number("SELECT max(seq) FROM trades").await, 20, "9 comes before 10");
}

#[tokio::test]
async fn names_are_taken_literally() {
    let bench = Bench::new();
    let last = bench.trades(3);
    let mut context = bench.context();
    context.tables[0].name = "my \"trades\"; drop table x -- select".to_owned();
    let mut sink = bench.sink();
    sink.open(&context).await.unwrap();
    assert_committed(bench.write(&mut sink, 0, last).await);
    assert_eq!(bench.number("SELECT count(*) FROM \"my \"\"trades\"\"; drop table x -- select\"").await, 3);
}

#[tokio::test]
async fn a_name_that_sqlite_keeps_for_itself_is_refused() {
    let bench = Bench::new();
    for name in ["sqlite_x", "Tidegate_Position", ""] {
        let mut context = bench.context();
        context.tables[0].name = name.to_owned();
        let error = bench.sink().open(&context).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Permanent, "{name}");
        assert!(error.to_string().contains(name));
    }
}

#[tokio::test]
async fn nan_is_a_refusal_and_never_null() {
    let bench = Bench::new();
    bench.trades(2);
    let bad = bench.trade(&Trade { price: f64::NAN, ..Trade::default() });
    let fine = bench.trade(&Trade { price: f64::INFINITY, ..Trade::default() });
    let mut sink = bench.opened().await;
    let Ok(Written::Refused(refused)) = bench.write(&mut sink, 0, fine).await else { panic!("NaN was taken") };
    assert_eq!(refused.iter().map(|refusal| refusal.cause.offset).collect::<Vec<_>>(), [bad]);
    assert!(refused[0].error.to_string().contains("\"price\" would turn NaN into NULL"), "{}", refused[0].error);
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 0, "a refusal commits nothing");
}

#[tokio::test]
async fn rows_that_a_key_forbids_are_found_all_together_and_nothing_is_written() {
    let mut bench = Bench::new();
    bench.config.key.insert("trades".to_owned(), vec!["symbol".to_owned(), "id".to_owned()]);
    let ids = ["a", "b", "a", "c", "b", "a", "d"];
    for id in ids {
        bench.trade(&Trade { id: Some(id), ..Trade::default() });
    }
    bench.trade(&Trade { price: f64::NAN, id: Some("e"), ..Trade::default() });
    bench.quote(&Quote::default());
    let mut sink = bench.opened().await;
    let Ok(Written::Refused(refused)) = bench.write(&mut sink, 0, 9).await else { panic!("taken") };
    assert_eq!(refused.iter().map(|refusal| refusal.cause.offset).collect::<Vec<_>>(), [3, 5, 6, 8]);
    assert!(refused[0].error.chain().contains("UNIQUE constraint failed"), "{}", refused[0].error.chain());
    assert_eq!(bench.number("SELECT (SELECT count(*) FROM trades) + (SELECT count(*) FROM quotes)").await, 0);
    assert_eq!(offset(&sink.open(&bench.context()).await.unwrap()), None, "the position has not moved");
}

#[tokio::test]
async fn a_key_of_a_column_or_table_that_is_not_there_is_said() {
    for (table, column) in [("trades", "nonsense"), ("nonsense", "symbol")] {
        let mut bench = Bench::new();
        bench.config.key.insert(table.to_owned(), vec![column.to_owned()]);
        let error = bench.sink().open(&bench.context()).await.unwrap_err();
        assert!(error.to_string().contains("`nonsense`"), "{error}");
    }
}

#[tokio::test]
async fn a_table_of_the_users_own_is_adopted_and_its_missing_columns_are_added() {
    let bench = Bench::new();
    bench.run("CREATE TABLE trades (note TEXT DEFAULT 'x', Price DOUBLE PRECISION, symbol VARCHAR(20))").await;
    let last = bench.trades(4);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, last).await);
    assert_eq!(bench.number("SELECT count(*) FROM trades WHERE note = 'x' AND price = 1.5 AND size = 2.0").await, 4);
}

#[tokio::test]
async fn a_table_that_would_change_values_is_refused_with_its_column() {
    for (columns, named) in [
        ("price INTEGER", "price"),
        ("ts_event TEXT", "ts_event"),
        ("ts_event REAL", "ts_event"),
        ("symbol INTEGER", "symbol"),
        ("symbol TEXT, forgotten TEXT NOT NULL", "forgotten"),
    ] {
        let bench = Bench::new();
        bench.run(&format!("CREATE TABLE trades ({columns})")).await;
        let error = bench.sink().open(&bench.context()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Permanent, "{columns}");
        assert!(error.to_string().contains(&format!("`{named}`")), "{columns}: {error}");
    }
    let bench = Bench::new();
    bench.run("CREATE VIEW trades AS SELECT 1").await;
    assert!(bench.sink().open(&bench.context()).await.unwrap_err().to_string().contains("is a view"));
}

#[tokio::test]
async fn an_integer_column_that_is_too_small_refuses_the_row_and_does_not_round_it() {
    let bench = Bench::new();
    bench.run("CREATE TABLE trades (seq INTEGER)").await;
    let mark = |n| Mark { symbol: "X", position: Position::Sequence(n), ts_event: Timestamp(0) };
    bench.log.emit(mark(u64::MAX), &Trade::default());
    bench.log.emit(mark(i64::MAX as u64), &Trade::default());
    let mut sink = bench.opened().await;
    let Ok(Written::Refused(refused)) = bench.write(&mut sink, 0, 2).await else { panic!("taken") };
    assert_eq!(refused.len(), 1);
    assert!(refused[0].error.to_string().contains("18446744073709551615"));
}

#[tokio::test]
async fn with_create_off_what_is_missing_is_named_and_nothing_is_made() {
    let mut bench = Bench::new();
    bench.config.create = false;
    let error = bench.sink().open(&bench.context()).await.unwrap_err();
    assert!(error.to_string().contains("does not exist"), "{error}");
    assert!(!bench.path().exists());

    bench.run("CREATE TABLE trades (symbol TEXT)").await;
    let error = bench.sink().open(&bench.context()).await.unwrap_err();
    assert!(error.to_string().contains("`trades` has no column `ts_event`, `ts_recv`"), "{error}");
}

#[tokio::test]
async fn a_table_that_vanished_while_the_position_stayed_needs_a_person() {
    let bench = Bench::new();
    let last = bench.trades(2);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, last).await);
    bench.run("DROP TABLE trades").await;
    let error = sink.open(&bench.context()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    assert!(error.to_string().contains("`trades` is gone"), "{error}");
}

#[tokio::test]
async fn a_trigger_that_throws_rows_away_is_found_out() {
    let bench = Bench::new();
    bench.opened().await.close().await.unwrap();
    bench.run("CREATE TRIGGER t BEFORE INSERT ON trades WHEN new.seq = 3 BEGIN SELECT RAISE(IGNORE); END").await;
    bench.trades(5);
    let mut sink = bench.opened().await;
    let error = bench.write(&mut sink, 0, 5).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 0);
}

#[tokio::test]
async fn a_conflict_clause_of_the_users_does_not_swallow_rows() {
    for clause in ["IGNORE", "REPLACE", "ROLLBACK"] {
        let bench = Bench::new();
        bench.run(&format!("CREATE TABLE trades (id TEXT UNIQUE ON CONFLICT {clause})")).await;
        for id in ["a", "b", "a"] {
            bench.trade(&Trade { id: Some(id), ..Trade::default() });
        }
        let mut sink = bench.opened().await;
        let Ok(Written::Refused(refused)) = bench.write(&mut sink, 0, 3).await else { panic!("{clause}: taken") };
        assert_eq!(refused.iter().map(|refusal| refusal.cause.offset).collect::<Vec<_>>(), [3], "{clause}");
    }
}

#[tokio::test]
async fn a_chunk_of_any_size_is_stored_whole() {
    let bench = Bench::new();
    let mut sink = bench.opened().await;
    let (mut from, mut total) = (0, 0);
    for rows in [1, 2, 3, 999, 1_000, 1_001, 2_345] {
        let to = bench.trades(rows);
        assert_committed(bench.write(&mut sink, from, to).await);
        (from, total) = (to, total + rows);
        assert_eq!(bench.number("SELECT count(DISTINCT seq) FROM trades").await.cast_unsigned(), total);
    }
}

#[test]
fn the_configuration_is_checked_before_anything_is_opened() {
    use tidegate_core::catalog::Component;
    let config: super::SqliteConfig = serde_json::from_str(r#"{"path":"x"}"#).unwrap();
    assert!(config.create && config.build().is_ok());
    let config: super::SqliteConfig = serde_json::from_str(r#"{"path":"x","key":{"trades":[]}}"#).unwrap();
    assert!(config.build().err().unwrap().to_string().contains("`trades`"));
    assert!(serde_json::from_str::<super::SqliteConfig>(r#"{"path":"x","pth":1}"#).is_err());
}
