//! Version 0.1 of the contract.

use std::sync::Arc;

use basics::plain::is_word;
use serde::Deserialize;
use serde_json::json;

use crate::GuestError;
use crate::completion::{
    ApiError, Context, Delta, Effect, ErrorKind, FinishReason, Holding, Outcome, ToolCallDelta,
    Usage,
};

#[allow(
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::all,
    reason = "generated code"
)]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../../../wit",
        world: "adapter-guest",
    });
}

pub(crate) use bindings::claude_harness::guest::log;
use bindings::claude_harness::guest::types;
pub(crate) use bindings::exports::claude_harness::guest::adapter;
pub(crate) use bindings::{AdapterGuest, AdapterGuestPre};

/// The context of a request, as this version has it.
pub(crate) fn context(context: &Context) -> types::Context {
    types::Context {
        id: context.id.clone(),
        created: context.created,
        model: context.model.clone(),
        extra: json!({
            "fetch_urls": context.fetch_urls,
            "resolved_model": context.resolved_model,
        })
        .to_string(),
    }
}

/// The fields of a request that an adapter honours, or `None` if it does not say. Names that no field can have,
/// and names beyond `NAMES_MAX`, are left out.
pub(crate) fn honours(description: &adapter::Description) -> Option<Arc<[String]>> {
    /// As many fields as a request may have.
    const NAMES_MAX: usize = 512;
    #[derive(Deserialize)]
    struct Extra {
        honours: Option<Vec<String>>,
    }
    let extra: Extra = serde_json::from_str(&description.extra).ok()?;
    let names = extra.honours?.into_iter();
    Some(names.filter(|name| is_word(name)).take(NAMES_MAX).collect())
}

/// What an adapter wants the host to do, in order. An item is an error if it is an `extra` delta that is not a
/// JSON object.
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
        self.0.next().map(effect)
    }
}

fn effect(effect: adapter::Effect) -> Result<Effect, GuestError> {
    Ok(match effect {
        adapter::Effect::Write(bytes) => Effect::Write(bytes),
        adapter::Effect::CloseInput => Effect::CloseInput,
        adapter::Effect::Emit(piece) => Effect::Emit(delta(piece)?),
        adapter::Effect::Report(report) => Effect::Report(report),
        adapter::Effect::Finish(outcome) => Effect::Finish(outcome.into()),
        adapter::Effect::Fail(error) => Effect::Fail(error.into()),
    })
}

fn delta(delta: types::Delta) -> Result<Delta, GuestError> {
    Ok(match delta {
        types::Delta::Content(text) => Delta::Content(text),
        types::Delta::Reasoning(text) => Delta::Reasoning(text),
        types::Delta::Refusal(text) => Delta::Refusal(text),
        types::Delta::ToolCall(call) => Delta::ToolCall(ToolCallDelta {
            index: call.index,
            id: call.id,
            name: call.name,
            arguments: call.arguments,
        }),
        types::Delta::Extra(json) => {
            let fields = serde_json::from_str(&json);
            let no_object = |_| GuestError::Contract("an extra delta is no JSON object".into());
            Delta::Extra(fields.map_err(no_object)?, json.len())
        }
    })
}

impl From<adapter::Holding> for Holding {
    fn from(holding: adapter::Holding) -> Self {
        Holding {
            history: holding.history,
            memo: holding.memo,
        }
    }
}

impl From<types::Outcome> for Outcome {
    fn from(outcome: types::Outcome) -> Self {
        Outcome {
            finish_reason: match outcome.finish_reason {
                types::FinishReason::Stop => FinishReason::Stop,
                types::FinishReason::Length => FinishReason::Length,
                types::FinishReason::ToolCalls => FinishReason::ToolCalls,
                types::FinishReason::ContentFilter => FinishReason::ContentFilter,
            },
            usage: outcome.usage.map(|usage| Usage {
                prompt_tokens: usage.prompt_tokens,
                completion_tokens: usage.completion_tokens,
                cached_tokens: usage.cached_tokens,
                cache_write_tokens: usage.cache_write_tokens,
                reasoning_tokens: usage.reasoning_tokens,
            }),
        }
    }
}

impl From<types::ApiError> for ApiError {
    fn from(error: types::ApiError) -> Self {
        ApiError {
            kind: match error.kind {
                types::ErrorKind::InvalidRequest => ErrorKind::InvalidRequest,
                types::ErrorKind::Authentication => ErrorKind::Authentication,
                types::ErrorKind::Permission => ErrorKind::Permission,
                types::ErrorKind::NotFound => ErrorKind::NotFound,
                types::ErrorKind::RateLimit => ErrorKind::RateLimit,
                types::ErrorKind::ContextLength => ErrorKind::ContextLength,
                types::ErrorKind::Overloaded => ErrorKind::Overloaded,
                types::ErrorKind::Timeout => ErrorKind::Timeout,
                types::ErrorKind::Backend => ErrorKind::Backend,
            },
            message: error.message,
            param: error.param,
            code: error.code,
            retry_at: error.retry_at,
        }
    }
}
