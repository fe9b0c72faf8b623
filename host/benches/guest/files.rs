//! What guests that `guest new` makes cost, in whatever language.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use guests::adapter::AdapterSession;
use guests::admit::World;
use guests::completion::Delta;
use guests::instance::Configured;
use guests::transform;

use crate::{REQUEST, context, loaded, median, request, told};

/// How many lines or deltas come at once in the second measurement: what one read of a busy process gives.
const BATCH: usize = 64;

/// Requests in each round.
const REQUESTS: u32 = 20;

/// Calls in each round.
const CALLS: u32 = 50;

/// Prints the rows of one component.
pub(crate) fn measure(file: &Path) -> Result<()> {
    let name = file.file_stem().and_then(|name| name.to_str());
    let name = name.context("a file's name")?;
    let folder = file.parent().context("a folder")?;
    // Without a signature the transform would not look at the answer.
    let config = match name.ends_with("-transform") {
        true => serde_json::json!({"signature": "a guest"}),
        false => serde_json::json!({}),
    };
    let guest = loaded(folder, name, &config, 1000)?;
    match guest.guest.world() {
        World::Adapter => adapter(name, &guest),
        World::Transform => transform(name, &guest),
        World::Dialect => bail!("{name} is a dialect"),
    }
}

fn adapter(name: &str, guest: &Configured) -> Result<()> {
    let open = || -> Result<AdapterSession> {
        let opened = AdapterSession::open(guest.clone(), &context(), &request(), REQUEST.len());
        let mut session = opened.map_err(told)?;
        black_box(session.launch_options()?);
        black_box(session.start(REQUEST.len())?);
        Ok(session)
    };
    let opened = each(REQUESTS, || open().map(drop))?;
    println!("| {name}: a request opened and started | {opened:.0} µs | |");
    let mut session = open()?;
    let lines = ["word word word"; BATCH];
    pieces(name, "line", |count| {
        black_box(session.output(&lines[..count], 0)?);
        Ok(())
    })
}

fn transform(name: &str, guest: &Configured) -> Result<()> {
    let open = || {
        let opened = transform::open(guest, &context(), &request(), REQUEST.len());
        opened.map_err(told)
    };
    let opened = each(REQUESTS, || open().map(drop))?;
    println!("| {name}: a request | {opened:.0} µs | |");
    let (_, Some(mut filter)) = open()? else {
        return Ok(());
    };
    let deltas = vec![Delta::Content("word ".into()); BATCH];
    pieces(name, "delta", |count| {
        black_box(filter.take(&deltas[..count])?);
        Ok(())
    })
}

/// Prints what one piece takes alone, and as one of many that come at once.
fn pieces(name: &str, what: &str, mut take: impl FnMut(usize) -> Result<()>) -> Result<()> {
    let alone = each(CALLS, || take(1))?;
    let batch = each(CALLS, || take(BATCH))? / BATCH as f64;
    println!("| {name}: a {what} | {alone:.1} µs alone, {batch:.1} µs as one of {BATCH} | |");
    Ok(())
}

/// The median time of one call, in microseconds.
fn each(count: u32, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    median(9, || {
        let started = Instant::now();
        for _ in 0..count {
            call()?;
        }
        Ok(started.elapsed() / count)
    })
}
