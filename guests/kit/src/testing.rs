//! Reads requests from JSON, as the host does, for the tests of guests.
//!
//! The host checks shapes before a guest is called; here, what has another shape is left out.

use serde_json::{Map, Value};

use crate::{
    AllowedTools, Content, Context, File, Function, FunctionCall, Image, JsonSchema, Message,
    OutputFormat, Part, Request, Role, Sampling, TextPart, Tool, ToolCall, ToolChoice,
};

/// The context of a request for this model.
pub fn context(model: &str) -> Context {
    Context {
        id: "chatcmpl-test".into(),
        created: 1_700_000_000,
        model: model.into(),
        backend_model: model.into(),
        resolved_model: None,
        profile: "test".into(),
        fetch_urls: false,
        choice: 0,
        extra: None,
    }
}

/// A chat completion request.
pub fn request(json: &Value) -> Request {
    let number = |name: &str| json[name].as_f64();
    let limits = [&json["max_completion_tokens"], &json["max_tokens"]];
    Request {
        messages: messages(&json["messages"]),
        tools: list(&json["tools"]).iter().map(tool).collect(),
        tool_choice: tool_choice(&json["tool_choice"]),
        parallel_tool_calls: json["parallel_tool_calls"].as_bool(),
        output_format: output_format(&json["response_format"]),
        stream: json["stream"] == true,
        max_tokens: limits.iter().find_map(|limit| limit.as_u64()),
        reasoning_effort: string(&json["reasoning_effort"]),
        sampling: Sampling {
            temperature: number("temperature"),
            top_p: number("top_p"),
            seed: json["seed"].as_i64(),
            frequency_penalty: number("frequency_penalty"),
            presence_penalty: number("presence_penalty"),
        },
        stop: match &json["stop"] {
            Value::String(word) => vec![word.clone()],
            words => list(words).iter().filter_map(string).collect(),
        },
        extra: None,
    }
}

/// The messages of a request.
pub fn messages(json: &Value) -> Vec<Message> {
    list(json).iter().filter_map(message).collect()
}

/// A tool of a request.
pub fn tool(json: &Value) -> Tool {
    let function = &json["function"];
    if json["type"] != "function" || !function.is_object() {
        return Tool::Other(json.to_string());
    }
    Tool::Function(Function {
        name: string(&function["name"]).unwrap_or_default(),
        description: string(&function["description"]),
        parameters: text(&function["parameters"]),
        strict: function["strict"] == true,
        extra: None,
    })
}

/// The `tool_choice` of a request.
pub fn tool_choice(json: &Value) -> Option<ToolChoice> {
    let name = |value: &Value| string(&value["function"]["name"]);
    Some(match (json.as_str(), json["type"].as_str()) {
        (Some("auto"), _) => ToolChoice::Auto,
        (Some("none"), _) => ToolChoice::None,
        (Some("required"), _) => ToolChoice::Required,
        (_, Some("function")) => ToolChoice::Function(name(json)?),
        (_, Some("allowed_tools")) => ToolChoice::Allowed(AllowedTools {
            names: list(&json["allowed_tools"]["tools"])
                .iter()
                .filter_map(name)
                .collect(),
            required: json["allowed_tools"]["mode"] == "required",
        }),
        _ => return None,
    })
}

/// The `response_format` of a request.
pub fn output_format(json: &Value) -> OutputFormat {
    let schema = &json["json_schema"];
    match json["type"].as_str() {
        Some("json_object") => OutputFormat::JsonObject,
        Some("json_schema") => OutputFormat::JsonSchema(JsonSchema {
            name: string(&schema["name"]).unwrap_or_default(),
            description: string(&schema["description"]),
            schema: text(&schema["schema"]),
            strict: schema["strict"] == true,
            extra: None,
        }),
        _ => OutputFormat::Text,
    }
}

fn message(json: &Value) -> Option<Message> {
    let role = match json["role"].as_str()? {
        "system" => Role::System,
        "developer" => Role::Developer,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        _ => return None,
    };
    Some(Message {
        role,
        name: string(&json["name"]),
        content: match &json["content"] {
            Value::String(text) => Some(Content::Text(text.clone())),
            Value::Array(parts) => Some(Content::Parts(parts.iter().map(part).collect())),
            _ => None,
        },
        tool_calls: list(&json["tool_calls"]).iter().map(call).collect(),
        tool_call_id: string(&json["tool_call_id"]),
        extra: None,
    })
}

fn part(json: &Value) -> Part {
    let text_part = |text: &Value| TextPart {
        text: string(text).unwrap_or_default(),
        extra: None,
    };
    let (image, file) = (&json["image_url"], &json["file"]);
    match json["type"].as_str() {
        Some("text") => Part::Text(text_part(&json["text"])),
        Some("refusal") => Part::Refusal(text_part(&json["refusal"])),
        Some("image_url") => Part::Image(Image {
            url: string(image)
                .or_else(|| string(&image["url"]))
                .unwrap_or_default(),
            detail: string(&image["detail"]),
            extra: None,
        }),
        Some("file") => Part::File(File {
            filename: string(&file["filename"]),
            data: string(&file["file_data"]),
            id: string(&file["file_id"]),
            extra: None,
        }),
        _ => Part::Other(json.to_string()),
    }
}

fn call(json: &Value) -> ToolCall {
    let function = &json["function"];
    ToolCall::Function(FunctionCall {
        id: string(&json["id"]).unwrap_or_default(),
        name: string(&function["name"]).unwrap_or_default(),
        arguments: string(&function["arguments"]).unwrap_or_default(),
        extra: None,
    })
}

fn list(json: &Value) -> &[Value] {
    json.as_array().map_or(&[], Vec::as_slice)
}

fn string(json: &Value) -> Option<String> {
    json.as_str().map(str::to_owned)
}

/// An object as text.
fn text(json: &Value) -> Option<String> {
    let object: &Map<String, Value> = json.as_object()?;
    serde_json::to_string(object).ok()
}
