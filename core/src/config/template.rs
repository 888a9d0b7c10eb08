//! `new`: a first pipeline, every option in it with its default behind a `#`.

use std::fmt::Write;

use serde_json::Value;

use super::{
    driver::SpoolConfig,
    options::{OptionInfo, Options},
    reference::unknown,
    resolved::in_toml,
    stage,
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
    let mut text = format!(
        "# {source} → {sink}. Behind each # stands an option with its default; more of each: tidegate list {source}\n\
         [pipeline]\n\
         name = \"{}-{}\"                             # keys the spool and the position in the store: choose it once\n",
        source.replace('_', "-"),
        sink.replace('_', "-"),
    );
    stage(&mut text, catalog, Role::Source, source)?;
    text.push_str("\n[spool]\n");
    options(&mut text, &[Options::of::<SpoolConfig>()], "");
    stage(&mut text, catalog, Role::Sink, sink)?;
    Ok(text)
}

fn stage(text: &mut String, catalog: &Catalog, role: Role, name: &str) -> Result<()> {
    let (Some(entry), Some(all)) = (catalog.entry(role, name), stage::options(catalog, role, name)) else {
        return Err(unknown(catalog, name, &[role]));
    };
    let example = entry.example.trim();
    // Writing to a text never fails.
    _ = writeln!(text, "\n[{}.{name}]", role.table());
    if !example.is_empty() {
        _ = writeln!(text, "{example}");
    }
    options(text, &all, example);
    Ok(())
}

/// Writes the options that the example does not set.
fn options(text: &mut String, all: &[Options], example: &str) {
    let is_set = |key: &str| example.lines().any(|line| line.split(['=', '.', ' ']).next() == Some(key));
    for option in all.iter().flat_map(Options::top).filter(|option| !is_set(&option.key)) {
        let line = format!("# {} = {}", option.key, default(&option));
        _ = writeln!(text, "{line:<47} # {}", first_sentence(&option.about));
    }
}

/// Returns the default as TOML, or a hint where nothing is the default.
fn default(option: &OptionInfo) -> String {
    match &option.default {
        Some(Value::Null) | None => format!("… ({})", option.kind),
        Some(value) => in_toml(&without_nulls(value)),
    }
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
