//! Failures as OpenAI's errors: the one place where a kind becomes a status.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::ascii_json;
use crate::failure::{Failure, Kind};

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Waits beyond this are for people, not for a client's own retries (OpenAI's SDKs give up
/// above 120 s).
const LONG_WAIT: Duration = Duration::from_secs(60);

/// How a kind looks on the wire.
struct Look {
    status: StatusCode,
    r#type: &'static str,
    code: Option<&'static str>,
}

fn look(kind: Kind, rate_limit_status: u16) -> Look {
    use StatusCode as S;
    let invalid = "invalid_request_error";
    let limited = S::from_u16(rate_limit_status).unwrap_or(S::TOO_MANY_REQUESTS);
    let (status, r#type, code) = match kind {
        Kind::InvalidRequest => (S::BAD_REQUEST, invalid, None),
        Kind::UnsupportedParameter => (S::BAD_REQUEST, invalid, Some("unsupported_parameter")),
        Kind::NoSuchRoute => (S::NOT_FOUND, invalid, Some("unknown_url")),
        Kind::NoSuchMethod => (S::METHOD_NOT_ALLOWED, invalid, Some("method_not_allowed")),
        Kind::UnknownModel => (S::NOT_FOUND, invalid, Some("model_not_found")),
        Kind::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, invalid, Some("request_too_large")),
        Kind::AccessDenied => (S::FORBIDDEN, "permission_error", Some("access_denied")),
        Kind::WrongKey => (
            S::UNAUTHORIZED,
            "authentication_error",
            Some("invalid_api_key"),
        ),
        Kind::Authentication => (
            S::UNAUTHORIZED,
            "authentication_error",
            Some("not_logged_in"),
        ),
        Kind::Permission => (S::FORBIDDEN, "permission_error", Some("permission_denied")),
        Kind::RateLimit => (limited, "rate_limit_error", Some("rate_limit_exceeded")),
        Kind::ContextLength => (S::BAD_REQUEST, invalid, Some("context_length_exceeded")),
        Kind::Overloaded => (S::SERVICE_UNAVAILABLE, "server_error", Some("overloaded")),
        Kind::QueueFull => (limited, "rate_limit_error", Some("queue_full")),
        Kind::ShuttingDown => (
            S::SERVICE_UNAVAILABLE,
            "server_error",
            Some("shutting_down"),
        ),
        Kind::Timeout => (S::GATEWAY_TIMEOUT, "server_error", Some("timeout")),
        Kind::Backend | Kind::BackendMissing => {
            (S::BAD_GATEWAY, "server_error", Some("backend_error"))
        }
        Kind::Guest => (S::BAD_GATEWAY, "server_error", Some("guest_error")),
        Kind::Internal => (
            S::INTERNAL_SERVER_ERROR,
            "server_error",
            Some("internal_error"),
        ),
    };
    Look {
        status,
        r#type,
        code,
    }
}

/// The status of a failure.
pub(super) fn status(failure: &Failure, rate_limit_status: u16) -> StatusCode {
    look(failure.kind, rate_limit_status).status
}

/// The machine-readable code of a failure, for the log and the metrics. A guest's own counts only
/// if it looks like one.
pub(super) fn code(failure: &Failure) -> &str {
    let plain =
        |code: &&str| code.len() <= 40 && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let usual = look(failure.kind, 429).code.unwrap_or("invalid_request");
    failure.code.as_deref().filter(plain).unwrap_or(usual)
}

/// OpenAI's error object.
pub(super) fn body(failure: &Failure) -> Value {
    let look = look(failure.kind, 429);
    json!({"error": {
        "message": failure.message,
        "type": look.r#type,
        "param": failure.param,
        "code": failure.code.as_deref().or(look.code),
    }})
}

/// The whole response.
pub(super) fn response(failure: &Failure, rate_limit_status: u16) -> Response {
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

/// How long to wait where nobody said it.
fn usual_wait(kind: Kind) -> Option<Duration> {
    match kind {
        Kind::RateLimit => Some(Duration::from_secs(30)),
        Kind::QueueFull | Kind::ShuttingDown | Kind::Overloaded => Some(Duration::from_secs(5)),
        _ => None,
    }
}
