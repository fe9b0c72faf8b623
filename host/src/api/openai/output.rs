//! Reads what an answer will be checked against: `response_format`, and the schemas of `tools`.
//!
//! The schemas come from clients, so what they cost is bounded: how large they are with their
//! references followed, and what their patterns take to compile and to match.

use guests::request::Tool;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::bounded_json::{Budget, each_item};
use super::request::{PARTS_MAX as PARTS_MAX_ALL, read_part, wrong_type};
use super::{shapes, tools};
use crate::dispatch::output_schema::{OutputSchema, Schema};
use crate::failure::Failure;

/// The most parts (JSON values) of all `strict` schemas of a request together. Each reference is followed, and
/// counts as the parts that it leads to, because a validator may look at all of them. OpenAI allows 5,000
/// properties.
const PARTS_MAX: usize = 50_000;

/// Keywords for other kinds of reference than `$ref`. A `strict` schema may not use them, because this module
/// does not count what they lead to.
const UNCOUNTED: [&str; 5] = [
    "$anchor",
    "$dynamicAnchor",
    "$dynamicRef",
    "$recursiveAnchor",
    "$recursiveRef",
];

/// Keywords whose value maps names to schemas. The names themselves are no keywords.
const NAMED: [&str; 5] = [
    "$defs",
    "definitions",
    "dependentSchemas",
    "patternProperties",
    "properties",
];

/// Keywords whose values are no schemas.
const DATA: [&str; 4] = ["const", "default", "enum", "examples"];

/// The most references that lead one to the next, and the most levels when they are followed. Both this module
/// and the validator walk a schema recursively, so the depth must be bounded.
const REFERENCES_MAX: usize = 100;
const LEVELS_MAX: usize = 500;

/// The most patterns in all `strict` schemas of a request together.
const PATTERNS_MAX: usize = 100;

/// What was read of a request.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// What its answer will be checked against.
    pub(super) output: OutputSchema,
    /// Its tools.
    pub(super) tools: Vec<Tool>,
}

/// Reads `response_format` from `fields`, and the tools from their JSON text `tools`.
///
/// # Errors
///
/// Names a schema that is not valid, `strict` or not, or a `strict` one that is too large.
pub(super) fn read(
    fields: &Map<String, Value>,
    tools: Option<&RawValue>,
    parts: &Budget,
) -> Result<Read, Failure> {
    let mut read = Read::default();
    let output = &mut read.output;
    let mut cost = Cost::default();
    let format = &fields.get("response_format").unwrap_or(&Value::Null);
    output.is_object = format["type"] == "json_object";
    let json_schema = &format["json_schema"];
    if format["type"] == "json_schema" && !json_schema["schema"].is_null() {
        let at = "response_format.json_schema.schema";
        output.content = checked(
            &json_schema["schema"],
            &json_schema["strict"],
            at,
            &mut cost,
        )?;
    }
    let Some(text) = tools else {
        return Ok(read);
    };
    let other = || wrong_type("tools", "an array", text);
    each_item(text, other, |i, text| {
        let at = format!("tools[{i}]");
        let tool = read_part(parts, text, &at, PARTS_MAX_ALL)?;
        shapes::TOOL.check(&tool, &at)?;
        let function = &tool["function"];
        if !function["parameters"].is_null() {
            let at = format!("{at}.function.parameters");
            let schema = checked(&function["parameters"], &function["strict"], &at, &mut cost)?;
            if let (Some(name), Some(schema)) = (function["name"].as_str(), schema) {
                read.output.arguments.insert(name.to_owned(), schema);
            }
        }
        read.tools.push(tools::tool(&at, tool)?);
        Ok(())
    })?;
    Ok(read)
}

/// What all `strict` schemas of a request take together.
#[derive(Default)]
struct Cost {
    parts: usize,
    patterns: usize,
}

/// Checks that `schema` is a valid JSON Schema. Returns it, as text, if it is `strict`.
fn checked(
    schema: &Value,
    strict: &Value,
    at: &str,
    cost: &mut Cost,
) -> Result<Option<Schema>, Failure> {
    let wrong = |what: &str| {
        let what: String = what.chars().take(200).collect();
        Failure::invalid(at, format!("`{at}` is not a valid JSON Schema: {what}"))
    };
    // The API reads every schema as this draft, whatever its `$schema` says.
    if let Err(error) = jsonschema::draft202012::meta::validate(schema) {
        return Err(wrong(&error.to_string()));
    }
    let is_strict = *strict == Value::Bool(true);
    let mut size = SchemaSize::of(schema, is_strict);
    size.follow(schema);
    if size.goes_outside {
        return Err(wrong("a `$ref` must begin with `#`"));
    }
    if !is_strict {
        return Ok(None);
    }
    if size.is_uncounted {
        let message = format!(
            "`{at}` cannot be `strict`: refer by `$ref` with a JSON pointer only, and use `$id` only at the top"
        );
        return Err(Failure::invalid(at, message));
    }
    cost.parts = cost.parts.saturating_add(size.parts);
    cost.patterns = cost.patterns.saturating_add(size.patterns);
    if cost.parts > PARTS_MAX || cost.patterns > PATTERNS_MAX || size.is_deep {
        let message = format!(
            "`{at}` is too large to be `strict`: all strict schemas of a request together may have {PARTS_MAX} parts, references followed, and {PATTERNS_MAX} patterns"
        );
        return Err(Failure::invalid(at, message));
    }
    Ok(Some(Schema {
        at: at.to_owned(),
        text: schema.to_string(),
    }))
}

/// The size of a schema.
struct SchemaSize<'a> {
    top: &'a Value,
    /// Whether references are followed. They are followed in `strict` schemas only. Answers are not checked
    /// against other schemas, so references in those cost nothing.
    follows: bool,
    parts: usize,
    patterns: usize,
    is_deep: bool,
    goes_outside: bool,
    is_uncounted: bool,
    levels: usize,
    /// The references that are being followed.
    path: Vec<&'a str>,
}

impl<'a> SchemaSize<'a> {
    fn of(top: &'a Value, follows: bool) -> Self {
        SchemaSize {
            top,
            follows,
            parts: 0,
            patterns: 0,
            is_deep: false,
            goes_outside: false,
            is_uncounted: false,
            levels: 0,
            path: Vec::new(),
        }
    }

    /// Counts the parts below `value`.
    fn follow(&mut self, value: &'a Value) {
        self.parts = self.parts.saturating_add(1);
        self.is_deep |= self.levels > LEVELS_MAX;
        if self.parts > PARTS_MAX || self.is_deep {
            return;
        }
        self.levels += 1;
        match value {
            Value::Array(list) => list.iter().for_each(|item| self.follow(item)),
            Value::Object(map) => {
                self.note(map);
                for (key, value) in map {
                    match value {
                        Value::Object(named) if NAMED.contains(&key.as_str()) => {
                            named.values().for_each(|value| self.follow(value));
                        }
                        _ if DATA.contains(&key.as_str()) => {}
                        value => self.follow(value),
                    }
                }
            }
            _ => {}
        }
        self.levels -= 1;
    }

    /// Counts the patterns of one schema, and follows its reference. Any object below a keyword that is not
    /// known here counts as a schema, too.
    fn note(&mut self, schema: &'a Map<String, Value>) {
        let by_name = schema.get("patternProperties").and_then(Value::as_object);
        self.patterns += usize::from(schema.contains_key("pattern")) + by_name.map_or(0, Map::len);
        self.is_uncounted |= UNCOUNTED.iter().any(|key| schema.contains_key(*key))
            || (self.levels > 1 && schema.get("$id").is_some_and(Value::is_string));
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            self.refer(reference);
        }
    }

    /// Follows a reference, unless it is being followed already. A schema that refers to itself needs no other
    /// bound: the validator follows it only as deep as the answer goes.
    fn refer(&mut self, reference: &'a str) {
        let Some(pointer) = reference.strip_prefix('#') else {
            self.goes_outside = true;
            return;
        };
        if !self.follows || self.path.contains(&pointer) {
            return;
        }
        match self.top.pointer(pointer) {
            _ if self.path.len() == REFERENCES_MAX => self.is_deep = true,
            Some(target) => {
                self.path.push(pointer);
                self.follow(target);
                self.path.pop();
            }
            None => self.is_uncounted = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn expect(fields: Value) -> Result<OutputSchema, Failure> {
        let tools = fields.get("tools").map(Value::to_string);
        let tools = tools
            .as_deref()
            .map(|text| serde_json::from_str(text).unwrap());
        read(
            fields.as_object().unwrap(),
            tools,
            &Budget::new(PARTS_MAX_ALL),
        )
        .map(|read| read.output)
    }

    #[test]
    fn what_is_not_strict_is_not_checked() {
        let format = json!({"type": "json_schema", "json_schema": {"schema": {"type": "object"}}});
        assert!(
            expect(json!({ "response_format": format }))
                .unwrap()
                .is_empty()
        );
        let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
        assert!(expect(json!({ "tools": tools })).unwrap().is_empty());
    }

    #[test]
    fn what_would_take_for_ever_cannot_be_strict() {
        let twice = |i: usize| json!({"allOf": [{"$ref": format!("#/$defs/a{i}")}, {"$ref": format!("#/$defs/a{i}")}]});
        let mut defs: Map<String, Value> =
            (0..40).map(|i| (format!("a{i}"), twice(i + 1))).collect();
        defs.insert("a40".into(), json!({}));
        let doubling =
            json!({"type": "object", "properties": {"x": {"$ref": "#/$defs/a0"}}, "$defs": defs});
        let patterns: Map<String, Value> = (0..200)
            .map(|i| {
                (
                    format!("p{i}"),
                    json!({"pattern": format!("\\p{{L}}{{60}}{i}")}),
                )
            })
            .collect();
        let many = json!({"type": "object", "properties": patterns});
        let nested = |i: usize| {
            let bottom = json!({"$ref": format!("#/$defs/a{i}")});
            (0..50).fold(bottom, |below, _| json!({ "not": below }))
        };
        let defs: Map<String, Value> = (0..90).map(|i| (format!("a{i}"), nested(i + 1))).collect();
        let deep =
            json!({"type": "object", "properties": {"x": {"$ref": "#/$defs/a0"}}, "$defs": defs});
        let twice_default =
            |i: usize| json!({"properties": {"default": twice(i), "enum": twice(i)}});
        let defs: Map<String, Value> = (0..40)
            .map(|i| (format!("a{i}"), twice_default(i + 1)))
            .collect();
        let hidden =
            json!({"type": "object", "properties": {"x": {"$ref": "#/$defs/a0"}}, "$defs": defs});
        let anchored = |i: usize| json!({"$anchor": format!("a{i}"), "allOf": [{"$ref": format!("#a{}", i + 1)}, {"$ref": format!("#a{}", i + 1)}]});
        let defs: Map<String, Value> = (0..40).map(|i| (format!("d{i}"), anchored(i))).collect();
        let anchors =
            json!({"type": "object", "properties": {"x": {"$ref": "#/$defs/d0"}}, "$defs": defs});
        let names: Map<String, Value> = (0..200)
            .map(|i| (format!("\\p{{L}}{{40}}{i}"), json!(true)))
            .collect();
        let named = json!({"type": "object", "patternProperties": names});
        for schema in [doubling, hidden, many, deep, anchors, named] {
            let format = |strict: bool| json!({"response_format": {"type": "json_schema", "json_schema": {"strict": strict, "schema": schema}}});
            let failure = expect(format(true)).unwrap_err();
            assert!(failure.message.contains("strict"), "{}", failure.message);
            assert!(expect(format(false)).is_ok());
        }
    }

    #[test]
    fn what_looks_like_a_reference_in_data_is_none() {
        let schema = json!({"type": "object", "default": {"$ref": "./base.yaml"}, "examples": [{"pattern": "("}]});
        let tools = json!([{"type": "function", "function": {"name": "f", "strict": true, "parameters": schema}}]);
        assert!(expect(json!({ "tools": tools })).is_ok());
    }

    #[test]
    fn what_is_no_schema_is_refused_by_its_place() {
        let schema = |schema: Value| json!({"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}});
        for bad in [
            json!({"type": "objekt"}),
            json!({"properties": 5}),
            json!({"$ref": "http://127.0.0.1:1/x"}),
            json!({"$ref": "file:///etc/passwd"}),
            json!("text"),
        ] {
            let failure = expect(schema(bad.clone())).unwrap_err();
            let at = "response_format.json_schema.schema";
            assert_eq!(failure.param.as_deref(), Some(at), "{bad}");
        }
        let tools =
            json!([{"type": "function", "function": {"name": "f", "parameters": {"type": 1}}}]);
        let failure = expect(json!({ "tools": tools })).unwrap_err();
        assert_eq!(
            failure.param.as_deref(),
            Some("tools[0].function.parameters")
        );
    }

    #[test]
    fn bounds_are_those_of_a_whole_request() {
        let tool = |i: usize| {
            let properties: Map<String, Value> = (0..30)
                .map(|p| (format!("p{p}"), json!({"pattern": "a"})))
                .collect();
            json!({"type": "function", "function": {"name": format!("f{i}"), "strict": true,
                "parameters": {"type": "object", "properties": properties}}})
        };
        let tools =
            |count: usize| expect(json!({"tools": (0..count).map(tool).collect::<Vec<_>>()}));
        assert!(tools(3).is_ok());
        let failure = tools(4).unwrap_err();
        assert_eq!(
            failure.param.as_deref(),
            Some("tools[3].function.parameters")
        );
    }
}
