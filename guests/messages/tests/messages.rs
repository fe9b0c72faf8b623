//! Calls of Anthropic's Messages API, and what clients read.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on shall fail where it stands"
)]

use guest_messages::answer::Answer;
use guest_messages::request::{Read, estimate, read};
use harness_guest::{
    Content, Delta, FinishReason, Part, Role, ToolCall, ToolCallDelta, ToolChoice, Usage, outcome,
    testing,
};
use serde_json::{Value, json};

fn of(body: &Value) -> Read {
    read(&body.to_string()).unwrap()
}

fn answer(read: &Read) -> Answer {
    let mut context = testing::context("");
    context.id = "req_1".into();
    let mut answer = Answer::new(&context, read);
    answer.begin();
    answer
}

fn events(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

#[test]
fn every_kind_of_block_becomes_what_chat_completions_have() {
    let body = json!({
        "model": "m", "max_tokens": 100, "stop_sequences": ["X"],
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
        "thinking": {"type": "enabled", "budget_tokens": 5000},
        "messages": [
            {"role": "user", "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "document", "title": "a.pdf", "source": {"type": "base64", "media_type": "application/pdf", "data": "BBBB"}},
                {"type": "text", "text": "what?"},
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "rain", "is_error": true},
                {"type": "text", "text": "and?"},
            ]},
        ],
    });
    let read = of(&body);
    let request = &read.request;
    let roles: Vec<Role> = request
        .messages
        .iter()
        .map(|message| message.role)
        .collect();
    assert_eq!(
        roles,
        [
            Role::System,
            Role::User,
            Role::Assistant,
            Role::Tool,
            Role::User
        ]
    );
    let Some(Content::Parts(parts)) = &request.messages[1].content else {
        panic!("{request:?}");
    };
    assert!(
        matches!(&parts[..], [Part::Image(image), Part::File(file), Part::Text(_)]
        if image.url == "data:image/png;base64,AAAA" && file.filename.as_deref() == Some("a.pdf"))
    );
    let said = &request.messages[2];
    assert!(matches!(&said.content, Some(Content::Text(text)) if text == "I look."));
    assert!(
        matches!(&said.tool_calls[..], [ToolCall::Function(call)] if call.arguments == "{\"a\":1}")
    );
    let result = &request.messages[3];
    assert_eq!(result.tool_call_id.as_deref(), Some("t1"));
    assert!(format!("{:?}", result.content).contains("The call failed:"));
    assert!(matches!(request.tool_choice, Some(ToolChoice::Required)));
    assert_eq!(request.parallel_tool_calls, Some(false));
    assert_eq!(request.reasoning_effort.as_deref(), Some("medium"));
    assert_eq!(
        (request.max_tokens, &request.stop[..]),
        (Some(100), &["X".to_owned()][..])
    );
    assert!(read.thinks && estimate(&body.to_string()).unwrap() > 3000);
}

#[test]
fn the_events_of_a_stream_are_in_their_order() {
    let read = of(
        &json!({"model": "m", "stream": true, "thinking": {"type": "enabled"}, "messages": [{"role": "user", "content": "hi"}]}),
    );
    let mut answer = answer(&read);
    let call = |id: Option<&str>, arguments: &str| {
        Delta::ToolCall(ToolCallDelta {
            index: 0,
            id: id.map(str::to_owned),
            name: id.map(|_| "f".to_owned()),
            arguments: arguments.into(),
        })
    };
    let mut text = answer.take(vec![
        Delta::Reasoning("hm".into()),
        Delta::Content("a".into()),
    ]);
    text += &answer.take(vec![
        Delta::Content("b".into()),
        call(Some("t1"), ""),
        call(None, "{}"),
    ]);
    let mut end = outcome(FinishReason::ToolCalls);
    end.usage = Some(Usage {
        prompt_tokens: 10,
        completion_tokens: 4,
        cached_tokens: 3,
        cache_write_tokens: 2,
        reasoning_tokens: 0,
        cost_usd: None,
        extra: None,
    });
    answer.ended(&end);
    text += &answer.finish();
    let events = events(&text);
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    assert_eq!(events[0]["message"]["id"], "msg_1");
    assert_eq!(
        events[8]["content_block"],
        json!({"type": "tool_use", "id": "t1", "name": "f", "input": {}})
    );
    assert_eq!(events[11]["delta"]["stop_reason"], "tool_use");
    let usage = json!({"input_tokens": 5, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 3, "output_tokens": 4});
    assert_eq!(events[11]["usage"], usage);
}

#[test]
fn a_message_comes_whole() {
    let read = of(&json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]}));
    let mut answer = answer(&read);
    assert_eq!(
        answer.take(vec![
            Delta::Reasoning("hm".into()),
            Delta::Content("a".into())
        ]),
        ""
    );
    answer.ended(&outcome(FinishReason::Length));
    let whole: Value = serde_json::from_str(&answer.finish()).unwrap();
    assert_eq!(whole["content"], json!([{"type": "text", "text": "a"}]));
    assert_eq!(
        (&whole["stop_reason"], &whole["type"]),
        (&json!("max_tokens"), &json!("message"))
    );
}

#[test]
fn what_is_wrong_is_named() {
    let message = json!({"role": "user", "content": "hi"});
    for (body, param) in [
        (json!({"messages": [message]}), "model"),
        (
            json!({"model": "m", "messages": [{"role": "king", "content": "x"}]}),
            "messages.0.role",
        ),
        (
            json!({"model": "m", "messages": [{"role": "user", "content": [{"type": "video"}]}]}),
            "messages.0.content.0",
        ),
        (
            json!({"model": "m", "messages": [message], "tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
            "tools.0",
        ),
        (
            json!({"model": "m", "messages": [message], "tool_choice": {"type": "some"}}),
            "tool_choice",
        ),
    ] {
        let error = read(&body.to_string()).unwrap_err();
        assert_eq!(
            error.param.as_deref(),
            Some(param),
            "{body}: {}",
            error.message
        );
    }
}
