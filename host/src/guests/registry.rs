//! The set of guests that serves.
//!
//! A request takes the set's current guest and holds it to its end. The [`loader`](super::loader)
//! swaps in a whole new set; a file that is not admitted leaves the guest that serves where it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::admit::{Guest, Refused};
use super::engine::Engine;
use super::loader::{Loader, Message};
use crate::config::Config;

/// How long somebody who asks for a reload waits for the loader. It answers sooner, and names the
/// guests that are still being compiled.
const RELOAD: Duration = Duration::from_secs(60);

/// Exchanges at once that there is always room for, however many `max_concurrent` allows at the start.
const PLACES_LEAST: usize = 128;

/// What is done with a changed configuration.
pub(crate) type OnChange = Box<dyn Fn(&Config) + Send>;

/// The guests that serve, and the way to have them loaded again.
#[derive(Clone)]
pub(crate) struct Guests {
    current: watch::Receiver<Arc<GuestSet>>,
    loader: Sender<Message>,
}

/// A set of guests. It never changes; its successor has the next number.
#[derive(Clone, Default)]
pub(crate) struct GuestSet {
    pub(crate) generation: u64,
    pub(crate) serving: BTreeMap<String, Arc<Guest>>,
    /// What was not admitted, and why; a guest of the same name may serve all the same.
    pub(crate) rejected: BTreeMap<String, String>,
    /// Names for which nothing serves yet, because a file is still being compiled.
    pub(crate) pending: BTreeSet<String>,
}

/// What came of looking for new guests.
#[derive(Debug, Serialize)]
pub(crate) struct Reload {
    pub(super) generation: u64,
    /// The guests that are new, changed or gone.
    pub(super) changed: BTreeSet<String>,
    /// What was not admitted, and why.
    pub(super) rejected: BTreeMap<String, String>,
    /// What is still being compiled.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) pending: BTreeSet<String>,
}

/// A start without which nothing can be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("cannot start the guests' engine: {0:#}")]
    Engine(wasmtime::Error),
    #[error("the guest `{name}` built into this program: {refused}")]
    Embedded {
        name: &'static str,
        refused: Refused,
    },
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl Guests {
    /// Admits the built-in guests, and goes on looking for those of the folder and for changes.
    /// `on_change` is told of each sound change of the configuration, on the loader's thread.
    pub(crate) fn start(config: &Config, on_change: OnChange) -> Result<Self, StartError> {
        let places: usize = config.backends.iter().map(|b| b.max_concurrent).sum();
        // Later configurations may have more of them.
        let places = places.max(PLACES_LEAST);
        let instances = u32::try_from(places).unwrap_or(u32::MAX).saturating_add(32);
        let engine =
            Engine::new(config.guest_limits.clone(), instances).map_err(StartError::Engine)?;
        let (set, current) = watch::channel(Arc::default());
        let (sender, messages) = channel();
        let mut loader = Loader::new(engine, config, on_change, set, sender.clone());
        loader.begin()?;
        std::thread::Builder::new()
            .name("guest-loader".into())
            .spawn(move || loader.run(&messages))?;
        Ok(Guests {
            current,
            loader: sender,
        })
    }

    /// The set that serves now.
    pub(crate) fn current(&self) -> Arc<GuestSet> {
        self.current.borrow().clone()
    }

    /// The guest of this name; one that is being compiled is waited for until `deadline`.
    pub(crate) async fn find(&self, name: &str, deadline: Instant) -> Option<Arc<Guest>> {
        let mut current = self.current.clone();
        let known = current.wait_for(|set| !set.pending.contains(name));
        let set = tokio::time::timeout_at(deadline, known).await.ok()?.ok()?;
        set.serving.get(name).cloned()
    }

    /// FileStamp for changes at once, and tells what came of it; None if the loader is gone or stuck.
    pub(crate) async fn reload(&self) -> Option<Reload> {
        let (reply, answer) = oneshot::channel();
        self.loader.send(Message::Reload(reply)).ok()?;
        tokio::time::timeout(RELOAD, answer).await.ok()?.ok()
    }
}
