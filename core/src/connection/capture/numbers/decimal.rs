//! A number as its text says it, without a loss.

/// `0.DIGITS × 10^exponent`, with neither a zero in front nor one behind. Signs are no digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decimal {
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    /// Reads a number as JSON or Rust writes it.
    pub(super) fn of(text: &str) -> Self {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let mantissa = mantissa.trim_start_matches(['-', '+']);
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = || whole.bytes().chain(fraction.bytes());
        let zeros = all().take_while(|digit| *digit == b'0').count();
        let mut digits: Vec<u8> = all().skip(zeros).collect();
        digits.truncate(digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1));
        // One that is beyond 64 bits is beyond every number.
        let far = if exponent.starts_with('-') { i64::MIN } else { i64::MAX };
        let exponent = exponent.parse().unwrap_or(far);
        let exponent = if digits.is_empty() { 0 } else { exponent.saturating_add(whole.len() as i64 - zeros as i64) };
        Self { digits, exponent }
    }

    /// Returns how many significant digits it has.
    pub(super) fn significant(&self) -> usize {
        self.digits.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_number_are_one() {
        for (one, other) in [
            ("123.45", "1.2345e2"),
            ("0.00123", "1.23E-3"),
            ("-100", "-1e2"),
            ("1.500", "15e-1"),
            ("0", "0.000e7"),
            ("+7", "7"),
            ("1e99999999999999999999", "1e99999999999999999999"),
        ] {
            assert_eq!(Decimal::of(one), Decimal::of(other), "{one} and {other}");
        }
        assert_ne!(Decimal::of("1.23"), Decimal::of("12.3"));
        assert_eq!(Decimal::of("000.00120300").significant(), 4);
    }
}
