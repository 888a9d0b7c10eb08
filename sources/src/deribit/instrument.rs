//! What the name of an instrument says.
//!
//! ```text
//! future     BASE[_QUOTE]-DMMMYY            ETH-25DEC26        option  BASE[_QUOTE]-DMMMYY-STRIKE-C|P   ETH-26SEP26-2760-C
//! perpetual  BASE[_QUOTE]-PERPETUAL         ETH-PERPETUAL      spot    BASE_QUOTE                       ETH_USDC
//! combo      BASE[_QUOTE]-CODE-…            ETH-FS-28OCT26_9SEP26, ETH-CS-19MAY26-2700_2750
//! ```

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_core::row::{Timestamp, time};

/// A kind of instrument.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Options.
    #[default]
    Option,
    /// Futures and perpetuals.
    Future,
    /// Spot pairs.
    Spot,
    /// Combinations of futures.
    FutureCombo,
    /// Combinations of options.
    OptionCombo,
}

impl Kind {
    /// Returns the venue's word.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Option => "option",
            Self::Future => "future",
            Self::Spot => "spot",
            Self::FutureCombo => "future_combo",
            Self::OptionCombo => "option_combo",
        }
    }
}

/// The instruments that one request of the venue can name together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Market<'n> {
    /// Where the venue lists it: `ETH`, but `USDC` for everything that is settled in it.
    pub(super) currency: &'n str,
    pub(super) kind: Kind,
}

/// Returns the market of an instrument, as far as its name tells.
pub(super) fn market(name: &str) -> Option<Market<'_>> {
    let mut parts = name.split('-');
    let pair = parts.next()?;
    let currency = pair.split_once('_').map_or(pair, |(_, quote)| quote);
    let rest: Vec<_> = parts.collect();
    let kind = match rest[..] {
        [] if pair.contains('_') => Kind::Spot,
        [expiry] if expiry == "PERPETUAL" || is_date(expiry) => Kind::Future,
        [expiry, strike, "C" | "P"] if is_date(expiry) && strike.starts_with(|c: char| c.is_ascii_digit()) => {
            Kind::Option
        }
        ["FS", _] => Kind::FutureCombo,
        // The codes of option combos are many and new ones come.
        [code, expiries, _] if code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()) => {
            expiries.split('_').next().filter(|expiry| is_date(expiry))?;
            Kind::OptionCombo
        }
        _ => return None,
    };
    Some(Market { currency, kind })
}

/// Returns the name of the index of an instrument.
pub(super) fn index(name: &str) -> String {
    let pair = name.split('-').next().unwrap_or_default().to_ascii_lowercase();
    if pair.contains('_') { pair } else { format!("{pair}_usd") }
}

/// Tells whether a text can be the name of an instrument: such a one needs no escaping in a request.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 100 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// Returns when an option or a future expires, as its name tells: at 08:00 UTC of its day.
pub(super) fn expiry(name: &str) -> Option<Timestamp> {
    let (year, month, day) = date(name.split('-').nth(1)?)?;
    time(&format!("20{year:02}-{month:02}-{day:02}T08:00:00Z"))
}

fn is_date(text: &str) -> bool {
    date(text).is_some()
}

/// `2APR26`, `26SEP26`: year of the century, month, day.
fn date(text: &str) -> Option<(usize, usize, usize)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (month, year) = text.get(digits..)?.split_at_checked(3)?;
    let months = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
    let month = months.iter().position(|name| *name == month)? + 1;
    let is_year = year.len() == 2 && year.bytes().all(|b| b.is_ascii_digit());
    let is_date = matches!(digits, 1 | 2) && is_year;
    is_date.then_some((year.parse().ok()?, month, text.get(..digits)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_kind_currency_and_index() {
        let names = [
            ("ETH-26SEP26-2760-C", Some((Kind::Option, "ETH")), "eth_usd"),
            ("MATIC_USDC-9MAR24-1d02-C", Some((Kind::Option, "USDC")), "matic_usdc"),
            ("ETH-25DEC26", Some((Kind::Future, "ETH")), "eth_usd"),
            ("BTC-2APR20", Some((Kind::Future, "BTC")), "btc_usd"),
            ("ETH_USDC-PERPETUAL", Some((Kind::Future, "USDC")), "eth_usdc"),
            ("ETH_USDC", Some((Kind::Spot, "USDC")), "eth_usdc"),
            ("BTC-FS-28OCT22_9SEP22", Some((Kind::FutureCombo, "BTC")), "btc_usd"),
            ("BTC-FS-30SEP22_PERP", Some((Kind::FutureCombo, "BTC")), "btc_usd"),
            ("BTC-CS-19MAY26-70000_75000", Some((Kind::OptionCombo, "BTC")), "btc_usd"),
            ("BTC-CSR12-19MAY26-70000_75000", Some((Kind::OptionCombo, "BTC")), "btc_usd"),
            ("BTC-CCAL-19MAY26_26MAY26-70000", Some((Kind::OptionCombo, "BTC")), "btc_usd"),
            ("BTC", None, "btc_usd"),
            ("BTC-NONSENSE", None, "btc_usd"),
            ("", None, "_usd"),
        ];
        for (name, expected, index_name) in names {
            assert_eq!(market(name).map(|market| (market.kind, market.currency)), expected, "{name}");
            assert_eq!(index(name), index_name, "{name}");
        }
    }

    #[test]
    fn a_name_tells_when_it_expires() {
        for (name, expected) in [
            ("ETH-26SEP26-2760-C", time("2026-09-26T08:00:00Z")),
            ("BTC-2APR20", time("2020-04-02T08:00:00Z")),
            ("ETH_USDC-PERPETUAL", None),
            ("ETH_USDC", None),
            ("ETH-99SEP26-2760-C", None),
        ] {
            assert_eq!(expiry(name), expected, "{name}");
        }
    }

    #[test]
    fn a_name_that_needs_escaping_is_none() {
        assert!(is_name("MATIC_USDC-9MAR24-1d02-C"));
        for text in ["", "ETH PERPETUAL", "ETH\"", "ETH&count=1", "Ξ-PERPETUAL", &"A".repeat(101)] {
            assert!(!is_name(text), "{text}");
        }
    }
}
