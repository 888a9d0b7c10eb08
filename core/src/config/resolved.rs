//! `check --resolved`: every value in force, and where it comes from.

use std::fmt::Write;

use serde_json::Value;

use super::{
    document::Path,
    layers::{Layers, Origin, join},
    load::Loaded,
    problem::Look,
    secret,
    wrap::{wide, wrapped},
};

/// A value in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The key with its tables: `source.deribit.ping.every`.
    key: String,
    /// As TOML writes it, secrets hidden.
    value: String,
    origin: String,
}

/// Leaves out the values of a table that has no use.
pub(super) fn leave_out(settings: &mut Vec<Setting>, table: &str) {
    settings.retain(|setting| setting.key.split('.').next() != Some(table));
}

/// Adds the values of a struct that was read from `layers`, whose table stands at `at`.
pub(super) fn collect(layers: &Layers<'_>, at: &[String], values: &Value, settings: &mut Vec<Setting>) {
    collect_below(layers, at, &Vec::new(), values, settings);
}

fn collect_below(layers: &Layers<'_>, at: &[String], path: &Path, value: &Value, settings: &mut Vec<Setting>) {
    if let Value::Object(table) = value
        && !table.is_empty()
    {
        for (key, value) in table {
            collect_below(layers, at, &join(path, std::slice::from_ref(key)), value, settings);
        }
        return;
    }
    let is_secret = path.iter().any(|part| secret::named_like_one(part));
    settings.push(Setting {
        key: join(at, path).join("."),
        value: if is_secret && value.is_string() { format!("{:?}", secret::HIDDEN) } else { in_toml(value) },
        origin: match layers.origin(path) {
            Origin::Default => "default".into(),
            Origin::Variable(name) => name,
            Origin::Line { spot, variables } => {
                let place = format!("{}:{}", spot.file.path, spot.line());
                if variables.is_empty() { place } else { format!("{place}, {}", variables.join(" ")) }
            }
        },
    });
}

/// Writes a value as TOML does.
pub(super) fn in_toml(value: &Value) -> String {
    match value {
        Value::Null => "not set".into(),
        Value::String(text) => quoted(&secret::without_password(text)),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(in_toml).collect::<Vec<_>>().join(", ")),
        Value::Object(table) if table.is_empty() => "{}".into(),
        Value::Object(table) => {
            let set = table.iter().filter(|(_, value)| !value.is_null());
            let entries: Vec<_> = set.map(|(key, value)| format!("{key} = {}", in_toml(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
    }
}

/// Writes a text as a basic string.
fn quoted(text: &str) -> String {
    let mut written = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => written.push_str("\\\""),
            '\\' => written.push_str("\\\\"),
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            '\t' => written.push_str("\\t"),
            control if control.is_control() => {
                _ = write!(written, "\\u{:04X}", u32::from(control));
            }
            other => written.push(other),
        }
    }
    written.push('"');
    written
}

/// Returns every value in force and where it comes from: the default, a line, or a variable. What is wider than `look` says
/// goes on in the next line.
pub fn resolved(loaded: &Loaded, look: Look) -> String {
    let mut text = String::new();
    section(&mut text, "host", &loaded.host_settings, look.width);
    for pipeline in &loaded.pipelines {
        let title = format!("pipeline {} ({})", pipeline.name, pipeline.file.display());
        section(&mut text, &title, &pipeline.settings, look.width);
    }
    text
}

fn section(text: &mut String, title: &str, settings: &[Setting], most: usize) {
    if settings.is_empty() {
        return;
    }
    let width = |of: fn(&Setting) -> &str| settings.iter().map(|setting| wide(of(setting))).max().unwrap_or(0);
    let keys = width(|setting| &setting.key);
    // Most values are short, and most are defaults: these stay in line.
    let room = most.saturating_sub(2 + keys + 2 + 2 + wide("default"));
    let values = width(|setting| &setting.value).min(room).min(WIDEST_VALUE);
    text.extend([title, "\n"]);
    for Setting { key, value, origin } in settings {
        let line = format!("  {key:keys$}  {value:values$}  {origin}");
        if wide(&line) <= most {
            text.extend([&line, "\n"]);
            continue;
        }
        let beside = format!("  {key:keys$}  {value}");
        if wide(&beside) <= most {
            text.extend([&beside, "\n", INDENT, origin, "\n"]);
        } else {
            text.extend(["  ", key, "\n", &wrapped(INDENT, value, INDENT, most), "\n", INDENT, origin, "\n"]);
        }
    }
}

/// A list of many instruments leaves the others' columns alone.
const WIDEST_VALUE: usize = 60;
const INDENT: &str = "      ";
