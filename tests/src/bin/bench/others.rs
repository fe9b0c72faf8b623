//! The same work through other services; `tests/others` installs them.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use harness_tests::fake_api::FakeApi;
use harness_tests::real_cli;
use tempfile::TempDir;

use crate::fake::COLD;
use crate::service::{Answer, Service, real_config, say_hi};
use crate::table::{Times, row};

/// How often each thing is measured.
const ROUNDS: usize = 5;

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
    let version = real_cli::VERSIONS[0];
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
                    row(
                        other.name,
                        &format!("does not answer: {error:#}").replace('\n', " "),
                        "",
                    );
                }
            }
            Err(error) => row(other.name, &format!("not measured: {error:#}"), ""),
        }
    }
    Ok(())
}

async fn measure(name: &str, authority: &str) -> Result<()> {
    first_text(authority).await?;
    let mut times = Times::default();
    for _ in 0..ROUNDS {
        // For those that keep something warm, or have to clear something away.
        tokio::time::sleep(Duration::from_secs(3)).await;
        times.push(first_text(authority).await?);
    }
    row(&format!("first content, {name}"), &times.spread(), "");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let burst: Vec<_> = (0..8).map(|_| first_text(authority)).collect();
    let mut times = Times::default();
    for time in futures_util::future::try_join_all(burst).await? {
        times.push(time);
    }
    row(
        &format!("first content, eight at once, {name}"),
        &times.spread(),
        "",
    );
    Ok(())
}

/// From a request to the first words of its answer, however they are framed.
async fn first_text(authority: &str) -> Result<Duration> {
    let patience = Duration::from_secs(30);
    let asked = async {
        let started = Instant::now();
        let mut answer = Answer::to(authority, &say_hi(MODEL)).await?;
        answer.until("Hello").await?;
        let first = started.elapsed();
        answer.whole().await?;
        anyhow::Ok(first)
    };
    tokio::time::timeout(patience, asked)
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
