//! What is known of requests that have ended: the ledger, and the latest ones in memory for whoever looks on.

use std::collections::VecDeque;
use std::sync::Arc;

use ledger::{Entry, Ledger};
use parking_lot::Mutex;
use tokio::sync::broadcast;

/// How many requests are remembered.
const RECENT_MAX: usize = 1000;

/// How many requests somebody who looks on may be behind.
const BEHIND_MAX: usize = 256;

/// Where each request is noted when it ends.
pub(crate) struct Books {
    pub(crate) ledger: Ledger,
    /// The latest ones, the newest last.
    recent: Mutex<VecDeque<Arc<Entry>>>,
    news: broadcast::Sender<Arc<Entry>>,
}

impl Books {
    /// With the ledger of these settings.
    ///
    /// # Errors
    ///
    /// Fails if there is no thread for the ledger.
    pub(crate) fn open(settings: Option<ledger::Settings>) -> std::io::Result<Books> {
        Ok(Books {
            ledger: Ledger::start(settings)?,
            recent: Mutex::default(),
            news: broadcast::Sender::new(BEHIND_MAX),
        })
    }

    /// Notes a request that has ended.
    pub(crate) fn record(&self, entry: Entry) {
        let entry = Arc::new(entry);
        let mut recent = self.recent.lock();
        if recent.len() >= RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(entry.clone());
        drop(recent);
        self.ledger.record(&entry);
        // Usually nobody looks on.
        let _ = self.news.send(entry);
    }

    /// The latest requests, the newest first.
    pub(crate) fn recent(&self, most: usize) -> Vec<Arc<Entry>> {
        let recent = self.recent.lock();
        recent.iter().rev().take(most).cloned().collect()
    }

    /// Every request that ends from now on.
    pub(crate) fn watch(&self) -> broadcast::Receiver<Arc<Entry>> {
        self.news.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_requests_come_first_and_the_oldest_are_forgotten() {
        let books = Books::open(None).unwrap();
        for at in 0..RECENT_MAX as u64 + 2 {
            books.record(Entry {
                at,
                ..Entry::default()
            });
        }
        let all = books.recent(usize::MAX);
        let (first, last) = (all[0].at, all[all.len() - 1].at);
        assert_eq!(
            (all.len(), first, last),
            (RECENT_MAX, RECENT_MAX as u64 + 1, 2)
        );
    }
}
