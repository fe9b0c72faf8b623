//! What went wrong, in OpenAI's terms.

use harness_guest::{ApiError, ErrorKind, failure};

use crate::line::{Line, RateLimit};

/// The longest piece of the CLI's own words in a message to the client, in characters.
const QUOTE_CHARS: usize = 400;

/// The client's request cannot be served as it is.
pub fn invalid_request(message: impl Into<String>, param: Option<String>) -> ApiError {
    ApiError {
        param,
        ..failure(ErrorKind::InvalidRequest, message)
    }
}

/// The client asked for something that this adapter does not do.
pub fn unsupported(what: &str, param: String) -> ApiError {
    ApiError {
        kind: ErrorKind::UnsupportedParameter,
        ..invalid_request(
            format!("the adapter `claude-code` does not support {what}"),
            Some(param),
        )
    }
}

/// The answer does not fit the client's schema.
pub fn no_structure() -> ApiError {
    failure(
        ErrorKind::SchemaNotMet,
        "the model's answer does not fit the schema of `response_format`: ask again",
    )
}

/// The failure that a `result` with `is_error` tells of. `named` is what an earlier message
/// called the error, `limit` the last known state of the account's limits.
pub fn from_result(line: &Line, named: Option<&str>, limit: Option<&RateLimit>) -> ApiError {
    let said = line.result.as_deref().unwrap_or_default();
    if line.subtype.as_deref() == Some("error_max_structured_output_retries") {
        return no_structure();
    }
    let kind = if line.terminal_reason.as_deref() == Some("prompt_too_long")
        || said.starts_with("Prompt is too long")
    {
        ErrorKind::ContextLength
    } else if said.starts_with("Not logged in") {
        ErrorKind::Authentication
    } else {
        kind_of(line.api_error_status, named)
    };
    describe(kind, said, limit)
}

/// The failure that a line `system/api_retry` tells of, if it is of no use to wait for the
/// CLI's next attempt: nothing but a person mends a login, and a long delay is for the client
/// to decide.
pub fn from_retry(line: &Line, limit: Option<&RateLimit>) -> Option<ApiError> {
    /// The longest delay that is still worth waiting for in silence.
    const PATIENCE_MS: f64 = 20_000.0;
    let kind = kind_of(line.error_status, line.error_name());
    let hopeless = matches!(kind, ErrorKind::Authentication | ErrorKind::Permission);
    if !hopeless && line.retry_delay_ms.unwrap_or(0.0) <= PATIENCE_MS {
        return None;
    }
    let said = line.error_name().unwrap_or_default();
    Some(describe(kind, said, limit))
}

fn kind_of(status: Option<u16>, named: Option<&str>) -> ErrorKind {
    match (status, named) {
        (Some(401), _) => ErrorKind::Authentication,
        (Some(403), _) => ErrorKind::Permission,
        (Some(404), _) => ErrorKind::ModelNotFound,
        (Some(408 | 504), _) => ErrorKind::Timeout,
        (Some(413), _) => ErrorKind::ContextLength,
        (Some(429), _) => ErrorKind::RateLimit,
        (Some(503 | 529), _) => ErrorKind::Overloaded,
        (_, Some("authentication_failed" | "cloud_credential_error")) => ErrorKind::Authentication,
        (
            _,
            Some(
                "oauth_org_not_allowed"
                | "account_on_hold"
                | "verification_required"
                | "billing_error",
            ),
        ) => ErrorKind::Permission,
        (_, Some("rate_limit")) => ErrorKind::RateLimit,
        (_, Some("overloaded")) => ErrorKind::Overloaded,
        (_, Some("model_not_found")) => ErrorKind::ModelNotFound,
        (Some(400..500), _) | (_, Some("invalid_request")) => ErrorKind::InvalidRequest,
        _ => ErrorKind::BackendFailed,
    }
}

fn describe(kind: ErrorKind, said: &str, limit: Option<&RateLimit>) -> ApiError {
    let ours = match kind {
        ErrorKind::Authentication => {
            "Claude Code is not logged in, or its login has expired: run `claude auth login` as the user of this service"
        }
        ErrorKind::Permission => "the account that Claude Code is logged in with may not do this",
        ErrorKind::ModelNotFound => {
            "Claude Code does not know this model, or the account may not use it"
        }
        ErrorKind::RateLimit => "a usage limit of the Claude account is reached",
        ErrorKind::ContextLength => {
            "the conversation is longer than the model's context length: shorten it"
        }
        ErrorKind::Overloaded => "Anthropic's API is overloaded: try again later",
        ErrorKind::Timeout => "Anthropic's API took too long: try again later",
        ErrorKind::InvalidRequest => "Anthropic's API refused the request",
        _ => "Claude Code failed",
    };
    let mut error = failure(kind, ours);
    if !said.is_empty() {
        let quote: String = said.chars().take(QUOTE_CHARS).collect();
        error.message = format!("{ours} ({quote})");
    }
    if kind == ErrorKind::RateLimit {
        error.retry_at = limit
            .filter(|l| l.status == "rejected")
            .and_then(|l| l.resets_at);
    }
    error
}
