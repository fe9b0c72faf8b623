//! Tells systemd how the service is, where systemd started it (`Type=notify`).
//!
//! Without systemd each of these does nothing. A message that cannot be sent is not worth more than
//! a line of the log: systemd then acts on its own time limits.

use std::time::Duration;

use sd_notify::NotifyState;

/// The service listens. `status` is what `systemctl status` shows.
pub(crate) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The service takes no new requests any more.
pub(crate) fn stopping() {
    notify(&[
        NotifyState::Stopping,
        NotifyState::Status("draining: requests in flight may finish"),
    ]);
}

/// Tells systemd that the service is alive, as often as its `WatchdogSec` asks for: for ever, or
/// not at all where it does not ask. Runs as a task, so that a runtime that hangs says nothing.
pub(crate) async fn keep_watchdog_calm() {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    // systemd's manual advises half of the limit.
    let mut ticks = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot tell systemd how the service is");
    }
}
