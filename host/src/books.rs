//! What is known of requests that have ended: the ledger, traces, and the latest ones in memory for whoever looks on.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::http::HeaderMap;
use ledger::{Entry, Ledger};
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::config::{Config, TracesConfig};
use crate::traces::{Trace, Traces};

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
    traces: Mutex<Option<Arc<Traces>>>,
}

impl Books {
    /// With the ledger and the traces of a configuration.
    ///
    /// # Errors
    ///
    /// Fails if there is no thread for the ledger.
    pub(crate) fn open(config: &Config) -> Result<Books> {
        let ledger = Ledger::start(config.ledger.clone());
        let books = Books::of(ledger.context("cannot start the thread of the ledger")?);
        books.trace_to(config.traces.as_ref());
        Ok(books)
    }

    fn of(ledger: Ledger) -> Books {
        Books {
            ledger,
            recent: Mutex::default(),
            news: broadcast::Sender::new(BEHIND_MAX),
            traces: Mutex::default(),
        }
    }

    /// Takes another configuration. This waits for a moment.
    pub(crate) fn change(&self, config: &Config) {
        self.ledger.change(config.ledger.clone());
        self.trace_to(config.traces.as_ref());
    }

    /// Sends traces where these settings say. If that is not possible, there are none.
    fn trace_to(&self, settings: Option<&TracesConfig>) {
        let current = self.traces();
        let is_same = match &current {
            None => settings.is_none(),
            Some(traces) => traces.has(settings),
        };
        if is_same {
            return;
        }
        let next = settings.map(Traces::start).transpose();
        let next = next.unwrap_or_else(|error| {
            tracing::warn!(error = format!("{error:#}"), "traces are not sent");
            None
        });
        *self.traces.lock() = next.map(Arc::new);
        if let Some(before) = current {
            before.stop();
        }
    }

    /// Where traces are sent now, if they are.
    pub(crate) fn traces(&self) -> Option<Arc<Traces>> {
        self.traces.lock().clone()
    }

    /// The trace of a request with these headers.
    pub(crate) fn trace(&self, headers: &HeaderMap) -> Trace {
        match self.traces().is_some() {
            true => Trace::begin(headers),
            false => Trace::default(),
        }
    }

    /// Sends the last spans. This waits for a moment.
    pub(crate) fn stop_traces(&self) {
        let traces = self.traces.lock().take();
        if let Some(traces) = traces {
            traces.stop();
        }
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
        let books = Books::of(Ledger::start(None).unwrap());
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
