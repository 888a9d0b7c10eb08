//! `rdkafka = { … }`: what is passed through, what is refused, and what nobody sees.

use serde_json::json;
use tidegate_core::{catalog::Component, testkit::Server};

use super::{super::KafkaConfig, Bench, assert_committed, assert_permanent, assert_transient, config, up_to};

const PASSWORD: &str = "hunter2-kafka";

#[test]
fn an_unknown_setting_is_answered_with_the_one_that_was_meant() {
    let said = refused(json!({ "socket.keepalive.enabel": true }));
    assert!(said.contains("`socket.keepalive.enabel` is no setting of librdkafka"), "{said}");
    assert!(said.contains("did you mean `socket.keepalive.enable`?"), "{said}");
    let said = refused(json!({ "sasl.pasword.file.secret": PASSWORD }));
    assert!(said.contains("is no setting") && !said.contains(PASSWORD), "{said}");
}

#[test]
fn a_value_that_the_client_does_not_take_is_said_at_once() {
    let said = refused(json!({ "socket.timeout.ms": "soon" }));
    assert!(said.contains("librdkafka does not take `socket.timeout.ms`"), "{said}");
}

#[test]
fn settings_that_exactly_once_rests_on_are_refused_with_the_reason() {
    for (name, reason) in [
        ("enable.idempotence", "one transaction of an idempotent producer"),
        ("acks", "one transaction of an idempotent producer"),
        ("transactional.id", "so that the next start finds it"),
        ("isolation.level", "reads the position"),
        ("bootstrap.servers", "write `brokers`"),
        ("linger.ms", "write `linger`"),
        ("allow.auto.create.topics", "is not made again silently"),
    ] {
        let said = refused(json!({ name: "1" }));
        assert!(said.contains(&format!("`{name}` is set by the sink")) && said.contains(reason), "{said}");
    }
}

#[test]
fn texts_numbers_and_truth_values_are_passed_on_and_secrets_are_shown_to_nobody() {
    let settings = json!({
        "socket.keepalive.enable": false,
        "socket.timeout.ms": 20_000,
        "security.protocol": "sasl_ssl",
        "sasl.password": PASSWORD,
        "ssl.key.password": { "file": "/run/secrets/key" },
    });
    let config = with(settings);
    let shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
    assert!(!shown.contains(PASSWORD), "{shown}");
    assert!(
        shown.contains("\"socket.timeout.ms\":\"20000\"") && shown.contains("\"sasl.password\":\"•••\""),
        "{shown}"
    );
    drop(config.build().unwrap());
}

#[test]
fn a_broker_without_a_port_and_a_topic_that_cannot_be_are_refused() {
    for wrong in ["", "localhost", "localhost:", ":9092", "a:9092,", "a:99999"] {
        let error = config(wrong, "").build().err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("is no address"), "{wrong}: {error}");
    }
    assert!(config("a:9092, SASL_SSL://b:9093", "").build().is_ok());
    let bench =
        Bench::with("localhost:9092", vec![tidegate_core::row::Table::of::<tidegate_core::row::kinds::Trade<'_>>()]);
    for (name, why) in [
        ("معاملات", "has letters (a-z), digits"),
        ("my trades", "has letters (a-z), digits"),
        ("..", "has letters (a-z), digits"),
        ("tidegate.x.y.position", "hold positions"),
    ] {
        let mut table = bench.context().tables[0].clone();
        table.name = name.to_owned();
        let said = bench.config.check_tables(&[table]).unwrap_err().to_string();
        assert!(said.contains(why), "{name}: {said}");
    }
    let mut tables = vec![bench.context().tables[0].clone(), bench.context().tables[0].clone()];
    (tables[0].name, tables[1].name) = ("a.b".to_owned(), "a_b".to_owned());
    assert!(bench.config.check_tables(&tables).unwrap_err().to_string().contains("are one for Kafka"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_its_own_ca_and_a_login_work_and_a_wrong_password_is_final_and_shown_to_nobody() {
    let mut server = Server::start("kafka");
    std::fs::write(server.directory().join("secured"), PASSWORD).unwrap();
    tokio::task::block_in_place(|| server.restart());
    let directory = server.directory();
    let port = std::fs::read_to_string(directory.join("secured.port")).unwrap();
    let address = format!("127.0.0.1:{}", port.trim());
    let ca = directory.join("secured.pem");
    let login = |password: &str, ca: Option<&std::path::Path>| {
        let mut settings = json!({
            "security.protocol": "sasl_ssl",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "tidegate",
            "sasl.password": password,
        });
        if let Some(ca) = ca {
            settings["ssl.ca.location"] = ca.to_str().unwrap().into();
        }
        config(&address, &json!({ "create": {}, "rdkafka": settings }).to_string())
    };
    let mut bench = Bench::at(server.url());
    let plain = bench.config.clone();
    bench.config = login(PASSWORD, Some(&ca));
    let last = bench.trades(3);
    let mut sink = bench.opened().await;
    assert_committed(bench.write(&mut sink, 0, last).await);

    bench.config = login("hunter3-kafka", Some(&ca));
    let said = assert_permanent(bench.sink().open(&bench.context()).await);
    assert!(said.to_lowercase().contains("authentication"), "{said}");
    assert!(!said.contains("hunter3"), "{said}");
    bench.config = login(PASSWORD, None);
    let said = assert_transient(bench.sink().open(&bench.context()).await);
    assert!(said.contains("certificate") && !said.contains(PASSWORD), "{said}");
    bench.config = plain;
    assert_eq!(bench.numbers().await, up_to(3));
}

fn with(settings: serde_json::Value) -> KafkaConfig {
    config("localhost:9092", &json!({ "rdkafka": settings }).to_string())
}

fn refused(settings: serde_json::Value) -> String {
    with(settings).build().err().map(|error| error.to_string()).unwrap_or_default()
}
