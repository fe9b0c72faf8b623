//! Looks after the backends: whether they can serve, and what they offer.
//!
//! A check costs about a second of a CPU, so there is one at the start, and then only when
//! somebody asks for the state and what is known of it has grown old. Requests renew it anyway.

use std::sync::Arc;
use std::time::Duration;

use guests::adapter::AdapterSession;
use guests::completion::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use processes::Processes;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::backends::Backend;
use crate::backends::status::Health;
use crate::exchange::{Event, Exchange, ExchangeRequest, Opened};
use crate::failure::{Failure, unix_now};
use crate::lane::Lane;
use crate::pool::Pool;
use crate::runtime::RuntimeHandle;

/// How long a request for the state waits for the first check.
const FIRST_CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a backend may take to say what it offers.
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

/// How often the metrics' samples are folded into their buckets, and the warden is checked.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Looks after the backends until it is dropped.
pub(crate) struct Monitor {
    checked: watch::Receiver<bool>,
    asked: Arc<Notify>,
    task: AbortOnDropHandle<()>,
}

impl Monitor {
    pub(crate) fn start(
        runtime: Arc<RuntimeHandle>,
        lane: Arc<Lane>,
        processes: Arc<Processes>,
        pool: Arc<Pool>,
        metrics: PrometheusHandle,
    ) -> Self {
        let (first, checked) = watch::channel(false);
        let asked = Arc::new(Notify::new());
        let rounds = Rounds {
            runtime,
            lane,
            processes,
            pool,
        };
        let task = tokio::spawn({
            let asked = asked.clone();
            async move {
                let mut changes = rounds.runtime.configurations();
                rounds.make(true).await;
                first.send_replace(true);
                let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
                loop {
                    tokio::select! {
                        Ok(()) = changes.changed() => {
                            first.send_replace(false);
                            rounds.make(false).await;
                            first.send_replace(true);
                        }
                        () = asked.notified() => rounds.make(false).await,
                        _ = upkeep.tick() => {
                            metrics.run_upkeep();
                            rounds.processes.look_after();
                        }
                    }
                }
            }
        });
        Monitor {
            checked,
            asked,
            task: AbortOnDropHandle::new(task),
        }
    }

    /// Stops all checks.
    pub(crate) fn stop(&self) {
        self.task.abort();
    }

    /// Asks for a check of backends whose state is stale.
    pub(crate) fn check_stale(&self) {
        self.asked.notify_one();
    }

    /// Waits, within bounds, until every backend was checked once. Stale states are renewed in the background.
    pub(crate) async fn known(&self) {
        self.check_stale();
        let mut checked = self.checked.clone();
        // Either it is known by then, or the state says that it is not.
        let _ = tokio::time::timeout(FIRST_CHECK_TIMEOUT, checked.wait_for(|done| *done)).await;
    }
}

struct Rounds {
    runtime: Arc<RuntimeHandle>,
    lane: Arc<Lane>,
    processes: Arc<Processes>,
    pool: Arc<Pool>,
}

impl Rounds {
    async fn make(&self, all: bool) {
        let snapshot = self.runtime.current();
        for backend in &snapshot.backends {
            if !all && !backend.status.is_stale() && !backend.status.offers_changed() {
                continue;
            }
            let ready = backend.check(&self.processes).await;
            if backend.has_moved() {
                snapshot.apply(&self.pool);
            }
            let name = &backend.config.name;
            match backend.status.health() {
                Health::Missing(_) | Health::LoggedOut => self.pool.suspend(name),
                _ => self.pool.resume(name),
            }
            if ready
                && backend.is_real()
                && backend.status.wants_probe()
                && let Err(failure) = self.probe(backend).await
            {
                tracing::debug!(backend = %backend.config.name, "it did not say what it offers: {}", failure.message);
            }
        }
    }

    /// Asks the backend what it offers. Costs no tokens.
    async fn probe(&self, backend: &Arc<Backend>) -> Result<(), Failure> {
        let snapshot = self.runtime.current();
        let Some(chain) = snapshot.chains.of_backend(&backend.config.name) else {
            return Ok(());
        };
        let adapter = chain.adapter.clone();
        // All places are taken or waited for. Requests go first; a later check probes again.
        let Some(permit) = backend.admission.try_enter() else {
            return Ok(());
        };
        let model = backend.config.launch.profile.probe_model;
        let context = Context {
            id: "probe".into(),
            created: unix_now(),
            model: model.into(),
            backend_model: model.into(),
            resolved_model: None,
            profile: backend.config.launch.profile.name.into(),
            fetch_urls: false,
            choice: 0,
        };
        let request = ExchangeRequest {
            backend: backend.clone(),
            model: model.into(),
            size: 0,
            caller: None,
            deadline: Instant::now(),
            chain: chain.digest.clone(),
            is_probe: true,
        };
        let (is_own, pool) = (adapter.guest.is_own(), self.pool.clone());
        let probed = async move {
            let guest = adapter.guest.clone();
            let opened = AdapterSession::probe(adapter, &context);
            let opened = opened.map_err(|error| crate::exchange::guest_failure(&guest, &error))?;
            let Some(session) = opened else { return Ok(()) };
            let opened = Opened {
                session,
                opening: None,
            };
            let mut exchange = Exchange::begin(request, opened, &pool, permit).await?;
            loop {
                match exchange.next().await {
                    Event::Delta(_) => {}
                    Event::Finish(_) => return Ok(()),
                    Event::Fail(failure) => return Err(failure),
                }
            }
        };
        let probed = tokio::time::timeout(PROBE_TIMEOUT, async {
            match is_own {
                true => probed.await,
                false => self.lane.run(probed).await,
            }
        });
        probed.await.unwrap_or(Ok(()))
    }
}
