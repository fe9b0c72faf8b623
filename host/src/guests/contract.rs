//! The contract of `wit/`, as the host sees it.

#[allow(
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::all,
    reason = "generated code"
)]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "adapter-guest",
    });
}

pub(crate) use bindings::claude_harness::guest::{log, types};
pub(crate) use bindings::exports::claude_harness::guest::adapter;
pub(crate) use bindings::{AdapterGuest, AdapterGuestPre};
