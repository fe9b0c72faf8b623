//! The configuration's sections `[backends]` and `[models]`: who serves what.

use std::time::Duration;

use super::reader::{Problems, Section};
use super::{Backend, Framing, Model, Profile};

/// Variables that a backend gets from the service's environment by default: where its login
/// and its network are. No key is among them, lest the subscription's door be bypassed.
const PASS_ENV: [&str; 14] = [
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CONFIG_DIR",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "LC_ALL",
    "NODE_EXTRA_CA_CERTS",
    "NO_PROXY",
    "PATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TZ",
    "USER",
];

/// Names that clients use for what the CLI calls otherwise.
const CLAUDE_MODELS: [(&str, &str); 6] = [
    ("claude-haiku", "haiku"),
    ("claude-opus", "opus"),
    ("claude-sonnet", "sonnet"),
    ("haiku", "haiku"),
    ("opus", "opus"),
    ("sonnet", "sonnet"),
];

/// The configured backends, or the built-in ones.
pub(super) fn backends(root: &mut Section, problems: &mut Problems) -> Vec<Backend> {
    let Some(sections) = root.sections(problems, "backends") else {
        let mut defaults = Vec::new();
        for (name, profile) in [("claude", "claude-code"), ("demo", "demo")] {
            let table = toml::Table::from_iter([("profile".to_owned(), profile.into())]);
            let mut section = Section::new(format!("backends.{name}"), table);
            defaults.push(backend(name.to_owned(), &mut section, problems));
        }
        return defaults;
    };
    let read = sections.into_iter().map(|(name, mut section)| {
        let backend = backend(name, &mut section, problems);
        section.finish(problems);
        backend
    });
    read.collect()
}

fn backend(name: String, section: &mut Section, problems: &mut Problems) -> Backend {
    let profiles = [
        ("claude-code", Profile::ClaudeCode),
        ("demo", Profile::Demo),
    ];
    let profile = section
        .choice(problems, "profile", &profiles)
        .unwrap_or(Profile::ClaudeCode);
    let framings = [("lines", Framing::Lines), ("bytes", Framing::Bytes)];
    let env = section.environment(problems, "env").unwrap_or_default();
    for (variable, _) in &env {
        if crate::backends::profile::is_safety_variable(variable) {
            let key = format!("{}.{variable}", section.name("env"));
            problems.add(
                &key,
                "the host sets this variable to keep prompts from reading files: remove it",
            );
        }
    }
    let seconds = Duration::from_secs;
    // The demonstration starts in a moment.
    let (warm, continue_for) = match profile {
        Profile::ClaudeCode => (1, seconds(60)),
        Profile::Demo => (0, seconds(0)),
    };
    Backend {
        adapter: section
            .text(problems, "adapter")
            .unwrap_or_else(|| "claude-code".into()),
        command: section
            .text(problems, "command")
            .unwrap_or_else(|| "claude".into()),
        env,
        pass_env: section
            .texts(problems, "pass_env")
            .unwrap_or_else(|| PASS_ENV.map(str::to_owned).to_vec()),
        framing: section
            .choice(problems, "framing", &framings)
            .unwrap_or(Framing::Lines),
        max_concurrent: section
            .count(problems, "max_concurrent", 1, 1024)
            .unwrap_or(4) as usize,
        queue: section.count(problems, "queue", 0, 100_000).unwrap_or(32) as usize,
        queue_timeout: section
            .duration(problems, "queue_timeout")
            .unwrap_or(seconds(60)),
        max_retries: section.count(problems, "max_retries", 0, 10).unwrap_or(0),
        warm: section
            .count(problems, "warm", 0, 64)
            .map_or(warm, |count| count as usize),
        warm_max_age: warm_max_age(section, problems),
        continue_for: section
            .duration(problems, "continue_for")
            .unwrap_or(continue_for),
        start_timeout: section
            .duration(problems, "start_timeout")
            .unwrap_or(seconds(30)),
        first_output_timeout: section
            .duration(problems, "first_output_timeout")
            .unwrap_or(seconds(600)),
        silence_timeout: section
            .duration(problems, "silence_timeout")
            .unwrap_or(seconds(300)),
        request_timeout: section
            .duration(problems, "request_timeout")
            .unwrap_or(seconds(3600)),
        login_warning: section
            .duration(problems, "login_warning")
            .unwrap_or(seconds(7 * 24 * 3600)),
        fetch_urls: section.flag(problems, "fetch_urls").unwrap_or(false),
        max_line: section
            .size(problems, "max_line", 1 << 30)
            .unwrap_or(16 << 20),
        profile,
        name,
    }
}

fn warm_max_age(section: &mut Section, problems: &mut Problems) -> Duration {
    /// Below this, starting processes would be all that a service does.
    const LEAST: Duration = Duration::from_secs(1);
    let age = section.duration(problems, "warm_max_age");
    let age = age.unwrap_or(Duration::from_secs(1800));
    if age < LEAST {
        let name = section.name("warm_max_age");
        problems.add(
            &name,
            "it must be at least 1s; `warm = 0` starts nothing ahead",
        );
    }
    age.max(LEAST)
}

/// The configured models, and the built-in names beside them.
pub(super) fn models(
    root: &mut Section,
    problems: &mut Problems,
    backends: &[Backend],
    built_in: bool,
) -> Vec<Model> {
    let mut models = Vec::new();
    for (name, mut section) in root.sections(problems, "models").unwrap_or_default() {
        models.extend(model(name, &mut section, problems, backends));
        section.finish(problems);
    }
    if built_in {
        let unnamed = |model: &Model| !models.iter().any(|named: &Model| named.name == model.name);
        let usual: Vec<Model> = default_models(backends)
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
    problems: &mut Problems,
    backends: &[Backend],
) -> Option<Model> {
    let backend = section.text(problems, "backend");
    let model = section
        .text(problems, "model")
        .unwrap_or_else(|| name.clone());
    let context_length = section.count(problems, "context_length", 1, u32::MAX);
    if section
        .texts(problems, "transforms")
        .is_some_and(|list| !list.is_empty())
    {
        let what = "this version has no transforms: leave the list empty";
        problems.add(&section.name("transforms"), what);
    }
    if !crate::backends::profile::is_model_name(&model) {
        let what = "is no name of a model: letters, digits and `._:/@[]-`, a letter or digit first";
        problems.add(&section.name("model"), format_args!("`{model}` {what}"));
    }
    match backend {
        None => {
            problems.add(
                &section.name("backend"),
                "is missing: name one of [backends]",
            );
            None
        }
        Some(backend) if !backends.iter().any(|b| b.name == backend) => {
            problems.add(
                &section.name("backend"),
                format_args!("there is no [backends.{backend}]"),
            );
            None
        }
        Some(backend) => Some(Model {
            name,
            backend,
            model,
            context_length: context_length.map(u64::from),
            is_named: true,
        }),
    }
}

/// Each backend's usual names; the first backend of a kind has them.
fn default_models(backends: &[Backend]) -> Vec<Model> {
    let mut models = Vec::new();
    let first = |profile| backends.iter().find(|b| b.profile == profile);
    if let Some(claude) = first(Profile::ClaudeCode) {
        models.extend(CLAUDE_MODELS.map(|(name, model)| Model {
            name: name.into(),
            backend: claude.name.clone(),
            model: model.into(),
            context_length: None,
            is_named: false,
        }));
    }
    if let Some(demo) = first(Profile::Demo) {
        models.push(Model {
            name: "demo".into(),
            backend: demo.name.clone(),
            model: "demo".into(),
            context_length: None,
            is_named: false,
        });
    }
    models
}
