//! The glue that makes a WebAssembly component of [`crate::exchange`].

use std::cell::{Cell, RefCell};

use serde::Deserialize;

use crate::contract::adapter::{
    Description, Effect, Exchange, Guest, GuestExchange, Holding, Placeholder,
};
use crate::contract::types::{ApiError, Context};
use crate::exchange;
use crate::failure::invalid_request;
use crate::request::{ChatRequest, Permissions};

struct ClaudeCode;

/// `[guests.claude-code] config`
#[derive(Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Whether the model's thinking is shown to the client.
    reasoning: bool,
}

impl Settings {
    const DEFAULT: Settings = Settings { reasoning: true };
}

impl Default for Settings {
    fn default() -> Self {
        Settings::DEFAULT
    }
}

/// What the host says in a context's `extra`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Extra {
    fetch_urls: bool,
    resolved_model: Option<String>,
}

/// The fields of a request that [`ChatRequest`] reads, beside those that the host honours itself.
const HONOURS: [&str; 8] = [
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
    "stop",
    "max_completion_tokens",
    "max_tokens",
];

thread_local! {
    static SETTINGS: Cell<Settings> = const { Cell::new(Settings::DEFAULT) };
}

struct Dialogue(RefCell<exchange::Exchange>);

impl Guest for ClaudeCode {
    type Exchange = Dialogue;

    fn describe() -> Description {
        Description {
            name: "claude-code".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Claude Code's stream-json protocol, with true history".into(),
            config_schema: r#"{"type":"object","additionalProperties":false,"properties":{"reasoning":{"type":"boolean","default":true}}}"#.into(),
            extra: serde_json::json!({ "honours": HONOURS }).to_string(),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        let settings = serde_json::from_str(&config)
            .map_err(|e| format!("{e}: the only setting is `reasoning`, true or false"))?;
        SETTINGS.set(settings);
        Ok(())
    }
}

impl GuestExchange for Dialogue {
    fn open(context: Context, request: String) -> Result<Exchange, ApiError> {
        let extra: Extra = serde_json::from_str(&context.extra)
            .map_err(|e| invalid_request(format!("the context cannot be read: {e}"), None))?;
        let permissions = Permissions {
            fetch_urls: extra.fetch_urls,
            show_reasoning: SETTINGS.get().reasoning,
        };
        let model = extra.resolved_model.unwrap_or(context.model);
        let request = ChatRequest::from_request(&request, &model, permissions)?;
        let exchange = exchange::Exchange::new(request);
        Ok(Exchange::new(Dialogue(RefCell::new(exchange))))
    }

    fn probe(_context: Context) -> Option<Exchange> {
        Some(Exchange::new(Dialogue(RefCell::new(
            exchange::Exchange::probe(),
        ))))
    }

    fn placeholders(&self) -> Vec<Placeholder> {
        self.0.borrow().placeholders()
    }

    fn history(&self) -> Option<Vec<u8>> {
        self.0.borrow().history()
    }

    fn start(&self) -> Vec<Effect> {
        self.0.borrow_mut().start()
    }

    fn resume(&self, memo: String) -> Vec<Effect> {
        self.0.borrow_mut().resume(&memo)
    }

    fn output(&self, piece: Vec<u8>) -> Vec<Effect> {
        self.0.borrow_mut().output(&piece)
    }

    fn exit(&self, status: Option<i32>, _stderr_tail: String) -> Vec<Effect> {
        self.0.borrow_mut().exit(status)
    }

    fn holding(&self) -> Option<Holding> {
        self.0.borrow().holding()
    }
}

#[allow(unsafe_code, reason = "the macro exports functions with fixed names")]
mod export {
    use super::ClaudeCode;
    crate::contract::export!(ClaudeCode with_types_in crate::contract);
}
