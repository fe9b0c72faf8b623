//! Renews the set of guests that serves, on threads that compiling may hold up.
//!
//! ```text
//! loader's thread: folder, configuration ──► jobs ──► threads that admit ──► the next set
//! ```
//!
//! The loader itself only looks, reads and swaps, so that a changed configuration is taken up
//! at once, whatever is being compiled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::admit::{Candidate, Guest, GuestSource, Refused, admit};
use super::cache::Cache;
use super::engine::Engine;
use super::folder::{self, File, FileStamp, POLL_INTERVAL};
use super::last_good::LastGood;
use super::registry::{GuestSet, OnChange, Reload, StartError};
use crate::config::{self, Config, Overrides};
use crate::plain;

/// The guests built into this program, each the component of a folder of `guests/`.
const EMBEDDED: [(&str, &[u8]); 1] = [(
    "claude-code",
    include_bytes!("../../../guests/dist/claude-code.wasm"),
)];

/// The name under which a bad configuration stands among what was rejected.
const CONFIGURATION: &str = "(configuration)";

/// The name under which a folder that cannot be read stands among what was rejected.
const FOLDER: &str = "(guests_dir)";

/// Guests that are admitted at once.
const JOBS_AT_ONCE: usize = 2;

/// How long an answer to `reload` waits for guests that are being compiled.
const REPLY_AFTER: Duration = Duration::from_secs(30);

/// What the loader is told.
pub(super) enum Message {
    /// Look for changes now, and tell what came of it.
    Reload(oneshot::Sender<Reload>),
    /// A job is done.
    Done(Box<Done>),
}

/// A component that stands for admission.
struct Job {
    ticket: u64,
    settings: config::Guest,
    component: Arc<[u8]>,
    origin: GuestSource,
}

/// What became of a job.
pub(super) struct Done {
    ticket: u64,
    name: String,
    origin: GuestSource,
    component: Arc<[u8]>,
    result: Result<Guest, Refused>,
}

/// Somebody who waits for what comes of a reload.
struct Waiting {
    reply: oneshot::Sender<Reload>,
    before: Arc<GuestSet>,
    until: Instant,
}

/// Renews the set.
pub(super) struct Loader {
    engine: Engine,
    cache: Arc<Cache>,
    last_good: LastGood,
    set: watch::Sender<Arc<GuestSet>>,
    folder: PathBuf,
    /// What the last visit saw of each file.
    seen: BTreeMap<String, FileStamp>,
    /// What each file looked like when it was last read.
    handled: BTreeMap<String, FileStamp>,
    settings: Settings,
    on_change: OnChange,
    /// For the threads that admit.
    done: Sender<Message>,
    queue: VecDeque<Job>,
    running: usize,
    /// The latest job of each name.
    jobs: BTreeMap<String, u64>,
    tickets: u64,
    waiting: Vec<Waiting>,
}

/// The configuration, and the file it is in.
struct Settings {
    path: Option<PathBuf>,
    seen: Option<FileStamp>,
    handled: Option<FileStamp>,
    config: Config,
}

impl Loader {
    pub(super) fn new(
        engine: Engine,
        config: &Config,
        on_change: OnChange,
        set: watch::Sender<Arc<GuestSet>>,
        done: Sender<Message>,
    ) -> Self {
        let stamp = config.source.as_deref().and_then(FileStamp::of);
        Loader {
            engine,
            cache: Arc::new(Cache::open(config.cache_dir.as_deref())),
            last_good: LastGood::open(config.state_dir.as_deref(), &config.guests_dir),
            set,
            folder: config.guests_dir.clone(),
            seen: BTreeMap::new(),
            handled: BTreeMap::new(),
            settings: Settings {
                path: config.source.clone(),
                seen: stamp,
                handled: stamp,
                config: config.clone(),
            },
            on_change,
            done,
            queue: VecDeque::new(),
            running: 0,
            jobs: BTreeMap::new(),
            tickets: 0,
            waiting: Vec::new(),
        }
    }

    /// Admits the built-in guests whose place no file takes, and begins with the files.
    pub(super) fn begin(&mut self) -> Result<(), StartError> {
        let listed = folder::list(&self.folder);
        let mut set = GuestSet {
            generation: 1,
            ..GuestSet::default()
        };
        for (name, bytes) in EMBEDDED {
            // Nobody knows what is in a folder that cannot be read: no built-in guest takes a place there.
            if listed
                .as_ref()
                .map_or(true, |listed| listed.files.contains_key(name))
            {
                continue;
            }
            let settings = self.settings.config.guest(name);
            match admit(
                &self.engine,
                &self.cache,
                &Candidate::new(bytes, GuestSource::Embedded, &settings),
            ) {
                Ok(guest) => drop(set.serving.insert(name.to_owned(), Arc::new(guest))),
                // Its settings may be meant for the file that takes its place.
                Err(refused @ Refused::Config { .. }) => {
                    tracing::warn!(guest = name, %refused, "a built-in guest was not loaded");
                    set.rejected.insert(name.to_owned(), refused.to_string());
                }
                Err(refused) => return Err(StartError::Embedded { name, refused }),
            }
        }
        self.set.send_replace(Arc::new(set));
        self.warn_of_unknown();
        self.visit(true);
        Ok(())
    }

    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        loop {
            match messages.recv_timeout(POLL_INTERVAL) {
                Ok(Message::Reload(reply)) => {
                    let before = self.current();
                    self.visit(true);
                    self.waiting.push(Waiting {
                        reply,
                        before,
                        until: Instant::now() + REPLY_AFTER,
                    });
                }
                Ok(Message::Done(done)) => self.finish(*done),
                Err(RecvTimeoutError::Timeout) => self.visit(false),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.start_jobs();
            self.reply();
        }
    }

    /// Warns of sections `[guests.NAME]` that no guest reads.
    fn warn_of_unknown(&self) {
        let config = &self.settings.config;
        for guest in &config.guests {
            let name = &guest.name;
            let known = EMBEDDED.iter().any(|(embedded, _)| embedded == name)
                || config.guest_file(name).exists()
                || config
                    .backends
                    .iter()
                    .any(|backend| backend.adapter == *name);
            if !known {
                let name = plain::line(name, 80);
                tracing::warn!(
                    "the configuration: `guests.{name}`: there is no guest of this name"
                );
            }
        }
    }

    fn current(&self) -> Arc<GuestSet> {
        self.set.borrow().clone()
    }

    /// Answers those whose jobs are done, or who have waited for long enough.
    fn reply(&mut self) {
        let (current, now) = (self.current(), Instant::now());
        let pending: BTreeSet<String> = self.jobs.keys().cloned().collect();
        for waiting in std::mem::take(&mut self.waiting) {
            if !pending.is_empty() && now < waiting.until {
                self.waiting.push(waiting);
                continue;
            }
            // Whoever asked may have gone; the visit was made all the same.
            let _ = waiting.reply.send(Reload {
                generation: current.generation,
                changed: changed(&waiting.before, &current),
                rejected: current.rejected.clone(),
                pending: pending.clone(),
            });
        }
    }

    /// Looks for changes. Files that may still be being written wait for the next visit, unless
    /// the visit is `demanded`.
    fn visit(&mut self, demanded: bool) {
        let before = self.current();
        let mut next = Successor::of(&before);
        self.visit_settings(demanded, &mut next);
        self.visit_folder(demanded, &mut next);
        self.swap(&before, next);
    }

    fn visit_folder(&mut self, demanded: bool, next: &mut Successor) {
        let listing = match folder::list(&self.folder) {
            Ok(listing) => listing,
            Err(error) => {
                let reason = format!("cannot look at {}: {error}", self.folder.display());
                next.reject(FOLDER, &reason);
                for (name, _) in EMBEDDED {
                    self.fall_back(name, next);
                }
                return;
            }
        };
        for (name, bytes) in EMBEDDED {
            // There is no file after all.
            let is_known = next.set.serving.contains_key(name)
                || next.set.rejected.contains_key(name)
                || self.jobs.contains_key(name);
            if !is_known && !listing.files.contains_key(name) {
                self.offer(name, bytes.into(), GuestSource::Embedded, next);
            }
        }
        match listing.odd_names {
            0 => drop(next.set.rejected.remove(FOLDER)),
            count => next.reject(FOLDER, &format!(
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
            self.last_good.forget(&name);
            self.return_to_embedded(&name, next);
        }
        self.seen = files
            .into_iter()
            .map(|(name, file)| (name, file.stamp))
            .collect();
    }

    /// Has the next set serve, if it differs.
    fn swap(&self, before: &GuestSet, mut next: Successor) {
        let waits = |name: &&String| !next.set.serving.contains_key(*name);
        next.set.pending = self.jobs.keys().filter(waits).cloned().collect();
        if next.changed {
            next.set.generation += 1;
        }
        let differs = next.set.rejected != before.rejected || next.set.pending != before.pending;
        if next.changed || differs {
            self.set.send_replace(Arc::new(next.set));
        }
    }

    fn read_file(&mut self, name: &str, file: &File, next: &mut Successor) {
        let read = folder::read(file);
        // Torn by a writer: what it stamp like by then comes with the next visit.
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

    /// Has a component stand for admission, unless the same one serves already.
    fn offer(
        &mut self,
        name: &str,
        component: Arc<[u8]>,
        origin: GuestSource,
        next: &mut Successor,
    ) {
        let settings = self.settings.config.guest(name);
        let serving = next.set.serving.get(name);
        if serving.is_some_and(|guest| Candidate::new(&component, origin, &settings).is(guest)) {
            next.set.rejected.remove(name);
            self.jobs.remove(name);
            return;
        }
        self.enqueue(settings, component, origin);
    }

    fn enqueue(&mut self, settings: config::Guest, component: Arc<[u8]>, origin: GuestSource) {
        self.tickets += 1;
        self.jobs.insert(settings.name.clone(), self.tickets);
        self.queue.retain(|job| job.settings.name != settings.name);
        self.queue.push_back(Job {
            ticket: self.tickets,
            settings,
            component,
            origin,
        });
        self.start_jobs();
    }

    fn start_jobs(&mut self) {
        while self.running < JOBS_AT_ONCE
            && let Some(job) = self.queue.pop_front()
        {
            let (engine, cache, done) =
                (self.engine.clone(), self.cache.clone(), self.done.clone());
            let thread = thread::Builder::new().name("guest-admission".into());
            tracing::info!(guest = %job.settings.name, "a guest is being compiled and tried");
            let started = thread.spawn(move || {
                let candidate = Candidate::new(&job.component, job.origin, &job.settings);
                let result = admit(&engine, &cache, &candidate);
                let name = job.settings.name;
                // Without a loader the service is ending.
                let _ = done.send(Message::Done(Box::new(Done {
                    ticket: job.ticket,
                    origin: job.origin,
                    name,
                    component: job.component,
                    result,
                })));
            });
            match started {
                Ok(_) => self.running += 1,
                Err(error) => tracing::error!(%error, "cannot start a thread to load a guest"),
            }
        }
    }

    /// Has a guest serve that was admitted, or notes why it was not.
    fn finish(&mut self, done: Done) {
        self.running -= 1;
        // Its file or its settings have changed since.
        if self.jobs.get(&done.name) != Some(&done.ticket) {
            return;
        }
        self.jobs.remove(&done.name);
        let before = self.current();
        let mut next = Successor::of(&before);
        match done.result {
            Ok(guest) => {
                match guest.origin {
                    GuestSource::File => self.last_good.keep(&guest.settings, &done.component),
                    GuestSource::LastGood => {
                        tracing::warn!(guest = %guest.name, digest = &guest.digest[..12],
                            "its file is bad: the last good one serves");
                    }
                    GuestSource::Embedded => {}
                }
                next.take(guest);
            }
            // It was good once, and is not any more: with another version of this program, say.
            Err(refused) if done.origin == GuestSource::LastGood => {
                tracing::warn!(guest = %done.name, %refused, "nor can the last good one be loaded");
            }
            Err(refused) => {
                next.reject(&done.name, &refused.to_string());
                self.fall_back(&done.name, &mut next);
            }
        }
        self.swap(&before, next);
    }

    /// Nothing may serve under the name of a bad file but what was admitted before: in this life of the
    /// service, or in an earlier one. Never the built-in guest.
    fn fall_back(&mut self, name: &str, next: &mut Successor) {
        let is_unreadable = next.set.rejected.contains_key(FOLDER);
        let is_bad = self.handled.contains_key(name) || is_unreadable;
        if next.set.serving.contains_key(name) || self.jobs.contains_key(name) || !is_bad {
            return;
        }
        if let Some((component, settings)) =
            self.last_good.find(name, &self.settings.config.guest(name))
        {
            self.enqueue(settings, component.into(), GuestSource::LastGood);
        }
    }

    /// A file is gone: the embedded guest of its name serves again. Without one, the guest that
    /// was loaded goes on as long as the service does, because models may depend on it.
    fn return_to_embedded(&mut self, name: &str, next: &mut Successor) {
        self.jobs.remove(name);
        match EMBEDDED.iter().find(|(known, _)| *known == name) {
            Some((_, bytes)) => self.offer(name, (*bytes).into(), GuestSource::Embedded, next),
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
        let stamp = FileStamp::of(&path);
        let settled = demanded || self.settings.seen == stamp;
        self.settings.seen = stamp;
        // On demand it is read anyway: it may name a file of keys that changed.
        let changed = demanded || self.settings.handled != stamp;
        if !settled || !changed || stamp.is_none() {
            return;
        }
        self.settings.handled = stamp;
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
        self.warn_of_unknown();
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
            if self.handled.remove(&name).is_none() && !next.set.rejected.contains_key(FOLDER) {
                self.return_to_embedded(&name, next);
            }
        }
    }
}

/// The names whose guests differ.
fn changed(before: &GuestSet, after: &GuestSet) -> BTreeSet<String> {
    let names = before.serving.keys().chain(after.serving.keys());
    let same = |name: &&String| match (before.serving.get(*name), after.serving.get(*name)) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    };
    names.filter(|name| !same(name)).cloned().collect()
}

/// The next set while it is being built.
struct Successor {
    set: GuestSet,
    changed: bool,
}

impl Successor {
    fn of(set: &GuestSet) -> Self {
        Successor {
            set: set.clone(),
            changed: false,
        }
    }

    fn take(&mut self, mut guest: Guest) {
        guest.generation = self.set.generation + 1;
        tracing::info!(
            guest = %guest.name, version = %guest.version, generation = guest.generation,
            digest = &guest.digest[..12], "a guest was loaded"
        );
        self.changed = true;
        if guest.origin != GuestSource::LastGood {
            self.set.rejected.remove(&guest.name);
        }
        self.set.serving.insert(guest.name.clone(), Arc::new(guest));
    }

    fn reject(&mut self, name: &str, reason: &str) {
        let known = self.set.rejected.get(name);
        if known.is_none_or(|known| known != reason) {
            if name == CONFIGURATION {
                for line in reason.lines() {
                    let line = plain::line(line.trim(), 500);
                    tracing::warn!(
                        "the configuration was not taken up, what was configured before goes on: {line}"
                    );
                }
            } else {
                let reason = plain::line(reason, 500);
                tracing::warn!(guest = %plain::line(name, 80), reason, "a guest was not loaded; what served before goes on");
            }
        }
        self.set.rejected.insert(name.to_owned(), reason.to_owned());
    }
}
