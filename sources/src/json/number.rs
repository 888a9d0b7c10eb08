//! Numbers: exact where they are whole, and the nearest float otherwise.

use super::{Reader, Unread};

/// A number as it is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Whole(u64),
    Negative(i64),
    Float(f64),
}

/// So many digits fit into 64 bits, whatever they are.
const MAX_DIGITS: usize = 19;

/// Whole numbers up to this are floats too.
const EXACT: u64 = 1 << 53;

/// The powers of ten that are floats.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

impl Reader<'_, '_> {
    /// Takes a number.
    #[inline]
    pub(super) fn number(&mut self) -> Result<Number, Unread> {
        let start = self.at;
        let is_negative = self.byte() == b'-';
        self.at += usize::from(is_negative);
        let first = self.byte();
        let (mut mantissa, whole) = self.digits(0);
        if whole == 0 || (whole > 1 && first == b'0') {
            return Err(Unread);
        }
        if !matches!(self.byte(), b'.' | b'e' | b'E') {
            return integer(is_negative, mantissa, whole);
        }
        let mut fraction = 0;
        if self.byte() == b'.' {
            self.at += 1;
            (mantissa, fraction) = self.digits(mantissa);
            if fraction == 0 {
                return Err(Unread);
            }
        }
        let exponent = if matches!(self.byte(), b'e' | b'E') { self.exponent()? } else { 0 };
        let power = exponent - fraction as i64;
        // Two exact floats: one operation rounds once, to the nearest.
        let exact = usize::try_from(power.unsigned_abs()).ok().and_then(|power| POWERS.get(power));
        let float = match exact {
            Some(scale) if whole + fraction <= MAX_DIGITS && mantissa <= EXACT => {
                let float = if power < 0 { mantissa as f64 / scale } else { mantissa as f64 * scale };
                if is_negative { -float } else { float }
            }
            _ => self.text[start..self.at].parse().map_err(|_| Unread)?,
        };
        if float.is_finite() { Ok(Number::Float(float)) } else { Err(Unread) }
    }

    /// Takes digits behind those of `number`; returns how many they are, too. Beyond [`MAX_DIGITS`] the number is none.
    #[inline]
    fn digits(&mut self, mut number: u64) -> (u64, usize) {
        let start = self.at;
        loop {
            let digit = self.byte().wrapping_sub(b'0');
            if digit > 9 {
                return (number, self.at - start);
            }
            number = number.wrapping_mul(10).wrapping_add(u64::from(digit));
            self.at += 1;
        }
    }

    fn exponent(&mut self) -> Result<i64, Unread> {
        self.at += 1;
        let is_negative = self.byte() == b'-';
        self.at += usize::from(is_negative || self.byte() == b'+');
        let (exponent, digits) = self.digits(0);
        // No float has an exponent of more.
        if !(1..=6).contains(&digits) {
            return Err(Unread);
        }
        let exponent = exponent as i64;
        Ok(if is_negative { -exponent } else { exponent })
    }
}

#[inline]
fn integer(is_negative: bool, number: u64, digits: usize) -> Result<Number, Unread> {
    match (digits <= MAX_DIGITS, is_negative) {
        (false, _) => Err(Unread),
        (true, false) => Ok(Number::Whole(number)),
        // -0 is a float.
        (true, true) if number == 0 => Ok(Number::Float(-0.0)),
        (true, true) => i64::try_from(number).map(|number| Number::Negative(-number)).map_err(|_| Unread),
    }
}
