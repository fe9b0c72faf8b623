//! The idle processes: which may be taken, and which are evicted.
//!
//! A process comes in warm or parked and leaves by one of two ways: it is taken for a request, or it is
//! [`Evicted`] and ends. Nothing here waits, so that a lock can be held around each call.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use processes::Process;
use tokio::time::Instant;

use super::demand::Demand;
use super::held::{Fit, Held, Refusal, Refused, Sought};
use super::{Launch, PoolPolicy};

/// How often the memory of an idle process is measured.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A parked process is retired after so many requests, or when its memory is so many times that of an idle one.
const REQUESTS_MAX: u32 = 500;
const GROWTH_MAX: u64 = 3;

/// When a new process is first measured. By then its memory has grown to its idle size.
const START_DURATION: Duration = Duration::from_secs(3);

/// What the set needs of a process. A trait, so that tests can use a fake.
pub(super) trait Idles {
    /// Its process id.
    fn id(&self) -> i32;
    /// Whether it runs, is not stopped, and has read everything that was written to it.
    fn is_sound(&self) -> bool;
    /// Memory that it holds, in bytes.
    fn resident(&self) -> Option<u64>;
    /// Drops what it has printed and nobody has read; false if that is not possible.
    fn drop_output(&mut self) -> bool;
}

impl Idles for Process {
    fn id(&self) -> i32 {
        self.id()
    }

    fn is_sound(&self) -> bool {
        self.is_sound()
    }

    fn resident(&self) -> Option<u64> {
        self.resident()
    }

    fn drop_output(&mut self) -> bool {
        self.drop_output()
    }
}

/// Why a process is idle.
pub(super) enum State {
    /// It was started ahead, and was told nothing.
    Warm,
    /// It holds a conversation.
    Parked(Held),
}

/// How a process comes out of the set.
pub(super) enum Taken {
    /// It was told nothing.
    Warm,
    /// It holds this, and fits a request like this.
    Parked(Held, Fit),
}

struct Idle<P> {
    process: P,
    state: State,
    launch: Arc<Launch>,
    since: Instant,
    until: Instant,
    /// Its memory when it was last measured, in bytes.
    size: u64,
    measure_at: Instant,
}

impl<P> Idle<P> {
    fn is_warm(&self) -> bool {
        matches!(self.state, State::Warm)
    }
}

/// A process that was lent. It must come back.
#[must_use = "the pool counts on its return"]
pub(crate) struct Lent<P>(Idle<P>);

impl<P> AsMut<P> for Lent<P> {
    fn as_mut(&mut self) -> &mut P {
        &mut self.0.process
    }
}

/// Processes taken out of the set, to be ended. Ending them may take a moment, so drop this outside the lock.
#[must_use = "they end where this is dropped, which must be outside the lock"]
pub(super) struct Evicted<P>(Vec<P>);

impl<P> Evicted<P> {
    pub(super) fn one(process: P) -> Self {
        Evicted(vec![process])
    }

    pub(super) fn none() -> Self {
        Evicted(Vec::new())
    }

    /// Ends them.
    pub(super) fn end(self) {
        drop(self.0);
    }
}

/// All idle processes, and the demand for them.
pub(super) struct IdleSet<P = Process> {
    /// The memory that all of them may have together, in bytes.
    memory: u64,
    demand: Demand,
    processes: Vec<Idle<P>>,
    /// The launches of warm processes that are lent.
    lent: Vec<Arc<Launch>>,
    /// What processes of a backend, started like this, have refused to take back.
    refused: BTreeMap<(String, u64), Refused>,
    closed: bool,
}

impl<P: Idles> IdleSet<P> {
    pub(super) fn new(memory: u64) -> Self {
        IdleSet {
            memory,
            demand: Demand::default(),
            processes: Vec::new(),
            lent: Vec::new(),
            refused: BTreeMap::new(),
            closed: false,
        }
    }

    /// Takes the parked process that fits best, else the oldest warm one. What turns out to have ended is evicted.
    pub(super) fn take(
        &mut self,
        launch: &Arc<Launch>,
        sought: Option<&Sought>,
    ) -> (Option<(P, Taken)>, Evicted<P>) {
        self.demand.used(launch);
        let mut unfit = Evicted::none();
        while let Some((at, fit)) = self.best(launch, sought) {
            let mut idle = self.processes.swap_remove(at);
            let is_sound = idle.process.is_sound();
            if is_sound && idle.until > Instant::now() {
                match (idle.state, fit) {
                    (State::Parked(held), Some(fit)) => {
                        // Output that came after the last answer must not become part of the next one. A process
                        // that waits for results has not ended its turn: what it printed belongs to it.
                        if held.is_awaiting() || idle.process.drop_output() {
                            return (Some((idle.process, Taken::Parked(held, fit))), unfit);
                        }
                    }
                    _ => return (Some((idle.process, Taken::Warm)), unfit),
                }
            } else if idle.is_warm() && !is_sound {
                self.demand.record_failure(launch);
            }
            unfit.0.push(idle.process);
        }
        (None, unfit)
    }

    /// The process to take, and how it fits if it holds something. Of parked ones: the one of which most is kept, then
    /// the one of which least is taken back, then the one that was unused the longest.
    fn best(&self, launch: &Launch, sought: Option<&Sought>) -> Option<(usize, Option<Fit>)> {
        let alike = self.processes.iter().enumerate();
        let alike = alike.filter(|(_, idle)| *idle.launch == *launch);
        let warm = alike.clone().filter(|(_, idle)| idle.is_warm());
        let warm = warm.min_by_key(|(_, idle)| idle.since);
        let refused = self.refused(launch);
        let fitting = alike.filter_map(|(at, idle)| match (&idle.state, sought) {
            (State::Parked(held), Some(sought)) => {
                let fit = held.fit(sought, refused)?;
                // A conversation that has gone on for a while goes on again, more likely than not.
                let is_spared = fit.kept == 0 && held.turns.len() > 1 && warm.is_some();
                (!is_spared).then_some((at, fit, idle.since))
            }
            _ => None,
        });
        let best = fitting
            .min_by_key(|(_, fit, since)| (std::cmp::Reverse(fit.kept), fit.rewinds, *since));
        match best {
            Some((at, fit, _)) => Some((at, Some(fit))),
            None => warm.map(|(at, _)| (at, None)),
        }
    }

    /// Lends the process of a backend that is the least likely to be needed soon: a parked one before a warm one, and
    /// of these the one that was unused the longest. One that waits for results is in the middle of a turn.
    pub(super) fn lend(&mut self, backend: &str) -> (Option<Lent<P>>, Evicted<P>) {
        let mut unfit = Evicted::none();
        loop {
            let is_free = |idle: &Idle<P>| match &idle.state {
                State::Warm => true,
                State::Parked(held) => !held.is_awaiting(),
            };
            let all = self.processes.iter().enumerate();
            let free = all.filter(|(_, idle)| idle.launch.backend == backend && is_free(idle));
            let best = free.min_by_key(|(_, idle)| (idle.is_warm(), idle.since));
            let Some((at, _)) = best else {
                return (None, unfit);
            };
            let mut idle = self.processes.swap_remove(at);
            // What a parked process printed after its last answer is no answer to a question.
            if idle.process.is_sound() && (idle.is_warm() || idle.process.drop_output()) {
                if idle.is_warm() {
                    self.lent.push(idle.launch.clone());
                }
                return (Some(Lent(idle)), unfit);
            }
            unfit.0.push(idle.process);
        }
    }

    /// See [`Pool::give_back`](super::Pool::give_back).
    pub(super) fn give_back(&mut self, lent: Lent<P>) -> Evicted<P> {
        let is_wanted = !self.closed
            && self.demand.is_active(&lent.0.launch.backend)
            && self.demand.policy(&lent.0.launch).is_some()
            && lent.0.process.is_sound();
        if !is_wanted {
            return self.give_up(lent);
        }
        self.returned(&lent);
        self.processes.push(lent.0);
        Evicted::none()
    }

    /// See [`Pool::give_up`](super::Pool::give_up).
    pub(super) fn give_up(&mut self, lent: Lent<P>) -> Evicted<P> {
        self.returned(&lent);
        Evicted::one(lent.0.process)
    }

    fn returned(&mut self, lent: &Lent<P>) {
        let mut launches = self.lent.iter();
        if lent.0.is_warm()
            && let Some(at) = launches.position(|launch| *launch == lent.0.launch)
        {
            self.lent.swap_remove(at);
        }
    }

    /// What processes with this launch have refused to take back.
    fn refused(&self, launch: &Launch) -> Refused {
        let kind = (launch.backend.clone(), launch.revision);
        self.refused.get(&kind).copied().unwrap_or_default()
    }

    /// See [`Pool::record_refusal`](super::Pool::record_refusal).
    pub(super) fn record_refusal(&mut self, launch: &Launch, refusal: Refusal) {
        let kind = (launch.backend.clone(), launch.revision);
        self.refused.entry(kind).or_default().record(refusal);
    }

    /// Whether any parked process has this launch.
    pub(super) fn parks(&self, launch: &Launch) -> bool {
        let mut parked = self.processes.iter().filter(|idle| !idle.is_warm());
        parked.any(|idle| *idle.launch == *launch)
    }

    /// Adds a warm process. Evicts it if there is no demand for it any more.
    pub(super) fn add(&mut self, launch: &Arc<Launch>, process: P) -> Evicted<P> {
        let wanted = !self.closed && self.demand.is_active(&launch.backend);
        let entry = self.demand.get(launch).filter(|_| wanted);
        let (Some(entry), Some(policy)) = (entry, self.demand.policy(launch)) else {
            return Evicted::one(process);
        };
        let now = Instant::now();
        self.processes.push(Idle {
            process,
            state: State::Warm,
            launch: entry.launch.clone(),
            since: now,
            until: now + policy.max_age,
            size: entry.size.unwrap_or(policy.idle_memory),
            // While a process starts, its memory still grows, so it is measured later.
            measure_at: now + START_DURATION,
        });
        Evicted::none()
    }

    /// How long a process with this launch is parked; `None` if it is not.
    pub(super) fn parks_for(&self, launch: &Launch) -> Option<Duration> {
        let time = self.demand.policy(launch)?.continue_for;
        let parks = !self.closed && self.demand.is_active(&launch.backend);
        (parks && !time.is_zero()).then_some(time)
    }

    /// Parks a process. Evicts other parked ones to make room for it. If even that would not be
    /// enough, evicts only the new one.
    pub(super) fn park(&mut self, launch: Arc<Launch>, process: P, held: Held) -> Evicted<P> {
        let usual = self.demand.idle_memory(&launch);
        let size = process.resident().unwrap_or(usual);
        let warm = self.processes.iter().filter(|idle| idle.is_warm());
        let warm: u64 = warm.map(|idle| idle.size).sum();
        let time = self.parks_for(&launch);
        let is_spent = held.served >= REQUESTS_MAX || size > usual.saturating_mul(GROWTH_MAX);
        let Some(time) = time.filter(|_| !is_spent && warm + size <= self.memory) else {
            return Evicted::one(process);
        };
        let mut evicted = Evicted::none();
        while self.memory_used() + size > self.memory {
            // Warm processes stay: any request with their launch can use them.
            match self.oldest_parked() {
                Some(at) => evicted.0.push(self.processes.swap_remove(at).process),
                None => break,
            }
        }
        let now = Instant::now();
        self.processes.push(Idle {
            process,
            state: State::Parked(held),
            launch,
            since: now,
            until: now + time,
            size,
            measure_at: now + POLL_INTERVAL,
        });
        evicted
    }

    fn oldest_parked(&self) -> Option<usize> {
        let parked = self.processes.iter().enumerate();
        let parked = parked.filter(|(_, idle)| !idle.is_warm());
        parked.min_by_key(|(_, idle)| idle.since).map(|(at, _)| at)
    }

    fn memory_used(&self) -> u64 {
        self.processes.iter().map(|idle| idle.size).sum()
    }

    /// Evicts a process for a request that needs a slot: the oldest parked one, else a warm one of the launch
    /// of least recent use.
    pub(super) fn evict(&mut self) -> Evicted<P> {
        let at = self.oldest_parked().or_else(|| self.least_used());
        let process = at.map(|at| self.processes.swap_remove(at).process);
        Evicted(process.into_iter().collect())
    }

    /// The process that was unused the longest.
    fn least_used(&self) -> Option<usize> {
        let all = self.processes.iter().enumerate();
        let oldest = all.min_by_key(|(_, idle)| self.last_used(idle))?;
        Some(oldest.0)
    }

    /// Evicts processes of less recent use until one more with this launch fits. `None` if that is not
    /// enough.
    pub(super) fn make_room(&mut self, launch: &Launch) -> Option<Evicted<P>> {
        let entry = self.demand.get(launch)?;
        let usual = self.demand.idle_memory(launch);
        let (used, size) = (entry.used, entry.size.unwrap_or(usual));
        // A conversation is not given up for one more process that is only like others.
        let has_warm = self.youngest(launch).is_some();
        let is_spared = |idle: &Idle<P>| has_warm && !idle.is_warm() && *idle.launch == *launch;
        let mut lesser: Vec<(Instant, usize)> = (0..self.processes.len())
            .filter(|at| !is_spared(&self.processes[*at]))
            .map(|at| (self.last_used(&self.processes[at]), at))
            .filter(|(last_used, _)| *last_used < used)
            .collect();
        lesser.sort();
        let (mut free, mut going) = (self.memory.saturating_sub(self.memory_used()), Vec::new());
        for (_, at) in lesser {
            if free >= size {
                break;
            }
            free += self.processes[at].size;
            going.push(at);
        }
        if free < size {
            return None;
        }
        // From the back, so that the indices before it stay valid.
        going.sort_by_key(|at| std::cmp::Reverse(*at));
        let take = |at: &usize| self.processes.swap_remove(*at).process;
        Some(Evicted(going.iter().map(take).collect()))
    }

    /// When a process, or its launch, was last used.
    fn last_used(&self, idle: &Idle<P>) -> Instant {
        match (&idle.state, self.demand.get(&idle.launch)) {
            (State::Warm, Some(entry)) => entry.used,
            _ => idle.since,
        }
    }

    /// Evicts what is too old, has ended, or is more than the demand or the memory allows.
    pub(super) fn sweep(&mut self) -> Evicted<P> {
        let now = Instant::now();
        let mut gone = Evicted::none();
        let all = std::mem::take(&mut self.processes);
        for mut idle in all {
            if now > idle.measure_at {
                idle.size = idle.process.resident().unwrap_or(idle.size);
                idle.measure_at = now + POLL_INTERVAL;
                if idle.is_warm() {
                    self.demand.measured(&idle.launch, idle.size);
                }
            }
            let sound = idle.process.is_sound();
            if !sound && idle.is_warm() {
                self.demand.record_failure(&idle.launch);
            }
            if sound && idle.until > now {
                self.processes.push(idle);
            } else {
                gone.0.push(idle.process);
            }
        }
        while self.memory_used() > self.memory {
            match self.oldest_parked().or_else(|| self.least_used()) {
                Some(at) => gone.0.push(self.processes.swap_remove(at).process),
                None => break,
            }
        }
        self.demand.expire(now);
        gone.0.extend(self.take_surplus());
        gone
    }

    /// The warm processes beyond the demand for their launch.
    fn take_surplus(&mut self) -> Vec<P> {
        let (demand, mut seen) = (&self.demand, Vec::new());
        take_out(&mut self.processes, |idle| {
            if !idle.is_warm() {
                return false;
            }
            seen.push(idle.launch.clone());
            let count = seen.iter().filter(|launch| **launch == idle.launch).count();
            count > demand.most(&idle.launch)
        })
    }

    /// The launches that lack a warm process.
    pub(super) fn lacking(&self) -> Vec<Arc<Launch>> {
        if self.closed {
            return Vec::new();
        }
        self.demand.lacking(Instant::now(), |launch| {
            let alike = self.processes.iter().filter(|i| *i.launch == *launch);
            let (warm, parked): (Vec<_>, Vec<_>) = alike.partition(|idle| idle.is_warm());
            let lent = self.lent.iter().filter(|lent| ***lent == *launch);
            (warm.len() + lent.count(), parked.len())
        })
    }

    /// Whether this process is still idle.
    pub(super) fn has(&self, pid: i32) -> bool {
        self.processes.iter().any(|idle| idle.process.id() == pid)
    }

    /// The youngest warm process with this launch.
    pub(super) fn youngest(&self, launch: &Launch) -> Option<i32> {
        let alike = self.processes.iter().filter(|i| *i.launch == *launch);
        let warm = alike.filter(|idle| idle.is_warm());
        let youngest = warm.max_by_key(|idle| idle.since)?;
        Some(youngest.process.id())
    }

    /// The demand.
    pub(super) fn demand(&mut self) -> &mut Demand {
        &mut self.demand
    }

    /// Ends all idle processes of a backend, and starts none ahead until the demand is resumed.
    pub(super) fn suspend(&mut self, backend: &str) -> Evicted<P> {
        self.demand.suspend(backend);
        let of_backend = |idle: &mut Idle<P>| idle.launch.backend == backend;
        Evicted(take_out(&mut self.processes, of_backend))
    }

    /// See [`Pool::configure`](super::Pool::configure).
    pub(super) fn configure(
        &mut self,
        launches: &[Arc<Launch>],
        policy: BTreeMap<String, PoolPolicy>,
        memory: u64,
    ) -> Evicted<P> {
        self.memory = memory;
        let current = |(backend, revision): &(String, u64)| {
            policy
                .get(backend)
                .is_some_and(|policy| policy.revision == *revision)
        };
        self.refused.retain(|kind, _| current(kind));
        self.demand.configure(launches, policy);
        let demand = &self.demand;
        Evicted(take_out(&mut self.processes, |idle| {
            let Some(policy) = demand.policy(&idle.launch) else {
                return true;
            };
            let time = match idle.state {
                State::Warm => policy.max_age,
                State::Parked(_) => policy.continue_for,
            };
            idle.until = idle.until.min(idle.since + time);
            false
        }))
    }

    /// Evicts all, and takes in no more.
    pub(super) fn close(&mut self) -> Evicted<P> {
        self.closed = true;
        Evicted(take_out(&mut self.processes, |_| true))
    }

    /// How many of a backend are warm, and how many parked.
    pub(super) fn count(&self, backend: &str) -> (usize, usize) {
        let all = self.processes.iter();
        let of_backend = all.filter(|idle| idle.launch.backend == backend);
        let (warm, parked): (Vec<_>, Vec<_>) = of_backend.partition(|idle| idle.is_warm());
        (warm.len(), parked.len())
    }
}

/// Removes the processes for which `goes` is true, and returns them.
fn take_out<P>(all: &mut Vec<Idle<P>>, goes: impl FnMut(&mut Idle<P>) -> bool) -> Vec<P> {
    all.extract_if(.., goes).map(|idle| idle.process).collect()
}

#[cfg(test)]
mod tests;
