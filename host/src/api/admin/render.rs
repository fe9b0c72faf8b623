//! `POST /admin/render`: what a request becomes on its way to a process, without starting one.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::trial::{CHAT_COMPLETIONS, Trial};
use crate::api::body;
use crate::api::dialect::chat_of;
use crate::api::openai::chat_request;
use crate::failure::{Failure, Kind, unix_now};
use crate::render::render;
use crate::service::Service;

/// Takes the body of a chat completion, or a [`Trial`].
pub(in crate::api) async fn show(
    State(service): State<Arc<Service>>,
    body: Body,
) -> Result<Json<Value>, Failure> {
    let snapshot = service.snapshot();
    let read = body::read(body, &snapshot.config.http, &service.bodies).await?;
    // Guests may take long, and must not hold up a thread that serves.
    let rendered = tokio::task::spawn_blocking(move || {
        let text = String::from_utf8(read.bytes.into());
        let text = text.map_err(|_| Failure::new(Kind::InvalidRequest, "the body is not UTF-8"))?;
        let (path, request, configs) = match Trial::read(text.as_bytes()) {
            Ok(trial) => {
                let configs = trial.configs()?;
                (trial.path, trial.request.get().to_owned(), configs)
            }
            // What is wrong with it is told below, as of a chat completion.
            Err(_) => (CHAT_COMPLETIONS.to_owned(), text, Map::new()),
        };
        let request = match &*path {
            CHAT_COMPLETIONS => request,
            path => chat_of(&snapshot, path, request)?,
        };
        let request = chat_request(request, None, &snapshot)?;
        let rendered = render(&snapshot, &request, &configs, unix_now())?;
        Ok((rendered, request.ignored))
    });
    let gone = |_| Failure::new(Kind::Internal, "it was broken off").logged();
    let (rendered, ignored) = rendered.await.map_err(gone)??;
    let written = rendered.written.iter();
    let written: Vec<_> = written
        .map(|piece| String::from_utf8_lossy(piece))
        .collect();
    let chain = rendered.chain.iter().map(|of| {
        let config: Value = serde_json::from_str(&of.config).unwrap_or_default();
        json!({"guest": of.guest.name, "world": of.guest.world().name(), "config": config})
    });
    let chain: Vec<Value> = chain.collect();
    Ok(Json(json!({
        "chain": chain,
        "backend": rendered.backend,
        "command": rendered.command,
        "written": written,
        "answer": rendered.answer,
        "ignored": ignored,
    })))
}
