//! What the venue lists: names, strikes, expiries, and the plan of a day's listing.

use serde::{Deserialize, Serialize};

use super::{
    calendar::{DAY_MS, expiries, expiry_of, format_day, parse_day},
    random::Random,
};

/// The one currency that is simulated.
pub(super) const CURRENCY: &str = "ETH";

/// The index of that currency.
pub(super) const INDEX: &str = "eth_usd";

/// What a perpetual gives as its expiry: the year 3000.
const NEVER_MS: i64 = 32_503_708_800_000;

/// An instrument as the venue lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instrument {
    /// The venue's name, such as `ETH-26SEP26-2760-C`.
    pub name: String,
    /// The venue's number for it.
    pub id: u64,
    /// Strike and side of an option; a perpetual has none.
    pub option: Option<OptionTerms>,
    /// When it expires, in milliseconds since 1970.
    pub expiration_ms: i64,
    /// When it was created, in milliseconds since 1970.
    pub creation_ms: i64,
    /// `day`, `week`, `month` or `perpetual`.
    pub settlement_period: String,
}

/// What makes an instrument an option.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OptionTerms {
    /// The strike in dollars.
    pub strike: f64,
    /// Whether it is a call.
    pub call: bool,
}

impl Instrument {
    /// Returns the venue's word for its kind.
    pub fn kind(&self) -> &'static str {
        if self.option.is_some() { "option" } else { "future" }
    }

    /// Returns the perpetual, the one instrument that is no option.
    pub(super) fn perpetual() -> Self {
        Self {
            name: format!("{CURRENCY}-PERPETUAL"),
            id: 124_973,
            option: None,
            expiration_ms: NEVER_MS,
            creation_ms: 1_552_568_454_000,
            settlement_period: "perpetual".to_owned(),
        }
    }

    /// Reads an option's terms from a name such as `ETH-26SEP26-2760-C`; `d` is the decimal mark of a strike.
    pub(super) fn from_name(name: &str, id: u64, creation_ms: i64) -> Option<Self> {
        let mut parts = name.split('-');
        let (currency, day, strike, side) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if currency != CURRENCY || parts.next().is_some() {
            return None;
        }
        let strike: f64 = strike.replace('d', ".").parse().ok()?;
        let call = match side {
            "C" => true,
            "P" => false,
            _ => return None,
        };
        let usable = strike.is_finite() && strike > 0.0;
        usable.then_some(())?;
        Some(Self::option(parse_day(day)?, "day", OptionTerms { strike, call }, id, creation_ms))
    }

    /// Returns a future that nothing but its name tells of, such as `ETH-25DEC26`.
    pub(super) fn future(name: &str, id: u64) -> Self {
        let day = name.split('-').nth(1).and_then(parse_day);
        Self {
            name: name.to_owned(),
            id,
            expiration_ms: day.map_or(NEVER_MS, expiry_of),
            settlement_period: if day.is_some() { "month" } else { "perpetual" }.to_owned(),
            ..Self::perpetual()
        }
    }

    fn option(day: i64, period: &str, terms: OptionTerms, id: u64, creation_ms: i64) -> Self {
        let strike = terms.strike.to_string().replace('.', "d");
        let side = if terms.call { 'C' } else { 'P' };
        Self {
            name: format!("{CURRENCY}-{}-{strike}-{side}", format_day(day)),
            id,
            option: Some(terms),
            expiration_ms: expiry_of(day),
            creation_ms,
            settlement_period: period.to_owned(),
        }
    }
}

/// Returns the perpetual and `options` options around `spot`, listed on `today` (days since 1970).
pub(super) fn plan(random: &mut Random, today: i64, spot: f64, options: usize) -> Vec<Instrument> {
    let expiries = expiries(today);
    let mut listed = vec![Instrument::perpetual()];
    let mut ring = 0;
    while listed.len() <= options {
        for (index, (day, period)) in expiries.iter().enumerate() {
            let step = if index < 3 { 50.0 } else { 100.0 };
            let strike = (spot / step).round() * step + offset(ring) * step;
            if strike < step {
                continue;
            }
            for call in [true, false] {
                if listed.len() > options {
                    break;
                }
                let age = DAY_MS * (1 + random.below(20) as i64);
                let id = 640_000 + listed.len() as u64;
                let terms = OptionTerms { strike, call };
                listed.push(Instrument::option(*day, period, terms, id, today * DAY_MS - age));
            }
        }
        ring += 1;
    }
    listed
}

/// At the money first, then alternately above and below: 0, 1, -1, 2, -2.
fn offset(ring: i32) -> f64 {
    let distance = f64::from((ring + 1) / 2);
    if ring % 2 == 1 { distance } else { -distance }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_listing_has_the_number_asked_for_and_no_name_twice() {
        for options in [1, 2, 60, 1000] {
            let listed = plan(&mut Random::new(7), 20_718, 2722.4, options);
            let names: BTreeSet<_> = listed.iter().map(|instrument| &instrument.name).collect();
            assert_eq!(listed.len(), options + 1);
            assert_eq!(names.len(), options + 1);
        }
    }

    #[test]
    fn terms_follow_from_the_name() {
        for instrument in plan(&mut Random::new(7), 20_718, 2722.4, 60).into_iter().skip(1) {
            let read = Instrument::from_name(&instrument.name, instrument.id, instrument.creation_ms).unwrap();
            assert_eq!((read.option, read.expiration_ms), (instrument.option, instrument.expiration_ms));
        }
        assert_eq!(Instrument::from_name("ETH-26SEP26-0d625-P", 1, 0).unwrap().option.unwrap().strike, 0.625);
        for wrong in ["ETH-PERPETUAL", "BTC-26SEP26-1-C", "ETH-26SEP26-1-X", "ETH-26SEP26-inf-C", "ETH-26SEP26-1-C-D"] {
            assert_eq!(Instrument::from_name(wrong, 1, 0), None, "{wrong}");
        }
    }
}
