//! Keeps as many processes warm as are wanted, without being in anybody's way.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Launch, Pool};
use crate::processes::cpu_time;

/// How often what waits is looked after.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

/// How long starting ahead waits for requests that wait for their first piece: under a load that
/// never pauses, not to start ahead would be slower still.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A process that has just been started computes for 0.4 to 0.9 s. The next one is started when it
/// has used next to nothing for this long, or after `START_MOST`.
const AT_REST: Duration = Duration::from_millis(150);
const START_MOST: Duration = Duration::from_secs(5);

/// How often that is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(30);

impl Pool {
    /// Ends what has waited for too long, and starts what is lacking, one at a time.
    pub(crate) async fn maintain(self: Arc<Self>) {
        loop {
            let ended = self.waiting().sweep(Instant::now());
            drop(ended);
            for _ in 0..self.processes.surplus() {
                self.evict();
            }
            let lacking = self.waiting().lacking(Instant::now());
            let wanted = lacking.into_iter().find(|launch| self.make_room(launch));
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
                // Whatever happens meanwhile, or nothing.
                let _ = tokio::time::timeout(MAINTENANCE_INTERVAL, self.changed.notified()).await;
            }
        }
    }

    /// Waits, within bounds, until no request waits for its first piece.
    async fn until_no_request_awaits_its_first_token(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.awaiting_first_token.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
            let _ = tokio::time::timeout(POLL_INTERVAL, self.changed.notified()).await;
        }
    }

    /// Waits until the process that was started last has started, or is taken.
    async fn at_rest(&self, launch: &Launch) {
        let Some(pid) = self.waiting().youngest(launch) else {
            return;
        };
        let deadline = Instant::now() + START_MOST;
        let (mut used, mut since) = (cpu_time(pid), Instant::now());
        while since.elapsed() < AT_REST && Instant::now() < deadline && self.waiting().has(pid) {
            tokio::time::sleep(POLL_INTERVAL).await;
            let now = cpu_time(pid);
            if now > used + Duration::from_millis(10) {
                (used, since) = (now, Instant::now());
            }
        }
    }
}
