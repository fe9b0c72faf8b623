//! The exports of a dialect, generated from `wit/`. The types that all guests share are those of the crate
//! `harness-guest-bindings`.
//!
//! They are a crate of their own because the export macros of two worlds cannot be in one crate.

#![allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    clippy::all,
    reason = "generated code"
)]

wit_bindgen::generate!({
    path: "../../../wit/1.0.0",
    world: "dialect-guest",
    pub_export_macro: true,
    with: {
        "harness:guest/types@1.0.0": harness_guest_bindings::harness::guest::types,
        "harness:guest/log@1.0.0": harness_guest_bindings::harness::guest::log,
    },
});
