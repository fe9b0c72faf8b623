//! Answers, step by step.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

/// Numbers the messages: no two have the same id.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A step of a streamed answer.
pub(super) enum Step {
    Event(Value),
    Wait(Duration),
    /// The connection breaks.
    Break,
}

/// The answer to `request` in a scenario.
pub(super) fn of(scenario: &str, request: &Value) -> Vec<Step> {
    let mut steps = vec![Step::Event(message_start(scenario))];
    match scenario {
        "thinking" => {
            steps.extend(block(
                0,
                json!({"type": "thinking", "thinking": "", "signature": ""}),
                &[
                    json!({"type": "thinking_delta", "thinking": "Let me "}),
                    json!({"type": "thinking_delta", "thinking": "think."}),
                    json!({"type": "signature_delta", "signature": "c2ln"}),
                ],
            ));
            steps.extend(text_block(1, &["Done ", "thinking."]));
            steps.extend(end("end_turn", 12));
        }
        "mid-stream-error" => {
            let mut text = text_block(0, &["Half an ", "answer"]);
            text.pop();
            steps.extend(text);
            let failed =
                json!({"type": "error", "error": {"type": "api_error", "message": "it broke"}});
            steps.push(Step::Event(failed));
        }
        "break" => {
            steps.extend(text_block(0, &["Half"]));
            // What was sent shall arrive before the break does.
            steps.push(Step::Wait(Duration::from_millis(300)));
            steps.push(Step::Break);
        }
        "max_tokens" => {
            steps.extend(text_block(0, &["Cut ", "off"]));
            steps.extend(end("max_tokens", 2));
        }
        "slow" => {
            for i in 0..100 {
                steps.extend(text_block(i, &["tick "]));
                steps.push(Step::Wait(Duration::from_millis(100)));
            }
            steps.extend(end("end_turn", 100));
        }
        "silent" => steps.push(Step::Wait(Duration::from_secs(60))),
        "long" => {
            let words: Vec<String> = (0..2000).map(|i| format!("w{i} ")).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            steps.extend(text_block(0, &words));
            steps.extend(end("end_turn", 2000));
        }
        "unicode" => {
            steps.extend(text_block(
                0,
                &["Gr\u{fc}\u{df}e ", "\u{1f600}", "\u{2028}", " \u{0}end"],
            ));
            steps.extend(end("end_turn", 5));
        }
        "refusal" => {
            steps.extend(text_block(0, &["I cannot"]));
            steps.extend(end("refusal", 2));
        }
        _ => steps.extend(of_functions(scenario, request)),
    }
    steps
}

/// Scenarios about functions and structured answers.
fn of_functions(scenario: &str, request: &Value) -> Vec<Step> {
    let again = request.to_string().contains("Call the tool")
        || request.to_string().contains("Call one of the tools");
    let refused = request.to_string().contains("\"is_error\":true");
    match scenario {
        // Answers once it has the results.
        "two-calls" if super::model::has_results(request) => super::model::answer(request),
        "tools" | "two-calls" => {
            let mut steps = text_block(0, &["Let me ", "see."]);
            steps.extend(call(
                1,
                "toolu_1",
                "mcp__client__get_weather",
                &["{\"ci", "ty\": \"K\u{f6}ln\"", "}"],
            ));
            steps.extend(call(2, "toolu_2", "mcp__client__get_time", &[]));
            steps.extend(end("tool_use", 30));
            steps
        }
        "tools-cut" => {
            let mut steps = call(0, "toolu_1", "mcp__client__get_weather", &["{\"ci"]);
            steps.extend(end("max_tokens", 30));
            steps
        }
        "unknown-tool" if !refused => {
            let mut steps = call(0, "toolu_1", "mcp__client__nonsense", &["{}"]);
            steps.extend(end("tool_use", 9));
            steps
        }
        // Calls though it was told not to; "eager" learns from it.
        "eager" | "defiant" if scenario == "defiant" || !refused => {
            let mut steps = call(0, "toolu_1", "mcp__client__get_weather", &["{}"]);
            steps.extend(end("tool_use", 9));
            steps
        }
        // Does not call though it was told to; "reluctant" does at the second time.
        "stubborn" | "reluctant" if scenario == "stubborn" || !again => {
            let mut steps = text_block(0, &["I would ", "rather not."]);
            steps.extend(end("end_turn", 6));
            steps
        }
        "bad-structure" if !refused => {
            let mut steps = text_block(0, &["Here: "]);
            steps.extend(call(1, "toolu_1", "StructuredOutput", &["{\"no\": ", "1}"]));
            steps.extend(end("tool_use", 9));
            steps
        }
        "never-structure" => {
            let mut steps = text_block(0, &["No ", "JSON here."]);
            steps.extend(end("end_turn", 6));
            steps
        }
        "written-structure" => {
            let mut steps = text_block(0, &["```json\n{\"city\": ", "\"Rome\"}\n```"]);
            steps.extend(end("end_turn", 6));
            steps
        }
        // Uses a tool of the client as the prompt says: `scenario:use NAME {…}`.
        "use" if !super::model::has_results(request) => used(request),
        // Says what the prompt has as a string of JSON: `scenario:say "…"`.
        "say" => {
            let words = behind(request, "scenario:say ").unwrap_or_default();
            let mut steps =
                text_block(0, &super::model::pieces(words.as_str().unwrap_or_default()));
            steps.extend(end("end_turn", 6));
            steps
        }
        "echo" => {
            let said = super::model::last_prompt(request);
            let mut steps = text_block(0, &super::model::pieces(&said));
            steps.extend(end("end_turn", 6));
            steps
        }
        "stops" => {
            let mut steps = text_block(0, &["one ", "tw", "o EN", "D three"]);
            steps.push(Step::Wait(Duration::from_secs(30)));
            steps.extend(end("end_turn", 6));
            steps
        }
        "words" => {
            let words: Vec<String> = (0..50).map(|i| format!("w{i} ")).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let most = request["max_tokens"].as_u64().unwrap_or(u64::MAX) as usize;
            let mut steps = text_block(0, &words[..most.min(words.len())]);
            let reason = if most < words.len() {
                "max_tokens"
            } else {
                "end_turn"
            };
            steps.extend(end(reason, most.min(words.len()) as u64));
            steps
        }
        _ => super::model::answer(request),
    }
}

/// A call of the tool that the prompt names, if the request has it.
fn used(request: &Value) -> Vec<Step> {
    let prompt = super::model::prompt_with(request, "scenario:use ");
    let named = prompt.split("scenario:use ").nth(1).unwrap_or_default();
    let name = named.split(' ').next().unwrap_or_default();
    let tool = format!("mcp__client__{name}");
    let mut tools = request["tools"].as_array().into_iter().flatten();
    if !tools.any(|offered| offered["name"] == tool) {
        return super::model::answer(request);
    }
    let input = behind(request, &format!("scenario:use {name} ")).unwrap_or_else(|| json!({}));
    let id = format!("toolu_use_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let input = input.to_string();
    let mut steps = call(0, &id, &tool, &super::model::pieces(&input));
    steps.extend(end("tool_use", 9));
    steps
}

/// The JSON that stands behind some words of the prompt.
fn behind(request: &Value, words: &str) -> Option<Value> {
    let prompt = super::model::prompt_with(request, words);
    let rest = prompt.split(words).nth(1)?;
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
    values.next()?.ok()
}

/// A call in pieces.
pub(super) fn call(index: u32, id: &str, name: &str, pieces: &[&str]) -> Vec<Step> {
    let deltas: Vec<Value> = pieces
        .iter()
        .map(|json| json!({"type": "input_json_delta", "partial_json": json}))
        .collect();
    block(
        index,
        json!({"type": "tool_use", "id": id, "name": name, "input": {}}),
        &deltas,
    )
}

fn message_start(scenario: &str) -> Value {
    let id = format!("msg_{scenario}_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    json!({"type": "message_start", "message": {
        "id": id, "type": "message", "role": "assistant", "model": "claude-fake-1", "content": [],
        "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": 10, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 3, "output_tokens": 1},
    }})
}

pub(super) fn text_block(index: u32, pieces: &[&str]) -> Vec<Step> {
    let deltas: Vec<Value> = pieces
        .iter()
        .map(|text| json!({"type": "text_delta", "text": text}))
        .collect();
    block(index, json!({"type": "text", "text": ""}), &deltas)
}

fn block(index: u32, start: Value, deltas: &[Value]) -> Vec<Step> {
    let mut steps =
        vec![json!({"type": "content_block_start", "index": index, "content_block": start})];
    steps.extend(
        deltas
            .iter()
            .map(|delta| json!({"type": "content_block_delta", "index": index, "delta": delta})),
    );
    steps.push(json!({"type": "content_block_stop", "index": index}));
    steps.into_iter().map(Step::Event).collect()
}

pub(super) fn end(reason: &str, output_tokens: u64) -> Vec<Step> {
    let delta = json!({"stop_reason": reason, "stop_sequence": null});
    let usage = json!({"output_tokens": output_tokens});
    vec![
        Step::Event(json!({"type": "message_delta", "delta": delta, "usage": usage})),
        Step::Event(json!({"type": "message_stop"})),
    ]
}
