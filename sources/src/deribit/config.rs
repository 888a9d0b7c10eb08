//! The `[source.NAME]` table of a Deribit pipeline.

mod endpoint;
mod instruments;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_core::{Error, Result, catalog::Component, config::Secret, protocol::Protocol};

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

    fn build(&self) -> Result<Self::Built> {
        self.check()?;
        Ok(Box::new(Deribit::new(self.clone())))
    }
}

impl DeribitConfig {
    fn check(&self) -> Result<()> {
        if self.channels.is_empty() {
            return Err(Error::config("`channels` is empty: nothing would be collected"));
        }
        if self.instruments.is_empty() {
            return Err(Error::config("`instruments` is empty: nothing would be collected"));
        }
        self.endpoint.check()?;
        for choice in &self.instruments {
            match choice {
                Choice::Name(name) => self.check_name(name)?,
                Choice::Selector(selector) => selector.check()?,
            }
        }
        match (&self.client_id, &self.client_secret) {
            (Some(_), None) => Err(Error::config("`client_id` needs `client_secret` beside it")),
            (None, Some(_)) => Err(Error::config("`client_secret` needs `client_id` beside it")),
            (None, None) if self.interval == Interval::Raw => {
                Err(Error::config("`interval` is `raw`, which deribit refuses without `client_id` and `client_secret`"))
            }
            (Some(_), Some(_)) | (None, None) => Ok(()),
        }
    }

    fn check_name(&self, name: &str) -> Result<()> {
        if !instrument::is_name(name) {
            return Err(Error::config(format!(
                "`{name}` cannot be an instrument: their names are like `ETH-PERPETUAL` and `ETH-26SEP26-2760-C`"
            )));
        }
        if self.channels.contains(&Channel::InstrumentStatus) && instrument::market(name).is_none() {
            return Err(Error::config(format!(
                "`{name}` does not tell its kind, so that `instrument_status` has no channel for it"
            )));
        }
        Ok(())
    }

    /// Returns the selectors.
    pub(super) fn selectors(&self) -> impl Iterator<Item = &Selector> {
        self.instruments.iter().filter_map(|choice| match choice {
            Choice::Selector(selector) => Some(selector),
            Choice::Name(_) => None,
        })
    }
}
