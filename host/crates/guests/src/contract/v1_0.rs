//! Version 1.0 of the contract.

mod request;

use basics::plain::is_word;
use serde_json::{Map, Value};
use wasmtime::Store;
use wasmtime::component::{Instance as WasmInstance, InstancePre, ResourceAny};

use crate::GuestError;
use crate::completion::{
    ApiError, Context, Delta, Effect, ErrorKind, FinishReason, Held, HeldTurn, Outcome, Resumption,
    ToolCallDelta, Usage, Wanted,
};
use crate::engine::State;
use crate::report::{ModelLimits, ModelOffer, RateLimit, RateLimitStatus, Report};

#[allow(
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::all,
    reason = "generated code"
)]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../../../wit/1.0.0",
        world: "full-adapter-guest",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

use bindings::exports::harness::guest as exports;
pub(crate) use bindings::harness::guest::log;
use bindings::harness::guest::types;
use exports::adapter;
pub(crate) use exports::guest::{Description, Problem};
use exports::reuse;
pub(crate) use request::with_request;

/// The interfaces that an adapter may export, but need not.
const PROBE: &str = "harness:guest/probe@1.0.0";
const REUSE: &str = "harness:guest/reuse@1.0.0";

/// An adapter whose exports were found.
#[derive(Clone)]
pub(crate) struct AdapterPre {
    pre: InstancePre<State>,
    guest: exports::guest::GuestIndices,
    adapter: adapter::GuestIndices,
    probe: Option<exports::probe::GuestIndices>,
    reuse: Option<reuse::GuestIndices>,
}

/// An instance of an adapter.
pub(crate) struct Adapter {
    guest: exports::guest::Guest,
    adapter: adapter::Guest,
    probe: Option<exports::probe::Guest>,
    reuse: Option<reuse::Guest>,
}

impl AdapterPre {
    /// Looks for the exports.
    ///
    /// # Errors
    ///
    /// Names the export that is missing.
    pub(crate) fn new(pre: InstancePre<State>) -> wasmtime::Result<Self> {
        let has = |name| pre.component().get_export_index(None, name).is_some();
        let probe = has(PROBE).then(|| exports::probe::GuestIndices::new(&pre));
        let reuse = has(REUSE).then(|| reuse::GuestIndices::new(&pre));
        Ok(AdapterPre {
            guest: exports::guest::GuestIndices::new(&pre)?,
            adapter: adapter::GuestIndices::new(&pre)?,
            probe: probe.transpose()?,
            reuse: reuse.transpose()?,
            pre,
        })
    }

    pub(crate) fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Adapter> {
        let instance: WasmInstance = self.pre.instantiate(&mut *store)?;
        let probe = self.probe.as_ref();
        let reuse = self.reuse.as_ref();
        Ok(Adapter {
            guest: self.guest.load(&mut *store, &instance)?,
            adapter: self.adapter.load(&mut *store, &instance)?,
            probe: probe
                .map(|probe| probe.load(&mut *store, &instance))
                .transpose()?,
            reuse: reuse
                .map(|reuse| reuse.load(&mut *store, &instance))
                .transpose()?,
        })
    }
}

impl Adapter {
    pub(crate) fn describe(&self, store: &mut Store<State>) -> wasmtime::Result<Description> {
        self.guest.call_describe(store)
    }

    pub(crate) fn configure(
        &self,
        store: &mut Store<State>,
        config: &str,
    ) -> wasmtime::Result<Result<(), Vec<Problem>>> {
        self.guest.call_configure(store, config)
    }

    pub(crate) fn open(
        &self,
        store: &mut Store<State>,
        context: &Context,
        request: types::Request<'_>,
    ) -> wasmtime::Result<Result<ResourceAny, ApiError>> {
        let session = self.adapter.session();
        let opened = session.call_open(store, lowered_context(context), request)?;
        Ok(opened.map_err(Into::into))
    }

    /// None if it has no probe.
    pub(crate) fn probe(
        &self,
        store: &mut Store<State>,
        context: &Context,
    ) -> wasmtime::Result<Option<ResourceAny>> {
        let Some(probe) = &self.probe else {
            return Ok(None);
        };
        probe.call_open(store, lowered_context(context))
    }

    pub(crate) fn launch_options(
        &self,
        store: &mut Store<State>,
        session: ResourceAny,
    ) -> wasmtime::Result<Vec<(String, String)>> {
        let options = self.adapter.session().call_launch_options(store, session)?;
        let options = options.into_iter();
        Ok(options.map(|option| (option.name, option.value)).collect())
    }

    pub(crate) fn start(
        &self,
        store: &mut Store<State>,
        session: ResourceAny,
    ) -> wasmtime::Result<Effects> {
        let effects = self.adapter.session().call_start(store, session)?;
        Ok(effects.into())
    }

    pub(crate) fn output(
        &self,
        store: &mut Store<State>,
        session: ResourceAny,
        lines: &[&str],
    ) -> wasmtime::Result<Effects> {
        let effects = self.adapter.session().call_output(store, session, lines)?;
        Ok(effects.into())
    }

    pub(crate) fn exit(
        &self,
        store: &mut Store<State>,
        session: ResourceAny,
        status: Option<i32>,
        stderr: &str,
    ) -> wasmtime::Result<Effects> {
        let calls = self.adapter.session();
        Ok(calls.call_exit(store, session, status, stderr)?.into())
    }

    /// None if it never goes on with a process.
    pub(crate) fn want(
        &self,
        store: &mut Store<State>,
        session: ResourceAny,
    ) -> wasmtime::Result<Option<Wanted>> {
        let Some(reuse) = &self.reuse else {
            return Ok(None);
        };
        Ok(reuse.call_want(store, session)?.map(Into::into))
    }

    pub(crate) fn resume(
        &self,
        store: &mut Store<State>,
        session: ResourceAny,
        resumption: &Resumption,
    ) -> wasmtime::Result<Effects> {
        let Some(reuse) = &self.reuse else {
            return self.start(store, session);
        };
        let rewinds: Vec<&str> = resumption.rewinds.iter().map(String::as_str).collect();
        let resumption = reuse::Resumption {
            memo: &resumption.memo,
            kept: resumption.kept,
            rewinds: &rewinds,
        };
        Ok(reuse.call_resume(store, session, resumption)?.into())
    }

    /// None if no request can go on with the process.
    pub(crate) fn hold(
        &self,
        store: &mut Store<State>,
        session: ResourceAny,
    ) -> wasmtime::Result<Option<Held>> {
        let Some(reuse) = &self.reuse else {
            return Ok(None);
        };
        Ok(reuse.call_hold(store, session)?.map(Into::into))
    }
}

fn lowered_context(context: &Context) -> types::Context<'_> {
    types::Context {
        id: &context.id,
        created: context.created,
        model: &context.model,
        backend_model: &context.backend_model,
        resolved_model: context.resolved_model.as_deref(),
        profile: context.profile,
        fetch_urls: context.fetch_urls,
        extra: None,
    }
}

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
                adapter::Effect::Report(known) => match report(known) {
                    Some(report) => Effect::Report(report),
                    None => continue,
                },
                adapter::Effect::Finish(outcome) => Effect::Finish(outcome.into()),
                adapter::Effect::Fail(error) => Effect::Fail(error.into()),
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
        types::Delta::Annotation(types::Annotation { name, value }) => {
            let broken = |what: &str| GuestError::Contract(format!("an annotation {what}"));
            if OWN_FIELDS.contains(&name.as_str()) {
                return Err(broken("has the name of a field of OpenAI's"));
            }
            let size = name.len() + value.len();
            let value: Value =
                serde_json::from_str(&value).map_err(|_| broken("has a value that is no JSON"))?;
            Delta::Extra(Map::from_iter([(name, value)]), size)
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
