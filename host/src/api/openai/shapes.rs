//! Checks the shapes of nested values of a request against a JSON Schema.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

use crate::failure::{Failure, Kind};

const SCHEMA: &str = include_str!("chat-request.schema.json");

/// The shape of one part of a request.
pub(super) struct Shape(LazyLock<Option<Validator>>);

/// The shape of a message.
pub(super) static MESSAGE: Shape = Shape(LazyLock::new(|| compiled("/properties/messages/items")));

/// The shape of a tool.
pub(super) static TOOL: Shape = Shape(LazyLock::new(|| compiled("/properties/tools/items")));

/// The shape of `response_format`.
pub(super) static RESPONSE_FORMAT: Shape =
    Shape(LazyLock::new(|| compiled("/properties/response_format")));

/// None only if the schema is wrong, which a test would show.
fn compiled(part: &str) -> Option<Validator> {
    let schema: Value = serde_json::from_str(SCHEMA).ok()?;
    jsonschema::validator_for(schema.pointer(part)?).ok()
}

impl Shape {
    /// Checks a part of the request. `at` is its place, for messages.
    ///
    /// # Errors
    ///
    /// Names the place of the first value of a wrong shape.
    pub(super) fn check(&self, part: &Value, at: &str) -> Result<(), Failure> {
        let Some(validator) = &*self.0 else {
            let message = "the schema of requests is broken";
            return Err(Failure::new(Kind::Internal, message).logged());
        };
        validator.validate(part).map_err(|error| {
            let at = place(at, &error.instance_path().to_string());
            let what: String = error.to_string().chars().take(200).collect();
            Failure::invalid(
                at.as_str(),
                format!("`{at}` is not as it should be: {what}"),
            )
        })
    }
}

/// A JSON pointer as OpenAI names places: `/0/type` below `tools` is `tools[0].type`.
fn place(at: &str, pointer: &str) -> String {
    let mut place = at.to_owned();
    for part in pointer.split('/').skip(1) {
        if part.bytes().all(|b| b.is_ascii_digit()) {
            place += &format!("[{part}]");
        } else {
            if !place.is_empty() {
                place.push('.');
            }
            place += part;
        }
    }
    place
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_wrong_shape_is_named_by_its_place() {
        let (tool, format) = (("tools[0]", &TOOL), ("response_format", &RESPONSE_FORMAT));
        let message = ("messages[0]", &MESSAGE);
        for ((at, shape), part, place) in [
            (tool, json!(null), "tools[0]"),
            (tool, json!(["function", ["f"]]), "tools[0]"),
            (
                tool,
                json!({"type": "function", "function": {"name": 5}}),
                "tools[0].function.name",
            ),
            (
                format,
                json!({"type": "json_schema", "json_schema": ["d", {}]}),
                "response_format.json_schema",
            ),
            (message, json!({"tool_calls": {}}), "messages[0].tool_calls"),
            (
                message,
                json!({"tool_calls": [["a", ["f", "{}"]]]}),
                "messages[0].tool_calls[0]",
            ),
            (
                message,
                json!({"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {}}}]}),
                "messages[0].tool_calls[0].function.arguments",
            ),
            (
                message,
                json!({"content": [{"type": "image_url", "image_url": {"detail": "low"}}]}),
                "messages[0].content[0].image_url",
            ),
            (
                message,
                json!({"tool_call_id": 5}),
                "messages[0].tool_call_id",
            ),
        ] {
            assert_eq!(
                shape.check(&part, at).unwrap_err().param.as_deref(),
                Some(place),
                "{part}"
            );
        }
        assert!(
            MESSAGE
                .check(&json!({"role": "user", "content": "x"}), "m")
                .is_ok()
        );
    }
}
