//! Changes a client's JSON Schema into one that the CLI and the API both accept, or says why that is
//! impossible.
//!
//! A function's schema is passed on as it is. The schema of a structured answer is compiled by the CLI, with a
//! strict validator of draft 7. If that fails, the CLI asks for no structured answer at all, and does not say
//! so. `format` (2.1.197), `$schema` of another draft, `prefixItems` or an unknown keyword are enough for that.
//! So only keywords that both know are kept. Others that constrain a value are written into its description, for
//! the model. The host checks whether an answer fits the whole schema.

use harness_guest::ApiError;
use serde_json::{Map, Value, json};

use crate::failure::invalid_request;

/// How deep a schema or the arguments of a call may be nested: the host reads JSON of 128 levels,
/// and they lie below some levels of the CLI's own.
const DEPTH_MAX: usize = 100;

/// Keywords whose values are kept as they are.
const PLAIN: [&str; 23] = [
    "$comment",
    "$ref",
    "const",
    "default",
    "description",
    "enum",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "required",
    "title",
    "type",
    "uniqueItems",
];

/// Keywords with a schema, or with `true` or `false`.
const ONE: [&str; 5] = [
    "additionalProperties",
    "contains",
    "items",
    "not",
    "propertyNames",
];

/// Keywords with a list of schemas.
const LIST: [&str; 3] = ["allOf", "anyOf", "oneOf"];

/// Keywords with schemas by name.
const NAMED: [&str; 4] = ["$defs", "definitions", "patternProperties", "properties"];

/// Keywords that constrain nothing, so that nobody misses them.
const DROPPED: [&str; 8] = [
    "$anchor",
    "$id",
    "$schema",
    "$vocabulary",
    "contentMediaType",
    "deprecated",
    "readOnly",
    "writeOnly",
];

/// The schema of a structured answer for the CLI.
///
/// # Errors
///
/// The top of a schema must be an object's, as OpenAI has it, too.
pub(crate) fn for_answer(schema: Map<String, Value>, at: &str) -> Result<Value, ApiError> {
    let schema = resolve_top(schema);
    let wrong = LIST.iter().any(|keyword| schema.contains_key(*keyword));
    let kind = schema.get("type");
    if wrong || kind.is_some_and(|kind| kind != "object") {
        let message = format!("the top of `{at}` must be of type `object`, without alternatives");
        return Err(invalid_request(message, Some(at.to_owned())));
    }
    check_properties(&schema, at)?;
    let mut schema = loosened(schema);
    schema.insert("type".into(), "object".into());
    Ok(schema.into())
}

/// The schema of a function's arguments.
///
/// # Errors
///
/// Names what the API refuses, or what makes the CLI drop a tool without saying so: above all a schema that does
/// not describe an object.
pub(crate) fn for_arguments(
    schema: Option<&str>,
    at: &str,
) -> Result<Map<String, Value>, ApiError> {
    let wrong = |message: String| invalid_request(message, Some(at.to_owned()));
    let Some(schema) = schema else {
        return Ok(of_any_object());
    };
    let mut schema = object(schema, at)?;
    if is_deep(schema.values()) {
        return Err(wrong(format!("`{at}` is nested too deeply")));
    }
    if *schema.entry("type").or_insert("object".into()) != "object" {
        return Err(wrong(format!("`{at}.type` must be `object`")));
    }
    check_properties(&schema, at)?;
    for keyword in LIST {
        if schema.contains_key(keyword) {
            let message =
                format!("`{keyword}` cannot stand at the top of `{at}`: put it below a property");
            return Err(wrong(message));
        }
    }
    Ok(schema)
}

/// The schema of an object about which nothing is known.
pub(crate) fn of_any_object() -> Map<String, Value> {
    Map::from_iter([
        ("type".to_owned(), "object".into()),
        ("properties".to_owned(), json!({})),
    ])
}

/// Reads the JSON of a schema, which must be an object.
pub(crate) fn object(json: &str, at: &str) -> Result<Map<String, Value>, ApiError> {
    serde_json::from_str(json).map_err(|_| {
        let message = format!("`{at}` must be a JSON Schema, an object");
        invalid_request(message, Some(at.to_owned()))
    })
}

/// Whether the API takes the names of the properties at the top of a schema: 1 to 64 letters, digits,
/// `_`, `.` and `-`.
fn check_properties(schema: &Map<String, Value>, at: &str) -> Result<(), ApiError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let good = |name: &str| (1..=64).contains(&name.len()) && name.bytes().all(plain);
    let properties = schema.get("properties").and_then(Value::as_object);
    let mut names = properties.into_iter().flat_map(Map::keys);
    let Some(bad) = names.find(|name| !good(name)) else {
        return Ok(());
    };
    let bad: String = bad.chars().take(64).collect();
    let message = format!("`{at}.properties` has a name that the API does not take: `{bad}`");
    Err(invalid_request(message, Some(at.to_owned())))
}

/// Whether any of these values is nested too deeply.
pub(crate) fn is_deep<'a>(values: impl IntoIterator<Item = &'a Value>) -> bool {
    goes_below(values, DEPTH_MAX)
}

fn goes_below<'a>(values: impl IntoIterator<Item = &'a Value>, levels: usize) -> bool {
    values.into_iter().any(|value| match value {
        Value::Array(list) => levels == 0 || goes_below(list, levels - 1),
        Value::Object(map) => levels == 0 || goes_below(map.values(), levels - 1),
        _ => false,
    })
}

/// A top that only refers to one of its definitions, as for recursive types, is that definition:
/// the API wants to see the type.
fn resolve_top(mut schema: Map<String, Value>) -> Map<String, Value> {
    let reference = schema.get("$ref").and_then(Value::as_str);
    let Some((group, name)) = reference
        .and_then(|reference| reference.strip_prefix("#/")?.split_once('/'))
        .map(|(group, name)| (group.to_owned(), name.to_owned()))
    else {
        return schema;
    };
    let target = schema.get(&group).and_then(|group| group.get(&name));
    let Some(Value::Object(target)) = target.cloned() else {
        return schema;
    };
    schema.remove("$ref");
    for (key, value) in target {
        schema.entry(key).or_insert(value);
    }
    schema
}

fn loosened(schema: Map<String, Value>) -> Map<String, Value> {
    let mut kept = Map::new();
    let mut told = Vec::new();
    // With `prefixItems`, `items` describes only the items after those. Draft 7 would apply it to all of them.
    let is_tuple = schema.contains_key("prefixItems");
    for (key, value) in schema {
        let known = key.as_str();
        let value = match value {
            value if PLAIN.contains(&known) => value,
            value if is_tuple && known == "items" => {
                told.push(format!("{key}: {value}"));
                continue;
            }
            value @ (Value::Object(_) | Value::Bool(_)) if ONE.contains(&known) => loose(value),
            Value::Array(list) if LIST.contains(&known) => list.into_iter().map(loose).collect(),
            Value::Object(map) if NAMED.contains(&known) => {
                map.into_iter().map(|(name, s)| (name, loose(s))).collect()
            }
            _ if DROPPED.contains(&known) => continue,
            value => {
                told.push(format!("{key}: {value}"));
                continue;
            }
        };
        kept.insert(key, value);
    }
    if !told.is_empty() {
        let own = match kept.get("description") {
            Some(Value::String(own)) if !own.is_empty() => format!("{own} "),
            _ => String::new(),
        };
        let description = format!("{own}({})", told.join(", "));
        kept.insert("description".into(), description.into());
    }
    kept
}

fn loose(schema: Value) -> Value {
    match schema {
        Value::Object(schema) => loosened(schema).into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(schema: Value) -> Result<Value, ApiError> {
        for_answer(schema.as_object().unwrap().clone(), "s")
    }

    #[test]
    fn what_the_validator_does_not_know_goes_into_the_description() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "properties": {
                "when": {"type": "string", "format": "date", "description": "The day"},
                "pair": {"type": "array", "prefixItems": [{"type": "integer"}], "items": false},
                "any": {"anyOf": [{"type": "string", "x-order": 1}, {"type": "null"}]},
            },
            "additionalProperties": false,
        });
        assert_eq!(
            read(schema).unwrap(),
            json!({
                "properties": {
                    "when": {"type": "string", "description": "The day (format: \"date\")"},
                    "pair": {"type": "array", "description": "(prefixItems: [{\"type\":\"integer\"}], items: false)"},
                    "any": {"anyOf": [{"type": "string", "description": "(x-order: 1)"}, {"type": "null"}]},
                },
                "additionalProperties": false,
                "type": "object",
            })
        );
    }

    #[test]
    fn a_top_that_refers_is_what_it_refers_to() {
        let node = json!({"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}});
        let schema = read(json!({"$ref": "#/$defs/Node", "$defs": {"Node": node}})).unwrap();
        assert_eq!(schema["properties"], node["properties"]);
        assert_eq!(schema["$defs"]["Node"], node);
    }

    #[test]
    fn the_top_must_be_an_object() {
        for bad in [
            json!({"type": "array"}),
            json!({"anyOf": [{"type": "object"}]}),
        ] {
            assert_eq!(read(bad).unwrap_err().param.as_deref(), Some("s"));
        }
        assert!(read(json!({})).is_ok());
    }
}
