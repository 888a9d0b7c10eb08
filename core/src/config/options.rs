//! The options of a struct, as its JSON Schema tells them: the doc comments are the reference page.

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
    /// The key, with those of the tables around it: `ping.every`.
    pub(crate) key: String,
    /// What it is: `duration`, `list of text`.
    pub(crate) kind: String,
    /// What it is without being set; `None` when it has to be set.
    pub(crate) default: Option<Value>,
    /// What its doc comment says.
    pub(crate) about: String,
    pub(crate) is_secret: bool,
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
        collect(&self.schema, "", None, &mut options);
        options
    }

    /// Returns the options of the table itself: tables stand for themselves.
    pub(crate) fn top(&self) -> Vec<OptionInfo> {
        properties(&self.schema).map(|(key, schema)| info(key.clone(), key, schema, &self.schema, None)).collect()
    }

    /// Returns the paths of options that hold secrets.
    pub(crate) fn secrets(&self) -> Vec<Vec<String>> {
        let secrets = self.all().into_iter().filter(|option| option.is_secret);
        secrets.map(|option| option.key.split('.').map(String::from).collect()).collect()
    }
}

/// Returns the keys of a schema, with their own schemas.
pub(crate) fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

fn collect(schema: &Value, around: &str, default: Option<&Value>, options: &mut Vec<OptionInfo>) {
    for (key, option) in properties(schema) {
        let name = if around.is_empty() { key.clone() } else { format!("{around}.{key}") };
        let default = default.and_then(|default| default.get(key)).or_else(|| option.get("default"));
        // A table that is there in any case is known by its keys; one that may be left out is an option of its own, too.
        if properties(option).next().is_none() {
            options.push(info(name.clone(), key, option, schema, default));
        }
        collect(unwrapped(option), &name, default.filter(|default| default.is_object()), options);
    }
}

fn info(name: String, key: &str, option: &Value, around: &Value, default: Option<&Value>) -> OptionInfo {
    let required = around.get("required").and_then(Value::as_array);
    let is_required = required.is_some_and(|required| required.iter().any(|name| name == key));
    let default = default.or_else(|| option.get("default")).cloned().unwrap_or_default();
    OptionInfo {
        key: name,
        kind: kind(option),
        default: (!is_required).then_some(default),
        about: description(option).to_owned(),
        is_secret: unwrapped(option).get("x-unit").is_some_and(|unit| unit == "secret"),
    }
}

fn description(schema: &Value) -> &str {
    schema.get("description").and_then(Value::as_str).unwrap_or_default()
}

/// Returns the schema of an option's value when it is set: what is optional may also be null, which TOML has not.
fn unwrapped(schema: &Value) -> &Value {
    let Some(branches) = schema.get("anyOf").and_then(Value::as_array) else { return schema };
    let mut set = branches.iter().filter(|branch| branch.get("type").is_none_or(|kind| kind != "null"));
    match (set.next(), set.next()) {
        (Some(only), None) => only,
        _ => schema,
    }
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
    if let Some(branches) = ["anyOf", "oneOf"].iter().find_map(|of| schema.get(of)).and_then(Value::as_array) {
        let mut kinds: Vec<_> = branches.iter().map(kind).collect();
        kinds.dedup();
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
        _ => "table".into(),
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
