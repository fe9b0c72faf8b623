//! Warm and kept processes of the real command lines.

use harness_tests::host::streamed_text;
use harness_tests::real_cli;
use serde_json::{Value, json};

use crate::cli::{ONE_AT_A_TIME, Real};

/// The services under test, one with processes that wait and one without, for each version.
async fn pairs(test: &str) -> Vec<(Real, Real)> {
    let mut all = Vec::new();
    for version in real_cli::VERSIONS {
        if let Some(program) = real_cli::find(version, test) {
            let settings = "warm = 1\ncontinue_for = \"60s\"";
            let keeping = Real::start(version, &program, settings, "").await;
            all.push((keeping, Real::start(version, &program, "", "").await));
        }
    }
    all
}

/// A conversation of three questions, as a client leads it; what reached the API for the last one.
async fn lead(real: &Real, mark: &str, more: &Value) -> Value {
    let mut messages = json!([{"role": "system", "content": "Be brief."}]);
    let list = messages.as_array_mut().unwrap();
    for (i, question) in ["one", "two", "three"].into_iter().enumerate() {
        list.push(json!({"role": "user", "content": format!("{mark} {question}")}));
        let mut body = more.clone();
        body["model"] = "claude-sonnet".into();
        body["messages"] = Value::from(list.clone());
        let text = if i % 2 == 0 {
            let (status, answer) = real.host.post(&body).await;
            assert_eq!(status, 200, "{answer}");
            answer["choices"][0]["message"]["content"]
                .as_str()
                .unwrap()
                .to_owned()
        } else {
            streamed_text(&real.host.stream(&body).await.1)
        };
        list.push(json!({"role": "assistant", "content": text}));
    }
    let last = real.api.requests(&format!("{mark} three")).pop().unwrap();
    json!({"messages": last.blocks(), "system": last.body["system"], "tools": last.body["tools"],
        "max_tokens": last.body["max_tokens"], "model": last.body["model"]})
}

/// What differs from process to process: a fingerprint of the session.
fn without_fingerprint(mut request: Value) -> Value {
    for block in request["system"].as_array_mut().into_iter().flatten() {
        if block["text"]
            .as_str()
            .is_some_and(|text| text.starts_with("x-anthropic-billing-header"))
        {
            *block = Value::Null;
        }
    }
    request
}

#[tokio::test]
async fn a_continued_request_is_the_replayed_one() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for (keeping, plain) in pairs("a_continued_request_is_the_replayed_one").await {
        let functions = json!({"tools": [{"type": "function", "function": {
            "name": "lookup", "description": "Looks up", "parameters": {"type": "object"}}}]});
        for (mark, more) in [("plain", json!({})), ("functions", functions)] {
            let continued = lead(&keeping, mark, &more).await;
            let replayed = lead(&plain, mark, &more).await;
            assert_eq!(
                without_fingerprint(continued),
                without_fingerprint(replayed),
                "{}",
                keeping.version
            );
            // One call of the API for each question, and no process for the second and the third.
            assert_eq!(keeping.api.requests(&format!("{mark} one")).len(), 3);
        }
        let (_, metrics) = keeping.host.text("/metrics").await;
        let kept = "claude_harness_processes_total{origin=\"kept\"} 4";
        assert!(metrics.contains(kept), "{}: {metrics}", keeping.version);
    }
}

#[tokio::test]
async fn each_turn_of_a_continued_conversation_has_its_own_usage_and_cost() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for (keeping, _) in pairs("each_turn_of_a_continued_conversation_has_its_own_usage").await {
        let mut messages = json!([{"role": "user", "content": "scenario:hello"}]);
        let mut answers = Vec::new();
        for _ in 0..3 {
            let body = json!({"model": "claude-sonnet", "messages": messages});
            let (_, answer) = keeping.host.post(&body).await;
            let said = answer["choices"][0]["message"]["content"].clone();
            answers.push(answer);
            let list = messages.as_array_mut().unwrap();
            list.push(json!({"role": "assistant", "content": said}));
            list.push(json!({"role": "user", "content": "scenario:hello again"}));
        }
        for answer in &answers[1..] {
            assert_eq!(answer["usage"], answers[0]["usage"], "{}", keeping.version);
        }
    }
}
