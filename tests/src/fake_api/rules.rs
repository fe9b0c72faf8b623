//! What the real API refuses.

use std::collections::HashSet;

use serde_json::Value;

/// The first rule that a request breaks.
pub(super) fn broken_by(request: &Value) -> Option<String> {
    let none = Vec::new();
    let tools = request["tools"].as_array().unwrap_or(&none);
    let messages = request["messages"].as_array().unwrap_or(&none);
    tools
        .iter()
        .enumerate()
        .find_map(|(i, tool)| tool_rule(tool).map(|rule| format!("tools.{i}.{rule}")))
        .or_else(|| thinking_rule(request))
        .or_else(|| calls_rule(messages, tools.is_empty()))
        .or_else(|| messages.iter().find_map(image_rule))
}

fn tool_rule(tool: &Value) -> Option<&'static str> {
    let name = tool["name"].as_str().unwrap_or_default();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if name.is_empty() || name.len() > 128 || !name.bytes().all(plain) {
        return Some("name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'");
    }
    let schema = &tool["input_schema"];
    if schema["type"] != "object" {
        return Some("input_schema.type: Field required");
    }
    let alternatives = ["oneOf", "allOf", "anyOf"];
    let wrong = alternatives
        .iter()
        .any(|keyword| !schema[keyword].is_null());
    wrong.then_some("input_schema: does not support oneOf, allOf, or anyOf at the top level")
}

fn thinking_rule(request: &Value) -> Option<String> {
    let budget = request["thinking"]["budget_tokens"].as_u64()?;
    let most = request["max_tokens"].as_u64()?;
    let said = request["messages"].as_array()?;
    let last = said.iter().rfind(|message| message["role"] == "assistant");
    let last_is_result = said
        .last()
        .is_some_and(|message| message.to_string().contains("tool_result"));
    let first = last.map(|message| message["content"][0]["type"].clone());
    if last_is_result && first.is_some_and(|kind| kind != "thinking") {
        return Some("messages: Expected `thinking` or `redacted_thinking`, but found `tool_use`. When `thinking` is enabled, a final `assistant` message must start with a thinking block".into());
    }
    if budget < 1024 {
        return Some(
            "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024".into(),
        );
    }
    (budget >= most).then(|| "`max_tokens` must be greater than `thinking.budget_tokens`".into())
}

/// Each call has its result in the very next message, and each result its call before.
fn calls_rule(messages: &[Value], no_tools: bool) -> Option<String> {
    let blocks = |message: &Value, kind: &str, key: &str| -> Vec<String> {
        let blocks = message["content"].as_array().cloned().unwrap_or_default();
        let wanted = blocks.iter().filter(|block| block["type"] == kind);
        wanted
            .map(|block| block[key].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let said: Vec<&Value> = messages.iter().filter(|m| m["role"] != "system").collect();
    let mut seen = HashSet::new();
    let mut open: Vec<String> = Vec::new();
    for (i, message) in said.iter().enumerate() {
        let results = blocks(message, "tool_result", "tool_use_id");
        if let Some(id) = results.iter().find(|id| !open.contains(id)) {
            return Some(format!(
                "messages.{i}: unexpected `tool_use_id` found in `tool_result` blocks: {id}"
            ));
        }
        if let Some(id) = open.iter().find(|id| !results.contains(id)) {
            return Some(format!(
                "messages.{i}: `tool_use` ids were found without `tool_result` blocks immediately after: {id}"
            ));
        }
        open = blocks(message, "tool_use", "id");
        if !open.is_empty() && no_tools {
            return Some(
                "Requests which include `tool_use` or `tool_result` blocks must define tools."
                    .into(),
            );
        }
        for id in &open {
            if !seen.insert(id.clone()) {
                return Some("messages: `tool_use` ids must be unique".into());
            }
        }
    }
    open.first()
        .map(|id| format!("messages: `tool_use` ids were found without `tool_result` blocks: {id}"))
}

fn image_rule(message: &Value) -> Option<String> {
    /// The API's limit, in bytes of base64.
    const IMAGE_MAX: usize = 5 << 20;
    let blocks = message["content"].as_array()?;
    let mut images = blocks.iter().filter(|block| block["type"] == "image");
    let too_large = |image: &&Value| {
        image["source"]["data"]
            .as_str()
            .is_some_and(|data| data.len() > IMAGE_MAX)
    };
    images
        .find(too_large)
        .map(|_| "image exceeds 5 MB maximum".into())
}
