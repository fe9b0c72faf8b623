//! OpenAI's HTTP API: the only place that knows HTTP and OpenAI's wire types.

mod access;
mod aggregate;
pub(crate) mod body;
mod bounded_json;
mod chat;
mod choices;
mod error;
mod expectation;
mod fields;
mod health;
mod list;
mod observed;
mod request;
mod shapes;
mod sse;
mod wire;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::failure::{Failure, Kind};
use crate::service::Service;

/// The id that every response carries, and every line of the log about it.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How a request reached this service, known from the socket it came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Through TCP, where web pages can come from.
    Tcp,
    /// Through a Unix socket, whose file's permissions say who may come.
    Unix,
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) door: Door,
    /// Its address, where it came through TCP.
    pub(crate) address: Option<IpAddr>,
}

/// The id of one request.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) Arc<str>);

/// All routes.
pub(crate) fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat::completions))
        .route("/v1/models", get(list::models))
        .route("/v1/models/{*id}", get(list::model))
        .route("/health", get(health::health))
        .route("/metrics", get(health::metrics))
        .route("/admin/reload", post(health::reload))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(
            service.clone(),
            access::check,
        ))
        .layer(middleware::from_fn_with_state(service.clone(), identify))
        .with_state(service)
}

/// Gives each request an id, and each failure its response.
async fn identify(
    State(service): State<Arc<Service>>,
    mut request: Request,
    next: Next,
) -> Response {
    let id: Arc<str> = format!("req_{}", uuid::Uuid::new_v4().simple()).into();
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        response = error::response(&failure, service.setup().config.http.rate_limit_status);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

async fn no_such_route(method: Method, uri: Uri) -> Failure {
    let path = uri.path();
    let hint = match path {
        "/chat/completions" | "/models" => format!("; did you mean /v1{path}?"),
        _ => String::new(),
    };
    Failure::new(
        Kind::NoSuchRoute,
        format!("there is no {method} {path}{hint}"),
    )
}

async fn no_such_method(method: Method, uri: Uri) -> Failure {
    Failure::new(
        Kind::NoSuchMethod,
        format!("{} does not take {method}", uri.path()),
    )
}

/// A handler's failure rides in the response's extensions up to `identify`, which knows the
/// settings that decide how it looks.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(self);
        response
    }
}
