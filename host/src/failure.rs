//! Why a request failed, from wherever it failed to the response that says so.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A failed request: one message for the client, one for the log.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What went wrong; decides the status.
    pub kind: Kind,
    /// For the client: what happened, and the way out.
    pub message: String,
    /// The field of the request that is at fault.
    pub param: Option<String>,
    /// OpenAI's machine-readable code, if the kind's usual one does not fit.
    pub code: Option<&'static str>,
    /// How long to wait before another attempt.
    pub retry_after: Option<Duration>,
    /// For the log only: what an operator wants to know. Never a prompt or an answer; the
    /// message may repeat something of them, so it is not logged.
    pub detail: Option<Box<str>>,
    /// The last words of the backend's standard error, which may quote a prompt: for the log of those
    /// who debug.
    pub stderr: Option<Box<str>>,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request cannot be served as it is.
    InvalidRequest,
    /// A field that would change the answer's meaning is not supported.
    UnsupportedParameter,
    /// There is no such path.
    NoSuchRoute,
    /// The route is there, but not with this method.
    NoSuchMethod,
    /// No such model.
    UnknownModel,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// The caller is not allowed to use this service.
    AccessDenied,
    /// The caller's key is missing or wrong.
    WrongKey,
    /// The backend is not logged in.
    Authentication,
    /// The backend's login may not do this.
    Permission,
    /// A usage limit of the account.
    RateLimit,
    /// The conversation is too long for the model.
    ContextLength,
    /// The service behind the backend is too busy.
    Overloaded,
    /// This service is full.
    QueueFull,
    /// This service is being shut down.
    ShuttingDown,
    /// Something took too long.
    Timeout,
    /// The backend failed or cannot be understood.
    Backend,
    /// The backend's program is not there: only a person can mend that.
    BackendMissing,
    /// A guest broke a bound or a rule.
    Guest,
    /// A mistake of this program.
    Internal,
}

impl Kind {
    /// The usual machine-readable code; requests that make no sense have none.
    pub(crate) fn code(self) -> Option<&'static str> {
        Some(match self {
            Kind::InvalidRequest => return None,
            Kind::UnsupportedParameter => "unsupported_parameter",
            Kind::NoSuchRoute => "unknown_url",
            Kind::NoSuchMethod => "method_not_allowed",
            Kind::UnknownModel => "model_not_found",
            Kind::BodyTooLarge => "request_too_large",
            Kind::AccessDenied => "access_denied",
            Kind::WrongKey => "invalid_api_key",
            Kind::Authentication => "not_logged_in",
            Kind::Permission => "permission_denied",
            Kind::RateLimit => "rate_limit_exceeded",
            Kind::ContextLength => "context_length_exceeded",
            Kind::Overloaded => "overloaded",
            Kind::QueueFull => "queue_full",
            Kind::ShuttingDown => "shutting_down",
            Kind::Timeout => "timeout",
            Kind::Backend | Kind::BackendMissing => "backend_error",
            Kind::Guest => "guest_error",
            Kind::Internal => "internal_error",
        })
    }
}

impl Failure {
    /// A failure with a message for the client.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Failure {
            kind,
            message: message.into(),
            param: None,
            code: None,
            retry_after: None,
            detail: None,
            stderr: None,
        }
    }

    /// A request that cannot be served because of one of its fields.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Failure::new(Kind::InvalidRequest, message).with_param(param)
    }

    /// Names the field at fault.
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Adds the client's message to the log. Only for messages in the host's own words.
    pub fn logged(mut self) -> Self {
        let message = self.message.clone();
        self.detail = Some(match self.detail {
            Some(detail) if !detail.is_empty() => format!("{message}: {detail}").into(),
            _ => message.into(),
        });
        self
    }

    /// Adds a detail for the log alone.
    pub fn with_detail(mut self, detail: impl Into<Box<str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the backend's last words, if there are any.
    pub fn with_stderr(mut self, stderr: String) -> Self {
        self.stderr = Some(stderr).filter(|text| !text.is_empty()).map(Into::into);
        self
    }

    /// Its machine-readable code: its own, or the kind's usual one.
    pub(crate) fn code(&self) -> Option<&'static str> {
        self.code.or(self.kind.code())
    }

    /// The same for the log and the metrics, where each failure has one.
    pub fn log_code(&self) -> &'static str {
        self.code().unwrap_or("invalid_request")
    }

    /// Says when another attempt may succeed.
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

/// Seconds since the Unix epoch; 0 if the clock is before it.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}
