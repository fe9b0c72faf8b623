//! Decides whether a component may serve.
//!
//! A component is admitted only after it was compiled, its imports were looked at, and it was
//! instantiated, described and configured under the bounds that hold in production. The same
//! path serves embedded guests and files.

mod interfaces;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use basics::plain::{self, is_word};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::cache::{Cache, Compile};
use super::cases::{self, CaseError, Difference, OnRecorded, ReadRequest, Tape};
use super::compile::CompileError;
use super::contract::v1_0::{self, Description, GuestPre};
use super::engine::{Effort, Engine, Toll};
use super::instance::{bare, configured};
use crate::GuestError;
use crate::settings::{GuestConfig, GuestUse};
pub use interfaces::Interfaces;
use interfaces::{check_imports, check_version, is_wasi};

/// The largest component, in bytes: those made of Python have 18 MB.
pub const COMPONENT_MAX: u64 = 64 << 20;

/// The longest summary of a guest, and what it may say of its configuration, in characters.
const SUMMARY_MAX: usize = 200;
const MESSAGE_MAX: usize = 500;

/// A guest that may serve.
pub struct Guest {
    /// Its name: that of its file.
    pub name: String,
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    /// The generation of the first set that held this guest.
    pub generation: u64,
    /// Where it comes from.
    pub origin: GuestSource,
    /// What it says is its version.
    pub version: String,
    /// What it says of itself.
    pub summary: String,
    /// The fields of a request that it honours.
    pub honours: Arc<[String]>,
    pub(crate) engine: Engine,
    pub(crate) toll: Arc<Toll>,
    pub(crate) pre: GuestPre,
    /// Whether an instance may call WASI.
    pub(crate) imports_wasi: bool,
    /// The configurations that it took, as JSON: one for each use of it.
    pub(crate) configs: Vec<Arc<str>>,
    /// What it says of the configurations that it did not take.
    pub(crate) refused: Option<String>,
    pub(crate) settings: GuestConfig,
    /// What its configurations look like, as JSON Schema.
    pub(crate) schema: Arc<str>,
    /// How many requests in a row it has broken.
    pub(crate) broken_in_a_row: AtomicU32,
    /// Who wants to have the next request recorded.
    pub(crate) to_record: Mutex<Option<OnRecorded>>,
}

/// What a guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// It speaks the protocol of a command line.
    Adapter,
    /// It changes requests and answers on their way.
    Transform,
    /// It speaks another HTTP API.
    Dialect,
}

impl World {
    /// Its name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            World::Adapter => "adapter",
            World::Transform => "transform",
            World::Dialect => "dialect",
        }
    }
}

/// Where a guest comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestSource {
    /// Built into this program.
    Embedded,
    /// A file in the guests' folder.
    File,
    /// The last one that was admitted from such a file, because what is there now is bad.
    LastGood,
}

/// How far a guest's calls are trusted to be short, and so where they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It is built into this program: its calls may run where requests are served.
    BuiltIn,
    /// It is from a file: its calls may be long.
    FromFile,
    /// It is from a file, and in the last minute one of its calls trapped, broke a bound or took long.
    Suspect,
}

impl Guest {
    /// Whether it is built into this program.
    pub(crate) fn is_own(&self) -> bool {
        self.origin == GuestSource::Embedded
    }

    /// How far its calls are trusted to be short.
    pub fn standing(&self) -> Standing {
        match self.is_own() {
            true => Standing::BuiltIn,
            false if self.toll.is_suspect() => Standing::Suspect,
            false => Standing::FromFile,
        }
    }

    /// What the calls of the guests of its name have taken since the start.
    pub fn taken(&self) -> crate::Taken {
        self.toll.taken()
    }

    /// The configurations that it took, as JSON.
    pub fn configs(&self) -> &[Arc<str>] {
        &self.configs
    }

    /// Takes note that it broke a bound or a rule, which failed a request. After a number of them in a row, the
    /// component before takes its place (`GuestConfig::give_way_after`).
    pub fn broke(&self) {
        self.broken_in_a_row.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes note that a request went well.
    pub fn served(&self) {
        self.broken_in_a_row.store(0, Ordering::Relaxed);
    }

    /// Whether it is to give way to the component before.
    pub(crate) fn is_to_give_way(&self) -> bool {
        let most = self.settings.give_way_after;
        let is_from_file = self.origin == GuestSource::File;
        is_from_file && most > 0 && self.broken_in_a_row.load(Ordering::Relaxed) >= most
    }

    /// The same component for a trial: what it does there counts for nobody else, and it gives way to all others.
    pub(crate) fn on_trial(&self) -> Guest {
        let toll = Arc::new(Toll::default());
        toll.suspect();
        Guest {
            name: self.name.clone(),
            digest: self.digest.clone(),
            generation: self.generation,
            origin: self.origin,
            version: self.version.clone(),
            summary: self.summary.clone(),
            honours: self.honours.clone(),
            engine: self.engine.clone(),
            toll,
            pre: self.pre.clone(),
            imports_wasi: self.imports_wasi,
            configs: self.configs.clone(),
            refused: None,
            settings: self.settings.clone(),
            schema: self.schema.clone(),
            broken_in_a_row: AtomicU32::new(0),
            to_record: Mutex::default(),
        }
    }

    /// Records the next request that it serves, and nothing else. Who asked before gets nothing.
    pub fn record_next(&self, on_recorded: OnRecorded) {
        *self.to_record.lock() = Some(on_recorded);
    }

    /// Records no request any more.
    pub fn record_none(&self) {
        *self.to_record.lock() = None;
    }

    /// Records a request, if somebody asked for it.
    pub(crate) fn tape(&self) -> Option<Tape> {
        self.to_record.lock().take().map(Tape::new)
    }

    /// Makes an instance with one of its configurations, and drops it.
    ///
    /// # Errors
    ///
    /// Fails if the guest breaks a bound.
    pub fn try_instance(&self, config: &str) -> Result<(), GuestError> {
        configured(self, config, None).map(drop)
    }

    /// What it is.
    pub fn world(&self) -> World {
        self.pre.world()
    }
}

/// What the rest of the program knows, and guests are judged by.
#[derive(Clone, Copy)]
pub struct Judges {
    /// Reads the requests of cases.
    pub read_request: ReadRequest,
    /// Says what is wrong with settings by a guest's own schema.
    pub check_settings: CheckSettings,
}

/// Says everything that is wrong with settings by a JSON Schema: a sentence each, with the key. `is_own` is whether the
/// schema is this program's own. The error is what is wrong with the schema.
pub type CheckSettings =
    fn(schema: &str, settings: &Value, is_own: bool) -> Result<Vec<String>, String>;

/// A component that is to be admitted.
pub(crate) struct Candidate<'a> {
    bytes: &'a [u8],
    digest: String,
    origin: GuestSource,
    /// Its `[guests.NAME]` section.
    settings: &'a GuestConfig,
    /// The folder with the cases that it must repeat.
    cases: Option<&'a Path>,
}

/// Why a component may not serve.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is larger than 64 MiB.
    #[error("it is larger than {} MiB", COMPONENT_MAX >> 20)]
    TooLarge,
    /// Its digest is not among those that are allowed.
    #[error("its digest is not in `guests.NAME.allowed_digests`: sha256:{0}")]
    NotAllowed(String),
    /// It is not a component.
    #[error("it is not a WebAssembly component: {0}")]
    NoComponent(String),
    /// It was not compiled.
    #[error("it was not compiled: {0}")]
    NotCompiled(CompileError),
    /// It imports something that no guest may import.
    #[error("it imports `{0}`, and a guest may import nothing but the contract's `log` and WASI")]
    Import(String),
    /// It does not export the contract.
    #[error(
        "it exports neither `adapter` nor `transform` nor `dialect` of the contract, version 1.0: {0}"
    )]
    Contract(String),
    /// It was built for a contract that is not served any more.
    #[error("it was built for version {0} of the contract: build it again for version 1.0")]
    Older(String),
    /// It was built for a contract that this program does not know yet.
    #[error(
        "it was built for version {0} of the contract, and this program knows version 1.0: update claude-harness"
    )]
    Newer(String),
    /// A call broke a bound.
    #[error("{0}")]
    Call(#[from] super::GuestError),
    /// It does not do what was recorded.
    #[error("it does not repeat the case `{case}`, {difference}")]
    Case {
        /// The name of the case.
        case: String,
        /// Where it differs.
        difference: Difference,
    },
    /// Its cases cannot be replayed.
    #[error("its cases: {0}")]
    Cases(#[from] CaseError),
    /// The schema of its settings is none.
    #[error("its `config-schema` is no JSON Schema: {0}")]
    Schema(String),
    /// It refuses its configuration: each key, and what it says about it.
    #[error("it refuses its configuration {0}")]
    Config(String),
}

impl From<CompileError> for Refused {
    fn from(error: CompileError) -> Self {
        match error {
            CompileError::Invalid(what) => Refused::NoComponent(plain::line(&what, MESSAGE_MAX)),
            other => Refused::NotCompiled(other),
        }
    }
}

/// The digest that names a component, in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl<'a> Candidate<'a> {
    pub(crate) fn new(bytes: &'a [u8], origin: GuestSource, settings: &'a GuestConfig) -> Self {
        Candidate {
            bytes,
            digest: digest(bytes),
            origin,
            settings,
            cases: None,
        }
    }

    /// With the folder of the cases that it must repeat.
    pub(crate) fn with_cases(self, cases: Option<&'a Path>) -> Self {
        Candidate { cases, ..self }
    }

    /// Whether `guest` was made from the same component, of the same origin and with the same settings.
    pub(crate) fn is(&self, guest: &Guest) -> bool {
        let same = guest.digest == self.digest && guest.origin == self.origin;
        same && guest.settings == *self.settings
    }
}

/// Admits a component, or says why not. This may take as long as `guest_compile_timeout` and the limits of a few
/// calls together.
pub(crate) fn admit(
    engine: &Engine,
    cache: &Cache,
    candidate: &Candidate<'_>,
    judges: Judges,
) -> Result<Guest, Refused> {
    let allowed = candidate.settings.allowed_digests.as_ref();
    if candidate.origin != GuestSource::Embedded
        && allowed.is_some_and(|allowed| !allowed.contains(&candidate.digest))
    {
        return Err(Refused::NotAllowed(candidate.digest.clone()));
    }
    if candidate.bytes.len() as u64 > COMPONENT_MAX {
        return Err(Refused::TooLarge);
    }
    if !begins_as_component(candidate.bytes) {
        return Err(Refused::NoComponent(match candidate.bytes {
            [b'\0', b'a', b's', b'm', 1, 0, 0, 0, ..] => {
                "it is a core module: build it as a component, with `cargo guests`".into()
            }
            _ => "the file does not begin as a component does".into(),
        }));
    }
    let how = match candidate.origin {
        GuestSource::Embedded => Compile::Here,
        GuestSource::File | GuestSource::LastGood => Compile::InProcess,
    };
    let Interfaces { imports, exports } = Interfaces::read(candidate.bytes)?;
    check_version(imports.iter().chain(&exports))?;
    check_imports(&imports)?;
    let imports_wasi = imports.iter().any(|name| is_wasi(name));
    let component = cache.compile(engine, &candidate.digest, candidate.bytes, how)?;
    let pre = engine
        .linker(&component)
        .and_then(|linker| linker.instantiate_pre(&component))
        .and_then(GuestPre::new)
        .map_err(|e| Refused::Contract(first_line(&e)))?;
    let mut guest = Guest {
        name: candidate.settings.name.clone(),
        digest: candidate.digest.clone(),
        generation: 1,
        origin: candidate.origin,
        version: String::new(),
        summary: String::new(),
        honours: Arc::default(),
        engine: engine.clone(),
        toll: engine.toll(&candidate.settings.name),
        pre,
        imports_wasi,
        configs: Vec::new(),
        refused: None,
        settings: candidate.settings.clone(),
        schema: Arc::default(),
        broken_in_a_row: AtomicU32::new(0),
        to_record: Mutex::default(),
    };
    let description = describe(&guest)?;
    guest.honours = v1_0::honours(&description).into();
    guest.schema = description.config_schema.into();
    // People other than the operator see the version and the summary, and a guest may put any text there. So
    // both are cleaned.
    guest.version = match is_word(&description.version) {
        true => description.version,
        false => "unknown".into(),
    };
    guest.summary = plain::line(&description.summary, SUMMARY_MAX);
    configure(&mut guest, judges.check_settings)?;
    match candidate.cases {
        Some(folder) => replay(guest, folder, judges.read_request),
        None => Ok(guest),
    }
}

/// Has a guest repeat its cases.
fn replay(guest: Guest, folder: &Path, read_request: ReadRequest) -> Result<Guest, Refused> {
    let guest = Arc::new(guest);
    for case in cases::read_folder(folder)? {
        if let Some(difference) = case.replay(&guest, read_request)?.difference {
            let case = plain::line(&case.name, 80);
            return Err(Refused::Case { case, difference });
        }
    }
    // Each case has dropped its instance.
    Arc::into_inner(guest).ok_or(Refused::Call(GuestError::Saturated))
}

/// Tries all configurations that the guest is to have.
///
/// # Errors
///
/// Fails if it takes none of them.
fn configure(guest: &mut Guest, check: CheckSettings) -> Result<(), Refused> {
    let mut refusals = Vec::new();
    let mut uses = guest.settings.uses.clone();
    // A dialect serves as soon as it is there, whether or not the configuration names it.
    if uses.is_empty() && guest.world() == World::Dialect {
        uses.push(GuestUse {
            guest: guest.name.clone(),
            at: format!("guests.{}.config", guest.name),
            config: Value::Object(Map::new()),
        });
    }
    for used in &uses {
        let problems =
            check(&guest.schema, &used.config, guest.is_own()).map_err(Refused::Schema)?;
        if !problems.is_empty() {
            refusals.push(format!("`{}`: {}", used.at, problems.join("; ")));
            continue;
        }
        let config = used.config.to_string();
        match configured(guest, &config, None)? {
            Ok(_) if guest.configs.iter().any(|known| **known == *config) => {}
            Ok(_) => guest.configs.push(config.into()),
            Err(message) => refusals.push(format!("`{}`: {message}", used.at)),
        }
    }
    guest.refused = (!refusals.is_empty()).then(|| refusals.join("; "));
    match guest.refused.take_if(|_| guest.configs.is_empty()) {
        Some(all) => Err(Refused::Config(all)),
        None => Ok(()),
    }
}

fn describe(guest: &Guest) -> Result<Description, Refused> {
    let (mut store, instance) = bare(guest, None)?;
    let effort = Effort::Request(0);
    let describe = |store: &mut _| instance.describe(store);
    let described = guest
        .engine
        .call(&mut store, "describe", effort, describe)?;
    Ok(described)
}

/// Components and core modules differ in the four bytes behind `\0asm`.
fn begins_as_component(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\0asm\x0d\0\x01\0")
}

fn first_line(error: &wasmtime::Error) -> String {
    format!("{error:#}")
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}
