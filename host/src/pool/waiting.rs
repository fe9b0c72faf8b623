//! Which processes wait, behind which launch lines: what may be taken, and what has to go.

use std::collections::{BTreeMap, BTreeSet};
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
    uses: u32,
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

impl Line {
    /// Whether processes are kept warm behind it. What a request sets beside the model, such as a limit
    /// on tokens, may be the only one of its kind.
    fn is_wanted(&self) -> bool {
        self.configured || self.launch.is_plain || self.uses > 1
    }
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
            let mut idle = self.processes.swap_remove(*fitting.first()?);
            // What it printed after its last answer belongs to no other one.
            let is_clean = idle.held.is_none() || idle.process.drop_output();
            if is_clean && idle.process.is_sound() && idle.until > Instant::now() {
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
            line.uses = line.uses.saturating_add(1);
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
            uses: 1,
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
        let at = self.oldest_kept().or_else(|| self.least_used())?;
        Some(self.processes.swap_remove(at).process)
    }

    /// The process that was of use least recently.
    fn least_used(&self) -> Option<usize> {
        let all = self.processes.iter().enumerate();
        let oldest = all.min_by_key(|(_, idle)| self.worth(idle))?;
        Some(oldest.0)
    }

    /// Makes room for another process behind this line, if those that are worth less than a warm one
    /// of it are enough: they are given back. None if there is no room.
    pub(super) fn make_room(&mut self, launch: &Launch) -> Option<Vec<Process>> {
        let used = self.line(launch).map(|line| line.used)?;
        let alike = self.processes.iter().filter(|idle| *idle.launch == *launch);
        let size = alike.map(|idle| idle.size).max().unwrap_or(USUAL_MEMORY);
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
        // From the back, so that the places of the others stay what they are.
        going.sort_by_key(|at| std::cmp::Reverse(*at));
        let take = |at: &usize| self.processes.swap_remove(*at).process;
        Some(going.iter().map(take).collect())
    }

    /// When a process, or its line, was last of use.
    fn worth(&self, idle: &Idle) -> Instant {
        let line = self.lines.iter().find(|line| line.launch == idle.launch);
        match (&idle.held, line) {
            (None, Some(line)) => line.used,
            _ => idle.since,
        }
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
            match self.oldest_kept().or_else(|| self.least_used()) {
                Some(at) => gone.push(self.processes.swap_remove(at).process),
                None => break,
            }
        }
        self.lines
            .retain(|line| line.configured || now < line.used + line.terms.max_age);
        for line in &self.lines {
            let surplus = |idle: &Idle| idle.launch == line.launch && idle.held.is_none();
            let count = self.processes.iter().filter(|idle| surplus(idle)).count();
            for _ in line.terms.warm..count {
                if let Some(at) = self.processes.iter().position(surplus) {
                    gone.push(self.processes.swap_remove(at).process);
                }
            }
        }
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
            .filter(|line| line.is_wanted() && line.not_before <= now)
            .filter(|line| warm(line) < line.terms.warm)
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
        let warm = alike.filter(|idle| idle.held.is_none());
        let youngest = warm.max_by_key(|idle| idle.since)?;
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
        self.lines.retain(|line| line.launch.backend != backend);
        self.take_out(|idle| idle.launch.backend == backend)
    }

    pub(super) fn configure(
        &mut self,
        lines: &[Arc<Launch>],
        terms: &BTreeMap<String, Terms>,
        memory: u64,
    ) {
        self.memory = memory;
        for line in &mut self.lines {
            line.configured = false;
            if let Some(terms) = terms.get(&line.launch.backend) {
                line.terms = *terms;
            }
        }
        for launch in lines {
            if self.line(launch).is_none() {
                let terms = terms.get(&launch.backend).copied();
                self.used(launch, terms.unwrap_or(Terms::NONE));
            }
            if let Some(line) = self.line(launch) {
                line.configured = true;
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
