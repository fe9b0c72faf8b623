//! Writes an answer: events as it streams, or one message.

use harness_guest::{Context, Delta, FinishReason, Outcome, ToolCallDelta, Usage, json_line};
use serde::Serialize;
use serde_json::{Value, json};

use crate::request::Read;

/// An answer on its way.
#[derive(Debug)]
pub struct Answer {
    id: String,
    model: String,
    streams: bool,
    /// Whether the client wants to see what the model thinks.
    thinks: bool,
    /// `message_start`, which goes with the first piece.
    unsent: String,
    /// The blocks so far; the last one is open.
    blocks: Vec<Block>,
    end: Option<FinishReason>,
    usage: Option<Usage>,
}

/// A block of the message.
#[derive(Debug)]
enum Block {
    Text(String),
    Thinking(String),
    /// The number of the call, its id, its name and its arguments.
    Call(u32, String, String, String),
}

/// An event about a piece of a block, of which there are many.
#[derive(Serialize)]
struct BlockDelta<'a> {
    #[serde(rename = "type")]
    name: &'static str,
    index: usize,
    delta: Piece<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum Piece<'a> {
    #[serde(rename = "text_delta")]
    Text { text: &'a str },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: &'a str },
    #[serde(rename = "input_json_delta")]
    Input { partial_json: &'a str },
}

impl Answer {
    /// For a request.
    pub fn new(context: &Context, read: &Read) -> Self {
        Answer {
            id: context.id.replace("req_", "msg_"),
            model: read.model.clone(),
            streams: read.request.stream,
            thinks: read.thinks,
            unsent: String::new(),
            blocks: Vec::new(),
            end: None,
            usage: None,
        }
    }

    /// Words the first event. Whether the answer comes piece by piece.
    pub fn begin(&mut self) -> bool {
        if self.streams {
            let start = json!({"type": "message_start", "message": self.message()});
            self.unsent = event("message_start", &start);
        }
        self.streams
    }

    /// The next pieces.
    pub fn take(&mut self, deltas: Vec<Delta>) -> String {
        let mut events = std::mem::take(&mut self.unsent);
        for delta in deltas {
            match delta {
                Delta::Content(text) | Delta::Refusal(text) => {
                    if !matches!(self.blocks.last(), Some(Block::Text(_))) {
                        self.open(Block::Text(String::new()), &mut events);
                    }
                    if let Some(Block::Text(whole)) = self.blocks.last_mut() {
                        whole.push_str(&text);
                    }
                    self.delta(Piece::Text { text: &text }, &mut events);
                }
                Delta::Reasoning(text) if self.thinks => {
                    if !matches!(self.blocks.last(), Some(Block::Thinking(_))) {
                        self.open(Block::Thinking(String::new()), &mut events);
                    }
                    if let Some(Block::Thinking(whole)) = self.blocks.last_mut() {
                        whole.push_str(&text);
                    }
                    self.delta(Piece::Thinking { thinking: &text }, &mut events);
                }
                Delta::Reasoning(_) | Delta::Annotation(_) => {}
                Delta::ToolCall(piece) => self.call(piece, &mut events),
            }
        }
        self.if_streamed(events)
    }

    fn call(&mut self, piece: ToolCallDelta, events: &mut String) {
        if !matches!(self.blocks.last(), Some(Block::Call(index, ..)) if *index == piece.index) {
            let (id, name) = (piece.id.unwrap_or_default(), piece.name.unwrap_or_default());
            self.open(Block::Call(piece.index, id, name, String::new()), events);
        }
        if let Some(Block::Call(_, _, _, whole)) = self.blocks.last_mut() {
            whole.push_str(&piece.arguments);
        }
        if !piece.arguments.is_empty() {
            let partial_json = &piece.arguments;
            self.delta(Piece::Input { partial_json }, events);
        }
    }

    /// The answer is complete.
    pub fn ended(&mut self, outcome: &Outcome) {
        self.end = Some(outcome.finish_reason);
        self.usage = outcome.usage.clone();
    }

    /// The last events, or the whole message.
    pub fn finish(&mut self) -> String {
        if !self.streams {
            return json_line(&self.message());
        }
        let mut events = std::mem::take(&mut self.unsent);
        self.close(&mut events);
        let delta = json!({"stop_reason": self.stop_reason(), "stop_sequence": null});
        let last = json!({"type": "message_delta", "delta": delta, "usage": self.usage()});
        events += &event("message_delta", &last);
        events + &event("message_stop", &json!({"type": "message_stop"}))
    }

    fn if_streamed(&self, events: String) -> String {
        match self.streams {
            true => events,
            false => String::new(),
        }
    }

    fn message(&self) -> Value {
        let blocks: Vec<Value> = self.blocks.iter().map(Block::whole).collect();
        json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model,
            "content": blocks, "stop_reason": self.stop_reason(), "stop_sequence": null,
            "usage": self.usage(),
        })
    }

    fn open(&mut self, block: Block, events: &mut String) {
        self.close(events);
        let index = self.blocks.len();
        let start =
            json!({"type": "content_block_start", "index": index, "content_block": block.empty()});
        *events += &event("content_block_start", &start);
        self.blocks.push(block);
    }

    /// Closes the block that is open.
    fn close(&mut self, events: &mut String) {
        if let Some(index) = self.blocks.len().checked_sub(1) {
            let stop = json!({"type": "content_block_stop", "index": index});
            *events += &event("content_block_stop", &stop);
        }
    }

    fn delta(&self, delta: Piece<'_>, events: &mut String) {
        let name = "content_block_delta";
        let index = self.blocks.len().saturating_sub(1);
        *events += &event(name, &BlockDelta { name, index, delta });
    }

    fn stop_reason(&self) -> Option<&'static str> {
        self.end.map(|end| match end {
            FinishReason::Stop => "end_turn",
            FinishReason::Length => "max_tokens",
            FinishReason::ToolCalls => "tool_use",
            FinishReason::ContentFilter => "refusal",
        })
    }

    /// Anthropic's kinds of input tokens exclude each other.
    fn usage(&self) -> Value {
        let count = |of: fn(&Usage) -> u64| self.usage.as_ref().map_or(0, of);
        let cached = count(|usage| usage.cached_tokens);
        let written = count(|usage| usage.cache_write_tokens);
        let prompt = count(|usage| usage.prompt_tokens);
        json!({
            "input_tokens": prompt.saturating_sub(cached + written),
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": cached,
            "output_tokens": count(|usage| usage.completion_tokens),
        })
    }
}

impl Block {
    /// As it begins.
    fn empty(&self) -> Value {
        match self {
            Block::Text(_) => json!({"type": "text", "text": ""}),
            Block::Thinking(_) => json!({"type": "thinking", "thinking": "", "signature": ""}),
            Block::Call(_, id, name, _) => {
                json!({"type": "tool_use", "id": id, "name": name, "input": {}})
            }
        }
    }

    fn whole(&self) -> Value {
        match self {
            Block::Text(text) => json!({"type": "text", "text": text}),
            Block::Thinking(text) => json!({"type": "thinking", "thinking": text, "signature": ""}),
            Block::Call(_, id, name, arguments) => {
                let input = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
                json!({"type": "tool_use", "id": id, "name": name, "input": input})
            }
        }
    }
}

/// A server-sent event.
pub(crate) fn event(name: &str, data: &impl Serialize) -> String {
    format!("event: {name}\ndata: {}\n\n", json_line(data))
}
