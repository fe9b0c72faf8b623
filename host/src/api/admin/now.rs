//! `GET /admin/events` and `GET /admin/requests`: what the console shows of the present.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use ledger::Entry;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::{Interval, MissedTickBehavior};

use super::{health, wanted};
use crate::config::Access;
use crate::failure::Failure;
use crate::service::Service;

/// How often the state is told.
const INTERVAL: Duration = Duration::from_secs(1);

/// How many requests are told if nobody says how many.
const REQUESTS: usize = 1000;

/// What a watcher is told: the state every second, and each request that ends.
struct Watcher {
    service: Arc<Service>,
    requests: Receiver<Arc<Entry>>,
    ticks: Interval,
    /// Who could call when it began. When that is changed, the watcher must call again.
    access: Access,
}

/// Server-sent events: `now` with the state of the service, once a second, and `request` for each request that ends.
pub(in crate::api) async fn events(State(service): State<Arc<Service>>) -> Response {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let watcher = Watcher {
        access: service.snapshot().config.access.clone(),
        requests: service.books.watch(),
        service,
        ticks,
    };
    let events = stream::unfold(watcher, |mut watcher| async {
        let event = watcher.next().await?;
        Some((Ok::<_, Infallible>(event), watcher))
    });
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream; charset=utf-8"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        crate::api::openai::NO_BUFFERING,
    ];
    (headers, Body::from_stream(events)).into_response()
}

impl Watcher {
    /// The next event. None when the service stops, or when others may call than before.
    async fn next(&mut self) -> Option<String> {
        loop {
            tokio::select! {
                _ = self.ticks.tick() => {
                    let is_changed = self.service.snapshot().config.access != self.access;
                    if is_changed || self.service.is_draining() {
                        return None;
                    }
                    return Some(event("now", &now(&self.service).await));
                }
                request = self.requests.recv() => match request {
                    Ok(entry) => return Some(event("request", &told(&entry))),
                    // It was too slow, and goes on with what comes now.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }
}

fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

/// The state of the service, as in `/health`, and what that does not say.
async fn now(service: &Service) -> Value {
    let (_, mut state) = health::state(service).await;
    state["started_at"] = service.started_at.into();
    state["max_processes"] = service.snapshot().config.max_processes.into();
    state
}

/// What is asked for.
#[derive(Deserialize)]
pub(in crate::api) struct Wanted {
    limit: Option<usize>,
}

/// The latest requests, the newest first, without content.
pub(in crate::api) async fn requests(
    State(service): State<Arc<Service>>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let wanted = wanted(query)?;
    let recent = service.books.recent(wanted.limit.unwrap_or(REQUESTS));
    let told: Vec<Value> = recent.iter().map(|entry| told(entry)).collect();
    Ok(Json(json!({ "data": told })))
}

fn told(entry: &Entry) -> Value {
    json!({
        "at": entry.at,
        "id": &*entry.request,
        "api": entry.api,
        "key": entry.key.as_deref(),
        "model": entry.model,
        "backend": entry.backend,
        "origin": entry.origin,
        "generation": entry.generation,
        "stream": entry.stream,
        "status": entry.status,
        "code": entry.code,
        "prompt_tokens": entry.tokens.map(|tokens| tokens.prompt),
        "completion_tokens": entry.tokens.map(|tokens| tokens.completion),
        "cached_tokens": entry.tokens.map(|tokens| tokens.cached),
        "reasoning_tokens": entry.tokens.map(|tokens| tokens.reasoning),
        "cost_usd": entry.cost_micro_usd.map(|micro| micro as f64 / 1e6),
        "first_token_ms": entry.first_token_ms,
        "total_ms": entry.total_ms,
    })
}
