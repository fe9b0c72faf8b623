//! Writes an answer: lines of JSON as it streams, or one object.

use std::time::{Duration, UNIX_EPOCH};

use harness_guest::{
    Context, Delta, FinishReason, Header, HttpResponse, Outcome, Usage, json_line, json_reply,
};
use serde_json::{Map, Value, json};

use crate::request::Named;

/// Which of the two calls it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `/api/chat`: pieces of a message.
    Chat,
    /// `/api/generate`: pieces of a text.
    Generate,
}

/// An answer on its way.
#[derive(Debug)]
pub struct Answer {
    form: Form,
    named: Named,
    created: u64,
    /// Whether the client wants to see what the model thinks.
    thinks: bool,
    text: String,
    thinking: String,
    /// The calls so far: id, name and arguments, which Ollama has as an object and therefore in one piece.
    calls: Vec<(String, String, String)>,
    end: Option<FinishReason>,
    usage: Option<Usage>,
}

impl Answer {
    /// For a request.
    pub fn new(form: Form, context: &Context, named: &Named, thinks: bool) -> Self {
        Answer {
            form,
            named: named.clone(),
            created: context.created,
            thinks,
            text: String::new(),
            thinking: String::new(),
            calls: Vec::new(),
            end: None,
            usage: None,
        }
    }

    /// Whether it comes piece by piece.
    pub(crate) fn streams(&self) -> bool {
        self.named.streams
    }

    /// Names the options that change nothing.
    pub(crate) fn headers(&self) -> Vec<Header> {
        let ignored = &self.named.ignored;
        let header = (!ignored.is_empty()).then(|| Header {
            name: "x-ignored-params".into(),
            value: ignored.join(", "),
        });
        header.into_iter().collect()
    }

    /// The answer to a request that only loads a model.
    pub(crate) fn loaded(&self) -> HttpResponse {
        let mut object = self.object("", None, true);
        object.insert("done_reason".into(), "load".into());
        json_reply(200, &Value::Object(object))
    }

    /// The next pieces.
    pub fn take(&mut self, deltas: Vec<Delta>) -> String {
        let mut lines = String::new();
        for delta in deltas {
            match delta {
                Delta::Content(text) | Delta::Refusal(text) if self.streams() => {
                    lines += &line(self.object(&text, None, false));
                }
                Delta::Content(text) | Delta::Refusal(text) => self.text.push_str(&text),
                Delta::Reasoning(text) if self.thinks && self.streams() => {
                    lines += &line(self.object("", Some(&text), false));
                }
                Delta::Reasoning(text) if self.thinks => self.thinking.push_str(&text),
                Delta::Reasoning(_) | Delta::Annotation(_) => {}
                Delta::ToolCall(piece) => {
                    let at = piece.index as usize;
                    if at >= self.calls.len() {
                        self.calls.resize(at + 1, Default::default());
                    }
                    let (id, name, arguments) = &mut self.calls[at];
                    *id += piece.id.as_deref().unwrap_or_default();
                    *name += piece.name.as_deref().unwrap_or_default();
                    *arguments += &piece.arguments;
                }
            }
        }
        lines
    }

    /// The answer is complete.
    pub fn ended(&mut self, outcome: &Outcome) {
        self.end = Some(outcome.finish_reason);
        self.usage = outcome.usage.clone();
    }

    /// The last lines of a stream, or the whole answer.
    pub fn finish(&mut self) -> String {
        let calls = self.calls();
        let mut last = self.object(&self.text, Some(&self.thinking), true);
        let reason = match self.end {
            Some(FinishReason::Length) => "length",
            _ => "stop",
        };
        last.insert("done_reason".into(), reason.into());
        if let Some(usage) = &self.usage {
            last.insert("prompt_eval_count".into(), usage.prompt_tokens.into());
            last.insert("eval_count".into(), usage.completion_tokens.into());
        }
        if !self.streams() {
            if let (Some(message), Some(calls)) = (last.get_mut("message"), calls) {
                message["tool_calls"] = calls;
            }
            return json_line(&Value::Object(last));
        }
        let mut lines = String::new();
        if let Some(calls) = calls {
            let mut piece = self.object("", None, false);
            if let Some(message) = piece.get_mut("message") {
                message["tool_calls"] = calls;
            }
            lines += &line(piece);
        }
        lines + &line(last)
    }

    fn calls(&self) -> Option<Value> {
        let calls = self
            .calls
            .iter()
            .enumerate()
            .map(|(i, (id, name, arguments))| {
                let arguments = match arguments.is_empty() {
                    true => json!({}),
                    false => serde_json::from_str(arguments).unwrap_or_else(|_| json!(arguments)),
                };
                json!({"id": id, "function": {"index": i, "name": name, "arguments": arguments}})
            });
        (!self.calls.is_empty()).then(|| calls.collect())
    }

    fn object(&self, text: &str, thinking: Option<&str>, done: bool) -> Map<String, Value> {
        let mut object = Map::new();
        object.insert("model".into(), self.named.model.as_str().into());
        object.insert("created_at".into(), instant(self.created).into());
        let thinking = thinking.filter(|text| !text.is_empty());
        match self.form {
            Form::Chat => {
                let mut message = json!({"role": "assistant", "content": text});
                if let Some(thinking) = thinking {
                    message["thinking"] = thinking.into();
                }
                object.insert("message".into(), message);
            }
            Form::Generate => {
                object.insert("response".into(), text.into());
                if let Some(thinking) = thinking {
                    object.insert("thinking".into(), thinking.into());
                }
            }
        }
        object.insert("done".into(), done.into());
        object
    }
}

fn line(object: Map<String, Value>) -> String {
    format!("{}\n", json_line(&Value::Object(object)))
}

/// Seconds since 1970 as RFC 3339.
pub(crate) fn instant(unix: u64) -> String {
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(unix));
    at.map_or(String::new(), |at| {
        humantime::format_rfc3339_seconds(at).to_string()
    })
}
