//! What is configured of guests.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How many requests in a row a guest may break before it gives way, unless the configuration says otherwise.
const GIVE_WAY_AFTER: u32 = 5;

/// Where guests are, and what they may do.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Components in this folder override the built-in guests.
    pub dir: PathBuf,
    /// Where compiled guests are kept from one start to the next, if anywhere.
    pub cache_dir: Option<PathBuf>,
    /// Where the last good guests are kept, if anywhere.
    pub state_dir: Option<PathBuf>,
    /// What one call of a guest may use.
    pub limits: GuestLimits,
    /// The guests that have a section.
    pub named: Vec<GuestConfig>,
    /// What guests are used for, and with which configuration.
    pub uses: Vec<GuestUse>,
    /// How many instances there is room for at once. A change takes effect at the next start.
    pub instances: u32,
}

/// What one call of a guest may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestLimits {
    /// Time for one call that handles a line of output; a call that handles a whole request,
    /// or more than 64 KiB, has ten times as much.
    pub call: Duration,
    /// Linear memory of one instance, in bytes.
    pub memory: usize,
    /// What one call may return, in bytes: this much, and twice the size of its input.
    pub output: usize,
    /// How long compiling one may take.
    pub compile: Duration,
}

impl Default for GuestLimits {
    fn default() -> Self {
        GuestLimits {
            call: Duration::from_millis(500),
            memory: 512 << 20,
            output: 1 << 20,
            compile: Duration::from_secs(120),
        }
    }
}

/// What is configured of a guest.
#[derive(Clone, Debug, PartialEq)]
pub struct GuestConfig {
    /// Its name.
    pub name: String,
    /// What it is used for. In [`Settings::named`]: how its configuration is tried although nothing uses it.
    pub uses: Vec<GuestUse>,
    /// The highest level that its lines in the log have.
    pub log: GuestLog,
    /// The digests that a component from a file may have, in hexadecimal. None: any.
    pub allowed_digests: Option<Vec<String>>,
    /// After it has broken so many requests in a row, the component before takes its place. 0: never.
    pub give_way_after: u32,
}

/// A use of a guest.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct GuestUse {
    /// The guest's name.
    pub guest: String,
    /// The key of the configuration that says so, for messages.
    pub at: String,
    /// What the guest is configured with: a JSON object.
    pub config: Value,
}

/// The highest level that a guest's lines in the log have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestLog {
    /// As far as `debug`.
    Debug,
    /// As far as `info`.
    Info,
    /// As far as `warn`.
    Warn,
    /// Each line keeps its level.
    Error,
}

impl Settings {
    /// What is configured of a guest. A guest without a section has the defaults.
    pub fn guest(&self, name: &str) -> GuestConfig {
        let found = self.named.iter().find(|guest| guest.name == name);
        let mut guest = found.cloned().unwrap_or_else(|| GuestConfig::unset(name));
        let uses = self.uses.iter().filter(|used| used.guest == name);
        guest.uses.extend(uses.cloned());
        guest
    }

    /// Whether anything uses a guest.
    pub fn uses(&self, name: &str) -> bool {
        self.uses.iter().any(|used| used.guest == name)
    }

    /// Where the component of a guest is looked for.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.wasm"))
    }

    /// Where the cases of a guest are looked for.
    pub fn cases(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.cases"))
    }
}

impl GuestConfig {
    /// The settings of a guest that the configuration does not name.
    pub fn unset(name: &str) -> Self {
        GuestConfig {
            name: name.to_owned(),
            uses: Vec::new(),
            log: GuestLog::Debug,
            allowed_digests: None,
            give_way_after: GIVE_WAY_AFTER,
        }
    }
}
