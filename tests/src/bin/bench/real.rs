//! The real command lines, with the service and straight.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use harness_tests::fake_api::FakeApi;
use harness_tests::real_cli;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::fake::COLD;
use crate::service::{Service, real_config, say_hi};
use crate::table::{Times, ratio, row};

/// How often each thing is measured.
const ROUNDS: usize = 9;

/// How many turns a conversation goes on for: they are short, and vary by half.
const TURNS: usize = 31;

/// What is asked without the service: as long as "Say hi", and told apart from it at the API.
const STRAIGHT: &str = "Say ho";

/// Longer than a command line computes at its start.
const REST: Duration = Duration::from_millis(2500);

/// A command line of one version, and the API behind it.
struct Bench {
    version: &'static str,
    program: PathBuf,
    api: FakeApi,
    home: TempDir,
    cache: TempDir,
}

/// Measures all versions that are there.
pub(crate) async fn compare(program: &Path) -> Result<()> {
    for version in real_cli::VERSIONS {
        let Some(cli) = real_cli::find(version, "the benchmark") else {
            continue;
        };
        let bench = Bench {
            version,
            program: cli,
            api: FakeApi::start().await?,
            home: tempfile::tempdir()?,
            cache: tempfile::tempdir()?,
        };
        bench.one_at_a_time(program).await?;
        bench.continued(program).await?;
        bench.eight_at_once(program).await?;
        bench.request_size()?;
    }
    Ok(())
}

impl Bench {
    fn service(&self, program: &Path, settings: &str) -> Result<Service> {
        let settings = format!("max_concurrent = 8\n{settings}");
        let config = real_config(&self.program, &self.api, self.home.path(), &settings);
        let config = format!("warm_memory = \"8GiB\"\n{config}");
        Service::start(program, self.cache.path(), &config)
    }

    fn row(&self, what: &str, times: &Times, wanted: &str) {
        row(
            &format!("{what}, Claude Code {}", self.version),
            &times.spread(),
            wanted,
        );
    }

    /// Time to the first content with a process spawned for the request and with a warm one, each
    /// through the service and straight from the command line, by turns.
    async fn one_at_a_time(&self, program: &Path) -> Result<()> {
        let cold_service = self.service(program, COLD)?;
        let warm_service = self.service(program, "warm = 1\ncontinue_for = \"0s\"")?;
        let [mut cold, mut cold_cli, mut warm, mut warm_cli] = [(); 4].map(|()| Times::default());
        for _ in 0..ROUNDS {
            warm_service.warmed("claude", 1).await?;
            cold.push(cold_service.first_content(&say_hi("m")).await?);
            let started = Instant::now();
            let mut cli = Cli::start(self)?;
            cli.open().await?;
            cli.ask(STRAIGHT).await?;
            cold_cli.push(started.elapsed());
            cli.end().await?;
            let mut cli = Cli::start(self)?;
            tokio::time::sleep(REST).await;
            warm.push(warm_service.first_content(&say_hi("m")).await?);
            // The service starts another one as soon as it is quiet.
            warm_service.warmed("claude", 1).await?;
            let started = Instant::now();
            cli.open().await?;
            cli.ask(STRAIGHT).await?;
            warm_cli.push(started.elapsed());
            cli.end().await?;
        }
        self.row("first content, process spawned for the request", &cold, "");
        self.row("the same straight from the CLI", &cold_cli, "");
        let eighth = ratio(cold.median(), warm.median());
        self.row(
            &format!("first content, process warm ({eighth} times as fast)"),
            &warm,
            "8 times as fast (2.1.197)",
        );
        let times = ratio(warm.median(), warm_cli.median());
        self.row(
            &format!("the same straight from the CLI (through the service: {times} times)"),
            &warm_cli,
            "1.25 times",
        );
        Ok(())
    }

    /// Further turns of a conversation, through the service and straight.
    async fn continued(&self, program: &Path) -> Result<()> {
        let service = self.service(program, "warm = 0\ncontinue_for = \"60s\"")?;
        let mut cli = Cli::start(self)?;
        cli.open().await?;
        cli.ask(STRAIGHT).await?;
        cli.turn_end().await?;
        let mut messages = json!([]);
        let [mut through, mut straight] = [(); 2].map(|()| Times::default());
        for round in 0..=TURNS {
            let list = messages.as_array_mut().context("a list")?;
            list.push(json!({"role": "user", "content": "scenario:hello"}));
            let body = json!({"model": "m", "stream": true, "messages": messages});
            let first = service.first_content(&body).await?;
            let list = messages.as_array_mut().context("a list")?;
            list.push(json!({"role": "assistant", "content": "Hello there"}));
            tokio::time::sleep(Duration::from_millis(300)).await;
            let started = Instant::now();
            cli.ask("scenario:hello").await?;
            if round > 0 {
                through.push(first);
                straight.push(started.elapsed());
            }
            cli.turn_end().await?;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        cli.end().await?;
        let times = ratio(through.median(), straight.median());
        self.row("first content of a continued turn", &through, "");
        self.row(
            &format!("the same straight from the CLI (through the service: {times} times)"),
            &straight,
            "1.25 times",
        );
        Ok(())
    }

    /// A burst of eight, with eight warm processes and with none.
    async fn eight_at_once(&self, program: &Path) -> Result<()> {
        for (settings, what, wanted) in [
            (
                "warm = 8\ncontinue_for = \"0s\"",
                "first content, eight at once, eight warm",
                "700 ms",
            ),
            (COLD, "first content, eight at once, none warm", ""),
        ] {
            let service = self.service(program, settings)?;
            let mut times = Times::default();
            for _ in 0..3 {
                if settings != COLD {
                    service.warmed("claude", 8).await?;
                }
                let body = say_hi("m");
                let burst: Vec<_> = (0..8).map(|_| service.first_content(&body)).collect();
                for time in futures_util::future::try_join_all(burst).await? {
                    times.push(time);
                }
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            self.row(what, &times, wanted);
        }
        Ok(())
    }

    /// Bytes that reach the API for "Say hi".
    fn request_size(&self) -> Result<()> {
        let asked = self.api.requests("Say hi");
        let size = asked
            .iter()
            .map(|r| r.size)
            .max()
            .context("no request came")?;
        let what = format!(
            "size of the request that the CLI sends to the API for \"Say hi\", Claude Code {}",
            self.version
        );
        row(&what, &format!("{size} bytes"), "2000 bytes");
        Ok(())
    }
}

/// A command line that is driven without the service, as the service drives it.
struct Cli {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    _workdir: TempDir,
}

impl Cli {
    fn start(bench: &Bench) -> Result<Self> {
        let workdir = tempfile::tempdir()?;
        let flags = "-p --input-format stream-json --output-format stream-json --verbose --include-partial-messages --strict-mcp-config --disable-slash-commands --no-session-persistence --model sonnet";
        let mut child = Command::new(&bench.program)
            .args(flags.split(' '))
            .args(["--tools", "", "--setting-sources", ""])
            .env_clear()
            .env("HOME", bench.home.path())
            .env("CLAUDE_CONFIG_DIR", bench.home.path())
            .env("PATH", "/usr/bin:/bin")
            .env("ANTHROPIC_BASE_URL", bench.api.url())
            .env("CLAUDE_CODE_OAUTH_TOKEN", "any")
            .env("CLAUDE_CODE_DISABLE_ATTACHMENTS", "1")
            .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
            .env("CLAUDE_CODE_MAX_RETRIES", "0")
            .env("DISABLE_AUTOUPDATER", "1")
            .env("DISABLE_TELEMETRY", "1")
            .env("DISABLE_ERROR_REPORTING", "1")
            .current_dir(workdir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("no pipe")?;
        Ok(Cli {
            stdin: child.stdin.take().context("no pipe")?,
            stdout: BufReader::new(stdout).lines(),
            child,
            _workdir: workdir,
        })
    }

    async fn write(&mut self, line: Value) -> Result<()> {
        Ok(self.stdin.write_all(format!("{line}\n").as_bytes()).await?)
    }

    async fn open(&mut self) -> Result<()> {
        let request = json!({"subtype": "initialize", "systemPrompt": [""]});
        self.write(json!({"type": "control_request", "request_id": "1", "request": request}))
            .await
    }

    /// Asks, and waits for the first content.
    async fn ask(&mut self, text: &str) -> Result<()> {
        let message = json!({"role": "user", "content": [{"type": "text", "text": text}]});
        self.write(json!({"type": "user", "message": message}))
            .await?;
        self.until("\"text_delta\"").await
    }

    async fn turn_end(&mut self) -> Result<()> {
        self.until("\"duration_ms\"").await
    }

    async fn until(&mut self, part: &str) -> Result<()> {
        while let Some(line) = self.stdout.next_line().await? {
            if line.contains(part) {
                return Ok(());
            }
        }
        anyhow::bail!("the command line ended")
    }

    async fn end(mut self) -> Result<()> {
        self.child.kill().await?;
        Ok(())
    }
}
