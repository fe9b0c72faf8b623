//! How a backend's processes are started, and how many of them wait.

use std::time::Duration;

use super::Backend;
use crate::processes::{CommandLine, Reading};

/// How a process is started: two that are started alike can stand for one another.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    /// The backend's name.
    pub(crate) backend: String,
    /// Which way to start its processes this is.
    pub(crate) revision: u64,
    pub(crate) line: CommandLine,
    pub(crate) reading: Reading,
    /// A request set nothing of it but the model.
    pub(crate) is_plain: bool,
}

/// How many processes of a backend wait behind each launch line, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolPolicy {
    /// The way to start processes that they are for; those that were started otherwise do not wait.
    pub(crate) revision: u64,
    /// Processes that are kept warm.
    pub(crate) warm: usize,
    /// How long one of them may wait.
    pub(crate) max_age: Duration,
    /// How long a process is kept after an answer, for its conversation to go on.
    pub(crate) continue_for: Duration,
    /// What a process holds while none of its kind was measured, in bytes.
    pub(crate) idle_memory: u64,
}

impl PoolPolicy {
    /// What the operator wants for a backend.
    pub(crate) fn of(backend: &Backend) -> Self {
        let config = &backend.config;
        PoolPolicy {
            revision: backend.revision,
            warm: config.warm,
            max_age: config.warm_max_age,
            continue_for: config.continue_for,
            idle_memory: config.profile.idle_memory,
        }
    }
}
