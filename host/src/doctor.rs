//! `claude-harness doctor`: what is wrong, and what mends it, without a running service.
//!
//! The backends and guests are looked at by a service of its own, which listens nowhere, so what is found here is what
//! a start would find.

mod machine;
mod network;
mod service;
mod systemd;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use tokio::process::Command;

use crate::config::{Config, Overrides};
use crate::tls;

/// How long a program that is asked may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is looked at, and how it is told.
#[derive(Args, Debug)]
pub struct Doctor {
    /// The configuration [default: as for `serve`]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Also ask each backend a question of one token
    #[arg(long)]
    live: bool,
    /// Tell it as JSON
    #[arg(long)]
    json: bool,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    /// It works, and somebody should know.
    Warning,
    Wrong,
    /// This machine does not tell.
    Unknown,
}

/// What was found.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// What was looked at, in a word or two.
    check: String,
    state: State,
    /// What it is like, in a sentence.
    found: String,
    /// What mends it: commands for the shell of the service's user.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remedy: Vec<String>,
}

impl Finding {
    fn new(check: impl Into<String>, state: State, found: impl Into<String>) -> Self {
        Finding {
            check: check.into(),
            state,
            found: found.into(),
            remedy: Vec::new(),
        }
    }

    fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(check, State::Ok, found)
    }

    fn warning(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(check, State::Warning, found)
    }

    fn wrong(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(check, State::Wrong, found)
    }

    fn unknown(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(check, State::Unknown, found)
    }

    fn mended_by(mut self, command: impl Into<String>) -> Self {
        self.remedy.push(command.into());
        self
    }
}

/// What all findings come to.
#[derive(Serialize)]
struct Told<'a> {
    ok: bool,
    findings: &'a [Finding],
}

/// Looks at everything, and tells it. The exit status is 1 if something is wrong.
///
/// # Errors
///
/// Fails if it cannot even begin to look, or cannot write.
pub fn run(doctor: &Doctor) -> Result<ExitCode> {
    let findings = match Config::load(&Overrides::of_command(doctor.config.clone())) {
        Ok(config) => look(config, doctor.live)?,
        // Nothing else can be looked at without it.
        Err(error) => vec![Finding::wrong("configuration", error.to_string())],
    };
    let is_ok = findings.iter().all(|found| found.state != State::Wrong);
    let mut out = std::io::stdout().lock();
    match doctor.json {
        true => {
            let told = Told {
                ok: is_ok,
                findings: &findings,
            };
            writeln!(out, "{}", serde_json::to_string_pretty(&told)?)?;
        }
        false => findings
            .iter()
            .try_for_each(|found| write!(out, "{}", line(found)))?,
    }
    Ok(match is_ok {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn look(config: Config, live: bool) -> Result<Vec<Finding>> {
    tls::choose();
    let metrics = crate::telemetry::start_metrics()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut findings = vec![configuration(&config)];
        let warnings = config.warnings.iter();
        findings.extend(warnings.map(|warning| Finding::warning("configuration", warning)));
        findings.extend(machine::look(&config).await);
        findings.extend(systemd::look().await);
        findings.extend(network::look(&config).await);
        findings.extend(service::look(config, metrics, live).await?);
        Ok(findings)
    })
}

/// What a program prints, if it is there and succeeds.
async fn said(program: &str, args: &[&str]) -> Option<String> {
    let run = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, run).await.ok()?.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn configuration(config: &Config) -> Finding {
    let found = match &config.source {
        Some(file) => file.display().to_string(),
        None => "there is no harness.toml, so everything has its default".into(),
    };
    Finding::ok("configuration", found)
}

/// A finding as people read it.
fn line(finding: &Finding) -> String {
    /// How wide the first two columns are, in characters.
    const STATE: usize = 9;
    const CHECK: usize = 24;
    let state = match finding.state {
        State::Ok => "ok",
        State::Warning => "warning",
        State::Wrong => "WRONG",
        State::Unknown => "unknown",
    };
    let mut lines = finding.found.lines();
    let first = lines.next().unwrap_or_default();
    let mut told = format!("{state:STATE$}{:CHECK$}{first}\n", finding.check);
    let indent = " ".repeat(STATE + CHECK);
    for more in lines {
        told += &format!("{indent}{more}\n");
    }
    for command in &finding.remedy {
        told += &format!("{indent}to mend it: {command}\n");
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mends_it_stands_below_what_is_wrong() {
        let finding = Finding::wrong("login of claude", "it is not logged in\nat all")
            .mended_by("claude auth login");
        let indent = " ".repeat(33);
        assert_eq!(
            line(&finding),
            format!(
                "WRONG    login of claude         it is not logged in\n{indent}at all\n{indent}to mend it: claude auth login\n"
            )
        );
    }
}
