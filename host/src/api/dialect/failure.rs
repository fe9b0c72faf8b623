//! Failures in the form of a dialect's API.

use std::sync::Arc;

use axum::http::header;
use axum::response::Response;
use guests::completion::ErrorKind;
use guests::dialect;
use guests::http::HttpFailure;

use super::{add_headers, harmless, run};
use crate::dialects::{Dialect, context};
use crate::failure::{Failure, Kind, unix_now};
use crate::service::Service;

/// The response to a failure on a dialect's route: the one of chat completions, in the words of the dialect. If the
/// dialect breaks a bound, it stays as it is.
pub(in crate::api) async fn worded(
    service: &Service,
    dialect: &Arc<Dialect>,
    id: &str,
    failure: &Failure,
    response: Response,
) -> Response {
    let (of, context) = (dialect.of.clone(), context(id.to_owned()));
    let failure = http_failure(failure, response.status().as_u16());
    let render = move || dialect::render_error(&of, &context, &failure);
    let Ok(rendered) = run(service, &dialect.of.guest, render).await else {
        return response;
    };
    let (parts, _) = response.into_parts();
    let mut response = Response::from_parts(parts, rendered.body.into());
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.headers_mut().remove(header::CONTENT_TYPE);
    // Another API may have other numbers for its errors, but an error stays one.
    if let Ok(status) = axum::http::StatusCode::from_u16(rendered.status)
        && (status.is_client_error() || status.is_server_error())
    {
        *response.status_mut() = status;
    }
    add_headers(&mut response, rendered.headers);
    harmless(&mut response);
    response
}

/// A failure as dialects see it.
pub(super) fn http_failure(failure: &Failure, status: u16) -> HttpFailure {
    HttpFailure {
        status,
        kind: kind(failure.kind),
        code: failure.code().map(str::to_owned),
        message: failure.message.clone(),
        param: failure.param.clone(),
        retry_at: failure.retry_after.map(|wait| unix_now() + wait.as_secs()),
    }
}

fn kind(kind: Kind) -> ErrorKind {
    match kind {
        Kind::InvalidRequest | Kind::NoSuchRoute | Kind::NoSuchMethod | Kind::BodyTooLarge => {
            ErrorKind::InvalidRequest
        }
        Kind::UnsupportedParameter => ErrorKind::UnsupportedParameter,
        Kind::UnknownModel => ErrorKind::ModelNotFound,
        Kind::AccessDenied | Kind::Permission => ErrorKind::Permission,
        Kind::WrongKey | Kind::Authentication => ErrorKind::Authentication,
        Kind::RateLimit | Kind::QueueFull => ErrorKind::RateLimit,
        Kind::ContextLength => ErrorKind::ContextLength,
        Kind::Overloaded | Kind::ShuttingDown => ErrorKind::Overloaded,
        Kind::Timeout => ErrorKind::Timeout,
        Kind::Backend | Kind::BackendMissing | Kind::Guest | Kind::Internal => {
            ErrorKind::BackendFailed
        }
    }
}
