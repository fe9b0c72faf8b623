//! Writes an answer: events as it streams, or one response.

use harness_guest::{Context, Delta, Failure, Outcome, ToolCallDelta, json_line};

use crate::event::{Events, InItem, OfItem, OfResponse, Said};
use crate::item::{Call, Item, Kind, Status};
use crate::request::Read;
use crate::response::Response;
use crate::tools::Names;

/// An answer on its way.
#[derive(Debug)]
pub struct Answer {
    response: Response,
    /// Whether its last item may still grow.
    is_open: bool,
    events: Events,
    summarizes: bool,
    names: Names,
}

impl Answer {
    /// For a request.
    pub fn new(context: &Context, read: &Read) -> Self {
        Answer {
            response: Response::new(context, read),
            is_open: false,
            events: Events::new(read.request.stream),
            summarizes: read.summarizes,
            names: read.names.clone(),
        }
    }

    /// Words the first events. Whether the answer comes piece by piece.
    pub fn begin(&mut self) -> bool {
        for name in ["response.created", "response.in_progress"] {
            self.of_response(name, Status::InProgress, None);
        }
        self.events.are_wanted()
    }

    /// The next pieces.
    pub fn take(&mut self, deltas: Vec<Delta>) -> String {
        for delta in deltas {
            match delta {
                Delta::Content(text) => self.text(Kind::Text(String::new()), &text),
                Delta::Refusal(text) => self.text(Kind::Refusal(String::new()), &text),
                Delta::Reasoning(text) if self.summarizes && !text.is_empty() => {
                    self.text(Kind::Reasoning(String::new()), &text);
                }
                Delta::Reasoning(_) | Delta::Annotation(_) => {}
                Delta::ToolCall(piece) => self.call(piece),
            }
        }
        self.events.take()
    }

    /// The answer is complete.
    pub fn ended(&mut self, outcome: &Outcome) {
        self.response.end = Some(outcome.finish_reason);
        self.response.usage = outcome.usage.clone();
    }

    /// The last events, or the whole response.
    pub fn finish(&mut self) -> String {
        self.close();
        let status = self.response.last_status();
        if !self.events.are_wanted() {
            return json_line(&self.response.written(status, None));
        }
        let name = match status {
            Status::Incomplete => "response.incomplete",
            _ => "response.completed",
        };
        self.of_response(name, status, None);
        self.events.take()
    }

    /// The last event of an answer that failed on its way.
    pub fn fail(&mut self, failure: &Failure) -> String {
        self.of_response("response.failed", Status::Failed, Some(failure));
        self.events.take()
    }

    /// An event about the whole response.
    fn of_response(&mut self, name: &str, status: Status, failure: Option<&Failure>) {
        let response = self.response.written(status, failure);
        self.events.push(name, &OfResponse { response });
    }

    /// A piece of a text of this kind.
    fn text(&mut self, kind: Kind, piece: &str) {
        let is_same =
            |item: &Item| std::mem::discriminant(&item.kind) == std::mem::discriminant(&kind);
        if !self.is_open || !self.response.items.last().is_some_and(is_same) {
            self.open(kind);
        }
        let number = self.response.items.len().saturating_sub(1);
        let Some(item) = self.response.items.last_mut() else {
            return;
        };
        let (name, text) = match &mut item.kind {
            Kind::Text(text) => ("response.output_text.delta", text),
            Kind::Refusal(text) => ("response.refusal.delta", text),
            Kind::Reasoning(text) => ("response.reasoning_summary_text.delta", text),
            Kind::Call(_) => return,
        };
        text.push_str(piece);
        let fields = InItem::new(item, number, Said::Delta(piece));
        self.events.push(name, &fields);
    }

    /// A piece of a call.
    fn call(&mut self, piece: ToolCallDelta) {
        let goes_on = self.is_open
            && matches!(self.response.items.last(), Some(Item { kind: Kind::Call(call), .. }) if call.index == piece.index);
        if !goes_on {
            self.open(Kind::Call(Call {
                index: piece.index,
                call_id: piece.id.unwrap_or_default(),
                declared: self.names.of(piece.name.as_deref().unwrap_or_default()),
                arguments: String::new(),
            }));
        }
        let number = self.response.items.len().saturating_sub(1);
        let Some(item) = self.response.items.last_mut() else {
            return;
        };
        let Kind::Call(call) = &mut item.kind else {
            return;
        };
        call.arguments.push_str(&piece.arguments);
        // The text of a custom tool stands within JSON: it is told when it is complete.
        if !call.declared.is_custom && !piece.arguments.is_empty() {
            let fields = InItem::new(item, number, Said::Delta(&piece.arguments));
            self.events
                .push("response.function_call_arguments.delta", &fields);
        }
    }

    /// Begins an item.
    fn open(&mut self, kind: Kind) {
        self.close();
        let begin = match kind {
            Kind::Reasoning(_) => "rs",
            Kind::Text(_) | Kind::Refusal(_) => "msg",
            Kind::Call(_) => "fc",
        };
        let number = self.response.items.len();
        let id = format!("{begin}_{}_{number}", self.response.id);
        let item = Item { id, kind };
        let added = OfItem {
            output_index: number,
            item: item.written(Status::InProgress),
        };
        self.events.push("response.output_item.added", &added);
        if let Some(part) = item.part() {
            let name = match item.kind {
                Kind::Reasoning(_) => "response.reasoning_summary_part.added",
                _ => "response.content_part.added",
            };
            let fields = InItem::new(&item, number, Said::Part(part));
            self.events.push(name, &fields);
        }
        self.response.items.push(item);
        self.is_open = true;
    }

    /// Ends the item that is open.
    fn close(&mut self) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        let number = self.response.items.len().saturating_sub(1);
        let Some(item) = self.response.items.last() else {
            return;
        };
        let mut push =
            |name: &str, said: Said<'_>| self.events.push(name, &InItem::new(item, number, said));
        match &item.kind {
            Kind::Text(text) => push("response.output_text.done", Said::Text(text)),
            Kind::Refusal(text) => push("response.refusal.done", Said::Refusal(text)),
            Kind::Reasoning(text) => push("response.reasoning_summary_text.done", Said::Text(text)),
            Kind::Call(call) if call.declared.is_custom => {
                let input = call.input();
                push("response.custom_tool_call_input.delta", Said::Delta(&input));
                push("response.custom_tool_call_input.done", Said::Input(&input));
            }
            Kind::Call(Call {
                declared,
                arguments,
                ..
            }) => {
                let name = &declared.name;
                push(
                    "response.function_call_arguments.done",
                    Said::Arguments { name, arguments },
                );
            }
        }
        if let Some(part) = item.part() {
            let name = match item.kind {
                Kind::Reasoning(_) => "response.reasoning_summary_part.done",
                _ => "response.content_part.done",
            };
            push(name, Said::Part(part));
        }
        let whole = OfItem {
            output_index: number,
            item: item.written(Status::Completed),
        };
        self.events.push("response.output_item.done", &whole);
    }
}
