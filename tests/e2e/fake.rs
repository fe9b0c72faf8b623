//! A service whose backend is the fake command line.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness_tests::host::{Host, fake_cli, process_per_request};
use harness_tests::poll;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

/// A service with the model `fake`, and the file in which its processes' ids are.
pub(crate) struct Fake {
    pub(crate) host: Host,
    script: PathBuf,
    pids: PathBuf,
}

impl Fake {
    /// Starts a service whose command line plays `script`.
    pub(crate) fn start(script: &str) -> Self {
        Self::start_with(script, "", "")
    }

    /// The same with more settings of the backend, and of the whole.
    pub(crate) fn start_with(script: &str, backend: &str, rest: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let config = Self::config(home.path(), backend, rest);
        Self::around(script, home, |home| Host::start_in(home, &config))
    }

    /// The same on a socket that listens already.
    pub(crate) fn start_on(socket: &TcpListener, script: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let config = Self::config(home.path(), "", "");
        Self::around(script, home, |home| Host::start_on(socket, home, &config))
    }

    /// The same in a folder that was prepared before, with a whole configuration.
    pub(crate) fn start_in(home: TempDir, script: &str, config: &str) -> Self {
        Self::around(script, home, |home| Host::start_in(home, config))
    }

    /// The same with another variable in its environment.
    pub(crate) fn start_with_variable(script: &str, variable: (&str, &Path), rest: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let config = Self::config(home.path(), "", rest);
        Self::around(script, home, |home| {
            Host::start_with_variable(home, variable, &config)
        })
    }

    fn around(script: &str, home: TempDir, start: impl FnOnce(TempDir) -> Host) -> Self {
        let (script_file, pids) = (home.path().join("script"), home.path().join("pids"));
        std::fs::write(&script_file, script).unwrap();
        Fake {
            host: start(home),
            script: script_file,
            pids,
        }
    }

    /// A configuration with the fake command line, for a service in this home.
    pub(crate) fn config(home: &Path, backend: &str, rest: &str) -> String {
        let backend = process_per_request(backend);
        format!(
            r#"{rest}
            [backends.fake]
            command = "{}"
            env = {{ FAKE_CLI_SCRIPT = "{}", FAKE_CLI_PIDS = "{}", FAKE_CLI_STDIN = "{}" }}
            {backend}
            [models.fake]
            backend = "fake"
            "#,
            fake_cli().display(),
            home.join("script").display(),
            home.join("pids").display(),
            home.join("stdin").display(),
        )
    }

    /// Has processes that start from now on play another script.
    pub(crate) fn play(&self, script: &str) {
        std::fs::write(&self.script, script).unwrap();
    }

    /// The ids of all processes that were started for requests.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let text = std::fs::read_to_string(&self.pids).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// The file with all lines that processes read.
    pub(crate) fn stdin(&self) -> PathBuf {
        self.host.home().join("stdin")
    }

    /// A client that asks, and whose socket takes little of the answer.
    pub(crate) async fn slow_client(&self, body: &Value) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let address = self.host.authority().parse().unwrap();
        let mut client = socket.connect(address).await.unwrap();
        let body = body.to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let request = format!("{head}{body}");
        client.write_all(request.as_bytes()).await.unwrap();
        client
    }

    /// Waits until so many processes were started.
    pub(crate) async fn started(&self, count: usize) -> Vec<i32> {
        poll::until(
            "the start of the processes",
            Duration::from_secs(10),
            async || Some(self.pids()).filter(|pids| pids.len() >= count),
        )
        .await
    }

    /// Waits until as many requests as this are served, and wait in the queue.
    pub(crate) async fn load(&self, in_flight: u64, queued: u64) {
        let what = format!("{in_flight} requests in flight and {queued} in the queue");
        poll::until(&what, Duration::from_secs(10), async || {
            let (_, health) = self.host.get("/health").await;
            let backend = &health["backends"]["fake"];
            (backend["in_flight"] == in_flight && backend["queued"] == queued).then_some(())
        })
        .await;
    }

    /// Waits until none of the processes is left.
    pub(crate) async fn all_gone(&self, limit: Duration) {
        poll::until("the end of all processes", limit, async || {
            self.pids()
                .iter()
                .all(|pid| !poll::is_alive(*pid))
                .then_some(())
        })
        .await;
    }
}

/// An answer of two words.
pub(crate) const ANSWER: &str = "#init\n#read\n#text Hello\n#text  there\n#done\n";
