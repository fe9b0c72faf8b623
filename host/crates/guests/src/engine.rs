//! Compiles guests, and bounds what each of their calls may use.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use basics::blocking::{self, LARGE};
use basics::plain;
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{
    Config, Enabled, Engine as Wasmtime, EngineWeak, InstanceAllocationStrategy,
    PoolConcurrencyLimitError, PoolingAllocationConfig, ResourceLimiter, Store, Trap,
    UpdateDeadline,
};
use wasmtime_wasi::{ResourceTable, WasiCtx, WasiCtxView, WasiView};

use super::GuestError;
use super::contract::v1_0::log;
use crate::settings::{GuestConfig, GuestLimits, GuestLog};

/// How often the clock of guests ticks: a call is stopped at the first tick after its time.
const TICK_INTERVAL: Duration = Duration::from_millis(10);

/// After `IDLE_TICKS` ticks without a call the clock stands still. From then on it only looks every
/// `PARK_INTERVAL` whether there is still an engine.
const IDLE_TICKS: u32 = 100;
const PARK_INTERVAL: Duration = Duration::from_secs(10);

/// On a busy machine, a call may take longer than its limit by the clock. But when the first half of the limit
/// is over, the call may go on for this many times its limit at most.
const DELAY_MOST: u32 = 4;

/// Calls that handle a whole request have this many times as much time as one for a line.
const WHOLE_REQUEST_FACTOR: u32 = 10;

/// Lines that a guest may log in one call.
const LOG_LINES_MAX: u32 = 32;

/// The longest line that a guest may log, in characters.
const LOG_LINE_MAX: usize = 2 << 10;

/// Compiles guests, and runs their calls.
#[derive(Clone)]
pub(crate) struct Engine {
    wasmtime: Wasmtime,
    linker: Linker<State>,
    /// The same with WASI, for guests that have `wasi = true`.
    wasi_linker: Linker<State>,
    limits: GuestLimits,
    clock: Arc<Clock>,
}

/// What the host keeps for one instance.
pub(crate) struct State {
    name: String,
    /// The id of the completion that the instance is for, as in the answer's `id`. Empty while a guest is admitted.
    completion: String,
    memory: Memory,
    time: Time,
    log_lines: u32,
    /// The highest level that its lines have.
    log_level: log::Level,
    /// Set for guests that may use WASI. Calls of WASI may block, so a call of such a guest never runs on a
    /// thread that must not block.
    wasi: Option<Wasi>,
}

/// An empty WASI: no files, environment, arguments or network.
struct Wasi {
    context: WasiCtx,
    table: ResourceTable,
}

/// Bounds the memory of all parts of an instance together. Remembers whether memory was refused, because the
/// error of the guest's call does not tell.
struct Memory {
    limit: usize,
    used: usize,
    refused: bool,
}

/// Bounds the time of a call. The first half of its limit is measured by the guests' clock. That clock goes on
/// even while a busy machine does not run the call's thread, so the second half is measured by the processor
/// time that the thread uses.
#[derive(Default)]
struct Time {
    limit: Duration,
    /// When the call must have returned, however little processor time its thread was given.
    last: Option<Instant>,
    /// The processor time that the thread had used when the first half was over.
    used_before: Option<Duration>,
}

/// How much a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// One line of output, of this many bytes.
    Line(usize),
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
        let mut wasi_linker = linker.clone();
        wasmtime_wasi::p2::add_to_linker_sync(&mut wasi_linker)?;
        Ok(Engine {
            wasmtime,
            linker,
            wasi_linker,
            limits,
            clock,
        })
    }

    /// What a call may use, and how long compiling may take.
    pub(super) fn limits(&self) -> &GuestLimits {
        &self.limits
    }

    pub(crate) fn wasmtime(&self) -> &Wasmtime {
        &self.wasmtime
    }

    /// What guests are linked with.
    pub(crate) fn linker(&self, wasi: bool) -> &Linker<State> {
        if wasi {
            &self.wasi_linker
        } else {
            &self.linker
        }
    }

    /// A store for one instance of a guest with these settings.
    pub(crate) fn store(&self, guest: &GuestConfig) -> Store<State> {
        let state = State {
            name: guest.name.clone(),
            completion: String::new(),
            log_level: match guest.log {
                GuestLog::Debug => log::Level::Debug,
                GuestLog::Info => log::Level::Info,
                GuestLog::Warn => log::Level::Warn,
                GuestLog::Error => log::Level::Error,
            },
            memory: Memory {
                limit: self.limits.memory,
                used: 0,
                refused: false,
            },
            time: Time::default(),
            log_lines: LOG_LINES_MAX,
            wasi: guest.wasi.then(Wasi::empty),
        };
        let mut store = Store::new(&self.wasmtime, state);
        store.limiter(|state| &mut state.memory);
        store.epoch_deadline_callback(|mut store| store.data_mut().time.is_up());
        store
    }

    /// Runs one call under the bounds for its effort. After an error the store must not be used again.
    pub(crate) fn call<T: Send>(
        &self,
        store: &mut Store<State>,
        effort: Effort,
        call: impl FnOnce(&mut Store<State>) -> wasmtime::Result<T> + Send,
    ) -> Result<T, GuestError> {
        let (time, output, large) = self.bounds(effort);
        store.set_epoch_deadline(ticks(time / 2) + 1);
        store.data_mut().time = Time {
            limit: time,
            ..Time::default()
        };
        store.set_hostcall_fuel(output);
        store.data_mut().log_lines = LOG_LINES_MAX;
        store.data_mut().memory.refused = false;
        let _running = self.clock.run();
        let result = match (store.data().wasi.is_some(), large) {
            // wasmtime's WASI blocks until a runtime has done its work, which is forbidden on a thread that
            // runs a runtime's tasks.
            (true, _) => blocking::run_apart(|| call(store)),
            (false, true) => blocking::run(|| call(store)),
            (false, false) => call(store),
        };
        result.map_err(|error| self.name_error(store.data(), &error, time, output))
    }

    /// The time that a call may take, the bytes that it may return, and whether it may hold up its thread for
    /// long. Only a call for a short line may not.
    fn bounds(&self, effort: Effort) -> (Duration, usize, bool) {
        let limits = &self.limits;
        let output = |input: usize| limits.output.saturating_add(input.saturating_mul(2));
        match effort {
            Effort::Line(size) if size <= LARGE => (limits.call, output(size), false),
            Effort::Line(size) | Effort::Request(size) => (
                limits.call.saturating_mul(WHOLE_REQUEST_FACTOR),
                output(size),
                true,
            ),
        }
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
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => GuestError::Time(time),
            Some(trap) => GuestError::Trap(trap.to_string()),
            // wasmtime has no type for this one.
            None if format!("{error:#}").contains("fuel allocated for hostcalls") => {
                GuestError::Output(output)
            }
            None => GuestError::Trap(plain::line(&error.root_cause().to_string(), 200)),
        }
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

impl Time {
    /// What to do when a deadline has come: wait for the next one, or stop the call.
    fn is_up(&mut self) -> wasmtime::Result<UpdateDeadline> {
        let (now, used) = (Instant::now(), thread_time());
        let last = *self.last.get_or_insert(now + self.limit * DELAY_MOST);
        let before = *self.used_before.get_or_insert(used);
        let left = (self.limit / 2).saturating_sub(used.saturating_sub(before));
        if left.is_zero() || now >= last {
            return Err(Trap::Interrupt.into());
        }
        Ok(UpdateDeadline::Continue(ticks(left)))
    }
}

/// Processor time that this thread has used.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Ticks of the guests' clock.
fn ticks(time: Duration) -> u64 {
    time.as_millis().div_ceil(TICK_INTERVAL.as_millis()) as u64
}

/// The clock of guests. It has a thread of its own, because guests may hold up the threads of the runtime. It
/// stands still while no call runs, so that an idle service does not wake the processor.
struct Clock {
    /// Calls that run.
    running: AtomicUsize,
    stands: AtomicBool,
    thread: OnceLock<Thread>,
}

/// A call that runs, until this is dropped.
struct Running<'a>(&'a Clock);

impl Clock {
    fn start(engine: EngineWeak) -> std::io::Result<Arc<Self>> {
        let clock = Arc::new(Clock {
            running: AtomicUsize::new(0),
            stands: AtomicBool::new(false),
            thread: OnceLock::new(),
        });
        let ticker = std::thread::Builder::new().name("guest-clock".into());
        let handle = ticker.spawn({
            let clock = Arc::downgrade(&clock);
            move || Clock::tick(&clock, &engine)
        })?;
        let _ = clock.thread.set(handle.thread().clone());
        Ok(clock)
    }

    /// Ticks as long as there is an engine.
    fn tick(clock: &Weak<Clock>, engine: &EngineWeak) {
        let mut idle = 0;
        loop {
            std::thread::sleep(TICK_INTERVAL);
            let (Some(clock), Some(engine)) = (clock.upgrade(), engine.upgrade()) else {
                return;
            };
            engine.increment_epoch();
            idle = match clock.running.load(Ordering::SeqCst) {
                0 => idle + 1,
                _ => 0,
            };
            if idle < IDLE_TICKS {
                continue;
            }
            drop(engine);
            clock.stands.store(true, Ordering::SeqCst);
            // A call that began before `stands` was set has not woken this thread, so `running` is checked
            // before the thread sleeps.
            while clock.running.load(Ordering::SeqCst) == 0 && Arc::strong_count(&clock) > 1 {
                std::thread::park_timeout(PARK_INTERVAL);
            }
            clock.stands.store(false, Ordering::SeqCst);
            idle = 0;
        }
    }

    /// A call begins.
    fn run(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::SeqCst);
        if self.stands.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
        Running(self)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let used = self.used.saturating_add(desired.saturating_sub(current));
        let allowed = used <= self.limit;
        if allowed {
            self.used = used;
        }
        self.refused |= !allowed;
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        /// Entries of a table; Rust's guests have some hundred.
        const TABLE_MAX: usize = 20_000;
        Ok(desired <= TABLE_MAX)
    }
}

impl Wasi {
    fn empty() -> Self {
        /// Handles of streams and the like that a guest may hold.
        const HANDLES_MAX: usize = 1024;
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        Wasi {
            context: WasiCtx::builder().build(),
            table,
        }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi.get_or_insert_with(Wasi::empty);
        WasiCtxView {
            ctx: &mut wasi.context,
            table: &mut wasi.table,
        }
    }
}

impl State {
    /// From now on the instance's log lines have this id.
    pub(crate) fn serves(&mut self, completion: &str) {
        completion.clone_into(&mut self.completion);
    }
}

impl log::Host for State {
    fn write(&mut self, level: log::Level, message: String) {
        let Some(left) = self.log_lines.checked_sub(1) else {
            return;
        };
        self.log_lines = left;
        let (guest, id) = (&self.name, &self.completion);
        let text = plain::line(&message, LOG_LINE_MAX);
        // The guest may have seen a prompt, so its lines have at most the level that its section allows
        // (`debug`, unless the operator sets another one).
        let level = if (level as u8) < self.log_level as u8 {
            level
        } else {
            self.log_level
        };
        match level {
            log::Level::Trace => tracing::trace!(target: "guest", %guest, %id, "{text}"),
            log::Level::Debug => tracing::debug!(target: "guest", %guest, %id, "{text}"),
            log::Level::Info => tracing::info!(target: "guest", %guest, %id, "{text}"),
            log::Level::Warn => tracing::warn!(target: "guest", %guest, %id, "{text}"),
            log::Level::Error => tracing::error!(target: "guest", %guest, %id, "{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_stopped_for_what_its_thread_used_or_when_it_took_far_too_long() {
        let limit = Duration::from_millis(40);
        let mut time = Time {
            limit,
            ..Time::default()
        };
        let begun = thread_time();
        // The clock said that half of the time was over; the thread may have had none of it.
        assert!(matches!(time.is_up(), Ok(UpdateDeadline::Continue(2))));
        time.last = Some(Instant::now() + Duration::from_secs(60));
        while time.is_up().is_ok() {
            std::hint::black_box(limit);
        }
        assert!(thread_time() - begun >= limit / 2);

        let mut time = Time {
            limit,
            last: Some(Instant::now()),
            ..Time::default()
        };
        assert!(time.is_up().is_err());
    }

    #[test]
    fn the_clock_stands_still_while_no_call_runs_and_goes_on_with_the_next() {
        let engine = Engine::new(GuestLimits::default(), 1).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !engine.clock.stands.load(Ordering::SeqCst) {
            assert!(Instant::now() < deadline, "it does not stand still");
            std::thread::sleep(TICK_INTERVAL);
        }
        let running = engine.clock.run();
        while engine.clock.stands.load(Ordering::SeqCst) {
            assert!(Instant::now() < deadline, "it does not go on");
            std::thread::sleep(TICK_INTERVAL);
        }
        drop(running);
    }
}
