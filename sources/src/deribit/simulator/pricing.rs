//! Black's formula for options on a forward, with interest at zero: marks and greeks that fit together.

use std::f64::consts::{PI, SQRT_2};

/// What the formula says of one option. The price and the greeks are in dollars, as the venue gives greeks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Priced {
    pub(super) price: f64,
    pub(super) delta: f64,
    pub(super) gamma: f64,
    pub(super) vega: f64,
    pub(super) theta: f64,
    pub(super) rho: f64,
}

/// Prices an option of `years` to expiry at volatility `sigma` (a fraction).
pub(super) fn price(call: bool, forward: f64, strike: f64, years: f64, sigma: f64) -> Priced {
    let years = years.max(1e-6);
    let deviation = sigma * years.sqrt();
    let d1 = ((forward / strike).ln() + deviation * deviation / 2.0) / deviation;
    let d2 = d1 - deviation;
    let density = (-d1 * d1 / 2.0).exp() / (2.0 * PI).sqrt();

    let sign = if call { 1.0 } else { -1.0 };
    let price = sign * (forward * cumulative(sign * d1) - strike * cumulative(sign * d2));
    Priced {
        price: price.max(0.0),
        delta: sign * cumulative(sign * d1),
        gamma: density / (forward * deviation),
        vega: forward * density * years.sqrt() / 100.0,
        theta: -forward * density * sigma / (2.0 * years.sqrt()) / 365.0,
        rho: sign * strike * years * cumulative(sign * d2) / 100.0,
    }
}

/// The normal distribution, by the rational approximation of Abramowitz and Stegun 7.1.26 (error below 1.5e-7).
fn cumulative(x: f64) -> f64 {
    let z = x.abs() / SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let series =
        t * (0.254_829_592 + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let tail = series * (-z * z).exp() / 2.0;
    if x < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_minus_a_put_is_the_forward_minus_the_strike() {
        for strike in [1500.0, 2700.0, 4000.0] {
            let call = price(true, 2700.0, strike, 0.25, 0.6);
            let put = price(false, 2700.0, strike, 0.25, 0.6);
            assert!((call.price - put.price - (2700.0 - strike)).abs() < 0.01, "strike {strike}");
            assert!((call.delta - put.delta - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn an_option_at_expiry_is_worth_what_it_pays() {
        assert!((price(true, 2700.0, 2000.0, 0.0, 0.6).price - 700.0).abs() < 0.01);
        assert_eq!(price(true, 2000.0, 2700.0, 0.0, 0.6).price, 0.0);
    }
}
