//! Calls of an HTTP API, as dialects see them.

use crate::completion::ErrorKind;

/// A header: its name in lower case, and its value.
pub type Header = (String, String);

/// A call of the API.
#[derive(Clone, Debug, Default)]
pub struct HttpRequest {
    /// Such as `POST`.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// What stands behind `?`.
    pub query: Option<String>,
    /// Those that the dialect wants to see.
    pub headers: Vec<Header>,
    /// The body.
    pub body: String,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: Vec<Header>,
    /// The body.
    pub body: String,
}

/// The head of an answer that comes piece by piece.
#[derive(Clone, Debug)]
pub struct HttpHead {
    /// The status.
    pub status: u16,
    /// Such as `text/event-stream`.
    pub content_type: String,
    /// The other headers.
    pub headers: Vec<Header>,
}

/// What a dialect serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its routes.
    pub routes: Vec<Route>,
    /// The headers that may carry a key, in lower case, beside `authorization`.
    pub key_headers: Vec<String>,
    /// The other headers that it wants to see, in lower case.
    pub headers: Vec<String>,
}

/// A route of an API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Such as `POST`.
    pub method: String,
    /// Such as `/api/show`, or with a name in braces `/v1/things/{id}`.
    pub path: String,
}

/// A model that the service offers.
#[derive(Clone, Debug)]
pub struct OfferedModel {
    /// What clients call it.
    pub id: String,
    /// Which backend answers.
    pub owner: String,
    /// In tokens, if known.
    pub context_length: Option<u64>,
}

/// An error, as the client is to be told.
#[derive(Clone, Debug)]
pub struct HttpFailure {
    /// What the host would answer.
    pub status: u16,
    /// What it is.
    pub kind: ErrorKind,
    /// The code in the error of chat completions.
    pub code: Option<String>,
    /// A sentence for people.
    pub message: String,
    /// The field of the chat completion that is at fault.
    pub param: Option<String>,
    /// When another attempt may succeed, in seconds since the Unix epoch.
    pub retry_at: Option<u64>,
}
