//! What a dialect reads and writes of HTTP.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    ApiError, ErrorKind, Failure, Header, HttpHead, HttpResponse, Route, Service, failure, invalid,
};

/// Reads the body of a call.
///
/// # Errors
///
/// Names the field that is not as it must be.
pub fn read_body<T: DeserializeOwned>(body: &str) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_str(body);
    let read = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let what = error.into_inner();
        match (what.is_data(), &*path) {
            (true, "." | "?") | (false, _) => failure(
                ErrorKind::InvalidRequest,
                format!("the body is not understood: {what}"),
            ),
            (true, path) => invalid(path, format!("`{path}` is not understood: {what}")),
        }
    })?;
    let rest = json.end();
    rest.map_err(|error| {
        failure(
            ErrorKind::InvalidRequest,
            format!("behind the body: {error}"),
        )
    })?;
    Ok(read)
}

/// A route.
pub fn route(method: &str, path: &str) -> Route {
    Route {
        method: method.into(),
        path: path.into(),
    }
}

/// A dialect with these routes, which asks for no header, and whose keys come in `Authorization`.
pub fn service(routes: Vec<Route>) -> Service {
    Service {
        routes,
        key_headers: Vec::new(),
        headers: Vec::new(),
        extra: None,
    }
}

/// A whole answer, which is plain text.
pub fn text_reply(status: u16, text: &str) -> HttpResponse {
    HttpResponse {
        status,
        headers: vec![header("content-type", "text/plain; charset=utf-8")],
        body: text.into(),
    }
}

/// A header.
pub fn header(name: &str, value: &str) -> Header {
    Header {
        name: name.into(),
        value: value.into(),
    }
}

/// A whole answer, which is JSON.
pub fn json_reply(status: u16, body: &Value) -> HttpResponse {
    HttpResponse {
        status,
        headers: vec![header("content-type", "application/json")],
        body: json_line(body),
    }
}

/// The head of a stream of server-sent events.
pub fn event_stream() -> HttpHead {
    HttpHead {
        status: 200,
        content_type: "text/event-stream; charset=utf-8".into(),
        headers: Vec::new(),
    }
}

/// JSON on one line, whatever a reader takes for the end of a line: serde_json leaves three such characters as they are.
/// What has no form in JSON becomes `null`.
pub fn json_line(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_else(|_| "null".into());
    // Looking at bytes is much faster than at characters, and an answer may be long.
    match text.is_ascii() || !text.contains(['\u{85}', '\u{2028}', '\u{2029}']) {
        true => text,
        false => text
            .replace('\u{85}', "\\u0085")
            .replace('\u{2028}', "\\u2028")
            .replace('\u{2029}', "\\u2029"),
    }
}

/// Reads a field that may be `null` as if it were not there.
///
/// # Errors
///
/// Fails if the field has another type.
pub fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de> + Default,
{
    let given = <Option<T> as serde::Deserialize>::deserialize(deserializer)?;
    Ok(given.unwrap_or_default())
}

/// An error in the form of OpenAI's APIs.
pub fn openai_error(failure: &Failure) -> HttpResponse {
    let kind = match failure.status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    };
    let body = json!({"error": {
        "message": failure.message,
        "type": kind,
        "param": failure.param,
        "code": failure.code,
    }});
    json_reply(failure.status, &body)
}
