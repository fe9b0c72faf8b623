//! Finds guests, and decides which serve: what is built in, files, and the last good ones.
//!
//! ```text
//! folder, configuration ──► jobs ──► threads that admit ──► the next set
//! ```
//!
//! The loader only looks, reads and decides. Its owner says when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use basics::file_stamp::FileStamp;
use basics::plain;

use super::admit::{Candidate, GuestSource, Judges, Refused};
use super::cache::Cache;
use super::engine::Engine;
use super::folder::{self, File};
use super::jobs::{Admitted, Jobs, OnAdmitted};
use super::registry::{GuestSet, Successor};
use super::store::{RolledBack, Store};
use crate::settings::Settings;

/// The guests built into this program, each the component of a folder of `guests/`.
const EMBEDDED: [(&str, &[u8]); 8] = [
    (
        "claude-code",
        include_bytes!("../../../../guests/dist/claude-code.wasm"),
    ),
    (
        "completions",
        include_bytes!("../../../../guests/dist/completions.wasm"),
    ),
    (
        "messages",
        include_bytes!("../../../../guests/dist/messages.wasm"),
    ),
    (
        "ollama",
        include_bytes!("../../../../guests/dist/ollama.wasm"),
    ),
    (
        "prompt-template",
        include_bytes!("../../../../guests/dist/prompt-template.wasm"),
    ),
    (
        "redact",
        include_bytes!("../../../../guests/dist/redact.wasm"),
    ),
    (
        "responses",
        include_bytes!("../../../../guests/dist/responses.wasm"),
    ),
    (
        "system-prompt",
        include_bytes!("../../../../guests/dist/system-prompt.wasm"),
    ),
];

/// The built-in guests that speak other HTTP APIs. They serve unless they are turned off.
pub const DIALECTS: [&str; 4] = ["completions", "messages", "ollama", "responses"];

/// The built-in guests whose calls take no longer than their input is large. What the others do depends on their
/// configuration, too: a template may hold a loop.
const QUICK: [&str; 5] = [
    "claude-code",
    "completions",
    "messages",
    "ollama",
    "responses",
];

/// The built-in guest that is there when the service begins to listen. The others are compiled meanwhile.
const FIRST: &str = "claude-code";

/// The names of the guests built into this program.
pub fn built_in() -> impl Iterator<Item = &'static str> {
    EMBEDDED.into_iter().map(|(name, _)| name)
}

/// Whether the calls of a built-in guest take no longer than their input is large.
pub(crate) fn is_quick(name: &str) -> bool {
    QUICK.contains(&name)
}

/// The component of a built-in guest.
pub(crate) fn built_in_component(name: &str) -> Option<&'static [u8]> {
    let found = EMBEDDED.iter().find(|(known, _)| *known == name)?;
    Some(found.1)
}

/// Why the loader could not start. Without it, the service cannot start either.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The WebAssembly engine could not be started.
    #[error("cannot start the guests' engine: {0:#}")]
    Engine(wasmtime::Error),
    /// A built-in guest is bad.
    #[error("the guest `{name}` built into this program: {refused}")]
    Embedded {
        /// Its name.
        name: &'static str,
        /// Why it was refused.
        refused: Refused,
    },
}

/// Renews the set of guests.
pub struct Loader {
    settings: Settings,
    store: Store,
    set: Arc<GuestSet>,
    /// What the last visit saw of each file.
    seen: BTreeMap<String, FileStamp>,
    /// What each file looked like when it was last read.
    handled: BTreeMap<String, FileStamp>,
    jobs: Jobs,
}

impl Loader {
    /// Admits the first built-in guest, unless a file has its name, and starts the admission of all others.
    /// `judges` are what they are judged by. `on_admitted` must pass each result that it gets to
    /// [`Loader::admitted`].
    ///
    /// # Errors
    ///
    /// Fails if the WebAssembly engine cannot be started, or if a built-in guest is bad.
    pub fn start(
        settings: Settings,
        judges: Judges,
        on_admitted: OnAdmitted,
    ) -> Result<Self, StartError> {
        let engine =
            Engine::new(settings.limits.clone(), settings.instances).map_err(StartError::Engine)?;
        let cache = Cache::open(settings.cache_dir.as_deref());
        let mut loader = Loader {
            store: Store::open(&settings),
            jobs: Jobs::new(engine, cache, judges, on_admitted),
            settings,
            set: Arc::default(),
            seen: BTreeMap::new(),
            handled: BTreeMap::new(),
        };
        loader.set = Arc::new(loader.embedded()?);
        loader.warn_of_unknown();
        loader.visit(true);
        Ok(loader)
    }

    /// The set that is to serve.
    pub fn set(&self) -> &Arc<GuestSet> {
        &self.set
    }

    /// The names of guests that are being compiled.
    pub fn compiling(&self) -> BTreeSet<String> {
        self.jobs.names().cloned().collect()
    }

    /// The set to begin with: the first built-in guest, if it is used and no file takes its place.
    fn embedded(&self) -> Result<GuestSet, StartError> {
        let listed = folder::list(&self.settings.dir);
        let mut set = GuestSet {
            generation: 1,
            ..GuestSet::default()
        };
        let first = self.used().into_iter().filter(|(name, _)| *name == FIRST);
        for (name, bytes) in first {
            // A folder that cannot be read may hold a file of this name. So the built-in guest does not serve
            // in its place.
            if listed
                .as_ref()
                .map_or(true, |listed| listed.files.contains_key(name))
            {
                continue;
            }
            let settings = self.settings.guest(name);
            let candidate = Candidate::new(bytes, GuestSource::Embedded, &settings);
            match self.jobs.admit(&candidate) {
                Ok(guest) => drop(set.serving.insert(name.to_owned(), Arc::new(guest))),
                // The settings may be meant for a file that will take the place of the built-in guest.
                Err(refused @ Refused::Config(_)) => {
                    tracing::warn!(guest = name, %refused, "a built-in guest was not loaded");
                    set.rejected.insert(name.to_owned(), refused.to_string());
                }
                Err(refused) => return Err(StartError::Embedded { name, refused }),
            }
        }
        Ok(set)
    }

    /// The built-in guests that anything uses. The others are not loaded.
    fn used(&self) -> Vec<(&'static str, &'static [u8])> {
        let used = EMBEDDED.into_iter();
        used.filter(|(name, _)| !self.settings.guest(name).uses.is_empty())
            .collect()
    }

    /// Warns of sections `[guests.NAME]` that no guest reads.
    fn warn_of_unknown(&self) {
        let settings = &self.settings;
        for guest in &settings.named {
            let name = &guest.name;
            let known = EMBEDDED.iter().any(|(embedded, _)| embedded == name)
                || settings.file(name).exists()
                || settings.uses(name);
            if !known {
                let name = plain::line(name, 80);
                tracing::warn!(
                    "the configuration: `guests.{name}`: there is no guest of this name"
                );
            }
        }
    }

    /// Looks at the folder. Files that may still be being written wait for the next visit, unless the visit
    /// is `demanded`.
    pub fn visit(&mut self, demanded: bool) {
        self.give_way();
        let mut next = Successor::of(&self.set);
        self.visit_folder(demanded, &mut next);
        self.swap(next);
        self.jobs.start();
    }

    /// Puts the component before into the place of a guest that breaks one request after the other. The visit of the
    /// folder finds it there.
    fn give_way(&self) {
        for guest in self.set.serving.values() {
            if !guest.is_to_give_way() {
                continue;
            }
            // It is tried once.
            guest.served();
            let (name, times) = (&guest.name, guest.settings.give_way_after);
            if self.store.in_place(name).as_deref() != Some(&*guest.digest) {
                continue;
            }
            match self.store.roll_back(name, None) {
                Ok(RolledBack { to, .. }) => {
                    tracing::error!(guest = %name, from = &guest.digest[..12], to = &to[..12],
                        "it broke {times} requests in a row, so the component before takes its place");
                }
                Err(why) => {
                    tracing::error!(guest = %name, %why, "it broke {times} requests in a row");
                }
            }
        }
    }

    /// Takes another configuration: guests whose section changed are admitted again.
    pub fn configure(&mut self, settings: Settings) {
        let before = std::mem::replace(&mut self.settings, settings);
        self.warn_of_unknown();
        let mut next = Successor::of(&self.set);
        let embedded = EMBEDDED.iter().map(|(name, _)| (*name).to_owned());
        let known: BTreeSet<String> = self.handled.keys().cloned().chain(embedded).collect();
        for name in known {
            if before.guest(&name) == self.settings.guest(&name)
                && !next.set.rejected.contains_key(&name)
            {
                continue;
            }
            // If the guest is from a file, the next visit reads the file again. If not, the built-in guest is
            // admitted again here.
            if self.handled.remove(&name).is_none() && next.set.folder_problem.is_none() {
                self.return_to_embedded(&name, &mut next);
            }
        }
        self.swap(next);
    }

    fn visit_folder(&mut self, demanded: bool, next: &mut Successor) {
        let listing = match folder::list(&self.settings.dir) {
            Ok(listing) => listing,
            Err(error) => {
                let reason = format!("cannot look at {}: {error}", self.settings.dir.display());
                next.reject_folder(reason);
                for (name, _) in self.used() {
                    self.fall_back(name, next);
                }
                return;
            }
        };
        for (name, bytes) in self.used() {
            // No file takes the place of this built-in guest after all. At the start the folder could not be
            // read, or the file was there but is gone now.
            let is_known = next.set.serving.contains_key(name)
                || next.set.rejected.contains_key(name)
                || self.jobs.contains(name);
            if !is_known && !listing.files.contains_key(name) {
                self.offer(name, bytes.into(), GuestSource::Embedded, next);
            }
        }
        match listing.odd_names {
            0 => next.set.folder_problem = None,
            count => next.reject_folder(format!(
                "{count} of the files have names that no guest may have: letters, digits, `-`, `_` and `.`, at most 64"
            )),
        }
        let files = listing.files;
        for (name, file) in &files {
            let settled = demanded || self.seen.get(name) == Some(&file.stamp);
            if settled && self.handled.get(name) != Some(&file.stamp) {
                self.read_file(name, file, next);
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
            self.store.removed(&name);
            self.return_to_embedded(&name, next);
        }
        self.seen = files
            .into_iter()
            .map(|(name, file)| (name, file.stamp))
            .collect();
    }

    /// Replaces the set, if the next one differs.
    fn swap(&mut self, mut next: Successor) {
        next.set.compiling = self.compiling();
        if let Some(set) = next.finish(&self.set) {
            self.set = Arc::new(set);
        }
    }

    fn read_file(&mut self, name: &str, file: &File, next: &mut Successor) {
        let read = folder::read(file);
        // The file changed while it was read, so it is still being written. The next visit looks at it again.
        if FileStamp::of(&file.path) != Some(file.stamp) {
            return;
        }
        self.handled.insert(name.to_owned(), file.stamp);
        match read {
            Ok(bytes) => self.offer(name, bytes.into(), GuestSource::File, next),
            Err(error) => {
                let reason = format!("cannot read {}: {error}", file.path.display());
                next.reject(name, &reason);
                self.fall_back(name, next);
            }
        }
    }

    /// Starts the admission of a component, unless the same one serves already.
    fn offer(
        &mut self,
        name: &str,
        component: Arc<[u8]>,
        origin: GuestSource,
        next: &mut Successor,
    ) {
        let settings = self.settings.guest(name);
        let serving = next.set.serving.get(name);
        if serving.is_some_and(|guest| Candidate::new(&component, origin, &settings).is(guest)) {
            next.set.rejected.remove(name);
            self.jobs.cancel(name);
            return;
        }
        let cases = (origin == GuestSource::File).then(|| self.settings.cases(name));
        self.jobs.enqueue(settings, component, origin, cases);
    }

    /// Takes the result of an admission: the guest serves, or the reason is noted.
    pub fn admitted(&mut self, done: Admitted) {
        if !self.jobs.is_over(&done) {
            return;
        }
        let mut next = Successor::of(&self.set);
        match done.result {
            Ok(guest) => {
                match guest.origin {
                    GuestSource::File => self.store.keep(&guest, &done.component),
                    GuestSource::LastGood => {
                        tracing::warn!(guest = %guest.name, digest = &guest.digest[..12],
                            "its file is bad: the last good one serves");
                    }
                    GuestSource::Embedded => {}
                }
                let refused = guest.refused.clone();
                next.take(guest);
                if let Some(refused) = refused {
                    let refused = Refused::Config(refused);
                    next.reject(&done.name, &refused.to_string());
                }
            }
            // It was good once, and is refused now, for instance by another version of this program.
            Err(refused) if done.origin == GuestSource::LastGood => {
                tracing::warn!(guest = %done.name, %refused, "nor can the last good one be loaded");
            }
            Err(refused) => {
                next.reject(&done.name, &refused.to_string());
                self.fall_back(&done.name, &mut next);
            }
        }
        self.swap(next);
    }

    /// Looks for a substitute if a file is bad or the folder cannot be read. A guest of this name that serves
    /// already goes on. Otherwise the last good guest is tried, and never the built-in one.
    fn fall_back(&mut self, name: &str, next: &mut Successor) {
        let is_unreadable = next.set.folder_problem.is_some();
        let is_bad = self.handled.contains_key(name) || is_unreadable;
        if next.set.serving.contains_key(name) || self.jobs.contains(name) || !is_bad {
            return;
        }
        let settings = self.settings.guest(name);
        if let Some((component, settings)) = self.store.last_good(name, &settings) {
            self.jobs
                .enqueue(settings, component.into(), GuestSource::LastGood, None);
        }
    }

    /// A file is gone: the embedded guest of its name serves again. Without one, the guest that
    /// was loaded goes on as long as the service does, because models may depend on it.
    fn return_to_embedded(&mut self, name: &str, next: &mut Successor) {
        self.jobs.cancel(name);
        match built_in_component(name) {
            Some(bytes) => self.offer(name, bytes.into(), GuestSource::Embedded, next),
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
}
