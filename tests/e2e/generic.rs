//! Any program that reads a prompt and prints an answer, with its prompt worded by a template.

use std::path::Path;
use std::time::Duration;

use harness_tests::host::{Host, assert_refused, chunks, streamed_text};
use harness_tests::poll;
use serde_json::{Value, json};

use crate::cli::message;

/// A service whose model `local` is this script of the shell, which gets the model's name as its first argument.
fn start(script: &str, template: &str, more: &str) -> Host {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("prompt.j2"), template).unwrap();
    let config = config(home.path(), script, more);
    Host::start_in(home, &config)
}

fn config(home: &Path, script: &str, more: &str) -> String {
    let program = home.join("program");
    std::fs::write(&program, script).unwrap();
    format!(
        r#"
        [backends.local]
        profile = "generic"
        command = "/bin/sh"
        args = ["{}", "{{model}}"]
        [models.local]
        backend = "local"
        model = "tiny-1"
        [guests.prompt-template]
        config = {{ template = {{ file = "prompt.j2" }}{more} }}
        "#,
        program.display()
    )
}

async fn ask(host: &Host) -> String {
    let (status, answer) = host.ask("local", "hi").await;
    assert_eq!(status, 200, "{answer}");
    message(&answer)["content"].as_str().unwrap().to_owned()
}

/// Runs a trial, and returns the status and the answer as text.
async fn trial(host: &Host, trial: &Value) -> (u16, String) {
    let sent = host.client().post(host.url("/admin/run")).json(trial);
    let answer = sent.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn a_trial_has_settings_of_its_own_and_nobody_else_has_them() {
    let host = start("cat", "<{{ messages[-1].content }}>", "");
    let request = json!({"model": "local", "messages": [{"role": "user", "content": "hi"}]});
    let trial = async |path: &str, request: &Value, configs: Value| {
        let body = json!({"path": path, "request": request, "configs": configs});
        trial(&host, &body).await
    };
    let configs = json!({"prompt-template": {"template": "[{{ messages[-1].content }}]"}});
    let (status, answer) = trial("/v1/chat/completions", &request, configs.clone()).await;
    assert!(status == 200 && answer.contains("[hi]"), "{answer}");
    let mut streaming = request.clone();
    streaming["stream"] = true.into();
    let (status, stream) = trial("/v1/chat/completions", &streaming, configs.clone()).await;
    assert!(
        status == 200 && streamed_text(&stream) == "[hi]",
        "{stream}"
    );
    assert_eq!(ask(&host).await, "<hi>");

    let completion = json!({"model": "local", "prompt": "hi"});
    let (status, answer) = trial("/v1/completions", &completion, configs.clone()).await;
    assert!(status == 200 && answer.contains("[hi]"), "{answer}");

    let bad = json!({"prompt-template": {"template": "{% for"}});
    let nobody = json!({"redact": {}});
    let misspelt = json!({"prompt-template": {"templat": "x"}});
    for (path, configs, (status, code), what) in [
        (
            "/v1/chat/completions",
            bad,
            (400, ""),
            "configs.prompt-template",
        ),
        (
            "/v1/chat/completions",
            nobody,
            (400, ""),
            "no guest `redact`",
        ),
        ("/v1/chat/completions", misspelt, (400, ""), "`templat`"),
        (
            "/v1/nowhere",
            json!({}),
            (404, "unknown_url"),
            "there is no POST /v1/nowhere",
        ),
        ("no path", json!({}), (400, ""), "`path` is to be a path"),
    ] {
        let (got, answer) = trial(path, &request, configs).await;
        let answer = (got, serde_json::from_str(&answer).unwrap());
        assert_refused(&answer, (status, code), what);
    }
    let unknown = json!({"model": "nope", "max_tokens": 9, "messages": request["messages"]});
    let (status, answer) = trial("/v1/messages", &unknown, json!({})).await;
    let form = "{\"type\":\"error\"";
    assert!(status == 404 && answer.starts_with(form), "{answer}");
    assert_eq!(ask(&host).await, "<hi>");
}

#[tokio::test]
async fn a_program_answers_the_prompt_that_a_template_words() {
    let script = "printf '%s says: ' \"$1\"; cat";
    let host = start(script, "<{{ messages[-1].content }}>", "");
    assert_eq!(ask(&host).await, "tiny-1 says: <hi>");
    let request = json!({
        "model": "local", "messages": [{"role": "user", "content": "hi"}],
        "stream_options": {"include_usage": true},
    });
    let (_, stream) = host.stream(&request).await;
    assert_eq!(streamed_text(&stream), "tiny-1 says: <hi>");
    let last = chunks(&stream).pop().unwrap();
    assert!(
        last["usage"]["completion_tokens"].as_u64() > Some(2),
        "{last}"
    );

    let mut stopping = request.clone();
    stopping["stop"] = "says".into();
    let (_, answer) = host.post(&stopping).await;
    assert_eq!(message(&answer)["content"], "tiny-1 ");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");

    let mut refused = request.clone();
    refused["tools"] = json!([{"type": "function", "function": {"name": "f"}}]);
    let (status, answer) = host.post(&refused).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("tools")));

    let (_, health) = host.get("/health").await;
    let backend = &health["backends"]["local"];
    assert_eq!(
        (&backend["status"], &backend["guarded"], &backend["adapter"]),
        (&json!("ready"), &json!(false), &json!("prompt-template"))
    );
    let (_, models) = host.get("/v1/models").await;
    let ids: Vec<&Value> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["id"])
        .collect();
    assert_eq!(ids, [&json!("local")], "no names of another product");
}

#[tokio::test]
async fn json_is_taken_out_of_what_a_program_writes_around_it() {
    let script = r#"cat >/dev/null; printf 'Sure:\n```json\n{"city": "Oslo"}\n```\nDone.'"#;
    let host = start(script, "{{ system }}", "");
    let request = json!({
        "model": "local", "messages": [{"role": "user", "content": "hi"}],
        "response_format": {"type": "json_object"},
    });
    let (status, answer) = host.post(&request).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(message(&answer)["content"], r#"{"city": "Oslo"}"#);
    let (_, stream) = host.stream(&request).await;
    assert_eq!(streamed_text(&stream), r#"{"city": "Oslo"}"#);

    let prose = start("cat >/dev/null; echo 'Oslo it is'", "plain", "");
    let (status, answer) = prose.post(&request).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (502, &json!("schema_not_met"))
    );
}

#[tokio::test]
async fn a_changed_template_is_live_at_once_and_a_bad_one_never() {
    let host = start("cat", "one", "");
    assert_eq!(ask(&host).await, "one");
    let file = host.home().join("prompt.j2");
    let becomes = async |wanted: &str| {
        poll::until(wanted, Duration::from_secs(60), async || {
            Some(ask(&host).await).filter(|answer| answer == wanted)
        })
        .await;
    };
    std::fs::write(&file, "two {{ messages | length }}").unwrap();
    becomes("two 1").await;
    std::fs::write(&file, "three\n{% for m in messages %}").unwrap();
    let problem = poll::until("the problem", Duration::from_secs(60), async || {
        let (_, health) = host.get("/health").await;
        Some(health.to_string()).filter(|health| health.contains("line 2"))
    })
    .await;
    assert!(problem.contains("`template`"), "{problem}");
    assert_eq!(ask(&host).await, "two 1");
    std::fs::write(&file, "chatml").unwrap();
    becomes("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n").await;
}

#[tokio::test]
async fn what_goes_wrong_with_a_program_is_told() {
    let host = start("cat; echo oops >&2; exit 3", "x", "");
    let answer = host.ask("local", "hi").await;
    assert_refused(&answer, (502, "backend_error"), "ended with status 3");

    let host = start("cat", "{{ raise_exception('roles must alternate') }}", "");
    let (status, answer) = host.ask("local", "hi").await;
    let told = answer["error"]["message"].as_str().unwrap();
    assert!(
        status == 400 && told.contains("roles must alternate"),
        "{answer}"
    );

    let json = r#"echo '{"type":"result","result":"from JSON"}'"#;
    let host = start(json, "x", ", output = \"json\"");
    assert_eq!(ask(&host).await, "from JSON");
    let lines = r#"echo '{"delta":{"text":"a"}}'; echo '{"delta":{"text":"b"}}'"#;
    let host = start(lines, "x", ", output = \"stream-json\"");
    assert_eq!(ask(&host).await, "ab");
    let host = start("echo nothing", "x", ", output = \"json\"");
    assert_refused(
        &host.ask("local", "hi").await,
        (502, "backend_error"),
        "`field`",
    );
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_in_the_health() {
    let home = tempfile::tempdir().unwrap();
    let config = r#"
        [backends.local]
        profile = "generic"
        command = "no-such-program"
        [guests.prompt-template]
        config = { template = "plain" }
        [models.local]
        backend = "local"
        "#;
    let host = Host::start_in(home, config);
    let (status, answer) = host.ask("local", "hi").await;
    assert_eq!(status, 502, "{answer}");
    let (_, health) = host.get("/health").await;
    assert_eq!(health["backends"]["local"]["status"], "missing", "{health}");
}
