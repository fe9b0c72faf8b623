//! A chat completion request in the program's own words, as transforms and adapters get it.
//!
//! The fields are those of the contract (`wit/`), which documents them. What a type does not name stands in its
//! `extra`: a JSON object as text, or none.

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
