//! One dialogue with the CLI: from `initialize` to the end of the answer.
//!
//! ```text
//! start ──► initialize, then turn by turn:  user ──► (empty result) ──► assistant, user ──► …
//!       ──► the last user turn ──► stream events ──► result
//! ```
//!
//! Meanwhile the CLI may ask what functions there are. `reuse` has what is different in a process that has answered
//! before.

mod reuse;

use harness_guest::{
    ApiError, Delta, Effect, ErrorKind, FinishReason, LaunchOption, ModelLimits, Outcome,
    RateLimitStatus, Report, failure,
};
use serde_json::Value;

use crate::answer::{Answer, STRUCTURED_OUTPUT, Step};
use crate::block::Block;
use crate::conversation::{Conversation, Speaker};
use crate::failure::{self, invalid_request};
use crate::functions::{Choice, full_name};
use crate::input;
use crate::line::{ControlRequest, ControlResponse, Line, RateLimit};
use crate::question::models;
use crate::request::{ChatRequest, Format, Launch};
use crate::session::{self, MessageIds, PendingCall, Spent};
use crate::time::unix_time;

/// A line whose type is known, but not its shape.
const NOT_UNDERSTOOD: &str =
    "Claude Code printed something that is not understood: is it a newer version?";

/// The state of one dialogue.
#[derive(Debug)]
pub struct Exchange {
    stage: Stage,
    conversation: Conversation,
    /// Turns that were written.
    written: usize,
    launch: Launch,
    answer: Answer,
    limit: Option<RateLimit>,
    /// The name of an error, from an `assistant` message that the CLI made up itself (model `<synthetic>`). The
    /// next `result` tells of that error.
    named_error: Option<String>,
    /// Which message had a call that was refused, because none may be made.
    refused: Option<u32>,
    /// What the CLI says that its process has cost, and what of it was spent before.
    spent: Spent,
    /// The ids of the messages that are written.
    ids: MessageIds,
    /// For each round of the conversation, the ids of what takes it back, newest first.
    rewinds: Vec<Vec<String>>,
    /// Calls whose results the process waits for, as far as it has asked.
    calls: Vec<PendingCall>,
    /// Requests to take something back that were not answered yet.
    to_rewind: Vec<String>,
    /// Calls whose results are to be handed in.
    to_answer: Vec<String>,
    /// The CLI's requests that were answered with a result.
    answered: Vec<String>,
    /// The process has answered before.
    is_resumed: bool,
    /// How the answer ended.
    finished: Option<FinishReason>,
    /// What shows that the CLI is at rest, after an answer that ended before its turn did.
    rest: Rest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Waits until turns are taken back that the process holds and the request does not.
    Rewinding,
    /// Hands in the results of calls that the process waits for.
    HandingIn,
    /// Waits for the empty `result` of a user turn of the history.
    Replaying,
    /// The question is asked.
    Answering,
    /// The answer ended before its turn did: waits until the CLI is at rest.
    Interrupting,
    /// `finish` or `fail` was said.
    Done,
}

/// What the CLI has said of a turn that was to end early.
#[derive(Clone, Copy, Debug, Default)]
struct Rest {
    /// That it was told to.
    is_told: bool,
    /// That the turn is over.
    is_over: bool,
    /// The client has another answer than the process.
    is_cut: bool,
}

impl Exchange {
    /// A dialogue about what the client asks for. `id` is that of the answer.
    pub fn new(request: ChatRequest, id: &str) -> Self {
        let rounds = session::beginnings(&request.conversation.turns).len();
        Exchange {
            stage: Stage::Replaying,
            conversation: request.conversation,
            written: 0,
            launch: request.launch,
            answer: Answer::new(request.spec),
            limit: None,
            named_error: None,
            refused: None,
            spent: Spent::default(),
            ids: MessageIds::new(id),
            rewinds: vec![Vec::new(); rounds],
            calls: Vec::new(),
            to_rewind: Vec::new(),
            to_answer: Vec::new(),
            answered: Vec::new(),
            is_resumed: false,
            finished: None,
            rest: Rest::default(),
        }
    }

    /// The launch options of the profile `claude-code` that the request needs.
    pub fn launch_options(&self) -> Vec<LaunchOption> {
        let launch = &self.launch;
        let all = [
            ("effort", launch.effort.map(str::to_owned)),
            ("thinking", launch.no_thinking.then(|| "off".to_owned())),
            (
                "max-output-tokens",
                launch.max_tokens.map(|max| max.to_string()),
            ),
        ];
        let wanted = all.into_iter().filter_map(|(name, value)| {
            let (name, value) = (name.to_owned(), value?);
            Some(LaunchOption { name, value })
        });
        wanted.collect()
    }

    /// Opens the session, and writes as much of the conversation as the CLI takes at once.
    pub fn start(&mut self) -> Vec<Effect> {
        let opening = input::initialize(&self.conversation.system, self.answer.spec());
        let mut effects = vec![Effect::Write(opening)];
        self.write_turns(&mut effects);
        effects
    }

    /// Writes turns up to and with the next one of the user, whose `result` must be awaited.
    fn write_turns(&mut self, effects: &mut Vec<Effect>) {
        while let Some(turn) = self.conversation.turns.get(self.written) {
            self.written += 1;
            let is_user = turn.speaker == Speaker::User;
            let id = is_user.then(|| self.ids.next());
            if let Some(id) = &id
                && session::is_question(turn)
            {
                let round = session::round_of(&self.conversation.turns, self.written - 1);
                self.rewinds[round].insert(0, id.clone());
            }
            if self.written == self.conversation.turns.len() {
                self.stage = Stage::Answering;
                effects.push(Effect::Write(input::question(&turn.blocks, id)));
                return;
            }
            effects.push(Effect::Write(input::history(turn, self.written, id)));
            if is_user {
                return;
            }
        }
    }

    /// Takes a line of the CLI's output.
    pub fn output(&mut self, text: &str) -> Vec<Effect> {
        let mut effects = Vec::new();
        if text.trim_ascii().is_empty() {
            return effects;
        }
        let line = Line::parse(text.as_bytes());
        if self.stage == Stage::Done {
            self.after_the_end(line.as_ref());
            return effects;
        }
        let Some(line) = line else {
            if self.is_resumed && !self.answer.has_begun() {
                self.unfit("it printed what is no JSON object", &mut effects);
                return effects;
            }
            self.fail_backend(&mut effects, "Claude Code printed what is no JSON object");
            return effects;
        };
        let of_an_agent = |id: &Value| !id.is_null();
        if line.parent_tool_use_id.as_ref().is_some_and(of_an_agent) {
            return effects;
        }
        let answering = self.stage == Stage::Answering;
        match &*line.r#type {
            "control_response" if self.stage == Stage::Rewinding => {
                self.control_response(line.response.as_ref(), &mut effects);
            }
            // What came of the turns that are taken back.
            _ if self.stage == Stage::Rewinding => {}
            _ if self.stage == Stage::Interrupting => self.interrupting(&line, &mut effects),
            "stream_event" | "assistant" | "control_request" if line.is_odd && answering => {
                self.fail_backend(&mut effects, NOT_UNDERSTOOD);
            }
            "result" => self.result(&line, &mut effects),
            "system" => self.system(&line, &mut effects),
            "rate_limit_event" => self.rate_limit(line.rate_limit_info, &mut effects),
            "control_request" => self.control_request(&line, &mut effects),
            "control_response" => self.control_response(line.response.as_ref(), &mut effects),
            _ if self.stage == Stage::HandingIn => self.handing_in(&line, &mut effects),
            _ if answering => self.answering(&line, &mut effects),
            _ => {}
        }
        effects
    }

    /// A line after the end of the answer. The CLI may still say which results it waits for, or that its turn is over.
    fn after_the_end(&mut self, line: Option<&Line>) {
        self.rest.is_over |= line.is_some_and(|line| line.r#type == "result");
        if self.finished == Some(FinishReason::ToolCalls)
            && let Some(line) = line
            && let Some(id) = line.request_id.as_deref()
            && let Some(ControlRequest { subtype, message }) = &line.request
            && subtype == "mcp_message"
            && message.method == "tools/call"
        {
            self.call_is_pending(id, message);
        }
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

    /// A line of the turn that is the answer.
    fn answering(&mut self, line: &Line, effects: &mut Vec<Effect>) {
        let mut deltas = Vec::new();
        let step = match (&*line.r#type, &line.event, &line.message) {
            ("stream_event", Some(event), _) => self.answer.event(event, &mut deltas),
            ("assistant", _, Some(message)) => {
                if let Some(name) = line.error_name() {
                    self.named_error = Some(name.to_owned());
                }
                match message.model.as_deref() {
                    Some("<synthetic>") => Step::Continue,
                    _ => self.answer.finished_blocks(message, &mut deltas),
                }
            }
            ("user", _, Some(message)) => self.answer.call_results(message),
            _ => Step::Continue,
        };
        if line
            .event
            .as_ref()
            .is_some_and(|event| event.r#type == "message_start")
        {
            effects.push(Effect::Report(Report::Usage(self.answer.usage(None))));
        }
        self.take(step, deltas, None, effects);
    }

    /// Carries out what came of a line.
    fn take(
        &mut self,
        step: Step,
        deltas: Vec<Delta>,
        cost_usd: Option<f64>,
        effects: &mut Vec<Effect>,
    ) {
        effects.extend(deltas.into_iter().map(Effect::Emit));
        match step {
            Step::Continue => {}
            Step::Finish(reason) => self.finish(reason, cost_usd, effects),
            Step::Fail(error) => self.fail(error, effects),
            Step::AskAgain(words) => {
                let blocks: Vec<Block> = Block::text(words).into_iter().collect();
                let id = self.ids.next();
                if let Some(round) = self.rewinds.last_mut() {
                    round.insert(0, id.clone());
                }
                effects.push(Effect::Write(input::question(&blocks, Some(id))));
            }
        }
    }

    fn result(&mut self, line: &Line, effects: &mut Vec<Effect>) {
        if self.stage == Stage::HandingIn {
            return self.unfit("it ended the turn that waited for results", effects);
        }
        if line.is_odd {
            return self.fail_backend(effects, NOT_UNDERSTOOD);
        }
        report_what_is_known(line, effects);
        if line.is_error == Some(true) {
            let error =
                failure::from_result(line, self.named_error.as_deref(), self.limit.as_ref());
            return self.fail(error, effects);
        }
        if self.stage == Stage::Replaying {
            return self.write_turns(effects);
        }
        let mut deltas = Vec::new();
        let step = self.answer.turn_end(line, &mut deltas);
        self.spent.in_all(line.total_cost_usd);
        self.take(step, deltas, self.spent.now(), effects);
    }

    fn system(&mut self, line: &Line, effects: &mut Vec<Effect>) {
        match line.subtype.as_deref() {
            Some("init") => self.init(line, effects),
            Some("thinking_tokens") => self.answer.thought(line.estimated_tokens.unwrap_or(0)),
            Some("api_retry") => {
                if let Some(error) = failure::from_retry(line, self.limit.as_ref()) {
                    self.fail(error, effects);
                }
            }
            _ => {}
        }
    }

    /// The CLI says what the model may call. It leaves out in silence what it does not like.
    fn init(&mut self, line: &Line, effects: &mut Vec<Effect>) {
        if let Some(version) = &line.claude_code_version {
            effects.push(Effect::Report(Report::Version(version.to_string())));
        }
        let Some(tools) = line
            .tools
            .as_ref()
            .filter(|_| self.stage == Stage::Answering)
        else {
            return;
        };
        let spec = self.answer.spec();
        let left_out = spec.functions.declared.iter().find(|function| {
            let name = full_name(&function.name);
            !tools.contains(&name)
        });
        if let Some(function) = left_out {
            let message = format!(
                "Claude Code does not take the function `{}`: simplify the schema of its parameters",
                function.name
            );
            return self.fail(invalid_request(message, Some("tools".into())), effects);
        }
        let structured = matches!(spec.format, Format::Schema(_));
        if structured && !tools.iter().any(|tool| tool == STRUCTURED_OUTPUT) {
            let at = "response_format.json_schema.schema";
            let message = format!("Claude Code does not take the schema: simplify `{at}`");
            self.fail(invalid_request(message, Some(at.into())), effects);
        }
    }

    fn rate_limit(&mut self, limit: Option<RateLimit>, effects: &mut Vec<Effect>) {
        let Some(limit) = limit else { return };
        let status = match limit.status.as_str() {
            "rejected" => RateLimitStatus::Rejected,
            "allowed_warning" => RateLimitStatus::AllowedWarning,
            _ => RateLimitStatus::Allowed,
        };
        let report = Report::RateLimit(harness_guest::RateLimit {
            status,
            name: limit.rate_limit_type.clone(),
            resets_at: limit.resets_at,
            utilization: limit.utilization,
            extra: None,
        });
        effects.push(Effect::Report(report));
        self.limit = Some(limit);
    }

    fn control_request(&mut self, line: &Line, effects: &mut Vec<Effect>) {
        let Some(id) = line.request_id.as_deref() else {
            return;
        };
        let functions = &self.answer.spec().functions;
        let message = match &line.request {
            Some(ControlRequest { subtype, message }) if subtype == "mcp_message" => message,
            _ => return effects.push(Effect::Write(input::refusal(id))),
        };
        if message.method != "tools/call" {
            return effects.push(Effect::Write(input::mcp_answer(id, message, functions)));
        }
        if self.stage == Stage::HandingIn {
            return self.call_while_handing_in(id, message, effects);
        }
        // The client answers a call that goes to it: the exchange ends with it.
        if functions.choice != Choice::Never {
            self.call_is_pending(id, message);
            let step = self.answer.call_is_made();
            return self.take(step, Vec::new(), None, effects);
        }
        // The model may make several calls in one message, before it learns that it may make none. Calls in a
        // later message fail the request.
        let now = self.answer.messages();
        if *self.refused.get_or_insert(now) != now {
            let error = failure(
                ErrorKind::ToolChoiceNotHonoured,
                "the model wants to call a function though none may be called: ask again",
            );
            return self.fail(error, effects);
        }
        effects.push(Effect::Write(input::call_refused(id, message)));
    }

    fn control_response(&mut self, response: Option<&ControlResponse>, effects: &mut Vec<Effect>) {
        let Some(response) = response else { return };
        if self.is_about_rewind(response) {
            return self.rewound(response, effects);
        }
        if response.request_id != input::INITIALIZE {
            return;
        }
        if response.subtype != "success" {
            let why = response.error.as_deref().unwrap_or("no reason given");
            let message = format!("Claude Code refused to open a session: {why}");
            return self.fail_backend(effects, &message);
        }
        if let Some(offer) = &response.response {
            effects.push(Effect::Report(Report::Models(models(offer))));
        }
    }

    fn finish(
        &mut self,
        finish_reason: FinishReason,
        cost_usd: Option<f64>,
        effects: &mut Vec<Effect>,
    ) {
        self.stage = Stage::Done;
        self.finished = Some(finish_reason);
        effects.push(Effect::Finish(Outcome {
            finish_reason,
            usage: Some(self.answer.usage(cost_usd)),
            model: self.answer.model(),
            extra: None,
        }));
    }

    fn fail(&mut self, error: ApiError, effects: &mut Vec<Effect>) {
        self.stage = Stage::Done;
        effects.push(Effect::Fail(error));
    }

    fn fail_backend(&mut self, effects: &mut Vec<Effect>, message: &str) {
        self.fail(failure(ErrorKind::BackendFailed, message), effects);
    }
}

/// What the end of a turn tells of the models and of the login.
fn report_what_is_known(line: &Line, effects: &mut Vec<Effect>) {
    let known = line.model_usage.iter();
    for (id, model) in known.filter(|(_, model)| model.context_window.is_some()) {
        effects.push(Effect::Report(Report::ModelLimits(ModelLimits {
            id: id.clone(),
            context_length: model.context_window,
            max_output_tokens: model.max_output_tokens,
            extra: None,
        })));
    }
    let ends = line.credential_expires_at.as_deref().and_then(unix_time);
    effects.extend(ends.map(|at| Effect::Report(Report::LoginEndsAt(at))));
}
