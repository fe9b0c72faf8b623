//! `GET /health`: the state of everything.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use guests::admit::GuestSource;
use guests::registry::GuestSet;
use serde_json::{Map, Value, json};

use super::add_problems;
use crate::backends::Backend;
use crate::backends::status::Health;
use crate::profiles::Stdin;
use crate::runtime::Snapshot;
use crate::service::Service;

/// The state of everything; 200 while a real backend can serve.
pub(in crate::api) async fn health(State(service): State<Arc<Service>>) -> Response {
    let (code, body) = state(&service).await;
    (code, Json(body)).into_response()
}

/// The status of `/health`, and its body.
pub(super) async fn state(service: &Service) -> (StatusCode, Value) {
    service.monitor.known().await;
    let snapshot = service.snapshot();
    let set = &*snapshot.guests;
    let real: Vec<_> = snapshot
        .backends
        .iter()
        .filter(|backend| backend.is_real())
        .collect();
    let ready = real
        .iter()
        .filter(|backend| health_of(backend, set) == Health::Ready)
        .count();
    let (code, status) = match ready {
        0 => (StatusCode::SERVICE_UNAVAILABLE, "down"),
        _ if service.is_draining() => (StatusCode::SERVICE_UNAVAILABLE, "down"),
        some if some < real.len()
            || is_rejected(&snapshot)
            || warned(&real)
            || service.books.ledger.problem().is_some() =>
        {
            (StatusCode::OK, "degraded")
        }
        _ => (StatusCode::OK, "ok"),
    };
    let state = |backend: &Arc<Backend>| {
        let state = backend_state(backend, set, service.pool.count(&backend.config.name));
        (backend.config.name.clone(), state)
    };
    let backends: Map<String, Value> = snapshot.backends.iter().map(state).collect();
    let mut body = json!({
        "status": status,
        "version": env!("CARGO_PKG_VERSION"),
        "backends": backends,
        "guests": guests_state(set),
    });
    add_problems(&mut body, &snapshot);
    if let Some(problem) = service.books.ledger.problem() {
        body["ledger"] = json!({"problem": problem});
    }
    (code, body)
}

/// Whether something on disk was not taken up.
fn is_rejected(snapshot: &Snapshot) -> bool {
    let guests = &snapshot.guests;
    let problems = [&snapshot.config_problem, &guests.folder_problem];
    !guests.rejected.is_empty()
        || problems.into_iter().any(Option::is_some)
        || snapshot.chains.problems().next().is_some()
        || snapshot.dialects.problems().next().is_some()
}

fn warned(backends: &[&Arc<Backend>]) -> bool {
    backends.iter().any(|backend| !warnings(backend).is_empty())
}

fn warnings(backend: &Backend) -> Vec<String> {
    backend
        .status
        .warnings(backend.config.login_warning, &backend.login_line())
}

/// A backend's health. If its adapter does not serve, the backend cannot be ready.
fn health_of(backend: &Backend, set: &GuestSet) -> Health {
    let adapter = &backend.config.adapter.guest;
    if set.serving.contains_key(adapter) {
        return backend.status.health();
    }
    if set.is_pending(adapter) {
        return Health::Starting;
    }
    Health::Failing(format!("its adapter `{adapter}` is not loaded"))
}

/// `waiting` is how many processes are warm, and how many kept for a conversation.
fn backend_state(backend: &Backend, set: &GuestSet, waiting: (usize, usize)) -> Value {
    let health = health_of(backend, set);
    let word = match health {
        Health::Starting => "starting",
        Health::Ready => "ready",
        Health::Missing(_) => "missing",
        Health::LoggedOut => "logged_out",
        Health::LoginUnused => "login_unused",
        Health::Failing(_) => "failing",
    };
    let mut state = json!({
        "status": word,
        "adapter": backend.config.adapter.guest,
        // Whether what guests write to it is checked against a list of messages.
        "guarded": backend.config.launch.profile.stdin != Stdin::Text,
        "in_flight": backend.admission.in_flight(),
        "queued": backend.admission.queued(),
        "max_concurrent": backend.config.admission.max_concurrent,
        "warm": waiting.0,
        "kept": waiting.1,
    });
    if health != Health::Ready {
        state["message"] = backend.message(&health).into();
        state["remedy"] = backend.remedy().into();
    }
    if let Some(version) = backend.status.version() {
        state["version"] = version.into();
    }
    if let Some(end) = backend.status.login_ends() {
        state["login_expires_at"] = end.into();
    }
    let warnings = warnings(backend);
    if !warnings.is_empty() {
        state["warnings"] = warnings.into();
    }
    if let Some(limit) = backend.status.rate_limit() {
        state["rate_limit"] = json!(limit);
    }
    if let Some(plan) = backend.status.plan() {
        state["plan"] = super::plan::state(&plan);
    }
    if let Some(introduction) = backend.status.introduction() {
        state["introduction"] = json!(introduction);
    }
    if let Some(objection) = backend.installation.objection() {
        state["update_refused"] = json!({
            "message": objection,
            "remedy": backend.tested_version().into_iter().collect::<Vec<_>>(),
        });
    }
    state
}

/// The guests that serve, those that were not admitted, and those that are being compiled. A name may be several of these:
/// then an earlier guest of that name serves.
pub(super) fn guests_state(set: &GuestSet) -> Value {
    let mut guests = Map::new();
    for (name, guest) in &set.serving {
        let origin = match guest.origin {
            GuestSource::Embedded => "embedded",
            GuestSource::File => "file",
            GuestSource::LastGood => "last_good",
        };
        let state = json!({
            "version": guest.version,
            "world": guest.world().name(),
            "summary": guest.summary,
            "digest": guest.digest,
            "generation": guest.generation,
            "origin": origin,
        });
        guests.insert(name.clone(), state);
    }
    let mut say = |name: &String, what: &str, value: Value| {
        let entry = guests.entry(name.clone());
        let entry =
            entry.or_insert_with(|| json!({"version": null, "digest": null, "generation": null}));
        entry[what] = value;
    };
    for (name, reason) in &set.rejected {
        say(name, "rejected", reason.as_str().into());
    }
    for name in &set.compiling {
        say(name, "compiling", true.into());
    }
    guests.into()
}
