//! `POST /admin/guests/NAME/record`: the next request that a guest serves, as a case.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::api::openai::case_request;
use crate::failure::{Failure, Kind};
use crate::service::Service;

/// How long a request is waited for, in seconds.
const WAIT: u64 = 60;
const WAIT_MAX: u64 = 600;

/// What is to be recorded.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Wanted {
    /// How long the request is waited for, in seconds.
    wait: Option<u64>,
    /// Whether the case holds what people and models said.
    #[serde(default)]
    keep_content: bool,
}

/// Waits for the next request that a guest serves, and returns a case of it.
pub(in crate::api) async fn record(
    State(service): State<Arc<Service>>,
    Path(name): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, Failure> {
    let snapshot = service.snapshot();
    let Some(guest) = snapshot.guests.serving.get(&name).cloned() else {
        let message = format!("no guest `{name}` serves: see `GET /admin/guests`");
        return Err(Failure::new(Kind::InvalidRequest, message));
    };
    let (sender, recorded) = oneshot::channel();
    // Sending fails if nobody waits any more.
    guest.record_next(Box::new(move |recording| drop(sender.send(recording))));
    let wait = Duration::from_secs(wanted.wait.unwrap_or(WAIT).min(WAIT_MAX));
    let recording = match tokio::time::timeout(wait, recorded).await {
        Ok(Ok(recording)) => recording,
        Ok(Err(_)) => {
            let message = "somebody else wants to record this guest, too: try again";
            return Err(Failure::new(Kind::InvalidRequest, message));
        }
        Err(_) => {
            guest.record_none();
            let message = format!("`{name}` served no request within {} s", wait.as_secs());
            return Err(Failure::new(Kind::Timeout, message));
        }
    };
    let digest = guest.digest.clone();
    // Guests may take long, and must not hold up a thread that serves.
    let case = tokio::task::spawn_blocking(move || {
        recording.case(&guest, wanted.keep_content, case_request)
    });
    let gone = |_| Failure::new(Kind::Internal, "it was broken off").logged();
    let case = case.await.map_err(gone)?;
    let case = case.map_err(|why| Failure::new(Kind::InvalidRequest, why.to_string()))?;
    Ok(Json(json!({"guest": name, "digest": digest, "case": case})))
}
