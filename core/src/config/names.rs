//! Names: which a user may choose, which a template makes, and which one was meant.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Unexpected, Visitor},
};

/// The name of a table or topic in a store: `"{venue}_{table}"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameTemplate(Vec<Part>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Pipeline,
    Venue,
    Table,
    Symbol,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Word(Word),
}

/// What stands for the words of a [`NameTemplate`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NameParts<'a> {
    /// For `{pipeline}`.
    pub pipeline: &'a str,
    /// For `{venue}`: the type of the row's source.
    pub venue: &'a str,
    /// For `{table}`.
    pub table: &'a str,
    /// For `{symbol}`.
    pub symbol: &'a str,
}

pub(super) const EXPECTED: &str = "a name, in which {pipeline}, {venue}, {table} and {symbol} may stand";

impl NameTemplate {
    /// Reads a template; `None` for an empty one, another word, or a brace without its partner.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            if at > 0 {
                parts.push(Part::Literal(rest[..at].to_owned()));
            }
            let (word, after) = rest[at..].strip_prefix('{')?.split_once('}')?;
            parts.push(Part::Word(Word::ALL.into_iter().find(|known| known.name() == word)?));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        (!parts.is_empty()).then_some(Self(parts))
    }

    /// Returns the name for one row.
    pub fn fill(&self, row: NameParts<'_>) -> String {
        let mut name = String::new();
        for part in &self.0 {
            name.push_str(match part {
                Part::Literal(text) => text,
                Part::Word(Word::Pipeline) => row.pipeline,
                Part::Word(Word::Venue) => row.venue,
                Part::Word(Word::Table) => row.table,
                Part::Word(Word::Symbol) => row.symbol,
            });
        }
        name
    }
}

impl Word {
    const ALL: [Self; 4] = [Self::Pipeline, Self::Venue, Self::Table, Self::Symbol];

    fn name(self) -> &'static str {
        match self {
            Self::Pipeline => "pipeline",
            Self::Venue => "venue",
            Self::Table => "table",
            Self::Symbol => "symbol",
        }
    }
}

impl fmt::Display for NameTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Literal(text) => f.write_str(text),
            Part::Word(word) => write!(f, "{{{}}}", word.name()),
        })
    }
}

impl<'de> Deserialize<'de> for NameTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = NameTemplate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<NameTemplate, E> {
                NameTemplate::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &EXPECTED))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl Serialize for NameTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for NameTemplate {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "name".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "x-unit": "name template" })
    }
}

/// The name of a pipeline: a folder, a label and a key in stores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct Name(pub(super) String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<str>::deserialize(deserializer)?;
        if is_valid(&name) {
            return Ok(Self(name.into_owned()));
        }
        Err(de::Error::invalid_value(Unexpected::Str(&name), &VALID))
    }
}

/// Tells whether a pipeline, source or sink may be called this.
pub(super) fn is_valid(name: &str) -> bool {
    let first_fits = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    first_fits && name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

pub(super) const VALID: &str = "a name: up to 64 letters (a-z), digits, `-`, `_` and `.`, the first a letter or digit";

/// Returns the name that was meant, where one is near enough.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = |name: &str| strsim::damerau_levenshtein(&written.to_lowercase(), &name.to_lowercase());
    let mut best: Option<(usize, &str)> = None;
    for name in known {
        let distance = near(name);
        let shorter = name.len().min(written.len());
        if distance <= 1 + shorter / 3 && distance < shorter && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_puts_the_names_of_the_row_into_its_own() {
        let template = NameTemplate::parse("{pipeline}.{venue}-{table}_{symbol}").unwrap();
        let row = NameParts { pipeline: "p", venue: "v", table: "t", symbol: "s" };
        assert_eq!(template.fill(row), "p.v-t_s");
        assert_eq!(template.to_string(), "{pipeline}.{venue}-{table}_{symbol}");
    }

    #[test]
    fn a_template_with_another_word_or_half_a_brace_is_refused() {
        for wrong in ["", "{venu}", "{", "}", "a{table", "a}b", "{}", "{{table}}"] {
            assert_eq!(NameTemplate::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_name_that_leaves_its_folder_is_refused() {
        for wrong in ["", ".", "..", "../x", "a/b", "a b", "ä", "a\n", &"x".repeat(65)] {
            assert!(!is_valid(wrong), "{wrong:?}");
        }
        assert!(is_valid("deribit-eth_options.2"));
    }

    #[test]
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        assert_eq!(nearest("silense", ["silence", "sink"]), Some("silence"));
        assert_eq!(nearest("Trades", ["trades"]), Some("trades"));
        assert_eq!(nearest("colour", ["silence", "sink"]), None);
        assert_eq!(nearest("x", ["y", "z"]), None);
    }
}
