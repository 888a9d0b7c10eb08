//! Deribit's messages, borrowed from the frame. Named as Deribit names them.
//!
//! Unknown members are skipped: fields are added without notice, and the order of members changes.

mod book;
mod notification;
mod ticker;
mod trade;

use serde::Deserialize;
use serde_json::value::RawValue;
use tidegate_core::{Error, Result};

pub(super) use book::{Book, BookTop};
pub(super) use notification::{Notification, Payload};
pub(super) use ticker::{InstrumentState, PriceIndex, Quote, Ticker};
pub(super) use trade::{Trade, Trades};

use super::value::{Lenient, Text};

/// What every frame is: a notification when it has a `method`, a reply otherwise.
///
/// ```json
/// {"jsonrpc":"2.0","method":"heartbeat","params":{"type":"test_request"}}
/// {"jsonrpc":"2.0","id":5,"result":["quote.ETH-PERPETUAL"],"usIn":1789344931553548,"usOut":1789344931553627,"testnet":true}
/// ```
#[derive(Debug, Deserialize)]
pub(super) struct Message<'a> {
    #[serde(default)]
    pub(super) id: Lenient<u64>,
    #[serde(borrow)]
    pub(super) method: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) params: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) result: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) error: Option<Refusal<'a>>,
    /// When the venue sent the reply, in microseconds.
    #[serde(default, rename = "usOut")]
    pub(super) us_out: Lenient<i64>,
    pub(super) testnet: Option<bool>,
}

/// Why the venue did not do what it was asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal<'a> {
    pub(super) code: i64,
    #[serde(borrow, default)]
    pub(super) message: Text<'a>,
    #[serde(borrow)]
    pub(super) data: Option<&'a RawValue>,
}

/// The `data` of an error, as far as they are ever looked at.
#[derive(Debug, Default, Deserialize)]
pub(super) struct RefusalData<'a> {
    #[serde(borrow)]
    pub(super) reason: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) param: Option<Text<'a>>,
    /// Seconds.
    #[serde(default)]
    pub(super) wait: Lenient<u64>,
}

/// The `params` of a notification.
#[derive(Debug, Deserialize)]
pub(super) struct Data<'a, T> {
    #[serde(borrow)]
    pub(super) channel: Text<'a>,
    pub(super) data: T,
}

/// The `params` of a heartbeat.
#[derive(Debug, Deserialize)]
pub(super) struct Heartbeat<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
}

/// The result of `public/auth`.
#[derive(Debug, Deserialize)]
pub(super) struct Login {
    /// Seconds.
    #[serde(default)]
    pub(super) expires_in: Lenient<u64>,
}

/// An element of the result of `public/get_instruments`.
///
/// ```json
/// {"instrument_name":"ETH-26SEP26-2760-C","kind":"option","state":"open","is_active":true,"expiration_timestamp":1790409600000}
/// ```
#[derive(Debug, Deserialize)]
pub(super) struct Instrument<'a> {
    #[serde(borrow)]
    pub(super) instrument_name: Text<'a>,
    #[serde(borrow)]
    pub(super) state: Option<Text<'a>>,
    pub(super) is_active: Option<bool>,
    #[serde(default)]
    pub(super) expiration_timestamp: Lenient<i64>,
}

/// An element of the result of `public/get_book_summary_by_currency`.
///
/// ```json
/// {"instrument_name":"ETH-26SEP26-2760-C","open_interest":480.6,"volume":null}
/// ```
#[derive(Debug, Deserialize)]
pub(super) struct Summary<'a> {
    #[serde(borrow)]
    pub(super) instrument_name: Text<'a>,
    #[serde(default)]
    pub(super) open_interest: Lenient<f64>,
    #[serde(default)]
    pub(super) volume: Lenient<f64>,
}

/// The result of `public/get_last_trades_by_…`.
///
/// ```json
/// {"trades":[],"has_more":false}
/// ```
#[derive(Debug, Deserialize)]
pub(super) struct Page<'a> {
    #[serde(borrow)]
    pub(super) trades: Vec<&'a RawValue>,
    pub(super) has_more: bool,
}

/// Reads a JSON text.
pub(super) fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::malformed(error.to_string()))
}
