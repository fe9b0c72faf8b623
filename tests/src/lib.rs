//! What the end-to-end tests and the benchmark share: the fakes, and a service under test.

pub mod anthropic;
pub mod collector;
pub mod dice;
pub mod fake_api;
pub mod host;
pub mod http;
pub mod png;
pub mod poll;
pub mod real_cli;
pub mod tls;

/// The code of a page of the documentation, which must compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/how-to/write-a-dialect.md")]
struct WriteADialect;
