//! What the client may rely on in an answer, and what is therefore checked before the answer is
//! called done: JSON by a schema, and arguments of functions that are `strict`.
//!
//! The schemas come from clients, so what they cost is bounded: how large they are with their
//! references followed, and what their patterns take to compile and to match.

use std::collections::HashMap;

use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value, json};

use super::aggregate::Aggregate;
use crate::blocking;
use crate::failure::{Failure, Kind};
use crate::guests::types::FinishReason;

/// The largest `strict` schema, in its parts with each reference followed: a validator may look at
/// each of them. OpenAI allows 5,000 properties.
const PARTS_MAX: usize = 50_000;

/// Keywords that refer in ways which are not counted here.
const UNCOUNTED: [&str; 5] = [
    "$anchor",
    "$dynamicAnchor",
    "$dynamicRef",
    "$recursiveAnchor",
    "$recursiveRef",
];

/// Keywords with schemas by name, whatever the names are.
const NAMED: [&str; 5] = [
    "$defs",
    "definitions",
    "dependentSchemas",
    "patternProperties",
    "properties",
];

/// Keywords whose values are no schemas.
const DATA: [&str; 4] = ["const", "default", "enum", "examples"];

/// The stack for a check, in bytes: the levels of a schema that refers to itself, for each of the
/// 128 levels that an answer may have. Only what is used of it takes memory.
const CHECK_STACK: usize = 128 << 20;

/// The most references in a row, and levels with each of them followed: both walks, this one and the
/// validator's, are recursive.
const REFERENCES_MAX: usize = 100;
const LEVELS_MAX: usize = 500;

/// The most patterns in a `strict` schema, and what each may take in memory, in bytes, and in steps
/// back.
const PATTERNS_MAX: usize = 100;
const PATTERN_SIZE: usize = 256 << 10;
const PATTERN_STEPS: usize = 100_000;

/// What an answer is checked against.
#[derive(Debug, Default)]
pub(super) struct Expectation {
    /// Its text.
    content: Option<Validator>,
    /// The arguments of calls, by the function's name.
    arguments: HashMap<String, Validator>,
}

impl Expectation {
    /// Reads `response_format` and `tools`.
    ///
    /// # Errors
    ///
    /// Names a schema that is none, whether it is `strict` or not.
    pub(super) fn of(fields: &Map<String, Value>) -> Result<Self, Failure> {
        let mut expectation = Expectation::default();
        let format = &fields.get("response_format").unwrap_or(&Value::Null);
        if format["type"] == "json_object" {
            let at = "response_format";
            expectation.content = Some(compile(&json!({"type": "object"}), at)?);
        }
        let json_schema = &format["json_schema"];
        if format["type"] == "json_schema" && !json_schema["schema"].is_null() {
            let at = "response_format.json_schema.schema";
            expectation.content = read(&json_schema["schema"], &json_schema["strict"], at)?;
        }
        let none = Vec::new();
        let tools = fields.get("tools").and_then(Value::as_array);
        for (i, tool) in tools.unwrap_or(&none).iter().enumerate() {
            let function = &tool["function"];
            let at = format!("tools[{i}].function.parameters");
            if function["parameters"].is_null() {
                continue;
            }
            let validator = read(&function["parameters"], &function["strict"], &at)?;
            if let (Some(name), Some(validator)) = (function["name"].as_str(), validator) {
                expectation.arguments.insert(name.to_owned(), validator);
            }
        }
        Ok(expectation)
    }

    /// Whether there is nothing to check.
    pub(super) fn is_empty(&self) -> bool {
        self.content.is_none() && self.arguments.is_empty()
    }

    /// Checks an answer. One that was cut short, or withheld, is what it is.
    ///
    /// # Errors
    ///
    /// Says that the answer is not what the client relies on.
    pub(super) fn check(&self, answer: &Aggregate, reason: FinishReason) -> Result<(), Failure> {
        match reason {
            FinishReason::Length | FinishReason::ContentFilter => Ok(()),
            FinishReason::Stop => match &self.content {
                Some(validator) => {
                    let message = "the model's answer does not fit the schema of `response_format`: ask again";
                    fits(validator, answer.content(), message.into())
                }
                None => Ok(()),
            },
            FinishReason::ToolCalls => answer
                .calls()
                .try_for_each(|(name, arguments)| self.check_call(name, arguments)),
        }
    }

    fn check_call(&self, name: &str, arguments: &str) -> Result<(), Failure> {
        let Some(validator) = self.arguments.get(name) else {
            return Ok(());
        };
        let message = format!(
            "the arguments that the model gives to `{name}` do not fit the schema of its parameters: ask again"
        );
        fits(validator, arguments, message)
    }
}

/// Checks that a schema is one, and compiles it if it is `strict`.
fn read(schema: &Value, strict: &Value, at: &str) -> Result<Option<Validator>, Failure> {
    let wrong = |what: &str| {
        let what: String = what.chars().take(200).collect();
        Failure::invalid(at, format!("`{at}` is no valid JSON Schema: {what}"))
    };
    // The API takes schemas of this draft, whatever they call themselves.
    if let Err(error) = jsonschema::draft202012::meta::validate(schema) {
        return Err(wrong(&error.to_string()));
    }
    let mut survey = Survey::of(schema);
    survey.follow(schema);
    if survey.goes_outside {
        return Err(wrong("a `$ref` must begin with `#`"));
    }
    if *strict != Value::Bool(true) {
        return Ok(None);
    }
    if survey.is_uncounted {
        let message = format!(
            "`{at}` cannot be `strict`: refer by `$ref` with a JSON pointer only, and use `$id` only at the top"
        );
        return Err(Failure::invalid(at, message));
    }
    if survey.parts > PARTS_MAX || survey.patterns > PATTERNS_MAX || survey.is_deep {
        let message = format!(
            "`{at}` is too large to be `strict`: at most {PARTS_MAX} parts, references followed, and {PATTERNS_MAX} patterns"
        );
        return Err(Failure::invalid(at, message));
    }
    compile(schema, at).map(Some)
}

/// What a schema would take.
struct Survey<'a> {
    top: &'a Value,
    parts: usize,
    patterns: usize,
    is_deep: bool,
    goes_outside: bool,
    is_uncounted: bool,
    levels: usize,
    /// The references that are being followed.
    path: Vec<&'a str>,
}

impl<'a> Survey<'a> {
    fn of(top: &'a Value) -> Self {
        Survey {
            top,
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

    /// What a schema itself asks for. Properties that are called like a keyword count as one, too.
    fn note(&mut self, schema: &'a Map<String, Value>) {
        let by_name = schema.get("patternProperties").and_then(Value::as_object);
        self.patterns += usize::from(schema.contains_key("pattern")) + by_name.map_or(0, Map::len);
        self.is_uncounted |= UNCOUNTED.iter().any(|key| schema.contains_key(*key))
            || (self.levels > 1 && schema.get("$id").is_some_and(Value::is_string));
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            self.refer(reference);
        }
    }

    /// Follows a reference, unless it leads back: that goes on as long as an answer does, which is
    /// not for ever.
    fn refer(&mut self, reference: &'a str) {
        let Some(pointer) = reference.strip_prefix('#') else {
            self.goes_outside = true;
            return;
        };
        if self.path.contains(&pointer) {
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

/// Compiles a schema of bounded size. References go nowhere beyond it.
fn compile(schema: &Value, at: &str) -> Result<Validator, Failure> {
    let patterns = PatternOptions::fancy_regex()
        .backtrack_limit(PATTERN_STEPS)
        .size_limit(PATTERN_SIZE)
        .dfa_size_limit(PATTERN_SIZE);
    // The draft that the API reads, whatever the schema calls itself.
    let mut schema = schema.clone();
    if let Some(fields) = schema.as_object_mut() {
        fields.remove("$schema");
    }
    let options = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .should_validate_formats(true)
        .with_pattern_options(patterns);
    let validator = blocking::run(|| options.build(&schema));
    validator.map_err(|error| {
        let what: String = error.to_string().chars().take(200).collect();
        Failure::invalid(at, format!("`{at}` cannot be `strict`: {what}"))
    })
}

fn fits(validator: &Validator, text: &str, or: String) -> Result<(), Failure> {
    let check =
        || serde_json::from_str::<Value>(text).is_ok_and(|value| validator.is_valid(&value));
    let fits = blocking::run(|| {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(CHECK_STACK);
            let thread = thread.spawn_scoped(scope, check).ok()?;
            thread.join().ok()
        })
    });
    if fits == Some(true) {
        return Ok(());
    }
    let mut failure = Failure::new(Kind::Backend, or);
    failure.code = Some("schema_not_met".into());
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guests::types::Delta;

    fn expect(fields: Value) -> Result<Expectation, Failure> {
        Expectation::of(fields.as_object().unwrap())
    }

    fn strict() -> Expectation {
        let properties =
            json!({"n": {"type": "integer"}, "day": {"type": "string", "format": "date"}});
        let schema = json!({"type": "object", "properties": properties, "required": ["n"]});
        let format =
            json!({"type": "json_schema", "json_schema": {"strict": true, "schema": schema}});
        expect(json!({ "response_format": format })).unwrap()
    }

    fn answer(text: &str) -> Aggregate {
        let mut answer = Aggregate::default();
        answer.push(Delta::Content(text.into()));
        answer
    }

    #[test]
    fn an_answer_that_is_done_fits_its_schema() {
        let check = |text, reason| strict().check(&answer(text), reason).is_ok();
        assert!(check(r#"{"n":1}"#, FinishReason::Stop));
        assert!(!check(r#"{"n":"1"}"#, FinishReason::Stop));
        assert!(check(r#"{"n":1,"day":"2026-11-22"}"#, FinishReason::Stop));
        assert!(!check(r#"{"n":1,"day":"some day"}"#, FinishReason::Stop));
        assert!(!check("n", FinishReason::Stop));
        assert!(check(r#"{"n":"#, FinishReason::Length), "it was cut short");
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
        let one =
            json!({"type": "object", "properties": {"p": {"pattern": "(\\p{L}{1000}){1000}"}}});
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
        for schema in [doubling, hidden, many, one, deep, anchors, named] {
            let format = |strict: bool| json!({"response_format": {"type": "json_schema", "json_schema": {"strict": strict, "schema": schema}}});
            let failure = expect(format(true)).unwrap_err();
            assert!(failure.message.contains("strict"), "{}", failure.message);
            assert!(expect(format(false)).is_ok());
        }
    }

    #[test]
    fn schemas_that_refer_to_themselves_and_look_ahead_are_checked() {
        let node = json!({"type": "object", "properties": {
            "price": {"type": "string", "pattern": "^(?!^[-+.]*$)[+-]?0*\\d*\\.?\\d*$"},
            "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        }, "required": ["price"]});
        let schema = json!({"$ref": "#/$defs/node", "$defs": {"node": node}});
        let format =
            json!({"type": "json_schema", "json_schema": {"strict": true, "schema": schema}});
        let expectation = expect(json!({ "response_format": format })).unwrap();
        let check = |text: &str| expectation.check(&answer(text), FinishReason::Stop).is_ok();
        assert!(check(r#"{"price":"1.5","next":{"price":"2","next":null}}"#));
        assert!(!check(r#"{"price":"1.5","next":{"price":"+"}}"#));
    }

    #[test]
    fn a_deep_circle_does_not_end_the_program() {
        let bottom = (0..90).fold(
            json!({"$ref": "#/$defs/n"}),
            |below, _| json!({"allOf": [below]}),
        );
        let node = json!({"type": "object", "properties": {"next": bottom}});
        let schema = json!({"$ref": "#/$defs/n", "$defs": {"n": node}});
        let format =
            json!({"type": "json_schema", "json_schema": {"strict": true, "schema": schema}});
        let expectation = expect(json!({ "response_format": format })).unwrap();
        let text = "{\"next\":".repeat(120) + "{}" + &"}".repeat(120);
        assert!(
            expectation
                .check(&answer(&text), FinishReason::Stop)
                .is_ok()
        );
    }

    #[test]
    fn what_looks_like_a_reference_in_data_is_none() {
        let schema = json!({"type": "object", "default": {"$ref": "./base.yaml"}, "examples": [{"pattern": "("}]});
        let tools = json!([{"type": "function", "function": {"name": "f", "strict": true, "parameters": schema}}]);
        assert!(expect(json!({ "tools": tools })).is_ok());
    }

    #[test]
    fn references_in_a_circle_end() {
        for schema in [
            json!({"$ref": "#"}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
            json!({"allOf": [{"$ref": "#"}]}),
        ] {
            let format =
                json!({"type": "json_schema", "json_schema": {"strict": true, "schema": schema}});
            if let Ok(expectation) = expect(json!({ "response_format": format })) {
                let _ = expectation.check(&answer("{\"a\":[1]}"), FinishReason::Stop);
            }
        }
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
}
