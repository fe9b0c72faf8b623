//! Reads calls as chat completions.

use std::collections::VecDeque;

use harness_guest::{
    ApiError, Content, Context, Function, FunctionCall, Image, JsonSchema, Message, OpenedCall,
    OutputFormat, Part, Request, Role, Sampling, TextPart, Tool, ToolCall, invalid, message,
    read_body,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Call;
use crate::answer::{Answer, Form};

/// What both calls have.
#[derive(Debug, Deserialize)]
struct Common {
    model: String,
    stream: Option<bool>,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    format: Value,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    think: Value,
    options: Option<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
struct Chat {
    #[serde(flatten)]
    common: Common,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    messages: Vec<ChatMessage>,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    tools: Vec<ToolValue>,
}

#[derive(Debug, Deserialize)]
struct ChatMessage {
    role: String,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    content: String,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    images: Vec<String>,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    tool_calls: Vec<CallValue>,
    tool_name: Option<String>,
    /// As older clients call it.
    name: Option<String>,
    tool_call_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct CallValue {
    id: Option<String>,
    function: CalledFunction,
}

#[derive(Debug, Deserialize)]
struct CalledFunction {
    name: String,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    arguments: Value,
}

#[derive(Debug, Deserialize)]
struct ToolValue {
    function: DeclaredFunction,
}

#[derive(Debug, Deserialize)]
struct DeclaredFunction {
    name: String,
    description: Option<String>,
    parameters: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Generate {
    #[serde(flatten)]
    common: Common,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    prompt: String,
    suffix: Option<String>,
    system: Option<String>,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    images: Vec<String>,
    template: Option<String>,
    raw: Option<bool>,
}

/// `POST /api/chat`
///
/// # Errors
///
/// Names what is wrong.
pub fn chat(body: &str, context: &Context) -> Result<OpenedCall<Call>, ApiError> {
    let chat: Chat = read_body(body)?;
    let mut calls = VecDeque::new();
    let messages = chat.messages.into_iter().enumerate();
    let messages = messages.map(|(i, message)| chat_message(i, message, &mut calls));
    let messages: Vec<Message> = messages.collect::<Result<_, _>>()?;
    if messages.is_empty() {
        let request = loaded(&chat.common);
        return Ok(OpenedCall::Reply(
            Answer::new(Form::Chat, context, &request, false).loaded(),
        ));
    }
    let tools = chat.tools.into_iter().map(tool).collect();
    opened(Form::Chat, chat.common, messages, tools, context)
}

/// `POST /api/generate`
///
/// # Errors
///
/// Names what is wrong.
pub fn generate(body: &str, context: &Context) -> Result<OpenedCall<Call>, ApiError> {
    let call: Generate = read_body(body)?;
    if call.raw == Some(true) || call.template.as_ref().is_some_and(|text| !text.is_empty()) {
        let what = "`raw` and `template` are not supported: the backend words its prompts itself";
        return Err(invalid("raw", what));
    }
    if call.prompt.is_empty() {
        let request = loaded(&call.common);
        return Ok(OpenedCall::Reply(
            Answer::new(Form::Generate, context, &request, false).loaded(),
        ));
    }
    let system = call.system.filter(|text| !text.is_empty());
    let mut messages: Vec<Message> = system
        .map(|text| message(Role::System, Some(Content::Text(text))))
        .into_iter()
        .collect();
    let prompt = match call.suffix.filter(|suffix| !suffix.is_empty()) {
        None => call.prompt,
        Some(suffix) => {
            let what = "The user's message has the text before a gap in <before> and the text behind it in <behind>. Answer with what belongs into the gap, and with nothing else.";
            messages.push(message(Role::System, Some(Content::Text(what.into()))));
            format!(
                "<before>{}</before>\n<behind>{suffix}</behind>",
                call.prompt
            )
        }
    };
    let content = content(prompt, call.images);
    messages.push(message(Role::User, Some(content)));
    opened(Form::Generate, call.common, messages, Vec::new(), context)
}

/// A name without what Ollama adds to it.
pub(crate) fn plain_name(name: &str) -> &str {
    name.strip_suffix(":latest").unwrap_or(name)
}

/// A request with nothing to answer: the client wants the model to be loaded, which it always is.
fn loaded(common: &Common) -> Named {
    Named {
        model: common.model.clone(),
        ignored: Vec::new(),
        streams: false,
    }
}

/// What an answer needs to know of its request.
#[derive(Clone, Debug)]
pub struct Named {
    /// The model, as the client wrote it.
    pub model: String,
    /// Options that change nothing.
    pub ignored: Vec<String>,
    /// Whether the answer comes piece by piece.
    pub streams: bool,
}

fn opened(
    form: Form,
    common: Common,
    messages: Vec<Message>,
    tools: Vec<Tool>,
    context: &Context,
) -> Result<OpenedCall<Call>, ApiError> {
    let mut options = common.options.unwrap_or_default();
    let mut number = |name: &str| options.remove(name).and_then(|value| value.as_f64());
    let sampling = Sampling {
        temperature: number("temperature"),
        top_p: number("top_p"),
        seed: number("seed").map(|seed| seed as i64),
        frequency_penalty: number("frequency_penalty"),
        presence_penalty: number("presence_penalty"),
    };
    // -1 and -2 mean: without a limit.
    let most = number("num_predict").filter(|most| *most > 0.0);
    let stop = match options.remove("stop") {
        Some(Value::Array(words)) => words
            .iter()
            .filter_map(|w| w.as_str().map(str::to_owned))
            .collect(),
        Some(Value::String(word)) => vec![word],
        _ => Vec::new(),
    };
    let effort = match &common.think {
        Value::String(effort) => Some(effort.clone()),
        _ => None,
    };
    let thinks = match &common.think {
        Value::Bool(thinks) => *thinks,
        other => other.is_string(),
    };
    let request = Request {
        tools,
        output_format: output_format(common.format)?,
        stream: common.stream.unwrap_or(true),
        max_tokens: most.map(|most| most as u64),
        reasoning_effort: effort,
        sampling,
        stop,
        ..harness_guest::request(messages)
    };
    let named = Named {
        model: common.model,
        ignored: options
            .into_iter()
            .map(|(name, _)| format!("options.{name}"))
            .collect(),
        streams: request.stream,
    };
    Ok(OpenedCall::Completion {
        model: plain_name(&named.model).to_owned(),
        choices: 1,
        request: Box::new(request),
        call: Call::Answer(Box::new(Answer::new(form, context, &named, thinks))),
    })
}

fn output_format(format: Value) -> Result<OutputFormat, ApiError> {
    match format {
        Value::Null => Ok(OutputFormat::Text),
        Value::String(text) if text.is_empty() => Ok(OutputFormat::Text),
        Value::String(text) if text == "json" => Ok(OutputFormat::JsonObject),
        Value::Object(_) => Ok(OutputFormat::JsonSchema(JsonSchema {
            name: "answer".into(),
            description: None,
            schema: Some(format.to_string()),
            strict: true,
            extra: None,
        })),
        _ => Err(invalid(
            "format",
            "`format` must be \"json\" or a JSON schema",
        )),
    }
}

fn tool(tool: ToolValue) -> Tool {
    Tool::Function(Function {
        name: tool.function.name,
        description: tool.function.description,
        parameters: tool.function.parameters.map(|schema| schema.to_string()),
        strict: false,
        extra: None,
    })
}

/// A message. `calls` are those whose results are still to come: older clients name the function, and not the call.
fn chat_message(
    i: usize,
    given: ChatMessage,
    calls: &mut VecDeque<(String, String)>,
) -> Result<Message, ApiError> {
    let role = match &*given.role {
        "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        other => {
            let what = format!("`{other}` is no role: system, user, assistant or tool");
            return Err(invalid(&format!("messages[{i}].role"), what));
        }
    };
    let mut message = message(role, None);
    if role == Role::Tool {
        let named = |name: &String| calls.iter().position(|(_, known)| known == name);
        let function = given.tool_name.as_ref().or(given.name.as_ref());
        let at = function.and_then(named).unwrap_or(0);
        let call = calls.remove(at).map(|(id, _)| id);
        message.tool_call_id = given.tool_call_id.or(call);
        if message.tool_call_id.is_none() {
            let what = "this result belongs to no call of the messages before it";
            return Err(invalid(&format!("messages[{i}]"), what));
        }
    } else {
        calls.clear();
    }
    for (j, call) in given.tool_calls.into_iter().enumerate() {
        let id = call.id.unwrap_or_else(|| format!("call_{i}_{j}"));
        calls.push_back((id.clone(), call.function.name.clone()));
        message.tool_calls.push(ToolCall::Function(FunctionCall {
            id,
            name: call.function.name,
            arguments: match call.function.arguments {
                Value::Null => "{}".into(),
                Value::String(text) => text,
                object => object.to_string(),
            },
            extra: None,
        }));
    }
    let is_only_calls = given.content.is_empty() && !message.tool_calls.is_empty();
    message.content = (!is_only_calls).then(|| content(given.content, given.images));
    Ok(message)
}

/// A text with pictures, which Ollama's clients send as bare base64.
fn content(text: String, images: Vec<String>) -> Content {
    if images.is_empty() {
        return Content::Text(text);
    }
    let mut parts: Vec<Part> = images.into_iter().map(picture).collect();
    parts.push(Part::Text(TextPart { text, extra: None }));
    Content::Parts(parts)
}

fn picture(data: String) -> Part {
    // The first bytes of the formats, in base64.
    const KINDS: [(&str, &str); 4] = [
        ("iVBOR", "png"),
        ("/9j/", "jpeg"),
        ("R0lGOD", "gif"),
        ("UklGR", "webp"),
    ];
    let kind = KINDS.iter().find(|(begin, _)| data.starts_with(begin));
    let kind = kind.map_or("png", |(_, kind)| kind);
    Part::Image(Image {
        url: format!("data:image/{kind};base64,{data}"),
        detail: None,
        extra: None,
    })
}
