//! A response as a whole, and how it is written.

use harness_guest::{Context, Failure, FinishReason, Usage};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::item::{Item, Status, WrittenItem};
use crate::request::Read;

/// A response as far as it has come.
#[derive(Debug)]
pub struct Response {
    /// What its id and those of its items end with.
    pub id: String,
    /// Seconds since 1970.
    created: u64,
    /// The fields that it repeats from its request.
    repeated: Map<String, Value>,
    /// Its items.
    pub items: Vec<Item>,
    /// How it ended.
    pub end: Option<FinishReason>,
    /// What it took.
    pub usage: Option<Usage>,
}

/// A response as it is written.
#[derive(Debug, Serialize)]
pub struct WrittenResponse<'a> {
    id: String,
    object: &'static str,
    created_at: u64,
    status: Status,
    error: Option<WrittenError<'a>>,
    incomplete_details: Option<Incomplete>,
    /// The items, once they are complete.
    output: Vec<WrittenItem<'a>>,
    usage: Option<WrittenUsage>,
    #[serde(flatten)]
    repeated: &'a Map<String, Value>,
}

#[derive(Debug, Serialize)]
struct WrittenError<'a> {
    code: &'a str,
    message: &'a str,
}

/// Why a response was cut.
#[derive(Debug, Serialize)]
struct Incomplete {
    reason: &'static str,
}

#[derive(Debug, Serialize)]
struct WrittenUsage {
    input_tokens: u64,
    input_tokens_details: InputDetails,
    output_tokens: u64,
    output_tokens_details: OutputDetails,
    total_tokens: u64,
}

#[derive(Debug, Serialize)]
struct InputDetails {
    cached_tokens: u64,
}

#[derive(Debug, Serialize)]
struct OutputDetails {
    reasoning_tokens: u64,
}

impl Response {
    /// One that begins.
    pub fn new(context: &Context, read: &Read) -> Self {
        Response {
            id: context.id.replace("req_", ""),
            created: context.created,
            repeated: read.repeated.clone(),
            items: Vec::new(),
            end: None,
            usage: None,
        }
    }

    /// How far it is at its end.
    pub fn last_status(&self) -> Status {
        match self.incomplete() {
            Some(_) => Status::Incomplete,
            None => Status::Completed,
        }
    }

    /// The response, which is this far.
    pub fn written<'a>(
        &'a self,
        status: Status,
        failure: Option<&'a Failure>,
    ) -> WrittenResponse<'a> {
        let items = match status {
            Status::InProgress => &[],
            _ => &*self.items,
        };
        let output = items.iter().map(|item| item.written(Status::Completed));
        WrittenResponse {
            id: format!("resp_{}", self.id),
            object: "response",
            created_at: self.created,
            status,
            error: failure.map(Into::into),
            incomplete_details: self.incomplete(),
            output: output.collect(),
            usage: self.usage.as_ref().map(Into::into),
            repeated: &self.repeated,
        }
    }

    fn incomplete(&self) -> Option<Incomplete> {
        let reason = match self.end? {
            FinishReason::Length => "max_output_tokens",
            FinishReason::ContentFilter => "content_filter",
            _ => return None,
        };
        Some(Incomplete { reason })
    }
}

impl<'a> From<&'a Failure> for WrittenError<'a> {
    fn from(failure: &'a Failure) -> Self {
        WrittenError {
            code: failure.code.as_deref().unwrap_or("server_error"),
            message: &failure.message,
        }
    }
}

impl From<&Usage> for WrittenUsage {
    fn from(usage: &Usage) -> Self {
        WrittenUsage {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputDetails {
                cached_tokens: usage.cached_tokens,
            },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputDetails {
                reasoning_tokens: usage.reasoning_tokens,
            },
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
        }
    }
}
