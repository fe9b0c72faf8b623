//! Which processes wait, behind which launch lines: what may be taken, and what has to go.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Claimed, Conversation, Held, Launch, Origin, Terms};
use crate::processes::Process;

/// What a process is taken to hold while none of its kind can be measured, in bytes: an idle
/// Claude Code has 130 to 190 MB.
const USUAL_MEMORY: u64 = 160 << 20;

/// How long after its start a process holds what it will hold while it waits.
const STARTED: Duration = Duration::from_secs(3);

/// How long to wait after a process that waited ended by itself; doubled each time.
const TROUBLE_LEAST: Duration = Duration::from_millis(500);
const TROUBLE_MOST: Duration = Duration::from_secs(300);

/// Launch lines that are remembered: with each other limit on an answer's tokens, a client makes
/// another one.
const LINES_MAX: usize = 64;

/// All that wait, and the launch lines that are in use.
pub(super) struct Waiting {
    /// What they may hold together, in bytes.
    memory: u64,
    lines: Vec<Line>,
    processes: Vec<Idle>,
    /// Backends that cannot serve at present.
    distrusted: BTreeSet<String>,
    closed: bool,
}

/// A launch line that is in use.
struct Line {
    launch: Arc<Launch>,
    terms: Terms,
    /// Kept warm whether or not it is used.
    configured: bool,
    used: Instant,
    /// How often in a row its processes ended by themselves.
    troubles: u32,
    not_before: Instant,
}

struct Idle {
    launch: Arc<Launch>,
    process: Process,
    since: Instant,
    until: Instant,
    held: Option<Held>,
    /// What it holds, in bytes, as of the last look.
    size: u64,
}

impl Waiting {
    pub(super) fn new(memory: u64) -> Self {
        Waiting {
            memory,
            lines: Vec::new(),
            processes: Vec::new(),
            distrusted: BTreeSet::new(),
            closed: false,
        }
    }

    /// The process that holds `conversation`, or else the one that has been warm for longest.
    pub(super) fn take(
        &mut self,
        launch: &Arc<Launch>,
        terms: Terms,
        conversation: Option<&Conversation>,
    ) -> Option<Claimed> {
        self.used(launch, terms);
        loop {
            let fits = |idle: &Idle| match &idle.held {
                Some(held) => Some(&held.conversation) == conversation,
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
                (idle.held.is_none(), idle.since)
            });
            let idle = self.processes.swap_remove(*fitting.first()?);
            if idle.process.is_sound() && idle.until > Instant::now() {
                return Some(Claimed {
                    process: idle.process,
                    origin: match idle.held {
                        Some(_) => Origin::Kept,
                        None => Origin::Warm,
                    },
                    memo: idle.held.map(|held| held.memo),
                });
            }
            if idle.held.is_none() && !idle.process.is_sound() {
                self.failed(launch);
            }
        }
    }

    /// The launch line is in use, as of now.
    fn used(&mut self, launch: &Arc<Launch>, terms: Terms) {
        let now = Instant::now();
        if let Some(line) = self.line(launch) {
            (line.used, line.terms) = (now, terms);
            return;
        }
        if self.lines.len() >= LINES_MAX {
            let oldest = self.lines.iter().filter(|line| !line.configured);
            let Some(oldest) = oldest
                .min_by_key(|line| line.used)
                .map(|l| l.launch.clone())
            else {
                return;
            };
            self.lines.retain(|line| line.launch != oldest);
        }
        self.lines.push(Line {
            launch: launch.clone(),
            terms,
            configured: false,
            used: now,
            troubles: 0,
            not_before: now,
        });
    }

    fn line(&mut self, launch: &Launch) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| *line.launch == *launch)
    }

    pub(super) fn holds_any(&self, launch: &Launch) -> bool {
        let mut held = self.processes.iter().filter(|idle| idle.held.is_some());
        held.any(|idle| *idle.launch == *launch)
    }

    /// Adds a warm process. It is given back if nobody wants it any more.
    pub(super) fn add(&mut self, launch: &Arc<Launch>, process: Process) -> Option<Process> {
        let closed = self.closed;
        let Some(line) = self.line(launch).filter(|_| !closed) else {
            return Some(process);
        };
        let now = Instant::now();
        let idle = Idle {
            launch: line.launch.clone(),
            process,
            since: now,
            until: now + line.terms.max_age,
            held: None,
            size: USUAL_MEMORY,
        };
        self.processes.push(idle);
        None
    }

    /// Adds a process with a conversation; what has to go for it is given back, perhaps itself.
    pub(super) fn keep(
        &mut self,
        launch: Arc<Launch>,
        process: Process,
        held: Held,
        time: Duration,
    ) -> Vec<Process> {
        let mut surplus = Vec::new();
        let size = process.resident().unwrap_or(USUAL_MEMORY);
        while self.memory_used() + size > self.memory {
            // What is warm is worth more.
            match self.oldest_kept() {
                Some(at) => surplus.push(self.processes.swap_remove(at).process),
                None => break,
            }
        }
        if self.closed || self.memory_used() + size > self.memory {
            surplus.push(process);
            return surplus;
        }
        let now = Instant::now();
        self.processes.push(Idle {
            launch,
            process,
            since: now,
            until: now + time,
            held: Some(held),
            size,
        });
        surplus
    }

    fn oldest_kept(&self) -> Option<usize> {
        let kept = self.processes.iter().enumerate();
        let kept = kept.filter(|(_, idle)| idle.held.is_some());
        kept.min_by_key(|(_, idle)| idle.since).map(|(at, _)| at)
    }

    fn memory_used(&self) -> u64 {
        self.processes.iter().map(|idle| idle.size).sum()
    }

    /// One that has to go because a request needs its place among all processes: the oldest that is
    /// kept, or a warm one of the line that was not used for longest.
    pub(super) fn give_up(&mut self) -> Option<Process> {
        let at = self.oldest_kept().or_else(|| self.least_used(None))?;
        Some(self.processes.swap_remove(at).process)
    }

    /// The warm process whose line was not used for longest, and not since `before`.
    fn least_used(&self, before: Option<Instant>) -> Option<usize> {
        let used = |idle: &Idle| {
            let line = self.lines.iter().find(|line| line.launch == idle.launch);
            line.map(|line| line.used)
        };
        let warm = self.processes.iter().enumerate();
        let warm = warm.filter(|(_, idle)| idle.held.is_none());
        let oldest = warm.min_by_key(|(_, idle)| used(idle))?;
        let is_older = before.is_none_or(|before| used(oldest.1).is_none_or(|used| used < before));
        is_older.then_some(oldest.0)
    }

    /// Whether another process may wait behind this line.
    pub(super) fn has_room(&self, launch: &Launch) -> bool {
        let alike = self.processes.iter().filter(|idle| *idle.launch == *launch);
        let size = alike.map(|idle| idle.size).max().unwrap_or(USUAL_MEMORY);
        self.memory_used() + size <= self.memory
    }

    /// One that is worth less than a warm one of this line, if there is any: one that is kept, or one
    /// of a line that was used before this one.
    pub(super) fn less_useful(&mut self, launch: &Launch) -> Option<Process> {
        let used = self.line(launch).map(|line| line.used)?;
        let at = self.oldest_kept().or_else(|| self.least_used(Some(used)))?;
        Some(self.processes.swap_remove(at).process)
    }

    /// What has waited for too long, has ended or is too much; it ends when it is dropped.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<Process> {
        let mut gone = Vec::new();
        let all = std::mem::take(&mut self.processes);
        for mut idle in all {
            // While it starts, it holds less than it will.
            if now > idle.since + STARTED {
                idle.size = idle.process.resident().unwrap_or(idle.size);
            }
            let sound = idle.process.is_sound();
            if !sound && idle.held.is_none() {
                self.failed(&idle.launch);
            }
            if sound && idle.until > now {
                self.processes.push(idle);
            } else {
                gone.push(idle.process);
            }
        }
        while self.memory_used() > self.memory {
            match self.oldest_kept().or_else(|| self.least_used(None)) {
                Some(at) => gone.push(self.processes.swap_remove(at).process),
                None => break,
            }
        }
        self.lines
            .retain(|line| line.configured || now < line.used + line.terms.max_age);
        gone
    }

    /// The launch line that lacks a warm process, the one used last first.
    pub(super) fn lacking(&self, now: Instant) -> Vec<Arc<Launch>> {
        if self.closed {
            return Vec::new();
        }
        let warm = |line: &Line| {
            let alike = self.processes.iter().filter(|i| i.launch == line.launch);
            alike.filter(|idle| idle.held.is_none()).count()
        };
        let mut lacking: Vec<&Line> = self
            .lines
            .iter()
            .filter(|line| warm(line) < line.terms.warm && line.not_before <= now)
            .filter(|line| !self.distrusted.contains(&line.launch.backend))
            .collect();
        lacking.sort_by_key(|line| std::cmp::Reverse(line.used));
        lacking.iter().map(|line| line.launch.clone()).collect()
    }

    /// Whether this process still waits.
    pub(super) fn has(&self, pid: i32) -> bool {
        self.processes.iter().any(|idle| idle.process.id() == pid)
    }

    /// The youngest warm process behind a launch line.
    pub(super) fn youngest(&self, launch: &Launch) -> Option<i32> {
        let alike = self.processes.iter().filter(|i| *i.launch == *launch);
        let youngest = alike.max_by_key(|idle| idle.since)?;
        Some(youngest.process.id())
    }

    pub(super) fn failed(&mut self, launch: &Launch) {
        let Some(line) = self.line(launch) else {
            return;
        };
        let pause = TROUBLE_LEAST.saturating_mul(1 << line.troubles.min(16));
        line.troubles += 1;
        line.not_before = Instant::now() + pause.min(TROUBLE_MOST);
        if line.troubles == 3 {
            tracing::warn!(
                backend = line.launch.backend,
                "its processes end before they are wanted: fewer are started ahead"
            );
        }
    }

    pub(super) fn proved(&mut self, launch: &Launch) {
        if let Some(line) = self.line(launch) {
            line.troubles = 0;
        }
    }

    pub(super) fn distrust(&mut self, backend: &str) -> Vec<Process> {
        self.distrusted.insert(backend.to_owned());
        self.take_out(|idle| idle.launch.backend == backend)
    }

    /// Whether it was not trusted before.
    pub(super) fn trust(&mut self, backend: &str) -> bool {
        self.distrusted.remove(backend)
    }

    pub(super) fn forget(&mut self, backend: &str) -> Vec<Process> {
        self.lines
            .retain(|line| line.configured || line.launch.backend != backend);
        self.take_out(|idle| idle.launch.backend == backend)
    }

    pub(super) fn configure(&mut self, lines: Vec<(Arc<Launch>, Terms)>, memory: u64) {
        self.memory = memory;
        for line in &mut self.lines {
            line.configured = false;
        }
        for (launch, terms) in lines {
            if self.line(&launch).is_none() {
                self.used(&launch, terms);
            }
            if let Some(line) = self.line(&launch) {
                (line.configured, line.terms) = (true, terms);
            }
        }
    }

    pub(super) fn close(&mut self) -> Vec<Process> {
        self.closed = true;
        self.take_out(|_| true)
    }

    fn take_out(&mut self, which: impl Fn(&Idle) -> bool) -> Vec<Process> {
        let all = std::mem::take(&mut self.processes);
        let (out, stays): (Vec<_>, Vec<_>) = all.into_iter().partition(which);
        self.processes = stays;
        out.into_iter().map(|idle| idle.process).collect()
    }

    pub(super) fn count(&self, backend: &str) -> (usize, usize) {
        let of_backend = self
            .processes
            .iter()
            .filter(|i| i.launch.backend == backend);
        let (kept, warm): (Vec<_>, Vec<_>) = of_backend.partition(|idle| idle.held.is_some());
        (warm.len(), kept.len())
    }
}
