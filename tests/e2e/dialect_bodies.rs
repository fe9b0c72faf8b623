//! What clients of every API may get wrong: mutated bodies are refused in the form of that API, with a status below 500,
//! and reach no process.

use harness_tests::dice::Dice;
use serde_json::{Value, json};

use crate::fake::Fake;

const SCRIPT: &str = "#init\n#read\n#text Hello\n#done\n";

/// How many bodies each route gets.
const BODIES: usize = 150;

const SEED: u64 = 20_261_129;

/// A path, and a body with all that it takes and that needs no certain answer of the model.
fn calls() -> Vec<(&'static str, Value)> {
    let picture = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let schema = json!({"type": "object", "properties": {"place": {"type": "string"}}});
    let function = json!({"name": "weather", "description": "Tells it", "parameters": schema});
    let address = format!("data:image/png;base64,{picture}");
    let messages = json!({
        "model": "fake", "max_tokens": 100, "system": [{"type": "text", "text": "Be brief"}], "temperature": 0.5,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": picture}}]},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "tool_use", "id": "c1", "name": "weather", "input": {"place": "x"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "rain", "is_error": true}]},
        ],
        "tools": [{"name": "weather", "description": "Tells it", "input_schema": schema}],
        "tool_choice": {"type": "auto"}, "stop_sequences": ["STOP"], "thinking": {"type": "enabled", "budget_tokens": 2000},
    });
    vec![
        (
            "/v1/chat/completions",
            json!({
                "model": "fake", "max_tokens": 100, "stop": ["STOP"], "n": 1, "seed": 3,
                "messages": [
                    {"role": "system", "content": "Be brief"},
                    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": address}}]},
                    {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]},
                    {"role": "tool", "tool_call_id": "c1", "content": "rain"},
                ],
                "tools": [{"type": "function", "function": function}], "tool_choice": "auto",
            }),
        ),
        (
            "/v1/responses",
            json!({
                "model": "fake", "instructions": "Be brief", "max_output_tokens": 100, "store": false,
                "input": [
                    {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": address}]},
                    {"type": "reasoning", "summary": []},
                    {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "c1", "output": "rain"},
                ],
                "tools": [{"type": "function", "name": "weather", "parameters": schema}, {"type": "custom", "name": "patch"}],
                "tool_choice": "auto", "reasoning": {"effort": "low", "summary": "auto"}, "text": {"format": {"type": "text"}},
                "include": [], "metadata": {"a": "b"}, "parallel_tool_calls": true,
            }),
        ),
        ("/v1/messages", messages.clone()),
        ("/v1/messages/count_tokens", messages),
        (
            "/api/chat",
            json!({
                "model": "fake:latest", "stream": false, "think": false, "keep_alive": "5m",
                "messages": [
                    {"role": "system", "content": "Be brief"},
                    {"role": "user", "content": "a", "images": [picture]},
                    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {"place": "x"}}}]},
                    {"role": "tool", "tool_name": "weather", "content": "rain"},
                ],
                "tools": [{"type": "function", "function": function}],
                "options": {"temperature": 0.5, "num_predict": 100, "stop": ["STOP"], "num_ctx": 100},
            }),
        ),
        (
            "/api/generate",
            json!({"model": "fake", "prompt": "a", "suffix": "b", "system": "Be brief", "images": [picture], "stream": false, "options": {}}),
        ),
        ("/api/show", json!({"model": "fake"})),
        (
            "/v1/completions",
            json!({"model": "fake", "prompt": ["a"], "suffix": "b", "n": 1, "stop": "STOP", "max_tokens": 100, "echo": false, "logprobs": 0}),
        ),
    ]
}

/// A value that may be wrong wherever it stands.
fn odd(dice: &mut Dice) -> Value {
    let deep = (0..60).fold(json!(1), |inner, _| json!([inner]));
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1e308),
        json!(u64::MAX),
        json!(""),
        json!("x"),
        json!("\u{0}\u{2028}\u{fffe}"),
        json!("y".repeat(5000)),
        json!([]),
        json!({}),
        json!([null]),
        json!({"type": "x"}),
        json!({"type": "text"}),
        deep,
    ];
    values[dice.roll(values.len())].clone()
}

/// Changes a value at a random place.
fn mutate(value: &mut Value, dice: &mut Dice) {
    let goes_deeper = dice.roll(5) > 0;
    match value {
        Value::Object(fields) if goes_deeper && !fields.is_empty() => {
            let name = fields.keys().nth(dice.roll(fields.len())).unwrap().clone();
            match dice.roll(6) {
                0 => drop(fields.remove(&name)),
                _ => mutate(&mut fields[&name], dice),
            }
        }
        Value::Array(list) if goes_deeper && !list.is_empty() => {
            let at = dice.roll(list.len());
            match dice.roll(6) {
                0 => drop(list.remove(at)),
                1 => list.push(list[at].clone()),
                _ => mutate(&mut list[at], dice),
            }
        }
        value => *value = odd(dice),
    }
}

/// The error's text, if it has the form of this API.
fn error_of<'v>(path: &str, body: &'v Value) -> Option<&'v str> {
    match path {
        path if path.starts_with("/api/") => body["error"].as_str(),
        path if path.starts_with("/v1/messages") && body["type"] != "error" => None,
        _ => {
            body["error"]["type"].as_str()?;
            body["error"]["message"].as_str()
        }
    }
}

#[tokio::test]
async fn whatever_a_body_holds_it_is_answered_or_refused_in_its_own_form() {
    let fake = Fake::start(SCRIPT);
    let mut dice = Dice(SEED);
    for (path, right) in calls() {
        let mut refused = 0;
        for number in 0..=BODIES {
            let mut body = right.clone();
            for _ in 0..number.min(1 + number % 3) {
                mutate(&mut body, &mut dice);
            }
            let mut text = body.to_string();
            if number > 0 && dice.roll(20) == 0 {
                let at = dice.roll(text.len());
                text.truncate(
                    (0..=at)
                        .rev()
                        .find(|at| text.is_char_boundary(*at))
                        .unwrap(),
                );
            }
            let started = fake.pids().len();
            let request = fake.host.client().post(fake.host.url(path));
            let request = request.header("content-type", "application/json");
            let response = request.body(text.clone()).send().await.unwrap();
            let (status, answer) = (response.status().as_u16(), response.text().await.unwrap());
            let at = format!("{path} {number}: {text}\n{status} {answer}");
            // The fake has no functions: it ends, when it should offer some. That is not the client's fault.
            let has_functions = text.contains("weather");
            if has_functions && status == 502 && answer.contains("Claude Code ended with status 0")
            {
                continue;
            }
            let may_refuse = number > 0 && (400..500).contains(&status);
            assert!(status == 200 || may_refuse, "{at}");
            if status != 200 {
                let answer: Value = serde_json::from_str(&answer).unwrap();
                assert!(
                    error_of(path, &answer).is_some_and(|text| !text.is_empty()),
                    "{at}"
                );
                assert_eq!(fake.pids().len(), started, "a process was started: {at}");
                refused += 1;
            }
        }
        assert!(refused > BODIES / 10, "{path}: {refused} refused");
    }
}
