//! `GET /v1/models` and `GET /v1/models/{id}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::config::closest;
use crate::failure::{Failure, Kind};
use crate::models::{Listed, Models};
use crate::plain;
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
        None => Err(unknown_model(&service.setup().models, &id)),
    }
}

/// No model has this name.
pub(super) fn unknown_model(models: &Models, name: &str) -> Failure {
    let name = plain::line(name, 100);
    let listed = models.list();
    let known: Vec<&str> = listed.iter().map(|model| &*model.id).collect();
    let way_out = match (closest(&name, &known), models.any_real_backend()) {
        (Some(nearest), _) => format!("did you mean `{nearest}`? GET /v1/models lists all"),
        (None, Some(backend)) if is_plain_name(&name) => format!(
            "GET /v1/models lists those that do; to have this name served, write `[models.\"{name}\"]`, `backend = \"{backend}\"` and `model = \"sonnet\"` into harness.toml"
        ),
        _ => "GET /v1/models lists those that do".to_owned(),
    };
    let message = format!("the model `{name}` does not exist: {way_out}");
    Failure::new(Kind::UnknownModel, message).with_param("model")
}

/// Whether a name can stand in the configuration as it is.
fn is_plain_name(name: &str) -> bool {
    name.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._:/-".contains(&b))
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
