//! Which launches are in use, and how many warm processes each should have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Launch, PoolPolicy};

/// The pause before the next warm start after a warm process ended by itself. It doubles each time.
const BACKOFF_LEAST: Duration = Duration::from_millis(500);
const BACKOFF_MOST: Duration = Duration::from_secs(300);

/// The most launches that are remembered. Each new limit on tokens that a client sends makes another one.
const LINES_MAX: usize = 64;

/// The launches that are in use.
#[derive(Default)]
pub(super) struct Demand {
    all: Vec<Entry>,
    /// The policy of each backend.
    policy: BTreeMap<String, PoolPolicy>,
    /// Backends for which nothing is started ahead at present.
    suspended: BTreeSet<String>,
}

/// A launch that is in use.
pub(super) struct Entry {
    pub(super) launch: Arc<Launch>,
    /// When a request last used it.
    pub(super) used: Instant,
    uses: u32,
    /// The memory of an idle process of it, in bytes, once measured.
    pub(super) size: Option<u64>,
    /// The configuration names it, so it is kept warm whether or not it is used.
    configured: bool,
    /// How often in a row its processes ended by themselves.
    failures_in_a_row: u32,
    retry_at: Instant,
}

impl Entry {
    /// Whether warm processes are started for it. A launch with a limit on tokens, say, may never come again,
    /// so it must have been used twice.
    fn is_wanted(&self) -> bool {
        self.configured || self.launch.is_plain || self.uses > 1
    }
}

impl Demand {
    pub(super) fn get(&self, launch: &Launch) -> Option<&Entry> {
        self.all.iter().find(|line| *line.launch == *launch)
    }

    fn get_mut(&mut self, launch: &Launch) -> Option<&mut Entry> {
        self.all.iter_mut().find(|line| *line.launch == *launch)
    }

    /// The policy for a launch; `None` if the backend's processes are started differently by now.
    pub(super) fn policy(&self, launch: &Launch) -> Option<&PoolPolicy> {
        let policy = self.policy.get(&launch.backend)?;
        (policy.revision == launch.revision).then_some(policy)
    }

    /// The memory that an idle process is assumed to have while none was measured, in bytes.
    pub(super) fn idle_memory(&self, launch: &Launch) -> u64 {
        self.policy
            .get(&launch.backend)
            .map_or(0, |policy| policy.idle_memory)
    }

    /// How many warm processes a launch should have.
    pub(super) fn warm(&self, launch: &Launch) -> usize {
        let policy = self.get(launch).and_then(|_| self.policy(launch));
        policy.map_or(0, |policy| policy.warm)
    }

    /// Records a use. If there are too many launches, the one of least recent use is forgotten.
    pub(super) fn used(&mut self, launch: &Arc<Launch>) {
        if self.policy(launch).is_none() {
            return;
        }
        let now = Instant::now();
        if let Some(line) = self.get_mut(launch) {
            line.used = now;
            line.uses = line.uses.saturating_add(1);
            return;
        }
        if self.all.len() >= LINES_MAX {
            let lines = self.all.iter().enumerate();
            let others = lines.filter(|(_, line)| !line.configured);
            let Some((oldest, _)) = others.min_by_key(|(_, line)| line.used) else {
                return;
            };
            self.all.swap_remove(oldest);
        }
        self.all.push(Entry {
            launch: launch.clone(),
            used: now,
            uses: 1,
            size: None,
            configured: false,
            failures_in_a_row: 0,
            retry_at: now,
        });
    }

    /// Records the memory of an idle process, in bytes.
    pub(super) fn measured(&mut self, launch: &Launch, size: u64) {
        if let Some(line) = self.get_mut(launch) {
            line.size = Some(size);
        }
    }

    /// Records that a warm process ended by itself.
    pub(super) fn failed(&mut self, launch: &Launch) {
        let Some(line) = self.get_mut(launch) else {
            return;
        };
        let pause = BACKOFF_LEAST.saturating_mul(1 << line.failures_in_a_row.min(16));
        line.failures_in_a_row += 1;
        line.retry_at = Instant::now() + pause.min(BACKOFF_MOST);
        if line.failures_in_a_row == 3 {
            tracing::warn!(
                backend = line.launch.backend,
                "its processes end before they are wanted: fewer are started ahead"
            );
        }
    }

    /// Records that a process that had been idle answered.
    pub(super) fn record_success(&mut self, launch: &Launch) {
        if let Some(line) = self.get_mut(launch) {
            line.failures_in_a_row = 0;
        }
    }

    pub(super) fn suspend(&mut self, backend: &str) {
        self.suspended.insert(backend.to_owned());
    }

    /// Whether it was suspended before.
    pub(super) fn resume(&mut self, backend: &str) -> bool {
        self.suspended.remove(backend)
    }

    pub(super) fn is_active(&self, backend: &str) -> bool {
        !self.suspended.contains(backend)
    }

    /// Applies a configuration: the launches that it names, and the policy of each backend.
    pub(super) fn configure(
        &mut self,
        lines: &[Arc<Launch>],
        policy: BTreeMap<String, PoolPolicy>,
    ) {
        self.policy = policy;
        for line in &mut self.all {
            line.configured = false;
        }
        for launch in lines {
            if self.get(launch).is_none() {
                self.used(launch);
            }
            if let Some(line) = self.get_mut(launch) {
                line.configured = true;
            }
        }
        self.expire(Instant::now());
    }

    /// Forgets launches that were not used for `max_age`, and those of another configuration.
    pub(super) fn expire(&mut self, now: Instant) {
        let mut all = std::mem::take(&mut self.all);
        all.retain(|line| {
            let policy = self.policy(&line.launch);
            policy.is_some_and(|policy| line.configured || now < line.used + policy.max_age)
        });
        self.all = all;
    }

    /// The launches that lack a warm process, the most recently used first. `warm` counts those of a launch.
    pub(super) fn lacking(
        &self,
        now: Instant,
        warm: impl Fn(&Launch) -> usize,
    ) -> Vec<Arc<Launch>> {
        let mut lacking: Vec<&Entry> = self
            .all
            .iter()
            .filter(|line| line.is_wanted() && line.retry_at <= now)
            .filter(|line| self.is_active(&line.launch.backend))
            .filter(|line| warm(&line.launch) < self.warm(&line.launch))
            .collect();
        lacking.sort_by_key(|line| std::cmp::Reverse(line.used));
        lacking.iter().map(|line| line.launch.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::{CommandLine, Framing, Reading};

    const TERMS: PoolPolicy = PoolPolicy {
        revision: 0,
        warm: 1,
        max_age: Duration::from_secs(60),
        continue_for: Duration::ZERO,
        idle_memory: 1,
    };

    fn launch(name: &str, is_plain: bool) -> Arc<Launch> {
        Arc::new(Launch {
            backend: "b".into(),
            revision: 0,
            line: CommandLine {
                program: name.into(),
                args: Vec::new(),
                env: Vec::new(),
            },
            reading: Reading {
                framing: Framing::Lines,
                max_line: 1,
            },
            is_plain,
        })
    }

    fn lacking(lines: &Demand) -> usize {
        lines.lacking(Instant::now(), |_| 0).len()
    }

    fn policy() -> BTreeMap<String, PoolPolicy> {
        BTreeMap::from([("b".to_owned(), TERMS)])
    }

    fn lines() -> Demand {
        let mut lines = Demand::default();
        lines.configure(&[], policy());
        lines
    }

    #[test]
    fn plain_lines_are_wanted_at_once_and_others_when_they_come_back() {
        let mut lines = lines();
        lines.used(&launch("plain", true));
        assert_eq!(lacking(&lines), 1);
        let special = launch("special", false);
        lines.used(&special);
        assert_eq!(lacking(&lines), 1);
        lines.used(&special);
        assert_eq!(lacking(&lines), 2);
        assert_eq!(lines.lacking(Instant::now(), |_| 0)[0], special);
        lines.expire(Instant::now() + TERMS.max_age);
        assert_eq!(lacking(&lines), 0);
    }

    #[test]
    fn lines_are_few_and_configured_ones_stay() {
        let mut lines = Demand::default();
        let configured = launch("configured", true);
        lines.configure(std::slice::from_ref(&configured), policy());
        for number in 0..1000 {
            lines.used(&launch(&number.to_string(), true));
        }
        assert_eq!(lines.all.len(), LINES_MAX);
        assert!(lines.get(&configured).is_some() && lines.get(&launch("999", true)).is_some());
        lines.expire(Instant::now() + TERMS.max_age);
        assert_eq!(lines.all.len(), 1);
        lines.configure(&[], policy());
        lines.expire(Instant::now() + TERMS.max_age);
        assert_eq!(lines.all.len(), 0);
    }

    #[test]
    fn what_was_started_otherwise_is_in_use_no_more() {
        let mut lines = lines();
        let before = launch("x", true);
        lines.used(&before);
        let other = PoolPolicy {
            revision: 1,
            ..TERMS
        };
        lines.configure(&[], BTreeMap::from([("b".to_owned(), other)]));
        assert_eq!(lacking(&lines), 0);
        // A request that came before the change.
        lines.used(&before);
        assert_eq!((lacking(&lines), lines.warm(&before)), (0, 0));
    }

    #[test]
    fn troubles_and_distrust_start_nothing_ahead() {
        let mut lines = lines();
        let plain = launch("plain", true);
        lines.used(&plain);
        lines.failed(&plain);
        assert_eq!(lacking(&lines), 0);
        let later = Instant::now() + BACKOFF_LEAST;
        assert_eq!(lines.lacking(later, |_| 0).len(), 1);
        lines.suspend("b");
        assert_eq!(lines.lacking(later, |_| 0).len(), 0);
        assert!(lines.resume("b") && !lines.resume("b"));
        assert_eq!(lines.lacking(later, |_| 0).len(), 1);
    }
}
