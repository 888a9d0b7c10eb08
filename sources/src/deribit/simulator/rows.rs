//! Rows of the REST lists: instruments and book summaries.

use super::{
    book::Level,
    instrument::{CURRENCY, INDEX, Instrument},
    market::{Listing, round},
    numbers::Object,
    payload::underlying_index,
};

/// Writes a row of `public/get_instruments`.
pub(super) fn write_instrument(out: &mut String, listing: &Listing) {
    let Instrument { name, id, option, expiration_ms, creation_ms, settlement_period } = &listing.instrument;
    let mut object = Object::begin(out)
        .text("state", if listing.open { "open" } else { "delivered" })
        .text("price_index", INDEX)
        .text("kind", listing.instrument.kind())
        .text("instrument_name", name)
        .text("instrument_type", "reversed")
        .integer("expiration_timestamp", *expiration_ms)
        .integer("creation_timestamp", *creation_ms)
        .flag("is_active", listing.open)
        .unsigned("instrument_id", *id)
        .text("base_currency", CURRENCY)
        .text("counter_currency", "USD")
        .text("settlement_currency", CURRENCY)
        .text("settlement_period", settlement_period)
        .number("maker_commission", 0.0003)
        .number("taker_commission", 0.0003)
        .integer("lot_size", 1);
    object = match option {
        Some(terms) => object
            .text("quote_currency", CURRENCY)
            .number("strike", terms.strike)
            .text("option_type", if terms.call { "call" } else { "put" })
            .number("contract_size", 1.0)
            .number("min_trade_amount", 1.0)
            .number("tick_size", 0.0001)
            .raw("tick_size_steps", r#"[{"tick_size":0.0005,"above_price":0.005}]"#),
        None => object
            .text("quote_currency", "USD")
            .text("future_type", "reversed")
            .integer("max_leverage", 50)
            .integer("contract_size", 1)
            .integer("min_trade_amount", 1)
            .number("tick_size", 0.05)
            .raw("tick_size_steps", "[]"),
    };
    object.end();
}

/// Writes a row of `public/get_book_summary_by_currency`; `index_price` is the index now.
pub(super) fn write_summary(out: &mut String, listing: &Listing, index_price: f64, now_ms: i64) {
    let best = |side: &[Level]| side.first().map(|level| listing.price(level.units));
    let (bid, ask) = (best(&listing.book.bids), best(&listing.book.asks));
    let middle = bid.zip(ask).map(|(bid, ask)| round(f64::midpoint(bid, ask), 6));
    let mut object = Object::begin(out)
        .text("instrument_name", &listing.instrument.name)
        .number("volume", listing.volume())
        .number("volume_usd", round(listing.volume() * listing.mark * index_price, 2))
        .number("open_interest", listing.open_interest)
        .optional("bid_price", bid)
        .optional("ask_price", ask)
        .optional("mid_price", middle)
        .number("mark_price", listing.mark)
        .optional("last", listing.last_trade.as_ref().map(|trade| trade.price))
        .optional("low", listing.range.map(|(low, _)| low))
        .optional("high", listing.range.map(|(_, high)| high))
        .raw("price_change", "null")
        .text("base_currency", CURRENCY)
        .text("quote_currency", if listing.is_option() { CURRENCY } else { "USD" })
        .number("estimated_delivery_price", index_price)
        .integer("creation_timestamp", now_ms);
    if listing.is_option() {
        object = object
            .number("mark_iv", listing.mark_iv)
            .number("underlying_price", listing.underlying)
            .text("underlying_index", &underlying_index(listing))
            .number("interest_rate", 0.0);
    }
    object.end();
}
