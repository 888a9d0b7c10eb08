//! `schema`: the JSON Schema of the files, for editors.

use serde_json::{Map, Value, json};

use super::{
    derived::DerivedConfig,
    driver::SpoolConfig,
    host::Host,
    load::PipelineConfig,
    options::{Options, properties},
    stage,
};
use crate::catalog::{Catalog, Role};

/// Returns the JSON Schema of a pipeline's file.
pub fn schema(catalog: &Catalog) -> Value {
    json!({
        "$schema": DRAFT,
        "title": "Tidegate pipeline",
        "type": "object",
        "properties": {
            "pipeline": fillable(Options::of::<PipelineConfig>().schema()),
            "source": stages(catalog, Role::Source),
            "spool": fillable(Options::of::<SpoolConfig>().schema()),
            "table": { "type": "object", "additionalProperties": fillable(Options::of::<DerivedConfig>().schema()) },
            "sink": stages(catalog, Role::Sink),
        },
        "required": ["pipeline", "source", "sink"],
        "additionalProperties": false,
    })
}

/// Returns the JSON Schema of the host file.
pub fn host_schema(catalog: &Catalog) -> Value {
    let mut schema = fillable(Options::of::<Host>().schema());
    let defaults = |role: Role| {
        let mut all = Map::new();
        for name in catalog.names(role) {
            let parts = stage::options(catalog, role, name).unwrap_or_default();
            let table = merged(&parts, false);
            all.extend(properties(&table).map(|(key, value)| (key.clone(), value.clone())));
            all.insert(name.to_owned(), table);
        }
        json!({ "type": "object", "properties": all })
    };
    schema["$schema"] = DRAFT.into();
    schema["title"] = "Tidegate host file".into();
    schema["properties"]["defaults"] = json!({
        "type": "object",
        "description": "What counts for every pipeline that says nothing else.",
        "properties": {
            "source": defaults(Role::Source),
            "sink": defaults(Role::Sink),
            "spool": fillable(Options::of::<SpoolConfig>().schema()),
        },
        "additionalProperties": false,
    });
    schema
}

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Returns the schema of `[source.NAME]` or `[sink.NAME]`: NAME is the type, or `type` says it.
fn stages(catalog: &Catalog, role: Role) -> Value {
    let (mut by_name, mut by_type) = (Map::new(), Vec::new());
    for name in catalog.names(role) {
        let parts = stage::options(catalog, role, name).unwrap_or_default();
        let mut table = merged(&parts, true);
        table["properties"]["type"] = json!({ "const": name });
        let mut typed = table.clone();
        if let Some(required) = typed["required"].as_array_mut() {
            required.push("type".into());
        }
        by_type.push(typed);
        by_name.insert(name.to_owned(), table);
    }
    // A name that is a type may still stand for another one.
    let properties: Map<_, _> = by_name
        .into_iter()
        .map(|(name, table)| {
            let others = by_type.iter().filter(|other| other["properties"]["type"]["const"] != name.as_str());
            let branches: Vec<_> = [table].into_iter().chain(others.cloned()).collect();
            (name, json!({ "anyOf": branches }))
        })
        .collect();
    json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": { "anyOf": by_type },
        "minProperties": 1,
    })
}

/// Returns one schema of all keys of a stage.
fn merged(parts: &[Options], with_required: bool) -> Value {
    let (mut keys, mut required) = (Map::new(), Vec::new());
    for part in parts {
        keys.extend(properties(part.schema()).map(|(key, value)| (key.clone(), fillable(value))));
        if with_required {
            required.extend(part.schema().get("required").and_then(Value::as_array).into_iter().flatten().cloned());
        }
    }
    let about = parts.first().map(Options::about).unwrap_or_default();
    json!({
        "type": "object",
        "description": about,
        "properties": keys,
        "required": required,
        "additionalProperties": false,
    })
}

/// Returns a schema that takes `"${NAME}"` wherever it takes a value.
fn fillable(schema: &Value) -> Value {
    let Value::Object(schema) = schema else { return schema.clone() };
    let mut filled = Map::new();
    for (key, value) in schema {
        let value = match (key.as_str(), value) {
            ("properties", Value::Object(keys)) => {
                keys.iter().map(|(key, value)| (key.clone(), fillable(value))).collect::<Map<_, _>>().into()
            }
            ("anyOf" | "oneOf" | "prefixItems", Value::Array(branches)) => {
                branches.iter().map(fillable).collect::<Vec<_>>().into()
            }
            ("items" | "additionalProperties", value) => fillable(value),
            ("pattern", Value::String(pattern)) => format!("({pattern})|\\$\\{{").into(),
            // An editor shows the default; the names of our units mean nothing to it.
            ("x-unit", _) => continue,
            (_, value) => value.clone(),
        };
        // What comes from a variable may fit several words, so one of them or more must.
        filled.insert(if key == "oneOf" { "anyOf".into() } else { key.clone() }, value);
    }
    let is_word = filled.contains_key("enum") || filled.contains_key("const");
    let is_number = filled.get("type").is_some_and(|kind| {
        let takes = |one: &Value| ["integer", "number", "boolean"].iter().any(|name| one == name);
        takes(kind) || kind.as_array().is_some_and(|kinds| kinds.iter().any(takes))
    });
    if !is_word && !is_number {
        return filled.into();
    }
    let about = filled.remove("description");
    let default = filled.remove("default");
    let mut either = json!({ "anyOf": [filled, { "type": "string", "pattern": "\\$\\{" }] });
    if let Some(about) = about {
        either["description"] = about;
    }
    if let Some(default) = default {
        either["default"] = default;
    }
    either
}
