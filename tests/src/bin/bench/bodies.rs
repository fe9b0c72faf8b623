//! What large bodies cost, served and refused, and connections that say nothing.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::TcpStream;

use crate::fake::{COLD, Fake};
use crate::table::{Times, millis, row};

/// Just below `max_body`.
const SIZE: usize = 31 << 20;

/// Bodies of 31 MiB: how long each takes, in processor time too, and how much memory at the most.
pub(crate) async fn large_bodies(program: &Path) -> Result<()> {
    let fill = |unit: &str| unit.repeat(SIZE / unit.len());
    let nested = "[".repeat(100) + "0" + &"]".repeat(100) + ",";
    let user = r#"{"role":"user","content":"x"}"#;
    let field =
        |text: String| format!(r#"{{"model":"fake","messages":[{user}],"metadata":{text}}}"#);
    let said = |text: String| {
        format!(r#"{{"model":"fake","messages":[{{"role":"user","content":"{text}"}}]}}"#)
    };
    let input = |text: String| format!(r#"{{"model":"fake","store":false,"input":"{text}"}}"#);
    let (chat, responses) = ("/v1/chat/completions", "/v1/responses");
    for (what, path, body) in [
        ("31 MiB of text, served", chat, said(fill("word "))),
        (
            "31 MiB of letters of two bytes, served",
            chat,
            said(fill("ü")),
        ),
        (
            "31 MiB of text, served through Responses",
            responses,
            input(fill("word ")),
        ),
        (
            "31 MiB of letters of two bytes, served through Responses",
            responses,
            input(fill("ü")),
        ),
        (
            "31 MiB of nested arrays, refused",
            chat,
            field(format!("[{}0]", fill(&nested))),
        ),
        (
            "31 MiB of empty objects as messages, refused",
            chat,
            format!(r#"{{"model":"fake","messages":[{}{{}}]}}"#, fill("{},")),
        ),
    ] {
        let fake = Fake::start(program, "#init\n#read\n#text x\n#done\n", COLD)?;
        let before = fake.service.taken()?;
        let started = std::time::Instant::now();
        let url = format!("http://{}{path}", fake.service.authority);
        let response = harness_tests::http::client()
            .build()?
            .post(url)
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await?;
        let is_served = response.status().is_success();
        anyhow::ensure!(is_served == what.contains("served"), "{what}: {is_served}");
        response.bytes().await?;
        let took = started.elapsed();
        let after = fake.service.taken()?;
        let peak = fake.service.peak()?;
        let times = peak * 1e6 / SIZE as f64;
        let figure = format!(
            "{}, {} of CPU, at most {peak:.0} MB ({times:.1} times), then {:.0} MB",
            millis(took),
            millis(after.cpu.saturating_sub(before.cpu)),
            after.resident
        );
        row(what, &figure, "8 times, beside 60 MB");
    }
    Ok(())
}

/// How long a request takes beside connections that say nothing.
pub(crate) async fn idle_connections(program: &Path) -> Result<()> {
    let fake = Fake::start(program, "#init\n#read\n#text x\n#done\n", COLD)?;
    let mut idle = Vec::new();
    for _ in 0..3000 {
        idle.push(
            TcpStream::connect(&fake.service.authority)
                .await
                .context("a connection")?,
        );
    }
    let mut times = Times::default();
    for _ in 0..100 {
        let started = std::time::Instant::now();
        let url = format!("http://{}/v1/models", fake.service.authority);
        harness_tests::http::client()
            .build()?
            .get(url)
            .send()
            .await?
            .bytes()
            .await?;
        times.push(started.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let resident = fake.service.taken()?.resident;
    row(
        "a request beside 3,000 idle connections",
        &format!("{}, {resident:.0} MB", times.tail()),
        "",
    );
    Ok(())
}
