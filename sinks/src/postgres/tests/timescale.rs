//! Hypertables, against TimescaleDB itself. The build that is to be had here has one backend, so what needs two sessions at
//! once is tested on plain Postgres: the code is the same.

use tidegate_core::{
    Kind,
    catalog::Component,
    config::{Duration, OnConflict},
    row::{Timestamp, kinds::Trade},
    sink::Sink,
};

use super::{Bench, TimescaleConfig, assert_committed, offset, refused};

const DAY: i64 = 86_400 * 1_000_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn tables_become_hypertables_with_chunks_compression_and_retention_as_the_file_says() {
    let mut bench = Bench::timescale(
        r#","hypertable":{"interval":"1h","compress_after":"7d"},"hypertables":{"trades":{"retention":"90d"}}"#,
    )
    .await;
    let last = bench.trades(10);
    let mut sink = bench.sink();
    sink.open(&bench.context()).await.unwrap();
    let now = Timestamp::now().0;
    let first = last + 1;
    for age in 0..3 {
        bench.trade_at(&Trade::default(), Timestamp(now - age * 3_600 * 1_000_000_000));
    }
    let old = refused(bench.write(&mut sink, 0, first + 2).await);
    assert_eq!(old.len(), 10, "they are of 1970, and would be dropped at once");
    assert!(old[0].1.contains("\"ts_event\" is older than the table keeps rows: 90days"), "{}", old[0].1);
    let chunk = bench.log.chunk(last, first + 2);
    let chunk = tidegate_core::chunk::Chunk { from: tidegate_core::spool::SpoolPosition::START, ..chunk };
    assert_committed(sink.write(&chunk).await);
    assert_eq!(offset(&sink.open(&bench.context()).await.unwrap()), Some(first + 2));

    let of_ours = format!("hypertable_schema = '{}'", bench.schema);
    let chunks = format!("SELECT count(*) FROM timescaledb_information.chunks WHERE {of_ours}");
    assert_eq!(bench.number(&chunks).await, 3, "one for each hour");
    let policies = format!(
        "SELECT string_agg(proc_name || ' ' || coalesce(config->>'compress_after', config->>'drop_after'), ', ' ORDER BY proc_name)
         FROM timescaledb_information.jobs WHERE {of_ours}"
    );
    assert_eq!(bench.text(&policies).await, "policy_compression 168:00:00, policy_retention 2160:00:00");

    // The file changes: so do they, for what is made from now on.
    let changed = format!(
        r#"{{"url":"{}","schema":"{}","hypertable":{{"interval":"2h","compress_after":"3d"}}}}"#,
        bench.url, bench.schema
    );
    bench.settings = serde_json::from_str::<TimescaleConfig>(&changed).unwrap().with_hypertables();
    bench.opened().await.close().await.unwrap();
    assert_eq!(bench.text(&policies).await, "policy_compression 72:00:00");
    let span = format!("SELECT time_interval::text FROM timescaledb_information.dimensions WHERE {of_ours}");
    assert_eq!(bench.text(&span).await, "02:00:00");

    // Beside a table's name it is said as well: `tables = { trades = { retention = "30d" } }`.
    let mut context = bench.context();
    context.tables[0].retention = Some(Duration::from_secs(30 * 86_400));
    let mut sink = bench.sink();
    sink.open(&context).await.unwrap();
    sink.close().await.unwrap();
    assert_eq!(bench.text(&policies).await, "policy_compression 72:00:00, policy_retention 720:00:00");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_late_go_into_compressed_chunks_in_each_of_the_four_ways() {
    for on_conflict in [OnConflict::Append, OnConflict::Replace, OnConflict::Ignore, OnConflict::Refuse] {
        let mut bench = Bench::timescale(r#","hypertable":{"interval":"1d","compress_after":"1d"}"#).await;
        if on_conflict != OnConflict::Append {
            bench.key("trades", on_conflict, &["ts_event", "id"]);
        }
        let start = (Timestamp::now().0 / DAY - 5) * DAY;
        let emit = |n: i64, price: f64| {
            let id = n.to_string();
            bench.trade_at(&Trade { id: Some(&id), price, ..Trade::default() }, Timestamp(start + n * 1_000_000_000))
        };
        let mut last = 0;
        for n in 0..2_000 {
            last = emit(n, 1.0);
        }
        let mut sink = bench.opened().await;
        assert_committed(bench.write(&mut sink, 0, last).await);
        let compress = format!("SELECT count(compress_chunk(c)) FROM show_chunks('{}.trades') c", bench.schema);
        assert_eq!(bench.number(&compress).await, 1);
        let compressed = format!(
            "SELECT count(*) FROM timescaledb_information.chunks WHERE is_compressed AND hypertable_schema = '{}'",
            bench.schema
        );
        assert_eq!(bench.number(&compressed).await, 1);

        // Of these, half are there already.
        let from = last;
        for n in 1_500..2_500 {
            last = emit(n, 2.0);
        }
        let written = bench.write(&mut sink, from, last).await;
        let (rows, new) = match on_conflict {
            OnConflict::Append => (3_000, 1_000),
            OnConflict::Replace => (2_500, 1_000),
            OnConflict::Ignore | OnConflict::Refuse => (2_500, 500),
        };
        if on_conflict == OnConflict::Refuse {
            assert_eq!(refused(written).len(), 500);
            continue;
        }
        assert_committed(written);
        assert_eq!(bench.number("SELECT count(*) FROM trades").await, rows, "{on_conflict:?}");
        assert_eq!(bench.number("SELECT count(*) FROM trades WHERE price = 2").await, new, "{on_conflict:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_key_lacks_the_time_stays_a_plain_one_and_somebody_elses_is_left_alone() {
    let mut bench = Bench::timescale(r#","hypertable":{"retention":"1d"}"#).await;
    bench.key("trades", OnConflict::Replace, &["id"]);
    bench.opened().await.close().await.unwrap();
    let hypertables = format!(
        "SELECT count(*) FROM timescaledb_information.hypertables WHERE hypertable_schema = '{}'",
        bench.schema
    );
    assert_eq!(bench.number(&hypertables).await, 0);

    let bench = Bench::timescale(r#","hypertable":{"retention":"1d"}"#).await;
    bench.run("CREATE TABLE trades (ts_event timestamptz NOT NULL, note text)").await;
    let last = bench.trades(3);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, last).await);
    let hypertables = format!(
        "SELECT count(*) FROM timescaledb_information.hypertables WHERE hypertable_schema = '{}'",
        bench.schema
    );
    assert_eq!(bench.number(&hypertables).await, 0);

    // A hypertable of theirs, with a retention of theirs.
    let bench = Bench::timescale("").await;
    let theirs = "CREATE TABLE trades (ts_event timestamptz NOT NULL); SELECT create_hypertable('trades', 'ts_event');
        SELECT add_retention_policy('trades', INTERVAL '10 days')";
    bench.run(theirs).await;
    bench.trades(3);
    let last = bench.trade_at(&Trade::default(), Timestamp::now());
    let mut sink = bench.opened().await;
    assert_eq!(refused(bench.write(&mut sink, 0, last).await).len(), 3, "older than they keep");
}

#[tokio::test(flavor = "multi_thread")]
async fn times_as_numbers_make_hypertables_too() {
    let bench = Bench::timescale(r#","times":"bigint","hypertable":{"interval":"1d"}"#).await;
    bench.trade_at(&Trade::default(), Timestamp(DAY + 1));
    let last = bench.trade_at(&Trade::default(), Timestamp(5 * DAY + 1));
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, last).await);
    let chunks =
        format!("SELECT count(*) FROM timescaledb_information.chunks WHERE hypertable_schema = '{}'", bench.schema);
    assert_eq!(bench.number(&chunks).await, 2);
    assert_eq!(bench.number("SELECT max(ts_event) FROM trades").await, 5 * DAY + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_chunk_twice_and_a_restart_are_as_on_postgres_which_is_told_that_it_is_none() {
    let bench = Bench::timescale("").await;
    let last = bench.trades(50);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, last).await);
    assert!(bench.write(&mut sink, 0, last).await.is_err());
    assert_eq!(offset(&sink.open(&bench.context()).await.unwrap()), Some(last));
    assert_eq!(bench.number("SELECT count(*) FROM trades").await, 50);
    sink.check().await.unwrap();
    let said = bench.sink().reach(&bench.context().tables).await.unwrap();
    assert!(said.contains("with TimescaleDB 2."), "{said}");

    let mut plain = Bench::new().await;
    plain.settings.hypertables = Some(Default::default());
    let error = plain.sink().open(&plain.context()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    assert!(error.to_string().contains("no extension `timescaledb`"), "{error}");
}

#[test]
fn what_a_hypertable_cannot_have_is_a_mistake_in_the_file() {
    let config = |json: &str| serde_json::from_str::<TimescaleConfig>(json).unwrap();
    let error = config(r#"{"url":"postgres://me@db/x","times":"bigint","hypertable":{"retention":"1d"}}"#);
    assert!(error.build().err().unwrap().to_string().contains("needs `times = \"timestamptz\"`"));
    let some = config(r#"{"url":"postgres://me@db/x","hypertables":{"tardes":{"retention":"1d"}}}"#);
    let tables = tidegate_core::testkit::MemoryLog::new("deribit", vec![tidegate_core::row::Table::of::<Trade<'_>>()]);
    let mut tables = tables.context(std::path::Path::new("")).tables;
    let error = some.check_tables(&tables).unwrap_err().to_string();
    assert!(error.contains("`hypertables.tardes`") && error.contains("`trades`"), "{error}");
    let keyed = config(r#"{"url":"postgres://me@db/x","hypertables":{"trades":{"retention":"1d"}}}"#);
    tables[0].key = vec!["id".to_owned()];
    let error = keyed.check_tables(&tables).unwrap_err().to_string();
    assert!(error.contains("has to hold its time column `ts_event`"), "{error}");
}
