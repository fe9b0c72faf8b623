//! Work that may hold a thread up.

use std::cell::Cell;

use tokio::runtime::{Handle, RuntimeFlavor};

thread_local! {
    static ALLOWED: Cell<bool> = const { Cell::new(false) };
}

/// Allows work that blocks on this thread from now on: it runs no tasks that must not wait.
pub fn allow_here() {
    ALLOWED.set(true);
}

/// Whether this thread may be held up.
pub fn is_allowed_here() -> bool {
    ALLOWED.get()
}

/// Work on more than this many bytes of JSON takes about a millisecond or longer. Only then is it worth moving
/// the thread's other tasks elsewhere.
pub const LARGE: usize = 64 << 10;

/// Runs `work` so that the other tasks of this thread go on elsewhere.
pub fn run<T>(work: impl FnOnce() -> T) -> T {
    if is_allowed_here() {
        return work();
    }
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Runs `work` on `size` bytes, here if that is quick.
pub fn run_on<T>(size: usize, work: impl FnOnce() -> T) -> T {
    if size > LARGE { run(work) } else { work() }
}
