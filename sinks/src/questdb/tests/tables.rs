//! Which tables are made, which are taken as they are, and which are refused.

use tidegate_core::{
    Kind,
    catalog::Component,
    config::{Duration, OnConflict},
    row::{Table, kinds::Trade},
    sink::{Guarantee, Sink},
};

use super::{super::*, Bench, offsets, refused};

#[tokio::test]
async fn tables_are_made_with_their_key_partition_and_ttl_and_one_may_differ() {
    let mut bench = Bench::new();
    bench.config.ttl = Some(Duration::from_secs(30 * 24 * 3_600));
    let own = Layout { partition: Some(Partition::Hour), ttl: Some(Duration::from_secs(6 * 3_600)) };
    bench.config.layout.insert("quotes".to_owned(), own);
    let mut context = bench.context();
    let trades = context.tables.iter_mut().find(|table| &*table.table.name == "trades").unwrap();
    // As `tables = { trades = { retention = "6d" } }` says.
    trades.retention = Some(Duration::from_secs(6 * 24 * 3_600));
    let mut sink = bench.sink();
    sink.open(&context).await.unwrap();
    sink.close().await.unwrap();
    let layout = bench
        .sql(&format!(
            "SELECT partitionBy, ttlValue, ttlUnit, walEnabled, dedup FROM tables() WHERE table_name IN ('{}', '{}') \
             ORDER BY table_name",
            bench.name("trades"),
            bench.name("quotes")
        ))
        .await;
    let layout: Vec<String> = layout.iter().map(|row| serde_json::to_string(row).unwrap()).collect();
    assert_eq!(layout, [r#"["HOUR",6,"HOUR",true,true]"#, r#"["DAY",6,"DAY",true,true]"#]);
    let keys = format!("SELECT \"column\" FROM table_columns('{}') WHERE upsertKey ORDER BY 1", bench.name("trades"));
    let keys: Vec<_> = bench.sql(&keys).await.into_iter().map(|row| row[0].as_str().unwrap().to_owned()).collect();
    assert_eq!(keys, ["tg_boot", "tg_pos", "tg_sub", "ts_event"]);
    let Guarantee::DedupKeys(keys) = sink.guarantee() else { panic!("{}", sink.guarantee()) };
    assert_eq!(keys, ["ts_event", "tg_boot", "tg_pos", "tg_sub"]);
}

#[tokio::test]
async fn names_are_taken_literally_and_those_that_quest_db_cannot_have_are_refused() {
    let bench = Bench::new();
    let last = bench.trades(3);
    for name in ["select", "a b;c=d &\u{0633}\u{0644}\u{0627}\u{0645}", "Trades.of-today"] {
        let mut context = bench.context();
        context.tables[0].name = format!("{} {name}", bench.prefix);
        let mut sink = bench.sink();
        sink.open(&context).await.unwrap();
        bench.store(&mut sink, 0, last).await;
        assert_eq!(bench.number(&format!("SELECT count() FROM \"{} {name}\"", bench.prefix)).await, 3, "{name}");
        bench.run(&format!("DROP TABLE \"{}\"", bench.config.owners)).await;
    }
    for name in ["", "a'b", "a\"b", "a/b", "a,b", "a?", ".a", "a.", " a", "a*", "a%", "a~b", &"x".repeat(200)] {
        let mut context = bench.context();
        context.tables[0].name = name.to_owned();
        let error = bench.sink().open(&context).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Config, "{name}");
        assert!(error.to_string().contains(name), "{error}");
    }
    let mut context = bench.context();
    context.tables[0].name = context.tables[1].name.to_uppercase();
    let error = bench.sink().open(&context).await.unwrap_err();
    assert!(error.to_string().contains("are one for QuestDB"), "{error}");
}

#[tokio::test]
async fn a_table_of_the_users_own_gets_columns_but_no_key_and_its_rows_come_at_least_once() {
    let bench = Bench::new();
    let name = bench.name("trades");
    bench
        .run(&format!(
            "CREATE TABLE {name} (note VARCHAR, \"timestamp\" TIMESTAMP, Price DOUBLE, symbol VARCHAR, side STRING) \
             TIMESTAMP(\"timestamp\") PARTITION BY DAY WAL"
        ))
        .await;
    let last = bench.trades(4);
    let mut sink = bench.opened().await;
    assert_eq!(sink.guarantee(), Guarantee::AtLeastOnce);
    bench.store(&mut sink, 0, last).await;
    let where_ = "WHERE price = 1.5 AND size = 2.0 AND symbol = 'ETH' AND \"timestamp\" > '2026'";
    assert_eq!(bench.number(&format!("SELECT count() FROM {name} {where_}")).await, 4);
    let tg = format!(
        "SELECT count() FROM table_columns('{name}') WHERE \"column\" LIKE 'tg_%' OR upsertKey OR \"column\" = 'ts_event'"
    );
    assert_eq!(bench.number(&tg).await, 0, "nothing of ours");
    bench.store(&mut sink, 0, last).await;
    assert_eq!(bench.number(&format!("SELECT count() FROM {name}")).await, 8, "as was said");
}

#[tokio::test]
async fn with_create_off_what_is_missing_is_shown_as_statements_and_nothing_is_made() {
    let mut bench = Bench::new();
    bench.config.create = false;
    let name = bench.name("trades");
    bench
        .run(&format!(
            "CREATE TABLE {name} (ts_event TIMESTAMP_NS, price DOUBLE) TIMESTAMP(ts_event) PARTITION BY DAY WAL"
        ))
        .await;
    let error = bench.sink().open(&bench.context()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    let reached = bench.sink().reach(&bench.context().tables).await.unwrap_err().to_string();
    let error = error.to_string();
    assert_eq!(error, reached, "as `check --connect` says it");
    let (_, statements) = error.split_once("To be run: ").unwrap();
    assert!(
        statements.contains(&format!("ALTER TABLE \"{name}\" ADD COLUMN IF NOT EXISTS \"size\" DOUBLE")),
        "{error}"
    );
    let ours = format!("SELECT count() FROM tables() WHERE table_name LIKE '{}#_%'", bench.prefix).replace("#_", "_");
    assert_eq!(bench.number(&ours).await, 1, "nothing is made");
    for statement in statements.split("; ") {
        bench.run(statement).await;
    }
    let last = bench.trades(3);
    let mut sink = bench.opened().await;
    bench.store(&mut sink, 0, last).await;
    assert_eq!(bench.number(&ours).await, 2, "no table of owners either");
    assert_eq!(bench.number(&format!("SELECT count() FROM {name}")).await, 3);
}

#[tokio::test]
async fn a_column_that_would_change_values_is_refused_at_the_start_with_its_name_and_the_statement() {
    for (columns, named) in [
        ("ts_event TIMESTAMP_NS, price FLOAT", "price"),
        ("ts_event TIMESTAMP_NS, price LONG", "price"),
        ("ts_event TIMESTAMP_NS, symbol LONG", "symbol"),
        ("ts_event TIMESTAMP_NS, seq INT", "seq"),
        ("ts_event TIMESTAMP_NS, ts_recv LONG", "ts_recv"),
    ] {
        let bench = Bench::new();
        let name = bench.name("trades");
        bench.run(&format!("CREATE TABLE {name} ({columns}) TIMESTAMP(ts_event) PARTITION BY DAY WAL")).await;
        let error = bench.sink().open(&bench.context()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Permanent, "{columns}");
        let text = error.to_string();
        assert!(text.contains(&format!("`{named}`")) && text.contains("ALTER COLUMN"), "{text}");
        bench.run(text.split_once("changed: ").unwrap().1).await;
        bench.opened().await;
    }
    let bench = Bench::new();
    for (columns, words) in [
        ("(price DOUBLE)", "has no designated timestamp"),
        ("(ts_event TIMESTAMP_NS) TIMESTAMP(ts_event) PARTITION BY DAY BYPASS WAL", "has no write-ahead log"),
    ] {
        bench.run(&format!("CREATE TABLE {} {columns}", bench.name("trades"))).await;
        let error = bench.sink().open(&bench.context()).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(error.contains("SET TYPE WAL"), columns.contains("BYPASS"), "{error}");
        let reached = bench.sink().reach(&bench.context().tables).await.unwrap_err();
        assert_eq!(reached.to_string(), error, "check --connect says the same");
        bench.run(&format!("DROP TABLE {}", bench.name("trades"))).await;
    }
    let bench = Bench::new();
    let (name, columns) = (bench.name("trades"), "ts_event TIMESTAMP_NS, ts_recv TIMESTAMP_NS");
    bench.run(&format!("CREATE TABLE {name} ({columns}) TIMESTAMP(ts_recv) PARTITION BY DAY WAL")).await;
    let error = bench.sink().open(&bench.context()).await.unwrap_err().to_string();
    assert!(error.contains("is `ts_recv`, and has to be `ts_event`"), "{error}");
}

#[tokio::test]
async fn rows_of_a_key_take_each_others_places() {
    let bench = Bench::new();
    let with_key = |mut context: tidegate_core::sink::SinkContext| {
        (context.tables[0].key, context.tables[0].on_conflict) = (vec!["id".to_owned()], OnConflict::Replace);
        context
    };
    let mark = |ts| tidegate_core::row::Mark {
        symbol: "ETH",
        position: tidegate_core::row::Position::Unnumbered,
        ts_event: tidegate_core::row::Timestamp(super::BEGIN + ts),
    };
    for (ts, id, price) in [(0, "a", 1.0), (0, "b", 2.0), (0, "a", 3.0), (1, "a", 4.0)] {
        bench.log.emit(mark(ts), &Trade { id: Some(id), price, ..Trade::default() });
    }
    let mut sink = bench.sink();
    sink.open(&with_key(bench.context())).await.unwrap();
    bench.store(&mut sink, 0, 4).await;
    let name = bench.name("trades");
    assert_eq!(
        bench.number(&format!("SELECT cast(sum(price) AS LONG) FROM {name}")).await,
        9,
        "the time is a part of the key"
    );
    let mut context = with_key(bench.context());
    for on_conflict in [OnConflict::Ignore, OnConflict::Refuse] {
        context.tables[0].on_conflict = on_conflict;
        let error = bench.sink().open(&context).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.to_string().contains("`on_conflict`"), "{error}");
    }
    // Its key was changed in the file: rows would be kept that take each other's places.
    let error = bench.sink().open(&bench.context_at(4)).await.unwrap_err();
    let statement = error.to_string().split_once("To be run: ").unwrap().1.to_owned();
    bench.run(&statement).await;
    bench.sink().open(&bench.context_at(4)).await.unwrap();
}

#[tokio::test]
async fn rows_that_only_quest_db_can_blame_are_found_all_together_and_a_column_that_was_changed_is_named() {
    let bench = Bench::new();
    let mut sink = bench.opened().await;
    let name = bench.name("trades");
    // A column that is changed under our hands: it takes texts that are ids of a certain form, and blames the others.
    bench.run(&format!("ALTER TABLE {name} ALTER COLUMN id TYPE UUID")).await;
    for n in 0..300 {
        let id = if n % 50 == 7 { format!("x{n}") } else { format!("00000000-0000-0000-0000-{n:012}") };
        bench.emit(&Trade { price: 1.0, id: Some(&id), ..Trade::default() });
    }
    let found = refused(bench.write(&mut sink, 0, 300).await);
    assert_eq!(offsets(&found), [8, 58, 108, 158, 208, 258]);
    let text = found[0].error.to_string();
    assert!(text.contains("column: id; cast error"), "{text}");
    let error = sink.open(&bench.context()).await.unwrap_err();
    assert!(error.to_string().contains("column `id`"), "{error}");
}

#[test]
fn the_configuration_is_checked_before_anything_is_dialled() {
    let check = |config: serde_json::Value| {
        let config: Result<QuestDbConfig, _> = serde_json::from_value(config);
        config.map_err(|error| error.to_string()).and_then(|config| match config.build() {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        })
    };
    let with = |key: &str, value: serde_json::Value| {
        let mut config = serde_json::json!({ "url": "http://127.0.0.1:9000" });
        config[key] = value;
        check(config)
    };
    assert_eq!(check(serde_json::json!({ "url": "http://127.0.0.1:9000" })), Ok(()));
    assert_eq!(with("ttl", "2d".into()), Ok(()));
    for (key, value, says) in [
        ("url", "127.0.0.1:9000", "`url`"),
        ("url", "ftp://host", "begins with http"),
        ("url", "http://me:hunter2@host:9000", "`user` and `password`"),
        ("url", "http://host:9000/write", "ends with the port"),
        ("user", "me", "no `password`"),
        ("ttl", "36h", "whole number of partitions"),
        ("owners", "a/b", "no table `a/b`"),
        ("partition", "minute", "unknown variant"),
        ("partitions", "day", "unknown field"),
    ] {
        let error = with(key, value.into()).unwrap_err();
        assert!(error.contains(says) && !error.contains("hunter2"), "{key} = {value}: {error}");
    }
    let layout = serde_json::json!({ "trade": { "ttl": "2d" } });
    let mut config: QuestDbConfig = serde_json::from_value(serde_json::json!({ "url": "http://h:1" })).unwrap();
    config.layout = serde_json::from_value(layout).unwrap();
    let tables = tidegate_core::testkit::MemoryLog::new("deribit", vec![Table::of::<Trade<'_>>()]);
    let error = config.check_tables(&tables.context(std::path::Path::new("")).tables).unwrap_err().to_string();
    assert!(error.contains("table `trade`") && error.contains("it takes: trades"), "{error}");
}
