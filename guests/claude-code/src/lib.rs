//! The adapter guest for the Claude Code command line.
//!
//! Speaks `--input-format stream-json` and `--output-format stream-json`. The data walks through
//! in one direction: [`request`] reads the client's request, with [`conversation`], [`functions`],
//! `media` and `schema` for its parts; [`exchange`] holds the state of one dialogue with the CLI,
//! and `session` what is left of it for the next one;
//! [`line`](mod@line) reads what the CLI prints, [`answer`] makes deltas of it, [`text`] sifts them
//! and [`tokens`] counts; [`question`] has the dialogues that only ask something; [`input`] words what is written to it, and [`failure`] names what went wrong. All of it
//! is pure; [`adapter`] is what the host calls.

pub mod adapter;
pub mod answer;
pub mod block;
pub mod conversation;
pub mod exchange;
pub mod failure;
pub mod functions;
pub mod input;
pub mod line;
mod media;
pub mod question;
pub mod request;
mod schema;
mod session;
pub mod text;
mod time;
pub mod tokens;
