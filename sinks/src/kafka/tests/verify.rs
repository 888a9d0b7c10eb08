//! What `tidegate verify` asks.

use tidegate_core::{
    row::Timestamp,
    verify::{Audit, Stream},
};

use super::{super::Format, Bench, assert_committed};

#[tokio::test]
async fn rows_are_counted_per_stream_in_both_formats() {
    for format in [Format::Json, Format::Arrow] {
        let mut bench = Bench::new();
        bench.config.format = format;
        for symbol in ["ETH", "BTC", "ETH"] {
            bench.trade_of(symbol, &tidegate_core::row::kinds::Trade::default());
        }
        let tables = bench.context().tables;
        let mut nothing = audit(&bench).await;
        assert_eq!(nothing.position().await.unwrap(), None);
        assert!(nothing.sums(&tables[0], Timestamp(0)).await.unwrap().is_none(), "there is no such topic");

        let mut sink = bench.opened().await;
        assert_committed(bench.write(&mut sink, 0, 3).await);
        let mut audit = audit(&bench).await;
        let (spool, position) = audit.position().await.unwrap().unwrap();
        assert_eq!((spool, position.offset), (bench.context().owner.spool, 3));
        // Committed after the audit began: not of its moment.
        bench.trades(2);
        assert_committed(bench.write(&mut sink, 3, 5).await);

        let mut sums = audit.sums(&tables[0], Timestamp(0)).await.unwrap().unwrap();
        sums.sort_by(|a, b| a.stream.cmp(&b.stream));
        let counted: Vec<_> = sums.iter().map(|sum| (sum.stream.symbol.as_str(), sum.rows, sum.redriven)).collect();
        assert_eq!(counted, [("BTC", 1, 0), ("ETH", 2, 0)]);
        let eth = Stream { venue: "deribit".to_owned(), symbol: "ETH".to_owned() };
        let rows = audit.rows(&tables[0], &eth, Timestamp(0)).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [Some(1), Some(3)]);
        assert_eq!(sums[1].marks, rows.iter().map(tidegate_core::verify::RowId::mark).sum::<i64>());
        assert!(audit.doubled(&tables[0], Timestamp(i64::MAX)).await.unwrap().is_empty());
        let late = Timestamp(rows[1].ts_recv.0 + 1_000_000_000_000);
        assert!(audit.sums(&tables[0], late).await.unwrap().unwrap().is_empty());
        assert!(audit.neighbours(&tables).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_row_that_is_there_twice_is_found() {
    let bench = Bench::new();
    bench.trades(2);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 2).await);
    // Another producer copies a message, headers and all.
    let stored = bench.stored("trades").await.remove(0);
    let (brokers, topic) = (bench.config.brokers.clone(), bench.topic("trades"));
    tokio::task::spawn_blocking(move || {
        use rdkafka::{
            message::{Header, OwnedHeaders},
            producer::{BaseProducer, BaseRecord, Producer},
        };
        let producer: BaseProducer = rdkafka::ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
        let mut headers = OwnedHeaders::new();
        for (key, value) in &stored.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        producer
            .send(BaseRecord::to(&topic).key(&stored.key).payload(&stored.value).headers(headers).partition(1))
            .unwrap();
        producer.flush(super::PATIENCE).unwrap();
    })
    .await
    .unwrap();
    let mut audit = audit(&bench).await;
    let doubled = audit.doubled(&bench.context().tables[0], Timestamp(i64::MAX)).await.unwrap();
    let [one] = &doubled[..] else { panic!("{doubled:?}") };
    assert_eq!((one.row.seq, one.rows, one.moments), (Some(1), 2, 1));
}

#[tokio::test]
async fn rows_behind_a_transaction_that_is_not_decided_are_waited_for() {
    let bench = Bench::new();
    bench.trades(2);
    let mut sink = bench.opened().await;
    // A reader of committed messages sees nothing behind this one, nor what has been committed but not yet marked so.
    let others = others(&bench, "trades").await;
    assert_committed(bench.write(&mut sink, 0, 2).await);
    let mut audit = audit(&bench).await;
    let tables = bench.context().tables;
    let mut asked = std::pin::pin!(audit.sums(&tables[0], Timestamp(0)));
    let early = tokio::time::timeout(std::time::Duration::from_millis(500), &mut asked).await;
    assert!(early.is_err(), "counted too few: {early:?}");
    use rdkafka::producer::Producer as _;
    tokio::task::spawn_blocking(move || others.abort_transaction(super::PATIENCE).unwrap()).await.unwrap();
    let sums = asked.await.unwrap().unwrap();
    assert_eq!(sums.iter().map(|sum| sum.rows).sum::<u64>(), 2);
}

/// Another program's producer, with a transaction under way in each partition of a topic.
async fn others(bench: &Bench, topic: &str) -> rdkafka::producer::BaseProducer {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    let (brokers, topic) = (bench.config.brokers.clone(), bench.topic(topic));
    tokio::task::spawn_blocking(move || {
        let mut settings = rdkafka::ClientConfig::new();
        settings.set("bootstrap.servers", brokers).set("transactional.id", &topic);
        let producer: BaseProducer = settings.create().unwrap();
        producer.init_transactions(super::PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        let metadata = producer.client().fetch_metadata(Some(&topic), super::PATIENCE).unwrap();
        for partition in metadata.topics()[0].partitions() {
            producer.send(BaseRecord::<[u8], _>::to(&topic).payload("others").partition(partition.id())).unwrap();
        }
        producer.flush(super::PATIENCE).unwrap();
        producer
    })
    .await
    .unwrap()
}

async fn audit(bench: &Bench) -> Box<dyn Audit> {
    bench.sink().audit(&bench.context()).await.unwrap().unwrap()
}
