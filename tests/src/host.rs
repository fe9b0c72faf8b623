//! A service under test: the real program, with a private home and a scrubbed environment.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long the service may take to listen: a cold compile of its guests under load.
const START: Duration = Duration::from_secs(60);

/// A running service. Dropping it kills it.
pub struct Host {
    child: Child,
    home: Option<TempDir>,
    address: String,
    log: Arc<Mutex<String>>,
    client: reqwest::Client,
}

/// The program under test, beside this one in cargo's target directory.
pub fn program() -> PathBuf {
    sibling("claude-harness")
}

/// The fake command line.
pub fn fake_cli() -> PathBuf {
    sibling("fake-cli")
}

/// Settings of a backend whose requests have a process each, unless they say otherwise.
pub fn process_per_request(settings: &str) -> String {
    let defaults = [("warm", "0"), ("continue_for", "\"0s\"")];
    let left = defaults
        .iter()
        .filter(|(key, _)| !settings.contains(&format!("{key} =")));
    let left = left.map(|(key, value)| format!("{key} = {value}\n"));
    left.collect::<String>() + settings
}

fn sibling(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("the path of this program");
    let folder = this.parent().expect("a folder");
    let folder = if folder.ends_with("deps") {
        folder.parent().expect("a folder")
    } else {
        folder
    };
    let program = folder.join(name);
    assert!(
        program.is_file(),
        "{} is not built: run `cargo test --workspace`",
        program.display()
    );
    program
}

impl Host {
    /// Starts a service with this configuration; `listen` is added to it.
    pub fn start(config: &str) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary folder"), config)
    }

    /// The same in a folder that was prepared before: it is the service's home, and relative
    /// paths of the configuration start there.
    pub fn start_in(home: TempDir, config: &str) -> Self {
        let mut command = Command::new(program());
        command.stdin(Stdio::null());
        Self::launch(home, config, command)
    }

    /// The same on a socket that listens already, as systemd hands it on.
    pub fn start_on(socket: &TcpListener, home: TempDir, config: &str) -> Self {
        let mut shell = Command::new("/bin/sh");
        let takes_socket = r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@" 3<&0 0</dev/null"#;
        shell.args(["-c", takes_socket]).arg(program());
        let socket = socket.try_clone().expect("another descriptor");
        shell.stdin(OwnedFd::from(socket));
        Self::launch(home, config, shell)
    }

    /// The same with another variable in its environment.
    pub fn start_with_variable(home: TempDir, variable: (&str, &Path), config: &str) -> Self {
        let mut command = Command::new(program());
        command.stdin(Stdio::null());
        Self::launch_with(home, config, command, &[variable])
    }

    /// The same with at most so many descriptors.
    pub fn start_with_descriptors(count: usize, config: &str) -> Self {
        let mut shell = Command::new("/bin/sh");
        let bounded = format!(r#"ulimit -n {count}; exec "$0" "$@""#);
        shell
            .args(["-c", &bounded])
            .arg(program())
            .stdin(Stdio::null());
        Self::launch(
            tempfile::tempdir().expect("a temporary folder"),
            config,
            shell,
        )
    }

    fn launch(home: TempDir, config: &str, command: Command) -> Self {
        Self::launch_with(home, config, command, &[])
    }

    fn launch_with(
        home: TempDir,
        config: &str,
        mut command: Command,
        variables: &[(&str, &Path)],
    ) -> Self {
        let file = home.path().join("harness.toml");
        std::fs::write(&file, format!("listen = [\"127.0.0.1:0\"]\n{config}"))
            .expect("a configuration");
        let mut child = command
            .args(["serve", "--config"])
            .arg(&file)
            .env_clear()
            .env("HOME", home.path())
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("XDG_CACHE_HOME", cache_dir())
            .env("CLAUDE_HARNESS_LOG", "debug")
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the service starts");
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().expect("a pipe");
        std::thread::spawn({
            let log = log.clone();
            move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let mut log = log.lock().expect("the log");
                    log.push_str(&line);
                    log.push('\n');
                }
            }
        });
        let address = wait_for_address(&mut child, &log);
        // No connection outlives its request: the tests count descriptors.
        let client = crate::http::client()
            .pool_max_idle_per_host(0)
            .build()
            .expect("a client");
        Host {
            child,
            home: Some(home),
            address,
            log,
            client,
        }
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    /// `IP:PORT`
    pub fn authority(&self) -> &str {
        self.address.trim_start_matches("http://")
    }

    /// The service's home.
    pub fn home(&self) -> &Path {
        self.home.as_ref().expect("a home").path()
    }

    /// Its home, for the next service to live in.
    pub fn take_home(&mut self) -> TempDir {
        self.home.take().expect("a home")
    }

    /// The service's process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// What the service has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }

    /// Waits until the log contains `part`, and returns all of it: lines come a moment later than
    /// the responses that they are about.
    pub async fn logged(&self, part: &str) -> String {
        crate::poll::until(part, Duration::from_secs(10), async || {
            Some(self.log()).filter(|log| log.contains(part))
        })
        .await
    }

    /// A client of the service.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// Replaces the configuration's file.
    pub fn reconfigure(&self, config: &str) {
        let file = self.home().join("harness.toml");
        std::fs::write(file, format!("listen = [\"127.0.0.1:0\"]\n{config}"))
            .expect("a configuration");
    }

    /// Has the configuration's file name another address to listen on.
    pub fn add_address(&self, address: &str) {
        let file = self.home().join("harness.toml");
        let config = std::fs::read_to_string(&file).expect("a configuration");
        let both = config.replace(
            "[\"127.0.0.1:0\"]",
            &format!("[\"127.0.0.1:0\", \"{address}\"]"),
        );
        std::fs::write(file, both).expect("a configuration");
    }

    /// Asks for a chat completion with one message of the user.
    pub async fn ask(&self, model: &str, text: &str) -> (u16, Value) {
        self.post(&json!({"model": model, "messages": [{"role": "user", "content": text}]}))
            .await
    }

    /// Sends a body to the chat completions, and reads the whole answer as JSON.
    pub async fn post(&self, body: &Value) -> (u16, Value) {
        let response = self.send(body).await;
        let status = response.status().as_u16();
        let text = response.text().await.expect("an answer");
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    /// Sends a body to the chat completions.
    pub async fn send(&self, body: &Value) -> reqwest::Response {
        let request = self
            .client
            .post(self.url("/v1/chat/completions"))
            .json(body);
        request.send().await.expect("a response")
    }

    /// Asks for a stream, and reads all of it.
    pub async fn stream(&self, body: &Value) -> (u16, String) {
        let mut body = body.clone();
        body["stream"] = true.into();
        let response = self.send(&body).await;
        let status = response.status().as_u16();
        (status, response.text().await.expect("a stream"))
    }

    /// Reads a path as JSON.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        let response = self
            .client
            .get(self.url(path))
            .send()
            .await
            .expect("a response");
        let status = response.status().as_u16();
        (status, response.json().await.expect("JSON"))
    }

    /// Reads a path as JSON, with a key.
    pub async fn get_with(&self, key: &str, path: &str) -> (u16, Value) {
        let request = self.client.get(self.url(path)).bearer_auth(key);
        let response = request.send().await.expect("a response");
        let status = response.status().as_u16();
        (status, response.json().await.expect("JSON"))
    }

    /// Reads a path as text.
    pub async fn text(&self, path: &str) -> (u16, String) {
        let response = self.client.get(self.url(path)).send().await;
        let response = response.expect("a response");
        let status = response.status().as_u16();
        (status, response.text().await.expect("a text"))
    }

    /// Has the service look for new guests now.
    pub async fn reload(&self) -> Value {
        let response = self
            .client
            .post(self.url("/admin/reload"))
            .send()
            .await
            .expect("a response");
        response.json().await.expect("JSON")
    }

    /// Sends a signal to the service.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid()).expect("a process id");
        kill_process(pid, signal).expect("it can be signalled");
    }

    /// Kills the service without warning.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Waits for the service's end and returns its status.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the service's log ---\n{}", self.log());
        }
    }
}

fn wait_for_address(child: &mut Child, log: &Mutex<String>) -> String {
    let deadline = Instant::now() + START;
    loop {
        let text = log.lock().expect("the log").clone();
        if let Some(line) = text
            .lines()
            .find_map(|line| line.strip_prefix("listening on "))
        {
            return line.to_owned();
        }
        let ended = child.try_wait().expect("its state").is_some();
        assert!(
            !ended && Instant::now() < deadline,
            "the service does not listen:\n{text}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Compiled guests are shared by all tests of a run.
fn cache_dir() -> PathBuf {
    crate::real_cli::target_dir().join("tests-cache")
}

/// The text of a whole stream: its deltas' content.
pub fn streamed_text(stream: &str) -> String {
    chunks(stream)
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect()
}

/// The chunks of a stream, without its end mark.
pub fn chunks(stream: &str) -> Vec<Value> {
    let data = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).expect("a chunk"))
        .collect()
}

/// An answer is an error with this status and code, and its message says this.
#[track_caller]
pub fn assert_refused((status, answer): &(u16, Value), expected: (u16, &str), says: &str) {
    let error = &answer["error"];
    let code = error["code"].as_str().unwrap_or_default();
    assert_eq!((*status, code), expected, "{answer}");
    assert!(
        error["message"].as_str().expect("a message").contains(says),
        "{answer}"
    );
}
