//! Starts warm processes, one at a time. While a request waits for its first token, a start is delayed, but
//! not for longer than `START_DELAY_MAX`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use processes::cpu_time;
use tokio::time::Instant;

use super::idle::IdleSet;
use super::{Launch, Pool};

/// How often idle processes are maintained if nothing happens.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

/// The longest delay of a warm start while requests wait for their first token. Without this limit,
/// a load that never pauses would prevent all warm starts, and requests without warm processes are
/// slower still.
const START_DELAY_MAX: Duration = Duration::from_millis(1500);

/// A new process is busy for 0.4 to 0.9 s. The next one is started when the new one has used no processor time
/// for this long, or after `START_DURATION_MAX`.
const REST_DURATION: Duration = Duration::from_millis(150);
const START_DURATION_MAX: Duration = Duration::from_secs(5);

/// How often it is checked again whether a process is at rest, and whether requests wait for their
/// first token.
const POLL_INTERVAL: Duration = Duration::from_millis(30);

impl Pool {
    /// Runs for ever: ends idle processes that are too old, and starts the warm ones that are lacking.
    pub(crate) async fn maintain(self: Arc<Self>) {
        loop {
            self.with(IdleSet::sweep).end();
            for _ in 0..self.processes.surplus() {
                self.evict();
            }
            let lacking = self.with(|idle| idle.lacking());
            // A program that was replaced is tried first. Until then nothing makes room for it.
            let ready = |launch: &Arc<Launch>| launch.installation.is_ready(&launch.line.program);
            let mut lacking = lacking.into_iter().filter(ready);
            let wanted = lacking.find(|launch| self.make_room(launch));
            let started = match wanted {
                Some(launch) => {
                    self.until_no_request_awaits_its_first_token().await;
                    let started = self.start_ahead(&launch);
                    if started {
                        self.at_rest(&launch).await;
                    }
                    started
                }
                None => false,
            };
            if !started {
                // Until something changes, or the interval is over.
                let _ = tokio::time::timeout(MAINTENANCE_INTERVAL, self.changed.notified()).await;
            }
        }
    }

    /// Waits until no request waits for its first token, but not for longer than `START_DELAY_MAX`.
    async fn until_no_request_awaits_its_first_token(&self) {
        let deadline = Instant::now() + START_DELAY_MAX;
        while self.awaiting_first_token.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
            let _ = tokio::time::timeout(POLL_INTERVAL, self.changed.notified()).await;
        }
    }

    /// Waits until the youngest warm process with this launch has finished its start, or is taken.
    async fn at_rest(&self, launch: &Launch) {
        let Some(pid) = self.with(|idle| idle.youngest(launch)) else {
            return;
        };
        let deadline = Instant::now() + START_DURATION_MAX;
        let (mut used, mut since) = (cpu_time(pid), Instant::now());
        while since.elapsed() < REST_DURATION
            && Instant::now() < deadline
            && self.with(|idle| idle.has(pid))
        {
            tokio::time::sleep(POLL_INTERVAL).await;
            let now = cpu_time(pid);
            if now > used + Duration::from_millis(10) {
                (used, since) = (now, Instant::now());
            }
        }
    }
}
