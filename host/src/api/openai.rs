//! OpenAI's API.

mod bounded_json;
pub(super) mod chat;
pub(super) mod error;
mod fields;
mod message;
pub(super) mod models;
mod output;
mod request;
mod shapes;
mod stream;
mod tools;
mod wire;

use crate::failure::Failure;
use crate::runtime::Snapshot;
pub(super) use stream::NO_BUFFERING;

/// Reads the request of a guest's case, whatever fields the guest honours.
pub(crate) fn case_request(text: &str) -> Result<guests::request::Request, String> {
    let read = request::ChatRequest::parse(text.to_owned().into(), |_| fields::Honours::default());
    let read = read.map_err(|unread| unread.failure.message)?;
    Ok(read.request.body)
}

/// A chat completion request from its text. `model` takes the place of the one that it names.
pub(crate) fn chat_request(
    text: String,
    model: Option<&str>,
    snapshot: &Snapshot,
) -> Result<crate::dispatch::Request, Failure> {
    let honours = |named: &str| fields::Honours(snapshot.honours(model.unwrap_or(named)));
    let read = request::ChatRequest::parse(text.into(), honours);
    let mut request = read.map_err(|unread| unread.failure)?.request;
    if let Some(model) = model {
        model.clone_into(&mut request.model);
    }
    Ok(request)
}
