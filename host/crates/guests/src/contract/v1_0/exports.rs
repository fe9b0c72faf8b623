//! The functions that guests export, a table for each interface.
//!
//! What `bindgen!` generates compares all types of an interface anew for each instance, which takes longer than all the
//! rest of making one. Here they are compared for the first instance of a component: its others have the same types.

use std::sync::OnceLock;

use wasmtime::component::{
    Component, ComponentExportIndex, Func, Instance, ResourceAny, TypedFunc,
};
use wasmtime::{Store, format_err};

use super::bindings::exports::harness::guest::{adapter, dialect, guest, probe, reuse, transform};
use super::types;
use crate::engine::State;

/// What all interfaces have in common.
struct Interface {
    name: &'static str,
    /// Set when the types of all its functions were found to be those of the contract.
    compared: OnceLock<()>,
}

impl Interface {
    fn find(&self, component: &Component, name: &str) -> wasmtime::Result<ComponentExportIndex> {
        let interface = component.get_export_index(None, self.name);
        let interface =
            interface.ok_or_else(|| format_err!("there is no interface `{}`", self.name))?;
        let index = component.get_export_index(Some(&interface), name);
        index.ok_or_else(|| format_err!("`{}` has no `{name}`", self.name))
    }

    /// # Errors
    ///
    /// Fails if the types were not compared, so whoever has the function may rely on them.
    fn function(
        &self,
        function: ComponentExportIndex,
        store: &mut Store<State>,
        of: &Instance,
    ) -> wasmtime::Result<Func> {
        let found = self
            .compared
            .get()
            .and_then(|()| of.get_func(store, function));
        found.ok_or_else(|| format_err!("a function of `{}` was not looked at", self.name))
    }
}

/// The table of an interface: a method for each of its functions.
macro_rules! interface {
    ($(#[$doc:meta])* $interface:ident = $name:literal {
        $($function:ident = $export:literal ($($argument:ident: $type:ty),*) -> $result:ty;)+
    }) => {
        $(#[$doc])*
        pub(super) struct $interface {
            interface: Interface,
            $($function: ComponentExportIndex,)+
        }

        impl $interface {
            pub(super) const NAME: &str = $name;

            /// Looks for the functions.
            ///
            /// # Errors
            ///
            /// Names the one that is missing.
            pub(super) fn find(component: &Component) -> wasmtime::Result<Self> {
                let interface = Interface { name: Self::NAME, compared: OnceLock::new() };
                Ok(Self {
                    $($function: interface.find(component, $export)?,)+
                    interface,
                })
            }

            /// Compares the types, once: the component of this instance is the one that was looked through.
            ///
            /// # Errors
            ///
            /// Tells where they differ from the contract.
            pub(super) fn compare(&self, store: &mut Store<State>, of: &Instance) -> wasmtime::Result<()> {
                if self.interface.compared.get().is_none() {
                    $(of.get_typed_func::<($($type,)*), ($result,)>(&mut *store, self.$function)?;)+
                    self.interface.compared.get_or_init(|| ());
                }
                Ok(())
            }

            $(
                #[expect(unsafe_code, reason = "the types were compared before")]
                pub(super) fn $function(
                    &self,
                    store: &mut Store<State>,
                    of: &Instance,
                    $($argument: $type),*
                ) -> wasmtime::Result<$result> {
                    let function = self.interface.function(self.$function, store, of)?;
                    // SAFETY: `compare` found that it has these types, or there would be no function: an index
                    // leads to nothing in the instance of another component.
                    let function = unsafe { TypedFunc::<($($type,)*), ($result,)>::new_unchecked(function) };
                    let (result,) = function.call(store, ($($argument,)*))?;
                    Ok(result)
                }
            )+
        }
    };
}

interface! {
    /// What all guests export.
    Guest = "harness:guest/guest@1.0.0" {
        describe = "describe"() -> guest::Description;
        configure = "configure"(config: &str) -> Result<(), Vec<guest::Problem>>;
    }
}

interface! {
    Adapter = "harness:guest/adapter@1.0.0" {
        open = "[static]session.open"(context: types::Context<'_>, request: types::RequestParam<'_>)
            -> Result<ResourceAny, types::ApiError>;
        launch_options = "[method]session.launch-options"(session: ResourceAny) -> Vec<adapter::LaunchOption>;
        start = "[method]session.start"(session: ResourceAny) -> Vec<adapter::Effect>;
        output = "[method]session.output"(session: ResourceAny, lines: &[&str]) -> Vec<adapter::Effect>;
        exit = "[method]session.exit"(session: ResourceAny, status: Option<i32>, stderr: &str) -> Vec<adapter::Effect>;
    }
}

interface! {
    /// An adapter need not export it.
    Probe = "harness:guest/probe@1.0.0" {
        open = "open"(context: types::Context<'_>, question: probe::Question) -> Option<ResourceAny>;
    }
}

interface! {
    /// An adapter need not export it.
    Reuse = "harness:guest/reuse@1.0.0" {
        want = "want"(session: ResourceAny) -> Option<reuse::Wanted>;
        resume = "resume"(session: ResourceAny, resumption: reuse::Resumption<'_>) -> Vec<adapter::Effect>;
        interrupt = "interrupt"(session: ResourceAny) -> Vec<adapter::Effect>;
        hold = "hold"(session: ResourceAny) -> Option<reuse::Held>;
    }
}

interface! {
    Transform = "harness:guest/transform@1.0.0" {
        open = "open"(context: types::Context<'_>, request: types::RequestParam<'_>)
            -> Result<transform::Opened, types::ApiError>;
        take = "[method]filter.take"(filter: ResourceAny, deltas: &[types::DeltaParam<'_>]) -> transform::Step;
        finish = "[method]filter.finish"(filter: ResourceAny, outcome: types::OutcomeParam<'_>)
            -> Result<transform::Ending, types::ApiError>;
    }
}

interface! {
    Dialect = "harness:guest/dialect@1.0.0" {
        serve = "serve"() -> dialect::Service;
        open = "open"(context: types::Context<'_>, http: dialect::HttpRequest<'_>)
            -> Result<dialect::Opened, types::ApiError>;
        render_error = "render-error"(failure: dialect::Failure<'_>) -> dialect::HttpResponse;
        begin = "[method]call.begin"(call: ResourceAny) -> Option<dialect::HttpHead>;
        take = "[method]call.take"(call: ResourceAny, choice: u32, deltas: &[types::DeltaParam<'_>]) -> String;
        end_choice = "[method]call.end-choice"(call: ResourceAny, choice: u32, outcome: types::OutcomeParam<'_>)
            -> String;
        finish = "[method]call.finish"(call: ResourceAny) -> String;
        fail = "[method]call.fail"(call: ResourceAny, failure: dialect::Failure<'_>) -> String;
        keep_alive = "[method]call.keep-alive"(call: ResourceAny) -> String;
        list_models = "[method]call.list-models"(call: ResourceAny, models: &[dialect::OfferedModel<'_>])
            -> dialect::HttpResponse;
    }
}
