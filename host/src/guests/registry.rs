//! The set of guests that serves, and the thread that renews it.
//!
//! A request takes the set's current guest and holds it to its end. The loader builds a whole
//! new set beside the current one and swaps it in; a file that is not admitted leaves the guest
//! that serves where it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::oneshot;

use super::admission::{Candidate, Guest, Origin, Refused, admit};
use super::cache::Cache;
use super::engine::Engine;
use super::folder::{self, File, Looks, VISIT};
use crate::config::{Config, Overrides};

/// The guests built into this program, each the component of a folder of `guests/`.
const EMBEDDED: [(&str, &[u8]); 1] = [(
    "claude-code",
    include_bytes!("../../../guests/dist/claude-code.wasm"),
)];

/// The name under which a bad configuration stands among what was rejected.
const CONFIGURATION: &str = "(configuration)";

/// The name under which a folder that cannot be read stands among what was rejected.
const FOLDER: &str = "(guests_dir)";

/// How long somebody who asks for a reload waits for it: compiling a large guest takes half a
/// minute.
const RELOAD: Duration = Duration::from_secs(120);

/// Exchanges at once that there is always room for, however many `max_concurrent` allows at the start.
const PLACES_LEAST: usize = 128;

/// What is done with a changed configuration.
pub(crate) type OnChange = Box<dyn Fn(&Config) + Send>;

/// The guests that serve, and the way to have them loaded again.
#[derive(Clone)]
pub(crate) struct Guests {
    current: Arc<ArcSwap<GuestSet>>,
    loader: Sender<oneshot::Sender<Reload>>,
}

/// A set of guests. It never changes; its successor has the next number.
#[derive(Clone, Default)]
pub(crate) struct GuestSet {
    pub(crate) generation: u64,
    pub(crate) serving: BTreeMap<String, Arc<Guest>>,
    /// What was not admitted, and why; a guest of the same name may serve all the same.
    pub(crate) rejected: BTreeMap<String, String>,
}

/// What came of looking for new guests.
#[derive(Debug, Serialize)]
pub(crate) struct Reload {
    generation: u64,
    /// The guests that are new, changed or gone.
    changed: BTreeSet<String>,
    /// What was not admitted, and why.
    rejected: BTreeMap<String, String>,
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
    /// Admits the embedded guests and those of the folder, and goes on looking for changes.
    /// `on_change` is told of each sound change of the configuration, on the loader's thread.
    pub(crate) fn start(config: &Config, on_change: OnChange) -> Result<Self, StartError> {
        let places: usize = config.backends.iter().map(|b| b.max_concurrent).sum();
        // Later configurations may have more of them.
        let places = places.max(PLACES_LEAST);
        let instances = u32::try_from(places).unwrap_or(u32::MAX).saturating_add(32);
        let engine =
            Engine::new(config.guest_limits.clone(), instances).map_err(StartError::Engine)?;
        let mut loader = Loader::new(engine, config, on_change);
        loader.admit_embedded()?;
        let current = loader.current.clone();
        loader.visit(true);
        let (sender, requests) = channel();
        std::thread::Builder::new()
            .name("guest-loader".into())
            .spawn(move || loader.run(&requests))?;
        Ok(Guests {
            current,
            loader: sender,
        })
    }

    /// The set that serves now.
    pub(crate) fn current(&self) -> Arc<GuestSet> {
        self.current.load_full()
    }

    /// Looks for changes at once, and tells what came of it; None if the loader is gone or stuck.
    pub(crate) async fn reload(&self) -> Option<Reload> {
        let (reply, answer) = oneshot::channel();
        self.loader.send(reply).ok()?;
        tokio::time::timeout(RELOAD, answer).await.ok()?.ok()
    }
}

/// Renews the set, on a thread that compiling may hold up.
struct Loader {
    engine: Engine,
    cache: Cache,
    current: Arc<ArcSwap<GuestSet>>,
    folder: PathBuf,
    /// What the last visit saw of each file.
    seen: BTreeMap<String, Looks>,
    /// What each file looked like when it was last read.
    handled: BTreeMap<String, Looks>,
    settings: Settings,
    on_change: OnChange,
}

/// The configuration, and the file it is in.
struct Settings {
    path: Option<PathBuf>,
    seen: Option<Looks>,
    handled: Option<Looks>,
    config: Config,
}

impl Loader {
    fn new(engine: Engine, config: &Config, on_change: OnChange) -> Self {
        let looks = config.source.as_deref().and_then(Looks::of);
        Loader {
            engine,
            cache: Cache::open(config.cache_dir.as_deref()),
            current: Arc::default(),
            folder: config.guests_dir.clone(),
            seen: BTreeMap::new(),
            handled: BTreeMap::new(),
            settings: Settings {
                path: config.source.clone(),
                seen: looks,
                handled: looks,
                config: config.clone(),
            },
            on_change,
        }
    }

    fn run(mut self, requests: &Receiver<oneshot::Sender<Reload>>) {
        loop {
            match requests.recv_timeout(VISIT) {
                Ok(reply) => {
                    // The caller may have gone; the visit was made all the same.
                    let _ = reply.send(self.visit(true));
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.visit(false);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn admit_embedded(&mut self) -> Result<(), StartError> {
        let mut set = GuestSet {
            generation: 1,
            ..GuestSet::default()
        };
        for (name, bytes) in EMBEDDED {
            let settings = self.settings.config.guest(name);
            let candidate = Candidate::new(bytes, Origin::Embedded, &settings);
            match admit(&self.engine, &self.cache, &candidate, set.generation) {
                Ok(guest) => drop(set.serving.insert(name.to_owned(), guest)),
                // Its settings may be meant for the file that takes its place.
                Err(refused @ Refused::Config { .. }) => {
                    tracing::warn!(guest = name, %refused, "a built-in guest was not loaded");
                    set.rejected.insert(name.to_owned(), refused.to_string());
                }
                Err(refused) => return Err(StartError::Embedded { name, refused }),
            }
        }
        self.current.store(Arc::new(set));
        Ok(())
    }

    /// Looks for changes. Files that may still be being written wait for the next visit, unless
    /// the visit is `demanded`.
    fn visit(&mut self, demanded: bool) -> Reload {
        let before = self.current.load_full();
        let mut next = Successor::of(&before);
        self.visit_settings(demanded, &mut next);
        let files = match folder::list(&self.folder) {
            Ok(files) => files,
            Err(error) => {
                next.reject(
                    FOLDER,
                    &format!("cannot look at {}: {error}", self.folder.display()),
                );
                return self.swap(&before, next);
            }
        };
        next.set.rejected.remove(FOLDER);
        for (name, file) in &files {
            let settled = demanded || self.seen.get(name) == Some(&file.looks);
            if settled && self.handled.get(name) != Some(&file.looks) {
                self.read_file(name, file, &mut next);
            }
        }
        let here = |name: &&String| {
            files.contains_key(*name) || (!demanded && self.seen.contains_key(*name))
        };
        let gone: Vec<String> = self
            .handled
            .keys()
            .filter(|name| !here(name))
            .cloned()
            .collect();
        for name in gone {
            self.handled.remove(&name);
            self.return_to_embedded(&name, &mut next);
        }
        self.seen = files
            .into_iter()
            .map(|(name, file)| (name, file.looks))
            .collect();
        self.swap(&before, next)
    }

    /// Has the next set serve, if it differs.
    fn swap(&self, before: &GuestSet, mut next: Successor) -> Reload {
        let report = next.report();
        if !report.changed.is_empty() || next.set.rejected != before.rejected {
            next.set.generation = report.generation;
            self.current.store(Arc::new(next.set));
        }
        report
    }

    fn read_file(&mut self, name: &str, file: &File, next: &mut Successor) {
        let read = folder::read(file);
        // Torn by a writer: what it looks like by then comes with the next visit.
        if Looks::of(&file.path) != Some(file.looks) {
            return;
        }
        self.handled.insert(name.to_owned(), file.looks);
        match read {
            Ok(bytes) => self.offer(name, &bytes, Origin::File, next),
            Err(error) => next.reject(
                name,
                &format!("cannot read {}: {error}", file.path.display()),
            ),
        }
    }

    /// Puts a component into the next set, unless the same one serves already.
    fn offer(&self, name: &str, bytes: &[u8], origin: Origin, next: &mut Successor) {
        let settings = self.settings.config.guest(name);
        let candidate = Candidate::new(bytes, origin, &settings);
        let serving = next.set.serving.get(name);
        if serving.is_some_and(|guest| candidate.is(guest)) {
            next.set.rejected.remove(name);
            return;
        }
        match admit(&self.engine, &self.cache, &candidate, next.number()) {
            Ok(guest) => next.take(guest),
            Err(refused) => next.reject(name, &refused.to_string()),
        }
    }

    /// A file is gone: the embedded guest of its name serves again. Without one, the guest that
    /// was loaded goes on as long as the service does, because models may depend on it.
    fn return_to_embedded(&self, name: &str, next: &mut Successor) {
        match EMBEDDED.iter().find(|(known, _)| *known == name) {
            Some((_, bytes)) => self.offer(name, bytes, Origin::Embedded, next),
            None if next.set.serving.contains_key(name) => {
                next.reject(
                    name,
                    "its file is gone; the guest that was loaded from it goes on",
                );
            }
            None => {
                next.set.rejected.remove(name);
            }
        }
    }

    /// Reads the configuration again if its file changed; guests whose section changed are
    /// admitted again.
    fn visit_settings(&mut self, demanded: bool, next: &mut Successor) {
        let Some(path) = self.settings.path.clone() else {
            return;
        };
        let looks = Looks::of(&path);
        let settled = demanded || self.settings.seen == looks;
        self.settings.seen = looks;
        // On demand it is read anyway: it may name a file of keys that changed.
        let changed = demanded || self.settings.handled != looks;
        if !settled || !changed || looks.is_none() {
            return;
        }
        self.settings.handled = looks;
        let overrides = &self.settings.config.overrides;
        let config = match Config::load(&Overrides {
            file: Some(path),
            ..overrides.clone()
        }) {
            Ok(config) => Config {
                overrides: overrides.clone(),
                ..config
            },
            Err(error) => return next.reject(CONFIGURATION, &error.to_string()),
        };
        next.set.rejected.remove(CONFIGURATION);
        if config == self.settings.config {
            return;
        }
        let before = std::mem::replace(&mut self.settings.config, config);
        self.folder.clone_from(&self.settings.config.guests_dir);
        (self.on_change)(&self.settings.config);
        let known: BTreeSet<String> = self
            .handled
            .keys()
            .cloned()
            .chain(EMBEDDED.iter().map(|(name, _)| (*name).to_owned()))
            .collect();
        for name in known {
            if before.guest(&name) == self.settings.config.guest(&name)
                && !next.set.rejected.contains_key(&name)
            {
                continue;
            }
            // A file is read again with the others of this visit.
            if self.handled.remove(&name).is_none() {
                self.return_to_embedded(&name, next);
            }
        }
    }
}

/// The next set while it is being built.
struct Successor {
    set: GuestSet,
    changed: BTreeSet<String>,
}

impl Successor {
    fn of(set: &GuestSet) -> Self {
        Successor {
            set: set.clone(),
            changed: BTreeSet::new(),
        }
    }

    fn number(&self) -> u64 {
        self.set.generation + 1
    }

    fn take(&mut self, guest: Arc<Guest>) {
        tracing::info!(
            guest = %guest.name, version = %guest.version, generation = guest.generation,
            digest = &guest.digest[..12], "a guest was loaded"
        );
        self.changed.insert(guest.name.clone());
        self.set.rejected.remove(&guest.name);
        self.set.serving.insert(guest.name.clone(), guest);
    }

    fn reject(&mut self, name: &str, reason: &str) {
        if self
            .set
            .rejected
            .get(name)
            .is_none_or(|known| known != reason)
        {
            tracing::warn!(guest = ?name, reason = ?reason, "a guest was not loaded; what served before goes on");
        }
        self.set.rejected.insert(name.to_owned(), reason.to_owned());
    }

    fn report(&self) -> Reload {
        let changed = !self.changed.is_empty();
        Reload {
            generation: if changed {
                self.number()
            } else {
                self.set.generation
            },
            changed: self.changed.clone(),
            rejected: self.set.rejected.clone(),
        }
    }
}
