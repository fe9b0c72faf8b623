//! Folds a stream of deltas into one answer: unary requests take the same path as streams.

use serde_json::{Map, Value, json};

use super::wire::{Head, finish_name, usage_value};
use crate::guests::types;

/// An answer that is being put together.
#[derive(Debug, Default)]
pub(super) struct Aggregate {
    content: Option<String>,
    reasoning: Option<String>,
    refusal: Option<String>,
    tool_calls: Vec<ToolCall>,
    extra: Map<String, Value>,
    size: usize,
}

#[derive(Debug, Default)]
struct ToolCall {
    id: String,
    name: String,
    arguments: String,
}

impl Aggregate {
    /// How many bytes of text there are.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Takes the next delta.
    pub(super) fn push(&mut self, delta: types::Delta) {
        self.size = self.size.saturating_add(match &delta {
            types::Delta::Content(text)
            | types::Delta::Reasoning(text)
            | types::Delta::Refusal(text) => text.len(),
            types::Delta::ToolCall(call) => call.arguments.len(),
            types::Delta::Extra(json) => json.len(),
        });
        match delta {
            types::Delta::Content(text) => self.content.get_or_insert_default().push_str(&text),
            types::Delta::Reasoning(text) => self.reasoning.get_or_insert_default().push_str(&text),
            types::Delta::Refusal(text) => self.refusal.get_or_insert_default().push_str(&text),
            types::Delta::ToolCall(call) => self.push_call(call),
            types::Delta::Extra(json) => {
                if let Ok(fields) = serde_json::from_str::<Map<_, _>>(&json) {
                    self.extra.extend(fields);
                }
            }
        }
    }

    /// The host has checked that indexes are without gaps.
    fn push_call(&mut self, delta: types::ToolCallDelta) {
        let index = delta.index as usize;
        if index == self.tool_calls.len() {
            self.tool_calls.push(ToolCall::default());
        }
        let Some(call) = self.tool_calls.get_mut(index) else {
            return;
        };
        call.id.push_str(delta.id.as_deref().unwrap_or_default());
        call.name
            .push_str(delta.name.as_deref().unwrap_or_default());
        call.arguments.push_str(&delta.arguments);
    }

    /// Its text so far.
    pub(super) fn content(&self) -> &str {
        self.content.as_deref().unwrap_or_default()
    }

    /// Name and arguments of each call so far.
    pub(super) fn calls(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tool_calls
            .iter()
            .map(|call| (call.name.as_str(), call.arguments.as_str()))
    }

    /// The answer as a choice.
    pub(super) fn choice(self, index: usize, reason: types::FinishReason) -> Value {
        let calls = self.tool_calls;
        let content = match self.content {
            None if calls.is_empty() && self.refusal.is_none() => Some(String::new()),
            content => content,
        };
        let mut message = Map::new();
        message.insert("role".into(), "assistant".into());
        message.insert("content".into(), content.into());
        message.insert("refusal".into(), self.refusal.into());
        message.insert("annotations".into(), json!([]));
        if let Some(reasoning) = self.reasoning {
            message.insert("reasoning_content".into(), reasoning.into());
        }
        if !calls.is_empty() {
            let calls: Vec<Value> = calls.into_iter().map(ToolCall::into_value).collect();
            message.insert("tool_calls".into(), calls.into());
        }
        message.extend(self.extra);
        json!({
            "index": index,
            "message": message,
            "logprobs": null,
            "finish_reason": finish_name(reason),
        })
    }
}

/// A whole completion.
pub(super) fn completion(head: &Head, choices: Vec<Value>, usage: Option<&types::Usage>) -> Value {
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

impl ToolCall {
    fn into_value(self) -> Value {
        json!({
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        })
    }
}
