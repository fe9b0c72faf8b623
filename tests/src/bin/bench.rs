//! The benchmark: prints a table of what the service costs. See "Speed" in the README.
//!
//! `./tests/bench` builds what it needs and runs it. The service is the release build; every
//! figure of a table comes from one run.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use harness_tests::fake_api::FakeApi;
use harness_tests::{host, real_cli};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Measures the service.
#[derive(Parser)]
struct Arguments {
    /// The release build of the service.
    #[arg(long)]
    program: PathBuf,
    /// Requests for each figure of time.
    #[arg(long, default_value_t = 300)]
    requests: usize,
}

/// A service that is measured.
struct Service {
    child: Child,
    authority: String,
    /// From its launch to the line that it listens.
    start: Duration,
    _home: TempDir,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    println!("| what | figure | wanted |\n|---|---|---|");
    starts(&arguments.program)?;
    added_time(&arguments).await?;
    long_requests(&arguments.program).await?;
    for version in real_cli::VERSIONS {
        request_size(&arguments.program, version).await?;
    }
    Ok(())
}

fn row(what: &str, figure: &str, wanted: &str) {
    println!("| {what} | {figure} | {wanted} |");
}

/// Start to listening, with and without compiled guests, and memory when idle.
fn starts(program: &Path) -> Result<()> {
    let cache = tempfile::tempdir()?;
    let cold = Service::start(program, cache.path(), "")?;
    row(
        "start to listening, cache of compiled guests cold",
        &millis(cold.start),
        "",
    );
    drop(cold);
    let mut warm = Vec::new();
    for _ in 0..20 {
        warm.push(Service::start(program, cache.path(), "")?.start);
    }
    row(
        "start to listening, cache warm (median of 20)",
        &millis(median(&mut warm)),
        "300 ms",
    );
    let idle = Service::start(program, cache.path(), "")?;
    // It looks for its command line, and compiles nothing more.
    std::thread::sleep(Duration::from_secs(2));
    row(
        "resident memory, idle",
        &format!("{:.1} MB", idle.resident_mb()?),
        "60 MB",
    );
    Ok(())
}

/// From the CLI's first delta on its standard output to the first content byte at the client.
async fn added_time(arguments: &Arguments) -> Result<()> {
    let cache = tempfile::tempdir()?;
    let script = tempfile::NamedTempFile::new()?;
    std::fs::write(&script, "#init\n#read\n#sleep 3\n#stamp\n#done\n")?;
    let config = fake(script.path());
    let service = Service::start(&arguments.program, cache.path(), &config)?;
    let (mut added, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..arguments.requests {
        let started = Instant::now();
        added.push(service.time_behind_stamp().await?);
        whole.push(started.elapsed());
    }
    let figures = format!(
        "p50 {}, p99 {}",
        micros(percentile(&mut added, 50)),
        micros(percentile(&mut added, 99))
    );
    row(
        "added by the host to the first delta, fake CLI",
        &figures,
        "p50 1 ms",
    );
    let whole = format!("p50 {}", millis(percentile(&mut whole, 50)));
    row(
        "request to first content, fake CLI spawned for it",
        &whole,
        "",
    );
    row(
        "resident memory after these requests",
        &format!("{:.1} MB", service.resident_mb()?),
        "",
    );
    Ok(())
}

/// What a long history and a long prompt take beside a short request, with a fake CLI that only
/// reads: what remains is the service's own time.
async fn long_requests(program: &Path) -> Result<()> {
    const TURNS: usize = 50;
    const PROMPT: usize = 2 << 20;
    let user = |text: &str| json!({"role": "user", "content": text});
    let turn = [
        user("question"),
        json!({"role": "assistant", "content": "answer"}),
    ];
    let mut history: Vec<_> = std::iter::repeat_n(turn, TURNS).flatten().collect();
    history.push(user("Say hi"));
    let replay = "#read\n{\"type\":\"result\",\"is_error\":false}\n#read\n".repeat(TURNS);
    let short = first_content(program, "", json!([user("Say hi")])).await?;
    let replayed = first_content(program, &replay, history.into()).await?;
    let prompted = first_content(program, "", json!([user(&"x".repeat(PROMPT))])).await?;
    row(
        "added by a history of 50 turns, for each turn",
        &micros(replayed.saturating_sub(short) / TURNS as u32),
        "5 ms",
    );
    row(
        "added by a prompt of 2 MB",
        &millis(prompted.saturating_sub(short)),
        "50 ms",
    );
    Ok(())
}

/// From a request to its first content, at the median, with a fake CLI that plays `replay` first.
async fn first_content(program: &Path, replay: &str, messages: Value) -> Result<Duration> {
    let script = tempfile::NamedTempFile::new()?;
    std::fs::write(
        &script,
        format!("#init\n{replay}#read\n#text Hello\n#done\n"),
    )?;
    let cache = tempfile::tempdir()?;
    let service = Service::start(program, cache.path(), &fake(script.path()))?;
    let body = json!({"model": "fake", "stream": true, "messages": messages});
    let mut times = Vec::new();
    for _ in 0..30 {
        let started = Instant::now();
        service.read_until(&body, "Hello").await?;
        times.push(started.elapsed());
    }
    Ok(median(&mut times))
}

/// A configuration with the fake CLI.
fn fake(script: &Path) -> String {
    format!(
        "[backends.fake]\ncommand = \"{}\"\nenv = {{ FAKE_CLI_SCRIPT = \"{}\" }}\n[models.fake]\nbackend = \"fake\"\n",
        host::fake_cli().display(),
        script.display()
    )
}

/// A request for a stream, with little to say.
fn say_hi(model: &str) -> Value {
    json!({"model": model, "stream": true, "messages": [{"role": "user", "content": "Say hi"}]})
}

/// Bytes that reach the API for "Say hi", and the time to the first content.
async fn request_size(program: &Path, version: &'static str) -> Result<()> {
    let Some(cli) = real_cli::find(version, "the benchmark") else {
        return Ok(());
    };
    let api = FakeApi::start().await?;
    let cache = tempfile::tempdir()?;
    let home = tempfile::tempdir()?;
    let config = format!(
        "[backends.claude]\ncommand = \"{}\"\nenv = {{ ANTHROPIC_BASE_URL = \"{}\", CLAUDE_CODE_OAUTH_TOKEN = \"any\", CLAUDE_CONFIG_DIR = \"{}\" }}\n",
        cli.display(),
        api.url(),
        home.path().display()
    );
    let service = Service::start(program, cache.path(), &config)?;
    let mut first = Vec::new();
    for _ in 0..7 {
        let started = Instant::now();
        service
            .read_until(&say_hi("claude-sonnet"), "Hello")
            .await?;
        first.push(started.elapsed());
    }
    let asked = api.requests("Say hi");
    let size = asked
        .iter()
        .map(|r| r.size)
        .max()
        .context("no request came")?;
    row(
        &format!("body of \"Say hi\" at the API, Claude Code {version}"),
        &format!("{size} bytes"),
        "2000 bytes",
    );
    let figure = format!("p50 {}", millis(median(&mut first)));
    row(
        &format!("request to first content, Claude Code {version} spawned for it"),
        &figure,
        "",
    );
    Ok(())
}

impl Service {
    fn start(program: &Path, cache: &Path, config: &str) -> Result<Self> {
        let home = tempfile::tempdir()?;
        std::fs::write(home.path().join("harness.toml"), config)?;
        let started = Instant::now();
        let mut child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(home.path().join("harness.toml"))
            .env_clear()
            .env("HOME", home.path())
            .env("XDG_CACHE_HOME", cache)
            .env("CLAUDE_HARNESS_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut lines = BufReader::new(child.stderr.take().context("no pipe")?).lines();
        let line = lines
            .by_ref()
            .map_while(Result::ok)
            .find(|line| line.starts_with("listening on http://"));
        let start = started.elapsed();
        let authority = line
            .context("it does not listen")?
            .replace("listening on http://", "");
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Service {
            child,
            authority,
            start,
            _home: home,
        })
    }

    fn resident_mb(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .context("no VmRSS")?;
        let kib: f64 = line
            .split_whitespace()
            .nth(1)
            .context("no number")?
            .parse()?;
        Ok(kib / 1000.0)
    }

    /// Asks for a stream with this body, and reads until `wanted` has come with its whole line.
    async fn read_until(&self, body: &Value, wanted: &str) -> Result<(String, SystemTime)> {
        let body = body.to_string();
        let mut stream = TcpStream::connect(&self.authority).await?;
        stream.set_nodelay(true)?;
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n",
            self.authority,
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
        let mut all = Vec::new();
        loop {
            ensure!(
                stream.read_buf(&mut all).await? > 0,
                "the stream ended: {}",
                String::from_utf8_lossy(&all)
            );
            let now = SystemTime::now();
            let text = String::from_utf8_lossy(&all);
            if let Some(at) = text.find(wanted) {
                return Ok((text[at..].to_owned(), now));
            }
        }
    }

    /// How long after the CLI printed its delta the client has it.
    async fn time_behind_stamp(&self) -> Result<Duration> {
        const BEFORE: &str = r#"{"content":"1"#;
        let (text, now) = self.read_until(&say_hi("fake"), BEFORE).await?;
        let digits: String = text[BEFORE.len() - 1..]
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        let stamp = Duration::from_nanos(digits.parse().context("no stamp")?);
        Ok(now.duration_since(UNIX_EPOCH)?.saturating_sub(stamp))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn median(times: &mut [Duration]) -> Duration {
    percentile(times, 50)
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort();
    times[(times.len() - 1) * percent / 100]
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn micros(time: Duration) -> String {
    format!("{:.0} µs", time.as_secs_f64() * 1e6)
}
