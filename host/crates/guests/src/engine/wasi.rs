//! A WASI without a world behind it, for guests whose toolchains import one.
//!
//! - What a guest prints becomes lines of the log.
//! - The clocks stand still at the time of the request, and random numbers come from the request's id, so that a
//!   guest does the same for the same request.
//! - There are no files, arguments or environment.
//! - Everything else, such as sleep and sockets, fails the call and names what was called.
//!
//! Nothing here waits, so these calls may run on any thread.

mod streams;

use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};
use wasmtime::bail;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, HasSelf, Linker, Resource, ResourceTable, ResourceType};
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p2::bindings::cli::terminal_input::TerminalInput;
use wasmtime_wasi::p2::bindings::cli::terminal_output::TerminalOutput;
use wasmtime_wasi::p2::bindings::sync::{cli, clocks, filesystem, io, random};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, IoError};

use super::State;
use crate::completion::Context;
use streams::Printed;

/// Handles of streams and the like that an instance may hold.
const HANDLES_MAX: usize = 1024;

/// The most random bytes that a guest gets at once.
const RANDOM_MAX: u64 = 64 << 10;

/// What an instance may see of WASI.
pub(crate) struct Wasi {
    table: ResourceTable,
    /// What was written to standard output.
    pub(super) printed: Printed,
    /// What was written to standard error.
    pub(super) complained: Printed,
    /// The time, in seconds since the Unix epoch.
    now: u64,
    random: Random,
}

/// Random bytes: digests of a seed and a counter.
struct Random {
    seed: [u8; 32],
    blocks: u64,
}

/// Adds WASI to what guests are linked with.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    fn of(state: &mut State) -> &mut Wasi {
        state.wasi.get_or_insert_with(|| Wasi::new(None))
    }
    type Own = HasSelf<Wasi>;
    io::error::add_to_linker::<_, HasSelf<ResourceTable>>(linker, |state| &mut of(state).table)?;
    io::poll::add_to_linker::<_, Own>(linker, of)?;
    io::streams::add_to_linker::<_, Own>(linker, of)?;
    clocks::wall_clock::add_to_linker::<_, Own>(linker, of)?;
    clocks::monotonic_clock::add_to_linker::<_, Own>(linker, of)?;
    random::random::add_to_linker::<_, Own>(linker, of)?;
    random::insecure::add_to_linker::<_, Own>(linker, of)?;
    random::insecure_seed::add_to_linker::<_, Own>(linker, of)?;
    cli::environment::add_to_linker::<_, Own>(linker, of)?;
    cli::stdin::add_to_linker::<_, Own>(linker, of)?;
    cli::stdout::add_to_linker::<_, Own>(linker, of)?;
    cli::stderr::add_to_linker::<_, Own>(linker, of)?;
    cli::terminal_stdin::add_to_linker::<_, Own>(linker, of)?;
    cli::terminal_stdout::add_to_linker::<_, Own>(linker, of)?;
    cli::terminal_stderr::add_to_linker::<_, Own>(linker, of)?;
    filesystem::preopens::add_to_linker::<_, Own>(linker, of)
}

/// The interfaces that [`link`] adds, whatever their version of WASI 0.2.
const LINKED: [&str; 16] = [
    "wasi:cli/environment",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

/// A function that no guest may call was called.
#[derive(Debug, thiserror::Error)]
#[error("it called `{0}`")]
pub(super) struct Forbidden(pub(super) String);

/// Adds the rest of what a component imports of WASI: functions that fail.
pub(super) fn link_rest(linker: &mut Linker<State>, component: &Component) -> wasmtime::Result<()> {
    let engine = linker.engine().clone();
    let imports = component.component_type();
    for (name, item) in imports.imports(&engine) {
        let path = name.split('@').next().unwrap_or(name);
        let ComponentItem::ComponentInstance(interface) = item.ty else {
            continue;
        };
        if !name.starts_with("wasi:") || LINKED.contains(&path) {
            continue;
        }
        let mut instance = linker.instance(name)?;
        for (function, item) in interface.exports(&engine) {
            match item.ty {
                ComponentItem::ComponentFunc(_) => {
                    let called = format!("{path}#{function}");
                    instance.func_new(function, move |_, _, _, _| {
                        Err(Forbidden(called.clone()).into())
                    })?;
                }
                ComponentItem::Resource(_) => {
                    instance.resource(function, resource(function), |_, _| Ok(()))?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// The type of a resource, which other interfaces may use under the same name.
fn resource(name: &str) -> ResourceType {
    match name {
        "input-stream" => ResourceType::host::<DynInputStream>(),
        "output-stream" => ResourceType::host::<DynOutputStream>(),
        "pollable" => ResourceType::host::<DynPollable>(),
        "error" => ResourceType::host::<IoError>(),
        "descriptor" => ResourceType::host::<Descriptor>(),
        "terminal-input" => ResourceType::host::<TerminalInput>(),
        "terminal-output" => ResourceType::host::<TerminalOutput>(),
        // There are none of these, because all functions that make one fail.
        _ => ResourceType::host::<Forbidden>(),
    }
}

impl Wasi {
    pub(super) fn new(context: Option<&Context>) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        let now = || SystemTime::now().duration_since(UNIX_EPOCH);
        let (id, choice) = context.map_or(("", 0), |context| (&context.id, context.choice));
        let seed = Sha256::new()
            .chain_update(id)
            .chain_update(choice.to_le_bytes());
        Wasi {
            table,
            printed: Printed::default(),
            complained: Printed::default(),
            now: match context {
                Some(context) => context.created,
                None => now().unwrap_or_default().as_secs(),
            },
            random: Random {
                seed: seed.finalize().into(),
                blocks: 0,
            },
        }
    }

    fn output(&mut self, of: &Printed) -> wasmtime::Result<Resource<DynOutputStream>> {
        let stream: DynOutputStream = Box::new(of.clone());
        Ok(self.table.push(stream)?)
    }
}

impl Random {
    fn bytes(&mut self, count: u64) -> wasmtime::Result<Vec<u8>> {
        if count > RANDOM_MAX {
            bail!("it wanted {count} random bytes at once, and may have {RANDOM_MAX}");
        }
        let count = count as usize;
        let mut bytes = Vec::with_capacity(count + 32);
        while bytes.len() < count {
            self.blocks += 1;
            let block = Sha256::new()
                .chain_update(self.seed)
                .chain_update(self.blocks.to_le_bytes());
            bytes.extend_from_slice(&block.finalize());
        }
        bytes.truncate(count);
        Ok(bytes)
    }

    fn number(&mut self) -> wasmtime::Result<u64> {
        let bytes = self.bytes(8)?;
        Ok(bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

impl clocks::wall_clock::Host for Wasi {
    fn now(&mut self) -> wasmtime::Result<clocks::wall_clock::Datetime> {
        Ok(clocks::wall_clock::Datetime {
            seconds: self.now,
            nanoseconds: 0,
        })
    }

    fn resolution(&mut self) -> wasmtime::Result<clocks::wall_clock::Datetime> {
        Ok(clocks::wall_clock::Datetime {
            seconds: 1,
            nanoseconds: 0,
        })
    }
}

impl clocks::monotonic_clock::Host for Wasi {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(0)
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1_000_000_000)
    }

    fn subscribe_instant(&mut self, _: u64) -> wasmtime::Result<Resource<DynPollable>> {
        Err(Forbidden("wasi:clocks/monotonic-clock#subscribe-instant".into()).into())
    }

    fn subscribe_duration(&mut self, _: u64) -> wasmtime::Result<Resource<DynPollable>> {
        Err(Forbidden("wasi:clocks/monotonic-clock#subscribe-duration".into()).into())
    }
}

impl random::random::Host for Wasi {
    fn get_random_bytes(&mut self, count: u64) -> wasmtime::Result<Vec<u8>> {
        self.random.bytes(count)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.random.number()
    }
}

impl random::insecure::Host for Wasi {
    fn get_insecure_random_bytes(&mut self, count: u64) -> wasmtime::Result<Vec<u8>> {
        self.random.bytes(count)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.random.number()
    }
}

impl random::insecure_seed::Host for Wasi {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((self.random.number()?, self.random.number()?))
    }
}

impl cli::environment::Host for Wasi {
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(None)
    }
}

impl cli::stdin::Host for Wasi {
    fn get_stdin(&mut self) -> wasmtime::Result<Resource<DynInputStream>> {
        let empty: DynInputStream = Box::new(wasmtime_wasi::p2::pipe::ClosedInputStream);
        Ok(self.table.push(empty)?)
    }
}

impl cli::stdout::Host for Wasi {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.output(&self.printed.clone())
    }
}

impl cli::stderr::Host for Wasi {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.output(&self.complained.clone())
    }
}

impl cli::terminal_stdin::Host for Wasi {
    fn get_terminal_stdin(&mut self) -> wasmtime::Result<Option<Resource<TerminalInput>>> {
        Ok(None)
    }
}

impl cli::terminal_stdout::Host for Wasi {
    fn get_terminal_stdout(&mut self) -> wasmtime::Result<Option<Resource<TerminalOutput>>> {
        Ok(None)
    }
}

impl cli::terminal_stderr::Host for Wasi {
    fn get_terminal_stderr(&mut self) -> wasmtime::Result<Option<Resource<TerminalOutput>>> {
        Ok(None)
    }
}

impl filesystem::preopens::Host for Wasi {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        Ok(Vec::new())
    }
}
