//! The command lines that answer, each with its admission (the limit on requests at once), its guard, and
//! what is known of its state.

mod account;
pub(crate) mod command_line;
pub(crate) mod launch;
pub(crate) mod status;
mod stdin_guard;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use processes::{CommandLine, Reading};

use crate::admission::Admission;
use crate::config;
use command_line::BadLaunchOption;
use launch::Launch;
use status::{Health, Status};
use stdin_guard::Guard;

/// A backend as it runs.
pub(crate) struct Backend {
    pub(crate) config: config::BackendConfig,
    /// Limits how many requests it serves at once, and lets others wait. It is kept when the configuration
    /// changes, together with the requests that run and those that wait.
    pub(crate) admission: Arc<Admission>,
    pub(crate) status: Arc<Status>,
    /// A number for the way in which its processes are started. A later configuration that starts them in the
    /// same way keeps the number.
    pub(crate) revision: u64,
    guard: Guard,
    /// What each of its processes is started with, whatever the model: the program at the path where it was
    /// found last, the first arguments, and the environment.
    base: ArcSwap<CommandLine>,
    moved: AtomicBool,
}

impl Backend {
    /// All configured backends. `before` are those of the configuration until now: a backend of the same name
    /// keeps its queue, and what is known of it if its processes are still started in the same way.
    ///
    /// # Errors
    ///
    /// Fails only if the guard's schema, which is built into this program, is wrong.
    pub(crate) fn all(
        configs: &[config::BackendConfig],
        before: &[Arc<Backend>],
    ) -> anyhow::Result<Vec<Arc<Backend>>> {
        let backends = configs.iter().map(|config| {
            match before.iter().find(|known| known.config.name == config.name) {
                Some(same) if same.config == *config => Ok(same.clone()),
                known => Backend::new(config, known).map(Arc::new),
            }
        });
        backends.collect()
    }

    fn new(
        config: &config::BackendConfig,
        before: Option<&Arc<Backend>>,
    ) -> anyhow::Result<Backend> {
        let limits = config.admission;
        let admission = match before {
            Some(before) => {
                before.admission.limit(limits);
                before.admission.clone()
            }
            None => Arc::new(Admission::new(limits)),
        };
        let (status, revision) = match before.filter(|before| before.config.launch == config.launch)
        {
            Some(before) => (before.status.clone(), before.revision),
            None => (
                Arc::new(Status::new(config.launch.profile)),
                another_revision(),
            ),
        };
        Ok(Backend {
            admission,
            status,
            revision,
            base: ArcSwap::from_pointee(command_line::base(&config.launch)),
            moved: AtomicBool::new(false),
            guard: Guard::new(config.launch.profile, config.fetch_urls)?,
            config: config.clone(),
        })
    }

    /// Whether it is more than a demonstration.
    pub(crate) fn is_real(&self) -> bool {
        !self.config.launch.profile.is_demo
    }

    /// Looks for its program again: it may have been installed, or moved, since.
    fn find_program(&self) {
        let base = command_line::base(&self.config.launch);
        if base != **self.base.load() {
            self.base.store(Arc::new(base));
            self.moved.store(true, Ordering::Relaxed);
        }
    }

    /// Whether its program was found elsewhere since this was last asked.
    pub(crate) fn has_moved(&self) -> bool {
        self.moved.swap(false, Ordering::Relaxed)
    }

    /// How a person logs in, in the shell of this service's user.
    pub(crate) fn login_line(&self) -> String {
        command_line::shell_line(&self.config.launch, self.config.launch.profile.login)
    }

    /// What to do about its state, as commands for the shell of this service's user.
    pub(crate) fn remedy(&self) -> Vec<String> {
        match self.status.health() {
            Health::Missing(_) if self.config.launch.profile.install.is_empty() => Vec::new(),
            Health::Missing(_) => vec![
                self.config.launch.profile.install.to_owned(),
                self.login_line(),
            ],
            Health::LoggedOut => vec![self.login_line()],
            Health::Starting | Health::Ready | Health::Failing(_) => Vec::new(),
        }
    }

    /// How a process for a model is started, without any options.
    pub(crate) fn plain_launch(&self, model: &str) -> Option<Arc<Launch>> {
        self.launch(model, &[]).ok()
    }

    /// How a process for a model is started, with the options that an adapter asked for.
    pub(crate) fn launch(
        &self,
        model: &str,
        options: &[(String, String)],
    ) -> Result<Arc<Launch>, BadLaunchOption> {
        // A program without a folder means that the last search did not find it, so it is searched again.
        let folder = |base: &CommandLine| base.program.parent().map(|p| p.as_os_str().is_empty());
        if folder(&self.base.load()) == Some(true) {
            self.find_program();
        }
        let line = command_line::exchange(&self.base.load(), &self.config.launch, model, options)?;
        Ok(Arc::new(Launch {
            backend: self.config.name.clone(),
            revision: self.revision,
            line,
            reading: Reading {
                framing: self.config.launch.framing,
                max_line: self.config.launch.max_line,
            },
            is_plain: options.is_empty(),
        }))
    }

    /// Checks what a guest wants to write, and returns the line to write instead.
    pub(crate) fn seal(
        &self,
        text: String,
        rewinds: &[String],
    ) -> Result<Vec<u8>, stdin_guard::Refusal> {
        self.guard.seal(text, rewinds)
    }
}

fn another_revision() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
