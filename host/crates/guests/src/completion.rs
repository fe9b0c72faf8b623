//! The host's own types for an answer. What guests of every version of the contract say is translated into
//! these types, and every API renders its responses from them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::report::Report;
use crate::request::Request;

/// JSON as text.
pub type Json = String;

/// What an adapter is told of a request beside its body.
#[derive(Clone, Debug)]
pub struct Context {
    /// The id that the client will see.
    pub id: String,
    /// When the request arrived, in seconds since the Unix epoch.
    pub created: u64,
    /// The model's name in the request.
    pub model: String,
    /// What the backend calls the model.
    pub backend_model: String,
    /// The full id behind `model`, where the backend has said it.
    pub resolved_model: Option<String>,
    /// The launch profile of the backend.
    pub profile: Cow<'static, str>,
    /// Whether the backend may fetch pictures and files by URLs that clients name.
    pub fetch_urls: bool,
    /// Which choice of the request this is, from 0.
    pub choice: u32,
}

/// What an adapter wants the host to do.
#[derive(Debug)]
pub enum Effect {
    /// Write this to the backend's standard input.
    Write(String),
    /// Close the backend's standard input.
    CloseInput,
    /// Send this to the client.
    Emit(Delta),
    /// Take note of this about the backend.
    Report(Report),
    /// These are the tokens of the answer so far.
    Counted(Usage),
    /// The answer is complete.
    Finish(Outcome),
    /// The request failed.
    Fail(ApiError),
    /// This session cannot go on in this process, for this reason.
    Unfit(String),
}

/// What a transform makes of a request.
#[derive(Debug)]
pub enum Decision {
    /// The request goes on as it came.
    Pass,
    /// This request goes on in its place.
    Rewrite(Box<Request>),
    /// The request goes no further; this is the answer.
    Answer(Vec<Delta>, Outcome),
}

/// What a transform makes of pieces of an answer.
#[derive(Debug)]
pub enum Step {
    /// These go on in their place.
    Forward(Vec<Delta>),
    /// The answer ends here.
    End(Ending),
    /// The request fails.
    Fail(ApiError),
}

/// The end of an answer, as a transform wants it.
#[derive(Debug)]
pub struct Ending {
    /// The last pieces.
    pub deltas: Vec<Delta>,
    /// Why it ends.
    pub finish_reason: FinishReason,
}

/// A piece of an answer.
#[derive(Clone, Debug)]
pub enum Delta {
    /// Text.
    Content(String),
    /// The model's reasoning.
    Reasoning(String),
    /// Text of a refusal.
    Refusal(String),
    /// A piece of a function call.
    ToolCall(ToolCallDelta),
    /// A field of the guest's own.
    Extra {
        /// The field's name.
        name: String,
        /// Its value.
        value: Value,
        /// How many bytes of JSON it was.
        size: usize,
    },
}

/// A piece of a function call. The first piece of an index has an id and a name.
#[derive(Clone, Debug)]
pub struct ToolCallDelta {
    /// Which call of this answer, from 0 without gaps.
    pub index: u32,
    /// The call's id.
    pub id: Option<String>,
    /// The function's name.
    pub name: Option<String>,
    /// A piece of the arguments' JSON text.
    pub arguments: String,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// What it took, if the backend says.
    pub usage: Option<Usage>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model was done.
    Stop,
    /// A limit on the number of tokens was reached.
    Length,
    /// The model calls functions of the client.
    ToolCalls,
    /// The answer was withheld.
    ContentFilter,
}

/// Tokens that an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Usage {
    /// All input tokens, those read from or written to a cache included.
    pub prompt_tokens: u64,
    /// All output tokens, reasoning included.
    pub completion_tokens: u64,
    /// Input tokens that were read from a cache.
    pub cached_tokens: u64,
    /// Input tokens that were written to a cache.
    pub cache_write_tokens: u64,
    /// Output tokens spent on reasoning.
    pub reasoning_tokens: u64,
    /// What the backend says they cost, in millionths of a US dollar.
    #[serde(skip)]
    pub cost_micro_usd: Option<u64>,
}

/// Why an adapter cannot serve a request, or why the backend did not answer it.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// What went wrong.
    pub kind: ErrorKind,
    /// For the client: what happened, and the way out.
    pub message: String,
    /// The request's field that is at fault.
    pub param: Option<String>,
    /// When another attempt may succeed, in seconds since the Unix epoch.
    pub retry_at: Option<u64>,
}

/// What went wrong, as far as an adapter can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request cannot be served as it is.
    InvalidRequest,
    /// The request asks for something that the guest does not do.
    UnsupportedParameter,
    /// The conversation is too long for the model.
    ContextLength,
    /// The backend is not logged in.
    Authentication,
    /// The login may not do this.
    Permission,
    /// The backend does not know the model.
    ModelNotFound,
    /// A usage limit of the account is reached.
    RateLimit,
    /// The service behind the backend is too busy.
    Overloaded,
    /// The service behind the backend took too long.
    Timeout,
    /// The backend failed, or cannot be understood.
    BackendFailed,
    /// The model did not call what `tool_choice` demands, or called what it forbids.
    ToolChoiceNotHonoured,
    /// The answer does not fit the schema of `response_format`.
    SchemaNotMet,
    /// The answer is not the JSON that `response_format` demands.
    InvalidJson,
    /// A transform does not let the request or its answer pass.
    Refused,
}

/// The key of some content: equal keys mean equal content.
pub type Key = Vec<u8>;

/// What a process must hold, so that a request can go on with it.
#[derive(Debug)]
pub struct Wanted {
    /// What is fixed when a conversation begins.
    pub opening: Key,
    /// Everything before the present question, oldest first.
    pub turns: Vec<Key>,
    /// The ids of the calls whose results the request brings.
    pub results: Vec<String>,
}

/// What a process holds after an answer.
#[derive(Debug)]
pub struct Held {
    /// What was fixed when the conversation began.
    pub opening: Key,
    /// The turns, oldest first, this answer included.
    pub turns: Vec<HeldTurn>,
    /// The ids of the calls whose results the process waits for.
    pub awaited: Vec<String>,
    /// The adapter's note for the session that goes on.
    pub memo: String,
}

/// A turn that a process holds.
#[derive(Debug)]
pub struct HeldTurn {
    /// What it is.
    pub key: Key,
    /// What takes the process back to before this turn.
    pub rewind: Option<String>,
}

/// How a session goes on with a process.
#[derive(Debug, Default)]
pub struct Resumption {
    /// The memo of the session before.
    pub memo: String,
    /// How many of the process's turns are kept.
    pub kept: u32,
    /// What takes back the others, newest first.
    pub rewinds: Vec<String>,
}

impl Delta {
    /// Bytes of text.
    pub fn size(&self) -> usize {
        match self {
            Delta::Content(text) | Delta::Reasoning(text) | Delta::Refusal(text) => text.len(),
            Delta::ToolCall(call) => call.arguments.len(),
            Delta::Extra { size, .. } => *size,
        }
    }
}

impl Usage {
    /// What two answers took together.
    pub fn plus(self, more: Usage) -> Usage {
        Usage {
            prompt_tokens: self.prompt_tokens.saturating_add(more.prompt_tokens),
            completion_tokens: self
                .completion_tokens
                .saturating_add(more.completion_tokens),
            cached_tokens: self.cached_tokens.saturating_add(more.cached_tokens),
            cache_write_tokens: self
                .cache_write_tokens
                .saturating_add(more.cache_write_tokens),
            reasoning_tokens: self.reasoning_tokens.saturating_add(more.reasoning_tokens),
            cost_micro_usd: match (self.cost_micro_usd, more.cost_micro_usd) {
                (Some(one), Some(other)) => Some(one.saturating_add(other)),
                (one, other) => one.or(other),
            },
        }
    }
}
