//! What people are told: at the start, in errors, and in the metrics.

use std::process::Command;

use harness_tests::host::{Host, program};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::fake::{ANSWER, Fake};

async fn error(host: &Host, method: reqwest::Method, path: &str) -> (u16, String) {
    let response = host
        .client()
        .request(method, host.url(path))
        .send()
        .await
        .unwrap();
    let status = response.status().as_u16();
    let answer: Value = response.json().await.unwrap();
    (
        status,
        answer["error"]["message"].as_str().unwrap().to_owned(),
    )
}

#[tokio::test]
async fn a_wrong_route_or_model_names_the_right_one() {
    let host = Host::start("");
    for (path, told) in [
        ("/v1/embeddings", "this service has no embeddings"),
        (
            "/v1/v1/chat/completions",
            "it asks for /v1/chat/completions",
        ),
        ("/chat/completions", "did you mean /v1/chat/completions?"),
    ] {
        let (status, message) = error(&host, reqwest::Method::POST, path).await;
        assert_eq!(status, 404);
        assert!(message.contains(told), "{path}: {message}");
    }
    let (status, message) = error(&host, reqwest::Method::GET, "/v1/chat/completions").await;
    assert_eq!(
        (status, &*message),
        (405, "/v1/chat/completions takes POST, not GET")
    );
    for (model, told) in [
        ("claud-sonnet", "did you mean `claude-sonnet`?"),
        (
            "gpt-4o",
            "write `[models.\"gpt-4o\"]`, `backend = \"claude\"`",
        ),
    ] {
        let (status, answer) = host.ask(model, "x").await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert_eq!(
            (status, &answer["error"]["code"]),
            (404, &json!("model_not_found"))
        );
        assert!(message.contains(told), "{message}");
    }
    for (field, told) in [
        ("functions", "use `tools`"),
        ("function_call", "use `tool_choice`"),
    ] {
        let mut body = json!({"model": "demo", "messages": [{"role": "user", "content": "x"}]});
        body[field] = json!([{"name": "f"}]);
        let (_, answer) = host.post(&body).await;
        assert!(
            answer["error"]["message"].as_str().unwrap().contains(told),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_browser_is_shown_a_page() {
    let host = Host::start("");
    let (status, page) = host.text("/").await;
    assert_eq!(status, 200);
    for part in [
        "<h1>claude-harness",
        "<code>claude-sonnet</code>",
        "<b>demo</b>: ready",
        "/v1</code> at its end",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
}

#[tokio::test]
async fn what_mends_a_backend_is_said_with_its_own_path_and_variables() {
    let missing = Host::start("[backends.claude]\ncommand = \"no-such-program\"\n");
    let body = json!({"model": "claude-haiku", "messages": [{"role": "user", "content": "x"}]});
    let response = missing.send(&body).await;
    assert_eq!(response.status(), 502);
    assert_eq!(
        response.headers()["x-should-retry"],
        "false",
        "only a person can mend it"
    );
    let answer: Value = response.json().await.unwrap();
    let message = answer["error"]["message"].as_str().unwrap();
    for part in [
        "it was looked for in /usr/local/bin:/usr/bin:/bin",
        "command -v no-such-program",
        "`no-such-program auth login`",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }

    let script = "#logged-out\n#init\n#read\n{\"type\":\"result\",\"is_error\":true,\"result\":\"Not logged in · Please run /login\"}\n#exit 1\n";
    let fake = Fake::start(script);
    let config = Fake::config(fake.host.home(), "", "")
        .replace("env = {", "env = { CLAUDE_CONFIG_DIR = \"/a b\",");
    fake.host.reconfigure(&config);
    fake.host.reload().await;
    let (status, answer) = fake.host.ask("fake", "x").await;
    let message = answer["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(status, 401, "{message}");
    let wanted = format!(
        "CLAUDE_CONFIG_DIR='/a b' {} auth login",
        harness_tests::host::fake_cli().display()
    );
    assert!(message.contains(&wanted), "{message}");
    let (_, health) = fake.host.get("/health").await;
    assert_eq!(health["backends"]["fake"]["remedy"], json!([wanted]));
}

#[tokio::test]
async fn a_key_that_is_wrong_is_told_apart_from_one_that_is_absent() {
    let host = Host::start("api_keys = [\"0123456789abcdef\"]");
    let (status, message) = error(&host, reqwest::Method::GET, "/v1/models").await;
    assert!(
        status == 401 && message.contains("no key came"),
        "{message}"
    );
    let wrong = host
        .client()
        .get(host.url("/v1/models"))
        .bearer_auth("other")
        .send()
        .await
        .unwrap();
    assert!(
        wrong
            .text()
            .await
            .unwrap()
            .contains("none of this service's")
    );
    // Whoever checks the health sends no key, but is no web page either.
    let health = |name: &'static str, value: &'static str| {
        host.client()
            .get(host.url("/health"))
            .header(name, value)
            .send()
    };
    assert_eq!(
        health("host", "192.168.7.7:8013").await.unwrap().status(),
        503
    );
    assert_eq!(health("host", "a-container").await.unwrap().status(), 503);
    assert_eq!(health("host", "evil.example").await.unwrap().status(), 403);
    assert_eq!(
        health("origin", "https://evil.example")
            .await
            .unwrap()
            .status(),
        403
    );
}

#[tokio::test]
async fn nothing_is_turned_away_unseen() {
    let host = Host::start(
        "api_keys = [\"0123456789abcdef\"]\nmax_body = \"1KiB\"\n[keys.operator]\nkey = \"fedcba9876543210\"\nadmin = true\n",
    );
    let client = host.client();
    let key = "0123456789abcdef";
    let get = |path: &str| client.get(host.url(path));
    let post = |path: &str| client.post(host.url(path));
    for (request, status) in [
        (get("/v1/models"), 401),
        (get("/secret-in-a-path").bearer_auth(key), 404),
        (get("/v1/models/nope").bearer_auth(key), 404),
        (get("/v1/chat/completions").bearer_auth(key), 405),
        (get("/health").header("origin", "https://evil.example"), 403),
        (
            post("/v1/chat/completions")
                .bearer_auth(key)
                .body("x".repeat(2000)),
            413,
        ),
    ] {
        assert_eq!(request.send().await.unwrap().status(), status);
    }
    let metrics = get("/metrics")
        .bearer_auth("fedcba9876543210")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    for line in [
        "claude_harness_requests_turned_away_total{status=\"401\",code=\"invalid_api_key\"} 1",
        "claude_harness_requests_turned_away_total{status=\"404\",code=\"unknown_url\"} 1",
        "claude_harness_requests_turned_away_total{status=\"404\",code=\"model_not_found\"} 1",
        "claude_harness_requests_turned_away_total{status=\"405\",code=\"method_not_allowed\"} 1",
        "claude_harness_requests_turned_away_total{status=\"403\",code=\"access_denied\"} 1",
        "claude_harness_requests_total{model=\"unknown\",status=\"413\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}:\n{metrics}");
    }
    let log = host.logged("code=request_too_large").await;
    for part in [
        "status=401 code=\"invalid_api_key\"",
        "status=404",
        "status=405",
        "status=403",
    ] {
        assert!(log.contains(part), "{part}:\n{log}");
    }
    assert!(!log.contains("secret-in-a-path"), "no word of the client's");
}

#[tokio::test]
async fn metrics_begin_at_nothing_and_can_be_summed() {
    let fake = Fake::start_with(ANSWER, "", "[models.other]\nbackend = \"fake\"\n");
    let (_, metrics) = fake.host.text("/metrics").await;
    for line in [
        "claude_harness_requests_total{model=\"other\",status=\"200\"} 0",
        "claude_harness_request_errors_total{model=\"other\",code=\"backend_error\"} 0",
        "claude_harness_input_tokens_total{model=\"other\"} 0",
        "claude_harness_requests_turned_away_total{status=\"401\",code=\"invalid_api_key\"} 0",
        "claude_harness_process_starts_total{backend=\"fake\",outcome=\"failed\"} 0",
        "claude_harness_build_info{version=",
        "claude_harness_backend_up{backend=\"fake\"}",
        "claude_harness_backend_max_concurrent{backend=\"fake\"} 4",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    ] {
        assert!(metrics.contains(line), "{line}:\n{metrics}");
    }
    assert_eq!(fake.host.ask("fake", "x").await.0, 200);
    fake.host
        .post(&json!({"model": "fake", "messages": []}))
        .await;
    fake.host.logged("status=400").await;
    let (_, metrics) = fake.host.text("/metrics").await;
    for line in [
        // What the fake's result says: 3 in, 2 more from the cache, 4 out.
        "claude_harness_input_tokens_total{model=\"fake\"} 5",
        "claude_harness_cache_read_input_tokens_total{model=\"fake\"} 2",
        "claude_harness_output_tokens_total{model=\"fake\"} 4",
        "gen_ai_server_request_duration_seconds_count{gen_ai_operation_name=\"chat\",gen_ai_request_model=\"fake\",outcome=\"answered\"} 1",
        "gen_ai_server_request_duration_seconds_count{gen_ai_operation_name=\"chat\",gen_ai_request_model=\"fake\",outcome=\"refused\"} 1",
        "claude_harness_requests_total{model=\"fake\",status=\"400\"} 1",
        "claude_harness_queue_wait_seconds_count{backend=\"fake\"} 1",
        "claude_harness_backend_up{backend=\"fake\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}:\n{metrics}");
    }
}

#[tokio::test]
async fn the_log_says_what_started_and_that_it_ended() {
    let mut fake = Fake::start_with(
        ANSWER,
        "",
        "api_keys = [\"short\"]\n[guests.foo]\nconfig = {}\n",
    );
    let log = fake.host.logged("the backend is ready").await;
    for part in [
        "claude-harness started version=",
        "harness.toml",
        "models=fake",
        "version=0.0.1",
        "`api_keys`: a key is shorter than 16 characters",
        "`guests.foo`: there is no guest of this name",
    ] {
        assert!(log.contains(part), "{part}:\n{log}");
    }
    assert!(!log.contains("short\""), "no key");
    fake.host.signal(Signal::TERM);
    fake.host.wait();
    fake.host.logged("drained: nothing runs any more").await;
}

/// What the program says when it cannot start.
fn refused(config: &str, args: &[&str], environment: &[(&str, &str)]) -> String {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("harness.toml"), config).unwrap();
    let output = Command::new(program())
        .args(args)
        .env_clear()
        .env("HOME", home.path())
        .envs(environment.iter().copied())
        .current_dir(home.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn a_start_that_fails_says_how_it_succeeds() {
    let host = Host::start("");
    let address = host.authority().to_owned();
    // The program asks whoever holds the address, which this thread serves nothing of.
    let told = refused("", &["--listen", &address], &[]);
    assert!(
        told.contains("another claude-harness (0.1.0) listens there already"),
        "{told}"
    );
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let told = refused(
        "",
        &["--listen", &other.local_addr().unwrap().to_string()],
        &[],
    );
    assert!(told.contains("another program listens there"), "{told}");
    let told = refused("", &["--listen", "0.0.0.0:1"], &[]);
    assert!(
        told.contains("`--listen`") && told.contains("CLAUDE_HARNESS_API_KEY"),
        "{told}"
    );
    let told = refused("api_keys = [\"s3cret\", oops]\n", &[], &[]);
    assert!(
        told.contains("line 1, column") && told.contains('^') && !told.contains("s3cret"),
        "{told}"
    );
    let told = refused("api_keys_file = \"none\"\n", &[], &[]);
    assert!(
        told.lines().count() == 2 && told.contains("/none: No such file"),
        "{told}"
    );
    let told = refused("x = 1", &[], &[("CLAUDE_HARNESS_LOG", "bogus=xyz")]);
    assert!(told.contains("`x`: unknown key"), "{told}");
}

#[tokio::test]
async fn a_configuration_that_others_can_write_is_not_read() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("harness.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:0\"").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    let output = Command::new(program())
        .env_clear()
        .env("HOME", home.path())
        .current_dir(home.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("harness.toml can be written by other users (mode 666): `chmod go-w` it"),
        "{told}"
    );
}
