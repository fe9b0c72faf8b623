//! The configuration's sections `[backends]` and `[models]`: who serves what.

use std::time::Duration;

use super::guest_uses::Guests;
use super::reader::Section;
use super::{
    AdmissionConfig, BackendConfig, Framing, LaunchConfig, ModelConfig, PoolConfig, Profile,
    Secret, TimeoutConfig,
};
use crate::profiles::{Args, PROFILES, Program, Warm, is_model_name};

/// The backends that exist if none is configured, each with its profile.
const BUILT_IN: [(&str, &str); 2] = [("claude", "claude-code"), ("demo", "demo")];

/// The configured backends, or the built-in ones.
pub(super) fn backends(root: &mut Section, guests: &mut Guests) -> Vec<BackendConfig> {
    let Some(sections) = root.sections("backends") else {
        let mut defaults = Vec::new();
        for (name, profile) in BUILT_IN {
            let table = toml::Table::from_iter([("profile".to_owned(), profile.into())]);
            let mut section = root.beside(format!("backends.{name}"), table);
            defaults.push(backend(name.to_owned(), &mut section, guests));
        }
        return defaults;
    };
    let read = sections.into_iter().map(|(name, mut section)| {
        let backend = backend(name, &mut section, guests);
        section.finish();
        backend
    });
    read.collect()
}

fn backend(name: String, section: &mut Section, guests: &mut Guests) -> BackendConfig {
    let profiles = PROFILES.map(|profile| (profile.name, profile));
    let profile = section.choice("profile", &profiles).unwrap_or(PROFILES[0]);
    BackendConfig {
        adapter: guests.adapter(section, profile.adapter),
        transforms: guests.transforms(section).unwrap_or_default(),
        launch: launch(section, profile),
        admission: AdmissionConfig {
            max_concurrent: section.count("max_concurrent", 1, 1024).unwrap_or(4) as usize,
            queue: section.count("queue", 0, 100_000).unwrap_or(32) as usize,
            queue_timeout: section.duration("queue_timeout").unwrap_or(seconds(60)),
        },
        pool: pool(section, profile),
        timeouts: timeouts(section),
        login_warning: section
            .duration("login_warning")
            .unwrap_or(seconds(7 * 24 * 3600)),
        fetch_urls: section.flag("fetch_urls").unwrap_or(false),
        name,
    }
}

fn launch(section: &mut Section, profile: &'static Profile) -> LaunchConfig {
    let framings = [("lines", Framing::Lines), ("bytes", Framing::Bytes)];
    let program = match profile.program {
        Program::Command { name, .. } | Program::This(name) => name,
        Program::Configured => "",
    };
    let command = section.text("command").unwrap_or_else(|| program.into());
    if command.is_empty() {
        section.problem(
            "command",
            "the program is missing: a path, or a name on the PATH",
        );
    }
    let pass_env = || profile.pass_env.iter().map(|name| (*name).to_owned());
    LaunchConfig {
        profile,
        command,
        args: match profile.args {
            Args::Configured => section.texts("args").unwrap_or_default(),
            Args::Fixed(_) => Vec::new(),
        },
        env: environment(section, profile),
        pass_env: section
            .texts("pass_env")
            .unwrap_or_else(|| pass_env().collect()),
        max_retries: section.count("max_retries", 0, 10).unwrap_or(0),
        plan_windows: section.flag("plan_windows").unwrap_or(true),
        framing: section
            .choice("framing", &framings)
            .unwrap_or(profile.framing),
        max_line: section.size("max_line", 1 << 30).unwrap_or(16 << 20),
    }
}

fn pool(section: &mut Section, profile: &Profile) -> PoolConfig {
    let warm = section.auto_or_count("warm", 64).map(|count| match count {
        None => Warm::Auto,
        Some(count) => Warm::Fixed(count as usize),
    });
    let continue_for = section.duration("continue_for");
    PoolConfig {
        warm: warm.unwrap_or(profile.warm),
        warm_max_age: warm_max_age(section),
        continue_for: continue_for.unwrap_or(seconds(profile.continue_for)),
    }
}

fn timeouts(section: &mut Section) -> TimeoutConfig {
    let mut timeout = |key, usual| section.timeout(key).unwrap_or(seconds(usual));
    TimeoutConfig {
        start: timeout("start_timeout", 30),
        first_output: timeout("first_output_timeout", 600),
        silence: timeout("silence_timeout", 300),
        request: timeout("request_timeout", 3600),
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn environment(section: &mut Section, profile: &Profile) -> Vec<(String, Secret)> {
    let env = section.environment("env").unwrap_or_default();
    for (variable, _) in &env {
        if profile.sets(variable) {
            let key = format!("env.{variable}");
            section.problem(
                &key,
                "the host sets this variable to keep prompts from reading files: remove it",
            );
        }
    }
    env.into_iter()
        .map(|(name, value)| (name, Secret(value)))
        .collect()
}

fn warm_max_age(section: &mut Section) -> Duration {
    /// With a shorter time, the service would do little but start processes.
    const LEAST: Duration = Duration::from_secs(1);
    let age = section.duration("warm_max_age");
    let age = age.unwrap_or(Duration::from_secs(1800));
    if age < LEAST {
        section.problem(
            "warm_max_age",
            "it must be at least 1s; `warm = 0` starts nothing ahead",
        );
    }
    age.max(LEAST)
}

/// The configured models, and the built-in names beside them.
pub(super) fn models(
    root: &mut Section,
    backends: &[BackendConfig],
    built_in: bool,
    guests: &mut Guests,
) -> Vec<ModelConfig> {
    let mut models = Vec::new();
    for (name, mut section) in root.sections("models").unwrap_or_default() {
        models.extend(model(name, &mut section, backends, guests));
        section.finish();
    }
    if built_in {
        let unnamed = |model: &ModelConfig| {
            !models
                .iter()
                .any(|named: &ModelConfig| named.name == model.name)
        };
        let usual: Vec<ModelConfig> = default_models(backends)
            .into_iter()
            .filter(unnamed)
            .collect();
        models.extend(usual);
    }
    models
}

fn model(
    name: String,
    section: &mut Section,
    backends: &[BackendConfig],
    guests: &mut Guests,
) -> Option<ModelConfig> {
    let backend = section.text("backend");
    let model = section.text("model").unwrap_or_else(|| name.clone());
    let context_length = section.count("context_length", 1, u32::MAX);
    let transforms = guests.transforms(section);
    if !is_model_name(&model) {
        let what = "is no name of a model: letters, digits and `._:/@[]-`, a letter or digit first";
        section.problem("model", format_args!("`{model}` {what}"));
    }
    match backend.or_else(|| only_real(backends)) {
        None => {
            let what = format!(
                "is missing: write `backend = …`, one of {}",
                quoted(backends)
            );
            section.problem("backend", what);
            None
        }
        Some(backend) if !backends.iter().any(|b| b.name == backend) => {
            let what = format!(
                "there is no [backends.{backend}]: name one of {}",
                quoted(backends)
            );
            section.problem("backend", what);
            None
        }
        Some(backend) => Some(ModelConfig {
            name,
            backend,
            model,
            context_length: context_length.map(u64::from),
            is_named: true,
            transforms,
        }),
    }
}

/// The backend of a model that names none: the only one that is no demonstration.
fn only_real(backends: &[BackendConfig]) -> Option<String> {
    let mut real = backends.iter().filter(|b| !b.launch.profile.is_demo);
    let only = real.next()?;
    real.next().is_none().then(|| only.name.clone())
}

fn quoted(backends: &[BackendConfig]) -> String {
    let names = backends.iter().map(|b| format!("\"{}\"", b.name));
    names.collect::<Vec<_>>().join(", ")
}

/// The built-in names of models. If several backends have the same profile, the first one by name serves them.
fn default_models(backends: &[BackendConfig]) -> Vec<ModelConfig> {
    let mut models = Vec::new();
    for profile in PROFILES {
        let Some(first) = backends
            .iter()
            .find(|backend| backend.launch.profile == profile)
        else {
            continue;
        };
        models.extend(profile.models.iter().map(|(name, model)| ModelConfig {
            name: (*name).into(),
            backend: first.name.clone(),
            model: (*model).into(),
            context_length: None,
            is_named: false,
            transforms: None,
        }));
    }
    models
}
