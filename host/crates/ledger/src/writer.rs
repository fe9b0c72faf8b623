//! The thread that writes the ledger.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::store::{self, Store};
use crate::{Entry, LedgerError, Settings, State};

/// How long an entry waits for others to be written with it.
const BATCH_WAIT: Duration = Duration::from_millis(500);

/// How many entries are written at once.
const BATCH_MAX: usize = 512;

/// How many entries are kept in memory while nothing can be written: about 3 MiB. The oldest go first.
const WAITING_MAX: usize = 10_000;

/// How long after a failure the file is tried again.
const RETRY_WAIT: Duration = Duration::from_secs(5);

/// How often what is too old is taken out.
const TIDY_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// What the thread is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// A request has ended.
    Entry(Arc<Entry>),
    /// The settings are others now.
    Change(Option<Settings>),
    /// Say whether everything is written.
    Flush(SyncSender<bool>),
}

/// Writes until there is nobody any more who could send something.
pub(crate) fn run(messages: &Receiver<Message>, state: &State) {
    let mut writer = Writer {
        state,
        clock: Clock::start(),
        settings: None,
        store: None,
        inode: None,
        waiting: VecDeque::new(),
        due: None,
        tidied: None,
    };
    loop {
        let wait = writer.due.map_or(TIDY_INTERVAL, |due| {
            due.saturating_duration_since(Instant::now())
        });
        match messages.recv_timeout(wait) {
            Ok(Message::Entry(entry)) => writer.take(entry),
            Ok(Message::Change(settings)) => writer.change(settings),
            Ok(Message::Flush(done)) => {
                writer.write();
                // Whoever asked may have lost patience.
                let _ = done.try_send(writer.waiting.is_empty());
            }
            Err(RecvTimeoutError::Timeout) => writer.write(),
            Err(RecvTimeoutError::Disconnected) => return writer.write(),
        }
    }
}

struct Writer<'s> {
    state: &'s State,
    clock: Clock,
    settings: Option<Settings>,
    /// None while it is not open.
    store: Option<Store>,
    waiting: VecDeque<Arc<Entry>>,
    /// The file that was written last, or tried.
    inode: Option<u64>,
    /// When something is to be written, or tried again.
    due: Option<Instant>,
    tidied: Option<Instant>,
}

impl Writer<'_> {
    fn take(&mut self, entry: Arc<Entry>) {
        if self.settings.is_none() {
            return;
        }
        self.waiting.push_back(entry);
        if self.waiting.len() > WAITING_MAX {
            self.waiting.pop_front();
            self.state.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.due.get_or_insert_with(|| Instant::now() + BATCH_WAIT);
        if self.waiting.len() >= BATCH_MAX && self.store.is_some() {
            self.write();
        }
    }

    fn change(&mut self, settings: Option<Settings>) {
        if self.settings == settings {
            return;
        }
        self.write();
        self.settings = settings;
        (self.store, self.tidied) = (None, None);
        self.set_problem(None);
        // The file is opened now, so that what is wrong with it is known before the first request.
        self.write();
    }

    /// Writes what waits. After a failure it is tried again later.
    fn write(&mut self) {
        let Some(settings) = self.settings.clone() else {
            self.waiting.clear();
            self.due = None;
            return;
        };
        match self.try_to_write(&settings) {
            Ok(()) => {
                self.due = None;
                self.set_problem(None);
            }
            Err(error) => {
                self.store = None;
                self.due = Some(Instant::now() + RETRY_WAIT);
                if store::is_broken(&error) {
                    self.replace(&settings, &error);
                } else {
                    self.set_problem(Some(error.to_string()));
                }
            }
        }
    }

    fn try_to_write(&mut self, settings: &Settings) -> Result<(), LedgerError> {
        if self.store.as_ref().is_some_and(Store::is_gone) {
            tracing::warn!("the ledger's file was moved or deleted: a new one begins");
            self.store = None;
        }
        self.inode = store::inode(&settings.path);
        let store = match &mut self.store {
            Some(store) => store,
            none => none.insert(Store::open(&settings.path)?),
        };
        while !self.waiting.is_empty() {
            let batch = self.waiting.len().min(BATCH_MAX);
            store.write(self.waiting.iter().take(batch).map(AsRef::as_ref))?;
            self.waiting.drain(..batch);
        }
        if self.tidied.is_none_or(|at| at.elapsed() >= TIDY_INTERVAL) {
            store.tidy(settings, self.clock.now())?;
            self.tidied = Some(Instant::now());
        }
        Ok(())
    }

    /// Begins a new file in the place of a broken one, which is kept.
    fn replace(&mut self, settings: &Settings, error: &LedgerError) {
        if store::inode(&settings.path) != self.inode {
            // Another service has done it.
            self.due = Some(Instant::now());
            return;
        }
        match store::put_aside(&settings.path, self.clock.now()) {
            Ok(aside) => {
                let aside = aside.display();
                tracing::warn!(%error, "the ledger is broken: it lies at {aside} now, and a new one begins");
                self.due = Some(Instant::now());
            }
            Err(cannot) => {
                self.set_problem(Some(format!("{error}; it cannot be put aside: {cannot}")));
            }
        }
    }

    fn set_problem(&self, problem: Option<String>) {
        let mut known = self.state.problem.lock();
        if *known == problem {
            return;
        }
        match &problem {
            Some(problem) => {
                tracing::warn!(%problem, "the ledger cannot be written: requests are served, and not accounted for");
            }
            None => tracing::info!("the ledger is written again"),
        }
        *known = problem;
    }
}

/// The time, as it is used to tell what is old. A wall clock that jumps ahead must not make everything old, so it counts
/// no more time than has really passed since the start.
struct Clock {
    began: Instant,
    began_at: u64,
}

impl Clock {
    fn start() -> Clock {
        Clock {
            began: Instant::now(),
            began_at: wall_clock(),
        }
    }

    /// Milliseconds since the Unix epoch.
    fn now(&self) -> u64 {
        self.at(wall_clock(), self.began.elapsed())
    }

    /// The time when the clock on the wall says `wall`, and so much time has really passed.
    fn at(&self, wall: u64, passed: Duration) -> u64 {
        let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        wall.min(self.began_at.saturating_add(passed))
    }
}

fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_ahead_makes_nothing_old() {
        let clock = Clock {
            began: Instant::now(),
            began_at: 1_000_000,
        };
        let minute = Duration::from_secs(60);
        assert_eq!(clock.at(1_060_000, minute), 1_060_000);
        assert_eq!(clock.at(u64::MAX, minute), 1_060_000);
        assert_eq!(clock.at(5, minute), 5);
    }
}
