//! `POST /admin/reload`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::add_problems;
use crate::failure::{Failure, Kind};
use crate::reload::Reloaded;
use crate::service::Service;

/// Reads the configuration and the guests again, and reports what changed.
pub(in crate::api) async fn reload(
    State(service): State<Arc<Service>>,
) -> Result<Json<Value>, Failure> {
    let Some(reloaded) = service.reloader.reload().await else {
        let message = "the thread that watches the files is gone or stuck: restart the service";
        return Err(Failure::new(Kind::Internal, message));
    };
    let Reloaded {
        snapshot,
        changed,
        pending,
    } = reloaded;
    let mut report = json!({
        "generation": snapshot.guests.generation,
        "changed": changed,
        "rejected": snapshot.guests.rejected,
    });
    if !pending.is_empty() {
        report["pending"] = json!(pending);
    }
    add_problems(&mut report, &snapshot);
    Ok(Json(report))
}
