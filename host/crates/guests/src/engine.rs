//! Compiles guests, and bounds what each of their calls may use.

mod clock;
mod state;
mod toll;
mod wasi;

use std::sync::Arc;
use std::time::{Duration, Instant};

use basics::blocking::{self, LARGE};
use basics::plain;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{
    Config, Enabled, Engine as Wasmtime, InstanceAllocationStrategy, PoolConcurrencyLimitError,
    PoolingAllocationConfig, Store, Trap,
};

use super::GuestError;
use super::contract::v1_0::log;
use crate::admit::Standing;
use crate::completion::Context;
use crate::settings::{GuestConfig, GuestLimits};
use clock::{Clock, Time};
pub(crate) use state::State;
pub use toll::Taken;
pub(crate) use toll::Toll;
use toll::Tolls;

/// Calls that handle a whole request have this many times as much time as one for a line.
const WHOLE_REQUEST_FACTOR: u32 = 10;

/// A guest that is quick may fill a room of this many bytes at a few pieces of an answer: its first, and the last of a
/// part. That takes some milliseconds, and all other pieces next to nothing.
const ROOM_LARGE: usize = 1 << 20;

/// Compiles guests, and runs their calls.
#[derive(Clone)]
pub(crate) struct Engine {
    wasmtime: Wasmtime,
    linker: Linker<State>,
    limits: GuestLimits,
    clock: Arc<Clock>,
    tolls: Arc<Tolls>,
}

/// How much a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// One line of output, of this many bytes.
    Line(usize),
    /// A piece of an answer, of `size` bytes, which may be answered with a text of some `room`.
    Piece { size: usize, room: usize },
    /// A whole request, of this many bytes.
    Request(usize),
}

impl Engine {
    /// An engine with room for `instances` at once.
    pub(crate) fn new(limits: GuestLimits, instances: u32) -> wasmtime::Result<Self> {
        let mut config = code_settings();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(places(
            &limits, instances,
        )));
        let wasmtime = Wasmtime::new(&config)?;
        let clock = Clock::start(wasmtime.weak())?;
        let mut linker = Linker::new(&wasmtime);
        log::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
        wasi::link(&mut linker)?;
        Ok(Engine {
            wasmtime,
            linker,
            limits,
            clock,
            tolls: Arc::default(),
        })
    }

    /// What a call may use, and how long compiling may take.
    pub(super) fn limits(&self) -> &GuestLimits {
        &self.limits
    }

    pub(crate) fn wasmtime(&self) -> &Wasmtime {
        &self.wasmtime
    }

    /// What a component is linked with. What it imports of WASI and nobody has fails when it is called.
    pub(crate) fn linker(&self, component: &Component) -> wasmtime::Result<Linker<State>> {
        let mut linker = self.linker.clone();
        wasi::link_rest(&mut linker, component)?;
        Ok(linker)
    }

    /// A store for one instance of a guest, for a request or, without one, to try the guest.
    pub(crate) fn store(
        &self,
        guest: &GuestConfig,
        imports_wasi: bool,
        toll: Arc<Toll>,
        context: Option<&Context>,
    ) -> Store<State> {
        let state = State::new(guest, imports_wasi, self.limits.memory, toll, context);
        let mut store = Store::new(&self.wasmtime, state);
        store.limiter(|state| &mut state.memory);
        store.epoch_deadline_callback(|mut store| store.data_mut().time.is_up());
        store
    }

    /// What the calls of the guests of this name take.
    pub(crate) fn toll(&self, guest: &str) -> Arc<Toll> {
        Toll::of(&self.tolls, guest)
    }

    /// Runs one call of a function under the bounds for its effort. After an error the store must not be used
    /// again.
    pub(crate) fn call<T: Send>(
        &self,
        store: &mut Store<State>,
        function: &'static str,
        effort: Effort,
        call: impl FnOnce(&mut Store<State>) -> wasmtime::Result<T> + Send,
    ) -> Result<T, GuestError> {
        let (time, output, large) = self.bounds(effort, store.data().is_quick);
        let standing = store.data().standing;
        let bound = Time::new(time, standing);
        store.set_epoch_deadline(bound.first_look());
        store.set_hostcall_fuel(output);
        store.data_mut().begin(bound);
        let _running = self.clock.run(standing == Standing::Suspect);
        let began = Instant::now();
        let result = match large {
            true => blocking::run(|| call(store)),
            false => call(store),
        };
        store.data().toll.add(began.elapsed());
        store.data_mut().end();
        let is_long = store.data().time.is_long();
        if !store.data().is_trial() && (is_long || result.is_err()) {
            store.data().toll.suspect();
        }
        result.map_err(|error| {
            let error = self.name_error(store.data(), &error, time, output);
            match error {
                GuestError::Saturated => error,
                error => {
                    let error = GuestError::In(function, Box::new(error));
                    store.data().toll.broke(error.to_string());
                    error
                }
            }
        })
    }

    /// The time that a call may take, the bytes that it may return, and whether it may hold up its thread for
    /// long: not for a short line, nor for a short piece or request if the guest `is_quick`.
    fn bounds(&self, effort: Effort, is_quick: bool) -> (Duration, usize, bool) {
        let call = self.limits.call;
        let whole = call.saturating_mul(WHOLE_REQUEST_FACTOR);
        let (input, time, is_long) = match effort {
            Effort::Line(size) if size <= LARGE => (size, call, false),
            Effort::Line(size) => (size, whole, true),
            Effort::Piece { size, room } if room <= LARGE => (room, call, size > LARGE),
            Effort::Piece { size, room } => {
                let most = if is_quick { ROOM_LARGE } else { LARGE };
                (room, whole, size > LARGE || room > most)
            }
            Effort::Request(size) => (size, whole, size > LARGE || !is_quick),
        };
        let output = self.limits.output.saturating_add(input.saturating_mul(2));
        (time, output, is_long)
    }

    fn name_error(
        &self,
        state: &State,
        error: &wasmtime::Error,
        time: Duration,
        output: usize,
    ) -> GuestError {
        if error.is::<PoolConcurrencyLimitError>() {
            return GuestError::Saturated;
        }
        if state.memory.refused {
            return GuestError::Memory(state.memory.limit);
        }
        if let Some(wasi::Forbidden(function)) = error.downcast_ref() {
            return GuestError::Forbidden(plain::line(function, 100));
        }
        let what = match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => return GuestError::Time(time),
            Some(trap) => trap.to_string(),
            // wasmtime has no type for this one.
            None if format!("{error:#}").contains("fuel allocated for hostcalls") => {
                return GuestError::Output(output);
            }
            None => error.root_cause().to_string(),
        };
        let words = state.last_line().map(|line| format!(": {line}"));
        GuestError::Trap(plain::line(&(what + &words.unwrap_or_default()), 400))
    }
}

/// The settings that code is compiled with. They must be the same here and in the process that compiles.
pub(super) fn code_settings() -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true).concurrency_support(false);
    config
}

/// The memory pool for this many instances at once.
fn places(limits: &GuestLimits, instances: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::default();
    // A guest made of many modules (Python has 38) takes as many places.
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(8).saturating_add(64))
        .total_memories(instances.saturating_mul(2).saturating_add(8))
        .total_tables(instances.saturating_mul(4).saturating_add(64))
        .max_core_instances_per_component(64)
        .max_memories_per_component(4)
        .max_tables_per_component(64)
        .max_memory_size(limits.memory)
        // When an instance is gone, the kernel lists the pages that it changed (`pagemap_scan`), and only these
        // are restored. That is a third faster than unmapping the memory.
        .linear_memory_keep_resident(2 << 20)
        .table_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto)
        .max_unused_warm_slots(16);
    pool
}
