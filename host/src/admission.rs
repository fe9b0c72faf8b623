//! Lets as many requests through as a backend takes at once. A bounded number of others waits.
//!
//! Each caller has a queue of its own, and the queues are served in turn. So a caller that sends a hundred
//! requests delays its own, and not those of others. Callers are told apart by their keys, or else by
//! address and user agent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::config::{AdmissionConfig, KeyDigest};

/// The least and the most of a `Retry-After`: less would invite hammering, and more would be a guess.
const RETRY_LEAST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(600);

/// The `Retry-After` while it is not known how long answers take.
const RETRY_UNKNOWN: Duration = Duration::from_secs(5);

/// Smoothing factor of the moving average of hold times.
const SMOOTHING: f64 = 0.2;

/// Who calls: the digest of the caller's key, or `None` if it has no key.
pub(crate) type Caller = Option<KeyDigest>;

/// The way in to one backend.
pub(crate) struct Admission(Arc<Shared>);

struct Shared(Mutex<State>);

struct State {
    limits: AdmissionConfig,
    /// Places that are taken. May exceed the limit after it was lowered.
    taken: usize,
    /// The queues. The first one is served next. None is empty.
    queues: VecDeque<CallerQueue>,
    /// The number of the last ticket.
    tickets: u64,
    /// Moving average of how long a place is held, in seconds; `None` before the first one was given back.
    mean_hold: Option<f64>,
}

struct CallerQueue {
    caller: KeyDigest,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    ticket: u64,
    count: usize,
    answer: oneshot::Sender<Result<Permit, Shed>>,
}

/// Places at a backend, free again when this is dropped.
pub(crate) struct Permit {
    shared: Arc<Shared>,
    count: usize,
    since: Instant,
}

/// Why a request was not let through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Shed {
    /// As many wait as may.
    #[error("{waiting} requests are waiting already (`queue`)")]
    QueueFull {
        waiting: usize,
        /// When a place in the queue should be free.
        retry_after: Duration,
    },
    /// It waited as long as it may.
    #[error("no place became free within {waited:?} (`queue_timeout`)")]
    Waited {
        waited: Duration,
        /// When a place should be free.
        retry_after: Duration,
    },
}

impl Shed {
    /// When another attempt should succeed.
    pub(crate) fn retry_after(&self) -> Duration {
        match self {
            Shed::QueueFull { retry_after, .. } | Shed::Waited { retry_after, .. } => *retry_after,
        }
    }
}

impl Admission {
    pub(crate) fn new(limits: AdmissionConfig) -> Self {
        Admission(Arc::new(Shared(Mutex::new(State {
            limits,
            taken: 0,
            queues: VecDeque::new(),
            tickets: 0,
            mean_hold: None,
        }))))
    }

    /// Has other limits hold from now on. Nobody who is in or waits is sent away.
    pub(crate) fn limit(&self, limits: AdmissionConfig) {
        self.0.change(|state| state.limits = limits);
    }

    /// Waits until `count` places are free at the same time. If the backend has fewer places than that, it
    /// waits until all are free. A caller that stops waiting frees its place in the queue.
    pub(crate) async fn enter(&self, caller: KeyDigest, count: usize) -> Result<Permit, Shed> {
        let (ticket, answer, patience) = {
            let mut state = self.0.state();
            if state.queues.is_empty() && state.has_room(count) {
                state.taken += count;
                return Ok(Permit::new(&self.0, count));
            }
            let (sender, answer) = oneshot::channel();
            let ticket = state.wait(caller, count, sender)?;
            (ticket, answer, state.limits.queue_timeout)
        };
        let _leaves = Leaves {
            shared: &self.0,
            ticket,
        };
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(Shed::Waited {
                waited: patience,
                retry_after: self.0.state().retry_after(count),
            }),
        }
    }

    /// A place, if there is one and nobody waits for it.
    pub(crate) fn try_enter(&self) -> Option<Permit> {
        let mut state = self.0.state();
        if !state.queues.is_empty() || !state.has_room(1) {
            return None;
        }
        state.taken += 1;
        Some(Permit::new(&self.0, 1))
    }

    /// Places that are taken.
    pub(crate) fn in_flight(&self) -> usize {
        self.0.state().taken
    }

    /// Requests that wait now.
    pub(crate) fn queued(&self) -> usize {
        self.0.state().waiting()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// Changes the state, and then lets in all who may enter.
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let mut entered = Vec::new();
        while let Some(next) = state.next() {
            entered.push((Permit::new(self, next.count), next.answer));
        }
        drop(state);
        for (permit, answer) in entered {
            // A caller that left meanwhile gives its place back.
            drop(answer.send(Ok(permit)));
        }
    }
}

impl State {
    fn has_room(&self, count: usize) -> bool {
        self.taken + count <= self.limits.max_concurrent.max(count)
    }

    fn waiting(&self) -> usize {
        self.queues.iter().map(|line| line.waiting.len()).sum()
    }

    /// Puts a request at the end of its caller's queue. If as many requests wait as may, the last one of the
    /// longest queue is turned away to make room. But if that would make the longest queue shorter than this
    /// caller's, the new request is turned away.
    fn wait(
        &mut self,
        caller: KeyDigest,
        count: usize,
        answer: oneshot::Sender<Result<Permit, Shed>>,
    ) -> Result<u64, Shed> {
        let waiting = self.waiting();
        let full = Shed::QueueFull {
            waiting,
            retry_after: self.retry_after(count),
        };
        if waiting >= self.limits.queue {
            let mine = self
                .queue_of(&caller)
                .map_or(0, |at| self.queues[at].waiting.len());
            let longest = self.queues.iter_mut().max_by_key(|line| line.waiting.len());
            match longest.filter(|line| line.waiting.len() > mine + 1) {
                Some(line) => {
                    let last = line.waiting.pop_back();
                    drop(last.map(|last| last.answer.send(Err(full))));
                }
                None => return Err(full),
            }
        }
        self.tickets += 1;
        let ticket = self.tickets;
        let waiting = Waiting {
            ticket,
            count,
            answer,
        };
        match self.queue_of(&caller) {
            Some(at) => self.queues[at].waiting.push_back(waiting),
            None => self.queues.push_back(CallerQueue {
                caller,
                waiting: VecDeque::from([waiting]),
            }),
        }
        Ok(ticket)
    }

    fn queue_of(&self, caller: &KeyDigest) -> Option<usize> {
        self.queues.iter().position(|line| line.caller == *caller)
    }

    /// The next caller to enter, if there is room.
    fn next(&mut self) -> Option<Waiting> {
        let count = self.queues.front()?.waiting.front()?.count;
        if !self.has_room(count) {
            return None;
        }
        let mut line = self.queues.pop_front()?;
        let next = line.waiting.pop_front()?;
        if !line.waiting.is_empty() {
            self.queues.push_back(line);
        }
        self.taken += next.count;
        Some(next)
    }

    fn leave(&mut self, ticket: u64) {
        for line in &mut self.queues {
            line.waiting.retain(|waiting| waiting.ticket != ticket);
        }
        self.queues.retain(|line| !line.waiting.is_empty());
    }

    fn give_back(&mut self, count: usize, held: Duration) {
        self.taken = self.taken.saturating_sub(count);
        let held = held.as_secs_f64();
        let mean = self.mean_hold.unwrap_or(held);
        self.mean_hold = Some(mean + (held - mean) * SMOOTHING);
    }

    /// Estimates how long it takes until all requests that wait, and `count` places more, have been served: by
    /// the mean time for which a place was held so far.
    fn retry_after(&self, count: usize) -> Duration {
        let Some(mean) = self.mean_hold else {
            return RETRY_UNKNOWN;
        };
        let before = (self.waiting() + count) as f64 / self.limits.max_concurrent.max(1) as f64;
        let wait = (mean * before).min(RETRY_MOST.as_secs_f64());
        Duration::from_secs_f64(wait).max(RETRY_LEAST)
    }
}

impl Permit {
    fn new(shared: &Arc<Shared>, count: usize) -> Self {
        Permit {
            shared: shared.clone(),
            count,
            since: Instant::now(),
        }
    }

    /// One place of several, to be given back by itself. None if there is none left.
    pub(crate) fn split(&mut self) -> Option<Permit> {
        self.count = self.count.checked_sub(1)?;
        Some(Permit {
            shared: self.shared.clone(),
            count: 1,
            since: self.since,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.count > 0 {
            let held = self.since.elapsed();
            self.shared
                .change(|state| state.give_back(self.count, held));
        }
    }
}

/// Removes a caller that stops waiting from its queue.
struct Leaves<'a> {
    shared: &'a Arc<Shared>,
    ticket: u64,
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        // The next one in the queue may need fewer places.
        self.shared.change(|state| state.leave(self.ticket));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(places: usize, queue: usize, patience: Duration) -> Arc<Admission> {
        Arc::new(Admission::new(AdmissionConfig {
            max_concurrent: places,
            queue,
            queue_timeout: patience,
        }))
    }

    /// Enters in a task of its own.
    async fn waits(
        shared: &Arc<Admission>,
        caller: KeyDigest,
    ) -> tokio::task::JoinHandle<Result<Permit, Shed>> {
        let waiting = tokio::spawn({
            let shared = shared.clone();
            async move { shared.enter(caller, 1).await }
        });
        tokio::task::yield_now().await;
        waiting
    }

    const NOBODY: KeyDigest = [0; 32];
    const LONG: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn one_enters_one_waits_and_the_third_is_shed() {
        let shared = shared(1, 1, LONG);
        let first = shared.enter(NOBODY, 1).await.unwrap();
        let waiting = waits(&shared, NOBODY).await;
        let shed = shared.enter(NOBODY, 1).await;
        assert!(matches!(shed, Err(Shed::QueueFull { waiting: 1, .. })));
        drop(first);
        let second = waiting.await.unwrap().unwrap();
        assert_eq!((shared.in_flight(), shared.queued()), (1, 0));
        drop(second);
        drop(shared.enter(NOBODY, 1).await.unwrap());
        assert_eq!(shared.in_flight(), 0);
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_allowed() {
        let shared = shared(1, 1, Duration::from_millis(1));
        let _first = shared.enter(NOBODY, 1).await.unwrap();
        assert!(matches!(
            shared.enter(NOBODY, 1).await,
            Err(Shed::Waited { .. })
        ));
        assert_eq!(shared.queued(), 0);
    }

    #[tokio::test]
    async fn whoever_leaves_the_queue_frees_its_place() {
        let shared = shared(1, 1, LONG);
        let _first = shared.enter(NOBODY, 1).await.unwrap();
        for _ in 0..3 {
            let waits =
                tokio::time::timeout(Duration::from_millis(1), shared.enter(NOBODY, 1)).await;
            assert!(waits.is_err(), "it was let through or shed");
        }
    }

    #[tokio::test]
    async fn several_places_are_taken_at_once_and_given_back_one_by_one() {
        let shared = shared(2, 1, LONG);
        let mut both = shared.enter(NOBODY, 2).await.unwrap();
        let (one, other) = (both.split().unwrap(), both.split().unwrap());
        assert!(both.split().is_none());
        drop((one, both));
        assert_eq!(shared.in_flight(), 1);
        drop(other);
        assert_eq!(shared.in_flight(), 0);
    }

    #[tokio::test]
    async fn callers_take_turns_whoever_came_in_crowds() {
        let shared = shared(1, 4, LONG);
        let (crowd, single) = ([1; 32], [2; 32]);
        let first = shared.enter(crowd, 1).await.unwrap();
        let mut crowds = Vec::new();
        for _ in 0..4 {
            crowds.push(waits(&shared, crowd).await);
        }
        // The queue is full, of one caller: the last of his makes room.
        let other = waits(&shared, single).await;
        let shed = crowds.pop().unwrap().await.unwrap();
        assert!(matches!(shed, Err(Shed::QueueFull { .. })));
        assert!(matches!(
            shared.enter(crowd, 1).await,
            Err(Shed::QueueFull { .. })
        ));
        drop(first);
        let second = crowds.remove(0).await.unwrap().unwrap();
        drop(second);
        assert!(other.await.unwrap().is_ok(), "his turn came second");
    }

    #[tokio::test]
    async fn what_to_wait_is_what_it_should_take() {
        let shared = shared(2, 0, LONG);
        let mut both = shared.enter(NOBODY, 2).await.unwrap();
        let retry = shared.enter(NOBODY, 1).await.err().unwrap().retry_after();
        assert_eq!(retry, RETRY_UNKNOWN);
        both.since -= Duration::from_secs(40);
        drop(both.split());
        let retry = shared.enter(NOBODY, 2).await.err().unwrap().retry_after();
        assert_eq!(retry.as_secs(), 40, "two more, of two at once");
    }

    #[tokio::test]
    async fn limits_can_be_changed_while_some_wait() {
        let shared = shared(1, 2, LONG);
        let first = shared.enter(NOBODY, 1).await.unwrap();
        let waiting = waits(&shared, NOBODY).await;
        let limits = |places| AdmissionConfig {
            max_concurrent: places,
            queue: 0,
            queue_timeout: LONG,
        };
        shared.limit(limits(2));
        let second = waiting.await.unwrap().unwrap();
        shared.limit(limits(1));
        drop(first);
        assert!(
            shared.enter(NOBODY, 1).await.is_err(),
            "one place, and it is taken"
        );
        drop(second);
        assert!(shared.enter(NOBODY, 1).await.is_ok());
    }
}
