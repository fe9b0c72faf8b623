//! What a guest of claude-harness is written with, in Rust.
//!
//! A guest implements a trait and exports it: [`Adapter`] for a command line, [`Transform`] for what stands between
//! clients and adapters, [`Dialect`] for another HTTP API. The types are those of the contract in `wit/`, which documents them. Outside of WebAssembly everything works as well, but for the log, so a guest
//! is tested like any other crate; [`testing`] reads requests from JSON for that.
//!
//! ```
//! use harness_guest::{
//!     Adapter, ApiError, Context, Delta, Description, Effect, FinishReason, Problem, Request,
//! };
//!
//! /// Tells how many messages there are.
//! struct Counts(usize);
//!
//! impl Adapter for Counts {
//!     type Settings = ();
//!
//!     fn describe() -> Description {
//!         harness_guest::description("counts", "1.0.0", "tells how many messages there are")
//!     }
//!
//!     fn configure(_config: &str) -> Result<(), Vec<Problem>> {
//!         Ok(())
//!     }
//!
//!     fn open(_: &(), _context: Context, request: Request) -> Result<Self, ApiError> {
//!         Ok(Counts(request.messages.len()))
//!     }
//!
//!     fn start(&mut self) -> Vec<Effect> {
//!         let text = format!("{} messages", self.0);
//!         let outcome = harness_guest::outcome(FinishReason::Stop);
//!         vec![Effect::Emit(Delta::Content(text)), Effect::Finish(outcome)]
//!     }
//!
//!     fn output(&mut self, _lines: Vec<String>) -> Vec<Effect> {
//!         Vec::new()
//!     }
//!
//!     fn exit(&mut self, _status: Option<i32>, _stderr_tail: String) -> Vec<Effect> {
//!         Vec::new()
//!     }
//! }
//!
//! harness_guest::export_adapter!(Counts);
//! ```

#![cfg_attr(
    target_family = "wasm",
    allow(unreachable_pub, reason = "the export macro's items")
)]

mod adapter;
mod dialect;
mod http;
#[cfg(target_family = "wasm")]
mod memory;
mod state;
pub mod testing;
mod transform;

#[doc(hidden)]
pub use harness_guest_bindings as bindings;

/// The exports of a transform, generated from `wit/`. The types that all guests share are those of [`bindings`].
#[doc(hidden)]
#[allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    clippy::all,
    reason = "generated code"
)]
pub mod transform_bindings {
    wit_bindgen::generate!({
        path: "../../wit/1.0.0",
        world: "transform-guest",
        pub_export_macro: true,
        with: {
            "harness:guest/types@1.0.0": crate::bindings::harness::guest::types,
            "harness:guest/log@1.0.0": crate::bindings::harness::guest::log,
        },
    });
}

#[doc(hidden)]
pub use harness_guest_dialect_bindings as dialect_bindings;

pub use schemars;

pub use adapter::{Adapter, Exported};
pub use bindings::exports::harness::guest::adapter::{
    Effect, LaunchOption, Login, Model, ModelLimits, Plan, PlanWindow, RateLimit, RateLimitStatus,
    Report,
};
pub use bindings::exports::harness::guest::guest::{Description, Problem};
pub use bindings::exports::harness::guest::probe::Question;
pub use bindings::exports::harness::guest::reuse::{Held, HeldTurn, Resumption, Wanted};
pub use bindings::harness::guest::log::Level;
pub use bindings::harness::guest::types::*;
pub use dialect::{
    Dialect, ExportedDialect, Failure, Header, HttpHead, HttpRequest, HttpResponse, OfferedModel,
    OpenedCall, Route, Service,
};
pub use http::{
    event_stream, header, json_line, json_reply, openai_error, or_default, read_body, route,
    service, text_reply,
};
pub use transform::{Decision, Ending, ExportedTransform, Opened, Reply, Step, Transform, ending};

/// Writes a line to the host's log. Outside of WebAssembly there is none.
pub fn log(level: Level, message: &str) {
    #[cfg(target_family = "wasm")]
    bindings::harness::guest::log::write(level, message);
    #[cfg(not(target_family = "wasm"))]
    let _ = (level, message);
}

/// The description of a guest without settings, that honours no field of a request beyond the host's own.
pub fn description(name: &str, version: &str, summary: &str) -> Description {
    Description {
        name: name.into(),
        version: version.into(),
        summary: summary.into(),
        config_schema: r#"{"type":"object","additionalProperties":false}"#.into(),
        honours: Vec::new(),
        extra: None,
    }
}

/// The JSON Schema of a guest's settings, for [`Description::config_schema`]. The documentation of fields becomes their
/// descriptions.
///
/// ```
/// use harness_guest::schemars::JsonSchema;
/// use serde::Deserialize;
///
/// /// What is configured.
/// #[derive(Deserialize, JsonSchema)]
/// #[schemars(crate = "harness_guest::schemars")]
/// #[serde(default, deny_unknown_fields)]
/// struct Settings {
///     /// How loud.
///     volume: u8,
/// }
/// # impl Default for Settings {
/// #     fn default() -> Self {
/// #         Settings { volume: 5 }
/// #     }
/// # }
///
/// let schema = harness_guest::schema::<Settings>();
/// assert!(schema.contains("How loud."));
/// ```
pub fn schema<T: schemars::JsonSchema>() -> String {
    schemars::schema_for!(T).to_value().to_string()
}

/// The end of an answer whose usage is not known.
pub fn outcome(finish_reason: FinishReason) -> Outcome {
    Outcome {
        finish_reason,
        usage: None,
        model: None,
        extra: None,
    }
}

/// A failure that is no field's fault.
pub fn failure(kind: ErrorKind, message: impl Into<String>) -> ApiError {
    ApiError {
        kind,
        message: message.into(),
        param: None,
        retry_at: None,
        extra: None,
    }
}

/// A failure that is a field's fault: its value is wrong.
pub fn invalid(param: &str, message: impl Into<String>) -> ApiError {
    ApiError {
        param: Some(param.into()),
        ..failure(ErrorKind::InvalidRequest, message)
    }
}

/// A failure because a field asks for what cannot be done.
pub fn unsupported(param: &str, message: impl Into<String>) -> ApiError {
    ApiError {
        param: Some(param.into()),
        ..failure(ErrorKind::UnsupportedParameter, message)
    }
}

/// A message of nothing but content.
pub fn message(role: Role, content: Option<Content>) -> Message {
    Message {
        role,
        name: None,
        content,
        tool_calls: Vec::new(),
        tool_call_id: None,
        extra: None,
    }
}

/// A request of nothing but messages, whose answer streams.
pub fn request(messages: Vec<Message>) -> Request {
    Request {
        messages,
        tools: Vec::new(),
        tool_choice: None,
        parallel_tool_calls: None,
        output_format: OutputFormat::Text,
        stream: true,
        max_tokens: None,
        reasoning_effort: None,
        sampling: Sampling {
            temperature: None,
            top_p: None,
            seed: None,
            frequency_penalty: None,
            presence_penalty: None,
        },
        stop: Vec::new(),
        extra: None,
    }
}

/// Reads a guest's settings from its configuration.
///
/// # Errors
///
/// Names the key at fault.
pub fn settings<T: serde::de::DeserializeOwned>(config: &str) -> Result<T, Vec<Problem>> {
    let mut json = serde_json::Deserializer::from_str(config);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let key = match error.path().to_string() {
            path if path == "." => String::new(),
            path => path,
        };
        let message = error.inner().to_string();
        // The place in the JSON text, which the operator has never seen.
        let message = message.split(" at line ").next().unwrap_or(&message);
        vec![Problem {
            key,
            message: message.to_owned(),
        }]
    })
}
