//! What adapters and transforms say of an answer, as the program's own types, and back.

use basics::plain::is_word;
use serde_json::Value;

use super::Description;
use super::bindings::exports::harness::guest::{adapter, reuse, transform};
use super::bindings::harness::guest::types;
use crate::GuestError;
use crate::completion::{
    ApiError, Decision, Delta, Effect, Ending, ErrorKind, FinishReason, Held, HeldTurn, Outcome,
    Step, ToolCallDelta, Usage, Wanted,
};
use crate::report::{
    Login, ModelLimits, ModelOffer, Plan, PlanWindow, RateLimit, RateLimitStatus, Report,
};

/// The fields of a request that an adapter honours: words only, and not more than a request may have.
pub(crate) fn honours(description: &Description) -> Vec<String> {
    /// As many fields as a request may have.
    const NAMES_MAX: usize = 512;
    let names = description.honours.iter().filter(|name| is_word(name));
    names.take(NAMES_MAX).cloned().collect()
}

/// What an adapter wants done, in its order. An item fails if it breaks a rule.
#[derive(Default)]
pub struct Effects(std::vec::IntoIter<adapter::Effect>);

impl From<Vec<adapter::Effect>> for Effects {
    fn from(effects: Vec<adapter::Effect>) -> Self {
        Effects(effects.into_iter())
    }
}

impl Iterator for Effects {
    type Item = Result<Effect, GuestError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            return Some(Ok(match self.0.next()? {
                adapter::Effect::Write(text) => Effect::Write(text),
                adapter::Effect::CloseInput => Effect::CloseInput,
                adapter::Effect::Emit(piece) => match delta(piece) {
                    Ok(delta) => Effect::Emit(delta),
                    Err(error) => return Some(Err(error)),
                },
                adapter::Effect::Report(adapter::Report::Usage(tokens)) => {
                    Effect::Counted(usage(tokens))
                }
                adapter::Effect::Report(known) => match report(known) {
                    Some(report) => Effect::Report(report),
                    None => continue,
                },
                adapter::Effect::Finish(outcome) => Effect::Finish(outcome.into()),
                adapter::Effect::Fail(error) => Effect::Fail(error.into()),
                adapter::Effect::Unfit(why) => Effect::Unfit(why),
            }));
        }
    }
}

/// Fields of a delta that are not a guest's to set.
const OWN_FIELDS: [&str; 6] = [
    "role",
    "content",
    "reasoning_content",
    "refusal",
    "tool_calls",
    "function_call",
];

fn delta(delta: types::DeltaResult) -> Result<Delta, GuestError> {
    Ok(match delta {
        types::DeltaResult::Content(text) => Delta::Content(text),
        types::DeltaResult::Reasoning(text) => Delta::Reasoning(text),
        types::DeltaResult::Refusal(text) => Delta::Refusal(text),
        types::DeltaResult::ToolCall(call) => Delta::ToolCall(ToolCallDelta {
            index: call.index,
            id: call.id,
            name: call.name,
            arguments: call.arguments,
        }),
        types::DeltaResult::Annotation(types::AnnotationResult { name, value }) => {
            let broken = |what: &str| GuestError::Contract(format!("an annotation {what}"));
            if OWN_FIELDS.contains(&name.as_str()) {
                return Err(broken("has the name of a field of OpenAI's"));
            }
            let size = name.len() + value.len();
            let value: Value =
                serde_json::from_str(&value).map_err(|_| broken("has a value that is no JSON"))?;
            Delta::Extra { name, value, size }
        }
    })
}

/// None if it is of a kind that this version does not know.
fn report(report: adapter::Report) -> Option<Report> {
    Some(match report {
        adapter::Report::Version(version) => Report::Version(version),
        adapter::Report::Models(models) => Report::Models(
            models
                .into_iter()
                .map(|model| ModelOffer {
                    id: model.id,
                    resolved: model.resolved,
                    display_name: model.display_name,
                })
                .collect(),
        ),
        adapter::Report::ModelLimits(limits) => Report::ModelLimits(ModelLimits {
            id: limits.id,
            context_length: limits.context_length,
            max_output_tokens: limits.max_output_tokens,
        }),
        adapter::Report::RateLimit(limit) => Report::RateLimit(RateLimit {
            status: match limit.status {
                adapter::RateLimitStatus::Allowed => RateLimitStatus::Allowed,
                adapter::RateLimitStatus::AllowedWarning => RateLimitStatus::AllowedWarning,
                adapter::RateLimitStatus::Rejected => RateLimitStatus::Rejected,
            },
            name: limit.name,
            resets_at: limit.resets_at,
            utilization: limit.utilization,
        }),
        adapter::Report::LoginEndsAt(at) => Report::LoginEndsAt(at),
        adapter::Report::Plan(plan) => {
            let windows = plan.windows.into_iter().map(|window| PlanWindow {
                name: window.name,
                display_name: window.display_name,
                utilization: window.utilization,
                resets_at: window.resets_at,
                length: window.length,
            });
            Report::Plan(Plan {
                name: plan.name,
                windows: windows.collect(),
            })
        }
        adapter::Report::Login(login) => Report::Login(Login {
            is_logged_in: login.is_logged_in,
            source: login.source,
        }),
        adapter::Report::Lacks(what) => Report::Lacks(what),
        // An effect of its own.
        adapter::Report::Usage(_) => return None,
        adapter::Report::Other(_) => return None,
    })
}

impl From<reuse::Wanted> for Wanted {
    fn from(wanted: reuse::Wanted) -> Self {
        Wanted {
            opening: wanted.opening,
            turns: wanted.turns,
            results: wanted.results,
        }
    }
}

impl From<reuse::Held> for Held {
    fn from(held: reuse::Held) -> Self {
        let turns = held.turns.into_iter();
        Held {
            opening: held.opening,
            turns: turns
                .map(|turn| HeldTurn {
                    key: turn.key,
                    rewind: turn.rewind,
                })
                .collect(),
            awaited: held.awaited,
            memo: held.memo,
        }
    }
}

impl From<types::OutcomeResult> for Outcome {
    fn from(outcome: types::OutcomeResult) -> Self {
        Outcome {
            finish_reason: finish_reason(outcome.finish_reason),
            usage: outcome.usage.map(usage),
        }
    }
}

fn usage(usage: types::UsageResult) -> Usage {
    Usage {
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
        cached_tokens: usage.cached_tokens,
        cache_write_tokens: usage.cache_write_tokens,
        reasoning_tokens: usage.reasoning_tokens,
        cost_micro_usd: usage.cost_usd.filter(|cost| *cost >= 0.0).map(micro),
    }
}

/// Dollars in millionths. A number that is too large becomes the largest one.
fn micro(dollars: f64) -> u64 {
    (dollars * 1e6).round() as u64
}

fn finish_reason(reason: types::FinishReason) -> FinishReason {
    match reason {
        types::FinishReason::Stop => FinishReason::Stop,
        types::FinishReason::Length => FinishReason::Length,
        types::FinishReason::ToolCalls => FinishReason::ToolCalls,
        types::FinishReason::ContentFilter => FinishReason::ContentFilter,
    }
}

pub(super) fn decision(decision: transform::Decision) -> Result<Decision, GuestError> {
    Ok(match decision {
        transform::Decision::Pass => Decision::Pass,
        transform::Decision::Rewrite(request) => Decision::Rewrite(Box::new(request.into())),
        transform::Decision::Answer(reply) => {
            Decision::Answer(deltas(reply.deltas)?, reply.outcome.into())
        }
    })
}

pub(super) fn step(step: transform::Step) -> Result<Step, GuestError> {
    Ok(match step {
        transform::Step::Forward(pieces) => Step::Forward(deltas(pieces)?),
        transform::Step::End(end) => Step::End(ending(end)?),
        transform::Step::Fail(error) => Step::Fail(error.into()),
    })
}

pub(super) fn ending(ending: transform::Ending) -> Result<Ending, GuestError> {
    Ok(Ending {
        deltas: deltas(ending.deltas)?,
        finish_reason: finish_reason(ending.finish_reason),
    })
}

fn deltas(pieces: Vec<types::DeltaResult>) -> Result<Vec<Delta>, GuestError> {
    pieces.into_iter().map(delta).collect()
}

/// The values of annotations as text; empty for all other deltas.
pub(super) fn values(deltas: &[Delta]) -> Vec<String> {
    let value = |delta: &Delta| match delta {
        Delta::Extra { value, .. } => value.to_string(),
        _ => String::new(),
    };
    deltas.iter().map(value).collect()
}

pub(super) fn lowered_delta<'a>(delta: &'a Delta, value: &'a str) -> types::DeltaParam<'a> {
    match delta {
        Delta::Content(text) => types::DeltaParam::Content(text),
        Delta::Reasoning(text) => types::DeltaParam::Reasoning(text),
        Delta::Refusal(text) => types::DeltaParam::Refusal(text),
        Delta::ToolCall(call) => types::DeltaParam::ToolCall(types::ToolCallDeltaParam {
            index: call.index,
            id: call.id.as_deref(),
            name: call.name.as_deref(),
            arguments: &call.arguments,
        }),
        Delta::Extra { name, .. } => {
            types::DeltaParam::Annotation(types::AnnotationParam { name, value })
        }
    }
}

pub(super) fn lowered_outcome(outcome: &Outcome) -> types::OutcomeParam<'static> {
    types::OutcomeParam {
        finish_reason: match outcome.finish_reason {
            FinishReason::Stop => types::FinishReason::Stop,
            FinishReason::Length => types::FinishReason::Length,
            FinishReason::ToolCalls => types::FinishReason::ToolCalls,
            FinishReason::ContentFilter => types::FinishReason::ContentFilter,
        },
        usage: outcome.usage.map(|usage| types::UsageParam {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            cached_tokens: usage.cached_tokens,
            cache_write_tokens: usage.cache_write_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            cost_usd: usage.cost_micro_usd.map(|micro| micro as f64 / 1e6),
            extra: None,
        }),
        model: None,
        extra: None,
    }
}

impl From<types::ApiError> for ApiError {
    fn from(error: types::ApiError) -> Self {
        use types::ErrorKind as Theirs;
        ApiError {
            kind: match error.kind {
                Theirs::InvalidRequest => ErrorKind::InvalidRequest,
                Theirs::UnsupportedParameter => ErrorKind::UnsupportedParameter,
                Theirs::ContextLength => ErrorKind::ContextLength,
                Theirs::Authentication => ErrorKind::Authentication,
                Theirs::Permission => ErrorKind::Permission,
                Theirs::ModelNotFound => ErrorKind::ModelNotFound,
                Theirs::RateLimit => ErrorKind::RateLimit,
                Theirs::Overloaded => ErrorKind::Overloaded,
                Theirs::Timeout => ErrorKind::Timeout,
                Theirs::BackendFailed => ErrorKind::BackendFailed,
                Theirs::ToolChoiceNotHonoured => ErrorKind::ToolChoiceNotHonoured,
                Theirs::SchemaNotMet => ErrorKind::SchemaNotMet,
                Theirs::InvalidJson => ErrorKind::InvalidJson,
                Theirs::Refused => ErrorKind::Refused,
            },
            message: error.message,
            param: error.param,
            retry_at: error.retry_at,
        }
    }
}
