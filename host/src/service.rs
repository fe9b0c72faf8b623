//! Puts the parts together: what one running service consists of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use guests::admit::Judges;
use metrics_exporter_prometheus::PrometheusHandle;
use processes::Processes;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::bodies::BodyMemory;
use crate::books::Books;
use crate::cache::Caches;
use crate::config::Config;
use crate::failure::unix_now;
use crate::lanes::Lanes;
use crate::monitor::Monitor;
use crate::pool::Pool;
use crate::quotas::Quotas;
use crate::reload::Reloader;
use crate::runtime::{RuntimeHandle, Snapshot};

/// A running service.
pub(crate) struct Service {
    pub(crate) runtime: Arc<RuntimeHandle>,
    pub(crate) reloader: Reloader,
    pub(crate) processes: Arc<Processes>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) monitor: Monitor,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) bodies: BodyMemory,
    /// Room for requests with settings of their own, which somebody tries.
    pub(crate) trials: Semaphore,
    pub(crate) lanes: Arc<Lanes>,
    /// What keys with limits have used.
    pub(crate) quotas: Arc<Quotas>,
    /// Answers that are given again.
    pub(crate) caches: Caches,
    /// What every request took.
    pub(crate) books: Arc<Books>,
    /// Seconds since the Unix epoch.
    pub(crate) started_at: u64,
    draining: AtomicBool,
    _tending: AbortOnDropHandle<()>,
    _keeping: AbortOnDropHandle<()>,
    _accounting: AbortOnDropHandle<()>,
}

/// How many trials begin at once. Each holds a body that nobody counts, and its guests are tried before it has a place.
const TRIALS: usize = 4;

/// Keeps the ledger as it is configured, for ever.
async fn account(runtime: Arc<RuntimeHandle>, books: Arc<Books>) {
    let mut changes = runtime.configurations();
    while changes.changed().await.is_ok() {
        let (snapshot, books) = (runtime.current(), books.clone());
        let _ = tokio::task::spawn_blocking(move || books.change(&snapshot.config)).await;
    }
}

impl Service {
    /// Loads the guests and begins to look after the backends.
    ///
    /// # Errors
    ///
    /// Fails if an embedded guest does not load, or if this program cannot be started again as
    /// the warden of its processes.
    pub(crate) fn start(
        config: Config,
        metrics: PrometheusHandle,
        judges: Judges,
    ) -> anyhow::Result<Arc<Self>> {
        let processes = Processes::new(config.max_processes);
        let processes = Arc::new(processes.context("cannot prepare for processes")?);
        processes.look_after();
        let pool = Pool::new(processes.clone(), config.warm_memory);
        let (runtime, reloader) = Reloader::start(config, processes.clone(), pool.clone(), judges)?;
        let snapshot = runtime.current();
        let lanes = Arc::new(Lanes::start().context("cannot start the threads of guests")?);
        let monitor = Monitor::start(
            runtime.clone(),
            lanes.clone(),
            processes.clone(),
            pool.clone(),
            metrics.clone(),
        );
        for (name, problem) in snapshot.chains.problems() {
            tracing::warn!(name, problem, "a model or backend cannot be served");
        }
        let books = Arc::new(Books::open(&snapshot.config)?);
        let quotas = Quotas::open(snapshot.config.guests.state_dir.as_deref());
        Ok(Arc::new(Service {
            _keeping: AbortOnDropHandle::new(tokio::spawn(quotas.clone().keep())),
            quotas,
            _accounting: AbortOnDropHandle::new(tokio::spawn(account(
                runtime.clone(),
                books.clone(),
            ))),
            books,
            caches: Caches::default(),
            _tending: AbortOnDropHandle::new(tokio::spawn(pool.clone().maintain())),
            runtime,
            reloader,
            processes,
            pool,
            monitor,
            metrics,
            lanes,
            trials: Semaphore::new(TRIALS),
            bodies: BodyMemory::new(snapshot.config.http.max_body_memory),
            started_at: unix_now(),
            draining: AtomicBool::new(false),
        }))
    }

    /// Logs what was started: version, configuration, backends and models.
    pub(crate) fn announce(&self) {
        let snapshot = self.snapshot();
        let config = match &snapshot.config.source {
            Some(path) => path.display().to_string(),
            None => "none, all defaults".to_owned(),
        };
        let names = |names: Vec<&str>| names.join(", ");
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            config = %config,
            backends = %names(snapshot.backends.iter().map(|b| &*b.config.name).collect()),
            models = %names(snapshot.config.models.iter().map(|m| &*m.name).collect()),
            keys = snapshot.config.access.keys.len(),
            "claude-harness started"
        );
        let access = &snapshot.config.access;
        if !access.keys.is_empty() && !access.has_admin() {
            tracing::info!(
                "no key opens /metrics and /admin through TCP: give one `admin = true` in its `[keys.NAME]`"
            );
        }
        snapshot.config.warn();
    }

    /// What is configured now. A request keeps what it began with.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.runtime.current()
    }

    /// Whether no new requests are taken.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Takes no new requests from now on, and ends what waits for them.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.pool.close();
    }
}
