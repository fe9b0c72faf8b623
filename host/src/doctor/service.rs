//! The backends and the guests, as a service that listens nowhere sees them.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, header};
use http_body_util::BodyExt as _;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::ServiceExt as _;

use super::Finding;
use crate::api::{self, Peer, Transport};
use crate::backends::Backend;
use crate::backends::status::Health;
use crate::config::{Config, Warm};
use crate::failure::unix_now;
use crate::service::Service;

/// How long guests may take to be compiled, and backends to be looked at.
const PATIENCE: Duration = Duration::from_secs(120);

/// A day, in seconds.
const DAY: u64 = 24 * 60 * 60;

/// The largest answer to the question, in bytes.
const ANSWER_MAX: usize = 1 << 20;

pub(super) async fn look(
    mut config: Config,
    metrics: PrometheusHandle,
    live: bool,
) -> Result<Vec<Finding>> {
    // Nothing is kept of this, and no process is started but those that are asked.
    config.guests.state_dir = None;
    config.ledger = None;
    config.traces = None;
    for backend in &mut config.backends {
        backend.pool.warm = Warm::Fixed(0);
        backend.pool.continue_for = Duration::ZERO;
    }
    let service = Service::start(config, metrics, api::JUDGES)?;
    let deadline = Instant::now() + PATIENCE;
    let compiled = |snapshot: &crate::runtime::Snapshot| !snapshot.guests.has_pending();
    service.runtime.until(compiled, deadline).await;
    let is_starting = |service: &Service| {
        let snapshot = service.snapshot();
        let mut backends = snapshot.backends.iter();
        backends.any(|backend| backend.status.health() == Health::Starting)
    };
    service.monitor.known().await;
    while is_starting(&service) && Instant::now() < deadline {
        service.monitor.known().await;
    }
    let snapshot = service.snapshot();
    let mut findings = guests(&service);
    let real = snapshot.backends.iter().filter(|backend| backend.is_real());
    for backend in real {
        findings.extend(backend_findings(backend));
        if live && backend.status.health() == Health::Ready {
            findings.push(ask(&service, backend).await);
        }
    }
    if !snapshot.backends.iter().any(|backend| backend.is_real()) {
        let what = "none is configured but a demonstration: write a section `[backends.claude]`";
        findings.push(Finding::wrong("backends", what));
    }
    service.drain();
    service.monitor.stop();
    service.processes.drained().await;
    Ok(findings)
}

/// The guests that serve, and those that were not taken.
fn guests(service: &Service) -> Vec<Finding> {
    let snapshot = service.snapshot();
    let set = &snapshot.guests;
    let mut findings: Vec<Finding> = set
        .rejected
        .iter()
        .map(|(name, why)| Finding::wrong(format!("guest {name}"), why))
        .collect();
    if let Some(problem) = &set.folder_problem {
        findings.push(Finding::wrong("guests_dir", problem));
    }
    let chains = snapshot.chains.problems();
    let problems = chains.chain(snapshot.dialects.problems());
    findings.extend(problems.map(|(name, why)| Finding::wrong(format!("guests of {name}"), why)));
    if findings.is_empty() {
        let names: Vec<&str> = set.serving.keys().map(String::as_str).collect();
        findings.push(Finding::ok("guests", names.join(", ")));
    }
    findings
}

/// What is known of a backend.
fn backend_findings(backend: &Backend) -> Vec<Finding> {
    let name = &backend.config.name;
    let health = backend.status.health();
    if health != Health::Ready {
        let mut finding = Finding::wrong(format!("backend {name}"), backend.message(&health));
        finding.remedy = backend.remedy();
        return vec![finding];
    }
    let mut findings = vec![version(backend)];
    findings.extend(login(backend));
    if let Some(introduction) = backend.status.introduction() {
        let check = format!("protocol of {name}");
        findings.push(match introduction.lacks.is_empty() {
            true => Finding::ok(check, "it has all that requests rely on"),
            false => Finding::warning(check, format!("it lacks {}", introduction.lacks.join(", "))),
        });
    }
    let notice = backend.config.login_warning;
    let warnings = backend.status.warnings(notice, &backend.login_line());
    findings.extend(
        warnings
            .into_iter()
            .map(|warning| Finding::warning(format!("account of {name}"), warning)),
    );
    findings
}

/// The program, and whether its version is one of those that were tested.
fn version(backend: &Backend) -> Finding {
    let check = format!("backend {}", backend.config.name);
    let profile = backend.config.launch.profile;
    let program = backend.program().display().to_string();
    let (Some(version), Some((oldest, newest))) = (backend.status.version(), profile.tested) else {
        return Finding::ok(check, program);
    };
    let found = format!("{program}, version {version}");
    let tested = format!("{oldest} to {newest} are tested");
    match (numbers(&version), numbers(oldest), numbers(newest)) {
        (found_in, oldest, _) if found_in < oldest => {
            let finding = Finding::warning(
                check,
                format!("{found}, is older than those that are tested ({tested})"),
            );
            match backend.tested_version() {
                Some(command) => finding.mended_by(command),
                None => finding,
            }
        }
        (found_in, _, newest) if found_in > newest => Finding::warning(
            check,
            format!("{found}, is newer than those that are tested ({tested})"),
        ),
        _ => Finding::ok(check, format!("{found}; {tested}")),
    }
}

/// The numbers of a version.
fn numbers(version: &str) -> Vec<u64> {
    let parts = version.split(|c: char| !c.is_ascii_digit());
    parts.filter_map(|part| part.parse().ok()).take(3).collect()
}

/// The login, and until when it holds. Its coming end is among the account's warnings.
fn login(backend: &Backend) -> Option<Finding> {
    backend.config.launch.profile.login_check?;
    let check = format!("login of {}", backend.config.name);
    Some(match backend.status.login_ends() {
        None => Finding::ok(check, "it is logged in"),
        Some(end) => {
            let days = end.saturating_sub(unix_now()) / DAY;
            let date = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(end));
            Finding::ok(
                check,
                format!("it is logged in until {date}, for {days} days"),
            )
        }
    })
}

/// Asks a question of one token.
async fn ask(service: &Arc<Service>, backend: &Backend) -> Finding {
    let check = format!("answer of {}", backend.config.name);
    let snapshot = service.snapshot();
    let mut models = snapshot.config.models.iter();
    let Some(model) = models.find(|model| model.backend == backend.config.name) else {
        return Finding::unknown(check, "no model of it is configured");
    };
    let body = json!({"model": model.name, "max_tokens": 1,
        "messages": [{"role": "user", "content": "Answer with the word ok."}]});
    let started = Instant::now();
    match answer(service, &body).await {
        Ok(_) => {
            let took = started.elapsed().as_secs_f64();
            Finding::ok(
                check,
                format!("`{}` answered after {took:.1} s", model.name),
            )
        }
        Err(why) => {
            let mut finding = Finding::wrong(check, why);
            finding.remedy = backend.remedy();
            finding
        }
    }
}

/// The answer to a request, through everything that a client's request goes through.
async fn answer(service: &Arc<Service>, body: &Value) -> Result<Value, String> {
    let mut request = Request::new(Body::from(body.to_string()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = "/v1/chat/completions".parse().map_err(|_| "no path")?;
    let kind = header::HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::CONTENT_TYPE, kind);
    // As a client of a socket's file, which needs no key.
    request.extensions_mut().insert(Peer {
        transport: Transport::Unix,
        address: None,
    });
    let answered = api::router(service.clone()).oneshot(request).await;
    let response = answered.unwrap_or_else(|never| match never {});
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), ANSWER_MAX);
    let body = body.collect().await.map_err(|error| error.to_string())?;
    let body: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
    match status.is_success() {
        true => Ok(body),
        false => Err(body["error"]["message"]
            .as_str()
            .map_or_else(|| status.to_string(), str::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(numbers("2.1.99 (Claude Code)") < numbers("2.1.197"));
        assert!(numbers("2.2.0") > numbers("2.1.330"));
        assert!(numbers("2.1.330-beta") == numbers("2.1.330"));
    }
}
