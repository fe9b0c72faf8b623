//! `GET /admin/guests`, and `POST /admin/guests/NAME/rollback`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use guests::store::{NoRollback, Store};
use serde::Deserialize;
use serde_json::{Value, json};

use super::health::guests_state;
use crate::failure::{Failure, Kind};
use crate::service::Service;

/// What serves, and what is kept of earlier components, the latest first.
pub(in crate::api) async fn list(State(service): State<Arc<Service>>) -> Json<Value> {
    let snapshot = service.snapshot();
    let mut guests = guests_state(&snapshot.guests);
    let settings = snapshot.config.guests.clone();
    let kept = tokio::task::spawn_blocking(move || {
        let store = Store::open(&settings);
        let names = store.names().into_iter();
        names
            .map(|name| (store.kept(&name), name))
            .collect::<Vec<_>>()
    });
    for (kept, name) in kept.await.unwrap_or_default() {
        guests[name]["kept"] = json!(kept);
    }
    for guest in snapshot.guests.serving.values() {
        let taken = guest.taken();
        guests[&guest.name]["calls"] = json!({
            "count": taken.calls,
            "mean_us": taken.time.as_secs_f64() * 1e6 / taken.calls.max(1) as f64,
            "traps": taken.broken,
            "last_error": taken.last_error,
        });
    }
    Json(json!({ "generation": snapshot.guests.generation, "guests": guests }))
}

/// Which component to go back to.
#[derive(Deserialize)]
pub(in crate::api) struct Wanted {
    /// The beginning of its digest; by default the one before the present one.
    digest: Option<String>,
}

/// Goes back to an earlier component, and has it loaded.
pub(in crate::api) async fn roll_back(
    State(service): State<Arc<Service>>,
    Path(name): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, Failure> {
    let settings = service.snapshot().config.guests.clone();
    let done = tokio::task::spawn_blocking(move || {
        Store::open(&settings).roll_back(&name, wanted.digest.as_deref())
    });
    let gone = |_| Failure::new(Kind::Internal, "the rollback was broken off").logged();
    let done = done.await.map_err(gone)?.map_err(|error| match error {
        NoRollback::Io(_) => Failure::new(Kind::Internal, error.to_string()).logged(),
        _ => Failure::new(Kind::InvalidRequest, error.to_string()),
    })?;
    tracing::info!(to = &done.to[..12], "an earlier guest was put back");
    let reloaded = service.reloader.reload().await;
    let mut report = json!(done);
    if let Some(reloaded) = reloaded {
        report["generation"] = reloaded.snapshot.guests.generation.into();
        report["rejected"] = json!(reloaded.snapshot.guests.rejected);
    }
    Ok(Json(report))
}
