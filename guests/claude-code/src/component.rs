//! The glue that makes a WebAssembly component of [`crate::exchange`].

use std::cell::RefCell;

use crate::contract::adapter::{Description, Effect, Exchange, Guest, GuestExchange, Placeholder};
use crate::contract::types::{ApiError, Context};
use crate::conversation::Conversation;
use crate::exchange;

struct ClaudeCode;

struct Dialogue(RefCell<exchange::Exchange>);

impl Guest for ClaudeCode {
    type Exchange = Dialogue;

    fn describe() -> Description {
        Description {
            name: "claude-code".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Claude Code's stream-json protocol, with true history".into(),
            config_schema: r#"{"type":"object","additionalProperties":false}"#.into(),
            extra: "{}".into(),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        match serde_json::from_str::<serde_json::Map<_, _>>(&config) {
            Ok(map) => match map.keys().next() {
                None => Ok(()),
                Some(key) => Err(format!(
                    "`{key}` is unknown: this guest has no settings, remove it"
                )),
            },
            Err(e) => Err(format!("the configuration must be a JSON object: {e}")),
        }
    }
}

impl GuestExchange for Dialogue {
    fn open(_context: Context, request: String) -> Result<Exchange, ApiError> {
        let conversation = Conversation::from_request(&request)?;
        let exchange = exchange::Exchange::new(conversation);
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

    fn start(&self) -> Vec<Effect> {
        self.0.borrow_mut().start()
    }

    fn output(&self, piece: Vec<u8>) -> Vec<Effect> {
        self.0.borrow_mut().output(&piece)
    }

    fn exit(&self, status: Option<i32>, _stderr_tail: String) -> Vec<Effect> {
        self.0.borrow_mut().exit(status)
    }
}

#[allow(unsafe_code, reason = "the macro exports functions with fixed names")]
mod export {
    use super::ClaudeCode;
    crate::contract::export!(ClaudeCode with_types_in crate::contract);
}
