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
pub(super) async fn models(State(service): State<Arc<Service>>) -> Json<Value> {
    service.monitor.look();
    let data: Vec<Value> = service
        .setup()
        .models
        .list()
        .iter()
        .map(|model| object(&service, model))
        .collect();
    Json(json!({"object": "list", "data": data}))
}

/// One model.
pub(super) async fn model(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Failure> {
    let Ok(Path(id)) = path else {
        return Err(Failure::new(
            Kind::NoSuchRoute,
            "the path is no valid UTF-8",
        ));
    };
    match service.setup().models.find(&id) {
        Some(model) => Ok(Json(object(&service, &model))),
        None => Err(unknown_model(&id)),
    }
}

/// No model has this name.
pub(super) fn unknown_model(name: &str) -> Failure {
    let name: String = name.chars().take(100).collect();
    let message = format!("the model `{name}` does not exist: GET /v1/models lists those that do");
    Failure::new(Kind::UnknownModel, message).with_param("model")
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
