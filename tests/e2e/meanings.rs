//! One table of requests through every API: what the model is told and what the client learns are the same.

mod apis;

use harness_tests::fake_api::FakeApi;
use serde_json::{Value, json};

use crate::cli::{ONE_AT_A_TIME, Real, versions};
use apis::{Api, Meaning};

const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const PDF: &str = "JVBERi0xLjQKJSVFT0YK";

/// The case of an error that comes behind the first words.
const ON_THE_WAY: &str = "an error on the way";

/// A request as chat completions have it, from which those of the other APIs are made.
struct Case {
    name: &'static str,
    chat: Value,
}

fn cases() -> Vec<Case> {
    let user = |content: Value| json!({"role": "user", "content": content});
    let said = |text: &str| json!({"role": "assistant", "content": text});
    let ask = |text: &str| json!({"messages": [user(json!(text))]});
    let with = |mut body: Value, field: &str, value: Value| {
        body[field] = value;
        body
    };
    let picture = json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{PIXEL}")}});
    let file = json!({"type": "file", "file": {
        "filename": "a.pdf", "file_data": format!("data:application/pdf;base64,{PDF}")}});
    let words = |text: &str| json!({"type": "text", "text": text});
    let called = json!({"role": "assistant", "content": "I look.", "tool_calls": [
        call("call_1", "get_weather", r#"{"city":"Oslo"}"#), call("call_2", "get_time", "{}")]});
    let result =
        |id: &str, text: &str| json!({"role": "tool", "tool_call_id": id, "content": text});
    let schema = json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": false}}});
    [
        ("a text", ask("Say hi")),
        (
            "two turns",
            json!({"messages": [user(json!("Say hi")), said("Hello"), user(json!("Again"))]}),
        ),
        (
            "a system prompt",
            json!({"messages": [{"role": "system", "content": "Be brief."}, user(json!("Say hi"))]}),
        ),
        (
            "a picture",
            json!({"messages": [user(json!([picture, words("What is it?")]))]}),
        ),
        (
            "a file",
            json!({"messages": [user(json!([file, words("What is it?")]))]}),
        ),
        (
            "a call",
            with(ask("What is the weather?"), "tools", tools()),
        ),
        (
            "two calls at once",
            with(ask("scenario:two-calls"), "tools", tools()),
        ),
        (
            "results",
            json!({"messages": [user(json!("Look")), called, result("call_1", "rain"), result("call_2", "noon")], "tools": tools()}),
        ),
        (
            "a schema",
            with(ask("Which city?"), "response_format", schema),
        ),
        (
            "reasoning",
            with(ask("scenario:thinking"), "reasoning_effort", json!("low")),
        ),
        (
            "a word that ends it",
            with(ask("scenario:stops"), "stop", json!(["END"])),
        ),
        (
            "a bound on its length",
            with(ask("scenario:words"), "max_completion_tokens", json!(5)),
        ),
        ("a refusal", ask("scenario:refusal")),
        ("a request that is wrong", ask("scenario:bad-request")),
        ("a prompt that is too long", ask("scenario:too-long")),
        ("an error of the API", ask("scenario:500")),
        (ON_THE_WAY, ask("scenario:mid-stream-error")),
        ("a limit", ask("scenario:429")),
    ]
    .map(|(name, chat)| Case { name, chat })
    .into_iter()
    .collect()
}

fn call(id: &str, name: &str, arguments: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

fn tools() -> Value {
    let function = |name: &str| {
        json!({"type": "function", "function": {"name": name, "description": "Looks up",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}})
    };
    json!([function("get_weather"), function("get_time")])
}

#[tokio::test]
async fn a_request_means_the_same_in_every_api() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for real in versions("a_request_means_the_same_in_every_api").await {
        for case in cases() {
            let whole = meaning(&real, Api::Chat, &case, false).await.unwrap();
            check(&whole.0, case.name);
            let streamed = meaning(&real, Api::Chat, &case, true).await.unwrap();
            // A stream has begun before an error on the way, and its status cannot change any more.
            if case.name != ON_THE_WAY {
                assert_eq!(streamed, whole, "{}: {}", real.version, case.name);
            }
            for api in Api::OTHERS {
                for (streams, (expected, told)) in [(false, &whole), (true, &streamed)] {
                    let what = format!("{}: {} as {api:?}, {streams}", real.version, case.name);
                    let Some((found, told_by_it)) = meaning(&real, api, &case, streams).await
                    else {
                        continue;
                    };
                    assert_eq!(found, api.sayable(expected), "{what}");
                    if !api.words_prompts_itself() {
                        assert_eq!(told_by_it, *told, "{what}");
                    }
                }
            }
        }
    }
}

/// That a case is what its name says, so that it cannot be empty in all APIs alike.
fn check(meaning: &Meaning, case: &str) {
    let is_right = match case {
        "a call" => meaning.calls.len() == 1 && meaning.end == "calls",
        "two calls at once" => meaning.calls.len() == 2 && meaning.end == "calls",
        "results" => meaning.text.contains("rain"),
        "a schema" => meaning.text.contains("city"),
        "reasoning" => meaning.reasoning == "Let me think.",
        "a word that ends it" => meaning.text == "one two ",
        "a bound on its length" => meaning.end == "length",
        "a refusal" => meaning.end == "refusal",
        "a request that is wrong" | "a prompt that is too long" => meaning.status == 400,
        "an error of the API" | ON_THE_WAY => meaning.status >= 500,
        "a limit" => meaning.status == 429,
        _ => meaning.text.contains("Hello") && meaning.end == "stop",
    };
    assert!(is_right, "{case}: {meaning:?}");
}

/// What the client learns, and what the model was told last. None if the API cannot ask for it.
async fn meaning(real: &Real, api: Api, case: &Case, streams: bool) -> Option<(Meaning, Value)> {
    let mut chat = case.chat.clone();
    chat["model"] = "claude-sonnet".into();
    // Anthropic's API always has a bound.
    if chat["max_completion_tokens"].is_null() {
        chat["max_completion_tokens"] = 4000.into();
    }
    let body = api.body(&chat, streams)?;
    let request = real
        .host
        .client()
        .post(real.host.url(api.path()))
        .json(&body);
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    Some((api.read(status, &text, streams), told(&real.api)))
}

/// What the model was told last, with the ids of calls as numbers.
fn told(api: &FakeApi) -> Value {
    let Some(last) = api.requests("").pop() else {
        return Value::Null;
    };
    let mut blocks = last.blocks();
    let mut ids: Vec<Value> = Vec::new();
    let messages = blocks.as_array_mut().into_iter().flatten();
    let all = messages.flat_map(|message| message[1].as_array_mut().into_iter().flatten());
    for block in all {
        for key in ["id", "tool_use_id"] {
            let Some(id) = block.get_mut(key) else {
                continue;
            };
            let known = ids.iter().position(|known| known == id);
            let at = known.unwrap_or_else(|| {
                ids.push(id.clone());
                ids.len() - 1
            });
            *id = at.into();
        }
    }
    json!({"messages": blocks, "system": last.system(), "tools": last.body["tools"],
        "max_tokens": last.body["max_tokens"], "thinking": last.body["thinking"],
        "output_config": last.body["output_config"]})
}
