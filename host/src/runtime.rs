//! One configuration and everything that is built of it. It is replaced as a whole.
//!
//! A request keeps the snapshot it began with. What outlives a change, such as a backend's queue,
//! is handed on from one snapshot to the next.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::backends::Backend;
use crate::backends::launch::{Launch, PoolPolicy};
use crate::config::Config;
use crate::models::Models;
use crate::pool::Pool;
use crate::processes::Processes;
use crate::telemetry;

/// One configuration and what is built of it.
pub(crate) struct Snapshot {
    pub(crate) config: Config,
    pub(crate) backends: Vec<Arc<Backend>>,
    pub(crate) models: Models,
}

/// The current snapshot, and how to replace it.
pub(crate) struct RuntimeHandle {
    current: ArcSwap<Snapshot>,
    changed: watch::Sender<()>,
    processes: Arc<Processes>,
    pool: Arc<Pool>,
}

impl Snapshot {
    fn new(config: Config, before: &[Arc<Backend>]) -> anyhow::Result<Self> {
        let backends = Backend::all(&config.backends, before)?;
        Ok(Snapshot {
            models: Models::new(&config, backends.clone()),
            backends,
            config,
        })
    }

    /// Applies it to the pool and to the metrics.
    fn tell(&self, pool: &Pool) {
        let models = self.config.models.iter().map(|model| model.name.clone());
        let names = self
            .backends
            .iter()
            .map(|backend| backend.config.name.clone());
        telemetry::begin_counting(&models.collect::<Vec<_>>(), &names.collect::<Vec<_>>());
        let backends = self.backends.iter();
        let terms = backends.map(|b| (b.config.name.clone(), PoolPolicy::of(b)));
        pool.configure(&self.warm_lines(), terms.collect(), self.config.warm_memory);
    }

    /// The launches of the models that stand in the configuration.
    fn warm_lines(&self) -> Vec<Arc<Launch>> {
        let mut lines: Vec<Arc<Launch>> = Vec::new();
        for model in self.config.models.iter().filter(|model| model.is_named) {
            let mut backends = self.backends.iter();
            let backend = backends.find(|b| b.config.name == model.backend);
            let Some(backend) = backend.filter(|b| b.is_real()) else {
                continue;
            };
            if let Some(launch) = backend.plain_launch(&model.model)
                && !lines.contains(&launch)
            {
                lines.push(launch);
            }
        }
        lines
    }
}

impl RuntimeHandle {
    pub(crate) fn start(
        config: Config,
        processes: Arc<Processes>,
        pool: Arc<Pool>,
    ) -> anyhow::Result<Arc<Self>> {
        let snapshot = Snapshot::new(config, &[])?;
        snapshot.tell(&pool);
        Ok(Arc::new(RuntimeHandle {
            current: ArcSwap::from_pointee(snapshot),
            changed: watch::Sender::new(()),
            processes,
            pool,
        }))
    }

    /// The current snapshot.
    pub(crate) fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// A receiver of all changes from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Replaces the snapshot for all requests from now on.
    pub(crate) fn change(&self, config: &Config) {
        let before = self.current();
        let next = match Snapshot::new(config.clone(), &before.backends) {
            Ok(next) => next,
            Err(error) => return tracing::error!(%error, "the configuration cannot be used"),
        };
        for key in before.config.fixed_keys(config) {
            tracing::warn!(
                key,
                "this setting changes with the next start of the service"
            );
        }
        self.processes.limit(config.max_processes);
        next.tell(&self.pool);
        self.current.store(Arc::new(next));
        tracing::info!("the configuration was read again");
        config.warn();
        self.changed.send_replace(());
    }
}
