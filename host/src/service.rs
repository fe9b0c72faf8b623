//! Puts the parts together: what one running service consists of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::backends::Backend;
use crate::config::Config;
use crate::failure::unix_now;
use crate::guests::Guests;
use crate::models::Models;
use crate::monitor::Monitor;
use crate::processes::Processes;

/// A running service.
pub(crate) struct Service {
    pub(crate) config: Config,
    pub(crate) backends: Vec<Arc<Backend>>,
    pub(crate) models: Models,
    pub(crate) guests: Guests,
    pub(crate) processes: Arc<Processes>,
    pub(crate) monitor: Monitor,
    pub(crate) metrics: PrometheusHandle,
    /// Seconds since the Unix epoch.
    pub(crate) started_at: u64,
    draining: AtomicBool,
}

impl Service {
    /// Loads the guests and begins to look after the backends.
    ///
    /// # Errors
    ///
    /// Fails if an embedded guest does not load, or if this program cannot be started again as
    /// the warden of its processes.
    pub(crate) fn start(config: Config, metrics: PrometheusHandle) -> anyhow::Result<Arc<Self>> {
        let backends = Backend::all(&config.backends)?;
        let guests = Guests::start(&config)?;
        let processes = Arc::new(Processes::new().context("cannot prepare for processes")?);
        let monitor = Monitor::start(
            backends.clone(),
            guests.clone(),
            processes.clone(),
            metrics.clone(),
        );
        for backend in &backends {
            let adapter = &backend.config.adapter;
            if !guests.current().serving.contains_key(adapter) {
                let file = config.guest_file(adapter);
                tracing::warn!(backend = %backend.config.name, file = %file.display(), "its adapter is not loaded");
            }
        }
        Ok(Arc::new(Service {
            models: Models::new(&config, backends.clone()),
            backends,
            guests,
            processes,
            monitor,
            metrics,
            started_at: unix_now(),
            draining: AtomicBool::new(false),
            config,
        }))
    }

    /// Whether no new requests are taken.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Takes no new requests from now on.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}
