//! The `[source.NAME]` table of a Deribit pipeline.

mod endpoint;
mod instruments;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_core::{
    Result,
    catalog::Component,
    config::{Faults, Secret},
    protocol::Protocol,
};

pub use endpoint::{Endpoint, Hosts, Venue};
pub use instruments::{Choice, LifeLeft, Measure, Selector};

use super::{
    Deribit,
    channel::{Channel, Interval},
    instrument,
};

/// Trades, tickers, quotes, books, indices and states of Deribit's instruments. Needs no account.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeribitConfig {
    /// Where to connect: `production`, `test`, or addresses, `{ ws = "…", http = "…", history = "…" }`.
    pub endpoint: Endpoint,
    /// What to collect, by the names of the tables.
    pub channels: Vec<Channel>,
    /// Of which instruments: names, and selectors such as `{ currency = "ETH", kind = "option", top = 50 }`.
    pub instruments: Vec<Choice>,
    /// How often the venue sends: at most each `100ms`, each event (`raw`, needs credentials), or about each second (`agg2`).
    pub interval: Interval,
    /// The id of an API key. Needed for `raw` only; the key needs no rights but to read.
    pub client_id: Option<String>,
    /// The secret of that key.
    pub client_secret: Option<Secret>,
}

impl Default for DeribitConfig {
    fn default() -> Self {
        Self {
            endpoint: Endpoint::Named(Venue::Production),
            channels: vec![Channel::Tickers, Channel::Trades],
            instruments: Vec::new(),
            interval: Interval::Fast,
            client_id: None,
            client_secret: None,
        }
    }
}

impl Component for DeribitConfig {
    const TYPE: &'static str = "deribit";
    const EXAMPLE: &'static str = r#"instruments = [{ currency = "ETH", kind = "option", top = 50, leave_at = 60 }]"#;

    type Built = Box<dyn Protocol>;

    fn check(&self, faults: &mut Faults) {
        if self.channels.is_empty() {
            faults.at("channels", "`channels` is empty: nothing would be collected");
        }
        if self.instruments.is_empty() {
            faults.at("instruments", "`instruments` is empty: nothing would be collected");
        }
        faults.within("endpoint", |faults| self.endpoint.check(faults));
        faults.within("instruments", |faults| {
            for (number, choice) in self.instruments.iter().enumerate() {
                match choice {
                    Choice::Name(name) => self.check_name(number, name, faults),
                    Choice::Selector(selector) => faults.within(number, |faults| selector.check(faults)),
                }
            }
        });
        self.check_credentials(faults);
        if self.interval != Interval::default() && !self.channels.iter().any(|channel| channel.has_interval()) {
            let message = "`interval` changes nothing: quotes, index prices and states come whenever they change";
            faults.at("interval", message).and("channels").harmless();
        }
    }

    fn build(&self) -> Result<Self::Built> {
        Faults::of(self).into_result()?;
        Ok(Box::new(Deribit::new(self.clone())))
    }
}

impl DeribitConfig {
    fn check_credentials(&self, faults: &mut Faults) {
        match (&self.client_id, &self.client_secret) {
            (Some(_), None) => {
                faults.at("client_id", "`client_id` needs `client_secret` beside it").and("client_secret");
            }
            (None, Some(_)) => {
                faults.at("client_secret", "`client_secret` needs `client_id` beside it").and("client_id");
            }
            (None, None) if self.interval == Interval::Raw => {
                let message = "`interval` is `raw`, which deribit refuses without `client_id` and `client_secret`";
                faults.at("interval", message).and("client_id").and("client_secret");
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    fn check_name(&self, number: usize, name: &str, faults: &mut Faults) {
        if !instrument::is_name(name) {
            faults.at(
                number,
                format!(
                    "`{name}` cannot be an instrument: their names are like `ETH-PERPETUAL` and `ETH-26SEP26-2760-C`"
                ),
            );
        } else if self.channels.contains(&Channel::InstrumentStatus) && instrument::market(name).is_none() {
            faults.at(
                number,
                format!("`{name}` does not tell its kind, so that `instrument_status` has no channel for it"),
            );
        }
    }

    /// Returns the selectors.
    pub(super) fn selectors(&self) -> impl Iterator<Item = &Selector> {
        self.instruments.iter().filter_map(|choice| match choice {
            Choice::Selector(selector) => Some(selector),
            Choice::Name(_) => None,
        })
    }
}
