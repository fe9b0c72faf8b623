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
use super::held::{Fit, Held, Refused, Sought};
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

    /// What processes with this launch have refused to take back.
    fn refused(&self, launch: &Launch) -> Refused {
        let kind = (launch.backend.clone(), launch.revision);
        self.refused.get(&kind).copied().unwrap_or_default()
    }

    /// See [`Pool::record_refusal`](super::Pool::record_refusal).
    pub(super) fn record_refusal(&mut self, launch: &Launch, all: bool) {
        let kind = (launch.backend.clone(), launch.revision);
        let refused = self.refused.entry(kind).or_default();
        refused.first = true;
        refused.any |= !all;
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
        (!self.closed && !time.is_zero()).then_some(time)
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
        let mut lesser: Vec<(Instant, usize)> = (0..self.processes.len())
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
            // A parked process is no reason to end one that is ready.
            count > demand.warm(&idle.launch, 0)
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
            (warm.len(), parked.len())
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
mod tests {
    use super::super::Warm;
    use super::super::demand::tests::launch;
    use super::*;

    /// Its id, its memory, and whether it has ended.
    #[derive(Debug, PartialEq)]
    struct Fake(i32, u64, bool);

    impl Idles for Fake {
        fn id(&self) -> i32 {
            self.0
        }

        fn is_sound(&self) -> bool {
            !self.2
        }

        fn resident(&self) -> Option<u64> {
            Some(self.1)
        }

        fn drop_output(&mut self) -> bool {
            true
        }
    }

    const POLICY: PoolPolicy = PoolPolicy {
        revision: 0,
        warm: Warm::Fixed(2),
        max_age: Duration::from_secs(60),
        continue_for: Duration::from_secs(10),
        idle_memory: 10,
    };

    fn policy(policy: PoolPolicy) -> BTreeMap<String, PoolPolicy> {
        BTreeMap::from([("b".to_owned(), policy)])
    }

    /// A set with memory for ten processes, and one launch that the configuration names.
    fn set() -> (IdleSet<Fake>, Arc<Launch>) {
        let (mut set, launch) = (IdleSet::new(100), launch("p", true));
        let evicted = set.configure(std::slice::from_ref(&launch), policy(POLICY), 100);
        none_of(evicted);
        (set, launch)
    }

    fn warm(set: &mut IdleSet<Fake>, launch: &Arc<Launch>, id: i32) {
        none_of(set.add(launch, Fake(id, 10, false)));
    }

    /// A conversation of one turn. The memo tells which.
    fn parked(key: u8) -> Held {
        Held {
            owner: [0; 32],
            turns: vec![([key; 32], None)],
            awaited: Vec::new(),
            memo: key.to_string(),
            served: 1,
        }
    }

    fn sought(key: u8) -> Sought {
        Sought {
            owner: [0; 32],
            turns: vec![[key; 32]],
            results: Vec::new(),
        }
    }

    fn ids(evicted: Evicted<Fake>) -> Vec<i32> {
        evicted.0.iter().map(Fake::id).collect()
    }

    fn none_of(evicted: Evicted<Fake>) {
        assert_eq!(ids(evicted), Vec::<i32>::new());
    }

    /// The id of the process that is taken, and the memo that it was parked with.
    fn take(set: &mut IdleSet<Fake>, launch: &Arc<Launch>, key: u8) -> Option<(i32, String)> {
        let (taken, evicted) = set.take(launch, Some(&sought(key)));
        evicted.end();
        taken.map(|(process, taken)| match taken {
            Taken::Warm => (process.0, String::new()),
            Taken::Parked(held, _) => (process.0, held.memo),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_conversation_goes_on_in_its_process_and_others_take_the_oldest_warm_one() {
        let (mut set, launch) = set();
        warm(&mut set, &launch, 1);
        tokio::time::advance(Duration::from_millis(1)).await;
        warm(&mut set, &launch, 2);
        none_of(set.park(launch.clone(), Fake(3, 10, false), parked(7)));
        assert_eq!(set.count("b"), (2, 1));
        assert_eq!(take(&mut set, &launch, 7), Some((3, "7".into())));
        assert_eq!(take(&mut set, &launch, 7), Some((1, String::new())));
        assert_eq!(take(&mut set, &launch, 8), Some((2, String::new())));
        assert_eq!(take(&mut set, &launch, 8), None);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_takes_the_process_of_another_conversation_or_launch() {
        let (mut set, launch) = set();
        set.park(launch.clone(), Fake(1, 10, false), parked(7))
            .end();
        assert_eq!(take(&mut set, &launch, 8), None);
        assert_eq!(
            take(&mut set, &super::super::demand::tests::launch("q", true), 7),
            None
        );
        assert!(set.parks(&launch));
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_is_taken_back_to_what_it_shares_with_a_request() {
        let (mut set, launch) = set();
        let holding = |turns: &[u8]| Held {
            turns: turns
                .iter()
                .map(|key| ([*key; 32], Some(key.to_string())))
                .collect(),
            ..parked(0)
        };
        let seeking = |turns: &[u8]| Sought {
            turns: turns.iter().map(|key| [*key; 32]).collect(),
            ..sought(0)
        };
        let take = |set: &mut IdleSet<Fake>, turns: &[u8]| {
            let (taken, evicted) = set.take(&launch, Some(&seeking(turns)));
            evicted.end();
            taken.map(|(process, taken)| match taken {
                Taken::Warm => (process.0, None),
                Taken::Parked(_, fit) => (process.0, Some((fit.kept, fit.rewinds))),
            })
        };
        let park = |set: &mut IdleSet<Fake>, id, turns: &[u8]| {
            none_of(set.park(launch.clone(), Fake(id, 10, false), holding(turns)));
        };
        park(&mut set, 1, &[1, 2, 3]);
        park(&mut set, 2, &[1, 2]);
        park(&mut set, 3, &[1]);
        // The one that keeps most, then the one that loses least, then the one that was unused the longest.
        assert_eq!(take(&mut set, &[1, 2]), Some((2, Some((2, 0)))));
        assert_eq!(take(&mut set, &[1, 2, 4]), Some((1, Some((2, 1)))));
        park(&mut set, 1, &[1, 2, 3]);
        // A conversation of several turns is spared while another process is there.
        warm(&mut set, &launch, 4);
        assert_eq!(take(&mut set, &[7]), Some((3, Some((0, 1)))));
        assert_eq!(take(&mut set, &[7]), Some((4, None)));
        assert_eq!(take(&mut set, &[7]), Some((1, Some((0, 3)))));
        // What a process has refused, others like it are not asked for.
        park(&mut set, 5, &[1, 2]);
        set.record_refusal(&launch, true);
        assert_eq!(take(&mut set, &[7]), None);
        assert_eq!(take(&mut set, &[1]), Some((5, Some((1, 1)))));
        park(&mut set, 6, &[1, 2]);
        set.record_refusal(&launch, false);
        assert_eq!(take(&mut set, &[1]), None);
        assert_eq!(take(&mut set, &[1, 2]), Some((6, Some((2, 0)))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_that_was_seen_is_met_the_next_time() {
        let (mut set, launch) = set();
        let auto = PoolPolicy {
            warm: Warm::Auto,
            ..POLICY
        };
        none_of(set.configure(std::slice::from_ref(&launch), policy(auto), 100));
        assert_eq!(set.lacking().len(), 1);
        warm(&mut set, &launch, 1);
        assert_eq!(set.lacking().len(), 0);
        for _ in 0..4 {
            set.demand().begins(&launch);
        }
        for _ in 0..4 {
            set.demand().ends(&launch);
        }
        none_of(set.park(launch.clone(), Fake(2, 10, false), parked(1)));
        for id in 3..5 {
            assert_eq!(set.lacking().len(), 1);
            warm(&mut set, &launch, id);
        }
        assert_eq!(set.lacking().len(), 0, "three are warm, and one is parked");
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(set.demand().warm(&launch, 0), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_is_retired_in_time() {
        let (mut set, launch) = set();
        let spent = Held {
            served: REQUESTS_MAX,
            ..parked(1)
        };
        assert_eq!(
            ids(set.park(launch.clone(), Fake(1, 10, false), spent)),
            [1]
        );
        let large = POLICY.idle_memory * GROWTH_MAX + 1;
        assert_eq!(
            ids(set.park(launch.clone(), Fake(2, large, false), parked(1))),
            [2]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_ended_or_is_too_old_is_passed_over() {
        let (mut set, launch) = set();
        set.add(&launch, Fake(1, 10, true)).end();
        warm(&mut set, &launch, 2);
        assert_eq!(take(&mut set, &launch, 0), Some((2, String::new())));
        // A warm process that ended: the next one is started after a pause.
        assert_eq!(set.lacking().len(), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(set.lacking(), std::slice::from_ref(&launch));
        set.park(launch.clone(), Fake(3, 10, false), parked(7))
            .end();
        tokio::time::advance(POLICY.continue_for).await;
        assert_eq!(take(&mut set, &launch, 7), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_parked_process_has_its_time_and_a_warm_one_has_more() {
        let (mut set, launch) = set();
        warm(&mut set, &launch, 1);
        set.park(launch.clone(), Fake(2, 10, false), parked(7))
            .end();
        tokio::time::advance(POLICY.continue_for).await;
        assert_eq!(ids(set.sweep()), [2]);
        tokio::time::advance(POLICY.max_age).await;
        assert_eq!(ids(set.sweep()), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_parked_gives_way_and_warm_ones_stay() {
        let (mut set, launch) = set();
        warm(&mut set, &launch, 1);
        for id in 2..=10 {
            tokio::time::advance(Duration::from_millis(1)).await;
            set.park(launch.clone(), Fake(id, 10, false), parked(7))
                .end();
        }
        // The memory is full.
        assert_eq!(
            ids(set.park(launch.clone(), Fake(11, 20, false), parked(8))),
            [2, 3]
        );
        assert_eq!(
            ids(set.park(launch.clone(), Fake(12, 95, false), parked(8))),
            [12]
        );
        assert_eq!(ids(set.evict()), [4]);
        assert_eq!(set.count("b"), (1, 7));
        for _ in 0..7 {
            set.evict().end();
        }
        assert_eq!(ids(set.evict()), [1]);
        none_of(set.evict());
    }

    #[tokio::test(start_paused = true)]
    async fn memory_that_grew_is_given_back() {
        let (mut set, launch) = set();
        warm(&mut set, &launch, 1);
        set.park(launch.clone(), Fake(2, 10, false), parked(7))
            .end();
        set.processes[1].process.1 = 95;
        none_of(set.sweep());
        tokio::time::advance(POLL_INTERVAL * 2).await;
        assert_eq!(ids(set.sweep()), [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn another_configuration_ends_what_was_started_otherwise() {
        let (mut set, launch) = set();
        warm(&mut set, &launch, 1);
        set.park(launch.clone(), Fake(2, 10, false), parked(7))
            .end();
        let shorter = PoolPolicy {
            continue_for: Duration::from_secs(1),
            ..POLICY
        };
        let same = std::slice::from_ref(&launch);
        none_of(set.configure(same, policy(shorter), 100));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(ids(set.sweep()), [2]);
        let other = PoolPolicy {
            revision: 1,
            ..POLICY
        };
        assert_eq!(ids(set.configure(&[], policy(other), 100)), [1]);
        // A process of a request from before the change.
        assert_eq!(
            ids(set.park(launch.clone(), Fake(3, 10, false), parked(7))),
            [3]
        );
        assert_eq!(ids(set.add(&launch, Fake(4, 10, false))), [4]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspended_backend_and_a_closed_set_have_no_idle_processes() {
        let (mut set, launch) = set();
        warm(&mut set, &launch, 1);
        assert_eq!(ids(set.suspend("b")), [1]);
        assert_eq!(ids(set.add(&launch, Fake(2, 10, false))), [2]);
        assert_eq!(set.lacking().len(), 0);
        assert!(set.demand().resume("b"));
        assert_eq!(set.lacking().len(), 1);
        warm(&mut set, &launch, 3);
        assert_eq!(ids(set.close()), [3]);
        assert_eq!(ids(set.add(&launch, Fake(4, 10, false))), [4]);
        assert_eq!(
            ids(set.park(launch.clone(), Fake(5, 10, false), parked(7))),
            [5]
        );
        assert_eq!(set.lacking().len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_made_by_what_was_used_less_recently() {
        let (mut set, launch) = set();
        let roomy = PoolPolicy {
            idle_memory: 40,
            ..POLICY
        };
        none_of(set.configure(std::slice::from_ref(&launch), policy(roomy), 100));
        let other = super::super::demand::tests::launch("q", true);
        set.park(launch.clone(), Fake(1, 95, false), parked(7))
            .end();
        tokio::time::advance(Duration::from_secs(1)).await;
        // The launch was used before the process was parked: it has no right to the memory.
        assert!(set.make_room(&launch).is_none());
        set.demand().used(&other);
        assert_eq!(set.make_room(&other).map(ids), Some(vec![1]));
        assert_eq!(set.make_room(&other).map(ids), Some(vec![]));
    }
}
