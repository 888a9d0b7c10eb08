//! Topics that are missing, made, gone.

use super::{
    Bench, assert_committed, assert_permanent, assert_transient, config, delete_topic, has_topic, make_topic, up_to,
};

#[tokio::test]
async fn a_missing_topic_is_named_with_the_command_that_makes_it() {
    let mut bench = Bench::new();
    bench.config = config(&bench.config.brokers, "");
    let said = assert_permanent(bench.sink().open(&bench.context()).await);
    let command = format!(
        "kafka-topics.sh --bootstrap-server {} --create --topic {}",
        bench.config.brokers,
        bench.topic("trades")
    );
    assert!(said.contains("`create` is not set") && said.contains(&command), "{said}");
    assert!(!has_topic(&bench.config.brokers, &bench.topic("trades")), "the broker did not make it by itself");
    let reached = assert_permanent(bench.sink().reach(&bench.context().tables).await);
    assert_eq!(reached, said);

    for table in ["trades", "quotes"] {
        make_topic(&bench.config.brokers, &bench.topic(table), &[]).await;
    }
    let found = bench.sink().reach(&bench.context().tables).await.unwrap();
    assert!(found.ends_with("answers, 1 broker; the topics are there"), "{found}");
    let last = bench.trades(3);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, last).await);
    assert_eq!(bench.numbers().await, up_to(3));
}

#[tokio::test]
async fn topics_are_made_as_asked() {
    let mut bench = Bench::new();
    bench.config = config(&bench.config.brokers, r#"{ "create": { "replication": 3 } }"#);
    let few = bench.sink().reach(&bench.context().tables).await.unwrap_err().to_string();
    assert!(few.contains("`create.replication` wants 3 brokers") && few.contains("has 1 broker: `"), "{few}");
    let asked = r#"{ "create": { "partitions": 5, "replication": 1, "retention": "2h" } }"#;
    bench.config = config(&bench.config.brokers, asked);
    let found = bench.sink().reach(&bench.context().tables).await.unwrap();
    assert!(found.contains("will be made"), "{found}");
    assert!(!has_topic(&bench.config.brokers, &bench.topic("trades")), "reaching makes nothing");
    bench.opened().await;
    let settings = |topic: String| {
        let brokers = bench.config.brokers.clone();
        async move {
            let asked = [rdkafka::admin::ResourceSpecifier::Topic(&topic)];
            let found = super::admin(&brokers).describe_configs(&asked, &rdkafka::admin::AdminOptions::new()).await;
            found.unwrap().remove(0).unwrap()
        }
    };
    let trades = settings(bench.topic("trades")).await;
    assert_eq!(trades.get("retention.ms").unwrap().value.as_deref(), Some("7200000"));
    let position = settings(bench.position_topic()).await;
    assert_eq!(position.get("cleanup.policy").unwrap().value.as_deref(), Some("compact"));
    assert_eq!(partitions(&bench, "trades"), 5);
}

#[tokio::test]
async fn a_topic_that_had_rows_and_is_gone_is_not_made_again_silently() {
    let bench = Bench::new();
    bench.trades(20);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, 10).await);
    delete_topic(&bench.config.brokers, &bench.topic("trades")).await;
    assert_transient(sink.check().await);
    let said = assert_permanent(sink.open(&bench.known(10)).await);
    assert!(said.contains("is gone, and rows may have been stored in it"), "{said}");
    assert!(!has_topic(&bench.config.brokers, &bench.topic("trades")));

    // A person decides to go on without them.
    let claim = bench.sink().claim(&bench.context().owner).await.unwrap().unwrap();
    assert_eq!(claim.gone, [bench.topic("trades")]);
    bench.sink().adopt(&bench.context().owner, claim.position).await.unwrap();
    let mut sink = bench.sink();
    sink.open(&bench.known(10)).await.unwrap();
    assert_committed(bench.write(&mut sink, 10, 20).await);
    assert_eq!(bench.numbers().await, (11..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn nobody_at_the_address_is_transient_and_named() {
    let mut bench = Bench::new();
    bench.config = config("127.0.0.1:1", "");
    let said = assert_transient(bench.sink().open(&bench.context()).await);
    assert!(said.contains("Kafka at `127.0.0.1:1` cannot be reached"), "{said}");
    assert_transient(bench.sink().reach(&bench.context().tables).await);
}

fn partitions(bench: &Bench, table: &str) -> usize {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let consumer: BaseConsumer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &bench.config.brokers).create().unwrap();
    let metadata = consumer.fetch_metadata(Some(&bench.topic(table)), super::PATIENCE).unwrap();
    metadata.topics()[0].partitions().len()
}
