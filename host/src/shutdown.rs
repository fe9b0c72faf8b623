//! Signals.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that this service listens to.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    /// End: finish what is in flight the first time, at once the second.
    Stop,
    /// Look at the configuration and the guests now.
    Reload,
}

impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> Intent {
        tokio::select! {
            _ = self.terminate.recv() => Intent::Stop,
            _ = self.interrupt.recv() => Intent::Stop,
            _ = self.hangup.recv() => Intent::Reload,
        }
    }

    /// The next signal to stop.
    pub(crate) async fn stop(&mut self) {
        while self.next().await != Intent::Stop {}
    }
}
