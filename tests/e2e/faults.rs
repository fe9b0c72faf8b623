//! What a command line may do wrong. Each ends in a clear status, and the next request works.

use std::time::Duration;

use harness_tests::host::fake_cli;
use harness_tests::host::{chunks, streamed_text};
use serde_json::{Value, json};

use crate::fake::{ANSWER, Fake};

fn hello() -> Value {
    json!({"model": "fake", "messages": [{"role": "user", "content": "Say hi"}]})
}

/// Plays a faulty script, streaming and not, and then a sound one.
async fn fails_with(fake: &Fake, script: &str, status: u16, code: &str) {
    fake.play(script);
    for stream in [false, true] {
        let mut body = hello();
        body["stream"] = stream.into();
        let (got, answer) = fake.host.post(&body).await;
        assert_eq!(
            (got, answer["error"]["code"].as_str()),
            (status, Some(code)),
            "{script}: {answer}"
        );
    }
    fake.play(ANSWER);
    assert_eq!(fake.host.post(&hello()).await.0, 200, "after {script}");
    fake.all_gone(Duration::from_secs(3)).await;
}

#[tokio::test]
async fn a_command_line_that_breaks_is_a_bad_gateway() {
    let fake = Fake::start_with("", "max_line = \"1MiB\"", "");
    for script in [
        "#exit 0",
        "#exit 1",
        "#abort",
        "#init\n#read\n#exit 1",
        "rubbish",
        "#init\n#read\n#bytes fffe\n#text x\n#done",
        "#init\n#read\n[1]\n",
        "#init\n#read\n#flood 5000000\n",
        "#init\n#read\n#big 2000000\n",
        "#read\n{\"type\":\"control_response\",\"response\":{\"subtype\":\"error\",\"request_id\":\"initialize\",\"error\":\"no\"}}\n#hang",
    ] {
        fails_with(&fake, script, 502, "backend_error").await;
    }
}

#[tokio::test]
async fn a_command_line_that_is_silent_times_out() {
    let timeouts = "start_timeout = \"300ms\"\nsilence_timeout = \"300ms\"";
    let fake = Fake::start_with("", timeouts, "");
    for script in [
        "#hang",
        "#ignore-term\n#hang",
        "#init\n#read\n#hang",
        "#init\n#read\n#child\n#hang",
    ] {
        fails_with(&fake, script, 504, "timeout").await;
    }
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_timed_out_though_it_goes_on() {
    let script = "#init\n#read\n#deltas 1000 20\n";
    let fake = Fake::start_with(script, "request_timeout = \"1s\"", "");
    let (status, stream) = fake.host.stream(&hello()).await;
    assert_eq!(status, 200);
    let last = chunks(&stream).pop().unwrap();
    assert_eq!(last["error"]["code"], "timeout");
    assert!(
        last["error"]["message"]
            .as_str()
            .unwrap()
            .contains("`request_timeout` is 1s"),
        "{last}"
    );
}

#[tokio::test]
async fn a_command_line_that_never_pauses_is_timed_out_all_the_same() {
    let fake = Fake::start_with("#init\n#read\n#chatter", "request_timeout = \"1s\"", "");
    let started = std::time::Instant::now();
    let body = hello();
    let (one, two, three) = tokio::join!(
        fake.host.post(&body),
        fake.host.post(&body),
        fake.host.post(&body)
    );
    for (status, answer) in [one, two, three] {
        assert_eq!(
            (status, &answer["error"]["code"]),
            (504, &json!("timeout")),
            "{answer}"
        );
    }
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "it took {:?}",
        started.elapsed()
    );
    fake.all_gone(Duration::from_secs(3)).await;
}

#[tokio::test]
async fn what_the_cli_says_of_the_api_becomes_a_status() {
    let fake = Fake::start("");
    let result = |fields: &str| {
        format!(
            "#init\n#read\n{{\"is_error\":true,{fields},\"subtype\":\"success\",\"type\":\"result\"}}\n"
        )
    };
    for (fields, status, code) in [
        (
            r#""api_error_status":401,"result":"x""#,
            401,
            "not_logged_in",
        ),
        (
            r#""result":"Not logged in · Please run /login""#,
            401,
            "not_logged_in",
        ),
        (
            r#""api_error_status":403,"result":"x""#,
            403,
            "permission_denied",
        ),
        (
            r#""api_error_status":404,"result":"x""#,
            404,
            "model_not_found",
        ),
        (
            r#""api_error_status":429,"result":"x""#,
            429,
            "rate_limit_exceeded",
        ),
        (r#""api_error_status":529,"result":"x""#, 503, "overloaded"),
        (
            r#""api_error_status":500,"result":"x""#,
            502,
            "backend_error",
        ),
        (
            r#""terminal_reason":"prompt_too_long","api_error_status":400,"result":"x""#,
            400,
            "context_length_exceeded",
        ),
    ] {
        fails_with(&fake, &result(fields), status, code).await;
    }
    let retry = "#init\n#read\n{\"type\":\"system\",\"subtype\":\"api_retry\",\"error\":\"authentication_failed\",\"retry_delay_ms\":500}\n#hang";
    fails_with(&fake, retry, 401, "not_logged_in").await;
}

#[tokio::test]
async fn a_failure_in_mid_stream_is_an_event_and_the_end() {
    let fake = Fake::start("#init\n#read\n#text Half\n#exit 3\n");
    let (status, stream) = fake.host.stream(&hello()).await;
    assert_eq!(status, 200);
    assert_eq!(streamed_text(&stream), "Half");
    let last = chunks(&stream).pop().unwrap();
    assert_eq!(last["error"]["code"], "backend_error");
    assert!(
        last["error"]["message"]
            .as_str()
            .unwrap()
            .contains("status 3"),
        "{last}"
    );
    assert!(!stream.contains("[DONE]") && !stream.contains("\"finish_reason\":\"stop\""));
    let (status, _) = fake.host.post(&hello()).await;
    assert_eq!(status, 502, "half an answer is no answer");
}

#[tokio::test]
async fn odd_but_sound_output_is_served() {
    let fake = Fake::start("");
    let big = "#init\n#read\n#big 5000000\n#done\n";
    fake.play(big);
    let (_, answer) = fake.host.post(&hello()).await;
    assert_eq!(
        answer["choices"][0]["message"]["content"]
            .as_str()
            .map(str::len),
        Some(5_000_000)
    );
    // Split lines, blank lines, unknown messages, output after the result, children left behind.
    let split = json!({"type": "stream_event", "event": {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "split"}}});
    let split = split.to_string();
    let hex = |text: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<String>();
    let (head, tail) = split.split_at(40);
    let script = format!(
        "#init\n#read\n\n{{\"type\":\"news\"}}\n{{\"type\":\"system\",\"subtype\":7}}\n#child\n#bytes {}\n#sleep 50\n#bytes {}0a\n#done\n#text late\n#hang\n",
        hex(head),
        hex(tail)
    );
    fake.play(&script);
    let (status, answer) = fake.host.post(&hello()).await;
    assert_eq!(
        (status, &answer["choices"][0]["message"]["content"]),
        (200, &json!("split"))
    );
    fake.all_gone(Duration::from_secs(3)).await;
}

#[tokio::test]
async fn stderr_is_kept_for_the_log_only() {
    let fake = Fake::start("#stderr the disk is full\n#exit 1\n");
    let (_, answer) = fake.host.post(&hello()).await;
    assert!(!answer.to_string().contains("disk"), "{answer}");
    let log = fake.host.logged("the disk is full").await;
    assert_eq!(log.matches("the disk is full").count(), 1, "{log}");
}

#[tokio::test]
async fn a_flood_on_stderr_and_a_prompt_that_is_never_read_block_nobody() {
    let fake = Fake::start_with("", "start_timeout = \"500ms\"", "");
    let flood = format!(
        "#init\n#read\n{}#text ok\n#done\n",
        format!("#stderr {}\n", "x".repeat(1000)).repeat(500)
    );
    fake.play(&flood);
    assert_eq!(fake.host.post(&hello()).await.0, 200);
    fake.play("#hang");
    let body =
        json!({"model": "fake", "messages": [{"role": "user", "content": "x".repeat(2_000_000)}]});
    assert_eq!(fake.host.post(&body).await.0, 504);
}

#[tokio::test]
async fn a_full_house_queues_then_sheds() {
    let fake = Fake::start_with(
        "#init\n#read\n#hang",
        "max_concurrent = 1\nqueue = 1\nqueue_timeout = \"300ms\"",
        "",
    );
    let body = hello();
    let first = fake.host.post(&body);
    let others = async {
        fake.started(1).await;
        let (second, third) = tokio::join!(fake.host.send(&body), fake.host.send(&body));
        for response in [second, third] {
            assert_eq!(response.status(), 429);
            assert!(response.headers().contains_key("retry-after"));
            let answer: Value = response.json().await.unwrap();
            assert_eq!(answer["error"]["code"], "queue_full");
        }
    };
    tokio::select! {
        _ = first => panic!("it does not answer"),
        () = others => {}
    }
}

#[tokio::test]
async fn a_backend_whose_adapter_is_not_there_is_not_healthy() {
    let fake = Fake::start_with(ANSWER, "adapter = \"nope\"", "");
    let (status, health) = fake.host.get("/health").await;
    assert_eq!(
        (status, &health["backends"]["fake"]["status"]),
        (503, &json!("failing"))
    );
    let (status, answer) = fake.host.post(&hello()).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (502, &json!("guest_error"))
    );
    let place = fake.host.home().join("guests.d").join("nope.wasm");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains(&*place.to_string_lossy()), "{message}");
}

#[tokio::test]
async fn a_missing_or_logged_out_command_line_shows_in_health() {
    let fake = Fake::start(
        "#logged-out\n#init\n#read\n{\"type\":\"result\",\"is_error\":true,\"result\":\"Not logged in\"}\n",
    );
    let (status, health) = fake.host.get("/health").await;
    assert_eq!(
        (status, &health["backends"]["fake"]["status"]),
        (503, &json!("logged_out"))
    );
    let login = format!("{} auth login", fake_cli().display());
    assert_eq!(health["backends"]["fake"]["remedy"][0], login);
    assert_eq!(fake.host.post(&hello()).await.0, 401);
    fake.play(ANSWER);
    assert_eq!(fake.host.post(&hello()).await.0, 200);
    let (status, health) = fake.host.get("/health").await;
    assert_eq!(
        (status, &health["status"]),
        (200, &json!("ok")),
        "an answer is the best check"
    );
}
