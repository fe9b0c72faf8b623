//! Transforms: what they make of requests and answers, in chains, and what happens when they fail.

use std::path::Path;
use std::time::{Duration, Instant};

use harness_tests::host::{Host, assert_refused, fake_cli, streamed_text};
use harness_tests::{poll, real_cli};
use serde_json::{Value, json};

use crate::cli::{ONE_AT_A_TIME, Real, message, user, versions};
use crate::functions::calls;

fn meddler() -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read(root.join("tests/guests/dist/meddler.wasm")).unwrap()
}

/// A service with the fake command line, whose model `fake` has these transforms. `meddler` and `other` are the same
/// guest.
struct Chained(Host);

impl Chained {
    fn start(script: &str, transforms: &str) -> Self {
        Self::start_with(script, transforms, "")
    }

    fn start_with(script: &str, transforms: &str, rest: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("guests.d");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("meddler.wasm"), meddler()).unwrap();
        std::fs::write(folder.join("other.wasm"), meddler()).unwrap();
        std::fs::write(home.path().join("script"), script).unwrap();
        let config = Self::config(home.path(), transforms, rest);
        Chained(Host::start_in(home, &config))
    }

    fn config(home: &Path, transforms: &str, rest: &str) -> String {
        format!(
            r#"
            guest_call_timeout = "200ms"
            guest_memory = "64MiB"
            {rest}
            [backends.fake]
            command = "{}"
            env = {{ FAKE_CLI_SCRIPT = "{}", FAKE_CLI_STDIN = "{}" }}
            warm = 0
            continue_for = "0s"
            [models.fake]
            backend = "fake"
            transforms = {transforms}
            [models.plain]
            backend = "fake"
            "#,
            fake_cli().display(),
            home.join("script").display(),
            home.join("stdin").display(),
        )
    }

    /// What the command line was told.
    fn told(&self) -> String {
        std::fs::read_to_string(self.0.home().join("stdin")).unwrap_or_default()
    }
}

const HELLO: &str = "#init\n#read\n#text one \n#text two\n#done";

#[tokio::test]
async fn requests_pass_the_transforms_in_order_and_answers_in_reverse() {
    let one = r#"{ guest = "meddler", config = { prefix = "1", mark = "1" } }"#;
    let two = r#"{ guest = "other", config = { prefix = "2", mark = "2" } }"#;
    let chained = Chained::start(HELLO, &format!("[{one}, {two}]"));
    let (status, answer) = chained.0.ask("fake", "said").await;
    assert_eq!(
        (status, &message(&answer)["content"]),
        (200, &json!("[1 [2 one ]][1 [2 two]]"))
    );
    assert!(chained.told().contains("\"21said\""), "{}", chained.told());
    let request = json!({"model": "fake", "messages": user("said")});
    let (_, stream) = chained.0.stream(&request).await;
    assert_eq!(streamed_text(&stream), "[1 [2 one ]][1 [2 two]]");
    let (_, plain) = chained.0.ask("plain", "said").await;
    assert_eq!(message(&plain)["content"], "one two");
    assert_ne!(plain["system_fingerprint"], answer["system_fingerprint"]);
}

#[tokio::test]
async fn a_transform_may_answer_end_or_refuse() {
    let with = |config: &str| format!("[{{ guest = \"meddler\", config = {{ {config} }} }}]");
    let before = r#"{ guest = "other", config = { mark = "seen" } }"#;
    let answering = r#"{ guest = "meddler", config = { answer = "canned" } }"#;
    let chained = Chained::start("#exit 1", &format!("[{before}, {answering}]"));
    let request = json!({"model": "fake", "messages": user("x"), "n": 2});
    let (status, answer) = chained.0.post(&request).await;
    assert_eq!(status, 200, "{answer}");
    for choice in answer["choices"].as_array().unwrap() {
        assert_eq!(choice["message"]["content"], "[seen canned]");
        assert_eq!(choice["finish_reason"], "stop");
    }
    assert_eq!(answer["choices"].as_array().unwrap().len(), 2);
    let log = chained.0.logged("origin=\"transform\"").await;
    assert!(log.contains("status=200"));

    let endless = "#init\n#read\n#text one\n#text two\n#text three\n#hang";
    let chained = Chained::start(endless, &with("end_after = 2"));
    let began = Instant::now();
    let (status, answer) = chained.0.ask("fake", "x").await;
    assert_eq!(status, 200, "{answer}");
    assert!(
        message(&answer)["content"]
            .as_str()
            .unwrap()
            .starts_with("onetwo")
    );
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() > 0);
    assert!(began.elapsed() < Duration::from_secs(20));

    for at in ["open", "take", "finish"] {
        let what = if at == "open" { "refuse" } else { "fail" };
        let chained = Chained::start(HELLO, &with(&format!("at = \"{at}\", do = \"{what}\"")));
        let answer = chained.0.ask("fake", "x").await;
        assert_refused(&answer, (403, "refused_by_transform"), "not this");
    }
}

/// A transform fails closed: whatever it does, nothing of the request or the answer passes it. One that only observes
/// may be skipped.
#[tokio::test]
async fn a_transform_that_fails_fails_its_request_alone_unless_it_may_be_skipped() {
    let cases = [
        ("open", "spin", "ran for more than"),
        ("open", "trap", "trapped"),
        ("open", "panic", "trapped"),
        ("open", "allocate", "memory"),
        ("open", "huge", "memory"),
        ("open", "empty", "`messages` is empty"),
        ("take", "spin", "ran for more than"),
        ("take", "trap", "trapped"),
        ("take", "huge", "memory"),
        ("take", "bad-call", "began without an id"),
        ("finish", "spin", "ran for more than"),
        ("finish", "trap", "trapped"),
    ];
    for (at, what, says) in cases {
        let config = format!("config = {{ at = \"{at}\", do = \"{what}\" }}");
        let closed = format!("[{{ guest = \"meddler\", {config} }}]");
        let chained = Chained::start(HELLO, &closed);
        let (status, answer) = chained.0.ask("fake", "x").await;
        let error = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(
            status == 502 && error.contains("`meddler`") && error.contains(says),
            "{at} {what}: {status} {answer}"
        );
        let (status, _) = chained.0.ask("plain", "x").await;
        assert_eq!(status, 200, "{at} {what} hurt another model");
        if what == "panic" {
            // Its author learns where, and in which request.
            let log = chained.0.logged("it was told to").await;
            let line = log.lines().find(|line| line.contains("it was told to"));
            assert!(line.unwrap().contains("id=chatcmpl-"), "{line:?}");
        }

        let open = format!("[{{ guest = \"meddler\", {config}, on_error = \"skip\" }}]");
        let home = chained.0.home();
        chained.0.reconfigure(&Chained::config(home, &open, ""));
        chained.0.reload().await;
        let (status, answer) = chained.0.ask("fake", "x").await;
        assert_eq!(
            (status, &message(&answer)["content"]),
            (200, &json!("one two")),
            "{at} {what}: {answer}"
        );
    }
}

#[tokio::test]
async fn mistakes_in_chains_are_told_by_their_line_and_what_served_goes_on() {
    let mark = r#"[{ guest = "meddler", config = { mark = "a" } }]"#;
    let chained = Chained::start(HELLO, mark);
    let marked = json!("[a one ][a two]");
    let (_, answer) = chained.0.ask("fake", "x").await;
    assert_eq!(message(&answer)["content"], marked);
    let cases = [
        (
            r#"["nobody"]"#,
            "models.fake.transforms[0]",
            "guests.d/nobody.wasm",
        ),
        (
            r#"["meddler", "meddler"]"#,
            "models.fake.transforms[1]",
            "in the chain already",
        ),
        (
            r#"[{ config = {} }]"#,
            "models.fake.transforms[0].guest",
            "missing",
        ),
        (
            r#"[{ guest = "meddler", colour = 1 }]"#,
            "models.fake.transforms[0].colour",
            "unknown key",
        ),
        (
            r#"[{ guest = "meddler", on_error = "x" }]"#,
            "models.fake.transforms[0].on_error",
            "refuse",
        ),
        (
            r#"[{ guest = "meddler", config = { mark = { file = "none.txt" } } }]"#,
            "models.fake.transforms[0].config.mark",
            "none.txt",
        ),
        (r#"7"#, "models.fake.transforms", "array"),
        (
            r#"[{ guest = "meddler", config = { file = "harness.toml" } }]"#,
            "models.fake.transforms[0].config",
            "whole table",
        ),
    ];
    for (transforms, key, says) in cases {
        let home = chained.0.home();
        chained
            .0
            .reconfigure(&Chained::config(home, transforms, ""));
        chained.0.reload().await;
        let (_, health) = chained.0.get("/health").await;
        let problem = health.to_string();
        assert!(
            problem.contains(key) && problem.contains(says),
            "{transforms}: {problem}"
        );
        let (_, answer) = chained.0.ask("fake", "x").await;
        assert_eq!(message(&answer)["content"], marked, "{transforms}");
    }
    // What only the guest can tell.
    let home = chained.0.home();
    let unknown = r#"[{ guest = "meddler", config = { colour = "red" } }]"#;
    chained.0.reconfigure(&Chained::config(home, unknown, ""));
    chained.0.reload().await;
    let (_, health) = chained.0.get("/health").await;
    assert_eq!(health["status"], "degraded");
    let problem = health.to_string();
    assert!(
        problem.contains("models.fake.transforms[0].config") && problem.contains("colour"),
        "{problem}"
    );
    let (_, answer) = chained.0.ask("fake", "x").await;
    assert_eq!(message(&answer)["content"], marked);
    // A guest of another kind.
    chained
        .0
        .reconfigure(&Chained::config(home, r#"["claude-code"]"#, ""));
    chained.0.reload().await;
    let answer = chained.0.ask("fake", "x").await;
    assert_refused(&answer, (502, "guest_error"), "a transform is needed");
    let (_, health) = chained.0.get("/health").await;
    let problem = health["chains"]["fake"]["rejected"].as_str().unwrap();
    assert!(problem.contains("of the kind `adapter`"), "{health}");
}

/// A file that a guest's configuration names is read and watched by the host.
#[tokio::test]
async fn saving_a_file_changes_a_running_service() {
    let home = tempfile::tempdir().unwrap();
    let text = home.path().join("house.txt");
    std::fs::write(&text, "Be {{ model }}.").unwrap();
    std::fs::write(home.path().join("script"), HELLO).unwrap();
    let transforms =
        r#"[{ guest = "system-prompt", config = { replace = { file = "house.txt" } } }]"#;
    let config = Chained::config(home.path(), transforms, "");
    let chained = Chained(Host::start_in(home, &config));
    let told = async |words: &str| {
        poll::until(words, Duration::from_secs(60), async || {
            let (status, answer) = chained.0.ask("fake", "x").await;
            assert_eq!(status, 200, "{answer}");
            Some(()).filter(|()| chained.told().contains(words))
        })
        .await;
    };
    told("Be fake.").await;
    std::fs::write(&text, "Be kind.").unwrap();
    told("Be kind.").await;
    // A mistake is told with its line, and the text before serves on.
    std::fs::write(&text, "Be\n{% if %}").unwrap();
    let problem = poll::until("the problem", Duration::from_secs(60), async || {
        let (_, health) = chained.0.get("/health").await;
        Some(health.to_string()).filter(|health| health.contains("replace:2"))
    })
    .await;
    assert!(problem.contains("degraded"), "{problem}");
    std::fs::remove_file(&text).unwrap();
    poll::until("the problem", Duration::from_secs(60), async || {
        let (_, health) = chained.0.get("/health").await;
        Some(()).filter(|()| health.to_string().contains("cannot read"))
    })
    .await;
    let (status, _) = chained.0.ask("fake", "x").await;
    assert_eq!(status, 200);
    std::fs::write(&text, "Be back.").unwrap();
    told("Be back.").await;
    let (_, health) = chained.0.get("/health").await;
    assert_eq!(health["status"], "ok", "{health}");
}

const SECRET: &str = "ann@example.org";

#[tokio::test]
async fn what_redact_takes_out_never_reaches_the_api_and_comes_back() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for version in real_cli::VERSIONS {
        let Some(program) = real_cli::find(version, "redact") else {
            continue;
        };
        let real = Real::start(version, &program, "transforms = [\"redact\"]", "").await;
        let said = format!("scenario:echo mail {SECRET} from 10.1.2.3, {SECRET}");
        let ((status, answer), (_, stream)) = real.both(&user(&said)).await;
        assert_eq!(
            (status, &message(&answer)["content"]),
            (200, &json!(said)),
            "{version}"
        );
        assert_eq!(streamed_text(&stream), said, "{version}");

        let tools = json!([{"type": "function", "function": {"name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]);
        let request =
            json!({"messages": user(&format!("the weather of '{SECRET}'")), "tools": tools});
        let ((status, answer), _) = real.both_with(&request).await;
        assert_eq!(status, 200, "{version}: {answer}");
        let arguments: Value = serde_json::from_str(&calls(&answer)[0].2).unwrap();
        assert_eq!(arguments, json!({"city": SECRET}), "{version}");

        let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
        let format = json!({"type": "json_schema", "json_schema": {"name": "place", "strict": true, "schema": schema}});
        let request =
            json!({"messages": user(&format!("in '{SECRET}'")), "response_format": format});
        let ((status, answer), _) = real.both_with(&request).await;
        assert_eq!(status, 200, "{version}: {answer}");
        let content: Value =
            serde_json::from_str(message(&answer)["content"].as_str().unwrap()).unwrap();
        assert_eq!(content, json!({"city": SECRET}), "{version}");

        assert!(
            real.api.requests(SECRET).is_empty(),
            "{version}: the API has seen it"
        );
        assert!(!real.api.requests("<EMAIL_1>").is_empty(), "{version}");
        assert!(
            !real.host.log().contains(SECRET),
            "{version}: it is in the log"
        );
    }
}

/// Every kind of answer is the same with a chain of transforms that change nothing of it.
#[tokio::test]
async fn answers_stay_right_through_a_chain() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let tools = json!([
        {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}},
        {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}},
    ]);
    let schema =
        json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "place", "strict": true, "schema": schema}});
    let history = json!([
        {"role": "user", "content": "what is the weather?"},
        {"role": "assistant", "tool_calls": [{"id": "toolu_9", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\":\"Rome\"}"}}]},
        {"role": "tool", "tool_call_id": "toolu_9", "content": "sunny"},
    ]);
    let cases = [
        ("text", json!({"messages": user("hi")})),
        (
            "functions",
            json!({"messages": user("scenario:tools"), "tools": tools}),
        ),
        ("results", json!({"messages": history, "tools": tools})),
        (
            "required",
            json!({"messages": user("hi"), "tools": tools, "tool_choice": "required"}),
        ),
        (
            "schema",
            json!({"messages": user("in 'Rome'"), "response_format": format}),
        ),
        (
            "object",
            json!({"messages": user("with 'a'"), "response_format": {"type": "json_object"}}),
        ),
        ("n", json!({"messages": user("hi"), "n": 2})),
        (
            "stop",
            json!({"messages": user("scenario:stops"), "stop": ["END"]}),
        ),
        (
            "length",
            json!({"messages": user("scenario:words"), "max_tokens": 5}),
        ),
        ("thinking", json!({"messages": user("scenario:thinking")})),
        ("refusal", json!({"messages": user("scenario:refusal")})),
        (
            "error",
            json!({"messages": user("scenario:mid-stream-error")}),
        ),
        ("unicode", json!({"messages": user("scenario:unicode")})),
    ];
    for plain in versions("answers_stay_right_through_a_chain").await {
        let program = real_cli::find(plain.version, "chain").unwrap();
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("guests.d")).unwrap();
        std::fs::write(home.path().join("guests.d/meddler.wasm"), meddler()).unwrap();
        let transforms = r#"transforms = ["redact", "system-prompt", "meddler"]"#;
        let chained = Real::start_in(home, plain.version, &program, &plain.api, transforms, "");
        for (name, request) in &cases {
            let (expected, _) = plain.both_with(request).await;
            let (found, (_, stream)) = chained.both_with(request).await;
            let told = |(status, answer): &(u16, Value)| {
                let mut answer = answer.clone();
                for field in ["id", "created", "system_fingerprint"] {
                    answer.as_object_mut().unwrap().remove(field);
                }
                (*status, answer)
            };
            assert_eq!(told(&found), told(&expected), "{name}, {}", plain.version);
            let text = expected.1["choices"][0]["message"]["content"].as_str();
            if let (200, Some(text), false) = (expected.0, text, *name == "n") {
                assert_eq!(streamed_text(&stream), text, "{name}, {}", plain.version);
            }
        }
    }
}
