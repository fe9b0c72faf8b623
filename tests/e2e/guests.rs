//! Guests: swapped while requests run, refused when they are bad, bounded when they are hostile.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness_tests::host::{Host, assert_refused, fake_cli, streamed_text};
use harness_tests::poll;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::fake::ANSWER;

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

#[tokio::test]
async fn twenty_swaps_under_load_lose_no_request() {
    let swapped = Arc::new(Swapped::start(
        "claude-code",
        "#init\n#read\n#deltas 5 20\n#done\n",
        &[],
    ));
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let load: Vec<_> = (0..3)
        .map(|_| {
            let (swapped, stop, answered) = (swapped.clone(), stop.clone(), answered.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let (status, stream) = swapped.host.stream(&hello()).await;
                    assert_eq!(status, 200, "{stream}");
                    assert_eq!(streamed_text(&stream), "word ".repeat(5));
                    assert!(stream.ends_with("data: [DONE]\n\n"));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let first = swapped.state("claude-code").await;
    let mut slowest = Duration::ZERO;
    for number in 0..20 {
        let bytes = variant(number);
        match number % 3 {
            0 => swapped.rename_into("claude-code.wasm", &bytes),
            1 => std::fs::write(swapped.file("claude-code.wasm"), &bytes).unwrap(),
            _ => write_in_two_halves(&swapped.file("claude-code.wasm"), &bytes).await,
        }
        let generation = |state: &Value| state["generation"].as_u64().unwrap();
        let known = generation(&swapped.state("claude-code").await);
        let before = if number == 0 {
            generation(&first)
        } else {
            known
        };
        let new = |state: &Value| state["origin"] == "file" && state["digest"] != first["digest"];
        let digest = sha256(&bytes);
        let took = swapped
            .becomes("claude-code", "the new guest", |state| {
                new(state) && state["digest"] == *digest
            })
            .await;
        assert!(before <= generation(&swapped.state("claude-code").await));
        slowest = slowest.max(took);
        if number == 10 {
            let serving = swapped.state("claude-code").await["digest"].clone();
            std::fs::write(swapped.file("claude-code.wasm"), "rubbish").unwrap();
            swapped
                .becomes("claude-code", "the refusal", |state| {
                    state["rejected"].is_string()
                })
                .await;
            assert_eq!(
                swapped.state("claude-code").await["digest"],
                serving,
                "rubbish changes nothing"
            );
            assert_eq!(swapped.host.get("/health").await.1["status"], "degraded");
        }
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    assert!(answered.load(Ordering::Relaxed) > 20);
    println!(
        "{} streams, slowest swap {slowest:?}",
        answered.load(Ordering::Relaxed)
    );
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

async fn write_in_two_halves(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(first).unwrap();
    tokio::time::sleep(Duration::from_millis(120)).await;
    file.write_all(second).unwrap();
}

#[tokio::test]
async fn a_request_ends_on_the_guest_it_began_with() {
    let swapped = Swapped::start(
        "claude-code",
        "#init\n#read\n#text a\n#sleep 1500\n#text b\n#done\n",
        &[],
    );
    let body = hello();
    let old = swapped.host.stream(&body);
    let swap = async {
        swapped.rename_into("claude-code.wasm", &variant(1));
        swapped
            .becomes("claude-code", "the new guest", |state| {
                state["origin"] == "file"
            })
            .await;
    };
    let ((status, stream), ()) = tokio::join!(old, swap);
    assert_eq!((status, streamed_text(&stream).as_str()), (200, "ab"));
    swapped.host.logged("generation=1").await;
    std::fs::remove_file(swapped.file("claude-code.wasm")).unwrap();
    swapped
        .becomes("claude-code", "the embedded guest again", |state| {
            state["origin"] == "embedded"
        })
        .await;
}

#[tokio::test]
async fn what_is_no_guest_is_refused_with_the_reason() {
    let swapped = Swapped::start("claude-code", ANSWER, &[]);
    let arguments = r#"(component (import "wasi:cli/environment@0.2.0" (instance (export "get-arguments" (func (result (list string)))))))"#;
    let socket = r#"(component (import "wasi:sockets/tcp@0.2.9" (instance (export "tcp-socket" (type (sub resource))) (export "f" (func)))))"#;
    let wat = |text: &str| wat_to_wasm(text);
    let log_of =
        |name: &str| format!(r#"(component (import "{name}" (instance (export "f" (func)))))"#);
    let whole = claude_code();
    for (bytes, reason) in [
        (b"rubbish".to_vec(), "not a WebAssembly component"),
        (Vec::new(), "not a WebAssembly component"),
        (b"\0asm\x01\0\0\0".to_vec(), "not a WebAssembly component"),
        (
            whole[..whole.len() / 2].to_vec(),
            "not a WebAssembly component",
        ),
        (wat("(component)"), "exports neither"),
        (
            wat(&log_of("example:host/files@1.0.0")),
            "it imports `example:host/files@1.0.0`",
        ),
        // What a guest imports of WASI is no reason to refuse it.
        (wat(arguments), "exports neither"),
        (wat(socket), "exports neither"),
        (
            wat(&log_of("claude-harness:guest/log@0.1.0")),
            "version 0.1.0 of the contract: build it again",
        ),
        (
            wat(&log_of("harness:guest/log@1.1.0")),
            "version 1.1.0 of the contract, and this program knows version 1.0: update",
        ),
        (
            wat(&log_of("harness:guest/log@2.0.0")),
            "version 2.0.0 of the contract, and this program knows version 1.0: update",
        ),
    ] {
        std::fs::write(swapped.file("claude-code.wasm"), &bytes).unwrap();
        let report = swapped.host.reload().await;
        let told = report["rejected"]["claude-code"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(told.contains(reason), "{reason}: {report}");
        assert_eq!(
            swapped.host.post(&hello()).await.0,
            200,
            "what served goes on"
        );
    }
    assert_eq!(swapped.state("claude-code").await["generation"], 1);
}

#[tokio::test]
async fn what_is_no_plain_file_is_no_guest_and_holds_nothing_up() {
    let swapped = Swapped::start("claude-code", ANSWER, &[]);
    let made = std::process::Command::new("mkfifo")
        .arg(swapped.file("pipe.wasm"))
        .status();
    assert!(made.unwrap().success());
    std::os::unix::fs::symlink("/dev/zero", swapped.file("device.wasm")).unwrap();
    std::os::unix::fs::symlink("nowhere", swapped.file("link.wasm")).unwrap();
    std::fs::create_dir(swapped.file("folder.wasm")).unwrap();
    let large = std::fs::File::create(swapped.file("large.wasm")).unwrap();
    large.set_len(100 << 20).unwrap();
    let asked = Instant::now();
    let report = swapped.host.reload().await;
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
    let told = report["rejected"]["large"].as_str().unwrap_or_default();
    assert!(told.contains("larger than 64 MiB"), "{report}");
    let (_, health) = swapped.host.get("/health").await;
    for name in ["pipe", "device", "link", "folder", "large"] {
        assert!(
            health["guests"][name]["version"].is_null(),
            "{name}: {health}"
        );
    }
    assert_eq!(swapped.host.post(&hello()).await.0, 200);
}

/// Components in the text format, in the few bytes that the tests need of it.
fn wat_to_wasm(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[tokio::test]
async fn each_bound_of_a_guest_fails_one_request_and_no_more() {
    let hostile = hostile_component();
    let swapped = Swapped::start(
        "hostile",
        "#read\n#text x\n#hang",
        &[("hostile.wasm", &hostile)],
    );
    let configure = async |behaviour: Value| {
        swapped
            .host
            .reconfigure(&config(swapped.host.home(), "hostile", &behaviour));
        swapped.host.reload().await
    };
    for (at, deed, expected) in [
        ("open", "spin", "it ran for more than"),
        ("start", "spin", "it ran for more than"),
        ("output", "spin", "it ran for more than"),
        ("start", "allocate", "it wanted more than 64 MiB of memory"),
        ("start", "huge", "memory"),
        ("start", "many", "it returned more than"),
        ("start", "overflow", "it trapped"),
        ("open", "trap", "it trapped"),
        ("output", "panic", "it trapped"),
        ("start", "two-ends", "an effect came after the end"),
        ("start", "after-end", "an effect came after the end"),
        (
            "start",
            "bad-annotation",
            "an annotation has a value that is no JSON",
        ),
        (
            "launch-options",
            "inject",
            "it wants a value for the launch option `effort` that the profile does not allow",
        ),
    ] {
        let mut behaviour = json!({"at": at, "do": deed});
        if at == "output" {
            behaviour["write"] = json!([
                r#"{"type":"control_request","request_id":"a","request":{"subtype":"interrupt"}}"#
            ]);
        }
        let report = configure(behaviour).await;
        assert_eq!(report["rejected"], json!({}), "{at} {deed}");
        let started = Instant::now();
        let (status, answer) = swapped.host.post(&hello()).await;
        assert_eq!(
            (status, &answer["error"]["code"]),
            (502, &json!("guest_error")),
            "{at} {deed}: {answer}"
        );
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(expected), "{at} {deed}: {message}");
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "{at} {deed} took {:?}",
            started.elapsed()
        );
        configure(json!({"answer": "calm"})).await;
        let (status, answer) = swapped.host.post(&hello()).await;
        assert_eq!(
            (status, &answer["choices"][0]["message"]["content"]),
            (200, &json!("calm1")),
            "after {at} {deed}"
        );
    }
    configure(json!({"at": "start", "do": "chatter"})).await;
    swapped.host.post(&hello()).await;
    swapped.host.ask("gone", "x").await;
    let log = swapped.host.logged("code=model_not_found").await;
    let chatter: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("chatter chatter"))
        .collect();
    assert_eq!(chatter.len(), 32);
    assert!(
        chatter.iter().all(|line| line.contains("DEBUG")),
        "they are for those who debug"
    );
    assert!(chatter.iter().all(|line| line.len() < 2500));
}

#[tokio::test]
async fn guests_that_spin_hold_nobody_else_up() {
    let hostile = hostile_component();
    let swapped = Swapped::start("hostile", "#hang", &[("hostile.wasm", &hostile)]);
    let spin = config(
        swapped.host.home(),
        "hostile",
        &json!({"at": "open", "do": "spin"}),
    );
    swapped.host.reconfigure(&spin);
    swapped.host.reload().await;
    let body = hello();
    let spinning = futures_util::future::join_all((0..8).map(|_| swapped.host.post(&body)));
    let others = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let started = Instant::now();
            swapped.host.get("/v1/models").await;
            slowest = slowest.max(started.elapsed());
        }
        slowest
    };
    let (answers, slowest) = tokio::join!(spinning, others);
    assert!(answers.iter().all(|(status, _)| *status == 502));
    assert!(
        slowest < Duration::from_millis(1500),
        "another route took {slowest:?}"
    );
    // What such a guest does from now on gives way to everything.
    assert_eq!(processor_time(&swapped.host, "suspect-guest"), (19, 0));
    assert_eq!(swapped.host.post(&body).await.0, 502);
    let (nice, ticks) = processor_time(&swapped.host, "suspect-guest");
    assert!(nice == 19 && ticks >= 10, "nice {nice}, {ticks} ticks");
}

/// How nice the service's threads of this name are, and their processor time so far, in hundredths of a second.
fn processor_time(host: &Host, name: &str) -> (i64, i64) {
    let threads = std::fs::read_dir(format!("/proc/{}/task", host.pid())).unwrap();
    let stats = threads.filter_map(|thread| {
        let stat = std::fs::read_to_string(thread.ok()?.path().join("stat")).ok()?;
        let (head, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<i64> = fields.split(' ').filter_map(|it| it.parse().ok()).collect();
        // Without the state, the first of these is the parent: proc_pid_stat(5), field 4.
        head.ends_with(name)
            .then(|| (fields[19 - 4], fields[14 - 4] + fields[15 - 4]))
    });
    stats.fold((0, 0), |(_, sum), (nice, ticks)| (nice, sum + ticks))
}

#[tokio::test]
async fn a_guest_that_thinks_about_what_a_process_holds_delays_no_answer() {
    let hostile = hostile_component();
    let swapped = Swapped::start("hostile", "#hang", &[("hostile.wasm", &hostile)]);
    let behaviour = json!({"at": "hold", "do": "spin", "answer": "calm"});
    swapped
        .host
        .reconfigure(&config(swapped.host.home(), "hostile", &behaviour));
    swapped.host.reload().await;
    let started = Instant::now();
    assert_eq!(swapped.host.post(&hello()).await.0, 200);
    // A call for a whole request may take ten times 200 ms.
    assert!(
        started.elapsed() < Duration::from_millis(1500),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_request_goes_on_in_a_fresh_process_if_the_idle_one_is_of_no_use() {
    let hostile = hostile_component();
    let swapped = Swapped::start("hostile", "#hang", &[("hostile.wasm", &hostile)]);
    let behaviour = json!({"at": "resume", "do": "unfit", "answer": "calm"});
    let config = config(swapped.host.home(), "hostile", &behaviour);
    swapped.host.reconfigure(&config);
    swapped.host.reload().await;
    for request in 0..3 {
        let (status, answer) = swapped.host.post(&hello()).await;
        assert_eq!(
            (status, &answer["choices"][0]["message"]["content"]),
            (200, &json!("calm1")),
            "request {request}: a session of its own answers it"
        );
        poll::until("the process to be kept", PATIENCE, async || {
            let (_, health) = swapped.host.get("/health").await;
            (health["backends"]["fake"]["kept"] == 1).then_some(())
        })
        .await;
    }
    let log = swapped.host.log();
    assert_eq!(
        log.matches("an idle process was of no use: it was told to")
            .count(),
        2
    );
    let late = json!({"at": "start", "do": "unfit"});
    swapped
        .host
        .reconfigure(&self::config(swapped.host.home(), "hostile", &late));
    swapped.host.reload().await;
    let (status, answer) = swapped.host.post(&hello()).await;
    assert_refused(
        &(status, answer),
        (502, "guest_error"),
        "it gave up a process that had begun to answer, or that was started for it",
    );
}

/// How long requests for a path take while something else goes on: the 99th of a hundred.
async fn slowest_but_one(host: &Host, path: &str) -> Duration {
    let mut times = Vec::new();
    for _ in 0..100 {
        let started = Instant::now();
        host.get(path).await;
        times.push(started.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    times.sort();
    times[98]
}

#[tokio::test]
async fn sixteen_guests_that_spin_at_each_line_hold_nobody_else_up() {
    let hostile = hostile_component();
    let swapped = Swapped::start(
        "hostile",
        "#read\n#text x\n#hang",
        &[("hostile.wasm", &hostile)],
    );
    let interrupt =
        r#"{"type":"control_request","request_id":"a","request":{"subtype":"interrupt"}}"#;
    let spin = config(
        swapped.host.home(),
        "hostile",
        &json!({"at": "output", "do": "spin", "write": [interrupt]}),
    );
    swapped
        .host
        .reconfigure(&format!("{spin}\n[backends.demo]\nprofile = \"demo\"\n"));
    swapped.host.reload().await;
    let alone = slowest_but_one(&swapped.host, "/v1/models").await;
    let stop = AtomicBool::new(false);
    let body = hello();
    let spinning = futures_util::future::join_all((0..16).map(|_| async {
        let mut refused = 0;
        while !stop.load(Ordering::Relaxed) {
            assert_eq!(swapped.host.post(&body).await.0, 502);
            refused += 1;
        }
        refused
    }));
    let others = async {
        let beside = slowest_but_one(&swapped.host, "/v1/models").await;
        let started = Instant::now();
        assert_eq!(swapped.host.ask("demo", "x").await.0, 200);
        stop.store(true, Ordering::Relaxed);
        (beside, started.elapsed())
    };
    let (refused, (beside, answer)) = tokio::join!(spinning, others);
    println!("{alone:?} alone, {beside:?} beside; an answer in {answer:?}");
    assert!(
        refused.iter().all(|count| *count > 0),
        "each of them had its turn: {refused:?}"
    );
    assert!(
        beside < alone + Duration::from_millis(250),
        "{alone:?} alone, {beside:?} beside"
    );
    assert!(answer < Duration::from_secs(2), "{answer:?}");
}

#[tokio::test]
async fn a_refused_configuration_is_forgotten_when_it_is_mended() {
    let hostile = hostile_component();
    let swapped = Swapped::start("hostile", "#hang", &[]);
    let with = |behaviour: Value| config(swapped.host.home(), "hostile", &behaviour);
    swapped.host.reconfigure(&with(json!({"colour": "red"})));
    std::fs::write(swapped.file("hostile.wasm"), &hostile).unwrap();
    assert!(swapped.host.reload().await["rejected"]["hostile"].is_string());
    swapped.host.reconfigure(&with(json!({"answer": "mended"})));
    assert_eq!(swapped.host.reload().await["rejected"], json!({}));
    assert_eq!(swapped.host.post(&hello()).await.0, 200);
    swapped.host.reconfigure(&with(json!({"colour": "red"})));
    assert!(swapped.host.reload().await["rejected"]["hostile"].is_string());
    swapped.host.reconfigure(&with(json!({"answer": "mended"})));
    assert_eq!(swapped.host.reload().await["rejected"], json!({}));
}

#[tokio::test]
async fn what_becomes_of_a_field_is_for_the_adapter_to_say() {
    let swapped = Swapped::start("hostile", "#hang", &[]);
    let behaviour = json!({"answer": "x"});
    let config = config(swapped.host.home(), "hostile", &behaviour);
    swapped.host.reconfigure(&config);
    let honouring = describing("nothing", "temperature top_k");
    std::fs::write(swapped.file("hostile.wasm"), honouring).unwrap();
    swapped.host.reload().await;
    let mut body = hello();
    for (field, value) in [
        ("temperature", json!(1)),
        ("top_k", json!(1)),
        ("stop", json!("x")),
        ("max_tokens", json!(5)),
        ("seed", json!(1)),
        ("tools", json!([])),
    ] {
        body[field] = value;
    }
    let response = swapped.host.send(&body).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-ignored-params"], "max_tokens, seed");
    body["tools"] = json!([{"type": "function", "function": {"name": "f"}}]);
    let (status, answer) = swapped.host.post(&body).await;
    assert_eq!(
        (status, &answer["error"]["param"], &answer["error"]["code"]),
        (400, &json!("tools"), &json!("unsupported_parameter"))
    );
}

#[tokio::test]
async fn a_request_waits_for_its_adapter_before_its_fields_are_judged() {
    let behaviour = json!({"answer": "x"});
    let hostile = describing("nothing", "temperature");
    let files = [("hostile.wasm", &*hostile)];
    let swapped = Swapped::begin("hostile", "#hang", &files, &behaviour);
    let mut body = hello();
    body["tools"] = json!([{"type": "function", "function": {"name": "f"}}]);
    let (status, answer) = swapped.host.post(&body).await;
    assert_eq!(
        (status, &answer["error"]["param"]),
        (400, &json!("tools")),
        "{answer}"
    );
}

#[tokio::test]
async fn what_a_guest_reports_cannot_carry_words_to_other_clients() {
    let swapped = Swapped::start(
        "claude-code",
        "#read\n{\"type\":\"system\",\"subtype\":\"init\",\"claude_code_version\":\"s3cret words of a prompt\"}\n{\"type\":\"control_response\",\"response\":{\"subtype\":\"success\",\"request_id\":\"initialize\",\"response\":{\"models\":[{\"value\":\"s3cret words\"},{\"value\":\"x\",\"resolvedModel\":\"--settings\"}]}}}\n#done\n",
        &[],
    );
    assert_eq!(swapped.host.post(&hello()).await.0, 200);
    let shown = format!(
        "{}{}",
        swapped.host.get("/health").await.1,
        swapped.host.get("/v1/models").await.1
    );
    assert!(
        !shown.contains("s3cret") && !shown.contains("--settings"),
        "{shown}"
    );
    assert_eq!(swapped.host.ask("--settings", "x").await.0, 404);
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

#[tokio::test]
async fn a_guest_that_misbehaves_when_it_is_loaded_never_serves() {
    let hostile = hostile_component();
    let swapped = Swapped::start("hostile", "#hang", &[("hostile.wasm", &hostile)]);
    for (at, deed) in [
        ("configure", "spin"),
        ("configure", "allocate"),
        ("configure", "trap"),
    ] {
        let config = config(
            swapped.host.home(),
            "hostile",
            &json!({"at": at, "do": deed}),
        );
        swapped.host.reconfigure(&config);
        let report = swapped.host.reload().await;
        assert!(
            report["rejected"]["hostile"].is_string(),
            "{at} {deed}: {report}"
        );
        assert_eq!(
            swapped.host.post(&hello()).await.0,
            200,
            "the one before goes on"
        );
    }
    // A guest says what it is before it is configured, so here it is another guest.
    for deed in ["spin", "trap"] {
        std::fs::write(swapped.file("hostile.wasm"), describing(deed, "")).unwrap();
        let report = swapped.host.reload().await;
        assert!(
            report["rejected"]["hostile"].is_string(),
            "{deed}: {report}"
        );
        assert_eq!(swapped.host.post(&hello()).await.0, 200);
    }
    std::fs::write(swapped.file("hostile.wasm"), &hostile).unwrap();
    let wrong = config(swapped.host.home(), "hostile", &json!({"colour": "red"}));
    swapped.host.reconfigure(&wrong);
    let report = swapped.host.reload().await;
    let reason = report["rejected"]["hostile"].as_str().unwrap_or_default();
    assert!(
        reason.contains("`guests.hostile.config`") && reason.contains("colour"),
        "{report}"
    );
}

#[tokio::test]
async fn a_changed_section_of_the_configuration_is_a_reload_by_itself() {
    let hostile = hostile_component();
    let swapped = Swapped::start("hostile", "#hang", &[("hostile.wasm", &hostile)]);
    swapped.host.reconfigure(&config(
        swapped.host.home(),
        "hostile",
        &json!({"answer": "new"}),
    ));
    swapped
        .becomes("hostile", "the new generation", |state| {
            state["generation"].as_u64() > Some(2)
        })
        .await;
    assert_eq!(
        swapped.host.post(&hello()).await.1["choices"][0]["message"]["content"],
        "new1"
    );
    swapped
        .host
        .reconfigure("guests = 5\napi_keys = [5, \"s3cret\"]");
    poll::until("the refusal", Duration::from_secs(5), async || {
        swapped.host.get("/health").await.1["configuration"]["rejected"]
            .is_string()
            .then_some(())
    })
    .await;
    let told = swapped.host.get("/health").await.1["configuration"]["rejected"].to_string();
    assert!(
        told.contains("`api_keys`: this array is not an array of strings")
            && !told.contains("s3cret"),
        "{told}"
    );
    assert_eq!(swapped.host.post(&hello()).await.0, 200);
}

/// A small component that keeps a compiler busy for long: a loop whose branches each set one of many
/// variables, all of which are live everywhere.
fn slow_to_compile() -> Vec<u8> {
    const VARIABLES: usize = 3000;
    let locals = "i32 ".repeat(VARIABLES);
    let branches: String = (0..VARIABLES)
        .map(|n| {
            format!(
                "(if (local.get {n}) (then (local.set {} (i32.const {n}))))",
                (n * 7 + 1) % VARIABLES
            )
        })
        .collect();
    wat_to_wasm(&format!(
        r#"(component (core module (func (export "f") (local {locals}) (loop {branches} (br_if 0 (local.get 0))))))"#
    ))
}

#[tokio::test]
async fn a_component_that_is_never_compiled_holds_up_nothing() {
    let slow = slow_to_compile();
    assert!(slow.len() < 100_000, "{} bytes", slow.len());
    let swapped = Swapped::start("claude-code", ANSWER, &[]);
    swapped.rename_into("slow.wasm", &slow);
    swapped
        .host
        .logged("being compiled and tried guest=slow")
        .await;
    let health = swapped.host.get("/health").await.1;
    assert_eq!(health["guests"]["slow"]["compiling"], true, "{health}");
    // A configuration is taken up meanwhile, and requests are served.
    let bounded = config(swapped.host.home(), "claude-code", &json!({}));
    swapped
        .host
        .reconfigure(&format!("api_keys = [\"k\"]\n{bounded}"));
    swapped
        .host
        .logged("the configuration was read again")
        .await;
    assert_eq!(
        swapped.host.post(&hello()).await.0,
        401,
        "the new key is wanted at once"
    );
    // At the next start it lies there already: the service listens, and ends when it is told to.
    swapped
        .host
        .reconfigure(&format!("guest_compile_timeout = \"1s\"\n{bounded}"));
    let mut again = swapped.restart();
    assert_eq!(again.host.post(&hello()).await.0, 200);
    let refused = again
        .host
        .logged("was not loaded; what served before goes on guest=slow")
        .await;
    assert!(
        refused.contains("compiling it took longer than 1s"),
        "{refused}"
    );
    again.rename_into("another.wasm", &slow);
    again.host.logged("guest=another").await;
    let asked = Instant::now();
    again.host.signal(Signal::TERM);
    again.host.wait();
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "it took {:?}",
        asked.elapsed()
    );
}

#[tokio::test]
async fn after_a_restart_with_a_bad_file_the_last_good_one_serves_and_never_the_built_in_one() {
    let swapped = Swapped::start("claude-code", ANSWER, &[("claude-code.wasm", &variant(1))]);
    let good = swapped.state("claude-code").await["digest"].clone();
    std::fs::write(swapped.file("claude-code.wasm"), "rubbish").unwrap();
    let swapped = swapped.restart();
    let state = swapped
        .becomes_state("claude-code", |state| state["origin"] == "last_good")
        .await;
    assert_eq!(state["digest"], good);
    assert!(state["rejected"].is_string(), "{state}");
    assert_eq!(swapped.host.get("/health").await.1["status"], "degraded");
    assert_eq!(swapped.host.post(&hello()).await.0, 200);

    // Without one that was ever good, requests fail and say why.
    std::fs::remove_dir_all(swapped.host.home().join(".local/state")).unwrap();
    let swapped = swapped.restart();
    let (status, answer) = swapped.host.post(&hello()).await;
    assert_refused(
        &(status, answer),
        (502, "guest_error"),
        "not a WebAssembly component",
    );

    // The operator takes the file away: that is a word.
    std::fs::remove_file(swapped.file("claude-code.wasm")).unwrap();
    swapped
        .becomes_state("claude-code", |state| state["origin"] == "embedded")
        .await;
    assert_eq!(swapped.host.post(&hello()).await.0, 200);
}

#[tokio::test]
async fn files_that_others_can_write_are_no_guests() {
    use std::os::unix::fs::PermissionsExt;
    let swapped = Swapped::start("claude-code", ANSWER, &[]);
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap()
    };
    std::fs::write(swapped.file("claude-code.wasm"), variant(1)).unwrap();
    mode(&swapped.file("claude-code.wasm"), 0o666);
    let report = swapped.host.reload().await;
    let told = report["rejected"]["claude-code"]
        .as_str()
        .unwrap_or_default();
    assert!(told.contains("can be written by other users"), "{report}");
    mode(&swapped.file("claude-code.wasm"), 0o644);
    mode(&swapped.folder, 0o777);
    let report = swapped.host.reload().await;
    let told = report["guests_dir"]["rejected"]
        .as_str()
        .unwrap_or_default();
    assert!(told.contains("can be written by other users"), "{report}");
    mode(&swapped.folder, 0o755);
    assert_eq!(
        swapped.host.reload().await["changed"],
        json!(["claude-code"])
    );
    std::fs::write(swapped.file("x\nINFO forged.wasm"), "x").unwrap();
    assert!(swapped.host.reload().await["guests_dir"]["rejected"].is_string());
    assert!(!swapped.host.log().contains("\nINFO forged"));
}
