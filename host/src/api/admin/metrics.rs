//! `GET /metrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::gauges;
use crate::service::Service;

/// The metrics, in Prometheus's text format.
pub(in crate::api) async fn metrics(State(service): State<Arc<Service>>) -> Response {
    gauges::renew(&service);
    let text = service.metrics.render();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
