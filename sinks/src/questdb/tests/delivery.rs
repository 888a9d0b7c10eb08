//! The delivery driver with QuestDB behind it.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use tidegate_core::{
    chunk::SinkTable,
    config::{Commands, DeliveryConfig, NameTemplate, Start, TableChoice, TableConfig, WhenFull},
    delivery::{Delivery, Others, Outcome, Setup},
    health::Registry,
    row::{
        Table, Timestamp,
        kinds::{Quote, Trade},
    },
    sink::{Owner, Sink, SinkContext},
    table::Derived,
    testkit::Server,
    verify::RowId,
};
use tokio::{sync::watch, time::Instant};

use super::{super::sink::QuestDb, Bench};

#[tokio::test(flavor = "multi_thread")]
async fn after_deaths_of_both_at_any_moment_every_row_is_there_once() {
    let server = Server::start("questdb");
    let bench = Bench::at(server.url(), vec![Table::of::<Trade<'_>>(), Table::of::<Quote>()]);
    let server = Arc::new(Mutex::new(server));
    let mut random = 7_u64;
    for round in 0..30 {
        for _ in 0..200 {
            bench.emit(&Trade { price: 1.0, ..Trade::default() });
            bench.emit(&Quote::default());
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let until = Duration::from_micros(random >> 32 & 0x3_ffff);
        let (_stop, running) = start(&bench);
        let killing = (round % 10 == 5).then(|| {
            let server = server.clone();
            tokio::spawn(async move {
                tokio::time::sleep(until / 2).await;
                tokio::task::spawn_blocking(move || server.lock().unwrap().restart()).await.unwrap();
            })
        });
        // Dropped wherever it stands: like kill -9, but for the bytes that were not written.
        drop(tokio::time::timeout(until, running).await);
        if let Some(killing) = killing {
            killing.await.unwrap();
        }
    }
    let outcome = to_the_end(&bench).await;
    assert_eq!((outcome.failure, outcome.rows_left), (None, 0));
    assert!(outcome.balance.unwrap().is_even());
    for table in ["trades", "quotes"] {
        let counts = format!("SELECT count() * 10000 + count_distinct(seq) FROM {}", bench.name(table));
        assert_eq!(bench.number(&counts).await, 60_006_000, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_restored_from_an_older_copy_is_not_taken_for_the_one_that_has_written() {
    let bench = Bench::new();
    bench.trades(20);
    assert_eq!(to_the_end(&bench).await.failure, None);
    // The note beside the spool is of then, too.
    let note = bench.directory.path().join("sinks/questdb.json");
    let text = std::fs::read_to_string(&note).unwrap();
    std::fs::write(&note, text.replace("20", "5")).unwrap();
    bench.log.restore(5);
    bench.log.reboot();
    let why = to_the_end(&bench).await.failure.expect("a person has to look");
    assert!(why.contains("ahead of the spool") && why.contains("store: 20"), "{why}");
    bench.trades(30);
    let why = to_the_end(&bench).await.failure.expect("a person has to look");
    assert!(why.contains("another history") && why.contains("adopt"), "{why}");
    assert_eq!(bench.number(&format!("SELECT count() FROM {}", bench.name("trades"))).await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rows_are_dead_letters_and_the_rest_is_stored() {
    let bench = Bench::new();
    for n in 0..500 {
        let price = if n % 100 == 7 { f64::NAN } else { 1.0 };
        bench.emit(&Trade { price, ..Trade::default() });
        bench.emit(&Quote { bid_price: Some(if n == 250 { f64::INFINITY } else { 1.0 }), ..Quote::default() });
    }
    let outcome = to_the_end(&bench).await;
    assert_eq!(outcome.failure, None);
    let balance = outcome.balance.unwrap();
    assert!(balance.is_even());
    assert_eq!((balance.fates.delivered, balance.fates.refused), (994, 6));
    let letters = tidegate_core::deadletter::list(&bench.directory.path().join("sinks/questdb/dead-letters.jsonl"));
    assert_eq!(letters.unwrap().letters.len(), 6);
    let both = format!(
        "SELECT sum(n) FROM (SELECT count() n FROM {} UNION ALL SELECT count() n FROM {})",
        bench.name("trades"),
        bench.name("quotes")
    );
    assert_eq!(bench.number(&both).await, 994);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_verify_asks_is_answered_for_rows_that_count() {
    let bench = Bench::new();
    for _ in 0..5 {
        bench.emit(&Trade { price: 1.0, ..Trade::default() });
    }
    bench.emit(&Quote::default());
    assert_eq!(to_the_end(&bench).await.failure, None);
    let owner = Owner { sink: "questdb".to_owned(), ..bench.context().owner };
    let context = SinkContext { owner, ..bench.context() };
    bench.until(&format!("SELECT pos FROM {}", bench.config.owners), 6).await;
    let mut audit = bench.sink().audit(&context).await.unwrap().unwrap();
    let (spool, position) = audit.position().await.unwrap().unwrap();
    assert_eq!((spool, position.offset), (1, 6));
    let all = Timestamp(i64::MIN);
    let trades: &SinkTable = &context.tables[0];
    let sums = audit.sums(trades, all).await.unwrap().unwrap();
    assert_eq!(sums.len(), 1);
    let rows = audit.rows(trades, &sums[0].stream, all).await.unwrap();
    assert_eq!((sums[0].rows, sums[0].redriven, rows.len()), (5, 0, 5));
    assert_eq!(sums[0].marks, rows.iter().map(RowId::mark).sum::<i64>());
    let mut seqs: Vec<_> = rows.iter().map(|row| row.seq).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=5).map(Some).collect::<Vec<_>>());
    assert!(audit.doubled(trades, Timestamp(i64::MAX)).await.unwrap().is_empty());
    // A row that is there twice, by somebody else's hand.
    let name = bench.name("trades");
    let copy = format!("INSERT INTO {name} SELECT * FROM {name} WHERE seq = 3");
    bench.run(&copy.replace("SELECT *", &format!("SELECT {}", copied(&bench, &name).await))).await;
    bench.until(&format!("SELECT count() FROM {name}"), 6).await;
    let doubled = audit.doubled(trades, Timestamp(i64::MAX)).await.unwrap();
    assert_eq!((doubled.len(), doubled[0].row.seq, doubled[0].rows, doubled[0].moments), (1, Some(3), 2, 1));
    bench.run(&format!("DROP TABLE {name}")).await;
    assert_eq!(audit.sums(trades, all).await.unwrap(), None);
}

/// Returns the columns of a table, with another number for each row.
async fn copied(bench: &Bench, table: &str) -> String {
    let columns = bench.sql(&format!("SELECT \"column\" FROM table_columns('{table}')")).await;
    let columns = columns.iter().map(|row| match row[0].as_str().unwrap() {
        "tg_sub" => "7".to_owned(),
        other => other.to_owned(),
    });
    columns.collect::<Vec<_>>().join(", ")
}

async fn to_the_end(bench: &Bench) -> Outcome {
    let (stop, running) = start(bench);
    stop.send_replace(Some(Instant::now() + Duration::from_secs(300)));
    running.await
}

fn start(bench: &Bench) -> (watch::Sender<Option<Instant>>, impl Future<Output = Outcome> + use<>) {
    let (stop, stopping) = watch::channel(None);
    let config = bench.config.clone();
    let directory: &Path = bench.directory.path();
    let mut delivery = DeliveryConfig { start: Start::Earliest, ..DeliveryConfig::default() };
    delivery.batch.rows = std::num::NonZeroUsize::new(150).unwrap();
    delivery.retry.first = tidegate_core::config::Duration::from_millis(1);
    let named = ["trades", "quotes"].map(|table| {
        let name = NameTemplate::parse(&bench.name(table));
        (table.to_owned(), TableConfig { name, ..TableConfig::default() })
    });
    let setup = Setup {
        pipeline: "test".to_owned(),
        sink: "questdb".to_owned(),
        factory: Arc::new(move || Ok(Box::new(QuestDb::new(config.clone())) as Box<dyn Sink>)),
        config: delivery,
        tables: TableChoice::Only(named.into()),
        derived: Derived::default(),
        sources: vec![bench.log.source()],
        spool: 1,
        host: "here".to_owned(),
        directory: directory.join("sinks"),
        when_full: WhenFull::Block,
        log: bench.log.clone(),
        synced: bench.log.synced(),
        stop: stopping,
        others: Others::default(),
        health: Registry::default(),
        commands: Commands::default(),
    };
    (stop, Delivery::new(setup).unwrap().0.run())
}
