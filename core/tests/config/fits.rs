//! Whether a value fits a JSON Schema, as far as ours go. Also for the tests of the program.

use serde_json::Value;

/// As much of JSON Schema as is written here.
pub(crate) fn fits(schema: &Value, value: &Value) -> bool {
    let Some(schema) = schema.as_object() else { return schema != &Value::Bool(false) };
    schema.iter().all(|(key, rule)| match key.as_str() {
        "type" => rule.as_array().map_or_else(|| is_a(value, rule), |rules| rules.iter().any(|rule| is_a(value, rule))),
        "const" => rule == value,
        "enum" => rule.as_array().unwrap().contains(value),
        "anyOf" => rule.as_array().unwrap().iter().any(|branch| fits(branch, value)),
        "required" => value
            .as_object()
            .is_none_or(|table| rule.as_array().unwrap().iter().all(|key| table.contains_key(key.as_str().unwrap()))),
        "properties" => value.as_object().is_none_or(|table| {
            table.iter().all(|(key, value)| rule.get(key).is_none_or(|schema| fits(schema, value)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|table| {
            let known = |key: &String| schema.get("properties").is_some_and(|known| known.get(key).is_some());
            table.iter().filter(|(key, _)| !known(key)).all(|(_, value)| fits(rule, value))
        }),
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| fits(rule, item))),
        // Only the one for variables is looked at.
        "pattern" if rule == "\\$\\{" => value.as_str().is_none_or(|text| text.contains("${")),
        "minProperties" | "pattern" | "description" | "default" | "title" | "$schema" | "format" | "minimum"
        | "maximum" | "minLength" => true,
        other => panic!("the schema uses `{other}`, which this test does not know"),
    })
}

fn is_a(value: &Value, kind: &Value) -> bool {
    match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" | "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("unknown type `{other}`"),
    }
}
