//! Guests: swapped while requests run, refused when they are bad, bounded when they are hostile.

mod bounds;
mod refused;
mod swaps;
mod words;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness_tests::host::{Host, fake_cli};
use harness_tests::poll;
use rustix::process::Signal;
use serde_json::{Value, json};

/// The committed component of a guest.
fn component(path: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read(root.join(path)).unwrap()
}

pub(crate) fn hostile_component() -> Vec<u8> {
    component("tests/guests/dist/hostile.wasm")
}

fn claude_code() -> Vec<u8> {
    component("guests/dist/claude-code.wasm")
}

/// The hostile guest with other words for `describe`: what it does, and the fields that it honours.
fn describing(deed: &str, honours: &str) -> Vec<u8> {
    let mut component = hostile_component();
    let words = format!("describe does {deed:7} honours {honours:32}");
    let begin = b"describe does nothing honours";
    let at = component
        .windows(begin.len())
        .position(|part| part == begin);
    let at = at.unwrap();
    component[at..at + words.len()].copy_from_slice(words.as_bytes());
    component
}

/// The same component with another digest: a custom section is appended, as tools do.
fn variant(number: u8) -> Vec<u8> {
    let mut bytes = claude_code();
    bytes.extend([0, 3, 1, b'v', number]);
    bytes
}

/// How long a change may take to be taken up: as long as compiling may take, which gives way to all else. Half a
/// second is usual, and a change that is missed is never taken up.
const PATIENCE: Duration = Duration::from_secs(120);

/// A service with a folder of guests, whose backend plays `script`.
struct Swapped {
    host: Host,
    folder: PathBuf,
}

/// The built-in dialects are left out: when they are loaded, there are generations that these tests do not count.
fn config(home: &Path, guest: &str, behaviour: &Value) -> String {
    format!(
        r#"
        dialects = {{ completions = false, messages = false, ollama = false, responses = false }}
        guests_dir = "guests"
        guest_call_timeout = "200ms"
        guest_memory = "64MiB"
        [backends.fake]
        adapter = "{guest}"
        command = "{}"
        env = {{ FAKE_CLI_SCRIPT = "{}" }}
        max_concurrent = 16
        warm = 0
        plan_windows = false
        [models.fake]
        backend = "fake"
        [guests.hostile]
        config = {{ {} }}
        "#,
        fake_cli().display(),
        home.join("script").display(),
        toml_fields(behaviour),
    )
}

fn toml_fields(value: &Value) -> String {
    let fields = value.as_object().unwrap().iter();
    fields
        .map(|(key, value)| format!("{key} = {value}"))
        .collect::<Vec<_>>()
        .join(", ")
}

impl Swapped {
    fn start(guest: &str, script: &str, files: &[(&str, &[u8])]) -> Self {
        let swapped = Self::begin(guest, script, files, &json!({}));
        // The service listens before it has compiled what lies in the folder.
        let deadline = Instant::now() + PATIENCE;
        while !files.is_empty() && !swapped.host.log().contains("a guest was loaded") {
            assert!(Instant::now() < deadline, "the guest is not loaded");
            std::thread::sleep(Duration::from_millis(5));
        }
        swapped
    }

    /// The same, while the guests in the folder are still being compiled.
    fn begin(guest: &str, script: &str, files: &[(&str, &[u8])], behaviour: &Value) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("script"), script).unwrap();
        let folder = home.path().join("guests");
        std::fs::create_dir(&folder).unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
        let config = config(home.path(), guest, behaviour);
        let host = Host::start_in(home, &config);
        Swapped { host, folder }
    }

    /// The same service after its end and another start.
    fn restart(mut self) -> Self {
        self.host.signal(Signal::TERM);
        self.host.wait();
        let config = std::fs::read_to_string(self.host.home().join("harness.toml")).unwrap();
        let config = config.replace("listen = [\"127.0.0.1:0\"]\n", "");
        Swapped {
            host: Host::start_in(self.host.take_home(), &config),
            folder: self.folder,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Puts a file into its place at once.
    fn rename_into(&self, name: &str, bytes: &[u8]) {
        let temporary = self.folder.join(".new");
        std::fs::write(&temporary, bytes).unwrap();
        std::fs::rename(&temporary, self.file(name)).unwrap();
    }

    async fn state(&self, guest: &str) -> Value {
        self.host.get("/health").await.1["guests"][guest].clone()
    }

    /// Waits until a guest's state is as wanted, and returns it.
    async fn becomes_state(&self, guest: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        poll::until("the guest's state", PATIENCE, async || {
            Some(self.state(guest).await).filter(&wanted)
        })
        .await
    }

    /// Waits until a guest's state is as wanted, and returns how long it took.
    async fn becomes(&self, guest: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Duration {
        let started = Instant::now();
        poll::until(what, PATIENCE, async || {
            Some(self.state(guest).await).filter(&wanted)
        })
        .await;
        started.elapsed()
    }
}

fn hello() -> Value {
    json!({"model": "fake", "messages": [{"role": "user", "content": "Say hi"}]})
}

/// The digest as `sha256sum` prints it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use std::io::Write;
    let mut child = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap().stdout;
    String::from_utf8(output)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned()
}

/// Components in the text format, in the few bytes that the tests need of it.
fn wat_to_wasm(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}
