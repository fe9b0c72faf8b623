//! Work that may hold a thread up.

use std::cell::Cell;

use tokio::runtime::{Handle, RuntimeFlavor};

thread_local! {
    static ALLOWED: Cell<bool> = const { Cell::new(false) };
}

/// From now on this thread may be held up: it has no tasks that could not wait.
pub fn allow_here() {
    ALLOWED.set(true);
}

/// Whether this thread may be held up.
pub fn is_allowed_here() -> bool {
    ALLOWED.get()
}

/// What takes longer than this many bytes of JSON is worth the move: about a millisecond.
pub const LARGE: usize = 64 << 10;

/// Runs `work` so that the other tasks of this thread go on elsewhere.
pub fn run<T>(work: impl FnOnce() -> T) -> T {
    if is_allowed_here() {
        work()
    } else {
        run_apart(work)
    }
}

/// The same for work that must not count as a part of the runtime, even on a thread that may be held up.
pub fn run_apart<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Runs `work` on `size` bytes, here if that is quick.
pub fn run_on<T>(size: usize, work: impl FnOnce() -> T) -> T {
    if size > LARGE { run(work) } else { work() }
}
