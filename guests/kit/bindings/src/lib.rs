//! The contract's types, and the exports of an adapter, generated from `wit/`.
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
    world: "full-adapter-guest",
    pub_export_macro: true,
});
