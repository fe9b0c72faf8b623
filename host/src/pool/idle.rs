//! The idle processes: which may be taken, and which are evicted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::demand::Demand;
use super::{Acquired, ConversationKey, Launch, Parked, PoolPolicy, ProcessOrigin};
use crate::processes::Process;

/// How often the memory of an idle process is measured.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long after its start a process has as much memory as it will have while it is idle.
const STARTED: Duration = Duration::from_secs(3);

/// All idle processes, and the demand for them.
pub(super) struct IdleSet {
    /// The memory that all of them may have together, in bytes.
    memory: u64,
    lines: Demand,
    processes: Vec<IdleProcess>,
    closed: bool,
}

struct IdleProcess {
    launch: Arc<Launch>,
    process: Process,
    since: Instant,
    until: Instant,
    parked: Option<Parked>,
    /// Its memory when it was last measured, in bytes.
    size: u64,
    /// When to measure again.
    look: Instant,
}

impl IdleSet {
    pub(super) fn new(memory: u64) -> Self {
        IdleSet {
            memory,
            lines: Demand::default(),
            processes: Vec::new(),
            closed: false,
        }
    }

    /// The process that holds `conversation`, else the oldest warm one.
    pub(super) fn take(
        &mut self,
        launch: &Arc<Launch>,
        conversation: Option<&ConversationKey>,
    ) -> Option<Acquired> {
        self.lines.used(launch);
        loop {
            let fits = |idle: &IdleProcess| match &idle.parked {
                Some(parked) => Some(&parked.conversation) == conversation,
                None => true,
            };
            let mut fitting: Vec<usize> = (0..self.processes.len())
                .filter(|at| {
                    let idle = &self.processes[*at];
                    *idle.launch == **launch && fits(idle)
                })
                .collect();
            fitting.sort_by_key(|at| {
                let idle = &self.processes[*at];
                (idle.parked.is_none(), idle.since)
            });
            let mut idle = self.processes.swap_remove(*fitting.first()?);
            // What it printed after its last answer must not become a part of the next one.
            let is_clean = idle.parked.is_none() || idle.process.drop_output();
            if is_clean && idle.process.is_sound() && idle.until > Instant::now() {
                return Some(Acquired {
                    process: idle.process,
                    origin: match idle.parked {
                        Some(_) => ProcessOrigin::Kept,
                        None => ProcessOrigin::Warm,
                    },
                    memo: idle.parked.map(|parked| parked.memo),
                });
            }
            if idle.parked.is_none() && !idle.process.is_sound() {
                self.lines.failed(launch);
            }
        }
    }

    pub(super) fn holds_any(&self, launch: &Launch) -> bool {
        let mut parked = self.processes.iter().filter(|idle| idle.parked.is_some());
        parked.any(|idle| *idle.launch == *launch)
    }

    /// Adds a warm process. Returns it if there is no demand for it any more.
    pub(super) fn add(&mut self, launch: &Arc<Launch>, process: Process) -> Option<Process> {
        let wanted = !self.closed && self.lines.is_active(&launch.backend);
        let line = self.lines.get(launch).filter(|_| wanted);
        let (Some(line), Some(policy)) = (line, self.lines.policy(launch)) else {
            return Some(process);
        };
        let now = Instant::now();
        let idle = IdleProcess {
            launch: line.launch.clone(),
            process,
            since: now,
            until: now + policy.max_age,
            parked: None,
            size: line.size.unwrap_or(policy.idle_memory),
            // While it starts, it has less memory than it will have.
            look: now + STARTED,
        };
        self.processes.push(idle);
        None
    }

    /// How long a process with this launch is parked; `None` if it is not.
    pub(super) fn keeps_for(&self, launch: &Launch) -> Option<Duration> {
        let time = self.lines.policy(launch)?.continue_for;
        (!self.closed && !time.is_zero()).then_some(time)
    }

    /// Parks a process. Returns those that are evicted for it, or itself if there is no room.
    pub(super) fn keep(
        &mut self,
        launch: Arc<Launch>,
        process: Process,
        parked: Parked,
    ) -> Vec<Process> {
        let size = process
            .resident()
            .unwrap_or(self.lines.idle_memory(&launch));
        let warm = self.processes.iter().filter(|idle| idle.parked.is_none());
        let warm: u64 = warm.map(|idle| idle.size).sum();
        let time = self.keeps_for(&launch);
        let Some(time) = time.filter(|_| warm + size <= self.memory) else {
            return vec![process];
        };
        let mut surplus = Vec::new();
        while self.memory_used() + size > self.memory {
            // Warm processes stay: they serve anybody.
            match self.oldest_kept() {
                Some(at) => surplus.push(self.processes.swap_remove(at).process),
                None => break,
            }
        }
        let now = Instant::now();
        self.processes.push(IdleProcess {
            launch,
            process,
            since: now,
            until: now + time,
            parked: Some(parked),
            size,
            look: now + POLL_INTERVAL,
        });
        surplus
    }

    fn oldest_kept(&self) -> Option<usize> {
        let kept = self.processes.iter().enumerate();
        let kept = kept.filter(|(_, idle)| idle.parked.is_some());
        kept.min_by_key(|(_, idle)| idle.since).map(|(at, _)| at)
    }

    fn memory_used(&self) -> u64 {
        self.processes.iter().map(|idle| idle.size).sum()
    }

    /// The process to evict for a request that needs a slot: the oldest parked one, else a warm one of the
    /// launch of least recent use.
    pub(super) fn evict(&mut self) -> Option<Process> {
        let at = self.oldest_kept().or_else(|| self.least_used())?;
        Some(self.processes.swap_remove(at).process)
    }

    /// The process of least recent use.
    fn least_used(&self) -> Option<usize> {
        let all = self.processes.iter().enumerate();
        let oldest = all.min_by_key(|(_, idle)| self.worth(idle))?;
        Some(oldest.0)
    }

    /// Evicts processes of less recent use until one more with this launch fits. `None` if that is not
    /// enough.
    pub(super) fn make_room(&mut self, launch: &Launch) -> Option<Vec<Process>> {
        let line = self.lines.get(launch)?;
        let usual = self.lines.idle_memory(launch);
        let (used, size) = (line.used, line.size.unwrap_or(usual));
        let mut lesser: Vec<(Instant, usize)> = (0..self.processes.len())
            .map(|at| (self.worth(&self.processes[at]), at))
            .filter(|(worth, _)| *worth < used)
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
        Some(going.iter().map(take).collect())
    }

    /// When a process, or its launch, was last used.
    fn worth(&self, idle: &IdleProcess) -> Instant {
        match (&idle.parked, self.lines.get(&idle.launch)) {
            (None, Some(line)) => line.used,
            _ => idle.since,
        }
    }

    /// Takes out what is too old, has ended, or is more than the demand or the memory allows.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<Process> {
        let mut gone = Vec::new();
        let all = std::mem::take(&mut self.processes);
        for mut idle in all {
            if now > idle.look {
                idle.size = idle.process.resident().unwrap_or(idle.size);
                idle.look = now + POLL_INTERVAL;
                if idle.parked.is_none() {
                    self.lines.measured(&idle.launch, idle.size);
                }
            }
            let sound = idle.process.is_sound();
            if !sound && idle.parked.is_none() {
                self.lines.failed(&idle.launch);
            }
            if sound && idle.until > now {
                self.processes.push(idle);
            } else {
                gone.push(idle.process);
            }
        }
        while self.memory_used() > self.memory {
            match self.oldest_kept().or_else(|| self.least_used()) {
                Some(at) => gone.push(self.processes.swap_remove(at).process),
                None => break,
            }
        }
        self.lines.expire(now);
        gone.extend(self.take_surplus());
        gone
    }

    /// The warm processes beyond the demand for their launch.
    fn take_surplus(&mut self) -> Vec<Process> {
        let (lines, mut seen) = (&self.lines, Vec::new());
        take_out(&mut self.processes, |idle| {
            if idle.parked.is_some() {
                return false;
            }
            seen.push(idle.launch.clone());
            let count = seen.iter().filter(|launch| **launch == idle.launch).count();
            count > lines.warm(&idle.launch)
        })
    }

    /// The launches that lack a warm process.
    pub(super) fn lacking(&self, now: Instant) -> Vec<Arc<Launch>> {
        if self.closed {
            return Vec::new();
        }
        self.lines.lacking(now, |launch| {
            let alike = self.processes.iter().filter(|i| *i.launch == *launch);
            alike.filter(|idle| idle.parked.is_none()).count()
        })
    }

    /// Whether this process is still idle.
    pub(super) fn has(&self, pid: i32) -> bool {
        self.processes.iter().any(|idle| idle.process.id() == pid)
    }

    /// The youngest warm process with this launch.
    pub(super) fn youngest(&self, launch: &Launch) -> Option<i32> {
        let alike = self.processes.iter().filter(|i| *i.launch == *launch);
        let warm = alike.filter(|idle| idle.parked.is_none());
        let youngest = warm.max_by_key(|idle| idle.since)?;
        Some(youngest.process.id())
    }

    /// The demand.
    pub(super) fn lines(&mut self) -> &mut Demand {
        &mut self.lines
    }

    /// Takes out all idle processes of a backend.
    pub(super) fn take_all(&mut self, backend: &str) -> Vec<Process> {
        take_out(&mut self.processes, |idle| idle.launch.backend == backend)
    }

    /// See [`Pool::configure`](super::Pool::configure); returns what ends.
    pub(super) fn configure(
        &mut self,
        lines: &[Arc<Launch>],
        policy: BTreeMap<String, PoolPolicy>,
        memory: u64,
    ) -> Vec<Process> {
        self.memory = memory;
        self.lines.configure(lines, policy);
        let lines = &self.lines;
        take_out(&mut self.processes, |idle| {
            let Some(policy) = lines.policy(&idle.launch) else {
                return true;
            };
            let time = match idle.parked {
                Some(_) => policy.continue_for,
                None => policy.max_age,
            };
            idle.until = idle.until.min(idle.since + time);
            false
        })
    }

    pub(super) fn close(&mut self) -> Vec<Process> {
        self.closed = true;
        take_out(&mut self.processes, |_| true)
    }

    pub(super) fn count(&self, backend: &str) -> (usize, usize) {
        let of_backend = self
            .processes
            .iter()
            .filter(|i| i.launch.backend == backend);
        let (kept, warm): (Vec<_>, Vec<_>) = of_backend.partition(|idle| idle.parked.is_some());
        (warm.len(), kept.len())
    }
}

/// Takes those out that `goes` names.
fn take_out(
    all: &mut Vec<IdleProcess>,
    goes: impl FnMut(&mut IdleProcess) -> bool,
) -> Vec<Process> {
    all.extract_if(.., goes).map(|idle| idle.process).collect()
}
