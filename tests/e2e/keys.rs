//! Keys that were made by the program, and what they may use.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use harness_tests::host::program;
use harness_tests::poll;
use reqwest::header::HeaderMap;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::fake::{ANSWER, Fake};

/// Has the program make a key in the configuration of a home.
fn made(home: &Path, name: &str) -> Output {
    Command::new(program())
        .args(["key", "new", name, "--config"])
        .arg(home.join("harness.toml"))
        .env_clear()
        .env("HOME", home)
        .output()
        .unwrap()
}

/// A service with a key, its section having these limits.
fn with_limits(limits: &str) -> (Fake, String) {
    let (fake, key, _) = configured(limits);
    (fake, key)
}

/// The same, and its configuration.
fn configured(limits: &str) -> (Fake, String, String) {
    let home = tempfile::tempdir().unwrap();
    let config = Fake::config(home.path(), "", "state_dir = \"state\"\n");
    std::fs::write(home.path().join("harness.toml"), &config).unwrap();
    let output = made(home.path(), "n8n");
    assert!(output.status.success(), "{output:?}");
    let key = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let config = std::fs::read_to_string(home.path().join("harness.toml")).unwrap() + limits;
    (Fake::start_in(home, ANSWER, &config), key, config)
}

/// Asks as the owner of a key: status, headers and body.
async fn ask(fake: &Fake, key: &str, path: &str, body: &Value) -> (u16, HeaderMap, Value) {
    let request = fake.host.client().post(fake.host.url(path));
    let response = request.bearer_auth(key).json(body).send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers, response.json().await.unwrap())
}

fn hi() -> Value {
    json!({"model": "fake", "messages": [{"role": "user", "content": "Hi"}]})
}

#[tokio::test]
async fn a_key_that_was_made_opens_and_the_file_has_only_its_digest() {
    let (fake, key) = with_limits("");
    let (status, _, answer) = ask(&fake, &key, "/v1/chat/completions", &hi()).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        ask(&fake, "another", "/v1/chat/completions", &hi()).await.0,
        401
    );
    let file = fake.host.home().join("harness.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    assert!(
        config.contains("[keys.\"n8n\"]") && !config.contains(&key),
        "{config}"
    );
    let again = made(fake.host.home(), "n8n");
    let told = String::from_utf8(again.stderr).unwrap();
    assert!(
        !again.status.success() && told.contains("there is a key `n8n` already"),
        "{told}"
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), config);
    // A running service takes a new key within a second.
    let output = made(fake.host.home(), "laptop");
    let laptop = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    poll::until("the new key", Duration::from_secs(10), async || {
        let answered = ask(&fake, &laptop, "/v1/chat/completions", &hi()).await;
        (answered.0 == 200).then_some(())
    })
    .await;
    fake.host.logged("key=\"laptop\"").await;
}

#[test]
fn a_configuration_that_is_named_and_not_there_is_made_and_no_other_is_touched() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("harness.toml"), "max_choices = 2\n").unwrap();
    let output = Command::new(program())
        .args(["key", "new", "n8n", "--config", "new/other.toml"])
        .env_clear()
        .env("HOME", home.path())
        .current_dir(home.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let read = |file: &str| std::fs::read_to_string(home.path().join(file)).unwrap();
    assert_eq!(read("harness.toml"), "max_choices = 2\n");
    assert!(read("new/other.toml").contains("[keys.\"n8n\"]"));
}

#[tokio::test]
async fn a_file_that_was_emptied_to_be_written_takes_nobodys_key_away() {
    let (fake, key) = with_limits("admin = true\n");
    std::fs::write(fake.host.home().join("harness.toml"), "").unwrap();
    let reload = fake.host.client().post(fake.host.url("/admin/reload"));
    let reloaded = reload.bearer_auth(&key).send().await.unwrap();
    assert_eq!(reloaded.status(), 200);
    let models = fake.host.client().get(fake.host.url("/v1/models"));
    assert_eq!(models.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_key_may_use_the_models_that_it_names_and_sees_no_others() {
    let (fake, key) = with_limits("models = [\"other\"]\n[models.other]\nbackend = \"fake\"\n");
    let (status, _, error) = ask(&fake, &key, "/v1/chat/completions", &hi()).await;
    assert_eq!(
        (status, &error["error"]["param"]),
        (403, &json!("model")),
        "{error}"
    );
    let told = error["error"]["message"].as_str().unwrap();
    assert!(
        told.contains("`n8n` may not use `fake`, only `other`"),
        "{told}"
    );
    let mut allowed = hi();
    allowed["model"] = "other".into();
    assert_eq!(
        ask(&fake, &key, "/v1/chat/completions", &allowed).await.0,
        200
    );
    let get = |path: &str| {
        fake.host
            .client()
            .get(fake.host.url(path))
            .bearer_auth(&key)
            .send()
    };
    let list: Value = get("/v1/models").await.unwrap().json().await.unwrap();
    assert_eq!(list["data"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(get("/v1/models/fake").await.unwrap().status(), 403);
    let tags: Value = get("/api/tags").await.unwrap().json().await.unwrap();
    assert_eq!(tags["models"].as_array().unwrap().len(), 1, "{tags}");
    // Nothing of a refused request reaches a process.
    assert_eq!(fake.pids().len(), 1);
}

#[tokio::test]
async fn a_rate_is_told_and_kept_in_the_form_of_each_api() {
    let (fake, key) = with_limits("requests_per_minute = 2\n");
    let (status, headers, _) = ask(&fake, &key, "/v1/chat/completions", &hi()).await;
    assert_eq!(status, 200);
    assert_eq!(headers["x-ratelimit-limit-requests"], "2");
    assert_eq!(headers["x-ratelimit-remaining-requests"], "1");
    assert_eq!(headers["x-ratelimit-reset-requests"], "30s");
    let message =
        json!({"model": "fake", "max_tokens": 10, "messages": [{"role": "user", "content": "Hi"}]});
    let (status, headers, _) = ask(&fake, &key, "/v1/messages", &message).await;
    assert_eq!(
        (status, &headers["x-ratelimit-remaining-requests"]),
        (200, &"0".parse().unwrap())
    );
    let (status, headers, error) = ask(&fake, &key, "/v1/chat/completions", &hi()).await;
    assert_eq!(
        (status, &error["error"]["code"]),
        (429, &json!("rate_limit_exceeded")),
        "{error}"
    );
    let wait: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    let (status, _, error) = ask(&fake, &key, "/v1/messages", &message).await;
    assert_eq!(
        (status, &error["error"]["type"]),
        (429, &json!("rate_limit_error")),
        "{error}"
    );
    assert_eq!(fake.pids().len(), 2);
}

#[tokio::test]
async fn the_tokens_of_a_day_are_counted_across_a_restart() {
    // The fake's result says 5 in and 4 out.
    let (mut fake, key, config) = configured("tokens_per_day = 10\n");
    for remaining in ["1", "0"] {
        let (status, headers, _) = ask(&fake, &key, "/v1/chat/completions", &hi()).await;
        assert_eq!(status, 200);
        assert_eq!(headers["x-ratelimit-limit-tokens"], "10");
        assert_eq!(headers["x-ratelimit-remaining-tokens"], remaining);
    }
    let (status, _, spent) = ask(&fake, &key, "/v1/chat/completions", &hi()).await;
    assert_eq!(status, 429, "{spent}");
    assert_eq!(spent["error"]["code"], "insufficient_quota", "{spent}");
    fake.host.signal(Signal::TERM);
    fake.host.wait();
    let home = fake.host.take_home();
    let fake = Fake::start_in(home, ANSWER, &config);
    let (status, headers, error) = ask(&fake, &key, "/v1/chat/completions", &hi()).await;
    assert_eq!(status, 429, "{error}");
    assert_eq!(headers["x-should-retry"], "false");
}

#[tokio::test]
async fn a_key_has_so_many_requests_at_once() {
    let (fake, key) = with_limits("max_concurrent = 1\n");
    fake.play("#init\n#read\n#text Hello\n#sleep 60000\n");
    let mut long = hi();
    long["stream"] = true.into();
    let first = fake
        .host
        .client()
        .post(fake.host.url("/v1/chat/completions"));
    let mut first = first.bearer_auth(&key).json(&long).send().await.unwrap();
    assert!(first.chunk().await.unwrap().is_some());
    let (status, _, error) = ask(&fake, &key, "/v1/chat/completions", &hi()).await;
    let told = error["error"]["message"].as_str().unwrap();
    assert!(
        status == 429 && told.contains("`max_concurrent`"),
        "{error}"
    );
    drop(first);
    fake.play(ANSWER);
    poll::until("a free place", Duration::from_secs(10), async || {
        let answered = ask(&fake, &key, "/v1/chat/completions", &hi()).await;
        (answered.0 == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn tokens_of_an_answer_that_the_client_did_not_wait_for_count() {
    let (fake, key) = with_limits("tokens_per_day = 1000\nadmin = true\n");
    fake.play(&format!(
        "#init\n#read\n#text {}\n#hang\n",
        "word ".repeat(2000)
    ));
    let mut body = hi();
    body["stream"] = true.into();
    let request = fake
        .host
        .client()
        .post(fake.host.url("/v1/chat/completions"));
    let mut stream = request.bearer_auth(&key).json(&body).send().await.unwrap();
    let mut seen = 0;
    while seen < 10_000 {
        seen += stream.chunk().await.unwrap().unwrap().len();
    }
    drop(stream);
    poll::until("the tokens", Duration::from_secs(20), async || {
        let (_, told) = fake.host.get_with(&key, "/admin/usage").await;
        (told["data"][0]["completion_tokens"].as_u64() >= Some(2500)).then_some(())
    })
    .await;
    fake.play(ANSWER);
    let (status, _, error) = ask(&fake, &key, "/v1/chat/completions", &hi()).await;
    assert_eq!(
        (status, &error["error"]["code"]),
        (429, &json!("insufficient_quota"))
    );
}
