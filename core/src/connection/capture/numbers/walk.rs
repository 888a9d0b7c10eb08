//! The numbers of a JSON text as they are written: a reader of values has rounded them already.

use std::borrow::Cow;

/// Shows each number of a text that serde_json has found to be JSON, with its field and whether it stands between quotes.
pub(super) fn numbers(text: &str, mut found: impl FnMut(&str, &str, bool)) -> Walked {
    let walked = Walked { channel: None, is_whole: true };
    let mut walk = Walk { text, at: 0, field: String::new(), walked, found: &mut found };
    walk.value("", 0);
    walk.walked
}

/// How far a text was walked.
#[derive(Debug)]
pub(super) struct Walked {
    /// The channel that it names.
    pub(super) channel: Option<String>,
    /// Not so where its levels are too many.
    pub(super) is_whole: bool,
}

struct Walk<'t, F> {
    text: &'t str,
    at: usize,
    /// The keys down to here.
    field: String,
    walked: Walked,
    found: &'t mut F,
}

impl<'t, F: FnMut(&str, &str, bool)> Walk<'t, F> {
    /// Walks over the value that comes next, which stands behind `key`.
    fn value(&mut self, key: &str, level: usize) {
        if level > MOST_LEVELS {
            (self.at, self.walked.is_whole) = (self.text.len(), false);
            return;
        }
        match self.next() {
            Some(b'{') => self.members(level),
            Some(b'[') => self.elements(level),
            Some(b'"') => {
                let text = self.quoted();
                if is_number(&text) {
                    (self.found)(&self.field, &text, true);
                } else if level <= DEEPEST_CHANNEL && CHANNEL_KEYS.contains(&key) {
                    self.walked.channel.get_or_insert_with(|| text.into_owned());
                }
            }
            Some(_) => {
                let word = self.word();
                if is_number(word) {
                    (self.found)(&self.field, word, false);
                }
            }
            None => {}
        }
    }

    fn members(&mut self, level: usize) {
        self.at += 1;
        while self.next().is_some_and(|byte| byte != b'}') {
            let key = self.quoted();
            self.next();
            self.at += 1; // :
            let length = self.field.len();
            if length > 0 {
                self.field.push('.');
            }
            self.field.push_str(&key);
            self.value(&key, level + 1);
            self.field.truncate(length);
            self.comma();
        }
        self.at += 1;
    }

    fn elements(&mut self, level: usize) {
        self.at += 1;
        let length = self.field.len();
        self.field.push_str("[]");
        while self.next().is_some_and(|byte| byte != b']') {
            self.value("", level + 1);
            self.comma();
        }
        self.field.truncate(length);
        self.at += 1;
    }

    fn comma(&mut self) {
        if self.next() == Some(b',') {
            self.at += 1;
        }
    }

    /// Passes over white space, and returns the byte that comes.
    fn next(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at.min(self.text.len())..];
        let space = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.at += space;
        rest.get(space).copied()
    }

    /// Takes a text with its quotes.
    fn quoted(&mut self) -> Cow<'static, str> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        self.at += 1;
        while bytes.get(self.at).is_some_and(|byte| *byte != b'"') {
            self.at += if bytes[self.at] == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
        let quoted = self.text.get(start..self.at).unwrap_or_default();
        Cow::Owned(serde_json::from_str(quoted).unwrap_or_default())
    }

    /// Takes a number, or one of the words of JSON.
    fn word(&mut self) -> &'t str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length = rest.find([',', ']', '}', ' ', '\t', '\r', '\n']).unwrap_or(rest.len());
        self.at += length.max(1);
        &rest[..length]
    }
}

/// Tells whether a text is a number as JSON writes it, or with a sign in front.
fn is_number(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let mut parts = text.splitn(2, ['e', 'E']);
    let (mantissa, exponent) = (parts.next().unwrap_or_default(), parts.next());
    let is_digits = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(whole, rest)| (whole, Some(rest)));
    let exponent = exponent.map(|exponent| exponent.strip_prefix(['-', '+']).unwrap_or(exponent));
    is_digits(whole) && fraction.is_none_or(is_digits) && exponent.is_none_or(is_digits)
}

/// What venues call the channel of a frame.
const CHANNEL_KEYS: [&str; 3] = ["channel", "topic", "stream"];
/// In the frame itself, or in what it holds: `params.channel`.
const DEEPEST_CHANNEL: usize = 2;
/// As serde_json reads values: a frame of more is malformed to any protocol.
const MOST_LEVELS: usize = 127;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_shown_as_it_is_written_with_its_field() {
        let text = r#" { "a" : [ 1.50, -2e-7,[3]], "b\n\"": {"c": "0.1", "d": "x1", "e":true , "f": null, "g": {}},
            "h": [], "channel": "t.\u0041", "params": {"topic": "later"}, "i": "\\", "j": 12 } "#;
        let (mut seen, channel) = seen(text);
        assert_eq!(channel.as_deref(), Some("t.A"));
        seen.sort();
        assert_eq!(seen, ["a[] -2e-7", "a[] 1.50", "a[][] 3", "b\n\".c \"0.1\"", "j 12"]);
        assert_eq!(self::seen("7").0, [" 7"]);
        assert_eq!(self::seen("{\"a\":{\"b\":{\"channel\":\"deep\"}}}").1, None);
    }

    #[test]
    fn whatever_is_json_is_walked_to_its_end() {
        for text in ["", "[", "{\"a\":", "\"\\", "[1,", "nul", "{\"\":[{}]}", "[[[[1]]],{}]", "\u{feff}1"] {
            // What is none is shown to nobody, but a slip there would be a panic here.
            seen(text);
        }
        for (levels, numbers) in [(127, 1), (200_000, 0)] {
            let deep = format!("{}7{}", "[".repeat(levels), "]".repeat(levels));
            assert_eq!(seen(&deep).0.len(), numbers, "{levels}");
        }
    }

    fn seen(text: &str) -> (Vec<String>, Option<String>) {
        let mut seen = Vec::new();
        let walked = numbers(text, |field, written, in_text| {
            let quote = if in_text { "\"" } else { "" };
            seen.push(format!("{field} {quote}{written}{quote}"));
        });
        (seen, walked.channel)
    }
}
