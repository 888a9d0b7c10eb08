//! What is logged: a level, and others for single targets.

use std::{borrow::Cow, fmt, sync::LazyLock};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Unexpected, Visitor},
};

/// What is logged: `"info"`, also per target: `"info,tidegate_core=debug"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevel {
    /// Of every target that is not named.
    level: &'static str,
    /// Of single targets.
    targets: Vec<(String, &'static str)>,
}

const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace", "off"];
const EXPECTED: &str =
    r#"a level: "error", "warn", "info", "debug", "trace" or "off", also per target: "info,tidegate_core=debug""#;

/// The crates of this program.
const CRATES: &[&str] = &["tidegate", "tidegate_core", "tidegate_sources", "tidegate_sinks"];

/// What keeps a text from being a level.
enum Wrong<'t> {
    /// This is none of those that may stand there.
    Unknown { word: &'t str, known: &'static [&'static str] },
    /// A target is no path of Rust's modules, so nothing would ever fit it.
    Target,
}

impl LogLevel {
    fn parse(text: &str) -> Result<Self, Wrong<'_>> {
        let mut read = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (target, word) = part.split_once('=').map_or((None, part), |(target, word)| (Some(target), word));
            let word = word.trim();
            let level = LEVELS
                .iter()
                .find(|level| level.eq_ignore_ascii_case(word))
                .ok_or(Wrong::Unknown { word, known: LEVELS })?;
            match target.map(str::trim) {
                None => read.level = level,
                Some(target) if let Some(unknown) = unknown(target) => return Err(unknown),
                Some(target) if is_target(target) => read.targets.push((target.to_owned(), level)),
                Some(_) => return Err(Wrong::Target),
            }
        }
        Ok(read)
    }
}

/// Tells what is wrong with a target that only looks like one of this program. Any other may be that of a crate that is
/// built in.
fn unknown(target: &str) -> Option<Wrong<'_>> {
    let (of_crate, path) = target.split_once("::").map_or((target, None), |(name, rest)| (name, Some(rest)));
    if !CRATES.contains(&of_crate) {
        let looks_like_one = super::nearest(of_crate, CRATES.iter().copied()).is_some();
        return looks_like_one.then_some(Wrong::Unknown { word: of_crate, known: CRATES });
    }
    let module = path?.split("::").next()?;
    let is_unknown = of_crate == "tidegate_core" && !MODULES.contains(&module);
    is_unknown.then(|| Wrong::Unknown { word: module, known: &MODULES })
}

/// The modules of this crate.
static MODULES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let lines = include_str!("../lib.rs").lines();
    lines.filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';')).collect()
});

fn is_target(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

impl Default for LogLevel {
    fn default() -> Self {
        Self { level: "info", targets: Vec::new() }
    }
}

/// Writes what `tracing_subscriber`'s `Targets` reads.
impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.level)?;
        self.targets.iter().try_for_each(|(target, level)| write!(f, ",{target}={level}"))
    }
}

impl<'de> Deserialize<'de> for LogLevel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = LogLevel;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<LogLevel, E> {
                LogLevel::parse(text).map_err(|wrong| match wrong {
                    Wrong::Unknown { word, known } => E::unknown_variant(word, known),
                    Wrong::Target => E::invalid_value(Unexpected::Str(text), &EXPECTED),
                })
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl Serialize for LogLevel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for LogLevel {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "level".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "x-unit": "level" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_one_of_those_there_are_also_for_single_targets() {
        for (text, read) in [
            ("", "info"),
            ("WARN", "warn"),
            ("tidegate_core=debug", "info,tidegate_core=debug"),
            ("error, a::b = trace,c=off", "error,a::b=trace,c=off"),
        ] {
            assert_eq!(LogLevel::parse(text).ok().unwrap().to_string(), read);
        }
        for (text, wrong, near) in [
            ("inof", "inof", Some("info")),
            ("warn;info", "warn;info", None),
            ("info,x=debgu", "debgu", Some("debug")),
            ("x=", "", None),
            ("info,tidegate_cor=debug", "tidegate_cor", Some("tidegate_core")),
            ("tidegate-core=debug", "tidegate-core", Some("tidegate_core")),
            ("tidegate_snks::sqlite=debug", "tidegate_snks", Some("tidegate_sinks")),
            ("tidegate_core::conection::rest=debug", "conection", Some("connection")),
            ("tidegate_core::nonsense=debug", "nonsense", None),
        ] {
            let Err(Wrong::Unknown { word, known }) = LogLevel::parse(text) else { panic!("{text}") };
            assert_eq!((word, super::super::nearest(word, known.iter().copied())), (wrong, near), "{text}");
        }
        for text in ["hyper=debug", "my_source::poll=trace", "tidegate_core::connection::rest=debug", "sqlx=off"] {
            assert!(LogLevel::parse(text).is_ok(), "{text}");
        }
        for text in ["=info", "a b=info"] {
            assert!(matches!(LogLevel::parse(text), Err(Wrong::Target)), "{text}");
        }
    }
}
