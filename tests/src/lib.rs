//! What the end-to-end tests and the benchmark share: the fakes, and a service under test.

pub mod anthropic;
pub mod dice;
pub mod fake_api;
pub mod host;
pub mod http;
pub mod png;
pub mod poll;
pub mod real_cli;
