//! Reads a call as a chat completion.

use harness_guest::{
    ApiError, Content, File, Function, FunctionCall, Image, JsonSchema, Message, OutputFormat,
    Part, Request, Role, Sampling, TextPart, Tool, ToolCall, ToolChoice, invalid, message,
    read_body,
};
use serde::Deserialize;
use serde_json::Value;

/// How many characters make a token in an estimate, about.
const CHARACTERS_A_TOKEN: usize = 4;

/// The tokens of a picture in an estimate: one of the usual size.
const TOKENS_A_PICTURE: usize = 1500;

/// A call that was read.
#[derive(Debug)]
pub struct Read {
    /// The model's name.
    pub model: String,
    /// The chat completion.
    pub request: Request,
    /// Whether the client wants to see what the model thinks.
    pub thinks: bool,
}

/// The body of a call. What is not here changes nothing of the answer's meaning.
#[derive(Debug, Deserialize)]
struct Body {
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    model: String,
    max_tokens: Option<u64>,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    messages: Vec<MessageValue>,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    system: Texts,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    tools: Vec<Value>,
    tool_choice: Option<Choice>,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    stop_sequences: Vec<String>,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    stream: bool,
    temperature: Option<f64>,
    top_p: Option<f64>,
    thinking: Option<Thinking>,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    output_config: OutputConfig,
    /// As the format was asked for while it was tried out.
    output_format: Option<FormatValue>,
}

#[derive(Debug, Default, Deserialize)]
struct OutputConfig {
    effort: Option<String>,
    format: Option<FormatValue>,
}

#[derive(Debug, Deserialize)]
struct FormatValue {
    r#type: String,
    schema: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct MessageValue {
    role: String,
    content: Blocks,
}

/// A text, or a list of blocks.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Blocks {
    Text(String),
    List(Vec<Value>),
}

/// A text, or a list of texts.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Texts {
    #[default]
    None,
    Text(String),
    List(Vec<TextBlock>),
}

#[derive(Debug, Deserialize)]
struct TextBlock {
    text: String,
}

#[derive(Debug, Deserialize)]
struct Choice {
    r#type: String,
    name: Option<String>,
    #[serde(default, deserialize_with = "harness_guest::or_default")]
    disable_parallel_tool_use: bool,
}

#[derive(Debug, Deserialize)]
struct Thinking {
    r#type: String,
    budget_tokens: Option<u64>,
}

/// A block of a message.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Text {
        text: String,
    },
    Image {
        source: Source,
    },
    Document {
        source: Source,
        title: Option<String>,
    },
    ToolUse {
        id: String,
        name: String,
        #[serde(default, deserialize_with = "harness_guest::or_default")]
        input: Value,
    },
    ToolResult {
        tool_use_id: String,
        content: Option<Blocks>,
        #[serde(default, deserialize_with = "harness_guest::or_default")]
        is_error: bool,
    },
    /// What the model thought before. The backend keeps its own.
    Thinking {},
    RedactedThinking {},
}

/// Where a picture or a document is.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Source {
    Base64 { media_type: String, data: String },
    Url { url: String },
    Text { data: String },
}

/// Reads a call.
///
/// # Errors
///
/// Names what is wrong.
pub fn read(body: &str) -> Result<Read, ApiError> {
    let body: Body = read_body(body).map_err(|error| ApiError {
        param: error.param.map(|param: String| dotted(&param)),
        ..error
    })?;
    if body.model.is_empty() {
        return Err(invalid("model", "model: Field required"));
    }
    let mut messages = system(body.system);
    for (i, message) in body.messages.into_iter().enumerate() {
        add(&format!("messages.{i}"), message, &mut messages)?;
    }
    let tools = body.tools.into_iter().enumerate();
    let tools = tools.map(|(i, value)| tool(i, value));
    let parallel = body
        .tool_choice
        .as_ref()
        .map(|choice| !choice.disable_parallel_tool_use);
    let thinking = body
        .thinking
        .filter(|thinking| thinking.r#type != "disabled");
    let format = match body.output_config.format {
        Some(format) => Some(("output_config.format", format)),
        None => body.output_format.map(|format| ("output_format", format)),
    };
    let budget = thinking
        .as_ref()
        .and_then(|thinking| thinking.budget_tokens);
    let plain = harness_guest::request(messages);
    Ok(Read {
        model: body.model,
        thinks: thinking.is_some(),
        request: Request {
            tools: tools.collect::<Result<_, _>>()?,
            tool_choice: body.tool_choice.map(tool_choice).transpose()?,
            parallel_tool_calls: parallel.filter(|parallel| !parallel),
            output_format: output_format(format)?,
            stream: body.stream,
            max_tokens: body.max_tokens,
            reasoning_effort: body.output_config.effort.or_else(|| effort(budget?)),
            sampling: Sampling {
                temperature: body.temperature,
                top_p: body.top_p,
                ..plain.sampling
            },
            stop: body.stop_sequences,
            ..plain
        },
    })
}

/// How many tokens a call has, about.
///
/// # Errors
///
/// Names what is wrong.
pub fn estimate(body: &str) -> Result<usize, ApiError> {
    let read = read(body)?;
    let mut characters = 0;
    let mut pictures = 0;
    let mut count = |text: &str| characters += text.chars().count();
    for message in &read.request.messages {
        match &message.content {
            None => {}
            Some(Content::Text(text)) => count(text),
            Some(Content::Parts(parts)) => parts.iter().for_each(|part| match part {
                Part::Text(part) | Part::Refusal(part) => count(&part.text),
                _ => pictures += 1,
            }),
        }
        for call in &message.tool_calls {
            if let ToolCall::Function(call) = call {
                count(&call.name);
                count(&call.arguments);
            }
        }
    }
    for tool in &read.request.tools {
        if let Tool::Function(function) = tool {
            count(&function.name);
            let texts = [&function.description, &function.parameters];
            texts.into_iter().flatten().for_each(|text| count(text));
        }
    }
    Ok(characters.div_ceil(CHARACTERS_A_TOKEN) + pictures * TOKENS_A_PICTURE)
}

/// A path as Anthropic writes it.
fn dotted(path: &str) -> String {
    path.replace('[', ".").replace(']', "")
}

/// The effort for a budget of tokens to think with.
fn effort(budget: u64) -> Option<String> {
    let word = match budget {
        0 => return None,
        1..=4_096 => "low",
        4_097..=16_384 => "medium",
        _ => "high",
    };
    Some(word.into())
}

fn output_format(format: Option<(&str, FormatValue)>) -> Result<OutputFormat, ApiError> {
    let Some((at, format)) = format else {
        return Ok(OutputFormat::Text);
    };
    match (&*format.r#type, format.schema) {
        ("json_schema", Some(schema)) => Ok(OutputFormat::JsonSchema(JsonSchema {
            name: "answer".into(),
            description: None,
            schema: Some(schema.to_string()),
            strict: true,
            extra: None,
        })),
        ("json_schema", None) => Err(invalid(
            &format!("{at}.schema"),
            format!("{at}.schema: Field required"),
        )),
        (other, _) => Err(invalid(
            &format!("{at}.type"),
            format!("{at}.type: `{other}` is not supported, only `json_schema`"),
        )),
    }
}

fn system(texts: Texts) -> Vec<Message> {
    let texts = match texts {
        Texts::None => Vec::new(),
        Texts::Text(text) => vec![text],
        Texts::List(blocks) => blocks.into_iter().map(|block| block.text).collect(),
    };
    let texts = texts.into_iter().filter(|text| !text.is_empty());
    texts
        .map(|text| message(Role::System, Some(Content::Text(text))))
        .collect()
}

/// Adds a message. The results of calls become messages of their own, before what else the message says.
fn add(at: &str, given: MessageValue, messages: &mut Vec<Message>) -> Result<(), ApiError> {
    let role = match &*given.role {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "system" => Role::System,
        other => {
            let what = format!("{at}.role: `{other}` is no role, user or assistant");
            return Err(invalid(&format!("{at}.role"), what));
        }
    };
    let blocks = match given.content {
        Blocks::Text(text) => {
            messages.push(message(role, Some(Content::Text(text))));
            return Ok(());
        }
        Blocks::List(blocks) => blocks,
    };
    let (mut parts, mut calls) = (Vec::new(), Vec::new());
    for (i, value) in blocks.into_iter().enumerate() {
        let at = format!("{at}.content.{i}");
        match block(&at, value)? {
            Block::ToolUse { id, name, input } => {
                let arguments = match input {
                    Value::Null => "{}".into(),
                    input => input.to_string(),
                };
                calls.push(ToolCall::Function(FunctionCall {
                    id,
                    name,
                    arguments,
                    extra: None,
                }));
            }
            Block::ToolResult {
                tool_use_id,
                content,
                is_error,
            } => {
                let mut result = message(Role::Tool, Some(result(&at, content, is_error)?));
                result.tool_call_id = Some(tool_use_id);
                messages.push(result);
            }
            other => parts.extend(part(&at, other)?),
        }
    }
    if !parts.is_empty() || !calls.is_empty() {
        let mut said = message(role, contents(parts));
        said.tool_calls = calls;
        messages.push(said);
    }
    Ok(())
}

fn block(at: &str, value: Value) -> Result<Block, ApiError> {
    let kind = value["type"].as_str().unwrap_or_default().to_owned();
    serde_json::from_value(value).map_err(|error| {
        invalid(
            at,
            format!("{at}: a block of the type `{kind}` is not understood: {error}"),
        )
    })
}

/// One text stays a text; what the model must see beside it makes parts.
fn contents(mut parts: Vec<Part>) -> Option<Content> {
    match (parts.len(), parts.first()) {
        (0, _) => None,
        (1, Some(Part::Text(_))) => match parts.remove(0) {
            Part::Text(part) => Some(Content::Text(part.text)),
            other => Some(Content::Parts(vec![other])),
        },
        _ => Some(Content::Parts(parts)),
    }
}

fn text(text: String) -> Part {
    Part::Text(TextPart { text, extra: None })
}

fn part(at: &str, block: Block) -> Result<Option<Part>, ApiError> {
    Ok(match block {
        Block::Text { text } if text.is_empty() => None,
        Block::Text { text: given } => Some(text(given)),
        Block::Image { source } => Some(Part::Image(Image {
            url: match source {
                Source::Base64 { media_type, data } => format!("data:{media_type};base64,{data}"),
                Source::Url { url } => url,
                Source::Text { .. } => {
                    return Err(invalid(at, format!("{at}: a picture is no text")));
                }
            },
            detail: None,
            extra: None,
        })),
        Block::Document { source, title } => Some(document(at, source, title)?),
        Block::Thinking {} | Block::RedactedThinking {} => None,
        Block::ToolUse { .. } | Block::ToolResult { .. } => {
            return Err(invalid(
                at,
                format!("{at}: a call or its result cannot stand here"),
            ));
        }
    })
}

fn document(at: &str, source: Source, title: Option<String>) -> Result<Part, ApiError> {
    match source {
        Source::Text { data } => Ok(text(data)),
        Source::Base64 { media_type, data } => Ok(Part::File(File {
            filename: Some(title.unwrap_or_else(|| "document.pdf".into())),
            data: Some(format!("data:{media_type};base64,{data}")),
            id: None,
            extra: None,
        })),
        Source::Url { .. } => {
            let what = format!("{at}: a document by its URL is not supported: send its content");
            Err(invalid(at, what))
        }
    }
}

/// What a call gave. Chat completions have no mark for an error, so the words say it.
fn result(at: &str, content: Option<Blocks>, is_error: bool) -> Result<Content, ApiError> {
    let mut parts = Vec::new();
    if is_error {
        parts.push(text("The call failed:".into()));
    }
    match content {
        None => {}
        Some(Blocks::Text(given)) if !is_error => return Ok(Content::Text(given)),
        Some(Blocks::Text(given)) => parts.push(text(given)),
        Some(Blocks::List(blocks)) => {
            for (i, value) in blocks.into_iter().enumerate() {
                let at = format!("{at}.content.{i}");
                let block = block(&at, value)?;
                parts.extend(part(&at, block)?);
            }
        }
    }
    Ok(contents(parts).unwrap_or_else(|| Content::Text(String::new())))
}

fn tool(i: usize, value: Value) -> Result<Tool, ApiError> {
    let at = format!("tools.{i}");
    let kind = value["type"].as_str().unwrap_or("custom");
    if kind != "custom" {
        let what = format!(
            "{at}: `{kind}` is a tool that Anthropic's API runs itself, which the backend does not have: leave it out"
        );
        return Err(invalid(&at, what));
    }
    let Some(name) = value["name"].as_str() else {
        return Err(invalid(&at, format!("{at}.name: Field required")));
    };
    Ok(Tool::Function(Function {
        name: name.to_owned(),
        description: value["description"].as_str().map(str::to_owned),
        parameters: value.get("input_schema").map(Value::to_string),
        strict: false,
        extra: None,
    }))
}

fn tool_choice(choice: Choice) -> Result<ToolChoice, ApiError> {
    Ok(match (&*choice.r#type, choice.name) {
        ("auto", _) => ToolChoice::Auto,
        ("any", _) => ToolChoice::Required,
        ("none", _) => ToolChoice::None,
        ("tool", Some(name)) => ToolChoice::Function(name),
        (other, _) => {
            let what = format!("tool_choice: `{other}` is not understood");
            return Err(invalid("tool_choice", what));
        }
    })
}
