//! What a response consists of.

use serde_json::{Value, json};

use crate::tools::Declared;

/// An item of the output.
#[derive(Debug)]
pub struct Item {
    /// Its id.
    pub id: String,
    /// What it is.
    pub kind: Kind,
}

/// What an item is, as far as it has come.
#[derive(Debug)]
pub enum Kind {
    /// A summary of what the model thought.
    Reasoning(String),
    /// What the model says.
    Text(String),
    /// Why it does not answer.
    Refusal(String),
    /// A call.
    Call(Call),
}

/// A call of a function.
#[derive(Debug)]
pub struct Call {
    /// Its number in the answer.
    pub index: u32,
    /// The id that its result names.
    pub call_id: String,
    /// What is called.
    pub declared: Declared,
    /// JSON.
    pub arguments: String,
}

impl Item {
    /// The item, which is on its way or complete.
    pub fn value(&self, status: &str) -> Value {
        match &self.kind {
            Kind::Reasoning(text) => {
                let summary = match text.is_empty() {
                    true => json!([]),
                    false => json!([summary(text)]),
                };
                json!({"id": self.id, "type": "reasoning", "summary": summary})
            }
            Kind::Text(_) | Kind::Refusal(_) => {
                let content = match self.part() {
                    Some(part) if status != "in_progress" => json!([part]),
                    _ => json!([]),
                };
                json!({"id": self.id, "type": "message", "status": status, "role": "assistant", "content": content})
            }
            Kind::Call(call) => call.value(&self.id, status),
        }
    }

    /// The part of a message.
    pub fn part(&self) -> Option<Value> {
        match &self.kind {
            Kind::Text(text) => {
                Some(json!({"type": "output_text", "text": text, "annotations": []}))
            }
            Kind::Refusal(text) => Some(json!({"type": "refusal", "refusal": text})),
            Kind::Reasoning(_) | Kind::Call(_) => None,
        }
    }
}

/// The part of a summary.
pub fn summary(text: &str) -> Value {
    json!({"type": "summary_text", "text": text})
}

impl Call {
    /// What a tool is given that takes any text.
    pub fn input(&self) -> String {
        let arguments: Value = serde_json::from_str(&self.arguments).unwrap_or_default();
        match arguments["input"].as_str() {
            Some(text) => text.to_owned(),
            None => self.arguments.clone(),
        }
    }

    fn value(&self, id: &str, status: &str) -> Value {
        let Declared {
            namespace,
            name,
            is_custom,
        } = &self.declared;
        let mut value = match is_custom {
            true => {
                json!({"id": id, "type": "custom_tool_call", "status": status, "call_id": self.call_id, "name": name, "input": self.input()})
            }
            false => {
                json!({"id": id, "type": "function_call", "status": status, "call_id": self.call_id, "name": name, "arguments": self.arguments})
            }
        };
        if let Some(namespace) = namespace {
            value["namespace"] = namespace.as_str().into();
        }
        value
    }
}
