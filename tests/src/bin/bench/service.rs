//! A service that is measured, and what it takes.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use harness_tests::fake_api::FakeApi;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A running service.
pub(crate) struct Service {
    child: Child,
    pub(crate) authority: String,
    /// From its launch to the line that it listens.
    pub(crate) start: Duration,
    _home: TempDir,
}

/// What a process takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) resident: f64,
    pub(crate) cpu: Duration,
    pub(crate) descriptors: usize,
}

impl Service {
    pub(crate) fn start(program: &Path, cache: &Path, config: &str) -> Result<Self> {
        Self::start_pinned(program, cache, config, false)
    }

    /// The same; if it is pinned, on one processor.
    pub(crate) fn start_pinned(
        program: &Path,
        cache: &Path,
        config: &str,
        is_pinned: bool,
    ) -> Result<Self> {
        let home = tempfile::tempdir()?;
        std::fs::write(home.path().join("harness.toml"), config)?;
        let started = Instant::now();
        let mut command = match is_pinned {
            true => {
                let mut command = Command::new("taskset");
                command.args(["-c", "0"]).arg(program);
                command
            }
            false => Command::new(program),
        };
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(home.path().join("harness.toml"))
            .env_clear()
            .env("HOME", home.path())
            .env("PATH", "/usr/bin:/bin")
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

    /// Waits until no guest is being compiled any more, which takes as much of the processor as serving.
    pub(crate) fn compiled(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let mut stream = std::net::TcpStream::connect(&self.authority)?;
            stream.write_all(b"GET /health HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
            let mut health = String::new();
            stream.read_to_string(&mut health)?;
            if health.contains("claude-code") && !health.contains("\"compiling\":true") {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "not compiled: {health}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it takes now.
    pub(crate) fn taken(&self) -> Result<Taken> {
        let proc = format!("/proc/{}", self.child.id());
        let status = std::fs::read_to_string(format!("{proc}/status"))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        let kib: f64 = kib.context("no VmRSS")?.parse()?;
        Ok(Taken {
            resident: kib / 1000.0,
            cpu: processor_time(self.child.id())?,
            descriptors: std::fs::read_dir(format!("{proc}/fd"))?.count(),
        })
    }

    /// The most memory that it has held, in MB.
    pub(crate) fn peak(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(kib.context("no VmHWM")?.parse::<f64>()? / 1000.0)
    }

    /// Waits until so many processes of a backend are warm, and have finished their start.
    pub(crate) async fn warmed(&self, backend: &str, count: u64) -> Result<()> {
        /// Longer than the slower of the two command lines computes at its start.
        const REST: Duration = Duration::from_millis(1500);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let health = self.get("/health").await?;
            if health["backends"][backend]["warm"] == count {
                break tokio::time::sleep(REST).await;
            }
            ensure!(Instant::now() < deadline, "no warm processes: {health}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Waits until at least so many processes of a backend are warm.
    pub(crate) async fn warmed_at_least(&self, backend: &str, count: u64) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(180);
        loop {
            let health = self.get("/health").await?;
            if health["backends"][backend]["warm"].as_u64() >= Some(count) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "too few warm processes: {health}"
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Asks for an answer in one piece.
    pub(crate) async fn whole(&self, body: &Value) -> Result<Value> {
        let url = format!("http://{}/v1/chat/completions", self.authority);
        let client = harness_tests::http::client().build()?;
        let response = client.post(url).json(body).send().await?;
        let status = response.status();
        let answer: Value = response.json().await?;
        ensure!(status.is_success(), "{status}: {answer}");
        Ok(answer)
    }

    /// The processor time of all processes of the service, those that have ended included.
    pub(crate) fn cpu_of_all(&self) -> Result<Duration> {
        let mut ticks = 0;
        for pid in self.descendants().into_iter().chain([self.child.id()]) {
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
                continue;
            };
            let fields = stat.rsplit_once(')').context("no name")?.1;
            let fields: Vec<&str> = fields.split_whitespace().collect();
            for field in &fields[11..15] {
                ticks += field.parse::<u64>()?;
            }
        }
        Ok(Duration::from_millis(ticks * 10))
    }

    /// The ids of all processes that it started, and of those that they started.
    fn descendants(&self) -> Vec<u32> {
        let (mut left, mut all) = (vec![self.child.id()], Vec::new());
        while let Some(pid) = left.pop() {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
            for task in tasks.into_iter().flatten().flatten() {
                let children = std::fs::read_to_string(task.path().join("children"));
                let children = children.unwrap_or_default();
                let children = children.split_whitespace();
                let children: Vec<u32> = children.filter_map(|pid| pid.parse().ok()).collect();
                left.extend(&children);
                all.extend(children);
            }
        }
        all
    }

    /// The memory of the processes that the service started, in MB.
    pub(crate) fn processes_memory(&self) -> Result<f64> {
        let mut resident = 0.0;
        for pid in self.descendants() {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find(|line| line.starts_with("VmRSS:"));
            let kib = line.and_then(|line| line.split_whitespace().nth(1));
            resident += kib.map_or(Ok(0.0), str::parse)? / 1000.0;
        }
        Ok(resident)
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        let url = format!("http://{}{path}", self.authority);
        Ok(harness_tests::http::client()
            .build()?
            .get(url)
            .send()
            .await?
            .json()
            .await?)
    }

    /// Asks for a stream with this body.
    pub(crate) async fn ask(&self, body: &Value) -> Result<Answer> {
        Answer::to(&self.authority, body).await
    }

    /// From a request to its first content; the rest is read to its end.
    pub(crate) async fn first_content(&self, body: &Value) -> Result<Duration> {
        let started = Instant::now();
        let mut answer = self.ask(body).await?;
        answer.until(CONTENT).await?;
        let first = started.elapsed();
        answer.whole().await?;
        Ok(first)
    }
}

/// A configuration with a real command line that reaches nothing but the fake API. Its model is `m`.
pub(crate) fn real_config(cli: &Path, api: &FakeApi, home: &Path, settings: &str) -> String {
    format!(
        "[backends.claude]\ncommand = \"{}\"\nenv = {{ ANTHROPIC_BASE_URL = \"{}\", HTTPS_PROXY = \"http://127.0.0.1:9\", NO_PROXY = \"127.0.0.1\", CLAUDE_CODE_OAUTH_TOKEN = \"any\", CLAUDE_CONFIG_DIR = \"{}\" }}\n{settings}\n[models.m]\nbackend = \"claude\"\nmodel = \"sonnet\"\n",
        cli.display(),
        api.url(),
        home.display()
    )
}

/// What a chunk with content begins with.
pub(crate) const CONTENT: &str = "\"delta\":{\"content\":\"";

/// The answer to a request for a stream, as it comes.
pub(crate) struct Answer {
    stream: TcpStream,
    pub(crate) all: Vec<u8>,
}

impl Answer {
    /// To a chat completion.
    pub(crate) async fn to(authority: &str, body: &Value) -> Result<Self> {
        Self::at(authority, "/v1/chat/completions", body).await
    }

    pub(crate) async fn at(authority: &str, path: &str, body: &Value) -> Result<Self> {
        let body = body.to_string();
        let mut stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
        Ok(Answer {
            stream,
            all: Vec::new(),
        })
    }

    /// Reads more; false at the end.
    pub(crate) async fn more(&mut self) -> Result<bool> {
        self.all.reserve(64 << 10);
        Ok(self.stream.read_buf(&mut self.all).await? > 0)
    }

    /// Reads until `wanted` has come; the time at which it had, and what stands from there on.
    pub(crate) async fn until(&mut self, wanted: &str) -> Result<(SystemTime, String)> {
        loop {
            let more = self.more().await?;
            let now = SystemTime::now();
            let text = String::from_utf8_lossy(&self.all);
            if let Some(at) = text.find(wanted) {
                return Ok((now, text[at..].to_owned()));
            }
            ensure!(more, "the stream ended: {text}");
        }
    }

    /// Reads to the end.
    pub(crate) async fn whole(&mut self) -> Result<()> {
        while self.more().await? {}
        Ok(())
    }
}

/// A request for a stream, with little to say.
pub(crate) fn say_hi(model: &str) -> Value {
    json!({"model": model, "stream": true, "messages": [{"role": "user", "content": "Say hi"}]})
}

/// The processor time that a process has used. What `/proc` tells of it is counted in steps of 10 ms.
#[expect(unsafe_code, reason = "two calls of C")]
fn processor_time(process: u32) -> Result<Duration> {
    let mut clock = 0;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: each writes into the one place that it is given.
    let failed = unsafe {
        libc::clock_getcpuclockid(process as libc::pid_t, &raw mut clock) != 0
            || libc::clock_gettime(clock, &raw mut time) != 0
    };
    ensure!(!failed, "the processor time of {process} is not told");
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
