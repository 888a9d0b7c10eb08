//! Rows that a topic does not take.

use std::time::Instant;

use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{FutureProducer, FutureRecord, Producer},
};
use tidegate_core::{
    row::{Mark, Position, Timestamp, kinds::Trade},
    sink::{Refusal, Written},
};

use super::{
    super::{Compression, Format},
    Bench, PATIENCE, assert_committed, assert_transient, change_topic, make_topic, up_to,
};

#[tokio::test]
async fn a_row_that_is_too_large_is_refused_and_the_rest_of_the_chunk_is_stored_without_it() {
    let bench = Bench::new();
    let large = "x".repeat(2_000_000);
    bench.trades(3);
    bench.trade(&Trade { id: Some(&large), ..Trade::default() });
    bench.trades(2);
    bench.trade(&Trade { id: Some(&large), ..Trade::default() });
    let last = bench.trades(1);
    let mut sink = bench.opened().await;
    let refused = refusals(bench.write(&mut sink, 0, last).await);
    let offsets: Vec<_> = refused.iter().map(|refusal| refusal.cause.offset).collect();
    assert_eq!(offsets, [4, 7]);
    let said = refused[0].error.to_string();
    assert!(said.contains("is too large for topic") && said.contains("max.message.bytes"), "{said}");
    assert!(bench.numbers().await.is_empty(), "nothing was written");

    let mut chunk = bench.log.chunk(0, last);
    without(&mut chunk, &offsets);
    assert_committed(sink.write(&chunk).await);
    assert_eq!(bench.numbers().await, [1, 2, 3, 5, 6, 8]);
}

#[tokio::test]
async fn the_limit_is_that_of_each_topic() {
    let bench = Bench::new();
    make_topic(&bench.config.brokers, &bench.topic("trades"), &[("max.message.bytes", "3000")]).await;
    let (small, large) = ("x".repeat(2_000), "x".repeat(4_000));
    for _ in 0..50 {
        bench.trade(&Trade { id: Some(&small), ..Trade::default() });
    }
    let last = bench.trade(&Trade { id: Some(&large), ..Trade::default() });
    let mut sink = bench.opened().await;
    let refused = refusals(bench.write(&mut sink, 0, last).await);
    assert_eq!(refused.iter().map(|refusal| refusal.cause.offset).collect::<Vec<_>>(), [51]);
    assert_committed(bench.write(&mut sink, 0, 50).await);
    assert_eq!(bench.numbers().await, up_to(50), "no batch was too large either");
}

#[tokio::test]
async fn what_only_the_broker_can_tell_is_found_row_by_row() {
    let mut bench = Bench::new();
    bench.config.compression = Compression::None;
    let mut sink = bench.opened().await;
    // Behind the opening's back.
    change_topic(&bench.config.brokers, &bench.topic("trades"), ("max.message.bytes", "4000")).await;
    let large = "x".repeat(8_000);
    until_refused(&bench.config.brokers, &bench.topic("trades"), &large).await;
    bench.trades(2);
    bench.trade(&Trade { id: Some(&large), ..Trade::default() });
    bench.trades(2);
    bench.trade(&Trade { id: Some(&large), ..Trade::default() });
    let last = bench.trades(1);
    let refused = refusals(bench.write(&mut sink, 0, last).await);
    let offsets: Vec<_> = refused.iter().map(|refusal| refusal.cause.offset).collect();
    assert_eq!(offsets, [3, 6]);
    assert!(bench.numbers().await.is_empty(), "nothing was written");
    let mut chunk = bench.log.chunk(0, last);
    without(&mut chunk, &offsets);
    assert_committed(sink.write(&chunk).await);
    assert_eq!(bench.numbers().await, [1, 2, 4, 5, 7]);
}

#[tokio::test]
async fn a_row_that_is_too_old_for_its_topic_is_refused_and_one_of_now_says_that_the_clocks_differ() {
    let bench = Bench::new();
    make_topic(&bench.config.brokers, &bench.topic("trades"), &[("message.timestamp.before.max.ms", "1")]).await;
    let mut sink = bench.opened().await;
    // The log takes a row at once: it came when it happened.
    let mark = |ts_event| Mark { symbol: "ETH", position: Position::Sequence(1), ts_event };
    let old = bench.log.emit(mark(Timestamp(1_000_000_000_000_000_000)), &Trade::default());
    let refused = refusals(bench.write(&mut sink, 0, old).await);
    assert_eq!(refused.len(), 1);
    assert!(refused[0].error.to_string().contains("the broker does not take the message"), "{}", refused[0].error);
    let mut chunk = bench.log.chunk(0, old);
    without(&mut chunk, &[old]);
    assert_committed(sink.write(&chunk).await);
    let now = bench.log.emit(mark(Timestamp(Timestamp::now().0 - 60_000_000_000)), &Trade::default());
    let said = assert_transient(bench.write(&mut sink, old, now).await);
    assert!(said.contains("the clocks of this host and the broker differ"), "{said}");
    assert!(bench.stored("trades").await.is_empty());
}

#[tokio::test]
async fn arrow_rows_that_are_too_large_together_are_several_messages_and_one_alone_is_refused() {
    let mut bench = Bench::new();
    bench.config.format = Format::Arrow;
    make_topic(&bench.config.brokers, &bench.topic("trades"), &[("max.message.bytes", "20000")]).await;
    let (small, large) = ("x".repeat(2_000), "x".repeat(40_000));
    for _ in 0..40 {
        bench.trade(&Trade { id: Some(&small), ..Trade::default() });
    }
    let last = bench.trade(&Trade { id: Some(&large), ..Trade::default() });
    let mut sink = bench.opened().await;
    let refused = refusals(bench.write(&mut sink, 0, last).await);
    assert_eq!(refused.iter().map(|refusal| refusal.cause.offset).collect::<Vec<_>>(), [41]);
    assert_committed(bench.write(&mut sink, 0, 40).await);
    let stored = bench.stored("trades").await;
    assert!(stored.len() > 4, "{} messages", stored.len());
    let rows: usize = stored
        .iter()
        .flat_map(|message| arrow_ipc::reader::StreamReader::try_new(&message.value[..], None).unwrap())
        .map(|batch| batch.unwrap().num_rows())
        .sum();
    assert_eq!(rows, 40);
}

/// Waits until a message is too large for the broker, which says that a topic is changed before it acts so.
async fn until_refused(brokers: &str, topic: &str, message: &str) {
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", brokers).set("transactional.id", topic);
    let producer: FutureProducer = settings.create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "{topic} still takes {} bytes", message.len());
        producer.begin_transaction().unwrap();
        let sent = producer.send(FutureRecord::<[u8], _>::to(topic).payload(message).partition(0), PATIENCE).await;
        producer.abort_transaction(PATIENCE).unwrap();
        match sent {
            Ok(_) => {}
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => return,
            Err((error, _)) => panic!("{error}"),
        }
    }
}

fn refusals(written: tidegate_core::Result<Written>) -> Vec<Refusal> {
    match written {
        Ok(Written::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

/// Takes rows out of a chunk, as the driver does.
fn without(chunk: &mut tidegate_core::chunk::Chunk, offsets: &[u64]) {
    for part in &mut chunk.tables {
        let keep: Vec<bool> = part.causes.iter().map(|cause| !offsets.contains(&cause.offset)).collect();
        let indices: arrow_array::UInt32Array =
            keep.iter().enumerate().filter(|(_, keep)| **keep).map(|(n, _)| n as u32).collect();
        let columns =
            part.rows.columns().iter().map(|column| arrow_select::take::take(column, &indices, None).unwrap());
        part.rows = arrow_array::RecordBatch::try_new(part.rows.schema(), columns.collect()).unwrap();
        let mut kept = keep.iter();
        part.causes.retain(|_| *kept.next().unwrap());
        let mut kept = keep.iter();
        part.streams.retain(|_| *kept.next().unwrap());
    }
}
