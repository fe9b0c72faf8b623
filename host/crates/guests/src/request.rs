//! A chat completion request in the program's own words, as transforms and adapters get it.
//!
//! The fields are those of the contract (`wit/`), which documents them. What a type does not name stands in its
//! `extra`: a JSON object as text, or none.

pub mod chat_json;

use crate::completion::Json;

/// A chat completion request whose fields were checked.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// What was said so far.
    pub messages: Vec<Message>,
    /// What the model may call.
    pub tools: Vec<Tool>,
    /// What it must or must not call.
    pub tool_choice: Option<ToolChoice>,
    /// Whether it may make several calls at once.
    pub parallel_tool_calls: Option<bool>,
    /// The form of the answer's text.
    pub output_format: OutputFormat,
    /// Whether the client reads the answer as a stream.
    pub stream: bool,
    /// The most tokens of the answer.
    pub max_tokens: Option<u64>,
    /// How much the model is to think.
    pub reasoning_effort: Option<String>,
    /// How the answer is sampled.
    pub sampling: Sampling,
    /// Words that end the answer's text.
    pub stop: Vec<String>,
    /// All other fields.
    pub extra: Option<Json>,
}

impl Request {
    /// How many bytes of text it has, base64 included.
    pub fn size(&self) -> usize {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let messages: usize = self.messages.iter().map(Message::size).sum();
        let tools = self.tools.iter().map(|tool| match tool {
            Tool::Function(function) => {
                function.name.len() + length(&function.description) + length(&function.parameters)
            }
            Tool::Other(json) => json.len(),
        });
        let schema = match &self.output_format {
            OutputFormat::JsonSchema(schema) => length(&schema.schema),
            _ => 0,
        };
        messages + tools.sum::<usize>() + schema + length(&self.extra)
    }

    /// Checks what a guest made of a request.
    ///
    /// # Errors
    ///
    /// Names what is not as in a request of a client's.
    pub fn check(&self) -> Result<(), String> {
        if self.messages.is_empty() {
            return Err("`messages` is empty".into());
        }
        for (i, message) in self.messages.iter().enumerate() {
            message
                .check()
                .map_err(|what| format!("`messages[{i}]{what}"))?;
        }
        for (i, tool) in self.tools.iter().enumerate() {
            let json = match tool {
                Tool::Function(function) => function.parameters.as_ref(),
                Tool::Other(json) => Some(json),
            };
            if json.is_some_and(|json| !is_object_text(json)) {
                return Err(format!("`tools[{i}]` has JSON that is no object"));
            }
        }
        if let OutputFormat::JsonSchema(schema) = &self.output_format
            && schema
                .schema
                .as_ref()
                .is_some_and(|json| !is_object_text(json))
        {
            return Err("`response_format` has a schema that is no object".into());
        }
        match &self.extra {
            Some(json) if !is_object_text(json) => Err("`extra` is no object".into()),
            _ => Ok(()),
        }
    }
}

impl Message {
    fn size(&self) -> usize {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let content = match &self.content {
            None => 0,
            Some(Content::Text(text)) => text.len(),
            Some(Content::Parts(parts)) => parts.iter().map(Part::size).sum(),
        };
        let calls = self.tool_calls.iter().map(|call| match call {
            ToolCall::Function(call) => call.name.len() + call.arguments.len(),
            ToolCall::Other(json) => json.len(),
        });
        content + calls.sum::<usize>() + length(&self.name) + length(&self.extra)
    }

    /// The error goes on behind `messages[i]`.
    fn check(&self) -> Result<(), &'static str> {
        if self.content.is_none() && self.role != Role::Assistant {
            return Err("` has no content");
        }
        if self.role == Role::Tool && self.tool_call_id.is_none() {
            return Err(".tool_call_id` is missing");
        }
        if self.role != Role::Assistant && !self.tool_calls.is_empty() {
            return Err(".tool_calls` is not an assistant's");
        }
        match &self.extra {
            Some(json) if !is_object_text(json) => Err(".extra` is no object"),
            _ => Ok(()),
        }
    }
}

impl Part {
    fn size(&self) -> usize {
        match self {
            Part::Text(part) | Part::Refusal(part) => part.text.len(),
            Part::Image(image) => image.url.len(),
            Part::Audio(audio) => audio.data.len(),
            Part::File(file) => file.data.as_ref().map_or(0, String::len),
            Part::Other(json) => json.len(),
        }
    }
}

/// Whether a text is a JSON object.
fn is_object_text(json: &str) -> bool {
    json.trim_start().starts_with('{')
        && serde_json::from_str::<serde::de::IgnoredAny>(json).is_ok()
}

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sampling {
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// Any whole number.
    pub seed: Option<i64>,
    /// -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// -2 to 2.
    pub presence_penalty: Option<f64>,
}

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The author of the program that calls.
    System,
    /// The same, in newer models.
    Developer,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// A function, whose result the message is.
    Tool,
}

/// One message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// The speaker's name.
    pub name: Option<String>,
    /// What is said.
    pub content: Option<Content>,
    /// The calls that the assistant makes.
    pub tool_calls: Vec<ToolCall>,
    /// Which call it is the result of.
    pub tool_call_id: Option<String>,
    /// All other fields.
    pub extra: Option<Json>,
}

/// What is said, in the form that the client chose.
#[derive(Clone, Debug)]
pub enum Content {
    /// A text.
    Text(String),
    /// Texts, pictures, files.
    Parts(Vec<Part>),
}

/// A part of a message's content.
#[derive(Clone, Debug)]
pub enum Part {
    /// A text.
    Text(TextPart),
    /// What an assistant said when it refused.
    Refusal(TextPart),
    /// A picture.
    Image(Image),
    /// A sound.
    Audio(Audio),
    /// A file.
    File(File),
    /// A part of another type.
    Other(Json),
}

/// A text.
#[derive(Clone, Debug)]
pub struct TextPart {
    /// The text.
    pub text: String,
    /// All other fields.
    pub extra: Option<Json>,
}

/// A picture.
#[derive(Clone, Debug)]
pub struct Image {
    /// Where it is, or a `data:` URL.
    pub url: String,
    /// How closely the model is to look.
    pub detail: Option<String>,
    /// All other fields.
    pub extra: Option<Json>,
}

/// A sound.
#[derive(Clone, Debug)]
pub struct Audio {
    /// Base64.
    pub data: String,
    /// Such as `wav`.
    pub format: String,
    /// All other fields.
    pub extra: Option<Json>,
}

/// A file.
#[derive(Clone, Debug)]
pub struct File {
    /// Its name.
    pub filename: Option<String>,
    /// A `data:` URL, or base64.
    pub data: Option<String>,
    /// The id of a file that was uploaded before.
    pub id: Option<String>,
    /// All other fields.
    pub extra: Option<Json>,
}

/// A call that the assistant made.
#[derive(Clone, Debug)]
pub enum ToolCall {
    /// Of a function.
    Function(FunctionCall),
    /// Of a tool of another type.
    Other(Json),
}

/// A call of a function.
#[derive(Clone, Debug)]
pub struct FunctionCall {
    /// The call's id.
    pub id: String,
    /// The function's name.
    pub name: String,
    /// JSON text, as the model wrote it.
    pub arguments: String,
    /// All other fields.
    pub extra: Option<Json>,
}

/// Something that the model may call.
#[derive(Clone, Debug)]
pub enum Tool {
    /// A function of the client's.
    Function(Function),
    /// A tool of another type.
    Other(Json),
}

/// A function of the client's.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// The JSON Schema of its arguments.
    pub parameters: Option<Json>,
    /// Whether the arguments must fit it.
    pub strict: bool,
    /// All other fields.
    pub extra: Option<Json>,
}

/// What the model must or must not call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    Auto,
    /// Nothing.
    None,
    /// At least one function.
    Required,
    /// The function of this name.
    Function(String),
    /// Only some of the functions.
    Allowed {
        /// Their names.
        names: Vec<String>,
        /// Whether one of them must be called.
        required: bool,
    },
}

/// The form of an answer's text.
#[derive(Clone, Debug, Default)]
pub enum OutputFormat {
    /// Any text.
    #[default]
    Text,
    /// One JSON object.
    JsonObject,
    /// JSON that fits a schema.
    JsonSchema(JsonSchema),
}

/// A schema for an answer's text.
#[derive(Clone, Debug)]
pub struct JsonSchema {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The JSON Schema.
    pub schema: Option<Json>,
    /// Whether the text must fit it.
    pub strict: bool,
    /// All other fields.
    pub extra: Option<Json>,
}
