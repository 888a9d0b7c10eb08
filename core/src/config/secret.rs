//! Something that must not be seen: it comes from a variable or a file, and reaches no log, error or report.

use std::{borrow::Cow, fmt, fs, ops::Range, path::PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
};

use super::environment::{Environment, fill};
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
    /// Returns whether a file holds it.
    pub(super) fn is_in_file(&self) -> bool {
        matches!(self.0, Place::File(_))
    }

    /// Returns a text without the secret: what a peer says of a refused login may hold it.
    pub fn hide_in(&self, text: &str) -> String {
        match self.reveal() {
            Ok(secret) if !secret.is_empty() => text.replace(&secret, HIDDEN),
            Ok(_) | Err(_) => text.to_owned(),
        }
    }
}

/// Says why a file cannot hold a secret here. A pipe in its place is not opened: it would be waited for.
pub(super) fn refusal(path: &std::path::Path) -> Option<String> {
    let open = || if fs::metadata(path)?.is_file() { fs::read_to_string(path).map(Some) } else { Ok(None) };
    match open() {
        Ok(Some(text)) if text.trim_end().is_empty() => Some("it is empty".to_owned()),
        Ok(Some(_)) => None,
        Ok(None) => Some("it is no file".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// What is shown in a secret's place.
pub(crate) const HIDDEN: &str = "•••";
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

/// Tells whether a key holds a secret, by its name, a slip of the pen allowed: for places where no option of this name is
/// known.
pub(super) fn named_like_one(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let words =
        ["password", "passwd", "passphrase", "secret", "token", "api_key", "apikey", "private_key", "credential"];
    let is_like = |part: &str| words.iter().any(|word| strsim::damerau_levenshtein(part, word) <= 1);
    words.iter().any(|word| key.contains(word)) || is_like(&key) || key.split(['_', '-']).any(is_like)
}

/// Returns where passwords stand in the addresses of a text: `postgres://me:password@host/`, `wss://host/?token=password`.
pub(super) fn passwords_in(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (at, _) in text.match_indices("://") {
        let start = at + "://".len();
        let line = part_of(&text[start..], |c| c == '\n' || c == '"');
        let address = part_of(line, char::is_whitespace);
        let spans = login_in(line, address).into_iter().chain(parameters_in(address));
        found.extend(spans.map(|span| start + span.start..start + span.end));
    }
    found.sort_by_key(|span| span.start);
    found
}

/// No address is longer; so a file without spaces takes no time either.
const LONGEST_ADDRESS: usize = 4096;

/// Returns the beginning of a text, before the first character of this kind.
fn part_of(text: &str, ends: impl Fn(char) -> bool) -> &str {
    let end = text.char_indices().find(|(at, c)| *at >= LONGEST_ADDRESS || ends(*c));
    &text[..end.map_or(text.len(), |(at, _)| at)]
}

fn login_in(line: &str, address: &str) -> Option<Range<usize>> {
    let authority = part_of(address, |c| matches!(c, '/' | '?' | '#'));
    let (user, after) = authority.split_once(':')?;
    let start = user.len() + 1;
    let end = match authority.rfind('@') {
        Some(at) => at,
        None if user.starts_with('[') || is_port(after) => return None,
        // What is no port is a password that holds a `/`, a space or the like, or one without its host.
        None => line.rfind('@').unwrap_or(address.len()),
    };
    (start < end).then_some(start..end)
}

fn is_port(text: &str) -> bool {
    let after = text.trim_start_matches(|c: char| c.is_ascii_digit());
    match after.strip_prefix("${") {
        Some(variable) => variable.contains('}'),
        None => !after.starts_with(char::is_alphanumeric),
    }
}

fn parameters_in(address: &str) -> Vec<Range<usize>> {
    let Some(mut start) = address.find('?').map(|at| at + 1) else { return Vec::new() };
    let mut found = Vec::new();
    for parameter in address[start..].split('&') {
        if let Some((name, value)) = parameter.split_once('=')
            && named_like_one(name)
        {
            let value = part_of(value, |c| matches!(c, '#' | '\'' | '`'));
            found.push(start + name.len() + 1..start + name.len() + 1 + value.len());
        }
        start += parameter.len() + 1;
    }
    found.retain(|span| !span.is_empty());
    found
}

/// Returns `text` with the passwords of addresses hidden.
pub(super) fn without_password(text: &str) -> Cow<'_, str> {
    let passwords = passwords_in(text);
    if passwords.is_empty() {
        return text.into();
    }
    let (mut shown, mut from) = (String::new(), 0);
    for password in passwords.into_iter().filter(|password| !text[password.clone()].starts_with(HIDDEN)) {
        // One address may stand in another.
        if password.start >= from {
            shown.extend([&text[from..password.start], HIDDEN]);
        }
        from = from.max(password.end);
    }
    shown.push_str(&text[from..]);
    shown.into()
}

/// Tells whether a value, as the file writes it, holds a literal secret: also one in a default, `${NAME:-secret}`.
pub(super) fn is_written_out(written: &str, is_secret: bool) -> bool {
    let literal = fill(written, &Environment::default());
    let has_default = written.split("${").skip(1).any(|part| {
        let expression = part.split('}').next().unwrap_or(part);
        expression.split_once(":-").is_some_and(|(_, default)| !default.is_empty())
    });
    if !(literal.variables.is_empty() && literal.mistakes.is_empty() || has_default) {
        return false;
    }
    // A secret may be an address that holds none.
    let is_plain_secret = is_secret && !literal.text.is_empty() && !literal.text.contains("://");
    is_plain_secret || passwords_in(&literal.text).into_iter().any(|span| is_certain(&literal.text, span))
}

/// Tells whether what is hidden is a password for sure: in front of an `@`, or a parameter's value. What else stands behind a `:`
/// may be a port that was mistyped.
fn is_certain(text: &str, password: Range<usize>) -> bool {
    text[password.end..].starts_with('@') || text[..password.start].ends_with('=')
}

/// Returns where a file's text seems to hold secrets: what stands behind a key of such a name, and passwords of addresses.
///
/// This needs no valid TOML, since the line of a syntax error is shown, too.
pub(super) fn spans_in(text: &str) -> Vec<Range<usize>> {
    let mut spans = passwords_in(text);
    for (at, _) in text.match_indices('=') {
        let key = key_before(&text[..at]);
        let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
        // The name of a file is no secret. Anything else that stands there is a mistake, and may be one.
        let is_file = key.rsplit('.').next() == Some("file")
            && text[at + 1..].trim_start_matches([' ', '\t']).starts_with(['"', '\'']);
        let is_in_secret = || tables_around(&text[line..at]).into_iter().any(may_name_one);
        if !is_file && (may_name_one(key) || is_in_secret()) {
            spans.push(at + 1..at + 1 + value_length(&text[at + 1..]));
        }
    }
    spans.into_iter().flat_map(|span| outside_variables(text, span)).collect()
}

/// Returns the key that stands before `=`, with the tables that it names: `rdkafka."sasl.password"`.
fn key_before(text: &str) -> &str {
    let start = text.rfind(['\n', '{', '}', '[', ']', ',', '=']).map_or(0, |end| end + 1);
    text[start..].trim()
}

/// Tells whether a key, as it stands in a line, may be a secret's: here the names of other programs' settings count as well,
/// as that of a certificate's key, `ssl.key.pem`.
fn may_name_one(key: &str) -> bool {
    let parts = || key.split(|c: char| !(c.is_alphanumeric() || "_-".contains(c)));
    named_like_one(key) || parts().any(|part| named_like_one(part) || part == "pem" || part.starts_with("oauth"))
}

/// Returns the keys whose inline tables are open at the end of a line's part.
fn tables_around(line: &str) -> Vec<&str> {
    let mut open = Vec::new();
    for (at, brace) in line.match_indices(['{', '}']) {
        match brace {
            "{" => open.push(at),
            _ => open.truncate(open.len().saturating_sub(1)),
        }
    }
    let key = |at: usize| line[..at].trim_end().strip_suffix('=').map(key_before);
    open.into_iter().filter_map(key).collect()
}

/// Returns how far the value behind `=` goes, quotes included: to the end of the line where it is none.
fn value_length(text: &str) -> usize {
    let start = text.len() - text.trim_start_matches([' ', '\t']).len();
    let value = &text[start..];
    // A table is looked through key by key.
    if value.starts_with('{') {
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
        let around = [' ', '\t', '\r', '"', '\'', '-', '?', '[', ']', '{', '}'];
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
        for harmless in [
            "postgres://me@host/x",
            "http://127.0.0.1:8080/a@b",
            "ws://[::1]:8080/x",
            "ws://me@host:80/a:b",
            "me:pass@host",
            "http://:8080",
            "http://host:8080, then write to me@host",
            "wss://host:${PORT}/x",
            "",
        ] {
            assert_eq!(without_password(harmless), harmless);
        }
    }

    #[test]
    fn a_password_is_found_wherever_its_address_stands_and_whatever_it_holds() {
        for (text, shown) in [
            ("unknown `wss://me:hunter2@gw/ws` for `x`", "unknown `wss://me:•••@gw/ws` for `x`"),
            ("a://b:hunter2@c or d://e:hunter2@f?token=hunter2", "a://b:•••@c or d://e:•••@f?token=•••"),
            ("wss://me:hun/ter2@gw/ws", "wss://me:•••@gw/ws"),
            ("wss://me:hun ter2@gw/ws", "wss://me:•••@gw/ws"),
            ("wss://me:hunter2", "wss://me:•••"),
            ("w://x?token=hunter2#y", "w://x?token=•••#y"),
            ("w://x?token=hunter2\nsilence = 1", "w://x?token=•••\nsilence = 1"),
            ("http://a/?to=http://b:hunter2@c", "http://a/?to=http://b:•••@c"),
        ] {
            assert_eq!(without_password(text), shown);
            assert_eq!(without_password(shown), shown, "once is enough");
        }
    }

    #[test]
    fn a_secret_is_written_out_also_in_a_default() {
        for (written, is_secret, is_out) in [
            ("hunter2", true, true),
            ("hunter2", false, false),
            ("", true, false),
            ("${SECRET}", true, false),
            ("${SECRET:-}", true, false),
            ("${SECRET:-hunter2}", true, true),
            ("Bearer ${SECRET}", true, false),
            ("depot://me:${SECRET}@host", true, false),
            ("depot://me:${SECRET:-hunter2}@host", false, true),
            ("depot://${HOST:-localhost}/x", true, false),
            ("ws://localhost:port/ws", false, false),
            ("http://127.0.0.1:PORT/api", false, false),
            ("ws://me:hunter2@host", false, true),
            ("ws://host/?token=hunter2", false, true),
        ] {
            assert_eq!(is_written_out(written, is_secret), is_out, "{written}");
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
            ("password = { value = \"hunter2\" }", "password = { value = \"*******\" }"),
            ("password = [\"hunter2\"]", "password = [\"*******\"]"),
            ("url = \"w://x/?token=hunter2\"\nx = 1", "url = \"w://x/?token=*******\"\nx = 1"),
            ("password = \"${NAME}\"", "password = \"${NAME}\""),
            ("password = \"a${NAME:-quest}b\"", "password = \"*${NAME:-*****}*\""),
            ("password = \"$${a}b\"", "password = \"******\""),
            ("password = \"${a", "password = \"${a"),
            ("url = \"postgres://me:hunter2@host/x\"", "url = \"postgres://me:*******@host/x\""),
            ("url = \"postgres://me:${PASSWORD}@host/x\"", "url = \"postgres://me:${PASSWORD}@host/x\""),
            ("symbols = \"a\"", "symbols = \"a\""),
            (r#"a."sasl.password"x = "hunter2""#, r#"a."sasl.password"x = "*******""#),
            (r#"a = { "ssl.key.pem" = 'hunter2' }"#, r#"a = { "ssl.key.pem" = '*******' }"#),
            (r#"password.file = "/run/x""#, r#"password.file = "/run/x""#),
            (r#"secret.file = ["a"]"#, r#"secret.file = ["*"]"#),
        ] {
            assert_eq!(hidden(written), shown);
        }
        for deep in [
            "password = { file = [\"hunter2\"] }",
            "password = { file = { name = \"hunter2\" } }",
            "password = { value = { deep = [1, \"hunter2\"] } }",
        ] {
            assert!(!hidden(deep).contains("hunter2"), "{}", hidden(deep));
        }
    }

    fn hidden(written: &str) -> String {
        let mut bytes = written.to_owned().into_bytes();
        spans_in(written).into_iter().for_each(|span| bytes[span].fill(b'*'));
        String::from_utf8(bytes).unwrap()
    }
}
