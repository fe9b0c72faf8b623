//! Tells when a process has ended or was stopped, without reaping it: so its status can be read and its id is not reused
//! until its group has been killed.

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus};

#[cfg(target_os = "linux")]
pub(super) use by_descriptor::Ending;
#[cfg(not(target_os = "linux"))]
pub(super) use by_looking::Ending;

/// Whether the process has ended; this does not reap it.
pub(super) fn has_ended(pid: Pid) -> bool {
    status(pid, WaitIdOptions::EXITED).is_none_or(|status| status.is_some())
}

/// Whether somebody stopped the process (SIGSTOP): it would do nothing with what it is given.
pub(super) fn is_stopped(pid: Pid) -> bool {
    status(pid, WaitIdOptions::STOPPED).is_some_and(|status| status.is_some())
}

/// The status that it ended with. None if it runs, if a signal ended it, or if it was reaped.
pub(super) fn exit_status(pid: Pid) -> Option<i32> {
    status(pid, WaitIdOptions::EXITED)??.exit_status()
}

/// What became of a child. The outer None: there is no such child; the inner: nothing of this kind.
fn status(pid: Pid, kind: WaitIdOptions) -> Option<Option<WaitIdStatus>> {
    let options = kind | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    rustix::process::waitid(WaitId::Pid(pid), options).ok()
}

#[cfg(target_os = "linux")]
mod by_descriptor {
    use std::io;
    use std::os::fd::OwnedFd;

    use basics::readiness;
    use rustix::process::{Pid, PidfdFlags};
    use tokio::io::unix::AsyncFd;

    /// The end of a process, as a descriptor that becomes readable.
    pub(crate) struct Ending(AsyncFd<OwnedFd>);

    impl Ending {
        pub(crate) fn of(pid: Pid) -> io::Result<Self> {
            let descriptor = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
            Ok(Ending(readiness::watch(descriptor)?))
        }

        /// Waits for it.
        pub(crate) async fn came(&self) {
            let _ = self.0.readable().await;
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod by_looking {
    use std::io;
    use std::time::Duration;

    use rustix::process::Pid;

    /// How often to look. Output that ends tells of most ends before.
    const INTERVAL: Duration = Duration::from_millis(20);

    /// The end of a process, where only looking tells of it.
    pub(crate) struct Ending(Pid);

    impl Ending {
        pub(crate) fn of(pid: Pid) -> io::Result<Self> {
            Ok(Ending(pid))
        }

        /// Waits for it.
        pub(crate) async fn came(&self) {
            while !super::has_ended(self.0) {
                tokio::time::sleep(INTERVAL).await;
            }
        }
    }
}
