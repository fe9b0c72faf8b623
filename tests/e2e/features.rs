//! Structured answers, pictures and the rest of a request but functions, through the real command
//! lines.

use std::time::{Duration, Instant};

use harness_tests::host::{chunks, streamed_text};
use harness_tests::png;
use serde_json::{Value, json};

use crate::cli::{ONE_AT_A_TIME, Real, message, user, versions};
use crate::functions::calls;

/// A picture of one pixel.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

fn by_schema(scenario: &str, strict: bool) -> Value {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"city": {"type": "string", "format": "x-city"}, "days": {"type": "integer"}},
        "required": ["city"],
        "additionalProperties": false,
    });
    let format = json!({"type": "json_schema", "json_schema": {"name": "place", "strict": strict, "schema": schema}});
    json!({"messages": user(scenario), "response_format": format})
}

#[tokio::test]
async fn structured_answers_are_json_of_the_schema() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for real in versions("structured_answers_are_json_of_the_schema").await {
        let ((status, answer), (_, stream)) =
            real.both_with(&by_schema("in 'Rome' for 3", true)).await;
        assert_eq!(status, 200, "{}: {answer}", real.version);
        let content = message(&answer)["content"].as_str().unwrap();
        assert_eq!(content, r#"{"city":"Rome","days":3}"#);
        assert_eq!(streamed_text(&stream), content);
        assert!(
            chunks(&stream).len() > 5,
            "it is streamed in pieces: {stream}"
        );
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        assert!(calls(&answer).is_empty());

        // The CLI lets the model try again; what was already sent cannot be taken back.
        let ((status, answer), (_, stream)) = real
            .both_with(&by_schema("scenario:bad-structure", true))
            .await;
        assert_eq!(status, 200, "{}: {answer}", real.version);
        assert!(
            message(&answer)["content"]
                .as_str()
                .unwrap()
                .contains("city")
        );
        assert!(
            stream.contains("schema_not_met") && !stream.contains("[DONE]"),
            "{stream}"
        );

        let ((status, answer), _) = real
            .both_with(&by_schema("scenario:written-structure", true))
            .await;
        assert_eq!(
            (status, &message(&answer)["content"]),
            (200, &json!("{\"city\": \"Rome\"}")),
            "{}",
            real.version
        );
        let ((status, answer), (_, stream)) = real
            .both_with(&by_schema("scenario:never-structure", false))
            .await;
        assert_eq!(
            (status, &answer["error"]["code"]),
            (502, &json!("schema_not_met")),
            "{}",
            real.version
        );
        assert!(
            stream.contains("schema_not_met") && !stream.contains("No JSON"),
            "{stream}"
        );

        let request = json!({"messages": user("with 'setup' and 'end'"), "response_format": {"type": "json_object"}});
        let ((status, answer), (_, stream)) = real.both_with(&request).await;
        assert_eq!(
            (status, &message(&answer)["content"]),
            (200, &json!(r#"{"setup":"x","end":"x"}"#))
        );
        assert_eq!(streamed_text(&stream), r#"{"setup":"x","end":"x"}"#);
        let request = json!({"messages": user("scenario:stubborn"), "response_format": {"type": "json_object"}});
        let ((status, answer), _) = real.both_with(&request).await;
        assert_eq!(
            (status, &answer["error"]["code"]),
            (502, &json!("invalid_json")),
            "{}",
            real.version
        );
    }
}

#[tokio::test]
async fn stop_words_and_token_limits_end_an_answer() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for real in versions("stop_words_and_token_limits_end_an_answer").await {
        let started = Instant::now();
        let request = json!({"messages": user("scenario:stops"), "stop": ["nothing", "END"]});
        let ((status, answer), (_, stream)) = real.both_with(&request).await;
        assert_eq!(
            (status, &message(&answer)["content"]),
            (200, &json!("one two ")),
            "{}",
            real.version
        );
        assert_eq!(streamed_text(&stream), "one two ");
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() > 1);
        assert!(
            started.elapsed() < Duration::from_secs(15),
            "it was not ended at once"
        );

        let request = json!({"messages": user("scenario:words"), "max_tokens": 5});
        let ((_, answer), (_, stream)) = real.both_with(&request).await;
        assert_eq!(
            message(&answer)["content"],
            "w0 w1 w2 w3 w4 ",
            "{}",
            real.version
        );
        assert_eq!(streamed_text(&stream), "w0 w1 w2 w3 w4 ");
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
        assert_eq!(answer["usage"]["completion_tokens"], 5);
        let seen = real.api.requests("scenario:words");
        assert_eq!(seen.len(), 2, "{}: the CLI did not ask again", real.version);
        assert_eq!(
            (&seen[0].body["max_tokens"], &seen[0].body["thinking"]),
            (&json!(5), &Value::Null)
        );
    }
}

#[tokio::test]
async fn effort_and_thinking_reach_the_api() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for real in versions("effort_and_thinking_reach_the_api").await {
        for (effort, expected, thinks) in [("none", "low", false), ("high", "high", true)] {
            let request = json!({"model": "claude-sonnet", "messages": user(&format!("mark-{effort}")), "reasoning_effort": effort});
            assert_eq!(real.host.post(&request).await.0, 200);
            let seen = &real.api.requests(&format!("mark-{effort}"))[0].body;
            assert_eq!(
                seen["output_config"]["effort"], expected,
                "{}",
                real.version
            );
            assert_eq!(!seen["thinking"].is_null(), thinks, "{}", real.version);
        }
        let (_, answer) = real.host.ask("claude-sonnet", "scenario:thinking").await;
        let reasoning = answer["usage"]["completion_tokens_details"]["reasoning_tokens"].as_u64();
        assert!(reasoning.unwrap() > 0, "{}: {answer}", real.version);
        let config = std::fs::read_to_string(real.host.home().join("harness.toml")).unwrap();
        let config = config.replace("listen = [\"127.0.0.1:0\"]\n", "");
        real.host.reconfigure(&format!(
            "{config}\n[guests.claude-code]\nconfig = {{ reasoning = false }}\n"
        ));
        real.host.reload().await;
        let (_, answer) = real.host.ask("claude-sonnet", "scenario:thinking").await;
        assert_eq!(message(&answer).get("reasoning_content"), None);
        assert_eq!(message(&answer)["content"], "Done thinking.");
    }
}

#[tokio::test]
async fn pictures_and_files_reach_the_api() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for real in versions("pictures_and_files_reach_the_api").await {
        let image =
            |url: &str| json!({"type": "image_url", "image_url": {"url": url, "detail": "low"}});
        let data = format!("data:image/jpeg;base64,{PNG}");
        let pdf = "data:application/pdf;base64,JVBERi0xLjQKJSVFT0YK";
        let content = json!([
            {"type": "text", "text": "mark-media /cost"},
            image(&data),
            image(&data),
            {"type": "file", "file": {"filename": "a.pdf", "file_data": pdf}},
            {"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain;base64,aGVsbG8="}},
        ]);
        let request =
            json!({"model": "claude-sonnet", "messages": [{"role": "user", "content": content}]});
        let (status, answer) = real.host.post(&request).await;
        assert_eq!(status, 200, "{}: {answer}", real.version);
        let blocks = real.api.requests("mark-media")[0].blocks()[0][1].clone();
        let kinds: Vec<&str> = blocks
            .as_array()
            .unwrap()
            .iter()
            .map(|b| b["type"].as_str().unwrap())
            .collect();
        assert_eq!(
            kinds,
            ["text", "image", "image", "document", "document"],
            "{}",
            real.version
        );
        assert_eq!(
            blocks[1]["source"],
            json!({"type": "base64", "media_type": "image/png", "data": PNG})
        );
        assert_eq!(blocks[3]["source"]["media_type"], "application/pdf");
        assert_eq!(blocks[4]["source"]["data"], "hello");
        for (url, allowed) in [
            ("https://example.com/a.png", false),
            ("http://127.0.0.1/a.png", false),
            ("data:image/png;base64,aGk=", false),
            (data.as_str(), true),
        ] {
            let request = json!({"model": "claude-sonnet", "messages": [{"role": "user", "content": [image(url)]}]});
            let (status, answer) = real.host.post(&request).await;
            assert_eq!(status == 200, allowed, "{url}: {answer}");
            assert!(allowed || answer["error"]["param"] == "messages[0].content[0].image_url.url");
        }
    }
}

#[tokio::test]
async fn a_picture_of_twenty_megabytes_is_scaled_down_or_refused() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for real in versions("a_picture_of_twenty_megabytes_is_scaled_down_or_refused").await {
        for (size, expected) in [(2600, 200), (2700, 400)] {
            let url = format!("data:image/png;base64,{}", png::noise(size));
            let content = json!([{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": url}}]);
            let request = json!({"model": "claude-sonnet", "messages": [{"role": "user", "content": content}]});
            let (status, answer) = real.host.post(&request).await;
            assert_eq!(status, expected, "{} {size}: {answer}", real.version);
        }
    }
}

#[tokio::test]
async fn several_choices_are_answered_at_once() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for real in versions("several_choices_are_answered_at_once").await {
        let request = json!({"messages": user("Say hi"), "n": 2});
        let ((status, answer), (_, stream)) = real.both_with(&request).await;
        assert_eq!(status, 200, "{}: {answer}", real.version);
        let choices = answer["choices"].as_array().unwrap();
        assert_eq!((choices.len(), &choices[1]["index"]), (2, &json!(1)));
        assert_eq!(choices[0]["message"], choices[1]["message"]);
        assert_eq!(answer["usage"]["prompt_tokens"], 2 * 18);
        let mut texts = [String::new(), String::new()];
        let mut finished = 0;
        for chunk in chunks(&stream) {
            for choice in chunk["choices"].as_array().unwrap() {
                let index = choice["index"].as_u64().unwrap() as usize;
                texts[index] += choice["delta"]["content"].as_str().unwrap_or_default();
                finished += usize::from(choice["finish_reason"] == "stop");
            }
        }
        assert_eq!(
            (texts, finished),
            (["Hello there".into(), "Hello there".into()], 2)
        );
        assert_eq!(stream.matches("[DONE]").count(), 1);
        let (status, answer) = real
            .host
            .post(&json!({"model": "claude-sonnet", "messages": user("x"), "n": 5}))
            .await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!("n")));
    }
}

#[tokio::test]
async fn names_of_models_are_understood() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for real in versions("names_of_models_are_understood").await {
        let sonnet = model_at_the_api(&real, "claude-sonnet").await;
        assert_eq!(
            model_at_the_api(&real, "claude-3-5-sonnet-20241022").await,
            sonnet
        );
        assert_eq!(
            model_at_the_api(&real, "anthropic/claude-3.5-sonnet").await,
            sonnet
        );
        let dated = "claude-sonnet-4-5-20250929";
        assert_eq!(model_at_the_api(&real, dated).await, dated);
        let (_, model) = real.host.get("/v1/models/claude-sonnet").await;
        assert!(
            model["context_length"].as_u64().unwrap() >= 200_000,
            "{}: {model}",
            real.version
        );
        assert_eq!(real.host.get(&format!("/v1/models/{dated}")).await.0, 200);
        assert_eq!(real.host.ask("claude-x --settings", "hi").await.0, 404);
    }
}

async fn model_at_the_api(real: &Real, name: &str) -> String {
    let marked = format!("mark-{}", real.api.requests("").len());
    let (status, answer) = real.host.ask(name, &marked).await;
    assert_eq!(status, 200, "{name}: {answer}");
    assert_eq!(answer["model"], name, "the client sees its own name");
    real.api.requests(&marked)[0].body["model"]
        .as_str()
        .unwrap()
        .to_owned()
}
