//! Whose the position is, and where.

use std::time::Duration;

use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use tidegate_core::{
    sink::{Neighbour, Owner, SinkContext},
    spool::{Boot, SpoolPosition},
};

use super::{Bench, PATIENCE, assert_committed, assert_permanent, assert_transient, delete_topic, offset, up_to};

#[tokio::test]
async fn the_position_moves_with_the_rows_and_is_there_after_a_restart() {
    let bench = Bench::new();
    let last = bench.trades(10);
    let mut sink = bench.sink();
    assert!(sink.open(&bench.context()).await.unwrap().is_empty(), "a new cluster has no position");
    assert!(sink.open(&bench.context()).await.unwrap().is_empty(), "nor has one that was only opened");
    assert_committed(bench.write(&mut sink, 0, last).await);
    sink.close().await.unwrap();

    let positions = bench.sink().open(&bench.context()).await.unwrap();
    assert_eq!(positions[0].1, SpoolPosition { boot: Boot(1), offset: last });
}

#[tokio::test]
async fn the_same_chunk_twice_is_stored_once() {
    let bench = Bench::new();
    let last = bench.trades(10);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, last).await);
    assert_transient(bench.write(&mut sink, 0, last).await);
    assert_eq!(bench.reopened(&mut sink).await, last);
    assert_eq!(bench.numbers().await, up_to(10));
}

#[tokio::test]
async fn a_second_instance_fences_the_first_for_good() {
    let bench = Bench::new();
    bench.trades(30);
    let mut first = bench.opened().await;
    assert_committed(bench.write(&mut first, 0, 10).await);
    first.check().await.unwrap();

    let mut second = bench.sink();
    assert_eq!(offset(&second.open(&bench.context()).await.unwrap()), 10);
    assert_transient(first.check().await);
    assert_permanent(first.open(&bench.context()).await);
    assert_committed(bench.write(&mut second, 10, 20).await);

    let said = assert_permanent(first.open(&bench.context()).await);
    assert!(said.contains("has taken over the position") && said.contains("it must run once only"), "{said}");
    assert_committed(bench.write(&mut second, 20, 30).await);
    assert_eq!(bench.numbers().await, up_to(30), "the second never noticed");
}

#[tokio::test]
async fn a_write_of_one_that_was_fenced_stores_nothing() {
    let bench = Bench::new();
    bench.trades(20);
    let mut first = bench.opened().await;
    assert_committed(bench.write(&mut first, 0, 10).await);
    let mut second = bench.opened().await;
    assert_transient(bench.write(&mut first, 10, 20).await);
    assert_permanent(first.open(&bench.context()).await);
    assert_eq!(bench.numbers().await, up_to(10));
    assert_committed(bench.write(&mut second, 10, 20).await);
    assert_eq!(bench.numbers().await, up_to(20));
}

#[tokio::test]
async fn another_spool_is_refused_and_fences_nobody() {
    let bench = Bench::new();
    bench.trades(20);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 10).await);
    let stranger = SinkContext { owner: Owner { spool: 77, ..bench.context().owner }, ..bench.context() };
    let said = assert_permanent(bench.sink().open(&stranger).await);
    assert!(said.contains("belongs to spool") && said.contains("this is spool 000000000000004d"), "{said}");
    assert_committed(bench.write(&mut sink, 10, 20).await);
}

#[tokio::test]
async fn what_a_dead_owner_left_open_is_aborted_before_the_position_is_read() {
    let bench = Bench::new();
    bench.trades(20);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 10).await);
    drop(sink);
    // As a process does that is killed in a transaction: rows and position have arrived, the commit was not asked for.
    let (id, topics) = (
        format!("tidegate/{}/{}", bench.name, bench.context().owner.sink),
        [bench.topic("trades"), bench.position_topic()],
    );
    let brokers = bench.config.brokers.clone();
    let dead = tokio::task::spawn_blocking(move || {
        let dead: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", brokers).set("transactional.id", id).create().unwrap();
        dead.init_transactions(PATIENCE).unwrap();
        dead.begin_transaction().unwrap();
        for topic in &topics {
            dead.send(BaseRecord::<[u8], [u8]>::to(topic).key(b"position").payload(b"{}")).unwrap();
        }
        dead.flush(PATIENCE).unwrap();
        dead
    });
    let dead = dead.await.unwrap();

    let mut sink = bench.sink();
    assert_eq!(bench.reopened(&mut sink).await, 10);
    assert_committed(bench.write(&mut sink, 10, 20).await);
    assert_eq!(bench.numbers().await, up_to(20), "nobody who reads committed messages sees what was aborted");
    tokio::task::spawn_blocking(move || {
        assert!(dead.commit_transaction(Duration::from_secs(5)).is_err(), "it is fenced");
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_position_that_is_known_and_cannot_be_read_yet_is_waited_for() {
    let bench = Bench::new();
    bench.trades(10);
    let mut sink = bench.opened().await;
    // Brokers answer a commit before it can be read. Here another transaction keeps it hidden for as long as the test wants.
    let (brokers, topic) = (bench.config.brokers.clone(), bench.position_topic());
    let hiding = tokio::task::spawn_blocking(move || {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", brokers).set("transactional.id", format!("hides-{topic}"));
        let hiding: BaseProducer = settings.create().unwrap();
        hiding.init_transactions(PATIENCE).unwrap();
        hiding.begin_transaction().unwrap();
        hiding.send(BaseRecord::<[u8], [u8]>::to(&topic).key(b"other").payload(b"{}")).unwrap();
        hiding.flush(PATIENCE).unwrap();
        hiding
    });
    let hiding = hiding.await.unwrap();
    assert_committed(bench.write(&mut sink, 0, 10).await);
    let early = tokio::time::timeout(Duration::from_secs(2), bench.sink().open(&bench.known(10))).await;
    assert!(!matches!(early, Ok(Ok(_))), "nobody knows yet: {early:?}");
    tokio::task::spawn_blocking(move || hiding.abort_transaction(PATIENCE).unwrap()).await.unwrap();
    assert_eq!(offset(&bench.sink().open(&bench.known(10)).await.unwrap()), 10);
}

#[tokio::test]
async fn where_a_position_is_known_nothing_is_made_in_the_place_of_one_that_is_gone() {
    let bench = Bench::new();
    bench.trades(20);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 10).await);
    delete_topic(&bench.config.brokers, &bench.position_topic()).await;
    assert_transient(sink.check().await);
    assert!(sink.open(&bench.known(10)).await.unwrap().is_empty(), "the driver compares, and stops");
    assert!(bench.sink().open(&bench.known(10)).await.unwrap().is_empty());
    assert!(!super::has_topic(&bench.config.brokers, &bench.position_topic()), "nothing was made");
    assert_transient(bench.write(&mut sink, 10, 20).await);
    assert_eq!(bench.numbers().await, up_to(10));
}

#[tokio::test]
async fn a_position_topic_that_goes_while_it_runs_takes_no_row_with_it() {
    let bench = Bench::new();
    bench.trades(20);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 10).await);
    delete_topic(&bench.config.brokers, &bench.position_topic()).await;
    let written = tokio::time::timeout(Duration::from_secs(5), bench.write(&mut sink, 10, 20)).await;
    assert!(!matches!(written, Ok(Ok(_))), "{written:?}");
    assert!(sink.open(&bench.known(10)).await.unwrap().is_empty(), "the driver compares, and stops");
    assert!(!super::has_topic(&bench.config.brokers, &bench.position_topic()), "the broker did not make it by itself");
}

#[tokio::test]
async fn a_position_is_claimed_adopted_and_renamed() {
    let bench = Bench::new();
    bench.trades(20);
    let owner = bench.context().owner;
    assert_eq!(bench.sink().claim(&owner).await.unwrap(), None, "nothing was made by asking");
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 10).await);
    let claim = bench.sink().claim(&Owner { spool: 77, ..owner.clone() }).await.unwrap().unwrap();
    assert_eq!((claim.position.offset, claim.spool), (10, owner.spool));
    assert!(claim.gone.is_empty());

    // Another spool takes it, behind what was there.
    let other = Owner { spool: 77, ..owner.clone() };
    for _ in 0..2 {
        bench.sink().adopt(&other, SpoolPosition { boot: Boot(5), offset: 12 }).await.unwrap();
    }
    assert_transient(bench.write(&mut sink, 10, 20).await);
    assert_permanent(sink.open(&bench.context()).await);
    let context = SinkContext { owner: other.clone(), ..bench.context() };
    let positions = bench.sink().open(&context).await.unwrap();
    assert_eq!(positions[0].1, SpoolPosition { boot: Boot(5), offset: 12 });

    let renamed = Owner { sink: "renamed".to_owned(), ..other.clone() };
    for _ in 0..2 {
        bench.sink().rename(&other, &renamed).await.unwrap();
    }
    assert!(bench.sink().claim(&other).await.unwrap().is_none_or(|claim| claim.position == SpoolPosition::START));
    let context = SinkContext { owner: renamed, ..bench.context() };
    assert_eq!(offset(&bench.sink().open(&context).await.unwrap()), 12);
    let said = {
        let mut back = bench.sink();
        let context = SinkContext { owner: other.clone(), ..bench.context() };
        back.open(&context).await.unwrap();
        bench.trades(1);
        assert_committed(bench.write(&mut back, 0, 10).await);
        assert_permanent(bench.sink().rename(&other, &Owner { sink: "renamed".to_owned(), ..other.clone() }).await)
    };
    assert!(said.contains("two sinks have written"), "{said}");
}

#[tokio::test]
async fn another_pipeline_that_writes_to_the_same_topics_is_a_neighbour() {
    let bench = Bench::new();
    bench.trades(10);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 10).await);
    let mut other = bench.sink();
    let owner = Owner { pipeline: format!("{}-other", bench.name), spool: 5, ..bench.context().owner };
    other.open(&SinkContext { owner, ..bench.context() }).await.unwrap();
    let neighbours = other.neighbours();
    let [Neighbour { pipeline, tables, .. }] = &neighbours[..] else { panic!("{neighbours:?}") };
    assert_eq!((pipeline, tables.len()), (&bench.name, 2));
}
