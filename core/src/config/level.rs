//! What is logged: a level, and others for single targets.

use std::{borrow::Cow, fmt};

use super::nearest;
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
const CRATES: [&str; 4] = ["tidegate", "tidegate_core", "tidegate_sources", "tidegate_sinks"];

/// What keeps a text from being a level.
enum Wrong<'t> {
    /// No such target is logged, but this one is.
    Unknown { target: &'t str, meant: String },
    /// This stands where a level should.
    Level(&'t str),
    /// A target is no path of Rust's modules, so nothing would ever fit it.
    Target,
}

impl LogLevel {
    fn parse(text: &str) -> Result<Self, Wrong<'_>> {
        let mut read = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (target, word) = part.split_once('=').map_or((None, part), |(target, word)| (Some(target), word));
            let word = word.trim();
            let level = LEVELS.iter().find(|level| level.eq_ignore_ascii_case(word)).ok_or(Wrong::Level(word))?;
            match target.map(str::trim) {
                None => read.level = level,
                Some(target) if let Some(meant) = meant(target) => return Err(Wrong::Unknown { target, meant }),
                Some(target) if is_target(target) => read.targets.push((target.to_owned(), level)),
                Some(_) => return Err(Wrong::Target),
            }
        }
        Ok(read)
    }
}

/// Returns the target that is meant where one is written that only looks like one of this program. Any other may be that of
/// a crate that is built in.
fn meant(target: &str) -> Option<String> {
    let (of_crate, module) = target.split_once("::").map_or((target, None), |(name, rest)| (name, Some(rest)));
    if !CRATES.contains(&of_crate) {
        return nearest(of_crate, CRATES).map(str::to_owned);
    }
    let module = module?.split("::").next()?;
    let is_known = of_crate != "tidegate_core" || modules().any(|known| known == module);
    if is_known {
        return None;
    }
    Some(nearest(module, modules()).map_or_else(|| of_crate.to_owned(), |known| format!("{of_crate}::{known}")))
}

/// Returns the modules of this crate.
fn modules() -> impl Iterator<Item = &'static str> {
    let lines = include_str!("../lib.rs").lines();
    lines.filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
}

fn is_target(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

impl Default for LogLevel {
    fn default() -> Self {
        Self { level: "info", targets: Vec::new() }
    }
}

/// Writes what `tracing_subscriber`'s `EnvFilter` reads.
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
                    Wrong::Level(word) => E::unknown_variant(word, LEVELS),
                    Wrong::Unknown { target, meant } => {
                        E::custom(format_args!("nothing is logged for the target `{target}`, did you mean `{meant}`?"))
                    }
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
        for (text, wrong) in [("inof", "inof"), ("warn;info", "warn;info"), ("info,x=debgu", "debgu"), ("x=", "")] {
            assert!(matches!(LogLevel::parse(text), Err(Wrong::Level(word)) if word == wrong), "{text}");
        }
        for (text, near) in [
            ("info,tidegate_cor=debug", "tidegate_core"),
            ("tidegate-core=debug", "tidegate_core"),
            ("tidegate_snks::sqlite=debug", "tidegate_sinks"),
            ("tidegate_core::conection=debug", "tidegate_core::connection"),
            ("tidegate_core::nonsense=debug", "tidegate_core"),
        ] {
            assert!(matches!(LogLevel::parse(text), Err(Wrong::Unknown { meant, .. }) if meant == near), "{text}");
        }
        for text in ["hyper=debug", "my_source::poll=trace", "tidegate_core::connection::rest=debug", "sqlx=off"] {
            assert!(LogLevel::parse(text).is_ok(), "{text}");
        }
        for text in ["=info", "a b=info"] {
            assert!(matches!(LogLevel::parse(text), Err(Wrong::Target)), "{text}");
        }
    }
}
