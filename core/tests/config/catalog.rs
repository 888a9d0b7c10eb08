//! Components to write configurations for: a venue, a store with a password, a store in a file.

use std::path::PathBuf;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_core::{
    Error, Result,
    catalog::{Catalog, Component, Role, Unavailable},
    chunk::{Chunk, Part, SinkTable},
    config::{Duration, Faults, Secret, TextOr},
    protocol::{Discovery, Endpoint, Frame, Outbox, Protocol, Reply},
    row::{
        Column, ColumnType, Table, Timestamp,
        kinds::{Ticker, Trade},
    },
    sink::{Guarantee, Sink, SinkContext, Written},
    source::{Source, SourceContext},
    spool::SpoolPosition,
};

pub(crate) fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    catalog.protocol::<Tide>().source::<Poll>().sink::<Depot>().sink::<Shelf>();
    for source in ["polygon", "eodhd", "bitpin", "wallex", "http_poll", "deribit"] {
        catalog.unavailable(Role::Source, source, Unavailable::Version);
    }
    for sink in ["postgres", "timescale", "questdb"] {
        catalog.unavailable(Role::Sink, sink, Unavailable::Version);
    }
    catalog.unavailable(Role::Sink, "kafka", Unavailable::Feature("kafka"));
    catalog
}

/// Trades and tickers of the sea.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tide {
    /// What to subscribe to.
    channels: Vec<Channel>,
    /// Instruments by name, or by what they are.
    instruments: Vec<TextOr<String, Selector>>,
    /// Follow so many instruments.
    top: Option<u16>,
    /// Where to connect.
    endpoint: String,
    /// The key of the account.
    api_key: Option<Secret>,
    /// How long a ranking holds.
    refresh: Duration,
}

/// Instruments by what they are.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Selector {
    /// Where the water is.
    sea: String,
    /// The highest so many.
    #[serde(default)]
    top: u16,
}

/// A kind of row.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Channel {
    /// What was traded.
    Trades,
    /// The state of the market.
    Tickers,
}

impl Default for Tide {
    fn default() -> Self {
        Self {
            channels: vec![Channel::Trades, Channel::Tickers],
            instruments: Vec::new(),
            top: None,
            endpoint: "wss://tide.example/ws".into(),
            api_key: None,
            refresh: Duration::from_secs(3600),
        }
    }
}

impl Component for Tide {
    const TYPE: &'static str = "tide";
    const EXAMPLE: &'static str = "instruments = [\"HIGH-WATER\"]";
    type Built = Box<dyn Protocol>;

    fn check(&self, faults: &mut Faults) {
        if self.instruments.is_empty() && self.top.is_none() {
            faults.at("instruments", "tide needs `instruments` or `top`").and("top");
        }
        faults.within("instruments", |faults| {
            for (number, instrument) in self.instruments.iter().enumerate() {
                match instrument {
                    TextOr::Text(name) if name.starts_with("LOW ") => {
                        faults.at(number, format!("`{name}` is no instrument: a name begins with HIGH"));
                    }
                    TextOr::Table(selector) if selector.sea.is_empty() => {
                        faults.within(number, |faults| {
                            faults.at("sea", "no sea is without a name");
                        });
                    }
                    TextOr::Text(_) | TextOr::Table(_) => {}
                }
            }
        });
    }

    fn build(&self) -> Result<Self::Built> {
        Ok(Box::new(self.clone()))
    }
}

impl Protocol for Tide {
    fn tables(&self) -> Vec<Table> {
        let table = |channel: &Channel| match channel {
            Channel::Trades => Table::of::<Trade<'_>>(),
            Channel::Tickers => Table::of::<Ticker<'_>>(),
        };
        self.channels.iter().map(table).collect()
    }

    fn discover(&mut self, _: Option<&Reply<'_>>, _: &mut Outbox) -> Result<Discovery> {
        Ok(Discovery::Channels(Vec::new()))
    }

    fn endpoint(&mut self, _: &str, _: Timestamp) -> Result<Endpoint> {
        Ok(Endpoint::new(&*self.endpoint))
    }

    fn subscribe(&mut self, _: &[&str], _: &mut Outbox) -> Result<()> {
        Ok(())
    }

    fn on_frame(&mut self, _: Frame<'_>, _: &mut Outbox) -> Result<()> {
        Ok(())
    }
}

/// A buoy that is asked now and then.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Poll {
    /// How often it is asked.
    every: Duration,
    /// The name of its table.
    table: String,
    /// Prices are whole numbers.
    whole: bool,
}

impl Default for Poll {
    fn default() -> Self {
        Self { every: Duration::from_secs(1), table: "levels".into(), whole: false }
    }
}

impl Component for Poll {
    const TYPE: &'static str = "poll";
    type Built = Box<dyn Source>;

    fn build(&self) -> Result<Self::Built> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Source for Poll {
    fn tables(&self) -> Vec<Table> {
        let column_type = if self.whole { ColumnType::I64 } else { ColumnType::F64 };
        let columns = vec![Column { name: "price".into(), column_type, nullable: false }];
        vec![Table { name: self.table.as_str().into(), columns, ..Table::of::<Trade<'_>>() }]
    }

    async fn run(self: Box<Self>, _: SourceContext) -> Result<()> {
        Ok(())
    }
}

/// Rows in a store with a password.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Depot {
    /// Where the store is, with the login.
    url: Secret,
    /// So many connections.
    #[serde(default)]
    connections: u32,
    /// Who writes.
    #[serde(default)]
    user: Option<String>,
}

impl Component for Depot {
    const TYPE: &'static str = "depot";
    const EXAMPLE: &'static str = "url = \"${DEPOT_URL:-depot://localhost/tides}\"";
    const HAS_KEYS: bool = true;
    type Built = Box<dyn Sink>;

    fn build(&self) -> Result<Self::Built> {
        if self.user.as_deref().is_some_and(|user| user.contains('@')) {
            return Err(Error::config(format!("the user {} has an @", self.user.as_deref().unwrap_or_default())));
        }
        Ok(Box::new(Nowhere))
    }
}

/// Rows in a file.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Shelf {
    /// The file.
    path: String,
    /// How a row is written.
    format: Format,
}

/// A way to write rows.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// A JSON object per line.
    Json,
    /// Comma-separated values.
    Csv,
}

impl Default for Shelf {
    fn default() -> Self {
        Self { path: "tides.json".into(), format: Format::Json }
    }
}

impl Component for Shelf {
    const TYPE: &'static str = "shelf";
    type Built = Box<dyn Sink>;

    fn build(&self) -> Result<Self::Built> {
        Ok(Box::new(Nowhere))
    }

    fn store(&self) -> Option<String> {
        Some(self.path.clone())
    }

    fn path(&self, _: &str) -> Option<PathBuf> {
        Some(PathBuf::from(&self.path))
    }

    fn check_tables(&self, tables: &[SinkTable]) -> Result<()> {
        match tables.iter().find(|table| table.name.contains('/')) {
            Some(table) => Err(Error::config(format!("a shelf has no table `{}`: there is one level", table.name))),
            None => Ok(()),
        }
    }
}

struct Nowhere;

#[async_trait]
impl Sink for Nowhere {
    async fn open(&mut self, _: &SinkContext) -> Result<Vec<(Part, SpoolPosition)>> {
        Ok(Vec::new())
    }

    async fn write(&mut self, _: &Chunk) -> Result<Written> {
        Ok(Written::Committed)
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }
}
