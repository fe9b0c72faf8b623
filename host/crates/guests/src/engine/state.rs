//! What the host keeps for one instance of a guest.

use std::sync::Arc;
use std::time::Duration;

use basics::plain;
use wasmtime::ResourceLimiter;

use super::clock::Time;
use super::toll::Toll;
use super::wasi::Wasi;
use crate::admit::Standing;
use crate::completion::Context;
use crate::contract::v1_0::log;
use crate::settings::{GuestConfig, GuestLog};

/// Lines that a guest may log in one call.
const LOG_LINES_MAX: u32 = 32;

/// The longest line that a guest may log, in characters.
const LOG_LINE_MAX: usize = 2 << 10;

/// What the host keeps for one instance.
pub(crate) struct State {
    pub(super) log: Log,
    pub(super) memory: Memory,
    pub(super) time: Time,
    pub(super) toll: Arc<Toll>,
    /// Whether its calls are known to take no longer than their input is large.
    pub(crate) is_quick: bool,
    /// How far its calls are trusted to be short.
    pub(crate) standing: Standing,
    /// Set for guests that import WASI.
    pub(super) wasi: Option<Wasi>,
}

/// Writes a guest's lines to the log of the service.
pub(super) struct Log {
    guest: String,
    /// The id of the completion that the instance is for, as in the answer's `id`. None while a guest is admitted.
    completion: Option<String>,
    /// The highest level that its lines have.
    highest: log::Level,
    /// How many lines the present call may still write.
    left: u32,
    /// The last line, kept only while the guest is admitted: it says why the guest failed.
    last: Option<String>,
}

/// Bounds the memory of all parts of an instance together. Remembers whether memory was refused, because the
/// error of the guest's call does not tell.
pub(super) struct Memory {
    pub(super) limit: usize,
    used: usize,
    pub(super) refused: bool,
}

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let used = self.used.saturating_add(desired.saturating_sub(current));
        let allowed = used <= self.limit;
        if allowed {
            self.used = used;
        }
        self.refused |= !allowed;
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        /// Entries of a table; Rust's guests have some hundred.
        const TABLE_MAX: usize = 20_000;
        Ok(desired <= TABLE_MAX)
    }
}

impl State {
    /// For an instance that serves a request, or with no request one that is only tried.
    pub(super) fn new(
        guest: &GuestConfig,
        imports_wasi: bool,
        memory: usize,
        toll: Arc<Toll>,
        context: Option<&Context>,
    ) -> Self {
        State {
            log: Log {
                guest: guest.name.clone(),
                completion: context.map(|context| context.id.clone()),
                highest: match guest.log {
                    GuestLog::Debug => log::Level::Debug,
                    GuestLog::Info => log::Level::Info,
                    GuestLog::Warn => log::Level::Warn,
                    GuestLog::Error => log::Level::Error,
                },
                left: LOG_LINES_MAX,
                last: None,
            },
            memory: Memory {
                limit: memory,
                used: 0,
                refused: false,
            },
            time: Time::new(Duration::ZERO, Standing::BuiltIn),
            toll,
            is_quick: false,
            standing: Standing::BuiltIn,
            wasi: imports_wasi.then(|| Wasi::new(context)),
        }
    }

    /// Whether the instance only tries a guest, or a configuration.
    pub(super) fn is_trial(&self) -> bool {
        self.log.completion.is_none()
    }

    /// Bytes of memory that it has now.
    #[cfg(test)]
    pub(crate) fn memory_used(&self) -> usize {
        self.memory.used
    }

    /// A call begins.
    pub(super) fn begin(&mut self, time: Time) {
        self.time = time;
        self.log.left = LOG_LINES_MAX;
        self.memory.refused = false;
    }

    /// A call has ended: what it printed becomes lines of the log.
    pub(super) fn end(&mut self) {
        if let Some(wasi) = &mut self.wasi {
            let log = &mut self.log;
            wasi.printed.drain(|line| log.write(log::Level::Info, line));
            wasi.complained
                .drain(|line| log.write(log::Level::Error, line));
        }
    }

    /// The last line that the guest logged, if it is not serving a request.
    pub(super) fn last_line(&self) -> Option<&str> {
        self.log.last.as_deref()
    }
}

impl Log {
    fn write(&mut self, level: log::Level, message: &str) {
        let Some(left) = self.left.checked_sub(1) else {
            return;
        };
        self.left = left;
        let guest = &self.guest;
        let id = self.completion.as_deref().unwrap_or_default();
        let text = plain::line(message, LOG_LINE_MAX);
        // The guest may have seen a prompt, so its lines have at most the level that its section allows
        // (`debug`, unless the operator sets another one).
        let level = if (level as u8) < self.highest as u8 {
            level
        } else {
            self.highest
        };
        match level {
            log::Level::Trace => tracing::trace!(target: "guest", %guest, %id, "{text}"),
            log::Level::Debug => tracing::debug!(target: "guest", %guest, %id, "{text}"),
            log::Level::Info => tracing::info!(target: "guest", %guest, %id, "{text}"),
            log::Level::Warn => tracing::warn!(target: "guest", %guest, %id, "{text}"),
            log::Level::Error => tracing::error!(target: "guest", %guest, %id, "{text}"),
        }
        if self.completion.is_none() && !text.is_empty() {
            self.last = Some(text);
        }
    }
}

impl log::Host for State {
    fn write(&mut self, level: log::Level, message: String) {
        self.log.write(level, &message);
    }
}
