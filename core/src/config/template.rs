//! `new`: a first pipeline, every option in it with its default behind a `#`.

use serde_json::Value;

use super::{
    driver::SpoolConfig,
    options::{OptionInfo, Options},
    reference::unknown,
    resolved::in_toml,
    stage,
    wrap::{wide, wrapped},
};
use crate::{
    Result,
    catalog::{Catalog, Role},
};

/// Returns a commented TOML file that wires a source to a sink and passes `check` once the variables it names are set.
///
/// # Errors
///
/// `Config` when there is no source or sink of this name.
pub fn template(catalog: &Catalog, source: &str, sink: &str) -> Result<String> {
    let name = [source, sink].map(|part| part.replace('_', "-")).join("-");
    let mut text = String::new();
    let about = format!(
        "{source} → {sink}. Behind each # stands an option with its default, in deeper lines what it is for; more of each: \
         tidegate list {source}"
    );
    comment(&mut text, "# ", &about);
    text.push_str("\n[pipeline]\n");
    comment(&mut text, "# ", "The name keys the spool and the position in the store: choose it once.");
    text += &format!("name = \"{name}\"\n");
    // A source that is a log itself has no spool, and nothing of it is left out.
    let is_log = catalog.logs.has(source);
    stage(&mut text, catalog, Role::Source, source, &[])?;
    if !is_log {
        text.push_str("\n[spool]\n");
        options(&mut text, &[Options::of::<SpoolConfig>()], "", &[]);
    }
    stage(&mut text, catalog, Role::Sink, sink, if is_log { &["start"] } else { &[] })?;
    Ok(text)
}

/// Writes a stage's table, but for some of its options.
fn stage(text: &mut String, catalog: &Catalog, role: Role, name: &str, without: &[&str]) -> Result<()> {
    let (Some(entry), Some(all)) = (catalog.entry(role, name), stage::options(catalog, role, name)) else {
        return Err(unknown(catalog, name, &[role], []));
    };
    let example = entry.example.trim();
    *text += &format!("\n[{}.{name}]\n", role.table());
    if !example.is_empty() {
        text.extend([example, "\n"]);
    }
    options(text, &all, example, without);
    Ok(())
}

/// Writes the options that the example does not set.
fn options(text: &mut String, all: &[Options], example: &str, without: &[&str]) {
    let is_set = |key: &str| {
        without.contains(&key) || example.lines().any(|line| line.split(['=', '.', ' ']).next() == Some(key))
    };
    for option in all.iter().flat_map(Options::top).filter(|option| !is_set(&option.key)) {
        let lines = setting(&option);
        let about = first_sentence(&option.about);
        let beside = lines.first().map(|line| format!("{line:<COLUMN$} # {about}"));
        match beside.filter(|line| lines.len() == 1 && wide(line) <= WIDTH) {
            Some(line) => text.extend([line.as_str(), "\n"]),
            None => {
                lines.iter().for_each(|line| text.extend([line, "\n"]));
                comment(text, DEEPER, &about);
            }
        }
    }
}

/// Returns the line of an option with its default, or a hint where nothing is the default. A wide table is written by its
/// keys.
fn setting(option: &OptionInfo) -> Vec<String> {
    let value = match &option.default {
        Some(Value::Null) | None => return vec![format!("# {} = … ({})", option.key, option.kind)],
        Some(value) => without_nulls(value),
    };
    let line = format!("# {} = {}", option.key, in_toml(&value));
    match value.as_object().filter(|_| wide(&line) > WIDTH) {
        Some(table) => {
            table.iter().map(|(key, value)| format!("# {}.{key} = {}", option.key, in_toml(value))).collect()
        }
        None => vec![line],
    }
}

fn comment(text: &mut String, indent: &str, words: &str) {
    text.extend([&wrapped(indent, words, indent, WIDTH), "\n"]);
}

fn without_nulls(value: &Value) -> Value {
    let Some(table) = value.as_object() else { return value.clone() };
    let set = table.iter().filter(|(_, value)| !value.is_null());
    set.map(|(key, value)| (key.clone(), without_nulls(value))).collect::<serde_json::Map<_, _>>().into()
}

fn first_sentence(about: &str) -> String {
    let about = about.replace('\n', " ");
    let end = about.find(". ").unwrap_or(about.len());
    about[..end].trim_end_matches('.').to_owned()
}

/// No line of comments is wider: a file is read beside others.
const WIDTH: usize = 80;
/// Where what an option is for begins, beside it.
const COLUMN: usize = 38;
/// And below it.
const DEEPER: &str = "#     ";
