//! Many swaps under constant load: no request is lost, and each finishes on what it began with.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness_tests::host::Host;
use harness_tests::poll;
use serde_json::{Value, json};

use crate::cli::message;

/// Swaps of each kind. `SWAPS=100` makes more.
const SWAPS: usize = 12;

/// How many clients ask all the time.
const CLIENTS: usize = 3;

fn swaps() -> usize {
    let wanted = std::env::var("SWAPS").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(SWAPS)
}

fn meddler(number: usize) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut bytes = std::fs::read(root.join("tests/guests/dist/meddler.wasm")).unwrap();
    let number = (number as u32).to_le_bytes();
    bytes.extend([0, 6, 1, b'v']);
    bytes.extend(number);
    bytes
}

fn config(mark: usize) -> String {
    format!(
        r#"
        [backends.echo]
        profile = "generic"
        command = "cat"
        adapter = {{ guest = "prompt-template", config = {{ template = {{ file = "prompt.j2" }} }} }}
        [models.echo]
        backend = "echo"
        transforms = [{{ guest = "meddler", config = {{ mark = "m{mark}" }} }}]
        "#
    )
}

fn template(number: usize) -> String {
    format!("t{number} {{{{ messages[-1].content }}}} t{number}")
}

/// Writes a file beside its place and puts it there, as people should.
fn put(path: &Path, bytes: impl AsRef<[u8]>) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

/// What an answer was made with: the mark, and the number of the template.
fn made_with(answer: &Value) -> (String, String) {
    let text = message(answer)["content"].as_str().unwrap().to_owned();
    let inner = text
        .strip_prefix("[m")
        .and_then(|rest| rest.strip_suffix(']'));
    let (mark, prompt) = inner.unwrap().split_once(' ').unwrap();
    let words: Vec<&str> = prompt.split(' ').collect();
    assert_eq!(words.len(), 3, "{text}");
    assert_eq!(words[0], words[2], "one request has one template: {text}");
    (mark.to_owned(), words[0][1..].to_owned())
}

async fn digest(host: &Host) -> String {
    let (_, health) = host.get("/health").await;
    let digest = health["guests"]["meddler"]["digest"].as_str();
    digest.unwrap_or_default().to_owned()
}

/// Asks all the time, until told to stop.
async fn ask(host: &Host, stop: &AtomicBool, answered: &AtomicUsize) {
    while !stop.load(Ordering::Relaxed) {
        let (status, answer) = host.ask("echo", "x").await;
        assert_eq!(status, 200, "{answer}");
        made_with(&answer);
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Memory of the service, in KiB.
fn memory(host: &Host) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn tell(kind: &str, mut times: Vec<Duration>) {
    times.sort();
    let (middle, last) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "{kind}: {} swaps, served after {middle:.0?} (the last after {last:.0?})",
        times.len()
    );
}

async fn swap(host: &Host) {
    let home = host.home();
    let patience = Duration::from_secs(60);
    let mut times = Vec::new();
    for number in 1..=swaps() {
        let before = digest(host).await;
        let began = Instant::now();
        put(&home.join("guests.d/meddler.wasm"), meddler(number));
        poll::until("the component", patience, async || {
            (digest(host).await != before).then_some(())
        })
        .await;
        times.push(began.elapsed());
    }
    tell("component", std::mem::take(&mut times));
    for number in 1..=swaps() {
        let began = Instant::now();
        put(&home.join("harness.toml"), own_config(host, number));
        poll::until("the setting", patience, async || {
            let (_, answer) = host.ask("echo", "x").await;
            (made_with(&answer).0 == number.to_string()).then_some(())
        })
        .await;
        times.push(began.elapsed());
    }
    tell("setting", std::mem::take(&mut times));
    for number in 1..=swaps() {
        let began = Instant::now();
        put(&home.join("prompt.j2"), template(number));
        poll::until("the template", patience, async || {
            let (_, answer) = host.ask("echo", "x").await;
            (made_with(&answer).1 == number.to_string()).then_some(())
        })
        .await;
        times.push(began.elapsed());
    }
    tell("template", times);
}

/// The configuration with another mark.
fn own_config(host: &Host, mark: usize) -> String {
    let text = std::fs::read_to_string(host.home().join("harness.toml")).unwrap();
    let (before, rest) = text.split_once("mark = \"m").unwrap();
    let (_, after) = rest.split_once('"').unwrap();
    format!("{before}mark = \"m{mark}\"{after}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_swaps_under_load_lose_no_request() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("guests.d")).unwrap();
    std::fs::write(home.path().join("guests.d/meddler.wasm"), meddler(0)).unwrap();
    std::fs::write(home.path().join("prompt.j2"), template(0)).unwrap();
    let host = Arc::new(Host::start_in(home, &config(0)));
    poll::until("the first answer", Duration::from_secs(120), async || {
        let (status, _) = host.ask("echo", "x").await;
        (status == 200).then_some(())
    })
    .await;
    let (stop, answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (host, stop, answered) = (host.clone(), stop.clone(), answered.clone());
            tokio::spawn(async move { ask(&host, &stop, &answered).await })
        })
        .collect();
    let before = memory(&host);
    swap(&host).await;
    let after = memory(&host);
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let answered = answered.load(Ordering::Relaxed);
    println!("{answered} requests, all answered; memory {before} KiB, then {after} KiB");
    assert!(answered > swaps(), "{answered}");
    let (_, state) = host.get("/admin/guests").await;
    let kept = state["guests"]["meddler"]["kept"].as_array().unwrap().len();
    assert_eq!(json!(kept), json!(10.min(swaps() + 1)));
}
