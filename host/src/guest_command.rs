//! `claude-harness guest …`: what a person does with guests, without a running service.
//!
//! Guests are loaded as the service loads them, so what is refused here is refused there.

mod build;
mod component;
mod new;
mod record;
mod registry;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use guests::admit::{Guest, GuestSource};
use guests::loader::{self, Loader};
use guests::registry::GuestSet;
use guests::settings::Settings;
use guests::store::Store;

use crate::api;
use crate::config::{Config, Overrides};
use crate::failure::unix_now;
use crate::render::{Rendered, render};
use crate::runtime::Snapshot;
use crate::telemetry;
use crate::tls;

/// What to do with guests.
#[derive(Debug, Subcommand)]
pub enum GuestCommand {
    /// Make a folder with a guest to begin with
    New(new::New),
    /// Build the guest in a folder, check it, and have it repeat its cases
    Build {
        /// The folder, which has a `guest.toml`
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Write down in the cases what the guest does now
        #[arg(long)]
        update: bool,
    },
    /// List the guests that a start of the service would load, and what is kept of earlier ones
    List(Configured),
    /// Put an earlier component of a guest back into the guests' folder
    Rollback {
        /// The guest
        name: String,
        /// The component, by the beginning of its digest [default: the one before the present one]
        digest: Option<String>,
        /// Which configuration is read
        #[command(flatten)]
        configured: Configured,
    },
    /// Tell whether a component would be loaded, and what it costs
    Check {
        /// The component: NAME.wasm
        file: PathBuf,
        /// Which configuration is read
        #[command(flatten)]
        configured: Configured,
    },
    /// Have a component repeat recorded dialogues
    Test {
        /// The component: NAME.wasm
        file: PathBuf,
        /// The folder with the cases
        cases: PathBuf,
        /// Write down what the guest does now
        #[arg(long)]
        update: bool,
    },
    /// Write a case of the next request that a guest of a running service serves
    Record(record::Record),
    /// Fetch a component from a registry into the guests' folder
    Pull {
        /// Where it is: oci://HOST/NAME:TAG or oci://HOST/NAME@sha256:DIGEST
        reference: String,
        /// The guest's name [default: the last part of NAME]
        #[arg(long)]
        name: Option<String>,
        /// How the registry is reached
        #[command(flatten)]
        access: registry::Access,
        /// Which configuration is read
        #[command(flatten)]
        configured: Configured,
    },
    /// Send a component to a registry
    Push {
        /// The component: NAME.wasm
        file: PathBuf,
        /// Where it goes: oci://HOST/NAME:TAG
        reference: String,
        /// How the registry is reached
        #[command(flatten)]
        access: registry::Access,
        /// Which configuration is read
        #[command(flatten)]
        configured: Configured,
    },
    /// Show what a request becomes on its way through transforms and adapter, and what would be written to the
    /// process's standard input
    Render {
        /// A chat completion request as JSON
        request: PathBuf,
        /// The model, in place of the one that the request names
        #[arg(long)]
        model: Option<String>,
        /// Which configuration is read
        #[command(flatten)]
        configured: Configured,
    },
}

/// Which configuration is read.
#[derive(Args, Debug)]
pub struct Configured {
    /// The configuration [default: as for `serve`]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Configured {
    fn load(&self) -> Result<Config> {
        Ok(Config::load(&Overrides::of_command(self.config.clone()))?)
    }
}

/// Carries out a command.
///
/// # Errors
///
/// Says what is wrong with the configuration, the guest or the request.
pub fn run(command: GuestCommand) -> Result<()> {
    telemetry::show_guests();
    match command {
        GuestCommand::New(new) => new::make(&new),
        GuestCommand::Build { dir, update } => build::build(&dir, update),
        GuestCommand::Test {
            file,
            cases,
            update,
        } => component::test(&file, &cases, update),
        GuestCommand::List(configured) => list(&configured.load()?),
        GuestCommand::Rollback {
            name,
            digest,
            configured,
        } => roll_back(&configured.load()?, &name, digest.as_deref()),
        GuestCommand::Check { file, configured } => {
            component::check(configured.load()?.guests, &file)
        }
        GuestCommand::Record(record) => record::record(&record),
        GuestCommand::Pull {
            reference,
            name,
            access,
            configured,
        } => registry::pull(configured.load()?, &reference, name.as_deref(), &access),
        GuestCommand::Push {
            file,
            reference,
            access,
            configured,
        } => registry::push(configured.load()?, &file, &reference, &access),
        GuestCommand::Render {
            request,
            model,
            configured,
        } => show(configured.load()?, &request, model.as_deref()),
    }
}

/// Runs something that uses the network.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tls::choose();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}

/// The guests as the service would load them. Nothing is kept of this.
fn load(settings: Settings) -> Result<Arc<GuestSet>> {
    let (sender, admitted) = channel();
    let settings = Settings {
        state_dir: None,
        ..settings
    };
    let on_admitted = move |done| drop(sender.send(done));
    let mut loader = Loader::start(settings, api::JUDGES, Arc::new(on_admitted))?;
    while !loader.compiling().is_empty() {
        loader.admitted(admitted.recv().context("the guests' threads are gone")?);
    }
    Ok(loader.set().clone())
}

fn list(config: &Config) -> Result<()> {
    let store = Store::open(&config.guests);
    let set = load(config.guests.clone())?;
    let mut names = store.names();
    names.extend(set.serving.keys().cloned());
    names.extend(set.rejected.keys().cloned());
    names.extend(loader::built_in().map(str::to_owned));
    names.sort();
    names.dedup();
    let mut out = std::io::stdout().lock();
    for name in names {
        let serving = set.serving.get(&name);
        match serving {
            Some(guest) => writeln!(out, "{name}  {}", described(guest))?,
            None if set.rejected.contains_key(&name) => writeln!(out, "{name}  not loaded")?,
            None if loader::built_in().any(|known| known == name) => {
                writeln!(out, "{name}  built in, not used")?;
            }
            None => writeln!(out, "{name}  no file")?,
        }
        if let Some(reason) = set.rejected.get(&name) {
            writeln!(out, "    refused: {reason}")?;
        }
        for kept in store.kept(&name) {
            let mark = match serving.is_some_and(|guest| guest.digest == kept.digest) {
                true => '*',
                false => ' ',
            };
            let at = UNIX_EPOCH + Duration::from_secs(kept.admitted_at);
            let at = humantime::format_rfc3339_seconds(at);
            writeln!(
                out,
                "  {mark} {}  {}  {at}",
                &kept.digest[..12],
                kept.version
            )?;
        }
    }
    Ok(())
}

fn described(guest: &Guest) -> String {
    let origin = match guest.origin {
        GuestSource::Embedded => "built in",
        GuestSource::File => "file",
        GuestSource::LastGood => "last good",
    };
    let (world, version) = (guest.world().name(), &guest.version);
    format!("{world} {version}, {origin}, {}", &guest.digest[..12])
}

fn roll_back(config: &Config, name: &str, digest: Option<&str>) -> Result<()> {
    let done = Store::open(&config.guests).roll_back(name, digest)?;
    let from = done.from.as_deref().unwrap_or("no file");
    let built_in = if done.is_built_in { " (built in)" } else { "" };
    println!("{name}: from {from}\n{name}: to   {}{built_in}", done.to);
    Ok(())
}

fn show(config: Config, request: &Path, model: Option<&str>) -> Result<()> {
    let text = std::fs::read_to_string(request)
        .with_context(|| format!("cannot read {}", request.display()))?;
    let set = load(config.guests.clone())?;
    let snapshot = Snapshot::offline(config, set)?;
    let told = |failure: crate::failure::Failure| anyhow::anyhow!(failure.message);
    let request = api::chat_request(text, model, &snapshot).map_err(told)?;
    let Rendered {
        backend,
        command,
        written,
        answer,
        ..
    } = render(&snapshot, &request, &serde_json::Map::new(), unix_now()).map_err(told)?;
    if let Some(answer) = answer {
        eprintln!("a transform answers, and no process is started:");
        println!("{answer}");
        return Ok(());
    }
    eprintln!("backend {backend}: {command}");
    let mut out = std::io::stdout().lock();
    for piece in written {
        out.write_all(&piece)?;
    }
    out.flush()?;
    Ok(())
}
