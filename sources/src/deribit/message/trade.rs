//! The `data` of `trades.*` channels, and of pages of trades.

use std::{fmt, iter::Chain, option, slice};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, SeqAccess, Visitor},
};
use tidegate_core::row::{Label, Mark, Position, StreamKey, Timestamp, kinds};

use super::super::{
    rows,
    value::{Amount, Lenient, Member, Millis, Place, Serial, Text, Whole},
};

/// A trade; its legs, if it is a combo's, come on their own channels and are skipped here.
///
/// ```json
/// {"timestamp":1789344933994,"price":0.0105,"amount":3.0,"direction":"buy","index_price":2722.4,"instrument_name":"ETH-26SEP26-2760-C","trade_seq":41,"mark_price":0.0104,"iv":46.35,"tick_direction":0,"starbase_match_id":225046781992378368,"trade_id":"ETH-267258393","contracts":3.0,"starbase_timestamp":1789344933994718924}
/// ```
#[derive(Debug, Deserialize)]
pub(in super::super) struct Trade<'a> {
    timestamp: Millis,
    pub(in super::super) trade_seq: Serial,
    #[serde(borrow)]
    trade_id: Text<'a>,
    #[serde(borrow)]
    pub(in super::super) instrument_name: Text<'a>,
    direction: Direction,
    price: f64,
    amount: Amount,
    #[serde(default)]
    contracts: Lenient<f64>,
    #[serde(default)]
    iv: Lenient<f64>,
    #[serde(default)]
    mark_price: Lenient<f64>,
    #[serde(default)]
    index_price: Lenient<f64>,
    #[serde(default)]
    tick_direction: Lenient<i64>,
    #[serde(borrow, default)]
    liquidation: Member<Text<'a>>,
    #[serde(borrow, default)]
    block_trade_id: Member<Text<'a>>,
    #[serde(default)]
    block_trade_leg_count: Lenient<i64>,
    #[serde(default)]
    block_rfq_id: Lenient<i64>,
    #[serde(borrow, default)]
    combo_id: Member<Text<'a>>,
    #[serde(borrow, default)]
    combo_trade_id: Member<Text<'a>>,
    #[serde(default)]
    starbase_match_id: Lenient<u64>,
    /// Nanoseconds, unlike every other time.
    #[serde(default)]
    starbase_timestamp: Lenient<i64>,
}

/// The trades of a message. Most hold one, for which nothing is allocated.
#[derive(Debug, Default)]
pub(in super::super) struct Trades<'a> {
    first: Option<Trade<'a>>,
    rest: Vec<Trade<'a>>,
}

/// Reads trades to where they stay.
impl<'de> DeserializeSeed<'de> for &mut Trades<'de> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for &mut Trades<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of trades")
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        seq.next_element_seed(Place(&mut self.first))?;
        while let Some(trade) = seq.next_element()? {
            self.rest.push(trade);
        }
        Ok(())
    }
}

impl<'t, 'a> IntoIterator for &'t Trades<'a> {
    type Item = &'t Trade<'a>;
    type IntoIter = Chain<option::Iter<'t, Trade<'a>>, slice::Iter<'t, Trade<'a>>>;

    #[inline]
    fn into_iter(self) -> Self::IntoIter {
        self.first.iter().chain(&self.rest)
    }
}

/// The taker's side.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Direction {
    Buy,
    Sell,
}

impl Trade<'_> {
    /// Returns whether the trade belongs to this stream.
    pub(in super::super) fn is_of(&self, stream: &StreamKey) -> bool {
        *self.instrument_name == *stream.symbol
    }

    /// Returns the venue's time.
    #[inline]
    pub(in super::super) fn ts_event(&self) -> Timestamp {
        self.timestamp.0
    }

    /// Returns where the trade belongs.
    #[inline]
    pub(in super::super) fn mark(&self) -> Mark<'_> {
        Mark {
            symbol: &self.instrument_name,
            position: Position::Sequence(self.trade_seq.0),
            ts_event: self.ts_event(),
        }
    }

    /// Returns the row, and counts the values that are of no known kind.
    #[inline]
    pub(in super::super) fn row(&self, odd: &mut u32) -> rows::Trade<'_> {
        let side = match self.direction {
            Direction::Buy => "buy",
            Direction::Sell => "sell",
        };
        rows::Trade {
            trade: kinds::Trade {
                price: self.price,
                size: self.amount.0,
                side: Some(Label(side)),
                id: Some(&self.trade_id),
                iv: self.iv.unless_zero(odd),
                mark_price: self.mark_price.get(odd),
                index_price: self.index_price.get(odd),
                liquidation: self.liquidation.text(odd).map(Label),
                block_trade_id: self.block_trade_id.text(odd),
            },
            contracts: self.contracts.amount(odd),
            tick_direction: self.tick_direction.get(odd),
            combo_id: self.combo_id.text(odd),
            combo_trade_id: self.combo_trade_id.text(odd),
            block_trade_leg_count: self.block_trade_leg_count.get(odd),
            block_rfq_id: self.block_rfq_id.get(odd),
            match_id: self.starbase_match_id.get(odd),
            ts_match: self.starbase_timestamp.get(odd).map(Timestamp),
        }
    }
}
