//! The lines written to the CLI.
//!
//! The host checks each against its schema for the CLI's standard input, and adds what keeps a
//! prompt from being taken for a command.

use serde::Serialize;
use serde_json::{Value, json};

use crate::block::{Block, Source};
use crate::conversation::{Speaker, Turn};
use crate::functions::{Functions, SERVER};
use crate::line::McpMessage;
use crate::request::{Format, OutputSpec};

/// The id of the `initialize` request, to know its answer by.
pub const INITIALIZE: &str = "initialize";

/// The id of the request to end the turn.
pub const INTERRUPT: &str = "interrupt";

/// JSON-RPC's code for a method that is not there.
const METHOD_NOT_FOUND: i32 = -32601;

/// Opens the session. Without a system prompt of the client's, an empty one takes the place of
/// the CLI's own of 70 KB; several are one with blank lines between, as the CLI itself has them.
pub fn initialize(system: &[String], spec: &OutputSpec) -> String {
    let mut request = json!({"subtype": "initialize", "systemPrompt": [system.join("\n\n")]});
    if !spec.functions.declared.is_empty() {
        request["sdkMcpServers"] = json!([SERVER]);
    }
    if let Format::Schema(schema) = &spec.format {
        request["jsonSchema"] = schema.clone();
    }
    line(&json!({"type": "control_request", "request_id": INITIALIZE, "request": request}))
}

/// Ends the turn that runs.
pub fn interrupt() -> String {
    ask(INTERRUPT, "interrupt")
}

/// Asks for something that needs no more than its name.
pub fn ask(request_id: &str, subtype: &str) -> String {
    let request = json!({"subtype": subtype});
    line(&json!({"type": "control_request", "request_id": request_id, "request": request}))
}

/// Asks how much of the plan is used. Without `skip_behaviors` the CLI reads its transcripts of seven days first.
pub fn usage(request_id: &str) -> String {
    let request = json!({"subtype": "get_usage", "skip_behaviors": true});
    line(&json!({"type": "control_request", "request_id": request_id, "request": request}))
}

/// A turn of the history: appended to the session without an answer. A user's is acknowledged
/// by an empty `result`, an assistant's by nothing.
///
/// `number` becomes the id of an assistant's message. It needs one: 2.1.197 takes all messages without an id for
/// parts of one message, and so joins the texts before and after a function's result.
///
/// `uuid` is the id of a user's message, by which it can be taken back.
pub fn history(turn: &Turn, number: usize, uuid: Option<String>) -> String {
    let (role, should_query, id) = match turn.speaker {
        Speaker::User => ("user", Some(false), None),
        Speaker::Assistant => ("assistant", None, Some(format!("msg_{number}"))),
    };
    line(&MessageLine {
        r#type: role,
        uuid,
        should_query,
        message: Message {
            id,
            role,
            content: &turn.blocks,
        },
    })
}

/// The turn that is to be answered. `uuid` is its id, by which it can be taken back.
pub fn question(blocks: &[Block], uuid: Option<String>) -> String {
    line(&MessageLine {
        r#type: "user",
        uuid,
        should_query: None,
        message: Message {
            id: None,
            role: "user",
            content: blocks,
        },
    })
}

/// Takes back the user's message with this id, and all behind it. `interrupts` is whether the process may be in the
/// middle of the turn.
pub fn rewind(request_id: &str, uuid: &str, interrupts: bool) -> String {
    let mut request = json!({"subtype": "rewind_conversation", "target_message_uuid": uuid});
    if interrupts {
        request["interrupt_if_running"] = true.into();
    }
    line(&json!({"type": "control_request", "request_id": request_id, "request": request}))
}

/// A line with a message of the conversation, in the shape in which it is written.
#[derive(Serialize)]
struct MessageLine<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<String>,
    #[serde(rename = "shouldQuery", skip_serializing_if = "Option::is_none")]
    should_query: Option<bool>,
    message: Message<'a>,
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    role: &'static str,
    content: &'a [Block],
}

/// What the MCP server with the client's functions says to `message`, which the CLI sent in the
/// request `request_id`.
pub fn mcp_answer(request_id: &str, message: &McpMessage, functions: &Functions) -> String {
    let result = match &*message.method {
        "initialize" => json!({
            "protocolVersion": message.params.protocol_version,
            "capabilities": {"tools": {}},
            "serverInfo": {"name": SERVER, "version": env!("CARGO_PKG_VERSION")},
        }),
        "tools/list" => functions.listed(),
        "ping" => json!({}),
        method if method.starts_with("notifications/") => json!({}),
        _ => {
            let error = json!({"code": METHOD_NOT_FOUND, "message": "there is no such method"});
            return mcp(request_id, message, "error", error);
        }
    };
    mcp(request_id, message, "result", result)
}

/// Tells the model, as the result of its call, that it may not call.
pub fn call_refused(request_id: &str, message: &McpMessage) -> String {
    let text = "No tool may be called now: answer in words.";
    let result = json!({"content": [{"type": "text", "text": text}], "isError": true});
    mcp(request_id, message, "result", result)
}

/// The result of a call: texts and pictures.
pub fn call_result(request_id: &str, message: &McpMessage, content: &[Block]) -> String {
    let content = content.iter().filter_map(|block| match block {
        Block::Text { text } => Some(json!({"type": "text", "text": text})),
        Block::Image {
            source: Source::Base64 { media_type, data },
        } => Some(json!({"type": "image", "data": data, "mimeType": media_type})),
        _ => None,
    });
    let result = json!({"content": content.collect::<Vec<_>>()});
    mcp(request_id, message, "result", result)
}

fn mcp(request_id: &str, message: &McpMessage, key: &str, value: Value) -> String {
    // A notification has no id; the CLI wants an answer all the same.
    let id = message.id.clone().unwrap_or(0.into());
    let mut answer = json!({"jsonrpc": "2.0", "id": id});
    answer[key] = value;
    line(&json!({
        "type": "control_response",
        "response": {
            "subtype": "success",
            "request_id": request_id,
            "response": {"mcp_response": answer},
        },
    }))
}

/// Turns down a control request of the CLI's: there is nobody to ask.
pub fn refusal(request_id: &str) -> String {
    line(&json!({
        "type": "control_response",
        "response": {"subtype": "error", "request_id": request_id, "error": "not supported"},
    }))
}

fn line(value: &impl Serialize) -> String {
    // This cannot fail: JSON needs strings as keys, and all maps here have them.
    serde_json::to_string(value).unwrap_or_default()
}
