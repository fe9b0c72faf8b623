//! The program: reads the command line, and runs what it names.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use claude_harness::config::{Config, Overrides};
use claude_harness::config_command::{self, ConfigCommand};
use claude_harness::doctor::{self, Doctor};
use claude_harness::guest_command::{self, GuestCommand};
use claude_harness::key_command::{self, KeyCommand};
use claude_harness::server::{self, Inherited};
use claude_harness::usage::{self, UsageCommand};
use claude_harness::{compile, demo, limits, memory, schema_check, telemetry, warden};

/// An OpenAI-compatible HTTP service in front of the Claude Code command line.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until a signal; this is what no command at all does
    Serve(Serve),
    /// Check the configuration, or show all of it
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Make keys for callers
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Tell what is wrong, and what mends it
    Doctor(Doctor),
    /// Tell what was used
    Usage(UsageCommand),
    /// Look at guests, check them, and go back to earlier ones
    Guest {
        #[command(subcommand)]
        command: GuestCommand,
    },
    #[command(name = demo::SUBCOMMAND, hide = true)]
    DemoBackend {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        _ignored: Vec<String>,
    },
    #[command(name = warden::SUBCOMMAND, hide = true)]
    Warden,
    #[command(name = compile::SUBCOMMAND, hide = true)]
    CompileGuest,
    #[command(name = schema_check::SUBCOMMAND, hide = true)]
    CheckSchemas,
}

#[derive(Args)]
struct Serve {
    /// The configuration [default: $CLAUDE_HARNESS_CONFIG, or the first harness.toml in the
    /// working directory, ~/.config/claude-harness and /etc/claude-harness]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// An address to listen on instead of the configured ones, such as 127.0.0.1:8013 or
    /// unix:/run/harness.sock; may be given several times
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
}

/// The fewest threads that serve: a guest may hold one up for as long as a call may take.
const WORKERS_MIN: usize = 4;

/// The exit status for a configuration that cannot be used.
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    memory::bound();
    limits::raise_descriptors();
    // What this program writes, and what the command lines write, is for nobody else.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let arguments = Arguments::parse();
    let serve_arguments = match arguments.command {
        None => arguments.serve,
        Some(Command::Serve(serve)) => serve,
        Some(Command::Config { command }) => return exit(config_command::run(&command)),
        Some(Command::Key { command }) => return status(key_command::run(&command)),
        Some(Command::Doctor(doctor)) => return exit(doctor::run(&doctor)),
        Some(Command::Usage(command)) => return exit(usage::run(&command)),
        Some(Command::Guest { command }) => return status(guest_command::run(command)),
        Some(Command::DemoBackend { .. }) => return status(demo::run().map_err(Into::into)),
        Some(Command::CheckSchemas) => return status(schema_check::run()),
        Some(Command::CompileGuest) => return compiled(compile::run()),
        Some(Command::Warden) => {
            warden::run();
            return ExitCode::SUCCESS;
        }
    };
    let inherited = match Inherited::take() {
        Ok(inherited) => inherited,
        Err(error) => return status(Err(error).context("a socket that was given (`LISTEN_FDS`)")),
    };
    let overrides = Overrides {
        file: serve_arguments.config,
        listen: serve_arguments.listen,
        inherited: inherited.addresses(),
        api_key: None,
    };
    let key = std::env::var("CLAUDE_HARNESS_API_KEY").ok();
    let overrides = overrides.with_api_key(key.as_deref());
    let config = match Config::load(&overrides) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("claude-harness: {error}");
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    status(serve(config, inherited))
}

fn serve(config: Config, inherited: Inherited) -> Result<()> {
    telemetry::start_log();
    let metrics = telemetry::start_metrics()?;
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.max(WORKERS_MIN))
        .enable_all()
        .build();
    runtime
        .context("cannot start the runtime")?
        .block_on(server::run(config, inherited, metrics))
}

/// Prints what is wrong with a component for the service that asked, without this program's name.
fn compiled<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn status(result: Result<()>) -> ExitCode {
    exit(result.map(|()| ExitCode::SUCCESS))
}

fn exit(result: Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("claude-harness: {error:#}");
            ExitCode::FAILURE
        }
    }
}
