//! Writes a request as the body of a chat completion.

use serde_json::{Map, Value, json};

use super::{
    Content, Function, JsonSchema, Message, OutputFormat, Part, Request, Role, TextPart, Tool,
    ToolCall, ToolChoice,
};

/// The body of a chat completion, without `model` and `n`, which are the host's.
pub fn body(request: &Request) -> Value {
    let sampling = &request.sampling;
    let list = |values: Vec<Value>| (!values.is_empty()).then_some(Value::Array(values));
    let mut body = Fields::default();
    body.some(
        "messages",
        Some(request.messages.iter().map(message).collect::<Vec<_>>()),
    );
    body.some("tools", list(request.tools.iter().map(tool).collect()));
    body.some("tool_choice", request.tool_choice.as_ref().map(tool_choice));
    body.some("parallel_tool_calls", request.parallel_tool_calls);
    body.some("response_format", output_format(&request.output_format));
    body.some("stream", request.stream.then_some(true));
    body.some("max_completion_tokens", request.max_tokens);
    body.some("reasoning_effort", request.reasoning_effort.clone());
    body.some("temperature", sampling.temperature);
    body.some("top_p", sampling.top_p);
    body.some("seed", sampling.seed);
    body.some("frequency_penalty", sampling.frequency_penalty);
    body.some("presence_penalty", sampling.presence_penalty);
    body.some(
        "stop",
        list(request.stop.iter().map(|word| json!(word)).collect()),
    );
    body.rest(request.extra.as_deref())
}

/// An object that is made field by field.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn some(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value.into());
        }
    }

    /// Adds the fields that no type names.
    fn rest(mut self, extra: Option<&str>) -> Value {
        let extra = extra.map(serde_json::from_str::<Map<String, Value>>);
        if let Some(Ok(extra)) = extra {
            self.0.extend(extra);
        }
        Value::Object(self.0)
    }
}

fn message(message: &Message) -> Value {
    let role = match message.role {
        Role::System => "system",
        Role::Developer => "developer",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let calls: Vec<Value> = message.tool_calls.iter().map(call).collect();
    let mut fields = Fields::default();
    fields.some("role", Some(role));
    fields.some("name", message.name.clone());
    fields.some(
        "content",
        message.content.as_ref().map(|content| match content {
            Content::Text(text) => json!(text),
            Content::Parts(parts) => parts.iter().map(part).collect(),
        }),
    );
    fields.some("tool_calls", (!calls.is_empty()).then_some(calls));
    fields.some("tool_call_id", message.tool_call_id.clone());
    fields.rest(message.extra.as_deref())
}

fn part(part: &Part) -> Value {
    let text = |kind: &str, part: &TextPart| {
        let mut fields = Fields::default();
        fields.some("type", Some(kind));
        fields.some(kind, Some(part.text.clone()));
        fields.rest(part.extra.as_deref())
    };
    let mut inner = Fields::default();
    let (kind, field) = match part {
        Part::Text(part) => return text("text", part),
        Part::Refusal(part) => return text("refusal", part),
        Part::Other(json) => return other(json),
        Part::Image(image) => {
            inner.some("url", Some(image.url.clone()));
            inner.some("detail", image.detail.clone());
            ("image_url", inner.rest(image.extra.as_deref()))
        }
        Part::Audio(audio) => {
            inner.some("data", Some(audio.data.clone()));
            inner.some("format", Some(audio.format.clone()));
            ("input_audio", inner.rest(audio.extra.as_deref()))
        }
        Part::File(file) => {
            inner.some("filename", file.filename.clone());
            inner.some("file_data", file.data.clone());
            inner.some("file_id", file.id.clone());
            ("file", inner.rest(file.extra.as_deref()))
        }
    };
    json!({"type": kind, kind: field})
}

fn call(call: &ToolCall) -> Value {
    match call {
        ToolCall::Other(json) => other(json),
        ToolCall::Function(call) => {
            let mut fields = Fields::default();
            fields.some("id", Some(call.id.clone()));
            fields.some("type", Some("function"));
            let function = json!({"name": call.name, "arguments": call.arguments});
            fields.some("function", Some(function));
            fields.rest(call.extra.as_deref())
        }
    }
}

fn tool(tool: &Tool) -> Value {
    match tool {
        Tool::Other(json) => other(json),
        Tool::Function(function) => json!({"type": "function", "function": declared(function)}),
    }
}

fn declared(function: &Function) -> Value {
    let mut fields = Fields::default();
    fields.some("name", Some(function.name.clone()));
    fields.some("description", function.description.clone());
    fields.some("parameters", function.parameters.as_deref().map(other));
    fields.some("strict", function.strict.then_some(true));
    fields.rest(function.extra.as_deref())
}

fn tool_choice(choice: &ToolChoice) -> Value {
    let named = |name: &String| json!({"type": "function", "function": {"name": name}});
    match choice {
        ToolChoice::Auto => json!("auto"),
        ToolChoice::None => json!("none"),
        ToolChoice::Required => json!("required"),
        ToolChoice::Function(name) => named(name),
        ToolChoice::Allowed { names, required } => {
            let mode = if *required { "required" } else { "auto" };
            let tools: Vec<Value> = names.iter().map(named).collect();
            json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}})
        }
    }
}

fn output_format(format: &OutputFormat) -> Option<Value> {
    match format {
        OutputFormat::Text => None,
        OutputFormat::JsonObject => Some(json!({"type": "json_object"})),
        OutputFormat::JsonSchema(schema) => {
            Some(json!({"type": "json_schema", "json_schema": json_schema(schema)}))
        }
    }
}

fn json_schema(schema: &JsonSchema) -> Value {
    let mut fields = Fields::default();
    fields.some("name", Some(schema.name.clone()));
    fields.some("description", schema.description.clone());
    fields.some("schema", schema.schema.as_deref().map(other));
    fields.some("strict", schema.strict.then_some(true));
    fields.rest(schema.extra.as_deref())
}

/// JSON that came as text.
fn other(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|_| json!(json))
}
