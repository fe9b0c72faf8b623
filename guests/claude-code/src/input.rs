//! The lines written to the CLI.
//!
//! The host checks each against its schema for the CLI's standard input, and adds what keeps a
//! prompt from being taken for a command.

use serde_json::{Value, json};

use crate::conversation::{Speaker, Turn};

/// The id of the `initialize` request, to know its answer by.
pub const INITIALIZE: &str = "initialize";

/// Opens the session. Without a system prompt of the client's, an empty one takes the place of
/// the CLI's own of 70 KB; several are one with blank lines between, as the CLI itself has them.
pub fn initialize(system: &[String]) -> Vec<u8> {
    line(json!({
        "type": "control_request",
        "request_id": INITIALIZE,
        "request": {"subtype": "initialize", "systemPrompt": [system.join("\n\n")]},
    }))
}

/// A turn of the history: appended to the session without an answer. A user's is acknowledged
/// by an empty `result`, an assistant's by nothing.
pub fn history(turn: &Turn) -> Vec<u8> {
    match turn.speaker {
        Speaker::User => line(json!({
            "type": "user",
            "shouldQuery": false,
            "message": {"role": "user", "content": blocks(&turn.texts)},
        })),
        Speaker::Assistant => line(json!({
            "type": "assistant",
            "message": {"role": "assistant", "content": blocks(&turn.texts)},
        })),
    }
}

/// The turn that wants an answer.
pub fn question(turn: &Turn) -> Vec<u8> {
    line(json!({
        "type": "user",
        "message": {"role": "user", "content": blocks(&turn.texts)},
    }))
}

fn blocks(texts: &[String]) -> Vec<Value> {
    texts
        .iter()
        .map(|text| json!({"type": "text", "text": text}))
        .collect()
}

fn line(value: Value) -> Vec<u8> {
    let mut bytes = value.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}
