//! `GET /v1/models` and `GET /v1/models/{id}`, in OpenAI's shape, and in Anthropic's for a client that sends the header
//! `anthropic-version`.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use serde_json::{Value, json};

use crate::dispatch::Calling;
use crate::failure::{Failure, Kind};
use crate::models::Listed;
use crate::service::Service;

/// All models.
pub(in crate::api) async fn models(
    State(service): State<Arc<Service>>,
    Extension(calling): Extension<Calling>,
    headers: HeaderMap,
) -> Json<Value> {
    service.monitor.check_stale();
    let data: Vec<Value> = service
        .snapshot()
        .models
        .list()
        .iter()
        .filter(|model| calling.may_use(&model.id))
        .map(|model| object(&service, &headers, model))
        .collect();
    Json(match is_anthropics(&headers) {
        false => json!({"object": "list", "data": data}),
        true => json!({
            "first_id": data.first().map(|model| &model["id"]),
            "last_id": data.last().map(|model| &model["id"]),
            "has_more": false,
            "data": data,
        }),
    })
}

/// One model.
pub(in crate::api) async fn model(
    State(service): State<Arc<Service>>,
    Extension(calling): Extension<Calling>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Failure> {
    let Ok(Path(id)) = path else {
        return Err(Failure::new(
            Kind::NoSuchRoute,
            "the path is no valid UTF-8",
        ));
    };
    match service.snapshot().models.find(&id) {
        Some(model) if !calling.may_use(&model.id) => Err(calling.no_such_model(&id)),
        Some(model) => Ok(Json(object(&service, &headers, &model))),
        None => Err(service.snapshot().models.unknown(&id)),
    }
}

/// Whether the client speaks Anthropic's API, whose SDKs send this header with each call.
fn is_anthropics(headers: &HeaderMap) -> bool {
    headers.contains_key("anthropic-version")
}

fn object(service: &Service, headers: &HeaderMap, model: &Listed) -> Value {
    let mut object = match is_anthropics(headers) {
        false => openai_object(service, model),
        true => anthropic_object(service, model),
    };
    if let Some(tokens) = model.context_length {
        object["context_length"] = tokens.into();
    }
    if let Some(tokens) = model.max_output_tokens {
        object["max_output_tokens"] = tokens.into();
    }
    object
}

fn openai_object(service: &Service, model: &Listed) -> Value {
    let mut object = json!({
        "id": model.id,
        "object": "model",
        "created": service.started_at,
        "owned_by": model.backend,
    });
    if let Some(name) = &model.display_name {
        object["display_name"] = name.as_str().into();
    }
    object
}

fn anthropic_object(service: &Service, model: &Listed) -> Value {
    let created = UNIX_EPOCH + Duration::from_secs(service.started_at);
    json!({
        "id": model.id,
        "type": "model",
        "created_at": humantime::format_rfc3339_seconds(created).to_string(),
        "display_name": model.display_name.as_ref().unwrap_or(&model.id),
    })
}
