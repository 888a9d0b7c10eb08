//! Decimal numbers as `numeric` has them on the wire: groups of four digits.

use tidegate_core::chunk::write_number;

/// A number in decimal digits, exactly: `0.DIGITS × 10^exponent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decimal {
    NaN,
    Infinite { negative: bool },
    Finite { negative: bool, digits: Vec<u8>, exponent: i32 },
}

impl Decimal {
    /// Returns the shortest decimal that reads back as this number: for up to 15 digits, those that the venue sent.
    pub(super) fn of(number: f64) -> Self {
        if number.is_nan() {
            return Self::NaN;
        }
        if number.is_infinite() {
            return Self::Infinite { negative: number < 0.0 };
        }
        let mut text = Vec::with_capacity(24);
        write_number(number, &mut text);
        Self::read(&text)
    }

    /// Returns a whole number.
    pub(super) fn whole(number: i128) -> Self {
        Self::read(number.to_string().as_bytes())
    }

    /// Reads `-12.5e-7`. What is no such text does not come here.
    fn read(text: &[u8]) -> Self {
        let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
        let end = text.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(text.len());
        let power: i32 = text
            .get(end + 1..)
            .and_then(|power| std::str::from_utf8(power).ok()?.trim_start_matches('+').parse().ok())
            .unwrap_or(0);
        let point = text[..end].iter().position(|byte| *byte == b'.').unwrap_or(end);
        let all: Vec<u8> = text[..end].iter().filter(|byte| byte.is_ascii_digit()).map(|byte| byte - b'0').collect();
        let zeros = all.iter().take_while(|digit| **digit == 0).count();
        let mut digits = all[zeros..].to_vec();
        while digits.last() == Some(&0) {
            digits.pop();
        }
        let exponent = if digits.is_empty() { 0 } else { point as i32 - zeros as i32 + power };
        Self::Finite { negative: negative && !digits.is_empty(), digits, exponent }
    }

    /// Returns how many digits stand before the point, and behind it; `None` for what is no finite number.
    pub(super) fn extent(&self) -> Option<(i32, i32)> {
        let Self::Finite { digits, exponent, .. } = self else { return None };
        // Zero has no digit of either kind.
        Some(if digits.is_empty() { (i32::MIN, i32::MIN) } else { (*exponent, digits.len() as i32 - exponent) })
    }

    /// Appends the binary form, without its length.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut words = |count: u16, weight: i16, sign: u16, scale: u16| {
            out.extend_from_slice(&count.to_be_bytes());
            out.extend_from_slice(&weight.to_be_bytes());
            out.extend_from_slice(&sign.to_be_bytes());
            out.extend_from_slice(&scale.to_be_bytes());
        };
        match self {
            Self::NaN => words(0, 0, NAN, 0),
            Self::Infinite { negative } => words(0, 0, if *negative { MINUS_INFINITY } else { INFINITY }, 0),
            Self::Finite { digits, .. } if digits.is_empty() => words(0, 0, 0, 0),
            Self::Finite { negative, digits, exponent } => {
                // The first group holds the digits that are left over before the point.
                let first = (exponent - 1).rem_euclid(4) as usize + 1;
                let weight = (exponent - 1).div_euclid(4) as i16;
                let count = 1 + digits.len().saturating_sub(first).div_ceil(4);
                let scale = (digits.len() as i32 - exponent).max(0) as u16;
                words(count as u16, weight, if *negative { NEGATIVE } else { 0 }, scale);
                let (head, rest) = digits.split_at(first.min(digits.len()));
                let group = |digits: &[u8], wanted: usize| {
                    (0..wanted).fold(0_u16, |group, n| group * 10 + u16::from(digits.get(n).copied().unwrap_or(0)))
                };
                out.extend_from_slice(&group(head, first).to_be_bytes());
                for digits in rest.chunks(4) {
                    out.extend_from_slice(&group(digits, 4).to_be_bytes());
                }
            }
        }
    }
}

// src/backend/utils/adt/numeric.c
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const MINUS_INFINITY: u16 = 0xF000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_before_and_behind_the_point_are_counted() {
        for (number, extent) in [
            (99.5, (2, 1)),
            (100.0, (3, -2)),
            (0.001, (-2, 3)),
            (1e21, (22, -21)),
            (1.5e-7, (-6, 8)),
            (123_456.789, (6, 3)),
        ] {
            assert_eq!(Decimal::of(number).extent(), Some(extent), "{number}");
        }
        assert_eq!(Decimal::of(f64::NAN).extent(), None);
    }

    #[test]
    fn groups_are_those_of_the_servers_source() {
        let bytes = |decimal: Decimal| {
            let mut out = Vec::new();
            decimal.write(&mut out);
            out.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect::<Vec<_>>()
        };
        assert_eq!(bytes(Decimal::of(12_345.678)), [3, 1, 0, 3, 1, 2345, 6780]);
        assert_eq!(bytes(Decimal::of(-0.000_5)), [1, u16::MAX, 0x4000, 4, 5]);
        assert_eq!(bytes(Decimal::whole(10_000)), [1, 1, 0, 0, 1]);
        assert_eq!(bytes(Decimal::of(0.0)), [0, 0, 0, 0]);
        assert_eq!(bytes(Decimal::of(-0.0)), [0, 0, 0, 0], "numeric knows no minus zero");
    }
}
