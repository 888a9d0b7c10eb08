//! Topics: which are there, which are made, how large a message of theirs may be.

use std::collections::BTreeMap;

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    types::RDKafkaErrorCode,
};
use tidegate_core::{Error, Result, chunk::SinkTable, librdkafka::Ear, sink::Owner};
use tokio::runtime::Handle;

use super::{
    KafkaConfig,
    client::{PATIENCE, Reader, base},
    config::CreateTopics,
    error::{sorted, sorted_code},
    position::{self, Held},
    waited::Waited,
};

/// Looks for the topics of all tables, and makes those that are missing if it may.
///
/// # Errors
///
/// `Permanent` for a topic that had rows and is gone, or is missing and not to be made: with the command that makes it.
pub(super) fn prepare(
    config: &KafkaConfig,
    owner: &Owner,
    tables: &[SinkTable],
    held: Option<&Held>,
    reader: &Reader,
    waited: &Waited,
) -> Result<()> {
    let mut missing = Vec::new();
    for table in tables {
        if reader.partitions(&table.name)?.is_none() {
            missing.push(table.name.as_str());
        }
    }
    let had_rows = |name: &&&str| held.is_some_and(|held| held.is_written() && held.topics.contains(**name));
    if let Some(gone) = missing.iter().find(had_rows) {
        return Err(vanished(config, gone));
    }
    match (&config.create, missing.is_empty()) {
        (_, true) => Ok(()),
        (Some(_), false) => make(config, owner, &missing, reader, waited),
        (None, false) => Err(lacking(config, &missing)),
    }
}

/// Returns the topics of these tables that are not there.
pub(super) fn missing<'t>(reader: &Reader, tables: &'t [SinkTable]) -> Result<Vec<&'t str>> {
    let mut missing = Vec::new();
    for table in tables {
        if reader.partitions(&table.name)?.is_none() {
            missing.push(table.name.as_str());
        }
    }
    Ok(missing)
}

/// Says that topics have to be made by a person, with the commands.
pub(super) fn lacking(config: &KafkaConfig, missing: &[&str]) -> Error {
    let commands: Vec<_> = missing.iter().map(|topic| command(config, topic)).collect();
    let (topics, are) = if missing.len() == 1 { ("topic", "is") } else { ("topics", "are") };
    Error::permanent(format!(
        "{topics} `{}` {are} not there, and `create` is not set: set it, or run: {}",
        missing.join("`, `"),
        commands.join("; ")
    ))
}

fn vanished(config: &KafkaConfig, topic: &str) -> Error {
    Error::permanent(format!(
        "topic `{topic}` is gone, and rows may have been stored in it, which are not sent again: bring it back, or, to go \
         on without them, make it anew: {}",
        command(config, topic)
    ))
}

fn command(config: &KafkaConfig, topic: &str) -> String {
    let mut command = format!("kafka-topics.sh --bootstrap-server {} --create --topic {topic}", config.brokers);
    let create = config.create.clone().unwrap_or_default();
    for (option, value) in [("--partitions", create.partitions), ("--replication-factor", create.replication)] {
        if let Some(value) = value {
            command += &format!(" {option} {value}");
        }
    }
    command
}

/// Makes the topic of a sink's position.
pub(super) fn make_position(config: &KafkaConfig, owner: &Owner, reader: &Reader, waited: &Waited) -> Result<()> {
    let name = position::topic(owner);
    let create = config.create.clone().unwrap_or_default();
    let topic = NewTopic::new(&name, 1, replication(&create))
        .set("cleanup.policy", "compact")
        // Only closed segments are compacted: small ones, so that the topic stays small.
        .set("segment.bytes", "16777216")
        .set("min.cleanable.dirty.ratio", "0.1");
    submit(config, owner, &[topic])?;
    until_there(reader, &[&name], waited)
}

fn make(config: &KafkaConfig, owner: &Owner, names: &[&str], reader: &Reader, waited: &Waited) -> Result<()> {
    let create = config.create.clone().unwrap_or_default();
    let retention = create.retention.map(|retention| retention.0.as_millis().to_string());
    let partitions = create.partitions.map_or(BROKERS_CHOICE, |partitions| partitions.get().cast_signed());
    let topics: Vec<_> = names
        .iter()
        .map(|name| {
            let topic = NewTopic::new(name, partitions, replication(&create));
            match &retention {
                Some(retention) => topic.set("retention.ms", retention),
                None => topic,
            }
        })
        .collect();
    submit(config, owner, &topics)?;
    until_there(reader, names, waited)
}

fn replication(create: &CreateTopics) -> TopicReplication<'static> {
    TopicReplication::Fixed(create.replication.map_or(BROKERS_CHOICE, |copies| copies.get().cast_signed()))
}

fn submit(config: &KafkaConfig, owner: &Owner, topics: &[NewTopic<'_>]) -> Result<()> {
    let admin = admin(config, owner)?;
    let options = AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE));
    let made = Handle::current().block_on(admin.create_topics(topics, &options));
    for made in made.map_err(|error| sorted("topics cannot be made", &error))? {
        match made {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => {
                let what = format!("topic `{name}` cannot be made");
                return Err(sorted_code(&what, code, &code.to_string()));
            }
        }
    }
    Ok(())
}

/// Waits until the brokers tell of topics that were made.
fn until_there(reader: &Reader, names: &[&str], waited: &Waited) -> Result<()> {
    for name in names {
        // A partition without a leader has no end yet.
        while reader.partitions(name)?.is_none_or(|p| p.is_empty()) || reader.extent(name, 0).is_err() {
            waited.pause(PAUSE)?;
        }
    }
    Ok(())
}

/// Returns how many bytes a message of each topic may have. Without the right to ask, nothing is known of it.
pub(super) fn limits(config: &KafkaConfig, owner: &Owner, names: &[&str]) -> Result<BTreeMap<String, usize>> {
    let admin = admin(config, owner)?;
    let topics: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let described = Handle::current().block_on(admin.describe_configs(topics.iter(), &options));
    let mut limits = BTreeMap::new();
    let Ok(described) = described else { return Ok(limits) };
    for (name, described) in names.iter().zip(described) {
        let limit = described.ok().and_then(|topic| topic.get("max.message.bytes")?.value.as_ref()?.parse().ok());
        if let Some(limit) = limit {
            limits.insert((*name).to_owned(), limit);
        }
    }
    Ok(limits)
}

fn admin(config: &KafkaConfig, owner: &Owner) -> Result<AdminClient<Ear>> {
    let settings = base(config, owner)?;
    settings.create_with_context(Ear::default()).map_err(|error| sorted("the Kafka client cannot be made", &error))
}

const BROKERS_CHOICE: i32 = -1;
/// Between two looks at topics that are being made.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);
