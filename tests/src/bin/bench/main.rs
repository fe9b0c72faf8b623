//! The benchmark: prints a table of what the service costs. See docs/explanation/performance.md.
//!
//! `./tests/bench` builds what it needs and runs it. The service is the release build; every
//! figure of a table comes from one run.

mod bodies;
mod dialects;
mod fake;
mod hostile;
mod mixed;
mod operated;
mod others;
mod real;
mod reuse;
mod service;
mod soak;
mod table;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

/// Measures the service.
#[derive(Parser)]
struct Arguments {
    /// The release build of the service.
    #[arg(long)]
    program: PathBuf,
    /// Requests for each figure of added time.
    #[arg(long, default_value_t = 300)]
    requests: usize,
    /// Minutes of a steady load; 0 leaves it out.
    #[arg(long, default_value_t = 0)]
    soak: u64,
    /// The folder in which `tests/others` installed other services, to be measured too.
    #[arg(long)]
    others: Option<PathBuf>,
    /// Only these parts: start, added, long, throughput, paced, dialects, operated, bodies, hostile, real, reuse, mixed.
    parts: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let program = &arguments.program;
    let wanted =
        |part: &str| arguments.parts.is_empty() || arguments.parts.iter().any(|p| p == part);
    println!("| what | figure | wanted |\n|---|---|---|");
    if wanted("start") {
        fake::starts(program)?;
    }
    if wanted("added") {
        fake::added_time(program, arguments.requests).await?;
    }
    if wanted("long") {
        fake::long_requests(program).await?;
    }
    if wanted("throughput") {
        fake::throughput(program).await?;
    }
    if wanted("paced") {
        fake::paced(program).await?;
    }
    if wanted("dialects") {
        dialects::compare(program).await?;
    }
    if wanted("operated") {
        operated::compare(program).await?;
    }
    if wanted("bodies") {
        bodies::large_bodies(program).await?;
        bodies::idle_connections(program).await?;
    }
    if wanted("hostile") {
        hostile::compare(program).await?;
    }
    if wanted("real") {
        real::compare(program).await?;
    }
    if wanted("reuse") {
        reuse::compare(program).await?;
    }
    if wanted("mixed") {
        mixed::soak(program).await?;
    }
    if let Some(folder) = &arguments.others {
        others::compare(program, folder).await?;
    }
    if arguments.soak > 0 {
        soak::soak(program, arguments.soak).await?;
    }
    Ok(())
}
