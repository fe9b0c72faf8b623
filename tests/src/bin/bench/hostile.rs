//! What hostile guests cost the requests of others: streams at the pace of models, alone and beside guests that do
//! their worst without a pause.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use harness_tests::host;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fake::{CHAT, COLD, Paced, paced_streams};
use crate::service::Service;
use crate::table::{ratio, row};

/// Where a guest does what. Each is a model of its own, which somebody asks for all the time.
const DEEDS: [(&str, &str); 6] = [
    ("open", "spin"),
    ("start", "allocate"),
    ("start", "huge"),
    ("start", "many"),
    ("start", "overflow"),
    ("start", "chatter"),
];

/// Streams that are measured.
const STREAMS: usize = 32;

/// A service with a model that answers at the pace of models, and those whose guests are hostile.
struct Beside {
    service: Service,
    _home: TempDir,
}

/// Measures both on all processors, and with the service pinned to one.
pub(crate) async fn compare(program: &Path) -> Result<()> {
    for (is_pinned, where_) in [
        (false, "on two processors"),
        (true, "service pinned to one"),
    ] {
        let beside = Beside::start(program, is_pinned)?;
        beside.loaded().await?;
        let alone = paced_streams(&beside.service, CHAT, STREAMS).await?;
        let asked = Arc::new(AtomicUsize::new(0));
        let attackers: Vec<_> = (0..DEEDS.len())
            .map(|i| tokio::spawn(attack(beside.service.authority.clone(), i, asked.clone())))
            .collect();
        let attacked = paced_streams(&beside.service, CHAT, STREAMS).await?;
        attackers.iter().for_each(|attacker| attacker.abort());
        let times = ratio(attacked.times.percentile(99), alone.times.percentile(99));
        let what = format!("added to each delta, {STREAMS} streams of 50 deltas/s, {where_}");
        row(&what, &alone.figure(), "");
        let count = asked.load(Ordering::Relaxed);
        row(
            &format!(
                "the same beside {} hostile guests, which broke {count} requests (p99: {times} times)",
                DEEDS.len()
            ),
            &attacked.figure(),
            "no more than noise",
        );
    }
    Ok(())
}

impl Beside {
    fn start(program: &Path, is_pinned: bool) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let guests = home.path().join("guests");
        std::fs::create_dir(&guests)?;
        let component = concat!(env!("CARGO_MANIFEST_DIR"), "/guests/dist/hostile.wasm");
        std::fs::copy(component, guests.join("hostile.wasm"))?;
        std::fs::write(home.path().join("script"), Paced::SCRIPT)?;
        let mut config = format!(
            "guests_dir = \"{}\"\nmax_processes = 1000\nguest_memory = \"64MiB\"\n[guests.hostile]\ngive_way_after = 0\n[backends.fake]\n{}\nmax_concurrent = 512\n{COLD}\n[models.fake]\nbackend = \"fake\"\n",
            guests.display(),
            command(&home),
        );
        for (i, (at, deed)) in DEEDS.iter().enumerate() {
            config += &format!(
                "[backends.h{i}]\n{}\nadapter = {{ guest = \"hostile\", config = {{ at = \"{at}\", do = \"{deed}\" }} }}\n{COLD}\n[models.h{i}]\nbackend = \"h{i}\"\n",
                command(&home),
            );
        }
        Ok(Beside {
            service: Service::start_pinned(program, home.path(), &config, is_pinned)?,
            _home: home,
        })
    }

    /// Waits until the hostile guest is compiled.
    async fn loaded(&self) -> Result<()> {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let health = self.service.get("/health").await?;
            if health["guests"]["hostile"]["digest"].is_string() {
                return Ok(());
            }
            anyhow::ensure!(std::time::Instant::now() < deadline, "not loaded: {health}");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
}

/// The fake command line, and its script.
fn command(home: &TempDir) -> String {
    format!(
        "command = \"{}\"\nenv = {{ FAKE_CLI_SCRIPT = \"{}\" }}",
        host::fake_cli().display(),
        home.path().join("script").display()
    )
}

/// Asks for a hostile model without a pause.
async fn attack(authority: String, model: usize, asked: Arc<AtomicUsize>) -> Result<()> {
    let client = harness_tests::http::client().build()?;
    let url = format!("http://{authority}/v1/chat/completions");
    let body =
        json!({"model": format!("h{model}"), "messages": [{"role": "user", "content": "hi"}]});
    loop {
        let answer: Value = client.post(&url).json(&body).send().await?.json().await?;
        let code = answer["error"]["code"].as_str();
        code.with_context(|| format!("it was answered: {answer}"))?;
        asked.fetch_add(1, Ordering::Relaxed);
    }
}
