//! Places for connections: how many there may be, and which idle one is closed for a new one.
//!
//! A connection is idle while no request of it is being answered: it was opened for the next one, or its
//! client has not yet sent a whole head. Idle connections cost nothing to close, so they give way to
//! new ones, the longest idle first. Each listener has a share of its own, so that a crowd at one address
//! shuts out nobody at another. A peer that is not this machine has half of a share at most.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::config::Listen;

/// The most connections at once.
const CONNECTIONS_MAX: usize = 2048;

/// The least that a listener has, however few descriptors there are.
const SHARE_LEAST: usize = 8;

/// Descriptors of a connection: its socket, and another one to see its end by.
const DESCRIPTORS_PER_CONNECTION: usize = 2;

/// Descriptors of a process: three pipes, one to see its end by, and a working directory's.
const DESCRIPTORS_PER_PROCESS: usize = 6;

/// Descriptors of the service itself.
const OWN_DESCRIPTORS: usize = 64;

/// All places.
#[derive(Clone)]
pub(super) struct Places(Arc<Shared>);

struct Shared {
    most: usize,
    state: Mutex<State>,
    /// A place may have become free.
    freed: Notify,
}

#[derive(Default)]
struct State {
    /// How many listeners share the places.
    listeners: usize,
    next: u64,
    taken: BTreeMap<u64, Taken>,
}

struct Taken {
    at: Listen,
    peer: Option<IpAddr>,
    /// Since when it has been idle; None while a request is being answered.
    idle: Option<Instant>,
    /// Ends it.
    task: Option<AbortHandle>,
}

/// A connection's place, free when this is dropped.
pub(super) struct Place {
    places: Places,
    id: u64,
}

/// A request of a connection is being answered, until this is dropped.
pub(super) struct Busy {
    places: Places,
    id: u64,
}

impl Places {
    /// As many places as there are descriptors for, beside those of `processes` processes.
    pub(super) fn new(processes: usize) -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let descriptors = limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
        let taken = processes
            .saturating_mul(DESCRIPTORS_PER_PROCESS)
            .saturating_add(OWN_DESCRIPTORS);
        let free = descriptors.saturating_sub(taken) / DESCRIPTORS_PER_CONNECTION;
        Places::of(free.clamp(SHARE_LEAST, CONNECTIONS_MAX))
    }

    fn of(most: usize) -> Self {
        Places(Arc::new(Shared {
            most,
            state: Mutex::default(),
            freed: Notify::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    /// So many listeners share the places from now on.
    pub(super) fn share(&self, listeners: usize) {
        self.state().listeners = listeners;
    }

    /// Whether a connection to this listener can be taken now: there is a place, or an idle connection
    /// that gives way.
    pub(super) fn has_room(&self, at: &Listen) -> bool {
        let state = self.state();
        let mut here = state.taken.values().filter(|taken| taken.at == *at);
        here.clone().count() < self.share_of(&state) || here.any(|taken| taken.idle.is_some())
    }

    /// Whether nobody is connected.
    pub(super) fn are_free(&self) -> bool {
        self.state().taken.is_empty()
    }

    /// Waits until `has_room` may say something else.
    pub(super) async fn changed(&self) {
        self.0.freed.notified().await;
    }

    /// Takes a place for a connection. If need be, an idle connection is closed for it. None if the listener's
    /// share, or the peer's half of it, is taken by busy connections alone.
    pub(super) fn take(&self, at: &Listen, peer: Option<IpAddr>) -> Option<Place> {
        let mut state = self.state();
        let share = self.share_of(&state);
        // All programs of this machine are one peer.
        if let Some(peer) = peer.filter(|peer| !peer.is_loopback())
            && state.count(|taken| taken.at == *at && taken.peer == Some(peer)) >= share.div_ceil(2)
            && !state.give_way(|taken| taken.at == *at && taken.peer == Some(peer))
        {
            return None;
        }
        if state.count(|taken| taken.at == *at) >= share && !state.give_way(|taken| taken.at == *at)
        {
            return None;
        }
        let id = state.next;
        state.next += 1;
        let taken = Taken {
            at: at.clone(),
            peer,
            idle: Some(Instant::now()),
            task: None,
        };
        state.taken.insert(id, taken);
        drop(state);
        Some(Place {
            places: self.clone(),
            id,
        })
    }

    fn share_of(&self, state: &State) -> usize {
        (self.0.most / state.listeners.max(1)).max(SHARE_LEAST)
    }
}

impl State {
    fn count(&self, which: impl Fn(&Taken) -> bool) -> usize {
        self.taken.values().filter(|taken| which(taken)).count()
    }

    /// Ends the one of these that has been idle for longest. False if none is idle.
    fn give_way(&mut self, which: impl Fn(&Taken) -> bool) -> bool {
        let candidates = self.taken.iter().filter(|(_, taken)| which(taken));
        let longest = candidates
            .filter_map(|(id, taken)| Some((taken.idle?, *id)))
            .min();
        let Some((_, id)) = longest else {
            return false;
        };
        if let Some(task) = self.taken.remove(&id).and_then(|taken| taken.task) {
            task.abort();
        }
        true
    }
}

impl Place {
    /// The connection's task is this one.
    pub(super) fn serve(&self, task: AbortHandle) {
        match self.places.state().taken.get_mut(&self.id) {
            Some(taken) => taken.task = Some(task),
            // It had to give way before it began.
            None => task.abort(),
        }
    }

    /// What a connection's requests are counted by.
    pub(super) fn requests(&self) -> Requests {
        Requests {
            places: self.places.clone(),
            id: self.id,
        }
    }
}

/// Counts a connection's requests: HTTP/1 has one at a time.
#[derive(Clone)]
pub(super) struct Requests {
    places: Places,
    id: u64,
}

impl Requests {
    /// A request begins.
    pub(super) fn begin(&self) -> Busy {
        if let Some(taken) = self.places.state().taken.get_mut(&self.id) {
            taken.idle = None;
        }
        Busy {
            places: self.places.clone(),
            id: self.id,
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(taken) = self.places.state().taken.get_mut(&self.id) {
            taken.idle = Some(Instant::now());
        }
        self.places.0.freed.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.state().taken.remove(&self.id);
        self.places.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Listen {
        Listen::Tcp(([127, 0, 0, 1], port).into())
    }

    #[test]
    fn the_longest_idle_gives_way_and_busy_ones_do_not() {
        let places = Places::of(SHARE_LEAST);
        places.share(1);
        let all: Vec<Place> = (0..SHARE_LEAST)
            .map(|_| places.take(&at(1), None).unwrap())
            .collect();
        let busy = all[0].requests().begin();
        let new = places.take(&at(1), None).unwrap();
        let known = |place: &Place| places.state().taken.contains_key(&place.id);
        assert!(known(&all[0]) && !known(&all[1]) && known(&all[2]) && known(&new));
        let others: Vec<Busy> = all[2..]
            .iter()
            .map(|place| place.requests().begin())
            .collect();
        let last = new.requests().begin();
        assert!(!places.has_room(&at(1)) && places.take(&at(1), None).is_none());
        drop(busy);
        assert!(places.has_room(&at(1)) && places.take(&at(1), None).is_some());
        drop((others, last));
    }

    #[test]
    fn a_crowd_at_one_listener_leaves_the_other_its_share() {
        let places = Places::of(2 * SHARE_LEAST);
        places.share(2);
        let crowd: Vec<Place> = (0..SHARE_LEAST)
            .map(|_| places.take(&at(1), None).unwrap())
            .collect();
        let busy: Vec<Busy> = crowd.iter().map(|place| place.requests().begin()).collect();
        assert!(!places.has_room(&at(1)) && places.has_room(&at(2)));
        assert!(places.take(&at(2), None).is_some());
        drop(busy);
    }

    #[test]
    fn a_peer_has_half_of_a_share_and_its_own_idle_ones_give_way() {
        let places = Places::of(SHARE_LEAST);
        places.share(1);
        let peer = Some(IpAddr::from([192, 168, 0, 9]));
        let its: Vec<Place> = (0..SHARE_LEAST)
            .map(|_| places.take(&at(1), peer).unwrap())
            .collect();
        assert_eq!(places.state().taken.len(), SHARE_LEAST / 2);
        let kept = &its[SHARE_LEAST / 2..];
        let busy: Vec<Busy> = kept.iter().map(|place| place.requests().begin()).collect();
        assert!(places.take(&at(1), peer).is_none());
        assert!(
            places
                .take(&at(1), Some(IpAddr::from([192, 168, 0, 10])))
                .is_some()
        );
        drop(busy);
    }
}
