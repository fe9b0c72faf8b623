//! Watches `harness.toml` and the guests' folder, and puts changes into service.
//!
//! ```text
//! harness.toml ──► configuration ─┐
//!                                 ├──► the next snapshot ──► requests from now on
//! guests' folder ──► guests ──────┘
//!            admissions ▲ on threads of their own
//! ```
//!
//! One thread does all of this, so only one thread writes snapshots. It never waits for anything slow.

mod events;

use std::collections::BTreeSet;
use std::path::{self, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use basics::file_stamp::FileStamp;
use basics::plain;
use guests::admit::Judges;
use guests::jobs::Admitted;
use guests::loader::Loader;
use processes::Processes;
use tokio::sync::oneshot;

use events::{FileEvents, Watched};

use crate::config::{Config, ConfigError, Overrides};
use crate::pool::Pool;
use crate::runtime::{RuntimeHandle, Snapshot};

/// How often the files are looked at (a visit). A changed file is read when two visits in a row find it the
/// same, which is within half a second of its last write.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// How soon the files are looked at again after the system told that one was written.
const SETTLE_INTERVAL: Duration = Duration::from_millis(20);

/// How many visits follow each other so soon. Two are enough, unless the file was written again.
const SETTLE_VISITS: u32 = 4;

/// How long an answer to [`Reloader::reload`] waits for guests that are being compiled.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a caller of [`Reloader::reload`] waits for an answer. It takes this long only if the watcher is
/// stuck.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Asks the watcher to look at the files now.
pub(crate) struct Reloader {
    commands: Sender<Command>,
}

/// What came of looking at the files.
pub(crate) struct Reloaded {
    /// What serves now.
    pub(crate) snapshot: Arc<Snapshot>,
    /// The guests that are new, changed or gone.
    pub(crate) changed: BTreeSet<String>,
    /// The guests that are still being compiled.
    pub(crate) pending: BTreeSet<String>,
}

/// A message to the watcher.
enum Command {
    /// Look at the files now, and send back the result.
    Reload(oneshot::Sender<Reloaded>),
    /// The admission of a guest is over: it was admitted or refused.
    Admitted(Box<Admitted>),
    /// A file was written.
    Written,
}

impl Reloader {
    /// Loads the guests, makes the first snapshot, and goes on watching the files. `judges` are what
    /// guests are judged by.
    ///
    /// # Errors
    ///
    /// Fails if a built-in guest or a built-in schema is bad, or if there is no thread.
    pub(crate) fn start(
        config: Config,
        processes: Arc<Processes>,
        pool: Arc<Pool>,
        judges: Judges,
    ) -> anyhow::Result<(Arc<RuntimeHandle>, Reloader)> {
        let (commands, received) = channel();
        let config = Arc::new(config);
        let done = commands.clone();
        let loader = Loader::start(
            config.guests.clone(),
            judges,
            Arc::new(move |admitted| {
                // This fails only if the watcher is gone, and then the service is ending.
                let _ = done.send(Command::Admitted(Box::new(admitted)));
            }),
        )?;
        let file = ConfigFile::new(&config);
        let runtime = RuntimeHandle::start(config, loader.set().clone(), processes, pool)?;
        let written = commands.clone();
        let watcher = Watcher {
            runtime: runtime.clone(),
            loader,
            file,
            events: FileEvents::start(move || {
                let _ = written.send(Command::Written);
            }),
            waiting: Vec::new(),
        };
        std::thread::Builder::new()
            .name("reload".into())
            .spawn(move || watcher.run(&received))
            .context("cannot start the thread that watches the files")?;
        Ok((runtime, Reloader { commands }))
    }

    /// Looks at the files now, and returns what changed; `None` if the watcher is gone or stuck.
    pub(crate) async fn reload(&self) -> Option<Reloaded> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Reload(reply)).ok()?;
        tokio::time::timeout(RELOAD_TIMEOUT, answer)
            .await
            .ok()?
            .ok()
    }
}

/// The only writer of snapshots.
struct Watcher {
    runtime: Arc<RuntimeHandle>,
    loader: Loader,
    file: ConfigFile,
    events: FileEvents,
    waiting: Vec<Waiting>,
}

/// A caller of [`Reloader::reload`] who waits for the result.
struct Waiting {
    reply: oneshot::Sender<Reloaded>,
    before: Arc<Snapshot>,
    until: Instant,
}

impl Watcher {
    fn run(mut self, commands: &Receiver<Command>) {
        let mut next_visit = Instant::now() + POLL_INTERVAL;
        // How many of the next visits come soon, because a file was written.
        let mut soon = 0_u32;
        loop {
            let pause = next_visit.saturating_duration_since(Instant::now());
            match commands.recv_timeout(pause) {
                Ok(Command::Reload(reply)) => {
                    let before = self.runtime.current();
                    self.visit(true);
                    self.waiting.push(Waiting {
                        reply,
                        before,
                        until: Instant::now() + REPLY_TIMEOUT,
                    });
                }
                Ok(Command::Admitted(admitted)) => {
                    self.loader.admitted(*admitted);
                    self.publish(self.next());
                }
                Ok(Command::Written) => {
                    soon = SETTLE_VISITS;
                    next_visit = next_visit.min(Instant::now() + SETTLE_INTERVAL);
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.visit(false);
                    let pause = match soon {
                        0 => POLL_INTERVAL,
                        _ => SETTLE_INTERVAL,
                    };
                    soon = soon.saturating_sub(1);
                    next_visit = Instant::now() + pause;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.reply();
        }
    }

    /// A copy of the current snapshot, to be changed into the next one.
    fn next(&self) -> Snapshot {
        Snapshot::clone(&self.runtime.current())
    }

    /// Looks at the files. Those that may still be being written wait for the next visit, unless the visit is
    /// `demanded`.
    fn visit(&mut self, demanded: bool) {
        let mut next = self.next();
        if let Some(read) = self.file.visit(demanded, &next.config) {
            self.configure(read, &mut next);
        }
        self.loader.visit(demanded);
        self.events.watch(Watched {
            files: self.file.files(),
            guests: path::absolute(&next.config.guests.dir).unwrap_or_default(),
        });
        self.publish(next);
    }

    fn configure(&mut self, read: Result<Config, ConfigError>, next: &mut Snapshot) {
        let known = next.config_problem.take();
        let configured = match read {
            Ok(config) if config == *next.config => return,
            Ok(config) => next.configure(config).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match configured {
            Ok(()) => self.loader.configure(next.config.guests.clone()),
            Err(problem) => {
                if known.as_ref() != Some(&problem) {
                    log_problem(&problem);
                }
                next.config_problem = Some(problem);
            }
        }
    }

    /// Publishes a snapshot, with the guests that the loader has now.
    fn publish(&self, mut next: Snapshot) {
        next.take_guests(self.loader.set());
        self.runtime.replace(next);
    }

    /// Answers those whose guests are compiled, or who have waited for long enough.
    fn reply(&mut self) {
        let pending = self.loader.compiling();
        let now = Instant::now();
        for waiting in std::mem::take(&mut self.waiting) {
            if !pending.is_empty() && now < waiting.until {
                self.waiting.push(waiting);
                continue;
            }
            let snapshot = self.runtime.current();
            // This fails if the caller has left. The files were looked at all the same.
            let _ = waiting.reply.send(Reloaded {
                changed: snapshot.guests.changed_since(&waiting.before.guests),
                snapshot,
                pending: pending.clone(),
            });
        }
    }
}

/// Logs why a configuration was not taken up.
fn log_problem(problem: &str) {
    for line in problem.lines() {
        let line = plain::line(line.trim(), 500);
        tracing::warn!(
            "the configuration was not taken up, and the previous one stays in force: {line}"
        );
    }
}

/// How long a configuration must have been empty to be meant.
const EMPTY_TIME: Duration = Duration::from_secs(2);

/// The file of the configuration, if there is one, and the files that it names.
struct ConfigFile {
    path: Option<PathBuf>,
    /// The files whose text is part of a guest's configuration.
    named: Vec<PathBuf>,
    /// What the last visit saw of them all.
    seen: Vec<Option<FileStamp>>,
    /// What they looked like when they were last read.
    handled: Vec<Option<FileStamp>>,
}

impl ConfigFile {
    /// The file that the service was started with. The second visit reads it again, because it may have changed
    /// since then.
    fn new(config: &Config) -> Self {
        ConfigFile {
            path: config.source.clone(),
            named: config.files.clone(),
            seen: Vec::new(),
            handled: Vec::new(),
        }
    }

    /// All files that are watched.
    fn files(&self) -> BTreeSet<PathBuf> {
        let files = self.path.iter().chain(&self.named);
        files.filter_map(|file| path::absolute(file).ok()).collect()
    }

    /// Reads the file again if it changed, or if `demanded`: then also when it is the same, because a file of
    /// keys that it names may have changed.
    fn visit(&mut self, demanded: bool, current: &Config) -> Option<Result<Config, ConfigError>> {
        let path = self.path.clone()?;
        let named = self.named.iter().map(|file| FileStamp::of(file));
        let stamps: Vec<_> = [FileStamp::of(&path)].into_iter().chain(named).collect();
        let is_settled = self.seen == stamps;
        self.seen.clone_from(&stamps);
        let is_due = demanded || (is_settled && self.handled != stamps);
        // Many programs empty a file before they write it. To take that for a configuration would open a service whose
        // keys are in the file.
        let is_emptied = |stamp: FileStamp| stamp.is_empty() && stamp.is_younger_than(EMPTY_TIME);
        if !is_due || stamps[0].is_none_or(is_emptied) {
            return None;
        }
        self.handled = stamps;
        let overrides = &current.overrides;
        let read = Config::load(&Overrides {
            file: Some(path),
            ..overrides.clone()
        });
        match &read {
            Ok(Config { files, .. }) | Err(ConfigError::Keys { files, .. }) => self.watch(files),
            Err(_) => {}
        }
        Some(read.map(|config| Config {
            overrides: overrides.clone(),
            ..config
        }))
    }

    /// From now on these files are watched beside the configuration. They were just read.
    fn watch(&mut self, files: &[PathBuf]) {
        if self.named != files {
            self.named = files.to_vec();
            let stamps = files.iter().map(|file| FileStamp::of(file));
            self.handled.truncate(1);
            self.handled.extend(stamps);
            self.seen.clone_from(&self.handled);
        }
    }
}
