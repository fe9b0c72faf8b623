//! What a process holds after an answer, and how another request goes on in it.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on shall fail where it stands"
)]

use guest_claude_code::exchange::Exchange;
use guest_claude_code::request::{ChatRequest, Permissions};
use harness_guest::{Effect, Resumption, testing};
use serde_json::{Value, json};

const PERMISSIONS: Permissions = Permissions {
    fetch_urls: false,
    show_reasoning: false,
};

fn exchange(messages: &Value) -> Exchange {
    let weather = json!({"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}});
    let request = json!({"model": "claude-sonnet", "messages": messages, "tools": [weather]});
    let request =
        ChatRequest::from_request(testing::request(&request), "sonnet", PERMISSIONS).unwrap();
    Exchange::new(request, "chatcmpl-1")
}

/// A line of the CLI that asks for the result of a call.
fn asks_for(request: &str, call: &str) -> String {
    let message = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call",
        "params": {"name": "get_weather", "arguments": {}, "_meta": {"claudecode/toolUseId": call}}});
    json!({"type": "control_request", "request_id": request,
        "request": {"subtype": "mcp_message", "server_name": "client", "message": message}})
    .to_string()
}

fn event(event: &Value) -> String {
    json!({"type": "stream_event", "event": event, "parent_tool_use_id": null}).to_string()
}

/// The request with the result of a call, in the process that made the call and waits for its result.
fn with_the_result() -> Exchange {
    let question = json!({"role": "user", "content": "What is the weather?"});
    let mut asked = exchange(&json!([question]));
    asked.start();
    let call = json!({"type": "tool_use", "id": "toolu_1", "name": "mcp__client__get_weather", "input": {}});
    let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-fake-1",
        "content": [], "usage": {"input_tokens": 1, "output_tokens": 1}});
    for line in [
        event(&json!({"type": "message_start", "message": message})),
        event(&json!({"type": "content_block_start", "index": 0, "content_block": call})),
        event(&json!({"type": "content_block_stop", "index": 0})),
        event(
            &json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 1}}),
        ),
        event(&json!({"type": "message_stop"})),
        asks_for("request-2", "toolu_1"),
    ] {
        asked.output(&line);
    }
    let held = asked.hold().unwrap();
    assert_eq!(held.awaited, ["toolu_1"]);

    let call = json!({"id": "toolu_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}});
    let mut brings = exchange(&json!([
        question,
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "rain"},
    ]));
    let effects = brings.resume(&Resumption {
        memo: held.memo,
        kept: 1,
        rewinds: Vec::new(),
    });
    assert!(
        matches!(&effects[..], [Effect::Write(result)] if result.contains("request-2") && result.contains("rain"))
    );
    brings
}

fn no_longer_waits(request: &str) -> String {
    json!({"type": "control_cancel_request", "request_id": request}).to_string()
}

#[test]
fn a_process_that_no_longer_waits_for_a_result_is_of_no_use() {
    let effects = with_the_result().output(&no_longer_waits("request-2"));
    assert!(matches!(&effects[..], [Effect::Unfit(why)] if why.contains("waits no longer")));
}

#[test]
fn that_it_no_longer_waits_for_a_call_of_a_turn_that_was_taken_back_may_come_late() {
    let mut brings = with_the_result();
    assert!(brings.output(&no_longer_waits("request-1")).is_empty());
}
