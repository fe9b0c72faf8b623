//! Writes an answer: events as it streams, or one response.

use harness_guest::{
    Context, Delta, Failure, FinishReason, Outcome, ToolCallDelta, Usage, json_line,
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::item::{Call, Item, Kind, summary};
use crate::request::Read;
use crate::tools::Names;

/// An answer on its way.
#[derive(Debug)]
pub struct Answer {
    /// What the ids of the response and of its items end with.
    id: String,
    created: u64,
    streams: bool,
    summarizes: bool,
    names: Names,
    repeated: Map<String, Value>,
    /// The items so far; the last one is open while `is_open`.
    items: Vec<Item>,
    is_open: bool,
    /// Events so far.
    count: u64,
    /// The first events, which go with the first piece.
    unsent: String,
    end: Option<FinishReason>,
    usage: Option<Usage>,
}

impl Answer {
    /// For a request.
    pub fn new(context: &Context, read: &Read) -> Self {
        Answer {
            id: context.id.replace("req_", ""),
            created: context.created,
            streams: read.request.stream,
            summarizes: read.summarizes,
            names: read.names.clone(),
            repeated: read.repeated.clone(),
            items: Vec::new(),
            is_open: false,
            count: 0,
            unsent: String::new(),
            end: None,
            usage: None,
        }
    }

    /// Words the first events. Whether the answer comes piece by piece.
    pub fn begin(&mut self) -> bool {
        if self.streams {
            let fields = json!({"response": self.response("in_progress", None)});
            for name in ["response.created", "response.in_progress"] {
                self.unsent += &event(&mut self.count, name, &fields);
            }
        }
        self.streams
    }

    /// The next pieces.
    pub fn take(&mut self, deltas: Vec<Delta>) -> String {
        let mut events = std::mem::take(&mut self.unsent);
        for delta in deltas {
            match delta {
                Delta::Content(text) => self.text(Kind::Text(String::new()), &text, &mut events),
                Delta::Refusal(text) => self.text(Kind::Refusal(String::new()), &text, &mut events),
                Delta::Reasoning(text) if self.summarizes => {
                    self.text(Kind::Reasoning(String::new()), &text, &mut events);
                }
                Delta::Reasoning(_) | Delta::Annotation(_) => {}
                Delta::ToolCall(piece) => self.call(piece, &mut events),
            }
        }
        match self.streams {
            true => events,
            false => String::new(),
        }
    }

    /// The answer is complete.
    pub fn ended(&mut self, outcome: &Outcome) {
        self.end = Some(outcome.finish_reason);
        self.usage = outcome.usage.clone();
    }

    /// The last events, or the whole response.
    pub fn finish(&mut self) -> String {
        let mut events = std::mem::take(&mut self.unsent);
        self.close(&mut events);
        let (status, kind) = match self.end {
            Some(FinishReason::Length | FinishReason::ContentFilter) => {
                ("incomplete", "response.incomplete")
            }
            _ => ("completed", "response.completed"),
        };
        let response = self.response(status, None);
        match self.streams {
            true => {
                self.event(kind, json!({"response": response}), &mut events);
                events
            }
            false => json_line(&response),
        }
    }

    /// The last event of an answer that failed on its way.
    pub fn fail(&mut self, failure: &Failure) -> String {
        let mut events = std::mem::take(&mut self.unsent);
        let code = failure.code.as_deref().unwrap_or("server_error");
        let error = json!({"code": code, "message": failure.message});
        let response = self.response("failed", Some(error));
        self.event(
            "response.failed",
            json!({"response": response}),
            &mut events,
        );
        events
    }

    fn response(&self, status: &str, error: Option<Value>) -> Value {
        let reason = match self.end {
            Some(FinishReason::Length) => Some("max_output_tokens"),
            Some(FinishReason::ContentFilter) => Some("content_filter"),
            _ => None,
        };
        let output: Vec<Value> = match status {
            "in_progress" => Vec::new(),
            _ => self
                .items
                .iter()
                .map(|item| item.value("completed"))
                .collect(),
        };
        let mut response = json!({
            "id": format!("resp_{}", self.id),
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": error,
            "incomplete_details": reason.map(|reason| json!({"reason": reason})),
            "output": output,
            "usage": self.usage(),
        });
        if let Some(fields) = response.as_object_mut() {
            fields.extend(self.repeated.clone());
        }
        response
    }

    fn usage(&self) -> Option<Value> {
        let usage = self.usage.as_ref()?;
        Some(json!({
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }))
    }

    /// A piece of a text of this kind.
    fn text(&mut self, kind: Kind, piece: &str, events: &mut String) {
        let is_same =
            |item: &Item| std::mem::discriminant(&item.kind) == std::mem::discriminant(&kind);
        if !self.is_open || !self.items.last().is_some_and(is_same) {
            self.open(kind, events);
        }
        let output_index = self.items.len().saturating_sub(1);
        let Some(item) = self.items.last_mut() else {
            return;
        };
        let (name, at) = match &mut item.kind {
            Kind::Text(text) => {
                text.push_str(piece);
                ("response.output_text.delta", "content_index")
            }
            Kind::Refusal(text) => {
                text.push_str(piece);
                ("response.refusal.delta", "content_index")
            }
            Kind::Reasoning(text) => {
                text.push_str(piece);
                ("response.reasoning_summary_text.delta", "summary_index")
            }
            Kind::Call(_) => return,
        };
        let index = |of| (at == of).then_some(0);
        let piece = Piece {
            item_id: &item.id,
            output_index,
            content_index: index("content_index"),
            summary_index: index("summary_index"),
            delta: Some(piece),
            part: None,
        };
        *events += &event(&mut self.count, name, &piece);
    }

    fn call(&mut self, piece: ToolCallDelta, events: &mut String) {
        let goes_on = self.is_open
            && matches!(self.items.last(), Some(Item { kind: Kind::Call(call), .. }) if call.index == piece.index);
        if !goes_on {
            let call = Call {
                index: piece.index,
                call_id: piece.id.unwrap_or_default(),
                declared: self.names.of(piece.name.as_deref().unwrap_or_default()),
                arguments: String::new(),
            };
            self.open(Kind::Call(call), events);
        }
        let Some(Item {
            kind: Kind::Call(call),
            ..
        }) = self.items.last_mut()
        else {
            return;
        };
        call.arguments.push_str(&piece.arguments);
        // The text of a custom tool stands within JSON: it is told when it is complete.
        if !call.declared.is_custom && !piece.arguments.is_empty() {
            let mut fields = self.of_item();
            fields["delta"] = piece.arguments.into();
            self.event("response.function_call_arguments.delta", fields, events);
        }
    }

    /// Begins an item.
    fn open(&mut self, kind: Kind, events: &mut String) {
        self.close(events);
        let number = self.items.len();
        let begin = match kind {
            Kind::Reasoning(_) => "rs",
            Kind::Text(_) | Kind::Refusal(_) => "msg",
            Kind::Call(_) => "fc",
        };
        let item = Item {
            id: format!("{begin}_{}_{number}", self.id),
            kind,
        };
        let (value, part) = (item.value("in_progress"), item.part());
        let is_reasoning = matches!(item.kind, Kind::Reasoning(_));
        self.items.push(item);
        self.is_open = true;
        let added = Added {
            output_index: number,
            item: value,
        };
        *events += &event(&mut self.count, "response.output_item.added", &added);
        let (name, index) = match is_reasoning {
            true => ("response.reasoning_summary_part.added", (None, Some(0))),
            false => ("response.content_part.added", (Some(0), None)),
        };
        if let Some(part) = part.or_else(|| is_reasoning.then(|| summary(""))) {
            let id = self.items.last().map_or("", |item| &*item.id);
            let piece = Piece {
                item_id: id,
                output_index: number,
                content_index: index.0,
                summary_index: index.1,
                delta: None,
                part: Some(part),
            };
            *events += &event(&mut self.count, name, &piece);
        }
    }

    /// Ends the item that is open.
    fn close(&mut self, events: &mut String) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        let Some(item) = self.items.last() else {
            return;
        };
        let mut done: Vec<(&str, Value)> = Vec::new();
        match &item.kind {
            Kind::Text(text) => {
                done.push((
                    "response.output_text.done",
                    json!({"content_index": 0, "text": text}),
                ));
                done.push((
                    "response.content_part.done",
                    json!({"content_index": 0, "part": item.part()}),
                ));
            }
            Kind::Refusal(text) => {
                done.push((
                    "response.refusal.done",
                    json!({"content_index": 0, "refusal": text}),
                ));
                done.push((
                    "response.content_part.done",
                    json!({"content_index": 0, "part": item.part()}),
                ));
            }
            Kind::Reasoning(text) => {
                let part = summary(text);
                done.push((
                    "response.reasoning_summary_text.done",
                    json!({"summary_index": 0, "text": text}),
                ));
                done.push((
                    "response.reasoning_summary_part.done",
                    json!({"summary_index": 0, "part": part}),
                ));
            }
            Kind::Call(call) if call.declared.is_custom => {
                let input = call.input();
                done.push((
                    "response.custom_tool_call_input.delta",
                    json!({"delta": input}),
                ));
                done.push((
                    "response.custom_tool_call_input.done",
                    json!({"input": input}),
                ));
            }
            Kind::Call(call) => {
                let told = json!({"arguments": call.arguments, "name": call.declared.name});
                done.push(("response.function_call_arguments.done", told));
            }
        }
        let whole = json!({"output_index": self.items.len() - 1, "item": item.value("completed")});
        for (name, more) in done {
            let mut fields = self.of_item();
            if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
                fields.extend(more);
            }
            self.event(name, fields, events);
        }
        self.event("response.output_item.done", whole, events);
    }

    /// What events about the last item name it by.
    fn of_item(&self) -> Value {
        let id = self.items.last().map(|item| &*item.id);
        json!({"item_id": id, "output_index": self.items.len().saturating_sub(1)})
    }

    fn event(&mut self, name: &str, fields: Value, events: &mut String) {
        *events += &event(&mut self.count, name, &fields);
    }
}

/// A server-sent event, the one of this number.
fn event(count: &mut u64, name: &str, fields: &impl Serialize) -> String {
    let event = Event {
        name,
        sequence_number: *count,
        fields,
    };
    *count += 1;
    format!("event: {name}\ndata: {}\n\n", json_line(&event))
}

#[derive(Serialize)]
struct Event<'a, T> {
    #[serde(rename = "type")]
    name: &'a str,
    sequence_number: u64,
    #[serde(flatten)]
    fields: &'a T,
}

/// What an event about a new item says.
#[derive(Serialize)]
struct Added {
    output_index: usize,
    item: Value,
}

/// What an event about a piece of the last item says, or about a part that begins.
#[derive(Serialize)]
struct Piece<'a> {
    item_id: &'a str,
    output_index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary_index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<Value>,
}
