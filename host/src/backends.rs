//! The command lines that answer, each with its admission (the limit on requests at once), its guard, and
//! what is known of its state.

mod account;
mod check;
pub(crate) mod command_line;
pub(crate) mod installation;
pub(crate) mod introduction;
pub(crate) mod launch;
pub(crate) mod plan;
pub(crate) mod status;
mod stdin_guard;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use processes::{CommandLine, Reading};
use tokio::sync::Notify;

use crate::admission::Admission;
use crate::config;
use crate::failure::{Failure, Kind};
use command_line::BadLaunchOption;
use installation::{Installation, Standing};
use launch::Launch;
use status::{Health, Status};
use stdin_guard::Guard;

/// How long a request waits for the trial of a program that was replaced. A trial takes 1 to 3 s.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// A backend as it runs.
pub(crate) struct Backend {
    pub(crate) config: config::BackendConfig,
    /// Limits how many requests it serves at once, and lets others wait. It is kept when the configuration
    /// changes, together with the requests that run and those that wait.
    pub(crate) admission: Arc<Admission>,
    pub(crate) status: Arc<Status>,
    /// Its program as it is installed. A later configuration that starts its processes in the same way keeps it.
    pub(crate) installation: Arc<Installation>,
    guard: Guard,
    /// What each of its processes is started with, whatever the model: the program at the path where it was
    /// found last, the first arguments, and the environment.
    base: ArcSwap<CommandLine>,
    moved: AtomicBool,
}

impl Backend {
    /// All configured backends. `before` are those of the configuration until now: a backend of the same name
    /// keeps its queue, and what is known of it if its processes are still started in the same way. `attention` wakes
    /// whoever looks after them.
    ///
    /// # Errors
    ///
    /// Fails only if the guard's schema, which is built into this program, is wrong.
    pub(crate) fn all(
        configs: &[config::BackendConfig],
        before: &[Arc<Backend>],
        attention: &Arc<Notify>,
    ) -> anyhow::Result<Vec<Arc<Backend>>> {
        let backends = configs.iter().map(|config| {
            match before.iter().find(|known| known.config.name == config.name) {
                Some(same) if same.config == *config => Ok(same.clone()),
                known => Backend::new(config, known, attention).map(Arc::new),
            }
        });
        backends.collect()
    }

    fn new(
        config: &config::BackendConfig,
        before: Option<&Arc<Backend>>,
        attention: &Arc<Notify>,
    ) -> anyhow::Result<Backend> {
        let limits = config.admission;
        let admission = match before {
            Some(before) => {
                before.admission.limit(limits);
                before.admission.clone()
            }
            None => Arc::new(Admission::new(limits)),
        };
        let alike = before.filter(|before| before.config.launch == config.launch);
        let (status, installation) = match alike {
            Some(before) => (before.status.clone(), before.installation.clone()),
            None => (
                Arc::new(Status::new(config.launch.profile)),
                Arc::new(Installation::new(attention.clone())),
            ),
        };
        Ok(Backend {
            admission,
            status,
            installation,
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

    /// The file of its program, as far as it was found.
    pub(crate) fn program(&self) -> PathBuf {
        self.base.load().program.clone()
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
            Health::LoginUnused => self.tested_version().into_iter().collect(),
            Health::Starting | Health::Ready | Health::Failing(_) => Vec::new(),
        }
    }

    /// What installs the newest version that was tested, as a line of the shell.
    pub(crate) fn tested_version(&self) -> Option<String> {
        let profile = self.config.launch.profile;
        let tested = profile.tested.filter(|_| !profile.install.is_empty())?;
        Some(format!("{}@{}", profile.install, tested.1))
    }

    /// Whether the program that is there now may be started.
    pub(crate) fn standing(&self) -> Standing {
        self.installation.standing(&self.base.load().program)
    }

    /// Waits for the trial of its program, if another file took its place.
    ///
    /// # Errors
    ///
    /// Says what speaks against the file that is there now.
    pub(crate) async fn tried(&self) -> Result<(), Failure> {
        let program = self.base.load().program.clone();
        match self.installation.settled(&program, TRIAL_TIMEOUT).await {
            Standing::Adopted => Ok(()),
            Standing::Untried(_) => {
                let message = format!(
                    "{} was replaced, and the new program did not answer in time",
                    program.display()
                );
                Err(Failure::new(Kind::Backend, message).logged())
            }
            Standing::Refused(why) => {
                let way_out = self.tested_version();
                let way_out =
                    way_out.map_or(String::new(), |line| format!("; to mend it: `{line}`"));
                Err(Failure::new(Kind::Backend, why + &way_out).logged())
            }
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
            revision: self.installation.revision(),
            installation: self.installation.clone(),
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
