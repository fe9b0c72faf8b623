//! One dialogue with the CLI: from `initialize` to the end of the answer.
//!
//! ```text
//! start ──► initialize, then turn by turn:  user ──► (empty result) ──► assistant, user ──► …
//!       ──► the last user turn ──► stream events ──► result
//! ```

use serde_json::json;

use crate::contract::adapter::{Effect, Placeholder};
use crate::contract::types::{Delta, ErrorKind, FinishReason, Outcome, Usage};
use crate::conversation::{Conversation, Speaker, Turn};
use crate::failure::{self, failure};
use crate::input;
use crate::line::{self, ControlResponse, Event, Line, Message, RateLimit};

/// The state of one dialogue.
#[derive(Debug)]
pub struct Exchange {
    stage: Stage,
    system: Vec<String>,
    turns: std::vec::IntoIter<Turn>,
    effort: Option<&'static str>,
    answer: Answer,
    limit: Option<RateLimit>,
    /// What a synthetic message called the error that the next `result` tells of.
    named_error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Waits for what the CLI offers; nothing is asked.
    Probing,
    /// Waits for the empty `result` of a user turn of the history.
    Replaying,
    /// The question is asked.
    Answering,
    /// `finish` or `fail` was said.
    Done,
}

/// What has come of the answer so far.
#[derive(Debug, Default)]
struct Answer {
    /// The API's id of the message that streams.
    message: Option<String>,
    model: Option<String>,
    usage: line::Usage,
    /// Whether the client has seen anything.
    shown: bool,
}

impl Exchange {
    /// A dialogue that asks what `conversation` ends with.
    pub fn new(conversation: Conversation) -> Self {
        Exchange {
            stage: Stage::Replaying,
            system: conversation.system,
            turns: conversation.turns.into_iter(),
            effort: conversation.effort,
            answer: Answer::default(),
            limit: None,
            named_error: None,
        }
    }

    /// A dialogue that only asks what the CLI offers.
    pub fn probe() -> Self {
        Exchange {
            stage: Stage::Probing,
            system: Vec::new(),
            turns: Vec::new().into_iter(),
            effort: None,
            answer: Answer::default(),
            limit: None,
            named_error: None,
        }
    }

    /// Values for the launch profile's optional arguments.
    pub fn placeholders(&self) -> Vec<Placeholder> {
        let effort = self.effort.map(|value| Placeholder {
            name: "effort".into(),
            value: value.into(),
        });
        effort.into_iter().collect()
    }

    /// Opens the session, and writes as much of the conversation as the CLI takes at once.
    pub fn start(&mut self) -> Vec<Effect> {
        let mut effects = vec![Effect::Write(input::initialize(&self.system))];
        if self.stage != Stage::Probing {
            self.write_turns(&mut effects);
        }
        effects
    }

    /// Writes turns up to and with the next one of the user, whose `result` must be awaited.
    fn write_turns(&mut self, effects: &mut Vec<Effect>) {
        while let Some(turn) = self.turns.next() {
            if self.turns.as_slice().is_empty() {
                self.stage = Stage::Answering;
                effects.push(Effect::Write(input::question(&turn)));
                return;
            }
            effects.push(Effect::Write(input::history(&turn)));
            if turn.speaker == Speaker::User {
                return;
            }
        }
    }

    /// Takes a line of the CLI's output.
    pub fn output(&mut self, bytes: &[u8]) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.stage == Stage::Done || bytes.trim_ascii().is_empty() {
            return effects;
        }
        let Some(line) = Line::parse(bytes) else {
            self.fail_backend(&mut effects, "Claude Code printed what is no JSON object");
            return effects;
        };
        if line
            .parent_tool_use_id
            .as_ref()
            .is_some_and(|id| !id.is_null())
        {
            return effects;
        }
        match &*line.r#type {
            "stream_event" => {
                if let Some(event) = &line.event {
                    self.stream_event(event, &mut effects);
                }
            }
            "assistant" => self.assistant(&line, &mut effects),
            "result" => self.result(&line, &mut effects),
            "system" => self.system(&line, &mut effects),
            "rate_limit_event" => self.rate_limit(line.rate_limit_info, &mut effects),
            "control_response" => {
                if let Some(response) = &line.response {
                    self.control_response(response, &mut effects);
                }
            }
            _ => {}
        }
        effects
    }

    /// The CLI ended, though the answer is not complete.
    pub fn exit(&mut self, status: Option<i32>) -> Vec<Effect> {
        let mut effects = Vec::new();
        let how = match status {
            Some(status) => format!("with status {status}"),
            None => "by a signal".into(),
        };
        let message = format!(
            "Claude Code ended {how} before its answer was complete: the log of this service has what it said last"
        );
        self.fail_backend(&mut effects, &message);
        effects
    }

    fn stream_event(&mut self, event: &Event, effects: &mut Vec<Effect>) {
        if self.stage != Stage::Answering {
            return;
        }
        match &*event.r#type {
            "message_start" => self.message_start(event.message.as_ref(), effects),
            "content_block_delta" => {
                let Some(delta) = &event.delta else { return };
                if let Some(text) = &delta.text {
                    self.emit(Delta::Content(text.to_string()), effects);
                } else if let Some(thinking) = &delta.thinking {
                    self.emit(Delta::Reasoning(thinking.to_string()), effects);
                }
            }
            "message_delta" => {
                if let Some(usage) = &event.usage {
                    self.answer.usage.update(usage);
                }
                // At these the CLI would ask the API again by itself, or report a failure.
                let reason = event.delta.as_ref().and_then(|d| d.stop_reason.as_deref());
                if let reason @ (FinishReason::Length | FinishReason::ContentFilter) =
                    finish_reason(reason)
                {
                    self.finish(reason, None, effects);
                }
            }
            _ => {}
        }
    }

    /// A second message within a turn is the CLI's own attempt to mend what broke off. It can
    /// be taken for the answer only as long as the client has seen nothing of the first.
    fn message_start(&mut self, message: Option<&Message>, effects: &mut Vec<Effect>) {
        if self.answer.shown {
            let what = "the answer broke off, and Claude Code began another one: ask again";
            return self.fail_backend(effects, what);
        }
        let Some(message) = message else { return };
        self.answer.message = message.id.as_deref().map(str::to_owned);
        self.answer.model = message.model.as_deref().map(str::to_owned);
        self.answer.usage = message.usage.clone().unwrap_or_default();
    }

    /// Finished blocks repeat what was streamed, unless the CLI did not stream this message.
    fn assistant(&mut self, line: &Line, effects: &mut Vec<Effect>) {
        if let Some(name) = line.error_name() {
            self.named_error = Some(name.to_owned());
        }
        let Some(message) = &line.message else { return };
        let synthetic = message.model.as_deref() == Some("<synthetic>");
        let streamed = self.answer.message.is_some();
        if self.stage != Stage::Answering || synthetic || streamed {
            return;
        }
        for block in &message.content {
            if let Some(text) = &block.text {
                self.emit(Delta::Content(text.to_string()), effects);
            } else if let Some(thinking) = &block.thinking {
                self.emit(Delta::Reasoning(thinking.to_string()), effects);
            }
        }
    }

    fn result(&mut self, line: &Line, effects: &mut Vec<Effect>) {
        if line.is_odd {
            let what = "Claude Code ended the turn in a way that is not understood: is it a newer version?";
            return self.fail_backend(effects, what);
        }
        if line.is_error == Some(true) {
            let error =
                failure::from_result(line, self.named_error.as_deref(), self.limit.as_ref());
            self.stage = Stage::Done;
            return effects.push(Effect::Fail(error));
        }
        if self.stage == Stage::Replaying {
            return self.write_turns(effects);
        }
        if let Some(usage) = &line.usage {
            self.answer.usage.update(usage);
        }
        // A command of the CLI's own, or a turn that it dropped, has a result but no message.
        if !self.answer.shown
            && self.answer.message.is_none()
            && let Some(text) = line.result.as_deref().filter(|t| !t.is_empty())
        {
            self.emit(Delta::Content(text.to_owned()), effects);
        }
        self.finish(
            finish_reason(line.stop_reason.as_deref()),
            line.total_cost_usd,
            effects,
        );
    }

    fn system(&mut self, line: &Line, effects: &mut Vec<Effect>) {
        match line.subtype.as_deref() {
            Some("init") => {
                if let Some(version) = &line.claude_code_version {
                    effects.push(Effect::Report(json!({ "version": version }).to_string()));
                }
            }
            Some("api_retry") => {
                if let Some(error) = failure::from_retry(line, self.limit.as_ref()) {
                    self.stage = Stage::Done;
                    effects.push(Effect::Fail(error));
                }
            }
            _ => {}
        }
    }

    fn rate_limit(&mut self, limit: Option<RateLimit>, effects: &mut Vec<Effect>) {
        let Some(limit) = limit else { return };
        let report = json!({"rate_limit": {
            "status": limit.status,
            "type": limit.rate_limit_type,
            "resets_at": limit.resets_at,
            "utilization": limit.utilization,
        }});
        effects.push(Effect::Report(report.to_string()));
        self.limit = Some(limit);
    }

    fn control_response(&mut self, response: &ControlResponse, effects: &mut Vec<Effect>) {
        if response.request_id != input::INITIALIZE {
            return;
        }
        if response.subtype != "success" {
            let why = response.error.as_deref().unwrap_or("no reason given");
            let message = format!("Claude Code refused to open a session: {why}");
            return self.fail_backend(effects, &message);
        }
        if let Some(offer) = &response.response {
            let models: Vec<_> = offer
                .models
                .iter()
                .map(|m| json!({"id": m.value, "resolved": m.resolved_model, "display_name": m.display_name}))
                .collect();
            effects.push(Effect::Report(json!({ "models": models }).to_string()));
        }
        if self.stage == Stage::Probing {
            self.finish(FinishReason::Stop, None, effects);
        }
    }

    fn emit(&mut self, delta: Delta, effects: &mut Vec<Effect>) {
        self.answer.shown = true;
        effects.push(Effect::Emit(delta));
    }

    fn finish(
        &mut self,
        finish_reason: FinishReason,
        cost_usd: Option<f64>,
        effects: &mut Vec<Effect>,
    ) {
        self.stage = Stage::Done;
        effects.push(Effect::Finish(Outcome {
            finish_reason,
            usage: Some(openai_usage(&self.answer.usage, cost_usd)),
            model: self.answer.model.take(),
            extra: "{}".into(),
        }));
    }

    fn fail_backend(&mut self, effects: &mut Vec<Effect>, message: &str) {
        self.stage = Stage::Done;
        effects.push(Effect::Fail(failure(ErrorKind::Backend, message)));
    }
}

fn finish_reason(stop_reason: Option<&str>) -> FinishReason {
    match stop_reason {
        Some("max_tokens" | "model_context_window_exceeded") => FinishReason::Length,
        Some("refusal") => FinishReason::ContentFilter,
        _ => FinishReason::Stop,
    }
}

/// OpenAI counts all input as prompt tokens; Anthropic counts what a cache knew apart.
fn openai_usage(usage: &line::Usage, cost_usd: Option<f64>) -> Usage {
    let cached = usage.cache_read_input_tokens.unwrap_or(0);
    let written = usage.cache_creation_input_tokens.unwrap_or(0);
    Usage {
        prompt_tokens: usage
            .input_tokens
            .unwrap_or(0)
            .saturating_add(cached)
            .saturating_add(written),
        completion_tokens: usage.output_tokens.unwrap_or(0),
        cached_tokens: cached,
        cache_write_tokens: written,
        reasoning_tokens: usage
            .output_tokens_details
            .as_ref()
            .and_then(|d| d.thinking_tokens)
            .unwrap_or(0),
        cost_usd,
    }
}
