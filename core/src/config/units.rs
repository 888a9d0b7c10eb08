//! Values that people write with a unit: a bare number is a mistake that is answered with the unit's names.

use std::{borrow::Cow, fmt, marker::PhantomData, net::SocketAddr, num::NonZeroU32, time};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Unexpected, Visitor},
};

/// A length of time: `"250ms"`, `"1m 30s"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub time::Duration);

/// A number of bytes: `"64MiB"`, `"10GB"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// How often something may happen: `"20/s"`, `"100/m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// So many times, one after the other.
    pub times: NonZeroU32,
    /// In this time: a second, a minute or an hour.
    pub per: time::Duration,
}

/// How fast a recording is played: `"max"`, `"1x"` as it was, `"10x"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Speed {
    /// As fast as possible.
    #[default]
    Max,
    /// So many times as fast as it was.
    Times(NonZeroU32),
}

/// An address to listen on: `"127.0.0.1:8080"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address(pub SocketAddr);

/// A value that is written as a text with a unit.
pub(super) trait Unit: Sized {
    /// What to write, for the mistake's label.
    const EXPECTED: &'static str;
    /// The kind of value, for the reference page.
    const NAME: &'static str;
    /// What an editor accepts.
    const PATTERN: &'static str;

    /// Reads the text; `None` when it is none of these.
    fn parse(text: &str) -> Option<Self>;

    /// Returns what to write instead of a text that is none of these.
    fn instead_of(_text: &str) -> &'static str {
        Self::EXPECTED
    }
}

/// A value with a unit that may be nothing: `"0s"`.
pub trait Amount {
    /// What to write instead of nothing.
    const ABOVE_NOTHING: &'static str;

    /// Tells whether it is nothing.
    fn is_nothing(&self) -> bool;
}

impl Amount for Duration {
    const ABOVE_NOTHING: &'static str = "a duration above 0";

    fn is_nothing(&self) -> bool {
        self.0.is_zero()
    }
}

impl Amount for ByteSize {
    const ABOVE_NOTHING: &'static str = "a size above 0";

    fn is_nothing(&self) -> bool {
        self.0 == 0
    }
}

impl Duration {
    /// Returns this many milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(time::Duration::from_millis(milliseconds))
    }

    /// Returns this many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds))
    }
}

impl Unit for Duration {
    const EXPECTED: &'static str = r#"a duration: "30s", "30ms" or "30m""#;
    const NAME: &'static str = "duration";
    const PATTERN: &'static str = r"^\s*(\d+\s*[a-zA-Zµ]+\s*)+$";

    fn parse(text: &str) -> Option<Self> {
        // humantime takes a bare `0`; here every duration has its unit.
        let has_unit = text.ends_with(char::is_alphabetic) && !has_vague_unit(text);
        let duration = humantime::parse_duration(text).ok().filter(|_| has_unit)?;
        // No sum of a time and a duration overflows.
        (duration <= LONGEST).then_some(Self(duration))
    }

    fn instead_of(text: &str) -> &'static str {
        if has_vague_unit(text) {
            return r#"months and years differ in length: write days, "30days", or minutes, "10m""#;
        }
        let is_too_long = match humantime::parse_duration(text) {
            Ok(duration) => duration > LONGEST,
            Err(error) => error == humantime::DurationError::NumberOverflow,
        };
        if is_too_long { r#"a duration of at most "3650days""# } else { Self::EXPECTED }
    }
}

const LONGEST: time::Duration = time::Duration::from_secs(3650 * DAY);
const DAY: u64 = 24 * 60 * 60;

/// Tells whether a unit is none of a fixed length; `M` is taken for a minute by most who write it.
fn has_vague_unit(text: &str) -> bool {
    let mut units = text.split(|c: char| !c.is_alphabetic());
    units.any(|unit| ["M", "month", "months", "y", "yr", "yrs", "year", "years"].contains(&unit))
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // humantime itself writes longer ones in months and years.
        let days = self.0.as_secs() / DAY;
        let rest = humantime::format_duration(self.0 - time::Duration::from_secs(days * DAY));
        match days {
            0 => write!(f, "{rest}"),
            _ if rest.get_ref().is_zero() => write!(f, "{days}{}", if days == 1 { "day" } else { "days" }),
            _ => write!(f, "{days}{} {rest}", if days == 1 { "day" } else { "days" }),
        }
    }
}

impl ByteSize {
    /// Returns this many times 1,048,576 bytes.
    pub const fn from_mib(mebibytes: u64) -> Self {
        Self(mebibytes << 20)
    }
}

impl Unit for ByteSize {
    const EXPECTED: &'static str = r#"a size: "64MiB", "10GiB" or "500kB""#;
    const NAME: &'static str = "size";
    const PATTERN: &'static str = r"^\s*\d+\s*([kKMGT]i?)?B\s*$";

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let factor: u64 = match unit.trim_start() {
            "B" => 1,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            "KiB" | "kiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(factor).map(Self)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut number, mut unit) = (self.0, 0);
        while number >= 1024 && number.is_multiple_of(1024) && unit < 4 {
            (number, unit) = (number / 1024, unit + 1);
        }
        write!(f, "{number}{}", ["B", "KiB", "MiB", "GiB", "TiB"][unit])
    }
}

impl Rate {
    /// Returns the pause that keeps to the rate when it follows every call.
    pub fn interval(self) -> time::Duration {
        // Rounded up, because a limit is a limit.
        let nanoseconds = self.per.as_nanos().div_ceil(u128::from(self.times.get()));
        time::Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

impl Unit for Rate {
    const EXPECTED: &'static str = r#"a rate: "20/s", "100/m" or "5000/h""#;
    const NAME: &'static str = "rate";
    const PATTERN: &'static str = r"^\s*\d+\s*/\s*[smh]\s*$";

    fn parse(text: &str) -> Option<Self> {
        let (times, per) = text.split_once('/')?;
        let seconds = match per.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return None,
        };
        Some(Self { times: times.trim().parse().ok()?, per: time::Duration::from_secs(seconds) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.times)
    }
}

impl Speed {
    /// Returns when to play what happened so many nanoseconds after the beginning; `None`: at once.
    pub fn of(self, nanos: i64) -> Option<time::Duration> {
        match self {
            Self::Max => None,
            Self::Times(times) => {
                Some(time::Duration::from_nanos(u64::try_from(nanos).unwrap_or_default()) / times.get())
            }
        }
    }
}

impl Unit for Speed {
    const EXPECTED: &'static str = r#"a speed: "max", "1x" or "10x""#;
    const NAME: &'static str = "speed";
    const PATTERN: &'static str = r"^\s*(max|\d+x)\s*$";

    fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "max" => Some(Self::Max),
            times => times.strip_suffix('x')?.parse().ok().map(Self::Times),
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max => f.write_str("max"),
            Self::Times(times) => write!(f, "{times}x"),
        }
    }
}

impl Unit for Address {
    const EXPECTED: &'static str = r#"an address with its port: "127.0.0.1:8080""#;
    const NAME: &'static str = "address";
    const PATTERN: &'static str = r"^.*:\d+$";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Reads a text with a unit. What is wrong with it is said by [`super::explain`], which knows the line.
fn read<'de, D: Deserializer<'de>, U: Unit>(deserializer: D) -> Result<U, D::Error> {
    struct Text<U>(PhantomData<U>);
    impl<U: Unit> Visitor<'_> for Text<U> {
        type Value = U;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(U::EXPECTED)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<U, E> {
            U::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &U::instead_of(text)))
        }
    }
    deserializer.deserialize_str(Text(PhantomData))
}

/// Reads a duration or size that is not nothing: `#[serde(deserialize_with = "positive")]`.
///
/// # Errors
///
/// When it is nothing, or none.
pub fn positive<'de, D, A>(deserializer: D) -> Result<A, D::Error>
where
    D: Deserializer<'de>,
    A: Amount + Deserialize<'de> + fmt::Display,
{
    let amount = A::deserialize(deserializer)?;
    if amount.is_nothing() {
        return Err(de::Error::invalid_value(Unexpected::Str(&amount.to_string()), &A::ABOVE_NOTHING));
    }
    Ok(amount)
}

/// Implements the traits of a unit by [`Unit`] and `Display`.
macro_rules! unit {
    ($($unit:ty),+) => {$(
        impl<'de> Deserialize<'de> for $unit {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                read(deserializer)
            }
        }

        impl Serialize for $unit {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $unit {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                Self::NAME.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": Self::PATTERN, "x-unit": Self::NAME })
            }
        }
    )+};
}

unit!(Duration, ByteSize, Rate, Speed, Address);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_never_left_out() {
        for bare in ["0", "30", " 30 ", ""] {
            assert_eq!(Duration::parse(bare), None, "{bare:?} is no duration");
            assert_eq!(ByteSize::parse(bare), None, "{bare:?} is no size");
            assert_eq!(Rate::parse(bare), None, "{bare:?} is no rate");
        }
    }

    #[test]
    fn what_is_written_out_reads_back_as_the_same_value() {
        for text in ["0s", "250ms", "1m 30s", "1day", "7days", "400days 2h 3ns"] {
            let duration = Duration::parse(text).unwrap();
            assert_eq!(duration.to_string(), text);
            assert_eq!(Duration::parse(&duration.to_string()), Some(duration));
        }
        for size in [0, 1, 1024, 1500, 10 << 30, u64::MAX] {
            assert_eq!(ByteSize::parse(&ByteSize(size).to_string()), Some(ByteSize(size)));
        }
        for text in ["max", "1x", "250x"] {
            assert_eq!(Speed::parse(text).unwrap().to_string(), text);
        }
        for text in ["20/s", "100/m", "5000/h"] {
            assert_eq!(Rate::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_duration_has_a_fixed_length_and_an_end() {
        for (wrong, remedy) in [
            ("400000000000years", "write days"),
            ("10M", "\"10m\""),
            ("1month 2s", "write days"),
            ("3651days", "at most \"3650days\""),
            ("99999999999999999h", "at most"),
        ] {
            assert_eq!(Duration::parse(wrong), None, "{wrong}");
            assert!(Duration::instead_of(wrong).contains(remedy), "{wrong}: {}", Duration::instead_of(wrong));
        }
        assert_eq!(Duration::parse("520weeks").map(|it| it.0.as_secs()), Some(3640 * DAY));
    }

    #[test]
    fn a_size_that_no_disk_holds_is_refused() {
        assert_eq!(ByteSize::parse("99999999999TiB"), None);
        assert_eq!(ByteSize::parse("184467440737095516160B"), None);
    }

    #[test]
    fn a_recording_is_played_faster_and_never_at_a_standstill() {
        assert_eq!(Speed::parse("0x"), None);
        assert_eq!(Speed::parse("10"), None);
        assert_eq!(Speed::parse("10x").unwrap().of(1_000), Some(time::Duration::from_nanos(100)));
        assert_eq!(Speed::Max.of(1_000), None);
    }

    #[test]
    fn a_rate_is_never_nothing() {
        assert_eq!(Rate::parse("0/s"), None);
        assert_eq!(Rate::parse("20/s").unwrap().interval(), time::Duration::from_millis(50));
    }
}
