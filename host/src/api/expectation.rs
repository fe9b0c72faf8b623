//! What the client may rely on in an answer, and what is therefore checked before the answer is
//! called done: JSON by a schema, and arguments of functions that are `strict`.

use std::collections::HashMap;

use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value, json};

use super::aggregate::Aggregate;
use crate::failure::{Failure, Kind};
use crate::guests::types::FinishReason;

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
            let validator = compile(&json_schema["schema"], "response_format.json_schema.schema")?;
            expectation.content = (json_schema["strict"] == true).then_some(validator);
        }
        let none = Vec::new();
        let tools = fields.get("tools").and_then(Value::as_array);
        for (i, tool) in tools.unwrap_or(&none).iter().enumerate() {
            let function = &tool["function"];
            if function["parameters"].is_null() {
                continue;
            }
            let at = format!("tools[{i}].function.parameters");
            let validator = compile(&function["parameters"], &at)?;
            if let (Some(name), Value::Bool(true)) =
                (function["name"].as_str(), &function["strict"])
            {
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
                Some(validator) => fits(validator, answer.content(), "answer", "response_format"),
                None => Ok(()),
            },
            FinishReason::ToolCalls => answer.calls().try_for_each(|(name, arguments)| match self
                .arguments
                .get(name)
            {
                Some(validator) => fits(validator, arguments, "arguments", "tools"),
                None => Ok(()),
            }),
        }
    }
}

/// Compiles a schema. References go nowhere beyond it, and patterns are matched without
/// backtracking: it comes from a client.
fn compile(schema: &Value, at: &str) -> Result<Validator, Failure> {
    let validator = jsonschema::options()
        .with_pattern_options(PatternOptions::regex())
        .build(schema);
    validator.map_err(|error| {
        let what: String = error.to_string().chars().take(200).collect();
        Failure::invalid(at, format!("`{at}` is no valid JSON Schema: {what}"))
    })
}

fn fits(validator: &Validator, text: &str, what: &str, at: &str) -> Result<(), Failure> {
    let found = serde_json::from_str::<Value>(text);
    let wrong = match &found {
        Err(_) => "it is no JSON".to_owned(),
        Ok(value) => match validator.validate(value) {
            Ok(()) => return Ok(()),
            Err(error) => format!("at `{}`", error.instance_path()),
        },
    };
    let message =
        format!("the model's {what} does not fit the schema of `{at}` ({wrong}): ask again");
    let mut failure = Failure::new(Kind::Backend, message);
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
        let schema =
            json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
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
    fn what_is_no_schema_is_refused_by_its_place() {
        let schema = |schema: Value| json!({"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}});
        for bad in [
            json!({"type": "objekt"}),
            json!({"properties": 5}),
            json!({"$ref": "http://127.0.0.1:1/x"}),
            json!({"$ref": "file:///etc/passwd"}),
            json!({"pattern": "("}),
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
