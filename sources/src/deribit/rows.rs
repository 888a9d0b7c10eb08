//! Deribit's rows: the built-in kinds, and behind their columns those that only Deribit has.

use tidegate_core::row::{Cells, Label, Row, Timestamp, kinds};

/// A trade.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Trade<'a> {
    pub(super) trade: kinds::Trade<'a>,
    /// Size in contracts.
    pub(super) contracts: Option<f64>,
    /// 0 plus, 1 zero-plus, 2 minus, 3 zero-minus.
    pub(super) tick_direction: Option<i64>,
    /// The combo of which this trade is a leg: its own trade is stored under its own symbol.
    pub(super) combo_id: Option<&'a str>,
    /// The trade of that combo.
    pub(super) combo_trade_id: Option<&'a str>,
    /// How many legs the block trade has.
    pub(super) block_trade_leg_count: Option<i64>,
    /// The request for quotes from which the block trade came.
    pub(super) block_rfq_id: Option<i64>,
    /// The matching engine's id, beyond 2^53.
    pub(super) match_id: Option<u64>,
    /// The matching engine's time, finer than the trade's.
    pub(super) ts_match: Option<Timestamp>,
}

impl Row for Trade<'_> {
    const TABLE: &'static str = kinds::Trade::TABLE;

    #[inline]
    fn cells(&self, cells: &mut impl Cells) {
        self.trade.cells(cells);
        cells.cell("contracts", &self.contracts);
        cells.cell("tick_direction", &self.tick_direction);
        cells.cell("combo_id", &self.combo_id);
        cells.cell("combo_trade_id", &self.combo_trade_id);
        cells.cell("block_trade_leg_count", &self.block_trade_leg_count);
        cells.cell("block_rfq_id", &self.block_rfq_id);
        cells.cell("match_id", &self.match_id);
        cells.cell("ts_match", &self.ts_match);
    }
}

/// The state of an instrument.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Ticker<'a> {
    pub(super) ticker: kinds::Ticker<'a>,
    /// The price at which it would be delivered now.
    pub(super) estimated_delivery_price: Option<f64>,
    /// The price at which it was delivered.
    pub(super) delivery_price: Option<f64>,
    /// Funding of the perpetual now, as a fraction.
    pub(super) current_funding: Option<f64>,
    /// Funding of the perpetual over the last 8 hours, as a fraction.
    pub(super) funding_8h: Option<f64>,
    /// The value from which the perpetual's funding is made.
    pub(super) interest_value: Option<f64>,
    /// Volume of the last 24 hours, in dollars.
    pub(super) volume_usd_24h: Option<f64>,
    /// Volume of the last 24 hours, in the quote currency.
    pub(super) volume_notional_24h: Option<f64>,
    /// State of the combo.
    pub(super) combo_state: Option<Label<'a>>,
    /// Bid of the combo that its legs imply.
    pub(super) implied_bid: Option<f64>,
    /// Ask of the combo that its legs imply.
    pub(super) implied_ask: Option<f64>,
}

impl Row for Ticker<'_> {
    const TABLE: &'static str = kinds::Ticker::TABLE;

    #[inline]
    fn cells(&self, cells: &mut impl Cells) {
        self.ticker.cells(cells);
        cells.cell("estimated_delivery_price", &self.estimated_delivery_price);
        cells.cell("delivery_price", &self.delivery_price);
        cells.cell("current_funding", &self.current_funding);
        cells.cell("funding_8h", &self.funding_8h);
        cells.cell("interest_value", &self.interest_value);
        cells.cell("volume_usd_24h", &self.volume_usd_24h);
        cells.cell("volume_notional_24h", &self.volume_notional_24h);
        cells.cell("combo_state", &self.combo_state);
        cells.cell("implied_bid", &self.implied_bid);
        cells.cell("implied_ask", &self.implied_ask);
    }
}
