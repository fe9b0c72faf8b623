//! Who may call.

use crate::guests::sha256;
use harness_tests::host::Host;
use serde_json::json;

#[tokio::test]
async fn a_web_page_cannot_spend_the_subscription() {
    let host = Host::start("");
    let body = json!({"model": "demo", "messages": [{"role": "user", "content": "x"}]}).to_string();
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("host", "evil.example"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let request = host
            .client()
            .post(host.url("/v1/chat/completions"))
            .header(name, value)
            .body(body.clone());
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 403, "{name}: {value}");
        assert!(
            !response
                .headers()
                .contains_key("access-control-allow-origin")
        );
    }
    let preflight = host
        .client()
        .request(reqwest::Method::OPTIONS, host.url("/v1/chat/completions"));
    let response = preflight
        .header("origin", "https://evil.example")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 403);
}

#[tokio::test]
async fn with_keys_a_caller_needs_one_but_health_checks_do_not() {
    let host = Host::start("api_keys = [\"s3cret\"]");
    let status = async |path: &str, key: Option<&str>| {
        let mut request = host.client().get(host.url(path));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(status("/v1/models", None).await, 401);
    assert_eq!(status("/v1/models", Some("wrong")).await, 401);
    assert_eq!(status("/metrics", None).await, 401);
    assert_eq!(status("/v1/models", Some("s3cret")).await, 200);
    assert_eq!(status("/health", None).await, 503);
    assert!(!host.log().contains("s3cret"));
}

#[tokio::test]
async fn only_a_key_for_operators_opens_the_admin_area() {
    let client = sha256(b"a key of a client");
    let host = Host::start(&format!(
        "[keys.n8n]\nkey = \"sha256:{client}\"\n[keys.operator]\nkey = \"a key of an operator\"\nadmin = true\n"
    ));
    let ask = async |method: &str, path: &str, key: &str| {
        let request = host
            .client()
            .request(method.parse().unwrap(), host.url(path));
        let response = request.bearer_auth(key).send().await.unwrap();
        response.status().as_u16()
    };
    for (method, path) in [("GET", "/metrics"), ("POST", "/admin/reload")] {
        assert_eq!(ask(method, path, "a key of a client").await, 403, "{path}");
        assert_eq!(
            ask(method, path, "a key of an operator").await,
            200,
            "{path}"
        );
        assert_eq!(ask(method, path, "another").await, 401, "{path}");
    }
    let demo = json!({"model": "demo", "messages": [{"role": "user", "content": "x"}]});
    let url = host.url("/v1/chat/completions");
    let request = host.client().post(url).bearer_auth("a key of a client");
    assert_eq!(request.json(&demo).send().await.unwrap().status(), 200);
    let log = host.logged("key=\"n8n\"").await;
    assert!(!log.contains("a key of"), "{log}");
}

#[tokio::test]
async fn a_page_of_this_service_may_call_it_and_no_other_page() {
    let host = Host::start("");
    let post = async |path: &str, origin: String| {
        let request = host.client().post(host.url(path)).header("origin", origin);
        let request = request.header("sec-fetch-site", "same-origin");
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(post("/admin/reload", host.url("")).await, 200);
    // Nothing came that could be answered.
    assert_eq!(post("/v1/chat/completions", host.url("")).await, 400);
    for path in ["/admin/reload", "/v1/chat/completions"] {
        assert_eq!(post(path, "http://evil.example".into()).await, 403);
    }
}

#[tokio::test]
async fn nobody_else_gets_at_a_unix_socket_not_even_for_a_moment() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("socket");
    let host = Host::start_in(home, "");
    host.add_address(&format!("unix:{}", socket.display()));
    let mode = harness_tests::poll::until(
        "the socket",
        std::time::Duration::from_secs(5),
        async || Some(std::fs::metadata(&socket).ok()?.permissions().mode() & 0o777),
    )
    .await;
    assert_eq!(mode, 0o600);
    // It is made so, and not changed afterwards: nothing that this program makes is for others.
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    assert!(status.contains("Umask:\t0077"), "{status}");
}

#[tokio::test]
async fn listed_pages_may_call_with_a_key_and_no_other() {
    let host = Host::start(
        "api_keys = [\"secret-key-of-the-test\"]\nallowed_origins = [\"app://obsidian.md\"]\n[backends.demo]\nprofile = \"demo\"\n",
    );
    let url = host.url("/v1/chat/completions");
    let preflight = async |origin: &str| {
        let request = host.client().request(reqwest::Method::OPTIONS, &url);
        let request = request
            .header("origin", origin)
            .header("access-control-request-method", "POST");
        let asked = "authorization, content-type, x-stainless-os";
        request
            .header("access-control-request-headers", asked)
            .send()
            .await
            .unwrap()
    };
    let allowed = preflight("app://obsidian.md").await;
    assert_eq!(allowed.status().as_u16(), 204);
    assert_eq!(
        allowed.headers()["access-control-allow-origin"],
        "app://obsidian.md"
    );
    assert_eq!(
        allowed.headers()["access-control-allow-headers"],
        "authorization, content-type, x-stainless-os"
    );
    let refused = preflight("https://evil.example").await;
    assert!(!refused.status().is_success());
    assert!(
        !refused
            .headers()
            .contains_key("access-control-allow-origin")
    );
    let body =
        serde_json::json!({"model": "demo", "messages": [{"role": "user", "content": "Hi"}]});
    let call = async |key: Option<&str>| {
        let request = host
            .client()
            .post(&url)
            .header("origin", "app://obsidian.md")
            .json(&body);
        let request = key
            .into_iter()
            .fold(request, |request, key| request.bearer_auth(key));
        request.send().await.unwrap()
    };
    let answer = call(Some("secret-key-of-the-test")).await;
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(
        answer.headers()["access-control-allow-origin"],
        "app://obsidian.md"
    );
    // A page learns why it was refused.
    let unknown = call(None).await;
    assert_eq!(unknown.status().as_u16(), 401);
    assert_eq!(
        unknown.headers()["access-control-allow-origin"],
        "app://obsidian.md"
    );
}
