//! `GET /v1/models` and `GET /v1/models/{id}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::failure::{Failure, Kind};
use crate::models::Listed;
use crate::service::Service;

/// All models.
pub(in crate::api) async fn models(State(service): State<Arc<Service>>) -> Json<Value> {
    service.monitor.check_stale();
    let data: Vec<Value> = service
        .snapshot()
        .models
        .list()
        .iter()
        .map(|model| object(&service, model))
        .collect();
    Json(json!({"object": "list", "data": data}))
}

/// One model.
pub(in crate::api) async fn model(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Failure> {
    let Ok(Path(id)) = path else {
        return Err(Failure::new(
            Kind::NoSuchRoute,
            "the path is no valid UTF-8",
        ));
    };
    match service.snapshot().models.find(&id) {
        Some(model) => Ok(Json(object(&service, &model))),
        None => Err(service.snapshot().models.unknown(&id)),
    }
}

fn object(service: &Service, model: &Listed) -> Value {
    let mut object = json!({
        "id": model.id,
        "object": "model",
        "created": service.started_at,
        "owned_by": model.backend,
    });
    if let Some(name) = &model.display_name {
        object["display_name"] = name.as_str().into();
    }
    if let Some(tokens) = model.context_length {
        object["context_length"] = tokens.into();
    }
    if let Some(tokens) = model.max_output_tokens {
        object["max_output_tokens"] = tokens.into();
    }
    object
}
