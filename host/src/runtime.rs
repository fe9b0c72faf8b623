//! One configuration, everything that is built of it, and the guests. It is replaced as a whole, by `reload`.
//!
//! A request keeps the snapshot it began with. What outlives a change, such as a backend's queue,
//! is handed on from one snapshot to the next.

use std::sync::Arc;

use arc_swap::ArcSwap;
use guests::registry::GuestSet;
use processes::Processes;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::backends::Backend;
use crate::backends::launch::{Launch, PoolPolicy};
use crate::chain::{Chain, Chains, Unready};
use crate::config::Config;
use crate::dialects::Dialects;
use crate::failure::{Failure, Kind};
use crate::models::{Models, Route};
use crate::pool::Pool;
use crate::telemetry;

/// One configuration and what is built of it. Parts that do not change are shared with the snapshots before and
/// after this one.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) config: Arc<Config>,
    pub(crate) backends: Vec<Arc<Backend>>,
    pub(crate) models: Arc<Models>,
    pub(crate) guests: Arc<GuestSet>,
    /// Made of the configuration and the guests.
    pub(crate) chains: Arc<Chains>,
    /// Made of the configuration and the guests.
    pub(crate) dialects: Arc<Dialects>,
    /// Why the current `harness.toml` is not in use. `None` if it is in use.
    pub(crate) config_problem: Option<String>,
    /// Wakes whoever looks after the backends.
    pub(crate) attention: Arc<Notify>,
}

/// What a new snapshot takes over of the one before.
struct Before<'s> {
    backends: &'s [Arc<Backend>],
    chains: &'s Chains,
    dialects: &'s Dialects,
}

impl<'s> Before<'s> {
    fn none((chains, dialects): &'s (Chains, Dialects)) -> Self {
        Before {
            backends: &[],
            chains,
            dialects,
        }
    }
}

/// The current snapshot, and how to replace it.
pub(crate) struct RuntimeHandle {
    current: ArcSwap<Snapshot>,
    replaced: watch::Sender<()>,
    configured: watch::Sender<()>,
    processes: Arc<Processes>,
    pool: Arc<Pool>,
}

impl Snapshot {
    fn new(
        config: Arc<Config>,
        guests: Arc<GuestSet>,
        before: Before<'_>,
        attention: Arc<Notify>,
    ) -> anyhow::Result<Self> {
        let backends = Backend::all(&config.backends, before.backends, &attention)?;
        Ok(Snapshot {
            models: Arc::new(Models::new(&config, backends.clone())),
            chains: Arc::new(Chains::new(&config, &guests, before.chains)),
            dialects: Arc::new(Dialects::new(&config, &guests, before.dialects)),
            backends,
            config,
            guests,
            config_problem: None,
            attention,
        })
    }

    /// A snapshot for looking at it, without a service.
    ///
    /// # Errors
    ///
    /// Fails if the backends cannot be built.
    pub(crate) fn offline(config: Config, guests: Arc<GuestSet>) -> anyhow::Result<Self> {
        let none = (Chains::default(), Dialects::default());
        Self::new(
            Arc::new(config),
            guests,
            Before::none(&none),
            Arc::default(),
        )
    }

    /// Takes another configuration.
    ///
    /// # Errors
    ///
    /// Fails, and changes nothing, if the backends cannot be built.
    pub(crate) fn configure(&mut self, config: Config) -> anyhow::Result<()> {
        let guests = self.guests.clone();
        let (config, attention) = (Arc::new(config), self.attention.clone());
        let before = Before {
            backends: &self.backends,
            chains: &self.chains,
            dialects: &self.dialects,
        };
        *self = Snapshot::new(config, guests, before, attention)?;
        Ok(())
    }

    /// Takes other guests.
    pub(crate) fn take_guests(&mut self, guests: &Arc<GuestSet>) {
        if !Arc::ptr_eq(&self.guests, guests) {
            self.guests = guests.clone();
            self.chains = Arc::new(Chains::new(&self.config, guests, &self.chains));
            self.dialects = Arc::new(Dialects::new(&self.config, guests, &self.dialects));
        }
    }

    /// The chain that answers a route.
    ///
    /// # Errors
    ///
    /// Says why there is none.
    pub(crate) fn chain(&self, route: &Route) -> Result<&Chain, Failure> {
        self.chains.of(route).map_err(|unready| {
            let message = match unready {
                Unready::Bad(message) => message,
                Unready::Pending(guest) => {
                    format!("the guest `{guest}` is still being compiled: try again later")
                }
            };
            Failure::new(Kind::Guest, message).logged()
        })
    }

    /// Whether a model waits for a guest that is being compiled.
    pub(crate) fn waits(&self, model: &str) -> bool {
        let route = self.models.route(model);
        route.is_some_and(|route| matches!(self.chains.of(&route), Err(Unready::Pending(_))))
    }

    /// The fields of a request that the adapter of a model honours. `None` if there is no such adapter.
    pub(crate) fn honours(&self, model: &str) -> Option<Arc<[String]>> {
        let route = self.models.route(model)?;
        let chain = self.chains.of(&route).ok()?;
        Some(chain.adapter.guest.honours.clone())
    }

    /// Applies it to the pool and to the metrics.
    pub(crate) fn apply(&self, pool: &Pool) {
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

    /// The launches of the models that the configuration names.
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
        config: Arc<Config>,
        guests: Arc<GuestSet>,
        processes: Arc<Processes>,
        pool: Arc<Pool>,
    ) -> anyhow::Result<Arc<Self>> {
        let none = (Chains::default(), Dialects::default());
        let snapshot = Snapshot::new(config, guests, Before::none(&none), Arc::default())?;
        snapshot.apply(&pool);
        Ok(Arc::new(RuntimeHandle {
            current: ArcSwap::from_pointee(snapshot),
            replaced: watch::Sender::new(()),
            configured: watch::Sender::new(()),
            processes,
            pool,
        }))
    }

    /// The current snapshot.
    pub(crate) fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// A receiver of all changes of the configuration from now on.
    pub(crate) fn configurations(&self) -> watch::Receiver<()> {
        self.configured.subscribe()
    }

    /// Waits until no guest of a model's chain is being compiled any more, or until `deadline`.
    pub(crate) async fn settled(&self, model: &str, deadline: Instant) {
        self.until(|snapshot| !snapshot.waits(model), deadline)
            .await;
    }

    /// Waits until a snapshot is like this, or until `deadline`.
    pub(crate) async fn until(&self, is_it: impl Fn(&Snapshot) -> bool, deadline: Instant) {
        let mut replaced = self.replaced.subscribe();
        while !is_it(&self.current()) {
            let next = tokio::time::timeout_at(deadline, replaced.changed());
            if !matches!(next.await, Ok(Ok(()))) {
                return;
            }
        }
    }

    /// Replaces the snapshot for all requests from now on, if `next` differs.
    pub(crate) fn replace(&self, next: Snapshot) {
        let before = self.current();
        let is_configured = !Arc::ptr_eq(&before.config, &next.config);
        let same_guests = Arc::ptr_eq(&before.guests, &next.guests);
        if !is_configured && same_guests && before.config_problem == next.config_problem {
            return;
        }
        let next = Arc::new(next);
        if is_configured {
            for key in before.config.fixed_keys(&next.config) {
                tracing::warn!(
                    key,
                    "this setting changes with the next start of the service"
                );
            }
            self.processes.limit(next.config.max_processes);
            next.apply(&self.pool);
        }
        self.current.store(next.clone());
        self.replaced.send_replace(());
        for name in next.guests.changed_since(&before.guests) {
            if let Some(guest) = next.guests.serving.get(&name) {
                tracing::info!(
                    guest = %guest.name, version = %guest.version, generation = guest.generation,
                    digest = &guest.digest[..12], "a guest was loaded"
                );
            }
        }
        if is_configured {
            tracing::info!("the configuration was read again");
            next.config.warn();
            self.configured.send_replace(());
        }
    }
}
