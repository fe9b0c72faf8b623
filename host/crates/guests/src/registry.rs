//! The set of guests that serves, and how the next one is made of it.
//!
//! A set never changes. If other guests are to serve, a new set is made, with the next generation. If a file is
//! not admitted, the guest that serves stays in the set.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use basics::plain;

use super::admit::{Guest, GuestSource};

/// A set of guests.
#[derive(Clone, Default)]
pub struct GuestSet {
    /// Its number.
    pub generation: u64,
    /// What serves, by name.
    pub serving: BTreeMap<String, Arc<Guest>>,
    /// What was not admitted, and why; a guest of the same name may serve all the same.
    pub rejected: BTreeMap<String, String>,
    /// Names whose file is being compiled, whether an earlier guest serves meanwhile or none.
    pub compiling: BTreeSet<String>,
    /// What is wrong with the guests' folder itself.
    pub folder_problem: Option<String>,
}

impl GuestSet {
    /// Whether nothing serves for a name yet, because its file is still being compiled.
    pub fn is_pending(&self, name: &str) -> bool {
        self.compiling.contains(name) && !self.serving.contains_key(name)
    }

    /// Whether there is such a name.
    pub fn has_pending(&self) -> bool {
        self.compiling.iter().any(|name| self.is_pending(name))
    }

    /// Names of guests that are new, changed or gone since another set.
    pub fn changed_since(&self, before: &GuestSet) -> BTreeSet<String> {
        let names = before.serving.keys().chain(self.serving.keys());
        let same = |name: &&String| match (before.serving.get(*name), self.serving.get(*name)) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        names.filter(|name| !same(name)).cloned().collect()
    }
}

/// The next set while it is being built.
pub(super) struct Successor {
    pub(super) set: GuestSet,
    changed: bool,
}

impl Successor {
    pub(super) fn of(set: &GuestSet) -> Self {
        Successor {
            set: set.clone(),
            changed: false,
        }
    }

    /// Adds a guest that was admitted, in place of the last one of its name.
    pub(super) fn take(&mut self, mut guest: Guest) {
        guest.generation = self.set.generation + 1;
        self.changed = true;
        if guest.origin != GuestSource::LastGood {
            self.set.rejected.remove(&guest.name);
        }
        self.set.serving.insert(guest.name.clone(), Arc::new(guest));
    }

    /// Notes why a guest was not admitted.
    pub(super) fn reject(&mut self, name: &str, reason: &str) {
        let known = self.set.rejected.get(name);
        if known.is_none_or(|known| known != reason) {
            let reason = plain::line(reason, 500);
            tracing::warn!(guest = %plain::line(name, 80), reason, "a guest was not loaded; what served before goes on");
        }
        self.set.rejected.insert(name.to_owned(), reason.to_owned());
    }

    /// Notes what is wrong with the folder.
    pub(super) fn reject_folder(&mut self, reason: String) {
        if self.set.folder_problem.as_ref() != Some(&reason) {
            let reason = plain::line(&reason, 500);
            tracing::warn!(
                reason,
                "there is a problem with the guests' folder; what served before goes on"
            );
        }
        self.set.folder_problem = Some(reason);
    }

    /// The set, if it differs from the one before.
    pub(super) fn finish(mut self, before: &GuestSet) -> Option<GuestSet> {
        if self.changed {
            self.set.generation += 1;
        }
        let differs = self.set.rejected != before.rejected
            || self.set.compiling != before.compiling
            || self.set.folder_problem != before.folder_problem;
        (self.changed || differs).then_some(self.set)
    }
}
