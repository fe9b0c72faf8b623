//! A conversation as templates see it: the same dictionaries as in Hugging Face's chat templates.

use harness_guest::{
    ApiError, Content, Message, OutputFormat, Part, Role, Tool, ToolCall, unsupported,
};
use serde_json::{Map, Value, json};

/// All messages.
///
/// # Errors
///
/// Names the first part that is no text.
pub fn messages(messages: &[Message]) -> Result<Vec<Value>, ApiError> {
    let all = messages.iter().enumerate();
    all.map(|(i, message)| self::message(i, message)).collect()
}

/// All functions. None if there are none.
pub fn tools(tools: &[Tool]) -> Option<Vec<Value>> {
    let tools: Vec<Value> = tools.iter().filter_map(tool).collect();
    (!tools.is_empty()).then_some(tools)
}

/// The text of the system messages at the beginning.
pub fn system(messages: &[Value]) -> String {
    let leading = messages.iter().take_while(|m| m["role"] == "system");
    let texts: Vec<&str> = leading.filter_map(|m| m["content"].as_str()).collect();
    texts.join("\n\n")
}

/// Tells the model to answer with JSON, if it is to: at the end of the system message, which is added if there is none.
/// The host takes the object out of what the model writes around it.
pub fn ask_for_json(messages: &mut Vec<Value>, format: &OutputFormat) {
    let mut words = match format {
        OutputFormat::Text => return,
        OutputFormat::JsonObject | OutputFormat::JsonSchema(_) => {
            "Answer with one valid JSON object and nothing else: no words around it, no code fence."
                .to_owned()
        }
    };
    if let OutputFormat::JsonSchema(format) = format
        && let Some(schema) = &format.schema
    {
        words += &format!(" It must fit this JSON Schema:\n{schema}");
    }
    match messages.first_mut() {
        Some(first) if first["role"] == "system" => {
            let text = first["content"].as_str().unwrap_or_default();
            first["content"] = format!("{text}\n\n{words}").into();
        }
        _ => messages.insert(0, json!({"role": "system", "content": words})),
    }
}

fn message(i: usize, message: &Message) -> Result<Value, ApiError> {
    let role = match message.role {
        Role::System | Role::Developer => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let mut fields = Map::new();
    fields.insert("role".into(), role.into());
    fields.insert("content".into(), text(i, message)?.into());
    if !message.tool_calls.is_empty() {
        let calls: Vec<Value> = message.tool_calls.iter().filter_map(call).collect();
        fields.insert("tool_calls".into(), calls.into());
    }
    let others = [
        ("name", &message.name),
        ("tool_call_id", &message.tool_call_id),
    ];
    for (key, value) in others {
        if let Some(value) = value {
            fields.insert(key.into(), value.as_str().into());
        }
    }
    Ok(fields.into())
}

/// The texts of a message, a line each.
fn text(i: usize, message: &Message) -> Result<String, ApiError> {
    let parts = match &message.content {
        None => return Ok(String::new()),
        Some(Content::Text(text)) => return Ok(text.clone()),
        Some(Content::Parts(parts)) => parts,
    };
    let mut texts = Vec::with_capacity(parts.len());
    for (j, part) in parts.iter().enumerate() {
        match part {
            Part::Text(part) | Part::Refusal(part) => texts.push(part.text.as_str()),
            _ => {
                let at = format!("messages[{i}].content[{j}]");
                let message = format!("`{at}` is no text, and this model reads texts only");
                return Err(unsupported(&at, message));
            }
        }
    }
    Ok(texts.join("\n"))
}

fn call(call: &ToolCall) -> Option<Value> {
    let ToolCall::Function(call) = call else {
        return None;
    };
    // Templates want arguments as a dictionary. What a model wrote may be no JSON.
    let arguments = serde_json::from_str(&call.arguments);
    let arguments: Value = arguments.unwrap_or_else(|_| call.arguments.as_str().into());
    Some(json!({
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }))
}

fn tool(tool: &Tool) -> Option<Value> {
    let Tool::Function(function) = tool else {
        return None;
    };
    let parameters = function.parameters.as_deref();
    let parameters = parameters.and_then(|json| serde_json::from_str(json).ok());
    let mut fields = Map::new();
    fields.insert("name".into(), function.name.as_str().into());
    if let Some(description) = &function.description {
        fields.insert("description".into(), description.as_str().into());
    }
    fields.insert("parameters".into(), parameters.unwrap_or_else(|| json!({})));
    Some(json!({"type": "function", "function": fields}))
}
