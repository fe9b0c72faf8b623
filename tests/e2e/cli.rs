//! A service with a real command line behind it, against the fake Messages API.

use std::path::Path;

use harness_tests::fake_api::FakeApi;
use harness_tests::host::{Host, process_per_request};
use harness_tests::real_cli;
use serde_json::{Value, json};
use tokio::sync::Mutex;

/// Held by each test with these: two of these command lines keep two cores busy, and what is measured
/// should be theirs alone.
pub(crate) static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A service with a real command line behind it.
pub(crate) struct Real {
    pub(crate) version: &'static str,
    pub(crate) host: Host,
    pub(crate) api: FakeApi,
}

/// All versions that are there.
pub(crate) async fn versions(test: &str) -> Vec<Real> {
    let mut all = Vec::new();
    for version in real_cli::VERSIONS {
        if let Some(program) = real_cli::find(version, test) {
            all.push(Real::start(version, &program, "", "").await);
        }
    }
    all
}

impl Real {
    pub(crate) async fn start(
        version: &'static str,
        program: &Path,
        backend: &str,
        rest: &str,
    ) -> Self {
        let api = FakeApi::start().await.unwrap();
        let home = tempfile::tempdir().unwrap();
        Self::start_in(home, version, program, &api, backend, rest)
    }

    pub(crate) fn start_in(
        home: tempfile::TempDir,
        version: &'static str,
        program: &Path,
        api: &FakeApi,
        backend: &str,
        rest: &str,
    ) -> Self {
        let backend = process_per_request(backend);
        let config = format!(
            r#"{rest}
            [backends.claude]
            command = "{}"
            env = {{ ANTHROPIC_BASE_URL = "{}", HTTPS_PROXY = "http://127.0.0.1:9", NO_PROXY = "127.0.0.1", CLAUDE_CODE_OAUTH_TOKEN = "any", CLAUDE_CONFIG_DIR = "{}" }}
            {backend}
            [models.claude-sonnet]
            backend = "claude"
            model = "sonnet"
            "#,
            program.display(),
            api.url(),
            home.path().join("claude").display(),
        );
        Real {
            version,
            host: Host::start_in(home, &config),
            api: api.clone(),
        }
    }

    /// The same messages, unary and streaming.
    pub(crate) async fn both(&self, messages: &Value) -> ((u16, Value), (u16, String)) {
        self.both_with(&json!({ "messages": messages })).await
    }

    /// The same request, unary and streaming.
    pub(crate) async fn both_with(&self, request: &Value) -> ((u16, Value), (u16, String)) {
        let mut body = request.clone();
        body["model"] = "claude-sonnet".into();
        let mut stream = body.clone();
        stream["stream_options"] = json!({"include_usage": true});
        tokio::join!(self.host.post(&body), self.host.stream(&stream))
    }
}

/// One message of the user.
pub(crate) fn user(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}

/// The message of a unary answer.
pub(crate) fn message(answer: &Value) -> &Value {
    &answer["choices"][0]["message"]
}
