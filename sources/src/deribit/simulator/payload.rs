//! The `data` of each channel, as text in the venue's own form.
//!
//! An absent side comes as `0.0` for one half of the instruments and as `null` for the other, since captures show the first and the
//! documents the second. Member order and notation follow captures of 2026.

use super::{
    book::{Action, Book, BookChange, Change, Level},
    instrument::INDEX,
    market::{Listing, round},
    numbers::{Object, write_array, write_number},
    oracle::Trade,
    random::mix,
};

/// The first number of `starbase_match_id`, beyond what a double can hold exactly.
const MATCH_ID: u64 = 225_046_781_992_378_368;

/// A ticker's moment: the venue's time, and the index then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) timestamp: i64,
    pub(super) index_price: f64,
}

/// Wraps `data` into the frame of a channel.
pub(super) fn notification(channel: &str, data: impl FnOnce(&mut String)) -> String {
    let mut out = String::with_capacity(1024);
    Object::begin(&mut out)
        .text("jsonrpc", "2.0")
        .text("method", "subscription")
        .with("params", |out| Object::begin(out).text("channel", channel).with("data", data).end())
        .end();
    out
}

/// Begins the ticker of `listing`, which `public/get_order_book` goes on with.
pub(super) fn ticker<'a>(out: &'a mut String, listing: &Listing, at: Moment) -> Object<'a> {
    let object = Object::begin(out)
        .integer("timestamp", at.timestamp)
        .text("state", if listing.open { "open" } else { "delivered" })
        .with("stats", |out| write_stats(out, listing))
        .text("instrument_name", &listing.instrument.name)
        .number("index_price", at.index_price)
        .raw("last_price", &last_price(listing))
        .number("settlement_price", round(listing.mark, 2))
        .number("min_price", round(listing.mark * 0.8, 4))
        .number("max_price", round(listing.mark * 1.2 + 0.0005, 4))
        .number("mark_price", listing.mark)
        .raw("best_bid_price", &best_price(listing, listing.book.bids.first()))
        .number("best_bid_amount", best_amount(&listing.book.bids))
        .raw("best_ask_price", &best_price(listing, listing.book.asks.first()))
        .number("best_ask_amount", best_amount(&listing.book.asks))
        .number("estimated_delivery_price", at.index_price);
    if listing.is_option() { write_option(object, listing) } else { write_perpetual(object, listing) }
}

fn write_option<'a>(object: Object<'a>, listing: &Listing) -> Object<'a> {
    let greeks = listing.priced;
    let iv_of = |side: &[Level], factor: f64| if side.is_empty() { 0.0 } else { round(listing.mark_iv * factor, 2) };
    object
        .number("open_interest", listing.open_interest)
        .number("underlying_price", listing.underlying)
        .text("underlying_index", &underlying_index(listing))
        .number("mark_iv", listing.mark_iv)
        .number("bid_iv", iv_of(&listing.book.bids, 0.98))
        .number("ask_iv", iv_of(&listing.book.asks, 1.02))
        .number("interest_rate", 0.0)
        .with("greeks", |out| {
            Object::begin(out)
                .number("delta", round(greeks.delta, 5))
                .number("gamma", round(greeks.gamma, 5))
                .number("vega", round(greeks.vega, 5))
                .number("theta", round(greeks.theta, 5))
                .number("rho", round(greeks.rho, 5))
                .end();
        })
}

fn write_perpetual<'a>(object: Object<'a>, listing: &Listing) -> Object<'a> {
    object
        .integer("open_interest", listing.open_interest as i64)
        .number("current_funding", round((listing.mark / listing.underlying - 1.0) / 16.0, 8))
        .number("funding_8h", -3.11e-6)
        .number("interest_value", round(listing.mark.fract() / 512.0, 16))
}

fn write_stats(out: &mut String, listing: &Listing) {
    let change = listing.range.map(|(low, _)| round((listing.mark / low - 1.0) * 100.0, 4));
    Object::begin(out)
        .number("volume", listing.volume())
        .optional("price_change", change)
        .optional("low", listing.range.map(|(low, _)| low))
        .optional("high", listing.range.map(|(_, high)| high))
        .end();
}

fn last_price(listing: &Listing) -> String {
    let mut out = String::new();
    match &listing.last_trade {
        Some(trade) => write_number(&mut out, trade.price),
        None if listing.instrument.id.is_multiple_of(2) => out.push_str("\"undefined\""),
        None => out.push_str("null"),
    }
    out
}

fn best_price(listing: &Listing, level: Option<&Level>) -> String {
    let mut out = String::new();
    match level {
        Some(level) => write_number(&mut out, listing.price(level.units)),
        None if listing.instrument.id.is_multiple_of(2) => out.push_str("0.0"),
        None => out.push_str("null"),
    }
    out
}

fn best_amount(side: &[Level]) -> f64 {
    side.first().map_or(0.0, |level| level.amount)
}

/// `SYN.` marks a forward that no listed future stands for.
pub(super) fn underlying_index(listing: &Listing) -> String {
    let name = &listing.instrument.name;
    let future = name.rsplitn(3, '-').last().unwrap_or(name);
    if listing.instrument.settlement_period == "month" { future.to_owned() } else { format!("SYN.{future}") }
}

/// Writes a quote: the best level and nothing else.
pub(super) fn write_quote(out: &mut String, listing: &Listing) {
    Object::begin(out)
        .integer("timestamp", listing.quoted_ms)
        .text("instrument_name", &listing.instrument.name)
        .raw("best_ask_price", &best_price(listing, listing.book.asks.first()))
        .raw("best_bid_price", &best_price(listing, listing.book.bids.first()))
        .number("best_ask_amount", best_amount(&listing.book.asks))
        .number("best_bid_amount", best_amount(&listing.book.bids))
        .end();
}

/// Writes a trade. `live` says whether it has the members that the history host leaves out; a recorded one has what it had.
pub(super) fn write_trade(out: &mut String, instrument: &str, trade: &Trade, live: bool) {
    if let Some(raw) = &trade.raw {
        return out.push_str(raw);
    }
    let mut object = Object::begin(out).integer("timestamp", trade.timestamp);
    if let Some(iv) = trade.iv {
        object = object.number("iv", iv);
    }
    object = object
        .number("price", trade.price)
        .number("amount", trade.amount)
        .text("direction", trade.direction.name())
        .number("index_price", trade.index_price)
        .text("instrument_name", instrument)
        .unsigned("trade_seq", trade.seq)
        .number("mark_price", trade.mark_price)
        .unsigned("tick_direction", u64::from(trade.tick_direction))
        .number("contracts", trade.amount)
        .text("trade_id", &trade.trade_id());
    if live {
        let nanoseconds = trade.timestamp * 1_000_000 + (mix(trade.id) % 1_000_000) as i64;
        object = object.unsigned("starbase_match_id", MATCH_ID + trade.id).integer("starbase_timestamp", nanoseconds);
    }
    object.end();
}

/// Writes the whole book as a channel's first message.
pub(super) fn write_snapshot(out: &mut String, listing: &Listing, timestamp: i64) {
    let all = |side: &[Level]| side.iter().map(|level| (Action::New, *level)).collect::<Vec<_>>();
    let Book { bids, asks, change_id } = &listing.book;
    Object::begin(out)
        .integer("timestamp", timestamp)
        .text("type", "snapshot")
        .unsigned("change_id", *change_id)
        .text("instrument_name", &listing.instrument.name)
        .with("bids", |out| write_changes(out, listing, &all(bids)))
        .with("asks", |out| write_changes(out, listing, &all(asks)))
        .end();
}

/// Writes a change of the book, linked to the message before it.
pub(super) fn write_book_change(out: &mut String, listing: &Listing, change: &BookChange, timestamp: i64) {
    Object::begin(out)
        .integer("timestamp", timestamp)
        .text("type", "change")
        .unsigned("change_id", change.id)
        .text("instrument_name", &listing.instrument.name)
        .with("bids", |out| write_changes(out, listing, &change.bids))
        .with("asks", |out| write_changes(out, listing, &change.asks))
        .unsigned("prev_change_id", change.previous)
        .end();
}

/// Writes the best levels of the book, which are all that it has.
pub(super) fn write_book_top(out: &mut String, listing: &Listing, timestamp: i64) {
    let Book { bids, asks, change_id } = &listing.book;
    Object::begin(out)
        .integer("timestamp", timestamp)
        .unsigned("change_id", *change_id)
        .text("instrument_name", &listing.instrument.name)
        .with("bids", |out| write_levels(out, listing, bids))
        .with("asks", |out| write_levels(out, listing, asks))
        .end();
}

fn write_changes(out: &mut String, listing: &Listing, changes: &[Change]) {
    write_array(out, changes, |out, (action, level)| {
        out.push_str("[\"");
        out.push_str(action.name());
        out.push_str("\",");
        write_number(out, listing.price(level.units));
        out.push(',');
        write_number(out, level.amount);
        out.push(']');
    });
}

/// Writes one side of a book as `[price, amount]`, best first.
pub(super) fn write_levels(out: &mut String, listing: &Listing, levels: &[Level]) {
    write_array(out, levels, |out, level| {
        write_array(out, [listing.price(level.units), level.amount], write_number);
    });
}

/// Writes the index.
pub(super) fn write_index(out: &mut String, at: Moment) {
    Object::begin(out)
        .integer("timestamp", at.timestamp)
        .number("price", at.index_price)
        .text("index_name", INDEX)
        .end();
}

/// Writes what became of an instrument.
pub(super) fn write_state(out: &mut String, instrument: &str, state: &str, timestamp: i64) {
    Object::begin(out).integer("timestamp", timestamp).text("state", state).text("instrument_name", instrument).end();
}
