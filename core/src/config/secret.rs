//! Something that must not be seen: it comes from a variable or a file, and reaches no log, error or report.

use std::{borrow::Cow, fmt, fs, ops::Range, path::PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
};

use crate::{Error, Result};

/// A password or key: a text (by `${NAME}`), or `{ file = "…" }`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Place);

#[derive(Clone, PartialEq, Eq)]
enum Place {
    Text(String),
    File(PathBuf),
}

impl Secret {
    /// Returns a secret that is known already.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Place::Text(text.into()))
    }

    /// Returns the secret; reads its file at each call, so that a renewed one is found at the next connection.
    ///
    /// # Errors
    ///
    /// `Config` when the file cannot be read. The message names the file, never its content.
    pub fn reveal(&self) -> Result<String> {
        match &self.0 {
            Place::Text(text) => Ok(text.clone()),
            Place::File(path) => fs::read_to_string(path).map(|text| text.trim_end().to_owned()).map_err(|error| {
                Error::config(format!("the secret in `{}` cannot be read", path.display())).because(error)
            }),
        }
    }
}

impl Secret {
    /// Returns a text without the secret: what a peer says of a refused login may hold it.
    pub fn hide_in(&self, text: &str) -> String {
        match self.reveal() {
            Ok(secret) if !secret.is_empty() => text.replace(&secret, HIDDEN),
            Ok(_) | Err(_) => text.to_owned(),
        }
    }
}

/// What is shown in a secret's place.
pub(super) const HIDDEN: &str = "•••";
/// What a secret may be, for the mistake's label.
pub(super) const EXPECTED: &str = r#"a text by "${NAME}", or { file = "…" }"#;

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrFile;
        impl<'de> Visitor<'de> for TextOrFile {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret::new(text))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
                let mut file = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key != "file" {
                        return Err(de::Error::unknown_field(&key, &["file"]));
                    }
                    file = Some(map.next_value()?);
                }
                file.map(|path| Secret(Place::File(path))).ok_or_else(|| de::Error::missing_field("file"))
            }
        }
        deserializer.deserialize_any(TextOrFile)
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-unit": "secret",
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": { "file": { "type": "string", "description": "The file that holds it." } },
                    "required": ["file"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

/// Tells whether a key holds a secret, by its name: for places where no option of this name is known.
pub(super) fn named_like_one(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "passwd", "passphrase", "secret", "token", "api_key", "apikey", "private_key", "credential"]
        .iter()
        .any(|word| key.contains(word))
}

/// Returns where the password stands in an address: `postgres://me:password@host/`, `wss://host/?token=password`.
pub(super) fn password_in(address: &str) -> Option<Range<usize>> {
    login_in(address).or_else(|| parameter_in(address))
}

fn parameter_in(address: &str) -> Option<Range<usize>> {
    let mut start = address.find("://").and_then(|at| Some(at + address[at..].find('?')? + 1))?;
    for parameter in address[start..].split('&') {
        if let Some((name, value)) = parameter.split_once('=')
            && named_like_one(name)
            && !value.is_empty()
        {
            return Some(start + name.len() + 1..start + parameter.len());
        }
        start += parameter.len() + 1;
    }
    None
}

fn login_in(address: &str) -> Option<Range<usize>> {
    let start = address.find("://")? + 3;
    let authority = &address[start..];
    let authority = &authority[..authority.find(['/', '?', '#', ' ', '"', '\'', '\n']).unwrap_or(authority.len())];
    let (login, _) = authority.rsplit_once('@')?;
    let (user, password) = login.split_once(':')?;
    let start = start + user.len() + 1;
    (!password.is_empty()).then(|| start..start + password.len())
}

/// Returns `text` with the password of an address hidden.
pub(super) fn without_password(text: &str) -> Cow<'_, str> {
    match password_in(text) {
        Some(at) => format!("{}{HIDDEN}{}", &text[..at.start], &text[at.end..]).into(),
        None => text.into(),
    }
}

/// Returns where a file's text seems to hold secrets: what stands behind a key of such a name, and passwords of addresses.
///
/// This needs no valid TOML, since the line of a syntax error is shown, too.
pub(super) fn spans_in(text: &str) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    for (at, _) in text.match_indices("://") {
        let start = text[..at].trim_end_matches(|c: char| c.is_ascii_alphanumeric()).len();
        if let Some(found) = password_in(&text[start..]) {
            spans.push(start + found.start..start + found.end);
        }
    }
    for (at, _) in text.match_indices('=') {
        let before = text[..at].trim_end().trim_end_matches(['"', '\'']);
        let key = &before[before.trim_end_matches(|c: char| c.is_alphanumeric() || "_-".contains(c)).len()..];
        if named_like_one(key) {
            spans.push(at + 1..at + 1 + value_length(&text[at + 1..]));
        }
    }
    spans.into_iter().flat_map(|span| outside_variables(text, span)).collect()
}

/// Returns how far the value behind `=` goes, quotes included: to the end of the line where it is none.
fn value_length(text: &str) -> usize {
    let start = text.len() - text.trim_start_matches([' ', '\t']).len();
    let value = &text[start..];
    // A table is looked through for itself.
    if value.starts_with(['{', '[']) {
        return 0;
    }
    let quotes = [r#"""""#, "'''", "\"", "'"].into_iter().find(|quotes| value.starts_with(quotes));
    let line = value.find('\n').unwrap_or(value.len());
    let Some(quotes) = quotes else { return start + line };
    let body = &value[quotes.len()..];
    let mut from = 0;
    while let Some(at) = body[from..].find(quotes).map(|at| from + at) {
        let slashes = body[..at].len() - body[..at].trim_end_matches('\\').len();
        if quotes.starts_with('\'') || slashes.is_multiple_of(2) {
            return start + at + 2 * quotes.len();
        }
        from = at + 1;
    }
    start + if quotes.len() == 1 { line } else { value.len() }
}

/// Returns a place without the quotes and the names of variables in it, which are no secret. Their defaults may be one.
pub(super) fn outside_variables(text: &str, span: Range<usize>) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let (mut start, mut from) = (span.start, span.start);
    while let Some(at) = text[from..span.end].find("${").map(|at| from + at) {
        from = at + 2;
        if text[start..at].ends_with('$') {
            // `$${` stands for itself.
            continue;
        }
        spans.push(start..at);
        let close = text[at..span.end].find('}').map_or(span.end, |length| at + length);
        if let Some(length) = text[at..close].find(':') {
            spans.push(at + length + 1..close);
        }
        start = span.end.min(close + 1);
        from = start;
    }
    spans.push(start..span.end);
    let trim = |span: Range<usize>| {
        let part = &text[span.clone()];
        let around = [' ', '\t', '\r', '"', '\'', '-', '?'];
        let start = span.start + part.len() - part.trim_start_matches(around).len();
        start..(start + part.trim_matches(around).len())
    };
    spans.into_iter().map(trim).filter(|span| !span.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_itself_to_nobody_who_did_not_ask() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), HIDDEN);
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"•••\"");
        assert_eq!(secret.reveal().unwrap(), "hunter2");
    }

    #[test]
    fn a_secret_in_a_file_is_read_without_its_last_line_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "hunter2\n").unwrap();
        assert_eq!(Secret(Place::File(file.path().into())).reveal().unwrap(), "hunter2");
        let error = Secret(Place::File("/no/such/file".into())).reveal().unwrap_err();
        assert_eq!(error.to_string(), "the secret in `/no/such/file` cannot be read");
    }

    #[test]
    fn the_password_of_an_address_is_found_and_nothing_else() {
        assert_eq!(without_password("postgres://me:a:b@c@host/x?y=1"), "postgres://me:•••@host/x?y=1");
        assert_eq!(without_password("wss://host/x?a=1&api_token=b&c=2"), "wss://host/x?a=1&api_token=•••&c=2");
        for harmless in ["postgres://me@host/x", "http://127.0.0.1:8080/a@b", "me:pass@host", "http://:8080", ""] {
            assert_eq!(without_password(harmless), harmless);
        }
    }

    #[test]
    fn a_line_that_is_shown_hides_what_stands_in_a_secrets_place() {
        for (written, shown) in [
            (r#"password = "hunter2" # x"#, r#"password = "*******" # x"#),
            (r#"api_key="a\"b", x = 1"#, r#"api_key="****", x = 1"#),
            ("token = 'hunter2'", "token = '*******'"),
            ("token = hunter2", "token = *******"),
            ("token = \"hunter2", "token = \"*******"),
            ("x = { secret = \"a\", y = \"b\" }", "x = { secret = \"*\", y = \"b\" }"),
            ("password = { file = \"/run/x\" }", "password = { file = \"/run/x\" }"),
            ("password = \"${NAME}\"", "password = \"${NAME}\""),
            ("password = \"a${NAME:-quest}b\"", "password = \"*${NAME:-*****}*\""),
            ("password = \"$${a}b\"", "password = \"******\""),
            ("password = \"${a", "password = \"${a"),
            ("url = \"postgres://me:hunter2@host/x\"", "url = \"postgres://me:*******@host/x\""),
            ("url = \"postgres://me:${PASSWORD}@host/x\"", "url = \"postgres://me:${PASSWORD}@host/x\""),
            ("symbols = \"a\"", "symbols = \"a\""),
        ] {
            let mut bytes = written.to_owned().into_bytes();
            spans_in(written).into_iter().for_each(|span| bytes[span].fill(b'*'));
            assert_eq!(String::from_utf8(bytes).unwrap(), shown);
        }
    }
}
