//! `GET /admin/plan`: how much of each backend's plan is used.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use crate::backends::plan::Plan;
use crate::failure::unix_now;
use crate::service::Service;

/// The plans of all backends. One that is older than five minutes is asked for, on a process that is there anyway.
pub(in crate::api) async fn plans(State(service): State<Arc<Service>>) -> Json<Value> {
    service.monitor.plans_known().await;
    let snapshot = service.snapshot();
    let real = snapshot.backends.iter().filter(|backend| backend.is_real());
    let plans: Map<String, Value> = real
        .map(|backend| {
            let plan = backend.status.plan();
            let mut told = plan.map_or_else(unknown, |plan| state(&plan));
            told["rate_limit"] = json!(backend.status.rate_limit());
            (backend.config.name.clone(), told)
        })
        .collect();
    Json(json!({"backends": plans}))
}

/// A plan with its windows as they are now.
pub(super) fn state(plan: &Plan) -> Value {
    json!({
        "name": plan.name,
        "asked_at": plan.asked_at,
        "windows": plan.windows(unix_now()),
    })
}

/// Nobody has told it, or the login has none.
fn unknown() -> Value {
    json!({"name": null, "asked_at": null, "windows": []})
}
