//! The command lines that answer, each with its door, its guard and what is known of its state.

mod account;
mod guard;
pub(crate) mod profile;
pub(crate) mod status;

use std::sync::Arc;

use crate::admission::Admission;
use crate::config;
use guard::Guard;
use status::Status;

/// A backend as it runs.
pub(crate) struct Backend {
    pub(crate) config: config::Backend,
    pub(crate) admission: Admission,
    pub(crate) status: Status,
    guard: Guard,
}

impl Backend {
    /// All configured backends. Every profile there is speaks the Claude Code protocol.
    ///
    /// # Errors
    ///
    /// Fails only if the guard's schema, which is built into this program, is wrong.
    pub(crate) fn all(configs: &[config::Backend]) -> anyhow::Result<Vec<Arc<Backend>>> {
        let backends = configs.iter().map(|config| {
            Ok(Arc::new(Backend {
                admission: Admission::new(
                    config.max_concurrent,
                    config.queue,
                    config.queue_timeout,
                ),
                status: Status::new(config.profile),
                guard: Guard::claude_code(config.fetch_urls)?,
                config: config.clone(),
            }))
        });
        backends.collect()
    }

    /// Whether it is more than a demonstration.
    pub(crate) fn is_real(&self) -> bool {
        self.config.profile != config::Profile::Demo
    }

    /// The line to write to standard input for what a guest wants to be written.
    pub(crate) fn seal(&self, bytes: &[u8]) -> Result<Vec<u8>, guard::Refusal> {
        self.guard.seal(bytes)
    }
}
