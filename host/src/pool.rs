//! Idle processes: warm ones, started ahead of a request, and parked ones, which hold a conversation.
//!
//! ```text
//! request ──► take ──► the parked one that shares the longest beginning with its conversation
//!               └────► else a warm one with the same launch        start ──► else a new one
//! answer  ──► park (for a while)                             maintain ──► starts warm ones, ends the old and the dead
//! question ─► lend ──► give back
//! ```
//!
//! A process serves one caller. Between two conversations, what differs is taken back, so that the process holds what a
//! fresh one would hold. All processes together are never more than `max_processes`; idle ones never hold more than
//! `warm_memory`. A request that needs a slot gets it from an idle process.

mod auto;
mod demand;
mod held;
mod idle;
mod prewarm;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use basics::blocking;
use guests::completion::Resumption;
use parking_lot::Mutex;
use processes::{Process, Processes, Slot, SpawnError};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::backends::launch::{Launch, PoolPolicy, Warm};
use crate::telemetry::names;
pub(crate) use held::{Held, Key, Refusal, Sought};
use idle::{Evicted, IdleSet, Taken};

/// An idle process that was lent.
pub(crate) type Lent = idle::Lent<Process>;

/// Delay before the pool evicts another idle process while a request waits for a slot. A process ends
/// within 30 to 600 ms.
const EVICTION_INTERVAL: Duration = Duration::from_millis(700);

/// A process for a request.
pub(crate) struct Acquired {
    pub(crate) process: Process,
    pub(crate) origin: ProcessOrigin,
    /// How the adapter goes on with the conversation that the process holds, if it was parked.
    pub(crate) resumption: Option<Resumption>,
    /// How many requests it has served before.
    pub(crate) served: u32,
    /// What it means if it does not take back what it is asked to. None if it is not asked.
    pub(crate) refusal: Option<Refusal>,
}

impl Acquired {
    /// A process that was started for the request.
    pub(crate) fn new(process: Process) -> Self {
        Acquired {
            process,
            origin: ProcessOrigin::New,
            resumption: None,
            served: 0,
            refusal: None,
        }
    }
}

/// Where a request's process came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessOrigin {
    /// Started for the request.
    New,
    /// Started ahead.
    Warm,
    /// It was parked after an earlier turn, and holds the conversation.
    Kept,
    /// It was parked, and some of what it held was taken back.
    Rewound,
}

impl ProcessOrigin {
    /// Its name in the metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ProcessOrigin::New => "new",
            ProcessOrigin::Warm => "warm",
            ProcessOrigin::Kept => "kept",
            ProcessOrigin::Rewound => "rewound",
        }
    }
}

/// Why a request gets no process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoProcess {
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("the limit on processes is reached (`max_processes`)")]
    Full,
}

/// The idle processes, and how to start others.
pub(crate) struct Pool {
    processes: Arc<Processes>,
    /// Used through [`Pool::with`] only.
    idle: Mutex<IdleSet>,
    /// Wakes [`Pool::maintain`].
    changed: Notify,
    /// How many requests wait for their first token. They delay each warm start, but only for a limited time.
    awaiting_first_token: AtomicUsize,
    /// How many requests wait for a slot.
    waiting_for_slot: AtomicUsize,
    /// Held by a request that takes several processes, until it has them.
    turn: tokio::sync::Mutex<()>,
}

/// The turn of a request that takes several processes.
pub(crate) type Turn<'a> = tokio::sync::MutexGuard<'a, ()>;

/// Counts a request as waiting for its first token, until this is dropped.
pub(crate) struct AwaitingFirstToken(Arc<Pool>);

/// Counts a process as serving, until this is dropped.
pub(crate) struct Serving(Arc<Pool>, Arc<Launch>);

impl Pool {
    /// An empty pool. [`Pool::maintain`] must run as a task.
    pub(crate) fn new(processes: Arc<Processes>, memory: u64) -> Arc<Self> {
        Arc::new(Pool {
            processes,
            idle: Mutex::new(IdleSet::new(memory)),
            changed: Notify::new(),
            awaiting_first_token: AtomicUsize::new(0),
            waiting_for_slot: AtomicUsize::new(0),
            turn: tokio::sync::Mutex::new(()),
        })
    }

    /// An idle process for a request: a parked one that can go on with its conversation, else a warm one.
    pub(crate) fn take(&self, launch: &Arc<Launch>, sought: Option<&Sought>) -> Option<Acquired> {
        let (mut found, unfit) = self.with(|idle| idle.take(launch, sought));
        unfit.end();
        self.changed.notify_one();
        if let Some((process, _)) = &mut found {
            process.is_killed_at_end(false);
        }
        Some(match found? {
            (process, Taken::Warm) => Acquired {
                origin: ProcessOrigin::Warm,
                ..Acquired::new(process)
            },
            (process, Taken::Parked(held, fit)) => Acquired {
                process,
                origin: match fit.rewinds {
                    0 => ProcessOrigin::Kept,
                    _ => ProcessOrigin::Rewound,
                },
                served: held.served,
                refusal: held.refusal(fit),
                resumption: Some(held.resumption(fit)),
            },
        })
    }

    /// Lends an idle process of a backend, for a question that changes nothing of what it holds. None if none is there.
    pub(crate) fn lend(&self, backend: &str) -> Option<Lent> {
        let (lent, unfit) = self.with(|idle| idle.lend(backend));
        unfit.end();
        lent
    }

    /// Takes back a process that was lent. Ends it if there is no use for it any more.
    pub(crate) fn give_back(&self, lent: Lent) {
        self.with(|idle| idle.give_back(lent)).end();
        self.changed.notify_one();
    }

    /// A process that was lent is of no use any more.
    pub(crate) fn give_up(&self, lent: Lent) {
        self.with(|idle| idle.give_up(lent)).end();
        self.changed.notify_one();
    }

    /// Waits for the turn to take several processes. Only one request at a time has it: two requests that each
    /// had some of the processes they need would wait for each other for ever.
    pub(crate) async fn turn(&self, deadline: Instant) -> Result<Turn<'_>, NoProcess> {
        let turn = tokio::time::timeout_at(deadline, self.turn.lock());
        turn.await.map_err(|_| NoProcess::Full)
    }

    /// Starts a process; evicts an idle one if there is no slot.
    pub(crate) async fn start(
        &self,
        launch: &Launch,
        deadline: Instant,
    ) -> Result<Process, NoProcess> {
        let slot = self.slot(deadline).await;
        if !blocking::is_allowed_here() {
            return self.spawn(launch, slot);
        }
        // Threads that run guests from files have a low priority, which the process must not inherit.
        let slot = slot.ok_or(NoProcess::Full)?;
        let (processes, line) = (self.processes.clone(), launch.line.clone());
        let reading = launch.reading;
        let started = self
            .processes
            .on_runtime(async move { processes.spawn(&line, reading, slot) });
        counted(launch, started.await)
    }

    /// Starts a process if there is a slot now.
    pub(crate) fn try_start(&self, launch: &Launch) -> Result<Process, NoProcess> {
        self.spawn(launch, self.processes.try_slot())
    }

    fn spawn(&self, launch: &Launch, slot: Option<Slot>) -> Result<Process, NoProcess> {
        let slot = slot.ok_or(NoProcess::Full)?;
        let started = self.processes.spawn(&launch.line, launch.reading, slot);
        counted(launch, started)
    }

    async fn slot(&self, deadline: Instant) -> Option<Slot> {
        if let Some(slot) = self.processes.try_slot() {
            return Some(slot);
        }
        // While a request waits for a slot, nothing is parked, and idle processes are evicted.
        let _wanting = Counted::new(&self.waiting_for_slot);
        let wanted = self.waiting_for_slot.load(Ordering::Relaxed);
        for _ in self.processes.endings()..wanted {
            self.evict();
        }
        let mut slot = pin!(self.processes.slot());
        loop {
            let again = (Instant::now() + EVICTION_INTERVAL).min(deadline);
            if let Ok(slot) = tokio::time::timeout_at(again, &mut slot).await {
                return slot;
            }
            if Instant::now() >= deadline {
                return None;
            }
            // Still none: nothing was idle, the evicted process has not ended yet, or another request took its
            // slot.
            self.evict();
        }
    }

    /// Ends one idle process: the one that was parked longest ago, or else a warm one (see [`IdleSet::evict`]).
    fn evict(&self) {
        self.with(IdleSet::evict).end();
    }

    /// Whether any parked process has this launch.
    pub(crate) fn parks(&self, launch: &Launch) -> bool {
        self.with(|idle| idle.parks(launch))
    }

    /// Whether the current configuration still starts the backend's processes like this.
    pub(crate) fn is_current(&self, launch: &Launch) -> bool {
        self.with(|idle| idle.demand().policy(launch).is_some())
    }

    /// Whether processes with this launch are parked after an answer.
    pub(crate) fn may_park(&self, launch: &Launch) -> bool {
        self.with(|idle| idle.parks_for(launch).is_some())
    }

    /// Parks a process whose answer is complete. Ends it if there is no room, or if a request waits for a
    /// slot.
    pub(crate) fn park(&self, launch: Arc<Launch>, mut process: Process, held: Held) {
        // The end of its input would be a result for Claude Code, with which it would ask the API again.
        process.is_killed_at_end(held.is_awaiting());
        let evicted = self.with(|idle| {
            // Read under the lock: a request that wants a slot either sees the parked process, or is counted here.
            match self.waiting_for_slot.load(Ordering::Relaxed) {
                0 => idle.park(launch, process, held),
                _ => Evicted::one(process),
            }
        });
        evicted.end();
    }

    /// A warm process could not be started, or had ended before it was wanted: the next one is started after a
    /// pause.
    pub(crate) fn record_failure(&self, launch: &Launch) {
        self.with(|idle| idle.demand().record_failure(launch));
    }

    /// A process that had been idle answered: the pause is reset.
    pub(crate) fn record_success(&self, launch: &Launch) {
        self.with(|idle| idle.demand().record_success(launch));
    }

    /// Processes with this launch take nothing back: they say so themselves.
    pub(crate) fn record_inability(&self, launch: &Launch) {
        for refusal in [
            Refusal::Waiting,
            Refusal::First,
            Refusal::Later,
            Refusal::Later,
        ] {
            self.record_refusal(launch, refusal);
        }
    }

    /// A process with this launch did not take back what it was asked to. Others like it are not asked again.
    pub(crate) fn record_refusal(&self, launch: &Launch, refusal: Refusal) {
        self.with(|idle| idle.record_refusal(launch, refusal));
    }

    /// Ends a backend's idle processes, and starts none ahead until [`Pool::resume`]. For a backend whose
    /// program is missing or not logged in: processes that run already would not notice a new login.
    pub(crate) fn suspend(&self, backend: &str) {
        self.with(|idle| idle.suspend(backend)).end();
    }

    /// Starts processes of a backend ahead again.
    pub(crate) fn resume(&self, backend: &str) {
        if self.with(|idle| idle.demand().resume(backend)) {
            self.changed.notify_one();
        }
    }

    /// Applies a configuration: the launches that are kept warm even if unused, the policy of each backend, and
    /// the memory for idle processes, in bytes. Ends idle processes that it would start differently.
    pub(crate) fn configure(
        &self,
        launches: &[Arc<Launch>],
        policy: BTreeMap<String, PoolPolicy>,
        memory: u64,
    ) {
        self.with(|idle| idle.configure(launches, policy, memory))
            .end();
        self.changed.notify_one();
    }

    /// Ends all idle processes, and starts none ahead any more.
    pub(crate) fn close(&self) {
        self.with(IdleSet::close).end();
    }

    /// How many idle processes a backend has: warm, and parked.
    pub(crate) fn count(&self, backend: &str) -> (usize, usize) {
        self.with(|idle| idle.count(backend))
    }

    /// Counts a request as waiting for its first token, until the result is dropped.
    pub(crate) fn awaiting_first_token(self: &Arc<Self>) -> AwaitingFirstToken {
        self.awaiting_first_token.fetch_add(1, Ordering::Relaxed);
        AwaitingFirstToken(self.clone())
    }

    /// Counts a process with this launch as serving, until the result is dropped.
    pub(crate) fn serving(self: &Arc<Self>, launch: &Arc<Launch>) -> Serving {
        self.with(|idle| idle.demand().begins(launch));
        Serving(self.clone(), launch.clone())
    }

    /// Reads or changes the idle processes. Processes leave as [`Evicted`], and so end outside the lock.
    fn with<T>(&self, change: impl FnOnce(&mut IdleSet) -> T) -> T {
        change(&mut self.idle.lock())
    }

    /// Starts a warm process if there is a slot. True if it started.
    fn start_ahead(&self, launch: &Arc<Launch>) -> bool {
        if !launch.installation.is_ready(&launch.line.program) {
            return false;
        }
        match self.try_start(launch) {
            Ok(process) => {
                tracing::debug!(
                    backend = launch.backend,
                    pid = process.id(),
                    "a process was started ahead"
                );
                self.with(|idle| idle.add(launch, process)).end();
                true
            }
            Err(NoProcess::Full) => false,
            Err(error) => {
                tracing::debug!(backend = launch.backend, %error, "no process was started ahead");
                self.record_failure(launch);
                false
            }
        }
    }

    /// Whether another warm process fits; evicts idle ones of less recent use for it.
    fn make_room(&self, launch: &Launch) -> bool {
        let evicted = self.with(|idle| idle.make_room(launch));
        evicted.map(Evicted::end).is_some()
    }
}

/// Counts a start, and what came of it.
fn counted(launch: &Launch, started: Result<Process, SpawnError>) -> Result<Process, NoProcess> {
    let outcome = if started.is_ok() { "started" } else { "failed" };
    let backend = launch.backend.clone();
    metrics::counter!(names::STARTS, "backend" => backend, "outcome" => outcome).increment(1);
    Ok(started?)
}

/// Adds one to a counter until this is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.with(|idle| idle.demand().ends(&self.1));
    }
}

impl Drop for AwaitingFirstToken {
    fn drop(&mut self) {
        if self.0.awaiting_first_token.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.changed.notify_one();
        }
    }
}
