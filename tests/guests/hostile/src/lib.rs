//! A guest that does what its configuration tells it, good or bad: for the tests of the host's
//! bounds.
//!
//! `{"at": "open", "do": "spin"}` spins in `open`. With `{"write": "…"}` it writes that text to
//! the backend. Without either it answers at once.

#![cfg_attr(
    target_family = "wasm",
    allow(unreachable_pub, reason = "the export macro's items")
)]

#[cfg(target_family = "wasm")]
mod component;

/// What to do, and when.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// The function in which it happens.
    pub at: String,
    /// What happens.
    pub r#do: String,
    /// What is written to the backend, piece by piece.
    pub write: Vec<String>,
    /// What is answered.
    pub answer: String,
    /// The fields of a request that it says it honours.
    pub honours: Option<Vec<String>>,
}

#[allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    clippy::all,
    reason = "generated code"
)]
pub mod contract {
    //! The contract's types, generated from `wit/`.
    wit_bindgen::generate!({
        path: "../../../wit",
        world: "adapter-guest",
        pub_export_macro: true,
    });

    pub use claude_harness::guest::{log, types};
    pub use exports::claude_harness::guest::adapter;
}
