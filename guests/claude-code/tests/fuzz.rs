//! Whatever clients send and whatever the CLI prints, the adapter answers: it never panics, which
//! would be a trap, and its effects stay in order.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on shall fail where it stands"
)]

use guest_claude_code::exchange::Exchange;
use guest_claude_code::request::{ChatRequest, Permissions};
use harness_guest::{Delta, Effect, testing};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Words that mean something somewhere.
const WORDS: [&str; 30] = [
    "",
    "x",
    "user",
    "assistant",
    "tool",
    "system",
    "function",
    "text",
    "image_url",
    "file",
    "refusal",
    "tool_use",
    "tool_result",
    "thinking",
    "StructuredOutput",
    "mcp__client__f",
    "f",
    "call_1",
    "{}",
    "{\"a\":",
    "end_turn",
    "max_tokens",
    "data:image/png;base64,iVBORw0KGgo=",
    "data:,",
    "https://a.b/c",
    "object",
    "#/$defs/a",
    "/cost",
    "\u{0}\u{2028}\u{1f600}",
    "initialize",
];

/// Keys of requests, schemas and lines.
const KEYS: [&str; 40] = [
    "type",
    "role",
    "content",
    "text",
    "tool_calls",
    "id",
    "function",
    "name",
    "arguments",
    "tool_call_id",
    "image_url",
    "url",
    "file",
    "file_data",
    "parameters",
    "properties",
    "$ref",
    "$defs",
    "a",
    "anyOf",
    "items",
    "prefixItems",
    "format",
    "json_schema",
    "schema",
    "message",
    "event",
    "index",
    "delta",
    "partial_json",
    "content_block",
    "usage",
    "output_tokens",
    "stop_reason",
    "is_error",
    "tool_use_id",
    "request",
    "subtype",
    "request_id",
    "method",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![4 => prop::sample::select(&WORDS[..]).prop_map(str::to_owned), 1 => ".{0,12}"]
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![8 => prop::sample::select(&KEYS[..]).prop_map(str::to_owned), 1 => ".{0,8}"]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..6)
                .prop_map(|fields| Value::from(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// A message of nearly the right shape.
fn message() -> impl Strategy<Value = Value> {
    let call = (word(), word(), word())
        .prop_map(|(id, name, arguments)| json!({"id": id, "function": {"name": name, "arguments": arguments}}));
    (word(), any_json(), prop::collection::vec(call, 0..3), word()).prop_map(|(role, content, calls, id)| {
        json!({"role": role, "content": content, "tool_calls": calls, "tool_call_id": id})
    })
}

fn request() -> impl Strategy<Value = Value> {
    let messages = prop::collection::vec(prop_oneof![3 => message(), 1 => any_json()], 0..6);
    (messages, any_json(), any_json(), any_json(), any_json()).prop_map(
        |(messages, tools, choice, format, stop)| {
            json!({"messages": messages, "tools": tools, "tool_choice": choice, "response_format": format, "stop": stop})
        },
    )
}

/// A line of nearly the right shape.
fn line() -> impl Strategy<Value = Value> {
    const EVENTS: [&str; 5] = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
    ];
    let event = (prop::sample::select(&EVENTS[..]), any_json(), any_json(), word(), word()).prop_map(
        |(kind, delta, usage, block, name)| {
            let block = json!({"type": block, "id": "toolu_1", "name": name});
            let delta = match kind {
                "content_block_delta" => json!({"text": block["type"]}),
                _ => delta,
            };
            json!({"type": "stream_event", "event": {"type": kind, "content_block": block, "delta": delta, "usage": usage}})
        },
    );
    const OTHERS: [&str; 7] = [
        "assistant",
        "user",
        "result",
        "system",
        "control_request",
        "control_response",
        "rate_limit_event",
    ];
    let other = (prop::sample::select(&OTHERS[..]), any_json()).prop_map(|(kind, rest)| {
        let mut line = rest.as_object().cloned().unwrap_or_default();
        line.insert("type".into(), kind.into());
        Value::from(line)
    });
    prop_oneof![4 => event, 3 => other, 1 => any_json()]
}

fn requests() -> Vec<ChatRequest> {
    let tools =
        json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    let schema = json!({"type": "json_schema", "json_schema": {"schema": {"type": "object"}}});
    let messages = json!([{"role": "user", "content": "hi"}]);
    let requests = [
        json!({"messages": messages}),
        json!({"messages": messages, "tools": tools, "stop": ["x", "end"], "stream": true}),
        json!({"messages": messages, "tools": tools, "tool_choice": "required"}),
        json!({"messages": messages, "response_format": schema, "stream": true}),
        json!({"messages": messages, "response_format": schema}),
        json!({"messages": messages, "response_format": {"type": "json_object"}}),
    ];
    requests
        .iter()
        .map(|request| read(request).unwrap())
        .collect()
}

fn read(request: &Value) -> Option<ChatRequest> {
    let permissions = Permissions {
        fetch_urls: true,
        show_reasoning: true,
    };
    ChatRequest::from_request(testing::request(request), "sonnet", permissions).ok()
}

/// Nothing comes after an end, and calls are numbered without gaps.
fn check(effects: &[Effect]) {
    let is_end = |effect: &Effect| matches!(effect, Effect::Finish(_) | Effect::Fail(_));
    let ends = effects.iter().filter(|effect| is_end(effect)).count();
    assert!(
        ends <= 1
            && effects
                .iter()
                .take(effects.len().max(1) - 1)
                .all(|e| !is_end(e))
    );
    let mut calls = 0;
    for effect in effects {
        if let Effect::Emit(Delta::ToolCall(call)) = effect {
            assert!(call.index < calls || (call.index == calls && call.id.is_some()));
            calls = calls.max(call.index + 1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_request_is_read_or_refused(request in request()) {
        if let Some(request) = read(&request) {
            let mut exchange = Exchange::new(request, "chatcmpl-1");
            let mut effects = exchange.start();
            effects.extend(exchange.output("{\"type\":\"result\"}"));
            check(&effects);
        }
    }

    #[test]
    fn any_output_is_taken(lines in prop::collection::vec(line(), 0..12), request in 0..6_usize) {
        let mut exchange = Exchange::new(requests().swap_remove(request), "chatcmpl-1");
        let mut effects = exchange.start();
        for line in &lines {
            effects.extend(exchange.output(&line.to_string()));
        }
        if !effects.iter().any(|e| matches!(e, Effect::Finish(_) | Effect::Fail(_))) {
            effects.extend(exchange.exit(Some(1)));
        }
        check(&effects);
    }

    #[test]
    fn any_text_is_taken(text in ".{0,200}") {
        let mut exchange = Exchange::new(requests().swap_remove(0), "chatcmpl-1");
        check(&exchange.output(&text));
    }
}
