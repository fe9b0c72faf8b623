//! Writes an answer: lines of JSON as it streams, or one object.

use std::time::{Duration, UNIX_EPOCH};

use harness_guest::{
    Context, Delta, FinishReason, Header, HttpResponse, Outcome, Usage, json_line, json_reply,
};
use serde::Serialize;
use serde_json::{Value, json};

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
    /// When the request came, as RFC 3339.
    created_at: String,
    /// Whether the client wants to see what the model thinks.
    thinks: bool,
    text: String,
    thinking: String,
    /// The calls so far: id, name and arguments, which Ollama has as an object and therefore in one piece.
    calls: Vec<(String, String, String)>,
    end: Option<FinishReason>,
    usage: Option<Usage>,
}

/// An answer, or a piece of it.
#[derive(Serialize)]
struct Object<'a> {
    model: &'a str,
    created_at: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<&'a str>,
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    done_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_eval_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_count: Option<u64>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<Value>,
}

impl Answer {
    /// For a request.
    pub fn new(form: Form, context: &Context, named: &Named, thinks: bool) -> Self {
        Answer {
            form,
            named: named.clone(),
            created_at: instant(context.created),
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
        object.done_reason = Some("load");
        json_reply(200, &json!(object))
    }

    /// The next pieces.
    pub fn take(&mut self, deltas: Vec<Delta>) -> String {
        let mut lines = String::new();
        for delta in deltas {
            match delta {
                Delta::Content(text) | Delta::Refusal(text) if self.streams() => {
                    lines += &line(&self.object(&text, None, false));
                }
                Delta::Content(text) | Delta::Refusal(text) => self.text.push_str(&text),
                Delta::Reasoning(text) if self.thinks && self.streams() => {
                    lines += &line(&self.object("", Some(&text), false));
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
        last.done_reason = Some(match self.end {
            Some(FinishReason::Length) => "length",
            _ => "stop",
        });
        last.prompt_eval_count = self.usage.as_ref().map(|usage| usage.prompt_tokens);
        last.eval_count = self.usage.as_ref().map(|usage| usage.completion_tokens);
        if !self.streams() {
            last.set_calls(calls);
            return json_line(&last);
        }
        let mut lines = String::new();
        if calls.is_some() {
            let mut piece = self.object("", None, false);
            piece.set_calls(calls);
            lines += &line(&piece);
        }
        lines + &line(&last)
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

    fn object<'a>(&'a self, text: &'a str, thinking: Option<&'a str>, done: bool) -> Object<'a> {
        let thinking = thinking.filter(|text| !text.is_empty());
        let is_chat = self.form == Form::Chat;
        Object {
            model: &self.named.model,
            created_at: &self.created_at,
            message: is_chat.then_some(Message {
                role: "assistant",
                content: text,
                thinking,
                tool_calls: None,
            }),
            response: (!is_chat).then_some(text),
            thinking: thinking.filter(|_| !is_chat),
            done,
            done_reason: None,
            prompt_eval_count: None,
            eval_count: None,
        }
    }
}

impl Object<'_> {
    fn set_calls(&mut self, calls: Option<Value>) {
        if let Some(message) = &mut self.message {
            message.tool_calls = calls;
        }
    }
}

fn line(object: &Object<'_>) -> String {
    json_line(object) + "\n"
}

/// Seconds since 1970 as RFC 3339.
pub(crate) fn instant(unix: u64) -> String {
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(unix));
    at.map_or(String::new(), |at| {
        humantime::format_rfc3339_seconds(at).to_string()
    })
}
