//! An answer that is put together from deltas. Answers in one piece (unary) are made from the same deltas as
//! streams.

use guests::completion::{Delta, ToolCallDelta};
use serde_json::{Map, Value};

/// An answer that is being put together.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) content: Option<String>,
    pub(crate) reasoning: Option<String>,
    pub(crate) refusal: Option<String>,
    pub(crate) tool_calls: Vec<ToolCall>,
    /// Fields that the guest added to the answer.
    pub(crate) extra: Map<String, Value>,
    size: usize,
}

/// A call of a function.
#[derive(Debug, Default)]
pub(crate) struct ToolCall {
    pub(crate) id: String,
    pub(crate) name: String,
    /// JSON text.
    pub(crate) arguments: String,
}

impl Answer {
    /// How many bytes of text there are.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Takes the next delta.
    pub(crate) fn push(&mut self, delta: Delta) {
        self.size = self.size.saturating_add(delta.size());
        match delta {
            Delta::Content(text) => self.content.get_or_insert_default().push_str(&text),
            Delta::Reasoning(text) => self.reasoning.get_or_insert_default().push_str(&text),
            Delta::Refusal(text) => self.refusal.get_or_insert_default().push_str(&text),
            Delta::ToolCall(call) => self.push_call(call),
            Delta::Extra { name, value, .. } => drop(self.extra.insert(name, value)),
        }
    }

    /// Adds a piece of a function call. The exchange has checked that the indexes have no gaps.
    fn push_call(&mut self, delta: ToolCallDelta) {
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
    pub(crate) fn text(&self) -> &str {
        self.content.as_deref().unwrap_or_default()
    }

    /// Name and arguments of each call so far.
    pub(crate) fn calls(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tool_calls
            .iter()
            .map(|call| (call.name.as_str(), call.arguments.as_str()))
    }
}
