//! Reads a call as a chat completion.

use harness_guest::{
    ApiError, Content, File, FunctionCall, Image, JsonSchema, Message, OutputFormat, Part, Request,
    Role, Sampling, TextPart, ToolCall, invalid, message, read_body, unsupported,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::Settings;
use crate::tools::{self, Names};

/// A call that was read.
#[derive(Debug)]
pub struct Read {
    /// The model's name.
    pub model: String,
    /// The chat completion.
    pub request: Request,
    /// What its functions were.
    pub names: Names,
    /// Whether the client wants a summary of what the model thinks.
    pub summarizes: bool,
    /// The fields that the response repeats.
    pub repeated: Map<String, Value>,
}

/// The body of a call. What is not here changes nothing of the answer's meaning.
#[derive(Debug, Deserialize)]
struct Body {
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    model: String,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    input: Value,
    instructions: Option<String>,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    tools: Vec<Value>,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    tool_choice: Value,
    parallel_tool_calls: Option<bool>,
    max_output_tokens: Option<u64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    reasoning: Value,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    text: Value,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    stream: Option<bool>,
    store: Option<bool>,
    background: Option<bool>,
    previous_response_id: Option<String>,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    conversation: Value,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    prompt: Value,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    metadata: Value,
}

/// Reads a call.
///
/// # Errors
///
/// Names what is wrong, or what cannot be done.
pub fn read(body: &str, settings: &Settings) -> Result<Read, ApiError> {
    let body: Body = read_body(body)?;
    refuse_memory(&body)?;
    if body.model.is_empty() {
        return Err(invalid(
            "model",
            "`model` is missing: name one of GET /v1/models",
        ));
    }
    let (tools, names) = tools::read(&body.tools, settings)?;
    let instructions = body.instructions.clone().filter(|text| !text.is_empty());
    let mut messages: Vec<Message> = instructions
        .map(|text| message(Role::System, Some(Content::Text(text))))
        .into_iter()
        .collect();
    input(&body.input, &names, &mut messages)?;
    let repeated = repeated(&body);
    let effort = body.reasoning["effort"].as_str();
    let plain = harness_guest::request(messages);
    Ok(Read {
        summarizes: !body.reasoning["summary"].is_null(),
        request: Request {
            tool_choice: tools::choice(&body.tool_choice, &names)?,
            tools,
            parallel_tool_calls: body.parallel_tool_calls,
            output_format: output_format(&body.text["format"])?,
            stream: body.stream.unwrap_or(false),
            max_tokens: body.max_output_tokens,
            reasoning_effort: effort.map(str::to_owned),
            sampling: Sampling {
                temperature: body.temperature,
                top_p: body.top_p,
                ..plain.sampling
            },
            ..plain
        },
        model: body.model,
        names,
        repeated,
    })
}

/// Refuses what needs an earlier response, or one that is kept.
fn refuse_memory(body: &Body) -> Result<(), ApiError> {
    let instead = "this service keeps no responses: send the whole conversation in `input`";
    let wanted = [
        ("previous_response_id", body.previous_response_id.is_some()),
        ("conversation", !body.conversation.is_null()),
        ("prompt", !body.prompt.is_null()),
        ("background", body.background == Some(true)),
    ];
    if let Some((name, _)) = wanted.into_iter().find(|(_, is_wanted)| *is_wanted) {
        return Err(unsupported(
            name,
            format!("`{name}` is not supported: {instead}"),
        ));
    }
    match body.store {
        Some(true) => Err(unsupported(
            "store",
            format!("`store` may not be true: {instead}, and set `store` to false"),
        )),
        _ => Ok(()),
    }
}

/// The fields of a request that its response repeats.
fn repeated(body: &Body) -> Map<String, Value> {
    let or = |value: &Value, usual: Value| match value {
        Value::Null => usual,
        value => value.clone(),
    };
    let fields = json!({
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "model": body.model,
        "parallel_tool_calls": body.parallel_tool_calls.unwrap_or(true),
        "previous_response_id": null,
        "reasoning": or(&body.reasoning, json!({"effort": null, "summary": null})),
        "store": false,
        "temperature": body.temperature.unwrap_or(1.0),
        "text": or(&body.text, json!({"format": {"type": "text"}})),
        "tool_choice": or(&body.tool_choice, json!("auto")),
        "tools": body.tools,
        "top_p": body.top_p.unwrap_or(1.0),
        "truncation": "disabled",
        "metadata": or(&body.metadata, json!({})),
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn output_format(format: &Value) -> Result<OutputFormat, ApiError> {
    match format["type"].as_str() {
        None | Some("text") => Ok(OutputFormat::Text),
        Some("json_object") => Ok(OutputFormat::JsonObject),
        Some("json_schema") => Ok(OutputFormat::JsonSchema(JsonSchema {
            name: format["name"].as_str().unwrap_or("answer").to_owned(),
            description: format["description"].as_str().map(str::to_owned),
            schema: format.get("schema").map(Value::to_string),
            strict: format["strict"].as_bool() == Some(true),
            extra: None,
        })),
        Some(other) => Err(unsupported(
            "text.format",
            format!("the format `{other}` is not supported"),
        )),
    }
}

/// Reads the input: a text, or items.
fn input(value: &Value, names: &Names, messages: &mut Vec<Message>) -> Result<(), ApiError> {
    match value {
        Value::String(text) => {
            messages.push(message(Role::User, Some(Content::Text(text.clone()))));
            Ok(())
        }
        Value::Array(items) if !items.is_empty() => {
            let mut all = items.iter().enumerate();
            all.try_for_each(|(i, item)| add(&format!("input[{i}]"), item, names, messages))
        }
        _ => Err(invalid(
            "input",
            "`input` must be a text, or a list of items that is not empty",
        )),
    }
}

/// Adds what an item says. Calls become part of the message before them, if the model said one.
fn add(at: &str, item: &Value, names: &Names, messages: &mut Vec<Message>) -> Result<(), ApiError> {
    let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
    match item["type"].as_str().unwrap_or("message") {
        "message" => {
            let role = match &*text("role") {
                "user" => Role::User,
                "assistant" => Role::Assistant,
                "system" => Role::System,
                "developer" => Role::Developer,
                other => {
                    let what =
                        format!("`{other}` is no role: user, assistant, system or developer");
                    return Err(invalid(&format!("{at}.role"), what));
                }
            };
            messages.push(message(
                role,
                content(&format!("{at}.content"), &item["content"])?,
            ));
        }
        "function_call" => called(item, names, text("arguments"), messages),
        "custom_tool_call" => {
            let arguments = json!({"input": item["input"]}).to_string();
            called(item, names, arguments, messages);
        }
        "function_call_output" | "custom_tool_call_output" => {
            let content = content(&format!("{at}.output"), &item["output"])?;
            let content = content.unwrap_or_else(|| Content::Text(String::new()));
            messages.push(Message {
                tool_call_id: Some(text("call_id")),
                ..message(Role::Tool, Some(content))
            });
        }
        // The backend keeps its own.
        "reasoning" => {}
        "item_reference" => {
            let what = "this service keeps no items: send the item itself";
            return Err(unsupported(at, what));
        }
        other => {
            let what = format!("an item of the type `{other}` is not supported");
            return Err(unsupported(at, what));
        }
    }
    Ok(())
}

fn called(item: &Value, names: &Names, arguments: String, messages: &mut Vec<Message>) {
    let text = |key: &str| item[key].as_str().unwrap_or_default();
    let call = ToolCall::Function(FunctionCall {
        id: text("call_id").to_owned(),
        name: names.in_chat(item["namespace"].as_str(), text("name")),
        arguments,
        extra: None,
    });
    match messages.last_mut() {
        Some(last) if last.role == Role::Assistant => last.tool_calls.push(call),
        _ => {
            let mut said = message(Role::Assistant, None);
            said.tool_calls.push(call);
            messages.push(said);
        }
    }
}

/// A text, or parts. One part that is a text stays a text.
fn content(at: &str, value: &Value) -> Result<Option<Content>, ApiError> {
    let parts = match value {
        Value::Null => return Ok(None),
        Value::String(text) => return Ok(Some(Content::Text(text.clone()))),
        Value::Array(parts) => parts,
        _ => return Err(invalid(at, "it must be a text, or a list of parts")),
    };
    let parts = parts.iter().enumerate();
    let parts = parts.map(|(i, value)| part(&format!("{at}[{i}]"), value));
    let mut parts: Vec<Part> = parts.collect::<Result<_, _>>()?;
    Ok(match (parts.len(), parts.pop()) {
        (1, Some(Part::Text(part))) => Some(Content::Text(part.text)),
        (_, Some(last)) => {
            parts.push(last);
            Some(Content::Parts(parts))
        }
        (_, None) => None,
    })
}

fn part(at: &str, value: &Value) -> Result<Part, ApiError> {
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    let plain = |key: &str| TextPart {
        text: text(key).unwrap_or_default(),
        extra: None,
    };
    Ok(match value["type"].as_str().unwrap_or_default() {
        "input_text" | "output_text" | "text" => Part::Text(plain("text")),
        "refusal" => Part::Refusal(plain("refusal")),
        "input_image" => match text("image_url") {
            Some(url) => Part::Image(Image {
                url,
                detail: text("detail"),
                extra: None,
            }),
            None => {
                let what = "a picture needs `image_url`: this service keeps no files";
                return Err(unsupported(at, what));
            }
        },
        "input_file" => match text("file_data") {
            Some(data) => Part::File(File {
                filename: text("filename"),
                data: Some(data),
                id: None,
                extra: None,
            }),
            None => {
                let what = "a file needs `file_data`: this service keeps no files and fetches none";
                return Err(unsupported(at, what));
            }
        },
        other => {
            let what = format!("a part of the type `{other}` is not supported");
            return Err(unsupported(at, what));
        }
    })
}
