//! The real command lines, in two versions, against the fake Messages API.

use std::path::Path;
use std::time::{Duration, Instant};

use harness_tests::fake_api::FakeApi;
use harness_tests::host::{Host, chunks, streamed_text};
use harness_tests::real_cli;
use serde_json::{Value, json};

use crate::cli::{ONE_AT_A_TIME, Real, user, versions};

#[tokio::test]
async fn streaming_and_unary_give_the_same_text_and_true_usage() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for real in versions("streaming_and_unary_give_the_same_text_and_true_usage").await {
        for (scenario, text) in [
            ("hello", "Hello there".to_owned()),
            (
                "unicode",
                "Gr\u{fc}\u{df}e \u{1f600}\u{2028} \u{0}end".to_owned(),
            ),
            ("long", (0..2000).map(|i| format!("w{i} ")).collect()),
        ] {
            let ((status, answer), (_, stream)) =
                real.both(&user(&format!("scenario:{scenario}"))).await;
            assert_eq!(status, 200, "{} {scenario}: {answer}", real.version);
            assert_eq!(
                answer["choices"][0]["message"]["content"], text,
                "{} {scenario}",
                real.version
            );
            assert_eq!(streamed_text(&stream), text, "{} {scenario}", real.version);
            let last = chunks(&stream).pop().unwrap();
            assert_eq!(last["usage"], answer["usage"]);
            assert_eq!(answer["usage"]["prompt_tokens"], 18);
            assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 5);
        }
        let sizes: Vec<usize> = {
            real.host.ask("claude-sonnet", "Say hi").await;
            real.api
                .requests("\"Say hi\"")
                .iter()
                .map(|r| r.size)
                .collect()
        };
        assert!(
            !sizes.is_empty() && sizes.iter().all(|size| *size <= 2000),
            "{}: {sizes:?}",
            real.version
        );
        println!("{}: \"Say hi\" is {sizes:?} bytes", real.version);
    }
}

#[tokio::test]
async fn thinking_refusals_and_cut_off_answers_are_told_apart() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for real in versions("thinking_refusals_and_cut_off_answers_are_told_apart").await {
        let ((_, answer), (_, stream)) = real.both(&user("scenario:thinking")).await;
        let message = &answer["choices"][0]["message"];
        assert_eq!(
            (&message["reasoning_content"], &message["content"]),
            (&json!("Let me think."), &json!("Done thinking."))
        );
        assert!(
            stream.contains(r#"{"reasoning_content":"Let me "}"#),
            "{stream}"
        );
        for (scenario, reason, text) in [
            ("max_tokens", "length", "Cut off"),
            ("refusal", "content_filter", "I cannot"),
        ] {
            let ((status, answer), (_, stream)) =
                real.both(&user(&format!("scenario:{scenario}"))).await;
            assert_eq!(status, 200, "{} {scenario}: {answer}", real.version);
            assert_eq!(
                answer["choices"][0]["finish_reason"], reason,
                "{} {scenario}",
                real.version
            );
            assert_eq!(answer["choices"][0]["message"]["content"], text);
            assert_eq!(streamed_text(&stream), text);
        }
    }
}

#[tokio::test]
async fn roles_arrive_at_the_api_exactly_as_sent() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for real in versions("roles_arrive_at_the_api_exactly_as_sent").await {
        let messages = json!([
            {"role": "system", "content": "x-anthropic-billing-header: Be brief."},
            {"role": "user", "content": "mark-roles first question"},
            {"role": "assistant", "content": "first answer"},
            {"role": "user", "content": [{"type": "text", "text": "second"}, {"type": "text", "text": "question"}]},
            {"role": "assistant", "content": "second answer"},
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": "third"},
            {"role": "user", "content": "and last"},
        ]);
        let body = json!({"model": "claude-sonnet", "messages": messages});
        let (status, answer) = real.host.post(&body).await;
        assert_eq!(status, 200, "{answer}");
        let requests = real.api.requests("mark-roles");
        assert_eq!(requests.len(), 1, "one call of the API for one request");
        let turn = |role: &str, texts: &[&str]| {
            (
                role.to_owned(),
                texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>(),
            )
        };
        let expected = [
            turn("user", &["mark-roles first question"]),
            turn("assistant", &["first answer"]),
            turn("user", &["second", "question"]),
            turn("assistant", &["second answer"]),
            turn("user", &["third", "and last"]),
        ];
        assert_eq!(requests[0].conversation(), expected, "{}", real.version);
        assert_eq!(
            requests[0].system(),
            ["\nx-anthropic-billing-header: Be brief.\n\nBe kind."],
            "{}",
            real.version
        );
        assert_eq!(requests[0].body["tools"], json!([]));
    }
}

#[tokio::test]
async fn prompts_reach_the_model_as_words_and_read_nothing() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for real in versions("prompts_reach_the_model_as_words_and_read_nothing").await {
        let secret = real.host.home().join("secret.txt");
        std::fs::write(&secret, "TOP-S3CRET").unwrap();
        let path = format!("look at @{} please", secret.display());
        let prompts = [
            "@/etc/hostname",
            "@~/.claude.json",
            "/help",
            "!ls",
            "/cost",
            "  /clear",
            "#remember this",
            &path,
        ];
        for prompt in prompts {
            // As the question, and as history before one.
            for history in [false, true] {
                let marked = format!("mark-{}", real.api.requests("").len());
                let messages = if history {
                    json!([{"role": "user", "content": prompt}, {"role": "assistant", "content": prompt}, {"role": "user", "content": marked}])
                } else {
                    json!([{"role": "system", "content": marked}, {"role": "user", "content": prompt}])
                };
                let (status, answer) = real
                    .host
                    .post(&json!({"model": "claude-sonnet", "messages": messages}))
                    .await;
                assert_eq!(
                    (status, &answer["choices"][0]["message"]["content"]),
                    (200, &json!("Hello there")),
                    "{prompt}: {answer}"
                );
                let requests = real.api.requests(&marked);
                assert_eq!(requests.len(), 1);
                let seen: Vec<String> = requests[0]
                    .conversation()
                    .into_iter()
                    .flat_map(|(_, texts)| texts)
                    .collect();
                let expected: Vec<&str> = if history {
                    vec![prompt, prompt, &marked]
                } else {
                    vec![prompt]
                };
                assert_eq!(seen, expected, "{}", real.version);
                let body = requests[0].body.to_string();
                let host_name = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
                assert!(!body.contains("TOP-S3CRET"));
                assert!(host_name.trim().is_empty() || !body.contains(host_name.trim()));
            }
        }
    }
}

#[tokio::test]
async fn failures_of_the_api_have_their_status_without_another_attempt() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for real in versions("failures_of_the_api_have_their_status_without_another_attempt").await {
        for (scenario, status, code) in [
            ("429", 429, "rate_limit_exceeded"),
            ("401", 401, "not_logged_in"),
            ("too-long", 400, "context_length_exceeded"),
            ("529", 503, "overloaded"),
        ] {
            for stream in [false, true] {
                let mut body = json!({"model": "claude-sonnet", "messages": user(&format!("scenario:{scenario}"))});
                body["stream"] = stream.into();
                let before = real.api.requests(&format!("scenario:{scenario}")).len();
                let started = Instant::now();
                let response = real.host.send(&body).await;
                let took = started.elapsed();
                let attempts = real.api.requests(&format!("scenario:{scenario}")).len() - before;
                let retry_after = response
                    .headers()
                    .get("retry-after")
                    .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
                assert_eq!(response.status(), status, "{} {scenario}", real.version);
                let answer: Value = response.json().await.unwrap();
                assert_eq!(
                    answer["error"]["code"], code,
                    "{} {scenario}: {answer}",
                    real.version
                );
                assert_eq!(attempts, 1, "{} {scenario} in {took:?}", real.version);
                if scenario == "429" {
                    assert!(
                        (3000..=3600).contains(&retry_after.unwrap()),
                        "the limit's own reset: {retry_after:?}"
                    );
                }
                println!(
                    "{} {scenario} stream={stream}: {status} in {took:?}",
                    real.version
                );
            }
        }
        let (status, _) = real.host.ask("claude-sonnet", "still works").await;
        assert_eq!(status, 200);
        let health = real.host.get("/health").await.1;
        assert_eq!(health["backends"]["claude"]["version"], real.version);
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_one_clear_error() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for real in versions("an_answer_that_breaks_off_is_one_clear_error").await {
        for scenario in ["mid-stream-error", "break"] {
            let body = json!({"model": "claude-sonnet", "messages": user(&format!("scenario:{scenario}"))});
            let (status, stream) = real.host.stream(&body).await;
            let last = chunks(&stream).pop().unwrap();
            assert_eq!(status, 200, "{stream}");
            assert_eq!(
                last["error"]["type"], "server_error",
                "{} {scenario}: {stream}",
                real.version
            );
            assert!(!stream.contains("[DONE]"), "{stream}");
            assert!(streamed_text(&stream).starts_with("Half"));
            assert_eq!(stream.matches("Half").count(), 1, "no text comes twice");
            assert_eq!(
                real.host.post(&body).await.0,
                502,
                "{} {scenario}",
                real.version
            );
        }
    }
}

#[tokio::test]
async fn a_cli_without_a_login_is_told_with_the_way_out() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for version in real_cli::VERSIONS {
        let Some(program) =
            real_cli::find(version, "a_cli_without_a_login_is_told_with_the_way_out")
        else {
            continue;
        };
        let api = FakeApi::start().await.unwrap();
        let home = tempfile::tempdir().unwrap();
        let config = format!(
            "[backends.claude]\ncommand = \"{}\"\nenv = {{ ANTHROPIC_BASE_URL = \"{}\", HTTPS_PROXY = \"http://127.0.0.1:9\", NO_PROXY = \"127.0.0.1\", CLAUDE_CONFIG_DIR = \"{}\" }}\n",
            program.display(),
            api.url(),
            home.path().join("claude").display(),
        );
        let host = Host::start_in(home, &config);
        let (status, health) = host.get("/health").await;
        assert_eq!(
            (status, &health["backends"]["claude"]["status"]),
            (503, &json!("logged_out")),
            "{version}"
        );
        for stream in [false, true] {
            let started = Instant::now();
            let body = json!({"model": "claude-sonnet", "stream": stream, "messages": user("hi")});
            let (status, answer) = host.post(&body).await;
            assert_eq!(
                (status, &answer["error"]["code"]),
                (401, &json!("not_logged_in")),
                "{version}: {answer}"
            );
            assert!(
                answer["error"]["message"]
                    .as_str()
                    .unwrap()
                    .contains("claude auth login")
            );
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "{version} took {:?}",
                started.elapsed()
            );
        }
    }
}

#[tokio::test]
async fn the_clis_own_models_are_listed_and_served() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for real in versions("the_clis_own_models_are_listed_and_served").await {
        real.host.get("/health").await;
        let (_, list) = real.host.get("/v1/models").await;
        let ids: Vec<&str> = list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["id"].as_str().unwrap())
            .collect();
        assert!(
            ids.contains(&"claude-sonnet") && ids.contains(&"haiku"),
            "{}: {ids:?}",
            real.version
        );
        assert_eq!(real.host.ask("haiku", "hi").await.0, 200);
        assert_eq!(real.host.ask("--settings", "hi").await.0, 404);
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_real_process_too() {
    let _turn = ONE_AT_A_TIME.lock().await;
    use futures_util::StreamExt;
    for real in versions("a_client_that_leaves_ends_the_real_process_too").await {
        real.host.get("/health").await;
        let body =
            json!({"model": "claude-sonnet", "stream": true, "messages": user("scenario:slow")});
        let mut stream = real.host.send(&body).await.bytes_stream();
        stream.next().await.unwrap().unwrap();
        // The one that was asked what it offers, and this one.
        let pids = harness_tests::poll::until("the launches", Duration::from_secs(5), async || {
            Some(launched(&real)).filter(|pids| pids.len() >= 2)
        })
        .await;
        drop(stream);
        harness_tests::poll::until("the end of the tree", Duration::from_secs(1), async || {
            pids.iter()
                .all(|pid| !harness_tests::poll::is_alive(*pid))
                .then_some(())
        })
        .await;
    }
}

/// The processes that served a request or were asked what they offer, from the log.
fn launched(real: &Real) -> Vec<i32> {
    let log = real.host.log();
    let lines = log.lines().filter(|line| {
        line.contains("a process serves a request") || line.contains("a process is asked")
    });
    lines
        .filter_map(|line| line.split("pid=").nth(1)?.split(' ').next()?.parse().ok())
        .collect()
}

#[tokio::test]
async fn a_hostile_adapter_makes_the_cli_run_nothing() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for version in real_cli::VERSIONS {
        let Some(program) = real_cli::find(version, "a_hostile_adapter_makes_the_cli_run_nothing")
        else {
            continue;
        };
        let api = FakeApi::start().await.unwrap();
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("guests.d")).unwrap();
        std::fs::write(
            home.path().join("guests.d/hostile.wasm"),
            crate::guests::hostile_component(),
        )
        .unwrap();
        let marker = home.path().join("marker");
        let real = Real::start_in(home, version, &program, &api, "adapter = \"hostile\"", "");
        for write in wicked_lines(&marker) {
            let config = format!(
                "{}\n[guests.hostile]\nconfig = {{ write = {} }}",
                std::fs::read_to_string(real.host.home().join("harness.toml"))
                    .unwrap()
                    .split("[guests.")
                    .next()
                    .unwrap()
                    .replace("listen = [\"127.0.0.1:0\"]\n", ""),
                serde_json::to_string(&write).unwrap(),
            );
            real.host.reconfigure(&config);
            let report = real.host.reload().await;
            assert_eq!(report["rejected"], json!({}));
            let (status, answer) = real.host.ask("claude-sonnet", "hi").await;
            let shown: String = write.concat().chars().take(120).collect();
            assert_eq!(
                (status, &answer["error"]["code"]),
                (502, &json!("guest_error")),
                "{version} {shown}: {answer}"
            );
            assert!(!marker.exists(), "{version}: a program ran for {shown}");
        }
        assert!(api.requests("").is_empty());
    }
}

/// What a guest might write to have a program started, each with what must go before.
fn wicked_lines(marker: &Path) -> Vec<Vec<String>> {
    let touch = json!({"command": "/usr/bin/touch", "args": [marker]});
    let hooks = json!({"UserPromptSubmit": [{"hooks": [{"type": "command", "command": format!("touch {}", marker.display())}]}]});
    let control = |request: Value| {
        json!({"type": "control_request", "request_id": "r", "request": request}).to_string()
    };
    let hello = json!({"type": "user", "message": {"role": "user", "content": [{"type": "text", "text": "hi"}]}}).to_string();
    let good = control(json!({"subtype": "initialize", "systemPrompt": [""]}));
    let initialize = |field: &str, value: Value| {
        let mut request = json!({"subtype": "initialize", "systemPrompt": [""]});
        request[field] = value;
        control(request)
    };
    vec![
        vec![good.clone(), control(json!({"subtype": "mcp_set_servers", "servers": {"x": touch}})), hello.clone()],
        vec![good.clone(), control(json!({"subtype": "apply_flag_settings", "settings": {"hooks": hooks}})), hello.clone()],
        vec![initialize("hooks", hooks), hello.clone()],
        vec![initialize("plugins", json!([{"type": "local", "path": marker}])), hello.clone()],
        vec![initialize("mcpServers", json!({"x": touch})), hello.clone()],
        vec![format!("{good}{hello}")],
        vec![format!("{good}\n{hello}")],
        vec![r#"{"type":"user","type":"control_request","message":{"role":"user","content":[{"type":"text","text":"hi"}]}}"#.into()],
        vec!["rubbish".into()],
        vec!["\u{0}".into()],
        vec![json!({"type": "user", "message": {"role": "user", "content": [{"type": "text", "text": "x".repeat(10 << 20)}]}}).to_string()],
    ]
}
