//! Frames of Deribit, as many as a bench wants, and the types that a program without an engine would read them into.

use std::{collections::HashMap, fmt::Write, path::PathBuf};

use serde::Deserialize;

/// What the frames carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One ticker a frame.
    Tickers,
    /// Trades, numbered without holes.
    Trades,
}

/// Frames in the order in which they come.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) frames: Vec<String>,
    /// How many rows they become.
    pub(crate) rows: usize,
}

/// Our own ticker: the one that the tests of the source read.
const FIXTURES: &str = include_str!("../../sources/src/deribit/fixtures/option.jsonl");

/// The instrument of our own frames, which becomes many by its strike.
const OWN: &str = "ETH-26SEP26-2760-C";

/// How many instruments our own frames are about: twice as many as the shipped pipeline follows.
const INSTRUMENTS: usize = 100;

/// A trade as most are; one of a block trade or a combo has more members.
const TRADE: &str = r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"trades.ETH-26SEP26-2760-C.100ms","data":[{"timestamp":1789344933994,"price":0.0105,"amount":3.0,"direction":"buy","index_price":2722.4,"instrument_name":"ETH-26SEP26-2760-C","trade_seq":41,"mark_price":0.0104,"iv":46.35,"tick_direction":0,"starbase_match_id":225046781992378368,"trade_id":"ETH-267258393","contracts":3.0,"starbase_timestamp":1789344933994718924}]}}"#;

impl Feed {
    /// Returns `count` frames of our own, over many instruments.
    pub(crate) fn own(kind: Kind, count: usize) -> Self {
        let frame = match kind {
            Kind::Tickers => FIXTURES.lines().find(|line| line.contains(r#""channel":"ticker."#)).unwrap_or_default(),
            Kind::Trades => TRADE,
        };
        let strikes = (0..INSTRUMENTS).map(|n| frame.replace(OWN, &format!("ETH-26SEP26-{}-C", 1_000 + 10 * n)));
        Self::cycle(kind, "our own", &strikes.collect::<Vec<_>>(), count)
    }

    /// Returns `count` recorded frames, over and over; `None` where there are none: they are not ours to pass on, so they
    /// lie outside the repository.
    pub(crate) fn recorded(kind: Kind, count: usize) -> Option<Self> {
        let folder = std::env::var_os("TIDEGATE_SAMPLES").map_or_else(|| "/work/shared/samples".into(), PathBuf::from);
        let (file, channel) = match kind {
            Kind::Tickers => ("ws_options_2021-04-05_raw.jsonl", r#""channel":"ticker."#),
            Kind::Trades => ("ws_mixed.jsonl", r#""channel":"trades."#),
        };
        let text = std::fs::read_to_string(folder.join("deribit").join(file)).ok()?;
        // The legs of a combo have numbers that nobody reads.
        let is_plain = |line: &&str| line.contains(channel) && !line.contains(r#""legs":"#);
        // In a channel of a whole market the trades of instruments that nobody follows are left out.
        let is_of_one = |line: &&str| {
            let subject = line.split_once(channel).and_then(|(_, rest)| rest.split('.').next()).unwrap_or_default();
            line.contains(&format!(r#""instrument_name":"{subject}""#))
        };
        let lines = text.lines().filter(is_plain).filter(is_of_one).filter(|line| kind.rows_of(line).is_some());
        let lines: Vec<String> = lines.map(str::to_owned).collect();
        (!lines.is_empty()).then(|| Self::cycle(kind, "recorded", &lines, count))
    }

    fn cycle(kind: Kind, origin: &str, lines: &[String], count: usize) -> Self {
        let mut numbers = HashMap::new();
        let frames = lines.iter().cycle().take(count).map(|line| match kind {
            Kind::Tickers => line.clone(),
            Kind::Trades => renumbered(line, &mut numbers),
        });
        let frames: Vec<String> = frames.collect();
        let rows = frames.iter().filter_map(|frame| kind.rows_of(frame)).sum();
        let name =
            format!("{}, {origin}, {} B a frame", kind.name(), frames.iter().map(String::len).sum::<usize>() / count);
        Self { name, kind, frames, rows }
    }
}

impl Kind {
    /// Every kind.
    pub(crate) const ALL: [Self; 2] = [Self::Tickers, Self::Trades];

    /// Returns its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tickers => "tickers",
            Self::Trades => "trades",
        }
    }

    /// Returns the table that its rows are in.
    pub(crate) fn table(self) -> &'static str {
        self.name()
    }

    /// Reads a frame as a program without an engine would; returns how many rows it holds, `None` if it cannot be read.
    #[inline]
    pub(crate) fn rows_of(self, frame: &str) -> Option<usize> {
        match self {
            Self::Tickers => {
                let read: Notification<'_, Ticker<'_>> = serde_json::from_str(frame).ok()?;
                std::hint::black_box(&read);
                Some(1)
            }
            Self::Trades => {
                let read: Notification<'_, Vec<Trade<'_>>> = serde_json::from_str(frame).ok()?;
                Some(std::hint::black_box(&read).params.data.len())
            }
        }
    }
}

/// Gives the trades of a frame the next numbers of their instruments.
fn renumbered(frame: &str, numbers: &mut HashMap<String, u64>) -> String {
    const KEY: &str = r#""trade_seq":"#;
    let read: Notification<'_, Vec<Trade<'_>>> = serde_json::from_str(frame).expect("it was read before");
    let mut trades = read.params.data.iter();
    let mut text = String::with_capacity(frame.len() + 8);
    let mut rest = frame;
    while let Some(at) = rest.find(KEY) {
        let end = at + KEY.len();
        let digits = rest[end..].find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
        let Some(trade) = trades.next() else { break };
        let number = numbers.entry(trade.instrument_name.to_owned()).or_default();
        *number += 1;
        write!(text, "{}{number}", &rest[..end]).expect("a text takes everything");
        rest = &rest[end + digits..];
    }
    text + rest
}

#[derive(Debug, Deserialize)]
struct Notification<'a, T> {
    #[serde(borrow)]
    params: Params<'a, T>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "read to be measured")]
struct Params<'a, T> {
    #[serde(borrow)]
    channel: &'a str,
    data: T,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "read to be measured")]
struct Ticker<'a> {
    timestamp: i64,
    instrument_name: &'a str,
    state: Option<&'a str>,
    best_bid_price: Option<f64>,
    best_bid_amount: Option<f64>,
    best_ask_price: Option<f64>,
    best_ask_amount: Option<f64>,
    last_price: Option<f64>,
    mark_price: Option<f64>,
    index_price: Option<f64>,
    settlement_price: Option<f64>,
    min_price: Option<f64>,
    max_price: Option<f64>,
    open_interest: Option<f64>,
    underlying_price: Option<f64>,
    underlying_index: Option<&'a str>,
    mark_iv: Option<f64>,
    bid_iv: Option<f64>,
    ask_iv: Option<f64>,
    interest_rate: Option<f64>,
    greeks: Option<Greeks>,
    stats: Option<Stats>,
    estimated_delivery_price: Option<f64>,
    delivery_price: Option<f64>,
    current_funding: Option<f64>,
    funding_8h: Option<f64>,
    interest_value: Option<f64>,
    combo_state: Option<&'a str>,
    implied_bid: Option<f64>,
    implied_ask: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "read to be measured")]
struct Greeks {
    delta: Option<f64>,
    gamma: Option<f64>,
    vega: Option<f64>,
    theta: Option<f64>,
    rho: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "read to be measured")]
struct Stats {
    volume: Option<f64>,
    volume_usd: Option<f64>,
    volume_notional: Option<f64>,
    high: Option<f64>,
    low: Option<f64>,
    price_change: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "read to be measured")]
struct Trade<'a> {
    timestamp: i64,
    trade_seq: u64,
    trade_id: &'a str,
    instrument_name: &'a str,
    direction: &'a str,
    price: f64,
    amount: f64,
    contracts: Option<f64>,
    iv: Option<f64>,
    mark_price: Option<f64>,
    index_price: Option<f64>,
    tick_direction: Option<i64>,
    liquidation: Option<&'a str>,
    block_trade_id: Option<&'a str>,
    block_trade_leg_count: Option<i64>,
    block_rfq_id: Option<i64>,
    combo_id: Option<&'a str>,
    combo_trade_id: Option<&'a str>,
    starbase_match_id: Option<u64>,
    starbase_timestamp: Option<i64>,
}
