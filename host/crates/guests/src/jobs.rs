//! Admissions that are queued or run, on threads of their own: compiling may take long.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use super::admit::{Candidate, Guest, GuestSource, Judges, Refused, admit};
use super::cache::Cache;
use super::engine::Engine;
use crate::settings::GuestConfig;

/// How many admissions run at once.
const JOBS_AT_ONCE: usize = 2;

/// Called with the result of each admission, on its thread.
pub type OnAdmitted = Arc<dyn Fn(Admitted) + Send + Sync>;

/// A component that is to be admitted.
#[derive(Clone)]
struct Job {
    ticket: u64,
    settings: GuestConfig,
    component: Arc<[u8]>,
    origin: GuestSource,
    /// The folder with its cases.
    cases: Option<PathBuf>,
}

/// What became of a component.
pub struct Admitted {
    ticket: u64,
    pub(super) name: String,
    pub(super) origin: GuestSource,
    pub(super) component: Arc<[u8]>,
    pub(super) result: Result<Guest, Refused>,
}

/// The admissions.
pub(super) struct Jobs {
    engine: Engine,
    cache: Arc<Cache>,
    on_admitted: OnAdmitted,
    judges: Judges,
    queue: VecDeque<Job>,
    running: usize,
    /// The latest job of each name.
    latest: BTreeMap<String, u64>,
    tickets: u64,
    /// A thread could not be started, which was logged.
    lacks_threads: bool,
}

impl Jobs {
    pub(super) fn new(
        engine: Engine,
        cache: Cache,
        judges: Judges,
        on_admitted: OnAdmitted,
    ) -> Self {
        Jobs {
            engine,
            cache: Arc::new(cache),
            on_admitted,
            judges,
            queue: VecDeque::new(),
            running: 0,
            latest: BTreeMap::new(),
            tickets: 0,
            lacks_threads: false,
        }
    }

    /// Admits a component here and now.
    pub(super) fn admit(&self, candidate: &Candidate<'_>) -> Result<Guest, Refused> {
        admit(&self.engine, &self.cache, candidate, self.judges)
    }

    /// Queues the admission of a component, in place of any other one of its name.
    pub(super) fn enqueue(
        &mut self,
        settings: GuestConfig,
        component: Arc<[u8]>,
        origin: GuestSource,
        cases: Option<PathBuf>,
    ) {
        self.tickets += 1;
        self.latest.insert(settings.name.clone(), self.tickets);
        self.queue.retain(|job| job.settings.name != settings.name);
        self.queue.push_back(Job {
            ticket: self.tickets,
            settings,
            component,
            origin,
            cases,
        });
        self.start();
    }

    /// Forgets the admission that is queued or runs under this name.
    pub(super) fn cancel(&mut self, name: &str) {
        self.latest.remove(name);
        self.queue.retain(|job| job.settings.name != name);
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.latest.contains_key(name)
    }

    /// The names whose admission is queued or runs.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.latest.keys()
    }

    /// Takes note that an admission is over. True if it still counts: its file and settings are as they were.
    pub(super) fn is_over(&mut self, admitted: &Admitted) -> bool {
        self.running -= 1;
        let counts = self.latest.get(&admitted.name) == Some(&admitted.ticket);
        if counts {
            self.latest.remove(&admitted.name);
        }
        self.start();
        counts
    }

    /// Starts as many queued admissions as may run at once.
    pub(super) fn start(&mut self) {
        while self.running < JOBS_AT_ONCE
            && let Some(job) = self.queue.pop_front()
        {
            let (engine, cache) = (self.engine.clone(), self.cache.clone());
            let (judges, on_admitted) = (self.judges, self.on_admitted.clone());
            let again = job.clone();
            let name = job.settings.name.clone();
            let thread = thread::Builder::new().name("guest-admission".into());
            let started = thread.spawn(move || {
                let candidate = Candidate::new(&job.component, job.origin, &job.settings)
                    .with_cases(job.cases.as_deref());
                let result = admit(&engine, &cache, &candidate, judges);
                on_admitted(Admitted {
                    ticket: job.ticket,
                    origin: job.origin,
                    name: job.settings.name,
                    component: job.component,
                    result,
                });
            });
            match started {
                Ok(_) => {
                    self.running += 1;
                    self.lacks_threads = false;
                    tracing::info!(guest = %name, "a guest is being compiled and tried");
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.lacks_threads, true) {
                        tracing::error!(%error, "cannot start a thread to load a guest; it is tried again");
                    }
                    return self.queue.push_front(again);
                }
            }
        }
    }
}
