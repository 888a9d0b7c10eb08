//! Where a part of a text stands in the file: TOML has escapes, and texts of several lines.

use std::ops::Range;

use super::problem::Spot;

impl Spot {
    /// Returns the place of a part of the text that this value is, by its bytes once it is read; all of the value where the
    /// file says it in a way that is not known here.
    pub(crate) fn within(self, text: &str, part: Range<usize>) -> Self {
        let written = &self.file.text[self.span.clone()];
        let Some(places) = places(written).filter(|(read, _)| read == text).map(|(_, places)| places) else {
            return self;
        };
        let at = |place: usize| self.span.start + places[place.min(places.len() - 1)];
        let (start, end) = (at(part.start), at(part.end));
        Self { span: start..end.max(start), file: self.file }
    }
}

/// Reads a TOML string; returns the text, and where each byte of it, and its end, stands in what was written.
fn places(written: &str) -> Option<(String, Vec<usize>)> {
    let quotes = [r#"""""#, "'''", "\"", "'"].into_iter().find(|quotes| written.starts_with(quotes))?;
    let end = written.len().checked_sub(quotes.len()).filter(|end| *end >= quotes.len())?;
    let is_basic = quotes.starts_with('"');
    let mut at = quotes.len();
    if quotes.len() == 3 {
        // A line break behind the quotes is not part of the text.
        at += ["\r\n", "\n"].into_iter().find(|line| written[at..].starts_with(line)).map_or(0, str::len);
    }
    let (mut text, mut places) = (String::new(), Vec::new());
    while at < end {
        let (character, length) = match written[at..].chars().next()? {
            '\\' if is_basic => match escape(&written[at..end])? {
                Escape::Stands { for_character, length } => (for_character, length),
                Escape::Joins { length } => {
                    at += length;
                    continue;
                }
            },
            character => (character, character.len_utf8()),
        };
        text.push(character);
        places.extend(std::iter::repeat_n(at, character.len_utf8()));
        at += length;
    }
    places.push(end);
    Some((text, places))
}

/// What a `\` begins.
enum Escape {
    Stands {
        for_character: char,
        length: usize,
    },
    /// The end of a line, and the space that the next one begins with.
    Joins {
        length: usize,
    },
}

fn escape(written: &str) -> Option<Escape> {
    let stands = |for_character, length| Some(Escape::Stands { for_character, length });
    let hex = |digits: usize| {
        let code = u32::from_str_radix(written.get(2..2 + digits)?, 16).ok()?;
        stands(char::from_u32(code)?, 2 + digits)
    };
    match written.chars().nth(1)? {
        'b' => stands('\u{8}', 2),
        't' => stands('\t', 2),
        'n' => stands('\n', 2),
        'f' => stands('\u{c}', 2),
        'r' => stands('\r', 2),
        'e' => stands('\u{1b}', 2),
        '"' => stands('"', 2),
        '\\' => stands('\\', 2),
        'x' => hex(2),
        'u' => hex(4),
        'U' => hex(8),
        c if c.is_whitespace() => {
            let rest = written[1..].trim_start();
            Some(Escape::Joins { length: written.len() - rest.len() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_text_is_found_however_the_text_is_written() {
        for written in [
            r#""price > 0 and sid = 'x'""#,
            r#""price > 0\tand sid = 'x'""#,
            "\"\"\"\n  price > 0 \\\n\n     and sid = 'x'\"\"\"",
            "'''\r\nprice > 0 and sid = ''x'''",
            r#""\u0070rice > 0 and sid = \u0027x\u0027""#,
        ] {
            let (text, places) = places(written).unwrap();
            let file = format!("a = {written}");
            let toml = toml::de::DeTable::parse(&file).unwrap();
            assert_eq!(toml.get_ref()["a"].get_ref().as_str().unwrap(), text, "{written}");
            let start = text.find("sid").unwrap();
            assert_eq!(&written[places[start]..places[start + 3]], "sid", "{written}");
            assert_eq!(places.len(), text.len() + 1);
        }
    }
}
