//! What clients see: keys, order, headers, keep-alives.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use harness_tests::host::{Host, assert_refused, chunks, streamed_text};
use serde_json::{Value, json};

use crate::fake::{ANSWER, Fake};

fn hello() -> Value {
    json!({"model": "fake", "messages": [{"role": "user", "content": "Say hi"}]})
}

#[tokio::test]
async fn the_demo_answers_with_nothing_configured() {
    let host = Host::start("");
    let (status, answer) = host.ask("demo", "Hello, harness").await;
    assert_eq!(status, 200);
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        "You said: Hello, harness"
    );
    let (status, health) = host.get("/health").await;
    assert_eq!((status, &health["status"]), (503, &json!("down")));
    assert_eq!(
        health["backends"]["claude"]["remedy"][1],
        "claude auth login"
    );
    let missing = host
        .logged("was not found")
        .await
        .matches("was not found")
        .count();
    assert_eq!(missing, 1, "it is said once");
    let (status, answer) = host.ask("claude-sonnet", "hi").await;
    assert_refused(&(status, answer), (502, "backend_error"), "npm install -g");
}

#[tokio::test]
async fn a_unary_answer_has_the_keys_that_clients_read() {
    let fake = Fake::start(ANSWER);
    let (status, mut answer) = fake.host.post(&hello()).await;
    assert_eq!(status, 200);
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert!(answer["created"].is_u64());
    answer["id"] = Value::Null;
    answer["created"] = Value::Null;
    let fingerprint = answer["system_fingerprint"].take();
    assert!(fingerprint.as_str().unwrap().starts_with("fp_"));
    let expected = json!({
        "id": null,
        "object": "chat.completion",
        "created": null,
        "model": "fake",
        "system_fingerprint": null,
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": "Hello there", "refusal": null, "annotations": []},
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 4,
            "total_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
    });
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn a_stream_has_the_chunks_that_clients_wait_for() {
    let fake = Fake::start(ANSWER);
    let mut body = hello();
    let (_, plain) = fake.host.stream(&body).await;
    body["stream_options"] = json!({"include_usage": true});
    let (_, counted) = fake.host.stream(&body).await;

    assert!(plain.ends_with("data: [DONE]\n\n"), "{plain}");
    let chunks_of_plain = chunks(&plain);
    let deltas: Vec<&Value> = chunks_of_plain
        .iter()
        .map(|c| &c["choices"][0]["delta"])
        .collect();
    let expected = [
        json!({"role": "assistant", "content": ""}),
        json!({"content": "Hello"}),
        json!({"content": " there"}),
        json!({}),
    ];
    assert_eq!(deltas, expected.iter().collect::<Vec<_>>());
    let finishes: Vec<&Value> = chunks_of_plain
        .iter()
        .map(|c| &c["choices"][0]["finish_reason"])
        .collect();
    assert_eq!(
        finishes,
        [&Value::Null, &Value::Null, &Value::Null, &json!("stop")]
    );
    let first = &chunks_of_plain[0];
    for chunk in &chunks_of_plain {
        assert_eq!(
            (&chunk["id"], &chunk["created"], &chunk["model"]),
            (&first["id"], &first["created"], &first["model"])
        );
        assert!(chunk.get("usage").is_none(), "nobody asked for usage");
        assert!(
            chunk["choices"][0]
                .as_object()
                .unwrap()
                .contains_key("finish_reason")
        );
    }

    let counted = chunks(&counted);
    let (last, before) = counted.split_last().unwrap();
    assert_eq!(
        (&last["choices"], &last["usage"]["total_tokens"]),
        (&json!([]), &json!(9))
    );
    assert!(
        before
            .iter()
            .all(|chunk| chunk["usage"].is_null()
                && chunk.as_object().unwrap().contains_key("usage"))
    );
}

#[tokio::test]
async fn only_ascii_is_sent_and_one_event_a_read() {
    let fake = Fake::start("#init\n#read\n#text Grüße 😀\n#sleep 30\n#text x\n#done\n");
    let mut body = hello();
    body["stream"] = true.into();
    let mut stream = fake.host.send(&body).await.bytes_stream();
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        let piece = piece.unwrap();
        assert!(piece.is_ascii());
        assert!(piece.ends_with(b"\n\n"), "an event is torn apart");
        all.extend_from_slice(&piece);
    }
    assert_eq!(streamed_text(&String::from_utf8(all).unwrap()), "Grüße 😀x");
}

#[tokio::test]
async fn headers_name_the_request_and_what_was_ignored() {
    let fake = Fake::start(ANSWER);
    let mut body = hello();
    body["temperature"] = json!(0.3);
    body["provider"] = json!("x");
    let response = fake.host.send(&body).await;
    let id = response.headers()["x-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        response.headers()["x-ignored-params"],
        "provider, temperature"
    );
    response.bytes().await.unwrap();
    let line =
        harness_tests::poll::until("its line in the log", Duration::from_secs(5), async || {
            let log = fake.host.log();
            log.lines()
                .find(|line| line.contains(&id) && line.contains("total_ms"))
                .map(str::to_owned)
        })
        .await;
    for part in [
        "model=fake",
        "generation=1",
        "status=200",
        "first_token_ms=",
        "prompt_tokens=5",
        "completion_tokens=4",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

#[tokio::test]
async fn no_word_of_prompt_or_answer_is_logged() {
    let fake = Fake::start("#init\n#read\n#text s3cret-answer\n#done\n");
    let body = json!({"model": "fake", "messages": [{"role": "user", "content": "s3cret-prompt"}]});
    fake.host.post(&body).await;
    fake.host.stream(&body).await;
    let log = fake.host.logged("stream=true").await;
    assert!(
        log.contains("stream=false") && !log.contains("s3cret"),
        "{log}"
    );
}

/// On a connection that has been used for a while, because the kernel acknowledges the first
/// segments of a new one at once.
#[tokio::test]
async fn short_streams_do_not_wait_for_acknowledgements() {
    let fake = Fake::start("#init\n#read\n#deltas 5 1\n#done\n");
    let client = harness_tests::http::client().build().unwrap();
    let mut body = hello();
    body["stream"] = true.into();
    let mut times = Vec::new();
    for _ in 0..60 {
        let request = client
            .post(fake.host.url("/v1/chat/completions"))
            .json(&body);
        let response = request.send().await.unwrap();
        let started = Instant::now();
        response.bytes().await.unwrap();
        times.push(started.elapsed());
    }
    let late = &mut times[30..];
    late.sort();
    let median = late[late.len() / 2];
    assert!(
        median < Duration::from_millis(30),
        "five chunks took {median:?}: is TCP_NODELAY set?"
    );
}

#[tokio::test]
async fn silence_is_filled_with_empty_deltas_or_comments() {
    let script = "#init\n#read\n#text a\n#sleep 500\n#text b\n#done\n";
    let fake = Fake::start_with(script, "", r#"keep_alive = "100ms""#);
    let (_, stream) = fake.host.stream(&hello()).await;
    let empty = chunks(&stream)
        .iter()
        .filter(|c| c["choices"][0]["delta"] == json!({}))
        .count();
    assert!(empty >= 3, "{stream}");
    assert_eq!(streamed_text(&stream), "ab");

    let comments = "keep_alive = \"100ms\"\nkeep_alive_form = \"comment\"";
    let fake = Fake::start_with(script, "", comments);
    let (_, stream) = fake.host.stream(&hello()).await;
    assert!(stream.matches(": keep-alive\n\n").count() >= 2, "{stream}");
}

#[tokio::test]
async fn the_status_is_held_back_but_not_for_ever() {
    let script = "#init\n#read\n#sleep 600\n{\"type\":\"result\",\"is_error\":true,\"api_error_status\":500,\"result\":\"x\"}\n";
    let fake = Fake::start_with(script, "", r#"hold = "100ms""#);
    let (status, stream) = fake.host.stream(&hello()).await;
    assert_eq!(status, 200);
    let chunks = chunks(&stream);
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(chunks.last().unwrap()["error"]["code"], "backend_error");
    assert!(
        !stream.contains("[DONE]"),
        "a failure must not look complete"
    );
    let held = Fake::start(script);
    assert_eq!(held.host.stream(&hello()).await.0, 502);
}

#[tokio::test]
async fn models_are_listed_and_shown() {
    let host = Host::start("");
    let (_, list) = host.get("/v1/models").await;
    assert_eq!(list["object"], "list");
    let ids: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].as_str().unwrap())
        .collect();
    assert!(
        ids.contains(&"claude-sonnet") && ids.contains(&"demo"),
        "{ids:?}"
    );
    let (status, model) = host.get("/v1/models/demo").await;
    assert_eq!(
        (status, &model["object"], &model["owned_by"]),
        (200, &json!("model"), &json!("demo"))
    );
    let (status, error) = host.get("/v1/models/none/such").await;
    assert_eq!(
        (status, &error["error"]["code"]),
        (404, &json!("model_not_found"))
    );
}

#[tokio::test]
async fn bad_requests_get_openais_error_with_the_field() {
    let host = Host::start("max_body = \"64KiB\"");
    let user = json!([{"role": "user", "content": "x"}]);
    for (body, status, param, code) in [
        (
            json!({"model": "gone", "messages": user}),
            404,
            json!("model"),
            json!("model_not_found"),
        ),
        (
            json!({"model": "demo", "messages": []}),
            400,
            json!("messages"),
            Value::Null,
        ),
        (
            json!({"model": "demo", "messages": user, "n": 65}),
            400,
            json!("n"),
            Value::Null,
        ),
        (
            json!({"model": "demo", "messages": user, "tools": [{}]}),
            400,
            json!("tools[0].type"),
            json!("unsupported_parameter"),
        ),
        (
            json!({"model": "demo", "messages": user, "logprobs": true}),
            400,
            json!("logprobs"),
            json!("unsupported_parameter"),
        ),
        (
            json!({"model": "demo", "messages": user, "max_tokens": "x".repeat(70_000)}),
            413,
            Value::Null,
            json!("request_too_large"),
        ),
    ] {
        let (got, answer) = host.post(&body).await;
        let error = &answer["error"];
        assert_eq!(
            (got, &error["param"], &error["code"]),
            (status, &param, &code),
            "{answer}"
        );
        assert_eq!(error["type"], "invalid_request_error");
    }
    let raw = host
        .client()
        .post(host.url("/v1/chat/completions"))
        .body("{\"model\":")
        .send()
        .await
        .unwrap();
    assert_eq!(raw.status(), 400);
    for (method, path, status) in [
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/v1/nothing", 404),
        ("POST", "/health", 405),
    ] {
        let method = method.parse().unwrap();
        let response = host
            .client()
            .request(method, host.url(path))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert!(response.headers().contains_key("x-request-id"));
        assert!(response.json::<Value>().await.unwrap()["error"]["message"].is_string());
    }
    let strict = Host::start("refuse_ignored_params = true");
    let (status, answer) = strict
        .post(&json!({"model": "demo", "messages": user, "seed": 1}))
        .await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("seed")));
}

#[tokio::test]
async fn a_unix_socket_serves_and_goes_with_the_service() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("harness.sock");
    let config = "[backends.demo]\nprofile = \"demo\"\n";
    std::fs::write(
        home.path().join("other.toml"),
        format!("listen = [\"unix:{}\"]\n{config}", socket.display()),
    )
    .unwrap();
    let mut child = std::process::Command::new(harness_tests::host::program())
        .args(["serve", "--config"])
        .arg(home.path().join("other.toml"))
        .env_clear()
        .env("HOME", home.path())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    harness_tests::poll::until("the socket", Duration::from_secs(30), async || {
        tokio::net::UnixStream::connect(&socket)
            .await
            .ok()
            .map(drop)
    })
    .await;
    let client = harness_tests::http::client()
        .unix_socket(socket.clone())
        .build()
        .unwrap();
    let models: Value = client
        .get("http://anything/v1/models")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(models["data"][0]["id"], "demo");
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!socket.exists());
}
