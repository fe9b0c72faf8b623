//! The program: reads the command line, and runs what it names.

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use claude_harness::config::{BAD_CONFIGURATION, Config, Overrides};
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
    /// Print what a shell needs to complete the commands
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages into a folder
    Manual {
        /// The folder
        folder: PathBuf,
    },
    /// Look at guests, check them, and go back to earlier ones
    Guest {
        #[command(subcommand)]
        command: GuestCommand,
    },
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

fn main() -> ExitCode {
    memory::bound();
    limits::raise_descriptors();
    // What this program writes, and what the command lines write, is for nobody else.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if let Some(done) = run_part() {
        return done;
    }
    let arguments = Arguments::parse();
    let serve_arguments = match arguments.command {
        None => arguments.serve,
        Some(Command::Serve(serve)) => serve,
        Some(Command::Config { command }) => return exit(config_command::run(&command)),
        Some(Command::Key { command }) => return status(key_command::run(&command)),
        Some(Command::Doctor(doctor)) => return exit(doctor::run(&doctor)),
        Some(Command::Usage(command)) => return exit(usage::run(&command)),
        Some(Command::Completions { shell }) => return status(completions(shell)),
        Some(Command::Manual { folder }) => {
            let written = clap_mangen::generate_to(Arguments::command(), folder);
            return status(written.context("cannot write the manual"));
        }
        Some(Command::Guest { command }) => return status(guest_command::run(command)),
    };
    let inherited = match Inherited::take() {
        Ok(inherited) => inherited,
        Err(error) => return status(Err(error).context("a socket that was given (`LISTEN_FDS`)")),
    };
    let overrides = Overrides {
        listen: serve_arguments.listen,
        inherited: inherited.addresses(),
        ..Overrides::of_command(serve_arguments.config)
    };
    let config = match Config::load(&overrides) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("claude-harness: {error}");
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    status(serve(config, inherited))
}

/// Runs a part of the service that has a process of its own, if this process was started for one. These
/// commands are for the service alone.
fn run_part() -> Option<ExitCode> {
    match std::env::args().nth(1)?.as_str() {
        demo::SUBCOMMAND => Some(status(demo::run().map_err(Into::into))),
        schema_check::SUBCOMMAND => Some(status(schema_check::run())),
        compile::SUBCOMMAND => Some(compiled(compile::run())),
        warden::SUBCOMMAND => {
            warden::run();
            Some(ExitCode::SUCCESS)
        }
        _ => None,
    }
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

fn completions(shell: Shell) -> Result<()> {
    let mut told = Vec::new();
    clap_complete::generate(
        shell,
        &mut Arguments::command(),
        "claude-harness",
        &mut told,
    );
    // A reader that has seen enough closes the pipe.
    std::io::stdout()
        .write_all(&told)
        .or_else(|error| match error.kind() {
            std::io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(error.into()),
        })
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
