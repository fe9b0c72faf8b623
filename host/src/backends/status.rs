//! What is known of a backend's state.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use basics::file_stamp::FileStamp;
use guests::report::{ModelLimits, ModelOffer, Report};
use parking_lot::{Mutex, MutexGuard};
use processes::SpawnError;
use tokio::time::Instant;

use super::Backend;
use super::account::{self, RateLimit, login_warning};
use super::introduction::Introduction;
use super::plan::Plan;
use crate::config::Profile;
use crate::failure::{Kind, unix_now};
use crate::profiles::is_model_name;

/// How long a good state is believed without another sign of life.
const READY_TTL: Duration = Duration::from_secs(300);

/// How long a bad state is kept without a check. Short, so that a repair shows at once.
const UNREADY_TTL: Duration = Duration::from_secs(20);

/// How often the plan's windows are asked for at most. The command line asks its own API for them.
const PLAN_TTL: Duration = Duration::from_secs(300);

/// The most models that a backend may report.
const MODELS_MAX: usize = 256;

/// A backend's state, renewed by checks and by every request.
pub(crate) struct Status {
    state: Mutex<State>,
    /// The end of the login was warned of.
    warned: AtomicBool,
}

struct State {
    health: Health,
    checked: Option<Instant>,
    version: Option<String>,
    /// The program file that told `version`. A different file is asked again.
    version_of: Option<FileStamp>,
    /// What the program that is in use said of itself.
    introduction: Option<Introduction>,
    models: Vec<ModelOffer>,
    /// A request reported other models than these, so a probe is due.
    offers_changed: bool,
    limits: Vec<ModelLimits>,
    rate_limit: Option<RateLimit>,
    plan: Option<Plan>,
    /// When the plan was last asked for.
    plan_asked: Option<Instant>,
    /// A request was answered since then.
    used: bool,
    /// The plan's windows that the log has warned of, with the threshold in percent.
    plan_warned: Vec<(String, u32)>,
    /// When the login ends, in seconds since the Unix epoch.
    login_ends: Option<u64>,
}

/// Whether a backend can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// Not looked at yet.
    Starting,
    /// It can.
    Ready,
    /// The program is not there.
    Missing(String),
    /// It is not logged in.
    LoggedOut,
    /// It is logged in, but its processes do not use that login.
    LoginUnused,
    /// It does not work.
    Failing(String),
}

/// Who reports something of a backend, which others will see.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reporter<'a> {
    /// A guest that has seen no request.
    Probe,
    /// A guest that has seen a request for this model: from it nothing passes that could carry a
    /// text of the request, only words of a fixed list and rounded numbers.
    Request { model: &'a str },
}

/// The offer, if its ids are valid model names and its `id` is not `default`. A display name that is too long
/// or has unusual characters is left out.
fn checked(mut offer: ModelOffer) -> Option<ModelOffer> {
    /// The longest name for people, in characters.
    const DISPLAY_MAX: usize = 64;
    let names = [Some(&offer.id), offer.resolved.as_ref()];
    let sound = names.into_iter().flatten().all(|name| is_model_name(name));
    let fit = |c: char| basics::plain::is_plain(c) && !"<>&\"'`\\".contains(c);
    let shown = |name: &String| name.chars().count() <= DISPLAY_MAX && name.chars().all(fit);
    offer.display_name = offer.display_name.filter(shown);
    (sound && offer.id != "default").then_some(offer)
}

impl Status {
    pub(super) fn new(profile: &Profile) -> Self {
        let health = match profile.login_check {
            None => Health::Ready,
            Some(_) => Health::Starting,
        };
        let state = Mutex::new(State {
            health,
            checked: None,
            version: None,
            version_of: None,
            introduction: None,
            models: Vec::new(),
            offers_changed: false,
            limits: Vec::new(),
            rate_limit: None,
            plan: None,
            plan_asked: None,
            used: false,
            plan_warned: Vec::new(),
            login_ends: None,
        });
        Status {
            state,
            warned: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(crate) fn health(&self) -> Health {
        self.state().health.clone()
    }

    pub(crate) fn version(&self) -> Option<String> {
        self.state().version.clone()
    }

    /// What requests brought to light of the account's limit. None once a limit that was reached has been reset.
    pub(crate) fn rate_limit(&self) -> Option<RateLimit> {
        let limit = self.state().rate_limit.clone();
        limit.filter(|limit| !limit.was_reached() || limit.is_ahead())
    }

    /// The plan, as it was told last.
    pub(crate) fn plan(&self) -> Option<Plan> {
        self.state().plan.clone()
    }

    /// What the program said of itself.
    pub(crate) fn introduction(&self) -> Option<Introduction> {
        self.state().introduction.clone()
    }

    /// Keeps what the program said of itself.
    pub(crate) fn introduced(&self, introduction: Introduction) {
        self.state().introduction = Some(introduction);
    }

    /// Whether it is time to ask for the plan: somebody asks (`is_asked`) or has used the backend, and what is known is
    /// old. A limit that should have been reset is looked at once.
    pub(crate) fn wants_plan(&self, is_asked: bool) -> bool {
        let state = self.state();
        let is_old = state.plan_asked.is_none_or(|at| at.elapsed() >= PLAN_TTL);
        let limit = state.rate_limit.as_ref();
        let is_reset = limit.is_some_and(|limit| limit.was_reset_since(state.plan_asked));
        is_reset || (is_old && (is_asked || state.used))
    }

    /// The plan is being asked for.
    pub(crate) fn asks_plan(&self) {
        let mut state = self.state();
        (state.plan_asked, state.used) = (Some(Instant::now()), false);
    }

    /// The models that the backend offers, as far as it has said.
    pub(crate) fn offers(&self) -> Vec<ModelOffer> {
        self.state().models.clone()
    }

    /// The offer of the model whose short id or full id is `name`.
    pub(crate) fn offer(&self, name: &str) -> Option<ModelOffer> {
        let state = self.state();
        let mut offers = state.models.iter();
        let offer = offers.find(|o| o.id == name || o.resolved.as_deref() == Some(name));
        offer.cloned()
    }

    /// What is known of the model with this id.
    pub(crate) fn model_limits(&self, id: &str) -> Option<ModelLimits> {
        let state = self.state();
        state.limits.iter().find(|limits| limits.id == id).cloned()
    }

    /// When the login ends, in seconds since the Unix epoch, if the backend said so.
    pub(crate) fn login_ends(&self) -> Option<u64> {
        self.state().login_ends
    }

    /// What an operator should know: that the login ends within `notice`, that a limit of the account is
    /// reached, and that little is left of the plan. `login` is the command that logs in.
    pub(crate) fn warnings(&self, notice: Duration, login: &str) -> Vec<String> {
        let state = self.state();
        let now = unix_now();
        let login = state
            .login_ends
            .and_then(|end| login_warning(end, now, notice, login));
        let limit = state.rate_limit.as_ref().and_then(RateLimit::warning);
        let plan = state.plan.iter().flat_map(|plan| plan.warnings(now));
        let plan = plan.map(|warning| warning.sentence);
        login.into_iter().chain(limit).chain(plan).collect()
    }

    /// Whether it is time for another check.
    pub(crate) fn is_stale(&self) -> bool {
        let state = self.state();
        let good_for = if state.health == Health::Ready {
            READY_TTL
        } else {
            UNREADY_TTL
        };
        state.checked.is_none_or(|at| at.elapsed() > good_for)
    }

    /// Whether a request reported other models than those that are known.
    pub(crate) fn offers_changed(&self) -> bool {
        self.state().offers_changed
    }

    /// Whether the backend should be asked what it offers.
    pub(crate) fn wants_probe(&self) -> bool {
        let state = self.state();
        state.models.is_empty() || state.offers_changed
    }

    /// Takes what an adapter reports. The version is not taken from it: the command line is asked.
    pub(crate) fn observe(&self, report: Report, reporter: Reporter<'_>) {
        let now = unix_now();
        let mut state = self.state();
        match report {
            Report::Version(_) | Report::Login(_) | Report::Lacks(_) => {}
            Report::RateLimit(limit) => {
                let limit = RateLimit::checked(limit, now);
                if let Some(plan) = &mut state.plan {
                    plan.note(&limit);
                }
                state.rate_limit = Some(limit);
            }
            Report::Plan(plan) => {
                if let Reporter::Probe = reporter {
                    state.note_plan(Plan::checked(plan, now), now);
                }
            }
            Report::LoginEndsAt(end) => {
                state.login_ends = account::login_end(end, now).or(state.login_ends);
            }
            Report::ModelLimits(limits) => state.note_limits(limits, reporter),
            Report::Models(models) => {
                let models = models.into_iter().take(MODELS_MAX);
                let models: Vec<_> = models.filter_map(checked).collect();
                match reporter {
                    Reporter::Probe => (state.models, state.offers_changed) = (models, false),
                    Reporter::Request { .. } => state.offers_changed |= state.models != models,
                }
            }
        }
    }

    /// A request was answered: the best check there is.
    pub(crate) fn answered(&self) {
        self.set(Health::Ready);
        let mut state = self.state();
        state.used = true;
        // Whatever was said of a limit, it does not hold any more.
        if state
            .rate_limit
            .as_ref()
            .is_some_and(RateLimit::was_reached)
        {
            state.rate_limit = None;
        }
    }

    /// The processes do not use the login that the command line says it has.
    pub(crate) fn login_is_unused(&self) {
        self.set(Health::LoginUnused);
    }

    /// Takes note that a request failed. Only a failed login says something about the backend and not just
    /// about the request.
    pub(crate) fn failed(&self, kind: Kind) {
        if kind == Kind::Authentication && self.health() != Health::LoginUnused {
            self.set(Health::LoggedOut);
        }
    }

    /// The program could not be started. `looked` is where it was looked for.
    pub(crate) fn not_started(&self, error: &SpawnError, looked: &str) {
        let absent = [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied];
        self.set(match error {
            SpawnError::Program { source, .. } if absent.contains(&source.kind()) => {
                Health::Missing(format!("{error}{looked}"))
            }
            _ => Health::Failing(error.to_string()),
        });
    }

    /// Whether the version was told by this program.
    pub(super) fn is_version_of(&self, program: Option<FileStamp>) -> bool {
        self.state().version_of == program
    }

    pub(super) fn told_version(&self, version: Option<String>, program: Option<FileStamp>) {
        let mut state = self.state();
        (state.version, state.version_of) = (version, program);
    }

    /// Takes note of when the login ends, if that was told. Returns what was known before, and what is known now.
    pub(super) fn told_login_end(&self, end: Option<u64>) -> (Option<u64>, Option<u64>) {
        let mut state = self.state();
        let before = state.login_ends;
        state.login_ends = end.or(before);
        (before, state.login_ends)
    }

    /// Whether nobody was warned of the login's end yet. From now on, somebody was.
    pub(super) fn warns_first(&self) -> bool {
        !self.warned.swap(true, Ordering::Relaxed)
    }

    /// What a check has found.
    pub(super) fn set(&self, health: Health) {
        let mut state = self.state();
        state.checked = Some(Instant::now());
        state.health = health;
    }
}

impl State {
    /// Keeps the plan, and warns once of each window of which little is left. A limit of which the plan says that
    /// there is room again is no longer reached.
    fn note_plan(&mut self, plan: Plan, now: u64) {
        let warnings = plan.warnings(now);
        for warning in &warnings {
            if !self.plan_warned.contains(&warning.passed) {
                tracing::warn!("{}", warning.sentence);
            }
        }
        self.plan_warned = warnings.into_iter().map(|w| w.passed).collect();
        let limit = self.rate_limit.as_ref();
        if limit.is_some_and(|l| l.was_reached() && plan.has_room(l.r#type.as_deref(), now)) {
            self.rate_limit = None;
        }
        self.plan = Some(plan);
    }

    /// Keeps what is first said of a model's limits. A request may speak of its own model only.
    fn note_limits(&mut self, limits: ModelLimits, reporter: Reporter<'_>) {
        let known = self.limits.iter().any(|known| known.id == limits.id);
        let own = match reporter {
            Reporter::Probe => is_model_name(&limits.id),
            Reporter::Request { model } => {
                let mut offers = self.models.iter();
                let offer = offers.find(|offer| offer.id == model);
                let resolved = offer.and_then(|offer| offer.resolved.as_deref());
                limits.id == model || Some(&*limits.id) == resolved
            }
        };
        if own && !known && self.limits.len() < MODELS_MAX {
            self.limits.push(ModelLimits {
                context_length: limits.context_length.map(rounded),
                max_output_tokens: limits.max_output_tokens.map(rounded),
                id: limits.id,
            });
        }
    }
}

/// A number of tokens as the makers of models choose them: three digits, then zeros.
fn rounded(tokens: u64) -> u64 {
    /// More than any model has.
    const MOST: u64 = 1_000_000_000;
    let tokens = tokens.min(MOST);
    let unit = 10_u64.pow(tokens.checked_ilog10().unwrap_or(0).saturating_sub(2));
    tokens / unit * unit
}

impl Health {
    /// A sentence for people. It is about the command line, which they know as `product`.
    fn message(&self, product: &str) -> String {
        match self {
            Health::Starting => "not looked at yet".into(),
            Health::Ready => "ready".into(),
            Health::Missing(what) => format!("the command line of {product} was not found: {what}"),
            Health::LoggedOut => format!("{product} is not logged in"),
            Health::LoginUnused => format!(
                "{product} is logged in, but this version does not use that login for programs"
            ),
            Health::Failing(what) => format!("{product} does not work: {what}"),
        }
    }
}

impl Backend {
    /// A state of it, as a sentence for people.
    pub(crate) fn message(&self, health: &Health) -> String {
        health.message(self.config.launch.profile.product)
    }

    /// A state of it, and how to mend it.
    pub(crate) fn message_with_remedy(&self, health: &Health) -> String {
        let way_out = match self.remedy() {
            commands if commands.is_empty() => String::new(),
            commands => format!("; to mend it: `{}`", commands.join("`, then `")),
        };
        self.message(health) + &way_out
    }
}

#[cfg(test)]
mod tests;
