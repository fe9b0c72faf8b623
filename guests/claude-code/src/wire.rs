//! The client's request, as far as this adapter reads it. The host has checked the shapes.

use serde::Deserialize;
use serde_json::{Map, Value};

/// A chat completion request.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Request {
    pub(crate) messages: Vec<Message>,
    pub(crate) stream: Option<bool>,
    pub(crate) reasoning_effort: Option<String>,
    pub(crate) max_tokens: Option<u64>,
    pub(crate) max_completion_tokens: Option<u64>,
    pub(crate) stop: Option<Stop>,
    pub(crate) tools: Option<Vec<Tool>>,
    pub(crate) tool_choice: Option<Value>,
    pub(crate) parallel_tool_calls: Option<bool>,
    pub(crate) response_format: Option<ResponseFormat>,
}

/// Words that end an answer.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Stop {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
pub(crate) struct Tool {
    #[serde(default)]
    pub(crate) r#type: String,
    pub(crate) function: Option<FunctionDefinition>,
}

#[derive(Deserialize)]
pub(crate) struct FunctionDefinition {
    #[serde(default)]
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) parameters: Option<Value>,
}

#[derive(Deserialize)]
pub(crate) struct ResponseFormat {
    #[serde(default)]
    pub(crate) r#type: String,
    pub(crate) json_schema: Option<JsonSchema>,
}

#[derive(Deserialize)]
pub(crate) struct JsonSchema {
    pub(crate) description: Option<String>,
    pub(crate) schema: Option<Map<String, Value>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Message {
    pub(crate) role: String,
    pub(crate) content: Content,
    pub(crate) tool_calls: Option<Vec<ToolCall>>,
    pub(crate) function_call: Option<Value>,
    pub(crate) tool_call_id: Option<String>,
}

/// A function call of an earlier answer.
#[derive(Deserialize)]
pub(crate) struct ToolCall {
    #[serde(default)]
    pub(crate) id: String,
    pub(crate) function: Option<FunctionCall>,
}

#[derive(Deserialize)]
pub(crate) struct FunctionCall {
    #[serde(default)]
    pub(crate) name: String,
    pub(crate) arguments: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(untagged)]
pub(crate) enum Content {
    Text(String),
    Parts(Vec<Part>),
    #[default]
    Null,
}

/// One part of a message's content.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Part {
    pub(crate) r#type: String,
    pub(crate) text: Option<String>,
    pub(crate) refusal: Option<String>,
    pub(crate) image_url: Option<ImageUrl>,
    pub(crate) file: Option<File>,
}

/// `{"url": …}`, or just the URL, as some clients send it.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum ImageUrl {
    Object { url: String },
    Url(String),
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct File {
    pub(crate) filename: Option<String>,
    pub(crate) file_data: Option<String>,
    pub(crate) file_id: Option<String>,
}
