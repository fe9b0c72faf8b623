//! Waiting for what happens to a descriptor that somebody else reads.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the runtime.
#[expect(
    unsafe_code,
    reason = "registering is unsafe for types that lie about their descriptor"
)]
pub fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is one open descriptor until it is dropped, which `AsyncFd` does last.
    unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }.map_err(Into::into)
}

/// Waits until the other end of a socket is closed, whatever is there to be read before that.
pub async fn hung_up(socket: &AsyncFd<OwnedFd>) {
    // An error of the runtime tells nothing of the other end.
    while let Ok(mut guard) = socket.readable().await {
        if guard.ready().is_read_closed() {
            return;
        }
        guard.clear_ready();
    }
    std::future::pending().await
}
