//! What it costs to operate the service: ledger, cache, and somebody who looks on, against a service without all of it,
//! by turns in one run.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use crate::dialects::first;
use crate::fake::{Api, CHAT, COLD, Fake, turns};
use crate::service::{Answer, Service};
use crate::table::{Times, micros, row};

/// How many first deltas of each are measured.
const FIRSTS: usize = 300;

/// How many deltas of a stream are counted, and how many such streams.
const DELTAS: usize = 20_000;
const STREAMS: usize = 60;

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

/// Measures all of them.
pub(crate) async fn compare(program: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ledger = |file: &str| {
        let path = folder.path().join(file);
        format!("{COLD}\n[ledger]\npath = \"{}\"\n", path.display())
    };
    let with_cache = ledger("cached.sqlite") + "[cache]\n";
    let kinds = [
        (
            "not operated",
            format!("{COLD}\n[ledger]\nenabled = false\n"),
        ),
        ("with ledger, events and metrics", ledger("usage.sqlite")),
        ("and with a cache", with_cache.clone()),
    ];
    firsts(program, &kinds).await?;
    deltas(program, &kinds).await?;
    repeats(program, &with_cache).await
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

/// Starts a service of each kind. All but the first have somebody who looks on.
fn start(
    program: &Path,
    script: &str,
    kinds: &[(&str, String)],
) -> Result<(Vec<Fake>, Vec<AbortOnDropHandle<()>>)> {
    let started = kinds
        .iter()
        .map(|(_, settings)| Fake::start(program, script, settings));
    let started = started.collect::<Result<Vec<_>>>()?;
    let watchers = started
        .iter()
        .skip(1)
        .map(|fake| look_on(&fake.service))
        .collect();
    Ok((started, watchers))
}

/// From the CLI's first delta on its standard output to the client.
async fn firsts(program: &Path, kinds: &[(&str, String)]) -> Result<()> {
    let script = "#init\n#read\n#sleep 3\n#stamp\n#done\n";
    let (services, _watchers) = start(program, script, kinds)?;
    let mut all = vec![Times::default(); kinds.len()];
    for round in 0..FIRSTS {
        for turn in turns(round, services.len()) {
            all[turn].push(first(&services[turn].service, QUESTIONS).await?);
        }
    }
    let bare = all.first().map(Times::median).unwrap_or_default();
    for (index, ((kind, _), times)) in kinds.iter().zip(&all).enumerate() {
        let more = micros(times.median().saturating_sub(bare));
        let (more, wanted) = match index {
            0 => (String::new(), ""),
            _ => (format!(" ({more} more)"), "100 µs more"),
        };
        let what = format!("added to the first delta, {kind}{more}");
        row(&what, &times.tail(), wanted);
    }
    Ok(())
}

/// The processor time of each delta of a stream as fast as it goes.
async fn deltas(program: &Path, kinds: &[(&str, String)]) -> Result<()> {
    let script = format!("#init\n#read\n#burst {DELTAS}\n#done\n");
    let (services, _watchers) = start(program, &script, kinds)?;
    let mut all = vec![Times::default(); kinds.len()];
    for round in 0..STREAMS {
        for turn in turns(round, services.len()) {
            let fake = &services[turn];
            let before = fake.service.taken()?.cpu;
            let body = (QUESTIONS.body)();
            let mut answer = Answer::at(&fake.service.authority, QUESTIONS.path, &body).await?;
            while answer.more().await? {
                answer.all.clear();
            }
            all[turn].push(fake.service.taken()?.cpu - before);
        }
    }
    // The machine is faster in one round than in another, so what is compared is of the same round.
    let bare = all.first().cloned().unwrap_or_default();
    for (index, ((kind, _), taken)) in kinds.iter().zip(&all).enumerate() {
        let more = (taken.ratio_to(&bare) - 1.0) * 100.0;
        let (more, wanted) = match index {
            0 => (String::new(), ""),
            _ => (format!(" ({more:+.0} %)"), "3 % more"),
        };
        let what = format!("processor time of a delta, {kind}{more}");
        let each = taken.median().as_secs_f64() * 1e6 / DELTAS as f64;
        row(&what, &format!("{each:.2} µs"), wanted);
    }
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
