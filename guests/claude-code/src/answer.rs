//! What comes of an answer: the API's stream events in, OpenAI's deltas out.
//!
//! ```text
//! text ──► (held until a call that must come) ──► (the JSON object in it) ──► content
//! thinking ──► reasoning        tool_use ──► tool calls        StructuredOutput ──► content
//! ```

mod end;
mod repeatable;

use harness_guest::{ApiError, Delta, ErrorKind, FinishReason, ToolCallDelta, Usage, failure};

use crate::block::Block as Content;
use crate::failure::no_structure;
use crate::functions::{Choice, plain_name};
use crate::line::{self, BlockStart, Event, Message};
use crate::request::{Format, OutputSpec};
use crate::text::ObjectFinder;
use crate::tokens::Tokens;
use repeatable::Repeatable;

/// The CLI's own tool for answers of a given schema.
pub const STRUCTURED_OUTPUT: &str = "StructuredOutput";

/// An answer as it comes.
#[derive(Debug)]
pub struct Answer {
    spec: OutputSpec,
    /// The id of the message that the CLI streams.
    streams: Option<String>,
    /// Messages that have begun, streamed or not.
    messages: u32,
    /// The current message came as finished blocks, because the CLI did not stream it.
    in_blocks: bool,
    /// Another message will follow, and belongs to the answer.
    goes_on: bool,
    model: Option<String>,
    tokens: Tokens,
    /// What the current block is.
    block: Block,
    /// Calls that the client has seen.
    calls: u32,
    /// Whether the client has seen anything.
    shown: bool,
    /// Text that is shown only if a call follows, or no structured answer.
    held: String,
    object: ObjectFinder,
    structured: Structured,
    /// The model was asked again, because its answer was not what was asked for.
    asked_again: bool,
    /// The CLI's turn began with an earlier answer, so what it counts at the end is not this answer's alone.
    is_rest_of_turn: bool,
    /// The model's text, for a conversation that goes on.
    repeatable: Repeatable,
}

/// What the current block is.
#[derive(Debug, PartialEq, Eq)]
enum Block {
    /// Not known, because its start was not printed: its deltas say what they are.
    Unnamed,
    /// Output that is not shown to the client.
    Other,
    Text,
    Thinking,
    /// A call, and whether any of its arguments came.
    Call {
        empty: bool,
    },
    /// The structured answer, and whether any of it came.
    Structured {
        empty: bool,
    },
}

/// The structured answer so far.
#[derive(Debug, Default)]
struct Structured {
    /// The id of the call that carries it.
    call: Option<String>,
    /// What was not shown yet.
    kept: String,
    shown: bool,
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Wait for what comes.
    Continue,
    /// The answer is complete.
    Finish(FinishReason),
    /// There is no answer.
    Fail(ApiError),
    /// Ask the model again, with these words.
    AskAgain(String),
}

impl Answer {
    /// An answer with these requirements.
    pub fn new(spec: OutputSpec) -> Self {
        Answer {
            spec,
            streams: None,
            messages: 0,
            in_blocks: false,
            goes_on: false,
            model: None,
            tokens: Tokens::default(),
            block: Block::Unnamed,
            calls: 0,
            shown: false,
            held: String::new(),
            object: ObjectFinder::default(),
            structured: Structured::default(),
            asked_again: false,
            is_rest_of_turn: false,
            repeatable: Repeatable::default(),
        }
    }

    /// What the model said, if a conversation can go on from it: one message, and the model was not asked again.
    pub fn said(&self) -> Option<Vec<Content>> {
        let is_one = self.messages == 1 && !self.asked_again;
        is_one.then(|| self.repeatable.blocks())?
    }

    /// What the answer shall be like.
    pub fn spec(&self) -> &OutputSpec {
        &self.spec
    }

    /// The model that answered, if it was named.
    pub fn model(&mut self) -> Option<String> {
        self.model.take()
    }

    /// The answer is the rest of a turn that called functions.
    pub fn goes_on_after_calls(&mut self) {
        self.is_rest_of_turn = true;
    }

    /// Whether anything has come of the answer.
    pub fn has_begun(&self) -> bool {
        self.messages > 0 || self.asked_again
    }

    /// How many messages have begun.
    pub fn messages(&self) -> u32 {
        self.messages
    }

    /// The CLI asks for the result of a call. If the message was not streamed, all its calls are known by now,
    /// and the answer ends. A streamed message is ended by its own events.
    pub fn call_is_made(&self) -> Step {
        match (self.in_blocks, self.calls) {
            (true, 1..) => Step::Finish(FinishReason::ToolCalls),
            _ => Step::Continue,
        }
    }

    /// Takes a stream event; what the client shall see goes to `out`.
    pub fn event(&mut self, event: &Event, out: &mut Vec<Delta>) -> Step {
        match &*event.r#type {
            "message_start" => return self.message_start(event.message.as_ref()),
            "content_block_start" => {
                if let Some(start) = &event.content_block {
                    self.block = self.block_start(start, out);
                }
            }
            "content_block_delta" => {
                if let Some(delta) = &event.delta {
                    self.block_delta(delta, out);
                }
            }
            "content_block_stop" => self.block_stop(out),
            "message_delta" => return self.message_delta(event, out),
            // Whatever the reason that it gave, the CLI waits for the results now.
            "message_stop" if self.calls > 0 => return Step::Finish(FinishReason::ToolCalls),
            _ => {}
        }
        Step::Continue
    }

    /// A second message within a turn belongs to the answer if the first one ended with a call
    /// that the CLI dealt with. Else it is the CLI's own attempt to mend what broke off, and can
    /// be taken for the answer only as long as the client has seen nothing of the first.
    fn message_start(&mut self, message: Option<&Message>) -> Step {
        if self.messages > 0 && !self.goes_on && self.shown {
            let what = "the answer broke off, and Claude Code began another one: ask again";
            return Step::Fail(failure(ErrorKind::BackendFailed, what));
        }
        if self.goes_on {
            self.tokens.message_ended();
        }
        self.begin();
        self.messages += 1;
        if let Some(message) = message {
            self.streams = message.id.as_deref().map(str::to_owned);
            self.model = message.model.as_deref().map(str::to_owned);
            self.tokens.message_began(message.usage.as_ref());
        }
        Step::Continue
    }

    /// Forgets what of a message was not shown.
    fn begin(&mut self) {
        self.streams = None;
        self.in_blocks = false;
        self.goes_on = false;
        self.block = Block::Unnamed;
        self.held.clear();
        self.structured = Structured::default();
        self.tokens.message_began(None);
    }

    fn block_start(&mut self, start: &BlockStart, out: &mut Vec<Delta>) -> Block {
        let block = self.begun(start, out);
        match block {
            Block::Text => self.repeatable.text_begins(),
            Block::Call { .. } => self.repeatable.call_begins(start),
            Block::Thinking => {}
            Block::Unnamed | Block::Other | Block::Structured { .. } => self.repeatable.is_odd(),
        }
        block
    }

    fn begun(&mut self, start: &BlockStart, out: &mut Vec<Delta>) -> Block {
        match &*start.r#type {
            "text" => Block::Text,
            "thinking" => Block::Thinking,
            "tool_use" if start.name == STRUCTURED_OUTPUT && self.wants_structure() => {
                if self.structured.call.is_some() {
                    return Block::Other;
                }
                self.structured.call = Some(start.id.to_string());
                Block::Structured { empty: true }
            }
            "tool_use" => self.call_start(start, out),
            _ => Block::Other,
        }
    }

    fn call_start(&mut self, start: &BlockStart, out: &mut Vec<Delta>) -> Block {
        let functions = &self.spec.functions;
        let name = plain_name(&start.name)
            .filter(|name| functions.declared.iter().any(|f| f.name == *name));
        let wanted = functions.choice != Choice::Never && !(functions.only_one && self.calls > 0);
        let Some(name) = name.filter(|_| wanted) else {
            return Block::Other;
        };
        let held = std::mem::take(&mut self.held);
        if !self.wants_structure() {
            self.show(held, out);
        }
        out.push(Delta::ToolCall(ToolCallDelta {
            index: self.calls,
            id: Some(start.id.to_string()),
            name: Some(name.to_owned()),
            arguments: String::new(),
        }));
        self.calls += 1;
        self.shown = true;
        Block::Call { empty: true }
    }

    fn block_delta(&mut self, delta: &line::Delta, out: &mut Vec<Delta>) {
        let pieces = [&delta.text, &delta.thinking, &delta.partial_json];
        let Some(piece) = pieces.into_iter().flatten().next().map(|piece| &**piece) else {
            return;
        };
        match self.block {
            Block::Text => {
                self.repeatable.text(piece);
                self.text(piece, out);
            }
            Block::Unnamed if delta.text.is_some() => {
                self.repeatable.is_odd();
                self.text(piece, out);
            }
            Block::Unnamed if delta.thinking.is_some() => self.thinking(piece, out),
            Block::Thinking => self.thinking(piece, out),
            Block::Call { .. } | Block::Structured { .. } if piece.is_empty() => {}
            Block::Call { .. } => {
                self.block = Block::Call { empty: false };
                self.arguments(piece, out);
            }
            Block::Structured { .. } => {
                self.block = Block::Structured { empty: false };
                self.structure(piece, out);
            }
            Block::Unnamed | Block::Other => {}
        }
    }

    /// The end of a block. If no arguments were streamed for a call, or nothing for a structured answer, `{}`
    /// is sent, because clients read them as JSON.
    fn block_stop(&mut self, out: &mut Vec<Delta>) {
        match self.block {
            Block::Call { empty: true } => self.arguments("{}", out),
            Block::Structured { empty: true } => self.structure("{}", out),
            _ => {}
        }
        self.block = Block::Unnamed;
    }

    /// A piece of the structured answer. It is kept back if the client reads the answer as a whole, since the
    /// CLI may still refuse the piece, or if a call that must come is still missing.
    fn structure(&mut self, piece: &str, out: &mut Vec<Delta>) {
        if self.spec.whole || self.lacks_call() {
            self.structured.kept.push_str(piece);
        } else {
            self.structured.shown = true;
            self.show(piece.to_owned(), out);
        }
    }

    fn arguments(&mut self, piece: &str, out: &mut Vec<Delta>) {
        self.repeatable.arguments(piece);
        out.push(Delta::ToolCall(ToolCallDelta {
            index: self.calls.saturating_sub(1),
            id: None,
            name: None,
            arguments: piece.to_owned(),
        }));
    }

    fn text(&mut self, piece: &str, out: &mut Vec<Delta>) {
        if self.wants_structure() || self.lacks_call() {
            return self.held.push_str(piece);
        }
        if self.spec.format == Format::Object {
            let part = self.object.push(piece).to_owned();
            return self.show(part, out);
        }
        self.show(piece.to_owned(), out);
    }

    fn thinking(&mut self, piece: &str, out: &mut Vec<Delta>) {
        if self.spec.show_reasoning && !piece.is_empty() {
            self.shown = true;
            out.push(Delta::Reasoning(piece.to_owned()));
        }
    }

    fn show(&mut self, text: String, out: &mut Vec<Delta>) {
        if !text.is_empty() {
            self.shown = true;
            out.push(Delta::Content(text));
        }
    }

    fn message_delta(&mut self, event: &Event, out: &mut Vec<Delta>) -> Step {
        if let Some(usage) = &event.usage {
            self.tokens.counted(usage);
        }
        let reason = event.delta.as_ref().and_then(|d| d.stop_reason.as_deref());
        match (reason, finish_reason(reason)) {
            // At these the CLI would ask the API again by itself, or report a failure.
            (_, reason @ (FinishReason::Length | FinishReason::ContentFilter)) => {
                self.show_all(out);
                Step::Finish(reason)
            }
            (Some("tool_use"), _) if self.calls > 0 => Step::Finish(FinishReason::ToolCalls),
            // The CLI tells the model that there is no such tool, or that its answer does not fit.
            (Some("tool_use"), _) => {
                self.goes_on = true;
                Step::Continue
            }
            // The CLI asks for the structured answer once more.
            (Some("end_turn"), _) if self.wants_structure() => {
                self.goes_on = true;
                Step::Continue
            }
            _ => Step::Continue,
        }
    }

    /// Shows what was held back, for there will be no more.
    fn show_all(&mut self, out: &mut Vec<Delta>) {
        let text = std::mem::take(&mut self.held);
        let kept = std::mem::take(&mut self.structured.kept);
        if self.structured.call.is_some() {
            self.show(kept, out);
        } else {
            self.show(text, out);
        }
    }

    /// Finished blocks repeat what was streamed, unless the CLI did not stream this message.
    pub fn finished_blocks(&mut self, message: &Message, out: &mut Vec<Delta>) -> Step {
        let id = message.id.as_deref();
        if self.streams.is_some() && (id.is_none() || id == self.streams.as_deref()) {
            return Step::Continue;
        }
        if !self.in_blocks {
            if let step @ Step::Fail(_) = self.message_start(Some(message)) {
                return step;
            }
            self.streams = None;
            self.in_blocks = true;
        }
        for block in &message.content {
            self.finished_block(block, out);
        }
        Step::Continue
    }

    fn finished_block(&mut self, block: &line::Block, out: &mut Vec<Delta>) {
        let start = BlockStart {
            r#type: block.r#type.clone(),
            id: block.id.clone().unwrap_or_default(),
            name: block.name.clone().unwrap_or_default(),
        };
        self.block = self.block_start(&start, out);
        let input = block.input.as_ref().map(|input| input.to_string().into());
        let delta = line::Delta {
            text: block.text.clone(),
            thinking: block.thinking.clone(),
            partial_json: input,
            ..line::Delta::default()
        };
        self.block_delta(&delta, out);
        self.block_stop(out);
    }

    /// The results of calls that the CLI dealt with itself: of the structured answer, it says
    /// whether it fits the schema, and lets the model try again if not.
    pub fn call_results(&mut self, message: &Message) -> Step {
        let refused = message.content.iter().any(|block| {
            block.is_error == Some(true)
                && self.structured.call.is_some()
                && block.tool_use_id.as_deref() == self.structured.call.as_deref()
        });
        if refused && self.structured.shown {
            return Step::Fail(no_structure());
        }
        if refused {
            self.structured = Structured::default();
            self.goes_on = true;
        }
        Step::Continue
    }

    /// The CLI's estimate of what was thought in this message.
    pub fn thought(&mut self, tokens: u64) {
        self.tokens.thought(tokens);
    }

    fn wants_structure(&self) -> bool {
        matches!(self.spec.format, Format::Schema(_))
    }

    fn lacks_call(&self) -> bool {
        self.spec.functions.must_call() && self.calls == 0
    }

    /// What the answer took.
    pub fn usage(&self, cost_usd: Option<f64>) -> Usage {
        self.tokens.usage(cost_usd)
    }
}

/// Why an answer ended, in OpenAI's terms.
fn finish_reason(stop_reason: Option<&str>) -> FinishReason {
    match stop_reason {
        Some("max_tokens" | "model_context_window_exceeded") => FinishReason::Length,
        Some("refusal") => FinishReason::ContentFilter,
        _ => FinishReason::Stop,
    }
}
