//! Who may write, who has written, and what a person can do about it.

use tidegate_core::{
    Kind,
    row::{Mark, Position, Timestamp, kinds::Trade},
    sink::{Neighbour, Owner, Sink, SinkContext},
    spool::{Boot, SpoolPosition},
};

use super::{BEGIN, Bench, offset};

#[tokio::test]
async fn another_spool_writes_nothing_until_a_person_says_so() {
    let bench = Bench::new();
    bench.trades(10);
    let mut sink = bench.opened().await;
    bench.store(&mut sink, 0, 10).await;
    sink.close().await.unwrap();
    let other = Owner { spool: 99, host: "there".to_owned(), ..bench.context().owner };
    let context = SinkContext { owner: other.clone(), ..bench.context() };
    let error = bench.sink().open(&context).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    assert!(error.to_string().contains("belongs to spool 0000000000000001 of host `here`"), "{error}");

    let mut sink = bench.sink();
    let claim = sink.claim(&other).await.unwrap().unwrap();
    assert_eq!((claim.spool, claim.position.offset, claim.gone), (1, 10, Vec::new()));
    for _ in 0..2 {
        sink.adopt(&other, SpoolPosition { boot: Boot(7), offset: 3 }).await.unwrap();
    }
    let claim = sink.claim(&other).await.unwrap().unwrap();
    assert_eq!((claim.spool, claim.position), (99, SpoolPosition { boot: Boot(7), offset: 3 }));
    sink.open(&context).await.unwrap();
    let error = bench.sink().open(&bench.context_at(10)).await.unwrap_err();
    assert!(error.to_string().contains("belongs to spool 0000000000000063"), "{error}");
}

#[tokio::test]
async fn one_that_was_overtaken_stops_at_its_next_look() {
    let bench = Bench::new();
    bench.trades(10);
    let mut first = bench.opened().await;
    bench.store(&mut first, 0, 10).await;
    first.check().await.unwrap();
    let mut second = bench.sink();
    second.open(&bench.context_at(10)).await.unwrap();
    bench.until(&format!("SELECT epoch FROM {}", bench.config.owners), 2).await;
    let error = first.check().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    assert!(error.to_string().contains("has begun to write"), "{error}");
    second.check().await.unwrap();
}

#[tokio::test]
async fn a_copy_of_the_spool_on_another_host_waits_until_the_first_is_silent() {
    let bench = Bench::new();
    bench.trades(10);
    let mut sink = bench.opened().await;
    bench.store(&mut sink, 0, 10).await;
    sink.check().await.unwrap();
    let mut context = bench.context_at(10);
    context.owner.host = "there".to_owned();
    bench.until(&format!("SELECT pos FROM {}", bench.config.owners), 10).await;
    let error = bench.sink().open(&context).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Transient { .. }), "{error}");
    assert!(error.to_string().contains("host `here`"), "{error}");
    let owners = &bench.config.owners;
    let aged = format!(
        "INSERT INTO {owners} SELECT ts, pipeline, sink, spool, host, epoch, boot, pos, writing, \
         dateadd('m', -3, beat) beat, tables FROM {owners}"
    );
    bench.run(&aged).await;
    bench.until(&format!("SELECT count() FROM {owners} WHERE beat < dateadd('m', -2, now())"), 1).await;
    bench.sink().open(&context).await.unwrap();
}

#[tokio::test]
async fn two_pipelines_in_one_table_do_not_touch_each_others_rows_and_are_known_to_each_other() {
    let bench = Bench::new();
    let other = Bench { prefix: bench.prefix.clone(), config: bench.config.clone(), ..Bench::new() };
    for bench in [&bench, &other] {
        for n in 0..1_000 {
            // The same times, the same offsets, another boot.
            let mark = Mark { symbol: "ETH", position: Position::Sequence(n), ts_event: Timestamp(BEGIN) };
            bench.log.emit(mark, &Trade { price: 1.0, ..Trade::default() });
        }
    }
    other.log.forge();
    let mut sink = bench.opened().await;
    bench.store(&mut sink, 0, 1_000).await;
    let mut context = other.context();
    (context.owner.pipeline, context.owner.spool) = ("other".to_owned(), 2);
    let mut second = other.sink();
    second.open(&context).await.unwrap();
    let neighbour = Neighbour {
        pipeline: "test".to_owned(),
        sink: "sink".to_owned(),
        spool: 1,
        host: "here".to_owned(),
        tables: context.tables.iter().map(|table| table.name.clone()).collect(),
    };
    assert_eq!(second.neighbours(), [neighbour]);
    other.store(&mut second, 0, 1_000).await;
    assert_eq!(bench.number(&format!("SELECT count() FROM {}", bench.name("trades"))).await, 2_000);
}

#[tokio::test]
async fn a_store_that_does_not_know_a_sink_that_has_written_is_no_fresh_start() {
    let bench = Bench::new();
    bench.trades(10);
    let error = bench.sink().open(&bench.context_at(10)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    let text = error.to_string();
    assert!(text.contains("emptied, replaced or restored"), "{text}");
    let ours = format!("SELECT count() FROM tables() WHERE table_name LIKE '{}\\_%'", bench.prefix);
    assert_eq!(bench.number(&ours).await, 0, "nothing is made in it");
    // What it says to run is true.
    for statement in text.split_once("to be run: ").unwrap().1.split("; ") {
        bench.run(statement).await;
    }
    bench.until(&format!("SELECT pos FROM {}", bench.config.owners), 10).await;
    bench.sink().open(&bench.context_at(10)).await.unwrap();
}

#[tokio::test]
async fn rows_that_the_spool_does_not_know_of_are_found() {
    let bench = Bench::new();
    bench.trades(10);
    let mut sink = bench.opened().await;
    assert_eq!(offset(sink.newest()), None);
    bench.store(&mut sink, 0, 10).await;
    // Killed: no word of how far it came.
    drop(sink);
    let mut sink = bench.sink();
    sink.open(&bench.context_at(4)).await.unwrap();
    assert_eq!(sink.newest(), Some(SpoolPosition { boot: Boot(1), offset: 10 }));
    bench.log.reboot();
    bench.trades(5);
    bench.store(&mut sink, 10, 15).await;
    bench.until(&format!("SELECT writing FROM {}", bench.config.owners), 2).await;
    sink.open(&bench.context_at(10)).await.unwrap();
    assert_eq!(sink.newest(), None, "what this process has written it knows");
    let mut sink = bench.sink();
    sink.open(&bench.context_at(10)).await.unwrap();
    assert_eq!(sink.newest(), Some(SpoolPosition { boot: Boot(2), offset: 15 }));
    // Once a person has decided, what was there before is not held against the spool.
    let at = SpoolPosition { boot: Boot(1), offset: 4 };
    bench.sink().adopt(&bench.context().owner, at).await.unwrap();
    let mut sink = bench.sink();
    sink.open(&bench.context_at(4)).await.unwrap();
    assert_eq!(sink.newest(), Some(at));
}

#[tokio::test]
async fn a_sink_that_is_renamed_takes_its_row_along_and_twice_is_once() {
    let bench = Bench::new();
    bench.trades(10);
    let mut sink = bench.opened().await;
    bench.store(&mut sink, 0, 10).await;
    sink.close().await.unwrap();
    let old = bench.context().owner;
    let new = Owner { pipeline: "renamed".to_owned(), ..old.clone() };
    bench.until(&format!("SELECT pos FROM {}", bench.config.owners), 10).await;
    let mut sink = bench.sink();
    for _ in 0..2 {
        sink.rename(&old, &new).await.unwrap();
        bench.until(&format!("SELECT count() FROM {} WHERE spool = 0", bench.config.owners), 1).await;
    }
    assert_eq!(sink.claim(&old).await.unwrap(), None);
    assert_eq!(sink.claim(&new).await.unwrap().unwrap().position.offset, 10);
    let context = SinkContext { owner: new.clone(), ..bench.context_at(10) };
    sink.open(&context).await.unwrap();
    assert!(sink.neighbours().is_empty());
    // Under the old name a new one begins, and has a neighbour.
    let mut again = bench.sink();
    again.open(&bench.context()).await.unwrap();
    assert_eq!(again.neighbours().len(), 1);
    bench.trades(1);
    bench.store(&mut again, 10, 11).await;
    bench.until(&format!("SELECT count() FROM {} WHERE spool != 0", bench.config.owners), 2).await;
    let error = again.rename(&old, &new).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
}
