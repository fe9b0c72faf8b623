//! The shapes of what is nested in a request, as a JSON Schema says them.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

use crate::failure::{Failure, Kind};

const SCHEMA: &str = include_str!("chat-request.schema.json");

/// Compiled once. None only if the schema is wrong, which a test would show.
static VALIDATOR: LazyLock<Option<Validator>> = LazyLock::new(|| {
    let schema = serde_json::from_str(SCHEMA).ok()?;
    jsonschema::validator_for(&schema).ok()
});

/// Checks the whole request.
///
/// # Errors
///
/// Names the place of the first value of a wrong shape.
pub(super) fn check(request: &Value) -> Result<(), Failure> {
    let Some(validator) = &*VALIDATOR else {
        let message = "the schema of requests is broken";
        return Err(Failure::new(Kind::Internal, message).logged());
    };
    validator.validate(request).map_err(|error| {
        let at = place(&error.instance_path().to_string());
        let what: String = error.to_string().chars().take(200).collect();
        Failure::invalid(
            at.as_str(),
            format!("`{at}` is not as it should be: {what}"),
        )
    })
}

/// A JSON pointer as OpenAI names places: `/tools/0/type` is `tools[0].type`.
fn place(pointer: &str) -> String {
    let mut place = String::new();
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
    use super::*;
    use serde_json::json;

    #[test]
    fn a_wrong_shape_is_named_by_its_place() {
        let said = |message: Value| json!({ "messages": [message] });
        for (request, at) in [
            (json!({"tools": [null]}), "tools[0]"),
            (json!({"tools": [["function", ["f"]]]}), "tools[0]"),
            (
                json!({"tools": [{"type": "function", "function": {"name": 5}}]}),
                "tools[0].function.name",
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": ["d", {}]}}),
                "response_format.json_schema",
            ),
            (said(json!({"tool_calls": {}})), "messages[0].tool_calls"),
            (
                said(json!({"tool_calls": [["a", ["f", "{}"]]]})),
                "messages[0].tool_calls[0]",
            ),
            (
                said(
                    json!({"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {}}}]}),
                ),
                "messages[0].tool_calls[0].function.arguments",
            ),
            (
                said(json!({"content": [{"type": "image_url", "image_url": {"detail": "low"}}]})),
                "messages[0].content[0].image_url",
            ),
            (said(json!({"tool_call_id": 5})), "messages[0].tool_call_id"),
        ] {
            assert_eq!(
                check(&request).unwrap_err().param.as_deref(),
                Some(at),
                "{request}"
            );
        }
        assert!(check(&json!({"messages": [{"role": "user", "content": "x"}]})).is_ok());
    }
}
