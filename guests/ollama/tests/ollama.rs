//! Calls of Ollama's API, and what clients read.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on shall fail where it stands"
)]

use guest_ollama::{Call, Settings};
use harness_guest::{
    ApiError, Content, Delta, Dialect, FinishReason, HttpRequest, OfferedModel, OpenedCall,
    OutputFormat, Request, Role, ToolCall, ToolCallDelta, outcome, testing,
};
use serde_json::{Value, json};

fn call(path: &str, body: &Value) -> Result<OpenedCall<Call>, ApiError> {
    let http = HttpRequest {
        method: "POST".into(),
        path: path.into(),
        query: None,
        headers: Vec::new(),
        body: body.to_string(),
        extra: None,
    };
    Call::open(&Settings::default(), testing::context(""), http)
}

fn completion(path: &str, body: &Value) -> (String, Request, Call) {
    match call(path, body).unwrap() {
        OpenedCall::Completion {
            model,
            request,
            call,
            ..
        } => (model, *request, call),
        other => panic!("{other:?}"),
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_chat_streams_lines_and_ends_with_its_counts() {
    let body = json!({"model": "m:latest", "messages": [{"role": "user", "content": "hi"}], "options": {"num_predict": 5, "mirostat": 1}});
    let (model, request, mut call) = completion("/api/chat", &body);
    assert_eq!(
        (&*model, request.max_tokens, request.stream),
        ("m", Some(5), true)
    );
    let head = call.begin().unwrap();
    assert_eq!(head.content_type, "application/x-ndjson");
    assert_eq!(head.headers[0].value, "options.mirostat");
    let pieces = lines(&call.take(
        0,
        vec![Delta::Content("Hel".into()), Delta::Reasoning("hm".into())],
    ));
    assert_eq!(pieces.len(), 1);
    assert_eq!(
        pieces[0]["message"],
        json!({"role": "assistant", "content": "Hel"})
    );
    assert_eq!(
        (&pieces[0]["model"], &pieces[0]["done"]),
        (&json!("m:latest"), &json!(false))
    );
    let mut end = outcome(FinishReason::Length);
    end.usage = Some(harness_guest::Usage {
        prompt_tokens: 3,
        completion_tokens: 4,
        cached_tokens: 0,
        cache_write_tokens: 0,
        reasoning_tokens: 0,
        cost_usd: None,
        extra: None,
    });
    assert_eq!(call.end_choice(0, end), "");
    let last = lines(&call.finish());
    assert_eq!(last.len(), 1);
    assert_eq!(
        (&last[0]["done"], &last[0]["done_reason"]),
        (&json!(true), &json!("length"))
    );
    assert_eq!(
        (&last[0]["prompt_eval_count"], &last[0]["eval_count"]),
        (&json!(3), &json!(4))
    );
}

#[test]
fn functions_are_called_and_their_results_find_their_calls() {
    let tool =
        json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
    let body = json!({"model": "m", "stream": false, "tools": [tool], "messages": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"function": {"name": "f", "arguments": {"a": 1}}},
            {"function": {"name": "g", "arguments": {}}},
        ]},
        {"role": "tool", "tool_name": "g", "content": "two"},
        {"role": "tool", "content": "one"},
    ]});
    let (_, request, mut call) = completion("/api/chat", &body);
    let [_, said, two, one] = &request.messages[..] else {
        panic!("{request:?}");
    };
    let ids: Vec<&str> = said
        .tool_calls
        .iter()
        .map(|call| match call {
            ToolCall::Function(call) => &*call.id,
            ToolCall::Other(_) => "?",
        })
        .collect();
    assert_eq!(
        ids,
        [
            one.tool_call_id.as_deref().unwrap(),
            two.tool_call_id.as_deref().unwrap()
        ]
    );
    assert!(said.content.is_none() && one.role == Role::Tool);
    assert!(call.begin().is_none());
    let piece = |id: Option<&str>, name: Option<&str>, arguments: &str| {
        Delta::ToolCall(ToolCallDelta {
            index: 0,
            id: id.map(str::to_owned),
            name: name.map(str::to_owned),
            arguments: arguments.into(),
        })
    };
    call.take(
        0,
        vec![
            piece(Some("c"), Some("f"), "{\"a\""),
            piece(None, None, ":1}"),
        ],
    );
    call.end_choice(0, outcome(FinishReason::ToolCalls));
    let whole: Value = serde_json::from_str(&call.finish()).unwrap();
    let expected =
        json!([{"id": "c", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}}]);
    assert_eq!(whole["message"]["tool_calls"], expected);
    let lost = json!({"model": "m", "messages": [{"role": "tool", "content": "x"}]});
    assert_eq!(
        call_error("/api/chat", &lost).param.as_deref(),
        Some("messages[0]")
    );
}

fn call_error(path: &str, body: &Value) -> ApiError {
    match call(path, body) {
        Err(error) => error,
        Ok(other) => panic!("{other:?}"),
    }
}

#[test]
fn a_text_is_generated_with_a_system_prompt_a_picture_and_a_schema() {
    let body = json!({"model": "m", "prompt": "what?", "system": "Be brief.", "images": ["iVBORw0"], "format": {"type": "object"}, "think": true});
    let (_, request, mut call) = completion("/api/generate", &body);
    assert!(matches!(&request.output_format, OutputFormat::JsonSchema(schema) if schema.strict));
    assert!(
        matches!(&request.messages[0].content, Some(Content::Text(text)) if text == "Be brief.")
    );
    let Some(Content::Parts(parts)) = &request.messages[1].content else {
        panic!("{request:?}");
    };
    assert!(format!("{parts:?}").contains("data:image/png;base64,iVBORw0"));
    let pieces = lines(&call.take(
        0,
        vec![Delta::Reasoning("hm".into()), Delta::Content("{}".into())],
    ));
    assert_eq!(
        (&pieces[0]["thinking"], &pieces[0]["response"]),
        (&json!("hm"), &json!(""))
    );
    assert_eq!(pieces[1]["response"], "{}");
}

#[test]
fn an_empty_prompt_loads_and_what_cannot_be_done_is_refused() {
    let OpenedCall::Reply(reply) = call("/api/generate", &json!({"model": "m"})).unwrap() else {
        panic!("no reply");
    };
    assert!(
        reply.body.contains("\"done_reason\":\"load\""),
        "{}",
        reply.body
    );
    for (path, body, param) in [
        (
            "/api/generate",
            json!({"model": "m", "prompt": "a", "raw": true}),
            "raw",
        ),
        (
            "/api/chat",
            json!({"model": "m", "messages": [{"role": "king", "content": "x"}]}),
            "messages[0].role",
        ),
        (
            "/api/generate",
            json!({"model": "m", "prompt": "a", "format": 5}),
            "format",
        ),
    ] {
        assert_eq!(
            call_error(path, &body).param.as_deref(),
            Some(param),
            "{body}"
        );
    }
}

#[test]
fn models_are_listed_with_and_without_latest() {
    let models = || {
        vec![OfferedModel {
            id: "claude-haiku".into(),
            owner: "claude".into(),
            context_length: Some(200_000),
            extra: None,
        }]
    };
    let listed = |path: &str, body: Value| match call(path, &body).unwrap() {
        OpenedCall::Models(mut call) => {
            let reply = call.list_models(models());
            (
                reply.status,
                serde_json::from_str::<Value>(&reply.body).unwrap(),
            )
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(
        listed("/api/tags", json!({})).1["models"][0]["name"],
        "claude-haiku:latest"
    );
    for name in ["claude-haiku", "claude-haiku:latest"] {
        let (status, shown) = listed("/api/show", json!({"model": name}));
        assert_eq!(
            (status, &shown["model_info"]["claude.context_length"]),
            (200, &json!(200_000))
        );
    }
    assert_eq!(listed("/api/show", json!({"name": "x"})).0, 404);
}
