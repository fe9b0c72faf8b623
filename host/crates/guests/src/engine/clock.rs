//! The clock that ends calls of guests.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use wasmtime::{EngineWeak, Trap, UpdateDeadline};

use crate::admit::Standing;

/// How often the clock of guests ticks: a call is stopped at the first tick after its time.
const TICK_INTERVAL: Duration = Duration::from_millis(10);

/// How often it ticks while a call of a suspect guest runs.
const TICK_INTERVAL_OF_SUSPECTS: Duration = Duration::from_millis(1);

/// How long a call of a guest from a file rests: once in a [`TICK_INTERVAL`], and at each tick if the guest is suspect.
/// Linux may let a thread that wakes wait for some milliseconds until one that runs gives up the processor, however nice
/// that is.
const REST: Duration = Duration::from_micros(50);

/// After `IDLE_TICKS` ticks without a call the clock stands still. From then on it only looks every
/// `PARK_INTERVAL` whether there is still an engine.
const IDLE_TICKS: u32 = 100;
const PARK_INTERVAL: Duration = Duration::from_secs(10);

/// On a busy machine, a call may take longer than its limit by the clock. But when the first half of the limit
/// is over, the call may go on for this many times its limit at most.
const DELAY_MOST: u32 = 4;

/// Bounds the time of a call. The first half of its limit is measured by the machine's clock. That goes on
/// even while a busy machine does not run the call's thread, so the second half is measured by the processor
/// time that the thread uses.
pub(super) struct Time {
    limit: Duration,
    half: Instant,
    standing: Standing,
    /// When it began, or last gave up the processor.
    rested: Instant,
    /// When the call must have returned, however little processor time its thread was given.
    last: Option<Instant>,
    /// The processor time that the thread had used when the first half was over.
    used_before: Option<Duration>,
}

impl Time {
    /// For a call that begins now.
    pub(super) fn new(limit: Duration, standing: Standing) -> Self {
        let now = Instant::now();
        Time {
            limit,
            half: now + limit / 2,
            standing,
            rested: now,
            last: None,
            used_before: None,
        }
    }

    /// After how many ticks [`Time::is_up`] is to be asked first.
    pub(super) fn first_look(&self) -> u64 {
        match self.standing {
            Standing::BuiltIn => ticks(self.limit / 2) + 1,
            Standing::FromFile | Standing::Suspect => 1,
        }
    }

    /// Whether the thread went on for long after the first half of the limit. That a busy machine let it wait does not
    /// count.
    pub(super) fn is_long(&self) -> bool {
        let used = |before| thread_time().saturating_sub(before);
        self.used_before
            .is_some_and(|before| used(before) > self.limit / 8)
    }

    /// What to do when a deadline has come: wait for the next one, or stop the call.
    pub(super) fn is_up(&mut self) -> wasmtime::Result<UpdateDeadline> {
        self.rest();
        let now = Instant::now();
        // The clock ticks faster while there is a suspect.
        if now < self.half {
            return Ok(UpdateDeadline::Continue(self.ticks(self.half - now)));
        }
        let used = thread_time();
        let last = *self.last.get_or_insert(now + self.limit * DELAY_MOST);
        let before = *self.used_before.get_or_insert(used);
        let left = (self.limit / 2).saturating_sub(used.saturating_sub(before));
        if left.is_zero() || now >= last {
            return Err(Trap::Interrupt.into());
        }
        Ok(UpdateDeadline::Continue(self.ticks(left)))
    }

    /// Gives up the processor if it is time to.
    fn rest(&mut self) {
        let is_due = match self.standing {
            Standing::BuiltIn => false,
            // The clock may tick faster because of a suspect, and a tick may come a little early.
            Standing::FromFile => self.rested.elapsed() >= TICK_INTERVAL / 2,
            Standing::Suspect => true,
        };
        if is_due {
            std::thread::sleep(REST);
            self.rested = Instant::now();
        }
    }

    fn ticks(&self, time: Duration) -> u64 {
        match self.standing {
            Standing::BuiltIn => ticks(time),
            Standing::FromFile | Standing::Suspect => 1,
        }
    }
}

/// Processor time that this thread has used.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Ticks of the guests' clock, one at least: the deadline of none would be over at once.
fn ticks(time: Duration) -> u64 {
    (time.as_millis().div_ceil(TICK_INTERVAL.as_millis()) as u64).max(1)
}

/// The clock of guests. It has a thread of its own, because guests may hold up the threads of the runtime. It
/// stands still while no call runs, so that an idle service does not wake the processor.
pub(super) struct Clock {
    /// Calls that run, and those of them that are suspect.
    running: AtomicUsize,
    suspects: AtomicUsize,
    stands: AtomicBool,
    thread: OnceLock<Thread>,
}

/// A call that runs, until this is dropped.
pub(super) struct Running<'a> {
    clock: &'a Clock,
    is_suspect: bool,
}

impl Clock {
    pub(super) fn start(engine: EngineWeak) -> std::io::Result<Arc<Self>> {
        let clock = Arc::new(Clock {
            running: AtomicUsize::new(0),
            suspects: AtomicUsize::new(0),
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
        let mut interval = TICK_INTERVAL;
        loop {
            std::thread::sleep(interval);
            let (Some(clock), Some(engine)) = (clock.upgrade(), engine.upgrade()) else {
                return;
            };
            engine.increment_epoch();
            interval = match clock.suspects.load(Ordering::Relaxed) {
                0 => TICK_INTERVAL,
                _ => TICK_INTERVAL_OF_SUSPECTS,
            };
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
    pub(super) fn run(&self, is_suspect: bool) -> Running<'_> {
        self.running.fetch_add(1, Ordering::SeqCst);
        self.suspects
            .fetch_add(usize::from(is_suspect), Ordering::Relaxed);
        if self.stands.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
        Running {
            clock: self,
            is_suspect,
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Running { clock, is_suspect } = *self;
        clock
            .suspects
            .fetch_sub(usize::from(is_suspect), Ordering::Relaxed);
        clock.running.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Engine;
    use super::*;
    use crate::settings::GuestLimits;

    #[test]
    fn a_call_is_stopped_for_what_its_thread_used_or_when_it_took_far_too_long() {
        let limit = Duration::from_millis(40);
        let mut time = Time {
            half: Instant::now(),
            ..Time::new(limit, Standing::BuiltIn)
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
            half: Instant::now(),
            last: Some(Instant::now()),
            ..Time::new(limit, Standing::BuiltIn)
        };
        assert!(time.is_up().is_err());

        let mut time = Time::new(Duration::from_secs(60), Standing::BuiltIn);
        assert!(matches!(
            time.is_up(),
            Ok(UpdateDeadline::Continue(2900..=3000))
        ));
        let mut time = Time::new(Duration::from_secs(60), Standing::Suspect);
        assert_eq!(time.first_look(), 1);
        assert!(matches!(time.is_up(), Ok(UpdateDeadline::Continue(1))));
    }

    #[test]
    fn the_clock_stands_still_while_no_call_runs_and_goes_on_with_the_next() {
        let engine = Engine::new(GuestLimits::default(), 1).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !engine.clock.stands.load(Ordering::SeqCst) {
            assert!(Instant::now() < deadline, "it does not stand still");
            std::thread::sleep(TICK_INTERVAL);
        }
        let running = engine.clock.run(false);
        while engine.clock.stands.load(Ordering::SeqCst) {
            assert!(Instant::now() < deadline, "it does not go on");
            std::thread::sleep(TICK_INTERVAL);
        }
        drop(running);
    }
}
