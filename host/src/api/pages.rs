//! Web pages and Electron programs that may call: those of `allowed_origins`, with a key.
//!
//! A browser asks first whether a page may call (the preflight, an `OPTIONS` request), and lets it read an answer only
//! if the answer names the page's origin. Both are said for listed origins alone.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::service::Service;

/// How long a browser may remember the answer to a preflight, in seconds.
const MAX_AGE: u32 = 600;

/// The headers of answers that a page may read, beside the usual ones.
const EXPOSED: &str = "x-request-id, x-ignored-params, x-cache, retry-after, retry-after-ms";

const PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");

/// Answers preflights of listed origins, and marks the answers that they may read.
pub(super) async fn pages(
    State(service): State<Arc<Service>>,
    request: Request,
    next: Next,
) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let snapshot = service.snapshot();
    let is_listed = |origin: &HeaderValue| {
        let mut listed = snapshot.config.access.origins.iter();
        listed.any(|known| known.as_bytes() == origin.as_bytes())
    };
    let Some(origin) = origin.filter(is_listed) else {
        return next.run(request).await;
    };
    let asks = request
        .headers()
        .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match request.method() == Method::OPTIONS && asks {
        true => preflight(request.headers()),
        false => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    let exposed = HeaderValue::from_static(EXPOSED);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    response
}

/// What a browser is told that asks first. The call itself still needs a key.
fn preflight(asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    let methods = HeaderValue::from_static("GET, POST");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE.into());
    if asked.contains_key(PRIVATE_NETWORK) {
        headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
    }
    response
}
