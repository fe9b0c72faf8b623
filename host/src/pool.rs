//! Processes that wait for a request: started ahead of it, or left by a conversation that may go on.
//!
//! ```text
//! request ──► acquire ──► kept, if it holds just this conversation
//!                 ├───► warm, if one waits behind the same launch line
//!                 └───► new
//! answer  ──► keep, for a while          tend ──► starts warm ones, ends the old and the dead
//! ```
//!
//! A process serves one request, or requests of one caller that each go on where the last one
//! ended. All processes together are never more than `max_processes`; those that wait never hold
//! more than `warm_memory`. What a request needs goes before what waits.

mod demand;
mod idle;
mod prewarm;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::backends::launch::{Launch, PoolPolicy};
use crate::blocking;
use crate::processes::{Process, Processes, Slot, SpawnError};
use crate::telemetry::names;
use idle::IdleSet;

/// How long a request that wants a place waits for one that was given up for it, before another one is.
/// A process ends within 30 to 600 ms.
const GIVE_UP_AGAIN: Duration = Duration::from_millis(700);

/// Names a conversation that a process holds: a digest of all of it, and of who may go on with it.
pub(crate) type ConversationKey = [u8; 32];

/// A conversation in a process that waits.
pub(crate) struct Parked {
    pub(crate) conversation: ConversationKey,
    /// What the adapter wants to know when it goes on.
    pub(crate) memo: String,
}

/// A process for a request.
pub(crate) struct Acquired {
    pub(crate) process: Process,
    pub(crate) origin: ProcessOrigin,
    /// What the adapter left for whoever goes on with the conversation.
    pub(crate) memo: Option<String>,
}

impl Acquired {
    /// One that was started for the request.
    pub(crate) fn new(process: Process) -> Self {
        Acquired {
            process,
            origin: ProcessOrigin::New,
            memo: None,
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
    /// It holds the conversation.
    Kept,
}

impl ProcessOrigin {
    /// Its name in the metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ProcessOrigin::New => "new",
            ProcessOrigin::Warm => "warm",
            ProcessOrigin::Kept => "kept",
        }
    }
}

/// A request for which no process can be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoProcess {
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("as many processes run as may (`max_processes`)")]
    Full,
}

/// The processes that wait, and the way to have others.
pub(crate) struct Pool {
    processes: Arc<Processes>,
    waiting: Mutex<IdleSet>,
    /// Something changed for whoever tends it.
    changed: Notify,
    /// Requests that wait for the first piece of their answer.
    awaiting_first_token: AtomicUsize,
    /// Requests that wait for a place among all processes.
    waiting_for_slot: AtomicUsize,
    /// Parked by a request that takes several processes, until it has them.
    turn: tokio::sync::Mutex<()>,
}

/// A request's turn to take several processes.
pub(crate) type Turn<'a> = tokio::sync::MutexGuard<'a, ()>;

/// A request that waits for the first piece of its answer: nothing is started ahead meanwhile.
pub(crate) struct AwaitingFirstToken(Arc<Pool>);

impl Pool {
    /// An empty pool, to be tended by [`Pool::maintain`].
    pub(crate) fn new(processes: Arc<Processes>, memory: u64) -> Arc<Self> {
        Arc::new(Pool {
            processes,
            waiting: Mutex::new(IdleSet::new(memory)),
            changed: Notify::new(),
            awaiting_first_token: AtomicUsize::new(0),
            waiting_for_slot: AtomicUsize::new(0),
            turn: tokio::sync::Mutex::new(()),
        })
    }

    /// A process for a request: the one that holds its conversation, or a warm one, or a new one.
    pub(crate) async fn acquire(
        &self,
        launch: &Arc<Launch>,
        conversation: Option<&ConversationKey>,
        deadline: Instant,
    ) -> Result<Acquired, NoProcess> {
        let found = self.waiting().take(launch, conversation);
        self.changed.notify_one();
        match found {
            Some(claimed) => Ok(claimed),
            None => self.start(launch, deadline).await.map(Acquired::new),
        }
    }

    /// Waits for the turn to take several processes. They are taken one by one, and two requests that
    /// each had some of theirs would wait for one another.
    pub(crate) async fn turn(&self, deadline: Instant) -> Result<Turn<'_>, NoProcess> {
        let turn = tokio::time::timeout_at(deadline.into(), self.turn.lock());
        turn.await.map_err(|_| NoProcess::Full)
    }

    /// A new process, for which another one that waits has to go if there are too many.
    pub(crate) async fn start(
        &self,
        launch: &Launch,
        deadline: Instant,
    ) -> Result<Process, NoProcess> {
        let slot = self.slot(deadline).await;
        if !blocking::is_allowed_here() {
            return self.spawn(launch, slot);
        }
        // Where guests of others run, threads give way to all others; the process shall not inherit that.
        let slot = slot.ok_or(NoProcess::Full)?;
        let (processes, line) = (self.processes.clone(), launch.line.clone());
        let reading = launch.reading;
        let started = self
            .processes
            .on_runtime(async move { processes.spawn(&line, reading, slot) });
        counted(launch, started.await)
    }

    /// A new process, if there is room for another one at this moment.
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
        // As long as somebody wants a place, no process is kept, and those that wait go.
        let _wanting = Counted::new(&self.waiting_for_slot);
        let wanted = self.waiting_for_slot.load(Ordering::Relaxed);
        for _ in self.processes.endings()..wanted {
            self.evict();
        }
        let mut slot = pin!(self.processes.slot());
        loop {
            let again = (Instant::now() + GIVE_UP_AGAIN).min(deadline);
            if let Ok(slot) = tokio::time::timeout_at(again.into(), &mut slot).await {
                return slot;
            }
            if Instant::now() >= deadline {
                return None;
            }
            // What was ending parked no place, or another request had it.
            self.evict();
        }
    }

    /// Ends one of those that wait.
    fn evict(&self) {
        let given_up = self.waiting().evict();
        drop(given_up);
    }

    /// Whether some process holds a conversation behind this launch line.
    pub(crate) fn holds_any(&self, launch: &Launch) -> bool {
        self.waiting().holds_any(launch)
    }

    /// Whether the backend's processes are still started like this.
    pub(crate) fn is_current(&self, launch: &Launch) -> bool {
        self.waiting().lines().policy(launch).is_some()
    }

    /// Whether processes of this kind are kept after an answer.
    pub(crate) fn keeps(&self, launch: &Launch) -> bool {
        self.waiting().keeps_for(launch).is_some()
    }

    /// Keeps a process whose answer is complete, as long as there is room and time.
    pub(crate) fn keep(&self, launch: Arc<Launch>, process: Process, parked: Parked) {
        let mut waiting = self.waiting();
        // Looked at under the lock: whoever wants a place now sees what is kept, or is seen here.
        let surplus = match self.waiting_for_slot.load(Ordering::Relaxed) {
            0 => waiting.keep(launch, process, parked),
            _ => vec![process],
        };
        drop(waiting);
        drop(surplus);
    }

    /// A process that had waited ended when it was wanted.
    pub(crate) fn failed(&self, launch: &Launch) {
        self.waiting().lines().failed(launch);
    }

    /// A process that had waited answered.
    pub(crate) fn record_success(&self, launch: &Launch) {
        self.waiting().lines().record_success(launch);
    }

    /// A backend is not logged in or not there: what waits for it ends, because it would not see that
    /// this was mended, and nothing is started ahead until [`Pool::resume`].
    pub(crate) fn suspend(&self, backend: &str) {
        self.waiting().lines().suspend(backend);
        let ended = self.waiting().take_all(backend);
        drop(ended);
    }

    /// A backend can serve.
    pub(crate) fn resume(&self, backend: &str) {
        if self.waiting().lines().resume(backend) {
            self.changed.notify_one();
        }
    }

    /// The launch lines that are kept warm whether or not they are used, what holds for each backend,
    /// and the memory that processes may hold while they wait, in bytes. What was started otherwise
    /// ends, and nothing waits for longer than it may now.
    pub(crate) fn configure(
        &self,
        lines: &[Arc<Launch>],
        policy: BTreeMap<String, PoolPolicy>,
        memory: u64,
    ) {
        let outdated = self.waiting().configure(lines, policy, memory);
        drop(outdated);
        self.changed.notify_one();
    }

    /// Ends all that waits, and starts nothing ahead any more.
    pub(crate) fn close(&self) {
        let ended = self.waiting().close();
        drop(ended);
    }

    /// How many processes wait for a backend's requests: warm, and kept for a conversation.
    pub(crate) fn count(&self, backend: &str) -> (usize, usize) {
        self.waiting().count(backend)
    }

    /// A request waits for the first piece of its answer, until this is dropped.
    pub(crate) fn awaiting_first_token(self: &Arc<Self>) -> AwaitingFirstToken {
        self.awaiting_first_token.fetch_add(1, Ordering::Relaxed);
        AwaitingFirstToken(self.clone())
    }

    fn waiting(&self) -> MutexGuard<'_, IdleSet> {
        self.waiting.lock()
    }

    /// Starts a process ahead, if there is room for it and it does not fail. True if it started.
    fn start_ahead(&self, launch: &Arc<Launch>) -> bool {
        match self.try_start(launch) {
            Ok(process) => {
                tracing::debug!(
                    backend = launch.backend,
                    pid = process.id(),
                    "a process was started ahead"
                );
                let surplus = self.waiting().add(launch, process);
                drop(surplus);
                true
            }
            Err(NoProcess::Full) => false,
            Err(error) => {
                tracing::debug!(backend = launch.backend, %error, "no process was started ahead");
                self.failed(launch);
                false
            }
        }
    }

    /// Whether another process may wait behind this launch line; makes room for it.
    fn make_room(&self, launch: &Launch) -> bool {
        let given_up = self.waiting().make_room(launch);
        given_up.is_some()
    }
}

/// Counts a start, and what came of it.
fn counted(launch: &Launch, started: Result<Process, SpawnError>) -> Result<Process, NoProcess> {
    let outcome = if started.is_ok() { "started" } else { "failed" };
    let backend = launch.backend.clone();
    metrics::counter!(names::STARTS, "backend" => backend, "outcome" => outcome).increment(1);
    Ok(started?)
}

/// Counts something as long as it is there.
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

impl Drop for AwaitingFirstToken {
    fn drop(&mut self) {
        if self.0.awaiting_first_token.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.changed.notify_one();
        }
    }
}
