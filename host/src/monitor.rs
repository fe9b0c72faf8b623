//! Looks after the backends: whether they can serve, what they offer, and how much of the plan is used.
//!
//! A check costs about a second of a CPU, so there is one at the start, and then only when
//! somebody asks for the state and what is known of it has grown old, or when another program took the place of a
//! backend's. Requests renew the state anyway. The plan is asked for on a process that is there anyway.

use std::sync::Arc;
use std::time::Duration;

use basics::file_stamp::FileStamp;
use guests::GuestError;
use guests::adapter::AdapterSession;
use guests::completion::Context;
use guests::report::{Question, Report};
use metrics_exporter_prometheus::PrometheusHandle;
use processes::{Process, Processes};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::backends::Backend;
use crate::backends::installation::Standing;
use crate::backends::introduction::Introduction;
use crate::backends::launch::Launch;
use crate::backends::status::{Health, Reporter};
use crate::exchange::question::{self, Told};
use crate::exchange::{guest_failure, no_process};
use crate::failure::{Failure, unix_now};
use crate::lanes::Lanes;
use crate::pool::{NoProcess, Pool};
use crate::runtime::RuntimeHandle;

/// How long a request for the state waits for the first check.
const FIRST_CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a request for the plan waits for what a backend says. It asks its own API, which was seen to take 0.3 s.
const PLAN_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a trial waits for room for its process.
const TRIAL_PATIENCE: Duration = Duration::from_secs(10);

/// How often the metrics' samples are folded into their buckets, the warden is checked, and the plan is asked for if
/// it is time.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Looks after the backends until it is dropped.
pub(crate) struct Monitor {
    checked: watch::Receiver<bool>,
    rounds: watch::Receiver<()>,
    asked: Arc<Notify>,
    task: AbortOnDropHandle<()>,
}

impl Monitor {
    pub(crate) fn start(
        runtime: Arc<RuntimeHandle>,
        lanes: Arc<Lanes>,
        processes: Arc<Processes>,
        pool: Arc<Pool>,
        metrics: PrometheusHandle,
    ) -> Self {
        let (first, checked) = watch::channel(false);
        let (round, rounds_made) = watch::channel(());
        let asked = runtime.current().attention.clone();
        let rounds = Rounds {
            runtime,
            lanes,
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
                        () = asked.notified() => {
                            rounds.make(false).await;
                            rounds.ask_plans(true).await;
                            round.send_replace(());
                        }
                        _ = upkeep.tick() => {
                            metrics.run_upkeep();
                            rounds.processes.look_after();
                            rounds.ask_plans(false).await;
                        }
                    }
                }
            }
        });
        Monitor {
            checked,
            rounds: rounds_made,
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

    /// Waits, within bounds, until each backend was asked how much of its plan is used, if it is time.
    pub(crate) async fn plans_known(&self) {
        let mut rounds = self.rounds.clone();
        rounds.mark_unchanged();
        self.asked.notify_one();
        // If it takes longer, what was known before is told.
        let _ = tokio::time::timeout(PLAN_TIMEOUT, rounds.changed()).await;
    }
}

struct Rounds {
    runtime: Arc<RuntimeHandle>,
    lanes: Arc<Lanes>,
    processes: Arc<Processes>,
    pool: Arc<Pool>,
}

impl Rounds {
    async fn make(&self, all: bool) {
        let snapshot = self.runtime.current();
        for backend in &snapshot.backends {
            if let Standing::Untried(file) = backend.standing() {
                self.try_program(backend, file).await;
                continue;
            }
            if !all && !backend.status.is_stale() && !backend.status.offers_changed() {
                continue;
            }
            let ready = backend.check(&self.processes).await;
            if backend.has_moved() {
                self.runtime.current().apply(&self.pool);
            }
            self.settle(backend);
            if ready && backend.is_real() && backend.status.wants_probe() {
                // Only a trial says what it means that it does not answer.
                let _ = self.introduce(backend, false).await;
            }
        }
    }

    /// Idle processes of a backend that is not logged in would not notice a new login.
    fn settle(&self, backend: &Backend) {
        let name = &backend.config.name;
        match backend.status.health() {
            Health::Missing(_) | Health::LoggedOut => self.pool.suspend(name),
            _ => self.pool.resume(name),
        }
    }

    /// Another program took the place of a backend's. If it can do what requests rely on, the pool moves over to it.
    /// If not, what runs serves on.
    async fn try_program(&self, backend: &Arc<Backend>, file: FileStamp) {
        let name = &backend.config.name;
        tracing::info!(backend = %name, "another program took the place of the backend's: it is tried");
        backend.check(&self.processes).await;
        let objection = match (backend.is_real(), backend.status.health()) {
            (false, _) => None,
            // No program can mend this, and it says nothing against this one.
            (true, Health::LoggedOut) => None,
            (true, Health::Ready) => match self.introduce(backend, true).await {
                Ok(Introduced::Yes) => None,
                // It is tried again when somebody needs it.
                Ok(Introduced::NotNow) => return,
                Err(objection) => Some(objection),
            },
            (true, bad) => Some(backend.message(&bad)),
        };
        let version = backend.status.version().unwrap_or_default();
        match &objection {
            None => tracing::info!(backend = %name, %version, "the new program is in use"),
            Some(why) => {
                let remedy = backend.tested_version().unwrap_or_default();
                tracing::warn!(backend = %name, %version, remedy, "the new program is not used: {why}");
            }
        }
        let is_adopted = objection.is_none();
        backend.installation.judge(file, objection);
        self.runtime.current().apply(&self.pool);
        if is_adopted {
            self.record_what_it_lacks(backend);
        }
        self.settle(backend);
    }

    /// Has a backend introduce itself. Costs no tokens.
    ///
    /// # Errors
    ///
    /// Says what requests rely on and its program does not do.
    async fn introduce(
        &self,
        backend: &Arc<Backend>,
        is_trial: bool,
    ) -> Result<Introduced, String> {
        let asked = self.ask_fresh(backend, is_trial).await;
        let reports = match asked {
            Ok(Asked::NoQuestion) => return Ok(Introduced::Yes),
            Ok(Asked::NotNow) => return Ok(Introduced::NotNow),
            Ok(Asked::Told(reports)) => reports,
            Err(failure) => {
                let name = &backend.config.name;
                tracing::debug!(backend = %name, "it did not introduce itself: {}", failure.message);
                return Err(failure.message);
            }
        };
        let introduction = Introduction::of(&reports, unix_now());
        let is_logged_out = introduction.is_logged_out();
        backend.status.introduced(introduction);
        if !is_trial {
            self.record_what_it_lacks(backend);
        }
        for report in reports {
            backend.status.observe(report, Reporter::Probe);
        }
        // `auth status` has just said that there is a login.
        if is_logged_out && backend.config.launch.profile.login_check.is_some() {
            backend.status.login_is_unused();
            return Err(backend.message(&Health::LoginUnused));
        }
        Ok(Introduced::Yes)
    }

    /// Has the pool know what the program that is in use cannot do.
    fn record_what_it_lacks(&self, backend: &Backend) {
        let introduction = backend.status.introduction();
        let model = backend.config.launch.profile.probe_model;
        if introduction.is_some_and(|told| told.lacks_rewind())
            && let Some(launch) = backend.plain_launch(model)
        {
            self.pool.record_inability(&launch);
        }
    }

    /// Asks a fresh process of the backend for its introduction, and then for its plan. In a trial, requests wait for it,
    /// so it goes before them.
    async fn ask_fresh(&self, backend: &Arc<Backend>, is_trial: bool) -> Result<Asked, Failure> {
        // Otherwise requests go first; a later check asks again.
        let permit = backend.admission.try_enter();
        if permit.is_none() && !is_trial {
            return Ok(Asked::NotNow);
        }
        let snapshot = self.runtime.current();
        if snapshot.chains.of_backend(&backend.config.name).is_none() {
            return Ok(Asked::NotNow);
        }
        backend.status.asks_plan();
        let Some(mut asking) = self.open(backend, Question::Introduction).await? else {
            return Ok(Asked::NoQuestion);
        };
        let launch = asking.launch(backend)?;
        let started = match is_trial {
            true => {
                self.pool
                    .start(&launch, Instant::now() + TRIAL_PATIENCE)
                    .await
            }
            false => self.pool.try_start(&launch),
        };
        let process = match started {
            Err(NoProcess::Full) => return Ok(Asked::NotNow),
            started => started.map_err(|error| no_process(backend, error))?,
        };
        let (name, pid) = (&backend.config.name, process.id());
        tracing::debug!(backend = %name, pid, "a process is asked what it offers");
        let (process, told) = self.ask(backend, asking, process).await?;
        let mut reports = told?.reports;
        if let Some(asking) = self.open(backend, Question::Plan).await? {
            let (_, told) = self.ask(backend, asking, process).await?;
            reports.extend(told.map(|told| told.reports).unwrap_or_default());
        }
        drop(permit);
        Ok(Asked::Told(reports))
    }

    /// Asks for the plans that are due. `is_asked` is whether somebody wants to know them.
    async fn ask_plans(&self, is_asked: bool) {
        let snapshot = self.runtime.current();
        for backend in &snapshot.backends {
            if backend.is_real()
                && backend.config.launch.plan_windows
                && backend.status.wants_plan(is_asked)
                && let Err(failure) = self.ask_plan(backend).await
            {
                let name = &backend.config.name;
                tracing::debug!(backend = %name, "it did not tell its plan: {}", failure.message);
            }
        }
    }

    /// Asks an idle process for the plan, if one is there.
    async fn ask_plan(&self, backend: &Arc<Backend>) -> Result<(), Failure> {
        let Some(lent) = self.pool.lend(&backend.config.name) else {
            return Ok(());
        };
        backend.status.asks_plan();
        let asking = match self.open(backend, Question::Plan).await {
            Ok(Some(asking)) => asking,
            Ok(None) => {
                self.pool.give_back(lent);
                return Ok(());
            }
            Err(failure) => {
                self.pool.give_back(lent);
                return Err(failure);
            }
        };
        let (lent, told) = self.ask(backend, asking, lent).await?;
        match &told {
            Ok(told) if told.is_complete => self.pool.give_back(lent),
            // An answer that is still to come must not become part of a request's.
            _ => self.pool.give_up(lent),
        }
        for report in told?.reports {
            backend.status.observe(report, Reporter::Probe);
        }
        Ok(())
    }

    /// Opens a session with a question. None if the adapter has none like it, or does not serve.
    async fn open(
        &self,
        backend: &Arc<Backend>,
        question: Question,
    ) -> Result<Option<Asking>, Failure> {
        let snapshot = self.runtime.current();
        let Some(chain) = snapshot.chains.of_backend(&backend.config.name) else {
            return Ok(None);
        };
        let adapter = chain.adapter.clone();
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
        let standing = adapter.guest.standing();
        let probing = async move {
            let guest = adapter.guest.clone();
            let broken = |error: GuestError| guest_failure(&guest, &error);
            let opened = AdapterSession::probe(adapter, &context, question);
            let Some(mut session) = opened.map_err(broken)? else {
                return Ok(None);
            };
            // Only a fresh process is launched for the session.
            let options = match question {
                Question::Introduction => session.launch_options().map_err(broken)?,
                Question::Plan => Vec::new(),
            };
            Ok(Some(Asking { session, options }))
        };
        self.lanes.run(standing, probing).await
    }

    /// Asks, and returns the process with what came of it.
    async fn ask<P: AsMut<Process> + Send + 'static>(
        &self,
        backend: &Arc<Backend>,
        asking: Asking,
        mut process: P,
    ) -> Result<(P, Result<Told, Failure>), Failure> {
        let (backend, mut session) = (backend.clone(), asking.session);
        let standing = session.guest().standing();
        let asking = async move {
            let told = question::ask(&backend, &mut session, process.as_mut()).await;
            Ok((process, told))
        };
        self.lanes.run(standing, asking).await
    }
}

/// What came of asking a fresh process.
enum Asked {
    Told(Vec<Report>),
    /// The adapter has no such question.
    NoQuestion,
    /// There is no room, or the adapter is not there yet.
    NotNow,
}

/// Whether a backend has introduced itself.
enum Introduced {
    /// It has, or it never does.
    Yes,
    NotNow,
}

/// A session with a question.
struct Asking {
    session: AdapterSession,
    options: Vec<(String, String)>,
}

impl Asking {
    /// How the process is started that is asked.
    fn launch(&mut self, backend: &Backend) -> Result<Arc<Launch>, Failure> {
        let model = backend.config.launch.profile.probe_model;
        let launch = backend.launch(model, &self.options);
        launch.map_err(|why| {
            let error = GuestError::Contract(why.to_string());
            guest_failure(self.session.guest(), &error)
        })
    }
}
