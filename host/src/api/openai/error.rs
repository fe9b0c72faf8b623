//! Failures as OpenAI's errors: the one place where a kind becomes a status.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::ascii_json;
use crate::failure::{Failure, Kind};

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// After a longer wait than this, a client should not retry by itself (OpenAI's SDKs give up
/// above 120 s).
const LONG_WAIT: Duration = Duration::from_secs(60);

/// The status and OpenAI's type of each kind. `limited` is the status that tells of a limit.
fn mapped(kind: Kind, limited: StatusCode) -> (StatusCode, &'static str) {
    use StatusCode as S;
    let invalid = "invalid_request_error";
    match kind {
        Kind::InvalidRequest | Kind::UnsupportedParameter | Kind::ContextLength => {
            (S::BAD_REQUEST, invalid)
        }
        Kind::NoSuchRoute | Kind::UnknownModel => (S::NOT_FOUND, invalid),
        Kind::NoSuchMethod => (S::METHOD_NOT_ALLOWED, invalid),
        Kind::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, invalid),
        Kind::AccessDenied | Kind::Permission => (S::FORBIDDEN, "permission_error"),
        Kind::WrongKey | Kind::Authentication => (S::UNAUTHORIZED, "authentication_error"),
        Kind::RateLimit | Kind::QueueFull => (limited, "rate_limit_error"),
        Kind::Overloaded | Kind::ShuttingDown => (S::SERVICE_UNAVAILABLE, "server_error"),
        Kind::Timeout => (S::GATEWAY_TIMEOUT, "server_error"),
        Kind::Backend | Kind::BackendMissing | Kind::Guest => (S::BAD_GATEWAY, "server_error"),
        Kind::Internal => (S::INTERNAL_SERVER_ERROR, "server_error"),
    }
}

/// The status of a failure.
pub(in crate::api) fn status(failure: &Failure, rate_limit_status: u16) -> StatusCode {
    let limited = StatusCode::from_u16(rate_limit_status);
    mapped(
        failure.kind,
        limited.unwrap_or(StatusCode::TOO_MANY_REQUESTS),
    )
    .0
}

/// OpenAI's error object.
pub(in crate::api) fn body(failure: &Failure) -> Value {
    let (_, r#type) = mapped(failure.kind, StatusCode::TOO_MANY_REQUESTS);
    json!({"error": {
        "message": failure.message,
        "type": r#type,
        "param": failure.param,
        "code": failure.code(),
    }})
}

/// The whole response.
pub(in crate::api) fn response(failure: &Failure, rate_limit_status: u16) -> Response {
    let status = status(failure, rate_limit_status);
    let json = HeaderValue::from_static("application/json");
    let mut response = (
        status,
        [(header::CONTENT_TYPE, json)],
        ascii_json::to_vec(&body(failure)),
    )
        .into_response();
    let headers = response.headers_mut();
    let wait = failure.retry_after.or_else(|| usual_wait(failure.kind));
    if let Some(wait) = wait {
        headers.insert(header::RETRY_AFTER, wait.as_secs().max(1).into());
        headers.insert(
            RETRY_AFTER_MS,
            u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).into(),
        );
    }
    let for_people = matches!(failure.kind, Kind::Authentication | Kind::BackendMissing);
    let hopeless = for_people || wait.is_some_and(|wait| wait > LONG_WAIT);
    if hopeless {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// How long to wait if the failure does not say it.
fn usual_wait(kind: Kind) -> Option<Duration> {
    match kind {
        Kind::RateLimit => Some(Duration::from_secs(30)),
        Kind::QueueFull | Kind::ShuttingDown | Kind::Overloaded => Some(Duration::from_secs(5)),
        _ => None,
    }
}
