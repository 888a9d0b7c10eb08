//! Deribit's values, which are not always of the type that the documents say.
//!
//! A number may stand in scientific notation, be `null`, or be a word (`"undefined"`, `"expired"`); an id may be a text
//! or a number. What is required and unreadable makes its event malformed; what is optional and unreadable is absent and
//! counted. Nothing becomes 0.

use std::{borrow::Cow, fmt, marker::PhantomData, ops::Deref};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use tidegate_core::row::Timestamp;

/// An optional number.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) enum Lenient<N> {
    /// The number.
    Number(N),
    /// Not there: left out, `null`, or a word that says so.
    #[default]
    Absent,
    /// There, and no number.
    Odd,
}

impl<N: Copy> Lenient<N> {
    /// Returns the number, and counts what is none.
    #[inline]
    pub(super) fn get(self, odd: &mut u32) -> Option<N> {
        match self {
            Self::Number(number) => Some(number),
            Self::Absent => None,
            Self::Odd => {
                *odd += 1;
                None
            }
        }
    }
}

impl Lenient<f64> {
    /// Returns the amount, and counts a negative one, too, as no number.
    #[inline]
    pub(super) fn amount(self, odd: &mut u32) -> Option<f64> {
        match self {
            Self::Number(number) if number < 0.0 => Self::Odd.get(odd),
            Self::Number(_) | Self::Absent | Self::Odd => self.get(odd),
        }
    }

    /// Returns the number, unless it is the 0 by which Deribit says "not available".
    #[inline]
    pub(super) fn unless_zero(self, odd: &mut u32) -> Option<f64> {
        self.get(odd).filter(|&number| number != 0.0)
    }
}

/// The words by which Deribit says that there is no number (seen in captures of 2022 and 2020).
const ABSENT: [&str; 2] = ["undefined", "expired"];

/// A type of number.
pub(super) trait Numeric: Sized {
    /// What is expected, for messages.
    const EXPECTED: &'static str;

    fn from_u64(number: u64) -> Option<Self>;
    fn from_i64(number: i64) -> Option<Self>;
    fn from_f64(number: f64) -> Option<Self>;
}

impl Numeric for f64 {
    const EXPECTED: &'static str = "a number";

    #[inline]
    fn from_u64(number: u64) -> Option<Self> {
        Some(number as Self)
    }

    #[inline]
    fn from_i64(number: i64) -> Option<Self> {
        Some(number as Self)
    }

    #[inline]
    fn from_f64(number: f64) -> Option<Self> {
        Some(number)
    }
}

/// A whole number up to this may have come through a float, `1.0e3`, without being another one.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Numeric for u64 {
    const EXPECTED: &'static str = "a whole number that is not negative";

    #[inline]
    fn from_u64(number: u64) -> Option<Self> {
        Some(number)
    }

    fn from_i64(number: i64) -> Option<Self> {
        Self::try_from(number).ok()
    }

    fn from_f64(number: f64) -> Option<Self> {
        (number.fract() == 0.0 && (0.0..=EXACT).contains(&number)).then_some(number as Self)
    }
}

impl Numeric for i64 {
    const EXPECTED: &'static str = "a whole number";

    #[inline]
    fn from_u64(number: u64) -> Option<Self> {
        Self::try_from(number).ok()
    }

    #[inline]
    fn from_i64(number: i64) -> Option<Self> {
        Some(number)
    }

    fn from_f64(number: f64) -> Option<Self> {
        (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as Self)
    }
}

impl<'de, N: Numeric> Deserialize<'de> for Lenient<N> {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LenientVisitor(PhantomData))
    }
}

struct LenientVisitor<N>(PhantomData<N>);

#[inline]
fn number_or_odd<N>(number: Option<N>) -> Lenient<N> {
    number.map_or(Lenient::Odd, Lenient::Number)
}

impl<'de, N: Numeric> Visitor<'de> for LenientVisitor<N> {
    type Value = Lenient<N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(N::EXPECTED)
    }

    #[inline]
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(number_or_odd(N::from_f64(number)))
    }

    #[inline]
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(number_or_odd(N::from_u64(number)))
    }

    #[inline]
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(number_or_odd(N::from_i64(number)))
    }

    #[inline]
    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Lenient::Absent)
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Self::Value, E> {
        Ok(if ABSENT.contains(&word) { Lenient::Absent } else { Lenient::Odd })
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Lenient::Odd)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Lenient::Odd)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Lenient::Odd)
    }
}

/// Reads a value to where it stays: a large one is too dear to be handed on from one level of a frame to the next.
#[derive(Debug)]
pub(super) struct Place<'p, T>(pub(super) &'p mut Option<T>);

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Place<'_, T> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        *self.0 = Some(T::deserialize(deserializer)?);
        Ok(())
    }
}

/// A required whole number: exact up to 2^64, or written as a float that is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Whole<N>(pub(super) N);

impl<'de, N: Numeric> Deserialize<'de> for Whole<N> {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Lenient::deserialize(deserializer)? {
            Lenient::Number(number) => Ok(Self(number)),
            Lenient::Absent | Lenient::Odd => Err(de::Error::custom(format_args!("expected {}", N::EXPECTED))),
        }
    }
}

/// A required number of a trade: the venue counts from 1 on. What is beyond its own signed integers it has never given, and
/// one such would make all that follows a numbering of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Serial(pub(super) u64);

impl<'de> Deserialize<'de> for Serial {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Whole(number) = Whole::<u64>::deserialize(deserializer)?;
        if number == 0 || number > i64::MAX as u64 {
            return Err(de::Error::custom(format_args!("{number} is no number of a trade")));
        }
        Ok(Self(number))
    }
}

/// A required time, in milliseconds: within the calendar, so that nothing is stored at its end and called the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Millis(pub(super) Timestamp);

impl<'de> Deserialize<'de> for Millis {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Whole(millis) = Whole::<i64>::deserialize(deserializer)?;
        let nanos = millis.checked_mul(1_000_000);
        nanos.map(|nanos| Self(Timestamp(nanos))).ok_or_else(|| de::Error::custom("a time beyond the calendar"))
    }
}

/// A required amount: a number that is not negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Amount(pub(super) f64);

impl<'de> Deserialize<'de> for Amount {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let amount = f64::deserialize(deserializer)?;
        if amount < 0.0 {
            return Err(de::Error::custom("a negative amount"));
        }
        Ok(Self(amount))
    }
}

/// A text, borrowed from the frame unless it holds escapes; or a number, as it would be written.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
pub(super) struct Text<'a>(Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    #[inline]
    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(number.to_string())))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(number.to_string())))
    }
}

/// A text that may be missing: `None` for `null` and "".
pub(super) fn present<'t>(text: Option<&'t Text<'_>>) -> Option<&'t str> {
    text.map(Deref::deref).filter(|text| !text.is_empty())
}

/// An optional member of a known shape: a text, an object.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Member<T> {
    /// It is there.
    There(T),
    /// Left out, or `null`.
    #[default]
    Absent,
    /// There, and of another shape.
    Odd,
}

impl<T> Member<T> {
    /// Returns it, and counts what is of another shape.
    #[inline]
    pub(super) fn get(&self, odd: &mut u32) -> Option<&T> {
        match self {
            Self::There(member) => Some(member),
            Self::Absent => None,
            Self::Odd => {
                *odd += 1;
                None
            }
        }
    }
}

impl Member<Text<'_>> {
    /// Returns the text, unless it is empty, and counts what is none.
    #[inline]
    pub(super) fn text(&self, odd: &mut u32) -> Option<&str> {
        present(self.get(odd))
    }
}

/// How a member is read from what is of its shape.
pub(super) trait Shape<'de>: Sized {
    fn from_borrowed_str(_: &'de str) -> Option<Self> {
        None
    }
    fn from_str(_: &str) -> Option<Self> {
        None
    }
    fn from_whole(_: impl fmt::Display) -> Option<Self> {
        None
    }
    fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

impl<'de: 'a, 'a> Shape<'de> for Text<'a> {
    #[inline]
    fn from_borrowed_str(text: &'de str) -> Option<Self> {
        Some(Self(Cow::Borrowed(text)))
    }

    fn from_str(text: &str) -> Option<Self> {
        Some(Self(Cow::Owned(text.to_owned())))
    }

    fn from_whole(number: impl fmt::Display) -> Option<Self> {
        Some(Self(Cow::Owned(number.to_string())))
    }
}

impl<'de, T: Shape<'de>> Deserialize<'de> for Member<T> {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MemberVisitor(PhantomData))
    }
}

struct MemberVisitor<T>(PhantomData<T>);

impl<'de, T: Shape<'de>> Visitor<'de> for MemberVisitor<T> {
    type Value = Member<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    #[inline]
    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(T::from_borrowed_str(text).map_or(Member::Odd, Member::There))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(T::from_str(text).map_or(Member::Odd, Member::There))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(T::from_whole(number).map_or(Member::Odd, Member::There))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(T::from_whole(number).map_or(Member::Odd, Member::There))
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        Ok(T::from_map(map)?.map_or(Member::Odd, Member::There))
    }

    #[inline]
    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Member::Absent)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Member::Odd)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Member::Odd)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Member::Odd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lenient(json: &str) -> Lenient<f64> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_number_is_read_in_every_notation() {
        let notations =
            [("20700", 20_700.0), ("20700.0", 20_700.0), ("1.0002e6", 1_000_200.0), ("2.8e-4", 0.000_28), ("-7", -7.0)];
        for (json, number) in notations {
            assert_eq!(lenient(json), Lenient::Number(number), "{json}");
        }
    }

    #[test]
    fn what_is_no_number_is_absent_and_what_is_strange_is_counted() {
        let mut odd = 0;
        for json in ["null", r#""undefined""#, r#""expired""#] {
            assert_eq!(lenient(json).get(&mut odd), None, "{json}");
        }
        assert_eq!(odd, 0, "these words are known");
        for json in [r#""NaN""#, r#""12.5""#, "true", "[1]", r#"{"a":1}"#] {
            assert_eq!(lenient(json).get(&mut odd), None, "{json}");
        }
        assert_eq!(odd, 5);
    }

    #[test]
    fn a_whole_number_is_exact_or_an_error() {
        let whole = |json: &str| serde_json::from_str::<Whole<u64>>(json).ok().map(|whole| whole.0);
        assert_eq!(whole("225046781992378369"), Some(225_046_781_992_378_369));
        assert_eq!(whole("18446744073709551615"), Some(u64::MAX));
        assert_eq!(whole("1.0e3"), Some(1000));
        for json in ["18446744073709551616", "1.5", "-1", "9007199254740994.0", "null", r#""7""#] {
            assert_eq!(whole(json), None, "{json}");
        }
    }

    #[test]
    fn a_text_may_be_escaped_or_a_number() {
        let text = |json: &'static str| serde_json::from_str::<Text<'_>>(json).unwrap();
        assert_eq!(&*text(r#""ETH-PERPETUAL""#), "ETH-PERPETUAL");
        assert!(matches!(text(r#""ETH-PERPETUAL""#).0, Cow::Borrowed(_)), "nothing is copied");
        assert_eq!(&*text(r#""ETH\u002dPERPETUAL""#), "ETH-PERPETUAL");
        assert_eq!(&*text("43"), "43");
    }
}
