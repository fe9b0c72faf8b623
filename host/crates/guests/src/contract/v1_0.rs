//! Version 1.0 of the contract.

mod answer;
mod dialect;
mod request;
mod rewritten;

use wasmtime::Store;
use wasmtime::component::{Instance as WasmInstance, InstancePre, ResourceAny};

use crate::GuestError;
use crate::completion::{
    ApiError, Context, Decision, Delta, Ending, Held, Outcome, Resumption, Step, Wanted,
};
use crate::engine::State;
use crate::report::Question;

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
        inline: "
            package harness:host;

            world all-guests {
                include harness:guest/full-adapter-guest@1.0.0;
                include harness:guest/transform-guest@1.0.0;
                include harness:guest/dialect-guest@1.0.0;
            }
        ",
        world: "harness:host/all-guests",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

pub use answer::Effects;
pub(crate) use answer::honours;
use bindings::exports::harness::guest as exports;
pub(crate) use bindings::harness::guest::log;
use bindings::harness::guest::types;
pub(crate) use dialect::{Dialect, Opened};
use exports::adapter;
pub(crate) use exports::guest::{Description, Problem};
use exports::{reuse, transform};
pub(crate) use request::with_request;

use crate::admit::World;

/// The interfaces by which a guest says what it is.
const ADAPTER: &str = "harness:guest/adapter@1.0.0";
const TRANSFORM: &str = "harness:guest/transform@1.0.0";
const DIALECT: &str = "harness:guest/dialect@1.0.0";

/// The interfaces that an adapter may export, but need not.
const PROBE: &str = "harness:guest/probe@1.0.0";
const REUSE: &str = "harness:guest/reuse@1.0.0";

/// A guest whose exports were found.
#[derive(Clone)]
pub(crate) struct GuestPre {
    pre: InstancePre<State>,
    guest: exports::guest::GuestIndices,
    world: WorldPre,
}

#[derive(Clone)]
enum WorldPre {
    Adapter {
        adapter: adapter::GuestIndices,
        probe: Option<exports::probe::GuestIndices>,
        reuse: Option<reuse::GuestIndices>,
    },
    Transform(transform::GuestIndices),
    Dialect(exports::dialect::GuestIndices),
}

/// An instance of a guest.
pub(crate) struct Instance {
    guest: exports::guest::Guest,
    pub(crate) calls: Calls,
}

/// What can be called of an instance.
pub(crate) enum Calls {
    Adapter(Adapter),
    Transform(Transform),
    Dialect(Dialect),
}

/// An instance of an adapter.
pub(crate) struct Adapter {
    adapter: adapter::Guest,
    probe: Option<exports::probe::Guest>,
    reuse: Option<reuse::Guest>,
}

/// An instance of a transform.
pub(crate) struct Transform(transform::Guest);

impl GuestPre {
    /// Looks for the exports.
    ///
    /// # Errors
    ///
    /// Names the export that is missing.
    pub(crate) fn new(pre: InstancePre<State>) -> wasmtime::Result<Self> {
        let has = |name| pre.component().get_export_index(None, name).is_some();
        let world = match (has(ADAPTER), has(TRANSFORM), has(DIALECT)) {
            (false, true, _) => WorldPre::Transform(transform::GuestIndices::new(&pre)?),
            (false, false, true) => WorldPre::Dialect(exports::dialect::GuestIndices::new(&pre)?),
            _ => {
                let probe = has(PROBE).then(|| exports::probe::GuestIndices::new(&pre));
                let reuse = has(REUSE).then(|| reuse::GuestIndices::new(&pre));
                WorldPre::Adapter {
                    adapter: adapter::GuestIndices::new(&pre)?,
                    probe: probe.transpose()?,
                    reuse: reuse.transpose()?,
                }
            }
        };
        Ok(GuestPre {
            guest: exports::guest::GuestIndices::new(&pre)?,
            world,
            pre,
        })
    }

    /// What it is.
    pub(crate) fn world(&self) -> World {
        match self.world {
            WorldPre::Adapter { .. } => World::Adapter,
            WorldPre::Transform(_) => World::Transform,
            WorldPre::Dialect(_) => World::Dialect,
        }
    }

    pub(crate) fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Instance> {
        let instance: WasmInstance = self.pre.instantiate(&mut *store)?;
        let guest = self.guest.load(&mut *store, &instance)?;
        let calls = match &self.world {
            WorldPre::Adapter {
                adapter,
                probe,
                reuse,
            } => Calls::Adapter(Adapter {
                adapter: adapter.load(&mut *store, &instance)?,
                probe: match probe {
                    Some(probe) => Some(probe.load(&mut *store, &instance)?),
                    None => None,
                },
                reuse: match reuse {
                    Some(reuse) => Some(reuse.load(&mut *store, &instance)?),
                    None => None,
                },
            }),
            WorldPre::Transform(transform) => {
                Calls::Transform(Transform(transform.load(&mut *store, &instance)?))
            }
            WorldPre::Dialect(dialect) => {
                Calls::Dialect(Dialect(dialect.load(&mut *store, &instance)?))
            }
        };
        Ok(Instance { guest, calls })
    }
}

impl Instance {
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
}

impl Transform {
    /// The decision about a request, and the filter of its answer.
    #[expect(
        clippy::type_complexity,
        reason = "each layer of it fails in its own way"
    )]
    pub(crate) fn open(
        &self,
        store: &mut Store<State>,
        context: &Context,
        request: types::RequestParam<'_>,
    ) -> wasmtime::Result<Result<Result<(Decision, Option<ResourceAny>), GuestError>, ApiError>>
    {
        let opened = self.0.call_open(store, lowered_context(context), request)?;
        Ok(match opened {
            Ok(opened) => {
                Ok(answer::decision(opened.decision).map(|decision| (decision, opened.filter)))
            }
            Err(error) => Err(error.into()),
        })
    }

    pub(crate) fn take(
        &self,
        store: &mut Store<State>,
        filter: ResourceAny,
        deltas: &[Delta],
    ) -> wasmtime::Result<Result<Step, GuestError>> {
        let values = answer::values(deltas);
        let deltas: Vec<types::DeltaParam<'_>> = deltas
            .iter()
            .zip(&values)
            .map(|(delta, value)| answer::lowered_delta(delta, value))
            .collect();
        let step = self.0.filter().call_take(store, filter, &deltas)?;
        Ok(answer::step(step))
    }

    pub(crate) fn finish(
        &self,
        store: &mut Store<State>,
        filter: ResourceAny,
        outcome: &Outcome,
    ) -> wasmtime::Result<Result<Result<Ending, GuestError>, ApiError>> {
        let outcome = answer::lowered_outcome(outcome);
        let ended = self.0.filter().call_finish(store, filter, outcome)?;
        Ok(match ended {
            Ok(ending) => Ok(answer::ending(ending)),
            Err(error) => Err(error.into()),
        })
    }
}

impl Adapter {
    pub(crate) fn open(
        &self,
        store: &mut Store<State>,
        context: &Context,
        request: types::RequestParam<'_>,
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
        question: Question,
    ) -> wasmtime::Result<Option<ResourceAny>> {
        let Some(probe) = &self.probe else {
            return Ok(None);
        };
        let question = match question {
            Question::Introduction => exports::probe::Question::Introduction,
            Question::Plan => exports::probe::Question::Plan,
        };
        probe.call_open(store, lowered_context(context), question)
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

    /// None if no request ever goes on with a process.
    pub(crate) fn interrupt(
        &self,
        store: &mut Store<State>,
        session: ResourceAny,
    ) -> wasmtime::Result<Option<Effects>> {
        let Some(reuse) = &self.reuse else {
            return Ok(None);
        };
        Ok(Some(reuse.call_interrupt(store, session)?.into()))
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
        profile: &context.profile,
        fetch_urls: context.fetch_urls,
        choice: context.choice,
        extra: None,
    }
}
