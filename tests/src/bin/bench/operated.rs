//! What it costs to operate the service: ledger, cache, and somebody who looks on, against a service without all of it,
//! by turns in one run.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use crate::dialects::first;
use crate::fake::{Api, CHAT, COLD, Fake};
use crate::service::{Answer, Service};
use crate::table::{Times, micros, row};

/// How many first deltas of each are measured.
const FIRSTS: usize = 300;

/// How many deltas of a stream are counted, and how many such streams.
const DELTAS: usize = 20_000;
const STREAMS: usize = 8;

/// Questions that differ, so that none is answered from the cache.
const QUESTIONS: Api = Api {
    body: || {
        static ASKED: AtomicU64 = AtomicU64::new(0);
        let number = ASKED.fetch_add(1, Ordering::Relaxed);
        let question = format!("Question {number}");
        json!({"model": "fake", "stream": true, "messages": [{"role": "user", "content": question}]})
    },
    ..CHAT
};

/// Measures both.
pub(crate) async fn compare(program: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let off = format!("{COLD}\n[ledger]\nenabled = false\n");
    let path = folder.path().join("usage.sqlite");
    let on = format!("{COLD}\n[ledger]\npath = \"{}\"\n[cache]\n", path.display());
    firsts(program, &off, &on).await?;
    deltas(program, &off, &on).await?;
    repeats(program, &on).await
}

/// Follows the events of a service, and reads its metrics every second.
fn look_on(service: &Service) -> AbortOnDropHandle<()> {
    let url = format!("http://{}", service.authority);
    AbortOnDropHandle::new(tokio::spawn(async move {
        let client = reqwest::Client::new();
        let Ok(mut events) = client.get(format!("{url}/admin/events")).send().await else {
            return;
        };
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                event = events.chunk() => if !matches!(event, Ok(Some(_))) { return },
                _ = ticks.tick() => {
                    let _ = client.get(format!("{url}/metrics")).send().await;
                }
            }
        }
    }))
}

/// From the CLI's first delta on its standard output to the client.
async fn firsts(program: &Path, off: &str, on: &str) -> Result<()> {
    let script = "#init\n#read\n#sleep 3\n#stamp\n#done\n";
    let services = [
        Fake::start(program, script, off)?,
        Fake::start(program, script, on)?,
    ];
    let _watcher = look_on(&services[1].service);
    let mut times = [Times::default(), Times::default()];
    for _ in 0..FIRSTS {
        for (fake, times) in services.iter().zip(&mut times) {
            times.push(first(&fake.service, QUESTIONS).await?);
        }
    }
    let more = times[1].median().saturating_sub(times[0].median());
    row(
        "added to the first delta, not operated",
        &times[0].tail(),
        "",
    );
    let what = format!("added to the first delta, operated ({} more)", micros(more));
    row(&what, &times[1].tail(), "100 µs more");
    Ok(())
}

/// The processor time of each delta of a stream as fast as it goes.
async fn deltas(program: &Path, off: &str, on: &str) -> Result<()> {
    let script = format!("#init\n#read\n#burst {DELTAS}\n#done\n");
    let services = [
        Fake::start(program, &script, off)?,
        Fake::start(program, &script, on)?,
    ];
    let _watcher = look_on(&services[1].service);
    let mut taken = [Duration::ZERO; 2];
    for _ in 0..STREAMS {
        for (fake, taken) in services.iter().zip(&mut taken) {
            let before = fake.service.taken()?.cpu;
            let body = (QUESTIONS.body)();
            let mut answer = Answer::at(&fake.service.authority, QUESTIONS.path, &body).await?;
            while answer.more().await? {
                answer.all.clear();
            }
            *taken += fake.service.taken()?.cpu - before;
        }
    }
    let [off, on] = taken.map(|taken| taken.as_secs_f64() * 1e6 / (DELTAS * STREAMS) as f64);
    row(
        "processor time of a delta, not operated",
        &format!("{off:.2} µs"),
        "",
    );
    let what = format!(
        "processor time of a delta, operated ({:+.0} %)",
        (on / off - 1.0) * 100.0
    );
    row(&what, &format!("{on:.2} µs"), "3 % more");
    Ok(())
}

/// An answer from the cache, from the request to its end.
async fn repeats(program: &Path, on: &str) -> Result<()> {
    let fake = Fake::start(program, "#init\n#read\n#sleep 3\n#text Hello\n#done\n", on)?;
    let body = (QUESTIONS.body)();
    let mut times = Times::default();
    for asked in 0..FIRSTS {
        let began = std::time::Instant::now();
        let mut answer = Answer::at(&fake.service.authority, QUESTIONS.path, &body).await?;
        answer.whole().await?;
        match asked {
            0 => row(
                "a question that is not in the cache",
                &micros(began.elapsed()),
                "",
            ),
            _ => times.push(began.elapsed()),
        }
    }
    row("the same question again", &times.tail(), "");
    Ok(())
}
