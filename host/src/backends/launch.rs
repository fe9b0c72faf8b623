//! How a backend's processes are started, and how many of them wait.

use std::sync::Arc;
use std::time::Duration;

use processes::{CommandLine, Reading};

use super::Backend;
use super::installation::Installation;
pub(crate) use crate::profiles::Warm;

/// How a process is started. Two processes with equal launches are interchangeable.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    /// The backend's name.
    pub(crate) backend: String,
    /// Changes whenever the backend's processes would be started differently: by another configuration, or from another
    /// file.
    pub(crate) revision: u64,
    /// The program of the backend.
    pub(crate) installation: Arc<Installation>,
    pub(crate) line: CommandLine,
    pub(crate) reading: Reading,
    /// Whether it has no launch options: a request chose nothing of this launch but the model.
    pub(crate) is_plain: bool,
}

/// How many idle processes a backend has for each launch, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolPolicy {
    /// The launch revision that this is for; processes of another one are not kept.
    pub(crate) revision: u64,
    /// Warm processes for each launch in use.
    pub(crate) warm: Warm,
    /// How old a warm process may become.
    pub(crate) max_age: Duration,
    /// How long a process is parked after an answer.
    pub(crate) continue_for: Duration,
    /// The memory of an idle process while none was measured, in bytes.
    pub(crate) idle_memory: u64,
}

impl PoolPolicy {
    /// The policy that a backend's configuration asks for.
    pub(crate) fn of(backend: &Backend) -> Self {
        let config = &backend.config;
        PoolPolicy {
            revision: backend.installation.revision(),
            warm: config.pool.warm,
            max_age: config.pool.warm_max_age,
            continue_for: config.pool.continue_for,
            idle_memory: config.launch.profile.idle_memory,
        }
    }
}
