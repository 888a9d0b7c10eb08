//! The options of a struct, as its JSON Schema tells them: the doc comments are the reference page.

use std::borrow::Cow;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value};

/// The options of a table.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    schema: Value,
    /// The keys of the table itself.
    pub(crate) keys: Vec<String>,
}

/// One option.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OptionInfo {
    /// The key, with those of the tables around it: `ping.every`, `instruments[].top`.
    pub(crate) key: String,
    pub(crate) path: Vec<String>,
    /// What it is: `duration`, `list of text`.
    pub(crate) kind: String,
    /// What it is without being set; `None` when it has to be set.
    pub(crate) default: Option<Value>,
    /// What its doc comment says.
    pub(crate) about: String,
    pub(crate) is_secret: bool,
}

impl OptionInfo {
    /// Returns where it may stand.
    pub(crate) fn pattern(&self) -> Pattern {
        Pattern(self.path.clone())
    }

    /// Tells whether a key of the outermost table may mean this one of an inner table: `linger`, `ping_timeout`.
    pub(crate) fn is_nested_as(&self, key: &str) -> bool {
        let is_named = self.path.len() > 1 && !self.path.iter().any(|name| name == ANY_NAME);
        is_named && (self.path.last().is_some_and(|last| last == key) || self.path.join("_") == key)
    }
}

impl Options {
    /// Returns the options of a struct.
    pub(crate) fn of<T: JsonSchema>() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            // Types of two crates may have one name, and an editor does not mind the size.
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        });
        let schema = settings.into_generator().into_root_schema_for::<T>().to_value();
        let keys = properties(&schema).map(|(key, _)| key.clone()).collect();
        Self { schema, keys }
    }

    /// Returns the JSON Schema.
    pub(crate) fn schema(&self) -> &Value {
        &self.schema
    }

    /// Returns what the struct's doc comment says.
    pub(crate) fn about(&self) -> &str {
        description(&self.schema)
    }

    /// Returns every option: tables stand for their keys.
    pub(crate) fn all(&self) -> Vec<OptionInfo> {
        let mut options = Vec::new();
        collect(&self.schema, &[], None, &mut options);
        options
    }

    /// Returns the options of the table itself: tables stand for themselves.
    pub(crate) fn top(&self) -> Vec<OptionInfo> {
        properties(&self.schema).map(|(key, schema)| info(vec![key.clone()], key, schema, &self.schema, None)).collect()
    }

    /// Returns what may stand at a path, in words; nothing for a path that is not known.
    pub(crate) fn kind_at(&self, path: &[String]) -> Option<String> {
        at(&self.schema, path).map(kind)
    }

    /// Returns the words that may stand in the list of this key; `None` where there is no such list.
    pub(crate) fn words_in(&self, key: &str) -> Option<Vec<String>> {
        let quoted = words(at(&self.schema, &[key.to_owned(), "0".to_owned()])?)?;
        Some(quoted.iter().map(|word| word.trim_matches('"').to_owned()).collect())
    }

    /// Returns the keys that the table at a path has to have.
    pub(crate) fn required_at(&self, path: &[String]) -> Vec<String> {
        let Some(schema) = at(&self.schema, path) else { return Vec::new() };
        let tables = [schema].into_iter().chain(branches(schema));
        let required = tables.filter_map(|table| table.get("required")?.as_array()).flatten();
        required.filter_map(|key| key.as_str().map(String::from)).collect()
    }

    /// Returns the options that hold secrets.
    pub(crate) fn secrets(&self) -> Vec<Pattern> {
        let secrets = self.all().into_iter().filter(|option| option.is_secret);
        secrets.map(|option| Pattern(option.path)).collect()
    }
}

/// The path of an option, which may stand in any element of a list, or under any name.
#[derive(Debug, Clone)]
pub(crate) struct Pattern(Vec<String>);

const ELEMENT: &str = "[]";
const ANY_NAME: &str = "NAME";

impl Pattern {
    /// Tells whether the option, or the table that it may be, holds what stands at `path`.
    pub(crate) fn holds(&self, path: &[String]) -> bool {
        path.len() >= self.0.len() && self.0.iter().zip(path).all(|(pattern, name)| fits(pattern, name))
    }

    /// Tells whether the option itself stands at `path`.
    pub(crate) fn is_at(&self, path: &[String]) -> bool {
        path.len() == self.0.len() && self.holds(path)
    }

    /// Tells whether `path` leads to the name of the file that holds the secret: `{ file = "…" }`.
    pub(crate) fn is_file(&self, path: &[String]) -> bool {
        path.len() == self.0.len() + 1 && path.last().is_some_and(|key| key == "file")
    }

    /// Returns the path, if there is but one.
    pub(crate) fn only(&self) -> Option<&[String]> {
        (!self.0.iter().any(|name| name == ELEMENT || name == ANY_NAME)).then_some(&self.0)
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern {
        ELEMENT => name.parse::<usize>().is_ok(),
        ANY_NAME => true,
        exact => exact == name,
    }
}

/// Returns the keys of a schema, with their own schemas.
pub(crate) fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

/// Returns the schema of what stands at a path.
fn at<'s>(schema: &'s Value, path: &[String]) -> Option<&'s Value> {
    let Some((name, rest)) = path.split_first() else { return Some(schema) };
    let schema = unwrapped(schema);
    let child = match name.parse::<usize>() {
        Ok(_) => schema.get("items"),
        Err(_) => schema.get("properties").and_then(|properties| properties.get(name)),
    };
    if let Some(found) = child.or_else(|| schema.get("additionalProperties").filter(|it| it.is_object())) {
        return at(found, rest);
    }
    branches(schema).find_map(|branch| at(branch, path))
}

/// Adds the options of a table, which stands at `around`, and those of the tables in it.
fn collect(table: &Value, around: &[String], default: Option<&Value>, options: &mut Vec<OptionInfo>) {
    for (key, option) in properties(table) {
        let path: Vec<String> = around.iter().cloned().chain([key.clone()]).collect();
        let default = default.and_then(|default| default.get(key)).or_else(|| option.get("default"));
        // A table that is there in any case is known by its keys; one that may be left out, or that takes others than those which
        // are listed, is an option of its own, too.
        if properties(option).next().is_none() || is_optional(option) || option.get("x-unit").is_some() {
            options.push(info(path.clone(), key, option, table, default));
        }
        if !is_secret(option) {
            let default = default.filter(|default| default.is_object());
            collect_within(option, &path, default, options);
        }
    }
}

/// Adds the options of the tables that a value may be, or hold.
fn collect_within(value: &Value, at: &[String], default: Option<&Value>, options: &mut Vec<OptionInfo>) {
    let below = |name: &str| at.iter().cloned().chain([name.to_owned()]).collect::<Vec<_>>();
    collect(value, at, default, options);
    if let Some(items) = value.get("items") {
        collect_within(items, &below(ELEMENT), None, options);
    }
    if let Some(values) = value.get("additionalProperties").filter(|values| values.is_object()) {
        collect_within(values, &below(ANY_NAME), None, options);
    }
    for branch in branches(value) {
        collect_within(branch, at, default, options);
    }
}

fn branches(schema: &Value) -> impl Iterator<Item = &Value> {
    let branches = ["anyOf", "oneOf"].iter().find_map(|of| schema.get(of)).and_then(Value::as_array);
    // What may be left out may also be null, which TOML has not.
    branches.into_iter().flatten().filter(|branch| branch.get("type").is_none_or(|kind| kind != "null"))
}

fn info(path: Vec<String>, key: &str, option: &Value, around: &Value, default: Option<&Value>) -> OptionInfo {
    let required = around.get("required").and_then(Value::as_array);
    let is_required = required.is_some_and(|required| required.iter().any(|name| name == key));
    let default = default.or_else(|| option.get("default")).cloned().unwrap_or_default();
    OptionInfo {
        key: path.iter().map(|part| shown_key(part)).collect::<Vec<_>>().join(".").replace(".[]", "[]"),
        kind: kind(option),
        default: (!is_required).then_some(default),
        about: description(option).to_owned(),
        is_secret: is_secret(option),
        path,
    }
}

/// Writes a key as it has to stand among others: `rdkafka."sasl.password"`.
fn shown_key(key: &str) -> Cow<'_, str> {
    if key.contains('.') { format!("\"{key}\"").into() } else { key.into() }
}

fn is_secret(option: &Value) -> bool {
    unwrapped(option).get("x-unit").is_some_and(|unit| unit == "secret")
}

fn description(schema: &Value) -> &str {
    schema.get("description").and_then(Value::as_str).unwrap_or_default()
}

/// Returns the schema of an option's value when it is set.
fn unwrapped(schema: &Value) -> &Value {
    let mut branches = branches(schema);
    match (branches.next(), branches.next()) {
        (Some(only), None) => only,
        _ => schema,
    }
}

/// Tells whether a table may be left out altogether.
fn is_optional(schema: &Value) -> bool {
    schema.get("type").and_then(Value::as_array).is_some_and(|types| types.iter().any(|one| one == "null"))
}

/// Names the kind of a value.
fn kind(schema: &Value) -> String {
    let schema = unwrapped(schema);
    if let Some(unit) = schema.get("x-unit").and_then(Value::as_str) {
        return unit.to_owned();
    }
    if let Some(words) = words(schema) {
        return words.join(" | ");
    }
    let mut kinds: Vec<_> = branches(schema).map(kind).collect();
    kinds.dedup();
    if !kinds.is_empty() {
        return kinds.join(" | ");
    }
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).filter(|one| *one != "null").collect(),
        _ => Vec::new(),
    };
    let names: Vec<String> = types.into_iter().map(|one| of_type(one, schema)).collect();
    if names.is_empty() { "value".into() } else { names.join(" | ") }
}

fn of_type(one: &str, schema: &Value) -> String {
    match (one, schema.get("items")) {
        ("string", _) => "text".into(),
        ("integer", _) => "whole number".into(),
        ("number", _) => "number".into(),
        ("boolean", _) => "true | false".into(),
        ("array", Some(items)) => format!("list of {}", kind(items)),
        ("array", None) => "list".into(),
        _ => {
            let keys: Vec<_> = properties(schema).map(|(key, _)| key.as_str()).collect();
            match keys.len() {
                0 => "table".into(),
                1..=4 => format!("{{ {} }}", keys.join(", ")),
                _ => format!("{{ {}, … }}", keys[..3].join(", ")),
            }
        }
    }
}

/// Returns the words of an enum, quoted as TOML writes them.
fn words(schema: &Value) -> Option<Vec<String>> {
    if let Some(word) = schema.get("const") {
        return Some(vec![word.to_string()]);
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return Some(words.iter().map(Value::to_string).collect());
    }
    let branches = schema.get("oneOf").and_then(Value::as_array)?;
    let words: Option<Vec<_>> = branches.iter().map(words).collect();
    words.map(|words| words.into_iter().flatten().collect())
}
