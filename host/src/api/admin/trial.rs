//! `POST /admin/run`: the answer to a request by guests that have other configurations, only for it.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Method, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::api::{RequestId, body, dialect, openai};
use crate::dispatch::Calling;
use crate::failure::{Failure, Kind};
use crate::service::Service;

/// The path of chat completions.
pub(super) const CHAT_COMPLETIONS: &str = "/v1/chat/completions";

/// A request, the path that it would be sent to, and configurations that guests have only for it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trial<'b> {
    #[serde(borrow)]
    pub(super) request: &'b RawValue,
    #[serde(default = "chat_completions")]
    pub(super) path: String,
    /// By the names of guests.
    #[serde(default)]
    pub(super) configs: Map<String, Value>,
}

fn chat_completions() -> String {
    CHAT_COMPLETIONS.to_owned()
}

/// Takes a [`Trial`], and answers as its path would.
pub(in crate::api) async fn run(
    State(service): State<Arc<Service>>,
    Extension(id): Extension<RequestId>,
    Extension(calling): Extension<Calling>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let (inner, configs) = match read(&service, parts, body).await {
        Ok(read) => read,
        Err(failure) => return failure.into_response(),
    };
    let calling = Calling {
        configs: Some(Arc::new(configs)),
        ..calling
    };
    let (service, id, calling) = (State(service), Extension(id), Extension(calling));
    match inner.uri().path() {
        CHAT_COMPLETIONS => openai::chat::completions(service, id, calling, inner).await,
        _ => dialect::call(service, id, calling, inner).await,
    }
}

/// The request as its path would get it, with all headers but those of the body.
async fn read(
    service: &Service,
    mut parts: Parts,
    body: Body,
) -> Result<(Request, Map<String, Value>), Failure> {
    let http = &service.snapshot().config.http;
    let read = body::read(body, http, &service.bodies).await?;
    let trial: Trial = serde_json::from_slice(&read.bytes).map_err(|error| {
        let message =
            format!("the body is to be {{\"request\": …, \"path\": …, \"configs\": …}}: {error}");
        Failure::new(Kind::InvalidRequest, message)
    })?;
    let bad_path = |_| Failure::invalid("path", "`path` is to be a path such as `/v1/messages`");
    parts.uri = trial.path.parse::<Uri>().map_err(bad_path)?;
    parts.method = Method::POST;
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.remove(header::TRANSFER_ENCODING);
    let body = Body::from(trial.request.get().to_owned());
    Ok((Request::from_parts(parts, body), trial.configs))
}
