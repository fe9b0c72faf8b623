//! Bad and enormous input: a right answer, or an error that names the field.

use std::time::Duration;

use harness_tests::host::Host;
use serde_json::{Value, json};

use crate::cli::{ONE_AT_A_TIME, user, versions};

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_its_field() {
    let host = Host::start("");
    let ask = json!({"role": "user", "content": "x"});
    let call = |id: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": arguments}});
    let called = |calls: Value| json!({"role": "assistant", "content": null, "tool_calls": calls});
    let result = json!({"role": "tool", "tool_call_id": "a", "content": "r"});
    let image = |url: &str| json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]);
    let schema = |schema: Value| json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    let messages = [
        (json!([ask, result]), "messages[1].tool_call_id"),
        (
            json!([ask, called(json!([call("a", "{}")]))]),
            "messages[1].tool_calls",
        ),
        (
            json!([ask, called(json!([call("a", "{}")])), ask]),
            "messages[1].tool_calls",
        ),
        (
            json!([
                ask,
                called(json!([call("a", "{}"), call("a", "{}")])),
                result
            ]),
            "messages[1].tool_calls[1].id",
        ),
        (
            json!([
                ask,
                called(json!([call(
                    "a",
                    &format!("{}1{}", "{\"a\":".repeat(120), "}".repeat(120))
                )])),
                result
            ]),
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            image("data:image/png;base64,aGVsbG8="),
            "messages[0].content[0].image_url.url",
        ),
        (
            image("http://169.254.169.254/latest"),
            "messages[0].content[0].image_url.url",
        ),
    ];
    let fields = [
        (
            "response_format",
            schema(json!({"type": "objekt"})),
            "response_format.json_schema.schema",
        ),
        (
            "response_format",
            schema(json!({"type": "array"})),
            "response_format.json_schema.schema",
        ),
        (
            "tools",
            json!([{"type": "function", "function": {"name": "a b"}}]),
            "tools[0].function.name",
        ),
        (
            "tools",
            json!([{"type": "function", "function": {"name": "f", "parameters": {"type": 5}}}]),
            "tools[0].function.parameters",
        ),
        (
            "tools",
            json!([{"type": "function", "function": {"name": "f\u{0}"}}]),
            "tools[0].function.name",
        ),
        ("tool_choice", json!("required"), "tool_choice"),
        ("max_tokens", json!(0), "max_tokens"),
        ("n", json!(99_999), "n"),
        ("stop", json!([1]), "stop"),
        ("temperature", json!("hot"), "temperature"),
    ];
    let whole = messages.map(|(messages, at)| (json!({"model": "demo", "messages": messages}), at));
    let single = fields.map(|(key, value, at)| {
        let mut body = json!({"model": "demo", "messages": [ask]});
        body[key] = value;
        (body, at)
    });
    for (body, at) in whole.into_iter().chain(single) {
        let (status, answer) = host.post(&body).await;
        assert_eq!(
            (status, &answer["error"]["param"]),
            (400, &json!(at)),
            "{body}: {answer}"
        );
    }
    let raw: [&[u8]; 3] = [
        br#"{"model":"demo","messages":[{"role":"user","content":"\ud800"}]}"#,
        b"{\"model\":\"demo\xff\"}",
        b"{\"n\":1e999}",
    ];
    for raw in raw {
        let request = host
            .client()
            .post(host.url("/v1/chat/completions"))
            .body(raw.to_vec());
        assert_eq!(request.send().await.unwrap().status(), 400);
    }
}

#[tokio::test]
async fn two_thousand_messages_are_answered() {
    let host = Host::start("");
    let mut messages: Vec<Value> = (0..2000)
        .map(|i| json!({"role": if i % 2 == 0 { "user" } else { "assistant" }, "content": format!("message {i}")}))
        .collect();
    messages.push(json!({"role": "user", "content": "and now?"}));
    let body = json!({"model": "demo", "messages": messages});
    let request = host.post(&body);
    let (status, answer) = tokio::time::timeout(Duration::from_secs(60), request)
        .await
        .unwrap();
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        "You said: and now?"
    );
}

#[tokio::test]
async fn an_enormous_prompt_and_odd_characters_arrive_as_they_are() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for real in versions("an_enormous_prompt_and_odd_characters_arrive_as_they_are").await {
        let odd = "mark-odd \u{0}\u{1}\u{7f}\u{85}\u{2028}\u{feff}\u{1f600}\u{10ffff} end";
        let large = format!("mark-large {}", "word ".repeat(1 << 20));
        for text in [odd, &large] {
            let (status, answer) = real
                .host
                .post(&json!({"model": "claude-sonnet", "messages": user(text)}))
                .await;
            // Five megabytes are too much for some models, and the CLI says so.
            if text == large && status == 400 {
                assert_eq!(answer["error"]["code"], "context_length_exceeded");
                continue;
            }
            assert_eq!(status, 200, "{}: {answer}", real.version);
            let seen = real.api.requests(&text[..8]);
            assert_eq!(seen[0].conversation()[0].1, [text], "{}", real.version);
        }
    }
}
