//! `claude-harness config …`: what a configuration says, without a running service.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use guests::loader;
use guests::settings::GuestConfig;
use toml::{Table, Value};

use crate::config::{
    BAD_CONFIGURATION, BackendConfig, Config, Framing, GuestUse, HttpConfig, KeepAliveForm,
    KeyLimits, ModelConfig, OnError, Overrides, TransformUse, Warm,
};

/// What stands in place of a value that may be secret.
const HIDDEN: &str = "…";

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Tell all mistakes; the exit status is 2 if there are some
    Check(Which),
    /// Print every setting, and where its value comes from
    Show(Which),
}

/// Which configuration is read.
#[derive(Args, Debug)]
pub struct Which {
    /// The configuration [default: as for `serve`]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Carries out a command.
///
/// # Errors
///
/// Fails if it cannot write what it has to say.
pub fn run(command: &ConfigCommand) -> Result<ExitCode> {
    let (ConfigCommand::Check(which) | ConfigCommand::Show(which)) = command;
    let config = match Config::load(&Overrides::of_command(which.config.clone())) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("claude-harness: {error}");
            return Ok(ExitCode::from(BAD_CONFIGURATION));
        }
    };
    let mut out = std::io::stdout().lock();
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    match command {
        ConfigCommand::Check(_) => match &config.source {
            Some(file) => writeln!(out, "{} can be used", file.display())?,
            None => writeln!(out, "there is no harness.toml: everything has its default")?,
        },
        ConfigCommand::Show(_) => write!(out, "{}", shown(&config, &written(&config)))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What the file says itself.
fn written(config: &Config) -> Table {
    let text = config.source.as_deref().map(std::fs::read_to_string);
    let text = text.and_then(Result::ok).unwrap_or_default();
    text.parse().unwrap_or_default()
}

/// A section with its settings.
struct Section {
    /// The tables that lead to it, outermost first.
    path: Vec<String>,
    settings: Vec<(Cow<'static, str>, Value)>,
}

impl Section {
    fn new<const N: usize>(path: [&str; N], settings: Vec<(&'static str, Value)>) -> Self {
        let settings = settings.into_iter();
        Section {
            path: path.map(str::to_owned).into(),
            settings: settings.map(|(key, value)| (key.into(), value)).collect(),
        }
    }
}

/// Every setting, as a file of its own that says the same, with a word on where each value comes from.
fn shown(config: &Config, written: &Table) -> String {
    let source = config.source.as_deref();
    let file = source.map_or("no file".into(), |file| file.display().to_string());
    let mut told = format!("# {file}; values that may be secret are shown as \"{HIDDEN}\"\n");
    for section in sections(config, written) {
        let path: Vec<String> = section.path.iter().map(|name| word(name)).collect();
        if !path.is_empty() {
            told += &format!("\n[{}]\n", path.join("."));
        }
        let inner = section.path.iter().try_fold(written, |table, name| {
            table.get(name).and_then(Value::as_table)
        });
        for (key, value) in section.settings {
            let is_written = inner.is_some_and(|table| table.contains_key(&*key));
            let from = if is_written { "" } else { "  # default" };
            told += &format!("{} = {value}{from}\n", word(&key));
        }
    }
    told
}

fn sections(config: &Config, written: &Table) -> Vec<Section> {
    let mut sections = vec![Section::new([], whole(config))];
    let backends = config.backends.iter();
    sections.extend(backends.map(|known| Section::new(["backends", &known.name], backend(known))));
    let models = config.models.iter();
    sections.extend(models.map(|known| Section::new(["models", &known.name], model(known))));
    for key in &config.access.keys {
        if let Some(name) = &key.name {
            let mut settings = vec![("key", HIDDEN.into()), ("admin", key.admin.into())];
            settings.extend(limits(&key.limits));
            sections.push(Section::new(["keys", name], settings));
        }
    }
    for guest in &config.guests.named {
        sections.push(Section::new(["guests", &guest.name], named(guest, written)));
    }
    sections.push(dialects(config));
    sections.extend(stores(config));
    sections
}

/// A guest's section.
fn named(guest: &GuestConfig, written: &Table) -> Vec<(&'static str, Value)> {
    let mut settings = vec![
        ("give_way_after", i64::from(guest.give_way_after).into()),
        ("log", format!("{:?}", guest.log).to_lowercase().into()),
    ];
    if let Some(digests) = &guest.allowed_digests {
        let digests = digests.iter();
        let digests: Vec<Value> = digests
            .map(|digest| format!("sha256:{digest}").into())
            .collect();
        settings.push(("allowed_digests", digests.into()));
    }
    let section = written
        .get("guests")
        .and_then(|guests| guests.get(&guest.name));
    let config = section.and_then(|section| section.get("config")?.as_table());
    if let Some(config) = config {
        settings.push(("config", hidden(config.keys())));
    }
    settings
}

/// Which dialects serve: the built-in ones, and those that are turned off.
fn dialects(config: &Config) -> Section {
    let built_in = loader::DIALECTS.iter().map(|name| (*name).to_owned());
    let names: BTreeSet<String> = built_in.chain(config.dialects.off().cloned()).collect();
    let serves = |name: &str| config.dialects.used(name).is_some();
    Section {
        path: vec!["dialects".to_owned()],
        settings: names
            .into_iter()
            .map(|name| {
                let serves = serves(&name).into();
                (name.into(), serves)
            })
            .collect(),
    }
}

/// The sections of what is kept of requests, and told of them.
fn stores(config: &Config) -> Vec<Section> {
    let ledger = match &config.ledger {
        None => vec![("enabled", false.into())],
        Some(ledger) => vec![
            ("enabled", true.into()),
            ("path", ledger.path.display().to_string().into()),
            ("keep", duration(ledger.keep)),
            ("max_size", size(ledger.max_size)),
        ],
    };
    let mut sections = vec![Section::new(["ledger"], ledger)];
    if let Some(cache) = &config.cache {
        let settings = vec![
            ("ttl", duration(cache.ttl)),
            ("size", size(cache.size)),
            ("across_keys", cache.across_keys.into()),
        ];
        sections.push(Section::new(["cache"], settings));
    }
    if let Some(traces) = &config.traces {
        let settings = vec![
            ("endpoint", (*traces.endpoint).into()),
            ("sample_percent", i64::from(traces.sample_percent).into()),
        ];
        sections.push(Section::new(["traces"], settings));
    }
    sections
}

fn limits(limits: &KeyLimits) -> Vec<(&'static str, Value)> {
    let whole = |number: u64| Value::from(i64::try_from(number).unwrap_or(i64::MAX));
    let rate = limits.requests_per_minute;
    let settings = [
        ("models", limits.models.as_ref().map(list)),
        (
            "requests_per_minute",
            rate.map(|rate| i64::from(rate.get()).into()),
        ),
        ("tokens_per_day", limits.tokens_per_day.map(whole)),
        ("max_concurrent", limits.max_concurrent.map(count)),
        (
            "plan_percent",
            limits.plan_percent.map(|most| i64::from(most).into()),
        ),
    ];
    let set = settings.into_iter();
    set.filter_map(|(key, value)| Some((key, value?))).collect()
}

fn whole(config: &Config) -> Vec<(&'static str, Value)> {
    let HttpConfig {
        max_body,
        max_body_memory,
        hold,
        keep_alive,
        client_timeout,
        keep_alive_form,
        max_choices,
        refuse_ignored,
        rate_limit_status,
    } = config.http.clone();
    let form = match keep_alive_form {
        KeepAliveForm::Chunk => "chunk",
        KeepAliveForm::Comment => "comment",
    };
    let access = &config.access;
    let unnamed = access.keys.iter().filter(|key| key.name.is_none());
    let guests = &config.guests;
    let folder = |folder: &Option<PathBuf>| match folder {
        Some(folder) => folder.display().to_string().into(),
        None => Value::from(""),
    };
    vec![
        ("listen", list(&config.listen)),
        ("api_keys", list(unnamed.map(|_| HIDDEN))),
        ("open_addresses", list(&access.open_addresses)),
        ("allowed_hosts", list(&access.hosts)),
        ("allowed_origins", list(&access.origins)),
        ("guests_dir", guests.dir.display().to_string().into()),
        ("cache_dir", folder(&guests.cache_dir)),
        ("state_dir", folder(&guests.state_dir)),
        ("max_body", size(max_body as u64)),
        ("max_body_memory", size(max_body_memory as u64)),
        ("hold", duration(hold)),
        ("keep_alive", duration(keep_alive)),
        ("keep_alive_form", form.into()),
        ("client_timeout", duration(client_timeout)),
        ("max_choices", i64::from(max_choices).into()),
        ("refuse_ignored_params", refuse_ignored.into()),
        ("rate_limit_status", i64::from(rate_limit_status).into()),
        ("builtin_models", config.builtin_models.into()),
        ("shutdown_grace", duration(config.shutdown_grace)),
        ("max_processes", count(config.max_processes)),
        ("warm_memory", size(config.warm_memory)),
        ("guest_call_timeout", duration(guests.limits.call)),
        ("guest_memory", size(guests.limits.memory as u64)),
        ("guest_output", size(guests.limits.output as u64)),
        ("guest_compile_timeout", duration(guests.limits.compile)),
    ]
}

fn backend(backend: &BackendConfig) -> Vec<(&'static str, Value)> {
    let launch = &backend.launch;
    let env: Table = launch
        .env
        .iter()
        .map(|(name, _)| (name.clone(), HIDDEN.into()))
        .collect();
    let warm = match backend.pool.warm {
        Warm::Auto => "auto".into(),
        Warm::Fixed(number) => count(number),
    };
    let framing = match launch.framing {
        Framing::Lines => "lines",
        Framing::Bytes => "bytes",
    };
    let timeouts = &backend.timeouts;
    let mut settings = vec![
        ("command", launch.command.clone().into()),
        ("profile", launch.profile.name.into()),
        ("adapter", guest(&backend.adapter)),
        ("transforms", transforms(&backend.transforms)),
        ("env", env.into()),
        ("pass_env", list(&launch.pass_env)),
        ("max_concurrent", count(backend.admission.max_concurrent)),
        ("queue", count(backend.admission.queue)),
        ("queue_timeout", duration(backend.admission.queue_timeout)),
        ("warm", warm),
        ("warm_max_age", duration(backend.pool.warm_max_age)),
        ("continue_for", duration(backend.pool.continue_for)),
        ("max_retries", i64::from(launch.max_retries).into()),
        ("start_timeout", duration(timeouts.start)),
        ("first_output_timeout", duration(timeouts.first_output)),
        ("silence_timeout", duration(timeouts.silence)),
        ("request_timeout", duration(timeouts.request)),
        ("fetch_urls", backend.fetch_urls.into()),
        ("login_warning", duration(backend.login_warning)),
        ("plan_windows", launch.plan_windows.into()),
        ("framing", framing.into()),
        ("max_line", size(launch.max_line as u64)),
    ];
    // A profile that has arguments of its own takes none.
    if !launch.args.is_empty() {
        settings.push(("args", list(&launch.args)));
    }
    settings
}

fn model(model: &ModelConfig) -> Vec<(&'static str, Value)> {
    let mut settings = vec![
        ("backend", Value::from(model.backend.clone())),
        ("model", model.model.clone().into()),
    ];
    if let Some(length) = model.context_length {
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        settings.push(("context_length", length.into()));
    }
    if let Some(own) = &model.transforms {
        settings.push(("transforms", transforms(own)));
    }
    settings
}

fn transforms(transforms: &[TransformUse]) -> Value {
    let transforms = transforms.iter().map(|transform| {
        let mut shown = match guest(&transform.used) {
            Value::Table(table) => table,
            name => Table::from_iter([("guest".into(), name)]),
        };
        if transform.on_error == OnError::Skip {
            shown.insert("on_error".into(), "skip".into());
        }
        Value::from(shown)
    });
    Value::Array(transforms.collect())
}

/// What a guest is configured with: only the keys, because the texts may be prompts.
fn hidden<'a>(keys: impl Iterator<Item = &'a String>) -> Value {
    let hidden: Table = keys.map(|key| (key.clone(), HIDDEN.into())).collect();
    hidden.into()
}

/// A guest by its name, or with its configuration.
fn guest(used: &GuestUse) -> Value {
    match used.config.as_object() {
        None => used.guest.clone().into(),
        Some(config) if config.is_empty() => used.guest.clone().into(),
        Some(config) => Table::from_iter([
            ("guest".into(), used.guest.clone().into()),
            ("config".into(), hidden(config.keys())),
        ])
        .into(),
    }
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> Value {
    let items = items.into_iter();
    Value::Array(items.map(|item| item.to_string().into()).collect())
}

fn count(number: usize) -> Value {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}

/// A time in the largest unit that divides it.
fn duration(duration: Duration) -> Value {
    let millis = duration.as_millis();
    let units = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
    ];
    let fits = |(_, unit): &(&str, u128)| millis.is_multiple_of(*unit);
    match units.into_iter().find(fits) {
        Some((_, _)) if millis == 0 => "0s".into(),
        Some((name, unit)) => format!("{}{name}", millis / unit).into(),
        None => format!("{millis}ms").into(),
    }
}

/// A size in the largest unit that divides it.
fn size(bytes: u64) -> Value {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let fits = |(_, bits): &(&str, u32)| bytes > 0 && bytes.trailing_zeros() >= *bits;
    match units.into_iter().find(fits) {
        Some((unit, bits)) => format!("{}{unit}", bytes >> bits).into(),
        None => format!("{bytes}B").into(),
    }
}

/// A name as a key of TOML.
fn word(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match !name.is_empty() && name.chars().all(is_bare) {
        true => name.to_owned(),
        false => Value::from(name).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = r#"
        max_body = "1MiB"
        keep_alive = "90s"
        guest_output = "1500B"
        [backends.claude]
        env = { ANTHROPIC_API_KEY = "a-secret" }
        max_concurrent = 2
        [backends.cat]
        profile = "generic"
        command = "cat"
        args = ["-u"]
        [models."gpt-4.1"]
        backend = "claude"
        model = "sonnet"
        transforms = [{ guest = "system-prompt", config = { prepend = "a prompt" }, on_error = "skip" }]
        [guests.redact]
        config = { builtin = ["email"], allow = ["a prompt"] }
        [dialects]
        ollama = false
        [keys.laptop]
        key = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        requests_per_minute = 30
    "#;

    fn config(text: &str) -> Config {
        Config::parse(text, None, &Overrides::default()).unwrap()
    }

    #[test]
    fn what_is_set_stands_beside_what_has_its_default_and_secrets_are_hidden() {
        let told = shown(&config(WRITTEN), &WRITTEN.parse().unwrap());
        for line in [
            "max_body = \"1MiB\"\n",
            "keep_alive = \"90s\"\n",
            "guest_output = \"1500B\"\n",
            "hold = \"10s\"  # default\n",
            "max_concurrent = 2\n",
            "env = { ANTHROPIC_API_KEY = \"…\" }\n",
            "[models.\"gpt-4.1\"]\nbackend = \"claude\"\nmodel = \"sonnet\"\n",
            "[guests.redact]\ngive_way_after = 5  # default\nlog = \"debug\"  # default\nconfig = { allow = \"…\", builtin = \"…\" }\n",
            "messages = true  # default\nollama = false\n",
            "[ledger]\nenabled = true  # default\npath = ",
            "[keys.laptop]\nkey = \"…\"\nadmin = false  # default\nrequests_per_minute = 30\n",
        ] {
            assert!(told.contains(line), "{line}\n{told}");
        }
        for secret in ["a-secret", "a prompt", "e3b0c4"] {
            assert!(!told.contains(secret), "{secret}\n{told}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read_and_says_the_same() {
        let before = config(
            "[backends.claude]\nmax_concurrent = 3\n[guests.redact]\nlog = \"warn\"\n[dialects]\nollama = false\n",
        );
        let told = shown(&before, &Table::new());
        let after = config(&told);
        assert_eq!(after.backends, before.backends, "{told}");
        assert_eq!(
            (after.http, after.guests, after.dialects, after.ledger),
            (before.http, before.guests, before.dialects, before.ledger),
            "{told}"
        );
    }

    #[test]
    fn every_setting_of_the_reference_is_shown() {
        let told = shown(&config(WRITTEN), &Table::new());
        let reference = include_str!("../../docs/reference/configuration.md");
        let parts: Vec<&str> = reference.split("\n## ").collect();
        for part in parts
            .iter()
            .filter(|part| part.starts_with("The whole") || part.starts_with("`[backends"))
        {
            let rows = part.lines().filter(|line| line.starts_with("| `"));
            let keys = rows.flat_map(|row| {
                row.split(" | ")
                    .next()
                    .unwrap()
                    .split('`')
                    .skip(1)
                    .step_by(2)
            });
            for key in keys.filter(|key| *key != "api_keys_file") {
                assert!(told.contains(&format!("\n{key} = ")), "{key}");
            }
        }
    }
}
