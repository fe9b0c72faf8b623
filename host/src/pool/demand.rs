//! Which launches are in use, and how many warm processes each should have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::auto::{self, Busy};
use super::{Launch, PoolPolicy, Warm};

/// The pause before the next warm start after a warm process could not be started, or ended by itself. It doubles
/// each time.
const BACKOFF_LEAST: Duration = Duration::from_millis(500);
const BACKOFF_MOST: Duration = Duration::from_secs(300);

/// The most launches that are remembered. Each new limit on tokens that a client sends makes another one.
const LAUNCHES_MAX: usize = 64;

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
    /// How many of its processes serve, and did at once.
    busy: Busy,
    /// The memory of an idle process of it, in bytes, once measured.
    pub(super) size: Option<u64>,
    /// The configuration names it, so it is kept warm whether or not it is used.
    configured: bool,
    /// How often in a row its warm processes could not be started, or ended by themselves.
    failures_in_a_row: u32,
    retry_at: Instant,
}

impl Entry {
    /// Whether warm processes are started for it. A launch that is not plain, such as one with a limit on
    /// tokens, may never be used again, so it must have been used twice.
    fn is_wanted(&self) -> bool {
        self.configured || self.launch.is_plain || self.uses > 1
    }
}

impl Demand {
    pub(super) fn get(&self, launch: &Launch) -> Option<&Entry> {
        self.all.iter().find(|entry| *entry.launch == *launch)
    }

    fn get_mut(&mut self, launch: &Launch) -> Option<&mut Entry> {
        self.all.iter_mut().find(|entry| *entry.launch == *launch)
    }

    /// The policy for a launch; `None` if the backend's processes are started differently by now.
    pub(super) fn policy(&self, launch: &Launch) -> Option<&PoolPolicy> {
        let policy = self.policy.get(&launch.backend)?;
        (policy.revision == launch.revision).then_some(policy)
    }

    /// The memory that an idle process with this launch is assumed to have while none was measured,
    /// in bytes.
    pub(super) fn idle_memory(&self, launch: &Launch) -> u64 {
        self.policy
            .get(&launch.backend)
            .map_or(0, |policy| policy.idle_memory)
    }

    /// How many warm processes a launch should have, beside so many that are parked.
    fn wanted(&self, launch: &Launch, parked: usize) -> usize {
        self.count(launch, |busy, now| {
            auto::warm(busy.needed(now), busy.now(), parked)
        })
    }

    /// How many warm processes a launch may have. Others that serve or are parked are no reason to end one that is ready.
    pub(super) fn most(&self, launch: &Launch) -> usize {
        self.count(launch, |busy, now| auto::warm(busy.needed(now), 0, 0))
    }

    fn count(&self, launch: &Launch, auto: impl Fn(&Busy, Instant) -> usize) -> usize {
        match self.get(launch).zip(self.policy(launch)) {
            None => 0,
            Some((entry, policy)) => match policy.warm {
                Warm::Fixed(count) => count,
                Warm::Auto => auto(&entry.busy, Instant::now()),
            },
        }
    }

    /// A process with this launch begins to serve.
    pub(super) fn begins(&mut self, launch: &Launch) {
        if let Some(entry) = self.get_mut(launch) {
            entry.busy.begins(Instant::now());
        }
    }

    /// A process with this launch serves no longer.
    pub(super) fn ends(&mut self, launch: &Launch) {
        if let Some(entry) = self.get_mut(launch) {
            entry.busy.ends(Instant::now());
        }
    }

    /// Records a use. If there are too many launches, the one of least recent use is forgotten.
    pub(super) fn used(&mut self, launch: &Arc<Launch>) {
        if self.policy(launch).is_none() {
            return;
        }
        let now = Instant::now();
        if let Some(entry) = self.get_mut(launch) {
            entry.used = now;
            entry.uses = entry.uses.saturating_add(1);
            return;
        }
        if self.all.len() >= LAUNCHES_MAX {
            let all = self.all.iter().enumerate();
            let others = all.filter(|(_, entry)| !entry.configured);
            let Some((oldest, _)) = others.min_by_key(|(_, entry)| entry.used) else {
                return;
            };
            self.all.swap_remove(oldest);
        }
        self.all.push(Entry {
            launch: launch.clone(),
            used: now,
            uses: 1,
            busy: Busy::new(now),
            size: None,
            configured: false,
            failures_in_a_row: 0,
            retry_at: now,
        });
    }

    /// Records the memory of an idle process, in bytes.
    pub(super) fn measured(&mut self, launch: &Launch, size: u64) {
        if let Some(entry) = self.get_mut(launch) {
            entry.size = Some(size);
        }
    }

    /// Records that a warm process could not be started, or ended by itself.
    pub(super) fn record_failure(&mut self, launch: &Launch) {
        let Some(entry) = self.get_mut(launch) else {
            return;
        };
        let pause = BACKOFF_LEAST.saturating_mul(1 << entry.failures_in_a_row.min(16));
        entry.failures_in_a_row += 1;
        entry.retry_at = Instant::now() + pause.min(BACKOFF_MOST);
        if entry.failures_in_a_row == 3 {
            tracing::warn!(
                backend = entry.launch.backend,
                "warm processes of this backend do not start, or end before a request takes them: the pauses between warm starts get longer"
            );
        }
    }

    /// Records that a process that had been idle answered.
    pub(super) fn record_success(&mut self, launch: &Launch) {
        if let Some(entry) = self.get_mut(launch) {
            entry.failures_in_a_row = 0;
        }
    }

    pub(super) fn suspend(&mut self, backend: &str) {
        self.suspended.insert(backend.to_owned());
    }

    /// Ends the suspension of a backend. True if it was suspended.
    pub(super) fn resume(&mut self, backend: &str) -> bool {
        self.suspended.remove(backend)
    }

    pub(super) fn is_active(&self, backend: &str) -> bool {
        !self.suspended.contains(backend)
    }

    /// Applies a configuration: the launches that it names, and the policy of each backend.
    pub(super) fn configure(
        &mut self,
        launches: &[Arc<Launch>],
        policy: BTreeMap<String, PoolPolicy>,
    ) {
        self.policy = policy;
        for entry in &mut self.all {
            entry.configured = false;
        }
        for launch in launches {
            if self.get(launch).is_none() {
                self.used(launch);
            }
            if let Some(entry) = self.get_mut(launch) {
                entry.configured = true;
            }
        }
        self.expire(Instant::now());
    }

    /// Forgets launches that were not used for `max_age`, and those that the current configuration no longer
    /// starts.
    pub(super) fn expire(&mut self, now: Instant) {
        let mut all = std::mem::take(&mut self.all);
        all.retain(|entry| {
            let policy = self.policy(&entry.launch);
            policy.is_some_and(|policy| entry.configured || now < entry.used + policy.max_age)
        });
        self.all = all;
    }

    /// The launches that lack a warm process, the most recently used first. `idle` says how many processes of a launch are
    /// warm, and how many parked.
    pub(super) fn lacking(
        &self,
        now: Instant,
        idle: impl Fn(&Launch) -> (usize, usize),
    ) -> Vec<Arc<Launch>> {
        let mut lacking: Vec<&Entry> = self
            .all
            .iter()
            .filter(|entry| entry.is_wanted() && entry.retry_at <= now)
            .filter(|entry| self.is_active(&entry.launch.backend))
            .filter(|entry| {
                let (warm, parked) = idle(&entry.launch);
                warm < self.wanted(&entry.launch, parked)
            })
            .collect();
        lacking.sort_by_key(|entry| std::cmp::Reverse(entry.used));
        lacking.iter().map(|entry| entry.launch.clone()).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::LazyLock;

    use processes::{CommandLine, Framing, Reading};

    use super::*;
    use crate::backends::installation::Installation;

    const POLICY: PoolPolicy = PoolPolicy {
        revision: 0,
        warm: Warm::Fixed(1),
        max_age: Duration::from_secs(60),
        continue_for: Duration::ZERO,
        idle_memory: 1,
    };

    /// The one of all these launches.
    fn installation() -> Arc<Installation> {
        static ONE: LazyLock<Arc<Installation>> =
            LazyLock::new(|| Arc::new(Installation::new(Arc::default())));
        ONE.clone()
    }

    /// A launch of a program of this name.
    pub(in crate::pool) fn launch(name: &str, is_plain: bool) -> Arc<Launch> {
        Arc::new(Launch {
            backend: "b".into(),
            revision: 0,
            installation: installation(),
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

    fn lacking(demand: &Demand) -> usize {
        demand.lacking(Instant::now(), |_| (0, 0)).len()
    }

    fn policy() -> BTreeMap<String, PoolPolicy> {
        BTreeMap::from([("b".to_owned(), POLICY)])
    }

    fn demand() -> Demand {
        let mut demand = Demand::default();
        demand.configure(&[], policy());
        demand
    }

    #[test]
    fn plain_launches_are_wanted_at_once_and_others_when_they_come_back() {
        let mut demand = demand();
        demand.used(&launch("plain", true));
        assert_eq!(lacking(&demand), 1);
        let special = launch("special", false);
        demand.used(&special);
        assert_eq!(lacking(&demand), 1);
        demand.used(&special);
        assert_eq!(lacking(&demand), 2);
        assert_eq!(demand.lacking(Instant::now(), |_| (0, 0))[0], special);
        demand.expire(Instant::now() + POLICY.max_age);
        assert_eq!(lacking(&demand), 0);
    }

    #[test]
    fn launches_are_few_and_configured_ones_stay() {
        let mut demand = Demand::default();
        let configured = launch("configured", true);
        demand.configure(std::slice::from_ref(&configured), policy());
        for number in 0..1000 {
            demand.used(&launch(&number.to_string(), true));
        }
        assert_eq!(demand.all.len(), LAUNCHES_MAX);
        assert!(demand.get(&configured).is_some() && demand.get(&launch("999", true)).is_some());
        demand.expire(Instant::now() + POLICY.max_age);
        assert_eq!(demand.all.len(), 1);
        demand.configure(&[], policy());
        demand.expire(Instant::now() + POLICY.max_age);
        assert_eq!(demand.all.len(), 0);
    }

    #[test]
    fn what_was_started_otherwise_is_in_use_no_more() {
        let mut demand = demand();
        let before = launch("x", true);
        demand.used(&before);
        let other = PoolPolicy {
            revision: 1,
            ..POLICY
        };
        demand.configure(&[], BTreeMap::from([("b".to_owned(), other)]));
        assert_eq!(lacking(&demand), 0);
        // A request that began before the change uses the old launch again.
        demand.used(&before);
        assert_eq!((lacking(&demand), demand.most(&before)), (0, 0));
    }

    #[test]
    fn failures_and_suspension_start_nothing_ahead() {
        let mut demand = demand();
        let plain = launch("plain", true);
        demand.used(&plain);
        demand.record_failure(&plain);
        assert_eq!(lacking(&demand), 0);
        let later = Instant::now() + BACKOFF_LEAST;
        assert_eq!(demand.lacking(later, |_| (0, 0)).len(), 1);
        demand.suspend("b");
        assert_eq!(demand.lacking(later, |_| (0, 0)).len(), 0);
        assert!(demand.resume("b") && !demand.resume("b"));
        assert_eq!(demand.lacking(later, |_| (0, 0)).len(), 1);
    }
}
