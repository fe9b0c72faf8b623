//! Version 1.0 of the contract.

mod answer;
mod dialect;
mod exports;
mod request;
mod rewritten;

use std::sync::Arc;

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
pub(crate) use bindings::exports::harness::guest::guest::{Description, Problem};
use bindings::exports::harness::guest::{probe, reuse};
pub(crate) use bindings::harness::guest::log;
use bindings::harness::guest::types;
pub(crate) use dialect::{Dialect, Opened};
pub(crate) use request::with_request;

use crate::admit::World;

/// A guest whose exports were found.
#[derive(Clone)]
pub(crate) struct GuestPre {
    pre: InstancePre<State>,
    guest: Arc<exports::Guest>,
    world: Exports,
}

/// The functions that a guest of each world has.
#[derive(Clone)]
enum Exports {
    Adapter(Arc<AdapterExports>),
    Transform(Arc<exports::Transform>),
    Dialect(Arc<exports::Dialect>),
}

struct AdapterExports {
    adapter: exports::Adapter,
    probe: Option<exports::Probe>,
    reuse: Option<exports::Reuse>,
}

/// An instance of a guest.
pub(crate) struct Instance {
    guest: Arc<exports::Guest>,
    instance: WasmInstance,
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
    exports: Arc<AdapterExports>,
    instance: WasmInstance,
}

/// An instance of a transform.
pub(crate) struct Transform {
    exports: Arc<exports::Transform>,
    instance: WasmInstance,
}

impl GuestPre {
    /// Looks for the exports.
    ///
    /// # Errors
    ///
    /// Names the export that is missing.
    pub(crate) fn new(pre: InstancePre<State>) -> wasmtime::Result<Self> {
        let component = pre.component();
        let has = |name| component.get_export_index(None, name).is_some();
        let [adapter, transform, dialect] = [
            exports::Adapter::NAME,
            exports::Transform::NAME,
            exports::Dialect::NAME,
        ]
        .map(has);
        let world = match (adapter, transform, dialect) {
            (false, true, _) => Exports::Transform(exports::Transform::find(component)?.into()),
            (false, false, true) => Exports::Dialect(exports::Dialect::find(component)?.into()),
            _ => {
                let probe = has(exports::Probe::NAME).then(|| exports::Probe::find(component));
                let reuse = has(exports::Reuse::NAME).then(|| exports::Reuse::find(component));
                let exports = AdapterExports {
                    adapter: exports::Adapter::find(component)?,
                    probe: probe.transpose()?,
                    reuse: reuse.transpose()?,
                };
                Exports::Adapter(exports.into())
            }
        };
        Ok(GuestPre {
            guest: exports::Guest::find(component)?.into(),
            world,
            pre,
        })
    }

    /// What it is.
    pub(crate) fn world(&self) -> World {
        match self.world {
            Exports::Adapter(_) => World::Adapter,
            Exports::Transform(_) => World::Transform,
            Exports::Dialect(_) => World::Dialect,
        }
    }

    /// A fresh instance. The first one of a component tells whether its functions have the types of the contract.
    pub(crate) fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Instance> {
        let instance: WasmInstance = self.pre.instantiate(&mut *store)?;
        self.guest.compare(store, &instance)?;
        let calls = match &self.world {
            Exports::Adapter(exports) => {
                exports.compare(store, &instance)?;
                let exports = exports.clone();
                Calls::Adapter(Adapter { exports, instance })
            }
            Exports::Transform(exports) => {
                exports.compare(store, &instance)?;
                let exports = exports.clone();
                Calls::Transform(Transform { exports, instance })
            }
            Exports::Dialect(exports) => {
                exports.compare(store, &instance)?;
                let exports = exports.clone();
                Calls::Dialect(Dialect { exports, instance })
            }
        };
        Ok(Instance {
            guest: self.guest.clone(),
            instance,
            calls,
        })
    }
}

impl AdapterExports {
    fn compare(&self, store: &mut Store<State>, of: &WasmInstance) -> wasmtime::Result<()> {
        self.adapter.compare(store, of)?;
        if let Some(probe) = &self.probe {
            probe.compare(store, of)?;
        }
        if let Some(reuse) = &self.reuse {
            reuse.compare(store, of)?;
        }
        Ok(())
    }
}

impl Instance {
    pub(crate) fn describe(&self, store: &mut Store<State>) -> wasmtime::Result<Description> {
        self.guest.describe(store, &self.instance)
    }

    pub(crate) fn configure(
        &self,
        store: &mut Store<State>,
        config: &str,
    ) -> wasmtime::Result<Result<(), Vec<Problem>>> {
        self.guest.configure(store, &self.instance, config)
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
        let context = lowered_context(context);
        let opened = self.exports.open(store, &self.instance, context, request)?;
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
        let step = self.exports.take(store, &self.instance, filter, &deltas)?;
        Ok(answer::step(step))
    }

    pub(crate) fn finish(
        &self,
        store: &mut Store<State>,
        filter: ResourceAny,
        outcome: &Outcome,
    ) -> wasmtime::Result<Result<Result<Ending, GuestError>, ApiError>> {
        let outcome = answer::lowered_outcome(outcome);
        let ended = self
            .exports
            .finish(store, &self.instance, filter, outcome)?;
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
        let context = lowered_context(context);
        let adapter = &self.exports.adapter;
        let opened = adapter.open(store, &self.instance, context, request)?;
        Ok(opened.map_err(Into::into))
    }

    /// None if it has no probe.
    pub(crate) fn probe(
        &self,
        store: &mut Store<State>,
        context: &Context,
        question: Question,
    ) -> wasmtime::Result<Option<ResourceAny>> {
        let Some(probe) = &self.exports.probe else {
            return Ok(None);
        };
        let question = match question {
            Question::Introduction => probe::Question::Introduction,
            Question::Plan => probe::Question::Plan,
        };
        probe.open(store, &self.instance, lowered_context(context), question)
    }

    pub(crate) fn launch_options(
        &self,
        store: &mut Store<State>,
        session: ResourceAny,
    ) -> wasmtime::Result<Vec<(String, String)>> {
        let adapter = &self.exports.adapter;
        let options = adapter.launch_options(store, &self.instance, session)?;
        let options = options.into_iter();
        Ok(options.map(|option| (option.name, option.value)).collect())
    }

    pub(crate) fn start(
        &self,
        store: &mut Store<State>,
        session: ResourceAny,
    ) -> wasmtime::Result<Effects> {
        let effects = self.exports.adapter.start(store, &self.instance, session)?;
        Ok(effects.into())
    }

    pub(crate) fn output(
        &self,
        store: &mut Store<State>,
        session: ResourceAny,
        lines: &[&str],
    ) -> wasmtime::Result<Effects> {
        let effects = self
            .exports
            .adapter
            .output(store, &self.instance, session, lines)?;
        Ok(effects.into())
    }

    pub(crate) fn exit(
        &self,
        store: &mut Store<State>,
        session: ResourceAny,
        status: Option<i32>,
        stderr: &str,
    ) -> wasmtime::Result<Effects> {
        let adapter = &self.exports.adapter;
        let effects = adapter.exit(store, &self.instance, session, status, stderr)?;
        Ok(effects.into())
    }

    /// None if it never goes on with a process.
    pub(crate) fn want(
        &self,
        store: &mut Store<State>,
        session: ResourceAny,
    ) -> wasmtime::Result<Option<Wanted>> {
        let Some(reuse) = &self.exports.reuse else {
            return Ok(None);
        };
        Ok(reuse.want(store, &self.instance, session)?.map(Into::into))
    }

    pub(crate) fn resume(
        &self,
        store: &mut Store<State>,
        session: ResourceAny,
        resumption: &Resumption,
    ) -> wasmtime::Result<Effects> {
        let Some(reuse) = &self.exports.reuse else {
            return self.start(store, session);
        };
        let rewinds: Vec<&str> = resumption.rewinds.iter().map(String::as_str).collect();
        let resumption = reuse::Resumption {
            memo: &resumption.memo,
            kept: resumption.kept,
            rewinds: &rewinds,
        };
        Ok(reuse
            .resume(store, &self.instance, session, resumption)?
            .into())
    }

    /// None if no request ever goes on with a process.
    pub(crate) fn interrupt(
        &self,
        store: &mut Store<State>,
        session: ResourceAny,
    ) -> wasmtime::Result<Option<Effects>> {
        let Some(reuse) = &self.exports.reuse else {
            return Ok(None);
        };
        Ok(Some(
            reuse.interrupt(store, &self.instance, session)?.into(),
        ))
    }

    /// None if no request can go on with the process.
    pub(crate) fn hold(
        &self,
        store: &mut Store<State>,
        session: ResourceAny,
    ) -> wasmtime::Result<Option<Held>> {
        let Some(reuse) = &self.exports.reuse else {
            return Ok(None);
        };
        Ok(reuse.hold(store, &self.instance, session)?.map(Into::into))
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
