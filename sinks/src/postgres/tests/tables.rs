//! Tables that are made, and tables that are there.

use tidegate_core::{
    Kind,
    catalog::Component,
    chunk::Part,
    config::OnConflict,
    row::{
        Mark, Position, Table, Timestamp,
        kinds::{Quote, Trade},
    },
    sink::Sink,
    verify::{RowId, Stream},
};

use super::{Bench, PostgresConfig, assert_committed, refused};

#[tokio::test]
async fn tables_are_made_with_a_comment_that_says_by_whom() {
    let bench = Bench::new().await;
    bench.opened().await;
    let columns = "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
        FROM pg_attribute WHERE attrelid = 'quotes'::regclass AND attnum > 0";
    let made = bench.text(columns).await;
    assert!(
        made.starts_with(
            "ts_event timestamp with time zone, ts_recv timestamp with time zone, venue text, symbol text, \
             seq numeric(20,0), origin text, "
        ),
        "{made}"
    );
    assert_eq!(bench.text("SELECT obj_description('trades'::regclass)").await, "made by tidegate");
}

#[tokio::test]
async fn names_of_every_kind_are_taken_as_they_are_and_those_that_would_be_cut_are_not() {
    for name in ["a\"b", "two words", "select", "قیمت‌ها", "O'Brien\\", "Trades", "a.b", "x\u{1f980}"] {
        let bench = Bench::new().await;
        let mut context = bench.context();
        context.tables[0].name = name.to_owned();
        context.tables[0].key = vec!["id".to_owned()];
        context.tables[0].on_conflict = OnConflict::Replace;
        let mut sink = bench.sink();
        sink.open(&context).await.unwrap();
        bench.trade(&Trade { id: Some("a"), ..Trade::default() });
        bench.trade(&Trade { id: Some("a"), ..Trade::default() });
        assert_committed(bench.write(&mut sink, 0, 2).await);
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        assert_eq!(bench.number(&format!("SELECT count(*) FROM {quoted}")).await, 1, "{name}");
        sink.check().await.unwrap();
        sink.open(&context).await.unwrap();
    }
    let bench = Bench::new().await;
    for (name, why) in
        [("x".repeat(64), "cuts names off after 63 bytes"), (String::new(), "is empty"), ("a\0".into(), "NUL")]
    {
        let mut context = bench.context();
        context.tables[0].name = name;
        let error = bench.sink().open(&context).await.unwrap_err();
        assert!(error.kind() == Kind::Config && error.to_string().contains(why), "{error}");
    }
}

#[tokio::test]
async fn a_table_of_the_users_own_is_adopted_and_gets_columns_only() {
    let mut bench = Bench::new().await;
    bench.run("CREATE TABLE trades (mine serial PRIMARY KEY, note text NOT NULL DEFAULT 'x', price float8, symbol varchar)").await;
    let last = bench.trades(4);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, last).await);
    assert_eq!(bench.number("SELECT count(*) FROM trades WHERE note = 'x' AND price = 1.5 AND size = 2.0").await, 4);
    let ours = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'trades'::regclass AND attname LIKE 'tg%'";
    assert_eq!(bench.number(ours).await, 0);
    assert_eq!(bench.number("SELECT count(*) FROM pg_index WHERE indrelid = 'trades'::regclass").await, 1);
    // Where nothing may be made, what it lacks is named, with the statements that mend it.
    bench.run("ALTER TABLE trades DROP COLUMN iv; DROP TABLE quotes").await;
    bench.run("UPDATE tidegate_position SET tables = '[\"trades\"]'").await;
    bench.settings.create = false;
    let error = bench.sink().open(&bench.context()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    let text = error.to_string();
    for part in ["ALTER TABLE", "ADD COLUMN \"iv\" double precision", "CREATE TABLE", "\"quotes\""] {
        assert!(text.contains(part), "{text}");
    }
    let found = bench.sink().reach(&bench.context().tables).await.unwrap_err();
    assert_eq!(found.to_string(), text, "check --connect says the same");
    let (_, statements) = text.split_once("To be run: ").unwrap();
    bench.run(statements).await;
    bench.opened().await;
}

#[tokio::test]
async fn with_create_off_nothing_at_all_is_made() {
    let mut bench = Bench::new().await;
    bench.settings.create = false;
    bench.key("trades", OnConflict::Refuse, &["id"]);
    let error = bench.sink().open(&bench.context()).await.unwrap_err().to_string();
    // `check --connect` says the same, but for the index's name, which is not for somebody else to choose.
    let found = bench.sink().reach(&bench.context().tables).await.unwrap_err().to_string();
    for part in ["CREATE SCHEMA", "tidegate_position (", "\"trades\" (\"ts_event\" timestamptz", "CREATE UNIQUE INDEX"]
    {
        assert!(error.contains(part) && found.contains(part), "{part}: {error}\n{found}");
    }
    let schemas = format!("SELECT count(*) FROM pg_namespace WHERE nspname = '{}'", bench.schema);
    assert_eq!(bench.number(&schemas).await, 0);
    let (_, statements) = found.split_once("To be run: ").unwrap();
    bench.client().await.batch_execute(statements).await.unwrap();
    let last = bench.trades(3);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, last).await);
}

#[tokio::test]
async fn a_table_that_would_change_values_is_refused_with_its_column() {
    for (columns, named) in [
        ("price integer", "`price`"),
        ("price real", "round = [\"price\"]"),
        ("ts_event text", "`ts_event`"),
        ("ts_event date", "`ts_event`"),
        ("symbol char(20)", "`symbol`"),
        ("seq text", "`seq`"),
        ("symbol text, forgotten text NOT NULL", "`forgotten`"),
        ("a float8, price float8 GENERATED ALWAYS AS (a) STORED", "is generated"),
    ] {
        let bench = Bench::new().await;
        bench.run(&format!("CREATE TABLE trades ({columns})")).await;
        let error = bench.sink().open(&bench.context()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Permanent, "{columns}");
        assert!(error.to_string().contains(named), "{columns}: {error}");
        let found = bench.sink().reach(&bench.context().tables).await.unwrap_err();
        assert_eq!(found.to_string(), error.to_string(), "check --connect says the same");
    }
    // All of them at once, of all tables; and nothing is made beside them.
    let bench = Bench::new().await;
    bench.run("CREATE TABLE trades (price integer, symbol char(20), amount float8, forgotten text NOT NULL)").await;
    bench.run("CREATE TABLE quotes (bid_price integer)").await;
    let error = bench.sink().open(&bench.context()).await.unwrap_err().to_string();
    for (column, table) in [("price", "trades"), ("symbol", "trades"), ("forgotten", "trades"), ("bid_price", "quotes")]
    {
        assert!(error.contains(&format!("column `{column}` of table `{table}` ")), "{column}: {error}");
    }
    assert!(!error.contains("`amount`"), "{error}");
    let bench = Bench::new().await;
    bench.run("CREATE VIEW trades AS SELECT 1").await;
    assert!(bench.sink().open(&bench.context()).await.unwrap_err().to_string().contains("is a view"));
}

#[tokio::test]
async fn a_column_that_is_too_narrow_is_said_before_a_row_is_lost_and_refuses_only_what_it_cannot_hold() {
    let bench = Bench::new().await;
    bench
        .run(
            "CREATE TYPE way AS ENUM ('buy', 'sell');
             CREATE TABLE trades (price numeric(8,6), id varchar(3), seq smallint, symbol text NOT NULL,
                 side way, iv float8 NOT NULL, mark_price numeric(6,2))",
        )
        .await;
    let found = bench.sink().reach(&bench.context().tables).await.unwrap();
    for said in [
        "`price` of table `trades` is `numeric(8,6)`: numbers of more than 2 digits before the point or 6 behind it are refused",
        "`id` of table `trades` is `character varying(3)`: texts of more than 3 characters are refused",
        "`seq` of table `trades` is `smallint`: integers beyond 32767 are refused",
        "way`: texts that are none of its values are refused",
        "`iv` of table `trades` takes no NULL: rows without it are refused",
    ] {
        assert!(found.contains(said), "{said}\n{found}");
    }
    let fine = || Trade { price: 99.5, iv: Some(1.0), ..Trade::default() };
    let mut bad = Vec::new();
    bench.trade(&fine());
    bad.push((bench.trade(&Trade { price: 100.0, ..fine() }), "numeric(8,6)`, and would change 100"));
    bad.push((bench.trade(&Trade { price: 0.000_000_1, ..fine() }), "would change 0.0000001"));
    bench.trade(&Trade { id: Some("قیم"), ..fine() });
    bad.push((bench.trade(&Trade { id: Some("four"), ..fine() }), "holds 3 characters, too few for 4"));
    bad.push((bench.trade(&Trade { iv: None, ..fine() }), "takes no NULL"));
    bad.push((bench.trade(&Trade { price: f64::INFINITY, ..fine() }), "would change inf"));
    bench.trade(&Trade { price: f64::NAN, ..fine() });
    let mark = Mark { symbol: "ETH", position: Position::Sequence(40_000), ts_event: Timestamp(0) };
    bad.push((bench.log.emit(mark, &fine()), "too small for 40000"));
    bad.push((bench.trade(&Trade { id: Some("a\0"), ..fine() }), "cannot hold a NUL"));
    let mut sink = bench.opened().await;
    let last = bench.trade(&fine());
    let refused = refused(bench.write(&mut sink, 0, last).await);
    assert_eq!(
        refused.iter().map(|(at, _)| *at).collect::<Vec<_>>(),
        bad.iter().map(|(at, _)| *at).collect::<Vec<_>>()
    );
    for ((_, why), (_, wanted)) in refused.iter().zip(&bad) {
        assert!(why.contains(wanted), "{why} lacks {wanted}");
    }
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 0, "a refusal commits nothing");
    let at = sink.open(&bench.context()).await.unwrap();
    assert!(at.is_empty(), "the position has not moved");
}

#[tokio::test]
async fn a_column_in_round_takes_the_nearest_that_it_holds() {
    let mut bench = Bench::new().await;
    bench.settings.round = vec!["price".to_owned(), "SIZE".to_owned()];
    bench.run("CREATE TABLE trades (price numeric(4,2), size real)").await;
    bench.trade(&Trade { price: 1.005_1, size: 0.1, ..Trade::default() });
    let large = bench.trade(&Trade { price: 123.0, size: 1.0, ..Trade::default() });
    let huge = bench.trade(&Trade { price: 1.0, size: 1e300, ..Trade::default() });
    let over = bench.trade(&Trade { price: 99.999, size: 1.0, ..Trade::default() });
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 1).await);
    assert_eq!(bench.text("SELECT price || ' ' || size FROM trades").await, "1.01 0.1");
    let refused = refused(bench.write(&mut sink, 1, over).await);
    assert_eq!(refused.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [large, huge, over]);
}

#[tokio::test]
async fn rules_of_the_tables_own_refuse_rows_also_those_that_are_looked_at_in_the_end() {
    for rule in [
        "ALTER TABLE trades ADD CHECK (seq NOT IN (3, 5))",
        "CREATE DOMAIN odd AS numeric CHECK (value NOT IN (3, 5)); ALTER TABLE trades ALTER seq TYPE odd",
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN IF new.seq IN (3, 5) THEN RAISE EXCEPTION 'no'; END IF; RETURN new; END $$;
         CREATE TRIGGER t BEFORE INSERT ON trades FOR EACH ROW EXECUTE FUNCTION no()",
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN IF new.seq IN (3, 5) THEN RAISE EXCEPTION 'no'; END IF; RETURN new; END $$;
         CREATE CONSTRAINT TRIGGER t AFTER INSERT ON trades DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION no()",
        "CREATE TABLE known (seq numeric PRIMARY KEY); INSERT INTO known VALUES (1), (2), (4), (6), (7);
         ALTER TABLE trades ADD FOREIGN KEY (seq) REFERENCES known DEFERRABLE INITIALLY DEFERRED",
    ] {
        let bench = Bench::new().await;
        bench.opened().await.close().await.unwrap();
        bench.run(rule).await;
        bench.trades(7);
        bench.quote(&Quote::default());
        let mut sink = bench.opened().await;
        let refused = refused(bench.write(&mut sink, 0, 8).await);
        assert_eq!(refused.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [3, 5], "{rule}");
        assert_eq!(bench.number("SELECT (SELECT count(*) FROM trades) + (SELECT count(*) FROM quotes)").await, 0);
        assert_committed(bench.write(&mut sink, 0, 2).await);
    }
}

#[tokio::test]
async fn a_trigger_that_throws_rows_away_is_found_out() {
    for on_conflict in [OnConflict::Append, OnConflict::Replace, OnConflict::Ignore] {
        let mut bench = Bench::new().await;
        if on_conflict != OnConflict::Append {
            bench.key("trades", on_conflict, &["seq"]);
        }
        bench.opened().await.close().await.unwrap();
        bench
            .run(
                "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN IF new.seq = 3 THEN RETURN NULL; END IF; RETURN new; END $$;
                 CREATE TRIGGER t BEFORE INSERT ON trades FOR EACH ROW EXECUTE FUNCTION no()",
            )
            .await;
        bench.trades(5);
        let mut sink = bench.opened().await;
        let error = bench.write(&mut sink, 0, 5).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Permanent, "{on_conflict:?}: {error}");
        assert!(error.to_string().contains("`trades` throws away rows without a word"), "{error}");
        assert_eq!(bench.number("SELECT count(*) FROM trades").await, 0);
    }
}

#[tokio::test]
async fn a_key_takes_no_text_that_its_index_cannot_hold() {
    let mut bench = Bench::new().await;
    bench.key("trades", OnConflict::Refuse, &["id"]);
    bench.trades(2);
    // Noise, which cannot be compressed into an index's page.
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + (state >> 33) as u8 % 90)
    };
    let long: String = (0..20_000).map(|_| noise()).collect();
    let bad = bench.trade(&Trade { id: Some(&long), ..Trade::default() });
    let mut sink = bench.opened().await;
    let refused = refused(bench.write(&mut sink, 0, bad).await);
    assert_eq!(refused.len(), 1);
    assert!(refused[0].0 == bad && refused[0].1.contains("54000"), "{refused:?}");
}

#[tokio::test]
async fn an_unlogged_table_is_named() {
    let bench = Bench::new().await;
    bench.run("CREATE UNLOGGED TABLE trades (note text)").await;
    let found = bench.sink().reach(&bench.context().tables).await.unwrap();
    assert!(found.contains("`trades` is unlogged: a crash of the server empties it"), "{found}");
}

#[tokio::test]
async fn a_chunk_of_any_size_is_stored_whole() {
    let bench = Bench::new().await;
    let mut sink = bench.opened().await;
    let (mut from, mut total) = (0, 0);
    for rows in [1, 2, 3, 999, 1_000, 1_001, 3_000] {
        let to = bench.trades(rows);
        assert_committed(bench.write(&mut sink, from, to).await);
        (from, total) = (to, total + rows);
        assert_eq!(bench.number("SELECT count(DISTINCT seq) FROM trades").await.cast_unsigned(), total);
    }
}

#[tokio::test]
async fn verify_sees_the_rows_in_microseconds() {
    for times in ["", "CREATE TABLE trades (ts_event bigint, ts_recv bigint)"] {
        let bench = Bench::new().await;
        bench.run(times).await;
        let seqs = [u64::MAX, 5];
        for (seq, ts_event) in seqs.into_iter().zip([-1, 1_795_513_263_123_456_789]) {
            let mark = Mark { symbol: "X", position: Position::Sequence(seq), ts_event: Timestamp(ts_event) };
            bench.log.emit(mark, &Trade::default());
        }
        let mut sink = bench.opened().await;
        assert_committed(bench.write(&mut sink, 0, 2).await);
        let mut audit = bench.sink().audit(&bench.context()).await.unwrap().unwrap();
        let (spool, position) = audit.position().await.unwrap().unwrap();
        assert_eq!((spool, position.offset, audit.time_unit()), (1, 2, 1_000));
        let tables = bench.context().tables;
        let stream = Stream { venue: "deribit".to_owned(), symbol: "X".to_owned() };
        let mut rows = audit.rows(&tables[0], &stream, Timestamp(i64::MIN)).await.unwrap();
        rows.sort_by_key(|row| row.seq);
        let wanted = [(5, 1_795_513_263_123_456_000), (u64::MAX, -1_000)];
        assert_eq!(rows.iter().map(|row| (row.seq.unwrap(), row.ts_event.0)).collect::<Vec<_>>(), wanted, "{times}");
        let sums = audit.sums(&tables[0], Timestamp(i64::MIN)).await.unwrap().unwrap();
        assert_eq!((sums.len(), sums[0].rows), (1, 2));
        assert_eq!(sums[0].marks, rows.iter().map(RowId::mark).sum::<i64>(), "worked out there as here");
        assert!(audit.doubled(&tables[0], Timestamp(i64::MAX)).await.unwrap().is_empty());
        bench.run("INSERT INTO trades TABLE trades; DROP TABLE quotes").await;
        let mut audit = bench.sink().audit(&bench.context()).await.unwrap().unwrap();
        assert_eq!(audit.doubled(&tables[0], Timestamp(i64::MAX)).await.unwrap().len(), 2);
        assert!(audit.sums(&tables[1], Timestamp(0)).await.unwrap().is_none(), "a table that is gone is none");
    }
}

#[tokio::test]
async fn the_privileges_that_it_needs_are_few_and_what_is_lacking_is_said() {
    let bench = Bench::new().await;
    bench.opened().await.close().await.unwrap();
    let role = format!("{}_writer", bench.schema);
    bench
        .run(&format!(
            "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {0} TO {role};
             GRANT INSERT ON ALL TABLES IN SCHEMA {0} TO {role};
             GRANT SELECT, INSERT, UPDATE ON {0}.tidegate_position TO {role}",
            bench.schema
        ))
        .await;
    let mut few = bench.settings.clone();
    few.create = false;
    few.url = tidegate_core::config::Secret::new(bench.url.replace("postgres@", &format!("{role}@")));
    let mut sink = super::Postgres::new(few);
    sink.open(&bench.context()).await.unwrap();
    let last = bench.trades(3);
    assert_committed(bench.write(&mut sink, 0, last).await);
    bench.run(&format!("REVOKE INSERT ON trades FROM {role}")).await;
    bench.trades(1);
    let error = bench.write(&mut sink, 3, 4).await.unwrap_err();
    assert!(error.to_string().contains("does not let this user do it"), "no row is blamed: {error}");
    drop(sink);
    bench.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[test]
fn the_configuration_is_checked_before_anything_is_dialled() {
    let config = |json: &str| serde_json::from_str::<PostgresConfig>(json);
    let good = config(r#"{"url":"postgres://me:hunter2@db/x"}"#).unwrap();
    assert!(good.create && good.build().is_ok());
    assert_eq!(good.store().unwrap(), "postgres db:5432/x ");
    for (json, wanted) in [
        (r#"{"url":"hunter2"}"#, "has to look like"),
        (r#"{"url":"postgres://me@db/x","tls":{"certificate":"a.pem"}}"#, "needs its `key`"),
        (r#"{"url":"postgres://me@db/x","schema":""}"#, "it is empty"),
    ] {
        let error = config(json).unwrap().build().err().unwrap().to_string();
        assert!(error.contains(wanted) && !error.contains("hunter2"), "{error}");
    }
    assert!(config(r#"{"url":"postgres://me@db/x","ulr":1}"#).is_err());
    assert!(config("{}").is_err(), "there is no default for where");
    assert!(!format!("{:?}", good.settings()).contains("hunter2"));
    assert!(!serde_json::to_string(&good).unwrap().contains("hunter2"));
    _ = (Part::spool(), Table::of::<Quote>());
}
