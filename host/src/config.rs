//! What the operator configured.
//!
//! One TOML file, or none: every key has a default, and the keys of a file replace the defaults
//! one by one. Only `[backends]` replaces the built-in ones as a whole.

mod guest_uses;
mod keys;
mod reader;
mod root;
mod serving;
mod stores;

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use basics::ownership::{self, NotOurs};
use sha2::{Digest, Sha256};

pub(crate) use reader::closest;

pub use crate::profiles::{Profile, Warm};
pub use guest_uses::DialectsConfig;
pub use guests::settings::GuestUse;
pub use processes::Framing;
use reader::{Problems, Section};

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file that was read, if any.
    pub source: Option<PathBuf>,
    /// What the command line overrides.
    pub overrides: Overrides,
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// How long requests in flight may go on after a signal to stop.
    pub shutdown_grace: Duration,
    /// Who may call.
    pub access: Access,
    /// How answers look on the wire.
    pub http: HttpConfig,
    /// The most processes of all backends at once.
    pub max_processes: usize,
    /// What processes may hold in memory while they wait for a request, in bytes.
    pub warm_memory: u64,
    /// The command lines that answer.
    pub backends: Vec<BackendConfig>,
    /// Whether the built-in names of models are served, and other names that begin with `claude-`.
    pub builtin_models: bool,
    /// The models by the names that clients use.
    pub models: Vec<ModelConfig>,
    /// Where guests are, and what they may do.
    pub guests: guests::settings::Settings,
    /// Which guests speak other HTTP APIs.
    pub dialects: DialectsConfig,
    /// What is kept of requests, if anything.
    pub ledger: Option<ledger::Settings>,
    /// Which answers are given again, if any.
    pub cache: Option<CacheConfig>,
    /// Where traces are sent, if they are.
    pub traces: Option<TracesConfig>,
    /// The files whose text is part of a guest's configuration.
    pub files: Vec<PathBuf>,
    /// What is accepted, and probably not meant: a line each.
    pub warnings: Vec<String>,
}

/// A text that is not shown: it may be a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// `127.0.0.1:8013`
    Tcp(SocketAddr),
    /// `unix:/path`
    Unix(PathBuf),
}

/// Who may call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// The keys, one of which a caller must send. Without keys everybody on this machine may call.
    pub keys: Vec<Key>,
    /// Names that a `Host` header may carry beside those of this machine.
    pub hosts: Vec<String>,
    /// The origins of web pages and Electron programs that may call, with a key.
    pub origins: Vec<String>,
    /// Addresses off this machine's loopback that may be listened on without a key.
    pub open_addresses: Vec<String>,
}

/// A key that callers may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The name of its `[keys.NAME]`; those of `api_keys` have none.
    pub name: Option<Arc<str>>,
    /// What it is known by.
    pub digest: KeyDigest,
    /// Whether it opens the admin area.
    pub admin: bool,
    /// What it may use.
    pub limits: Arc<KeyLimits>,
}

/// What a key may use. Without a value, there is no limit but those of the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// The models, by the names that clients use.
    pub models: Option<Vec<String>>,
    /// Requests in a minute.
    pub requests_per_minute: Option<NonZeroU32>,
    /// Tokens in a day of UTC, of prompts and answers together. The request that goes beyond it is the last one.
    pub tokens_per_day: Option<u64>,
    /// Requests at once.
    pub max_concurrent: Option<usize>,
    /// How far any window of the plan may be used, in percent, for the key to be served.
    pub plan_percent: Option<u32>,
}

/// The SHA-256 digest of a key. Only digests are compared, so the time that this takes reveals nothing of a key.
pub type KeyDigest = [u8; 32];

/// Answers that are given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// For how long.
    pub ttl: Duration,
    /// What they may take in memory, in bytes.
    pub size: u64,
    /// Whether callers with different keys may get each other's answers.
    pub across_keys: bool,
}

/// Where traces are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracesConfig {
    /// The address of a collector's OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`.
    pub endpoint: String,
    /// How many requests of a hundred are traced, of those whose client has not decided it.
    pub sample_percent: u32,
}

/// How answers look on the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpConfig {
    /// The largest body of a request, in bytes.
    pub max_body: usize,
    /// What the bodies of all requests together may take, in bytes.
    pub max_body_memory: usize,
    /// How long the status line of a stream is held back for the first content or error.
    pub hold: Duration,
    /// How long a stream may be silent before something is sent to keep it alive.
    pub keep_alive: Duration,
    /// How long a client may take to send the next piece of a body, or to take what is sent.
    pub client_timeout: Duration,
    /// What is sent to keep a silent stream alive.
    pub keep_alive_form: KeepAliveForm,
    /// The most answers to one request.
    pub max_choices: u32,
    /// Whether parameters that would only be ignored are refused.
    pub refuse_ignored: bool,
    /// Which status tells of a usage limit.
    pub rate_limit_status: u16,
}

/// What keeps a silent stream alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAliveForm {
    /// A chunk with an empty delta, which every client understands.
    Chunk,
    /// A comment of server-sent events.
    Comment,
}

/// A command line that answers.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendConfig {
    /// Its name in the configuration.
    pub name: String,
    /// The guest that speaks its protocol.
    pub adapter: GuestUse,
    /// The transforms of each of its models that names none of its own.
    pub transforms: Vec<TransformUse>,
    /// How its processes are started. A change ends those that are idle.
    pub launch: LaunchConfig,
    /// How many requests it serves and lets wait.
    pub admission: AdmissionConfig,
    /// How many processes are idle, and for how long.
    pub pool: PoolConfig,
    /// How long it may take.
    pub timeouts: TimeoutConfig,
    /// How long before the end of its login it is warned of.
    pub login_warning: Duration,
    /// Whether clients may name pictures and files by their URL, for the API to fetch.
    pub fetch_urls: bool,
}

/// How a backend's processes are started.
#[derive(Clone, Debug, PartialEq)]
pub struct LaunchConfig {
    /// What is known of the command line.
    pub profile: &'static Profile,
    /// The program: a path, or a name to look for on the `PATH`.
    pub command: String,
    /// Its arguments, if its profile leaves them to the configuration. `{model}` stands for the model's name.
    pub args: Vec<String>,
    /// Variables set for it.
    pub env: Vec<(String, Secret)>,
    /// Variables passed on from the environment of this service.
    pub pass_env: Vec<String>,
    /// How often the CLI itself repeats a failed call of the API.
    pub max_retries: u32,
    /// Whether it may ask its API how much of the plan is used.
    pub plan_windows: bool,
    /// How its output is cut into pieces.
    pub framing: Framing,
    /// The longest line of output, in bytes.
    pub max_line: usize,
}

impl LaunchConfig {
    /// A digest of all of it, secrets included.
    pub(crate) fn digest(&self) -> [u8; 32] {
        // Secrets are not shown, so they are added.
        let secrets = self.env.iter().map(|(_, Secret(value))| value);
        let all = format!("{self:?}\0{:?}", secrets.collect::<Vec<_>>());
        Sha256::digest(all.as_bytes()).into()
    }
}

/// How many requests a backend serves and lets wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionConfig {
    /// Exchanges at once.
    pub max_concurrent: usize,
    /// Requests that may wait for their turn.
    pub queue: usize,
    /// How long a request may wait for its turn.
    pub queue_timeout: Duration,
}

/// The idle processes of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Processes that are started ahead, for each launch in use.
    pub warm: Warm,
    /// How long one of them may wait.
    pub warm_max_age: Duration,
    /// How long a process is kept after an answer, for its conversation to go on.
    pub continue_for: Duration,
}

/// How long a backend may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutConfig {
    /// From the request to the first line of output.
    pub start: Duration,
    /// From the request to the first piece of the answer.
    pub first_output: Duration,
    /// From one output to the next.
    pub silence: Duration,
    /// From the request to the end of the answer.
    pub request: Duration,
}

/// A model by the name that clients use.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The name that clients use.
    pub name: String,
    /// The backend that serves it.
    pub backend: String,
    /// What the backend calls it.
    pub model: String,
    /// How many tokens it can read and write, if the operator says so.
    pub context_length: Option<u64>,
    /// The configuration names it, so processes for it are started with the service.
    pub is_named: bool,
    /// Its transforms, in the order of a request. None if they are its backend's.
    pub transforms: Option<Vec<TransformUse>>,
}

/// A transform of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct TransformUse {
    /// The guest and its configuration.
    pub used: GuestUse,
    /// What happens when it breaks a bound or a rule.
    pub on_error: OnError,
}

/// What happens when a transform breaks a bound or a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The request fails.
    Refuse,
    /// The request goes on without the transform.
    Skip,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Somebody else can change the file, and so what this program runs.
    #[error("{what}; a configuration names programs that are run, so nobody else may write it")]
    NotOurs {
        /// What others can change, and the command that mends it.
        what: String,
    },
    /// The file is not valid TOML.
    #[error("{origin} is not valid TOML: {message}")]
    Syntax {
        /// The file.
        origin: String,
        /// What the parser says, with the line.
        message: String,
    },
    /// Some keys are wrong.
    #[error("{origin} has mistakes:\n  {}", problems.join("\n  "))]
    Keys {
        /// The file.
        origin: String,
        /// A line for each mistake, beginning with the key.
        problems: Vec<String>,
        /// The files that it names, which may be what is to be mended.
        files: Vec<PathBuf>,
    },
}

/// What the command line overrides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--config FILE`
    pub file: Option<PathBuf>,
    /// `--listen ADDR`, if given at least once.
    pub listen: Vec<String>,
    /// Addresses of sockets that listen already; they are served beside the configured ones, and
    /// instead of the default one.
    pub inherited: Vec<String>,
    /// The digest of a key that callers may send, beside those of the file.
    pub api_key: Option<KeyDigest>,
}

/// The exit status of a program whose configuration cannot be used.
pub const BAD_CONFIGURATION: u8 = 2;

impl Overrides {
    /// Those of a command that takes `--config FILE`: the file, and the key of the variable `CLAUDE_HARNESS_API_KEY`.
    pub fn of_command(file: Option<PathBuf>) -> Self {
        let overrides = Overrides {
            file,
            ..Overrides::default()
        };
        let key = std::env::var("CLAUDE_HARNESS_API_KEY").ok();
        overrides.with_api_key(key.as_deref())
    }

    /// Adds a key that callers may send, beside those of the file. An empty one adds nothing.
    fn with_api_key(self, key: Option<&str>) -> Self {
        let key = key.map(str::trim).filter(|key| !key.is_empty());
        Overrides {
            api_key: key.map(|key| Sha256::digest(key.as_bytes()).into()),
            ..self
        }
    }
}

impl Config {
    /// Reads the configuration from the file that `overrides` or the environment names, from
    /// the first `harness.toml` that exists in the working directory, in
    /// `~/.config/claude-harness/` or in `/etc/claude-harness/`, or else takes the defaults.
    ///
    /// # Errors
    ///
    /// Fails if a file that was named is not there, and if any key is wrong; all of them are
    /// reported at once.
    pub fn load(overrides: &Overrides) -> Result<Config, ConfigError> {
        let Some(path) = find(overrides) else {
            return Config::parse("", None, overrides);
        };
        ownership::check(&path).map_err(|what| match what {
            NotOurs::Unknown { source, .. } => ConfigError::Read {
                path: path.clone(),
                source,
            },
            what => ConfigError::NotOurs {
                what: what.to_string(),
            },
        })?;
        let text = read(&path).map_err(|source| ConfigError::Read {
            path: path.clone(),
            source,
        })?;
        Config::parse(&text, Some(path), overrides)
    }

    /// Reads a configuration from its text. Relative paths start at the file's folder.
    ///
    /// # Errors
    ///
    /// See [`Config::load`].
    pub fn parse(
        text: &str,
        source: Option<PathBuf>,
        overrides: &Overrides,
    ) -> Result<Config, ConfigError> {
        let origin = source
            .as_deref()
            .map_or("the configuration".into(), |p| p.display().to_string());
        let table = text
            .parse::<toml::Table>()
            .map_err(|e| ConfigError::Syntax {
                origin: origin.clone(),
                message: syntax(text, &e),
            })?;
        let problems = Problems::default();
        let mut root = Section::new("", table, &problems);
        let mut config = root::read(&mut root, source, overrides);
        root.finish();
        config.warnings = problems.take_warnings();
        let problems = problems.into_lines();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Keys {
                origin,
                problems,
                files: config.files,
            })
        }
    }

    /// Keys of which `next` has other values, and which are looked at only when the service starts.
    pub(crate) fn fixed_keys(&self, next: &Config) -> Vec<&'static str> {
        let differs = [
            ("cache_dir", self.guests.cache_dir != next.guests.cache_dir),
            ("state_dir", self.guests.state_dir != next.guests.state_dir),
            (
                "max_body_memory",
                self.http.max_body_memory != next.http.max_body_memory,
            ),
            (
                "guest_call_timeout, guest_memory, guest_output or guest_compile_timeout",
                self.guests.limits != next.guests.limits,
            ),
        ];
        let differs = differs.into_iter().filter(|(_, differs)| *differs);
        differs.map(|(key, _)| key).collect()
    }

    /// Logs what is accepted and probably not meant.
    pub(crate) fn warn(&self) {
        for warning in &self.warnings {
            tracing::warn!("the configuration: {warning}");
        }
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Listen::Tcp(address) => write!(f, "{address}"),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("`unix:` needs a path behind it".into()),
            Some(path) => Ok(Listen::Unix(path.into())),
            None => tcp_address(text).map(Listen::Tcp).ok_or_else(|| {
                format!(
                    "`{text}` is no address: write IP:PORT, such as 127.0.0.1:8013, or unix:/path"
                )
            }),
        }
    }
}

/// `IP:PORT`, or only one of the two. The default takes the place of the other.
fn tcp_address(text: &str) -> Option<SocketAddr> {
    const PORT: u16 = 8013;
    let whole = || text.parse().ok();
    let port = || Some((IpAddr::from([127, 0, 0, 1]), text.parse().ok()?).into());
    let ip = || Some((text.parse::<IpAddr>().ok()?, PORT).into());
    whole().or_else(port).or_else(ip)
}

/// Reads a file, unless it is larger than any configuration.
fn read(path: &Path) -> std::io::Result<String> {
    /// The largest configuration, in bytes: guests may be configured with whole tables.
    const SIZE_MAX: u64 = 64 << 20;
    let mut text = String::new();
    let size = std::fs::File::open(path)?
        .take(SIZE_MAX + 1)
        .read_to_string(&mut text)?;
    if size as u64 > SIZE_MAX {
        return Err(std::io::Error::other("it is larger than 64 MiB"));
    }
    Ok(text)
}

/// What is wrong with a file's syntax, and where. The value after the `=` is not shown, because it may be an API
/// key.
fn syntax(text: &str, error: &toml::de::Error) -> String {
    let mut at = error.span().map_or(0, |span| span.start).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let begin = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[..at].matches('\n').count() + 1;
    let column = text[begin..at].chars().count() + 1;
    let what = error.message().lines().next().unwrap_or_default();
    let place = format!("line {line}, column {column}: {what}");
    let key = text[begin..]
        .lines()
        .next()
        .and_then(|line| line.split_once('='));
    match key {
        Some((key, _)) if key.len() <= 100 && !key.contains(['"', '\'']) => {
            format!(
                "{place}\n  {}= …\n  {:>column$}",
                key.replace('\t', " "),
                '^'
            )
        }
        _ => place,
    }
}

fn find(overrides: &Overrides) -> Option<PathBuf> {
    if let Some(file) = &overrides.file {
        return Some(file.clone());
    }
    if let Some(file) = std::env::var_os("CLAUDE_HARNESS_CONFIG").filter(|v| !v.is_empty()) {
        return Some(file.into());
    }
    let home = std::env::var_os("HOME")
        .map(|home| Path::new(&home).join(".config/claude-harness/harness.toml"));
    let places = [
        Some("harness.toml".into()),
        home,
        Some("/etc/claude-harness/harness.toml".into()),
    ];
    places.into_iter().flatten().find(|path| path.is_file())
}
