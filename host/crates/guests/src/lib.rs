//! Hosts the guests: the only place that knows WebAssembly.
//!
//! `engine` compiles and bounds, [`admit`] decides whether a component may serve,
//! `folder` finds components, [`loader`] decides which serve and has [`jobs`] try them, [`registry`] is the set,
//! [`compile`] compiles files in a process of their own, [`cases`] has a new component repeat recorded dialogues,
//! [`store`] keeps what was admitted.
//! [`instance`] makes an instance for one request, which [`adapter`], [`transform`] or [`dialect`] calls. `contract` translates what guests say into the types of
//! [`completion`], which the rest of the host knows.

pub mod adapter;
pub mod admit;
mod cache;
pub mod cases;
pub mod compile;
pub mod completion;
mod contract;
pub mod dialect;
mod engine;
mod folder;
pub mod http;
pub mod instance;
pub mod jobs;
pub mod loader;
pub mod registry;
pub mod report;
pub mod request;
pub mod settings;
pub mod store;
pub mod transform;

pub use contract::v1_0::Effects;
pub use engine::Taken;

/// A guest that broke a bound or a rule. Each fails one request, or one admission.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GuestError {
    /// It ran longer than it may.
    #[error("it ran for more than {0:?}")]
    Time(std::time::Duration),
    /// It wanted more memory than it may have.
    #[error("it wanted more than {} MiB of memory", .0 >> 20)]
    Memory(usize),
    /// It returned more than it may.
    #[error("it returned more than {0} bytes")]
    Output(usize),
    /// It ended by a trap.
    #[error("it trapped: {0}")]
    Trap(String),
    /// It called a function of WASI that no guest may call.
    #[error("it called `{0}`: for a guest there are no files, no network, no sleep and no exit")]
    Forbidden(String),
    /// It did what the contract does not allow.
    #[error("it broke the contract: {0}")]
    Contract(String),
    /// It wanted to write what may not be written.
    #[error("it wanted to write what may not be written: {0}")]
    Write(String),
    /// It broke a bound or a rule in this function of the contract.
    #[error("{1} (in `{0}`)")]
    In(&'static str, Box<GuestError>),
    /// All places for instances are taken.
    #[error("too many instances at once")]
    Saturated,
}
