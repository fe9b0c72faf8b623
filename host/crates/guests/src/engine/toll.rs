//! What the calls of each guest take.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a guest is suspect after the last call for which it is. It is long enough that one which does its worst
/// at each request stays so, and one that is put right is trusted again soon.
const SUSPECT_FOR: Duration = Duration::from_mins(1);

/// What the calls of one guest have taken since the start, whatever component had its name.
#[derive(Debug, Default)]
pub(crate) struct Toll {
    calls: AtomicU64,
    nanos: AtomicU64,
    broken: AtomicU64,
    last_error: Mutex<Option<String>>,
    /// When a request's call last trapped, broke a bound or took long.
    suspect_since: Mutex<Option<Instant>>,
}

/// The tolls of all guests, by name.
pub(super) type Tolls = Mutex<HashMap<String, Arc<Toll>>>;

/// What the calls of a guest have taken so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// How many calls.
    pub calls: u64,
    /// How long they took together, by the clock.
    pub time: Duration,
    /// How many of them broke a bound or a rule, traps included.
    pub broken: u64,
    /// What the last of these did.
    pub last_error: Option<String>,
}

impl Toll {
    pub(super) fn of(tolls: &Tolls, guest: &str) -> Arc<Toll> {
        let mut tolls = tolls.lock();
        match tolls.get(guest) {
            Some(toll) => toll.clone(),
            None => tolls.entry(guest.to_owned()).or_default().clone(),
        }
    }

    pub(super) fn add(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(super) fn broke(&self, error: String) {
        self.broken.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock() = Some(error);
    }

    /// From now on, for a while, the guest is suspect.
    pub(crate) fn suspect(&self) {
        *self.suspect_since.lock() = Some(Instant::now());
    }

    /// Whether one of its calls lately trapped, broke a bound or took long.
    pub(crate) fn is_suspect(&self) -> bool {
        let since = *self.suspect_since.lock();
        since.is_some_and(|since| since.elapsed() < SUSPECT_FOR)
    }

    pub(crate) fn taken(&self) -> Taken {
        Taken {
            calls: self.calls.load(Ordering::Relaxed),
            time: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)),
            broken: self.broken.load(Ordering::Relaxed),
            last_error: self.last_error.lock().clone(),
        }
    }
}
