//! The market-data methods, which REST and the WebSocket answer alike.

use super::{
    channel::{Kind, is_currency},
    credits::Pool,
    history::{self, Host},
    instrument::INDEX,
    market::{Listing, round},
    numbers::{Object, write_array},
    payload::{Moment, ticker, write_levels},
    rows::{write_instrument, write_summary},
    rpc::{Params, RpcError},
    venue::{Now, Venue},
};

/// What the venue says its version is.
const VERSION: &str = r#"{"version":"1.2.26"}"#;

/// Methods that need a session.
const SESSION_METHODS: [&str; 5] = [
    "public/subscribe",
    "public/unsubscribe",
    "public/unsubscribe_all",
    "public/set_heartbeat",
    "public/disable_heartbeat",
];

/// Methods that say how the market is now, which a replay knows only where it was asked the same.
const OF_A_MARKET: [&str; 4] =
    ["public/get_book_summary_by_currency", "public/ticker", "public/get_order_book", "public/get_index_price"];

/// Returns what a method is paid from.
pub(super) fn pool_of(method: &str) -> Pool {
    match method {
        "public/subscribe" => Pool::Subscribe,
        "public/get_instruments" => Pool::Instruments,
        _ => Pool::Default,
    }
}

/// Answers a method of `host` with JSON.
pub(super) fn answer(venue: &Venue, host: Host, method: &str, params: &Params, now: Now) -> Result<String, RpcError> {
    if let Some(recording) = &venue.recording {
        if let Some(result) = recording.reply(method, params) {
            return Ok(result.to_owned());
        }
        if OF_A_MARKET.contains(&method) {
            return Err(RpcError::of(13503, "unavailable"));
        }
    }
    match method {
        "public/get_time" => Ok(now.ms().to_string()),
        "public/hello" => Ok(VERSION.to_owned()),
        "public/test" if params.text("expected_result") == Some("exception") => Err(RpcError::of(10001, "error")),
        "public/test" => Ok(VERSION.to_owned()),
        "public/status" => Ok(r#"{"locked":"false","locked_indices":[]}"#.to_owned()),
        "public/get_instruments" => instruments(venue, params),
        "public/get_instrument" => {
            let mut out = String::new();
            write_instrument(&mut out, known(venue, params)?);
            Ok(out)
        }
        "public/get_book_summary_by_currency" => summaries(venue, params, now),
        "public/get_last_trades_by_instrument" => history::by_instrument(&venue.oracle, host, params, false),
        "public/get_last_trades_by_instrument_and_time" => history::by_instrument(&venue.oracle, host, params, true),
        "public/get_last_trades_by_currency" => history::by_currency(&venue.oracle, host, params, false),
        "public/get_last_trades_by_currency_and_time" => history::by_currency(&venue.oracle, host, params, true),
        "public/ticker" => {
            let mut out = String::new();
            ticker(&mut out, open(venue, params)?, moment(venue, now)).end();
            Ok(out)
        }
        "public/get_order_book" => order_book(venue, params, now),
        "public/get_index_price" if params.required_text("index_name")? == INDEX => {
            let mut out = String::new();
            let price = round(venue.market.spot, 2);
            Object::begin(&mut out).number("index_price", price).number("estimated_delivery_price", price).end();
            Ok(out)
        }
        "public/get_index_price" => Err(RpcError::invalid("index_name", "unknown index")),
        _ if SESSION_METHODS.contains(&method) => Err(RpcError::of(10030, "must_be_websocket_request")),
        _ if method.starts_with("private/") => Err(RpcError::of(13009, "unauthorized")),
        _ => Err(RpcError::of(-32601, "Method not found")),
    }
}

/// Returns the venue's time and index now.
pub(super) fn moment(venue: &Venue, now: Now) -> Moment {
    Moment { timestamp: now.ms(), index_price: round(venue.market.spot, 2) }
}

fn instruments(venue: &Venue, params: &Params) -> Result<String, RpcError> {
    let expired = params.is_true("expired");
    let listings = select(venue, params)?.filter(|listing| listing.open != expired);
    let mut out = String::new();
    write_array(&mut out, listings, write_instrument);
    Ok(out)
}

fn summaries(venue: &Venue, params: &Params, now: Now) -> Result<String, RpcError> {
    let index_price = round(venue.market.spot, 2);
    let listings = select(venue, params)?.filter(|listing| listing.open);
    let mut out = String::new();
    write_array(&mut out, listings, |out, listing| write_summary(out, listing, index_price, now.ms()));
    Ok(out)
}

fn order_book(venue: &Venue, params: &Params, now: Now) -> Result<String, RpcError> {
    let depth = params.integer("depth")?.unwrap_or(5);
    let Some(depth) = usize::try_from(depth).ok().filter(|depth| (1..=10_000).contains(depth)) else {
        return Err(RpcError::invalid("depth", "value must be in 1..10000"));
    };
    let listing = open(venue, params)?;
    let top = |side: &[_]| side.len().min(depth);
    let (bids, asks) = (&listing.book.bids, &listing.book.asks);
    let mut out = String::new();
    ticker(&mut out, listing, moment(venue, now))
        .unsigned("change_id", listing.book.change_id)
        .with("bids", |out| write_levels(out, listing, &bids[..top(bids)]))
        .with("asks", |out| write_levels(out, listing, &asks[..top(asks)]))
        .end();
    Ok(out)
}

fn select<'a>(venue: &'a Venue, params: &Params) -> Result<impl Iterator<Item = &'a Listing>, RpcError> {
    let currency = is_currency(params.required_text("currency")?);
    let kind =
        Kind::parse(params.text("kind").unwrap_or("any")).ok_or_else(|| RpcError::invalid("kind", "unknown kind"))?;
    Ok(venue.market.listings.iter().filter(move |listing| currency && kind.includes(listing.is_option())))
}

fn known<'a>(venue: &'a Venue, params: &Params) -> Result<&'a Listing, RpcError> {
    let name = params.required_text("instrument_name")?;
    let listing = venue.market.listings.iter().find(|listing| listing.instrument.name == name);
    listing.ok_or_else(|| RpcError::of(13020, "not_found"))
}

fn open<'a>(venue: &'a Venue, params: &Params) -> Result<&'a Listing, RpcError> {
    let listing = known(venue, params)?;
    if listing.open { Ok(listing) } else { Err(RpcError::invalid("instrument_name", "instrument is not open")) }
}
