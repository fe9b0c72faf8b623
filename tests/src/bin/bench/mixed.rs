//! Two thousand requests of mixed kinds through four processes: what is lost, what is wrong, and what grows.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Result, ensure};
use harness_tests::fake_api::FakeApi;
use harness_tests::real_cli;
use serde_json::{Value, json};

use crate::service::{Service, real_config};
use crate::table::row;

/// How many requests there are in all, and how many clients make them.
const REQUESTS: usize = 2000;
const CLIENTS: usize = 4;

/// The load, of all versions that are there.
pub(crate) async fn soak(program: &Path) -> Result<()> {
    for version in real_cli::VERSIONS {
        let Some(cli) = real_cli::find(version, "the mixed load") else {
            continue;
        };
        let (api, home, cache) = (
            FakeApi::start().await?,
            tempfile::tempdir()?,
            tempfile::tempdir()?,
        );
        let settings = format!("max_concurrent = {CLIENTS}\nwarm = 0");
        let config = format!(
            "max_processes = {CLIENTS}\n{}",
            real_config(&cli, &api, home.path(), &settings)
        );
        let service = Service::start(program, cache.path(), &config)?;
        let asked = AtomicUsize::new(0);
        // The first ones start everything.
        each_client(&service, &asked, REQUESTS / 10).await?;
        let (before, processes_before) = (service.taken()?, service.processes_memory()?);
        let started = Instant::now();
        each_client(&service, &asked, REQUESTS).await?;
        let time = started.elapsed();
        let (after, processes) = (service.taken()?, service.processes_memory()?);
        let figure = format!(
            "{:.1} a second, none lost, none wrong; {:.1} to {:.1} MB resident, the processes {processes_before:.0} to {processes:.0} MB",
            REQUESTS as f64 / time.as_secs_f64(),
            before.resident,
            after.resident,
        );
        let what = format!(
            "{REQUESTS} requests of mixed kinds through {CLIENTS} processes, Claude Code {version}"
        );
        row(&what, &figure, "memory bounded");
    }
    Ok(())
}

/// All clients at once, until so many more requests were answered.
async fn each_client(service: &Service, asked: &AtomicUsize, count: usize) -> Result<()> {
    let until = asked.load(Ordering::Relaxed) + count;
    let clients = (0..CLIENTS).map(|client| talk(service, client, asked, until));
    futures_util::future::try_join_all(clients).await?;
    Ok(())
}

/// A client that goes on, asks again, edits, begins anew, has functions called and cuts answers, by turns.
async fn talk(service: &Service, client: usize, asked: &AtomicUsize, until: usize) -> Result<()> {
    let mut talk: Vec<Value> = Vec::new();
    let mut turn = 0;
    loop {
        let number = asked.fetch_add(1, Ordering::Relaxed);
        if number >= until {
            return Ok(());
        }
        turn += 1;
        let question = format!("scenario:echo client {client}, question {number}");
        match turn % 8 {
            0 | 5 => talk.clear(),
            2 if talk.len() > 2 => talk.truncate(talk.len() - 2),
            3 if talk.len() > 4 => talk.truncate(talk.len() - 4),
            6 => {
                called(service, number).await?;
                continue;
            }
            7 => {
                cut(service, &talk, number).await?;
                continue;
            }
            _ => {}
        }
        talk.push(json!({"role": "user", "content": question}));
        let said = answer(
            service,
            &json!({"model": "m", "messages": talk, "tools": tools()}),
        )
        .await?;
        ensure!(said["content"] == question, "wrong: {said} to {question}");
        talk.push(json!({"role": "assistant", "content": said["content"]}));
    }
}

/// A function is called, and its result handed in. What was said before would have the fake model echo.
async fn called(service: &Service, number: usize) -> Result<()> {
    let mut talk = vec![json!({"role": "user", "content": "What is the weather?"})];
    let said = answer(
        service,
        &json!({"model": "m", "messages": talk, "tools": tools()}),
    )
    .await?;
    let id = said["tool_calls"][0]["id"].clone();
    ensure!(id.is_string(), "no call: {said}");
    let result = format!("rain {number}");
    talk.extend([
        said,
        json!({"role": "tool", "tool_call_id": id, "content": result}),
    ]);
    let said = answer(
        service,
        &json!({"model": "m", "messages": talk, "tools": tools()}),
    )
    .await?;
    ensure!(
        said["content"] == format!("The result is {result}"),
        "wrong: {said}"
    );
    Ok(())
}

/// An answer ends at a word of `stop`.
async fn cut(service: &Service, talk: &[Value], number: usize) -> Result<()> {
    let mut talk = talk.to_vec();
    talk.push(json!({"role": "user", "content": format!("scenario:echo {number} STOP and more")}));
    let body = json!({"model": "m", "messages": talk, "tools": tools(), "stop": [" STOP"]});
    let said = answer(service, &body).await?;
    ensure!(
        said["content"] == format!("scenario:echo {number}"),
        "wrong: {said}"
    );
    Ok(())
}

async fn answer(service: &Service, body: &Value) -> Result<Value> {
    Ok(service.whole(body).await?["choices"][0]["message"].clone())
}

fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "get_weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}}}}])
}
