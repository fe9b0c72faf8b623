//! Compiles a guest from a file in a separate process.
//!
//! A compiler cannot be interrupted, and a component of 12 KB can keep it busy for minutes and have it
//! take gigabytes. A process can be ended, and the kernel bounds its memory.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use processes::Helper;
use rustix::process::{Resource, Rlimit, setpriority_process, setrlimit};
use wasmtime::Engine as Wasmtime;

use super::engine::{Engine, code_settings};

/// The hidden subcommand that compiles.
pub const SUBCOMMAND: &str = "compile-guest";

/// The memory that a compiler may use, in bytes. One of the largest guests, made of Python (18 MB), takes some
/// 1.2 GB.
const MEMORY_MAX: u64 = 2 << 30;

/// The compiler's `nice` value. With it, the compiler gets less of the processor than requests do.
const NICE: i32 = 10;

/// How often the service checks whether the compiler has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A guest that was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The compiler says what is wrong with it.
    #[error("{0}")]
    Invalid(String),
    /// It took too long.
    #[error("compiling it took longer than {0:?} (`guest_compile_timeout`)")]
    Time(Duration),
    /// The compiler ended without a word: by a signal, or for want of memory.
    #[error(
        "the compiler ended without a result; it may hold {} MiB of memory",
        MEMORY_MAX >> 20
    )]
    Crashed,
    /// The compiler was not started.
    #[error("cannot start the compiler: {0}")]
    Start(#[from] io::Error),
}

/// The code of a component, compiled by a process of its own for engines like `engine`.
pub(super) fn in_process(engine: &Engine, component: &[u8]) -> Result<Vec<u8>, CompileError> {
    let mut command = Command::new(basics::program::own());
    command
        .arg0("claude-harness")
        .arg(SUBCOMMAND)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (mut child, _helper) = Helper::spawn(&mut command)?;
    let limit = engine.limits().compile;
    let deadline = Instant::now() + limit;
    thread::scope(|scope| {
        let (mut input, output, errors) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let output = scope.spawn(|| read(output));
        let errors = scope.spawn(|| read(errors));
        // Its standard input stays open until it ends. If the service is gone, that input closes, and the
        // compiler ends.
        if let Some(input) = &mut input {
            let size = (component.len() as u64).to_le_bytes();
            // Writing fails if the compiler ended early. Its exit status and its standard error then say why.
            let _ = input
                .write_all(&size)
                .and_then(|()| input.write_all(component));
        }
        let ended = wait(&mut child, deadline)?;
        drop(input);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
        match (ended, output.join(), errors.join()) {
            (None, ..) => Err(CompileError::Time(limit)),
            (Some(true), Ok(code), _) if !code.is_empty() => Ok(code),
            (Some(_), _, Ok(said)) if !said.is_empty() => Err(CompileError::Invalid(text(said))),
            _ => Err(CompileError::Crashed),
        }
    })
}

/// Whether it succeeded; None if it had to be killed.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<Option<bool>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL_INTERVAL);
    }
}

fn read(from: Option<impl Read>) -> Vec<u8> {
    let mut all = Vec::new();
    if let Some(mut from) = from {
        // An error here does not matter: the exit status of the process says whether the output is good.
        let _ = from.read_to_end(&mut all);
    }
    all
}

/// What the compiler's process does: it reads a component, and prints the compiled code.
///
/// # Errors
///
/// Fails if the input is not a component.
pub fn run() -> wasmtime::Result<()> {
    let limit = Some(MEMORY_MAX);
    setrlimit(
        Resource::Data,
        Rlimit {
            current: limit,
            maximum: limit,
        },
    )?;
    let _ = setpriority_process(None, NICE);
    let mut input = io::stdin().lock();
    let mut size = [0; 8];
    input.read_exact(&mut size)?;
    let mut component = vec![0; usize::try_from(u64::from_le_bytes(size))?];
    input.read_exact(&mut component)?;
    drop(input);
    thread::spawn(|| {
        // The input closes when the service ends.
        let _ = io::stdin().lock().read(&mut [0]);
        std::process::exit(1);
    });
    let code = Wasmtime::new(&code_settings())?.precompile_component(&component)?;
    io::stdout().lock().write_all(&code)?;
    Ok(())
}
