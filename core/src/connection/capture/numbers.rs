//! Which numbers of a capture have more digits than a column of f64 keeps: looked for here, since counting them live would
//! cost as much as reading them.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

use super::{Body, Event, Line};
use crate::Result;

mod decimal;
mod walk;

use decimal::Decimal;

/// What the frames and replies of a capture hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Frames and replies that were looked through.
    pub texts: u64,
    /// Those that are no JSON, or have too many levels.
    pub unreadable: u64,
    /// Lines that are known to be missing: the disk was too slow, or a file is cut.
    pub missing: u64,
    /// Numbers in all, those in texts included.
    pub numbers: u64,
    /// Those with more than 15 significant digits, by where they stand.
    pub long: BTreeMap<Place, Long>,
}

/// Where numbers stand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The channel that the frame names as `channel`, `topic` or `stream`; of a reply its request, without the query.
    pub channel: String,
    /// The keys down to the value, `[]` for any element: `params.data[].price`.
    pub field: String,
    /// How they are written.
    pub form: Form,
}

/// How a number is written, which decides what becomes of its digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// With a fraction or an exponent, or beyond 64 bits: it is read as f64.
    Number,
    /// The same between quotes, as venues write prices. Whole numbers between quotes are names, and stay texts.
    Text,
    /// Whole, within 64 bits, and none that f64 has: exact in a column of whole numbers, and rounded in one of f64.
    Whole,
}

/// The long numbers of one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Long {
    /// How many there are.
    pub count: u64,
    /// How many of them f64 does not give back digit for digit.
    pub rounded: u64,
    /// One of them, a rounded one if there is one, as it was written; cut where it is very long.
    pub example: String,
    /// As which f64 the example is read.
    pub read_as: String,
}

impl Numbers {
    /// Returns how many numbers are rounded for certain: whole ones are so only in a column of f64.
    pub fn rounded(&self) -> u64 {
        let certain = self.long.iter().filter(|(place, _)| place.form != Form::Whole);
        certain.map(|(_, long)| long.rounded).sum()
    }

    /// Looks through a line of a capture.
    pub fn look(&mut self, line: &Line) {
        match &line.event {
            Event::Frame { body } => self.text(body, None),
            Event::Reply { request, body, .. } | Event::Discovered { request, body, .. } => {
                let address = request.url.split('?').next().unwrap_or_default();
                self.text(body, Some(format!("{} {address}", request.method)));
            }
            Event::Dropped { lines } => self.missing = self.missing.saturating_add(*lines),
            Event::Cut { .. } => self.missing = self.missing.saturating_add(1),
            Event::Start { .. }
            | Event::Anew
            | Event::Discover
            | Event::Open { .. }
            | Event::Subscribe { .. }
            | Event::Unsubscribe { .. }
            | Event::Unended { .. }
            | Event::Sent { .. }
            | Event::Wake
            | Event::Gaps { .. }
            | Event::Closed { .. }
            | Event::End { .. } => {}
        }
    }

    fn text(&mut self, body: &Body, request: Option<String>) {
        self.texts += 1;
        let bytes = body.bytes();
        let text = std::str::from_utf8(&bytes).ok().filter(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
        let Some(text) = text else {
            self.unreadable += 1;
            return;
        };
        let mut found = Vec::new();
        let walked = walk::numbers(text, |field, written, in_text| {
            self.numbers += 1;
            found.extend(examined(written, in_text).map(|(form, long)| (field.to_owned(), form, long)));
        });
        self.unreadable += u64::from(!walked.is_whole);
        let channel = request.or(walked.channel).unwrap_or_else(|| "-".to_owned());
        for (field, form, long) in found {
            self.add(Place { channel: channel.clone(), field, form }, long);
        }
    }

    fn add(&mut self, place: Place, new: Long) {
        match self.long.get_mut(&place) {
            None => drop(self.long.insert(place, new)),
            Some(known) => {
                if known.rounded == 0 && new.rounded > 0 {
                    (known.example, known.read_as) = (new.example, new.read_as);
                }
                known.count += new.count;
                known.rounded += new.rounded;
            }
        }
    }
}

/// Looks through a capture to its end.
///
/// # Errors
///
/// Those of [`Reader`](super::Reader).
pub fn numbers(lines: impl Iterator<Item = Result<Line>>) -> Result<Numbers> {
    let mut numbers = Numbers::default();
    for line in lines {
        numbers.look(&line?);
    }
    Ok(numbers)
}

/// Returns what there is to say of a number: nothing of most.
fn examined(written: &str, in_text: bool) -> Option<(Form, Long)> {
    // As many digits stand in no fewer characters.
    if written.len() <= SAFE_DIGITS {
        return None;
    }
    let decimal = Decimal::of(written);
    if decimal.significant() <= SAFE_DIGITS {
        return None;
    }
    let read: f64 = written.parse().ok()?;
    let read_as = format!("{read:e}");
    let is_exact = read.is_finite() && Decimal::of(&read_as) == decimal;
    let is_whole = !written.contains(['.', 'e', 'E']);
    let form = if is_whole && (in_text || written.parse::<u64>().is_ok() || written.parse::<i64>().is_ok()) {
        // f64 has it, or it is the name of something.
        if in_text || is_exact {
            return None;
        }
        Form::Whole
    } else if in_text {
        Form::Text
    } else {
        Form::Number
    };
    let read_as = if read.is_finite() { read.to_string() } else { "no number: it is too large".to_owned() };
    let (example, read_as) = (shortened(written), shortened(&read_as));
    Some((form, Long { count: 1, rounded: u64::from(!is_exact), example, read_as }))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST_EXAMPLE) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// So many significant digits come back from any f64, whatever they are (IEEE 754).
const SAFE_DIGITS: usize = 15;
const LONGEST_EXAMPLE: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Timestamp;

    #[test]
    fn numbers_that_f64_does_not_give_back_are_told_from_long_ones_that_it_does() {
        for (written, in_text, form, rounded) in [
            ("0.1234567890123456789", false, Form::Number, 1),
            ("0.1234567890123456789", true, Form::Text, 1),
            ("2722.4999999999995", false, Form::Number, 0),
            ("1234567890123456.7e-3", false, Form::Number, 1),
            ("9007199254740993", false, Form::Whole, 1),
            ("-9223372036854775807", false, Form::Whole, 1),
            ("18446744073709551617", false, Form::Number, 1),
            ("1.23456789012345678e999", false, Form::Number, 1),
        ] {
            let (found, long) = examined(written, in_text).unwrap_or_else(|| panic!("{written}"));
            assert_eq!((found, long.rounded), (form, rounded), "{written}: {long:?}");
        }
        for harmless in [
            "1.5",
            "0.000000000000000000000000012345",
            "1790165113907123",
            "100000000000000000000",
            "123.45000000000000000",
        ] {
            assert_eq!(examined(harmless, false), None, "{harmless}");
        }
        assert_eq!(examined("402361111111111111111", true), None, "a name");
    }

    #[test]
    fn places_are_counted_with_a_rounded_example_and_replies_go_by_their_request() {
        let mut numbers = Numbers::default();
        let frame = |text: &str| Event::Frame { body: Body::Text(text.to_owned()) };
        let channel =
            |price: &str| frame(&format!("{{\"params\":{{\"data\":[{{\"price\":{price}}}],\"channel\":\"t.A\"}}}}"));
        let request = super::super::Asked { method: "GET".to_owned(), url: "http://venue/trades?x=1".to_owned() };
        let body = Body::Text("{\"trades\":[[1,\"0.12345678901234567\"]]}".to_owned());
        for event in [
            channel("2722.4999999999995"),
            channel("0.12345678901234567"),
            channel("1.5"),
            frame("no json"),
            Event::Dropped { lines: 3 },
            Event::Reply { request, status: 200, body, gaps: Vec::new() },
        ] {
            numbers.look(&Line { at: Timestamp(0), session: 1, event });
        }
        assert_eq!((numbers.texts, numbers.unreadable, numbers.missing, numbers.numbers), (5, 1, 3, 5));
        assert_eq!(numbers.rounded(), 1 + numbers.long.values().last().unwrap().rounded);
        let place = |channel: &str, field: &str, form| Place { channel: channel.into(), field: field.into(), form };
        let long = &numbers.long[&place("t.A", "params.data[].price", Form::Number)];
        assert_eq!((long.count, long.rounded, &*long.example), (2, 1, "0.12345678901234567"));
        assert!(numbers.long.contains_key(&place("GET http://venue/trades", "trades[][]", Form::Text)), "{numbers:?}");
    }
}
