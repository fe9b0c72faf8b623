//! `POST /admin/run`: the answer to a request by guests that have other configurations, only for it.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Method, Uri, header};
use axum::response::{IntoResponse, Response};
use basics::blocking;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::api::{RequestId, body, dialect, failure_told, openai};
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
    #[serde(borrow, default)]
    configs: Option<&'b RawValue>,
}

/// The most that configurations may have, in bytes: some templates of the largest size that a file may have.
const CONFIGS_MAX: usize = 4 << 20;

impl<'b> Trial<'b> {
    /// Reads one from the body of a request.
    pub(super) fn read(body: &'b [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body)
    }

    /// The configurations that guests have only for it.
    ///
    /// # Errors
    ///
    /// Fails if they are too large, or no object.
    pub(super) fn configs(&self) -> Result<Map<String, Value>, Failure> {
        let invalid = |what: String| Failure::invalid("configs", format!("`configs` {what}"));
        match self.configs.map(RawValue::get) {
            None => Ok(Map::new()),
            Some(text) if text.len() > CONFIGS_MAX => {
                Err(invalid(format!("may have {CONFIGS_MAX} bytes at most")))
            }
            Some(text) => serde_json::from_str(text).map_err(|e| invalid(format!("is wrong: {e}"))),
        }
    }
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
    let _room = service.trials.acquire().await;
    let (parts, body) = request.into_parts();
    let (inner, configs) = match read(&service, parts, body).await {
        Ok(read) => read,
        Err(failure) => return failure.into_response(),
    };
    let calling = Calling {
        configs: Some(Arc::new(configs)),
        ..calling
    };
    let (method, uri) = (inner.method().clone(), inner.uri().clone());
    let dialect = dialect::of(&service, method, uri).await;
    let handed = (
        State(service.clone()),
        Extension(id.clone()),
        Extension(calling),
    );
    let response = match inner.uri().path() {
        CHAT_COMPLETIONS => openai::chat::completions(handed.0, handed.1, handed.2, inner).await,
        _ => dialect::call(handed.0, handed.1, handed.2, inner).await,
    };
    failure_told(
        &service,
        dialect.as_ref(),
        openai::error::response,
        &id,
        response,
    )
    .await
}

/// The request as its path would get it, with all headers but those of the body.
async fn read(
    service: &Service,
    mut parts: Parts,
    body: Body,
) -> Result<(Request, Map<String, Value>), Failure> {
    let http = &service.snapshot().config.http;
    let read = body::read(body, http, &service.bodies).await?;
    let (request, path, configs) = blocking::run_on(read.bytes.len(), || {
        let trial = Trial::read(&read.bytes).map_err(|error| {
            let form = "{\"request\": …, \"path\": …, \"configs\": …}";
            let message = format!("the body is to be {form}: {error}");
            Failure::new(Kind::InvalidRequest, message)
        })?;
        Ok((
            trial.request.get().to_owned(),
            trial.path.clone(),
            trial.configs()?,
        ))
    })?;
    let bad_path = |_| Failure::invalid("path", "`path` is to be a path such as `/v1/messages`");
    parts.uri = path.parse::<Uri>().map_err(bad_path)?;
    parts.method = Method::POST;
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.remove(header::TRANSFER_ENCODING);
    Ok((Request::from_parts(parts, Body::from(request)), configs))
}
