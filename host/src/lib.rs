//! claude-harness: an OpenAI-compatible HTTP service in front of the Claude Code command line.
//!
//! `ARCHITECTURE.md` has the map. The modules in the order in which a request meets them:
//! [`server`] accepts it, `api` reads it, `models` routes it, `admission` lets it through, `pool` has
//! a process for it, `guests` and `processes` answer it, and `exchange` is where those two meet.

mod admission;
mod api;
mod ascii_json;
mod backends;
mod bodies;
mod books;
mod cache;
mod chain;
pub mod config;
pub mod config_command;
pub mod demo;
mod dialects;
mod dispatch;
pub mod doctor;
mod exchange;
pub mod failure;
pub mod guest_command;
pub mod key_command;
mod lanes;
pub mod limits;
mod models;
mod monitor;
mod pool;
mod profiles;
mod quotas;
#[cfg(test)]
mod reference;
mod reload;
mod render;
mod runtime;
pub mod schema_check;
pub mod server;
mod service;
mod shutdown;
mod systemd;
pub mod telemetry;
mod tls;
mod traces;
pub mod usage;

pub use basics::memory;
pub use guests::compile;
pub use processes::warden;
