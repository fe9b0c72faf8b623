//! The words of a case: calls of the host, and what a guest did, as JSON.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::completion::{
    ApiError, Context, Decision, Delta, Effect, Ending, ErrorKind, FinishReason, Held, HeldTurn,
    Outcome, Resumption, Step, ToolCallDelta, Usage, Wanted,
};
use crate::http::{Header, HttpFailure, HttpHead, HttpRequest, HttpResponse, Service};
use crate::report::{Question, Report};
use crate::request::{Request, chat_json};

/// What the host does.
#[derive(Debug, Deserialize)]
#[serde(tag = "call", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Call {
    /// What all later calls are made with.
    Configure {
        config: Value,
    },
    /// Begins a request, which is the body of a chat completion.
    Open {
        #[serde(default)]
        context: CaseContext,
        request: Value,
    },
    /// Begins a session that asks the command line something.
    Probe {
        #[serde(default)]
        context: CaseContext,
        #[serde(default)]
        question: Question,
    },
    LaunchOptions,
    Want,
    Interrupt,
    Hold,
    /// Goes on with a process that has answered before.
    Resume(CaseResumption),
    Start,
    Output {
        lines: Vec<String>,
    },
    Exit {
        status: Option<i32>,
        #[serde(default)]
        stderr: String,
    },
    Take {
        #[serde(default)]
        choice: u32,
        deltas: Vec<Piece>,
    },
    /// Begins a call of a dialect's API.
    Http {
        #[serde(default)]
        context: CaseContext,
        #[serde(flatten)]
        request: CaseHttp,
    },
    Begin,
    EndChoice {
        #[serde(default)]
        choice: u32,
        #[serde(flatten)]
        outcome: CaseOutcome,
    },
    Finish {
        #[serde(flatten)]
        outcome: CaseOutcome,
    },
    /// Asks a dialect which routes it serves.
    Serve,
    /// Has a dialect write an error, before an answer or in the course of one.
    RenderError(CaseFailure),
    Fail(CaseFailure),
    KeepAlive,
    /// Has a dialect write the list of models.
    ListModels {
        #[serde(default)]
        models: Vec<String>,
    },
}

/// An error that a dialect writes.
#[derive(Debug, Deserialize)]
pub(super) struct CaseFailure {
    #[serde(default = "bad_request")]
    status: u16,
    #[serde(default)]
    message: String,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    param: Option<String>,
}

fn bad_request() -> u16 {
    400
}

impl From<CaseFailure> for HttpFailure {
    fn from(failure: CaseFailure) -> Self {
        HttpFailure {
            status: failure.status,
            kind: ErrorKind::InvalidRequest,
            code: failure.code,
            message: failure.message,
            param: failure.param,
            retry_at: None,
        }
    }
}

/// What a dialect serves.
pub(super) fn served(service: &Service) -> Value {
    let routes = service.routes.iter();
    let routes: Vec<Value> = routes
        .map(|route| json!([route.method, route.path]))
        .collect();
    json!({"serve": {"routes": routes, "key_headers": service.key_headers, "headers": service.headers}})
}

/// How a session goes on with a process.
#[derive(Debug, Deserialize)]
pub(super) struct CaseResumption {
    #[serde(default)]
    memo: String,
    #[serde(default)]
    kept: u32,
    #[serde(default)]
    rewinds: Vec<String>,
}

impl From<CaseResumption> for Resumption {
    fn from(resumption: CaseResumption) -> Self {
        Resumption {
            memo: resumption.memo,
            kept: resumption.kept,
            rewinds: resumption.rewinds,
        }
    }
}

/// What a process must hold.
pub(super) fn wanted(wanted: Option<Wanted>) -> Value {
    json!({"want": wanted.map(|wanted| json!({
        "opening": key(&wanted.opening),
        "turns": wanted.turns.iter().map(|turn| key(turn)).collect::<Vec<_>>(),
        "results": wanted.results,
    }))})
}

/// What a process holds.
pub(super) fn held(held: Option<Held>) -> Value {
    let turn = |turn: &HeldTurn| json!({"key": key(&turn.key), "rewind": turn.rewind});
    json!({"hold": held.map(|held| json!({
        "opening": key(&held.opening),
        "turns": held.turns.iter().map(turn).collect::<Vec<_>>(),
        "awaited": held.awaited,
        "memo": held.memo,
    }))})
}

/// A key, which is text or JSON more often than not.
fn key(key: &[u8]) -> Value {
    match serde_json::from_slice(key) {
        Ok(json) => json,
        Err(_) => String::from_utf8_lossy(key).into(),
    }
}

/// What a guest is told of a request beside its body. What is not said has a value that never changes.
#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CaseContext {
    id: String,
    created: u64,
    model: Option<String>,
    backend_model: Option<String>,
    resolved_model: Option<String>,
    profile: String,
    fetch_urls: bool,
    choice: u32,
}

impl Default for CaseContext {
    fn default() -> Self {
        CaseContext {
            id: "chatcmpl-case".into(),
            created: 1_700_000_000,
            model: None,
            backend_model: None,
            resolved_model: None,
            profile: "generic".into(),
            fetch_urls: false,
            choice: 0,
        }
    }
}

impl From<&Context> for CaseContext {
    fn from(context: &Context) -> Self {
        CaseContext {
            id: context.id.clone(),
            created: context.created,
            model: Some(context.model.clone()),
            backend_model: Some(context.backend_model.clone()),
            resolved_model: context.resolved_model.clone(),
            profile: context.profile.to_string(),
            fetch_urls: context.fetch_urls,
            choice: context.choice,
        }
    }
}

impl CaseContext {
    /// The context of a request for this model.
    pub(super) fn of(self, model: &str) -> Context {
        let model = self.model.unwrap_or_else(|| model.to_owned());
        Context {
            id: self.id,
            created: self.created,
            backend_model: self.backend_model.unwrap_or_else(|| model.clone()),
            model,
            resolved_model: self.resolved_model,
            profile: self.profile.into(),
            fetch_urls: self.fetch_urls,
            choice: self.choice,
        }
    }
}

/// A call of a dialect's API.
#[derive(Debug, Deserialize)]
pub(super) struct CaseHttp {
    method: String,
    path: String,
    query: Option<String>,
    #[serde(default)]
    headers: Vec<Header>,
    #[serde(default)]
    body: String,
}

impl From<CaseHttp> for HttpRequest {
    fn from(http: CaseHttp) -> Self {
        HttpRequest {
            method: http.method,
            path: http.path,
            query: http.query,
            headers: http.headers,
            body: http.body,
        }
    }
}

/// What a dialect makes of a call.
pub(super) fn completion(model: &str, choices: u32, request: &Request) -> Value {
    json!({"completion": {"model": model, "choices": choices, "request": chat_json::body(request)}})
}

/// A dialect's own answer.
pub(super) fn reply(reply: &HttpResponse) -> Value {
    let mut told = json!({"status": reply.status, "body": reply.body});
    if !reply.headers.is_empty() {
        told["headers"] = json!(reply.headers);
    }
    json!({"reply": told})
}

/// The head of an answer.
pub(super) fn head(head: &HttpHead) -> Value {
    let mut told = json!({"status": head.status, "content_type": head.content_type});
    if !head.headers.is_empty() {
        told["headers"] = json!(head.headers);
    }
    json!({"head": told})
}

/// The end of an answer.
#[derive(Debug, Deserialize)]
pub(super) struct CaseOutcome {
    finish_reason: FinishReason,
    usage: Option<Usage>,
}

impl From<CaseOutcome> for Outcome {
    fn from(outcome: CaseOutcome) -> Self {
        Outcome {
            finish_reason: outcome.finish_reason,
            usage: outcome.usage,
        }
    }
}

/// A piece of an answer.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Piece {
    Content(String),
    Reasoning(String),
    Refusal(String),
    ToolCall {
        index: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        #[serde(default)]
        arguments: String,
    },
    Annotation {
        name: String,
        value: Value,
    },
}

impl From<Piece> for Delta {
    fn from(piece: Piece) -> Self {
        match piece {
            Piece::Content(text) => Delta::Content(text),
            Piece::Reasoning(text) => Delta::Reasoning(text),
            Piece::Refusal(text) => Delta::Refusal(text),
            Piece::ToolCall {
                index,
                id,
                name,
                arguments,
            } => Delta::ToolCall(ToolCallDelta {
                index,
                id,
                name,
                arguments,
            }),
            Piece::Annotation { name, value } => Delta::Extra {
                size: value.to_string().len(),
                name,
                value,
            },
        }
    }
}

impl From<Delta> for Piece {
    fn from(delta: Delta) -> Self {
        match delta {
            Delta::Content(text) => Piece::Content(text),
            Delta::Reasoning(text) => Piece::Reasoning(text),
            Delta::Refusal(text) => Piece::Refusal(text),
            Delta::ToolCall(call) => Piece::ToolCall {
                index: call.index,
                id: call.id,
                name: call.name,
                arguments: call.arguments,
            },
            Delta::Extra { name, value, .. } => Piece::Annotation { name, value },
        }
    }
}

/// Pieces of an answer.
pub(super) fn pieces(deltas: Vec<Delta>) -> Vec<Piece> {
    deltas.into_iter().map(Piece::from).collect()
}

/// What an adapter wants done.
pub(super) fn effect(effect: Effect) -> Value {
    match effect {
        // A line of JSON is easier to compare as JSON.
        Effect::Write(text) => match serde_json::from_str(&text) {
            Ok(object @ Value::Object(_)) => json!({"write": object}),
            _ => json!({"write": text}),
        },
        Effect::CloseInput => json!({"close_input": true}),
        Effect::Emit(delta) => json!({"emit": Piece::from(delta)}),
        Effect::Report(told) => json!({"report": report(&told)}),
        Effect::Counted(usage) => json!({"report": {"usage": usage}}),
        Effect::Finish(outcome) => json!({"finish": outcome_of(&outcome)}),
        Effect::Fail(error) => json!({"fail": failure(&error)}),
        Effect::Unfit(why) => json!({"unfit": why}),
    }
}

fn report(report: &Report) -> Value {
    match report {
        Report::Version(version) => json!({"version": version}),
        Report::Models(models) => json!({"models": models}),
        Report::ModelLimits(limits) => json!({"model_limits": {
            "id": limits.id,
            "context_length": limits.context_length,
            "max_output_tokens": limits.max_output_tokens,
        }}),
        Report::RateLimit(limit) => json!({"rate_limit": {
            "status": limit.status,
            "name": limit.name,
            "resets_at": limit.resets_at,
            "utilization": limit.utilization,
        }}),
        Report::LoginEndsAt(time) => json!({"login_ends_at": time}),
        Report::Plan(plan) => json!({"plan": plan}),
        Report::Login(login) => json!({"login": login}),
        Report::Lacks(what) => json!({"lacks": what}),
    }
}

/// The end of an answer.
pub(super) fn outcome_of(outcome: &Outcome) -> Value {
    let mut told = json!({"finish_reason": outcome.finish_reason});
    if let Some(usage) = outcome.usage {
        told["usage"] = json!(usage);
    }
    told
}

/// A failure that the client is told.
pub(super) fn failure(error: &ApiError) -> Value {
    let mut told = json!({"kind": error.kind, "message": error.message});
    if let Some(param) = &error.param {
        told["param"] = json!(param);
    }
    if let Some(at) = error.retry_at {
        told["retry_at"] = json!(at);
    }
    told
}

/// What a transform makes of a request.
pub(super) fn decision(decision: Decision, filters: bool) -> Value {
    let mut told = match decision {
        Decision::Pass => json!({"pass": true}),
        Decision::Rewrite(request) => json!({"rewrite": chat_json::body(&request)}),
        Decision::Answer(deltas, outcome) => {
            json!({"answer": {"deltas": pieces(deltas), "outcome": outcome_of(&outcome)}})
        }
    };
    if filters {
        told["filter"] = json!(true);
    }
    told
}

/// What a transform makes of pieces of an answer.
pub(super) fn step(step: Step) -> Value {
    match step {
        Step::Forward(deltas) => json!({"forward": pieces(deltas)}),
        Step::End(end) => ending(end),
        Step::Fail(error) => json!({"fail": failure(&error)}),
    }
}

/// How a transform ends an answer.
pub(super) fn ending(ending: Ending) -> Value {
    json!({"end": {"deltas": pieces(ending.deltas), "finish_reason": ending.finish_reason}})
}
