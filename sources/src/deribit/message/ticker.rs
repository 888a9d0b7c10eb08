//! The `data` of `ticker.*` and `quote.*` channels.

use serde::{
    Deserialize,
    de::{MapAccess, value::MapAccessDeserializer},
};
use tidegate_core::{
    Error, Result,
    row::{Label, Mark, Position, Timestamp, kinds},
};

use super::super::{
    rows,
    value::{Lenient, Member, Millis, Shape, Text},
};

/// A ticker.
///
/// ```json
/// {"underlying_price":2741.5,"underlying_index":"ETH-26SEP26","timestamp":1790165113657,"stats":{"volume":16.7,"price_change":-18.1818,"low":0.009,"high":0.011},"state":"open","settlement_price":0.01,"open_interest":1767.5,"min_price":0.0001,"max_price":0.038,"mark_price":0.0084,"mark_iv":67.7,"last_price":0.009,"interest_rate":0.0,"instrument_name":"ETH-26SEP26-2760-C","index_price":2722.4,"greeks":{"vega":2.8e-4,"theta":-5.65962,"rho":4.91491,"gamma":0.00001,"delta":0.05785},"estimated_delivery_price":2722.4,"bid_iv":67.16,"best_bid_price":0.008,"best_bid_amount":2.8,"best_ask_price":0.0,"best_ask_amount":0.0,"ask_iv":0.0}
/// ```
#[derive(Debug, Deserialize)]
pub(in super::super) struct Ticker<'a> {
    timestamp: Millis,
    #[serde(borrow)]
    instrument_name: Text<'a>,
    #[serde(borrow, default)]
    state: Member<Text<'a>>,
    #[serde(default)]
    best_bid_price: Lenient<f64>,
    #[serde(default)]
    best_bid_amount: Lenient<f64>,
    #[serde(default)]
    best_ask_price: Lenient<f64>,
    #[serde(default)]
    best_ask_amount: Lenient<f64>,
    #[serde(default)]
    last_price: Lenient<f64>,
    #[serde(default)]
    mark_price: Lenient<f64>,
    #[serde(default)]
    index_price: Lenient<f64>,
    #[serde(default)]
    settlement_price: Lenient<f64>,
    #[serde(default)]
    min_price: Lenient<f64>,
    #[serde(default)]
    max_price: Lenient<f64>,
    #[serde(default)]
    open_interest: Lenient<f64>,
    #[serde(default)]
    underlying_price: Lenient<f64>,
    #[serde(borrow, default)]
    underlying_index: Member<Text<'a>>,
    #[serde(default)]
    mark_iv: Lenient<f64>,
    #[serde(default)]
    bid_iv: Lenient<f64>,
    #[serde(default)]
    ask_iv: Lenient<f64>,
    #[serde(default)]
    interest_rate: Lenient<f64>,
    #[serde(default)]
    greeks: Member<Greeks>,
    #[serde(default)]
    stats: Member<Stats>,
    #[serde(default)]
    estimated_delivery_price: Lenient<f64>,
    #[serde(default)]
    delivery_price: Lenient<f64>,
    #[serde(default)]
    current_funding: Lenient<f64>,
    #[serde(default)]
    funding_8h: Lenient<f64>,
    #[serde(default)]
    interest_value: Lenient<f64>,
    #[serde(borrow, default)]
    combo_state: Member<Text<'a>>,
    #[serde(default)]
    implied_bid: Lenient<f64>,
    #[serde(default)]
    implied_ask: Lenient<f64>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Greeks {
    delta: Lenient<f64>,
    gamma: Lenient<f64>,
    vega: Lenient<f64>,
    theta: Lenient<f64>,
    rho: Lenient<f64>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Stats {
    volume: Lenient<f64>,
    volume_usd: Lenient<f64>,
    volume_notional: Lenient<f64>,
    high: Lenient<f64>,
    low: Lenient<f64>,
    price_change: Lenient<f64>,
}

impl<'de> Shape<'de> for Greeks {
    #[inline]
    fn from_map<A: MapAccess<'de>>(map: A) -> Result<Option<Self>, A::Error> {
        Self::deserialize(MapAccessDeserializer::new(map)).map(Some)
    }
}

impl<'de> Shape<'de> for Stats {
    #[inline]
    fn from_map<A: MapAccess<'de>>(map: A) -> Result<Option<Self>, A::Error> {
        Self::deserialize(MapAccessDeserializer::new(map)).map(Some)
    }
}

impl Ticker<'_> {
    /// Returns where the ticker belongs.
    #[inline]
    pub(in super::super) fn mark(&self) -> Mark<'_> {
        mark(&self.instrument_name, self.timestamp.0)
    }

    /// Returns the row, and counts the values that are of no known kind.
    ///
    /// # Errors
    ///
    /// `Malformed` for a negative amount.
    #[inline]
    pub(in super::super) fn row(&self, odd: &mut u32) -> Result<rows::Ticker<'_>> {
        let (bid_price, bid_size) = side(self.best_bid_price.get(odd), self.best_bid_amount.get(odd))?;
        let (ask_price, ask_size) = side(self.best_ask_price.get(odd), self.best_ask_amount.get(odd))?;
        let greeks = self.greeks.get(odd).copied().unwrap_or_default();
        let stats = self.stats.get(odd).copied().unwrap_or_default();
        Ok(rows::Ticker {
            ticker: kinds::Ticker {
                state: self.state.text(odd).map(Label),
                bid_price,
                bid_size,
                ask_price,
                ask_size,
                last_price: self.last_price.get(odd),
                mark_price: self.mark_price.get(odd),
                index_price: self.index_price.get(odd),
                settlement_price: self.settlement_price.get(odd),
                min_price: self.min_price.get(odd),
                max_price: self.max_price.get(odd),
                open_interest: self.open_interest.amount(odd),
                underlying_price: self.underlying_price.get(odd),
                underlying: self.underlying_index.text(odd).map(Label),
                mark_iv: self.mark_iv.unless_zero(odd),
                bid_iv: self.bid_iv.unless_zero(odd),
                ask_iv: self.ask_iv.unless_zero(odd),
                interest_rate: self.interest_rate.get(odd),
                delta: greeks.delta.get(odd),
                gamma: greeks.gamma.get(odd),
                vega: greeks.vega.get(odd),
                theta: greeks.theta.get(odd),
                rho: greeks.rho.get(odd),
                volume_24h: stats.volume.amount(odd),
                high_24h: stats.high.get(odd),
                low_24h: stats.low.get(odd),
                price_change_24h: stats.price_change.get(odd),
            },
            estimated_delivery_price: self.estimated_delivery_price.get(odd),
            delivery_price: self.delivery_price.get(odd),
            current_funding: self.current_funding.get(odd),
            funding_8h: self.funding_8h.get(odd),
            interest_value: self.interest_value.get(odd),
            volume_usd_24h: stats.volume_usd.amount(odd),
            volume_notional_24h: stats.volume_notional.amount(odd),
            combo_state: self.combo_state.text(odd).map(Label),
            implied_bid: self.implied_bid.get(odd),
            implied_ask: self.implied_ask.get(odd),
        })
    }
}

/// The best bid and ask.
///
/// ```json
/// {"timestamp":1765541767174,"instrument_name":"ETH-PERPETUAL","best_ask_price":2722.5,"best_bid_price":2722.4,"best_ask_amount":99470.0,"best_bid_amount":133440.0}
/// ```
#[derive(Debug, Deserialize)]
pub(in super::super) struct Quote<'a> {
    timestamp: Millis,
    #[serde(borrow)]
    instrument_name: Text<'a>,
    #[serde(default)]
    best_bid_price: Lenient<f64>,
    #[serde(default)]
    best_bid_amount: Lenient<f64>,
    #[serde(default)]
    best_ask_price: Lenient<f64>,
    #[serde(default)]
    best_ask_amount: Lenient<f64>,
}

impl Quote<'_> {
    /// Returns where the quote belongs.
    #[inline]
    pub(in super::super) fn mark(&self) -> Mark<'_> {
        mark(&self.instrument_name, self.timestamp.0)
    }

    /// Returns the row, and counts the values that are of no known kind.
    ///
    /// # Errors
    ///
    /// `Malformed` for a negative amount.
    #[inline]
    pub(in super::super) fn row(&self, odd: &mut u32) -> Result<kinds::Quote> {
        let (bid_price, bid_size) = side(self.best_bid_price.get(odd), self.best_bid_amount.get(odd))?;
        let (ask_price, ask_size) = side(self.best_ask_price.get(odd), self.best_ask_amount.get(odd))?;
        Ok(kinds::Quote { bid_price, bid_size, ask_price, ask_size })
    }
}

/// The `data` of `deribit_price_index.*`.
///
/// ```json
/// {"timestamp":1790165113481,"price":2722.4,"index_name":"eth_usd"}
/// ```
#[derive(Debug, Deserialize)]
pub(in super::super) struct PriceIndex<'a> {
    timestamp: Millis,
    pub(in super::super) price: f64,
    #[serde(borrow)]
    index_name: Text<'a>,
}

impl PriceIndex<'_> {
    /// Returns where the price belongs.
    pub(in super::super) fn mark(&self) -> Mark<'_> {
        mark(&self.index_name, self.timestamp.0)
    }
}

/// The `data` of `instrument.state.*`. The names of the states changed on 13 January 2026; all are passed on.
///
/// ```json
/// {"timestamp":1790165113481,"state":"open","instrument_name":"ETH-26SEP26-2760-C"}
/// ```
#[derive(Debug, Deserialize)]
pub(in super::super) struct InstrumentState<'a> {
    timestamp: Millis,
    #[serde(borrow)]
    pub(in super::super) state: Text<'a>,
    #[serde(borrow)]
    pub(in super::super) instrument_name: Text<'a>,
}

impl InstrumentState<'_> {
    /// Returns where the state belongs.
    pub(in super::super) fn mark(&self) -> Mark<'_> {
        mark(&self.instrument_name, self.timestamp.0)
    }
}

#[inline]
fn mark(symbol: &str, ts_event: Timestamp) -> Mark<'_> {
    Mark { symbol, position: Position::Unnumbered, ts_event }
}

/// Returns one side of the market. Nobody there is `null` in the documents and 0 at amount 0 in captures; a price of 0,
/// or below, with an amount is a price (combos).
#[inline]
fn side(price: Option<f64>, amount: Option<f64>) -> Result<(Option<f64>, Option<f64>)> {
    match (price, amount) {
        (_, Some(amount)) if amount < 0.0 => Err(Error::malformed("a negative amount")),
        (None | Some(0.0), None | Some(0.0)) => Ok((None, None)),
        side => Ok(side),
    }
}
