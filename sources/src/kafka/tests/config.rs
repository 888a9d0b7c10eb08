//! What is wrong with a configuration is said with its key and what to write instead.

use tidegate_core::{Kind, config::Faults, testkit::Server};

use super::super::{KafkaConfig, client::Monitor};

#[test]
fn each_mistake_is_said_with_what_to_write_instead() {
    for (json, wanted) in [
        (r#""topics": ["trades"], "brokers": "here""#, "`here`, which is no address: write \"host:9092\""),
        (r#""topics": []"#, "`topics` names no topic"),
        (r#""topics": ["^trades.*"]"#, "`^trades.*` is a pattern"),
        (r#""topics": ["a", "a"]"#, "topic `a` is named twice"),
        (r#""group": """#, "`group` is empty"),
        (r#""tables": {}"#, "`tables` names no table"),
        (r#""tables": { "trade": {} }"#, "did you mean `trades`?"),
        (r#""tables": { "t": { "columns": ["price f46"] } }"#, "`f46` is no type of a column, did you mean `f64`?"),
        (r#""tables": { "t": { "columns": ["price"] } }"#, "write name and type, \"price f64\""),
        (r#""tables": { "t": { "columns": ["a f64", "a i64"] } }"#, "column `a` is left out here: it is named twice"),
        (
            r#""tables": { "t": { "columns": ["symbol text"] } }"#,
            "column `symbol` is left out here: every table has it",
        ),
        (r#""rdkafka": { "auto.offset.reset": "earliest" }"#, "`auto.offset.reset` is set by the source"),
        (r#""rdkafka": { "session.timeout.msx": 1 }"#, "is no setting of librdkafka"),
        (r#""rdkafka": { "session.timeout.ms": "long" }"#, "librdkafka does not take `session.timeout.ms`"),
    ] {
        let error = Faults::of(&config(json)).into_result().unwrap_err().chain();
        assert!(error.contains(wanted), "{json}: {error}");
    }
    Faults::of(&config("")).into_result().unwrap();
}

#[test]
fn a_table_has_the_columns_that_are_declared_or_those_of_the_built_in_one() {
    let config =
        config(r#""tables": { "trades": {}, "book_changes": {}, "own": { "columns": ["a f64", "b label?"] } }"#);
    let tables = config.tables().unwrap();
    let found: Vec<_> = tables.iter().map(|table| (&*table.name, table.linked, table.columns.len())).collect();
    assert_eq!(found[0].0, "book_changes");
    assert!(found[0].1, "it is linked");
    assert_eq!(found[1], ("own", false, 2));
    assert!(!tables[1].columns[0].nullable && tables[1].columns[1].nullable);
    assert_eq!(tables[2].columns_hash(), {
        use tidegate_core::row::{Table, kinds::Trade};
        Table::of::<Trade<'_>>().columns_hash()
    });
}

#[test]
fn brokers_that_cannot_be_reached_say_why() {
    // The client tells why only whoever looks.
    let config = config(r#""brokers": "127.0.0.1:1""#);
    let error = Monitor::new(&config, "load").unwrap().cluster().unwrap_err();
    assert!(error.to_string().contains("Connection refused"), "{error}");
    assert!(matches!(error.kind(), Kind::Transient { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_refused_needs_a_person_and_is_shown_to_nobody_and_the_right_one_is_let_in() {
    const PASSWORD: &str = "hunter2-source";
    let mut server = Server::start("kafka");
    std::fs::write(server.directory().join("secured"), PASSWORD).unwrap();
    tokio::task::block_in_place(|| server.restart());
    let directory = server.directory();
    let port = std::fs::read_to_string(directory.join("secured.port")).unwrap();
    let cluster = |password: &str| {
        let (port, ca) = (port.trim(), directory.join("secured.pem"));
        let config = config(&format!(
            r#""brokers": "127.0.0.1:{port}", "rdkafka": {{ "security.protocol": "sasl_ssl", "sasl.mechanism": "PLAIN",
               "sasl.username": "tidegate", "sasl.password": "{password}", "ssl.ca.location": "{}" }}"#,
            ca.display()
        ));
        tokio::task::block_in_place(|| Monitor::new(&config, "load").unwrap().cluster())
    };
    assert!(cluster(PASSWORD).is_ok());
    let error = cluster("hunter3-source").unwrap_err();
    assert!(matches!(error.kind(), Kind::Permanent), "{error}");
    assert!(error.to_string().to_lowercase().contains("authentication"), "{error}");
    assert!(!error.to_string().contains("hunter3"), "{error}");
}

/// A configuration with some keys of its own.
fn config(json: &str) -> KafkaConfig {
    let base = r#"{"brokers": "localhost:9092", "topics": ["trades"], "tables": { "trades": {} }}"#;
    let mut base: serde_json::Map<String, serde_json::Value> = serde_json::from_str(base).unwrap();
    let own: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&format!("{{{json}}}")).unwrap();
    base.extend(own);
    serde_json::from_value(base.into()).unwrap()
}
