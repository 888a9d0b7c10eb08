//! JSON text the way the venue writes it: numbers in their shortest form, exponents included.
//!
//! serde_json would write `1000.0` where the venue writes `1.0e3`, and a client that has never seen an exponent loses data.

use std::fmt::Write;

/// Writes `value` in the shorter of decimal and scientific notation, as the venue has done since 2025; both read back exactly.
pub(super) fn write_number(out: &mut String, value: f64) {
    debug_assert!(value.is_finite(), "the market makes no NaN");
    let start = out.len();
    write(out, format_args!("{value}"));
    if !out[start..].contains('.') {
        out.push_str(".0");
    }

    let decimal = &out[start..];
    let may_be_shorter = decimal.ends_with("00.0") || decimal.trim_start_matches('-').starts_with("0.000");
    if value == 0.0 || !may_be_shorter {
        return;
    }
    let scientific = scientific(value);
    if scientific.len() < decimal.len() {
        out.truncate(start);
        out.push_str(&scientific);
    }
}

fn scientific(value: f64) -> String {
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0e{exponent}"),
        _ => text,
    }
}

/// Writes one JSON object, member by member.
pub(super) struct Object<'a> {
    out: &'a mut String,
    empty: bool,
}

impl<'a> Object<'a> {
    pub(super) fn begin(out: &'a mut String) -> Self {
        out.push('{');
        Self { out, empty: true }
    }

    pub(super) fn end(self) {
        self.out.push('}');
    }

    /// Writes a text that needs no escape: names, states and directions of ours.
    pub(super) fn text(self, key: &str, value: &str) -> Self {
        let this = self.key(key);
        this.out.push('"');
        this.out.push_str(value);
        this.out.push('"');
        this
    }

    pub(super) fn number(self, key: &str, value: f64) -> Self {
        let this = self.key(key);
        write_number(this.out, value);
        this
    }

    /// Writes a number, or `null`.
    pub(super) fn optional(self, key: &str, value: Option<f64>) -> Self {
        match value {
            Some(value) => self.number(key, value),
            None => self.raw(key, "null"),
        }
    }

    pub(super) fn integer(self, key: &str, value: i64) -> Self {
        let this = self.key(key);
        write(this.out, format_args!("{value}"));
        this
    }

    pub(super) fn unsigned(self, key: &str, value: u64) -> Self {
        let this = self.key(key);
        write(this.out, format_args!("{value}"));
        this
    }

    pub(super) fn flag(self, key: &str, value: bool) -> Self {
        self.raw(key, if value { "true" } else { "false" })
    }

    /// Writes a value that is JSON already.
    pub(super) fn raw(self, key: &str, json: &str) -> Self {
        let this = self.key(key);
        this.out.push_str(json);
        this
    }

    /// Lets `value` write the member's value.
    pub(super) fn with(self, key: &str, value: impl FnOnce(&mut String)) -> Self {
        let this = self.key(key);
        value(this.out);
        this
    }

    fn key(mut self, key: &str) -> Self {
        if !std::mem::take(&mut self.empty) {
            self.out.push(',');
        }
        self.out.push('"');
        self.out.push_str(key);
        self.out.push_str("\":");
        self
    }
}

/// Writes a JSON array, one element per item.
pub(super) fn write_array<T>(
    out: &mut String,
    items: impl IntoIterator<Item = T>,
    mut write_item: impl FnMut(&mut String, T),
) {
    out.push('[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_item(out, item);
    }
    out.push(']');
}

fn write(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("a String takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_the_shorter_notation_as_the_venue_does() {
        let samples = [
            (1000.0, "1.0e3"),
            (1_000_200.0, "1.0002e6"),
            (85500.0, "8.55e4"),
            (35130.0, "35130.0"),
            (200.0, "200.0"),
            (76914.5, "76914.5"),
            (0.00028, "2.8e-4"),
            (-0.0000446, "-4.46e-5"),
            (0.0001, "0.0001"),
            (0.0105, "0.0105"),
            (0.0, "0.0"),
            (-7.0, "-7.0"),
        ];
        for (value, expected) in samples {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn every_number_reads_back_as_itself() {
        let mut random = super::super::random::Random::new(1);
        for _ in 0..20_000 {
            let value = random.normal() * 10_f64.powi(random.below(20) as i32 - 8);
            let text = number(value);
            assert_eq!(text.parse::<f64>().unwrap(), value, "{text}");
        }
    }

    #[test]
    fn an_object_separates_its_members_and_nests() {
        let mut out = String::new();
        Object::begin(&mut out)
            .text("a", "b")
            .integer("n", -1)
            .optional("none", None)
            .with("list", |out| write_array(out, [1.5, 2000.0], write_number))
            .end();
        assert_eq!(out, r#"{"a":"b","n":-1,"none":null,"list":[1.5,2.0e3]}"#);
    }

    fn number(value: f64) -> String {
        let mut out = String::new();
        write_number(&mut out, value);
        out
    }
}
