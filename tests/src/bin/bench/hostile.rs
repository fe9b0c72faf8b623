//! What hostile guests cost the requests of others: streams at the pace of models, alone and beside guests that do
//! their worst without a pause. Each request takes a process, whatever its guest does, so the same streams are also
//! measured beside guests that fail at once and are asked as often.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
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

/// What a guest does that only fails: it says twice that the answer has ended.
const FAILS: (&str, &str) = ("start", "two-ends");

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
        beside.service.compiled()?;
        let alone = paced_streams(&beside.service, CHAT, STREAMS).await?;
        let what = format!("added to each delta, {STREAMS} streams of 50 deltas/s, {where_}");
        row(&what, &alone.figure(), "");

        let began = Instant::now();
        let (hostile, asked) = beside
            .attacked("hostile", &[Duration::ZERO; DEEDS.len()])
            .await?;
        let took = began.elapsed();
        let paces = asked.map(|count| took / u32::try_from(count.max(1)).unwrap_or(u32::MAX));
        let (failing, failed) = beside.attacked("failing", &paces).await?;
        let sum = |counts: [usize; DEEDS.len()]| counts.iter().sum::<usize>();
        row(
            &format!(
                "the same beside guests that fail at once, {} requests",
                sum(failed)
            ),
            &failing.figure(),
            "",
        );
        let times = ratio(hostile.times.percentile(99), failing.times.percentile(99));
        row(
            &format!(
                "the same beside {} hostile guests, {} requests (p99: {times} times)",
                DEEDS.len(),
                sum(asked)
            ),
            &hostile.figure(),
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
        let hostile = DEEDS
            .iter()
            .enumerate()
            .map(|(i, deed)| (model("hostile", i), deed));
        let failing = (0..DEEDS.len()).map(|i| (model("failing", i), &FAILS));
        for (name, (at, deed)) in hostile.chain(failing) {
            config += &format!(
                "[backends.{name}]\n{}\nadapter = {{ guest = \"hostile\", config = {{ at = \"{at}\", do = \"{deed}\" }} }}\n{COLD}\n[models.{name}]\nbackend = \"{name}\"\n",
                command(&home),
            );
        }
        Ok(Beside {
            service: Service::start_pinned(program, home.path(), &config, is_pinned)?,
            _home: home,
        })
    }

    /// The streams beside guests of this kind, each of which is asked as soon as this time is over since it was asked, and
    /// how often they were asked.
    async fn attacked(
        &self,
        kind: &str,
        paces: &[Duration; DEEDS.len()],
    ) -> Result<(Paced, [usize; DEEDS.len()])> {
        let asked: [Arc<AtomicUsize>; DEEDS.len()] = std::array::from_fn(|_| Arc::default());
        let attackers: Vec<_> = (0..DEEDS.len())
            .map(|i| {
                let (authority, asked) = (self.service.authority.clone(), asked[i].clone());
                tokio::spawn(attack(authority, model(kind, i), asked, paces[i]))
            })
            .collect();
        let streams = paced_streams(&self.service, CHAT, STREAMS).await?;
        attackers.iter().for_each(|attacker| attacker.abort());
        Ok((streams, asked.map(|count| count.load(Ordering::Relaxed))))
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

/// The name of a model whose guest is of this kind.
fn model(kind: &str, number: usize) -> String {
    format!("{kind}-{number}")
}

/// Asks for a model whose guest does its worst.
async fn attack(
    authority: String,
    model: String,
    asked: Arc<AtomicUsize>,
    pace: Duration,
) -> Result<()> {
    let client = harness_tests::http::client().build()?;
    let url = format!("http://{authority}/v1/chat/completions");
    let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
    loop {
        let due = Instant::now() + pace;
        // Most fail; what floods the log is answered.
        let _: Value = client.post(&url).json(&body).send().await?.json().await?;
        asked.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep_until(due.into()).await;
    }
}
