//! Turns errors of guests, and the lack of a process, into failures of the request.

use std::time::Duration;

use guests::GuestError;
use guests::admit::Guest;
use guests::completion::{ApiError, ErrorKind};
use guests::instance::NotOpened;

use crate::backends::Backend;
use crate::backends::status::Health;
use crate::failure::{Failure, Kind, unix_now};
use crate::pool::NoProcess;
use crate::telemetry::names;

/// An adapter that did not open an exchange, as the request's failure.
pub(crate) fn not_opened(guest: &Guest, reason: NotOpened) -> Failure {
    match reason {
        NotOpened::Refused(error) => api_failure(error),
        NotOpened::Broken(error) => guest_failure(guest, &error),
    }
}

/// The failure of a request that gets no process.
pub(crate) fn no_process(backend: &Backend, error: NoProcess) -> Failure {
    let NoProcess::Spawn(error) = error else {
        let retry = Duration::from_secs(1);
        let mut failure = Failure::new(Kind::QueueFull, format!("the service is busy: {error}"));
        failure.retry_after = Some(retry);
        return failure;
    };
    backend.not_started(&error);
    let health = backend.status.health();
    let kind = match health {
        Health::Missing(_) => Kind::BackendMissing,
        _ => Kind::Backend,
    };
    Failure::new(kind, backend.message_with_remedy(&health)).logged()
}

/// A guest broke a bound or a rule.
pub(crate) fn guest_failure(guest: &Guest, error: &GuestError) -> Failure {
    let name = &guest.name;
    metrics::counter!(names::GUEST_FAILURES, "guest" => name.clone()).increment(1);
    let kind = match error {
        GuestError::Saturated => Kind::Overloaded,
        _ => {
            guest.broke();
            Kind::Guest
        }
    };
    Failure::new(kind, format!("the guest `{name}` failed: {error}")).logged()
}

/// The longest wait that a client is told, in seconds. No limit of an account lasts longer than a month.
const RETRY_MOST: u64 = 31 * 24 * 3600;

pub(crate) fn api_failure(error: ApiError) -> Failure {
    let (kind, code) = match error.kind {
        ErrorKind::InvalidRequest => (Kind::InvalidRequest, None),
        ErrorKind::UnsupportedParameter => (Kind::UnsupportedParameter, None),
        ErrorKind::ContextLength => (Kind::ContextLength, None),
        ErrorKind::Authentication => (Kind::Authentication, None),
        ErrorKind::Permission => (Kind::Permission, None),
        ErrorKind::ModelNotFound => (Kind::UnknownModel, None),
        ErrorKind::RateLimit => (Kind::RateLimit, None),
        ErrorKind::Overloaded => (Kind::Overloaded, None),
        ErrorKind::Timeout => (Kind::Timeout, None),
        ErrorKind::BackendFailed => (Kind::Backend, None),
        ErrorKind::ToolChoiceNotHonoured => (Kind::Backend, Some("tool_choice_not_honoured")),
        ErrorKind::SchemaNotMet => (Kind::Backend, Some("schema_not_met")),
        ErrorKind::InvalidJson => (Kind::Backend, Some("invalid_json")),
        ErrorKind::Refused => (Kind::Permission, Some("refused_by_transform")),
    };
    let wait = error
        .retry_at
        .map(|at| at.saturating_sub(unix_now()).clamp(1, RETRY_MOST));
    Failure {
        kind,
        message: error.message,
        param: error.param,
        code,
        retry_after: wait.map(Duration::from_secs),
        detail: None,
        stderr: None,
    }
}
