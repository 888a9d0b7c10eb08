//! What is stored, and into which tables.

use tidegate_core::{
    Kind,
    catalog::Component,
    config::{Duration, OnConflict},
    row::{Label, Level, Mark, Position, Table, Timestamp, kinds::Quote, kinds::Trade},
    sink::{Sink, SinkContext, Written},
    testkit::MemoryLog,
};

use super::{Bench, SqliteConfig, assert_committed, offset};

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
        assert_eq!(error.kind(), Kind::Config, "{name}");
        assert!(error.to_string().contains(name));
    }
    let mut context = bench.context();
    context.tables[0].name = "Quotes".to_owned();
    let error = bench.sink().open(&context).await.unwrap_err();
    assert_eq!(error.to_string(), "tables `quotes` and `Quotes` are one for SQLite");
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
    bench.key("trades", OnConflict::Refuse, &["symbol", "id"]);
    let ids = ["a", "b", "a", "c", "b", "a", "d"];
    for id in ids {
        bench.trade(&Trade { id: Some(id), ..Trade::default() });
    }
    bench.trade(&Trade { price: f64::NAN, id: Some("e"), ..Trade::default() });
    bench.quote(&Quote::default());
    let mut sink = bench.opened().await;
    let Ok(Written::Refused(refused)) = bench.write(&mut sink, 0, 9).await else { panic!("taken") };
    assert_eq!(refused.iter().map(|refusal| refusal.cause.offset).collect::<Vec<_>>(), [3, 5, 6, 8]);
    assert!(
        refused[0].error.chain().starts_with("a row with the same key is there: symbol, id"),
        "{}",
        refused[0].error
    );
    assert_eq!(bench.number("SELECT (SELECT count(*) FROM trades) + (SELECT count(*) FROM quotes)").await, 0);
    assert_eq!(offset(&sink.open(&bench.context()).await.unwrap()), None, "the position has not moved");
}

#[tokio::test]
async fn a_key_that_is_changed_or_taken_out_changes_the_table() {
    let mut bench = Bench::new();
    bench.opened().await.close().await.unwrap();
    bench.run("CREATE UNIQUE INDEX tidegate_key_trades_symbol ON trades (symbol)").await;
    let mut from = 0;
    for (key, taken) in [(&["id"][..], false), (&["id", "symbol"], false), (&["id", "seq"], true), (&[], true)] {
        bench.key("trades", OnConflict::Refuse, key);
        let mut sink = bench.opened().await;
        let indexes = bench.number("SELECT count(*) FROM pragma_index_list('trades')").await;
        assert_eq!(indexes, i64::from(!key.is_empty()), "{key:?}: the old one is gone");
        for id in ["a", "a"] {
            bench.trade(&Trade { id: Some(id), ..Trade::default() });
        }
        let written = bench.write(&mut sink, from, from + 2).await.unwrap();
        assert_eq!(matches!(written, Written::Committed), taken, "{key:?}: {written:?}");
        if taken {
            bench.run("DELETE FROM trades").await;
            from += 2;
        } else {
            bench = Bench {
                log: MemoryLog::new("deribit", bench.context().tables.iter().map(|t| Table::clone(&t.table)).collect()),
                ..bench
            };
        }
        sink.close().await.unwrap();
    }
}

#[tokio::test]
async fn keys_whose_names_run_together_are_two_and_other_sinks_keep_theirs() {
    let bench = Bench::new();
    let mut other = bench.context();
    other.owner.sink = "other".to_owned();
    let with = |context: &SinkContext, key: &[&str]| {
        let mut context = context.clone();
        context.tables[0].key = key.iter().map(|&column| column.to_owned()).collect();
        context.tables[0].on_conflict = OnConflict::Refuse;
        context
    };
    bench.sink().open(&with(&other, &["block_trade_id"])).await.unwrap();
    bench.sink().open(&with(&bench.context(), &["mark_price", "id"])).await.unwrap();
    bench.sink().open(&with(&bench.context(), &["mark_price", "id", "seq"])).await.unwrap();
    let columns = "SELECT group_concat((SELECT group_concat(name) FROM pragma_index_info(i.name)), ' ')
                   FROM (SELECT name FROM pragma_index_list('trades') ORDER BY name) AS i";
    assert_eq!(bench.text(columns).await, "block_trade_id mark_price,id,seq");
    bench.opened().await;
    assert_eq!(bench.text(columns).await, "block_trade_id", "only its own");
}

#[tokio::test]
async fn a_key_that_takes_too_long_to_make_is_said_with_the_statement() {
    let mut bench = Bench::new();
    bench.config.lock_timeout = Duration::from_secs(20);
    bench.opened().await;
    bench
        .run(
            "INSERT INTO trades (id) WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 300000)
             SELECT hex(n * 7919 % 300007) || n FROM c",
        )
        .await;
    let error = loop {
        bench.key("trades", OnConflict::Refuse, &["id"]);
        let mut sink = bench.sink();
        _ = tokio::time::timeout(std::time::Duration::from_millis(50), sink.open(&bench.context())).await;
        // It may have been given up over something else on a busy machine.
        if let Err(error) = sink.open(&bench.context()).await {
            break error;
        }
        bench.keys.clear();
        sink = bench.opened().await;
        sink.close().await.unwrap();
    };
    assert_eq!(error.kind(), Kind::Permanent);
    let text = error.to_string();
    let (said, statement) = text.split_once("run: ").unwrap();
    assert!(said.contains("took longer than the sink's `timeout`"), "{text}");
    bench.run(statement).await;
    bench.opened().await;
    assert_eq!(bench.number("SELECT count(*) FROM pragma_index_list('trades')").await, 1);
}

#[test]
fn two_spellings_of_a_file_are_one_store() {
    let store = |path: &str| SqliteConfig { path: path.into(), ..Bench::new().config }.store();
    assert_eq!(store("x.sqlite"), store("./x.sqlite"));
    assert_eq!(store("x.sqlite"), store("data/../x.sqlite"));
    assert_ne!(store("x.sqlite"), store("y.sqlite"));
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

    bench.key("trades", OnConflict::Refuse, &["id"]);
    bench.run("CREATE TABLE trades (symbol TEXT) STRICT").await;
    let error = bench.sink().open(&bench.context()).await.unwrap_err().to_string();
    for part in [
        "CREATE TABLE tidegate_position (",
        "ALTER TABLE \"trades\" ADD COLUMN \"ts_event\" INTEGER; ALTER",
        "CREATE TABLE \"quotes\" (",
        "CREATE UNIQUE INDEX",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(bench.number("SELECT count(*) FROM sqlite_schema").await, 1, "nothing is made");
    let (_, statements) = error.split_once("To be run: ").unwrap();
    bench.run(statements).await;
    let last = bench.trades(3);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, last).await);

    bench.keys.clear();
    bench.opened().await;
    assert_eq!(bench.number("SELECT count(*) FROM pragma_index_list('trades')").await, 1, "it is theirs");

    bench.run("CREATE UNIQUE INDEX \"tidegate_key/test/depot/quotes\" ON quotes (symbol)").await;
    let mut ours = bench.context();
    ours.owner.sink = "depot".to_owned();
    let error = bench.sink().open(&ours).await.unwrap_err();
    assert!(error.to_string().contains("To be run: DROP INDEX"), "{error}");
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
async fn a_table_that_vanished_is_missed_by_name_whatever_else_changed() {
    let bench = Bench::new();
    bench.trades(2);
    bench.quote(&Quote::default());
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 3).await);
    bench.run("DROP TABLE trades").await;
    let without = SinkContext { tables: bench.context().tables.split_off(1), ..bench.context() };
    sink.open(&without).await.unwrap();
    let mut changed = bench.context();
    changed.owner.chain += 1;
    changed.tables[0].name = "TRADES".to_owned();
    let error = sink.open(&changed).await.unwrap_err().to_string();
    assert!(error.contains("`TRADES` is gone"), "{error}");

    // What it advises is true: the others' rows stay as they are, and it goes on.
    let (_, statement) = error.split_once("make it without rows: ").unwrap();
    bench.run(statement).await;
    assert_eq!(offset(&sink.open(&changed).await.unwrap()), Some(3));
    let last = bench.trades(2);
    assert_committed(bench.write(&mut sink, 3, last).await);
    assert_eq!(bench.number("SELECT (SELECT count(*) FROM trades) * 10 + (SELECT count(*) FROM quotes)").await, 21);
}

#[tokio::test]
async fn a_file_of_an_earlier_build_gets_the_names_of_its_tables() {
    let bench = Bench::new();
    let last = bench.trades(2);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, last).await);
    sink.close().await.unwrap();
    bench.run("ALTER TABLE tidegate_position DROP COLUMN tables").await;
    assert_eq!(offset(&bench.sink().open(&bench.context()).await.unwrap()), Some(2));
    assert_eq!(bench.text("SELECT tables FROM tidegate_position").await, "[\"quotes\",\"trades\"]");
}

#[tokio::test]
async fn a_row_for_which_a_trigger_rolls_everything_back_is_refused_like_any_other() {
    let bench = Bench::new();
    bench.opened().await.close().await.unwrap();
    bench
        .run("CREATE TRIGGER t BEFORE INSERT ON trades WHEN new.seq IN (3, 5) BEGIN SELECT RAISE(ROLLBACK, 'no'); END")
        .await;
    bench.trades(7);
    bench.quote(&Quote::default());
    let mut sink = bench.opened().await;
    let Ok(Written::Refused(refused)) = bench.write(&mut sink, 0, 8).await else { panic!("taken") };
    assert_eq!(refused.iter().map(|refusal| refusal.cause.offset).collect::<Vec<_>>(), [3, 5]);
    assert!(refused[0].error.chain().ends_with("no"), "{}", refused[0].error.chain());
    assert_eq!(bench.number("SELECT (SELECT count(*) FROM trades) + (SELECT count(*) FROM quotes)").await, 0);
    assert_eq!(offset(&sink.open(&bench.context()).await.unwrap()), None, "the position has not moved");
    assert_committed(bench.write(&mut sink, 0, 2).await);
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
    let config: SqliteConfig = serde_json::from_str(r#"{"path":"x"}"#).unwrap();
    assert!(config.create && config.build().is_ok());
    let config: SqliteConfig = serde_json::from_str(r#"{"path":""}"#).unwrap();
    assert!(config.build().err().unwrap().to_string().contains("`path` is empty"));
    assert!(serde_json::from_str::<SqliteConfig>(r#"{"path":"x","pth":1}"#).is_err());
}
