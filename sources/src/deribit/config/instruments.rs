//! Which instruments to collect.

use std::{borrow::Cow, fmt, num::NonZeroUsize};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, IntoDeserializer, MapAccess, Unexpected, Visitor, value::MapAccessDeserializer},
};
use tidegate_core::config::{Duration, Faults};

use super::super::instrument::Kind;

/// Instruments: one by its name, or those that a selector finds.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Choice {
    /// The name of an instrument: `ETH-PERPETUAL`. One that the venue refuses is asked for again, ever later, up to hourly.
    Name(String),
    /// A selector.
    Selector(Selector),
}

/// All instruments of a currency and kind, or those at the top of a ranking, chosen again as the market moves.
///
/// Chosen at the start, each `refresh`, a minute after an expiry, some seconds after the venue has listed or ended an
/// instrument, refused a channel, or was out of reach. One line of the log says who came in and who left. A list that is
/// empty while one that was chosen lives, or that comes without any measure to rank by, is not believed: the choice stays.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Selector {
    /// Where the venue lists them: `BTC`, `ETH`, `USDC` (linear ones of every coin), `USDT`, `EURR` or `any`.
    pub currency: String,
    /// Their kind.
    #[serde(default)]
    pub kind: Kind,
    /// Only so many, the highest by `by`; all without it.
    #[serde(default)]
    pub top: Option<NonZeroUsize>,
    /// What they are ranked by, `open_interest` by default; then by the other measure, then by name.
    #[serde(default)]
    pub by: Option<Measure>,
    /// One that is in goes out at a worse rank than this, so that the choice does not flap; `top` without it.
    #[serde(default)]
    pub leave_at: Option<NonZeroUsize>,
    /// Takes none in whose life is shorter: ">10m". One that is in stays until it expires.
    #[serde(default)]
    pub expires_in: Option<LifeLeft>,
    /// How often to choose anew.
    #[serde(default = "hourly")]
    pub refresh: Duration,
}

fn hourly() -> Duration {
    Duration::from_secs(3600)
}

/// What instruments are ranked by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Open interest.
    #[default]
    OpenInterest,
    /// Volume of the last 24 hours.
    Volume,
}

impl Selector {
    /// Returns the worst rank at which an instrument that is in stays in.
    pub(in super::super) fn leave_at(&self, top: NonZeroUsize) -> usize {
        self.leave_at.unwrap_or(top).get()
    }

    pub(super) fn check(&self, faults: &mut Faults) {
        let upper = |text: &str| text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        let currency = &self.currency;
        if currency != "any" && (currency.is_empty() || currency.len() > 10 || !upper(currency)) {
            faults.at("currency", format!("`{currency}` is no currency: they are like `ETH`, `USDC` or `any`"));
        }
        if currency == "any" && self.top.is_some() {
            let message = "`any` cannot be ranked: write a selector with `top` for each currency";
            faults.at("currency", message).and("top");
        }
        if self.top.is_none() && self.by.is_some() {
            faults.at("by", "`instruments` has `by` without `top`: nothing is ranked").and("top");
        }
        match (self.top, self.leave_at) {
            (None, Some(_)) => {
                faults.at("leave_at", "`instruments` has `leave_at` without `top`: nothing is ranked").and("top");
            }
            (Some(top), Some(leave_at)) if leave_at < top => {
                let message = format!("`instruments` has `leave_at` = {leave_at}, which is better than `top` = {top}");
                faults.at("leave_at", message).and("top");
            }
            (Some(_), Some(_)) | (_, None) => {}
        }
        if self.kind == Kind::Spot && self.expires_in.is_some() {
            let message = "`instruments` has `expires_in` with `kind = \"spot\"`, and no spot pair ever expires";
            faults.at("expires_in", message).and("kind");
        }
        if self.refresh.0 < SHORTEST_REFRESH {
            let message = "`instruments` has a `refresh` below 10 s, which deribit's limits do not allow";
            faults.at("refresh", message);
        }
    }
}

/// The list of instruments may be asked for once in 10 s at the least generous reading of the limits.
const SHORTEST_REFRESH: std::time::Duration = std::time::Duration::from_secs(10);

const CHOICE: &str = r#"the name of an instrument, or { currency = "ETH", kind = "option", top = 50 }"#;

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrTable;
        impl<'de> Visitor<'de> for NameOrTable {
            type Value = Choice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(CHOICE)
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Choice, E> {
                Ok(Choice::Name(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Choice, A::Error> {
                Selector::deserialize(MapAccessDeserializer::new(map)).map(Choice::Selector)
            }
        }
        deserializer.deserialize_any(NameOrTable)
    }
}

/// How much of its life an instrument must have left: `">10m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LifeLeft(pub Duration);

impl<'de> Deserialize<'de> for LifeLeft {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = r#"what must be left of its life: ">10m""#;
        let text = String::deserialize(deserializer)?;
        let left = text.trim().strip_prefix('>').map(str::trim);
        let left = left.and_then(|left| {
            let deserializer: de::value::StrDeserializer<'_, de::value::Error> = left.into_deserializer();
            Duration::deserialize(deserializer).ok()
        });
        left.map(Self).ok_or_else(|| de::Error::invalid_value(Unexpected::Str(&text), &expected))
    }
}

impl Serialize for LifeLeft {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!(">{}", self.0))
    }
}

impl JsonSchema for LifeLeft {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "LifeLeft".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": r"^\s*>\s*(\d+\s*[a-zA-Zµ]+\s*)+$", "x-unit": "\">\" and a duration" })
    }
}
