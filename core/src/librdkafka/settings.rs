//! `rdkafka = { … }`: settings of the client library by their own names, but for those that a component rests on.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use crate::{
    Result,
    config::{Faults, Secret, nearest},
};
use rdkafka::{ClientConfig, error::KafkaError, types::RDKafkaConfRes};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, Visitor},
    ser::SerializeMap,
};

/// Settings of librdkafka, by the names in its `CONFIGURATION.md`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<String, Setting>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Setting {
    Plain(String),
    Hidden(Secret),
}

impl Settings {
    /// Returns a setting that is no secret.
    pub fn plain(&self, name: &str) -> Option<&str> {
        match self.0.get(name)? {
            Setting::Plain(value) => Some(value),
            Setting::Hidden(_) => None,
        }
    }

    /// Sets all of them.
    ///
    /// # Errors
    ///
    /// `Config` when the file of a secret cannot be read.
    pub fn apply(&self, config: &mut ClientConfig) -> Result<()> {
        for (name, setting) in &self.0 {
            match setting {
                Setting::Plain(value) => config.set(name, value),
                Setting::Hidden(secret) => config.set(name, secret.reveal()?),
            };
        }
        Ok(())
    }

    /// Returns a text without the secrets: what a broker says of a refused login may hold one.
    pub fn hide_in(&self, text: &str) -> String {
        let secrets = self.0.values().filter_map(|setting| match setting {
            Setting::Hidden(secret) => Some(secret),
            Setting::Plain(_) => None,
        });
        secrets.fold(text.to_owned(), |text, secret| secret.hide_in(&text))
    }

    /// Adds each mistake with its name. `owned` are the settings that `by` rests on, each with the reason: nobody else sets them.
    pub fn check(&self, by: &str, owned: &[(&str, &str)], faults: &mut Faults) {
        for (name, setting) in &self.0 {
            let is_owned = owned.iter().find(|(owned, _)| owned == name);
            let why = is_owned.map(|(_, why)| format!("`{name}` is set by the {by}: {why}"));
            if let Some(why) = why.or_else(|| wrong(name, setting)) {
                faults.at(name, why);
            }
        }
    }
}

fn wrong(name: &str, setting: &Setting) -> Option<String> {
    let mut config = ClientConfig::new();
    let value = match setting {
        Setting::Plain(value) => value,
        // Whether the value fits is said when it is used, without it.
        Setting::Hidden(_) => "",
    };
    match config.set(name, value).create_native_config() {
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => Some(unknown(name)),
        Err(_) if matches!(setting, Setting::Hidden(_)) => None,
        Err(KafkaError::ClientConfig(_, why, ..)) => Some(format!("librdkafka does not take `{name}`: {why}")),
        Err(error) => Some(format!("librdkafka does not take `{name}`: {error}")),
        Ok(_) => None,
    }
}

fn unknown(name: &str) -> String {
    let meant = nearest(name, KNOWN).map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
    format!("`{name}` is no setting of librdkafka{meant} (all are in its CONFIGURATION.md)")
}

/// Tells whether a setting's value must not be seen: one of [`SECRETS`], or what a newer librdkafka may call like them.
fn is_secret(name: &str) -> bool {
    let marks = ["password", "passphrase", "secret", "private.key", "ssl.key.pem", "oauthbearer.config"];
    marks.iter().any(|mark| name.contains(mark))
}

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Settings;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of librdkafka's settings: { \"security.protocol\" = \"ssl\" }")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Settings, A::Error> {
                let mut settings = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    let setting = if is_secret(&name) {
                        Setting::Hidden(map.next_value()?)
                    } else {
                        Setting::Plain(map.next_value::<Scalar>()?.0)
                    };
                    settings.insert(name, setting);
                }
                Ok(Settings(settings))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// A text, a whole number or a truth value, as librdkafka reads it.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;
        impl Visitor<'_> for One {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a whole number, true or false")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar(value.to_owned()))
            }
        }
        deserializer.deserialize_any(One)
    }
}

impl Serialize for Settings {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, setting) in &self.0 {
            match setting {
                Setting::Plain(value) => map.serialize_entry(name, value)?,
                Setting::Hidden(secret) => map.serialize_entry(name, secret)?,
            }
        }
        map.end()
    }
}

impl JsonSchema for Settings {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "rdkafka".into()
    }

    /// Says which of them are secrets: what stands in the file itself is warned of, and shown nowhere.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut secret = |about: &str| {
            let mut schema = generator.subschema_for::<Secret>();
            schema.insert("description".to_owned(), about.into());
            schema.to_value()
        };
        let secrets: serde_json::Map<_, _> =
            SECRETS.map(|(name, about)| (name.to_owned(), secret(about))).into_iter().collect();
        json_schema!({ "type": "object", "x-unit": "table of librdkafka's settings", "properties": secrets })
    }
}

/// The settings that hold secrets, in librdkafka 2.12's `CONFIGURATION.md`.
const SECRETS: [(&str, &str); 9] = [
    ("sasl.oauthbearer.assertion.private.key.passphrase", "The passphrase of the key that signs assertions."),
    ("sasl.oauthbearer.assertion.private.key.pem", "The key that signs assertions, as PEM."),
    ("sasl.oauthbearer.client.credentials.client.secret", "Another name of `sasl.oauthbearer.client.secret`."),
    ("sasl.oauthbearer.client.secret", "The client's secret for the endpoint of tokens."),
    ("sasl.oauthbearer.config", "What tokens are made of."),
    ("sasl.password", "The password for PLAIN and SCRAM."),
    ("ssl.key.password", "The passphrase of the client's private key."),
    ("ssl.key.pem", "The client's private key, as PEM."),
    ("ssl.keystore.password", "The password of the client's keystore."),
];

/// What people set most, for a name with a slip in it.
const KNOWN: [&str; 26] = [
    "batch.num.messages",
    "batch.size",
    "broker.address.family",
    "client.id",
    "client.rack",
    "connections.max.idle.ms",
    "debug",
    "delivery.timeout.ms",
    "max.in.flight.requests.per.connection",
    "message.max.bytes",
    "message.timeout.ms",
    "partitioner",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "request.timeout.ms",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "socket.keepalive.enable",
    "socket.timeout.ms",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
];
