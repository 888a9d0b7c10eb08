//! Rows whose key is there already: each of the four ways, once and again.

use tidegate_core::{
    Kind,
    config::OnConflict,
    row::kinds::Trade,
    sink::{Sink, UniqueKey, Written},
};

use super::{Bench, assert_committed, delivery::to_the_end, offset};

const WAYS: [(OnConflict, &str); 4] = [
    (OnConflict::Append, "a1 b2 a3 c4 a5 b6"),
    (OnConflict::Replace, "a5 b6 c4"),
    (OnConflict::Ignore, "a1 b2 c4"),
    (OnConflict::Refuse, "a1 b2 c4"),
];

/// Emits trades whose prices grow: `a1 b2 a3 c4 a5 b6`.
fn emit(bench: &Bench) -> u64 {
    let mut last = 0;
    for (n, id) in ["a", "b", "a", "c", "a", "b"].into_iter().enumerate() {
        last = bench.trade(&Trade { id: Some(id), price: (n + 1) as f64, ..Trade::default() });
    }
    last
}

async fn stored(bench: &Bench) -> String {
    let rows = "SELECT id || CAST(price AS INTEGER) AS row FROM trades ORDER BY rowid";
    bench.text(&format!("SELECT group_concat(row, ' ') FROM ({rows})")).await
}

fn sorted(text: &str) -> Vec<&str> {
    let mut words: Vec<_> = text.split(' ').collect();
    words.sort_unstable();
    words
}

#[tokio::test(flavor = "multi_thread")]
async fn of_rows_with_one_key_those_are_stored_that_on_conflict_says_however_often_they_are_sent() {
    for (on_conflict, wanted) in WAYS {
        let mut bench = Bench::new();
        if on_conflict != OnConflict::Append {
            bench.key("trades", on_conflict, &["symbol", "id"]);
        }
        emit(&bench);
        let outcome = to_the_end(&bench).await;
        assert_eq!(outcome.failure, None);
        assert_eq!(sorted(&stored(&bench).await), sorted(wanted), "{on_conflict:?}");
        let fates = outcome.balance.unwrap().fates;
        let refused = if on_conflict == OnConflict::Refuse { 3 } else { 0 };
        assert_eq!((fates.delivered, fates.refused), (6 - refused, refused), "{on_conflict:?}");

        // The store goes back to the beginning: all of it comes again, and nothing is there twice.
        bench.run("DELETE FROM trades").await;
        bench.run("UPDATE tidegate_position SET boot = '0000000000000000', \"offset\" = 0").await;
        std::fs::remove_dir_all(bench.directory.path().join("sinks")).unwrap();
        assert_eq!(to_the_end(&bench).await.failure, None);
        assert_eq!(sorted(&stored(&bench).await), sorted(wanted), "{on_conflict:?}, again");
    }
}

#[tokio::test]
async fn the_same_chunk_twice_is_one_chunk_in_each_of_the_four_ways() {
    for (on_conflict, wanted) in WAYS {
        let mut bench = Bench::new();
        if on_conflict != OnConflict::Append {
            bench.key("trades", on_conflict, &["symbol", "id"]);
        }
        let last = emit(&bench);
        let mut sink = bench.opened().await;
        // What a dead letter is left out of is written without it: here the rows that differ in their keys.
        let upto = if on_conflict == OnConflict::Refuse { 2 } else { last };
        assert_committed(bench.write(&mut sink, 0, upto).await);
        let before = stored(&bench).await;
        let again = bench.write(&mut sink, 0, upto).await.unwrap_err();
        assert!(matches!(again.kind(), Kind::Transient { .. }), "the position is behind it: {again}");
        assert_eq!(offset(&sink.open(&bench.context()).await.unwrap()), Some(upto));
        assert_eq!(stored(&bench).await, before, "{on_conflict:?}");
        assert!(upto < last || sorted(&before) == sorted(wanted), "{on_conflict:?}: {before}");
    }
}

#[tokio::test]
async fn a_row_that_is_replaced_keeps_no_value_of_the_other_and_columns_of_the_users_stay() {
    let mut bench = Bench::new();
    bench.key("trades", OnConflict::Replace, &["ID"]);
    bench.opened().await.close().await.unwrap();
    bench.run("ALTER TABLE trades ADD COLUMN note TEXT").await;
    bench.trade(&Trade { id: Some("a"), iv: Some(7.0), ..Trade::default() });
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 1).await);
    bench.run("UPDATE trades SET note = 'mine'").await;
    bench.trade(&Trade { id: Some("a"), iv: None, ..Trade::default() });
    assert_committed(bench.write(&mut sink, 1, 2).await);
    assert_eq!(bench.number("SELECT count(*) FROM trades WHERE iv IS NULL AND seq = 2 AND note = 'mine'").await, 1);
}

#[tokio::test]
async fn a_row_that_lacks_a_column_of_its_key_has_none() {
    for on_conflict in [OnConflict::Replace, OnConflict::Ignore, OnConflict::Refuse] {
        let mut bench = Bench::new();
        bench.key("trades", on_conflict, &["id"]);
        let last = bench.trades(3);
        let mut sink = bench.opened().await;
        assert_committed(bench.write(&mut sink, 0, last).await);
        assert_eq!(bench.number("SELECT count(*) FROM trades").await, 3, "{on_conflict:?}");
    }
}

#[tokio::test]
async fn a_row_that_is_equal_in_an_index_of_the_users_is_refused_whatever_its_key_says() {
    for on_conflict in [OnConflict::Replace, OnConflict::Ignore] {
        let mut bench = Bench::new();
        bench.key("trades", on_conflict, &["seq"]);
        bench.opened().await.close().await.unwrap();
        bench.run("CREATE UNIQUE INDEX of_mine ON trades (id)").await;
        let last = emit(&bench);
        let mut sink = bench.opened().await;
        let Ok(Written::Refused(refused)) = bench.write(&mut sink, 0, last).await else { panic!("taken") };
        assert_eq!(refused.iter().map(|refusal| refusal.cause.offset).collect::<Vec<_>>(), [3, 5, 6]);
        assert!(refused[0].error.chain().contains("trades.id"), "{}", refused[0].error.chain());
    }
}

#[tokio::test]
async fn a_table_of_somebody_elses_without_the_index_is_refused_with_the_statement_and_reach_prints_it() {
    for on_conflict in [OnConflict::Replace, OnConflict::Ignore, OnConflict::Refuse] {
        let mut bench = Bench::new();
        bench.key("trades", on_conflict, &["symbol", "id"]);
        bench.run("CREATE TABLE trades (id TEXT, symbol TEXT)").await;
        let error = bench.sink().open(&bench.context()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Permanent);
        let (why, statement) = error.to_string().split_once(". To be run: ").map(own).unwrap();
        assert!(why.contains("`trades`, which lacks the unique index of its `key`"), "{why}");
        assert_eq!(statement, "CREATE UNIQUE INDEX \"trades_symbol_id\" ON \"trades\" (\"symbol\", \"id\")");
        assert_eq!(bench.number("SELECT count(*) FROM sqlite_schema").await, 1, "nothing was made");
        let found = bench.sink().reach(&bench.context().tables).await.unwrap_err();
        assert_eq!(found.to_string(), error.to_string(), "check --connect says the same");

        bench.run(&statement).await;
        emit(&bench);
        let mut sink = bench.opened().await;
        assert!(bench.sink().reach(&bench.context().tables).await.unwrap().contains("can be read"));
        let written = bench.write(&mut sink, 0, 2).await;
        assert_committed(written);
        bench.keys.clear();
        bench.opened().await;
        assert_eq!(bench.number("SELECT count(*) FROM pragma_index_list('trades')").await, 1, "theirs stays");
    }
}

#[tokio::test]
async fn a_primary_key_of_somebody_elses_is_an_index_too() {
    let mut bench = Bench::new();
    bench.key("trades", OnConflict::Replace, &["symbol", "id"]);
    bench.run("CREATE TABLE trades (id TEXT, symbol TEXT, PRIMARY KEY (id, symbol)) WITHOUT ROWID").await;
    let last = emit(&bench);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, last).await);
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 3);
    let theirs = [UniqueKey { table: "trades".to_owned(), columns: vec!["id".to_owned(), "symbol".to_owned()] }];
    assert_eq!(sink.unique_keys(), theirs, "in its own order: what it would merge is measured");
    bench
        .run("CREATE UNIQUE INDEX some ON trades (seq) WHERE seq > 3; CREATE UNIQUE INDEX low ON trades (lower(id))")
        .await;
    let mut looking = bench.sink();
    looking.reach(&bench.context().tables).await.unwrap();
    assert_eq!(looking.unique_keys(), theirs, "of all rows, and of columns as they are");
}

fn own((why, statement): (&str, &str)) -> (String, String) {
    (why.to_owned(), statement.to_owned())
}
