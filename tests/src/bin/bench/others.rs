//! The same work through other services; `tests/others` installs them.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, stream};
use harness_tests::fake_api::FakeApi;
use harness_tests::real_cli;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fake::COLD;
use crate::reuse::{QUESTIONS, conversation, user};
use crate::service::{Answer, Service, real_config, say_hi};
use crate::table::{Times, row};

/// How often each thing is measured.
const ROUNDS: usize = 5;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the fake model's answers begin.
const SAYS: &str = "Hello";

/// What every service calls the model, more or less.
const MODEL: &str = "claude-sonnet-4";

/// A program, and how it is told the port.
struct Other {
    name: &'static str,
    program: &'static str,
    arguments: fn(u16) -> Vec<String>,
}

const OTHERS: [Other; 3] = [
    Other {
        name: "claude-code-openai 0.1.1 (PyPI)",
        program: "python/bin/claudegate",
        arguments: |port| {
            let port = port.to_string();
            [
                "serve",
                "--host",
                "127.0.0.1",
                "--port",
                &port,
                "--model",
                "sonnet",
            ]
            .map(str::to_owned)
            .to_vec()
        },
    },
    Other {
        name: "claude-max-api-proxy 1.0.0 (npm)",
        program: "node/node_modules/.bin/claude-max-api",
        arguments: |port| vec![port.to_string()],
    },
    Other {
        name: "claude-code-api 0.1.3 (the Rust registry)",
        program: "rust/bin/claude-code-api",
        arguments: |_| Vec::new(),
    },
];

/// A service of somebody else.
struct Running {
    child: Child,
    authority: String,
    _home: TempDir,
}

/// Measures the services in `folder`, and this one as they are: without anything warm.
pub(crate) async fn compare(program: &Path, folder: &Path) -> Result<()> {
    let [.., version] = real_cli::VERSIONS;
    let Some(cli) = real_cli::find(version, "the comparison") else {
        return Ok(());
    };
    let api = FakeApi::start().await?;
    let (cache, home) = (tempfile::tempdir()?, tempfile::tempdir()?);
    for (name, settings) in [
        ("this service, as configured by default", ""),
        ("this service, nothing warm", COLD),
    ] {
        let settings = format!("max_concurrent = 8\n{settings}");
        let config = real_config(&cli, &api, home.path(), &settings);
        let config = config.replace("[models.m]", &format!("[models.{MODEL}]"));
        let service = Service::start(program, cache.path(), &config)?;
        measure(name, &service.authority).await?;
    }
    for other in &OTHERS {
        match Running::start(other, folder, &cli, &api).await {
            Ok(running) => {
                if let Err(error) = measure(other.name, &running.authority).await {
                    row(other.name, &unmeasured(&error), "");
                }
            }
            Err(error) => row(other.name, &unmeasured(&error), ""),
        }
    }
    Ok(())
}

async fn measure(name: &str, authority: &str) -> Result<()> {
    let asked = |talk: &[Value]| json!({"model": MODEL, "stream": true, "messages": talk});
    first_text(authority, &say_hi(MODEL), SAYS).await?;
    let mut times = Times::default();
    for _ in 0..ROUNDS {
        settled().await;
        times.push(first_text(authority, &say_hi(MODEL), SAYS).await?);
    }
    row(&format!("first content, {name}"), &times.spread(), "");
    settled().await;
    let hi = say_hi(MODEL);
    let burst = (0..8).map(|_| first_text(authority, &hi, SAYS));
    let mut times = Times::default();
    for time in futures_util::future::try_join_all(burst).await? {
        times.push(time);
    }
    row(
        &format!("first content, eight at once, {name}"),
        &times.spread(),
        "",
    );
    settled().await;
    let rate = independent(authority).await?;
    row(
        &format!("{QUESTIONS} independent questions, four at a time, {name}"),
        &format!("{rate:.1} a second"),
        "",
    );
    let [mut again, mut edited] = [(); 2].map(|()| Times::default());
    for round in 0..ROUNDS {
        let talk = conversation(5, round);
        let edit = [&talk[..4], &[user(&format!("{round}, but different"))]].concat();
        settled().await;
        first_text(authority, &asked(&talk), SAYS).await?;
        settled().await;
        again.push(first_text(authority, &asked(&talk), SAYS).await?);
        settled().await;
        edited.push(first_text(authority, &asked(&edit), SAYS).await?);
    }
    for (what, times) in [("asked again", &again), ("edited two turns back", &edited)] {
        row(
            &format!("first content, {what}, {name}"),
            &times.spread(),
            "",
        );
    }
    let what = format!("first content after a function's result, {name}");
    match results(authority).await {
        Ok(times) => row(&what, &times.spread(), ""),
        Err(error) => row(&what, &unmeasured(&error), ""),
    }
    Ok(())
}

/// Why something was not measured, as one line.
fn unmeasured(error: &anyhow::Error) -> String {
    let why = format!("{error:#}");
    let line = why.lines().next().unwrap_or_default();
    let failed = why.contains("\"error\"").then_some(", with an error in it");
    format!("not measured: {line}{}", failed.unwrap_or_default())
}

/// For those that keep something warm, or have to clear something away.
async fn settled() {
    tokio::time::sleep(Duration::from_secs(3)).await;
}

/// Questions with one system prompt that have nothing to do with each other: how many a second.
async fn independent(authority: &str) -> Result<f64> {
    let ask = |i: usize| async move {
        let system = json!({"role": "system", "content": "Be brief."});
        let talk = [system, user(&format!("Question {i}"))];
        let body = json!({"model": MODEL, "stream": true, "messages": talk});
        first_text(authority, &body, SAYS).await
    };
    let started = Instant::now();
    let mut answers = stream::iter(0..QUESTIONS).map(ask).buffer_unordered(4);
    while let Some(answer) = answers.next().await {
        answer?;
    }
    Ok(QUESTIONS as f64 / started.elapsed().as_secs_f64())
}

/// The time to the first words after a function's result.
async fn results(authority: &str) -> Result<Times> {
    let url = format!("http://{authority}/v1/chat/completions");
    let client = harness_tests::http::client().timeout(PATIENCE).build()?;
    let tools = json!([{"type": "function", "function": {
        "name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]);
    let mut times = Times::default();
    for round in 0..ROUNDS {
        let mut talk = vec![user(&format!("What is the weather, {round}?"))];
        let body = json!({"model": MODEL, "messages": talk, "tools": tools});
        let answer: Value = client.post(&url).json(&body).send().await?.json().await?;
        let said = &answer["choices"][0]["message"];
        let id = &said["tool_calls"][0]["id"];
        anyhow::ensure!(id.is_string(), "no function is called");
        talk.extend([
            said.clone(),
            json!({"role": "tool", "tool_call_id": id, "content": "rain"}),
        ]);
        settled().await;
        let body = json!({"model": MODEL, "stream": true, "messages": talk, "tools": tools});
        times.push(first_text(authority, &body, "rain").await?);
    }
    Ok(times)
}

/// From a request to the first words of its answer, however they are framed.
async fn first_text(authority: &str, body: &Value, words: &str) -> Result<Duration> {
    let asked = async {
        let started = Instant::now();
        let mut answer = Answer::to(authority, body).await?;
        answer.until(words).await?;
        let first = started.elapsed();
        answer.whole().await?;
        anyhow::Ok(first)
    };
    tokio::time::timeout(PATIENCE, asked)
        .await
        .context("no answer within 30 s")?
}

impl Running {
    async fn start(other: &Other, folder: &Path, cli: &Path, api: &FakeApi) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let bin = home.path().join("bin");
        std::fs::create_dir(&bin)?;
        std::os::unix::fs::symlink(cli, bin.join("claude"))?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        let node = std::env::var("PATH").unwrap_or_default();
        let mut child = Command::new(folder.join(other.program))
            .args((other.arguments)(port))
            .env_clear()
            .env("PATH", format!("{}:{node}", bin.display()))
            .env("HOME", home.path())
            .env("CLAUDE_CONFIG_DIR", home.path().join("claude"))
            .env("ANTHROPIC_BASE_URL", api.url())
            .env("CLAUDE_CODE_OAUTH_TOKEN", "any")
            .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
            .env("DISABLE_AUTOUPDATER", "1")
            .env("DISABLE_TELEMETRY", "1")
            // All of them run the same version, whatever they bring along.
            .env("CLAUDEGATE_CLI_PATH", bin.join("claude"))
            .env("CLAUDE_CODE__SERVER__PORT", port.to_string())
            .env("CLAUDE_CODE__SERVER__HOST", "127.0.0.1")
            .env("CLAUDE_CODE__CLAUDE__COMMAND", bin.join("claude"))
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("it is not installed")?;
        let authority = format!("127.0.0.1:{port}");
        let deadline = Instant::now() + Duration::from_secs(30);
        while tokio::net::TcpStream::connect(&authority).await.is_err() {
            if Instant::now() > deadline || child.try_wait()?.is_some() {
                let _ = child.kill();
                let _ = child.wait();
                anyhow::bail!("it does not listen");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Running {
            child,
            authority,
            _home: home,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
