//! OpenAI's wire types for answers.

use guests::completion::{Delta, FinishReason, ToolCallDelta, Usage};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::dispatch::Head;
use crate::dispatch::answer::{Answer, ToolCall};

/// A chunk of a stream.
#[derive(Serialize)]
pub(super) struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: Vec<ChunkChoice>,
    /// Absent unless the client asked for it; null on all chunks but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Value>>,
}

#[derive(Serialize)]
struct ChunkChoice {
    index: usize,
    delta: Value,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

impl Head {
    /// A chunk with a delta of one choice, or with the reason why it ended.
    pub(super) fn chunk(
        &self,
        index: usize,
        delta: Value,
        finish: Option<FinishReason>,
        usage_wanted: bool,
    ) -> Chunk<'_> {
        let finish_reason = finish.map(finish_name);
        let choices = vec![ChunkChoice {
            index,
            delta,
            logprobs: None,
            finish_reason,
        }];
        self.frame(choices, usage_wanted.then_some(None))
    }

    /// The last chunk of a stream whose client asked for the usage.
    pub(super) fn usage_chunk(&self, usage: Option<&Usage>) -> Chunk<'_> {
        self.frame(Vec::new(), Some(Some(usage_value(usage))))
    }

    fn frame(&self, choices: Vec<ChunkChoice>, usage: Option<Option<Value>>) -> Chunk<'_> {
        Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            system_fingerprint: &self.fingerprint,
            choices,
            usage,
        }
    }
}

/// The `delta` of a chunk.
pub(super) fn delta_value(delta: Delta) -> Value {
    match delta {
        Delta::Content(text) => json!({ "content": text }),
        Delta::Reasoning(text) => json!({ "reasoning_content": text }),
        Delta::Refusal(text) => json!({ "refusal": text }),
        Delta::ToolCall(call) => json!({ "tool_calls": [tool_call_value(call)] }),
        Delta::Extra { name, value, .. } => Map::from_iter([(name, value)]).into(),
    }
}

fn tool_call_value(call: ToolCallDelta) -> Value {
    let mut value = Map::new();
    value.insert("index".into(), call.index.into());
    if let Some(id) = call.id {
        value.insert("id".into(), id.into());
        value.insert("type".into(), "function".into());
    }
    let mut function = Map::new();
    if let Some(name) = call.name {
        function.insert("name".into(), name.into());
    }
    function.insert("arguments".into(), call.arguments.into());
    value.insert("function".into(), function.into());
    value.into()
}

pub(super) fn finish_name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::ContentFilter => "content_filter",
    }
}

/// OpenAI's usage object. Without a count it is all zeros, because some clients read the numbers without
/// checking that they are there.
pub(super) fn usage_value(usage: Option<&Usage>) -> Value {
    let usage = usage.copied().unwrap_or_default();
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens.saturating_add(usage.completion_tokens),
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}

/// The answer as a choice.
pub(super) fn choice(answer: Answer, index: usize, reason: FinishReason) -> Value {
    let calls = answer.tool_calls;
    let content = match answer.content {
        None if calls.is_empty() && answer.refusal.is_none() => Some(String::new()),
        content => content,
    };
    let mut message = Map::new();
    message.insert("role".into(), "assistant".into());
    message.insert("content".into(), content.into());
    message.insert("refusal".into(), answer.refusal.into());
    message.insert("annotations".into(), json!([]));
    if let Some(reasoning) = answer.reasoning {
        message.insert("reasoning_content".into(), reasoning.into());
    }
    if !calls.is_empty() {
        let calls: Vec<Value> = calls.into_iter().map(call_value).collect();
        message.insert("tool_calls".into(), calls.into());
    }
    message.extend(answer.extra);
    json!({
        "index": index,
        "message": message,
        "logprobs": null,
        "finish_reason": finish_name(reason),
    })
}

/// A whole completion.
pub(super) fn completion(head: &Head, choices: Vec<Value>, usage: Option<&Usage>) -> Value {
    json!({
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "system_fingerprint": head.fingerprint,
        "choices": choices,
        "usage": usage_value(usage),
    })
}

fn call_value(call: ToolCall) -> Value {
    json!({
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    })
}
