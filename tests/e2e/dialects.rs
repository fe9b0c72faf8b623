//! Other HTTP APIs, which guests speak.

use std::path::Path;
use std::time::Duration;

use harness_tests::host::Host;
use harness_tests::poll;
use serde_json::{Value, json};

use crate::fake::Fake;

const SCRIPT: &str = "#init\n#read\n#text Hello \n#text there\n#done\n";

/// Calls a path, and returns status, content type and body.
async fn call(host: &Host, path: &str, body: &Value) -> (u16, String, String) {
    let request = host.client().post(host.url(path)).json(body);
    let response = request.send().await.unwrap();
    let kind = response.headers().get("content-type").cloned();
    let kind = kind.map(|kind| kind.to_str().unwrap().to_owned());
    (
        response.status().as_u16(),
        kind.unwrap_or_default(),
        response.text().await.unwrap(),
    )
}

async fn json_of(host: &Host, path: &str, body: &Value) -> (u16, Value) {
    let (status, kind, text) = call(host, path, body).await;
    assert_eq!(kind, "application/json", "{text}");
    (status, serde_json::from_str(&text).unwrap())
}

#[tokio::test]
async fn texts_are_completed() {
    let fake = Fake::start(SCRIPT);
    let body = json!({"model": "fake", "prompt": "Say"});
    let (status, answer) = json_of(&fake.host, "/v1/completions", &body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["choices"][0]["text"], "Hello there");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["total_tokens"], 9);
    let stream = json!({"model": "fake", "prompt": "Say", "stream": true});
    let (status, kind, text) = call(&fake.host, "/v1/completions", &stream).await;
    assert_eq!((status, &*kind), (200, "text/event-stream; charset=utf-8"));
    assert!(
        text.contains("\"text\":\"Hello \"") && text.ends_with("data: [DONE]\n\n"),
        "{text}"
    );
    let log = fake.host.logged("api=completions").await;
    assert!(
        log.contains("api=completions model=fake backend=fake"),
        "{log}"
    );
}

#[tokio::test]
async fn failures_have_the_form_of_the_api_and_name_the_field() {
    let fake = Fake::start(SCRIPT);
    let of = async |body: Value| json_of(&fake.host, "/v1/completions", &body).await;
    let (status, error) = of(json!({"model": "fake", "prompt": "a", "echo": true})).await;
    assert_eq!(
        (status, &error["error"]["param"]),
        (400, &json!("echo")),
        "{error}"
    );
    let (status, error) = of(json!({"model": "nobody", "prompt": "a"})).await;
    assert_eq!(
        (status, &error["error"]["code"]),
        (404, &json!("model_not_found")),
        "{error}"
    );
    let (status, error) = of(json!({"model": "fake", "prompt": "a", "n": 100})).await;
    assert_eq!(
        (status, &error["error"]["param"]),
        (400, &json!("n")),
        "{error}"
    );
    // Another method of a path that a dialect has, and a path that nobody has.
    let got = fake
        .host
        .client()
        .get(fake.host.url("/v1/completions"))
        .send()
        .await
        .unwrap();
    assert_eq!(got.status().as_u16(), 405);
    assert_eq!(json_of(&fake.host, "/v1/nothing", &json!({})).await.0, 404);
}

#[tokio::test]
async fn a_dialect_that_is_turned_off_is_not_there() {
    let fake = Fake::start_with(SCRIPT, "", "[dialects]\ncompletions = false\n");
    let body = json!({"model": "fake", "prompt": "Say"});
    let (status, error) = json_of(&fake.host, "/v1/completions", &body).await;
    assert_eq!(
        (status, &error["error"]["code"]),
        (404, &json!("unknown_url")),
        "{error}"
    );
}

/// A service with the dialect of the tests in its folder, which does this.
async fn hostile(behaviour: &str) -> Fake {
    stranger(&format!(
        "[guests.hostile-dialect]\ngive_way_after = 0\nconfig = {{ {behaviour} }}\n"
    ))
    .await
}

/// A service with the dialect of the tests in its folder, and with this section about it.
async fn stranger(section: &str) -> Fake {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("guests.d");
    std::fs::create_dir(&folder).unwrap();
    let component = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/dist/hostile-dialect.wasm");
    std::fs::copy(component, folder.join("hostile-dialect.wasm")).unwrap();
    let rest = format!("guest_call_timeout = \"200ms\"\nguest_memory = \"64MiB\"\n{section}");
    // The model that it names.
    let config = Fake::config(home.path(), "", &rest) + "[models.open]\nbackend = \"fake\"\n";
    let fake = Fake::start_in(home, SCRIPT, &config);
    poll::until("the dialect", Duration::from_secs(60), async || {
        let (_, health) = fake.host.get("/health").await;
        health["guests"]["hostile-dialect"]["digest"]
            .is_string()
            .then_some(())
    })
    .await;
    fake
}

#[tokio::test]
async fn a_strangers_dialect_serves_from_the_folder_though_nothing_names_it() {
    let fake = stranger("").await;
    let (status, _, text) = call(&fake.host, "/hostile", &json!({"model": "fake"})).await;
    assert_eq!(status, 200, "{text}");
}

#[tokio::test]
async fn a_dialect_that_breaks_a_bound_fails_its_request_and_no_more() {
    for at in ["open", "begin", "take", "end-choice", "finish"] {
        let fake = hostile(&format!("at = \"{at}\", do = \"trap\"")).await;
        let is_behind_the_head = !matches!(at, "open" | "begin");
        for _ in 0..2 {
            let request = fake.host.client().post(fake.host.url("/hostile"));
            match request.json(&json!({})).send().await {
                // The connection breaks off behind the head of a stream, or with it: nobody takes what came for the whole.
                Ok(response) if response.status() == 200 && is_behind_the_head => {
                    let body = response.text().await;
                    assert!(body.is_err(), "{at}: {body:?}");
                }
                Ok(response) => assert_eq!(response.status().as_u16(), 502, "{at}"),
                Err(error) => assert!(
                    is_behind_the_head && error.is_request() && !error.is_connect(),
                    "{at}: {error}"
                ),
            }
        }
        assert_eq!(fake.host.ask("fake", "hi").await.0, 200, "{at}");
        let (_, metrics) = fake.host.text("/metrics").await;
        assert!(
            metrics.contains("guest_failures_total{guest=\"hostile-dialect\"} "),
            "{at}: {metrics}"
        );
    }
}

#[tokio::test]
async fn keys_open_dialects_and_never_reach_them() {
    let fake = Fake::start_with(SCRIPT, "", "api_keys = [\"secret-key-of-the-test\"]\n");
    let body = json!({"model": "fake", "prompt": "Say"});
    let (status, error) = json_of(&fake.host, "/v1/completions", &body).await;
    assert_eq!(
        (status, &error["error"]["type"]),
        (401, &json!("authentication_error")),
        "{error}"
    );
    let request = fake.host.client().post(fake.host.url("/v1/completions"));
    let request = request.bearer_auth("secret-key-of-the-test").json(&body);
    assert_eq!(request.send().await.unwrap().status().as_u16(), 200);
}

#[tokio::test]
async fn ollamas_calls_are_answered() {
    let fake = Fake::start(SCRIPT);
    let messages = json!([{"role": "user", "content": "hi"}]);
    let body = json!({"model": "fake:latest", "messages": messages});
    let (status, kind, text) = call(&fake.host, "/api/chat", &body).await;
    assert_eq!((status, &*kind), (200, "application/x-ndjson"), "{text}");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let texts = lines
        .iter()
        .filter_map(|line| line["message"]["content"].as_str());
    assert_eq!(texts.collect::<String>(), "Hello there");
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["done"], &last["done_reason"], &last["eval_count"]),
        (&json!(true), &json!("stop"), &json!(4))
    );
    let whole = json!({"model": "fake", "prompt": "hi", "stream": false});
    let (status, _, text) = call(&fake.host, "/api/generate", &whole).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (status, &answer["response"]),
        (200, &json!("Hello there")),
        "{answer}"
    );
    let (_, tags) = fake.host.get("/api/tags").await;
    let names: Vec<&Value> = tags["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["name"])
        .collect();
    assert!(names.contains(&&json!("fake:latest")), "{names:?}");
    assert!(fake.host.get("/api/version").await.1["version"].is_string());
    let (status, _, text) = call(
        &fake.host,
        "/api/chat",
        &json!({"model": "nobody", "messages": messages}),
    )
    .await;
    assert_eq!(status, 404);
    assert!(
        text.starts_with("{\"error\":\"the model `nobody` does not exist"),
        "{text}"
    );
}

#[tokio::test]
async fn anthropics_calls_are_answered() {
    let fake = Fake::start_with(SCRIPT, "", "api_keys = [\"secret-key-of-the-test\"]\n");
    let messages = json!([{"role": "user", "content": "hi"}]);
    let ask = async |body: Value, key: &str| {
        let request = fake.host.client().post(fake.host.url("/v1/messages"));
        let response = request
            .header("x-api-key", key)
            .json(&body)
            .send()
            .await
            .unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let body = json!({"model": "fake", "max_tokens": 100, "messages": messages});
    let (status, text) = ask(body.clone(), "secret-key-of-the-test").await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (status, &answer["content"]),
        (200, &json!([{"type": "text", "text": "Hello there"}])),
        "{answer}"
    );
    assert_eq!(
        (&answer["stop_reason"], &answer["usage"]["output_tokens"]),
        (&json!("end_turn"), &json!(4))
    );
    let mut stream = body.clone();
    stream["stream"] = true.into();
    let (_, text) = ask(stream, "secret-key-of-the-test").await;
    let names = text.lines().filter_map(|line| line.strip_prefix("event: "));
    let names: Vec<&str> = names.collect();
    let expected = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(names, expected, "{text}");
    let (status, text) = ask(body, "another").await;
    let error: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (status, &error["error"]["type"]),
        (401, &json!("authentication_error")),
        "{error}"
    );
    let count = json!({"model": "fake", "messages": messages});
    let request = fake
        .host
        .client()
        .post(fake.host.url("/v1/messages/count_tokens"));
    let request = request.bearer_auth("secret-key-of-the-test").json(&count);
    let counted: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(counted["input_tokens"], 1);
}

#[tokio::test]
async fn responses_are_answered() {
    let fake = Fake::start(SCRIPT);
    let body = json!({"model": "fake", "input": "hi", "instructions": "Be brief."});
    let (status, answer) = json_of(&fake.host, "/v1/responses", &body).await;
    assert_eq!(
        (status, &answer["status"]),
        (200, &json!("completed")),
        "{answer}"
    );
    assert_eq!(answer["output"][0]["content"][0]["text"], "Hello there");
    let stream = json!({"model": "fake", "input": "hi", "stream": true});
    let (_, kind, text) = call(&fake.host, "/v1/responses", &stream).await;
    assert_eq!(kind, "text/event-stream; charset=utf-8");
    assert!(text.contains("event: response.completed\n"), "{text}");
    let kept = json!({"model": "fake", "input": "hi", "store": true});
    let (status, error) = json_of(&fake.host, "/v1/responses", &kept).await;
    assert_eq!(
        (status, &error["error"]["param"]),
        (400, &json!("store")),
        "{error}"
    );
}

#[tokio::test]
async fn an_answer_that_fails_on_its_way_ends_in_the_form_of_the_api() {
    let fake = Fake::start("#init\n#read\n#text Hello\n#exit 3\n");
    let messages = json!([{"role": "user", "content": "hi"}]);
    for (path, body, last) in [
        (
            "/v1/responses",
            json!({"model": "fake", "input": "hi", "stream": true}),
            "event: response.failed",
        ),
        (
            "/v1/messages",
            json!({"model": "fake", "max_tokens": 9, "messages": messages, "stream": true}),
            "event: error",
        ),
        (
            "/api/chat",
            json!({"model": "fake", "messages": messages}),
            "{\"error\":",
        ),
        (
            "/v1/completions",
            json!({"model": "fake", "prompt": "hi", "stream": true}),
            "data: {\"error\":",
        ),
    ] {
        let (status, _, text) = call(&fake.host, path, &body).await;
        assert_eq!(status, 200, "{path}: {text}");
        let end = text.trim_end().rsplit("\n\n").next().unwrap();
        let end = end
            .lines()
            .last()
            .filter(|_| path == "/api/chat")
            .unwrap_or(end);
        assert!(end.starts_with(last), "{path}: {text}");
    }
}

#[tokio::test]
async fn large_bodies_lines_of_any_kind_and_nulls_pass() {
    let fake = Fake::start("#init\n#read\n#text a\u{2028}b\u{85}c\n#done\n");
    let messages = json!([{"role": "user", "content": "x".repeat(3 << 20)}]);
    let body = json!({"model": "fake", "messages": messages, "tools": null, "format": null});
    let (status, _, text) = call(&fake.host, "/api/chat", &body).await;
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("a\\u2028b\\u0085c"), "{text}");
}

#[tokio::test]
async fn anthropics_clients_get_the_models_in_their_shape() {
    let fake = Fake::start(SCRIPT);
    let get = async |path: &str| -> Value {
        let request = fake.host.client().get(fake.host.url(path));
        let request = request.header("anthropic-version", "2023-06-01");
        request.send().await.unwrap().json().await.unwrap()
    };
    let list = get("/v1/models").await;
    let model = &list["data"][0];
    assert_eq!(
        (&model["id"], &model["type"], &model["display_name"]),
        (&json!("fake"), &json!("model"), &json!("fake")),
        "{list}"
    );
    assert_eq!(
        (&list["first_id"], &list["has_more"]),
        (&json!("fake"), &json!(false)),
        "{list}"
    );
    assert_eq!(&get("/v1/models/fake").await, model);
}
