//! The client's functions, through the real command lines.

use harness_tests::host::{chunks, streamed_text};
use serde_json::{Value, json};

use crate::cli::{ONE_AT_A_TIME, message, user, versions};

fn function(name: &str, properties: &Value) -> Value {
    json!({"type": "function", "function": {
        "name": name,
        "description": format!("does {name}"),
        "parameters": {"type": "object", "properties": properties},
    }})
}

fn weather_and_time() -> Value {
    json!([
        function("get_weather", &json!({"city": {"type": "string"}})),
        function("get_time", &json!({})),
    ])
}

/// The calls of a stream, put together as clients do it, and its last reason to finish.
fn streamed_calls(stream: &str) -> (Vec<(String, String, String)>, String) {
    let mut calls: Vec<(String, String, String)> = Vec::new();
    let mut reason = String::new();
    for chunk in chunks(stream) {
        let choice = &chunk["choices"][0];
        reason += choice["finish_reason"].as_str().unwrap_or_default();
        for call in choice["delta"]["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let index = call["index"].as_u64().unwrap() as usize;
            if index == calls.len() {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                calls.push((
                    text(&call["id"]),
                    text(&call["function"]["name"]),
                    String::new(),
                ));
            } else {
                assert!(call.get("id").is_none(), "only the first piece has an id");
            }
            calls[index].2 += call["function"]["arguments"].as_str().unwrap();
        }
    }
    (calls, reason)
}

pub(crate) fn calls(answer: &Value) -> Vec<(String, String, String)> {
    let calls = answer["choices"][0]["message"]["tool_calls"].as_array();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    calls
        .into_iter()
        .flatten()
        .map(|c| {
            (
                text(&c["id"]),
                text(&c["function"]["name"]),
                text(&c["function"]["arguments"]),
            )
        })
        .collect()
}

#[tokio::test]
async fn functions_are_called_with_the_text_before_and_several_at_once() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for real in versions("functions_are_called").await {
        let long = "\u{fc}".repeat(5000);
        let mut tools = weather_and_time();
        tools[1]["function"]["description"] = long.as_str().into();
        let request = json!({"messages": user("scenario:tools"), "tools": tools});
        let ((status, answer), (_, stream)) = real.both_with(&request).await;
        assert_eq!(status, 200, "{}: {answer}", real.version);
        let expected = [
            (
                "toolu_1".to_owned(),
                "get_weather".to_owned(),
                r#"{"city": "Köln"}"#.to_owned(),
            ),
            ("toolu_2".to_owned(), "get_time".to_owned(), "{}".to_owned()),
        ];
        assert_eq!(calls(&answer), expected);
        assert_eq!(
            streamed_calls(&stream),
            (expected.to_vec(), "tool_calls".into())
        );
        assert_eq!(message(&answer)["content"], "Let me see.");
        assert_eq!(streamed_text(&stream), "Let me see.");
        assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
        assert_eq!(answer["usage"]["completion_tokens"], 30);
        let requests = real.api.requests("scenario:tools");
        assert_eq!(
            requests.len(),
            2,
            "{}: one call of the API for each",
            real.version
        );
        let seen = &requests[0].body["tools"];
        let names: Vec<&str> = seen
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["mcp__client__get_time", "mcp__client__get_weather"]);
        assert_eq!(
            seen[0]["input_schema"]["description"], long,
            "no word of it is lost"
        );
    }
}

#[tokio::test]
async fn a_conversation_with_functions_goes_on_as_it_was() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for real in versions("a_conversation_with_functions_goes_on_as_it_was").await {
        let call = |id: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": "get_weather", "arguments": arguments}});
        let messages = json!([
            {"role": "user", "content": "mark-calls weather?"},
            {"role": "assistant", "content": "One moment.", "tool_calls": [call("call_a", "{\"city\":\"Rome\"}"), call("call_b", "")]},
            {"role": "tool", "tool_call_id": "call_a", "content": "/cost @/etc/hostname"},
            {"role": "tool", "tool_call_id": "call_b", "content": [{"type": "text", "text": "rain"}]},
            {"role": "assistant", "content": "Sun and rain.", "tool_calls": [call("call_c", "{}")]},
            {"role": "tool", "tool_call_id": "call_c", "content": ""},
            {"role": "assistant", "content": "Done."},
            {"role": "user", "content": "Thanks, and the weather again"},
            {"role": "assistant", "content": null, "tool_calls": [call("call_a", "{}")]},
            {"role": "tool", "tool_call_id": "call_a", "content": "snow"},
        ]);
        let request =
            json!({"model": "claude-sonnet", "messages": messages, "tools": weather_and_time()});
        let (status, answer) = real.host.post(&request).await;
        assert_eq!(
            (status, &message(&answer)["content"]),
            (200, &json!("The result is snow")),
            "{}: {answer}",
            real.version
        );
        let requests = real.api.requests("mark-calls");
        assert_eq!(requests.len(), 1);
        let seen = requests[0].blocks();
        let text = |text: &str| json!({"type": "text", "text": text});
        let used = |id: &str, input: Value| json!({"type": "tool_use", "id": id, "name": "mcp__client__get_weather", "input": input});
        let result = |id: &str, content: Value| json!({"tool_use_id": id, "type": "tool_result", "content": content});
        let expected = json!([
            ["user", [text("mark-calls weather?")]],
            [
                "assistant",
                [
                    text("One moment."),
                    used("call_a", json!({"city": "Rome"})),
                    used("call_b", json!({}))
                ]
            ],
            [
                "user",
                [
                    result("call_a", json!([text("/cost @/etc/hostname")])),
                    result("call_b", json!([text("rain")]))
                ]
            ],
            [
                "assistant",
                [text("Sun and rain."), used("call_c", json!({}))]
            ],
            ["user", [result("call_c", json!([]))]],
            ["assistant", [text("Done.")]],
            ["user", [text("Thanks, and the weather again")]],
            ["assistant", [used("call_1", json!({}))]],
            ["user", [result("call_1", json!([text("snow")]))]],
        ]);
        assert_eq!(seen, expected, "{}", real.version);
        // Models that think to order want to see what they thought, which nobody has.
        let mut older = request.clone();
        older["model"] = "claude-sonnet-4-5-20250929".into();
        assert_eq!(real.host.post(&older).await.0, 200, "{}", real.version);
        // The client forgot to say what functions there are.
        let mut forgot = request.clone();
        forgot["tools"] = json!([]);
        assert_eq!(real.host.post(&forgot).await.0, 200, "{}", real.version);
    }
}

#[tokio::test]
async fn a_choice_of_functions_is_kept_or_the_answer_is_an_error() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for real in versions("a_choice_of_functions_is_kept").await {
        let ask = |scenario: &str, choice: Value| json!({"messages": user(scenario), "tools": weather_and_time(), "tool_choice": choice});
        let named = json!({"type": "function", "function": {"name": "get_time"}});
        let ((_, answer), (_, stream)) = real.both_with(&ask("Hello", named)).await;
        assert_eq!(
            calls(&answer)[0].1,
            "get_time",
            "{}: {answer}",
            real.version
        );
        assert_eq!(streamed_calls(&stream).0[0].1, "get_time");

        let ((_, answer), (_, stream)) = real
            .both_with(&ask("scenario:reluctant", json!("required")))
            .await;
        assert_eq!(calls(&answer).len(), 1, "{}: {answer}", real.version);
        assert!(
            !stream.contains("rather not"),
            "words that are no part of the answer: {stream}"
        );
        assert_eq!(
            answer["usage"]["completion_tokens"],
            6 + 7,
            "both attempts count"
        );

        let ((status, answer), (_, stream)) = real
            .both_with(&ask("scenario:stubborn", json!("required")))
            .await;
        assert_eq!(
            (status, &answer["error"]["code"]),
            (502, &json!("tool_choice_not_honoured")),
            "{}",
            real.version
        );
        assert!(stream.contains("tool_choice_not_honoured") && !stream.contains("rather not"));
        assert_eq!(
            real.api.requests("scenario:stubborn").len(),
            4,
            "each asked twice"
        );

        let ((status, answer), _) = real
            .both_with(&ask("What is the weather?", json!("none")))
            .await;
        assert_eq!(
            (status, &message(&answer)["content"]),
            (200, &json!("Hello there"))
        );
        assert_eq!(
            real.api.requests("What is the weather?")[0].body["tools"],
            json!([])
        );
    }
}

#[tokio::test]
async fn calls_that_may_not_be_are_refused_to_the_model_not_shown() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for real in versions("calls_that_may_not_be_are_refused_to_the_model_not_shown").await {
        let ask = |scenario: &str| {
            let call = json!({"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}});
            let messages = json!([
                {"role": "user", "content": scenario},
                {"role": "assistant", "content": null, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "sun"},
                {"role": "user", "content": "well?"},
            ]);
            json!({"messages": messages, "tools": weather_and_time(), "tool_choice": "none"})
        };
        let ((status, answer), (_, stream)) = real.both_with(&ask("scenario:eager")).await;
        assert_eq!(status, 200, "{}: {answer}", real.version);
        assert!(calls(&answer).is_empty() && streamed_calls(&stream).0.is_empty());
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        let ((status, answer), _) = real.both_with(&ask("scenario:defiant")).await;
        assert_eq!(
            (status, &answer["error"]["code"]),
            (502, &json!("tool_choice_not_honoured")),
            "{}",
            real.version
        );

        // A function that the model made up is the CLI's to refuse.
        let request =
            json!({"messages": user("scenario:unknown-tool"), "tools": weather_and_time()});
        let ((status, answer), (_, stream)) = real.both_with(&request).await;
        assert_eq!(status, 200, "{}: {answer}", real.version);
        assert!(calls(&answer).is_empty());
        assert_eq!(
            streamed_text(&stream),
            message(&answer)["content"].as_str().unwrap()
        );
        assert_eq!(answer["usage"]["completion_tokens"], 9 + 7);

        let request = json!({"messages": user("scenario:tools"), "tools": weather_and_time(), "parallel_tool_calls": false});
        let ((_, answer), (_, stream)) = real.both_with(&request).await;
        assert_eq!(
            (calls(&answer).len(), streamed_calls(&stream).0.len()),
            (1, 1)
        );

        let request = json!({"messages": user("scenario:tools-cut"), "tools": weather_and_time()});
        let ((_, answer), (_, stream)) = real.both_with(&request).await;
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
        assert_eq!(streamed_calls(&stream).1, "length");
    }
}
