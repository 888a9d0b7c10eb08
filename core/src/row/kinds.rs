//! The built-in row kinds. A user's crate writes its own in the same way.
//!
//! Absent is `None`, never 0. Prices are in the venue's quote unit, sizes as the venue counts them.

use super::{Label, Level, Timestamp};
use crate::row;

/// One trade, as the venue printed it. Table `trades`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Trade<'a> {
    /// Price of one unit, in the quote currency.
    pub price: f64,
    /// Units traded, as the venue counts them.
    pub size: f64,
    /// Side of the taker: `buy` or `sell`.
    pub side: Option<Label<'a>>,
    /// The venue's id.
    pub id: Option<&'a str>,
    /// Implied volatility at the trade, in percent (options).
    pub iv: Option<f64>,
    /// Mark price at the trade.
    pub mark_price: Option<f64>,
    /// Index price at the trade.
    pub index_price: Option<f64>,
    /// Which side was liquidated: `M`, `T` or `MT`.
    pub liquidation: Option<Label<'a>>,
    /// The block trade that this is a part of.
    pub block_trade_id: Option<&'a str>,
}

row!(Trade<'_> => "trades", [price, size, side, id, iv, mark_price, index_price, liquidation, block_trade_id]);

/// The best bid and ask. Table `quotes`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quote {
    /// Best bid; absent when nobody bids.
    pub bid_price: Option<f64>,
    /// Size at the best bid.
    pub bid_size: Option<f64>,
    /// Best ask; absent when nobody offers.
    pub ask_price: Option<f64>,
    /// Size at the best ask.
    pub ask_size: Option<f64>,
}

row!(Quote => "quotes", [bid_price, bid_size, ask_price, ask_size]);

/// The state of an instrument, with the greeks where it is an option. Table `tickers`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Ticker<'a> {
    /// `open`, `closed`, … as the venue says.
    pub state: Option<Label<'a>>,
    /// Best bid; absent when nobody bids.
    pub bid_price: Option<f64>,
    /// Size at the best bid.
    pub bid_size: Option<f64>,
    /// Best ask; absent when nobody offers.
    pub ask_price: Option<f64>,
    /// Size at the best ask.
    pub ask_size: Option<f64>,
    /// Price of the last trade.
    pub last_price: Option<f64>,
    /// Mark price.
    pub mark_price: Option<f64>,
    /// Price of the index.
    pub index_price: Option<f64>,
    /// Price at the last settlement.
    pub settlement_price: Option<f64>,
    /// Lower end of the price band.
    pub min_price: Option<f64>,
    /// Upper end of the price band.
    pub max_price: Option<f64>,
    /// Open interest, as the venue counts it.
    pub open_interest: Option<f64>,
    /// Price of the forward that the option is valued with.
    pub underlying_price: Option<f64>,
    /// Name of that forward.
    pub underlying: Option<Label<'a>>,
    /// Implied volatility of the mark price, in percent.
    pub mark_iv: Option<f64>,
    /// Implied volatility of the bid, in percent.
    pub bid_iv: Option<f64>,
    /// Implied volatility of the ask, in percent.
    pub ask_iv: Option<f64>,
    /// Interest rate, as a fraction.
    pub interest_rate: Option<f64>,
    /// Delta.
    pub delta: Option<f64>,
    /// Gamma.
    pub gamma: Option<f64>,
    /// Vega.
    pub vega: Option<f64>,
    /// Theta.
    pub theta: Option<f64>,
    /// Rho.
    pub rho: Option<f64>,
    /// Volume of the last 24 hours, in the base coin.
    pub volume_24h: Option<f64>,
    /// Highest price of the last 24 hours.
    pub high_24h: Option<f64>,
    /// Lowest price of the last 24 hours.
    pub low_24h: Option<f64>,
    /// Price change over the last 24 hours, in percent.
    pub price_change_24h: Option<f64>,
}

row!(Ticker<'_> => "tickers", [
    state, bid_price, bid_size, ask_price, ask_size, last_price, mark_price, index_price, settlement_price, min_price,
    max_price, open_interest, underlying_price, underlying, mark_iv, bid_iv, ask_iv, interest_rate, delta, gamma, vega,
    theta, rho, volume_24h, high_24h, low_24h, price_change_24h,
]);

/// Levels of a book that changed; size 0 removes the level. Table `book_changes`, linked.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BookChange<'a> {
    /// The whole book: forget what was known before.
    pub snapshot: bool,
    /// Bids, best first in a snapshot.
    pub bids: &'a [Level],
    /// Asks, best first in a snapshot.
    pub asks: &'a [Level],
}

row!(BookChange<'_> => "book_changes", [snapshot, bids, asks]);

/// The best levels of a book, whole each time. Table `book_tops`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BookTop<'a> {
    /// Bids, best first.
    pub bids: &'a [Level],
    /// Asks, best first.
    pub asks: &'a [Level],
}

row!(BookTop<'_> => "book_tops", [bids, asks]);

/// A bar that the venue made. Table `bars`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bar {
    /// Begin of the interval.
    pub start: Timestamp,
    /// Its length, in seconds.
    pub seconds: i64,
    /// First price.
    pub open: f64,
    /// Highest price.
    pub high: f64,
    /// Lowest price.
    pub low: f64,
    /// Last price.
    pub close: f64,
    /// Units traded.
    pub volume: Option<f64>,
    /// Number of trades.
    pub trades: Option<u64>,
}

row!(Bar => "bars", [start, seconds, open, high, low, close, volume, trades]);

/// Funding of a perpetual. Table `funding`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Funding {
    /// Rate, as a fraction.
    pub rate: f64,
    /// Price of the index.
    pub index_price: Option<f64>,
}

row!(Funding => "funding", [rate, index_price]);

/// A price index. Table `index_prices`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Index {
    /// Price, in the index's currency.
    pub price: f64,
}

row!(Index => "index_prices", [price]);

/// A change of an instrument's state. Table `instrument_status`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct InstrumentStatus<'a> {
    /// The state, as the venue names it.
    pub state: Label<'a>,
}

row!(InstrumentStatus<'_> => "instrument_status", [state]);
