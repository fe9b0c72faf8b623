//! The configuration's sections, with their defaults.

use std::path::{Path, PathBuf};
use std::time::Duration;

use guests::loader;
use guests::settings::{GuestLimits, GuestUse, Settings};

use basics::memory;

use super::guest_uses::{self, Guests};
use super::keys;
use super::reader::Section;
use super::serving;
use super::stores;
use super::{
    Access, BackendConfig, Config, HttpConfig, KeepAliveForm, Listen, ModelConfig, Overrides,
};

/// The largest value of `warm_memory` and `max_body_memory`, in bytes. A larger one is taken for a typing error.
const MEMORY_MOST: usize = 1 << 40;

/// Where the service listens by default.
const LISTEN: &str = "127.0.0.1:8013";

/// Reads the whole file. Where a value is wrong, reading goes on with its default, to find all mistakes.
pub(super) fn read(root: &mut Section, source: Option<PathBuf>, overrides: &Overrides) -> Config {
    let folder = source
        .as_deref()
        .and_then(Path::parent)
        .unwrap_or(Path::new(""));
    // The path is made absolute, so that messages show all of it. That fails if the working directory is gone.
    let folder = std::path::absolute(folder.join(".")).unwrap_or_else(|_| folder.to_owned());
    let listen = listen(root, overrides);
    let access = keys::access(root, &folder, overrides);
    check_reach(root, &listen, &access, overrides);
    let dir = root.text("guests_dir").unwrap_or_else(|| "guests.d".into());
    let mut sections = guest_uses::read(root, &folder, folder.join(dir));
    let backends = serving::backends(root, &mut sections);
    let builtin_models = root.flag("builtin_models").unwrap_or(true);
    let models = serving::models(root, &backends, builtin_models, &mut sections);
    let files = std::mem::take(&mut sections.files);
    let dialects = sections.dialects(root);
    let built_in = loader::DIALECTS
        .iter()
        .filter_map(|name| dialects.used(name));
    let mut uses = uses(&backends, &models);
    uses.extend(built_in);
    let guests = guest_settings(root, &folder, sections, uses, instances(&backends, &models));
    let cache = stores::cache(root);
    let traces = stores::traces(root);
    let ledger = stores::ledger(root, &folder, guests.state_dir.as_deref());
    Config {
        listen,
        shutdown_grace: root
            .duration("shutdown_grace")
            .unwrap_or(Duration::from_secs(20)),
        access,
        http: http(root),
        max_processes: root.count("max_processes", 1, 4096).unwrap_or(64) as usize,
        warm_memory: root
            .size("warm_memory", MEMORY_MOST)
            .map_or_else(usual_warm_memory, |size| size as u64),
        backends,
        builtin_models,
        models,
        guests,
        dialects,
        ledger,
        cache,
        traces,
        files,
        warnings: Vec::new(),
        overrides: overrides.clone(),
        source,
    }
}

/// The memory for processes that wait, unless it is configured: a quarter of what is available now, in bytes.
fn usual_warm_memory() -> u64 {
    const MOST: u64 = 2 << 30;
    memory::available().map_or(MOST / 2, |available| (available / 4).min(MOST))
}

/// The sockets that were handed to this program, and the addresses of the command line, or else of the file.
fn listen(root: &mut Section, overrides: &Overrides) -> Vec<Listen> {
    let configured = root.texts("listen");
    let mut listen = addresses(root, "LISTEN_FDS", &overrides.inherited);
    let others = match (&overrides.listen[..], configured) {
        ([], None) if !listen.is_empty() => Vec::new(),
        ([], None) => addresses(root, "listen", &[LISTEN.to_owned()]),
        ([], Some(list)) if list.is_empty() => {
            root.problem("listen", "an address is needed");
            Vec::new()
        }
        ([], Some(list)) => addresses(root, "listen", &list),
        (list, _) => addresses(root, "--listen", list),
    };
    for other in others {
        if !listen.contains(&other) {
            listen.push(other);
        }
    }
    listen
}

fn addresses(root: &Section, key: &str, list: &[String]) -> Vec<Listen> {
    let mut found = Vec::new();
    for text in list {
        match text.parse() {
            Ok(listen) => found.push(listen),
            Err(what) => root.problem(key, what),
        }
    }
    found
}

/// Anybody who reaches the service can spend the subscription. So an address that other machines
/// reach needs a key, unless the operator lists it in `open_addresses`.
fn check_reach(root: &Section, listen: &[Listen], access: &Access, overrides: &Overrides) {
    // The message names the setting that the operator used.
    let key = match overrides.listen[..] {
        [] => "listen",
        _ => "--listen",
    };
    for address in listen {
        let Listen::Tcp(tcp) = address else { continue };
        let name = address.to_string();
        if !tcp.ip().is_loopback()
            && access.keys.is_empty()
            && !access.open_addresses.contains(&name)
        {
            root.problem(
                key,
                format_args!(
                    "{name} can be reached by other machines, so it needs a key: set `api_keys` in the configuration, or the variable CLAUDE_HARNESS_API_KEY; or write `open_addresses = [\"{name}\"]` to let everybody there in"
                ),
            );
        }
    }
}

fn http(root: &mut Section) -> HttpConfig {
    let forms = [
        ("chunk", KeepAliveForm::Chunk),
        ("comment", KeepAliveForm::Comment),
    ];
    HttpConfig {
        max_body: root.size("max_body", 1 << 30).unwrap_or(32 << 20),
        max_body_memory: root.size("max_body_memory", MEMORY_MOST).unwrap_or(1 << 30),
        hold: root.duration("hold").unwrap_or(Duration::from_secs(10)),
        keep_alive: keep_alive(root),
        client_timeout: root
            .timeout("client_timeout")
            .unwrap_or(Duration::from_secs(60)),
        keep_alive_form: root
            .choice("keep_alive_form", &forms)
            .unwrap_or(KeepAliveForm::Chunk),
        max_choices: root.count("max_choices", 1, 64).unwrap_or(4),
        refuse_ignored: root.flag("refuse_ignored_params").unwrap_or(false),
        rate_limit_status: rate_limit_status(root),
    }
}

fn keep_alive(root: &mut Section) -> Duration {
    /// With a shorter interval, a stream would send little but keep-alive messages.
    const LEAST: Duration = Duration::from_millis(50);
    let time = root
        .duration("keep_alive")
        .unwrap_or(Duration::from_secs(15));
    if time < LEAST {
        root.problem("keep_alive", format_args!("it must be at least {LEAST:?}"));
    }
    time.max(LEAST)
}

fn rate_limit_status(root: &mut Section) -> u16 {
    match root.count("rate_limit_status", 429, 503) {
        None | Some(429) => 429,
        Some(503) => 503,
        Some(other) => {
            root.problem(
                "rate_limit_status",
                format_args!("`{other}` is neither 429 nor 503"),
            );
            429
        }
    }
}

fn guest_limits(root: &mut Section) -> GuestLimits {
    let default = GuestLimits::default();
    GuestLimits {
        call: root.timeout("guest_call_timeout").unwrap_or(default.call),
        memory: root.size("guest_memory", 1 << 30).unwrap_or(default.memory),
        output: root.size("guest_output", 1 << 30).unwrap_or(default.output),
        compile: root
            .timeout("guest_compile_timeout")
            .unwrap_or(default.compile),
    }
}

/// There is always room for this many exchanges at once. The room is fixed at the start, and a later
/// configuration may allow more exchanges than the first one.
const EXCHANGES_LEAST: usize = 128;

/// There is always room for this many transforms beside each adapter.
const TRANSFORMS_LEAST: usize = 2;

/// Room for instances that do not belong to an exchange: those of guests that are being admitted.
const MORE_INSTANCES: u32 = 32;

fn guest_settings(
    root: &mut Section,
    folder: &Path,
    sections: Guests,
    uses: Vec<GuestUse>,
    instances: u32,
) -> Settings {
    let mut or_default = |key, variable, below_home| {
        let named = root.text(key).map(|dir| folder.join(dir));
        named.or_else(|| default_dir(variable, below_home))
    };
    Settings {
        cache_dir: or_default("cache_dir", "XDG_CACHE_HOME", ".cache"),
        state_dir: or_default("state_dir", "XDG_STATE_HOME", ".local/state"),
        limits: guest_limits(root),
        named: sections.sections(&uses),
        uses,
        instances,
        dir: sections.dir,
    }
}

/// What guests are used for. What several models use with the same configuration is one use.
fn uses(backends: &[BackendConfig], models: &[ModelConfig]) -> Vec<GuestUse> {
    let adapters = backends.iter().map(|backend| &backend.adapter);
    let of_backends = backends.iter().flat_map(|backend| &backend.transforms);
    let of_models = models
        .iter()
        .flat_map(|model| model.transforms.iter().flatten());
    let transforms = of_backends
        .chain(of_models)
        .map(|transform| &transform.used);
    let mut uses: Vec<GuestUse> = Vec::new();
    for used in adapters.chain(transforms) {
        let same = |known: &GuestUse| known.guest == used.guest && known.config == used.config;
        if !uses.iter().any(same) {
            uses.push(used.clone());
        }
    }
    uses
}

/// Room for the instances of all exchanges that may run at once.
fn instances(backends: &[BackendConfig], models: &[ModelConfig]) -> u32 {
    let exchanges: usize = backends.iter().map(|b| b.admission.max_concurrent).sum();
    let of_backends = backends.iter().map(|backend| backend.transforms.len());
    let of_models = models
        .iter()
        .flat_map(|model| model.transforms.as_ref().map(Vec::len));
    let longest = of_backends.chain(of_models).max().unwrap_or(0);
    let instances = exchanges.max(EXCHANGES_LEAST) * (1 + longest.max(TRANSFORMS_LEAST));
    let instances = u32::try_from(instances).unwrap_or(u32::MAX);
    instances.saturating_add(MORE_INSTANCES)
}

/// The default folder, or `None` if the user has no home folder. `/tmp` is no substitute, because others can
/// write there, and what lies in this folder is run.
fn default_dir(variable: &str, below_home: &str) -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(below_home));
    let base = std::env::var_os(variable)
        .filter(|v| !v.is_empty())
        .map(PathBuf::from);
    Some(base.or_else(home)?.join("claude-harness"))
}

#[cfg(test)]
mod tests {
    use super::super::{ConfigError, Overrides};
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, None, &Overrides::default())
    }

    fn problems(text: &str) -> Vec<String> {
        match parse(text) {
            Err(ConfigError::Keys { problems, .. }) => problems,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        let config = parse("").unwrap();
        assert_eq!(
            config.listen,
            [Listen::Tcp("127.0.0.1:8013".parse().unwrap())]
        );
        let names: Vec<_> = config.backends.iter().map(|b| &*b.name).collect();
        assert_eq!(names, ["claude", "demo"]);
        assert!(
            config
                .models
                .iter()
                .any(|m| m.name == "claude-sonnet" && m.model == "sonnet")
        );
        assert!(config.models.iter().any(|m| m.name == "demo"));
    }

    #[test]
    fn every_mistake_is_reported_at_once_by_its_key() {
        let found = problems(
            r#"
            listen = ["localhost"]
            max_body = 5
            colour = "red"
            [backends.claude]
            queue_timeout = "soon"
            env = { CLAUDE_CODE_DISABLE_ATTACHMENTS = "0" }
            [models.x]
            backend = "claud"
            model = "--dangerously"
            transforms = ["redcat"]
            "#,
        );
        let keys: Vec<_> = found
            .iter()
            .map(|line| line.split('`').nth(1).unwrap())
            .collect();
        assert_eq!(
            keys,
            [
                "listen",
                "backends.claude.env.CLAUDE_CODE_DISABLE_ATTACHMENTS",
                "backends.claude.queue_timeout",
                "models.x.transforms[0]",
                "models.x.model",
                "models.x.backend",
                "max_body",
                "colour",
            ]
        );
    }

    #[test]
    fn an_address_that_others_reach_needs_a_key_or_the_operators_word() {
        assert_eq!(problems(r#"listen = ["0.0.0.0:1"]"#).len(), 1);
        parse("listen = [\"0.0.0.0:1\"]\napi_keys = [\"k\"]").unwrap();
        parse("listen = [\"172.17.0.1:1\"]\nopen_addresses = [\"172.17.0.1:1\"]").unwrap();
    }

    #[test]
    fn the_pinned_example_is_read() {
        let config = parse(
            r#"
            listen = ["127.0.0.1:8013", "unix:/run/x.sock"]
            guests_dir = "guests.d"
            [backends.claude]
            adapter = "claude-code"
            command = "claude"
            env = { ANTHROPIC_BASE_URL = "http://127.0.0.1:9" }
            pass_env = ["HOME"]
            framing = "lines"
            max_concurrent = 4
            queue = 32
            warm = 1
            [models.claude-sonnet]
            backend = "claude"
            model = "sonnet"
            transforms = []
            [guests.prompt-template]
            config = { template = "x" }
            "#,
        )
        .unwrap();
        assert!(
            config.models.iter().any(|m| m.name == "claude-opus"),
            "the usual names stay"
        );
        assert_eq!(
            config.guests.guest("prompt-template").uses[0].config["template"],
            "x"
        );
    }
}
