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
