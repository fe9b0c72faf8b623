//! `claude-harness guest record`: a case from a request that a running service serves.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Deserialize;

use super::{Configured, block_on};
use crate::config::{Config, Listen};

/// Where the key for the service is read from.
const KEY_VARIABLE: &str = "CLAUDE_HARNESS_KEY";

/// What the service takes in addition to the time that it waits for a request.
const ALLOWANCE: Duration = Duration::from_secs(30);

/// What is recorded, and where to.
#[derive(Args, Debug)]
pub struct Record {
    /// The guest
    name: String,
    /// Write the case to this file [default: a new one in NAME.cases, beside the guest]
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
    /// Keep what people and models said
    #[arg(long)]
    keep_content: bool,
    /// How many seconds a request is waited for
    #[arg(long, default_value_t = 60)]
    wait: u64,
    /// Where the service is [default: where the configuration says]
    #[arg(long)]
    url: Option<String>,
    /// Which configuration is read
    #[command(flatten)]
    configured: Configured,
}

/// What the service answers.
#[derive(Deserialize)]
struct Answer {
    case: Option<String>,
    error: Option<Error>,
}

#[derive(Deserialize)]
struct Error {
    message: String,
}

/// Waits for a request, and writes the case.
pub(super) fn record(record: &Record) -> Result<()> {
    let config = record.configured.load()?;
    let base = match &record.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => address(&config)?,
    };
    let (name, wait, keep) = (&record.name, record.wait, record.keep_content);
    let url = format!("{base}/admin/guests/{name}/record?wait={wait}&keep_content={keep}");
    eprintln!("waiting up to {wait} s for a request that `{name}` serves");
    let case = block_on(ask(&url, Duration::from_secs(wait)))?;
    let file = match &record.into {
        Some(file) => file.clone(),
        None => {
            let folder = config.guests.cases(name);
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
            let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
            let stamp: String = now.chars().filter(char::is_ascii_alphanumeric).collect();
            folder.join(format!("recorded-{stamp}.jsonl"))
        }
    };
    fs::write(&file, case).with_context(|| format!("cannot write {}", file.display()))?;
    println!("{}", file.display());
    Ok(())
}

/// The address of the service on this machine.
fn address(config: &Config) -> Result<String> {
    let listen = config.listen.iter().find_map(|listen| match listen {
        Listen::Tcp(address) if address.ip().is_unspecified() => {
            Some(format!("http://127.0.0.1:{}", address.port()))
        }
        Listen::Tcp(address) => Some(format!("http://{address}")),
        _ => None,
    });
    listen.context("the configuration names no address: write --url")
}

async fn ask(url: &str, wait: Duration) -> Result<String> {
    let client = reqwest::Client::builder()
        .timeout(wait + ALLOWANCE)
        .no_proxy()
        .build()?;
    let mut request = client.post(url);
    if let Ok(key) = std::env::var(KEY_VARIABLE) {
        request = request.bearer_auth(key);
    }
    let response = request.send().await;
    let response = response.with_context(|| format!("no service answers at {url}"))?;
    let status = response.status();
    let answer: Answer = response
        .json()
        .await
        .with_context(|| format!("the service answered with {status}, and no JSON"))?;
    match answer {
        Answer {
            case: Some(case), ..
        } => Ok(case),
        Answer {
            error: Some(error), ..
        } if status.as_u16() == 401 => {
            bail!("{} (the key is read from {KEY_VARIABLE})", error.message)
        }
        Answer {
            error: Some(error), ..
        } => bail!("{}", error.message),
        _ => bail!("the service answered with {status}"),
    }
}
