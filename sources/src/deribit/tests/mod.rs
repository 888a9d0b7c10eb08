//! The protocol, told by a script what happens: payloads of every shape, sessions, choices, gaps, and broken input.

mod backfill;
mod broken;
mod config;
mod data;
mod samples;
mod selection;
mod session;
#[cfg(feature = "simulator")]
mod simulated;

use tidegate_core::{row::Timestamp, testkit::Script};

use super::{
    channel::Channel,
    config::{Choice, DeribitConfig, Endpoint, Hosts},
    protocol::Deribit,
};

/// 23 September 2026, 12:05:13.7 UTC.
const NOW: Timestamp = Timestamp(1_790_165_113_700_000_000);

const MAIN: &str = "http://main.test/api/v2";
const HISTORY: &str = "http://history.test/api/v2";

/// Returns a configuration with all channels, addresses of its own and one instrument.
fn everything() -> DeribitConfig {
    use Channel::{BookChanges, BookTops, IndexPrices, InstrumentStatus, Quotes, Tickers, Trades};
    DeribitConfig {
        endpoint: Endpoint::Own(Hosts {
            ws: "ws://main.test/ws/api/v2".into(),
            http: MAIN.into(),
            history: Some(HISTORY.into()),
            testnet: None,
        }),
        channels: vec![Trades, Tickers, Quotes, BookChanges, BookTops, IndexPrices, InstrumentStatus],
        instruments: vec![Choice::Name("ETH-PERPETUAL".into())],
        ..DeribitConfig::default()
    }
}

/// Returns a script whose session is open, but not greeted yet.
fn script(config: DeribitConfig) -> Script<Deribit> {
    let mut script = Script::new(Deribit::new(config), NOW);
    script.open().unwrap();
    script
}

/// Returns a script that has asked for the channels of these frames; nothing of that is kept.
fn listening(config: DeribitConfig, frames: &str) -> Script<Deribit> {
    let mut script = script(config);
    let names = frames.split(r#""channel":""#).skip(1).filter_map(|rest| rest.split_once('"'));
    let mut names: Vec<&str> = names.map(|(name, _)| name).chain(USUAL).collect();
    names.sort_unstable();
    names.dedup();
    script.subscribe(&names).unwrap();
    script.sent.clear();
    script.commands.clear();
    script
}

/// Channels of the usual instrument.
const USUAL: [&str; 6] = [
    "trades.ETH-PERPETUAL.100ms",
    "ticker.ETH-PERPETUAL.100ms",
    "quote.ETH-PERPETUAL",
    "book.ETH-PERPETUAL.100ms",
    "deribit_price_index.eth_usd",
    "instrument.state.option.ETH",
];

/// Returns the frame of a notification.
fn notification(channel: &str, data: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"{channel}","data":{data}}}}}"#)
}
