//! Where to connect.

use std::fmt;

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, IntoDeserializer, MapAccess, Visitor, value::MapAccessDeserializer},
};
use tidegate_core::{Error, Result, config::Faults};
use url::{ParseError, Url};

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Endpoint {
    /// One of Deribit's own.
    Named(Venue),
    /// Addresses.
    Own(Hosts),
}

/// One of Deribit's own endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Venue {
    /// The exchange.
    Production,
    /// The test exchange: other prices, thin books, its own accounts.
    Test,
}

/// Addresses of an endpoint: a gateway, or a simulator.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hosts {
    /// Address of the WebSocket: `wss://www.deribit.com/ws/api/v2`.
    pub ws: String,
    /// Address of the HTTP interface, without the method: `https://www.deribit.com/api/v2`.
    pub http: String,
    /// Address of the host that keeps all trades; without it, what the main host forgets after a day is lost.
    #[serde(default)]
    pub history: Option<String>,
    /// Whether replies must say that they come from the test exchange, or must not; without it, both are taken.
    #[serde(default)]
    pub testnet: Option<bool>,
}

impl Hosts {
    /// Refuses what the other exchange says.
    ///
    /// # Errors
    ///
    /// `Permanent` when it is not this one's.
    pub(in super::super) fn check_venue(&self, testnet: Option<bool>) -> Result<()> {
        let name = |is_test| if is_test { "the test exchange" } else { "the exchange itself" };
        match (testnet, self.testnet) {
            (Some(is), Some(should_be)) if is != should_be => Err(Error::permanent(format!(
                "`endpoint` is {}, but {} answers: nothing is stored",
                name(should_be),
                name(is)
            ))),
            _ => Ok(()),
        }
    }
}

impl Endpoint {
    /// Returns the addresses.
    pub(in super::super) fn hosts(&self) -> Hosts {
        let (host, testnet, history) = match self {
            Self::Own(hosts) => return hosts.clone(),
            Self::Named(Venue::Production) => ("www", false, Some("https://history.deribit.com/api/v2".to_owned())),
            Self::Named(Venue::Test) => ("test", true, None),
        };
        Hosts {
            ws: format!("wss://{host}.deribit.com/ws/api/v2"),
            http: format!("https://{host}.deribit.com/api/v2"),
            history,
            testnet: Some(testnet),
        }
    }

    pub(super) fn check(&self, faults: &mut Faults) {
        let Self::Own(hosts) = self else { return };
        check("ws", &hosts.ws, &["ws", "wss"], faults);
        check("http", &hosts.http, &["http", "https"], faults);
        let Some(history) = &hosts.history else { return };
        check("history", history, &["http", "https"], faults);
        if Url::parse(history).is_ok_and(|history| Url::parse(&hosts.http).ok() == Some(history)) {
            let message = "`endpoint.history` is the same address as `endpoint.http`: leave it out where no other host keeps more";
            faults.at("history", message).and("http");
        }
    }
}

fn check(key: &str, address: &str, schemes: &[&str], faults: &mut Faults) {
    let parsed = Url::parse(address);
    let fits = parsed.as_ref().is_ok_and(|url| {
        let plain = url.query().is_none() && url.fragment().is_none();
        schemes.contains(&url.scheme()) && url.has_host() && plain && !address.ends_with('/')
    });
    if fits {
        return;
    }
    // The address may hold a password, so it is not repeated.
    let message = if parsed == Err(ParseError::InvalidPort) {
        format!("`endpoint.{key}` has something behind the `:` of its host that is no port")
    } else {
        let schemes = schemes.join("://` or `");
        format!("`endpoint.{key}` is no address that begins with `{schemes}://` and ends without `/` or `?…`")
    };
    faults.at(key, message);
}

const EXPECTED: &str = r#""production", "test" or { ws = "…", http = "…", history = "…" }"#;

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrTable;
        impl<'de> Visitor<'de> for NameOrTable {
            type Value = Endpoint;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Endpoint, E> {
                Venue::deserialize(name.into_deserializer()).map(Endpoint::Named)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Endpoint, A::Error> {
                Hosts::deserialize(MapAccessDeserializer::new(map)).map(Endpoint::Own)
            }
        }
        deserializer.deserialize_any(NameOrTable)
    }
}
