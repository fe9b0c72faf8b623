//! Calls of OpenAI's Responses API, and what clients read.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on shall fail where it stands"
)]

use guest_responses::Settings;
use guest_responses::answer::Answer;
use guest_responses::request::{Read, read};
use harness_guest::{
    Content, Delta, FinishReason, OutputFormat, Part, Role, Tool, ToolCall, ToolCallDelta,
    ToolChoice, Usage, outcome, testing,
};
use serde_json::{Value, json};

fn of(body: &Value) -> Read {
    read(&body.to_string(), &Settings::default()).unwrap()
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

fn call(id: Option<&str>, name: &str, arguments: &str) -> Delta {
    Delta::ToolCall(ToolCallDelta {
        index: 0,
        id: id.map(str::to_owned),
        name: id.map(|_| name.to_owned()),
        arguments: arguments.into(),
    })
}

#[test]
fn items_become_messages() {
    let body = json!({
        "model": "m", "instructions": "Be brief.", "max_output_tokens": 9,
        "reasoning": {"effort": "high", "summary": "auto"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": true}},
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": "data:image/png;base64,AA"}]},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        ],
    });
    let read = of(&body);
    let roles: Vec<Role> = read
        .request
        .messages
        .iter()
        .map(|message| message.role)
        .collect();
    assert_eq!(
        roles,
        [Role::System, Role::User, Role::Assistant, Role::Tool]
    );
    assert!(
        matches!(&read.request.messages[1].content, Some(Content::Parts(parts)) if matches!(parts[1], Part::Image(_)))
    );
    assert_eq!(read.request.messages[2].tool_calls.len(), 2);
    assert_eq!(read.request.messages[3].tool_call_id.as_deref(), Some("c1"));
    assert!(
        matches!(&read.request.output_format, OutputFormat::JsonSchema(schema) if schema.strict)
    );
    assert_eq!(read.request.reasoning_effort.as_deref(), Some("high"));
    assert!(read.summarizes);
}

#[test]
fn custom_tools_and_namespaces_become_functions_and_come_back() {
    let tools = json!([
        {"type": "custom", "name": "patch", "description": "d", "format": {"type": "grammar", "definition": "start: X"}},
        {"type": "namespace", "name": "mcp__files", "tools": [{"type": "function", "name": "read", "parameters": {"type": "object"}}]},
    ]);
    let body = json!({"model": "m", "stream": true, "tools": tools, "tool_choice": {"type": "custom", "name": "patch"}, "input": [
        {"role": "user", "content": "hi"},
        {"type": "custom_tool_call", "call_id": "c0", "name": "patch", "input": "text"},
        {"type": "custom_tool_call_output", "call_id": "c0", "output": "ok"},
    ]});
    let read = of(&body);
    let names: Vec<&str> = read
        .request
        .tools
        .iter()
        .map(|tool| match tool {
            Tool::Function(function) => &*function.name,
            Tool::Other(_) => "?",
        })
        .collect();
    assert_eq!(names, ["patch", "mcp__files__read"]);
    assert!(
        matches!(&read.request.tool_choice, Some(ToolChoice::Function(name)) if name == "patch")
    );
    assert!(
        matches!(&read.request.messages[1].tool_calls[..], [ToolCall::Function(call)] if call.arguments == r#"{"input":"text"}"#)
    );
    let mut answer = answer(&read);
    let mut text = answer.take(vec![
        call(Some("c1"), "patch", r#"{"input":"#),
        call(None, "", r#""new"}"#),
    ]);
    answer.ended(&outcome(FinishReason::ToolCalls));
    text += &answer.finish();
    let last = events(&text).pop().unwrap();
    let item = &last["response"]["output"][0];
    assert_eq!(
        (&item["type"], &item["input"], &item["call_id"]),
        (&json!("custom_tool_call"), &json!("new"), &json!("c1"))
    );
    let mut answer = self::answer(&read);
    answer.take(vec![call(Some("c2"), "mcp__files__read", "{}")]);
    answer.ended(&outcome(FinishReason::ToolCalls));
    let last = events(&answer.finish()).pop().unwrap();
    let item = &last["response"]["output"][0];
    assert_eq!(
        (&item["namespace"], &item["name"]),
        (&json!("mcp__files"), &json!("read"))
    );
}

#[test]
fn the_events_of_a_stream_are_numbered_and_in_their_order() {
    let read =
        of(&json!({"model": "m", "stream": true, "input": "hi", "reasoning": {"summary": "auto"}}));
    let mut answer = answer(&read);
    let mut text = answer.take(vec![
        Delta::Reasoning(String::new()),
        Delta::Reasoning("hm".into()),
        Delta::Content("a".into()),
    ]);
    text += &answer.take(vec![Delta::Content("b".into()), call(Some("c"), "f", "{}")]);
    let mut end = outcome(FinishReason::ToolCalls);
    end.usage = Some(Usage {
        prompt_tokens: 10,
        completion_tokens: 4,
        cached_tokens: 3,
        cache_write_tokens: 0,
        reasoning_tokens: 2,
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
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.done",
            "response.reasoning_summary_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let numbers: Vec<u64> = events
        .iter()
        .map(|event| event["sequence_number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (0..20).collect::<Vec<u64>>());
    assert_eq!(events[12]["text"], "ab");
    let response = &events[19]["response"];
    assert_eq!(
        (&response["id"], &response["status"]),
        (&json!("resp_1"), &json!("completed"))
    );
    assert_eq!(
        response["usage"]["output_tokens_details"]["reasoning_tokens"],
        2
    );
    assert_eq!(response["output"].as_array().unwrap().len(), 3);
}

#[test]
fn a_response_that_was_cut_says_why() {
    let read = of(&json!({"model": "m", "input": "hi"}));
    let mut answer = answer(&read);
    assert_eq!(answer.take(vec![Delta::Content("a".into())]), "");
    answer.ended(&outcome(FinishReason::Length));
    let whole: Value = serde_json::from_str(&answer.finish()).unwrap();
    assert_eq!(
        (&whole["status"], &whole["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
    assert_eq!(whole["output"][0]["content"][0]["text"], "a");
    assert_eq!(whole["store"], false);
}

#[test]
fn what_needs_memory_or_is_not_there_is_refused_by_its_name() {
    for (body, param) in [
        (
            json!({"model": "m", "input": "a", "previous_response_id": "x"}),
            "previous_response_id",
        ),
        (json!({"model": "m", "input": "a", "store": true}), "store"),
        (
            json!({"model": "m", "input": "a", "background": true}),
            "background",
        ),
        (
            json!({"model": "m", "input": "a", "tools": [{"type": "web_search"}]}),
            "tools[0]",
        ),
        (
            json!({"model": "m", "input": [{"type": "item_reference", "id": "x"}]}),
            "input[0]",
        ),
        (
            json!({"model": "m", "input": [{"role": "king", "content": "x"}]}),
            "input[0].role",
        ),
        (json!({"model": "m", "input": []}), "input"),
        (json!({"input": "a"}), "model"),
    ] {
        let error = read(&body.to_string(), &Settings::default()).unwrap_err();
        assert_eq!(
            error.param.as_deref(),
            Some(param),
            "{body}: {}",
            error.message
        );
    }
    let settings = Settings {
        ignore_server_tools: true,
    };
    let body = json!({"model": "m", "input": "a", "tools": [{"type": "web_search"}]});
    assert!(
        read(&body.to_string(), &settings)
            .unwrap()
            .request
            .tools
            .is_empty()
    );
}
