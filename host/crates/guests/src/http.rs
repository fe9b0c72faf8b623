//! Calls of an HTTP API, as dialects see them.

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
